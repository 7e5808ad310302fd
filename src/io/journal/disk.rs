//! The disk as the journal uses it, behind a trait, so that tests can crash between any two of its operations.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::io::files;
use crate::io::files::lock::{self, Lockfile};

/// Files by path.
pub trait Disk: Send + Debug + 'static {
    type File: DiskFile + Debug;
    /// Held as long as it lives.
    type Lock: Send + Debug + 'static;

    /// Opens a file for reading and writing, and creates it, private to its owner, if it isn't there. What it holds stays.
    ///
    /// # Errors
    /// The system's, as everywhere here.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// The length of a file; `None` if there is none.
    ///
    /// # Errors
    /// The system's.
    fn len(&self, path: &Path) -> io::Result<Option<u64>>;
    /// # Errors
    /// The system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// # Errors
    /// The system's.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in the folder of `path` last.
    ///
    /// # Errors
    /// The system's.
    fn sync_folder_of(&self, path: &Path) -> io::Result<()>;
    /// Takes the lock on a file that is never renamed; `None` if another process has it.
    ///
    /// # Errors
    /// The system's.
    fn lock(&self, path: &Path) -> io::Result<Option<Self::Lock>>;
    /// Takes note that a run has begun under the lock: its file stays.
    fn keep(&self, _lock: &mut Self::Lock) {}
}

/// An open file.
pub trait DiskFile: Send + 'static {
    /// # Errors
    /// The system's, or the end of the file before `buffer` is full.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// # Errors
    /// The system's.
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// # Errors
    /// The system's.
    fn set_len(&mut self, len: u64) -> io::Result<()>;
    /// Makes the bytes and the length last.
    ///
    /// # Errors
    /// The system's; after one nothing is known of what lasts.
    fn sync(&mut self) -> io::Result<()>;
}

/// The machine's own disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsDisk;

impl Disk for OsDisk {
    type File = File;
    type Lock = Lockfile;

    fn open(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
    }

    fn len(&self, path: &Path) -> io::Result<Option<u64>> {
        match std::fs::metadata(path) {
            Ok(stat) if stat.is_file() => Ok(Some(stat.len())),
            Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "this is no regular file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_folder_of(&self, path: &Path) -> io::Result<()> {
        files::sync_folder_of(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lockfile>> {
        lock::take(path)
    }

    fn keep(&self, lock: &mut Lockfile) {
        lock.keep();
    }
}

impl DiskFile for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }

    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}
