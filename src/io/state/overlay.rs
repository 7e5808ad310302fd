//! What an open run makes of accounts, from its plan and its results, before the state takes them over.

use std::io;
use std::iter::Peekable;

use super::account::AccountAfterRun;
use super::run_record::{Earlier, SendOutcome, Sent};
use crate::domain::change::{AccountCall, Carried, InDoubt, KnownAccount, ProfileHashes};
use crate::domain::known_tags::{TagHash, TagNumber};

/// What the open run makes of accounts.
pub(super) struct RunOverlay<I: Iterator> {
    outcomes: Peekable<I>,
    send_intent_up_to: u64,
}

/// A row of `planned`.
#[derive(Debug, Clone)]
pub(super) struct PlannedRow {
    pub(super) row: u64,
    /// What is sent, if anything is.
    pub(super) sent: Option<AccountCall>,
    pub(super) profile: ProfileHashes,
    pub(super) tags: Vec<(TagNumber, TagHash)>,
    /// The other tags of the record, which are sent only if the account has to be made anew.
    pub(super) held_back: Vec<(TagNumber, TagHash)>,
    /// Fields that a later look at the service has found to differ, or [`InDoubt::EXISTENCE`] if there is no account.
    pub(super) found: InDoubt,
    /// Tags that it has found to differ.
    pub(super) found_tags: Vec<TagNumber>,
}

impl<I: Iterator<Item = io::Result<SendOutcome>>> RunOverlay<I> {
    pub(super) fn new(outcomes: I, send_intent_up_to: u64) -> Self {
        Self { outcomes: outcomes.peekable(), send_intent_up_to }
    }

    /// What an account is by now; ids come in order.
    pub(super) fn apply(&mut self, id: &[u8], planned: &PlannedRow, before: Option<KnownAccount>) -> io::Result<AccountAfterRun> {
        let came = self.outcome(id, planned.row)?;
        let is_intended = planned.row <= self.send_intent_up_to;
        let Some(account) = planned.sent else { return Ok(before.map_or(AccountAfterRun::Unknown, AccountAfterRun::Known)) };
        let carried = Carried { account, profile: planned.profile, tags: &planned.tags };
        let Some(came) = came else {
            // Where no intent was recorded, the service holds what it held before this run, whatever that is.
            let held = if is_intended { Some(KnownAccount::once_sent(before, carried)) } else { before };
            return Ok(held.map_or(AccountAfterRun::Unknown, AccountAfterRun::Known));
        };
        let before = if is_void(came.earlier, account) { before.map(KnownAccount::doubted) } else { before };
        let all: Vec<_>;
        let carried = if is_made_anew(came.earlier, account) {
            all = planned.tags.iter().chain(&planned.held_back).copied().collect();
            Carried { account: AccountCall::Imported, tags: &all, ..carried }
        } else {
            carried
        };
        let held = if planned.found.has(InDoubt::EXISTENCE) { before } else { after(before, carried, came.sent) };
        Ok(held.map_or(AccountAfterRun::Unknown, |mut held| {
            held.in_doubt = held.in_doubt.and(planned.found.without(InDoubt::EXISTENCE));
            planned.found_tags.iter().for_each(|number| held.tags.doubt(*number));
            AccountAfterRun::Known(held)
        }))
    }

    fn outcome(&mut self, id: &[u8], row: u64) -> io::Result<Option<SendOutcome>> {
        let mut found = None;
        while let Some(next) = self.outcomes.next_if(|next| next.as_ref().is_ok_and(|next| next.id.as_bytes() <= id) || next.is_err()) {
            let outcome = next?;
            if outcome.id.as_bytes() == id && outcome.row == row {
                found = Some(outcome);
            }
        }
        Ok(found)
    }
}

/// Whether the account may have been made anew by the row.
const fn is_void(earlier: Earlier, account: AccountCall) -> bool {
    match (earlier, account) {
        (Earlier::Holds, _) | (_, AccountCall::Imported) => false,
        (Earlier::InDoubtIfLeft | Earlier::MadeAnewIfLeft, AccountCall::Left) => true,
    }
}

/// Whether the account was made anew by the row, for certain.
const fn is_made_anew(earlier: Earlier, account: AccountCall) -> bool {
    matches!((earlier, account), (Earlier::MadeAnewIfLeft, AccountCall::Left))
}

/// The account once it is known what came of the requests for its record.
fn after(before: Option<KnownAccount>, carried: Carried, came: Sent) -> Option<KnownAccount> {
    match came {
        Sent::Taken { at } => Some(KnownAccount::once_taken(before, carried, at)),
        Sent::TagsRefused { at } => Some(KnownAccount::once_imported(before, carried, at)),
        Sent::TagsUnknown { at } => Some(KnownAccount::once_tags_sent(KnownAccount::once_imported(before, carried, at), carried)),
        Sent::Unknown => Some(KnownAccount::once_sent(before, carried)),
        // The service holds what it held before this run, whatever that is.
        Sent::Refused => before,
    }
}
