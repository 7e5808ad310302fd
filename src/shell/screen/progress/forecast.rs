//! How long the rest of a run takes: what is left, at the recent pace of outcomes.

use std::time::Duration;

use tokio::time::Instant;

use super::Start;
use super::pace::RecentPace;
use crate::domain::command::Command;
use crate::domain::planned_work::PlanProgress;
use crate::flow::import::{ImportProgress, RunPhase};

/// Below this pace, in rows per second, no remaining time is shown. Chosen: the run is stalled then.
const PACE_MIN: f64 = 0.05;

/// The recent pace of outcomes. The time before the first of them, and the time in which the run waits, say nothing of the pace that follows.
#[derive(Debug, Clone)]
struct OutcomePace(RecentPace);

impl OutcomePace {
    fn note(&mut self, done: u64, phase: &RunPhase, now: Instant) -> Option<f64> {
        if done == 0 || !gets_on(phase) {
            self.0 = RecentPace::since(now, done);
        } else {
            self.0.note(done, now);
        }
        self.0.calls_per_s(done, now)
    }
}

/// Forecasts when a run is over.
#[derive(Debug, Clone)]
pub(crate) struct Forecast {
    rows: OutcomePace,
    /// Records of a plan whose account is imported, and those whose tags are set.
    imports: OutcomePace,
    profiles: OutcomePace,
}

impl Forecast {
    pub(crate) fn new(now: Instant) -> Self {
        let new = || OutcomePace(RecentPace::new(now));
        Self { rows: new(), imports: new(), profiles: new() }
    }

    /// The time that an import, or the rows of a sync, still take. It is to be asked at every report, since it measures the pace.
    pub(crate) fn left(&mut self, progress: &ImportProgress, start: Start, now: Instant) -> Option<Duration> {
        if let Some(planned) = progress.planned {
            return self.left_of_plan(planned, progress, now);
        }
        let done = progress.counts.rows() + progress.rows_waiting;
        let pace = self.rows.note(done, &progress.requests.phase, now)?;
        time_left(progress, start, pace)
    }

    /// The time that so many of a number of things take that are alike.
    pub(crate) fn left_of(&mut self, (done, rest): (u64, u64), phase: &RunPhase, now: Instant) -> Option<Duration> {
        let pace = self.rows.note(done, phase, now).filter(|pace| *pace > 0.0)?;
        seconds(rest as f64 / pace).filter(|_| gets_on(phase))
    }

    /// Both APIs are at work at the same time, as far as there is something for both. What an API has not begun with stands later in the
    /// file, and is counted at the limit.
    fn left_of_plan(&mut self, PlanProgress { done, all }: PlanProgress, progress: &ImportProgress, now: Instant) -> Option<Duration> {
        let phase = &progress.requests.phase;
        let so_far = &progress.requests.so_far;
        let main = so_far.stats.main;
        let limit_of_main = so_far.limits[main].map(|per_s| per_s * main.spec().accounts_per_call as f64);
        let imports = (all.imports - done.imports, self.imports.note(done.imports, phase, now), limit_of_main);
        let profiles = (all.profiles - done.profiles, self.profiles.note(done.profiles, phase, now), so_far.limits[Command::PortraitSet]);
        if !gets_on(phase) {
            return None;
        }
        let due: Vec<_> = [imports, profiles].into_iter().filter(|(left, ..)| *left > 0).collect();
        let is_at_work = |pace: &Option<f64>| pace.is_some_and(|pace| pace >= PACE_MIN);
        if due.iter().any(|(_, pace, _)| pace.is_some()) && !due.iter().any(|(_, pace, _)| is_at_work(pace)) {
            // It is stalled.
            return None;
        }
        let (mut at_work, mut later) = (0.0_f64, 0.0);
        for (left, pace, limit) in due {
            match pace.filter(|pace| *pace >= PACE_MIN) {
                Some(pace) => at_work = at_work.max(left as f64 / pace),
                None => later += left as f64 / limit?,
            }
        }
        seconds(at_work + later)
    }
}

const fn gets_on(phase: &RunPhase) -> bool {
    match phase {
        RunPhase::Running | RunPhase::Throttled { .. } => true,
        RunPhase::Waiting { .. } | RunPhase::WaitingForQuota { .. } | RunPhase::Draining => false,
    }
}

fn seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok()
}

/// The time that the rest of the input takes at this pace, if its rows are as long as those that are done. Rows that wait for an earlier one
/// are done as well, so one row in retries holds up the offset for a while, but not the forecast.
fn time_left(progress: &ImportProgress, start: Start, rows_per_s: f64) -> Option<Duration> {
    if !gets_on(&progress.requests.phase) {
        return None;
    }
    let (offset, written) = (progress.offset?, progress.counts.rows());
    let settled = offset.saturating_sub(start.offset);
    // What waits for an earlier row has its outcome, but lies behind the offset.
    let waiting = bytes_of(progress.rows_waiting, (written, settled))?;
    let rest = start.input_bytes?.saturating_sub(offset.saturating_add(waiting));
    let rows = written + progress.rows_waiting;
    let by_bytes = share(rest, settled.saturating_add(waiting))?;
    let by_limit = start.limit.and_then(|limit| share(limit.saturating_sub(rows), rows));
    let times_what_is_done = by_limit.map_or(by_bytes, |limit| limit.min(by_bytes));
    if rows_per_s < PACE_MIN || progress.requests.calls == 0 {
        return None;
    }
    seconds(times_what_is_done * rows as f64 / rows_per_s)
}

/// The bytes of so many rows, if they are like those that are written; `None` where there is none to compare with.
fn bytes_of(rows: u64, (written, bytes): (u64, u64)) -> Option<u64> {
    if rows == 0 {
        return Some(0);
    }
    let of_these = u128::from(rows) * u128::from(bytes);
    of_these.checked_div(written.into()).map(|bytes| u64::try_from(bytes).unwrap_or(u64::MAX))
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{in_phase, snapshot, waiting};
    use super::*;
    use crate::domain::outcome::OutcomeCounts;
    use crate::domain::planned_work::PlannedWork;
    use crate::flow::dispatch::Progress;

    const TICK: Duration = Duration::from_millis(250);

    #[test]
    fn time_left_comes_from_the_bytes_of_this_process_and_the_recent_pace() {
        let start = Start { rows_done: 500, rows_settled: 500, offset: 5_000, input_bytes: Some(45_000), limit: None };
        let told = ImportProgress { offset: Some(15_000), ..snapshot(1_000) };
        let check = |told: &ImportProgress, start: Start, pace: f64, seconds: Option<u64>| {
            assert_eq!(time_left(told, start, pace), seconds.map(Duration::from_secs));
        };
        check(&told, start, 100.0, Some(30));
        check(&told, Start { limit: Some(1_500), ..start }, 100.0, Some(5));
        check(&told, Start { limit: Some(9_000), ..start }, 100.0, Some(30));
        check(&told, Start { input_bytes: None, ..start }, 100.0, None);
        check(&told, start, 0.0, None);
        check(&ImportProgress { offset: None, ..told.clone() }, start, 100.0, None);
        let behind_one =
            ImportProgress { rows_waiting: 1_000, requests: Progress { calls: 2_000, ..told.requests.clone() }, ..told.clone() };
        check(&behind_one, start, 100.0, Some(20));
        check(&behind_one, Start { limit: Some(2_500), ..start }, 100.0, Some(5));
        check(&ImportProgress { rows_waiting: 9_000, ..behind_one.clone() }, start, 100.0, Some(0));
        let first_is_stuck = ImportProgress { counts: OutcomeCounts::default(), ..behind_one };
        check(&first_is_stuck, start, 100.0, None);
        let no_calls = Progress { calls: 0, ..told.requests.clone() };
        check(&ImportProgress { requests: no_calls, ..told.clone() }, start, 100.0, None);
        check(&in_phase(waiting(3, ""), told.clone()), start, 100.0, None);
    }

    /// A plan of so many imports and then so many records of tags alone, of which `done` have their outcome.
    fn told(done: u64, (imports, profiles): (u64, u64)) -> ImportProgress {
        let work = |records: u64| PlannedWork { records, imports: records.min(imports), profiles: records.saturating_sub(imports) };
        let planned = Some(PlanProgress { done: work(done), all: work(imports + profiles) });
        let mut told = ImportProgress { planned, ..snapshot(done) };
        told.requests.so_far.limits[Command::AccountImport] = Some(50.0);
        told.requests.so_far.limits[Command::PortraitSet] = Some(20.0);
        told
    }

    /// The file has 300,000 bytes, and it is read up to wherever the rows stand.
    const START: Start = Start { rows_done: 0, rows_settled: 0, offset: 0, input_bytes: Some(300_000), limit: None };

    #[test]
    fn a_sync_is_forecast_by_its_plan_wherever_the_changed_rows_stand() {
        for offset in [1_000, 299_000] {
            let (begun, mut forecast) = (Instant::now(), Forecast::new(Instant::now()));
            for tick in 0..80 {
                let (done, now) = (u64::from(tick) * 25 / 2, begun + TICK * tick);
                let told = ImportProgress { offset: Some(offset), ..told(done, (1_000, 0)) };
                let left = forecast.left(&told, START, now).expect("a plan tells it at once");
                let expected = (1_000 - done) as f64 / 50.0;
                assert!((left.as_secs_f64() - expected).abs() <= 1.0, "{left:?} with {done} done, {expected} s left");
            }
        }
    }

    #[test]
    fn tags_that_come_last_are_counted_at_their_own_limit_and_then_at_their_own_pace() {
        let (begun, mut forecast) = (Instant::now(), Forecast::new(Instant::now()));
        for tick in 0..160_u32 {
            let seconds = f64::from(tick) / 4.0;
            let ticks = u64::from(tick);
            // 1,000 imports at 50 a second, then 400 records of tags at 20 a second.
            let done = if ticks <= 80 { ticks * 50 / 4 } else { 1_000 + (ticks - 80) * 20 / 4 };
            let left = forecast.left(&told(done, (1_000, 400)), START, begun + TICK * tick).expect("it is known all the time");
            assert!((left.as_secs_f64() - (40.0 - seconds)).abs() <= 2.5, "{left:?} after {seconds} s");
        }
    }

    #[test]
    fn an_outage_says_nothing_of_the_pace_behind_it() {
        let plans = |done| [told(done, (1_000, 0)), ImportProgress { offset: Some(done * 300), ..snapshot(done) }];
        for which in [0, 1] {
            let (begun, mut forecast) = (Instant::now(), Forecast::new(Instant::now()));
            for tick in 1..=40 {
                let _ = forecast.left(&plans(u64::from(tick) * 25 / 2)[which], START, begun + TICK * tick);
            }
            let mut calls = 500;
            for tick in 41..=400 {
                // Probes and rows that are tried again are requests without an outcome.
                calls += 3;
                let mut waits = in_phase(waiting(1, "HTTP 502"), plans(500)[which].clone());
                waits.requests.calls = calls;
                assert_eq!(forecast.left(&waits, START, begun + TICK * tick), None);
            }
            for tick in 401..=430 {
                let done = 500 + u64::from(tick - 400) * 25 / 2;
                let mut runs = plans(done)[which].clone();
                runs.requests.calls = calls + done - 500;
                let left = forecast.left(&runs, START, begun + TICK * tick);
                let expected = (1_000 - done) as f64 / 50.0;
                let is_near = |left: Duration| (left.as_secs_f64() - expected).abs() <= 1.5;
                assert!(left.is_none_or(is_near), "{left:?}, but {expected} s are left");
                assert!(left.is_some() || tick < 405, "a second of running tells the pace");
            }
        }
    }

    #[test]
    fn a_plan_that_is_stalled_has_no_forecast() {
        let (begun, mut forecast) = (Instant::now(), Forecast::new(Instant::now()));
        let lefts: Vec<_> = (1..=80).map(|tick| forecast.left(&told(10, (1_000, 0)), START, begun + TICK * tick)).collect();
        assert_eq!(lefts.last(), Some(&None));
    }
}
