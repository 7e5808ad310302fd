//! What is said at the end of a sync: the exit message, the table, the summary, and what each error means.

use std::time::Duration;

use super::job::SyncJob;
use crate::domain::call_stats::CallStats;
use crate::domain::cells::Uuids;
use crate::domain::figures;
use crate::domain::guard::Guard;
use crate::domain::outcome::OutcomeCounts;
use crate::flow::import::ImportEnd;
use crate::flow::sync::{FeedError, MissingCounts, PlanError, SyncError, SyncPlan, SyncReport};
use crate::shell::cli::access::{Remedies, cannot_use, why_denied};
use crate::shell::cli::exit_messages::{RESUMES, aborted, cannot_open, disk_failed, finished_exit, having_waited, limited, processed};
use crate::shell::cli::input::{roster_error, tell_blank};
use crate::shell::cli::reach::Reach;
use crate::shell::cli::state_file::state_error;
use crate::shell::cli::{preflight, run};
use crate::shell::exit::{Exit, ExitMessage};
use crate::shell::screen::summary::{Summary, SyncFigures};
use crate::shell::terminal::causes;

/// Tells what a run has come to, and returns it. `word` is its last one, which the caller says.
pub(super) fn tell(job: &SyncJob, word: &ExitMessage, report: SyncReport, elapsed: Duration) -> Summary {
    tell_blank(report.blank_lines);
    let MissingCounts { kicked, deleted, failed, lookalikes, .. } = report.missing;
    let sync =
        SyncFigures { plan: report.plan, kicked, deleted, missing_failed: failed, lookalikes, missing_waits: report.wait, guard: None };
    let SyncReport { lane, counts, traffic, resumed_at_row, .. } = report;
    let (exit, outcome) = (word.exit, word.exit.outcome());
    let summary = Summary { exit, outcome, lane, counts, traffic, elapsed, resumed_at_row, sync: Some(sync) };
    run::tell(job.typed, &job.paths, &summary, report.this_process);
    summary
}

/// The summary of a plan that goes no further.
pub(super) fn planned_only(job: &SyncJob, word: &ExitMessage, plan: &SyncPlan, guard: Option<Guard>) -> Summary {
    let sync = SyncFigures {
        plan: plan.counts(),
        kicked: 0,
        deleted: 0,
        missing_failed: 0,
        lookalikes: plan.draft().lookalikes.spared,
        missing_waits: plan.wait(),
        guard,
    };
    Summary {
        exit: word.exit,
        outcome: word.exit.outcome(),
        lane: job.lanes.lane,
        counts: OutcomeCounts::default(),
        traffic: CallStats::default(),
        elapsed: Duration::ZERO,
        resumed_at_row: 0,
        sync: Some(sync),
    }
}

/// The last word on a run.
pub(super) fn last_word_on(job: &SyncJob, report: &SyncReport, reach: &Reach) -> ExitMessage {
    let file = &job.typed.input.file;
    match &report.end {
        Err(error) => error_word(job, error),
        Ok(ImportEnd::Finished) => finished(job, report),
        Ok(ImportEnd::LimitReached) => limited(report.counts, report.remaining),
        Ok(ImportEnd::Aborted(cause)) => aborted(cause, &processed(report.counts), RESUMES, reach.advice_on(&report.traffic)),
        Ok(ImportEnd::Input(FeedError::State(error))) => state_error(error),
        Ok(ImportEnd::Input(FeedError::Roster(error))) => roster_error(file, error),
        Ok(ImportEnd::Input(error @ FeedError::Modified)) => ExitMessage::yours(
            format!("{}: {error}", file.display()),
            "let whoever writes it finish, then give the same command again: it makes a new plan",
        ),
    }
}

fn finished(job: &SyncJob, report: &SyncReport) -> ExitMessage {
    let (counts, missing, plan) = (report.counts, report.missing, report.plan);
    let count = figures::count;
    let exit = if missing.failed > 0 { Exit::SomeRowsRejected } else { finished_exit(counts) };
    let mut why = format!("{} created, {} updated, {} unchanged", count(counts.created), count(counts.updated), count(plan.unchanged));
    let mut and = |number: u64, word: &str| {
        if number > 0 {
            why.extend([", ", &count(number), " ", word]);
        }
    };
    and(counts.superseded, "superseded");
    and(counts.failed, "failed");
    and(counts.invalid, "invalid");
    and(plan.missing, "missing");
    and(missing.kicked, "kicked");
    and(missing.deleted, "deleted");
    and(missing.failed, "of the missing failed");
    having_waited(ExitMessage::new(exit, why, finished_hint(job, counts, missing)), report.unjudged)
}

fn finished_hint(job: &SyncJob, counts: OutcomeCounts, missing: MissingCounts) -> String {
    let paths = &job.paths;
    match (counts.rejected() > 0, missing.failed > 0) {
        (true, _) => {
            format!("{} holds the rejected rows with the reasons: mend them where the file comes from", paths.rejects.display())
        }
        (false, true) => format!("{} says why; the next run tries again", paths.missing.display()),
        (false, false) => {
            format!("nothing is left to do; the same command makes a new plan; {} has the results", paths.results.display())
        }
    }
}

/// What an error means, and what to do about it.
pub(super) fn error_word(job: &SyncJob, error: &SyncError) -> ExitMessage {
    let file = &job.typed.input.file;
    match error {
        SyncError::Plan(PlanError::Roster(error)) => roster_error(file, error),
        SyncError::Plan(PlanError::State(error)) | SyncError::State(error) => state_error(error),
        SyncError::Plan(error @ PlanError::Modified) => ExitMessage::yours(
            format!("{}: {error}; nothing was sent", file.display()),
            "let whoever writes it finish, then give the same command again",
        ),
        SyncError::Plan(PlanError::Stopped) => {
            ExitMessage::new(Exit::Stopped, "a signal came while planning; nothing was sent", "the same command makes a new plan")
        }
        SyncError::Plan(error @ PlanError::Scratch { folder, source }) => {
            let why = format!("{}{}", causes(error), why_denied(folder, source));
            let place = "it is kept beside the state: have the folder's permissions changed, or name another --state";
            cannot_use(why, source, Remedies { place, disk: "make room there; nothing was sent" })
        }
        SyncError::OlderState { .. } => {
            ExitMessage::yours(error.to_string(), format!("{} puts it right; then the same command with --restart", job.verify_command()))
        }
        SyncError::OtherIds { before: Uuids::Compact } => ExitMessage::yours(error.to_string(), "give --compact-uuid again"),
        SyncError::OtherIds { before: Uuids::Kept } => {
            ExitMessage::yours(error.to_string(), "leave --compact-uuid out, or begin with another --state and other --results")
        }
        SyncError::TooManyInvalid(found) => preflight::too_many_invalid(found.clone(), job.typed.max_invalid, &job.typed.input),
        SyncError::LeftResults { .. } => {
            ExitMessage::new(Exit::Fatal, causes(error), "give the same command again; --restart renames and keeps the results")
        }
        SyncError::Results { .. } => ExitMessage::new(Exit::Fatal, causes(error), RESUMES),
        SyncError::Open(error) => cannot_open(error),
        SyncError::Disk(error) => disk_failed(error),
    }
}
