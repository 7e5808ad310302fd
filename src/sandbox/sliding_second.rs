//! Counts requests in a sliding second, exactly, by their arrival times.

use std::collections::VecDeque;
use std::time::Duration;

/// The length of a window. Two requests exactly this far apart are not in the same second.
const WINDOW: Duration = Duration::from_secs(1);

/// The requests of the last second.
#[derive(Debug, Clone, Default)]
pub(super) struct SlidingSecond {
    /// Arrival times in order; as many as arrive in one second.
    times: VecDeque<Duration>,
}

impl SlidingSecond {
    /// The number of requests in the second that ends now.
    pub(super) fn count(&mut self, now: Duration) -> usize {
        while self.times.front().is_some_and(|&oldest| oldest + WINDOW <= now) {
            self.times.pop_front();
        }
        self.times.len()
    }

    /// Adds a request that arrives now and returns the count with it. A time before the previous request's is replaced by that one.
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
        let mut window = SlidingSecond::default();
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
