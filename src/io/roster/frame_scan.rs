//! Reads the quotes of one record, line by line, as the csv crate does: whether it goes on, and what is odd about its quotes.

use memchr::{memchr, memchr2};

use super::line_text::without_line_end;
use crate::domain::position::Dialect;

/// A place for people: line and column count from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextPosition {
    pub line: u64,
    pub column: u64,
}

/// A quoted field that runs over lines.
#[derive(Debug, Clone, Copy)]
pub(super) struct QuotedSpan {
    /// The line on which its quote opens, and where that line starts in the record.
    pub(super) first_line: u64,
    start: usize,
    /// Where that quote stands in the record.
    pub(super) opened: usize,
    /// The line on which it closes, and where that line's text ends in the record.
    pub(super) last_line: u64,
    end: usize,
    pub(super) behind: Behind,
}

/// What stands right behind a closing quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    /// A delimiter or the record's end, as it should be.
    Nothing,
    Text,
}

impl QuotedSpan {
    /// The lines that it runs over, from end to end.
    pub(super) fn lines<'a>(&self, record: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let end = self.end.min(record.len());
        record[self.start..end].split(|byte| *byte == b'\n').map(without_line_end)
    }
}

/// The scan of one record; it reads quotes as the csv crate does.
pub(super) struct FrameScan {
    dialect: Dialect,
    /// Whether the line end of the last line is escaped outside of quotes.
    is_continued: bool,
    pub(super) quoting: Quoting,
    pub(super) text_after_quote: Option<Spot>,
    pub(super) spans: Vec<QuotedSpan>,
    /// The line that was scanned last, and where its text ends in the record.
    line: u64,
    line_end: usize,
}

/// Where the scan stands in a record.
#[derive(Debug, Clone, Copy)]
pub(super) enum Quoting {
    FieldStart,
    Unquoted,
    Quoted {
        opened: Spot,
    },
    /// Behind a quote in a quoted field: the closing one, or the first of an escaped pair.
    QuoteSeen {
        opened: Spot,
    },
}

/// A place in a record, before anybody wants to know its column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot {
    line: u64,
    /// Where that line starts in the record.
    line_start: usize,
    pub(super) at: usize,
}

impl Spot {
    pub(super) fn place(self, record: &[u8]) -> TextPosition {
        let characters = record[self.line_start..self.at].iter().filter(|byte| (**byte & 0xc0) != 0x80).count();
        TextPosition { line: self.line, column: characters as u64 + 1 }
    }
}

impl FrameScan {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self { dialect, is_continued: false, quoting: Quoting::FieldStart, text_after_quote: None, spans: Vec::new(), line: 0, line_end: 0 }
    }

    /// Whether the record has another line.
    pub(super) const fn goes_on(&self) -> bool {
        self.is_continued || matches!(self.quoting, Quoting::Quoted { .. })
    }

    /// Where `wanted` or the escape character stands first in a text.
    fn find(&self, wanted: u8, text: &[u8]) -> Option<usize> {
        match self.dialect.escape {
            None => memchr(wanted, text),
            Some(escape) => memchr2(wanted, escape, text),
        }
    }

    /// Goes on over the line that starts at `line_start` and is the record's last so far.
    pub(super) fn line(&mut self, record: &[u8], line_start: usize, line: u64) {
        let end = line_start + without_line_end(&record[line_start..]).len();
        (self.line, self.line_end) = (line, end);
        let mut at = line_start;
        while at < end {
            let text = &record[at..end];
            let spot = Spot { line, line_start, at };
            (self.quoting, at) = match self.quoting {
                Quoting::FieldStart if text[0] == b'"' => (Quoting::Quoted { opened: spot }, at + 1),
                Quoting::FieldStart | Quoting::Unquoted => match self.find(self.dialect.delimiter, text) {
                    None => (Quoting::Unquoted, end),
                    Some(found) if Some(text[found]) == self.dialect.escape => (Quoting::Unquoted, at + found + 2),
                    Some(found) => (Quoting::FieldStart, at + found + 1),
                },
                Quoting::Quoted { opened } => match self.find(b'"', text) {
                    None => (self.quoting, end),
                    Some(found) if Some(text[found]) == self.dialect.escape => (self.quoting, at + found + 2),
                    Some(found) => (Quoting::QuoteSeen { opened }, at + found + 1),
                },
                Quoting::QuoteSeen { opened } if text[0] == b'"' => (Quoting::Quoted { opened }, at + 1),
                Quoting::QuoteSeen { opened } if text[0] == self.dialect.delimiter => {
                    self.closed(opened, Behind::Nothing);
                    (Quoting::FieldStart, at + 1)
                }
                Quoting::QuoteSeen { opened } => {
                    self.closed(opened, Behind::Text);
                    self.text_after_quote.get_or_insert(spot);
                    (Quoting::Unquoted, at)
                }
            };
        }
        self.is_continued = at > end && matches!(self.quoting, Quoting::Unquoted);
    }

    /// The record is over: a quote that was seen at its end closes the field.
    pub(super) fn ends(&mut self) {
        if let Quoting::QuoteSeen { opened } = self.quoting {
            self.closed(opened, Behind::Nothing);
        }
    }

    /// Takes note of a quoted field that runs over lines.
    fn closed(&mut self, opened: Spot, behind: Behind) {
        if opened.line < self.line {
            let (first_line, start, last_line, end) = (opened.line, opened.line_start, self.line, self.line_end);
            self.spans.push(QuotedSpan { first_line, start, opened: opened.at, last_line, end, behind });
        }
    }
}
