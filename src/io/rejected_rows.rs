//! Reads from the results of a run, or of a verification, what was rejected: for a report, while they grow.
//!
//! Memory holds one row. What is read was written by chatlift, so a file that is none of its own ends the reading, and no more.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::PathBuf;

use csv::{ByteRecord, ReaderBuilder};

/// What becomes of a row that is no success, as results and verifications call it.
const REJECTED: [&[u8]; 5] = [b"failed", b"invalid", b"missing", b"differs", b"unknown"];

/// A row that was rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedRow {
    pub row: String,
    pub line: String,
    pub user_id: String,
    /// As the file has it.
    pub status: String,
    pub error_code: Option<i64>,
    pub reason: String,
}

/// The results of a run, read up to some place.
#[derive(Debug)]
pub struct RejectedRows {
    path: PathBuf,
    /// `None` until its header is read.
    columns: Option<Columns>,
    offset: u64,
}

/// The places of the columns. The code is only in results of runs.
#[derive(Debug, Clone, Copy)]
struct Columns {
    status: usize,
    code: Option<usize>,
    reason: usize,
}

impl Columns {
    /// Source: the contracts of results and of verifications.
    fn of(header: &ByteRecord) -> Option<Self> {
        let at = |name: &[u8]| header.iter().position(|column| column == name);
        match (at(b"status"), at(b"state")) {
            (Some(status), _) => Some(Self { status, code: at(b"error_code"), reason: at(b"error_info")? }),
            (None, Some(status)) => Some(Self { status, code: None, reason: at(b"detail")? }),
            (None, None) => None,
        }
    }

    fn rejected(&self, record: &ByteRecord) -> Option<RejectedRow> {
        let text = |at: usize| String::from_utf8_lossy(record.get(at).unwrap_or_default()).into_owned();
        let is_rejected = REJECTED.contains(&record.get(self.status)?);
        is_rejected.then(|| RejectedRow {
            row: text(0),
            line: text(1),
            user_id: text(2),
            status: text(self.status),
            error_code: self.code.and_then(|code| text(code).parse().ok()),
            reason: text(self.reason),
        })
    }
}

impl RejectedRows {
    #[must_use]
    pub const fn of(path: PathBuf) -> Self {
        Self { path, columns: None, offset: 0 }
    }

    /// Whether the file is shorter than what was read of it.
    #[must_use]
    pub fn is_replaced(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|stat| stat.len() < self.offset)
    }

    /// Reads from the start the next time.
    pub fn begin_again(&mut self) {
        (self.columns, self.offset) = (None, 0);
    }

    /// Reads on, up to this place of the file, or to its end. What is behind the place may be half written.
    ///
    /// # Errors
    /// The disk's; a file that is not there yet is none.
    pub fn read_on(&mut self, up_to: Option<u64>, mut take: impl FnMut(RejectedRow)) -> io::Result<()> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file?,
        };
        file.seek(SeekFrom::Start(self.offset))?;
        let begun_at = self.offset;
        let length = up_to.unwrap_or(u64::MAX).saturating_sub(begun_at);
        let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(BufReader::new(file.take(length)));
        let mut record = ByteRecord::new();
        while reader.read_byte_record(&mut record)? {
            match self.columns {
                Some(columns) => columns.rejected(&record).into_iter().for_each(&mut take),
                None => match Columns::of(&record) {
                    Some(columns) => self.columns = Some(columns),
                    None => return Ok(()),
                },
            }
            self.offset = begun_at + reader.position().byte();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_on_where_it_stopped_and_no_further_than_it_may() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.csv");
        let header = "row,line,UserID,status,error_code,error_info,attempts,finished_at\n";
        let first = format!("{header}1,2,a,imported,,,1,T\n2,3,\"b\n\"\"\",failed,70402,no,1,T\n");
        std::fs::write(&path, format!("{first}3,5,c,inva")).unwrap();
        let (mut rows, mut rejected) = (RejectedRows::of(path.clone()), Vec::new());
        rows.read_on(Some(first.len() as u64), |row| rejected.push(row)).unwrap();
        assert_eq!(rejected.len(), 1);
        assert_eq!((rejected[0].user_id.as_str(), rejected[0].error_code, rejected[0].reason.as_str()), ("b\n\"", Some(70402), "no"));
        std::fs::write(&path, format!("{first}3,5,c,invalid,,UserID is empty,0,T\n")).unwrap();
        rows.read_on(None, |row| rejected.push(row)).unwrap();
        rows.read_on(None, |row| rejected.push(row)).unwrap();
        assert_eq!(rejected.iter().map(|row| row.row.as_str()).collect::<Vec<_>>(), ["2", "3"]);
    }

    #[test]
    fn a_verification_has_states_and_details_and_other_files_have_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v.csv");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let mut found = Vec::new();
            RejectedRows::of(path.clone()).read_on(None, |row| found.push((row.status, row.reason))).unwrap();
            found
        };
        let owned = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
        assert_eq!(read("row,line,UserID,state,detail\n1,2,a,same,\n2,3,b,differs,Nick\n"), [owned("differs", "Nick")]);
        assert_eq!(read("a,b\nfailed,failed\n"), []);
        assert!(RejectedRows::of(folder.path().join("none")).read_on(None, |_| panic!("there are no rows")).is_ok());
    }
}
