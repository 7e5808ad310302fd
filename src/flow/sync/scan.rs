//! The pass over the file: each record becomes a `RecordDigest` of fixed size, sorted by its id.

use std::fmt;
use std::io::Read;

use super::case_twins::CaseTwinSearch;
use super::digests::{DigestSorter, HasTags, SortedDigests};
use super::planning::{PlanError, Scratch, Step, TELL_EVERY};
use super::record_digest::{RecordDigest, RecordTag};
use crate::domain::change::{Op, Ops, PaddedId, ProfileHashes};
use crate::domain::figures;
use crate::domain::guard::Filled;
use crate::domain::known_tags::TagsDigest;
use crate::domain::oddity::{OddPlace, OddityCounts};
use crate::domain::position::FileStat;
use crate::flow::import::TagRows;
use crate::io::roster::{Malformed, RecordRef, Roster};
use crate::io::state::RunInput;

/// A file that was read.
#[derive(Debug)]
pub struct Scan {
    pub(super) digests: SortedDigests,
    pub(super) tags: TagRows,
    pub(super) ops: Ops,
    pub(super) filled: Filled,
    pub(super) malformed: Option<MalformedRecords>,
    pub(super) oddities: OddityCounts,
    pub(super) twins: CaseTwinSearch,
    pub(super) input: RunInput,
}

/// Records whose UserID can't be read for certain: whoever is in them may count as missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MalformedRecords {
    pub records: u64,
    /// Where the first of them is, and what is wrong with it.
    pub first: String,
}

impl fmt::Display for MalformedRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, the first in {}", figures::counted(self.records, "row"), self.first)
    }
}

impl MalformedRecords {
    fn count(found: &mut Option<Self>, view: &RecordRef, why: Malformed) {
        let first = || format!("row {} (line {}): {why}", view.row, view.line);
        found.get_or_insert_with(|| Self { records: 0, first: first() }).records += 1;
    }
}

/// Reads the whole file.
///
/// # Errors
/// [`PlanError`] for a file that can't be read to its end, or a full disk.
pub fn scan(roster: &mut Roster<impl Read>, stat: FileStat, scratch: &mut Scratch) -> Result<Scan, PlanError> {
    let cannot = scratch.cannot_write();
    let mut tags = TagRows::in_folder(&scratch.folder, roster.header().tags().cloned()).map_err(&cannot)?;
    let has_tags = if tags.is_empty() { HasTags::No } else { HasTags::Yes };
    let mut sorter = DigestSorter::in_folder(&scratch.folder, has_tags);
    let mut twins = CaseTwinSearch::new(scratch.list()?);
    let (mut ops, mut filled, mut malformed, mut oddities) =
        (Ops::default(), Filled::of(roster.header().tags().cloned()), None, OddityCounts::default());
    while let Some(view) = roster.next_view() {
        let view = view?;
        oddities.invalid.see(view.account.as_ref().err());
        let (tag, profile, tags_digest) = if let Ok(account) = &view.account {
            filled.count(account.profile());
            let place = OddPlace { row: view.row, line: view.line };
            oddities.see(account, view.suspects, place);
            twins.see(account.user_id, place).map_err(&cannot)?;
            let said = view.tag_cells().map(|(tag, value)| {
                oddities.see_tags(value.map(|value| (tag, value)).into_iter(), place);
                value
            });
            let tags_digest = tags.push(said, &mut filled).map_err(&cannot)?;
            (RecordTag::Valid, ProfileHashes::of(account.profile()), tags_digest)
        } else {
            tags.push_none().map_err(&cannot)?;
            (RecordTag::Invalid, ProfileHashes::default(), TagsDigest::default())
        };
        if let Some(why) = view.malformed() {
            MalformedRecords::count(&mut malformed, &view, why);
        }
        ops.push(if tag == RecordTag::Valid { Op::Unchanged } else { Op::Invalid });
        if let Some(id) = view.valid_id() {
            let digest = RecordDigest { id: PaddedId::new(id), row: view.row, tag, profile, tags: tags_digest };
            sorter.push(digest).map_err(&cannot)?;
        }
        if view.row.is_multiple_of(TELL_EVERY) && (scratch.tell)(Step::Read(view.end.offset)).is_break() {
            return Err(PlanError::Stopped);
        }
    }
    let end = roster.at();
    let input = RunInput { len: end.offset, digest: end.digest, stat };
    Ok(Scan { digests: sorter.finish().map_err(&cannot)?, tags, ops, filled, malformed, oddities, twins, input })
}
