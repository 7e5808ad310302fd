//! Reads a results file back, even if it was edited or damaged since it was written.
//!
//! Memory is bounded. A line that cannot be parsed costs that line only; reading continues with the next.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::time::SystemTime;

use thiserror::Error;

use super::RESULTS_HEADER;
use crate::domain::outcome::{Status, TAGS_FAILED};
use crate::domain::tag::Tag;

/// Most bytes of a result. Chosen: twice a record of the roster (every byte of its UserID an escaped quote), and as much again for
/// the service's words.
const RESULT_MAX_BYTES: usize = 256 * 1024;
/// Most lines of a result. Chosen: a record of the roster has 64 at most, the rest is for the service's words.
const RESULT_MAX_LINES: usize = 256;
/// Columns of [`RESULTS_HEADER`].
const COLUMNS: usize = 8;
const BOM: &[u8] = b"\xef\xbb\xbf";

/// A result as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultRecord {
    /// The line of the results file on which it starts.
    pub at: u64,
    pub row: u64,
    pub line: u64,
    pub user_id: Box<[u8]>,
    /// The status, or what stands in its place.
    pub status: Result<Status, Box<[u8]>>,
    /// `None` also for one that is no number.
    pub error_code: Option<i64>,
    /// Which call its `error_info` is about.
    pub failed_call: FailedCall,
    /// `None` for what is no number.
    pub attempts: Option<u64>,
    /// `None` for one that is no time.
    pub finished_at: Option<SystemTime>,
    /// What is wrong with the columns behind the status.
    pub flaw: Option<&'static str>,
}

/// The call that a failed row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailedCall {
    /// That of its account.
    Account,
    /// That of its tags; the account was imported.
    Tags,
    /// That of one tag, where each was tried alone; others may have been taken.
    OneTag,
}

/// A line of the results file that is no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MalformedResult {
    pub at: u64,
    pub why: &'static str,
}

/// Why a file cannot be read as results.
#[derive(Debug, Error)]
pub enum ResultsError {
    #[error("the file is empty")]
    Empty,
    #[error("its first line is not the header of a results file")]
    Header,
    #[error("the results cannot be read")]
    Read(#[from] io::Error),
}

/// The results of a file, one after the other.
#[derive(Debug)]
pub struct Results<R> {
    input: R,
    /// Lines that were read and not yet made into results, line ends included.
    ahead: VecDeque<Vec<u8>>,
    /// The number of the first of them.
    line: u64,
}

impl<R: BufRead> Results<R> {
    /// Reads the header off `input`.
    ///
    /// # Errors
    /// [`ResultsError`] for what is no results file.
    pub fn new(input: R) -> Result<Self, ResultsError> {
        let mut results = Self { input, ahead: VecDeque::new(), line: 1 };
        if !results.has_line(0)? {
            return Err(ResultsError::Empty);
        }
        let header = results.pass(1);
        let names = fields(without_end(header.strip_prefix(BOM).unwrap_or(&header)));
        let expected = RESULTS_HEADER.trim_end().split(',').map(|name| name.as_bytes().to_vec());
        if names == Some(expected.collect()) { Ok(results) } else { Err(ResultsError::Header) }
    }

    fn read(&mut self) -> io::Result<Option<Result<ResultRecord, MalformedResult>>> {
        loop {
            if !self.has_line(0)? {
                return Ok(None);
            }
            if !without_end(&self.ahead[0]).is_empty() {
                break;
            }
            self.pass(1);
        }
        let (at, lines) = (self.line, self.lines_of_record()?);
        let record: Vec<u8> = self.ahead.iter().take(lines).flatten().copied().collect();
        let parsed = parse(without_end(&record), at);
        self.pass(if parsed.is_ok() { lines } else { 1 });
        Ok(Some(parsed))
    }

    /// How many lines it takes until no quote is open; one, if that is too far away.
    fn lines_of_record(&mut self) -> io::Result<usize> {
        let (mut lines, mut bytes, mut is_open) = (0, 0, false);
        while lines < RESULT_MAX_LINES && bytes <= RESULT_MAX_BYTES && self.has_line(lines)? {
            let line = &self.ahead[lines];
            is_open = line.iter().fold(is_open, |is_open, byte| is_open ^ (*byte == b'"'));
            bytes += line.len();
            lines += 1;
            if !is_open {
                return Ok(lines);
            }
        }
        Ok(1)
    }

    /// Whether there is a line number `index` ahead; reads on if need be. A line that is too long is taken for several.
    fn has_line(&mut self, index: usize) -> io::Result<bool> {
        while self.ahead.len() <= index {
            let mut line = Vec::new();
            if (&mut self.input).take(RESULT_MAX_BYTES as u64).read_until(b'\n', &mut line)? == 0 {
                return Ok(false);
            }
            self.ahead.push_back(line);
        }
        Ok(true)
    }

    fn pass(&mut self, lines: usize) -> Vec<u8> {
        let mut passed = Vec::new();
        for line in self.ahead.drain(..lines) {
            self.line += u64::from(line.ends_with(b"\n"));
            passed.extend(line);
        }
        passed
    }
}

impl<R: BufRead> Iterator for Results<R> {
    type Item = io::Result<Result<ResultRecord, MalformedResult>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn parse(record: &[u8], at: u64) -> Result<ResultRecord, MalformedResult> {
    let malformed = |why| MalformedResult { at, why };
    let fields = fields(record).ok_or(malformed("its quotes don't pair up"))?;
    let Ok([row, line, user_id, status, code, info, attempts, finished_at]) = <[Vec<u8>; COLUMNS]>::try_from(fields) else {
        return Err(malformed("it has not 8 fields"));
    };
    let row = number(&row).ok_or(malformed("its row is not a number"))?;
    let line = number(&line).ok_or(malformed("its line is not a number"))?;
    let (error_code, finished_at) = (number_or_none(&code), time(&finished_at));
    let flaw = flaw((&code, error_code), &attempts, finished_at);
    let (failed_call, attempts) = (failed_call(&info), number(&attempts));
    let (user_id, status) = (user_id.into(), status_named(&status));
    Ok(ResultRecord { at, row, line, user_id, status, error_code, failed_call, attempts, finished_at, flaw })
}

fn failed_call(info: &[u8]) -> FailedCall {
    let Some(says) = info.strip_prefix(TAGS_FAILED.as_bytes()) else { return FailedCall::Account };
    let name = says.split(|byte| *byte == b':').next().and_then(|name| str::from_utf8(name).ok());
    if name.and_then(Tag::parse).is_some() { FailedCall::OneTag } else { FailedCall::Tags }
}

fn status_named(word: &[u8]) -> Result<Status, Box<[u8]>> {
    Status::ALL.into_iter().find(|status| status.name().as_bytes() == word).ok_or_else(|| word.into())
}

fn number_or_none(code: &[u8]) -> Option<i64> {
    str::from_utf8(code).ok().and_then(|code| code.parse().ok())
}

fn time(text: &[u8]) -> Option<SystemTime> {
    str::from_utf8(text).ok().and_then(|text| humantime::parse_rfc3339(text).ok())
}

fn flaw((code, number_of_code): (&[u8], Option<i64>), attempts: &[u8], finished_at: Option<SystemTime>) -> Option<&'static str> {
    if !code.is_empty() && number_of_code.is_none() {
        Some("its error_code is not a number")
    } else if number(attempts).is_none() {
        Some("its attempts are not a number")
    } else if finished_at.is_none() {
        Some("its finished_at is not a time in UTC")
    } else {
        None
    }
}

/// A number as it is written: no sign, no zeros in front.
fn number(text: &[u8]) -> Option<u64> {
    let text = str::from_utf8(text).ok()?;
    text.parse::<u64>().ok().filter(|number| number.to_string() == text)
}

/// The fields of a record as RFC 4180 has them; `None` where quotes stand as it doesn't allow.
fn fields(record: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut fields = Vec::with_capacity(COLUMNS);
    let mut rest = Some(record);
    while let Some(text) = rest {
        let (field, behind) = match text.strip_prefix(b"\"") {
            Some(quoted) => quoted_field(quoted)?,
            None => plain_field(text)?,
        };
        fields.push(field);
        rest = behind;
    }
    Some(fields)
}

/// A field, and what stands behind the comma that ends it.
type Split<'a> = (Vec<u8>, Option<&'a [u8]>);

fn plain_field(text: &[u8]) -> Option<Split<'_>> {
    let end = text.iter().position(|byte| *byte == b',');
    let field = &text[..end.unwrap_or(text.len())];
    (!field.contains(&b'"')).then(|| (field.to_vec(), end.map(|end| &text[end + 1..])))
}

fn quoted_field(mut text: &[u8]) -> Option<Split<'_>> {
    let mut field = Vec::new();
    loop {
        let quote = text.iter().position(|byte| *byte == b'"')?;
        field.extend_from_slice(&text[..quote]);
        text = &text[quote + 1..];
        match text.first() {
            Some(b'"') => field.push(b'"'),
            Some(b',') => return Some((field, Some(&text[1..]))),
            Some(_) => return None,
            None => return Some((field, None)),
        }
        text = &text[1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "2023-11-14T22:13:20.123Z";

    type MalformedAt = (u64, &'static str);

    /// Line and row, or line and fault.
    fn read(lines: &str) -> Vec<Result<(u64, u64), MalformedAt>> {
        let results = Results::new(io::Cursor::new(format!("{RESULTS_HEADER}{lines}"))).unwrap();
        results
            .map(|result| result.unwrap().map(|entry| (entry.at, entry.row)).map_err(|malformed| (malformed.at, malformed.why)))
            .collect()
    }

    #[test]
    fn results_are_read_as_the_journal_writes_them() {
        let text = format!("1,2,\"a \"\"b\"\",\n\",failed,70402,\"no, \"\"never\"\"\",5,{TIME}\n\n2,4,,invalid,,x,0,{TIME}");
        let results = Results::new(io::Cursor::new(format!("{RESULTS_HEADER}{text}"))).unwrap();
        let entries: Vec<_> = results.map(|result| result.unwrap().unwrap()).collect();
        let finished_at = Some(SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_700_000_000_123));
        let entry = |[at, row, line, attempts]: [u64; 4], user_id: &[u8], (status, error_code)| {
            let (user_id, status, attempts, failed_call) = (user_id.into(), Ok(status), Some(attempts), FailedCall::Account);
            ResultRecord { at, row, line, user_id, status, error_code, failed_call, attempts, finished_at, flaw: None }
        };
        let first = entry([2, 1, 2, 5], b"a \"b\",\n", (Status::Failed, Some(70402)));
        assert_eq!(entries, [first, entry([5, 2, 4, 0], b"", (Status::Invalid, None))]);
    }

    #[test]
    fn what_does_not_parse_costs_one_line() {
        let good = |row: u64| format!("{row},9,u,imported,,,1,{TIME}\n");
        let check = |wrong: &str, expected: &[(u64, &'static str)]| {
            let found = read(&format!("{}{wrong}\n{}{}", good(1), good(2), good(3)));
            assert_eq!(found.iter().filter_map(|result| result.ok()).map(|entry| entry.1).collect::<Vec<_>>(), [1, 2, 3], "{wrong:?}");
            assert_eq!(found.into_iter().filter_map(Result::err).collect::<Vec<_>>(), expected, "{wrong:?}");
        };
        check("x", &[(3, "it has not 8 fields")]);
        check("1,2,3,4,5,6,7,8,9", &[(3, "it has not 8 fields")]);
        check("\"open", &[(3, "its quotes don't pair up")]);
        check("1,2,a\"b\",imported,,,1,x", &[(3, "its quotes don't pair up")]);
        check("\"1\"2,2,a,imported,,,1,x", &[(3, "its quotes don't pair up")]);
        check("01,2,a,imported,,,1,x", &[(3, "its row is not a number")]);
        check("1,,a,imported,,,1,x", &[(3, "its line is not a number")]);
        check(&"x".repeat(RESULT_MAX_BYTES + 1), &[(3, "it has not 8 fields"), (3, "it has not 8 fields")]);
        check(&format!("\"{}", "\n\"\",x".repeat(RESULT_MAX_LINES)), &{
            let mut all = vec![(3, "its quotes don't pair up")];
            all.extend((4..).take(RESULT_MAX_LINES).map(|line| (line, "it has not 8 fields")));
            all
        });
    }

    #[test]
    fn an_open_quote_does_not_swallow_a_later_result_of_several_lines() {
        let text = format!("\"1,2,a,imported,,,1,{TIME}\n2,3,b,failed,1,\"two\nlines\",1,{TIME}\n3,4,c,imported,,,1,{TIME}\n");
        assert_eq!(read(&text), [Err((2, "its quotes don't pair up")), Ok((3, 2)), Ok((5, 3))]);
    }

    #[test]
    fn columns_behind_the_status_are_looked_at() {
        let check = |columns: &str, expected: Option<&'static str>| {
            let results = Results::new(io::Cursor::new(format!("{RESULTS_HEADER}1,2,a,failed,{columns}\n"))).unwrap();
            let flaws: Vec<_> = results.map(|result| result.unwrap().unwrap().flaw).collect();
            assert_eq!(flaws, [expected], "{columns}");
        };
        check(&format!("-1,x,1,{TIME}"), None);
        check(&format!("x,,1,{TIME}"), Some("its error_code is not a number"));
        check(&format!(",,,{TIME}"), Some("its attempts are not a number"));
        check(",,1,2023-11-14T22:13:20.12", Some("its finished_at is not a time in UTC"));
    }

    #[test]
    fn what_is_no_results_file_is_refused() {
        let check = |text: &str, expected: &str| {
            assert_eq!(Results::new(io::Cursor::new(text.to_owned())).err().map(|error| error.to_string()).as_deref(), Some(expected));
        };
        check("", "the file is empty");
        check("UserID,Nick\n", "its first line is not the header of a results file");
        check("row,line,UserID,status,error_code,error_info,attempts", "its first line is not the header of a results file");
        assert!(Results::new(io::Cursor::new(format!("\u{feff}{}\r\n", RESULTS_HEADER.trim_end()))).is_ok(), "re-saved elsewhere");
    }
}
