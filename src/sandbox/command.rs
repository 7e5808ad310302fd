//! The commands that the sandbox knows, with the limit of each.

use super::settings::SandboxSettings;
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

    /// The limit of this command in requests per second. If there is none for [`SandboxCommand::AccountImport`], no command has a limit.
    pub(super) fn calls_per_s(self, settings: &SandboxSettings) -> Option<u32> {
        let imports = settings.limit_per_s?.get();
        Some(match self {
            SandboxCommand::AccountImport => imports,
            SandboxCommand::PortraitSet => settings.portrait_set_per_s?.get(),
            SandboxCommand::MultiaccountImport | SandboxCommand::AccountCheck | SandboxCommand::AccountDelete => {
                wire::BATCH_CALLS_PER_S.get()
            }
            SandboxCommand::Kick | SandboxCommand::PortraitGet | SandboxCommand::QueryOnlineStatus => wire::PROFILE_CALLS_PER_S.get(),
        })
    }

    /// Whether its answers carry `ErrorDisplay`. Source: Tencent's documentation of the profile service.
    pub(super) const fn is_of_profiles(self) -> bool {
        matches!(self, SandboxCommand::PortraitGet | SandboxCommand::PortraitSet)
    }

    /// Whether it sets what the same user's next request may set otherwise, so that their order matters.
    pub(super) const fn sets_users(self) -> bool {
        matches!(self, SandboxCommand::AccountImport | SandboxCommand::MultiaccountImport | SandboxCommand::PortraitSet)
    }
}
