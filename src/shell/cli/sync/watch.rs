//! Shows how far a sync is, and stops its planning when a signal comes.

use std::ops::ControlFlow;

use futures_util::{FutureExt, StreamExt};
use indicatif::MultiProgress;
use tokio::time::Instant;

use super::job::SyncJob;
use crate::domain::change::Wait;
use crate::domain::figures;
use crate::domain::outcome::OutcomeCounts;
use crate::flow::import::ImportProgress;
use crate::flow::sync::{MissingProgress, MissingWait, Observer, Step, SyncProgress};
use crate::io::gate::Rate;
use crate::io::journal;
use crate::io::journal::disk::OsDisk;
use crate::io::journal::paths::RunPaths;
use crate::shell::cli::columns;
use crate::shell::cli::environment;
use crate::shell::cli::notify;
use crate::shell::cli::page::PageWatch;
use crate::shell::cli::reach::Reach;
use crate::shell::cli::signals::Stops;
use crate::shell::screen::phase_bar::PhaseBar;
use crate::shell::screen::progress::{self, ProgressReporter, Start, Wanted};

/// Watches a sync.
pub(super) struct SyncWatch {
    wanted: Wanted,
    bars: MultiProgress,
    /// Signals, from the planning on. Before that, a signal ends the process.
    stops: Option<Stops>,
    /// Size of the file.
    bytes: u64,
    limit: Option<u64>,
    /// The rate of the calls that set tags.
    profile_rate: Rate,
    /// Whether requests get through.
    pub(super) reach: Reach,
    shown: OnScreen,
    /// Where this process begins, once the run has its checkpoint.
    begun: Option<Start>,
    page: PageWatch,
    paths: RunPaths,
}

/// What is on the screen.
enum OnScreen {
    Nothing,
    Phase(PhaseBar),
    Rows(Box<ProgressReporter>),
}

impl SyncWatch {
    pub(super) fn new(job: &SyncJob, bars: &MultiProgress, bytes: u64) -> Self {
        Self {
            wanted: job.typed.output.progress(),
            bars: bars.clone(),
            stops: None,
            bytes,
            limit: job.typed.limit,
            profile_rate: job.lanes.foreseen_profile_rate(),
            reach: Reach::new(&job.connection, &environment, Instant::now()),
            shown: OnScreen::Nothing,
            begun: None,
            page: job.page.clone(),
            paths: job.paths.clone(),
        }
    }

    /// Signals from now on: they no longer end the process.
    pub(super) fn stops(&mut self) -> Stops {
        self.stops.get_or_insert_with(Stops::new).clone()
    }

    /// Whether the run has its checkpoint.
    pub(super) const fn is_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// Takes everything off the screen.
    pub(super) fn clear(&mut self) {
        self.shown = OnScreen::Nothing;
    }

    fn phase(&mut self) -> &mut PhaseBar {
        if !matches!(self.shown, OnScreen::Phase(_)) {
            self.shown = OnScreen::Phase(PhaseBar::on_stderr(self.wanted, &self.bars, Instant::now()));
        }
        match &mut self.shown {
            OnScreen::Phase(bar) => bar,
            OnScreen::Nothing | OnScreen::Rows(_) => unreachable!("it was put there"),
        }
    }

    fn planning(&mut self, step: Step) -> ControlFlow<()> {
        let mut stops = self.stops();
        let (bytes, now) = (self.bytes, Instant::now());
        self.page.update(|page, now| page.plans(step_words(&step, bytes), now));
        match step {
            Step::Read(0) => {
                self.phase();
            }
            Step::Read(read) => self.phase().tell((read, bytes), "reading the file", "nothing is sent yet", now),
            Step::LookedAt(accounts, expected) => {
                let words = format!("{} looked at", figures::counted(accounts, "account"));
                self.phase().tell((accounts, expected.max(accounts)), &words, "planning, nothing is sent yet", now);
            }
            Step::Compared(read) => {
                self.phase().tell((read, bytes), "comparing the missing accounts with the file", "nothing is sent yet", now);
            }
        }
        if stops.next().now_or_never().is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn sending(&mut self, progress: &ImportProgress) {
        let now = Instant::now();
        self.reach.heed(progress.requests.calls, &progress.requests.phase, now);
        let rows = self.begun.map_or(0, |begun| begun.rows_done) + progress.counts.rows();
        notify::came_round(|| progress::done_words(rows, &progress.requests));
        if !matches!(self.shown, OnScreen::Rows(_)) {
            let start = self.begun.unwrap_or_default();
            self.shown = OnScreen::Rows(Box::new(ProgressReporter::on_stderr(self.wanted, &self.bars, start, now)));
        }
        if let OnScreen::Rows(reporter) = &mut self.shown {
            reporter.tell(progress, now);
        }
        self.page.update(|page, _| page.sends(progress));
    }

    /// The run has its checkpoint, which also says what earlier processes came to.
    fn begins(&mut self, start: Start) {
        let before = journal::read_checkpoint(&OsDisk, &self.paths).map_or(OutcomeCounts::default(), |checkpoint| checkpoint.counts);
        let start = Start { rows_done: before.rows(), ..start };
        self.begun = Some(start);
        self.page.update(|page, now| page.begins(start, before, now));
    }

    fn missing(&mut self, MissingProgress { calls, acted, due }: &MissingProgress) {
        let words = format!("missing accounts: {} of {} done", figures::count(*acted), figures::count(*due));
        let detail = progress::state(calls);
        notify::came_round(|| format!("{words}, {detail}"));
        self.page.update(|page, _| page.acts(calls));
        self.phase().tell((*acted, *due), &words, &detail, Instant::now());
    }
}

impl Observer for SyncWatch {
    fn on(&mut self, progress: SyncProgress) -> ControlFlow<()> {
        match progress {
            SyncProgress::Header(header) => {
                columns::announce(header);
                if let Some(words) = columns::cost_of_tags(header, self.profile_rate) {
                    tracing::info!("{words}");
                }
            }
            SyncProgress::Planning(step) => {
                notify::does("sync: planning");
                return self.planning(step);
            }
            SyncProgress::Begun { rows_settled, offset } => {
                self.begins(Start { rows_done: 0, rows_settled, offset, input_bytes: Some(self.bytes), limit: self.limit });
            }
            SyncProgress::Sending(progress) => self.sending(progress),
            SyncProgress::RowsDone => {
                notify::does("sync: finishing");
                self.page.update(|page, _| page.ends_part());
                self.clear();
            }
            SyncProgress::MissingWait(wait) => tell_wait(wait),
            SyncProgress::Missing(progress) => self.missing(&progress),
            SyncProgress::Committed | SyncProgress::StateFinished => notify::does("sync: finishing"),
        }
        ControlFlow::Continue(())
    }
}

/// A step of the planning in words.
fn step_words(step: &Step, bytes: u64) -> String {
    let share = |read: u64| figures::percent(read, bytes);
    match step {
        Step::Read(read) => format!("reading the file, {}", share(*read)),
        Step::LookedAt(accounts, _) => format!("planning, {} looked at", figures::counted(*accounts, "account")),
        Step::Compared(read) => format!("comparing the missing accounts with the file, {}", share(*read)),
    }
}

/// Says that kicks and deletions wait, since when, and what is to be done about it.
fn tell_wait(wait: &MissingWait) {
    let nights = figures::counted(wait.nights, "night");
    let way_out = match wait.why {
        Wait::Malformed => format!(
            "the file is malformed: {}; mend it where it comes from, or --allow malformed",
            wait.malformed.as_deref().unwrap_or("a row cannot be read for certain"),
        ),
        Wait::FailedRows => {
            format!("it is not known what came of {}; they come with the next run", figures::counted(wait.unknown_rows, "row"))
        }
        Wait::FileChanged => "the file has changed since it was planned; the same command makes a new plan".to_owned(),
        Wait::Limit => "--limit settles a part of the rows; the same command without it comes to them".to_owned(),
    };
    tracing::warn!("the missing accounts wait ({nights} by now): {way_out}");
}
