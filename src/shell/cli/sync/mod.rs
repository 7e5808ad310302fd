//! `chatlift sync`: makes the plan, applies the guards, runs the import for what differs, and handles missing accounts.
//!
//! Until the guards agree, it writes only unnamed temporary files and two lock files.

mod missing;
mod planned;
mod sending;

use std::cell::{Cell, OnceCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::SystemTime;

use indicatif::MultiProgress;
use tokio::runtime::Runtime;
use tokio::time::Instant;

use super::client::{ServiceClient, build_client, target};
use super::command_line::CommandLine;
use super::exit_messages::cannot_open;
use super::flags::{AllowFlag, MissingFlag, SyncFlags};
use super::lanes::Lanes;
use super::open_files::Keeps;
use super::output_paths::{can_be_replaced, paths};
use super::pipe::HeldPipe;
use super::preflight::{Admission, EmptyFile};
use super::reach::Reach;
use super::settings::Connection;
use super::signals::{Leftover, Stops};
use super::source::Source;
use super::state_file::{LockedState, committed_results, new_identity, state_error};
use super::{columns, environment, input, last_calls, log, open_files, preflight};
use crate::domain::cells::CellRules;
use crate::domain::change::{Ops, PaddedId, PlanCounts, Wait};
use crate::domain::figures;
use crate::domain::guard::{Bound, Guard, GuardLimits};
use crate::domain::position::{FileStat, InputChange};
use crate::domain::target::Target;
use crate::domain::uuid;
use crate::flow::sync::{
    MissingPolicy, MissingTrust, PlanError, Policy, Scratch, SendOutcomes, SyncPlan, build_plan, compare, milliseconds, settlements, survey,
};
use crate::io::files::folder_of;
use crate::io::files::lock::Lockfile;
use crate::io::journal::checkpoint::{Checkpoint, RunKind};
use crate::io::journal::disk::OsDisk;
use crate::io::journal::paths::RunPaths;
use crate::io::journal::{self, LastCalls, Restart, RunSpec, StartDecision, StartMode};
use crate::io::roster::{self, Format, InputFile, InputReader, Roster, RosterError};
use crate::io::state::{self, OpenRun, StateDb};
use crate::shell::exit::{Exit, ExitMessage};
use crate::shell::screen::phase_bar::PhaseBar;
use planned::PlanningProgress;
use sending::{PlannedImport, SyncRun};

/// Runs the sync that the flags ask for.
pub(super) fn run(flags: &SyncFlags) -> ExitMessage {
    let bars = MultiProgress::new();
    log::install(&flags.run.output, &bars).expect("this process installs no other subscriber");
    let word = Session::set(&bars).and_then(|scene| {
        let mut pipe = HeldPipe::default();
        Ok(match Sync::new(flags, &mut pipe)?.begin(&scene)? {
            PreparedSync::Run(run) => run.carry_out(&scene),
            PreparedSync::Stopped(word) => word,
        })
    });
    let word = word.unwrap_or_else(|word| word);
    if flags.run.output.quiet && word.exit == Exit::Done { ExitMessage::done("") } else { word }
}

/// What all phases of a sync share.
struct Session<'a> {
    bars: &'a MultiProgress,
    runtime: Runtime,
    /// Begun once somebody looks at them.
    stops: OnceCell<Stops>,
}

impl<'a> Session<'a> {
    fn set(bars: &'a MultiProgress) -> Result<Self, ExitMessage> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime
            .map(|runtime| Self { bars, runtime, stops: OnceCell::new() })
            .map_err(|error| ExitMessage::new(Exit::Fatal, format!("cannot start: {error}"), "the same command resumes"))
    }

    /// Signals from now on, for each phase that looks for them.
    fn stops(&self) -> Stops {
        self.stops.get_or_init(Stops::new).clone()
    }
}

/// What keeps other processes off the run and off the state.
struct Locks {
    run: Lockfile,
    kept: LockedState,
    _leftover: Option<Leftover>,
}

impl Locks {
    fn take(paths: &RunPaths, state: &Path) -> Result<Self, ExitMessage> {
        let (run, leftover) = Leftover::of_lock(&paths.lock(), || journal::lock(&OsDisk, paths), Lockfile::is_for_nothing)
            .map_err(|error| cannot_open(&error))?;
        Ok(Self { run, kept: LockedState::take(state)?, _leftover: leftover })
    }
}

/// What the plan came to.
enum PreparedSync<'a> {
    Run(Box<SyncRun<'a>>),
    Stopped(ExitMessage),
}

/// A sync that has not decided anything yet.
struct Sync<'a> {
    flags: &'a SyncFlags,
    connection: Connection,
    lanes: Lanes,
    target: Target,
    paths: RunPaths,
    format: Format,
    source: Source,
    /// The input: all passes read this one, whatever takes its name.
    file: InputFile,
    stat: FileStat,
    /// Of a dry run: none, it changes nothing.
    locks: Option<Locks>,
    last_calls: LastCalls,
    /// Blank lines that planning has passed.
    blank: Cell<u64>,
    /// In milliseconds since the epoch.
    began_at: i64,
}

impl<'a> Sync<'a> {
    fn new(flags: &'a SyncFlags, pipe: &mut HeldPipe) -> Result<Self, ExitMessage> {
        let began_at = milliseconds(SystemTime::now());
        let run = &flags.run;
        let mut connection = Connection::resolve(&run.connection, &environment)?;
        open_files::make_room(&mut connection, Keeps::State)?;
        let lanes = Lanes::new(run, &connection)?;
        let others: Vec<PathBuf> = state::names(&flags.state).into_iter().chain(flags.plan.clone()).collect();
        let paths = paths(run, &others)?;
        can_be_replaced("summary", run.summary.as_deref())?;
        *pipe = HeldPipe::open(run.summary.as_deref())?;
        can_be_replaced("plan", flags.plan.as_deref())?;
        let last_calls = LastCalls::find(&paths.lock());
        let locks = if run.dry_run { None } else { Some(Locks::take(&paths, &flags.state)?) };
        let source = Source::new(&run.input.file, &paths)?;
        let (file, stat) = input::open_file(source.path(), &run.input.file)?;
        let target = target(&connection.service);
        let format = input::as_it_is_read(&file, &run.input)?;
        Ok(Self { flags, connection, lanes, target, paths, format, source, file, stat, locks, last_calls, blank: Cell::new(0), began_at })
    }

    /// Plans or goes on, whichever it is.
    fn begin(mut self, scene: &Session) -> Result<PreparedSync<'a>, ExitMessage> {
        let state = StateDb::find(&self.flags.state).map_err(|error| state_error(&error))?;
        let open_run = state.as_ref().map(StateDb::open_run).transpose().map_err(|error| state_error(&error))?.flatten();
        let about = state.as_ref().map(StateDb::about).transpose().map_err(|error| state_error(&error))?;
        let identity = about.as_ref().map_or_else(new_identity, |about| about.identity);
        self.is_the_checkpoints(state.as_ref(), identity)?;
        let other = about.as_ref().and_then(|about| super::state_file::other_target(about, &self.target));
        let roster = self.roster()?;
        let (run, token) = open_run.as_ref().map_or((0, 0), |run| (run.number, run.token));
        let mut claim = self.claim(&roster, RunKind::Sync { state: identity, run, token });
        columns::announce(roster.header());
        drop(roster);
        let way = self.examine(&claim, open_run.as_ref())?;
        if let (StartMode::Resume { .. }, Some(state), Some(open_run)) = (&way, &state, &open_run)
            && !self.flags.run.dry_run
        {
            let ops = state.ops(open_run.counts.records()).map_err(|error| state_error(&error))?;
            let dialled = build_client(&self.connection, self.lanes.main_rate())?;
            // What is begun is stopped by a signal as a run is.
            scene.stops();
            return self.open((way, claim), ops, open_run.clone(), dialled).map(PreparedSync::Run);
        }
        // A file without records is a guard's.
        let admission = Admission { max_invalid: self.flags.run.max_invalid, empty: EmptyFile::Allowed };
        preflight::judge(&self.file, &self.flags.run.input, &self.format, admission)?;
        let left = self.left_by(&claim, open_run.as_ref())?;
        let mut drawn = self.plan(state.as_ref(), left, scene)?;
        self.is_as_planned(&drawn)?;
        let figures = self.figures(&drawn, state.as_ref(), other)?;
        let tripped = crate::domain::guard::judge(&figures, &self.limits());
        let wait = missing::known_wait(self.flags, drawn.counts.missing, drawn.malformed.is_some());
        self.tell_plan(&mut drawn, state.as_ref(), &tripped)?;
        planned::tell_cut(&figures, &tripped);
        if self.flags.run.dry_run || !tripped.is_empty() {
            input::tell_blank(self.blank.get());
            return Ok(PreparedSync::Stopped(self.stop(&drawn, &tripped, wait)));
        }
        let is_shrunk = crate::domain::guard::has_shrunk(&figures);
        drop(state);
        let dialled = build_client(&self.connection, self.lanes.main_rate())?;
        self.keep_input(&mut claim, &mut drawn)?;
        let left = self.left_by(&claim, open_run.as_ref())?;
        let plan = Judged { drawn: &mut drawn, is_shrunk, ends_with_newline: figures.ends_with_newline };
        let open_run = self.commit_to(plan, left, identity)?;
        claim.work = RunKind::Sync { state: identity, run: open_run.number, token: open_run.token };
        let way = match way {
            StartMode::Resume { .. } => StartMode::SetAside,
            way => way,
        };
        self.open((way, claim), drawn.ops, open_run, dialled).map(PreparedSync::Run)
    }

    /// Refuses a state that is older than the checkpoint beside it: it doesn't know what was sent since.
    fn is_the_checkpoints(&self, state: Option<&StateDb>, identity: u64) -> Result<(), ExitMessage> {
        let Some(RunKind::Sync { state: known, run, token }) = journal::work(&OsDisk, &self.paths) else { return Ok(()) };
        let (Some(state), false) = (state, known != identity || self.flags.run.restart) else { return Ok(()) };
        let Some(why) = self.how_older(state, run, token).map_err(|error| state_error(&error))? else { return Ok(()) };
        let state = self.flags.state.display();
        Err(ExitMessage::yours(
            format!("{state} {why}: an older state was brought back"),
            format!("{} puts it right; then the same command with --restart", self.verify_command()),
        ))
    }

    /// What shows that the state is older than the checkpoint of this run, if it is.
    fn how_older(&self, state: &StateDb, run: u64, token: u64) -> Result<Option<String>, state::StateError> {
        let last = state.last_run()?;
        if run > last {
            return Ok(Some(format!("knows {}, the checkpoint is of run {run}", figures::counted(last, "run"))));
        }
        // Where an older state has gone on since, the number is another run's by now.
        if state.token(run)?.is_some_and(|of_state| of_state != token) {
            return Ok(Some(format!("has another run {run} than the checkpoint")));
        }
        let Some(open) = state.open_run()?.filter(|open| open.number == run) else { return Ok(None) };
        let settled = journal::settled_rows(&OsDisk, &self.paths).unwrap_or_default();
        if settled <= open.sent_up_to {
            return Ok(None);
        }
        let ops = state.ops(open.counts.records())?;
        let is_unannounced = (open.sent_up_to + 1..=settled).any(|row| ops.get(row).is_sent());
        Ok(is_unannounced.then(|| format!("has announced rows up to {}, {settled} are processed", open.sent_up_to)))
    }

    /// The verification that brings an older state up to date.
    fn verify_command(&self) -> CommandLine {
        let run = &self.flags.run;
        let command = CommandLine::new("verify").file(&run.input.file).plain("--profiles").with("state", &self.flags.state);
        command.reading(&run.input).connection(&run.connection)
    }

    /// The file from its start.
    fn roster(&self) -> Result<Roster<InputReader>, ExitMessage> {
        self.open_roster().map_err(|error| input::roster_error(&self.flags.run.input.file, &error))
    }

    fn open_roster(&self) -> Result<Roster<InputReader>, RosterError> {
        Roster::of(&self.file, &self.format)
    }

    fn claim(&self, roster: &Roster<InputReader>, work: RunKind) -> RunSpec {
        RunSpec {
            work,
            target: self.target.clone(),
            input: self.stat,
            reading: roster.reading(),
            header: roster.header().names.clone(),
            rejects_delimiter: self.format.delimiter,
            start: roster.at(),
        }
    }

    /// What an earlier run has left. It goes on only if it is the one that the state has begun, with the whole file as it was.
    fn examine(&self, claim: &RunSpec, open_run: Option<&OpenRun>) -> Result<StartMode, ExitMessage> {
        let restart = if self.flags.run.restart { Restart::Asked } else { Restart::No };
        let compare = |checkpoint: &Checkpoint| {
            let Some(open_run) = open_run.filter(|_| checkpoint.work == claim.work) else { return Ok(InputChange::ChangedWithin) };
            let reads_the_same = || match Roster::of(&self.file, &self.format).and_then(Roster::read_to_end) {
                Ok(end) => Ok((end.offset, end.digest) == (open_run.input.len, open_run.input.digest)),
                Err(RosterError::Read(error)) => Err(error),
                // What can't be read as a file is another one; planning it says what is wrong with it.
                Err(_) => Ok(false),
            };
            let is_same = open_run.input.stat == self.stat || reads_the_same()?;
            Ok(if is_same { InputChange::Same } else { InputChange::ChangedWithin })
        };
        match journal::examine(&OsDisk, &self.paths, claim, restart, compare).map_err(|error| cannot_open(&error))? {
            StartDecision::Run(way) => Ok(way),
            StartDecision::Finished { .. } => Ok(StartMode::SetAside),
        }
    }

    /// The outcomes of an unfinished run that its state has not taken over yet.
    fn left_by(&self, claim: &RunSpec, open_run: Option<&OpenRun>) -> Result<SendOutcomes, ExitMessage> {
        let is_its_own = open_run.is_some() && journal::work(&OsDisk, &self.paths) == Some(claim.work);
        let read = || match committed_results(&self.paths)?.filter(|_| is_its_own) {
            Some(results) => {
                // As that run has read its input.
                let rules = journal::reading(&OsDisk, &self.paths).map(|reading| CellRules::of_flags(&reading.flags));
                settlements(results, &rules.unwrap_or_default(), folder_of(&self.flags.state))
            }
            None => Ok(SendOutcomes::none()),
        };
        read().or_else(|error| {
            if self.flags.run.restart && error.kind() == std::io::ErrorKind::InvalidData {
                // Set aside as they are: what they would have told stays in doubt.
                return Ok(SendOutcomes::none());
            }
            let why = format!("cannot read what the unfinished run has left in {}: {error}", self.paths.results.display());
            Err(ExitMessage::new(Exit::Fatal, why, "give the same command again; --restart renames and keeps the results"))
        })
    }

    fn plan(&self, state: Option<&StateDb>, left: SendOutcomes, scene: &Session) -> Result<SyncPlan, ExitMessage> {
        let mut roster = self.roster()?;
        let roster_again = || self.open_roster().map_err(PlanError::from);
        let gauge = PhaseBar::on_stderr(self.flags.run.output.progress(), scene.bars, Instant::now());
        let last = state.map(StateDb::last_finished).transpose().map_err(|error| state_error(&error))?.flatten();
        let accounts = last.map_or(0, |last| last.counts.records());
        let mut watch = PlanningProgress { runtime: &scene.runtime, stops: scene.stops(), gauge, bytes: self.stat.len, accounts };
        let mut reading = Scratch { folder: folder_of(&self.flags.state).to_owned(), tell: &mut |step| watch.heed(step) };
        let surveyed = survey(&mut roster, self.stat, &mut reading);
        let surveyed = surveyed.map_err(|error| planned::plan_error(&self.flags.run.input.file, &error))?;
        self.blank.set(roster.blank_lines().count());
        let identifier = self.connection.identifier();
        let policy = Policy {
            absence: absence(self.flags),
            missing_runs: self.flags.missing_runs,
            missing_apart: i64::try_from(self.flags.missing_apart.as_millis()).unwrap_or(i64::MAX),
            malformed: trust(self.flags, AllowFlag::Malformed),
            lookalikes: trust(self.flags, AllowFlag::Lookalikes),
            is_protected: &|id| is_protected(self.flags, identifier, id),
            canaries: self.flags.canary.iter().map(|id| PaddedId::new(id.as_str().as_bytes())).collect(),
            now: self.began_at,
        };
        let drawn = build_plan(surveyed, state, left, &policy, &mut reading).and_then(|mut drawn| {
            if drawn.counts.missing > 0 {
                compare(&mut drawn, &mut roster_again()?, &policy, &mut reading)?;
            }
            Ok(drawn)
        });
        drawn.map_err(|error| planned::plan_error(&self.flags.run.input.file, &error))
    }

    /// Whether the file has stayed what it was while it was planned; if it has grown, what was read still stands.
    fn is_as_planned(&self, drawn: &SyncPlan) -> Result<(), ExitMessage> {
        let mut watch = roster::Watch::new(self.file.clone(), self.format.delimiter, self.stat);
        let looked = watch.look_through((drawn.input.len, drawn.input.digest));
        looked.map(|_| ()).map_err(|error| input::roster_error(&self.flags.run.input.file, &error))
    }

    fn limits(&self) -> GuardLimits {
        let flags = self.flags;
        let allowed = flags.allow.iter().filter_map(|flag| planned::guard(*flag)).collect();
        GuardLimits { allowed, max_update: flags.max_update, max_delete: flags.max_delete.unwrap_or(Bound::Kicks) }
    }

    /// Standard input is kept for the run, under a name that lasts: that changes its stat fields.
    fn keep_input(&mut self, claim: &mut RunSpec, drawn: &mut SyncPlan) -> Result<(), ExitMessage> {
        if !self.source.keep()? {
            return Ok(());
        }
        let stat = self.file.fingerprint().map_err(|error| input::roster_error(&self.flags.run.input.file, &error.into()))?;
        (self.stat, claim.input, drawn.input.stat) = (stat, stat, stat);
        Ok(())
    }

    /// From here on the plan lasts.
    fn commit_to(&self, judged: Judged, left: SendOutcomes, identity: u64) -> Result<OpenRun, ExitMessage> {
        let Judged { drawn, is_shrunk, ends_with_newline } = judged;
        let Some(Locks { kept, .. }) = &self.locks else { unreachable!("a dry run commits to nothing") };
        let mut state = kept.open_or_create(&self.target, identity)?;
        let (counts, filled, input) = (drawn.counts, drawn.filled, drawn.input);
        let malformed = drawn.malformed.as_ref().map(missing::malformed_words);
        let waits = malformed.is_some() && trust(self.flags, AllowFlag::Malformed) == MissingTrust::No;
        let lists = drawn.lists().map_err(|error| state_error(&state::StateError::Source(error)))?;
        let (planned, missing, ops) = lists;
        let new = state::NewRun {
            command: "sync",
            began_at: self.began_at,
            input,
            counts,
            filled,
            ops,
            token: new_identity(),
            shrunk_allowed: is_shrunk,
            ends_with_newline: Some(ends_with_newline),
            malformed: malformed.as_deref(),
            missing_waits: waits.then_some(Wait::Malformed.name()),
        };
        state.begin(new, planned, missing, left).map_err(|error| state_error(&error))
    }

    fn open(
        mut self,
        (way, claim): (StartMode, RunSpec),
        ops: Ops,
        opened: OpenRun,
        dialled: ServiceClient,
    ) -> Result<Box<SyncRun<'a>>, ExitMessage> {
        let roster = self.roster()?;
        let Some(Locks { run: lock, kept, .. }) = self.locks else { unreachable!("a dry run sends nothing") };
        let is_resumed = matches!(way, StartMode::Resume { .. });
        let work = claim.work;
        let journal = journal::open(way, (OsDisk, lock), self.paths.clone(), claim, SystemTime::now());
        if journal.is_ok() || journal::work(&OsDisk, &self.paths) == Some(work) {
            self.source.begins();
            kept.begins();
        }
        let journal = journal.map_err(|error| cannot_open(&error))?;
        if is_resumed {
            kept.open()?.go_on(journal.settled().rows).map_err(|error| state_error(&error))?;
        }
        let Self { flags, connection, lanes, paths, format, source, file, stat, last_calls, blank, .. } = self;
        let blank = blank.get();
        let lookalikes = kept.open()?.lookalikes().map_err(|error| state_error(&error))?;
        let known = dialled.known(journal.tally());
        let settings = sending::settings((&connection, &lanes, known), last_calls::gates(last_calls, connection.headroom), flags, &journal);
        let cargo = PlannedImport { journal, roster, file, stat, ops: Rc::new(ops) };
        let reach = Reach::new(&connection, &environment, Instant::now());
        Ok(Box::new(SyncRun { flags, paths, format, source, kept, dialled, lanes, settings, opened, lookalikes, cargo, reach, blank }))
    }
}

const fn absence(flags: &SyncFlags) -> MissingPolicy {
    match flags.missing {
        MissingFlag::Report => MissingPolicy::Report,
        MissingFlag::Kick => MissingPolicy::Kick,
        MissingFlag::Delete => MissingPolicy::Delete,
    }
}

fn trust(flags: &SyncFlags, allow: AllowFlag) -> MissingTrust {
    if flags.allow.contains(&allow) { MissingTrust::Allowed } else { MissingTrust::No }
}

/// A plan that the guards let through.
struct Judged<'a> {
    drawn: &'a mut SyncPlan,
    /// Though it has lost so many.
    is_shrunk: bool,
    ends_with_newline: bool,
}

/// Whether an account is never to be touched; `identifier` is who calls. A UUID is named in either form.
fn is_protected(flags: &SyncFlags, identifier: &str, id: &str) -> bool {
    let is_named = |id: &str| flags.protect.iter().any(|glob| glob.matches(id));
    id == identifier || is_named(id) || (!flags.protect.is_empty() && uuid::hyphenated(id).is_some_and(|id| is_named(&id)))
}

/// What a run is told at its end besides the import's figures.
#[derive(Debug, Clone, Copy)]
struct Outline {
    counts: PlanCounts,
    lookalikes: u64,
    guard: Option<Guard>,
    wait: Option<Wait>,
}
