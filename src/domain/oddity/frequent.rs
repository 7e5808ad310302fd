//! The values that stand in a large share of all rows, found in memory that doesn't grow with them.
//!
//! It counts as Misra and Gries do ("Finding repeated elements", 1982): while there is room every value has votes, and one for which there
//! is none takes a vote from each. A value of a larger share than one in [`ROOM`] always keeps some.

use xxhash_rust::xxh3::xxh3_64;

use super::{OddPlace, PLACES};
use crate::domain::hashed_map::HashedMap;

/// Values that are counted at a time. Chosen: files with fewer values are counted exactly, and it is far more than a share needs.
const ROOM: usize = 1_024;
/// How often a value must have been seen before its text is kept. Chosen: below the share that is told of the shortest file.
const KEPT_FROM: u64 = 8;

/// Counts values, by a hash of 64 bits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FrequentValues {
    counts: HashedMap<u64, ValueCount>,
}

/// A value with its votes and how often it was seen since it has some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ValueCount {
    votes: u64,
    pub(super) seen: u64,
    places: [OddPlace; PLACES],
    pub(super) text: Option<Box<str>>,
}

impl FrequentValues {
    pub(super) fn see(&mut self, text: &str, place: OddPlace) {
        let hash = xxh3_64(text.as_bytes());
        if let Some(count) = self.counts.get_mut(&hash) {
            count.see(text, place);
        } else if self.counts.len() < ROOM {
            self.counts.insert(hash, ValueCount { votes: 1, seen: 1, places: [place; PLACES], text: None });
        } else {
            self.counts.retain(|_, count| {
                count.votes -= 1;
                count.votes > 0
            });
        }
    }

    /// Those that were seen more often than this, the most frequent first.
    pub(super) fn over(&self, seen: u64) -> Vec<&ValueCount> {
        let mut found: Vec<_> = self.counts.values().filter(|count| count.seen > seen).collect();
        found.sort_by_key(|count| (std::cmp::Reverse(count.seen), count.places[0]));
        found
    }
}

impl ValueCount {
    fn see(&mut self, text: &str, place: OddPlace) {
        if let Some(next) = usize::try_from(self.seen).ok().and_then(|seen| self.places.get_mut(seen)) {
            *next = place;
        }
        self.votes += 1;
        self.seen += 1;
        if self.seen == KEPT_FROM {
            self.text = Some(text.into());
        }
    }

    /// Where it was seen first.
    pub(super) fn first(&self) -> &[OddPlace] {
        let seen = usize::try_from(self.seen).unwrap_or(PLACES);
        &self.places[..seen.min(PLACES)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(values: impl IntoIterator<Item = String>, over: u64) -> Vec<(Option<String>, u64, Vec<u64>)> {
        let mut found = FrequentValues::default();
        (1..).zip(values).for_each(|(row, value)| found.see(&value, OddPlace { row, line: row + 1 }));
        let told =
            |count: &ValueCount| (count.text.as_deref().map(str::to_owned), count.seen, count.first().iter().map(|at| at.row).collect());
        found.over(over).into_iter().map(told).collect()
    }

    #[test]
    fn a_frequent_value_is_found_among_any_number_of_others() {
        let values = (0_u64..100_000).map(|row| if row % 4 == 3 { "NULL".to_owned() } else { format!("name {row}") });
        assert_eq!(seen(values, 20_000), [(Some("NULL".to_owned()), 25_000, vec![4, 8, 12])]);
        let late = (0_u64..100_000).map(|row| if row >= 70_000 { "-".to_owned() } else { format!("name {row}") });
        let found = seen(late, 20_000);
        assert_eq!((found.len(), found[0].0.as_deref()), (1, Some("-")));
        assert!((29_990..=30_000).contains(&found[0].1), "{found:?}");
    }

    #[test]
    fn few_values_are_counted_exactly() {
        let values = (0_u64..1_000).map(|row| format!("{}", row % 3));
        let counts: Vec<u64> = seen(values, 0).into_iter().map(|(_, seen, _)| seen).collect();
        assert_eq!(counts, [334, 333, 333]);
    }

    #[test]
    fn memory_does_not_grow_with_the_values() {
        let mut found = FrequentValues::default();
        (0_u64..50_000).for_each(|row| found.see(&row.to_string(), OddPlace { row, line: row }));
        assert!(found.counts.len() <= ROOM && found.counts.capacity() < 4 * ROOM);
    }
}
