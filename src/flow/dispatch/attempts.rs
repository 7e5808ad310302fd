//! Whose fault it is, and what becomes of a job: it has its answer, is tried again, or is out of attempts.
//!
//! It charges temporary errors, and resolves jobs that are out of attempts once it is known that the service was well.

use super::JobId;
use super::health::{attempts_allowed, halted, sample};
use super::job_queue::{Failure, Job};
use super::scheduler::{Decided, Scheduler, Stop, When};
use super::workload::{Followup, JobOutcome, Workload};
use crate::domain::breaker::{ExhaustedBy, HealthSample};
use crate::domain::command::Command;
use crate::domain::halt_reason::HaltReason;
use crate::domain::refusals::RefusalPattern;
use crate::domain::retry::ClockReading;
use crate::domain::verdict::{CallEffect, CallOutcome, SuccessSeen, Verdict, words};

/// What becomes of the accounts of a job that has ended.
#[derive(Debug)]
enum Continuation {
    Ended,
    /// With this refusal, whatever the last call met.
    Refused(Failure),
    /// Further jobs follow for them.
    MoreJobs,
}

impl<W: Workload> Scheduler<W> {
    /// What the end of a request says about its API. A part of a divided batch speaks for the batch: that is faulty once the parts that met
    /// temporary errors have half of its accounts.
    pub(super) fn sample(&mut self, workload: &W, id: JobId, verdict: &Verdict) -> HealthSample {
        let job = &self.jobs[id];
        let breaker = W::breaker_of(job.command);
        let sample = match sample(verdict) {
            // Another API's answer says nothing about the one that the breaker stands for; that it cannot be reached says something.
            HealthSample::Good | HealthSample::Faulty if job.command.spec().breaker != breaker => HealthSample::Neutral,
            sample => sample,
        };
        if job.split_from_accounts == 0 {
            return sample;
        }
        let api = &mut self.apis[breaker];
        if W::SUSPECTS_PARTS && sample == HealthSample::Faulty && !workload.is_divisible(job) {
            api.health.note_split_out(job.order);
        }
        api.faults.of_batch((job.batch_id, job.split_from_accounts), (id as u64, workload.count_accounts(job)), sample)
    }

    /// Decides what becomes of a job whose call has ended.
    pub(super) fn decide(&mut self, workload: &mut W, id: JobId, (verdict, end): (&Verdict, CallOutcome), at: ClockReading) -> Decided<W> {
        match verdict {
            Verdict::Accepted => return self.accepted(workload, id, end, at),
            Verdict::Reject => return self.rejected(workload, id, words(end), at),
            Verdict::Retry => return self.charge(workload, id, (words(end), ExhaustedBy::TemporaryErrors), at),
            Verdict::Unknown => {
                let last = words(end);
                let breaker = W::breaker_of(self.jobs[id].command);
                self.charge(workload, id, (last.clone(), ExhaustedBy::UnknownCodes), at)?;
                if self.apis[breaker].unknown.are_everywhere() {
                    return Err(halt(HaltReason::UnknownCodes, last));
                }
            }
            Verdict::ConnectFailed | Verdict::Throttle(_) => self.jobs.back_off(id, words(end), at),
            Verdict::Reauthenticate => self.jobs.make_due(id),
            Verdict::Abort(HaltReason::InvalidRequest) if self.has_promising_sibling(workload, id) => {
                self.jobs.back_off(id, words(end), at);
            }
            // The job stays as it is, uncharged, for the run that resumes.
            Verdict::Abort(reason) => {
                self.jobs.make_due(id);
                return Err(Stop::Halt(halted(*reason, end)));
            }
        }
        Ok(())
    }

    fn accepted(&mut self, workload: &mut W, id: JobId, end: CallOutcome, at: ClockReading) -> Decided<W> {
        let CallOutcome::Done(answer) = end else { unreachable!("nothing else is accepted") };
        let mut job = self.remove(id);
        job.charge_answer();
        let (breaker, is_divisible) = (W::breaker_of(job.command), workload.is_divisible(&job));
        let is_accepted = workload.is_accepted(&job, &answer);
        if is_accepted {
            self.seen = SuccessSeen::Yes;
        }
        match self.resolve(workload, job, JobOutcome::Answered(answer), at)? {
            Continuation::Refused(failure) => return self.count_refusal(breaker, failure),
            Continuation::Ended if is_accepted => self.apis[breaker].refusals.accepted(),
            Continuation::MoreJobs if is_accepted && is_divisible => self.apis[breaker].refusals.accepted(),
            Continuation::Ended | Continuation::MoreJobs => {}
        }
        Ok(())
    }

    /// A job was refused for its own fault; if all are, it isn't their own. What further jobs follow for has not ended: it counts once, with
    /// the last of them.
    fn rejected(&mut self, workload: &mut W, id: JobId, failure: Failure, at: ClockReading) -> Decided<W> {
        let mut job = self.remove(id);
        job.charge_answer();
        let (spec, breaker) = (job.command.spec(), W::breaker_of(job.command));
        let counts = !workload.is_divisible(&job) && spec.breaker == breaker && spec.no_account_code != failure.0;
        match self.resolve(workload, job, JobOutcome::Rejected(failure.clone()), at)? {
            Continuation::Ended if counts => self.count_refusal(breaker, failure),
            Continuation::Refused(failure) => self.count_refusal(breaker, failure),
            Continuation::Ended | Continuation::MoreJobs => Ok(()),
        }
    }

    fn count_refusal(&mut self, breaker: Command, failure: Failure) -> Decided<W> {
        match failure.0.map(|code| self.apis[breaker].refusals.refused(code)) {
            Some(RefusalPattern::Systematic) => Err(halt(all_refused(breaker), failure)),
            Some(RefusalPattern::Plausible) | None => Ok(()),
        }
    }

    /// Charges a temporary error, unless the API is down. A job that is out of attempts waits until its failure can be judged.
    fn charge(&mut self, workload: &mut W, id: JobId, (last, by): (Failure, ExhaustedBy), at: ClockReading) -> Decided<W> {
        let job = &mut self.jobs[id];
        let is_withheld = W::withholds_failure(job.command);
        let allowed = if is_withheld { attempts_allowed(by, self.limits.max_attempts) } else { self.limits.max_attempts };
        let health = &mut self.apis[W::breaker_of(job.command)].health;
        if job.overtime.is_none() {
            if !health.is_down() {
                job.charge_error(at.now);
            }
            if health.is_down() || job.charged_errors < allowed {
                self.jobs.back_off(id, last, at);
                return Ok(());
            }
        }
        if is_withheld {
            self.jobs.exhaust(id, health, (last, by), at.now);
            return Ok(());
        }
        job.last = last;
        self.fail_exhausted(workload, id, at)
    }

    /// Whether another part of the same batch may yet go well: until then nobody knows whose fault a malformed request is.
    fn has_promising_sibling(&self, workload: &W, id: JobId) -> bool {
        let job = &self.jobs[id];
        let by_all = workload.is_judged_by_all(job);
        let may_show = |other: &Job<W::Payload>| (by_all || other.batch_id == job.batch_id) && other.is_promising();
        self.jobs.iter().any(|(other, job)| other != id && may_show(job)) || (by_all && workload.fresh(W::breaker_of(job.command)) > 0)
    }

    /// The breaker is open: what temporary errors were charged is given back, exhausted jobs live again.
    pub(super) fn give_back(&mut self, breaker: Command) {
        for (_, job) in self.jobs.iter_mut().filter(|(_, job)| W::breaker_of(job.command) == breaker) {
            job.give_back();
        }
        for id in self.apis[breaker].health.revive() {
            self.jobs.make_due(id);
        }
    }

    /// A call that left then went well: what is exhausted and had its last call ended by then fails, or is tried a last time.
    pub(super) fn settle_exhausted(&mut self, workload: &mut W, breaker: Command, when: When) -> Decided<W> {
        let settled = self.apis[breaker].health.settle_exhausted(when.times());
        let (divisible, alone): (Vec<_>, Vec<_>) =
            settled.try_again.into_iter().partition(|(id, _)| workload.is_divisible(&self.jobs[*id]));
        for id in settled.fail.into_iter().chain(divisible.into_iter().map(|(id, _)| id)) {
            self.fail_exhausted(workload, id, when.at)?;
        }
        self.jobs.try_again(alone);
        Ok(())
    }

    /// A test went well. What is exhausted and can be divided is, for the fault may be a part's; what the test can't judge is tried again
    /// later.
    pub(super) fn leave_exhausted_for_later(&mut self, workload: &mut W, tested: Command, at: ClockReading) -> Decided<W> {
        if !self.apis[tested].health.has_exhausted() || !self.is_idle(workload, tested) {
            return Ok(());
        }
        let divisible = self.apis[tested].health.exhausted().filter(|id| workload.is_divisible(&self.jobs[*id]));
        for id in divisible.collect::<Vec<_>>() {
            self.apis[tested].health.forget(id);
            self.fail_exhausted(workload, id, at)?;
        }
        let health = &mut self.apis[tested].health;
        if health.has_exhausted() {
            health.try_again_later(at.now, at.jitter);
        }
        Ok(())
    }

    /// Whether jobs wait for what becomes of them, being out of attempts.
    #[must_use]
    pub fn has_exhausted(&self) -> bool {
        self.breakers().iter().any(|breaker| self.apis[*breaker].health.has_exhausted())
    }

    /// Looks at the jobs that are out of attempts when nothing else is left that could show whether the service is well: a test is to.
    /// What no test can judge is tried again from time to time, and fails once its time is over. Returns whether something has changed.
    ///
    /// # Errors
    /// [`Stop`].
    pub fn resolve_exhausted(&mut self, workload: &mut W, at: ClockReading) -> Result<bool, Stop<W::Error>> {
        let mut has_changed = false;
        for place in 0..self.breakers().len() {
            let breaker = self.breakers()[place];
            if self.apis[breaker].health.has_exhausted() && !self.is_down(breaker) && !self.is_stopped() {
                has_changed |= self.resolve_exhausted_of(workload, breaker, at)?;
            }
        }
        Ok(has_changed)
    }

    fn resolve_exhausted_of(&mut self, workload: &mut W, breaker: Command, at: ClockReading) -> Result<bool, Stop<W::Error>> {
        let settled = self.apis[breaker].health.take_retries(at.now);
        let mut has_changed = !settled.fail.is_empty() || !settled.try_again.is_empty();
        for id in settled.fail {
            self.unjudged += workload.count_accounts(&self.jobs[id]) as u64;
            self.fail_exhausted(workload, id, at)?;
        }
        self.jobs.try_again(settled.try_again);
        let health = &self.apis[breaker].health;
        if health.retry_at().is_none() && health.is_trusted() && self.is_idle(workload, breaker) {
            for id in self.apis[breaker].health.take_unknown() {
                self.fail_exhausted(workload, id, at)?;
            }
            if self.apis[breaker].health.has_exhausted() && self.is_idle(workload, breaker) {
                self.apis[breaker].health.suspect(at.now);
            }
            has_changed = true;
        }
        Ok(has_changed)
    }

    /// Whether nothing of this breaker moves of itself any more but what is out of attempts.
    fn is_idle(&self, workload: &W, breaker: Command) -> bool {
        let moves = |command: &Command| W::breaker_of(*command) == breaker && self.jobs.moves(*command);
        self.apis[breaker].in_flight == 0 && workload.is_spent(breaker) && !W::COMMANDS.iter().any(moves)
    }

    /// Ends a job that is out of attempts: it fails, or its workload divides it.
    fn fail_exhausted(&mut self, workload: &mut W, id: JobId, at: ClockReading) -> Decided<W> {
        let mut job = self.remove(id);
        let last = std::mem::take(&mut job.last);
        self.resolve(workload, job, JobOutcome::AttemptsExhausted(last), at).map(drop)
    }

    fn remove(&mut self, id: JobId) -> Job<W::Payload> {
        let job = self.jobs.remove(id);
        if job.split_from_accounts > 0 {
            self.apis[W::breaker_of(job.command)].faults.forget(job.batch_id, id as u64);
        }
        job
    }

    fn resolve(
        &mut self,
        workload: &mut W,
        job: Job<W::Payload>,
        outcome: JobOutcome,
        at: ClockReading,
    ) -> Result<Continuation, Stop<W::Error>> {
        let batch_id = job.batch_id;
        let followup = workload.resolve(job, outcome, at)?;
        let continuation = match &followup {
            Followup::Jobs(_) => Continuation::MoreJobs,
            Followup::Refused(failure) => Continuation::Refused(failure.clone()),
            Followup::Nothing | Followup::RetryAt(..) | Followup::StopCommand(_) | Followup::Abort(..) => Continuation::Ended,
        };
        self.follow(workload, followup)?;
        let followup = workload.review(batch_id, &self.jobs);
        self.follow(workload, followup)?;
        Ok(continuation)
    }

    fn follow(&mut self, workload: &mut W, followup: Followup<W::Payload>) -> Decided<W> {
        match followup {
            Followup::Nothing | Followup::Refused(_) => {}
            Followup::Jobs(jobs) => jobs.into_iter().for_each(|job| self.jobs.insert_due(job)),
            Followup::RetryAt(job, at) => {
                let id = self.jobs.insert(job);
                self.jobs.make_wait(id, at);
            }
            Followup::StopCommand(command) => {
                for id in self.jobs.idle(command) {
                    let job = self.remove(id);
                    workload.take_back(job);
                }
            }
            Followup::Abort(reason, failure) => return Err(halt(reason, failure)),
        }
        Ok(())
    }

    /// A job whose command is not sent any more goes back instead of being tried again.
    pub(super) fn take_back_if_stopped(&mut self, workload: &mut W, id: JobId) {
        if self.jobs.contains(id) && !workload.sends(self.jobs[id].command) {
            let job = self.remove(id);
            workload.take_back(job);
        }
    }
}

/// Why the run stops when an API refuses everything.
const fn all_refused(breaker: Command) -> HaltReason {
    if matches!(breaker, Command::PortraitSet) { HaltReason::AllProfilesRefused } else { HaltReason::AllRecordsRefused }
}

fn halt<E>(reason: HaltReason, (code, says): Failure) -> Stop<E> {
    Stop::Halt(CallEffect::Halt { reason, code, says })
}
