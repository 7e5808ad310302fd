//! What holds of any bytes whatever: the fuzz targets in `fuzz/` and the property tests claim the same.

use std::collections::HashSet;
use std::io::{self, Read};

use chatlift::domain::account::{Account, InvalidAccount};
use chatlift::domain::answer::Answer;
use chatlift::domain::command::Command;
use chatlift::domain::position::{InputPosition, ReadAs};
use chatlift::domain::verdict::CallOutcome;
use chatlift::io::api::answer;
use chatlift::io::journal::checkpoint::Checkpoint;
use chatlift::io::roster::{COPY_MAX_BYTES, DelimiterFrom, Format, RECORD_MAX_BYTES, RECORD_MAX_LINES, Record, Roster, RosterError};
use chatlift::io::source::{TextStream, encoding_of_label};
use serde_json::Value;

/// The roster never panics, its records lie one behind the other and are bounded, and nothing between them is lost.
pub(crate) fn of_the_roster(bytes: &[u8]) {
    let read = records(bytes, usize::MAX);
    // An input that hands out few bytes at a time yields the same.
    assert_eq!(read, records(bytes, few(bytes)));
    let Some((header, records, error)) = read else { return };
    let mut before = header;
    for record in &records {
        assert_eq!(record.row, before.rows + 1);
        lies_behind(record, before, bytes);
        before = record.end;
    }
    let rest = &bytes[offset(before)..];
    if error.is_none() {
        assert!(is_blank(rest, b','), "records are lost: {rest:?}");
        let whole = Roster::new(bytes, &commas()).unwrap();
        assert_eq!(whole.count_rest().unwrap(), records.len() as u64);
    }
}

/// Whatever bytes a file begins with, a field is read from a column of its name and no column is read twice; what isn't read is ignored.
pub(crate) fn of_a_header(bytes: &[u8]) {
    let Ok(roster) = Roster::new(bytes, &Format::default()) else { return };
    let (header, layout) = (roster.header(), roster.reading());
    let columns: Vec<u32> = layout.columns.into_iter().flatten().chain(layout.tags().map(|(_, column)| column)).collect();
    assert_eq!(columns.iter().collect::<HashSet<_>>().len(), columns.len(), "{header:?}");
    assert!(
        layout.columns[0].is_some() && columns.iter().all(|column| usize::try_from(*column).unwrap() < header.names.len()),
        "{header:?}"
    );
    assert_eq!(header.ignored() + columns.len(), header.names.len(), "{header:?}");
    for (field, column) in header.sources() {
        let in_profiles = field.profile().map(|profile| profile.spec().tag.as_bytes());
        assert!(column.is_none_or(|column| is_called(column, field.name()) || Some(column) == in_profiles), "{header:?}");
    }
    for (tag, column) in header.tag_sources() {
        assert_eq!(tag.wire_name().as_bytes(), column, "{header:?}");
    }
    assert!(header.near_misses().count() <= header.ignored(), "{header:?}");
    for (meant, near) in header.near_misses() {
        let is_read_by_itself = match meant {
            ReadAs::Field(field) => is_called(near, field.name()),
            ReadAs::Tag(tag) => near == tag.wire_name().as_bytes(),
        };
        assert!(!is_read_by_itself, "{header:?}");
    }
    assert!(offset(roster.at()) <= bytes.len() && roster.at().rows == 0);
}

/// Encodings of each kind: of one byte, of several with and without states, of two, and UTF-8.
const ENCODINGS: [&str; 8] = ["utf-8", "gb18030", "big5", "shift_jis", "euc-kr", "iso-2022-jp", "windows-1252", "utf-16le"];

/// The text of a file in any of these encodings (the first byte says which one) never depends on how its bytes come, and none of it is
/// lost in silence: bytes that cannot be decoded leave something that is not UTF-8.
pub(crate) fn of_the_recoder(bytes: &[u8]) {
    let Some((which, raw)) = bytes.split_first() else { return };
    let label = ENCODINGS[usize::from(*which) % ENCODINGS.len()];
    let encoding = encoding_of_label(label);
    let read = |few| {
        let mut text = Vec::new();
        let end = TextStream::open(Trickle { left: raw, few }, encoding).and_then(|mut stream| stream.read_to_end(&mut text));
        (text, end.map_err(|error| error.to_string()))
    };
    let (text, end) = read(usize::MAX);
    assert_eq!((&text, &end), (&read(few(raw)).0, &read(few(raw)).1), "{label}");
    if end.is_ok() && label == "utf-8" && std::str::from_utf8(raw).is_ok() && !raw.starts_with("\u{feff}".as_bytes()) {
        assert_eq!(text, raw, "a file in UTF-8 is its own text");
    }
}

/// With an escape character, too, records lie one behind the other, and an input that hands out few bytes at a time yields the same.
pub(crate) fn of_escapes(bytes: &[u8]) {
    let format = Format { escape: Some(b'\\'), ..commas() };
    let read = |few| {
        let roster = Roster::new(Trickle { left: bytes, few }, &format).ok()?;
        let same = |record: Result<Record, RosterError>| record.map(Same::from).map_err(|error| error.to_string());
        Some(roster.map(same).collect::<Vec<_>>())
    };
    let whole = read(usize::MAX);
    assert_eq!(whole, read(few(bytes)));
    let mut before = 0;
    for (record, row) in whole.into_iter().flatten().map_while(Result::ok).zip(1..) {
        assert!(record.row == row && offset(record.end) > before && offset(record.end) <= bytes.len(), "{record:?}");
        let held: usize = record.fields.iter().map(Vec::len).sum();
        assert!(held <= offset(record.end) - before && record.end.line - record.line <= RECORD_MAX_LINES, "{record:?}");
        before = offset(record.end);
    }
}

/// Separated by commas whatever the file says.
fn commas() -> Format {
    Format { delimiter_from: DelimiterFrom::Asked, ..Format::default() }
}

/// An input that hands out a few bytes at a time.
struct Trickle<'a> {
    left: &'a [u8],
    few: usize,
}

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let few = self.few.min(buffer.len());
        self.left.read(&mut buffer[..few])
    }
}

/// So few that no record of more bytes comes in one piece, and as many as it takes to be done in time.
fn few(bytes: &[u8]) -> usize {
    if bytes.len() < 4096 { 7 } else { 4093 }
}

/// A view says what a record says, and both say what the csv crate says of the same bytes, whatever separates the fields.
/// `bytes` are separated by commas.
pub(crate) fn of_views(bytes: &[u8], delimiter: u8) {
    let swap = |byte: &u8| match *byte {
        b',' => delimiter,
        byte if byte == delimiter => b',',
        byte => byte,
    };
    let bytes: Vec<u8> = bytes.iter().map(swap).collect();
    let format = Format { delimiter, delimiter_from: DelimiterFrom::Asked, ..Format::default() };
    let open = || Roster::new(Trickle { left: &bytes, few: few(&bytes) }, &format);
    let (Ok(mut records), Ok(mut views)) = (open(), open()) else { return };
    let names: Vec<Vec<u8>> = records.header().names.iter().map(<[u8]>::to_vec).collect();
    loop {
        let before = records.at();
        match (records.next(), views.next_view()) {
            (Some(Ok(record)), Some(Ok(view))) => {
                let account = view.account.clone().map(Account::from);
                assert_eq!((view.row, view.line, view.end, view.user_id), (record.row, record.line, record.end, &*record.user_id));
                assert_eq!(account, record.account);
                let passed = &bytes[offset(before)..offset(record.end)];
                is_what_the_csv_crate_reads(&record, passed.split_at(blank_bytes(passed, record.line - before.line)).1, delimiter, &names);
            }
            (Some(Err(one)), Some(Err(other))) => assert_eq!(one.to_string(), other.to_string()),
            (None, None) => break,
            (one, other) => panic!("{one:?} is no {other:?}"),
        }
        assert_eq!(records.at(), views.at());
    }
}

/// Whether there is nothing but delimiters, quotes and white space.
fn is_blank(bytes: &[u8], delimiter: u8) -> bool {
    let is_empty = |char: char| char.is_whitespace() || char == '"' || char == char::from(delimiter);
    std::str::from_utf8(bytes).is_ok_and(|text| text.chars().all(is_empty))
}

/// Bytes of the first `lines` lines.
fn blank_bytes(passed: &[u8], lines: u64) -> usize {
    passed.split_inclusive(|byte| *byte == b'\n').take(usize::try_from(lines).unwrap()).map(<[u8]>::len).sum()
}

/// Whether a column's name is a field's but for case, blanks, `_` and `-`.
fn is_called(column: &[u8], name: &str) -> bool {
    let column =
        std::str::from_utf8(column).unwrap_or_default().replace(|char: char| char.is_whitespace() || "_-\u{feff}".contains(char), "");
    column.to_lowercase() == name.to_lowercase()
}

fn is_what_the_csv_crate_reads(record: &Record, raw: &[u8], delimiter: u8, names: &[Vec<u8>]) {
    assert!(!is_blank(raw, delimiter), "{record:?}");
    let raw = raw.strip_suffix(b"\n").unwrap_or(raw);
    let raw = raw.strip_suffix(b"\r").unwrap_or(raw);
    // Behind another record, so that a byte order mark isn't taken for the file's.
    let text = [b"first\n", raw, b"\n"].concat();
    let mut builder = csv::ReaderBuilder::new();
    builder.has_headers(false).flexible(true).delimiter(delimiter).terminator(csv::Terminator::Any(b'\n'));
    let read: Vec<_> = builder.from_reader(text.as_slice()).into_byte_records().skip(1).map(Result::unwrap).collect();
    assert_eq!(read, std::slice::from_ref(&record.fields));
    let cell = |name: &str| names.iter().position(|found| is_called(found, name)).and_then(|at| read[0].get(at)).unwrap_or_default();
    assert_eq!(cell("UserID"), &*record.user_id);
    match &record.account {
        Err(InvalidAccount::FieldCount { expected, found }) => {
            assert!(expected != found && (*expected, *found) == (names.len(), read[0].len()));
        }
        Err(InvalidAccount::HeaderAgain) => assert_eq!(read[0].iter().collect::<Vec<_>>(), names),
        Err(InvalidAccount::TextAfterQuote { .. }) => assert!(raw.contains(&b'"')),
        Err(InvalidAccount::SwallowedLines { quote, last }) => {
            let line_ends = raw.split(|byte| *byte == b'\n').count() as u64 - 1;
            assert!(record.line <= *quote && quote < last && *last <= record.line + line_ends, "{record:?}");
        }
        account => {
            assert_eq!(names.len(), read[0].len());
            assert_eq!(*account, Account::parse(cell("UserID"), cell("Nick"), cell("FaceUrl")));
        }
    }
}

fn offset(mark: InputPosition) -> usize {
    usize::try_from(mark.offset).unwrap()
}

type Readout = (InputPosition, Vec<Same>, Option<String>);

/// What is compared of a record.
#[derive(Debug, PartialEq)]
struct Same {
    row: u64,
    line: u64,
    end: InputPosition,
    user_id: Box<[u8]>,
    account: Result<Account, InvalidAccount>,
    fields: Vec<Vec<u8>>,
}

impl From<Record> for Same {
    fn from(record: Record) -> Self {
        let Record { row, line, end, user_id, other_id, account, suspects: _, fields, text: _ } = record;
        assert_eq!(other_id, None, "nothing is asked for that makes it another id");
        Self { row, line, end, user_id, account, fields: fields.iter().map(<[u8]>::to_vec).collect() }
    }
}

/// The place behind the header, all records, and the error at their end; `None` if there is no header.
fn records(bytes: &[u8], few: usize) -> Option<Readout> {
    let mut roster = Roster::new(Trickle { left: bytes, few }, &commas()).ok()?;
    let header = roster.at();
    let (mut records, mut error) = (Vec::new(), None);
    for read in &mut roster {
        assert!(error.is_none(), "nothing follows an error");
        match read {
            Ok(record) => records.push(record.into()),
            Err(found) => {
                assert!(!matches!(found, RosterError::Read(_) | RosterError::Header(_)), "{found}");
                error = Some(found.to_string());
            }
        }
    }
    assert!(roster.next().is_none(), "an end is an end");
    Some((header, records, error))
}

fn lies_behind(record: &Same, before: InputPosition, bytes: &[u8]) {
    assert!(before.offset < record.end.offset && offset(record.end) <= bytes.len(), "{record:?}");
    let passed = &bytes[offset(before)..offset(record.end)];
    let lines = |bytes: &[u8]| bytes.split(|byte| *byte == b'\n').count() as u64 - 1;
    assert_eq!(record.end.line, before.line + lines(passed), "{record:?}");
    assert!(record.line >= before.line, "{record:?}");
    let blank = blank_bytes(passed, record.line - before.line);
    assert!(is_blank(&passed[..blank], b','), "{record:?}");
    // Copies of records may be longer; the header stands in front of the first record.
    let may_be_a_copy = bytes.windows(b"error_info".len()).any(|name| name == b"error_info");
    let most = if may_be_a_copy { COPY_MAX_BYTES } else { RECORD_MAX_BYTES };
    assert!(passed.len() - blank <= most, "{record:?}");
    assert!(record.end.line - record.line <= RECORD_MAX_LINES, "{record:?}");
    let held: usize = record.fields.iter().map(Vec::len).sum();
    assert!(held <= passed.len(), "{record:?}");
    assert!(record.user_id.is_empty() || record.fields.iter().any(|field| **field == *record.user_id), "{record:?}");
    if let Ok(account) = &record.account {
        assert_eq!(account.user_id.as_str().as_bytes(), &*record.user_id);
    }
}

/// An answer never panics, and is no success and no refusal unless it says so itself.
pub(crate) fn of_an_answer(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes));
    // Numbers and texts that aren't looked at need not fit into a value, and what is no text is read as it can be.
    let said: Option<Value> = serde_json::from_str(&text).ok();
    for command in Command::ALL {
        match (answer::read(command, bytes), &said) {
            (CallOutcome::Done(found), Some(said)) => {
                assert!(said["ActionStatus"] == "OK" && is_code(&said["ErrorCode"], 0), "{said}");
                assert!(has_at_most(&found, bytes.len()), "{found:?}");
            }
            (CallOutcome::Refused { code, .. }, Some(said)) => {
                assert!(is_code(&said["ErrorCode"], code) && !(said["ActionStatus"] == "OK" && code == 0), "{said}");
            }
            (CallOutcome::Lost { why }, _) => assert!(!why.contains(char::is_control) && why.len() < 400, "{why:?}"),
            (CallOutcome::Done(_) | CallOutcome::Refused { .. }, None) => {
                assert!(text.contains("ActionStatus") || text.contains('\\'), "{text}");
            }
            (other, _) => panic!("a body is no {other:?}"),
        }
    }
}

/// Whether a number, or one in quotes, is this one.
fn is_code(said: &Value, code: i64) -> bool {
    let number = match said {
        Value::String(quoted) => quoted.trim().parse().ok(),
        other => other.as_f64(),
    };
    let is_clamped = code == i64::MAX || code == i64::MIN;
    number.is_some_and(|number: f64| is_clamped || number - code as f64 == 0.0)
}

fn has_at_most(found: &Answer, bytes: usize) -> bool {
    match found {
        Answer::Nothing => true,
        Answer::FailAccounts(ids) => ids.iter().map(|id| id.len()).sum::<usize>() <= bytes,
        Answer::Profiles(profiles) => profiles.len() <= bytes,
        Answer::Statuses(items) => items.len() <= bytes,
        Answer::Results(items) => items.len() <= bytes,
        Answer::Presences(items) => items.len() <= bytes,
    }
}

/// Bytes that are taken for a checkpoint say exactly what is read out of them; only its version may be an older one.
pub(crate) fn of_a_checkpoint(bytes: &[u8]) {
    let Ok(read) = Checkpoint::decode(bytes) else { return };
    let written = read.encode();
    assert_eq!(Checkpoint::decode(&written).as_ref(), Ok(&read));
    let value = |bytes: &[u8]| {
        let mut value: Value = serde_json::from_slice(bytes).unwrap();
        let version = value.as_object_mut().unwrap().remove("version");
        (value, version.unwrap().as_u64())
    };
    let ((read, version), (written, newest)) = (value(bytes), value(&written));
    assert_eq!(read, written, "it says more, or something else");
    assert!(version <= newest, "{version:?} is not known yet");
}
