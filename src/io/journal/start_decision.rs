//! Decides how a run starts: from the beginning, where an earlier run stopped, or not at all because everything is done.
//!
//! It reads and decides. If files do not belong together, it changes nothing.

use std::io;
use std::path::Path;

use super::checkpoint::{self, Checkpoint, RunKind, RunStatus};
use super::disk::Disk;
use super::opening::{OpenError, RunSpec};
use super::paths::RunPaths;
use super::results_lines::RESULTS_HEADER;
use super::{DiskError, read_prefix};
use crate::domain::outcome::OutcomeCounts;
use crate::domain::position::InputChange;
use crate::domain::target::Target;

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
        counts: OutcomeCounts,
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

/// Syncs the folders of all files. An earlier process may have been killed between a rename and the sync of its folder, and the decision
/// relies on names that must still be there, or be gone, after a power loss.
fn sync_folders<D: Disk>(disk: &D, paths: &RunPaths) -> Result<(), DiskError> {
    paths.all().into_iter().try_for_each(|path| disk.sync_folder_of(path).map_err(DiskError::at("sync the folder of", path)))
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
        (false, InputChange::Same) => StartDecision::Finished { counts: checkpoint.counts },
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
