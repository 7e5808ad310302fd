//! How a run starts: afresh, where an earlier one stopped, or not at all because everything is done.
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
use crate::domain::position::{ColumnLayout, FileStat, InputChange, InputPosition};
use crate::domain::target::Target;

/// Most numbers that are tried for a dated name. Chosen.
const STAMPS_MAX: u32 = 1_000;

/// What a run wants to work on.
#[derive(Debug, Clone)]
pub struct RunSpec {
    pub work: RunKind,
    pub target: Target,
    pub input: FileStat,
    pub reading: ColumnLayout,
    /// The input's header, for the rejects …
    pub header: ByteRecord,
    /// … which are written with this delimiter.
    pub rejects_delimiter: u8,
    /// The place behind the header.
    pub start: InputPosition,
}

/// Whether old files are set aside whatever they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    Asked,
    No,
}

/// What is to become of what an earlier run has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartDecision {
    /// The run was finished earlier; nothing is to be done.
    Finished {
        tally: OutcomeCounts,
    },
    Run(StartMode),
}

/// How a run begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartMode {
    /// Nothing is left of an earlier one.
    Afresh,
    /// Afresh, and the files that are there are set aside.
    SetAside,
    /// As before; an earlier process did not come to the end of it.
    GoOnSettingAside { stamp: String },
    /// Where the earlier one stopped; `input` says whether the file has changed behind the settled part.
    Resume { checkpoint: Box<Checkpoint>, input: InputChange },
}

/// Why a run can't begin.
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
    OtherWork { was: RunKind, is: RunKind },
    #[error("the earlier run imported into {was}, this one into {is}")]
    OtherTarget { was: Box<Target>, is: Box<Target> },
    #[error("the unfinished run read its columns otherwise: {}", differences.join("; "))]
    OtherReading { differences: Vec<String> },
    #[error("the checkpoint {} belongs to results or rejects of other names", checkpoint.display())]
    OtherFiles { checkpoint: PathBuf },
    #[error("{}", changed(*rows))]
    InputChanged { rows: u64 },
    #[error("{} is not what the checkpoint says of it", path.display())]
    SheetChanged { path: PathBuf },
    #[error("cannot read the input")]
    Input(#[source] io::Error),
    #[error(transparent)]
    Disk(#[from] DiskError),
}

fn changed(rows: u64) -> String {
    match rows {
        1 => "the first record of the input, which is processed, has changed since".to_owned(),
        _ => format!("the first {rows} records of the input, which are processed, have changed since"),
    }
}

/// Takes the lock of a run's files; nothing of them may be looked at without.
///
/// # Errors
/// [`OpenError::Locked`] if another process has it, or the disk's.
pub fn lock<D: Disk>(disk: &D, paths: &RunPaths) -> Result<D::Lock, OpenError> {
    let path = paths.lock();
    let taken = disk.lock(&path).map_err(DiskError::at("lock", &path))?;
    taken.ok_or_else(|| OpenError::Locked { checkpoint: paths.checkpoint.clone(), lock: path })
}

/// What an earlier run has left.
enum EarlierRun {
    /// Nothing, or a run that was never begun.
    Nothing,
    Results,
    Unusable(OpenError),
    Run(Box<Checkpoint>),
}

/// Looks at what an earlier run has left and decides; touches nothing. `compare` says how the input compares with what that run has seen
/// of it; an import asks only where the stat fields differ, a sync always.
///
/// # Errors
/// [`OpenError`] when the files don't belong together or can't be read.
pub fn examine<D: Disk>(
    disk: &D,
    paths: &RunPaths,
    claim: &RunSpec,
    restart: Restart,
    compare: impl FnOnce(&Checkpoint) -> io::Result<InputChange>,
) -> Result<StartDecision, OpenError> {
    let found = look(disk, paths)?;
    let wants_results =
        matches!(&found, EarlierRun::Run(checkpoint) if matches!(checkpoint.state, RunStatus::Unfinished | RunStatus::Finished));
    if restart == Restart::No && wants_results && disk.len(&paths.results).map_err(DiskError::at("read", &paths.results))?.is_none() {
        return Err(OpenError::NoResults { checkpoint: paths.checkpoint.clone(), results: paths.results.clone() });
    }
    plan(found, paths, claim, restart, compare)
}

/// What became of a run of `target` that an earlier process has finished, and where its input ended; `None` if there is none. For when that
/// input is not to be had.
///
/// # Errors
/// [`OpenError::Disk`] when the files can't be read.
pub fn finished_earlier<D: Disk>(disk: &D, paths: &RunPaths, target: &Target) -> Result<Option<Box<Checkpoint>>, OpenError> {
    Ok(match look(disk, paths)? {
        EarlierRun::Run(checkpoint) if checkpoint.state == RunStatus::Finished && checkpoint.target == *target => Some(checkpoint),
        EarlierRun::Run(_) | EarlierRun::Nothing | EarlierRun::Results | EarlierRun::Unusable(_) => None,
    })
}

/// Opens the journal in the way that was planned under the same lock.
///
/// # Errors
/// [`OpenError`] when results or rejects are not what the checkpoint says of them (nothing is touched then), or the disk fails.
pub fn open<D: Disk>(
    way: StartMode,
    (disk, lock): (D, D::Lock),
    paths: RunPaths,
    claim: RunSpec,
    now: SystemTime,
) -> Result<Journal<D>, OpenError> {
    let set_aside = match way {
        StartMode::Resume { checkpoint, .. } => return resume((disk, lock), paths, claim, *checkpoint),
        StartMode::Afresh => set_aside_strays(&disk, &paths, claim.work, now)?,
        StartMode::SetAside => Some(set_aside(&disk, &paths, now)?),
        StartMode::GoOnSettingAside { stamp } => {
            move_aside(&disk, &paths, &stamp)?;
            Some(stamp)
        }
    };
    if let Some(stamp) = set_aside {
        tracing::info!("the files of an earlier run are renamed and kept, under names with {stamp}");
    }
    Ok(begin((disk, lock), paths, claim)?)
}

fn look<D: Disk>(disk: &D, paths: &RunPaths) -> Result<EarlierRun, OpenError> {
    make_names_last(disk, paths)?;
    let Some(bytes) = read_whole(disk, &paths.checkpoint, checkpoint::MAX_BYTES)? else {
        return Ok(if at_most_the_header(disk, &paths.results)? { EarlierRun::Nothing } else { EarlierRun::Results });
    };
    Ok(match Checkpoint::decode(&bytes) {
        Err(why) => EarlierRun::Unusable(OpenError::Checkpoint { path: paths.checkpoint.clone(), why }),
        Ok(checkpoint) => EarlierRun::Run(Box::new(checkpoint)),
    })
}

/// The checkpoint; `None` if there is none that can be read.
pub fn read_checkpoint<D: Disk>(disk: &D, paths: &RunPaths) -> Option<Checkpoint> {
    let bytes = read_whole(disk, &paths.checkpoint, checkpoint::MAX_BYTES).ok()??;
    Checkpoint::decode(&bytes).ok()
}

/// As much of the results as the checkpoint vouches for; `None` if there are none that end as it says.
///
/// # Errors
/// When they can't be opened.
pub fn committed_results(paths: &RunPaths) -> io::Result<Option<io::Take<File>>> {
    let Some(Checkpoint { results: extent, .. }) = read_checkpoint(&OsDisk, paths) else { return Ok(None) };
    if vouched(&OsDisk, &paths.results, extent).is_err() {
        return Ok(None);
    }
    Ok(Some(File::open(&paths.results)?.take(extent.len)))
}

/// An earlier process may have been killed between giving or taking a name and syncing the folder. Whatever is decided by the names that
/// are seen relies on their being there, or not there, after a power loss.
fn make_names_last<D: Disk>(disk: &D, paths: &RunPaths) -> Result<(), DiskError> {
    paths.all().into_iter().try_for_each(|path| disk.sync_folder_of(path).map_err(DiskError::at("sync the folder of", path)))
}

/// The bytes of a file, but at most `max`; `None` if there is none.
fn read_whole<D: Disk>(disk: &D, path: &Path, max: u64) -> Result<Option<Vec<u8>>, DiskError> {
    let Some(len) = disk.len(path).map_err(DiskError::at("read", path))? else { return Ok(None) };
    let mut bytes = vec![0; usize::try_from(len.min(max)).unwrap_or_default()];
    let file = disk.open(path).map_err(DiskError::at("read", path))?;
    file.read_exact_at(&mut bytes, 0).map_err(DiskError::at("read", path))?;
    Ok(Some(bytes))
}

/// Whether results hold nothing yet. A crash may have left a part of the header, or zeros in its place.
fn at_most_the_header<D: Disk>(disk: &D, path: &Path) -> Result<bool, DiskError> {
    let header = RESULTS_HEADER.as_bytes();
    let held = read_whole(disk, path, header.len() as u64 + 1)?.unwrap_or_default();
    Ok(held.len() <= header.len() && held.iter().zip(header).all(|(held, header)| held == header || *held == 0))
}

fn plan(
    found: EarlierRun,
    paths: &RunPaths,
    claim: &RunSpec,
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
    let is_akin = checkpoint.work.is_akin_to(claim.work);
    let is_sync = matches!(claim.work, RunKind::Sync { .. });
    if is_unfinished && !is_akin {
        return Err(OpenError::OtherWork { was: checkpoint.work, is: claim.work });
    }
    if !is_unfinished && (is_sync || !is_akin) {
        return Ok(StartDecision::Run(StartMode::SetAside));
    }
    if checkpoint.target != claim.target {
        return Err(OpenError::OtherTarget { was: Box::new(checkpoint.target), is: Box::new(claim.target.clone()) });
    }
    if is_unfinished && checkpoint.names != paths.names() {
        return Err(OpenError::OtherFiles { checkpoint: paths.checkpoint.clone() });
    }
    if is_sync {
        return resume_or_set_aside(checkpoint, claim, compare);
    }
    let differences = claim.reading.differences(&checkpoint.reading);
    if !is_unfinished && !differences.is_empty() {
        return Ok(StartDecision::Run(StartMode::SetAside));
    }
    let is_untouched = checkpoint.input == claim.input;
    let input = if is_untouched { InputChange::Same } else { compare(&checkpoint).map_err(OpenError::Input)? };
    if is_unfinished && input == InputChange::ChangedWithin {
        return Err(OpenError::InputChanged { rows: checkpoint.settled.rows });
    }
    if !differences.is_empty() {
        return Err(OpenError::OtherReading { differences });
    }
    Ok(match (is_unfinished, input) {
        (true, _) => StartDecision::Run(StartMode::Resume { checkpoint, input }),
        (false, InputChange::Same) => StartDecision::Finished { tally: checkpoint.tally },
        (false, InputChange::ChangedAfter | InputChange::ChangedWithin) => StartDecision::Run(StartMode::SetAside),
    })
}

/// A sync goes on only as it was planned, for the whole file.
fn resume_or_set_aside(
    checkpoint: Box<Checkpoint>,
    claim: &RunSpec,
    compare: impl FnOnce(&Checkpoint) -> io::Result<InputChange>,
) -> Result<StartDecision, OpenError> {
    let input = compare(&checkpoint).map_err(OpenError::Input)?;
    let goes_on = input == InputChange::Same && checkpoint.reading == claim.reading;
    Ok(StartDecision::Run(if goes_on { StartMode::Resume { checkpoint, input } } else { StartMode::SetAside }))
}

fn begin<D: Disk>((disk, mut lock): (D, D::Lock), paths: RunPaths, claim: RunSpec) -> Result<Journal<D>, DiskError> {
    let (results, checkpoint) = first_files(&disk, &paths, &claim).inspect_err(|_| remove_unbegun(&disk, &paths))?;
    disk.keep(&mut lock);
    let reject_lines = RejectLines::new(claim.header, claim.rejects_delimiter);
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

fn first_files<D: Disk>(disk: &D, paths: &RunPaths, claim: &RunSpec) -> Result<(AppendFile<D::File>, Checkpoint), DiskError> {
    let path = &paths.results;
    let mut results = AppendFile::create(disk, path, RESULTS_HEADER.as_bytes()).map_err(DiskError::at("create", path))?;
    results.sync().map_err(DiskError::at("sync", path))?;
    disk.sync_folder_of(path).map_err(DiskError::at("sync the folder of", path))?;
    let checkpoint = Checkpoint {
        state: RunStatus::Unfinished,
        work: claim.work,
        target: claim.target.clone(),
        reading: claim.reading.clone(),
        names: paths.names(),
        input: claim.input,
        settled: claim.start,
        results: results.extent(),
        rejects: Extent::new(0, b""),
        tally: OutcomeCounts::default(),
    };
    write_checkpoint(disk, paths, &checkpoint)?;
    Ok((results, checkpoint))
}

/// Takes away what a start has made that came to nothing. A checkpoint that has its name vouches for the results, whatever failed after.
fn remove_unbegun<D: Disk>(disk: &D, paths: &RunPaths) {
    if !matches!(disk.len(&paths.checkpoint), Ok(None)) {
        return;
    }
    for path in [paths.new_checkpoint(), paths.results.clone()] {
        // The failure that is told is the first one.
        let _ = disk.remove(&path);
    }
}

fn resume<D: Disk>(
    (disk, mut lock): (D, D::Lock),
    paths: RunPaths,
    claim: RunSpec,
    mut checkpoint: Checkpoint,
) -> Result<Journal<D>, OpenError> {
    let mut results = vouched(&disk, &paths.results, checkpoint.results)?;
    let mut rejects = if checkpoint.rejects.len == 0 { None } else { Some(vouched(&disk, &paths.rejects, checkpoint.rejects)?) };
    results.cut().map_err(DiskError::at("cut", &paths.results))?;
    match &mut rejects {
        Some(rejects) => rejects.cut().map_err(DiskError::at("cut", &paths.rejects))?,
        None => remove_if_there(&disk, &paths.rejects)?,
    }
    checkpoint.input = claim.input;
    disk.keep(&mut lock);
    let reject_lines = RejectLines::new(claim.header, claim.rejects_delimiter);
    Ok(Journal { disk, paths, results, result_lines: ResultLines::new(), rejects, reject_lines, checkpoint, pending_rows: 0, _lock: lock })
}

fn vouched<D: Disk>(disk: &D, path: &Path, extent: Extent) -> Result<AppendFile<D::File>, OpenError> {
    let sheet = AppendFile::reopen(disk, path, extent).map_err(DiskError::at("read", path))?;
    sheet.ok_or_else(|| OpenError::SheetChanged { path: path.to_owned() })
}

/// Rejects of a commit that never happened.
fn remove_if_there<D: Disk>(disk: &D, path: &Path) -> Result<(), DiskError> {
    if disk.len(path).map_err(DiskError::at("read", path))?.is_none() {
        return Ok(());
    }
    disk.remove(path).map_err(DiskError::at("remove", path))?;
    disk.sync_folder_of(path).map_err(DiskError::at("sync the folder of", path))
}

/// Sets a run's files aside. What is to be done is recorded first, so that a crash in between is made good by the next start.
fn set_aside<D: Disk>(disk: &D, paths: &RunPaths, now: SystemTime) -> Result<String, DiskError> {
    let stamp = free_stamp(disk, paths, now)?;
    let bytes = read_whole(disk, &paths.checkpoint, checkpoint::MAX_BYTES)?;
    if let Some(Ok(checkpoint)) = bytes.map(|bytes| Checkpoint::decode(&bytes)) {
        write_checkpoint(disk, paths, &Checkpoint { state: RunStatus::SettingAside { stamp: stamp.clone() }, ..checkpoint })?;
    }
    move_aside(disk, paths, &stamp)?;
    Ok(stamp)
}

/// Files that belong to no run and that this one may write: somebody's own, never to be overwritten.
fn set_aside_strays<D: Disk>(disk: &D, paths: &RunPaths, work: RunKind, now: SystemTime) -> Result<Option<String>, DiskError> {
    let mut stamp = None;
    let writes_missing = matches!(work, RunKind::Sync { .. });
    for path in [Some(&paths.rejects), writes_missing.then_some(&paths.missing)].into_iter().flatten() {
        if disk.len(path).map_err(DiskError::at("read", path))?.is_none() {
            continue;
        }
        let stamp = match &stamp {
            Some(stamp) => stamp,
            None => stamp.insert(free_stamp(disk, paths, now)?),
        };
        move_one(disk, path, &paths::dated(path, stamp))?;
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
    let source = io::Error::new(io::ErrorKind::AlreadyExists, "every dated name is taken");
    Err(DiskError { what: "rename", path: paths.results.clone(), source })
}

/// Renames what is still there, the checkpoint last.
fn move_aside<D: Disk>(disk: &D, paths: &RunPaths, stamp: &str) -> Result<(), DiskError> {
    let dated = paths.dated(stamp);
    move_one(disk, &paths.results, &dated.results)?;
    move_one(disk, &paths.rejects, &dated.rejects)?;
    move_one(disk, &paths.missing, &dated.missing)?;
    move_one(disk, &paths.checkpoint, &dated.checkpoint)
}

fn move_one<D: Disk>(disk: &D, from: &Path, to: &Path) -> Result<(), DiskError> {
    if disk.len(from).map_err(DiskError::at("read", from))?.is_none() {
        return Ok(());
    }
    disk.rename(from, to).map_err(DiskError::at("rename", from))?;
    disk.sync_folder_of(from).map_err(DiskError::at("sync the folder of", from))
}
