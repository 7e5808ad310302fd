//! Checks the names of a run's output files: no two may be the same file, and files that are written at the end need their folder at the
//! start.

use std::fs::FileType;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::access::why_denied;
use super::flags::RunFlags;
use super::input;
use super::small;
use crate::io::files::{self, resolved};
use crate::io::journal::paths::{GivenPaths, RunPaths};
use crate::shell::exit::ExitMessage;

/// The paths of the run's files. No two of them, nor one of `others`, may be the same file.
pub(super) fn paths(flags: &RunFlags, others: &[PathBuf]) -> Result<RunPaths, ExitMessage> {
    let file = &flags.input.file;
    if input::is_stream(file) && flags.results.is_none() {
        return Err(cannot_be_named_after(file));
    }
    let given = GivenPaths { results: flags.results.clone(), rejects: flags.rejects.clone(), checkpoint: flags.checkpoint.clone() };
    let paths = RunPaths::new(file, given);
    let own = paths.everything();
    let metrics = flags.ending.metrics_file.as_deref();
    let given =
        [Some(file.as_path()).filter(|file| !input::is_stdin(file)), flags.summary.as_deref(), metrics, flags.page.report.as_deref()];
    let all = own.iter().chain(others).map(PathBuf::as_path).chain(given.into_iter().flatten());
    all_differ(all, "input, results, rejects, checkpoint, summary, metrics, report, state and plan must be different files")?;
    own.iter().chain(others).try_for_each(|path| fits(path))?;
    own.iter().try_for_each(|path| is_file(path, "--results, --rejects and --checkpoint name others"))?;
    if !flags.dry_run {
        takes_rows("results", &paths.results)?;
        takes_rows("rejects", &paths.rejects)?;
        can_be_written("checkpoint", Some(&paths.checkpoint))?;
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
pub(super) fn fits(path: &Path) -> Result<(), ExitMessage> {
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
pub(super) fn is_file(path: &Path, hint: &str) -> Result<(), ExitMessage> {
    let Ok(stat) = std::fs::metadata(path) else { return Ok(()) };
    if stat.is_file() {
        Ok(())
    } else {
        Err(ExitMessage::yours(format!("{} is {}, not a file", path.display(), kind(stat.file_type())), hint))
    }
}

fn kind(kind: FileType) -> &'static str {
    match kind {
        _ if kind.is_dir() => "a folder",
        _ if kind.is_fifo() => "a pipe",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

/// Refuses to replace a file that this command has not written: neither is it empty, nor does `is_own` know what is in it.
pub(super) fn is_own(path: &Path, what: &str, is_own: impl FnOnce(&[u8]) -> bool, hint: &str) -> Result<(), ExitMessage> {
    if !std::fs::metadata(path).is_ok_and(|stat| stat.is_file() && stat.len() > 0) {
        return Ok(());
    }
    // What can't be read, or is that long, is somebody else's.
    if small::read(path).is_ok_and(|bytes| is_own(&bytes)) {
        return Ok(());
    }
    Err(ExitMessage::yours(format!("{} is not {what}, and would be overwritten", path.display()), hint))
}

/// Refuses two names of the same file.
pub(super) fn all_differ<'a>(names: impl Iterator<Item = &'a Path>, hint: &str) -> Result<(), ExitMessage> {
    let mut names: Vec<PathBuf> = names.map(resolved).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(ExitMessage::yours(format!("{} is named for two files at once", pair[0].display()), hint)),
        None => Ok(()),
    }
}

/// Refuses at the start a file that cannot be written at the end. `what` is the name of the flag and of the file.
fn can_be_written(what: &str, path: Option<&Path>) -> Result<(), ExitMessage> {
    let Some(path) = path else { return Ok(()) };
    fits(path)?;
    if path.is_dir() {
        return Err(ExitMessage::yours(format!("the {what} {} is a folder", path.display()), format!("name a file with --{what}")));
    }
    match path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        Some(missing) => Err(ExitMessage::yours(
            format!("there is no folder {} for the {what}", missing.display()),
            format!("make it, or correct --{what}"),
        )),
        None => folder_takes_files(what, path),
    }
}

/// The same as [`can_be_written`] for a file that is first written under a longer temporary name.
pub(super) fn can_be_replaced(what: &str, path: Option<&Path>) -> Result<(), ExitMessage> {
    if let Some(aside) = path.and_then(|path| files::aside(path).ok()) {
        fits(&aside)?;
    }
    can_be_written(what, path)
}

/// A file that rows are appended to must be writable, if it exists.
fn takes_rows(what: &str, path: &Path) -> Result<(), ExitMessage> {
    if path.exists() { denies(what, path, path, Access::WRITE_OK) } else { can_be_written(what, Some(path)) }
}

/// A file that is replaced or created needs a writable folder; a pipe or a device must be writable itself.
fn folder_takes_files(what: &str, path: &Path) -> Result<(), ExitMessage> {
    if is_own_output(path) {
        return Ok(());
    }
    if std::fs::metadata(path).is_ok_and(|stat| !stat.is_file()) {
        return denies(what, path, path, Access::WRITE_OK);
    }
    let file = resolved(path);
    denies(what, path, file.parent().unwrap_or(Path::new("/")), Access::WRITE_OK | Access::EXEC_OK)
}

/// An error if `place` denies the access that `path` needs.
fn denies(what: &str, path: &Path, place: &Path, needed: Access) -> Result<(), ExitMessage> {
    accessat(CWD, place, needed, AtFlags::EACCESS).map_err(|error| {
        let error = std::io::Error::from(error);
        let why = format!("cannot write the {what} {}: {error}{}", path.display(), why_denied(place, &error));
        ExitMessage::yours(why, format!("name another place with --{what}, or have its permissions changed"))
    })
}

/// Whether the path is a name of this process' standard output.
pub(super) fn is_own_output(path: &Path) -> bool {
    ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"].iter().any(|name| path == Path::new(name))
}
