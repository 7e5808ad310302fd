//! The plots of a run: which lines they have, and how they are told to somebody who does not see them.

use std::time::Duration;

use plotters::style::RGBColor;

use super::axis::Axis;
use super::plot::{Chart, FIRST, FORECAST, FOURTH, Form, LIMIT, Line, NARROW, PhaseSpan, SECOND, THIRD, WIDE, attribute, shade};
use crate::domain::command::Command;
use crate::domain::figures;
use crate::domain::series::{PhaseKind, Point};

/// APIs that get a line of their own. Chosen: as many as there are colours that can be told apart.
const APIS_MAX: usize = 4;
/// Less is not drawn as a pace.
const ONE_SECOND: Duration = Duration::from_secs(1);
/// The forecast is drawn over at most so many times what has passed; its words say the rest. Chosen: what has happened keeps a third of the
/// plot.
const AHEAD_MOST: f64 = 2.0;
/// A limit that is this much off the last one is drawn as another one, in requests a second. Chosen: less than a line is wide.
const SAME_LIMIT: f64 = 0.5;

/// A plot, ready for the page.
#[derive(Debug)]
pub(super) struct Plot {
    /// For the ids of its elements.
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// What it shows, in a sentence.
    pub(super) description: String,
    pub(super) drawings: [Drawing; 2],
    pub(super) legend: Vec<Legend>,
}

/// A plot in one form.
#[derive(Debug)]
pub(super) struct Drawing {
    /// The class of the stylesheet that shows it where it fits.
    pub(super) class: &'static str,
    pub(super) view_box: String,
    pub(super) svg: String,
}

/// What a line is.
#[derive(Debug)]
pub(super) struct Legend {
    /// Its colour, by which the stylesheet knows it.
    pub(super) colour: String,
    pub(super) words: String,
}

impl Legend {
    fn new(key: RGBColor, words: impl Into<String>) -> Self {
        Self { colour: attribute(key), words: words.into() }
    }
}

/// Where a run is going that is not over.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowsForecast {
    pub(super) left: Duration,
    pub(super) rows_total: u64,
}

/// What a run gets done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unit {
    pub(super) noun: &'static str,
    /// The verb, in the past.
    pub(super) done: &'static str,
}

/// The plots of these points; so much was done when the first one began.
pub(super) fn plots(points: &[Point], before: (u64, Unit), forecast: Option<RowsForecast>) -> Vec<Plot> {
    let Some(last) = points.last() else { return Vec::new() };
    let (to_s, spans) = (last.to.as_secs_f64(), spans(points));
    let mut plots = vec![calls(points, to_s, &spans), rows((points, before), forecast, &spans)];
    plots.extend(latency(points, to_s, &spans));
    plots
}

/// The phases other than running, one after the other.
pub(super) fn spans(points: &[Point]) -> Vec<PhaseSpan> {
    let mut spans: Vec<PhaseSpan> = Vec::new();
    for point in points {
        let (phase, from_s, to_s) = (point.phase(), point.from.as_secs_f64(), point.to.as_secs_f64());
        match spans.last_mut() {
            Some(last) if last.phase == phase => last.to_s = to_s,
            _ => spans.push(PhaseSpan { phase, from_s, to_s }),
        }
    }
    spans.retain(|span| span.phase != PhaseKind::Running);
    spans
}

/// The phases that are shaded in the plots, each with its colour and what it means.
pub(super) fn shades(points: &[Point]) -> Vec<Legend> {
    let spans = spans(points);
    let is_there = |phase: &PhaseKind| spans.iter().any(|span| span.phase == *phase);
    let legend = |phase: PhaseKind| Some(Legend::new(shade(phase)?, format!("{}: {}", phase.name(), phase_words(phase))));
    PhaseKind::ALL.into_iter().filter(is_there).filter_map(legend).collect()
}

const fn phase_words(phase: PhaseKind) -> &'static str {
    match phase {
        PhaseKind::Planning => "no request leaves yet",
        PhaseKind::Running => "requests get through",
        PhaseKind::Throttled => "the service refuses requests as too fast",
        PhaseKind::Waiting => "the service is down, or the store of a shared limit",
        PhaseKind::Draining => "the run is stopping",
    }
}

/// The APIs that were called, the most called first.
pub(super) fn called(points: &[Point]) -> Vec<(Command, u64)> {
    let of = |command: Command| points.iter().map(|point| point.calls[command]).sum();
    let mut apis: Vec<(Command, u64)> = Command::ALL.map(|command| (command, of(command))).into();
    apis.retain(|(_, calls)| *calls > 0);
    apis.sort_by_key(|(_, calls)| std::cmp::Reverse(*calls));
    apis
}

fn calls(points: &[Point], to_s: f64, spans: &[PhaseSpan]) -> Plot {
    let apis: Vec<(Command, u64)> = called(points).into_iter().take(APIS_MAX).collect();
    let (mut lines, mut legend, mut limits_s) = (Vec::new(), Vec::new(), Vec::new());
    for (&(command, count), key) in apis.iter().zip([FIRST, SECOND, THIRD, FOURTH]) {
        let limit = limit(points, command);
        let highest = limit.iter().flatten().map(|(_, limit)| *limit).fold(0.0, f64::max);
        if highest > 0.0 && limits_s.iter().all(|known: &f64| (known - highest).abs() > SAME_LIMIT) {
            lines.push(Line { key: LIMIT, pieces: limit });
            limits_s.push(highest);
        }
        lines.push(Line { key, pieces: vec![stairs(points, |point| point.calls_per_s(command))] });
        legend.push(Legend::new(key, format!("{}, {}", command.name(), figures::counted(count, "request"))));
    }
    if !limits_s.is_empty() {
        legend.push(Legend::new(LIMIT, "rate limit: as it is set, or as it is found where the service refuses more"));
    }
    let sent = apis.iter().flat_map(|(command, _)| points.iter().map(|point| point.calls_per_s(*command))).fold(0.0, f64::max);
    let highest = lines.iter().flat_map(|line| line.pieces.iter().flatten()).map(|(_, value)| *value).fold(0.0, f64::max);
    let counts: Vec<String> =
        apis.iter().map(|(command, count)| format!("{} to {}", figures::counted(*count, "request"), command.name())).collect();
    let over = figures::duration(Duration::from_secs_f64(to_s));
    let limits = match &limits_s.iter().map(|limit| figures::rate(*limit)).collect::<Vec<_>>()[..] {
        [] => String::new(),
        [limit] => format!(" The rate limit is drawn in; it is {limit} a second at its highest."),
        limits => format!(" The rate limits are drawn in; they are {} a second at their highest.", limits.join(" and ")),
    };
    let description = if counts.is_empty() {
        format!("Requests a second to each API over {over}: none were sent.")
    } else {
        let (counts, sent) = (counts.join(", "), figures::rate(sent));
        format!("Requests a second to each API over {over}: {counts}; at most {sent} a second.{limits}")
    };
    let chart = Chart { to_s, values: Axis::numbers(highest, 1.0), lines, spans: spans.to_vec() };
    plot("calls", "Requests a second", description, (&chart, legend))
}

/// A line that stays at a value for the whole of each point, and for a second at least: the area below it is the number of requests.
fn stairs(points: &[Point], value: impl Fn(&Point) -> f64) -> Vec<(f64, f64)> {
    let ends = |point: &Point| [point.from, point.to.max(point.from + ONE_SECOND)];
    points.iter().flat_map(|point| ends(point).map(|at| (at.as_secs_f64(), value(point)))).collect()
}

/// The limit of an API while it is known.
fn limit(points: &[Point], command: Command) -> Vec<Vec<(f64, f64)>> {
    let known = points.split(|point| point.limits[command].is_none()).filter(|points| !points.is_empty());
    let mut pieces: Vec<Vec<(f64, f64)>> = known.map(|points| stairs(points, |point| point.limits[command].unwrap_or_default())).collect();
    for piece in &mut pieces {
        straightened(piece);
    }
    pieces
}

/// Leaves out the places between two that have the same value.
fn straightened(piece: &mut Vec<(f64, f64)>) {
    let values: Vec<f64> = piece.iter().map(|(_, value)| *value).collect();
    let is_same = |one: usize, other: usize| values.get(one).zip(values.get(other)).is_some_and(|(one, other)| (one - other).abs() < 1e-9);
    let mut place = 0;
    piece.retain(|_| {
        let is_between = place > 0 && is_same(place - 1, place) && is_same(place, place + 1);
        place += 1;
        !is_between
    });
}

fn rows((points, (rows_before, unit)): (&[Point], (u64, Unit)), forecast: Option<RowsForecast>, spans: &[PhaseSpan]) -> Plot {
    let (first, last) = (&points[0], &points[points.len() - 1]);
    let start = (first.from.as_secs_f64(), rows_before as f64);
    let done: Vec<(f64, f64)> = [start].into_iter().chain(points.iter().map(|point| (point.to.as_secs_f64(), point.rows as f64))).collect();
    let now = (last.to.as_secs_f64(), last.rows as f64);
    let mut lines = vec![Line { key: FIRST, pieces: vec![done] }];
    let mut legend = vec![Legend::new(FIRST, format!("{} {}", figures::counted(last.rows, unit.noun), unit.done))];
    let (mut to_s, mut most) = now;
    let mut ahead = String::new();
    if let Some(RowsForecast { left, rows_total }) = forecast {
        let left_s = left.as_secs_f64();
        let drawn_s = left_s.min(AHEAD_MOST * now.0.max(1.0));
        let share = if left_s > 0.0 { drawn_s / left_s } else { 1.0 };
        let end = (now.0 + drawn_s, now.1 + (rows_total as f64 - now.1).max(0.0) * share);
        (to_s, most) = (end.0, most.max(end.1));
        lines.push(Line { key: FORECAST, pieces: vec![vec![now, end]] });
        ahead = format!(" The forecast is {} in about {}.", figures::counted(rows_total, unit.noun), whole(left));
        legend.push(Legend::new(FORECAST, format!("forecast: {} more", whole(left))));
    }
    let title = if unit.noun == "row" { "Rows processed" } else { "UserIDs asked" };
    let after = figures::duration(Duration::from_secs_f64(now.0));
    let description = format!("{} {} after {after}.{ahead}", figures::counted(last.rows, unit.noun), unit.done);
    let chart = Chart { to_s, values: Axis::numbers(most, 1.0), lines, spans: spans.to_vec() };
    plot("rows", title, description, (&chart, legend))
}

/// A duration without tenths of a second.
pub(super) fn whole(time: Duration) -> String {
    figures::duration(Duration::from_secs(time.as_secs()))
}

fn latency(points: &[Point], to_s: f64, spans: &[PhaseSpan]) -> Option<Plot> {
    let known: Vec<_> = points.iter().map(|point| (point, point.latency())).collect();
    let all = || known.iter().filter_map(|(_, latency)| *latency);
    let (smallest, largest) = (all().map(|latency| latency.p50).min()?, all().map(|latency| latency.p99).max()?);
    let line = |key: RGBColor, value: fn(&crate::domain::call_stats::Latency) -> u64| {
        let pieces = known.split(|(_, latency)| latency.is_none()).filter(|piece| !piece.is_empty());
        let middle = |point: &Point| (point.from + point.length() / 2).as_secs_f64();
        let places = |piece: &[(&Point, Option<_>)]| -> Vec<(f64, f64)> {
            let mut places: Vec<_> = piece
                .iter()
                .filter_map(|(point, latency)| latency.as_ref().map(|latency| (middle(point), value(latency) as f64)))
                .collect();
            // A line of one place would not be seen.
            if let ([place], Some((point, _))) = (&places[..], piece.first()) {
                places = vec![(point.from.as_secs_f64(), place.1), (point.to.as_secs_f64(), place.1)];
            }
            places
        };
        Line { key, pieces: pieces.map(places).collect() }
    };
    let lines = vec![line(THIRD, |latency| latency.p99), line(FOURTH, |latency| latency.p95), line(FIRST, |latency| latency.p50)];
    let legend = vec![
        Legend::new(FIRST, "p50: half of the answers are faster"),
        Legend::new(FOURTH, "p95: 95 % are faster"),
        Legend::new(THIRD, "p99: 99 % are faster"),
    ];
    let chart = Chart { to_s, values: Axis::milliseconds(smallest as f64, largest as f64), lines, spans: spans.to_vec() };
    let description = format!(
        "How long answers took, on a logarithmic scale: the median is {} ms at its lowest, the 99th percentile {} ms at its highest.",
        figures::count(smallest),
        figures::count(largest)
    );
    Some(plot("latency", "Latency", description, (&chart, legend)))
}

fn plot(id: &'static str, title: &'static str, description: String, (chart, legend): (&Chart, Vec<Legend>)) -> Plot {
    let drawing = |class: &'static str, form: Form| {
        let (svg, view_box) = chart.draw(form);
        Drawing { class, view_box, svg }
    };
    Plot { id, title, description, drawings: [drawing("wide", WIDE), drawing("narrow", NARROW)], legend }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::call_stats::{CallsSoFar, LatencyCounts};
    use crate::domain::series::{RunMoment, Series};

    const ROWS: Unit = Unit { noun: "row", done: "processed" };

    /// A run of so many seconds at 100 requests a second that waits for the service in the middle.
    fn points(seconds: u64) -> Vec<Point> {
        let mut series = Series::new(0);
        let mut so_far = CallsSoFar::default();
        for second in 1..=seconds {
            let waits = (seconds / 3..seconds / 2).contains(&second);
            so_far.stats.apis[Command::AccountImport].calls += if waits { 0 } else { 100 };
            so_far.limits[Command::AccountImport] = Some(200.0);
            so_far.latency = LatencyCounts::default();
            if !waits {
                so_far.latency.time(Duration::from_millis(20));
            }
            let (phase, rows) = (if waits { PhaseKind::Waiting } else { PhaseKind::Running }, so_far.stats.calls());
            series.note(Duration::from_secs(second), &RunMoment { phase, rows, calls: Some(&so_far) });
        }
        series.points()
    }

    #[test]
    fn the_plots_of_a_run_say_in_words_what_they_show() {
        let plots = plots(&points(60), (0, ROWS), Some(RowsForecast { left: Duration::from_secs(30), rows_total: 9_000 }));
        let said: Vec<(&str, &str)> = plots.iter().map(|plot| (plot.id, plot.description.as_str())).collect();
        assert_eq!(
            said,
            [
                (
                    "calls",
                    "Requests a second to each API over 1m 0s: 5,000 requests to account_import; at most 100.0 a second. The rate limit is drawn \
                     in; it is 200.0 a second at its highest."
                ),
                ("rows", "5,000 rows processed after 1m 0s. The forecast is 9,000 rows in about 30s."),
                (
                    "latency",
                    "How long answers took, on a logarithmic scale: the median is 20 ms at its lowest, the 99th percentile 20 ms at its highest."
                ),
            ]
        );
        for plot in plots {
            assert!(plot.drawings[0].svg.contains("waiting"), "{plot:?}");
        }
        let shades: Vec<String> = shades(&points(60)).into_iter().map(|shade| shade.words).collect();
        assert_eq!(shades, ["waiting: the service is down, or the store of a shared limit"]);
    }

    #[test]
    fn a_long_forecast_leaves_room_for_what_has_happened() {
        let ticks = |left_s: u64| {
            let forecast = RowsForecast { left: Duration::from_secs(left_s), rows_total: 1_000_000 };
            let plots = plots(&points(60), (0, ROWS), Some(forecast));
            assert!(plots[1].description.ends_with("The forecast is 1,000,000 rows in about 1d 0h.") == (left_s == 86_400));
            plots[1].drawings[0]
                .svg
                .lines()
                .filter(|line| line.ends_with(" s") || line.ends_with(" min"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(ticks(30), ["10 s", "20 s", "30 s", "40 s", "50 s", "60 s", "70 s", "80 s", "90 s"]);
        assert_eq!(ticks(86_400), ["30 s", "60 s", "90 s", "120 s", "150 s", "180 s"]);
    }

    #[test]
    fn a_limit_that_stays_is_a_line_of_two_places() {
        assert_eq!(limit(&points(60), Command::AccountImport), [[(0.0, 200.0), (60.0, 200.0)]]);
        assert!(limit(&points(60), Command::Kick).is_empty());
    }

    #[test]
    fn a_run_of_a_moment_has_its_requests_in_one_second() {
        let mut so_far = CallsSoFar::default();
        so_far.stats.apis[Command::AccountImport].calls = 3;
        let mut series = Series::new(0);
        series.note(Duration::from_millis(4), &RunMoment { phase: PhaseKind::Running, rows: 3, calls: Some(&so_far) });
        let line = stairs(&series.points(), |point| point.calls_per_s(Command::AccountImport));
        assert_eq!(line, [(0.0, 3.0), (1.0, 3.0)]);
    }

    #[test]
    fn a_run_without_points_has_no_plots() {
        assert!(plots(&[], (0, ROWS), None).is_empty());
    }
}
