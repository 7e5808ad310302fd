//! The axes of a plot: where its round ticks are, and how they are labelled.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};

use crate::domain::figures;

/// Steps between ticks of time, in seconds. Chosen: what clocks and calendars have.
const TIME_STEPS_S: [u32; 24] = [
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400, 172_800, 432_000, 864_000, 1_728_000,
    4_320_000, 8_640_000,
];
const MINUTE_S: u32 = 60;
const HOUR_S: u32 = 3_600;
const DAY_S: u32 = 86_400;
/// A logarithmic axis has labels at 1, 2 and 5 of each decade up to so many decades, and then at 1 alone. Chosen: they don't touch.
const DECADES_WITH_STEPS: f64 = 2.1;
/// Room above the largest value. Chosen: a line does not touch the frame.
const HEADROOM: f64 = 1.08;

/// An axis with its ticks.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    from: f64,
    to: f64,
    is_logarithmic: bool,
    pub(super) ticks: Vec<(f64, String)>,
}

impl Axis {
    /// Time since the start, in seconds, with at most so many ticks besides 0.
    pub(super) fn time(to_s: f64, ticks_max: u32) -> Self {
        let to = to_s.max(1.0);
        let is_enough = |step: &&u32| to / f64::from(**step) <= f64::from(ticks_max);
        let step = *TIME_STEPS_S.iter().find(is_enough).unwrap_or(&TIME_STEPS_S[TIME_STEPS_S.len() - 1]);
        let (unit_s, unit) = match step {
            DAY_S.. => (DAY_S, "d"),
            HOUR_S.. => (HOUR_S, "h"),
            MINUTE_S.. => (MINUTE_S, "min"),
            _ => (1, "s"),
        };
        let label = |at: f64| if at == 0.0 { "0".to_owned() } else { format!("{} {unit}", rounded(at / f64::from(unit_s))) };
        Self { from: 0.0, to, is_logarithmic: false, ticks: ticks(to, f64::from(step), label) }
    }

    /// Numbers from 0, with a step of 1, 2 or 5 times a power of ten; not below `step_min`.
    pub(super) fn numbers(largest: f64, step_min: f64) -> Self {
        const TICKS: f64 = 4.0;
        let largest = largest.max(step_min) * HEADROOM;
        let magnitude = 10_f64.powf((largest / TICKS).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|times| times * magnitude).into_iter().find(|step| largest / step <= TICKS);
        let step = step.unwrap_or(10.0 * magnitude).max(step_min);
        let to = largest.max(step);
        Self { from: 0.0, to, is_logarithmic: false, ticks: ticks(to, step, number) }
    }

    /// Milliseconds between the two, on a logarithmic scale.
    pub(super) fn milliseconds(smallest: f64, largest: f64) -> Self {
        let (smallest, largest) = (smallest.max(1.0), largest.max(2.0));
        let steps: Vec<f64> = (0..=7).flat_map(|decade| [1.0, 2.0, 5.0].map(|times| times * 10_f64.powi(decade))).collect();
        let from = steps.iter().copied().rfind(|step| *step <= smallest).unwrap_or(1.0);
        let to = steps.iter().copied().find(|step| *step >= largest && *step > from).unwrap_or(1e8);
        let is_decade = |step: f64| step.log10().fract().abs() < 1e-9;
        let is_wide = (to / from).log10() > DECADES_WITH_STEPS;
        let within = steps.into_iter().filter(|step| (from..=to).contains(step) && (!is_wide || is_decade(*step)));
        Self { from, to, is_logarithmic: true, ticks: within.map(|step| (step, milliseconds(step))).collect() }
    }

    pub(super) fn label(&self, at: f64) -> String {
        self.ticks.iter().find(|(tick, _)| (tick - at).abs() < f64::EPSILON).map_or(String::new(), |(_, label)| label.clone())
    }

    pub(super) const fn from(&self) -> f64 {
        self.from
    }

    pub(super) const fn to(&self) -> f64 {
        self.to
    }

    /// Where a value is between the ends, from 0 to 1.
    fn share(&self, value: f64) -> f64 {
        let share = if self.is_logarithmic {
            (value.max(self.from) / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        share.clamp(0.0, 1.0)
    }
}

fn ticks(to: f64, step: f64, label: impl Fn(f64) -> String) -> Vec<(f64, String)> {
    // The steps are so chosen that there are few.
    (0_u32..64).map(|nth| f64::from(nth) * step).take_while(|at| *at <= to * (1.0 + 1e-9)).map(|at| (at, label(at))).collect()
}

fn rounded(value: f64) -> String {
    format!("{value:.0}")
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "ticks are not negative, and below 2^53")]
fn number(at: f64) -> String {
    if at.fract().abs() > 1e-9 { format!("{at:.1}") } else { figures::count(at.round() as u64) }
}

fn milliseconds(at: f64) -> String {
    if at >= 1_000.0 { format!("{} s", rounded(at / 1_000.0)) } else { format!("{} ms", rounded(at)) }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    #[expect(clippy::cast_possible_truncation, reason = "it is within the limits")]
    fn map(&self, value: &f64, limits: (i32, i32)) -> i32 {
        limits.0 + (f64::from(limits.1 - limits.0) * self.share(*value)).round() as i32
    }

    fn key_points<H: KeyPointHint>(&self, _: H) -> Vec<f64> {
        self.ticks.iter().map(|(at, _)| *at).collect()
    }

    fn range(&self) -> Range<f64> {
        self.from..self.to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(labels(&Axis::time(0.0, 8)), ["0", "1 s"]);
        assert_eq!(labels(&Axis::time(52.0, 8)), ["0", "10 s", "20 s", "30 s", "40 s", "50 s"]);
        assert_eq!(labels(&Axis::time(7_000.0, 4)), ["0", "30 min", "60 min", "90 min"]);
        assert_eq!(labels(&Axis::time(500_000.0, 8)), ["0", "1 d", "2 d", "3 d", "4 d", "5 d"]);
        assert_eq!(labels(&Axis::numbers(200.0, 1.0)), ["0", "100", "200"]);
        assert_eq!(labels(&Axis::numbers(0.0, 1.0)), ["0", "1"]);
        assert_eq!(labels(&Axis::numbers(1_000_000.0, 1.0)), ["0", "500,000", "1,000,000"]);
        assert_eq!(labels(&Axis::milliseconds(12.0, 90.0)), ["10 ms", "20 ms", "50 ms", "100 ms"]);
        assert_eq!(labels(&Axis::milliseconds(1.0, 9_000.0)), ["1 ms", "10 ms", "100 ms", "1 s", "10 s"]);
        for largest in 1_u32..2_000 {
            let axis = Axis::numbers(f64::from(largest), 1.0);
            assert!((2..=6).contains(&axis.ticks.len()), "{largest}: {axis:?}");
        }
        for to in (1_u32..10_000_000).step_by(7_919) {
            assert!(Axis::time(f64::from(to), 6).ticks.len() <= 7, "{to}");
        }
    }
}
