//! What a verification found: of each id, whether the service holds what the file says.
//!
//! Pure values; who asks is the verification's business, where it is written that of whoever takes the findings.

use csv::ByteRecord;

use crate::account::Field;

/// Whether the service holds what the last record of an id says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
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

impl State {
    /// The word in the results' `state` column.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            State::Same => "same",
            State::Missing => "missing",
            State::Differs(_) => "differs",
            State::Unknown(_) => "unknown",
            State::Invalid(_) => "invalid",
        }
    }

    /// What stands in the results' `detail` column: foreign text, not yet defused.
    #[must_use]
    pub fn detail(&self) -> String {
        match self {
            State::Same | State::Missing => String::new(),
            State::Differs(fields) => fields.iter().map(|field| field.name()).collect::<Vec<_>>().join(" "),
            State::Unknown(why) | State::Invalid(why) => why.clone(),
        }
    }

    /// Whether importing the record again would put it right.
    #[must_use]
    pub const fn is_repairable(&self) -> bool {
        match self {
            State::Missing | State::Differs(_) => true,
            State::Same | State::Unknown(_) | State::Invalid(_) => false,
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
    pub state: State,
    /// The record's original fields, if importing them would put it right.
    pub original: Option<ByteRecord>,
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
pub struct Tally {
    pub same: u64,
    pub missing: u64,
    pub differs: u64,
    pub unknown: u64,
    pub invalid: u64,
}

impl Tally {
    pub fn count(&mut self, state: &State) {
        match state {
            State::Same => self.same += 1,
            State::Missing => self.missing += 1,
            State::Differs(_) => self.differs += 1,
            State::Unknown(_) => self.unknown += 1,
            State::Invalid(_) => self.invalid += 1,
        }
    }

    /// Ids that the service was asked about.
    #[must_use]
    pub const fn asked(&self) -> u64 {
        self.same + self.missing + self.differs + self.unknown
    }

    /// Whether no id was found in another state than [`State::Same`].
    #[must_use]
    pub const fn is_all_same(&self) -> bool {
        self.missing + self.differs + self.unknown + self.invalid == 0
    }
}
