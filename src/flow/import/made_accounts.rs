//! The accounts that were imported though `portrait_set` alone was to be sent, since the service did not know them: the state is told, and a
//! later row of such a user is imported too.

use std::collections::VecDeque;

use super::user_order::UserKey;
use crate::domain::hashed_map::HashedSet;

/// Accounts that are kept. Chosen: some 6 MiB; whoever imports more of them has not imported the users before.
const KEPT_MAX: usize = 1 << 18;

/// Whether a row has imported its account, and why, though `portrait_set` alone was to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RowImport {
    Nothing,
    /// The service did not know the account.
    Anew,
    /// An earlier row of the user has made it.
    AsWell,
}

/// The rows of one process that have imported their accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedRows {
    /// The first row that this process may have sent.
    from: u64,
    /// In any order; `None` once there were more than are kept.
    rows: Option<Vec<(u64, RowImport)>>,
}

impl ImportedRows {
    /// Of a process that begins with this row.
    #[must_use]
    pub const fn from(row: u64) -> Self {
        Self { from: row, rows: Some(Vec::new()) }
    }

    fn note(&mut self, row: (u64, RowImport)) {
        match &mut self.rows {
            Some(rows) if rows.len() < KEPT_MAX => rows.push(row),
            _ => self.rows = None,
        }
    }

    /// The same, so that it can be asked.
    #[must_use]
    pub(super) fn sorted(mut self) -> Self {
        self.rows.iter_mut().for_each(|rows| rows.sort_unstable());
        self
    }

    /// Whether a row has imported its account, and why; `None` if that is not known here.
    pub(super) fn find(&self, row: u64) -> Option<RowImport> {
        let rows = self.rows.as_ref().filter(|_| row >= self.from)?;
        Some(rows.binary_search_by_key(&row, |(row, _)| *row).map_or(RowImport::Nothing, |at| rows[at].1))
    }
}

/// The accounts that were imported.
#[derive(Debug)]
pub(super) struct MadeAccounts {
    pub(super) rows: ImportedRows,
    /// The users who were imported last.
    users: HashedSet<UserKey>,
    oldest: VecDeque<UserKey>,
}

impl MadeAccounts {
    pub(super) fn new(first_row: u64) -> Self {
        Self { rows: ImportedRows::from(first_row), users: HashedSet::default(), oldest: VecDeque::new() }
    }

    pub(super) fn note(&mut self, row: (u64, RowImport), user_id: UserKey) {
        self.rows.note(row);
        if self.users.insert(user_id) {
            self.oldest.push_back(user_id);
        }
        if self.oldest.len() > KEPT_MAX
            && let Some(oldest) = self.oldest.pop_front()
        {
            self.users.remove(&oldest);
        }
    }

    pub(super) fn has_user(&self, user_id: UserKey) -> bool {
        self.users.contains(&user_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_told_apart_by_whether_this_process_has_imported_them() {
        let mut rows = ImportedRows::from(5);
        rows.note((9, RowImport::AsWell));
        rows.note((7, RowImport::Anew));
        let rows = rows.sorted();
        let found = [None, Some(RowImport::Nothing), Some(RowImport::Anew), Some(RowImport::Nothing), Some(RowImport::AsWell)];
        assert_eq!([4, 5, 7, 8, 9].map(|row| rows.find(row)), found);
    }

    #[test]
    fn more_than_are_kept_are_not_known() {
        let mut rows = ImportedRows::from(1);
        (1..=KEPT_MAX as u64 + 1).for_each(|row| rows.note((row, RowImport::Anew)));
        assert_eq!(rows.find(1), None);
    }
}
