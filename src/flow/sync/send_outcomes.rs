//! The results of a run, read back in order of ids.

use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::time::SystemTime;

use super::planning::spill_in;
use super::record_digest::{RecordDigest, RecordTag, SETTLEMENT, SLIP, settlement_from_bytes, settlement_to_bytes};
use crate::domain::cells::CellRules;
use crate::domain::change::{PaddedId, ProfileHashes};
use crate::domain::guard::Filled;
use crate::domain::outcome::Status;
use crate::domain::position::FileStat;
use crate::domain::verdict::is_rows_own;
use crate::io::extsort::{ExternalSorter, Sorted};
use crate::io::journal::results::{ResultRecord, Results, ResultsError};
use crate::io::roster::Roster;
use crate::io::state::{ImportedRow, RunInput, SendOutcome, Sent};

/// The outcomes of rows that were to be sent, in order of ids and then of rows.
#[derive(Debug)]
pub struct SendOutcomes {
    sorted: Option<Sorted<SETTLEMENT>>,
    /// Rows of which nobody knows whether the service has them.
    pub unknown: u64,
}

impl SendOutcomes {
    /// Of a run that has left none.
    #[must_use]
    pub const fn none() -> Self {
        Self { sorted: None, unknown: 0 }
    }
}

impl Iterator for SendOutcomes {
    type Item = io::Result<SendOutcome>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.sorted.as_mut()?.next()?.map(|bytes| settlement_from_bytes(&bytes)))
    }
}

/// Reads results and sorts them, in temporary files in `folder`. Their UserIDs are the input's cells, which `rules` read.
///
/// # Errors
/// The disk's, or results that aren't as the journal wrote them.
pub fn settlements(results: impl io::Read, rules: &CellRules, folder: &Path) -> io::Result<SendOutcomes> {
    let mut sorter = ExternalSorter::new(spill_in(folder.to_owned()));
    let mut unknown = 0;
    for entry in import_results(BufReader::new(results))? {
        let entry = entry?;
        if let Some((id, sent)) = rules.valid_id(&entry.user_id).zip(sent(&entry)) {
            let id = PaddedId::new(id.as_str().as_bytes());
            unknown += u64::from(sent == Sent::Unknown);
            sorter.push(settlement_to_bytes(&SendOutcome { id, row: entry.row, sent }))?;
        }
    }
    Ok(SendOutcomes { sorted: Some(sorter.finish()?), unknown })
}

/// The entries of results that are whole.
///
/// # Errors
/// As [`settlements`].
fn import_results<R: BufRead>(results: R) -> io::Result<impl Iterator<Item = io::Result<ResultRecord>>> {
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
        Status::Failed if entry.error_code.is_some_and(is_rows_own) => Sent::Refused,
        Status::Failed => Sent::Unknown,
        Status::Invalid | Status::Superseded => return None,
    })
}

/// Since the epoch.
#[must_use]
pub fn milliseconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Bytes of a row of an import: its digest and its outcome.
const IMPORT_SLIP: usize = SLIP + SETTLEMENT;

/// What an import has come to, to be taken over by a state.
#[expect(missing_debug_implementations, reason = "it holds an iterator")]
pub struct ImportOutcomes<I> {
    /// In order of ids, then of rows.
    pub accounts: I,
    pub filled: Filled,
    pub input: RunInput,
}

/// Reads the input of a finished import and its results side by side and sorts them, in temporary files in `folder`.
///
/// # Errors
/// The disk's; [`io::ErrorKind::InvalidData`] where the two don't belong together.
///
/// # Panics
/// Never.
pub fn import_settled<I: io::Read, R: io::Read>(
    roster: &mut Roster<I>,
    stat: FileStat,
    results: R,
    folder: &Path,
) -> io::Result<ImportOutcomes<impl Iterator<Item = io::Result<ImportedRow>> + use<I, R>>> {
    let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let mut sorter = ExternalSorter::<IMPORT_SLIP>::new(spill_in(folder.to_owned()));
    let mut entries = import_results(BufReader::new(results))?;
    let mut filled = Filled::default();
    while let Some(view) = roster.next_view() {
        let view = view.map_err(|error| bad(&error.to_string()))?;
        let entry = entries.next().ok_or_else(|| bad("the results end before the input"))??;
        if (entry.row, &*entry.user_id) != (view.row, view.user_id) {
            return Err(bad("the results are not those of the input"));
        }
        let Ok(account) = &view.account else { continue };
        filled.count(account.nick.is_some(), account.face_url.is_some());
        if let Some(sent) = sent(&entry) {
            let id = PaddedId::new(account.user_id.as_bytes());
            let profile = ProfileHashes::of(account.nick, account.face_url);
            let slip = RecordDigest { id, row: view.row, tag: RecordTag::Sent, profile }.to_bytes();
            let mut bytes = [0; IMPORT_SLIP];
            bytes[..SLIP].copy_from_slice(&slip);
            bytes[SLIP..].copy_from_slice(&settlement_to_bytes(&SendOutcome { id, row: view.row, sent }));
            sorter.push(bytes)?;
        }
    }
    let end = roster.at();
    let accounts = sorter.finish()?.map(|bytes| {
        let bytes = bytes?;
        let (slip, settlement) = bytes.split_at(SLIP);
        let (slip, settlement) = (slip.first_chunk().expect("it was split there"), settlement.first_chunk().expect("it was split there"));
        Ok(ImportedRow { profile: RecordDigest::from_bytes(slip).profile, settlement: settlement_from_bytes(settlement) })
    });
    Ok(ImportOutcomes { accounts, filled, input: RunInput { len: end.offset, digest: end.digest, stat } })
}
