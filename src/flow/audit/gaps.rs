//! Rows that were passed over, as ranges.

use std::collections::BTreeMap;

/// Most ranges that are kept. Chosen: a few hundred KiB; results with more holes than that are beyond explaining.
const RANGES_MAX: usize = 10_000;

/// Rows that have no outcome, and lie before one that has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gaps {
    /// First and last row of each range.
    ranges: BTreeMap<u64, u64>,
    /// Rows of ranges that were too many to keep.
    unlisted: u64,
}

impl Gaps {
    /// How many rows are missing.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.unlisted + self.ranges.iter().map(|(first, last)| last - first + 1).sum::<u64>()
    }

    /// The ranges in order, first and last row of each.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        self.ranges.iter().map(|(first, last)| (*first, *last))
    }

    /// Adds a row behind all others.
    pub(super) fn push(&mut self, row: u64) {
        let is_room = self.ranges.len() < RANGES_MAX;
        match self.ranges.last_entry() {
            Some(mut last) if *last.get() + 1 == row => *last.get_mut() = row,
            Some(_) if !is_room => self.unlisted += 1,
            Some(_) | None => {
                self.ranges.insert(row, row);
            }
        }
    }

    /// Takes a row out. Returns whether it was in.
    pub(super) fn fill(&mut self, row: u64) -> bool {
        let Some((first, last)) = self.ranges.range(..=row).next_back().map(|(first, last)| (*first, *last)) else { return false };
        if last < row {
            return false;
        }
        self.ranges.remove(&first);
        if first < row {
            self.ranges.insert(first, row - 1);
        }
        if row < last {
            self.ranges.insert(row + 1, last);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_grow_and_are_filled() {
        let check = |pushed: &[u64], filled: &[u64], expected: &[(u64, u64)]| {
            let mut gaps = Gaps::default();
            for row in pushed {
                gaps.push(*row);
            }
            for row in filled {
                assert!(gaps.fill(*row), "{row}");
                assert!(!gaps.fill(*row), "{row} is filled already");
            }
            assert_eq!(gaps.ranges().collect::<Vec<_>>(), expected);
            assert_eq!(gaps.rows(), (pushed.len() - filled.len()) as u64);
        };
        check(&[2, 3, 4, 9], &[], &[(2, 4), (9, 9)]);
        check(&[2, 3, 4], &[3], &[(2, 2), (4, 4)]);
        check(&[2, 3, 4], &[2, 4], &[(3, 3)]);
        check(&[2, 3], &[3, 2], &[]);
    }

    #[test]
    fn too_many_ranges_are_counted_only() {
        let mut gaps = Gaps::default();
        for row in 0..RANGES_MAX as u64 + 5 {
            gaps.push(2 * row);
        }
        assert_eq!((gaps.ranges().count(), gaps.rows()), (RANGES_MAX, RANGES_MAX as u64 + 5));
    }
}
