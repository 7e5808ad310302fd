//! The oracle remembers what the command has reported, and checks that it stays true whatever happens to the machine.

use std::path::Path;
use std::time::{Duration, SystemTime};

use chatlift::domain::outcome::OutcomeCounts;
use chatlift::domain::position::InputPosition;
use chatlift::io::journal::checkpoint::Checkpoint;
use chatlift::io::journal::paths::{RunPaths, stamp};
use chatlift::io::journal::{RESULTS_HEADER, Restart, StartDecision, StartMode};

use super::input::{Input, Line, REJECTS_HEADER};

/// Reads a file; `None` if it does not exist.
pub(crate) type Read<'a> = &'a dyn Fn(&Path) -> Option<Vec<u8>>;

/// The number of dated names that are checked. Chosen: more than any case creates.
const STAMPS: u32 = 40;

/// A broken promise, in words.
#[derive(Debug)]
pub(crate) struct Broken(pub(crate) String);

/// Returns a broken promise unless the condition holds.
macro_rules! promise {
    ($holds:expr, $($words:tt)+) => {
        if !$holds {
            return Err($crate::crash::oracle::Broken(format!($($words)+)));
        }
    };
}
pub(crate) use promise;

/// The time of every process, so that all dated names have the same time.
pub(crate) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

/// The reports about the runs on these files.
#[derive(Debug, Clone, Default)]
pub(crate) struct Oracle {
    run: Option<Run>,
    /// A run whose files are being renamed to backups.
    leaving: Option<Run>,
    relics: Vec<Relic>,
    openings: u32,
}

/// A run from its first process to its last.
#[derive(Debug, Clone)]
struct Run {
    input_end: InputPosition,
    /// The lines that were appended, including those of the last attempt.
    lines: Vec<Line>,
    /// The number of lines that were reported as committed.
    committed_lines: usize,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    /// It was not reported whether the run is finished.
    Unknown,
    Finished,
}

/// A file that was renamed to a backup and must be found under a dated name.
#[derive(Debug, Clone)]
enum Relic {
    Run(Run),
    Foreign { of: fn(&RunPaths) -> &Path, bytes: Vec<u8> },
}

impl Oracle {
    /// A file exists that belongs to no run.
    pub(crate) fn knows_foreign(&mut self, of: fn(&RunPaths) -> &Path, bytes: &[u8]) {
        self.relics.push(Relic::Foreign { of, bytes: bytes.to_vec() });
    }

    /// The user has changed the files, so earlier reports no longer count.
    pub(crate) fn forgets_run(&mut self) {
        self.run = None;
    }

    /// The number of journals that were opened.
    pub(crate) fn openings(&self) -> u32 {
        self.openings
    }

    /// A command has decided how to start.
    pub(crate) fn planned(&mut self, plan: &StartDecision, restart: Restart, input: &Input) -> Result<(), Broken> {
        match plan {
            StartDecision::Finished { counts } => self.found_finished(*counts, restart, input),
            StartDecision::Run(StartMode::Afresh) => {
                promise!(self.run.is_none(), "a run was forgotten");
                self.relics.extend(self.leaving.take().map(Relic::Run));
                Ok(())
            }
            StartDecision::Run(StartMode::SetAside) => self.found_to_set_aside(restart, input),
            StartDecision::Run(StartMode::GoOnSettingAside { .. }) => {
                self.leaving = self.leaving.take().or(self.run.take());
                Ok(())
            }
            StartDecision::Run(StartMode::Resume { checkpoint, .. }) => self.found_unfinished(checkpoint),
        }
    }

    fn found_finished(&mut self, counts: OutcomeCounts, restart: Restart, input: &Input) -> Result<(), Broken> {
        self.stays();
        let Some(run) = &mut self.run else { return Err(Broken("nothing was done and all is finished".to_owned())) };
        promise!(restart == Restart::No, "a restart was not carried out");
        promise!(run.end != End::Open, "a run is finished that was not");
        promise!(run.input_end == input.end(), "more input, and all is finished");
        promise!(run.counts() == counts, "finished with {counts:?}, it was {:?}", run.counts());
        run.committed_lines = run.lines.len();
        run.end = End::Finished;
        Ok(())
    }

    fn found_to_set_aside(&mut self, restart: Restart, input: &Input) -> Result<(), Broken> {
        if let Some(run) = &self.run {
            let has_changed = run.end != End::Open && run.input_end != input.end();
            promise!(restart == Restart::Asked || has_changed, "a run is set aside without need");
        }
        self.leaving = self.leaving.take().or(self.run.take());
        Ok(())
    }

    fn found_unfinished(&mut self, checkpoint: &Checkpoint) -> Result<(), Broken> {
        let rows = usize::try_from(checkpoint.settled.rows).expect("inputs of tests are small");
        match &self.leaving {
            Some(leaving) if rows >= leaving.committed_lines && leaving.committed_lines > 0 => self.stays(),
            Some(_) => self.relics.extend(self.leaving.take().map(Relic::Run)),
            None => {}
        }
        let Some(run) = &mut self.run else {
            promise!(rows == 0, "a run goes on after {rows} rows that nobody wrote");
            return Ok(());
        };
        promise!(run.end != End::Finished, "a finished run is unfinished again");
        promise!(rows >= run.committed_lines, "{} rows were committed, {rows} are left", run.committed_lines);
        promise!(rows <= run.lines.len(), "{rows} rows, only {} were written", run.lines.len());
        run.lines.truncate(rows);
        run.end = End::Open;
        promise!(run.counts() == checkpoint.counts, "the counts are {:?}, they were {:?}", checkpoint.counts, run.counts());
        Ok(())
    }

    /// The files that were to be renamed stay.
    fn stays(&mut self) {
        if let Some(leaving) = self.leaving.take() {
            self.run = Some(leaving);
        }
    }

    /// The journal is open, so the run must not be lost from now on.
    pub(crate) fn opened(&mut self, input: &Input) {
        self.openings += 1;
        self.relics.extend(self.leaving.take().map(Relic::Run));
        let run = self.run.get_or_insert_with(|| Run { input_end: input.end(), lines: Vec::new(), committed_lines: 0, end: End::Open });
        run.input_end = input.end();
        run.committed_lines = run.lines.len();
    }

    pub(crate) fn appends(&mut self, line: Line) {
        self.open_run().lines.push(line);
    }

    pub(crate) fn committed(&mut self) {
        let run = self.open_run();
        run.committed_lines = run.lines.len();
    }

    pub(crate) fn finishes(&mut self) {
        self.open_run().end = End::Unknown;
    }

    pub(crate) fn finished(&mut self, counts: OutcomeCounts) -> Result<(), Broken> {
        let run = self.open_run();
        promise!(run.counts() == counts, "the counts are {counts:?}, they should be {:?}", run.counts());
        run.committed_lines = run.lines.len();
        run.end = End::Finished;
        Ok(())
    }

    fn open_run(&mut self) -> &mut Run {
        self.run.as_mut().expect("a journal is open")
    }

    /// Checks the files between processes: everything that was reported as committed must be on the disk.
    pub(crate) fn checks_committed(&self, read: Read<'_>, paths: &RunPaths) -> Result<(), Broken> {
        let Some(run) = &self.run else { return Ok(()) };
        let starts_with = |path: &Path, start: &str| read(path).unwrap_or_default().starts_with(start.as_bytes());
        promise!(starts_with(&paths.results, &run.results(run.committed_lines)), "committed results are gone");
        promise!(starts_with(&paths.rejects, &run.rejects(run.committed_lines).unwrap_or_default()), "committed rejects are gone");
        Ok(())
    }

    /// Checks the files at the end: exactly the expected lines must be on the disk.
    pub(crate) fn checks_all(&self, read: Read<'_>, paths: &RunPaths) -> Result<(), Broken> {
        let Some(run) = &self.run else { return Err(Broken("there was no run".to_owned())) };
        let rows = run.lines.len();
        same("results", read(&paths.results).as_deref(), Some(&run.results(rows)))?;
        same("rejects", read(&paths.rejects).as_deref(), run.rejects(rows).as_deref())?;
        self.relics.iter().try_for_each(|relic| relic.check(read, paths))
    }
}

fn same(what: &str, found: Option<&[u8]>, expected: Option<&str>) -> Result<(), Broken> {
    let found = found.map(String::from_utf8_lossy);
    let found = found.as_deref();
    promise!(found == expected, "the {what} are\n{found:?}, they should be\n{expected:?}");
    Ok(())
}

impl Run {
    fn results(&self, rows: usize) -> String {
        std::iter::once(RESULTS_HEADER).chain(self.lines[..rows].iter().map(|line| line.result.as_str())).collect()
    }

    fn rejects(&self, rows: usize) -> Option<String> {
        let lines: String = self.lines[..rows].iter().filter_map(|line| line.reject.as_deref()).collect();
        (!lines.is_empty()).then(|| format!("{REJECTS_HEADER}{lines}"))
    }

    fn counts(&self) -> OutcomeCounts {
        let mut counts = OutcomeCounts::default();
        self.lines.iter().for_each(|line| counts.count(line.status));
        counts
    }

    /// Whether `kept`, the files under one dated name, are those of this run.
    fn is(&self, read: Read<'_>, kept: &RunPaths) -> bool {
        let Some(found_results) = read(&kept.results) else { return false };
        if read(&kept.checkpoint).is_none() {
            return false;
        }
        let (results, rejects) = (self.results(self.committed_lines), self.rejects(self.committed_lines));
        let found_rejects = read(&kept.rejects);
        match self.end {
            End::Finished => found_results == results.as_bytes() && found_rejects.as_deref() == rejects.as_deref().map(str::as_bytes),
            End::Open | End::Unknown => {
                found_results.starts_with(results.as_bytes())
                    && found_rejects.unwrap_or_default().starts_with(rejects.unwrap_or_default().as_bytes())
            }
        }
    }
}

impl Relic {
    fn check(&self, read: Read<'_>, paths: &RunPaths) -> Result<(), Broken> {
        let mut dated = (0..STAMPS).map(|number| paths.dated(&stamp(now(), number)));
        match self {
            Relic::Run(run) => promise!(dated.any(|kept| run.is(read, &kept)), "a run that was set aside is gone: {run:?}"),
            Relic::Foreign { of, bytes } => {
                let is_kept = dated.any(|kept| read(of(&kept)).as_ref() == Some(bytes));
                promise!(is_kept, "a file that was not ours is gone");
            }
        }
        Ok(())
    }
}
