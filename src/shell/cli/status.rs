//! `chatlift status`: where a run stands, from its checkpoint. It takes no lock, changes nothing and sends nothing, so it may be called
//! while a run is at work.

use std::fmt;
use std::fs::{self, File};
use std::io::{BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::command_line::CommandLine;
use super::flags::StatusFlags;
use super::input;
use super::output_paths::cannot_be_named_after;
use super::settings::cannot_read;
use super::small_file;
use super::stdout::print;
use crate::domain::figures::{count, counted, duration};
use crate::domain::outcome::OutcomeCounts;
use crate::domain::position::InputChange;
use crate::io::files::lock;
use crate::io::journal::checkpoint::{Checkpoint, RunKind, RunStatus};
use crate::io::journal::paths::RunPaths;
use crate::io::journal::results_reader::Results;
use crate::io::roster::{self, InputFile};
use crate::shell::exit::ExitMessage;
use crate::shell::terminal::printable;

/// Most bytes of the input that are read to count the rows that are left. Chosen: it takes about a second; for more they are estimated.
const COUNTED_MAX_BYTES: u64 = 1 << 30;

/// Prints where the run stands.
pub(super) fn run(flags: &StatusFlags) -> ExitMessage {
    status(flags).unwrap_or_else(|word| word)
}

fn status(flags: &StatusFlags) -> Result<ExitMessage, ExitMessage> {
    let paths = paths(flags)?;
    let process = lock::holder(&paths.lock());
    let Some((checkpoint, saved_at)) = checkpoint(&paths)? else {
        let Some(process) = process else { return Err(no_run(flags, &paths)) };
        print(&format_args!("process     {process} is at work and has sent nothing yet\n"))?;
        return Ok(ExitMessage::done(""));
    };
    let (left, input_changed) = left(&flags.file, &paths, &checkpoint);
    let change = if input_changed { change(&flags.file, &checkpoint) } else { ChangeSeen::None };
    let report = StatusReport { paths: &paths, begun_at: begun_at(&paths.results), saved_at, left, change, process, checkpoint };
    if flags.json { print(&report.to_json()) } else { print(&report) }?;
    Ok(ExitMessage::done(""))
}

fn paths(flags: &StatusFlags) -> Result<RunPaths, ExitMessage> {
    if input::is_stdin(&flags.file) && flags.files.results.is_none() {
        return Err(cannot_be_named_after(&flags.file));
    }
    Ok(flags.files.paths(&flags.file))
}

/// The checkpoint and when it was written; `None` if there is none.
fn checkpoint(paths: &RunPaths) -> Result<Option<(Checkpoint, SystemTime)>, ExitMessage> {
    let path = &paths.checkpoint;
    let failed = |error| cannot_read("the checkpoint", path, &error);
    let bytes = match small_file::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        read => read.map_err(failed)?,
    };
    let saved_at = fs::metadata(path).and_then(|stat| stat.modified()).map_err(failed)?;
    let checkpoint = Checkpoint::decode(&bytes).map_err(|why| {
        let hint = "--checkpoint names another; if this one is damaged, the import says how to continue";
        ExitMessage::yours(format!("the checkpoint {} cannot be used: {why}", path.display()), hint)
    })?;
    Ok(Some((checkpoint, saved_at)))
}

fn no_run(flags: &StatusFlags, paths: &RunPaths) -> ExitMessage {
    let why = format!("no run of {} was started: there is no {}", input::shown(&flags.file), paths.checkpoint.display());
    let check = CommandLine::new("check").file(&flags.file);
    ExitMessage::yours(why, format!("--results or --checkpoint names other files of a run; {check} says what an import would do"))
}

/// Rows that have no outcome yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Rows(u64),
    /// By the average size of the rows so far.
    About(u64),
    /// The input is not there, or is no longer the same.
    Unknown,
}

/// The rows behind the settled ones, and whether the file has changed since the run last looked at it.
fn left(file: &Path, paths: &RunPaths, checkpoint: &Checkpoint) -> (Left, bool) {
    let (settled, known) = (checkpoint.settled, checkpoint.input);
    // What was copied is read from the copy, and a copy is what it was.
    let candidates = [file.to_owned(), paths.spool()];
    let found = candidates.iter().find(|path| roster::fingerprint(path).is_ok_and(|stat| stat == known));
    if checkpoint.state == RunStatus::Finished {
        let source = checkpoint.source.map_or(known, |source| source.stat);
        return (Left::Rows(0), roster::fingerprint(file).is_ok_and(|stat| stat != source));
    }
    let changed = found.is_none() && file.is_file();
    let Some(path) = found.cloned().or_else(|| changed.then(|| file.to_owned())) else { return (Left::Unknown, changed) };
    let len = fs::metadata(&path).map_or(0, |stat| stat.len());
    let rest = len.saturating_sub(settled.offset);
    if rest > COUNTED_MAX_BYTES && settled.rows > 0 {
        let rows = u128::from(rest) * u128::from(settled.rows) / u128::from(settled.offset.max(1));
        return (Left::About(u64::try_from(rows).unwrap_or(u64::MAX)), changed);
    }
    let counted = InputFile::open(&path)
        .ok()
        .filter(|_| len >= settled.offset)
        .and_then(|file| roster::count_behind(&file, checkpoint.reading.dialect(), settled).ok());
    (counted.map_or(Left::Unknown, Left::Rows), changed)
}

/// How the input has changed since the run last looked at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChangeSeen {
    None,
    /// Behind the processed rows alone.
    Behind,
    /// In the processed rows.
    Within,
    /// Somewhere: it was not compared.
    Somewhere,
}

/// Reads the processed part of a changed file, as the run would.
fn change(file: &Path, checkpoint: &Checkpoint) -> ChangeSeen {
    if checkpoint.state != RunStatus::Unfinished || checkpoint.settled.offset > COUNTED_MAX_BYTES {
        return ChangeSeen::Somewhere;
    }
    let compared =
        InputFile::open(file).ok().and_then(|file| roster::compare(&file, checkpoint.reading.dialect(), checkpoint.settled).ok());
    match compared {
        Some(InputChange::ChangedWithin) => ChangeSeen::Within,
        Some(InputChange::Same | InputChange::ChangedAfter) => ChangeSeen::Behind,
        None => ChangeSeen::Somewhere,
    }
}

/// When the first row got its outcome.
fn begun_at(results: &Path) -> Option<SystemTime> {
    // A pipe that has taken the name would be waited for.
    let file = results.is_file().then(|| File::open(results))?.ok()?;
    let results = Results::new(BufReader::new(file)).ok()?;
    results.into_iter().next()?.ok()?.ok()?.finished_at
}

/// Where a run stands.
struct StatusReport<'a> {
    paths: &'a RunPaths,
    checkpoint: Checkpoint,
    begun_at: Option<SystemTime>,
    saved_at: SystemTime,
    left: Left,
    change: ChangeSeen,
    /// The process that is at work.
    process: Option<u32>,
}

impl StatusReport<'_> {
    fn command(&self) -> &'static str {
        match self.checkpoint.work {
            RunKind::Import => "import",
            RunKind::Sync { .. } => "sync",
        }
    }

    fn is_finished(&self) -> bool {
        self.checkpoint.state == RunStatus::Finished
    }

    /// What is to be done.
    fn next(&self) -> String {
        let OutcomeCounts { failed, invalid, .. } = self.checkpoint.counts;
        let rejected = failed + invalid;
        if self.process.is_some() {
            return "wait for it, or stop it with Ctrl-C or a signal: the same command then continues".to_owned();
        }
        match &self.checkpoint.state {
            RunStatus::Unfinished => self.next_of_unfinished(),
            RunStatus::SettingAside { .. } => {
                "give the same command again: it keeps the old files under dated names, and begins".to_owned()
            }
            RunStatus::Finished if self.change != ChangeSeen::None => match self.checkpoint.work {
                RunKind::Import => "the file has changed since: the same command begins a new run on it".to_owned(),
                RunKind::Sync { .. } => "the file has changed since: the same command makes a new plan for it".to_owned(),
            },
            RunStatus::Finished if rejected > 0 => {
                format!("fix the {} in {}, then import that file", counted(rejected, "row"), self.paths.rejects.display())
            }
            RunStatus::Finished => "nothing is left to do".to_owned(),
        }
    }

    fn next_of_unfinished(&self) -> String {
        let row = count(self.checkpoint.settled.rows);
        match (&self.checkpoint.work, self.change) {
            (_, ChangeSeen::None) | (RunKind::Import, ChangeSeen::Behind) => {
                format!("run the same command again: it continues after row {row}")
            }
            (RunKind::Import, ChangeSeen::Within) => {
                format!("put the file back as it was up to row {row}, and the same command continues; with --restart it begins anew")
            }
            (RunKind::Import, ChangeSeen::Somewhere) => {
                format!("run the same command again: it continues after row {row} if the file is as it was up to there")
            }
            (RunKind::Sync { .. }, ChangeSeen::Behind | ChangeSeen::Within | ChangeSeen::Somewhere) => {
                "run the same command again: the file has changed, so it makes a new plan".to_owned()
            }
        }
    }

    fn to_json(&self) -> String {
        let OutcomeCounts { imported, failed, invalid, superseded, .. } = self.checkpoint.counts;
        let (left, left_is_estimate) = match self.left {
            Left::Rows(rows) => (Some(rows), false),
            Left::About(rows) => (Some(rows), true),
            Left::Unknown => (None, false),
        };
        let time = |at: SystemTime| humantime::format_rfc3339_millis(at).to_string();
        let json = StandingJson {
            command: self.command(),
            target: self.checkpoint.target.to_string(),
            finished: self.is_finished(),
            settled: self.checkpoint.settled.rows,
            imported,
            failed,
            invalid,
            superseded,
            left,
            left_is_estimate,
            input_changed: self.change != ChangeSeen::None,
            begun_at: self.begun_at.map(time),
            saved_at: time(self.saved_at),
            process: self.process,
            next: self.next(),
        };
        let mut text = serde_json::to_string_pretty(&json).expect("its keys are text, and no writer can fail");
        text.push('\n');
        text
    }
}

/// The JSON of a status; the names of its fields are part of the contract.
#[derive(Serialize)]
struct StandingJson {
    command: &'static str,
    target: String,
    finished: bool,
    settled: u64,
    imported: u64,
    failed: u64,
    invalid: u64,
    superseded: u64,
    /// `null` if the input can't be read.
    left: Option<u64>,
    left_is_estimate: bool,
    input_changed: bool,
    begun_at: Option<String>,
    saved_at: String,
    process: Option<u32>,
    next: String,
}

/// Writes the lines with a final line break.
impl fmt::Display for StatusReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OutcomeCounts { imported, failed, invalid, superseded, .. } = self.checkpoint.counts;
        let how = if self.is_finished() { "finished" } else { "unfinished" };
        writeln!(f, "run         {} into {}, {how}", self.command(), self.checkpoint.target)?;
        // Each of these has its result; unchanged rows of a sync have none.
        let processed = self.checkpoint.counts.rows();
        let unchanged = match self.checkpoint.settled.rows.saturating_sub(processed) {
            0 => String::new(),
            rows => format!("; {} unchanged", count(rows)),
        };
        let superseded = if superseded > 0 { format!(", {} superseded", count(superseded)) } else { String::new() };
        let (imported, failed, invalid) = (count(imported), count(failed), count(invalid));
        let processed = counted(processed, "row");
        writeln!(f, "processed   {processed}: {imported} imported, {failed} failed, {invalid} invalid{superseded}{unchanged}")?;
        let changed = match self.change {
            ChangeSeen::None => "",
            ChangeSeen::Behind => "; the file has changed since, behind the processed rows",
            ChangeSeen::Within => "; the file has changed since, in the processed rows",
            ChangeSeen::Somewhere => "; the file has changed since",
        };
        match self.left {
            Left::Rows(rows) => writeln!(f, "left        {}{changed}", counted(rows, "row"))?,
            Left::About(rows) => writeln!(f, "left        about {}{changed}", counted(rows, "row"))?,
            Left::Unknown => writeln!(f, "left        unknown: the input is not there, or not as it was")?,
        }
        let time = humantime::format_rfc3339_seconds;
        if let Some(begun_at) = self.begun_at {
            writeln!(f, "started     {} (first row done)", time(begun_at))?;
        }
        let ago = SystemTime::now().duration_since(self.saved_at).unwrap_or_default();
        writeln!(f, "checkpoint  written {}, {} ago", time(self.saved_at), duration(Duration::from_secs(ago.as_secs())))?;
        match self.process {
            Some(process) => writeln!(f, "process     {process} is at work")?,
            None => writeln!(f, "process     none is at work")?,
        }
        let files: Vec<&PathBuf> = [&self.paths.results, &self.paths.rejects].into_iter().filter(|path| path.exists()).collect();
        let files: Vec<String> = files.into_iter().map(|path| printable(&path.display().to_string())).collect();
        writeln!(f, "files       {}", files.join(", "))?;
        writeln!(f, "next        {}", printable(&self.next()))
    }
}
