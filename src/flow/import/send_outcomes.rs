//! The results of a run, read back in order of ids, as a state takes them.

use std::io::{self, BufRead, BufReader};
use std::path::Path;

use super::ImportedRows;
use super::made_accounts::RowImport;
use crate::domain::account::USER_ID_MAX_BYTES as ID;
use crate::domain::cells::CellRules;
use crate::domain::change::{PaddedId, milliseconds};
use crate::domain::outcome::Status;
use crate::domain::verdict::is_certain_refusal;
use crate::io::extsort::{ExternalSorter, Sorted, take};
use crate::io::journal::results_reader::{FailedCall, ResultRecord, Results, ResultsError};
use crate::io::state::{Earlier, SendOutcome, Sent};

/// Bytes of [`to_bytes`].
pub(super) const BYTES: usize = ID + 18;
/// Calls that a row without an import of its own takes at least if its account is imported all the same: one that finds no account, the
/// import, and the tags.
const CALLS_WITH_IMPORT: u64 = 3;

/// The outcomes of rows that were to be sent, in order of ids and then of rows.
#[derive(Debug)]
pub struct SendOutcomes {
    sorted: Option<Sorted<BYTES>>,
    /// Rows of which nobody knows whether the service has them.
    pub unknown: u64,
}

impl SendOutcomes {
    /// For a run without results.
    #[must_use]
    pub const fn none() -> Self {
        Self { sorted: None, unknown: 0 }
    }

    /// Reads results and sorts them, in temporary files in `folder`. Their UserIDs are the input's cells, which `rules` read. The process that
    /// has written the last of them knows which accounts the service had not known.
    ///
    /// # Errors
    /// The disk's, or results that aren't as the journal wrote them.
    pub fn read(results: impl io::Read, rules: &CellRules, imported_rows: Option<&ImportedRows>, folder: &Path) -> io::Result<Self> {
        let mut sorter = ExternalSorter::in_folder(folder);
        let mut unknown = 0;
        for entry in whole_results(BufReader::new(results))? {
            let entry = entry?;
            if let Some((id, sent)) = rules.valid_id(&entry.user_id).zip(sent(&entry)) {
                // What was refused for the row's own fault makes nothing wait, even if some of its tags may have been taken.
                unknown += u64::from(entry.status == Ok(Status::Failed) && !entry.error_code.is_some_and(is_certain_refusal));
                let earlier = earlier(&entry, imported_rows);
                let outcome = SendOutcome::new(PaddedId::new(id.as_str().as_bytes()), entry.row, sent);
                sorter.push(to_bytes(&SendOutcome { earlier, ..outcome }))?;
            }
        }
        Ok(Self { sorted: Some(sorter.finish()?), unknown })
    }
}

impl Iterator for SendOutcomes {
    type Item = io::Result<SendOutcome>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.sorted.as_mut()?.next()?.map(|bytes| from_bytes(&bytes)))
    }
}

/// The entries of results, which must all be whole.
pub(super) fn whole_results<R: BufRead>(results: R) -> io::Result<impl Iterator<Item = io::Result<ResultRecord>>> {
    let bad = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let results = Results::new(results).map_err(|error| match error {
        ResultsError::Read(error) => error,
        ResultsError::Empty | ResultsError::Header => bad(error.to_string()),
    })?;
    Ok(results.map(move |entry| entry?.map_err(|malformed| bad(format!("line {} of the results: {}", malformed.at, malformed.why)))))
}

/// What came of a row, if it was to be sent.
pub(super) fn sent(entry: &ResultRecord) -> Option<Sent> {
    let status = entry.status.as_ref().ok()?;
    Some(match status {
        Status::Imported | Status::Created | Status::Updated => Sent::Taken { at: milliseconds(entry.finished_at?) },
        Status::Failed => failed(entry),
        Status::Invalid | Status::Superseded => return None,
    })
}

/// Whether what was known of an account before its row still holds, if the account was not to be imported. Where nobody knows, as many calls
/// as an import takes say that it may not.
pub(super) fn earlier(entry: &ResultRecord, imported_rows: Option<&ImportedRows>) -> Earlier {
    // An import that has failed says so itself.
    if entry.status == Ok(Status::Failed) && entry.failed_call == FailedCall::Account {
        return Earlier::MadeAnewIfLeft;
    }
    match imported_rows.and_then(|rows| rows.find(entry.row)) {
        Some(RowImport::Anew) => Earlier::MadeAnewIfLeft,
        None if entry.attempts.is_none_or(|attempts| attempts >= CALLS_WITH_IMPORT) => Earlier::InDoubtIfLeft,
        Some(RowImport::AsWell | RowImport::Nothing) | None => Earlier::Holds,
    }
}

/// What came of a row that failed. What its tags met says so in front.
fn failed(entry: &ResultRecord) -> Sent {
    let is_refused = entry.error_code.is_some_and(is_certain_refusal);
    match (entry.failed_call, entry.finished_at.map(milliseconds)) {
        (FailedCall::Tags, Some(at)) if is_refused => Sent::TagsRefused { at },
        (FailedCall::Tags | FailedCall::OneTag, Some(at)) => Sent::TagsUnknown { at },
        (FailedCall::Account, _) | (_, None) if is_refused => Sent::Refused,
        (FailedCall::Account, _) | (_, None) => Sent::Unknown,
    }
}

pub(super) fn to_bytes(outcome: &SendOutcome) -> [u8; BYTES] {
    let (kind, at) = match outcome.sent {
        Sent::Taken { at } => (0, at),
        Sent::Refused => (1, 0),
        Sent::Unknown => (2, 0),
        Sent::TagsRefused { at } => (3, at),
        Sent::TagsUnknown { at } => (4, at),
    };
    let mut bytes = [0; BYTES];
    bytes[..ID].copy_from_slice(outcome.id.padded());
    bytes[ID..ID + 8].copy_from_slice(&outcome.row.to_be_bytes());
    bytes[ID + 8] = kind;
    bytes[ID + 9] = match outcome.earlier {
        Earlier::Holds => 0,
        Earlier::InDoubtIfLeft => 1,
        Earlier::MadeAnewIfLeft => 2,
    };
    bytes[ID + 10..].copy_from_slice(&at.to_be_bytes());
    bytes
}

pub(super) fn from_bytes(bytes: &[u8; BYTES]) -> SendOutcome {
    let mut rest = bytes.as_slice();
    let (id, row, [kind, earlier], at) = (take(&mut rest), take(&mut rest), take(&mut rest), i64::from_be_bytes(take(&mut rest)));
    let sent = match kind {
        0 => Sent::Taken { at },
        1 => Sent::Refused,
        3 => Sent::TagsRefused { at },
        4 => Sent::TagsUnknown { at },
        _ => Sent::Unknown,
    };
    let earlier = match earlier {
        0 => Earlier::Holds,
        1 => Earlier::InDoubtIfLeft,
        _ => Earlier::MadeAnewIfLeft,
    };
    SendOutcome { id: PaddedId::from_padded(id), row: u64::from_be_bytes(row), sent, earlier }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_read_as_it_was_written() {
        for sent in [Sent::Taken { at: 5 }, Sent::Refused, Sent::Unknown, Sent::TagsRefused { at: 6 }, Sent::TagsUnknown { at: 7 }] {
            for earlier in [Earlier::Holds, Earlier::InDoubtIfLeft, Earlier::MadeAnewIfLeft] {
                let outcome = SendOutcome { earlier, ..SendOutcome::new(PaddedId::new(b"u"), 9, sent) };
                assert_eq!(from_bytes(&to_bytes(&outcome)), outcome);
            }
        }
    }
}
