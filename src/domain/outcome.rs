//! The outcome of a record, which results, rejects, progress and summary share.
//!
//! These are pure values. The journal decides when and how they are written.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::domain::position::InputPosition;

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The service holds the account.
    Imported,
    /// As imported; the account was not known before.
    Created,
    /// As imported; the account was known with another nickname or face, or nobody could tell with which.
    Updated,
    /// The service refused it, or its attempts ran out.
    Failed,
    /// It was never sent; `error_info` has the reason.
    Invalid,
    /// It was never sent: a later record has the same UserID.
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

    /// All of them.
    pub const ALL: [Status; 6] = [Status::Imported, Status::Created, Status::Updated, Status::Failed, Status::Invalid, Status::Superseded];

    /// Whether the service took the record.
    #[must_use]
    pub const fn is_taken(self) -> bool {
        matches!(self, Status::Imported | Status::Created | Status::Updated)
    }

    /// Whether the record belongs into the rejects.
    #[must_use]
    pub const fn is_rejected(self) -> bool {
        matches!(self, Status::Failed | Status::Invalid)
    }
}

/// The final word on one record of the input: one line of the results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub status: Status,
    /// The API's code; `None` where there is none (success, invalid records, network faults).
    pub error_code: Option<i64>,
    /// The service's words or ours; empty on success. Foreign text, not yet defused.
    pub error_info: String,
    /// Calls charged to the row; 0 for an invalid one.
    pub attempts: u32,
    pub finished_at: SystemTime,
}

/// How many rows ended in which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeCounts {
    /// Those that the service took, as created and updated ones too.
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

    /// Rows that a rejects file holds.
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

    /// What has come to `other` since.
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

/// An outcome with the record that it belongs to, as the journal takes it.
#[derive(Debug, Clone)]
pub struct RowOutcome {
    /// Counts records from 1.
    pub row: u64,
    /// The physical line on which the record starts.
    pub line: u64,
    /// The UserID cell as it stood in the input, byte for byte, valid or not.
    pub user_id: Box<[u8]>,
    pub outcome: Outcome,
    /// Where the input goes on behind this record.
    pub end: InputPosition,
    /// The record's original fields; kept only where the rejects need them.
    pub original: Option<csv::ByteRecord>,
}
