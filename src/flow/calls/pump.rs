//! The pump of the errands: one loop on one task, as the import's.
//!
//! `select!` only names what happened; synchronous functions decide; there is no second path to the API.

use std::collections::VecDeque;
use std::time::SystemTime;

use futures_util::future::LocalBoxFuture;
use futures_util::stream::{FuturesUnordered, LocalBoxStream, StreamExt};
use tokio::time::Instant;

use super::docket::{Call, CallId, Docket};
use super::{CallsSettings, Dependencies, Errands, OnProgress, Progress, RunFailed, RunOutcome, StopCause, Supply};
use crate::domain::call_stats::{CallStats, RunPhase};
use crate::domain::command::{Command, PerCommand};
use crate::domain::retry::{At, DRAIN};
use crate::domain::verdict::{CallEffect, CallOutcome, ThrottleScope};
use crate::io::api::usersig::Signer;
use crate::io::api::{Api, GivenUp, Line, Request};
use crate::io::gate::{self, Admission, Gate, any_sent};

/// What happened.
pub(super) enum Event {
    CallEnded(Returned),
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

/// A run of errands, in motion.
pub(super) struct Pump<A, E: Errands> {
    settings: CallsSettings,
    api: A,
    errands: E,
    signer: Signer,
    gates: PerCommand<Gate>,
    gate_turn: Option<Instant>,
    docket: Docket<E::Tag>,
    /// Calls whose connections had been given up, to leave once more; they count as in flight meanwhile.
    repeats: PerCommand<VecDeque<CallId>>,
    /// The commands that are asked for, and the one that tests with.
    sending_order: Vec<Command>,
    calls: FuturesUnordered<LocalBoxFuture<'static, Returned>>,
    wall: Box<dyn Fn() -> SystemTime>,
    jitter: Box<dyn FnMut() -> f64>,
    signals: LocalBoxStream<'static, ()>,
    on_progress: OnProgress<E>,
    reported_at: Instant,
    /// The errands are looking for the next one, and want to be asked again.
    is_searching: bool,
    /// Why the run is winding up.
    cause: Option<StopCause>,
    drain_until: Option<Instant>,
    at_once: bool,
    /// What was met last instead of a success.
    complaint: String,
    /// … of each API.
    why_down: PerCommand<String>,
    traffic: CallStats,
}

impl<A: Api, E: Errands> Pump<A, E> {
    pub(super) fn new(parts: Dependencies<A, E>, settings: CallsSettings) -> Self {
        let now = Instant::now();
        Self {
            gates: PerCommand::new(|command| Gate::new(settings.rates[command], &settings.gates, now)),
            docket: Docket::new(&settings),
            sending_order: sending_order(E::COMMANDS),
            settings,
            api: parts.api,
            errands: parts.errands,
            signer: parts.signer,
            gate_turn: None,
            repeats: PerCommand::default(),
            calls: FuturesUnordered::new(),
            wall: parts.wall,
            jitter: parts.jitter,
            signals: parts.signals,
            on_progress: parts.on_progress,
            reported_at: now,
            is_searching: false,
            cause: None,
            drain_until: None,
            at_once: false,
            complaint: String::new(),
            why_down: PerCommand::default(),
            traffic: CallStats::default(),
        }
    }

    /// Hands over what has ended, takes on what is to do, sends what the gates let through.
    pub(super) fn go_on(&mut self) -> Result<(), E::Error> {
        loop {
            self.hand_over()?;
            self.feed_and_send()?;
            let at = At { now: Instant::now(), wall: (self.wall)(), jitter: (self.jitter)() };
            if !self.docket.resolve_exhausted(at) {
                break;
            }
        }
        self.report_if_due();
        Ok(())
    }

    fn hand_over(&mut self) -> Result<(), E::Error> {
        while let Some((errand, fate)) = self.docket.take_ended() {
            self.errands.ended(errand, fate)?;
        }
        Ok(())
    }

    fn feed_and_send(&mut self) -> Result<(), E::Error> {
        self.gate_turn = None;
        self.note_sends();
        for command in E::COMMANDS {
            self.docket.apis[*command].is_dry = false;
        }
        loop {
            self.is_searching = false;
            for command in E::COMMANDS {
                self.feed(*command)?;
            }
            if !self.send_next() {
                return Ok(());
            }
        }
    }

    fn feed(&mut self, command: Command) -> Result<(), E::Error> {
        let now = Instant::now();
        while self.docket.wants(command, now) {
            match self.errands.next(command)? {
                Supply::Errand(errand) => self.docket.take_on(errand),
                Supply::Searching => {
                    self.is_searching = true;
                    return Ok(());
                }
                Supply::Dry => {
                    self.docket.apis[command].is_dry = true;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Sends the first call that its gate lets through.
    fn send_next(&mut self) -> bool {
        (0..self.sending_order.len()).any(|place| self.send_one(self.sending_order[place]))
    }

    fn note_sends(&mut self) {
        let now = Instant::now();
        for (_, gate) in self.gates.iter_mut() {
            gate.note_sends(now);
        }
    }

    /// Sends one call of `command` if there is one and its gate lets it through.
    fn send_one(&mut self, command: Command) -> bool {
        let now = Instant::now();
        if self.repeats[command].is_empty() && !self.docket.has_call(command, now) {
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
            Some(id) => (Some(self.docket.same_call(id)), Line::Fresh),
            None => (self.docket.next_call(command, now), Line::Any),
        };
        let Some(Call { id, accounts, is_retry }) = call else { return false };
        let signature = self.signer.current(now, (self.wall)());
        let call = self.api.call(Request { command, accounts: &accounts, line }, &signature, move || permit.mark_sent());
        let generation = signature.generation;
        self.calls.push(Box::pin(async move { Returned { id, command, end: call.await, left: now, generation, is_retry } }));
        true
    }

    fn report_if_due(&mut self) {
        let now = Instant::now();
        if now < self.reported_at + self.settings.progress_every {
            return;
        }
        self.reported_at = now;
        let snapshot = Progress {
            phase: self.phase(now),
            calls: self.gates.iter().map(|(_, gate)| gate.written()).sum(),
            retries: self.traffic.retries(),
            in_flight: self.docket.in_flight(),
        };
        (self.on_progress)(&snapshot, &self.errands);
    }

    fn phase(&self, now: Instant) -> RunPhase {
        if self.cause.is_some() {
            return RunPhase::Draining;
        }
        match self.docket.down_since() {
            Some((since, api)) => RunPhase::Waiting { since: now - since, why: self.why_down[api].clone() },
            None => match gate::slowed(&self.gates) {
                Some(per_s) => RunPhase::Throttled { per_s },
                None => RunPhase::Running,
            },
        }
    }

    pub(super) fn is_over(&self) -> bool {
        if self.at_once || self.drain_until.is_some_and(|until| Instant::now() >= until) {
            return true;
        }
        match self.cause {
            Some(_) => self.docket.in_flight() == 0,
            None => self.docket.is_empty() && self.docket.in_flight() == 0 && !self.is_searching,
        }
    }

    /// Waits for whatever happens next.
    pub(super) async fn next_event(&mut self) -> Event {
        if self.is_searching {
            tokio::task::yield_now().await;
        }
        let due = self.next_due();
        let sent = any_sent(&self.gates, &self.sending_order);
        tokio::select! {
            biased;
            Some(()) = self.signals.next() => Event::Signal,
            Some(returned) = self.calls.next() => Event::CallEnded(returned),
            () = sent => Event::Moved,
            () = tokio::time::sleep_until(due) => Event::Moved,
        }
    }

    /// When to look again even if nothing happens.
    fn next_due(&self) -> Instant {
        let now = Instant::now();
        if self.is_searching && self.cause.is_none() {
            return now;
        }
        let outage_ends = self.docket.useless_since().filter(|_| self.cause.is_none()).map(|(since, _)| since + self.settings.max_outage);
        [self.gate_turn, self.docket.next_wake().filter(|at| *at > now), self.drain_until, outage_ends]
            .into_iter()
            .flatten()
            .fold(self.reported_at + self.settings.progress_every, Instant::min)
    }

    pub(super) fn handle(&mut self, event: Event) {
        match event {
            Event::CallEnded(returned) => self.call_ended(returned),
            Event::Signal => self.signalled(),
            Event::Moved => {}
        }
        self.give_up_after_outage();
    }

    fn signalled(&mut self) {
        match self.cause {
            None => {
                tracing::info!("stopping: letting the calls in flight settle");
                self.stop(StopCause::Stopped);
            }
            Some(_) => self.at_once = true,
        }
    }

    fn stop(&mut self, cause: StopCause) {
        if self.cause.is_none() {
            self.docket.stop();
            self.drain_until = Some(Instant::now() + DRAIN);
            self.cause = Some(cause);
        }
    }

    fn give_up_after_outage(&mut self) {
        if let Some((since, api)) = self.docket.useless_since()
            && Instant::now() >= since + self.settings.max_outage
        {
            let why = self.why_down[api].clone();
            self.stop(StopCause::Outage { why });
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
            self.why_down[command].clone_from(&complaint);
            self.complaint = complaint;
        }
        let tested = id.tested(command);
        let was_down = self.docket.apis[tested].health.is_down();
        let at = At { now, wall: (self.wall)(), jitter: (self.jitter)() };
        let aftermath = self.docket.ended(id, end, left, at);
        self.draw_consequences(aftermath, (tested, command), (left, generation), now);
        if was_down && !self.docket.apis[tested].health.is_down() {
            tracing::info!(api = tested.name(), "the service is back");
            self.gates[tested].ramp_up(now);
        }
    }

    fn draw_consequences(
        &mut self,
        aftermath: CallEffect,
        (tested, command): (Command, Command),
        (left, generation): (Instant, u32),
        now: Instant,
    ) {
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
                    self.stop(StopCause::Refused { refusal, code: None, says: self.complaint.clone() });
                }
            }
            CallEffect::Down => {
                tracing::warn!(api = tested.name(), why = ?self.why_down[tested], "the service is down: waiting, one probe at a time");
            }
            CallEffect::Halt { refusal, code, says } => self.stop(StopCause::Refused { refusal, code, says }),
        }
    }

    /// Tells how the run ended.
    pub(super) fn wind_up(mut self) -> RunOutcome<E> {
        self.tell_traffic();
        RunOutcome {
            end: self.cause.unwrap_or(StopCause::Finished),
            errands: self.errands,
            traffic: self.traffic,
            unjudged: self.docket.unjudged,
        }
    }

    pub(super) fn breaks(mut self, error: E::Error) -> RunFailed<E::Error> {
        self.tell_traffic();
        RunFailed { error, traffic: self.traffic }
    }

    /// Completes the counts with what the gates know.
    fn tell_traffic(&mut self) {
        self.note_sends();
        self.traffic.main = E::COMMANDS[0];
        for (command, gate) in self.gates.iter() {
            let api = &mut self.traffic.apis[command];
            (api.calls, api.most_in_1s, api.ceiling_per_s) = (gate.written(), gate.most_in_1s(), gate.ceiling_per_s());
        }
        self.traffic.mean_per_s = self.gates[self.traffic.main].mean_per_s();
    }
}

/// A check tests whether the service is well, so it goes first where it isn't asked for anyway.
fn sending_order(commands: &[Command]) -> Vec<Command> {
    let check = Command::AccountCheck;
    (!commands.contains(&check)).then_some(check).into_iter().chain(commands.iter().copied()).collect()
}
