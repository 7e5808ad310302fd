//! A file that one writer appends to. When a run is resumed, it is cut to its committed length.

use std::io;
use std::path::{Path, PathBuf};

use super::checkpoint::{Extent, TAIL_BYTES};
use super::disk::{Disk, DiskFile};

/// A results or rejects file.
#[derive(Debug)]
pub(super) struct AppendFile<F> {
    path: PathBuf,
    file: F,
    len: u64,
    tail: Vec<u8>,
}

impl<F: DiskFile> AppendFile<F> {
    /// Creates a file that contains only `header`, or replaces an existing one. The caller must sync it and its folder.
    pub(super) fn create<D: Disk<File = F>>(disk: &D, path: &Path, header: &[u8]) -> io::Result<Self> {
        let mut file = disk.open(path)?;
        file.set_len(0)?;
        let mut created = Self { path: path.to_owned(), file, len: 0, tail: Vec::new() };
        created.append(header)?;
        Ok(created)
    }

    /// Opens a file and checks that it still begins with `extent`. Returns `None` if it is shorter or differs there.
    pub(super) fn reopen<D: Disk<File = F>>(disk: &D, path: &Path, extent: Extent) -> io::Result<Option<Self>> {
        if disk.len(path)?.is_none_or(|len| len < extent.len) {
            return Ok(None);
        }
        let file = disk.open(path)?;
        let tail_len = usize::try_from(extent.len).map_or(TAIL_BYTES, |len| len.min(TAIL_BYTES));
        let mut tail = vec![0; tail_len];
        file.read_exact_at(&mut tail, extent.len - tail_len as u64)?;
        let reopened = Self { path: path.to_owned(), file, len: extent.len, tail };
        Ok((reopened.extent() == extent).then_some(reopened))
    }

    /// Removes everything behind the committed length, and syncs at once, since perhaps no later write would do so.
    pub(super) fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.len)?;
        self.file.sync()
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.len)?;
        self.len += bytes.len() as u64;
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL_BYTES));
        Ok(())
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }

    pub(super) fn extent(&self) -> Extent {
        Extent::new(self.len, &self.tail)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
