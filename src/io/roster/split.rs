//! A record's fields, where they stand.
//!
//! A record without a quote is cut at its delimiters, and one that is all quotes without an escaped one between those. What quotes mean
//! anywhere else is the csv crate's to say.

use csv::ByteRecord;
use csv_core::{ReadRecordResult, Terminator};
use memchr::{memchr, memchr_iter};

use super::line_text::without_line_end;
use crate::domain::known_text::KnownText;
use crate::domain::position::Dialect;

/// Finds the fields of one framed record after the other.
#[derive(Debug)]
pub(super) struct Splitter {
    delimiter: u8,
    escape: Option<u8>,
    core: csv_core::Reader,
    /// The fields of a record with quotes, one behind the other.
    unquoted: Vec<u8>,
    ends: Vec<usize>,
}

/// The fields of a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct SplitFields<'a> {
    text: &'a [u8],
    /// Where each field ends.
    ends: &'a [usize],
    /// Bytes between two of them.
    gap: usize,
}

impl Splitter {
    pub(super) fn new(dialect: impl Into<Dialect>) -> Self {
        let Dialect { delimiter, escape } = dialect.into();
        let core = csv_core::ReaderBuilder::new().delimiter(delimiter).terminator(Terminator::Any(b'\n')).build();
        Self { delimiter, escape, core, unquoted: Vec::new(), ends: Vec::new() }
    }

    /// The fields of a record without a quote; it comes without its line end.
    #[inline]
    pub(super) fn plain<'a>(&'a mut self, record: &'a [u8]) -> SplitFields<'a> {
        self.ends.clear();
        self.ends.extend(memchr_iter(self.delimiter, record));
        self.ends.push(record.len());
        SplitFields { text: record, ends: &self.ends, gap: 1 }
    }

    /// The fields of a record with quotes; it comes with its line end, if it has one.
    pub(super) fn quoted<'a>(&'a mut self, raw: &'a [u8]) -> SplitFields<'a> {
        if let Some(escape) = self.escape {
            return self.escaped(without_line_end(raw), escape);
        }
        match self.between_quotes(without_line_end(raw)) {
            Some(text) => SplitFields { text, ends: &self.ends, gap: 3 },
            None => self.any(raw),
        }
    }

    /// Finds the ends in a record whose fields are all in quotes and hold none, as most exports with quotes have them: what is between its
    /// outer quotes. Three bytes stand between two fields.
    fn between_quotes<'a>(&mut self, record: &'a [u8]) -> Option<&'a [u8]> {
        let text = record.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        let mut from = 0;
        self.ends.clear();
        while let Some(found) = memchr(b'"', &text[from..]) {
            let end = from + found;
            if !text[end + 1..].starts_with(&[self.delimiter, b'"']) {
                return None;
            }
            self.ends.push(end);
            from = end + 3;
        }
        self.ends.push(text.len());
        Some(text)
    }

    /// The fields of a record in which `escape` takes the meaning off the character behind it, in quotes and outside. A doubled quote in quotes
    /// is one. A field of nothing but the escape character and an N is empty, as databases write what is not there.
    fn escaped(&mut self, record: &[u8], escape: u8) -> SplitFields<'_> {
        self.unquoted.clear();
        self.ends.clear();
        let (mut at, mut field) = (0, 0);
        let mut is_quoted = record.first() == Some(&b'"');
        at += usize::from(is_quoted);
        while at < record.len() {
            let (byte, next) = (record[at], record.get(at + 1).copied());
            match next {
                Some(next) if byte == escape || (is_quoted && byte == b'"' && next == b'"') => {
                    self.unquoted.push(next);
                    at += 2;
                }
                _ if is_quoted && byte == b'"' => {
                    is_quoted = false;
                    at += 1;
                }
                _ if !is_quoted && byte == self.delimiter => {
                    self.end_field(&record[field..at], escape);
                    at += 1;
                    field = at;
                    is_quoted = next == Some(b'"');
                    at += usize::from(is_quoted);
                }
                _ => {
                    self.unquoted.push(byte);
                    at += 1;
                }
            }
        }
        self.end_field(&record[field..], escape);
        SplitFields { text: &self.unquoted, ends: &self.ends, gap: 0 }
    }

    /// The field that stands so in the file is over.
    fn end_field(&mut self, raw: &[u8], escape: u8) {
        if raw == [escape, b'N'] {
            self.unquoted.truncate(self.ends.last().copied().unwrap_or_default());
        }
        self.ends.push(self.unquoted.len());
    }

    /// The fields of any record; it comes with its line end, if it has one.
    pub(super) fn any(&mut self, raw: &[u8]) -> SplitFields<'_> {
        if let Some(escape) = self.escape {
            return self.escaped(without_line_end(raw), escape);
        }
        // In one piece where the csv crate reads the line end as ours; it would take a carriage return for text.
        let record = if raw.ends_with(b"\r\n") || !raw.ends_with(b"\n") { without_line_end(raw) } else { raw };
        // Fields are never longer than what they stand in, and the reader wants room left when it meets the line end.
        self.unquoted.resize(self.unquoted.len().max(record.len() + 1), 0);
        let (mut read, mut written, mut fields) = (0, 0, 0);
        loop {
            if fields == self.ends.len() {
                self.ends.resize(2 * fields + 8, 0);
            }
            // The line end makes it a whole record; past that, the end of input would.
            let input = if read < record.len() { &record[read..] } else { &b"\n"[..record.len() + 1 - read] };
            let (result, taken, put, ended) = self.core.read_record(input, &mut self.unquoted[written..], &mut self.ends[fields..]);
            (read, written, fields) = (read + taken, written + put, fields + ended);
            match result {
                ReadRecordResult::InputEmpty | ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {}
                ReadRecordResult::Record | ReadRecordResult::End => {
                    return SplitFields { text: &self.unquoted[..written], ends: &self.ends[..fields], gap: 0 };
                }
            }
        }
    }
}

impl<'a> SplitFields<'a> {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    #[inline]
    pub(super) fn get(&self, column: usize) -> Option<&'a [u8]> {
        let end = *self.ends.get(column)?;
        let start = if column == 0 { 0 } else { self.ends[column - 1] + self.gap };
        Some(&self.text[start..end])
    }

    /// All of them, as far as it is known to be text.
    #[inline]
    pub(super) fn known_text(&self) -> KnownText<'a> {
        KnownText::new(self.text)
    }

    /// A copy of all of them.
    pub(super) fn to_record(self) -> ByteRecord {
        let mut record = ByteRecord::with_capacity(self.text.len(), self.len());
        (0..self.len()).filter_map(|column| self.get(column)).for_each(|field| record.push_field(field));
        record
    }
}
