//! The import: records in, calls out through the gates, outcomes into the sink, until all is done or something stops it.
//!
//! What a run is given, what it shows and what it comes to; how it goes about it is in `workload` and in the dispatcher.

mod batch;
mod batch_trial;
mod fresh_rows;
mod import_flow;
mod last_accepted;
mod made_accounts;
mod profile_calls;
mod reorder_buffer;
mod send_outcomes;
mod state_filling;
mod tag_rows;
mod tag_trial;
mod user_order;
mod watched_records;
mod workload;

use std::io::Read;
use std::time::Duration;

use crate::domain::call_stats::CallStats;
pub use crate::domain::call_stats::RunPhase;
use crate::domain::outcome::OutcomeCounts;
use crate::domain::outcome::{RowOutcome, Status};
use crate::domain::planned_work::PlanProgress;
use crate::domain::position::{FileStat, InputPosition, SourceFile};
use crate::domain::tag::TagItem;
use crate::domain::target::Target;
use crate::domain::verdict::SuccessSeen;
use crate::flow::dispatch::{AbortCause, DispatchDependencies, DispatchSettings, Dispatcher, Progress};
use crate::io::api::Api;
use crate::io::journal::checkpoint::RunKind;
use crate::io::journal::disk::Disk;
use crate::io::journal::{Journal, OutcomeSink, RunSpec};
use crate::io::roster::{Record, Roster};
use import_flow::ImportFlow;
pub use made_accounts::ImportedRows;
pub use send_outcomes::SendOutcomes;
pub use state_filling::{FillError, StateFilling};
pub use tag_rows::TagRows;
pub use watched_records::WatchedRecords;
pub use workload::{ImportWorkload, Rows};

/// How records are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// One a call.
    Single,
    /// Up to a hundred a call.
    Batch(OnBatchFailure),
    /// Batches were tried and were no good: one a call.
    FellBack,
}

/// What is done if batches turn out to be no good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBatchFailure {
    FallBack,
    Stop,
}

/// What the input has next.
#[derive(Debug)]
pub enum IncomingRecord {
    /// A record to send; `accepted_as` is what it is once the service has it, and `held_back` are tags that are sent only if the account
    /// has to be made anew.
    Record { record: Record, accepted_as: Status, calls: RowCalls, held_back: Vec<TagItem> },
    /// A record whose outcome is known without a call.
    Settled(RowOutcome),
    /// Nothing is to become of the records up to here.
    Skipped(InputPosition),
}

impl From<Record> for IncomingRecord {
    fn from(record: Record) -> Self {
        let calls = RowCalls::of(&record);
        IncomingRecord::Record { record, accepted_as: Status::Imported, calls, held_back: Vec::new() }
    }
}

/// The calls that a record needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowCalls {
    /// The import alone.
    Import,
    /// The import, and then a `portrait_set` with all tags that the account has.
    ImportAndProfile,
    /// `portrait_set` alone. Only an account that the service doesn't know is imported first.
    ProfileOnly,
}

impl RowCalls {
    /// Those of a record of which nothing was sent before.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        let has_tags = record.account.as_ref().is_ok_and(|account| !account.tags.is_empty());
        if has_tags { RowCalls::ImportAndProfile } else { RowCalls::Import }
    }
}

/// What a run sends of its records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ImportScope {
    /// All that they need.
    #[default]
    Everything,
    /// `portrait_set` alone: the accounts were imported before. Nothing is sent for a record without tags.
    ProfilesOnly,
}

/// What may be held back behind a record that is stuck in retries.
#[derive(Debug, Clone, Copy)]
pub struct WindowLimits {
    pub records: usize,
    pub bytes: usize,
}

/// The knobs of a run.
#[derive(Debug, Clone)]
pub struct ImportSettings {
    pub dispatch: DispatchSettings,
    pub lane: Lane,
    pub scope: ImportScope,
    pub window: WindowLimits,
    /// Settle at most this many more records.
    pub limit: Option<u64>,
    /// Rows that an earlier run has settled.
    pub rows_done: u64,
    /// A commit begins at the latest after this time.
    pub commit_every: Duration,
    /// A commit begins at the latest after this many rows.
    pub commit_rows: u64,
}

impl ImportSettings {
    /// Fills in what is done of the run already, as its journal has it, and how many records more may be settled.
    #[must_use]
    pub fn resumed<D: Disk>(mut self, journal: &Journal<D>, limit: Option<u64>) -> Self {
        self.dispatch.known.seen = if journal.counts().imported > 0 { SuccessSeen::Yes } else { SuccessSeen::NotYet };
        Self { rows_done: journal.settled().rows, limit, ..self }
    }
}

/// Where records come from and outcomes go.
#[expect(missing_debug_implementations, reason = "it holds a closure")]
pub struct ImportEnds<I, L> {
    pub records: I,
    pub sink: L,
    pub on_progress: Box<dyn FnMut(&ImportProgress)>,
}

/// The state of the run, for whoever watches.
#[derive(Debug, Clone)]
pub struct ImportProgress {
    pub requests: Progress,
    /// Outcomes of this process.
    pub counts: OutcomeCounts,
    /// Rows that have their outcome as well, but wait for an earlier row, and so are not in `counts` yet.
    pub rows_waiting: u64,
    /// Byte offset in the input up to which all is settled.
    pub offset: Option<u64>,
    /// How far the plan is, rows that wait included; `None` where there is none.
    pub planned: Option<PlanProgress>,
}

/// How the run ended.
#[derive(Debug)]
pub enum ImportEnd<E> {
    /// Every record has its outcome.
    Finished,
    /// `--limit` is reached; there may be more records.
    LimitReached,
    Aborted(AbortCause),
    /// The input is not what it claims; everything before that place is settled.
    Input(E),
}

/// The end of the run with what it did.
#[derive(Debug)]
pub struct ImportOutcome<L, E> {
    pub end: ImportEnd<E>,
    /// All that has settled is committed to it.
    pub sink: L,
    /// Outcomes of this process.
    pub counts: OutcomeCounts,
    /// Up to where all is settled; `None` if this process has settled nothing.
    pub settled: Option<InputPosition>,
    pub traffic: CallStats,
    /// The lane that the run took in the end.
    pub lane: Lane,
    /// Rows that failed only after a long wait, since nothing could show whether the service was well.
    pub unjudged: u64,
    /// The last row, of those that have not settled, for which a request has left.
    pub last_left: Option<u64>,
    /// Rows whose accounts were imported since the service did not know them, though `portrait_set` alone was to be sent.
    pub imported_rows: ImportedRows,
}

/// The sink has failed: nothing can be recorded any more. What it committed before stays.
#[derive(Debug)]
pub struct ImportFailed<E> {
    pub error: E,
    /// What had left and come back by then.
    pub traffic: CallStats,
    pub lane: Lane,
}

/// What the checkpoint is to say of a run that reads `roster`, which stands at its start.
#[must_use]
pub fn run_spec<R: Read>(work: RunKind, target: &Target, (input, source): (FileStat, Option<SourceFile>), roster: &Roster<R>) -> RunSpec {
    let reading = roster.reading();
    let rejects_delimiter = reading.delimiter;
    let header = roster.header().names.clone();
    RunSpec { work, target: target.clone(), input, source, reading, header, rejects_delimiter, start: roster.at() }
}

/// Imports the records until they end or something stops the run.
///
/// # Errors
/// The sink's.
pub async fn run<A, I, N, L, E>(
    dependencies: DispatchDependencies<A>,
    ends: ImportEnds<I, L>,
    settings: ImportSettings,
) -> Result<ImportOutcome<L, E>, ImportFailed<L::Error>>
where
    A: Api,
    I: Iterator<Item = Result<N, E>>,
    N: Into<IncomingRecord>,
    L: OutcomeSink,
{
    let dispatch = settings.dispatch.clone();
    let mut dispatcher = Dispatcher::new(dependencies, dispatch, ImportFlow::new(ends, settings));
    let closed = match dispatcher.run().await {
        Ok(cause) => dispatcher.flow.close_sink(cause).await,
        Err(error) => Err(error),
    };
    let (ImportFlow { workload, counts, settled, .. }, traffic, unjudged) = dispatcher.end();
    let lane = workload.lane();
    match closed {
        Ok((end, sink)) => {
            let (last_left, imported_rows) = (workload.last_left(), workload.into_imported_rows());
            Ok(ImportOutcome { end, sink, counts, settled, traffic, lane, unjudged, last_left, imported_rows })
        }
        Err(error) => Err(ImportFailed { error, traffic, lane }),
    }
}

#[cfg(test)]
mod tests;
