//! The records of a watched file as an import takes them.

use std::cell::RefCell;
use std::rc::Rc;

use super::IncomingRecord;
use crate::domain::oddity::{OddPlace, OddityCounts};
use crate::io::roster::{Next, Original, Record, RosterError, Watched};

/// Hands out the records of a file; while it is being compared, the import gets its turn.
#[derive(Debug)]
pub struct WatchedRecords {
    records: Watched,
    /// The file that they are a copy of, if they are one of a file.
    original: Option<Original>,
    /// Of the records that were handed out.
    oddities: Rc<RefCell<OddityCounts>>,
}

impl WatchedRecords {
    /// `oddities` are counted as the records come.
    #[must_use]
    pub const fn new(records: Watched, original: Option<Original>, oddities: Rc<RefCell<OddityCounts>>) -> Self {
        Self { records, original, oddities }
    }

    fn look_at(&self, record: &Record) {
        let mut oddities = self.oddities.borrow_mut();
        oddities.invalid.see(record.account.as_ref().err());
        if let Ok(account) = &record.account {
            let place = OddPlace { row: record.row, line: record.line };
            oddities.see(&account.as_ref(), record.suspects, place);
            oddities.see_tags(account.tags.iter().map(|item| (&item.tag, item.value.as_ref())), place);
        }
    }
}

impl Iterator for WatchedRecords {
    type Item = Result<IncomingRecord, RosterError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Some(next) = self.records.next_or_comparing() else {
            // The end comes only if what the copy was made of still stands, too.
            return self.original.as_mut()?.ensure_unchanged().err().map(Err);
        };
        Some(match next {
            Ok(Next::Record(record)) => {
                self.look_at(&record);
                Ok(record.into())
            }
            Ok(Next::Comparing) => Ok(IncomingRecord::Skipped(self.records.at())),
            Err(error) => Err(error),
        })
    }
}
