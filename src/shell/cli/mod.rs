//! The command line: flags become settings, settings start one flow, and its end becomes an exit code.

mod access;
mod atomic;
mod audit;
mod check;
mod client;
mod columns;
mod command_end;
mod command_line;
mod config_file;
mod conversions;
mod encoding;
mod exit_messages;
mod fd_limit;
pub mod flags;
mod import;
mod input;
mod lanes;
mod last_calls;
pub mod log;
mod man;
mod notify;
mod oddities;
mod on_end;
mod opened;
mod output_paths;
mod outputs;
mod page;
mod page_subject;
mod pipe;
mod preflight;
mod print;
mod probe;
mod proxy;
mod quota;
mod reach;
mod remedies;
mod run;
mod sandbox;
mod secret;
pub mod settings;
mod signals;
mod small_file;
mod source;
mod spool;
mod state;
mod state_corrections;
mod state_file;
mod status;
mod stdout;
mod sync;
mod url_source;
mod verify;

use std::num::NonZeroU32;
use std::process::ExitCode;

use crate::flow::check::Rates;
use crate::io::api::wire::{ACCOUNT_IMPORT_CALLS_PER_S, BATCH_CALLS_PER_S, PROFILE_CALLS_PER_S};
use crate::shell::exit::{Exit, ExitMessage};
use crate::shell::terminal::print_stderr;
use config_file::CommandLineError;
pub use config_file::is_for_one_run;
use flags::CliCommand;
use preflight::{Admission, OddFile};
use quota::GivenForForecast;

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    fd_limit::note_handed_down();
    forbid_core_dumps();
    signals::watch(end_at_once);
    if let Some(call) = on_end::pending(environment) {
        signals::end_follows_signal();
        call.make();
        return Exit::Stopped.into();
    }
    let cli = match config_file::parse(std::env::args_os().collect(), &environment) {
        Ok(cli) => cli,
        Err(CommandLineError::Usage(error)) => return usage(&error),
        Err(CommandLineError::File(word)) => {
            say(&word);
            return word.exit.into();
        }
    };
    let end = match cli.command {
        CliCommand::Import(flags) => import::run(&flags),
        CliCommand::Sync(flags) => sync::run(&flags),
        CliCommand::Verify(flags) => verify::run(&flags),
        other => without_run(other).into(),
    };
    end.conclude().into()
}

/// Runs a command that makes no calls on behalf of a file.
fn without_run(command: CliCommand) -> ExitMessage {
    match command {
        CliCommand::Import(_) | CliCommand::Sync(_) | CliCommand::Verify(_) => unreachable!("these have ends of their own"),
        CliCommand::State(flags) => state::run(&flags),
        CliCommand::Status(flags) => status::run(&flags),
        CliCommand::Check(flags) => {
            let odd = if flags.strict { OddFile::Refused } else { OddFile::Told };
            // A rate without limit forecasts nothing, so the documented one stands in.
            let or = |rate, documented| NonZeroU32::new(rate).unwrap_or(documented);
            let (single, profile) = (or(flags.rate, ACCOUNT_IMPORT_CALLS_PER_S), or(flags.profile_rate, PROFILE_CALLS_PER_S));
            let rates = Rates { single, batch: BATCH_CALLS_PER_S, profile };
            let given = GivenForForecast { flag: flags.quota.as_ref(), config: None, rates: flags.quota_rate };
            let shared = quota::for_forecast(given, &environment);
            check::run(&flags.input, rates, shared, Admission { odd, ..Admission::USUAL })
        }
        CliCommand::Audit(flags) => audit::run(&flags),
        CliCommand::Probe(flags) => probe::run(&flags),
        CliCommand::Sandbox(flags) => sandbox::run(&flags),
        CliCommand::Usersig(flags) => print::usersig(&flags),
        CliCommand::Completions { shell } => print::completions(shell),
        CliCommand::Man(flags) => man::run(&flags),
    }
}

/// Ends the process for a signal, on another thread than [`main`]'s.
#[expect(clippy::disallowed_methods, reason = "whatever the main thread waits for, a signal must end it")]
fn end_at_once(exit: Exit) {
    std::process::exit(exit.code().into());
}

fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() {
        print_stderr(&"hint: chatlift --help lists the commands, chatlift COMMAND --help the flags");
        return Exit::UserError.into();
    }
    Exit::Done.into()
}

fn say(word: &ExitMessage) {
    if !word.why.is_empty() {
        print_stderr(word);
    }
}

/// A core dump would contain the key. The limit on its size does not apply if dumps are passed to a program (`core_pattern` with a pipe),
/// so the process also asks the system not to dump it. If neither works, the run continues all the same.
fn forbid_core_dumps() {
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// Reads a variable of this process' environment.
fn environment(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name)
}
