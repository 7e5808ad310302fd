//! UserIDs that occur more than once, found in flat memory.

use std::io;

use super::EXAMPLES;
use super::same_ids::{CaseTwins, IdEntry, IdSorter};

/// UserIDs that occur more than once among the valid records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repeats {
    /// How many such UserIDs there are.
    pub user_ids: u64,
    /// Records that a later one of the same UserID supersedes.
    pub superseded: u64,
    /// The first, by their later row.
    pub first: Vec<Repeat>,
}

/// A record that a later one supersedes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeat {
    pub earlier_row: u64,
    pub later_row: u64,
    /// Known only after a second look at the input.
    pub user_id: Option<Box<[u8]>>,
}

impl Repeats {
    /// Reads the ids in order: those that repeat, and the twins of others.
    pub(super) fn of(ids: IdSorter) -> io::Result<(Self, CaseTwins)> {
        let mut found = Self::default();
        let mut counted: Option<IdEntry> = None;
        let twins = ids.finish(|entry, earlier| {
            found.superseded += 1;
            found.user_ids += u64::from(!counted.replace(entry).is_some_and(|counted| counted.is_same_id(&entry)));
            offer(&mut found.first, Repeat { earlier_row: earlier.row, later_row: entry.place.row, user_id: None });
        })?;
        Ok((found, twins))
    }
}

/// Keeps the few whose later row comes first.
fn offer(first: &mut Vec<Repeat>, repeat: Repeat) {
    let at = first.partition_point(|kept| kept.later_row < repeat.later_row);
    if at < EXAMPLES {
        first.insert(at, repeat);
        first.truncate(EXAMPLES);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::oddity::OddPlace;

    fn found(ids: &[String], run_entries: usize) -> Repeats {
        let mut sorter = IdSorter::with_runs_of(run_entries, Box::new(tempfile::tempfile));
        for (id, row) in ids.iter().zip(1..) {
            sorter.push(id, OddPlace { row, line: row + 1 }).unwrap();
        }
        Repeats::of(sorter).unwrap().0
    }

    /// The same in memory.
    fn expected(ids: &[String]) -> Repeats {
        let mut rows: HashMap<&str, Vec<u64>> = HashMap::new();
        for (id, row) in ids.iter().zip(1..) {
            rows.entry(id).or_default().push(row);
        }
        let pairs = rows.values().flat_map(|rows| rows.windows(2).map(|pair| (pair[1], pair[0])));
        let mut pairs: Vec<_> = pairs.collect();
        pairs.sort_unstable();
        let first = pairs.iter().take(EXAMPLES).map(|pair| Repeat { earlier_row: pair.1, later_row: pair.0, user_id: None });
        let user_ids = rows.values().filter(|rows| rows.len() > 1).count() as u64;
        Repeats { user_ids, superseded: pairs.len() as u64, first: first.collect() }
    }

    proptest! {
        #[test]
        fn repeats_are_the_same_however_often_runs_are_spilled(ids in prop::collection::vec("[a-e]{1,2}", 0..80), run_entries in 1..90_usize) {
            prop_assert_eq!(found(&ids, run_entries), expected(&ids));
        }
    }

    #[test]
    fn runs_longer_than_their_buffers_are_merged() {
        let ids: Vec<_> = (0..70_000).map(|number| format!("u{}", number % 69_990)).collect();
        assert_eq!(found(&ids, 1_000), expected(&ids));
        assert_eq!(found(&ids, 1_000).superseded, 10);
    }
}
