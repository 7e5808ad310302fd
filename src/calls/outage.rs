//! Whose fault it is: that of what a call carries, or the service's.
//!
//! Feeds the breaker of each API, opens and closes it, and ends what is out of attempts once it is shown that the API is well.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::Fate;
use super::docket::Docket;
use super::part::{PartId, Stage};
use crate::command::Command;
use crate::retry::{At, Breaker, BreakerState, Sign};
use crate::verdict::{Aftermath, CallEnd, Scope, Verdict};

/// Whether the service said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    Answer,
    Nothing,
}

impl Heard {
    pub(super) const fn of(end: &CallEnd) -> Self {
        match end {
            CallEnd::Done(_) | CallEnd::Refused { .. } => Heard::Answer,
            CallEnd::Unreached { .. }
            | CallEnd::Lost { .. }
            | CallEnd::TooMany
            | CallEnd::Untrusted { .. }
            | CallEnd::Redirected { .. } => Heard::Nothing,
        }
    }
}

/// What tells that an API is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Evidence {
    /// Half of the latest calls ended in passing faults.
    Faults,
    /// Nothing was heard of it.
    Silence,
}

/// What is known of an API.
#[derive(Debug)]
pub(super) struct Health {
    pub(super) breaker: Breaker,
    probe: Option<PartId>,
    /// What opened the breaker.
    opened_by: Evidence,
    /// Errand and part of the last probe.
    pub(super) last_probe: (u64, PartId),
    /// When the last call left that was answered as it should be.
    alive_at: Option<Instant>,
    /// Since when nothing but "too fast" was said.
    pub(super) throttled_since: Option<Instant>,
    pub(super) in_flight: usize,
    pub(super) condemned: BTreeSet<PartId>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            breaker: Breaker::default(),
            probe: None,
            opened_by: Evidence::Faults,
            last_probe: (0, 0),
            alive_at: None,
            throttled_since: None,
            in_flight: 0,
            condemned: BTreeSet::new(),
        }
    }
}

impl Health {
    pub(super) fn departed(&mut self, id: PartId, origin: u64) {
        self.in_flight += 1;
        if self.is_down() {
            self.last_probe = (origin, id);
            self.probe = Some(id);
            self.breaker.probe_left();
        }
    }

    /// A call has come back: whether it was the probe.
    pub(super) fn returned(&mut self, id: PartId) -> bool {
        self.in_flight -= 1;
        self.is_down() && self.probe.take_if(|probe| *probe == id).is_some()
    }

    /// Closes the breaker, or sets the time of the next probe. A service that was silent is back with whatever it says: what is left may
    /// be nothing but calls that never get through.
    pub(super) fn probed(&mut self, verdict: &Verdict, heard: Heard, now: Instant) -> Aftermath {
        match verdict {
            Verdict::Retry | Verdict::Unknown if self.opened_by == Evidence::Silence && heard == Heard::Answer => self.breaker.close(),
            Verdict::Retry | Verdict::Unreached | Verdict::Unknown => {
                self.breaker.probe_failed(now);
                return Aftermath::Nothing;
            }
            Verdict::Taken | Verdict::Row | Verdict::Throttle(_) | Verdict::Sign | Verdict::Halt(_) => self.breaker.close(),
        }
        match verdict {
            Verdict::Throttle(scope) => self.throttled(*scope, now),
            Verdict::Sign => Aftermath::SignatureRefused,
            _ => {
                self.throttled_since = None;
                Aftermath::Back
            }
        }
    }

    fn throttled(&mut self, scope: Scope, now: Instant) -> Aftermath {
        self.throttled_since.get_or_insert(now);
        Aftermath::Throttled(scope)
    }

    pub(super) fn down_since(&self) -> Option<Instant> {
        match self.breaker.state() {
            BreakerState::Open { since, .. } => Some(since),
            BreakerState::Closed => None,
        }
    }

    pub(super) fn is_down(&self) -> bool {
        self.down_since().is_some()
    }

    pub(super) fn probe_at(&self) -> Option<Instant> {
        match self.breaker.state() {
            BreakerState::Open { probe_at, .. } => probe_at,
            BreakerState::Closed => None,
        }
    }
}

impl<T: Clone> Docket<T> {
    /// Feeds the breaker, and ends what is condemned if the API is well.
    pub(super) fn judged(&mut self, (command, origin): (Command, u64), verdict: &Verdict, left: Instant, at: At) -> Aftermath {
        let health = &mut self.health[command];
        let (sign, aftermath) = match verdict {
            Verdict::Taken | Verdict::Row => (Sign::Healthy, Aftermath::Accepted),
            Verdict::Retry => (Sign::Sick, Aftermath::Nothing),
            Verdict::Unreached => (Sign::Unreached, Aftermath::Nothing),
            Verdict::Throttle(scope) => (Sign::Neutral, health.throttled(*scope, at.now)),
            Verdict::Sign => (Sign::Neutral, Aftermath::SignatureRefused),
            Verdict::Unknown | Verdict::Halt(_) => (Sign::Neutral, Aftermath::Nothing),
        };
        health.breaker.note(origin, sign);
        if health.breaker.trips(health.in_flight == 0) {
            let evidence = if sign == Sign::Unreached { Evidence::Silence } else { Evidence::Faults };
            self.go_down(command, evidence, at.now);
            return Aftermath::Down;
        }
        if sign == Sign::Healthy {
            health.throttled_since = None;
            health.alive_at = health.alive_at.max(Some(left));
            self.end_condemned(command, Some(left));
        }
        aftermath
    }

    /// Opens the breaker: what passing faults were charged in its window is given back, the condemned live again.
    fn go_down(&mut self, command: Command, opened_by: Evidence, now: Instant) {
        let health = &mut self.health[command];
        let tried = health.breaker.open(now);
        health.probe = None;
        health.opened_by = opened_by;
        for id in std::mem::take(&mut health.condemned) {
            self.pile.make_due(id);
        }
        let is_excused = |origin: u64| tried.contains(&origin);
        for (_, part) in self.pile.iter_mut().filter(|(_, part)| part.errand.command == command && is_excused(part.origin)) {
            part.attempts = 0;
            part.ailing_since = None;
        }
    }

    /// Ends the condemned that a call which left after their last one exonerates the API from; all of them when `left` is `None`.
    fn end_condemned(&mut self, command: Command, left: Option<Instant>) {
        let is_due = |id: &PartId| match (self.pile[*id].stage, left) {
            (Stage::Condemned { since }, Some(left)) => since < left,
            (Stage::Condemned { .. } | Stage::Ready | Stage::InFlight | Stage::Waiting, _) => true,
        };
        let due: Vec<PartId> = self.health[command].condemned.iter().copied().filter(is_due).collect();
        for id in due {
            self.health[command].condemned.remove(&id);
            self.end_or_halve(id, |(code, why)| Fate::OutOfAttempts { code, why });
        }
    }

    /// When nothing is left that could bear witness, the condemned end without one; but for those that met nothing but silence while
    /// nobody heard the API: then it is down, however few they are. Whether there were any.
    pub(super) fn end_without_witness(&mut self, now: Instant) -> bool {
        let commands: Vec<Command> =
            self.health.iter().filter(|(_, health)| !health.condemned.is_empty()).map(|(command, _)| command).collect();
        if !self.is_idle() || self.down_since().is_some() {
            return false;
        }
        for command in &commands {
            let condemned = &self.health[*command].condemned;
            let silent: BTreeSet<PartId> = condemned.iter().copied().filter(|id| self.pile[*id].last.0.is_none()).collect();
            let is_outage = self.silence_is_an_outage(*command, &silent);
            if is_outage {
                self.health[*command].condemned.retain(|id| !silent.contains(id));
            }
            self.end_condemned(*command, None);
            if is_outage {
                self.health[*command].condemned = silent;
                self.go_down(*command, Evidence::Silence, now);
            }
        }
        !commands.is_empty()
    }

    /// Whether calls that met nothing but silence tell of a dead API: two of them with no sign of life since, or most of all.
    fn silence_is_an_outage(&self, command: Command, silent: &BTreeSet<PartId>) -> bool {
        let Health { alive_at, breaker, .. } = &self.health[command];
        let is_unexplained = |id: &&PartId| match (self.pile[**id].ailing_since, alive_at) {
            (Some(since), Some(alive_at)) => *alive_at <= since,
            (Some(_), None) => true,
            (None, _) => false,
        };
        silent.iter().filter(is_unexplained).count() >= 2 || (!silent.is_empty() && breaker.half_is_sick())
    }
}
