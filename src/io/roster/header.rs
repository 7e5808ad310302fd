//! The header: which column is which field, and whether the file is what it claims to be.

use csv::ByteRecord;
use thiserror::Error;

use crate::domain::account::{Field, UserId};

/// How the file is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    pub delimiter: u8,
    /// Columns to take fields from, where they are named otherwise.
    pub map: Vec<(Field, String)>,
    pub multiline: Multiline,
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
        Self { delimiter: b',', map: Vec::new(), multiline: Multiline::Judged }
    }
}

/// The header's names and the columns that are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub names: ByteRecord,
    pub(super) user_id: usize,
    pub(super) nick: Option<usize>,
    pub(super) face_url: Option<usize>,
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
    #[error("the header has the column {name:?} twice")]
    Duplicate { name: String },
    #[error("the header has no column {name:?}")]
    NoColumn { field: Field, name: String, similar: Option<String>, columns: usize },
    #[error("{field} is mapped twice")]
    MappedTwice { field: Field },
}

impl Header {
    /// The columns of UserID, Nick and FaceUrl, counted from 0.
    pub(super) fn columns(&self) -> [Option<u32>; 3] {
        [Some(self.user_id), self.nick, self.face_url].map(|column| column.and_then(|column| u32::try_from(column).ok()))
    }

    /// Whether a line, cut at its delimiters without a look at quotes, has as many fields as the header and a valid UserID where it belongs.
    pub(super) fn looks_like_a_record(&self, line: &[u8], delimiter: u8) -> bool {
        let mut fields = line.split(|byte| *byte == delimiter);
        let user_id = fields.clone().nth(self.user_id).map(unquoted);
        fields.by_ref().count() == self.names.len() && user_id.is_some_and(|user_id| UserId::check(user_id).is_ok())
    }

    pub(super) fn new(names: ByteRecord, format: &Format) -> Result<Self, HeaderError> {
        if let Some(name) = duplicate(&names) {
            return Err(HeaderError::Duplicate { name: lossy(name) });
        }
        for (at, (field, _)) in format.map.iter().enumerate() {
            if format.map[..at].iter().any(|(earlier, _)| earlier == field) {
                return Err(HeaderError::MappedTwice { field: *field });
            }
        }
        let user_id = required(&names, Field::UserId, column_name(Field::UserId, format))?;
        let nick = optional(&names, Field::Nick, format)?;
        let face_url = optional(&names, Field::FaceUrl, format)?;
        Ok(Self { names, user_id, nick, face_url })
    }
}

/// A piece of a line less the quote at each of its ends; one of them may be on another line.
fn unquoted(piece: &[u8]) -> &[u8] {
    let piece = piece.strip_prefix(b"\"").unwrap_or(piece);
    piece.strip_suffix(b"\"").unwrap_or(piece)
}

/// A name that stands twice; nameless columns (a trailing comma in an export) don't count.
fn duplicate(names: &ByteRecord) -> Option<&[u8]> {
    names
        .iter()
        .enumerate()
        .find(|(at, name)| !name.is_empty() && names.iter().take(*at).any(|earlier| earlier == *name))
        .map(|(_, name)| name)
}

fn column_name(field: Field, format: &Format) -> &str {
    format.map.iter().find(|(mapped, _)| *mapped == field).map_or(field.name(), |(_, column)| column)
}

fn required(names: &ByteRecord, field: Field, name: &str) -> Result<usize, HeaderError> {
    names.iter().position(|found| found == name.as_bytes()).ok_or_else(|| {
        let similar = names.iter().map(lossy).find(|found| found.trim_matches([' ', '\u{feff}']).eq_ignore_ascii_case(name));
        HeaderError::NoColumn { field, name: name.to_owned(), similar, columns: names.len() }
    })
}

/// Nick and FaceUrl may be missing, unless they are mapped.
fn optional(names: &ByteRecord, field: Field, format: &Format) -> Result<Option<usize>, HeaderError> {
    let is_mapped = format.map.iter().any(|(mapped, _)| *mapped == field);
    match required(names, field, column_name(field, format)) {
        Ok(column) => Ok(Some(column)),
        Err(error) if is_mapped => Err(error),
        Err(_) => Ok(None),
    }
}

fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
