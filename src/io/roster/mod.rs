//! The roster: a CSV file as a stream of positioned records, in constant memory.
//!
//! Owns framing, encoding and the header; what makes a record invalid knows `account`. Never writes anything.

mod blank_lines;
mod copies;
mod encoding;
mod file;
mod frame_scan;
mod frames;
mod header;
mod input_comparison;
mod line_text;
mod malformed;
mod original;
mod read_buffer;
mod split;
mod tag_columns;
mod watched;

use std::collections::BTreeMap;
use std::io::{self, Read, Seek};
use std::path::Path;

use csv::ByteRecord;
use thiserror::Error;

use crate::domain::account::{Account, AccountRef, Field, InvalidAccount, Suspects, UserId, UserIds};
use crate::domain::cells::{CellRules, ReadCells};
use crate::domain::position::{ColumnLayout, Dialect, InputPosition};
use crate::domain::tag::{CheckedCell, Tag, TagItem, TagValueRef};
use crate::domain::uuid::COMPACT_BYTES;
pub use blank_lines::BlankLines;
use copies::{has_uncertain_quotes, without_own};
pub use encoding::{FirstLook, NotUtf8, NotUtf8In, first_look};
pub use file::{InputFile, InputReader, fingerprint};
pub use frame_scan::TextPosition;
use frame_scan::{Behind, QuotedSpan};
pub use frames::{COPY_MAX_BYTES, RECORD_MAX_BYTES, RECORD_MAX_LINES, SearchedUpTo};
use frames::{Frame, FrameError, Frames};
pub use header::{DelimiterFrom, ENCODING_FLAG, Format, Header, HeaderError, Multiline, NoHeader};
pub use input_comparison::{Look, Watch, compare};
pub use malformed::Malformed;
pub use original::Original;
use split::{SplitFields, Splitter};
use tag_columns::TagCells;
pub use watched::{Next, Watched};

/// A record of the input, valid or not, as it stands in memory until the next one is read: for a pass that keeps nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Counts records from 1.
    pub row: u64,
    /// The physical line on which it starts.
    pub line: u64,
    /// The place behind it.
    pub end: InputPosition,
    /// The UserID cell, byte for byte.
    pub user_id: &'a [u8],
    /// The id that this cell stands for once it is read as it is to be, valid or not.
    pub id: &'a [u8],
    pub account: Result<AccountRef<'a>, InvalidAccount>,
    /// What of a valid account may be odd.
    pub suspects: Suspects,
    /// Why its UserID is uncertain by where its quotes stand.
    doubt: Option<Malformed>,
    /// Which ids are valid.
    user_ids: UserIds,
    /// Its tags; none if the record is invalid.
    tags: TagCells<'a>,
}

impl<'a> RecordRef<'a> {
    /// The tags of a valid account that have a value, in the order of their columns as [`Header`] has them. Copies nothing.
    #[inline]
    pub fn tags(&self) -> impl Iterator<Item = (&'a Tag, TagValueRef<'a>)> + use<'a> {
        self.tags.values()
    }

    /// The value of a valid account in each column of tags, in the same order.
    #[inline]
    pub fn tag_cells(&self) -> impl Iterator<Item = (&'a Tag, Option<TagValueRef<'a>>)> + use<'a> {
        self.tags.each()
    }

    /// Whose record it is: also one that is invalid for another reason.
    #[inline]
    #[must_use]
    pub fn valid_id(&self) -> Option<&[u8]> {
        (self.account.is_ok() || UserId::check_as(self.user_ids, self.id).is_ok()).then_some(self.id)
    }

    /// Why the record's UserID can't be read for certain, if it can't: what it is may then be another one's, or nobody's. Costs next to
    /// nothing. A record whose UserID is certain may be invalid, and a valid one's may be uncertain.
    #[inline]
    #[must_use]
    pub fn malformed(&self) -> Option<Malformed> {
        malformed::why_malformed(self.id, self.account.as_ref().err()).or(self.doubt)
    }
}

/// A record of the input, valid or not.
#[derive(Debug, Clone)]
pub struct Record {
    /// Counts records from 1.
    pub row: u64,
    /// The physical line on which it starts.
    pub line: u64,
    /// The place behind it.
    pub end: InputPosition,
    /// The UserID cell, byte for byte.
    pub user_id: Box<[u8]>,
    /// The id that this cell stands for, if that is another one.
    pub other_id: Option<Box<[u8]>>,
    pub account: Result<Account, InvalidAccount>,
    pub suspects: Suspects,
    /// All its fields.
    pub fields: ByteRecord,
    /// Its text for a copy, where that must be as uncertain as what its quotes hold.
    pub text: Option<Box<[u8]>>,
}

impl Record {
    /// As [`RecordRef::id`].
    #[must_use]
    pub fn id(&self) -> &[u8] {
        self.other_id.as_deref().unwrap_or(&self.user_id)
    }
}

/// Why the file cannot be read, or not any further.
#[derive(Debug, Error)]
pub enum RosterError {
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("the quote at line {}, column {} is not closed {up_to}", opened.line, opened.column)]
    OpenQuote { opened: TextPosition, up_to: SearchedUpTo },
    #[error("the row at line {line} has more than {RECORD_MAX_BYTES} bytes")]
    LongRecord { line: u64 },
    #[error("a backslash escapes the quote in front of line {}, column {}", quote.line, quote.column)]
    EscapedQuote { quote: TextPosition },
    #[error("it was truncated or rewritten while it was being read")]
    Modified,
    /// Only of what a copy was made of; anything else is read on.
    #[error("it has grown while it was being read")]
    Grown,
    #[error("the input cannot be read")]
    Read(#[from] io::Error),
}

impl From<FrameError> for RosterError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::OpenQuote { opened, up_to } => RosterError::OpenQuote { opened, up_to },
            FrameError::LongRecord { line } => RosterError::LongRecord { line },
            FrameError::Read(error) => RosterError::Read(error),
        }
    }
}

/// The records of a CSV file, one after the other. After an error there are no more.
#[derive(Debug)]
pub struct Roster<R> {
    header: Header,
    frames: Frames<R>,
    splitter: Splitter,
    multiline: Multiline,
    rules: CellRules,
    /// Where the id of the current record is made, if it stands nowhere in the file.
    compacted: [u8; COMPACT_BYTES],
    /// What the cells of tags of the current record are.
    checked: Vec<CheckedCell>,
    /// What is recorded of the flags that change what is read.
    flags: BTreeMap<String, String>,
    has_ended: bool,
}

/// Counts the records of a file behind `settled`, without looking into them.
///
/// # Errors
/// [`RosterError`] if the file cannot be read or cut into records.
pub fn count_behind(file: &InputFile, dialect: Dialect, settled: InputPosition) -> Result<u64, RosterError> {
    let mut frames = Frames::new(file.reader(), dialect, InputPosition::START);
    frames.go_to(settled)?;
    while frames.next()?.is_some() {}
    Ok(frames.behind_last().rows.saturating_sub(settled.rows))
}

impl Roster<InputReader> {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// [`RosterError`] for a file that can't be read or isn't what it claims.
    pub fn open(path: &Path, format: &Format) -> Result<Self, RosterError> {
        Self::of(&InputFile::open(path)?, format)
    }

    /// Reads the header of an open file; its records are read wherever other passes over it are.
    ///
    /// # Errors
    /// [`RosterError`] for a file that can't be read or isn't what it claims.
    pub fn of(file: &InputFile, format: &Format) -> Result<Self, RosterError> {
        Self::new(file.reader(), format)
    }
}

impl<R: Read + Seek> Roster<R> {
    /// Goes on at `mark`, which lies behind the header.
    ///
    /// # Errors
    /// The file's.
    pub fn skip_to(mut self, mark: InputPosition) -> io::Result<Self> {
        self.frames.go_to(mark)?;
        Ok(self)
    }

    /// Goes on at `mark`, also behind what was the file's end.
    fn go_on_at(&mut self, mark: InputPosition) -> io::Result<()> {
        self.frames.go_to(mark)?;
        self.has_ended = false;
        Ok(())
    }
}

impl<R: Read> Roster<R> {
    /// Reads the header off `input`, which needs no buffer of its own.
    ///
    /// # Errors
    /// [`RosterError`] for an input that can't be read or isn't what it claims.
    pub fn new(input: R, format: &Format) -> Result<Self, RosterError> {
        let mut frames = Frames::new(input, format.dialect(), InputPosition::START);
        frames.skip_bom()?;
        let first = frames.header(format.delimiter_from);
        reject_foreign(frames.raw())?;
        let first = first?;
        first.as_ref().map_or(Ok(()), escaped_quote)?;
        if format.escape == Some(frames.delimiter()) {
            return Err(HeaderError::EscapeIsDelimiter.into());
        }
        let mut splitter = Splitter::new(frames.dialect());
        // By the csv crate in any case: it forgives a second byte order mark at the start of a file.
        let header = match (first, format.no_header) {
            (Some(_), _) => {
                let names = splitter.any(frames.raw()).to_record();
                Header::new(names, format).map_err(|error| with_other_delimiter(error, &frames, format))?
            }
            (None, NoHeader::NoRecords) => Header::none(),
            (None, NoHeader::Refused) => return Err(HeaderError::Missing.into()),
        };
        let (multiline, rules, flags) = (format.multiline, format.cells.clone(), format.flags());
        Ok(Self { header, frames, splitter, multiline, rules, compacted: [0; COMPACT_BYTES], checked: Vec::new(), flags, has_ended: false })
    }

    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How the fields are found.
    #[must_use]
    pub fn reading(&self) -> ColumnLayout {
        let layout = ColumnLayout { delimiter: self.frames.delimiter(), columns: self.header.columns(), flags: self.flags.clone() };
        layout.with_tags(self.header.tag_columns())
    }

    /// How the file is cut.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.frames.dialect()
    }

    /// The place behind the last record that was read, or behind the header.
    #[must_use]
    pub fn at(&self) -> InputPosition {
        self.frames.behind_last()
    }

    /// How many blank lines it has passed, and will have.
    #[must_use]
    pub fn blank_lines(&self) -> BlankLines {
        self.frames.blank_lines()
    }

    /// Whether the last record that was read ends with a line end, so that the file can't have been written half of it.
    fn is_whole(&self) -> bool {
        self.frames.raw().ends_with(b"\n")
    }

    /// Reads to the end without looking into the records. Returns how many there were.
    ///
    /// # Errors
    /// As reading them.
    pub fn count_rest(self) -> Result<u64, RosterError> {
        let before = self.at().rows;
        Ok(self.read_to_end()?.rows - before)
    }

    /// Reads to the end without looking into the records: the place behind the last one.
    ///
    /// # Errors
    /// As reading them.
    pub fn read_to_end(mut self) -> Result<InputPosition, RosterError> {
        while self.frames.next()?.is_some() {}
        Ok(self.frames.behind_last())
    }

    /// The next record without a copy of it; what an iteration would come to next.
    ///
    /// # Errors
    /// As iterating.
    #[inline]
    pub fn next_view(&mut self) -> Option<Result<RecordRef<'_>, RosterError>> {
        match self.advance()? {
            Ok(frame) => Some(Ok(self.view(frame).0)),
            Err(error) => Some(Err(error)),
        }
    }

    /// Goes on over the next record without looking into it: the place behind it. What follows is as if it had been read.
    ///
    /// # Errors
    /// As iterating.
    pub fn skip_record(&mut self) -> Option<Result<InputPosition, RosterError>> {
        self.advance().map(|frame| frame.map(|frame| frame.end))
    }

    #[inline]
    fn advance(&mut self) -> Option<Result<Frame, RosterError>> {
        if self.has_ended {
            return None;
        }
        let next = self.frames.next().map_err(RosterError::from).and_then(|frame| {
            // A rejects file has its quotes doubled, whatever its records hold.
            if self.header.own == 0 {
                frame.as_ref().map_or(Ok(()), escaped_quote)?;
            }
            Ok(frame)
        });
        self.has_ended = !matches!(next, Ok(Some(_)));
        next.transpose()
    }

    /// The current record, with all its fields.
    #[inline]
    fn view(&mut self, frame: Frame) -> (RecordRef<'_>, SplitFields<'_>) {
        let swallowed = if frame.has_span { self.swallowed() } else { Ok(()) };
        let Self { header, frames, splitter, multiline, rules, compacted, checked, .. } = self;
        let fields = if frame.has_quote { splitter.quoted(frames.raw()) } else { splitter.plain(frames.bytes()) };
        let cell = |column: Option<usize>| column.and_then(|column| fields.get(column)).unwrap_or_default();
        let known = fields.known_text();
        let cells = ReadCells { user_id: cell(Some(header.user_id)), nick: cell(header.nick), face_url: cell(header.face_url), known };
        let (values, mut tags) = (rules.values(cells), TagCells { columns: &header.tags, rules, fields, known, checked: &[] });
        let id = rules.id(values.user_id, compacted);
        let judged = swallowed
            .and_then(|()| well_formed(&frame, header.names.len(), fields.len()))
            .and_then(|()| if header.is_again(cells.user_id, &fields) { Err(InvalidAccount::HeaderAgain) } else { Ok(()) })
            .and_then(|()| rules.account(id, values))
            .and_then(|account| tags.check(checked).map(|()| account));
        if judged.is_ok() {
            tags.checked = checked;
        }
        let (account, mut suspects) = judged.map_or_else(|why| (Err(why), Suspects::default()), |(account, odd)| (Ok(account), odd));
        if header.own > 0 && account.is_ok() {
            suspects.columns = fields.get(header.names.len() - 1).is_some_and(InvalidAccount::is_told_of_fields);
        }
        let is_stray = frame.has_quote && malformed::has_stray_quote(frames.raw(), frames.dialect(), header.user_id, cells.user_id);
        let may_have_swallowed = || frame.has_span && *multiline == Multiline::Judged && UserId::check_as(rules.user_ids, id).is_err();
        let doubt = if is_stray { Some(Malformed::TextBesideQuotes) } else { may_have_swallowed().then_some(Malformed::SwallowedLines) };
        let (row, user_id) = (frame.end.rows, cells.user_id);
        let (line, end, user_ids) = (frame.line, frame.end, rules.user_ids);
        (RecordRef { row, line, end, user_id, id, account, suspects, doubt, user_ids, tags }, fields)
    }

    /// Whether the current record's quotes hold what they seem to.
    #[cold]
    fn swallowed(&self) -> Result<(), InvalidAccount> {
        let raw = without_own(self.frames.raw(), self.frames.delimiter(), self.header.own);
        let looks_swallowed = |span: &&QuotedSpan| {
            span.behind == Behind::Text || self.header.look_like_records(span.lines(raw), self.frames.delimiter(), &self.rules)
        };
        let mut spans = self.frames.spans().iter().filter(|span| span.opened < raw.len());
        match (self.multiline, spans.find(looks_swallowed)) {
            (Multiline::Judged, Some(span)) => Err(InvalidAccount::SwallowedLines { quote: span.first_line, last: span.last_line }),
            (Multiline::Judged, None) | (Multiline::Taken, _) => Ok(()),
        }
    }
}

/// Delimiters that files have which are no CSV to the letter, in the order in which they are tried.
const OTHER_DELIMITERS: [u8; 4] = *b";\t|,";

/// Adds to the complaint about a header without a UserID which delimiter finds one, or at least finds more than one column.
fn with_other_delimiter<R: Read>(error: HeaderError, frames: &Frames<R>, format: &Format) -> HeaderError {
    let HeaderError::NoColumn { field: Field::UserId, name, .. } = error else { return error };
    let columns = |delimiter: u8| Splitter::new(delimiter).any(frames.raw()).to_record();
    let others = || OTHER_DELIMITERS.into_iter().filter(|delimiter| *delimiter != frames.delimiter());
    let finds_user_id = |delimiter: &u8| Header::has_user_id(&columns(*delimiter), format);
    let finds_columns = |delimiter: &u8| columns(frames.delimiter()).len() == 1 && columns(*delimiter).len() > 1;
    let delimiter = others().find(finds_user_id).or_else(|| others().find(finds_columns));
    HeaderError::NoColumn { field: Field::UserId, name, delimiter }
}

/// Refuses a file near whose start a backslash escapes a quote, which says how the whole file is written.
#[inline]
fn escaped_quote(frame: &Frame) -> Result<(), RosterError> {
    match frame.text_after_quote {
        Some(quote) if frame.is_escaped && frame.end.rows <= FIRST_RECORDS => Err(RosterError::EscapedQuote { quote }),
        Some(_) | None => Ok(()),
    }
}

/// Records in which an escaped quote speaks for the whole file. Source: the contract of the input.
const FIRST_RECORDS: u64 = 1_000;

fn well_formed(frame: &Frame, expected: usize, found: usize) -> Result<(), InvalidAccount> {
    if let Some(TextPosition { line, column }) = frame.text_after_quote {
        return Err(InvalidAccount::TextAfterQuote { line, column });
    }
    if found == expected { Ok(()) } else { Err(InvalidAccount::FieldCount { expected, found }) }
}

impl<R: Read> Iterator for Roster<R> {
    type Item = Result<Record, RosterError>;

    fn next(&mut self) -> Option<Self::Item> {
        let frame = self.advance()?;
        Some(frame.map(|frame| {
            let (RecordRef { row, line, end, user_id, id, account, suspects, doubt: _, user_ids: _, tags }, fields) = self.view(frame);
            let other_id = (id != user_id).then(|| id.into());
            let account = account.map(|account| Account { tags: tags.values().map(TagItem::from).collect(), ..account.into() });
            let fields = fields.to_record();
            let user_id = user_id.into();
            let text = if has_uncertain_quotes(account.as_ref().err()) { Some(self.text_for_copy(&fields)) } else { None };
            Record { row, line, end, user_id, other_id, account, suspects, fields, text }
        }))
    }
}

/// Refuses what is no CSV in UTF-8 with line feeds, judged by the header.
fn reject_foreign(header: &[u8]) -> Result<(), HeaderError> {
    if header.starts_with(b"\xff\xfe") || header.starts_with(b"\xfe\xff") || header.contains(&0) {
        return Err(HeaderError::Utf16);
    }
    let text = header.strip_suffix(b"\n").unwrap_or(header);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    // Whatever is in quotes is part of a name.
    let mut is_quoted = false;
    let ends_a_line = text.iter().any(|byte| {
        is_quoted ^= *byte == b'"';
        *byte == b'\r' && !is_quoted
    });
    if ends_a_line { Err(HeaderError::CarriageReturns) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
