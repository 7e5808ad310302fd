//! An external sort: it sorts any number of entries in constant memory.
//!
//! Runs of bounded size are sorted in memory while the next one is read, and written to one unnamed temporary file. They are merged while
//! the caller reads the result. Entries are byte strings of one length, compared byte by byte; this module does not know their meaning.

mod file_section;
mod merge;
mod order;
mod rows;
mod sighting;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread::JoinHandle;

use file_section::FileSection;
pub use merge::Merged;
use order::Order;
pub use rows::ScratchRows;
pub use sighting::{SIGHTING, Sighting};

/// Memory of one run, in bytes. Two runs exist at a time, one being filled and one being sorted, which needs another third of it for the
/// order. Chosen: 10 million entries of 56 bytes make 34 runs.
const RUN_BYTES: usize = 16 << 20;
/// Bytes written at once. Chosen: so that system calls cost nothing in comparison.
const WRITE_BYTES: usize = 256 << 10;

/// Opens an unnamed temporary file.
pub type OpenSpill = Box<dyn FnMut() -> io::Result<File> + Send>;

/// An entry: bytes compared from the left.
pub type Entry<const N: usize> = [u8; N];

/// Collects entries in any order.
#[expect(missing_debug_implementations, reason = "it holds a closure")]
pub struct ExternalSorter<const N: usize> {
    run: SortedRun<N>,
    run_entries: usize,
    open: OpenSpill,
    spill: Spill,
    /// The thread that sorts and writes the previous run.
    worker: Option<JoinHandle<io::Result<SortedRun<N>>>>,
}

/// Sorted runs, one after the other in a file.
#[derive(Debug, Default)]
struct Spill {
    file: Option<File>,
    /// End of each run, in bytes.
    run_ends: Vec<u64>,
}

impl<const N: usize> ExternalSorter<N> {
    /// `open` is called when the entries no longer fit into memory.
    #[must_use]
    pub fn new(open: OpenSpill) -> Self {
        Self::with_runs_of(RUN_BYTES / N, open)
    }

    /// The same as [`ExternalSorter::new`], with unnamed temporary files in `folder`.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        let folder = folder.to_owned();
        Self::new(Box::new(move || tempfile::tempfile_in(&folder)))
    }

    /// The same as [`ExternalSorter::new`], with this many entries in a run.
    #[must_use]
    pub fn with_runs_of(run_entries: usize, open: OpenSpill) -> Self {
        Self { run: SortedRun::default(), run_entries, open, spill: Spill::default(), worker: None }
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// [`io::Error`] if this run, or an earlier one, cannot be written to the temporary file.
    #[inline]
    pub fn push(&mut self, entry: Entry<N>) -> io::Result<()> {
        self.run.entries.push(entry);
        if self.run.entries.len() >= self.run_entries { self.write_run() } else { Ok(()) }
    }

    /// Returns the entries in order.
    ///
    /// # Errors
    /// [`io::Error`] if a run cannot be written or the file cannot be read.
    pub fn finish(mut self) -> io::Result<Sorted<N>> {
        if self.spill.run_ends.is_empty() {
            return Ok(Sorted::Held(self.run.into_sorted().into_iter()));
        }
        if !self.run.entries.is_empty() {
            self.write_run()?;
        }
        self.join()?;
        drop(self.run);
        let file = self.spill.file.ok_or(io::ErrorKind::NotFound)?;
        Merged::new(file, &self.spill.run_ends).map(Sorted::Merged)
    }

    /// Hands the current run to the worker when that has finished the previous one.
    fn write_run(&mut self) -> io::Result<()> {
        let spare = self.join()?;
        let mut run = std::mem::replace(&mut self.run, spare);
        if self.spill.file.is_none() {
            self.spill.file = Some((self.open)()?);
        }
        let Some(file) = &self.spill.file else { return Ok(()) };
        let at = self.spill.run_ends.last().copied().unwrap_or_default();
        self.spill.run_ends.push(at + (run.entries.len() * N) as u64);
        let file = file.try_clone()?;
        self.worker = Some(std::thread::Builder::new().spawn(move || run.write(&file, at).map(|()| run.emptied()))?);
        Ok(())
    }

    fn join(&mut self) -> io::Result<SortedRun<N>> {
        self.worker.take().map_or_else(|| Ok(SortedRun::default()), |worker| worker.join().expect("sorting and writing never panic"))
    }
}

/// Entries in memory in the order of arrival, with buffers for sorting and writing them.
#[derive(Debug, Default)]
struct SortedRun<const N: usize> {
    entries: Vec<Entry<N>>,
    order: Order,
    pending: Vec<u8>,
}

impl<const N: usize> SortedRun<N> {
    fn into_sorted(mut self) -> Vec<Entry<N>> {
        if self.entries.is_sorted() {
            return self.entries;
        }
        self.order.find(&self.entries);
        self.order.of(&self.entries).copied().collect()
    }

    /// Writes the entries in order; entries that are in order already are not sorted.
    fn write(&mut self, file: &File, at: u64) -> io::Result<()> {
        if self.entries.is_sorted() {
            return file.write_all_at(self.entries.as_flattened(), at);
        }
        self.order.find(&self.entries);
        let (mut at, pending) = (at, &mut self.pending);
        for entry in self.order.of(&self.entries) {
            pending.extend_from_slice(entry);
            if pending.len() >= WRITE_BYTES {
                file.write_all_at(pending, at)?;
                at += pending.len() as u64;
                pending.clear();
            }
        }
        file.write_all_at(pending, at)?;
        pending.clear();
        Ok(())
    }

    fn emptied(mut self) -> Self {
        self.entries.clear();
        self
    }
}

/// An iterator over the entries in order.
#[derive(Debug)]
pub enum Sorted<const N: usize> {
    /// All entries fit into memory.
    Held(std::vec::IntoIter<Entry<N>>),
    Merged(Merged<N>),
}

impl<const N: usize> Iterator for Sorted<N> {
    type Item = io::Result<Entry<N>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Sorted::Held(entries) => entries.next().map(Ok),
            Sorted::Merged(merged) => merged.next(),
        }
    }
}

/// A list in an unnamed file: entries are appended in order and read back from the start.
#[derive(Debug)]
pub struct ScratchList<const N: usize> {
    file: File,
    pending: Vec<u8>,
    len: u64,
}

impl<const N: usize> ScratchList<N> {
    #[must_use]
    pub fn new(file: File) -> Self {
        Self { file, pending: Vec::new(), len: 0 }
    }

    /// Appends an entry.
    ///
    /// # Errors
    /// [`io::Error`] if the file cannot be written.
    pub fn push(&mut self, entry: &Entry<N>) -> io::Result<()> {
        self.pending.extend_from_slice(entry);
        if self.pending.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> u64 {
        (self.len + self.pending.len() as u64) / N as u64
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads the entries from the start; more may be pushed afterwards.
    ///
    /// # Errors
    /// [`io::Error`] if the file cannot be written or read.
    pub fn read(&mut self) -> io::Result<impl Iterator<Item = io::Result<Entry<N>>>> {
        self.flush()?;
        let part = FileSection::new(0, self.len, (WRITE_BYTES / N).max(1) * N);
        entries(part, &self.file)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.pending, self.len)?;
        self.len += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

/// Takes the next `N` bytes of an entry that is read back.
///
/// # Panics
/// Where the parts of an entry are longer than the entry, which constant lengths exclude.
#[inline]
#[must_use]
pub fn take<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    let (first, rest) = bytes.split_first_chunk().expect("the lengths are constants that add up");
    *bytes = rest;
    *first
}

fn entries<const N: usize>(mut part: FileSection, file: &File) -> io::Result<impl Iterator<Item = io::Result<Entry<N>>>> {
    part.read_on(file)?;
    Ok(std::iter::from_fn(move || {
        let entry = *part.peek()?;
        Some(part.pass::<N>(file).map(|()| entry))
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sorted(entries: &[Entry<3>], run_entries: usize) -> Vec<Entry<3>> {
        let mut sorter = ExternalSorter::with_runs_of(run_entries, Box::new(tempfile::tempfile));
        for entry in entries {
            sorter.push(*entry).unwrap();
        }
        sorter.finish().unwrap().collect::<Result<_, _>>().unwrap()
    }

    proptest! {
        #[test]
        fn entries_are_sorted_whatever_the_length_of_runs(
            entries in prop::collection::vec(any::<[u8; 3]>(), 0..80),
            run_entries in 1..90_usize,
        ) {
            let mut expected = entries.clone();
            expected.sort_unstable();
            prop_assert_eq!(sorted(&entries, run_entries), expected);
        }
    }

    proptest! {
        /// Long entries with a long common prefix, often equal ones: they differ far behind the bytes that are compared first.
        #[test]
        fn entries_with_long_common_prefixes_are_sorted(
            entries in prop::collection::vec((0..3_u8, 0..3_u8, prop::sample::select(&[0, 1, 0xff][..])), 0..120),
            places in (0..40_usize, 0..40_usize, 0..40_usize),
            filler in prop::sample::select(&[0, b'u', 0xff][..]),
            run_entries in 1..130_usize,
        ) {
            let entries: Vec<Entry<40>> = entries.into_iter().map(|(one, two, three)| {
                let mut entry = [filler; 40];
                (entry[places.0], entry[places.1], entry[places.2]) = (one, two, three);
                entry
            }).collect();
            let mut sorter = ExternalSorter::with_runs_of(run_entries, Box::new(tempfile::tempfile));
            entries.iter().try_for_each(|entry| sorter.push(*entry)).unwrap();
            let sorted: Vec<_> = sorter.finish().unwrap().map(Result::unwrap).collect();
            let mut expected = entries;
            expected.sort_unstable();
            prop_assert_eq!(sorted, expected);
        }
    }

    #[test]
    fn the_result_need_not_be_read_to_its_end() {
        let mut sorter = ExternalSorter::<8>::with_runs_of(100_000, Box::new(tempfile::tempfile));
        (0..300_000_u64).rev().try_for_each(|number| sorter.push(number.to_be_bytes())).unwrap();
        let first: Vec<_> = sorter.finish().unwrap().take(2).map(Result::unwrap).collect();
        assert_eq!(first, [0_u64.to_be_bytes(), 1_u64.to_be_bytes()]);
    }

    #[test]
    fn a_truncated_file_is_an_error_and_not_an_early_end() {
        let file = tempfile::tempfile().unwrap();
        let runs = [24 << 20, 48 << 20];
        file.set_len(runs[1]).unwrap();
        let mut merged = Merged::<8>::new(file.try_clone().unwrap(), &runs).unwrap();
        file.set_len(30 << 20).unwrap();
        assert!(merged.any(|entry| entry.is_err_and(|error| error.kind() == io::ErrorKind::UnexpectedEof)));
    }

    #[test]
    fn runs_longer_than_their_buffers_are_merged() {
        let entries: Vec<Entry<3>> =
            (0..100_000_u32).map(|number| (number * 7_919 % 100_000).to_be_bytes()).map(|[_, a, b, c]| [a, b, c]).collect();
        let mut expected = entries.clone();
        expected.sort_unstable();
        assert_eq!(sorted(&entries, 9), expected);
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(expected[..4].as_flattened(), 0).unwrap();
        let read: Vec<Entry<3>> = super::entries(FileSection::new(0, 12, 6), &file).unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(read, expected[..4]);
    }

    #[test]
    fn a_scratch_list_is_read_in_order_and_can_be_read_again() {
        let mut list = ScratchList::<3>::new(tempfile::tempfile().unwrap());
        let entries: Vec<Entry<3>> = (0..200_000_u32).map(u32::to_be_bytes).map(|[_, a, b, c]| [a, b, c]).collect();
        for entry in &entries {
            list.push(entry).unwrap();
        }
        assert_eq!(list.len(), 200_000);
        for _ in 0..2 {
            assert!(list.read().unwrap().map(Result::unwrap).eq(entries.iter().copied()));
        }
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let full = || File::options().write(true).open("/dev/full");
        let mut sorter = ExternalSorter::<1>::with_runs_of(1, Box::new(full));
        sorter.push([1]).unwrap();
        assert_eq!(sorter.push([2]).unwrap_err().kind(), io::ErrorKind::StorageFull);
        let mut list = ScratchList::<1>::new(full().unwrap());
        list.push(&[1]).unwrap();
        assert_eq!(list.read().err().map(|error| error.kind()), Some(io::ErrorKind::StorageFull));
    }
}
