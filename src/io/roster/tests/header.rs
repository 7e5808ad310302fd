//! The first line of a file: its names, its delimiter, and which columns are read.

use super::*;

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
