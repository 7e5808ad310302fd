//! Many rows in one statement: SQLite then keeps its place in the table, and rows that come in order are put one behind the other.

use rusqlite::{Statement, ToSql, Transaction};

use super::Trouble;

/// Rows in a statement. Chosen: past that it gets no faster, and the values are far from the 32,766 that SQLite takes.
const ROWS: usize = 64;

/// What is inserted, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Insert<R> {
    pub(super) table: &'static str,
    pub(super) columns: usize,
    /// What follows the values.
    pub(super) conflict: &'static str,
    pub(super) bind: fn(&mut Values, &R) -> rusqlite::Result<()>,
}

/// Takes the values of rows, column by column.
pub(super) struct Values<'a, 'b> {
    statement: &'a mut Statement<'b>,
    bound: usize,
}

impl Values<'_, '_> {
    pub(super) fn put(&mut self, value: impl ToSql) -> rusqlite::Result<()> {
        self.bound += 1;
        self.statement.raw_bind_parameter(self.bound, value)
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

    pub(super) fn push(&mut self, row: R) -> Result<(), Trouble> {
        self.pending.push(row);
        if self.pending.len() < ROWS {
            return Ok(());
        }
        let mut many = self.many.take().map_or_else(|| self.prepare(), Ok)?;
        self.execute(&mut many)?;
        self.many = Some(many);
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<(), Trouble> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut rest = self.prepare()?;
        Ok(self.execute(&mut rest)?)
    }

    /// For as many rows as are pending.
    fn prepare(&self) -> rusqlite::Result<Statement<'a>> {
        let row = format!("({})", vec!["?"; self.insert.columns].join(","));
        let rows = vec![row; self.pending.len()].join(",");
        self.change.prepare(&format!("INSERT INTO {} VALUES {rows} {}", self.insert.table, self.insert.conflict))
    }

    fn execute(&mut self, statement: &mut Statement) -> rusqlite::Result<()> {
        let mut values = Values { statement, bound: 0 };
        self.pending.drain(..).try_for_each(|row| (self.insert.bind)(&mut values, &row))?;
        statement.raw_execute().map(|_| ())
    }
}
