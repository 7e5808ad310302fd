//! Formats the lines of results and rejects: RFC 4180 with line feeds.
//!
//! This module formats into memory only; the journal decides when and where the lines are written.

use std::fmt::{Display, Write};
use std::time::SystemTime;

use csv::ByteRecord;

use crate::domain::figures::defused;
use crate::domain::outcome::{ERROR_COLUMNS, OriginalRecord, Outcome, RowOutcome};
use crate::domain::position::ColumnLayout;
use crate::io::csv_out;

/// The first line of every results file.
pub const RESULTS_HEADER: &str = "row,line,UserID,status,error_code,error_info,attempts,finished_at\n";

/// Lines in the making.
#[derive(Debug)]
struct Lines {
    delimiter: u8,
    /// Those in front of what `csv` holds.
    made: Vec<u8>,
    csv: csv::Writer<Vec<u8>>,
    /// A value as text, on its way into the line.
    text: String,
}

impl Lines {
    fn new(delimiter: u8) -> Self {
        Self { delimiter, made: Vec::new(), csv: csv_out::writer(delimiter, Vec::new()), text: String::new() }
    }

    fn field(&mut self, field: impl AsRef<[u8]>) {
        self.csv.write_field(field).expect("a Vec takes any bytes");
    }

    /// Begins a line with what is several fields already; another one follows.
    fn fields_as_they_are(&mut self, text: &[u8]) {
        self.made = self.take();
        self.made.extend_from_slice(text);
        self.made.push(self.delimiter);
    }

    fn value(&mut self, value: impl Display) {
        self.text.clear();
        write!(self.text, "{value}").expect("a String takes any text");
        self.csv.write_field(&self.text).expect("a Vec takes any bytes");
    }

    fn code(&mut self, outcome: &Outcome) {
        match outcome.error_code {
            Some(code) => self.value(code),
            None => self.field(""),
        }
    }

    fn end(&mut self) {
        self.csv.write_record(None::<&[u8]>).expect("a Vec takes any bytes");
    }

    /// Bytes of memory that the lines take, less a few KiB.
    fn bytes(&self) -> usize {
        self.made.len() + self.csv.get_ref().len()
    }

    fn take(&mut self) -> Vec<u8> {
        let made = std::mem::replace(&mut self.csv, csv_out::writer(self.delimiter, Vec::new()));
        let behind = made.into_inner().expect("a Vec takes any bytes");
        if self.made.is_empty() {
            return behind;
        }
        let mut lines = std::mem::take(&mut self.made);
        lines.extend(behind);
        lines
    }
}

/// Lines of the results.
#[derive(Debug)]
pub(super) struct ResultLines {
    lines: Lines,
    /// A time and its text: the rows of a batch share it.
    finished: (SystemTime, String),
}

impl ResultLines {
    pub(super) fn new() -> Self {
        Self { lines: Lines::new(b','), finished: (SystemTime::UNIX_EPOCH, rfc3339(SystemTime::UNIX_EPOCH)) }
    }

    pub(super) fn push(&mut self, settled: &RowOutcome) {
        let RowOutcome { row, line, user_id, outcome, .. } = settled;
        if self.finished.0 != outcome.finished_at {
            self.finished = (outcome.finished_at, rfc3339(outcome.finished_at));
        }
        let lines = &mut self.lines;
        lines.value(row);
        lines.value(line);
        lines.field(user_id);
        lines.field(outcome.status.name());
        lines.code(outcome);
        lines.field(defused(&outcome.error_info).as_bytes());
        lines.value(outcome.attempts);
        lines.field(&self.finished.1);
        lines.end();
    }

    pub(super) fn bytes(&self) -> usize {
        self.lines.bytes()
    }

    pub(super) fn take(&mut self) -> Vec<u8> {
        self.lines.take()
    }
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// Lines of the rejects: the input's columns, then the error's.
#[derive(Debug)]
pub(super) struct RejectLines {
    lines: Lines,
    header: ByteRecord,
    /// Columns of the input that are kept: all but earlier runs' error columns.
    columns: Vec<usize>,
}

impl RejectLines {
    /// The columns that are read are the input's own, whatever their names.
    pub(super) fn new(header: ByteRecord, reading: &ColumnLayout, delimiter: u8) -> Self {
        let is_kept = |(column, name): &(usize, &[u8])| !ERROR_COLUMNS.contains(name) || reading.reads(*column);
        let columns = header.iter().enumerate().filter(is_kept).map(|(column, _)| column).collect();
        Self { lines: Lines::new(delimiter), header, columns }
    }

    pub(super) fn push_header(&mut self) {
        for column in &self.columns {
            self.lines.field(&self.header[*column]);
        }
        for name in ERROR_COLUMNS {
            self.lines.field(name);
        }
        self.lines.end();
    }

    pub(super) fn push(&mut self, original: &OriginalRecord, outcome: &Outcome) {
        let info = match original {
            OriginalRecord::Fields(fields) => {
                for column in &self.columns {
                    self.lines.field(fields.get(*column).unwrap_or_default());
                }
                with_surplus(&outcome.error_info, fields, self.header.len())
            }
            OriginalRecord::Text(text) => {
                self.lines.fields_as_they_are(text);
                outcome.error_info.clone()
            }
        };
        self.lines.code(outcome);
        self.lines.field(defused(&info).as_bytes());
        self.lines.end();
    }

    pub(super) fn bytes(&self) -> usize {
        self.lines.bytes()
    }

    pub(super) fn take(&mut self) -> Vec<u8> {
        self.lines.take()
    }
}

/// Tells the fields that have no column.
fn with_surplus(info: &str, original: &ByteRecord, columns: usize) -> String {
    let surplus: Vec<_> = original.iter().skip(columns).map(String::from_utf8_lossy).collect();
    if surplus.is_empty() { info.to_owned() } else { format!("{info}; surplus fields: {}", surplus.join(", ")) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::domain::outcome::Status;
    use crate::domain::position::InputPosition;

    fn settled(user_id: &[u8], outcome: Outcome) -> RowOutcome {
        RowOutcome { row: 7, line: 9, user_id: user_id.into(), outcome, end: InputPosition::START, original: None }
    }

    fn failed(error_info: &str) -> Outcome {
        let finished_at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        Outcome { status: Status::Failed, error_code: Some(70402), error_info: error_info.to_owned(), attempts: 2, finished_at }
    }

    #[test]
    fn a_result_is_a_line_whose_foreign_text_is_defused_and_whose_user_id_is_not() {
        let check = |user_id: &[u8], info: &str, expected: &[u8]| {
            let mut lines = ResultLines::new();
            lines.push(&settled(user_id, failed(info)));
            assert_eq!(String::from_utf8_lossy(&lines.take()), String::from_utf8_lossy(expected));
        };
        check(b"u", "no, \"never\"", b"7,9,u,failed,70402,\"no, \"\"never\"\"\",2,2023-11-14T22:13:20.123Z\n");
        check(b"=u", "=cmd()", b"7,9,=u,failed,70402,'=cmd(),2,2023-11-14T22:13:20.123Z\n");
        check(b"\xff", "two\nlines", b"7,9,\xff,failed,70402,\"two\nlines\",2,2023-11-14T22:13:20.123Z\n");
        assert_eq!(RESULTS_HEADER.matches(',').count(), 7);
    }

    #[test]
    fn rejects_have_the_original_fields_under_the_original_header() {
        let check = |header: &[&str], record: &[&str], expected: &str| {
            let reading = ColumnLayout { delimiter: b',', columns: [None; 3], flags: BTreeMap::new() };
            let mut lines = RejectLines::new(ByteRecord::from(header.to_vec()), &reading, b',');
            lines.push_header();
            lines.push(&OriginalRecord::Fields(ByteRecord::from(record.to_vec())), &failed("bad"));
            assert_eq!(String::from_utf8_lossy(&lines.take()), expected);
        };
        check(&["UserID", "Nick"], &["=u", "a,b"], "UserID,Nick,error_code,error_info\n=u,\"a,b\",70402,bad\n");
        check(&["UserID", "Nick"], &["u"], "UserID,Nick,error_code,error_info\nu,,70402,bad\n");
        check(&["UserID"], &["u", "x", "y"], "UserID,error_code,error_info\nu,70402,\"bad; surplus fields: x, y\"\n");
        check(
            &["error_info", "UserID", "error_code", "Nick"],
            &["old", "u", "1", "n"],
            "UserID,Nick,error_code,error_info\nu,n,70402,bad\n",
        );
    }
}
