//! Decides how a run starts: from the beginning, where an earlier run stopped, or not at all because everything is done.
//!
//! It reads and decides first. If files do not belong together, it changes nothing.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use csv::ByteRecord;
use thiserror::Error;

use super::append_file::AppendFile;
use super::checkpoint::{self, Checkpoint, CheckpointError, Extent, RunKind, RunStatus};
use super::disk::{Disk, DiskFile, OsDisk};
use super::lines::{RESULTS_HEADER, RejectLines, ResultLines};
use super::paths::{self, RunPaths, stamp};
use super::{DiskError, Journal, write_checkpoint};
use crate::domain::outcome::OutcomeCounts;
use crate::domain::position::{ColumnLayout, FileStat, InputChange, InputPosition, ReadAs, SourceFile};
use crate::domain::target::Target;

/// How many dated names are tried. Chosen.
const STAMPS_MAX: u32 = 1_000;

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

/// Whether the caller asked to start from the beginning (`--restart`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    Asked,
    No,
}

/// The decision about the files of an earlier run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartDecision {
    /// An earlier process finished the run, so there is nothing to do.
    Finished {
        tally: OutcomeCounts,
    },
    Run(StartMode),
}

/// How the run starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartMode {
    /// There are no files of an earlier run.
    Afresh,
    /// From the beginning; the existing files are renamed and kept as backups.
    SetAside,
    /// Finish renaming the files to backups under `stamp` after a crash, then start from the beginning.
    GoOnSettingAside { stamp: String },
    /// Continue where the earlier process stopped. `input` says whether the file changed behind the rows that have their outcome.
    Resume { checkpoint: Box<Checkpoint>, input: InputChange },
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

/// The files of an earlier run.
enum EarlierRun {
    /// There are no files, or a start that failed left some.
    Nothing,
    Results,
    Unusable(OpenError),
    Run(Box<Checkpoint>),
}

/// Reads the files of an earlier run and decides how to start; it changes nothing. `compare` compares the input with the one that the
/// earlier run has read. An import calls it only if the `FileStat` differs, a sync always.
///
/// # Errors
/// [`OpenError`] if the files do not belong together or cannot be read.
pub fn examine<D: Disk>(
    disk: &D,
    paths: &RunPaths,
    spec: &RunSpec,
    restart: Restart,
    compare: impl FnOnce(&Checkpoint) -> io::Result<InputChange>,
) -> Result<StartDecision, OpenError> {
    let found = look(disk, paths)?;
    let wants_results =
        matches!(&found, EarlierRun::Run(checkpoint) if matches!(checkpoint.state, RunStatus::Unfinished | RunStatus::Finished));
    if restart == Restart::No && wants_results && disk.len(&paths.results).map_err(DiskError::at("read", &paths.results))?.is_none() {
        return Err(OpenError::NoResults { checkpoint: paths.checkpoint.clone(), results: paths.results.clone() });
    }
    decide_start(found, paths, spec, restart, compare)
}

/// Returns the checkpoint of a run of `target` that an earlier process has finished; `None` if there is none. It serves when the input can
/// no longer be read.
///
/// # Errors
/// [`OpenError::Disk`] if the files cannot be read.
pub fn finished_earlier<D: Disk>(disk: &D, paths: &RunPaths, target: &Target) -> Result<Option<Box<Checkpoint>>, OpenError> {
    Ok(match look(disk, paths)? {
        EarlierRun::Run(checkpoint) if checkpoint.state == RunStatus::Finished && checkpoint.target == *target => Some(checkpoint),
        EarlierRun::Run(_) | EarlierRun::Nothing | EarlierRun::Results | EarlierRun::Unusable(_) => None,
    })
}

/// Opens the journal as [`examine`] decided under the same lock.
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

fn look<D: Disk>(disk: &D, paths: &RunPaths) -> Result<EarlierRun, OpenError> {
    sync_folders(disk, paths)?;
    let Some(bytes) = read_prefix(disk, &paths.checkpoint, checkpoint::MAX_BYTES)? else {
        return Ok(if at_most_the_header(disk, &paths.results)? { EarlierRun::Nothing } else { EarlierRun::Results });
    };
    Ok(match Checkpoint::decode(&bytes) {
        Err(why) => EarlierRun::Unusable(OpenError::Checkpoint { path: paths.checkpoint.clone(), why }),
        Ok(checkpoint) => EarlierRun::Run(Box::new(checkpoint)),
    })
}

/// The checkpoint; `None` if it does not exist or cannot be read.
pub fn read_checkpoint<D: Disk>(disk: &D, paths: &RunPaths) -> Option<Checkpoint> {
    let bytes = read_prefix(disk, &paths.checkpoint, checkpoint::MAX_BYTES).ok()??;
    Checkpoint::decode(&bytes).ok()
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

/// Syncs the folders of all files. An earlier process may have been killed between a rename and the sync of its folder, and the decision
/// relies on names that must still be there, or be gone, after a power loss.
fn sync_folders<D: Disk>(disk: &D, paths: &RunPaths) -> Result<(), DiskError> {
    paths.all().into_iter().try_for_each(|path| disk.sync_folder_of(path).map_err(DiskError::at("sync the folder of", path)))
}

/// The first `max` bytes of a file; `None` if it does not exist.
fn read_prefix<D: Disk>(disk: &D, path: &Path, max: u64) -> Result<Option<Vec<u8>>, DiskError> {
    let Some(len) = disk.len(path).map_err(DiskError::at("read", path))? else { return Ok(None) };
    let mut bytes = vec![0; usize::try_from(len.min(max)).unwrap_or_default()];
    let file = disk.open(path).map_err(DiskError::at("read", path))?;
    file.read_exact_at(&mut bytes, 0).map_err(DiskError::at("read", path))?;
    Ok(Some(bytes))
}

/// Whether a results file has no rows yet. After a crash it may contain a part of the header, or zeros in its place.
fn at_most_the_header<D: Disk>(disk: &D, path: &Path) -> Result<bool, DiskError> {
    let header = RESULTS_HEADER.as_bytes();
    let held = read_prefix(disk, path, header.len() as u64 + 1)?.unwrap_or_default();
    Ok(held.len() <= header.len() && held.iter().zip(header).all(|(held, header)| held == header || *held == 0))
}

fn decide_start(
    found: EarlierRun,
    paths: &RunPaths,
    spec: &RunSpec,
    restart: Restart,
    compare: impl FnOnce(&Checkpoint) -> io::Result<InputChange>,
) -> Result<StartDecision, OpenError> {
    let checkpoint = match (found, restart) {
        (EarlierRun::Nothing, _) => return Ok(StartDecision::Run(StartMode::Afresh)),
        (EarlierRun::Run(checkpoint), Restart::Asked | Restart::No) if matches!(checkpoint.state, RunStatus::SettingAside { .. }) => {
            let RunStatus::SettingAside { stamp } = checkpoint.state else { unreachable!("the guard has seen it") };
            return Ok(StartDecision::Run(StartMode::GoOnSettingAside { stamp }));
        }
        (EarlierRun::Results | EarlierRun::Unusable(_) | EarlierRun::Run(_), Restart::Asked) => {
            return Ok(StartDecision::Run(StartMode::SetAside));
        }
        (EarlierRun::Results, Restart::No) => {
            return Err(OpenError::NoCheckpoint { results: paths.results.clone(), checkpoint: paths.checkpoint.clone() });
        }
        (EarlierRun::Unusable(why), Restart::No) => return Err(why),
        (EarlierRun::Run(checkpoint), Restart::No) => checkpoint,
    };
    let is_unfinished = checkpoint.state == RunStatus::Unfinished;
    let is_akin = checkpoint.work.is_akin_to(spec.work);
    let is_sync = matches!(spec.work, RunKind::Sync { .. });
    if is_unfinished && !is_akin {
        return Err(OpenError::OtherCommand { was: checkpoint.work, is: spec.work });
    }
    if !is_unfinished && (is_sync || !is_akin) {
        return Ok(StartDecision::Run(StartMode::SetAside));
    }
    if checkpoint.target != spec.target {
        return Err(OpenError::OtherTarget { was: Box::new(checkpoint.target), is: Box::new(spec.target.clone()) });
    }
    if is_unfinished && checkpoint.names != paths.names() {
        return Err(OpenError::OtherFiles { checkpoint: paths.checkpoint.clone() });
    }
    if is_sync {
        return resume_or_set_aside(checkpoint, spec, compare);
    }
    let differences = spec.reading.differences(&checkpoint.reading);
    if !is_unfinished && !differences.is_empty() {
        return Ok(StartDecision::Run(StartMode::SetAside));
    }
    let is_untouched = checkpoint.input == spec.input;
    let input = if is_untouched { InputChange::Same } else { compare(&checkpoint).map_err(OpenError::Input)? };
    if is_unfinished && input == InputChange::ChangedWithin {
        return Err(OpenError::InputChanged { rows: checkpoint.settled.rows });
    }
    if !differences.is_empty() {
        let newly_read = spec.reading.newly_read(&checkpoint.reading).collect();
        return Err(OpenError::OtherColumns { differences, newly_read });
    }
    Ok(match (is_unfinished, input) {
        (true, _) => StartDecision::Run(StartMode::Resume { checkpoint, input }),
        (false, InputChange::Same) => StartDecision::Finished { tally: checkpoint.tally },
        (false, InputChange::ChangedAfter | InputChange::ChangedWithin) => StartDecision::Run(StartMode::SetAside),
    })
}

/// A sync is resumed only with the same file and columns; otherwise its files are renamed to backups.
fn resume_or_set_aside(
    checkpoint: Box<Checkpoint>,
    spec: &RunSpec,
    compare: impl FnOnce(&Checkpoint) -> io::Result<InputChange>,
) -> Result<StartDecision, OpenError> {
    let input = compare(&checkpoint).map_err(OpenError::Input)?;
    let goes_on = input == InputChange::Same && checkpoint.reading == spec.reading;
    Ok(StartDecision::Run(if goes_on { StartMode::Resume { checkpoint, input } } else { StartMode::SetAside }))
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
        tally: OutcomeCounts::default(),
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

/// Renames a run's files to backups. The checkpoint records this first, so that the next start can finish it after a crash.
fn set_aside<D: Disk>(disk: &D, paths: &RunPaths, now: SystemTime) -> Result<String, DiskError> {
    let stamp = free_stamp(disk, paths, now)?;
    let bytes = read_prefix(disk, &paths.checkpoint, checkpoint::MAX_BYTES)?;
    if let Some(Ok(checkpoint)) = bytes.map(|bytes| Checkpoint::decode(&bytes)) {
        write_checkpoint(disk, paths, &Checkpoint { state: RunStatus::SettingAside { stamp: stamp.clone() }, ..checkpoint })?;
    }
    rename_to_backups(disk, paths, &stamp)?;
    Ok(stamp)
}

/// Renames files to backups that belong to no run but have the names of this run's files. They are the user's own and must not be
/// overwritten.
fn set_aside_strays<D: Disk>(disk: &D, paths: &RunPaths, kind: RunKind, now: SystemTime) -> Result<Option<String>, DiskError> {
    let mut stamp = None;
    let writes_missing = matches!(kind, RunKind::Sync { .. });
    for path in [Some(&paths.rejects), writes_missing.then_some(&paths.missing)].into_iter().flatten() {
        if disk.len(path).map_err(DiskError::at("read", path))?.is_none() {
            continue;
        }
        let stamp = match &stamp {
            Some(stamp) => stamp,
            None => stamp.insert(free_stamp(disk, paths, now)?),
        };
        rename_durably(disk, path, &paths::dated(path, stamp))?;
    }
    Ok(stamp)
}

fn free_stamp<D: Disk>(disk: &D, paths: &RunPaths, now: SystemTime) -> Result<String, DiskError> {
    for number in 0..STAMPS_MAX {
        let stamp = stamp(now, number);
        let mut is_free = true;
        for path in paths.dated(&stamp).all() {
            is_free &= disk.len(path).map_err(DiskError::at("read", path))?.is_none();
        }
        if is_free {
            return Ok(stamp);
        }
    }
    let source = io::Error::new(io::ErrorKind::AlreadyExists, "all dated names are in use");
    Err(DiskError { what: "rename", path: paths.results.clone(), source })
}

/// Renames the files that still exist, the checkpoint last.
fn rename_to_backups<D: Disk>(disk: &D, paths: &RunPaths, stamp: &str) -> Result<(), DiskError> {
    let dated = paths.dated(stamp);
    rename_durably(disk, &paths.results, &dated.results)?;
    rename_durably(disk, &paths.rejects, &dated.rejects)?;
    rename_durably(disk, &paths.missing, &dated.missing)?;
    rename_durably(disk, &paths.checkpoint, &dated.checkpoint)
}

fn rename_durably<D: Disk>(disk: &D, from: &Path, to: &Path) -> Result<(), DiskError> {
    if disk.len(from).map_err(DiskError::at("read", from))?.is_none() {
        return Ok(());
    }
    disk.rename(from, to).map_err(DiskError::at("rename", from))?;
    disk.sync_folder_of(from).map_err(DiskError::at("sync the folder of", from))
}
