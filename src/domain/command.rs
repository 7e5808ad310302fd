//! The commands of the REST API that chatlift uses.
//!
//! One table, [`Command::spec`], has the name, path, limits and properties of each. Bodies are in `io::api`, limits are applied by
//! `io::gate`.

use std::num::NonZeroU32;

use super::verdict::{NO_ACCOUNT, NO_PROFILE};

/// A command of the service; each has a limit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Command {
    /// Imports one account per request.
    AccountImport,
    /// Imports up to a hundred accounts per request, and gives no reason for refusing one.
    MultiaccountImport,
    /// Reads profiles.
    PortraitGet,
    /// Sets fields of a profile; one user per request.
    PortraitSet,
    /// Tells which accounts exist.
    AccountCheck,
    /// Deletes accounts permanently.
    AccountDelete,
    /// Ends a user's sessions; one user per request.
    Kick,
    /// Tells who is online.
    QueryOnlineStatus,
}

impl Command {
    /// All commands; the position of each is its discriminant.
    pub const ALL: [Command; 8] = [
        Command::AccountImport,
        Command::MultiaccountImport,
        Command::PortraitGet,
        Command::PortraitSet,
        Command::AccountCheck,
        Command::AccountDelete,
        Command::Kick,
        Command::QueryOnlineStatus,
    ];

    /// The name in the documentation, without its service.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.spec().name
    }

    /// The properties of the command, from the only table of commands.
    #[must_use]
    pub const fn spec(self) -> CommandSpec {
        match self {
            Command::AccountImport => CommandSpec {
                accounts_per_call: 1,
                answer: AnswerForm::Nothing,
                ..CommandSpec::changing(self, "account_import", "im_open_login_svc/account_import", 200)
            },
            Command::MultiaccountImport => CommandSpec {
                answer: AnswerForm::FailAccounts,
                breaker: Command::AccountImport,
                ..CommandSpec::changing(self, "multiaccount_import", "im_open_login_svc/multiaccount_import", 100)
            },
            Command::PortraitGet => CommandSpec::reading(self, AnswerForm::Profiles, "portrait_get", "profile/portrait_get", 200),
            Command::PortraitSet => CommandSpec {
                accounts_per_call: 1,
                answer: AnswerForm::Nothing,
                no_account_code: Some(NO_PROFILE),
                ..CommandSpec::changing(self, "portrait_set", "profile/portrait_set", 200)
            },
            Command::AccountCheck => {
                CommandSpec::reading(self, AnswerForm::Statuses, "account_check", "im_open_login_svc/account_check", 100)
            }
            Command::AccountDelete => CommandSpec {
                no_account_code: Some(NO_ACCOUNT),
                ..CommandSpec::changing(self, "account_delete", "im_open_login_svc/account_delete", 100)
            },
            Command::Kick => CommandSpec {
                accounts_per_call: 1,
                answer: AnswerForm::Nothing,
                no_account_code: Some(NO_ACCOUNT),
                ..CommandSpec::changing(self, "kick", "im_open_login_svc/kick", 200)
            },
            Command::QueryOnlineStatus => CommandSpec {
                accounts_per_call: 500,
                no_account_code: Some(NO_ACCOUNT),
                ..CommandSpec::reading(self, AnswerForm::Presences, "query_online_status", "openim/query_online_status", 200)
            },
        }
    }
}

/// The properties of a command. Source of names and numbers: the documentation of each API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandSpec {
    pub name: &'static str,
    /// `SERVICE/COMMAND`.
    pub path: &'static str,
    /// The documented limit in requests per second.
    pub calls_per_s: NonZeroU32,
    /// The documented maximum of accounts per request.
    pub accounts_per_call: usize,
    pub answer: AnswerForm,
    /// The command whose breaker counts this command's failures. The two imports share one; every other API has its own.
    pub breaker: Command,
    pub repetition: Repetition,
    /// A refusal with this code is an answer: the account does not exist.
    pub no_account_code: Option<i64>,
}

/// What an answer says of a request that was carried out, beside its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerForm {
    /// Nothing else.
    Nothing,
    /// The users that were refused.
    FailAccounts,
    Profiles,
    /// Whether each user has an account.
    Statuses,
    /// Whether it was done for each user, whom an item names with this key.
    Results {
        user_key: &'static str,
    },
    Presences,
}

impl AnswerForm {
    #[must_use]
    pub const fn size(self) -> AnswerSize {
        match self {
            AnswerForm::Nothing | AnswerForm::FailAccounts => AnswerSize::Short,
            AnswerForm::Profiles | AnswerForm::Statuses | AnswerForm::Results { .. } | AnswerForm::Presences => AnswerSize::Long,
        }
    }
}

/// How long an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerSize {
    /// A few words or a list of UserIDs.
    Short,
    /// An item for each account.
    Long,
}

/// Whether a request may be repeated without need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repetition {
    /// It only reads, so it may be repeated to test whether the service works.
    Harmless,
    /// It changes accounts.
    Changing,
}

impl CommandSpec {
    /// A command that reads up to a hundred accounts.
    const fn reading(command: Command, answer: AnswerForm, name: &'static str, path: &'static str, calls_per_s: u32) -> Self {
        Self {
            name,
            path,
            calls_per_s: NonZeroU32::new(calls_per_s).expect("a limit is not zero"),
            accounts_per_call: 100,
            answer,
            breaker: command,
            repetition: Repetition::Harmless,
            no_account_code: None,
        }
    }

    /// A command that changes up to a hundred accounts, and says for each whether it was done.
    const fn changing(command: Command, name: &'static str, path: &'static str, calls_per_s: u32) -> Self {
        Self {
            repetition: Repetition::Changing,
            ..Self::reading(command, AnswerForm::Results { user_key: "UserID" }, name, path, calls_per_s)
        }
    }
}

/// One value for each command.
#[derive(Debug, Clone, Default)]
pub struct PerCommand<T>([T; Command::ALL.len()]);

impl<T> PerCommand<T> {
    #[must_use]
    pub fn new(make: impl FnMut(Command) -> T) -> Self {
        Self(Command::ALL.map(make))
    }

    pub fn iter(&self) -> impl Iterator<Item = (Command, &T)> {
        Command::ALL.into_iter().zip(&self.0)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Command, &mut T)> {
        Command::ALL.into_iter().zip(&mut self.0)
    }
}

impl<T> std::ops::Index<Command> for PerCommand<T> {
    type Output = T;

    fn index(&self, command: Command) -> &T {
        &self.0[command as usize]
    }
}

impl<T> std::ops::IndexMut<Command> for PerCommand<T> {
    fn index_mut(&mut self, command: Command) -> &mut T {
        &mut self.0[command as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_its_path_and_its_position_in_the_list() {
        for (position, command) in Command::ALL.into_iter().enumerate() {
            let spec = command.spec();
            assert_eq!(command as usize, position);
            assert_eq!(spec.path.split_once('/').map(|(_, name)| name), Some(spec.name));
            assert!(Command::ALL.contains(&spec.breaker) && spec.accounts_per_call > 0);
        }
    }
}
