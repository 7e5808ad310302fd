//! Where a run's records come from: a file, or a stream that is kept in a file so that the run can be resumed.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::access::{Remedies, cannot_use, why_denied};
use super::input;
use super::spool::Spool;
use crate::io::journal::paths::RunPaths;
use crate::shell::exit::ExitMessage;

/// Where the records come from.
pub(super) struct Source {
    spool: Option<Spool>,
    file: PathBuf,
}

impl Source {
    pub(super) fn new(file: &Path, paths: &RunPaths) -> Result<Self, ExitMessage> {
        let spool = if input::is_stdin(file) {
            Some(spooled(std::io::stdin().lock(), file, paths)?)
        } else if input::is_stream(file) {
            // Of a pipe this waits for whoever writes it, as standard input does; a signal ends that.
            let stream = File::open(file).map_err(|error| input::roster_error(file, &error.into()))?;
            Some(spooled(stream, file, paths)?)
        } else {
            None
        };
        Ok(Self { spool, file: file.to_owned() })
    }

    /// The run has begun, and will be resumed from what is kept.
    pub(super) fn begins(&mut self) {
        if let Some(spool) = &mut self.spool {
            spool.begins();
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.spool.as_ref().map_or(&self.file, Spool::path)
    }

    /// Whether nothing came in from what can't be read twice, now or earlier.
    pub(super) fn is_missing(&self) -> bool {
        self.spool.as_ref().is_some_and(Spool::is_empty)
    }

    /// Whether it took a file another name.
    pub(super) fn keep(&mut self) -> Result<bool, ExitMessage> {
        let Some(spool) = &mut self.spool else { return Ok(false) };
        spool.keep().map_err(|error| cannot_spool(&self.file, spool.path(), &error))
    }

    pub(super) fn is_done_with(&mut self) {
        if let Some(spool) = &mut self.spool {
            spool.discard_all();
        }
    }
}

fn spooled(stream: impl Read, file: &Path, paths: &RunPaths) -> Result<Spool, ExitMessage> {
    Spool::fill(paths.spool(), stream).map_err(|error| cannot_spool(file, &paths.spool(), &error))
}

fn cannot_spool(file: &Path, path: &Path, error: &std::io::Error) -> ExitMessage {
    let why = format!("cannot keep {} in {}: {error}{}", input::shown(file), path.display(), why_denied(path, error));
    let place = "it is kept beside the results: check the folder and its permissions, or name another with --results";
    cannot_use(why, error, Remedies { place, disk: "it is kept beside the results; make room there" })
}
