//! The runs of a state: what is noted of each, and how it is written and read.

use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row, Transaction};

use super::bulk::Values;
use super::{ChangeError, StateDb, StateError};
use crate::domain::cells::Uuids;
use crate::domain::change::{Ops, PaddedId, PlanCounts};
use crate::domain::guard::Filled;
use crate::domain::position::FileStat;
use crate::domain::profile::ProfileField;
use crate::domain::tag::Tag;

/// A run that is to begin.
#[derive(Debug, Clone)]
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
    /// How UUIDs were read: with another reading their accounts have other ids.
    pub uuids: Uuids,
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
            uuids: Uuids::Kept,
        }
    }
}

/// A plan as its column has it.
#[derive(serde::Serialize, serde::Deserialize)]
struct RecordedPlan {
    #[serde(flatten)]
    counts: PlanCounts,
    /// Whether UUIDs lost their hyphens; missing in what older versions have written.
    compact_uuid: Option<bool>,
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
    /// The tags that it reads, in the order of their columns.
    pub tags: Vec<Tag>,
    /// Requests may have left for rows up to this one: before one leaves, the intent to send it is recorded here.
    pub send_intent_up_to: u64,
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
    pub uuids: Option<Uuids>,
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
    /// The account was imported, and its tags were refused by then, for their own fault.
    TagsRefused { at: i64 },
    /// The account was imported, and by then nobody knew whether the service has its tags.
    TagsUnknown { at: i64 },
    /// The service refused it for its own fault: nothing has changed.
    Refused,
    /// Nobody knows whether the service has it.
    Unknown,
}

impl Sent {
    /// When the service had the account, if it has.
    #[must_use]
    pub const fn taken_at(self) -> Option<i64> {
        match self {
            Sent::Taken { at } | Sent::TagsRefused { at } | Sent::TagsUnknown { at } => Some(at),
            Sent::Refused | Sent::Unknown => None,
        }
    }
}

/// The outcome of a row, in order of ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendOutcome {
    pub id: PaddedId,
    pub row: u64,
    pub sent: Sent,
    pub earlier: Earlier,
}

/// Whether what was known of an account before a row still holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Earlier {
    #[default]
    Holds,
    /// The service may not have known the account: if the row was not to import it, it may have been made anew.
    InDoubtIfLeft,
    /// The service did not know the account: if the row was not to import it, it was made anew all the same, with all that the row has, and
    /// what the row has not is in doubt.
    MadeAnewIfLeft,
}

impl SendOutcome {
    /// Of an account that the service knew, or had never had.
    #[must_use]
    pub const fn new(id: PaddedId, row: u64, sent: Sent) -> Self {
        Self { id, row, sent, earlier: Earlier::Holds }
    }
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
            let RunRecord { number, token, input, counts, filled, missing_waits, .. } = run(row)?;
            let tags = filled.tags.into_iter().map(|(tag, _)| tag).collect();
            let (send_intent_up_to, malformed) = (row.get::<_, i64>(BEHIND)?.cast_unsigned(), row.get(BEHIND + 1)?);
            Ok(OpenRun { number, token, malformed, missing_waits, input, counts, tags, send_intent_up_to })
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
}

pub(super) fn insert_run(change: &Transaction, new: &NewRun) -> Result<u64, ChangeError> {
    let with = ProfileField::ALL.map(|field| format!("with_{}", field.spec().column)).join(", ");
    let counted = vec!["?"; ProfileField::ALL.len()].join(", ");
    let mut insert = change.prepare(&format!(
        "INSERT INTO runs (command, began_at, input_len, input_digest, input_stat, plan, valid, token, shrunk_allowed, ends_with_newline,
             malformed, missing_waits, with_tags, sent_up_to, {with})
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, {counted})"
    ))?;
    let mut values = Values::of(&mut insert);
    values.put(new.command)?;
    values.put(new.began_at)?;
    values.put(new.input.len.cast_signed())?;
    values.put(new.input.digest.cast_signed())?;
    values.put(text(&new.input.stat))?;
    values.put(text(&RecordedPlan { counts: new.counts, compact_uuid: Some(new.uuids == Uuids::Compact) }))?;
    values.put(new.filled.valid.cast_signed())?;
    values.put(new.token.cast_signed())?;
    values.put(new.shrunk_allowed)?;
    values.put(new.ends_with_newline)?;
    values.put(new.malformed)?;
    values.put(new.missing_waits)?;
    values.put(tag_counts(&new.filled))?;
    new.filled.with.iter().try_for_each(|(_, records)| values.put(records.cast_signed()))?;
    insert.raw_execute()?;
    Ok(change.last_insert_rowid().cast_unsigned())
}

/// The columns that [`run`] reads.
fn run_columns() -> String {
    let with = ProfileField::ALL.map(|field| format!("with_{}", field.spec().column));
    "number, command, began_at, finished_at, input_len, input_digest, input_stat, plan, valid, done, token, held_at_end, shrunk_allowed, \
     ends_with_newline, missing_waited, missing_waits, with_tags, "
        .to_owned()
        + &with.join(", ")
}

/// Where the counts of records with a field stand among them, and what stands behind them.
const WITH: usize = 17;
const BEHIND: usize = WITH + ProfileField::ALL.len();

fn run(row: &Row) -> rusqlite::Result<RunRecord> {
    let number = |column: usize| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let done: Option<String> = row.get(9)?;
    let RecordedPlan { counts, compact_uuid }: RecordedPlan = json(row, 7)?;
    let mut filled = Filled { valid: number(8)?, ..Filled::default() };
    for (field, column) in ProfileField::ALL.into_iter().zip(WITH..) {
        filled.with[field] = number(column)?;
    }
    if row.get_ref(16)? != rusqlite::types::ValueRef::Null {
        let counts: Vec<(String, u64)> = json(row, 16)?;
        // All that it counts are tags: the place of each is what a plan knows it by.
        filled.tags = counts.into_iter().map_while(|(name, records)| Some((Tag::of_wire_name(&name)?, records))).collect();
    }
    Ok(RunRecord {
        number: number(0)?,
        command: row.get(1)?,
        began_at: row.get(2)?,
        finished_at: row.get(3)?,
        input: RunInput { len: number(4)?, digest: number(5)?, stat: json(row, 6)? },
        counts,
        filled,
        done: done.map(|_| json(row, 9)).transpose()?,
        token: number(10)?,
        held_at_end: row.get::<_, Option<i64>>(11)?.map(i64::cast_unsigned),
        shrunk_allowed: row.get(12)?,
        ends_with_newline: row.get(13)?,
        missing_waited: row.get::<_, Option<i64>>(14)?.map(i64::cast_unsigned),
        missing_waits: row.get(15)?,
        uuids: compact_uuid.map(|is_compact| if is_compact { Uuids::Compact } else { Uuids::Kept }),
    })
}

/// The tags that a run reads, in the order of their columns, with the records that have each; nothing if it reads none.
fn tag_counts(filled: &Filled) -> Option<String> {
    let counts: Vec<(String, u64)> = filled.tags.iter().map(|(tag, records)| (tag.wire_name(), *records)).collect();
    (!counts.is_empty()).then(|| text(&counts))
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
