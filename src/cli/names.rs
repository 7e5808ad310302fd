//! The names of a run's files: no two of them may be one, and what is written at the end must have its folder at the start.

use std::path::{Path, PathBuf};

use super::exit::LastWord;
use super::flags::RunFlags;
use super::input;
use crate::journal::paths::{Given, Paths};

/// The names of the run's files; no two of them, and of `others`, may be one.
pub(super) fn paths(flags: &RunFlags, others: &[PathBuf]) -> Result<Paths, LastWord> {
    let file = &flags.input.file;
    if input::is_stdin(file) && flags.results.is_none() {
        return Err(LastWord::yours("standard input has no name to call the results after", "give --results FILE"));
    }
    let given = Given { results: flags.results.clone(), rejects: flags.rejects.clone(), checkpoint: flags.checkpoint.clone() };
    let paths = Paths::new(file, given);
    let own = paths.everything();
    let given = [Some(file.as_path()).filter(|file| !input::is_stdin(file)), flags.summary.as_deref()];
    let all = own.iter().chain(others).map(PathBuf::as_path).chain(given.into_iter().flatten());
    all_differ(all, "input, results, rejects, checkpoint, summary, state and plan must be different files")?;
    Ok(paths)
}

/// No two of these names may be one file's.
pub(super) fn all_differ<'a>(names: impl Iterator<Item = &'a Path>, hint: &str) -> Result<(), LastWord> {
    let mut names: Vec<PathBuf> = names.map(resolved).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(LastWord::yours(format!("{} is named for two files at once", pair[0].display()), hint)),
        None => Ok(()),
    }
}

/// A path without links and detours, as far as it exists.
pub(super) fn resolved(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        folder.canonicalize().unwrap_or_else(|_| folder.to_owned()).join(path.file_name().unwrap_or_default())
    })
}

/// What can't be written at the end is said at the start. `what` is the flag's name and the file's.
pub(super) fn can_be_written(what: &str, path: Option<&Path>) -> Result<(), LastWord> {
    let Some(path) = path else { return Ok(()) };
    if path.is_dir() {
        return Err(LastWord::yours(format!("the {what} {} is a folder", path.display()), format!("name a file with --{what}")));
    }
    match path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        Some(missing) => Err(LastWord::yours(
            format!("there is no folder {} for the {what}", missing.display()),
            format!("make it, or correct --{what}"),
        )),
        None => Ok(()),
    }
}
