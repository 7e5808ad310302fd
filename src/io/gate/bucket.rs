//! Spaces requests evenly with governor's token bucket, on a clock that the gate sets.
//!
//! It says when the next request is due. The ring limits how many requests a second may hold. The bucket never sleeps.

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

/// Calls that may leave together. Source: the contract of the pace. Waking an idle core costs more than a small call does.
const TOGETHER: u32 = 3;
/// … but not more than are due in this time, so that they stay evenly spread. Chosen: three at 200/s.
const TOGETHER_TIME: Duration = Duration::from_millis(16);
/// … and not more than are due in this time where they wait for their connections: what comes up together is held apart again by the proof of
/// the limit, and that costs some of the pace. Chosen: two at 200/s.
const TOGETHER_TIME_CONNECTING: Duration = Duration::from_millis(15);
/// A timer of a millisecond keeps up with calls that are this far apart; where they are closer, those of this time leave together.
const TIMER: Duration = Duration::from_millis(2);
/// A call that is late by up to this much is no call lost. Chosen: what a busy machine is late by now and then.
const LATENESS: Duration = Duration::from_millis(20);
/// Calls that leave one at a time are at least this share of their distance apart, even when they are late: a limiter without patience would
/// refuse the one that comes too soon. Chosen: the reciprocal of the distance that is kept to what was found.
const LEAST_DISTANCE: f64 = 0.95;
/// … or as much nearer as the timer is coarse: of calls that are due every 6.8 ms some leave after 6 and some after 7.
const TIMER_TICK: Duration = Duration::from_millis(1);

/// Whether calls find their connections ready, by those that were written last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connections {
    Ready,
    /// Each has to wait for one.
    Awaited,
}

/// How calls leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaving {
    /// A few together, where that spares waking up.
    Together,
    /// One at a time.
    Single,
}

/// Calls that are due, one after the other.
#[derive(Debug)]
pub(super) struct Bucket {
    limiter: RateLimiter<NotKeyed, InMemoryState, SetClock, NoOpMiddleware<Tick>>,
    clock: SetClock,
    origin: Instant,
    interval: Duration,
    leaving: Leaving,
    /// Calls of a full second. Those that leave together begin anew with each of these rounds: where threes go on and on, some second of
    /// 200 has 201, and the proof of the limit tears each three apart from then on.
    round: NonZeroU32,
    /// Calls of this round that have left.
    left_of_round: u32,
    /// A call is due and has not left yet.
    is_due: bool,
    last_left: Option<Instant>,
}

impl Bucket {
    /// The first call is due at once.
    pub(super) fn new(pace_per_s: f64, round: NonZeroU32, now: Instant) -> Self {
        let (clock, leaving) = (SetClock::default(), Leaving::Together);
        let interval = interval(pace_per_s);
        let limiter = limiter(interval, leaving, &clock);
        let bucket = Self { limiter, clock, origin: now, interval, leaving, round, left_of_round: 0, is_due: false, last_left: None };
        bucket.drain(now, capacity(interval, leaving) - 1);
        bucket
    }

    /// Whether a call is due by now, or when to ask again.
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

    /// The call that was due leaves.
    pub(super) fn left(&mut self, now: Instant) {
        self.is_due = false;
        self.last_left = Some(now);
        self.left_of_round = (self.left_of_round + 1) % self.round;
    }

    /// Calls that leave together next; fewer at the end of a round, and where a late one has brought more.
    fn next_together(&self, connections: Connections) -> u32 {
        let together = together(self.interval, self.leaving);
        match connections {
            Connections::Ready => (together - self.left_of_round % together).min(self.round.get() - self.left_of_round),
            Connections::Awaited => together.min(in_time(TOGETHER_TIME_CONNECTING.max(TIMER), self.interval)),
        }
    }

    /// From now on calls are due at another pace; the next one is so much after the last one.
    pub(super) fn change(&mut self, pace_per_s: f64, leaving: Leaving, now: Instant) {
        let interval = interval(pace_per_s);
        if (interval, leaving) == (self.interval, self.leaving) {
            return;
        }
        (self.interval, self.leaving, self.is_due) = (interval, leaving, false);
        self.limiter = limiter(interval, leaving, &self.clock);
        // What has been saved up for a late call was saved up at another pace.
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

/// Calls that leave together at this distance.
fn together(interval: Duration, leaving: Leaving) -> u32 {
    let by_choice = match leaving {
        Leaving::Together => in_time(TOGETHER_TIME, interval).min(TOGETHER),
        Leaving::Single => 1,
    };
    by_choice.max(in_time(TIMER, interval))
}

/// Calls that are due in this time at this distance, one at least.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is a small positive number")]
fn in_time(time: Duration, interval: Duration) -> u32 {
    // The tiny addition makes three of what rounding has made 2.999.
    ((time.as_secs_f64() / interval.as_secs_f64()).max(1.0) + 1e-6) as u32
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is a small positive number")]
fn capacity(interval: Duration, leaving: Leaving) -> u32 {
    let late = (LATENESS.as_secs_f64() / interval.as_secs_f64()).max(1.0) as u32;
    // One less where three leave together, so that calls which wait for their connections are no bigger crowd for it.
    together(interval, leaving).min(in_time(TOGETHER_TIME_CONNECTING, interval)) + late
}

fn limiter(interval: Duration, leaving: Leaving, clock: &SetClock) -> RateLimiter<NotKeyed, InMemoryState, SetClock, NoOpMiddleware<Tick>> {
    let quota = Quota::with_period(interval).expect("a distance is never zero");
    let burst = NonZeroU32::new(capacity(interval, leaving)).expect("there is room for at least one call");
    RateLimiter::direct_with_clock(quota.allow_burst(burst), clock.clone())
}

/// Governor's clock seam: the gate sets the time before each question, so that tokio's (pausable) clock rules.
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

/// Nanoseconds since the gate was made.
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
