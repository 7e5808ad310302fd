//! What the end of a call says about the API that was called, and what the run draws from it.
//!
//! Nothing here but tables and counts: what is known of an API is `breaker`'s, what becomes of a job the scheduler's.

use std::collections::BTreeMap;

use crate::domain::breaker::{ExhaustedBy, HealthChange, HealthSample, OtherCalls, TestResult};
use crate::domain::retry::UNKNOWN_CODE_ATTEMPTS;
use crate::domain::verdict::{CallEffect, CallOutcome, HaltReason, Verdict, words};

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
        Verdict::Accepted | Verdict::Reject => CallEffect::Accepted,
        Verdict::Throttle(scope) => CallEffect::Throttled(*scope),
        Verdict::Reauthenticate => CallEffect::SignatureRefused,
        Verdict::Retry | Verdict::ConnectFailed | Verdict::Unknown | Verdict::Abort(_) => CallEffect::Nothing,
    }
}

/// … and from the end of a test.
pub(crate) const fn effect_of_test(change: HealthChange, verdict: &Verdict) -> CallEffect {
    match (change, verdict) {
        (HealthChange::Down, _) => CallEffect::Down,
        (HealthChange::Back | HealthChange::Nothing, Verdict::Throttle(scope)) => CallEffect::Throttled(*scope),
        (HealthChange::Back | HealthChange::Nothing, Verdict::Reauthenticate) => CallEffect::SignatureRefused,
        (HealthChange::Back, _) => CallEffect::Back,
        (HealthChange::Nothing, Verdict::Accepted | Verdict::Reject) => CallEffect::Accepted,
        (HealthChange::Nothing, _) => CallEffect::Nothing,
    }
}

pub(crate) fn halted(refusal: HaltReason, end: CallOutcome) -> CallEffect {
    let (code, says) = words(end);
    CallEffect::Halt { refusal, code, says }
}

/// Which parts of each batch that was taken apart met a temporary error last: the batch is faulty when half of its accounts are.
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
