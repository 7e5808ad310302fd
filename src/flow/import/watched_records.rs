//! The records of a watched file as an import takes them.

use std::cell::RefCell;
use std::rc::Rc;

use super::IncomingRecord;
use crate::domain::oddity::{OddPlace, OddityCounts};
use crate::io::roster::{Next, Record, RosterError, Watched};

/// Hands out the records of a file; while it is being compared, the import gets its turn.
#[derive(Debug)]
pub struct WatchedRecords {
    records: Watched,
    /// Of the records that were handed out.
    oddities: Rc<RefCell<OddityCounts>>,
}

impl WatchedRecords {
    /// `oddities` are counted as the records come.
    #[must_use]
    pub const fn new(records: Watched, oddities: Rc<RefCell<OddityCounts>>) -> Self {
        Self { records, oddities }
    }

    fn look_at(&self, record: &Record) {
        let mut oddities = self.oddities.borrow_mut();
        oddities.invalid.see(record.account.as_ref().err());
        if let Ok(account) = &record.account {
            oddities.see(&account.as_ref(), record.suspects, OddPlace { row: record.row, line: record.line });
        }
    }
}

impl Iterator for WatchedRecords {
    type Item = Result<IncomingRecord, RosterError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(match self.records.next_or_comparing()? {
            Ok(Next::Record(record)) => {
                self.look_at(&record);
                Ok(record.into())
            }
            Ok(Next::Comparing) => Ok(IncomingRecord::Passed(self.records.at())),
            Err(error) => Err(error),
        })
    }
}
