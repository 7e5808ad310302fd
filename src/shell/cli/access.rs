//! Explains why the system denies access to a file: its owner and permissions, and the user of this process.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::process::{getegid, geteuid};

use crate::io::files::{folder_of, resolved};
use crate::shell::exit::{Exit, ExitMessage, MORE_FILES};

/// An addition to the error message about `path`: permissions and owner of the file or folder that denies access, or nothing.
pub(super) fn why_denied(path: &Path, error: &io::Error) -> String {
    if error.kind() != ErrorKind::PermissionDenied {
        return String::new();
    }
    let denying_path = denying_path(path);
    let Ok(stat) = fs::metadata(&denying_path) else { return String::new() };
    let who = owner(geteuid().as_raw(), "/etc/passwd");
    format!(
        " ({} belongs to {} and group {}, mode {:04o}; this process is {who}, group {})",
        denying_path.display(),
        owner(stat.uid(), "/etc/passwd"),
        owner(stat.gid(), "/etc/group"),
        stat.mode() & 0o7777,
        owner(getegid().as_raw(), "/etc/group"),
    )
}

/// The same as [`why_denied`] for a file that is read and written and gets other files beside it, when no error names the cause.
pub(super) fn why_not_writable(path: &Path) -> String {
    let file = resolved(path);
    let folder = folder_of(&file);
    let needed = [(file.as_path(), Access::READ_OK | Access::WRITE_OK), (folder, Access::WRITE_OK | Access::EXEC_OK)];
    let denied =
        |(place, access): (&Path, Access)| accessat(CWD, place, access, AtFlags::EACCESS).err().map(|error| (place.to_owned(), error));
    needed.into_iter().find_map(denied).map_or_else(String::new, |(place, error)| why_denied(&place, &error.into()))
}

/// The first folder in the path that may not be entered; otherwise the file, or the folder in which it cannot be created.
fn denying_path(path: &Path) -> PathBuf {
    let folders: Vec<&Path> = path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()).collect();
    let may_enter = |folder: &Path| accessat(CWD, folder, Access::EXEC_OK, AtFlags::EACCESS).is_ok();
    if let Some(shut) = folders.iter().rev().find(|folder| folder.exists() && !may_enter(folder)) {
        return shut.to_path_buf();
    }
    if path.exists() {
        return path.to_owned();
    }
    folders.first().map_or_else(|| PathBuf::from("."), |folder| folder.to_path_buf())
}

/// A user or group as a number, with its name if the machine's own list has it.
fn owner(number: u32, list: &str) -> String {
    let list = fs::read_to_string(list).unwrap_or_default();
    let name = list.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(number)).then_some(name)
    });
    name.map_or_else(|| number.to_string(), |name| format!("{name} ({number})"))
}

/// The hints for a file that cannot be used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Remedies<'a> {
    /// The hint if the path or its permissions are the cause.
    pub(super) place: &'a str,
    /// The hint if the disk is the cause.
    pub(super) disk: &'a str,
}

/// The exit message for a file that cannot be used. The user must correct the path or the limit of open files; everything else is a disk
/// error.
pub(super) fn cannot_use(why: String, error: &io::Error, remedies: Remedies) -> ExitMessage {
    if is_out_of_files(error) {
        ExitMessage::yours(why, MORE_FILES)
    } else if is_callers(error) {
        ExitMessage::yours(why, remedies.place)
    } else {
        ExitMessage::new(Exit::Fatal, why, remedies.disk)
    }
}

/// Whether the cause is the path that the user has chosen.
pub(super) fn is_callers(error: &io::Error) -> bool {
    use ErrorKind::{InvalidFilename, InvalidInput, IsADirectory, NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};
    let kinds = [InvalidFilename, InvalidInput, IsADirectory, NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem];
    kinds.contains(&error.kind())
}

/// Whether the limit of open files, of this process or of the machine, is the cause.
pub(super) fn is_out_of_files(error: &io::Error) -> bool {
    error
        .raw_os_error()
        .is_some_and(|code| [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE].iter().any(|full| full.raw_os_error() == code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_path_is_a_user_error_and_a_full_disk_is_not() {
        let remedies = Remedies { place: "name another", disk: "make room" };
        let check = |error: io::Error, expected: (Exit, &str)| {
            let word = cannot_use("why".to_owned(), &error, remedies);
            assert_eq!((word.exit, word.hint.as_deref()), (expected.0, Some(expected.1)), "{error}");
        };
        check(ErrorKind::PermissionDenied.into(), (Exit::UserError, "name another"));
        check(ErrorKind::StorageFull.into(), (Exit::Fatal, "make room"));
        check(rustix::io::Errno::MFILE.into(), (Exit::UserError, MORE_FILES));
    }

    #[test]
    fn messages_name_the_owner() {
        assert_eq!(owner(0, "/etc/passwd"), "root (0)");
        assert_eq!(owner(4_000_000_000, "/etc/passwd"), "4000000000");
        assert_eq!(owner(7, "/missing"), "7");
        let denied = io::Error::from(ErrorKind::PermissionDenied);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing");
        assert!(why_denied(&path, &denied).contains(&format!("{} belongs to", folder.path().display())));
        fs::write(&path, "").unwrap();
        assert!(why_denied(&path, &denied).contains(&format!("{} belongs to", path.display())));
        assert_eq!(why_denied(&path, &ErrorKind::NotFound.into()), "");
    }
}
