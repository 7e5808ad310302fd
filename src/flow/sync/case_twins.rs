//! UserIDs of a file that differ only in case, found in the order of ids in which the plan is made anyway.
//!
//! Where no two ids can be twins, which one look at each tells, nothing more is done.

use std::io;
use std::path::Path;

use super::record_digest::{RecordDigest, RecordTag};
use crate::domain::oddity::OddPlace;
use crate::flow::check::{Capitals, IdSorter};
use crate::io::extsort::{ScratchList, take};

/// Bytes of a row and of a line.
const CHANGE: usize = 8 + 8;

/// Takes a look at the ids in the order of the file.
#[derive(Debug)]
pub(super) struct CaseTwinSearch {
    capitals: Capitals,
    /// The places of records in front of which there is another number of further lines than before.
    changes: ScratchList<CHANGE>,
    /// How many more lines than rows there are in front of the last one.
    further_lines: u64,
}

impl CaseTwinSearch {
    pub(super) fn new(changes: ScratchList<CHANGE>) -> Self {
        Self { capitals: Capitals::default(), changes, further_lines: 0 }
    }

    /// Takes the id of a valid record.
    ///
    /// # Errors
    /// The disk's.
    #[inline]
    pub(super) fn see(&mut self, id: &str, place: OddPlace) -> io::Result<()> {
        self.capitals.see(id);
        if place.line - place.row == self.further_lines { Ok(()) } else { self.further_lines_are(place) }
    }

    #[cold]
    fn further_lines_are(&mut self, place: OddPlace) -> io::Result<()> {
        self.further_lines = place.line - place.row;
        let mut bytes = [0; CHANGE];
        bytes[..8].copy_from_slice(&place.row.to_be_bytes());
        bytes[8..].copy_from_slice(&self.further_lines.to_be_bytes());
        self.changes.push(&bytes)
    }

    /// Who sorts the ids once more, if there may be twins.
    pub(super) fn sorter(&self, folder: &Path) -> Option<CaseTwinSorter> {
        match self.capitals {
            Capitals::NoLetters | Capitals::Alike(_) => None,
            Capitals::Unlike => {
                let folder = folder.to_owned();
                Some(CaseTwinSorter(IdSorter::new(Box::new(move || tempfile::tempfile_in(&folder)))))
            }
        }
    }

    /// How many twins there are, and the places of the first.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn found(mut self, sorter: Option<CaseTwinSorter>) -> io::Result<(u64, Vec<OddPlace>)> {
        let Some(CaseTwinSorter(sorter)) = sorter else { return Ok((0, Vec::new())) };
        let twins = sorter.finish(|_, _| ())?;
        let mut first: Vec<OddPlace> = twins.first.into_iter().collect();
        if twins.count > 0 {
            self.add_lines(&mut first)?;
        }
        Ok((twins.count, first))
    }

    /// Adds the lines to places in the order of their rows.
    fn add_lines(&mut self, places: &mut [OddPlace]) -> io::Result<()> {
        let mut changes = self.changes.read()?.map(|bytes| bytes.map(|bytes| change(&bytes)));
        let mut next = changes.next().transpose()?;
        let mut further_lines = 0;
        for place in places {
            while let Some((row, lines)) = next
                && row <= place.row
            {
                further_lines = lines;
                next = changes.next().transpose()?;
            }
            place.line = place.row + further_lines;
        }
        Ok(())
    }
}

fn change(bytes: &[u8; CHANGE]) -> (u64, u64) {
    let mut rest = bytes.as_slice();
    (u64::from_be_bytes(take(&mut rest)), u64::from_be_bytes(take(&mut rest)))
}

/// Sorts ids by their lower case.
pub(super) struct CaseTwinSorter(IdSorter);

impl CaseTwinSorter {
    /// Takes a record in any order.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn push(&mut self, digest: &RecordDigest) -> io::Result<()> {
        match digest.tag {
            RecordTag::Valid => self.0.push(digest.id.as_str(), OddPlace { row: digest.row, line: 0 }),
            RecordTag::Invalid | RecordTag::Sent | RecordTag::Back | RecordTag::SentBack => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::change::{PaddedId, ProfileHashes};
    use crate::domain::known_tags::TagsDigest;

    #[test]
    fn twins_are_told_with_their_lines() {
        let check = |ids: &[(&str, u64)], expected: &[(u64, u64)]| {
            let folder = tempfile::tempdir().unwrap();
            let mut search = CaseTwinSearch::new(ScratchList::new(tempfile::tempfile().unwrap()));
            (1..).zip(ids).for_each(|(row, (id, line))| search.see(id, OddPlace { row, line: *line }).unwrap());
            let mut sorter = search.sorter(folder.path());
            let digest = |row, id: &str| RecordDigest {
                id: PaddedId::new(id.as_bytes()),
                row,
                tag: RecordTag::Valid,
                profile: ProfileHashes::default(),
                tags: TagsDigest::default(),
            };
            if let Some(sorter) = &mut sorter {
                (1..).zip(ids).for_each(|(row, (id, _))| sorter.push(&digest(row, id)).unwrap());
            }
            let (count, first) = search.found(sorter).unwrap();
            assert_eq!(
                (count, first.iter().map(|place| (place.row, place.line)).collect::<Vec<_>>()),
                (expected.len() as u64, expected.to_vec())
            );
        };
        check(&[("a", 2), ("b", 3), ("a", 4)], &[]);
        check(&[("a", 2), ("A", 3)], &[(2, 3)]);
        check(&[("a", 2), ("b", 5), ("A", 6), ("c", 9), ("B", 10), ("C", 12)], &[(3, 6), (5, 10), (6, 12)]);
        check(&[("User", 1), ("User", 2), ("useR", 3)], &[(3, 3)]);
    }
}
