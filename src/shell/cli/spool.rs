//! A private copy of an input beside the results, so that a run of what can't be read twice as it stands can be resumed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::signals::Leftover;
use crate::io::files::file_id::FileId;
use crate::io::files::lock::{Lockfile, noted_files};
use crate::io::files::spool::{self, SpoolError};
use crate::io::files::{folder_of, sync_folder_of};

/// A file that holds an input as UTF-8.
#[derive(Debug)]
pub(super) struct Spool {
    kept: PathBuf,
    /// What has the name: it alone is overwritten and removed. A file that somebody else puts there stays.
    own: Option<FileId>,
    /// What has just come in, while it isn't clear yet whether it belongs to the run.
    incoming: Option<PathBuf>,
    /// It was kept by this process, for a run that has not begun.
    is_for_nothing: bool,
    /// So that a signal removes it.
    _leftover: Option<Begun>,
}

/// A copy that nothing has come into yet.
pub(super) struct Incoming {
    kept: PathBuf,
    /// The copy that an earlier process has kept, if it has.
    own: Option<FileId>,
    file: File,
    begun: Begun,
}

/// A file that is removed again unless it comes to something.
#[derive(Debug)]
struct Begun {
    path: Option<PathBuf>,
    _leftover: Leftover,
}

impl Begun {
    fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(""))
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            remove(path);
        }
    }
}

/// Who says which files are copies of ours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner<'a> {
    /// The lock of the run whose copy it is.
    pub(super) lock: &'a Lockfile,
    /// Whether the run's checkpoint knows the copy that has the name.
    pub(super) is_known: bool,
}

impl Owner<'_> {
    /// The copy that has the name; `None` if nothing has.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if it is somebody else's file.
    fn own_at(self, path: &Path, is_known: bool) -> io::Result<Option<FileId>> {
        let Some(found) = FileId::at(path)? else { return Ok(None) };
        let is_ours = is_known || noted_files(self.lock.path()).contains(&found);
        if is_ours { Ok(Some(found)) } else { Err(io::ErrorKind::AlreadyExists.into()) }
    }
}

impl Incoming {
    /// Begins a file beside the one that is to be kept. One that a killed process has left half is begun anew.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if a name that it needs is somebody else's file, and the system's.
    pub(super) fn new(kept: PathBuf, owner: Owner) -> io::Result<Self> {
        let path = incoming_path(&kept);
        let own = owner.own_at(&kept, owner.is_known)?;
        // A process may have been killed before it could note what it had made: nothing is in it then.
        let has_nothing = std::fs::symlink_metadata(&path).is_ok_and(|stat| stat.is_file() && stat.len() == 0);
        if owner.own_at(&path, has_nothing)?.is_some() {
            std::fs::remove_file(&path)?;
        }
        let leftover = Leftover::of(&path);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let begun = Begun { path: Some(path), _leftover: leftover };
        let made: Vec<FileId> = own.into_iter().chain([FileId::of(&file)?]).collect();
        owner.lock.note_made(&made)?;
        Ok(Self { kept, own, file, begun })
    }
}

impl Spool {
    /// What an earlier process has kept.
    pub(super) fn kept(kept: PathBuf) -> Self {
        let own = FileId::at(&kept).ok().flatten();
        Self { kept, own, incoming: None, is_for_nothing: false, _leftover: None }
    }

    /// Reads `text` to its end. An empty one stands for what an earlier process has kept, if it has. `on_progress` is told how much was
    /// written.
    ///
    /// # Errors
    /// As [`spool::fill`]; nothing is left of it then.
    pub(super) fn fill(incoming: Incoming, text: impl Read, on_progress: impl FnMut(u64)) -> Result<Self, SpoolError> {
        let Incoming { kept, own, mut file, mut begun } = incoming;
        let bytes = spool::fill(text, (&mut file, begun.path()), on_progress)?;
        let incoming = if bytes == 0 && own.is_some() { None } else { begun.path.take() };
        Ok(Self { kept, own, incoming, is_for_nothing: false, _leftover: Some(begun) })
    }

    /// Whether nothing has come in and nothing was kept.
    pub(super) fn is_empty(&self) -> bool {
        self.incoming.as_deref().is_some_and(|incoming| std::fs::metadata(incoming).is_ok_and(|stat| stat.len() == 0))
    }

    /// The name that it has, or will have.
    pub(super) fn kept_path(&self) -> &Path {
        &self.kept
    }

    /// The file to read.
    pub(super) fn path(&self) -> &Path {
        self.incoming.as_deref().unwrap_or(&self.kept)
    }

    /// It belongs to the run: it takes the place of what was kept before, if it has just come in.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if somebody else's file has come under its name, and the disk's.
    pub(super) fn keep(&mut self) -> io::Result<bool> {
        let Some(incoming) = &self.incoming else { return Ok(false) };
        let found = FileId::at(&self.kept)?;
        if found.is_some() && found != self.own {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (is_new, own) = (found.is_none(), FileId::at(incoming)?);
        std::fs::rename(incoming, &self.kept)?;
        self.own = own;
        (self.incoming, self.is_for_nothing) = (None, is_new);
        sync_folder_of(&self.kept)?;
        Ok(true)
    }

    /// The run has begun: it will be resumed from what is kept.
    pub(super) fn begins(&mut self) {
        self.is_for_nothing = false;
    }

    /// The run is finished: nobody needs it any more.
    pub(super) fn discard_all(&mut self) {
        if let Some(incoming) = self.incoming.take() {
            remove(&incoming);
        }
        self.remove_own();
    }

    fn remove_own(&self) {
        if self.own.is_some() && FileId::at(&self.kept).is_ok_and(|found| found == self.own) {
            remove(&self.kept);
        }
    }
}

impl Drop for Spool {
    /// What doesn't belong to the run is not left lying about.
    fn drop(&mut self) {
        if let Some(incoming) = &self.incoming {
            remove(incoming);
        }
        if self.is_for_nothing {
            self.remove_own();
        }
    }
}

/// The name that a copy has until it is whole.
pub(super) fn incoming_path(kept: &Path) -> PathBuf {
    let mut path = kept.to_owned().into_os_string();
    path.push(".new");
    path.into()
}

/// A copy without a name, for a command that is never resumed: it goes with the process, however that ends.
///
/// # Errors
/// As [`spool::fill`].
pub(super) fn unnamed(beside: &Path, text: impl Read, on_progress: impl FnMut(u64)) -> Result<File, SpoolError> {
    let mut file = tempfile::tempfile_in(folder_of(beside)).map_err(SpoolError::Disk)?;
    spool::fill(text, (&mut file, beside), on_progress)?;
    Ok(file)
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "cannot remove the copy of the input");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::files::lock;

    #[test]
    fn an_input_is_kept_privately_until_the_run_is_finished() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("r.input.csv");
        let lock = lock::take(&folder.path().join("lock")).unwrap().unwrap();
        let owner = Owner { lock: &lock, is_known: false };
        let fill = |text: &str| Spool::fill(Incoming::new(kept.clone(), owner).unwrap(), text.as_bytes(), |_| {}).unwrap();
        let names = || std::fs::read_dir(folder.path()).unwrap().count() - 1;
        let mut first = fill("UserID\na\n");
        assert!(!kept.exists());
        first.keep().unwrap();
        first.begins();
        assert_eq!(std::fs::read(&kept).unwrap(), b"UserID\na\n");
        assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
        drop(fill("something else"));
        assert_eq!(names(), 1, "what was refused is gone");
        let mut same_again = fill("UserID\na\n");
        same_again.discard_all();
        assert_eq!(names(), 0, "nothing of a finished run is left");
        let mut first = fill("UserID\na\n");
        assert!(!first.is_empty());
        first.keep().unwrap();
        let mut again = fill("");
        assert_eq!(again.path(), kept);
        again.keep().unwrap();
        assert!(!again.is_empty());
        again.discard_all();
        assert!(fill("").is_empty());
        let mut for_nothing = fill("UserID\na\n");
        for_nothing.keep().unwrap();
        drop(for_nothing);
        assert_eq!(names(), 0);
    }
    #[test]
    fn a_file_of_somebody_else_is_never_overwritten_and_never_removed() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("r.input.csv");
        let lock = lock::take(&folder.path().join("lock")).unwrap().unwrap();
        let begin = |is_known| Incoming::new(kept.clone(), Owner { lock: &lock, is_known });
        let foreign = |path: &Path| {
            std::fs::write(path, "somebody's").unwrap();
            assert_eq!(begin(false).err().map(|error| error.kind()), Some(io::ErrorKind::AlreadyExists), "{}", path.display());
            assert_eq!(std::fs::read(path).unwrap(), b"somebody's");
            std::fs::remove_file(path).unwrap();
        };
        foreign(&kept);
        foreign(&incoming_path(&kept));
        // It comes while the copy is made, or takes the place of what was kept.
        let mut late = Spool::fill(begin(false).unwrap(), &b"a"[..], |_| {}).unwrap();
        std::fs::write(&kept, "somebody's").unwrap();
        assert_eq!(late.keep().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        late.discard_all();
        assert_eq!(std::fs::read(&kept).unwrap(), b"somebody's");
        // What the run knows is its own, and so is what a killed process has left.
        drop(begin(true).unwrap());
        std::fs::remove_file(&kept).unwrap();
        std::mem::forget(begin(false).unwrap());
        std::fs::write(incoming_path(&kept), "half").unwrap();
        let mut next = Spool::fill(begin(false).unwrap(), &b"a"[..], |_| {}).unwrap();
        next.keep().unwrap();
        std::mem::forget(next);
        drop(begin(false).unwrap());
        let mut last = Spool::kept(kept.clone());
        std::fs::rename(&kept, folder.path().join("mine")).unwrap();
        std::fs::write(&kept, "somebody's").unwrap();
        last.discard_all();
        assert_eq!(std::fs::read(&kept).unwrap(), b"somebody's");
    }
}
