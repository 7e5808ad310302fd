//! The reorder buffer: every record in input order, from being read until its outcome goes to the journal.

use std::collections::VecDeque;
use std::time::SystemTime;

use super::RowCalls;
use super::fresh_rows::Afterwards;
use super::profile_calls::Place;
use super::user_order::UserKey;
use crate::domain::account::{Account, InvalidAccount};
use crate::domain::outcome::{OriginalRecord, Outcome, RowOutcome, Status};
use crate::domain::position::InputPosition;
use crate::domain::tag::TagItem;
use crate::flow::dispatch::Failure;
use crate::io::roster::Record;

/// A record that has not settled.
#[derive(Debug)]
pub(super) struct UnsettledRecord {
    record: Record,
    user_id: UserKey,
    /// What it is once the service has it.
    accepted_as: Status,
    /// What is sent for it.
    pub(super) calls: RowCalls,
    /// Its place among the rows that get a profile.
    pub(super) place: Place,
    /// Tags that the service is known to have.
    held_back: Vec<TagItem>,
    /// Whether a request for it has left that may have changed something.
    pub(super) has_left: bool,
}

impl UnsettledRecord {
    /// What follows its import.
    pub(super) const fn afterwards(&self) -> Afterwards {
        match self.calls {
            RowCalls::Import => Afterwards::Settles,
            RowCalls::ImportAndProfile | RowCalls::ProfileOnly => Afterwards::GetsProfile,
        }
    }

    pub(super) fn hold_back(&mut self, tags: Vec<TagItem>) {
        self.held_back = tags;
    }

    /// Makes the record send all that it has, from the import on: the service does not know the account.
    pub(super) fn send_everything(&mut self) {
        self.calls = RowCalls::ImportAndProfile;
        if let Ok(account) = &mut self.record.account {
            let mut tags = std::mem::take(&mut account.tags).into_vec();
            tags.append(&mut self.held_back);
            account.tags = tags.into();
        }
    }

    pub(super) const fn user_id(&self) -> UserKey {
        self.user_id
    }

    pub(super) const fn row_of_file(&self) -> u64 {
        self.record.row
    }

    /// # Panics
    /// Never: an invalid record is settled from the start.
    pub(super) fn account(&self) -> &Account {
        self.record.account.as_ref().expect("an invalid record is never open")
    }
}

#[derive(Debug)]
struct BufferEntry {
    state: EntryState,
    /// Bytes of memory, roughly; kept here so that nobody has to look at the record for it.
    weight: usize,
}

#[derive(Debug)]
enum EntryState {
    Open(UnsettledRecord),
    Settled(RowOutcome),
    /// Nothing is to become of the records up to here.
    Skipped(InputPosition),
}

/// A record that has just settled.
#[derive(Debug)]
pub(super) struct SettledRecord {
    pub(super) user_id: UserKey,
    /// What the service has accepted of it.
    pub(super) accepted: Option<Account>,
    pub(super) calls: RowCalls,
    pub(super) place: Place,
}

/// The records by row: their number among those that came in.
#[derive(Debug)]
pub(super) struct ReorderBuffer {
    slots: VecDeque<BufferEntry>,
    /// The row of the first slot.
    first_row: u64,
    bytes: usize,
    /// Records that have settled, and are still here.
    settled: usize,
}

impl ReorderBuffer {
    pub(super) fn new(first_row: u64) -> Self {
        Self { slots: VecDeque::new(), first_row, bytes: 0, settled: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Bytes of memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Rows that have their outcome and wait here, mostly for an earlier row.
    pub(super) fn waiting(&self) -> usize {
        self.settled
    }

    /// Takes the next record: its UserID if it is open; an invalid one is settled at once.
    pub(super) fn push(&mut self, mut record: Record, (accepted_as, calls): (Status, RowCalls), wall: SystemTime) -> Option<UserKey> {
        let (state, key) = match &record.account {
            Ok(account) => {
                let user_id = UserKey::of(&account.user_id);
                (
                    EntryState::Open(UnsettledRecord {
                        record,
                        user_id,
                        accepted_as,
                        calls,
                        place: Place::None,
                        held_back: Vec::new(),
                        has_left: false,
                    }),
                    Some(user_id),
                )
            }
            Err(invalid) => {
                let error_info = invalid.to_string();
                let outcome = Outcome { status: Status::Invalid, error_code: None, error_info, attempts: 0, finished_at: wall };
                (EntryState::Settled(settled(&mut record, outcome)), None)
            }
        };
        self.add(state);
        key
    }

    /// Takes a record whose outcome is known.
    pub(super) fn push_settled(&mut self, settled: RowOutcome) {
        self.add(EntryState::Settled(settled));
    }

    /// Takes the end of records of which nothing is to become.
    pub(super) fn push_skipped(&mut self, end: InputPosition) {
        self.add(EntryState::Skipped(end));
    }

    fn add(&mut self, state: EntryState) {
        let weight = state.weight();
        self.bytes += weight;
        self.settled += usize::from(matches!(state, EntryState::Settled(_)));
        self.slots.push_back(BufferEntry { state, weight });
    }

    /// The row of the next record that comes in.
    pub(super) fn next_row(&self) -> u64 {
        self.first_row + self.slots.len() as u64
    }

    pub(super) fn open(&self, row: u64) -> Option<&UnsettledRecord> {
        match &self.slots[self.index(row)?].state {
            EntryState::Open(open) => Some(open),
            EntryState::Settled(_) | EntryState::Skipped(_) => None,
        }
    }

    pub(super) fn open_mut(&mut self, row: u64) -> Option<&mut UnsettledRecord> {
        let index = self.index(row)?;
        match &mut self.slots[index].state {
            EntryState::Open(open) => Some(open),
            EntryState::Settled(_) | EntryState::Skipped(_) => None,
        }
    }

    /// Settles an open record after so many calls, as accepted if there is no failure.
    pub(super) fn settle(&mut self, row: u64, failure: Option<Failure>, attempts: u32, wall: SystemTime) -> Option<SettledRecord> {
        let index = self.index(row)?;
        let slot = &mut self.slots[index];
        let EntryState::Open(open) = &mut slot.state else { return None };
        let (status, (error_code, error_info), accepted) = match failure {
            None => (
                open.accepted_as,
                (None, String::new()),
                std::mem::replace(&mut open.record.account, Err(InvalidAccount::EmptyUserId)).ok(),
            ),
            Some(failure) => (Status::Failed, failure, None),
        };
        let outcome = Outcome { status, error_code, error_info, attempts, finished_at: wall };
        let (user_id, calls, place) = (open.user_id, open.calls, open.place);
        slot.state = EntryState::Settled(settled(&mut open.record, outcome));
        self.settled += 1;
        let weight = slot.state.weight();
        self.bytes = self.bytes + weight - std::mem::replace(&mut slot.weight, weight);
        Some(SettledRecord { user_id, accepted, calls, place })
    }

    /// The next outcome in input order, if its record has settled.
    pub(super) fn take_settled(&mut self) -> Option<RowOutcome> {
        if !matches!(self.slots.front()?.state, EntryState::Settled(_)) {
            return None;
        }
        let slot = self.slots.pop_front()?;
        self.bytes -= slot.weight;
        self.settled -= 1;
        self.first_row += 1;
        match slot.state {
            EntryState::Settled(settled) => Some(settled),
            EntryState::Open(_) | EntryState::Skipped(_) => None,
        }
    }

    /// The end of records of which nothing is to become, if they are next.
    pub(super) fn take_skipped(&mut self) -> Option<InputPosition> {
        let EntryState::Skipped(end) = self.slots.front()?.state else { return None };
        let slot = self.slots.pop_front()?;
        self.bytes -= slot.weight;
        self.first_row += 1;
        Some(end)
    }

    /// The last row of the file that is here and for which a request has left.
    pub(super) fn last_left(&self) -> Option<u64> {
        let rows = self.slots.iter().filter_map(|slot| match &slot.state {
            EntryState::Open(open) => open.has_left.then_some(open.record.row),
            EntryState::Settled(settled) => Some(settled.row),
            EntryState::Skipped(_) => None,
        });
        rows.max()
    }

    fn index(&self, row: u64) -> Option<usize> {
        row.checked_sub(self.first_row).and_then(|index| usize::try_from(index).ok()).filter(|index| *index < self.slots.len())
    }
}

impl EntryState {
    /// Bytes of memory, roughly: what the window is bounded by.
    fn weight(&self) -> usize {
        /// The structures themselves and the allocator's overhead, roughly.
        const FIXED: usize = 192;
        match self {
            // The account's copy, and the fields themselves with the room that they grew into.
            EntryState::Open(open) => 3 * FIXED + 3 * open.record.fields.as_slice().len(),
            EntryState::Settled(settled) => {
                let original = settled.original.as_ref().map_or(0, |original| FIXED + original.bytes());
                FIXED + settled.user_id.len() + settled.outcome.error_info.len() + original
            }
            EntryState::Skipped(_) => FIXED,
        }
    }
}

/// Takes out of a record what its outcome needs.
fn settled(record: &mut Record, outcome: Outcome) -> RowOutcome {
    let original = outcome.status.is_rejected().then(|| match record.text.take() {
        Some(text) => OriginalRecord::Text(text),
        None => OriginalRecord::Fields(std::mem::take(&mut record.fields)),
    });
    RowOutcome { row: record.row, line: record.line, user_id: std::mem::take(&mut record.user_id), outcome, end: record.end, original }
}
