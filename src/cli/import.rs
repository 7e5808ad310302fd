//! `chatlift import`: from the flags to the end of the run.
//!
//! Everything that can be wrong is found before the first call; what ends the run becomes its last word, its table and its summary.

use std::num::NonZeroU32;
use std::path::Path;
use std::time::{Duration, SystemTime};

use futures_util::stream::LocalBoxStream;
use indicatif::MultiProgress;
use tokio::time::Instant;

use super::ending::{Given, already_finished, cannot_open, disk_failed, having_waited, last_word};
use super::exit::{Exit, LastWord};
use super::flags::{ImportFlags, RunFlags};
use super::kept::Kept;
use super::lanes::{COMMIT_EVERY, Lanes};
use super::names::{can_be_replaced, paths};
use super::open_files::Keeps;
use super::pipe::Held;
use super::reach::Reach;
use super::settings::{Connection, copies_delimiter, format};
use super::signals::Leftover;
use super::source::Source;
use super::target::{Dialled, dial, target};
use super::{check, environment, first_look, input, last_calls, log, open_files, signals, tell};
use crate::api::wire::{ACCOUNT_IMPORT_CALLS_PER_S, BATCH_CALLS_PER_S};
use crate::check::Rates;
use crate::deliver::{BATCH_RECORDS, Lane};
use crate::figures;
use crate::gate::{self, Rate};
use crate::import::{self, Broken, End, Ended, Parts, Reading, Settings};
use crate::input::{Fingerprint, Mark, Sameness};
use crate::journal::checkpoint::{Checkpoint, Work};
use crate::journal::disk::OsDisk;
use crate::journal::paths::Paths;
use crate::journal::{self, Claim, Journal, LastCalls, Plan, Restart, Way};
use crate::lockfile::Lockfile;
use crate::outcome::Tally;
use crate::progress::{Progress, Start};
use crate::roster::{self, Format, InputFile, InputReader, Roster, RosterError, Watched};
use crate::state;
use crate::summary::{Report, Summary};
use crate::traffic::Traffic;

/// How often the progress is told. Chosen: a person sees it move.
pub(super) const TELL_EVERY: Duration = Duration::from_millis(250);

/// Runs the import that the flags ask for.
pub(super) fn run(given: &ImportFlags) -> LastWord {
    let flags = &given.run;
    if flags.dry_run {
        return check::run(&flags.input, forecast_rates(flags));
    }
    let bars = MultiProgress::new();
    log::install(&flags.output, &bars).expect("this process installs no other subscriber");
    let mut pipe = Held::default();
    let word = match begin(given, &mut pipe) {
        Ok(Begun::Run(run)) => run.carry_out(&bars),
        Ok(Begun::Finished { tally, paths, filled }) => {
            let finished = || already_finished(tally, Given { flags, paths: &paths, state: given.state.as_deref(), reach: None });
            let word = filled.err().unwrap_or_else(finished);
            write_summary(flags, &summary((word.exit, Lane::Single), tally, Traffic::default(), (Duration::ZERO, tally.rows())));
            word
        }
        Err(word) => word,
    };
    if flags.output.quiet && word.exit == Exit::Done { LastWord::done("") } else { word }
}

/// What the first look came to.
enum Begun<'a> {
    Run(Box<Run<'a>>),
    /// `filled` says whether the state, if there is one to fill, could be.
    Finished {
        tally: Tally,
        paths: Paths,
        filled: Result<(), LastWord>,
    },
}

/// A run about to send its first call.
struct Run<'a> {
    flags: &'a RunFlags,
    paths: Paths,
    source: Source,
    /// The file that was judged: it alone is read.
    input: InputFile,
    stat: Fingerprint,
    format: Format,
    journal: Journal<OsDisk>,
    roster: Roster<InputReader>,
    dialled: Dialled,
    lanes: Lanes,
    settings: Settings,
    kept: Option<Kept>,
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
fn begin<'a>(given: &'a ImportFlags, pipe: &mut Held) -> Result<Begun<'a>, LastWord> {
    let ImportFlags { run: flags, state } = given;
    let mut connection = Connection::resolve(&flags.connection, &environment)?;
    open_files::make_room(&mut connection, if state.is_some() { Keeps::State } else { Keeps::Nothing })?;
    let reach = Reach::new(&connection, &environment, Instant::now());
    let lanes = Lanes::new(flags, &connection)?;
    let file = &flags.input.file;
    let paths = paths(flags, &state.iter().flat_map(|state| state::names(state)).collect::<Vec<_>>())?;
    can_be_replaced("summary", flags.summary.as_deref())?;
    *pipe = Held::open(flags.summary.as_deref())?;
    let last_calls = LastCalls::find(&paths.lock());
    let (lock, _leftover) = Leftover::of_made(&paths.lock(), || journal::lock(&OsDisk, &paths), Lockfile::is_for_nothing)
        .map_err(|error| cannot_open(&error))?;
    let kept = state.as_deref().map(Kept::take).transpose()?;
    kept.as_ref().map_or(Ok(()), |kept| kept.belongs_to(&target(&connection.service), &flags.connection))?;
    let mut source = Source::new(file, &paths)?;
    if source.is_missing()
        && let Some(finished) = finished_without_input(&connection, &paths, kept.as_ref())?
    {
        return Ok(finished);
    }
    let format = format(&flags.input);
    let (input, stat) = input::open_file(source.path(), file)?;
    let roster = Roster::of(&input, &format).map_err(|error| input::roster_error(file, &error))?;
    let mut claim = claim(&connection, &roster, stat, flags);
    let way = match examine(&claim, &paths, &input, flags)? {
        Plan::Finished { tally } => {
            let target = target(&connection.service);
            let filled = kept.map_or(Ok(()), |kept| kept.import_finished(&target, (&input, &format), &paths, tally));
            if filled.is_ok() {
                source.is_done_with();
            }
            return Ok(Begun::Finished { tally, paths, filled });
        }
        Plan::Run(way) => way,
    };
    look_at_input(&way, &input, &format, flags)?;
    let state = state.as_deref();
    let dialled = dial(&connection, lanes.main_rate())?;
    // From here on files are made: a signal finds a run that it can stop, or a start that undoes what it did.
    let stops = signals::stops();
    let stat = keep(&mut source, &input, &mut claim)?;
    kept.as_ref().map_or(Ok(()), |kept| kept.import_begins(&dialled.target, &paths))?;
    let journal = open_journal(way, (lock, &paths), claim, (&mut source, kept.as_ref()))?;
    let roster = roster.skip_to(journal.settled()).map_err(|error| input::roster_error(file, &error.into()))?;
    let settings = settings((&connection, &lanes, &dialled), last_calls::gates(last_calls, connection.headroom), flags.limit, &journal);
    Ok(Begun::Run(Box::new(Run {
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
    way: Way,
    (lock, paths): (Lockfile, &Paths),
    claim: Claim,
    (source, kept): (&mut Source, Option<&Kept>),
) -> Result<Journal<OsDisk>, LastWord> {
    let journal = journal::open(way, (OsDisk, lock), paths.clone(), claim, SystemTime::now());
    if journal.is_ok() || journal::work(&OsDisk, paths).is_some() {
        source.begins();
        kept.into_iter().for_each(Kept::begins);
    }
    journal.map_err(|error| cannot_open(&error))
}

fn settings(
    (connection, lanes, dialled): (&Connection, &Lanes, &Dialled),
    gates: gate::Settings,
    limit: Option<u64>,
    journal: &Journal<OsDisk>,
) -> Settings {
    Settings {
        rates: lanes.rates.clone(),
        gates,
        limits: lanes.limits(connection),
        max_outage: connection.max_outage,
        limit,
        rows_done: journal.settled().rows,
        known: dialled.known(journal.tally()),
        commit_every: COMMIT_EVERY,
        commit_rows: lanes.commit_rows(),
        tell_every: TELL_EVERY,
    }
}

/// Standard input is kept for the run, under a name that lasts: that changes its stat fields.
fn keep(source: &mut Source, input: &InputFile, claim: &mut Claim) -> Result<Fingerprint, LastWord> {
    if source.keep()? {
        claim.input = input.fingerprint().map_err(|error| input::roster_error(source.path(), &error.into()))?;
    }
    Ok(claim.input)
}

/// A run that an earlier process has finished, its input being gone by now.
fn finished_without_input<'a>(connection: &Connection, paths: &Paths, kept: Option<&Kept>) -> Result<Option<Begun<'a>>, LastWord> {
    let found = journal::finished_earlier(&OsDisk, paths, &target(&connection.service)).map_err(|error| cannot_open(&error))?;
    Ok(found.map(|(tally, end)| {
        let filled = kept.map_or(Ok(()), |kept| kept.is_filled_from(end));
        Begun::Finished { tally, paths: paths.clone(), filled }
    }))
}

fn claim(connection: &Connection, roster: &Roster<InputReader>, stat: Fingerprint, flags: &RunFlags) -> Claim {
    Claim {
        work: Work::Import,
        target: target(&connection.service),
        input: stat,
        reading: roster.reading(),
        header: roster.header().names.clone(),
        rejects_delimiter: copies_delimiter(&flags.input),
        start: roster.at(),
    }
}

fn examine(claim: &Claim, paths: &Paths, input: &InputFile, flags: &RunFlags) -> Result<Plan, LastWord> {
    let restart = if flags.restart { Restart::Asked } else { Restart::No };
    let compare = |checkpoint: &Checkpoint| roster::compare(input, checkpoint.reading.delimiter, checkpoint.settled);
    journal::examine(&OsDisk, paths, claim, restart, compare).map_err(|error| cannot_open(&error))
}

/// Judges a new input, and tells of a changed one.
fn look_at_input(way: &Way, input: &InputFile, format: &Format, flags: &RunFlags) -> Result<(), LastWord> {
    match way {
        Way::Afresh | Way::SetAside | Way::GoOnSettingAside { .. } => first_look::judge(input, &flags.input, format, flags.max_invalid),
        Way::Resume { input: Sameness::ChangedAfter, .. } => {
            tracing::warn!("the input was modified since the last run; its settled part is the same, the run goes on with what follows");
            Ok(())
        }
        Way::Resume { input: Sameness::Same | Sameness::ChangedWithin, .. } => Ok(()),
    }
}

impl Run<'_> {
    fn carry_out(self: Box<Self>, bars: &MultiProgress) -> LastWord {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return LastWord::new(Exit::CannotGoOn, format!("cannot start: {error}"), "the same command resumes"),
        };
        self.announce();
        let began = std::time::Instant::now();
        let Self { flags, paths, mut source, input, stat, format, journal, roster, dialled, settings, kept, state, reach, stops, .. } =
            *self;
        let (start, before) = (journal.settled(), journal.tally());
        let progress = Start { rows_done: start.rows, offset: start.offset, input_bytes: Some(stat.len), limit: settings.limit };
        let mut progress = Progress::on_stderr(&flags.output, bars, progress, Instant::now());
        let mut watched = reach.clone();
        let parts = Parts {
            api: dialled.api.clone(),
            records: Reading::new(Watched::new(roster, input.clone(), stat)),
            ledger: journal,
            signer: dialled.signer(),
            wall: Box::new(SystemTime::now),
            jitter: Box::new(fastrand::f64),
            signals: stops,
            tell: Box::new(move |snapshot| {
                watched.heed(snapshot.calls, &snapshot.phase, Instant::now());
                progress.tell(snapshot, Instant::now());
            }),
        };
        let ended = runtime.block_on(import::run(parts, settings));
        let elapsed = began.elapsed();
        let (word, summary, this_run) = match ended {
            Err(Broken { error, traffic, lane }) => {
                let word = disk_failed(&error);
                // What the same command will go on from; never less than what it began with.
                let tally = journal::committed(&OsDisk, &paths).unwrap_or(before);
                let summary = summary((word.exit, lane), tally, traffic, (elapsed, start.rows));
                (word, summary, tally - before)
            }
            Ok(ended) => {
                let is_finished = matches!(ended.end, End::Finished);
                let filled = match kept.filter(|_| is_finished) {
                    Some(kept) => kept.import_finished(&dialled.target, (&input, &format), &paths, before + ended.tally),
                    None => Ok(()),
                };
                if is_finished && filled.is_ok() {
                    source.is_done_with();
                }
                let remaining = remaining(&ended, &input, &format, start);
                let tally = before + ended.tally;
                let given = Given { flags, paths: &paths, state, reach: reach.advice_on(&ended.traffic) };
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
        let Run { flags, paths, journal, dialled, lanes, .. } = self;
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
fn remaining(ended: &Ended<Journal<OsDisk>, RosterError>, input: &InputFile, format: &Format, start: Mark) -> Option<u64> {
    match ended.end {
        End::LimitReached => {
            let settled = ended.settled.unwrap_or(start);
            Roster::of(input, format).and_then(|roster| roster.skip_to(settled)?.count_rest()).ok()
        }
        End::Finished | End::Stopped | End::Outage { .. } | End::Refused { .. } | End::Input(_) => None,
    }
}

fn summary((exit, lane): (Exit, Lane), tally: Tally, traffic: Traffic, (elapsed, resumed_at_row): (Duration, u64)) -> Summary {
    Summary { exit, outcome: exit.outcome(), lane, tally, traffic, elapsed, resumed_at_row, sync: None }
}

pub(super) fn write_summary(flags: &RunFlags, summary: &Summary) {
    if let Some(path) = &flags.summary
        && let Err(error) = summary.write(path)
    {
        tracing::error!("cannot write the summary {}: {error}", path.display());
    }
}

fn report(flags: &RunFlags, summary: &Summary, this_run: Tally, paths: &Paths) {
    if flags.output.quiet {
        return;
    }
    let rejects = (summary.tally.rejected() > 0).then_some(paths.rejects.as_path());
    tell(&Report { summary, this_run, results: &paths.results, rejects, checkpoint: &paths.checkpoint });
}
