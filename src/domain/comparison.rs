//! The result of a verification for one UserID: whether the account is as the file says.
//!
//! These are pure values. `flow::verify` asks the service and fills them in; an implementation of [`Findings`] writes them.

use std::fmt;

use csv::ByteRecord;

use crate::domain::account::Field;
use crate::domain::tag::Tag;

/// Whether the account is as the last record of its UserID says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// The account exists and has the compared fields.
    Same,
    /// The account does not exist.
    Missing,
    /// These parts of the account differ.
    Differs(Differing),
    /// The account could not be checked, for this reason.
    Unknown(String),
    /// The record is not a valid account, for this reason.
    Invalid(String),
}

impl Comparison {
    /// The word in the results' `state` column.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Comparison::Same => "same",
            Comparison::Missing => "missing",
            Comparison::Differs(_) => "differs",
            Comparison::Unknown(_) => "unknown",
            Comparison::Invalid(_) => "invalid",
        }
    }

    /// The text in the results' `detail` column. It may be foreign text and is not defused yet.
    #[must_use]
    pub fn detail(&self) -> String {
        match self {
            Comparison::Same | Comparison::Missing => String::new(),
            Comparison::Differs(differing) => differing.to_string(),
            Comparison::Unknown(why) | Comparison::Invalid(why) => why.clone(),
        }
    }

    /// Whether importing the record again would correct it.
    #[must_use]
    pub const fn is_repairable(&self) -> bool {
        match self {
            Comparison::Missing | Comparison::Differs(_) => true,
            Comparison::Same | Comparison::Unknown(_) | Comparison::Invalid(_) => false,
        }
    }
}

/// The parts of an account that the service shows to be other ones than the record says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differing {
    pub fields: Vec<Field>,
    pub tags: Vec<Tag>,
}

impl Differing {
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.tags.is_empty()
    }
}

impl fmt::Display for Differing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = self.fields.iter().map(|field| field.name().to_owned());
        let names: Vec<String> = fields.chain(self.tags.iter().map(ToString::to_string)).collect();
        f.write_str(&names.join(" "))
    }
}

/// The finding for one UserID.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The row of its last record, counted from 1.
    pub row: u64,
    /// The physical line on which that record starts.
    pub line: u64,
    /// The UserID cell as in the input, byte for byte, valid or not.
    pub user_id: Box<[u8]>,
    /// The UserID that was read from this cell, if it differs from the bytes.
    pub other_id: Option<Box<[u8]>>,
    pub state: Comparison,
    /// The record's original fields, if importing them would correct the account.
    pub original: Option<ByteRecord>,
}

impl Finding {
    /// The UserID that was checked.
    #[must_use]
    pub fn id(&self) -> &[u8] {
        self.other_id.as_deref().unwrap_or(&self.user_id)
    }
}

/// Receives the findings in input order.
pub trait Findings {
    type Error;

    /// # Errors
    /// Why the receiver can take no more findings, such as an [`std::io::Error`].
    fn take(&mut self, finding: Finding) -> Result<(), Self::Error>;
}

/// The number of UserIDs per result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FindingCounts {
    pub same: u64,
    pub missing: u64,
    pub differs: u64,
    pub unknown: u64,
    pub invalid: u64,
}

impl FindingCounts {
    pub fn count(&mut self, state: &Comparison) {
        match state {
            Comparison::Same => self.same += 1,
            Comparison::Missing => self.missing += 1,
            Comparison::Differs(_) => self.differs += 1,
            Comparison::Unknown(_) => self.unknown += 1,
            Comparison::Invalid(_) => self.invalid += 1,
        }
    }

    /// UserIDs about which the service was asked.
    #[must_use]
    pub const fn asked(&self) -> u64 {
        self.same + self.missing + self.differs + self.unknown
    }

    /// Whether every UserID has the result [`Comparison::Same`].
    #[must_use]
    pub const fn is_all_same(&self) -> bool {
        self.missing + self.differs + self.unknown + self.invalid == 0
    }
}
