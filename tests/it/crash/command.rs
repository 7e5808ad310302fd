//! The command as `chatlift import` carries it out, as far as the journal is concerned: lock, examine, open, append, commit, finish.

use std::time::Duration;

use chatlift::io::journal::checkpoint::Checkpoint;
use chatlift::io::journal::disk::Disk;
use chatlift::io::journal::paths::RunPaths;
use chatlift::io::journal::{self, DiskError, Journal, OpenError, OutcomeSink, Restart, StartDecision};

use super::input::{Fortune, Input};
use super::oracle::{Broken, Witness, now, promise};

/// Most rows that are committed at once. Chosen.
const COMMIT_ROWS_MAX: u64 = 5;

/// A command line, and how it goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Command<'a> {
    pub(crate) paths: &'a RunPaths,
    pub(crate) input: &'a Input,
    pub(crate) restart: Restart,
    pub(crate) fortune: Fortune,
    /// Stop after at least so many rows of this process, as on a signal.
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
            | OpenError::OtherWork { .. }
            | OpenError::OtherTarget { .. }
            | OpenError::OtherReading { .. }
            | OpenError::OtherFiles { .. }
            | OpenError::InputChanged { .. }
            | OpenError::SheetChanged { .. }
            | OpenError::Input(_) => Failure::Broken(Broken(format!("refused: {error}"))),
        }
    }
}

impl Command<'_> {
    /// Carries it out in a process of its own, which sees the disk through `mount`.
    pub(crate) fn carry_out<D: Disk>(
        self,
        mount: &impl Fn() -> D,
        witness: &mut Witness,
        chance: &mut fastrand::Rng,
    ) -> Result<Ending, Broken> {
        match self.attempt(mount, witness, chance) {
            Ok(ending) => Ok(ending),
            Err(Failure::Disk(error)) => Ok(Ending::DiskFailed(format!("{error}: {}", error.source))),
            Err(Failure::Broken(broken)) => Err(broken),
        }
    }

    fn attempt<D: Disk>(self, mount: &impl Fn() -> D, witness: &mut Witness, chance: &mut fastrand::Rng) -> Result<Ending, Failure> {
        let disk = mount();
        let lock = lock(&disk, self.paths)?;
        let compare = |checkpoint: &Checkpoint| Ok(self.input.compare(checkpoint.settled));
        let plan = journal::examine(&disk, self.paths, &self.input.claim(), self.restart, compare)?;
        witness.planned(&plan, self.restart, self.input)?;
        let way = match plan {
            StartDecision::Finished { .. } => return Ok(Ending::NothingToDo),
            StartDecision::Run(way) => way,
        };
        let journal = journal::open(way, (disk, lock), self.paths.clone(), self.input.claim(), now())?;
        witness.opened(self.input);
        self.write(journal, mount, witness, chance)
    }

    fn write<D: Disk>(
        self,
        mut journal: Journal<D>,
        mount: &impl Fn() -> D,
        witness: &mut Witness,
        chance: &mut fastrand::Rng,
    ) -> Result<Ending, Failure> {
        let first = journal.settled().rows;
        loop {
            for _ in 0..chance.u64(1..=COMMIT_ROWS_MAX) {
                let Some((settled, line)) = self.input.settle(journal.settled().rows, self.fortune, chance) else {
                    witness.finishes();
                    journal.finish()?;
                    witness.finished(journal.tally())?;
                    return Ok(Ending::Finished);
                };
                journal.append(settled);
                witness.appends(line);
            }
            journal.commit()?;
            witness.committed();
            if chance.u8(..4) == 0 {
                keeps_others_out(mount, self.paths)?;
            }
            if self.limit.is_some_and(|limit| journal.settled().rows - first >= limit) {
                return Ok(Ending::Stopped);
            }
        }
    }
}

/// Takes the lock. A process that another test starts holds a copy of a lock that was just given up, until it becomes its program.
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

/// A second process finds the files locked.
fn keeps_others_out<D: Disk>(mount: &impl Fn() -> D, paths: &RunPaths) -> Result<(), Broken> {
    let second = journal::lock(&mount(), paths);
    promise!(second.is_err(), "two processes are at work at once");
    Ok(())
}
