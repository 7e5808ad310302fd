//! UserIDs that occur more than once, found in flat memory by an external sort.
//!
//! Bounded runs of (hash of the id, row) are sorted in memory and spilled to one unnamed temporary file, then merged. The hash has
//! 64 bits: among 100 million different ids, the odds that any two are taken for one are 1 to 3,700.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;

use xxhash_rust::xxh3::xxh3_64;

use super::EXAMPLES;

/// Entries that are sorted in memory at once: 16 MiB. Chosen: 100 million rows make 96 runs.
const RUN_ENTRIES: usize = 1 << 20;
/// Memory that the runs share when they are merged, in bytes; by then the one above is free. Chosen.
const MERGE_BYTES: usize = 16 << 20;
/// Bytes of an entry on disk: hash, then row.
const ENTRY_BYTES: usize = 16;

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

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    hash: u64,
    row: u64,
}

impl Entry {
    fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..8].copy_from_slice(&self.hash.to_le_bytes());
        bytes[8..].copy_from_slice(&self.row.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; ENTRY_BYTES]) -> Self {
        let pair = u128::from_le_bytes(bytes);
        let [hash, row] = [pair, pair >> 64].map(|word| u64::try_from(word & u128::from(u64::MAX)).expect("masked to 64 bits"));
        Self { hash, row }
    }
}

/// Opens an unnamed temporary file.
pub(super) type OpenSpill = fn() -> io::Result<File>;

/// Takes every UserID with its row, then tells which ones it has seen before.
#[derive(Debug)]
pub(super) struct RepeatFinder {
    run: Vec<Entry>,
    run_entries: usize,
    open: OpenSpill,
    spill: Option<Spill>,
}

impl RepeatFinder {
    pub(super) fn new(open: OpenSpill) -> Self {
        Self { run: Vec::new(), run_entries: RUN_ENTRIES, open, spill: None }
    }

    /// Rows come in ascending order.
    pub(super) fn push(&mut self, user_id: &str, row: u64) -> io::Result<()> {
        self.run.push(Entry { hash: xxh3_64(user_id.as_bytes()), row });
        if self.run.len() >= self.run_entries { self.spill_run() } else { Ok(()) }
    }

    pub(super) fn finish(mut self) -> io::Result<Repeats> {
        if self.spill.is_none() {
            self.run.sort_unstable();
            return repeats(self.run.into_iter().map(Ok));
        }
        self.spill_run()?;
        drop(self.run);
        self.spill.map_or_else(|| Ok(Repeats::default()), |spill| repeats(spill.merge()?))
    }

    fn spill_run(&mut self) -> io::Result<()> {
        self.run.sort_unstable();
        let spill = match &mut self.spill {
            Some(spill) => spill,
            None => self.spill.insert(Spill { file: (self.open)()?, run_ends: Vec::new() }),
        };
        spill.append(&self.run)?;
        self.run.clear();
        Ok(())
    }
}

/// Sorted runs, one behind the other in a file.
#[derive(Debug)]
struct Spill {
    file: File,
    /// In bytes.
    run_ends: Vec<u64>,
}

impl Spill {
    fn append(&mut self, run: &[Entry]) -> io::Result<()> {
        let mut out = BufWriter::new(&self.file);
        run.iter().try_for_each(|entry| out.write_all(&entry.to_bytes()))?;
        out.flush()?;
        self.run_ends.push(self.len() + (run.len() * ENTRY_BYTES) as u64);
        Ok(())
    }

    fn len(&self) -> u64 {
        self.run_ends.last().copied().unwrap_or_default()
    }

    /// All entries in order.
    fn merge(&self) -> io::Result<Merge<'_>> {
        let buffer_bytes = (MERGE_BYTES / self.run_ends.len().max(1) / ENTRY_BYTES).max(1) * ENTRY_BYTES;
        let starts = std::iter::once(0).chain(self.run_ends.iter().copied());
        let runs =
            starts.zip(&self.run_ends).map(|(at, end)| Run { file: &self.file, at, end: *end, buffer_bytes, buffer: Vec::new(), from: 0 });
        let mut merge = Merge { runs: runs.collect(), heads: BinaryHeap::new() };
        (0..merge.runs.len()).try_for_each(|run| merge.take_head(run))?;
        Ok(merge)
    }
}

/// A sorted run that is read back.
#[derive(Debug)]
struct Run<'a> {
    file: &'a File,
    at: u64,
    end: u64,
    buffer_bytes: usize,
    buffer: Vec<u8>,
    from: usize,
}

impl Run<'_> {
    fn next(&mut self) -> io::Result<Option<Entry>> {
        if self.from == self.buffer.len() {
            let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
            self.buffer.resize(left.min(self.buffer_bytes), 0);
            self.file.read_exact_at(&mut self.buffer, self.at)?;
            self.at += self.buffer.len() as u64;
            self.from = 0;
        }
        let entry = self.buffer[self.from..].first_chunk().copied().map(Entry::from_bytes);
        self.from += entry.map_or(0, |_| ENTRY_BYTES);
        Ok(entry)
    }
}

/// The k-way merge of all runs.
#[derive(Debug)]
struct Merge<'a> {
    runs: Vec<Run<'a>>,
    /// The next entry of each run, with the run's number.
    heads: BinaryHeap<Reverse<(Entry, usize)>>,
}

impl Merge<'_> {
    fn take_head(&mut self, run: usize) -> io::Result<()> {
        if let Some(entry) = self.runs[run].next()? {
            self.heads.push(Reverse((entry, run)));
        }
        Ok(())
    }
}

impl Iterator for Merge<'_> {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse((entry, run)) = self.heads.pop()?;
        Some(self.take_head(run).map(|()| entry))
    }
}

/// Neighbours of the same hash are the same UserID.
fn repeats(sorted: impl Iterator<Item = io::Result<Entry>>) -> io::Result<Repeats> {
    let mut found = Repeats::default();
    let mut last: Option<Entry> = None;
    let mut counted: Option<u64> = None;
    for entry in sorted {
        let entry = entry?;
        if let Some(earlier) = last.filter(|last| last.hash == entry.hash) {
            found.superseded += 1;
            found.user_ids += u64::from(counted.replace(entry.hash) != Some(entry.hash));
            offer(&mut found.first, Repeat { earlier_row: earlier.row, later_row: entry.row, user_id: None });
        }
        last = Some(entry);
    }
    Ok(found)
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

    fn found(ids: &[String], run_entries: usize) -> Repeats {
        let mut finder = RepeatFinder { run_entries, ..RepeatFinder::new(tempfile::tempfile) };
        for (id, row) in ids.iter().zip(1..) {
            finder.push(id, row).unwrap();
        }
        finder.finish().unwrap()
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
        let spill = |entries: usize| {
            let spill = Spill { file: tempfile::tempfile().unwrap(), run_ends: vec![0; MERGE_BYTES / ENTRY_BYTES / entries] };
            spill.merge().unwrap().runs[0].buffer_bytes
        };
        assert_eq!(spill(64), 64 * ENTRY_BYTES);
        assert_eq!(found(&ids, 1_000), expected(&ids));
        assert_eq!(found(&ids, 1_000).superseded, 10);
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let full = || File::options().write(true).open("/dev/full");
        let mut finder = RepeatFinder { run_entries: 2, ..RepeatFinder::new(full) };
        finder.push("a", 1).unwrap();
        assert_eq!(finder.push("b", 2).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
