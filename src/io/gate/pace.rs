//! Decides how fast requests leave: at the configured rate, or as fast as the service accepts them.
//!
//! Like CUBIC for TCP, the pace remembers the rate at which requests were refused, returns close to it quickly, and exceeds it slowly at
//! first, then ever faster. After a refusal it falls to the rate that got through, as in the adaptive mode of the AWS SDKs. It has no
//! clock: the caller passes the time, and when requests left and were refused. The constants were chosen by simulation against the limiters
//! of `benches/pace`. Where processes share a limit, `io/quota/quota.lua` follows the same rule for all of them: a change here belongs there.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::bucket::Leaving;
use super::{Headroom, SECOND};

/// The slowest pace that refusals lead to, in requests per second. Source: the contract of the gate.
const FLOOR_PER_S: f64 = 1.0;
/// After a refusal at a pace that had been accepted so far, this share of the throughput is kept: others have started to use the limit.
const FALL: f64 = 0.96;
/// How long a pace is held after a test of a higher one was refused: that one is known to be too high.
const HOLD_CONFIRMED: Duration = Duration::from_millis(8_500);
/// How long a pace is held after a first refusal, while the limit is not known yet.
const HOLD: Duration = Duration::from_secs(4);
/// A pace is held longer if a refusal is a large share of the requests: by the time of this many requests, at most this many seconds.
const HOLD_MORE_CALLS: (f64, f64) = (20.0, 6.0);
const HOLD_MORE_CALLS_CONFIRMED: (f64, f64) = (40.0, 12.0);
/// A refusal whose throughput is within this factor of the last one confirms it.
const NEAR: f64 = 1.15;
/// How often a test raises the pace.
const STEP: Duration = Duration::from_millis(100);
/// A test raises the pace by this share of the configured rate per second, so that of two clients with one limit the slower gains more.
const GAIN: f64 = 0.01;
/// That gain is at most this share of the current pace.
const GAIN_MAX: f64 = 0.04;
/// If this is more, slow paces may gain this many requests per second, so that the slower of two slow clients catches up too.
const GAIN_LEAST_PER_S: f64 = 0.1;
/// A test also raises the pace by this share of itself per second, more the longer nothing is refused. Each entry applies for
/// [`GROWTH_EACH`], the last one for good.
const GROWTH: [f64; 5] = [0.0, 0.03, 0.1, 0.2, 0.3];
const GROWTH_EACH: Duration = Duration::from_secs(3);
/// A refusal within this time after the end of the last event is a consequence of that event's result.
const FOLLOWS: Duration = Duration::from_secs(3);
/// A refused test says nothing new if the requests above the known pace were no more than the service accepts at once: that many times the
/// first number plus the second, at less than [`SLACK_PACE`] times the known pace.
const SLACK: (f64, f64) = (1.3, 2.0);
const SLACK_PACE: f64 = 2.0;
/// The known pace grows by this factor then, so that it cannot stay too low for ever.
const SLACK_GAIN: f64 = 1.005;
/// A pace that has been back at the configured rate for this long without a refusal is considered free of any lower limit.
const FREE_AFTER: Duration = Duration::from_secs(10);
/// While a pace is held, single refusals are caused by the network's jitter: one per second for each of these many requests per second.
const LONE_REFUSAL_PER_S: f64 = 120.0;
/// Throughput is counted over a second, or over the time of this many requests if that is longer, but at most over [`COUNTED_MAX_S`].
const COUNTED_CALLS: f64 = 5.0;
const COUNTED_MAX_S: f64 = 5.0;
/// If fewer requests left than this share of the pace allows, their number says nothing about the limit: there was not enough to send.
const USED: f64 = 0.8;
/// Below this pace, in requests per second, counting is too coarse, and the refused pace itself is the better estimate.
const COARSE_PER_S: f64 = 20.0;
/// How long a request is remembered. Source: the longest count, and the default timeout of a request.
const REMEMBERED: Duration = Duration::from_secs(15);
/// How many requests are remembered at most. Chosen: all of that time at 2,000/s.
const REMEMBERED_MAX: usize = 32_768;
/// After an outage the pace starts at this rate and is multiplied by [`RAMP`] every [`RAMP_EVERY`].
const RAMP_FROM_PER_S: f64 = 10.0;
const RAMP: f64 = 2.0;
const RAMP_EVERY: Duration = Duration::from_secs(1);

/// The phase that the pace is in.
#[derive(Debug, Clone, Copy, PartialEq)]
enum PacePhase {
    /// At the configured rate.
    Free,
    /// Held below the rate that was refused.
    Hold { until: Instant },
    /// To find out what is accepted, the pace has been rising since `since`, and was last raised at `at`.
    Raise { since: Instant, at: Instant },
    /// After an outage: the pace doubles until it reaches the one before the outage.
    Ramp { at: Instant, to_per_s: f64 },
}

/// The kind of the last reduction.
#[derive(Debug, Clone, Copy, PartialEq)]
enum LastReduction {
    /// A test was refused, and the pace fell to the measured throughput.
    ToMeasured,
    /// A test was refused because the service's bucket was full, and the pace fell to the known throughput.
    ToKnown,
    /// It was no test, or a test's result was refused as well.
    Otherwise,
}

/// The pace of one API.
#[derive(Debug)]
pub(super) struct Pace {
    limit_per_s: f64,
    headroom: Headroom,
    per_s: f64,
    phase: PacePhase,
    /// The throughput at the last refusal.
    ceiling_per_s: Option<f64>,
    /// Whether a test close to an earlier ceiling found this one too.
    is_confirmed: bool,
    /// The pace after the last reduction.
    held_per_s: f64,
    last_reduction: LastReduction,
    /// Requests of the current or last test that exceeded the ceiling.
    above: f64,
    /// How many requests the service accepts at once above its limit (a bucket). Known once the result of a test was refused at once.
    slack: Option<f64>,
    /// Refusals of requests that left before this time belong to the last event.
    event_until: Option<Instant>,
    below_rate_at: Option<Instant>,
    left: VecDeque<Instant>,
    throttled: VecDeque<Instant>,
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
            last_reduction: LastReduction::Otherwise,
            above: 0.0,
            slack: None,
            event_until: None,
            below_rate_at: None,
            left: VecDeque::new(),
            throttled: VecDeque::new(),
        }
    }

    /// The pace at `now`, in requests per second.
    pub(super) fn advance_to(&mut self, now: Instant) -> f64 {
        match self.phase {
            PacePhase::Hold { until } if now >= until => self.phase = PacePhase::Raise { since: until, at: until },
            PacePhase::Free | PacePhase::Hold { .. } | PacePhase::Raise { .. } => {}
            PacePhase::Ramp { at, to_per_s } => self.ramp(at, to_per_s, now),
        }
        if let PacePhase::Raise { since, at } = self.phase {
            self.raise(since, at, now);
        }
        self.per_s
    }

    pub(super) const fn limit_per_s(&self) -> f64 {
        self.limit_per_s
    }

    pub(super) const fn leaving(&self) -> Leaving {
        leaving(self.ceiling_per_s)
    }

    /// The throughput in requests per second at the last refusal.
    pub(super) const fn ceiling_per_s(&self) -> Option<f64> {
        self.ceiling_per_s
    }

    /// The pace as it was last asked for; `None` if it is the configured rate.
    pub(super) fn tested_per_s(&self) -> Option<f64> {
        (self.per_s < self.limit_per_s).then_some(self.per_s)
    }

    /// Whether the service has slowed this run below its configured rate.
    pub(super) fn is_slowed(&self) -> bool {
        self.ceiling_per_s.is_some() && self.phase != PacePhase::Free
    }

    /// Records that requests left.
    pub(super) fn sent(&mut self, calls: usize, now: Instant) {
        self.left.extend(std::iter::repeat_n(now, calls));
        forget(&mut self.left, now);
    }

    /// Records that the service refused a request as too fast. All requests that were in flight then, and those that leave while the
    /// service's window still contains the faster ones, belong to one event.
    pub(super) fn on_throttled(&mut self, left: Instant, now: Instant) {
        self.throttled.push_back(left);
        forget(&mut self.throttled, now);
        if self.event_until.is_some_and(|until| left < until) || self.is_lone(left) {
            return;
        }
        self.advance_to(now);
        let is_raise = matches!(self.phase, PacePhase::Raise { .. });
        let known_per_s = if is_raise { self.known_per_s() } else { None };
        let through_per_s = known_per_s.unwrap_or_else(|| self.through_per_s(left));
        self.learn_slack(now);
        self.last_reduction = match (is_raise, known_per_s) {
            (true, None) => LastReduction::ToMeasured,
            (true, Some(_)) => LastReduction::ToKnown,
            (false, _) => LastReduction::Otherwise,
        };
        self.is_confirmed = self.confirms(through_per_s, is_raise, now);
        self.ceiling_per_s = Some(through_per_s);
        let kept = self.headroom.kept();
        let fall = if is_raise { kept } else { FALL.min(kept + (FALL - Headroom::DEFAULT.kept())) };
        self.per_s = (through_per_s * fall).max(FLOOR_PER_S.min(self.limit_per_s));
        self.held_per_s = self.per_s;
        self.event_until = Some(now + SECOND);
        self.phase = PacePhase::Hold { until: now + self.hold(through_per_s) };
    }

    /// Records the end of an outage.
    pub(super) fn ramp_up(&mut self, now: Instant) {
        let to_per_s = match self.phase {
            PacePhase::Free => self.limit_per_s,
            PacePhase::Hold { .. } | PacePhase::Raise { .. } => self.per_s,
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

    fn raise(&mut self, since: Instant, mut at: Instant, now: Instant) {
        if at == since {
            self.above = 0.0;
            if self.last_reduction == LastReduction::ToMeasured {
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
        self.phase = if is_free { PacePhase::Free } else { PacePhase::Raise { since, at } };
    }

    /// The known throughput, if this test was refused only because the service's bucket was full, like the test before.
    fn known_per_s(&self) -> Option<f64> {
        let (ceiling_per_s, slack, (times, calls)) = (self.ceiling_per_s?, self.slack?, SLACK);
        let is_known = self.above <= slack * times + calls && self.per_s < SLACK_PACE * ceiling_per_s;
        is_known.then(|| (ceiling_per_s * SLACK_GAIN).min(self.per_s))
    }

    /// Learns the size of the service's bucket: if the result of a test is refused too, the test had succeeded only because the bucket was
    /// empty.
    fn learn_slack(&mut self, now: Instant) {
        let follows = self.event_until.is_some_and(|until| now < until + FOLLOWS);
        if matches!(self.phase, PacePhase::Hold { .. }) && self.last_reduction != LastReduction::Otherwise && follows {
            self.slack = Some(self.above);
        }
    }

    /// Whether this refusal is one of the few that jitter causes while a pace is held.
    fn is_lone(&self, left: Instant) -> bool {
        let PacePhase::Hold { .. } = self.phase else { return false };
        let lately = self.throttled.iter().filter(|at| **at + SECOND > left).count();
        lately as f64 <= (self.per_s / LONE_REFUSAL_PER_S).floor()
    }

    /// The throughput in requests per second when this refused request left.
    fn through_per_s(&self, left: Instant) -> f64 {
        let counted_s = (COUNTED_CALLS / self.per_s).clamp(1.0, COUNTED_MAX_S);
        let counted = Duration::from_secs_f64(counted_s);
        let within = |times: &VecDeque<Instant>| times.iter().rev().filter(|at| **at <= left && **at + counted > left).count() as f64;
        let (sent, throttled) = (within(&self.left), within(&self.throttled));
        let mut through_per_s = ((sent - throttled) / counted_s).max(FLOOR_PER_S / 2.0);
        if sent < USED * self.per_s * counted_s {
            through_per_s = through_per_s.max(self.per_s / 2.0);
        }
        if let PacePhase::Raise { since, at } = self.phase {
            // The pace that was held before this test got through, so the throughput was at least that.
            through_per_s = through_per_s.max(self.held_per_s / self.headroom.kept());
            if self.per_s < COARSE_PER_S && at - since < GROWTH_EACH * 2 {
                through_per_s = through_per_s.max(0.98 * self.per_s);
            }
        }
        through_per_s.min(self.per_s)
    }

    fn confirms(&self, through_per_s: f64, is_raise: bool, now: Instant) -> bool {
        let Some(before_per_s) = self.ceiling_per_s else { return false };
        let follows = self.event_until.is_some_and(|until| now < until + FOLLOWS);
        let is_near = through_per_s < NEAR * before_per_s && through_per_s * NEAR > before_per_s;
        (is_raise && self.per_s < NEAR * before_per_s) || (self.is_confirmed && follows && is_near)
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

/// Whether requests may leave together, given the throughput at the last refusal if there was one.
pub(super) const fn leaving(ceiling_per_s: Option<f64>) -> Leaving {
    if ceiling_per_s.is_some() { Leaving::Single } else { Leaving::Together }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests leave evenly at the pace from `from_s` to `to_s`, in seconds after the start.
    fn send(pace: &mut Pace, start: Instant, (from_s, to_s): (f64, f64)) {
        let mut at_s = from_s;
        while at_s < to_s {
            let now = start + Duration::from_secs_f64(at_s);
            let per_s = pace.advance_to(now);
            pace.sent(1, now);
            at_s += 1.0 / per_s;
        }
    }

    #[test]
    fn a_burst_of_refusals_is_one_event_and_the_pace_falls_to_the_throughput() {
        let start = Instant::now();
        let mut pace = Pace::new(200.0, Headroom::DEFAULT);
        send(&mut pace, start, (0.0, 2.0));
        // Of 200 requests in a second the last hundred are refused, all within 200 ms.
        for n in 0..100 {
            pace.on_throttled(start + Duration::from_millis(1_500 + 5 * n), start + Duration::from_millis(2_100 + n));
        }
        let reduced = pace.advance_to(start + Duration::from_millis(2_200));
        assert!((180.0..200.0).contains(&reduced), "at the first refusal almost all got through: {reduced}");
        send(&mut pace, start, (2.2, 3.3));
        pace.on_throttled(start + Duration::from_millis(3_200), start + Duration::from_millis(3_250));
        let per_s = pace.advance_to(start + Duration::from_millis(3_300));
        assert!((per_s - reduced).abs() < 0.1, "a single refusal is jitter: {per_s}");
        pace.on_throttled(start + Duration::from_millis(3_250), start + Duration::from_millis(3_300));
        let per_s = pace.advance_to(start + Duration::from_millis(3_300));
        assert!(per_s < reduced, "two that left a second later are a new event: {per_s}");
    }

    #[test]
    fn the_throughput_is_held_then_exceeded_slowly_then_ever_faster() {
        let start = Instant::now();
        let mut pace = Pace::new(200.0, Headroom::DEFAULT);
        pace.on_throttled(start, start);
        let at = |pace: &mut Pace, s: f64| pace.advance_to(start + Duration::from_secs_f64(s));
        assert!((at(&mut pace, 0.0) - 96.0).abs() < 0.1, "it is only known that 200 is too much");
        assert!((at(&mut pace, 4.0) - 96.0).abs() < 0.1, "it is held");
        let (soon, later, late) = (at(&mut pace, 7.2), at(&mut pace, 10.2), at(&mut pace, 16.0));
        assert!((100.0..104.0).contains(&soon) && (112.0..124.0).contains(&later), "{soon}, {later}");
        assert!((late - 200.0).abs() < 0.1, "{late}");
        assert!(pace.is_slowed());
        at(&mut pace, 40.0);
        assert!(!pace.is_slowed(), "back at its rate without a refusal");
    }

    #[test]
    fn after_a_failed_test_the_pace_is_below_the_one_that_held() {
        for (headroom, kept) in [(Headroom::DEFAULT, 0.95), (Headroom::percent(20).unwrap(), 0.80)] {
            let start = Instant::now();
            let mut pace = Pace::new(200.0, headroom);
            pace.on_throttled(start, start);
            send(&mut pace, start, (0.0, 7.5));
            let now = start + Duration::from_millis(7_500);
            let tested = pace.advance_to(now);
            pace.on_throttled(now, now);
            let held = pace.advance_to(now);
            assert!(held <= kept * tested && held > (kept - 0.03) * tested, "{tested}, {held}");
        }
    }

    #[test]
    fn a_bucket_is_learnt_once_and_exceeding_it_is_a_new_limit() {
        let start = Instant::now();
        let at = |s: f64| start + Duration::from_secs_f64(s);
        let mut pace = Pace::new(200.0, Headroom::DEFAULT);
        pace.on_throttled(start, start);
        send(&mut pace, start, (0.0, 10.0));
        let first = pace.advance_to(at(10.0));
        pace.on_throttled(at(10.0), at(10.0));
        assert!(pace.advance_to(at(10.0)) > 0.9 * first, "only the throughput is known");
        send(&mut pace, start, (10.0, 11.1));
        (0..10).for_each(|_| pace.on_throttled(at(11.05), at(11.1)));
        let held = pace.advance_to(at(11.1));
        send(&mut pace, start, (11.1, 21.3));
        let second = pace.advance_to(at(21.3));
        assert!(second > 1.1 * held, "{held}, {second}");
        pace.on_throttled(at(21.3), at(21.3));
        let known = pace.advance_to(at(21.3));
        assert!(known < 1.02 * held && known > 0.95 * held, "{held}, {second}, {known}");
        send(&mut pace, start, (21.3, 43.0));
        let third = pace.advance_to(at(43.0));
        pace.on_throttled(at(43.0), at(43.0));
        let found = pace.advance_to(at(43.0));
        assert!(third > 1.5 * held && found > 0.8 * third, "{held}, {third}, {found}");
    }

    #[test]
    fn the_slowest_pace_is_one_request_a_second() {
        let start = Instant::now();
        let mut pace = Pace::new(200.0, Headroom::DEFAULT);
        for n in 0..60 {
            let now = start + Duration::from_millis(1_100 * n);
            (0..pace.throttled.len().min(4) + 8).for_each(|_| pace.on_throttled(now - Duration::from_millis(50), now));
        }
        let per_s = pace.advance_to(start + Duration::from_secs(66));
        assert!((1.0..1.5).contains(&per_s), "{per_s}");
    }

    #[test]
    fn after_an_outage_the_pace_doubles_to_where_it_was() {
        let start = Instant::now();
        let mut pace = Pace::new(200.0, Headroom::DEFAULT);
        pace.ramp_up(start);
        let paces: Vec<f64> = (1..=6).map(|n| pace.advance_to(start + RAMP_EVERY * n).round()).collect();
        assert_eq!(paces, [20.0, 40.0, 80.0, 160.0, 200.0, 200.0]);
        pace.on_throttled(start + RAMP_EVERY * 7, start + RAMP_EVERY * 7);
        let later = start + RAMP_EVERY * 8;
        pace.ramp_up(later);
        let paces: Vec<f64> = (1..=6).map(|n| pace.advance_to(later + RAMP_EVERY * n).round()).collect();
        assert_eq!(paces, [20.0, 40.0, 80.0, 96.0, 96.0, 96.0]);
    }
}
