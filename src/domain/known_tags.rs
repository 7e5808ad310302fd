//! The tags of accounts and records by their hashes: what a state knows of them, and how both are compared.
//!
//! A run counts the tags that it reads from 0, in the order of its columns: such a number is a tag's place. A state gives each tag a number
//! of its own, which it keeps for good.

use std::num::NonZeroU64;

use xxhash_rust::xxh3::xxh3_64;

use super::tag::{Tag, TagValueRef};

/// The most tags that a run may read. Chosen: more than the documentation lets an app have, and they fit into a machine word.
pub const TAGS_MAX: usize = 64;
/// Bytes of an entry of [`KnownTags::to_bytes`]: the number with the flags in front of it, then the hash.
const ENTRY_BYTES: usize = 10;
/// Flags of an entry, in front of its number.
const IN_DOUBT: u16 = 1 << 15;
const IS_KNOWN: u16 = 1 << 14;
const NUMBER: u16 = IS_KNOWN - 1;

/// The hash (XXH3, 64 bits) of a value as it is sent. It is never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TagHash(NonZeroU64);

impl TagHash {
    #[inline]
    #[must_use]
    pub fn of(value: TagValueRef) -> Self {
        let hash = match value {
            TagValueRef::Text(text) => xxh3_64(text.as_bytes()),
            TagValueRef::Number(number) => xxh3_64(&number.to_be_bytes()),
        };
        Self(NonZeroU64::new(hash).unwrap_or(NonZeroU64::MIN))
    }

    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0.get()
    }

    /// The hash from [`TagHash::bits`]; 0 is none.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        match NonZeroU64::new(bits) {
            Some(bits) => Some(Self(bits)),
            None => None,
        }
    }
}

/// Tells the same value of two tags apart where the values of several tags are added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TagKey(u64);

impl TagKey {
    #[must_use]
    pub fn of(tag: &Tag) -> Self {
        Self(xxh3_64(tag.wire_name().as_bytes()))
    }
}

/// All tags of an account in one number: equal if they are the same tags with the same values, in whatever order they were added. 0 if there
/// are none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TagsDigest(u64);

impl TagsDigest {
    /// With one more tag.
    #[inline]
    #[must_use]
    pub const fn with(self, key: TagKey, hash: TagHash) -> Self {
        // The finalizer of MurmurHash3: each bit of the hash reaches all others, so that sums do not show which hashes they are made of.
        let mut mixed = hash.bits() ^ key.0;
        mixed = (mixed ^ mixed >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed = (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        Self(self.0.wrapping_add(mixed ^ mixed >> 33))
    }

    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

/// Some of the tags that a run reads, by their places.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TagSet(u64);

impl TagSet {
    pub const NONE: Self = Self(0);

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub const fn has(self, place: usize) -> bool {
        place < TAGS_MAX && self.0 & (1 << place) != 0
    }

    /// With this place, which must be less than [`TAGS_MAX`].
    #[must_use]
    pub const fn with(self, place: usize) -> Self {
        if place < TAGS_MAX { Self(self.0 | 1 << place) } else { self }
    }

    /// The places in order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..TAGS_MAX).filter(move |place| self.has(*place))
    }

    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of these are in `other`.
    #[must_use]
    pub const fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }
}

impl FromIterator<usize> for TagSet {
    fn from_iter<I: IntoIterator<Item = usize>>(places: I) -> Self {
        places.into_iter().fold(Self::NONE, Self::with)
    }
}

/// The tags of a record: a hash, or none, for each tag that its run reads. Empty if the run reads none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordTags(Vec<Option<TagHash>>);

impl RecordTags {
    /// Those that are present, with their places.
    pub fn iter(&self) -> impl Iterator<Item = (usize, TagHash)> {
        self.0.iter().enumerate().filter_map(|(place, hash)| hash.map(|hash| (place, hash)))
    }

    /// The places of those that are present.
    #[must_use]
    pub fn present(&self) -> TagSet {
        self.iter().map(|(place, _)| place).collect()
    }

    #[must_use]
    pub fn get(&self, place: usize) -> Option<TagHash> {
        self.0.get(place).copied().flatten()
    }

    /// Only those that are in the set.
    #[must_use]
    pub fn only(mut self, set: TagSet) -> Self {
        self.0.iter_mut().enumerate().filter(|(place, _)| !set.has(*place)).for_each(|(_, hash)| *hash = None);
        self
    }

    /// Only those that are not in the set.
    #[must_use]
    pub fn without(self, set: TagSet) -> Self {
        let others = self.present().without(set);
        self.only(others)
    }

    /// The tags from eight bytes for each that the run reads: its hash, or 0 for none.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let hashes = bytes.chunks_exact(8).filter_map(|bytes| bytes.first_chunk());
        Self(hashes.map(|bytes| TagHash::from_bits(u64::from_be_bytes(*bytes))).collect())
    }
}

impl FromIterator<Option<TagHash>> for RecordTags {
    /// In the order of the run's columns.
    fn from_iter<I: IntoIterator<Item = Option<TagHash>>>(hashes: I) -> Self {
        Self(hashes.into_iter().collect())
    }
}

/// The number by which a state knows a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TagNumber(u16);

impl TagNumber {
    /// `None` beyond the 16,383 tags that a state can know.
    #[must_use]
    pub fn new(number: i64) -> Option<Self> {
        u16::try_from(number).ok().filter(|number| *number <= NUMBER).map(Self)
    }

    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// What a state knows of one tag of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownTag {
    pub number: TagNumber,
    /// `None` if it is only in doubt.
    pub hash: Option<TagHash>,
    /// A request that carries it has left, or was about to, and its result is unknown.
    pub in_doubt: bool,
}

/// What a state knows of the tags of an account, in order of their numbers. Without tags it takes no memory of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownTags(Vec<KnownTag>);

impl KnownTags {
    pub fn iter(&self) -> impl Iterator<Item = &KnownTag> {
        self.0.iter()
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[must_use]
    pub fn get(&self, number: TagNumber) -> Option<&KnownTag> {
        self.0.binary_search_by_key(&number, |tag| tag.number).ok().map(|at| &self.0[at])
    }

    /// Whether one of them is in doubt.
    #[inline]
    #[must_use]
    pub fn are_in_doubt(&self) -> bool {
        self.0.iter().any(|tag| tag.in_doubt)
    }

    /// Notes that the service has this value.
    pub fn set(&mut self, number: TagNumber, hash: TagHash) {
        *self.entry(number) = KnownTag { number, hash: Some(hash), in_doubt: false };
    }

    /// Notes that nobody knows which value the service has.
    pub fn doubt(&mut self, number: TagNumber) {
        self.entry(number).in_doubt = true;
    }

    /// Notes that nobody knows which values the service has of the known tags.
    pub fn doubt_all(&mut self) {
        self.0.iter_mut().for_each(|tag| tag.in_doubt = true);
    }

    fn entry(&mut self, number: TagNumber) -> &mut KnownTag {
        let at = match self.0.binary_search_by_key(&number, |tag| tag.number) {
            Ok(at) => at,
            Err(at) => {
                self.0.insert(at, KnownTag { number, hash: None, in_doubt: false });
                at
            }
        };
        &mut self.0[at]
    }

    /// As a state stores them.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() * ENTRY_BYTES);
        for KnownTag { number, hash, in_doubt } in &self.0 {
            let flags = if *in_doubt { IN_DOUBT } else { 0 } | if hash.is_some() { IS_KNOWN } else { 0 };
            bytes.extend_from_slice(&(number.get() | flags).to_be_bytes());
            bytes.extend_from_slice(&hash.map_or(0, TagHash::bits).to_be_bytes());
        }
        bytes
    }

    /// Reads bytes of [`KnownTags::to_bytes`]; what was here before is gone, but for its memory.
    #[inline]
    pub fn read(&mut self, bytes: &[u8]) {
        self.0.clear();
        self.0.extend(bytes.chunks_exact(ENTRY_BYTES).map(|entry| {
            let head = u16::from_be_bytes([entry[0], entry[1]]);
            let hash = entry[2..].first_chunk().map_or(0, |hash| u64::from_be_bytes(*hash));
            let hash = TagHash::from_bits(hash).filter(|_| head & IS_KNOWN != 0);
            KnownTag { number: TagNumber(head & NUMBER), hash, in_doubt: head & IN_DOUBT != 0 }
        }));
    }
}

impl FromIterator<KnownTag> for KnownTags {
    fn from_iter<I: IntoIterator<Item = KnownTag>>(tags: I) -> Self {
        let mut known: Vec<KnownTag> = tags.into_iter().collect();
        known.sort_unstable_by_key(|tag| tag.number);
        Self(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(text: &str) -> TagHash {
        TagHash::of(TagValueRef::Text(text))
    }

    fn number(number: u16) -> TagNumber {
        TagNumber::new(number.into()).unwrap()
    }

    #[test]
    fn known_tags_are_read_as_they_were_written_and_stay_in_order() {
        let mut tags = KnownTags::default();
        tags.doubt(number(16_383));
        tags.set(number(3), hash("x"));
        tags.set(number(1), TagHash::of(TagValueRef::Number(20_190_419)));
        tags.doubt(number(3));
        tags.set(number(2), hash(""));
        assert_eq!(tags.iter().map(|tag| tag.number.get()).collect::<Vec<_>>(), [1, 2, 3, 16_383]);
        let mut read = tags.clone();
        read.doubt_all();
        read.read(&tags.to_bytes());
        assert_eq!(read, tags);
        let doubts: Vec<(bool, bool)> = tags.iter().map(|tag| (tag.hash.is_some(), tag.in_doubt)).collect();
        assert_eq!(doubts, [(true, false), (true, false), (true, true), (false, true)]);
        tags.set(number(16_383), hash("y"));
        tags.set(number(3), hash("x"));
        assert!(!tags.are_in_doubt() && tags.get(number(4)).is_none() && tags.get(number(3)).is_some());
        assert_eq!((TagNumber::new(16_384), TagNumber::new(-1)), (None, None));
        assert!(KnownTags::default().to_bytes().is_empty());
    }

    #[test]
    fn tags_are_the_same_if_each_has_the_same_value() {
        let digest = |tags: &[(&str, &str)]| {
            tags.iter().fold(TagsDigest::default(), |sum, (tag, value)| sum.with(TagKey::of(&Tag::parse(tag).unwrap()), hash(value)))
        };
        let one = digest(&[("Custom.A", "x"), ("Custom.B", "y")]);
        assert_eq!(one, digest(&[("Custom.B", "y"), ("Custom.A", "x")]));
        for other in [&[("Custom.A", "y"), ("Custom.B", "x")][..], &[("Custom.A", "x")], &[("Custom.A", "x"), ("Custom.B", "Y")], &[]] {
            assert_ne!(one, digest(other), "{other:?}");
        }
    }

    #[test]
    fn a_record_says_which_tags_it_has() {
        let tags: RecordTags = [None, Some(hash("x")), None, Some(hash("y"))].into_iter().collect();
        assert_eq!(tags.present().iter().collect::<Vec<_>>(), [1, 3]);
        assert_eq!(tags.clone().only(TagSet::NONE.with(3)).iter().collect::<Vec<_>>(), [(3, hash("y"))]);
        let bytes: Vec<u8> = [0, hash("x").bits(), 0, hash("y").bits()].iter().flat_map(|bits| bits.to_be_bytes()).collect();
        assert_eq!(RecordTags::from_bytes(&bytes), tags);
    }
}
