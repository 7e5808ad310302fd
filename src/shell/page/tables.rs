//! The tables of the page: what stands in their rows. Foreign texts are made visible and cut here, and escaped by the template.

use std::path::Path;
use std::time::Duration;

use super::RunPage;
use super::course::{self, called, whole};
use super::reasons::Reason;
use super::view::{Audience, Examples};
use crate::domain::call_stats::ApiCallStats;
use crate::domain::code_meaning::meaning;
use crate::domain::command::Command;
use crate::domain::figures::{self, about_per_s, count, counted};
use crate::domain::guard::{Guard, GuardVerdict, Judged};
use crate::domain::series::{PhaseKind, Point, Series};
use crate::io::rejected_rows::RejectedRow;
use crate::shell::screen::end_summary::Figures;
use crate::shell::screen::summary::used;
use crate::shell::terminal::printable;

/// Rows of the table behind the plots. Chosen: somebody can read that many.
const TABLE_ROWS_MAX: usize = 60;
/// Phases that are listed one by one. Chosen.
const SPANS_MAX: usize = 20;
/// Shorter times in a phase are not listed. Chosen: durations are shown in tenths of a second.
const LISTED_FROM: Duration = Duration::from_millis(100);
/// Most characters of a foreign value that are shown. Chosen: a UserID in full, and the gist of a message.
const VALUE_MAX: usize = 200;

/// The figures behind the plots.
pub(super) struct DataTable {
    pub(super) apis: Vec<&'static str>,
    pub(super) rows: Vec<DataRow>,
}

pub(super) struct DataRow {
    pub(super) until: String,
    pub(super) until_s: String,
    pub(super) calls: Vec<String>,
    pub(super) done: String,
    pub(super) latency: Option<[String; 3]>,
    pub(super) phase: &'static str,
}

pub(super) struct CodeRow {
    pub(super) code: i64,
    pub(super) count: String,
    pub(super) meaning: String,
    pub(super) fault: &'static str,
    pub(super) remedy: &'static str,
}

pub(super) struct GuardRow {
    pub(super) name: &'static str,
    pub(super) bound: String,
    pub(super) found: String,
    pub(super) tone: &'static str,
    pub(super) verdict: String,
}

pub(super) struct ReasonsView {
    pub(super) groups: Vec<ReasonView>,
    pub(super) others: String,
    pub(super) has_examples: bool,
}

pub(super) struct ReasonView {
    pub(super) count: String,
    pub(super) status: String,
    pub(super) reason: String,
    pub(super) examples: Vec<[String; 4]>,
}

/// The phases other than running: what, from when, how long.
pub(super) fn phases(series: &Series, points: &[Point]) -> Vec<(&'static str, String, String)> {
    let since_start = |seconds: f64| whole(Duration::from_secs_f64(seconds));
    let mut spans = course::spans(points);
    spans.sort_by(|one, other| (other.to_s - other.from_s).total_cmp(&(one.to_s - one.from_s)));
    spans.truncate(SPANS_MAX);
    spans.sort_by(|one, other| one.from_s.total_cmp(&other.from_s));
    let listed = spans.iter().map(|span| {
        let lasted = figures::duration(Duration::from_secs_f64(span.to_s - span.from_s));
        (span.phase.name(), format!("from {} to {} after the start", since_start(span.from_s), since_start(span.to_s)), lasted)
    });
    let in_all = PhaseKind::ALL.map(|phase| (phase.name(), "in all".to_owned(), series.time_in(phase)));
    let in_all = in_all.into_iter().filter(|(_, _, time)| *time >= LISTED_FROM);
    listed.chain(in_all.map(|(name, words, time)| (name, words, figures::duration(time)))).collect()
}

pub(super) fn data_table(series: &Series) -> DataTable {
    let points = series.at_most(TABLE_ROWS_MAX);
    let apis: Vec<_> = called(&points).into_iter().map(|(command, _)| command).collect();
    let row = |point: &Point| DataRow {
        until: figures::duration(point.to),
        until_s: format!("{:.3}", point.to.as_secs_f64()),
        calls: apis.iter().map(|command| count(point.calls[*command])).collect(),
        done: count(point.rows),
        latency: point.latency().map(|latency| [latency.p50, latency.p95, latency.p99].map(count)),
        phase: point.phase().name(),
    };
    DataTable { rows: points.iter().map(row).collect(), apis: apis.iter().map(|command| command.name()).collect() }
}

pub(super) fn apis(figures: &Figures) -> Vec<Vec<String>> {
    let traffic = figures.traffic();
    let row = |(command, api): (Command, &ApiCallStats)| {
        let through = api.ceiling_per_s.map_or("–".to_owned(), |per_s| format!("about {}", about_per_s(per_s)));
        let counts = [api.calls, api.retries, api.throttled, api.most_in_1s as u64].map(count);
        [command.name().to_owned()].into_iter().chain(counts).chain([through]).collect()
    };
    if traffic.calls() == 0 { Vec::new() } else { used(traffic).map(row).collect() }
}

pub(super) fn codes(figures: &Figures) -> Vec<CodeRow> {
    let mut codes: Vec<(i64, u64)> = figures.traffic().codes.iter().map(|(code, times)| (*code, *times)).collect();
    codes.sort_by_key(|(code, times)| (*code == 0, std::cmp::Reverse(*times), *code));
    codes.truncate(TABLE_ROWS_MAX);
    let row = |(code, times): (i64, u64)| {
        let found = meaning(code);
        CodeRow { code, count: count(times), meaning: found.meaning, fault: found.fault.name(), remedy: found.remedy }
    };
    codes.into_iter().map(row).collect()
}

pub(super) fn plan(figures: &Figures) -> Vec<(&'static str, String)> {
    let Figures::Rows(summary) = figures else { return Vec::new() };
    let Some(sync) = &summary.sync else { return Vec::new() };
    let plan = sync.plan;
    let mut rows = vec![
        ("create", plan.create),
        ("update", plan.update),
        ("unchanged", plan.unchanged),
        ("invalid", plan.invalid),
        ("superseded", plan.superseded),
        ("missing from the file", plan.missing),
    ];
    let acted = [("kicked", sync.kicked), ("deleted", sync.deleted), ("kicks and deletions that failed", sync.missing_failed)];
    rows.extend(acted.into_iter().filter(|(_, number)| *number > 0));
    rows.into_iter().map(|(label, number)| (label, count(number))).collect()
}

pub(super) fn guard_row(judged: &Judged, audience: Audience<'_>) -> GuardRow {
    let names_nobody = judged.guard != Guard::Canary || matches!(audience, Audience::File { examples: Examples::Shown, .. });
    let (tone, verdict) = match &judged.verdict {
        GuardVerdict::Passed => ("good", "✓ passed".to_owned()),
        GuardVerdict::Allowed => ("warn", "! would have failed, but is switched off".to_owned()),
        GuardVerdict::Tripped { override_hint } if names_nobody => {
            ("bad", format!("✕ failed. To let the run through: {}", shown(override_hint)))
        }
        GuardVerdict::Tripped { .. } => ("bad", "✕ failed".to_owned()),
    };
    GuardRow { name: judged.guard.name(), bound: judged.bound.clone(), found: judged.found.clone(), tone, verdict }
}

pub(super) fn reasons(audience: Audience<'_>) -> Option<ReasonsView> {
    let Audience::File { reasons: Some(reasons), examples } = audience else { return None };
    let groups: Vec<ReasonView> = reasons.by_count().into_iter().map(|reason| reason_view(reason, examples)).collect();
    let others = if reasons.others > 0 { counted(reasons.others, "row") } else { String::new() };
    (!groups.is_empty()).then_some(ReasonsView { groups, others, has_examples: examples == Examples::Shown })
}

fn reason_view(reason: &Reason, examples: Examples) -> ReasonView {
    let words = match (reason.code, &reason.exact) {
        (Some(code), _) => format!("code {code}: {}", meaning(code).meaning),
        (None, Some(exact)) if examples == Examples::Shown => shown(exact),
        (None, _) => shown(&reason.common),
    };
    let rows = if examples == Examples::Shown { &reason.rows.first[..] } else { &[] };
    let example = |row: &RejectedRow| [&row.row, &row.line, &row.user_id, &row.reason].map(|text| shown(text));
    let words = match reason.status.as_str() {
        _ if !words.is_empty() => words,
        "missing" => "the service has no such account".to_owned(),
        _ => "no reason is given".to_owned(),
    };
    ReasonView {
        count: count(reason.rows.count),
        status: shown(&reason.status),
        reason: words,
        examples: rows.iter().map(example).collect(),
    }
}

/// The files that are there, with their sizes.
pub(super) fn files(page: &RunPage) -> Vec<(&'static str, String, String)> {
    let size = |path: &Path| std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|stat| figures::bytes(stat.len()));
    let there =
        page.subject.files.iter().filter_map(|file| Some((file.what, shown_whole(&file.path.display().to_string()), size(&file.path)?)));
    there.collect()
}

/// A foreign text with its control characters made visible, cut if it is long.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(VALUE_MAX) {
        Some((end, _)) => format!("{}…", printable(&text[..end])),
        None => printable(text),
    }
}

pub(super) fn shown_whole(text: &str) -> String {
    printable(text)
}
