//! Reads a state in slices of limited time, so that a process that wants to change it gets its turn.

use std::time::{Duration, Instant};

use rusqlite::{Connection, Row};

use super::ChangeError;

/// How long a look keeps others from changing the file. Chosen: well under what a change waits.
pub(super) const LOOK: Duration = Duration::from_secs(2);
/// Rows between two looks at the clock. Chosen: a millisecond's worth.
const CLOCK_EVERY: u32 = 4_096;

/// Visits the rows of a query in order of ids, which are its first column: those behind `?1`.
///
/// # Errors
/// [`ChangeError::Changed`] if the file was changed between two slices, since the rows would be of two states; and the errors of `visit`.
pub(super) fn each_row(db: &Connection, query: &str, visit: impl FnMut(&Row) -> Result<(), ChangeError>) -> Result<(), ChangeError> {
    each_row_within(LOOK, db, query, visit)
}

fn each_row_within(
    look_at_most: Duration,
    db: &Connection,
    query: &str,
    mut visit: impl FnMut(&Row) -> Result<(), ChangeError>,
) -> Result<(), ChangeError> {
    let mut after = Some(Vec::new());
    let mut version = None;
    while let Some(last) = after {
        // All of a slice is of one state.
        let look = db.unchecked_transaction()?;
        let is: i64 = look.pragma_query_value(None, "data_version", |row| row.get(0))?;
        if *version.get_or_insert(is) != is {
            return Err(ChangeError::Changed);
        }
        after = slice(look_at_most, (&look, query), &last, &mut visit)?;
    }
    Ok(())
}

/// The last id of the slice, if there may be more behind it.
fn slice(
    look_at_most: Duration,
    (look, query): (&Connection, &str),
    after: &[u8],
    visit: &mut impl FnMut(&Row) -> Result<(), ChangeError>,
) -> Result<Option<Vec<u8>>, ChangeError> {
    let began = Instant::now();
    let mut query = look.prepare(query)?;
    let mut rows = query.query([String::from_utf8_lossy(after)])?;
    let mut until_clock = CLOCK_EVERY;
    while let Some(row) = rows.next()? {
        visit(row)?;
        until_clock -= 1;
        if until_clock == 0 {
            until_clock = CLOCK_EVERY;
            if began.elapsed() >= look_at_most {
                return Ok(Some(super::account::id(row)?.to_owned()));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: u32 = 20_000;

    fn database(path: &std::path::Path) -> Connection {
        let db = Connection::open(path).unwrap();
        db.execute_batch("CREATE TABLE accounts (id TEXT PRIMARY KEY) WITHOUT ROWID, STRICT; BEGIN").unwrap();
        for row in 0..ROWS {
            db.execute("INSERT INTO accounts VALUES (?1)", [format!("u{row:06}")]).unwrap();
        }
        db.execute_batch("COMMIT").unwrap();
        db
    }

    /// The ids that are seen, with a change by another connection before the look at the row with this number.
    fn seen(look_at_most: Duration, changed_at: Option<u32>) -> Result<Vec<String>, ChangeError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let (db, other) = (database(&path), Connection::open(&path).unwrap());
        other.busy_timeout(Duration::ZERO).unwrap();
        let mut ids = Vec::new();
        let query = "SELECT a.id FROM accounts a WHERE a.id > ?1 ORDER BY a.id";
        each_row_within(look_at_most, &db, query, |row| {
            ids.push(row.get::<_, String>(0)?);
            if changed_at == Some(u32::try_from(ids.len()).unwrap()) {
                // Within a slice nothing can be changed: it is tried again at the next one.
                assert!(other.execute("DELETE FROM accounts WHERE id = 'u000001'", []).is_err());
            }
            Ok(())
        })?;
        Ok(ids)
    }

    #[test]
    fn every_row_is_visited_once_however_short_the_slices_are() {
        for look in [Duration::ZERO, LOOK] {
            let ids = seen(look, Some(ROWS / 2)).unwrap();
            assert!(ids.iter().eq(&(0..ROWS).map(|row| format!("u{row:06}")).collect::<Vec<_>>()), "{look:?}");
        }
    }

    #[test]
    fn a_change_between_two_slices_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let db = database(&path);
        let other = Connection::open(&path).unwrap();
        other.busy_timeout(Duration::from_secs(10)).unwrap();
        std::thread::scope(|scope| {
            let mut writer = None;
            let query = "SELECT a.id FROM accounts a WHERE a.id > ?1 ORDER BY a.id";
            let mut other = Some(other);
            let looked = each_row_within(Duration::ZERO, &db, query, |_| {
                // It waits for the end of a slice, and keeps the next one waiting.
                if let Some(other) = other.take() {
                    writer = Some(scope.spawn(move || other.execute("DELETE FROM accounts WHERE id = 'u000001'", []).unwrap()));
                }
                std::thread::park_timeout(Duration::from_micros(50));
                Ok(())
            });
            assert!(matches!(looked, Err(ChangeError::Changed)), "{looked:?}");
            assert_eq!(writer.unwrap().join().unwrap(), 1);
        });
    }
}
