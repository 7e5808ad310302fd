//! The commands that the sandbox knows, and how often each may be called.

use std::num::NonZeroU32;

use crate::api::wire;

/// A command of the REST API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    AccountImport,
    MultiaccountImport,
    AccountCheck,
    AccountDelete,
    Kick,
    PortraitGet,
    PortraitSet,
    QueryOnlineStatus,
}

impl Command {
    /// All of them; the position of each is its discriminant.
    pub const ALL: [Command; 8] = [
        Command::AccountImport,
        Command::MultiaccountImport,
        Command::AccountCheck,
        Command::AccountDelete,
        Command::Kick,
        Command::PortraitGet,
        Command::PortraitSet,
        Command::QueryOnlineStatus,
    ];

    /// The command with this SERVICE/COMMAND, letter for letter.
    #[must_use]
    pub fn by_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.path() == path)
    }

    /// The command with this name, without its service.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.name() == name)
    }

    /// SERVICE/COMMAND.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Command::AccountImport => wire::ACCOUNT_IMPORT,
            Command::MultiaccountImport => wire::MULTIACCOUNT_IMPORT,
            Command::AccountCheck => wire::ACCOUNT_CHECK,
            Command::AccountDelete => wire::ACCOUNT_DELETE,
            Command::Kick => wire::KICK,
            Command::PortraitGet => wire::PORTRAIT_GET,
            Command::PortraitSet => wire::PORTRAIT_SET,
            Command::QueryOnlineStatus => wire::QUERY_ONLINE_STATUS,
        }
    }

    /// The path less its service.
    #[must_use]
    pub fn name(self) -> &'static str {
        let path = self.path();
        path.split_once('/').map_or(path, |(_, name)| name)
    }

    /// Calls a second, `imports` being what is set for [`Command::AccountImport`]; without a limit there, nothing is limited.
    pub(super) fn calls_per_s(self, imports: Option<NonZeroU32>) -> Option<u32> {
        let imports = imports?.get();
        Some(match self {
            Command::AccountImport => imports,
            Command::MultiaccountImport | Command::AccountCheck | Command::AccountDelete => wire::BATCH_CALLS_PER_S.get(),
            Command::Kick | Command::PortraitGet | Command::PortraitSet | Command::QueryOnlineStatus => wire::PROFILE_CALLS_PER_S.get(),
        })
    }

    /// Whether it makes accounts.
    pub(super) const fn imports(self) -> bool {
        matches!(self, Command::AccountImport | Command::MultiaccountImport)
    }
}
