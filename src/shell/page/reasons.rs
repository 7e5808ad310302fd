//! Why rows were rejected: counts and a few examples of each reason, in memory that doesn't grow.

use std::io;
use std::path::PathBuf;

use crate::domain::examples::Examples;
use crate::io::rejected_rows::{RejectedRow, RejectedRows};

/// Reasons that are told apart. Chosen: as many as somebody reads.
const REASONS_MAX: usize = 40;
/// Examples of each. Source: the contract of the report.
const EXAMPLES: usize = 3;

/// The reasons of a run, read from its results as they grow.
#[derive(Debug)]
pub struct Reasons {
    rows: RejectedRows,
    pub(super) groups: Vec<Reason>,
    /// Rows with further reasons.
    pub(super) others: u64,
}

/// A reason with its rows.
#[derive(Debug)]
pub(super) struct Reason {
    pub(super) status: String,
    pub(super) code: Option<i64>,
    /// What the rows have in common: the reason without numbers and without what is in quotes. Empty if they have a code.
    pub(super) common: String,
    /// The reason of all of them, as long as they have the same.
    pub(super) exact: Option<String>,
    pub(super) rows: Examples<RejectedRow, EXAMPLES>,
}

impl Reasons {
    #[must_use]
    pub const fn of(results: PathBuf) -> Self {
        Self { rows: RejectedRows::of(results), groups: Vec::new(), others: 0 }
    }

    /// Reads what has come to the results, up to this length of the file, or to its end.
    ///
    /// # Errors
    /// The disk's.
    pub fn read_on(&mut self, up_to: Option<u64>) -> io::Result<()> {
        let Self { rows, groups, others } = self;
        if rows.is_replaced() {
            // Another run has begun the file anew.
            (*groups, *others) = (Vec::new(), 0);
            rows.begin_again();
        }
        rows.read_on(up_to, |row| count(groups, others, row))
    }

    /// The most frequent first.
    pub(super) fn by_count(&self) -> Vec<&Reason> {
        let mut groups: Vec<&Reason> = self.groups.iter().collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.rows.count));
        groups
    }
}

fn count(groups: &mut Vec<Reason>, others: &mut u64, row: RejectedRow) {
    // The words of the service beside a code may be others for each row.
    let common = if row.error_code.is_some() { String::new() } else { without_particulars(&row.reason) };
    let is_known = |group: &Reason| group.status == row.status && group.code == row.error_code && group.common == common;
    match groups.iter().position(is_known) {
        Some(place) => {
            let group = &mut groups[place];
            if group.exact.as_ref() != Some(&row.reason) {
                group.exact = None;
            }
            group.rows.push(|| row);
        }
        None if groups.len() < REASONS_MAX => {
            let mut rows = Examples::default();
            let (status, code, exact) = (row.status.clone(), row.error_code, Some(row.reason.clone()));
            rows.push(|| row);
            groups.push(Reason { status, code, common, exact, rows });
        }
        None => *others += 1,
    }
}

/// A reason without its numbers and without what stands in quotes.
fn without_particulars(reason: &str) -> String {
    let mut words = String::new();
    let mut is_quoted = false;
    for word in reason.split('"') {
        if is_quoted {
            words.push('…');
        } else {
            words.extend(word.split_inclusive(' ').map(without_number));
        }
        is_quoted = !is_quoted;
    }
    words
}

fn without_number(word: &str) -> String {
    let Some(first) = word.find(|char: char| char.is_ascii_digit()) else { return word.to_owned() };
    let from = word[..first].rfind("U+").unwrap_or(first);
    let rest = word[first..].trim_start_matches(|char: char| char.is_ascii_hexdigit() || char == ',');
    format!("{}…{rest}", &word[..from])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u64, status: &str, error_code: Option<i64>, reason: &str) -> RejectedRow {
        let (row, line, user_id) = (number.to_string(), (number + 1).to_string(), format!("u{number}"));
        RejectedRow { row, line, user_id, status: status.to_owned(), error_code, reason: reason.to_owned() }
    }

    #[test]
    fn rows_are_grouped_by_code_or_by_what_their_reasons_have_in_common() {
        let (mut groups, mut others) = (Vec::new(), 0);
        for number in 0..10 {
            count(
                &mut groups,
                &mut others,
                row(number, "invalid", None, &format!("UserID has {} bytes, at most 32 are allowed", 33 + number)),
            );
            count(&mut groups, &mut others, row(number, "failed", Some(70402), &format!("no u{number}")));
        }
        count(&mut groups, &mut others, row(10, "invalid", None, "UserID is empty"));
        let found: Vec<_> = groups.iter().map(|group| (group.common.as_str(), group.exact.as_deref(), group.rows.count)).collect();
        let bytes = "UserID has … bytes, at most … are allowed";
        assert_eq!(found, [(bytes, None, 10), ("", None, 10), ("UserID is empty", Some("UserID is empty"), 1)]);
        assert!(groups.iter().all(|group| group.rows.first.len() <= EXAMPLES));
        for number in 0..200 {
            count(&mut groups, &mut others, row(number, "failed", Some(100_000 + i64::try_from(number).unwrap()), ""));
        }
        assert_eq!((groups.len(), others), (REASONS_MAX, 200 - 37));
    }

    #[test]
    fn numbers_and_quoted_text_are_left_out() {
        let check = |reason: &str, expected: &str| assert_eq!(without_particulars(reason), expected);
        check(
            "UserID holds the character U+00E9; only printable ASCII is allowed",
            "UserID holds the character …; only printable ASCII is allowed",
        );
        check("Gender holds \"x\", which is no value", "Gender holds …, which is no value");
        check("no answer within 10 s", "no answer within … s");
        check("", "");
    }
}
