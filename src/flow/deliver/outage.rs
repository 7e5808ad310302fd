//! Whose fault it is: the record's or the service's.
//!
//! Charges temporary errors, tells the health of the API how calls ended, and lets records that are out of attempts fail once it is shown
//! that the service was well.

use tokio::time::Instant;

use super::reorder_buffer::UnsettledRecord;
use super::{At, CallEffect, Choice, Deliveries, Intake, Lane};
use crate::domain::breaker::{CallTimes, ExhaustedBy, HealthChange, HealthSample, OtherCalls};
use crate::domain::refusals::Pattern;
use crate::domain::retry::UNKNOWN_RECORDS_IN_A_ROW;
use crate::domain::verdict::{HaltReason, Verdict};
use crate::flow::dispatch::JobId;
use crate::flow::dispatch::health::{self, attempts_allowed};
use crate::flow::dispatch::job_queue::{Failure, Job};

impl Deliveries {
    pub(super) fn halt_if_unknown_everywhere(&mut self, id: JobId) -> Result<(), CallEffect> {
        if self.unknown.len() < UNKNOWN_RECORDS_IN_A_ROW {
            return Ok(());
        }
        let (code, says) = self.jobs[id].last.clone();
        Err(CallEffect::Halt { refusal: HaltReason::UnknownCodes, code, says })
    }

    /// A record was refused for its own fault; if all are, it isn't their own.
    pub(super) fn halt_if_refused_everywhere(&mut self, (code, says): Failure) -> Result<(), CallEffect> {
        match code.map(|code| self.refusals.refused(code)) {
            Some(Pattern::All) => Err(CallEffect::Halt { refusal: HaltReason::AllRecordsRefused, code, says }),
            Some(Pattern::Plausible) | None => Ok(()),
        }
    }

    /// Tells the health of the API how a call ended, and draws the consequences.
    pub(super) fn judged(&mut self, (batch_id, sample): (u64, HealthSample), verdict: &Verdict, times: CallTimes, at: At) -> CallEffect {
        if self.is_down() {
            return CallEffect::Nothing;
        }
        match self.health.note(batch_id, sample, times, OtherCalls::of(self.in_flight)) {
            HealthChange::Down => {
                self.give_back();
                return CallEffect::Down;
            }
            HealthChange::Nothing | HealthChange::Back => {}
        }
        if sample == HealthSample::Good {
            self.fail_released(times, at);
        }
        health::effect(verdict)
    }

    /// The breaker is open: what temporary errors were charged is given back, exhausted records live again.
    pub(super) fn give_back(&mut self) {
        for (_, job) in self.jobs.iter_mut() {
            job.give_back();
            for row in &job.payload {
                self.buffer.open_mut(*row).map(UnsettledRecord::give_back);
            }
        }
        for id in self.health.revive() {
            self.jobs.make_due(id);
        }
    }

    /// Charges a single call, unless the service is down; one that is out of attempts waits for its judgement.
    pub(super) fn charge(&mut self, id: JobId, last: Failure, by: ExhaustedBy, at: At) {
        let allowed = attempts_allowed(by, self.limits.max_attempts);
        if self.jobs[id].overtime.is_none() && self.charge_passing(id, at.now) < allowed {
            return self.jobs.back_off(id, last, at);
        }
        self.jobs.exhaust(id, &mut self.health, (last, by), at.now);
    }

    /// Charges a temporary error to a job and its rows, unless the service is down: the job's attempts.
    pub(super) fn charge_passing(&mut self, id: JobId, now: Instant) -> u32 {
        if self.is_down() {
            return 0;
        }
        let job = &mut self.jobs[id];
        let attempts = job.charge(now);
        for row in &job.payload {
            if let Some(open) = self.buffer.open_mut(*row) {
                open.attempts += 1;
                open.passing += 1;
            }
        }
        attempts
    }

    pub(super) fn note_unknown(&mut self, batch_id: u64, verdict: &Verdict) {
        match verdict {
            Verdict::Unknown => {
                self.unknown.insert(batch_id);
            }
            Verdict::Accepted | Verdict::Reject | Verdict::Retry => self.unknown.clear(),
            Verdict::ConnectFailed | Verdict::Throttle(_) | Verdict::Reauthenticate | Verdict::Abort(_) => {}
        }
    }

    /// A call that left then went well: exhausted records whose last call had ended by then fail, or are tried a last time.
    pub(super) fn fail_released(&mut self, times: CallTimes, at: At) {
        if !self.health.has_exhausted() {
            return;
        }
        let released = self.health.release(times);
        self.fail(released.fail, at);
        self.jobs.try_again(released.try_again);
    }

    fn fail(&mut self, ids: Vec<JobId>, at: At) {
        for id in ids {
            let Job { payload: rows, batch_id, last, .. } = self.jobs.remove(id);
            self.finish(rows[0], Some(last), at);
            self.faults.forget(batch_id, rows[0]);
            self.forget_batch(batch_id);
        }
    }

    /// Whether records wait for what becomes of them, being out of attempts.
    #[must_use]
    pub fn has_exhausted(&self) -> bool {
        self.health.has_exhausted()
    }

    /// Looks at the records that are out of attempts when nothing else is left that could show whether the service is well: a test is to.
    /// What no test can judge is tried again from time to time, and fails once its time is over.
    pub fn resolve_exhausted(&mut self, at: At) {
        if !self.health.has_exhausted() || self.feed == Intake::Stopped || self.is_down() {
            return;
        }
        let released = self.health.take_retries(at.now);
        self.unjudged += released.fail.len() as u64;
        self.fail(released.fail, at);
        self.jobs.try_again(released.try_again);
        if self.health.retry_at().is_none() && self.health.is_trusted() && self.is_idle() {
            let unknown = self.health.take_unknown();
            self.fail(unknown, at);
            if self.health.has_exhausted() && self.is_idle() {
                self.health.suspect(at.now);
            }
        }
    }

    /// Whether nothing moves of itself any more but records that are out of attempts.
    pub(super) fn is_idle(&self) -> bool {
        // While the first batch's records are all exhausted, the next batch waits for what they show.
        let is_blocked = matches!(self.lane, Lane::Batch(_)) && !self.may_batch(Choice::Fresh);
        let has_fresh = !is_blocked && (self.can_have_more() || !self.fresh.is_empty());
        self.in_flight == 0 && self.jobs.are_idle() && !has_fresh
    }
}
