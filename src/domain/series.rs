//! The course of a run for its plots: points in the order of time, in memory that doesn't grow.
//!
//! These are pure values: whoever watches a run notes samples of it, with the time since its start.

use std::time::Duration;

use super::call_stats::{CallsSoFar, Latency, LatencyCounts, RunPhase};
use super::command::{Command, PerCommand};

/// The most points that are kept. Source: the contract of the page.
pub const POINTS_MAX: usize = 600;
/// A point covers at least this time as long as there are few. Chosen: the shortest in which "calls a second" means something.
const FIRST_INTERVAL: Duration = Duration::from_secs(1);

/// Requests in an interval that are no other pace: it begins just before one that leaves and ends just behind another, and two may leave at
/// once. Source: the bucket of the gate.
const AT_THE_EDGES: u64 = 2;

/// What a run does, without the details.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PhaseKind {
    /// It reads or plans; no request leaves.
    Planning,
    Running,
    /// The service refuses requests as too fast.
    Throttled,
    /// The service is down, or the store of a shared quota.
    Waiting,
    /// The run is stopping.
    Draining,
}

impl PhaseKind {
    pub const ALL: [PhaseKind; 5] =
        [PhaseKind::Planning, PhaseKind::Running, PhaseKind::Throttled, PhaseKind::Waiting, PhaseKind::Draining];

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            PhaseKind::Planning => "planning",
            PhaseKind::Running => "running",
            PhaseKind::Throttled => "throttled",
            PhaseKind::Waiting => "waiting",
            PhaseKind::Draining => "draining",
        }
    }
}

impl From<&RunPhase> for PhaseKind {
    fn from(phase: &RunPhase) -> Self {
        match phase {
            RunPhase::Running => PhaseKind::Running,
            RunPhase::Throttled { .. } => PhaseKind::Throttled,
            RunPhase::Waiting { .. } | RunPhase::WaitingForQuota { .. } => PhaseKind::Waiting,
            RunPhase::Draining => PhaseKind::Draining,
        }
    }
}

/// An interval of a run.
#[derive(Debug, Clone)]
pub struct Point {
    /// Since the start of the run.
    pub from: Duration,
    pub to: Duration,
    /// Requests that were sent in it.
    pub calls: PerCommand<u64>,
    /// Requests a second that were allowed, on average; `None` without a limit, or before it is known.
    pub limits: PerCommand<Option<f64>>,
    /// Rows that had their outcome at its end.
    pub rows: u64,
    /// How long each phase lasted, in the order of [`PhaseKind::ALL`].
    times: [Duration; PhaseKind::ALL.len()],
    latency: LatencyCounts,
}

impl Point {
    fn new(from: Duration, rows: u64) -> Self {
        let (times, latency) = ([Duration::ZERO; PhaseKind::ALL.len()], LatencyCounts::default());
        Self { from, to: from, calls: PerCommand::default(), limits: PerCommand::default(), rows, times, latency }
    }

    #[must_use]
    pub fn length(&self) -> Duration {
        self.to.saturating_sub(self.from)
    }

    /// Requests a second. A run that is shorter than a second has as many of them in its second.
    #[must_use]
    pub fn calls_per_s(&self, command: Command) -> f64 {
        let seconds = self.length().max(FIRST_INTERVAL).as_secs_f64();
        let per_s = |calls: u64| calls as f64 / seconds;
        let calls = self.calls[command];
        let is_explained = |limit: &f64| per_s(calls) > *limit && per_s(calls.saturating_sub(AT_THE_EDGES)) <= *limit;
        self.limits[command].filter(is_explained).unwrap_or(per_s(calls))
    }

    /// `None` if no answer came in it.
    #[must_use]
    pub fn latency(&self) -> Option<Latency> {
        self.latency.percentiles()
    }

    /// How long a phase lasted in it.
    #[must_use]
    pub fn time_in(&self, phase: PhaseKind) -> Duration {
        self.times[phase as usize]
    }

    /// The phase to show for it: the one other than running that lasted longest, if it took a third of the time or more.
    #[must_use]
    pub fn phase(&self) -> PhaseKind {
        let others = PhaseKind::ALL.into_iter().filter(|phase| *phase != PhaseKind::Running);
        let longest = others.max_by_key(|phase| self.time_in(*phase)).unwrap_or(PhaseKind::Running);
        if self.time_in(longest) * 3 >= self.length() && !self.length().is_zero() { longest } else { PhaseKind::Running }
    }

    /// Takes in the point that follows.
    fn join(&mut self, next: &Point) {
        let lengths = [self.length().as_secs_f64(), next.length().as_secs_f64()];
        for command in Command::ALL {
            self.calls[command] += next.calls[command];
            self.limits[command] = mean([self.limits[command], next.limits[command]], lengths);
        }
        for (time, more) in self.times.iter_mut().zip(next.times) {
            *time += more;
        }
        self.latency.add(&next.latency);
        (self.to, self.rows) = (next.to, next.rows);
    }
}

/// The mean of two values, weighted; of one, if the other is not known.
fn mean(values: [Option<f64>; 2], weights: [f64; 2]) -> Option<f64> {
    match values {
        [Some(one), Some(other)] if weights[0] + weights[1] > 0.0 => {
            // Of two that are the same this is just that.
            Some(one + (other - one) * weights[1] / (weights[0] + weights[1]))
        }
        [one, other] => other.or(one),
    }
}

/// A moment of a run.
#[derive(Debug)]
pub struct RunMoment<'a> {
    pub phase: PhaseKind,
    /// Rows that have their outcome.
    pub rows: u64,
    /// `None` while no requests are sent. The counts of a later part of the run begin at zero again.
    pub calls: Option<&'a CallsSoFar>,
}

/// The course of a run.
#[derive(Debug, Clone)]
pub struct Series {
    points: Vec<Point>,
    /// The interval that is not over yet.
    open: Point,
    interval: Duration,
    /// The counts of the moment before.
    counted: PerCommand<u64>,
    /// The limits of the moment before.
    allowed: PerCommand<Option<f64>>,
}

impl Series {
    /// A run that begins now, with rows that earlier processes settled.
    #[must_use]
    pub fn new(rows: u64) -> Self {
        let open = Point::new(Duration::ZERO, rows);
        Self { points: Vec::new(), open, interval: FIRST_INTERVAL, counted: PerCommand::default(), allowed: PerCommand::default() }
    }

    /// Notes a sample; `at` is the time since the start of the run.
    pub fn note(&mut self, at: Duration, sample: &RunMoment<'_>) {
        let open = &mut self.open;
        open.times[sample.phase as usize] += at.saturating_sub(open.to);
        open.to = open.to.max(at);
        open.rows = sample.rows;
        if let Some(calls) = sample.calls {
            for command in Command::ALL {
                let now = calls.stats.apis[command].calls;
                open.calls[command] += now.checked_sub(self.counted[command]).unwrap_or(now);
                self.counted[command] = now;
                // Of the limits within an interval the highest is shown, so that no request which it allowed is drawn above it.
                let limits = [open.limits[command], self.allowed[command], calls.limits[command]];
                open.limits[command] = limits.into_iter().flatten().reduce(f64::max);
                self.allowed[command] = calls.limits[command];
            }
            open.latency.add(&calls.latency);
        }
        if open.length() >= self.interval {
            self.close();
        }
    }

    fn close(&mut self) {
        let next = Point::new(self.open.to, self.open.rows);
        self.points.push(std::mem::replace(&mut self.open, next));
        if self.points.len() == POINTS_MAX {
            self.points = self.points.chunks(2).map(joined).collect();
            self.interval *= 2;
        }
    }

    /// The points so far, the one that is not over included: one that is short is a part of the one before, since requests in less than a
    /// second are no pace.
    #[must_use]
    pub fn points(&self) -> Vec<Point> {
        let mut points = self.points.clone();
        let is_short = self.open.length() < (self.interval / 2).max(FIRST_INTERVAL);
        match points.last_mut() {
            Some(last) if is_short => last.join(&self.open),
            _ if self.open.length().is_zero() => {}
            _ => points.push(self.open.clone()),
        }
        points
    }

    /// The points, neighbours joined until there are no more than so many.
    #[must_use]
    pub fn at_most(&self, count: usize) -> Vec<Point> {
        let points = self.points();
        points.chunks(points.len().div_ceil(count.max(1)).max(1)).map(joined).collect()
    }

    /// How long a phase has lasted in all.
    #[must_use]
    pub fn time_in(&self, phase: PhaseKind) -> Duration {
        self.points.iter().chain([&self.open]).map(|point| point.time_in(phase)).sum()
    }
}

fn joined(neighbours: &[Point]) -> Point {
    let [first, rest @ ..] = neighbours else { unreachable!("no chunk is empty") };
    rest.iter().fold(first.clone(), |mut point, next| {
        point.join(next);
        point
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(250);

    /// What a run tells that has sent so many requests to one API.
    fn calls(count: u64, limit: f64, latency_ms: u64) -> CallsSoFar {
        let mut calls = CallsSoFar::default();
        calls.stats.apis[Command::AccountImport].calls = count;
        calls.limits[Command::AccountImport] = Some(limit);
        calls.latency.time(Duration::from_millis(latency_ms));
        calls
    }

    fn note(series: &mut Series, at: Duration, phase: PhaseKind, calls: &CallsSoFar) {
        let rows = calls.stats.apis[Command::AccountImport].calls;
        series.note(at, &RunMoment { phase, rows, calls: Some(calls) });
    }

    /// A run of so many ticks at 200 requests a second.
    fn run(ticks: u32) -> Series {
        let mut series = Series::new(0);
        for tick in 1..=ticks {
            note(&mut series, TICK * tick, PhaseKind::Running, &calls(u64::from(tick) * 50, 200.0, 40));
        }
        series
    }

    fn sum(points: &[Point]) -> u64 {
        points.iter().map(|point| point.calls[Command::AccountImport]).sum()
    }

    #[test]
    fn points_are_few_whatever_the_length_of_the_run_and_lose_no_request() {
        for ticks in [1, 3, 4, 5, 2_399, 2_400, 2_401, 4_800, 100_000] {
            let points = run(ticks).points();
            assert!(!points.is_empty() && points.len() <= POINTS_MAX, "{ticks}: {}", points.len());
            assert_eq!(sum(&points), u64::from(ticks) * 50);
            assert_eq!(points.last().unwrap().rows, u64::from(ticks) * 50);
            assert!(points.windows(2).all(|pair| pair[0].to == pair[1].from && pair[0].rows <= pair[1].rows));
            // Less than a second of requests is no pace: a run that is so short shows their number.
            let per_s = f64::from(ticks.min(4)) * 50.0;
            for point in points {
                assert!((point.calls_per_s(Command::AccountImport) - per_s).abs() < 1e-6, "{ticks}: {point:?}");
                assert_eq!(point.limits[Command::AccountImport], Some(200.0));
                // One digit of 40 ms: 40 and 41 are not told apart.
                assert_eq!(point.latency().map(|latency| (latency.p50, latency.p99)), Some((41, 41)));
            }
        }
        let joined = run(100_000).at_most(60);
        assert!(joined.len() <= 60 && joined.len() > 30);
        assert_eq!(sum(&joined), 5_000_000);
    }

    #[test]
    fn percentiles_of_joined_points_are_those_of_all_answers() {
        let mut series = Series::new(0);
        for second in 1..=10_u32 {
            let latency_ms = if second == 10 { 1_000 } else { 10 };
            note(&mut series, Duration::from_secs(second.into()), PhaseKind::Running, &calls(u64::from(second), 200.0, latency_ms));
        }
        let [whole] = &series.at_most(1)[..] else { panic!("one point") };
        let latency = whole.latency().unwrap();
        assert_eq!(latency.p50, 10);
        assert!((940..=1_060).contains(&latency.p99), "{latency:?}");
    }

    #[test]
    fn a_phase_is_shown_where_it_takes_a_third_of_the_time() {
        let mut series = Series::new(0);
        let mut tick = 0;
        let mut during = |series: &mut Series, ticks: u32, phase: PhaseKind| {
            for _ in 0..ticks {
                tick += 1;
                note(series, TICK * tick, phase, &calls(0, 200.0, 1));
            }
        };
        series.note(Duration::ZERO, &RunMoment { phase: PhaseKind::Planning, rows: 0, calls: None });
        during(&mut series, 4, PhaseKind::Running);
        during(&mut series, 3, PhaseKind::Running);
        during(&mut series, 1, PhaseKind::Waiting);
        during(&mut series, 2, PhaseKind::Running);
        during(&mut series, 2, PhaseKind::Waiting);
        during(&mut series, 4, PhaseKind::Draining);
        let phases: Vec<PhaseKind> = series.points().iter().map(Point::phase).collect();
        assert_eq!(phases, [PhaseKind::Running, PhaseKind::Running, PhaseKind::Waiting, PhaseKind::Draining]);
        assert_eq!(series.time_in(PhaseKind::Waiting), TICK * 3);
        assert_eq!(PhaseKind::ALL.map(|phase| series.time_in(phase)).iter().sum::<Duration>(), TICK * 16);
    }

    #[test]
    fn planning_takes_time_without_requests_and_a_part_that_counts_anew_is_added() {
        let mut series = Series::new(7);
        for second in 1..=3 {
            series.note(Duration::from_secs(second), &RunMoment { phase: PhaseKind::Planning, rows: 7, calls: None });
        }
        note(&mut series, Duration::from_secs(4), PhaseKind::Running, &calls(100, 200.0, 5));
        note(&mut series, Duration::from_secs(5), PhaseKind::Running, &calls(150, 200.0, 5));
        note(&mut series, Duration::from_secs(6), PhaseKind::Running, &calls(20, 200.0, 5));
        let points = series.points();
        assert_eq!(points.iter().map(|point| point.calls[Command::AccountImport]).collect::<Vec<_>>(), [0, 0, 0, 100, 50, 20]);
        assert_eq!(points.iter().map(Point::phase).filter(|phase| *phase == PhaseKind::Planning).count(), 3);
        assert!(points[0].latency().is_none() && points[0].limits[Command::AccountImport].is_none());
    }

    #[test]
    fn a_point_shows_no_pace_that_the_requests_did_not_have() {
        // Three requests in four milliseconds.
        let mut series = Series::new(0);
        note(&mut series, Duration::from_millis(4), PhaseKind::Running, &calls(3, 200.0, 1));
        let [point] = &series.points()[..] else { panic!("one point") };
        assert!((point.calls_per_s(Command::AccountImport) - 3.0).abs() < 1e-9, "{point:?}");
        // A request every 5 ms exactly, the first at once: 203 of them in 1.011 s.
        let mut series = Series::new(0);
        for millis in [253, 506, 759, 1_011, 1_300] {
            note(&mut series, Duration::from_millis(millis), PhaseKind::Running, &calls(millis / 5 + 1, 200.0, 1));
        }
        let paces: Vec<f64> = series.points().iter().map(|point| point.calls_per_s(Command::AccountImport)).collect();
        assert!(paces.iter().all(|pace| *pace <= 200.0), "{paces:?}");
        // What is too much stays so.
        note(&mut series, Duration::from_millis(2_100), PhaseKind::Running, &calls(2_000, 200.0, 1));
        assert!(series.points()[1].calls_per_s(Command::AccountImport) > 1_000.0);
    }

    #[test]
    fn of_limits_that_change_within_a_point_the_highest_is_shown() {
        let mut series = Series::new(0);
        let moments = [(100, 200.0), (140, 90.0), (160, 95.0), (180, 95.0), (200, 95.0), (220, 95.0), (240, 95.0), (260, 100.0)];
        for (tick, (sent, limit)) in (1..).zip(moments) {
            note(&mut series, TICK * tick, PhaseKind::Running, &calls(sent, limit, 40));
        }
        let limits: Vec<f64> = series.points().iter().filter_map(|point| point.limits[Command::AccountImport]).collect();
        assert_eq!(limits, [200.0, 100.0]);
    }

    #[test]
    fn a_last_moment_is_no_point_of_its_own() {
        let mut series = run(8);
        note(&mut series, TICK * 8 + Duration::from_millis(3), PhaseKind::Running, &calls(410, 200.0, 40));
        let points = series.points();
        assert_eq!((points.len(), sum(&points)), (2, 410));
    }
}
