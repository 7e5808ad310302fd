//! The files of a verification: its results, and the rows that would repair the accounts.
//!
//! Each is written under a temporary name, readable only by its owner, and renamed at the end. Until then, and if there is nothing to
//! write, the file of an earlier verification stays as it was.

use std::io;
use std::path::{Path, PathBuf};

use csv::ByteRecord;

use crate::domain::comparison::{Finding, Findings};
use crate::domain::figures::defused;
use crate::io::csv_out;
use crate::io::files::atomic::{AtomicFile, remove};

/// The header of the results.
const RESULTS_HEADER: [&str; 5] = ["row", "line", "UserID", "state", "detail"];

/// The paths of the files.
#[derive(Debug, Clone)]
pub struct VerificationPaths {
    pub results: PathBuf,
    pub repair: PathBuf,
}

/// The header and the delimiter of the input. The repair file has them too, so that it can be imported as it is.
#[derive(Debug, Clone)]
pub struct OriginalFormat {
    pub header: ByteRecord,
    pub delimiter: u8,
}

/// Results and repair file while they are being written.
#[derive(Debug)]
pub struct VerificationFiles {
    paths: VerificationPaths,
    original: OriginalFormat,
    results: CsvFile,
    /// `None` until there is something to repair.
    repair: Option<CsvFile>,
}

impl VerificationFiles {
    /// Creates the results file.
    ///
    /// # Errors
    /// [`io::Error`] if it cannot be created; [`io::ErrorKind::ResourceBusy`] if another verification is writing it.
    pub fn create(paths: VerificationPaths, original: OriginalFormat) -> io::Result<Self> {
        let mut results = create(&paths.results, b',')?;
        results.write_record(RESULTS_HEADER)?;
        Ok(Self { paths, original, results, repair: None })
    }

    /// Gives the files their names and returns whether there is something to repair. If there is nothing and the verification is
    /// `complete`, an earlier repair file is removed.
    ///
    /// # Errors
    /// [`io::Error`] if a file cannot be written, renamed or removed.
    pub fn finish(self, complete: bool) -> io::Result<bool> {
        let has_repair = self.repair.is_some();
        match self.repair {
            Some(repair) => take_name(repair)?,
            None if complete => remove(&self.paths.repair)?,
            None => {}
        }
        take_name(self.results)?;
        Ok(has_repair)
    }

    fn repair(&mut self) -> io::Result<&mut CsvFile> {
        match &mut self.repair {
            Some(repair) => Ok(repair),
            none => {
                let mut repair = create(&self.paths.repair, self.original.delimiter)?;
                repair.write_byte_record(&self.original.header)?;
                Ok(none.insert(repair))
            }
        }
    }
}

impl Findings for VerificationFiles {
    type Error = io::Error;

    fn take(&mut self, finding: Finding) -> io::Result<()> {
        let Finding { row, line, user_id, other_id: _, state, original } = finding;
        let detail = state.detail();
        let detail = defused(&detail);
        let (row, line) = (row.to_string(), line.to_string());
        self.results.write_record([row.as_bytes(), line.as_bytes(), &user_id, state.name().as_bytes(), detail.as_bytes()])?;
        if let Some(original) = original {
            self.repair()?.write_byte_record(&original)?;
        }
        Ok(())
    }
}

/// A CSV file under a temporary name.
type CsvFile = csv::Writer<AtomicFile>;

fn create(path: &Path, delimiter: u8) -> io::Result<CsvFile> {
    AtomicFile::create_alone(path).map(|file| csv_out::writer(delimiter, file))
}

fn take_name(csv: CsvFile) -> io::Result<()> {
    csv.into_inner().map_err(csv::IntoInnerError::into_error)?.take_name_durably()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::domain::account::Field;
    use crate::domain::comparison::{Comparison, Differing};
    use crate::domain::tag::Tag;

    fn finding(row: u64, state: Comparison) -> Finding {
        let original = state.is_repairable().then(|| ByteRecord::from(vec!["=x;y", "n \"q\"", "more"]));
        Finding { row, line: row + 1, user_id: (*b"=x,y").into(), other_id: None, state, original }
    }

    fn files(folder: &Path) -> VerificationFiles {
        let paths = VerificationPaths { results: folder.join("r.csv"), repair: folder.join("repair.csv") };
        let header = ByteRecord::from(vec!["UserID", "Nick", "city"]);
        VerificationFiles::create(paths, OriginalFormat { header, delimiter: b';' }).unwrap()
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn each_state_has_a_line_and_each_repairable_row_its_record() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = files(folder.path());
        let states = [
            Comparison::Same,
            Comparison::Missing,
            Comparison::Differs(Differing { fields: vec![Field::Nick, Field::FaceUrl], tags: vec![Tag::Gender] }),
            Comparison::Unknown("=1\n+1".to_owned()),
            Comparison::Invalid("why".to_owned()),
        ];
        for (state, row) in states.into_iter().zip(1..) {
            files.take(finding(row, state)).unwrap();
        }
        assert_eq!(names(folder.path()), [".r.csv.tmp", ".repair.csv.tmp"]);
        assert!(files.finish(true).unwrap());
        assert_eq!(names(folder.path()), ["r.csv", "repair.csv"]);
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(
            read("r.csv"),
            "row,line,UserID,state,detail\n1,2,\"=x,y\",same,\n2,3,\"=x,y\",missing,\n3,4,\"=x,y\",differs,Nick FaceUrl Gender\n\
             4,5,\"=x,y\",unknown,\"'=1\n+1\"\n5,6,\"=x,y\",invalid,why\n"
        );
        let record = "\"=x;y\";\"n \"\"q\"\"\";more\n";
        assert_eq!(read("repair.csv"), format!("UserID;Nick;city\n{record}{record}"));
        for name in ["r.csv", "repair.csv"] {
            assert_eq!(fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn an_unfinished_verification_keeps_earlier_files_and_a_finished_one_removes_old_repairs() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["r.csv", "repair.csv", ".r.csv.tmp"] {
            fs::write(folder.path().join(name), "old").unwrap();
        }
        drop(files(folder.path()));
        assert_eq!(names(folder.path()), ["r.csv", "repair.csv"]);
        assert_eq!(fs::read_to_string(folder.path().join("r.csv")).unwrap(), "old");
        assert!(!files(folder.path()).finish(true).unwrap());
        assert_eq!(names(folder.path()), ["r.csv"]);
        assert_eq!(fs::read_to_string(folder.path().join("r.csv")).unwrap(), "row,line,UserID,state,detail\n");
    }
}
