//! An input in memory, and the outcomes that runs give to its records.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use chatlift::domain::outcome::{OriginalRecord, Outcome, RowOutcome, Status};
use chatlift::domain::position::{ColumnLayout, FileStat, InputChange, InputPosition};
use chatlift::domain::target::Target;
use chatlift::io::journal::RunSpec;
use chatlift::io::journal::checkpoint::RunKind;
use csv::ByteRecord;

const HEADER: &str = "UserID,Nick\n";
/// The header of the rejects for this input.
pub(crate) const REJECTS_HEADER: &str = "UserID,Nick,error_code,error_info\n";

/// The input, as far as the journal uses it.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    records: Vec<Record>,
    start: InputPosition,
    fingerprint: FileStat,
}

#[derive(Debug, Clone)]
struct Record {
    nick: String,
    line: u64,
    end: InputPosition,
}

impl Input {
    pub(crate) fn new(records: u64, chance: &mut fastrand::Rng) -> Self {
        let mut start = InputPosition::START;
        start.pass(HEADER.as_bytes(), 1);
        let fingerprint = FileStat { len: 0, modified_ns: 0, changed_ns: 0, inode: 0 };
        Self { records: Vec::new(), start, fingerprint }.appended(records, chance)
    }

    /// The same input with more records at its end.
    pub(crate) fn appended(mut self, records: u64, chance: &mut fastrand::Rng) -> Self {
        for _ in 0..records {
            let nick = format!("nick{}", chance.u32(..));
            let before = self.end();
            let mut end = InputPosition { rows: before.rows + 1, ..before };
            end.pass(format!("u{},{nick}\n", end.rows).as_bytes(), 1);
            self.records.push(Record { nick, line: before.line, end });
        }
        self.touched(chance)
    }

    /// The same bytes with other stat fields.
    pub(crate) fn touched(mut self, chance: &mut fastrand::Rng) -> Self {
        self.fingerprint = FileStat { len: self.end().offset, modified_ns: chance.i64(..), ..self.fingerprint };
        self
    }

    pub(crate) fn rows(&self) -> u64 {
        self.records.len() as u64
    }

    pub(crate) fn end(&self) -> InputPosition {
        self.records.last().map_or(self.start, |record| record.end)
    }

    pub(crate) fn claim(&self) -> RunSpec {
        RunSpec {
            work: RunKind::Import,
            target: Target { endpoint: "sandbox".to_owned(), sdkappid: 1, api: "account_import".to_owned() },
            input: self.fingerprint,
            source: None,
            reading: ColumnLayout { delimiter: b',', columns: [Some(0), Some(1), None], flags: BTreeMap::new() },
            header: ByteRecord::from(vec!["UserID", "Nick"]),
            rejects_delimiter: b',',
            start: self.start,
        }
    }

    /// Compares the input as the roster compares a file.
    pub(crate) fn compare(&self, settled: InputPosition) -> InputChange {
        let ends = self.records.iter().map(|record| record.end);
        match std::iter::once(self.start).chain(ends).find(|end| end.rows == settled.rows) {
            Some(end) if end == settled && end == self.end() => InputChange::Same,
            Some(end) if end == settled => InputChange::ChangedAfter,
            Some(_) | None => InputChange::ChangedWithin,
        }
    }

    /// The record behind this many rows, with an outcome; `None` behind the last.
    pub(crate) fn settle(&self, rows_before: u64, fortune: Fortune, chance: &mut fastrand::Rng) -> Option<(RowOutcome, Line)> {
        let row = rows_before + 1;
        let record = self.records.get(usize::try_from(rows_before).expect("inputs of tests are small"))?;
        let (outcome, time) = fortune.outcome(chance);
        let user_id = format!("u{row}");
        let line = Line::new(row, record, &outcome, &time);
        let original =
            (outcome.status != Status::Imported).then(|| OriginalRecord::Fields(ByteRecord::from(vec![user_id.as_str(), &record.nick])));
        Some((RowOutcome { row, line: record.line, user_id: user_id.into_bytes().into(), outcome, end: record.end, original }, line))
    }
}

/// The outcomes of a run's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fortune {
    /// All are imported.
    Good,
    /// Some fail or are invalid.
    Mixed,
    /// The same as mixed, with long messages of the service.
    Wordy,
}

impl Fortune {
    /// An outcome, and its time as text.
    fn outcome(self, chance: &mut fastrand::Rng) -> (Outcome, String) {
        let time_ms = chance.u64(..60_000);
        let words_max = match self {
            Fortune::Good => 0,
            Fortune::Mixed => 20,
            Fortune::Wordy => 3_000,
        };
        let status = match chance.u8(..6) {
            4 if words_max > 0 => Status::Failed,
            5 if words_max > 0 => Status::Invalid,
            _ => Status::Imported,
        };
        let words = if status == Status::Imported { 0 } else { chance.usize(1..words_max) };
        let outcome = Outcome {
            status,
            error_code: (status == Status::Failed).then(|| chance.i64(10_000..100_000)),
            error_info: "x".repeat(words),
            attempts: if status == Status::Invalid { 0 } else { chance.u32(1..=5) },
            finished_at: SystemTime::UNIX_EPOCH + Duration::from_millis(time_ms),
        };
        (outcome, format!("1970-01-01T00:00:{:02}.{:03}Z", time_ms / 1_000, time_ms % 1_000))
    }
}

/// The expected lines of one record in results and rejects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) status: Status,
    pub(crate) result: String,
    pub(crate) reject: Option<String>,
}

impl Line {
    /// Formats the lines with code of its own, so that the journal's formatting is checked too.
    fn new(row: u64, record: &Record, outcome: &Outcome, time: &str) -> Self {
        let (status, info, attempts) = (outcome.status, &outcome.error_info, outcome.attempts);
        let code = outcome.error_code.map_or(String::new(), |code| code.to_string());
        let word = match status {
            Status::Imported => "imported",
            Status::Failed => "failed",
            Status::Invalid => "invalid",
            Status::Created | Status::Updated | Status::Superseded => panic!("no import comes to {status:?}"),
        };
        Self {
            status,
            result: format!("{row},{},u{row},{word},{code},{info},{attempts},{time}\n", record.line),
            reject: (status != Status::Imported).then(|| format!("u{row},{},{code},{info}\n", record.nick)),
        }
    }
}
