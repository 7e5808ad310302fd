//! What an open run makes of accounts, from its plan and its results, before the state takes them over.

use std::io;
use std::iter::Peekable;

use super::account::AccountAfterRun;
use super::run_record::{SendOutcome, Sent};
use crate::domain::change::{InDoubt, KnownAccount, ProfileHashes};

/// What the open run makes of accounts.
pub(super) struct RunOverlay<I: Iterator> {
    outcomes: Peekable<I>,
    sent_up_to: u64,
}

/// A row of `planned`.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlannedRow {
    pub(super) row: u64,
    pub(super) is_sent: bool,
    pub(super) profile: ProfileHashes,
    /// What a later look at the service has found: fields that differ, or [`InDoubt::EXISTENCE`] if there is no account.
    pub(super) found: InDoubt,
}

impl<I: Iterator<Item = io::Result<SendOutcome>>> RunOverlay<I> {
    pub(super) fn new(outcomes: I, sent_up_to: u64) -> Self {
        Self { outcomes: outcomes.peekable(), sent_up_to }
    }

    /// What an account is by now; ids come in order.
    pub(super) fn apply(&mut self, id: &[u8], planned: PlannedRow, before: Option<KnownAccount>) -> io::Result<AccountAfterRun> {
        let sent = self.outcome(id, planned.row)?;
        if !planned.is_sent {
            return Ok(before.map_or(AccountAfterRun::Unknown, AccountAfterRun::Known));
        }
        let held = match sent {
            Some(_) if planned.found.has(InDoubt::EXISTENCE) => before,
            Some(Sent::Taken { at }) => Some(KnownAccount::once_taken(before, planned.profile, at)),
            Some(Sent::Unknown) => Some(KnownAccount::once_sent(before, planned.profile)),
            None if planned.row <= self.sent_up_to => return Ok(AccountAfterRun::Known(KnownAccount::once_sent(before, planned.profile))),
            // The service holds what it held before this run, whatever that is.
            Some(Sent::Refused) | None => before,
        };
        let found = if sent.is_some() { planned.found.without(InDoubt::EXISTENCE) } else { InDoubt::NOTHING };
        Ok(held
            .map_or(AccountAfterRun::Unknown, |held| AccountAfterRun::Known(KnownAccount { in_doubt: held.in_doubt.and(found), ..held })))
    }

    fn outcome(&mut self, id: &[u8], row: u64) -> io::Result<Option<Sent>> {
        let mut found = None;
        while let Some(next) = self.outcomes.next_if(|next| next.as_ref().is_ok_and(|next| next.id.as_bytes() <= id) || next.is_err()) {
            let outcome = next?;
            if outcome.id.as_bytes() == id && outcome.row == row {
                found = Some(outcome.sent);
            }
        }
        Ok(found)
    }
}
