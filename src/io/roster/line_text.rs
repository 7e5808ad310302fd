//! What the text of one line or record looks like: its end, its cells as they stand in the file, and whether there is anything in it.

use crate::domain::outcome::ERROR_COLUMNS;
use crate::domain::position::Dialect;

/// Whether there is nothing but delimiters, quotes and white space.
#[inline]
pub(super) fn is_blank(raw: &[u8], delimiter: u8) -> bool {
    let is_empty = |byte: u8| matches!(byte, b'\t'..=b'\r' | b' ' | b'"') || byte == delimiter;
    // Most records are told by their first byte.
    if raw.first().is_some_and(u8::is_ascii_alphanumeric) && !is_empty(raw[0]) {
        return false;
    }
    match raw.iter().position(|byte| !is_empty(*byte)) {
        None => true,
        Some(at) => !raw[at].is_ascii() && is_blank_text(&raw[at..], delimiter),
    }
}

/// As [`is_blank`], with the white space that isn't ASCII.
#[cold]
fn is_blank_text(raw: &[u8], delimiter: u8) -> bool {
    std::str::from_utf8(raw)
        .is_ok_and(|text| text.chars().all(|found| found.is_whitespace() || found == '"' || found == char::from(delimiter)))
}

/// Whether a header is one that a rejects file has.
pub(super) fn is_of_rejects(header: &[u8], delimiter: u8) -> bool {
    let mut names = header.rsplit(|byte| *byte == delimiter);
    ERROR_COLUMNS.iter().rev().all(|name| names.next() == Some(name))
}

/// The delimiter that a line says which spreadsheets write in front of the header: `sep=;`, also in quotes.
pub(super) fn named_delimiter(line: &[u8]) -> Option<u8> {
    let line = line.strip_prefix(b"\"").and_then(|line| line.strip_suffix(b"\"")).unwrap_or(line);
    let (word, named) = line.split_at_checked(b"sep=".len())?;
    match named {
        [b'"' | b'\n' | b'\r'] => None,
        [delimiter] if delimiter.is_ascii() && word.eq_ignore_ascii_case(b"sep=") => Some(*delimiter),
        _ => None,
    }
}

/// A line's text; a carriage return is the line end's only in front of a line feed, or at the end of the file.
#[inline]
pub(super) fn without_line_end(line: &[u8]) -> &[u8] {
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    text.strip_suffix(b"\r").unwrap_or(text)
}

/// A cell of a record as it stands in the file, with its quotes; the record comes with its line end, if it has one.
pub(super) fn raw_cell(record: &[u8], Dialect { delimiter, escape }: Dialect, column: usize) -> Option<&[u8]> {
    let record = without_line_end(record);
    let (mut is_quoted, mut from, mut is_escaped) = (false, 0, false);
    let mut ends = (0..record.len()).filter(|at| {
        is_escaped = !is_escaped && (*at > 0 && Some(record[at - 1]) == escape);
        if is_escaped {
            return false;
        }
        // In a field that begins with a quote, each one opens or closes; an escaped pair does both.
        is_quoted ^= record[*at] == b'"' && record[from] == b'"';
        let ends_here = !is_quoted && record[*at] == delimiter;
        from = if ends_here { at + 1 } else { from };
        ends_here
    });
    let start = if column == 0 { 0 } else { ends.nth(column - 1)? + 1 };
    Some(&record[start..ends.next().unwrap_or(record.len())])
}
