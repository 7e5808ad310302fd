//! Checks the first records of an input before the first request.

use std::io::Read;

use super::command_line::CommandLine;
use super::flags::InputFlags;
use super::input;
use crate::flow::check::{FIRST_RECORDS, FirstRecords, TooManyInvalid};
use crate::io::roster::Roster;
use crate::shell::exit::ExitMessage;

/// The conditions for importing a file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Admission {
    /// The highest percentage of invalid ones among the first records.
    pub(super) max_invalid: f64,
    pub(super) empty: EmptyFile,
}

/// Whether a file without records is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EmptyFile {
    Refused,
    Allowed,
}

impl Admission {
    /// The default. Source: the contract of `--max-invalid` and `--allow empty`.
    pub(super) const USUAL: Self = Self { max_invalid: 1.0, empty: EmptyFile::Refused };

    /// Why a file with these first records is refused; `None` if it is accepted.
    pub(super) fn refusal(self, first: &FirstRecords) -> Option<Refusal> {
        if first.is_empty() && self.empty == EmptyFile::Refused {
            return Some(Refusal::Empty);
        }
        first.too_many_invalid(self.max_invalid).map(|found| Refusal::TooManyInvalid { found, max_invalid: self.max_invalid })
    }
}

/// Why a file is refused.
#[derive(Debug, PartialEq)]
pub(super) enum Refusal {
    Empty,
    TooManyInvalid { found: TooManyInvalid, max_invalid: f64 },
}

impl Refusal {
    /// The reason as text.
    pub(super) fn why(&self, flags: &InputFlags) -> String {
        let name = input::shown(&flags.file);
        match self {
            Refusal::Empty => format!("{name}: the file has a header and no records"),
            Refusal::TooManyInvalid { found: TooManyInvalid { invalid, most }, max_invalid } => {
                let times = |count: u64| if count == 1 { "once".to_owned() } else { format!("{count} times") };
                let most = most.as_ref().map(|(reason, count)| format!("; {}: {reason}", times(*count))).unwrap_or_default();
                format!("{invalid} of the first {FIRST_RECORDS} records of {name} are invalid, more than {max_invalid} %{most}")
            }
        }
    }

    /// The hint, for a user who has not run a check yet.
    fn hint(&self, flags: &InputFlags) -> String {
        match self {
            Refusal::Empty => "see whether the export is whole; --allow empty takes it as it is".to_owned(),
            Refusal::TooManyInvalid { .. } => {
                let check = CommandLine::new("check").file(&flags.file).reading(flags);
                format!("{check} names them; if they are to be left out, raise --max-invalid")
            }
        }
    }

    /// The exit message of a check, which has listed the invalid records already.
    pub(super) fn after_check(&self, flags: &InputFlags) -> ExitMessage {
        let hint = match self {
            Refusal::Empty => "see whether the export is whole; `import` takes it as it is with --allow empty",
            Refusal::TooManyInvalid { .. } => {
                "see whether it is the right export and the right columns; if they are to be left out, `import` takes it with a higher --max-invalid"
            }
        };
        ExitMessage::yours(self.why(flags), hint)
    }
}

/// The exit message for a file with too many invalid records at its start.
pub(super) fn too_many_invalid(found: TooManyInvalid, max_invalid: f64, flags: &InputFlags) -> ExitMessage {
    let refusal = Refusal::TooManyInvalid { found, max_invalid };
    ExitMessage::yours(refusal.why(flags), refusal.hint(flags))
}

/// Refuses a file that has broken records near its start, or that is not accepted; `roster` must be at the start.
///
/// # Errors
/// An [`ExitMessage`] with exit code 2.
pub(super) fn judge(roster: Roster<impl Read>, flags: &InputFlags, admission: Admission) -> Result<(), ExitMessage> {
    let failed = |error| input::roster_error(&flags.file, &error);
    let mut first = FirstRecords::default();
    let records = usize::try_from(FIRST_RECORDS).unwrap_or(usize::MAX);
    for record in roster.take(records) {
        first.count(record.map_err(failed)?.account.err().as_ref());
    }
    admission.refusal(&first).map_or(Ok(()), |refusal| Err(ExitMessage::yours(refusal.why(flags), refusal.hint(flags))))
}
