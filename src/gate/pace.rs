//! How fast calls may leave: the rate, or what the service lets through of it.
//!
//! Decisions only: it is told when calls were refused, and knows the time from whoever asks.

use std::time::Duration;

use tokio::time::Instant;

use super::SECOND;
use super::bucket::Leaving;

/// The slowest pace that throttling leads to, in calls a second.
const FLOOR_PER_S: f64 = 5.0;
/// The pace climbs back by this factor …
const CLIMB: f64 = 1.05;
/// … this often.
const CLIMB_EVERY: Duration = Duration::from_secs(2);
/// After an outage the pace starts here and doubles every second.
const RAMP_FROM_PER_S: f64 = 10.0;
const RAMP: f64 = 2.0;
const RAMP_EVERY: Duration = Duration::from_secs(1);

/// How the pace climbs back to the limit.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Climb {
    /// At the limit.
    Done,
    /// Slowed by the service: by a few per cent every few seconds.
    Careful { at: Instant },
    /// Ramping up after an outage: doubling.
    /// … up to this pace, where the service had slowed it before.
    Ramp { at: Instant, ceiling_per_s: f64 },
}

/// The pace of one API.
#[derive(Debug)]
pub(super) struct Pace {
    limit_per_s: f64,
    per_s: f64,
    climb: Climb,
    slowed_at: Option<Instant>,
}

impl Pace {
    pub(super) fn new(limit_per_s: f64) -> Self {
        Self { limit_per_s, per_s: limit_per_s, climb: Climb::Done, slowed_at: None }
    }

    /// In calls a second.
    pub(super) fn at(&mut self, now: Instant) -> f64 {
        self.climb_back(now);
        self.per_s
    }

    pub(super) fn leaving(&self) -> Leaving {
        if self.slowed_at.is_some() { Leaving::Single } else { Leaving::Together }
    }

    /// The service said "too fast": halves the pace for everybody. Calls that left before the last halving, or so soon after it that the
    /// service's own second still holds the faster ones, tell nothing new.
    pub(super) fn refused(&mut self, call_left: Instant, now: Instant) {
        if self.slowed_at.is_some_and(|at| call_left <= at + SECOND) {
            return;
        }
        self.slowed_at = Some(now);
        self.climb = Climb::Careful { at: now + CLIMB_EVERY };
        self.per_s = (self.per_s / 2.0).max(FLOOR_PER_S.min(self.limit_per_s));
    }

    pub(super) fn ramp_up(&mut self, now: Instant) {
        let ceiling_per_s = match self.climb {
            Climb::Done => self.limit_per_s,
            Climb::Careful { .. } => self.per_s,
            Climb::Ramp { ceiling_per_s, .. } => ceiling_per_s,
        };
        self.climb = Climb::Ramp { at: now + RAMP_EVERY, ceiling_per_s };
        self.per_s = RAMP_FROM_PER_S.min(self.per_s);
    }

    fn climb_back(&mut self, now: Instant) {
        let (due, factor, ceiling_per_s) = match self.climb {
            Climb::Done => return,
            Climb::Careful { at } => (at, CLIMB, self.limit_per_s),
            Climb::Ramp { at, ceiling_per_s } => (at, RAMP, ceiling_per_s),
        };
        if now < due {
            return;
        }
        self.per_s = (self.per_s * factor).min(ceiling_per_s);
        self.climb = match self.climb {
            _ if self.per_s >= self.limit_per_s => Climb::Done,
            Climb::Ramp { .. } if self.per_s < ceiling_per_s => Climb::Ramp { at: now + RAMP_EVERY, ceiling_per_s },
            Climb::Ramp { .. } | Climb::Careful { .. } | Climb::Done => Climb::Careful { at: now + CLIMB_EVERY },
        };
    }

    pub(super) fn is_slowed(&self) -> bool {
        matches!(self.climb, Climb::Careful { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttling_halves_once_a_burst_and_climbs_back() {
        let start = Instant::now();
        let mut pace = Pace::new(200.0);
        pace.refused(start, start);
        pace.refused(start, start);
        assert!((pace.per_s - 100.0).abs() < 0.1);
        for n in 1..20 {
            let now = start + Duration::from_millis(1_100 * n);
            pace.refused(now - Duration::from_millis(50), now);
        }
        assert!((pace.per_s - FLOOR_PER_S).abs() < 0.1);
        for n in 0..400 {
            pace.at(start + Duration::from_secs(30) + CLIMB_EVERY * n);
        }
        assert!(!pace.is_slowed());
        assert!((pace.per_s - 200.0).abs() < 0.1);
    }

    #[test]
    fn after_an_outage_the_pace_doubles_to_where_it_was_and_then_climbs_with_care() {
        let start = Instant::now();
        let mut pace = Pace::new(200.0);
        pace.refused(start, start);
        pace.ramp_up(start);
        let paces: Vec<f64> = (1..=7).map(|n| pace.at(start + RAMP_EVERY * n).round()).collect();
        assert_eq!(paces, [20.0, 40.0, 80.0, 100.0, 100.0, 105.0, 105.0]);
    }
}
