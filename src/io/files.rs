//! File names: the folder of a file, and the temporary name under which a file is written before it gets its own.
//!
//! This module does not know what files contain.

pub mod atomic;
pub mod file_id;
pub mod lock;
pub mod spool;

use std::ffi::OsString;
use std::fs::{File, FileType};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Links that are followed to a file that isn't there. Source: the kernel's own limit.
const LINKS_MAX: u32 = 40;

/// The folder of a file that is given.
#[must_use]
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The path without links and detours, even if nothing is where they lead.
#[must_use]
pub fn resolved(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let Ok(to) = std::fs::read_link(&path) else { break };
        path = folder_of(&path).join(to);
    }
    path.canonicalize().unwrap_or_else(|_| match folder_of(&path).canonicalize() {
        Ok(folder) => folder.join(path.file_name().unwrap_or_default()),
        Err(_) => path,
    })
}

/// What a path is that is no regular file.
#[must_use]
pub fn describe(kind: FileType) -> &'static str {
    match kind {
        _ if kind.is_dir() => "a folder",
        _ if kind.is_fifo() => "a pipe",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

/// Makes the names in the folder of `path` last.
///
/// # Errors
/// The disk's.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

/// A hidden name beside the file, on the same disk.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for a path that names no file.
pub fn aside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "it names no file"))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".tmp");
    Ok(path.with_file_name(hidden))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_folder_and_a_hidden_name_beside_it() {
        for (path, folder, hidden) in [("a.csv", ".", ".a.csv.tmp"), ("x/a.csv", "x", "x/.a.csv.tmp"), ("/a.csv", "/", "/.a.csv.tmp")] {
            assert_eq!((folder_of(Path::new(path)), aside(Path::new(path)).unwrap()), (Path::new(folder), PathBuf::from(hidden)));
        }
        assert_eq!(aside(Path::new("..")).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
