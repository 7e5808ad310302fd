//! Standard input, or another stream, kept in a private file beside the results so that the run can be resumed.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::signals::Leftover;
use crate::io::files::sync_folder_of;

/// A file that holds what came in on standard input.
#[derive(Debug)]
pub(super) struct Spool {
    kept: PathBuf,
    /// What has just come in, while it isn't clear yet whether it belongs to the run.
    incoming: Option<PathBuf>,
    /// It was kept by this process, for a run that has not begun.
    is_for_nothing: bool,
    _leftover: Leftover,
}

impl Spool {
    /// Reads `input` to its end. An empty one stands for what an earlier process has kept, if it has.
    ///
    /// # Errors
    /// The disk's or the input's.
    pub(super) fn fill(kept: PathBuf, mut input: impl Read) -> io::Result<Self> {
        let mut incoming = kept.clone().into_os_string();
        incoming.push(".new");
        let incoming = PathBuf::from(incoming);
        let leftover = Leftover::of(&incoming);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&incoming)?;
        let filled = io::copy(&mut input, &mut file).and_then(|bytes| file.sync_all().map(|()| bytes));
        match filled {
            Ok(0) if kept.exists() => {
                std::fs::remove_file(&incoming)?;
                Ok(Self { kept, incoming: None, is_for_nothing: false, _leftover: leftover })
            }
            Ok(_) => Ok(Self { kept, incoming: Some(incoming), is_for_nothing: false, _leftover: leftover }),
            Err(error) => {
                let _ = std::fs::remove_file(&incoming);
                Err(error)
            }
        }
    }

    /// Whether nothing has come in and nothing was kept.
    pub(super) fn is_empty(&self) -> bool {
        self.incoming.as_deref().is_some_and(|incoming| std::fs::metadata(incoming).is_ok_and(|stat| stat.len() == 0))
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

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "cannot remove the copy of standard input");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_input_is_kept_privately_until_the_run_is_finished() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("r.input.csv");
        let mut first = Spool::fill(kept.clone(), &b"UserID\na\n"[..]).unwrap();
        assert!(!kept.exists());
        first.keep().unwrap();
        first.begins();
        assert_eq!(std::fs::read(&kept).unwrap(), b"UserID\na\n");
        assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
        drop(Spool::fill(kept.clone(), &b"something else"[..]).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "what was refused is gone");
        let mut same_again = Spool::fill(kept.clone(), &b"UserID\na\n"[..]).unwrap();
        same_again.discard_all();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing of a finished run is left");
        let mut first = Spool::fill(kept.clone(), &b"UserID\na\n"[..]).unwrap();
        assert!(!first.is_empty());
        first.keep().unwrap();
        let mut again = Spool::fill(kept.clone(), &b""[..]).unwrap();
        assert_eq!(again.path(), kept);
        again.keep().unwrap();
        assert!(!again.is_empty());
        again.discard_all();
        assert!(Spool::fill(kept.clone(), &b""[..]).unwrap().is_empty());
        let mut for_nothing = Spool::fill(kept.clone(), &b"UserID\na\n"[..]).unwrap();
        for_nothing.keep().unwrap();
        drop(for_nothing);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
