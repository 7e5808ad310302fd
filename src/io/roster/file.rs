//! The input as an open file: whatever takes its name meanwhile, every pass of a run judges, fingerprints and reads this one.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use crate::domain::position::FileStat;

/// An input file that is open.
#[derive(Debug, Clone)]
pub struct InputFile(Arc<File>);

impl InputFile {
    /// # Errors
    /// The system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(|file| Self(Arc::new(file)))
    }

    /// A file that is open already.
    #[must_use]
    pub fn of(file: File) -> Self {
        Self(Arc::new(file))
    }

    /// Its stat fields, whatever its name leads to by now.
    ///
    /// # Errors
    /// The system's.
    pub fn fingerprint(&self) -> io::Result<FileStat> {
        self.0.metadata().map(|stat| fields(&stat))
    }

    /// Whether it is a file on a disk: anything else can be read once only, and from where it stands.
    #[must_use]
    pub fn is_regular(&self) -> bool {
        self.0.metadata().is_ok_and(|stat| stat.is_file())
    }

    /// Whether its last byte is a line feed; an empty file has none.
    ///
    /// # Errors
    /// The system's.
    pub fn ends_with_newline(&self) -> io::Result<bool> {
        let Some(last) = self.0.metadata()?.len().checked_sub(1) else { return Ok(false) };
        let mut byte = [0];
        self.0.read_exact_at(&mut byte, last)?;
        Ok(byte == *b"\n")
    }

    /// Whether `path` still leads to it: a file that takes its name is another one, whatever it holds.
    #[must_use]
    pub fn is_at(&self, path: &Path) -> bool {
        let id = |stat: Metadata| (stat.dev(), stat.ino());
        matches!((self.0.metadata().map(id), std::fs::metadata(path).map(id)), (Ok(own), Ok(other)) if own == other)
    }

    /// Reads it from its start, wherever other readers of it are.
    #[must_use]
    pub fn reader(&self) -> InputReader {
        InputReader { file: self.clone(), offset: 0, is_seekable: self.is_regular() }
    }
}

/// A reader of an open input with a place of its own.
#[derive(Debug)]
pub struct InputReader {
    file: InputFile,
    offset: u64,
    /// A pipe isn't: it is read from where it stands.
    is_seekable: bool,
}

impl Read for InputReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = if self.is_seekable { self.file.0.read_at(buffer, self.offset) } else { (&*self.file.0).read(buffer) };
        read.inspect(|bytes| self.offset += *bytes as u64)
    }
}

impl Seek for InputReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let base = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(by) => self.offset.checked_add_signed(by),
            SeekFrom::End(by) => self.file.0.metadata()?.len().checked_add_signed(by),
        };
        self.offset = base.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.offset)
    }
}

fn fields(stat: &Metadata) -> FileStat {
    const NS: i64 = 1_000_000_000;
    FileStat {
        len: stat.len(),
        modified_ns: stat.mtime() * NS + stat.mtime_nsec(),
        changed_ns: stat.ctime() * NS + stat.ctime_nsec(),
        inode: stat.ino(),
    }
}

/// The stat fields of the file that has a name now.
///
/// # Errors
/// The system's.
pub fn fingerprint(path: &Path) -> io::Result<FileStat> {
    std::fs::metadata(path).map(|stat| fields(&stat))
}
