//! The pump of the import: one loop on one task.
//!
//! `select!` only names what happened; synchronous functions decide; there is no second path to the API. Owns the order of things: what a
//! row's fate is decides `deliver`, what a code means decides `verdict`.

use std::collections::VecDeque;
use std::time::SystemTime;

use futures_util::future::LocalBoxFuture;
use futures_util::stream::{FuturesUnordered, LocalBoxStream, StreamExt};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Dependencies, ImportSettings, Progress, RunFailed, RunOutcome, RunPhase, StopCause};
use crate::domain::call_stats::CallStats;
use crate::domain::command::{Command, PerCommand};
use crate::domain::outcome::OutcomeCounts;
use crate::domain::position::InputPosition;
use crate::domain::retry::DRAIN;
use crate::domain::verdict::{CallOutcome, HaltReason, ThrottleScope};
use crate::flow::deliver::{At, Call, CallEffect, CallId, Deliveries, Incoming, Lane};
use crate::io::api::usersig::Signer;
use crate::io::api::{Api, GivenUp, Line, Request};
use crate::io::gate::{self, Admission, Gate, any_sent};
use crate::io::journal::OutcomeSink;

/// Records that are read before the loop looks at its events again. Chosen: well under a millisecond's work.
const READ_AT_ONCE: usize = 256;
/// What is asked for first leaves first: a check tests whether the service is well, reading back decides how the others are sent, and single
/// calls go before batches.
const SENDING_ORDER: [Command; 4] = [Command::AccountCheck, Command::PortraitGet, Command::AccountImport, Command::MultiaccountImport];

/// Why the run is winding up.
#[derive(Debug)]
enum AbortCause {
    Signal,
    Outage { why: String },
    Refused { refusal: HaltReason, code: Option<i64>, says: String },
}

/// What happened.
pub(super) enum Event<L: OutcomeSink> {
    CallEnded(Returned),
    Committed(Result<L, L::Error>),
    Signal,
    /// A call was written, or something is due.
    Moved,
}

pub(super) struct Returned {
    id: CallId,
    command: Command,
    end: Result<CallOutcome, GivenUp>,
    left: Instant,
    generation: u32,
    is_retry: bool,
}

type Committing<L> = JoinHandle<Result<L, <L as OutcomeSink>::Error>>;

/// A run of the import, in motion.
pub(super) struct Pump<A, I, L: OutcomeSink, E> {
    settings: ImportSettings,
    api: A,
    records: I,
    /// At home; `None` while a commit is under way.
    ledger: Option<L>,
    committing: Option<Committing<L>>,
    committed_at: Instant,
    signer: Signer,
    gates: PerCommand<Gate>,
    gate_turn: Option<Instant>,
    deliveries: Deliveries,
    /// Calls whose connections had been given up, to leave once more; they count as in flight meanwhile.
    repeats: PerCommand<VecDeque<CallId>>,
    calls: FuturesUnordered<LocalBoxFuture<'static, Returned>>,
    wall: Box<dyn Fn() -> SystemTime>,
    jitter: Box<dyn FnMut() -> f64>,
    signals: LocalBoxStream<'static, ()>,
    on_progress: Box<dyn FnMut(&Progress)>,
    reported_at: Instant,
    records_read: u64,
    more_to_read: bool,
    limit_reached: bool,
    input_error: Option<E>,
    cause: Option<AbortCause>,
    drain_until: Option<Instant>,
    at_once: bool,
    /// What was met last instead of a success, by any call.
    complaint: String,
    /// … by the calls that show whether the service takes accounts.
    why_down: String,
    tally: OutcomeCounts,
    settled: Option<InputPosition>,
    traffic: CallStats,
}

impl<A, I, N, L, E> Pump<A, I, L, E>
where
    A: Api,
    I: Iterator<Item = Result<N, E>>,
    N: Into<Incoming>,
    L: OutcomeSink,
{
    pub(super) fn new(parts: Dependencies<A, I, L>, settings: ImportSettings) -> Self {
        let now = Instant::now();
        Self {
            gates: PerCommand::new(|command| Gate::new(settings.rates[command], &settings.gates, now)),
            deliveries: Deliveries::new(settings.limits, settings.rows_done + 1, settings.known.clone()),
            settings,
            api: parts.api,
            records: parts.records,
            ledger: Some(parts.ledger),
            committing: None,
            committed_at: now,
            signer: parts.signer,
            gate_turn: None,
            repeats: PerCommand::default(),
            calls: FuturesUnordered::new(),
            wall: parts.wall,
            jitter: parts.jitter,
            signals: parts.signals,
            on_progress: parts.on_progress,
            reported_at: now,
            records_read: 0,
            more_to_read: false,
            limit_reached: false,
            input_error: None,
            cause: None,
            drain_until: None,
            at_once: false,
            complaint: String::new(),
            why_down: String::new(),
            tally: OutcomeCounts::default(),
            settled: None,
            traffic: CallStats::default(),
        }
    }

    /// Hands settled outcomes to the ledger, in order, until it is full.
    pub(super) fn take_over(&mut self) {
        if self.deliveries.has_exhausted() {
            let at = self.at(Instant::now());
            self.deliveries.resolve_exhausted(at);
        }
        let Some(ledger) = &mut self.ledger else { return };
        while !ledger.is_full() {
            if let Some(end) = self.deliveries.take_passed() {
                self.settled = Some(end);
                ledger.pass(end);
            } else if let Some(settled) = self.deliveries.take_settled() {
                self.tally.count(settled.outcome.status);
                self.settled = Some(settled.end);
                ledger.append(settled);
            } else {
                return;
            }
        }
    }

    /// Reads what is wanted and sends what the gates let through.
    pub(super) fn feed_and_send(&mut self) {
        self.gate_turn = None;
        self.note_sends();
        let mut may_read = READ_AT_ONCE;
        loop {
            may_read = self.feed(may_read);
            if !SENDING_ORDER.into_iter().any(|command| self.send_one(command)) {
                self.more_to_read = may_read == 0;
                return;
            }
        }
    }

    fn note_sends(&mut self) {
        let now = Instant::now();
        for (_, gate) in self.gates.iter_mut() {
            gate.note_sends(now);
        }
    }

    fn feed(&mut self, mut may_read: usize) -> usize {
        let now = Instant::now();
        while may_read > 0 && self.deliveries.wants_record(now) {
            may_read -= 1;
            if self.settings.limit.is_some_and(|limit| self.records_read >= limit) {
                self.limit_reached = true;
                self.deliveries.input_ended();
                break;
            }
            match self.records.next() {
                Some(Ok(next)) => {
                    let incoming = next.into();
                    match incoming {
                        Incoming::Record { .. } | Incoming::Settled(_) => self.records_read += 1,
                        // That took long enough.
                        Incoming::Passed(_) => may_read = 0,
                    }
                    self.deliveries.admit(incoming, (self.wall)());
                }
                Some(Err(error)) => {
                    self.input_error = Some(error);
                    self.deliveries.input_ended();
                }
                None => self.deliveries.input_ended(),
            }
        }
        may_read
    }

    /// Sends one call of `command` if there is one and its gate lets it through.
    fn send_one(&mut self, command: Command) -> bool {
        let now = Instant::now();
        if self.repeats[command].is_empty() && !self.deliveries.has_call(command, now) {
            return false;
        }
        let mut permit = match self.gates[command].ask(now) {
            Admission::Now(permit) => permit,
            Admission::At(at) => {
                self.gate_turn = Some(self.gate_turn.map_or(at, |turn| turn.min(at)));
                return false;
            }
            Admission::WhenSent => return false,
        };
        let (call, line) = match self.repeats[command].pop_front() {
            Some(id) => (Some(self.deliveries.same_call(id)), Line::Fresh),
            None => (self.deliveries.next_call(command, now), Line::Any),
        };
        let Some(Call { id, accounts, is_retry }) = call else { return false };
        let signature = self.signer.current(now, (self.wall)());
        let call = self.api.call(Request { command, accounts: &accounts, line }, &signature, move || permit.mark_sent());
        let generation = signature.generation;
        self.calls.push(Box::pin(async move { Returned { id, command, end: call.await, left: now, generation, is_retry } }));
        true
    }

    pub(super) fn commit_if_due(&mut self) {
        let now = Instant::now();
        let Some(mut ledger) = self.ledger.take() else { return };
        let rows = ledger.pending_rows();
        if rows == 0 || (!ledger.is_full() && rows < self.settings.commit_rows && now < self.committed_at + self.settings.commit_every) {
            self.committed_at = if rows == 0 { now } else { self.committed_at };
            self.ledger = Some(ledger);
            return;
        }
        self.committed_at = now;
        self.committing = Some(tokio::task::spawn_blocking(move || ledger.commit().map(|()| ledger)));
    }

    pub(super) fn report_if_due(&mut self) {
        let now = Instant::now();
        if now < self.reported_at + self.settings.progress_every {
            return;
        }
        self.reported_at = now;
        let snapshot = Progress {
            phase: self.phase(now),
            tally: self.tally,
            offset: self.settled.map(|mark| mark.offset),
            calls: self.gates.iter().map(|(_, gate)| gate.written()).sum(),
            retries: self.traffic.retries(),
            in_flight: self.deliveries.in_flight(),
        };
        (self.on_progress)(&snapshot);
    }

    fn phase(&self, now: Instant) -> RunPhase {
        if self.cause.is_some() {
            return RunPhase::Draining;
        }
        match self.deliveries.down_since() {
            Some(since) => RunPhase::Waiting { since: now - since, why: self.why_down.clone() },
            None => match gate::slowed(&self.gates) {
                Some(per_s) => RunPhase::Throttled { per_s },
                None => RunPhase::Running,
            },
        }
    }

    pub(super) fn is_over(&mut self) -> bool {
        if self.at_once || self.drain_until.is_some_and(|until| Instant::now() >= until) {
            return true;
        }
        // A test may still be in flight when every record has settled.
        if self.deliveries.in_flight() > 0 {
            return false;
        }
        let is_done = self.deliveries.is_empty() && self.ledger.is_some() && self.deliveries.input_has_ended();
        self.cause.is_some() || (is_done && !self.goes_on())
    }

    /// Looks, when everything has settled, whether the input has come to more meanwhile, or is no more what was read.
    fn goes_on(&mut self) -> bool {
        if self.limit_reached || self.input_error.is_some() {
            return false;
        }
        match self.records.next().map(|next| next.map(Into::into)) {
            None => return false,
            Some(Err(error)) => {
                self.input_error = Some(error);
                return false;
            }
            // It is being looked at.
            Some(Ok(Incoming::Passed(_))) => {}
            Some(Ok(incoming)) => {
                self.records_read += 1;
                self.deliveries.input_goes_on();
                self.deliveries.admit(incoming, (self.wall)());
            }
        }
        self.more_to_read = true;
        true
    }

    /// Waits for whatever happens next.
    pub(super) async fn next_event(&mut self) -> Event<L> {
        if self.more_to_read {
            tokio::task::yield_now().await;
        }
        let due = self.next_due();
        let sent = any_sent(&self.gates, &SENDING_ORDER);
        let committed = async {
            match &mut self.committing {
                Some(commit) => commit.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(()) = self.signals.next() => Event::Signal,
            commit = committed => Event::Committed(commit.expect("a commit never panics")),
            Some(returned) = self.calls.next() => Event::CallEnded(returned),
            () = sent => Event::Moved,
            () = tokio::time::sleep_until(due) => Event::Moved,
        }
    }

    /// When to look again even if nothing happens.
    fn next_due(&self) -> Instant {
        let now = Instant::now();
        if self.more_to_read {
            return now;
        }
        let pending = self.ledger.as_ref().is_some_and(|ledger| ledger.pending_rows() > 0);
        let outage_ends = self.deliveries.useless_since().filter(|_| self.cause.is_none()).map(|since| since + self.settings.max_outage);
        [
            self.gate_turn,
            self.deliveries.next_wake().filter(|at| *at > now),
            pending.then(|| self.committed_at + self.settings.commit_every),
            self.drain_until,
            outage_ends,
        ]
        .into_iter()
        .flatten()
        .fold(self.reported_at + self.settings.progress_every, Instant::min)
    }

    pub(super) fn handle(&mut self, event: Event<L>) -> Result<(), L::Error> {
        match event {
            Event::CallEnded(returned) => self.call_ended(returned),
            Event::Committed(result) => {
                self.committing = None;
                self.ledger = Some(result?);
            }
            Event::Signal => self.signalled(),
            Event::Moved => {}
        }
        self.give_up_after_outage();
        Ok(())
    }

    fn signalled(&mut self) {
        match self.cause {
            None => {
                tracing::info!("stopping: letting the calls in flight settle");
                self.stop(AbortCause::Signal);
            }
            Some(_) => self.at_once = true,
        }
    }

    fn stop(&mut self, cause: AbortCause) {
        if self.cause.is_none() {
            self.deliveries.stop();
            self.drain_until = Some(Instant::now() + DRAIN);
            self.cause = Some(cause);
        }
    }

    fn give_up_after_outage(&mut self) {
        let gone = self.deliveries.useless_since().is_some_and(|since| Instant::now() >= since + self.settings.max_outage);
        if gone {
            let why = self.why_down.clone();
            self.stop(AbortCause::Outage { why });
        }
    }

    fn call_ended(&mut self, returned: Returned) {
        let Returned { id, command, end, left, generation, is_retry } = returned;
        let now = Instant::now();
        self.gates[command].note_sends(now);
        let Ok(end) = end else {
            self.traffic.count_given_up(command, is_retry);
            self.repeats[command].push_back(id);
            return;
        };
        if let Some(complaint) = self.traffic.count(command, &end, now - left, is_retry) {
            // What reading back meets says nothing about the import, unless nobody gets through.
            if command != Command::PortraitGet || matches!(end, CallOutcome::Unreached { .. }) {
                self.why_down.clone_from(&complaint);
            }
            self.complaint = complaint;
        }
        let was_down = self.deliveries.down_since().is_some();
        let at = self.at(now);
        let aftermath = self.deliveries.ended(id, end, left, at);
        self.draw_consequences(aftermath, (command, left, generation), now);
        if was_down && self.deliveries.down_since().is_none() {
            tracing::info!("the service is back");
            for (_, gate) in self.gates.iter_mut() {
                gate.ramp_up(now);
            }
        }
    }

    fn at(&mut self, now: Instant) -> At {
        At { now, wall: (self.wall)(), jitter: (self.jitter)() }
    }

    fn draw_consequences(&mut self, aftermath: CallEffect, (command, left, generation): (Command, Instant, u32), now: Instant) {
        match aftermath {
            CallEffect::Nothing => {}
            CallEffect::Accepted | CallEffect::Back => self.signer.accepted(generation),
            CallEffect::Throttled(scope) => {
                self.traffic.apis[command].throttled += 1;
                for (api, gate) in self.gates.iter_mut() {
                    if scope == ThrottleScope::All || api == command {
                        gate.slow_down(left, now);
                    }
                }
            }
            CallEffect::SignatureRefused => {
                if let Err(refusal) = self.signer.refused(generation, now, (self.wall)()) {
                    self.stop(AbortCause::Refused { refusal, code: None, says: self.complaint.clone() });
                }
            }
            CallEffect::Down => tracing::warn!(why = ?self.why_down, "the service is down: waiting, one probe at a time"),
            CallEffect::Halt { refusal, code, says } => self.stop(AbortCause::Refused { refusal, code, says }),
        }
    }

    /// Commits what has settled and tells how the run ended.
    pub(super) async fn wind_up(mut self) -> Result<RunOutcome<L, E>, RunFailed<L::Error>> {
        match self.close_ledger().await {
            Ok((end, ledger)) => {
                self.tell_traffic();
                let (lane, unjudged) = (self.deliveries.lane(), self.deliveries.unjudged());
                Ok(RunOutcome { end, ledger, tally: self.tally, settled: self.settled, traffic: self.traffic, lane, unjudged })
            }
            Err(error) => Err(self.breaks(error)),
        }
    }

    pub(super) fn breaks(mut self, error: L::Error) -> RunFailed<L::Error> {
        self.tell_traffic();
        RunFailed { error, traffic: self.traffic, lane: self.deliveries.lane() }
    }

    /// Completes the counts with what the gates know.
    fn tell_traffic(&mut self) {
        self.note_sends();
        self.traffic.main = match self.deliveries.lane() {
            Lane::Single | Lane::FellBack => Command::AccountImport,
            Lane::Batch(_) => Command::MultiaccountImport,
        };
        for (command, gate) in self.gates.iter() {
            let api = &mut self.traffic.apis[command];
            (api.calls, api.most_in_1s, api.ceiling_per_s) = (gate.written(), gate.most_in_1s(), gate.ceiling_per_s());
        }
        self.traffic.mean_per_s = self.gates[self.traffic.main].mean_per_s();
    }

    async fn close_ledger(&mut self) -> Result<(StopCause<E>, L), L::Error> {
        if let Some(commit) = self.committing.take() {
            self.ledger = Some(commit.await.expect("a commit never panics")?);
        }
        let mut ledger = loop {
            self.take_over();
            let mut ledger = self.ledger.take().expect("the ledger is at home when no commit is under way");
            if !ledger.is_full() {
                break ledger;
            }
            // What has settled may be more than it takes at once.
            self.ledger = Some(blocking(move || ledger.commit().map(|()| ledger)).await?);
        };
        let end = match (self.cause.take(), self.input_error.take()) {
            (Some(AbortCause::Signal), _) => StopCause::Stopped,
            (Some(AbortCause::Outage { why }), _) => StopCause::Outage { why },
            (Some(AbortCause::Refused { refusal, code, says }), _) => StopCause::Refused { refusal, code, says },
            (None, Some(error)) => StopCause::Input(error),
            (None, None) if self.limit_reached && self.records.next().is_some() => StopCause::LimitReached,
            (None, None) => return blocking(move || ledger.finish().map(|()| ledger)).await.map(|ledger| (StopCause::Finished, ledger)),
        };
        let ledger = blocking(move || ledger.commit().map(|()| ledger)).await?;
        Ok((end, ledger))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("the ledger never panics")
}
