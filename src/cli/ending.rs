//! The last words of an import: what ended it, why, and what to do.

use std::path::Path;

use super::access::{MORE_FILES, is_callers, is_out_of_files, why_denied};
use super::command_line::CommandLine;
use super::exit::{Exit, LastWord, causes};
use super::flags::RunFlags;
use super::input;
use super::settings::copies_delimiter;
use crate::figures;
use crate::import::End;
use crate::journal::paths::Paths;
use crate::journal::{DiskError, OpenError};
use crate::lockfile;
use crate::outcome::Tally;
use crate::roster::RosterError;
use crate::verdict::Refusal;

/// What the same command does after everything that only interrupted a run.
pub(super) const RESUMES: &str = "the same command goes on where it stopped";

/// A run as its last word needs it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) flags: &'a RunFlags,
    pub(super) paths: &'a Paths,
    /// The state that an import fills.
    pub(super) state: Option<&'a Path>,
    /// What to look at where no call has got through.
    pub(super) reach: Option<&'a str>,
}

/// The last word on a run that came to an end of its own; `remaining` are the records that a limit has left.
pub(super) fn last_word(end: &End<RosterError>, tally: Tally, remaining: Option<u64>, given: Given) -> LastWord {
    match end {
        End::Finished => finished(tally, given),
        End::LimitReached => limited(tally, remaining),
        End::Stopped => LastWord::new(Exit::Stopped, format!("a signal came; {} settled", rows(tally.rows())), RESUMES),
        End::Outage { why } => LastWord::new(
            Exit::Stopped,
            format!("the service was down for longer than --max-outage; last of all: {why}; {} settled", rows(tally.rows())),
            outage_hint(given.reach, RESUMES),
        ),
        End::Refused { refusal, code, says } => refused(*refusal, *code, says, &format!("{} settled", rows(tally.rows()))),
        End::Input(error) => input::roster_error(&given.flags.input.file, error),
    }
}

/// What to do about a service that was down, or that nothing has ever got through to.
pub(super) fn outage_hint(reach: Option<&str>, then: &str) -> String {
    match reach {
        None => format!("check the network and the service's status page; {then}"),
        Some(advice) => format!("nothing has ever got through: {advice}; {then}"),
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

fn finished(tally: Tally, given: Given) -> LastWord {
    let exit = finished_exit(tally);
    let hint = if exit == Exit::SomeRows { fix_rejects(given) } else { nothing_to_do(given) };
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

fn fix_rejects(given: Given) -> String {
    let (rejects, flags) = (&given.paths.rejects, given.flags);
    let command = CommandLine::new("import").file(rejects).reading_copy(&flags.input, rejects, copies_delimiter(&flags.input));
    let command = command.connection(&flags.connection);
    let command = given.state.map_or(command.clone(), |state| command.with("state", state));
    format!("{} holds them with the reasons: fix it, then {command}", rejects.display())
}

fn nothing_to_do(given: Given) -> String {
    let (results, flags) = (&given.paths.results, given.flags);
    if input::is_stream(&flags.input.file) {
        return format!("nothing is left to do; {} has the outcomes", results.display());
    }
    let command = CommandLine::new("audit").file(&flags.input.file).with("results", results).reading(&flags.input);
    format!("nothing is left to do; {command} proves it row by row")
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
pub(super) fn already_finished(tally: Tally, given: Given) -> LastWord {
    let word = finished(tally, given);
    LastWord { why: format!("this run was finished earlier, nothing is sent: {}", word.why), ..word }
}

/// The last word when the journal can't write any more.
pub(super) fn disk_failed(error: &DiskError) -> LastWord {
    let why = format!("{}{}", causes(error), why_denied(&error.path, &error.source));
    if is_out_of_files(&error.source) {
        return LastWord::yours(why, MORE_FILES);
    }
    LastWord::new(Exit::CannotGoOn, why, "make room or repair the disk; what was committed stays, and the same command resumes")
}

/// The last word when another process is at work on `what`.
pub(super) fn busy(why: String, locks: &[&Path], what: &str) -> LastWord {
    let who =
        locks.iter().find_map(|lock| lockfile::holder(lock)).map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
    let hint = format!("{who} is at work on it: wait for it, or stop it; one process at a time works on {what}");
    LastWord::new(Exit::Busy, why, hint)
}

/// The last word when the journal can't be opened.
pub(super) fn cannot_open(error: &OpenError) -> LastWord {
    let hint = match error {
        OpenError::Locked { lock, .. } => return busy(causes(error), &[lock], "a run"),
        OpenError::NoCheckpoint { .. } => "bring the checkpoint back, or begin again with --restart, which sets the results aside".to_owned(),
        OpenError::NoResults { .. } => "bring the results back, or begin again with --restart, which sets the checkpoint aside".to_owned(),
        OpenError::Checkpoint { .. } => "bring back an intact one, or begin again with --restart, which sets the old files aside".to_owned(),
        OpenError::OtherWork { .. } => {
            "finish that one first with its own command, name other files with --results, or begin again with --restart".to_owned()
        }
        OpenError::OtherTarget { .. } => "name other files with --results, or begin again with --restart, which sets the old files aside".to_owned(),
        OpenError::OtherReading { .. } => "give the same --map, --delimiter and other flags of the input, or begin again with --restart".to_owned(),
        OpenError::OtherFiles { .. } => "give the same --results and --rejects, or begin again with --restart".to_owned(),
        OpenError::InputChanged { .. } => {
            "bring back the file as it was, or import the new one from its start with --restart; settled rows may be imported twice, which is safe"
                .to_owned()
        }
        OpenError::SheetChanged { .. } => "bring it back as the run left it, or begin again with --restart, which sets it aside".to_owned(),
        OpenError::Disk(disk) if is_callers(&disk.source) => {
            let why = format!("{}{}", causes(error), why_denied(&disk.path, &disk.source));
            return LastWord::yours(why, "check the folder and its permissions; --results names another place");
        }
        OpenError::Input(cause) if is_out_of_files(cause) => return LastWord::yours(causes(error), MORE_FILES),
        OpenError::Input(_) => "the same command resumes once the file can be read".to_owned(),
        OpenError::Disk(disk) => return disk_failed(disk),
    };
    let exit = if matches!(error, OpenError::Input(_)) { Exit::CannotGoOn } else { Exit::Yours };
    LastWord::new(exit, causes(error), hint)
}
