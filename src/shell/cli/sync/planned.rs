//! Shows a plan: its counts on stderr, its rows in `--plan`, and the messages of the guards.

use super::job::SyncJob;
use super::report::planned_only;
use crate::domain::change::PlanCounts;
use crate::domain::figures;
use crate::domain::guard::{Guard, Tripped};
use crate::domain::oddity::{OddPlace, OddityKind};
use crate::flow::sync::{Intent, Lookalikes, MissingPolicy, PlannedRequests, SyncPlan};
use crate::shell::cli::atomic::{self, Readers};
use crate::shell::cli::command_end::Ended;
use crate::shell::cli::input::tell_blank;
use crate::shell::cli::oddities;
use crate::shell::cli::preflight::OddFile;
use crate::shell::cli::state_file::retarget;
use crate::shell::cli::{remedies, run};
use crate::shell::exit::{Exit, ExitMessage};
use crate::shell::screen::end_summary::Figures;
use crate::shell::terminal::print_stderr;

/// Tells the plan, and judges it. The error is the last word where it goes no further: a dry run, or a guard.
pub(super) fn tell_and_guard(job: &SyncJob, plan: &mut SyncPlan) -> Result<(), Ended> {
    let tripped = plan.tripped_guards(&job.guard_limits);
    job.page.update(|page, _| {
        page.set_plan(plan.counts());
        page.set_guards(plan.guard_report(&job.guard_limits));
    });
    write_plan(job, plan)?;
    let ends_here = job.intent == Intent::DryRun || !tripped.is_empty();
    if ends_here || !job.typed.output.quiet {
        print_stderr(&outline(job, plan));
    }
    tell_creates(&plan.draft().lookalikes);
    tell_cut(plan, &tripped);
    judge_oddities(job, plan)?;
    if !ends_here {
        return Ok(());
    }
    tell_blank(plan.blank_lines());
    let word = match &tripped[..] {
        [] => ExitMessage::new(
            Exit::Done,
            "this was a dry run: nothing is sent, the state is untouched",
            "the same command without --dry-run does it",
        ),
        tripped => guarded(job, tripped),
    };
    let summary = planned_only(job, &word, plan, tripped.first().map(|tripped| tripped.guard));
    let tripped = tripped.iter().map(|tripped| tripped.guard).collect();
    Err(Ended { tripped, ..Ended::with(word, Figures::of(summary)) })
}

/// Writes the plan row by row, if that is asked for.
fn write_plan(job: &SyncJob, plan: &mut SyncPlan) -> Result<(), ExitMessage> {
    let Some(path) = &job.plan else { return Ok(()) };
    atomic::write(path, Readers::Owner, |out| plan.write_csv(out)).map_err(|error| {
        let why = format!("cannot write the plan {}: {error}", path.display());
        ExitMessage::new(Exit::Fatal, why, "make room there; nothing was sent")
    })
}

/// Tells of a file that may have been cut off, where no guard stops it.
fn tell_cut(plan: &SyncPlan, tripped: &[Tripped]) {
    if !plan.ends_with_newline() && tripped.iter().all(|tripped| tripped.guard != Guard::Cut) {
        tracing::warn!("the file has no line end at its end: it may have been cut off");
    }
}

/// Tells of records that are to be created and look like a missing id: whoever it is may have two accounts then.
fn tell_creates(lookalikes: &Lookalikes) {
    let Lookalikes { creates, first_creates, .. } = lookalikes;
    if *creates > 0 {
        let places: Vec<String> = first_creates.iter().map(ToString::to_string).collect();
        let (count, places) = (figures::count(*creates), places.join(", "));
        tracing::warn!(
            "accounts to be created that look like a missing UserID: {count}, first in {places}; each may be one user under two UserIDs"
        );
    }
}

/// Tells what is odd in the file; with `--strict` no such file is taken.
fn judge_oddities(job: &SyncJob, plan: &SyncPlan) -> Result<(), ExitMessage> {
    let mut found = plan.draft().oddities.clone();
    oddities::warn(&found, "");
    remedies::warn(&found.invalid);
    // These were told on their own.
    let Lookalikes { creates, first_creates, .. } = &plan.draft().lookalikes;
    found.set(OddityKind::LookalikeCreate, *creates, first_creates.iter().map(|like| OddPlace { row: like.row, line: like.line }));
    let refusal = OddFile::of(job.typed).refusal(&found);
    refusal.map_or(Ok(()), |refusal| Err(refusal.last_word(&job.typed.input)))
}

fn outline(job: &SyncJob, plan: &SyncPlan) -> String {
    let count = figures::count;
    let (draft, PlanCounts { create, update, unchanged, invalid, superseded, missing }) = (plan.draft(), plan.counts());
    let lookalikes = match draft.lookalikes.spared {
        0 => String::new(),
        spared => format!(", {} spared because a row looks like them", count(spared)),
    };
    let malformed = draft
        .malformed
        .as_ref()
        .map_or_else(String::new, |malformed| format!("malformed   {malformed}; kicks and deletions wait but for --allow malformed\n"));
    let known = plan.known_accounts();
    let known = known.map_or_else(|| "a new state".to_owned(), |known| format!("{} known", figures::counted(known, "account")));
    let PlannedRequests { imports, profiles } = draft.requests;
    let (calls, time) = run::forecast(&job.lanes, imports);
    let calls = calls + profiles;
    // Both APIs are at work at the same time.
    let time = time.max(run::forecast_profiles(&job.lanes, profiles));
    let time = time.map_or_else(String::new, |time| format!(", about {}", figures::duration(time)));
    format!(
        "plan        {} to create, {} to update, {} unchanged, {} invalid, {} superseded\n\
         missing     {}, {} due for --missing {}{lookalikes}\n\
{malformed}\
         against     {}: {known}\n\
         requests    {}{time}",
        count(create),
        count(update),
        count(unchanged),
        count(invalid),
        count(superseded),
        figures::counted(missing, "account"),
        count(draft.due),
        match job.missing.policy {
            MissingPolicy::Report => "report",
            MissingPolicy::Kick => "kick",
            MissingPolicy::Delete => "delete (on paid plans a deleted UserID cannot be imported again for three months)",
        },
        job.state.display(),
        count(calls),
    )
}

fn guarded(job: &SyncJob, tripped: &[Tripped]) -> ExitMessage {
    let why: Vec<String> = tripped.iter().map(|Tripped { guard, why, .. }| format!("guard {}: {why}", guard.name())).collect();
    let way_out = |tripped: &Tripped| {
        if tripped.guard == Guard::Target {
            let command = retarget(&job.state, &job.typed.connection);
            format!("another --state, or, if the app has moved: {command}")
        } else {
            tripped.override_hint.clone()
        }
    };
    let ways: Vec<String> = tripped.iter().map(way_out).collect();
    let hint = format!("nothing was sent and the state is untouched; look at the file first; to let the run through: {}", ways.join(", "));
    ExitMessage::new(Exit::Guarded, why.join("; "), hint)
}
