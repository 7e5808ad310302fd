//! `chatlift import`: turns flags into a job, looks at what is there, and runs `flow::import`.
//!
//! Everything that can be wrong is reported before the first request.

mod ending;
mod job;

use std::rc::Rc;
use std::time::{Duration, Instant as Stopwatch, SystemTime};

use futures_util::stream::LocalBoxStream;
use indicatif::MultiProgress;
use tokio::time::Instant;

use super::client::{ServiceClient, build_client, named_target};
use super::command_end::{CommandEnd, EndSteps, Ended};
use super::exit_messages::cannot_open;
use super::flags::ImportFlags;
use super::preflight::EmptyFile;
use super::reach::Reach;
use super::source::{Source, SourceSettings};
use super::state_file::{LockedState, ensure_state_file, fill_error, state_error};
use super::{check, columns, environment, input, last_calls, log, notify, oddities, preflight, run, signals};
use crate::domain::figures;
use crate::domain::outcome::OutcomeCounts;
use crate::domain::position::{FileStat, InputChange, InputPosition};
use crate::flow::import::{self, ImportEnd, ImportEnds, ImportProgress, ImportScope, ImportSettings, WatchedRecords};
use crate::io::files::lock::Lockfile;
use crate::io::gate::Rate;
use crate::io::journal::checkpoint::{Checkpoint, RunKind};
use crate::io::journal::disk::OsDisk;
use crate::io::journal::{self, Journal, LastCalls, RunSpec, StartDecision, StartMode};
use crate::io::roster::{self, Format, Header, InputFile, InputReader, Record, Roster, RosterError, Watched};
use crate::shell::exit::ExitMessage;
use crate::shell::screen::bars;
use crate::shell::screen::progress::{self, ProgressReporter, Start};
use ending::ImportEnding;
use job::ImportJob;

/// Runs the import that the flags ask for.
pub(super) fn run(flags: &ImportFlags) -> CommandEnd {
    let bars = bars::on_stderr();
    log::install(&flags.run.output, &bars).expect("this process installs no other subscriber");
    notify::begin("import: reading the input");
    EndSteps::of_import(flags).after(|steps| {
        ensure_state_file(flags.state.as_deref())?;
        if flags.run.dry_run {
            let page = steps.page();
            page.update(|page, _| page.is_dry_run());
            if let Some(target) = named_target(&flags.run.connection, &environment) {
                page.goes_to(&target);
            }
            let (rates, shared) = (job::forecast_rates(&flags.run)?, job::forecast_quota(&flags.run));
            return Ok(check::run(&flags.run.input, rates, shared, job::admission(flags)).into());
        }
        let job = ImportJob::of(flags, steps)?;
        for _ in 1..READINGS_MAX {
            match read_once(&job, &bars)? {
                Reading::Ended(ended) => return Ok(ended),
                Reading::HasGrown => {
                    let file = input::shown(&flags.run.input.file);
                    tracing::info!("{file} has grown since it was copied: what has come is read, too");
                }
            }
        }
        match read_once(&job, &bars)? {
            Reading::Ended(ended) => Ok(ended),
            Reading::HasGrown => Err(input::roster_error(&flags.run.input.file, &RosterError::Grown).into()),
        }
    })
}

/// How often an input that grows is copied. Chosen: what still grows then is not finished.
const READINGS_MAX: u32 = 10;

/// What one reading of the input came to.
enum Reading {
    Ended(Ended),
    /// All of a copy is imported, and more has come to what it was made of: a run that resumes goes on with that.
    HasGrown,
}

fn read_once(job: &ImportJob, bars: &MultiProgress) -> Result<Reading, ExitMessage> {
    let reach = Reach::new(&job.connection, &environment, Instant::now());
    let last_calls = LastCalls::find(&job.paths.lock());
    Ok(match prepare(job, reach, last_calls, bars)? {
        PreparedImport::Run(run) => run.carry_out(bars),
        PreparedImport::Finished { counts, delimiter, filled } => Reading::Ended(ending::finished_earlier(job, counts, delimiter, filled)),
    })
}

/// What the first look came to.
enum PreparedImport<'a> {
    Run(Box<ImportRun<'a>>),
    /// `filled` says whether the state, if there is one to fill, could be.
    Finished {
        counts: OutcomeCounts,
        /// What separates the fields of the rejects.
        delimiter: u8,
        filled: Result<(), ExitMessage>,
    },
}

/// Looks at everything; opens the journal if there is something to do.
fn prepare<'a>(job: &'a ImportJob, reach: Reach, last_calls: LastCalls, bars: &MultiProgress) -> Result<PreparedImport<'a>, ExitMessage> {
    let (lock, _leftover) = run::lock(&job.paths)?;
    let state = job.state.map(LockedState::take).transpose()?;
    if let Some(state) = &state {
        state.ensure_belongs_to(&job.target, &job.typed.connection)?;
    }
    let stands = |known: &Checkpoint| stands_for(known, job, state.as_ref());
    let lock_held = Some(&lock);
    let settings = SourceSettings { lock: lock_held, flags: job.typed, paths: &job.paths, admission: job.admission, bars, stands: &stands };
    let mut source = Source::new(&settings)?;
    if let Some(known) = source.finished() {
        let finished = finished_run(known, job, state.as_ref());
        source.discard_copies();
        return Ok(finished);
    }
    if source.is_missing()
        && let Some(finished) = finished_without_input(job, state.as_ref())?
    {
        return Ok(finished);
    }
    let input = OpenInput::of(&source, job)?;
    let roster = input.roster(job)?;
    job.admission.ensure_columns(roster.header())?;
    let spec = import::run_spec(RunKind::Import, &job.target, (input.stat, source.source_file()), &roster);
    let spec = RunSpec { reading: job.recorded(spec.reading), ..spec };
    let compare = |checkpoint: &Checkpoint| roster::compare(&input.file, checkpoint.reading.dialect(), checkpoint.settled);
    match journal::examine(&OsDisk, &job.paths, &spec, job.restart, compare).map_err(|error| cannot_open(&error))? {
        StartDecision::Finished { counts } => {
            let filled = state.map_or(Ok(()), |state| job.fill(&state, &input, counts, None));
            if filled.is_ok() {
                source.discard_copies();
            }
            Ok(PreparedImport::Finished { counts, delimiter: input.format.delimiter, filled })
        }
        StartDecision::Run(start) => {
            columns::announce(roster.header());
            admit(&start, &input, job)?;
            let client = build_client(&job.connection, job.lanes.sandbox_limits())?;
            let mut inputs = ImportInputs { job, reach, source, input, state, roster, client };
            // From here on files are made: a signal finds a run that it can stop, or a start that undoes what it did.
            let stops = signals::stops();
            let journal = inputs.open((start, spec), lock)?;
            let gates = inputs.client.sharing(last_calls::gates(last_calls, job.connection.headroom));
            let settings = job.lanes.settings(&job.connection, gates, inputs.client.admin()).resumed(&journal, job.typed.limit);
            Ok(PreparedImport::Run(Box::new(ImportRun { inputs, journal, settings, stops })))
        }
    }
}

/// A run that an earlier process has finished, its input being gone by now.
fn finished_without_input<'a>(job: &ImportJob, state: Option<&LockedState>) -> Result<Option<PreparedImport<'a>>, ExitMessage> {
    let found = journal::finished_earlier(&OsDisk, &job.paths, &job.target).map_err(|error| cannot_open(&error))?;
    let found = found.filter(|checkpoint| job.has_scope_of(&checkpoint.reading));
    Ok(found.map(|checkpoint| finished_run(&checkpoint, job, state)))
}

/// A run that an earlier process has finished.
fn finished_run<'a>(checkpoint: &Checkpoint, job: &ImportJob, state: Option<&LockedState>) -> PreparedImport<'a> {
    let ensure_filled = |state| job.filling(state).ensure_filled_from(checkpoint.settled).map_err(|error| fill_error(&error));
    let filled = state.map_or(Ok(()), ensure_filled);
    PreparedImport::Finished { counts: checkpoint.counts, delimiter: checkpoint.reading.delimiter, filled }
}

/// Whether a finished run of the same file stands for this one, so that nothing need be read.
fn stands_for(known: &Checkpoint, job: &ImportJob, state: Option<&LockedState>) -> bool {
    let is_filled = state.is_none_or(|state| job.filling(state).ensure_filled_from(known.settled).is_ok());
    known.work == RunKind::Import && known.target == job.target && job.has_scope_of(&known.reading) && is_filled
}

/// The input, open. It alone is read, whatever takes its name.
struct OpenInput {
    file: InputFile,
    stat: FileStat,
    format: Format,
}

impl OpenInput {
    fn of(source: &Source, job: &ImportJob) -> Result<Self, ExitMessage> {
        let (file, stat) = source.open()?;
        let is_allowed = stat.len == 0 && job.admission.empty == EmptyFile::Allowed;
        let format = if is_allowed { input::without_records(&job.typed.input) } else { input::as_it_is_read(&file, &job.typed.input)? };
        Ok(Self { file, stat, format })
    }

    fn roster(&self, job: &ImportJob) -> Result<Roster<InputReader>, ExitMessage> {
        Roster::of(&self.file, &self.format).map_err(|error| input::roster_error(&job.typed.input.file, &error))
    }
}

/// Judges a new input, and tells of a changed one.
fn admit(start: &StartMode, input: &OpenInput, job: &ImportJob) -> Result<(), ExitMessage> {
    match start {
        StartMode::Afresh | StartMode::SetAside | StartMode::GoOnSettingAside { .. } => {
            let found = preflight::judge(input.roster(job)?, &job.typed.input, job.admission)?;
            oddities::warn(&found, "among the first 1,000 rows: ");
            Ok(())
        }
        StartMode::Resume { input: InputChange::ChangedAfter, .. } => {
            tracing::warn!("the input was modified since the last run; its processed part is the same, so the run continues behind it");
            Ok(())
        }
        StartMode::Resume { input: InputChange::Same | InputChange::ChangedWithin, .. } => Ok(()),
    }
}

/// What an import works with, before its journal is open.
struct ImportInputs<'a> {
    job: &'a ImportJob<'a>,
    reach: Reach,
    source: Source,
    input: OpenInput,
    state: Option<LockedState>,
    roster: Roster<InputReader>,
    client: ServiceClient,
}

impl ImportInputs<'_> {
    /// Opens the journal. From then on there is a run, and what was made for it stays.
    fn open(&mut self, (start, mut spec): (StartMode, RunSpec), lock: Lockfile) -> Result<Journal<OsDisk>, ExitMessage> {
        let paths = &self.job.paths;
        // Standard input is kept for the run, under a name that lasts: that changes its stat fields.
        if self.source.keep()? {
            let renamed = self.input.file.fingerprint();
            self.input.stat = renamed.map_err(|error| input::roster_error(self.source.path(), &error.into()))?;
            spec.input = self.input.stat;
        }
        if let Some(state) = &self.state {
            self.job.filling(state).begin().map_err(|error| state_error(&error))?;
        }
        let journal = journal::open(start, (OsDisk, lock), paths.clone(), spec, SystemTime::now());
        if journal.is_ok() || journal::read_checkpoint(&OsDisk, paths).is_some() {
            self.source.begins();
            if let Some(state) = &self.state {
                state.lock().keep();
            }
        }
        journal.map_err(|error| cannot_open(&error))
    }
}

/// A run about to send its first request.
struct ImportRun<'a> {
    inputs: ImportInputs<'a>,
    journal: Journal<OsDisk>,
    settings: ImportSettings,
    stops: LocalBoxStream<'static, ()>,
}

impl ImportRun<'_> {
    fn carry_out(self: Box<Self>, bars: &MultiProgress) -> Reading {
        let runtime = match run::runtime("the same command resumes") {
            Ok(runtime) => runtime,
            Err(word) => return Reading::Ended(word.into()),
        };
        let Self { inputs, journal, settings, stops } = *self;
        let ImportInputs { job, reach, source, input, state, roster, client } = inputs;
        announce(job, (&input, roster.header()), &journal, &client);
        job.page.count_rows((&input.file, &input.format));
        let (start, before, blank, odd) = (journal.settled(), journal.counts(), roster.blank_lines(), Rc::default());
        let roster = match roster.skip_to(start) {
            Ok(roster) => roster,
            Err(error) => return Reading::Ended(input::roster_error(&job.typed.input.file, &error.into()).into()),
        };
        let watched = Watched::new(roster, input.file.clone(), input.stat);
        let began = Stopwatch::now();
        let ends = ImportEnds {
            records: WatchedRecords::new(watched, source.original().cloned(), Rc::clone(&odd)),
            sink: journal,
            on_progress: on_progress(job, (input.stat, start, before), reach.clone(), bars),
        };
        let ended = runtime.block_on(import::run(client.dependencies(stops), ends, settings));
        notify::does("import: finishing");
        // A limit counts for all readings together, and only the first one begins again: these leave the rest to the next command.
        let has_grown = matches!(&ended, Ok(ended) if matches!(ended.end, ImportEnd::Input(RosterError::Grown)));
        if has_grown && job.typed.limit.is_none() && !job.typed.restart {
            return Reading::HasGrown;
        }
        Reading::Ended(ImportEnding { job, source, input, state, reach, blank, odd, start, before }.tell(ended, began.elapsed()))
    }
}

/// Shows the progress, and looks whether requests get through.
fn on_progress(
    job: &ImportJob,
    (file, begun, before): (FileStat, InputPosition, OutcomeCounts),
    mut reach: Reach,
    bars: &MultiProgress,
) -> Box<dyn FnMut(&ImportProgress)> {
    let (rows, input_bytes, limit) = (begun.rows, Some(file.len), job.typed.limit);
    let start = Start { rows_done: rows, rows_settled: rows, offset: begun.offset, input_bytes, limit };
    let page = job.page.clone();
    page.update(|page, now| page.begins(start, before, now));
    let mut reporter = ProgressReporter::on_stderr(job.typed.output.progress(), bars, start, Instant::now());
    Box::new(move |progress| {
        notify::came_round(|| progress::done_words(begun.rows + progress.counts.rows(), &progress.requests));
        reach.heed(progress.requests.calls, &progress.requests.phase, Instant::now());
        reporter.tell(progress, Instant::now());
        page.update(|page, _| page.sends(progress));
    })
}

/// Says what is about to happen, and what may get in its way.
fn announce(job: &ImportJob, (input, header): (&OpenInput, &Header), journal: &Journal<OsDisk>, client: &ServiceClient) {
    let shared = client.quota.as_ref().map(|quota| quota.limits[job.lanes.main_command()]);
    let rate = match (job.lanes.main_rate(), shared) {
        (Rate::PerSecond(rate), Some(shared)) => format!("at most {} requests/s of the {shared} that the quota shares", rate.min(shared)),
        (Rate::PerSecond(rate), None) => format!("at most {rate} requests/s"),
        (Rate::Unlimited, _) => "without a limit".to_owned(),
    };
    let (lane, from) = (run::lane_words(job.lanes.lane), run::resumed_words(journal.settled().rows));
    let (file, target, results) = (job.typed.input.file.display(), &client.target, job.paths.results.display());
    tracing::info!("importing {file} into {target}{lane}, {rate}{from}; results: {results}");
    let cost = columns::cost_of_tags(header, job.lanes.foreseen_profile_rate());
    if cost.is_none() && client.expires_at.is_none() {
        return;
    }
    let ahead = rows_ahead(input, journal.settled());
    if let Some(cost) = cost {
        tracing::info!("{cost}");
        if let Some(words) = ahead.and_then(|ahead| time_of_tags(job, ahead)) {
            tracing::info!("{words}");
        }
    }
    if let Some((ahead, expires_at)) = ahead.zip(client.expires_at) {
        warn_of_expiry(job, ahead, expires_at);
    }
}

/// How long it takes to send the tags of the rows that are left, and whether that bounds the pace of the run.
fn time_of_tags(job: &ImportJob, ahead: RowsAhead) -> Option<String> {
    let (_, import) = run::forecast(&job.lanes, ahead.rows);
    let time = ahead.time_of_tags(job)?;
    let bounds = match job.lanes.scope {
        ImportScope::ProfilesOnly => "",
        ImportScope::Everything if import.is_none_or(|import| import < time) => "; that bounds the pace, not the import",
        ImportScope::Everything => "; the import takes no longer for it",
    };
    let time = humantime::format_duration(time);
    if ahead.rows == 1 {
        let has = if ahead.with_tags == 0 { "no such cell" } else { "such cells" };
        return Some(format!("the 1 row left has {has}: {time}{bounds}"));
    }
    let (with_tags, rows) = (figures::count(ahead.with_tags), figures::counted(ahead.rows, "row"));
    let have = if ahead.with_tags == 1 { "has" } else { "have" };
    Some(format!("about {with_tags} of the {rows} left {have} such cells, by the next ones: {time}{bounds}"))
}

/// A signature that can't be renewed may not last as long as the run.
fn warn_of_expiry(job: &ImportJob, ahead: RowsAhead, expires_at: SystemTime) {
    let (_, import) = run::forecast(&job.lanes, ahead.rows);
    let Some(time) = import.max(ahead.time_of_tags(job)) else { return };
    let ends_at = SystemTime::now() + time;
    if ends_at > expires_at {
        tracing::warn!(
            "CHATLIFT_USERSIG expires at {}, the run will last until about {}: it will stop then, and continue with a new one; with a key, chatlift renews it itself",
            humantime::format_rfc3339_seconds(expires_at),
            humantime::format_rfc3339_seconds(ends_at)
        );
    }
}

/// About how many rows are left.
#[derive(Debug, Clone, Copy)]
struct RowsAhead {
    rows: u64,
    /// Those that have cells of tags.
    with_tags: u64,
}

impl RowsAhead {
    /// How long it takes to send the tags; none where there is no limit.
    fn time_of_tags(self, job: &ImportJob) -> Option<Duration> {
        match job.lanes.foreseen_profile_rate() {
            Rate::PerSecond(rate) => Some(Duration::from_secs(self.with_tags.div_ceil(rate.get().into()))),
            Rate::Unlimited => None,
        }
    }
}

/// By the next rows: their size and their cells.
fn rows_ahead(input: &OpenInput, settled: InputPosition) -> Option<RowsAhead> {
    const SAMPLE: usize = 1_000;
    let roster = Roster::of(&input.file, &input.format).and_then(|roster| Ok(roster.skip_to(settled)?)).ok()?;
    let sample: Vec<Record> = roster.take(SAMPLE).map_while(Result::ok).collect();
    let sampled = (sample.last()?.end.offset - settled.offset).max(1);
    let in_all = |of_sample: usize| (input.stat.len - settled.offset).saturating_mul(of_sample as u64) / sampled;
    let with_tags = sample.iter().filter(|record| record.account.as_ref().is_ok_and(|account| !account.tags.is_empty())).count();
    Some(RowsAhead { rows: in_all(sample.len()), with_tags: in_all(with_tags) })
}
