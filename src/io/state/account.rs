//! The accounts of a state: reads them in order of ids, and updates them from the results of a run.

use std::io;

use rusqlite::types::Type;
use rusqlite::{Connection, Row, Transaction};

use super::bulk::{Bulk, Insert, OnConflict};
use super::overlay::{PlannedRow, RunOverlay};
use super::run_record::{SendOutcome, wrong_type};
use super::{ChangeError, StateDb, StateError, run, slices, tags};
use crate::domain::account::{UserId, UserIds};
use crate::domain::change::{InDoubt, KnownAccount, PaddedId, ProfileHashes};
use crate::domain::known_tags::{KnownTag, KnownTags};
use crate::domain::profile::ProfileField;

/// What is known of an account after a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountAfterRun {
    Known(KnownAccount),
    /// Nothing; it was never there.
    Unknown,
}

/// How many accounts a state holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AccountCounts {
    pub accounts: u64,
    pub in_doubt: u64,
    pub missing: u64,
    pub kicked: u64,
}

/// Profile fields.
const FIELDS: usize = ProfileField::ALL.len();

/// The columns of an account behind its profile.
const COLUMNS: [&str; 6] = ["last_imported", "missing_runs", "in_doubt", "kicked", "raised_at", "tags"];
/// The bit of `in_doubt` by which all known tags are in doubt: so they can be put in doubt without being read.
pub(super) const ALL_TAGS: u8 = 32;
/// The bit of `in_doubt` for accounts of which some tag is in doubt: so whoever looks at this column alone sees all that are.
pub(super) const SOME_TAGS: u8 = 64;

fn columns() -> impl Iterator<Item = &'static str> {
    ProfileField::ALL.into_iter().map(|field| field.spec().column).chain(COLUMNS)
}

/// The columns that [`held`] reads, in accounts called `a`.
pub(super) fn account_columns() -> String {
    columns().map(|column| format!("a.{column}")).collect::<Vec<_>>().join(", ")
}

/// The columns that [`in_plan`] reads behind those of an account, in plans called `p`.
fn plan_columns() -> String {
    let fields = ProfileField::ALL.into_iter().map(|field| field.spec().column);
    let columns = ["row", "sent"].into_iter().chain(fields).chain(["found", "tags", "found_tags"]);
    columns.map(|column| format!("p.{column}")).collect::<Vec<_>>().join(", ")
}

pub(super) fn upsert() -> Insert<(PaddedId, KnownAccount)> {
    Insert {
        table: "accounts",
        columns: std::iter::once("id").chain(columns()).collect(),
        on_conflict: OnConflict::Replace,
        bind: |values, (id, held)| {
            let KnownAccount { profile, last_imported, missing_runs, in_doubt, is_kicked, raised_at, tags } = held;
            values.put(id.as_str())?;
            values.put_profile(*profile)?;
            values.put(last_imported)?;
            values.put(missing_runs)?;
            values.put(in_doubt.bits() | if tags.are_in_doubt() { SOME_TAGS } else { 0 })?;
            values.put(is_kicked)?;
            values.put(raised_at)?;
            values.put(tags::column(tags))
        },
    }
}

/// Visits all accounts as they stand.
pub(super) fn each(db: &Connection, mut visit: impl FnMut(&[u8], &mut KnownAccount) -> io::Result<()>) -> Result<(), ChangeError> {
    let query = format!("SELECT a.id, {} FROM accounts a WHERE a.id > ?1 ORDER BY a.id", account_columns());
    // One account is read into the memory of the one before.
    let mut account = KnownAccount::default();
    slices::each_row(db, &query, |row| {
        read(row, 1, &mut account)?;
        Ok(visit(id(row)?, &mut account)?)
    })
}

/// Visits all accounts as they are once the open run is settled.
pub(super) fn each_overlaid<I: Iterator<Item = io::Result<SendOutcome>>>(
    db: &Connection,
    mut overlay: RunOverlay<I>,
    mut visit: impl FnMut(&[u8], &mut KnownAccount) -> io::Result<()>,
) -> Result<(), ChangeError> {
    let (account, plan, nothing) = (account_columns(), plan_columns(), vec!["NULL"; columns().count()].join(", "));
    let query = format!(
        "SELECT a.id, {account}, {plan} FROM accounts a LEFT JOIN planned p ON p.id = a.id \
         WHERE a.id > ?1 \
         UNION ALL SELECT p.id, {nothing}, {plan} FROM planned p \
         WHERE p.id > ?1 AND NOT EXISTS (SELECT 1 FROM accounts a WHERE a.id = p.id) ORDER BY 1"
    );
    slices::each_row(db, &query, |row| {
        let id = id(row)?;
        let before = account_if_any(row)?;
        let kept = match in_plan(row)? {
            Some(planned) => overlay.apply(id, &planned, before)?,
            None => before.map_or(AccountAfterRun::Unknown, AccountAfterRun::Known),
        };
        if let AccountAfterRun::Known(mut held) = kept {
            visit(id, &mut held)?;
        }
        Ok(())
    })
}

/// Whether the run that is settled has come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SettledRun {
    /// Whoever was in its input is not missing, whatever came of his row.
    Finished,
    LeftOpen,
}

/// Writes what came of the open run to the accounts that are in its plan.
pub(super) fn settle<I: Iterator<Item = io::Result<SendOutcome>>>(
    change: &Transaction,
    mut overlay: RunOverlay<I>,
    run: SettledRun,
) -> Result<(), ChangeError> {
    let mut accounts = Bulk::new(change, upsert());
    let mut query = change.prepare(&format!(
        "SELECT p.id, {}, {} FROM planned p LEFT JOIN accounts a ON a.id = p.id ORDER BY p.id",
        account_columns(),
        plan_columns()
    ))?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let id = id(row)?;
        let before = account_if_any(row)?;
        let Some(planned) = in_plan(row)? else { continue };
        let AccountAfterRun::Known(held) = overlay.apply(id, &planned, before.clone())? else { continue };
        let held = match run {
            SettledRun::Finished => KnownAccount { missing_runs: 0, is_kicked: false, raised_at: None, ..held },
            SettledRun::LeftOpen => held,
        };
        if before.as_ref() != Some(&held) {
            accounts.push((valid(id)?, held))?;
        }
    }
    accounts.finish()
}

/// An id as the file holds it, whoever wrote it there.
fn valid(id: &[u8]) -> io::Result<PaddedId> {
    let valid = UserId::check_as(UserIds::Any, id).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(PaddedId::new(valid.as_bytes()))
}

pub(super) fn id<'a>(row: &'a Row) -> rusqlite::Result<&'a [u8]> {
    row.get_ref(0)?.as_bytes().map_err(|_| wrong_type(0, Type::Text))
}

/// The account that begins at the second column of a row, if there is one: each has a number of missing runs.
fn account_if_any(row: &Row) -> rusqlite::Result<Option<KnownAccount>> {
    let has_account = row.get_ref(1 + FIELDS + 1)? != rusqlite::types::ValueRef::Null;
    has_account.then(|| held(row, 1)).transpose()
}

pub(super) fn held(row: &Row, first: usize) -> rusqlite::Result<KnownAccount> {
    let mut account = KnownAccount::default();
    read(row, first, &mut account)?;
    Ok(account)
}

/// Reads the account that begins at this column.
fn read(row: &Row, first: usize, account: &mut KnownAccount) -> rusqlite::Result<()> {
    let rest = first + FIELDS;
    account.profile = profile(row, first)?;
    account.last_imported = row.get(rest)?;
    account.missing_runs = row.get(rest + 1)?;
    let in_doubt: u8 = row.get(rest + 2)?;
    account.in_doubt = InDoubt::from_bits(in_doubt & !(ALL_TAGS | SOME_TAGS));
    account.is_kicked = row.get(rest + 3)?;
    account.raised_at = row.get(rest + 4)?;
    account.tags.read(blob(row, rest + 5)?);
    if in_doubt & ALL_TAGS != 0 {
        account.tags.doubt_all();
    }
    Ok(())
}

/// The bytes of a column; none where it is NULL.
fn blob<'a>(row: &'a Row, column: usize) -> rusqlite::Result<&'a [u8]> {
    Ok(row.get_ref(column)?.as_blob_or_null().map_err(|_| wrong_type(column, Type::Blob))?.unwrap_or_default())
}

/// The profile that begins at this column.
fn profile(row: &Row, first: usize) -> rusqlite::Result<ProfileHashes> {
    let mut profile = ProfileHashes::default();
    for (field, column) in ProfileField::ALL.into_iter().zip(first..) {
        profile[field] = row.get::<_, Option<i64>>(column)?.map(i64::cast_unsigned);
    }
    Ok(profile)
}

fn in_plan(row: &Row) -> rusqlite::Result<Option<PlannedRow>> {
    let first = 1 + FIELDS + COLUMNS.len();
    let Some(number) = row.get::<_, Option<i64>>(first)? else { return Ok(None) };
    let behind = first + 2 + FIELDS;
    let tags = |column: usize| -> rusqlite::Result<KnownTags> {
        let mut tags = KnownTags::default();
        tags.read(blob(row, column)?);
        Ok(tags)
    };
    // Of a plan, the flag of doubt marks those that are held back.
    let planned = tags(behind + 1)?;
    let hashed = |tag: &KnownTag| Some((tag.number, tag.hash?));
    Ok(Some(PlannedRow {
        row: number.cast_unsigned(),
        sent: run::account_call(row.get(first + 1)?),
        profile: profile(row, first + 2)?,
        found: InDoubt::from_bits(row.get(behind)?),
        tags: planned.iter().filter(|tag| !tag.in_doubt).filter_map(hashed).collect(),
        held_back: planned.iter().filter(|tag| tag.in_doubt).filter_map(hashed).collect(),
        found_tags: tags(behind + 2)?.iter().map(|tag| tag.number).collect(),
    }))
}

impl StateDb {
    /// Visits every account as it stands, in order of ids.
    ///
    /// # Errors
    /// The database's, or that of `visit`.
    pub fn each_account(&self, mut visit: impl FnMut(&[u8], &KnownAccount) -> io::Result<()>) -> Result<(), StateError> {
        each(&self.db, |id, held| visit(id, held)).map_err(|error| self.state_error("read", error))
    }

    /// How many accounts there are.
    ///
    /// # Errors
    /// The database's.
    pub fn account_count(&self) -> Result<u64, StateError> {
        let counted = self.db.query_row("SELECT count(*) FROM accounts", [], |row| row.get::<_, i64>(0));
        counted.map(i64::unsigned_abs).map_err(|error| self.state_error("read", error.into()))
    }

    /// The rows of the open run for which calls may have left: what came of them is not recorded yet. `None` without such rows.
    ///
    /// # Errors
    /// The database's.
    pub fn unrecorded_rows(&self) -> Result<Option<u64>, StateError> {
        let query = "SELECT count(*) FROM planned, runs WHERE sent AND finished_at IS NULL AND row <= sent_up_to";
        let counted = self.db.query_row(query, [], |row| row.get::<_, i64>(0)).map_err(self.cannot("read"))?;
        Ok(Some(counted.unsigned_abs()).filter(|rows| *rows > 0))
    }

    /// Counts all accounts by how they stand.
    ///
    /// # Errors
    /// The database's.
    pub fn counts(&self) -> Result<AccountCounts, StateError> {
        let mut counts = AccountCounts::default();
        self.each_account(|_, held| {
            counts.accounts += 1;
            counts.in_doubt += u64::from(held.is_in_doubt());
            counts.missing += u64::from(held.missing_runs > 0);
            counts.kicked += u64::from(held.is_kicked);
            Ok(())
        })?;
        Ok(counts)
    }
}
