//! The words of a file that stand for other values of a tag: what `--value` says.

use std::fmt;

use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use super::tag::{InvalidTagValue, Tag};

/// Longest text of words that the record of a run keeps, in bytes. Chosen: a checkpoint is written every second and is itself bounded; of a
/// longer list the record keeps the length and a hash.
const RECORDED_MAX_BYTES: usize = 2_000;

/// A word of a file, and the cell that it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagWord {
    pub tag: Tag,
    pub from: Box<str>,
    /// Empty where the word says nothing.
    pub to: Box<str>,
}

/// Why a text is no [`TagWord`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TagWordError {
    #[error("it must read TAG:FROM=TO")]
    Shape,
    #[error(transparent)]
    UnknownTag(#[from] UnknownTag),
    #[error("an empty cell says nothing, so FROM must be a word")]
    NoWord,
    #[error("{to:?} stands for nothing: {why}")]
    Meaning { to: String, why: InvalidTagValue },
}

/// A name that is no tag's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no tag; the tags are {tags}, Custom.KEY, and their names on the wire", tags = standard_tags())]
pub struct UnknownTag(pub String);

fn standard_tags() -> String {
    Tag::STANDARD.iter().map(Tag::to_string).collect::<Vec<_>>().join(", ")
}

impl TagWord {
    /// Reads `TAG:FROM=TO`: the tag ends with the first colon, the word with the first `=` behind it.
    ///
    /// # Errors
    /// [`TagWordError`] names what is wrong, also with the meaning of the word.
    pub fn parse(text: &str) -> Result<Self, TagWordError> {
        let (name, rest) = text.split_once(':').ok_or(TagWordError::Shape)?;
        let (from, to) = rest.split_once('=').ok_or(TagWordError::Shape)?;
        let tag = Tag::parse(name).ok_or_else(|| UnknownTag(name.to_owned()))?;
        if from.is_empty() {
            return Err(TagWordError::NoWord);
        }
        tag.value(to.as_bytes()).map_err(|why| TagWordError::Meaning { to: to.to_owned(), why })?;
        Ok(Self { tag, from: from.into(), to: to.into() })
    }

    /// The first word that is given twice for one tag.
    #[must_use]
    pub fn twice(words: &[TagWord]) -> Option<&TagWord> {
        let mut sorted: Vec<&TagWord> = words.iter().collect();
        sorted.sort_by_key(|word| (&word.tag, &word.from));
        let is_same = |pair: &&[&TagWord]| pair[0].tag == pair[1].tag && pair[0].from == pair[1].from;
        sorted.windows(2).find(is_same).map(|pair| pair[1])
    }

    /// The words as a run records them; `None` where there are none. It makes no difference in which order they were given.
    #[must_use]
    pub fn recorded(words: &[TagWord]) -> Option<String> {
        let mut texts: Vec<String> = words.iter().map(TagWord::to_string).collect();
        texts.sort_unstable();
        let all = texts.join("\0");
        match texts.len() {
            0 => None,
            _ if all.len() <= RECORDED_MAX_BYTES => Some(all),
            count => Some(format!("{count} words with the hash {:016x}", xxh3_64(all.as_bytes()))),
        }
    }
}

impl fmt::Display for TagWord {
    /// As the flag takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}={}", self.tag, self.from, self.to)
    }
}

/// The words of one tag, sorted: a list of cities may have thousands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TagWords(Box<[(Box<str>, Box<str>)]>);

impl TagWords {
    /// Those of `tag` among `words`.
    #[must_use]
    pub fn of(tag: &Tag, words: &[TagWord]) -> Self {
        let of_tag = words.iter().filter(|word| word.tag == *tag).map(|word| (word.from.clone(), word.to.clone()));
        let mut words: Vec<_> = of_tag.collect();
        words.sort();
        Self(words.into())
    }

    /// What a cell stands for: mostly itself.
    #[inline]
    #[must_use]
    pub fn meaning<'a>(&'a self, cell: &'a [u8]) -> &'a [u8] {
        if self.0.is_empty() {
            return cell;
        }
        let found = self.0.binary_search_by(|(from, _)| from.as_bytes().cmp(cell));
        found.map_or(cell, |at| self.0[at].1.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str) -> TagWord {
        TagWord::parse(text).unwrap()
    }

    #[test]
    fn a_word_is_read_as_it_is_written() {
        let check = |text: &str, tag: Tag, from: &str, to: &str| {
            assert_eq!(word(text), TagWord { tag: tag.clone(), from: from.into(), to: to.into() });
            assert_eq!(word(&word(text).to_string()), word(text));
        };
        let vip = Tag::Custom("Vip".into());
        check("Gender:1=male", Tag::Gender, "1", "male");
        check("Tag_Profile_IM_Gender:1=Gender_Type_Male", Tag::Gender, "1", "Gender_Type_Male");
        check("BirthDay:0000-00-00=", Tag::BirthDay, "0000-00-00", "");
        check("Custom.Vip:a:b=c=d", vip.clone(), "a:b", "c=d");
        check("Custom.Vip: x = y ", vip, " x ", " y ");
    }

    #[test]
    fn what_is_no_word_is_refused_with_the_reason() {
        let check = |text: &str, expected: &str| assert_eq!(TagWord::parse(text).unwrap_err().to_string(), expected, "{text}");
        check("Gender", "it must read TAG:FROM=TO");
        check("Gender:1", "it must read TAG:FROM=TO");
        check("Gender=1:male", "it must read TAG:FROM=TO");
        check(
            "Sex:1=male",
            "\"Sex\" is no tag; the tags are Gender, BirthDay, Location, SelfSignature, AllowType, Language, MsgSettings, AdminForbidType, Level, \
             Role, Custom.KEY, and their names on the wire",
        );
        check("Gender:=male", "an empty cell says nothing, so FROM must be a word");
        check("Gender:1=man", "\"man\" stands for nothing: Gender is none of unknown, female, male");
    }

    #[test]
    fn a_cell_means_what_its_word_stands_for_and_else_itself() {
        let words = [word("Gender:2=female"), word("Gender:1=male"), word("BirthDay:1=20000101"), word("Gender:10=unknown")];
        let check = |tag: &Tag, cell: &str, expected: &str| {
            assert_eq!(TagWords::of(tag, &words).meaning(cell.as_bytes()), expected.as_bytes(), "{tag} {cell}");
        };
        check(&Tag::Gender, "1", "male");
        check(&Tag::Gender, "10", "unknown");
        check(&Tag::Gender, "2", "female");
        check(&Tag::Gender, "3", "3");
        check(&Tag::Gender, "male", "male");
        check(&Tag::BirthDay, "1", "20000101");
        check(&Tag::Level, "1", "1");
    }

    #[test]
    fn a_word_that_is_given_twice_is_found() {
        assert_eq!(TagWord::twice(&[word("Gender:1=male"), word("Level:1=2"), word("Gender:2=male")]), None);
        assert_eq!(TagWord::twice(&[word("Gender:1=male"), word("Level:1=2"), word("Gender:1=male")]), Some(&word("Gender:1=male")));
    }

    #[test]
    fn words_are_recorded_in_an_order_of_their_own_and_a_long_list_by_its_hash() {
        assert_eq!(TagWord::recorded(&[]), None);
        let (one, other) = (word("Level:2=3"), word("Gender:1=male"));
        assert_eq!(TagWord::recorded(&[one.clone(), other.clone()]).as_deref(), Some("Gender:1=male\0Level:2=3"));
        let many: Vec<TagWord> = (0..5_000).map(|number| word(&format!("Location:{number}=x"))).collect();
        let recorded = TagWord::recorded(&many).unwrap();
        assert!(recorded.starts_with("5000 words with the hash ") && recorded.len() < 60, "{recorded}");
        assert_ne!(TagWord::recorded(&many[1..]), Some(recorded));
        assert_eq!(TagWord::recorded(&[other, one]).as_deref(), Some("Gender:1=male\0Level:2=3"));
    }
}
