//! Keeps accounts across restarts: a CSV file, and beside it a log of the changes since the file was written.
//!
//! The log is appended to before a request is answered, and is not synced. A change that was answered survives any end of the process, but
//! not a crash of the machine. At start and end the CSV file is rewritten, and the log is emptied except for the deleted UserIDs.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::accounts::{AccountChange, StoredAccounts};
use super::files::{CreatedFiles, FilesError};
use super::parsed_request::check_account;
use super::tags;
use super::user_ids::UserIdRules;
use crate::io::api::wire::ImportBody;

/// The columns of every accounts file, in this order; those of the profile's other fields follow, by the names of the wire.
const COLUMNS: [&str; 3] = ["UserID", "Nick", "FaceUrl"];

/// The accounts file and its log.
#[derive(Debug)]
pub(super) struct AccountsFile {
    path: PathBuf,
    log: File,
    _lock: File,
}

impl AccountsFile {
    /// Reads the accounts file and its log, and rewrites both. Remembers in `created` which files it creates.
    ///
    /// # Errors
    /// [`FilesError`] if another process uses the file, it cannot be read or written, or it is not an accounts file.
    pub(super) fn open(path: &Path, ids: UserIdRules, created: &mut CreatedFiles) -> Result<(Self, StoredAccounts), FilesError> {
        let lock = lock(path, created)?;
        let mut stored = StoredAccounts::default();
        let log_path = beside(path, ".log");
        let (accounts, changes) = (existing(path)?, existing(&log_path)?);
        if changes.is_none() {
            created.note(&log_path);
            // If a log exists, the accounts file may soon be the only copy of the log's accounts, so it is not removed after a failure.
            created.note(path);
        }
        if let Some(file) = accounts {
            read_accounts(path, ids, file, &mut stored)?;
        }
        if let Some(file) = changes {
            read_changes(&log_path, file, &mut stored)?;
        }
        let log = rewrite(path, &stored)?;
        Ok((Self { path: path.to_owned(), log, _lock: lock }, stored))
    }

    /// Appends changes to the log.
    ///
    /// # Errors
    /// [`FilesError`]; a part of `lines` may have been written then, and nothing may be appended any more.
    pub(super) fn append(&mut self, lines: &[u8]) -> Result<(), FilesError> {
        self.log.write_all(lines).map_err(FilesError::at("write", &beside(&self.path, ".log")))
    }

    /// Rewrites the accounts file and empties the log.
    ///
    /// # Errors
    /// [`FilesError`]; the previous file and the log together still hold every change.
    pub(super) fn rewrite(&mut self, stored: &StoredAccounts) -> Result<(), FilesError> {
        self.log = rewrite(&self.path, stored)?;
        Ok(())
    }
}

/// Writes the accounts as CSV, sorted by the bytes of their UserIDs.
///
/// # Errors
/// [`io::Error`] if `out` fails.
pub(super) fn write_accounts(stored: &StoredAccounts, out: impl Write) -> io::Result<()> {
    let mut csv = csv::Writer::from_writer(out);
    let tags: BTreeSet<&str> = stored.by_id.values().flat_map(|account| account.tags.keys().map(|tag| &**tag)).collect();
    csv.write_record(COLUMNS.into_iter().chain(tags.iter().copied()))?;
    for (id, account) in stored.sorted() {
        csv.write_field(id)?;
        csv.write_field(account.nick.as_deref().unwrap_or_default())?;
        csv.write_field(account.face_url.as_deref().unwrap_or_default())?;
        for tag in &tags {
            csv.write_field(account.tags.get(*tag).map(tags::to_cell).unwrap_or_default())?;
        }
        csv.write_record(None::<&[u8]>)?;
    }
    csv.flush()
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn existing(path: &Path) -> Result<Option<File>, FilesError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FilesError::at("open", path)(error)),
    }
}

/// Locks a file that is never renamed. Only a failed start that created it removes it.
fn lock(path: &Path, created: &mut CreatedFiles) -> Result<File, FilesError> {
    let lock_path = beside(path, ".lock");
    let is_new = fs::symlink_metadata(&lock_path).is_err();
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock_path);
    let file = file.map_err(FilesError::at("open", &lock_path))?;
    match file.try_lock() {
        Ok(()) if !is_named(&file, &lock_path) => Err(FilesError::InUse(path.to_owned())),
        Ok(()) => {
            if is_new {
                created.locked(&lock_path, file.try_clone().map_err(FilesError::at("lock", &lock_path))?);
            }
            Ok(file)
        }
        Err(fs::TryLockError::WouldBlock) => Err(FilesError::InUse(path.to_owned())),
        Err(fs::TryLockError::Error(error)) => Err(FilesError::at("lock", &lock_path)(error)),
    }
}

/// Whether the path still names this file. A failed start may have removed it in the meantime.
fn is_named(file: &File, path: &Path) -> bool {
    let number = |stat: fs::Metadata| (stat.dev(), stat.ino());
    file.metadata().ok().map(number) == fs::metadata(path).ok().map(number)
}

fn read_accounts(path: &Path, ids: UserIdRules, file: impl Read, stored: &mut StoredAccounts) -> Result<(), FilesError> {
    let wrong = |line: u64, why: String| FilesError::Wrong { path: path.to_owned(), line, why };
    let torn = |error: csv::Error| {
        let (line, why) = (error.position().map_or(1, csv::Position::line), error.to_string());
        match error.into_kind() {
            csv::ErrorKind::Io(error) => FilesError::at("read", path)(error),
            _ => wrong(line, why),
        }
    };
    let mut csv = csv::Reader::from_reader(BufReader::new(file));
    let header = csv.headers().map_err(torn)?.clone();
    let columns = columns(&header).map_err(|why| wrong(1, why))?;
    for record in csv.records() {
        let record = record.map_err(torn)?;
        let cell = |column: Option<usize>| column.and_then(|column| record.get(column)).filter(|text| !text.is_empty()).map(Into::into);
        let [id, nick, face_url] = columns.map(cell);
        let account = ImportBody { user_id: id.unwrap_or_default(), nick, face_url };
        let line = record.position().map_or(1, csv::Position::line);
        check_account(&account, ids).map_err(|refusal| wrong(line, refusal.info.into_owned()))?;
        let tags = read_tags(&header, &record).map_err(|why| wrong(line, why))?;
        stored.apply(AccountChange::Set { id: account.user_id, nick: account.nick, face_url: account.face_url, tags: Cow::Owned(tags) });
    }
    Ok(())
}

/// The fields of the profile that a record of the accounts file sets.
fn read_tags(header: &csv::StringRecord, record: &csv::StringRecord) -> Result<BTreeMap<Box<str>, Value>, String> {
    let cells = header.iter().zip(record).filter(|(_, cell)| !cell.is_empty());
    cells.filter_map(|(name, cell)| Some(tags::from_cell(name, cell)?.map(|value| (name.into(), value)))).collect()
}

/// The position of each of [`COLUMNS`]. Any other column is an error, because it would be lost when the file is rewritten.
fn columns(header: &csv::StringRecord) -> Result<[Option<usize>; 3], String> {
    if let Some(other) = header.iter().find(|name| !COLUMNS.contains(name) && !tags::is_column(name)) {
        return Err(format!("the header has a column {other:?}; only UserID, Nick, FaceUrl and profile fields (Tag_Profile_…) are kept"));
    }
    let distinct: BTreeSet<&str> = header.iter().collect();
    let columns = COLUMNS.map(|column| header.iter().position(|name| name == column));
    match columns[0] {
        Some(_) if distinct.len() == header.len() => Ok(columns),
        Some(_) => Err("the header has a column twice".to_owned()),
        None => Err("the header has no column UserID".to_owned()),
    }
}

fn read_changes(path: &Path, file: impl Read, stored: &mut StoredAccounts) -> Result<(), FilesError> {
    let mut input = BufReader::new(file);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        input.read_until(b'\n', &mut line).map_err(FilesError::at("read", path))?;
        // A line without a line break was cut by a kill, and its request was never answered.
        let Some(text) = line.strip_suffix(b"\n") else { break };
        let change = serde_json::from_slice(text);
        let wrong = |error: serde_json::Error| FilesError::Wrong { path: path.to_owned(), line: number, why: error.to_string() };
        stored.apply(change.map_err(wrong)?);
    }
    Ok(())
}

/// Writes the file, then the log. A kill in between leaves changes in the log that are in the file too; applying them twice is harmless.
fn rewrite(path: &Path, stored: &StoredAccounts) -> Result<File, FilesError> {
    replace(path, |out| write_accounts(stored, out))?;
    replace(&beside(path, ".log"), |out| {
        let mut lines = Vec::new();
        for id in &stored.deleted {
            AccountChange::Deleted { id: (&**id).into() }.write_to(&mut lines);
        }
        out.write_all(&lines)
    })
}

/// Replaces a file atomically (temporary file, sync, rename) and returns it open for appending. The temporary file is removed after a
/// failure.
fn replace(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<File, FilesError> {
    let aside = beside(path, ".new");
    let written = || {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
        let mut out = BufWriter::new(file);
        write(&mut out)?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(file)
    };
    let replaced = written().map_err(FilesError::at("write", &aside));
    let replaced = replaced.and_then(|file| fs::rename(&aside, path).map(|()| file).map_err(FilesError::at("replace", path)));
    if replaced.is_err() {
        // A half-written file may fill up the disk. If it cannot be removed either, the first failure is the one to report.
        let _ = fs::remove_file(&aside);
    }
    let file = replaced?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(FilesError::at("sync the folder of", path))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn open(path: &Path) -> Result<(AccountsFile, StoredAccounts), FilesError> {
        AccountsFile::open(path, UserIdRules::default(), &mut CreatedFiles::default())
    }

    fn text(stored: &StoredAccounts) -> String {
        let mut out = Vec::new();
        write_accounts(stored, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn set(id: &str, nick: Option<&str>) -> Vec<u8> {
        let mut line = Vec::new();
        AccountChange::Set { id: id.into(), nick: nick.map(Into::into), face_url: None, tags: Cow::default() }.write_to(&mut line);
        line
    }

    #[test]
    fn the_file_is_sorted_and_readable_only_by_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("accounts.csv");
        fs::write(&path, "Nick,UserID\n\"a, \"\"b\"\"\nc\",u2\n,u10\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        drop(open(&path).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "UserID,Nick,FaceUrl\nu10,,\nu2,\"a, \"\"b\"\"\nc\",\n");
        for file in ["accounts.csv", "accounts.csv.log", "accounts.csv.lock"] {
            assert_eq!(fs::metadata(folder.path().join(file)).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
        }
    }

    #[test]
    fn changes_outlive_the_process_and_an_incomplete_line_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("accounts.csv");
        let (mut accounts, _) = open(&path).unwrap();
        accounts.append(&[set("a", Some("1")), set("b", Some("2")), set("a", None)].concat()).unwrap();
        accounts.append(b"{\"op\":\"delete\",\"UserID\":\"b\"}\n").unwrap();
        accounts.append(&set("c", Some("torn"))[..20]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "UserID,Nick,FaceUrl\n");
        drop(accounts);
        for _ in 0..2 {
            let (_, stored) = open(&path).unwrap();
            assert_eq!(
                (text(&stored).as_str(), stored.deleted.contains("b"), stored.deleted.len()),
                ("UserID,Nick,FaceUrl\na,,\n", true, 1)
            );
        }
    }

    #[test]
    fn a_kill_between_file_and_log_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("accounts.csv");
        let (mut accounts, _) = open(&path).unwrap();
        let delete = b"{\"op\":\"delete\",\"UserID\":\"a\"}\n".to_vec();
        let log = [set("a", Some("1")), delete.clone(), set("a", Some("2")), set("b", None), delete].concat();
        accounts.append(&log).unwrap();
        drop(accounts);
        let (_, first) = open(&path).unwrap();
        fs::write(beside(&path, ".log"), &log).unwrap();
        let (_, again) = open(&path).unwrap();
        assert_eq!((text(&first), &first.deleted), (text(&again), &again.deleted));
        assert_eq!(text(&again), "UserID,Nick,FaceUrl\nb,,\n");
    }

    #[test]
    fn an_account_that_is_put_back_into_the_file_is_no_longer_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("accounts.csv");
        fs::write(beside(&path, ".log"), "{\"op\":\"deleted\",\"UserID\":\"a\"}\n").unwrap();
        fs::write(&path, "UserID\na\n").unwrap();
        let (_, stored) = open(&path).unwrap();
        assert_eq!((stored.by_id.len(), stored.deleted.len()), (1, 0));
    }

    #[test]
    fn fields_of_profiles_are_columns_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("accounts.csv");
        let content = "UserID,Nick,FaceUrl,Tag_Profile_Custom_Vip,Tag_Profile_IM_Level\na,,,yes,\nb,n,,,7\n";
        fs::write(&path, content).unwrap();
        let (mut file, stored) = open(&path).unwrap();
        assert_eq!(text(&stored), content);
        assert_eq!(stored.by_id["b"].tags["Tag_Profile_IM_Level"], 7);
        file.append(b"{\"op\":\"set\",\"UserID\":\"b\",\"Tags\":{\"Tag_Profile_IM_Gender\":\"Gender_Type_Male\"}}\n").unwrap();
        drop(file);
        let (_, stored) = open(&path).unwrap();
        assert_eq!(text(&stored), "UserID,Nick,FaceUrl,Tag_Profile_Custom_Vip,Tag_Profile_IM_Gender\na,,,yes,\nb,,,,Gender_Type_Male\n");
    }

    #[test]
    fn a_file_of_another_kind_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("accounts.csv");
        let check = |name: &str, content: &[u8], expected: &str| {
            let file = beside(&path, name);
            fs::write(&file, content).unwrap();
            let told = open(&path).unwrap_err().to_string();
            assert!(told.contains(expected), "{content:?}: {told}");
            assert_eq!(fs::read(&file).unwrap(), content);
        };
        check("", b"UserID,Nick,Phone\nu,n,1\n", "line 1: the header has a column \"Phone\"");
        check("", b"Nick\nn\n", "no column UserID");
        check("", b"UserID,UserID\nn,n\n", "twice");
        check("", b"UserID\na\na b\n", "line 3: UserID holds a character");
        check("", b"UserID\na,b\n", "line 2");
        check("", b"UserID\n\xff\n", "line 2");
        check("", b"UserID,Tag_Profile_IM_Level\na,x\n", "line 2: Tag_Profile_IM_Level takes a number");
        check("", b"UserID,Tag_Profile_IM_Level,Tag_Profile_IM_Level\na,1,1\n", "twice");
        fs::write(&path, "UserID\n").unwrap();
        check(".log", b"nonsense\n{}\n", "accounts.csv.log, line 1");
    }

    #[test]
    fn two_sandboxes_do_not_share_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("accounts.csv");
        let first = open(&path).unwrap();
        assert!(matches!(open(&path), Err(FilesError::InUse(_))));
        drop(first);
        open(&path).unwrap();
    }
}
