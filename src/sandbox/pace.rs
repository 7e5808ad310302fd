//! Counts requests in a sliding second, exactly, by the time at which they arrived.

use std::collections::VecDeque;
use std::time::Duration;

/// The window. Two calls exactly this far apart are not in the same second.
const WINDOW: Duration = Duration::from_secs(1);

/// The calls of the last second.
#[derive(Debug, Default)]
pub(super) struct CallPace {
    /// In order; as many as arrive in a second.
    times: VecDeque<Duration>,
}

impl CallPace {
    /// Calls in the second that ends now.
    pub(super) fn count(&mut self, now: Duration) -> usize {
        while self.times.front().is_some_and(|&oldest| oldest + WINDOW <= now) {
            self.times.pop_front();
        }
        self.times.len()
    }

    /// Adds a call that arrives now, and counts it too. A time before the last one's counts as that.
    pub(super) fn add(&mut self, now: Duration) -> usize {
        let now = self.times.back().map_or(now, |&last| last.max(now));
        self.times.push_back(now);
        self.count(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_holds_the_calls_of_exactly_one_second() {
        let mut window = CallPace::default();
        let mut check = |now_ms: u64, expected: usize| assert_eq!(window.add(Duration::from_millis(now_ms)), expected, "{now_ms}");
        check(0, 1);
        check(500, 2);
        check(999, 3);
        check(1_000, 3);
        check(1_499, 4);
        check(1_500, 4);
        check(1_400, 5);
        check(10_000, 1);
    }
}
