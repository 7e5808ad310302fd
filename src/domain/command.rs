//! The commands of the REST API that this tool calls.
//!
//! This module has their names only. Paths and bodies are in `io::api::wire`, limits are applied by `io::gate`.

/// A command of the service; each has a limit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Command {
    /// One account a call.
    AccountImport,
    /// Up to a hundred accounts a call, without a reason for those it refuses.
    MultiaccountImport,
    /// Reads profiles.
    PortraitGet,
    /// Says which accounts exist.
    AccountCheck,
    /// Deletes accounts, for good.
    AccountDelete,
    /// Ends a user's sessions; one user a call.
    Kick,
    /// Says who is online.
    QueryOnlineStatus,
}

impl Command {
    /// All of them; the position of each is its discriminant.
    pub const ALL: [Command; 7] = [
        Command::AccountImport,
        Command::MultiaccountImport,
        Command::PortraitGet,
        Command::AccountCheck,
        Command::AccountDelete,
        Command::Kick,
        Command::QueryOnlineStatus,
    ];

    /// The name in the documentation, without its service.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Command::AccountImport => "account_import",
            Command::MultiaccountImport => "multiaccount_import",
            Command::PortraitGet => "portrait_get",
            Command::AccountCheck => "account_check",
            Command::AccountDelete => "account_delete",
            Command::Kick => "kick",
            Command::QueryOnlineStatus => "query_online_status",
        }
    }

    /// The API by which the breaker is called that this one's faults speak for: the two imports share one, every other API has its own.
    #[must_use]
    pub const fn breaker(self) -> Command {
        match self {
            Command::AccountImport | Command::MultiaccountImport => Command::AccountImport,
            Command::PortraitGet | Command::AccountCheck | Command::AccountDelete | Command::Kick | Command::QueryOnlineStatus => self,
        }
    }
}

/// Something for each command.
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
