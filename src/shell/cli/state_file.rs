//! The state as the shell uses it: locked, checked against its target, and filled by an import.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use xxhash_rust::xxh3::xxh3_64;

use super::access::{is_out_of_files, why_denied, why_not_writable};
use super::command_line::CommandLine;
use super::exit_messages::busy;
use super::flags::ConnectionFlags;
use super::output_paths::resolved;
use super::signals::Leftover;
use crate::domain::change::{Ops, PlanCounts};
use crate::domain::guard::Guard;
use crate::domain::outcome::OutcomeCounts;
use crate::domain::position::InputPosition;
use crate::domain::target::Target;
use crate::flow::sync::{self, ImportOutcomes, milliseconds};
use crate::io::files::folder_of;
use crate::io::journal;
use crate::io::journal::disk::OsDisk;
use crate::io::journal::paths::RunPaths;
use crate::io::roster::{Format, InputFile, Roster};
use crate::io::state::{self, NewRun, RunRecord, RunTotals, StateDb, StateError, StateInfo, StateLock};
use crate::shell::exit::{Exit, ExitMessage, MORE_FILES};
use crate::shell::terminal::causes;

/// What to do where another program has kept the state from being changed.
const OTHERS_LOOK: &str = "another program works with the state, or has left a look at it open (a shell of SQLite, for one): close it; the same command \
                           resumes";
/// The command by which a state knows the run of an import.
const IMPORT: &str = "import";

/// A state that is this process' to change.
#[derive(Debug)]
pub(super) struct LockedState {
    path: PathBuf,
    lock: RefCell<StateLock>,
    /// This process has made it, and nothing has begun with it.
    is_for_nothing: Cell<bool>,
    _leftover: Option<Leftover>,
}

impl LockedState {
    /// Takes the state for this process. It need not be there.
    pub(super) fn take(path: &Path) -> Result<Self, ExitMessage> {
        let (lock, leftover) = Leftover::of_lock(&state::names(path)[1], || state::lock(path), StateLock::is_for_nothing)
            .map_err(|error| state_error(&error))?;
        Ok(Self { path: path.to_owned(), lock: RefCell::new(lock), is_for_nothing: Cell::new(false), _leftover: leftover })
    }

    /// As [`LockedState::take`], of a state that must be there, and be this target's.
    pub(super) fn take_existing(path: &Path, target: &Target, flags: &ConnectionFlags) -> Result<Self, ExitMessage> {
        if StateDb::find(path).map_err(|error| state_error(&error))?.is_none() {
            return Err(ExitMessage::yours(format!("there is no state at {}", path.display()), "correct --state, or leave it out"));
        }
        let kept = Self::take(path)?;
        kept.belongs_to(target, flags)?;
        kept.open()?.can_be_changed().map_err(|error| state_error(&error))?;
        Ok(kept)
    }

    pub(super) fn find(&self) -> Result<Option<StateDb>, ExitMessage> {
        StateDb::find(&self.path).map_err(|error| state_error(&error))
    }

    /// It is there by now.
    pub(super) fn open(&self) -> Result<StateDb, ExitMessage> {
        self.find()?.ok_or_else(|| {
            ExitMessage::new(Exit::Fatal, format!("the state {} is gone", self.path.display()), "bring it back; the same command resumes")
        })
    }

    pub(super) fn open_or_create(&self, target: &Target, identity: u64) -> Result<StateDb, ExitMessage> {
        if !self.path.exists() {
            self.is_for_nothing.set(true);
        }
        self.lock.borrow().make(&self.path).map_err(|error| state_error(&error))?;
        StateDb::open_or_create(&self.path, target, identity).map_err(|error| state_error(&error))
    }

    /// From here on the state is needed; one that was made for a start that failed before goes.
    pub(super) fn begins(&self) {
        self.is_for_nothing.set(false);
        self.lock.borrow_mut().keep();
    }

    /// Refuses a state that belongs elsewhere.
    pub(super) fn belongs_to(&self, target: &Target, flags: &ConnectionFlags) -> Result<(), ExitMessage> {
        let Some(state) = self.find()? else { return Ok(()) };
        let about = state.about().map_err(|error| state_error(&error))?;
        other_target(&about, target).map_or(Ok(()), |why| Err(of_another(&why, &self.path, flags)))
    }

    /// Whether it has taken over the import of an input that ended there; if it hasn't, that is an error, since the input is gone.
    pub(super) fn is_filled_from(&self, end: InputPosition) -> Result<(), ExitMessage> {
        let runs = self.find()?.map(|state| state.runs(u32::MAX)).transpose().map_err(|error| state_error(&error))?;
        let is_it = |run: &RunRecord| run.command == IMPORT && (run.input.len, run.input.digest) == (end.offset, end.digest);
        if runs.is_some_and(|runs| runs.iter().any(is_it)) {
            return Ok(());
        }
        let why = format!("the import is finished, but its standard input is gone: {} is not filled from it", self.path.display());
        Err(ExitMessage::yours(why, "give the same input once more: nothing is sent, the state is filled"))
    }

    /// Takes note that an import into it begins.
    pub(super) fn import_begins(&self, target: &Target, paths: &RunPaths) -> Result<(), ExitMessage> {
        let mut state = self.open_or_create(target, new_identity())?;
        state.import_begins(import_identity(paths)).map_err(|error| state_error(&error))
    }

    /// Takes over what a finished import has come to.
    pub(super) fn import_finished(
        &self,
        target: &Target,
        (file, format): (&InputFile, &Format),
        paths: &RunPaths,
        tally: OutcomeCounts,
    ) -> Result<(), ExitMessage> {
        let mut state = self.open_or_create(target, new_identity())?;
        let read = || -> io::Result<_> {
            let mut roster = Roster::of(file, format).map_err(io::Error::other)?;
            let results = File::open(&paths.results)?;
            sync::import_settled(&mut roster, file.fingerprint()?, results, folder_of(&self.path))
        };
        let ImportOutcomes { accounts, filled, input } = read().map_err(|error| cannot_fill(&error))?;
        let now = milliseconds(SystemTime::now());
        let counts = PlanCounts { create: tally.imported + tally.failed, invalid: tally.invalid, ..PlanCounts::default() };
        let done = RunTotals { created: tally.imported, failed: tally.failed, ..RunTotals::default() };
        let ends_with_newline = Some(file.ends_with_newline().map_err(|error| cannot_fill(&error))?);
        let ops = Ops::default();
        let bare = NewRun::bare(IMPORT, now, input, &ops);
        let new = NewRun { counts, filled, token: new_identity(), ends_with_newline, ..bare };
        state.import_finished(import_identity(paths), new, accounts, done).map_err(|error| state_error(&error))?;
        self.begins();
        tracing::info!("the state {} holds what was imported", self.path.display());
        Ok(())
    }
}

impl Drop for LockedState {
    /// The lock is still held.
    fn drop(&mut self) {
        if self.is_for_nothing.get() {
            let [state, _, journal, _] = state::names(&self.path);
            for file in [state, journal] {
                // Where it can't be removed it stays, as it does after a kill: the next start makes a state of it.
                let _ = std::fs::remove_file(file);
            }
        }
    }
}

fn cannot_fill(error: &io::Error) -> ExitMessage {
    let why = format!("cannot fill the state: {error}");
    ExitMessage::new(Exit::Fatal, why, "nothing of the import is lost; the same command fills the state from its results")
}

/// What a state is known by, or a run; 0 is none.
pub(super) fn new_identity() -> u64 {
    fastrand::u64(1..)
}

/// What an unfinished import is known by: where its checkpoint is.
fn import_identity(paths: &RunPaths) -> u64 {
    use std::os::unix::ffi::OsStrExt;
    xxh3_64(resolved(&paths.checkpoint).as_os_str().as_bytes())
}

/// How the state's target differs from the one that is called, as words.
pub(super) fn other_target(about: &StateInfo, target: &Target) -> Option<String> {
    (about.target != *target).then(|| format!("the state belongs to {}, not to {target}", about.target))
}

/// The guard against another's state, where no plan is made.
fn of_another(why: &str, state: &Path, flags: &ConnectionFlags) -> ExitMessage {
    let why = format!("guard {}: {why}", Guard::Target.name());
    ExitMessage::new(Exit::Guarded, why, format!("name another --state, or, if the app has moved: {}", retarget(state, flags)))
}

/// The command that binds a state to the app that these flags name.
pub(super) fn retarget(state: &Path, flags: &ConnectionFlags) -> CommandLine {
    CommandLine::new("state").file(state).plain("retarget").connection(flags)
}

/// Who denies the state, if it is that.
fn denied(error: &StateError) -> String {
    match error {
        StateError::File { path, source, .. } => why_denied(path, source),
        StateError::Database { path, .. } => why_not_writable(path),
        StateError::Locked { .. }
        | StateError::Foreign { .. }
        | StateError::Version { .. }
        | StateError::Source(_)
        | StateError::Changed { .. }
        | StateError::OtherRun { .. } => String::new(),
    }
}

/// What a state's error means.
pub(super) fn state_error(error: &StateError) -> ExitMessage {
    let why = causes(error);
    match error {
        StateError::Locked { path } => busy(why, &[&state::names(path)[1], path], "a state"),
        _ if error.is_others() => ExitMessage::new(Exit::Stopped, why, OTHERS_LOOK),
        StateError::Foreign { .. } => ExitMessage::yours(why, "name another file with --state"),
        StateError::OtherRun { .. } => {
            ExitMessage::yours(why, "bring back the one that was there; the same command resumes, or says what to do")
        }
        StateError::Version { .. } => ExitMessage::yours(why, "use the chatlift that wrote it, or begin a new state"),
        StateError::File { source, .. } | StateError::Source(source) if is_out_of_files(source) => ExitMessage::yours(why, MORE_FILES),
        _ if error.is_callers() => ExitMessage::yours(format!("{why}{}", denied(error)), "check the path of the state and its permissions"),
        StateError::Database { .. } | StateError::File { .. } | StateError::Source(_) | StateError::Changed { .. } => {
            ExitMessage::new(Exit::Fatal, why, "make room or repair the disk; the same command resumes")
        }
    }
}

/// What the checkpoint vouches for of a run's results.
pub(super) fn committed_results(paths: &RunPaths) -> io::Result<Option<io::Take<File>>> {
    journal::vouched_results(&OsDisk, paths)
        .map(|len| -> io::Result<_> {
            use std::io::Read;
            Ok(File::open(&paths.results)?.take(len))
        })
        .transpose()
}
