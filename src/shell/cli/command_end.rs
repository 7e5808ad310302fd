//! The end of every command: what is written, said and called once it is over and all its locks are released.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use super::atomic::Readers;
use super::flags::{CommandWords, ConnectionFlags, EndFlags, ImportFlags, PageFlags, RunFlags, SyncFlags, VerifyFlags};
use super::lanes::asked_lane;
use super::on_end::OnEndCall;
use super::output_paths::is_own_output;
use super::page::{PageShow, PageWatch};
use super::page_subject;
use super::pipe::HeldPipe;
use super::{atomic, input, notify, signals, small};
use crate::domain::guard::Guard;
use crate::flow::import::Lane;
use crate::io::files::resolved;
use crate::io::journal::paths::{GivenPaths, RunPaths, beside};
use crate::io::state::{self, StateDb};
use crate::shell::exit::{Exit, ExitMessage};
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
    summary: Option<PathBuf>,
    metrics: Option<PathBuf>,
    on_end: Option<Vec<String>>,
    page_flags: PageFlags,
    page: PageShow,
    /// Of which the accounts are counted for the metrics.
    state: Option<PathBuf>,
    /// The other files of the command, which nothing may be written over.
    others: Vec<PathBuf>,
    is_quiet: bool,
    began: Instant,
    pipe: Mutex<HeldPipe>,
}

impl EndSteps {
    pub(super) fn of_import(flags: &ImportFlags) -> Self {
        let steps = Self::of_run("import", &flags.run, flags.state.as_deref());
        // A dry run is a check, which has none.
        let summary = flags.run.summary.clone().filter(|_| !flags.run.dry_run);
        let nothing_done = Figures::of_no_import(asked_lane(&flags.run));
        let page = if flags.run.dry_run {
            PageShow::nothing()
        } else {
            PageShow::new(&flags.run.page, page_subject::of_import(flags, &steps.job), &nothing_done)
        };
        Self { nothing_done, summary, page, ..steps }
    }

    pub(super) fn of_sync(flags: &SyncFlags) -> Self {
        let mut steps = Self::of_run("sync", &flags.run, Some(&flags.state));
        steps.others.extend(flags.plan.clone());
        let nothing_done = Figures::of_no_sync(asked_lane(&flags.run));
        let page = PageShow::new(&flags.run.page, page_subject::of_sync(flags, &steps.job), &nothing_done);
        Self { nothing_done, page, ..steps }
    }

    fn of_run(command: &'static str, flags: &RunFlags, state: Option<&Path>) -> Self {
        let given = GivenPaths { results: flags.results.clone(), rejects: flags.rejects.clone(), checkpoint: flags.checkpoint.clone() };
        let mut others = RunPaths::new(&flags.input.file, given).everything().to_vec();
        others.push(flags.input.file.clone());
        others.extend(of_connection(&flags.connection));
        others.extend(state.into_iter().flat_map(state::names));
        Self {
            command,
            nothing_done: Figures::of_no_import(Lane::Single),
            may_succeed: if flags.dry_run || flags.limit.is_some() { Success::No } else { Success::Yes },
            job: job(&flags.ending, &flags.input.file, flags.results.as_deref()),
            summary: flags.summary.clone(),
            metrics: flags.ending.metrics_file.clone(),
            on_end: on_end(&flags.ending),
            page_flags: flags.page.clone(),
            page: PageShow::nothing(),
            state: state.map(Path::to_owned),
            others,
            is_quiet: flags.output.quiet,
            began: Instant::now(),
            pipe: Mutex::default(),
        }
    }

    pub(super) fn of_verify(flags: &VerifyFlags) -> Self {
        let file = &flags.input.file;
        let named = |given: &Option<PathBuf>, ending: &str| given.clone().unwrap_or_else(|| beside(file, ending));
        let mut others = vec![file.clone(), named(&flags.results, ".verify.csv"), named(&flags.repair, ".repair.csv")];
        others.extend(of_connection(&flags.connection));
        others.extend(flags.state.iter().flat_map(|state| state::names(state)));
        let (job, nothing_done) = (job(&flags.ending, file, flags.results.as_deref()), Figures::of_no_verification());
        let page = PageShow::new(&flags.page, page_subject::of_verify(flags, &job), &nothing_done);
        Self {
            command: "verify",
            nothing_done,
            may_succeed: Success::Yes,
            job,
            summary: flags.summary.clone(),
            metrics: flags.ending.metrics_file.clone(),
            on_end: on_end(&flags.ending),
            page_flags: flags.page.clone(),
            page,
            state: flags.state.clone(),
            others,
            is_quiet: flags.output.quiet,
            began: Instant::now(),
            pipe: Mutex::default(),
        }
    }

    /// Runs a command. Its steps are also taken if a signal ends it before it handles signals itself.
    pub(super) fn after(self, command: impl FnOnce(&Self) -> Result<Ended, Ended>) -> CommandEnd {
        let steps = Arc::new(self);
        let early = Arc::clone(&steps);
        signals::at_early_end(Box::new(move |word| early.carry_out(word.into(), signals::print_in_time).and_then(|call| call.successor())));
        let begun = steps.report_is_no_others().and_then(|()| steps.page.begin(&steps.page_flags)).map_err(Ended::from);
        let ended = begun.and_then(|()| command(&steps)).unwrap_or_else(|ended| ended);
        CommandEnd { ended, steps: Some(steps) }
    }

    /// What keeps the page of the command up to date.
    pub(super) fn page(&self) -> PageWatch {
        self.page.watch()
    }

    /// Opens the summary's file if it is a pipe, so that its reader waits for the end.
    ///
    /// # Errors
    /// An [`ExitMessage`] (exit code 2) if nobody reads it.
    pub(super) fn hold_pipe(&self) -> Result<(), ExitMessage> {
        let held = HeldPipe::open(self.summary.as_deref())?;
        *self.pipe.lock().unwrap_or_else(PoisonError::into_inner) = held;
        Ok(())
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
            state_accounts: self.metrics.as_ref().and_then(|_| self.state_accounts()),
            elapsed: self.began.elapsed(),
            ended_at: SystemTime::now(),
            success: if is_success { Success::Yes } else { Success::No },
        }
    }

    fn write_summary(&self, summary: &EndSummary) {
        let Some(path) = self.summary.as_deref() else { return };
        let written = self.is_not_anothers(path).and_then(|()| {
            let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
            if !pipe.is_open() {
                // A command that was refused early has not looked for its reader yet.
                *pipe = HeldPipe::open(Some(path)).map_err(|word| std::io::Error::other(word.why))?;
            }
            let written = atomic::write_text(path, &summary.to_json());
            // Its reader need not wait for what comes after.
            *pipe = HeldPipe::default();
            written
        });
        if let Err(error) = written {
            tracing::error!("cannot write the summary {}: {error}", path.display());
        }
    }

    fn state_accounts(&self) -> Option<u64> {
        // A state that can't be read has been told of, or is nobody's fault now.
        StateDb::find(self.state.as_deref()?).ok().flatten()?.account_count().ok()
    }

    fn write_metrics(&self, summary: &EndSummary) {
        let Some(path) = self.metrics.as_deref() else { return };
        let written = self.is_not_anothers(path).and_then(|()| {
            // Where there is none yet, or it isn't text, there is nothing to be kept.
            let before = small::read(path).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
            let metrics = Metrics::new(summary, &before).to_string();
            atomic::write(path, Readers::Everybody, |out| out.write_all(metrics.as_bytes()))
        });
        if let Err(error) = written {
            tracing::error!("cannot write the metrics {}: {error}", path.display());
        }
    }

    /// Writes the page as it is at the end, and returns its path if that worked.
    fn write_report(&self, word: &ExitMessage, summary: &EndSummary) -> Option<PathBuf> {
        self.page.watch().update(|page, now| page.ends(word, summary, now));
        self.page.end();
        let path = self.page.report_path()?;
        let written = self.is_not_anothers(path).and_then(|()| self.page.write_report());
        match written {
            Ok(()) => Some(path.to_owned()),
            Err(error) => {
                tracing::error!("cannot write the report {}: {error}", path.display());
                None
            }
        }
    }

    /// Refuses a report that would replace another file of the command, before the first one is written.
    fn report_is_no_others(&self) -> Result<(), ExitMessage> {
        match self.page.report_path().filter(|path| self.is_not_anothers(path).is_err()) {
            Some(path) => {
                let why = format!("{} is named for two files at once", resolved(path).display());
                Err(ExitMessage::yours(why, "name another file with --report"))
            }
            None => Ok(()),
        }
    }

    /// Refuses to write over another file of the command: it may have been refused for just that.
    fn is_not_anothers(&self, path: &Path) -> std::io::Result<()> {
        let own = resolved(path);
        let is_anothers = !is_own_output(path) && self.others.iter().any(|other| resolved(other) == own);
        if is_anothers { Err(std::io::Error::other("it is another file of this command")) } else { Ok(()) }
    }
}

/// The files that the connection flags name.
fn of_connection(flags: &ConnectionFlags) -> impl Iterator<Item = PathBuf> + use<> {
    let named = [&flags.secret_key_file, &flags.ca_file, &flags.proxy_password_file, &flags.config].map(Clone::clone);
    named.into_iter().flatten()
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
