//! The summary of a command as metrics, in the text format of Prometheus, for the textfile collector of its node exporter.
//!
//! All are gauges, because each run starts from zero. The names are a contract. There are counts only, no personal data.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::end_summary::{EndSummary, Figures, Success};
use super::summary::{Summary, used};
use super::verified::Verified;
use crate::domain::call_stats::{ApiCallStats, QuotaStats};
use crate::domain::change::PlanCounts;
use crate::domain::comparison::FindingCounts;
use crate::domain::guard::Guard;

/// The metric that is kept from the file of the run before.
const LAST_SUCCESS: &str = "chatlift_last_success_timestamp_seconds";

/// The metrics of a command.
#[derive(Debug)]
pub struct Metrics<'a> {
    summary: &'a EndSummary,
    last_success_s: f64,
}

impl<'a> Metrics<'a> {
    /// The metrics of a command; `before` is the file that its predecessor has left, if it has.
    #[must_use]
    pub fn new(summary: &'a EndSummary, before: &str) -> Self {
        let last_success_s = match summary.success {
            Success::Yes => seconds(summary.ended_at),
            Success::No => kept_success(before, &own_labels(summary)).unwrap_or_default(),
        };
        Self { summary, last_success_s }
    }
}

/// Seconds since the epoch, to the millisecond.
fn seconds(time: SystemTime) -> f64 {
    rounded(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn rounded(time: Duration) -> f64 {
    time.as_millis() as f64 / 1_000.0
}

/// When the last success was, as the file of an earlier run of the same job says.
fn kept_success(before: &str, labels: &str) -> Option<f64> {
    let sample = format!("{LAST_SUCCESS}{{{labels}}} ");
    let value = before.lines().find_map(|line| line.strip_prefix(&sample))?;
    value.trim().parse().ok().filter(|seconds: &f64| seconds.is_finite() && *seconds >= 0.0)
}

fn own_labels(summary: &EndSummary) -> String {
    format!("command=\"{}\",job=\"{}\"", summary.command, escaped(&summary.job))
}

/// A label's value: these three characters are all that the format escapes.
pub(in crate::shell) fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A metric with its samples: the value of its own label, if it has one, and the number.
struct Metric {
    name: &'static str,
    help: &'static str,
    label: &'static str,
    samples: Vec<(&'static str, f64)>,
}

impl Metric {
    fn single(name: &'static str, help: &'static str, value: f64) -> Self {
        Self { name, help, label: "", samples: vec![("", value)] }
    }
}

impl fmt::Display for Metrics<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels = own_labels(self.summary);
        for Metric { name, help, label, samples } in self.all().iter().filter(|metric| !metric.samples.is_empty()) {
            writeln!(f, "# HELP {name} {help}\n# TYPE {name} gauge")?;
            for (value, number) in samples {
                let own = if label.is_empty() { String::new() } else { format!(",{label}=\"{value}\"") };
                writeln!(f, "{name}{{{labels}{own}}} {number}")?;
            }
        }
        Ok(())
    }
}

impl Metrics<'_> {
    fn all(&self) -> Vec<Metric> {
        let summary = self.summary;
        let single = Metric::single;
        let mut all = vec![
            single("chatlift_last_run_timestamp_seconds", "When the last run ended.", seconds(summary.ended_at)),
            single(LAST_SUCCESS, "When the last successful run ended, 0 if none was.", self.last_success_s),
            single("chatlift_exit_code", "Exit code of the last run.", f64::from(summary.exit.code())),
            single("chatlift_duration_seconds", "How long the last run took.", rounded(summary.elapsed)),
            Metric { name: "chatlift_rows", help: "Rows by what became of them.", label: "status", samples: rows(&summary.figures) },
        ];
        all.extend(self.calls());
        all.extend(self.summary.traffic().quota.into_iter().flat_map(quota));
        if let Figures::Rows(rows) = &summary.figures
            && let Some(sync) = &rows.sync
        {
            let samples = plan(sync.plan);
            all.push(Metric { name: "chatlift_plan_rows", help: "Rows of the plan by what is to be done.", label: "op", samples });
            let is_tripped = |guard: Guard| (guard.name(), f64::from(u8::from(summary.tripped.contains(&guard))));
            let samples = Guard::ALL.map(is_tripped).to_vec();
            all.push(Metric { name: "chatlift_guard_tripped", help: "1 for a safety check that failed.", label: "guard", samples });
        } else if !summary.tripped.is_empty() {
            let samples = summary.tripped.iter().map(|guard| (guard.name(), 1.0)).collect();
            all.push(Metric { name: "chatlift_guard_tripped", help: "1 for a safety check that failed.", label: "guard", samples });
        }
        let accounts = summary.state_accounts.map(|accounts| single("chatlift_state_accounts", "Known accounts.", accounts as f64));
        all.extend(accounts);
        all
    }

    fn calls(&self) -> [Metric; 3] {
        let by_api = |figure: fn(&ApiCallStats) -> u64| {
            used(self.summary.traffic()).map(|(command, api)| (command.name(), figure(api) as f64)).collect::<Vec<_>>()
        };
        let metric = |name, help, samples| Metric { name, help, label: "api", samples };
        [
            metric("chatlift_calls", "Requests of the last run.", by_api(|api| api.calls)),
            metric("chatlift_retries", "Requests that repeated an earlier one.", by_api(|api| api.retries)),
            metric("chatlift_throttled", "Answers that refused a request as too fast.", by_api(|api| api.throttled)),
        ]
    }
}

fn quota(quota: QuotaStats) -> [Metric; 3] {
    [
        Metric::single("chatlift_quota_runs", "The most runs at a time that shared the limit.", quota.most_processes as f64),
        Metric::single("chatlift_quota_lost_seconds", "How long the store of the shared limit was lost.", rounded(quota.lost_for)),
        Metric::single("chatlift_quota_calls_alone", "Requests that left while it was lost (--quota-lost).", quota.alone as f64),
    ]
}

pub(in crate::shell) fn rows(figures: &Figures) -> Vec<(&'static str, f64)> {
    let counts: Vec<(&'static str, u64)> = match figures {
        Figures::Rows(summary) => {
            let Summary { counts, sync, .. } = &**summary;
            let superseded = sync.map(|_| ("superseded", counts.superseded));
            let counts = [("imported", counts.imported), ("failed", counts.failed), ("invalid", counts.invalid)];
            counts.into_iter().chain(superseded).collect()
        }
        Figures::Verification(verified) => {
            let Verified { counts: FindingCounts { same, missing, differs, unknown, invalid }, not_asked, .. } = **verified;
            vec![
                ("same", same),
                ("missing", missing),
                ("differs", differs),
                ("unknown", unknown),
                ("invalid", invalid),
                ("not_asked", not_asked),
            ]
        }
    };
    counts.into_iter().map(|(status, count)| (status, count as f64)).collect()
}

fn plan(counts: PlanCounts) -> Vec<(&'static str, f64)> {
    let PlanCounts { create, update, unchanged, invalid, superseded, missing } = counts;
    let ops = [
        ("create", create),
        ("update", update),
        ("unchanged", unchanged),
        ("invalid", invalid),
        ("superseded", superseded),
        ("missing", missing),
    ];
    ops.map(|(op, count)| (op, count as f64)).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::import::Lane;
    use crate::shell::exit::Exit;

    fn ended(success: Success) -> EndSummary {
        EndSummary {
            command: "import",
            job: "nightly \"a\\b\"\nc".to_owned(),
            exit: Exit::UserError,
            figures: Figures::of_no_import(Lane::Single),
            tripped: Vec::new(),
            state_accounts: Some(12),
            elapsed: Duration::from_millis(1_234),
            ended_at: UNIX_EPOCH + Duration::from_millis(1_764_172_800_500),
            success,
        }
    }

    #[test]
    fn the_text_is_exactly_the_contract() {
        insta::assert_snapshot!(Metrics::new(&ended(Success::Yes), ""), @r#"
        # HELP chatlift_last_run_timestamp_seconds When the last run ended.
        # TYPE chatlift_last_run_timestamp_seconds gauge
        chatlift_last_run_timestamp_seconds{command="import",job="nightly \"a\\b\"\nc"} 1764172800.5
        # HELP chatlift_last_success_timestamp_seconds When the last successful run ended, 0 if none was.
        # TYPE chatlift_last_success_timestamp_seconds gauge
        chatlift_last_success_timestamp_seconds{command="import",job="nightly \"a\\b\"\nc"} 1764172800.5
        # HELP chatlift_exit_code Exit code of the last run.
        # TYPE chatlift_exit_code gauge
        chatlift_exit_code{command="import",job="nightly \"a\\b\"\nc"} 2
        # HELP chatlift_duration_seconds How long the last run took.
        # TYPE chatlift_duration_seconds gauge
        chatlift_duration_seconds{command="import",job="nightly \"a\\b\"\nc"} 1.234
        # HELP chatlift_rows Rows by what became of them.
        # TYPE chatlift_rows gauge
        chatlift_rows{command="import",job="nightly \"a\\b\"\nc",status="imported"} 0
        chatlift_rows{command="import",job="nightly \"a\\b\"\nc",status="failed"} 0
        chatlift_rows{command="import",job="nightly \"a\\b\"\nc",status="invalid"} 0
        # HELP chatlift_calls Requests of the last run.
        # TYPE chatlift_calls gauge
        chatlift_calls{command="import",job="nightly \"a\\b\"\nc",api="account_import"} 0
        # HELP chatlift_retries Requests that repeated an earlier one.
        # TYPE chatlift_retries gauge
        chatlift_retries{command="import",job="nightly \"a\\b\"\nc",api="account_import"} 0
        # HELP chatlift_throttled Answers that refused a request as too fast.
        # TYPE chatlift_throttled gauge
        chatlift_throttled{command="import",job="nightly \"a\\b\"\nc",api="account_import"} 0
        # HELP chatlift_state_accounts Known accounts.
        # TYPE chatlift_state_accounts gauge
        chatlift_state_accounts{command="import",job="nightly \"a\\b\"\nc"} 12
        "#);
    }

    #[test]
    fn the_last_success_is_kept_until_the_next_one_of_the_same_job() {
        let kept = |ended: &EndSummary, before: &str| Metrics::new(ended, before).last_success_s.to_string();
        let before = Metrics::new(&ended(Success::Yes), "").to_string();
        let failed = EndSummary { ended_at: UNIX_EPOCH + Duration::from_secs(2_000_000_000), ..ended(Success::No) };
        assert_eq!(kept(&failed, &before), "1764172800.5");
        assert_eq!(kept(&failed, &Metrics::new(&failed, &before).to_string()), "1764172800.5");
        assert_eq!(kept(&EndSummary { success: Success::Yes, ..failed.clone() }, &before), "2000000000");
        assert_eq!(kept(&EndSummary { job: "other".to_owned(), ..failed.clone() }, &before), "0");
        assert_eq!(kept(&failed, "noise\nchatlift_last_success_timestamp_seconds{} NaN\n"), "0");
    }
}
