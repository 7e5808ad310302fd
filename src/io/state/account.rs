//! The accounts of a state: reads them in order of ids, and updates them from the results of a run.

use std::io;

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::bulk::{Bulk, Insert, OnConflict};
use super::overlay::{PlannedRow, RunOverlay};
use super::run;
use super::run_record::{NewRun, SendOutcome, Sent, insert_run, text, wrong_type};
use super::{ChangeError, StateDb, StateError, slices};
use crate::domain::account::{UserId, UserIds};
use crate::domain::change::{InDoubt, KnownAccount, MissingAccount, PaddedId, PlannedAction, ProfileHashes};
use crate::domain::profile::ProfileField;

/// What is known of an account after a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountAfterRun {
    Known(KnownAccount),
    /// Nothing; it was never there.
    Unknown,
}

/// An account as an import has left it, in order of ids and then of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportedRow {
    pub outcome: SendOutcome,
    pub profile: ProfileHashes,
}

/// How the service differs from what a state says of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discrepancy {
    NotThere,
    /// These of its fields are other ones.
    Different(InDoubt),
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
const COLUMNS: [&str; 5] = ["last_imported", "missing_runs", "in_doubt", "kicked", "raised_at"];

fn columns() -> impl Iterator<Item = &'static str> {
    ProfileField::ALL.into_iter().map(|field| field.spec().column).chain(COLUMNS)
}

/// The columns that [`held`] reads, in accounts called `a`.
fn account_columns() -> String {
    columns().map(|column| format!("a.{column}")).collect::<Vec<_>>().join(", ")
}

/// The columns that [`in_plan`] reads behind those of an account, in plans called `p`.
fn plan_columns() -> String {
    let fields = ProfileField::ALL.into_iter().map(|field| field.spec().column);
    let columns = ["row", "sent"].into_iter().chain(fields).chain(["found"]);
    columns.map(|column| format!("p.{column}")).collect::<Vec<_>>().join(", ")
}

fn upsert() -> Insert<(PaddedId, KnownAccount)> {
    Insert {
        table: "accounts",
        columns: std::iter::once("id").chain(columns()).collect(),
        on_conflict: OnConflict::Replace,
        bind: |values, (id, held)| {
            let KnownAccount { profile, last_imported, missing_runs, in_doubt, is_kicked, raised_at } = *held;
            values.put(id.as_str())?;
            values.put_profile(profile)?;
            values.put(last_imported)?;
            values.put(missing_runs)?;
            values.put(in_doubt.bits())?;
            values.put(is_kicked)?;
            values.put(raised_at)
        },
    }
}

/// Visits all accounts as they stand.
pub(super) fn each(db: &Connection, mut visit: impl FnMut(&[u8], KnownAccount) -> io::Result<()>) -> Result<(), ChangeError> {
    let query = format!("SELECT a.id, {} FROM accounts a WHERE a.id > ?1 ORDER BY a.id", account_columns());
    slices::each_row(db, &query, |row| Ok(visit(id(row)?, held(row, 1)?)?))
}

/// Visits all accounts as they are once the open run is settled.
pub(super) fn each_overlaid<I: Iterator<Item = io::Result<SendOutcome>>>(
    db: &Connection,
    mut overlay: RunOverlay<I>,
    mut visit: impl FnMut(&[u8], KnownAccount) -> io::Result<()>,
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
            Some(planned) => overlay.apply(id, planned, before)?,
            None => before.map_or(AccountAfterRun::Unknown, AccountAfterRun::Known),
        };
        if let AccountAfterRun::Known(held) = kept {
            visit(id, held)?;
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
        let AccountAfterRun::Known(held) = overlay.apply(id, planned, before)? else { continue };
        let held = match run {
            SettledRun::Finished => KnownAccount { missing_runs: 0, is_kicked: false, raised_at: None, ..held },
            SettledRun::LeftOpen => held,
        };
        if before != Some(held) {
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

fn held(row: &Row, first: usize) -> rusqlite::Result<KnownAccount> {
    let rest = first + FIELDS;
    Ok(KnownAccount {
        profile: profile(row, first)?,
        last_imported: row.get(rest)?,
        missing_runs: row.get(rest + 1)?,
        in_doubt: InDoubt::from_bits(row.get(rest + 2)?),
        is_kicked: row.get(rest + 3)?,
        raised_at: row.get(rest + 4)?,
    })
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
    let found = InDoubt::from_bits(row.get(first + 2 + FIELDS)?);
    Ok(Some(PlannedRow { row: number.cast_unsigned(), is_sent: row.get(first + 1)?, profile: profile(row, first + 2)?, found }))
}

impl StateDb {
    /// Visits every account as it stands, in order of ids.
    ///
    /// # Errors
    /// The database's, or that of `visit`.
    pub fn each_account(&self, mut visit: impl FnMut(&[u8], &KnownAccount) -> io::Result<()>) -> Result<(), StateError> {
        each(&self.db, |id, held| visit(id, &held)).map_err(|error| self.state_error("read", error))
    }

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
        new: NewRun,
        settled: impl Iterator<Item = io::Result<ImportedRow>>,
        done: super::RunTotals,
    ) -> Result<(), StateError> {
        self.change("fill", |change| {
            run::settle(change, std::iter::empty(), SettledRun::LeftOpen)?;
            take_over_import(change, settled)?;
            change.execute("UPDATE about SET importing = 0 WHERE importing = ?1", [importing(import)])?;
            run::clear(change)?;
            change.execute("DELETE FROM runs WHERE finished_at IS NULL", [])?;
            let number = insert_run(change, &new)?;
            let values = params![new.began_at, text(&done), number.cast_signed()];
            change.execute(
                "UPDATE runs SET finished_at = ?1, done = ?2, held_at_end = (SELECT count(*) FROM accounts WHERE missing_runs = 0)
                 WHERE number = ?3",
                values,
            )?;
            Ok(())
        })
    }

    /// Takes over what a look at the service has shown to be wrong, in order of ids. What an open run has still to send stays planned, and
    /// what comes of it is recorded; of rows that it has settled before, the look knows better.
    ///
    /// # Errors
    /// The database's, or that of `wrong`.
    pub fn set_right(&mut self, wrong: impl Iterator<Item = io::Result<(PaddedId, Discrepancy)>>) -> Result<(), StateError> {
        self.change("change", |change| {
            let mut delete = change.prepare("DELETE FROM accounts WHERE id = ?1")?;
            let mut mark = change.prepare("UPDATE accounts SET in_doubt = in_doubt | ?2 WHERE id = ?1")?;
            let mut note = change.prepare("UPDATE planned SET found = ?2 | (found & ?3) WHERE id = ?1")?;
            let mut noted = 0;
            for each in wrong {
                let (id, wrong) = each?;
                let id = id.as_str();
                noted += match wrong {
                    Discrepancy::NotThere => {
                        delete.execute([id])?;
                        note.execute(params![id, InDoubt::EXISTENCE.bits(), 0])?
                    }
                    Discrepancy::Different(fields) => {
                        mark.execute(params![id, fields.bits()])?;
                        // An earlier look may have found no account.
                        note.execute(params![id, fields.bits(), !InDoubt::EXISTENCE.bits()])?
                    }
                };
            }
            if noted > 0 {
                change.execute("UPDATE runs SET looked = 1 WHERE finished_at IS NULL", [])?;
            }
            Ok(())
        })
    }

    /// Drops ids: how many of them were there, or would have been once an open run's rows are taken over. What that run has still to send
    /// stays planned, and what comes of it is recorded.
    ///
    /// # Errors
    /// The database's.
    pub fn forget<'a>(&mut self, ids: impl IntoIterator<Item = &'a str>) -> Result<u64, StateError> {
        self.change("change", |change| {
            let mut delete = change.prepare("DELETE FROM accounts WHERE id = ?1")?;
            // Nor is it an open run's to kick or delete.
            let mut spare = change.prepare("DELETE FROM missing WHERE id = ?1")?;
            // What it has settled before is not to bring the id back.
            let mut note = change.prepare("UPDATE planned SET found = ?2 WHERE id = ?1 AND sent")?;
            let announced =
                "SELECT EXISTS (SELECT 1 FROM planned, runs WHERE id = ?1 AND sent AND finished_at IS NULL AND row <= sent_up_to)";
            let mut announced = change.prepare(announced)?;
            let (mut dropped, mut noted) = (0, 0);
            for id in ids {
                spare.execute([id])?;
                let was_there = delete.execute([id])? > 0 || announced.query_row([id], |row| row.get(0))?;
                dropped += u64::from(was_there);
                noted += note.execute(params![id, InDoubt::EXISTENCE.bits()])?;
            }
            if noted > 0 {
                change.execute("UPDATE runs SET looked = 1 WHERE finished_at IS NULL", [])?;
            }
            Ok(dropped)
        })
    }

    /// Marks ids in doubt because they are about to be kicked or deleted: [`Self::record_actions`] takes this mark away, and no other. Lasts once this
    /// returns.
    ///
    /// # Errors
    /// The database's.
    pub fn mark_under_way<'a>(&mut self, missing: impl IntoIterator<Item = &'a MissingAccount>) -> Result<(), StateError> {
        self.change("change", |change| {
            let mut mark = change.prepare("UPDATE accounts SET in_doubt = in_doubt | ?2 WHERE id = ?1")?;
            missing.into_iter().try_for_each(|missing| {
                let doubt = if missing.due == PlannedAction::Kick { InDoubt::KICK } else { InDoubt::DELETION };
                mark.execute(params![missing.id.as_str(), doubt.bits()])?;
                Ok(())
            })
        })
    }

    /// How many accounts there are.
    ///
    /// # Errors
    /// The database's.
    pub fn counts(&self) -> Result<AccountCounts, StateError> {
        let mut counts = AccountCounts::default();
        self.each_account(|_, held| {
            counts.accounts += 1;
            counts.in_doubt += u64::from(!held.in_doubt.is_nothing());
            counts.missing += u64::from(held.missing_runs > 0);
            counts.kicked += u64::from(held.is_kicked);
            Ok(())
        })?;
        Ok(counts)
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
             WHERE EXISTS (SELECT 1 FROM about WHERE {condition})"
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
#[derive(Debug, Clone, Copy)]
struct MergedAccount {
    id: PaddedId,
    /// As it was found …
    before: Option<KnownAccount>,
    /// … and as it is by now.
    now: Option<KnownAccount>,
}

impl MergedAccount {
    /// Takes what came of a row; `last_sync` is when the last sync began.
    fn take(&mut self, row: &ImportedRow, last_sync: Option<i64>) -> io::Result<()> {
        let ImportedRow { outcome, profile } = *row;
        let is_older = |than: Option<i64>| matches!(outcome.sent, Sent::Taken { at } if than >= Some(at));
        if is_older(self.before.and_then(|held| held.last_imported)) {
            return Ok(());
        }
        let planned = PlannedRow { row: outcome.row, is_sent: true, profile, found: InDoubt::NOTHING };
        let mut overlay = RunOverlay::new(std::iter::once(Ok(outcome)), outcome.row);
        let AccountAfterRun::Known(held) = overlay.apply(self.id.as_bytes(), planned, self.now)? else { return Ok(()) };
        // Whoever is in the file is not missing, whatever came of the row. When a row failed nobody knows; that may spare an account, and costs none.
        let held = match outcome.sent {
            Sent::Taken { .. } => held,
            Sent::Refused | Sent::Unknown => KnownAccount { missing_runs: 0, is_kicked: false, raised_at: None, ..held },
        };
        self.now = Some(match self.before {
            _ if !is_older(last_sync) => held,
            // The sync may have deleted it.
            None => KnownAccount { in_doubt: InDoubt::of_all(&held).and(InDoubt::EXISTENCE), ..held },
            Some(KnownAccount { missing_runs, in_doubt, is_kicked, raised_at, .. }) => {
                KnownAccount { missing_runs, in_doubt, is_kicked, raised_at, ..held }
            }
        });
        Ok(())
    }
}

/// The rows of one id come in order: what they sent adds up.
fn take_over_import(change: &Transaction, settled: impl Iterator<Item = io::Result<ImportedRow>>) -> Result<(), ChangeError> {
    let mut accounts = Bulk::new(change, upsert());
    let mut find = change.prepare(&format!("SELECT a.id, {} FROM accounts a WHERE a.id = ?1", account_columns()))?;
    let last_sync = change.query_row("SELECT max(began_at) FROM runs WHERE command = 'sync'", [], |row| row.get(0))?;
    let mut put = |filling: MergedAccount| match filling.now.filter(|_| filling.now != filling.before) {
        Some(held) => accounts.push((filling.id, held)),
        None => Ok(()),
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
                none.insert(MergedAccount { id, before, now: before })
            }
        };
        filling.take(&row, last_sync)?;
    }
    if let Some(last) = current {
        put(last)?;
    }
    accounts.finish()
}
