//! `chatlift verify`: from the flags to the end of the run.
//!
//! Everything that can be wrong is reported before the first request. However the run ends, results and repair file get their names at the
//! end if there is anything to report.

use std::io;
use std::path::{Path, PathBuf};

use futures_util::stream::LocalBoxStream;
use futures_util::{FutureExt, StreamExt};
use indicatif::MultiProgress;
use tokio::time::Instant;

use super::access::{Remedies, cannot_use, why_denied};
use super::client::{SandboxLimits, ServiceClient, build_client, target};
use super::command_end::{CommandEnd, EndSteps, Ended};
use super::command_line::CommandLine;
use super::exit_messages::{aborted, busy, having_waited};
use super::fd_limit::Keeps;
use super::flags::{InputFlags, VerifyFlags};
use super::lanes::dispatch_settings;
use super::output_paths::{
    Named, NamedFile, cannot_be_named_after, ensure_distinct, ensure_file, ensure_name_fits, ensure_none_is_used, ensure_writable,
};
use super::outputs::used_for;
use super::page::PageWatch;
use super::reach::Reach;
use super::settings::Connection;
use super::source::Rereadable;
use super::state_corrections::Reconciled;
use super::state_file::{LockedState, ensure_state_file};
use super::{columns, environment, fd_limit, input, last_calls, log, remedies, signals};
use crate::domain::account::UserId;
use crate::domain::command::PerCommand;
use crate::domain::comparison::FindingCounts;
use crate::domain::figures::{count, counted};
use crate::domain::position::InputPosition;
use crate::flow::calls::{self, CallsFailed, CallsOutcome};
use crate::flow::dispatch::{AbortCause, DispatchSettings, Progress};
use crate::flow::verify::{Failed, ProfileComparison, RandomSample, ReadProgress, Survey, SurveyError, SurveyPlan, Verification};
use crate::io::api::wire;
use crate::io::files::aside;
use crate::io::gate::{self, Rate};
use crate::io::journal::paths::{beside, repair_of};
use crate::io::roster::{Format, Look, Roster, Watch, Watched};
use crate::io::state;
use crate::io::verification_files::{OriginalFormat, VerificationFiles, VerificationPaths};
use crate::shell::exit::{Exit, ExitMessage};
use crate::shell::page::AskedSoFar;
use crate::shell::screen::bars;
use crate::shell::screen::end_summary::Figures;
use crate::shell::screen::phase_bar::PhaseBar;
use crate::shell::screen::progress;
use crate::shell::screen::verified::{Verified, VerifiedReport};
use crate::shell::terminal::causes;
use crate::shell::terminal::print_stderr;

/// What the same command does after everything that stopped a run.
const AGAIN: &str = "the results hold what was found by then; the same command begins anew";
/// What to do about a file that somebody writes to.
const WHEN_WRITTEN: &str = "give the same command again when nobody writes to it any more";

type StopSeen = LocalBoxStream<'static, ()>;

/// Asks what the flags ask for.
pub(super) fn run(flags: &VerifyFlags) -> CommandEnd {
    let bars = bars::on_stderr();
    log::install(&flags.output, &bars).expect("this process installs no other subscriber");
    EndSteps::of_verify(flags).after(|steps| {
        let ended = verified(flags, &bars, steps).unwrap_or_else(Ended::from);
        Ok(Ended { word: begins_anew(ended.word), ..ended })
    })
}

fn state_words(requests: &Progress) -> String {
    let state = progress::state(requests);
    let quota = requests.so_far.stats.quota.and_then(progress::quota_words);
    quota.map_or_else(|| state.clone(), |quota| format!("{quota}, {state}"))
}

/// What is said of every command's ends is said of runs that resume; a verification doesn't.
fn begins_anew(word: ExitMessage) -> ExitMessage {
    ExitMessage { hint: word.hint.map(|hint| hint.replace("the same command resumes", "the same command begins anew")), ..word }
}

fn verified(flags: &VerifyFlags, bars: &MultiProgress, at_end: &EndSteps) -> Result<Ended, ExitMessage> {
    ensure_state_file(flags.state.as_deref())?;
    let mut connection = Connection::resolve(&flags.connection, &environment)?;
    at_end.announce(&connection);
    fd_limit::make_room(&mut connection, if flags.state.is_some() { Keeps::State } else { Keeps::Nothing })?;
    let paths = paths(flags)?;
    let page = at_end.page();
    page.goes_to(&target(&connection.service));
    let gates = last_calls::unknown(connection.headroom);
    let phase_bar = PhaseBar::on_stderr(flags.output.progress(), bars, Instant::now());
    let input = VerifyInput::open(&flags.input, &paths.results, phase_bar)?;
    // From here on there is something to be removed: a signal is heeded by the survey.
    let stops = signals::stops();
    let locked =
        flags.state.as_deref().map(|path| LockedState::take_existing(path, &target(&connection.service), &flags.connection)).transpose()?;
    let files = VerificationFiles::create(paths.clone(), input.original()?).map_err(|error| cannot_write(&paths, &error))?;
    let files = Reconciled::new(files, input.records()?.header().tags().cloned().collect(), locked);
    let limit = sandbox_limit(&connection);
    let client = build_client(&connection, SandboxLimits { imports: limit, profiles: limit })?;
    let gates = client.sharing(gates);
    let cannot_start = |error: io::Error| ExitMessage::new(Exit::Fatal, format!("cannot start: {error}"), "the same command begins anew");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot_start)?;
    columns::announce(input.records()?.header());
    announce(flags, &client, &paths);
    let admin = client.admin();
    let reach = Reach::new(&connection, &environment, Instant::now());
    let run = VerifyRun { flags, connection, admin, input, paths, seed: seed(flags)?, gates, began: Instant::now(), reach, page };
    let phase_bar = PhaseBar::on_stderr(flags.output.progress(), bars, Instant::now());
    runtime.block_on(run.carry_out(phase_bar, (files, client), stops))
}

/// A run about to read its input.
struct VerifyRun<'a> {
    flags: &'a VerifyFlags,
    connection: Connection,
    /// As whom calls are made.
    admin: UserId,
    input: VerifyInput<'a>,
    paths: VerificationPaths,
    /// Of the sample, if there is one.
    seed: Option<u64>,
    gates: gate::GateSettings,
    began: Instant,
    reach: Reach,
    page: PageWatch,
}

impl VerifyRun<'_> {
    async fn carry_out(
        self,
        mut phase_bar: PhaseBar,
        (files, client): (Reconciled, ServiceClient),
        mut stops: StopSeen,
    ) -> Result<Ended, ExitMessage> {
        let Some((plan, blank)) = self.survey(&mut phase_bar, &mut stops).await? else {
            return Err(ExitMessage::new(Exit::Stopped, "a signal came; nothing was asked", "the same command begins anew"));
        };
        self.ensure_something_to_compare(&plan)?;
        remedies::warn(&plan.shared);
        let ids = plan.to_ask;
        let page = self.page.clone();
        page.update(|page, _| page.set_rows(plan.rows()));
        let profiles = if self.flags.profiles { ProfileComparison::Compared } else { ProfileComparison::Left };
        let verification = Verification::new(self.input.records()?, plan, profiles, files);
        let mut watched = self.reach.clone();
        let on_progress = Box::new(move |requests: &Progress, verification: &Verification<Watched, Reconciled>| {
            watched.heed(requests.calls, &requests.phase, Instant::now());
            page.update(|page, _| {
                page.asks(requests, AskedSoFar { counts: verification.counts(), waiting: verification.waiting(), ids });
            });
            phase_bar.tell(
                (verification.counts().asked(), ids),
                &asking(verification.counts(), ids),
                &state_words(requests),
                Instant::now(),
            );
        });
        let word = match calls::run(client.dependencies(stops), (verification, on_progress), self.settings()).await {
            Ok(ended) => self.finish(ended),
            Err(CallsFailed { error, .. }) => Err(self.failed(error)),
        };
        input::tell_blank(blank);
        if input::is_cut(&self.input.source.file) {
            tracing::warn!("{}", input::CUT_WORDS);
        }
        word
    }

    /// Refuses a file without records, and a comparison of profiles where there are none to compare with.
    fn ensure_something_to_compare(&self, plan: &SurveyPlan) -> Result<(), ExitMessage> {
        if plan.rows() == 0 {
            let why = format!("{}: the file has a header and no rows", self.flags.input.file.display());
            return Err(ExitMessage::yours(why, "see whether the export is whole: there is nothing to ask about"));
        }
        if !self.flags.profiles || plan.ids == 0 || plan.profiles > 0 {
            return Ok(());
        }
        let why = format!("--profiles has nothing to compare: no row of {} has a Nick or a FaceUrl", self.flags.input.file.display());
        Err(ExitMessage::yours(
            why,
            "say with --map which columns they are, or leave --profiles out: then the accounts alone are looked for",
        ))
    }

    /// Reads the whole input once: what is asked about, and how many lines are blank; `None` if a signal came.
    async fn survey(&self, phase_bar: &mut PhaseBar, stops: &mut StopSeen) -> Result<Option<(SurveyPlan, u64)>, ExitMessage> {
        let bytes = self.input.source.stat.len;
        let records = self.input.records()?;
        let blank = records.blank_lines();
        let mut survey = Survey::new(records, Box::new(tempfile::tempfile));
        let failed = |error| survey_failed(&self.flags.input.file, error);
        while survey.read_some().map_err(failed)? == ReadProgress::GoesOn {
            phase_bar.tell((survey.at().offset, bytes), &counted(survey.at().rows, "row"), "reading", Instant::now());
            self.page.update(|page, now| page.plans(format!("reading the file, {}", counted(survey.at().rows, "row")), now));
            tokio::task::yield_now().await;
            if stops.next().now_or_never().is_some() {
                return Ok(None);
            }
        }
        let sample = self.flags.sample.zip(self.seed).map(|(ids, seed)| RandomSample { ids, seed });
        survey.finish(sample).map(|plan| Some((plan, blank.count()))).map_err(failed)
    }

    fn settings(&self) -> DispatchSettings {
        let rate = self.connection.rate;
        let rates = PerCommand::new(|command| {
            let documented = command.spec().calls_per_s;
            match rate {
                None => Rate::PerSecond(documented),
                Some(Rate::PerSecond(rate)) => Rate::PerSecond(rate.min(documented)),
                Some(Rate::Unlimited) => Rate::Unlimited,
            }
        });
        dispatch_settings(&self.connection, rates, self.gates.clone(), self.admin.clone())
    }

    fn finish(&self, ended: CallsOutcome<Verification<Watched, Reconciled>>) -> Result<Ended, ExitMessage> {
        let CallsOutcome { cause, source, traffic, unjudged } = ended;
        let (counts, plan, files) = source.finish().map_err(|error| cannot_write(&self.paths, &error))?;
        if cause.is_none() {
            self.input.ensure_unchanged(plan.end)?;
        }
        let has_repair = files.finish(cause.is_none(), |error| cannot_write(&self.paths, error))?;
        let not_asked = plan.ids - counts.asked();
        let repair = has_repair.then_some(self.paths.repair.as_path());
        let word = having_waited(self.last_word(cause.as_ref(), counts, not_asked, (repair, self.reach.advice_on(&traffic))), unjudged);
        let word = if cause.is_none() { self.input.source.with_news(word, &self.flags.input.file) } else { word };
        let (seed, elapsed) = (self.seed, self.began.elapsed());
        let verified = Verified { exit: word.exit, rows: plan.rows(), counts, not_asked, seed, traffic, elapsed };
        self.report(&verified, repair);
        Ok(Ended::with(word, Figures::of_verification(verified)))
    }

    fn last_word(
        &self,
        cause: Option<&AbortCause>,
        counts: FindingCounts,
        not_asked: u64,
        (repair, reach): (Option<&Path>, Option<&str>),
    ) -> ExitMessage {
        match cause {
            None => finished(counts, not_asked, repair.map(|repair| (repair, self.import_of(repair)))),
            Some(cause) => {
                let so_far = format!("{} asked, {} not", counted(counts.asked(), "UserID"), count(not_asked));
                aborted(cause, &so_far, AGAIN, reach)
            }
        }
    }

    /// The command that imports what is to be repaired.
    fn import_of(&self, repair: &Path) -> CommandLine {
        let flags = self.flags;
        let command = CommandLine::new("import").file(repair).reading_copy(&flags.input, repair, self.input.format.delimiter);
        let command = command.connection(&flags.connection);
        flags.state.as_deref().map_or(command.clone(), |state| command.with("state", state))
    }

    fn report(&self, verified: &Verified, repair: Option<&Path>) {
        if !self.flags.output.quiet {
            print_stderr(&VerifiedReport { verified, results: &self.paths.results, repair });
        }
    }

    fn failed(&self, error: Failed<io::Error>) -> ExitMessage {
        let file = &self.flags.input.file;
        match error {
            Failed::Input(error) => input::roster_error(file, &error),
            Failed::InputChanged => ExitMessage::yours(format!("{} was changed while it was read", file.display()), WHEN_WRITTEN),
            Failed::Findings(error) => cannot_write(&self.paths, &error),
        }
    }
}

fn asking(counts: FindingCounts, ids: u64) -> String {
    format!(
        "{} of {} asked, {} missing, {} different",
        count(counts.asked()),
        counted(ids, "UserID"),
        count(counts.missing),
        count(counts.differs)
    )
}

/// The names of the run's files; no two of them may be one, and those that are replaced must be files.
fn paths(flags: &VerifyFlags) -> Result<VerificationPaths, ExitMessage> {
    let file = &flags.input.file;
    if input::is_stream(file) && flags.results.is_none() {
        return Err(cannot_be_named_after(file));
    }
    let named = |given: &Option<PathBuf>, ending: &str| given.clone().unwrap_or_else(|| beside(file, ending));
    let results = named(&flags.results, ".verify.csv");
    let repair = if input::is_stream(file) {
        flags.repair.clone().unwrap_or_else(|| repair_of(&results))
    } else {
        named(&flags.repair, ".repair.csv")
    };
    let paths = VerificationPaths { results, repair };
    for own in [&paths.results, &paths.repair] {
        ensure_file(own, "name another with --results or --repair")?;
        ensure_name_fits(own, "give --results or --repair a shorter name")?;
    }
    // The results are made before the first request, the repair file with its first row.
    ensure_writable(Named::REPAIR, &paths.repair)?;
    let of_state: Vec<PathBuf> = flags.state.iter().flat_map(|state| state::names(state)).collect();
    let own = [&paths.results, &paths.repair].into_iter().chain(&of_state).map(|path| NamedFile::of(path));
    let all = own.chain([NamedFile::of_input(file)]);
    ensure_none_is_used([&paths.results, &paths.repair].into_iter(), &used_for(&flags.connection, &flags.ending))?;
    ensure_distinct(all, "input, results, repair file and state must be different files")?;
    Ok(paths)
}

/// The input: both passes read this one file, whatever takes its name.
struct VerifyInput<'a> {
    path: &'a Path,
    source: Rereadable,
    format: Format,
}

impl<'a> VerifyInput<'a> {
    fn open(flags: &'a InputFlags, results: &Path, phase_bar: PhaseBar) -> Result<Self, ExitMessage> {
        let source = Rereadable::open(flags, results, phase_bar)?;
        let format = input::as_it_is_read(&source.file, flags)?;
        Ok(Self { path: &flags.file, source, format })
    }

    /// Refuses a file that was truncated, rewritten or appended to after it was read to `end`: what has come was not asked.
    fn ensure_unchanged(&self, end: InputPosition) -> Result<(), ExitMessage> {
        let original = self.source.original.clone();
        original.map_or(Ok(()), |mut original| original.ensure_unchanged()).map_err(|error| input::roster_error(self.path, &error))?;
        let mut watch = Watch::new(self.source.file.clone(), self.format.dialect(), self.source.stat);
        match watch.look_through((end.offset, end.digest)).map_err(|error| input::roster_error(self.path, &error))? {
            Look::Same | Look::Comparing => Ok(()),
            Look::Grown => {
                Err(ExitMessage::yours(format!("{}: it has grown while it was being verified", self.path.display()), WHEN_WRITTEN))
            }
        }
    }

    /// How the repair file is written.
    fn original(&self) -> Result<OriginalFormat, ExitMessage> {
        Ok(OriginalFormat { header: self.records()?.header().names.clone(), delimiter: self.format.delimiter })
    }

    /// From its start.
    fn records(&self) -> Result<Watched, ExitMessage> {
        let Rereadable { file, stat, .. } = &self.source;
        let roster = Roster::of(file, &self.format).map_err(|error| input::roster_error(self.path, &error))?;
        Ok(Watched::new(roster, file.clone(), *stat))
    }
}

/// The mock service's limits are the documented ones, or none.
fn sandbox_limit(connection: &Connection) -> Rate {
    match connection.rate {
        Some(Rate::Unlimited) => Rate::Unlimited,
        Some(Rate::PerSecond(_)) | None => Rate::PerSecond(wire::ACCOUNT_IMPORT_CALLS_PER_S),
    }
}

fn seed(flags: &VerifyFlags) -> Result<Option<u64>, ExitMessage> {
    let draw = || {
        let drawn = getrandom::u32().map(u64::from);
        drawn.map_err(|_| ExitMessage::new(Exit::Fatal, "no source of random numbers", "give a number with --seed"))
    };
    flags.sample.map(|_| flags.seed.map_or_else(draw, Ok)).transpose()
}

fn announce(flags: &VerifyFlags, client: &ServiceClient, paths: &VerificationPaths) {
    let what = if flags.profiles { "accounts and profiles" } else { "accounts" };
    tracing::info!("comparing {what} of {} with {}; results: {}", flags.input.file.display(), client.target, paths.results.display());
}

fn survey_failed(file: &Path, error: SurveyError) -> ExitMessage {
    match error {
        SurveyError::Input(error) => input::roster_error(file, &error),
        error @ SurveyError::Sort(_) => {
            ExitMessage::new(Exit::Fatal, causes(&error), "free some space there (24 bytes per row), or set TMPDIR to another folder")
        }
    }
}

fn cannot_write(paths: &VerificationPaths, error: &io::Error) -> ExitMessage {
    let denied = why_denied(&paths.results, error);
    let why = format!("cannot write {} or {}: {error}{denied}", paths.results.display(), paths.repair.display());
    if error.kind() == io::ErrorKind::ResourceBusy {
        let locks = [&paths.results, &paths.repair].map(|path| aside(path).unwrap_or_else(|_| path.clone()));
        return busy(why, &[&locks[0], &locks[1]], "the results of a verification");
    }
    let place = "check the folder and its permissions, or name other files with --results and --repair";
    cannot_use(why, error, Remedies { place, disk: "make room there; the same command begins anew" })
}

fn all_same(same: u64) -> String {
    match same {
        0 => "there is no UserID to compare".to_owned(),
        1 => "the one UserID is the same".to_owned(),
        same => format!("all {} are the same", counted(same, "UserID")),
    }
}

fn finished(counts: FindingCounts, not_asked: u64, repair: Option<(&Path, CommandLine)>) -> ExitMessage {
    let rest = if not_asked > 0 { format!(", {} not asked", count(not_asked)) } else { String::new() };
    if counts.is_all_same() {
        return ExitMessage::new(Exit::Done, format!("{}{rest}", all_same(counts.same)), "nothing is left to do");
    }
    let FindingCounts { same, missing, differs, unknown, invalid } = counts;
    let why = format!(
        "{} of {} are the same, {} missing, {} different, {} unknown, {} invalid{rest}",
        count(same),
        counted(counts.asked() + invalid, "UserID"),
        count(missing),
        count(differs),
        count(unknown),
        count(invalid)
    );
    let hint = match repair {
        Some((repair, command)) => format!("{} has the rows of missing and different accounts: {command}", repair.display()),
        None if unknown > 0 => "the results say why; the same command asks again".to_owned(),
        None => "the results say why; correct the rows and import them".to_owned(),
    };
    ExitMessage::new(Exit::SomeRowsRejected, why, hint)
}
