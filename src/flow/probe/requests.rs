//! The requests of a probe that writes, one after the other: each passes its gate, and is repeated a few times at most.

use std::time::{Duration, SystemTime};

use futures_util::future::OptionFuture;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::domain::answer::Answer;
use crate::domain::command::{Command, PerCommand};
use crate::domain::halt_reason::HaltReason;
use crate::domain::verdict::{self, CallOutcome, CallSize, SuccessSeen, Verdict};
use crate::io::api::usersig::{Signature, Signer};
use crate::io::api::{Api, ConnectionWish, NotDelivered, Request};
use crate::io::gate::{Gate, GateAnswer, GateSettings, Headroom, Permit, Rate};
use crate::io::quota::{Quota, QuotaSettings};

/// Attempts of a request. Chosen: who probes can probe again.
const ATTEMPTS: u32 = 3;
/// Pause before another attempt; it doubles each time. Chosen: a service that is called too fast gets a second without a request.
const PAUSE: Duration = Duration::from_millis(500);
/// Longest time for an answer. The service itself gives up after three seconds.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Why no further question can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Halted {
    /// A request ended so, after its attempts.
    Call {
        command: Command,
        outcome: CallOutcome,
    },
    /// The signature is refused, and so is a new one.
    Signature {
        command: Command,
        outcome: CallOutcome,
        reason: HaltReason,
    },
    OutOfTime,
    Stopped,
}

/// What the service says to a request that it has judged.
pub(super) type Said = Result<Answer, ServiceRefusal>;

/// The service refuses an account or what is to be done to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRefusal {
    pub code: i64,
    pub info: String,
}

/// Whether somebody wants the probe to end.
pub type IsStopped<'a> = &'a dyn Fn() -> bool;

pub(super) struct Requests<'a, A> {
    api: &'a A,
    signer: Signer,
    gates: PerCommand<Gate>,
    quota: Option<Quota>,
    is_stopped: IsStopped<'a>,
    until: Instant,
    /// Requests so far.
    pub(super) made: u32,
    /// Those that were sent and got no valid answer: the service may have done what they ask for.
    pub(super) lost: u32,
}

impl<'a, A: Api> Requests<'a, A> {
    /// With a quota the limits are shared with other processes.
    pub(super) fn new(
        (api, signer): (&'a A, Signer),
        rate: Option<Rate>,
        quota: Option<&QuotaSettings>,
        is_stopped: IsStopped<'a>,
        until: Instant,
    ) -> Self {
        let now = Instant::now();
        let quota = quota.map(|quota| Quota::start(quota, &PerCommand::new(|_| 1), Headroom::DEFAULT.in_percent()));
        let gates = PerCommand::new(|command| {
            let gate = Gate::new(limit(command, rate), &GateSettings::default(), now);
            match &quota {
                Some(quota) => gate.leased(quota.lease(command)),
                None => gate,
            }
        });
        Self { api, signer, gates, quota, is_stopped, until, made: 0, lost: 0 }
    }

    /// From now on nothing but the time ends the requests: what was made is put away again.
    pub(super) fn put_away(&mut self, until: Instant) {
        self.is_stopped = &|| false;
        self.until = until;
    }

    /// Sends a request about one account until the service has judged it.
    ///
    /// # Errors
    /// [`Halted`] if it has not, or accepts nothing more.
    pub(super) async fn send(&mut self, request: Request<'_>) -> Result<Said, Halted> {
        let (command, mut attempt) = (request.command(), 1);
        loop {
            let (outcome, signature) = self.attempt(&request).await?;
            match verdict::judge(&outcome, SuccessSeen::Yes, CallSize::One) {
                Verdict::Accepted | Verdict::Reject | Verdict::Unknown => return Ok(said(outcome)),
                Verdict::Abort(_) => return Err(Halted::Call { command, outcome }),
                Verdict::Reauthenticate => {
                    let renewed = self.signer.on_rejected(signature.generation, Instant::now(), SystemTime::now());
                    renewed.map_err(|reason| Halted::Signature { command, outcome, reason })?;
                }
                Verdict::Retry | Verdict::ConnectFailed | Verdict::Throttle(_) if attempt >= ATTEMPTS => {
                    return Err(Halted::Call { command, outcome });
                }
                Verdict::Retry | Verdict::ConnectFailed | Verdict::Throttle(_) => {
                    self.pause(PAUSE * 2_u32.pow(attempt - 1)).await?;
                    attempt += 1;
                }
            }
        }
    }

    /// Waits before the next request.
    pub(super) async fn pause(&self, time: Duration) -> Result<(), Halted> {
        sleep(time.min(self.until.saturating_duration_since(Instant::now()))).await;
        self.check_not_halted()
    }

    fn check_not_halted(&self) -> Result<(), Halted> {
        if (self.is_stopped)() {
            return Err(Halted::Stopped);
        }
        if Instant::now() >= self.until { Err(Halted::OutOfTime) } else { Ok(()) }
    }

    async fn attempt(&mut self, request: &Request<'_>) -> Result<(CallOutcome, Signature), Halted> {
        let mut connection = ConnectionWish::Any;
        loop {
            self.check_not_halted()?;
            let permit = self.permit(request.command()).await?;
            let signature = self.signer.current(Instant::now(), SystemTime::now());
            self.made += 1;
            match self.answer((request.clone(), connection), &signature, permit).await {
                Ok(outcome) => {
                    self.lost += u32::from(matches!(outcome, CallOutcome::Lost { .. }));
                    return Ok((outcome, signature));
                }
                // A connection that nobody has used yet can't end so, and that is the second one at the latest.
                Err(NotDelivered::ConnectionClosed | NotDelivered::Void) => connection = ConnectionWish::Fresh,
            }
        }
    }

    async fn answer(
        &self,
        (request, connection): (Request<'_>, ConnectionWish),
        signature: &Signature,
        mut permit: Permit,
    ) -> Result<CallOutcome, NotDelivered> {
        let call = self.api.call(request, connection, signature, move || permit.mark_sent());
        let lost = || CallOutcome::Lost { why: "no answer in time".to_owned() };
        timeout(ANSWER_MAX, call).await.unwrap_or_else(|_| Ok(lost()))
    }

    async fn permit(&mut self, command: Command) -> Result<Permit, Halted> {
        loop {
            match self.gates[command].try_acquire(Instant::now()) {
                GateAnswer::Now(permit) => return Ok(permit),
                GateAnswer::At(at) => sleep_until(at).await,
                GateAnswer::WhenSent => self.gates[command].sent().await,
                GateAnswer::WhenGranted => {
                    let granted = OptionFuture::from(self.quota.as_ref().map(Quota::changed));
                    // Once the time is over, nothing more is asked.
                    let _ = timeout(self.until.saturating_duration_since(Instant::now()), granted).await;
                    self.check_not_halted()?;
                }
            }
        }
    }
}

/// The documented limit, or the given one if that is lower.
fn limit(command: Command, rate: Option<Rate>) -> Rate {
    let documented = command.spec().calls_per_s;
    match rate {
        Some(Rate::Unlimited) => Rate::Unlimited,
        Some(Rate::PerSecond(rate)) => Rate::PerSecond(rate.min(documented)),
        None => Rate::PerSecond(documented),
    }
}

fn said(outcome: CallOutcome) -> Said {
    match outcome {
        CallOutcome::Done(answer) => Ok(answer),
        other => {
            let (code, info) = verdict::words(other);
            Err(ServiceRefusal { code: code.unwrap_or_default(), info })
        }
    }
}
