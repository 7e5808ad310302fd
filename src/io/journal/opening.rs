//! Opens the files of a run, as `start_decision` decided. What must not be overwritten goes to `backups` first.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use csv::ByteRecord;
use thiserror::Error;

use super::append_file::AppendFile;
use super::backups::{rename_to_backups, set_aside, set_aside_strays};
use super::checkpoint::{Checkpoint, CheckpointError, Extent, RunKind, RunStatus};
use super::disk::{Disk, OsDisk};
use super::paths::RunPaths;
use super::results_lines::{RESULTS_HEADER, RejectLines, ResultLines};
use super::start_decision::{StartMode, read_checkpoint};
use super::{DiskError, Journal, write_checkpoint};
use crate::domain::outcome::OutcomeCounts;
use crate::domain::position::{ColumnLayout, FileStat, InputPosition, ReadAs, SourceFile};
use crate::domain::target::Target;

/// The run that is about to start.
#[derive(Debug, Clone)]
pub struct RunSpec {
    pub work: RunKind,
    pub target: Target,
    pub input: FileStat,
    /// The file that the input is a copy of, if there is one.
    pub source: Option<SourceFile>,
    pub reading: ColumnLayout,
    /// The input's header, for the rejects file.
    pub header: ByteRecord,
    /// The delimiter of the rejects file.
    pub rejects_delimiter: u8,
    /// The position behind the header.
    pub start: InputPosition,
}

/// Why a run cannot start.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error("another chatlift is at work on {}", checkpoint.display())]
    Locked { checkpoint: PathBuf, lock: PathBuf },
    #[error("there are results at {} but no checkpoint at {}", results.display(), checkpoint.display())]
    NoCheckpoint { results: PathBuf, checkpoint: PathBuf },
    #[error("there is a checkpoint at {} but no results at {}", checkpoint.display(), results.display())]
    NoResults { checkpoint: PathBuf, results: PathBuf },
    #[error("the checkpoint {} cannot be used: {why}", path.display())]
    Checkpoint { path: PathBuf, why: CheckpointError },
    #[error("the unfinished run was {was}, this one is {is}")]
    OtherCommand { was: RunKind, is: RunKind },
    #[error("the earlier run imported into {was}, this one into {is}")]
    OtherTarget { was: Box<Target>, is: Box<Target> },
    #[error("the unfinished run read the columns differently: {}", differences.join("; "))]
    OtherColumns { differences: Vec<String>, newly_read: Vec<ReadAs> },
    #[error("the checkpoint {} belongs to results or rejects of other names", checkpoint.display())]
    OtherFiles { checkpoint: PathBuf },
    #[error("{}", changed(*rows))]
    InputChanged { rows: u64 },
    #[error("{} is not what the checkpoint says of it", path.display())]
    ResultsChanged { path: PathBuf },
    #[error("cannot read the input")]
    Input(#[source] io::Error),
    #[error(transparent)]
    Disk(#[from] DiskError),
}

fn changed(rows: u64) -> String {
    match rows {
        1 => "the first row of the input, which is processed, has changed since".to_owned(),
        _ => format!("the first {rows} rows of the input, which are processed, have changed since"),
    }
}

/// Locks a run's files. None of them may be read without the lock.
///
/// # Errors
/// [`OpenError::Locked`] if another process has the lock; [`OpenError::Disk`] if the lock file cannot be opened.
pub fn lock<D: Disk>(disk: &D, paths: &RunPaths) -> Result<D::Lock, OpenError> {
    let path = paths.lock();
    let taken = disk.lock(&path).map_err(DiskError::at("lock", &path))?;
    taken.ok_or_else(|| OpenError::Locked { checkpoint: paths.checkpoint.clone(), lock: path })
}

/// Opens the journal as [`examine`](super::examine) decided under the same lock.
///
/// # Errors
/// [`OpenError::ResultsChanged`] if results or rejects differ from what the checkpoint recorded (nothing is changed then);
/// [`OpenError::Disk`] if a file cannot be written.
pub fn open<D: Disk>(
    start: StartMode,
    (disk, lock): (D, D::Lock),
    paths: RunPaths,
    spec: RunSpec,
    now: SystemTime,
) -> Result<Journal<D>, OpenError> {
    let set_aside = match start {
        StartMode::Resume { checkpoint, .. } => return resume((disk, lock), paths, spec, *checkpoint),
        StartMode::Afresh => set_aside_strays(&disk, &paths, spec.work, now)?,
        StartMode::SetAside => Some(set_aside(&disk, &paths, now)?),
        StartMode::GoOnSettingAside { stamp } => {
            rename_to_backups(&disk, &paths, &stamp)?;
            Some(stamp)
        }
    };
    if let Some(stamp) = set_aside {
        tracing::info!("the files of an earlier run are renamed and kept, under names with {stamp}");
    }
    Ok(begin((disk, lock), paths, spec)?)
}

/// The committed part of the results; `None` if the file does not match the checkpoint.
///
/// # Errors
/// [`io::Error`] if the file cannot be opened.
pub fn committed_results(paths: &RunPaths) -> io::Result<Option<io::Take<File>>> {
    let Some(Checkpoint { results: extent, .. }) = read_checkpoint(&OsDisk, paths) else { return Ok(None) };
    if reopen(&OsDisk, &paths.results, extent).is_err() {
        return Ok(None);
    }
    Ok(Some(File::open(&paths.results)?.take(extent.len)))
}

fn begin<D: Disk>((disk, mut lock): (D, D::Lock), paths: RunPaths, spec: RunSpec) -> Result<Journal<D>, DiskError> {
    let (results, checkpoint) = first_files(&disk, &paths, &spec).inspect_err(|_| remove_failed_start(&disk, &paths))?;
    disk.keep(&mut lock);
    let reject_lines = RejectLines::new(spec.header, &spec.reading, spec.rejects_delimiter);
    Ok(Journal {
        disk,
        paths,
        results,
        result_lines: ResultLines::new(),
        rejects: None,
        reject_lines,
        checkpoint,
        pending_rows: 0,
        _lock: lock,
    })
}

fn first_files<D: Disk>(disk: &D, paths: &RunPaths, spec: &RunSpec) -> Result<(AppendFile<D::File>, Checkpoint), DiskError> {
    let path = &paths.results;
    let mut results = AppendFile::create(disk, path, RESULTS_HEADER.as_bytes()).map_err(DiskError::at("create", path))?;
    results.sync().map_err(DiskError::at("sync", path))?;
    disk.sync_folder_of(path).map_err(DiskError::at("sync the folder of", path))?;
    let checkpoint = Checkpoint {
        state: RunStatus::Unfinished,
        work: spec.work,
        target: spec.target.clone(),
        reading: spec.reading.clone(),
        names: paths.names(),
        input: spec.input,
        source: spec.source,
        settled: spec.start,
        results: results.extent(),
        rejects: Extent::new(0, b""),
        counts: OutcomeCounts::default(),
    };
    write_checkpoint(disk, paths, &checkpoint)?;
    Ok((results, checkpoint))
}

/// Removes the files of a start that failed. If the checkpoint already has its name, the run has begun and its files stay.
fn remove_failed_start<D: Disk>(disk: &D, paths: &RunPaths) {
    if !matches!(disk.len(&paths.checkpoint), Ok(None)) {
        return;
    }
    for path in [paths.new_checkpoint(), paths.results.clone()] {
        // The first failure is the one that is reported.
        let _ = disk.remove(&path);
    }
}

fn resume<D: Disk>(
    (disk, mut lock): (D, D::Lock),
    paths: RunPaths,
    spec: RunSpec,
    mut checkpoint: Checkpoint,
) -> Result<Journal<D>, OpenError> {
    let mut results = reopen(&disk, &paths.results, checkpoint.results)?;
    let mut rejects = if checkpoint.rejects.len == 0 { None } else { Some(reopen(&disk, &paths.rejects, checkpoint.rejects)?) };
    results.cut().map_err(DiskError::at("cut", &paths.results))?;
    match &mut rejects {
        Some(rejects) => rejects.cut().map_err(DiskError::at("cut", &paths.rejects))?,
        None => remove_if_there(&disk, &paths.rejects)?,
    }
    (checkpoint.input, checkpoint.source) = (spec.input, spec.source);
    disk.keep(&mut lock);
    let reject_lines = RejectLines::new(spec.header, &spec.reading, spec.rejects_delimiter);
    Ok(Journal { disk, paths, results, result_lines: ResultLines::new(), rejects, reject_lines, checkpoint, pending_rows: 0, _lock: lock })
}

fn reopen<D: Disk>(disk: &D, path: &Path, extent: Extent) -> Result<AppendFile<D::File>, OpenError> {
    let file = AppendFile::reopen(disk, path, extent).map_err(DiskError::at("read", path))?;
    file.ok_or_else(|| OpenError::ResultsChanged { path: path.to_owned() })
}

/// Removes the rejects file of a commit that was never completed.
fn remove_if_there<D: Disk>(disk: &D, path: &Path) -> Result<(), DiskError> {
    if disk.len(path).map_err(DiskError::at("read", path))?.is_none() {
        return Ok(());
    }
    disk.remove(path).map_err(DiskError::at("remove", path))?;
    disk.sync_folder_of(path).map_err(DiskError::at("sync the folder of", path))
}
