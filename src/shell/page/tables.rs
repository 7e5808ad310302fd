//! The tables of the page: what stands in their rows. Foreign texts are made visible and cut here, and escaped by the template.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::Duration;

use super::course::{self, called};
use super::plot::PhaseSpan;
use super::reasons::Reason;
use super::view::{Audience, ReportExamples};
use super::{Needs, RunPage, WhenWritten};
use crate::domain::call_stats::ApiCallStats;
use crate::domain::code_meaning::{AtFault, meaning};
use crate::domain::command::Command;
use crate::domain::figures::{self, about_per_s, count, counted};
use crate::domain::guard::{Guard, GuardVerdict, Judged};
use crate::domain::halt_reason::HaltReason;
use crate::domain::series::{PhaseKind, Point, Series};
use crate::io::journal;
use crate::io::journal::disk::OsDisk;
use crate::io::journal::results_reader::Results;
use crate::io::rejected_rows::RejectedRow;
use crate::shell::exit::Exit;
use crate::shell::screen::end_summary::Figures;
use crate::shell::screen::summary::used;
use crate::shell::terminal::printable;

/// Rows of the table behind the plots. Chosen: somebody can read that many.
const TABLE_ROWS_MAX: usize = 60;
/// Times in a phase that are listed one by one. Chosen: somebody reads that many.
const SPANS_MAX: usize = 12;
/// A run that is shorter has its times in tenths of a second. Chosen: as durations are shown.
const TENTHS_BELOW: Duration = Duration::from_secs(10);
/// What to do about a row that is refused in a sync: its rejects are not imported, since the state would not know of it.
const REMEDY_OF_SYNC: &str = "correct the row where the file comes from; the next sync sends it";
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

pub(super) struct PhaseRow {
    pub(super) name: &'static str,
    pub(super) lasted: String,
    pub(super) when: String,
}

pub(super) struct ApiRow {
    pub(super) name: &'static str,
    pub(super) requests: String,
    pub(super) retries: String,
    pub(super) refused: String,
    pub(super) most_in_1s: String,
    pub(super) limit_found: String,
}

pub(super) struct CodeRow {
    /// A code of the service, an HTTP status, or that there was no answer.
    pub(super) code: String,
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

/// What the run did, for how long, and where the plots are shaded for it. The times are so rounded that they add up to the whole.
pub(super) fn phases(series: &Series, points: &[Point]) -> Vec<PhaseRow> {
    let spans = course::spans(points);
    let times = PhaseKind::ALL.map(|phase| (phase, series.time_in(phase)));
    let mut so_far = Duration::ZERO;
    let whole_run = times.iter().map(|(_, time)| *time).sum::<Duration>();
    let unit = if whole_run < TENTHS_BELOW { Duration::from_millis(100) } else { Duration::from_secs(1) };
    let mut rows = Vec::new();
    for (phase, time) in times {
        let lasted = in_units(so_far + time, unit).saturating_sub(in_units(so_far, unit));
        so_far += time;
        if !lasted.is_zero() {
            rows.push(PhaseRow { name: phase.name(), lasted: figures::duration(lasted), when: when(&spans, phase, unit) });
        }
    }
    if rows.len() < 2 {
        return Vec::new();
    }
    rows.push(PhaseRow { name: "in all", lasted: figures::duration(in_units(whole_run, unit)), when: String::new() });
    rows
}

/// The time in whole units.
fn in_units(time: Duration, unit: Duration) -> Duration {
    let units = time.as_millis() / unit.as_millis();
    unit * u32::try_from(units).unwrap_or(u32::MAX)
}

/// The times that are shaded for a phase, the longest if they are many.
fn when(spans: &[PhaseSpan], phase: PhaseKind, unit: Duration) -> String {
    let mut spans: Vec<&PhaseSpan> = spans.iter().filter(|span| span.phase == phase).collect();
    let others = spans.len().saturating_sub(SPANS_MAX) as u64;
    spans.sort_by(|one, other| (other.to_s - other.from_s).total_cmp(&(one.to_s - one.from_s)));
    spans.truncate(SPANS_MAX);
    spans.sort_by(|one, other| one.from_s.total_cmp(&other.from_s));
    let since_start = |seconds: f64| figures::duration(in_units(Duration::from_secs_f64(seconds), unit));
    let mut words: Vec<String> =
        spans.into_iter().map(|span| format!("{} to {}", since_start(span.from_s), since_start(span.to_s))).collect();
    if others > 0 {
        words.push(format!("{} shorter times", count(others)));
    }
    words.join(", ")
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

pub(super) fn apis(figures: &Figures) -> Vec<ApiRow> {
    let traffic = figures.traffic();
    let row = |(command, api): (Command, &ApiCallStats)| ApiRow {
        name: command.name(),
        requests: count(api.calls),
        retries: count(api.retries),
        refused: count(api.throttled),
        most_in_1s: count(api.most_in_1s as u64),
        limit_found: api.ceiling_per_s.map_or("–".to_owned(), |per_s| format!("about {}", about_per_s(per_s))),
    };
    if traffic.calls() == 0 { Vec::new() } else { used(traffic).map(row).collect() }
}

/// What came of the requests: as many as there were, once they are over, but that a batch may have a code for each account.
pub(super) fn codes(page: &RunPage, figures: &Figures) -> Vec<CodeRow> {
    let traffic = figures.traffic();
    let mut rows = codes_of_answers(figures);
    rows.extend(traffic.http_statuses.iter().map(|(status, times)| CodeRow {
        code: format!("HTTP {status}"),
        count: count(*times),
        meaning: "this status instead of an answer, from the service or from what is before it".to_owned(),
        fault: if *status == 429 { AtFault::Rate.name() } else { AtFault::Service.name() },
        remedy: if (300..400).contains(status) { HaltReason::Redirected.hint() } else { "nothing: chatlift tries again by itself" },
    }));
    let answered = traffic.codes.values().chain(traffic.http_statuses.values()).sum();
    let unanswered = traffic.calls().saturating_sub(answered);
    // Those of a run that lasts may still be answered.
    if page.end.is_some() && unanswered > 0 {
        rows.push(CodeRow {
            code: "no answer".to_owned(),
            count: count(unanswered),
            meaning: "none came in time, it could not be read, or the connection broke".to_owned(),
            fault: AtFault::Unknown.name(),
            remedy: "nothing: chatlift tries again by itself",
        });
    }
    rows
}

fn codes_of_answers(figures: &Figures) -> Vec<CodeRow> {
    let mut codes: Vec<(i64, u64)> = figures.traffic().codes.iter().map(|(code, times)| (*code, *times)).collect();
    codes.sort_by_key(|(code, times)| (*code == 0, std::cmp::Reverse(*times), *code));
    codes.truncate(TABLE_ROWS_MAX);
    let is_sync = matches!(figures, Figures::Rows(summary) if summary.sync.is_some());
    let row = |(code, times): (i64, u64)| {
        let found = meaning(code);
        let remedy = if is_sync && found.fault == AtFault::Row { REMEDY_OF_SYNC } else { found.remedy };
        CodeRow { code: code.to_string(), count: count(times), meaning: found.meaning, fault: found.fault.name(), remedy }
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
    let names_nobody = judged.guard != Guard::Canary || matches!(audience, Audience::File { examples: ReportExamples::Shown, .. });
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
    (!groups.is_empty()).then_some(ReasonsView { groups, others, has_examples: examples == ReportExamples::Shown })
}

fn reason_view(reason: &Reason, examples: ReportExamples) -> ReasonView {
    let words = match (reason.code, &reason.exact) {
        (Some(code), _) => format!("code {code}: {}", meaning(code).meaning),
        (None, Some(exact)) if examples == ReportExamples::Shown => shown(exact),
        (None, _) => shown(&reason.common),
    };
    let rows = if examples == ReportExamples::Shown { &reason.rows.first[..] } else { &[] };
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
    // A dry run, and one that was refused before it began, has come upon the files of another.
    let was_refused = page.end.as_ref().is_some_and(|end| matches!(end.exit, Exit::Guarded | Exit::UserError));
    let are_of_another = !page.has_begun && (page.dry_run || was_refused);
    let own = page.subject.files.iter().filter(|file| !(are_of_another && file.written == WhenWritten::OnceBegun));
    let there = own.filter_map(|file| Some((file.what, shown_whole(&file.path.display().to_string()), size(&file.path)?)));
    there.collect()
}

/// The commands to go on with that run as they stand.
pub(super) fn commands(page: &RunPage) -> Vec<(&'static str, &str)> {
    let is_ready = |needs: &Needs| match needs {
        Needs::Checkpoint(paths) => journal::read_checkpoint(&OsDisk, paths).is_some(),
        Needs::Results(path) => {
            !was_refused(page) && path.is_file() && File::open(path).is_ok_and(|file| Results::new(BufReader::new(file)).is_ok())
        }
        Needs::AcceptedRows => has_accepted_rows(page),
    };
    let ready = page.subject.commands.iter().filter(|next| is_ready(&next.needs));
    ready.map(|next| (next.what, next.command.as_str())).collect()
}

/// Whether something was wrong with the input, the flags or the files: they may be no good for another command either.
fn was_refused(page: &RunPage) -> bool {
    page.end.as_ref().is_some_and(|end| end.exit == Exit::UserError)
}

/// Whether the service has rows of the run, and can be asked about them with the same flags.
fn has_accepted_rows(page: &RunPage) -> bool {
    let is_answered = page.end.as_ref().is_none_or(|end| match end.exit {
        Exit::Done | Exit::SomeRowsRejected | Exit::Stopped => true,
        Exit::Fatal | Exit::UserError | Exit::Refused | Exit::Guarded | Exit::Busy | Exit::OfProgram(_) => false,
    });
    match &page.figures {
        Figures::Rows(summary) => {
            let has_unchanged = summary.sync.as_ref().is_some_and(|sync| sync.plan.unchanged > 0);
            is_answered && (summary.counts.imported > 0 || has_unchanged)
        }
        Figures::Verification(_) => false,
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::series::RunMoment;

    /// A run that was in these phases for so many milliseconds, one after the other.
    fn series(times: &[(PhaseKind, u64)]) -> Series {
        let mut series = Series::new(0);
        let mut at_ms = 0;
        for (phase, lasted_ms) in times {
            let end_ms = at_ms + lasted_ms;
            while at_ms < end_ms {
                at_ms = end_ms.min(at_ms + 250);
                series.note(Duration::from_millis(at_ms), &RunMoment { phase: *phase, rows: 0, calls: None });
            }
        }
        series
    }

    fn told(times: &[(PhaseKind, u64)]) -> Vec<[String; 3]> {
        let series = series(times);
        phases(&series, &series.points()).into_iter().map(|row| [row.name.to_owned(), row.lasted, row.when]).collect()
    }

    #[test]
    fn times_in_phases_add_up_to_the_whole() {
        use PhaseKind::{Draining, Planning, Running, Throttled, Waiting};
        let short = told(&[(Planning, 380), (Running, 1_390), (Waiting, 1_290), (Running, 480)]);
        // 0.38, 1.87 and 1.29 s are 3.54 s.
        assert_eq!(
            short,
            [["planning", "0.3s", "0s to 1.1s"], ["running", "1.9s", ""], ["waiting", "1.3s", "1.1s to 3.5s"], ["in all", "3.5s", ""]]
                .map(|row| row.map(str::to_owned))
        );
        let long = told(&[(Planning, 300), (Running, 30_900), (Throttled, 4_800), (Waiting, 12_700), (Running, 20_000), (Draining, 900)]);
        let lasted: Vec<(&str, &str)> = long.iter().map(|[name, lasted, _]| (name.as_str(), lasted.as_str())).collect();
        assert_eq!(lasted, [("running", "51s"), ("throttled", "5s"), ("waiting", "12s"), ("draining", "1s"), ("in all", "1m 9s")]);
        assert!(told(&[(Running, 5_000)]).is_empty(), "one phase alone says nothing");
    }

    #[test]
    fn of_many_times_in_a_phase_the_longest_are_listed() {
        let mut times = Vec::new();
        for nth in 1..=20 {
            times.extend([(PhaseKind::Running, 5_000), (PhaseKind::Waiting, nth * 1_000)]);
        }
        let rows = told(&times);
        let waiting = &rows.iter().find(|[name, ..]| name == "waiting").unwrap()[2];
        assert_eq!(waiting.matches(" to ").count(), SPANS_MAX);
        assert!(waiting.ends_with(", 8 shorter times"), "{waiting}");
    }
}
