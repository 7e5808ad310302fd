//! Files that are whole or untouched, whatever happens.

use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::output_paths::is_own_output;
use super::pipe::{self, Patient};
use super::signals::Leftover;
use crate::io::files::aside;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Its owner alone: it holds personal data.
    Owner,
    /// Whoever the process' umask lets.
    Any,
}

/// Writes a file aside and gives it its name once its bytes last; whoever needs the name to last syncs the folder. A path that is no
/// regular file (a pipe, a device) is written to, not replaced; so is standard output, whatever it is.
///
/// # Errors
/// The disk's, or that of `write`.
pub fn write<T>(path: &Path, readers: Readers, write: impl FnOnce(&mut dyn Write) -> io::Result<T>) -> io::Result<T> {
    if is_own_output(path) {
        let mut out = io::stdout().lock();
        return write(&mut out).and_then(|made| out.flush().map(|()| made));
    }
    match fs::metadata(path) {
        Ok(meta) if !meta.is_file() => write(&mut Patient(pipe::open(path)?)),
        Ok(_) => replace(&path.canonicalize()?, readers, write),
        Err(error) if error.kind() == ErrorKind::NotFound => replace(path, readers, write),
        Err(error) => Err(error),
    }
}

fn replace<T>(path: &Path, readers: Readers, write: impl FnOnce(&mut dyn Write) -> io::Result<T>) -> io::Result<T> {
    let aside = aside(path)?;
    let _leftover = Leftover::of(&aside);
    // One that a crash left behind.
    let _ = fs::remove_file(&aside);
    let written = create_durably(&aside, readers, write).and_then(|made| fs::rename(&aside, path).map(|()| made));
    if written.is_err() {
        let _ = fs::remove_file(&aside);
    }
    written
}

fn create_durably<T>(path: &Path, readers: Readers, write: impl FnOnce(&mut dyn Write) -> io::Result<T>) -> io::Result<T> {
    let mode = match readers {
        Readers::Owner => 0o600,
        Readers::Any => 0o666,
    };
    let mut file = BufWriter::new(OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?);
    let value = write(&mut file)?;
    file.flush()?;
    file.get_ref().sync_all()?;
    Ok(value)
}
