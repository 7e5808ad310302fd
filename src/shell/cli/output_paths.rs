//! Checks the names of the files that a run goes on with: no two may be the same file, and each must be one that can be written. `outputs`
//! does the same for those that are written for others.

use std::fs::FileType;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, Mode, accessat, statfs};
use rustix::process::geteuid;

use super::access::why_denied;
use super::flags::RunFlags;
use super::input;
use super::small_file;
use crate::io::files::{folder_of, resolved};
use crate::io::journal::paths::RunPaths;
use crate::shell::exit::ExitMessage;

/// The paths of the run's files. No two of them, nor one of a state's, may be the same file.
pub(super) fn paths(flags: &RunFlags, of_state: &[PathBuf]) -> Result<RunPaths, ExitMessage> {
    let file = &flags.input.file;
    if input::is_stream(file) && flags.files.results.is_none() {
        return Err(cannot_be_named_after(file));
    }
    let paths = flags.files.paths(file);
    let own = paths.everything();
    let given = Some(file.as_path()).filter(|file| !input::is_stdin(file));
    let all = own.iter().chain(of_state).map(PathBuf::as_path).chain(given);
    ensure_distinct(all, "input, results, rejects, checkpoint and state must be different files")?;
    own.iter().chain(of_state).try_for_each(|path| ensure_name_fits(path))?;
    own.iter().try_for_each(|path| ensure_file(path, "--results, --rejects and --checkpoint name others"))?;
    of_state.iter().try_for_each(|path| ensure_no_stream(path))?;
    if !flags.dry_run {
        ensure_appendable(Named::RESULTS, &paths.results)?;
        ensure_appendable(Named::REJECTS, &paths.rejects)?;
        ensure_writable(Named::CHECKPOINT, &paths.checkpoint)?;
    }
    Ok(paths)
}

/// The exit message for a stream without a name for its results.
pub(super) fn cannot_be_named_after(file: &Path) -> ExitMessage {
    let why = format!("{} can't be read twice: it is kept beside the results, which can't be named after it", input::shown(file));
    ExitMessage::yours(why, "give --results FILE")
}

/// Longest name of a file in bytes. Source: the common file systems of Linux.
const NAME_MAX: usize = 255;

/// Refuses a name that is too long for a file; names derived from it are even longer.
pub(super) fn ensure_name_fits(path: &Path) -> Result<(), ExitMessage> {
    let name = path.file_name().unwrap_or_default();
    if name.len() <= NAME_MAX {
        return Ok(());
    }
    Err(ExitMessage::yours(
        format!("the name {} is too long: it has {} bytes, a file's has at most {NAME_MAX}", name.display(), name.len()),
        "--results with a shorter name shortens those that are made from it; a shorter --state or --plan its own",
    ))
}

/// A path that a run appends to, replaces or cuts must be a regular file, if it exists.
pub(super) fn ensure_file(path: &Path, hint: &str) -> Result<(), ExitMessage> {
    let Ok(stat) = std::fs::metadata(path) else { return Ok(()) };
    if stat.is_file() {
        Ok(())
    } else {
        Err(ExitMessage::yours(format!("{} is {}, not a file", path.display(), describe(stat.file_type())), hint))
    }
}

/// Refuses a pipe or a device as a state: opening it would wait, and no signal ends that. What else is no state is told by who opens it.
pub(super) fn ensure_no_stream(state: &Path) -> Result<(), ExitMessage> {
    match std::fs::metadata(state) {
        Ok(stat) if !stat.is_file() && !stat.is_dir() => Err(ExitMessage::yours(
            format!("{} is no state of chatlift: it is {}", state.display(), describe(stat.file_type())),
            "name a file; sync and import make one with --state",
        )),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// What a path is that is no regular file.
pub(super) fn describe(kind: FileType) -> &'static str {
    match kind {
        _ if kind.is_dir() => "a folder",
        _ if kind.is_fifo() => "a pipe",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

/// Refuses to replace a file that this command has not written: neither is it empty, nor does `is_own` know what is in it.
pub(super) fn ensure_own(path: &Path, what: &str, is_own: impl FnOnce(&[u8]) -> bool, hint: &str) -> Result<(), ExitMessage> {
    if !std::fs::metadata(path).is_ok_and(|stat| stat.is_file() && stat.len() > 0) {
        return Ok(());
    }
    // What can't be read, or is that long, is somebody else's.
    if small_file::read(path).is_ok_and(|bytes| is_own(&bytes)) {
        return Ok(());
    }
    Err(ExitMessage::yours(format!("{} is not {what}, and would be overwritten", path.display()), hint))
}

/// Refuses two names of the same file.
pub(super) fn ensure_distinct<'a>(names: impl Iterator<Item = &'a Path>, hint: &str) -> Result<(), ExitMessage> {
    let mut names: Vec<PathBuf> = names.map(resolved).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(ExitMessage::yours(format!("{} is named for two files at once", pair[0].display()), hint)),
        None => Ok(()),
    }
}

/// A file that a command writes: what it is in a sentence, and the flag that names it, without its hyphens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) what: &'static str,
    pub(super) flag: &'static str,
}

impl Named {
    const RESULTS: Self = Self { what: "results", flag: "results" };
    const REJECTS: Self = Self { what: "rejects", flag: "rejects" };
    pub(super) const REPAIR: Self = Self { what: "repair file", flag: "repair" };
    const CHECKPOINT: Self = Self { what: "checkpoint", flag: "checkpoint" };
}

/// Refuses at the start a file that could not be created or replaced later. It leaves nothing behind.
pub(super) fn ensure_writable(named: Named, path: &Path) -> Result<(), ExitMessage> {
    let Named { what, flag } = named;
    ensure_name_fits(path)?;
    if path.is_dir() {
        return Err(ExitMessage::yours(format!("the {what} {} is a folder", path.display()), format!("name a file with --{flag}")));
    }
    match path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        Some(missing) => Err(ExitMessage::yours(
            format!("there is no folder {} for the {what}", missing.display()),
            format!("make it, or correct --{flag}"),
        )),
        None => ensure_folder_takes_files(named, path),
    }
}

/// A file that rows are appended to must be writable, if it exists.
fn ensure_appendable(named: Named, path: &Path) -> Result<(), ExitMessage> {
    if path.exists() { ensure_access(named, path, path, Access::WRITE_OK) } else { ensure_writable(named, path) }
}

/// A file that is replaced or created needs a folder that this process may change, and that takes files at all: /proc doesn't.
fn ensure_folder_takes_files(named: Named, path: &Path) -> Result<(), ExitMessage> {
    let file = resolved(path);
    let folder = folder_of(&file);
    ensure_access(named, path, folder, Access::WRITE_OK | Access::EXEC_OK)?;
    if is_anothers_in_shared_folder(&file, folder) {
        return Err(cannot_write(named, path, (&file, &ErrorKind::PermissionDenied.into())));
    }
    let is_kernels = statfs(folder).is_ok_and(|system| KERNELS_OWN.iter().any(|own| i128::from(system.f_type) == *own));
    if is_kernels { Err(cannot_write(named, path, (folder, &io::Error::other("the kernel makes all files there")))) } else { Ok(()) }
}

/// File systems that show what the kernel knows: nobody can make a file in them, although root is denied nothing. By their numbers: proc,
/// sysfs, cgroup, cgroup2, devpts, debugfs, tracefs, securityfs. Source: linux/magic.h.
const KERNELS_OWN: [i128; 8] = [0x9fa0, 0x6265_6572, 0x0027_e0eb, 0x6367_7270, 0x1cd1, 0x6462_6720, 0x7472_6163, 0x7363_6673];

/// Whether only another user may replace the file: its folder, such as /tmp, lets everybody replace only what is their own.
fn is_anothers_in_shared_folder(file: &Path, folder: &Path) -> bool {
    let (Ok(file), Ok(folder)) = (std::fs::symlink_metadata(file), std::fs::metadata(folder)) else { return false };
    let user = geteuid();
    Mode::from_raw_mode(folder.mode()).contains(Mode::SVTX) && !user.is_root() && ![file.uid(), folder.uid()].contains(&user.as_raw())
}

/// An error if `place` denies the access that `path` needs.
pub(super) fn ensure_access(named: Named, path: &Path, place: &Path, needed: Access) -> Result<(), ExitMessage> {
    accessat(CWD, place, needed, AtFlags::EACCESS).map_err(|error| cannot_write(named, path, (place, &error.into())))
}

/// The exit message for a path that can't be written because of `place`.
fn cannot_write(Named { what, flag }: Named, path: &Path, (place, error): (&Path, &io::Error)) -> ExitMessage {
    let why = format!("cannot write the {what} {}: {error}{}", path.display(), why_denied(place, error));
    ExitMessage::yours(why, format!("name another place with --{flag}, or have its permissions changed"))
}
