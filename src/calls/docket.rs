//! The docket: every errand that is under way, and what becomes of it.
//!
//! A state machine without I/O, clock or randomness: it is told how calls ended, and says what is called next. Who asks the gate and sends
//! is the pump's business.

use std::collections::{BTreeSet, VecDeque};

use tokio::time::Instant;

use super::outage::{Health, Heard};
use super::part::{Part, PartId, Pile, Size, Stage};
use super::{Errand, Fate, Settings};
use crate::account::Account;
use crate::command::{Command, PerCommand};
use crate::retry::{At, UNKNOWN_CODE_ATTEMPTS, UNKNOWN_RECORDS_IN_A_ROW, back_off};
use crate::verdict::{Aftermath, CallEnd, Carried, Refusal, SuccessSeen, Verdict, judge, words};

/// A call that is to leave now.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) part: PartId,
    pub(super) accounts: Vec<&'a Account>,
    pub(super) is_retry: bool,
}

/// Whether calls still go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Feed {
    Open,
    /// What is in flight may end, nothing else leaves.
    Stopped,
}

/// Every errand that is under way.
#[derive(Debug)]
pub(super) struct Docket<T> {
    max_attempts: u32,
    most_in_flight: usize,
    pub(super) pile: Pile<T>,
    /// Of each API: one may be down while the others are well.
    pub(super) health: PerCommand<Health>,
    ended: VecDeque<(Errand<T>, Fate)>,
    /// Errands that were taken on.
    taken_on: u64,
    in_flight: usize,
    /// Errands in a row that met a code that isn't in the table.
    unknown: BTreeSet<u64>,
    seen: SuccessSeen,
    feed: Feed,
}

impl<T: Clone> Docket<T> {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            max_attempts: settings.max_attempts,
            most_in_flight: settings.in_flight,
            pile: Pile::default(),
            health: PerCommand::default(),
            ended: VecDeque::new(),
            taken_on: 0,
            in_flight: 0,
            unknown: BTreeSet::new(),
            seen: SuccessSeen::NotYet,
            feed: Feed::Open,
        }
    }

    /// Whether another errand with this command is wanted.
    pub(super) fn wants(&self, command: Command) -> bool {
        let health = &self.health[command];
        // While the API is down, an errand is wanted only if nothing else could be the probe.
        let is_lacking = match health.down_since() {
            Some(_) => health.in_flight == 0 && self.probe_candidate(command).is_none(),
            None => self.pile.first_due(command).is_none(),
        };
        self.feed == Feed::Open && is_lacking
    }

    pub(super) fn take_on(&mut self, errand: Errand<T>) {
        self.taken_on += 1;
        self.pile.insert_due(Part::new(errand, self.taken_on, Size::Whole));
    }

    /// Nothing leaves any more; what is in flight may end.
    pub(super) fn stop(&mut self) {
        self.feed = Feed::Stopped;
    }

    /// Whether a call of `command` could leave now, if the gate allows.
    pub(super) fn has_call(&mut self, command: Command, now: Instant) -> bool {
        self.pile.take_due(now);
        self.choose(command, now).is_some()
    }

    /// The call of `command` that is to leave now; from here on it counts as in flight.
    pub(super) fn next_call(&mut self, command: Command, now: Instant) -> Option<Call<'_>> {
        self.pile.take_due(now);
        let id = self.choose(command, now)?;
        self.pile.unqueue(id);
        let part = &mut self.pile[id];
        part.stage = Stage::InFlight;
        part.tries += 1;
        self.in_flight += 1;
        self.health[command].departed(id, part.origin);
        Some(self.call_of(id))
    }

    /// A call in flight leaves once more, since it met a connection that had been given up: it is the same attempt, and still in flight.
    pub(super) fn same_call(&mut self, id: PartId) -> Call<'_> {
        self.pile[id].has_left = true;
        self.call_of(id)
    }

    fn call_of(&self, id: PartId) -> Call<'_> {
        let Part { errand, has_left, .. } = &self.pile[id];
        Call { part: id, accounts: errand.accounts.iter().collect(), is_retry: *has_left }
    }

    fn choose(&self, command: Command, now: Instant) -> Option<PartId> {
        if self.feed == Feed::Stopped || self.in_flight >= self.most_in_flight {
            return None;
        }
        let health = &self.health[command];
        match health.down_since() {
            Some(_) if health.breaker.probe_due(now) => self.probe_candidate(command),
            Some(_) => None,
            // Earlier errands first: they hold up whoever waits for them.
            None => self.pile.first_due(command),
        }
    }

    /// The next candidate after the last probe's, round and round: a poisoned errand must not keep the breaker open for ever.
    fn probe_candidate(&self, command: Command) -> Option<PartId> {
        let last = self.health[command].last_probe;
        let is_idle = |part: &Part<T>| part.errand.command == command && matches!(part.stage, Stage::Ready | Stage::Waiting);
        let candidates = self.pile.iter().filter(|(_, part)| is_idle(part)).map(|(id, part)| (part.origin, id));
        candidates.min_by_key(|key| (*key <= last, *key)).map(|(_, id)| id)
    }

    /// Takes the end of a call that left at `left`.
    pub(super) fn ended(&mut self, id: PartId, end: CallEnd, left: Instant, at: At) -> Aftermath {
        self.pile[id].has_left |= end.has_left();
        let Part { ref errand, origin, .. } = self.pile[id];
        let command = errand.command;
        self.in_flight -= 1;
        let verdict = judge(&end, self.seen, self.carried(id));
        let was_probe = self.health[command].returned(id);
        let heard = Heard::of(&end);
        self.note_unknown(origin, &verdict);
        if let Err(halt) = self.part_ended(id, &verdict, end, at) {
            return halt;
        }
        if self.health[command].is_down() {
            return if was_probe { self.health[command].probed(&verdict, heard, at.now) } else { Aftermath::Nothing };
        }
        self.judged((command, origin), &verdict, left, at)
    }

    /// A call that is left of a refused one is judged as that: once another got through, the fault is its own.
    fn carried(&self, id: PartId) -> Carried {
        let part = &self.pile[id];
        let is_blamed = part.size == Size::Fraction && self.seen == SuccessSeen::Yes;
        if part.errand.accounts.len() > 1 || is_blamed { Carried::Batch } else { Carried::One }
    }

    fn part_ended(&mut self, id: PartId, verdict: &Verdict, end: CallEnd, at: At) -> Result<(), Aftermath> {
        match verdict {
            Verdict::Taken => {
                self.seen = SuccessSeen::Yes;
                let CallEnd::Done(found) = end else { unreachable!("nothing else is taken") };
                let part = self.pile.remove(id);
                self.ended.push_back((part.errand, Fate::Done(found)));
            }
            Verdict::Row => {
                let (code, info) = words(end);
                self.end_or_halve(id, |_| Fate::Refused { code: code.unwrap_or_default(), info });
            }
            Verdict::Retry => self.charge(id, words(end), self.max_attempts, at),
            Verdict::Unknown => {
                self.charge(id, words(end), UNKNOWN_CODE_ATTEMPTS.min(self.max_attempts), at);
                self.halt_if_unknown_everywhere(id)?;
            }
            Verdict::Unreached | Verdict::Throttle(_) => self.wait(id, words(end), at),
            Verdict::Sign => self.pile.make_due(id),
            Verdict::Halt(Refusal::InvalidRequest) if self.has_untried_sibling(id) => self.wait(id, words(end), at),
            Verdict::Halt(refusal) => {
                self.pile.make_due(id);
                let (code, says) = words(end);
                return Err(Aftermath::Halt { refusal: *refusal, code, says });
            }
        }
        Ok(())
    }

    /// A call for one account ends; a call for more is made again for each half, since the fault may be a single one's.
    pub(super) fn end_or_halve(&mut self, id: PartId, fate: impl FnOnce((Option<i64>, String)) -> Fate) {
        let Part { mut errand, origin, last, .. } = self.pile.remove(id);
        let count = errand.accounts.len();
        if count <= 1 {
            self.ended.push_back((errand, fate(last)));
            return;
        }
        let accounts = errand.accounts.split_off(count.div_ceil(2));
        let second = Errand { accounts, tag: errand.tag.clone(), ..errand };
        for half in [errand, second] {
            self.pile.insert_due(Part::new(half, origin, Size::Fraction));
        }
    }

    /// Whether another part of the same errand has not been tried yet: until then nobody knows whose fault a malformed request is.
    fn has_untried_sibling(&self, id: PartId) -> bool {
        let origin = self.pile[id].origin;
        let is_condemned = |part: &Part<T>| matches!(part.stage, Stage::Condemned { .. });
        let is_untried = |part: &Part<T>| part.tries == 0 || (part.errand.accounts.len() > 1 && !is_condemned(part));
        self.pile.iter().any(|(other, part)| other != id && part.origin == origin && is_untried(part))
    }

    fn wait(&mut self, id: PartId, last: (Option<i64>, String), at: At) {
        let part = &mut self.pile[id];
        part.last = last;
        let delay = back_off(part.tries, at.jitter);
        self.pile.make_wait(id, at.now + delay);
    }

    /// Charges a passing fault, unless the API is down.
    fn charge(&mut self, id: PartId, last: (Option<i64>, String), allowed: u32, at: At) {
        let part = &mut self.pile[id];
        let health = &mut self.health[part.errand.command];
        if health.is_down() {
            return self.wait(id, last, at);
        }
        part.attempts += 1;
        part.ailing_since.get_or_insert(at.now);
        if part.attempts < allowed {
            return self.wait(id, last, at);
        }
        part.last = last;
        part.stage = Stage::Condemned { since: at.now };
        health.condemned.insert(id);
    }

    fn note_unknown(&mut self, origin: u64, verdict: &Verdict) {
        match verdict {
            Verdict::Unknown => {
                self.unknown.insert(origin);
            }
            Verdict::Taken | Verdict::Row | Verdict::Retry => self.unknown.clear(),
            Verdict::Unreached | Verdict::Throttle(_) | Verdict::Sign | Verdict::Halt(_) => {}
        }
    }

    fn halt_if_unknown_everywhere(&mut self, id: PartId) -> Result<(), Aftermath> {
        if self.unknown.len() < UNKNOWN_RECORDS_IN_A_ROW {
            return Ok(());
        }
        let (code, says) = self.pile[id].last.clone();
        Err(Aftermath::Halt { refusal: Refusal::UnknownCodes, code, says })
    }

    /// The next errand, or part of one, that has come to its end.
    pub(super) fn take_ended(&mut self) -> Option<(Errand<T>, Fate)> {
        self.ended.pop_front()
    }

    /// When something is due of itself: a retry or a probe.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        let probes = self.health.iter().filter_map(|(_, health)| health.probe_at());
        probes.chain(self.pile.next_wake()).min()
    }

    /// Since when an API is down.
    pub(super) fn down_since(&self) -> Option<Instant> {
        self.health.iter().filter_map(|(_, health)| health.down_since()).min()
    }

    /// Since when an API has been down, or has said nothing but "too fast".
    pub(super) fn useless_since(&self) -> Option<Instant> {
        self.health.iter().filter_map(|(_, health)| health.down_since().or(health.throttled_since)).min()
    }

    /// Calls in flight.
    pub(super) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether nothing is in flight, due or waiting, so that only condemned parts can be left.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.pile.is_idle() && self.feed == Feed::Open
    }

    /// Whether every errand that came in has ended.
    pub(super) fn is_empty(&self) -> bool {
        self.pile.is_empty()
    }
}
