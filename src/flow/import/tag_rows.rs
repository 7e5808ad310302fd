//! The tags of each record of a file by their hashes, in an unnamed file: most are never looked at again.

use std::io;
use std::path::Path;

use crate::domain::guard::Filled;
use crate::domain::known_tags::{RecordTags, TagHash, TagKey, TagsDigest};
use crate::domain::tag::{Tag, TagValueRef};
use crate::io::extsort::ScratchRows;

/// The tags of each record. Without tags there is nothing, and it costs nothing.
#[derive(Debug)]
pub struct TagRows {
    tags: Vec<(Tag, TagKey)>,
    rows: Option<ScratchRows>,
    /// A row that is read.
    row: Vec<u8>,
}

impl TagRows {
    /// For records of which these tags are read, in the order of their columns.
    ///
    /// # Errors
    /// [`io::Error`] if no file can be made in `folder`.
    pub fn in_folder(folder: &Path, tags: impl IntoIterator<Item = Tag>) -> io::Result<Self> {
        let tags: Vec<(Tag, TagKey)> = tags.into_iter().map(|tag| (tag.clone(), TagKey::of(&tag))).collect();
        let file = if tags.is_empty() { None } else { Some(tempfile::tempfile_in(folder)?) };
        let rows = file.map(|file| ScratchRows::new(file, 8 * tags.len()));
        Ok(Self { tags, rows, row: Vec::new() })
    }

    /// The tags that are read, in the order of their columns, with what tells them apart.
    #[must_use]
    pub fn tags(&self) -> &[(Tag, TagKey)] {
        &self.tags
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.tags.is_empty()
    }

    /// Appends the next record's tags, one for each column, and counts them.
    ///
    /// # Errors
    /// [`io::Error`] if the file cannot be written.
    #[inline]
    pub fn push<'a>(&mut self, said: impl Iterator<Item = Option<TagValueRef<'a>>>, filled: &mut Filled) -> io::Result<TagsDigest> {
        let Self { tags, rows: Some(rows), .. } = self else { return Ok(TagsDigest::default()) };
        let mut digest = TagsDigest::default();
        rows.push(|row| {
            for (((_, key), (_, count)), value) in tags.iter().zip(&mut filled.tags).zip(said) {
                let hash = value.map(TagHash::of);
                *count += u64::from(hash.is_some());
                digest = hash.map_or(digest, |hash| digest.with(*key, hash));
                row.extend_from_slice(&hash.map_or(0, TagHash::bits).to_be_bytes());
            }
        })?;
        Ok(digest)
    }

    /// Appends a record that has none.
    ///
    /// # Errors
    /// [`io::Error`] if the file cannot be written.
    pub fn push_none(&mut self) -> io::Result<()> {
        self.rows.as_mut().map_or(Ok(()), ScratchRows::push_zeros)
    }

    /// The tags of the record in this row, counted from 1.
    ///
    /// # Errors
    /// [`io::Error`] if the file cannot be read.
    pub fn read(&mut self, row: u64) -> io::Result<RecordTags> {
        let Some(rows) = &mut self.rows else { return Ok(RecordTags::default()) };
        rows.read(row, &mut self.row)?;
        Ok(RecordTags::from_bytes(&self.row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tags_of_each_record_are_read_as_they_were_written_and_counted() {
        let tags = [Tag::Level, Tag::Gender, Tag::parse("Custom.Vip").unwrap()];
        let mut filled = Filled { tags: tags.iter().map(|tag| (tag.clone(), 0)).collect(), ..Filled::default() };
        let mut rows = TagRows::in_folder(&std::env::temp_dir(), tags.clone()).unwrap();
        let said = |texts: [Option<&'static str>; 3]| texts.into_iter().map(|text| text.map(TagValueRef::Text));
        let one = rows.push(said([Some("1"), None, Some("x")]), &mut filled).unwrap();
        rows.push_none().unwrap();
        let same = rows.push(said([Some("1"), None, Some("x")]), &mut filled).unwrap();
        let other = rows.push(said([Some("x"), None, Some("1")]), &mut filled).unwrap();
        assert!(one == same && one != other);
        assert_eq!(filled.tags.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [3, 0, 3]);
        let hash = |text| TagHash::of(TagValueRef::Text(text));
        assert_eq!(rows.read(4).unwrap().iter().collect::<Vec<_>>(), [(0, hash("x")), (2, hash("1"))]);
        assert!(rows.read(2).unwrap().present().is_empty());
    }

    #[test]
    fn a_file_without_tags_has_no_rows() {
        let mut rows = TagRows::in_folder(Path::new("/nowhere"), []).unwrap();
        assert_eq!(rows.push(std::iter::empty(), &mut Filled::default()).unwrap(), TagsDigest::default());
        rows.push_none().unwrap();
        assert_eq!(rows.read(1).unwrap(), RecordTags::default());
    }
}
