//! The journal writes the results, rejects and checkpoint of a run, so that a crash at any time loses nothing that the checkpoint confirms.
//!
//! A commit appends results and rejects, syncs them, writes the checkpoint under a temporary name, syncs it, renames it and syncs the
//! folder. The checkpoint is the truth: bytes in the files behind the lengths that it records do not count. The journal knows nothing of
//! the input except positions.

mod append_file;
mod backups;
pub mod checkpoint;
pub mod disk;
mod last_calls;
mod opening;
pub mod paths;
mod results_lines;
pub mod results_reader;
mod start_decision;

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::domain::outcome::{OutcomeCounts, RowOutcome};
use crate::domain::position::InputPosition;
use append_file::AppendFile;
use checkpoint::{Checkpoint, RunStatus};
use disk::{Disk, DiskFile};
pub use last_calls::LastCalls;
pub use opening::{OpenError, RunSpec, committed_results, lock, open};
use paths::RunPaths;
pub use results_lines::RESULTS_HEADER;
use results_lines::{RejectLines, ResultLines};
pub use start_decision::{Restart, StartDecision, StartMode, examine, finished_earlier, read_checkpoint};

/// Bytes of results and rejects after which a commit is due. Chosen: 65,536 results of batch mode at their usual length fit, and it is far
/// less than the reorder buffer in front of the journal may hold.
const PENDING_MAX_BYTES: usize = 8 << 20;

/// Receives the outcomes in input order. The journal implements it; tests use a replacement.
pub trait OutcomeSink: Send + 'static {
    type Error: Send + 'static;

    /// Buffers the outcome of the next row; [`Self::commit`] writes it.
    fn buffer(&mut self, settled: RowOutcome);
    /// Records that the rows up to `end` have no outcome of their own.
    fn skip(&mut self, end: InputPosition);
    /// The number of rows buffered and not yet committed.
    fn pending_rows(&self) -> u64;
    /// Whether a commit is due before more is buffered.
    fn is_full(&self) -> bool;
    /// Writes and syncs everything buffered so far.
    ///
    /// # Errors
    /// [`DiskError`] from the journal if a file cannot be written or synced.
    fn commit(&mut self) -> Result<(), Self::Error>;
    /// Commits and records that the run is finished.
    ///
    /// # Errors
    /// The same as [`Self::commit`].
    fn finish(&mut self) -> Result<(), Self::Error>;
}

/// A file could not be read or written, so nothing more can be recorded. Everything committed before stays.
#[derive(Debug, Error)]
#[error("cannot {what} {}", path.display())]
pub struct DiskError {
    pub what: &'static str,
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

impl DiskError {
    fn at<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DiskError + use<'a> {
        move |source| DiskError { what, path: path.to_owned(), source }
    }
}

/// The journal of an open run.
#[derive(Debug)]
pub struct Journal<D: Disk> {
    disk: D,
    paths: RunPaths,
    results: AppendFile<D::File>,
    result_lines: ResultLines,
    /// Created lazily, with the first rejected row.
    rejects: Option<AppendFile<D::File>>,
    reject_lines: RejectLines,
    checkpoint: Checkpoint,
    pending_rows: u64,
    _lock: D::Lock,
}

impl<D: Disk> Journal<D> {
    /// The position up to which every row has its outcome, including those that are not committed yet.
    #[must_use]
    pub fn settled(&self) -> InputPosition {
        self.checkpoint.settled
    }

    /// The number of rows per outcome, those of earlier processes included.
    #[must_use]
    pub fn counts(&self) -> OutcomeCounts {
        self.checkpoint.counts
    }

    fn write_and_sync(&mut self) -> Result<(), DiskError> {
        let results = self.result_lines.take();
        append(&mut self.results, &results)?;
        self.checkpoint.results = self.results.extent();
        let rejects = self.reject_lines.take();
        if rejects.is_empty() {
            return Ok(());
        }
        if self.rejects.is_none() {
            self.rejects = Some(self.begin_rejects()?);
        }
        if let Some(file) = &mut self.rejects {
            append(file, &rejects)?;
            self.checkpoint.rejects = file.extent();
        }
        Ok(())
    }

    fn begin_rejects(&mut self) -> Result<AppendFile<D::File>, DiskError> {
        self.reject_lines.push_header();
        let header = self.reject_lines.take();
        let path = &self.paths.rejects;
        let file = AppendFile::create(&self.disk, path, &header).map_err(DiskError::at("create", path))?;
        self.disk.sync_folder_of(path).map_err(DiskError::at("sync the folder of", path))?;
        Ok(file)
    }
}

fn append<F: DiskFile>(file: &mut AppendFile<F>, lines: &[u8]) -> Result<(), DiskError> {
    if lines.is_empty() {
        return Ok(());
    }
    file.append(lines).map_err(|error| DiskError::at("write", file.path())(error))?;
    file.sync().map_err(|error| DiskError::at("sync", file.path())(error))
}

impl<D: Disk> OutcomeSink for Journal<D> {
    type Error = DiskError;

    fn buffer(&mut self, settled: RowOutcome) {
        self.result_lines.push(&settled);
        if let Some(original) = &settled.original {
            self.reject_lines.push(original, &settled.outcome);
        }
        self.checkpoint.counts.count(settled.outcome.status);
        self.checkpoint.settled = settled.end;
        self.pending_rows += 1;
    }

    fn skip(&mut self, end: InputPosition) {
        self.checkpoint.settled = end;
    }

    fn pending_rows(&self) -> u64 {
        self.pending_rows
    }

    fn is_full(&self) -> bool {
        self.result_lines.bytes() + self.reject_lines.bytes() >= PENDING_MAX_BYTES
    }

    fn commit(&mut self) -> Result<(), DiskError> {
        self.write_and_sync()?;
        write_checkpoint(&self.disk, &self.paths, &self.checkpoint)?;
        self.pending_rows = 0;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), DiskError> {
        self.checkpoint.state = RunStatus::Finished;
        self.commit()
    }
}

/// Replaces the checkpoint atomically: a reader finds the old one or the new one, complete.
fn write_checkpoint<D: Disk>(disk: &D, paths: &RunPaths, checkpoint: &Checkpoint) -> Result<(), DiskError> {
    let aside = paths.new_checkpoint();
    let bytes = checkpoint.encode();
    let write = || {
        let mut file = disk.open(&aside)?;
        file.set_len(0)?;
        file.write_all_at(&bytes, 0)?;
        file.sync()
    };
    write().map_err(DiskError::at("write", &aside))?;
    disk.rename(&aside, &paths.checkpoint).map_err(DiskError::at("replace", &paths.checkpoint))?;
    disk.sync_folder_of(&paths.checkpoint).map_err(DiskError::at("sync the folder of", &paths.checkpoint))
}

/// The first `max` bytes of a file; `None` if it does not exist.
fn read_prefix<D: Disk>(disk: &D, path: &Path, max: u64) -> Result<Option<Vec<u8>>, DiskError> {
    let Some(len) = disk.len(path).map_err(DiskError::at("read", path))? else { return Ok(None) };
    let mut bytes = vec![0; usize::try_from(len.min(max)).unwrap_or_default()];
    let file = disk.open(path).map_err(DiskError::at("read", path))?;
    file.read_exact_at(&mut bytes, 0).map_err(DiskError::at("read", path))?;
    Ok(Some(bytes))
}
