//! What a file's first records say about all of it.

use std::collections::BTreeMap;

use crate::domain::account::InvalidAccount;
use crate::domain::shared_reason::SharedReason;

/// Records by which a file is judged. Source: the contract of `--max-invalid`.
pub const FIRST_RECORDS: u64 = 1_000;

/// The first records of a file, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FirstRecords {
    records: u64,
    invalid: u64,
    reasons: BTreeMap<String, u64>,
    shared: SharedReason,
}

/// More of them are invalid than are allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooManyInvalid {
    pub invalid: u64,
    /// The commonest reason, and how often it holds.
    pub most: Option<(String, u64)>,
    /// What they have in common.
    pub shared: Box<SharedReason>,
}

impl FirstRecords {
    /// Counts a record, if it is one of the first: why it is invalid, if it is.
    #[inline]
    pub fn count(&mut self, why: Option<&InvalidAccount>) {
        if self.records == FIRST_RECORDS {
            return;
        }
        self.records += 1;
        self.shared.see(why);
        if let Some(why) = why {
            self.invalid += 1;
            *self.reasons.entry(why.to_string()).or_default() += 1;
        }
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Whether more than `max_invalid` per cent are invalid. Fewer records than that many aren't judged.
    #[must_use]
    pub fn too_many_invalid(&self, max_invalid: f64) -> Option<TooManyInvalid> {
        let share = 100.0 * self.invalid as f64 / FIRST_RECORDS as f64;
        (self.records == FIRST_RECORDS && share > max_invalid).then(|| TooManyInvalid {
            invalid: self.invalid,
            shared: Box::new(self.shared.clone()),
            most: self.reasons.iter().max_by_key(|(_, count)| **count).map(|(reason, count)| (reason.clone(), *count)),
        })
    }
}
