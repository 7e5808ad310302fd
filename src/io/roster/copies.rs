//! Copies of records whose quotes hold nobody knows what. Read again they must be as uncertain, until somebody has mended them.

use std::io::Read;

use csv::ByteRecord;
use memchr::{memchr, memrchr};

use super::Roster;
use super::line_text::without_line_end;
use crate::domain::account::InvalidAccount;

impl<R: Read> Roster<R> {
    /// The text of the current record without the columns of a rejects file: as it stands where that can be told, else one that has text
    /// behind a closing quote, too.
    #[cold]
    pub(super) fn text_for_copy(&self, fields: &ByteRecord) -> Box<[u8]> {
        let (names, dialect) = (&self.header.names, self.frames.dialect());
        let is_replaced = |column: usize| self.header.is_replaced(column);
        let replaced = (0..names.len()).filter(|column| is_replaced(*column)).count();
        if dialect.escape.is_none() && replaced == self.header.own {
            return without_own(self.frames.raw(), dialect.delimiter, self.header.own).into();
        }
        let kept = fields.iter().enumerate().filter(|(column, _)| !is_replaced(*column));
        uncertain(kept.map(|(_, field)| field), dialect.delimiter)
    }
}

/// Whether what a record's quotes hold is uncertain, by why it is invalid.
pub(super) const fn has_uncertain_quotes(why: Option<&InvalidAccount>) -> bool {
    matches!(why, Some(InvalidAccount::TextAfterQuote { .. } | InvalidAccount::SwallowedLines { .. }))
}

/// A record's text less so many columns at its end, which are written as they should be.
pub(super) fn without_own(raw: &[u8], delimiter: u8, columns: usize) -> &[u8] {
    (0..columns).fold(without_line_end(raw), |text, _| without_last(text, delimiter))
}

fn without_last(text: &[u8], delimiter: u8) -> &[u8] {
    let Some(mut inner) = text.strip_suffix(b"\"") else { return &text[..memrchr(delimiter, text).unwrap_or(0)] };
    // From its end a quoted field goes back to the first quote that isn't one of two.
    while let Some(at) = memrchr(b'"', inner) {
        match inner[..at].last() {
            Some(b'"') => inner = &inner[..at - 1],
            Some(_) => return &inner[..at - 1],
            None => return b"",
        }
    }
    b""
}

/// The fields as a record that has a blank behind its last quote, which no reader may take for sound.
fn uncertain<'a>(fields: impl Iterator<Item = &'a [u8]>, delimiter: u8) -> Box<[u8]> {
    let mut text = Vec::new();
    for field in fields {
        if !text.is_empty() {
            text.push(delimiter);
        }
        text.push(b'"');
        let mut rest = field;
        while let Some(at) = memchr(b'"', rest) {
            text.extend_from_slice(&rest[..=at]);
            text.push(b'"');
            rest = &rest[at + 1..];
        }
        text.extend_from_slice(rest);
        text.push(b'"');
    }
    text.push(b' ');
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_columns_are_found_from_behind() {
        let check = |text: &str, expected: &str| assert_eq!(without_own(text.as_bytes(), b',', 2), expected.as_bytes(), "{text}");
        check("u,n,1,info\n", "u,n");
        check("u,\"a\"b,,\"one, \"\"two\"\"\"\r\n", "u,\"a\"b");
        check("u,\"a\nb,c\",\"\",\"\"\"x\"\",\"\"y\"", "u,\"a\nb,c\"");
        check("u,1,", "u");
        check("u", "");
        check("\"\"", "");
    }

    #[test]
    fn a_copy_of_uncertain_fields_has_text_behind_a_quote() {
        let fields: [&[u8]; 2] = [b"u", b"a \"b\""];
        assert_eq!(&*uncertain(fields.into_iter(), b';'), b"\"u\";\"a \"\"b\"\"\" ");
    }
}
