//! `chatlift import`: from the flags to the end of the run.
//!
//! Everything that can be wrong is reported before the first request. The end of the run becomes its exit message, its table and its
//! summary.

use std::num::NonZeroU32;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use futures_util::stream::LocalBoxStream;
use indicatif::MultiProgress;
use tokio::time::Instant;

use super::client::{ServiceClient, build_client, target};
use super::exit_messages::{EndedRun, already_finished, cannot_open, disk_failed, having_waited, last_word};
use super::flags::{ImportFlags, InputFlags, RunFlags};
use super::lanes::Lanes;
use super::open_files::Keeps;
use super::output_paths::{can_be_replaced, paths};
use super::pipe::HeldPipe;
use super::preflight::{Admission, EmptyFile};
use super::reach::Reach;
use super::settings::{Connection, format};
use super::signals::Leftover;
use super::source::Source;
use super::state_file::LockedState;
use super::{atomic, check, columns, environment, input, last_calls, log, open_files, preflight, signals};
use crate::domain::call_stats::CallStats;
use crate::domain::figures;
use crate::domain::outcome::OutcomeCounts;
use crate::domain::position::{FileStat, InputChange, InputPosition};
use crate::flow::check::Rates;
use crate::flow::deliver::{BATCH_RECORDS, Lane};
use crate::flow::import::{self, ImportDependencies, ImportEnd, ImportFailed, ImportOutcome, ImportSettings, WatchedRecords};
use crate::io::api::http::HttpApi;
use crate::io::api::wire::{ACCOUNT_IMPORT_CALLS_PER_S, BATCH_CALLS_PER_S};
use crate::io::files::lock::Lockfile;
use crate::io::gate::Rate;
use crate::io::journal::checkpoint::{Checkpoint, RunKind};
use crate::io::journal::disk::OsDisk;
use crate::io::journal::paths::RunPaths;
use crate::io::journal::{self, DiskError, Journal, LastCalls, Restart, RunSpec, StartDecision, StartMode};
use crate::io::roster::{self, BlankLines, Format, InputFile, InputReader, Roster, RosterError, Watched};
use crate::io::state;
use crate::shell::exit::{Exit, ExitMessage};
use crate::shell::screen::progress::{ProgressReporter, Start};
use crate::shell::screen::summary::{Report, Summary};
use crate::shell::terminal::print_stderr;

/// Runs the import that the flags ask for.
pub(super) fn run(given: &ImportFlags) -> ExitMessage {
    let flags = &given.run;
    if flags.dry_run {
        return check::run(&flags.input, forecast_rates(flags), admission(given));
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

/// What the flow works with.
type Parts = ImportDependencies<Rc<HttpApi>, WatchedRecords, Journal<OsDisk>>;

/// How the flow ends.
type Ended = ImportOutcome<Journal<OsDisk>, RosterError>;

/// `--rate` is the lane's own, `--single-rate` the other one's; a rate without limit forecasts nothing, so the documented one stands in.
pub(super) fn forecast_rates(flags: &RunFlags) -> Rates {
    let or = |rate: Option<u32>, documented| rate.and_then(NonZeroU32::new).unwrap_or(documented);
    let rate = flags.connection.rate;
    let (single, batch) = if flags.batch.is_some() { (flags.single_rate, rate) } else { (rate, None) };
    Rates { single: or(single, ACCOUNT_IMPORT_CALLS_PER_S), batch: or(batch, BATCH_CALLS_PER_S) }
}

/// Looks at everything; opens the journal if there is something to do.
fn begin<'a>(given: &'a ImportFlags, pipe: &mut HeldPipe) -> Result<Prepared<'a>, ExitMessage> {
    let ground = Ground::of(given, pipe)?;
    let (lock, _leftover) = Leftover::of_lock(&ground.paths.lock(), || journal::lock(&OsDisk, &ground.paths), Lockfile::is_for_nothing)
        .map_err(|error| cannot_open(&error))?;
    let kept = ground.take_state()?;
    let mut source = Source::new(&given.run.input.file, &ground.paths)?;
    if source.is_missing()
        && let Some(finished) = finished_without_input(&ground.connection, &ground.paths, kept.as_ref())?
    {
        return Ok(finished);
    }
    let read = ReadInput::of(&source, &given.run)?;
    let claim = claim(&ground.connection, &read.roster, read.stat);
    match examine(&claim, &ground.paths, &read.input, &given.run)? {
        StartDecision::Finished { tally } => {
            let target = target(&ground.connection.service);
            let filled = kept.map_or(Ok(()), |kept| kept.import_finished(&target, (&read.input, &read.format), &ground.paths, tally));
            if filled.is_ok() {
                source.is_done_with();
            }
            Ok(Prepared::Finished { tally, delimiter: read.format.delimiter, paths: ground.paths, filled })
        }
        StartDecision::Run(way) => ground.start((way, claim), (lock, kept), source, read).map(|run| Prepared::Run(Box::new(run))),
    }
}

/// What the flags come to, before any file of the run is looked at.
struct Ground<'a> {
    flags: &'a RunFlags,
    admission: Admission,
    state: Option<&'a Path>,
    connection: Connection,
    reach: Reach,
    lanes: Lanes,
    paths: RunPaths,
    last_calls: LastCalls,
}

impl<'a> Ground<'a> {
    fn of(given: &'a ImportFlags, pipe: &mut HeldPipe) -> Result<Self, ExitMessage> {
        let ImportFlags { run: flags, state, allow: _ } = given;
        let mut connection = Connection::resolve(&flags.connection, &environment)?;
        open_files::make_room(&mut connection, if state.is_some() { Keeps::State } else { Keeps::Nothing })?;
        let reach = Reach::new(&connection, &environment, Instant::now());
        let lanes = Lanes::new(flags, &connection)?;
        let paths = paths(flags, &state.iter().flat_map(|state| state::names(state)).collect::<Vec<_>>())?;
        can_be_replaced("summary", flags.summary.as_deref())?;
        *pipe = HeldPipe::open(flags.summary.as_deref())?;
        let last_calls = LastCalls::find(&paths.lock());
        Ok(Self { flags, admission: admission(given), state: state.as_deref(), connection, reach, lanes, paths, last_calls })
    }

    /// The state that is to be filled, if one is.
    fn take_state(&self) -> Result<Option<LockedState>, ExitMessage> {
        let kept = self.state.map(LockedState::take).transpose()?;
        kept.as_ref().map_or(Ok(()), |kept| kept.belongs_to(&target(&self.connection.service), &self.flags.connection))?;
        Ok(kept)
    }

    /// Judges the input, and opens the journal.
    fn start(
        self,
        (way, mut claim): (StartMode, RunSpec),
        (lock, kept): (Lockfile, Option<LockedState>),
        mut source: Source,
        read: ReadInput,
    ) -> Result<ImportRun<'a>, ExitMessage> {
        let Self { flags, admission, state, connection, reach, lanes, paths, last_calls } = self;
        let ReadInput { input, format, roster, .. } = read;
        columns::announce(roster.header());
        look_at_input(&way, (&input, &format), &flags.input, admission)?;
        let dialled = build_client(&connection, lanes.main_rate())?;
        // From here on files are made: a signal finds a run that it can stop, or a start that undoes what it did.
        let stops = signals::stops();
        let stat = keep(&mut source, &input, &mut claim)?;
        kept.as_ref().map_or(Ok(()), |kept| kept.import_begins(&dialled.target, &paths))?;
        let journal = open_journal(way, (lock, &paths), claim, (&mut source, kept.as_ref()))?;
        let roster = roster.skip_to(journal.settled()).map_err(|error| input::roster_error(&flags.input.file, &error.into()))?;
        let gates = last_calls::gates(last_calls, connection.headroom);
        let settings = lanes.settings(&connection, gates, dialled.admin()).resumed(&journal, flags.limit);
        Ok(ImportRun { flags, paths, source, input, stat, format, journal, roster, dialled, lanes, settings, kept, state, reach, stops })
    }
}

/// The input, open, with its header read.
struct ReadInput {
    input: InputFile,
    stat: FileStat,
    format: Format,
    roster: Roster<InputReader>,
}

impl ReadInput {
    fn of(source: &Source, flags: &RunFlags) -> Result<Self, ExitMessage> {
        let file = &flags.input.file;
        let (input, stat) = input::open_file(source.path(), file)?;
        let roster = Roster::of(&input, &format(&flags.input)).map_err(|error| input::roster_error(file, &error))?;
        let format = Format { delimiter: roster.reading().delimiter, ..format(&flags.input) };
        Ok(Self { input, stat, format, roster })
    }
}

/// Opens the journal. From then on there is a run, and what was made for it stays.
fn open_journal(
    way: StartMode,
    (lock, paths): (Lockfile, &RunPaths),
    claim: RunSpec,
    (source, kept): (&mut Source, Option<&LockedState>),
) -> Result<Journal<OsDisk>, ExitMessage> {
    let journal = journal::open(way, (OsDisk, lock), paths.clone(), claim, SystemTime::now());
    if journal.is_ok() || journal::read_checkpoint(&OsDisk, paths).is_some() {
        source.begins();
        if let Some(kept) = kept {
            kept.lock().keep();
        }
    }
    journal.map_err(|error| cannot_open(&error))
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

/// Which files the flags let in.
const fn admission(given: &ImportFlags) -> Admission {
    let empty = if given.allow.is_some() { EmptyFile::Allowed } else { EmptyFile::Refused };
    Admission { max_invalid: given.run.max_invalid, empty }
}

/// Judges a new input, and tells of a changed one.
fn look_at_input(
    way: &StartMode,
    (input, format): (&InputFile, &Format),
    flags: &InputFlags,
    admission: Admission,
) -> Result<(), ExitMessage> {
    match way {
        StartMode::Afresh | StartMode::SetAside | StartMode::GoOnSettingAside { .. } => preflight::judge(input, flags, format, admission),
        StartMode::Resume { input: InputChange::ChangedAfter, .. } => {
            tracing::warn!("the input was modified since the last run; its processed part is the same, the run goes on with what follows");
            Ok(())
        }
        StartMode::Resume { input: InputChange::Same | InputChange::ChangedWithin, .. } => Ok(()),
    }
}

impl<'a> ImportRun<'a> {
    fn carry_out(self: Box<Self>, bars: &MultiProgress) -> ExitMessage {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return ExitMessage::new(Exit::Fatal, format!("cannot start: {error}"), "the same command resumes"),
        };
        self.announce();
        let began = std::time::Instant::now();
        let (parts, settings, mut rest) = self.split(bars);
        let ended = runtime.block_on(import::run(parts, settings));
        let elapsed = began.elapsed();
        let Conclusion { word, summary, this_run } = match ended {
            Err(failed) => rest.broke_off(&failed, elapsed),
            Ok(ended) => rest.came_to(&ended, elapsed),
        };
        write_summary(rest.flags, &summary);
        report(rest.flags, &summary, this_run, &rest.paths);
        word
    }

    /// What the flow works with, and what is needed once it has ended.
    fn split(self, bars: &MultiProgress) -> (Parts, ImportSettings, Rest<'a>) {
        let Self { flags, paths, source, input, stat, format, journal, roster, dialled, settings, kept, state, reach, stops, .. } = self;
        let (start, before) = (journal.settled(), journal.tally());
        let progress = Start { rows_done: start.rows, offset: start.offset, input_bytes: Some(stat.len), limit: settings.limit };
        let mut progress = ProgressReporter::on_stderr(flags.output.progress(), bars, progress, Instant::now());
        let (mut watched, blank) = (reach.clone(), roster.blank_lines());
        let parts = ImportDependencies {
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
        (parts, settings, Rest { flags, paths, source, input, format, dialled, kept, state, reach, blank, start, before })
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

/// What the end of a run needs.
struct Rest<'a> {
    flags: &'a RunFlags,
    paths: RunPaths,
    source: Source,
    input: InputFile,
    format: Format,
    dialled: ServiceClient,
    kept: Option<LockedState>,
    state: Option<&'a Path>,
    reach: Reach,
    /// That this process has passed.
    blank: BlankLines,
    /// Where this process began.
    start: InputPosition,
    /// What earlier processes had come to.
    before: OutcomeCounts,
}

/// What a run came to, for everybody who is told.
struct Conclusion {
    word: ExitMessage,
    summary: Summary,
    this_run: OutcomeCounts,
}

impl Rest<'_> {
    /// The disk failed.
    fn broke_off(&self, failed: &ImportFailed<DiskError>, elapsed: Duration) -> Conclusion {
        let word = disk_failed(&failed.error);
        // What the same command will go on from; never less than what it began with.
        let tally = journal::read_checkpoint(&OsDisk, &self.paths).map_or(self.before, |checkpoint| checkpoint.tally);
        let summary = summary((word.exit, failed.lane), tally, failed.traffic.clone(), (elapsed, self.start.rows));
        Conclusion { word, summary, this_run: tally - self.before }
    }

    fn came_to(&mut self, ended: &Ended, elapsed: Duration) -> Conclusion {
        let tally = self.before + ended.tally;
        let filled = self.fill_state(ended, tally);
        let remaining = remaining(ended, &self.input, &self.format, self.start);
        let reach = self.reach.advice_on(&ended.traffic);
        let given = EndedRun { flags: self.flags, paths: &self.paths, delimiter: self.format.delimiter, state: self.state, reach };
        let word = filled.err().unwrap_or_else(|| last_word(&ended.end, tally, remaining, given));
        let word = having_waited(word, ended.unjudged);
        let is_finished = matches!(ended.end, ImportEnd::Finished);
        let word = if is_finished { input::with_new_file(word, &self.flags.input.file, &self.input) } else { word };
        if is_finished {
            input::tell_blank(self.blank.count());
        }
        let summary = summary((word.exit, ended.lane), tally, ended.traffic.clone(), (elapsed, self.start.rows));
        Conclusion { word, summary, this_run: ended.tally }
    }

    /// A finished run fills the state, if there is one to fill, and then needs its input no more.
    fn fill_state(&mut self, ended: &Ended, tally: OutcomeCounts) -> Result<(), ExitMessage> {
        if !matches!(ended.end, ImportEnd::Finished) {
            return Ok(());
        }
        if let Some(kept) = self.kept.take() {
            kept.import_finished(&self.dialled.target, (&self.input, &self.format), &self.paths, tally)?;
        }
        self.source.is_done_with();
        Ok(())
    }
}

/// Records that a limit has left; `None` where there was none, or they can't be counted.
fn remaining(ended: &Ended, input: &InputFile, format: &Format, start: InputPosition) -> Option<u64> {
    match ended.end {
        ImportEnd::LimitReached => {
            let settled = ended.settled.unwrap_or(start);
            Roster::of(input, format).and_then(|roster| roster.skip_to(settled)?.count_rest()).ok()
        }
        ImportEnd::Finished | ImportEnd::Stopped | ImportEnd::Outage { .. } | ImportEnd::Refused { .. } | ImportEnd::Input(_) => None,
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
