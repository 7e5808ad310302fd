//! The file that a copy was made of, which a run then reads instead.

use std::io::{self, ErrorKind, Read};
use std::path::Path;

use xxhash_rust::xxh3::Xxh3;

use super::RosterError;
use super::file::InputFile;
use crate::domain::position::{FileStat, SourceFile};

/// Bytes that are hashed at once. Chosen: system calls don't count.
const HASHED_AT_ONCE: usize = 256 * 1024;

/// A file that a text was made of, as it was then.
#[derive(Debug, Clone)]
pub struct Original {
    pub file: InputFile,
    pub source: SourceFile,
}

impl Original {
    /// The file whose stat fields were `before` until so many `bytes` with this hash were read of it, which was all of it. One that has grown
    /// meanwhile is known as it was; [`Original::ensure_unchanged`] tells.
    ///
    /// # Errors
    /// [`RosterError::Modified`] if it is another one by now, and the system's.
    pub fn of_read(file: &InputFile, before: FileStat, (bytes, digest): (u64, u64)) -> Result<Self, RosterError> {
        let now = file.fingerprint()?;
        let of = |stat| Ok(Self { file: file.clone(), source: SourceFile { stat, digest } });
        if now == before {
            return of(now);
        }
        let read = FileStat { len: bytes, ..before };
        match source_change(file, SourceFile { stat: read, digest })? {
            SourceChange::Same(now) => of(now),
            SourceChange::Grown => of(read),
            SourceChange::Other => Err(RosterError::Modified),
        }
    }

    /// The file as a run has known it, if it is still that one.
    ///
    /// # Errors
    /// The system's.
    pub fn of_known(file: &InputFile, known: SourceFile) -> io::Result<Option<Self>> {
        Ok(match source_change(file, known)? {
            SourceChange::Same(stat) => Some(Self { file: file.clone(), source: SourceFile { stat, ..known } }),
            SourceChange::Grown | SourceChange::Other => None,
        })
    }

    /// Refuses a file that was truncated or rewritten in place since then, or has grown, whatever its name leads to.
    ///
    /// # Errors
    /// [`RosterError::Modified`], [`RosterError::Grown`], and the system's.
    pub fn ensure_unchanged(&mut self) -> Result<(), RosterError> {
        match source_change(&self.file, self.source)? {
            SourceChange::Same(stat) => self.source.stat = stat,
            SourceChange::Grown => return Err(RosterError::Grown),
            SourceChange::Other => return Err(RosterError::Modified),
        }
        Ok(())
    }

    /// Whether another file is to be read under this name by now.
    ///
    /// # Errors
    /// The system's.
    pub fn has_changed(&self, path: &Path) -> io::Result<bool> {
        let now = match InputFile::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
            now => now?,
        };
        Ok(Self::of_known(&now, self.source)?.is_none())
    }
}

/// What has become of a file.
enum SourceChange {
    /// It holds the same, and has these stat fields.
    Same(FileStat),
    /// It holds the same, and more behind it.
    Grown,
    Other,
}

/// Compares a file with what is known of it.
fn source_change(file: &InputFile, known: SourceFile) -> io::Result<SourceChange> {
    let stat = file.fingerprint()?;
    if stat == known.stat {
        return Ok(SourceChange::Same(stat));
    }
    if stat.len < known.stat.len || digest_of(file, known.stat.len)? != known.digest {
        return Ok(SourceChange::Other);
    }
    Ok(if stat.len == known.stat.len { SourceChange::Same(stat) } else { SourceChange::Grown })
}

/// The hash of the first bytes of a file.
fn digest_of(file: &InputFile, bytes: u64) -> io::Result<u64> {
    let (mut reader, mut hash, mut buffer) = (file.reader().take(bytes), Xxh3::default(), vec![0; HASHED_AT_ONCE]);
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(hash.digest()),
            Ok(bytes) => hash.update(&buffer[..bytes]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_file_is_the_same_by_its_stat_fields_or_by_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.csv.gz");
        fs::write(&path, b"first").unwrap();
        let file = InputFile::open(&path).unwrap();
        let (before, read) = (file.fingerprint().unwrap(), (5, digest_of(&file, 5).unwrap()));
        let mut original = Original::of_read(&file, before, read).unwrap();
        assert!(!original.has_changed(&path).unwrap());
        fs::File::open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(Original::of_read(&file, before, read).is_ok() && !original.has_changed(&path).unwrap(), "touched");
        assert!(original.ensure_unchanged().is_ok(), "touched");
        fs::write(&path, b"first and more").unwrap();
        assert!(matches!(original.ensure_unchanged(), Err(RosterError::Grown)) && original.has_changed(&path).unwrap());
        let mut grown = Original::of_read(&file, before, read).unwrap();
        assert!(matches!(grown.ensure_unchanged(), Err(RosterError::Grown)), "grown while it was read");
        fs::write(&path, b"other").unwrap();
        assert!(matches!(Original::of_read(&file, before, read), Err(RosterError::Modified)), "rewritten");
        assert!(matches!(original.ensure_unchanged(), Err(RosterError::Modified)), "rewritten");
        assert!(original.has_changed(&path).unwrap());
        fs::write(folder.path().join("new"), b"first").unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        assert!(!original.has_changed(&path).unwrap(), "another file with the same bytes");
        fs::remove_file(&path).unwrap();
        assert!(original.has_changed(&path).unwrap(), "gone");
    }
}
