//! Delivery: every record between the roster and the journal, until it settles.
//!
//! A state machine without I/O, clock or randomness: it is told what was read and how calls ended, and says what is called next and which
//! outcome is next in input order. It holds the promises about rows: one outcome each, in order; the last of two records of one UserID
//! wins; an outage fails nobody; no row fails for its neighbour's fault. Who asks the gate, sends and writes is the import's business.

mod batch;
mod batch_trial;
mod outage;
mod probe;
mod reorder_buffer;
mod user_order;

use std::collections::{BTreeSet, VecDeque};
use std::time::SystemTime;

use tokio::time::Instant;

use crate::domain::account::{Account, UserId};
use crate::domain::breaker::{CallTimes, ExhaustedBy, Health, Means};
use crate::domain::command::Command;
use crate::domain::outcome::{RowOutcome, Status};
use crate::domain::position::InputPosition;
use crate::domain::refusals::Refusals;
pub use crate::domain::retry::At;
use crate::domain::retry::RetryBudget;
pub use crate::domain::verdict::CallEffect;
use crate::domain::verdict::{CallOutcome, CallSize, HaltReason, SuccessSeen, Verdict, judge, words};
use crate::flow::dispatch::health::{FaultAttribution, halted};
use crate::flow::dispatch::job_queue::{Failure, Job, JobQueue, Stage};
use crate::flow::dispatch::{Call, CallId, JobId, Scheduler};
use crate::io::roster::Record;
use batch_trial::BatchTrial;
use probe::{Accepted, ImportProbe};
use reorder_buffer::{ReorderBuffer, SettledRecord};
use user_order::UserOrder;

/// Records in a batch at most. Source: the documentation of `multiaccount_import`.
pub const BATCH_RECORDS: usize = 100;

/// The bounds of a delivery.
#[derive(Debug, Clone, Copy)]
pub struct DeliveryLimits {
    pub max_attempts: u32,
    /// Calls in flight at most.
    pub in_flight: usize,
    /// Results that may be held back behind a record that is stuck in retries …
    pub window_records: usize,
    /// … and the bytes that these may take.
    pub window_bytes: usize,
    pub lane: Lane,
}

/// How records are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// One a call.
    Single,
    /// Up to a hundred a call.
    Batch(OnBatchFailure),
    /// Batches were tried and were no good: one a call.
    FellBack,
}

/// What the input has next.
#[derive(Debug)]
pub enum Incoming {
    /// A record to deliver; `taken` is what it is once the service has it.
    Record { record: Record, accepted_as: Status },
    /// A record whose outcome is known without a call.
    Settled(RowOutcome),
    /// Nothing is to become of the records up to here.
    Passed(InputPosition),
}

impl From<Record> for Incoming {
    fn from(record: Record) -> Self {
        Incoming::Record { record, accepted_as: Status::Imported }
    }
}

/// What is done if batches turn out to be no good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBatchFailure {
    FallBack,
    Stop,
}

/// What is known before the first call.
#[derive(Debug, Clone)]
pub struct Known {
    /// As whom calls are made: an account that ought to be there.
    pub identifier: UserId,
    /// Whether the service has accepted an account of this run.
    pub seen: SuccessSeen,
}

/// What leaves next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Job(JobId),
    /// Records that have not been tried yet.
    Fresh,
    /// A test of whether the service is well.
    Probe(Means),
}

/// Whether records still come in and calls still go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Intake {
    Open,
    /// The input has ended; what is here is delivered.
    Ended,
    /// Stopping: what is in flight may settle, nothing else leaves.
    Stopped,
}

/// Every record between the roster and the journal.
#[derive(Debug)]
pub struct Deliveries {
    limits: DeliveryLimits,
    lane: Lane,
    buffer: ReorderBuffer,
    /// Rows that no call has carried yet.
    fresh: VecDeque<u64>,
    jobs: JobQueue<Vec<u64>>,
    user_order: UserOrder,
    in_flight: usize,
    budget: RetryBudget,
    /// Of `account_import` and `multiaccount_import` together.
    health: Health<JobId>,
    probe: Option<ImportProbe>,
    accepted: Option<Accepted>,
    identifier: Account,
    /// Rows that failed though nothing could show whose fault it was.
    unjudged: u64,
    unknown: BTreeSet<u64>,
    refusals: Refusals,
    /// By the batch's first row, and the rows that were taken out of it.
    faults: FaultAttribution,
    seen: SuccessSeen,
    batch_trial: BatchTrial,
    feed: Intake,
}

impl Deliveries {
    /// A delivery whose first record will be `first_row`.
    #[must_use]
    pub fn new(limits: DeliveryLimits, first_row: u64, known: Known) -> Self {
        Self {
            limits,
            lane: limits.lane,
            buffer: ReorderBuffer::new(first_row),
            fresh: VecDeque::new(),
            jobs: JobQueue::default(),
            user_order: UserOrder::default(),
            in_flight: 0,
            budget: RetryBudget::default(),
            health: Health::default(),
            probe: None,
            accepted: None,
            identifier: Account { user_id: known.identifier, nick: None, face_url: None },
            unjudged: 0,
            unknown: BTreeSet::new(),
            refusals: Refusals::default(),
            faults: FaultAttribution::default(),
            seen: known.seen,
            batch_trial: BatchTrial::default(),
            feed: Intake::Open,
        }
    }

    /// Whether a further record should be read.
    #[must_use]
    pub fn wants_record(&self, now: Instant) -> bool {
        let wants = !self.is_down() && self.fresh.len() < self.records_a_call();
        (wants && self.can_have_more()) || self.wants_fresh_for_test(now)
    }

    const fn records_a_call(&self) -> usize {
        match self.lane {
            Lane::Single | Lane::FellBack => 1,
            Lane::Batch(_) => BATCH_RECORDS,
        }
    }

    /// Whether the roster may have another record for the window.
    fn can_have_more(&self) -> bool {
        self.feed == Intake::Open && self.has_room()
    }

    fn has_room(&self) -> bool {
        self.buffer.len() < self.limits.window_records && self.buffer.bytes() < self.limits.window_bytes
    }

    /// Takes what the input has next.
    pub fn admit(&mut self, incoming: impl Into<Incoming>, wall: SystemTime) {
        match incoming.into() {
            Incoming::Record { record, accepted_as: taken } => self.admit_record(record, taken, wall),
            Incoming::Settled(settled) => self.buffer.push_settled(settled),
            Incoming::Passed(end) => self.buffer.push_passed(end),
        }
    }

    fn admit_record(&mut self, record: Record, taken: Status, wall: SystemTime) {
        let row = self.buffer.next_row();
        if let Some(user_id) = self.buffer.push(record, taken, wall) {
            self.accepted.take_if(|accepted| accepted.user_id == user_id);
            if self.user_order.enter(user_id, row) {
                self.fresh.push_back(row);
            }
        }
    }

    /// No further record will come.
    pub fn input_ended(&mut self) {
        if self.feed == Intake::Open {
            self.feed = Intake::Ended;
        }
    }

    /// There is more after all: the input has grown.
    pub fn input_goes_on(&mut self) {
        if self.feed == Intake::Ended {
            self.feed = Intake::Open;
        }
    }

    /// Whether [`Deliveries::input_ended`] was said.
    #[must_use]
    pub fn input_has_ended(&self) -> bool {
        self.feed == Intake::Ended
    }

    fn call_of(&self, id: JobId) -> Call<'_> {
        let Job { payload: rows, has_left, .. } = &self.jobs[id];
        let accounts = rows.iter().filter_map(|row| self.buffer.open(*row)).map(reorder_buffer::UnsettledRecord::account).collect();
        Call { id: CallId::Job(id), accounts, is_retry: *has_left }
    }

    fn choose(&self, command: Command, now: Instant) -> Option<Choice> {
        if self.feed == Intake::Stopped || self.in_flight >= self.limits.in_flight {
            return None;
        }
        if let Some((_, means)) = self.next_probe(now).filter(|(probed, _)| *probed == command) {
            return Some(Choice::Probe(means));
        }
        if self.is_down() {
            return None;
        }
        match (command, self.lane) {
            (Command::AccountImport, Lane::Single | Lane::FellBack) => self.choose_single(),
            // Singles of a batch have a bucket of their own: they never wait for fresh records.
            (Command::AccountImport, Lane::Batch(_)) | (Command::PortraitGet, _) => self.jobs.first_due(command).map(Choice::Job),
            (Command::MultiaccountImport, Lane::Batch(_)) => self.choose_batch(),
            (Command::MultiaccountImport, Lane::Single | Lane::FellBack)
            | (Command::AccountCheck | Command::AccountDelete | Command::Kick | Command::QueryOnlineStatus, _) => None,
        }
    }

    /// A retry or a fresh record; while both wait, retries get their share.
    fn choose_single(&self) -> Option<Choice> {
        let retry = self.jobs.first_due(Command::AccountImport).map(Choice::Job);
        let fresh = (!self.fresh.is_empty()).then_some(Choice::Fresh);
        match (retry, fresh) {
            (Some(retry), Some(fresh)) => Some(if self.budget.allows_retry() { retry } else { fresh }),
            (retry, fresh) => retry.or(fresh),
        }
    }

    const fn main_command(&self) -> Command {
        match self.lane {
            Lane::Single | Lane::FellBack => Command::AccountImport,
            Lane::Batch(_) => Command::MultiaccountImport,
        }
    }

    /// Makes a job of fresh records.
    fn pack(&mut self, command: Command) -> JobId {
        let count = self.fresh.len().min(self.records_a_call());
        let rows: Vec<u64> = self.fresh.drain(..count).collect();
        let batch_id = rows[0];
        self.jobs.insert(rows_job(command, rows, batch_id))
    }

    fn depart(&mut self, id: JobId) {
        let job = &mut self.jobs[id];
        job.stage = Stage::InFlight;
        job.tries += 1;
        if job.command == Command::MultiaccountImport {
            let Job { payload: rows, batch_id, .. } = &self.jobs[id];
            self.batch_trial
                .departed(id, *batch_id, || rows.iter().any(|row| self.buffer.open(*row).is_some_and(|open| open.account().has_profile())));
        }
        self.in_flight += 1;
    }

    fn job_ended(&mut self, id: JobId, end: CallOutcome, times: CallTimes, at: At) -> CallEffect {
        self.jobs[id].has_left |= end.has_left();
        let Job { command, batch_id, .. } = self.jobs[id];
        let carried = if command == Command::MultiaccountImport { CallSize::Batch } else { CallSize::One };
        let verdict = judge(&end, self.seen, carried);
        let is_probe = self.takes_probe(id);
        self.note_unknown(if command == Command::AccountImport { self.jobs[id].payload[0] } else { batch_id }, &verdict);
        if is_probe && matches!(verdict, Verdict::Retry | Verdict::Unknown | Verdict::ConnectFailed) {
            self.fresh_probe_failed(id, end, at);
            return self.tested(command, &verdict, times, at);
        }
        let sample = self.sample(id, &verdict);
        let own = match command {
            Command::AccountImport => self.single_ended(id, &verdict, end, at),
            Command::MultiaccountImport => self.batch_ended(id, &verdict, end, at),
            Command::PortraitGet => self.read_back_ended(id, &verdict, end, at),
            Command::AccountCheck | Command::AccountDelete | Command::Kick | Command::QueryOnlineStatus => {
                unreachable!("a delivery never sends {} for its records", command.name())
            }
        };
        match own {
            Err(halt) => halt,
            Ok(()) if is_probe => self.tested(command, &verdict, times, at),
            Ok(()) => self.judged((batch_id, sample), &verdict, times, at),
        }
    }

    fn single_ended(&mut self, id: JobId, verdict: &Verdict, end: CallOutcome, at: At) -> Result<(), CallEffect> {
        match verdict {
            Verdict::Accepted => {
                self.seen = SuccessSeen::Yes;
                self.refusals.accepted();
                let batch_id = self.settle_single(id, None, at);
                return self.taken_singly(batch_id);
            }
            Verdict::Reject => {
                let fault = words(end);
                let batch_id = self.settle_single(id, Some(fault.clone()), at);
                self.forget_batch(batch_id);
                self.halt_if_refused_everywhere(fault)?;
            }
            Verdict::Retry => self.charge(id, words(end), ExhaustedBy::TemporaryErrors, at),
            Verdict::Unknown => {
                self.charge(id, words(end), ExhaustedBy::UnknownCodes, at);
                self.halt_if_unknown_everywhere(id)?;
            }
            Verdict::ConnectFailed | Verdict::Throttle(_) => self.jobs.back_off(id, words(end), at),
            Verdict::Reauthenticate => self.jobs.make_due(id),
            Verdict::Abort(HaltReason::InvalidRequest) if self.has_promising_sibling(id) => self.jobs.back_off(id, words(end), at),
            Verdict::Abort(refusal) => return Err(self.halt(id, *refusal, end)),
        }
        Ok(())
    }

    /// The job stays as it is, uncharged, for the run that resumes.
    fn halt(&mut self, id: JobId, refusal: HaltReason, end: CallOutcome) -> CallEffect {
        self.jobs.make_due(id);
        halted(refusal, end)
    }

    /// Settles the record of a single job: the batch_id.
    fn settle_single(&mut self, id: JobId, fault: Option<Failure>, at: At) -> u64 {
        let job = self.jobs.remove(id);
        let row = job.payload[0];
        // Beyond its attempts a row is tried uncharged, whatever comes of it.
        if let Some(open) = self.buffer.open_mut(row).filter(|_| job.overtime.is_none()) {
            open.attempts += 1;
        }
        self.finish(row, fault, at);
        self.faults.forget(job.batch_id, row);
        job.batch_id
    }

    fn finish(&mut self, row: u64, fault: Option<Failure>, at: At) {
        let Some(SettledRecord { user_id, accepted }) = self.buffer.settle(row, fault, at.wall) else { return };
        match (self.user_order.leave(user_id), accepted) {
            (Some(next), _) => self.fresh.push_back(next),
            (None, Some(account)) => self.accepted = Some(Accepted { account, user_id, at: at.now }),
            (None, None) => {}
        }
    }

    /// The next outcome in input order, if its record has settled.
    pub fn take_settled(&mut self) -> Option<RowOutcome> {
        self.buffer.take_settled()
    }

    /// The end of records of which nothing is to become, if they are next.
    pub fn take_passed(&mut self) -> Option<InputPosition> {
        self.buffer.take_passed()
    }

    /// Rows that failed though nothing could show whether the service was well.
    #[must_use]
    pub const fn unjudged(&self) -> u64 {
        self.unjudged
    }

    const fn is_down(&self) -> bool {
        self.health.is_down()
    }

    /// The lane that is taken now.
    #[must_use]
    pub const fn lane(&self) -> Lane {
        self.lane
    }

    /// Whether every record that came in has settled and been taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

/// A job for these rows; the breaker counts it under `batch_id`.
fn rows_job(command: Command, rows: Vec<u64>, batch_id: u64) -> Job<Vec<u64>> {
    Job { order: rows[0], ..Job::new(command, rows, batch_id) }
}

/// The breaker that all calls of a delivery share: nothing of it leaves while the service takes no accounts.
const BREAKER: Command = Command::AccountImport;

impl Scheduler for Deliveries {
    fn breaker_of(_: Command) -> Command {
        BREAKER
    }

    fn has_call(&mut self, command: Command, now: Instant) -> bool {
        self.jobs.take_due(now);
        self.choose(command, now).is_some()
    }

    fn next_call(&mut self, command: Command, now: Instant) -> Option<Call<'_>> {
        self.jobs.take_due(now);
        let job = match self.choose(command, now)? {
            Choice::Job(job) => {
                self.jobs.unqueue(job);
                if !matches!(self.lane, Lane::Batch(_)) && !self.fresh.is_empty() {
                    self.budget.spend_retry();
                }
                job
            }
            Choice::Fresh => {
                self.budget.spend_fresh();
                self.pack(command)
            }
            Choice::Probe(means) => return self.send_probe(command, means),
        };
        self.depart(job);
        Some(self.call_of(job))
    }

    fn same_call(&mut self, id: CallId) -> Call<'_> {
        match id {
            CallId::Job(id) => {
                self.jobs[id].has_left = true;
                self.call_of(id)
            }
            CallId::Probe(_) => self.probe_call(),
        }
    }

    fn ended(&mut self, id: CallId, end: CallOutcome, left: Instant, at: At) -> CallEffect {
        self.in_flight -= 1;
        let times = CallTimes { left, ended: at.now };
        match id {
            CallId::Job(id) => self.job_ended(id, end, times, at),
            CallId::Probe(_) => self.probe_ended(end, times, at),
        }
    }

    fn stop(&mut self) {
        self.feed = Intake::Stopped;
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn next_wake(&self) -> Option<Instant> {
        if self.is_down() {
            return self.health.probe_at();
        }
        [self.jobs.next_wake(), self.health.retry_at()].into_iter().flatten().min()
    }

    fn is_down(&self, _: Command) -> bool {
        self.health.is_down()
    }

    fn down_since(&self) -> Option<(Instant, Command)> {
        self.health.down_since().map(|since| (since, BREAKER))
    }

    fn useless_since(&self) -> Option<(Instant, Command)> {
        self.health.useless_since().map(|since| (since, BREAKER))
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_batch;
