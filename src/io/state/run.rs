//! A run of a sync in the state: its plan is stored as a whole, its records are sent row by row, its results are taken over as a whole.
//!
//! The plan is durable before the first request, and the state records that requests may leave before they do. What became of a row is
//! taken from the results, which are on disk by then. So a crash at any instant leaves each account either known or in doubt.

use std::io;
use std::iter::Peekable;

use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::account::{self, AccountAfterRun, Ending};
use super::bulk::{Bulk, Insert, OnConflict, Values};
use super::{ChangeError, StateDb, StateError, missing};
use crate::domain::change::{InDoubt, KnownAccount, MissingAccount, Ops, PaddedId, PlanCounts, PlannedAccount, ProfileHashes};
use crate::domain::guard::{Filled, LATELY_MS};
use crate::domain::position::FileStat;
use crate::domain::profile::ProfileField;

/// Bytes of the ops in one row of their table. Chosen.
const OPS_PART: usize = 1 << 20;
/// Runs that are remembered, whenever they were; those of the last days are, however many. Chosen: a year of nights and then some.
const RUNS_KEPT: i64 = 400;

/// A run that is to begin.
#[derive(Debug, Clone, Copy)]
pub struct NewRun<'a> {
    pub command: &'a str,
    /// Milliseconds since the epoch, as are all times here.
    pub began_at: i64,
    pub input: RunInput,
    pub counts: PlanCounts,
    pub filled: Filled,
    /// What becomes of each row; empty for an import.
    pub ops: &'a Ops,
    /// Drawn for this run: numbers come again where an older state was brought back.
    pub token: u64,
    /// Whether the guard of shrunk files was told to let it through.
    pub shrunk_allowed: bool,
    /// Whether the input's last record ends with a line end; `None` if nobody looked.
    pub ends_with_newline: Option<bool>,
    /// Where it is malformed, as words.
    pub malformed: Option<&'a str>,
    /// Why kicks and deletions wait for a later run, in a word, where the plan has it so.
    pub missing_waits: Option<&'a str>,
}

impl<'a> NewRun<'a> {
    /// A run that lets nothing through and has no token: what else is known of it is added by whoever knows it.
    #[must_use]
    pub fn bare(command: &'a str, began_at: i64, input: RunInput, ops: &'a Ops) -> Self {
        Self {
            command,
            began_at,
            input,
            counts: PlanCounts::default(),
            filled: Filled::default(),
            ops,
            token: 0,
            shrunk_allowed: false,
            ends_with_newline: None,
            malformed: None,
            missing_waits: None,
        }
    }
}

/// An input file, as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunInput {
    pub len: u64,
    /// Running hash of all its bytes.
    pub digest: u64,
    pub stat: FileStat,
}

/// A run that has begun and not finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRun {
    pub number: u64,
    /// 0 for one that an older version has begun.
    pub token: u64,
    /// Where its input is malformed, as words.
    pub malformed: Option<String>,
    /// Why kicks and deletions wait for a later run, where it was planned so.
    pub missing_waits: Option<String>,
    pub input: RunInput,
    pub counts: PlanCounts,
    /// Calls may have left for rows up to this one.
    pub sent_up_to: u64,
}

/// A run that has finished, or the open one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRecord {
    pub number: u64,
    pub command: String,
    pub began_at: i64,
    pub finished_at: Option<i64>,
    pub input: RunInput,
    pub counts: PlanCounts,
    pub filled: Filled,
    pub done: Option<RunTotals>,
    pub token: u64,
    /// Accounts that were known and not missing at the end of a finished run; `None` for one that an older version has finished, as with
    /// all that follows.
    pub held_at_end: Option<u64>,
    pub shrunk_allowed: Option<bool>,
    pub ends_with_newline: Option<bool>,
    /// Nights in a row in which the missing have waited, this one included.
    pub missing_waited: Option<u64>,
    /// Why they waited in this run; `None` if they didn't.
    pub missing_waits: Option<String>,
}

/// How a run ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Finish<'a> {
    /// Which run: number and token.
    pub run: (u64, u64),
    pub at: i64,
    pub done: RunTotals,
    /// Why the missing have waited in this run, in a word; `None` if they didn't.
    pub missing_waits: Option<&'a str>,
}

/// What a finished run has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RunTotals {
    pub created: u64,
    pub updated: u64,
    pub failed: u64,
    pub kicked: u64,
    pub deleted: u64,
    pub missing_failed: u64,
}

/// What came of a call, as the results have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The service has it, since then.
    Taken { at: i64 },
    /// The service refused it for its own fault: nothing has changed.
    Refused,
    /// Nobody knows whether the service has it.
    Unknown,
}

/// The outcome of a row, in order of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendOutcome {
    pub id: PaddedId,
    pub row: u64,
    pub sent: Sent,
}

impl StateDb {
    /// The run that has begun and not finished.
    ///
    /// # Errors
    /// The database's, as everywhere here.
    pub fn open_run(&self) -> Result<Option<OpenRun>, StateError> {
        let query =
            format!("SELECT {}, sent_up_to, malformed FROM runs WHERE finished_at IS NULL ORDER BY number DESC LIMIT 1", run_columns());
        let read = |row: &Row| {
            let RunRecord { number, token, input, counts, missing_waits, .. } = run(row)?;
            let (sent_up_to, malformed) = (row.get::<_, i64>(BEHIND)?.cast_unsigned(), row.get(BEHIND + 1)?);
            Ok(OpenRun { number, token, malformed, missing_waits, input, counts, sent_up_to })
        };
        self.db.query_row(&query, [], read).optional().map_err(self.cannot("read"))
    }

    /// The last runs, the latest first.
    ///
    /// # Errors
    /// The database's.
    pub fn runs(&self, at_most: u32) -> Result<Vec<RunRecord>, StateError> {
        let read = || {
            let mut query = self.db.prepare(&format!("SELECT {} FROM runs ORDER BY number DESC LIMIT ?1", run_columns()))?;
            query.query_map([at_most], run)?.collect::<rusqlite::Result<_>>()
        };
        read().map_err(self.cannot("read"))
    }

    /// The last finished run.
    ///
    /// # Errors
    /// The database's.
    pub fn last_finished(&self) -> Result<Option<RunRecord>, StateError> {
        let query = format!("SELECT {} FROM runs WHERE finished_at IS NOT NULL ORDER BY number DESC LIMIT 1", run_columns());
        self.db.query_row(&query, [], run).optional().map_err(self.cannot("read"))
    }

    /// The highest number that a run has had; 0 for none.
    ///
    /// # Errors
    /// The database's.
    pub fn last_run(&self) -> Result<u64, StateError> {
        let query = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'runs'";
        self.db.query_row(query, [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned).map_err(self.cannot("read"))
    }

    /// The token of the run with this number, if the state knows it still.
    ///
    /// # Errors
    /// The database's.
    pub fn token(&self, number: u64) -> Result<Option<u64>, StateError> {
        let read = |row: &Row| row.get::<_, i64>(0).map(i64::cast_unsigned);
        let query = "SELECT token FROM runs WHERE number = ?1";
        self.db.query_row(query, [number.cast_signed()], read).optional().map_err(self.cannot("read"))
    }

    /// Visits every account, in order of ids, as it is once the open run is settled by `settlements`, which are in order of ids too.
    ///
    /// # Errors
    /// The database's, or that of `settlements` or `visit`.
    pub fn each_held(
        &self,
        settlements: impl Iterator<Item = io::Result<SendOutcome>>,
        mut visit: impl FnMut(&[u8], &KnownAccount) -> io::Result<()>,
    ) -> Result<(), StateError> {
        let is_importing = self.about()?.is_importing;
        let mut seen = |id: &[u8], held: KnownAccount| {
            let in_doubt = if is_importing { held.in_doubt.and(InDoubt::of_all(&held)) } else { held.in_doubt };
            visit(id, &KnownAccount { in_doubt, ..held })
        };
        let work = || match self.open_run_of_a_sync()? {
            None => account::each(&self.db, |id, held| seen(id, held)),
            Some(sent_up_to) => account::each_overlaid(&self.db, RunOverlay::new(settlements, sent_up_to), |id, held| seen(id, held)),
        };
        work().map_err(|trouble| self.told("read", trouble))
    }

    fn open_run_of_a_sync(&self) -> Result<Option<u64>, ChangeError> {
        let query = "SELECT sent_up_to FROM runs WHERE finished_at IS NULL ORDER BY number DESC LIMIT 1";
        Ok(self.db.query_row(query, [], |row| row.get::<_, i64>(0)).optional()?.map(i64::cast_unsigned))
    }

    pub(super) fn told(&self, what: &'static str, trouble: ChangeError) -> StateError {
        match trouble {
            ChangeError::Database(source) => self.cannot(what)(source),
            ChangeError::Source(source) => StateError::Source(source),
            ChangeError::Changed => StateError::Changed { path: self.path.clone() },
        }
    }

    /// Begins a run: its plan lasts once this returns. What an earlier one left open is settled first, by `settlements`. `planned` and
    /// `missing` are in order of ids.
    ///
    /// # Errors
    /// The database's, or those of the three iterators.
    pub fn begin(
        &mut self,
        new: NewRun,
        planned: impl Iterator<Item = io::Result<PlannedAccount>>,
        missing: impl Iterator<Item = io::Result<MissingAccount>>,
        settlements: impl Iterator<Item = io::Result<SendOutcome>>,
    ) -> Result<OpenRun, StateError> {
        self.change("begin a run in", |change| {
            settle(change, settlements, Ending::LeftOpen)?;
            account::doubt_all(change, "importing <> 0", [])?;
            change.execute("UPDATE about SET importing = 0", [])?;
            clear(change)?;
            change.execute("DELETE FROM runs WHERE finished_at IS NULL", [])?;
            insert_planned(change, planned)?;
            missing::insert(change, missing)?;
            insert_ops(change, new.ops)?;
            let number = insert_run(change, &new)?;
            let [malformed, missing_waits] = [new.malformed, new.missing_waits].map(|words| words.map(str::to_owned));
            Ok(OpenRun { number, token: new.token, malformed, missing_waits, input: new.input, counts: new.counts, sent_up_to: 0 })
        })
    }

    /// Takes note that calls may leave for rows up to `row`; what was announced before stays so. Lasts once this returns.
    ///
    /// # Errors
    /// The database's.
    pub fn mark_sent_up_to(&mut self, row: u64) -> Result<(), StateError> {
        self.change("change", |change| {
            change.execute("UPDATE runs SET sent_up_to = max(sent_up_to, ?1) WHERE finished_at IS NULL", [row.cast_signed()])?;
            Ok(())
        })
    }

    /// Goes on with the open run, of which so many rows have settled: what a verification has found since holds for these alone, the others
    /// are still to be sent. Whatever is in the way of writing to the state shows here, before a call leaves.
    ///
    /// # Errors
    /// The database's.
    pub fn go_on(&mut self, settled_rows: u64) -> Result<(), StateError> {
        self.change("change", |change| {
            let looked = "SELECT EXISTS (SELECT 1 FROM runs WHERE finished_at IS NULL AND looked <> 0)";
            if change.query_row(looked, [], |row| row.get(0))? {
                change.execute("UPDATE planned SET found = 0 WHERE found <> 0 AND row > ?1", [settled_rows.cast_signed()])?;
            }
            change.execute("UPDATE runs SET looked = 0 WHERE finished_at IS NULL", [])?;
            Ok(())
        })
    }

    /// Whether it is this run that is open; an older state, or another one, may have been put in the place of the one that it began in.
    ///
    /// # Errors
    /// [`StateError::OtherRun`] if it isn't, or the database's.
    pub fn is_open(&self, number: u64, token: u64) -> Result<(), StateError> {
        let is_it = self.open_run()?.is_some_and(|open| (open.number, open.token) == (number, token));
        if is_it { Ok(()) } else { Err(StateError::OtherRun { path: self.path.clone() }) }
    }

    /// What becomes of each row in the open run, which has so many.
    ///
    /// # Errors
    /// The database's.
    pub fn ops(&self, rows: u64) -> Result<Ops, StateError> {
        let read = || {
            let mut query = self.db.prepare("SELECT nibbles FROM ops ORDER BY part")?;
            let mut parts = query.query([])?;
            let mut nibbles = Vec::new();
            while let Some(part) = parts.next()? {
                nibbles.extend_from_slice(part.get_ref(0)?.as_blob().map_err(|_| wrong_type(0, Type::Blob))?);
            }
            Ok(Ops::from_bytes(nibbles, rows))
        };
        read().map_err(self.cannot("read"))
    }

    /// Finishes the open run: every account is as `settlements` (in order of ids) have it, the missing are counted.
    ///
    /// # Errors
    /// [`StateError::OtherRun`] if it is not this run that is open: another file has taken the state's place since. The database's, or that
    /// of `settlements`.
    pub fn finish(&mut self, settlements: impl Iterator<Item = io::Result<SendOutcome>>, finish: Finish) -> Result<(), StateError> {
        let (number, token) = finish.run;
        self.is_open(number, token)?;
        self.change("finish the run in", |change| {
            settle(change, settlements, Ending::Finished)?;
            missing::count(change)?;
            clear(change)?;
            close(change, finish)?;
            let lately = finish.at.saturating_sub(LATELY_MS);
            let forget = "DELETE FROM runs WHERE number <= (SELECT max(number) FROM runs) - ?1 AND finished_at < ?2";
            change.execute(forget, [RUNS_KEPT, lately])?;
            Ok(())
        })
    }
}

/// Notes that the open run has come to its end, and what that was.
fn close(change: &Transaction, Finish { run: _, at, done, missing_waits }: Finish) -> Result<(), ChangeError> {
    change.execute(
        "UPDATE runs SET finished_at = ?1, done = ?2, missing_waits = ?3,
             held_at_end = (SELECT count(*) FROM accounts WHERE missing_runs = 0),
             missing_waited = CASE WHEN ?3 IS NULL THEN 0 ELSE 1 + coalesce((SELECT last.missing_waited FROM runs last
                 WHERE last.finished_at IS NOT NULL AND last.command = runs.command ORDER BY last.number DESC LIMIT 1), 0) END
         WHERE finished_at IS NULL",
        params![at, text(&done), missing_waits],
    )?;
    Ok(())
}

pub(super) fn clear(change: &Transaction) -> Result<(), ChangeError> {
    Ok(change.execute_batch("DELETE FROM planned; DELETE FROM missing; DELETE FROM ops;")?)
}

/// Writes what came of the open run's rows to the accounts.
pub(super) fn settle(
    change: &Transaction,
    settlements: impl Iterator<Item = io::Result<SendOutcome>>,
    ending: Ending,
) -> Result<(), ChangeError> {
    let sent_up_to = "SELECT sent_up_to FROM runs WHERE finished_at IS NULL ORDER BY number DESC LIMIT 1";
    let Some(sent_up_to) = change.query_row(sent_up_to, [], |row| row.get::<_, i64>(0)).optional()? else { return Ok(()) };
    account::settle(change, RunOverlay::new(settlements, sent_up_to.cast_unsigned()), ending)
}

fn planned_rows() -> Insert<PlannedAccount> {
    let fields = ProfileField::ALL.into_iter().map(|field| field.spec().column);
    Insert {
        table: "planned",
        columns: ["id", "row", "sent"].into_iter().chain(fields).chain(["found"]).collect(),
        on_conflict: OnConflict::Fail,
        bind: |values, planned| {
            let PlannedAccount { id, row, is_sent, is_back: _, profile } = *planned;
            values.put(id.as_str())?;
            values.put(row.cast_signed())?;
            values.put(is_sent)?;
            values.put_profile(profile)?;
            values.put(InDoubt::NOTHING.bits())
        },
    }
}

fn insert_planned(change: &Transaction, planned: impl Iterator<Item = io::Result<PlannedAccount>>) -> Result<(), ChangeError> {
    let mut rows = Bulk::new(change, planned_rows());
    // Whoever is in the input is there, whatever becomes of the run.
    let mut is_back = change.prepare("UPDATE accounts SET missing_runs = 0, raised_at = NULL, kicked = 0 WHERE id = ?1")?;
    for each in planned {
        let planned = each?;
        if planned.is_back {
            is_back.execute([planned.id.as_str()])?;
        }
        rows.push(planned)?;
    }
    rows.finish()
}

fn insert_ops(change: &Transaction, ops: &Ops) -> Result<(), ChangeError> {
    let mut insert = change.prepare("INSERT INTO ops (nibbles) VALUES (?1)")?;
    for part in ops.as_bytes().chunks(OPS_PART) {
        insert.execute([part])?;
    }
    Ok(())
}

pub(super) fn insert_run(change: &Transaction, new: &NewRun) -> Result<u64, ChangeError> {
    let with = ProfileField::ALL.map(|field| format!("with_{}", field.spec().column)).join(", ");
    let counted = vec!["?"; ProfileField::ALL.len()].join(", ");
    let mut insert = change.prepare(&format!(
        "INSERT INTO runs (command, began_at, input_len, input_digest, input_stat, plan, valid, token, shrunk_allowed, ends_with_newline,
             malformed, missing_waits, sent_up_to, {with})
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, {counted})"
    ))?;
    let mut values = Values::of(&mut insert);
    values.put(new.command)?;
    values.put(new.began_at)?;
    values.put(new.input.len.cast_signed())?;
    values.put(new.input.digest.cast_signed())?;
    values.put(text(&new.input.stat))?;
    values.put(text(&new.counts))?;
    values.put(new.filled.valid.cast_signed())?;
    values.put(new.token.cast_signed())?;
    values.put(new.shrunk_allowed)?;
    values.put(new.ends_with_newline)?;
    values.put(new.malformed)?;
    values.put(new.missing_waits)?;
    new.filled.with.iter().try_for_each(|(_, records)| values.put(records.cast_signed()))?;
    insert.raw_execute()?;
    Ok(change.last_insert_rowid().cast_unsigned())
}

/// The columns that [`run`] reads.
fn run_columns() -> String {
    let with = ProfileField::ALL.map(|field| format!("with_{}", field.spec().column));
    "number, command, began_at, finished_at, input_len, input_digest, input_stat, plan, valid, done, token, held_at_end, shrunk_allowed, \
     ends_with_newline, missing_waited, missing_waits, "
        .to_owned()
        + &with.join(", ")
}

/// Where the counts of records with a field stand among them, and what stands behind them.
const WITH: usize = 16;
const BEHIND: usize = WITH + ProfileField::ALL.len();

fn run(row: &Row) -> rusqlite::Result<RunRecord> {
    let number = |column: usize| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let done: Option<String> = row.get(9)?;
    let mut filled = Filled { valid: number(8)?, ..Filled::default() };
    for (field, column) in ProfileField::ALL.into_iter().zip(WITH..) {
        filled.with[field] = number(column)?;
    }
    Ok(RunRecord {
        number: number(0)?,
        command: row.get(1)?,
        began_at: row.get(2)?,
        finished_at: row.get(3)?,
        input: RunInput { len: number(4)?, digest: number(5)?, stat: json(row, 6)? },
        counts: json(row, 7)?,
        filled,
        done: done.map(|_| json(row, 9)).transpose()?,
        token: number(10)?,
        held_at_end: row.get::<_, Option<i64>>(11)?.map(i64::cast_unsigned),
        shrunk_allowed: row.get(12)?,
        ends_with_newline: row.get(13)?,
        missing_waited: row.get::<_, Option<i64>>(14)?.map(i64::cast_unsigned),
        missing_waits: row.get(15)?,
    })
}

/// Numbers with their names.
pub(super) fn text(numbers: &impl serde::Serialize) -> String {
    serde_json::to_string(numbers).expect("numbers are always JSON")
}

fn json<T: serde::de::DeserializeOwned>(row: &Row, column: usize) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

pub(super) fn wrong_type(column: usize, expected: Type) -> rusqlite::Error {
    rusqlite::Error::InvalidColumnType(column, String::new(), expected)
}

/// What the open run makes of accounts.
pub(super) struct RunOverlay<I: Iterator> {
    settlements: Peekable<I>,
    sent_up_to: u64,
}

/// A row of `planned`.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlannedRow {
    pub(super) row: u64,
    pub(super) is_sent: bool,
    pub(super) profile: ProfileHashes,
    /// What a later look at the service has found: fields that differ, or [`InDoubt::EXISTENCE`] if there is no account.
    pub(super) found: InDoubt,
}

impl<I: Iterator<Item = io::Result<SendOutcome>>> RunOverlay<I> {
    pub(super) fn new(settlements: I, sent_up_to: u64) -> Self {
        Self { settlements: settlements.peekable(), sent_up_to }
    }

    /// What an account is by now; ids come in order.
    pub(super) fn apply(&mut self, id: &[u8], planned: PlannedRow, before: Option<KnownAccount>) -> io::Result<AccountAfterRun> {
        let sent = self.outcome(id, planned.row)?;
        if !planned.is_sent {
            return Ok(before.map_or(AccountAfterRun::Unknown, AccountAfterRun::As));
        }
        let held = match sent {
            Some(_) if planned.found.has(InDoubt::EXISTENCE) => before,
            Some(Sent::Taken { at }) => Some(KnownAccount::once_taken(before, planned.profile, at)),
            Some(Sent::Unknown) => Some(KnownAccount::once_sent(before, planned.profile)),
            None if planned.row <= self.sent_up_to => return Ok(AccountAfterRun::As(KnownAccount::once_sent(before, planned.profile))),
            // The service holds what it held before this run, whatever that is.
            Some(Sent::Refused) | None => before,
        };
        let found = if sent.is_some() { planned.found.without(InDoubt::EXISTENCE) } else { InDoubt::NOTHING };
        Ok(held.map_or(AccountAfterRun::Unknown, |held| AccountAfterRun::As(KnownAccount { in_doubt: held.in_doubt.and(found), ..held })))
    }

    fn outcome(&mut self, id: &[u8], row: u64) -> io::Result<Option<Sent>> {
        let mut found = None;
        while let Some(next) = self.settlements.next_if(|next| next.as_ref().is_ok_and(|next| next.id.as_bytes() <= id) || next.is_err()) {
            let settlement = next?;
            if settlement.id.as_bytes() == id && settlement.row == row {
                found = Some(settlement.sent);
            }
        }
        Ok(found)
    }
}
