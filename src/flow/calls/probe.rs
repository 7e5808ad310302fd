//! The calls that test whether an API is well, when faults may be the errands' or the service's.
//!
//! One at a time for each API; what they show is for `health` to judge. An id that was answered is asked about again; what changes something
//! is never repeated: a fresh errand is made, else the identifier is checked.

use tokio::time::Instant;

use super::docket::{Docket, Intake};
use crate::domain::account::Account;
use crate::domain::breaker::{CallTimes, HealthChange, Means, OtherCalls, REPEAT_WITHIN, TestResult};
use crate::domain::command::{Command, Repetition};
use crate::domain::retry::At;
use crate::domain::verdict::{CallEffect, CallOutcome, CallSize, ThrottleScope, Verdict, judge, words};
use crate::flow::dispatch::health::{effect_of_test, halted, test_result};
use crate::flow::dispatch::job_queue::Stage;
use crate::flow::dispatch::{Call, CallId, JobId};

/// A test that is in flight.
#[derive(Debug)]
pub(super) enum CallsProbe {
    Repeat(Account),
    Fresh(JobId),
    Check,
}

impl<T: Clone> Docket<T> {
    /// The API that a call of `command` is to test now, and how.
    pub(super) fn next_probe(&self, command: Command, now: Instant) -> Option<(Command, Means)> {
        let probed = |tested: &Command| self.means_now(*tested, now).map(|means| (*tested, means));
        Command::ALL.iter().filter_map(probed).find(|(tested, means)| match means {
            Means::Repeat | Means::Fresh => *tested == command,
            Means::Check => command == Command::AccountCheck,
        })
    }

    /// How this API is to be tested now, if it is and it can be.
    fn means_now(&self, tested: Command, now: Instant) -> Option<Means> {
        if !self.is_test_due(tested, now) {
            return None;
        }
        let means = self.means(tested, now);
        (means != Means::Fresh || !self.lacks_fresh(tested)).then_some(means)
    }

    fn is_test_due(&self, tested: Command, now: Instant) -> bool {
        let api = &self.apis[tested];
        self.feed == Intake::Open && api.probe.is_none() && api.health.wants_test(now)
    }

    fn means(&self, tested: Command, now: Instant) -> Means {
        let api = &self.apis[tested];
        let is_recent = api.answered.as_ref().is_some_and(|(_, at)| now - *at <= REPEAT_WITHIN);
        if tested.spec().repetition == Repetition::Harmless && is_recent {
            Means::Repeat
        } else if self.jobs.fresh(tested).next().is_some() || !api.is_dry {
            Means::Fresh
        } else {
            Means::Check
        }
    }

    fn lacks_fresh(&self, tested: Command) -> bool {
        let api = &self.apis[tested];
        !api.is_dry && self.jobs.fresh(tested).count() <= api.health.fresh_position()
    }

    /// Whether errands are to be fetched for a test.
    pub(super) fn wants_fresh_for_test(&self, tested: Command, now: Instant) -> bool {
        self.is_test_due(tested, now) && self.means(tested, now) == Means::Fresh && self.lacks_fresh(tested)
    }

    /// The test of an API leaves.
    pub(super) fn send_probe(&mut self, tested: Command, means: Means) -> Option<Call<'_>> {
        let api = &mut self.apis[tested];
        let position = api.health.fresh_position();
        api.health.test_left(means);
        match means {
            Means::Repeat => api.probe = Some(CallsProbe::Repeat(api.answered.as_ref()?.0.clone())),
            Means::Check => api.probe = Some(CallsProbe::Check),
            Means::Fresh => {
                let fresh: Vec<JobId> = self.jobs.fresh(tested).take(position + 1).collect();
                let id = *fresh.last()?;
                self.apis[tested].probe = Some(CallsProbe::Fresh(id));
                self.jobs.unqueue(id);
                self.depart(id);
                return Some(self.call_of(id));
            }
        }
        self.in_flight += 1;
        Some(self.probe_call(tested))
    }

    pub(super) fn probe_call(&self, tested: Command) -> Call<'_> {
        let account = match &self.apis[tested].probe {
            Some(CallsProbe::Repeat(account)) => account,
            Some(CallsProbe::Fresh(_) | CallsProbe::Check) | None => &self.identifier,
        };
        Call { id: CallId::Probe(tested), accounts: vec![account], is_retry: false }
    }

    /// Whether this part is the test that is in flight; from here on it is not.
    pub(super) fn takes_probe(&mut self, command: Command, id: JobId) -> bool {
        self.apis[command].probe.take_if(|probe| matches!(probe, CallsProbe::Fresh(fresh) if *fresh == id)).is_some()
    }

    /// Takes the end of a test that was no errand.
    pub(super) fn probe_ended(&mut self, tested: Command, end: CallOutcome, times: CallTimes, at: At) -> CallEffect {
        let verdict = judge(&end, self.seen, CallSize::Batch);
        let called = match self.apis[tested].probe.take() {
            Some(CallsProbe::Repeat(account)) => {
                if verdict == Verdict::Accepted {
                    self.apis[tested].answered = Some((account, at.now));
                }
                if let Verdict::Abort(refusal) = verdict {
                    return halted(refusal, end);
                }
                tested
            }
            Some(CallsProbe::Fresh(_) | CallsProbe::Check) | None => Command::AccountCheck,
        };
        self.tested((tested, called), &verdict, times, at)
    }

    /// Draws the consequences of a test's end.
    pub(super) fn tested(&mut self, (tested, called): (Command, Command), verdict: &Verdict, times: CallTimes, at: At) -> CallEffect {
        let went_well = matches!(verdict, Verdict::Accepted | Verdict::Reject);
        let (result, sample) = test_result(verdict, OtherCalls::of(self.apis[tested].in_flight));
        if called == tested || *verdict == Verdict::Throttle(ThrottleScope::All) {
            self.apis[tested].health.note_throttling(sample, at.now);
        }
        if went_well && called == tested {
            self.end_released(tested, times);
        }
        let change = self.apis[tested].health.test_ended(result, at.now);
        if result == TestResult::Well {
            self.leave_exhausted_for_later(tested, at);
        }
        if change == HealthChange::Down {
            self.give_back(tested);
        }
        effect_of_test(change, verdict)
    }

    /// A test went well. What was exhausted with several accounts in it is split, for the fault may be a single one's; what the test can't
    /// judge is tried again later.
    fn leave_exhausted_for_later(&mut self, tested: Command, at: At) {
        if !self.is_idle(tested) {
            return;
        }
        let joined: Vec<JobId> = self.apis[tested].health.exhausted().filter(|id| self.jobs[*id].payload.accounts.len() > 1).collect();
        for id in joined {
            self.apis[tested].health.forget(id);
            self.end_or_halve(id);
        }
        let api = &mut self.apis[tested];
        if api.health.has_exhausted() {
            api.health.try_again_later(at.now, at.jitter);
        }
    }

    /// A fresh errand that was sent as a test and met a fault is tried again like any other, uncharged.
    pub(super) fn fresh_probe_failed(&mut self, id: JobId, end: CallOutcome, at: At) {
        debug_assert!(matches!(self.jobs[id].stage, Stage::InFlight), "it has just come back");
        self.jobs.back_off(id, words(end), at);
    }
}
