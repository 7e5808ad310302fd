//! Values that identify an input file and a position in it.
//!
//! They are pure values: the roster reads them from a file, and the journal keeps them in the checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::domain::account::Field;
use crate::domain::tag::Tag;

/// A place in the input, between two records, with all that stands before it in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputPosition {
    /// Records before it.
    pub rows: u64,
    /// Its offset in bytes.
    pub offset: u64,
    /// Its physical line; the header is line 1.
    pub line: u64,
    /// Running hash (XXH3, chained line by line) of every byte before it.
    pub digest: u64,
}

impl InputPosition {
    /// The place before the first byte.
    pub const START: InputPosition = InputPosition { rows: 0, offset: 0, line: 1, digest: 0 };

    /// Goes on over `bytes`, which hold `lines` line ends.
    pub fn pass(&mut self, bytes: &[u8], lines: u64) {
        self.offset += bytes.len() as u64;
        self.line += lines;
        self.digest = xxh3_64_with_seed(bytes, self.digest);
    }
}

/// The stat fields of an input file: as long as they are the same, so is the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStat {
    /// In bytes.
    pub len: u64,
    /// Nanoseconds since the epoch, as are all times here.
    pub modified_ns: i64,
    pub changed_ns: i64,
    pub inode: u64,
}

/// The file that a private copy was made of, which the run then reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    pub stat: FileStat,
    /// Hash (XXH3) of all its bytes.
    pub digest: u64,
}

/// How an input is read: a run that goes on must read it as it began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnLayout {
    pub delimiter: u8,
    /// The columns of UserID, Nick and FaceUrl, counted from 0.
    pub columns: [Option<u32>; 3],
    /// What else changes what is read or sent: the flags by name, with what they were given. One that isn't given isn't here, so that records of
    /// versions without that flag mean the same.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub flags: BTreeMap<String, String>,
}

/// How a file is cut into records and fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    pub delimiter: u8,
    /// What takes the meaning off the character behind it.
    pub escape: Option<u8>,
}

impl From<u8> for Dialect {
    fn from(delimiter: u8) -> Self {
        Self { delimiter, escape: None }
    }
}

/// The flag of the escape character, as a run records it.
pub const ESCAPE: &str = "escape";
/// The flag of the profile columns, under which a run records the columns of all tags, however they were found. They stand among the flags so
/// that a version which reads no tags takes the run for another one.
const PROFILE: &str = "profile";
/// The flag by which a run sends the profile columns alone.
const PROFILE_ONLY: &str = "profile-only";
/// Between the values of a flag that are several, as a run records them. No word of a command line and no name of a column holds it.
const BETWEEN_VALUES: char = '\0';

/// What a column is read as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadAs {
    Field(Field),
    Tag(Tag),
}

impl fmt::Display for ReadAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadAs::Field(field) => field.fmt(f),
            ReadAs::Tag(tag) => tag.fmt(f),
        }
    }
}

impl ColumnLayout {
    /// How the file is cut.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        Dialect { delimiter: self.delimiter, escape: self.flags.get(ESCAPE).and_then(|escape| escape.bytes().next()) }
    }

    /// As this one, with tags read from columns, which are counted from 0.
    #[must_use]
    pub fn with_tags<'a>(mut self, tags: impl Iterator<Item = (&'a Tag, usize)>) -> Self {
        let mut columns: Vec<String> = tags.map(|(tag, column)| format!("{tag}={column}")).collect();
        if !columns.is_empty() {
            columns.sort_unstable();
            self.flags.insert(PROFILE.to_owned(), columns.join(&String::from(BETWEEN_VALUES)));
        }
        self
    }

    /// As this one, for a run that sends the profile columns alone.
    #[must_use]
    pub fn of_profiles_alone(mut self) -> Self {
        self.flags.insert(PROFILE_ONLY.to_owned(), String::new());
        self
    }

    /// Whether the run sends the profile columns alone.
    #[must_use]
    pub fn is_of_profiles_alone(&self) -> bool {
        self.flags.contains_key(PROFILE_ONLY)
    }

    /// The tags that are read, with their columns, counted from 0.
    pub fn tags(&self) -> impl Iterator<Item = (Tag, u32)> {
        let recorded = self.flags.get(PROFILE).into_iter().flat_map(|columns| columns.split(BETWEEN_VALUES));
        recorded.filter_map(|column| {
            let (tag, column) = column.rsplit_once('=')?;
            Some((Tag::parse(tag)?, column.parse().ok()?))
        })
    }

    /// Whether anything is read from a column.
    #[must_use]
    pub fn reads(&self, column: usize) -> bool {
        let column = u32::try_from(column).ok();
        self.columns.contains(&column) || self.tags().any(|(_, of_tag)| Some(of_tag) == column)
    }

    /// What an `earlier` one has read from no column, and this one reads from one.
    pub fn newly_read(&self, earlier: &ColumnLayout) -> impl Iterator<Item = ReadAs> {
        let (now, before) = (self.columns, earlier.columns);
        let fields = Field::ALL.into_iter().zip(now.into_iter().zip(before));
        let fields = fields.filter(|(_, (now, before))| now.is_some() && before.is_none()).map(|(field, _)| ReadAs::Field(field));
        let tags = self.tags().filter(|(tag, _)| earlier.tags().all(|(before, _)| before != *tag));
        fields.chain(tags.map(|(tag, _)| ReadAs::Tag(tag)))
    }

    /// How this differs from an `earlier` one, in words; none if both read the same.
    #[must_use]
    pub fn differences(&self, earlier: &ColumnLayout) -> Vec<String> {
        let mut found = Vec::new();
        let mut differ = |what: &str, was: String, is: String| {
            if was != is {
                found.push(format!("{what} was {was}, now it is {is}"));
            }
        };
        let delimiter = |reading: &ColumnLayout| format!("{:?}", char::from(reading.delimiter));
        differ("the delimiter", delimiter(earlier), delimiter(self));
        let number = |column: Option<u32>| column.map_or_else(|| "none".to_owned(), |column| format!("{}", column + 1));
        for (field, (now, before)) in Field::ALL.into_iter().zip(self.columns.into_iter().zip(earlier.columns)) {
            differ(&format!("the column of {field}"), number(before), number(now));
        }
        let (now, before): (BTreeMap<Tag, u32>, BTreeMap<Tag, u32>) = (self.tags().collect(), earlier.tags().collect());
        for tag in before.keys().chain(now.keys()).collect::<BTreeSet<_>>() {
            differ(&format!("the column of {tag}"), number(before.get(tag).copied()), number(now.get(tag).copied()));
        }
        let names: BTreeSet<&String> = earlier.flags.keys().chain(self.flags.keys()).collect();
        for name in names.into_iter().filter(|name| *name != PROFILE) {
            let given = |reading: &ColumnLayout| reading.flags.get(name).map_or_else(|| "not given".to_owned(), |value| given_words(value));
            differ(&format!("--{name}"), given(earlier), given(self));
        }
        found
    }
}

/// What a flag was given, in words; one without a value is only given. Values that are several are kept with NUL between them.
fn given_words(value: &str) -> String {
    if value.is_empty() {
        return "given".to_owned();
    }
    let words: Vec<String> = value.split(BETWEEN_VALUES).map(|word| format!("{word:?}")).collect();
    words.join(" and ")
}

/// How an input compares with what an earlier run has seen of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputChange {
    /// Byte for byte the same, as far as the comparison can tell.
    Same,
    /// The settled part is the same, something after it is not.
    ChangedAfter,
    /// The settled part has changed.
    ChangedWithin,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(delimiter: u8, columns: [Option<u32>; 3], flags: &[(&str, &str)]) -> ColumnLayout {
        let flags = flags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ColumnLayout { delimiter, columns, flags }
    }

    #[test]
    fn what_differs_is_named_and_what_reads_the_same_is_not() {
        let before = reading(b',', [Some(0), Some(2), None], &[("encoding", "big5")]);
        assert_eq!(before.differences(&before.clone()), [""; 0]);
        let now = reading(b'\t', [Some(0), None, Some(2)], &[("trim", "")]);
        assert_eq!(
            now.differences(&before),
            [
                "the delimiter was ',', now it is '\\t'",
                "the column of Nick was 3, now it is none",
                "the column of FaceUrl was none, now it is 3",
                "--encoding was \"big5\", now it is not given",
                "--trim was not given, now it is given",
            ]
        );
    }

    #[test]
    fn columns_of_tags_are_recorded_and_told_apart_as_those_of_fields_are() {
        let plain = reading(b',', [Some(0), None, None], &[]);
        let (vip, gender) = (Tag::Custom("a=b".into()), Tag::Gender);
        let with = |columns: &[(&Tag, usize)]| plain.clone().with_tags(columns.iter().copied());
        assert_eq!(with(&[]), plain, "a run without tags is recorded as it always was");
        let before = with(&[(&vip, 3), (&gender, 2)]);
        assert_eq!(before, with(&[(&gender, 2), (&vip, 3)]));
        assert_eq!(before.tags().collect::<Vec<_>>(), [(vip.clone(), 3), (gender.clone(), 2)]);
        assert!(before.reads(0) && before.reads(2) && !before.reads(1));
        let now = with(&[(&gender, 1), (&Tag::BirthDay, 4)]);
        assert_eq!(
            now.differences(&before),
            [
                "the column of Gender was 3, now it is 2",
                "the column of BirthDay was none, now it is 5",
                "the column of Custom.a=b was 4, now it is none"
            ]
        );
        assert_eq!(now.newly_read(&before).collect::<Vec<_>>(), [ReadAs::Tag(Tag::BirthDay)]);
        let again: ColumnLayout = serde_json::from_str(&serde_json::to_string(&before).unwrap()).unwrap();
        assert_eq!(again, before);
    }

    #[test]
    fn a_record_without_flags_is_written_as_it_always_was_and_read() {
        let text = r#"{"delimiter":44,"columns":[0,null,2]}"#;
        let read: ColumnLayout = serde_json::from_str(text).unwrap();
        assert_eq!(read, reading(b',', [Some(0), None, Some(2)], &[]));
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
    }
}
