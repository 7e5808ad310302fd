//! The result of a run, and its JSON for `--summary`.
//!
//! The names and their order in the JSON are a contract. It contains counts only, no personal data.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::domain::call_stats::{ApiCallStats, CallStats, Latency, QuotaStats};
use crate::domain::change::{PlanCounts, Wait};
use crate::domain::command::Command;
use crate::domain::guard::Guard;
use crate::domain::outcome::OutcomeCounts;
use crate::flow::import::Lane;
use crate::shell::exit::Exit;

/// The result of a run.
#[derive(Debug, Clone)]
pub struct Summary {
    pub exit: Exit,
    /// The word for how the run ended, usually `Exit::outcome`.
    pub outcome: &'static str,
    /// The mode that the run used at its end.
    pub lane: Lane,
    /// Outcomes of the whole run, earlier processes included.
    pub counts: OutcomeCounts,
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
    /// Only if the limit is shared.
    #[serde(skip_serializing_if = "Option::is_none")]
    quota: Option<QuotaJson>,
}

/// What a summary says of a limit that is shared.
#[derive(Serialize)]
struct QuotaJson {
    max_runs: u64,
    times_lost: u64,
    lost_s: f64,
    calls_alone: u64,
}

impl QuotaJson {
    fn of(quota: QuotaStats) -> Self {
        let QuotaStats { most_processes, times_lost, lost_for, alone, .. } = quota;
        Self { max_runs: most_processes, times_lost, lost_s: thousandths(lost_for.as_secs_f64()), calls_alone: alone }
    }
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
            quota: traffic.quota.map(QuotaJson::of),
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
    fn of(figures: SyncFigures, counts: OutcomeCounts) -> Self {
        let SyncFigures { plan, kicked, deleted, missing_failed, lookalikes, missing_waits, guard } = figures;
        let (missing_waits, guard) = (missing_waits.map(Wait::name), guard.map(Guard::name));
        Self { plan, created: counts.created, updated: counts.updated, kicked, deleted, missing_failed, lookalikes, missing_waits, guard }
    }
}

impl<'a> SummaryJson<'a> {
    fn of(summary: &'a Summary) -> Self {
        let Summary { exit, outcome, lane, counts, traffic, elapsed, resumed_at_row, sync } = summary;
        Self {
            exit_code: exit.code(),
            outcome,
            // In a sync all records count, also those without an outcome of their own.
            rows: sync.map_or_else(|| counts.rows(), |sync| sync.plan.records()),
            imported: counts.imported,
            failed: counts.failed,
            invalid: counts.invalid,
            requests: RequestsJson::of(traffic, *elapsed),
            resumed_at_row: *resumed_at_row,
            codes: &traffic.codes,
            latency_ms: traffic.latency(),
            lane: lane_name(*lane),
            apis: used(traffic).map(|(command, api)| (command.name(), *api)).collect(),
            sync: sync.map(|sync| SyncJson::of(sync, *counts)),
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::shell::screen) fn summary() -> Summary {
        let mut traffic = CallStats::default();
        traffic.apis[Command::AccountImport] =
            ApiCallStats { calls: 12_100, retries: 52, throttled: 3, most_in_1s: 200, ceiling_per_s: Some(99.512_345) };
        (traffic.mean_per_s, traffic.mean_over) = (199.612_34, Duration::from_secs(60));
        for (code, times) in [(0, 12_000), (70169, 40), (60007, 3), (60008, 3), (40006, 9), (70402, 1), (70403, 1)] {
            traffic.codes.insert(code, times);
        }
        for latency_ms in [10, 20, 30, 100] {
            traffic.time(Duration::from_millis(latency_ms));
        }
        let counts = OutcomeCounts { imported: 111_980, failed: 15, invalid: 5, ..OutcomeCounts::default() };
        let elapsed = Duration::from_micros(60_123_456);
        Summary {
            exit: Exit::SomeRowsRejected,
            outcome: Exit::SomeRowsRejected.outcome(),
            lane: Lane::Single,
            counts,
            traffic,
            elapsed,
            resumed_at_row: 100_000,
            sync: None,
        }
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
}
