//! What a plan keeps of each record and each missing account, as bytes that sort by id.

use crate::domain::account::USER_ID_MAX_BYTES as ID;
use crate::domain::change::{AccountCall, MissingAccount, Op, PROFILE_BYTES, PaddedId, PlannedAccount, PlannedAction, ProfileHashes};
use crate::domain::known_tags::{RecordTags, TagsDigest};
use crate::domain::lookalike::Lookalike;
use crate::io::extsort::take;

/// Bytes of [`RecordDigest::to_bytes`].
pub(super) const DIGEST_BYTES: usize = ID + 9 + PROFILE_BYTES;
/// Bytes of [`RecordDigest::to_tagged_bytes`].
pub(super) const TAGGED_BYTES: usize = DIGEST_BYTES + 8;
/// Bytes of [`missing_to_bytes`].
pub(super) const MISSING_BYTES: usize = ID + 29;

/// A record with a valid UserID: sorts by it, then by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordDigest {
    pub(super) id: PaddedId,
    pub(super) row: u64,
    pub(super) tag: RecordTag,
    pub(super) profile: ProfileHashes,
    /// All its tags. It is only in the bytes for files with tags.
    pub(super) tags: TagsDigest,
}

/// What a digest says of its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordTag {
    Invalid,
    Valid,
    /// A call is made for it.
    Sent,
    /// Its account is there again.
    Back,
    /// Both.
    SentBack,
}

impl RecordTag {
    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => RecordTag::Invalid,
            1 => RecordTag::Valid,
            2 => RecordTag::Sent,
            3 => RecordTag::Back,
            _ => RecordTag::SentBack,
        }
    }
}

impl RecordDigest {
    pub(super) fn to_bytes(self) -> [u8; DIGEST_BYTES] {
        let mut bytes = [0; DIGEST_BYTES];
        bytes[..ID].copy_from_slice(self.id.padded());
        bytes[ID..ID + 8].copy_from_slice(&self.row.to_be_bytes());
        bytes[ID + 8] = self.tag as u8;
        bytes[ID + 9..].copy_from_slice(&self.profile.to_bytes());
        bytes
    }

    #[inline]
    pub(super) fn from_bytes(bytes: &[u8; DIGEST_BYTES]) -> Self {
        let mut rest = bytes.as_slice();
        let (id, row, [tag]) = (take(&mut rest), take(&mut rest), take(&mut rest));
        Self {
            id: PaddedId::from_padded(id),
            row: u64::from_be_bytes(row),
            tag: RecordTag::from_bits(tag),
            profile: ProfileHashes::from_bytes(&take(&mut rest)),
            tags: TagsDigest::default(),
        }
    }

    #[inline]
    pub(super) fn to_tagged_bytes(self) -> [u8; TAGGED_BYTES] {
        let mut bytes = [0; TAGGED_BYTES];
        bytes[..DIGEST_BYTES].copy_from_slice(&self.to_bytes());
        bytes[DIGEST_BYTES..].copy_from_slice(&self.tags.bits().to_be_bytes());
        bytes
    }

    /// # Panics
    /// Never: the lengths are constants that add up.
    #[inline]
    pub(super) fn from_tagged_bytes(bytes: &[u8; TAGGED_BYTES]) -> Self {
        let (digest, mut tags) = bytes.split_first_chunk().expect("the lengths are constants that add up");
        Self { tags: TagsDigest::from_bits(u64::from_be_bytes(take(&mut tags))), ..Self::from_bytes(digest) }
    }

    /// As the state takes it; `tags` are all that the record has.
    pub(super) fn planned(self, op: Op, tags: RecordTags) -> PlannedAccount {
        let (is_sent, is_back) = match self.tag {
            RecordTag::Invalid | RecordTag::Valid => (false, false),
            RecordTag::Sent => (true, false),
            RecordTag::Back => (false, true),
            RecordTag::SentBack => (true, true),
        };
        let account = if op.imports() { AccountCall::Imported } else { AccountCall::Left };
        let sent = is_sent.then_some(account);
        let held_back = if sent == Some(AccountCall::Left) { tags.clone().without(op.tags()) } else { RecordTags::default() };
        PlannedAccount { id: self.id, row: self.row, sent, is_back, profile: self.profile, tags: tags.only(op.tags()), held_back }
    }
}

pub(super) fn missing_to_bytes(missing: &MissingAccount) -> [u8; MISSING_BYTES] {
    let due = match missing.due {
        PlannedAction::Nothing => 0,
        PlannedAction::Protected => 1,
        PlannedAction::Kick => 2,
        PlannedAction::Delete => 3,
        PlannedAction::Lookalike => 4,
    };
    // Rows are counted from 1.
    let Lookalike { row, line } = missing.lookalike.unwrap_or(Lookalike { row: 0, line: 0 });
    let mut bytes = [0; MISSING_BYTES];
    bytes[..ID].copy_from_slice(missing.id.padded());
    bytes[ID..ID + 8].copy_from_slice(&missing.last_imported.unwrap_or(i64::MIN).to_be_bytes());
    bytes[ID + 8..ID + 12].copy_from_slice(&missing.missing_runs.to_be_bytes());
    bytes[ID + 12] = due;
    bytes[ID + 13..ID + 21].copy_from_slice(&row.to_be_bytes());
    bytes[ID + 21..].copy_from_slice(&line.to_be_bytes());
    bytes
}

pub(super) fn missing_from_bytes(bytes: &[u8; MISSING_BYTES]) -> MissingAccount {
    let mut rest = bytes.as_slice();
    let (id, last_imported, missing_runs) = (take(&mut rest), i64::from_be_bytes(take(&mut rest)), take(&mut rest));
    let due = match take(&mut rest) {
        [0] => PlannedAction::Nothing,
        [1] => PlannedAction::Protected,
        [2] => PlannedAction::Kick,
        [3] => PlannedAction::Delete,
        _ => PlannedAction::Lookalike,
    };
    let (row, line) = (u64::from_be_bytes(take(&mut rest)), u64::from_be_bytes(take(&mut rest)));
    let lookalike = (row > 0).then_some(Lookalike { row, line });
    let last_imported = (last_imported != i64::MIN).then_some(last_imported);
    MissingAccount { id: PaddedId::from_padded(id), last_imported, missing_runs: u32::from_be_bytes(missing_runs), due, lookalike }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_as_they_were_written_and_sort_by_id_then_row() {
        let digest = |id: &str, row, tag, nick, face_url| RecordDigest {
            id: PaddedId::new(id.as_bytes()),
            row,
            tag,
            profile: [nick, face_url].into(),
            tags: TagsDigest::default(),
        };
        let digests = [
            digest("a", 2, RecordTag::Sent, Some(0), None),
            digest("a", 300, RecordTag::Invalid, None, None),
            digest("a!", 1, RecordTag::Valid, None, Some(u64::MAX)),
            digest("b", 0, RecordTag::Back, Some(1), Some(2)),
            digest("c", 0, RecordTag::SentBack, Some(1), Some(2)),
        ];
        let bytes = digests.map(RecordDigest::to_bytes);
        assert!(bytes.is_sorted());
        assert_eq!(bytes.map(|bytes| RecordDigest::from_bytes(&bytes)), digests);
        let tagged = digests.map(|digest| RecordDigest { tags: TagsDigest::from_bits(u64::MAX - digest.row), ..digest });
        let bytes = tagged.map(RecordDigest::to_tagged_bytes);
        assert!(bytes.is_sorted());
        assert_eq!(bytes.map(|bytes| RecordDigest::from_tagged_bytes(&bytes)), tagged);
    }

    #[test]
    fn missing_accounts_are_read_as_they_were_written() {
        let id = PaddedId::new(b"u");
        for due in [PlannedAction::Nothing, PlannedAction::Protected, PlannedAction::Kick, PlannedAction::Delete, PlannedAction::Lookalike]
        {
            for last_imported in [None, Some(-1), Some(i64::MAX)] {
                for lookalike in [None, Some(Lookalike { row: 1, line: u64::MAX })] {
                    let missing = MissingAccount { id, last_imported, missing_runs: 7, due, lookalike };
                    assert_eq!(missing_from_bytes(&missing_to_bytes(&missing)), missing);
                }
            }
        }
    }
}
