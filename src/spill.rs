//! Sorts ids by their hash in flat memory, so that those that occur more than once come together.
//!
//! Bounded runs of (hash of the id, row) are sorted in memory and spilled to one unnamed temporary file, then merged. The hash has
//! 128 bits: among 100 million different ids, the odds that any two are taken for one are 1 to 10^22.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;

use xxhash_rust::xxh3::xxh3_128;

/// Entries that are sorted in memory at once: 12 MiB. Chosen: 100 million rows make 191 runs.
const RUN_ENTRIES: usize = 1 << 19;
/// Memory that the runs share when they are merged, in bytes; by then the one above is free. Chosen.
const MERGE_BYTES: usize = 16 << 20;
/// Bytes of an entry on disk: hash, then row.
const ENTRY_BYTES: usize = 24;

/// An id's hash and where it stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Of the same id the same, of another one another.
    pub hash: [u64; 2],
    pub row: u64,
}

impl Entry {
    fn to_bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        let words = [self.hash[0], self.hash[1], self.row];
        bytes.chunks_exact_mut(8).zip(words).for_each(|(chunk, word)| chunk.copy_from_slice(&word.to_le_bytes()));
        bytes
    }

    fn from_bytes(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let word = |at: usize| bytes[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        Self { hash: [word(0), word(8)], row: word(16) }
    }
}

/// Opens an unnamed temporary file.
pub type OpenSpill = fn() -> io::Result<File>;

/// Takes every id with its row, then gives them back by id.
#[derive(Debug)]
pub struct Sorter {
    run: Vec<Entry>,
    run_entries: usize,
    open: OpenSpill,
    spill: Option<Spill>,
}

impl Sorter {
    #[must_use]
    pub fn new(open: OpenSpill) -> Self {
        Self::with_runs_of(RUN_ENTRIES, open)
    }

    /// Fewer entries in memory, for tests.
    #[must_use]
    pub fn with_runs_of(run_entries: usize, open: OpenSpill) -> Self {
        Self { run: Vec::new(), run_entries, open, spill: None }
    }

    /// # Errors
    /// The disk's.
    pub fn push(&mut self, id: &[u8], row: u64) -> io::Result<()> {
        let hash = xxh3_128(id);
        #[expect(clippy::cast_possible_truncation, reason = "its two halves")]
        let hash = [(hash >> 64) as u64, hash as u64];
        self.run.push(Entry { hash, row });
        if self.run.len() >= self.run_entries { self.spill_run() } else { Ok(()) }
    }

    /// Shows all entries: those of one id in a row, by their rows.
    ///
    /// # Errors
    /// The disk's.
    pub fn for_each(mut self, mut visit: impl FnMut(Entry)) -> io::Result<()> {
        if self.spill.is_none() {
            self.run.sort_unstable();
            self.run.into_iter().for_each(visit);
            return Ok(());
        }
        self.spill_run()?;
        drop(self.run);
        let Some(spill) = self.spill else { return Ok(()) };
        spill.merge()?.try_for_each(|entry| entry.map(&mut visit))
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
        let entry = self.buffer[self.from..].first_chunk().map(Entry::from_bytes);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_from_the_disk_as_they_were() {
        let entry = Entry { hash: [1 << 40, 7], row: u64::MAX };
        assert_eq!(Entry::from_bytes(&entry.to_bytes()), entry);
    }

    #[test]
    fn the_runs_share_the_memory_of_the_merge() {
        let spill = Spill { file: tempfile::tempfile().unwrap(), run_ends: vec![0; MERGE_BYTES / ENTRY_BYTES / 64] };
        assert_eq!(spill.merge().unwrap().runs[0].buffer_bytes, 64 * ENTRY_BYTES);
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let full = || File::options().write(true).open("/dev/full");
        let mut sorter = Sorter::with_runs_of(2, full);
        sorter.push(b"a", 1).unwrap();
        assert_eq!(sorter.push(b"b", 2).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
