//! The tables of a state, how a file is recognised as one, and how an older version is read and upgraded.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{ChangeError, StateInfo};
use crate::domain::target::Target;

/// Raised with every change of the tables.
pub(super) const VERSION: i64 = 3;
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
    -- Bits: 1 the Nick, 2 the FaceUrl, 4 whether it exists, 8 whether it was kicked, 16 whether it was deleted, 32 all known tags,
    -- 64 some tags, as their own flags say.
    in_doubt INTEGER NOT NULL,
    kicked INTEGER NOT NULL,
    -- When the run began that last raised missing_runs.
    raised_at INTEGER,
    -- Ten bytes for each tag, in order of numbers: the number with two flags in front (in doubt, known), then the hash of the value.
    tags BLOB
) WITHOUT ROWID, STRICT;
-- The tags that were ever known, by their names in requests. A number is never given again.
CREATE TABLE tags (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;
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
    -- Calls may have left for rows up to this one. It falls only when a process that ends takes back what it has not sent.
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
    malformed TEXT,
    -- The tags that it reads, in the order of their columns, with the records that have each: JSON, [[name, records], …].
    with_tags TEXT
) STRICT;
-- The open run: what is sent or has come back, …
CREATE TABLE planned (
    id TEXT PRIMARY KEY,
    row INTEGER NOT NULL,
    -- 0 nothing, 1 the account and its tags, 2 its tags alone.
    sent INTEGER NOT NULL,
    nick INTEGER,
    face_url INTEGER,
    -- What a verification found once this row had settled, in the bits of in_doubt: the fields that differ, or 4 if there is no account.
    found INTEGER NOT NULL DEFAULT 0,
    -- The tags that are sent, with those that are sent only if the account has to be made anew, flagged as in doubt; and those that a
    -- verification found to differ. As those of an account.
    tags BLOB,
    found_tags BLOB
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
-- … and what becomes of each row: codes of half a byte, or of more if there are many kinds of updates that carry tags, …
CREATE TABLE ops (
    part INTEGER PRIMARY KEY,
    nibbles BLOB NOT NULL
) STRICT;
-- … which are these, in order of their codes.
CREATE TABLE op_kinds (
    number INTEGER PRIMARY KEY,
    fields INTEGER NOT NULL,
    -- As `sent` of what is planned.
    account INTEGER NOT NULL,
    -- Sets of tags, by their places among those that the run reads: bit 0 is the first one.
    differing INTEGER NOT NULL,
    tags INTEGER NOT NULL
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

/// The columns and tables that versions 1 and 2 lack.
const TAGS_LACK: &str = "
ALTER TABLE main.accounts ADD COLUMN tags BLOB;
ALTER TABLE main.planned ADD COLUMN tags BLOB;
ALTER TABLE main.planned ADD COLUMN found_tags BLOB;
ALTER TABLE main.runs ADD COLUMN with_tags TEXT;
CREATE TABLE main.tags (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE main.op_kinds (
    number INTEGER PRIMARY KEY,
    fields INTEGER NOT NULL,
    account INTEGER NOT NULL,
    differing INTEGER NOT NULL,
    tags INTEGER NOT NULL
) STRICT;
";
/// What stands for them while an older version is only looked at.
const NO_TAGS: &str = "
CREATE TEMP VIEW tags AS SELECT 0 AS number, '' AS name WHERE 0;
CREATE TEMP VIEW op_kinds AS SELECT 0 AS number, 0 AS fields, 0 AS account, 0 AS differing, 0 AS tags WHERE 0;
";
/// The views of [`show`], which hide the tables of the file.
const VIEWS: [&str; 6] = ["accounts", "runs", "planned", "missing", "tags", "op_kinds"];

/// Shows the tables of an older version to this connection alone as if they were today's; the file stays as it is.
pub(super) fn show(db: &Connection, version: i64) -> rusqlite::Result<()> {
    let tables = if version == OLDEST { tables_of_1() } else { TABLES_OF_2.to_owned() };
    db.execute_batch(&format!("PRAGMA temp_store = MEMORY; {tables} {NO_TAGS}"))
}

const TABLES_OF_2: &str = "
CREATE TEMP VIEW accounts AS SELECT *, NULL AS tags FROM main.accounts;
CREATE TEMP VIEW runs AS SELECT *, NULL AS with_tags FROM main.runs;
CREATE TEMP VIEW planned AS SELECT *, NULL AS tags, NULL AS found_tags FROM main.planned;
CREATE TEMP VIEW missing AS SELECT * FROM main.missing;
";

fn tables_of_1() -> String {
    let lacking = RUNS_LACK.map(|(name, _, value)| format!("{value} AS {name}")).join(", ");
    format!(
        "CREATE TEMP VIEW accounts AS SELECT id, nick, face_url, last_imported, missing_runs, {DOUBT_OF_1} AS in_doubt, kicked,
             NULL AS raised_at, NULL AS tags FROM main.accounts;
         CREATE TEMP VIEW runs AS SELECT number, command, began_at, finished_at, input_len, input_digest, input_stat, plan, valid, with_nick,
             with_face_url, sent_up_to, done, {lacking}, NULL AS with_tags FROM main.runs;
         CREATE TEMP VIEW planned AS SELECT id, row, sent, nick, face_url, 0 AS found, NULL AS tags, NULL AS found_tags FROM main.planned;
         CREATE TEMP VIEW missing AS SELECT *, NULL AS like_row, NULL AS like_line FROM main.missing;"
    )
}

/// Makes a state of an older version one of today's. Accounts are not written anew but for those in doubt. How many accounts, due for a kick
/// or a deletion in a run that is open, have to wait for the next one, which judges them anew.
pub(super) fn carry_over(change: &Transaction, version: i64) -> Result<usize, ChangeError> {
    VIEWS.iter().try_for_each(|view| change.execute_batch(&format!("DROP VIEW temp.{view}")))?;
    if version == OLDEST {
        carry_over_1(change)?;
    }
    change.execute_batch(TAGS_LACK)?;
    change.pragma_update(None, "user_version", VERSION)?;
    if version > OLDEST {
        return Ok(0);
    }
    // Version 1 compared no missing id with what looks like it, nor did it ask whether the file can be read for certain.
    let waits = "UPDATE main.missing SET due = 'nothing' WHERE deed IS NULL AND due IN ('kick', 'delete')";
    Ok(change.execute(waits, [])?)
}

/// Makes the tables of version 1 those of version 2.
fn carry_over_1(change: &Transaction) -> rusqlite::Result<()> {
    let lacking = RUNS_LACK.map(|(name, kind, _)| format!("ALTER TABLE main.runs ADD COLUMN {name} {kind};")).join("\n");
    change.execute_batch(&format!(
        "UPDATE main.accounts SET in_doubt = {DOUBT_OF_1} WHERE in_doubt <> 0;
         ALTER TABLE main.accounts ADD COLUMN raised_at INTEGER;
         {lacking}
         ALTER TABLE main.planned ADD COLUMN found INTEGER NOT NULL DEFAULT 0;
         ALTER TABLE main.missing ADD COLUMN like_row INTEGER;
         ALTER TABLE main.missing ADD COLUMN like_line INTEGER;"
    ))
}

/// What a file holds.
pub(super) enum FoundSchema {
    Nothing,
    /// A state of a version that can be read.
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
