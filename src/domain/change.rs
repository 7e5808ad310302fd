//! The plan of a sync: what to do with each record and each missing account.
//!
//! This module holds pure values. `known_account` has what the state knows of an account, `op` what is decided by it.

use std::time::{Duration, SystemTime};

use crate::domain::account::USER_ID_MAX_BYTES;
pub use crate::domain::known_account::{AccountCall, Carried, InDoubt, KnownAccount, PROFILE_BYTES, ProfileHashes};
use crate::domain::known_tags::RecordTags;
use crate::domain::lookalike::Lookalike;
pub use crate::domain::op::{Op, Ops, TagComparison, Update};

/// A time in milliseconds since the epoch.
#[must_use]
pub fn milliseconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A time in milliseconds since the epoch, as RFC 3339 in UTC for files.
#[must_use]
pub fn rfc3339(milliseconds: i64) -> String {
    let since = Duration::from_millis(milliseconds.try_into().unwrap_or_default());
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + since).to_string()
}

/// The action of a run for an account that is missing in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlannedAction {
    /// Nothing; the account is only reported.
    Nothing,
    /// Nothing, because it is the administrator's own account or protected.
    Protected,
    /// Nothing, because a record of the input looks like it.
    Lookalike,
    Kick,
    Delete,
}

/// Why a run leaves kicks and deletions to a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The UserID of some record cannot be read with certainty.
    Malformed,
    /// The result of some row is unknown.
    FailedRows,
    /// The input has changed since it was planned.
    FileChanged,
    /// The run processes only a part of its rows.
    Limit,
}

impl Wait {
    /// The word in the summary and in the state.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Wait::Malformed => "malformed",
            Wait::FailedRows => "failed_rows",
            Wait::FileChanged => "file_changed",
            Wait::Limit => "limit",
        }
    }
}

/// An account for which a request is planned, or that is back in the input, in the order of UserIDs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedAccount {
    pub id: PaddedId,
    pub row: u64,
    /// What is sent; `None` if the account only reappeared: no request, but its count of missing runs is reset.
    pub sent: Option<AccountCall>,
    /// The account was missing or kicked, and the input contains it again.
    pub is_back: bool,
    /// What the import carries, also one that only becomes necessary because the service does not know the account.
    pub profile: ProfileHashes,
    /// The tags that are sent.
    pub tags: RecordTags,
    /// The other tags, which are sent only if the account has to be made anew.
    pub held_back: RecordTags,
}

/// An account that is missing in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissingAccount {
    pub id: PaddedId,
    pub last_imported: Option<i64>,
    /// Runs in a row in which it was missing, this one included.
    pub missing_runs: u32,
    pub due: PlannedAction,
    /// The first record that looks like it, even if the account is not spared for it.
    pub lookalike: Option<Lookalike>,
}

/// A valid UserID padded to a fixed size. It sorts like its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PaddedId([u8; USER_ID_MAX_BYTES]);

impl PaddedId {
    /// # Panics
    /// For more than [`USER_ID_MAX_BYTES`], which no valid UserID has.
    #[must_use]
    pub fn new(user_id: &[u8]) -> Self {
        let mut bytes = [0; USER_ID_MAX_BYTES];
        bytes[..user_id.len()].copy_from_slice(user_id);
        Self(bytes)
    }

    /// The id from bytes of [`Self::padded`].
    #[must_use]
    pub const fn from_padded(bytes: [u8; USER_ID_MAX_BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes with zeros behind them, which no UserID contains.
    #[must_use]
    pub const fn padded(&self) -> &[u8; USER_ID_MAX_BYTES] {
        &self.0
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        let len = self.0.iter().position(|byte| *byte == 0).unwrap_or(USER_ID_MAX_BYTES);
        &self.0[..len]
    }

    /// # Panics
    /// Never: a valid UserID is valid UTF-8.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("a valid UserID is valid UTF-8")
    }
}

/// The number of records per decision in a plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PlanCounts {
    pub create: u64,
    pub update: u64,
    pub unchanged: u64,
    pub invalid: u64,
    pub superseded: u64,
    pub missing: u64,
}

impl PlanCounts {
    pub fn count(&mut self, op: Op) {
        match op {
            Op::Create => self.create += 1,
            Op::Update(_) => self.update += 1,
            Op::Unchanged => self.unchanged += 1,
            Op::Invalid => self.invalid += 1,
            Op::Superseded => self.superseded += 1,
        }
    }

    /// The number of records in the input.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.create + self.update + self.unchanged + self.invalid + self.superseded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_as_their_bytes() {
        let ids = ["!", "a", "a!", "aa", "b", "~"];
        let mut padded = ids.map(|id| PaddedId::new(id.as_bytes()));
        padded.reverse();
        padded.sort_unstable();
        assert_eq!(padded.map(|id| id.as_str().to_owned()), ids);
        assert_eq!(PaddedId::new(&[b'x'; 32]).as_bytes(), [b'x'; 32]);
    }
}
