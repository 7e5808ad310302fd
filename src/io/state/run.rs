//! A run of a sync in the state: its plan is stored as a whole, its records are sent row by row, its results are taken over as a whole.
//!
//! The plan is durable before the first request, and the state records that requests may leave before they do. What became of a row is
//! taken from the results, which are on disk by then. So a crash at any instant leaves each account either known or in doubt.

use std::io;

use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row, Statement, Transaction, params};

use super::account::{self, SettledRun};
use super::bulk::{Bulk, Insert, OnConflict};
use super::overlay::RunOverlay;
use super::run_record::{Finish, NewRun, OpenRun, SendOutcome, insert_run, text, wrong_type};
use super::{ChangeError, StateDb, StateError, imported, missing_accounts, tags};
use crate::domain::change::{AccountCall, InDoubt, KnownAccount, MissingAccount, Ops, PlannedAccount, Update};
use crate::domain::guard::LATELY_MS;
use crate::domain::known_tags::{KnownTag, KnownTags, TagNumber, TagSet};
use crate::domain::profile::{FieldSet, ProfileField};

/// Bytes of the ops in one row of their table. Chosen.
const OPS_PART: usize = 1 << 20;
/// Runs that are remembered, whenever they were; those of the last days are, however many. Chosen: a year of nights and then some.
const RUNS_KEPT: i64 = 400;

impl StateDb {
    /// Visits every account, in order of ids, as it is once the open run is settled by `outcomes`, which are in order of ids too.
    ///
    /// # Errors
    /// The database's, or that of `outcomes` or `visit`.
    pub fn each_held(
        &self,
        outcomes: impl Iterator<Item = io::Result<SendOutcome>>,
        mut visit: impl FnMut(&[u8], &KnownAccount) -> io::Result<()>,
    ) -> Result<(), StateError> {
        let is_importing = self.about()?.is_importing;
        let mut seen = |id: &[u8], held: &mut KnownAccount| {
            if is_importing {
                *held = std::mem::take(held).doubted();
            }
            visit(id, held)
        };
        let work = || match self.open_run_of_a_sync()? {
            None => account::each(&self.db, |id, held| seen(id, held)),
            Some(up_to) => account::each_overlaid(&self.db, RunOverlay::new(outcomes, up_to), |id, held| seen(id, held)),
        };
        work().map_err(|error| self.state_error("read", error))
    }

    fn open_run_of_a_sync(&self) -> Result<Option<u64>, ChangeError> {
        let query = "SELECT sent_up_to FROM runs WHERE finished_at IS NULL ORDER BY number DESC LIMIT 1";
        Ok(self.db.query_row(query, [], |row| row.get::<_, i64>(0)).optional()?.map(i64::cast_unsigned))
    }

    /// Begins a run: its plan lasts once this returns. What an earlier one left open is settled first, by `outcomes`. `planned` and
    /// `missing` are in order of ids.
    ///
    /// # Errors
    /// The database's, or those of the three iterators.
    pub fn begin(
        &mut self,
        new: NewRun,
        planned: impl Iterator<Item = io::Result<PlannedAccount>>,
        missing: impl Iterator<Item = io::Result<MissingAccount>>,
        outcomes: impl Iterator<Item = io::Result<SendOutcome>>,
    ) -> Result<OpenRun, StateError> {
        self.change("begin a run in", |change| {
            settle(change, outcomes, SettledRun::LeftOpen)?;
            imported::doubt_all(change, "importing <> 0", [])?;
            change.execute("UPDATE about SET importing = 0", [])?;
            clear(change)?;
            change.execute("DELETE FROM runs WHERE finished_at IS NULL", [])?;
            let numbers = tags::numbers(change, new.filled.tags.iter().map(|(tag, _)| tag.clone()))?;
            insert_planned(change, &numbers, planned)?;
            missing_accounts::insert(change, missing)?;
            insert_ops(change, new.ops)?;
            let number = insert_run(change, &new)?;
            let [malformed, missing_waits] = [new.malformed, new.missing_waits].map(|words| words.map(str::to_owned));
            let NewRun { token, input, counts, filled, .. } = new;
            let tags = filled.tags.into_iter().map(|(tag, _)| tag).collect();
            Ok(OpenRun { number, token, malformed, missing_waits, input, counts, tags, send_intent_up_to: 0 })
        })
    }

    /// Records the intent to send the rows up to `row`, before a request for them leaves. An intent that reaches further stays. It lasts once
    /// this returns.
    ///
    /// # Errors
    /// The database's.
    pub fn record_send_intent(&mut self, row: u64) -> Result<(), StateError> {
        self.change("change", |change| {
            change.execute("UPDATE runs SET sent_up_to = max(sent_up_to, ?1) WHERE finished_at IS NULL", [row.cast_signed()])?;
            Ok(())
        })
    }

    /// Takes back the intent to send the rows behind `row`: no request has left for them. A process takes back its own as it ends.
    ///
    /// # Errors
    /// The database's.
    pub fn take_back_send_intent(&mut self, row: u64, token: u64) -> Result<(), StateError> {
        self.change("change", |change| {
            let take_back = "UPDATE runs SET sent_up_to = ?1 WHERE finished_at IS NULL AND token = ?2 AND sent_up_to > ?1";
            change.execute(take_back, [row.cast_signed(), token.cast_signed()])?;
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
                change.execute(
                    "UPDATE planned SET found = 0, found_tags = NULL WHERE (found <> 0 OR found_tags IS NOT NULL) AND row > ?1",
                    [settled_rows.cast_signed()],
                )?;
            }
            change.execute("UPDATE runs SET looked = 0 WHERE finished_at IS NULL", [])?;
            Ok(())
        })
    }

    /// Checks that it is this run that is open; an older state, or another one, may have been put in the place of the one that it began in.
    ///
    /// # Errors
    /// [`StateError::OtherRun`] if it isn't, or the database's.
    pub fn ensure_open(&self, number: u64, token: u64) -> Result<(), StateError> {
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
            let kinds = self.db.prepare("SELECT fields, account, differing, tags FROM op_kinds ORDER BY number")?;
            Ok(Ops::from_parts(nibbles, rows, kinds_of(kinds)?))
        };
        read().map_err(self.cannot("read"))
    }

    /// Finishes the open run: every account is as `outcomes` (in order of ids) have it, the missing are counted.
    ///
    /// # Errors
    /// [`StateError::OtherRun`] if it is not this run that is open: another file has taken the state's place since. The database's, or that
    /// of `outcomes`.
    pub fn finish(&mut self, outcomes: impl Iterator<Item = io::Result<SendOutcome>>, finish: Finish) -> Result<(), StateError> {
        let (number, token) = finish.run;
        self.ensure_open(number, token)?;
        self.change("finish the run in", |change| {
            settle(change, outcomes, SettledRun::Finished)?;
            missing_accounts::raise_missing_runs(change)?;
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
    Ok(change.execute_batch("DELETE FROM planned; DELETE FROM missing; DELETE FROM ops; DELETE FROM op_kinds;")?)
}

/// Writes what came of the open run's rows to the accounts.
pub(super) fn settle(
    change: &Transaction,
    outcomes: impl Iterator<Item = io::Result<SendOutcome>>,
    run: SettledRun,
) -> Result<(), ChangeError> {
    let query = "SELECT sent_up_to FROM runs WHERE finished_at IS NULL ORDER BY number DESC LIMIT 1";
    let Some(up_to) = change.query_row(query, [], |row| row.get::<_, i64>(0)).optional()? else { return Ok(()) };
    account::settle(change, RunOverlay::new(outcomes, up_to.cast_unsigned()), run)
}

/// An account that is planned, and its tags by the state's numbers.
type NumberedPlan = (PlannedAccount, Option<Vec<u8>>);

fn planned_rows() -> Insert<NumberedPlan> {
    let fields = ProfileField::ALL.into_iter().map(|field| field.spec().column);
    Insert {
        table: "planned",
        columns: ["id", "row", "sent"].into_iter().chain(fields).chain(["found", "tags"]).collect(),
        on_conflict: OnConflict::Fail,
        bind: |values, (planned, tags)| {
            let PlannedAccount { id, row, sent, is_back: _, profile, tags: _, held_back: _ } = planned;
            values.put(id.as_str())?;
            values.put(row.cast_signed())?;
            values.put(sent_number(*sent))?;
            values.put_profile(*profile)?;
            values.put(InDoubt::NOTHING.bits())?;
            values.put(tags.as_deref())
        },
    }
}

/// What is sent of a planned row, as its column has it. Version 2 knows 0 and 1.
const fn sent_number(sent: Option<AccountCall>) -> u8 {
    match sent {
        None => 0,
        Some(AccountCall::Imported) => 1,
        Some(AccountCall::Left) => 2,
    }
}

/// What is sent of a planned row, by its column.
pub(super) const fn account_call(sent: u8) -> Option<AccountCall> {
    match sent {
        0 => None,
        2 => Some(AccountCall::Left),
        _ => Some(AccountCall::Imported),
    }
}

fn insert_planned(
    change: &Transaction,
    numbers: &[TagNumber],
    planned: impl Iterator<Item = io::Result<PlannedAccount>>,
) -> Result<(), ChangeError> {
    let mut rows = Bulk::new(change, planned_rows());
    // Whoever is in the input is there, whatever becomes of the run.
    let mut is_back = change.prepare("UPDATE accounts SET missing_runs = 0, raised_at = NULL, kicked = 0 WHERE id = ?1")?;
    for each in planned {
        let planned = each?;
        if planned.is_back {
            is_back.execute([planned.id.as_str()])?;
        }
        let known = |in_doubt| move |(number, hash)| KnownTag { number, hash: Some(hash), in_doubt };
        let sent = tags::numbered(&planned.tags, numbers).into_iter().map(known(false));
        // The flag of doubt marks those that are held back.
        let held_back = tags::numbered(&planned.held_back, numbers).into_iter().map(known(true));
        let all: KnownTags = sent.chain(held_back).collect();
        rows.push((planned, tags::column(&all)))?;
    }
    rows.finish()
}

fn insert_ops(change: &Transaction, ops: &Ops) -> Result<(), ChangeError> {
    let mut insert = change.prepare("INSERT INTO ops (nibbles) VALUES (?1)")?;
    for part in ops.as_bytes().chunks(OPS_PART) {
        insert.execute([part])?;
    }
    let mut insert = change.prepare("INSERT INTO op_kinds (fields, account, differing, tags) VALUES (?1, ?2, ?3, ?4)")?;
    for Update { fields, differing, tags, account, in_doubt: _ } in ops.kinds() {
        let account = sent_number(Some(*account));
        insert.execute(params![fields.bits(), account, differing.bits().cast_signed(), tags.bits().cast_signed()])?;
    }
    Ok(())
}

fn kinds_of(mut query: Statement) -> rusqlite::Result<Vec<Update>> {
    let set = |bits: i64| TagSet::from_bits(bits.cast_unsigned());
    let kind = |row: &Row| {
        let account = account_call(row.get(1)?).unwrap_or(AccountCall::Imported);
        let (fields, differing, tags) = (FieldSet::from_bits(row.get(0)?), set(row.get(2)?), set(row.get(3)?));
        Ok(Update { fields, account, differing, tags, in_doubt: InDoubt::NOTHING })
    };
    query.query_map([], kind)?.collect()
}
