//! How many records have cells in the columns of tags.

use crate::domain::tag::Tag;
use crate::io::roster::Header;

/// Valid records with such cells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileCells {
    pub records: u64,
    /// The tags in the order of their columns as the header has them, each with its cells.
    pub of_tags: Vec<(Tag, u64)>,
    has_any: bool,
}

impl ProfileCells {
    /// Nothing is counted yet; `None` for a file without columns of tags.
    #[must_use]
    pub fn of(header: &Header) -> Option<Self> {
        let of_tags: Vec<(Tag, u64)> = header.tag_sources().map(|(tag, _)| (tag.clone(), 0)).collect();
        (!of_tags.is_empty()).then_some(Self { records: 0, of_tags, has_any: false })
    }

    /// Counts a cell of the current record.
    pub(super) fn count(&mut self, tag: &Tag) {
        self.has_any = true;
        if let Some((_, cells)) = self.of_tags.iter_mut().find(|(known, _)| known == tag) {
            *cells += 1;
        }
    }

    /// Counts the current record, if it has such a cell.
    pub(super) fn end_record(&mut self) {
        self.records += u64::from(std::mem::take(&mut self.has_any));
    }
}
