//! What came of a run's rows, read back from its results, in order of ids.

use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::time::SystemTime;

use super::planning::spill_in;
use super::slip::{SETTLEMENT, settlement_from_bytes, settlement_to_bytes};
use crate::account::UserId;
use crate::journal::results::{Entry, Results, ResultsError};
use crate::outcome::Status;
use crate::plan::Id;
use crate::spill::{Sorted, Sorter};
use crate::state::{Sent, Settlement};
use crate::verdict::is_rows_own;

/// The outcomes of rows that were to be sent, in order of ids and then of rows.
#[derive(Debug)]
pub struct Settlements(Option<Sorted<SETTLEMENT>>);

impl Settlements {
    /// Of a run that has left none.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }
}

impl Iterator for Settlements {
    type Item = io::Result<Settlement>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.0.as_mut()?.next()?.map(|bytes| settlement_from_bytes(&bytes)))
    }
}

/// Reads results and sorts them, in temporary files in `folder`.
///
/// # Errors
/// The disk's, or results that aren't as the journal wrote them.
pub fn settlements(results: impl io::Read, folder: &Path) -> io::Result<Settlements> {
    let mut sorter = Sorter::new(spill_in(folder.to_owned()));
    for entry in import_results(BufReader::new(results))? {
        let entry = entry?;
        if let Some((id, sent)) = sent(&entry) {
            sorter.push(settlement_to_bytes(&Settlement { id, row: entry.row, sent }))?;
        }
    }
    Ok(Settlements(Some(sorter.finish()?)))
}

/// The entries of results that are whole.
///
/// # Errors
/// As [`settlements`].
pub fn import_results<R: BufRead>(results: R) -> io::Result<impl Iterator<Item = io::Result<Entry>>> {
    let bad = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let results = Results::new(results).map_err(|error| match error {
        ResultsError::Read(error) => error,
        ResultsError::Empty | ResultsError::Header => bad(error.to_string()),
    })?;
    Ok(results.map(move |entry| entry?.map_err(|malformed| bad(format!("line {} of the results: {}", malformed.at, malformed.why)))))
}

/// What came of a row, if it was to be sent.
pub(super) fn sent(entry: &Entry) -> Option<(Id, Sent)> {
    let status = entry.status.as_ref().ok()?;
    let sent = match status {
        Status::Imported | Status::Created | Status::Updated => Sent::Taken { at: milliseconds(entry.finished_at?) },
        Status::Failed if entry.error_code.is_some_and(is_rows_own) => Sent::Refused,
        Status::Failed => Sent::Unknown,
        Status::Invalid | Status::Superseded => return None,
    };
    UserId::check(&entry.user_id).ok().map(|id| (Id::new(id.as_bytes()), sent))
}

/// Since the epoch.
pub(super) fn milliseconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
