//! Carries out a planned sync: the import, then the missing accounts, then the update of the state.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Instant as Stopwatch, SystemTime};

use futures_util::StreamExt;
use tokio::time::Instant;

use super::Session;
use super::missing::known_wait;
use crate::domain::call_stats::CallStats;
use crate::domain::change::{Ops, Wait};
use crate::domain::figures;
use crate::domain::outcome::OutcomeCounts;
use crate::domain::position::{FileStat, InputPosition};
use crate::flow::calls;
use crate::flow::deliver::{Known, Lane};
use crate::flow::import::{self, ImportDependencies, ImportEnd, ImportFailed, ImportSettings};
use crate::flow::sync::{
    AbsentTally, FeedError, FeedPlan, PlannedRecords, SendOutcomes, SyncOutcomeSink, absent_tally, milliseconds, settlements,
};
use crate::io::files::folder_of;
use crate::io::gate;
use crate::io::journal::disk::OsDisk;
use crate::io::journal::paths::RunPaths;
use crate::io::journal::{self, Journal, OutcomeSink};
use crate::io::roster::{Format, InputFile, InputReader, Roster, RosterError};
use crate::io::state::{self, Finish, OpenRun, RunTotals};
use crate::shell::cli::client::ServiceClient;
use crate::shell::cli::exit_messages::{EndedRun, RESUMES, disk_failed, finished_exit, having_waited, last_word};
use crate::shell::cli::flags::{MissingFlag, SyncFlags};
use crate::shell::cli::import::{TELL_EVERY, write_summary};
use crate::shell::cli::input::{roster_error, tell_blank, with_new_file};
use crate::shell::cli::lanes::{COMMIT_EVERY, Lanes};
use crate::shell::cli::reach::Reach;
use crate::shell::cli::settings::Connection;
use crate::shell::cli::source::Source;
use crate::shell::cli::state_file::{LockedState, committed_results, state_error};
use crate::shell::exit::{Exit, ExitMessage};
use crate::shell::screen::progress::{ProgressReporter, Start};
use crate::shell::screen::summary::{Report, Summary, SyncFigures};
use crate::shell::terminal::print_stderr;

/// Records that are announced to the state at once, each time with a sync of the disk. Chosen: a second's worth, so that the syncs take
/// well under a hundredth of the time.
const AHEAD_SINGLE: u64 = 256;
const AHEAD_BATCH: u64 = 16_384;

/// A sync about to send its first call.
pub(super) struct SyncRun<'a> {
    pub(super) flags: &'a SyncFlags,
    pub(super) paths: RunPaths,
    pub(super) format: Format,
    pub(super) source: Source,
    pub(super) kept: LockedState,
    pub(super) dialled: ServiceClient,
    pub(super) lanes: Lanes,
    pub(super) settings: ImportSettings,
    pub(super) opened: OpenRun,
    /// Missing ids that are spared because a record looks like them.
    pub(super) lookalikes: u64,
    pub(super) cargo: PlannedImport,
    pub(super) reach: Reach,
    /// Blank lines that planning has passed; sending needs not go as far.
    pub(super) blank: u64,
}

/// What the import takes.
pub(super) struct PlannedImport {
    pub(super) journal: Journal<OsDisk>,
    /// At the start of the file.
    pub(super) roster: Roster<InputReader>,
    pub(super) file: InputFile,
    pub(super) stat: FileStat,
    pub(super) ops: Rc<Ops>,
}

pub(super) fn settings(
    (connection, lanes, known): (&Connection, &Lanes, Known),
    gates: gate::GateSettings,
    flags: &SyncFlags,
    journal: &Journal<OsDisk>,
) -> ImportSettings {
    ImportSettings {
        rates: lanes.rates.clone(),
        gates,
        limits: lanes.limits(connection),
        max_outage: connection.max_outage,
        limit: flags.run.limit,
        rows_done: journal.settled().rows,
        known,
        commit_every: COMMIT_EVERY,
        commit_rows: lanes.commit_rows(),
        progress_every: TELL_EVERY,
    }
}

/// What the run has come to so far.
pub(super) struct SyncTotals {
    /// Of the whole run.
    pub(super) tally: OutcomeCounts,
    /// Of this process.
    here: OutcomeCounts,
    pub(super) traffic: CallStats,
    lane: Lane,
    absent: AbsentTally,
    wait: Option<Wait>,
    /// What was given up only after a long wait.
    pub(super) unjudged: u64,
}

impl SyncRun<'_> {
    pub(super) fn carry_out(self: Box<Self>, scene: &Session) -> ExitMessage {
        let began = Stopwatch::now();
        let Self { flags, paths, format, source, kept, dialled, lanes, settings, opened, lookalikes, cargo, reach, blank: planned } = *self;
        let (start, blank) = (cargo.journal.settled(), cargo.roster.blank_lines());
        let input = PlannedInput { path: source.path().to_owned(), file: cargo.file.clone(), format, stat: cargo.stat };
        let way = SyncSteps { flags, paths, input, kept, dialled, settings, opened, lookalikes, reach };
        way.announce(&lanes, start);
        let (word, account) = way.go(source, cargo, scene);
        let SyncTotals { tally, here, traffic, lane, absent, wait, unjudged: _ } = account;
        let sync = SyncFigures {
            plan: way.opened.counts,
            kicked: absent.kicked,
            deleted: absent.deleted,
            missing_failed: absent.failed,
            lookalikes: absent.lookalikes,
            missing_waits: wait,
            guard: None,
        };
        tell_blank(planned.max(blank.count()));
        let (exit, outcome, elapsed) = (word.exit, word.exit.outcome(), began.elapsed());
        let summary = Summary { exit, outcome, lane, tally, traffic, elapsed, resumed_at_row: start.rows, sync: Some(sync) };
        write_summary(&flags.run, &summary);
        if !flags.run.output.quiet {
            let (paths, rejects) = (&way.paths, (tally.rejected() > 0).then_some(way.paths.rejects.as_path()));
            print_stderr(&Report { summary: &summary, this_run: here, results: &paths.results, rejects, checkpoint: &paths.checkpoint });
        }
        word
    }
}

/// The way of a run from its first call to its end.
pub(super) struct SyncSteps<'a> {
    pub(super) flags: &'a SyncFlags,
    pub(super) paths: RunPaths,
    pub(super) input: PlannedInput,
    kept: LockedState,
    pub(super) dialled: ServiceClient,
    pub(super) settings: ImportSettings,
    pub(super) opened: OpenRun,
    lookalikes: u64,
    reach: Reach,
}

/// The input as it was planned.
pub(super) struct PlannedInput {
    pub(super) path: PathBuf,
    pub(super) file: InputFile,
    pub(super) format: Format,
    pub(super) stat: FileStat,
}

impl SyncSteps<'_> {
    fn announce(&self, lanes: &Lanes, start: InputPosition) {
        let lane = if matches!(lanes.lane, Lane::Batch(_)) { " in batches" } else { "" };
        let from = match start.rows {
            0 => String::new(),
            rows => format!(", going on after row {}", figures::count(rows)),
        };
        let (file, target) = (self.flags.run.input.file.display(), &self.dialled.target);
        tracing::info!("syncing {file} into {target}{lane}{from}; results: {}", self.paths.results.display());
    }

    fn go(&self, mut source: Source, cargo: PlannedImport, scene: &Session) -> (ExitMessage, SyncTotals) {
        let before = cargo.journal.tally();
        let ops = cargo.ops.clone();
        let start = cargo.journal.settled();
        let absent = AbsentTally { lookalikes: self.lookalikes, ..AbsentTally::default() };
        let nothing = |traffic, lane, tally: OutcomeCounts| SyncTotals {
            tally,
            here: tally - before,
            traffic,
            lane,
            absent,
            wait: None,
            unjudged: 0,
        };
        let ended = match self.send(cargo, scene) {
            Err(word) => return (word, nothing(CallStats::default(), self.settings.limits.lane, before)),
            Ok(Err(ImportFailed { error, traffic, lane })) => {
                let tally = journal::committed(&OsDisk, &self.paths).unwrap_or(before);
                return (disk_failed(&error), nothing(traffic, lane, tally));
            }
            Ok(Ok(ended)) => ended,
        };
        let mut account = nothing(ended.traffic, ended.lane, before + ended.tally);
        account.unjudged = ended.unjudged;
        if matches!(ended.end, ImportEnd::Finished) && self.flags.run.limit.is_none() {
            let word = self.finish(ended.ledger.0, &mut account, scene).unwrap_or_else(|word| word);
            if matches!(word.exit, Exit::Done | Exit::SomeRowsRejected) {
                source.is_done_with();
            }
            return (word, account);
        }
        let settled = ended.settled.unwrap_or(start);
        let word = match ended.end {
            ImportEnd::Finished | ImportEnd::LimitReached => self.limited(&mut account).err(),
            ImportEnd::Stopped | ImportEnd::Outage { .. } | ImportEnd::Refused { .. } | ImportEnd::Input(_) => None,
        };
        let word = word.unwrap_or_else(|| self.unfinished(ended.end, &account, remaining(&ops, settled)));
        (word, account)
    }

    /// The missing wait for a run without a limit.
    fn limited(&self, account: &mut SyncTotals) -> Result<(), ExitMessage> {
        account.wait = known_wait(self.flags, self.opened.counts.missing, self.opened.malformed.is_some());
        account.wait.map_or(Ok(()), |wait| self.tell_wait(wait, 0, &self.kept.open()?))
    }

    /// The import's pipeline, with what the plan sends. The outer error is the system's.
    fn send(&self, cargo: PlannedImport, scene: &Session) -> Result<Pumped, ExitMessage> {
        let PlannedImport { journal, roster, file, stat, ops } = cargo;
        let start = journal.settled();
        let roster = roster.skip_to(start).map_err(|error| roster_error(&self.flags.run.input.file, &error.into()))?;
        let (input_bytes, limit) = (Some(stat.len), self.settings.limit);
        let progress = Start { rows_done: start.rows, offset: start.offset, input_bytes, limit };
        let mut reach = self.reach.clone();
        let mut progress = ProgressReporter::on_stderr(self.flags.run.output.progress(), scene.bars, progress, Instant::now());
        let ahead = if matches!(self.settings.limits.lane, Lane::Batch(_)) { AHEAD_BATCH } else { AHEAD_SINGLE };
        let input = state::RunInput { stat, ..self.opened.input };
        let planned = FeedPlan { ops, input, sent_up_to: self.opened.sent_up_to, ahead, limit };
        let parts = ImportDependencies {
            api: self.dialled.api.clone(),
            records: PlannedRecords::new(roster, file, self.kept.open()?, planned, Box::new(SystemTime::now)),
            ledger: SyncOutcomeSink(journal),
            signer: self.dialled.signer(),
            wall: Box::new(SystemTime::now),
            jitter: Box::new(fastrand::f64),
            signals: scene.stops().boxed_local(),
            on_progress: Box::new(move |snapshot| {
                reach.heed(snapshot.calls, &snapshot.phase, Instant::now());
                progress.tell(snapshot, Instant::now());
            }),
        };
        Ok(scene.runtime.block_on(import::run(parts, self.settings.clone())))
    }

    /// The last word on a run that was stopped, whatever by.
    fn unfinished(&self, end: ImportEnd<FeedError>, account: &SyncTotals, remaining: u64) -> ExitMessage {
        let file = &self.flags.run.input.file;
        let end: ImportEnd<RosterError> = match end {
            ImportEnd::Finished | ImportEnd::LimitReached => ImportEnd::LimitReached,
            ImportEnd::Stopped => ImportEnd::Stopped,
            ImportEnd::Outage { why } => ImportEnd::Outage { why },
            ImportEnd::Refused { refusal, code, says } => ImportEnd::Refused { refusal, code, says },
            ImportEnd::Input(FeedError::Roster(error)) => ImportEnd::Input(error),
            ImportEnd::Input(FeedError::State(error)) => return state_error(&error),
            ImportEnd::Input(error @ FeedError::Modified) => {
                return ExitMessage::yours(
                    format!("{}: {error}", file.display()),
                    "let whoever writes it finish, then give the same command again: it plans anew",
                );
            }
        };
        last_word(&end, account.tally, Some(remaining), self.given(&account.traffic))
    }

    pub(super) fn given<'w>(&'w self, traffic: &CallStats) -> EndedRun<'w> {
        EndedRun {
            flags: &self.flags.run,
            paths: &self.paths,
            delimiter: self.input.format.delimiter,
            state: None,
            reach: self.reach.advice_on(traffic),
        }
    }

    /// All rows have settled: the missing, then the state, then the checkpoint.
    fn finish(&self, mut journal: Journal<OsDisk>, account: &mut SyncTotals, scene: &Session) -> Result<ExitMessage, ExitMessage> {
        let left = self.settlements()?;
        let mut state = self.kept.open()?;
        let run = (self.opened.number, self.opened.token);
        // Nobody is kicked, and nothing ends as finished, by a state that knows nothing of this run.
        state.is_open(run.0, run.1).map_err(|error| state_error(&error))?;
        account.wait = self.wait(left.unknown)?;
        if let Some(wait) = account.wait {
            self.tell_wait(wait, left.unknown, &state)?;
        } else if self.flags.missing != MissingFlag::Report {
            let dealt = self.deal_with_the_missing(&mut state, account, scene);
            account.absent = absent_tally(&state).map_err(|error| state_error(&error))?;
            if dealt.is_err() {
                // What was done is told, whatever becomes of the run.
                self.write_missing(&state)?;
            }
            dealt?;
        }
        if self.opened.counts.missing > 0 {
            account.absent = self.write_missing(&state)?;
        }
        let OutcomeCounts { created, updated, failed, .. } = account.tally;
        let AbsentTally { kicked, deleted, failed: missing_failed, .. } = account.absent;
        let done = RunTotals { created, updated, failed, kicked, deleted, missing_failed };
        let finish = Finish { run, at: milliseconds(SystemTime::now()), done, missing_waits: account.wait.map(Wait::name) };
        state.finish(left, finish).map_err(|error| state_error(&error))?;
        journal.finish().map_err(|error| disk_failed(&error))?;
        Ok(with_new_file(self.finished(account), &self.flags.run.input.file, &self.input.file))
    }

    fn settlements(&self) -> Result<SendOutcomes, ExitMessage> {
        let read = || match committed_results(&self.paths)? {
            Some(results) => settlements(results, &self.input.format.cells, folder_of(&self.flags.state)),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "they are not what the checkpoint says of them")),
        };
        read().map_err(|error| {
            ExitMessage::new(Exit::Fatal, format!("cannot read the results {}: {error}", self.paths.results.display()), RESUMES)
        })
    }

    fn finished(&self, account: &SyncTotals) -> ExitMessage {
        let (tally, absent, counts) = (account.tally, account.absent, self.opened.counts);
        let count = figures::count;
        let exit = if absent.failed > 0 { Exit::SomeRowsRejected } else { finished_exit(tally) };
        let mut why = format!("{} created, {} updated, {} unchanged", count(tally.created), count(tally.updated), count(counts.unchanged));
        let mut and = |number: u64, word: &str| {
            if number > 0 {
                why.extend([", ", &count(number), " ", word]);
            }
        };
        and(tally.superseded, "superseded");
        and(tally.failed, "failed");
        and(tally.invalid, "invalid");
        and(counts.missing, "missing");
        and(absent.kicked, "kicked");
        and(absent.deleted, "deleted");
        and(absent.failed, "of the missing failed");
        having_waited(ExitMessage::new(exit, why, self.hint(tally, absent)), account.unjudged)
    }

    fn hint(&self, tally: OutcomeCounts, absent: AbsentTally) -> String {
        let rejects = self.paths.rejects.display();
        let missing = self.paths.missing.display();
        match (tally.rejected() > 0, absent.failed > 0) {
            (true, _) => format!("{rejects} holds the rejected rows with the reasons: mend them where the file comes from"),
            (false, true) => format!("{missing} says why; the next run tries again"),
            (false, false) => {
                format!("nothing is left to do; the same command plans anew, {} has the outcomes", self.paths.results.display())
            }
        }
    }
}

/// The calls' end as the import's; `None` if they are all made.
pub(super) fn stopped(end: calls::CallsEnd) -> Option<ImportEnd<RosterError>> {
    match end {
        calls::CallsEnd::Finished => None,
        calls::CallsEnd::Stopped => Some(ImportEnd::Stopped),
        calls::CallsEnd::Outage { why } => Some(ImportEnd::Outage { why }),
        calls::CallsEnd::Refused { refusal, code, says } => Some(ImportEnd::Refused { refusal, code, says }),
    }
}

type Pumped = Result<import::ImportOutcome<SyncOutcomeSink<OsDisk>, FeedError>, ImportFailed<journal::DiskError>>;

/// Records that are still to get an outcome.
fn remaining(ops: &Ops, settled: InputPosition) -> u64 {
    (settled.rows + 1..=ops.rows()).filter(|row| ops.get(*row) != crate::domain::change::Op::Unchanged).count() as u64
}
