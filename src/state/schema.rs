//! The tables of a state, and what identifies one.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{About, Trouble};
use crate::target::Target;

/// Raised with every change of the tables.
pub(super) const VERSION: i64 = 1;
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
    -- 1 for an import whose outcome is not known, 2 for a kick or a deletion, 3 for both.
    in_doubt INTEGER NOT NULL,
    kicked INTEGER NOT NULL
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
    -- Calls may have left for rows up to this one.
    sent_up_to INTEGER NOT NULL,
    done TEXT
) STRICT;
-- The open run: what is sent or has come back, …
CREATE TABLE planned (
    id TEXT PRIMARY KEY,
    row INTEGER NOT NULL,
    sent INTEGER NOT NULL,
    nick INTEGER,
    face_url INTEGER
) WITHOUT ROWID, STRICT;
-- … what is missing and what was done about it, …
CREATE TABLE missing (
    id TEXT PRIMARY KEY,
    last_imported INTEGER,
    missing_runs INTEGER NOT NULL,
    due TEXT NOT NULL,
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

/// What a file holds.
pub(super) enum Found {
    Nothing,
    State,
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

pub(super) fn found(db: &Connection) -> rusqlite::Result<Found> {
    let number = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(match (number("application_id")?, number("user_version")?) {
        (APPLICATION, VERSION) => Found::State,
        (APPLICATION, version) => Found::Version(version),
        (0, 0) if tables == 0 => Found::Nothing,
        _ => Found::Foreign,
    })
}

pub(super) fn create(change: &Transaction, target: &Target, identity: u64) -> Result<(), Trouble> {
    change.execute_batch(TABLES)?;
    change.execute(
        "INSERT INTO about VALUES (1, ?1, ?2, ?3, ?4, 0)",
        params![identity.cast_signed(), target.endpoint, target.sdkappid.cast_signed(), target.api],
    )?;
    change.pragma_update(None, "application_id", APPLICATION)?;
    change.pragma_update(None, "user_version", VERSION)?;
    Ok(())
}

pub(super) fn about(db: &Connection) -> rusqlite::Result<About> {
    db.query_row("SELECT identity, endpoint, sdkappid, api, importing FROM about", [], |row| {
        Ok(About {
            identity: row.get::<_, i64>(0)?.cast_unsigned(),
            target: Target { endpoint: row.get(1)?, sdkappid: row.get::<_, i64>(2)?.cast_unsigned(), api: row.get(3)? },
            is_importing: row.get(4)?,
        })
    })
    .optional()
    .and_then(|about| about.ok_or(rusqlite::Error::QueryReturnedNoRows))
}

pub(super) fn retarget(change: &Transaction, target: &Target) -> Result<(), Trouble> {
    let values = params![target.endpoint, target.sdkappid.cast_signed(), target.api];
    change.execute("UPDATE about SET endpoint = ?1, sdkappid = ?2, api = ?3", values)?;
    Ok(())
}
