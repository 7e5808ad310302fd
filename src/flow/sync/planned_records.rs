//! The records that a sync sends, in input order, as the import takes them.
//!
//! Before a record is handed out, the state has durably recorded that its request may leave.

use std::rc::Rc;
use std::time::SystemTime;

use thiserror::Error;

use crate::domain::account::Account;
use crate::domain::change::{AccountCall, Op, Ops, Update};
use crate::domain::outcome::{Outcome, RowOutcome, Status};
use crate::domain::position::InputPosition;
use crate::domain::tag::{Tag, TagItem};
use crate::flow::import::{IncomingRecord, RowCalls};
use crate::io::journal::disk::Disk;
use crate::io::journal::{DiskError, Journal, OutcomeSink};
use crate::io::roster::{InputFile, InputReader, Look, Original, Record, Roster, RosterError, Watch};
use crate::io::state::{RunInput, StateDb, StateError};

/// Rows that are skipped before the import gets its turn. Chosen: half a millisecond.
const SKIP_AT_ONCE: u64 = 16_384;

/// What is fed, and how far ahead the intent to send is recorded.
#[derive(Debug)]
pub struct FeedPlan {
    pub ops: Rc<Ops>,
    /// The tags that the plan has read, in the order of their columns.
    pub tags: Vec<Tag>,
    /// As the plan has seen the file.
    pub input: RunInput,
    /// Requests may have left for rows up to this one: before one leaves, the intent to send it is recorded here.
    pub send_intent_up_to: u64,
    /// Records whose intent is recorded at once.
    pub ahead: u64,
    /// Records that are handed out at most. No intent is recorded for what is beyond: that would put it in doubt for nothing.
    pub limit: Option<u64>,
    /// The file that the input is a copy of, if it is one of a file.
    pub original: Option<Original>,
}

/// Why no further record can be had.
#[derive(Debug, Error)]
pub enum FeedError {
    #[error(transparent)]
    Roster(RosterError),
    #[error(transparent)]
    State(#[from] StateError),
    /// Its records are not those that were planned.
    #[error("the input was modified while it was being read")]
    Modified,
}

impl From<RosterError> for FeedError {
    fn from(error: RosterError) -> Self {
        if matches!(error, RosterError::Modified) { FeedError::Modified } else { FeedError::Roster(error) }
    }
}

/// The records of a sync.
#[expect(missing_debug_implementations, reason = "it holds a closure")]
pub struct PlannedRecords {
    roster: Roster<InputReader>,
    /// Of the same file.
    watch: Watch,
    state: StateDb,
    planned: FeedPlan,
    wall: Box<dyn Fn() -> SystemTime>,
    has_failed: bool,
}

impl PlannedRecords {
    /// `roster` stands behind the last row that has settled; `file` is what it reads.
    #[must_use]
    pub fn new(roster: Roster<InputReader>, file: InputFile, state: StateDb, planned: FeedPlan, wall: Box<dyn Fn() -> SystemTime>) -> Self {
        let watch = Watch::new(file, roster.dialect(), planned.input.stat);
        Self { roster, watch, state, planned, wall, has_failed: false }
    }

    /// Skips what is unchanged, for a while.
    fn advance(&mut self) -> Result<Option<IncomingRecord>, FeedError> {
        let first = self.roster.at().rows + 1;
        let until = first + SKIP_AT_ONCE;
        let mut row = first;
        while row < until && row <= self.planned.ops.rows() && self.planned.ops.get(row) == Op::Unchanged {
            row += 1;
        }
        let mut skipped = None;
        while self.roster.at().rows + 1 < row {
            skipped = Some(self.roster.skip_record().ok_or(FeedError::Modified)??);
        }
        if let Some(end) = skipped {
            return Ok(Some(IncomingRecord::Skipped(end)));
        }
        self.next_record()
    }

    fn next_record(&mut self) -> Result<Option<IncomingRecord>, FeedError> {
        let row = self.roster.at().rows + 1;
        if self.planned.limit == Some(0) {
            return Ok((row <= self.planned.ops.rows()).then(|| IncomingRecord::Skipped(self.roster.at())));
        }
        let op = self.planned.ops.get(row);
        let is_over = row > self.planned.ops.rows();
        if is_over && !self.is_at_planned_end() {
            return Err(FeedError::Modified);
        }
        let needs_intent = op.is_sent() && row > self.planned.send_intent_up_to;
        if (is_over || needs_intent) && !self.is_as_planned()? {
            return Ok(Some(IncomingRecord::Skipped(self.roster.at())));
        }
        if is_over {
            // What has come since is the next run's, as of a file that is read as it is.
            return match self.planned.original.as_mut().map_or(Ok(()), Original::ensure_unchanged) {
                Ok(()) | Err(RosterError::Grown) => Ok(None),
                Err(error) => Err(error.into()),
            };
        }
        self.planned.limit = self.planned.limit.map(|limit| limit - 1);
        if needs_intent {
            self.record_send_intent(row)?;
        }
        let record = self.roster.next().transpose()?.ok_or(FeedError::Modified)?;
        if row == self.planned.ops.rows() && !self.is_at_planned_end() {
            return Err(FeedError::Modified);
        }
        match op {
            Op::Create => Ok(Some(to_send(record, Status::Created))),
            Op::Update(update) => Ok(Some(to_update(record, update, &self.planned.tags))),
            Op::Invalid if record.account.is_err() => Ok(Some(to_send(record, Status::Updated))),
            Op::Invalid | Op::Unchanged => Err(FeedError::Modified),
            Op::Superseded => Ok(Some(IncomingRecord::Settled(superseded(record, (self.wall)())))),
        }
    }

    fn is_at_planned_end(&self) -> bool {
        let (at, planned) = (self.roster.at(), &self.planned.input);
        (at.offset, at.digest) == (planned.len, planned.digest)
    }

    /// Whether all that was planned still stands in the file, which may have grown or lost its name; false while that is looked at.
    fn is_as_planned(&mut self) -> Result<bool, FeedError> {
        let look = self.watch.look((self.planned.input.len, self.planned.input.digest))?;
        Ok(look != Look::Comparing)
    }

    /// Records, durably, the intent to send this row and the next ones that are to be sent and are within the limit.
    fn record_send_intent(&mut self, row: u64) -> Result<(), FeedError> {
        let ops = &self.planned.ops;
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let further = self.planned.limit.map_or(usize::MAX, count);
        let handed_out = (row + 1..=ops.rows()).filter(|row| ops.get(*row) != Op::Unchanged).take(further);
        let last = handed_out.filter(|row| ops.get(*row).is_sent()).take(count(self.planned.ahead) - 1).last().unwrap_or(row);
        self.state.record_send_intent(last)?;
        self.planned.send_intent_up_to = last;
        Ok(())
    }
}

fn to_send(record: Record, accepted_as: Status) -> IncomingRecord {
    let calls = RowCalls::of(&record);
    IncomingRecord::Record { record, accepted_as, calls, held_back: Vec::new() }
}

/// The record with only those of its tags that are sent; `read` are those that the run reads.
fn to_update(record: Record, update: Update, read: &[Tag]) -> IncomingRecord {
    let is_sent = |item: &TagItem| read.iter().position(|tag| *tag == item.tag).is_some_and(|place| update.tags.has(place));
    let mut held_back = Vec::new();
    let account = record.account.map(|account| {
        let (tags, others): (Vec<TagItem>, Vec<TagItem>) = account.tags.into_iter().partition(is_sent);
        held_back = others;
        Account { tags: tags.into(), ..account }
    });
    let record = Record { account, ..record };
    let (calls, held_back) = match update.account {
        AccountCall::Imported => (RowCalls::of(&record), Vec::new()),
        AccountCall::Left => (RowCalls::ProfileOnly, held_back),
    };
    IncomingRecord::Record { record, accepted_as: Status::Updated, calls, held_back }
}

fn superseded(record: Record, wall: SystemTime) -> RowOutcome {
    let outcome = Outcome {
        status: Status::Superseded,
        error_code: None,
        error_info: "a later row has the same UserID".to_owned(),
        attempts: 0,
        finished_at: wall,
    };
    RowOutcome { row: record.row, line: record.line, user_id: record.user_id, outcome, end: record.end, original: None }
}

impl Iterator for PlannedRecords {
    type Item = Result<IncomingRecord, FeedError>;

    /// Behind the end it looks only whether the file is still what was planned.
    fn next(&mut self) -> Option<Self::Item> {
        if self.has_failed {
            return None;
        }
        let next = self.advance().transpose();
        self.has_failed = matches!(next, Some(Err(_)));
        next
    }
}

/// The journal of a sync: that every row has settled does not finish the run, the state has to learn of it first.
#[derive(Debug)]
pub struct SyncOutcomeSink<D: Disk>(pub Journal<D>);

impl<D: Disk> OutcomeSink for SyncOutcomeSink<D> {
    type Error = DiskError;

    fn buffer(&mut self, settled: RowOutcome) {
        self.0.buffer(settled);
    }

    fn skip(&mut self, end: InputPosition) {
        self.0.skip(end);
    }

    fn pending_rows(&self) -> u64 {
        self.0.pending_rows()
    }

    fn is_full(&self) -> bool {
        self.0.is_full()
    }

    fn commit(&mut self) -> Result<(), DiskError> {
        self.0.commit()
    }

    fn finish(&mut self) -> Result<(), DiskError> {
        self.0.commit()
    }
}
