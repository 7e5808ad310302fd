//! Look-alikes: two cells that a person takes for the same UserID although their bytes differ.
//!
//! A spreadsheet, an export or a colleague may change how a UserID is written, but not who is meant. This module only compares text;
//! `flow::sync` decides which missing accounts are spared because of it.

use std::fmt;

use xxhash_rust::xxh3::xxh3_128;

use super::uuid::is_hyphenated;

/// A record whose UserID cell looks like a missing UserID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lookalike {
    /// The row number, counted from 1.
    pub row: u64,
    /// The physical line on which the record starts.
    pub line: u64,
}

impl fmt::Display for Lookalike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {} (line {})", self.row, self.line)
    }
}

/// Computes normal forms of cells, with buffers that it reuses.
#[derive(Debug, Default)]
pub struct Normalizer {
    form: String,
}

impl Normalizer {
    /// The normal form of a UserID, or of a cell that should contain one. Bytes that are not UTF-8 become U+FFFD.
    ///
    /// Removed are white space and invisible characters at both ends, `="…"`, a leading `'`, a trailing `.0` after digits, the hyphens of a
    /// UUID, and leading zeros of a number. Letters become lower case.
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

    /// A hash of the normal form. Two different forms have the same hash with a probability of 2^-128.
    pub fn hash(&mut self, cell: &[u8]) -> u128 {
        xxh3_128(self.form(cell).as_bytes())
    }
}

/// Removes everything that is put around a UserID, in whatever order it was put there.
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

/// White space and invisible characters: zero-width characters, a byte order mark, direction marks.
pub(super) const fn takes_no_room(char: char) -> bool {
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

/// A number without the fraction that a spreadsheet added.
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
    fn ids_that_look_the_same_have_one_form() {
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
    fn different_ids_have_different_forms() {
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
    fn bytes_that_are_not_utf8_are_no_id() {
        let mut normalizer = Normalizer::default();
        assert_ne!(normalizer.hash(b"user1\xa0"), normalizer.hash(b"user1"));
        assert_eq!(normalizer.form(b"\xff User1"), "\u{fffd} user1");
    }

    proptest! {
        #[test]
        fn the_normal_form_of_a_form_is_itself(cell in "[ '=\"0-9a-fA-F.\u{a0}\u{200b}-]{0,40}") {
            let once = form(&cell);
            let twice = form(&once);
            // A fraction is removed only once; the rest may end with another one.
            prop_assert!(once == twice || once.ends_with(".0"), "{:?} {:?}", once, twice);
        }

        #[test]
        fn case_and_text_around_an_id_make_no_difference(
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
