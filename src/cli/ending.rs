//! The last words of an import: what ended it, why, and what to do.

use std::path::Path;

use super::exit::{Exit, LastWord, causes};
use super::input;
use crate::figures;
use crate::import::End;
use crate::journal::paths::Paths;
use crate::journal::{DiskError, OpenError};
use crate::outcome::Tally;
use crate::roster::RosterError;
use crate::verdict::Refusal;

/// What the same command does after everything that only interrupted a run.
pub(super) const RESUMES: &str = "the same command goes on where it stopped";

/// The last word on a run that came to an end of its own; `remaining` are the records that a limit has left.
pub(super) fn last_word(end: &End<RosterError>, tally: Tally, remaining: Option<u64>, input: &Path, paths: &Paths) -> LastWord {
    match end {
        End::Finished => finished(tally, input, paths),
        End::LimitReached => limited(tally, remaining),
        End::Stopped => LastWord::new(Exit::Stopped, format!("a signal came; {} settled", rows(tally.rows())), RESUMES),
        End::Outage { why } => LastWord::new(
            Exit::Stopped,
            format!("the service was down for longer than --max-outage; last of all: {why}; {} settled", rows(tally.rows())),
            "check the network and the service's status page; the same command goes on where it stopped",
        ),
        End::Refused { refusal, code, says } => refused(*refusal, *code, says, &format!("{} settled", rows(tally.rows()))),
        End::Input(error) => input::roster_error(input, error),
    }
}

/// The service will take nothing more of this run.
pub(super) fn refused(refusal: Refusal, code: Option<i64>, says: &str, so_far: &str) -> LastWord {
    let code = code.map_or(String::new(), |code| format!("code {code}"));
    let details = [&code, says].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
    let details = if details.is_empty() { details } else { format!(" ({details})") };
    LastWord::new(refusal.class().into(), format!("{refusal}{details}; {so_far}"), refusal.hint())
}

fn rows(count: u64) -> String {
    figures::counted(count, "row")
}

/// The exit code of a run whose rows have come to this.
pub(super) fn finished_exit(tally: Tally) -> Exit {
    if tally.rejected() == 0 { Exit::Done } else { Exit::SomeRows }
}

fn finished(tally: Tally, input: &Path, paths: &Paths) -> LastWord {
    let exit = finished_exit(tally);
    let hint = if exit == Exit::SomeRows { fix_rejects(paths) } else { nothing_to_do(input, paths) };
    LastWord::new(exit, told(tally), hint)
}

fn told(tally: Tally) -> String {
    let Tally { imported, failed, invalid, .. } = tally;
    let count = figures::count;
    if tally.rejected() == 0 {
        format!("all {} imported", rows(imported))
    } else {
        format!("{} of {} imported, {} failed, {} invalid", count(imported), rows(tally.rows()), count(failed), count(invalid))
    }
}

fn fix_rejects(paths: &Paths) -> String {
    let rejects = paths.rejects.display();
    format!("{rejects} holds them with the reasons: fix it, then chatlift import {rejects}")
}

fn nothing_to_do(input: &Path, paths: &Paths) -> String {
    let results = paths.results.display();
    if input::is_stdin(input) {
        return format!("nothing is left to do; {results} has the outcomes");
    }
    format!("nothing is left to do; chatlift audit {} --results {results} proves it row by row", input.display())
}

fn limited(tally: Tally, remaining: Option<u64>) -> LastWord {
    let remain = remaining.map_or_else(|| "an unknown number remains".to_owned(), |count| format!("{} remain", figures::count(count)));
    let so_far = match tally.rejected() {
        0 => format!("{} imported so far", rows(tally.imported)),
        _ => format!("so far {}", told(tally)),
    };
    let why = format!("the limit is reached: {so_far}; {remain}");
    LastWord::new(finished_exit(tally), why, "the same command without --limit goes on")
}

/// Says why a run took minutes for rows that failed, if it did.
pub(super) fn having_waited(word: LastWord, unjudged: u64) -> LastWord {
    if unjudged == 0 {
        return word;
    }
    let count = figures::count(unjudged);
    let wait = format!(
        "{count} of the failed kept meeting temporary errors and were tried for two minutes, since nothing else could show whether the service was well"
    );
    LastWord { why: format!("{}; {wait}", word.why), ..word }
}

/// The last word when an earlier process has finished the run.
pub(super) fn already_finished(tally: Tally, input: &Path, paths: &Paths) -> LastWord {
    let word = finished(tally, input, paths);
    LastWord { why: format!("this run was finished earlier, nothing is sent: {}", word.why), ..word }
}

/// The last word when the journal can't write any more.
pub(super) fn disk_failed(error: &DiskError) -> LastWord {
    LastWord::new(Exit::CannotGoOn, causes(error), "make room or repair the disk; what was committed stays, and the same command resumes")
}

/// The last word when the journal can't be opened.
pub(super) fn cannot_open(error: &OpenError) -> LastWord {
    let hint = match error {
        OpenError::Locked { .. } => "wait for it, or stop it; one process at a time works on a run".to_owned(),
        OpenError::NoCheckpoint { .. } => "bring the checkpoint back, or begin again with --restart, which sets the results aside".to_owned(),
        OpenError::NoResults { .. } => "bring the results back, or begin again with --restart, which sets the checkpoint aside".to_owned(),
        OpenError::Checkpoint { .. } => "bring back an intact one, or begin again with --restart, which sets the old files aside".to_owned(),
        OpenError::OtherWork { .. } => {
            "finish that one first with its own command, name other files with --results, or begin again with --restart".to_owned()
        }
        OpenError::OtherTarget { .. } => "name other files with --results, or begin again with --restart, which sets the old files aside".to_owned(),
        OpenError::OtherReading => "give the same --map and --delimiter, or begin again with --restart".to_owned(),
        OpenError::OtherFiles { .. } => "give the same --results and --rejects, or begin again with --restart".to_owned(),
        OpenError::InputChanged { .. } => {
            "bring back the file as it was, or import the new one from its start with --restart; settled rows may be imported twice, which is safe"
                .to_owned()
        }
        OpenError::SheetChanged { .. } => "bring it back as the run left it, or begin again with --restart, which sets it aside".to_owned(),
        OpenError::Input(_) => "the same command resumes once the file can be read".to_owned(),
        OpenError::Disk(disk) if is_callers(disk) => "check the folder and its permissions; --results names another place".to_owned(),
        OpenError::Disk(disk) => return disk_failed(disk),
    };
    let exit = if matches!(error, OpenError::Input(_)) { Exit::CannotGoOn } else { Exit::Yours };
    LastWord::new(exit, causes(error), hint)
}

/// Whether it is the caller's choice of a place that the disk refuses.
fn is_callers(error: &DiskError) -> bool {
    use std::io::ErrorKind::{InvalidInput, IsADirectory, NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};
    matches!(error.source.kind(), NotFound | PermissionDenied | IsADirectory | NotADirectory | ReadOnlyFilesystem | InvalidInput)
}
