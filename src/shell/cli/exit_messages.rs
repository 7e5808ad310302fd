//! The exit messages of an import: how it ended, why, and what to do.

use std::io::ErrorKind;
use std::path::Path;

use super::access::{is_callers, is_out_of_files, why_denied};
use super::command_line::CommandLine;
use super::flags::RunFlags;
use super::input;
use super::quota;
use crate::domain::command::Command;
use crate::domain::figures;
use crate::domain::halt_reason::HaltReason;
use crate::domain::outcome::OutcomeCounts;
use crate::domain::tag::Tag;
use crate::flow::dispatch::AbortCause;
use crate::flow::import::{ImportEnd, ImportScope};
use crate::io::files::lock;
use crate::io::journal::paths::RunPaths;
use crate::io::journal::{DiskError, OpenError};
use crate::io::roster::RosterError;
use crate::shell::exit::{Exit, ExitMessage, MORE_FILES};
use crate::shell::terminal::causes;

/// The hint after everything that only interrupted a run.
pub(super) const RESUMES: &str = "the same command continues where it stopped";

/// The information about a run for its exit message.
#[derive(Debug, Clone, Copy)]
pub(super) struct EndedRun<'a> {
    pub(super) flags: &'a RunFlags,
    pub(super) scope: ImportScope,
    pub(super) paths: &'a RunPaths,
    /// The delimiter of the input and of the rejects.
    pub(super) delimiter: u8,
    /// The state that an import fills.
    pub(super) state: Option<&'a Path>,
    /// Advice for a run of which no request got through.
    pub(super) reach: Option<&'a str>,
}

/// The exit message of a run that ended by itself; `remaining` are the records that a limit has left.
pub(super) fn last_word(end: &ImportEnd<RosterError>, counts: OutcomeCounts, remaining: Option<u64>, given: EndedRun) -> ExitMessage {
    match end {
        ImportEnd::Finished => finished(counts, given),
        ImportEnd::LimitReached => limited(counts, remaining),
        ImportEnd::Aborted(cause) => aborted(cause, &processed(counts), RESUMES, given.reach),
        ImportEnd::Input(error) => input::roster_error(&given.flags.input.file, error),
    }
}

/// How far a run has come that was stopped.
pub(super) fn processed(counts: OutcomeCounts) -> String {
    format!("{} processed", rows(counts.rows()))
}

/// The exit message of a run that was stopped; `then` says what the same command does.
pub(super) fn aborted(cause: &AbortCause, so_far: &str, then: &str, reach: Option<&str>) -> ExitMessage {
    match cause {
        AbortCause::Signal => ExitMessage::new(Exit::Stopped, format!("a signal came; {so_far}"), then),
        AbortCause::Outage { api: Command::PortraitSet, why } => ExitMessage::new(
            Exit::Stopped,
            format!("portrait_set was down for longer than --max-outage; last of all: {why}; {so_far}"),
            format!("{}; {PROFILES_AT_FAULT}", outage_hint(reach, then)),
        ),
        AbortCause::Outage { api: _, why } => ExitMessage::new(
            Exit::Stopped,
            format!("the service was down for longer than --max-outage; last of all: {why}; {so_far}"),
            outage_hint(reach, then),
        ),
        AbortCause::QuotaLost { why } => ExitMessage::new(
            Exit::Stopped,
            format!("the quota's store was lost for longer than --max-outage; last of all: {why}; {so_far}"),
            format!("look at the server of --quota; without --quota a run shares with nobody; {then}"),
        ),
        AbortCause::QuotaRefused(refusal) => quota::refused(refusal, so_far),
        AbortCause::Refused { reason, code, says } => refused(*reason, *code, says, so_far),
    }
}

/// What may be so instead if no profile could be set, though the service is well.
const PROFILES_AT_FAULT: &str =
    "if portrait_set works for other users, the profile cells of the rows that are left are at fault: correct them";

/// The hint if the service was down, or no request has ever got through.
fn outage_hint(reach: Option<&str>, then: &str) -> String {
    match reach {
        None => format!("check the network and the service's status page; {then}"),
        Some(advice) => format!("nothing has ever got through: {advice}; {then}"),
    }
}

/// The exit message if the service will accept nothing more of this run.
fn refused(refusal: HaltReason, code: Option<i64>, says: &str, so_far: &str) -> ExitMessage {
    let code = code.map_or(String::new(), |code| format!("code {code}"));
    let details = [&code, says].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
    let details = if details.is_empty() { details } else { format!(" ({details})") };
    ExitMessage::new(refusal.class().into(), format!("{refusal}{details}; {so_far}"), refusal_hint(refusal, says))
}

/// The hint of a refusal; no console creates a field that every app should have, so that is another matter than a custom one.
fn refusal_hint(refusal: HaltReason, says: &str) -> String {
    let tag = says.split(':').next().and_then(Tag::of_wire_name);
    match (refusal, tag) {
        (HaltReason::NoSuchTag | HaltReason::TagNotWritable, Some(tag)) if !matches!(tag, Tag::Custom(_)) => {
            let none = input::profile_flag(&tag, "");
            format!("the app does not have or does not allow this standard field: ask Tencent about it, or {none} reads it no more")
        }
        (refusal, _) => refusal.hint().to_owned(),
    }
}

fn rows(count: u64) -> String {
    figures::counted(count, "row")
}

/// The exit code of a run with these outcomes.
pub(super) fn finished_exit(counts: OutcomeCounts) -> Exit {
    if counts.rejected() == 0 { Exit::Done } else { Exit::SomeRowsRejected }
}

fn finished(counts: OutcomeCounts, given: EndedRun) -> ExitMessage {
    let exit = finished_exit(counts);
    let hint = if exit == Exit::SomeRowsRejected { fix_rejects(given) } else { nothing_to_do(given) };
    ExitMessage::new(exit, told(counts), hint)
}

fn told(counts: OutcomeCounts) -> String {
    let OutcomeCounts { imported, failed, invalid, .. } = counts;
    let count = figures::count;
    if counts.rejected() == 0 {
        let all = if imported == 1 { "" } else { "all " };
        format!("{all}{} imported", rows(imported))
    } else {
        format!("{} of {} imported, {} failed, {} invalid", count(imported), rows(counts.rows()), count(failed), count(invalid))
    }
}

fn fix_rejects(given: EndedRun) -> String {
    let (rejects, flags) = (&given.paths.rejects, given.flags);
    let command = CommandLine::new("import").file(rejects).reading_copy(&flags.input, rejects, given.delimiter);
    let command = command.sending(flags, given.scope).connection(&flags.connection);
    let command = given.state.map_or(command.clone(), |state| command.with("state", state));
    format!("{} holds them with the reasons: fix it, then {command}", rejects.display())
}

fn nothing_to_do(given: EndedRun) -> String {
    let (results, flags) = (&given.paths.results, given.flags);
    if input::is_stream(&flags.input.file) {
        return format!("nothing is left to do; {} has the results", results.display());
    }
    let command = CommandLine::new("audit").file(&flags.input.file).with("results", results).reading(&flags.input);
    format!("nothing is left to do; {command} proves it row by row")
}

pub(super) fn limited(counts: OutcomeCounts, remaining: Option<u64>) -> ExitMessage {
    let remain = match remaining {
        None => "an unknown number remains".to_owned(),
        Some(1) => "1 remains".to_owned(),
        Some(count) => format!("{} remain", figures::count(count)),
    };
    let so_far = match counts.rejected() {
        0 => format!("{} imported so far", rows(counts.imported)),
        _ => format!("so far {}", told(counts)),
    };
    let why = format!("the limit is reached: {so_far}; {remain}");
    ExitMessage::new(finished_exit(counts), why, "the same command without --limit continues")
}

/// Adds why a run took minutes for failed rows, if it did.
pub(super) fn having_waited(word: ExitMessage, unjudged: u64) -> ExitMessage {
    if unjudged == 0 {
        return word;
    }
    let count = figures::count(unjudged);
    let wait = format!(
        "{count} of the failed kept meeting temporary errors and were tried for two minutes, since nothing else could show whether the service was well"
    );
    ExitMessage { why: format!("{}; {wait}", word.why), ..word }
}

/// The exit message if an earlier process has finished the run.
pub(super) fn already_finished(counts: OutcomeCounts, given: EndedRun) -> ExitMessage {
    let word = finished(counts, given);
    ExitMessage { why: format!("this run was finished earlier, nothing is sent: {}", word.why), ..word }
}

/// The exit message if the journal cannot write any more.
pub(super) fn disk_failed(error: &DiskError) -> ExitMessage {
    let why = format!("{}{}", causes(error), why_denied(&error.path, &error.source));
    if is_out_of_files(&error.source) {
        return ExitMessage::yours(why, MORE_FILES);
    }
    if error.source.kind() == ErrorKind::FileTooLarge {
        let hint = "let files be longer (`ulimit -f` shows the limit); what was committed stays, and the same command resumes";
        return ExitMessage::new(Exit::Fatal, why, hint);
    }
    ExitMessage::new(Exit::Fatal, why, "make room or repair the disk; what was committed stays, and the same command resumes")
}

/// The exit message if another process is working on `what`.
pub(super) fn busy(why: String, locks: &[&Path], what: &str) -> ExitMessage {
    let who = locks.iter().find_map(|lock| lock::holder(lock)).map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
    let hint = format!("{who} is at work on it: wait for it, or stop it; one process at a time works on {what}");
    ExitMessage::new(Exit::Busy, why, hint)
}

/// The exit message if the journal cannot be opened.
pub(super) fn cannot_open(error: &OpenError) -> ExitMessage {
    let hint = match error {
        OpenError::Locked { lock, .. } => return busy(causes(error), &[lock], "a run"),
        OpenError::NoCheckpoint { .. } => "bring the checkpoint back, or begin again with --restart, which renames and keeps the results".to_owned(),
        OpenError::NoResults { .. } => "bring the results back, or begin again with --restart, which renames and keeps the checkpoint".to_owned(),
        OpenError::Checkpoint { .. } => "bring back an intact one, or begin again with --restart, which renames and keeps the old files".to_owned(),
        OpenError::OtherCommand { .. } => {
            "finish that one first with its own command, name other files with --results, or begin again with --restart".to_owned()
        }
        OpenError::OtherTarget { .. } => "name other files with --results, or begin again with --restart, which renames and keeps the old files".to_owned(),
        OpenError::OtherColumns { newly_read, .. } => {
            let none: Vec<String> = newly_read.iter().map(|meant| input::reading_flag(meant, "")).collect();
            let none = if none.is_empty() { String::new() } else { format!("{} continues the run as it began; else ", none.join(" ")) };
            format!(
                "{none}give the same --map, --profile, --profile-only, --delimiter and other flags of the input, or begin again with --restart"
            )
        }
        OpenError::OtherFiles { .. } => "give the same --results and --rejects, or begin again with --restart".to_owned(),
        OpenError::InputChanged { .. } => {
            "bring back the file as it was, or import the new one from its start with --restart; processed rows may be imported twice, which is safe"
                .to_owned()
        }
        OpenError::ResultsChanged { .. } => "bring it back as the run left it, or begin again with --restart, which renames and keeps it".to_owned(),
        OpenError::Disk(disk) if is_callers(&disk.source) => {
            let why = format!("{}{}", causes(error), why_denied(&disk.path, &disk.source));
            return ExitMessage::yours(why, "check the folder and its permissions; --results names another place");
        }
        OpenError::Input(cause) if is_out_of_files(cause) => return ExitMessage::yours(causes(error), MORE_FILES),
        OpenError::Input(_) => "the same command resumes once the file can be read".to_owned(),
        OpenError::Disk(disk) => return disk_failed(disk),
    };
    let exit = if matches!(error, OpenError::Input(_)) { Exit::Fatal } else { Exit::UserError };
    ExitMessage::new(exit, causes(error), hint)
}
