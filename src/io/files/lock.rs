//! Lock files: one process at a time works on a file; its lock is a file beside it, with `.lock` added to the name.
//!
//! The kernel holds the lock and releases it when its process ends, however that ends. The lock file may stay. It is removed only if it
//! was created for nothing, and while its lock is held. So a process that gets the lock makes sure that the name still leads to the file
//! it has locked.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::file_id::FileId;

/// How often the lock of a file that is going is tried. Chosen: each time means that another process has begun and ended in between.
const TRIES_MAX: u32 = 100;
/// Opens no link, and waits for no pipe.
const NO_LINK: i32 = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits().cast_signed();

/// A lock that is held as long as this lives.
#[derive(Debug)]
pub struct Lockfile {
    file: File,
    path: PathBuf,
    /// This process has made the file, and nothing has begun under it.
    is_for_nothing: bool,
}

/// Takes the lock; `None` if another process has it.
///
/// # Errors
/// The disk's.
pub fn take(path: &Path) -> io::Result<Option<Lockfile>> {
    let mut last = io::Error::from(ErrorKind::NotFound);
    for _ in 0..TRIES_MAX {
        let (file, is_for_nothing) = match open(path) {
            Ok(opened) => opened,
            // It has gone between two looks, or it is a link that leads nowhere.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                last = error;
                continue;
            }
            Err(error) => return Err(error),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(None),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
        if is_named(&file, path)? {
            return Ok(Some(Lockfile { file, path: path.to_owned(), is_for_nothing }));
        }
    }
    Err(last)
}

/// Makes a new file that only this process works on, in the place of one that a crash has left; `None` if another process has it. Where
/// files can't be locked, nobody is kept off.
///
/// # Errors
/// The disk's.
pub fn take_new(path: &Path, mode: u32) -> io::Result<Option<File>> {
    let mut last = io::Error::from(ErrorKind::AlreadyExists);
    for _ in 0..TRIES_MAX {
        match OpenOptions::new().write(true).create_new(true).mode(mode).open(path) {
            Ok(file) => match file.try_lock() {
                Err(fs::TryLockError::Error(_)) => return Ok(Some(file)),
                Ok(()) if is_named(&file, path)? => return Ok(Some(file)),
                // Another process has taken it for one that a crash has left.
                Ok(()) | Err(fs::TryLockError::WouldBlock) => {}
            },
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if is_at_work(path)? {
                    return Ok(None);
                }
                last = error;
            }
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// Whether another process works on the file. One that nobody works on is removed.
fn is_at_work(path: &Path) -> io::Result<bool> {
    let file = match OpenOptions::new().read(true).custom_flags(NO_LINK).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        // A link, or what can't be read, is no file that a process of this kind works on.
        Err(_) => return fs::remove_file(path).map(|()| false),
    };
    match file.try_lock() {
        Err(fs::TryLockError::WouldBlock) => Ok(true),
        Ok(()) | Err(fs::TryLockError::Error(_)) => {
            if is_named(&file, path)? {
                fs::remove_file(path)?;
            }
            Ok(false)
        }
    }
}

fn open(path: &Path) -> io::Result<(File, bool)> {
    let new = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
    match new {
        Ok(file) => Ok((file, true)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            OpenOptions::new().read(true).write(true).open(path).map(|file| (file, false))
        }
        Err(error) => Err(error),
    }
}

/// Whether the name leads to this very file.
fn is_named(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

impl Lockfile {
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file goes with the lock.
    #[must_use]
    pub fn is_for_nothing(&self) -> bool {
        self.is_for_nothing
    }

    /// Notes which files were made under it, for whoever gets the lock after a kill. When it was last written is left as it was: that says
    /// something of its own.
    ///
    /// # Errors
    /// The disk's.
    pub fn note_made(&self, files: &[FileId]) -> io::Result<()> {
        let modified = self.file.metadata()?.modified()?;
        // The first byte may be overwritten, by who may not set the time of another's file.
        let text = files.iter().fold("\n".to_owned(), |text, file| format!("{text}{file}\n"));
        // Written first and cut then: a kill in between leaves the new notes, and behind them a rest that is no file's.
        self.file.write_all_at(text.as_bytes(), 0)?;
        self.file.set_len(text.len() as u64)?;
        // Only the owner may set it; others only cost the next process a second.
        let _ = self.file.set_modified(modified);
        self.file.sync_all()
    }

    /// Something has begun under it: the file stays.
    pub fn keep(&mut self) {
        self.is_for_nothing = false;
    }
}

impl Drop for Lockfile {
    fn drop(&mut self) {
        if self.is_for_nothing {
            // Where it can't be removed it stays, as it does after a kill.
            let _ = fs::remove_file(&self.path);
        }
        // Whatever becomes of this, the lock ends with the last process that has the file open.
        let _ = self.file.unlock();
    }
}

/// The files that were made under a lock, now or by a process that was killed.
#[must_use]
pub fn noted_files(path: &Path) -> Vec<FileId> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// The process that holds the lock, as far as the system shows it. The file doesn't say it: what it says would outlive a kill.
#[must_use]
pub fn holder(path: &Path) -> Option<u32> {
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let holders = holders(&locks, fs::metadata(path).ok()?.ino());
    match holders.as_slice() {
        [one] => Some(*one),
        // The same number of a file on two disks, or a system that keeps no list: who of them has the file open?
        several => processes().find(|pid| (several.is_empty() || several.contains(pid)) && has_open(*pid, path)),
    }
}

/// All processes but this one.
fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|pid| *pid != std::process::id())
}

fn has_open(pid: u32, path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    open.into_iter().any(|entry| fs::read_link(entry.path()).is_ok_and(|open| open == path))
}

/// The processes that hold an exclusive lock on a whole file of this number, by the kernel's list: `1: FLOCK ADVISORY WRITE 812 fe:00:1234 0 EOF`.
fn holders(locks: &str, inode: u64) -> Vec<u32> {
    let holder = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // A process that waits is marked by `->`, and holds nothing.
        let [_, _, _, "WRITE", pid, file, ..] = words.as_slice() else { return None };
        (file.rsplit(':').next()?.parse() == Ok(inode)).then(|| pid.parse().ok()).flatten().filter(|pid| *pid != 0)
    };
    locks.lines().filter_map(holder).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_has_a_holder_and_its_file_goes_with_it_if_nothing_has_begun() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.json.lock");
        let lock = take(&path).unwrap().unwrap();
        assert!(take(&path).unwrap().is_none());
        assert_eq!(holder(&path), Some(std::process::id()));
        drop(lock);
        assert!(!path.exists());
        assert_eq!(holder(&path), None);
    }

    #[test]
    fn a_file_that_was_there_or_under_which_something_began_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.json.lock");
        let mut lock = take(&path).unwrap().unwrap();
        lock.keep();
        drop(lock);
        assert_eq!(fs::read(&path).unwrap(), b"");
        drop(take(&path).unwrap());
        assert!(path.exists() && holder(&path).is_none());
    }

    #[test]
    fn what_was_made_under_a_lock_is_known_to_the_next_and_changes_no_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checkpoint.json.lock");
        let mut lock = take(&path).unwrap().unwrap();
        lock.file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let made = FileId::of(&File::create(folder.path().join("a")).unwrap()).unwrap();
        lock.note_made(&[made, made]).unwrap();
        lock.note_made(&[made]).unwrap();
        lock.keep();
        drop(lock);
        assert_eq!(noted_files(&path), [made]);
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), std::time::SystemTime::UNIX_EPOCH);
        assert_eq!(noted_files(&folder.path().join("none")), []);
    }

    #[test]
    fn a_new_file_is_one_process_and_takes_the_place_of_what_a_crash_has_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".results.csv.tmp");
        fs::write(&path, "left").unwrap();
        let file = take_new(&path, 0o600).unwrap().unwrap();
        assert_eq!((fs::read(&path).unwrap(), file.metadata().unwrap().mode() & 0o777), (Vec::new(), 0o600));
        assert!(take_new(&path, 0o600).unwrap().is_none() && is_named(&file, &path).unwrap());
        assert_eq!(holder(&path), Some(std::process::id()));
        drop(file);
        fs::remove_file(&path).unwrap();
        // What a link leads to is left alone.
        fs::write(folder.path().join("other"), "kept").unwrap();
        std::os::unix::fs::symlink("other", &path).unwrap();
        assert!(take_new(&path, 0o600).unwrap().is_some());
        assert_eq!(fs::read(folder.path().join("other")).unwrap(), b"kept");
    }

    #[test]
    fn a_lock_on_a_file_that_has_lost_its_name_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.lock");
        let file = File::create(&path).unwrap();
        assert!(is_named(&file, &path).unwrap());
        fs::remove_file(&path).unwrap();
        assert!(!is_named(&file, &path).unwrap());
        fs::write(&path, "").unwrap();
        assert!(!is_named(&file, &path).unwrap(), "another file has the name");
    }

    #[test]
    fn a_name_that_leads_nowhere_is_an_error_and_no_loop() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.lock");
        std::os::unix::fs::symlink("missing/folder", &path).unwrap();
        assert_eq!(take(&path).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn holders_are_read_off_the_kernels_list() {
        let locks = "1: FLOCK  ADVISORY  WRITE 812 fe:00:1234 0 EOF\n2: -> FLOCK ADVISORY WRITE 813 fe:00:1234 0 EOF\n\
                     3: POSIX  ADVISORY  READ 814 fe:00:1234 0 EOF\n4: OFDLCK ADVISORY  WRITE 815 00:2c:12345 0 EOF\nnoise\n";
        assert_eq!(holders(locks, 1234), [812]);
        assert_eq!(holders(locks, 12345), [815]);
        assert_eq!(holders(locks, 234), [0_u32; 0]);
    }

    /// Processes that begin for nothing remove the file that others have open: still at most one has the lock at a time.
    #[test]
    fn locks_that_come_and_go_are_never_held_twice() {
        use std::sync::atomic::{AtomicU32, Ordering};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.lock");
        let (held, taken) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let Some(lock) = take(&path).unwrap() else { continue };
                        assert_eq!(held.fetch_add(1, Ordering::SeqCst), 0, "two have it");
                        taken.fetch_add(1, Ordering::SeqCst);
                        held.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
        // The file itself may stay where one process made it and another one got the first lock on it.
        assert!(taken.load(Ordering::SeqCst) > 100, "{taken:?}");
    }
}
