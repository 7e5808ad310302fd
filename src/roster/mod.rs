//! The roster: a CSV file as a stream of positioned records, in constant memory.
//!
//! Owns framing, encoding and the header; what makes a record invalid knows `account`. Never writes anything.

mod frames;
mod header;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use csv::ByteRecord;
use thiserror::Error;

use crate::account::{Account, Invalid};
use crate::input::{Fingerprint, Mark, Reading, Sameness};
use frames::{Frame, FrameError, Frames};
pub use frames::{Place, RECORD_MAX_BYTES, RECORD_MAX_LINES};
pub use header::{Format, Header, HeaderError};

/// Read ahead of the file. Chosen: large enough that system calls don't count.
const READ_BYTES: usize = 128 * 1024;

/// A record of the input, valid or not.
#[derive(Debug, Clone)]
pub struct Record {
    /// Counts records from 1.
    pub row: u64,
    /// The physical line on which it starts.
    pub line: u64,
    /// The place behind it.
    pub end: Mark,
    /// The UserID cell, byte for byte.
    pub user_id: Box<[u8]>,
    pub account: Result<Account, Invalid>,
    /// All its fields.
    pub fields: ByteRecord,
}

/// Why the file cannot be read, or not any further.
#[derive(Debug, Error)]
pub enum RosterError {
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("the quote at line {}, column {} is not closed within {RECORD_MAX_LINES} lines and {RECORD_MAX_BYTES} bytes", opened.line, opened.column)]
    OpenQuote { opened: Place },
    #[error("the record at line {line} has more than {RECORD_MAX_BYTES} bytes")]
    LongRecord { line: u64 },
    #[error("the input cannot be read")]
    Read(#[from] io::Error),
}

impl From<FrameError> for RosterError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::OpenQuote { opened } => RosterError::OpenQuote { opened },
            FrameError::LongRecord { line } => RosterError::LongRecord { line },
            FrameError::Read(error) => RosterError::Read(error),
        }
    }
}

/// The records of a CSV file, one after the other. After an error there are no more.
#[derive(Debug)]
pub struct Roster<R> {
    header: Header,
    splitter: csv::Reader<Framed<R>>,
    has_ended: bool,
}

impl Roster<BufReader<File>> {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// [`RosterError`] for a file that can't be read or isn't what it claims.
    pub fn open(path: &Path, format: &Format) -> Result<Self, RosterError> {
        Self::new(BufReader::with_capacity(READ_BYTES, File::open(path)?), format)
    }

    /// Goes on at `mark`, which lies behind the header.
    ///
    /// # Errors
    /// The file's.
    pub fn skip_to(mut self, mark: Mark) -> io::Result<Self> {
        self.splitter.get_mut().frames.go_to(mark)?;
        Ok(self)
    }
}

impl<R: BufRead> Roster<R> {
    /// Reads the header off `input`.
    ///
    /// # Errors
    /// [`RosterError`] for an input that can't be read or isn't what it claims.
    pub fn new(input: R, format: &Format) -> Result<Self, RosterError> {
        let mut frames = Frames::new(input, format.delimiter, Mark::START);
        frames.skip_bom()?;
        let first = frames.next();
        reject_foreign(frames.raw())?;
        if first?.is_none() {
            return Err(HeaderError::Missing.into());
        }
        frames.header_ends();
        let mut splitter = splitter(frames, format.delimiter);
        let mut names = ByteRecord::new();
        splitter.get_mut().is_pending = true;
        splitter.read_byte_record(&mut names).map_err(into_io)?;
        Ok(Self { header: Header::new(names, format)?, splitter, has_ended: false })
    }

    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How the fields are found.
    #[must_use]
    pub fn reading(&self) -> Reading {
        Reading { delimiter: self.splitter.get_ref().frames.delimiter(), columns: self.header.columns() }
    }

    /// The place behind the last record that was read, or behind the header.
    #[must_use]
    pub fn at(&self) -> Mark {
        self.splitter.get_ref().frames.at()
    }

    /// Reads to the end without looking into the records: how many there were.
    ///
    /// # Errors
    /// As reading them.
    pub fn count_rest(mut self) -> Result<u64, RosterError> {
        let frames = &mut self.splitter.get_mut().frames;
        let before = frames.at().rows;
        while frames.next()?.is_some() {}
        Ok(frames.at().rows - before)
    }

    fn read(&mut self) -> Result<Option<Record>, RosterError> {
        let Some(frame) = self.splitter.get_mut().next()? else { return Ok(None) };
        let mut fields = ByteRecord::new();
        self.splitter.read_byte_record(&mut fields).map_err(into_io)?;
        let cell = |column: Option<usize>| column.and_then(|column| fields.get(column)).unwrap_or_default();
        let user_id = cell(Some(self.header.user_id));
        let account =
            self.well_formed(&frame, &fields).and_then(|()| Account::parse(user_id, cell(self.header.nick), cell(self.header.face_url)));
        Ok(Some(Record { row: frame.end.rows, line: frame.line, end: frame.end, user_id: user_id.into(), account, fields }))
    }

    fn well_formed(&self, frame: &Frame, fields: &ByteRecord) -> Result<(), Invalid> {
        if let Some(Place { line, column }) = frame.text_after_quote {
            return Err(Invalid::TextAfterQuote { line, column });
        }
        let expected = self.header.names.len();
        if fields.len() == expected { Ok(()) } else { Err(Invalid::FieldCount { expected, found: fields.len() }) }
    }
}

impl<R: BufRead> Iterator for Roster<R> {
    type Item = Result<Record, RosterError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        let read = self.read().transpose();
        self.has_ended = !matches!(read, Some(Ok(_)));
        read
    }
}

/// Refuses what is no CSV in UTF-8 with line feeds, judged by the first line.
fn reject_foreign(first_line: &[u8]) -> Result<(), HeaderError> {
    if first_line.starts_with(b"\xff\xfe") || first_line.starts_with(b"\xfe\xff") || first_line.contains(&0) {
        return Err(HeaderError::Utf16);
    }
    let text = first_line.strip_suffix(b"\n").unwrap_or(first_line);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if text.contains(&b'\r') { Err(HeaderError::CarriageReturns) } else { Ok(()) }
}

/// The csv crate's reader over one framed record at a time.
fn splitter<R: BufRead>(frames: Frames<R>, delimiter: u8) -> csv::Reader<Framed<R>> {
    csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .terminator(csv::Terminator::Any(b'\n'))
        .buffer_capacity(RECORD_MAX_BYTES + 1)
        .from_reader(Framed { frames, is_pending: false })
}

/// Only reading can fail: fields are bytes and their number is free.
fn into_io(error: csv::Error) -> io::Error {
    io::Error::from(error)
}

/// Hands the csv crate exactly one record at a time, so that it can never run on into the next.
#[derive(Debug)]
struct Framed<R> {
    frames: Frames<R>,
    is_pending: bool,
}

impl<R: BufRead> Framed<R> {
    fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let frame = self.frames.next()?;
        self.is_pending = frame.is_some();
        Ok(frame)
    }
}

impl<R: BufRead> Read for Framed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !std::mem::take(&mut self.is_pending) {
            return Ok(0);
        }
        let record = self.frames.bytes();
        buffer[..record.len()].copy_from_slice(record);
        buffer[record.len()] = b'\n';
        Ok(record.len() + 1)
    }
}

/// The stat fields of a file.
///
/// # Errors
/// The file's.
pub fn fingerprint(path: &Path) -> io::Result<Fingerprint> {
    use std::os::unix::fs::MetadataExt;
    const NS: i64 = 1_000_000_000;
    let stat = std::fs::metadata(path)?;
    Ok(Fingerprint {
        len: stat.len(),
        modified_ns: stat.mtime() * NS + stat.mtime_nsec(),
        changed_ns: stat.ctime() * NS + stat.ctime_nsec(),
        inode: stat.ino(),
    })
}

/// Compares a file with what an earlier run has seen of it up to `settled`; reads that much of it.
///
/// # Errors
/// The file's.
pub fn compare(path: &Path, delimiter: u8, settled: Mark) -> io::Result<Sameness> {
    let mut input = BufReader::with_capacity(READ_BYTES, File::open(path)?);
    match passed(Frames::new((&mut input).take(settled.offset), delimiter, Mark::START)) {
        Err(FrameError::Read(error)) => Err(error),
        Ok(at) if at == settled => rest(input, settled),
        Ok(_) | Err(FrameError::OpenQuote { .. } | FrameError::LongRecord { .. }) => Ok(Sameness::ChangedWithin),
    }
}

/// The place behind the last record.
fn passed(mut frames: Frames<impl BufRead>) -> Result<Mark, FrameError> {
    frames.skip_bom()?;
    let mut last = Mark::START;
    if let Some(header) = frames.next()? {
        frames.header_ends();
        last = Mark { rows: 0, ..header.end };
    }
    while let Some(frame) = frames.next()? {
        last = frame.end;
    }
    Ok(last)
}

/// Whether anything but blank lines follows. A settled last line without its end must not have grown.
fn rest(mut input: impl BufRead + Seek, settled: Mark) -> io::Result<Sameness> {
    input.seek(SeekFrom::Start(settled.offset - 1))?;
    let mut before = [0];
    input.read_exact(&mut before)?;
    let next = input.fill_buf()?;
    if before != *b"\n" && !(next.is_empty() || next.starts_with(b"\n") || next.starts_with(b"\r\n")) {
        return Ok(Sameness::ChangedWithin);
    }
    loop {
        let next = input.fill_buf()?;
        if next.is_empty() {
            return Ok(Sameness::Same);
        }
        if next.iter().any(|byte| !matches!(byte, b'\n' | b'\r')) {
            return Ok(Sameness::ChangedAfter);
        }
        let blank = next.len();
        input.consume(blank);
    }
}

#[cfg(test)]
mod tests;
