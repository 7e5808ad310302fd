//! Journals with one flaw each: these tests show that the suite can fail.
//!
//! The journal itself has no hooks. Each flaw stands between the journal and the disk and changes or drops operations by their path, so
//! that the disk sees the operations of a journal with that flaw.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use chatlift::io::journal::disk::{Disk, DiskFile};
use chatlift::io::journal::paths::RunPaths;
use xxhash_rust::xxh3::xxh3_64;

use super::case::Scenario;
use super::machine::{Lock, Machine, OpenFile};
use super::oracle::Broken;

/// The number of cases within which a flaw must be found. Chosen.
const CASES_MAX: u64 = 5_000;

/// A flaw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    NoCutOnResume,
    CheckpointBeforeResults,
    ResultsNotSynced,
    RejectsNotSynced,
    CheckpointNotSynced,
    FolderNotSyncedOnFirstRun,
    CheckpointInPlace,
    LockOnCheckpoint,
    NoChecksum,
    NoIntentToSetAside,
    NamesNotSyncedAtStart,
    CutNotSynced,
    RemovalNotSynced,
}

/// The role of a path in the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Results,
    Rejects,
    Checkpoint,
    NewCheckpoint,
    Other,
}

/// The disk of a journal with a flaw; one for each process.
#[derive(Debug)]
struct Flawed {
    flaw: Flaw,
    machine: Machine,
    paths: RunPaths,
    is_first_run: AtomicBool,
    /// Whether this process has changed no name yet.
    is_start: AtomicBool,
    /// Whether its last operation removed a file.
    has_removed: AtomicBool,
    held_back: HeldBack,
}

/// Writes that are held back until the next checkpoint.
type HeldBack = Arc<Mutex<Vec<HeldWrite>>>;

#[derive(Debug)]
struct HeldWrite {
    file: OpenFile,
    bytes: Vec<u8>,
    offset: u64,
}

impl Flawed {
    fn new(flaw: Flaw, machine: &Machine, paths: &RunPaths) -> Self {
        Self {
            flaw,
            machine: machine.clone(),
            paths: paths.clone(),
            is_first_run: AtomicBool::new(false),
            is_start: AtomicBool::new(true),
            has_removed: AtomicBool::new(false),
            held_back: HeldBack::default(),
        }
    }

    fn role(&self, path: &Path) -> Role {
        let RunPaths { results, rejects, checkpoint, .. } = &self.paths;
        let new_checkpoint = self.paths.new_checkpoint();
        let roles =
            [(results, Role::Results), (rejects, Role::Rejects), (checkpoint, Role::Checkpoint), (&new_checkpoint, Role::NewCheckpoint)];
        roles.into_iter().find(|(named, _)| path == *named).map_or(Role::Other, |(_, role)| role)
    }

    fn is(&self, flaw: Flaw, role: Role, path: &Path) -> bool {
        self.flaw == flaw && self.role(path) == role
    }

    /// The path under which a new checkpoint is written.
    fn actual<'a>(&'a self, path: &'a Path) -> &'a Path {
        if self.is(Flaw::CheckpointInPlace, Role::NewCheckpoint, path) { &self.paths.checkpoint } else { path }
    }

    fn is_intent(&self, path: &Path) -> bool {
        let bytes = self.machine.bytes(path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).contains("setting_aside")
    }

    fn release(&self) -> io::Result<()> {
        let held = std::mem::take(&mut *self.held_back.lock().expect("nobody panics with it"));
        for HeldWrite { mut file, bytes, offset } in held {
            file.write_all_at(&bytes, offset)?;
            file.sync()?;
        }
        Ok(())
    }
}

impl Disk for Flawed {
    type File = FlawedFile;
    type Lock = Lock;

    fn open(&self, path: &Path) -> io::Result<FlawedFile> {
        let file = self.machine.open(self.actual(path))?;
        let role = self.role(path);
        self.is_start.fetch_and(role == Role::Checkpoint, Ordering::Relaxed);
        Ok(FlawedFile { flaw: self.flaw, role, file, is_cut: false, held_back: Arc::clone(&self.held_back) })
    }

    fn len(&self, path: &Path) -> io::Result<Option<u64>> {
        self.machine.len(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.is_start.store(false, Ordering::Relaxed);
        if self.is(Flaw::CheckpointInPlace, Role::NewCheckpoint, from) {
            return Ok(());
        }
        if self.is(Flaw::NoIntentToSetAside, Role::NewCheckpoint, from) && self.is_intent(from) {
            return self.machine.remove(from);
        }
        self.machine.rename(from, to)?;
        if self.is(Flaw::CheckpointBeforeResults, Role::NewCheckpoint, from) {
            self.machine.sync_folder_of(to)?;
            self.release()?;
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.is_start.store(false, Ordering::Relaxed);
        self.has_removed.store(true, Ordering::Relaxed);
        self.machine.remove(path)
    }

    fn sync_folder_of(&self, path: &Path) -> io::Result<()> {
        let has_removed = self.has_removed.swap(false, Ordering::Relaxed);
        let is_left_out = match self.flaw {
            Flaw::FolderNotSyncedOnFirstRun => self.is_first_run.load(Ordering::Relaxed),
            Flaw::NamesNotSyncedAtStart => self.is_start.load(Ordering::Relaxed),
            Flaw::RemovalNotSynced => has_removed,
            Flaw::NoCutOnResume
            | Flaw::CheckpointBeforeResults
            | Flaw::ResultsNotSynced
            | Flaw::RejectsNotSynced
            | Flaw::CheckpointNotSynced
            | Flaw::CheckpointInPlace
            | Flaw::LockOnCheckpoint
            | Flaw::NoChecksum
            | Flaw::NoIntentToSetAside
            | Flaw::CutNotSynced => false,
        };
        if is_left_out { Ok(()) } else { self.machine.sync_folder_of(path) }
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        let checkpoint = &self.paths.checkpoint;
        let is_there = self.machine.len(checkpoint)?.is_some();
        self.is_first_run.store(!is_there, Ordering::Relaxed);
        let lock = self.machine.lock(path)?;
        // Without a checkpoint there is nothing else to lock.
        if self.flaw == Flaw::LockOnCheckpoint && is_there && lock.is_some() {
            drop(lock);
            return self.machine.lock(checkpoint);
        }
        Ok(lock)
    }
}

/// An open file of this disk.
#[derive(Debug)]
struct FlawedFile {
    flaw: Flaw,
    role: Role,
    file: OpenFile,
    /// Whether the file was cut and not written to since.
    is_cut: bool,
    held_back: HeldBack,
}

impl DiskFile for FlawedFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)?;
        if (self.flaw, self.role) == (Flaw::NoChecksum, Role::Checkpoint) {
            make_checksum_right(buffer);
        }
        Ok(())
    }

    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.is_cut = false;
        if (self.flaw, self.role) != (Flaw::CheckpointBeforeResults, Role::Results) || offset == 0 {
            return self.file.write_all_at(bytes, offset);
        }
        let write = HeldWrite { file: self.file.clone(), bytes: bytes.to_vec(), offset };
        self.held_back.lock().expect("nobody panics with it").push(write);
        Ok(())
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.is_cut = true;
        let is_cut_on_resume = matches!(self.role, Role::Results | Role::Rejects) && len > 0;
        if self.flaw == Flaw::NoCutOnResume && is_cut_on_resume { Ok(()) } else { self.file.set_len(len) }
    }

    fn sync(&mut self) -> io::Result<()> {
        const LEFT_OUT: [(Flaw, Role); 3] = [
            (Flaw::ResultsNotSynced, Role::Results),
            (Flaw::RejectsNotSynced, Role::Rejects),
            (Flaw::CheckpointNotSynced, Role::NewCheckpoint),
        ];
        let is_left_out = LEFT_OUT.contains(&(self.flaw, self.role)) || (self.flaw == Flaw::CutNotSynced && self.is_cut);
        if is_left_out { Ok(()) } else { self.file.sync() }
    }
}

/// Replaces the checksum of a checkpoint by the one of its content, as if checksums were not checked.
fn make_checksum_right(bytes: &mut [u8]) {
    const BEFORE: &[u8] = br#""checksum":""#;
    const DIGITS: usize = 16;
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes) else { return };
    let Some(at) = bytes.windows(BEFORE.len()).position(|window| window == BEFORE).map(|at| at + BEFORE.len()) else { return };
    let right = format!("{:016x}", xxh3_64(value["run"].to_string().as_bytes()));
    bytes[at..at + DIGITS].copy_from_slice(right.as_bytes());
}

/// The first case that fails with a flaw: the number of cases so far, its seed, and the broken promise.
fn first_broken(flaw: Flaw) -> Option<(u64, String, String)> {
    let mount = |machine: &Machine, paths: &RunPaths| Flawed::new(flaw, machine, paths);
    let mut cases = 0;
    for seed in 0.. {
        let scenario = match Scenario::new(seed, &mount) {
            Ok(scenario) => scenario,
            Err(Broken(why)) => return Some((cases + 1, seed.to_string(), why)),
        };
        for case in 0..scenario.cases() {
            cases += 1;
            if let Err(Broken(why)) = scenario.check(case, &mount) {
                return Some((cases, format!("{seed}:{case}"), why));
            }
            if cases >= CASES_MAX {
                return None;
            }
        }
    }
    None
}

fn is_caught(flaw: Flaw) {
    let (cases, seed, why) = first_broken(flaw).unwrap_or_else(|| panic!("{flaw:?} is not caught in {CASES_MAX} cases"));
    let why: String = why.chars().take(100).collect();
    println!("{flaw:?} is caught after {cases} cases, in {seed}: {why}");
}

#[test]
fn a_journal_that_does_not_cut_on_resume_is_caught() {
    is_caught(Flaw::NoCutOnResume);
}

#[test]
fn a_checkpoint_before_its_results_is_caught() {
    is_caught(Flaw::CheckpointBeforeResults);
}

#[test]
fn results_that_are_not_synced_are_caught() {
    is_caught(Flaw::ResultsNotSynced);
}

#[test]
fn rejects_that_are_not_synced_are_caught() {
    is_caught(Flaw::RejectsNotSynced);
}

#[test]
fn a_checkpoint_that_is_not_synced_is_caught() {
    is_caught(Flaw::CheckpointNotSynced);
}

#[test]
fn a_folder_that_is_not_synced_on_the_first_run_is_caught() {
    is_caught(Flaw::FolderNotSyncedOnFirstRun);
}

#[test]
fn a_checkpoint_written_in_place_is_caught() {
    is_caught(Flaw::CheckpointInPlace);
}

#[test]
fn a_lock_on_the_checkpoint_itself_is_caught() {
    is_caught(Flaw::LockOnCheckpoint);
}

#[test]
fn a_checksum_that_is_not_looked_at_is_caught() {
    is_caught(Flaw::NoChecksum);
}

#[test]
fn setting_aside_without_recording_the_intent_is_caught() {
    is_caught(Flaw::NoIntentToSetAside);
}

#[test]
fn names_that_are_not_synced_at_the_start_are_caught() {
    is_caught(Flaw::NamesNotSyncedAtStart);
}

#[test]
fn a_cut_that_is_not_synced_is_caught() {
    is_caught(Flaw::CutNotSynced);
}

#[test]
fn a_removal_that_is_not_synced_is_caught() {
    is_caught(Flaw::RemovalNotSynced);
}
