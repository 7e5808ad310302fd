//! Jobs: what one call carries, from its first try until it has ended or was divided.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use slab::Slab;
use tokio::time::Instant;

use super::JobId;
use crate::domain::breaker::{ExhaustedBy, Health, Overtime, Tried};
use crate::domain::command::{Command, PerCommand, Repetition};
use crate::domain::retry::{ClockReading, back_off};
use crate::domain::verdict::INVALID_REQUEST;

/// A code, if there was one, and what was said.
pub type Failure = (Option<i64>, String);

/// Where a job stands.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stage {
    /// Due to leave.
    Ready,
    InFlight,
    /// Until its back-off is over.
    Waiting,
    /// Out of attempts; fails once a later call shows that the service is well, so that the start of an outage fails nobody.
    Exhausted,
}

/// Requests that change something and were charged to the accounts of a job. Its parts inherit them when it is divided.
#[derive(Debug, Clone, Copy, Default)]
pub struct Charges {
    /// What is reported.
    pub(crate) charged: u32,
    /// The part of `charged` that temporary errors account for; an outage gives it back.
    pub(crate) passing: u32,
}

impl Charges {
    /// As they are once it is known that the service was well: an outage of another API gives nothing back.
    pub(crate) const fn as_charged(self) -> Self {
        Self { passing: 0, ..self }
    }
}

/// What one call carries.
#[derive(Debug)]
pub struct Job<P> {
    pub(crate) command: Command,
    /// What is asked, as the workload knows it.
    pub(crate) payload: P,
    /// Of two jobs that are due, the one with the lower number leaves first.
    pub(crate) order: u64,
    /// The number of the job that it is a part of, its own if it is whole: the breaker counts distinct ones.
    pub(crate) batch_id: u64,
    /// The accounts of the whole job that this one is a part of; 0 if it is no part.
    pub(crate) split_from_accounts: usize,
    /// Temporary errors and unknown codes that were charged to it; `--max-attempts` bounds them.
    pub(crate) charged_errors: u32,
    pub(crate) charges: Charges,
    /// Calls that were started, charged or not: what the back-off grows by.
    pub(crate) tries: u32,
    /// One of them left: the next one is a repeat.
    pub(crate) has_left: bool,
    pub(crate) stage: Stage,
    /// When the first of the temporary errors was charged.
    pub(crate) charged_since: Option<Instant>,
    /// While it is tried beyond its attempts.
    pub(crate) overtime: Option<Overtime>,
    pub(crate) last: Failure,
}

impl<P> Job<P> {
    pub(crate) fn new(command: Command, payload: P, batch_id: u64) -> Self {
        Self {
            command,
            payload,
            order: batch_id,
            batch_id,
            split_from_accounts: 0,
            charged_errors: 0,
            charges: Charges::default(),
            tries: 0,
            has_left: false,
            stage: Stage::Ready,
            charged_since: None,
            overtime: None,
            last: (None, String::new()),
        }
    }

    /// Whether it may yet go well, so that a malformed request of a sibling is not known to be everybody's fault. A job that is out of
    /// attempts, or was called malformed itself, shows nothing.
    pub(crate) fn is_promising(&self) -> bool {
        match self.stage {
            Stage::Ready | Stage::InFlight | Stage::Waiting => self.last.0 != Some(INVALID_REQUEST),
            Stage::Exhausted => false,
        }
    }

    /// Divides the job, which carries so many accounts: its payload, and a way to make a job of a part of it with fresh attempts.
    pub(crate) fn divide(self, accounts: usize) -> (P, impl Fn(Command, P) -> Job<P>) {
        let Job { payload, batch_id, split_from_accounts, charges, order, .. } = self;
        let split_from_accounts = split_from_accounts.max(accounts);
        (payload, move |command, payload| Job { order, split_from_accounts, charges, ..Job::new(command, payload, batch_id) })
    }

    /// Charges a call whose answer is known.
    pub(crate) fn charge_answer(&mut self) {
        self.charges.charged += u32::from(self.is_reported() && self.overtime.is_none());
    }

    /// Charges a temporary error.
    pub(crate) fn charge_error(&mut self, now: Instant) {
        let reported = u32::from(self.is_reported());
        self.charged_errors += 1;
        self.charges.charged += reported;
        self.charges.passing += reported;
        self.charged_since.get_or_insert(now);
    }

    fn is_reported(&self) -> bool {
        self.command.spec().repetition == Repetition::Changing
    }

    /// What it was charged is the fault of the service.
    pub(crate) const fn give_back(&mut self) {
        self.charges.charged -= self.charges.passing;
        self.charges.passing = 0;
        self.charged_errors = 0;
        self.charged_since = None;
        self.overtime = None;
    }
}

/// All jobs, with the ones that are due and the ones that wait.
#[derive(Debug)]
pub struct JobQueue<P> {
    all: Slab<Job<P>>,
    due: PerCommand<BTreeSet<(u64, JobId)>>,
    waiting: BinaryHeap<Reverse<(Instant, JobId)>>,
}

impl<P> Default for JobQueue<P> {
    fn default() -> Self {
        Self { all: Slab::new(), due: PerCommand::default(), waiting: BinaryHeap::new() }
    }
}

impl<P> JobQueue<P> {
    /// Adds a job that is about to leave.
    pub(crate) fn insert(&mut self, job: Job<P>) -> JobId {
        self.all.insert(job)
    }

    /// Adds a job that is due.
    pub(crate) fn insert_due(&mut self, job: Job<P>) {
        let id = self.insert(job);
        self.make_due(id);
    }

    pub(crate) fn make_due(&mut self, id: JobId) {
        let job = &mut self.all[id];
        job.stage = Stage::Ready;
        self.due[job.command].insert((job.order, id));
    }

    pub(crate) fn make_wait(&mut self, id: JobId, until: Instant) {
        self.all[id].stage = Stage::Waiting;
        self.waiting.push(Reverse((until, id)));
    }

    /// It is tried again after its back-off.
    pub(crate) fn back_off(&mut self, id: JobId, last: Failure, at: ClockReading) {
        let job = &mut self.all[id];
        job.last = last;
        let delay = back_off(job.tries, at.jitter);
        self.make_wait(id, at.now + delay);
    }

    /// It is out of attempts, and waits for its judgement.
    pub(crate) fn exhaust(&mut self, id: JobId, health: &mut Health<JobId>, (last, by): (Failure, ExhaustedBy), now: Instant) {
        let job = &mut self.all[id];
        job.last = last;
        job.stage = Stage::Exhausted;
        let since = job.charged_since.unwrap_or(now);
        health.exhaust(id, by, job.overtime.map_or(Tried::Charged { since }, Tried::Beyond), now);
    }

    /// Exhausted jobs are tried once more, beyond their attempts.
    pub(crate) fn try_again(&mut self, jobs: Vec<(JobId, Overtime)>) {
        for (id, overtime) in jobs {
            self.all[id].overtime = Some(overtime);
            self.make_due(id);
        }
    }

    /// Those whose time has come are due.
    pub(crate) fn take_due(&mut self, now: Instant) {
        while let Some(Reverse((at, id))) = self.waiting.peek().copied()
            && at <= now
        {
            self.waiting.pop();
            self.make_due(id);
        }
    }

    pub(crate) fn first_due(&self, command: Command) -> Option<JobId> {
        self.due[command].first().map(|(_, id)| *id)
    }

    pub(crate) fn next_wake(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes a job out of the queues: it leaves, or it is about to be removed.
    fn unqueue(&mut self, id: JobId) {
        let job = &self.all[id];
        match job.stage {
            Stage::Ready => {
                self.due[job.command].remove(&(job.order, id));
            }
            Stage::Waiting => self.waiting.retain(|Reverse((_, waiting))| *waiting != id),
            Stage::InFlight | Stage::Exhausted => {}
        }
    }

    pub(crate) fn remove(&mut self, id: JobId) -> Job<P> {
        self.unqueue(id);
        self.all.remove(id)
    }

    /// A call of it leaves.
    pub(crate) fn depart(&mut self, id: JobId) {
        self.unqueue(id);
        let job = &mut self.all[id];
        job.stage = Stage::InFlight;
        job.tries += 1;
    }

    pub(crate) fn contains(&self, id: JobId) -> bool {
        self.all.contains(id)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Those of `command` that are due or wait.
    pub(crate) fn idle(&self, command: Command) -> Vec<JobId> {
        let is_idle = |job: &Job<P>| job.command == command && matches!(job.stage, Stage::Ready | Stage::Waiting);
        self.all.iter().filter(|(_, job)| is_idle(job)).map(|(id, _)| id).collect()
    }

    /// Whether something of this command is due or waits.
    pub(crate) fn moves(&self, command: Command) -> bool {
        !self.due[command].is_empty() || self.waiting.iter().any(|Reverse((_, id))| self.all[*id].command == command)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (JobId, &Job<P>)> {
        self.all.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (JobId, &mut Job<P>)> {
        self.all.iter_mut()
    }
}

impl<P> std::ops::Index<JobId> for JobQueue<P> {
    type Output = Job<P>;

    fn index(&self, id: JobId) -> &Job<P> {
        &self.all[id]
    }
}

impl<P> std::ops::IndexMut<JobId> for JobQueue<P> {
    fn index_mut(&mut self, id: JobId) -> &mut Job<P> {
        &mut self.all[id]
    }
}
