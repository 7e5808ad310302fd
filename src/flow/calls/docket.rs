//! The docket: every errand that is under way, and what becomes of it.
//!
//! A state machine without I/O, clock or randomness: it is told how calls ended, and says what is called next. Who asks the gate and sends
//! is the dispatcher's business.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::outage::ApiHealth;
use super::{CallsSettings, Errand, Fate};
use crate::domain::account::Account;
use crate::domain::breaker::{CallTimes, ExhaustedBy, Means};
use crate::domain::command::{Command, PerCommand};
use crate::domain::retry::At;
use crate::domain::verdict::{CallEffect, CallOutcome, CallSize, HaltReason, SuccessSeen, Verdict, judge, words};
use crate::flow::dispatch::health::halted;
use crate::flow::dispatch::job_queue::{Failure, Job, JobQueue, Stage};
use crate::flow::dispatch::{Call, CallId, JobId, Scheduler};

/// What leaves next.
#[derive(Debug, Clone, Copy)]
enum Choice {
    Job(JobId),
    /// A test of this API.
    Probe(Command, Means),
}

/// Whether calls still go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Intake {
    Open,
    /// What is in flight may end, nothing else leaves.
    Stopped,
}

/// Every errand that is under way.
#[derive(Debug)]
pub(super) struct Docket<T> {
    pub(super) max_attempts: u32,
    most_in_flight: usize,
    pub(super) identifier: Account,
    pub(super) jobs: JobQueue<Errand<T>>,
    pub(super) apis: PerCommand<ApiHealth>,
    ended: VecDeque<(Errand<T>, Fate)>,
    /// Errands that were taken on.
    taken_on: u64,
    /// Calls of all APIs, tests included.
    pub(super) in_flight: usize,
    /// Accounts whose errand ended though nothing could show whose fault it was.
    pub(super) unjudged: u64,
    pub(super) seen: SuccessSeen,
    pub(super) feed: Intake,
}

impl<T: Clone> Docket<T> {
    pub(super) fn new(settings: &CallsSettings) -> Self {
        Self {
            max_attempts: settings.max_attempts,
            most_in_flight: settings.in_flight,
            identifier: Account { user_id: settings.identifier.clone(), nick: None, face_url: None },
            jobs: JobQueue::default(),
            apis: PerCommand::default(),
            ended: VecDeque::new(),
            taken_on: 0,
            in_flight: 0,
            unjudged: 0,
            seen: SuccessSeen::NotYet,
            feed: Intake::Open,
        }
    }

    /// Whether another errand with this command is wanted.
    pub(super) fn wants(&self, command: Command, now: Instant) -> bool {
        let is_lacking = !self.apis[command].health.is_down() && self.jobs.first_due(command).is_none();
        self.feed == Intake::Open && (is_lacking || self.wants_fresh_for_test(command, now))
    }

    pub(super) fn take_on(&mut self, errand: Errand<T>) {
        self.taken_on += 1;
        self.jobs.insert_due(Job::new(errand.command, errand, self.taken_on));
    }

    fn choose(&self, command: Command, now: Instant) -> Option<Choice> {
        if self.feed == Intake::Stopped || self.in_flight >= self.most_in_flight {
            return None;
        }
        if let Some((tested, means)) = self.next_probe(command, now) {
            return Some(Choice::Probe(tested, means));
        }
        if self.apis[command].health.is_down() {
            return None;
        }
        // Earlier errands first: they hold up whoever waits for them.
        self.jobs.first_due(command).map(Choice::Job)
    }

    pub(super) fn depart(&mut self, id: JobId) {
        let job = &mut self.jobs[id];
        job.stage = Stage::InFlight;
        job.tries += 1;
        self.in_flight += 1;
        self.apis[job.command].in_flight += 1;
    }

    pub(super) fn call_of(&self, id: JobId) -> Call<'_> {
        let Job { payload: errand, has_left, .. } = &self.jobs[id];
        Call { id: CallId::Job(id), accounts: errand.accounts.iter().collect(), is_retry: *has_left }
    }

    fn job_came_back(&mut self, id: JobId, end: CallOutcome, times: CallTimes, at: At) -> CallEffect {
        self.jobs[id].has_left |= end.has_left();
        let Job { payload: ref errand, batch_id, .. } = self.jobs[id];
        let command = errand.command;
        self.apis[command].in_flight -= 1;
        let verdict = judge(&end, self.seen, self.carried(id));
        let is_probe = self.takes_probe(command, id);
        self.note_unknown(command, &verdict);
        if is_probe && matches!(verdict, Verdict::Retry | Verdict::Unknown | Verdict::ConnectFailed) {
            self.fresh_probe_failed(id, end, at);
            return self.tested((command, command), &verdict, times, at);
        }
        let sample = self.sample(id, &verdict);
        match self.job_ended(id, &verdict, end, at) {
            Err(halt) => halt,
            Ok(()) if is_probe => self.tested((command, command), &verdict, times, at),
            Ok(()) => self.judged(command, (batch_id, sample), &verdict, times),
        }
    }

    /// A call that is left of a refused one is judged as that: once another got through, the fault is its own.
    fn carried(&self, id: JobId) -> CallSize {
        let job = &self.jobs[id];
        let is_blamed = job.siblings > 0 && self.seen == SuccessSeen::Yes;
        if job.payload.accounts.len() > 1 || is_blamed { CallSize::Batch } else { CallSize::One }
    }

    fn job_ended(&mut self, id: JobId, verdict: &Verdict, end: CallOutcome, at: At) -> Result<(), CallEffect> {
        match verdict {
            Verdict::Accepted => {
                self.seen = SuccessSeen::Yes;
                let CallOutcome::Done(found) = end else { unreachable!("nothing else is taken") };
                let job = self.jobs.remove(id);
                let api = &mut self.apis[job.command];
                api.refusals.accepted();
                api.answered = job.payload.accounts.first().map(|account| (account.clone(), at.now));
                self.ended.push_back((job.payload, Fate::Done(found)));
            }
            Verdict::Reject => self.refused(id, words(end))?,
            Verdict::Retry => self.charge(id, words(end), ExhaustedBy::TemporaryErrors, at),
            Verdict::Unknown => {
                let (command, last) = (self.jobs[id].command, words(end));
                self.charge(id, last.clone(), ExhaustedBy::UnknownCodes, at);
                self.halt_if_unknown_everywhere(command, last)?;
            }
            Verdict::ConnectFailed | Verdict::Throttle(_) => self.jobs.back_off(id, words(end), at),
            Verdict::Reauthenticate => self.jobs.make_due(id),
            Verdict::Abort(HaltReason::InvalidRequest) if self.has_promising_sibling(id) => self.jobs.back_off(id, words(end), at),
            Verdict::Abort(refusal) => {
                self.jobs.make_due(id);
                return Err(halted(*refusal, end));
            }
        }
        Ok(())
    }

    /// A call for one account is refused; one for more is split.
    fn refused(&mut self, id: JobId, (code, info): Failure) -> Result<(), CallEffect> {
        let Job { payload: errand, .. } = &self.jobs[id];
        let (command, is_single, code) = (errand.command, errand.accounts.len() == 1, code.unwrap_or_default());
        self.halve_or(id, |_| Fate::Refused { code, info: info.clone() });
        if !is_single || command.spec().no_account_code == Some(code) {
            return Ok(());
        }
        self.halt_if_refused_everywhere(command, code, info)
    }

    /// A call for one account ends; a call for more is made again for each half, since the fault may be a single one's.
    pub(super) fn halve_or(&mut self, id: JobId, fate: impl FnOnce(Failure) -> Fate) {
        let Job { payload: mut errand, batch_id, siblings, last, .. } = self.jobs.remove(id);
        self.apis[errand.command].faults.forget(batch_id, id as u64);
        let count = errand.accounts.len();
        if count <= 1 {
            self.ended.push_back((errand, fate(last)));
            return;
        }
        let accounts = errand.accounts.split_off(count.div_ceil(2));
        let second = Errand { accounts, tag: errand.tag.clone(), ..errand };
        for half in [errand, second] {
            self.jobs.insert_due(Job { siblings: siblings.max(count), ..Job::new(half.command, half, batch_id) });
        }
    }

    /// Whether another part of the same errand may yet go well: until then nobody knows whose fault a malformed request is.
    fn has_promising_sibling(&self, id: JobId) -> bool {
        let batch_id = self.jobs[id].batch_id;
        self.jobs.iter().any(|(other, job)| other != id && job.batch_id == batch_id && job.is_promising())
    }

    /// The next errand, or part of one, that has come to its end.
    pub(super) fn take_ended(&mut self) -> Option<(Errand<T>, Fate)> {
        self.ended.pop_front()
    }

    /// Whether every errand that came in has ended.
    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }
}

impl<T: Clone> Scheduler for Docket<T> {
    fn breaker_of(command: Command) -> Command {
        command
    }

    fn has_call(&mut self, command: Command, now: Instant) -> bool {
        self.jobs.take_due(now);
        self.choose(command, now).is_some()
    }

    fn next_call(&mut self, command: Command, now: Instant) -> Option<Call<'_>> {
        self.jobs.take_due(now);
        match self.choose(command, now)? {
            Choice::Job(id) => {
                self.jobs.unqueue(id);
                self.depart(id);
                Some(self.call_of(id))
            }
            Choice::Probe(tested, means) => self.send_probe(tested, means),
        }
    }

    fn same_call(&mut self, id: CallId) -> Call<'_> {
        match id {
            CallId::Job(id) => {
                self.jobs[id].has_left = true;
                self.call_of(id)
            }
            CallId::Probe(tested) => self.probe_call(tested),
        }
    }

    fn ended(&mut self, id: CallId, end: CallOutcome, left: Instant, at: At) -> CallEffect {
        self.in_flight -= 1;
        let times = CallTimes { left, ended: at.now };
        match id {
            CallId::Job(id) => self.job_came_back(id, end, times, at),
            CallId::Probe(tested) => self.probe_ended(tested, end, times, at),
        }
    }

    fn stop(&mut self) {
        self.feed = Intake::Stopped;
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn next_wake(&self) -> Option<Instant> {
        let own = self.apis.iter().flat_map(|(_, api)| [api.health.probe_at(), api.health.retry_at()]);
        own.flatten().chain(self.jobs.next_wake()).min()
    }

    fn is_down(&self, breaker: Command) -> bool {
        self.apis[breaker].health.is_down()
    }

    fn down_since(&self) -> Option<(Instant, Command)> {
        self.apis.iter().filter_map(|(command, api)| Some((api.health.down_since()?, command))).min()
    }

    fn useless_since(&self) -> Option<(Instant, Command)> {
        self.apis.iter().filter_map(|(command, api)| Some((api.health.useless_since()?, command))).min()
    }
}
