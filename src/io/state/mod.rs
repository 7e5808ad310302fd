//! The state: the accounts that the service is known to hold, in one SQLite file, kept from one sync to the next.
//!
//! Tables are written in order of ids, which is what SQLite is fast at. Every change is one transaction that is durable once it returns,
//! so a crash leaves the state as it was before or after the change. Profile fields are kept as hashes: the file holds ids, but no names.

mod account;
mod bulk;
mod corrections;
mod imported;
mod missing_accounts;
mod network;
mod overlay;
mod run;
mod run_record;
mod schema;
mod slices;
mod tags;

use std::cell::{Cell, OnceCell, RefCell};
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use thiserror::Error;

pub use account::{AccountAfterRun, AccountCounts};
pub use corrections::Discrepancy;
pub use imported::ImportedRow;
pub use missing_accounts::{MissingAction, MissingActionRecord};
pub use run_record::{Earlier, Finish, NewRun, OpenRun, RunInput, RunRecord, RunTotals, SendOutcome, Sent};

use crate::domain::target::Target;
use crate::io::files::atomic::{AtomicFile, Readers};
use crate::io::files::lock::{self, Lockfile};
use crate::io::files::{describe, folder_of, resolved, sync_folder_of};

/// How long a look waits for a change to be made. Chosen: beginning a first run of 10 million rows takes some seconds.
const READER_WAITS: Duration = Duration::from_secs(30);
/// How long a change waits for whoever looks. Source: the contract of the sync; what looks from here lets go after [`slices::LOOK`].
const WRITER_WAITS: Duration = Duration::from_secs(10);

/// An open state.
#[derive(Debug)]
pub struct StateDb {
    path: PathBuf,
    db: Connection,
    /// Of the file. An older one is carried over before the first change.
    version: i64,
}

/// The right to change a state: one process at a time has it. The lock of the file beside it holds for a state that isn't there yet, the one
/// of the state itself whatever other names it has.
///
/// A state that was made for a start that failed is removed with it, unless [`StateLock::keep`] was called.
#[derive(Debug)]
pub struct StateLock {
    path: PathBuf,
    file: RefCell<Lockfile>,
    own: OnceCell<File>,
    /// This process has made the state, and nothing has begun with it.
    is_state_for_nothing: Cell<bool>,
}

impl StateLock {
    /// Opens the state, and makes it, private to its owner and locked, if there is none.
    ///
    /// # Errors
    /// [`StateError::Locked`] if another process was quicker, or the disk's.
    pub fn open_or_create(&self, target: &Target, identity: u64) -> Result<StateDb, StateError> {
        if !self.path.exists() {
            self.is_state_for_nothing.set(true);
        }
        create(&self.path).map_err(|source| StateError::File { what: "create", path: self.path.clone(), source })?;
        self.hold()?;
        StateDb::open_or_create(&self.path, target, identity)
    }

    /// Locks the state itself, if it is there.
    fn hold(&self) -> Result<(), StateError> {
        if self.own.get().is_some() {
            return Ok(());
        }
        // Whatever is wrong with it is told by whoever reads it.
        let Some(file) = File::open(&self.path).ok().filter(network::locks_are_apart) else { return Ok(()) };
        match file.try_lock() {
            Ok(()) => {
                let _ = self.own.set(file);
                Ok(())
            }
            Err(std::fs::TryLockError::WouldBlock) => Err(StateError::Locked { path: self.path.clone() }),
            Err(std::fs::TryLockError::Error(source)) => Err(StateError::File { what: "lock", path: self.path.clone(), source }),
        }
    }

    /// Where the state is, or will be.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As [`Lockfile::is_for_nothing`].
    #[must_use]
    pub fn is_for_nothing(&self) -> bool {
        self.file.borrow().is_for_nothing()
    }

    /// From here on a run needs the state and, as [`Lockfile::keep`], the file of its lock.
    pub fn keep(&self) {
        self.is_state_for_nothing.set(false);
        self.file.borrow_mut().keep();
    }
}

impl Drop for StateLock {
    /// The lock is still held.
    fn drop(&mut self) {
        if self.is_state_for_nothing.get() {
            let [state, _, journal, ..] = names(&self.path);
            for file in [state, journal] {
                // Where it can't be removed it stays, as it does after a kill: the next start makes a state of it.
                let _ = std::fs::remove_file(file);
            }
        }
    }
}

/// What a state is and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateInfo {
    /// Drawn when the state was made.
    pub identity: u64,
    pub target: Target,
    /// An import into this state has begun and not finished: nobody knows what the service holds.
    pub is_importing: bool,
}

impl StateInfo {
    /// How the state's target differs from the one that is called, as words.
    #[must_use]
    pub fn other_target(&self, target: &Target) -> Option<String> {
        (self.target != *target).then(|| format!("the state belongs to {}, not to {target}", self.target))
    }
}

/// Why a state cannot be used.
#[derive(Debug, Error)]
pub enum StateError {
    #[error("another chatlift is at work on {}", path.display())]
    Locked { path: PathBuf },
    #[error("{} is no state of chatlift", path.display())]
    Foreign { path: PathBuf },
    #[error("{} is no state of chatlift: it is {kind}, not a file", path.display())]
    NoFile { path: PathBuf, kind: &'static str },
    #[error("{} is of version {version}; this chatlift reads versions {} to {}", path.display(), schema::OLDEST, schema::VERSION)]
    Version { path: PathBuf, version: i64 },
    #[error("cannot {what} {}", path.display())]
    Database {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error("cannot {what} {}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// What was to be written comes from a file that cannot be read.
    #[error("cannot use a temporary file")]
    Source(#[source] io::Error),
    #[error("{} was changed by another process while it was read", path.display())]
    Changed { path: PathBuf },
    #[error("the state {} is gone", path.display())]
    Gone { path: PathBuf },
    #[error("{} is not the state that this run has begun in: another was put in its place since", path.display())]
    OtherRun { path: PathBuf },
}

impl StateError {
    /// Whether another program is looking at the file, or changing it, for longer than is waited for.
    #[must_use]
    pub fn is_others(&self) -> bool {
        match self {
            StateError::Locked { .. } | StateError::Changed { .. } => true,
            StateError::Database { source, .. } => {
                matches!(source.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
            }
            StateError::Foreign { .. }
            | StateError::NoFile { .. }
            | StateError::Version { .. }
            | StateError::File { .. }
            | StateError::Source(_)
            | StateError::Gone { .. }
            | StateError::OtherRun { .. } => false,
        }
    }

    /// Whether it is the caller's choice of a file that is wrong, not the disk.
    #[must_use]
    pub fn is_callers(&self) -> bool {
        match self {
            StateError::Locked { .. }
            | StateError::Foreign { .. }
            | StateError::NoFile { .. }
            | StateError::Version { .. }
            | StateError::OtherRun { .. } => true,
            StateError::Database { source, .. } => {
                matches!(source.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly))
            }
            StateError::File { source, .. } => {
                use io::ErrorKind::{InvalidInput, IsADirectory, NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};
                matches!(source.kind(), NotFound | PermissionDenied | IsADirectory | NotADirectory | ReadOnlyFilesystem | InvalidInput)
            }
            StateError::Source(_) | StateError::Changed { .. } | StateError::Gone { .. } => false,
        }
    }
}

/// Takes the right to change the state at `path`, under whatever name; the file of the lock stands beside it.
///
/// # Errors
/// [`StateError::Locked`] if another process has it, as [`ensure_file`], or the disk's.
pub fn lock(path: &Path) -> Result<StateLock, StateError> {
    ensure_file(path)?;
    let [_, beside, ..] = names(path);
    let cannot = |source| StateError::File { what: "lock", path: beside.clone(), source };
    let file = lock::take(&beside).map_err(cannot)?.ok_or_else(|| StateError::Locked { path: path.to_owned() })?;
    let is_state_for_nothing = Cell::new(false);
    let lock = StateLock { path: path.to_owned(), file: RefCell::new(file), own: OnceCell::new(), is_state_for_nothing };
    lock.hold().map(|()| lock)
}

/// Refuses what is there under the name of a state and is no file: a pipe would be waited for without an end.
///
/// # Errors
/// [`StateError::NoFile`].
pub fn ensure_file(path: &Path) -> Result<(), StateError> {
    let no_file = |path: &Path| std::fs::metadata(path).ok().map(|stat| stat.file_type()).filter(|kind| !kind.is_file());
    let refused = |path: &Path, kind| Err(StateError::NoFile { path: path.to_owned(), kind: describe(kind) });
    if let Some(kind) = no_file(path) {
        return refused(path, kind);
    }
    // Whatever else is wrong with what stands beside it is told by whoever opens it.
    let beside = names(path).into_iter().skip(1).find_map(|name| no_file(&name).filter(|kind| !kind.is_dir()).map(|kind| (name, kind)));
    beside.map_or(Ok(()), |(name, kind)| refused(&name, kind))
}

/// The names that a state takes: its own, its lock's, that of the file in which SQLite keeps what a change may have to undo, those under
/// which older versions are kept, and those of the two files that SQLite would take for its own if they were there. Whatever links lead to
/// it, they are the same.
#[must_use]
pub fn names(path: &Path) -> [PathBuf; 7] {
    let path = resolved(path);
    ["", ".lock", "-journal", ".v1", ".v2", "-wal", "-shm"].map(|ending| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        name.into()
    })
}

/// Makes sure that there is a file, private to its owner.
fn create(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    if file.metadata()?.len() == 0 {
        // It may have been there.
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.sync_all()?;
        sync_folder_of(&resolved(path))?;
    }
    Ok(())
}

impl StateDb {
    /// Opens a state to look at it; `None` if there is none. Nothing is written, unless a crash left a transaction to roll back.
    ///
    /// # Errors
    /// [`StateError`] for a file that is no state or can't be read.
    pub fn find(path: &Path) -> Result<Option<Self>, StateError> {
        ensure_file(path)?;
        match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateError::File { what: "read", path: path.to_owned(), source }),
            Ok(_) => {}
        }
        let mut state = Self::connect(path)?;
        Ok(if state.is_begun()? { Some(state) } else { None })
    }

    /// Opens a state that must be there.
    ///
    /// # Errors
    /// [`StateError::Gone`] if it isn't, else as [`StateDb::find`].
    pub fn open(path: &Path) -> Result<Self, StateError> {
        Self::find(path)?.ok_or_else(|| StateError::Gone { path: path.to_owned() })
    }

    /// Opens a state, and makes it, private to its owner, if there is none.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn open_or_create(path: &Path, target: &Target, identity: u64) -> Result<Self, StateError> {
        if let Some(state) = Self::find(path)? {
            return Ok(state);
        }
        create(path).map_err(|source| StateError::File { what: "create", path: path.to_owned(), source })?;
        let mut state = Self::connect(path)?;
        state.change("create", |change| schema::create(change, target, identity))?;
        Ok(state)
    }

    fn connect(path: &Path) -> Result<Self, StateError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = |source: rusqlite::Error| match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => StateError::Foreign { path: path.to_owned() },
            _ => StateError::Database { what: "open", path: path.to_owned(), source },
        };
        let db = Connection::open_with_flags(path, flags).map_err(database)?;
        schema::configure(&db, READER_WAITS).map_err(database)?;
        Ok(Self { path: path.to_owned(), db, version: schema::VERSION })
    }

    /// Whether the file has been made a state; an empty one has not.
    fn is_begun(&mut self) -> Result<bool, StateError> {
        match schema::found(&self.db).map_err(self.cannot("read"))? {
            schema::FoundSchema::Nothing => Ok(false),
            schema::FoundSchema::State(schema::VERSION) => Ok(true),
            schema::FoundSchema::State(version) => {
                schema::show(&self.db, version).map_err(self.cannot("read"))?;
                self.version = version;
                Ok(true)
            }
            schema::FoundSchema::Version(version) => Err(StateError::Version { path: self.path.clone(), version }),
            schema::FoundSchema::Foreign => Err(StateError::Foreign { path: self.path.clone() }),
        }
    }

    /// Whose it is and where it stands.
    ///
    /// # Errors
    /// The database's, as everywhere here.
    pub fn about(&self) -> Result<StateInfo, StateError> {
        schema::about(&self.db).map_err(self.cannot("read"))
    }

    /// Binds it to another target.
    ///
    /// # Errors
    /// The database's.
    pub fn retarget(&mut self, target: &Target) -> Result<(), StateError> {
        self.change("change", |change| schema::retarget(change, target))
    }

    fn cannot(&self, what: &'static str) -> impl Fn(rusqlite::Error) -> StateError + '_ {
        move |source| StateError::Database { what, path: self.path.clone(), source }
    }

    /// Makes a state of an older version one of today's; as it was, it is kept beside. A crash leaves one or the other, whole.
    fn carry_over(&mut self) -> Result<(), StateError> {
        let [own, _, _, first, second, ..] = names(&self.path);
        let old = if self.version == schema::OLDEST { first } else { second };
        keep_copy(&own, &old).map_err(|source| StateError::File { what: "keep the older state as", path: old.clone(), source })?;
        // What is written from here on is of this version.
        let version = std::mem::replace(&mut self.version, schema::VERSION);
        let done = self.change("carry over", |change| schema::carry_over(change, version));
        let waiting = match done {
            Err(error) => {
                self.version = version;
                return Err(error);
            }
            Ok(waiting) => waiting,
        };
        tracing::info!("{} is carried over to version {}; as it was, it is kept as {}", own.display(), self.version, old.display());
        if waiting > 0 {
            let waiting = crate::domain::figures::count(waiting as u64);
            tracing::warn!(
                "due in the unfinished run of the older version: {waiting}; these missing accounts wait for the next run, which compares them \
                 with the file"
            );
        }
        Ok(())
    }

    /// A change that happens as a whole or not at all, and lasts.
    fn change<T>(
        &mut self,
        what: &'static str,
        work: impl FnOnce(&rusqlite::Transaction) -> Result<T, ChangeError>,
    ) -> Result<T, StateError> {
        if self.version < schema::VERSION {
            self.carry_over()?;
        }
        let changed = || -> Result<T, ChangeError> {
            self.db.busy_timeout(WRITER_WAITS)?;
            let change = self.db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let done = work(&change)?;
            change.commit()?;
            self.db.busy_timeout(READER_WAITS)?;
            Ok(done)
        };
        changed().map_err(|error| self.state_error(what, error))
    }

    fn state_error(&self, what: &'static str, error: ChangeError) -> StateError {
        match error {
            ChangeError::Database(source) => self.cannot(what)(source),
            ChangeError::Source(source) => StateError::Source(source),
            ChangeError::Changed => StateError::Changed { path: self.path.clone() },
        }
    }

    /// Waits until nobody looks at the file, as long as a change would: what is to be written later should not fail for that, nor for a folder
    /// that takes no file beside it, which every change needs.
    ///
    /// # Errors
    /// The database's, see [`StateError::is_others`], or that of the folder.
    pub fn ensure_changeable(&self) -> Result<(), StateError> {
        let [own, ..] = names(&self.path);
        let folder = folder_of(&own);
        accessat(CWD, folder, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).map_err(|error| StateError::File {
            what: "make files in",
            path: folder.to_owned(),
            source: error.into(),
        })?;
        let wait = || {
            self.db.busy_timeout(WRITER_WAITS)?;
            self.db.execute_batch("BEGIN EXCLUSIVE; ROLLBACK")?;
            self.db.busy_timeout(READER_WAITS)
        };
        wait().map_err(self.cannot("change"))
    }
}

/// Copies a file, private to its owner: its name appears once its bytes last, and lasts when this returns.
fn keep_copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut copy = AtomicFile::create(to, Readers::Owner)?;
    io::copy(&mut File::open(from)?, &mut copy)?;
    copy.take_name_durably()
}

/// What can go wrong in a change: the database, or the files from which it is fed.
#[derive(Debug)]
enum ChangeError {
    Database(rusqlite::Error),
    Source(io::Error),
    /// By another process, while it was looked at.
    Changed,
}

impl From<rusqlite::Error> for ChangeError {
    fn from(error: rusqlite::Error) -> Self {
        ChangeError::Database(error)
    }
}

impl From<io::Error> for ChangeError {
    fn from(error: io::Error) -> Self {
        ChangeError::Source(error)
    }
}
