//! The service itself, as a state machine: a request and the time go in, a reaction comes out.
//!
//! It has no I/O and no clock: the shell, or a test, says what time it is and does what the reaction says.

use std::time::Duration;

use bytes::Bytes;

use super::accounts::{Held, StoredAccount};
use super::app::{App, Struck};
use super::audit::{Audit, Recorder};
use super::call_log_entry::{CallLogEntries, CallLogEntry, Codes};
use super::command::SandboxCommand;
use super::envelope;
use super::fault::What;
use super::fault_injector::{Aim, FaultInjector, Strike, TargetedUser};
use super::limiter::{Limiter, LimiterDecision, Others};
use super::parsed_request::ParsedRequest;
use super::reply::{Act, Blame, Reaction, Reply, RequestRefusal};
use super::settings::SandboxSettings;
use super::signature::Signatures;

/// Called too fast. Source: Tencent's error code page.
const OVER_LIMIT: i64 = 60007;
/// Size of the body that is too big, in bytes. Chosen: beyond what any client should take.
const BIG_BODY_BYTES: usize = 4 * 1024 * 1024;

/// A moment, by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Since the sandbox's start; never steps back.
    pub since_start: Duration,
    /// Unix time in seconds, for the UserSig.
    pub unix_s: u64,
}

/// An HTTP request.
#[derive(Debug, Clone, Copy)]
pub struct ServiceRequest<'a> {
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    pub body: &'a [u8],
}

/// A request whose head is here and whose body isn't yet.
#[derive(Debug)]
pub(super) struct Arrival {
    at: Moment,
    command: Option<SandboxCommand>,
    admission: LimiterDecision,
}

/// What a call leaves to be written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trace {
    Changes,
    Touches,
}

/// Lines for the files, whole ones.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Traces {
    pub(super) changes: Vec<u8>,
    pub(super) touches: Vec<u8>,
}

/// What became of a call.
#[derive(Debug)]
struct ServiceOutcome {
    act: Act,
    /// Beyond the latency.
    later: Duration,
    codes: Codes,
}

impl ServiceOutcome {
    fn at_once(act: Act, codes: Codes) -> Self {
        Self { act, later: Duration::ZERO, codes }
    }

    /// The call had no effect, and whoever made it hears no code.
    fn lost(act: Act) -> Self {
        Self::at_once(act, Codes::None)
    }
}

/// The mock service.
#[derive(Debug)]
pub struct Service {
    /// `None` for a command without a limit.
    limiters: [Option<(Limiter, Others)>; SandboxCommand::ALL.len()],
    signatures: Signatures,
    app: App,
    mischief: FaultInjector,
    recorder: Recorder,
    touches: CallLogEntries,
    latency: Duration,
    jitter: Duration,
    rng: fastrand::Rng,
}

impl Service {
    /// An app without accounts.
    #[must_use]
    pub fn new(settings: SandboxSettings) -> Self {
        Self::with_accounts(settings, Held::default())
    }

    /// An app that holds accounts already.
    pub(super) fn with_accounts(settings: SandboxSettings, held: Held) -> Self {
        Self {
            app: App::new(&settings, held),
            limiters: SandboxCommand::ALL.map(|command| {
                let limit = command.calls_per_s(settings.limit_per_s)?;
                Some((Limiter::new(settings.counting, limit), Others::new(settings.others_per_s)))
            }),
            signatures: Signatures::new(settings.key, settings.sdkappid, settings.identifier),
            mischief: FaultInjector::new(settings.faults, settings.seed),
            recorder: Recorder::new(settings.arrivals_kept),
            touches: CallLogEntries::new(settings.touches_kept),
            latency: settings.latency,
            jitter: settings.jitter,
            rng: fastrand::Rng::with_seed(settings.seed),
        }
    }

    /// Reacts to a request that arrives now. The effects are those of now, whatever the reaction's delay;
    /// [`Self::finish`] is due when the call is over.
    pub fn handle(&mut self, now: Moment, request: ServiceRequest<'_>) -> Reaction {
        let arrival = self.arrive(now, request.target);
        self.react(&arrival, request)
    }

    /// The call is over: answered, or its connection gone.
    pub fn finish(&mut self, reaction: &Reaction) {
        self.release(&reaction.in_flight);
    }

    /// What was seen so far.
    #[must_use]
    pub fn audit(&self) -> Audit {
        self.recorder.audit(self.held().by_id.len(), self.mischief.strikes())
    }

    /// The account with this UserID.
    #[must_use]
    pub fn account(&self, id: &str) -> Option<&StoredAccount> {
        self.app.accounts.get(id)
    }

    /// All accounts, in no particular order.
    pub fn accounts(&self) -> impl Iterator<Item = (&str, &StoredAccount)> {
        self.held().by_id.iter().map(|(id, account)| (&**id, account))
    }

    /// Which users were touched by which command, in the order of the calls: the first ones, as many as the settings ask for.
    #[must_use]
    pub fn touches(&self) -> &[CallLogEntry] {
        self.touches.kept()
    }

    pub(super) fn held(&self) -> &Held {
        self.app.accounts.held()
    }

    /// From now on [`Self::take_traces`] has these.
    pub(super) fn note(&mut self, trace: Trace) {
        match trace {
            Trace::Changes => self.app.accounts.note_changes(),
            Trace::Touches => self.touches.note_lines(),
        }
    }

    /// What the calls since the last time have left to be written down.
    pub(super) fn take_traces(&mut self) -> Traces {
        Traces { changes: self.app.accounts.take_changes(), touches: self.touches.take_lines() }
    }

    /// A request's head is here: the time that counts for the limit and the audit.
    pub(super) fn arrive(&mut self, at: Moment, target: &str) -> Arrival {
        let command = envelope::command(target);
        self.recorder.arrived(at.since_start, command);
        let admission = match command {
            Some(command) => self.limiters[command as usize].as_mut().map_or(LimiterDecision::Admitted, |(limiter, others)| {
                others.call(limiter, at.since_start);
                limiter.admit(at.since_start)
            }),
            None => LimiterDecision::Admitted,
        };
        Arrival { at, command, admission }
    }

    /// A request whose head arrived is over.
    pub(super) fn release(&mut self, in_flight: &[u64]) {
        self.recorder.finished(in_flight);
    }

    /// The whole request is here.
    pub(super) fn react(&mut self, arrival: &Arrival, request: ServiceRequest<'_>) -> Reaction {
        let order = self.read(arrival, request);
        let ids = order.as_ref().map(ParsedRequest::users).unwrap_or_default();
        let users: Vec<TargetedUser<'_>> = ids.into_iter().map(TargetedUser::new).collect();
        let in_flight: Vec<u64> = match arrival.command {
            Some(command) if command.imports() => users.iter().map(|user| user.hash).collect(),
            Some(_) | None => Vec::new(),
        };
        self.recorder.importing(&in_flight);
        let outcome = self.decide(arrival, &order, &users);
        if let (Ok(_), Some(command)) = (&order, arrival.command) {
            self.recorder.carried(command, users.len());
            self.touches.add(command, users.iter().map(|user| user.id), &outcome.codes);
        }
        Reaction { delay: self.latency() + outcome.later, act: outcome.act, in_flight }
    }

    fn decide(
        &mut self,
        arrival: &Arrival,
        order: &Result<ParsedRequest<'_>, RequestRefusal>,
        users: &[TargetedUser<'_>],
    ) -> ServiceOutcome {
        if let (LimiterDecision::OverLimit, Some(command)) = (arrival.admission, arrival.command) {
            self.recorder.over_limit(command);
            return self.refuse(&RequestRefusal::content(OVER_LIMIT, "called more often than the limit allows"));
        }
        match self.mischief.strike(arrival.at.since_start, arrival.command, users) {
            Some(strike) => self.go_wrong(arrival.at, order, strike),
            None => self.obey(arrival.at, order, Struck::NOBODY),
        }
    }

    /// Reads the whole request, and notes what is wrong with it.
    fn read<'a>(&mut self, arrival: &Arrival, request: ServiceRequest<'a>) -> Result<ParsedRequest<'a>, RequestRefusal> {
        let envelope = envelope::open(request.method, request.target).inspect_err(|refusal| self.note_violation(refusal))?;
        self.recorder.random(envelope.random);
        let order = ParsedRequest::read(envelope.command, request.body).inspect_err(|refusal| self.note_violation(refusal));
        if let Some(oddity) = order.as_ref().ok().and_then(ParsedRequest::oddity) {
            self.recorder.violation(oddity);
        }
        self.signatures.check(&envelope, arrival.at.unix_s)?;
        order
    }

    fn note_violation(&mut self, refusal: &RequestRefusal) {
        match refusal.blame {
            Blame::Form => self.recorder.violation(&refusal.info),
            Blame::Content => {}
        }
    }

    fn go_wrong(&mut self, now: Moment, order: &Result<ParsedRequest<'_>, RequestRefusal>, strike: Strike) -> ServiceOutcome {
        let answer = |reply| ServiceOutcome::lost(Act::Answer(reply));
        match strike.what {
            What::Code(code) => match order {
                Ok(order_read) if is_struck_user_by_user(order_read, &strike) => {
                    self.obey(now, order, Struck { users: &strike.users, code })
                }
                Ok(_) | Err(_) => self.refuse(&RequestRefusal::content(code, "a fault on request")),
            },
            What::Whole(code) => self.refuse(&RequestRefusal::content(code, "a fault on request")),
            What::Http(status) => answer(Reply::html(status, "<html><body><h1>Bad gateway</h1></body></html>")),
            What::Html => answer(Reply::html(200, "<html><body>Please log in to the network</body></html>")),
            What::Empty => answer(Reply::json(Bytes::new())),
            What::ResetBefore => ServiceOutcome::lost(Act::Reset),
            What::ResetAfter => ServiceOutcome { act: Act::Reset, ..self.obey(now, order, Struck::NOBODY) },
            What::Stall => ServiceOutcome::lost(Act::Stall),
            What::Slow(later) => ServiceOutcome { later, ..self.obey(now, order, Struck::NOBODY) },
            What::Drip(time) => in_drips(self.obey(now, order, Struck::NOBODY), time),
            What::BigBody => answer(Reply::json(vec![b' '; BIG_BODY_BYTES])),
            What::Redirect(url) => answer(Reply { status: 307, location: Some(url), ..Reply::html(307, "") }),
        }
    }

    /// Does what is asked and says so, but for the struck users.
    fn obey(&mut self, now: Moment, order: &Result<ParsedRequest<'_>, RequestRefusal>, struck: Struck<'_>) -> ServiceOutcome {
        let order = match order {
            Ok(order) => order,
            Err(refusal) => return self.refuse(refusal),
        };
        match self.app.carry_out(order, struck) {
            Ok(deed) => {
                match order {
                    ParsedRequest::Import(_) | ParsedRequest::ImportMany(_) => self.recorder.imported(deed.codes.done(order.users().len())),
                    ParsedRequest::Kick(user) => self.signatures.void(user, now.unix_s),
                    ParsedRequest::Check(_)
                    | ParsedRequest::Delete(_)
                    | ParsedRequest::GetPortraits { .. }
                    | ParsedRequest::SetPortrait { .. }
                    | ParsedRequest::OnlineStatus(_) => {}
                }
                self.recorder.answered(0);
                ServiceOutcome::at_once(Act::Answer(deed.reply), deed.codes)
            }
            Err(refusal) => self.refuse(&refusal),
        }
    }

    fn refuse(&mut self, refusal: &RequestRefusal) -> ServiceOutcome {
        self.recorder.answered(refusal.code);
        ServiceOutcome::at_once(Act::Answer(Reply::refused(refusal)), Codes::All(refusal.code))
    }

    fn latency(&mut self) -> Duration {
        if self.jitter.is_zero() {
            return self.latency;
        }
        let spread = self.jitter.mul_f64(self.rng.f64() * 2.0);
        (self.latency + spread).saturating_sub(self.jitter)
    }
}

/// Whether a code strikes only some of a call's users: of a batch always, of another call if the fault names users.
fn is_struck_user_by_user(order: &ParsedRequest<'_>, strike: &Strike) -> bool {
    match (order, strike.aim) {
        (ParsedRequest::ImportMany(_), _) => !strike.users.is_empty(),
        (order, Aim::Users) => order.is_answered_user_by_user(),
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
