//! The outcome of a record, for results, rejects, progress and summary.
//!
//! These are pure values. The journal decides when and how they are written.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::domain::position::InputPosition;

/// How a record ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The service accepted the account.
    Imported,
    /// The same as `Imported`; the account was not known before.
    Created,
    /// The same as `Imported`; the account was known with another nickname or avatar, or its profile was unknown.
    Updated,
    /// The service refused it, or all attempts failed.
    Failed,
    /// It was never sent; `error_info` has the reason.
    Invalid,
    /// It was never sent: a later row has the same UserID.
    Superseded,
}

impl Status {
    /// The word in the results' `status` column.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Status::Imported => "imported",
            Status::Created => "created",
            Status::Updated => "updated",
            Status::Failed => "failed",
            Status::Invalid => "invalid",
            Status::Superseded => "superseded",
        }
    }

    /// All statuses.
    pub const ALL: [Status; 6] = [Status::Imported, Status::Created, Status::Updated, Status::Failed, Status::Invalid, Status::Superseded];

    /// Whether the record goes into the rejects file.
    #[must_use]
    pub const fn is_rejected(self) -> bool {
        matches!(self, Status::Failed | Status::Invalid)
    }
}

/// The final result of one record: one line of the results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub status: Status,
    /// The API's code; `None` without one (success, invalid records, network errors).
    pub error_code: Option<i64>,
    /// A message of the service or of chatlift; empty on success. It may be foreign text and is not defused yet.
    pub error_info: String,
    /// Requests that count as attempts of the row; 0 for an invalid one.
    pub attempts: u32,
    pub finished_at: SystemTime,
}

/// The number of rows per status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeCounts {
    /// Rows that the service accepted, including created and updated ones.
    pub imported: u64,
    pub created: u64,
    pub updated: u64,
    pub failed: u64,
    pub invalid: u64,
    pub superseded: u64,
}

impl OutcomeCounts {
    pub fn count(&mut self, status: Status) {
        match status {
            Status::Imported => self.imported += 1,
            Status::Created => {
                self.imported += 1;
                self.created += 1;
            }
            Status::Updated => {
                self.imported += 1;
                self.updated += 1;
            }
            Status::Failed => self.failed += 1,
            Status::Invalid => self.invalid += 1,
            Status::Superseded => self.superseded += 1,
        }
    }

    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.imported + self.failed + self.invalid + self.superseded
    }

    /// Rows in the rejects file.
    #[must_use]
    pub const fn rejected(&self) -> u64 {
        self.failed + self.invalid
    }
}

impl std::ops::Add for OutcomeCounts {
    type Output = OutcomeCounts;

    fn add(self, other: OutcomeCounts) -> OutcomeCounts {
        OutcomeCounts {
            imported: self.imported + other.imported,
            created: self.created + other.created,
            updated: self.updated + other.updated,
            failed: self.failed + other.failed,
            invalid: self.invalid + other.invalid,
            superseded: self.superseded + other.superseded,
        }
    }
}

impl std::ops::Sub for OutcomeCounts {
    type Output = OutcomeCounts;

    /// Rows counted since `other`, earlier counts of the same run.
    fn sub(self, other: OutcomeCounts) -> OutcomeCounts {
        OutcomeCounts {
            imported: self.imported - other.imported,
            created: self.created - other.created,
            updated: self.updated - other.updated,
            failed: self.failed - other.failed,
            invalid: self.invalid - other.invalid,
            superseded: self.superseded - other.superseded,
        }
    }
}

/// An outcome with its record, for the journal.
#[derive(Debug, Clone)]
pub struct RowOutcome {
    /// The row number, counted from 1.
    pub row: u64,
    /// The physical line on which the record starts.
    pub line: u64,
    /// The UserID cell as in the input, byte for byte, valid or not.
    pub user_id: Box<[u8]>,
    pub outcome: Outcome,
    /// The position in the input behind this record.
    pub end: InputPosition,
    /// The record as it was, kept only if the rejects file needs it.
    pub original: Option<OriginalRecord>,
}

/// A record of the input for a copy of it.
#[derive(Debug, Clone)]
pub enum OriginalRecord {
    Fields(csv::ByteRecord),
    /// Its text, without a line end: what its quotes hold is uncertain, and written anew they would say that all is well.
    Text(Box<[u8]>),
}

impl OriginalRecord {
    /// Bytes of memory behind it, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            OriginalRecord::Fields(fields) => fields.as_slice().len(),
            OriginalRecord::Text(text) => text.len(),
        }
    }
}

/// How the `error_info` of a row begins whose account was imported, and whose tags failed. Source: the contract of profile columns.
pub const TAGS_FAILED: &str = "portrait_set: ";

/// The columns that a rejects file has behind the input's.
pub const ERROR_COLUMNS: [&[u8]; 2] = [b"error_code", b"error_info"];
