//! Exit codes and exit messages.
//!
//! The first line says what happened and why; a line with `hint:` says what to do. Every command ends with one of them.
//!
//! A message is made where its reason is known, and has its code from there. This is where each code comes from:
//!
//! - 0: the end of each command, where nothing of it was refused.
//! - 1, the disk or an internal error: `cli::access` for the disk, `cli::exit_messages` for a run's journal, `cli::state_file` for the
//!   state, [`HaltClass::Internal`] for what the service's answers show.
//! - 2, something for the user to change: [`ExitMessage::yours`], wherever flags, files and environment are checked, mostly before the
//!   first request; [`HaltClass::Settings`].
//! - 3, rows that failed or are invalid, or differences: `cli::exit_messages` (import), `cli::sync::report`, `cli::verify`, `cli::check`
//!   and `cli::audit`, each from the counts of its end.
//! - 4, stopped or busy: `cli::exit_messages` for signals, outages and limits, `cli::signals` for a signal before the first request, and
//!   for locks of others `cli::exit_messages` and `cli::state_file`; [`HaltClass::Limit`].
//! - 5, refused by the service: [`HaltClass::Credentials`], in every run; `cli::probe` for its own requests.
//! - 6, a guard: `cli::sync::planned`, and `cli::state_file` for a state of another target.
//!
//! [`Exit::of_program`] passes on the code of a command that `chatlift sandbox` has run.

use std::fmt;
use std::process::ExitCode;

use super::terminal::printable;
use crate::domain::halt_reason::HaltClass;

/// The documented exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything that was asked for is done.
    Done,
    /// The run had to stop because of the disk or an internal error. The same command resumes.
    Fatal,
    /// The user must change something: flags, file, environment.
    UserError,
    /// The run finished, and some rows failed or are invalid.
    SomeRowsRejected,
    /// Stopped before the end; the same command resumes.
    Stopped,
    /// The run did not start: another process is using the same files or state.
    Busy,
    /// The service refused the credentials, the permission or the region, or its identity is wrong (certificate, redirect).
    Refused,
    /// A safety check of the sync failed; nothing was sent.
    Guarded,
    /// A command that chatlift has run failed with this code.
    OfProgram(u8),
}

impl Exit {
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Fatal => 1,
            Exit::UserError => 2,
            Exit::SomeRowsRejected => 3,
            Exit::Stopped | Exit::Busy => 4,
            Exit::Refused => 5,
            Exit::Guarded => 6,
            Exit::OfProgram(code) => code,
        }
    }

    /// The word for the summary's `outcome`.
    #[must_use]
    pub const fn outcome(self) -> &'static str {
        match self {
            Exit::Done => "done",
            Exit::Fatal => "cannot_go_on",
            Exit::UserError => "needs_fixing",
            Exit::SomeRowsRejected => "finished_with_rejects",
            Exit::Stopped => "stopped",
            Exit::Busy => "busy",
            Exit::Refused => "refused",
            Exit::Guarded => "guarded",
            Exit::OfProgram(_) => "command_failed",
        }
    }

    /// The exit of a command that chatlift has run.
    #[must_use]
    pub const fn of_program(code: u8) -> Self {
        if code == 0 { Exit::Done } else { Exit::OfProgram(code) }
    }

    const fn label(self) -> &'static str {
        match self {
            Exit::Done => "done",
            Exit::SomeRowsRejected => "finished",
            Exit::Stopped | Exit::Busy | Exit::OfProgram(_) => "stopped",
            Exit::Fatal | Exit::UserError | Exit::Refused | Exit::Guarded => "error",
        }
    }
}

impl From<HaltClass> for Exit {
    fn from(class: HaltClass) -> Self {
        match class {
            HaltClass::Credentials => Exit::Refused,
            HaltClass::Limit => Exit::Stopped,
            HaltClass::Internal => Exit::Fatal,
            HaltClass::Settings => Exit::UserError,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// The hint for too many open files.
pub const MORE_FILES: &str = "raise the limit of open files (`ulimit -n 1024`; of a service: LimitNOFILE=1024); the same command resumes";

/// The standard library's text for errors about too many open files (EMFILE, ENFILE).
const OUT_OF_FILES: [&str; 2] = ["(os error 24)", "(os error 23)"];

/// The message with which a command ends: exit code, reason and hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitMessage {
    pub exit: Exit,
    pub why: String,
    pub hint: Option<String>,
}

impl ExitMessage {
    #[must_use]
    pub fn new(exit: Exit, why: impl Into<String>, hint: impl Into<String>) -> Self {
        let why = why.into();
        // The user can raise the limit of open files, and the disk is not the cause, whatever could not be opened.
        if exit == Exit::Fatal && OUT_OF_FILES.iter().any(|cause| why.contains(cause)) {
            return Self { exit: Exit::UserError, why, hint: Some(MORE_FILES.to_owned()) };
        }
        Self { exit, why, hint: Some(hint.into()) }
    }

    /// A message for an error that the user must correct.
    #[must_use]
    pub fn yours(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Exit::UserError, why, hint)
    }

    #[must_use]
    pub fn done(why: impl Into<String>) -> Self {
        Self { exit: Exit::Done, why: why.into(), hint: None }
    }
}

impl fmt::Display for ExitMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.exit.label(), printable(&self.why))?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {}", printable(hint)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_message_is_one_line_and_a_hint_and_escapes_foreign_text() {
        let word = ExitMessage::yours("column \u{1b}[31m\nUserID", "rename it");
        assert_eq!(word.to_string(), "error: column \\u{1b}[31m\\nUserID\nhint: rename it");
        assert_eq!(ExitMessage::done("all 3 rows are imported").to_string(), "done: all 3 rows are imported");
    }

    #[test]
    fn too_many_open_files_is_not_reported_as_a_disk_error() {
        let error = std::io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
        let word = ExitMessage::new(Exit::Fatal, format!("cannot start: {error}"), "repair the disk");
        assert_eq!((word.exit, word.hint.as_deref()), (Exit::UserError, Some(MORE_FILES)));
    }
}
