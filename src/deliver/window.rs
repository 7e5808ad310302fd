//! The window: every record between roster and journal, in input order, as long as it has not left.

use std::collections::VecDeque;
use std::time::SystemTime;

use crate::account::{Account, UserId};
use crate::input::Mark;
use crate::outcome::{Outcome, Settled, Status};
use crate::roster::Record;

/// A record that has not settled.
#[derive(Debug)]
pub(super) struct Open {
    record: Record,
    /// What it is once the service has it.
    taken: Status,
    /// Calls charged to the row.
    pub(super) attempts: u32,
    /// Those of them that are charged for passing faults; an outage gives them back.
    pub(super) passing: u32,
}

impl Open {
    /// # Panics
    /// Never: an invalid record is settled from the start.
    pub(super) fn account(&self) -> &Account {
        self.record.account.as_ref().expect("an invalid record is never open")
    }

    /// Gives back what passing faults were charged.
    pub(super) fn give_back(&mut self) {
        self.attempts -= std::mem::take(&mut self.passing);
    }
}

#[derive(Debug)]
enum Slot {
    Open(Box<Open>),
    Settled(Settled),
    /// Nothing is to become of the records up to here.
    Passed(Mark),
}

/// The service's code and its words, or ours.
pub(super) type Fault = (Option<i64>, String);

/// The records by row: their number among those that came in.
#[derive(Debug)]
pub(super) struct Window {
    slots: VecDeque<Slot>,
    /// The row of the first slot.
    first_row: u64,
    bytes: usize,
}

impl Window {
    pub(super) fn new(first_row: u64) -> Self {
        Self { slots: VecDeque::new(), first_row, bytes: 0 }
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

    /// Takes the next record; an invalid one is settled at once.
    pub(super) fn push(&mut self, mut record: Record, taken: Status, wall: SystemTime) {
        let slot = match &record.account {
            Ok(_) => Slot::Open(Box::new(Open { record, taken, attempts: 0, passing: 0 })),
            Err(invalid) => {
                let error_info = invalid.to_string();
                let outcome = Outcome { status: Status::Invalid, error_code: None, error_info, attempts: 0, finished_at: wall };
                Slot::Settled(settled(&mut record, outcome))
            }
        };
        self.add(slot);
    }

    /// Takes a record whose outcome is known.
    pub(super) fn push_settled(&mut self, settled: Settled) {
        self.add(Slot::Settled(settled));
    }

    /// Takes the end of records of which nothing is to become.
    pub(super) fn push_passed(&mut self, end: Mark) {
        self.add(Slot::Passed(end));
    }

    fn add(&mut self, slot: Slot) {
        self.bytes += slot.weight();
        self.slots.push_back(slot);
    }

    /// The row of the next record that comes in.
    pub(super) fn next_row(&self) -> u64 {
        self.first_row + self.slots.len() as u64
    }

    pub(super) fn open(&self, row: u64) -> Option<&Open> {
        match &self.slots[self.index(row)?] {
            Slot::Open(open) => Some(open),
            Slot::Settled(_) | Slot::Passed(_) => None,
        }
    }

    pub(super) fn open_mut(&mut self, row: u64) -> Option<&mut Open> {
        let index = self.index(row)?;
        match &mut self.slots[index] {
            Slot::Open(open) => Some(open),
            Slot::Settled(_) | Slot::Passed(_) => None,
        }
    }

    /// Settles an open record, as taken if there is no fault: its UserID.
    pub(super) fn settle(&mut self, row: u64, fault: Option<Fault>, wall: SystemTime) -> Option<UserId> {
        let index = self.index(row)?;
        let slot = &mut self.slots[index];
        let before = slot.weight();
        let Slot::Open(open) = slot else { return None };
        let (status, (error_code, error_info)) = match fault {
            None => (open.taken, (None, String::new())),
            Some(fault) => (Status::Failed, fault),
        };
        let outcome = Outcome { status, error_code, error_info, attempts: open.attempts, finished_at: wall };
        let user_id = open.record.account.as_ref().ok().map(|account| account.user_id.clone());
        *slot = Slot::Settled(settled(&mut open.record, outcome));
        self.bytes = self.bytes + slot.weight() - before;
        user_id
    }

    /// The next outcome in input order, if its record has settled.
    pub(super) fn take_settled(&mut self) -> Option<Settled> {
        if !matches!(self.slots.front()?, Slot::Settled(_)) {
            return None;
        }
        let slot = self.slots.pop_front()?;
        self.bytes -= slot.weight();
        self.first_row += 1;
        match slot {
            Slot::Settled(settled) => Some(settled),
            Slot::Open(_) | Slot::Passed(_) => None,
        }
    }

    /// The end of records of which nothing is to become, if they are next.
    pub(super) fn take_passed(&mut self) -> Option<Mark> {
        let Slot::Passed(end) = *self.slots.front()? else { return None };
        self.slots.pop_front();
        self.first_row += 1;
        self.bytes -= Slot::Passed(end).weight();
        Some(end)
    }

    fn index(&self, row: u64) -> Option<usize> {
        row.checked_sub(self.first_row).and_then(|index| usize::try_from(index).ok()).filter(|index| *index < self.slots.len())
    }
}

impl Slot {
    /// Bytes of memory, roughly: what the window is bounded by.
    fn weight(&self) -> usize {
        /// The structures themselves and the allocator's overhead, roughly.
        const FIXED: usize = 192;
        match self {
            Slot::Open(open) => 3 * FIXED + 2 * open.record.fields.as_slice().len(),
            Slot::Settled(settled) => {
                let original = settled.original.as_ref().map_or(0, |fields| FIXED + fields.as_slice().len());
                FIXED + settled.user_id.len() + settled.outcome.error_info.len() + original
            }
            Slot::Passed(_) => FIXED,
        }
    }
}

/// Takes out of a record what its outcome needs.
fn settled(record: &mut Record, outcome: Outcome) -> Settled {
    let original = outcome.status.is_rejected().then(|| std::mem::take(&mut record.fields));
    Settled { row: record.row, line: record.line, user_id: std::mem::take(&mut record.user_id), outcome, end: record.end, original }
}
