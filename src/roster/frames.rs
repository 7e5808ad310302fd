//! Where records begin and end: the guard in front of the csv crate.
//!
//! The csv crate reads an unclosed quote to the end of the file as one record, without an error. So the extent of every record is found
//! here first, bounded, with its place in the file; the csv crate then splits it into fields and never sees more than one.

use std::io::{self, BufRead, Read, Seek, SeekFrom};

use thiserror::Error;

use crate::input::Mark;

/// Longest record in bytes, line end included. Chosen: 40 times what the service's limits allow for the three fields.
pub const RECORD_MAX_BYTES: usize = 64 * 1024;
/// Most lines in a record. Chosen: names and URLs hold none; other columns of the export may.
pub const RECORD_MAX_LINES: u64 = 64;

/// A place for people: line and column count from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub line: u64,
    pub column: u64,
}

/// The extent of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    /// The line on which it starts.
    pub(super) line: u64,
    /// The place behind it.
    pub(super) end: Mark,
    /// Where text follows a closing quote; the csv crate would glue it to the field without a word.
    pub(super) text_after_quote: Option<Place>,
}

/// Why the file cannot be cut into records any further.
#[derive(Debug, Error)]
pub(super) enum FrameError {
    #[error("the quote at line {}, column {} is not closed", opened.line, opened.column)]
    OpenQuote { opened: Place },
    #[error("the record at line {line} has more than {RECORD_MAX_BYTES} bytes")]
    LongRecord { line: u64 },
    #[error(transparent)]
    Read(#[from] io::Error),
}

/// Where the scan stands in a record.
#[derive(Debug, Clone, Copy)]
enum Quoting {
    FieldStart,
    Unquoted,
    Quoted {
        opened: Place,
    },
    /// Behind a quote in a quoted field: the closing one, or the first of an escaped pair.
    QuoteSeen {
        opened: Place,
    },
}

/// Cuts a file into records.
#[derive(Debug)]
pub(super) struct Frames<R> {
    input: R,
    delimiter: u8,
    /// The current record, line end included.
    record: Vec<u8>,
    at: Mark,
}

impl<R: BufRead> Frames<R> {
    /// `input` stands at `at`.
    pub(super) fn new(input: R, delimiter: u8, at: Mark) -> Self {
        Self { input, delimiter, record: Vec::new(), at }
    }

    pub(super) fn delimiter(&self) -> u8 {
        self.delimiter
    }

    pub(super) fn at(&self) -> Mark {
        self.at
    }

    /// The record that was read is the header: it doesn't count.
    pub(super) fn header_ends(&mut self) {
        self.at.rows = 0;
    }

    /// Skips a byte order mark at the start of the file.
    pub(super) fn skip_bom(&mut self) -> io::Result<()> {
        const BOM: &[u8] = b"\xef\xbb\xbf";
        if self.input.fill_buf()?.starts_with(BOM) {
            self.input.consume(BOM.len());
            self.at.pass(BOM, 0);
        }
        Ok(())
    }

    /// The next record's extent; its bytes are in [`Frames::bytes`]. Blank lines are no records.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            self.record.clear();
            let line = self.at.line;
            if self.read_first_line(line)? == 0 {
                return Ok(None);
            }
            if matches!(self.record.as_slice(), b"\n" | b"\r\n" | b"\r") {
                self.at.pass(&self.record, u64::from(self.record.ends_with(b"\n")));
                continue;
            }
            let (text_after_quote, further_lines) = self.read_to_the_end(line)?;
            self.at.pass(&self.record, further_lines + u64::from(self.record.ends_with(b"\n")));
            self.at.rows += 1;
            return Ok(Some(Frame { line, end: self.at, text_after_quote }));
        }
    }

    /// The current record without its line end.
    pub(super) fn bytes(&self) -> &[u8] {
        let record = self.record.strip_suffix(b"\n").unwrap_or(&self.record);
        record.strip_suffix(b"\r").unwrap_or(record)
    }

    /// What was read of the current record, line end and all, also after an error.
    pub(super) fn raw(&self) -> &[u8] {
        &self.record
    }

    /// A record whose first line is too long already may be the fault of a quote in it.
    fn read_first_line(&mut self, line: u64) -> Result<usize, FrameError> {
        self.read_line(line).map_err(|error| {
            let mut scan = Scan::new(self.delimiter);
            scan.line(&self.record, line);
            match scan.quoting {
                Quoting::Quoted { opened } => runaway(error, opened),
                Quoting::FieldStart | Quoting::Unquoted | Quoting::QuoteSeen { .. } => error,
            }
        })
    }

    /// Appends a line to the record: its length, 0 at the end of the file.
    fn read_line(&mut self, line: u64) -> Result<usize, FrameError> {
        let room = (RECORD_MAX_BYTES + 1 - self.record.len()) as u64;
        let read = (&mut self.input).take(room).read_until(b'\n', &mut self.record)?;
        if self.record.len() > RECORD_MAX_BYTES { Err(FrameError::LongRecord { line }) } else { Ok(read) }
    }

    /// Reads on until no quote is open: where text follows a closing one, and how many further lines there were.
    fn read_to_the_end(&mut self, first_line: u64) -> Result<(Option<Place>, u64), FrameError> {
        if !self.record.contains(&b'"') {
            return Ok((None, 0));
        }
        let mut scan = Scan::new(self.delimiter);
        let (mut from, mut line) = (0, first_line);
        loop {
            scan.line(&self.record[from..], line);
            let Quoting::Quoted { opened } = scan.quoting else { return Ok((scan.text_after_quote, line - first_line)) };
            from = self.record.len();
            line += 1;
            let runs_away = line - first_line >= RECORD_MAX_LINES;
            let read = if runs_away { 0 } else { self.read_line(line).map_err(|error| runaway(error, opened))? };
            if read == 0 {
                return Err(FrameError::OpenQuote { opened });
            }
        }
    }
}

impl<R: BufRead + Seek> Frames<R> {
    /// Goes on at another place.
    pub(super) fn go_to(&mut self, mark: Mark) -> io::Result<()> {
        self.input.seek(SeekFrom::Start(mark.offset))?;
        self.at = mark;
        Ok(())
    }
}

/// A record that grows too long inside a quote is the quote's fault.
fn runaway(error: FrameError, opened: Place) -> FrameError {
    match error {
        FrameError::LongRecord { .. } | FrameError::OpenQuote { .. } => FrameError::OpenQuote { opened },
        FrameError::Read(error) => FrameError::Read(error),
    }
}

/// The scan of one record; it reads quotes as the csv crate does.
struct Scan {
    delimiter: u8,
    quoting: Quoting,
    text_after_quote: Option<Place>,
}

impl Scan {
    fn new(delimiter: u8) -> Self {
        Self { delimiter, quoting: Quoting::FieldStart, text_after_quote: None }
    }

    fn line(&mut self, bytes: &[u8], line: u64) {
        let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        for (index, byte) in text.iter().enumerate() {
            self.quoting = match self.quoting {
                Quoting::FieldStart if *byte == b'"' => Quoting::Quoted { opened: place(text, index, line) },
                Quoting::Quoted { opened } if *byte == b'"' => Quoting::QuoteSeen { opened },
                Quoting::QuoteSeen { opened } if *byte == b'"' => Quoting::Quoted { opened },
                Quoting::Quoted { opened } => Quoting::Quoted { opened },
                Quoting::FieldStart | Quoting::Unquoted | Quoting::QuoteSeen { .. } if *byte == self.delimiter => Quoting::FieldStart,
                Quoting::FieldStart | Quoting::Unquoted => Quoting::Unquoted,
                Quoting::QuoteSeen { .. } => {
                    self.text_after_quote.get_or_insert_with(|| place(text, index, line));
                    Quoting::Unquoted
                }
            };
        }
    }
}

fn place(text: &[u8], index: usize, line: u64) -> Place {
    let characters = text[..index].iter().filter(|byte| (**byte & 0xc0) != 0x80).count();
    Place { line, column: characters as u64 + 1 }
}
