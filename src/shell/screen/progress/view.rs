//! The progress of a run in words: what stands beside a bar, below it, and in a line of a log.

use std::time::Duration;

use super::Start;
use crate::domain::call_stats::QuotaStats;
use crate::domain::figures;
use crate::domain::planned_work::PlanProgress;
use crate::flow::dispatch::Progress;
use crate::flow::import::{ImportProgress, RunPhase};
use crate::shell::terminal::printable;

/// Most characters of the reason why the run waits for the service. Chosen: one line of a log.
pub(super) const WHY_MAX: usize = 100;

/// The progress together with the figures derived from it.
pub(super) struct ProgressWords<'a> {
    pub(super) progress: &'a ImportProgress,
    pub(super) start: Start,
    mean_per_s: Option<f64>,
    left: Option<Duration>,
}

impl<'a> ProgressWords<'a> {
    pub(super) const fn new(progress: &'a ImportProgress, start: Start, (left, mean_per_s): (Option<Duration>, Option<f64>)) -> Self {
        Self { progress, start, mean_per_s, left }
    }

    /// How much is done, and of how much: records of the plan, or bytes of an input of known size, of which never more than there are.
    pub(super) fn extent(&self) -> Option<(u64, u64)> {
        if let Some(PlanProgress { done, all }) = self.progress.planned {
            return Some((done.records, all.records));
        }
        let bytes = self.start.input_bytes?;
        Some((self.progress.offset.unwrap_or(self.start.offset).min(bytes), bytes))
    }

    fn rows(&self) -> u64 {
        self.start.rows_done + self.progress.counts.rows()
    }

    /// The text beside the bar.
    pub(super) fn headline(&self) -> String {
        let share = self.extent().filter(|(_, length)| *length > 0).map(|(position, length)| figures::percent(position, length));
        let rows = Some(figures::counted(self.rows(), "row"));
        joined([share, rows, self.pace_words(), self.left_words()], "  ")
    }

    /// The text below the bar; the part that may be long comes last.
    pub(super) fn detail(&self) -> String {
        let counts = self.progress.counts;
        let failed = Some(format!("{} failed", figures::count(counts.failed)));
        joined([failed, invalid(counts.invalid), Some(self.retries()), self.quota_words(), Some(state(&self.progress.requests))], ", ")
    }

    /// The line for a log.
    pub(super) fn line(&self) -> String {
        let counts = self.progress.counts;
        let earlier = (self.start.rows_done > 0).then(|| format!("{} earlier", figures::count(self.start.rows_done)));
        let imported = Some(format!("{} imported", figures::count(counts.imported)));
        let failed = Some(format!("{} failed", figures::count(counts.failed)));
        let parts = joined([earlier, imported, failed, invalid(counts.invalid)], ", ");
        let done = Some(format!("{} done ({parts})", figures::counted(self.rows(), "row")));
        let retries = (self.progress.requests.retries > 0).then(|| self.retries());
        let words =
            joined([done, self.pace_words(), self.quota_words(), retries, self.left_words(), Some(state(&self.progress.requests))], ", ");
        format!("progress: {words}")
    }

    fn retries(&self) -> String {
        match self.progress.requests.retries {
            1 => "1 retry".to_owned(),
            retries => format!("{} retries", figures::count(retries)),
        }
    }

    fn pace_words(&self) -> Option<String> {
        self.mean_per_s.map(|pace| format!("{} requests/s", figures::rate(pace)))
    }

    fn quota_words(&self) -> Option<String> {
        self.progress.requests.so_far.stats.quota.and_then(quota_words)
    }

    fn left_words(&self) -> Option<String> {
        let whole_seconds = Duration::from_secs(self.left?.as_secs());
        Some(format!("about {} left", figures::duration(whole_seconds)))
    }
}

fn invalid(rows: u64) -> Option<String> {
    (rows > 0).then(|| format!("{} invalid", figures::count(rows)))
}

/// How far the run is, in words.
pub(crate) fn done_words(rows: u64, requests: &Progress) -> String {
    format!("{} done, {}", figures::counted(rows, "row"), state(requests))
}

/// What this process has of a shared limit, in words, once that is known.
pub(crate) fn quota_words(quota: QuotaStats) -> Option<String> {
    let words = || format!("quota: {}, {}/s here", figures::counted(quota.processes, "run"), figures::count(quota.here_per_s));
    (quota.processes > 0).then(words)
}

/// The state of the run in words.
pub(crate) fn state(requests: &Progress) -> String {
    match &requests.phase {
        RunPhase::Running => "running".to_owned(),
        RunPhase::Throttled { per_s } => {
            format!("throttled: {}", figures::gets_through(*per_s))
        }
        RunPhase::Waiting { since, why } => waiting("the service", *since, why),
        RunPhase::WaitingForQuota { since, why } => waiting("the quota", *since, why),
        RunPhase::Draining => format!("draining, {} in flight", figures::counted(requests.in_flight as u64, "request")),
    }
}

fn waiting(whom: &str, since: Duration, why: &str) -> String {
    let because = if why.is_empty() { String::new() } else { format!(": {}", shortened(&printable(why))) };
    format!("waiting for {whom} for {}{because}", figures::duration(Duration::from_secs(since.as_secs())))
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(WHY_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn joined<const N: usize>(words: [Option<String>; N], between: &str) -> String {
    words.into_iter().flatten().collect::<Vec<_>>().join(between)
}
