//! The state as the shell uses it: locked and checked against its target, and what its errors mean.

use std::path::Path;

use super::access::{is_out_of_files, why_denied, why_not_writable};
use super::command_line::CommandLine;
use super::exit_messages::busy;
use super::flags::ConnectionFlags;
use super::signals::Leftover;
use crate::domain::guard::Guard;
use crate::domain::target::Target;
use crate::flow::import::FillError;
use crate::io::state::{self, StateDb, StateError, StateLock};
use crate::shell::exit::{Exit, ExitMessage, MORE_FILES};
use crate::shell::terminal::causes;

/// The hint if another program keeps the state from being changed.
const OTHERS_LOOK: &str = "another program works with the state, or has left a look at it open (a shell of SQLite, for one): close it; the same command \
                           resumes";

/// A state that only this process may change.
#[derive(Debug)]
pub(super) struct LockedState {
    lock: StateLock,
    _leftover: Option<Leftover>,
}

impl LockedState {
    /// Locks the state for this process. The file need not exist.
    pub(super) fn take(path: &Path) -> Result<Self, ExitMessage> {
        let (lock, leftover) = Leftover::of_lock(&state::names(path)[1], || state::lock(path), StateLock::is_for_nothing)
            .map_err(|error| state_error(&error))?;
        Ok(Self { lock, _leftover: leftover })
    }

    /// The same as [`LockedState::take`] for a state that must exist and belong to this target.
    pub(super) fn take_existing(path: &Path, target: &Target, flags: &ConnectionFlags) -> Result<Self, ExitMessage> {
        if StateDb::find(path).map_err(|error| state_error(&error))?.is_none() {
            return Err(ExitMessage::yours(format!("there is no state at {}", path.display()), "correct --state, or leave it out"));
        }
        let locked = Self::take(path)?;
        locked.ensure_belongs_to(target, flags)?;
        locked.open()?.ensure_changeable().map_err(|error| state_error(&error))?;
        Ok(locked)
    }

    pub(super) const fn lock(&self) -> &StateLock {
        &self.lock
    }

    fn find(&self) -> Result<Option<StateDb>, ExitMessage> {
        StateDb::find(self.lock.path()).map_err(|error| state_error(&error))
    }

    /// Opens the state, which must exist.
    pub(super) fn open(&self) -> Result<StateDb, ExitMessage> {
        StateDb::open(self.lock.path()).map_err(|error| state_error(&error))
    }

    /// Refuses a state that belongs to another target.
    pub(super) fn ensure_belongs_to(&self, target: &Target, flags: &ConnectionFlags) -> Result<(), ExitMessage> {
        let Some(state) = self.find()? else { return Ok(()) };
        let about = state.about().map_err(|error| state_error(&error))?;
        about.other_target(target).map_or(Ok(()), |why| Err(of_another(&why, self.lock.path(), flags)))
    }
}

/// Refuses a state that is no file, before anything is made for a run.
pub(super) fn ensure_state_file(state: Option<&Path>) -> Result<(), ExitMessage> {
    state.map_or(Ok(()), state::ensure_file).map_err(|error| state_error(&error))
}

/// Why a state is not filled by an import, and what to do about it.
pub(super) fn fill_error(error: &FillError) -> ExitMessage {
    match error {
        FillError::State(error) => state_error(error),
        FillError::Source(_) => {
            let hint = "nothing of the import is lost; the same command fills the state from its results";
            ExitMessage::new(Exit::Fatal, causes(error), hint)
        }
        FillError::NoInput { .. } => {
            ExitMessage::yours(error.to_string(), "give the same input once more: nothing is sent, the state is filled")
        }
    }
}

/// A random identity for a state or a run; 0 stands for none.
pub(super) fn new_identity() -> u64 {
    fastrand::u64(1..)
}

/// The safety check against the state of another app, for commands without a plan.
fn of_another(why: &str, state: &Path, flags: &ConnectionFlags) -> ExitMessage {
    let why = format!("guard {}: {why}", Guard::Target.name());
    ExitMessage::new(Exit::Guarded, why, format!("name another --state, or, if the app has moved: {}", retarget(state, flags)))
}

/// The command that binds a state to the app that these flags name.
pub(super) fn retarget(state: &Path, flags: &ConnectionFlags) -> CommandLine {
    CommandLine::new("state").file(state).plain("retarget").connection(flags)
}

/// The explanation of [`why_denied`], if access to the state is denied.
fn denied(error: &StateError) -> String {
    match error {
        StateError::File { path, source, .. } => why_denied(path, source),
        StateError::Database { path, .. } => why_not_writable(path),
        StateError::Locked { .. }
        | StateError::Foreign { .. }
        | StateError::NoFile { .. }
        | StateError::Version { .. }
        | StateError::Source(_)
        | StateError::Changed { .. }
        | StateError::Gone { .. }
        | StateError::OtherRun { .. } => String::new(),
    }
}

/// The exit message for an error of the state.
pub(super) fn state_error(error: &StateError) -> ExitMessage {
    let why = causes(error);
    match error {
        StateError::Locked { path } => busy(why, &[&state::names(path)[1], path], "a state"),
        _ if error.is_others() => ExitMessage::new(Exit::Stopped, why, OTHERS_LOOK),
        StateError::Foreign { .. } | StateError::NoFile { .. } => ExitMessage::yours(why, "name another file with --state"),
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
