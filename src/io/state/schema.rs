//! The tables of a state, how a file is recognised as one, and how an older version is read and upgraded.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{ChangeError, StateInfo};
use crate::domain::target::Target;

/// Raised with every change of the tables.
pub(super) const VERSION: i64 = 2;
/// The oldest one that can be read, and carried over.
pub(super) const OLDEST: i64 = 1;
/// Marks the file as ours: `CLft`.
const APPLICATION: i64 = 0x434c_6674;
/// Pages that SQLite keeps in memory, in KiB.
const CACHE_KIB: i64 = 16 * 1024;

const TABLES: &str = "
CREATE TABLE about (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    identity INTEGER NOT NULL,
    endpoint TEXT NOT NULL,
    sdkappid INTEGER NOT NULL,
    api TEXT NOT NULL,
    importing INTEGER NOT NULL
) STRICT;
-- One account that the service is known to hold, or that is in doubt. Times are milliseconds since the epoch.
CREATE TABLE accounts (
    id TEXT PRIMARY KEY,
    nick INTEGER,
    face_url INTEGER,
    last_imported INTEGER,
    missing_runs INTEGER NOT NULL,
    -- Bits: 1 the Nick, 2 the FaceUrl, 4 whether it exists, 8 whether it was kicked, 16 whether it was deleted.
    in_doubt INTEGER NOT NULL,
    kicked INTEGER NOT NULL,
    -- When the run began that last raised missing_runs.
    raised_at INTEGER
) WITHOUT ROWID, STRICT;
CREATE TABLE runs (
    -- Never given again: a checkpoint knows its run by it, and a run that is planned anew is another one.
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    command TEXT NOT NULL,
    began_at INTEGER NOT NULL,
    finished_at INTEGER,
    -- The input: its length, the hash of all its bytes, the stat fields.
    input_len INTEGER NOT NULL,
    input_digest INTEGER NOT NULL,
    input_stat TEXT NOT NULL,
    plan TEXT NOT NULL,
    valid INTEGER NOT NULL,
    with_nick INTEGER NOT NULL,
    with_face_url INTEGER NOT NULL,
    -- Calls may have left for rows up to this one. It never falls.
    sent_up_to INTEGER NOT NULL,
    done TEXT,
    -- Drawn for this run; 0 for those of version 1, which knows nothing of what follows either.
    token INTEGER NOT NULL DEFAULT 0,
    -- Whether a verification has noted something about planned rows that no process has gone on with since.
    looked INTEGER NOT NULL DEFAULT 0,
    -- Accounts that were known and not missing when it finished.
    held_at_end INTEGER,
    shrunk_allowed INTEGER,
    ends_with_newline INTEGER,
    -- Nights in a row in which the missing have waited, and why in this one.
    missing_waited INTEGER,
    missing_waits TEXT,
    -- Where its input is malformed, as words.
    malformed TEXT
) STRICT;
-- The open run: what is sent or has come back, …
CREATE TABLE planned (
    id TEXT PRIMARY KEY,
    row INTEGER NOT NULL,
    sent INTEGER NOT NULL,
    nick INTEGER,
    face_url INTEGER,
    -- What a verification found once this row had settled, in the bits of in_doubt: the fields that differ, or 4 if there is no account.
    found INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID, STRICT;
-- … what is missing and what was done about it, …
CREATE TABLE missing (
    id TEXT PRIMARY KEY,
    last_imported INTEGER,
    missing_runs INTEGER NOT NULL,
    due TEXT NOT NULL,
    -- The first record that looks like it.
    like_row INTEGER,
    like_line INTEGER,
    deed TEXT,
    error_code INTEGER,
    error_info TEXT
) WITHOUT ROWID, STRICT;
-- … and what becomes of each row, half a byte each.
CREATE TABLE ops (
    part INTEGER PRIMARY KEY,
    nibbles BLOB NOT NULL
) STRICT;
";

/// What an account of version 1 is in doubt about: there 1 was an import, 2 a kick or a deletion, 3 both. It becomes doubt about all its
/// known fields.
const DOUBT_OF_1: &str = "CASE WHEN in_doubt = 0 THEN 0 ELSE (nick IS NOT NULL) | 2 * (face_url IS NOT NULL) \
    | 4 * ((in_doubt & 1) AND (last_imported IS NULL OR (nick IS NULL AND face_url IS NULL))) | 8 * (in_doubt & 2) END";

/// What version 1 lacks of its runs.
const RUNS_LACK: [(&str, &str, &str); 8] = [
    ("token", "INTEGER NOT NULL DEFAULT 0", "0"),
    ("looked", "INTEGER NOT NULL DEFAULT 0", "0"),
    ("held_at_end", "INTEGER", "NULL"),
    ("shrunk_allowed", "INTEGER", "NULL"),
    ("ends_with_newline", "INTEGER", "NULL"),
    ("missing_waited", "INTEGER", "NULL"),
    ("missing_waits", "TEXT", "NULL"),
    ("malformed", "TEXT", "NULL"),
];

/// Shows the tables of version 1 to this connection alone as if they were today's; the file stays as it is.
pub(super) fn show_version_1(db: &Connection) -> rusqlite::Result<()> {
    let lacking = RUNS_LACK.map(|(name, _, value)| format!("{value} AS {name}")).join(", ");
    db.execute_batch(&format!(
        "PRAGMA temp_store = MEMORY;
         CREATE TEMP VIEW accounts AS SELECT id, nick, face_url, last_imported, missing_runs, {DOUBT_OF_1} AS in_doubt, kicked,
             NULL AS raised_at FROM main.accounts;
         CREATE TEMP VIEW runs AS SELECT number, command, began_at, finished_at, input_len, input_digest, input_stat, plan, valid, with_nick,
             with_face_url, sent_up_to, done, {lacking} FROM main.runs;
         CREATE TEMP VIEW planned AS SELECT id, row, sent, nick, face_url, 0 AS found FROM main.planned;
         CREATE TEMP VIEW missing AS SELECT *, NULL AS like_row, NULL AS like_line FROM main.missing;"
    ))
}

/// Makes a state of version 1 one of today's. Accounts are not written anew but for those in doubt. How many accounts, due for a kick or a
/// deletion in a run that is open, have to wait for the next one, which judges them anew.
pub(super) fn carry_over_version_1(change: &Transaction) -> Result<usize, ChangeError> {
    let lacking = RUNS_LACK.map(|(name, kind, _)| format!("ALTER TABLE main.runs ADD COLUMN {name} {kind};")).join("\n");
    change.execute_batch(&format!(
        "DROP VIEW temp.accounts; DROP VIEW temp.runs; DROP VIEW temp.planned; DROP VIEW temp.missing;
         UPDATE main.accounts SET in_doubt = {DOUBT_OF_1} WHERE in_doubt <> 0;
         ALTER TABLE main.accounts ADD COLUMN raised_at INTEGER;
         {lacking}
         ALTER TABLE main.planned ADD COLUMN found INTEGER NOT NULL DEFAULT 0;
         ALTER TABLE main.missing ADD COLUMN like_row INTEGER;
         ALTER TABLE main.missing ADD COLUMN like_line INTEGER;"
    ))?;
    change.pragma_update(None, "user_version", VERSION)?;
    // Version 1 compared no missing id with what looks like it, nor did it ask whether the file can be read for certain.
    let waits = "UPDATE main.missing SET due = 'nothing' WHERE deed IS NULL AND due IN ('kick', 'delete')";
    Ok(change.execute(waits, [])?)
}

/// What a file holds.
pub(super) enum FoundSchema {
    Nothing,
    /// Of a version that can be read.
    State(i64),
    Version(i64),
    Foreign,
}

/// A rollback journal leaves one file and nothing beside it; EXTRA makes its removal last, and with it the transaction.
pub(super) fn configure(db: &Connection, busy: Duration) -> rusqlite::Result<()> {
    db.busy_timeout(busy)?;
    db.pragma_update(None, "cache_size", -CACHE_KIB)?;
    db.pragma_update(None, "synchronous", "EXTRA")?;
    db.pragma_update(None, "trusted_schema", false)
}

pub(super) fn found(db: &Connection) -> rusqlite::Result<FoundSchema> {
    let number = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(match (number("application_id")?, number("user_version")?) {
        (APPLICATION, version @ OLDEST..=VERSION) => FoundSchema::State(version),
        (APPLICATION, version) => FoundSchema::Version(version),
        (0, 0) if tables == 0 => FoundSchema::Nothing,
        _ => FoundSchema::Foreign,
    })
}

pub(super) fn create(change: &Transaction, target: &Target, identity: u64) -> Result<(), ChangeError> {
    change.execute_batch(TABLES)?;
    change.execute(
        "INSERT INTO about VALUES (1, ?1, ?2, ?3, ?4, 0)",
        params![identity.cast_signed(), target.endpoint, target.sdkappid.cast_signed(), target.api],
    )?;
    change.pragma_update(None, "application_id", APPLICATION)?;
    change.pragma_update(None, "user_version", VERSION)?;
    Ok(())
}

pub(super) fn about(db: &Connection) -> rusqlite::Result<StateInfo> {
    db.query_row("SELECT identity, endpoint, sdkappid, api, importing FROM about", [], |row| {
        Ok(StateInfo {
            identity: row.get::<_, i64>(0)?.cast_unsigned(),
            target: Target { endpoint: row.get(1)?, sdkappid: row.get::<_, i64>(2)?.cast_unsigned(), api: row.get(3)? },
            is_importing: row.get(4)?,
        })
    })
    .optional()
    .and_then(|about| about.ok_or(rusqlite::Error::QueryReturnedNoRows))
}

pub(super) fn retarget(change: &Transaction, target: &Target) -> Result<(), ChangeError> {
    let values = params![target.endpoint, target.sdkappid.cast_signed(), target.api];
    change.execute("UPDATE about SET endpoint = ?1, sdkappid = ?2, api = ?3", values)?;
    Ok(())
}
