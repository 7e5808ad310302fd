//! Commands that only print: a UserSig, completions, the manual page.

use std::fmt::Display;
use std::time::SystemTime;

use clap::CommandFactory;
use secrecy::ExposeSecret;

use super::environment;
use super::flags::{Cli, UsersigFlags};
use super::settings::Connection;
use super::stdout::print;
use crate::io::api::usersig::{Credential, sign};
use crate::shell::exit::ExitMessage;

/// Prints a UserSig for the configured app and identifier.
pub(super) fn usersig(flags: &UsersigFlags) -> ExitMessage {
    let identity = match Connection::identity(&flags.connection, &environment) {
        Ok(identity) => identity,
        Err(word) => return word,
    };
    let usersig = match &identity.credential {
        Credential::Key(key) => sign(key, identity.sdkappid, &identity.identifier, SystemTime::now(), flags.expire),
        Credential::Ready(usersig) => usersig.clone(),
    };
    printed(&format_args!("{}\n", usersig.expose_secret()))
}

/// Prints a completion script.
pub(super) fn completions(shell: clap_complete::Shell) -> ExitMessage {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "chatlift", &mut script);
    printed(&String::from_utf8_lossy(&script))
}

/// Prints the manual page with the pages of all commands.
pub(super) fn man() -> ExitMessage {
    let mut page = Vec::new();
    let mut command = Cli::command();
    command.build();
    let rendered = clap_mangen::Man::new(command.clone()).render(&mut page).and_then(|()| {
        let commands = command.get_subcommands().filter(|sub| sub.get_name() != "help");
        commands.into_iter().try_for_each(|sub| clap_mangen::Man::new(sub.clone()).render(&mut page))
    });
    rendered.expect("a Vec takes any bytes");
    printed(&String::from_utf8_lossy(&page))
}

fn printed(data: &dyn Display) -> ExitMessage {
    print(data).map_or_else(|word| word, |()| ExitMessage::done(""))
}
