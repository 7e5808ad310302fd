//! Maps and sets whose keys are hashes already, so that nothing hashes them once more.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// A map by keys that are one `u64`, evenly spread.
pub type HashedMap<K, V> = HashMap<K, V, BuildHasherDefault<IdentityHasher>>;

/// A set of the same.
pub type HashedSet<K> = HashSet<K, BuildHasherDefault<IdentityHasher>>;

/// Takes a key for its own hash.
#[derive(Debug, Clone, Default)]
pub struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }

    /// # Panics
    /// Always: a key is a `u64`.
    fn write(&mut self, _: &[u8]) {
        unreachable!("a key is a u64");
    }
}
