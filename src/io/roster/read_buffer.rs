//! What has been read of the file and not been passed yet, in one piece of memory.

use std::io::{self, ErrorKind, Read, Seek, SeekFrom};

use memchr::memchr;

use super::frames::RECORD_MAX_BYTES;

/// Bytes in memory. Chosen: holds the longest record and reads as much again, so that system calls don't count.
const AHEAD_BYTES: usize = 2 * RECORD_MAX_BYTES;

/// A window that moves over a file; a record is looked at where it was read to, and never copied to be put together.
#[derive(Debug)]
pub(super) struct ReadBuffer<R> {
    input: R,
    buffer: Box<[u8]>,
    from: usize,
    to: usize,
    /// Between `from` and here stands no quote; so files without quotes are searched for them once, not line by line.
    no_quote_until: usize,
}

impl<R: Read> ReadBuffer<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, buffer: vec![0; AHEAD_BYTES].into(), from: 0, to: 0, no_quote_until: 0 }
    }

    /// All that is there. What was borrowed stays where it is until [`Ahead::read_more`].
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.from..self.to]
    }

    #[inline]
    pub(super) fn pass(&mut self, bytes: usize) {
        self.from += bytes;
    }

    /// Whether a quote is among the next `bytes`.
    #[inline]
    pub(super) fn has_quote(&mut self, bytes: usize) -> bool {
        let end = self.from + bytes;
        if self.no_quote_until < end {
            let start = self.no_quote_until.max(self.from);
            self.no_quote_until = memchr(b'"', &self.buffer[start..self.to]).map_or(self.to, |at| start + at);
        }
        self.no_quote_until < end
    }

    /// Reads on. Returns the number of bytes, 0 at the end of the file. What is there is a part of one record, which bounds the memory.
    pub(super) fn read_more(&mut self) -> io::Result<usize> {
        if self.to - self.from == self.buffer.len() {
            self.grow();
        }
        self.buffer.copy_within(self.from..self.to, 0);
        self.no_quote_until = self.no_quote_until.saturating_sub(self.from);
        self.to -= self.from;
        self.from = 0;
        loop {
            match self.input.read(&mut self.buffer[self.to..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => return read.inspect(|bytes| self.to += bytes),
            }
        }
    }
}

impl<R> ReadBuffer<R> {
    /// Makes room for a copy of a record, which may be longer.
    #[cold]
    fn grow(&mut self) {
        let mut larger = vec![0; 2 * self.buffer.len()];
        larger[..self.buffer.len()].copy_from_slice(&self.buffer);
        self.buffer = larger.into();
    }
}

impl<R: Seek> ReadBuffer<R> {
    pub(super) fn go_to(&mut self, offset: u64) -> io::Result<()> {
        (self.from, self.to, self.no_quote_until) = (0, 0, 0);
        self.input.seek(SeekFrom::Start(offset)).map(|_| ())
    }
}
