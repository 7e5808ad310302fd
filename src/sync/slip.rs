//! What a plan notes of each record and each missing account, in bytes that sort as they should.

use crate::account::USER_ID_MAX_BYTES as ID;
use crate::lookalike::Lookalike;
use crate::plan::{Due, Id, Missing, Planned, Profile};
use crate::state::{Sent, Settlement};

/// Bytes of [`Slip`].
pub(super) const SLIP: usize = ID + 25;
/// Bytes of [`missing_to_bytes`].
pub(super) const MISSING: usize = ID + 29;
/// Bytes of [`settlement_to_bytes`].
pub(super) const SETTLEMENT: usize = ID + 17;

const HAS_NICK: u8 = 0x80;
const HAS_FACE_URL: u8 = 0x40;

/// A record with a valid UserID: sorts by it, then by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slip {
    pub(super) id: Id,
    pub(super) row: u64,
    pub(super) tag: Tag,
    pub(super) profile: Profile,
}

/// What a slip says of its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    Invalid,
    Valid,
    /// A call is made for it.
    Sent,
    /// Its account is there again.
    Back,
    /// Both.
    SentBack,
}

impl Tag {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Tag::Invalid,
            1 => Tag::Valid,
            2 => Tag::Sent,
            3 => Tag::Back,
            _ => Tag::SentBack,
        }
    }
}

/// Takes the next `N` bytes.
pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    let (first, rest) = bytes.split_first_chunk().expect("the lengths are constants that add up");
    *bytes = rest;
    *first
}

impl Slip {
    pub(super) fn to_bytes(self) -> [u8; SLIP] {
        let mut bytes = [0; SLIP];
        let Profile { nick, face_url } = self.profile;
        let flags = if nick.is_some() { HAS_NICK } else { 0 } | if face_url.is_some() { HAS_FACE_URL } else { 0 };
        bytes[..ID].copy_from_slice(self.id.padded());
        bytes[ID..ID + 8].copy_from_slice(&self.row.to_be_bytes());
        bytes[ID + 8] = self.tag as u8 | flags;
        bytes[ID + 9..ID + 17].copy_from_slice(&nick.unwrap_or_default().to_be_bytes());
        bytes[ID + 17..].copy_from_slice(&face_url.unwrap_or_default().to_be_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8; SLIP]) -> Self {
        let mut rest = bytes.as_slice();
        let (id, row, [tag]) = (take(&mut rest), take(&mut rest), take(&mut rest));
        let (nick, face_url) = (u64::from_be_bytes(take(&mut rest)), u64::from_be_bytes(take(&mut rest)));
        Self {
            id: Id::from_padded(id),
            row: u64::from_be_bytes(row),
            tag: Tag::from_bits(tag & !(HAS_NICK | HAS_FACE_URL)),
            profile: Profile { nick: (tag & HAS_NICK != 0).then_some(nick), face_url: (tag & HAS_FACE_URL != 0).then_some(face_url) },
        }
    }

    /// As the state takes it.
    pub(super) fn planned(self) -> Planned {
        let (is_sent, is_back) = match self.tag {
            Tag::Invalid | Tag::Valid => (false, false),
            Tag::Sent => (true, false),
            Tag::Back => (false, true),
            Tag::SentBack => (true, true),
        };
        Planned { id: self.id, row: self.row, is_sent, is_back, profile: self.profile }
    }
}

pub(super) fn missing_to_bytes(missing: &Missing) -> [u8; MISSING] {
    let due = match missing.due {
        Due::Nothing => 0,
        Due::Protected => 1,
        Due::Kick => 2,
        Due::Delete => 3,
        Due::Lookalike => 4,
    };
    // Rows are counted from 1.
    let Lookalike { row, line } = missing.lookalike.unwrap_or(Lookalike { row: 0, line: 0 });
    let mut bytes = [0; MISSING];
    bytes[..ID].copy_from_slice(missing.id.padded());
    bytes[ID..ID + 8].copy_from_slice(&missing.last_imported.unwrap_or(i64::MIN).to_be_bytes());
    bytes[ID + 8..ID + 12].copy_from_slice(&missing.missing_runs.to_be_bytes());
    bytes[ID + 12] = due;
    bytes[ID + 13..ID + 21].copy_from_slice(&row.to_be_bytes());
    bytes[ID + 21..].copy_from_slice(&line.to_be_bytes());
    bytes
}

pub(super) fn missing_from_bytes(bytes: &[u8; MISSING]) -> Missing {
    let mut rest = bytes.as_slice();
    let (id, last_imported, missing_runs) = (take(&mut rest), i64::from_be_bytes(take(&mut rest)), take(&mut rest));
    let due = match take(&mut rest) {
        [0] => Due::Nothing,
        [1] => Due::Protected,
        [2] => Due::Kick,
        [3] => Due::Delete,
        _ => Due::Lookalike,
    };
    let (row, line) = (u64::from_be_bytes(take(&mut rest)), u64::from_be_bytes(take(&mut rest)));
    let lookalike = (row > 0).then_some(Lookalike { row, line });
    let last_imported = (last_imported != i64::MIN).then_some(last_imported);
    Missing { id: Id::from_padded(id), last_imported, missing_runs: u32::from_be_bytes(missing_runs), due, lookalike }
}

pub(super) fn settlement_to_bytes(settlement: &Settlement) -> [u8; SETTLEMENT] {
    let (kind, at) = match settlement.sent {
        Sent::Taken { at } => (0, at),
        Sent::Refused => (1, 0),
        Sent::Unknown => (2, 0),
    };
    let mut bytes = [0; SETTLEMENT];
    bytes[..ID].copy_from_slice(settlement.id.padded());
    bytes[ID..ID + 8].copy_from_slice(&settlement.row.to_be_bytes());
    bytes[ID + 8] = kind;
    bytes[ID + 9..].copy_from_slice(&at.to_be_bytes());
    bytes
}

pub(super) fn settlement_from_bytes(bytes: &[u8; SETTLEMENT]) -> Settlement {
    let mut rest = bytes.as_slice();
    let (id, row, [kind], at) = (take(&mut rest), take(&mut rest), take(&mut rest), i64::from_be_bytes(take(&mut rest)));
    let sent = match kind {
        0 => Sent::Taken { at },
        1 => Sent::Refused,
        _ => Sent::Unknown,
    };
    Settlement { id: Id::from_padded(id), row: u64::from_be_bytes(row), sent }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_read_as_they_were_written_and_sort_by_id_then_row() {
        let slip = |id: &str, row, tag, nick, face_url| Slip { id: Id::new(id.as_bytes()), row, tag, profile: Profile { nick, face_url } };
        let slips = [
            slip("a", 2, Tag::Sent, Some(0), None),
            slip("a", 300, Tag::Invalid, None, None),
            slip("a!", 1, Tag::Valid, None, Some(u64::MAX)),
            slip("b", 0, Tag::Back, Some(1), Some(2)),
            slip("c", 0, Tag::SentBack, Some(1), Some(2)),
        ];
        let bytes = slips.map(Slip::to_bytes);
        assert!(bytes.is_sorted());
        assert_eq!(bytes.map(|bytes| Slip::from_bytes(&bytes)), slips);
    }

    #[test]
    fn missing_accounts_and_settlements_are_read_as_they_were_written() {
        let id = Id::new(b"u");
        for due in [Due::Nothing, Due::Protected, Due::Kick, Due::Delete, Due::Lookalike] {
            for last_imported in [None, Some(-1), Some(i64::MAX)] {
                for lookalike in [None, Some(Lookalike { row: 1, line: u64::MAX })] {
                    let missing = Missing { id, last_imported, missing_runs: 7, due, lookalike };
                    assert_eq!(missing_from_bytes(&missing_to_bytes(&missing)), missing);
                }
            }
        }
        for sent in [Sent::Taken { at: 5 }, Sent::Refused, Sent::Unknown] {
            let settlement = Settlement { id, row: 9, sent };
            assert_eq!(settlement_from_bytes(&settlement_to_bytes(&settlement)), settlement);
        }
    }
}
