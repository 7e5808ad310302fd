//! What the state knows of an account: the hashes of its profile, its tags, and what of it is in doubt.
//!
//! This module holds pure values and what a request changes in them; `io::state` stores them.

use xxhash_rust::xxh3::xxh3_64;

use crate::domain::known_tags::{KnownTags, TagHash, TagNumber};
use crate::domain::profile::{FieldSet, PerField, ProfileField};

/// The profile of an account as a hash (XXH3, 64 bits) per field; `None` for a field that is unknown or not given.
pub type ProfileHashes = PerField<Option<u64>>;

/// Length of [`ProfileHashes::to_bytes`] in bytes.
pub const PROFILE_BYTES: usize = 1 + 8 * ProfileField::ALL.len();

impl ProfileHashes {
    /// The hashes of a record's fields.
    #[inline]
    #[must_use]
    pub fn of(said: PerField<Option<&str>>) -> Self {
        Self::new(|field| said[field].map(|text| xxh3_64(text.as_bytes())))
    }

    /// A fixed number of bytes: a bit for each field that is present, then the hashes.
    #[inline]
    #[must_use]
    pub fn to_bytes(self) -> [u8; PROFILE_BYTES] {
        let mut bytes = [0; PROFILE_BYTES];
        bytes[0] = FieldSet::of(|field| self[field].is_some()).bits();
        for ((_, hash), place) in self.iter().zip(bytes[1..].chunks_exact_mut(8)) {
            place.copy_from_slice(&hash.unwrap_or_default().to_be_bytes());
        }
        bytes
    }

    /// The hashes from bytes of [`ProfileHashes::to_bytes`].
    #[inline]
    #[must_use]
    pub fn from_bytes(bytes: &[u8; PROFILE_BYTES]) -> Self {
        let (known, mut hashes) = (FieldSet::from_bits(bytes[0]), bytes[1..].chunks_exact(8));
        Self::new(|field| {
            let hash = hashes.next().and_then(|hash| hash.first_chunk()).copied().map(u64::from_be_bytes);
            hash.filter(|_| known.has(field))
        })
    }

    /// The profile after `sent` was accepted; a field that was not sent keeps its value.
    #[must_use]
    pub fn overlaid(self, sent: ProfileHashes) -> Self {
        Self::new(|field| sent[field].or(self[field]))
    }
}

/// The parts of an account that are in doubt: a request has left, or was about to, and its result is unknown. A set of bits, as the state
/// stores it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct InDoubt(u8);

impl InDoubt {
    pub const NOTHING: Self = Self(0);
    /// Whether the account exists: its first import may not have been accepted.
    pub const EXISTENCE: Self = Self(4);
    /// Whether it was kicked.
    pub const KICK: Self = Self(8);
    /// Whether it was deleted.
    pub const DELETION: Self = Self(16);

    #[must_use]
    pub const fn of_field(field: ProfileField) -> Self {
        Self(field.spec().doubt_bit)
    }

    /// The fields that are present in `profile`.
    #[must_use]
    pub fn of_fields(profile: ProfileHashes) -> Self {
        let known = profile.iter().filter(|(_, hash)| hash.is_some());
        known.fold(Self::NOTHING, |all, (field, _)| all.and(Self::of_field(field)))
    }

    /// Everything that is known of an account; its existence if nothing else is known.
    #[must_use]
    pub fn of_all(held: &KnownAccount) -> Self {
        let fields = Self::of_fields(held.profile);
        if fields.is_nothing() || held.last_imported.is_none() { fields.and(Self::EXISTENCE) } else { fields }
    }

    #[must_use]
    pub const fn is_nothing(self) -> bool {
        self.0 == 0
    }

    /// Whether everything in `other` is in doubt.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
}

/// An account as the state knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownAccount {
    pub profile: ProfileHashes,
    /// The last import in milliseconds since the epoch; `None` if no import is known.
    pub last_imported: Option<i64>,
    /// Finished runs in a row whose input had no record of the account.
    pub missing_runs: u32,
    /// What of the account itself is in doubt; doubt about tags is theirs.
    pub in_doubt: InDoubt,
    /// The account was kicked and has not been in an input since.
    pub is_kicked: bool,
    /// The start, in milliseconds since the epoch, of the run that last raised `missing_runs`. `None` if no run has, or an older version
    /// did not record it.
    pub raised_at: Option<i64>,
    pub tags: KnownTags,
}

/// Whether an update imports the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AccountCall {
    Imported,
    /// Only tags are set.
    Left,
}

/// What the requests for a record carry.
#[derive(Debug, Clone, Copy)]
pub struct Carried<'a> {
    pub account: AccountCall,
    /// Fields of the import; none if there is none.
    pub profile: ProfileHashes,
    pub tags: &'a [(TagNumber, TagHash)],
}

impl KnownAccount {
    /// Whether anything of it is in doubt.
    #[inline]
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        !self.in_doubt.is_nothing() || self.tags.are_in_doubt()
    }

    /// Whether the service is known to have the account: it has taken an import, or tags, which only an account that is there can have.
    #[inline]
    #[must_use]
    pub fn is_there(&self) -> bool {
        let has_tags = || self.tags.iter().any(|tag| !tag.in_doubt && tag.hash.is_some());
        self.last_imported.is_some() || (!self.in_doubt.has(InDoubt::EXISTENCE) && has_tags())
    }

    /// The account while everything that is known of it is in doubt.
    #[must_use]
    pub fn doubted(mut self) -> Self {
        self.in_doubt = self.in_doubt.and(InDoubt::of_all(&self));
        self.tags.doubt_all();
        self
    }

    /// The account after the requests for a record were accepted at this time.
    #[must_use]
    pub fn once_taken(before: Option<Self>, carried: Carried, at: i64) -> Self {
        let mut held = Self::once_imported(before, carried, at);
        carried.tags.iter().for_each(|(number, hash)| held.tags.set(*number, *hash));
        held
    }

    /// The account after the import of a record was accepted at this time, and nothing has come of its tags. What the import did not carry
    /// stays in doubt. If a deletion may have happened before, the import may have created a new account without it.
    #[must_use]
    pub fn once_imported(before: Option<Self>, carried: Carried, at: i64) -> Self {
        let KnownAccount { profile, mut in_doubt, mut tags, last_imported, .. } = before.unwrap_or_default();
        let seen = KnownAccount { missing_runs: 0, is_kicked: false, raised_at: None, ..KnownAccount::default() };
        if carried.account == AccountCall::Left {
            return KnownAccount { profile, last_imported, in_doubt, tags, ..seen };
        }
        if in_doubt.has(InDoubt::DELETION) {
            in_doubt = in_doubt.and(InDoubt::of_fields(profile));
            tags.doubt_all();
        }
        let settled = InDoubt::of_fields(carried.profile).and(InDoubt::EXISTENCE).and(InDoubt::KICK).and(InDoubt::DELETION);
        let profile = profile.overlaid(carried.profile);
        KnownAccount { profile, in_doubt: in_doubt.without(settled), tags, last_imported: Some(at), ..seen }
    }

    /// The account while it is unknown whether the requests for a record were accepted.
    #[must_use]
    pub fn once_sent(before: Option<Self>, carried: Carried) -> Self {
        let mut held = Self::once_tags_sent(before.unwrap_or_default(), carried);
        if carried.account == AccountCall::Left {
            return held;
        }
        held.in_doubt = held.in_doubt.and(InDoubt::of_fields(carried.profile));
        if held.last_imported.is_none() || held.in_doubt.is_nothing() {
            held.in_doubt = held.in_doubt.and(InDoubt::EXISTENCE);
        }
        held
    }

    /// The account while it is unknown whether its tags were accepted.
    #[must_use]
    pub fn once_tags_sent(mut held: Self, carried: Carried) -> Self {
        carried.tags.iter().for_each(|(number, _)| held.tags.doubt(*number));
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::known_tags::KnownTag;

    const NICK: InDoubt = InDoubt::of_field(ProfileField::Nick);
    const FACE_URL: InDoubt = InDoubt::of_field(ProfileField::FaceUrl);

    fn imports(fields: [Option<&str>; 2]) -> Carried<'static> {
        Carried { account: AccountCall::Imported, profile: ProfileHashes::of(fields.into()), tags: &[] }
    }

    fn held(nick: Option<&str>, face_url: Option<&str>) -> KnownAccount {
        KnownAccount { profile: ProfileHashes::of([nick, face_url].into()), last_imported: Some(1), ..KnownAccount::default() }
    }

    #[test]
    fn an_accepted_request_ends_the_doubt_only_about_what_it_carried() {
        let (nick, face, both) = (NICK, FACE_URL, NICK.and(FACE_URL));
        let check = |in_doubt: InDoubt, sent: [Option<&str>; 2], [taken, unknown]: [InDoubt; 2]| {
            let before = Some(KnownAccount { in_doubt, ..held(Some("n"), Some("f")) });
            let sent = imports(sent);
            assert_eq!(KnownAccount::once_taken(before.clone(), sent, 2).in_doubt, taken, "{in_doubt:?} {sent:?}");
            assert_eq!(KnownAccount::once_sent(before, sent).in_doubt, unknown, "{in_doubt:?} {sent:?}");
        };
        check(InDoubt::NOTHING, [Some("m"), None], [InDoubt::NOTHING, nick]);
        check(InDoubt::NOTHING, [None, None], [InDoubt::NOTHING, InDoubt::EXISTENCE]);
        check(both, [Some("m"), None], [face, both]);
        check(both, [None, Some("g")], [nick, both]);
        check(both, [None, None], [both, both]);
        check(both.and(InDoubt::EXISTENCE), [Some("m"), Some("f")], [InDoubt::NOTHING, both.and(InDoubt::EXISTENCE)]);
        check(InDoubt::KICK, [Some("m"), None], [InDoubt::NOTHING, nick.and(InDoubt::KICK)]);
        // This request may have created a new account.
        check(InDoubt::DELETION, [Some("m"), None], [face, nick.and(InDoubt::DELETION)]);
        let new = KnownAccount::once_sent(None, imports([Some("n"), None]));
        assert_eq!((new.in_doubt, new.last_imported), (nick.and(InDoubt::EXISTENCE), None));
        assert_eq!(KnownAccount::once_taken(Some(new), imports([None, Some("f")]), 2).in_doubt, nick);
    }

    #[test]
    fn each_call_settles_what_it_carried_and_nothing_else() {
        let number = |number: i64| TagNumber::new(number).unwrap();
        let hash = |bits| TagHash::from_bits(bits).unwrap();
        let known = |tags: &[(i64, u64, bool)]| -> KnownTags {
            tags.iter()
                .map(|(tag, bits, in_doubt)| KnownTag { number: number(*tag), hash: TagHash::from_bits(*bits), in_doubt: *in_doubt })
                .collect()
        };
        let before = KnownAccount { tags: known(&[(1, 10, false), (2, 20, true)]), missing_runs: 2, ..held(Some("n"), Some("f")) };
        let tags = [(number(2), hash(21)), (number(3), hash(31))];
        let both = Carried { tags: &tags, ..imports([Some("m"), None]) };
        let alone = Carried { account: AccountCall::Left, profile: ProfileHashes::default(), tags: &tags };
        let nick = |nick| KnownAccount {
            profile: ProfileHashes::of([Some(nick), Some("f")].into()),
            last_imported: Some(2),
            missing_runs: 0,
            ..before.clone()
        };
        let settled = known(&[(1, 10, false), (2, 21, false), (3, 31, false)]);
        let doubted = known(&[(1, 10, false), (2, 20, true), (3, 0, true)]);
        assert_eq!(KnownAccount::once_taken(Some(before.clone()), both, 2), KnownAccount { tags: settled.clone(), ..nick("m") });
        let untouched = KnownAccount { missing_runs: 0, ..before.clone() };
        assert_eq!(KnownAccount::once_taken(Some(before.clone()), alone, 2), KnownAccount { tags: settled, ..untouched.clone() });
        // The import was accepted, what came of the tags is not known, or they were refused.
        let imported = KnownAccount::once_imported(Some(before.clone()), both, 2);
        assert_eq!((&imported, KnownAccount::once_imported(Some(before.clone()), alone, 2)), (&nick("m"), untouched));
        assert_eq!(KnownAccount::once_tags_sent(imported, both), KnownAccount { tags: doubted.clone(), ..nick("m") });
        // Nothing is known of either.
        assert_eq!(
            KnownAccount::once_sent(Some(before.clone()), both),
            KnownAccount { in_doubt: NICK, tags: doubted.clone(), ..before.clone() }
        );
        assert_eq!(KnownAccount::once_sent(Some(before.clone()), alone), KnownAccount { tags: doubted, ..before.clone() });
        // This import may have created a new account, which has no tags.
        let deleted = KnownAccount { in_doubt: InDoubt::DELETION, ..before.clone() };
        let taken = KnownAccount::once_taken(Some(deleted), both, 2);
        assert_eq!((taken.in_doubt, taken.tags), (FACE_URL, known(&[(1, 10, true), (2, 21, false), (3, 31, false)])));
        let all = before.doubted();
        assert_eq!((all.in_doubt, all.tags), (NICK.and(FACE_URL), known(&[(1, 10, true), (2, 20, true)])));
    }
}
