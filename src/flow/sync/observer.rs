//! What a sync tells whoever watches it, and why it cannot go on.

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;

use thiserror::Error;

use super::planning::{PlanError, Step};
use crate::domain::cells::Uuids;
use crate::domain::change::Wait;
use crate::flow::check::TooManyInvalid;
use crate::flow::dispatch::Progress;
use crate::flow::import::ImportProgress;
use crate::io::journal::{DiskError, OpenError};
use crate::io::roster::{Header, RosterError};
use crate::io::state::StateError;

/// Watches a sync, and may stop it.
pub trait Observer {
    /// Takes note of how far the sync is. `Break` stops the planning, and any other phase before its next lasting step; while requests are
    /// sent it means nothing, the signals stop those.
    fn on(&mut self, progress: SyncProgress) -> ControlFlow<()>;
}

/// How far a sync is.
#[derive(Debug)]
pub enum SyncProgress<'a> {
    /// The file's header, before anything is decided.
    Header(&'a Header),
    Planning(Step),
    /// The state has the plan.
    Committed,
    /// The run has its checkpoint, so an unfinished one is resumed; requests follow.
    Begun {
        /// Rows that earlier processes settled, unchanged ones included, and where in the file this one begins.
        rows_settled: u64,
        offset: u64,
    },
    Sending(&'a ImportProgress),
    /// All rows have their outcomes, on disk.
    RowsDone,
    /// Kicks and deletions wait for a later run.
    MissingWait(&'a MissingWait),
    Missing(MissingProgress<'a>),
    /// The state has taken over what the run came to; only the checkpoint doesn't say so yet.
    StateFinished,
}

/// How far the kicks and deletions are.
#[derive(Debug)]
pub struct MissingProgress<'a> {
    pub calls: &'a Progress,
    /// Accounts that were dealt with, and those that are due.
    pub acted: u64,
    pub due: u64,
}

/// Why kicks and deletions wait, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingWait {
    pub why: Wait,
    /// Nights in a row, this one included.
    pub nights: u64,
    /// Rows of which it is not known what came of them.
    pub unknown_rows: u64,
    /// Where the file is malformed, as words.
    pub malformed: Option<String>,
}

/// Why a sync cannot begin, or go on.
#[derive(Debug, Error)]
pub enum SyncError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    State(#[from] StateError),
    /// The state is older than the checkpoint beside it: it doesn't know what was sent since.
    #[error("{why}: an older state was brought back")]
    OlderState { why: String },
    /// The last finished run has read UUIDs in another way.
    #[error("the last finished run was {} --compact-uuid: its UserIDs would be missing", if *before == Uuids::Compact { "with" } else { "without" })]
    OtherIds { before: Uuids },
    #[error("{} of the first rows are invalid", .0.invalid)]
    TooManyInvalid(TooManyInvalid),
    /// What an unfinished run has left can't be read.
    #[error("cannot read what the unfinished run has left in {}", path.display())]
    LeftResults {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// What this run has written can't be read back.
    #[error("cannot read the results {}", path.display())]
    Results {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl From<RosterError> for SyncError {
    fn from(error: RosterError) -> Self {
        SyncError::Plan(error.into())
    }
}
