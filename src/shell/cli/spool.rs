//! A private copy of an input beside the results, so that a run of what can't be read twice as it stands can be resumed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::signals::Leftover;
use crate::io::files::spool::{self, SpoolError};
use crate::io::files::{folder_of, sync_folder_of};

/// A file that holds an input as UTF-8.
#[derive(Debug)]
pub(super) struct Spool {
    kept: PathBuf,
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

impl Incoming {
    /// Begins a file beside the one that is to be kept. One that a killed process has left half is begun anew.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn new(kept: PathBuf) -> io::Result<Self> {
        let path = incoming_path(&kept);
        let leftover = Leftover::of(&path);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        Ok(Self { kept, file, begun: Begun { path: Some(path), _leftover: leftover } })
    }
}

impl Spool {
    /// What an earlier process has kept.
    pub(super) fn kept(kept: PathBuf) -> Self {
        Self { kept, incoming: None, is_for_nothing: false, _leftover: None }
    }

    /// Reads `text` to its end. An empty one stands for what an earlier process has kept, if it has. `on_progress` is told how much was
    /// written.
    ///
    /// # Errors
    /// As [`spool::fill`]; nothing is left of it then.
    pub(super) fn fill(incoming: Incoming, text: impl Read, on_progress: impl FnMut(u64)) -> Result<Self, SpoolError> {
        let Incoming { kept, mut file, mut begun } = incoming;
        let bytes = spool::fill(text, (&mut file, begun.path()), on_progress)?;
        let incoming = if bytes == 0 && kept.exists() { None } else { begun.path.take() };
        Ok(Self { kept, incoming, is_for_nothing: false, _leftover: Some(begun) })
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
    /// The disk's.
    pub(super) fn keep(&mut self) -> io::Result<bool> {
        let Some(incoming) = &self.incoming else { return Ok(false) };
        let is_new = !self.kept.exists();
        std::fs::rename(incoming, &self.kept)?;
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
        remove(&self.kept);
    }
}

impl Drop for Spool {
    /// What doesn't belong to the run is not left lying about.
    fn drop(&mut self) {
        if let Some(incoming) = &self.incoming {
            remove(incoming);
        }
        if self.is_for_nothing {
            remove(&self.kept);
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

    #[test]
    fn an_input_is_kept_privately_until_the_run_is_finished() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("r.input.csv");
        let fill = |text: &str| Spool::fill(Incoming::new(kept.clone()).unwrap(), text.as_bytes(), |_| {}).unwrap();
        let mut first = fill("UserID\na\n");
        assert!(!kept.exists());
        first.keep().unwrap();
        first.begins();
        assert_eq!(std::fs::read(&kept).unwrap(), b"UserID\na\n");
        assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
        drop(fill("something else"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "what was refused is gone");
        let mut same_again = fill("UserID\na\n");
        same_again.discard_all();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing of a finished run is left");
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
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
