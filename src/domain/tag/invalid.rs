//! Why a cell is no value of its tag, and what would help.

use thiserror::Error;

use super::{FIELD_MAX_BYTES, Tag};

/// Why a cell is no value of its tag.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{tag} {why}")]
pub struct InvalidTagValue {
    pub tag: Tag,
    pub why: WhyInvalid,
    /// The cell, where `--value` can say what it stands for.
    pub word: Option<Box<str>>,
}

/// Longest cell that a hint names as a word, in bytes. Chosen: what is longer is no word but a text.
const WORD_MAX_BYTES: usize = 64;

/// The cell as a word that a flag can name.
pub(super) fn nameable_word(cell: &[u8]) -> Option<Box<str>> {
    let is_short = cell.len() <= WORD_MAX_BYTES && !cell.contains(&b'=');
    std::str::from_utf8(cell).ok().filter(|_| is_short).map(Box::from)
}

impl InvalidTagValue {
    /// The rule that it breaks, without its own figures.
    #[must_use]
    pub fn rule(&self) -> String {
        match self.why {
            WhyInvalid::Long { .. } => format!("{} is too long", self.tag),
            WhyInvalid::NotUtf8 | WhyInvalid::NotOneOf(_) | WhyInvalid::NotADay | WhyInvalid::NotANumber | WhyInvalid::Nul => {
                self.to_string()
            }
        }
    }

    /// Whether it would be a value without the white space at its ends.
    #[must_use]
    pub fn needs_trim(&self) -> bool {
        let trimmed = |word: &str| Some(word.trim()).filter(|trimmed| *trimmed != word).map(str::to_owned);
        self.word.as_deref().and_then(trimmed).is_some_and(|trimmed| self.tag.value(trimmed.as_bytes()).is_ok())
    }

    /// What its word may well stand for, by what other systems write: empty where it most likely says nothing.
    /// `None` where nobody can guess, or where no other word would help: a day or a number is a value of its own, which nothing stands for.
    #[must_use]
    pub fn likely_meaning(&self) -> Option<&'static str> {
        let word = self.word.as_deref()?.trim();
        match &self.why {
            WhyInvalid::NotADay => ZERO_DAYS.contains(&word).then_some(""),
            WhyInvalid::NotOneOf(_) => likely_gender(word).filter(|_| self.tag == Tag::Gender),
            WhyInvalid::NotUtf8 | WhyInvalid::Long { .. } | WhyInvalid::Nul | WhyInvalid::NotANumber => None,
        }
    }

    /// What a cell may hold, where that can be said in a few words.
    #[must_use]
    pub fn takes(&self) -> Option<String> {
        match self.why {
            WhyInvalid::NotADay => Some(A_DAY.to_owned()),
            WhyInvalid::NotANumber => Some(format!("a whole number from 0 to {}", u32::MAX)),
            WhyInvalid::NotOneOf(words) => Some(listed(words)),
            WhyInvalid::NotUtf8 | WhyInvalid::Long { .. } | WhyInvalid::Nul => None,
        }
    }

    /// The word that may be given a meaning of those that the tag takes.
    #[must_use]
    pub fn unknown_word(&self) -> Option<&str> {
        match self.why {
            WhyInvalid::NotOneOf(_) => self.word.as_deref(),
            WhyInvalid::NotADay | WhyInvalid::NotANumber | WhyInvalid::NotUtf8 | WhyInvalid::Long { .. } | WhyInvalid::Nul => None,
        }
    }
}

/// What databases write for no day. Source: the zero date of MySQL, in both forms of a day.
const ZERO_DAYS: [&str; 2] = ["0000-00-00", "00000000"];
const A_DAY: &str = "a day that exists, written YYYYMMDD or YYYY-MM-DD";

/// Source: ISO/IEC 5218, which most systems follow (0 is "not known", 9 "not applicable"), and common letters and words.
fn likely_gender(word: &str) -> Option<&'static str> {
    match word.to_lowercase().as_str() {
        "1" | "m" | "man" | "boy" | "男" | "男性" => Some("male"),
        "2" | "f" | "w" | "woman" | "girl" | "女" | "女性" => Some("female"),
        "0" | "9" | "未知" | "保密" => Some("unknown"),
        _ => None,
    }
}

/// The rule that a cell of a tag breaks.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WhyInvalid {
    #[error("is not valid UTF-8")]
    NotUtf8,
    #[error("is none of {}", listed(.0))]
    NotOneOf(&'static [(&'static str, &'static str)]),
    #[error("is not {A_DAY}")]
    NotADay,
    #[error("is not a whole number from 0 to {}", u32::MAX)]
    NotANumber,
    #[error("has {bytes} bytes, at most {FIELD_MAX_BYTES} are allowed")]
    Long { bytes: usize },
    #[error("holds a NUL character (U+0000)")]
    Nul,
}

fn listed(words: &[(&str, &str)]) -> String {
    words.iter().map(|(short, _)| *short).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_cell_is_said_in_words() {
        let check = |tag: Tag, cell: &[u8], expected: &str| assert_eq!(tag.value(cell).unwrap_err().to_string(), expected);
        check(Tag::Gender, b"x", "Gender is none of unknown, female, male");
        check(Tag::BirthDay, b"x", "BirthDay is not a day that exists, written YYYYMMDD or YYYY-MM-DD");
        check(Tag::Level, b"x", "Level is not a whole number from 0 to 4294967295");
        check(Tag::Custom("Vip".into()), &[b'v'; 501], "Custom.Vip has 501 bytes, at most 500 are allowed");
        check(Tag::Location, b"\xff", "Location is not valid UTF-8");
    }

    #[test]
    fn a_word_is_guessed_where_another_one_would_help() {
        let check = |tag: Tag, cell: &[u8], word: Option<&str>, meaning: Option<&str>| {
            let invalid = tag.value(cell).unwrap_err();
            assert_eq!((invalid.word.as_deref(), invalid.likely_meaning()), (word, meaning), "{tag} {cell:?}");
        };
        check(Tag::Gender, b"1", Some("1"), Some("male"));
        check(Tag::Gender, b"F", Some("F"), Some("female"));
        check(Tag::Gender, b"0", Some("0"), Some("unknown"));
        check(Tag::Gender, b"a=b", None, None);
        // Nobody knows what these say; a flag that takes them away would lose it.
        check(Tag::Gender, b"divers", Some("divers"), None);
        check(Tag::Gender, b"3", Some("3"), None);
        check(Tag::AllowType, b"1", Some("1"), None);
        check(Tag::AdminForbidType, b"no", Some("no"), None);
        check(Tag::BirthDay, b"0000-00-00", Some("0000-00-00"), Some(""));
        check(Tag::BirthDay, b"00000000", Some("00000000"), Some(""));
        // A day that is miswritten is no empty cell, nor is a number.
        check(Tag::BirthDay, b"1988-02-31", Some("1988-02-31"), None);
        check(Tag::Level, b"vip", Some("vip"), None);
        check(Tag::Gender, b" M ", Some(" M "), Some("male"));
        check(Tag::SelfSignature, &[b's'; 501], None, None);
        check(Tag::Location, b"\xff", None, None);
        check(Tag::Location, b"a\0", Some("a\0"), None);
    }
}
