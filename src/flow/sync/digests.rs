//! The digests of a file's records, sorted: with or without tags, since those make each of them longer.

use std::io;
use std::path::Path;

use super::record_digest::{DIGEST_BYTES, RecordDigest, TAGGED_BYTES};
use crate::io::extsort::{ExternalSorter, Sorted};

/// Collects digests in any order.
pub(super) enum DigestSorter {
    Plain(ExternalSorter<DIGEST_BYTES>),
    Tagged(ExternalSorter<TAGGED_BYTES>),
}

/// Whether the records of a file have tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HasTags {
    No,
    Yes,
}

impl DigestSorter {
    pub(super) fn in_folder(folder: &Path, has_tags: HasTags) -> Self {
        match has_tags {
            HasTags::No => DigestSorter::Plain(ExternalSorter::in_folder(folder)),
            HasTags::Yes => DigestSorter::Tagged(ExternalSorter::in_folder(folder)),
        }
    }

    #[inline]
    pub(super) fn push(&mut self, digest: RecordDigest) -> io::Result<()> {
        match self {
            DigestSorter::Plain(sorter) => sorter.push(digest.to_bytes()),
            DigestSorter::Tagged(sorter) => sorter.push(digest.to_tagged_bytes()),
        }
    }

    pub(super) fn finish(self) -> io::Result<SortedDigests> {
        Ok(match self {
            DigestSorter::Plain(sorter) => SortedDigests::Plain(sorter.finish()?),
            DigestSorter::Tagged(sorter) => SortedDigests::Tagged(sorter.finish()?),
        })
    }
}

/// The digests in order.
#[derive(Debug)]
pub(super) enum SortedDigests {
    Plain(Sorted<DIGEST_BYTES>),
    Tagged(Sorted<TAGGED_BYTES>),
}

impl SortedDigests {
    #[inline]
    pub(super) fn next(&mut self) -> io::Result<Option<RecordDigest>> {
        match self {
            SortedDigests::Plain(sorted) => Ok(sorted.next().transpose()?.map(|bytes| RecordDigest::from_bytes(&bytes))),
            SortedDigests::Tagged(sorted) => Ok(sorted.next().transpose()?.map(|bytes| RecordDigest::from_tagged_bytes(&bytes))),
        }
    }
}
