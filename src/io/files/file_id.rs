//! Which files a process of ours has made: their names alone don't tell, for somebody else may have taken them.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;
use std::time::SystemTime;

/// One file on a disk, under whatever name, as long as it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
    /// A number is given to another file once the first is gone. 0 where the system doesn't say when a file was made.
    made_ns: u128,
}

impl FileId {
    /// The file that has a name, a link itself; `None` if there is none.
    ///
    /// # Errors
    /// The system's.
    pub fn at(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::symlink_metadata(path) {
            Ok(stat) => Ok(Some(Self::of_stat(&stat))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// An open file.
    ///
    /// # Errors
    /// The system's.
    pub fn of(file: &File) -> io::Result<Self> {
        file.metadata().map(|stat| Self::of_stat(&stat))
    }

    fn of_stat(stat: &Metadata) -> Self {
        let made = stat.created().ok().and_then(|made| made.duration_since(SystemTime::UNIX_EPOCH).ok());
        Self { device: stat.dev(), inode: stat.ino(), made_ns: made.map_or(0, |made| made.as_nanos()) }
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.device, self.inode, self.made_ns)
    }
}

impl FromStr for FileId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut numbers = text.split(' ');
        let mut number = || numbers.next().ok_or(());
        let device = number()?.parse().map_err(|_| ())?;
        let inode = number()?.parse().map_err(|_| ())?;
        let made_ns = number()?.parse().map_err(|_| ())?;
        Ok(Self { device, inode, made_ns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_what_it_is_and_not_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a"), folder.path().join("b"));
        assert_eq!(FileId::at(&path).unwrap(), None);
        let file = File::create(&path).unwrap();
        let id = FileId::of(&file).unwrap();
        assert_eq!(FileId::at(&path).unwrap(), Some(id));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("7 8".parse::<FileId>().is_err() && "".parse::<FileId>().is_err());
        std::fs::rename(&path, &other).unwrap();
        std::fs::write(&path, "somebody's").unwrap();
        assert_eq!(FileId::at(&other).unwrap(), Some(id));
        assert_ne!(FileId::at(&path).unwrap(), Some(id));
    }
}
