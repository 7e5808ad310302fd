//! Keeps the files of an earlier run, and files that are nobody's, under names with a time.

use std::io;
use std::path::Path;
use std::time::SystemTime;

use super::checkpoint::{self, Checkpoint, RunKind, RunStatus};
use super::disk::Disk;
use super::paths::{self, RunPaths, stamp};
use super::{DiskError, read_prefix, write_checkpoint};

/// How many dated names are tried. Chosen.
const STAMPS_MAX: u32 = 1_000;

/// Renames a run's files to backups. The checkpoint records this first, so that the next start can finish it after a crash.
pub(super) fn set_aside<D: Disk>(disk: &D, paths: &RunPaths, now: SystemTime) -> Result<String, DiskError> {
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
pub(super) fn set_aside_strays<D: Disk>(disk: &D, paths: &RunPaths, kind: RunKind, now: SystemTime) -> Result<Option<String>, DiskError> {
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
pub(super) fn rename_to_backups<D: Disk>(disk: &D, paths: &RunPaths, stamp: &str) -> Result<(), DiskError> {
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
