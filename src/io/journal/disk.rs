//! The disk operations of the journal, behind a trait, so that tests can crash between any two of them.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::io::files;
use crate::io::files::lock::{self, Lockfile};

/// A disk with files by path.
pub trait Disk: Send + Debug + 'static {
    type File: DiskFile + Debug;
    /// The lock is released when it is dropped.
    type Lock: Send + Debug + 'static;

    /// Opens a file for reading and writing. If it does not exist, it is created, readable only by its owner; otherwise its content stays.
    ///
    /// # Errors
    /// [`io::Error`] of the system, for this and all methods below.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// The length of a file in bytes; `None` if it does not exist.
    ///
    /// # Errors
    /// [`io::Error`] of the system, or if it is not a regular file.
    fn len(&self, path: &Path) -> io::Result<Option<u64>>;
    /// Renames a file and replaces what has the new name.
    ///
    /// # Errors
    /// [`io::Error`] of the system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// [`io::Error`] of the system.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in the folder of `path` durable.
    ///
    /// # Errors
    /// [`io::Error`] of the system.
    fn sync_folder_of(&self, path: &Path) -> io::Result<()>;
    /// Locks a file that is never renamed; `None` if another process holds the lock.
    ///
    /// # Errors
    /// [`io::Error`] of the system.
    fn lock(&self, path: &Path) -> io::Result<Option<Self::Lock>>;
    /// Keeps the lock file when the lock is dropped, because a run has begun.
    fn keep(&self, _lock: &mut Self::Lock) {}
}

/// An open file.
pub trait DiskFile: Send + 'static {
    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// [`io::Error`] of the system, or if the file ends before `buffer` is full.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all bytes at `offset`.
    ///
    /// # Errors
    /// [`io::Error`] of the system.
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts or extends the file.
    ///
    /// # Errors
    /// [`io::Error`] of the system.
    fn set_len(&mut self, len: u64) -> io::Result<()>;
    /// Makes the bytes and the length durable.
    ///
    /// # Errors
    /// [`io::Error`] of the system. After an error it is unknown which bytes are durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// The file system of the machine.
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
            Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")),
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
