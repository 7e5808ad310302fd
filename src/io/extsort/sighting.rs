//! A UserID and the row in which it occurred, as bytes that sort by UserID and then by row.

use xxhash_rust::xxh3::xxh3_128;

use super::Entry;

/// The length of a [`Sighting`] in bytes.
pub const SIGHTING: usize = 24;

/// An occurrence of a UserID. The UserID is known only by a 128-bit hash: among 100 million different UserIDs, the probability that any two
/// have the same hash is 1 to 10^22.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// Equal for equal UserIDs.
    pub hash: u128,
    pub row: u64,
}

impl Sighting {
    #[must_use]
    pub fn of(id: &[u8], row: u64) -> Self {
        Self { hash: xxh3_128(id), row }
    }

    #[must_use]
    pub fn to_bytes(self) -> Entry<SIGHTING> {
        let mut bytes = [0; SIGHTING];
        bytes[..16].copy_from_slice(&self.hash.to_be_bytes());
        bytes[16..].copy_from_slice(&self.row.to_be_bytes());
        bytes
    }

    /// # Panics
    /// Never: the lengths are constants that add up.
    #[must_use]
    pub fn from_bytes(bytes: &Entry<SIGHTING>) -> Self {
        let (hash, row) = bytes.split_first_chunk().expect("the lengths add up");
        let row = row.first_chunk().expect("the lengths add up");
        Self { hash: u128::from_be_bytes(*hash), row: u64::from_be_bytes(*row) }
    }
}
