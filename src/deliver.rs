//! Delivery: every record between the roster and the journal, until it settles.
//!
//! A state machine without I/O, clock or randomness: it is told what was read and how calls ended, and says which record is called next
//! and which outcome is next in input order. It holds the promises about rows: one outcome each, in order; the last of two records of
//! one UserID wins; an outage fails nobody. Who asks the gate, sends and writes is the import's business.

mod hold;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::time::SystemTime;

use tokio::time::Instant;

use crate::account::{Account, UserId};
use crate::outcome::{Outcome, Settled, Status};
use crate::retry::{Breaker, BreakerState, RetryBudget, Sign, back_off};
use crate::roster::Record;
use crate::verdict::{CallEnd, Refusal, SuccessSeen, Verdict, judge};
use hold::Hold;

/// Attempts that a record with an unknown code gets, if `--max-attempts` allows as many. Chosen.
const UNKNOWN_CODE_ATTEMPTS: u32 = 3;
/// Distinct records in a row that end with an unknown code, after which the run halts. Chosen: as many as the breaker needs to judge.
const UNKNOWN_RECORDS_IN_A_ROW: usize = 20;
/// Results that may be held back behind a record that is stuck in retries.
pub const WINDOW_RECORDS: usize = 65_536;
/// Bytes that these may take. Chosen: leaves half of the memory bound of 64 MiB to everything else.
pub const WINDOW_BYTES: usize = 24 * 1024 * 1024;

/// The bounds of a delivery.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub max_attempts: u32,
    /// Calls in flight at most.
    pub in_flight: usize,
    pub window_records: usize,
    pub window_bytes: usize,
}

/// A call that is to leave now.
#[derive(Debug)]
pub struct Call<'a> {
    pub row: u64,
    pub account: &'a Account,
    pub is_retry: bool,
}

/// What the end of a call means beyond its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aftermath {
    Nothing,
    /// The signature that the call carried was accepted.
    Accepted,
    Throttled,
    SignatureRefused,
    /// The breaker opened.
    Down,
    /// The breaker closed again.
    Back,
    Halt {
        refusal: Refusal,
        /// The service's code, if it was one.
        code: Option<i64>,
        /// The service's words, or what was met instead.
        says: String,
    },
}

/// Where a record stands.
#[derive(Debug)]
enum Stage {
    /// In the queue of fresh records or of due retries.
    Ready,
    InFlight,
    Waiting,
    /// Behind an earlier record of the same UserID.
    Parked,
    /// Out of attempts; fails once a later call shows that the service is well, so that the start of an outage fails nobody.
    Condemned {
        since: Instant,
    },
}

#[derive(Debug)]
struct Delivery {
    record: Record,
    stage: Stage,
    /// Calls charged to the row.
    attempts: u32,
    /// Calls that were started, charged or not: what the back-off grows by.
    tries: u32,
    last_code: Option<i64>,
    last_info: String,
}

#[derive(Debug)]
enum Slot {
    Open(Box<Delivery>),
    Settled(Settled),
}

/// Whether records still come in and calls still go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Feed {
    Open,
    /// The input has ended; what is here is delivered.
    Ended,
    /// Stopping: what is in flight may settle, nothing else leaves.
    Stopped,
}

/// Every record between the roster and the journal.
#[derive(Debug)]
pub struct Deliveries {
    limits: Limits,
    /// By input order; the row of the first one is `first_row`.
    slots: VecDeque<Slot>,
    first_row: u64,
    held_bytes: usize,
    fresh: VecDeque<u64>,
    due: BTreeSet<u64>,
    waiting: BinaryHeap<Reverse<(Instant, u64)>>,
    condemned: BTreeSet<u64>,
    hold: Hold,
    in_flight: usize,
    budget: RetryBudget,
    breaker: Breaker,
    last_probe: u64,
    unknown_rows: BTreeSet<u64>,
    seen: SuccessSeen,
    feed: Feed,
}

impl Deliveries {
    /// A delivery whose first record will be `first_row`.
    #[must_use]
    pub fn new(limits: Limits, first_row: u64) -> Self {
        Self {
            limits,
            slots: VecDeque::new(),
            first_row,
            held_bytes: 0,
            fresh: VecDeque::new(),
            due: BTreeSet::new(),
            waiting: BinaryHeap::new(),
            condemned: BTreeSet::new(),
            hold: Hold::default(),
            in_flight: 0,
            budget: RetryBudget::default(),
            breaker: Breaker::default(),
            last_probe: 0,
            unknown_rows: BTreeSet::new(),
            seen: SuccessSeen::NotYet,
            feed: Feed::Open,
        }
    }

    /// Whether a further record should be read.
    #[must_use]
    pub fn wants_record(&self) -> bool {
        self.feed == Feed::Open && self.fresh.is_empty() && !self.is_down() && self.has_room()
    }

    fn has_room(&self) -> bool {
        self.slots.len() < self.limits.window_records && self.held_bytes < self.limits.window_bytes
    }

    /// Takes a record from the roster. Records come in input order, without a gap.
    pub fn admit(&mut self, mut record: Record, wall: SystemTime) {
        debug_assert_eq!(record.row, self.first_row + self.slots.len() as u64, "records come without a gap");
        let slot = match &record.account {
            Err(invalid) => {
                let outcome =
                    Outcome { status: Status::Invalid, error_code: None, error_info: invalid.to_string(), attempts: 0, finished_at: wall };
                Slot::Settled(settled(&mut record, outcome))
            }
            Ok(account) => {
                let stage = if self.hold.enter(&account.user_id, record.row) {
                    self.fresh.push_back(record.row);
                    Stage::Ready
                } else {
                    Stage::Parked
                };
                Slot::Open(Box::new(Delivery { record, stage, attempts: 0, tries: 0, last_code: None, last_info: String::new() }))
            }
        };
        self.held_bytes += slot.weight();
        self.slots.push_back(slot);
    }

    /// No further record will come.
    pub fn input_ended(&mut self) {
        if self.feed == Feed::Open {
            self.feed = Feed::Ended;
        }
    }

    /// Whether [`Deliveries::input_ended`] was said.
    #[must_use]
    pub fn input_has_ended(&self) -> bool {
        self.feed == Feed::Ended
    }

    /// Nothing leaves any more; what is in flight may settle.
    pub fn stop(&mut self) {
        self.feed = Feed::Stopped;
    }

    /// Whether a call could leave now, if the gate allows.
    pub fn has_call(&mut self, now: Instant) -> bool {
        self.take_due(now);
        self.choose(now).is_some()
    }

    /// The call that is to leave now; from here on it counts as in flight.
    ///
    /// # Panics
    /// Never: what is chosen is an open record.
    pub fn next_call(&mut self, now: Instant) -> Option<Call<'_>> {
        self.take_due(now);
        let row = self.choose(now)?;
        self.depart(row);
        let delivery = self.open_mut(row).expect("what is chosen is open");
        delivery.stage = Stage::InFlight;
        delivery.tries += 1;
        let is_retry = delivery.tries > 1;
        let account = delivery.record.account.as_ref().expect("an invalid record is never open");
        Some(Call { row, account, is_retry })
    }

    fn take_due(&mut self, now: Instant) {
        while let Some(Reverse((at, row))) = self.waiting.peek().copied() {
            if at > now {
                break;
            }
            self.waiting.pop();
            if let Some(delivery) = self.open_mut(row) {
                delivery.stage = Stage::Ready;
                self.due.insert(row);
            }
        }
    }

    fn choose(&self, now: Instant) -> Option<u64> {
        if self.feed == Feed::Stopped || self.in_flight >= self.limits.in_flight {
            return None;
        }
        if self.is_down() {
            return if self.breaker.probe_due(now) { self.probe_candidate() } else { None };
        }
        let retry = self.due.first().copied();
        let fresh = self.fresh.front().copied();
        match (retry, fresh) {
            (Some(retry), Some(fresh)) => Some(if self.budget.allows_retry() { retry } else { fresh }),
            (retry, fresh) => retry.or(fresh),
        }
    }

    /// The next record after the last probe's, round and round: a poisoned record must not keep the breaker open for ever.
    fn probe_candidate(&self) -> Option<u64> {
        let rows = self.slots.iter().zip(self.first_row..).filter_map(|(slot, row)| slot.may_probe().then_some(row));
        let mut first = None;
        for row in rows {
            if row > self.last_probe {
                return Some(row);
            }
            first.get_or_insert(row);
        }
        first
    }

    fn depart(&mut self, row: u64) {
        let was_fresh = self.fresh.front() == Some(&row) && self.fresh.pop_front().is_some();
        let was_due = self.due.remove(&row);
        if self.is_down() {
            self.fresh.retain(|fresh| *fresh != row);
            self.waiting.retain(|Reverse((_, waiting))| *waiting != row);
            self.last_probe = row;
            self.breaker.probe_left();
        } else if was_fresh {
            self.budget.spend_fresh();
        } else if was_due && !self.fresh.is_empty() {
            self.budget.spend_retry();
        }
        self.in_flight += 1;
    }

    /// Takes the end of a call that left at `left`; `jitter` is uniform in `0.0..1.0`.
    pub fn ended(&mut self, row: u64, end: CallEnd, left: Instant, at: At) -> Aftermath {
        self.in_flight -= 1;
        let verdict = judge(&end, self.seen);
        let (code, info) = words(end);
        let probe_ended = self.is_down() && row == self.last_probe;
        self.note_unknown(row, &verdict);
        match verdict {
            Verdict::Imported => {
                self.seen = SuccessSeen::Yes;
                self.settle(row, Status::Imported, (None, String::new()), at.wall);
            }
            Verdict::Row => self.settle(row, Status::Failed, (code, info), at.wall),
            Verdict::Retry => self.charge(row, (code, info), self.limits.max_attempts, at),
            Verdict::Unknown => self.charge(row, (code, info), UNKNOWN_CODE_ATTEMPTS.min(self.limits.max_attempts), at),
            Verdict::Unreached | Verdict::Throttle => {
                if let Some(delivery) = self.open_mut(row) {
                    (delivery.last_code, delivery.last_info) = (code, info);
                }
                self.wait(row, at);
            }
            Verdict::Sign => self.requeue(row),
            Verdict::Halt(refusal) => {
                self.requeue(row);
                return Aftermath::Halt { refusal, code, says: info };
            }
        }
        if self.unknown_rows.len() >= UNKNOWN_RECORDS_IN_A_ROW {
            let (code, says) = self.open_mut(row).map(|open| (open.last_code, open.last_info.clone())).unwrap_or_default();
            return Aftermath::Halt { refusal: Refusal::UnknownCodes, code, says };
        }
        if self.is_down() { self.probed(&verdict, probe_ended, at) } else { self.judged(row, &verdict, left, at) }
    }

    /// Closes the breaker, or sets the time of the next probe.
    fn probed(&mut self, verdict: &Verdict, probe_ended: bool, at: At) -> Aftermath {
        if !probe_ended {
            return Aftermath::Nothing;
        }
        match verdict {
            Verdict::Retry | Verdict::Unreached | Verdict::Unknown => {
                self.breaker.probe_failed(at.now);
                Aftermath::Nothing
            }
            Verdict::Imported | Verdict::Row | Verdict::Throttle | Verdict::Sign | Verdict::Halt(_) => {
                self.breaker.close();
                match verdict {
                    Verdict::Throttle => Aftermath::Throttled,
                    Verdict::Sign => Aftermath::SignatureRefused,
                    _ => Aftermath::Back,
                }
            }
        }
    }

    /// Feeds the breaker and lets condemned records fail if the service is well.
    fn judged(&mut self, row: u64, verdict: &Verdict, left: Instant, at: At) -> Aftermath {
        let (sign, aftermath) = match verdict {
            Verdict::Imported | Verdict::Row => (Sign::Healthy, Aftermath::Accepted),
            Verdict::Retry => (Sign::Sick, Aftermath::Nothing),
            Verdict::Unreached => (Sign::Unreached, Aftermath::Nothing),
            Verdict::Throttle => (Sign::Neutral, Aftermath::Throttled),
            Verdict::Sign => (Sign::Neutral, Aftermath::SignatureRefused),
            Verdict::Unknown | Verdict::Halt(_) => (Sign::Neutral, Aftermath::Nothing),
        };
        self.breaker.note(row, sign);
        if self.breaker.trips(self.in_flight == 0) {
            self.go_down(at.now);
            return Aftermath::Down;
        }
        if sign == Sign::Healthy {
            self.fail_condemned(Some(left), at.wall);
        }
        aftermath
    }

    /// Opens the breaker: the attempts charged in its window are given back, the condemned live again.
    fn go_down(&mut self, now: Instant) {
        for tried in self.breaker.open(now) {
            if let Some(delivery) = self.open_mut(tried.row) {
                delivery.attempts = delivery.attempts.saturating_sub(tried.charged);
            }
        }
        for row in std::mem::take(&mut self.condemned) {
            self.requeue(row);
        }
    }

    fn charge(&mut self, row: u64, last: (Option<i64>, String), allowed: u32, at: At) {
        let is_down = self.is_down();
        let Some(delivery) = self.open_mut(row) else { return };
        (delivery.last_code, delivery.last_info) = last;
        if !is_down {
            delivery.attempts += 1;
            if delivery.attempts >= allowed {
                delivery.stage = Stage::Condemned { since: at.now };
                self.condemned.insert(row);
                return;
            }
        }
        self.wait(row, at);
    }

    fn wait(&mut self, row: u64, at: At) {
        let Some(delivery) = self.open_mut(row) else { return };
        delivery.stage = Stage::Waiting;
        let delay = back_off(delivery.tries, at.jitter);
        self.waiting.push(Reverse((at.now + delay, row)));
    }

    fn requeue(&mut self, row: u64) {
        if let Some(delivery) = self.open_mut(row) {
            delivery.stage = Stage::Ready;
            self.due.insert(row);
        }
    }

    fn note_unknown(&mut self, row: u64, verdict: &Verdict) {
        match verdict {
            Verdict::Unknown => {
                self.unknown_rows.insert(row);
            }
            Verdict::Imported | Verdict::Row | Verdict::Retry => self.unknown_rows.clear(),
            Verdict::Unreached | Verdict::Throttle | Verdict::Sign | Verdict::Halt(_) => {}
        }
    }

    /// Fails the condemned that a call which left after their last one exonerates the service from; all of them when `left` is `None`.
    fn fail_condemned(&mut self, left: Option<Instant>, wall: SystemTime) {
        let rows: Vec<u64> = self.condemned.iter().copied().filter(|row| self.condemned_before(*row, left)).collect();
        for row in rows {
            self.condemned.remove(&row);
            if let Some(delivery) = self.open_mut(row) {
                let last = (delivery.last_code, std::mem::take(&mut delivery.last_info));
                self.finish(row, Status::Failed, last, wall);
            }
        }
    }

    fn condemned_before(&self, row: u64, left: Option<Instant>) -> bool {
        match (self.slot(row), left) {
            (Some(Slot::Open(delivery)), Some(left)) => matches!(delivery.stage, Stage::Condemned { since } if since < left),
            _ => true,
        }
    }

    /// When nothing is left that could bear witness, the condemned fail without one; unless what they met was no answer of the service
    /// at all and most others met the same: then it is the service that is down, however small the file.
    pub fn settle_without_witness(&mut self, at: At) -> Aftermath {
        let idle = self.in_flight == 0 && self.fresh.is_empty() && self.due.is_empty() && self.waiting.is_empty();
        let more_comes = self.feed == Feed::Open && self.has_room();
        if !idle || more_comes || self.condemned.is_empty() || self.feed == Feed::Stopped || self.is_down() {
            return Aftermath::Nothing;
        }
        if self.breaker.half_is_sick() && self.condemned.iter().all(|row| self.met_silence(*row)) {
            self.go_down(at.now);
            return Aftermath::Down;
        }
        self.fail_condemned(None, at.wall);
        Aftermath::Nothing
    }

    /// Whether the last call of a record ended without an answer of the service.
    fn met_silence(&self, row: u64) -> bool {
        matches!(self.slot(row), Some(Slot::Open(delivery)) if delivery.last_code.is_none())
    }

    fn settle(&mut self, row: u64, status: Status, last: (Option<i64>, String), wall: SystemTime) {
        if let Some(delivery) = self.open_mut(row) {
            delivery.attempts += 1;
        }
        self.finish(row, status, last, wall);
    }

    fn finish(&mut self, row: u64, status: Status, (error_code, error_info): (Option<i64>, String), wall: SystemTime) {
        let Some(index) = self.index(row) else { return };
        let slot = &mut self.slots[index];
        let before = slot.weight();
        let Slot::Open(delivery) = slot else { return };
        let outcome = Outcome { status, error_code, error_info, attempts: delivery.attempts, finished_at: wall };
        let user_id = delivery.record.account.as_ref().ok().map(|account| account.user_id.clone());
        *slot = Slot::Settled(settled(&mut delivery.record, outcome));
        self.held_bytes = self.held_bytes + slot.weight() - before;
        if let Some(user_id) = user_id {
            self.release(&user_id);
        }
    }

    fn release(&mut self, user_id: &UserId) {
        if let Some(next) = self.hold.leave(user_id)
            && let Some(delivery) = self.open_mut(next)
        {
            delivery.stage = Stage::Ready;
            self.fresh.push_back(next);
        }
    }

    /// The next outcome in input order, if its record has settled.
    pub fn take_settled(&mut self) -> Option<Settled> {
        match self.slots.front()? {
            Slot::Open(_) => None,
            Slot::Settled(_) => {
                let slot = self.slots.pop_front()?;
                self.held_bytes -= slot.weight();
                self.first_row += 1;
                match slot {
                    Slot::Settled(settled) => Some(settled),
                    Slot::Open(_) => None,
                }
            }
        }
    }

    /// When something is due of itself: a retry or a probe.
    #[must_use]
    pub fn next_wake(&self) -> Option<Instant> {
        match self.breaker.state() {
            BreakerState::Open { probe_at, .. } => probe_at,
            BreakerState::Closed => self.waiting.peek().map(|Reverse((at, _))| *at),
        }
    }

    /// Since when the service is down, if it is.
    #[must_use]
    pub fn down_since(&self) -> Option<Instant> {
        match self.breaker.state() {
            BreakerState::Open { since, .. } => Some(since),
            BreakerState::Closed => None,
        }
    }

    fn is_down(&self) -> bool {
        self.down_since().is_some()
    }

    /// Calls in flight.
    #[must_use]
    pub const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether every record that came in has settled and been taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn index(&self, row: u64) -> Option<usize> {
        row.checked_sub(self.first_row).and_then(|index| usize::try_from(index).ok()).filter(|index| *index < self.slots.len())
    }

    fn slot(&self, row: u64) -> Option<&Slot> {
        self.index(row).map(|index| &self.slots[index])
    }

    fn open_mut(&mut self, row: u64) -> Option<&mut Delivery> {
        let index = self.index(row)?;
        match &mut self.slots[index] {
            Slot::Open(delivery) => Some(delivery),
            Slot::Settled(_) => None,
        }
    }
}

/// The moment at which a call ended, as the clocks and the random source have it.
#[derive(Debug, Clone, Copy)]
pub struct At {
    pub now: Instant,
    pub wall: SystemTime,
    /// Uniform in `0.0..1.0`.
    pub jitter: f64,
}

impl Slot {
    /// Bytes of memory, roughly: what the window is bounded by.
    fn weight(&self) -> usize {
        /// The structures themselves and the allocator's overhead, roughly.
        const FIXED: usize = 192;
        match self {
            Slot::Open(delivery) => 3 * FIXED + 2 * delivery.record.fields.as_slice().len(),
            Slot::Settled(settled) => {
                let original = settled.original.as_ref().map_or(0, |fields| FIXED + fields.as_slice().len());
                FIXED + settled.user_id.len() + settled.outcome.error_info.len() + original
            }
        }
    }

    fn may_probe(&self) -> bool {
        matches!(self, Slot::Open(delivery) if matches!(delivery.stage, Stage::Ready | Stage::Waiting))
    }
}

/// Takes out of a record what its outcome needs.
fn settled(record: &mut Record, outcome: Outcome) -> Settled {
    let original = match outcome.status {
        Status::Imported => None,
        Status::Failed | Status::Invalid => Some(std::mem::take(&mut record.fields)),
    };
    Settled { row: record.row, line: record.line, user_id: std::mem::take(&mut record.user_id), outcome, end: record.end, original }
}

/// The service's code, and what goes into `error_info`.
fn words(end: CallEnd) -> (Option<i64>, String) {
    match end {
        CallEnd::Answered { code, info, .. } => (Some(code), info),
        CallEnd::Unreached { why } | CallEnd::Lost { why } | CallEnd::Untrusted { why } => (None, why),
        CallEnd::TooMany => (None, "HTTP 429".to_owned()),
        CallEnd::Redirected { status } => (None, format!("HTTP {status}")),
    }
}

#[cfg(test)]
mod tests;
