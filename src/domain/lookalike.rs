//! Look-alikes: two cells that a person takes for the same UserID although their bytes differ.
//!
//! A spreadsheet, an export or a colleague changes how a UserID is written, not whose it is. This module only compares text; `flow::sync`
//! decides which missing accounts are spared for it.

use std::fmt;

use xxhash_rust::xxh3::xxh3_128;

use super::uuid::is_hyphenated;

/// A record whose UserID cell looks like a missing id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lookalike {
    /// Counts records from 1.
    pub row: u64,
    /// The physical line on which it starts.
    pub line: u64,
}

impl fmt::Display for Lookalike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {} (line {})", self.row, self.line)
    }
}

/// Turns cells into their normal form, in memory that it keeps.
#[derive(Debug, Default)]
pub struct Normalizer {
    form: String,
}

impl Normalizer {
    /// The normal form of a UserID or of a cell that ought to hold one; bytes that are not UTF-8 stand in it as U+FFFD.
    ///
    /// Freed, at its ends, of white space and of characters that take no room; of `="…"`, a leading `'`, a trailing `.0` on digits and a
    /// UUID's hyphens; in lower case; digits alone without leading zeros.
    pub fn form(&mut self, cell: &[u8]) -> &str {
        self.form.clear();
        let text = String::from_utf8_lossy(cell);
        let bare = without_a_fraction(unwrapped(&text));
        let has_hyphens = is_hyphenated(bare.as_bytes());
        for char in bare.chars().filter(|char| !has_hyphens || *char != '-') {
            if char.is_ascii() {
                self.form.push(char.to_ascii_lowercase());
            } else {
                self.form.extend(char.to_lowercase());
            }
        }
        if is_digits(&self.form) {
            let significant = self.form.trim_start_matches('0').len().max(1);
            self.form.drain(..self.form.len() - significant);
        }
        &self.form
    }

    /// The normal form as a hash: two forms share one by a chance of 1 in 2^128.
    pub fn hash(&mut self, cell: &[u8]) -> u128 {
        xxh3_128(self.form(cell).as_bytes())
    }
}

/// Frees it of what stands around it, in whatever order that was put there.
fn unwrapped(mut text: &str) -> &str {
    loop {
        let before = text.len();
        text = text.trim_matches(takes_no_room);
        text = text.strip_prefix("=\"").and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        text = text.strip_prefix('\'').unwrap_or(text);
        if text.len() == before {
            return text;
        }
    }
}

/// White space, and what nobody sees: zero-width characters, a byte order mark, marks of direction.
const fn takes_no_room(char: char) -> bool {
    let is_invisible = matches!(
        char,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
    );
    is_invisible || char.is_whitespace()
}

/// A number to which a spreadsheet gave a fraction.
fn without_a_fraction(text: &str) -> &str {
    text.strip_suffix(".0").filter(|whole| is_digits(whole)).unwrap_or(text)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn form(cell: &str) -> String {
        Normalizer::default().form(cell.as_bytes()).to_owned()
    }

    #[test]
    fn what_a_person_takes_for_the_same_id_has_one_form() {
        let check = |form: &str, cells: &[&str]| {
            for cell in cells {
                assert_eq!(self::form(cell), form, "{cell:?}");
            }
        };
        check("user1", &["user1", "User1", "USER1 ", "\tuser1", "\u{a0}user1\u{a0}", "\u{3000}user1", "user1\u{200b}", "\u{feff}user1"]);
        check("user1", &["=\"user1\"", "'user1", "=\"'User1 \"", " '=\"user1\" ", "user1\r"]);
        check("123", &["123", "0123", "000123", "123.0", "00123.0", "=\"00123\"", "'00123", " 0123 ", "=\" 0123\""]);
        check("0", &["0", "00", "0.0", "000.0"]);
        check("k", &["K", "\u{212a}"]);
        check("élan", &["ÉLAN", "élan"]);
        let uuid = "550e8400e29b41d4a716446655440000";
        check(
            uuid,
            &[uuid, "550E8400-E29B-41D4-A716-446655440000", "550e8400-e29b-41d4-a716-446655440000", "'550E8400E29B41D4A716446655440000"],
        );
        check("", &["", " ", "\u{feff}", "'", "=\"\""]);
    }

    #[test]
    fn what_is_another_id_has_another_form() {
        let pairs = [
            ("user1", "user10"),
            ("user 1", "user1"),
            ("a-b", "ab"),
            ("user01", "user1"),
            ("1.5", "15"),
            ("12.00", "12"),
            ("a.0", "a"),
            ("1-2", "12"),
            ("0x10", "x10"),
            ("550e8400-e29b-41d4-a716-44665544000", "550e8400e29b41d4a71644665544000"),
            ("=user1", "user1"),
            ("user1'", "user1"),
            ("\"user1\"", "user1"),
        ];
        for (one, other) in pairs {
            assert_ne!(form(one), form(other));
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_no_id() {
        let mut normalizer = Normalizer::default();
        assert_ne!(normalizer.hash(b"user1\xa0"), normalizer.hash(b"user1"));
        assert_eq!(normalizer.form(b"\xff User1"), "\u{fffd} user1");
    }

    proptest! {
        #[test]
        fn a_form_is_its_own_form(cell in "[ '=\"0-9a-fA-F.\u{a0}\u{200b}-]{0,40}") {
            let once = form(&cell);
            let twice = form(&once);
            // A fraction is taken off once: what is left may end in another one.
            prop_assert!(once == twice || once.ends_with(".0"), "{:?} {:?}", once, twice);
        }

        #[test]
        fn case_and_what_stands_around_make_no_difference(
            id in "[!-&(-~][!-~]{0,31}",
            around in "[ \t\u{a0}\u{2003}\u{200b}\u{feff}']{0,3}",
            behind in "[ \t\u{a0}\u{2003}\u{200b}\u{feff}]{0,3}",
        ) {
            let expected = form(&id);
            prop_assert_eq!(form(&format!("{around}{}{behind}", id.to_uppercase())), expected.clone());
            prop_assert_eq!(form(&format!("{around}=\"{id}\"{behind}")), expected);
        }
    }
}
