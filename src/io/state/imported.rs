//! What an import comes to, taken over into a state: until it has finished, everything is in doubt.

use std::io;

use rusqlite::{OptionalExtension, Transaction, params};

use super::account::{ALL_TAGS, AccountAfterRun, SettledRun, account_columns, held, upsert};
use super::bulk::Bulk;
use super::overlay::{PlannedRow, RunOverlay};
use super::run_record::{NewRun, SendOutcome, Sent, insert_run, text};
use super::{ChangeError, StateDb, StateError, run, tags};
use crate::domain::change::{AccountCall, InDoubt, KnownAccount, PaddedId, ProfileHashes};
use crate::domain::known_tags::{RecordTags, TagNumber};
use crate::domain::profile::ProfileField;

/// An account as an import has left it, in order of ids and then of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedRow {
    pub outcome: SendOutcome,
    pub account: AccountCall,
    pub profile: ProfileHashes,
    /// Of the tags that [`NewRun::filled`] lists.
    pub tags: RecordTags,
}

impl StateDb {
    /// Takes note that an import into this state begins: until it has finished, everything is in doubt. `import` is what it is known by
    /// until then; what another one, still unfinished, has left in doubt is settled by a sync alone.
    ///
    /// # Errors
    /// The database's, as everywhere here.
    pub fn import_begins(&mut self, import: u64) -> Result<(), StateError> {
        let import = importing(import);
        self.change("change", |change| {
            doubt_all(change, "importing NOT IN (0, ?1)", [import])?;
            change.execute("UPDATE about SET importing = ?1", [import])?;
            Ok(())
        })
    }

    /// Takes over what an import has come to; what a later run has learned stays. A sync that is open is given up: what it may have sent is
    /// in doubt.
    ///
    /// # Errors
    /// The database's, or that of `settled`.
    pub fn import_finished(
        &mut self,
        import: u64,
        new: &NewRun,
        settled: impl Iterator<Item = io::Result<ImportedRow>>,
        done: super::RunTotals,
    ) -> Result<(), StateError> {
        self.change("fill", |change| {
            run::settle(change, std::iter::empty(), SettledRun::LeftOpen)?;
            let numbers = tags::numbers(change, new.filled.tags.iter().map(|(tag, _)| tag.clone()))?;
            take_over_import(change, &numbers, settled)?;
            change.execute("UPDATE about SET importing = 0 WHERE importing = ?1", [importing(import)])?;
            run::clear(change)?;
            change.execute("DELETE FROM runs WHERE finished_at IS NULL", [])?;
            let number = insert_run(change, new)?;
            let values = params![new.began_at, text(&done), number.cast_signed()];
            change.execute(
                "UPDATE runs SET finished_at = ?1, done = ?2, held_at_end = (SELECT count(*) FROM accounts WHERE missing_runs = 0)
                 WHERE number = ?3",
                values,
            )?;
            Ok(())
        })
    }
}

/// Marks all accounts, if that is so of the state.
pub(super) fn doubt_all(change: &Transaction, condition: &str, values: impl rusqlite::Params) -> Result<(), ChangeError> {
    let fields = ProfileField::ALL.map(ProfileField::spec);
    let known: Vec<String> = fields.iter().map(|field| format!("{} * ({} IS NOT NULL)", field.doubt_bit, field.column)).collect();
    let none: Vec<String> = fields.iter().map(|field| format!("{} IS NULL", field.column)).collect();
    let (known, none, existence) = (known.join(" | "), none.join(" AND "), InDoubt::EXISTENCE.bits());
    change.execute(
        &format!(
            "UPDATE accounts SET in_doubt = in_doubt | {known} | {existence} * (last_imported IS NULL OR ({none})) \
             | {ALL_TAGS} * (tags IS NOT NULL) WHERE EXISTS (SELECT 1 FROM about WHERE {condition})"
        ),
        values,
    )?;
    Ok(())
}

/// An import as the state notes it: 0 is none.
const fn importing(import: u64) -> i64 {
    (import | 1).cast_signed()
}

/// An account that an import fills.
#[derive(Debug, Clone)]
struct MergedAccount {
    id: PaddedId,
    /// The account as it was found.
    before: Option<KnownAccount>,
    /// The account as it is by now.
    now: Option<KnownAccount>,
}

impl MergedAccount {
    /// Takes what came of a row; `last_sync` is when the last sync began.
    fn take(&mut self, row: ImportedRow, numbers: &[TagNumber], last_sync: Option<i64>) -> io::Result<()> {
        let ImportedRow { outcome, account, profile, tags } = row;
        let is_older = |than: Option<i64>| outcome.sent.taken_at().is_some_and(|at| than >= Some(at));
        if is_older(self.before.as_ref().and_then(|held| held.last_imported)) {
            return Ok(());
        }
        let tags = tags::numbered(&tags, numbers);
        let (found, held_back, found_tags) = (InDoubt::NOTHING, Vec::new(), Vec::new());
        let planned = PlannedRow { row: outcome.row, sent: Some(account), profile, tags, held_back, found, found_tags };
        let mut overlay = RunOverlay::new(std::iter::once(Ok(outcome)), outcome.row);
        let AccountAfterRun::Known(held) = overlay.apply(self.id.as_bytes(), &planned, self.now.take())? else { return Ok(()) };
        // Whoever is in the file is not missing, whatever came of the row. When a row failed nobody knows; that may spare an account, and costs none.
        let held = match outcome.sent {
            Sent::Taken { .. } | Sent::TagsRefused { .. } | Sent::TagsUnknown { .. } => held,
            Sent::Refused | Sent::Unknown => KnownAccount { missing_runs: 0, is_kicked: false, raised_at: None, ..held },
        };
        self.now = Some(match &self.before {
            _ if !is_older(last_sync) => held,
            // The sync may have deleted it.
            None => {
                let doubted = held.doubted();
                KnownAccount { in_doubt: doubted.in_doubt.and(InDoubt::EXISTENCE), ..doubted }
            }
            Some(before) => as_doubtful(held, before),
        });
        Ok(())
    }
}

/// The account with the doubts and the missing runs of a sync that knows it better.
fn as_doubtful(held: KnownAccount, before: &KnownAccount) -> KnownAccount {
    let KnownAccount { missing_runs, in_doubt, is_kicked, raised_at, .. } = *before;
    let mut held = KnownAccount { missing_runs, in_doubt, is_kicked, raised_at, ..held };
    before.tags.iter().filter(|tag| tag.in_doubt).for_each(|tag| held.tags.doubt(tag.number));
    held
}

/// The rows of one id come in order: what they sent adds up.
fn take_over_import(
    change: &Transaction,
    numbers: &[TagNumber],
    settled: impl Iterator<Item = io::Result<ImportedRow>>,
) -> Result<(), ChangeError> {
    let mut accounts = Bulk::new(change, upsert());
    let mut find = change.prepare(&format!("SELECT a.id, {} FROM accounts a WHERE a.id = ?1", account_columns()))?;
    let last_sync = change.query_row("SELECT max(began_at) FROM runs WHERE command = 'sync'", [], |row| row.get(0))?;
    let mut put = |MergedAccount { id, before, now }: MergedAccount| match now {
        Some(held) if before.as_ref() != Some(&held) => accounts.push((id, held)),
        Some(_) | None => Ok(()),
    };
    let mut current: Option<MergedAccount> = None;
    for row in settled {
        let row = row?;
        let id = row.outcome.id;
        if let Some(last) = current.take_if(|current| current.id != id) {
            put(last)?;
        }
        let filling = match &mut current {
            Some(filling) => filling,
            none => {
                let before = find.query_row([id.as_str()], |row| held(row, 1)).optional()?;
                none.insert(MergedAccount { id, before: before.clone(), now: before })
            }
        };
        filling.take(row, numbers, last_sync)?;
    }
    if let Some(last) = current {
        put(last)?;
    }
    accounts.finish()
}
