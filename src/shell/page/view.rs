//! The page as HTML: what the template shows, made of a [`RunPage`]. The template escapes all texts; only plotters' drawings go in as they are.

use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use askama::Template;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::course::{Legend, Plot, RowsForecast, Unit, called, plots, shades, whole};
use super::reasons::Reasons;
use super::tables::{
    ApiRow, CodeRow, DataTable, GuardRow, PhaseRow, ReasonsView, apis, codes, commands, data_table, files, guard_row, phases, plan,
    reasons, shown, shown_whole,
};
use super::{Awaits, PageEnd, RunPage};
use crate::domain::comparison::FindingCounts;
use crate::domain::figures::{self, count, counted};
use crate::domain::series::PhaseKind;
use crate::shell::exit::Exit;
use crate::shell::screen::end_summary::Figures;
use crate::shell::screen::progress::quota_words;
use crate::shell::screen::summary::Summary;
use crate::shell::screen::verified::Verified;

const STYLE: &str = include_str!("templates/page.css");
const SCRIPT: &str = include_str!("templates/live.js");

/// Who a page is for.
#[derive(Debug, Clone, Copy)]
pub enum Audience<'a> {
    /// Whoever can reach the address: counts only.
    Live,
    /// Who may read the file.
    File { reasons: Option<&'a Reasons>, examples: ReportExamples },
}

/// Whether a report has examples of rejected rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportExamples {
    Shown,
    LeftOut,
}

#[derive(Template)]
#[template(path = "page.html", config = "src/shell/page/askama.toml")]
struct Html<'a> {
    policy: String,
    style: &'static str,
    script: Option<&'static str>,
    page: &'a RunPage,
    ending: Ending,
    progress: Option<ProgressLine>,
    cards: Vec<Card>,
    bar: Vec<BarPart>,
    facts: Vec<(&'static str, String)>,
    plots: Vec<Plot>,
    shades: Vec<Legend>,
    phases: Vec<PhaseRow>,
    table: DataTable,
    apis: Vec<ApiRow>,
    codes: Vec<CodeRow>,
    plan: Vec<(&'static str, String)>,
    guards: Vec<GuardRow>,
    reasons: Option<ReasonsView>,
    files: Vec<(&'static str, String, String)>,
    commands: Vec<(&'static str, &'a str)>,
    version: &'static str,
}

/// How the run ended, or that it has not.
struct Ending {
    /// The colour.
    tone: &'static str,
    mark: &'static str,
    badge: String,
    sentence: String,
    hint: Option<String>,
}

struct ProgressLine {
    done: u64,
    total: u64,
    words: String,
}

struct Card {
    label: &'static str,
    value: String,
    tone: &'static str,
}

/// A part of the bar that shows how the rows are divided.
struct BarPart {
    tone: &'static str,
    x: u64,
    width: u64,
}

/// The page.
///
/// # Panics
/// Never: the template writes to a text.
#[must_use]
pub fn html(page: &RunPage, audience: Audience<'_>, now: Instant) -> String {
    let is_live = matches!(audience, Audience::Live);
    let figures = page.figures_at(now);
    let points = page.series.points();
    let (cards, bar) = cards(&figures);
    let html = Html {
        policy: policy(audience),
        style: STYLE,
        script: is_live.then_some(SCRIPT),
        page,
        ending: ending(page, audience),
        progress: progress(page),
        cards,
        bar,
        facts: facts(page, &figures, now),
        plots: if page.end.is_some() && called(&points).is_empty() {
            Vec::new()
        } else {
            plots(&points, (page.start.rows_done, unit(page)), forecast(page))
        },
        shades: shades(&points),
        phases: phases(&page.series, &points),
        table: data_table(&page.series),
        apis: apis(&figures),
        codes: codes(page, &figures),
        plan: plan(&figures),
        guards: page.guards.iter().map(|judged| guard_row(judged, audience)).collect(),
        reasons: reasons(audience),
        files: if is_live { Vec::new() } else { files(page) },
        commands: if is_live { Vec::new() } else { commands(page) },
        version: env!("CARGO_PKG_VERSION"),
    };
    html.render().expect("a text takes everything")
}

impl Html<'_> {
    /// The input by its name alone on a page that is served, else as it was named.
    fn input(&self) -> String {
        let input = &self.page.subject.input;
        let name = Path::new(input).file_name().map_or_else(|| input.clone(), |name| name.to_string_lossy().into_owned());
        shown(if self.script.is_some() { &name } else { input })
    }
}

/// What a page may load: nothing but its own style, and the live page its own script and its own address.
pub(super) fn policy(audience: Audience<'_>) -> String {
    static STYLE_HASH: LazyLock<String> = LazyLock::new(|| hash(STYLE));
    static SCRIPT_HASH: LazyLock<String> = LazyLock::new(|| hash(SCRIPT));
    let own = format!("default-src 'none'; style-src {}; base-uri 'none'; form-action 'none'", *STYLE_HASH);
    match audience {
        Audience::Live => format!("{own}; script-src {}; connect-src 'self'; img-src data:", *SCRIPT_HASH),
        Audience::File { .. } => own,
    }
}

fn hash(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)))
}

fn ending(page: &RunPage, audience: Audience<'_>) -> Ending {
    match (&page.end, audience) {
        (None, _) => running(page, audience),
        (Some(end), Audience::Live) => Ending { sentence: "The run is over.".to_owned(), hint: None, ..ended(end, page) },
        (Some(end), Audience::File { examples: ReportExamples::LeftOut, .. }) if may_name_somebody(end.exit) => Ending {
            sentence: "The message is left out, since it may name a UserID (--report-anonymous).".to_owned(),
            hint: None,
            ..ended(end, page)
        },
        (Some(end), Audience::File { .. }) => ended(end, page),
    }
}

/// Whether the message of such an end may have words of the service, or the name of a canary.
const fn may_name_somebody(exit: Exit) -> bool {
    match exit {
        Exit::Stopped | Exit::Refused | Exit::Guarded | Exit::OfProgram(_) => true,
        Exit::Done | Exit::SomeRowsRejected | Exit::Fatal | Exit::UserError | Exit::Busy => false,
    }
}

fn running(page: &RunPage, audience: Audience<'_>) -> Ending {
    let told = |words: &str| {
        if words.is_empty() || !matches!(audience, Audience::File { examples: ReportExamples::Shown, .. }) {
            String::new()
        } else {
            format!(": {}", shown(words))
        }
    };
    let (tone, mark, badge, sentence) = match page.phase {
        PhaseKind::Planning => ("busy", "…", "Planning", format!("{}; no request has been sent yet.", page.doing)),
        PhaseKind::Running => ("busy", "▶", "Running", "Requests get through.".to_owned()),
        PhaseKind::Throttled => {
            ("warn", "▶", "Throttled", "The service refuses requests as too fast; the run goes on as fast as it lets through.".to_owned())
        }
        PhaseKind::Waiting => {
            let what = match page.awaits {
                Awaits::Service => "The service is down; one probe at a time tests whether it is back",
                Awaits::Quota => "The store of the shared limit does not answer; requests wait for it",
            };
            ("bad", "‖", "Waiting", format!("{what}{}.", told(&page.doing)))
        }
        PhaseKind::Draining => ("warn", "‖", "Stopping", "No further request leaves; those in flight may end.".to_owned()),
    };
    Ending { tone, mark, badge: badge.to_owned(), sentence, hint: None }
}

fn ended(end: &PageEnd, page: &RunPage) -> Ending {
    let (tone, mark, badge) = match end.exit {
        Exit::Done => ("good", "✓", "Done"),
        Exit::SomeRowsRejected if page.dry_run => ("warn", "!", "Some rows would be rejected"),
        Exit::SomeRowsRejected if page.subject.command == "verify" => ("warn", "!", "Finished with findings"),
        Exit::SomeRowsRejected => ("warn", "!", "Finished, some rows rejected"),
        Exit::Stopped | Exit::Busy => ("warn", "‖", "Stopped before the end"),
        Exit::Guarded => ("bad", "✕", "Refused by a safety check"),
        Exit::UserError => ("bad", "✕", "Needs fixing"),
        Exit::Refused => ("bad", "✕", "Refused by the service"),
        Exit::Fatal | Exit::OfProgram(_) => ("bad", "✕", "Could not go on"),
    };
    let badge = format!("{badge} (exit code {})", end.exit.code());
    Ending { tone, mark, badge, sentence: sentence(&end.why, page), hint: end.hint.as_deref().map(shown_whole) }
}

/// Words as a sentence. A name at its front, of a file or of an API, stays as it is.
fn sentence(words: &str, page: &RunPage) -> String {
    let is_file = page.subject.files.iter().any(|file| words.starts_with(&*file.path.to_string_lossy()));
    let words = shown_whole(words);
    let end = if words.ends_with(['.', '!', '?']) { "" } else { "." };
    let first_word = words.split(' ').next().unwrap_or_default();
    if is_file || !first_word.trim_end_matches(',').chars().all(char::is_alphabetic) {
        return format!("{words}{end}");
    }
    let mut chars = words.chars();
    let first = chars.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}{end}", chars.as_str())
}

fn progress(page: &RunPage) -> Option<ProgressLine> {
    let total = page.to_do().filter(|_| page.end.is_none())?;
    let done = page.rows_done.min(total);
    let left = page.left.map_or(String::new(), |left| format!(", about {} left", whole(left)));
    let Unit { noun, done: verb } = unit(page);
    let waiting = match page.rows_waiting {
        0 => String::new(),
        1 => format!(", 1 more waits for an earlier {noun}"),
        rows => format!(", {} more wait for an earlier {noun}", count(rows)),
    };
    Some(ProgressLine { done, total, words: format!("{} of {} {verb}{waiting}{left}", count(done), counted(total, noun)) })
}

/// What the run gets done.
fn unit(page: &RunPage) -> Unit {
    if page.subject.command == "verify" { Unit { noun: "UserID", done: "asked" } } else { Unit { noun: "row", done: "processed" } }
}

fn forecast(page: &RunPage) -> Option<RowsForecast> {
    // A run that was stopped shows where it was going.
    Some(RowsForecast { left: page.left?, rows_total: page.to_do()? })
}

fn cards(figures: &Figures) -> (Vec<Card>, Vec<BarPart>) {
    let (first, parts): Parts = match figures {
        Figures::Rows(summary) => of_rows(summary),
        Figures::Verification(verified) => of_verification(verified),
    };
    let bar = bar(&parts);
    let card = |(label, value, tone): (&'static str, u64, &'static str)| Card {
        label,
        value: count(value),
        tone: if value == 0 { "none" } else { tone },
    };
    let all = [(first.0, first.1, "plain")].into_iter().chain(parts);
    (all.map(card).collect(), bar)
}

/// The number of rows, and of what: label, number, colour.
type Parts = ((&'static str, u64), Vec<(&'static str, u64, &'static str)>);

fn of_rows(summary: &Summary) -> Parts {
    let Summary { counts, sync, .. } = summary;
    let rejected = [("failed", counts.failed, "bad"), ("invalid", counts.invalid, "warn")];
    match sync {
        None => (("rows", counts.rows()), [("imported", counts.imported, "good")].into_iter().chain(rejected).collect()),
        Some(sync) => {
            let accepted =
                [("created", counts.created, "good"), ("updated", counts.updated, "busy"), ("unchanged", sync.plan.unchanged, "still")];
            let last = [("superseded", counts.superseded, "quiet")];
            (("rows", sync.plan.records()), accepted.into_iter().chain(rejected).chain(last).collect())
        }
    }
}

fn of_verification(verified: &Verified) -> Parts {
    let FindingCounts { same, missing, differs, unknown, invalid } = verified.counts;
    let parts = vec![
        ("same", same, "good"),
        ("missing", missing, "bad"),
        ("different", differs, "warn"),
        ("unknown", unknown, "quiet"),
        ("invalid", invalid, "busy"),
        ("not asked", verified.not_asked, "still"),
    ];
    (("rows", verified.rows), parts)
}

/// Thousandths of the bar; a part that there is has at least a few.
fn bar(parts: &[(&'static str, u64, &'static str)]) -> Vec<BarPart> {
    const WHOLE: u64 = 1_000;
    const LEAST: u64 = 4;
    let sum: u64 = parts.iter().map(|(_, value, _)| value).sum();
    let mut x = 0;
    let mut bar = Vec::new();
    for (_, value, tone) in parts.iter().filter(|(_, value, _)| *value > 0) {
        let share = u128::from(WHOLE) * u128::from(*value) / u128::from(sum);
        let width = u64::try_from(share).unwrap_or(WHOLE).max(LEAST);
        bar.push(BarPart { tone, x, width });
        x += width;
    }
    // What rounding has left or taken is the largest part's.
    if let Some(largest) = (0..bar.len()).max_by_key(|place| bar[*place].width) {
        bar[largest].width = (bar[largest].width + WHOLE).saturating_sub(x);
        let moved = i128::from(WHOLE) - i128::from(x);
        for part in &mut bar[largest + 1..] {
            part.x = u64::try_from(i128::from(part.x) + moved).unwrap_or(part.x);
        }
    }
    bar
}

fn facts(page: &RunPage, figures: &Figures, now: Instant) -> Vec<(&'static str, String)> {
    let traffic = figures.traffic();
    let mut facts = vec![("started", utc(page.began_at))];
    if let Some(end) = &page.end {
        facts.push(("ended", utc(end.at)));
    }
    facts.push(("duration", figures::duration(if page.end.is_some() { took(page) } else { page.elapsed(now) })));
    if let Figures::Rows(summary) = figures
        && summary.resumed_at_row > 0
    {
        facts.push(("continued after row", count(summary.resumed_at_row)));
    }
    facts.push(("requests", count(traffic.calls())));
    if traffic.calls() > 0 {
        if let Some(per_s) = traffic.shown_mean_per_s() {
            facts.push(("on average", format!("{} requests a second", figures::rate(per_s))));
        }
        let latency = traffic.latency();
        if let Some(quota) = traffic.quota {
            facts.extend(quota_words(quota).map(|words| ("shared limit", words)));
        }
        let percentiles = [latency.p50, latency.p95, latency.p99].map(count).join(" / ");
        facts.push(("latency p50 / p95 / p99, of all answers", format!("{percentiles} ms")));
    }
    facts
}

fn took(page: &RunPage) -> Duration {
    page.end.as_ref().and_then(|end| end.at.duration_since(page.began_at).ok()).unwrap_or_default()
}

fn utc(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string().replace('T', " ").replace('Z', " UTC")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::Subject;
    use super::*;
    use crate::domain::call_stats::{CallsSoFar, RunPhase};
    use crate::domain::command::Command;
    use crate::domain::outcome::OutcomeCounts;
    use crate::flow::dispatch::Progress;
    use crate::flow::import::{ImportProgress, Lane};
    use crate::shell::screen::progress::Start;

    /// The colours of a block of the stylesheet, by name.
    fn colours(block: &str) -> BTreeMap<&str, [f64; 3]> {
        let colour = |text: &str| {
            let channel = |place: usize| u8::from_str_radix(&text[place..place + 2], 16).ok().map(|value| f64::from(value) / 255.0);
            Some([channel(1)?, channel(3)?, channel(5)?])
        };
        let pairs = block.split([';', '{', '}', '\n']).filter_map(|pair| pair.trim().strip_prefix("--")?.split_once(": "));
        pairs.filter_map(|(name, value)| Some((name, colour(value)?))).collect()
    }

    /// The contrast of two colours. Source: WCAG 2.2, "contrast ratio" and "relative luminance".
    fn contrast(one: [f64; 3], other: [f64; 3]) -> f64 {
        let linear = |value: f64| if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) };
        let luminance = |[red, green, blue]: [f64; 3]| 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
        let [one, other] = [luminance(one), luminance(other)];
        (one.max(other) + 0.05) / (one.min(other) + 0.05)
    }

    #[test]
    fn texts_and_lines_stand_out_in_light_in_dark_and_on_paper() {
        let blocks: Vec<_> = STYLE.split(":root {").skip(1).map(|block| colours(block.split('}').next().unwrap())).collect();
        assert_eq!(blocks.len(), 3);
        for colours in blocks {
            let check = |text: &str, back: &str, least: f64| {
                let found = contrast(colours[text], colours[back]);
                assert!(found >= least, "{text} on {back}: {found:.2}");
            };
            for text in ["ink", "soft", "good", "warn", "bad", "busy", "plot-ink"] {
                check(text, "paper", 4.5);
            }
            check("ink", "panel", 4.5);
            for tone in ["good", "warn", "bad", "busy"] {
                check(tone, &format!("{tone}-tint"), 4.5);
                check("ink", &format!("{tone}-tint"), 4.5);
            }
            for shade in ["paper", "shade-planning", "shade-throttled", "shade-waiting", "shade-draining"] {
                check("plot-ink", shade, 4.5);
                for line in ["first", "second", "third", "fourth", "limit"] {
                    check(&format!("plot-{line}"), shade, 3.0);
                }
            }
        }
    }

    /// The page of an import that has run for so many seconds.
    fn page(seconds: u64) -> (RunPage, Instant) {
        let subject = Subject { command: "import", job: String::new(), input: "u.csv".to_owned(), files: Vec::new(), commands: Vec::new() };
        let began = Instant::now();
        let mut page = RunPage::new(subject, Figures::of_no_import(Lane::Single), (began, SystemTime::UNIX_EPOCH));
        page.begins(Start::default(), OutcomeCounts::default(), began);
        page.set_rows(1_000_000);
        let mut so_far = CallsSoFar::default();
        for second in 1..=seconds {
            so_far.stats.apis[Command::AccountImport].calls = second * 200 - second % 7;
            so_far.limits[Command::AccountImport] = Some(200.0);
            so_far.latency.time(Duration::from_millis(10 + second % 50));
            let counts = OutcomeCounts { imported: second * 200, ..OutcomeCounts::default() };
            let (calls, so_far) = (second * 200, so_far.clone());
            let progress = ImportProgress {
                requests: Progress {
                    at: began + Duration::from_secs(second),
                    phase: RunPhase::Running,
                    calls,
                    retries: 0,
                    in_flight: 1,
                    so_far,
                },
                counts,
                rows_waiting: 0,
                offset: None,
                planned: None,
            };
            page.sends(&progress);
        }
        (page, began + Duration::from_secs(seconds))
    }

    #[test]
    fn a_page_of_days_is_as_large_as_one_of_minutes() {
        let length = |seconds: u64| {
            let (page, now) = page(seconds);
            html(&page, Audience::Live, now).len()
        };
        let (minutes, days) = (length(590), length(400_000));
        assert!(days < 2 * minutes && days < 400_000, "{minutes} and {days} bytes");
    }

    #[test]
    fn parts_of_the_bar_fill_it() {
        for parts in [vec![1, 0, 0], vec![1_000_000, 1, 1], vec![1, 1, 1], vec![5, 1_000_000, 3], vec![0, 0]] {
            let parts: Vec<_> = parts.into_iter().map(|value| ("", value, "good")).collect();
            let bar = bar(&parts);
            let end = bar.iter().fold(0, |end, part| {
                assert!(part.x == end && part.width > 0, "{parts:?}");
                end + part.width
            });
            assert_eq!(end, if bar.is_empty() { 0 } else { 1_000 }, "{parts:?}");
        }
    }
}
