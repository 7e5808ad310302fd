//! The state as the shell uses it: locked, checked against its target, and filled by an import.

use std::fs::File;
use std::io;
use std::path::Path;
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
use crate::io::journal::paths::RunPaths;
use crate::io::roster::{Format, InputFile, Roster};
use crate::io::state::{self, NewRun, RunRecord, RunTotals, StateDb, StateError, StateLock};
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
    lock: StateLock,
    _leftover: Option<Leftover>,
}

impl LockedState {
    /// Takes the state for this process. It need not be there.
    pub(super) fn take(path: &Path) -> Result<Self, ExitMessage> {
        let (lock, leftover) = Leftover::of_lock(&state::names(path)[1], || state::lock(path), StateLock::is_for_nothing)
            .map_err(|error| state_error(&error))?;
        Ok(Self { lock, _leftover: leftover })
    }

    /// As [`LockedState::take`], of a state that must be there, and be this target's.
    pub(super) fn take_existing(path: &Path, target: &Target, flags: &ConnectionFlags) -> Result<Self, ExitMessage> {
        if StateDb::find(path).map_err(|error| state_error(&error))?.is_none() {
            return Err(ExitMessage::yours(format!("there is no state at {}", path.display()), "correct --state, or leave it out"));
        }
        let locked = Self::take(path)?;
        locked.belongs_to(target, flags)?;
        locked.open()?.can_be_changed().map_err(|error| state_error(&error))?;
        Ok(locked)
    }

    pub(super) const fn lock(&self) -> &StateLock {
        &self.lock
    }

    fn find(&self) -> Result<Option<StateDb>, ExitMessage> {
        StateDb::find(self.lock.path()).map_err(|error| state_error(&error))
    }

    /// It is there by now.
    pub(super) fn open(&self) -> Result<StateDb, ExitMessage> {
        StateDb::open(self.lock.path()).map_err(|error| state_error(&error))
    }

    /// Refuses a state that belongs elsewhere.
    pub(super) fn belongs_to(&self, target: &Target, flags: &ConnectionFlags) -> Result<(), ExitMessage> {
        let Some(state) = self.find()? else { return Ok(()) };
        let about = state.about().map_err(|error| state_error(&error))?;
        about.other_target(target).map_or(Ok(()), |why| Err(of_another(&why, self.lock.path(), flags)))
    }

    /// Whether it has taken over the import of an input that ended there; if it hasn't, that is an error, since the input is gone.
    pub(super) fn is_filled_from(&self, end: InputPosition) -> Result<(), ExitMessage> {
        let runs = self.find()?.map(|state| state.runs(u32::MAX)).transpose().map_err(|error| state_error(&error))?;
        let is_it = |run: &RunRecord| run.command == IMPORT && (run.input.len, run.input.digest) == (end.offset, end.digest);
        if runs.is_some_and(|runs| runs.iter().any(is_it)) {
            return Ok(());
        }
        let why = format!("the import is finished, but its standard input is gone: {} is not filled from it", self.lock.path().display());
        Err(ExitMessage::yours(why, "give the same input once more: nothing is sent, the state is filled"))
    }

    /// Takes note that an import into it begins.
    pub(super) fn import_begins(&self, target: &Target, paths: &RunPaths) -> Result<(), ExitMessage> {
        let mut state = self.lock.open_or_create(target, new_identity()).map_err(|error| state_error(&error))?;
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
        let mut state = self.lock.open_or_create(target, new_identity()).map_err(|error| state_error(&error))?;
        let read = || -> io::Result<_> {
            let mut roster = Roster::of(file, format).map_err(io::Error::other)?;
            let results = File::open(&paths.results)?;
            sync::import_settled(&mut roster, file.fingerprint()?, results, folder_of(self.lock.path()))
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
        self.lock.keep();
        tracing::info!("the state {} holds what was imported", self.lock.path().display());
        Ok(())
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
        | StateError::Gone { .. }
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
        StateError::Gone { .. } => ExitMessage::new(Exit::Fatal, why, "bring it back; the same command resumes"),
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
