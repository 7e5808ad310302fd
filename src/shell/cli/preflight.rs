//! Checks the first records of an input before the first request.

use std::io::Read;

use super::command_line::CommandLine;
use super::flags::{InputFlags, RunFlags};
use super::remedies::helps;
use super::{columns, input, oddities};
use crate::domain::oddity::{OddPlace, OddityCounts};
use crate::flow::check::{FIRST_RECORDS, FirstRecords, TooManyInvalid};
use crate::io::roster::{Header, RecordRef, Roster};
use crate::shell::exit::ExitMessage;

/// The conditions for importing a file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Admission {
    /// The highest percentage of invalid ones among the first records.
    pub(super) max_invalid: f64,
    pub(super) empty: EmptyFile,
    pub(super) odd: OddFile,
    pub(super) columns: ColumnsNeeded,
}

/// Which columns a run reads that sends anything at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ColumnsNeeded {
    OfIds,
    /// `--profile-only` sends nothing but tags.
    OfTagsToo,
}

/// Whether a file without records is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EmptyFile {
    Refused,
    Allowed,
}

/// Whether a file in which something is odd is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OddFile {
    /// It is told, and taken.
    Told,
    /// `--strict`: all of it is read first.
    Refused,
}

impl OddFile {
    pub(super) const fn of(flags: &RunFlags) -> Self {
        if flags.strict { OddFile::Refused } else { OddFile::Told }
    }
}

impl Admission {
    /// The default. Source: the contract of `--max-invalid` and `--allow empty`.
    pub(super) const USUAL: Self = Self { max_invalid: 1.0, empty: EmptyFile::Refused, odd: OddFile::Told, columns: ColumnsNeeded::OfIds };

    /// # Errors
    /// The header lacks columns without which the run would send nothing.
    pub(super) fn ensure_columns(self, header: &Header) -> Result<(), ExitMessage> {
        match self.columns {
            ColumnsNeeded::OfIds => Ok(()),
            ColumnsNeeded::OfTagsToo => columns::need_tags(header),
        }
    }

    /// Why a file with these first records and these oddities is refused; `None` if it is accepted.
    pub(super) fn refusal(self, first: &FirstRecords, oddities: &OddityCounts) -> Option<FileRefusal> {
        if first.is_empty() && self.empty == EmptyFile::Refused {
            return Some(FileRefusal::Empty);
        }
        let too_many =
            first.too_many_invalid(self.max_invalid).map(|found| FileRefusal::TooManyInvalid { found, max_invalid: self.max_invalid });
        too_many.or_else(|| self.odd.refusal(oddities))
    }
}

impl OddFile {
    /// Why a file with such oddities isn't taken, if it isn't.
    pub(super) fn refusal(self, oddities: &OddityCounts) -> Option<FileRefusal> {
        match self {
            OddFile::Told => None,
            OddFile::Refused => oddities::kinds(oddities).map(FileRefusal::Odd),
        }
    }
}

/// Why a file is refused.
#[derive(Debug, PartialEq)]
pub(super) enum FileRefusal {
    Empty,
    TooManyInvalid {
        found: TooManyInvalid,
        max_invalid: f64,
    },
    /// The kinds of oddities, in words.
    Odd(String),
}

impl FileRefusal {
    /// The reason as text.
    pub(super) fn why(&self, flags: &InputFlags) -> String {
        let name = input::shown(&flags.file);
        match self {
            FileRefusal::Empty => format!("{name}: the file has a header and no rows"),
            FileRefusal::TooManyInvalid { found: TooManyInvalid { invalid, most, shared: _ }, max_invalid } => {
                let times = |count: u64| if count == 1 { "once".to_owned() } else { format!("{count} times") };
                let most = most.as_ref().map(|(reason, count)| format!("; {}: {reason}", times(*count))).unwrap_or_default();
                format!("{invalid} of the first {FIRST_RECORDS} rows of {name} are invalid, more than {max_invalid} %{most}")
            }
            FileRefusal::Odd(kinds) => format!("{name}: something in it is odd, and --strict takes no such file: {kinds}"),
        }
    }

    /// The hint, for a user who has not run a check yet.
    fn hint(&self, flags: &InputFlags) -> String {
        let check = CommandLine::new("check").file(&flags.file).reading(flags);
        match self {
            FileRefusal::Empty => "see whether the export is whole; --allow empty takes it as it is".to_owned(),
            FileRefusal::TooManyInvalid { found, .. } => {
                let helps: String = helps(&found.shared).into_iter().map(|help| help + "; ").collect();
                format!("{helps}{check} names them; if they are to be left out, raise --max-invalid")
            }
            FileRefusal::Odd(_) => format!("{check} names them with what helps; without --strict they are sent"),
        }
    }

    /// The exit message of an import or a sync that does not begin.
    pub(super) fn last_word(&self, flags: &InputFlags) -> ExitMessage {
        ExitMessage::yours(self.why(flags), self.hint(flags))
    }

    /// The exit message of a check, which has listed the invalid records already.
    pub(super) fn after_check(&self, flags: &InputFlags) -> ExitMessage {
        let hint = match self {
            FileRefusal::Empty => "see whether the export is whole; `import` takes it as it is with --allow empty".to_owned(),
            FileRefusal::TooManyInvalid { found, .. } => {
                let helps = helps(&found.shared).join("; ");
                let helps = if helps.is_empty() { "see whether it is the right export and the right columns" } else { &helps };
                format!("{helps}; if they are to be left out, `import` takes it with a higher --max-invalid")
            }
            FileRefusal::Odd(_) => "correct the export, or leave --strict out: they are sent as they are".to_owned(),
        };
        ExitMessage::yours(self.why(flags), hint)
    }
}

/// The exit message for a file with too many invalid records at its start.
pub(super) fn too_many_invalid(found: TooManyInvalid, max_invalid: f64, flags: &InputFlags) -> ExitMessage {
    let refusal = FileRefusal::TooManyInvalid { found, max_invalid };
    refusal.last_word(flags)
}

/// Refuses a file that has broken records near its start, or that is not accepted; `roster` must be at the start. Returns what is odd about
/// the records that it has read: the first ones, or all of them with `--strict`.
///
/// # Errors
/// An [`ExitMessage`] with exit code 2.
pub(super) fn judge(mut roster: Roster<impl Read>, flags: &InputFlags, admission: Admission) -> Result<OddityCounts, ExitMessage> {
    let failed = |error| input::roster_error(&flags.file, &error);
    let (mut first, mut oddities) = (FirstRecords::default(), OddityCounts::default());
    while let Some(view) = roster.next_view() {
        let view = view.map_err(failed)?;
        let (tags, RecordRef { row, line, account, suspects, .. }) = (view.tags(), view);
        first.count(account.as_ref().err());
        if let Ok(account) = account {
            let place = OddPlace { row, line };
            oddities.see(&account, suspects, place);
            oddities.see_tags(tags, place);
        }
        if row == FIRST_RECORDS {
            admission.check_first_records(flags, &first)?;
            if admission.odd == OddFile::Told {
                break;
            }
        }
    }
    admission.refusal(&first, &oddities).map_or(Ok(oddities), |refusal| Err(refusal.last_word(flags)))
}

impl Admission {
    /// Judges the first records alone, before the rest is read.
    fn check_first_records(self, flags: &InputFlags, first: &FirstRecords) -> Result<(), ExitMessage> {
        let refusal = Self { odd: OddFile::Told, ..self }.refusal(first, &OddityCounts::default());
        refusal.map_or(Ok(()), |refusal| Err(refusal.last_word(flags)))?;
        if self.odd == OddFile::Refused {
            tracing::info!("reading the whole file before the first request, for --strict");
        }
        Ok(())
    }
}
