//! File names: the folder of a file, and the temporary name under which a file is written before it gets its own.
//!
//! This module does not know what files contain.

pub mod atomic;
pub mod lock;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The folder of a file that is given.
#[must_use]
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
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
