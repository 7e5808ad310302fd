//! The header: which column is which field, and whether the file is what it claims to be.

use std::collections::BTreeMap;

use csv::ByteRecord;
use thiserror::Error;

use super::line_text::is_blank;
use super::split::SplitFields;
use super::tag_columns::{TagColumn, near_tag, tag_columns};
use crate::domain::account::Field;
use crate::domain::cells::CellRules;
use crate::domain::known_tags::TAGS_MAX;
use crate::domain::outcome::ERROR_COLUMNS;
use crate::domain::position::{Dialect, ESCAPE, ReadAs};
use crate::domain::tag::Tag;
use crate::domain::tag_words::TagWord;

/// The name under which a run remembers the encoding of its input.
pub const ENCODING_FLAG: &str = "encoding";
/// The name under which a run remembers the words that stand for values of tags.
const VALUE_FLAG: &str = "value";

/// How the file is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    pub delimiter: u8,
    pub delimiter_from: DelimiterFrom,
    /// Columns to take fields from, where they are named otherwise; an empty name reads none.
    pub map: Vec<(Field, String)>,
    /// Columns to take tags from, besides those whose names are tags; an empty name reads none.
    pub tags: Vec<(Tag, String)>,
    /// The file's words for values of tags.
    pub words: Vec<TagWord>,
    pub multiline: Multiline,
    /// What takes the meaning off the character behind it.
    pub escape: Option<u8>,
    pub cells: CellRules,
    pub no_header: NoHeader,
    /// The encoding that the file is said to be in; a roster reads what was recoded already, and remembers it.
    pub encoding: Option<String>,
}

impl Format {
    /// How the file is cut.
    #[must_use]
    pub const fn dialect(&self) -> Dialect {
        Dialect { delimiter: self.delimiter, escape: self.escape }
    }

    /// What a run records of it besides the delimiter and the columns: the flags that change what is read.
    pub(super) fn flags(&self) -> BTreeMap<String, String> {
        let multiline = match self.multiline {
            Multiline::Judged => None,
            Multiline::Taken => Some(("multiline".to_owned(), String::new())),
        };
        let encoding = self.encoding.clone().map(|encoding| (ENCODING_FLAG.to_owned(), encoding));
        let escape = self.escape.map(|escape| (ESCAPE.to_owned(), char::from(escape).to_string()));
        let words = TagWord::recorded(&self.words).map(|words| (VALUE_FLAG.to_owned(), words));
        self.cells.flags().chain(multiline).chain(escape).chain(encoding).chain(words).collect()
    }
}

/// Who says what separates the fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DelimiterFrom {
    /// Whoever asks for the file to be read: a first line of the file that names another one (`sep=;`) is skipped.
    Asked,
    /// Nobody but the file's name: such a first line is heeded.
    Usual,
}

/// What is made of a file without a header, which has nothing in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoHeader {
    Refused,
    /// It is one without records.
    NoRecords,
}

/// What is made of a quoted field that runs over lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Multiline {
    /// Its record is invalid where the quote seems to have swallowed records.
    Judged,
    /// It is taken as it is.
    Taken,
}

impl Default for Format {
    fn default() -> Self {
        let (multiline, cells) = (Multiline::Judged, CellRules::default());
        Self {
            delimiter: b',',
            delimiter_from: DelimiterFrom::Usual,
            map: Vec::new(),
            tags: Vec::new(),
            words: Vec::new(),
            multiline,
            escape: None,
            cells,
            no_header: NoHeader::Refused,
            encoding: None,
        }
    }
}

/// The header's names and the columns that are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub names: ByteRecord,
    pub(super) user_id: usize,
    /// The name of that column.
    user_id_name: Box<[u8]>,
    pub(super) nick: Option<usize>,
    pub(super) face_url: Option<usize>,
    pub(super) tags: Vec<TagColumn>,
    /// Columns that nobody reads, though their names are near to a field that is mapped from none, or to a tag that nobody asks for.
    near: Vec<(ReadAs, usize)>,
    /// How many columns at its end are those of a rejects file, which nobody reads.
    pub(super) own: usize,
}

/// Why a header cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HeaderError {
    #[error("the file is empty: there is no header")]
    Missing,
    #[error("the file is UTF-16 or binary")]
    Utf16,
    #[error("the lines end in carriage returns alone")]
    CarriageReturns,
    #[error("{}", twice(*field, first, second))]
    Ambiguous { field: Field, first: String, second: String },
    /// `delimiter` is one that would find the column, or would at least find more than one.
    #[error("the header has no column {name:?}")]
    NoColumn { field: Field, name: String, delimiter: Option<u8> },
    #[error("--escape names the delimiter")]
    EscapeIsDelimiter,
    #[error("{field} is mapped twice")]
    MappedTwice { field: Field },
    #[error("the header has no column {name:?}")]
    NoColumnOfTag { tag: Tag, name: String },
    #[error("{tag} is to be read from two columns")]
    TagAskedTwice { tag: Tag },
    #[error("the header has two columns for {tag}: {first:?} and {second:?}")]
    TwoColumns { tag: Tag, first: String, second: String },
    #[error("the column {column:?} is to be read as {tag} and as something else")]
    ColumnTwice { column: String, tag: Tag },
    #[error("{found} columns are to be read as profile tags, at most {TAGS_MAX} are possible")]
    TooManyTags { found: usize },
    #[error("what {:?} stands for in {} is said twice", word.from, word.tag)]
    WordTwice { word: Box<TagWord> },
    #[error("there are words for {tag}, and no column of it")]
    NoColumnOfWord { tag: Tag },
}

impl Header {
    /// The columns of UserID, Nick and FaceUrl, counted from 0.
    pub(super) fn columns(&self) -> [Option<u32>; 3] {
        [Some(self.user_id), self.nick, self.face_url].map(|column| column.and_then(|column| u32::try_from(column).ok()))
    }

    /// Whether several lines each look like a record, but for those that are none in any file.
    pub(super) fn look_like_records<'a>(&self, lines: impl Iterator<Item = &'a [u8]>, delimiter: u8, rules: &CellRules) -> bool {
        let mut lines = lines.filter(|line| !is_blank(line, delimiter)).map(|line| self.looks_like_a_record(line, delimiter, rules));
        matches!((lines.next(), lines.next()), (Some(true), Some(true))) && lines.all(|is_one| is_one)
    }

    /// Whether a line, less the columns of a rejects file, cut at its delimiters without a look at quotes, has as many fields as the header and a valid UserID where it belongs.
    fn looks_like_a_record(&self, line: &[u8], delimiter: u8, rules: &CellRules) -> bool {
        let mut fields = line.split(|byte| *byte == delimiter);
        let user_id = fields.clone().nth(self.user_id).map(unquoted);
        fields.by_ref().count() == self.names.len() - self.own && user_id.is_some_and(|user_id| rules.valid_id(user_id).is_some())
    }

    /// Whether a record with as many fields is the header once more, as where files were put one behind the other.
    #[inline]
    pub(super) fn is_again(&self, user_id: &[u8], fields: &SplitFields) -> bool {
        user_id == &*self.user_id_name && self.has_names(fields)
    }

    #[cold]
    fn has_names(&self, fields: &SplitFields) -> bool {
        let first = fields.get(0).map(|first| first.strip_prefix("\u{feff}".as_bytes()).unwrap_or(first));
        let columns = self.names.len() - self.own;
        let others = (1..columns).map(|column| fields.get(column));
        std::iter::once(first).chain(others).eq(self.names.iter().take(columns).map(Some))
    }

    /// The header of a file that has none.
    pub(super) fn none() -> Self {
        Self {
            names: ByteRecord::new(),
            user_id: 0,
            user_id_name: Box::default(),
            nick: None,
            face_url: None,
            tags: Vec::new(),
            near: Vec::new(),
            own: 0,
        }
    }

    pub(super) fn new(names: ByteRecord, format: &Format) -> Result<Self, HeaderError> {
        for (at, (field, _)) in format.map.iter().enumerate() {
            if format.map[..at].iter().any(|(earlier, _)| earlier == field) {
                return Err(HeaderError::MappedTwice { field: *field });
            }
        }
        let user_id = user_id_column(&names, format)?;
        let nick = optional(&names, Field::Nick, format)?;
        let face_url = optional(&names, Field::FaceUrl, format)?;
        let fields = [Some(user_id), nick, face_url];
        let tags = tag_columns(&names, format, &fields)?;
        let is_read = |column: usize| fields.contains(&Some(column)) || tags.iter().any(|of| of.column == column);
        let own = own_columns(&names, is_read);
        let near = near_columns(&names, format, is_read);
        let user_id_name = names[user_id].into();
        Ok(Self { names, user_id, user_id_name, nick, face_url, tags, near, own })
    }

    /// Whether `names` have one column of the id.
    pub(super) fn has_user_id(names: &ByteRecord, format: &Format) -> bool {
        user_id_column(names, format).is_ok()
    }

    /// The fields with the names of the columns that they are read from.
    pub fn sources(&self) -> impl Iterator<Item = (Field, Option<&[u8]>)> {
        let columns = [Some(self.user_id), self.nick, self.face_url];
        Field::ALL.into_iter().zip(columns).map(|(field, column)| (field, column.and_then(|column| self.names.get(column))))
    }

    /// The tags that are read, with their columns, in the order of those that are asked for and then of the file.
    pub(super) fn tag_columns(&self) -> impl Iterator<Item = (&Tag, usize)> {
        self.tags.iter().map(|of| (&of.tag, of.column))
    }

    /// The tags that are read, in the order of [`RecordRef::tags`](super::RecordRef::tags).
    pub fn tags(&self) -> impl Iterator<Item = &Tag> {
        self.tag_columns().map(|(tag, _)| tag)
    }

    /// The tags with the names of the columns that they are read from.
    pub fn tag_sources(&self) -> impl Iterator<Item = (&Tag, &[u8])> {
        self.tag_columns().filter_map(|(tag, column)| Some((tag, self.names.get(column)?)))
    }

    fn is_read(&self, column: usize) -> bool {
        [Some(self.user_id), self.nick, self.face_url].contains(&Some(column)) || self.tags.iter().any(|of| of.column == column)
    }

    /// Whether a rejects file has a column of its own instead.
    pub(super) fn is_replaced(&self, column: usize) -> bool {
        !self.is_read(column) && self.names.get(column).is_some_and(|name| ERROR_COLUMNS.contains(&name))
    }

    /// How many columns nobody reads.
    #[must_use]
    pub fn ignored(&self) -> usize {
        (0..self.names.len()).filter(|column| !self.is_read(*column)).count()
    }

    /// Columns that nobody reads though their names are near to what nobody has said anything of, with that.
    pub fn near_misses(&self) -> impl Iterator<Item = (&ReadAs, &[u8])> {
        self.near.iter().filter_map(|(meant, column)| Some((meant, self.names.get(*column)?)))
    }
}

/// The columns that nobody reads though their names are near to a field, or to a tag, of which nobody says where it is read from.
fn near_columns(names: &ByteRecord, format: &Format, is_read: impl Fn(usize) -> bool) -> Vec<(ReadAs, usize)> {
    let is_open = |meant: &ReadAs| match meant {
        ReadAs::Field(field) => mapped(*field, format).is_none(),
        ReadAs::Tag(tag) => format.tags.iter().all(|(asked, _)| asked != tag),
    };
    let near = |name: &[u8]| near_field(name).map(ReadAs::Field).or_else(|| near_tag(name).map(ReadAs::Tag)).filter(is_open);
    let unread = names.iter().enumerate().filter(|(column, _)| !is_read(*column));
    unread.filter_map(|(column, name)| Some((near(name)?, column))).collect()
}

/// How many columns at the end are those of a rejects file: all of them or none.
fn own_columns(names: &ByteRecord, is_read: impl Fn(usize) -> bool) -> usize {
    let Some(before) = names.len().checked_sub(ERROR_COLUMNS.len()) else { return 0 };
    let is_any_read = (before..names.len()).any(is_read);
    if !is_any_read && names.iter().skip(before).eq(ERROR_COLUMNS) { ERROR_COLUMNS.len() } else { 0 }
}

/// The column of the id, which there must be.
fn user_id_column(names: &ByteRecord, format: &Format) -> Result<usize, HeaderError> {
    let name = mapped(Field::UserId, format);
    find(names, Field::UserId, name)?.ok_or_else(|| no_column(Field::UserId, name))
}

/// Nick and FaceUrl may be missing, unless they are mapped.
fn optional(names: &ByteRecord, field: Field, format: &Format) -> Result<Option<usize>, HeaderError> {
    match mapped(field, format) {
        Some("") => Ok(None),
        Some(name) => find(names, field, Some(name))?.map(Some).ok_or_else(|| no_column(field, Some(name))),
        None => find(names, field, None),
    }
}

fn mapped(field: Field, format: &Format) -> Option<&str> {
    format.map.iter().find(|(mapped, _)| *mapped == field).map(|(_, column)| column.as_str())
}

fn no_column(field: Field, name: Option<&str>) -> HeaderError {
    HeaderError::NoColumn { field, name: name.unwrap_or(field.name()).to_owned(), delimiter: None }
}

/// The one column that is a field's: of a mapped one that with this name, else those that are called so but for how the name is written, or as
/// the field is called in profiles, byte for byte.
fn find(names: &ByteRecord, field: Field, mapped: Option<&str>) -> Result<Option<usize>, HeaderError> {
    let ambiguous =
        |(first, second): (usize, usize)| HeaderError::Ambiguous { field, first: lossy(&names[first]), second: lossy(&names[second]) };
    if let Some(mapped) = mapped {
        return named(names, mapped).map_err(ambiguous);
    }
    let (own, in_profiles) = (loose(field.name().as_bytes()), field.profile().map(|profile| profile.spec().tag.as_bytes()));
    one_of(names, &|name| loose(name) == own || Some(name) == in_profiles).map_err(ambiguous)
}

/// The one column that a tag is to be read from, which there must be.
pub(super) fn column_named(names: &ByteRecord, tag: &Tag, name: &str) -> Result<usize, HeaderError> {
    let two = |(first, second): (usize, usize)| HeaderError::TwoColumns {
        tag: tag.clone(),
        first: lossy(&names[first]),
        second: lossy(&names[second]),
    };
    named(names, name).map_err(two)?.ok_or_else(|| HeaderError::NoColumnOfTag { tag: tag.clone(), name: name.to_owned() })
}

/// The one column with this very name, if there is any, else the one that is called so but for how the name is written.
fn named(names: &ByteRecord, name: &str) -> Result<Option<usize>, (usize, usize)> {
    let exactly = one_of(names, &|found| found == name.as_bytes())?;
    let name = loose(name.as_bytes());
    if exactly.is_some() || name.is_none() { Ok(exactly) } else { one_of(names, &|found| loose(found) == name) }
}

/// The one column with such a name; the first two, if there are several.
fn one_of(names: &ByteRecord, is_it: &dyn Fn(&[u8]) -> bool) -> Result<Option<usize>, (usize, usize)> {
    let before_own = names.len() - own_columns(names, |_| false);
    let all = || names.iter().enumerate().filter(|(_, name)| is_it(name)).map(|(column, _)| column);
    // A column that a rejects file has in addition is none of the input's, if that has one of this name.
    let others = || all().filter(|column| *column < before_own);
    let mut found = all().filter(|column| *column < before_own || others().next().is_none());
    match (found.next(), found.next()) {
        (Some(first), Some(second)) => Err((first, second)),
        (first, _) => Ok(first),
    }
}

/// A name but for case, white space and byte order marks around it, and `_`, `-` and blanks within; none where nothing is left.
pub(super) fn loose(name: &[u8]) -> Option<String> {
    let is_left = |char: &char| !char.is_whitespace() && !matches!(char, '_' | '-' | '\u{feff}');
    let text: String = std::str::from_utf8(name).ok()?.chars().filter(is_left).flat_map(char::to_lowercase).collect();
    (!text.is_empty()).then_some(text)
}

/// Names, loosely written, that exports give to what the service calls Nick and FaceUrl. Chosen: what the exports of common systems and
/// chat services have; a field is never read from such a column without being told to.
const NEAR_NICK: [&str; 9] = ["tagprofileimnick", "nickname", "displayname", "screenname", "name", "fullname", "昵称", "暱稱", "用户昵称"];
const NEAR_FACE_URL: [&str; 21] = [
    "tagprofileimimage",
    "face",
    "faceimage",
    "avatar",
    "avatarurl",
    "headurl",
    "head",
    "headimg",
    "headimgurl",
    "headimage",
    "portrait",
    "portraiturl",
    "portraituri",
    "photo",
    "photourl",
    "picture",
    "pictureurl",
    "头像",
    "头像地址",
    "头像链接",
    "頭像",
];

/// The field that a column's name is near to.
fn near_field(name: &[u8]) -> Option<Field> {
    let name = loose(name)?;
    if NEAR_NICK.contains(&name.as_str()) { Some(Field::Nick) } else { NEAR_FACE_URL.contains(&name.as_str()).then_some(Field::FaceUrl) }
}

fn twice(field: Field, first: &str, second: &str) -> String {
    if first == second {
        format!("the header has the column {first:?} twice")
    } else {
        format!("the header has two columns for {field}: {first:?} and {second:?}")
    }
}

/// A piece of a line less the quote at each of its ends; one of them may be on another line.
fn unquoted(piece: &[u8]) -> &[u8] {
    let piece = piece.strip_prefix(b"\"").unwrap_or(piece);
    piece.strip_suffix(b"\"").unwrap_or(piece)
}

fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
