//! The records of a watched file as an import takes them.

use super::Incoming;
use crate::io::roster::{Next, RosterError, Watched};

/// Hands out the records of a file; while it is being compared, the import gets its turn.
#[derive(Debug)]
pub struct WatchedRecords(Watched);

impl WatchedRecords {
    #[must_use]
    pub const fn new(records: Watched) -> Self {
        Self(records)
    }
}

impl Iterator for WatchedRecords {
    type Item = Result<Incoming, RosterError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(match self.0.next_or_comparing()? {
            Ok(Next::Record(record)) => Ok(record.into()),
            Ok(Next::Comparing) => Ok(Incoming::Passed(self.0.at())),
            Err(error) => Err(error),
        })
    }
}
