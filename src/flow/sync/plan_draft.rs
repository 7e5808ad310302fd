//! A plan in temporary files, before the state takes it.

use std::io;

use super::lookalikes::Lookalikes;
use super::record_digest::{DIGEST_BYTES, MISSING_BYTES, RecordDigest, missing_from_bytes};
use super::scan::MalformedRecords;
use crate::domain::change::{MissingAccount, Op, Ops, PaddedId, PlanCounts, PlannedAccount};
use crate::domain::guard::{Filled, NewColumns};
use crate::domain::known_tags::{RecordTags, TagsDigest};
use crate::domain::oddity::OddityCounts;
use crate::domain::tag::Tag;
use crate::flow::import::TagRows;
use crate::io::extsort::ScratchList;
use crate::io::state::RunInput;

/// The requests that a plan takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PlannedRequests {
    /// Records whose account is imported.
    pub imports: u64,
    /// Records whose tags are set.
    pub profiles: u64,
}

impl PlannedRequests {
    pub(super) fn count(&mut self, op: Op, digest: &RecordDigest) {
        let has_tags = if op == Op::Create { digest.tags != TagsDigest::default() } else { !op.tags().is_empty() };
        self.imports += u64::from(op.imports());
        self.profiles += u64::from(has_tags);
    }
}

/// A plan. It stands in temporary files until the state takes it.
#[derive(Debug)]
pub struct PlanDraft {
    pub ops: Ops,
    pub counts: PlanCounts,
    pub filled: Filled,
    /// The last finished run's.
    pub filled_before: Option<Filled>,
    pub distinct: u64,
    pub held: u64,
    /// Accounts of those that are held that have a valid record.
    pub present: u64,
    /// Ids that are due for a kick or deletion.
    pub due: u64,
    pub malformed: Option<MalformedRecords>,
    /// Of the file; whoever compares it with the state may add to them.
    pub oddities: OddityCounts,
    pub lookalikes: Lookalikes,
    pub dead_canaries: Vec<PaddedId>,
    pub input: RunInput,
    /// Updates for tags that the last finished run did not read.
    pub new_columns: NewColumns,
    pub requests: PlannedRequests,
    pub(super) tags: TagRows,
    pub(super) planned: ScratchList<DIGEST_BYTES>,
    pub(super) missing: ScratchList<MISSING_BYTES>,
}

impl PlanDraft {
    /// The tags that are read, in the order of their columns.
    pub fn tags(&self) -> impl Iterator<Item = &Tag> {
        self.tags.tags().iter().map(|(tag, _)| tag)
    }

    /// What is missing, in order of ids.
    ///
    /// # Errors
    /// The disk's.
    pub fn missing(&mut self) -> io::Result<impl Iterator<Item = io::Result<MissingAccount>>> {
        Ok(self.missing.read()?.map(|bytes| bytes.map(|bytes| missing_from_bytes(&bytes))))
    }

    /// What is sent and who has come back, what is missing, both in order of ids, and what becomes of each row: for the state.
    ///
    /// # Errors
    /// The disk's.
    pub fn lists(
        &mut self,
    ) -> io::Result<(impl Iterator<Item = io::Result<PlannedAccount>>, impl Iterator<Item = io::Result<MissingAccount>>, &Ops)> {
        let Self { planned, missing, ops, tags, .. } = self;
        let ops = &*ops;
        let planned = planned.read()?.map(|bytes| {
            let digest = RecordDigest::from_bytes(&bytes?);
            let op = ops.get(digest.row);
            let tags = if op.tags().is_empty() { RecordTags::default() } else { tags.read(digest.row)? };
            Ok(digest.planned(op, tags))
        });
        let missing = missing.read()?.map(|bytes| bytes.map(|bytes| missing_from_bytes(&bytes)));
        Ok((planned, missing, ops))
    }
}
