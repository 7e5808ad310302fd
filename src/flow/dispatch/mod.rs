//! The engine of every flow that calls the service: one loop on one task, and one path to the API.
//!
//! The [`Dispatcher`] owns the gates, the signature, the clocks, the signals, the calls in flight and the deadline of an outage. The
//! [`Scheduler`] says which call is next and what the end of a call means. A [`Workload`] knows what the calls are about, and a [`Flow`]
//! brings the input and output that belong to it.

mod attempts;
mod dispatcher;
mod health;
mod job_queue;
mod probe;
mod scheduler;
mod workload;

use std::time::{Duration, SystemTime};

use futures_util::stream::LocalBoxStream;
use tokio::time::Instant;

use crate::domain::account::UserId;
use crate::domain::call_stats::{CallsSoFar, RunPhase};
use crate::domain::command::{Command, PerCommand};
use crate::domain::halt_reason::HaltReason;
use crate::domain::retry::ClockReading;
use crate::domain::verdict::SuccessSeen;
use crate::io::api::Request;
use crate::io::api::usersig::Signer;
use crate::io::gate::{self, Rate};
use crate::io::quota::QuotaRefusal;
pub use dispatcher::Dispatcher;
pub use job_queue::{Charges, Failure, Job, JobQueue};
pub use scheduler::{Scheduler, SchedulerLimits, Stop};
pub use workload::{Fetched, Flow, Followup, JobOutcome, Workload};

/// The number of a job; free for another one once it is gone.
pub type JobId = usize;

/// What a call is known by until it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallId {
    Job(JobId),
    /// The test of this API that is no job.
    Probe(Command),
}

/// A call that leaves.
#[derive(Debug)]
pub struct Call<'a> {
    pub request: Request<'a>,
    pub is_retry: bool,
}

/// What is known before the first call.
#[derive(Debug, Clone)]
pub struct Known {
    /// As whom calls are made: an account that ought to be there.
    pub identifier: UserId,
    /// Whether the service has accepted an account of this run.
    pub seen: SuccessSeen,
}

/// The knobs of the engine.
#[derive(Debug, Clone)]
pub struct DispatchSettings {
    /// The rate limit of each API.
    pub rates: PerCommand<Rate>,
    /// What the gates of all APIs share.
    pub gates: gate::GateSettings,
    pub limits: SchedulerLimits,
    pub known: Known,
    pub max_outage: Duration,
    /// How often the progress is told.
    pub progress_every: Duration,
}

#[expect(missing_debug_implementations, reason = "it holds closures")]
/// What the engine works with; time, randomness and signals come from outside.
pub struct DispatchDependencies<A> {
    pub api: A,
    pub signer: Signer,
    pub clocks: Clocks,
    /// The first signal stops the run gently, the second at once.
    pub signals: LocalBoxStream<'static, ()>,
}

#[expect(missing_debug_implementations, reason = "it holds closures")]
/// What time it is, and chance.
pub struct Clocks {
    pub wall: Box<dyn Fn() -> SystemTime>,
    /// Uniform in `0.0..1.0`.
    pub jitter: Box<dyn FnMut() -> f64>,
}

impl Clocks {
    /// This moment, with what chance makes of it.
    pub fn at(&mut self, now: Instant) -> ClockReading {
        ClockReading { now, wall: (self.wall)(), jitter: (self.jitter)() }
    }
}

/// The state of the calls, for whoever watches; what they are about, the workload knows.
#[derive(Debug, Clone)]
pub struct Progress {
    /// When all this was counted.
    pub at: Instant,
    pub phase: RunPhase,
    pub calls: u64,
    pub retries: u64,
    pub in_flight: usize,
    pub so_far: CallsSoFar,
}

/// Why a run stops before everything is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AbortCause {
    Signal,
    /// An API was of no use for longer than `--max-outage`.
    Outage {
        api: Command,
        why: String,
    },
    /// The store of the shared quota was of no use for as long.
    QuotaLost {
        why: String,
    },
    /// This process may not take part in the quota.
    QuotaRefused(QuotaRefusal),
    Refused {
        reason: HaltReason,
        code: Option<i64>,
        says: String,
    },
}
