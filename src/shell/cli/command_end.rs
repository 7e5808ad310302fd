//! The end of every command: what is written, said and called once it is over and all its locks are released.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use super::atomic::Readers;
use super::flags::{CommandWords, EndFlags, ImportFlags, PageFlags, RunFlags, SyncFlags, VerifyFlags};
use super::lanes::asked_lane;
use super::on_end::OnEndCall;
use super::outputs::{JudgedOutputs, NamedOutputs, OutputKind, used_for};
use super::page::{PageShow, PageWatch, ResultsOfRun};
use super::page_subject;
use super::settings::Connection;
use super::{atomic, input, notify, pipe, run, signals, small_file};
use crate::domain::guard::Guard;
use crate::io::journal::paths::beside;
use crate::io::state::{self, StateDb};
use crate::shell::exit::{Exit, ExitMessage};
use crate::shell::page::Subject;
use crate::shell::screen::end_summary::{EndSummary, Figures, Success};
use crate::shell::screen::metrics::Metrics;

/// How a command ended.
pub(super) struct Ended {
    pub(super) word: ExitMessage,
    /// `None` if it ended before there were any.
    pub(super) figures: Option<Figures>,
    /// The safety checks that failed.
    pub(super) tripped: Vec<Guard>,
}

impl Ended {
    pub(super) fn with(word: ExitMessage, figures: Figures) -> Self {
        Self { figures: Some(figures), ..Self::from(word) }
    }
}

impl From<ExitMessage> for Ended {
    fn from(word: ExitMessage) -> Self {
        // A safety check that fails without a plan is the one against the state of another app.
        let tripped = if word.exit == Exit::Guarded { vec![Guard::Target] } else { Vec::new() };
        Self { word, figures: None, tripped }
    }
}

/// A command that is over, with what is still to be done.
pub(super) struct CommandEnd {
    ended: Ended,
    /// `None` for a command that only says its last word.
    steps: Option<Arc<EndSteps>>,
}

impl From<ExitMessage> for CommandEnd {
    fn from(word: ExitMessage) -> Self {
        Self { ended: word.into(), steps: None }
    }
}

impl CommandEnd {
    /// Does what is to be done at the end, and returns the exit code.
    pub(super) fn conclude(self) -> Exit {
        let exit = self.ended.word.exit;
        signals::end_begins();
        notify::ends();
        match self.steps {
            Some(steps) => {
                let call = steps.carry_out(self.ended, super::say);
                call.into_iter().for_each(OnEndCall::make);
            }
            None => super::say(&self.ended.word),
        }
        exit
    }
}

/// What is to be done at the end of a command, whatever becomes of it.
pub(super) struct EndSteps {
    command: &'static str,
    /// The figures of a command that did nothing.
    nothing_done: Figures,
    /// Whether it may count as a success.
    may_succeed: Success,
    job: String,
    outputs: JudgedOutputs,
    on_end: Option<Vec<String>>,
    page_flags: PageFlags,
    page: PageShow,
    /// Of which the accounts are counted for the metrics.
    state: Option<PathBuf>,
    is_quiet: bool,
    began: Instant,
    pipe: Mutex<SummaryPipe>,
}

/// The summary's file, if it is a pipe.
#[derive(Debug, Default)]
enum SummaryPipe {
    #[default]
    NotOpened,
    Opened(#[expect(dead_code, reason = "its reader waits while it is open")] Option<File>),
    /// Nobody reads it, which is said already.
    Refused,
}

impl EndSteps {
    pub(super) fn of_import(flags: &ImportFlags) -> Self {
        // A dry run is a check, which has no summary.
        let summary = flags.run.summary.as_deref().filter(|_| !flags.run.dry_run);
        let nothing_done = Figures::of_no_import(asked_lane(&flags.run));
        let steps = Self::of_run(("import", nothing_done), &flags.run, flags.state.as_deref(), (summary, None));
        steps.shown(|steps| page_subject::of_import(flags, &steps.job))
    }

    pub(super) fn of_sync(flags: &SyncFlags) -> Self {
        let given = (flags.run.summary.as_deref(), flags.plan.as_deref());
        let nothing_done = Figures::of_no_sync(asked_lane(&flags.run));
        let steps = Self::of_run(("sync", nothing_done), &flags.run, Some(&flags.state), given);
        steps.shown(|steps| page_subject::of_sync(flags, &steps.job))
    }

    fn of_run(
        (command, nothing_done): (&'static str, Figures),
        flags: &RunFlags,
        state: Option<&Path>,
        (summary, plan): (Option<&Path>, Option<&Path>),
    ) -> Self {
        let mut others = flags.files.paths(&flags.input.file).everything().to_vec();
        others.push(flags.input.file.clone());
        others.extend(used_for(&flags.connection, &flags.ending));
        others.extend(state.into_iter().flat_map(state::names));
        let (ending, page) = (&flags.ending, &flags.page);
        let outputs = NamedOutputs::beside(others).and(OutputKind::SUMMARY, summary).and(OutputKind::PLAN, plan);
        Self {
            command,
            nothing_done,
            may_succeed: if flags.dry_run || flags.limit.is_some() { Success::No } else { Success::Yes },
            job: job(ending, &flags.input.file, flags.files.results.as_deref()),
            outputs: judged(outputs, ending, page),
            on_end: on_end(ending),
            page_flags: page.clone(),
            page: PageShow::nothing(),
            state: state.map(Path::to_owned),
            is_quiet: flags.output.quiet,
            began: Instant::now(),
            pipe: Mutex::default(),
        }
    }

    pub(super) fn of_verify(flags: &VerifyFlags) -> Self {
        let file = &flags.input.file;
        let named = |given: &Option<PathBuf>, ending: &str| given.clone().unwrap_or_else(|| beside(file, ending));
        let mut others = vec![file.clone(), named(&flags.results, ".verify.csv"), named(&flags.repair, ".repair.csv")];
        others.extend(used_for(&flags.connection, &flags.ending));
        others.extend(flags.state.iter().flat_map(|state| state::names(state)));
        let (ending, page) = (&flags.ending, &flags.page);
        let steps = Self {
            command: "verify",
            nothing_done: Figures::of_no_verification(),
            may_succeed: Success::Yes,
            job: job(ending, file, flags.results.as_deref()),
            outputs: judged(NamedOutputs::beside(others).and(OutputKind::SUMMARY, flags.summary.as_deref()), ending, page),
            on_end: on_end(ending),
            page_flags: page.clone(),
            page: PageShow::nothing(),
            state: flags.state.clone(),
            is_quiet: flags.output.quiet,
            began: Instant::now(),
            pipe: Mutex::default(),
        };
        steps.shown(|steps| page_subject::of_verify(flags, &steps.job))
    }

    /// With a page about `subject`, if one is wanted.
    fn shown(self, subject: impl FnOnce(&Self) -> (Subject, ResultsOfRun)) -> Self {
        let report = self.outputs.path(OutputKind::REPORT);
        let page = PageShow::new((&self.page_flags, report), subject(&self), &self.nothing_done);
        Self { page, ..self }
    }

    /// Runs a command. Its steps are also taken if a signal ends it before it handles signals itself.
    pub(super) fn after(self, command: impl FnOnce(&Self) -> Result<Ended, Ended>) -> CommandEnd {
        let steps = Arc::new(self);
        let early = Arc::clone(&steps);
        signals::at_early_end(Box::new(move |word| early.carry_out(word.into(), signals::print_in_time).and_then(|call| call.successor())));
        let begun = steps.outputs.all_usable().and_then(|()| steps.hold_pipe()).and_then(|()| steps.page.begin(&steps.page_flags));
        let ended = begun.map_err(Ended::from).and_then(|()| command(&steps)).unwrap_or_else(|ended| ended);
        CommandEnd { ended, steps: Some(steps) }
    }

    /// What keeps the page of the command up to date.
    pub(super) fn page(&self) -> PageWatch {
        self.page.watch()
    }

    /// Says in the first line of a run that it goes to the real service, if it does, and then where the run can be seen.
    pub(super) fn announce(&self, connection: &Connection) {
        if let Some(words) = run::real_service(connection) {
            tracing::info!("{words}");
        }
        self.announce_page();
    }

    /// Says where a command can be seen that sends nothing.
    pub(super) fn announce_page(&self) {
        self.page.announce();
    }

    /// Opens the summary's file if it is a pipe, so that its reader waits for the end. A signal need not wait for that.
    ///
    /// # Errors
    /// An [`ExitMessage`] (exit code 2) if nobody reads it.
    fn hold_pipe(&self) -> Result<(), ExitMessage> {
        let (pipe, held) = match pipe::hold(self.outputs.path(OutputKind::SUMMARY)) {
            Ok(pipe) => (SummaryPipe::Opened(pipe), Ok(())),
            Err(word) => (SummaryPipe::Refused, Err(word)),
        };
        *self.pipe.lock().unwrap_or_else(PoisonError::into_inner) = pipe;
        held
    }

    /// Writes the files, then says the last word with `say`, and returns the call that is still to be made.
    fn carry_out(&self, ended: Ended, say: impl FnOnce(&ExitMessage)) -> Option<OnEndCall> {
        let Ended { word, figures, tripped } = ended;
        let summary = self.summary_of(word.exit, figures, tripped);
        // The files are those of the process that is at work.
        let mut report = None;
        if word.exit != Exit::Busy {
            self.write_summary(&summary);
            self.write_metrics(&summary);
            report = self.write_report(&word, &summary);
        }
        self.page.end();
        let word = if self.is_quiet && word.exit == Exit::Done { ExitMessage::done("") } else { word };
        say(&word);
        let words = self.on_end.clone()?;
        let (outcome, command) = (summary.outcome().to_owned(), self.command.to_owned());
        Some(OnEndCall { words, exit_code: word.exit.code(), outcome, command, report, summary: summary.to_json() })
    }

    fn summary_of(&self, exit: Exit, figures: Option<Figures>, tripped: Vec<Guard>) -> EndSummary {
        let is_success = self.may_succeed == Success::Yes && matches!(exit, Exit::Done | Exit::SomeRowsRejected);
        EndSummary {
            command: self.command,
            job: self.job.clone(),
            exit,
            figures: figures.unwrap_or_else(|| self.nothing_done.clone().ended(exit)),
            tripped,
            state_accounts: self.outputs.path(OutputKind::METRICS).and_then(|_| self.state_accounts()),
            elapsed: self.began.elapsed(),
            ended_at: SystemTime::now(),
            success: if is_success { Success::Yes } else { Success::No },
        }
    }

    fn write_summary(&self, summary: &EndSummary) {
        let Some(path) = self.outputs.path(OutputKind::SUMMARY) else { return };
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = match *pipe {
            SummaryPipe::Refused => return,
            SummaryPipe::Opened(_) => Ok(()),
            // A signal came before anybody has looked for its reader.
            SummaryPipe::NotOpened => pipe::hold(Some(path)).map(|held| *pipe = SummaryPipe::Opened(held)),
        };
        let opened = opened.map_err(|word| word.why);
        let cannot = |error: std::io::Error| format!("cannot write the summary {}: {error}", path.display());
        if let Err(why) = opened.and_then(|()| atomic::write_text(path, &summary.to_json()).map_err(cannot)) {
            tracing::error!("{why}");
        }
        // Its reader need not wait for what comes after.
        *pipe = SummaryPipe::Opened(None);
    }

    fn state_accounts(&self) -> Option<u64> {
        // A state that can't be read has been told of, or is nobody's fault now.
        StateDb::find(self.state.as_deref()?).ok().flatten()?.account_count().ok()
    }

    fn write_metrics(&self, summary: &EndSummary) {
        let Some(path) = self.outputs.path(OutputKind::METRICS) else { return };
        // Where there is none yet, or it isn't text, there is nothing to be kept.
        let before = small_file::read(path).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        let metrics = Metrics::new(summary, &before).to_string();
        if let Err(error) = atomic::write(path, Readers::Everybody, |out| out.write_all(metrics.as_bytes())) {
            tracing::error!("cannot write the metrics {}: {error}", path.display());
        }
    }

    /// Writes the page as it is at the end, and returns its path if that worked.
    fn write_report(&self, word: &ExitMessage, summary: &EndSummary) -> Option<PathBuf> {
        self.page.watch().update(|page, now| page.ends(word, summary, now));
        self.page.end();
        let path = self.outputs.path(OutputKind::REPORT)?;
        match self.page.write_report() {
            Ok(()) => Some(path.to_owned()),
            Err(error) => {
                tracing::error!("cannot write the report {}: {error}", path.display());
                None
            }
        }
    }
}

/// The outputs of a command with those that every command may have.
fn judged(outputs: NamedOutputs, ending: &EndFlags, page: &PageFlags) -> JudgedOutputs {
    outputs.and(OutputKind::METRICS, ending.metrics_file.as_deref()).and(OutputKind::REPORT, page.report.as_deref()).judged()
}

fn on_end(flags: &EndFlags) -> Option<Vec<String>> {
    flags.on_end.clone().map(|CommandWords(words)| words)
}

/// The name of the job: as given, or the input's, or that of the results of standard input.
fn job(flags: &EndFlags, file: &Path, results: Option<&Path>) -> String {
    if let Some(job) = &flags.job {
        return job.clone();
    }
    let named = if input::is_stdin(file) { results.unwrap_or(file) } else { file };
    let stem = beside(named, "");
    stem.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
