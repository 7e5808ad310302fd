//! `chatlift audit`: the report for people, and its exit code.

use std::fmt;
use std::io::{BufReader, ErrorKind};

use super::access::why_denied;
use super::flags::AuditFlags;
use super::input::{Stream, roster_error, shown, unreadable};
use super::settings::format;
use super::stdout::print;
use super::{check, columns, input, small_file};
use crate::domain::figures::{count, counted};
use crate::flow::audit::{AuditError, AuditReport, EXAMPLES, Problem, audit};
use crate::io::journal::results_reader::{Results, ResultsError};
use crate::shell::exit::{Exit, ExitMessage};
use crate::shell::terminal::{causes, quoted};

/// Reads both files and prints the report.
pub(super) fn run(flags: &AuditFlags) -> ExitMessage {
    audited(flags).unwrap_or_else(|word| word)
}

fn audited(flags: &AuditFlags) -> Result<ExitMessage, ExitMessage> {
    let (path, results_path) = (&flags.input.file, &flags.results);
    let results_word = |error: ResultsError| {
        let why = format!("{}: {}", shown(results_path), causes(&error));
        match error {
            ResultsError::Empty | ResultsError::Header => {
                ExitMessage::yours(why, "give the results file of an import: --results FILE.results.csv")
            }
            ResultsError::Read(error) if error.kind() == ErrorKind::TimedOut => {
                ExitMessage::yours(why, "begin to write the pipe, or name a file")
            }
            ResultsError::Read(error) => unreadable(format!("{why}{}", why_denied(results_path, &error)), &error),
        }
    };
    let mut stream = Stream::open(&flags.input)?;
    let (header, blank, records) = stream.records(&format(&flags.input)).map_err(|error| roster_error(path, &error))?;
    let file = small_file::open(results_path).map_err(|error| results_word(error.into()))?;
    let results = Results::new(BufReader::new(file)).map_err(results_word)?;
    columns::report(&header)?;
    let report = audit(records, results).map_err(|error| match error {
        AuditError::Input(error) => roster_error(path, &error),
        AuditError::Results(error) => results_word(error.into()),
    })?;
    stream.ensure_unchanged().map_err(|error| roster_error(path, &error))?;
    print(&report)?;
    input::blank_words(blank.count()).map_or(Ok(()), |words| print(&format_args!("\n{words}\n")))?;
    if stream.is_cut() {
        print(&format_args!("\n{}\n", input::CUT_WORDS))?;
    }
    Ok(last_word(&report))
}

fn last_word(report: &AuditReport) -> ExitMessage {
    let (records, without) = (counted(report.records, "row"), count(report.without_outcome()));
    if report.is_proven() {
        return ExitMessage::new(Exit::Done, format!("every one of {records} has exactly one result"), "nothing is left to do");
    }
    let is_unfinished_only = report.problems.is_empty() && report.gaps.rows() == 0;
    let why = if is_unfinished_only {
        format!("{without} of {records} have no result yet")
    } else {
        let problems = counted(report.problems.count(), "problem");
        format!("{without} of {records} have no result, and there are {problems} in the file of results")
    };
    let hint = if report.pending > 0 {
        "the import stopped before its end: run its command again, and it continues from there"
    } else {
        "see whether the two files belong together, and whether the results were changed after the run"
    };
    ExitMessage::new(Exit::SomeRowsRejected, why, hint)
}

/// Writes the report with a final line break.
impl fmt::Display for AuditReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels = ["rows", "  imported", "  failed", "  invalid", "  without a result", "problems"];
        let counts = self.counts;
        let figures =
            [self.records, counts.imported, counts.failed, counts.invalid, self.without_outcome(), self.problems.count()].map(count);
        let width = figures.iter().map(String::len).max().unwrap_or_default();
        for (label, figure) in labels.into_iter().zip(figures) {
            writeln!(f, "{label:<22}{figure:>width$}")?;
        }
        write_without(f, self)?;
        for (heading, sample) in self.problems.by_count() {
            writeln!(f, "\n{heading}: {}", count(sample.count))?;
            sample.first.iter().try_for_each(|problem| writeln!(f, "  {}", sentence(problem)))?;
            check::write_rest(f, sample.count, sample.first.len())?;
        }
        Ok(())
    }
}

fn write_without(f: &mut fmt::Formatter<'_>, report: &AuditReport) -> fmt::Result {
    if report.gaps.rows() > 0 {
        writeln!(f, "\nrows missing: {}", count(report.gaps.rows()))?;
        let first: Vec<_> = report.gaps.ranges().take(EXAMPLES).collect();
        first
            .iter()
            .try_for_each(|(from, to)| if from == to { writeln!(f, "  row {from}") } else { writeln!(f, "  rows {from} to {to}") })?;
        check::write_rest(
            f,
            report.gaps.rows(),
            usize::try_from(first.iter().map(|(from, to)| to - from + 1).sum::<u64>()).unwrap_or(usize::MAX),
        )?;
    }
    if report.pending > 0 {
        let settled = report.records - report.pending;
        writeln!(f, "\nunfinished: the results end with row {settled}; {} behind it have no result yet", counted(report.pending, "row"))?;
    }
    Ok(())
}

/// A problem as a sentence. A `line` without a file means one of the results file.
fn sentence(problem: &Problem) -> String {
    match problem {
        Problem::Twice { at, row } => format!("line {at}: row {row} has another result elsewhere"),
        Problem::OutOfOrder { at, row } => format!("line {at}: row {row} is not in its place"),
        Problem::OtherRow { at, row, found } => format!("line {at}: row {found} has the line and the UserID of row {row}"),
        Problem::OtherLine { at, row, expected, found } => format!("line {at}: row {row} has line {found}; in the input it is {expected}"),
        Problem::OtherUserId { at, row, expected, found } => {
            format!("line {at}: row {row} has UserID {}; in the input it is {}", quoted(found), quoted(expected))
        }
        Problem::UnknownStatus { at, row, found } => format!("line {at}: row {row} has status {}", quoted(found)),
        Problem::BeyondInput { at, row } => format!("line {at}: the input has no row {row}"),
        Problem::Malformed { at, why } => format!("line {at}: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::io::journal::RESULTS_HEADER;
    use crate::io::roster::{Format, Roster};

    fn report(records: u64, results: &str) -> AuditReport {
        let ids: Vec<_> = (1..=records).map(|row| format!("u{row}")).collect();
        let roster = Roster::new(Cursor::new(format!("UserID\n{}", ids.join("\n"))), &Format::default()).unwrap();
        audit(roster, Results::new(Cursor::new(format!("{RESULTS_HEADER}{results}"))).unwrap()).unwrap()
    }

    fn result(row: u64) -> String {
        format!("{row},{},u{row},{},,,1,2023-11-14T22:13:20.123Z\n", row + 1, if row.is_multiple_of(10) { "failed" } else { "imported" })
    }

    fn results(rows: impl IntoIterator<Item = u64>) -> String {
        rows.into_iter().map(result).collect()
    }

    #[test]
    fn a_proof_is_a_tally() {
        insta::assert_snapshot!(report(1_200, &results(1..=1_200)), @r"
        rows                  1,200
          imported            1,080
          failed                120
          invalid                 0
          without a result        0
        problems                  0
        ");
    }

    #[test]
    fn an_unfinished_run_says_how_many_rows_have_no_outcome_yet() {
        let report = report(1_200, &results(1..=1_000));
        insta::assert_snapshot!(report, @r"
        rows                  1,200
          imported              900
          failed                100
          invalid                 0
          without a result      200
        problems                  0

        unfinished: the results end with row 1000; 200 rows behind it have no result yet
        ");
        insta::assert_snapshot!(last_word(&report), @r"
        finished: 200 of 1,200 rows have no result yet
        hint: the import stopped before its end: run its command again, and it continues from there
        ");
    }

    #[test]
    fn every_problem_is_named() {
        let rows: Vec<u64> = (1..=5).chain([5, 9]).chain(11..=20).chain([6, 22]).collect();
        let wrong =
            "23,24,\u{1b}x,done,,,1,2023-11-14T22:13:20.123Z\n24,1,u24,failed,,,1,\n77,26,u25,imported,,,1,2023-11-14T22:13:20.123Z\ntorn";
        let report = report(26, &format!("{}{wrong}\n{}{}", results(rows), result(26), result(31)));
        insta::assert_snapshot!(report, @r#"
        rows                  26
          imported            19
          failed               2
          invalid              0
          without a result     4
        problems               9

        rows missing: 4
          rows 7 to 8
          row 10
          row 21

        malformed results: 2
          line 22: its finished_at is not a time in UTC
          line 24: it has not 8 fields

        rows twice: 1
          line 7: row 5 has another result elsewhere

        rows out of order: 1
          line 19: row 6 is not in its place

        UserIDs other than the input's: 1
          line 21: row 23 has UserID "\u{1b}x"; in the input it is "u23"

        unknown statuses: 1
          line 21: row 23 has status "done"

        line numbers other than the input's: 1
          line 22: row 24 has line 1; in the input it is 25

        row numbers other than the input's: 1
          line 23: row 77 has the line and the UserID of row 25

        results beyond the input: 1
          line 26: the input has no row 31
        "#);
        insta::assert_snapshot!(last_word(&report), @r"
        finished: 4 of 26 rows have no result, and there are 9 problems in the file of results
        hint: see whether the two files belong together, and whether the results were changed after the run
        ");
    }

    #[test]
    fn the_examples_of_a_kind_are_bounded() {
        let text = report(40, &results((1..=40).filter(|row| row % 2 == 0))).to_string();
        assert!(text.ends_with("  row 19\n  … and 10 more\n"), "{text}");
    }
}
