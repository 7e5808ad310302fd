//! Rows of one length in an unnamed file, which are read back by their numbers.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::WRITE_BYTES;

/// Rows that are appended in order and read back in any order.
#[derive(Debug)]
pub struct ScratchRows {
    file: File,
    /// Bytes of a row.
    row_bytes: usize,
    pending: Vec<u8>,
    /// Bytes in the file.
    len: u64,
}

impl ScratchRows {
    #[must_use]
    pub fn new(file: File, row_bytes: usize) -> Self {
        Self { file, row_bytes, pending: Vec::new(), len: 0 }
    }

    /// Appends the next row, of which `write` appends as many bytes as a row has.
    ///
    /// # Errors
    /// [`io::Error`] if the file cannot be written.
    #[inline]
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        write(&mut self.pending);
        debug_assert!(self.pending.len().is_multiple_of(self.row_bytes), "all rows are of one length");
        if self.pending.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    /// Appends a row of zeros.
    ///
    /// # Errors
    /// [`io::Error`] if the file cannot be written.
    pub fn push_zeros(&mut self) -> io::Result<()> {
        let row_bytes = self.row_bytes;
        self.push(|pending| pending.resize(pending.len() + row_bytes, 0))
    }

    /// Reads the row with this number, counted from 1.
    ///
    /// # Errors
    /// [`io::Error`] if there is no such row, or the file cannot be written or read.
    pub fn read(&mut self, number: u64, into: &mut Vec<u8>) -> io::Result<()> {
        if !self.pending.is_empty() {
            self.flush()?;
        }
        into.resize(self.row_bytes, 0);
        self.file.read_exact_at(into, number.saturating_sub(1) * self.row_bytes as u64)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.pending, self.len)?;
        self.len += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_in_any_order() {
        let mut rows = ScratchRows::new(tempfile::tempfile().unwrap(), 3);
        for number in 0..200_000_u32 {
            let [_, bytes @ ..] = number.to_be_bytes();
            rows.push(|row| row.extend_from_slice(&bytes)).unwrap();
        }
        rows.push_zeros().unwrap();
        let mut row = Vec::new();
        for number in [200_001, 1, 200_000, 77] {
            rows.read(number, &mut row).unwrap();
            let [_, expected @ ..] = (u32::try_from(number).unwrap() - 1).to_be_bytes();
            assert_eq!(row, if number == 200_001 { [0; 3] } else { expected });
        }
        assert_eq!(rows.read(200_002, &mut row).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
