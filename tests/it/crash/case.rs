//! One case: the files of an earlier run, a command that is interrupted at one operation, and the same command again until it is done.

use std::path::{Path, PathBuf};

use chatlift::io::journal::checkpoint::Checkpoint;
use chatlift::io::journal::disk::Disk;
use chatlift::io::journal::paths::{GivenPaths, RunPaths};
use chatlift::io::journal::{self, OpenError, RESULTS_HEADER, Restart, StartDecision};

use super::command::{Command, Ending};
use super::input::{Fortune, Input};
use super::machine::{Interruption, Machine, Stop};
use super::oracle::{Broken, Oracle, promise};

/// The variable that selects one case of a scenario, to repeat it.
pub(crate) const SEED_VARIABLE: &str = "CHATLIFT_SEED";
/// The most further interruptions of a case. Chosen.
const MORE_STOPS_MAX: u8 = 3;
/// The most processes of a case. Chosen: more than interruptions and stops can make.
const PROCESSES_MAX: usize = 30;

/// The state before the command, drawn from a seed.
#[derive(Debug)]
pub(crate) struct Scenario {
    seed: u64,
    machine: Machine,
    paths: RunPaths,
    input: Input,
    oracle: Oracle,
    restart: Restart,
    /// The restart flag of the command when a run is open.
    restart_again: Restart,
    fortune: Fortune,
    /// The number of operations of an uninterrupted command.
    operations: u64,
}

/// The state that an earlier run left.
#[derive(Debug, Clone, Copy)]
enum Earlier {
    Nothing,
    ForeignRejects,
    Stopped,
    Finished,
    /// Results and rejects whose checkpoint was removed by the user.
    Orphaned,
    /// Results and rejects whose checkpoint was damaged.
    Spoiled,
}

/// The change of the input since then.
#[derive(Debug, Clone, Copy)]
enum Since {
    Same,
    Touched,
    Appended,
    Replaced,
}

const STORIES: [(Earlier, Since, Restart); 14] = [
    (Earlier::Nothing, Since::Same, Restart::No),
    (Earlier::Nothing, Since::Same, Restart::Asked),
    (Earlier::ForeignRejects, Since::Same, Restart::No),
    (Earlier::Stopped, Since::Same, Restart::No),
    (Earlier::Stopped, Since::Touched, Restart::No),
    (Earlier::Stopped, Since::Appended, Restart::No),
    (Earlier::Stopped, Since::Replaced, Restart::Asked),
    (Earlier::Finished, Since::Touched, Restart::No),
    (Earlier::Finished, Since::Appended, Restart::No),
    (Earlier::Finished, Since::Replaced, Restart::No),
    (Earlier::Finished, Since::Replaced, Restart::No),
    (Earlier::Finished, Since::Same, Restart::Asked),
    (Earlier::Orphaned, Since::Same, Restart::Asked),
    (Earlier::Spoiled, Since::Replaced, Restart::Asked),
];

impl Scenario {
    /// Draws the state, and runs the earlier run on the disk that `mount` returns.
    pub(crate) fn new<D: Disk>(seed: u64, mount: &impl Fn(&Machine, &RunPaths) -> D) -> Result<Self, Broken> {
        let mut chance = fastrand::Rng::with_seed(seed);
        let (earlier, since, restart) = STORIES[chance.usize(..STORIES.len())];
        let fortune = match chance.u8(..8) {
            0..3 => Fortune::Good,
            3..7 => Fortune::Mixed,
            _ => Fortune::Wordy,
        };
        let records = if chance.u8(..16) == 0 { chance.u64(..40) } else { chance.u64(..9) };
        let mut scenario = Self {
            seed,
            machine: Machine::new(seed),
            paths: paths(&mut chance),
            input: Input::new(records, &mut chance),
            oracle: Oracle::default(),
            restart,
            restart_again: if chance.bool() { restart } else { Restart::No },
            fortune,
            operations: 0,
        };
        scenario.live_through(earlier, mount, &mut chance)?;
        scenario.input = match since {
            Since::Same => scenario.input,
            Since::Touched => scenario.input.touched(&mut chance),
            Since::Appended => scenario.input.appended(chance.u64(1..5), &mut chance),
            Since::Replaced => Input::new(chance.u64(..10), &mut chance),
        };
        scenario.operations = scenario.count_operations(mount)?;
        Ok(scenario)
    }

    fn live_through<D: Disk>(
        &mut self,
        earlier: Earlier,
        mount: &impl Fn(&Machine, &RunPaths) -> D,
        chance: &mut fastrand::Rng,
    ) -> Result<(), Broken> {
        let limit = match earlier {
            Earlier::Nothing => return Ok(()),
            Earlier::ForeignRejects => {
                self.machine.place(&self.paths.rejects, b"mine");
                self.oracle.knows_foreign(|paths| &paths.rejects, b"mine");
                return Ok(());
            }
            Earlier::Stopped => Some(chance.u64(..=self.input.rows())),
            Earlier::Finished | Earlier::Orphaned | Earlier::Spoiled => None,
        };
        let command = Command { limit, ..self.command(Restart::No) };
        let mut oracle = self.oracle.clone();
        command.carry_out(&|| mount(&self.machine, &self.paths), &mut oracle, chance)?;
        self.oracle = oracle;
        self.orphan(earlier);
        Ok(())
    }

    /// Removes or damages files of the earlier run as users do.
    fn orphan(&mut self, earlier: Earlier) {
        let checkpoint = &self.paths.checkpoint;
        match earlier {
            Earlier::Nothing | Earlier::ForeignRejects | Earlier::Stopped | Earlier::Finished => return,
            Earlier::Orphaned => self.machine.discard(checkpoint),
            Earlier::Spoiled => {
                self.machine.discard(checkpoint);
                self.machine.place(checkpoint, b"{}");
                self.oracle.knows_foreign(|paths| &paths.checkpoint, b"{}");
            }
        }
        let files: [fn(&RunPaths) -> &Path; 2] = [|paths| &paths.results, |paths| &paths.rejects];
        for of in files {
            // Results with only the header are no loss.
            if let Some(bytes) = self.machine.bytes(of(&self.paths)).filter(|bytes| bytes != RESULTS_HEADER.as_bytes()) {
                self.oracle.knows_foreign(of, &bytes);
            }
        }
        self.oracle.forgets_run();
    }

    fn command(&self, restart: Restart) -> Command<'_> {
        Command { paths: &self.paths, input: &self.input, restart, fortune: self.fortune, limit: None }
    }

    fn count_operations<D: Disk>(&self, mount: &impl Fn(&Machine, &RunPaths) -> D) -> Result<u64, Broken> {
        let machine = self.machine.duplicate(self.seed);
        machine.start(None);
        let mut oracle = self.oracle.clone();
        let mut chance = fastrand::Rng::with_seed(self.seed);
        self.command(self.restart).carry_out(&|| mount(&machine, &self.paths), &mut oracle, &mut chance)?;
        Ok(machine.operations())
    }

    /// The number of cases: an interruption at each operation and after the last one, in each way.
    pub(crate) fn cases(&self) -> u64 {
        (self.operations + 1) * Interruption::ALL.len() as u64
    }

    /// Runs one of the cases.
    pub(crate) fn check<D: Disk>(&self, number: u64, mount: &impl Fn(&Machine, &RunPaths) -> D) -> Result<(), Broken> {
        let ways = Interruption::ALL.len() as u64;
        let how = Interruption::ALL[usize::try_from(number % ways).expect("there are few ways")];
        let machine = self.machine.duplicate(self.seed ^ number.rotate_left(32));
        let life = Life {
            mount: &|| mount(&machine, &self.paths),
            paths: &self.paths,
            machine: &machine,
            input: self.input.clone(),
            oracle: self.oracle.clone(),
            chance: fastrand::Rng::with_seed(self.seed),
        };
        life.go_on_to_the_end(self, Stop { after: number / ways, how }, number)
    }
}

/// All files in one folder, or each in its own.
fn paths(chance: &mut fastrand::Rng) -> RunPaths {
    if chance.u8(..3) > 0 {
        return RunPaths::new(Path::new("d/u.csv"), GivenPaths::default());
    }
    let given = |name: &str| Some(PathBuf::from(name));
    RunPaths::new(
        Path::new("d/u.csv"),
        GivenPaths { results: given("a/u.results.csv"), rejects: given("b/u.rejects.csv"), checkpoint: given("c/u.checkpoint.json") },
    )
}

/// A running case.
struct Life<'a, M> {
    mount: &'a M,
    paths: &'a RunPaths,
    machine: &'a Machine,
    input: Input,
    oracle: Oracle,
    chance: fastrand::Rng,
}

impl<M: Fn() -> D, D: Disk> Life<'_, M> {
    fn go_on_to_the_end(mut self, scenario: &Scenario, stop: Stop, number: u64) -> Result<(), Broken> {
        let mut stop = Some(stop);
        let (mut restart, mut fortune, mut limit) = (scenario.restart, scenario.fortune, None);
        let mut more_stops = None;
        for _ in 0..PROCESSES_MAX {
            self.machine.start(stop);
            let command = Command { paths: self.paths, input: &self.input, restart, fortune, limit };
            let ending = command.carry_out(self.mount, &mut self.oracle, &mut self.chance)?;
            self.says(format_args!("{restart:?} {stop:?} {ending:?}"));
            if self.is_over(ending)? {
                return self.ends();
            }
            // The first process was the same in all cases of the scenario; from here on they differ.
            let left = *more_stops.get_or_insert_with(|| {
                self.chance.seed(scenario.seed ^ number.rotate_left(17));
                self.chance.u8(..=MORE_STOPS_MAX)
            });
            self.rots()?;
            self.oracle.checks_committed(&|path| self.machine.bytes(path), self.paths)?;
            more_stops = Some(left.saturating_sub(1));
            stop = (left > 0).then(|| self.another_stop());
            restart = if self.oracle.openings() > scenario.oracle.openings() { scenario.restart_again } else { scenario.restart };
            fortune = if self.chance.bool() { scenario.fortune } else { Fortune::Good };
            limit = (self.chance.u8(..6) == 0).then(|| self.chance.u64(..4));
            if self.chance.u8(..8) == 0 {
                self.input = self.input.appended(1, &mut self.chance);
            }
        }
        Err(Broken("the same command never comes to an end".to_owned()))
    }

    /// Prints what happened, if a single case is repeated.
    fn says(&self, what: std::fmt::Arguments<'_>) {
        if std::env::var_os(SEED_VARIABLE).is_some() {
            println!("{what}\n{}", self.machine.listing());
        }
    }

    fn another_stop(&mut self) -> Stop {
        let after = if self.chance.bool() { self.chance.u64(..12) } else { self.chance.u64(..40) };
        Stop { after, how: Interruption::ALL[self.chance.usize(..Interruption::ALL.len())] }
    }

    /// Returns whether the command ended. If it was interrupted, the consequences follow.
    fn is_over(&mut self, ending: Ending) -> Result<bool, Broken> {
        match self.machine.interrupted() {
            Some(Interruption::PowerLoss) => self.machine.lose_power(),
            Some(Interruption::Kill | Interruption::DiskFull) => {}
            None => match ending {
                Ending::NothingToDo | Ending::Finished => return Ok(true),
                Ending::Stopped => {}
                Ending::DiskFailed(why) => return Err(Broken(format!("without need: {why}"))),
            },
        }
        Ok(false)
    }

    /// Everything is done. This must still be so after a power loss, and the same command must say so.
    fn ends(mut self) -> Result<(), Broken> {
        self.oracle.checks_all(&|path| self.machine.bytes(path), self.paths)?;
        self.machine.lose_power();
        self.oracle.checks_all(&|path| self.machine.bytes(path), self.paths)?;
        self.rots()?;
        self.machine.start(None);
        let command = Command { paths: self.paths, input: &self.input, restart: Restart::No, fortune: Fortune::Good, limit: None };
        let ending = command.carry_out(self.mount, &mut self.oracle, &mut self.chance)?;
        promise!(ending == Ending::NothingToDo, "a finished run is not finished");
        self.oracle.checks_all(&|path| self.machine.bytes(path), self.paths)
    }

    /// Sometimes flips a bit of the checkpoint and flips it back: the command must notice it, or it must have no effect.
    fn rots(&mut self) -> Result<(), Broken> {
        let path = &self.paths.checkpoint;
        let Some(sound) = self.machine.bytes(path).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
        if self.chance.u8(..8) > 0 {
            return Ok(());
        }
        self.machine.start(None);
        let before = self.examines();
        let mut rotten = sound.clone();
        rotten[self.chance.usize(..sound.len())] ^= 1 << self.chance.u8(..8);
        self.machine.replace_bytes(path, rotten);
        let after = self.examines();
        self.machine.replace_bytes(path, sound);
        let is_the_same = match (&before, &after) {
            (_, Err(OpenError::Checkpoint { .. })) => true,
            (Ok(before), Ok(after)) => before == after,
            (Err(before), Err(after)) => before.to_string() == after.to_string(),
            (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
        };
        promise!(is_the_same, "a checkpoint that has rotten is taken: {after:?}, not {before:?}");
        Ok(())
    }

    fn examines(&self) -> Result<StartDecision, OpenError> {
        let compare = |checkpoint: &Checkpoint| Ok(self.input.compare(checkpoint.settled));
        journal::examine(&(self.mount)(), self.paths, &self.input.claim(), Restart::No, compare)
    }
}
