//! Ids that occur again, to the letter or but for case, found in flat memory by one external sort.

use std::collections::BTreeSet;
use std::io;

use xxhash_rust::xxh3::xxh3_128;

use crate::domain::account::{USER_ID_MAX_BYTES, has_capitals};
use crate::domain::oddity::{OddPlace, PLACES};
use crate::io::extsort::{ExternalSorter, OpenSpill};

/// Bytes of an entry: two hashes, a row and a line.
const ENTRY: usize = 8 + 6 + 5 + 5;

/// Where an id stands. It is known by a hash of its lower case and 48 bits of one of its own: among 100 million ids, the odds that any two are
/// taken for one are 1 to 10^18, and that two are taken for twins 1 to 3,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdEntry {
    lower: u64,
    exact: u64,
    pub place: OddPlace,
}

impl IdEntry {
    #[expect(clippy::cast_possible_truncation, reason = "either half of the hash is one")]
    fn new(id: &str, place: OddPlace) -> Self {
        let exact = xxh3_128(id.as_bytes());
        let lower = if has_capitals(id.as_bytes()) { lower_hash(id) } else { exact };
        Self { lower: lower as u64, exact: (exact >> 80) as u64, place }
    }

    /// Rows and lines have 40 bits: a file with more of them has more than a terabyte.
    fn to_bytes(self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        bytes[..8].copy_from_slice(&self.lower.to_be_bytes());
        bytes[8..14].copy_from_slice(&self.exact.to_be_bytes()[2..]);
        bytes[14..19].copy_from_slice(&self.place.row.to_be_bytes()[3..]);
        bytes[19..].copy_from_slice(&self.place.line.to_be_bytes()[3..]);
        bytes
    }

    fn from_bytes(bytes: &[u8; ENTRY]) -> Self {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let place = OddPlace { row: number(&bytes[14..19]), line: number(&bytes[19..]) };
        Self { lower: number(&bytes[..8]), exact: number(&bytes[8..14]), place }
    }
}

/// The hash of an id's lower case.
fn lower_hash(id: &str) -> u128 {
    let mut bytes = [0; USER_ID_MAX_BYTES];
    match bytes.get_mut(..id.len()).filter(|_| id.is_ascii()) {
        Some(bytes) => {
            bytes.copy_from_slice(id.as_bytes());
            bytes.make_ascii_lowercase();
            xxh3_128(bytes)
        }
        None => xxh3_128(id.to_lowercase().as_bytes()),
    }
}

/// Ids that differ from an earlier one only in case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CaseTwins {
    pub count: u64,
    /// The first of them, where each stands first.
    pub first: BTreeSet<OddPlace>,
}

/// Takes ids with their places.
#[expect(missing_debug_implementations, reason = "it holds a closure")]
pub struct IdSorter(ExternalSorter<ENTRY>);

impl IdSorter {
    #[must_use]
    pub fn new(open: OpenSpill) -> Self {
        Self(ExternalSorter::new(open))
    }

    /// One that spills after so many.
    #[cfg(test)]
    pub(super) fn with_runs_of(entries: usize, open: OpenSpill) -> Self {
        Self(ExternalSorter::with_runs_of(entries, open))
    }

    /// # Errors
    /// The disk's.
    pub fn push(&mut self, id: &str, place: OddPlace) -> io::Result<()> {
        self.0.push(IdEntry::new(id, place).to_bytes())
    }

    /// Shows each id that has occurred before, with the place before it; returns the twins.
    ///
    /// # Errors
    /// The disk's.
    pub fn finish(self, mut repeated: impl FnMut(IdEntry, OddPlace)) -> io::Result<CaseTwins> {
        let mut twins = CaseTwins::default();
        // The last entry, and the earliest place of its twins and its own.
        let mut last: Option<(IdEntry, OddPlace)> = None;
        for entry in self.0.finish()? {
            let entry = IdEntry::from_bytes(&entry?);
            let earliest = match last {
                Some((before, earliest)) if before.lower == entry.lower && before.exact == entry.exact => {
                    repeated(entry, before.place);
                    earliest
                }
                Some((before, earliest)) if before.lower == entry.lower => {
                    twins.add(earliest.max(entry.place));
                    earliest.min(entry.place)
                }
                Some(_) | None => entry.place,
            };
            last = Some((entry, earliest));
        }
        Ok(twins)
    }
}

/// Whether there may be twins among ids at all: those that have their capitals at the same places are the same one, or no twins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Capitals {
    /// No id had a letter so far.
    #[default]
    NoLetters,
    /// Bit by bit, which bytes of all ids with letters are capitals.
    Alike(u32),
    Unlike,
}

impl Capitals {
    #[inline]
    pub fn see(&mut self, id: &str) {
        // So it is in most files.
        if *self != Capitals::Alike(0) || has_capitals(id.as_bytes()) {
            self.see_other(id);
        }
    }

    fn see_other(&mut self, id: &str) {
        if *self == Capitals::Unlike {
            return;
        }
        let places = if id.is_ascii() {
            let capital = |(byte, bit): (u8, u32)| u32::from(byte.is_ascii_uppercase()) << bit;
            let capitals = id.bytes().zip((0..u32::BITS).rev()).map(capital).fold(0, |places, capital| places | capital);
            id.bytes().any(|byte| byte.is_ascii_alphabetic()).then_some(capitals)
        } else {
            // What has capitals outside of ASCII may be the twin of anything.
            Some(if id.to_lowercase() == id { 0 } else { u32::MAX })
        };
        *self = match (*self, places) {
            (before, None) => before,
            (Capitals::NoLetters, Some(places)) if places != u32::MAX => Capitals::Alike(places),
            (Capitals::Alike(before), Some(places)) if before == places => Capitals::Alike(before),
            (Capitals::NoLetters | Capitals::Alike(_) | Capitals::Unlike, Some(_)) => Capitals::Unlike,
        };
    }
}

impl IdEntry {
    /// Whether both are of the same id.
    #[must_use]
    pub fn is_same_id(&self, other: &Self) -> bool {
        (self.lower, self.exact) == (other.lower, other.exact)
    }
}

impl CaseTwins {
    fn add(&mut self, place: OddPlace) {
        self.count += 1;
        self.first.insert(place);
        if self.first.len() > PLACES {
            self.first.pop_last();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn twins(ids: &[&str]) -> (u64, Vec<u64>) {
        let mut sorter = IdSorter::with_runs_of(3, Box::new(tempfile::tempfile));
        (1..).zip(ids).for_each(|(row, id)| sorter.push(id, OddPlace { row, line: row + 1 }).unwrap());
        let found = sorter.finish(|_, _| ()).unwrap();
        assert!(found.first.iter().all(|place| place.line == place.row + 1));
        let mut capitals = Capitals::default();
        for id in ids {
            capitals.see(id);
        }
        assert!(found.count == 0 || capitals == Capitals::Unlike, "{ids:?}");
        (found.count, found.first.into_iter().map(|place| place.row).collect())
    }

    #[test]
    fn twins_are_ids_that_differ_from_an_earlier_one_only_in_case() {
        assert_eq!(twins(&["a", "b", "a", "c"]), (0, vec![]));
        assert_eq!(twins(&["a", "A"]), (1, vec![2]));
        assert_eq!(twins(&["Ab", "c", "aB", "AB", "ab", "Ab", "C"]), (4, vec![3, 4, 5]));
        assert_eq!(twins(&["É", "é", "e"]), (1, vec![2]));
        assert_eq!(twins(&["1", "-2", "1", "3", "雷"]), (0, vec![]), "without letters there are no cases");
        assert_eq!(twins(&["é", "É", "雷", "10"]), (1, vec![2]));
        assert_eq!(twins(&["User", "user2", "user", "USER2"]), (2, vec![3, 4]));
    }

    #[test]
    fn ids_with_their_capitals_at_the_same_places_are_no_twins() {
        let check = |ids: &[&str], expected: Capitals| {
            let mut capitals = Capitals::default();
            for id in ids {
                capitals.see(id);
            }
            assert_eq!(capitals, expected, "{ids:?}");
        };
        check(&["1", "22", "-"], Capitals::NoLetters);
        check(&["user1", "22", "é", "雷", "", "abcdefghijklmnopqrstuvwxyz012345"], Capitals::Alike(0));
        check(&["User1", "22", "Adm", "User"], Capitals::Alike(1 << 31));
        check(&["User1", "22", "user1"], Capitals::Unlike);
        check(&["user1", "user2", "useR"], Capitals::Unlike);
        check(&["uSer", "User"], Capitals::Unlike);
        check(&["É"], Capitals::Unlike);
        check(&["é", "É", "é"], Capitals::Unlike);
        check(&["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"; 2], Capitals::Unlike);
    }

    #[test]
    fn entries_are_read_as_they_were_written() {
        let entry = IdEntry::new("Ab", OddPlace { row: (1 << 40) - 1, line: 1 << 39 });
        assert_eq!(IdEntry::from_bytes(&entry.to_bytes()), entry);
    }
}
