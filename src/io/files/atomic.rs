//! Writes a file so that it is either complete or as it was, whatever happens.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{aside, lock, resolved, sync_folder_of};

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Its owner alone: it holds personal data.
    Owner,
    /// Whoever the process' umask lets.
    Any,
    /// Everybody, whatever the umask: another user's program is to read it.
    Everybody,
}

impl Readers {
    /// The permissions with which the file is made.
    const fn mode(self) -> u32 {
        match self {
            Readers::Owner => 0o600,
            Readers::Any => 0o666,
            Readers::Everybody => 0o644,
        }
    }
}

/// A file that does not have its name yet; dropped without it, it is gone.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    aside: PathBuf,
    file: BufWriter<File>,
    has_name: bool,
}

impl AtomicFile {
    /// Begins a file that will replace the one at `path`, or take the place to which a link there leads, whether a file is there or not.
    ///
    /// # Errors
    /// The disk's.
    pub fn create(path: &Path, readers: Readers) -> io::Result<Self> {
        Self::made_by(path, |aside| {
            // One that a crash left behind.
            remove(aside)?;
            let mode = readers.mode();
            let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(aside)?;
            if readers == Readers::Everybody {
                file.set_permissions(Permissions::from_mode(mode))?;
            }
            Ok(file)
        })
    }

    /// The same for a file that is written during a whole run: its owner alone may read it, and another process that would write it is told
    /// so.
    ///
    /// # Errors
    /// [`ErrorKind::ResourceBusy`] if another process writes it, or the disk's.
    pub fn create_alone(path: &Path) -> io::Result<Self> {
        Self::made_by(path, |aside| {
            let taken = lock::take_new(aside, Readers::Owner.mode())?;
            taken.ok_or_else(|| io::Error::new(ErrorKind::ResourceBusy, "another process is writing it"))
        })
    }

    fn made_by(path: &Path, make: impl FnOnce(&Path) -> io::Result<File>) -> io::Result<Self> {
        let path = resolved(path);
        let aside = aside(&path)?;
        let file = BufWriter::new(make(&aside)?);
        Ok(Self { path, aside, file, has_name: false })
    }

    /// Gives the file its name once its bytes last. Whoever needs the name to last takes [`AtomicFile::take_name_durably`].
    ///
    /// # Errors
    /// The disk's.
    pub fn take_name(mut self) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        fs::rename(&self.aside, &self.path)?;
        self.has_name = true;
        Ok(())
    }

    /// As [`AtomicFile::take_name`]; the name lasts once this returns.
    ///
    /// # Errors
    /// The disk's.
    pub fn take_name_durably(self) -> io::Result<()> {
        let path = self.path.clone();
        self.take_name()?;
        sync_folder_of(&path)
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if !self.has_name {
            let _ = fs::remove_file(&self.aside);
        }
    }
}

/// Removes a file that need not be there.
///
/// # Errors
/// The disk's.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
