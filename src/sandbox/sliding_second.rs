//! Counts requests in a sliding second, exactly, by their arrival times.

use std::collections::VecDeque;
use std::time::Duration;

/// The length of a window. Two requests exactly this far apart are not in the same second.
const WINDOW: Duration = Duration::from_secs(1);

/// How much earlier than the latest request one may be that is added after it. Chosen: longer than a busy machine stands still.
const LATE: Duration = Duration::from_secs(1);

/// The requests of the last second, and of one more for those that are added late.
#[derive(Debug, Clone, Default)]
pub(super) struct SlidingSecond {
    /// Arrival times in order.
    times: VecDeque<Duration>,
}

impl SlidingSecond {
    /// The number of requests in the second that ends now, or later.
    pub(super) fn count(&self, now: Duration) -> usize {
        self.times.len() - self.times.partition_point(|&at| at + WINDOW <= now)
    }

    /// Adds a request that arrived at `at`, and returns the most of them in a second that it is in.
    pub(super) fn add(&mut self, at: Duration) -> usize {
        let place = self.times.partition_point(|&other| other <= at);
        self.times.insert(place, at);
        let latest = self.times.back().copied().unwrap_or(at);
        while self.times.front().is_some_and(|&oldest| oldest + WINDOW + LATE <= latest) {
            self.times.pop_front();
        }
        let place = self.times.partition_point(|&other| other < at);
        let ends = self.times.iter().enumerate().skip(place).take_while(|(_, end)| **end < at + WINDOW);
        let most = ends.map(|(last, end)| last + 1 - self.times.partition_point(|&other| other + WINDOW <= *end)).max();
        most.unwrap_or(1)
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
        // One that is added late counts in each second that it is in.
        check(9_500, 2);
        check(9_001, 3);
        check(9_000, 3);
        check(10_499, 3);
    }
}
