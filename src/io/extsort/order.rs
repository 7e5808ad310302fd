//! Sorts entries in memory by eight bytes at a time without moving the entries.

use super::Entry;

/// Up to this many entries, comparing whole entries is faster than by eight bytes. Chosen.
const FEW: usize = 8;

/// Eight bytes of an entry and its index.
#[derive(Debug, Clone, Copy)]
struct SortKey {
    bytes: u64,
    index: u32,
}

/// The indexes of the entries in sorted order. Its memory is reused.
#[derive(Debug, Default)]
pub(super) struct Order(Vec<SortKey>);

impl Order {
    /// Finds the order of entries that are not sorted yet.
    pub(super) fn find<const N: usize>(&mut self, entries: &[Entry<N>]) {
        self.0.clear();
        self.0.extend((0..).zip(entries).map(|(index, _)| SortKey { bytes: 0, index }));
        sort(entries, &mut self.0, 0);
    }

    /// The entries in the order that was found.
    pub(super) fn of<'a, const N: usize>(&'a self, entries: &'a [Entry<N>]) -> impl Iterator<Item = &'a Entry<N>> {
        self.0.iter().map(|key| &entries[key.index as usize])
    }
}

/// Sorts keys whose entries are equal up to `from`. A longer common prefix is skipped, so UserIDs that all begin alike are compared by the
/// first eight bytes that differ.
fn sort<const N: usize>(entries: &[Entry<N>], keys: &mut [SortKey], from: usize) {
    if keys.len() <= FEW {
        keys.sort_unstable_by_key(|key| &entries[key.index as usize]);
        return;
    }
    let first = &entries[keys[0].index as usize];
    let at = keys.iter().fold(N, |at, key| shared(&first[from..at.max(from)], &entries[key.index as usize][from..]) + from);
    if at == N {
        return;
    }
    for key in &mut *keys {
        key.bytes = word(&entries[key.index as usize][at..]);
    }
    keys.sort_unstable_by_key(|key| key.bytes);
    for same in keys.chunk_by_mut(|one, other| one.bytes == other.bytes).filter(|same| same.len() > 1) {
        sort(entries, same, (at + 8).min(N));
    }
}

/// Length of the common prefix.
pub(super) fn shared(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

/// The first eight bytes; a shorter entry is padded with zeros.
fn word(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(chunk) => u64::from_be_bytes(*chunk),
        None => (0..8).fold(0, |word, at| word << 8 | u64::from(bytes.get(at).copied().unwrap_or_default())),
    }
}
