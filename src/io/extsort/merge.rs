//! Merges sorted runs on a thread of its own.
//!
//! A loser tree over the runs compares each entry only with those on its way to the root: first by twelve bytes behind the prefix that all
//! entries share, then as a whole if those are equal.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::Entry;
use super::file_section::FileSection;
use super::order::shared;

/// Memory for reading the runs during the merge, in bytes, shared by all. Chosen: the memory of the sort is free again by then.
const MERGE_BYTES: usize = 16 << 20;
/// Size of a piece that is handed to the reader at once, in bytes. Chosen: so that waking the reader costs nothing in comparison.
const HANDED_BYTES: usize = 256 << 10;
/// How many pieces may wait for the reader. Chosen.
const PIECES_AHEAD: usize = 4;

type Piece<const N: usize> = Vec<Entry<N>>;

/// An iterator over the merged entries.
#[derive(Debug)]
pub struct Merged<const N: usize> {
    piece: std::vec::IntoIter<Entry<N>>,
    pieces: Receiver<io::Result<Piece<N>>>,
    /// The merging thread; it ends when the receiver of its pieces is dropped.
    worker: Option<JoinHandle<()>>,
}

impl<const N: usize> Merged<N> {
    /// Merges the runs of `file`, none of which may be empty; each entry of `run_ends` is the end of one in bytes.
    pub(super) fn new(file: File, run_ends: &[u64]) -> io::Result<Self> {
        let mut tree = Tree::<N>::new(file, run_ends)?;
        let (sender, pieces) = sync_channel(PIECES_AHEAD);
        let worker = std::thread::Builder::new().spawn(move || tree.send_all(&sender))?;
        Ok(Self { piece: Vec::new().into_iter(), pieces, worker: Some(worker) })
    }

    #[cold]
    fn next_piece(&mut self) -> Option<io::Result<Entry<N>>> {
        if let Ok(piece) = self.pieces.recv() {
            match piece {
                Ok(piece) => self.piece = piece.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        } else if let Some(worker) = self.worker.take() {
            worker.join().expect("merging never panics");
        }
        self.piece.next().map(Ok)
    }
}

impl<const N: usize> Iterator for Merged<N> {
    type Item = io::Result<Entry<N>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self.piece.next() {
            Some(entry) => Some(Ok(entry)),
            None => self.next_piece(),
        }
    }
}

/// The key of a run: twelve bytes of its next entry behind the common prefix, and the run's number in the lowest four bytes. All ones in
/// the entry's part once the run is used up.
type Head = u128;

const RUN_BITS: u32 = 32;

#[expect(clippy::cast_possible_truncation, reason = "the number is in the bits that remain")]
const fn run(head: Head) -> usize {
    head as u32 as usize
}

#[derive(Debug)]
struct Tree<const N: usize> {
    file: File,
    parts: Vec<FileSection>,
    /// Length in bytes of the prefix that all entries share.
    shared: usize,
    /// Node 1 is the root, the children of node n are 2n and 2n + 1, and the leaves would follow. Each node holds the later of two keys;
    /// node 0 holds the smallest key of all.
    nodes: Vec<Head>,
}

impl<const N: usize> Tree<N> {
    fn new(file: File, run_ends: &[u64]) -> io::Result<Self> {
        let buffer_bytes = (MERGE_BYTES / run_ends.len().max(1) / N).max(1) * N;
        let starts = std::iter::once(0).chain(run_ends.iter().copied());
        let mut parts: Vec<FileSection> = starts.zip(run_ends).map(|(at, end)| FileSection::new(at, *end, buffer_bytes)).collect();
        parts.iter_mut().try_for_each(|part| part.read_on(&file))?;
        let mut tree = Self { shared: 0, nodes: Vec::new(), file, parts };
        tree.shared = tree.shared_by_all(run_ends)?;
        tree.build();
        Ok(tree)
    }

    /// Length of the common prefix. Since the runs are sorted, a prefix that their first and last entries share is shared by all.
    fn shared_by_all(&self, run_ends: &[u64]) -> io::Result<usize> {
        let Some(first) = self.parts.first().and_then(FileSection::peek::<N>) else { return Ok(0) };
        let mut all = N;
        for (entry, end) in self.parts.iter().filter_map(FileSection::peek::<N>).zip(run_ends) {
            let mut last = [0; N];
            self.file.read_exact_at(&mut last, end - N as u64)?;
            all = all.min(shared(first, entry)).min(shared(first, &last));
        }
        Ok(all)
    }

    /// Builds the tree.
    fn build(&mut self) {
        let runs = self.parts.len();
        let mut winners = vec![Head::MAX; runs];
        winners.extend((0..runs).map(|run| self.head(run)));
        self.nodes = winners[..runs].to_vec();
        for node in (1..runs).rev() {
            let (one, other) = (winners[2 * node], winners[2 * node + 1]);
            (winners[node], self.nodes[node]) = if self.is_before(other, one) { (other, one) } else { (one, other) };
        }
        if let (Some(root), Some(first)) = (self.nodes.first_mut(), winners.get(1)) {
            *root = *first;
        }
    }

    #[inline]
    fn head(&self, run: usize) -> Head {
        let key = self.parts[run].peek::<N>().map_or(Head::MAX, |entry| key(&entry[self.shared..]));
        key >> RUN_BITS << RUN_BITS | run as Head
    }

    #[inline]
    fn is_before(&self, one: Head, other: Head) -> bool {
        if (one ^ other) >> RUN_BITS == 0 { self.is_before_as_a_whole(run(one), run(other)) } else { one < other }
    }

    #[cold]
    fn is_before_as_a_whole(&self, one: usize, other: usize) -> bool {
        match (self.parts[one].peek::<N>(), self.parts[other].peek::<N>()) {
            (Some(one), Some(other)) => one < other,
            (one, _) => one.is_some(),
        }
    }

    /// Removes the smallest entry and returns it.
    #[inline]
    fn take(&mut self) -> io::Result<Option<Entry<N>>> {
        let Some(run) = self.nodes.first().map(|first| run(*first)) else { return Ok(None) };
        let Some(taken) = self.parts[run].peek().copied() else { return Ok(None) };
        self.parts[run].pass::<N>(&self.file)?;
        let mut first = self.head(run);
        let mut node = (run + self.parts.len()) >> 1;
        while node > 0 {
            let other = self.nodes[node];
            // Both are written in either case: a branch would be mispredicted half of the time, which costs more than a write.
            (first, self.nodes[node]) = if self.is_before(other, first) { (other, first) } else { (first, other) };
            node >>= 1;
        }
        self.nodes[0] = first;
        Ok(Some(taken))
    }

    /// Sends all entries in pieces, until the end or until the receiver is dropped.
    fn send_all(&mut self, to: &SyncSender<io::Result<Piece<N>>>) {
        loop {
            let piece = self.piece();
            let is_last = piece.as_ref().map_or(true, Vec::is_empty);
            if to.send(piece).is_err() || is_last {
                return;
            }
        }
    }

    fn piece(&mut self) -> io::Result<Piece<N>> {
        let entries = (HANDED_BYTES / N).max(1);
        let mut piece = Vec::with_capacity(entries);
        while piece.len() < entries
            && let Some(entry) = self.take()?
        {
            piece.push(entry);
        }
        Ok(piece)
    }
}

/// The first sixteen bytes; a shorter entry is padded with zeros.
#[inline]
fn key(bytes: &[u8]) -> u128 {
    match bytes.first_chunk() {
        Some(chunk) => u128::from_be_bytes(*chunk),
        None => (0..16).fold(0, |key, at| key << 8 | u128::from(bytes.get(at).copied().unwrap_or_default())),
    }
}
