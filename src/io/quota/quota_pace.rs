//! What a process tells the store of its requests, so that the store finds the pace that the service lets through to all, and what the
//! store answers. The rule is the script's.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::lease_book::SLOT_TIME;

/// Requests are counted over a second, or over the time of this many if that is longer, but at most over [`COUNTED_MAX_S`]. Source: the pace of
/// a process alone.
const COUNTED_CALLS: f64 = 5.0;
const COUNTED_MAX_S: f64 = 5.0;
/// How long requests and refusals are remembered. Source: the longest count, and the default timeout of a request.
const REMEMBERED: Duration = Duration::from_secs(15);
/// How many of them are remembered at most. Chosen: all of that time at 2,000/s.
const REMEMBERED_MAX: usize = 32_768;
/// The time whose requests are the pace that is shown.
const SHOWN: Duration = Duration::from_secs(1);

/// What a renewal says of the requests of this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SentReport {
    /// Tenths of requests a second that have left lately.
    pub left: u64,
    /// Tenths of requests a second that left lately and were refused as too fast.
    pub refused: u64,
    /// How many milliseconds ago the newest refused one left, if one was refused since the last renewal.
    pub refused_ago_ms: Option<u64>,
}

/// The pace that the service lets through to all, while that is less than the limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CommonPace {
    /// Requests per second that got through at the last refusal.
    pub ceiling_per_s: f64,
    /// Requests per second that may leave now.
    pub per_s: f64,
}

/// The requests of this process, and what the store says of the pace.
#[derive(Debug)]
pub(super) struct QuotaPace {
    limit_per_s: f64,
    left: VecDeque<Instant>,
    refused: VecDeque<Instant>,
    /// When the newest refused request left that the store has not heard of.
    untold: Option<Instant>,
    being_told: Option<Instant>,
    common: Option<CommonPace>,
    /// What got through at the last refusal of which this process has heard.
    ceiling_per_s: Option<f64>,
    /// From one use of a slot to the next.
    slot_time: Duration,
}

impl QuotaPace {
    pub(super) fn new(limit_per_s: f64) -> Self {
        Self {
            limit_per_s,
            left: VecDeque::new(),
            refused: VecDeque::new(),
            untold: None,
            being_told: None,
            common: None,
            ceiling_per_s: None,
            slot_time: SLOT_TIME,
        }
    }

    pub(super) const fn common(&self) -> Option<CommonPace> {
        self.common
    }

    pub(super) const fn ceiling_per_s(&self) -> Option<f64> {
        self.ceiling_per_s
    }

    pub(super) const fn slot_time(&self) -> Duration {
        self.slot_time
    }

    /// How many times longer than a second a slot rests.
    pub(super) fn stretch(&self) -> f64 {
        self.slot_time.as_secs_f64() / SLOT_TIME.as_secs_f64()
    }

    pub(super) fn leaves(&mut self, now: Instant) {
        remember(&mut self.left, now);
    }

    /// Requests that left in the last second.
    pub(super) fn shown_per_s(&self, now: Instant) -> u64 {
        (self.left.len() - self.left.partition_point(|at| *at + SHOWN <= now)) as u64
    }

    /// The service has refused a request as too fast, which had left at this time.
    pub(super) fn note_refusal(&mut self, left: Instant) {
        remember(&mut self.refused, left);
        self.untold = self.untold.max(Some(left));
    }

    /// Whether the store has to hear of a refusal.
    pub(super) const fn is_untold(&self) -> bool {
        self.untold.is_some()
    }

    /// What the renewal that leaves now says.
    pub(super) fn tell(&mut self, now: Instant) -> SentReport {
        self.being_told = self.untold.take();
        let per_s = self.common.map_or(self.limit_per_s, |pace| pace.per_s);
        let counted_s = (COUNTED_CALLS / per_s).clamp(1.0, COUNTED_MAX_S);
        let (counted, end) = (Duration::from_secs_f64(counted_s), self.being_told.unwrap_or(now));
        let tenths = |times: &VecDeque<Instant>| {
            let count = times.iter().rev().filter(|at| **at <= end && **at + counted > end).count();
            // Of all that is remembered it is at most 327,680.
            u64::try_from(10_000 * count as u128 / counted.as_millis()).unwrap_or(u64::MAX)
        };
        let ago_ms = |left: Instant| u64::try_from((now - left).as_millis()).unwrap_or(u64::MAX);
        SentReport { left: tenths(&self.left), refused: tenths(&self.refused), refused_ago_ms: self.being_told.map(ago_ms) }
    }

    /// The store has answered.
    pub(super) fn hear(&mut self, common: Option<CommonPace>, slot_time: Duration) {
        self.being_told = None;
        (self.common, self.slot_time) = (common, slot_time.max(SLOT_TIME));
        self.ceiling_per_s = common.map(|pace| pace.ceiling_per_s).or(self.ceiling_per_s);
    }

    /// The store may not have heard what it was told.
    pub(super) fn lost(&mut self) {
        self.untold = self.untold.max(self.being_told.take());
    }
}

fn remember(times: &mut VecDeque<Instant>, at: Instant) {
    times.push_back(at);
    while times.len() > REMEMBERED_MAX || times.front().is_some_and(|oldest| *oldest + REMEMBERED < at) {
        times.pop_front();
    }
}
