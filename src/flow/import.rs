//! The import: records in, calls out through the gates, outcomes into the ledger, until all is done or something stops it.
//!
//! What a run is given, what it shows and what it comes to; how it goes about it is in `workload` and in the dispatcher.

mod send_outcomes;
mod state_filling;
mod watched_records;
mod workload;

use std::io::Read;
use std::time::{Duration, SystemTime};

use futures_util::stream::LocalBoxStream;

use crate::domain::call_stats::CallStats;
pub use crate::domain::call_stats::RunPhase;
use crate::domain::command::PerCommand;
use crate::domain::outcome::OutcomeCounts;
use crate::domain::position::{FileStat, InputPosition};
use crate::domain::target::Target;
use crate::domain::verdict::{HaltReason, SuccessSeen};
use crate::flow::deliver::{DeliveryLimits, Incoming, Known, Lane};
use crate::flow::dispatch::{self, Clocks, DispatchSettings, Dispatcher};
use crate::io::api::Api;
use crate::io::api::usersig::Signer;
use crate::io::gate::{self, Rate};
use crate::io::journal::checkpoint::RunKind;
use crate::io::journal::disk::Disk;
use crate::io::journal::{Journal, OutcomeSink, RunSpec};
use crate::io::roster::Roster;
pub use send_outcomes::SendOutcomes;
pub use state_filling::{FillError, StateFilling};
pub use watched_records::WatchedRecords;
use workload::ImportWorkload;

/// The knobs of a run.
#[derive(Debug, Clone)]
pub struct ImportSettings {
    /// Of each API on its own.
    pub rates: PerCommand<Rate>,
    /// Of all of them.
    pub gates: gate::GateSettings,
    pub limits: DeliveryLimits,
    pub max_outage: Duration,
    /// Settle at most this many more records.
    pub limit: Option<u64>,
    /// Rows that an earlier run has settled.
    pub rows_done: u64,
    pub known: Known,
    /// A commit at the latest after this time …
    pub commit_every: Duration,
    /// … or after this many rows.
    pub commit_rows: u64,
    /// How often the progress is told.
    pub progress_every: Duration,
}

impl ImportSettings {
    /// Fills in what is done of the run already, as its journal has it, and how many records more may be settled.
    #[must_use]
    pub fn resumed<D: Disk>(mut self, journal: &Journal<D>, limit: Option<u64>) -> Self {
        self.known.seen = if journal.tally().imported > 0 { SuccessSeen::Yes } else { SuccessSeen::NotYet };
        Self { rows_done: journal.settled().rows, limit, ..self }
    }
}

#[expect(missing_debug_implementations, reason = "it holds closures")]
/// What the run works with; time, randomness and signals come from outside.
pub struct ImportDependencies<A, I, L> {
    pub api: A,
    pub records: I,
    pub ledger: L,
    pub signer: Signer,
    pub wall: Box<dyn Fn() -> SystemTime>,
    /// Uniform in `0.0..1.0`.
    pub jitter: Box<dyn FnMut() -> f64>,
    /// The first signal stops the run gently, the second at once.
    pub signals: LocalBoxStream<'static, ()>,
    pub on_progress: Box<dyn FnMut(&ImportProgress)>,
}

/// The state of the run, for whoever watches.
#[derive(Debug, Clone)]
pub struct ImportProgress {
    pub phase: RunPhase,
    /// Outcomes of this process.
    pub tally: OutcomeCounts,
    /// Byte offset in the input up to which all is settled.
    pub offset: Option<u64>,
    pub calls: u64,
    pub retries: u64,
    pub in_flight: usize,
}

/// How the run ended.
#[derive(Debug)]
pub enum ImportEnd<E> {
    /// Every record has its outcome.
    Finished,
    /// `--limit` is reached; there may be more records.
    LimitReached,
    /// A signal.
    Stopped,
    /// The service was down for longer than `--max-outage`.
    Outage {
        why: String,
    },
    Refused {
        refusal: HaltReason,
        code: Option<i64>,
        says: String,
    },
    /// The input is not what it claims; everything before that place is settled.
    Input(E),
}

/// The end of the run with what it did.
#[derive(Debug)]
pub struct ImportOutcome<L, E> {
    pub end: ImportEnd<E>,
    /// All that has settled is committed to it.
    pub ledger: L,
    /// Outcomes of this process.
    pub tally: OutcomeCounts,
    /// Up to where all is settled; `None` if this process has settled nothing.
    pub settled: Option<InputPosition>,
    pub traffic: CallStats,
    /// The lane that the run took in the end.
    pub lane: Lane,
    /// Rows that failed only after a long wait, since nothing could show whether the service was well.
    pub unjudged: u64,
}

/// The ledger has failed: nothing can be recorded any more. What it committed before stays.
#[derive(Debug)]
pub struct ImportFailed<E> {
    pub error: E,
    /// What had left and come back by then.
    pub traffic: CallStats,
    pub lane: Lane,
}

/// What the checkpoint is to say of a run that reads `roster`, which stands at its start.
#[must_use]
pub fn run_spec<R: Read>(work: RunKind, target: &Target, input: FileStat, roster: &Roster<R>) -> RunSpec {
    let reading = roster.reading();
    let rejects_delimiter = reading.delimiter;
    RunSpec { work, target: target.clone(), input, reading, header: roster.header().names.clone(), rejects_delimiter, start: roster.at() }
}

/// Imports the records until they end or something stops the run.
///
/// # Errors
/// The ledger's.
pub async fn run<A, I, N, L, E>(
    parts: ImportDependencies<A, I, L>,
    settings: ImportSettings,
) -> Result<ImportOutcome<L, E>, ImportFailed<L::Error>>
where
    A: Api,
    I: Iterator<Item = Result<N, E>>,
    N: Into<Incoming>,
    L: OutcomeSink,
{
    let ImportDependencies { api, records, ledger, signer, wall, jitter, signals, on_progress } = parts;
    let dependencies = dispatch::Dependencies { api, signer, clocks: Clocks { wall, jitter }, signals };
    let dispatch = DispatchSettings {
        rates: settings.rates.clone(),
        gates: settings.gates.clone(),
        max_outage: settings.max_outage,
        progress_every: settings.progress_every,
    };
    let mut dispatcher = Dispatcher::new(dependencies, dispatch, ImportWorkload::new((records, ledger), on_progress, settings));
    let closed = match dispatcher.run().await {
        Ok(cause) => dispatcher.workload.close_ledger(cause).await,
        Err(error) => Err(error),
    };
    let (ImportWorkload { deliveries, tally, settled, .. }, traffic) = dispatcher.end();
    let (lane, unjudged) = (deliveries.lane(), deliveries.unjudged());
    match closed {
        Ok((end, ledger)) => Ok(ImportOutcome { end, ledger, tally, settled, traffic, lane, unjudged }),
        Err(error) => Err(ImportFailed { error, traffic, lane }),
    }
}
