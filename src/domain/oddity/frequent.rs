//! The values that stand in a large share of all rows, found in memory that doesn't grow with them.
//!
//! It counts as Misra and Gries do ("Finding repeated elements", 1982): while there is room every value has votes, and one for which there
//! is none takes a vote from each. A value of a larger share than one in [`ROOM`] always keeps some. Once there has been no room, most of
//! the values that nobody counts are passed over after a look at their last bytes, which is what makes counting cheap in a long file.

use xxhash_rust::xxh3::xxh3_64;

use super::{OddPlace, PLACES};
use crate::domain::hashed_map::HashedMap;

/// Values that are counted at a time. Chosen: files with fewer values are counted exactly, and it is far more than a share needs.
const ROOM: usize = 1_024;
/// How often a value must have been seen before its text is kept. Chosen: below the share that is told of the shortest file.
const KEPT_FROM: u64 = 8;

/// Bits of a mark.
const MARK_BITS: u32 = 14;
/// 2^64 divided by the golden ratio, made odd: multiples of it are spread evenly.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Counts values, by a hash of 64 bits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FrequentValues {
    counts: HashedMap<u64, ValueCount>,
    /// The marks of all that are counted, once there has been no room.
    marks: Option<Marks>,
}

/// A value with its votes and how often it was seen since it has some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ValueCount {
    mark: Mark,
    votes: u64,
    pub(super) seen: u64,
    places: [OddPlace; PLACES],
    pub(super) text: Option<Box<str>>,
}

impl FrequentValues {
    #[inline]
    pub(super) fn see(&mut self, text: &str, place: OddPlace) {
        let mark = Mark::of(text.as_bytes());
        if self.marks.as_ref().is_none_or(|marks| marks.have(mark) || is_sampled(place)) {
            self.count(text, mark, place);
        }
    }

    fn count(&mut self, text: &str, mark: Mark, place: OddPlace) {
        let hash = xxh3_64(text.as_bytes());
        if let Some(count) = self.counts.get_mut(&hash) {
            count.see(text, place);
        } else if self.counts.len() < ROOM {
            self.counts.insert(hash, ValueCount { mark, votes: 1, seen: 1, places: [place; PLACES], text: None });
            if let Some(marks) = &mut self.marks {
                marks.add(mark);
            }
        } else {
            self.make_room();
        }
    }

    /// Takes a vote from each.
    fn make_room(&mut self) {
        self.counts.retain(|_, count| {
            count.votes -= 1;
            count.votes > 0
        });
        let marks = self.marks.insert(Marks::default());
        self.counts.values().for_each(|count| marks.add(count.mark));
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

/// Whether a row is looked at though nobody counts its value: every fourth is, and no value that comes at even distances is missed by it.
/// Chosen: so few are not seen of a value that becomes frequent late that its count is right.
fn is_sampled(place: OddPlace) -> bool {
    place.row.wrapping_mul(GOLDEN) < u64::MAX / 4
}

/// A few bits that a text always has, and others seldom: of its last bytes and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark(usize);

impl Mark {
    #[inline]
    fn of(text: &[u8]) -> Self {
        let short = || text.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        let last = text.last_chunk().map_or_else(short, |last| u64::from_le_bytes(*last));
        let mixed = (last ^ text.len() as u64).wrapping_mul(GOLDEN);
        Self((mixed >> (u64::BITS - MARK_BITS)) as usize)
    }
}

/// Which marks there are.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Marks(Box<[u64; 1 << MARK_BITS >> 6]>);

impl Default for Marks {
    fn default() -> Self {
        Self(Box::new([0; _]))
    }
}

impl Marks {
    fn add(&mut self, Mark(mark): Mark) {
        self.0[mark >> 6] |= 1 << (mark & 63);
    }

    #[inline]
    fn have(&self, Mark(mark): Mark) -> bool {
        self.0[mark >> 6] >> (mark & 63) & 1 == 1
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
    fn a_value_is_found_wherever_it_begins_and_however_its_rows_lie() {
        for stride in 1..=4 {
            for begin in [0_u64, 1_500, 7_003, 50_001] {
                let rows = begin + 40_000;
                let is_frequent = |row: u64| row >= begin && row.is_multiple_of(stride);
                let seen = seen((0..rows).map(|row| if is_frequent(row) { "NULL".to_owned() } else { format!("{}", row * 7_919) }), 9_000);
                let expected = (begin..rows).filter(|row| row.is_multiple_of(stride)).count() as u64;
                let found = seen.first().map(|found| (found.0.as_deref(), found.1)).unwrap();
                assert!(
                    found.0 == Some("NULL") && found.1 <= expected && found.1 + 10 >= expected,
                    "{stride} {begin}: {found:?}, {expected}"
                );
            }
        }
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
