//! Writes files so that each is either complete or unchanged, whatever happens.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use super::outputs::{OwnStream, own_stream};
use super::pipe::{self, Patient};
use super::signals::Leftover;
use crate::io::files::atomic::AtomicFile;
pub(super) use crate::io::files::atomic::Readers;
use crate::io::files::{aside, resolved};

/// Writes a file aside and gives it its name once its bytes last; whoever needs the name to last syncs the folder. A path that is no
/// regular file (a pipe, a device) is written to, not replaced; so are the standard streams, whatever they are.
///
/// # Errors
/// The disk's, or that of `write`.
pub(super) fn write<T>(path: &Path, readers: Readers, write: impl FnOnce(&mut dyn Write) -> io::Result<T>) -> io::Result<T> {
    match own_stream(path) {
        Some(OwnStream::Stdout) => return write_to(io::stdout().lock(), write),
        Some(OwnStream::Stderr) => return write_to(io::stderr().lock(), write),
        None => {}
    }
    match fs::metadata(path) {
        Ok(meta) if !meta.is_file() => write(&mut Patient(pipe::open(path)?)),
        Ok(_) => replace(&path.canonicalize()?, readers, write),
        // A link stays one, whether there is a file yet where it leads or not.
        Err(error) if error.kind() == ErrorKind::NotFound => replace(&resolved(path), readers, write),
        Err(error) => Err(error),
    }
}

fn write_to<T>(mut out: impl Write, write: impl FnOnce(&mut dyn Write) -> io::Result<T>) -> io::Result<T> {
    let made = write(&mut out)?;
    out.flush().map(|()| made)
}

/// Writes a text that anybody may read, as [`write`] does.
///
/// # Errors
/// The disk's.
pub(super) fn write_text(path: &Path, text: &str) -> io::Result<()> {
    write(path, Readers::Any, |out| out.write_all(text.as_bytes()))
}

fn replace<T>(path: &Path, readers: Readers, write: impl FnOnce(&mut dyn Write) -> io::Result<T>) -> io::Result<T> {
    let _leftover = Leftover::of(&aside(path)?);
    let mut file = AtomicFile::create(path, readers)?;
    let made = write(&mut file)?;
    file.take_name().map(|()| made)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("summary.json");
        fs::write(&path, "old").unwrap();
        fs::write(folder.path().join(".summary.json.tmp"), "half of what a crash").unwrap();
        write_text(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        // It holds counts alone: whoever may read other files may read it.
        let (mode, other) = (|path: &Path| fs::metadata(path).unwrap().permissions().mode(), folder.path().join("other"));
        fs::write(&other, "").unwrap();
        assert_eq!(mode(&path), mode(&other));
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        assert!(write_text(&folder.path().join("missing/summary.json"), "new").is_err());
        assert!(write_text(folder.path(), "new").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_device_is_written_to_and_a_link_is_followed() {
        use std::os::unix::fs::{FileTypeExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (link, target) = (folder.path().join("link"), folder.path().join("target"));
        fs::write(&target, "old").unwrap();
        symlink(&target, &link).unwrap();
        write_text(&link, "new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&target).unwrap(), "new");
        fs::remove_file(&target).unwrap();
        write_text(&link, "newer").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink(), "although nothing was there");
        assert_eq!(fs::read_to_string(&target).unwrap(), "newer");
        write_text(Path::new("/dev/null"), "new").unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    }
}
