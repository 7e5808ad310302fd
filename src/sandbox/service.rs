//! The service as a state machine: it takes a request and the time, and returns a reaction.
//!
//! It has no I/O and no clock. The HTTP server or a test passes the time and carries out the reaction.

use std::time::Duration;

use bytes::Bytes;

use super::accounts::{StoredAccount, StoredAccounts};
use super::app::{AffectedUsers, App, RequestEffect};
use super::audit::{Audit, Recorder};
use super::call_log_entry::{CallLogEntries, CallLogEntry, Codes};
use super::command;
use super::envelope;
use super::fault::What;
use super::fault_injector::{Aim, FaultInjector, Injection, TargetedUser};
use super::limiter::{Limiter, LimiterDecision, Others};
use super::parsed_request::ParsedRequest;
use super::reply::{Act, Reaction, RefusalKind, Reply, RequestRefusal};
use super::settings::SandboxSettings;
use super::signature::Signatures;
use crate::io::api::wire::Command;

/// Too many requests. Source: Tencent's error code page.
const OVER_LIMIT: i64 = 60007;
/// Size of a body that is too big, in bytes. Chosen: more than any client should accept.
const BIG_BODY_BYTES: usize = 4 * 1024 * 1024;

/// A point in time by two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Time since the sandbox's start; it never goes backwards.
    pub since_start: Duration,
    /// Unix time in seconds, for the UserSig.
    pub unix_s: u64,
}

/// An HTTP request that was received completely.
#[derive(Debug, Clone, Copy)]
pub struct ServiceRequest<'a> {
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    pub body: &'a [u8],
}

/// A request whose head has arrived.
#[derive(Debug)]
pub(super) struct Arrival {
    at: Moment,
    command: Option<Command>,
    admission: LimiterDecision,
}

/// The kinds of lines that the service can record for the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trace {
    Changes,
    CallLog,
}

/// Complete lines for the files.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Traces {
    pub(super) changes: Vec<u8>,
    pub(super) call_log: Vec<u8>,
}

/// The result of a request.
#[derive(Debug)]
struct ServiceOutcome {
    act: Act,
    /// Additional delay beyond the latency.
    later: Duration,
    codes: Codes,
}

impl ServiceOutcome {
    fn at_once(act: Act, codes: Codes) -> Self {
        Self { act, later: Duration::ZERO, codes }
    }

    /// The request had no effect, and the client gets no code.
    fn lost(act: Act) -> Self {
        Self::at_once(act, Codes::None)
    }
}

/// The mock service.
#[derive(Debug)]
pub struct Service {
    /// The limiter of each command; `None` for a command without a limit.
    limiters: [Option<(Limiter, Others)>; Command::ALL.len()],
    signatures: Signatures,
    app: App,
    injector: FaultInjector,
    recorder: Recorder,
    /// The latest arrival, since limiters know no earlier one.
    latest: Duration,
    call_log: CallLogEntries,
    latency: Duration,
    jitter: Duration,
    rng: fastrand::Rng,
}

impl Service {
    /// A service whose app has no accounts.
    #[must_use]
    pub fn new(settings: SandboxSettings) -> Self {
        Self::with_accounts(settings, StoredAccounts::default())
    }

    /// A service whose app has these accounts.
    pub(super) fn with_accounts(settings: SandboxSettings, stored: StoredAccounts) -> Self {
        Self {
            app: App::new(&settings, stored),
            limiters: Command::ALL.map(|command| {
                let limit = command::calls_per_s(command, &settings)?;
                Some((Limiter::new(settings.counting, limit), Others::new(settings.others_per_s)))
            }),
            signatures: Signatures::new(settings.key, settings.sdkappid, settings.identifier),
            injector: FaultInjector::new(settings.faults, settings.seed),
            recorder: Recorder::new(settings.arrivals_kept),
            latest: Duration::ZERO,
            call_log: CallLogEntries::new(settings.call_log_kept),
            latency: settings.latency,
            jitter: settings.jitter,
            rng: fastrand::Rng::with_seed(settings.seed),
        }
    }

    /// Handles a request that arrives now. It takes effect now, whatever the reaction's delay. Call [`Self::finish`] when the request is
    /// over.
    pub fn handle(&mut self, now: Moment, request: ServiceRequest<'_>) -> Reaction {
        let arrival = self.arrive(now, request.target);
        self.react(&arrival, request)
    }

    /// Ends a request: it was answered, or its connection is closed.
    pub fn finish(&mut self, reaction: &Reaction) {
        self.release(&reaction.in_flight);
    }

    /// The audit up to now.
    #[must_use]
    pub fn audit(&self) -> Audit {
        self.recorder.audit(self.stored().by_id.len(), self.injector.injections())
    }

    #[must_use]
    pub fn account(&self, id: &str) -> Option<&StoredAccount> {
        self.app.accounts.get(id)
    }

    /// All accounts, sorted by UserID.
    pub fn accounts(&self) -> impl Iterator<Item = (&str, &StoredAccount)> {
        self.stored().by_id.iter().map(|(id, account)| (&**id, account))
    }

    /// The users of each request in order of arrival: the first `call_log_kept` of them.
    #[must_use]
    pub fn call_log(&self) -> &[CallLogEntry] {
        self.call_log.kept()
    }

    pub(super) fn stored(&self) -> &StoredAccounts {
        self.app.accounts.stored()
    }

    /// Records this from now on, for [`Self::take_traces`].
    pub(super) fn note(&mut self, trace: Trace) {
        match trace {
            Trace::Changes => self.app.accounts.note_changes(),
            Trace::CallLog => self.call_log.note_lines(),
        }
    }

    /// The recorded lines since the last call of this function.
    pub(super) fn take_traces(&mut self) -> Traces {
        Traces { changes: self.app.accounts.take_changes(), call_log: self.call_log.take_lines() }
    }

    /// Takes a request whose head has been read. The time at which its first byte arrived counts for the limit and the audit.
    pub(super) fn arrive(&mut self, at: Moment, target: &str) -> Arrival {
        let command = envelope::command(target);
        self.recorder.arrived(at.since_start, command);
        self.latest = self.latest.max(at.since_start);
        let latest = self.latest;
        let admission = match command {
            Some(command) => self.limiters[command as usize].as_mut().map_or(LimiterDecision::Admitted, |(limiter, others)| {
                others.call(limiter, latest);
                limiter.admit(latest)
            }),
            None => LimiterDecision::Admitted,
        };
        Arrival { at, command, admission }
    }

    /// Ends a request that [`Self::arrive`] took.
    pub(super) fn release(&mut self, in_flight: &[u64]) {
        self.recorder.finished(in_flight);
    }

    /// Handles a request that has arrived completely.
    pub(super) fn react(&mut self, arrival: &Arrival, request: ServiceRequest<'_>) -> Reaction {
        let parsed = self.read(arrival, request);
        let ids = parsed.as_ref().map(ParsedRequest::users).unwrap_or_default();
        let users: Vec<TargetedUser<'_>> = ids.into_iter().map(TargetedUser::new).collect();
        let in_flight: Vec<u64> = match arrival.command {
            Some(command) if command::sets_users(command) => users.iter().map(|user| user.hash).collect(),
            Some(_) | None => Vec::new(),
        };
        self.recorder.importing(&in_flight);
        let outcome = self.decide(arrival, &parsed, &users);
        if let (Ok(_), Some(command)) = (&parsed, arrival.command) {
            self.recorder.carried(command, users.len());
            self.call_log.add(command, users.iter().map(|user| user.id), &outcome.codes);
        }
        Reaction { delay: self.latency() + outcome.later, act: outcome.act, in_flight }
    }

    fn decide(
        &mut self,
        arrival: &Arrival,
        parsed: &Result<ParsedRequest<'_>, RequestRefusal>,
        users: &[TargetedUser<'_>],
    ) -> ServiceOutcome {
        if let (LimiterDecision::OverLimit, Some(command)) = (arrival.admission, arrival.command) {
            self.recorder.over_limit(command);
            return self.refuse(arrival, &RequestRefusal::content(OVER_LIMIT, "called more often than the limit allows"));
        }
        match self.injector.inject(arrival.at.since_start, arrival.command, users) {
            Some(injection) => self.inject_fault(arrival, parsed, injection),
            None => self.execute(arrival, parsed, AffectedUsers::NOBODY),
        }
    }

    /// Reads the whole request and records violations.
    fn read<'a>(&mut self, arrival: &Arrival, request: ServiceRequest<'a>) -> Result<ParsedRequest<'a>, RequestRefusal> {
        let envelope = envelope::open(request.method, request.target).inspect_err(|refusal| self.note_violation(refusal))?;
        self.recorder.random(envelope.random);
        let parsed = ParsedRequest::read(envelope.command, request.body).inspect_err(|refusal| self.note_violation(refusal));
        if let Some(oddity) = parsed.as_ref().ok().and_then(ParsedRequest::oddity) {
            self.recorder.violation(oddity);
        }
        self.signatures.check(&envelope, arrival.at.unix_s)?;
        parsed
    }

    fn note_violation(&mut self, refusal: &RequestRefusal) {
        match refusal.kind {
            RefusalKind::Form => self.recorder.violation(&refusal.info),
            RefusalKind::Content => {}
        }
    }

    fn inject_fault(
        &mut self,
        arrival: &Arrival,
        parsed: &Result<ParsedRequest<'_>, RequestRefusal>,
        injection: Injection,
    ) -> ServiceOutcome {
        let answer = |reply| ServiceOutcome::lost(Act::Answer(reply));
        match injection.what {
            What::Code(code) => match parsed {
                Ok(read) if affects_single_users(read, &injection) => {
                    self.execute(arrival, parsed, AffectedUsers { users: &injection.users, code })
                }
                Ok(_) | Err(_) => self.refuse(arrival, &RequestRefusal::content(code, "a fault on request")),
            },
            What::Whole(code) => self.refuse(arrival, &RequestRefusal::content(code, "a fault on request")),
            What::Http(status) => answer(Reply::html(status, "<html><body><h1>Bad gateway</h1></body></html>")),
            What::Html => answer(Reply::html(200, "<html><body>Please log in to the network</body></html>")),
            What::Empty => answer(Reply::json(Bytes::new())),
            What::ResetBefore => ServiceOutcome::lost(Act::Reset),
            What::ResetAfter => ServiceOutcome { act: Act::Reset, ..self.execute(arrival, parsed, AffectedUsers::NOBODY) },
            What::Stall => ServiceOutcome::lost(Act::Stall),
            What::Slow(later) => ServiceOutcome { later, ..self.execute(arrival, parsed, AffectedUsers::NOBODY) },
            What::Drip(time) => in_drips(self.execute(arrival, parsed, AffectedUsers::NOBODY), time),
            What::BigBody => answer(Reply::json(vec![b' '; BIG_BODY_BYTES])),
            What::Redirect(url) => answer(Reply { status: 307, location: Some(url), ..Reply::html(307, "") }),
        }
    }

    /// Executes the request for all users except the affected ones, and answers.
    fn execute(
        &mut self,
        arrival: &Arrival,
        parsed: &Result<ParsedRequest<'_>, RequestRefusal>,
        affected: AffectedUsers<'_>,
    ) -> ServiceOutcome {
        let parsed = match parsed {
            Ok(parsed) => parsed,
            Err(refusal) => return self.refuse(arrival, refusal),
        };
        match self.app.execute(parsed, affected) {
            Ok(executed) => {
                match &executed.effect {
                    RequestEffect::Imported(users) => self.recorder.imported(executed.codes.done(*users)),
                    RequestEffect::Kicked(user) => self.signatures.void(user, arrival.at.unix_s),
                    RequestEffect::None => {}
                }
                self.recorder.answered(0);
                ServiceOutcome::at_once(Act::Answer(executed.reply), executed.codes)
            }
            Err(refusal) => self.refuse(arrival, &refusal),
        }
    }

    fn refuse(&mut self, arrival: &Arrival, refusal: &RequestRefusal) -> ServiceOutcome {
        self.recorder.answered(refusal.code);
        let reply = match arrival.command {
            Some(command) if command::is_of_profiles(command) => Reply::refused_with_display(refusal),
            Some(_) | None => Reply::refused(refusal),
        };
        ServiceOutcome::at_once(Act::Answer(reply), Codes::All(refusal.code))
    }

    fn latency(&mut self) -> Duration {
        if self.jitter.is_zero() {
            return self.latency;
        }
        let spread = self.jitter.mul_f64(self.rng.f64() * 2.0);
        (self.latency + spread).saturating_sub(self.jitter)
    }
}

/// Whether a code applies to single users of a request. In a batch it always does; elsewhere only if the fault names users.
fn affects_single_users(parsed: &ParsedRequest<'_>, injection: &Injection) -> bool {
    match (parsed, injection.aim) {
        (ParsedRequest::ImportMany(_), _) => !injection.users.is_empty(),
        (parsed, Aim::Users) => parsed.is_answered_user_by_user(),
        (_, Aim::Calls) => false,
    }
}

fn in_drips(outcome: ServiceOutcome, time: Duration) -> ServiceOutcome {
    let act = match outcome.act {
        Act::Answer(reply) => Act::Drip(reply, time),
        other @ (Act::Drip(..) | Act::Reset | Act::Stall) => other,
    };
    ServiceOutcome { act, ..outcome }
}
