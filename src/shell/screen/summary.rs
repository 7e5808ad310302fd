//! The result of a run: JSON for `--summary`, and a table for people.
//!
//! The names and their order in the JSON are a contract. JSON and table contain counts only, no personal data.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::domain::call_stats::{ApiCallStats, CallStats, Latency};
use crate::domain::change::{PlanCounts, Wait};
use crate::domain::command::Command;
use crate::domain::figures;
use crate::domain::guard::Guard;
use crate::domain::outcome::OutcomeCounts;
use crate::flow::import::Lane;
use crate::shell::exit::Exit;
use crate::shell::terminal::printable;

/// Most codes that the table shows. Chosen: for more there is the results file.
const CODES_SHOWN: usize = 5;
/// From this time on the table shows the mean of the requests. Source: the contract of operating.
const MEAN_FROM: Duration = Duration::from_secs(10);
/// Column in which the values of the table begin: the longest label and two spaces.
pub(super) const LABEL_WIDTH: usize = 12;
/// The headings of the two columns in the table of a resumed run.
const THIS_RUN: &str = "this run";
const IN_ALL: &str = "in all";

/// The result of a run.
#[derive(Debug, Clone)]
pub struct Summary {
    pub exit: Exit,
    /// The word for how the run ended, usually `Exit::outcome`.
    pub outcome: &'static str,
    /// The mode that the run used at its end.
    pub lane: Lane,
    /// Outcomes of the whole run, earlier processes included.
    pub tally: OutcomeCounts,
    /// Requests of this process.
    pub traffic: CallStats,
    /// Duration of this process.
    pub elapsed: Duration,
    /// Rows that had their outcome when this process started; 0 for a new run.
    pub resumed_at_row: u64,
    /// The figures of a sync.
    pub sync: Option<SyncFigures>,
}

/// The figures that only a sync has.
#[derive(Debug, Clone, Copy, Default)]
pub struct SyncFigures {
    pub plan: PlanCounts,
    pub kicked: u64,
    pub deleted: u64,
    /// Kicks and deletions that failed.
    pub missing_failed: u64,
    /// Missing accounts that are not kicked or deleted because a record of the file looks like them.
    pub lookalikes: u64,
    /// Why kicks and deletions wait for a later run.
    pub missing_waits: Option<Wait>,
    /// The first safety check that failed.
    pub guard: Option<Guard>,
}

impl Summary {
    /// The summary as JSON with a final newline.
    ///
    /// # Panics
    /// Never: all of its content can be written as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text =
            serde_json::to_string_pretty(&SummaryJson::of(self)).expect("its keys are text or whole numbers, and no writer can fail");
        text.push('\n');
        text
    }
}

/// The JSON of a summary; the order of its fields is part of the contract.
#[derive(Serialize)]
struct SummaryJson<'a> {
    exit_code: u8,
    outcome: &'a str,
    rows: u64,
    imported: u64,
    failed: u64,
    invalid: u64,
    #[serde(flatten)]
    requests: RequestsJson,
    resumed_at_row: u64,
    codes: &'a BTreeMap<i64, u64>,
    latency_ms: Latency,
    lane: &'static str,
    /// The APIs that were called.
    apis: BTreeMap<&'static str, ApiCallStats>,
    #[serde(flatten)]
    sync: Option<SyncJson>,
}

/// What a summary says of all requests.
#[derive(Serialize)]
pub(super) struct RequestsJson {
    calls: u64,
    retries: u64,
    throttled: u64,
    max_calls_in_1s: usize,
    mean_calls_per_s: f64,
    elapsed_s: f64,
}

impl RequestsJson {
    pub(super) fn of(traffic: &CallStats, elapsed: Duration) -> Self {
        Self {
            calls: traffic.calls(),
            retries: traffic.retries(),
            throttled: traffic.throttled(),
            max_calls_in_1s: traffic.most_in_1s(),
            mean_calls_per_s: thousandths(traffic.mean_per_s),
            elapsed_s: thousandths(elapsed.as_secs_f64()),
        }
    }
}

/// The additional fields of a sync.
#[derive(Serialize)]
struct SyncJson {
    plan: PlanCounts,
    created: u64,
    updated: u64,
    kicked: u64,
    deleted: u64,
    missing_failed: u64,
    lookalikes: u64,
    missing_waits: Option<&'static str>,
    guard: Option<&'static str>,
}

impl SyncJson {
    fn of(figures: SyncFigures, tally: OutcomeCounts) -> Self {
        let SyncFigures { plan, kicked, deleted, missing_failed, lookalikes, missing_waits, guard } = figures;
        let (missing_waits, guard) = (missing_waits.map(Wait::name), guard.map(Guard::name));
        Self { plan, created: tally.created, updated: tally.updated, kicked, deleted, missing_failed, lookalikes, missing_waits, guard }
    }
}

impl<'a> SummaryJson<'a> {
    fn of(summary: &'a Summary) -> Self {
        let Summary { exit, outcome, lane, tally, traffic, elapsed, resumed_at_row, sync } = summary;
        Self {
            exit_code: exit.code(),
            outcome,
            // In a sync all records count, also those without an outcome of their own.
            rows: sync.map_or_else(|| tally.rows(), |sync| sync.plan.records()),
            imported: tally.imported,
            failed: tally.failed,
            invalid: tally.invalid,
            requests: RequestsJson::of(traffic, *elapsed),
            resumed_at_row: *resumed_at_row,
            codes: &traffic.codes,
            latency_ms: traffic.latency(),
            lane: lane_name(*lane),
            apis: used(traffic).map(|(command, api)| (command.name(), *api)).collect(),
            sync: sync.map(|sync| SyncJson::of(sync, *tally)),
        }
    }
}

fn lane_name(lane: Lane) -> &'static str {
    match lane {
        Lane::Single => "single",
        Lane::Batch(_) => "batch",
        Lane::FellBack => "batch-fell-back",
    }
}

/// The APIs that were called, and always the main one.
pub(in crate::shell) fn used(traffic: &CallStats) -> impl Iterator<Item = (Command, &ApiCallStats)> {
    traffic.apis.iter().filter(|(command, api)| api.calls > 0 || *command == traffic.main)
}

pub(super) fn thousandths(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}

/// The table at the end of a run.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    pub summary: &'a Summary,
    /// Outcomes of this process.
    pub this_run: OutcomeCounts,
    pub results: &'a Path,
    /// `None` if the run has no rejects file.
    pub rejects: Option<&'a Path>,
    pub checkpoint: &'a Path,
}

impl fmt::Display for Report<'_> {
    /// Writes the lines of the table without a final newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.counts(f)?;
        self.calls(f)?;
        line(f, "elapsed", figures::duration(self.summary.elapsed))?;
        line(f, "results", shown(self.results))?;
        if let Some(rejects) = self.rejects {
            line(f, "rejects", shown(rejects))?;
        }
        write!(f, "{:<LABEL_WIDTH$}{}", "checkpoint", shown(self.checkpoint))
    }
}

impl Report<'_> {
    fn counts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (here, all, traffic) = (self.this_run, self.summary.tally, &self.summary.traffic);
        let in_all = |rows: u64| (self.summary.resumed_at_row > 0).then_some(rows);
        let table = [
            ("rows", here.rows(), in_all(all.rows())),
            ("imported", here.imported, in_all(all.imported)),
            ("failed", here.failed, in_all(all.failed)),
            ("invalid", here.invalid, in_all(all.invalid)),
            ("requests", traffic.calls(), None),
            ("retries", traffic.retries(), None),
            ("throttled", traffic.throttled(), None),
        ];
        let width = column_width(&table);
        if self.summary.resumed_at_row > 0 {
            writeln!(f, "{:<LABEL_WIDTH$}{THIS_RUN:>width$}  {IN_ALL:>width$}", "")?;
        }
        columns(f, &table, width)
    }

    fn calls(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let traffic = &self.summary.traffic;
        if traffic.calls() > 0 {
            let busiest = figures::count(traffic.most_in_1s() as u64);
            // A mean over less time shows the first burst rather than the pace.
            let mean = (self.summary.elapsed >= MEAN_FROM).then(|| format!("{} on average, ", figures::rate(traffic.mean_per_s)));
            line(f, "requests/s", format!("{}{busiest} at most in any second", mean.unwrap_or_default()))?;
            if let Some(per_s) = traffic.apis[traffic.main].ceiling_per_s {
                line(f, "limit", figures::gets_through(per_s))?;
            }
            latency(f, traffic)?;
        }
        self.lane(f)?;
        codes(f, traffic)
    }
}

impl Report<'_> {
    /// The mode, unless it is the ordinary one, and the requests to each API, if there is more than one.
    fn lane(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.summary.lane {
            Lane::Single if self.summary.traffic.apis[Command::PortraitSet].calls > 0 => return apis(f, "requests", &self.summary.traffic),
            Lane::Single => return Ok(()),
            Lane::Batch(_) => "batch",
            Lane::FellBack => "one account per request, because batches did not work",
        };
        line(f, "lane", name)?;
        apis(f, "", &self.summary.traffic)
    }
}

/// The requests to each API, one line each; the label is written before the first.
pub(super) fn apis(f: &mut fmt::Formatter<'_>, label: &str, traffic: &CallStats) -> fmt::Result {
    for (number, (command, api)) in used(traffic).enumerate() {
        let busiest = figures::count(api.most_in_1s as u64);
        let found = api.ceiling_per_s.map(|per_s| format!(", about {} got through", figures::about_per_s(per_s)));
        let found = found.unwrap_or_default();
        let words = format!("{}: {}, {busiest} at most in any second{found}", command.name(), figures::counted(api.calls, "request"));
        line(f, if number == 0 { label } else { "" }, words)?;
    }
    Ok(())
}

pub(super) fn latency(f: &mut fmt::Formatter<'_>, traffic: &CallStats) -> fmt::Result {
    let latency = traffic.latency();
    line(f, "latency", format!("p50 {} ms, p99 {} ms", figures::count(latency.p50), figures::count(latency.p99)))
}

pub(super) fn codes(f: &mut fmt::Formatter<'_>, traffic: &CallStats) -> fmt::Result {
    match frequent_codes(&traffic.codes) {
        codes if codes.is_empty() => Ok(()),
        codes => line(f, "codes", codes),
    }
}

/// The most frequent codes other than success, with their counts.
fn frequent_codes(codes: &BTreeMap<i64, u64>) -> String {
    let mut codes: Vec<(i64, u64)> = codes.iter().map(|(code, count)| (*code, *count)).filter(|(code, _)| *code != 0).collect();
    codes.sort_by_key(|(code, count)| (std::cmp::Reverse(*count), *code));
    let words: Vec<String> = codes.iter().take(CODES_SHOWN).map(|(code, count)| format!("{code}: {}", figures::count(*count))).collect();
    words.join(", ")
}

/// A label, the count of this process, and the count of the whole run.
pub(super) type Row = (&'static str, u64, Option<u64>);

pub(super) fn column_width(table: &[Row]) -> usize {
    let counts = table.iter().flat_map(|(_, here, in_all)| [Some(*here), *in_all]).flatten();
    let heading = if table.iter().any(|(_, _, in_all)| in_all.is_some()) { THIS_RUN.len() } else { 0 };
    counts.map(|number| figures::count(number).len()).max().unwrap_or(0).max(heading)
}

pub(super) fn columns(f: &mut fmt::Formatter<'_>, table: &[Row], width: usize) -> fmt::Result {
    for (label, here, in_all) in table {
        let here = figures::count(*here);
        match in_all {
            Some(in_all) => line(f, label, format!("{here:>width$}  {:>width$}", figures::count(*in_all)))?,
            None => line(f, label, format!("{here:>width$}"))?,
        }
    }
    Ok(())
}

pub(super) fn line(f: &mut fmt::Formatter<'_>, label: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(f, "{label:<LABEL_WIDTH$}{value}")
}

pub(super) fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    fn summary() -> Summary {
        let mut traffic = CallStats::default();
        traffic.apis[Command::AccountImport] =
            ApiCallStats { calls: 12_100, retries: 52, throttled: 3, most_in_1s: 200, ceiling_per_s: Some(99.512_345) };
        traffic.mean_per_s = 199.612_34;
        for (code, times) in [(0, 12_000), (70169, 40), (60007, 3), (60008, 3), (40006, 9), (70402, 1), (70403, 1)] {
            traffic.codes.insert(code, times);
        }
        for latency_ms in [10, 20, 30, 100] {
            traffic.time(Duration::from_millis(latency_ms));
        }
        let tally = OutcomeCounts { imported: 111_980, failed: 15, invalid: 5, ..OutcomeCounts::default() };
        let elapsed = Duration::from_micros(60_123_456);
        Summary {
            exit: Exit::SomeRowsRejected,
            outcome: Exit::SomeRowsRejected.outcome(),
            lane: Lane::Single,
            tally,
            traffic,
            elapsed,
            resumed_at_row: 100_000,
            sync: None,
        }
    }

    fn report(summary: &Summary, this_run: OutcomeCounts) -> Report<'_> {
        let [results, rejects, checkpoint] = ["users.results.csv", "users.rejects.csv", "users.checkpoint.json"].map(Path::new);
        Report { summary, this_run, results, rejects: (summary.tally.rejected() > 0).then_some(rejects), checkpoint }
    }

    #[test]
    fn the_json_is_exactly_the_contract() {
        let expected = r#"{
  "exit_code": 3,
  "outcome": "finished_with_rejects",
  "rows": 112000,
  "imported": 111980,
  "failed": 15,
  "invalid": 5,
  "calls": 12100,
  "retries": 52,
  "throttled": 3,
  "max_calls_in_1s": 200,
  "mean_calls_per_s": 199.612,
  "elapsed_s": 60.123,
  "resumed_at_row": 100000,
  "codes": {
    "0": 12000,
    "40006": 9,
    "60007": 3,
    "60008": 3,
    "70169": 40,
    "70402": 1,
    "70403": 1
  },
  "latency_ms": {
    "p50": 20,
    "p95": 100,
    "p99": 100,
    "max": 100
  },
  "lane": "single",
  "apis": {
    "account_import": {
      "calls": 12100,
      "retries": 52,
      "throttled": 3,
      "max_calls_in_1s": 200,
      "ceiling_per_s": 99.5
    }
  }
}
"#;
        assert_eq!(summary().to_json(), expected);
    }

    #[test]
    fn a_resumed_run_shows_its_own_rows_and_all_rows() {
        let expected = "            this run    in all
rows          12,000   112,000
imported      11,990   111,980
failed            10        15
invalid            0         5
requests      12,100
retries           52
throttled          3
requests/s  199.6 on average, 200 at most in any second
limit       about 100/s gets through; others use the rest, or the service counts otherwise
latency     p50 20 ms, p99 100 ms
codes       70169: 40, 40006: 9, 60007: 3, 60008: 3, 70402: 1
elapsed     1m 0s
results     users.results.csv
rejects     users.rejects.csv
checkpoint  users.checkpoint.json";
        let this_run = OutcomeCounts { imported: 11_990, failed: 10, invalid: 0, ..OutcomeCounts::default() };
        assert_eq!(report(&summary(), this_run).to_string(), expected);
    }

    #[test]
    fn a_new_run_without_requests_has_a_shorter_table() {
        let tally = OutcomeCounts { imported: 0, failed: 0, invalid: 0, ..OutcomeCounts::default() };
        let elapsed = Duration::from_millis(420);
        let summary = Summary {
            exit: Exit::Done,
            outcome: "done",
            lane: Lane::Single,
            tally,
            traffic: CallStats::default(),
            elapsed,
            resumed_at_row: 0,
            sync: None,
        };
        let expected = "\
rows        0
imported    0
failed      0
invalid     0
requests    0
retries     0
throttled   0
elapsed     0.4s
results     users.results.csv
checkpoint  users.checkpoint.json";
        assert_eq!(report(&summary, tally).to_string(), expected);
    }
}
