use std::io::Cursor;

use proptest::prelude::*;

use super::*;
use crate::io::journal::RESULTS_HEADER;
use crate::io::roster::{Format, Roster};

const INPUT_HEADER: &str = "UserID,Nick\n";

fn input(ids: &[&str]) -> String {
    ids.iter().fold(INPUT_HEADER.to_owned(), |text, id| text + id + ",x\n")
}

fn result(row: u64, user_id: &str) -> String {
    result_with(row, row + 1, user_id, "imported")
}

fn result_with(row: u64, line: u64, user_id: &str, status: &str) -> String {
    format!("{row},{line},{user_id},{status},,,1,2023-11-14T22:13:20.123Z\n")
}

fn audited(input: &str, results: &[String]) -> AuditReport {
    let roster = Roster::new(Cursor::new(input.to_owned()), &Format::default()).unwrap();
    let results = Results::new(Cursor::new(format!("{RESULTS_HEADER}{}", results.concat()))).unwrap();
    audit(roster, results).unwrap()
}

fn problems(report: &AuditReport) -> Vec<Problem> {
    report.problems.by_count().into_iter().flat_map(|(_, sample)| sample.first.clone()).collect()
}

/// Five rows, of which the results hold these: gaps, pending rows and problems.
fn check(rows: &[u64], gaps: &[(u64, u64)], pending: u64, expected: &[Problem]) {
    const IDS: [&str; 5] = ["a", "b", "c", "d", "e"];
    let id = |row: u64| usize::try_from(row).ok().and_then(|row| IDS.get(row.wrapping_sub(1))).unwrap_or(&"?");
    let results: Vec<_> = rows.iter().map(|row| result(*row, id(*row))).collect();
    let report = audited(&input(&IDS), &results);
    assert_eq!(report.gaps.ranges().collect::<Vec<_>>(), gaps, "gaps of {rows:?}");
    assert_eq!(report.pending, pending, "pending of {rows:?}");
    assert_eq!(problems(&report), expected, "{rows:?}");
    assert_eq!((report.records, report.counts.rows() + report.without_outcome()), (5, 5), "{rows:?}");
    assert_eq!(report.is_proven(), rows == [1, 2, 3, 4, 5], "{rows:?}");
}

#[test]
fn rows_that_are_missing_twice_beyond_or_out_of_order_are_told_apart() {
    use Problem::{BeyondInput, OutOfOrder, Twice};
    check(&[1, 2, 3, 4, 5], &[], 0, &[]);
    check(&[], &[], 5, &[]);
    check(&[1, 2], &[], 3, &[]);
    check(&[2, 4, 5], &[(1, 1), (3, 3)], 0, &[]);
    check(&[1, 5], &[(2, 4)], 0, &[]);
    check(&[1, 2, 2, 3, 4, 5], &[], 0, &[Twice { at: 4, row: 2 }]);
    check(&[1, 2, 3, 4, 5, 1], &[], 0, &[Twice { at: 7, row: 1 }]);
    check(&[1, 5, 2, 3, 4, 5], &[], 0, &[Twice { at: 3, row: 5 }]);
    check(&[1, 3, 2, 4, 5], &[], 0, &[OutOfOrder { at: 3, row: 3 }]);
    check(&[1, 3, 4, 5, 2], &[], 0, &[OutOfOrder { at: 6, row: 2 }]);
    check(&[5, 2, 3, 4, 1], &[], 0, &[OutOfOrder { at: 6, row: 1 }, OutOfOrder { at: 2, row: 5 }]);
    check(&[1, 2, 3, 4, 5, 6, 7], &[], 0, &[BeyondInput { at: 7, row: 6 }, BeyondInput { at: 8, row: 7 }]);
    check(&[1, 90, 2, 3, 4, 5], &[], 0, &[BeyondInput { at: 3, row: 90 }]);
    check(&[1, 90, 3, 4, 5], &[(2, 2)], 0, &[BeyondInput { at: 3, row: 90 }]);
    check(&[0, 1, 2, 3, 4, 5], &[], 0, &[BeyondInput { at: 2, row: 0 }]);
}

#[test]
fn a_result_must_be_its_records_own() {
    let check = |wrong: String, tallied: u64, expected: Problem| {
        let report = audited(&input(&["a", "b", "c"]), &[result(1, "a"), wrong, result(3, "c")]);
        assert_eq!(problems(&report), [expected]);
        assert_eq!((report.counts.rows(), report.without_outcome(), report.is_proven()), (tallied, 0, false));
    };
    let bytes = |text: &str| Box::from(text.as_bytes());
    check(result(2, "B"), 3, Problem::OtherUserId { at: 3, row: 2, expected: bytes("b"), found: bytes("B") });
    check(result_with(2, 9, "b", "failed"), 3, Problem::OtherLine { at: 3, row: 2, expected: 3, found: 9 });
    check(result_with(7, 3, "b", "failed"), 3, Problem::OtherRow { at: 3, row: 2, found: 7 });
    check(result_with(1, 3, "b", "failed"), 3, Problem::OtherRow { at: 3, row: 2, found: 1 });
    check(result_with(2, 3, "b", "Imported"), 2, Problem::UnknownStatus { at: 3, row: 2, found: bytes("Imported") });
    check(
        "2,3,b,failed,x,,1,2023-11-14T22:13:20.123Z\n".to_owned(),
        3,
        Problem::Malformed { at: 3, why: "its error_code is not a number" },
    );
}

#[test]
fn a_malformed_result_leaves_its_row_without_an_outcome() {
    let report = audited(&input(&["a", "b", "c"]), &[result(1, "a"), "2,3,b\n".to_owned(), result(3, "c")]);
    assert_eq!(problems(&report), [Problem::Malformed { at: 3, why: "it has not 8 fields" }]);
    assert_eq!(report.gaps.ranges().collect::<Vec<_>>(), [(2, 2)]);
}

#[test]
fn any_outcome_is_one_whatever_the_user_id() {
    let input = "\u{feff}UserID,Nick\r\n\"a \"\"b\"\",\n\",x\r\n\r\n\u{e9},x\r\n,x\r\nd,x,y\r\n";
    let results = [
        result_with(1, 2, "\"a \"\"b\"\",\n\"", "invalid"),
        result_with(2, 5, "\u{e9}", "invalid"),
        result_with(3, 6, "", "failed"),
        result_with(4, 7, "d", "imported"),
    ];
    let report = audited(input, &results);
    assert!(report.is_proven(), "{report:?}");
    assert_eq!(report.counts, OutcomeCounts { imported: 1, failed: 1, invalid: 2, ..OutcomeCounts::default() });
}

#[test]
fn a_bad_input_is_an_error() {
    let roster = Roster::new(Cursor::new("UserID\na\n\"b\n"), &Format::default()).unwrap();
    let results = Results::new(Cursor::new(format!("{RESULTS_HEADER}{}", result(1, "a")))).unwrap();
    assert!(matches!(audit(roster, results), Err(AuditError::Input(RosterError::OpenQuote { .. }))));
}

/// One thing done to the lines of a results file.
#[derive(Debug, Clone)]
enum Damage {
    Delete(usize),
    Duplicate {
        from: usize,
        to: usize,
    },
    Swap(usize, usize),
    /// Another byte in row, line, UserID or status.
    Edit {
        line: usize,
        at: usize,
        byte: u8,
    },
    /// The file ends here, in bytes before the end of a line.
    Tear {
        line: usize,
        bytes: usize,
    },
}

fn damage(lines: usize) -> impl Strategy<Value = Damage> {
    prop_oneof![
        (0..lines).prop_map(Damage::Delete),
        (0..lines, 0..=lines).prop_map(|(from, to)| Damage::Duplicate { from, to }),
        (0..lines, 0..lines).prop_filter("a swap of two", |(one, other)| one != other).prop_map(|(one, other)| Damage::Swap(one, other)),
        (0..lines, 0..20_usize, b' '..=b'~').prop_map(|(line, at, byte)| Damage::Edit { line, at, byte }),
        (0..lines, 2..40_usize).prop_map(|(line, bytes)| Damage::Tear { line, bytes }),
    ]
}

fn damaged(mut lines: Vec<String>, damage: &Damage) -> Vec<String> {
    match *damage {
        Damage::Delete(line) => drop(lines.remove(line)),
        Damage::Duplicate { from, to } => lines.insert(to, lines[from].clone()),
        Damage::Swap(one, other) => lines.swap(one, other),
        Damage::Edit { line, at, byte } => {
            let mut bytes = lines[line].clone().into_bytes();
            bytes[at] = byte;
            lines[line] = String::from_utf8(bytes).unwrap();
        }
        Damage::Tear { line, bytes } => {
            lines.truncate(line + 1);
            let kept = lines[line].len() - bytes;
            lines[line].truncate(kept);
        }
    }
    lines
}

proptest! {
    #[test]
    fn any_single_damage_is_found(
        (statuses, damage) in (1..15_usize).prop_filter("two lines to swap", |lines| *lines > 1).prop_flat_map(|lines| {
            (prop::collection::vec(prop::sample::select(vec!["imported", "failed", "invalid"]), lines), damage(lines))
        }),
    ) {
        let ids: Vec<String> = (0..statuses.len()).map(|number| format!("user_{number:03}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let results: Vec<String> = statuses.iter().zip(&ids).zip(1..).map(|((status, id), row)| result_with(row, row + 1, id, status)).collect();
        let whole = audited(&input(&ids), &results);
        prop_assert!(whole.is_proven(), "{whole:?}");
        let now = damaged(results.clone(), &damage);
        let report = audited(&input(&ids), &now);
        prop_assert_eq!(report.is_proven(), now == results, "{:?}", report);
        prop_assert_eq!(report.records, whole.records);
    }
}
