//! `chatlift sync`: turns flags into a job, runs `flow::sync` on it, and says what came of it.
//!
//! Until the guards agree, it writes only unnamed temporary files and two lock files.

mod job;
mod planned;
mod report;
mod watch;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Instant as Stopwatch, SystemTime};

use futures_util::StreamExt;
use indicatif::MultiProgress;

use super::client::{ServiceClient, build_client, target};
use super::command_end::{CommandEnd, EndSteps, Ended};
use super::flags::SyncFlags;
use super::preflight::{Admission, EmptyFile, OddFile};
use super::signals::Leftover;
use super::source::{Source, SourceSettings};
use super::state_file::{LockedState, new_identity};
use super::{input, last_calls, log, notify, run};
use crate::domain::guard::Guard;
use crate::flow::import::ImportEnd;
use crate::flow::sync::{self, Dependencies, Intent, Locks, Prepared, Ready, Setup, SharedObserver, SyncInput};
use crate::io::api::http::HttpApi;
use crate::io::files::lock::Lockfile;
use crate::io::journal::LastCalls;
use crate::shell::exit::ExitMessage;
use crate::shell::screen::bars;
use crate::shell::screen::end_summary::Figures;
use job::SyncJob;
use watch::SyncWatch;

/// Runs the sync that the flags ask for.
pub(super) fn run(flags: &SyncFlags) -> CommandEnd {
    let bars = bars::on_stderr();
    log::install(&flags.run.output, &bars).expect("this process installs no other subscriber");
    notify::begin("sync: reading the input");
    EndSteps::of_sync(flags).after(|steps| {
        let job = SyncJob::of(flags, steps)?;
        let last_calls = LastCalls::find(&job.paths.lock());
        Session::begin(&job, &bars)?.carry_out(last_calls)
    })
}

/// What keeps other processes off the run and off the state.
struct HeldLocks {
    run: Lockfile,
    state: LockedState,
    _leftover: Option<Leftover>,
}

impl HeldLocks {
    fn take(job: &SyncJob) -> Result<Self, ExitMessage> {
        let (run, leftover) = run::lock(&job.paths)?;
        Ok(Self { run, state: LockedState::take(&job.state)?, _leftover: leftover })
    }
}

/// A sync with its input open.
struct Session<'a> {
    job: &'a SyncJob<'a>,
    runtime: tokio::runtime::Runtime,
    /// Of a dry run: none, it changes nothing.
    locks: Option<HeldLocks>,
    source: Source,
    input: SyncInput,
    watch: Rc<RefCell<SyncWatch>>,
}

impl<'a> Session<'a> {
    fn begin(job: &'a SyncJob, bars: &MultiProgress) -> Result<Self, ExitMessage> {
        let runtime = run::runtime("the same command resumes")?;
        let locks = if job.intent == Intent::DryRun { None } else { Some(HeldLocks::take(job)?) };
        // A file without records is a guard's, and a finished sync never stands for the next.
        let admission = Admission { max_invalid: job.typed.max_invalid, empty: EmptyFile::Allowed, odd: OddFile::Told, ..Admission::USUAL };
        let lock = locks.as_ref().map(|locks| &locks.run);
        let source = Source::new(&SourceSettings { lock, flags: job.typed, paths: &job.paths, admission, bars, stands: &|_| false })?;
        let (file, stat) = source.open()?;
        let is_allowed = stat.len == 0 && job.guard_limits.allowed.contains(&Guard::Empty);
        let format = if is_allowed { input::without_records(&job.typed.input) } else { input::as_it_is_read(&file, &job.typed.input)? };
        let input = SyncInput { path: source.named().to_owned(), original: source.original().cloned(), file, stat, format };
        let watch = Rc::new(RefCell::new(SyncWatch::new(job, bars, stat.len)));
        Ok(Self { job, runtime, locks, source, input, watch })
    }

    /// Plans or resumes, whichever it is.
    fn carry_out(mut self, last_calls: LastCalls) -> Result<Ended, Ended> {
        let mut prepared = sync::prepare(self.setup()).map_err(|error| report::error_word(self.job, &error))?;
        let (client, planned_blank) = match &mut prepared {
            Prepared::Resume(unfinished) => {
                self.job.page.update(|page, _| page.resumes_plan(unfinished.plan()));
                (self.client()?, 0)
            }
            Prepared::Plan(plan) => {
                planned::tell_and_guard(self.job, plan)?;
                (self.client()?, plan.blank_lines())
            }
        };
        // From here on a signal finds a run that it can stop.
        self.watch.borrow_mut().stops();
        let Some(HeldLocks { run, state, _leftover }) = self.locks.take() else { unreachable!("a dry run ends with its plan") };
        let locks = Locks { run, state: state.lock() };
        let ready = match prepared {
            Prepared::Resume(unfinished) => unfinished.resume(locks),
            Prepared::Plan(mut plan) => {
                // Standard input is kept for the run, under a name that lasts.
                if self.source.keep()? {
                    let file = &self.job.typed.input.file;
                    plan.input_was_renamed().map_err(|error| input::roster_error(file, &error.into()))?;
                }
                plan.commit(locks)
            }
        };
        if self.watch.borrow().is_begun() {
            self.source.begins();
        }
        let ready = ready.map_err(|error| report::error_word(self.job, &error))?;
        Ok(self.send(ready, client, (last_calls, planned_blank)))
    }

    /// Sends what is planned, and tells what came of it.
    fn send(mut self, ready: Ready, client: ServiceClient, (last_calls, planned_blank): (LastCalls, u64)) -> Ended {
        let began = Stopwatch::now();
        self.announce(&ready, &client);
        let dependencies = self.dependencies(Rc::new(client), last_calls);
        let mut report = self.runtime.block_on(ready.run(dependencies));
        report.blank_lines = report.blank_lines.max(planned_blank);
        self.watch.borrow_mut().clear();
        let mut word = report::last_word_on(self.job, &report, &self.watch.borrow().reach);
        if matches!(report.end, Ok(ImportEnd::Finished)) {
            word = self.source.with_news(word, &self.input.file);
            self.source.discard_copies();
        }
        let summary = report::tell(self.job, &word, report, began.elapsed());
        Ended::with(word, Figures::of(summary))
    }

    fn setup(&self) -> Setup {
        let job = self.job;
        Setup {
            state: job.state.clone(),
            paths: job.paths.clone(),
            input: self.input.clone(),
            target: target(&job.connection.service),
            missing: job.missing.clone(),
            canaries: job.canaries.clone(),
            max_invalid: job.typed.max_invalid,
            restart: job.restart,
            intent: job.intent,
            limit: job.typed.limit,
            began_at: job.began_at,
            wall: Rc::new(SystemTime::now),
            draw: new_identity,
            observer: Rc::clone(&self.watch) as SharedObserver,
        }
    }

    fn client(&self) -> Result<ServiceClient, ExitMessage> {
        build_client(&self.job.connection, self.job.lanes.sandbox_limits())
    }

    fn announce(&self, ready: &Ready, client: &ServiceClient) {
        let (lane, from) = (run::lane_words(self.job.lanes.lane), run::resumed_words(ready.start().rows));
        let (file, target, results) = (self.job.typed.input.file.display(), &client.target, self.job.paths.results.display());
        tracing::info!("syncing {file} into {target}{lane}{from}; results: {results}");
    }

    fn dependencies(&self, client: Rc<ServiceClient>, last_calls: LastCalls) -> Dependencies<Rc<HttpApi>> {
        let SyncJob { connection, lanes, .. } = self.job;
        let gates = client.sharing(last_calls::gates(last_calls, connection.headroom));
        let stops = self.watch.borrow_mut().stops();
        Dependencies {
            api: client.api.clone(),
            settings: lanes.settings(connection, gates, client.admin()),
            signer: Box::new(move || client.signer()),
            jitter: fastrand::f64,
            signals: Box::new(move || stops.clone().boxed_local()),
            ahead: None,
        }
    }
}
