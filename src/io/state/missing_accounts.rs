//! The accounts that the state knows and a run's input does not contain, and what is done about them.

use std::io;

use rusqlite::{Row, Transaction, params};

use super::{ChangeError, StateDb, StateError};
use crate::domain::change::{InDoubt, MissingAccount, PaddedId, PlannedAction};
use crate::domain::lookalike::Lookalike;

/// What a run did about an account that its input lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingAction {
    Nothing,
    Kicked,
    Deleted,
    Protected,
    Lookalike,
    Online,
    Failed,
}

impl MissingAction {
    const ALL: [MissingAction; 7] = [
        MissingAction::Nothing,
        MissingAction::Kicked,
        MissingAction::Deleted,
        MissingAction::Protected,
        MissingAction::Lookalike,
        MissingAction::Online,
        MissingAction::Failed,
    ];

    /// The word in the missing file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            MissingAction::Nothing => "none",
            MissingAction::Kicked => "kicked",
            MissingAction::Deleted => "deleted",
            MissingAction::Protected => "protected",
            MissingAction::Lookalike => "lookalike",
            MissingAction::Online => "online",
            MissingAction::Failed => "failed",
        }
    }
}

/// What was done about one account, and what the service said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingActionRecord {
    pub id: PaddedId,
    pub action: MissingAction,
    /// Whether the service's answer leaves no doubt about what it holds.
    pub is_certain: bool,
    pub error_code: Option<i64>,
    /// Foreign text, not yet defused.
    pub error_info: String,
}

impl StateDb {
    /// Accounts that are due and that nothing was done about yet, in order of ids: the first of them behind `after`.
    ///
    /// # Errors
    /// The database's, as everywhere here.
    pub fn due(&self, after: Option<&PaddedId>, at_most: usize) -> Result<Vec<MissingAccount>, StateError> {
        let read = || {
            let mut query = self.db.prepare(
                "SELECT id, last_imported, missing_runs, due, like_row, like_line FROM missing \
                 WHERE id > ?1 AND deed IS NULL AND due IN ('kick', 'delete') ORDER BY id LIMIT ?2",
            )?;
            query
                .query_map(params![after.map_or("", PaddedId::as_str), i64::try_from(at_most).unwrap_or(i64::MAX)], missing)?
                .collect::<rusqlite::Result<_>>()
        };
        read().map_err(self.cannot("read"))
    }

    /// How many accounts are due that nothing was done about yet.
    ///
    /// # Errors
    /// The database's.
    pub fn due_left(&self) -> Result<u64, StateError> {
        let query = "SELECT count(*) FROM missing WHERE deed IS NULL AND due IN ('kick', 'delete')";
        self.db.query_row(query, [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned).map_err(self.cannot("read"))
    }

    /// How many accounts of the open run are spared because a record looks like them.
    ///
    /// # Errors
    /// The database's.
    pub fn lookalikes(&self) -> Result<u64, StateError> {
        let query = "SELECT count(*) FROM missing WHERE due = 'lookalike'";
        self.db.query_row(query, [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned).map_err(self.cannot("read"))
    }

    /// Takes note of what was done. Lasts once this returns.
    ///
    /// # Errors
    /// The database's.
    pub fn record_actions(&mut self, actions: &[MissingActionRecord]) -> Result<(), StateError> {
        self.change("change", |change| {
            let mut note = change.prepare("UPDATE missing SET deed = ?2, error_code = ?3, error_info = ?4 WHERE id = ?1")?;
            let mut delete = change.prepare("DELETE FROM accounts WHERE id = ?1")?;
            let mut keep = change.prepare("UPDATE accounts SET in_doubt = in_doubt & ~?2, kicked = kicked OR ?3 WHERE id = ?1")?;
            // What an import has left in doubt stays so: a kick says nothing about it.
            let settled = |is_certain: bool| if is_certain { InDoubt::KICK.and(InDoubt::DELETION) } else { InDoubt::NOTHING };
            for MissingActionRecord { id, action, is_certain, error_code, error_info } in actions {
                let info = (!error_info.is_empty()).then_some(error_info);
                note.execute(params![id.as_str(), action.name(), error_code, info])?;
                match action {
                    MissingAction::Deleted => delete.execute([id.as_str()])?,
                    MissingAction::Kicked | MissingAction::Failed => {
                        keep.execute(params![id.as_str(), settled(*is_certain).bits(), *action == MissingAction::Kicked])?
                    }
                    // No call has left: an earlier one's doubt stays.
                    MissingAction::Nothing | MissingAction::Protected | MissingAction::Lookalike | MissingAction::Online => 0,
                };
            }
            Ok(())
        })
    }

    /// Visits what is missing, in order of ids, with what was done about it.
    ///
    /// # Errors
    /// The database's, or that of `visit`.
    pub fn each_missing(&self, mut visit: impl FnMut(&MissingAccount, &MissingActionRecord) -> io::Result<()>) -> Result<(), StateError> {
        let mut work = || {
            let query =
                "SELECT id, last_imported, missing_runs, due, like_row, like_line, deed, error_code, error_info FROM missing ORDER BY id";
            let mut query = self.db.prepare(query)?;
            let mut rows = query.query([])?;
            while let Some(row) = rows.next()? {
                let missing = missing(row)?;
                visit(&missing, &action_record(row, &missing)?)?;
            }
            Ok(())
        };
        work().map_err(|error| self.state_error("read", error))
    }
}

const fn due_name(due: PlannedAction) -> &'static str {
    match due {
        PlannedAction::Nothing => "nothing",
        PlannedAction::Protected => "protected",
        PlannedAction::Kick => "kick",
        PlannedAction::Delete => "delete",
        PlannedAction::Lookalike => "lookalike",
    }
}

fn missing(row: &Row) -> rusqlite::Result<MissingAccount> {
    let (id, due): (String, String) = (row.get(0)?, row.get(3)?);
    let all = [PlannedAction::Nothing, PlannedAction::Protected, PlannedAction::Lookalike, PlannedAction::Kick, PlannedAction::Delete];
    let due = all.into_iter().find(|each| due_name(*each) == due).unwrap_or(PlannedAction::Nothing);
    let place: [Option<i64>; 2] = [row.get(4)?, row.get(5)?];
    let lookalike = match place.map(|number| number.map(i64::cast_unsigned)) {
        [Some(row), Some(line)] => Some(Lookalike { row, line }),
        _ => None,
    };
    Ok(MissingAccount { id: PaddedId::new(id.as_bytes()), last_imported: row.get(1)?, missing_runs: row.get(2)?, due, lookalike })
}

/// What was done; nothing was decided about those that are not due.
fn action_record(row: &Row, missing: &MissingAccount) -> rusqlite::Result<MissingActionRecord> {
    let name: Option<String> = row.get(6)?;
    let noted = name.and_then(|name| MissingAction::ALL.into_iter().find(|action| action.name() == name));
    let action = noted.unwrap_or(match missing.due {
        PlannedAction::Protected => MissingAction::Protected,
        PlannedAction::Lookalike => MissingAction::Lookalike,
        PlannedAction::Nothing | PlannedAction::Kick | PlannedAction::Delete => MissingAction::Nothing,
    });
    let error_info: Option<String> = row.get(8)?;
    Ok(MissingActionRecord {
        id: missing.id,
        action,
        is_certain: true,
        error_code: row.get(7)?,
        error_info: error_info.unwrap_or_default(),
    })
}

pub(super) fn insert(change: &Transaction, missing: impl Iterator<Item = io::Result<MissingAccount>>) -> Result<(), ChangeError> {
    let mut insert = change
        .prepare("INSERT INTO missing (id, last_imported, missing_runs, due, like_row, like_line) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    for each in missing {
        let MissingAccount { id, last_imported, missing_runs, due, lookalike } = each?;
        let place = lookalike.map(|Lookalike { row, line }| (row.cast_signed(), line.cast_signed()));
        let (row, line) = (place.map(|place| place.0), place.map(|place| place.1));
        insert.execute(params![id.as_str(), last_imported, missing_runs, due_name(due), row, line])?;
    }
    Ok(())
}

/// Counts the run for those that are missing in it.
pub(super) fn raise_missing_runs(change: &Transaction) -> Result<(), ChangeError> {
    // Looked up id by id: they are a few, mostly. As a join SQLite would go over all accounts.
    change.execute(
        "UPDATE accounts SET (missing_runs, raised_at) = (SELECT m.missing_runs, CASE WHEN m.missing_runs > accounts.missing_runs
             THEN (SELECT began_at FROM runs WHERE finished_at IS NULL ORDER BY number DESC LIMIT 1) ELSE accounts.raised_at END
             FROM missing m WHERE m.id = accounts.id)
         WHERE id IN (SELECT id FROM missing)",
        [],
    )?;
    Ok(())
}
