//! Files in which quotes are escaped.

use super::*;

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
