//! The figures of a run that lasts, in the OpenMetrics text format.
//!
//! Counts only grow during a run, so they are counters here, unlike in the metrics that a run leaves at its end.

use std::fmt::Write as _;
use std::time::UNIX_EPOCH;

use tokio::time::Instant;

use super::RunPage;
use crate::domain::call_stats::ApiCallStats;
use crate::domain::series::PhaseKind;
use crate::shell::screen::metrics::{escaped, rows};
use crate::shell::screen::summary::used;

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The text that is built.
struct Exposition {
    text: String,
    /// Those of every sample.
    labels: String,
}

impl Exposition {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a text cannot fail.
        let _ = writeln!(self.text, "# TYPE {name} {kind}\n# HELP {name} {help}");
    }

    fn sample(&mut self, name: &str, own: Option<(&str, &str)>, value: f64) {
        let own = own.map_or(String::new(), |(label, value)| format!(",{label}=\"{}\"", escaped(value)));
        let _ = writeln!(self.text, "{name}{{{}{own}}} {value}", self.labels);
    }

    /// A count of each API.
    fn counter(&mut self, (name, help): (&str, &str), apis: &[(&str, ApiCallStats)], count: fn(&ApiCallStats) -> u64) {
        self.family(name, "counter", help);
        for (api, stats) in apis {
            self.sample(&format!("{name}_total"), Some(("api", api)), count(stats) as f64);
        }
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, "gauge", help);
        self.sample(name, None, value);
    }
}

pub(super) fn text(page: &RunPage, now: Instant) -> String {
    let labels = format!("command=\"{}\",job=\"{}\"", page.subject.command, escaped(&page.subject.job));
    let mut out = Exposition { text: String::new(), labels };
    let figures = page.figures_at(now);
    out.family("chatlift_rows", "gauge", "Rows by what became of them so far.");
    for (status, count) in rows(&figures) {
        out.sample("chatlift_rows", Some(("status", status)), count);
    }
    let apis: Vec<_> = used(figures.traffic()).map(|(command, api)| (command.name(), *api)).collect();
    out.counter(("chatlift_calls", "Requests that were sent."), &apis, |api| api.calls);
    out.counter(("chatlift_retries", "Requests among them that repeated an earlier one."), &apis, |api| api.retries);
    out.counter(("chatlift_throttled", "Answers that refused a request as too fast."), &apis, |api| api.throttled);
    let latency = figures.traffic().latency();
    out.family("chatlift_latency_seconds", "summary", "How long answers took.");
    for (quantile, ms) in [("0.5", latency.p50), ("0.95", latency.p95), ("0.99", latency.p99)] {
        out.sample("chatlift_latency_seconds", Some(("quantile", quantile)), ms as f64 / 1_000.0);
    }
    out.family("chatlift_phase", "gauge", "1 for what the run does now.");
    for phase in PhaseKind::ALL {
        let is_now = page.end.is_none() && page.phase == phase;
        out.sample("chatlift_phase", Some(("phase", phase.name())), f64::from(u8::from(is_now)));
    }
    out.gauge("chatlift_rows_done", "Rows that have their result. Unchanged rows of a sync get none.", page.rows_done as f64);
    out.gauge("chatlift_rows_waiting", "Rows that have their outcome, too, but wait for an earlier row.", page.rows_waiting as f64);
    if let Some(quota) = figures.traffic().quota {
        out.gauge("chatlift_quota_runs", "Runs that share the limit now.", quota.processes as f64);
        out.gauge("chatlift_quota_here", "Requests of this run in the last second.", quota.here_per_s as f64);
        out.gauge("chatlift_quota_lost_seconds", "How long the store of the shared limit was lost.", quota.lost_for.as_secs_f64());
    }
    if let Some(rows) = page.rows_total {
        out.gauge("chatlift_input_rows", "Rows of the input.", rows as f64);
    }
    if let Some(left) = page.left {
        out.gauge("chatlift_left_seconds", "How long the rest is expected to take.", left.as_secs() as f64);
    }
    let began = page.began_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    out.gauge("chatlift_start_timestamp_seconds", "When the command began.", began.as_secs_f64());
    out.text.push_str("# EOF\n");
    out.text
}
