mod changes;
mod escapes;
mod header;

use std::io::{Cursor, Write};

use proptest::prelude::*;

use super::*;
use crate::domain::account::{Field, UserId};
use crate::domain::position::InputChange;

fn roster(text: impl AsRef<[u8]>) -> Result<Roster<Cursor<Vec<u8>>>, RosterError> {
    Roster::new(Cursor::new(text.as_ref().to_vec()), &Format::default())
}

/// Row, line, fields joined by `|`, and what is wrong with it.
fn lines(text: impl AsRef<[u8]>) -> Vec<(u64, u64, String, Option<String>)> {
    roster(text)
        .unwrap()
        .map(|record| {
            let record = record.unwrap();
            let fields: Vec<_> = record.fields.iter().map(String::from_utf8_lossy).collect();
            (record.row, record.line, fields.join("|"), record.account.err().map(|invalid| invalid.to_string()))
        })
        .collect()
}

fn row(row: u64, line: u64, fields: &str) -> (u64, u64, String, Option<String>) {
    (row, line, fields.to_owned(), None)
}

#[test]
fn records_have_their_row_and_the_line_on_which_they_start() {
    assert_eq!(lines("UserID,Nick\na,1\nb,2\n"), [row(1, 2, "a|1"), row(2, 3, "b|2")]);
    assert_eq!(lines("UserID,Nick\na,1\nb,2"), [row(1, 2, "a|1"), row(2, 3, "b|2")], "no final newline");
    assert_eq!(lines("\u{feff}UserID,Nick\r\na,1\r\n\r\nb,2\r\n"), [row(1, 2, "a|1"), row(2, 4, "b|2")], "BOM, CRLF, a blank line");
    assert_eq!(lines("\n\nUserID\n\na\n\n"), [row(1, 5, "a")], "blank lines before the header");
    assert_eq!(lines("UserID\n"), []);
}

#[test]
fn quoted_fields_hold_delimiters_quotes_and_line_ends() {
    let text = "UserID,Note\na,\"x\ny; \"\"z\"\"\"\nb,plain \"quote\" inside\n\"c\",\"\"\n\"d\",x\"\n";
    let expected = [row(1, 2, "a|x\ny; \"z\""), row(2, 4, "b|plain \"quote\" inside"), row(3, 5, "c|"), row(4, 6, "d|x\"")];
    assert_eq!(lines(text), expected);
}

#[test]
fn lines_of_delimiters_quotes_and_white_space_are_no_records() {
    let rest = "a,1\n,,\n\" \",\"\"\n\u{a0},\u{3000}\t\n   \r\n\"\",\" \n \"\n\"\"\"\"\n,x\nb,2\n , \n\u{a0}";
    let expected = [row(1, 4, "a|1"), (2, 12, "|x".to_owned(), Some("UserID is empty".to_owned())), row(3, 13, "b|2")];
    assert_eq!(lines(format!(",,\n\nUserID,Nick\n{rest}")), expected);
    let format = Format { delimiter: b';', ..Format::default() };
    let read: Vec<_> = Roster::new(Cursor::new("UserID;Nick\n,;\n;\n"), &format).unwrap().map(|record| record.unwrap().line).collect();
    assert_eq!(read, [2], "a comma is text where it is no delimiter");
    assert!(matches!(roster("UserID,Nick\n,\"\n").unwrap().next(), Some(Err(RosterError::OpenQuote { .. }))), "an open quote is no blank");
}

#[test]
fn a_record_is_the_header_again_only_if_all_its_cells_are() {
    let invalid = |text: &str| lines(text).into_iter().map(|(.., why)| why.is_some()).collect::<Vec<_>>();
    assert_eq!(invalid("userid,Note\nUserID,Note\nuserid,note\nuserid,x\nuserid,Note\n"), [false, false, false, true]);
    assert_eq!(invalid("Note,uid,userid\n\u{feff}Note,uid,userid\n"), [true], "a second file with a byte order mark of its own");
    let records = lines("userid,Note\na,\nuserid,Note\nb,\n");
    assert_eq!(records.iter().map(|record| (record.0, record.1)).collect::<Vec<_>>(), [(1, 2), (2, 3), (3, 4)], "it counts as any record");
}

#[test]
fn blank_lines_are_counted_once() {
    let text = "\n,\nUserID,Nick\na,1\n\n,,\n\" \n\",\nb,2\n \n\nc,";
    let mut roster = roster(text).unwrap();
    let blank = roster.blank_lines();
    assert_eq!(blank.count(), 2, "in front of the header");
    let first = roster.next().unwrap().unwrap().end;
    while roster.next_view().is_some() {}
    assert_eq!(blank.count(), 8);
    let mut again = roster.skip_to(first).unwrap();
    while again.skip_record().is_some() {}
    assert_eq!(blank.count(), 8, "what is read twice is counted once");
}

#[test]
fn blank_lines_behind_the_last_record_are_behind_its_place() {
    for rest in ["", "\n", "\r\n,\n \n", "\n\n,", "\"\n\",\n"] {
        let place = |text: &str| {
            let mut roster = roster(text).unwrap();
            while roster.next_view().is_some() {}
            roster.at()
        };
        assert_eq!(place(&format!("UserID,Nick\na,1\n{rest}")), place("UserID,Nick\na,1\n"), "{rest:?}");
        assert_eq!(place(&format!("UserID,Nick\n{rest}")), place("UserID,Nick\n"), "{rest:?}");
    }
}

#[test]
fn a_quote_that_swallowed_records_makes_its_record_invalid() {
    let told = |text: &str, multiline| {
        let format = Format { multiline, ..Format::default() };
        let mut roster = Roster::new(Cursor::new(format!("UserID,Nick,Note\n{text}")), &format).unwrap();
        roster.find_map(|record| record.unwrap().account.err()).map(|invalid| invalid.to_string())
    };
    let check = |text: &str, judged: Option<&str>, taken: Option<&str>| {
        assert_eq!(told(text, Multiline::Judged).as_deref(), judged, "{text:?}");
        assert_eq!(told(text, Multiline::Taken).as_deref(), taken, "{text:?}");
        let crlf = text.replace('\n', "\r\n");
        assert_eq!(told(&crlf, Multiline::Judged).as_deref(), judged, "{crlf:?}");
    };
    check("a,A,\"x\nb,B,y\nc,C,z\"\n", Some("the quote at line 2 swallowed lines 3 to 4"), None);
    check(
        "\"a\",\"A\",\"x\n\"b\",\"B\",\"y\"\n",
        Some("the quote at line 2 swallowed line 3"),
        Some("text follows the closing quote at line 3, column 2"),
    );
    check(
        "z,,\n\na,A,\"x\nb,B,y\nc,C,\"z\n",
        Some("the quote at line 4 swallowed lines 5 to 6"),
        Some("text follows the closing quote at line 6, column 6"),
    );
    check(
        "a,A,\"x\nand\" more\n",
        Some("the quote at line 2 swallowed line 3"),
        Some("text follows the closing quote at line 3, column 5"),
    );
    check("a,A,\"1 Mill Lane\nSpringfield\"\n", None, None);
    check("a,A,\"1 Mill Lane\nSpringfield, Ohio, USA\"\n", Some("the quote at line 2 swallowed line 3"), None);
    check("a,A,\"x\n\nb,B,y\"\n", Some("the quote at line 2 swallowed lines 3 to 4"), None);
    check("a,A,\"x\n\n\"\n", None, None);
    check("a,A,\"x\n,B,y\"\n", None, None);
    check("a,A,\"x\n b,B,y\"\n", None, None);
    check("a,A,\"x\nb,B,y,z\"\n", None, None);
    check("a,A,\"x, \"\"y\"\"\nb,B,y\"\n", None, None);
    check("a,\"A,x\nb,B,y\",\n", None, None);
    check(
        "a,A,\"one \"\"line\"\"\" x\n",
        Some("text follows the closing quote at line 2, column 19"),
        Some("text follows the closing quote at line 2, column 19"),
    );
}

#[test]
fn what_is_wrong_with_a_record_is_told() {
    let check = |text: &str, expected: &str| {
        let found = lines(format!("UserID,Nick\n{text}\nnext,1\n"));
        assert_eq!(found[0].3.as_deref(), Some(expected), "{text:?}");
        assert_eq!(found.last().unwrap(), &row(2, found.last().unwrap().1, "next|1"), "{text:?}");
    };
    check("a", "the row has 1 field, the header has 2");
    check("a,b,c", "the row has 3 fields, the header has 2");
    check("a,\"b\" c", "text follows the closing quote at line 2, column 6");
    check("a,\"好\nb\"x", "the quote at line 2 swallowed line 3");
    check("UserID,Nick", "the row is the header again");
    check("\"UserID\",\"Nick\"\r", "the row is the header again");
    check("a\rb,c", "UserID holds the control character U+000D");
    check("a,b\0c", "Nick holds a NUL character (U+0000)");
    check("\u{feff}a,b", "UserID holds a byte order mark (U+FEFF)");
}

#[test]
fn a_runaway_quote_ends_the_file_and_is_named() {
    let mut text = "UserID,Nick\na,1\nb,\"open\n".to_owned();
    text.push_str(&"c,3\n".repeat(100));
    let read: Vec<_> = roster(&text).unwrap().collect();
    assert_eq!(read.len(), 2);
    assert!(read[0].is_ok());
    assert!(
        matches!(&read[1], Err(RosterError::OpenQuote { opened: TextPosition { line: 3, column: 3 }, up_to: SearchedUpTo::Limits })),
        "{:?}",
        read[1]
    );
    let open_at_the_end: Vec<_> = roster("UserID\na\n\"b\n").unwrap().collect();
    assert!(matches!(
        &open_at_the_end[1],
        Err(RosterError::OpenQuote { opened: TextPosition { line: 3, column: 1 }, up_to: SearchedUpTo::End })
    ));
}

#[test]
fn a_record_is_bounded_in_bytes_and_lines() {
    let of_bytes = |bytes: usize| format!("UserID,Note\na,{}\n", "x".repeat(bytes - 3));
    assert!(roster(of_bytes(RECORD_MAX_BYTES)).unwrap().next().unwrap().is_ok());
    assert!(matches!(roster(of_bytes(RECORD_MAX_BYTES + 1)).unwrap().next(), Some(Err(RosterError::LongRecord { line: 2 }))));
    let of_lines = |lines: usize| format!("UserID,Note\na,\"{}\"\n", "\n".repeat(lines - 1));
    assert!(roster(of_lines(64)).unwrap().next().unwrap().is_ok());
    assert!(matches!(roster(of_lines(65)).unwrap().next(), Some(Err(RosterError::OpenQuote { .. }))));
}

#[test]
fn a_field_without_end_takes_no_memory() {
    let header = Cursor::new(b"UserID\n".to_vec());
    let endless = std::io::BufReader::new(header.chain(std::io::repeat(b'x').take(1 << 32)));
    let mut roster = Roster::new(endless, &Format::default()).unwrap();
    assert!(matches!(roster.next(), Some(Err(RosterError::LongRecord { line: 2 }))));
    assert!(roster.next().is_none());
}

/// What checkpoints hold: they must be gone on from.
#[test]
fn digests_are_what_they_have_always_been() {
    let text = "\u{feff}UserID,Nick\r\na,\"x\r\ny\"\r\n\r\nb,2\n\u{feff}c,3\nd,4";
    let mut roster = roster(text).unwrap();
    let mark = |rows: u64, offset: u64, line: u64, digest: u64| InputPosition { rows, offset, line, digest };
    assert_eq!(roster.at(), mark(0, 16, 2, 6_399_732_786_151_938_493));
    let ends: Vec<_> = roster.by_ref().map(|record| record.unwrap().end).collect();
    let expected = [
        mark(1, 26, 4, 17_354_224_700_531_699_502),
        mark(2, 32, 6, 3_607_259_454_367_156_257),
        mark(3, 39, 7, 5_717_609_234_240_109_825),
        mark(4, 42, 7, 7_267_060_084_490_266_147),
    ];
    assert_eq!(ends, expected);
    assert_eq!(roster.at(), expected[3]);
}

#[test]
fn records_across_the_edges_of_the_memory_are_whole() {
    let quoted = |row: usize| format!("\"u{row}\",\"{}\n\"\"\"\n", "n".repeat(row % 97));
    let plain = |row: usize| format!("u{row},{}\n", "x".repeat(row * 31 % 400));
    let long = |row: usize| format!("u{row},{}\n", "y".repeat(RECORD_MAX_BYTES - 10));
    let lines = (0..3_000).map(|row| {
        if row % 500 == 499 {
            long(row)
        } else if row % 7 == 0 {
            quoted(row)
        } else {
            plain(row)
        }
    });
    let text = format!("UserID,Note\n{}", lines.collect::<String>());
    let read: Vec<_> = roster(&text).unwrap().map(|record| record.unwrap().fields).collect();
    let expected: Vec<_> = csv::Reader::from_reader(text.as_bytes()).into_byte_records().map(Result::unwrap).collect();
    assert!(read == expected, "{} of {}", read.len(), expected.len());
    let mut views = roster(&text).unwrap();
    for record in &expected {
        assert_eq!(views.next_view().unwrap().unwrap().user_id, &record[0]);
    }
    assert!(views.next_view().is_none());
}

#[test]
fn the_user_id_of_an_invalid_record_can_be_told_from_an_invalid_one() {
    let text = format!("UserID,Nick\nu1,{}\n u2,\n", "n".repeat(501));
    let mut roster = roster(text).unwrap();
    let view = roster.next_view().unwrap().unwrap();
    assert_eq!(
        (UserId::check_as(UserIds::Ascii, view.user_id), view.account),
        (Ok("u1"), Err(InvalidAccount::LongField { field: Field::Nick, bytes: 501 }))
    );
    let view = roster.next_view().unwrap().unwrap();
    assert_eq!((UserId::check_as(UserIds::Ascii, view.user_id).err(), view.user_id), (view.account.err(), &b" u2"[..]));
}

#[test]
fn records_that_are_passed_over_leave_the_same_marks() {
    let text = "\u{feff}UserID,Nick\r\na,\"x\r\ny\"\r\n\r\nb,2\nc\n\"d\",\"\"\"\"\ne,\"open\n";
    let mut passing = roster(text).unwrap();
    let mut reading = roster(text).unwrap();
    for row in 1..=4 {
        assert_eq!(passing.skip_record().unwrap().unwrap(), reading.next_view().unwrap().unwrap().end, "{row}");
    }
    assert_eq!(passing.at(), reading.at());
    assert!(matches!(passing.skip_record(), Some(Err(RosterError::OpenQuote { opened: TextPosition { line: 8, column: 3 }, .. }))));
    assert!(passing.skip_record().is_none());
}

proptest! {
    /// Whatever the csv crate writes is read back, field for field, at places that add up to the file.
    #[test]
    fn records_are_read_as_they_were_written(
        records in prop::collection::vec(prop::collection::vec("[a\"',;\n\r\u{e9}\u{1f600} -]{0,12}", 2..3), 0..20),
        crlf in any::<bool>(),
        always_quoted in any::<bool>(),
    ) {
        let is_blank = |record: &Vec<String>| record.concat().chars().all(|char| char.is_whitespace() || "\",".contains(char));
        let records: Vec<_> = records.into_iter().filter(|record| !is_blank(record)).collect();
        let terminator = if crlf { csv::Terminator::CRLF } else { csv::Terminator::Any(b'\n') };
        let quotes = if always_quoted { csv::QuoteStyle::Always } else { csv::QuoteStyle::Necessary };
        let mut writer = csv::WriterBuilder::new().terminator(terminator).quote_style(quotes).from_writer(Vec::new());
        writer.write_record(["UserID", "Note"]).unwrap();
        for record in &records {
            writer.write_record(record).unwrap();
        }
        let text = writer.into_inner().unwrap();
        let read: Vec<_> = roster(&text).unwrap().map(Result::unwrap).collect();
        let fields: Vec<Vec<_>> = read.iter().map(|record| record.fields.iter().map(|field| String::from_utf8(field.to_vec()).unwrap()).collect()).collect();
        prop_assert_eq!(&fields, &records);
        prop_assert!(read.last().is_none_or(|last| last.end.offset == text.len() as u64));
        for record in &read {
            let before = if record.row == 1 { 0 } else { usize::try_from(read[usize::try_from(record.row).unwrap() - 2].end.offset).unwrap() };
            let line = text[..before].split(|byte| *byte == b'\n').count() as u64;
            prop_assert_eq!(record.line, if record.row == 1 { 2 } else { line });
        }
    }
}
