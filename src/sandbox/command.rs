//! The commands that the sandbox knows, with the limit of each.

use std::num::NonZeroU32;

use crate::io::api::wire;

/// A command of the REST API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxCommand {
    AccountImport,
    MultiaccountImport,
    AccountCheck,
    AccountDelete,
    Kick,
    PortraitGet,
    PortraitSet,
    QueryOnlineStatus,
}

impl SandboxCommand {
    /// All commands; the position of each is its discriminant.
    pub const ALL: [SandboxCommand; 8] = [
        SandboxCommand::AccountImport,
        SandboxCommand::MultiaccountImport,
        SandboxCommand::AccountCheck,
        SandboxCommand::AccountDelete,
        SandboxCommand::Kick,
        SandboxCommand::PortraitGet,
        SandboxCommand::PortraitSet,
        SandboxCommand::QueryOnlineStatus,
    ];

    /// The command whose path is exactly this SERVICE/COMMAND.
    #[must_use]
    pub fn by_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.path() == path)
    }

    /// The command of this name, without its service.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.name() == name)
    }

    /// The path, SERVICE/COMMAND.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            SandboxCommand::AccountImport => wire::ACCOUNT_IMPORT,
            SandboxCommand::MultiaccountImport => wire::MULTIACCOUNT_IMPORT,
            SandboxCommand::AccountCheck => wire::ACCOUNT_CHECK,
            SandboxCommand::AccountDelete => wire::ACCOUNT_DELETE,
            SandboxCommand::Kick => wire::KICK,
            SandboxCommand::PortraitGet => wire::PORTRAIT_GET,
            SandboxCommand::PortraitSet => wire::PORTRAIT_SET,
            SandboxCommand::QueryOnlineStatus => wire::QUERY_ONLINE_STATUS,
        }
    }

    /// The path without its service.
    #[must_use]
    pub fn name(self) -> &'static str {
        let path = self.path();
        path.split_once('/').map_or(path, |(_, name)| name)
    }

    /// The limit of this command in requests per second. `imports` is the limit set for [`SandboxCommand::AccountImport`]; if it is `None`,
    /// no command has a limit.
    pub(super) fn calls_per_s(self, imports: Option<NonZeroU32>) -> Option<u32> {
        let imports = imports?.get();
        Some(match self {
            SandboxCommand::AccountImport => imports,
            SandboxCommand::MultiaccountImport | SandboxCommand::AccountCheck | SandboxCommand::AccountDelete => {
                wire::BATCH_CALLS_PER_S.get()
            }
            SandboxCommand::Kick | SandboxCommand::PortraitGet | SandboxCommand::PortraitSet | SandboxCommand::QueryOnlineStatus => {
                wire::PROFILE_CALLS_PER_S.get()
            }
        })
    }

    /// Whether it creates accounts.
    pub(super) const fn imports(self) -> bool {
        matches!(self, SandboxCommand::AccountImport | SandboxCommand::MultiaccountImport)
    }
}
