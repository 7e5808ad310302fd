//! The journal on real files, whatever happens to a run or to its files.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use chatlift::io::files::lock::Lockfile;
use chatlift::io::journal::checkpoint::Checkpoint;
use chatlift::io::journal::disk::{Disk, DiskFile, OsDisk};
use chatlift::io::journal::paths::{GivenPaths, RunPaths};
use chatlift::io::journal::{self, OpenError, Restart, StartDecision, StartMode};
use proptest::prelude::*;
use tempfile::TempDir;

use super::command::{Command, Ending, lock};
use super::input::{Fortune, Input};
use super::oracle::{Broken, Oracle, now};

/// The number of sequences of processes. Chosen: a second or two with real syncs.
const SEQUENCES: u32 = 48;
/// The number of ways to damage a file. Chosen.
const SPOILINGS: u32 = 256;

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// The next step in the life of a run.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A process is killed before the operation that follows this many others.
    Killed {
        after: u64,
    },
    /// A process is stopped after some rows.
    Stopped {
        after_rows: u64,
    },
    InputGrows,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0_u64..60).prop_map(|after| Step::Killed { after }),
        2 => (0_u64..6).prop_map(|after_rows| Step::Stopped { after_rows }),
        1 => Just(Step::InputGrows),
    ];
    proptest::collection::vec(step, 0..6)
}

proptest! {
    #![proptest_config(cases(SEQUENCES))]

    #[test]
    fn any_sequence_of_processes_ends_with_the_expected_files(
        steps in steps(),
        rows in 0_u64..12,
        fortune in prop_oneof![Just(Fortune::Good), Just(Fortune::Mixed), Just(Fortune::Wordy)],
        seed in any::<u64>(),
    ) {
        let mut life = RealLife::new(rows, fortune, seed);
        for step in steps {
            life.takes(step);
        }
        life.runs(u64::MAX, None);
        let checked = life.oracle.checks_all(&|path| fs::read(path).ok(), &life.paths);
        prop_assert!(checked.is_ok(), "{checked:?}");
        prop_assert_eq!(life.runs(u64::MAX, None), Ending::NothingToDo);
        for (path, _) in life.files() {
            prop_assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
        }
    }
}

proptest! {
    #![proptest_config(cases(SPOILINGS))]

    #[test]
    fn a_spoiled_checkpoint_is_refused_or_means_the_same(place in any::<prop::sample::Index>(), mask in 0_u8..) {
        let life = RealLife::stopped();
        let before = life.examines().unwrap();
        let mut bytes = fs::read(&life.paths.checkpoint).unwrap();
        let place = place.index(bytes.len());
        match mask {
            0 => bytes.truncate(place),
            mask => bytes[place] ^= mask,
        }
        fs::write(&life.paths.checkpoint, bytes).unwrap();
        let files = life.files();
        match life.examines() {
            Err(OpenError::Checkpoint { .. }) => {}
            after => prop_assert_eq!(after.unwrap(), before),
        }
        prop_assert_eq!(life.files(), files);
    }

    #[test]
    fn results_and_rejects_that_were_shortened_or_edited_are_refused_and_nothing_is_touched(
        is_results in any::<bool>(),
        place in any::<prop::sample::Index>(),
        mask in 0_u8..,
        surplus in 0_usize..3,
    ) {
        let life = RealLife::stopped();
        let path = if is_results { &life.paths.results } else { &life.paths.rejects };
        let mut bytes = fs::read(path).unwrap();
        let place = place.index(bytes.len());
        match mask {
            0 => bytes.truncate(place),
            mask => {
                bytes[place] ^= mask;
                bytes.resize(bytes.len() + surplus, b'x');
            }
        }
        fs::write(path, bytes).unwrap();
        let files = life.files();
        let refused = matches!(life.opens(), Err(OpenError::ResultsChanged { path: named }) if named == *path);
        prop_assert!(refused);
        prop_assert_eq!(life.files(), files);
    }
}

#[test]
fn no_bit_of_a_checkpoint_turns_over_unnoticed() {
    let life = RealLife::stopped();
    let sound = fs::read(&life.paths.checkpoint).unwrap();
    let checkpoint = Checkpoint::decode(&sound).unwrap();
    for bit in 0..sound.len() * 8 {
        let mut rotten = sound.clone();
        rotten[bit / 8] ^= 1 << (bit % 8);
        if let Ok(taken) = Checkpoint::decode(&rotten) {
            assert_eq!(taken, checkpoint, "bit {bit}");
        }
    }
}

#[test]
fn files_that_are_missing_are_named_and_nothing_is_touched() {
    let check = |gone: fn(&RunPaths) -> &PathBuf, is_expected: fn(&OpenError) -> bool| {
        let life = RealLife::stopped();
        fs::remove_file(gone(&life.paths)).unwrap();
        let files = life.files();
        let refused = life.opens().unwrap_err();
        assert!(is_expected(&refused), "{refused}");
        assert_eq!(life.files(), files);
    };
    check(|paths| &paths.results, |error| matches!(error, OpenError::NoResults { .. }));
    check(|paths| &paths.rejects, |error| matches!(error, OpenError::ResultsChanged { .. }));
    check(|paths| &paths.checkpoint, |error| matches!(error, OpenError::NoCheckpoint { .. }));
}

/// A run in a temporary folder.
struct RealLife {
    folder: TempDir,
    paths: RunPaths,
    input: Input,
    fortune: Fortune,
    oracle: Oracle,
    chance: fastrand::Rng,
}

impl RealLife {
    fn new(rows: u64, fortune: Fortune, seed: u64) -> Self {
        let mut chance = fastrand::Rng::with_seed(seed);
        let folder = tempfile::tempdir().expect("there is a place for temporary files");
        let paths = RunPaths::new(&folder.path().join("u.csv"), GivenPaths::default());
        Self { folder, paths, input: Input::new(rows, &mut chance), fortune, oracle: Oracle::default(), chance }
    }

    /// A stopped run with results and rejects that are short enough to be covered completely by the hashes of their extents.
    fn stopped() -> Self {
        static STOPPED: LazyLock<RealLife> = LazyLock::new(|| {
            let mut life = RealLife::new(12, Fortune::Mixed, 3);
            assert_eq!(life.runs(u64::MAX, Some(8)), Ending::Stopped);
            assert!(life.paths.rejects.exists());
            life
        });
        STOPPED.copied()
    }

    /// The same life in a folder of its own. No file is synced, so this is quick.
    fn copied(&self) -> Self {
        let copy = Self::new(0, self.fortune, 3);
        for path in self.files().into_keys() {
            fs::copy(&path, copy.folder.path().join(path.file_name().unwrap())).expect("there is room for a small file");
        }
        Self { input: self.input.clone(), oracle: self.oracle.clone(), chance: self.chance.clone(), ..copy }
    }

    fn takes(&mut self, step: Step) {
        match step {
            Step::Killed { after } => _ = self.runs(after, None),
            Step::Stopped { after_rows } => _ = self.runs(u64::MAX, Some(after_rows)),
            Step::InputGrows => self.input = self.input.clone().appended(1, &mut self.chance),
        }
    }

    fn runs(&mut self, lifespan: u64, limit: Option<u64>) -> Ending {
        let lifespan = Arc::new(AtomicU64::new(lifespan));
        let mount = || Mortal { disk: OsDisk, lifespan: Arc::clone(&lifespan) };
        let command = Command { paths: &self.paths, input: &self.input, restart: Restart::No, fortune: self.fortune, limit };
        let ended = command.carry_out(&mount, &mut self.oracle, &mut self.chance);
        ended.unwrap_or_else(|Broken(why)| panic!("{why}"))
    }

    fn examines(&self) -> Result<StartDecision, OpenError> {
        let compare = |checkpoint: &Checkpoint| Ok(self.input.compare(checkpoint.settled));
        journal::examine(&OsDisk, &self.paths, &self.input.claim(), Restart::No, compare)
    }

    fn opens(&self) -> Result<(), OpenError> {
        let lock = lock(&OsDisk, &self.paths)?;
        let plan = self.examines()?;
        let StartDecision::Run(way @ StartMode::Resume { .. }) = plan else { panic!("a stopped run is resumed: {plan:?}") };
        journal::open(way, (OsDisk, lock), self.paths.clone(), self.input.claim(), now()).map(drop)
    }

    /// All files with their contents.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = fs::read_dir(self.folder.path()).expect("the folder is there");
        let paths = entries.map(|entry| entry.expect("the folder can be read").path());
        paths.map(|path| (path.clone(), fs::read(path).expect("the file is there"))).collect()
    }
}

/// The machine's own disk, for a process that dies after this many operations.
#[derive(Debug)]
struct Mortal<T> {
    disk: T,
    lifespan: Arc<AtomicU64>,
}

impl<T> Mortal<T> {
    fn step(&self) -> io::Result<()> {
        let left = self.lifespan.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        left.map(drop).map_err(|_| io::Error::other("the process is gone"))
    }
}

impl Disk for Mortal<OsDisk> {
    type File = Mortal<fs::File>;
    type Lock = Lockfile;

    fn open(&self, path: &Path) -> io::Result<Self::File> {
        self.step()?;
        Ok(Mortal { disk: self.disk.open(path)?, lifespan: Arc::clone(&self.lifespan) })
    }

    fn len(&self, path: &Path) -> io::Result<Option<u64>> {
        self.disk.len(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        self.disk.remove(path)
    }

    fn sync_folder_of(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        self.disk.sync_folder_of(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lockfile>> {
        self.step()?;
        self.disk.lock(path)
    }
}

impl DiskFile for Mortal<fs::File> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        DiskFile::read_exact_at(&self.disk, buffer, offset)
    }

    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let stepped = self.step();
        let written = if stepped.is_ok() { bytes.len() } else { bytes.len() / 2 };
        DiskFile::write_all_at(&mut self.disk, &bytes[..written], offset)?;
        stepped
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.step()?;
        DiskFile::set_len(&mut self.disk, len)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.step()?;
        self.disk.sync()
    }
}
