//! What identifies an input file and a place in it.
//!
//! Pure values: how they are read off a file is the roster's business, where they are kept the journal's.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A place in the input, between two records, with all that stands before it in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Records before it.
    pub rows: u64,
    /// Its offset in bytes.
    pub offset: u64,
    /// Its physical line; the header is line 1.
    pub line: u64,
    /// Running hash (XXH3, chained line by line) of every byte before it.
    pub digest: u64,
}

impl Mark {
    /// The place before the first byte.
    pub const START: Mark = Mark { rows: 0, offset: 0, line: 1, digest: 0 };

    /// Goes on over `bytes`, which hold `lines` line ends.
    pub fn pass(&mut self, bytes: &[u8], lines: u64) {
        self.offset += bytes.len() as u64;
        self.line += lines;
        self.digest = xxh3_64_with_seed(bytes, self.digest);
    }
}

/// The stat fields of an input file: as long as they are the same, so is the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// In bytes.
    pub len: u64,
    /// Nanoseconds since the epoch, as are all times here.
    pub modified_ns: i64,
    pub changed_ns: i64,
    pub inode: u64,
}

/// How an input is read: a run that goes on must read it as it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    pub delimiter: u8,
    /// The columns of UserID, Nick and FaceUrl, counted from 0.
    pub columns: [Option<u32>; 3],
}

/// How an input compares with what an earlier run has seen of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sameness {
    /// Byte for byte the same, as far as the comparison can tell.
    Same,
    /// The settled part is the same, something after it is not.
    ChangedAfter,
    /// The settled part has changed.
    ChangedWithin,
}
