//! The docket: every errand that is under way, and what becomes of it.
//!
//! A state machine without I/O, clock or randomness: it is told how calls ended, and says what is called next. Who asks the gate and sends
//! is the dispatcher's business.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::outage::ApiHealth;
use super::part::{Part, PartId, Pile, Size, Stage};
use super::{CallsSettings, Errand, Fate};
use crate::domain::account::Account;
use crate::domain::breaker::{CallTimes, ExhaustedBy, Means};
use crate::domain::command::{Command, PerCommand};
use crate::domain::retry::{At, back_off};
use crate::domain::verdict::{CallEffect, CallOutcome, CallSize, HaltReason, INVALID_REQUEST, SuccessSeen, Verdict, judge, words};
use crate::flow::dispatch::{Call, CallId, Scheduler};

/// What leaves next.
#[derive(Debug, Clone, Copy)]
enum Choice {
    Part(PartId),
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
    pub(super) pile: Pile<T>,
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
            pile: Pile::default(),
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
        let is_lacking = !self.apis[command].health.is_down() && self.pile.first_due(command).is_none();
        self.feed == Intake::Open && (is_lacking || self.wants_fresh_for_test(command, now))
    }

    pub(super) fn take_on(&mut self, errand: Errand<T>) {
        self.taken_on += 1;
        self.pile.insert_due(Part::new(errand, self.taken_on, Size::Whole));
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
        self.pile.first_due(command).map(Choice::Part)
    }

    pub(super) fn depart(&mut self, id: PartId) {
        let part = &mut self.pile[id];
        part.stage = Stage::InFlight;
        part.tries += 1;
        self.in_flight += 1;
        self.apis[part.errand.command].in_flight += 1;
    }

    pub(super) fn call_of(&self, id: PartId) -> Call<'_> {
        let Part { errand, has_left, .. } = &self.pile[id];
        Call { id: CallId::Job(id), accounts: errand.accounts.iter().collect(), is_retry: *has_left }
    }

    fn part_came_back(&mut self, id: PartId, end: CallOutcome, times: CallTimes, at: At) -> CallEffect {
        self.pile[id].has_left |= end.has_left();
        let Part { ref errand, batch_id, .. } = self.pile[id];
        let command = errand.command;
        self.apis[command].in_flight -= 1;
        let verdict = judge(&end, self.seen, self.carried(id));
        let is_probe = self.takes_probe(command, id);
        self.note_unknown(command, &verdict);
        if is_probe && matches!(verdict, Verdict::Retry | Verdict::Unknown | Verdict::ConnectFailed) {
            self.fresh_probe_failed(id, end, at);
            return self.tested((command, command), &verdict, times, at);
        }
        match self.part_ended(id, &verdict, end, at) {
            Err(halt) => halt,
            Ok(()) if is_probe => self.tested((command, command), &verdict, times, at),
            Ok(()) => self.judged((command, batch_id), &verdict, times),
        }
    }

    /// A call that is left of a refused one is judged as that: once another got through, the fault is its own.
    fn carried(&self, id: PartId) -> CallSize {
        let part = &self.pile[id];
        let is_blamed = part.size == Size::Fraction && self.seen == SuccessSeen::Yes;
        if part.errand.accounts.len() > 1 || is_blamed { CallSize::Batch } else { CallSize::One }
    }

    fn part_ended(&mut self, id: PartId, verdict: &Verdict, end: CallOutcome, at: At) -> Result<(), CallEffect> {
        match verdict {
            Verdict::Accepted => {
                self.seen = SuccessSeen::Yes;
                let CallOutcome::Done(found) = end else { unreachable!("nothing else is taken") };
                let part = self.pile.remove(id);
                let api = &mut self.apis[part.errand.command];
                api.refusals.accepted();
                api.answered = part.errand.accounts.first().map(|account| (account.clone(), at.now));
                self.ended.push_back((part.errand, Fate::Done(found)));
            }
            Verdict::Reject => self.refused(id, words(end))?,
            Verdict::Retry => self.charge(id, words(end), ExhaustedBy::TemporaryErrors, at),
            Verdict::Unknown => {
                let (command, last) = (self.pile[id].errand.command, words(end));
                self.charge(id, last.clone(), ExhaustedBy::UnknownCodes, at);
                self.halt_if_unknown_everywhere(command, last)?;
            }
            Verdict::ConnectFailed | Verdict::Throttle(_) => self.wait(id, words(end), at),
            Verdict::Reauthenticate => self.pile.make_due(id),
            Verdict::Abort(HaltReason::InvalidRequest) if self.has_promising_sibling(id) => self.wait(id, words(end), at),
            Verdict::Abort(refusal) => {
                self.pile.make_due(id);
                let (code, says) = words(end);
                return Err(CallEffect::Halt { refusal: *refusal, code, says });
            }
        }
        Ok(())
    }

    /// A call for one account is refused; one for more is split.
    fn refused(&mut self, id: PartId, (code, info): (Option<i64>, String)) -> Result<(), CallEffect> {
        let Part { errand, .. } = &self.pile[id];
        let (command, is_single, code) = (errand.command, errand.accounts.len() == 1, code.unwrap_or_default());
        self.halve_or(id, |_| Fate::Refused { code, info: info.clone() });
        if !is_single || is_an_answer(command, code) {
            return Ok(());
        }
        self.halt_if_refused_everywhere(command, code, info)
    }

    /// A call for one account ends; a call for more is made again for each half, since the fault may be a single one's.
    pub(super) fn halve_or(&mut self, id: PartId, fate: impl FnOnce((Option<i64>, String)) -> Fate) {
        let Part { mut errand, batch_id, last, .. } = self.pile.remove(id);
        let count = errand.accounts.len();
        if count <= 1 {
            self.ended.push_back((errand, fate(last)));
            return;
        }
        let accounts = errand.accounts.split_off(count.div_ceil(2));
        let second = Errand { accounts, tag: errand.tag.clone(), ..errand };
        for half in [errand, second] {
            self.pile.insert_due(Part::new(half, batch_id, Size::Fraction));
        }
    }

    /// Whether another part of the same errand may yet go well: until then nobody knows whose fault a malformed request is. One that is out
    /// of attempts, or was called malformed itself, shows nothing.
    fn has_promising_sibling(&self, id: PartId) -> bool {
        let batch_id = self.pile[id].batch_id;
        let is_promising = |part: &Part<T>| match part.stage {
            Stage::Ready | Stage::InFlight | Stage::Waiting => part.last.0 != Some(INVALID_REQUEST),
            Stage::Exhausted => false,
        };
        self.pile.iter().any(|(other, part)| other != id && part.batch_id == batch_id && is_promising(part))
    }

    pub(super) fn wait(&mut self, id: PartId, last: (Option<i64>, String), at: At) {
        let part = &mut self.pile[id];
        part.last = last;
        let delay = back_off(part.tries, at.jitter);
        self.pile.make_wait(id, at.now + delay);
    }

    /// The next errand, or part of one, that has come to its end.
    pub(super) fn take_ended(&mut self) -> Option<(Errand<T>, Fate)> {
        self.ended.pop_front()
    }

    /// Whether every errand that came in has ended.
    pub(super) fn is_empty(&self) -> bool {
        self.pile.is_empty()
    }
}

impl<T: Clone> Scheduler for Docket<T> {
    fn breaker_of(command: Command) -> Command {
        command
    }

    fn has_call(&mut self, command: Command, now: Instant) -> bool {
        self.pile.take_due(now);
        self.choose(command, now).is_some()
    }

    fn next_call(&mut self, command: Command, now: Instant) -> Option<Call<'_>> {
        self.pile.take_due(now);
        match self.choose(command, now)? {
            Choice::Part(id) => {
                self.pile.unqueue(id);
                self.depart(id);
                Some(self.call_of(id))
            }
            Choice::Probe(tested, means) => self.send_probe(tested, means),
        }
    }

    fn same_call(&mut self, id: CallId) -> Call<'_> {
        match id {
            CallId::Job(id) => {
                self.pile[id].has_left = true;
                self.call_of(id)
            }
            CallId::Probe(tested) => self.probe_call(tested),
        }
    }

    fn ended(&mut self, id: CallId, end: CallOutcome, left: Instant, at: At) -> CallEffect {
        self.in_flight -= 1;
        let times = CallTimes { left, ended: at.now };
        match id {
            CallId::Job(id) => self.part_came_back(id, end, times, at),
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
        own.flatten().chain(self.pile.next_wake()).min()
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

/// Whether a refusal only says that there is no such account.
const fn is_an_answer(command: Command, code: i64) -> bool {
    /// Source: the documentation of `account_delete`.
    const NO_ACCOUNT: i64 = 70107;
    match command {
        Command::AccountDelete | Command::Kick | Command::QueryOnlineStatus => code == NO_ACCOUNT,
        Command::AccountImport | Command::MultiaccountImport | Command::PortraitGet | Command::AccountCheck => false,
    }
}
