//! A finished import fills a state, from its input and its results.

use std::fs::File;
use std::io::{self, BufReader};
use std::time::SystemTime;

use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use super::made_accounts::RowImport;
use super::send_outcomes::{self, earlier, sent, whole_results};
use super::tag_rows::TagRows;
use super::{ImportScope, ImportedRows};
use crate::domain::change::{AccountCall, Ops, PROFILE_BYTES, PaddedId, PlanCounts, ProfileHashes, milliseconds};
use crate::domain::guard::Filled;
use crate::domain::known_tags::RecordTags;
use crate::domain::outcome::OutcomeCounts;
use crate::domain::position::InputPosition;
use crate::domain::target::Target;
use crate::io::extsort::ExternalSorter;
use crate::io::files::{folder_of, resolved};
use crate::io::journal::paths::RunPaths;
use crate::io::journal::results_reader::ResultRecord;
use crate::io::roster::{Format, InputFile, Roster};
use crate::io::state::{Earlier, ImportedRow, NewRun, RunInput, RunRecord, RunTotals, SendOutcome, StateDb, StateError, StateLock};

/// The command by which a state knows the run of an import.
const IMPORT: &str = "import";
/// Bytes of a row while they are sorted.
const ROW_BYTES: usize = send_outcomes::BYTES + 1 + PROFILE_BYTES;

/// Why a state is not filled.
#[derive(Debug, Error)]
pub enum FillError {
    #[error(transparent)]
    State(#[from] StateError),
    /// Input or results can't be read, or don't belong together.
    #[error("cannot fill the state")]
    Source(#[from] io::Error),
    /// The import is finished and its input is gone, which it would have to be filled from.
    #[error("the import is finished, but its standard input is gone: {} is not filled from it", state.display())]
    NoInput { state: std::path::PathBuf },
}

/// A state that an import fills.
#[derive(Debug, Clone, Copy)]
pub struct StateFilling<'a> {
    pub lock: &'a StateLock,
    pub target: &'a Target,
    /// The files of the import.
    pub paths: &'a RunPaths,
    /// What the import has sent of its records.
    pub scope: ImportScope,
    /// The rows of a run of profiles alone that have imported their accounts, as far as this process knows.
    pub imported_rows: Option<&'a ImportedRows>,
    /// Draws what a new state, or a run, is known by; never 0.
    pub draw: fn() -> u64,
}

impl StateFilling<'_> {
    /// Records that the import begins: until it has finished, all accounts of the state are in doubt.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn begin(&self) -> Result<(), StateError> {
        self.lock.open_or_create(self.target, (self.draw)())?.import_begins(self.identity())
    }

    /// Takes over what the finished import has come to: `counts` are all of its rows.
    ///
    /// # Errors
    /// [`FillError`].
    ///
    /// # Panics
    /// Never.
    pub fn finish(&self, (file, format): (&InputFile, &Format), counts: OutcomeCounts, now: SystemTime) -> Result<(), FillError> {
        let mut state = self.lock.open_or_create(self.target, (self.draw)())?;
        let mut sorter = ExternalSorter::in_folder(folder_of(self.lock.path()));
        let ReadRows { input, filled, mut tags, unsent } = self.read(file, format, &mut sorter)?;
        let rows = sorter.finish()?.map(|bytes| {
            let row = row_from_bytes(&bytes?);
            Ok(ImportedRow { tags: tags.read(row.outcome.row)?, ..row })
        });
        let ops = Ops::default();
        let (counts, done) = self.counts(counts, unsent);
        let new = NewRun {
            counts,
            filled,
            token: (self.draw)(),
            ends_with_newline: Some(file.ends_with_newline()?),
            uuids: format.cells.uuids,
            ..NewRun::bare(IMPORT, milliseconds(now), input, &ops)
        };
        state.import_finished(self.identity(), &new, rows, done)?;
        self.lock.keep();
        Ok(())
    }

    /// The run as it is noted. Profiles alone create nobody, but for users whom the service did not know.
    fn counts(&self, OutcomeCounts { imported, failed, invalid, .. }: OutcomeCounts, unsent: u64) -> (PlanCounts, RunTotals) {
        let (none, nothing_done) = (PlanCounts { invalid, ..PlanCounts::default() }, RunTotals { failed, ..RunTotals::default() });
        match self.scope {
            ImportScope::Everything => (PlanCounts { create: imported + failed, ..none }, RunTotals { created: imported, ..nothing_done }),
            ImportScope::ProfilesOnly => (
                PlanCounts { update: imported + failed - unsent, unchanged: unsent, ..none },
                RunTotals { updated: imported - unsent, ..nothing_done },
            ),
        }
    }

    /// Whether a row has imported its account for certain, and what that says of what was known before.
    fn account_call(&self, entry: &ResultRecord) -> (AccountCall, Earlier) {
        if self.scope == ImportScope::Everything {
            return (AccountCall::Imported, Earlier::Holds);
        }
        let is_as_well = self.imported_rows.and_then(|rows| rows.find(entry.row)) == Some(RowImport::AsWell);
        // All that is known of the account by then is what this run has sent.
        if is_as_well { (AccountCall::Imported, Earlier::Holds) } else { (AccountCall::Left, earlier(entry, self.imported_rows)) }
    }

    /// Checks that the state has been filled from a finished import whose input ended there and is gone.
    ///
    /// # Errors
    /// [`FillError::NoInput`] if it has not, or the state's.
    pub fn ensure_filled_from(&self, end: InputPosition) -> Result<(), FillError> {
        let runs = StateDb::find(self.lock.path())?.map(|state| state.runs(u32::MAX)).transpose()?;
        let is_it = |run: &RunRecord| run.command == IMPORT && (run.input.len, run.input.digest) == (end.offset, end.digest);
        let is_filled = runs.is_some_and(|runs| runs.iter().any(is_it));
        if is_filled { Ok(()) } else { Err(FillError::NoInput { state: self.lock.path().to_owned() }) }
    }

    /// What the unfinished import is known by: where its checkpoint is.
    fn identity(&self) -> u64 {
        use std::os::unix::ffi::OsStrExt;
        xxh3_64(resolved(&self.paths.checkpoint).as_os_str().as_bytes())
    }

    /// Reads the input and its results side by side.
    fn read(&self, file: &InputFile, format: &Format, sorter: &mut ExternalSorter<ROW_BYTES>) -> io::Result<ReadRows> {
        let bad = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
        let mut roster = Roster::of(file, format).map_err(io::Error::other)?;
        let mut entries = whole_results(BufReader::new(File::open(&self.paths.results)?))?;
        let stat = file.fingerprint()?;
        let mut filled = Filled::of(roster.header().tags().cloned());
        let mut tags = TagRows::in_folder(folder_of(self.lock.path()), roster.header().tags().cloned())?;
        let mut unsent = 0;
        while let Some(view) = roster.next_view() {
            let view = view.map_err(|error| bad(&error.to_string()))?;
            let entry = entries.next().ok_or_else(|| bad("the results end before the input"))??;
            if (entry.row, &*entry.user_id) != (view.row, view.user_id) {
                return Err(bad("the results are not those of the input"));
            }
            let Ok(account) = &view.account else {
                tags.push_none()?;
                continue;
            };
            filled.count(account.profile());
            tags.push(view.tag_cells().map(|(_, value)| value), &mut filled)?;
            // What no call carried is not known.
            let is_sent = self.scope == ImportScope::Everything || view.tags().next().is_some();
            unsent += u64::from(!is_sent);
            if let Some(sent) = sent(&entry).filter(|_| is_sent) {
                let (account_call, earlier) = self.account_call(&entry);
                let outcome = SendOutcome { earlier, ..SendOutcome::new(PaddedId::new(account.user_id.as_bytes()), view.row, sent) };
                sorter.push(row_to_bytes(&outcome, account_call, ProfileHashes::of(account.profile())))?;
            }
        }
        let end = roster.at();
        Ok(ReadRows { input: RunInput { len: end.offset, digest: end.digest, stat }, filled, tags, unsent })
    }
}

/// What input and results say together, but for the rows themselves.
struct ReadRows {
    input: RunInput,
    filled: Filled,
    tags: TagRows,
    /// Valid rows for which nothing was sent.
    unsent: u64,
}

/// Sorts by id, then by row.
fn row_to_bytes(outcome: &SendOutcome, account: AccountCall, profile: ProfileHashes) -> [u8; ROW_BYTES] {
    let mut bytes = [0; ROW_BYTES];
    let (front, back) = bytes.split_at_mut(send_outcomes::BYTES);
    front.copy_from_slice(&send_outcomes::to_bytes(outcome));
    back[0] = u8::from(account == AccountCall::Imported);
    back[1..].copy_from_slice(&profile.to_bytes());
    bytes
}

/// Without its tags.
fn row_from_bytes(bytes: &[u8; ROW_BYTES]) -> ImportedRow {
    let (outcome, rest) = bytes.split_first_chunk().expect("the lengths are constants that add up");
    let ([is_imported], profile) = rest.split_first_chunk().expect("the lengths are constants that add up");
    let profile = profile.first_chunk().expect("the lengths are constants that add up");
    let account = if *is_imported == 0 { AccountCall::Left } else { AccountCall::Imported };
    let profile = ProfileHashes::from_bytes(profile);
    ImportedRow { outcome: send_outcomes::from_bytes(outcome), account, profile, tags: RecordTags::default() }
}
