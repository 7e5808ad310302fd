//! How a sync begins: what it is given, and whether it resumes an unfinished run or plans a new one.
//!
//! Nothing is written before the plan is committed, except unnamed temporary files.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::SystemTime;
use std::{fmt, io};

use super::execution::Ready;
use super::lookalikes::compare;
use super::missing_rules::MissingRules;
use super::observer::{Observer, SyncError, SyncProgress};
use super::plan::SyncPlan;
use super::plan_draft::PlanDraft;
use super::planning::{PlanError, Policy, Scratch, Step, build_plan};
use super::scan::scan;
use crate::domain::account::UserId;
use crate::domain::cells::CellRules;
use crate::domain::change::PlanCounts;
use crate::domain::change::{Ops, PaddedId, milliseconds};
use crate::domain::figures;
use crate::domain::guard::{GuardInput, PastRun, most_held};
use crate::domain::position::{FileStat, InputChange};
use crate::domain::target::Target;
use crate::flow::check::{FIRST_RECORDS, FirstRecords};
use crate::flow::import::{self, SendOutcomes};
use crate::io::files::folder_of;
use crate::io::files::lock::Lockfile;
use crate::io::journal::checkpoint::{Checkpoint, RunKind};
use crate::io::journal::disk::OsDisk;
use crate::io::journal::paths::RunPaths;
use crate::io::journal::{self, Restart, RunSpec, StartDecision, StartMode};
use crate::io::roster::{self, Format, InputFile, InputReader, Original, Roster, RosterError};
use crate::io::state::{OpenRun, StateDb, StateError, StateLock};

/// The input of a sync.
#[derive(Debug, Clone)]
pub struct SyncInput {
    /// Its name, under which another file may stand by the end.
    pub path: PathBuf,
    /// All passes read this one.
    pub file: InputFile,
    /// What it is a copy of, if it is one of a file; then `path` is the name of that file.
    pub original: Option<Original>,
    pub stat: FileStat,
    pub format: Format,
}

/// Whether a sync is to be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    Run,
    /// Only a plan is wanted, of an unfinished run too.
    DryRun,
}

/// Who watches.
pub type SharedObserver = Rc<RefCell<dyn Observer>>;

/// What a sync works on.
pub struct Setup {
    /// Where the state is, or will be.
    pub state: PathBuf,
    pub paths: RunPaths,
    pub input: SyncInput,
    pub target: Target,
    pub missing: MissingRules,
    pub canaries: Vec<UserId>,
    /// Per cent of the first records that may be invalid.
    pub max_invalid: f64,
    pub restart: Restart,
    pub intent: Intent,
    /// Records that are handled at most.
    pub limit: Option<u64>,
    pub began_at: SystemTime,
    pub wall: Rc<dyn Fn() -> SystemTime>,
    /// Draws what a new state, or a run, is known by; never 0.
    pub draw: fn() -> u64,
    pub observer: SharedObserver,
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("state", &self.state).field("input", &self.input).finish_non_exhaustive()
    }
}

/// What keeps other processes off the run and off the state.
#[derive(Debug)]
pub struct Locks<'a> {
    pub run: Lockfile,
    pub state: &'a StateLock,
}

/// What there is to do.
#[derive(Debug)]
pub enum Prepared {
    Resume(Box<UnfinishedRun>),
    Plan(Box<SyncPlan>),
}

/// A run that an earlier process has begun, with the file as it still is.
#[derive(Debug)]
pub struct UnfinishedRun {
    setup: Setup,
    start: StartMode,
    spec: RunSpec,
    open_run: OpenRun,
    ops: Ops,
}

impl UnfinishedRun {
    /// What was planned for it.
    #[must_use]
    pub const fn plan(&self) -> PlanCounts {
        self.open_run.counts
    }

    /// Opens the files of the run where they were left.
    ///
    /// # Errors
    /// [`SyncError`] when they are not what they were, or can't be written.
    pub fn resume(self, locks: Locks) -> Result<Ready, SyncError> {
        let Self { setup, start, spec, open_run, ops } = self;
        Ready::open(setup, (start, spec), (open_run, ops), locks)
    }
}

/// Looks at state, file and what an earlier process has left, and plans unless that process' run is to be resumed.
///
/// # Errors
/// [`SyncError`] for a file or a state that can't be used, or a planning that was stopped.
pub fn prepare(setup: Setup) -> Result<Prepared, SyncError> {
    let state = StateDb::find(&setup.state)?;
    let open_run = state.as_ref().map(StateDb::open_run).transpose()?.flatten();
    let info = state.as_ref().map(StateDb::about).transpose()?;
    let identity = info.as_ref().map_or_else(setup.draw, |info| info.identity);
    setup.refuse_older_state(state.as_ref(), identity)?;
    setup.refuse_other_ids(state.as_ref())?;
    let spec = setup.run_spec(identity, open_run.as_ref())?;
    let start = setup.examine(&spec, open_run.as_ref())?;
    if let (StartMode::Resume { .. }, Some(state), Some(open_run), Intent::Run) = (&start, &state, &open_run, setup.intent) {
        let ops = state.ops(open_run.counts.records())?;
        return Ok(Prepared::Resume(Box::new(UnfinishedRun { setup, start, spec, open_run: open_run.clone(), ops })));
    }
    setup.judge_first_records()?;
    let (draft, blank_lines) = setup.draft(state.as_ref(), setup.left_results(spec.work, open_run.is_some())?)?;
    setup.ensure_input_unchanged(&draft)?;
    let other_target = info.and_then(|info| info.other_target(&setup.target));
    let guard_input = setup.guard_input(&draft, state.as_ref(), other_target)?;
    let (is_new_state, has_open_run) = (state.is_none(), open_run.is_some());
    Ok(Prepared::Plan(Box::new(SyncPlan { setup, draft, guard_input, start, spec, identity, is_new_state, has_open_run, blank_lines })))
}

impl Setup {
    /// Tells whoever watches.
    pub(super) fn observe(&self, progress: SyncProgress) -> Result<(), SyncError> {
        match self.observer.borrow_mut().on(progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(PlanError::Stopped.into()),
        }
    }

    pub(super) fn began_at(&self) -> i64 {
        milliseconds(self.began_at)
    }

    pub(super) fn now(&self) -> SystemTime {
        (self.wall)()
    }

    /// Refuses another reading of UUIDs than the last finished run's: their accounts would be missing under their old ids.
    fn refuse_other_ids(&self, state: Option<&StateDb>) -> Result<(), SyncError> {
        let before = state.map(StateDb::last_finished).transpose()?.flatten().and_then(|last| last.uuids);
        match before.filter(|before| *before != self.input.format.cells.uuids) {
            Some(before) => Err(SyncError::OtherIds { before }),
            None => Ok(()),
        }
    }

    /// Refuses a state that is older than the checkpoint beside it.
    fn refuse_older_state(&self, state: Option<&StateDb>, identity: u64) -> Result<(), SyncError> {
        let Some(checkpoint) = journal::read_checkpoint(&OsDisk, &self.paths) else { return Ok(()) };
        let RunKind::Sync { state: known, run, token } = checkpoint.work else { return Ok(()) };
        let (Some(state), false) = (state, known != identity || self.restart == Restart::Asked) else { return Ok(()) };
        match how_older(state, (run, token), checkpoint.settled.rows)? {
            Some(why) => Err(SyncError::OlderState { why: format!("{} {why}", self.state.display()) }),
            None => Ok(()),
        }
    }

    /// The file from its start.
    pub(super) fn roster(&self) -> Result<Roster<InputReader>, RosterError> {
        Roster::of(&self.input.file, &self.input.format)
    }

    /// What the checkpoint is to say of the run; `open_run` is the one that the state has begun.
    fn run_spec(&self, identity: u64, open_run: Option<&OpenRun>) -> Result<RunSpec, SyncError> {
        let roster = self.roster()?;
        self.observe(SyncProgress::Header(roster.header()))?;
        let (run, token) = open_run.map_or((0, 0), |run| (run.number, run.token));
        let work = RunKind::Sync { state: identity, run, token };
        let source = self.input.original.as_ref().map(|original| original.source);
        Ok(import::run_spec(work, &self.target, (self.input.stat, source), &roster))
    }

    /// What an earlier run has left. It is resumed only if it is the one that the state has begun, with the whole file as it was.
    fn examine(&self, spec: &RunSpec, open_run: Option<&OpenRun>) -> Result<StartMode, SyncError> {
        let compare = |checkpoint: &Checkpoint| {
            let open_run = open_run.filter(|_| checkpoint.work == spec.work);
            let is_same = open_run.map_or(Ok(false), |open_run| self.is_input_of(open_run))?;
            Ok(if is_same { InputChange::Same } else { InputChange::ChangedWithin })
        };
        Ok(match journal::examine(&OsDisk, &self.paths, spec, self.restart, compare)? {
            StartDecision::Run(start) => start,
            StartDecision::Finished { .. } => StartMode::SetAside,
        })
    }

    fn is_input_of(&self, open_run: &OpenRun) -> io::Result<bool> {
        if open_run.input.stat == self.input.stat {
            return Ok(true);
        }
        match self.roster().and_then(Roster::read_to_end) {
            Ok(end) => Ok((end.offset, end.digest) == (open_run.input.len, open_run.input.digest)),
            Err(RosterError::Read(error)) => Err(error),
            // What can't be read as a file is another one; planning it says what is wrong with it.
            Err(_) => Ok(false),
        }
    }

    /// Refuses a file of whose first records too many are invalid. One without records is a guard's to refuse.
    fn judge_first_records(&self) -> Result<(), SyncError> {
        let mut first = FirstRecords::default();
        for record in self.roster()?.take(usize::try_from(FIRST_RECORDS).unwrap_or(usize::MAX)) {
            first.count(record?.account.err().as_ref());
        }
        first.too_many_invalid(self.max_invalid).map_or(Ok(()), |found| Err(SyncError::TooManyInvalid(found)))
    }

    /// The outcomes of an unfinished run of the state that it has not taken over yet.
    pub(super) fn left_results(&self, work: RunKind, has_open_run: bool) -> Result<SendOutcomes, SyncError> {
        let of_that_run = journal::read_checkpoint(&OsDisk, &self.paths).filter(|checkpoint| has_open_run && checkpoint.work == work);
        let read = || match (of_that_run, journal::committed_results(&self.paths)?) {
            // Its cells are read as that run has read them.
            (Some(checkpoint), Some(results)) => {
                SendOutcomes::read(results, &CellRules::of_flags(&checkpoint.reading.flags), None, self.scratch_folder())
            }
            (None, _) | (_, None) => Ok(SendOutcomes::none()),
        };
        read().or_else(|source| {
            if self.restart == Restart::Asked && source.kind() == io::ErrorKind::InvalidData {
                // They are renamed as they are: what they would have told stays in doubt.
                return Ok(SendOutcomes::none());
            }
            Err(SyncError::LeftResults { path: self.paths.results.clone(), source })
        })
    }

    /// Where temporary files go: beside the state, since they are as large as it is.
    pub(super) fn scratch_folder(&self) -> &Path {
        folder_of(&self.state)
    }

    /// The plan, and how many blank lines the file has.
    fn draft(&self, state: Option<&StateDb>, left: SendOutcomes) -> Result<(PlanDraft, u64), SyncError> {
        let mut roster = self.roster()?;
        let mut tell = |step| self.observer.borrow_mut().on(SyncProgress::Planning(step));
        let mut scratch = Scratch { folder: self.scratch_folder().to_owned(), tell: &mut tell };
        if (scratch.tell)(Step::Read(0)).is_break() {
            return Err(PlanError::Stopped.into());
        }
        let scan = scan(&mut roster, self.input.stat, &mut scratch)?;
        let blank_lines = roster.blank_lines().count();
        let canaries = self.canaries.iter().map(|id| PaddedId::new(id.as_str().as_bytes())).collect();
        let policy = Policy { missing: self.missing.clone(), canaries, now: self.began_at() };
        let mut draft = build_plan(scan, state, left, &policy, &mut scratch)?;
        if draft.counts.missing > 0 {
            compare(&mut draft, &mut self.roster()?, &policy, &mut scratch)?;
        }
        Ok((draft, blank_lines))
    }

    /// Checks that the file has stayed what it was while it was planned; if it has grown, what was read still stands.
    fn ensure_input_unchanged(&self, draft: &PlanDraft) -> Result<(), SyncError> {
        let SyncInput { file, format, stat, .. } = &self.input;
        roster::Watch::new(file.clone(), format.dialect(), *stat).look_through((draft.input.len, draft.input.digest))?;
        Ok(())
    }

    fn guard_input(&self, draft: &PlanDraft, state: Option<&StateDb>, other_target: Option<String>) -> Result<GuardInput, SyncError> {
        let runs = state.map_or(Ok(Vec::new()), |state| state.runs(u32::MAX))?;
        let finished = || runs.iter().filter_map(|run| run.finished_at.map(|at| (run, at)));
        let past = finished().map(|(run, finished_at)| PastRun {
            finished_at,
            held: run.held_at_end,
            is_shrunk: run.shrunk_allowed == Some(true),
        });
        Ok(GuardInput {
            filled: draft.filled.clone(),
            before: draft.filled_before.clone(),
            distinct: draft.distinct,
            held: draft.held,
            present: draft.present,
            // A state of an older version doesn't know; then what is held now is what it was.
            most_held: most_held(past, self.began_at()).unwrap_or(draft.held),
            updates: draft.counts.update,
            new_columns: draft.new_columns.clone(),
            ends_with_newline: self.input.file.ends_with_newline().map_err(RosterError::from)?,
            ended_with_newline: finished().next().and_then(|(run, _)| run.ends_with_newline),
            due: draft.due,
            dead_canaries: draft.dead_canaries.iter().map(|id| id.as_str().to_owned()).collect(),
            other_target,
        })
    }
}

/// What shows that the state is older than the checkpoint of this run and token, which has settled so many rows, if it is.
fn how_older(state: &StateDb, (run, token): (u64, u64), settled: u64) -> Result<Option<String>, StateError> {
    let last = state.last_run()?;
    if run > last {
        return Ok(Some(format!("knows {}, the checkpoint is of run {run}", figures::counted(last, "run"))));
    }
    // Where an older state has gone on since, the number is another run's by now.
    if state.token(run)?.is_some_and(|of_state| of_state != token) {
        return Ok(Some(format!("has another run {run} than the checkpoint")));
    }
    let Some(open) = state.open_run()?.filter(|open| open.number == run && settled > open.send_intent_up_to) else { return Ok(None) };
    let ops = state.ops(open.counts.records())?;
    let lacks_intent = (open.send_intent_up_to + 1..=settled).any(|row| ops.get(row).is_sent());
    Ok(lacks_intent.then(|| format!("has announced rows up to {}, {settled} are processed", open.send_intent_up_to)))
}
