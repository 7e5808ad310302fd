//! The files of a sandbox: its accounts and its call log. The changes of a request are written before it is answered.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::accounts::StoredAccounts;
use super::call_log_entry::HEADER;
use super::persistence::AccountsFile;
use super::service::{Service, Trace, Traces};
use super::user_ids::UserIdRules;

/// The last line break of a call log is searched in this many bytes at its end. Chosen: more than one request can write.
const TAIL_MAX: u64 = 16 * 1024 * 1024;

/// The open files of a sandbox; either may be absent.
#[derive(Debug, Default)]
pub struct Files {
    accounts: Option<AccountsFile>,
    call_log: Option<CallLog>,
    /// The accounts from the file, with which the service starts.
    stored: StoredAccounts,
    failure: Option<FilesError>,
}

/// Why a file cannot be used.
#[derive(Debug, Error)]
pub enum FilesError {
    #[error("cannot {what} {}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is in use by another sandbox", .0.display())]
    InUse(PathBuf),
    #[error("{}, line {line}: {why}", path.display())]
    Wrong { path: PathBuf, line: u64, why: String },
    #[error("{} is no call log: its first line is not {}", .0.display(), HEADER.trim_end())]
    NoCallLog(PathBuf),
}

impl FilesError {
    pub(super) fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| FilesError::Io { what, path, source }
    }
}

/// Files that this start creates. They are removed if the start fails.
#[derive(Debug, Default)]
pub(super) struct CreatedFiles {
    paths: Vec<PathBuf>,
    /// The lock file, if this start created it; held until the other files are removed.
    lock: Option<(PathBuf, File)>,
}

impl CreatedFiles {
    /// Remembers a file that is about to be created, unless it exists.
    pub(super) fn note(&mut self, path: &Path) {
        if fs::symlink_metadata(path).is_err() {
            self.paths.push(path.to_owned());
        }
    }

    pub(super) fn locked(&mut self, path: &Path, lock: File) {
        self.lock = Some((path.to_owned(), lock));
    }

    /// A file that cannot be removed stays, as after a kill.
    fn undo(self) {
        let lock = self.lock.as_ref().map(|(path, _)| path);
        for path in self.paths.iter().chain(lock) {
            let _ = fs::remove_file(path);
        }
    }
}

impl Files {
    /// Opens the accounts file and the call log if they are given, and creates those that do not exist.
    ///
    /// # Errors
    /// [`FilesError`]; no account is lost then, and files that this call created are removed.
    pub fn open(accounts: Option<&Path>, call_log: Option<&Path>) -> Result<Self, FilesError> {
        Self::open_for(UserIdRules::default(), accounts, call_log)
    }

    /// The same for an app with these rules for UserIDs.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_for(ids: UserIdRules, accounts: Option<&Path>, call_log: Option<&Path>) -> Result<Self, FilesError> {
        let mut created = CreatedFiles::default();
        let accounts = accounts.map(|path| AccountsFile::open(path, ids, &mut created)).transpose();
        let opened = accounts.and_then(|accounts| Self::with_log(accounts, call_log, &mut created));
        if opened.is_err() {
            created.undo();
        }
        opened
    }

    fn with_log(
        accounts: Option<(AccountsFile, StoredAccounts)>,
        call_log: Option<&Path>,
        created: &mut CreatedFiles,
    ) -> Result<Self, FilesError> {
        let (accounts, stored) = accounts.map_or_else(Default::default, |(accounts, stored)| (Some(accounts), stored));
        let call_log = call_log.map(|path| CallLog::open(path, created)).transpose()?;
        Ok(Self { accounts, call_log, stored, failure: None })
    }

    pub(super) fn take_stored(&mut self) -> StoredAccounts {
        std::mem::take(&mut self.stored)
    }

    /// Asks the service to record what the files need.
    pub(super) fn ask(&self, service: &mut Service) {
        if self.accounts.is_some() {
            service.note(Trace::Changes);
        }
        if self.call_log.is_some() {
            service.note(Trace::CallLog);
        }
    }

    /// Writes what a request changed. After a failure nothing more is written.
    ///
    /// # Errors
    /// The first [`FilesError`] of this sandbox, at every call from then on.
    pub(super) fn append(&mut self, traces: &Traces) -> Result<(), &FilesError> {
        if self.failure.is_none() {
            self.failure = self.write(traces).err();
        }
        self.failure.as_ref().map_or(Ok(()), Err)
    }

    /// Rewrites the accounts file at the end.
    ///
    /// # Errors
    /// The first [`FilesError`] of this sandbox. Every change that was answered is in the log all the same.
    pub(super) fn rewrite(&mut self, stored: &StoredAccounts) -> Result<(), FilesError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        self.accounts.as_mut().map_or(Ok(()), |accounts| accounts.rewrite(stored))
    }

    fn write(&mut self, traces: &Traces) -> Result<(), FilesError> {
        if let Some(accounts) = &mut self.accounts
            && !traces.changes.is_empty()
        {
            accounts.append(&traces.changes)?;
        }
        if let Some(log) = &mut self.call_log
            && !traces.call_log.is_empty()
        {
            log.file.write_all(&traces.call_log).map_err(FilesError::at("write", &log.path))?;
        }
        Ok(())
    }
}

/// A file with one line per user and request. It is only appended to.
#[derive(Debug)]
struct CallLog {
    path: PathBuf,
    file: File,
}

impl CallLog {
    fn open(path: &Path, created: &mut CreatedFiles) -> Result<Self, FilesError> {
        created.note(path);
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
        let mut file = file.map_err(FilesError::at("open", path))?;
        let mut start = Vec::new();
        (&mut file).take(HEADER.len() as u64).read_to_end(&mut start).map_err(FilesError::at("read", path))?;
        if start.len() < HEADER.len() && HEADER.as_bytes().starts_with(&start) {
            file.set_len(0).and_then(|()| file.write_all(HEADER.as_bytes())).map_err(FilesError::at("write", path))?;
        } else if start != HEADER.as_bytes() {
            return Err(FilesError::NoCallLog(path.to_owned()));
        }
        cut_torn_line(&mut file).map_err(FilesError::at("cut", path))?;
        Ok(Self { path: path.to_owned(), file })
    }
}

/// Removes an incomplete last line, which a kill may leave. Its request was never answered.
fn cut_torn_line(file: &mut File) -> io::Result<()> {
    let length = file.seek(SeekFrom::End(0))?;
    let from = file.seek(SeekFrom::Start(length.saturating_sub(TAIL_MAX)))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    let whole = tail.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    if whole < tail.len() {
        file.set_len(from + whole as u64)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_call_log_continues_after_its_last_complete_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("calls.csv");
        let traces = Traces { call_log: b"kick,u,0\n".to_vec(), ..Traces::default() };
        for _ in 0..2 {
            let mut files = Files::open(None, Some(&path)).unwrap();
            files.append(&traces).unwrap();
            let torn = Traces { call_log: b"kick,".to_vec(), ..Traces::default() };
            files.append(&torn).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "command,UserID,code\nkick,u,0\nkick,u,0\nkick,");
    }

    #[test]
    fn a_file_that_is_no_call_log_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.csv");
        fs::write(&path, "UserID\nu").unwrap();
        assert!(matches!(Files::open(None, Some(&path)), Err(FilesError::NoCallLog(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "UserID\nu");
    }

    #[test]
    fn after_a_failure_nothing_is_written_and_the_end_reports_it() {
        let full = Path::new("/dev/full");
        let Ok(file) = OpenOptions::new().append(true).open(full) else { return };
        let mut files = Files { call_log: Some(CallLog { path: full.to_owned(), file }), ..Files::default() };
        files.append(&Traces::default()).unwrap();
        assert!(files.append(&Traces { call_log: b"kick,u,0\n".to_vec(), ..Traces::default() }).is_err());
        assert!(files.append(&Traces::default()).is_err());
        assert!(files.rewrite(&StoredAccounts::default()).unwrap_err().to_string().contains("/dev/full"));
    }
}
