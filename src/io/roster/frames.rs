//! Where records begin and end: the guard in front of the csv crate.
//!
//! The csv crate reads an unclosed quote to the end of the file as one record, without an error. So the extent of every record is found
//! here first, bounded, with its place in the file; the csv crate never sees more than one. `frame_scan` reads the quotes of a record.

use std::fmt;
use std::io::{self, Read, Seek};

use memchr::memchr;

use super::blank_lines::BlankLines;
use super::frame_scan::{FrameScan, QuotedSpan, Quoting, TextPosition};
use super::header::DelimiterFrom;
use super::line_text::{is_blank, is_of_rejects, named_delimiter, without_line_end};
use super::read_buffer::ReadBuffer;
use crate::domain::position::{Dialect, InputPosition};

/// Longest record in bytes, line end included. Chosen: 40 times what the service's limits allow for the three fields.
pub const RECORD_MAX_BYTES: usize = 64 * 1024;
/// Longest record in bytes of a rejects file. A copy has the reason in it, all its quotes are doubled, and surplus bytes that are no UTF-8
/// become three each, so that no copy of a record is longer.
pub const COPY_MAX_BYTES: usize = 4 * RECORD_MAX_BYTES;
/// Most lines in a record. Chosen: names and URLs hold none; other columns of the export may.
pub const RECORD_MAX_LINES: u64 = 64;

/// The extent of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    /// The line on which it starts.
    pub(super) line: u64,
    /// The place behind it.
    pub(super) end: InputPosition,
    /// Whether there is a quote or an escape character anywhere in it.
    pub(super) has_quote: bool,
    /// Where text follows a closing quote; the csv crate would glue it to the field without a word.
    pub(super) text_after_quote: Option<TextPosition>,
    /// Whether the first such quote has a backslash in front: it was meant to be part of the text.
    pub(super) is_escaped: bool,
    /// Whether a quoted field runs over lines; [`Frames::spans`] has them.
    pub(super) has_span: bool,
}

/// How far an open quote's other end was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchedUpTo {
    /// As far as a record may reach.
    Limits,
    /// The end of the file.
    End,
}

impl fmt::Display for SearchedUpTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SearchedUpTo::Limits => write!(f, "within {RECORD_MAX_LINES} lines and {RECORD_MAX_BYTES} bytes"),
            SearchedUpTo::End => f.write_str("before the end of the file"),
        }
    }
}

/// Why the file cannot be cut into records any further.
#[derive(Debug)]
pub(super) enum FrameError {
    OpenQuote { opened: TextPosition, up_to: SearchedUpTo },
    LongRecord { line: u64 },
    Read(io::Error),
}

impl From<io::Error> for FrameError {
    fn from(error: io::Error) -> Self {
        FrameError::Read(error)
    }
}

/// Cuts a file into records.
#[derive(Debug)]
pub(super) struct Frames<R> {
    ahead: ReadBuffer<R>,
    dialect: Dialect,
    max_bytes: usize,
    /// Bytes of the current record, line end included, and after an error of what was looked at.
    len: usize,
    /// How far it has read, blank lines included.
    at: InputPosition,
    /// The place behind the last record.
    last: InputPosition,
    /// The quoted spans of the last record that had any.
    spans: Vec<QuotedSpan>,
    blank: BlankLines,
    /// The place behind the last blank line that was counted.
    blank_up_to: u64,
}

impl<R: Read> Frames<R> {
    /// `input` stands at `at`.
    pub(super) fn new(input: R, dialect: impl Into<Dialect>, at: InputPosition) -> Self {
        Self {
            ahead: ReadBuffer::new(input),
            dialect: dialect.into(),
            max_bytes: RECORD_MAX_BYTES,
            len: 0,
            at,
            last: at,
            spans: Vec::new(),
            blank: BlankLines::default(),
            blank_up_to: 0,
        }
    }

    pub(super) fn delimiter(&self) -> u8 {
        self.dialect.delimiter
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The place behind the last record, or where reading began: blank lines behind it are nobody's, whether they are there yet or not.
    pub(super) fn behind_last(&self) -> InputPosition {
        self.last
    }

    /// The header's extent: it is the first record behind a line that names the delimiter (`sep=;`), if there is one. Neither counts.
    pub(super) fn header(&mut self, delimiter: DelimiterFrom) -> Result<Option<Frame>, FrameError> {
        let mut header = self.next()?;
        if header.is_some()
            && let Some(named) = named_delimiter(self.bytes())
        {
            match delimiter {
                DelimiterFrom::Asked => {}
                DelimiterFrom::Usual => self.dialect.delimiter = named,
            }
            header = self.next()?;
        }
        if header.is_some() && is_of_rejects(self.bytes(), self.dialect.delimiter) {
            self.max_bytes = COPY_MAX_BYTES;
        }
        self.at.rows = 0;
        self.last = self.at;
        Ok(header.map(|header| Frame { end: self.at, ..header }))
    }

    /// Skips a byte order mark at the start of the file.
    pub(super) fn skip_bom(&mut self) -> io::Result<()> {
        const BOM: &[u8] = b"\xef\xbb\xbf";
        while self.ahead.bytes().len() < BOM.len() && self.ahead.read_more()? > 0 {}
        if self.ahead.bytes().starts_with(BOM) {
            self.ahead.pass(BOM.len());
            self.at.pass(BOM, 0);
        }
        Ok(())
    }

    /// The next record's extent; its bytes are in [`Frames::bytes`]. Blank lines are no records, nor is what holds only delimiters, quotes
    /// and white space.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            self.ahead.pass(std::mem::take(&mut self.len));
            let line = self.at.line;
            let first = self.first_line(line)?;
            if first == 0 {
                return Ok(None);
            }
            let has_quote = self.ahead.has_quote(first) || self.has_escape();
            let scanned = if has_quote { self.read_to_the_end(line)? } else { Scanned::default() };
            self.pass(scanned.further_lines);
            if is_blank(self.raw(), self.dialect.delimiter) {
                self.count_blank(scanned.further_lines + 1);
                continue;
            }
            self.at.rows += 1;
            self.last = self.at;
            let Scanned { text_after_quote, is_escaped, further_lines } = scanned;
            return Ok(Some(Frame { line, end: self.at, has_quote, text_after_quote, is_escaped, has_span: further_lines > 0 }));
        }
    }

    #[inline]
    fn has_escape(&self) -> bool {
        self.dialect.escape.is_some_and(|escape| memchr(escape, self.raw()).is_some())
    }

    /// Counts the lines of what holds no record, unless it was passed before.
    #[cold]
    fn count_blank(&mut self, lines: u64) {
        if self.at.offset > self.blank_up_to {
            self.blank_up_to = self.at.offset;
            self.blank.add(lines);
        }
    }

    /// How many blank lines were passed, and will be.
    pub(super) fn blank_lines(&self) -> BlankLines {
        self.blank.clone()
    }

    /// The quoted fields of the current record that run over lines, if its frame says that there are any.
    pub(super) fn spans(&self) -> &[QuotedSpan] {
        &self.spans
    }

    /// The current record without its line end.
    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        without_line_end(self.raw())
    }

    /// What was read of the current record, line end and all, also after an error.
    #[inline]
    pub(super) fn raw(&self) -> &[u8] {
        &self.ahead.bytes()[..self.len]
    }

    /// Puts the mark behind the current record or blank line.
    #[inline]
    fn pass(&mut self, further_lines: u64) {
        let raw = &self.ahead.bytes()[..self.len];
        self.at.pass(raw, further_lines + u64::from(raw.ends_with(b"\n")));
    }

    /// A record whose first line is too long already may be the fault of a quote in it.
    #[inline]
    fn first_line(&mut self, line: u64) -> Result<usize, FrameError> {
        self.read_line(line).map_err(|error| {
            let mut scan = FrameScan::new(self.dialect);
            scan.line(self.raw(), 0, line);
            match scan.quoting {
                Quoting::Quoted { opened } => blame_open_quote(error, opened.place(self.raw())),
                Quoting::FieldStart | Quoting::Unquoted | Quoting::QuoteSeen { .. } => error,
            }
        })
    }

    /// Takes another line into the record: its length, 0 at the end of the file.
    #[inline]
    fn read_line(&mut self, line: u64) -> Result<usize, FrameError> {
        let before = self.len;
        loop {
            let found = memchr(b'\n', &self.ahead.bytes()[self.len..]);
            self.len = found.map_or(self.ahead.bytes().len(), |at| self.len + at + 1);
            if self.len > self.max_bytes {
                self.len = self.max_bytes + 1;
                return Err(FrameError::LongRecord { line });
            }
            if found.is_some() || self.ahead.read_more()? == 0 {
                return Ok(self.len - before);
            }
        }
    }

    /// Reads on until neither a quote is open nor the line end escaped.
    fn read_to_the_end(&mut self, first_line: u64) -> Result<Scanned, FrameError> {
        let mut scan = FrameScan::new(self.dialect);
        let (mut from, mut line) = (0, first_line);
        loop {
            scan.line(self.raw(), from, line);
            if !scan.goes_on() {
                return Ok(self.scanned(scan, line - first_line));
            }
            from = self.len;
            line += 1;
            let runs_away = line - first_line >= RECORD_MAX_LINES;
            let read = if runs_away { Ok(0) } else { self.read_line(line) };
            match (scan.quoting, read) {
                (Quoting::Quoted { opened }, Err(error)) => return Err(blame_open_quote(error, opened.place(self.raw()))),
                (Quoting::Quoted { opened }, Ok(0)) => {
                    let up_to = if runs_away { SearchedUpTo::Limits } else { SearchedUpTo::End };
                    return Err(FrameError::OpenQuote { opened: opened.place(self.raw()), up_to });
                }
                (_, Err(error)) => return Err(error),
                (_, Ok(0)) if runs_away => return Err(FrameError::LongRecord { line: first_line }),
                // The file ends behind an escaped line end.
                (_, Ok(0)) => return Ok(self.scanned(scan, line - first_line - 1)),
                (_, Ok(_)) => {}
            }
        }
    }

    fn scanned(&mut self, mut scan: FrameScan, further_lines: u64) -> Scanned {
        if further_lines > 0 {
            scan.ends();
            self.spans = scan.spans;
        }
        let text_after_quote = scan.text_after_quote.map(|spot| spot.place(self.raw()));
        let is_escaped = scan.text_after_quote.is_some_and(|spot| ends_with_escape(&self.raw()[..spot.at - 1]));
        Scanned { text_after_quote, is_escaped, further_lines }
    }
}

impl<R: Seek> Frames<R> {
    /// Goes on at another place.
    pub(super) fn go_to(&mut self, mark: InputPosition) -> io::Result<()> {
        self.ahead.go_to(mark.offset)?;
        (self.len, self.at, self.last) = (0, mark, mark);
        Ok(())
    }
}

/// What the scan of a record came to.
#[derive(Debug, Clone, Copy, Default)]
struct Scanned {
    text_after_quote: Option<TextPosition>,
    is_escaped: bool,
    further_lines: u64,
}

/// Blames a record that grows too long inside a quote on the quote, which was opened there and is not closed.
fn blame_open_quote(error: FrameError, opened: TextPosition) -> FrameError {
    match error {
        FrameError::LongRecord { .. } | FrameError::OpenQuote { .. } => FrameError::OpenQuote { opened, up_to: SearchedUpTo::Limits },
        FrameError::Read(error) => FrameError::Read(error),
    }
}

/// Whether an odd number of backslashes stands at the end: the last one takes the meaning off what follows, in files that are written so.
fn ends_with_escape(text: &[u8]) -> bool {
    text.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}
