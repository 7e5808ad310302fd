//! A section of a file that is read entry by entry.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::Entry;

/// A section of a file, read from its start to its end.
#[derive(Debug)]
pub(super) struct FileSection {
    at: u64,
    end: u64,
    buffer_bytes: usize,
    buffer: Vec<u8>,
    from: usize,
}

impl FileSection {
    /// The bytes from `at` to `end`, read `buffer_bytes` at a time. All three must be multiples of an entry's length.
    pub(super) fn new(at: u64, end: u64, buffer_bytes: usize) -> Self {
        Self { at, end, buffer_bytes, buffer: Vec::new(), from: 0 }
    }

    /// The next entry, after [`FileSection::read_on`] was called once; `None` at the end.
    #[inline]
    pub(super) fn peek<const N: usize>(&self) -> Option<&Entry<N>> {
        self.buffer[self.from..].first_chunk()
    }

    /// Moves past the entry that [`FileSection::peek`] returns.
    #[inline]
    pub(super) fn pass<const N: usize>(&mut self, file: &File) -> io::Result<()> {
        self.from += N;
        if self.from == self.buffer.len() { self.read_on(file) } else { Ok(()) }
    }

    /// Fills the buffer again after it was used up.
    #[cold]
    pub(super) fn read_on(&mut self, file: &File) -> io::Result<()> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        self.buffer.resize(left.min(self.buffer_bytes), 0);
        file.read_exact_at(&mut self.buffer, self.at)?;
        self.at += self.buffer.len() as u64;
        self.from = 0;
        Ok(())
    }
}
