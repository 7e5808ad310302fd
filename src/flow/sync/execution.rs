//! Carries a planned sync out: it sends the records, then handles the missing accounts, then the state takes over what came of it.

use std::io;
use std::rc::Rc;
use std::time::SystemTime;

use futures_util::stream::LocalBoxStream;

use super::missing_jobs::{MissingCounts, MissingError, MissingJobs, missing_counts, write_missing};
use super::missing_rules::MissingPolicy;
use super::observer::{MissingProgress, MissingWait, SyncError, SyncProgress};
use super::planned_records::{FeedError, FeedPlan, PlannedRecords, SyncOutcomeSink};
use super::setup::{Locks, Setup};
use crate::domain::call_stats::CallStats;
use crate::domain::change::{Op, Ops, PlanCounts, Wait, milliseconds};
use crate::domain::halt_reason::HaltReason;
use crate::domain::outcome::OutcomeCounts;
use crate::domain::planned_work::PlanWalk;
use crate::domain::position::InputPosition;
use crate::domain::verdict::SuccessSeen;
use crate::flow::calls::{self, CallsFailed};
use crate::flow::dispatch::{AbortCause, Clocks, DispatchDependencies, DispatchSettings, Known, Progress};
use crate::flow::import::{
    self, ImportEnd, ImportEnds, ImportFailed, ImportOutcome, ImportProgress, ImportSettings, ImportedRows, Lane, SendOutcomes,
};
use crate::io::api::Api;
use crate::io::api::usersig::Signer;
use crate::io::files::atomic::{AtomicFile, Readers};
use crate::io::journal::disk::OsDisk;
use crate::io::journal::{self, DiskError, Journal, OutcomeSink, RunSpec, StartMode};
use crate::io::roster::{self, InputReader, Roster, RosterError};
use crate::io::state::{Finish, OpenRun, RunInput, RunTotals, StateDb, StateError};

/// Records whose intent to be sent is recorded in the state at once, each time with a sync of the disk. Chosen: a second's worth, so that the syncs take
/// well under a hundredth of the time.
const AHEAD_SINGLE: u64 = 256;
const AHEAD_BATCH: u64 = 16_384;

/// What a sync sends with; time, randomness and signals come from outside.
#[expect(missing_debug_implementations, reason = "it holds closures")]
pub struct Dependencies<A> {
    pub api: A,
    /// Signs for each phase anew.
    pub signer: Box<dyn Fn() -> Signer>,
    /// Uniform in `0.0..1.0`.
    pub jitter: fn() -> f64,
    /// The signals from now on: the first one stops a phase gently, the second at once. What comes between two phases is the next one's.
    pub signals: Box<dyn Fn() -> LocalBoxStream<'static, ()>>,
    /// As for an import; what the run has done so far is filled in.
    pub settings: ImportSettings,
    /// Records that are announced to the state at once; `None` for what suits the lane.
    pub ahead: Option<u64>,
}

/// A sync about to send its first request.
pub struct Ready {
    setup: Setup,
    open_run: OpenRun,
    ops: Rc<Ops>,
    journal: Journal<OsDisk>,
    /// At the start of the file.
    roster: Roster<InputReader>,
    /// Missing ids that are spared because a record looks like them.
    lookalikes: u64,
}

impl std::fmt::Debug for Ready {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ready").field("open_run", &self.open_run).finish_non_exhaustive()
    }
}

/// What a sync has come to, however it ended.
#[derive(Debug)]
pub struct SyncReport {
    /// [`ImportEnd::Finished`] if everything is done, the missing accounts included.
    pub end: Result<ImportEnd<FeedError>, SyncError>,
    pub plan: PlanCounts,
    /// Outcomes of the whole run, and of this process.
    pub counts: OutcomeCounts,
    pub this_process: OutcomeCounts,
    pub traffic: CallStats,
    /// The lane that the run took in the end.
    pub lane: Lane,
    pub missing: MissingCounts,
    /// Why kicks and deletions wait for a later run.
    pub wait: Option<Wait>,
    /// Rows and accounts that were given up only after a long wait.
    pub unjudged: u64,
    /// Records without an outcome; `None` once all have theirs.
    pub remaining: Option<u64>,
    /// Rows that were settled when this process began.
    pub resumed_at_row: u64,
    /// Blank lines that this process has passed.
    pub blank_lines: u64,
}

impl Ready {
    /// Opens the files of a run that the state has begun.
    pub(super) fn open(
        setup: Setup,
        (start, spec): (StartMode, RunSpec),
        (open_run, ops): (OpenRun, Ops),
        locks: Locks,
    ) -> Result<Self, SyncError> {
        let roster = setup.roster()?;
        let (is_resumed, work) = (matches!(start, StartMode::Resume { .. }), spec.work);
        let journal = journal::open(start, (OsDisk, locks.run), setup.paths.clone(), spec, setup.now());
        if journal.is_ok() || journal::read_checkpoint(&OsDisk, &setup.paths).is_some_and(|checkpoint| checkpoint.work == work) {
            locks.state.keep();
            let InputPosition { rows, offset, .. } = journal.as_ref().map_or(InputPosition::START, Journal::settled);
            setup.observe(SyncProgress::Begun { rows_settled: rows, offset })?;
        }
        let journal = journal?;
        let mut state = StateDb::open(&setup.state)?;
        if is_resumed {
            state.go_on(journal.settled().rows)?;
        }
        let lookalikes = state.lookalikes()?;
        Ok(Self { setup, open_run, ops: Rc::new(ops), journal, roster, lookalikes })
    }

    /// Where this process begins in the file.
    #[must_use]
    pub fn start(&self) -> InputPosition {
        self.journal.settled()
    }

    /// Sends what the plan says, handles the missing accounts, and lets the state take over what came of both.
    pub async fn run<A: Api + Clone + 'static>(self, dependencies: Dependencies<A>) -> SyncReport {
        let Self { setup, open_run, ops, journal, roster, lookalikes } = self;
        let (start, before, blank) = (journal.settled(), journal.counts(), roster.blank_lines());
        let mut report = SyncReport {
            end: Ok(ImportEnd::Aborted(AbortCause::Signal)),
            plan: open_run.counts,
            counts: before,
            this_process: OutcomeCounts::default(),
            traffic: CallStats::default(),
            lane: dependencies.settings.lane,
            missing: MissingCounts { lookalikes, ..MissingCounts::default() },
            wait: None,
            unjudged: 0,
            remaining: None,
            resumed_at_row: start.rows,
            blank_lines: 0,
        };
        let sending = SyncSteps { setup, open_run, dependencies };
        report.end = sending.go((journal, roster, Rc::clone(&ops)), &mut report).await;
        report.blank_lines = blank.count();
        report
    }
}

/// The phases of a run.
struct SyncSteps<A> {
    setup: Setup,
    open_run: OpenRun,
    dependencies: Dependencies<A>,
}

/// What the import of a sync comes to.
type ImportEnded = Result<ImportOutcome<SyncOutcomeSink<OsDisk>, FeedError>, ImportFailed<DiskError>>;

impl<A: Api + Clone + 'static> SyncSteps<A> {
    async fn go(
        &self,
        (journal, roster, ops): (Journal<OsDisk>, Roster<InputReader>, Rc<Ops>),
        report: &mut SyncReport,
    ) -> Result<ImportEnd<FeedError>, SyncError> {
        let (before, start) = (journal.counts(), journal.settled());
        let sent = match self.send(journal, roster, Rc::clone(&ops)).await? {
            Ok(sent) => sent,
            Err(ImportFailed { error, traffic, lane }) => {
                (report.traffic, report.lane) = (traffic, lane);
                report.counts = journal::read_checkpoint(&OsDisk, &self.setup.paths).map_or(before, |checkpoint| checkpoint.counts);
                report.this_process = report.counts - before;
                return Err(error.into());
            }
        };
        (report.counts, report.this_process, report.unjudged) = (before + sent.counts, sent.counts, sent.unjudged);
        (report.traffic, report.lane) = (sent.traffic, sent.lane);
        let end = match sent.end {
            ImportEnd::Finished if self.setup.limit.is_none() => return self.finish((sent.sink.0, &sent.imported_rows), report).await,
            ImportEnd::Finished | ImportEnd::LimitReached => {
                // The missing accounts wait for a run without a limit.
                report.wait =
                    self.setup.missing.planned_wait(self.open_run.counts.missing, self.open_run.malformed.is_some(), self.setup.limit);
                report.wait.map_or(Ok(()), |wait| self.tell_wait(wait, 0, &StateDb::open(&self.setup.state)?))?;
                ImportEnd::LimitReached
            }
            end => end,
        };
        let settled = sent.settled.unwrap_or(start);
        self.take_back_send_intent(settled.rows.max(sent.last_left.unwrap_or_default()));
        report.remaining = Some(remaining(&ops, settled));
        Ok(end)
    }

    /// No request has left for the rows behind this one, of those that this process has announced: they are not in doubt.
    fn take_back_send_intent(&self, last_left: u64) {
        // What an earlier process has announced it may have sent.
        let row = last_left.max(self.open_run.send_intent_up_to);
        let taken_back = StateDb::open(&self.setup.state).and_then(|mut state| state.take_back_send_intent(row, self.open_run.token));
        if let Err(error) = taken_back {
            tracing::warn!("rows that were not sent stay in doubt, so the next plan sends them all the same: {error}");
        }
    }

    /// Sends what the plan has to be sent. The outer error is that of the input or the state, before anything is sent.
    async fn send(&self, journal: Journal<OsDisk>, roster: Roster<InputReader>, ops: Rc<Ops>) -> Result<ImportEnded, SyncError> {
        let Self { setup, open_run, dependencies } = self;
        let start = journal.settled();
        let roster = roster.skip_to(start).map_err(RosterError::from)?;
        let settings = dependencies.settings.clone().resumed(&journal, setup.limit);
        let by_lane = if matches!(settings.lane, Lane::Batch(_)) { AHEAD_BATCH } else { AHEAD_SINGLE };
        let input = RunInput { stat: setup.input.stat, ..open_run.input };
        let (send_intent_up_to, ahead) = (open_run.send_intent_up_to, dependencies.ahead.unwrap_or(by_lane));
        let (tags, original) = (open_run.tags.clone(), setup.input.original.clone());
        let mut walk = PlanWalk::new((Rc::clone(&ops), start.rows), &tags, setup.limit);
        let planned = FeedPlan { ops, tags, input, send_intent_up_to, ahead, limit: setup.limit, original };
        let observer = Rc::clone(&setup.observer);
        let ends = ImportEnds {
            records: PlannedRecords::new(roster, setup.input.file.clone(), StateDb::open(&setup.state)?, planned, self.wall()),
            sink: SyncOutcomeSink(journal),
            on_progress: Box::new(move |progress| {
                let planned = Some(walk.after(progress.counts.rows() + progress.rows_waiting));
                let _ = observer.borrow_mut().on(SyncProgress::Sending(&ImportProgress { planned, ..progress.clone() }));
            }),
        };
        Ok(import::run(self.engine(), ends, settings).await)
    }

    /// What a phase sends with.
    fn engine(&self) -> DispatchDependencies<A> {
        let Dependencies { api, signer, jitter, signals, .. } = &self.dependencies;
        let clocks = Clocks { wall: self.wall(), jitter: Box::new(*jitter) };
        DispatchDependencies { api: api.clone(), signer: signer(), clocks, signals: signals() }
    }

    fn wall(&self) -> Box<dyn Fn() -> SystemTime> {
        let wall = Rc::clone(&self.setup.wall);
        Box::new(move || wall())
    }

    /// All rows have their outcomes: the missing accounts, then the state, then the checkpoint.
    async fn finish(
        &self,
        (mut journal, imported_rows): (Journal<OsDisk>, &ImportedRows),
        report: &mut SyncReport,
    ) -> Result<ImportEnd<FeedError>, SyncError> {
        self.setup.observe(SyncProgress::RowsDone)?;
        let left = self.own_results(imported_rows)?;
        let mut state = StateDb::open(&self.setup.state)?;
        let run = (self.open_run.number, self.open_run.token);
        // Nobody is kicked, and nothing ends as finished, by a state that knows nothing of this run.
        state.ensure_open(run.0, run.1)?;
        report.wait = self.wait_after_sending(left.unknown)?;
        if let Some(wait) = report.wait {
            self.tell_wait(wait, left.unknown, &state)?;
        } else if self.setup.missing.policy != MissingPolicy::Report {
            let stopped = self.handle_missing(&mut state, report).await;
            report.missing = missing_counts(&state)?;
            if !matches!(stopped, Ok(None)) {
                // What was done is told, whatever becomes of the run.
                self.write_missing(&state)?;
            }
            if let Some(cause) = stopped? {
                return Ok(ImportEnd::Aborted(cause));
            }
        }
        if self.open_run.counts.missing > 0 {
            report.missing = self.write_missing(&state)?;
        }
        let at = milliseconds(self.setup.now());
        state.finish(left, Finish { run, at, done: totals(report), missing_waits: report.wait.map(Wait::name) })?;
        self.setup.observe(SyncProgress::StateFinished)?;
        journal.finish()?;
        Ok(ImportEnd::Finished)
    }

    fn own_results(&self, imported_rows: &ImportedRows) -> Result<SendOutcomes, SyncError> {
        let paths = &self.setup.paths;
        let read = || match journal::committed_results(paths)? {
            Some(results) => SendOutcomes::read(results, &self.setup.input.format.cells, Some(imported_rows), self.setup.scratch_folder()),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "they are not what the checkpoint says of them")),
        };
        read().map_err(|source| SyncError::Results { path: paths.results.clone(), source })
    }

    /// Why kicks and deletions wait, now that all rows have their outcomes.
    fn wait_after_sending(&self, unknown_rows: u64) -> Result<Option<Wait>, SyncError> {
        let Self { setup, open_run, .. } = self;
        let missing = open_run.counts.missing;
        let known = setup.missing.planned_wait(missing, open_run.malformed.is_some(), setup.limit);
        if known.is_some() || setup.missing.policy == MissingPolicy::Report || missing == 0 {
            return Ok(known);
        }
        if open_run.missing_waits.is_some() {
            // It is allowed by now, but nobody has judged how many are due.
            return Ok(Some(Wait::Malformed));
        }
        if unknown_rows > 0 {
            return Ok(Some(Wait::FailedRows));
        }
        Ok(self.has_input_changed()?.then_some(Wait::FileChanged))
    }

    /// Whether the file is another one than was planned, or says something else.
    fn has_input_changed(&self) -> Result<bool, RosterError> {
        let input = &self.setup.input;
        if let Some(original) = &input.original {
            return Ok(original.has_changed(&input.path)?);
        }
        let named = match roster::fingerprint(&input.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            named => named?,
        };
        if named.inode != input.file.fingerprint()?.inode {
            return Ok(true);
        }
        if named == input.stat {
            return Ok(false);
        }
        // Touched, which may mean nothing.
        let end = Roster::open(&input.path, &input.format)?.read_to_end()?;
        Ok((end.offset, end.digest) != (self.open_run.input.len, self.open_run.input.digest))
    }

    /// Tells that kicks and deletions wait.
    fn tell_wait(&self, why: Wait, unknown_rows: u64, state: &StateDb) -> Result<(), SyncError> {
        let runs = state.runs(u32::MAX)?;
        let last = runs.iter().find(|run| run.finished_at.is_some() && run.command == "sync");
        let nights = last.and_then(|last| last.missing_waited).unwrap_or_default() + 1;
        let wait = MissingWait { why, nights, unknown_rows, malformed: self.open_run.malformed.clone() };
        self.setup.observe(SyncProgress::MissingWait(&wait))
    }

    /// Kicks or deletes who is due, as far as the service and the signals let it; what stopped it, if something did.
    async fn handle_missing(&self, state: &mut StateDb, report: &mut SyncReport) -> Result<Option<AbortCause>, SyncError> {
        let due = state.due_left()?;
        let observer = Rc::clone(&self.setup.observer);
        let on_progress = Box::new(move |calls: &Progress, missing: &MissingJobs| {
            let progress = MissingProgress { calls, acted: missing.counts().acted(), due };
            let _ = observer.borrow_mut().on(SyncProgress::Missing(progress));
        });
        let missing = MissingJobs::new(state, self.setup.missing.clone());
        let import = self.dependencies.settings.dispatch.clone();
        let settings = DispatchSettings { known: Known { seen: SuccessSeen::NotYet, ..import.known }, ..import };
        let (traffic, end) = match calls::run(self.engine(), (missing, on_progress), settings).await {
            Err(CallsFailed { error: MissingError::State(error), traffic }) => (traffic, Err(error.into())),
            Err(CallsFailed { error: MissingError::DeletionOff(says), traffic }) => {
                (traffic, Ok(Some(AbortCause::Refused { reason: HaltReason::DeletionOff, code: None, says })))
            }
            Ok(ended) => {
                report.unjudged += ended.unjudged;
                (ended.traffic, Ok(ended.cause))
            }
        };
        report.traffic.add(&traffic);
        end
    }

    /// Writes the missing file: whole, or as it was. It lasts before the state learns what it tells.
    fn write_missing(&self, state: &StateDb) -> Result<MissingCounts, StateError> {
        let path = &self.setup.paths.missing;
        let cannot = |source| StateError::File { what: "write", path: path.clone(), source };
        let mut file = AtomicFile::create(path, Readers::Owner).map_err(cannot)?;
        let counts = write_missing(state, &mut file).map_err(|error| match error {
            StateError::Source(source) => cannot(source),
            error => error,
        })?;
        file.take_name_durably().map_err(cannot)?;
        Ok(counts)
    }
}

fn totals(report: &SyncReport) -> RunTotals {
    let OutcomeCounts { created, updated, failed, .. } = report.counts;
    let MissingCounts { kicked, deleted, failed: missing_failed, .. } = report.missing;
    RunTotals { created, updated, failed, kicked, deleted, missing_failed }
}

/// Records that are still to get an outcome.
fn remaining(ops: &Ops, settled: InputPosition) -> u64 {
    (settled.rows + 1..=ops.rows()).filter(|row| ops.get(*row) != Op::Unchanged).count() as u64
}
