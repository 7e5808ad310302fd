//! The flags that say which file is read, and how.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use encoding_rs::Encoding;

use crate::domain::account::Field;
use crate::io::source::encoding_of_label;

/// The input file and how it is read.
#[derive(Debug, Args)]
pub struct InputFlags {
    /// The CSV file: a header line, a UserID column, optionally Nick and FaceUrl
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Take a field from a column of another name; FIELD is UserID, Nick or FaceUrl, and `Nick=` reads none
    #[arg(long, value_name = "FIELD=COLUMN", value_parser = column_mapping)]
    pub map: Vec<(Field, String)>,
    /// What separates the fields: one character, or `tab` [default: a comma; a tab for *.tsv]
    #[arg(long, value_name = "C", value_parser = delimiter)]
    pub delimiter: Option<u8>,
    /// The encoding of a file that is not in UTF-8, by its name on the web: gb18030, big5, shift_jis, windows-1252, utf-16le …
    #[arg(long, value_name = "NAME", value_parser = encoding)]
    pub encoding: Option<&'static Encoding>,
    /// Take the meaning off the character behind this one, in quotes and outside; `\N` without quotes is an empty cell. For files in which
    /// quotes are not doubled but escaped: --escape '\'
    #[arg(long, value_name = "CHAR", value_parser = escape)]
    pub escape: Option<u8>,
    /// Take quoted fields that run over lines as they are, also where they look as if a quote had swallowed rows
    #[arg(long)]
    pub multiline: bool,
    /// Take white space off both ends of UserID, Nick and FaceUrl
    #[arg(long)]
    pub trim: bool,
    /// Read a UserID, Nick or FaceUrl that is this word as an empty one, e.g. NULL (repeatable)
    #[arg(long, value_name = "WORD")]
    pub null: Vec<String>,
    /// Send UserIDs of any printable text; the service decides which ones it takes [default: ASCII alone]
    #[arg(long, value_name = "any", hide_possible_values = true)]
    pub user_ids: Option<UserIdsFlag>,
    /// Send UserIDs that are UUIDs of 36 characters without their hyphens; these 32 characters then are the account's id
    #[arg(long)]
    pub compact_uuid: bool,
}

/// Which UserIDs are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum UserIdsFlag {
    #[value(hide = true)]
    Any,
}

impl InputFlags {
    /// A file, and nothing said of it.
    #[must_use]
    pub fn bare(file: PathBuf) -> Self {
        let (map, null) = (Vec::new(), Vec::new());
        Self {
            file,
            map,
            delimiter: None,
            encoding: None,
            escape: None,
            multiline: false,
            trim: false,
            null,
            user_ids: None,
            compact_uuid: false,
        }
    }
}

pub(super) fn column_mapping(text: &str) -> Result<(Field, String), String> {
    let (name, column) = text.split_once('=').ok_or("it must read FIELD=COLUMN")?;
    let field = Field::ALL.into_iter().find(|field| field.name() == name);
    match field {
        Some(Field::UserId) if column.is_empty() => Err("UserID must be read from a column".to_owned()),
        Some(field) => Ok((field, column.to_owned())),
        None => Err(format!("{name:?} is no field; the fields are UserID, Nick and FaceUrl")),
    }
}

pub(super) fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        _ if text == "tab" || text == "\\t" => Ok(b'\t'),
        [b'"' | b'\n' | b'\r'] => Err("a quote or a line end cannot separate fields".to_owned()),
        [one] if one.is_ascii() => Ok(*one),
        _ => Err("it must be one ASCII character, or `tab`".to_owned()),
    }
}

pub(super) fn encoding(text: &str) -> Result<&'static Encoding, String> {
    let unknown = || "it is no name of an encoding; some are gb18030, big5, shift_jis, euc-kr, windows-1252, utf-16le".to_owned();
    encoding_of_label(text).ok_or_else(unknown)
}

pub(super) fn escape(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [one] if one.is_ascii_punctuation() && *one != b'"' => Ok(*one),
        _ => Err("it must be one character of punctuation, and no quote: '\\' for a backslash".to_owned()),
    }
}
