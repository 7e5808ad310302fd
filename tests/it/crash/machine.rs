//! A machine whose disk loses everything that was not synced: the journal's disk for tests, in memory.
//!
//! It distinguishes the state that a running system sees from the state after a power loss. Unsynced contents may survive, vanish, be
//! written in part or turn to zeros; unsynced names may survive or not, in order or independently. A rename is atomic, but the content of
//! the file stays as unsynced as before. A seed decides which of these happens. Every operation with an effect is counted, and the machine
//! can be stopped at each.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use chatlift::io::journal::disk::{Disk, DiskFile};

use super::inode::{Change, Inode};
use super::names::{NameChange, Names, folder, landed};

/// How a process is interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interruption {
    /// The process is killed; the next one sees everything that it has written.
    Kill,
    /// Chance decides about everything that was not synced.
    PowerLoss,
    /// One operation fails, a write perhaps after a part, a sync permanently; the process continues.
    DiskFull,
}

impl Interruption {
    pub(crate) const ALL: [Interruption; 3] = [Interruption::Kill, Interruption::PowerLoss, Interruption::DiskFull];
}

/// An interruption at the operation that follows this many others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stop {
    pub(crate) after: u64,
    pub(crate) how: Interruption,
}

/// The machine. Its clones are the same machine.
#[derive(Debug, Clone)]
pub(crate) struct Machine(Arc<Mutex<State>>);

impl Machine {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            inodes: Vec::new(),
            names: Names::default(),
            lasting_names: Names::default(),
            name_changes: Vec::new(),
            locked: Vec::new(),
            operations: 0,
            stop: None,
            interrupted: None,
            chance: fastrand::Rng::with_seed(seed),
        })))
    }

    /// Another machine in the same state, with its own `seed`.
    pub(crate) fn duplicate(&self, seed: u64) -> Self {
        let state = State { chance: fastrand::Rng::with_seed(seed), ..self.state().clone() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Starts a new process, which may be stopped. Its operations are counted from 0.
    pub(crate) fn start(&self, stop: Option<Stop>) {
        let mut state = self.state();
        state.operations = 0;
        state.stop = stop;
        state.interrupted = None;
    }

    /// How the process since the last start was interrupted, if it was.
    pub(crate) fn interrupted(&self) -> Option<Interruption> {
        self.state().interrupted
    }

    /// The number of operations since the last start.
    pub(crate) fn operations(&self) -> u64 {
        self.state().operations
    }

    /// The power fails and returns.
    pub(crate) fn lose_power(&self) {
        let state = &mut *self.state();
        for inode in &mut state.inodes {
            inode.lose_power(&mut state.chance);
        }
        let changes = std::mem::take(&mut state.name_changes);
        for change in landed(changes, &mut state.chance) {
            state.lasting_names.apply(&change);
        }
        state.names = state.lasting_names.clone();
    }

    /// The content of a file as the running system sees it.
    pub(crate) fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        state.names.get(name(path)).map(|inode| state.inodes[inode].bytes.clone())
    }

    /// Replaces the bytes of a file by others of the same length, without changing what a power loss would leave.
    pub(crate) fn replace_bytes(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state();
        let inode = state.names.get(name(path)).expect("only files that are there are replaced");
        state.inodes[inode].bytes = bytes;
    }

    /// Creates a file that is durable.
    pub(crate) fn place(&self, path: &Path, bytes: &[u8]) {
        let state = &mut *self.state();
        let inode = state.inodes.len();
        state.inodes.push(Inode { bytes: bytes.to_vec(), lasting: bytes.to_vec(), changes: Vec::new() });
        for names in [&mut state.names, &mut state.lasting_names] {
            names.apply(&NameChange::Create { name: name(path).to_owned(), inode });
        }
    }

    /// Removes a name durably.
    pub(crate) fn discard(&self, path: &Path) {
        let state = &mut *self.state();
        for names in [&mut state.names, &mut state.lasting_names] {
            names.apply(&NameChange::Remove { name: name(path).to_owned() });
        }
    }

    /// The files with their visible and their synced lengths.
    pub(crate) fn listing(&self) -> String {
        let state = self.state();
        let line = |(name, inode): (&String, &usize)| {
            let is_name_lasting = state.lasting_names.get(name) == Some(*inode);
            let Inode { bytes, lasting, .. } = &state.inodes[*inode];
            format!("  {name}: {} bytes, {} synced, name synced: {is_name_lasting}\n", bytes.len(), lasting.len())
        };
        state.names.0.iter().map(line).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics inside the machine")
    }
}

#[derive(Debug, Clone)]
struct State {
    inodes: Vec<Inode>,
    names: Names,
    lasting_names: Names,
    /// Changes of names since the last sync.
    name_changes: Vec<NameChange>,
    locked: Vec<usize>,
    operations: u64,
    stop: Option<Stop>,
    interrupted: Option<Interruption>,
    chance: fastrand::Rng,
}

impl State {
    /// Counts an operation that is about to happen, unless the process is stopped before it.
    fn step(&mut self) -> io::Result<()> {
        self.is_up()?;
        if let Some(stop) = self.stop.take_if(|stop| stop.after == self.operations) {
            self.interrupted = Some(stop.how);
            return Err(match stop.how {
                Interruption::Kill | Interruption::PowerLoss => gone(),
                Interruption::DiskFull => io::ErrorKind::StorageFull.into(),
            });
        }
        self.operations += 1;
        Ok(())
    }

    /// A process that is gone can do nothing.
    fn is_up(&self) -> io::Result<()> {
        match self.interrupted {
            Some(Interruption::Kill | Interruption::PowerLoss) => Err(gone()),
            Some(Interruption::DiskFull) | None => Ok(()),
        }
    }

    fn change_name(&mut self, change: NameChange) {
        self.names.apply(&change);
        self.name_changes.push(change);
    }

    fn find_or_create(&mut self, name: &str) -> io::Result<usize> {
        self.is_up()?;
        if let Some(inode) = self.names.get(name) {
            return Ok(inode);
        }
        self.step()?;
        let inode = self.inodes.len();
        self.inodes.push(Inode::default());
        self.change_name(NameChange::Create { name: name.to_owned(), inode });
        Ok(inode)
    }

    fn write(&mut self, inode: usize, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.is_up()?;
        let stepped = self.step();
        let written = if stepped.is_ok() { bytes.len() } else { self.chance.usize(..=bytes.len()) };
        self.inodes[inode].change(Change::Write { offset: index(offset), bytes: bytes[..written].to_vec() });
        stepped
    }
}

fn gone() -> io::Error {
    io::Error::other("the process is gone")
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("files of tests are small")
}

fn name(path: &Path) -> &str {
    path.to_str().expect("names of tests are text")
}

impl Disk for Machine {
    type File = OpenFile;
    type Lock = Lock;

    fn open(&self, path: &Path) -> io::Result<OpenFile> {
        let inode = self.state().find_or_create(name(path))?;
        Ok(OpenFile { machine: self.clone(), inode })
    }

    fn len(&self, path: &Path) -> io::Result<Option<u64>> {
        let state = self.state();
        state.is_up()?;
        Ok(state.names.get(name(path)).map(|inode| state.inodes[inode].bytes.len() as u64))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        let inode = state.names.get(name(from)).ok_or(io::ErrorKind::NotFound)?;
        state.change_name(NameChange::Rename { from: name(from).to_owned(), to: name(to).to_owned(), inode });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        state.names.get(name(path)).ok_or(io::ErrorKind::NotFound)?;
        state.change_name(NameChange::Remove { name: name(path).to_owned() });
        Ok(())
    }

    fn sync_folder_of(&self, path: &Path) -> io::Result<()> {
        let state = &mut *self.state();
        state.step()?;
        let synced = folder(name(path));
        for change in state.name_changes.extract_if(.., |change| change.folder() == synced) {
            state.lasting_names.apply(&change);
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        let mut state = self.state();
        let inode = state.find_or_create(name(path))?;
        if state.locked.contains(&inode) {
            return Ok(None);
        }
        state.locked.push(inode);
        Ok(Some(Lock { machine: self.clone(), inode }))
    }
}

/// A file that a process has open, whatever its name is now.
#[derive(Debug, Clone)]
pub(crate) struct OpenFile {
    machine: Machine,
    inode: usize,
}

impl DiskFile for OpenFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.machine.state();
        state.is_up()?;
        let bytes = state.inodes[self.inode].bytes.get(index(offset)..).unwrap_or_default();
        buffer.copy_from_slice(bytes.get(..buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.machine.state().write(self.inode, bytes, offset)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        let mut state = self.machine.state();
        state.step()?;
        state.inodes[self.inode].change(Change::Length(index(len)));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let state = &mut *self.machine.state();
        let stepped = state.step();
        let inode = &mut state.inodes[self.inode];
        if stepped.is_ok() {
            inode.sync();
        } else if state.interrupted == Some(Interruption::DiskFull) {
            inode.fail_to_sync(&mut state.chance);
        }
        stepped
    }
}

/// A lock. It belongs to the file and not to its name, and ends with its process.
#[derive(Debug)]
pub(crate) struct Lock {
    machine: Machine,
    inode: usize,
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.machine.state().locked.retain(|inode| *inode != self.inode);
    }
}
