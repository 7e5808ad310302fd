//! Calls in a sliding second: counted exactly, by the time they arrived.

use std::collections::VecDeque;
use std::time::Duration;

/// The window. Two calls exactly this far apart are not in the same second.
const WINDOW: Duration = Duration::from_secs(1);

/// The calls of the last second.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// In order; as many as arrive in a second.
    times: VecDeque<Duration>,
}

impl Window {
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

/// Admits at most so many calls in any sliding second; a call that is refused doesn't count.
#[derive(Debug)]
pub(super) struct Limiter {
    calls_per_s: Option<u32>,
    admitted: Window,
}

/// What a limiter says of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    Admitted,
    OverLimit,
}

impl Limiter {
    /// `None` admits everything.
    pub(super) fn new(calls_per_s: Option<u32>) -> Self {
        Self { calls_per_s, admitted: Window::default() }
    }

    pub(super) fn admit(&mut self, now: Duration) -> Admission {
        let Some(limit) = self.calls_per_s else { return Admission::Admitted };
        if self.admitted.count(now) >= usize::try_from(limit).unwrap_or(usize::MAX) {
            return Admission::OverLimit;
        }
        self.admitted.add(now);
        Admission::Admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_holds_the_calls_of_exactly_one_second() {
        let mut window = Window::default();
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

    #[test]
    fn a_limiter_counts_what_it_admits() {
        let mut limiter = Limiter::new(Some(2));
        let mut check = |now_ms: u64, expected| assert_eq!(limiter.admit(Duration::from_millis(now_ms)), expected, "{now_ms}");
        check(0, Admission::Admitted);
        check(1, Admission::Admitted);
        check(2, Admission::OverLimit);
        check(999, Admission::OverLimit);
        check(1_000, Admission::Admitted);
        check(1_000, Admission::OverLimit);
        check(1_001, Admission::Admitted);
    }
}
