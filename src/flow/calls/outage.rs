//! Whose fault it is: that of what a call carries, or the service's.
//!
//! Tells the health of each API how calls ended, and ends what is out of attempts once it is shown that the API was well.

use tokio::time::Instant;

use super::Fate;
use super::docket::{Docket, Intake};
use super::probe::CallsProbe;
use crate::domain::account::Account;
use crate::domain::breaker::{CallTimes, ExhaustedBy, Health, HealthChange, HealthSample, OtherCalls};
use crate::domain::command::Command;
use crate::domain::refusals::{Pattern, Refusals};
use crate::domain::retry::{At, UNKNOWN_RECORDS_IN_A_ROW};
use crate::domain::verdict::{CallEffect, HaltReason, Verdict};
use crate::flow::dispatch::JobId;
use crate::flow::dispatch::health::{self, FaultAttribution, attempts_allowed};
use crate::flow::dispatch::job_queue::{Failure, Job};

/// What is known of an API: each has its own, since one may be down while the others are well.
#[derive(Debug, Default)]
pub(super) struct ApiHealth {
    pub(super) health: Health<JobId>,
    /// Calls of errands.
    pub(super) in_flight: usize,
    pub(super) probe: Option<CallsProbe>,
    /// An account that was answered last, and when.
    pub(super) answered: Option<(Account, Instant)>,
    /// The source had no further errand when it was asked last.
    pub(super) is_dry: bool,
    pub(super) refusals: Refusals,
    /// By the number of the errand, and of what is left of it.
    pub(super) faults: FaultAttribution,
    /// Calls in a row that met a code that isn't in the table.
    unknown: usize,
}

impl<T: Clone> Docket<T> {
    /// What the end of a call says about its API. What was split out of a larger call speaks for that one.
    pub(super) fn sample(&mut self, id: JobId, verdict: &Verdict) -> HealthSample {
        let Job { command, batch_id, siblings, ref payload, .. } = self.jobs[id];
        let sample = health::sample(verdict);
        if siblings == 0 {
            return sample;
        }
        // Twenty such parts in a row raise no suspicion here: the next part that would test it may be as bad, being split out beside them.
        self.apis[command].faults.of_batch((batch_id, siblings), (id as u64, payload.accounts.len()), sample)
    }

    /// Tells the health of the API how a call ended, and draws the consequences.
    pub(super) fn judged(
        &mut self,
        command: Command,
        (batch_id, sample): (u64, HealthSample),
        verdict: &Verdict,
        times: CallTimes,
    ) -> CallEffect {
        let api = &mut self.apis[command];
        if api.health.is_down() {
            return CallEffect::Nothing;
        }
        match api.health.note(batch_id, sample, times, OtherCalls::of(api.in_flight)) {
            HealthChange::Down => {
                self.give_back(command);
                return CallEffect::Down;
            }
            HealthChange::Nothing | HealthChange::Back => {}
        }
        if sample == HealthSample::Good {
            self.end_released(command, times);
        }
        health::effect(verdict)
    }

    /// The breaker is open: what temporary errors were charged is given back, what was exhausted lives again.
    pub(super) fn give_back(&mut self, command: Command) {
        for (_, job) in self.jobs.iter_mut().filter(|(_, job)| job.command == command) {
            job.give_back();
        }
        for id in self.apis[command].health.revive() {
            self.jobs.make_due(id);
        }
    }

    /// Charges a call, unless the API is down; what is out of attempts waits for its judgement.
    pub(super) fn charge(&mut self, id: JobId, last: Failure, by: ExhaustedBy, at: At) {
        let allowed = attempts_allowed(by, self.max_attempts);
        let job = &mut self.jobs[id];
        let health = &mut self.apis[job.command].health;
        if !health.is_down() {
            job.charge(at.now);
        }
        if job.overtime.is_none() && (job.attempts < allowed || health.is_down()) {
            return self.jobs.back_off(id, last, at);
        }
        self.jobs.exhaust(id, health, (last, by), at.now);
    }

    pub(super) fn note_unknown(&mut self, command: Command, verdict: &Verdict) {
        let unknown = &mut self.apis[command].unknown;
        match verdict {
            Verdict::Unknown => *unknown += 1,
            Verdict::Accepted | Verdict::Reject | Verdict::Retry => *unknown = 0,
            Verdict::ConnectFailed | Verdict::Throttle(_) | Verdict::Reauthenticate | Verdict::Abort(_) => {}
        }
    }

    pub(super) fn halt_if_unknown_everywhere(&mut self, command: Command, last: Failure) -> Result<(), CallEffect> {
        if self.apis[command].unknown < UNKNOWN_RECORDS_IN_A_ROW {
            return Ok(());
        }
        let (code, says) = last;
        Err(CallEffect::Halt { refusal: HaltReason::UnknownCodes, code, says })
    }

    /// An account was refused for its own fault; if all are, it isn't their own.
    pub(super) fn halt_if_refused_everywhere(&mut self, command: Command, code: i64, says: String) -> Result<(), CallEffect> {
        match self.apis[command].refusals.refused(code) {
            Pattern::All => Err(CallEffect::Halt { refusal: HaltReason::AllRecordsRefused, code: Some(code), says }),
            Pattern::Plausible => Ok(()),
        }
    }

    /// A call that left then went well: what is exhausted and had its last call ended by then ends, or is tried a last time.
    pub(super) fn end_released(&mut self, command: Command, times: CallTimes) {
        let released = self.apis[command].health.release(times);
        let (split, alone): (Vec<_>, Vec<_>) =
            released.try_again.into_iter().partition(|(id, _)| self.jobs[*id].payload.accounts.len() > 1);
        for id in released.fail.into_iter().chain(split.into_iter().map(|(id, _)| id)) {
            self.end_or_halve(id);
        }
        self.jobs.try_again(alone);
    }

    /// A call that is out of attempts for one account ends; one for more is split.
    pub(super) fn end_or_halve(&mut self, id: JobId) {
        self.halve_or(id, |(code, why)| Fate::OutOfAttempts { code, why });
    }

    /// Looks at what is out of attempts when nothing else is left that could show whether its API is well: a test is to. What no test can
    /// judge is tried again from time to time, and ends once its time is over. Whether something has changed.
    pub(super) fn resolve_exhausted(&mut self, at: At) -> bool {
        if self.feed == Intake::Stopped {
            return false;
        }
        let changed = Command::ALL.map(|command| self.resolve_exhausted_of(command, at));
        changed.contains(&true)
    }

    fn resolve_exhausted_of(&mut self, command: Command, at: At) -> bool {
        let health = &mut self.apis[command].health;
        if !health.has_exhausted() || health.is_down() {
            return false;
        }
        let released = health.take_retries(at.now);
        let mut changed = !released.fail.is_empty() || !released.try_again.is_empty();
        for id in released.fail {
            self.unjudged += self.jobs[id].payload.accounts.len() as u64;
            self.end_or_halve(id);
        }
        self.jobs.try_again(released.try_again);
        let health = &self.apis[command].health;
        if health.retry_at().is_none() && health.is_trusted() && self.is_idle(command) {
            let unknown = self.apis[command].health.take_unknown();
            for id in unknown {
                self.end_or_halve(id);
            }
            if self.is_idle(command) && self.apis[command].health.has_exhausted() {
                self.apis[command].health.suspect(at.now);
            }
            changed = true;
        }
        changed
    }

    /// Whether nothing of this API moves of itself any more but what is out of attempts.
    pub(super) fn is_idle(&self, command: Command) -> bool {
        let api = &self.apis[command];
        api.in_flight == 0 && api.is_dry && !self.jobs.moves(command)
    }
}
