//! The page of a command: what keeps it up to date, serves it (`--status`) and writes it (`--report`).

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::atomic::{self, Readers};
use super::flags::PageFlags;
use crate::domain::target::{SANDBOX, Target};
use crate::io::journal;
use crate::io::journal::disk::OsDisk;
use crate::io::journal::paths::RunPaths;
use crate::io::roster::{Format, InputFile, Roster};
use crate::shell::exit::ExitMessage;
use crate::shell::page::server::{Anywhere, Hosts, SharedPage, StatusServer, locked};
use crate::shell::page::{Audience, Reasons, ReportExamples, RunPage, Subject, html};
use crate::shell::screen::end_summary::Figures;

/// How often a report is written while the run lasts. Source: the contract of the report.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// When the first one is written, so that nobody takes the report of an earlier run for this one's. Chosen: a run that is refused at once, or
/// finds another process at work, has ended by then.
const FIRST_REPORT_AFTER: Duration = Duration::from_secs(10);

/// A thread that has not written its report by then is held up by the end of the process. Chosen: results of some 100 MB are read by then.
const HELD_UP_AFTER: Duration = if cfg!(test) { Duration::from_millis(20) } else { Duration::from_secs(5) };
/// How often to look whether it has. Chosen: nobody notices it.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Keeps the page up to date, if anybody wants one.
#[derive(Debug, Clone, Default)]
pub(super) struct PageWatch(Option<SharedPage>);

impl PageWatch {
    /// Changes the page.
    pub(super) fn update(&self, change: impl FnOnce(&mut RunPage, Instant)) {
        if let Some(page) = &self.0 {
            // Whoever waits for the lock notes what was true before.
            let now = Instant::now();
            change(&mut locked(page), now);
        }
    }

    /// Says where the run goes to.
    pub(super) fn goes_to(&self, target: &Target) {
        let Target { endpoint, sdkappid, .. } = target;
        let words = if endpoint == SANDBOX { "the sandbox, a mock service".to_owned() } else { format!("app {sdkappid} at {endpoint}") };
        self.update(|page, _| page.target = Some(words));
    }

    /// Counts the rows of the input on another thread, which may take longer than the run is willing to wait.
    pub(super) fn count_rows(&self, (file, format): (&InputFile, &Format)) {
        if self.0.is_none() {
            return;
        }
        let (watch, file, format) = (self.clone(), file.clone(), format.clone());
        let counted = move || {
            // An input that can't be read as one is the run's to tell.
            if let Ok(rows) = Roster::of(&file, &format).and_then(Roster::count_rest) {
                watch.update(|page, _| page.set_rows(rows));
            }
        };
        // Without another thread the number stays unknown.
        let _ = std::thread::Builder::new().name("rows".to_owned()).spawn(counted);
    }
}

/// Where a report reads what was rejected.
#[derive(Debug, Clone)]
pub(super) struct ResultsOfRun {
    pub(super) results: PathBuf,
    /// `None` where the results have their name only at the end.
    pub(super) run: Option<RunPaths>,
}

/// What shows the page of a command; it does so until its end.
pub(super) struct PageShow {
    watch: PageWatch,
    server: Mutex<Option<StatusServer>>,
    report: Option<Arc<ReportFile>>,
    /// Writes the report every minute, until this is dropped.
    minutes: Mutex<Option<Minutes>>,
}

impl PageShow {
    /// `report` is where the report goes; `figures` are those of a command that did nothing.
    pub(super) fn new(
        (flags, report): (&PageFlags, Option<&Path>),
        (subject, results): (Subject, ResultsOfRun),
        figures: &Figures,
    ) -> Self {
        if flags.status.is_none() && report.is_none() {
            return Self::nothing();
        }
        let page = RunPage::new(subject, figures.clone(), (Instant::now(), SystemTime::now()));
        let page = Arc::new(Mutex::new(page));
        let examples = if flags.report_anonymous { ReportExamples::LeftOut } else { ReportExamples::Shown };
        let report = report.map(|path| {
            let ResultsOfRun { results, run } = results;
            let reasons = Mutex::new(Reasons::of(results.clone()));
            Arc::new(ReportFile { path: path.to_owned(), examples, page: Arc::clone(&page), results, run, reasons })
        });
        Self { watch: PageWatch(Some(page)), server: Mutex::default(), report, minutes: Mutex::default() }
    }

    /// For a command that shows none.
    pub(super) fn nothing() -> Self {
        Self { watch: PageWatch::default(), server: Mutex::default(), report: None, minutes: Mutex::default() }
    }

    pub(super) fn watch(&self) -> PageWatch {
        self.watch.clone()
    }

    /// Begins to serve the page, and to write it: soon, and then every minute.
    ///
    /// # Errors
    /// An [`ExitMessage`] (exit code 2) if the address can't be had, or is one that is not allowed.
    pub(super) fn begin(&self, flags: &PageFlags) -> Result<(), ExitMessage> {
        if let Some((page, address)) = self.watch.0.as_ref().zip(flags.status) {
            if !address.ip().is_loopback() && !flags.status_anywhere {
                let why = format!("--status {address}: other machines could reach this address, and the page has no login");
                return Err(ExitMessage::yours(why, "take a loopback address such as 127.0.0.1, or add --status-anywhere"));
            }
            let anywhere = if flags.status_anywhere { Anywhere::Allowed } else { Anywhere::No };
            let hosts = Hosts { address: address.ip(), anywhere, names: flags.status_host.clone() };
            let server = StatusServer::start(address, hosts, Arc::clone(page)).map_err(|error| {
                ExitMessage::yours(format!("--status: cannot listen on {address}: {error}"), "name another port with --status")
            })?;
            *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
        }
        if let Some(report) = &self.report {
            *self.minutes.lock().unwrap_or_else(PoisonError::into_inner) =
                Minutes::begin(Arc::clone(report), (FIRST_REPORT_AFTER, REPORT_EVERY));
        }
        Ok(())
    }

    /// Says where the page is.
    pub(super) fn announce(&self) {
        if let Some(server) = &*self.server.lock().unwrap_or_else(PoisonError::into_inner) {
            tracing::info!("the page of this run: http://{}/", server.address());
        }
    }

    /// Stops serving and writing: what is written from now on is written last.
    pub(super) fn end(&self) {
        drop(self.minutes.lock().unwrap_or_else(PoisonError::into_inner).take());
        drop(self.server.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Writes the report, if there is to be one.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn write_report(&self) -> std::io::Result<()> {
        self.report.as_ref().map_or(Ok(()), |report| report.write(Completeness::Whole))
    }
}

/// Whether the results are complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Completeness {
    /// The run writes to them.
    Growing,
    Whole,
}

/// The file of `--report`.
struct ReportFile {
    path: PathBuf,
    examples: ReportExamples,
    page: SharedPage,
    results: PathBuf,
    run: Option<RunPaths>,
    reasons: Mutex<Reasons>,
}

impl ReportFile {
    fn write(&self, results: Completeness) -> std::io::Result<()> {
        let (mut known, mut read_anew);
        let reasons = if let Some(reasons) = self.reasons_in_time() {
            known = reasons;
            &mut *known
        } else {
            read_anew = Reasons::of(self.results.clone());
            &mut read_anew
        };
        let snapshot = locked(&self.page).clone();
        // A command that has rejected nothing may have found the results of another run.
        if snapshot.rejected() > 0
            && let Err(error) = self.read_on(reasons, results)
        {
            tracing::warn!("the report lacks examples: {error}");
        }
        let audience = Audience::File { reasons: (snapshot.rejected() > 0).then_some(&*reasons), examples: self.examples };
        let html = html(&snapshot, audience, Instant::now());
        atomic::write(&self.path, Readers::Owner, |out| out.write_all(html.as_bytes()))
    }

    /// What was read so far; `None` if a thread keeps it that was held up by the end of the process.
    fn reasons_in_time(&self) -> Option<MutexGuard<'_, Reasons>> {
        let began = Instant::now();
        loop {
            match self.reasons.try_lock() {
                Ok(reasons) => return Some(reasons),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if began.elapsed() >= HELD_UP_AFTER => return None,
                Err(TryLockError::WouldBlock) => std::thread::park_timeout(LOOK_EVERY),
            }
        }
    }

    fn read_on(&self, reasons: &mut Reasons, results: Completeness) -> std::io::Result<()> {
        match (results, &self.run) {
            (Completeness::Whole, _) => reasons.read_on(None),
            // What is committed is complete.
            (Completeness::Growing, Some(paths)) => match journal::read_checkpoint(&OsDisk, paths) {
                Some(checkpoint) => reasons.read_on(Some(checkpoint.results.len)),
                None => Ok(()),
            },
            (Completeness::Growing, None) => Ok(()),
        }
    }
}

/// A thread that writes the report again and again. Dropping it ends it.
struct Minutes {
    stop: Option<Sender<()>>,
    /// Closed by the thread when it ends.
    ended: Receiver<()>,
}

impl Minutes {
    /// `None` if there is no thread to be had: the report is written at the end then.
    fn begin(report: Arc<ReportFile>, (first_after, every): (Duration, Duration)) -> Option<Self> {
        let (stop, stopped) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let write = move || {
            let _end = end;
            let mut after = first_after;
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(after) {
                after = every;
                if let Err(error) = report.write(Completeness::Growing) {
                    tracing::warn!("cannot write the report {}: {error}", report.path.display());
                }
            }
        };
        std::thread::Builder::new().name("report".to_owned()).spawn(write).ok()?;
        Some(Self { stop: Some(stop), ended })
    }
}

impl Drop for Minutes {
    fn drop(&mut self) {
        self.stop.take();
        // When a signal ends the process, a thread that was about to make a file is held up for good. It is not waited for then.
        let _ = self.ended.recv_timeout(HELD_UP_AFTER);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::domain::outcome::OutcomeCounts;
    use crate::flow::import::Lane;
    use crate::shell::screen::progress::Start;

    /// The report of a run that has rejected a row, whose results lie in this folder.
    fn report(folder: &Path, results: &str) -> Arc<ReportFile> {
        let subject = Subject { command: "import", job: String::new(), input: "u.csv".to_owned(), files: Vec::new(), commands: Vec::new() };
        let mut page = RunPage::new(subject, Figures::of_no_import(Lane::Single), (Instant::now(), SystemTime::now()));
        page.begins(Start::default(), OutcomeCounts { failed: 1, ..OutcomeCounts::default() }, Instant::now());
        let path = folder.join("u.results.csv");
        std::fs::write(&path, results).unwrap();
        let reasons = Mutex::new(Reasons::of(path.clone()));
        let (report, page) = (folder.join("r.html"), Arc::new(Mutex::new(page)));
        Arc::new(ReportFile { path: report, examples: ReportExamples::Shown, page, results: path, run: None, reasons })
    }

    const RESULTS: &str = "row,line,UserID,status,error_code,error_info,attempts,finished_at\n1,2,ada,failed,70402,no,1,T\n";

    #[test]
    fn a_report_is_written_again_and_again_until_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let report = report(folder.path(), RESULTS);
        let minutes = Minutes::begin(Arc::clone(&report), (Duration::ZERO, Duration::from_millis(5))).unwrap();
        for _ in 0..2 {
            while !report.path.exists() {
                std::thread::park_timeout(LOOK_EVERY);
            }
            std::fs::remove_file(&report.path).unwrap();
        }
        drop(minutes);
        report.write(Completeness::Whole).unwrap();
        let html = std::fs::read_to_string(&report.path).unwrap();
        assert!(html.contains("1 failed: code 70402") && html.contains("<code>ada</code>"), "{html}");
        assert_eq!(std::fs::metadata(&report.path).unwrap().permissions().mode() & 0o777, 0o600);
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }

    #[test]
    fn a_change_that_waits_for_the_page_has_the_time_before_it_waited() {
        let folder = tempfile::tempdir().unwrap();
        let page = Arc::clone(&report(folder.path(), RESULTS).page);
        let watch = PageWatch(Some(Arc::clone(&page)));
        // The thread may be held up before it asks for the time, but not each time.
        let has_time_before = || {
            let held = locked(&page);
            std::thread::scope(|scope| {
                let (noted, note) = mpsc::channel();
                let watch = &watch;
                scope.spawn(move || watch.update(|_, now| noted.send(now).unwrap()));
                std::thread::park_timeout(Duration::from_millis(5));
                let released = Instant::now();
                drop(held);
                note.recv().unwrap() <= released
            })
        };
        assert!((0..200).any(|_| has_time_before()));
    }

    #[test]
    fn the_last_report_does_without_a_thread_that_is_held_up() {
        let folder = tempfile::tempdir().unwrap();
        let report = report(folder.path(), RESULTS);
        let held = report.reasons.lock().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| report.write(Completeness::Whole).unwrap()).join().unwrap();
        });
        drop(held);
        assert!(std::fs::read_to_string(&report.path).unwrap().contains("<code>ada</code>"));
    }
}
