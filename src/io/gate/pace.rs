//! How fast requests leave: at the configured rate, or as fast as the service lets them through.
//!
//! As CUBIC does for TCP, the pace remembers the rate at which it was refused, returns close to it quickly, and goes past it carefully,
//! then ever faster. When it is refused, it falls to the rate that got through, as in the adaptive mode of the AWS SDKs. It only decides:
//! the caller tells it the time, and when requests left and were refused. The figures below were chosen by simulation against the limiters
//! of `benches/pace`.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::bucket::Leaving;
use super::{Headroom, SECOND};

/// The slowest pace that throttling leads to, in calls a second. Source: the contract of the gate.
const FLOOR_PER_S: f64 = 1.0;
/// How much of what got through is kept when a pace that had held is refused: others have come.
const FALL: f64 = 0.96;
/// A pace that was refused while it was tested is known to be too high; the one before it is held at least so long …
const HOLD_CONFIRMED: Duration = Duration::from_millis(8_500);
/// … and one that was refused for the first time, where it is not known what gets through.
const HOLD: Duration = Duration::from_secs(4);
/// Holding is longer where a refused call is a large share of the calls: this many calls, but at most so long.
const HOLD_MORE_CALLS: (f64, f64) = (20.0, 6.0);
const HOLD_MORE_CALLS_CONFIRMED: (f64, f64) = (40.0, 12.0);
/// A refusal that is within this factor of the last one confirms it.
const NEAR: f64 = 1.15;
/// The pace is raised this often, …
const STEP: Duration = Duration::from_millis(100);
/// … by this share of the rate a second, so that of two who share a limit the slower one gains more, …
const GAIN: f64 = 0.01;
/// … but by no more than this share of itself, …
const GAIN_MAX: f64 = 0.04;
/// … or, where that is more, than so many calls a second, so that the same is true of slow ones, …
const GAIN_LEAST_PER_S: f64 = 0.1;
/// … and besides by this share of itself a second, the longer nobody minds. Each entry lasts three seconds, the last one for good.
const GROWTH: [f64; 5] = [0.0, 0.03, 0.1, 0.2, 0.3];
const GROWTH_EACH: Duration = Duration::from_secs(3);
/// A new event so soon after the last one is about what that one led to.
const FOLLOWS: Duration = Duration::from_secs(3);
/// A test that is refused says nothing new as long as it took little more than what the service is known to take in at once: this many times
/// as much and so many calls, at less than this many times the pace that is known to get through.
const SLACK: (f64, f64) = (1.3, 2.0);
const SLACK_PACE: f64 = 2.0;
/// The known pace grows a little by it, lest it be too low for good.
const SLACK_GAIN: f64 = 1.005;
/// Back at its rate, a pace that nobody refuses for so long is taken to be free of any limit below it.
const FREE_AFTER: Duration = Duration::from_secs(10);
/// While a pace is held, so many refusals a second are the jitter of the line: one for each of these many calls a second.
const LONE_REFUSAL_PER_S: f64 = 120.0;
/// What got through is counted over a second, or over this many calls where that is longer, but at most over the last five seconds.
const COUNTED_CALLS: f64 = 5.0;
const COUNTED_MAX_S: f64 = 5.0;
/// Below this share of the pace, what left says nothing of what would get through: there was not enough to send.
const USED: f64 = 0.8;
/// Below this pace, in calls a second, a count is too coarse, and a refused pace itself tells more.
const COARSE_PER_S: f64 = 20.0;
/// How long a call is remembered. Source: what is counted, and the default time-out of a call …
const REMEMBERED: Duration = Duration::from_secs(15);
/// … and how many are at most. Chosen: at 2,000/s all of them.
const REMEMBERED_MAX: usize = 32_768;
/// After an outage the pace starts here and doubles every second.
const RAMP_FROM_PER_S: f64 = 10.0;
const RAMP: f64 = 2.0;
const RAMP_EVERY: Duration = Duration::from_secs(1);

/// What the pace is doing.
#[derive(Debug, Clone, Copy, PartialEq)]
enum PacePhase {
    /// At the rate.
    Free,
    /// Below what was refused.
    Hold { until: Instant },
    /// Going up since then; raised last `at`.
    Probe { since: Instant, at: Instant },
    /// Doubling after an outage, up to the pace that it had before.
    Ramp { at: Instant, to_per_s: f64 },
}

/// Where the last fall led.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fallen {
    /// A test was refused: to what got through then.
    ToMeasured,
    /// A test was refused, and what the service takes in at once explains it: to what was known before.
    ToKnown,
    /// No test was refused, or its result was refused as well.
    Otherwise,
}

/// The pace of one API.
#[derive(Debug)]
pub(super) struct Pace {
    limit_per_s: f64,
    headroom: Headroom,
    per_s: f64,
    phase: PacePhase,
    /// What got through at the last refusal.
    ceiling_per_s: Option<f64>,
    /// The ceiling was found by testing a pace close to an earlier one.
    is_confirmed: bool,
    /// The pace that the last fall led to.
    held_per_s: f64,
    fallen: Fallen,
    /// Calls of this test, or the last one, that were more than the ceiling lets through.
    above: f64,
    /// What the service takes in at once before it refuses any, in calls, where the results of tests were refused at once: a bucket.
    slack: Option<f64>,
    /// Refusals of calls that left before this are a part of the last event.
    event_until: Option<Instant>,
    below_rate_at: Option<Instant>,
    left: VecDeque<Instant>,
    refused: VecDeque<Instant>,
}

impl Pace {
    pub(super) fn new(limit_per_s: f64, headroom: Headroom) -> Self {
        Self {
            limit_per_s,
            headroom,
            per_s: limit_per_s,
            phase: PacePhase::Free,
            ceiling_per_s: None,
            is_confirmed: false,
            held_per_s: limit_per_s,
            fallen: Fallen::Otherwise,
            above: 0.0,
            slack: None,
            event_until: None,
            below_rate_at: None,
            left: VecDeque::new(),
            refused: VecDeque::new(),
        }
    }

    /// In calls a second.
    pub(super) fn at(&mut self, now: Instant) -> f64 {
        match self.phase {
            PacePhase::Hold { until } if now >= until => self.phase = PacePhase::Probe { since: until, at: until },
            PacePhase::Free | PacePhase::Hold { .. } | PacePhase::Probe { .. } => {}
            PacePhase::Ramp { at, to_per_s } => self.ramp(at, to_per_s, now),
        }
        if let PacePhase::Probe { since, at } = self.phase {
            self.probe(since, at, now);
        }
        self.per_s
    }

    pub(super) const fn leaving(&self) -> Leaving {
        if self.ceiling_per_s.is_some() { Leaving::Single } else { Leaving::Together }
    }

    /// What got through, in calls a second, when the service refused a call for the last time.
    pub(super) const fn ceiling_per_s(&self) -> Option<f64> {
        self.ceiling_per_s
    }

    /// Whether the service has slowed this run below its rate.
    pub(super) fn is_slowed(&self) -> bool {
        self.ceiling_per_s.is_some() && self.phase != PacePhase::Free
    }

    /// Calls left.
    pub(super) fn sent(&mut self, calls: usize, now: Instant) {
        self.left.extend(std::iter::repeat_n(now, calls));
        forget(&mut self.left, now);
    }

    /// The service said "too fast" to a call that left then. All that was under way, and what leaves so soon after it that the service's own
    /// second still holds the faster ones, is one event.
    pub(super) fn refused(&mut self, left: Instant, now: Instant) {
        self.refused.push_back(left);
        forget(&mut self.refused, now);
        if self.event_until.is_some_and(|until| left < until) || self.is_lone(left) {
            return;
        }
        self.at(now);
        let is_test = matches!(self.phase, PacePhase::Probe { .. });
        let known_per_s = if is_test { self.known_per_s() } else { None };
        let through_per_s = known_per_s.unwrap_or_else(|| self.through_per_s(left));
        self.learn_slack(now);
        self.fallen = match (is_test, known_per_s) {
            (true, None) => Fallen::ToMeasured,
            (true, Some(_)) => Fallen::ToKnown,
            (false, _) => Fallen::Otherwise,
        };
        self.is_confirmed = self.confirms(through_per_s, is_test, now);
        self.ceiling_per_s = Some(through_per_s);
        let kept = self.headroom.kept();
        let fall = if is_test { kept } else { FALL.min(kept + (FALL - Headroom::DEFAULT.kept())) };
        self.per_s = (through_per_s * fall).max(FLOOR_PER_S.min(self.limit_per_s));
        self.held_per_s = self.per_s;
        self.event_until = Some(now + SECOND);
        self.phase = PacePhase::Hold { until: now + self.hold(through_per_s) };
    }

    /// The service is back after an outage.
    pub(super) fn ramp_up(&mut self, now: Instant) {
        let to_per_s = match self.phase {
            PacePhase::Free => self.limit_per_s,
            PacePhase::Hold { .. } | PacePhase::Probe { .. } => self.per_s,
            PacePhase::Ramp { to_per_s, .. } => to_per_s,
        };
        self.phase = PacePhase::Ramp { at: now + RAMP_EVERY, to_per_s };
        self.per_s = RAMP_FROM_PER_S.min(self.per_s);
    }

    fn ramp(&mut self, at: Instant, to_per_s: f64, now: Instant) {
        if now < at {
            return;
        }
        self.per_s = (self.per_s * RAMP).min(to_per_s);
        self.phase = if self.per_s < to_per_s {
            PacePhase::Ramp { at: now + RAMP_EVERY, to_per_s }
        } else if to_per_s < self.limit_per_s {
            PacePhase::Hold { until: now + HOLD }
        } else {
            PacePhase::Free
        };
    }

    fn probe(&mut self, since: Instant, mut at: Instant, now: Instant) {
        if at == since {
            self.above = 0.0;
            if self.fallen == Fallen::ToMeasured {
                self.slack = None;
            }
        }
        while at + STEP <= now && self.per_s < self.limit_per_s {
            let steps = (at - since).as_millis() / GROWTH_EACH.as_millis();
            let growth = GROWTH[usize::try_from(steps).map_or(GROWTH.len() - 1, |steps| steps.min(GROWTH.len() - 1))];
            self.above += (self.per_s - self.ceiling_per_s.unwrap_or(self.per_s)).max(0.0) * STEP.as_secs_f64();
            let gain = (GAIN * self.limit_per_s / self.per_s).min(GAIN_MAX.max(GAIN_LEAST_PER_S / self.per_s));
            self.per_s = (self.per_s * (1.0 + (growth + gain) * STEP.as_secs_f64())).min(self.limit_per_s);
            at += STEP;
            self.below_rate_at = Some(at);
        }
        let is_free = self.per_s >= self.limit_per_s && self.below_rate_at.is_none_or(|below| now >= below + FREE_AFTER);
        self.phase = if is_free { PacePhase::Free } else { PacePhase::Probe { since, at } };
    }

    /// What gets through if this test was refused for no other reason than the one before: it took what the service takes in at once.
    fn known_per_s(&self) -> Option<f64> {
        let (ceiling_per_s, slack, (times, calls)) = (self.ceiling_per_s?, self.slack?, SLACK);
        let is_known = self.above <= slack * times + calls && self.per_s < SLACK_PACE * ceiling_per_s;
        is_known.then(|| (ceiling_per_s * SLACK_GAIN).min(self.per_s))
    }

    /// What a test led to is refused: the test had got through only because the service takes in some calls at once.
    fn learn_slack(&mut self, now: Instant) {
        let follows = self.event_until.is_some_and(|until| now < until + FOLLOWS);
        if matches!(self.phase, PacePhase::Hold { .. }) && self.fallen != Fallen::Otherwise && follows {
            self.slack = Some(self.above);
        }
    }

    /// Whether a refusal is one of the few that a held pace meets now and then.
    fn is_lone(&self, left: Instant) -> bool {
        let PacePhase::Hold { .. } = self.phase else { return false };
        let lately = self.refused.iter().filter(|at| **at + SECOND > left).count();
        lately as f64 <= (self.per_s / LONE_REFUSAL_PER_S).floor()
    }

    /// How many calls a second got through when this one, which was refused, left.
    fn through_per_s(&self, left: Instant) -> f64 {
        let counted_s = (COUNTED_CALLS / self.per_s).clamp(1.0, COUNTED_MAX_S);
        let counted = Duration::from_secs_f64(counted_s);
        let within = |times: &VecDeque<Instant>| times.iter().rev().filter(|at| **at <= left && **at + counted > left).count() as f64;
        let (sent, refused) = (within(&self.left), within(&self.refused));
        let mut through_per_s = ((sent - refused) / counted_s).max(FLOOR_PER_S / 2.0);
        if sent < USED * self.per_s * counted_s {
            through_per_s = through_per_s.max(self.per_s / 2.0);
        }
        if let PacePhase::Probe { since, at } = self.phase {
            // The pace that was held before this test got through.
            through_per_s = through_per_s.max(self.held_per_s / self.headroom.kept());
            if self.per_s < COARSE_PER_S && at - since < GROWTH_EACH * 2 {
                through_per_s = through_per_s.max(0.98 * self.per_s);
            }
        }
        through_per_s.min(self.per_s)
    }

    fn confirms(&self, through_per_s: f64, is_test: bool, now: Instant) -> bool {
        let Some(before_per_s) = self.ceiling_per_s else { return false };
        let follows = self.event_until.is_some_and(|until| now < until + FOLLOWS);
        let is_near = through_per_s < NEAR * before_per_s && through_per_s * NEAR > before_per_s;
        (is_test && self.per_s < NEAR * before_per_s) || (self.is_confirmed && follows && is_near)
    }

    fn hold(&self, through_per_s: f64) -> Duration {
        let (least, (calls, most_s)) =
            if self.is_confirmed { (HOLD_CONFIRMED, HOLD_MORE_CALLS_CONFIRMED) } else { (HOLD, HOLD_MORE_CALLS) };
        least + Duration::from_secs_f64((calls / through_per_s).min(most_s))
    }
}

fn forget(times: &mut VecDeque<Instant>, now: Instant) {
    while times.len() > REMEMBERED_MAX || times.front().is_some_and(|at| *at + REMEMBERED < now) {
        times.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls leave evenly at the pace from `from_s` to `to_s`, in seconds after the start.
    fn send(pace: &mut Pace, start: Instant, (from_s, to_s): (f64, f64)) {
        let mut at_s = from_s;
        while at_s < to_s {
            let now = start + Duration::from_secs_f64(at_s);
            let per_s = pace.at(now);
            pace.sent(1, now);
            at_s += 1.0 / per_s;
        }
    }

    #[test]
    fn a_burst_of_refusals_is_one_event_and_the_pace_falls_to_what_got_through() {
        let start = Instant::now();
        let mut pace = Pace::new(200.0, Headroom::DEFAULT);
        send(&mut pace, start, (0.0, 2.0));
        // Of the second's 200 calls the last hundred are refused, all within 200 ms.
        for n in 0..100 {
            pace.refused(start + Duration::from_millis(1_500 + 5 * n), start + Duration::from_millis(2_100 + n));
        }
        let fallen = pace.at(start + Duration::from_millis(2_200));
        assert!((180.0..200.0).contains(&fallen), "the first refusal found almost all getting through: {fallen}");
        send(&mut pace, start, (2.2, 3.3));
        pace.refused(start + Duration::from_millis(3_200), start + Duration::from_millis(3_250));
        let per_s = pace.at(start + Duration::from_millis(3_300));
        assert!((per_s - fallen).abs() < 0.1, "a lone one is the jitter of the line: {per_s}");
        pace.refused(start + Duration::from_millis(3_250), start + Duration::from_millis(3_300));
        let per_s = pace.at(start + Duration::from_millis(3_300));
        assert!(per_s < fallen, "two that left a second later are a new event: {per_s}");
    }

    #[test]
    fn what_got_through_is_held_then_tested_with_care_then_ever_faster() {
        let start = Instant::now();
        let mut pace = Pace::new(200.0, Headroom::DEFAULT);
        pace.refused(start, start);
        let at = |pace: &mut Pace, s: f64| pace.at(start + Duration::from_secs_f64(s));
        assert!((at(&mut pace, 0.0) - 96.0).abs() < 0.1, "nothing is known but that 200 is too much");
        assert!((at(&mut pace, 4.0) - 96.0).abs() < 0.1, "it is held");
        let (soon, later, late) = (at(&mut pace, 7.2), at(&mut pace, 10.2), at(&mut pace, 16.0));
        assert!((100.0..104.0).contains(&soon) && (112.0..124.0).contains(&later), "{soon}, {later}");
        assert!((late - 200.0).abs() < 0.1, "{late}");
        assert!(pace.is_slowed());
        at(&mut pace, 40.0);
        assert!(!pace.is_slowed(), "back at its rate, and nobody minds");
    }

    #[test]
    fn a_test_that_fails_leads_back_to_below_what_held() {
        for (headroom, kept) in [(Headroom::DEFAULT, 0.95), (Headroom::percent(20).unwrap(), 0.80)] {
            let start = Instant::now();
            let mut pace = Pace::new(200.0, headroom);
            pace.refused(start, start);
            send(&mut pace, start, (0.0, 7.5));
            let now = start + Duration::from_millis(7_500);
            let tested = pace.at(now);
            pace.refused(now, now);
            let held = pace.at(now);
            assert!(held <= kept * tested && held > (kept - 0.03) * tested, "{tested}, {held}");
        }
    }

    #[test]
    fn a_bucket_that_was_filled_once_is_known_but_more_than_it_holds_is_news() {
        let start = Instant::now();
        let at = |s: f64| start + Duration::from_secs_f64(s);
        let mut pace = Pace::new(200.0, Headroom::DEFAULT);
        pace.refused(start, start);
        send(&mut pace, start, (0.0, 10.0));
        let first = pace.at(at(10.0));
        pace.refused(at(10.0), at(10.0));
        assert!(pace.at(at(10.0)) > 0.9 * first, "nothing is known but what got through");
        send(&mut pace, start, (10.0, 11.1));
        (0..10).for_each(|_| pace.refused(at(11.05), at(11.1)));
        let held = pace.at(at(11.1));
        send(&mut pace, start, (11.1, 21.3));
        let second = pace.at(at(21.3));
        assert!(second > 1.1 * held, "{held}, {second}");
        pace.refused(at(21.3), at(21.3));
        let known = pace.at(at(21.3));
        assert!(known < 1.02 * held && known > 0.95 * held, "{held}, {second}, {known}");
        send(&mut pace, start, (21.3, 43.0));
        let third = pace.at(at(43.0));
        pace.refused(at(43.0), at(43.0));
        let found = pace.at(at(43.0));
        assert!(third > 1.5 * held && found > 0.8 * third, "{held}, {third}, {found}");
    }

    #[test]
    fn the_floor_is_one_call_a_second() {
        let start = Instant::now();
        let mut pace = Pace::new(200.0, Headroom::DEFAULT);
        for n in 0..60 {
            let now = start + Duration::from_millis(1_100 * n);
            (0..pace.refused.len().min(4) + 8).for_each(|_| pace.refused(now - Duration::from_millis(50), now));
        }
        let per_s = pace.at(start + Duration::from_secs(66));
        assert!((1.0..1.5).contains(&per_s), "{per_s}");
    }

    #[test]
    fn after_an_outage_the_pace_doubles_to_where_it_was() {
        let start = Instant::now();
        let mut pace = Pace::new(200.0, Headroom::DEFAULT);
        pace.ramp_up(start);
        let paces: Vec<f64> = (1..=6).map(|n| pace.at(start + RAMP_EVERY * n).round()).collect();
        assert_eq!(paces, [20.0, 40.0, 80.0, 160.0, 200.0, 200.0]);
        pace.refused(start + RAMP_EVERY * 7, start + RAMP_EVERY * 7);
        let later = start + RAMP_EVERY * 8;
        pace.ramp_up(later);
        let paces: Vec<f64> = (1..=6).map(|n| pace.at(later + RAMP_EVERY * n).round()).collect();
        assert_eq!(paces, [20.0, 40.0, 80.0, 96.0, 96.0, 96.0]);
    }
}
