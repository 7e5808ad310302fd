//! `chatlift import`: from the flags to the end of the run.
//!
//! Everything that can be wrong is reported before the first request. The end of the run becomes its exit message, its table and its
//! summary.

use std::num::NonZeroU32;
use std::path::Path;
use std::time::{Duration, SystemTime};

use futures_util::stream::LocalBoxStream;
use indicatif::MultiProgress;
use tokio::time::Instant;

use super::client::{ServiceClient, build_client, target};
use super::exit_messages::{EndedRun, already_finished, cannot_open, disk_failed, having_waited, last_word};
use super::flags::{ImportFlags, RunFlags};
use super::lanes::{COMMIT_EVERY, Lanes};
use super::open_files::Keeps;
use super::output_paths::{can_be_replaced, paths};
use super::pipe::HeldPipe;
use super::reach::Reach;
use super::settings::{Connection, format};
use super::signals::Leftover;
use super::source::Source;
use super::state_file::LockedState;
use super::{atomic, check, environment, input, last_calls, log, open_files, preflight, signals};
use crate::domain::call_stats::CallStats;
use crate::domain::figures;
use crate::domain::outcome::OutcomeCounts;
use crate::domain::position::{FileStat, InputChange, InputPosition};
use crate::flow::check::Rates;
use crate::flow::deliver::{BATCH_RECORDS, Lane};
use crate::flow::import::{self, Dependencies, ImportSettings, RunFailed, RunOutcome, StopCause, WatchedRecords};
use crate::io::api::wire::{ACCOUNT_IMPORT_CALLS_PER_S, BATCH_CALLS_PER_S};
use crate::io::files::lock::Lockfile;
use crate::io::gate::{self, Rate};
use crate::io::journal::checkpoint::{Checkpoint, RunKind};
use crate::io::journal::disk::OsDisk;
use crate::io::journal::paths::RunPaths;
use crate::io::journal::{self, Journal, LastCalls, Restart, RunSpec, StartDecision, StartMode};
use crate::io::roster::{self, Format, InputFile, InputReader, Roster, RosterError, Watched};
use crate::io::state;
use crate::shell::exit::{Exit, ExitMessage};
use crate::shell::screen::progress::{ProgressReporter, Start};
use crate::shell::screen::summary::{Report, Summary};
use crate::shell::terminal::print_stderr;

/// How often the progress is told. Chosen: a person sees it move.
pub(super) const TELL_EVERY: Duration = Duration::from_millis(250);

/// Runs the import that the flags ask for.
pub(super) fn run(given: &ImportFlags) -> ExitMessage {
    let flags = &given.run;
    if flags.dry_run {
        return check::run(&flags.input, forecast_rates(flags));
    }
    let bars = MultiProgress::new();
    log::install(&flags.output, &bars).expect("this process installs no other subscriber");
    let mut pipe = HeldPipe::default();
    let word = match begin(given, &mut pipe) {
        Ok(Prepared::Run(run)) => run.carry_out(&bars),
        Ok(Prepared::Finished { tally, delimiter, paths, filled }) => {
            let ended = EndedRun { flags, paths: &paths, delimiter, state: given.state.as_deref(), reach: None };
            let finished = || already_finished(tally, ended);
            let word = filled.err().unwrap_or_else(finished);
            write_summary(flags, &summary((word.exit, Lane::Single), tally, CallStats::default(), (Duration::ZERO, tally.rows())));
            word
        }
        Err(word) => word,
    };
    if flags.output.quiet && word.exit == Exit::Done { ExitMessage::done("") } else { word }
}

/// What the first look came to.
enum Prepared<'a> {
    Run(Box<ImportRun<'a>>),
    /// `filled` says whether the state, if there is one to fill, could be.
    Finished {
        tally: OutcomeCounts,
        /// What separates the fields of the rejects.
        delimiter: u8,
        paths: RunPaths,
        filled: Result<(), ExitMessage>,
    },
}

/// A run about to send its first call.
struct ImportRun<'a> {
    flags: &'a RunFlags,
    paths: RunPaths,
    source: Source,
    /// The file that was judged: it alone is read.
    input: InputFile,
    stat: FileStat,
    format: Format,
    journal: Journal<OsDisk>,
    roster: Roster<InputReader>,
    dialled: ServiceClient,
    lanes: Lanes,
    settings: ImportSettings,
    kept: Option<LockedState>,
    /// The path of what is kept.
    state: Option<&'a Path>,
    reach: Reach,
    stops: LocalBoxStream<'static, ()>,
}

/// `--rate` is the lane's own, `--single-rate` the other one's; a rate without limit forecasts nothing, so the documented one stands in.
pub(super) fn forecast_rates(flags: &RunFlags) -> Rates {
    let or = |rate: Option<u32>, documented| rate.and_then(NonZeroU32::new).unwrap_or(documented);
    let rate = flags.connection.rate;
    let (single, batch) = if flags.batch.is_some() { (flags.single_rate, rate) } else { (rate, None) };
    Rates { single: or(single, ACCOUNT_IMPORT_CALLS_PER_S), batch: or(batch, BATCH_CALLS_PER_S) }
}

/// Looks at everything; opens the journal if there is something to do.
fn begin<'a>(given: &'a ImportFlags, pipe: &mut HeldPipe) -> Result<Prepared<'a>, ExitMessage> {
    let ImportFlags { run: flags, state } = given;
    let mut connection = Connection::resolve(&flags.connection, &environment)?;
    open_files::make_room(&mut connection, if state.is_some() { Keeps::State } else { Keeps::Nothing })?;
    let reach = Reach::new(&connection, &environment, Instant::now());
    let lanes = Lanes::new(flags, &connection)?;
    let file = &flags.input.file;
    let paths = paths(flags, &state.iter().flat_map(|state| state::names(state)).collect::<Vec<_>>())?;
    can_be_replaced("summary", flags.summary.as_deref())?;
    *pipe = HeldPipe::open(flags.summary.as_deref())?;
    let last_calls = LastCalls::find(&paths.lock());
    let (lock, _leftover) = Leftover::of_lock(&paths.lock(), || journal::lock(&OsDisk, &paths), Lockfile::is_for_nothing)
        .map_err(|error| cannot_open(&error))?;
    let kept = state.as_deref().map(LockedState::take).transpose()?;
    kept.as_ref().map_or(Ok(()), |kept| kept.belongs_to(&target(&connection.service), &flags.connection))?;
    let mut source = Source::new(file, &paths)?;
    if source.is_missing()
        && let Some(finished) = finished_without_input(&connection, &paths, kept.as_ref())?
    {
        return Ok(finished);
    }
    let (input, stat) = input::open_file(source.path(), file)?;
    let roster = Roster::of(&input, &format(&flags.input)).map_err(|error| input::roster_error(file, &error))?;
    let format = Format { delimiter: roster.reading().delimiter, ..format(&flags.input) };
    let mut claim = claim(&connection, &roster, stat);
    let way = match examine(&claim, &paths, &input, flags)? {
        StartDecision::Finished { tally } => {
            let target = target(&connection.service);
            let filled = kept.map_or(Ok(()), |kept| kept.import_finished(&target, (&input, &format), &paths, tally));
            if filled.is_ok() {
                source.is_done_with();
            }
            return Ok(Prepared::Finished { tally, delimiter: format.delimiter, paths, filled });
        }
        StartDecision::Run(way) => way,
    };
    look_at_input(&way, &input, &format, flags)?;
    let state = state.as_deref();
    let dialled = build_client(&connection, lanes.main_rate())?;
    // From here on files are made: a signal finds a run that it can stop, or a start that undoes what it did.
    let stops = signals::stops();
    let stat = keep(&mut source, &input, &mut claim)?;
    kept.as_ref().map_or(Ok(()), |kept| kept.import_begins(&dialled.target, &paths))?;
    let journal = open_journal(way, (lock, &paths), claim, (&mut source, kept.as_ref()))?;
    let roster = roster.skip_to(journal.settled()).map_err(|error| input::roster_error(file, &error.into()))?;
    let settings = settings((&connection, &lanes, &dialled), last_calls::gates(last_calls, connection.headroom), flags.limit, &journal);
    Ok(Prepared::Run(Box::new(ImportRun {
        flags,
        paths,
        source,
        input,
        stat,
        format,
        journal,
        roster,
        dialled,
        lanes,
        settings,
        kept,
        state,
        reach,
        stops,
    })))
}

/// Opens the journal. From then on there is a run, and what was made for it stays.
fn open_journal(
    way: StartMode,
    (lock, paths): (Lockfile, &RunPaths),
    claim: RunSpec,
    (source, kept): (&mut Source, Option<&LockedState>),
) -> Result<Journal<OsDisk>, ExitMessage> {
    let journal = journal::open(way, (OsDisk, lock), paths.clone(), claim, SystemTime::now());
    if journal.is_ok() || journal::work(&OsDisk, paths).is_some() {
        source.begins();
        kept.into_iter().for_each(LockedState::begins);
    }
    journal.map_err(|error| cannot_open(&error))
}

fn settings(
    (connection, lanes, dialled): (&Connection, &Lanes, &ServiceClient),
    gates: gate::GateSettings,
    limit: Option<u64>,
    journal: &Journal<OsDisk>,
) -> ImportSettings {
    ImportSettings {
        rates: lanes.rates.clone(),
        gates,
        limits: lanes.limits(connection),
        max_outage: connection.max_outage,
        limit,
        rows_done: journal.settled().rows,
        known: dialled.known(journal.tally()),
        commit_every: COMMIT_EVERY,
        commit_rows: lanes.commit_rows(),
        progress_every: TELL_EVERY,
    }
}

/// Standard input is kept for the run, under a name that lasts: that changes its stat fields.
fn keep(source: &mut Source, input: &InputFile, claim: &mut RunSpec) -> Result<FileStat, ExitMessage> {
    if source.keep()? {
        claim.input = input.fingerprint().map_err(|error| input::roster_error(source.path(), &error.into()))?;
    }
    Ok(claim.input)
}

/// A run that an earlier process has finished, its input being gone by now.
fn finished_without_input<'a>(
    connection: &Connection,
    paths: &RunPaths,
    kept: Option<&LockedState>,
) -> Result<Option<Prepared<'a>>, ExitMessage> {
    let found = journal::finished_earlier(&OsDisk, paths, &target(&connection.service)).map_err(|error| cannot_open(&error))?;
    Ok(found.map(|checkpoint| {
        let filled = kept.map_or(Ok(()), |kept| kept.is_filled_from(checkpoint.settled));
        Prepared::Finished { tally: checkpoint.tally, delimiter: checkpoint.reading.delimiter, paths: paths.clone(), filled }
    }))
}

fn claim(connection: &Connection, roster: &Roster<InputReader>, stat: FileStat) -> RunSpec {
    RunSpec {
        work: RunKind::Import,
        target: target(&connection.service),
        input: stat,
        reading: roster.reading(),
        header: roster.header().names.clone(),
        rejects_delimiter: roster.reading().delimiter,
        start: roster.at(),
    }
}

fn examine(claim: &RunSpec, paths: &RunPaths, input: &InputFile, flags: &RunFlags) -> Result<StartDecision, ExitMessage> {
    let restart = if flags.restart { Restart::Asked } else { Restart::No };
    let compare = |checkpoint: &Checkpoint| roster::compare(input, checkpoint.reading.delimiter, checkpoint.settled);
    journal::examine(&OsDisk, paths, claim, restart, compare).map_err(|error| cannot_open(&error))
}

/// Judges a new input, and tells of a changed one.
fn look_at_input(way: &StartMode, input: &InputFile, format: &Format, flags: &RunFlags) -> Result<(), ExitMessage> {
    match way {
        StartMode::Afresh | StartMode::SetAside | StartMode::GoOnSettingAside { .. } => {
            preflight::judge(input, &flags.input, format, flags.max_invalid)
        }
        StartMode::Resume { input: InputChange::ChangedAfter, .. } => {
            tracing::warn!("the input was modified since the last run; its settled part is the same, the run goes on with what follows");
            Ok(())
        }
        StartMode::Resume { input: InputChange::Same | InputChange::ChangedWithin, .. } => Ok(()),
    }
}

impl ImportRun<'_> {
    fn carry_out(self: Box<Self>, bars: &MultiProgress) -> ExitMessage {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return ExitMessage::new(Exit::Fatal, format!("cannot start: {error}"), "the same command resumes"),
        };
        self.announce();
        let began = std::time::Instant::now();
        let Self { flags, paths, mut source, input, stat, format, journal, roster, dialled, settings, kept, state, reach, stops, .. } =
            *self;
        let (start, before) = (journal.settled(), journal.tally());
        let progress = Start { rows_done: start.rows, offset: start.offset, input_bytes: Some(stat.len), limit: settings.limit };
        let mut progress = ProgressReporter::on_stderr(flags.output.progress(), bars, progress, Instant::now());
        let mut watched = reach.clone();
        let parts = Dependencies {
            api: dialled.api.clone(),
            records: WatchedRecords::new(Watched::new(roster, input.clone(), stat)),
            ledger: journal,
            signer: dialled.signer(),
            wall: Box::new(SystemTime::now),
            jitter: Box::new(fastrand::f64),
            signals: stops,
            on_progress: Box::new(move |snapshot| {
                watched.heed(snapshot.calls, &snapshot.phase, Instant::now());
                progress.tell(snapshot, Instant::now());
            }),
        };
        let ended = runtime.block_on(import::run(parts, settings));
        let elapsed = began.elapsed();
        let (word, summary, this_run) = match ended {
            Err(RunFailed { error, traffic, lane }) => {
                let word = disk_failed(&error);
                // What the same command will go on from; never less than what it began with.
                let tally = journal::committed(&OsDisk, &paths).unwrap_or(before);
                let summary = summary((word.exit, lane), tally, traffic, (elapsed, start.rows));
                (word, summary, tally - before)
            }
            Ok(ended) => {
                let is_finished = matches!(ended.end, StopCause::Finished);
                let filled = match kept.filter(|_| is_finished) {
                    Some(kept) => kept.import_finished(&dialled.target, (&input, &format), &paths, before + ended.tally),
                    None => Ok(()),
                };
                if is_finished && filled.is_ok() {
                    source.is_done_with();
                }
                let remaining = remaining(&ended, &input, &format, start);
                let tally = before + ended.tally;
                let given = EndedRun { flags, paths: &paths, delimiter: format.delimiter, state, reach: reach.advice_on(&ended.traffic) };
                let word = filled.err().unwrap_or_else(|| last_word(&ended.end, tally, remaining, given));
                let word = having_waited(word, ended.unjudged);
                let word = if is_finished { input::with_new_file(word, &flags.input.file, &input) } else { word };
                let summary = summary((word.exit, ended.lane), tally, ended.traffic, (elapsed, start.rows));
                (word, summary, ended.tally)
            }
        };
        write_summary(flags, &summary);
        report(flags, &summary, this_run, &paths);
        word
    }

    /// Says what is about to happen, and what may get in its way.
    fn announce(&self) {
        let ImportRun { flags, paths, journal, dialled, lanes, .. } = self;
        let lane = match lanes.lane {
            Lane::Single | Lane::FellBack => "",
            Lane::Batch(_) => " in batches",
        };
        let rate = match lanes.main_rate() {
            Rate::PerSecond(rate) => format!("at most {rate} calls/s"),
            Rate::Unlimited => "without a limit".to_owned(),
        };
        let from = match journal.settled().rows {
            0 => String::new(),
            rows => format!(", going on after row {}", figures::count(rows)),
        };
        tracing::info!(
            "importing {} into {}{lane}, {rate}{from}; results: {}",
            flags.input.file.display(),
            dialled.target,
            paths.results.display()
        );
        if let Some(expires_at) = dialled.expires_at {
            self.warn_of_expiry(expires_at);
        }
    }

    /// A signature that can't be renewed may not last as long as the run.
    fn warn_of_expiry(&self, expires_at: SystemTime) {
        let Rate::PerSecond(rate) = self.lanes.main_rate() else { return };
        let Some(records) = self.forecast() else { return };
        let per_call = if matches!(self.lanes.lane, Lane::Batch(_)) { BATCH_RECORDS as f64 } else { 1.0 };
        let ends_at = SystemTime::now() + Duration::from_secs_f64(records / per_call / f64::from(rate.get()));
        if ends_at > expires_at {
            tracing::warn!(
                "CHATLIFT_USERSIG expires at {}, the run will last until about {}: it will stop then; a new one goes on, a key renews itself",
                humantime::format_rfc3339_seconds(expires_at),
                humantime::format_rfc3339_seconds(ends_at)
            );
        }
    }

    /// About how many records are left, by the size of the next ones.
    fn forecast(&self) -> Option<f64> {
        const SAMPLE: usize = 100;
        let settled = self.journal.settled();
        let roster = Roster::of(&self.input, &self.format).and_then(|roster| Ok(roster.skip_to(settled)?)).ok()?;
        let ends: Vec<u64> = roster.take(SAMPLE).map_while(Result::ok).map(|record| record.end.offset).collect();
        let bytes_each = (ends.last()? - settled.offset) as f64 / ends.len() as f64;
        Some((self.stat.len - settled.offset) as f64 / bytes_each)
    }
}

/// Records that a limit has left; `None` where there was none, or they can't be counted.
fn remaining(ended: &RunOutcome<Journal<OsDisk>, RosterError>, input: &InputFile, format: &Format, start: InputPosition) -> Option<u64> {
    match ended.end {
        StopCause::LimitReached => {
            let settled = ended.settled.unwrap_or(start);
            Roster::of(input, format).and_then(|roster| roster.skip_to(settled)?.count_rest()).ok()
        }
        StopCause::Finished | StopCause::Stopped | StopCause::Outage { .. } | StopCause::Refused { .. } | StopCause::Input(_) => None,
    }
}

fn summary((exit, lane): (Exit, Lane), tally: OutcomeCounts, traffic: CallStats, (elapsed, resumed_at_row): (Duration, u64)) -> Summary {
    Summary { exit, outcome: exit.outcome(), lane, tally, traffic, elapsed, resumed_at_row, sync: None }
}

pub(super) fn write_summary(flags: &RunFlags, summary: &Summary) {
    if let Some(path) = &flags.summary
        && let Err(error) = atomic::write_text(path, &summary.to_json())
    {
        tracing::error!("cannot write the summary {}: {error}", path.display());
    }
}

fn report(flags: &RunFlags, summary: &Summary, this_run: OutcomeCounts, paths: &RunPaths) {
    if flags.output.quiet {
        return;
    }
    let rejects = (summary.tally.rejected() > 0).then_some(paths.rejects.as_path());
    print_stderr(&Report { summary, this_run, results: &paths.results, rejects, checkpoint: &paths.checkpoint });
}
