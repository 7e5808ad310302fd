//! Entries in order, however many there are, in flat memory.
//!
//! Bounded runs are sorted in memory, beside the reading, and laid down in one unnamed temporary file; then they are merged. Entries are
//! bytes of one length and are compared as such. Knows nothing of what they mean.

mod sighting;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::thread::JoinHandle;

pub use sighting::{SIGHTING, Sighting};

/// Memory of a run, in bytes; there are two, one being filled and one being sorted. Chosen: 10 million entries of 56 bytes make 34 runs.
const RUN_BYTES: usize = 16 << 20;
/// Memory that the runs share when they are merged, in bytes; by then the two above are free. Chosen.
const MERGE_BYTES: usize = 16 << 20;

/// Opens an unnamed temporary file.
pub type OpenSpill = Box<dyn FnMut() -> io::Result<File> + Send>;

/// An entry: bytes that are compared from the left.
pub type Entry<const N: usize> = [u8; N];

type Run<const N: usize> = Vec<Entry<N>>;

/// Takes entries in any order.
#[expect(missing_debug_implementations, reason = "it holds a closure")]
pub struct Sorter<const N: usize> {
    run: Run<N>,
    run_entries: usize,
    open: OpenSpill,
    spill: Spill,
    /// Sorts the run before this one and lays it down.
    worker: Option<JoinHandle<io::Result<Run<N>>>>,
}

/// Sorted runs, one behind the other.
#[derive(Debug, Default)]
struct Spill {
    file: Option<File>,
    /// In bytes.
    run_ends: Vec<u64>,
}

impl<const N: usize> Sorter<N> {
    /// `open` is asked for a file once what comes doesn't fit into memory.
    #[must_use]
    pub fn new(open: OpenSpill) -> Self {
        Self::with_runs_of(RUN_BYTES / N, open)
    }

    /// As [`Sorter::new`], with so many entries in memory at once.
    #[must_use]
    pub fn with_runs_of(run_entries: usize, open: OpenSpill) -> Self {
        Self { run: Vec::new(), run_entries, open, spill: Spill::default(), worker: None }
    }

    /// Takes an entry.
    ///
    /// # Errors
    /// The disk's, perhaps of earlier entries.
    pub fn push(&mut self, entry: Entry<N>) -> io::Result<()> {
        self.run.push(entry);
        if self.run.len() >= self.run_entries { self.lay_down() } else { Ok(()) }
    }

    /// The entries in order.
    ///
    /// # Errors
    /// The disk's.
    pub fn finish(mut self) -> io::Result<Sorted<N>> {
        if self.spill.run_ends.is_empty() {
            self.run.sort_unstable();
            return Ok(Sorted::Held(self.run.into_iter()));
        }
        self.lay_down()?;
        self.join()?;
        drop(self.run);
        Merge::new(self.spill).map(Sorted::Merged)
    }

    /// Hands the run to the worker, once that is done with the one before.
    fn lay_down(&mut self) -> io::Result<()> {
        let spare = self.join()?;
        let mut run = std::mem::replace(&mut self.run, spare);
        if self.spill.file.is_none() {
            self.spill.file = Some((self.open)()?);
        }
        let Some(file) = &self.spill.file else { return Ok(()) };
        let at = self.spill.run_ends.last().copied().unwrap_or_default();
        self.spill.run_ends.push(at + (run.len() * N) as u64);
        let file = file.try_clone()?;
        self.worker = Some(std::thread::spawn(move || {
            run.sort_unstable();
            file.write_all_at(run.as_flattened(), at)?;
            run.clear();
            Ok(run)
        }));
        Ok(())
    }

    fn join(&mut self) -> io::Result<Run<N>> {
        self.worker.take().map_or_else(|| Ok(Vec::new()), |worker| worker.join().expect("sorting and writing never panic"))
    }
}

/// Entries in order.
#[derive(Debug)]
pub enum Sorted<const N: usize> {
    /// All of them fit.
    Held(std::vec::IntoIter<Entry<N>>),
    Merged(Merge<N>),
}

impl<const N: usize> Iterator for Sorted<N> {
    type Item = io::Result<Entry<N>>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Sorted::Held(entries) => entries.next().map(Ok),
            Sorted::Merged(merge) => merge.next(),
        }
    }
}

/// A part of the file that is read from its start to its end.
#[derive(Debug)]
struct Part {
    at: u64,
    end: u64,
    buffer_bytes: usize,
    buffer: Vec<u8>,
    from: usize,
}

impl Part {
    fn next<const N: usize>(&mut self, file: &File) -> io::Result<Option<Entry<N>>> {
        if self.from == self.buffer.len() {
            let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
            self.buffer.resize(left.min(self.buffer_bytes), 0);
            file.read_exact_at(&mut self.buffer, self.at)?;
            self.at += self.buffer.len() as u64;
            self.from = 0;
        }
        let entry = self.buffer[self.from..].first_chunk().copied();
        self.from += entry.map_or(0, |_| N);
        Ok(entry)
    }
}

/// The k-way merge of all runs.
#[derive(Debug)]
pub struct Merge<const N: usize> {
    file: File,
    parts: Vec<Part>,
    /// The next entry of each run, with the run's number.
    heads: BinaryHeap<Reverse<(Entry<N>, usize)>>,
}

impl<const N: usize> Merge<N> {
    fn new(spill: Spill) -> io::Result<Self> {
        let file = spill.file.ok_or(io::ErrorKind::NotFound)?;
        let buffer_bytes = (MERGE_BYTES / spill.run_ends.len().max(1) / N).max(1) * N;
        let starts = std::iter::once(0).chain(spill.run_ends.iter().copied());
        let parts = starts.zip(&spill.run_ends).map(|(at, end)| Part { at, end: *end, buffer_bytes, buffer: Vec::new(), from: 0 });
        let mut merge = Self { file, parts: parts.collect(), heads: BinaryHeap::new() };
        for part in 0..merge.parts.len() {
            if let Some(entry) = merge.parts[part].next(&merge.file)? {
                merge.heads.push(Reverse((entry, part)));
            }
        }
        Ok(merge)
    }
}

impl<const N: usize> Iterator for Merge<N> {
    type Item = io::Result<Entry<N>>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut head = self.heads.peek_mut()?;
        let Reverse((entry, part)) = *head;
        match self.parts[part].next(&self.file) {
            Ok(Some(next)) => *head = Reverse((next, part)),
            Ok(None) => {
                std::collections::binary_heap::PeekMut::pop(head);
            }
            Err(error) => return Some(Err(error)),
        }
        Some(Ok(entry))
    }
}

/// Entries in the order in which they came: kept in an unnamed file, read back from its start.
#[derive(Debug)]
pub struct Pile<const N: usize> {
    file: File,
    pending: Vec<u8>,
    len: u64,
}

impl<const N: usize> Pile<N> {
    #[must_use]
    pub fn new(file: File) -> Self {
        Self { file, pending: Vec::new(), len: 0 }
    }

    /// # Errors
    /// The disk's.
    pub fn push(&mut self, entry: &Entry<N>) -> io::Result<()> {
        const PENDING_BYTES: usize = 256 << 10;
        self.pending.extend_from_slice(entry);
        if self.pending.len() >= PENDING_BYTES { self.lay_down() } else { Ok(()) }
    }

    /// Entries in it.
    #[must_use]
    pub fn len(&self) -> u64 {
        (self.len + self.pending.len() as u64) / N as u64
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its entries; it can be read again.
    ///
    /// # Errors
    /// The disk's.
    pub fn read(&mut self) -> io::Result<impl Iterator<Item = io::Result<Entry<N>>>> {
        self.lay_down()?;
        let mut part = Part { at: 0, end: self.len, buffer_bytes: (256 << 10) / N * N, buffer: Vec::new(), from: 0 };
        let file = &self.file;
        Ok(std::iter::from_fn(move || part.next(file).transpose()))
    }

    fn lay_down(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.pending, self.len)?;
        self.len += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sorted(entries: &[Entry<3>], run_entries: usize) -> Vec<Entry<3>> {
        let mut sorter = Sorter::with_runs_of(run_entries, Box::new(tempfile::tempfile));
        for entry in entries {
            sorter.push(*entry).unwrap();
        }
        sorter.finish().unwrap().collect::<Result<_, _>>().unwrap()
    }

    proptest! {
        #[test]
        fn entries_come_in_order_however_often_runs_are_laid_down(
            entries in prop::collection::vec(any::<[u8; 3]>(), 0..80),
            run_entries in 1..90_usize,
        ) {
            let mut expected = entries.clone();
            expected.sort_unstable();
            prop_assert_eq!(sorted(&entries, run_entries), expected);
        }
    }

    #[test]
    fn runs_longer_than_their_buffers_are_merged() {
        let entries: Vec<Entry<3>> =
            (0..100_000_u32).map(|number| (number * 7_919 % 100_000).to_be_bytes()).map(|[_, a, b, c]| [a, b, c]).collect();
        let mut expected = entries.clone();
        expected.sort_unstable();
        assert_eq!(sorted(&entries, 9), expected);
        let mut part = Part { at: 0, end: 12, buffer_bytes: 6, buffer: Vec::new(), from: 0 };
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(expected[..4].as_flattened(), 0).unwrap();
        let read: Vec<Entry<3>> = std::iter::from_fn(|| part.next(&file).unwrap()).collect();
        assert_eq!(read, expected[..4]);
    }

    #[test]
    fn a_pile_is_read_as_it_was_laid_and_again() {
        let mut pile = Pile::<3>::new(tempfile::tempfile().unwrap());
        let entries: Vec<Entry<3>> = (0..200_000_u32).map(u32::to_be_bytes).map(|[_, a, b, c]| [a, b, c]).collect();
        for entry in &entries {
            pile.push(entry).unwrap();
        }
        assert_eq!(pile.len(), 200_000);
        for _ in 0..2 {
            assert!(pile.read().unwrap().map(Result::unwrap).eq(entries.iter().copied()));
        }
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let full = || File::options().write(true).open("/dev/full");
        let mut sorter = Sorter::<1>::with_runs_of(1, Box::new(full));
        sorter.push([1]).unwrap();
        assert_eq!(sorter.push([2]).unwrap_err().kind(), io::ErrorKind::StorageFull);
        let mut pile = Pile::<1>::new(full().unwrap());
        pile.push(&[1]).unwrap();
        assert_eq!(pile.read().err().map(|error| error.kind()), Some(io::ErrorKind::StorageFull));
    }
}
