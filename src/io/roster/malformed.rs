//! Which records say for certain whose they are.
//!
//! Whoever takes an absent UserID for a reason to act must know whether it may stand in a record that nobody can read.

use std::fmt;

use super::line_text::raw_cell;
use crate::domain::account::InvalidAccount;
use crate::domain::position::Dialect;

/// Why a record's UserID can't be read for certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// The number of its fields is not the header's.
    FieldCount,
    /// Text stands behind a closing quote of the record, or in front of a quote in the UserID cell.
    TextBesideQuotes,
    /// The UserID is no UTF-8, or what replaces undecodable bytes (U+FFFD) stands in it.
    Undecodable,
    /// A quote seems to have swallowed lines that were records.
    SwallowedLines,
    /// The UserID is a number as spreadsheets round it.
    Exponent,
    /// The UserID is empty or nothing but white space, and other cells are not.
    EmptyUserId,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Malformed::FieldCount => "the number of fields is not the header's",
            Malformed::TextBesideQuotes => "text stands beside quotes",
            Malformed::Undecodable => "UserID can't be decoded",
            Malformed::SwallowedLines => "a quote swallowed lines",
            Malformed::Exponent => "UserID is a rounded number",
            Malformed::EmptyUserId => "UserID is empty",
        })
    }
}

/// Tells from the UserID cell, and from why the record is invalid, if it is. Blank lines are no records, so beside an empty UserID there is
/// something else.
#[inline]
pub(super) fn why_malformed(user_id: &[u8], why: Option<&InvalidAccount>) -> Option<Malformed> {
    match why {
        Some(InvalidAccount::FieldCount { .. }) => Some(Malformed::FieldCount),
        Some(InvalidAccount::TextAfterQuote { .. }) => Some(Malformed::TextBesideQuotes),
        Some(InvalidAccount::SwallowedLines { .. }) => Some(Malformed::SwallowedLines),
        // Nobody's, for certain.
        Some(InvalidAccount::HeaderAgain) => None,
        Some(InvalidAccount::EmptyUserId) => Some(Malformed::EmptyUserId),
        None if user_id.is_ascii() => is_exponent(user_id).then_some(Malformed::Exponent),
        // Of these the UserID may be at fault, and a valid one of any printable text may hold what replaces undecodable bytes.
        None
        | Some(
            InvalidAccount::LongUserId { .. }
            | InvalidAccount::SpaceAtEnd { .. }
            | InvalidAccount::UserIdCharacter { .. }
            | InvalidAccount::NotUtf8 { .. }
            | InvalidAccount::ByteOrderMark
            | InvalidAccount::ControlCharacter { .. }
            | InvalidAccount::Nul { .. }
            | InvalidAccount::ReservedPrefix { .. }
            | InvalidAccount::LongField { .. }
            | InvalidAccount::Tag(_),
        ) => uncertain_text(user_id),
    }
}

#[cold]
fn uncertain_text(user_id: &[u8]) -> Option<Malformed> {
    let Ok(text) = std::str::from_utf8(user_id) else { return Some(Malformed::Undecodable) };
    let trimmed = text.trim();
    if trimmed.is_empty() {
        Some(Malformed::EmptyUserId)
    } else if trimmed.contains('\n') {
        Some(Malformed::SwallowedLines)
    } else if text.contains(char::REPLACEMENT_CHARACTER) {
        Some(Malformed::Undecodable)
    } else {
        is_exponent(trimmed.as_bytes()).then_some(Malformed::Exponent)
    }
}

/// Whether this is a number with an exponent as programs write one: with a fraction (`1.23457E+11`, `1,2e11`) or a plus (`1E+11`). Digits with
/// a bare `e` between them (`12e5`) are as likely a hash in hexadecimal.
#[inline]
fn is_exponent(user_id: &[u8]) -> bool {
    // Most ids are told by their first byte, most others by having no such letter.
    let starts_like_a_number = matches!(user_id.first(), Some(b'0'..=b'9' | b'+' | b'-'));
    starts_like_a_number
        && user_id.iter().position(|byte| matches!(byte, b'e' | b'E')).is_some_and(|at| is_number(&user_id[..at], &user_id[at + 1..]))
}

#[cold]
fn is_number(mantissa: &[u8], exponent: &[u8]) -> bool {
    let is_digits = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let mantissa = mantissa.strip_prefix(b"-").or(mantissa.strip_prefix(b"+")).unwrap_or(mantissa);
    let fraction = mantissa.iter().position(|byte| matches!(byte, b'.' | b','));
    let has_plus = exponent.starts_with(b"+");
    let exponent = exponent.strip_prefix(b"-").or(exponent.strip_prefix(b"+")).unwrap_or(exponent);
    is_digits(exponent)
        && match fraction {
            Some(at) => is_digits(&mantissa[..at]) && is_digits(&mantissa[at + 1..]),
            None => has_plus && is_digits(mantissa),
        }
}

/// Whether the cell of `column`, whose value is `value`, has a quote in it but does not begin with one. With a blank in front of it a quote
/// is text and encloses nothing. The form that spreadsheets write to keep a number as text (`="00123"`) is meant so and does not count.
#[inline]
pub(super) fn has_stray_quote(raw: &[u8], dialect: Dialect, column: usize, value: &[u8]) -> bool {
    value.contains(&b'"') && is_stray(raw, dialect, column)
}

#[cold]
fn is_stray(raw: &[u8], dialect: Dialect, column: usize) -> bool {
    let cell = raw_cell(raw, dialect, column).unwrap_or_default();
    let is_kept_text = cell.len() > 3 && cell.starts_with(b"=\"") && cell.ends_with(b"\"");
    !cell.starts_with(b"\"") && !is_kept_text && has_unescaped_quote(cell, dialect.escape)
}

fn has_unescaped_quote(cell: &[u8], escape: Option<u8>) -> bool {
    let mut bytes = cell.iter();
    while let Some(byte) = bytes.next() {
        if Some(*byte) == escape {
            bytes.next();
        } else if *byte == b'"' {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::super::{Format, Multiline, Roster};
    use super::*;
    use crate::domain::account::UserIds;
    use crate::domain::cells::CellRules;

    fn found(text: &str, multiline: Multiline) -> Option<Malformed> {
        let format = Format { multiline, ..Format::default() };
        let mut roster = Roster::new(Cursor::new(format!("Note,UserID,Nick\n{text}\nx,next,\n").into_bytes()), &format).unwrap();
        let first = roster.next_view().unwrap().unwrap().malformed();
        let mut last = None;
        while let Some(view) = roster.next_view() {
            let view = view.unwrap();
            last = Some((view.user_id.to_vec(), view.malformed()));
        }
        assert!(last.is_none_or(|last| last == (b"next".to_vec(), None)), "{text:?}");
        first
    }

    #[test]
    fn a_record_is_malformed_where_its_user_id_cannot_be_read_for_certain() {
        use Malformed::{EmptyUserId, Exponent, FieldCount, SwallowedLines, TextBesideQuotes, Undecodable};
        let check = |text: &str, expected: Option<Malformed>| assert_eq!(found(text, Multiline::Judged), expected, "{text:?}");
        check("n,alice,Alice", None);
        check("n,\"alice\",\"A \"\"B\"\" C\"", None);
        check("n,\"al\"\"ice\",", None);
        check("\"a \"\"b, c\",\"al\"\"ice\",", None);
        check("\"a \"\"b, c\",al\"ice,", Some(TextBesideQuotes));
        check("n,alice", Some(FieldCount));
        check("n,alice,Alice,more", Some(FieldCount));
        check("n,\"alice\"x,Alice", Some(TextBesideQuotes));
        check("n,alice,\"Alice\" x", Some(TextBesideQuotes));
        check("n, \"alice\",Alice", Some(TextBesideQuotes));
        check("n,al\"ice,Alice", Some(TextBesideQuotes));
        check("n,alice, \"Alice\"", None);
        check("n,=\"00123\",Alice", None);
        check("n,al\u{fffd}ice,Alice", Some(Undecodable));
        check("n,1.23457E+11,Alice", Some(Exponent));
        check("n,\"1,23457E+11\",Alice", Some(Exponent));
        check("n,1E+11,Alice", Some(Exponent));
        check("n,-1.5e20,Alice", Some(Exponent));
        check("n, 1.23457E+11 ,Alice", Some(Exponent));
        check("n,12e5,Alice", None);
        check("n,1e4f,Alice", None);
        check("n,1.e+5,Alice", None);
        check("n,e+5,Alice", None);
        check("n,123456789012,Alice", None);
        check("n,123.0,Alice", None);
        check("n,,Alice", Some(EmptyUserId));
        check("n,\"\",", Some(EmptyUserId));
        check("n,\u{a0} ,Alice", Some(EmptyUserId));
        check("n,alice ,Alice", None);
        check("n,李雷,Alice", None);
        check("n,alice,\u{1}", None);
        check("n,alice,\"Alice\nx,bob,Bob\"", Some(SwallowedLines));
        check("n,alice,\"Alice\n\nx,bob,Bob\r\n \t\nx,carol,Carol\"", Some(SwallowedLines));
        check("n,alice,\"Alice\nx,bob,Bob\n\"", Some(SwallowedLines));
        check("n,alice,\"Alice\n\"", None);
        check("n,alice,\"\n\nAlice\"", None);
        check("n,\"alice,Alice\nx,bob,Bob\",", Some(SwallowedLines));
        check("\"n,alice,Alice\nx,bob,Bob\n\",@TIM#x,", Some(SwallowedLines));
        check("\"two\nlines\",alice,", None);
        check("n,\"alice\n\",", Some(SwallowedLines));
        assert_eq!(found("n,alice,\"Alice\nx,bob,Bob\"", Multiline::Taken), None);
        assert_eq!(found("n,\"alice,Alice\nx,bob,Bob\",", Multiline::Taken), Some(SwallowedLines));
        assert_eq!(found("n,@TIM#x,\"two\nlines\"", Multiline::Taken), None);
    }

    #[test]
    fn an_id_of_any_text_is_uncertain_where_characters_were_lost() {
        let cells = CellRules { user_ids: UserIds::Any, ..CellRules::default() };
        let format = Format { cells, ..Format::default() };
        let mut roster = Roster::new(Cursor::new("UserID\n李雷\n李\u{fffd}\n1.5E+7\n"), &format).unwrap();
        let mut next = || {
            let view = roster.next_view().unwrap().unwrap();
            (view.account.is_ok(), view.malformed())
        };
        assert_eq!(next(), (true, None));
        assert_eq!(next(), (true, Some(Malformed::Undecodable)));
        assert_eq!(next(), (true, Some(Malformed::Exponent)));
    }

    #[test]
    fn undecodable_bytes_count_in_the_user_id_alone() {
        let check = |text: &[u8], expected: Option<Malformed>| {
            let text = [b"UserID,Nick\n", text, b"\n"].concat();
            let mut roster = Roster::new(Cursor::new(text), &Format::default()).unwrap();
            assert_eq!(roster.next_view().unwrap().unwrap().malformed(), expected);
        };
        check(b"al\xffice,", Some(Malformed::Undecodable));
        check(b"alice,\xff", None);
    }
}
