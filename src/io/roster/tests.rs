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
    while again.pass_over().is_some() {}
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
fn a_bad_file_is_refused_at_its_header() {
    let check = |text: &[u8], expected: &str| {
        let error = roster(text).err().unwrap_or_else(|| panic!("{text:?} is refused"));
        assert_eq!(error.to_string(), expected);
    };
    check(b"", "the file is empty: there is no header");
    check(b"\xef\xbb\xbf\n\n", "the file is empty: there is no header");
    check(b"\xff\xfeU\0s\0", "the file is UTF-16 or binary");
    check(b"U\0s\0e\0r\0I\0D\0\n\0", "the file is UTF-16 or binary");
    check(b"UserID,Nick\ra,b\rc,d\r", "the lines end in carriage returns alone");
    check(b"uid,Nick\na,b\n", "the header has no column \"UserID\"");
    check(b"UserID,user_id\n", "the header has two columns for UserID: \"UserID\" and \"user_id\"");
    check(b"UserID,Nick,Nick\n", "the header has the column \"Nick\" twice");
    check(b"\"UserID\n", "the quote at line 1, column 1 is not closed before the end of the file");
    assert!(roster("UserID,,\n").is_ok(), "nameless columns may repeat");
    assert!(roster("UserID,Note,Note\n").is_ok(), "so may those that nobody reads");
}

#[test]
fn a_name_in_quotes_may_hold_line_ends() {
    for line_end in ["\r\n", "\n", "\r"] {
        let text = format!("\"Full{line_end}Name\",\"UserID\"\r\n\"x{line_end}y\",a\r\n");
        let mut roster = roster(&text).unwrap();
        let names: Vec<_> = roster.header().names.iter().map(<[u8]>::to_vec).collect();
        assert_eq!(names, [format!("Full{line_end}Name").into_bytes(), b"UserID".to_vec()], "{text:?}");
        let record = roster.next().unwrap().unwrap();
        let lines = text.matches('\n').count() as u64;
        assert_eq!((record.row, record.line, &*record.user_id, record.end.line), (1, lines / 2 + 1, &b"a"[..], lines + 1), "{text:?}");
    }
}

#[test]
fn fields_can_be_mapped_from_other_columns() {
    let format =
        Format { delimiter: b';', map: vec![(Field::UserId, "id".to_owned()), (Field::Nick, "name".to_owned())], ..Format::default() };
    let mut roster = Roster::new(Cursor::new("name;id\nAda;u1\n"), &format).unwrap();
    let account = roster.next().unwrap().unwrap().account.unwrap();
    assert_eq!((account.user_id.as_str(), account.nick.as_deref()), ("u1", Some("Ada")));
    let format = Format { map: vec![(Field::FaceUrl, "face".to_owned())], ..Format::default() };
    assert!(matches!(Roster::new(Cursor::new("UserID\n"), &format), Err(RosterError::Header(HeaderError::NoColumn { .. }))));
}

/// The columns of UserID, Nick and FaceUrl, or what is wrong with the header.
fn columns(header: &str, map: &[(Field, &str)]) -> Result<[Option<u32>; 3], String> {
    let map = map.iter().map(|(field, column)| (*field, (*column).to_owned())).collect();
    let roster = Roster::new(Cursor::new(format!("{header}\n")), &Format { map, ..Format::default() });
    roster.map(|roster| roster.reading().columns).map_err(|error| error.to_string())
}

#[test]
fn a_column_is_a_fields_but_for_how_its_name_is_written() {
    let check = |header: &str, expected: [Option<u32>; 3]| assert_eq!(columns(header, &[]), Ok(expected), "{header:?}");
    check("UserID,Nick,FaceUrl", [Some(0), Some(1), Some(2)]);
    check("userid,nick,faceurl", [Some(0), Some(1), Some(2)]);
    check(" User ID ,NICK,face_url", [Some(0), Some(1), Some(2)]);
    check("user-id,\u{a0}nick\u{3000},\" FACE - url\t\"", [Some(0), Some(1), Some(2)]);
    check("x,USER_ID", [Some(1), None, None]);
    check("UserID,NickName,Face,nick.", [Some(0), None, None]);
    check("UserID,Note,note,Note", [Some(0), None, None]);
    let ambiguous = |header: &str, expected: &str| assert_eq!(columns(header, &[]), Err(expected.to_owned()), "{header:?}");
    ambiguous("UserID,nick,Nick", "the header has two columns for Nick: \"nick\" and \"Nick\"");
    ambiguous("FaceUrl,UserID,FaceUrl", "the header has the column \"FaceUrl\" twice");
}

#[test]
fn a_mapped_column_is_looked_for_to_the_letter_first_and_no_other_one_is_read() {
    use Field::{FaceUrl, Nick, UserId};
    let check = |header: &str, map: &[(Field, &str)], expected: Result<[Option<u32>; 3], &str>| {
        assert_eq!(columns(header, map), expected.map_err(str::to_owned), "{header:?} {map:?}");
    };
    check("Name,name,UserID", &[(Nick, "name")], Ok([Some(2), Some(1), None]));
    check("display_name,UserID,Nick", &[(Nick, "Display Name")], Ok([Some(1), Some(0), None]));
    check("Name,NAME,UserID", &[(Nick, "name")], Err("the header has two columns for Nick: \"Name\" and \"NAME\""));
    check("name,name,UserID", &[(Nick, "name")], Err("the header has the column \"name\" twice"));
    check("Nick,UserID", &[(Nick, "name")], Err("the header has no column \"name\""));
    check("UserID,userid", &[(UserId, "userid")], Ok([Some(1), None, None]));
    check("UserID,Nick,FaceUrl", &[(Nick, "")], Ok([Some(0), None, Some(2)]));
    check("UserID,Nick,nick", &[(Nick, ""), (FaceUrl, "nick")], Ok([Some(0), None, Some(2)]));
    check("UserID,Nick", &[(Nick, "Nick"), (Nick, "")], Err("Nick is mapped twice"));
}

#[test]
fn a_column_that_is_ignored_though_its_name_is_near_to_a_field_is_found() {
    let near = |header: &str, map: &[(Field, &str)]| {
        let map = map.iter().map(|(field, column)| (*field, (*column).to_owned())).collect();
        let roster = Roster::new(Cursor::new(format!("{header}\n")), &Format { map, ..Format::default() }).unwrap();
        let found: Vec<_> =
            roster.header().near_misses().map(|(field, name)| format!("{field}={}", String::from_utf8_lossy(name))).collect();
        (found.join(" "), roster.header().ignored())
    };
    let check = |header: &str, map: &[(Field, &str)], expected: &str, ignored: usize| {
        assert_eq!(near(header, map), (expected.to_owned(), ignored), "{header:?} {map:?}");
    };
    check("UserID,Nick,FaceUrl", &[], "", 0);
    check("UserID,NickName,avatar,x", &[], "Nick=NickName FaceUrl=avatar", 3);
    check("UserID,head_url,Portrait", &[], "FaceUrl=head_url FaceUrl=Portrait", 2);
    check("UserID,昵称,头像", &[], "Nick=昵称 FaceUrl=头像", 2);
    check("UserID,Nick,nick_name", &[], "Nick=nick_name", 1);
    check("UserID,Nick,nick_name", &[(Field::Nick, "Nick")], "", 1);
    check("UserID,nick_name", &[(Field::Nick, "")], "", 1);
    check("UserID,nick_name", &[(Field::Nick, "nick_name")], "", 0);
    check("nickname,x", &[(Field::UserId, "nickname")], "", 1);
}

#[test]
fn another_delimiter_that_finds_the_column_of_the_id_is_told() {
    let check = |header: &str, map: Vec<(Field, String)>, expected: Option<u8>| {
        let found = Roster::new(Cursor::new(format!("{header}\nx")), &Format { map, ..Format::default() });
        let Err(RosterError::Header(HeaderError::NoColumn { delimiter, .. })) = found else { panic!("{header:?} is refused") };
        assert_eq!(delimiter, expected, "{header:?}");
    };
    check("UserID;Nick", vec![], Some(b';'));
    check("user_id\tNick, full", vec![], Some(b'\t'));
    check("a;b|UserID", vec![], Some(b'|'));
    check("\"user id\";\"Nick\"", vec![], Some(b';'));
    check("id;Nick", vec![(Field::UserId, "ID".to_owned())], Some(b';'));
    check("id;Nick", vec![], Some(b';'));
    check("id,Nick;x", vec![], None);
    check("id", vec![], None);
}

#[test]
fn a_first_line_that_names_the_delimiter_is_heeded_and_is_no_record() {
    let read = |text: &str, format: Format| {
        let roster = Roster::new(Cursor::new(text.to_owned()), &format).unwrap();
        let delimiter = char::from(roster.reading().delimiter);
        let records =
            roster.map(Result::unwrap).map(|record| (record.row, record.line, String::from_utf8(record.user_id.to_vec()).unwrap()));
        (delimiter, records.collect::<Vec<_>>())
    };
    let rows = |rows: &[(u64, u64, &str)]| rows.iter().map(|(row, line, id)| (*row, *line, (*id).to_owned())).collect::<Vec<_>>();
    let usual = Format::default;
    let asked = |delimiter: u8| Format { delimiter, delimiter_from: DelimiterFrom::Asked, ..Format::default() };
    assert_eq!(read("sep=;\nUserID;Nick\na;b\n", usual()), (';', rows(&[(1, 3, "a")])));
    assert_eq!(read("\u{feff}SEP=\t\r\n\r\nUserID\tNick\r\na\tb\r\n", usual()), ('\t', rows(&[(1, 4, "a")])));
    assert_eq!(read("\"sep=|\"\n\nUserID|Nick\na|b\n", usual()), ('|', rows(&[(1, 4, "a")])));
    assert_eq!(read("sep=,\nUserID,Nick\na,b\n", usual()), (',', rows(&[(1, 3, "a")])));
    assert_eq!(read("sep=;\nUserID|Nick\na|b\n", asked(b'|')), ('|', rows(&[(1, 3, "a")])));
    let map = vec![(Field::UserId, "sep=".to_owned())];
    assert_eq!(read("sep=,x\na,b\n", Format { map, ..usual() }), (',', rows(&[(1, 2, "a")])), "that names a column");
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
    assert_eq!((UserId::check(view.user_id), view.account), (Ok("u1"), Err(InvalidAccount::LongField { field: Field::Nick, bytes: 501 })));
    let view = roster.next_view().unwrap().unwrap();
    assert_eq!((UserId::check(view.user_id).err(), view.user_id), (view.account.err(), &b" u2"[..]));
}

#[test]
fn records_that_are_passed_over_leave_the_same_marks() {
    let text = "\u{feff}UserID,Nick\r\na,\"x\r\ny\"\r\n\r\nb,2\nc\n\"d\",\"\"\"\"\ne,\"open\n";
    let mut passing = roster(text).unwrap();
    let mut reading = roster(text).unwrap();
    for row in 1..=4 {
        assert_eq!(passing.pass_over().unwrap().unwrap(), reading.next_view().unwrap().unwrap().end, "{row}");
    }
    assert_eq!(passing.at(), reading.at());
    assert!(matches!(passing.pass_over(), Some(Err(RosterError::OpenQuote { opened: TextPosition { line: 8, column: 3 }, .. }))));
    assert!(passing.pass_over().is_none());
}

fn file(text: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text).unwrap();
    file
}

#[test]
fn a_roster_goes_on_at_any_mark_as_if_it_had_never_stopped() {
    let file = file("\u{feff}UserID,Nick\r\na,\"x\r\ny\"\r\n\r\nb,2\n\u{feff}c,3\nd,4".as_bytes());
    let open = || Roster::open(file.path(), &Format::default()).unwrap();
    let whole: Vec<_> = open().map(Result::unwrap).collect();
    assert_eq!(whole.len(), 4);
    for (at, stop) in whole.iter().enumerate() {
        let rest: Vec<_> = open().skip_to(stop.end).unwrap().map(Result::unwrap).collect();
        let seen = |record: &Record| (record.row, record.line, record.end, record.fields.clone(), record.account.clone());
        assert_eq!(rest.iter().map(seen).collect::<Vec<_>>(), whole[at + 1..].iter().map(seen).collect::<Vec<_>>());
        assert_eq!(open().skip_to(stop.end).unwrap().count_rest().unwrap(), rest.len() as u64);
    }
}

#[test]
fn a_change_is_told_from_a_change_behind_the_settled_part() {
    let before = b"UserID\na\nb\nc";
    let marks: Vec<_> = Roster::open(file(before).path(), &Format::default()).unwrap().map(|record| record.unwrap().end).collect();
    let check = |settled: usize, now: &[u8], expected: InputChange| {
        assert_eq!(
            compare(&InputFile::open(file(now).path()).unwrap(), b',', marks[settled - 1]).unwrap(),
            expected,
            "{settled} {:?}",
            String::from_utf8_lossy(now)
        );
    };
    check(3, before, InputChange::Same);
    check(3, b"UserID\na\nb\nc\n\r\n\n", InputChange::Same);
    check(3, b"UserID\na\nb\nc\nd\n", InputChange::ChangedAfter);
    check(3, b"UserID\na\nb\ncd\n", InputChange::ChangedWithin);
    check(3, b"UserID\na\nb\n", InputChange::ChangedWithin);
    check(2, b"UserID\na\nb\nx\n", InputChange::ChangedAfter);
    check(2, b"UserID\na\nB\nc", InputChange::ChangedWithin);
    check(2, b"UserId\na\nb\nc", InputChange::ChangedWithin);
    check(1, b"UserID\na", InputChange::ChangedWithin);
    check(1, b"UserID\n\"a\nb", InputChange::ChangedWithin);
}

#[test]
fn a_first_line_that_names_the_delimiter_is_compared_with_the_rest() {
    let before = b"sep=;\nUserID;Nick\na;\"1\n2\"\nb;\nc;";
    let marks: Vec<_> = Roster::open(file(before).path(), &Format::default()).unwrap().map(|record| record.unwrap().end).collect();
    let check = |now: &[u8], expected: InputChange| {
        let now = file(now);
        assert_eq!(compare(&InputFile::open(now.path()).unwrap(), b';', marks[1]).unwrap(), expected);
    };
    check(before, InputChange::ChangedAfter);
    check(b"sep=;\nUserID;Nick\na;\"1\n2\"\nb;\n", InputChange::Same);
    check(b"sep=;\nUserID;Nick\na;\"1\n3\"\nb;\n", InputChange::ChangedWithin);
}

#[test]
fn a_run_that_settled_nothing_matches_its_header() {
    let at = Roster::open(file(b"UserID\na\n").path(), &Format::default()).unwrap().at();
    assert_eq!(compare(&InputFile::open(file(b"UserID\nb\n").path()).unwrap(), b',', at).unwrap(), InputChange::ChangedAfter);
    assert_eq!(compare(&InputFile::open(file(b"UserId\na\n").path()).unwrap(), b',', at).unwrap(), InputChange::ChangedWithin);
}

/// Reads two records of three, changes the file, reads the rest: the ids of all, and the error at the end.
fn watched(before: &str, change: impl FnOnce(&std::path::Path)) -> (Vec<String>, Option<String>) {
    let named = file(before.as_bytes());
    let opened = InputFile::open(named.path()).unwrap();
    let roster = Roster::of(&opened, &Format::default()).unwrap();
    let stat = opened.fingerprint().unwrap();
    // Some buffers are read ahead: more than that is in the file.
    let mut records = Watched::new(roster, opened, stat);
    let mut ids: Vec<String> = Vec::new();
    let mut take = |next: Option<Result<Record, RosterError>>| match next {
        Some(Ok(record)) => {
            ids.push(String::from_utf8(record.user_id.to_vec()).unwrap());
            Ok(true)
        }
        Some(Err(error)) => Err(error.to_string()),
        None => Ok(false),
    };
    assert_eq!((take(records.next()), take(records.next())), (Ok(true), Ok(true)));
    change(named.path());
    let end = loop {
        match take(records.next()) {
            Ok(true) => {}
            Ok(false) => break None,
            Err(error) => break Some(error),
        }
    };
    assert!(end.is_none() || records.next().is_none());
    (ids, end)
}

#[test]
fn a_file_that_changes_while_it_is_read_ends_only_if_all_that_was_read_stands() {
    use std::fs;
    let write = |text: &'static str| move |path: &std::path::Path| fs::write(path, text).unwrap();
    let modified = Some("it was truncated or rewritten while it was being read".to_owned());
    let ids = |ids: &str| ids.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let before = "UserID\na\nb\nc\n";
    assert_eq!(watched(before, |_| ()), (ids("a b c"), None));
    assert_eq!(
        watched(before, |path| fs::File::options().write(true).open(path).unwrap().set_modified(std::time::SystemTime::now()).unwrap()),
        (ids("a b c"), None)
    );
    assert_eq!(watched(before, write("UserID\na\nb\nc\nd\ne\n")), (ids("a b c d e"), None), "it has grown");
    assert_eq!(watched(before, write("UserID\na\nb\nc\nd")), (ids("a b c d"), None), "it has grown");
    assert_eq!(watched(before, write("UserID\na\nb\nx\n")).1, modified, "rewritten behind what was told");
    assert_eq!(watched(before, write("UserID\na\nB\nc\n")).1, modified, "rewritten within it");
    assert_eq!(watched(before, write("UserID\na\nb\n")).1, modified, "truncated");
    assert_eq!(watched(before, write("")).1, modified, "truncated to nothing");
    let (read, end) =
        watched(before, |path| fs::rename(path, path.with_extension("old")).and_then(|()| fs::write(path, "UserID\nx\n")).unwrap());
    assert_eq!((read, end), (ids("a b c"), None), "another file has its name");
}

#[test]
fn half_a_line_at_the_end_of_a_file_that_is_being_written_is_no_record() {
    use std::fs;
    let modified = Some("it was truncated or rewritten while it was being read".to_owned());
    let ids = |ids: &str| ids.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let append = |text: &'static str| {
        move |path: &std::path::Path| fs::OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap()
    };
    let before = "UserID\na\nb\nhal";
    assert_eq!(watched(before, |_| ()), (ids("a b hal"), None));
    assert_eq!(watched(before, append("f\nc\n")), (ids("a b half c"), None));
    assert_eq!(watched(before, append("f")), (ids("a b half"), None));
    assert_eq!(watched("UserID\na\nb\nc\nlonger_than_this\n", |path| fs::write(path, "UserID\na\nb\nc\nlong").unwrap()).1, modified);
}

#[test]
fn a_long_file_that_has_changed_is_compared_bit_by_bit() {
    let rows = 40_000;
    let text = (0..rows).fold("UserID\n".to_owned(), |text, row| text + &format!("user{row}\n"));
    let named = file(text.as_bytes());
    let opened = InputFile::open(named.path()).unwrap();
    let roster = Roster::of(&opened, &Format::default()).unwrap();
    let mut records = Watched::new(roster, opened.clone(), opened.fingerprint().unwrap());
    named.as_file().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let (mut read, mut comparing) = (0, 0);
    while let Some(next) = records.next_or_comparing() {
        match next.unwrap() {
            Next::Record(_) => read += 1,
            Next::Comparing => comparing += 1,
        }
    }
    assert_eq!(read, rows);
    assert!((3..10).contains(&comparing), "{comparing}");
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

/// The records of a text that is read with `--escape '\\'`, their fields joined by bars, or why they are invalid.
fn with_escape(text: &str) -> Vec<String> {
    let format = Format { escape: Some(b'\\'), ..Format::default() };
    let roster = Roster::new(Cursor::new(format!("UserID,Nick,FaceUrl\n{text}")), &format).unwrap();
    let shown = |record: Record| match record.account {
        Ok(_) => record.fields.iter().map(|field| String::from_utf8_lossy(field).into_owned()).collect::<Vec<_>>().join("|"),
        Err(why) => why.to_string(),
    };
    roster.map(|record| shown(record.unwrap())).collect()
}

#[test]
fn an_escape_character_takes_the_meaning_off_the_next_one() {
    let check = |text: &str, expected: &[&str]| {
        assert_eq!(with_escape(text), expected, "{text:?}");
        assert_eq!(with_escape(&format!("{text}\nnext,,\n")).last().map(String::as_str), Some("next||"), "{text:?}");
    };
    check(r#"a,"say \"hi\" now",x"#, &[r#"a|say "hi" now|x"#]);
    check(r#"a,"say \"hi\"",x"#, &[r#"a|say "hi"|x"#]);
    check(r#"a,"doubled ""quotes"" stay",x"#, &[r#"a|doubled "quotes" stay|x"#]);
    check(r"a,one\,field,x", &["a|one,field|x"]);
    check(r#"a,"C:\\",x"#, &[r"a|C:\|x"]);
    check(r"a,C:\\,x", &[r"a|C:\|x"]);
    check(r#"a,not \"quoted\",x"#, &[r#"a|not "quoted"|x"#]);
    check(r"a,\N,\N", &["a||"]);
    check(r#"a,"\N",x\N"#, &["a|N|xN"]);
    check(r"\a,\b,\\N", &[r"a|b|\N"]);
    check("a,two\\\nlines,x", &["a|two\nlines|x"]);
    check("a,\"two\\\nlines\",x", &["a|two\nlines|x"]);
    check("a,\"two\nlines\",x", &["a|two\nlines|x"]);
    check(r#"a,"b" c,x"#, &["text follows the closing quote at line 2, column 6"]);
    check(r"a,\,", &["the row has 2 fields, the header has 3"]);
    check("a,b,\"x\nc,d,e\"", &["the quote at line 2 swallowed line 3"]);
    // The file ends behind an escape character, or behind the line end that it escapes.
    assert_eq!(with_escape("a,b,c\\"), ["a|b|c\\"]);
    assert_eq!(with_escape("a,b,c\\\n"), ["a|b|c\\"]);
}

#[test]
fn lines_and_places_are_counted_over_escaped_line_ends() {
    let format = Format { escape: Some(b'\\'), ..Format::default() };
    let text = "UserID,Nick\na,b\\\nc\nd,\"e\\\nf\"\ng,h\n";
    let records: Vec<Record> = Roster::new(Cursor::new(text), &format).unwrap().map(Result::unwrap).collect();
    let places: Vec<_> = records.iter().map(|record| (record.row, record.line, record.end.offset)).collect();
    assert_eq!(places, [(1, 2, 19), (2, 4, 28), (3, 6, 32)]);
    let mut again = Roster::new(Cursor::new(text), &format).unwrap().skip_to(records[0].end).unwrap();
    assert_eq!(again.next().unwrap().unwrap().end, records[1].end);
}

#[test]
fn an_escaped_quote_near_the_start_says_how_the_file_is_written_and_later_costs_its_row() {
    let file = |before: usize, text: &str| {
        let text = "UserID,Nick\n".to_owned() + &"u,n\n".repeat(before) + text + "\nnext,1\n";
        Roster::new(Cursor::new(text), &Format::default()).unwrap().collect::<Result<Vec<_>, _>>()
    };
    let quote = |line: u64, column: u64| format!("a backslash escapes the quote in front of line {line}, column {column}");
    assert_eq!(file(0, r#"a,"say \"hi\" now""#).unwrap_err().to_string(), quote(2, 10));
    assert_eq!(file(999, r#"a,"say \"hi\"""#).unwrap_err().to_string(), quote(1_001, 10));
    let read = file(1_000, r#"a,"say \"hi\" now""#).unwrap();
    assert_eq!(read[1_000].account.as_ref().unwrap_err().to_string(), "text follows the closing quote at line 1002, column 10");
    assert_eq!(&*read[1_001].user_id, b"next");
    // A backslash in front of a quote that closes its field is text, and so is an escaped backslash.
    for text in [r#"a,"C:\""#, r#""a","\""#] {
        assert_eq!(file(0, text).unwrap().len(), 2, "{text}");
    }
    assert!(file(0, r#"a,"C:\\"x"#).unwrap()[0].account.is_err());
    let header = Roster::new(Cursor::new("UserID,\"a \\\"b\\\"\"\n"), &Format::default());
    assert!(matches!(header, Err(RosterError::EscapedQuote { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a writer escapes is read as it was, in quotes and outside.
    #[test]
    fn what_was_written_with_an_escape_character_is_read_as_it_was(
        rows in prop::collection::vec(prop::collection::vec(("[abN\\\\\",\n é]{0,6}", any::<bool>()), 3), 1..5),
    ) {
        let cell = |(text, is_quoted): &(String, bool)| {
            if *is_quoted {
                format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
            } else {
                ["\\", "\"", ",", "\n"].iter().fold(text.clone(), |text, char| text.replace(char, &format!("\\{char}")))
            }
        };
        let lines = rows.iter().map(|row| row.iter().map(cell).collect::<Vec<_>>().join(",") + "\n");
        let text = "UserID,Nick,FaceUrl\n".to_owned() + &lines.collect::<String>();
        let format = Format { escape: Some(b'\\'), multiline: Multiline::Taken, ..Format::default() };
        let read: Vec<Vec<String>> = Roster::new(Cursor::new(text), &format).unwrap()
            .map(|record| record.unwrap().fields.iter().map(|field| String::from_utf8(field.to_vec()).unwrap()).collect())
            .collect();
        // What holds nothing but delimiters, quotes and white space in the file is no record.
        let is_blank = |row: &[(String, bool)]| row.iter().map(cell).collect::<String>().chars().all(|char| "\" \n,".contains(char));
        let cells = |row: &Vec<(String, bool)>| row.iter().map(|cell| cell.0.clone()).collect();
        let expected: Vec<Vec<String>> = rows.iter().filter(|row| !is_blank(row)).map(cells).collect();
        prop_assert_eq!(read, expected);
    }
}
