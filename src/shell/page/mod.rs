//! The page of a run: what it shows, as HTML for people (`view`), and as JSON and metrics for machines, while the run lasts and at its end.
//!
//! A [`RunPage`] is a value that whoever watches the run keeps up to date. Pages that are served name no UserID, no row and nothing that the
//! service said; a report may.

mod axis;
mod course;
mod open_metrics;
mod plot;
mod reasons;
pub mod server;
mod tables;
mod view;

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::exit::{Exit, ExitMessage};
use super::screen::end_summary::{EndSummary, Figures};
use super::screen::progress::{Forecast, Start};
use crate::domain::call_stats::{CallStats, CallsSoFar, RunPhase};
use crate::domain::change::PlanCounts;
use crate::domain::comparison::FindingCounts;
use crate::domain::guard::Judged;
use crate::domain::outcome::OutcomeCounts;
use crate::domain::series::{PhaseKind, RunMoment, Series};
use crate::flow::dispatch::Progress;
use crate::flow::import::ImportProgress;
use crate::io::journal::paths::RunPaths;
pub use reasons::Reasons;
pub use view::{Audience, ReportExamples, html};

/// What the page is about, as far as it is known from the start.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The subcommand.
    pub command: &'static str,
    /// What tells this run from those of other files: `--job`.
    pub job: String,
    /// The input, as it was named.
    pub input: String,
    pub files: Vec<PageFile>,
    pub commands: Vec<NextCommand>,
}

/// A command to go on with.
#[derive(Debug, Clone)]
pub struct NextCommand {
    /// What it is for.
    pub what: &'static str,
    pub command: String,
    pub needs: Needs,
}

/// Without what a command to go on with does not run.
#[derive(Debug, Clone)]
pub enum Needs {
    /// A checkpoint that can be read.
    Checkpoint(RunPaths),
    /// Results that can be read, and an input that is read as the flags say.
    Results(std::path::PathBuf),
    /// Rows that the service has accepted, from the same file and with the same flags.
    AcceptedRows,
}

/// A file of the run.
#[derive(Debug, Clone)]
pub struct PageFile {
    pub what: &'static str,
    pub path: std::path::PathBuf,
    pub written: WhenWritten,
}

/// When a file of the run is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenWritten {
    /// Once the run has begun to send. Before that it is an earlier run's.
    OnceBegun,
    /// It is read, or is written at every end.
    Always,
}

/// How the run ended.
#[derive(Debug, Clone)]
pub struct PageEnd {
    pub exit: Exit,
    pub why: String,
    pub hint: Option<String>,
    pub at: SystemTime,
}

/// How far a verification is.
#[derive(Debug, Clone, Copy)]
pub struct AskedSoFar {
    /// What was found, as far as it was told.
    pub counts: FindingCounts,
    /// UserIDs that are answered as well, but wait for an earlier one.
    pub waiting: u64,
    /// UserIDs that it asks about.
    pub ids: u64,
}

/// What a run waits for that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaits {
    Service,
    /// The store of a shared limit.
    Quota,
}

/// Which process has made the plan of a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PlanOrigin {
    Own,
    Earlier,
}

/// All that a page shows.
#[derive(Debug, Clone)]
pub struct RunPage {
    pub subject: Subject,
    /// The service and the app.
    pub target: Option<String>,
    began: Instant,
    began_at: SystemTime,
    /// Up to now, or at the end.
    figures: Figures,
    series: Series,
    phase: PhaseKind,
    /// What it does, where that is more than its phase says. It may hold words of the service.
    doing: String,
    awaits: Awaits,
    left: Option<Duration>,
    forecast: Forecast,
    start: Start,
    before: OutcomeCounts,
    rows_done: u64,
    /// Rows, or UserIDs, that are done as well, but wait for an earlier one.
    rows_waiting: u64,
    rows_total: Option<u64>,
    /// UserIDs that a verification asks about.
    ids: Option<u64>,
    guards: Vec<Judged>,
    /// It sends nothing, whatever it finds.
    dry_run: bool,
    /// The files of the run are this one's: requests were about to leave.
    has_begun: bool,
    plan_origin: PlanOrigin,
    /// Requests of the parts of the run that are over, and of this part.
    earlier: CallStats,
    part: CallStats,
    end: Option<PageEnd>,
}

impl RunPage {
    /// A command that begins now. `figures` are those of one that did nothing.
    #[must_use]
    pub fn new(subject: Subject, figures: Figures, (began, began_at): (Instant, SystemTime)) -> Self {
        let main = figures.traffic().main;
        Self {
            subject,
            target: None,
            began,
            began_at,
            figures,
            series: Series::new(0),
            phase: PhaseKind::Planning,
            doing: "reading the input".to_owned(),
            awaits: Awaits::Service,
            left: None,
            forecast: Forecast::new(began),
            start: Start::default(),
            before: OutcomeCounts::default(),
            rows_done: 0,
            rows_waiting: 0,
            rows_total: None,
            ids: None,
            guards: Vec::new(),
            dry_run: false,
            has_begun: false,
            plan_origin: PlanOrigin::Own,
            earlier: CallStats::to(main),
            part: CallStats::to(main),
            end: None,
        }
    }

    /// It is a dry run.
    pub const fn is_dry_run(&mut self) {
        self.dry_run = true;
    }

    /// The command, in words.
    fn command(&self) -> String {
        format!("{}{}", self.subject.command, if self.dry_run { " --dry-run" } else { "" })
    }

    /// It reads or plans; `words` say what.
    pub fn plans(&mut self, words: String, now: Instant) {
        (self.phase, self.doing, self.left) = (PhaseKind::Planning, words, None);
        let sample = RunMoment { phase: self.phase, rows: self.rows_done, calls: None };
        self.series.note(now - self.began, &sample);
    }

    /// Sets how many rows the input has.
    pub fn set_rows(&mut self, rows: u64) {
        self.rows_total = Some(rows);
        if let Figures::Verification(verified) = &mut self.figures {
            verified.rows = rows;
        }
    }

    /// Sets what a sync is going to do.
    pub fn set_plan(&mut self, plan: PlanCounts) {
        self.rows_total = Some(plan.records());
        if let Figures::Rows(summary) = &mut self.figures
            && let Some(sync) = &mut summary.sync
        {
            sync.plan = plan;
        }
    }

    /// What a sync goes on with that an earlier process has planned.
    pub fn resumes_plan(&mut self, plan: PlanCounts) {
        self.set_plan(plan);
        self.plan_origin = PlanOrigin::Earlier;
    }

    /// Whether the plan of this run was judged by an earlier process.
    fn was_judged_earlier(&self) -> bool {
        self.plan_origin == PlanOrigin::Earlier
    }

    /// Sets what the safety checks have found.
    pub fn set_guards(&mut self, guards: Vec<Judged>) {
        self.guards = guards;
    }

    /// Requests are about to leave; earlier processes of the run came to `before`.
    pub fn begins(&mut self, start: Start, before: OutcomeCounts, now: Instant) {
        (self.start, self.before, self.rows_done) = (start, before, start.rows_done);
        (self.forecast, self.rows_waiting, self.has_begun) = (Forecast::new(now), 0, true);
        let sample = RunMoment { phase: PhaseKind::Planning, rows: self.rows_done, calls: None };
        self.series.note(now - self.began, &sample);
        if let Figures::Rows(summary) = &mut self.figures {
            (summary.resumed_at_row, summary.counts) = (start.rows_settled, before);
        }
    }

    /// How far an import, or the rows of a sync, are.
    pub fn sends(&mut self, progress: &ImportProgress) {
        let now = progress.requests.at;
        self.rows_done = self.start.rows_done + progress.counts.rows();
        self.rows_waiting = progress.rows_waiting;
        self.left = self.forecast.left(progress, self.start, now);
        self.notes(&progress.requests);
        let traffic = self.traffic();
        if let Figures::Rows(summary) = &mut self.figures {
            (summary.counts, summary.traffic) = (self.before + progress.counts, traffic);
        }
    }

    /// How far a verification is.
    pub fn asks(&mut self, progress: &Progress, AskedSoFar { counts, waiting, ids }: AskedSoFar) {
        let now = progress.at;
        (self.rows_done, self.rows_waiting, self.ids) = (counts.asked(), waiting, Some(ids));
        self.has_begun = true;
        let answered = self.rows_done + waiting;
        self.left = self.forecast.left_of((answered, ids.saturating_sub(answered)), &progress.phase, now);
        self.notes(progress);
        let traffic = self.traffic();
        if let Figures::Verification(verified) = &mut self.figures {
            (verified.counts, verified.not_asked, verified.traffic) = (counts, ids.saturating_sub(counts.asked()), traffic);
        }
    }

    /// How far the kicks and deletions of a sync are.
    pub fn acts(&mut self, calls: &Progress) {
        self.left = None;
        self.notes(calls);
        let traffic = self.traffic();
        if let Figures::Rows(summary) = &mut self.figures {
            summary.traffic = traffic;
        }
    }

    /// Notes it at the time of its counts: whoever shows a run does other things first, and a point that is too long makes the next too short.
    fn notes(&mut self, Progress { at, phase, so_far, .. }: &Progress) {
        self.phase = phase.into();
        (self.awaits, self.doing) = match phase {
            RunPhase::Waiting { why, .. } => (Awaits::Service, why.clone()),
            RunPhase::WaitingForQuota { why, .. } => (Awaits::Quota, why.clone()),
            RunPhase::Running | RunPhase::Throttled { .. } | RunPhase::Draining => (Awaits::Service, String::new()),
        };
        if self.phase == PhaseKind::Waiting {
            self.left = None;
        }
        self.part = so_far.stats.clone();
        let sample = RunMoment { phase: self.phase, rows: self.rows_done, calls: Some(so_far) };
        self.series.note(*at - self.began, &sample);
    }

    /// The requests of all parts of this process.
    fn traffic(&self) -> CallStats {
        let mut traffic = self.part.clone();
        traffic.add(&self.earlier);
        traffic
    }

    /// A part of the run is over; the requests of the next one are counted from zero.
    pub fn ends_part(&mut self) {
        self.earlier = self.traffic();
        self.part = CallStats::to(self.earlier.main);
        self.rows_waiting = 0;
    }

    /// The command is over.
    pub fn ends(&mut self, word: &ExitMessage, summary: &EndSummary, now: Instant) {
        // A command that ended in mid-run with an error alone has figures of nothing done; what is known of the run says more.
        let was_cut_off = summary.figures.traffic().calls() == 0 && self.figures.traffic().calls() > 0;
        self.figures = if was_cut_off { self.figures_at(now).ended(word.exit) } else { summary.figures.clone() };
        self.phase = if self.phase == PhaseKind::Planning { self.phase } else { PhaseKind::Running };
        let rows = match &self.figures {
            Figures::Rows(summary) => summary.counts.rows(),
            Figures::Verification(verified) => verified.counts.asked(),
        };
        (self.rows_done, self.rows_waiting) = (self.rows_done.max(rows), 0);
        let last = self.last_calls();
        let sample = RunMoment { phase: self.phase, rows: self.rows_done, calls: Some(&last) };
        self.series.note(now - self.began, &sample);
        if self.to_do().is_none_or(|rows| self.rows_done >= rows) {
            self.left = None;
        }
        self.end = Some(PageEnd { exit: word.exit, why: word.why.clone(), hint: word.hint.clone(), at: summary.ended_at });
    }

    /// The requests of the last part, as its end counted them.
    fn last_calls(&self) -> CallsSoFar {
        let mut last = CallsSoFar::default();
        let traffic = self.figures.traffic();
        for (command, api) in traffic.apis.iter() {
            last.stats.apis[command].calls = api.calls.saturating_sub(self.earlier.apis[command].calls);
        }
        last
    }

    /// How many rows, or UserIDs, there are to be done. Unchanged rows of a sync get no result.
    fn to_do(&self) -> Option<u64> {
        let unchanged = match &self.figures {
            Figures::Rows(summary) => summary.sync.as_ref().map_or(0, |sync| sync.plan.unchanged),
            Figures::Verification(_) => 0,
        };
        self.ids.or_else(|| Some(self.rows_total?.saturating_sub(unchanged)))
    }

    /// How many rows were rejected.
    #[must_use]
    pub fn rejected(&self) -> u64 {
        match &self.figures {
            Figures::Rows(summary) => summary.counts.rejected(),
            Figures::Verification(verified) => {
                let FindingCounts { missing, differs, unknown, invalid, .. } = verified.counts;
                missing + differs + unknown + invalid
            }
        }
    }

    /// Whether the run gets on: it doesn't wait for the service.
    #[must_use]
    pub fn gets_on(&self) -> bool {
        self.phase != PhaseKind::Waiting || self.end.is_some()
    }

    /// The word for what the run does now.
    #[must_use]
    pub const fn phase_name(&self) -> &'static str {
        match self.end {
            Some(_) => "ended",
            None => self.phase.name(),
        }
    }

    fn elapsed(&self, now: Instant) -> Duration {
        now - self.began
    }

    /// The figures so far.
    fn figures_at(&self, now: Instant) -> Figures {
        let mut figures = self.figures.clone();
        if self.end.is_none() {
            match &mut figures {
                Figures::Rows(summary) => summary.elapsed = self.elapsed(now),
                Figures::Verification(verified) => verified.elapsed = self.elapsed(now),
            }
        }
        figures
    }

    /// The summary so far as JSON, with what the run does and how much is left.
    ///
    /// # Panics
    /// Never: a summary is a JSON object.
    #[must_use]
    pub fn status_json(&self, now: Instant) -> String {
        let summary = self.figures_at(now).to_json();
        let mut status: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&summary).expect("a summary is an object");
        if self.end.is_none() {
            status.insert("exit_code".to_owned(), serde_json::Value::Null);
            status.insert("outcome".to_owned(), "running".into());
        }
        status.insert("phase".to_owned(), self.phase_name().into());
        status.insert("left_s".to_owned(), self.left.map(|left| left.as_secs()).into());
        status.insert("rows_done".to_owned(), self.rows_done.into());
        status.insert("rows_waiting".to_owned(), self.rows_waiting.into());
        status.insert("rows_total".to_owned(), self.rows_total.into());
        let mut text = serde_json::to_string_pretty(&status).expect("it was JSON");
        text.push('\n');
        text
    }

    /// The figures as metrics, in the OpenMetrics text format.
    #[must_use]
    pub fn open_metrics(&self, now: Instant) -> String {
        open_metrics::text(self, now)
    }
}
