//! Exit codes, and the messages that go with them.
//!
//! One line says why, one `hint:` line says what to do. Every way out of the program ends here.

use std::fmt;
use std::process::ExitCode;

use super::terminal::printable;
use crate::domain::verdict::HaltClass;

/// The documented exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All that was asked for is imported.
    Done,
    /// The run could not go on: disk, internal fault. The same command resumes.
    Fatal,
    /// Something of the caller's needs fixing.
    UserError,
    /// Finished, and some rows are failed or invalid.
    SomeRowsRejected,
    /// Stopped before the end; the same command resumes.
    Stopped,
    /// Not begun: another process is at work on the same files or state.
    Busy,
    /// The service refused the credentials, the permission or the region, or is not who it should be.
    Refused,
    /// A guard of the sync tripped: nothing is sent.
    Guarded,
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
        }
    }

    /// The word for it in the summary's `outcome`.
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
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Exit::Done => "done",
            Exit::SomeRowsRejected => "finished",
            Exit::Stopped | Exit::Busy => "stopped",
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

/// What helps against it.
pub const MORE_FILES: &str = "raise the limit of open files (`ulimit -n 1024`; of a service: LimitNOFILE=1024); the same command resumes";

/// How the standard library tells that a process, or the machine, has no more open files to give (EMFILE, ENFILE).
const OUT_OF_FILES: [&str; 2] = ["(os error 24)", "(os error 23)"];

/// The last word of a command: its exit code, why, and what to do.
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
        // Whatever could not be opened: the limit is the caller's to raise, and no disk is at fault.
        if exit == Exit::Fatal && OUT_OF_FILES.iter().any(|cause| why.contains(cause)) {
            return Self { exit: Exit::UserError, why, hint: Some(MORE_FILES.to_owned()) };
        }
        Self { exit, why, hint: Some(hint.into()) }
    }

    /// Something of the caller's needs fixing.
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
    fn the_last_word_is_one_line_and_a_hint_and_escapes_foreign_text() {
        let word = ExitMessage::yours("column \u{1b}[31m\nUserID", "rename it");
        assert_eq!(word.to_string(), "error: column \\u{1b}[31m\\nUserID\nhint: rename it");
        assert_eq!(ExitMessage::done("all 3 rows are imported").to_string(), "done: all 3 rows are imported");
    }

    #[test]
    fn a_limit_of_open_files_is_no_fault_of_a_disk() {
        let error = std::io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
        let word = ExitMessage::new(Exit::Fatal, format!("cannot start: {error}"), "repair the disk");
        assert_eq!((word.exit, word.hint.as_deref()), (Exit::UserError, Some(MORE_FILES)));
    }
}
