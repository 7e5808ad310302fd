//! Shows a plan: its counts on stderr, its rows in `--plan`, and the messages of the guards.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use super::{Outline, Sync, missing};
use crate::domain::call_stats::CallStats;
use crate::domain::change::{MissingAccount, Op, PlanCounts, PlannedAction, Wait};
use crate::domain::figures::{self, defused};
use crate::domain::guard::{Guard, GuardInput, PastRun, Tripped, most_held};
use crate::domain::outcome::OutcomeCounts;
use crate::flow::deliver::{BATCH_RECORDS, Lane};
use crate::flow::sync::{PlanError, Step, SyncPlan};
use crate::io::gate::Rate;
use crate::io::roster::{InputReader, Roster, RosterError};
use crate::io::state::StateDb;
use crate::shell::cli::access::{Remedies, cannot_use, why_denied};
use crate::shell::cli::atomic::{self, Readers};
use crate::shell::cli::flags::AllowFlag;
use crate::shell::cli::import::write_summary;
use crate::shell::cli::input::roster_error;
use crate::shell::cli::signals::Stops;
use crate::shell::cli::state_file::{retarget, state_error};
use crate::shell::exit::{Exit, ExitMessage};
use crate::shell::screen::phase_bar::PhaseBar;
use crate::shell::screen::summary::{Summary, SyncFigures};
use crate::shell::terminal::causes;
use crate::shell::terminal::print_stderr;

/// What a plan's error means.
pub(super) fn plan_error(file: &Path, error: &PlanError) -> ExitMessage {
    match error {
        PlanError::Roster(error) => roster_error(file, error),
        PlanError::State(error) => state_error(error),
        PlanError::Modified => ExitMessage::yours(
            format!("{}: {error}; nothing was sent", file.display()),
            "let whoever writes it finish, then give the same command again",
        ),
        PlanError::Stopped => {
            ExitMessage::new(Exit::Stopped, "a signal came while planning; nothing was sent", "the same command plans anew")
        }
        PlanError::Spill { folder, source } => {
            let why = format!("{}{}", causes(error), why_denied(folder, source));
            let place = "it is kept beside the state: have the folder's permissions changed, or name another --state";
            cannot_use(why, source, Remedies { place, disk: "make room there; nothing was sent" })
        }
    }
}

/// The guard that a flag switches off.
pub(super) const fn guard(flag: AllowFlag) -> Option<Guard> {
    match flag {
        AllowFlag::Empty => Some(Guard::Empty),
        AllowFlag::Shrunk => Some(Guard::Shrunk),
        AllowFlag::Blanked => Some(Guard::Blanked),
        AllowFlag::Cut => Some(Guard::Cut),
        AllowFlag::Malformed | AllowFlag::Lookalikes => None,
    }
}

/// Tells of a file that may have been cut off, where no guard stops it.
pub(super) fn tell_cut(figures: &GuardInput, tripped: &[Tripped]) {
    if !figures.ends_with_newline && tripped.iter().all(|tripped| tripped.guard != Guard::Cut) {
        tracing::warn!("the file has no line end at its end: it may have been cut off");
    }
}

/// Shows how far the planning is, and stops it when a signal comes.
pub(super) struct PlanningProgress<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) stops: Stops,
    pub(super) gauge: PhaseBar,
    /// Of the file.
    pub(super) bytes: u64,
    /// Of the state, as far as the last run tells.
    pub(super) accounts: u64,
}

impl PlanningProgress<'_> {
    pub(super) fn heed(&mut self, step: Step) -> ControlFlow<()> {
        let now = Instant::now();
        match step {
            Step::Read(bytes) => self.gauge.tell((bytes, self.bytes), "reading the file", "nothing is sent yet", now),
            Step::LookedAt(accounts) => {
                let words = format!("{} looked at", figures::counted(accounts, "account"));
                self.gauge.tell((accounts, self.accounts.max(accounts)), &words, "planning, nothing is sent yet", now);
            }
            Step::Compared(bytes) => {
                self.gauge.tell((bytes, self.bytes), "comparing the missing accounts with the file", "nothing is sent yet", now);
            }
        }
        let stops = &mut self.stops;
        let is_stopped = self.runtime.block_on(async { stops.next().now_or_never().is_some() });
        if is_stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl Sync<'_> {
    /// What the guards judge.
    pub(super) fn figures(
        &self,
        drawn: &SyncPlan,
        state: Option<&StateDb>,
        other_target: Option<String>,
    ) -> Result<GuardInput, ExitMessage> {
        let runs = state.map_or(Ok(Vec::new()), |state| state.runs(u32::MAX)).map_err(|error| state_error(&error))?;
        let finished = || runs.iter().filter_map(|run| run.finished_at.map(|at| (run, at)));
        let past = finished().map(|(run, finished_at)| PastRun {
            finished_at,
            held: run.held_at_end,
            is_shrunk: run.shrunk_allowed == Some(true),
        });
        let ends_with_newline = self.file.ends_with_newline().map_err(|error| roster_error(&self.flags.run.input.file, &error.into()))?;
        Ok(GuardInput {
            filled: drawn.filled,
            before: drawn.filled_before,
            distinct: drawn.distinct,
            held: drawn.held,
            present: drawn.present,
            // A state of an older version doesn't know; then what is held now is what it was.
            most_held: most_held(past, self.began_at).unwrap_or(drawn.held),
            updates: drawn.counts.update,
            ends_with_newline,
            ended_with_newline: finished().next().and_then(|(run, _)| run.ends_with_newline),
            due: drawn.due,
            dead_canaries: drawn.dead_canaries.iter().map(|id| id.as_str().to_owned()).collect(),
            other_target,
        })
    }

    /// Tells the plan: its counts, and row by row if that is asked for.
    pub(super) fn tell_plan(&self, drawn: &mut SyncPlan, state: Option<&StateDb>, tripped: &[Tripped]) -> Result<(), ExitMessage> {
        if let Some(path) = &self.flags.plan {
            let roster = self.roster()?;
            let written = atomic::write(path, Readers::Owner, |out| write_plan(out, roster, drawn)).map_err(|error| {
                ExitMessage::new(
                    Exit::Fatal,
                    format!("cannot write the plan {}: {error}", path.display()),
                    "make room there; nothing was sent",
                )
            });
            written?;
        }
        let is_told = self.flags.run.dry_run || !tripped.is_empty() || !self.flags.run.output.quiet;
        if is_told {
            let held = state.map(|_| drawn.held);
            print_stderr(&self.outline(drawn, held));
        }
        missing::tell_creates(&drawn.lookalikes);
        Ok(())
    }

    fn outline(&self, drawn: &SyncPlan, held: Option<u64>) -> String {
        let count = figures::count;
        let PlanCounts { create, update, unchanged, invalid, superseded, missing } = drawn.counts;
        let lookalikes = match drawn.lookalikes.spared {
            0 => String::new(),
            spared => format!(", {} spared since a record looks like them", count(spared)),
        };
        let malformed = drawn.malformed.as_ref().map_or_else(String::new, |malformed| {
            format!("malformed   {}; kicks and deletions wait but for --allow malformed\n", missing::malformed_words(malformed))
        });
        let known = held.map_or_else(|| "a new state".to_owned(), |held| format!("{} known", figures::counted(held, "account")));
        let (calls, time) = self.forecast(create + update);
        let time = time.map_or_else(String::new, |time| format!(", about {}", figures::duration(time)));
        format!(
            "plan        {} to create, {} to update, {} unchanged, {} invalid, {} superseded\n\
             missing     {}, {} due for --missing {}{lookalikes}\n\
{malformed}\
             against     {}: {known}\n\
             calls       {calls}{time}",
            count(create),
            count(update),
            count(unchanged),
            count(invalid),
            count(superseded),
            figures::counted(missing, "account"),
            count(drawn.due),
            match self.flags.missing {
                crate::shell::cli::flags::MissingFlag::Report => "report",
                crate::shell::cli::flags::MissingFlag::Kick => "kick",
                crate::shell::cli::flags::MissingFlag::Delete => "delete (on paid plans a deleted id is barred for three months)",
            },
            self.flags.state.display(),
        )
    }

    /// Calls of the lane, and the time that they take at its rate.
    fn forecast(&self, sends: u64) -> (String, Option<Duration>) {
        let per_call = if matches!(self.lanes.lane, Lane::Batch(_)) { BATCH_RECORDS as u64 } else { 1 };
        let calls = sends.div_ceil(per_call);
        let time = match self.lanes.main_rate() {
            Rate::PerSecond(rate) => Some(Duration::from_secs_f64(calls as f64 / f64::from(rate.get()))),
            Rate::Unlimited => None,
        };
        (figures::count(calls), time)
    }

    /// The last word where nothing is sent: a dry run, or a guard.
    pub(super) fn stop(&self, drawn: &SyncPlan, tripped: &[Tripped], wait: Option<Wait>) -> ExitMessage {
        let guard = tripped.first().map(|tripped| tripped.guard);
        let word = match tripped {
            [] => ExitMessage::new(
                Exit::Done,
                "this was a dry run: nothing is sent, the state is untouched",
                "the same command without --dry-run does it",
            ),
            _ => self.guarded(tripped),
        };
        let outline = Outline { counts: drawn.counts, lookalikes: drawn.lookalikes.spared, guard, wait };
        write_summary(&self.flags.run, &nothing_sent(&word, outline, self.lanes.lane));
        word
    }

    fn guarded(&self, tripped: &[Tripped]) -> ExitMessage {
        let why: Vec<String> = tripped.iter().map(|Tripped { guard, why, .. }| format!("guard {}: {why}", guard.name())).collect();
        let way_out = |tripped: &Tripped| {
            if tripped.guard == Guard::Target {
                let command = retarget(&self.flags.state, &self.flags.run.connection);
                format!("another --state, or, if the app has moved: {command}")
            } else {
                tripped.override_hint.clone()
            }
        };
        let ways: Vec<String> = tripped.iter().map(way_out).collect();
        let hint =
            format!("nothing was sent and the state is untouched; look at the file first; what lets it through: {}", ways.join(", "));
        ExitMessage::new(Exit::Guarded, why.join("; "), hint)
    }
}

fn nothing_sent(word: &ExitMessage, outline: Outline, lane: Lane) -> Summary {
    Summary {
        exit: word.exit,
        outcome: word.exit.outcome(),
        lane,
        tally: OutcomeCounts::default(),
        traffic: CallStats::default(),
        elapsed: Duration::ZERO,
        resumed_at_row: 0,
        sync: Some(SyncFigures {
            plan: outline.counts,
            kicked: 0,
            deleted: 0,
            missing_failed: 0,
            lookalikes: outline.lookalikes,
            missing_waits: outline.wait,
            guard: outline.guard,
        }),
    }
}

/// Writes what is to become of each record that is not unchanged, in input order, then the missing.
fn write_plan(out: &mut dyn Write, mut roster: Roster<InputReader>, drawn: &mut SyncPlan) -> io::Result<()> {
    let mut csv = csv::WriterBuilder::new().terminator(csv::Terminator::Any(b'\n')).from_writer(out);
    csv.write_record(["op", "row", "line", "UserID", "reason"])?;
    while let Some(view) = roster.next_view() {
        let view = view.map_err(|error| match error {
            RosterError::Read(error) => error,
            error => io::Error::other(error),
        })?;
        let op = drawn.ops.get(view.row);
        if op == Op::Unchanged {
            continue;
        }
        let (row, line) = (view.row.to_string(), view.line.to_string());
        let reason = match (&view.account, op) {
            (Err(why), Op::Invalid) => why.to_string(),
            _ => reason(op).to_owned(),
        };
        csv.write_record([op.name().as_bytes(), row.as_bytes(), line.as_bytes(), view.user_id, defused(&reason).as_bytes()])?;
    }
    for missing in drawn.missing()? {
        let missing = missing?;
        csv.write_record(["missing", "", "", missing.id.as_str(), &reason_of_missing(&missing)])?;
    }
    csv.flush()
}

const fn reason(op: Op) -> &'static str {
    match op {
        Op::Create => "the state does not hold it",
        Op::Update { nick: true, face_url: true } => "Nick and FaceUrl differ",
        Op::Update { nick: true, face_url: false } => "Nick differs",
        Op::Update { nick: false, face_url: true } => "FaceUrl differs",
        Op::Update { nick: false, face_url: false } => "in doubt: what came of an earlier call is not known",
        Op::Superseded => "a later record has the same UserID",
        Op::Invalid | Op::Unchanged => "",
    }
}

fn reason_of_missing(missing: &MissingAccount) -> String {
    let runs = figures::counted(missing.missing_runs.into(), "run");
    let then = match missing.due {
        PlannedAction::Nothing => "",
        PlannedAction::Protected => "; protected",
        PlannedAction::Kick => "; to be kicked",
        PlannedAction::Delete => "; to be deleted",
        PlannedAction::Lookalike => "; spared",
    };
    let lookalike = missing.lookalike.map_or_else(String::new, |lookalike| format!("; {lookalike} looks like it"));
    format!("missing in {runs}{lookalike}{then}")
}
