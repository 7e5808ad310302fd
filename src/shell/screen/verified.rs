//! The result of a verification: JSON for machines, and a table for people.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::summary::{RequestsJson, used};
use super::table::{Row, apis, codes, column_width, columns, latency, line, shown};
use crate::domain::call_stats::{ApiCallStats, CallStats, Latency};
use crate::domain::comparison::FindingCounts;
use crate::domain::figures;
use crate::shell::exit::Exit;

/// The result of a verification.
#[derive(Debug, Clone)]
pub struct Verified {
    pub exit: Exit,
    /// Records in the input.
    pub rows: u64,
    pub counts: FindingCounts,
    /// Distinct valid UserIDs that were not checked, or got no answer before the run stopped.
    pub not_asked: u64,
    /// The seed of the sample, if there is one.
    pub seed: Option<u64>,
    pub traffic: CallStats,
    pub elapsed: Duration,
}

/// The JSON of a verification; the order of its fields is part of the contract.
#[derive(Serialize)]
struct VerifiedJson<'a> {
    exit_code: u8,
    outcome: &'a str,
    rows: u64,
    same: u64,
    missing: u64,
    differs: u64,
    unknown: u64,
    invalid: u64,
    not_asked: u64,
    /// `null` without a sample.
    seed: Option<u64>,
    #[serde(flatten)]
    requests: RequestsJson,
    codes: &'a BTreeMap<i64, u64>,
    latency_ms: Latency,
    apis: BTreeMap<&'static str, ApiCallStats>,
}

impl Verified {
    /// The word for how it ended.
    #[must_use]
    pub const fn outcome(&self) -> &'static str {
        match self.exit {
            Exit::SomeRowsRejected => "finished_with_findings",
            exit => exit.outcome(),
        }
    }

    /// The summary as JSON, in the form of an import's.
    ///
    /// # Panics
    /// Never: all of its content can be written as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        let Self { exit, rows, counts, not_asked, seed, traffic, elapsed } = self;
        let FindingCounts { same, missing, differs, unknown, invalid } = *counts;
        let json = VerifiedJson {
            exit_code: exit.code(),
            outcome: self.outcome(),
            rows: *rows,
            same,
            missing,
            differs,
            unknown,
            invalid,
            not_asked: *not_asked,
            seed: *seed,
            requests: RequestsJson::of(traffic, *elapsed),
            codes: &traffic.codes,
            latency_ms: traffic.latency(),
            apis: used(traffic).map(|(command, api)| (command.name(), *api)).collect(),
        };
        let mut text = serde_json::to_string_pretty(&json).expect("its keys are text or whole numbers, and no writer can fail");
        text.push('\n');
        text
    }
}

/// The table at the end of a verification.
#[derive(Debug, Clone, Copy)]
pub struct VerifiedReport<'a> {
    pub verified: &'a Verified,
    pub results: &'a Path,
    /// `None` if there is no repair file.
    pub repair: Option<&'a Path>,
}

impl fmt::Display for VerifiedReport<'_> {
    /// Writes the lines of the table without a final newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verified { rows, counts, not_asked, seed, traffic, elapsed, .. } = self.verified;
        let table: [Row; 9] = [
            ("rows", *rows, None),
            ("same", counts.same, None),
            ("missing", counts.missing, None),
            ("differs", counts.differs, None),
            ("unknown", counts.unknown, None),
            ("invalid", counts.invalid, None),
            ("not asked", *not_asked, None),
            ("retries", traffic.retries(), None),
            ("throttled", traffic.throttled(), None),
        ];
        columns(f, &table, column_width(&table))?;
        if traffic.calls() > 0 {
            apis(f, "requests", traffic)?;
            latency(f, traffic)?;
        }
        codes(f, traffic)?;
        if let Some(seed) = seed {
            line(f, "seed", seed)?;
        }
        line(f, "elapsed", figures::duration(*elapsed))?;
        if let Some(repair) = self.repair {
            line(f, "repair", shown(repair))?;
        }
        write!(f, "{:<width$}{}", "results", shown(self.results), width = super::table::LABEL_WIDTH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::command::Command;

    fn verified() -> Verified {
        let mut traffic = CallStats::default();
        (traffic.main, traffic.mean_per_s) = (Command::AccountCheck, 98.76543);
        traffic.apis[Command::AccountCheck] = ApiCallStats { calls: 1_210, retries: 2, throttled: 0, most_in_1s: 100, ceiling_per_s: None };
        traffic.apis[Command::PortraitGet] =
            ApiCallStats { calls: 1_200, retries: 0, throttled: 1, most_in_1s: 150, ceiling_per_s: Some(99.512_345) };
        traffic.count_code(0);
        traffic.count_code(60007);
        traffic.time(Duration::from_millis(40));
        let counts = FindingCounts { same: 120_000, missing: 7, differs: 2, unknown: 1, invalid: 3 };
        let elapsed = Duration::from_millis(12_345);
        Verified { exit: Exit::SomeRowsRejected, rows: 130_000, counts, not_asked: 9_000, seed: Some(42), traffic, elapsed }
    }

    #[test]
    fn the_summary_is_for_machines() {
        insta::assert_snapshot!(verified().to_json(), @r#"
        {
          "exit_code": 3,
          "outcome": "finished_with_findings",
          "rows": 130000,
          "same": 120000,
          "missing": 7,
          "differs": 2,
          "unknown": 1,
          "invalid": 3,
          "not_asked": 9000,
          "seed": 42,
          "calls": 2410,
          "retries": 2,
          "throttled": 1,
          "max_calls_in_1s": 100,
          "mean_calls_per_s": 98.765,
          "elapsed_s": 12.345,
          "codes": {
            "0": 1,
            "60007": 1
          },
          "latency_ms": {
            "p50": 40,
            "p95": 40,
            "p99": 40,
            "max": 40
          },
          "apis": {
            "account_check": {
              "calls": 1210,
              "retries": 2,
              "throttled": 0,
              "max_calls_in_1s": 100,
              "ceiling_per_s": null
            },
            "portrait_get": {
              "calls": 1200,
              "retries": 0,
              "throttled": 1,
              "max_calls_in_1s": 150,
              "ceiling_per_s": 99.5
            }
          }
        }
        "#);
    }

    #[test]
    fn the_table_is_for_people() {
        let verified = verified();
        let report = VerifiedReport { verified: &verified, results: Path::new("u.verify.csv"), repair: Some(Path::new("u.repair.csv")) };
        insta::assert_snapshot!(report, @r"
        rows        130,000
        same        120,000
        missing           7
        differs           2
        unknown           1
        invalid           3
        not asked     9,000
        retries           2
        throttled         1
        requests    portrait_get: 1,200 requests, 150 at most in any second, about 100/s got through
                    account_check: 1,210 requests, 100 at most in any second
        latency     p50 40 ms, p99 40 ms
        codes       60007: 1
        seed        42
        elapsed     12s
        repair      u.repair.csv
        results     u.verify.csv
        ");
    }
}
