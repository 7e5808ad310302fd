//! The dispatcher: one loop on one task.
//!
//! `select!` only names what happened; synchronous functions decide; there is no second path to the API.

mod progress;

use std::collections::VecDeque;

use futures_util::future::{LocalBoxFuture, OptionFuture};
use futures_util::stream::{FuturesUnordered, LocalBoxStream, StreamExt};
use tokio::time::Instant;

use super::{AbortCause, Call, CallId, Clocks, DispatchDependencies, DispatchSettings, Fetched, Flow, Scheduler, Stop, Workload};
use crate::domain::call_stats::{CallStats, LatencyCounts};
use crate::domain::command::{Command, PerCommand};
use crate::domain::retry::DRAIN;
use crate::domain::verdict::{CallEffect, CallOutcome, ThrottleScope};
use crate::io::api::usersig::Signer;
use crate::io::api::{Api, ConnectionWish, NotDelivered};
use crate::io::gate::{Gate, GateAnswer, Rate, any_sent};
use crate::io::quota::{Quota, QuotaWait};

/// What happened.
enum LoopEvent<E> {
    CallEnded(Returned),
    Signal,
    /// A call was written, or something is due.
    Moved,
    Workload(E),
}

struct Returned {
    id: CallId,
    command: Command,
    end: Result<CallOutcome, NotDelivered>,
    left: Instant,
    generation: u32,
    is_retry: bool,
}

#[expect(missing_debug_implementations, reason = "it holds closures")]
/// A run in motion.
pub struct Dispatcher<A, F: Flow> {
    pub flow: F,
    scheduler: Scheduler<F::Workload>,
    settings: DispatchSettings,
    api: A,
    signer: Signer,
    gates: PerCommand<Gate>,
    /// The limits are shared with other processes.
    quota: Option<Quota>,
    gate_turn: Option<Instant>,
    /// The commands that are asked for, and the one that tests with.
    sending_order: Vec<Command>,
    calls: FuturesUnordered<LocalBoxFuture<'static, Returned>>,
    /// Calls whose connections had been given up, to leave once more; they count as in flight meanwhile.
    repeats: PerCommand<VecDeque<CallId>>,
    clocks: Clocks,
    signals: LocalBoxStream<'static, ()>,
    reported_at: Instant,
    /// Why the run is winding up.
    cause: Option<AbortCause>,
    drain_until: Option<Instant>,
    at_once: bool,
    /// What was met last instead of a success, by any call.
    complaint: String,
    /// What the calls that each breaker holds have met last instead of a success.
    why_down: PerCommand<String>,
    traffic: CallStats,
    /// Of the answers since the last report.
    recent_latency: LatencyCounts,
}

impl<A: Api, F: Flow> Dispatcher<A, F> {
    pub fn new(dependencies: DispatchDependencies<A>, settings: DispatchSettings, flow: F) -> Self {
        let DispatchDependencies { api, signer, clocks, signals } = dependencies;
        let now = Instant::now();
        let quota = settings
            .gates
            .quota
            .as_ref()
            .map(|quota| Quota::start(quota, &most_per_s(&settings.rates), settings.gates.headroom.in_percent()));
        let gate = |command: Command| {
            let gate = Gate::new(settings.rates[command], &settings.gates, now);
            match &quota {
                Some(quota) => gate.leased(quota.lease(command)),
                None => gate,
            }
        };
        Self {
            flow,
            scheduler: Scheduler::new(settings.limits, settings.known.clone()),
            gates: PerCommand::new(gate),
            quota,
            sending_order: sending_order(F::Workload::COMMANDS),
            settings,
            api,
            signer,
            gate_turn: None,
            calls: FuturesUnordered::new(),
            repeats: PerCommand::default(),
            clocks,
            signals,
            reported_at: now,
            cause: None,
            drain_until: None,
            at_once: false,
            complaint: String::new(),
            why_down: PerCommand::default(),
            traffic: CallStats::default(),
            recent_latency: LatencyCounts::default(),
        }
    }

    /// Makes calls until everything is done or something stops the run: what stopped it.
    ///
    /// # Errors
    /// The flow's.
    pub async fn run(&mut self) -> Result<Option<AbortCause>, F::Error> {
        let end = self.run_to_its_end().await;
        if let Some(quota) = &self.quota {
            quota.close().await;
        }
        end
    }

    async fn run_to_its_end(&mut self) -> Result<Option<AbortCause>, F::Error> {
        loop {
            self.go_on()?;
            if self.is_over() {
                self.report();
                return Ok(self.cause.take());
            }
            let event = self.next_event().await;
            self.handle(event)?;
        }
    }

    /// Restores after every event what always holds: what has ended is handed over, what can leave has left, and no job that is out of
    /// attempts waits for something that will not come.
    fn go_on(&mut self) -> Result<(), F::Error> {
        loop {
            self.flow.hand_over();
            self.feed_and_send()?;
            if !self.resolve_exhausted()? {
                break;
            }
        }
        self.flow.commit_if_due();
        self.report_if_due();
        Ok(())
    }

    fn feed_and_send(&mut self) -> Result<(), F::Error> {
        self.gate_turn = None;
        self.note_sends();
        loop {
            self.feed()?;
            if !(0..self.sending_order.len()).any(|place| self.send_one(self.sending_order[place])) {
                return Ok(());
            }
        }
    }

    /// Reads what can leave, and no more.
    fn feed(&mut self) -> Result<(), F::Error> {
        let now = Instant::now();
        for breaker in self.scheduler.breakers() {
            while self.scheduler.wants_fresh(self.flow.workload(), *breaker, now) {
                match self.flow.fetch(*breaker, &self.clocks)? {
                    Fetched::Done => {}
                    Fetched::Pending => break,
                }
            }
        }
        Ok(())
    }

    /// Looks after jobs that are out of attempts. Returns whether something has changed, so that there may be more to hand over or to send.
    fn resolve_exhausted(&mut self) -> Result<bool, F::Error> {
        if !self.scheduler.has_exhausted() {
            return Ok(false);
        }
        let at = self.clocks.at(Instant::now());
        match self.scheduler.resolve_exhausted(self.flow.workload_mut(), at) {
            Ok(has_changed) => Ok(has_changed),
            Err(Stop::Failed(error)) => Err(F::broken(error)),
            Err(Stop::Halt(effect)) => {
                self.halt_if(effect);
                Ok(true)
            }
        }
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
        if self.repeats[command].is_empty() && !self.scheduler.has_call(self.flow.workload(), command, now) {
            return false;
        }
        let mut permit = match self.gates[command].try_acquire(now) {
            GateAnswer::Now(permit) => permit,
            GateAnswer::At(at) => {
                self.gate_turn = Some(self.gate_turn.map_or(at, |turn| turn.min(at)));
                return false;
            }
            GateAnswer::WhenSent | GateAnswer::WhenGranted => return false,
        };
        let Some((id, connection)) = self.next_call(command, now) else { return false };
        let Call { request, is_retry } = self.scheduler.call(self.flow.workload(), command, id);
        let signature = self.signer.current(now, (self.clocks.wall)());
        let call = self.api.call(request, connection, &signature, move || permit.mark_sent());
        let generation = signature.generation;
        self.calls.push(Box::pin(async move { Returned { id, command, end: call.await, left: now, generation, is_retry } }));
        true
    }

    fn next_call(&mut self, command: Command, now: Instant) -> Option<(CallId, ConnectionWish)> {
        if let Some(id) = self.repeats[command].pop_front() {
            self.scheduler.leaves_again(id);
            return Some((id, ConnectionWish::Fresh));
        }
        self.scheduler.next_call(self.flow.workload_mut(), command, now).map(|id| (id, ConnectionWish::Any))
    }

    fn is_over(&mut self) -> bool {
        if self.at_once || self.drain_until.is_some_and(|until| Instant::now() >= until) {
            return true;
        }
        // A test may still be in flight when everything else is done.
        let is_empty = self.scheduler.is_empty();
        self.scheduler.in_flight() == 0 && (self.cause.is_some() || (is_empty && self.flow.is_done(&self.clocks)))
    }

    /// Waits for whatever happens next.
    async fn next_event(&mut self) -> LoopEvent<F::Event> {
        if self.flow.is_searching() {
            tokio::task::yield_now().await;
        }
        let due = self.next_due();
        let sent = any_sent(&self.gates, &self.sending_order);
        let granted = OptionFuture::from(self.quota.as_ref().map(Quota::changed));
        tokio::select! {
            biased;
            Some(()) = self.signals.next() => LoopEvent::Signal,
            event = self.flow.event() => LoopEvent::Workload(event),
            Some(returned) = self.calls.next() => LoopEvent::CallEnded(returned),
            () = sent => LoopEvent::Moved,
            Some(()) = granted => LoopEvent::Moved,
            () = tokio::time::sleep_until(due) => LoopEvent::Moved,
        }
    }

    /// When to look again even if nothing happens.
    fn next_due(&self) -> Instant {
        let now = Instant::now();
        if self.flow.is_searching() {
            return now;
        }
        let outage_ends =
            self.scheduler.useless_since().filter(|_| self.cause.is_none()).map(|(since, _)| since + self.settings.max_outage);
        [self.gate_turn, self.scheduler.next_wake().filter(|at| *at > now), self.flow.next_due(), self.drain_until, outage_ends]
            .into_iter()
            .flatten()
            .fold(self.reported_at + self.settings.progress_every, Instant::min)
    }

    fn handle(&mut self, event: LoopEvent<F::Event>) -> Result<(), F::Error> {
        match event {
            LoopEvent::CallEnded(returned) => self.call_ended(returned)?,
            LoopEvent::Workload(event) => self.flow.handle(event)?,
            LoopEvent::Signal => self.signalled(),
            LoopEvent::Moved => {}
        }
        self.stop_after_outage();
        self.heed_quota();
        Ok(())
    }

    /// Stops a run that may not take part in the quota, or has waited too long for its store.
    fn heed_quota(&mut self) {
        let Some(quota) = &self.quota else { return };
        if let Some(refusal) = quota.refusal() {
            self.stop(AbortCause::QuotaRefused(refusal));
        } else if let Some(QuotaWait { since, why }) = quota.waiting(Instant::now())
            && Instant::now() >= since + self.settings.max_outage
        {
            self.stop(AbortCause::QuotaLost { why });
        }
    }

    fn signalled(&mut self) {
        match self.cause {
            None => {
                tracing::info!("stopping: waiting for the requests in flight; another signal (Ctrl-C) ends it at once");
                self.stop(AbortCause::Signal);
            }
            Some(_) => self.at_once = true,
        }
    }

    fn stop(&mut self, cause: AbortCause) {
        if self.cause.is_none() {
            self.scheduler.stop();
            self.drain_until = Some(Instant::now() + DRAIN);
            self.cause = Some(cause);
        }
    }

    fn stop_after_outage(&mut self) {
        if let Some((since, breaker)) = self.scheduler.useless_since()
            && Instant::now() >= since + self.settings.max_outage
        {
            let why = self.why_down[breaker].clone();
            self.stop(AbortCause::Outage { api: breaker, why });
        }
    }

    fn call_ended(&mut self, returned: Returned) -> Result<(), F::Error> {
        let Returned { id, command, end, left, generation, is_retry } = returned;
        let now = Instant::now();
        self.gates[command].note_sends(now);
        let end = match end {
            Ok(end) => end,
            Err(why) => {
                if why == NotDelivered::ConnectionClosed {
                    self.traffic.count_not_delivered(command, is_retry);
                }
                self.repeats[command].push_back(id);
                return Ok(());
            }
        };
        let breaker = match id {
            CallId::Job(_) => F::Workload::breaker_of(command),
            CallId::Probe(breaker) => breaker,
        };
        if end.has_left() {
            self.recent_latency.time(now - left);
        }
        if let Some(complaint) = self.traffic.count(command, &end, now - left, is_retry) {
            // Whoever gets no connection speaks of every API; else what one API says is no reason why another one is down.
            let own = if matches!(end, CallOutcome::Unreached { .. }) { breaker } else { command.spec().breaker };
            self.why_down[own].clone_from(&complaint);
            self.complaint = complaint;
        }
        let was_down = self.scheduler.is_down(breaker);
        let effect = match self.scheduler.ended(self.flow.workload_mut(), (id, left), end, self.clocks.at(now)) {
            Ok(effect) | Err(Stop::Halt(effect)) => effect,
            Err(Stop::Failed(error)) => return Err(F::broken(error)),
        };
        let is_back = was_down && !self.scheduler.is_down(breaker);
        self.draw_consequences(effect, (breaker, command), (left, generation), now);
        if is_back {
            self.ramp_up(breaker, now);
        }
        Ok(())
    }

    fn ramp_up(&mut self, breaker: Command, now: Instant) {
        tracing::info!(api = breaker.name(), "the service is back");
        for (_, gate) in self.gates.iter_mut().filter(|(command, _)| F::Workload::breaker_of(*command) == breaker) {
            gate.ramp_up(now);
        }
    }

    fn halt_if(&mut self, effect: CallEffect) {
        if let CallEffect::Halt { reason, code, says } = effect {
            self.stop(AbortCause::Refused { reason, code, says });
        }
    }

    fn draw_consequences(
        &mut self,
        effect: CallEffect,
        (breaker, command): (Command, Command),
        (left, generation): (Instant, u32),
        now: Instant,
    ) {
        match effect {
            CallEffect::Nothing => {}
            CallEffect::SignatureAccepted | CallEffect::Back => self.signer.on_accepted(generation),
            CallEffect::Throttled(scope) => {
                self.traffic.apis[command].throttled += 1;
                for (api, gate) in self.gates.iter_mut() {
                    if scope == ThrottleScope::All || api == command {
                        gate.on_throttled(left, now);
                    }
                }
            }
            CallEffect::SignatureRejected => {
                if let Err(reason) = self.signer.on_rejected(generation, now, (self.clocks.wall)()) {
                    self.stop(AbortCause::Refused { reason, code: None, says: self.complaint.clone() });
                }
            }
            CallEffect::Down => {
                tracing::warn!(api = breaker.name(), why = ?self.why_down[breaker], "the service is down: waiting, one probe at a time");
            }
            halt @ CallEffect::Halt { .. } => self.halt_if(halt),
        }
    }

    /// The flow, with what has left and come back as the gates know it, and with the accounts that nothing could judge.
    pub fn end(mut self) -> (F, CallStats, u64) {
        self.note_sends();
        let stats = self.stats();
        (self.flow, stats, self.scheduler.unjudged())
    }
}

/// How many calls a second this process makes at most. Without a limit of its own it may use all that is shared.
fn most_per_s(rates: &PerCommand<Rate>) -> PerCommand<u32> {
    PerCommand::new(|command| match rates[command] {
        Rate::PerSecond(rate) => rate.get(),
        Rate::Unlimited => u32::MAX,
    })
}

/// A check tests whether the service is well, so it goes first where it isn't asked for anyway.
fn sending_order(commands: &[Command]) -> Vec<Command> {
    let check = Command::AccountCheck;
    (!commands.contains(&check)).then_some(check).into_iter().chain(commands.iter().copied()).collect()
}
