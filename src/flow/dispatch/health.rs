//! What is known of an API while it is called, and what each verdict means for its health, for a test and for the run.
//!
//! This module counts, and says when unknown codes are too many and when half of a batch is faulty. `domain::breaker` decides when an API
//! is down, `attempts` what becomes of a job.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::JobId;
use crate::domain::breaker::{ExhaustedBy, Health, HealthChange, HealthSample, OtherCalls, TestResult};
use crate::domain::halt_reason::HaltReason;
use crate::domain::refusals::Refusals;
use crate::domain::retry::{UNKNOWN_CODE_ATTEMPTS, UNKNOWN_CODES_IN_A_ROW};
use crate::domain::verdict::{CallEffect, CallOutcome, CallSize, Verdict, words};

/// What is known of the API, or of the APIs, that a breaker stands for: one may be down while the others are well.
#[derive(Debug)]
pub(crate) struct ApiHealth<R> {
    pub(crate) health: Health<JobId>,
    /// Calls that it speaks for, tests included.
    pub(crate) in_flight: usize,
    pub(crate) probe: Option<Probe<R>>,
    pub(crate) refusals: Refusals,
    pub(crate) faults: FaultAttribution,
    pub(crate) unknown: UnknownCodes,
}

impl<R> Default for ApiHealth<R> {
    fn default() -> Self {
        Self {
            health: Health::default(),
            in_flight: 0,
            probe: None,
            refusals: Refusals::default(),
            faults: FaultAttribution::default(),
            unknown: UnknownCodes::default(),
        }
    }
}

impl<R> ApiHealth<R> {
    /// Ends the test that is in flight if this job is it. Returns whether it was.
    pub(crate) fn take_probe(&mut self, id: JobId) -> bool {
        self.probe.take_if(|probe| matches!(probe, Probe::Job(job) if *job == id)).is_some()
    }

    pub(crate) fn other_calls(&self) -> OtherCalls {
        OtherCalls::of(self.in_flight)
    }
}

/// A test that is in flight. It is a call that ought to go well, and nobody is charged for it if it doesn't.
#[derive(Debug)]
pub(crate) enum Probe<R> {
    /// What was accepted at this time, again.
    Repeat(R, Instant),
    /// Fresh work, or a job that was tried before.
    Job(JobId),
    Check,
}

/// Unknown codes since the API has last said anything else. What one account's own attempts meet counts once: a few records with such a
/// code fail each for itself, and the run goes on.
#[derive(Debug, Default)]
pub(crate) struct UnknownCodes {
    calls: usize,
    accounts: BTreeSet<JobId>,
}

impl UnknownCodes {
    pub(crate) fn note(&mut self, id: JobId, size: CallSize, verdict: &Verdict) {
        match (verdict, size) {
            (Verdict::Unknown, CallSize::One) => {
                self.accounts.insert(id);
            }
            (Verdict::Unknown, CallSize::Batch) => self.calls += 1,
            (Verdict::Accepted | Verdict::Reject | Verdict::Retry, _) => *self = Self::default(),
            (Verdict::ConnectFailed | Verdict::Throttle(_) | Verdict::Reauthenticate | Verdict::Abort(_), _) => {}
        }
    }

    pub(crate) fn are_everywhere(&self) -> bool {
        self.calls + self.accounts.len() >= UNKNOWN_CODES_IN_A_ROW
    }
}

/// Attempts that a job gets.
pub(crate) fn attempts_allowed(by: ExhaustedBy, max_attempts: u32) -> u32 {
    match by {
        ExhaustedBy::TemporaryErrors => max_attempts,
        ExhaustedBy::UnknownCodes => UNKNOWN_CODE_ATTEMPTS.min(max_attempts),
    }
}

/// What the end of a job's call says.
pub(crate) const fn sample(verdict: &Verdict) -> HealthSample {
    match verdict {
        Verdict::Accepted | Verdict::Reject => HealthSample::Good,
        Verdict::Retry => HealthSample::Faulty,
        Verdict::ConnectFailed => HealthSample::Unreached,
        Verdict::Throttle(_) => HealthSample::Throttled,
        Verdict::Unknown | Verdict::Reauthenticate | Verdict::Abort(_) => HealthSample::Neutral,
    }
}

/// What the end of a test shows, and what it says about the pace.
pub(crate) const fn test_result(verdict: &Verdict, others: OtherCalls) -> (TestResult, HealthSample) {
    match verdict {
        Verdict::Retry | Verdict::Unknown => (TestResult::Faulty, HealthSample::Neutral),
        Verdict::ConnectFailed => (TestResult::Unreached(others), HealthSample::Neutral),
        Verdict::Accepted | Verdict::Reject => (TestResult::Well, HealthSample::Good),
        Verdict::Throttle(_) => (TestResult::Well, HealthSample::Throttled),
        Verdict::Reauthenticate | Verdict::Abort(_) => (TestResult::Well, HealthSample::Neutral),
    }
}

/// What follows for the run from the end of a job's call.
pub(crate) const fn effect(verdict: &Verdict) -> CallEffect {
    match verdict {
        Verdict::Accepted | Verdict::Reject => CallEffect::SignatureAccepted,
        Verdict::Throttle(scope) => CallEffect::Throttled(*scope),
        Verdict::Reauthenticate => CallEffect::SignatureRejected,
        Verdict::Retry | Verdict::ConnectFailed | Verdict::Unknown | Verdict::Abort(_) => CallEffect::Nothing,
    }
}

/// What follows for the run from the end of a test.
pub(crate) const fn effect_of_test(change: HealthChange, verdict: &Verdict) -> CallEffect {
    match (change, verdict) {
        (HealthChange::Down, _) => CallEffect::Down,
        (HealthChange::Back | HealthChange::Nothing, Verdict::Throttle(scope)) => CallEffect::Throttled(*scope),
        (HealthChange::Back | HealthChange::Nothing, Verdict::Reauthenticate) => CallEffect::SignatureRejected,
        (HealthChange::Back, _) => CallEffect::Back,
        (HealthChange::Nothing, Verdict::Accepted | Verdict::Reject) => CallEffect::SignatureAccepted,
        (HealthChange::Nothing, _) => CallEffect::Nothing,
    }
}

pub(crate) fn halted(reason: HaltReason, end: CallOutcome) -> CallEffect {
    let (code, says) = words(end);
    CallEffect::Halt { reason, code, says }
}

/// Which parts of each batch that was divided met a temporary error last: the batch is faulty when half of its accounts are.
#[derive(Debug, Default)]
pub(crate) struct FaultAttribution {
    /// How many accounts each faulty part has, by the batch.
    faulty_siblings: BTreeMap<u64, BTreeMap<u64, usize>>,
}

impl FaultAttribution {
    /// Turns what a part's call says into what it says of the batch, which has so many accounts.
    pub(crate) fn of_batch(
        &mut self,
        (batch_id, accounts): (u64, usize),
        (part, size): (u64, usize),
        sample: HealthSample,
    ) -> HealthSample {
        if sample != HealthSample::Faulty {
            self.forget(batch_id, part);
            return sample;
        }
        let faulty = self.faulty_siblings.entry(batch_id).or_default();
        faulty.insert(part, size);
        if faulty.values().sum::<usize>() * 2 >= accounts { HealthSample::Faulty } else { HealthSample::Neutral }
    }

    /// Forgets a part that has ended.
    pub(crate) fn forget(&mut self, batch_id: u64, part: u64) {
        if let Some(faulty) = self.faulty_siblings.get_mut(&batch_id) {
            faulty.remove(&part);
            if faulty.is_empty() {
                self.faulty_siblings.remove(&batch_id);
            }
        }
    }
}
