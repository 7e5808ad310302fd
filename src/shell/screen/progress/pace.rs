//! The recent pace of requests, from samples of their number.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The pace is an average over this time. Chosen: steady enough to read, short enough to show a stall.
const PACE_OVER: Duration = Duration::from_secs(10);
/// Samples of the pace are at least this far apart, so at most 51 of them are kept.
const SAMPLES_APART: Duration = Duration::from_millis(200);
/// No pace is shown before this time. Chosen: the first requests would look like a burst.
const PACE_AFTER: Duration = Duration::from_secs(1);

/// The recent pace of requests.
#[derive(Debug, Clone)]
pub(crate) struct RecentPace {
    /// Times, and the number of requests up to each. The first sample is at least `PACE_OVER` old if the run is.
    pub(super) samples: VecDeque<(Instant, u64)>,
}

impl RecentPace {
    pub(crate) fn new(now: Instant) -> Self {
        Self::since(now, 0)
    }

    /// From a time on, up to which so many were counted.
    pub(super) fn since(now: Instant, calls: u64) -> Self {
        Self { samples: VecDeque::from([(now, calls)]) }
    }

    pub(crate) fn note(&mut self, calls: u64, now: Instant) {
        if self.samples.back().is_none_or(|(at, _)| now - *at >= SAMPLES_APART) {
            self.samples.push_back((now, calls));
        }
        while self.samples.get(1).is_some_and(|(at, _)| now - *at >= PACE_OVER) {
            self.samples.pop_front();
        }
    }

    /// The same once it is an average over the whole time, which is what people read as a rate: over a second or two, even requests may
    /// look like more than the limit.
    pub(super) fn mean_per_s(&self, calls: u64, now: Instant) -> Option<f64> {
        let is_whole = self.samples.front().is_some_and(|(since, _)| now - *since >= PACE_OVER);
        self.calls_per_s(calls, now).filter(|_| is_whole)
    }

    pub(crate) fn calls_per_s(&self, calls: u64, now: Instant) -> Option<f64> {
        let (since, before) = *self.samples.front()?;
        let over = now - since;
        (over >= PACE_AFTER).then(|| calls.saturating_sub(before) as f64 / over.as_secs_f64())
    }
}
