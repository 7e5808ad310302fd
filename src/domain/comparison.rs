//! The result of a verification for one id: whether the service holds what the file says.
//!
//! These are pure values. `flow::verify` asks the service and fills them in; whoever implements [`Findings`] writes them.

use csv::ByteRecord;

use crate::domain::account::Field;

/// Whether the service holds what the last record of an id says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// There is such an account, and it shows what was compared.
    Same,
    /// There is no such account.
    Missing,
    /// The account shows something else in these fields.
    Differs(Vec<Field>),
    /// It could not be asked, and why.
    Unknown(String),
    /// The record can't be an account, and why.
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

    /// What stands in the results' `detail` column: foreign text, not yet defused.
    #[must_use]
    pub fn detail(&self) -> String {
        match self {
            Comparison::Same | Comparison::Missing => String::new(),
            Comparison::Differs(fields) => fields.iter().map(|field| field.name()).collect::<Vec<_>>().join(" "),
            Comparison::Unknown(why) | Comparison::Invalid(why) => why.clone(),
        }
    }

    /// Whether importing the record again would put it right.
    #[must_use]
    pub const fn is_repairable(&self) -> bool {
        match self {
            Comparison::Missing | Comparison::Differs(_) => true,
            Comparison::Same | Comparison::Unknown(_) | Comparison::Invalid(_) => false,
        }
    }
}

/// What was found of one id.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The row of its last record, counted from 1.
    pub row: u64,
    /// The physical line on which that record starts.
    pub line: u64,
    /// The UserID cell as it stood in the input, byte for byte, valid or not.
    pub user_id: Box<[u8]>,
    /// The id that this cell stands for, if that is another one.
    pub other_id: Option<Box<[u8]>>,
    pub state: Comparison,
    /// The record's original fields, if importing them would put it right.
    pub original: Option<ByteRecord>,
}

impl Finding {
    /// The id that was asked about.
    #[must_use]
    pub fn id(&self) -> &[u8] {
        self.other_id.as_deref().unwrap_or(&self.user_id)
    }
}

/// Whoever takes the findings, in input order.
pub trait Findings {
    type Error;

    /// # Errors
    /// Why nothing more can be taken.
    fn take(&mut self, finding: Finding) -> Result<(), Self::Error>;
}

/// How many ids were found in which state.
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

    /// Ids that the service was asked about.
    #[must_use]
    pub const fn asked(&self) -> u64 {
        self.same + self.missing + self.differs + self.unknown
    }

    /// Whether no id was found in another state than [`Comparison::Same`].
    #[must_use]
    pub const fn is_all_same(&self) -> bool {
        self.missing + self.differs + self.unknown + self.invalid == 0
    }
}
