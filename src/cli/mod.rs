//! The shell: flags become settings, settings start one flow, its end becomes an exit code.

mod audit;
mod check;
mod ending;
pub mod exit;
mod first_look;
pub mod flags;
mod gauge;
mod import;
mod input;
mod kept;
mod lanes;
mod last_calls;
pub mod log;
mod names;
mod print;
mod reconcile;
mod sandbox;
pub mod settings;
mod signals;
mod source;
mod spool;
mod state;
mod stdout;
mod sync;
mod target;
mod verify;
pub mod whole;

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::api::wire::BATCH_CALLS_PER_S;
use crate::check::Rates;
use exit::{Exit, LastWord};
use flags::{Cli, Command};

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    forbid_core_dumps();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let word = match cli.command {
        Command::Import(flags) => import::run(&flags),
        Command::Sync(flags) => sync::run(&flags),
        Command::State(flags) => state::run(&flags),
        Command::Check(flags) => check::run(&flags.input, Rates { single: flags.rate, batch: BATCH_CALLS_PER_S }),
        Command::Audit(flags) => audit::run(&flags),
        Command::Verify(flags) => verify::run(&flags),
        Command::Sandbox(flags) => sandbox::run(&flags),
        Command::Usersig(flags) => print::usersig(&flags),
        Command::Completions { shell } => print::completions(shell),
        Command::Man => print::man(),
    };
    say(&word);
    word.exit.into()
}

fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() {
        tell(&"hint: chatlift --help lists the commands, chatlift COMMAND --help the flags");
        return Exit::Yours.into();
    }
    Exit::Done.into()
}

fn say(word: &LastWord) {
    if !word.why.is_empty() {
        tell(word);
    }
}

/// A line on standard error. Where its reader is gone or its disk is full there is nobody to tell, and the exit code stays what it is.
fn tell(text: &dyn Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A core dump would hold the key. Where the limit cannot be set there is nothing better to do than to go on.
fn forbid_core_dumps() {
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
}

/// Reads this process' environment.
fn environment(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name)
}
