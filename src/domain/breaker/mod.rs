//! The health of an API: whether its errors are the service's fault or the records', and what happens to jobs that are out of attempts.
//!
//! A suspected outage is tested with requests that should succeed before any attempt is given back; the same requests are the probes of an
//! open breaker. This module only decides: it does not send, sleep, draw random numbers or read a clock. Commands that share a breaker
//! share one `Health`.

mod exhausted;
mod samples;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use exhausted::{Exhausted, Patience};
pub use exhausted::{ExhaustedBy, Overtime, SettledExhausted, Tried};
use samples::{Latest, SAMPLES_LEAST, Samples};

/// Calls in a row that never reached the service, after which it opens. Source: the contract.
const UNREACHED_IN_A_ROW: u32 = 20;
/// Calls of a test at most. Source: the contract.
const TEST_CALLS: u32 = 3;
/// Time between a suspicion that a test has refuted and the next one by samples. Chosen: tests then take a call a second at most, and an
/// outage is noticed a second later.
const SUSPECT_AGAIN: Duration = Duration::from_secs(1);
/// Interval of the first probe of an open breaker and of the last. Source: the contract.
const PROBE_FIRST: Duration = Duration::from_secs(1);
const PROBE_LAST: Duration = Duration::from_secs(60);
/// How long an accepted account may be repeated as a test. Source: the contract.
pub const REPEAT_WITHIN: Duration = Duration::from_secs(600);
/// How far ahead the first test looks for fresh records, and the last. Chosen: bad records come bunched, and reading so many costs no
/// time; the last is as many as an import holds.
const FRESH_RANGE_FIRST: usize = 256;
const FRESH_RANGE_LAST: usize = 65_536;

/// What the end of a call says about the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthSample {
    /// It worked: it accepted the record or refused it for its own fault.
    Good,
    /// The call was lost or answered with a temporary error, and charged to the record.
    Faulty,
    /// The call never reached the service.
    Unreached,
    /// It asked for a slower pace.
    Throttled,
    /// None of these: the signature was refused, the code is unknown.
    Neutral,
}

/// When a call left and ended.
#[derive(Debug, Clone, Copy)]
pub struct CallTimes {
    pub left: Instant,
    pub ended: Instant,
}

/// Whether other calls of the API are in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherCalls {
    Alone,
    Others,
}

impl OtherCalls {
    #[must_use]
    pub const fn of(in_flight: usize) -> Self {
        if in_flight == 0 { OtherCalls::Alone } else { OtherCalls::Others }
    }
}

/// How an API is tested; the first of these that can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TestMeans {
    /// What it accepted last, again.
    Repeat,
    /// Something that has not been sent yet.
    Fresh,
    /// Something that met temporary errors itself, where no other call can show whether this API is well.
    Again,
    /// `account_check` of the identifier.
    Check,
}

/// What a call of a test has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TestResult {
    /// An answer that is neither a temporary error nor an unknown code.
    Well,
    Faulty,
    /// It never reached the service.
    Unreached(OtherCalls),
}

/// What a call's end has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthChange {
    Nothing,
    /// The breaker has opened: charges are to be given back.
    Down,
    /// It has closed.
    Back,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BreakerState {
    Closed,
    /// A test is to decide; calls go on meanwhile.
    Suspected {
        since: Instant,
    },
    /// The service is down: nothing but probes.
    Open {
        since: Instant,
        interval: Duration,
        probe_at: Instant,
    },
}

/// A test, or a probe of an open breaker, that has begun.
#[derive(Debug, Clone, Copy, Default)]
struct HealthTest {
    failed: u32,
    in_flight: Option<TestMeans>,
}

/// What is known of an API; `J` is what its jobs are known by.
#[derive(Debug)]
pub struct Health<J> {
    samples: Samples,
    unreached: u32,
    /// Records split out of batches whose latest call failed since the last good one.
    split_out: BTreeSet<u64>,
    state: BreakerState,
    test: Option<HealthTest>,
    suspect_from: Option<Instant>,
    /// When the last call ended that went well.
    good_at: Option<Instant>,
    fresh_range: usize,
    throttled_since: Option<Instant>,
    exhausted: BTreeMap<J, Exhausted>,
    /// When exhausted jobs that nothing can judge are tried again.
    round_at: Option<Instant>,
    /// When the first of them is looked at again: it may fail before the others are tried again.
    retry_at: Option<Instant>,
    patience: Patience,
}

impl<J: Copy + Ord> Default for Health<J> {
    fn default() -> Self {
        Self {
            samples: Samples::default(),
            unreached: 0,
            split_out: BTreeSet::new(),
            state: BreakerState::Closed,
            test: None,
            suspect_from: None,
            good_at: None,
            fresh_range: FRESH_RANGE_FIRST,
            throttled_since: None,
            exhausted: BTreeMap::new(),
            round_at: None,
            retry_at: None,
            patience: Patience::default(),
        }
    }
}

impl<J: Copy + Ord> Health<J> {
    /// Takes the end of a call of the record `who` that was no test; calls that end while the breaker is open say nothing.
    pub fn note(&mut self, who: u64, sample: HealthSample, times: CallTimes, others: OtherCalls) -> HealthChange {
        if self.is_down() {
            return HealthChange::Nothing;
        }
        self.note_throttling(sample, times.ended);
        match sample {
            HealthSample::Unreached => self.unreached += 1,
            HealthSample::Good | HealthSample::Faulty | HealthSample::Throttled | HealthSample::Neutral => self.unreached = 0,
        }
        match sample {
            HealthSample::Good => {
                self.split_out.clear();
                self.good_at = Some(times.ended);
                self.samples.enter(who, Latest::Good);
                self.doubt_suspicion(times);
            }
            HealthSample::Faulty => self.samples.enter(who, Latest::Faulty),
            HealthSample::Unreached | HealthSample::Throttled | HealthSample::Neutral => {}
        }
        if self.unreached >= UNREACHED_IN_A_ROW || (self.unreached > 0 && others == OtherCalls::Alone) {
            self.open(times.ended);
            return HealthChange::Down;
        }
        self.suspect_by_samples(times.ended);
        HealthChange::Nothing
    }

    /// A record that was split out of its batch met a temporary error. Batches may be too few to judge by; twenty such records, and
    /// nothing that was accepted in between, are enough for a suspicion. To be told before [`Health::note`].
    pub fn note_split_out(&mut self, who: u64) {
        self.split_out.insert(who);
    }

    /// Another call that left after the suspicion arose went well: that is all that a test could show. One that left before shows that the
    /// service still answers some, so the test begins anew.
    fn doubt_suspicion(&mut self, times: CallTimes) {
        match self.state {
            BreakerState::Suspected { since } if since <= times.left => self.close(times.ended),
            BreakerState::Suspected { .. } => self.test.iter_mut().for_each(|test| test.failed = 0),
            BreakerState::Closed | BreakerState::Open { .. } => {}
        }
    }

    fn suspect_by_samples(&mut self, now: Instant) {
        let is_due = self.state == BreakerState::Closed && self.suspect_from.is_none_or(|from| from <= now);
        if is_due && (self.samples.half_are_faulty() || self.split_out.len() >= SAMPLES_LEAST) {
            self.suspect(now);
        }
    }

    /// Nothing else can show that the service is well: a test must.
    pub fn suspect(&mut self, now: Instant) {
        if self.state == BreakerState::Closed {
            self.state = BreakerState::Suspected { since: now };
        }
    }

    /// Whether the breaker is closed and nothing is suspected.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        self.state == BreakerState::Closed
    }

    /// Whether a call of a test, or of a probe, is to leave now.
    #[must_use]
    pub fn wants_test(&self, now: Instant) -> bool {
        match (self.state, self.test) {
            (BreakerState::Closed, _) => false,
            (BreakerState::Suspected { .. } | BreakerState::Open { .. }, Some(test)) => test.in_flight.is_none(),
            (BreakerState::Suspected { .. }, None) => true,
            (BreakerState::Open { probe_at, .. }, None) => probe_at <= now,
        }
    }

    /// Which of the fresh records the next call of a test takes, counted from the next: near, further, far, and further still each time.
    #[must_use]
    pub fn fresh_position(&self) -> usize {
        match self.test.map_or(0, |test| test.failed) {
            0 => 0,
            1 => self.fresh_range / 16,
            _ => self.fresh_range - 1,
        }
    }

    /// A call of the test has left.
    pub fn test_left(&mut self, means: TestMeans) {
        self.test.get_or_insert_default().in_flight = Some(means);
    }

    /// Takes the end of a test's call.
    pub fn test_ended(&mut self, result: TestResult, now: Instant) -> HealthChange {
        let Some(mut test) = self.test.take() else { return HealthChange::Nothing };
        let Some(means) = test.in_flight.take() else { return HealthChange::Nothing };
        if self.state == BreakerState::Closed {
            return HealthChange::Nothing;
        }
        if result == TestResult::Well {
            let was_down = self.is_down();
            self.close(now);
            return if was_down { HealthChange::Back } else { HealthChange::Nothing };
        }
        test.failed += 1;
        let is_over = test.failed >= self.calls_allowed(means) || result == TestResult::Unreached(OtherCalls::Alone);
        if is_over {
            return self.test_failed(means, now);
        }
        self.test = Some(test);
        HealthChange::Nothing
    }

    /// A probe that repeats the same call says no more the second time; fresh records may each be bad.
    const fn calls_allowed(&self, means: TestMeans) -> u32 {
        match (self.state, means) {
            (BreakerState::Open { .. }, TestMeans::Repeat | TestMeans::Again | TestMeans::Check) => 1,
            (BreakerState::Open { .. }, TestMeans::Fresh) | (BreakerState::Closed | BreakerState::Suspected { .. }, _) => TEST_CALLS,
        }
    }

    fn test_failed(&mut self, means: TestMeans, now: Instant) -> HealthChange {
        if means == TestMeans::Fresh {
            self.fresh_range = (self.fresh_range * 4).min(FRESH_RANGE_LAST);
        }
        match &mut self.state {
            BreakerState::Open { interval, probe_at, .. } => {
                *interval = (*interval * 2).min(PROBE_LAST);
                *probe_at = now + *interval;
                HealthChange::Nothing
            }
            BreakerState::Closed | BreakerState::Suspected { .. } => {
                self.open(now);
                HealthChange::Down
            }
        }
    }

    /// Opens the breaker: all that was noted is past.
    pub fn open(&mut self, now: Instant) {
        self.samples.clear();
        self.unreached = 0;
        self.split_out.clear();
        self.retry_at = None;
        self.test.take_if(|test| test.in_flight.is_none());
        self.state = BreakerState::Open { since: now, interval: PROBE_FIRST, probe_at: now + PROBE_FIRST };
        self.pause_or_go_on(now);
    }

    fn close(&mut self, now: Instant) {
        self.samples.clear();
        self.unreached = 0;
        self.split_out.clear();
        self.fresh_range = FRESH_RANGE_FIRST;
        self.suspect_from = Some(now + SUSPECT_AGAIN);
        self.test.take_if(|test| test.in_flight.is_none());
        self.state = BreakerState::Closed;
        self.pause_or_go_on(now);
    }

    /// Takes note of whether the service asks for a slower pace, and nothing else.
    pub fn note_throttling(&mut self, sample: HealthSample, now: Instant) {
        match sample {
            HealthSample::Throttled if self.throttled_since.is_none() => self.throttled_since = Some(now),
            HealthSample::Good | HealthSample::Faulty if self.throttled_since.is_some() => self.throttled_since = None,
            HealthSample::Throttled | HealthSample::Good | HealthSample::Faulty | HealthSample::Unreached | HealthSample::Neutral => return,
        }
        self.pause_or_go_on(now);
    }

    fn pause_or_go_on(&mut self, now: Instant) {
        if self.is_down() || self.throttled_since.is_some() {
            self.patience.pause(now);
        } else {
            self.patience.go_on(now);
        }
    }

    /// Since when the breaker is open.
    #[must_use]
    pub const fn down_since(&self) -> Option<Instant> {
        match self.state {
            BreakerState::Open { since, .. } => Some(since),
            BreakerState::Closed | BreakerState::Suspected { .. } => None,
        }
    }

    #[must_use]
    pub const fn is_down(&self) -> bool {
        self.down_since().is_some()
    }

    /// Since when the API has been down, or has said nothing but "too fast".
    #[must_use]
    pub fn useless_since(&self) -> Option<Instant> {
        self.down_since().or(self.throttled_since)
    }

    /// When the next probe is due, if none is under way.
    #[must_use]
    pub const fn probe_at(&self) -> Option<Instant> {
        match (self.state, self.test) {
            (BreakerState::Open { probe_at, .. }, None) => Some(probe_at),
            (BreakerState::Closed | BreakerState::Suspected { .. } | BreakerState::Open { .. }, _) => None,
        }
    }
}

#[cfg(test)]
mod tests;
