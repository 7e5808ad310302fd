//! Spaces requests evenly with governor's token bucket, on a clock that the gate sets.
//!
//! It says when the next request is due. `sliding_limit` limits how many requests a second may contain. The bucket never sleeps.

use std::num::NonZeroU32;
use std::ops::Add;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use super::SECOND;

/// Requests that may leave together. Source: the contract of the pace. Waking an idle core costs more CPU than sending a small request.
const TOGETHER: u32 = 3;
/// Requests that leave together must be due within this time, so that they stay evenly spread. Chosen: three at 200/s.
const TOGETHER_TIME: Duration = Duration::from_millis(16);
/// The same while requests have to wait for their connections. `sliding_limit` spreads requests again whose connections become ready together,
/// which costs throughput. Chosen: two at 200/s.
const TOGETHER_TIME_CONNECTING: Duration = Duration::from_millis(15);
/// Requests that are closer than this cannot be timed one by one with a timer of a millisecond. Those that are due within it leave
/// together.
const TIMER: Duration = Duration::from_millis(2);
/// A request that is late by up to this much does not lower the average rate. Chosen: the delays that a busy machine has now and then.
const LATENESS: Duration = Duration::from_millis(20);
/// Single requests keep at least this share of their distance, even after a late one: a limiter without a burst would refuse a request that
/// comes too soon. Chosen: the reciprocal of the headroom that is kept below the rate that got through.
const LEAST_DISTANCE: f64 = 0.95;
/// The distance may be shorter by the timer's resolution. With one request every 6.8 ms, for instance, some leave after 6 ms and some after
/// 7.
const TIMER_TICK: Duration = Duration::from_millis(1);

/// Whether requests have a connection ready, judged by those that were written last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connections {
    Ready,
    /// Each request has to wait for a connection.
    Awaited,
}

/// Whether requests may leave together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaving {
    /// A few together, which saves CPU.
    Together,
    /// One at a time.
    Single,
}

/// Says when the next request is due.
#[derive(Debug)]
pub(super) struct Bucket {
    limiter: RateLimiter<NotKeyed, InMemoryState, SetClock, NoOpMiddleware<Tick>>,
    clock: SetClock,
    origin: Instant,
    interval: Duration,
    leaving: Leaving,
    /// Requests of a full second. After each such round a new group begins: without that, groups of three would put 201 requests into some
    /// second of 200, and the limit would then split every group.
    round: NonZeroU32,
    /// Requests of this round that have left.
    sent_in_round: u32,
    /// A request is due and has not left yet.
    is_due: bool,
    last_left: Option<Instant>,
}

impl Bucket {
    /// Creates a bucket whose first request is due at once.
    pub(super) fn new(pace_per_s: f64, round: NonZeroU32, now: Instant) -> Self {
        let (clock, leaving) = (SetClock::default(), Leaving::Together);
        let interval = interval(pace_per_s);
        let limiter = limiter(interval, leaving, &clock);
        let bucket = Self { limiter, clock, origin: now, interval, leaving, round, sent_in_round: 0, is_due: false, last_left: None };
        bucket.drain(now, capacity(interval, leaving) - 1);
        bucket
    }

    /// Returns `Ok` if a request is due by now, or else the time to ask again.
    pub(super) fn due(&mut self, connections: Connections, now: Instant) -> Result<(), Instant> {
        if self.is_due {
            return Ok(());
        }
        if let Some(least) = self.least_distance()
            && let Some(last) = self.last_left
            && now < last + least
        {
            return Err(last + least);
        }
        self.clock.set(now - self.origin);
        match self.limiter.check() {
            Ok(()) => {
                self.is_due = true;
                Ok(())
            }
            Err(not_until) => {
                let others = self.interval * (self.next_together(connections) - 1);
                Err(now + not_until.wait_time_from(self.clock.now()) + others)
            }
        }
    }

    /// Records that the due request leaves.
    pub(super) fn left(&mut self, now: Instant) {
        self.is_due = false;
        self.last_left = Some(now);
        self.sent_in_round = (self.sent_in_round + 1) % self.round;
    }

    /// The number of requests in the next group: fewer at the end of a round, and if a late request has added more.
    fn next_together(&self, connections: Connections) -> u32 {
        let together = together(self.interval, self.leaving);
        match connections {
            Connections::Ready => (together - self.sent_in_round % together).min(self.round.get() - self.sent_in_round),
            Connections::Awaited => together.min(in_time(TOGETHER_TIME_CONNECTING.max(TIMER), self.interval)),
        }
    }

    /// Changes the pace. The next request is due one new distance after the last one.
    pub(super) fn change(&mut self, pace_per_s: f64, leaving: Leaving, now: Instant) {
        let interval = interval(pace_per_s);
        if (interval, leaving) == (self.interval, self.leaving) {
            return;
        }
        (self.interval, self.leaving, self.is_due) = (interval, leaving, false);
        self.limiter = limiter(interval, leaving, &self.clock);
        // Tokens that were saved up for late requests belong to the old pace.
        let (last, tokens) = match self.last_left {
            Some(last) if last + interval > now => (last, capacity(interval, leaving)),
            Some(_) | None => (now, capacity(interval, leaving) - 1),
        };
        self.drain(last, tokens);
    }

    fn drain(&self, at: Instant, tokens: u32) {
        self.clock.set(at - self.origin);
        if let Some(tokens) = NonZeroU32::new(tokens) {
            let _ = self.limiter.check_n(tokens);
        }
    }

    fn least_distance(&self) -> Option<Duration> {
        match self.leaving {
            Leaving::Single if self.interval >= TIMER => {
                Some(self.interval.mul_f64(LEAST_DISTANCE).min(self.interval.saturating_sub(TIMER_TICK)))
            }
            Leaving::Single | Leaving::Together => None,
        }
    }
}

fn interval(pace_per_s: f64) -> Duration {
    let interval = if pace_per_s.is_finite() { SECOND.div_f64(pace_per_s) } else { Duration::ZERO };
    interval.max(Duration::from_nanos(1))
}

/// The number of requests that leave together at this distance.
fn together(interval: Duration, leaving: Leaving) -> u32 {
    let by_choice = match leaving {
        Leaving::Together => in_time(TOGETHER_TIME, interval).min(TOGETHER),
        Leaving::Single => 1,
    };
    by_choice.max(in_time(TIMER, interval))
}

/// The number of requests that are due within `time` at this distance, at least one.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is a small positive number")]
fn in_time(time: Duration, interval: Duration) -> u32 {
    // The tiny addition corrects a 3 that rounding has made 2.999.
    ((time.as_secs_f64() / interval.as_secs_f64()).max(1.0) + 1e-6) as u32
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is a small positive number")]
fn capacity(interval: Duration, leaving: Leaving) -> u32 {
    let late = (LATENESS.as_secs_f64() / interval.as_secs_f64()).max(1.0) as u32;
    // One less if three leave together, so that requests which wait for their connections arrive in no larger group.
    together(interval, leaving).min(in_time(TOGETHER_TIME_CONNECTING, interval)) + late
}

fn limiter(interval: Duration, leaving: Leaving, clock: &SetClock) -> RateLimiter<NotKeyed, InMemoryState, SetClock, NoOpMiddleware<Tick>> {
    let quota = Quota::with_period(interval).expect("the interval is never zero");
    let burst = NonZeroU32::new(capacity(interval, leaving)).expect("the capacity is at least 1");
    RateLimiter::direct_with_clock(quota.allow_burst(burst), clock.clone())
}

/// The clock for governor. The gate sets it before each question, so that tokio's (pausable) clock is the only one.
#[derive(Debug, Clone, Default)]
struct SetClock(Arc<AtomicU64>);

impl SetClock {
    fn set(&self, since_origin: Duration) {
        self.0.store(u64::try_from(since_origin.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Clock for SetClock {
    type Instant = Tick;

    fn now(&self) -> Tick {
        Tick(self.0.load(Ordering::Relaxed))
    }
}

/// Nanoseconds since the gate was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Tick(u64);

impl Add<Nanos> for Tick {
    type Output = Tick;

    fn add(self, nanos: Nanos) -> Tick {
        Tick(self.0.saturating_add(nanos.as_u64()))
    }
}

impl Reference for Tick {
    fn duration_since(&self, earlier: Self) -> Nanos {
        self.0.saturating_sub(earlier.0).into()
    }

    fn saturating_sub(&self, duration: Nanos) -> Self {
        Tick(self.0.saturating_sub(duration.as_u64()))
    }
}
