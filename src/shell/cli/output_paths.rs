//! Checks the names of the files that a run goes on with: no two may be the same file, and each must be one that can be written. `outputs`
//! does the same for those that are written for others.

use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, accessat, fstat, statfs};
use rustix::process::geteuid;

use super::access::why_denied;
use super::flags::RunFlags;
use super::input;
use super::small_file;
use crate::io::files::{describe, folder_of, resolved};
use crate::io::journal::paths::RunPaths;
use crate::shell::exit::ExitMessage;

/// The paths of the run's files. No two of them, nor one of a state's, may be the same file, and none may be one that the command only uses.
pub(super) fn paths(flags: &RunFlags, of_state: &[PathBuf], used: &[PathBuf]) -> Result<RunPaths, ExitMessage> {
    let file = &flags.input.file;
    if input::is_stream(file) && flags.files.results.is_none() {
        return Err(cannot_be_named_after(file));
    }
    let paths = flags.files.paths(file);
    let own = paths.everything();
    let all = own.iter().chain(of_state).map(|path| NamedFile::of(path)).chain([NamedFile::of_input(file)]);
    ensure_distinct(all, "input, results, rejects, checkpoint and state must be different files")?;
    ensure_none_is_used(own.iter().chain(of_state), used)?;
    own.iter().try_for_each(|path| ensure_name_fits(path, SHORTER_NAMES))?;
    of_state.iter().try_for_each(|path| ensure_name_fits(path, "give --state a shorter name"))?;
    own.iter().try_for_each(|path| ensure_file(path, "--results, --rejects and --checkpoint name others"))?;
    if !flags.dry_run {
        ensure_appendable(Named::RESULTS, &paths.results)?;
        ensure_appendable(Named::REJECTS, &paths.rejects)?;
        ensure_writable(Named::CHECKPOINT, &paths.checkpoint)?;
    }
    Ok(paths)
}

/// What helps if a name of a run's files is too long.
const SHORTER_NAMES: &str = "--results with a shorter name shortens those that are made from it; --rejects and --checkpoint name their own";

/// The exit message for a stream without a name for its results.
pub(super) fn cannot_be_named_after(file: &Path) -> ExitMessage {
    let why = format!("{} can't be read twice: it is kept beside the results, which can't be named after it", input::shown(file));
    ExitMessage::yours(why, "give --results FILE")
}

/// Longest name of a file in bytes. Source: the common file systems of Linux.
const NAME_MAX: usize = 255;

/// Refuses a name that is too long for a file; names derived from it are even longer.
pub(super) fn ensure_name_fits(path: &Path, hint: &str) -> Result<(), ExitMessage> {
    let name = path.file_name().unwrap_or_default();
    if name.len() <= NAME_MAX {
        return Ok(());
    }
    Err(ExitMessage::yours(
        format!("the name {} is too long: it has {} bytes, a file's has at most {NAME_MAX}", name.display(), name.len()),
        hint,
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

/// A file that a command names, told from others by its name and, where it is there, by what the name leads to.
#[derive(Debug)]
pub(super) struct NamedFile {
    given: PathBuf,
    /// Without links and detours.
    pub(super) name: PathBuf,
    /// The device and the number of a regular file, which all its hard links share.
    file: Option<(u64, u64)>,
}

impl NamedFile {
    pub(super) fn of(path: &Path) -> Self {
        let stat = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file);
        Self { given: path.to_owned(), name: resolved(path), file: stat.map(|stat| (stat.dev(), stat.ino())) }
    }

    /// The same for a file that is read: `-` is what stands behind standard input.
    pub(super) fn of_input(path: &Path) -> Self {
        if !input::is_stdin(path) {
            return Self::of(path);
        }
        let stat = fstat(io::stdin()).ok().filter(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        Self { given: path.to_owned(), name: resolved(path), file: stat.map(|stat| (stat.st_dev, stat.st_ino)) }
    }

    /// Whether both are the same file.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.name == other.name || (self.file.is_some() && self.file == other.file)
    }

    /// The exit message for a file that is this other one, too.
    pub(super) fn named_twice(&self, other: &Self, hint: &str) -> ExitMessage {
        let also = if self.name == other.name { String::new() } else { format!(": it is {}, too", input::shown(&other.given)) };
        ExitMessage::yours(format!("{} is named for two files at once{also}", self.name.display()), hint)
    }
}

/// Refuses two names of the same file.
pub(super) fn ensure_distinct(files: impl Iterator<Item = NamedFile>, hint: &str) -> Result<(), ExitMessage> {
    let files: Vec<NamedFile> = files.collect();
    for (number, file) in files.iter().enumerate() {
        if let Some(other) = files[number + 1..].iter().find(|other| file.is(other)) {
            return Err(file.named_twice(other, hint));
        }
    }
    Ok(())
}

/// Refuses a file to be written that the command only uses, such as its key.
pub(super) fn ensure_none_is_used<'a>(own: impl Iterator<Item = &'a PathBuf>, used: &[PathBuf]) -> Result<(), ExitMessage> {
    let used: Vec<NamedFile> = used.iter().map(|path| NamedFile::of(path)).collect();
    for own in own.map(|path| NamedFile::of(path)) {
        if let Some(other) = used.iter().find(|other| own.is(other)) {
            return Err(own.named_twice(other, "name other files for results and state than those that the command reads or starts"));
        }
    }
    Ok(())
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
    ensure_name_fits(path, &format!("give --{flag} a shorter name"))?;
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
