//! Ids that occur again, to the letter or but for case, found in flat memory by one external sort.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::domain::oddity::{OddPlace, PLACES};
use crate::io::extsort::{ExternalSorter, OpenSpill, ScratchList};

/// Bytes of an entry: two hashes, a row and a line.
const ENTRY: usize = 8 + 6 + 5 + 5;
/// Another hash than that of the lower case. Chosen.
const EXACT_SEED: u64 = 0x6c69_6674;

/// Where an id stands. It is known by a hash of its lower case and 48 bits of one of its own: among 100 million ids, the odds that any two are
/// taken for one are 1 to 10^18, and that two are taken for twins 1 to 3,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdEntry {
    lower: u64,
    exact: u64,
    pub place: OddPlace,
}

impl IdEntry {
    fn new(id: &str, place: OddPlace) -> Self {
        let lower =
            if id.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) { Cow::Borrowed(id) } else { id.to_lowercase().into() };
        Self { lower: xxh3_64(lower.as_bytes()), exact: xxh3_64_with_seed(id.as_bytes(), EXACT_SEED) >> 16, place }
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

/// Finds the twins alone, for whoever has no other use for the order of ids. It writes the ids down as they come, and sorts them only if
/// one of them has a twin in another case at all.
#[derive(Debug)]
pub struct TwinFinder {
    ids: ScratchList<ENTRY>,
    /// Whether an id is not its own lower case: without one there are no twins.
    has_capitals: bool,
}

impl TwinFinder {
    /// One that keeps the ids in an unnamed file of `folder`.
    ///
    /// # Errors
    /// [`io::Error`] if there can be no such file.
    pub fn in_folder(folder: &Path) -> io::Result<Self> {
        Ok(Self { ids: ScratchList::new(tempfile::tempfile_in(folder)?), has_capitals: false })
    }

    /// # Errors
    /// [`io::Error`] if the file cannot be written.
    pub fn push(&mut self, id: &str, place: OddPlace) -> io::Result<()> {
        match Case::of(id) {
            Case::None => return Ok(()),
            Case::Lower => {}
            Case::Mixed => self.has_capitals = true,
        }
        self.ids.push(&IdEntry::new(id, place).to_bytes())
    }

    /// Returns the twins; `folder` takes what the sorting spills.
    ///
    /// # Errors
    /// [`io::Error`] if a file cannot be written or read.
    pub fn finish(mut self, folder: &Path) -> io::Result<CaseTwins> {
        if !self.has_capitals {
            return Ok(CaseTwins::default());
        }
        let mut sorter = ExternalSorter::in_folder(folder);
        for entry in self.ids.read()? {
            sorter.push(entry?)?;
        }
        IdSorter(sorter).finish(|_, _| ())
    }
}

/// What case the letters of an id have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    /// It has no letter that has a case.
    None,
    Lower,
    /// It has a letter that its lower case has not.
    Mixed,
}

impl Case {
    fn of(id: &str) -> Self {
        if id.bytes().any(|byte| !byte.is_ascii() || byte.is_ascii_uppercase()) {
            return if id.to_lowercase() == id { Case::Lower } else { Case::Mixed };
        }
        if id.bytes().any(|byte| byte.is_ascii_lowercase()) { Case::Lower } else { Case::None }
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
        let folder = tempfile::tempdir().unwrap();
        let mut finder = TwinFinder::in_folder(folder.path()).unwrap();
        (1..).zip(ids).for_each(|(row, id)| finder.push(id, OddPlace { row, line: row + 1 }).unwrap());
        assert_eq!(finder.finish(folder.path()).unwrap(), found, "both find the same: {ids:?}");
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
    fn entries_are_read_as_they_were_written() {
        let entry = IdEntry::new("Ab", OddPlace { row: (1 << 40) - 1, line: 1 << 39 });
        assert_eq!(IdEntry::from_bytes(&entry.to_bytes()), entry);
    }
}
