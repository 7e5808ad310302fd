//! A private copy of a text that can't be read twice: written once, whole or not at all.
//!
//! This module does not know what the text is.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use thiserror::Error;

use super::folder_of;

/// Bytes that are copied at once. Chosen: system calls don't count.
const AT_ONCE: usize = 256 * 1024;
/// Most bytes between two looks at the room that is left.
const LOOK_EVERY: u64 = 8 * 1024 * 1024;
/// What is to be left of a file system: this share of it, or this much, whichever is less. Source: the contract of the input.
const LEFT_PER_CENT: u64 = 5;
const LEFT_BYTES: u64 = 1024 * 1024 * 1024;

/// Why a copy was not made.
#[derive(Debug, Error)]
pub enum SpoolError {
    #[error("the input cannot be read")]
    Input(#[source] io::Error),
    #[error("the copy cannot be written")]
    Disk(#[source] io::Error),
    #[error("the copy would leave {left} of {whole} bytes of the file system free, less than {least}")]
    NoRoom { left: u64, whole: u64, least: u64 },
}

/// The room of the file system on which a copy is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that this process may still write.
    pub free: u64,
    pub whole: u64,
}

impl Room {
    /// The room for a file of that name.
    ///
    /// # Errors
    /// The system's.
    pub fn of(path: &Path) -> io::Result<Self> {
        let stat = rustix::fs::statvfs(folder_of(path))?;
        Ok(Self { free: stat.f_bavail.saturating_mul(stat.f_frsize), whole: stat.f_blocks.saturating_mul(stat.f_frsize) })
    }

    /// What is to be left free.
    #[must_use]
    pub fn least(self) -> u64 {
        (self.whole / 100 * LEFT_PER_CENT).min(LEFT_BYTES)
    }

    /// Refuses to write so many bytes if too little would be left.
    ///
    /// # Errors
    /// [`SpoolError::NoRoom`].
    pub fn takes(self, bytes: u64) -> Result<(), SpoolError> {
        let (left, least) = (self.free.saturating_sub(bytes), self.least());
        if left < least { Err(SpoolError::NoRoom { left, whole: self.whole, least }) } else { Ok(()) }
    }
}

/// Copies `text` into `file`, which is at `path`, makes it last, and returns its length. `on_progress` is told how much was written.
///
/// # Errors
/// [`SpoolError`]; what was written by then is of no use.
pub fn fill(mut text: impl Read, (file, path): (&mut File, &Path), mut on_progress: impl FnMut(u64)) -> Result<u64, SpoolError> {
    let mut buffer = vec![0; AT_ONCE];
    let (mut written, mut look_at) = (0, 0);
    loop {
        let bytes = match text.read(&mut buffer) {
            Ok(0) => break,
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(SpoolError::Input(error)),
        };
        if written >= look_at {
            let room = Room::of(path).map_err(SpoolError::Disk)?;
            room.takes(bytes as u64)?;
            look_at = written + room.free.saturating_sub(room.least()).min(LOOK_EVERY);
        }
        file.write_all(&buffer[..bytes]).map_err(SpoolError::Disk)?;
        written += bytes as u64;
        on_progress(written);
    }
    file.sync_all().map_err(SpoolError::Disk)?;
    Ok(written)
}
