//! Where a run's records come from: a file, or standard input, which is kept so that the run can be resumed.

use std::path::{Path, PathBuf};

use super::access::{Remedies, cannot_use, why_denied};
use super::exit::LastWord;
use super::input;
use super::spool::Spool;
use crate::journal::paths::Paths;

/// Where the records come from.
pub(super) struct Source {
    spool: Option<Spool>,
    file: PathBuf,
}

impl Source {
    pub(super) fn new(file: &Path, paths: &Paths) -> Result<Self, LastWord> {
        let spool = if input::is_stdin(file) {
            Some(Spool::fill(paths.spool(), std::io::stdin().lock()).map_err(|error| cannot_spool(&paths.spool(), &error))?)
        } else {
            is_regular(file)?;
            None
        };
        Ok(Self { spool, file: file.to_owned() })
    }

    pub(super) fn path(&self) -> &Path {
        self.spool.as_ref().map_or(&self.file, Spool::path)
    }

    /// Whether nothing came in on standard input, now or earlier.
    pub(super) fn is_missing(&self) -> bool {
        self.spool.as_ref().is_some_and(Spool::is_empty)
    }

    /// Whether it took a file another name.
    pub(super) fn keep(&mut self) -> Result<bool, LastWord> {
        let Some(spool) = &mut self.spool else { return Ok(false) };
        spool.keep().map_err(|error| cannot_spool(spool.path(), &error))
    }

    pub(super) fn is_done_with(&mut self) {
        if let Some(spool) = &mut self.spool {
            spool.discard_all();
        }
    }
}

/// A pipe can be read once only, and a run must be able to begin again.
fn is_regular(file: &Path) -> Result<(), LastWord> {
    match std::fs::metadata(file) {
        Ok(stat) if !stat.is_file() && !stat.is_dir() => Err(LastWord::yours(
            format!("{} is a pipe or a device", file.display()),
            "give `-` for the file and pipe it in, with --results FILE: it is kept so that the run can be resumed",
        )),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn cannot_spool(path: &Path, error: &std::io::Error) -> LastWord {
    let why = format!("cannot keep standard input in {}: {error}{}", path.display(), why_denied(path, error));
    let place = "it is kept beside the results: check the folder and its permissions, or name another with --results";
    cannot_use(why, error, Remedies { place, disk: "it is kept beside the results; make room there" })
}
