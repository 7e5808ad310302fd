//! The calls that test whether an API is well, when faults may be the jobs' or the service's.
//!
//! One at a time for each breaker; what they show is for `breaker` to judge. Each is a call that ought to go well: what was accepted last,
//! again, where that undoes nothing; else fresh work; else `account_check` of the identifier. Where that says nothing about the API, several
//! jobs in trouble are tried in turn instead: if one goes well, the others are at fault, and if none does, the API is. Nobody is charged for
//! a test that fails.

use tokio::time::Instant;

use super::health::{Probe, effect_of_test, halted, test_result};
use super::job_queue::{Failure, Job, Stage};
use super::scheduler::{Scheduler, Stop, When};
use super::workload::Workload;
use super::{CallId, JobId};
use crate::domain::breaker::{ExhaustedBy, HealthChange, Overtime, REPEAT_WITHIN, TestMeans, TestResult};
use crate::domain::command::Command;
use crate::domain::retry::ClockReading;
use crate::domain::verdict::{CallEffect, CallOutcome, CallSize, ThrottleScope, Verdict, judge};

impl<W: Workload> Scheduler<W> {
    /// The API that a call of `command` is to test now, and how.
    pub(super) fn next_probe(&self, workload: &W, command: Command, now: Instant) -> Option<(Command, TestMeans)> {
        self.breakers.iter().find_map(|tested| {
            if !self.is_test_due(*tested, now) {
                return None;
            }
            let means = self.means(workload, *tested, now);
            let tests = match means {
                TestMeans::Fresh if self.lacks_fresh(workload, *tested) => return None,
                TestMeans::Again if self.job_in_trouble(workload, *tested).is_none() => return None,
                TestMeans::Repeat | TestMeans::Fresh => workload.test_command(*tested),
                TestMeans::Again => *tested,
                TestMeans::Check => Command::AccountCheck,
            };
            (tests == command).then_some((*tested, means))
        })
    }

    fn is_test_due(&self, tested: Command, now: Instant) -> bool {
        let api = &self.apis[tested];
        api.health.wants_test(now) && api.probe.is_none() && !self.is_stopped()
    }

    fn means(&self, workload: &W, tested: Command, now: Instant) -> TestMeans {
        if workload.repeatable_since(tested).is_some_and(|since| now - since <= REPEAT_WITHIN) {
            TestMeans::Repeat
        } else if workload.fresh(tested) > 0 || workload.can_have_more(tested) {
            TestMeans::Fresh
        } else if self.jobs_in_trouble(workload, tested).count() >= self.least_in_trouble(tested) {
            TestMeans::Again
        } else {
            TestMeans::Check
        }
    }

    /// Jobs that must be in trouble to be a test themselves. A single one can't be told from its API; once that is down, it is asked all the
    /// same.
    fn least_in_trouble(&self, tested: Command) -> usize {
        if self.is_down(tested) { 1 } else { 2 }
    }

    /// The jobs of this API that are not in flight, if they may be a test of it: not those of which it is known that they are at fault.
    fn jobs_in_trouble<'a>(&'a self, workload: &'a W, tested: Command) -> impl Iterator<Item = (JobId, &'a Job<W::Payload>)> {
        let health = &self.apis[tested].health;
        let is_open = |(id, job): &(JobId, &Job<W::Payload>)| {
            let overtime = job.overtime.or_else(|| health.overtime_of(*id));
            !matches!(job.stage, Stage::InFlight) && !overtime.is_some_and(Overtime::is_judged)
        };
        self.jobs.iter().filter(move |found| found.1.command == tested && is_open(found) && workload.may_test_itself(found.1))
    }

    /// The one of them that is next: the one that was tried least often. None while it has to wait.
    fn job_in_trouble(&self, workload: &W, tested: Command) -> Option<JobId> {
        let may_leave = self.jobs_in_trouble(workload, tested).filter(|(_, job)| workload.may_leave(job));
        may_leave.min_by_key(|(id, job)| (job.tries, job.order, *id)).map(|(id, _)| id)
    }

    /// Whether the fresh work that a test is to take has not been read yet.
    fn lacks_fresh(&self, workload: &W, tested: Command) -> bool {
        workload.fresh(tested) <= self.apis[tested].health.fresh_position() && workload.can_have_more(tested)
    }

    pub(super) fn wants_fresh_for_test(&self, workload: &W, tested: Command, now: Instant) -> bool {
        self.is_test_due(tested, now) && self.means(workload, tested, now) == TestMeans::Fresh && self.lacks_fresh(workload, tested)
    }

    /// The test leaves.
    pub(super) fn send_probe(&mut self, workload: &mut W, command: Command, (tested, means): (Command, TestMeans)) -> Option<CallId> {
        let position = self.apis[tested].health.fresh_position();
        let probe = match means {
            TestMeans::Repeat => workload.take_repeatable(tested).map(|(repeatable, since)| Probe::Repeat(repeatable, since))?,
            TestMeans::Fresh => Probe::Job(self.jobs.insert(workload.take_for_test(command, position)?)),
            TestMeans::Again => Probe::Job(self.take_in_trouble(workload, tested)?),
            TestMeans::Check => Probe::Check,
        };
        let job = if let Probe::Job(id) = probe { Some(id) } else { None };
        let api = &mut self.apis[tested];
        api.health.test_left(means);
        api.probe = Some(probe);
        if let Some(id) = job {
            return Some(self.depart(workload, id));
        }
        api.in_flight += 1;
        self.in_flight += 1;
        Some(CallId::Probe(tested))
    }

    /// A job in trouble, to be the test. It may be out of attempts, and then is so again if it fails.
    fn take_in_trouble(&mut self, workload: &W, tested: Command) -> Option<JobId> {
        let id = self.job_in_trouble(workload, tested)?;
        if let Some(overtime) = self.apis[tested].health.forget(id) {
            self.jobs[id].overtime = Some(overtime);
        }
        Some(id)
    }

    /// A job that was the test has failed it, and is not charged.
    pub(super) fn return_tested(&mut self, id: JobId, last: Failure, at: ClockReading) {
        if self.jobs[id].overtime.is_none() {
            self.jobs.back_off(id, last, at);
            return;
        }
        let health = &mut self.apis[W::breaker_of(self.jobs[id].command)].health;
        self.jobs.exhaust(id, health, (last, ExhaustedBy::TemporaryErrors), at.now);
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
            Some(Probe::Job(_) | Probe::Check) | None => Command::AccountCheck,
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
            self.settle_exhausted(workload, tested, when)?;
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
