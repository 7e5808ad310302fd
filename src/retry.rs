//! When to try again: back-off, the retries' share of the calls, and the breaker that tells a dead service from a bad record.
//!
//! Decisions only; nothing here sleeps, draws a random number or reads a clock.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// First back-off at most. Chosen: a passing fault of the service is over in less than its own time-out of 3 s.
const BACK_OFF_BASE: Duration = Duration::from_millis(200);
/// Longest back-off. Chosen: at most a third of a minute is lost after an outage that the breaker didn't see.
const BACK_OFF_CAP: Duration = Duration::from_secs(20);

/// Attempts that a record with an unknown code gets, if `--max-attempts` allows as many. Chosen.
pub const UNKNOWN_CODE_ATTEMPTS: u32 = 3;
/// Distinct records in a row that end with an unknown code, after which the run halts. Chosen: as many as the breaker needs to judge.
pub const UNKNOWN_RECORDS_IN_A_ROW: usize = 20;
/// How long calls in flight may take to settle once a run is stopping.
pub const DRAIN: Duration = Duration::from_secs(10);

/// The moment at which a call ended, as the clocks and the random source have it.
#[derive(Debug, Clone, Copy)]
pub struct At {
    pub now: Instant,
    pub wall: SystemTime,
    /// Uniform in `0.0..1.0`.
    pub jitter: f64,
}

/// Full jitter: a share of a bound that doubles with every attempt. `jitter` is uniform in `0.0..1.0`.
#[must_use]
pub fn back_off(attempts: u32, jitter: f64) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    (BACK_OFF_BASE * 2_u32.pow(doublings)).min(BACK_OFF_CAP).mul_f64(jitter.clamp(0.0, 1.0))
}

/// Fresh calls that pay for one retry while fresh records wait: retries take a tenth of the calls.
const FRESH_PER_RETRY: u32 = 9;
/// Retries that may be saved up. Chosen: a tenth of a second's calls at the default rate.
const SAVED_RETRIES: u32 = 20;

/// The share of the calls that retries may take while fresh records wait.
#[derive(Debug, Default)]
pub struct RetryBudget {
    fresh: u32,
}

impl RetryBudget {
    #[must_use]
    pub const fn allows_retry(&self) -> bool {
        self.fresh >= FRESH_PER_RETRY
    }

    pub fn spend_fresh(&mut self) {
        self.fresh = (self.fresh + 1).min(SAVED_RETRIES * FRESH_PER_RETRY);
    }

    pub fn spend_retry(&mut self) {
        self.fresh = self.fresh.saturating_sub(FRESH_PER_RETRY);
    }
}

/// Records that the breaker looks back on.
const WINDOW_RECORDS: usize = 100;
/// Records that must have been tried before it judges.
const WINDOW_LEAST: usize = 20;
/// Calls in a row that never reached the service, after which it opens.
const UNREACHED_IN_A_ROW: u32 = 20;
/// Interval of the first probe and of the last.
const PROBE_FIRST: Duration = Duration::from_secs(1);
const PROBE_LAST: Duration = Duration::from_secs(60);

/// What the breaker has to know of a call's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// The service worked: it took the record or refused it for its own fault.
    Healthy,
    /// The call was lost or answered with a passing fault, and charged to the record.
    Sick,
    /// The call never reached the service.
    Unreached,
    /// Neither: throttled, signature refused.
    Neutral,
}

/// Whether the service may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    /// The service is down: nothing but one probe at a time.
    Open {
        since: Instant,
        /// When the next probe is due; `None` while one is in flight.
        probe_at: Option<Instant>,
        interval: Duration,
    },
}

/// Judges distinct records, so that one poisoned record never looks like an outage and an outage fails nobody.
#[derive(Debug)]
pub struct Breaker {
    window: VecDeque<Tried>,
    unreached: u32,
    /// Records whose single call ended in a passing fault since the last call that showed the service well.
    alone: BTreeSet<u64>,
    state: BreakerState,
}

/// A record among the last that were tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tried {
    row: u64,
    sick: bool,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { window: VecDeque::with_capacity(WINDOW_RECORDS + 1), unreached: 0, alone: BTreeSet::new(), state: BreakerState::Closed }
    }
}

impl Breaker {
    #[must_use]
    pub const fn state(&self) -> BreakerState {
        self.state
    }

    /// Takes the end of a call of `row` while closed.
    pub fn note(&mut self, row: u64, sign: Sign) {
        match sign {
            Sign::Unreached => self.unreached += 1,
            Sign::Neutral => self.unreached = 0,
            Sign::Healthy | Sign::Sick => {
                self.unreached = 0;
                if sign == Sign::Healthy {
                    self.alone.clear();
                }
                self.enter(row, sign == Sign::Sick);
            }
        }
    }

    /// A record that was taken out of its batch met a passing fault. Batches may be too few to judge by; twenty such records, and nothing
    /// that was taken in between, are enough.
    pub fn note_alone(&mut self, row: u64) {
        self.alone.insert(row);
    }

    fn enter(&mut self, row: u64, sick: bool) {
        if let Some(before) = self.window.iter().position(|tried| tried.row == row) {
            self.window.remove(before);
        }
        self.window.push_back(Tried { row, sick });
        if self.window.len() > WINDOW_RECORDS {
            self.window.pop_front();
        }
    }

    /// Whether what was noted says that the service is down; `alone` when nothing else is in flight.
    #[must_use]
    pub fn trips(&self, alone: bool) -> bool {
        (self.window.len() >= WINDOW_LEAST && self.half_is_sick())
            || self.unreached >= UNREACHED_IN_A_ROW
            || self.alone.len() >= WINDOW_LEAST
            || (alone && self.unreached > 0)
    }

    /// Whether half of the records in the window had their latest call end in a passing fault, however few they are.
    #[must_use]
    pub fn half_is_sick(&self) -> bool {
        self.window.iter().filter(|tried| tried.sick).count() * 2 >= self.window.len()
    }

    /// Opens, and hands out the rows in the window: what passing faults were charged to them is to be given back.
    pub fn open(&mut self, now: Instant) -> BTreeSet<u64> {
        self.unreached = 0;
        self.alone.clear();
        self.state = BreakerState::Open { since: now, probe_at: Some(now + PROBE_FIRST), interval: PROBE_FIRST };
        self.window.drain(..).map(|tried| tried.row).collect()
    }

    /// Whether a probe is due.
    #[must_use]
    pub fn probe_due(&self, now: Instant) -> bool {
        matches!(self.state, BreakerState::Open { probe_at: Some(at), .. } if at <= now)
    }

    pub fn probe_left(&mut self) {
        if let BreakerState::Open { probe_at, .. } = &mut self.state {
            *probe_at = None;
        }
    }

    /// The probe failed: the next one comes after twice the time.
    pub fn probe_failed(&mut self, now: Instant) {
        if let BreakerState::Open { probe_at, interval, .. } = &mut self.state {
            *interval = (*interval * 2).min(PROBE_LAST);
            *probe_at = Some(now + *interval);
        }
    }

    pub fn close(&mut self) {
        self.state = BreakerState::Closed;
        self.window.clear();
        self.unreached = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_to_its_cap_and_spreads_over_the_whole_bound() {
        let check =
            |attempts, jitter, expected_ms| assert_eq!(back_off(attempts, jitter), Duration::from_millis(expected_ms), "{attempts}");
        check(1, 1.0, 200);
        check(1, 0.5, 100);
        check(2, 1.0, 400);
        check(5, 1.0, 3_200);
        check(8, 1.0, 20_000);
        check(u32::MAX, 1.0, 20_000);
        check(3, 0.0, 0);
    }

    #[test]
    fn retries_take_a_tenth_of_the_calls() {
        let mut budget = RetryBudget::default();
        let mut retries = 0;
        for _ in 0..1_000 {
            if budget.allows_retry() {
                budget.spend_retry();
                retries += 1;
            } else {
                budget.spend_fresh();
            }
        }
        assert_eq!(retries, 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_poisoned_record_among_healthy_ones_never_opens_it() {
        let mut breaker = Breaker::default();
        for row in 1..500 {
            breaker.note(row * 2, Sign::Healthy);
            breaker.note(1, Sign::Sick);
            assert!(!breaker.trips(false));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn half_of_the_records_sick_opens_it_and_names_them() {
        let mut breaker = Breaker::default();
        for row in 0..10 {
            breaker.note(row, Sign::Healthy);
        }
        for row in 10..19 {
            breaker.note(row, Sign::Sick);
            breaker.note(row, Sign::Sick);
            assert!(!breaker.trips(false), "{row}");
        }
        breaker.note(19, Sign::Sick);
        assert!(breaker.trips(false));
        assert!(breaker.open(Instant::now()).into_iter().eq(0..20));
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_never_arrive_open_it_after_twenty_or_when_alone() {
        let mut breaker = Breaker::default();
        for row in 0..19 {
            breaker.note(row, Sign::Unreached);
        }
        assert!(!breaker.trips(false));
        assert!(breaker.trips(true));
        breaker.note(19, Sign::Unreached);
        assert!(breaker.trips(false));
    }

    #[tokio::test(start_paused = true)]
    async fn probes_come_at_growing_intervals_up_to_a_minute() {
        let start = Instant::now();
        let mut breaker = Breaker::default();
        breaker.open(start);
        let mut now = start;
        let mut gaps = Vec::new();
        for _ in 0..8 {
            let BreakerState::Open { probe_at: Some(at), .. } = breaker.state() else { panic!("open") };
            gaps.push((at - now).as_secs());
            now = at;
            assert!(breaker.probe_due(now));
            breaker.probe_left();
            assert!(!breaker.probe_due(now));
            breaker.probe_failed(now);
        }
        assert_eq!(gaps, [1, 2, 4, 8, 16, 32, 60, 60]);
    }
}
