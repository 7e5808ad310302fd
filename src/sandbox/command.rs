//! The commands as the service has them: the limit of each, and what its requests and answers have in common.
//!
//! Names, paths and documented limits are those of the wire format.

use super::settings::SandboxSettings;
use crate::io::api::wire::Command;

/// The service of accounts in a command's path.
const ACCOUNTS: &str = "im_open_login_svc/";
/// The service of profiles in a command's path.
const PROFILES: &str = "profile/";
/// A parameter is invalid: the account service's code. Source: Tencent's error code page.
pub(super) const INVALID_PARAMETER: i64 = 70402;
/// A parameter is invalid: the code of all other services. Source: Tencent's error code page.
pub(super) const INVALID_REQUEST: i64 = 40001;

/// The command whose path is exactly this SERVICE/COMMAND.
pub(super) fn by_path(path: &str) -> Option<Command> {
    Command::ALL.into_iter().find(|command| command.spec().path == path)
}

/// The command of this name, without its service.
pub(super) fn by_name(name: &str) -> Option<Command> {
    Command::ALL.into_iter().find(|command| command.name() == name)
}

/// The limit of a command in requests per second. If there is none for [`Command::AccountImport`], no command has a limit.
pub(super) fn calls_per_s(command: Command, settings: &SandboxSettings) -> Option<u32> {
    let imports = settings.limit_per_s?;
    let documented = command.spec().calls_per_s;
    let limits = [(Command::AccountImport, Some(imports)), (Command::PortraitSet, settings.portrait_set_per_s)];
    let chosen = limits.into_iter().find(|(of, _)| *of == command);
    chosen.map_or(Some(documented), |(_, limit)| limit).map(std::num::NonZeroU32::get)
}

/// The code for an invalid body.
pub(super) fn invalid(command: Command) -> i64 {
    if command.spec().path.starts_with(ACCOUNTS) { INVALID_PARAMETER } else { INVALID_REQUEST }
}

/// Whether its answers carry `ErrorDisplay`. Source: Tencent's documentation of the profile service.
pub(super) fn is_of_profiles(command: Command) -> bool {
    command.spec().path.starts_with(PROFILES)
}

/// Whether it sets what the same user's next request may set otherwise, so that their order matters.
pub(super) const fn sets_users(command: Command) -> bool {
    matches!(command, Command::AccountImport | Command::MultiaccountImport | Command::PortraitSet)
}
