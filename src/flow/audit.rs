//! The audit: proves from input and results alone that every record has exactly one outcome, whatever it is.
//!
//! Both files are streamed in step, in flat memory. Results are in input order, so a row number that jumps ahead means rows without
//! an outcome, and one that goes back means rows out of order or twice; after either the audit goes on. Trusts nothing else: no
//! checkpoint, no summary.

mod gaps;

use std::collections::BTreeMap;
use std::io::{self, BufRead};
use std::iter::Peekable;

use thiserror::Error;

use crate::domain::examples::ExampleGroups;
use crate::domain::outcome::OutcomeCounts;
use crate::io::journal::results_reader::{MalformedResult, ResultRecord, Results};
use crate::io::roster::{Record, RosterError};
pub use gaps::Gaps;

/// Problems of each kind that a report names. Chosen, as `check::EXAMPLES`, but there is more to mend here.
pub const EXAMPLES: usize = 10;
/// Results ahead of their row that are remembered. Chosen: each may hold a UserID of 64 KiB.
const EARLY_MAX: usize = 1_000;

/// What the two files prove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// Records of the input.
    pub records: u64,
    /// Records that have an outcome, by its status; each once.
    pub counts: OutcomeCounts,
    /// Rows without an outcome, before the last that has one.
    pub gaps: Gaps,
    /// Rows behind the last that has an outcome: the run is not finished.
    pub pending: u64,
    pub problems: ExampleGroups<Problem, EXAMPLES>,
}

/// Something in the results that should not be. `at` is a line of the results file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    Twice { at: u64, row: u64 },
    OutOfOrder { at: u64, row: u64 },
    OtherRow { at: u64, row: u64, found: u64 },
    OtherLine { at: u64, row: u64, expected: u64, found: u64 },
    OtherUserId { at: u64, row: u64, expected: Box<[u8]>, found: Box<[u8]> },
    UnknownStatus { at: u64, row: u64, found: Box<[u8]> },
    BeyondInput { at: u64, row: u64 },
    Malformed { at: u64, why: &'static str },
}

impl Problem {
    /// Its kind, in the plural.
    const fn heading(&self) -> &'static str {
        match self {
            Problem::Twice { .. } => "rows twice",
            Problem::OutOfOrder { .. } => "rows out of order",
            Problem::OtherRow { .. } => "row numbers other than the input's",
            Problem::OtherLine { .. } => "line numbers other than the input's",
            Problem::OtherUserId { .. } => "UserIDs other than the input's",
            Problem::UnknownStatus { .. } => "unknown statuses",
            Problem::BeyondInput { .. } => "results beyond the input",
            Problem::Malformed { .. } => "malformed results",
        }
    }
}

/// Why there is no proof either way.
#[derive(Debug, Error)]
pub enum AuditError {
    #[error("the input is bad")]
    Input(#[source] RosterError),
    #[error("the results cannot be read")]
    Results(#[source] io::Error),
}

impl AuditReport {
    /// Whether every record has exactly one outcome, and nothing else stands in the results.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.problems.is_empty() && self.without_outcome() == 0 && self.counts.rows() == self.records
    }

    /// Records that have no outcome.
    #[must_use]
    pub fn without_outcome(&self) -> u64 {
        self.gaps.rows() + self.pending
    }

    fn push(&mut self, problem: Problem) {
        self.problems.push(problem.heading(), || problem);
    }

    /// Takes an entry as the outcome of its row.
    fn settle(&mut self, entry: &ResultRecord) {
        match &entry.status {
            Ok(status) => self.counts.count(*status),
            Err(found) => self.push(Problem::UnknownStatus { at: entry.at, row: entry.row, found: found.clone() }),
        }
        if let Some(why) = entry.flaw {
            self.push(Problem::Malformed { at: entry.at, why });
        }
    }
}

/// Reads `records` and `results` in step and reports.
///
/// # Errors
/// [`AuditError`] where one of the two cannot be read to its end. What the results say is never an error, see [`AuditReport::is_proven`].
pub fn audit<I, R>(records: I, results: Results<R>) -> Result<AuditReport, AuditError>
where
    I: IntoIterator<Item = Result<Record, RosterError>>,
    R: BufRead,
{
    let mut audit = RunningAudit { records: records.into_iter().peekable(), early: BTreeMap::new(), report: AuditReport::default() };
    let mut results = results.peekable();
    while let Some(result) = results.next() {
        match result.map_err(AuditError::Results)? {
            Ok(entry) => {
                let next_row = match results.peek() {
                    Some(Ok(Ok(next))) => Some(next.row),
                    Some(Ok(Err(_)) | Err(_)) | None => None,
                };
                audit.take_result(entry, next_row)?;
            }
            Err(MalformedResult { at, why }) => audit.report.push(Problem::Malformed { at, why }),
        }
    }
    audit.finish()
}

/// An audit under way.
struct RunningAudit<I: Iterator> {
    /// The input from the first record on that has not been passed.
    records: Peekable<I>,
    /// Results that stand before their turn.
    early: BTreeMap<u64, ResultRecord>,
    report: AuditReport,
}

/// Where a result stands, seen from the record whose turn it is.
enum ResultPosition {
    /// It belongs to this record, though its row number may be wrong.
    Its,
    /// Its record was passed before, or is not in the input at all.
    Late,
    /// Its record comes later, so the records before that one have no result.
    Ahead,
    /// Its record comes later, and the next result belongs here: the result is kept until its turn.
    Early,
}

impl<I: Iterator<Item = Result<Record, RosterError>>> RunningAudit<I> {
    fn take_result(&mut self, entry: ResultRecord, next_row: Option<u64>) -> Result<(), AuditError> {
        match self.turn(&entry, next_row)? {
            ResultPosition::Its => self.settle_next(&entry),
            ResultPosition::Late => {
                self.late(&entry);
                Ok(())
            }
            ResultPosition::Ahead => {
                self.pass_over(entry.row)?;
                if self.next_record()?.is_some() {
                    return self.settle_next(&entry);
                }
                self.report.push(Problem::BeyondInput { at: entry.at, row: entry.row });
                Ok(())
            }
            ResultPosition::Early => {
                if let Some(other) = self.early.insert(entry.row, entry) {
                    self.report.push(Problem::Twice { at: other.at, row: other.row });
                }
                Ok(())
            }
        }
    }

    fn turn(&mut self, entry: &ResultRecord, next_row: Option<u64>) -> Result<ResultPosition, AuditError> {
        let has_room = self.early.len() < EARLY_MAX;
        let Some(record) = self.next_record()? else { return Ok(ResultPosition::Late) };
        // The line is the record's own: with the UserID it tells the record, even under a wrong row number.
        let is_its = entry.row == record.row || (entry.line == record.line && entry.user_id == record.user_id);
        let goes_on_here = next_row.is_some_and(|next| next == record.row || (next == record.row + 1 && entry.row > next));
        Ok(match entry.row {
            _ if is_its => ResultPosition::Its,
            row if row < record.row => ResultPosition::Late,
            _ if goes_on_here && has_room => ResultPosition::Early,
            _ => ResultPosition::Ahead,
        })
    }

    fn next_record(&mut self) -> Result<Option<&Record>, AuditError> {
        if let Some(Err(error)) = self.records.next_if(Result::is_err) {
            return Err(AuditError::Input(error));
        }
        Ok(self.records.peek().and_then(|record| record.as_ref().ok()))
    }

    fn take_record(&mut self) -> Result<Option<Record>, AuditError> {
        let record = self.records.next().transpose().map_err(AuditError::Input)?;
        self.report.records += u64::from(record.is_some());
        Ok(record)
    }

    /// The entry is the outcome of the record whose turn it is.
    fn settle_next(&mut self, entry: &ResultRecord) -> Result<(), AuditError> {
        let Some(record) = self.take_record()? else { return Ok(()) };
        if let Some(other) = self.early.remove(&record.row) {
            self.report.push(Problem::Twice { at: other.at, row: record.row });
        }
        self.compare(&record, entry);
        self.report.settle(entry);
        Ok(())
    }

    fn compare(&mut self, record: &Record, entry: &ResultRecord) {
        let (at, row) = (entry.at, record.row);
        if entry.row != row {
            self.report.push(Problem::OtherRow { at, row, found: entry.row });
        }
        if entry.line != record.line {
            self.report.push(Problem::OtherLine { at, row, expected: record.line, found: entry.line });
        }
        if entry.user_id != record.user_id {
            self.report.push(Problem::OtherUserId { at, row, expected: record.user_id.clone(), found: entry.user_id.clone() });
        }
    }

    /// The record was passed: it has an outcome already, or gets it out of order, or is no record.
    fn late(&mut self, entry: &ResultRecord) {
        let (at, row) = (entry.at, entry.row);
        if row > self.report.records || row == 0 {
            self.report.push(Problem::BeyondInput { at, row });
        } else if self.report.gaps.fill(row) {
            self.report.push(Problem::OutOfOrder { at, row });
            self.report.settle(entry);
        } else {
            self.report.push(Problem::Twice { at, row });
        }
    }

    /// Passes the records before `row` over.
    fn pass_over(&mut self, row: u64) -> Result<(), AuditError> {
        while self.next_record()?.is_some_and(|record| record.row < row) {
            let Some(record) = self.take_record()? else { return Ok(()) };
            if !self.settle_early(&record) {
                self.report.gaps.push(record.row);
            }
        }
        Ok(())
    }

    /// Whether the record's outcome stood before its turn.
    fn settle_early(&mut self, record: &Record) -> bool {
        let Some(entry) = self.early.remove(&record.row) else { return false };
        self.report.push(Problem::OutOfOrder { at: entry.at, row: record.row });
        self.compare(record, &entry);
        self.report.settle(&entry);
        true
    }

    fn finish(mut self) -> Result<AuditReport, AuditError> {
        while let Some(record) = self.take_record()? {
            if !self.settle_early(&record) {
                self.report.pending += 1;
            }
        }
        for (row, entry) in std::mem::take(&mut self.early) {
            self.report.push(Problem::BeyondInput { at: entry.at, row });
        }
        Ok(self.report)
    }
}

#[cfg(test)]
mod tests;
