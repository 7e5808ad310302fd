//! The calls that test whether an API is well, when faults may be the jobs' or the service's.
//!
//! One at a time for each breaker; what they show is for `breaker` to judge. Each is a call that ought to go well: what was accepted last,
//! again, where that undoes nothing; else fresh work; else `account_check` of the identifier. Nobody is charged for a test that fails.

use tokio::time::Instant;

use super::CallId;
use super::health::{Probe, effect_of_test, halted, test_result};
use super::scheduler::{Scheduler, Stop, When};
use super::workload::Workload;
use crate::domain::breaker::{HealthChange, REPEAT_WITHIN, TestMeans, TestResult};
use crate::domain::command::Command;
use crate::domain::verdict::{CallEffect, CallOutcome, CallSize, ThrottleScope, Verdict, judge};

impl<W: Workload> Scheduler<W> {
    /// The API that a call of `command` is to test now, and how.
    pub(super) fn next_probe(&self, workload: &W, command: Command, now: Instant) -> Option<(Command, TestMeans)> {
        self.breakers.iter().find_map(|tested| {
            if !self.is_test_due(*tested, now) {
                return None;
            }
            let means = Self::means(workload, *tested, now);
            let tests = match means {
                TestMeans::Fresh if self.lacks_fresh(workload, *tested) => return None,
                TestMeans::Repeat | TestMeans::Fresh => workload.test_command(*tested),
                TestMeans::Check => Command::AccountCheck,
            };
            (tests == command).then_some((*tested, means))
        })
    }

    fn is_test_due(&self, tested: Command, now: Instant) -> bool {
        let api = &self.apis[tested];
        api.health.wants_test(now) && api.probe.is_none() && !self.is_stopped()
    }

    fn means(workload: &W, tested: Command, now: Instant) -> TestMeans {
        if workload.repeatable_since(tested).is_some_and(|since| now - since <= REPEAT_WITHIN) {
            TestMeans::Repeat
        } else if workload.fresh(tested) > 0 || workload.can_have_more(tested) {
            TestMeans::Fresh
        } else {
            TestMeans::Check
        }
    }

    /// Whether the fresh work that a test is to take has not been read yet.
    fn lacks_fresh(&self, workload: &W, tested: Command) -> bool {
        workload.fresh(tested) <= self.apis[tested].health.fresh_position() && workload.can_have_more(tested)
    }

    pub(super) fn wants_fresh_for_test(&self, workload: &W, tested: Command, now: Instant) -> bool {
        self.is_test_due(tested, now) && Self::means(workload, tested, now) == TestMeans::Fresh && self.lacks_fresh(workload, tested)
    }

    /// The test leaves.
    pub(super) fn send_probe(&mut self, workload: &mut W, command: Command, (tested, means): (Command, TestMeans)) -> Option<CallId> {
        let position = self.apis[tested].health.fresh_position();
        let probe = match means {
            TestMeans::Repeat => workload.take_repeatable(tested).map(|(repeatable, since)| Probe::Repeat(repeatable, since))?,
            TestMeans::Fresh => Probe::Fresh(self.jobs.insert(workload.take_for_test(command, position)?)),
            TestMeans::Check => Probe::Check,
        };
        let fresh = if let Probe::Fresh(id) = probe { Some(id) } else { None };
        let api = &mut self.apis[tested];
        api.health.test_left(means);
        api.probe = Some(probe);
        if let Some(id) = fresh {
            return Some(self.depart(workload, id));
        }
        api.in_flight += 1;
        self.in_flight += 1;
        Some(CallId::Probe(tested))
    }

    /// Takes the end of a test that was no job.
    pub(super) fn probe_ended(
        &mut self,
        workload: &mut W,
        tested: Command,
        end: CallOutcome,
        when: When,
    ) -> Result<CallEffect, Stop<W::Error>> {
        let api = &mut self.apis[tested];
        api.in_flight -= 1;
        let verdict = judge(&end, self.seen, CallSize::Batch);
        let called = match api.probe.take() {
            Some(Probe::Repeat(repeatable, since)) => {
                workload.repeated(tested, repeatable, if verdict == Verdict::Accepted { when.at.now } else { since });
                if let Verdict::Abort(reason) = verdict {
                    return Ok(halted(reason, end));
                }
                tested
            }
            Some(Probe::Fresh(_) | Probe::Check) | None => Command::AccountCheck,
        };
        self.tested(workload, (tested, called), &verdict, when)
    }

    /// Draws the consequences of a test's end.
    pub(super) fn tested(
        &mut self,
        workload: &mut W,
        (tested, called): (Command, Command),
        verdict: &Verdict,
        when: When,
    ) -> Result<CallEffect, Stop<W::Error>> {
        let is_own = called.spec().breaker == tested;
        let api = &mut self.apis[tested];
        let (result, sample) = test_result(verdict, api.other_calls());
        if is_own || *verdict == Verdict::Throttle(ThrottleScope::All) {
            api.health.note_throttling(sample, when.at.now);
        }
        if is_own && matches!(verdict, Verdict::Accepted | Verdict::Reject) {
            self.release(workload, tested, when)?;
        }
        let change = self.apis[tested].health.test_ended(result, when.at.now);
        if result == TestResult::Well {
            self.leave_exhausted_for_later(workload, tested, when.at)?;
        }
        if change == HealthChange::Down {
            self.give_back(tested);
        }
        Ok(effect_of_test(change, verdict))
    }
}
