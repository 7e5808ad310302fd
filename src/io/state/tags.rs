//! The tags that a state has ever known, each with a number of its own.

use std::io;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{ChangeError, StateDb, StateError};
use crate::domain::known_tags::{KnownTags, RecordTags, TagHash, TagNumber};
use crate::domain::tag::Tag;

impl StateDb {
    /// The tags that the state knows, with their numbers.
    ///
    /// # Errors
    /// The database's, as everywhere here.
    pub fn known_tags(&self) -> Result<Vec<(TagNumber, Tag)>, StateError> {
        known(&self.db).map_err(self.cannot("read"))
    }
}

fn known(db: &Connection) -> rusqlite::Result<Vec<(TagNumber, Tag)>> {
    let mut query = db.prepare("SELECT number, name FROM tags ORDER BY number")?;
    let mut rows = query.query([])?;
    let mut tags = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(1)?;
        tags.extend(TagNumber::new(row.get(0)?).zip(Tag::of_wire_name(&name)));
    }
    Ok(tags)
}

/// The numbers of these tags, in their order; those that are new get one.
pub(super) fn numbers(change: &Transaction, tags: impl IntoIterator<Item = Tag>) -> Result<Vec<TagNumber>, ChangeError> {
    let mut find = change.prepare("SELECT number FROM tags WHERE name = ?1")?;
    let mut insert = change.prepare("INSERT INTO tags (number, name) VALUES ((SELECT coalesce(max(number) + 1, 0) FROM tags), ?1)")?;
    let mut number = |tag: Tag| {
        let name = tag.wire_name();
        let known: Option<i64> = find.query_row([&name], |row| row.get(0)).optional()?;
        let number = match known {
            Some(number) => number,
            None => insert.insert(params![name])?,
        };
        let full = || io::Error::new(io::ErrorKind::QuotaExceeded, format!("a state knows no more tags: {tag} is one too many"));
        TagNumber::new(number).ok_or_else(|| ChangeError::Source(full()))
    };
    tags.into_iter().map(&mut number).collect()
}

/// The tags of a record by the state's numbers, of those that its run reads.
pub(super) fn numbered(tags: &RecordTags, numbers: &[TagNumber]) -> Vec<(TagNumber, TagHash)> {
    tags.iter().filter_map(|(place, hash)| numbers.get(place).map(|number| (*number, hash))).collect()
}

/// Tags as a column has them: nothing, if there are none.
pub(super) fn column(tags: &KnownTags) -> Option<Vec<u8>> {
    (!tags.is_empty()).then(|| tags.to_bytes())
}
