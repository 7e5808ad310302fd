//! The scheduler: which call is next, and what the end of a call means.
//!
//! A state machine without I/O, clock or randomness: it is told how calls ended, and asks the [`Workload`] what they are about. It holds
//! the promises about calls: nobody is charged for an outage, and nobody suffers for what else was in its call.

use tokio::time::Instant;

use super::health::{ApiHealth, Probe, effect};
use super::job_queue::{Job, JobQueue};
use super::workload::Workload;
use super::{Call, CallId, JobId, Known};
use crate::domain::account::UserId;
use crate::domain::breaker::{CallTimes, HealthChange, HealthSample, TestMeans};
use crate::domain::command::{Command, PerCommand};
use crate::domain::retry::{ClockReading, RetryBudget};
use crate::domain::verdict::{CallEffect, CallOutcome, CallSize, SuccessSeen, Verdict, judge, words};
use crate::io::api::Request;

/// The bounds of what is sent.
#[derive(Debug, Clone, Copy)]
pub struct SchedulerLimits {
    /// Attempts of each job at most.
    pub max_attempts: u32,
    /// Calls in flight at most, of all APIs together.
    pub in_flight: usize,
}

/// Why the end of one request ends the whole run.
#[derive(Debug)]
pub enum Stop<E> {
    /// The run stops: [`CallEffect::Halt`].
    Halt(CallEffect),
    /// The workload can't go on.
    Failed(E),
}

impl<E> From<E> for Stop<E> {
    fn from(error: E) -> Self {
        Stop::Failed(error)
    }
}

/// When a call left, and when and how it ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct When {
    pub(super) left: Instant,
    pub(super) at: ClockReading,
}

impl When {
    pub(super) const fn times(self) -> CallTimes {
        CallTimes { left: self.left, ended: self.at.now }
    }
}

pub(super) type Decided<W> = Result<(), Stop<<W as Workload>::Error>>;

/// What leaves next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// A job that was sent before, or is a part of one.
    Job(JobId),
    /// Work that has not been sent yet.
    Fresh,
    /// A test of whether this API is well.
    Probe(Command, TestMeans),
}

/// Every job that is under way.
#[derive(Debug)]
pub struct Scheduler<W: Workload> {
    pub(crate) limits: SchedulerLimits,
    identifier: UserId,
    pub(crate) jobs: JobQueue<W::Payload>,
    pub(crate) apis: PerCommand<ApiHealth<W::Repeatable>>,
    /// The APIs by which breakers are named, each once, the ones that are asked for first before the others.
    pub(super) breakers: Vec<Command>,
    /// The retry budget of each command.
    budgets: PerCommand<RetryBudget>,
    /// Calls of all APIs, tests included.
    pub(super) in_flight: usize,
    /// Accounts that failed though nothing could show whose fault it was.
    pub(super) unjudged: u64,
    pub(super) seen: SuccessSeen,
    /// What is in flight may end, nothing else leaves.
    is_stopped: bool,
}

impl<W: Workload> Scheduler<W> {
    #[must_use]
    pub fn new(limits: SchedulerLimits, known: Known) -> Self {
        let mut breakers = Vec::new();
        for breaker in W::COMMANDS.iter().map(|command| W::breaker_of(*command)) {
            if !breakers.contains(&breaker) {
                breakers.push(breaker);
            }
        }
        Self {
            limits,
            identifier: known.identifier,
            jobs: JobQueue::default(),
            apis: PerCommand::default(),
            breakers,
            budgets: PerCommand::default(),
            in_flight: 0,
            unjudged: 0,
            seen: known.seen,
            is_stopped: false,
        }
    }

    /// Whether more is to be read for this breaker.
    pub fn wants_fresh(&self, workload: &W, breaker: Command, now: Instant) -> bool {
        let is_lacking = !self.is_down(breaker) && workload.fresh(breaker) < workload.fresh_wanted(breaker);
        !self.is_stopped && workload.can_have_more(breaker) && (is_lacking || self.wants_fresh_for_test(workload, breaker, now))
    }

    /// Whether a call of `command` could leave now, if the gate allows.
    pub fn has_call(&mut self, workload: &W, command: Command, now: Instant) -> bool {
        self.jobs.take_due(now);
        self.choose(workload, command, now).is_some()
    }

    /// The call of `command` that is to leave now; from here on it counts as in flight.
    pub fn next_call(&mut self, workload: &mut W, command: Command, now: Instant) -> Option<CallId> {
        self.jobs.take_due(now);
        let id = match self.choose(workload, command, now)? {
            Choice::Job(id) => {
                if workload.is_ready(command) && workload.budgets_retries(command) {
                    self.budgets[command].spend_retry();
                }
                id
            }
            Choice::Fresh => {
                self.budgets[command].spend_fresh();
                self.jobs.insert(workload.take(command))
            }
            Choice::Probe(tested, means) => return self.send_probe(workload, command, (tested, means)),
        };
        Some(self.depart(workload, id))
    }

    fn choose(&self, workload: &W, command: Command, now: Instant) -> Option<Choice> {
        if self.is_stopped || self.in_flight >= self.limits.in_flight {
            return None;
        }
        if let Some((tested, means)) = self.next_probe(workload, command, now) {
            return Some(Choice::Probe(tested, means));
        }
        let breaker = W::breaker_of(command);
        if self.is_down(breaker) || self.apis[breaker].in_flight >= workload.most_in_flight(breaker, self.limits.in_flight) {
            return None;
        }
        let retry = self.jobs.first_due(command).filter(|id| workload.may_leave(&self.jobs[*id]));
        match (retry.map(Choice::Job), workload.is_ready(command)) {
            (Some(_), true) if workload.budgets_retries(command) && !self.budgets[command].allows_retry() => Some(Choice::Fresh),
            (None, true) => Some(Choice::Fresh),
            (retry, _) => retry,
        }
    }

    pub(super) fn depart(&mut self, workload: &mut W, id: JobId) -> CallId {
        self.jobs.depart(id);
        let job = &self.jobs[id];
        workload.departed(id, job);
        self.in_flight += 1;
        self.apis[W::breaker_of(job.command)].in_flight += 1;
        CallId::Job(id)
    }

    /// What a call of `command` that is in flight carries.
    pub fn call<'a>(&'a self, workload: &'a W, command: Command, id: CallId) -> Call<'a> {
        match id {
            CallId::Job(id) => Call { request: workload.request(&self.jobs[id]), is_retry: self.jobs[id].has_left },
            CallId::Probe(tested) => {
                let request = match &self.apis[tested].probe {
                    Some(Probe::Repeat(repeatable, _)) => W::repeat(command, repeatable),
                    Some(Probe::Job(_) | Probe::Check) | None => Request::AccountCheck(vec![&self.identifier]),
                };
                Call { request, is_retry: false }
            }
        }
    }

    /// A call in flight leaves once more, since it met a connection that had been given up: it is the same attempt, and still in flight.
    pub fn leaves_again(&mut self, id: CallId) {
        if let CallId::Job(id) = id {
            self.jobs[id].has_left = true;
        }
    }

    /// Takes the end of a call that left at `left`.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn ended(
        &mut self,
        workload: &mut W,
        (id, left): (CallId, Instant),
        end: CallOutcome,
        at: ClockReading,
    ) -> Result<CallEffect, Stop<W::Error>> {
        self.in_flight -= 1;
        let when = When { left, at };
        match id {
            CallId::Job(id) => self.job_ended(workload, id, end, when),
            CallId::Probe(tested) => self.probe_ended(workload, tested, end, when),
        }
    }

    fn job_ended(&mut self, workload: &mut W, id: JobId, end: CallOutcome, when: When) -> Result<CallEffect, Stop<W::Error>> {
        self.jobs[id].has_left |= end.has_left();
        let Job { command, batch_id, .. } = self.jobs[id];
        workload.returned(id, command);
        let breaker = W::breaker_of(command);
        let carries = if workload.is_divisible(&self.jobs[id]) { CallSize::Batch } else { CallSize::One };
        let verdict = workload.verdict_on(&self.jobs[id], &end);
        let verdict = verdict.unwrap_or_else(|| judge(&end, self.seen, self.judged_as(id, carries)));
        let api = &mut self.apis[breaker];
        api.in_flight -= 1;
        let is_probe = api.take_probe(id);
        if command.spec().breaker == breaker {
            api.unknown.note(id, carries, &verdict);
        }
        if is_probe && matches!(verdict, Verdict::Retry | Verdict::Unknown | Verdict::ConnectFailed) {
            self.return_tested(id, words(end), when.at);
            self.take_back_if_stopped(workload, id);
            return self.tested(workload, (breaker, command), &verdict, when);
        }
        let sample = self.sample(workload, id, &verdict);
        self.decide(workload, id, (&verdict, end), when.at)?;
        self.take_back_if_stopped(workload, id);
        if is_probe {
            return self.tested(workload, (breaker, command), &verdict, when);
        }
        self.judged(workload, (breaker, batch_id, sample), &verdict, when)
    }

    /// How the end of a request is judged. A part of a batch that was refused is judged as the batch was: once the service has accepted
    /// another record, a malformed request is the fault of this part.
    fn judged_as(&self, id: JobId, carries: CallSize) -> CallSize {
        let Job { command, split_from_accounts, .. } = self.jobs[id];
        let is_blamed = split_from_accounts > 0 && self.seen == SuccessSeen::Yes && command.spec().accounts_per_call > 1;
        if is_blamed { CallSize::Batch } else { carries }
    }

    /// Tells the health of the API how a call ended, and draws the consequences.
    fn judged(
        &mut self,
        workload: &mut W,
        (breaker, batch_id, sample): (Command, u64, HealthSample),
        verdict: &Verdict,
        when: When,
    ) -> Result<CallEffect, Stop<W::Error>> {
        let api = &mut self.apis[breaker];
        if api.health.is_down() {
            return Ok(CallEffect::Nothing);
        }
        if api.health.note(batch_id, sample, when.times(), api.other_calls()) == HealthChange::Down {
            self.give_back(breaker);
            return Ok(CallEffect::Down);
        }
        if sample == HealthSample::Good {
            self.settle_exhausted(workload, breaker, when)?;
        }
        Ok(effect(verdict))
    }

    /// Nothing leaves any more; what is in flight may end.
    pub fn stop(&mut self) {
        self.is_stopped = true;
    }

    pub(super) const fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// The APIs by which breakers are named, each once.
    #[must_use]
    pub fn breakers(&self) -> &[Command] {
        &self.breakers
    }

    /// Calls in flight.
    #[must_use]
    pub const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether no job is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Accounts that failed only after a long wait, since nothing could show whether the service was well.
    #[must_use]
    pub const fn unjudged(&self) -> u64 {
        self.unjudged
    }

    /// When something is due of itself: a retry or a probe.
    #[must_use]
    pub fn next_wake(&self) -> Option<Instant> {
        let own = self.healths().flat_map(|(_, api)| [api.health.probe_at(), api.health.retry_at()]);
        own.flatten().chain(self.jobs.next_wake()).min()
    }

    /// Whether this breaker is open.
    #[must_use]
    pub fn is_down(&self, breaker: Command) -> bool {
        self.apis[breaker].health.is_down()
    }

    /// The breaker that has been open for the longest, and since when.
    #[must_use]
    pub fn down_since(&self) -> Option<(Instant, Command)> {
        self.healths().filter_map(|(breaker, api)| Some((api.health.down_since()?, breaker))).min()
    }

    /// The breaker that has been open, or whose API has said nothing but "too fast", for the longest, and since when.
    #[must_use]
    pub fn useless_since(&self) -> Option<(Instant, Command)> {
        self.healths().filter_map(|(breaker, api)| Some((api.health.useless_since()?, breaker))).min()
    }

    fn healths(&self) -> impl Iterator<Item = (Command, &ApiHealth<W::Repeatable>)> {
        self.breakers.iter().map(|breaker| (*breaker, &self.apis[*breaker]))
    }
}
