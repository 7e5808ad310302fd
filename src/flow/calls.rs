//! Calls that are made until each is answered or out of attempts, whatever they ask for.
//!
//! What is asked, and what becomes of the answers, is the [`Errands`]' business; the promises about calls are those of the import: the gate
//! is the last hop, one for each API; nobody is charged for an outage, and nobody suffers for what else was in its call. How a run goes
//! about it is in the dispatcher, which call is made next and what its end means in `docket`.

mod docket;
mod outage;
mod probe;
mod workload;

use std::time::{Duration, SystemTime};

use futures_util::stream::LocalBoxStream;

use crate::domain::account::{Account, UserId};
use crate::domain::call_stats::CallStats;
use crate::domain::command::{Command, PerCommand};
use crate::domain::verdict::{Answer, HaltReason};
pub use crate::flow::dispatch::Progress;
use crate::flow::dispatch::{self, AbortCause, Clocks, DispatchSettings, Dispatcher};
use crate::io::api::Api;
use crate::io::api::usersig::Signer;
use crate::io::gate::{self, Rate};
use workload::ErrandWorkload;

/// Something to ask the service for: one call, or some more if it is refused as a whole.
#[derive(Debug, Clone)]
pub struct Errand<T> {
    pub command: Command,
    /// 1 to as many as a call may carry, with different ids.
    pub accounts: Vec<Account>,
    /// What the one who asks knows it by; the parts of an errand that is taken apart all carry it.
    pub tag: T,
}

/// What became of an errand, or of a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The service did as asked. What came with it may speak of ids that weren't asked for.
    Done(Answer),
    /// It is the one account's fault; there is only one in it.
    Refused { code: i64, info: String },
    /// Passing faults until its attempts ran out, with the last one's code, if it was one; there is only one account in it.
    OutOfAttempts { code: Option<i64>, why: String },
}

/// Whether there is something to ask.
#[derive(Debug)]
pub enum Supply<T> {
    Errand(Errand<T>),
    /// Not found out yet; ask again soon. So a long search blocks nobody.
    Searching,
    /// Nothing, unless the end of another errand brings something.
    Dry,
}

/// Where errands come from, and where their ends go.
pub trait Errands {
    /// What the errands are known by.
    type Tag: Clone;
    /// Why it can't go on.
    type Error;

    /// The commands that are asked for; of two calls that may leave, the one with the earlier command leaves first.
    const COMMANDS: &'static [Command];

    /// The next errand with this command. It is asked for as late as can be, so whoever bounds the errands that are under way bounds the
    /// memory that they take.
    ///
    /// # Errors
    /// The run ends with it at once.
    fn next(&mut self, command: Command) -> Result<Supply<Self::Tag>, Self::Error>;

    /// Takes the end of an errand, or of a part of one. A run that is stopped leaves errands without an end.
    ///
    /// # Errors
    /// The run ends with it at once.
    fn ended(&mut self, errand: Errand<Self::Tag>, fate: Fate) -> Result<(), Self::Error>;
}

/// The knobs of a run.
#[derive(Debug, Clone)]
pub struct CallsSettings {
    /// Of each API on its own.
    pub rates: PerCommand<Rate>,
    /// Of all of them.
    pub gates: gate::GateSettings,
    /// Of each call.
    pub max_attempts: u32,
    /// Calls in flight at most, of all APIs together.
    pub in_flight: usize,
    pub max_outage: Duration,
    /// As whom calls are made: an account that ought to be there.
    pub identifier: UserId,
    /// How often the progress is told.
    pub progress_every: Duration,
}

#[expect(missing_debug_implementations, reason = "it holds closures")]
/// What the run works with; time, randomness and signals come from outside.
pub struct CallsDependencies<A, E> {
    pub api: A,
    pub errands: E,
    pub signer: Signer,
    pub wall: Box<dyn Fn() -> SystemTime>,
    /// Uniform in `0.0..1.0`.
    pub jitter: Box<dyn FnMut() -> f64>,
    /// The first signal stops the run gently, the second at once.
    pub signals: LocalBoxStream<'static, ()>,
    pub on_progress: OnProgress<E>,
}

/// Tells whoever watches how far the run is.
pub type OnProgress<E> = Box<dyn FnMut(&Progress, &E)>;

/// How the run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallsEnd {
    /// Every errand has its end.
    Finished,
    /// A signal.
    Stopped,
    /// An API was of no use for longer than `--max-outage`.
    Outage {
        why: String,
    },
    Refused {
        refusal: HaltReason,
        code: Option<i64>,
        says: String,
    },
}

/// The end of the run with what it did.
#[derive(Debug)]
pub struct CallsOutcome<E> {
    pub end: CallsEnd,
    pub errands: E,
    pub traffic: CallStats,
    /// Accounts that were given up only after a long wait, since nothing could show whether the service was well.
    pub unjudged: u64,
}

/// The errands can't go on.
#[derive(Debug)]
pub struct CallsFailed<E> {
    pub error: E,
    /// What had left and come back by then.
    pub traffic: CallStats,
}

/// Runs the errands until there are none or something stops it.
///
/// # Errors
/// The errands'.
pub async fn run<A, E>(parts: CallsDependencies<A, E>, settings: CallsSettings) -> Result<CallsOutcome<E>, CallsFailed<E::Error>>
where
    A: Api,
    E: Errands,
{
    let CallsDependencies { api, errands, signer, wall, jitter, signals, on_progress } = parts;
    let workload = ErrandWorkload::new(errands, on_progress, &settings);
    let CallsSettings { rates, gates, max_outage, progress_every, .. } = settings;
    let dependencies = dispatch::Dependencies { api, signer, clocks: Clocks { wall, jitter }, signals };
    let mut dispatcher = Dispatcher::new(dependencies, DispatchSettings { rates, gates, max_outage, progress_every }, workload);
    let ended = dispatcher.run().await;
    let (ErrandWorkload { errands, docket, .. }, traffic) = dispatcher.end();
    let end = match ended {
        Ok(None) => CallsEnd::Finished,
        Ok(Some(AbortCause::Signal)) => CallsEnd::Stopped,
        Ok(Some(AbortCause::Outage { why })) => CallsEnd::Outage { why },
        Ok(Some(AbortCause::Refused { refusal, code, says })) => CallsEnd::Refused { refusal, code, says },
        Err(error) => return Err(CallsFailed { error, traffic }),
    };
    Ok(CallsOutcome { end, errands, traffic, unjudged: docket.unjudged })
}
