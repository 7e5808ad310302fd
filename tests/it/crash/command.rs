//! The journal's part of `chatlift import`: lock, examine, open, append, commit, finish.

use std::time::Duration;

use chatlift::io::journal::checkpoint::Checkpoint;
use chatlift::io::journal::disk::Disk;
use chatlift::io::journal::paths::RunPaths;
use chatlift::io::journal::{self, DiskError, Journal, OpenError, OutcomeSink, Restart, StartDecision};

use super::input::{Fortune, Input};
use super::oracle::{Broken, Oracle, now, promise};

/// The most rows of one commit. Chosen.
const COMMIT_ROWS_MAX: u64 = 5;

/// A command line, and the course of its run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Command<'a> {
    pub(crate) paths: &'a RunPaths,
    pub(crate) input: &'a Input,
    pub(crate) restart: Restart,
    pub(crate) fortune: Fortune,
    /// Stop after at least this many rows of this process, as after a signal.
    pub(crate) limit: Option<u64>,
}

/// How a process ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    NothingToDo,
    Finished,
    Stopped,
    DiskFailed(String),
}

enum Failure {
    Disk(DiskError),
    Broken(Broken),
}

impl From<DiskError> for Failure {
    fn from(error: DiskError) -> Self {
        Failure::Disk(error)
    }
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        Failure::Broken(broken)
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Disk(error) => Failure::Disk(error),
            OpenError::Locked { .. }
            | OpenError::NoCheckpoint { .. }
            | OpenError::NoResults { .. }
            | OpenError::Checkpoint { .. }
            | OpenError::OtherCommand { .. }
            | OpenError::OtherTarget { .. }
            | OpenError::OtherColumns { .. }
            | OpenError::OtherFiles { .. }
            | OpenError::InputChanged { .. }
            | OpenError::ResultsChanged { .. }
            | OpenError::Input(_) => Failure::Broken(Broken(format!("refused: {error}"))),
        }
    }
}

impl Command<'_> {
    /// Runs the command in a process of its own, which sees the disk through `mount`.
    pub(crate) fn carry_out<D: Disk>(
        self,
        mount: &impl Fn() -> D,
        oracle: &mut Oracle,
        chance: &mut fastrand::Rng,
    ) -> Result<Ending, Broken> {
        match self.attempt(mount, oracle, chance) {
            Ok(ending) => Ok(ending),
            Err(Failure::Disk(error)) => Ok(Ending::DiskFailed(format!("{error}: {}", error.source))),
            Err(Failure::Broken(broken)) => Err(broken),
        }
    }

    fn attempt<D: Disk>(self, mount: &impl Fn() -> D, oracle: &mut Oracle, chance: &mut fastrand::Rng) -> Result<Ending, Failure> {
        let disk = mount();
        let lock = lock(&disk, self.paths)?;
        let compare = |checkpoint: &Checkpoint| Ok(self.input.compare(checkpoint.settled));
        let plan = journal::examine(&disk, self.paths, &self.input.claim(), self.restart, compare)?;
        oracle.planned(&plan, self.restart, self.input)?;
        let way = match plan {
            StartDecision::Finished { .. } => return Ok(Ending::NothingToDo),
            StartDecision::Run(way) => way,
        };
        let journal = journal::open(way, (disk, lock), self.paths.clone(), self.input.claim(), now())?;
        oracle.opened(self.input);
        self.write(journal, mount, oracle, chance)
    }

    fn write<D: Disk>(
        self,
        mut journal: Journal<D>,
        mount: &impl Fn() -> D,
        oracle: &mut Oracle,
        chance: &mut fastrand::Rng,
    ) -> Result<Ending, Failure> {
        let first = journal.settled().rows;
        loop {
            for _ in 0..chance.u64(1..=COMMIT_ROWS_MAX) {
                let Some((settled, line)) = self.input.settle(journal.settled().rows, self.fortune, chance) else {
                    oracle.finishes();
                    journal.finish()?;
                    oracle.finished(journal.counts())?;
                    return Ok(Ending::Finished);
                };
                journal.buffer(settled);
                oracle.appends(line);
            }
            journal.commit()?;
            oracle.committed();
            if chance.u8(..4) == 0 {
                keeps_others_out(mount, self.paths)?;
            }
            if self.limit.is_some_and(|limit| journal.settled().rows - first >= limit) {
                return Ok(Ending::Stopped);
            }
        }
    }
}

/// Takes the lock. A child process of another test holds a copy of a released lock until it runs its program, so this may take several
/// tries.
pub(super) fn lock<D: Disk>(disk: &D, paths: &RunPaths) -> Result<D::Lock, OpenError> {
    const TRIES: usize = 200;
    for _ in 0..TRIES {
        match journal::lock(disk, paths) {
            Err(OpenError::Locked { .. }) => std::thread::park_timeout(Duration::from_millis(5)),
            taken => return taken,
        }
    }
    journal::lock(disk, paths)
}

/// A second process must find the files locked.
fn keeps_others_out<D: Disk>(mount: &impl Fn() -> D, paths: &RunPaths) -> Result<(), Broken> {
    let second = journal::lock(&mount(), paths);
    promise!(second.is_err(), "two processes are at work at once");
    Ok(())
}
