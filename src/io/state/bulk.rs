//! Inserts many rows with one statement. SQLite then keeps its place in the table, and rows that come in order are appended one after the
//! other.

use rusqlite::{Statement, ToSql, Transaction};

use super::ChangeError;
use crate::domain::change::ProfileHashes;

/// Rows in a statement. Chosen: past that it gets no faster, and the values are far from the 32,766 that SQLite takes.
const ROWS: usize = 64;

/// What is inserted, and how.
#[derive(Debug, Clone)]
pub(super) struct Insert<R> {
    pub(super) table: &'static str,
    /// Its columns, in the order in which they are bound; the first is the key.
    pub(super) columns: Vec<&'static str>,
    pub(super) on_conflict: OnConflict,
    pub(super) bind: fn(&mut Values, &R) -> rusqlite::Result<()>,
}

/// What becomes of a row whose key is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnConflict {
    /// There is none.
    Fail,
    Replace,
}

/// Takes the values of rows, column by column.
pub(super) struct Values<'a, 'b> {
    statement: &'a mut Statement<'b>,
    bound: usize,
}

impl<'a, 'b> Values<'a, 'b> {
    pub(super) const fn of(statement: &'a mut Statement<'b>) -> Self {
        Self { statement, bound: 0 }
    }

    pub(super) fn put(&mut self, value: impl ToSql) -> rusqlite::Result<()> {
        self.bound += 1;
        self.statement.raw_bind_parameter(self.bound, value)
    }

    pub(super) fn put_profile(&mut self, profile: ProfileHashes) -> rusqlite::Result<()> {
        profile.iter().try_for_each(|(_, hash)| self.put(hash.map(u64::cast_signed)))
    }
}

/// Inserts rows, many at a time; the last ones with [`Bulk::finish`].
pub(super) struct Bulk<'a, R> {
    change: &'a Transaction<'a>,
    insert: Insert<R>,
    pending: Vec<R>,
    /// For [`ROWS`] rows.
    many: Option<Statement<'a>>,
}

impl<'a, R> Bulk<'a, R> {
    pub(super) fn new(change: &'a Transaction<'a>, insert: Insert<R>) -> Self {
        Self { change, insert, pending: Vec::with_capacity(ROWS), many: None }
    }

    pub(super) fn push(&mut self, row: R) -> Result<(), ChangeError> {
        self.pending.push(row);
        if self.pending.len() < ROWS {
            return Ok(());
        }
        let mut many = self.many.take().map_or_else(|| self.prepare(), Ok)?;
        self.execute(&mut many)?;
        self.many = Some(many);
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<(), ChangeError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut rest = self.prepare()?;
        Ok(self.execute(&mut rest)?)
    }

    /// For as many rows as are pending.
    fn prepare(&self) -> rusqlite::Result<Statement<'a>> {
        let Insert { table, columns, on_conflict, .. } = &self.insert;
        let row = format!("({})", vec!["?"; columns.len()].join(","));
        let rows = vec![row; self.pending.len()].join(",");
        let conflict = match on_conflict {
            OnConflict::Fail => String::new(),
            OnConflict::Replace => {
                let replaced: Vec<String> = columns[1..].iter().map(|column| format!("{column} = excluded.{column}")).collect();
                format!("ON CONFLICT ({}) DO UPDATE SET {}", columns[0], replaced.join(", "))
            }
        };
        self.change.prepare(&format!("INSERT INTO {table} ({}) VALUES {rows} {conflict}", columns.join(", ")))
    }

    fn execute(&mut self, statement: &mut Statement) -> rusqlite::Result<()> {
        let mut values = Values::of(statement);
        self.pending.drain(..).try_for_each(|row| (self.insert.bind)(&mut values, &row))?;
        statement.raw_execute().map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::change::{AccountCall, KnownAccount, MissingAccount, Ops, PaddedId, PlannedAccount, PlannedAction, ProfileHashes};
    use crate::domain::known_tags::RecordTags;
    use crate::domain::position::FileStat;
    use crate::domain::target::Target;
    use crate::io::state::{Finish, NewRun, RunInput, SendOutcome, Sent, StateDb};

    fn id(number: u64) -> PaddedId {
        PaddedId::new(format!("u{number:04}").as_bytes())
    }

    /// A whole run: `sent` and `back` are in its input, `missing` isn't.
    fn run(state: &mut StateDb, sent: &[u64], back: &[u64], missing: &[u64], came: impl Fn(u64) -> Sent) {
        let stat = FileStat { len: 0, modified_ns: 0, changed_ns: 0, inode: 0 };
        let input = RunInput { len: 0, digest: 0, stat };
        let ops = Ops::default();
        let new = NewRun { token: 1, ..NewRun::bare("sync", 1, input, &ops) };
        let mut numbers: Vec<(u64, bool)> = sent.iter().map(|number| (*number, true)).collect();
        numbers.extend(back.iter().map(|number| (*number, false)));
        numbers.sort_unstable_by_key(|(number, _)| *number);
        let profile = |number| ProfileHashes::from([Some(number), None]);
        let planned = numbers.iter().map(|(number, is_sent)| {
            let sent = is_sent.then_some(AccountCall::Imported);
            let (profile, tags) = (profile(*number), RecordTags::default());
            Ok(PlannedAccount { id: id(*number), row: *number, sent, is_back: false, profile, tags, held_back: RecordTags::default() })
        });
        let missing = missing.iter().map(|number| {
            Ok(MissingAccount { id: id(*number), last_imported: None, missing_runs: 7, due: PlannedAction::Nothing, lookalike: None })
        });
        let open = state.begin(new, planned, missing, std::iter::empty()).unwrap();
        state.record_send_intent(u64::MAX >> 1).unwrap();
        let settled = sent.iter().map(|number| Ok(SendOutcome::new(id(*number), *number, came(*number))));
        state.finish(settled, Finish { run: (open.number, open.token), at: 3, ..Finish::default() }).unwrap();
    }

    fn held(state: &StateDb) -> Vec<(PaddedId, KnownAccount)> {
        let mut all = Vec::new();
        state
            .each_account(|id, held| {
                all.push((PaddedId::new(id), held.clone()));
                Ok(())
            })
            .unwrap();
        all
    }

    #[test]
    fn every_row_is_written_whether_or_not_it_fills_a_statement() {
        for rows in [0, 1, 63, 64, 65, 128, 1_000] {
            let folder = tempfile::tempdir().unwrap();
            let target = Target { endpoint: "e".to_owned(), sdkappid: 1, api: "v4".to_owned() };
            let mut state = StateDb::open_or_create(&folder.path().join("state"), &target, 1).unwrap();
            let all: Vec<u64> = (0..rows).collect();
            run(&mut state, &all, &[], &[], |_| Sent::Taken { at: 2 });
            let expected = |number| KnownAccount {
                profile: ProfileHashes::from([Some(number), None]),
                last_imported: Some(2),
                ..KnownAccount::default()
            };
            assert_eq!(held(&state), all.iter().map(|number| (id(*number), expected(*number))).collect::<Vec<_>>());
        }
    }

    #[test]
    fn whoever_comes_back_is_not_missing_whatever_came_of_his_row() {
        let folder = tempfile::tempdir().unwrap();
        let target = Target { endpoint: "e".to_owned(), sdkappid: 1, api: "v4".to_owned() };
        let mut state = StateDb::open_or_create(&folder.path().join("state"), &target, 1).unwrap();
        run(&mut state, &[0, 1, 2, 3, 4], &[], &[], |_| Sent::Taken { at: 2 });
        run(&mut state, &[0], &[], &[1, 2, 3, 4], |_| Sent::Taken { at: 4 });
        let runs =
            |state: &StateDb| held(state).iter().map(|(_, held)| (held.missing_runs, !held.in_doubt.is_nothing())).collect::<Vec<_>>();
        assert_eq!(runs(&state), [(0, false), (7, false), (7, false), (7, false), (7, false)]);
        run(&mut state, &[1, 2], &[3], &[], |number| if number == 1 { Sent::Refused } else { Sent::Unknown });
        assert_eq!(runs(&state), [(0, false), (0, false), (0, true), (0, false), (7, false)]);
    }
}
