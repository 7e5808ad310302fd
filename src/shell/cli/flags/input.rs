//! The flags that say which file is read, and how.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use encoding_rs::Encoding;

use crate::domain::account::Field;
use crate::domain::tag::Tag;
use crate::domain::tag_words::{TagWord, UnknownTag};
use crate::io::source::encoding_of_label;

/// The input file and how it is read.
#[derive(Debug, Args)]
pub struct InputFlags {
    /// The CSV file: a header line, a UserID column, optionally Nick and FaceUrl
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Read a field from a column with another name; FIELD is UserID, Nick or FaceUrl; `Nick=` reads no Nick (repeatable)
    #[arg(long, value_name = "FIELD=COLUMN", value_parser = column_mapping)]
    pub map: Vec<(Field, String)>,
    /// Set a tag of the profile from a column; TAG is Gender, BirthDay, Location, SelfSignature, AllowType, Language, MsgSettings,
    /// AdminForbidType, Level, Role, Custom.KEY, or its full name on the wire; `Gender=` reads no Gender (repeatable). A column with a full
    /// name (Tag_Profile_IM_Gender, Tag_Profile_Custom_KEY) is read without this flag. Each row with such a cell takes one more request
    /// (`portrait_set`, 200 a second). The service pushes the changed profile to clients and calls the webhook "After a Profile Is Updated"
    #[arg(long, value_name = "TAG=COLUMN", value_parser = profile_column)]
    pub profile: Vec<(Tag, String)>,
    /// Read a cell of a tag that is the word FROM as TO, for example Gender:1=male; `BirthDay:0000-00-00=` reads it as empty (repeatable)
    #[arg(long, value_name = "TAG:FROM=TO", value_parser = tag_word)]
    pub value: Vec<TagWord>,
    /// The character between the fields, or `tab` [default: a comma; a tab for *.tsv]
    #[arg(long, value_name = "C", value_parser = delimiter)]
    pub delimiter: Option<u8>,
    /// The encoding of a file that is not UTF-8, by its name on the web: gb18030, big5, shift_jis, windows-1252, utf-16le …
    #[arg(long, value_name = "NAME", value_parser = encoding)]
    pub encoding: Option<&'static Encoding>,
    /// The escape character of a file in which quotes are escaped instead of doubled: --escape '\'. It works inside and outside quotes, and
    /// `\N` without quotes is an empty cell
    #[arg(long, value_name = "CHAR", value_parser = escape)]
    pub escape: Option<u8>,
    /// Accept quoted fields of several lines, even if they look as if a quote had swallowed rows
    #[arg(long)]
    pub multiline: bool,
    /// Remove white space from both ends of every cell that is read
    #[arg(long)]
    pub trim: bool,
    /// Read a cell that is this word as an empty cell, for example NULL (repeatable)
    #[arg(long, value_name = "WORD")]
    pub null: Vec<String>,
    /// Send UserIDs of any printable text; the service decides which ones it accepts [default: ASCII only]
    #[arg(long, value_name = "any", hide_possible_values = true)]
    pub user_ids: Option<UserIdsFlag>,
    /// Send UserIDs that are UUIDs (36 characters) without their hyphens; these 32 characters are then the UserID of the account
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
        let (map, profile, value, null) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self {
            file,
            map,
            profile,
            value,
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

pub(super) fn profile_column(text: &str) -> Result<(Tag, String), String> {
    let (name, column) = text.split_once('=').ok_or("it must read TAG=COLUMN")?;
    let of_field = Field::ALL.into_iter().find(|field| {
        let in_profiles = field.profile().map(|profile| profile.spec().tag);
        field.name() == name || in_profiles == Some(name)
    });
    match (Tag::parse(name), of_field) {
        (Some(tag), _) => Ok((tag, column.to_owned())),
        (None, Some(field)) => Err(format!("{name:?} is no tag; --map {field}=COLUMN reads it")),
        (None, None) => Err(UnknownTag(name.to_owned()).to_string()),
    }
}

pub(super) fn tag_word(text: &str) -> Result<TagWord, String> {
    TagWord::parse(text).map_err(|why| why.to_string())
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
