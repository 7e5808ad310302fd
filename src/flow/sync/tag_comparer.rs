//! Compares the tags of records with those that a state knows.

use std::io;

use crate::domain::change::{InDoubt, KnownAccount, TagComparison};
use crate::domain::guard::NewColumns;
use crate::domain::known_tags::{TagKey, TagNumber, TagSet, TagsDigest};
use crate::domain::op::Update;
use crate::domain::tag::Tag;
use crate::flow::import::TagRows;

/// Knows which of the state's tags are in which of a run's columns.
#[derive(Debug, Default)]
pub(super) struct TagComparer {
    /// The place of each tag that the run reads, and what tells it apart, by the state's numbers.
    columns: Vec<Option<(usize, TagKey)>>,
    /// Tags that the last finished run did not read.
    new: TagSet,
    pub(super) new_columns: NewColumns,
}

impl TagComparer {
    /// `known` are the tags that the state knows, `read_before` those that the last finished run has read.
    pub(super) fn new(rows: &TagRows, known: &[(TagNumber, Tag)], read_before: &[Tag]) -> Self {
        let mut columns = Vec::new();
        for (number, tag) in known {
            let Some(place) = rows.tags().iter().position(|(read, _)| read == tag) else { continue };
            let index = usize::from(number.get());
            columns.resize(columns.len().max(index + 1), None);
            columns[index] = Some((place, rows.tags()[place].1));
        }
        let is_new = |tag: &Tag| !read_before.contains(tag);
        let new: TagSet = rows.tags().iter().enumerate().filter(|(_, (tag, _))| is_new(tag)).map(|(place, _)| place).collect();
        let new_columns = NewColumns { updates: 0, tags: new.iter().map(|place| (rows.tags()[place].0.clone(), 0)).collect() };
        Self { columns, new, new_columns }
    }

    #[inline]
    fn column(&self, number: TagNumber) -> Option<(usize, TagKey)> {
        self.columns.get(usize::from(number.get())).copied().flatten()
    }

    /// Compares the tags of the record in this row, which come to `digest` in all. Only those of records that differ are looked up.
    #[inline]
    pub(super) fn compare(
        &self,
        rows: &mut TagRows,
        (row, digest): (u64, TagsDigest),
        held: Option<&KnownAccount>,
    ) -> io::Result<TagComparison> {
        let Some(held) = held.filter(|_| !rows.is_empty()) else { return Ok(TagComparison::default()) };
        let (mut known, mut is_open) =
            (TagsDigest::default(), held.in_doubt.has(InDoubt::EXISTENCE) || held.in_doubt.has(InDoubt::DELETION));
        for tag in held.tags.iter() {
            if let Some((_, key)) = self.column(tag.number) {
                is_open |= tag.in_doubt;
                known = tag.hash.map_or(known, |hash| known.with(key, hash));
            }
        }
        if known == digest && !is_open { Ok(TagComparison::default()) } else { self.compare_each(rows, row, held) }
    }

    #[cold]
    fn compare_each(&self, rows: &mut TagRows, row: u64, held: &KnownAccount) -> io::Result<TagComparison> {
        let record = rows.read(row)?;
        let mut known = vec![None; rows.tags().len()];
        held.tags.iter().for_each(|tag| self.column(tag.number).map_or((), |(place, _)| known[place] = Some(*tag)));
        let mut tags = TagComparison::default();
        for (place, hash) in record.iter() {
            tags.present = tags.present.with(place);
            if known[place].is_none_or(|tag| tag.hash != Some(hash)) {
                tags.differing = tags.differing.with(place);
            }
            if known[place].is_some_and(|tag| tag.in_doubt) {
                tags.in_doubt = tags.in_doubt.with(place);
            }
        }
        Ok(tags)
    }

    /// Counts an update that may be due to a new column.
    #[inline]
    pub(super) fn count(&mut self, update: &Update) {
        if update.differing.is_empty() || self.new_columns.tags.is_empty() {
            return;
        }
        for (place, (_, count)) in self.new.iter().zip(&mut self.new_columns.tags) {
            *count += u64::from(update.differing.has(place));
        }
        let is_in_doubt = !update.in_doubt.is_nothing() || update.tags != update.differing;
        let has_no_other_reason = update.fields.is_empty() && update.differing.is_within(self.new) && !is_in_doubt;
        self.new_columns.updates += u64::from(has_no_other_reason);
    }
}
