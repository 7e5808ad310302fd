//! The accounts that this process has had accepted last, of which no later record has been read: repeating one undoes nothing.

use tokio::time::Instant;

use super::RowCalls;
use super::user_order::UserKey;
use crate::domain::account::Account;
use crate::domain::command::Command;

#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) account: Account,
    pub(super) user_id: UserKey,
    pub(super) at: Instant,
    /// What was sent for it.
    pub(super) calls: RowCalls,
}

/// One for each API, two different ones where there are two.
#[derive(Debug, Default)]
pub(super) struct LastAccepted {
    by_import: Option<Accepted>,
    by_profile: Option<Accepted>,
}

impl LastAccepted {
    pub(super) fn note(&mut self, accepted: Accepted) {
        if accepted.calls == RowCalls::Import {
            self.by_import = Some(accepted);
        } else if let Some(before) = self.by_profile.replace(accepted)
            && before.calls == RowCalls::ImportAndProfile
        {
            self.by_import = Some(before);
        }
    }

    /// A later record of this UserID was read.
    pub(super) fn forget(&mut self, user_id: UserKey) {
        for slot in [&mut self.by_import, &mut self.by_profile] {
            slot.take_if(|accepted| accepted.user_id == user_id);
        }
    }

    /// When the one was accepted with which this API can be tested.
    pub(super) fn since(&self, breaker: Command) -> Option<Instant> {
        let accepted = match breaker {
            Command::PortraitSet => self.by_profile.as_ref(),
            _ => self.by_import.as_ref().or_else(|| self.by_profile.as_ref().filter(|accepted| is_imported(accepted))),
        };
        accepted.map(|accepted| accepted.at)
    }

    pub(super) fn take(&mut self, breaker: Command) -> Option<Accepted> {
        match breaker {
            Command::PortraitSet => self.by_profile.take(),
            _ => self.by_import.take().or_else(|| self.by_profile.take_if(|accepted| is_imported(accepted))),
        }
    }

    /// A test with it has ended: it may be repeated again, unless there is a later one.
    pub(super) fn give_back(&mut self, breaker: Command, (account, user_id, at): (Account, UserKey, Instant)) {
        let (slot, calls) = match breaker {
            Command::PortraitSet => (&mut self.by_profile, RowCalls::ProfileOnly),
            _ => (&mut self.by_import, RowCalls::Import),
        };
        slot.get_or_insert(Accepted { account, user_id, at, calls });
    }
}

/// Whether this run has imported it.
fn is_imported(accepted: &Accepted) -> bool {
    match accepted.calls {
        RowCalls::Import | RowCalls::ImportAndProfile => true,
        RowCalls::ProfileOnly => false,
    }
}
