//! The checkpoint: how far a run has come, as one JSON object with a version and a checksum.
//!
//! This module only encodes and decodes. A checkpoint contains no secret and no personal data: numbers, hashes and the address of the
//! service.
//!
//! Rule for the format: a field that is added, removed or changes its meaning raises the version. A reader accepts its own version and the
//! older ones that it knows, and names any other in its error. A checkpoint is always written in the newest version. Only
//! `ColumnLayout::flags` and `source` were added without a new version, because they are omitted while they are empty.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use crate::domain::outcome::OutcomeCounts;
use crate::domain::position::{ColumnLayout, FileStat, InputPosition, SourceFile};
use crate::domain::target::Target;

/// The version that is written. Every change of the format raises it. Version 3 added the token of a sync's run.
pub const VERSION: u32 = 3;
/// The oldest version that can be read.
const OLDEST: u32 = 2;
/// Longest checkpoint that is read, in bytes. Chosen: real ones have some hundred bytes; one that names a tag for each column of the longest
/// header has less than this.
pub const MAX_BYTES: u64 = 256 * 1024;

/// How far a run has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    pub state: RunStatus,
    pub work: RunKind,
    pub target: Target,
    pub reading: ColumnLayout,
    /// A hash of the names of results and rejects.
    pub names: u64,
    pub input: FileStat,
    /// The file that the input is a copy of, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceFile>,
    /// The position in the input up to which every row has its outcome.
    pub settled: InputPosition,
    pub results: Extent,
    /// A length of 0 means that the file does not exist.
    pub rejects: Extent,
    #[serde(rename = "tally")]
    pub counts: OutcomeCounts,
}

/// Whether the run goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    Unfinished,
    Finished,
    /// The run's files are being renamed to backups with this stamp in their names.
    SettingAside {
        stamp: String,
    },
}

/// The command that the run belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunKind {
    Import,
    /// A sync with the state of this identity. The state gave the run its number. The token is drawn for this run alone, because the number
    /// is used again if an older state is restored; 0 stands for none.
    Sync {
        state: u64,
        run: u64,
        #[serde(default)]
        token: u64,
    },
}

impl RunKind {
    /// Whether both runs belong to the same command and, for syncs, to the same state.
    #[must_use]
    pub fn is_akin_to(self, other: RunKind) -> bool {
        match (self, other) {
            (RunKind::Import, RunKind::Import) => true,
            (RunKind::Sync { state, .. }, RunKind::Sync { state: other, .. }) => state == other,
            (RunKind::Import, RunKind::Sync { .. }) | (RunKind::Sync { .. }, RunKind::Import) => false,
        }
    }
}

impl std::fmt::Display for RunKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RunKind::Import => f.write_str("an import"),
            RunKind::Sync { state, .. } => write!(f, "a sync with the state {state:016x}"),
        }
    }
}

/// The part of a file that belongs to the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Its length in bytes.
    pub len: u64,
    /// A hash of its last [`TAIL_BYTES`].
    pub tail: u64,
}

/// The number of bytes at the end of the part that its hash covers.
pub const TAIL_BYTES: usize = 4096;

impl Extent {
    /// The extent of `len` bytes that end with `tail`.
    #[must_use]
    pub fn new(len: u64, tail: &[u8]) -> Self {
        Self { len, tail: xxh3_64(tail) }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    version: u32,
    checksum: std::borrow::Cow<'a, str>,
    run: serde_json::Value,
}

/// Why bytes are not a valid checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CheckpointError {
    #[error("it is not a checkpoint of chatlift")]
    Foreign,
    #[error("it has the version {0}; this chatlift reads versions {OLDEST} to {VERSION}")]
    Version(u64),
    #[error("its checksum is wrong")]
    Checksum,
}

impl Checkpoint {
    /// Encodes the checkpoint in the newest version.
    ///
    /// # Panics
    /// Never: its fields can always be written as JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let run = serde_json::to_value(self).expect("the fields can always be written as JSON");
        let checksum = checksum(&run).into();
        let mut bytes =
            serde_json::to_vec(&Envelope { version: VERSION, checksum, run }).expect("the fields can always be written as JSON");
        bytes.push(b'\n');
        bytes
    }

    /// Decodes a checkpoint.
    ///
    /// # Errors
    /// [`CheckpointError`] for anything that [`Checkpoint::encode`] of a known version did not write.
    pub fn decode(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|_| CheckpointError::Foreign)?;
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(version) if (u64::from(OLDEST)..=u64::from(VERSION)).contains(&version) => {}
            Some(version) => return Err(CheckpointError::Version(version)),
            None => return Err(CheckpointError::Foreign),
        }
        let envelope: Envelope = serde_json::from_value(value).map_err(|_| CheckpointError::Foreign)?;
        if checksum(&envelope.run) != envelope.checksum {
            return Err(CheckpointError::Checksum);
        }
        serde_json::from_value(envelope.run).map_err(|_| CheckpointError::Foreign)
    }
}

/// A hash of the compact JSON. The keys of a JSON value are sorted, so the same value always gives the same text.
fn checksum(run: &serde_json::Value) -> String {
    format!("{:016x}", xxh3_64(run.to_string().as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            state: RunStatus::Unfinished,
            work: RunKind::Sync { state: u64::MAX, run: 2, token: u64::MAX },
            target: Target { endpoint: "https://example.com:443".to_owned(), sdkappid: 7, api: "account_import".to_owned() },
            reading: ColumnLayout {
                delimiter: b',',
                columns: [Some(0), None, Some(2)],
                flags: BTreeMap::from([("trim".to_owned(), String::new())]),
            },
            names: 5,
            input: FileStat { len: 9, modified_ns: -1, changed_ns: i64::MAX, inode: u64::MAX },
            source: Some(SourceFile { stat: FileStat { len: 1, modified_ns: 2, changed_ns: 3, inode: 4 }, digest: u64::MAX }),
            settled: InputPosition { rows: 1, offset: 9, line: 3, digest: u64::MAX },
            results: Extent::new(100, b"tail"),
            rejects: Extent::new(0, b""),
            counts: OutcomeCounts { imported: 1, created: 1, ..OutcomeCounts::default() },
        }
    }

    #[test]
    fn a_checkpoint_is_read_back_as_written() {
        for state in [RunStatus::Unfinished, RunStatus::Finished, RunStatus::SettingAside { stamp: "20261124T000000Z".to_owned() }] {
            let written = Checkpoint { state, ..checkpoint() };
            assert_eq!(Checkpoint::decode(&written.encode()), Ok(written));
        }
    }

    #[test]
    fn a_run_without_a_copy_is_written_as_it_always_was() {
        let written = Checkpoint { source: None, ..checkpoint() };
        let bytes = written.encode();
        assert!(!String::from_utf8_lossy(&bytes).contains("source"));
        assert_eq!(Checkpoint::decode(&bytes), Ok(written));
    }

    #[test]
    fn version_2_is_read_and_written_back_as_the_newest() {
        let mut run = serde_json::to_value(checkpoint()).unwrap();
        run["work"]["sync"].as_object_mut().unwrap().remove("token").unwrap();
        let checksum = checksum(&run);
        let text = serde_json::json!({ "version": 2, "checksum": checksum, "run": run }).to_string();
        let read = Checkpoint::decode(text.as_bytes()).unwrap();
        assert_eq!(read, Checkpoint { work: RunKind::Sync { state: u64::MAX, run: 2, token: 0 }, ..checkpoint() });
        assert_eq!(Checkpoint::decode(&read.encode()), Ok(read));
    }

    #[test]
    fn only_a_complete_checkpoint_of_a_known_version_is_accepted() {
        let whole = checkpoint().encode();
        assert_eq!(Checkpoint::decode(b""), Err(CheckpointError::Foreign));
        assert_eq!(Checkpoint::decode(b"{}"), Err(CheckpointError::Foreign));
        assert_eq!(Checkpoint::decode(br#"{"version":99}"#), Err(CheckpointError::Version(99)));
        for len in 0..whole.len() - 1 {
            assert!(Checkpoint::decode(&whole[..len]).is_err(), "{len}");
        }
        let text = String::from_utf8(whole).unwrap();
        assert_eq!(Checkpoint::decode(text.replace("\"rows\":1", "\"rows\":2").as_bytes()), Err(CheckpointError::Checksum));
    }
}
