//! Commands that only print: a UserSig, completions, the manual page.

use std::io::{self, Write};
use std::time::SystemTime;

use clap::CommandFactory;
use secrecy::ExposeSecret;

use super::environment;
use super::exit::{Exit, LastWord};
use super::flags::{Cli, UsersigFlags};
use super::settings::Connection;
use crate::api::usersig::{Credential, sign};

/// Prints a UserSig for the configured app and identifier.
pub(super) fn usersig(flags: &UsersigFlags) -> LastWord {
    let identity = match Connection::identity(&flags.connection, &environment) {
        Ok(identity) => identity,
        Err(word) => return word,
    };
    let usersig = match &identity.credential {
        Credential::Key(key) => sign(key, identity.sdkappid, &identity.identifier, SystemTime::now(), flags.expire),
        Credential::Ready(usersig) => usersig.clone(),
    };
    to_stdout(format!("{}\n", usersig.expose_secret()).as_bytes())
}

/// Prints a completion script.
pub(super) fn completions(shell: clap_complete::Shell) -> LastWord {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "chatlift", &mut script);
    to_stdout(&script)
}

/// Prints the manual page, its commands' pages included.
pub(super) fn man() -> LastWord {
    let mut page = Vec::new();
    let mut command = Cli::command();
    command.build();
    let rendered = clap_mangen::Man::new(command.clone()).render(&mut page).and_then(|()| {
        let commands = command.get_subcommands().filter(|sub| sub.get_name() != "help");
        commands.into_iter().try_for_each(|sub| clap_mangen::Man::new(sub.clone()).render(&mut page))
    });
    match rendered {
        Ok(()) => to_stdout(&page),
        Err(error) => cannot_print(&error),
    }
}

/// Writes data to stdout. A reader that has gone away is nobody's error.
pub(super) fn to_stdout(data: &[u8]) -> LastWord {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(data).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => cannot_print(&error),
        Ok(()) | Err(_) => LastWord::done(""),
    }
}

fn cannot_print(error: &io::Error) -> LastWord {
    LastWord::new(Exit::CannotGoOn, format!("cannot write to stdout: {error}"), "check where stdout leads")
}
