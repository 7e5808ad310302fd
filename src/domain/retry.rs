//! When to try again: the back-off, and the share of requests that may be retries.
//!
//! This module only decides: it does not sleep, draw random numbers or read a clock.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Upper bound of the first back-off. Chosen: temporary errors of the service are over in less than its own timeout of 3 s.
const BACK_OFF_BASE: Duration = Duration::from_millis(200);
/// Upper bound of every back-off. Chosen: after an outage that the breaker did not notice, at most a third of a minute is lost.
const BACK_OFF_CAP: Duration = Duration::from_secs(20);

/// Attempts of a record with an unknown code, if `--max-attempts` allows as many. Chosen.
pub const UNKNOWN_CODE_ATTEMPTS: u32 = 3;
/// Unknown codes in a row, after which the run halts. Source: the contract.
pub const UNKNOWN_CODES_IN_A_ROW: usize = 20;
/// How long calls in flight may take to settle once a run is stopping.
pub const DRAIN: Duration = Duration::from_secs(10);

/// The time at which a request ended, by two clocks, with a random number.
#[derive(Debug, Clone, Copy)]
pub struct ClockReading {
    pub now: Instant,
    pub wall: SystemTime,
    /// Uniform in `0.0..1.0`.
    pub jitter: f64,
}

/// Full jitter: a random share of a bound that doubles with every try. `jitter` is uniform in `0.0..1.0`.
#[must_use]
pub fn back_off(tries: u32, jitter: f64) -> Duration {
    let doublings = tries.saturating_sub(1).min(16);
    (BACK_OFF_BASE * 2_u32.pow(doublings)).min(BACK_OFF_CAP).mul_f64(jitter.clamp(0.0, 1.0))
}

/// While new records wait, one retry is allowed per this many requests for new records: a tenth of all requests.
const FRESH_PER_RETRY: u32 = 9;
/// Retries that may be saved up. Chosen: a tenth of the requests of a second at the default rate.
const SAVED_RETRIES: u32 = 20;

/// The share of the requests that may be retries while new records wait.
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
    fn retries_take_a_tenth_of_the_requests() {
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
}
