//! The calls that test whether the service is well, when faults may be the records' or the service's.
//!
//! One at a time; what they show is for `health` to judge. Each is a call that ought to go well: the account that was accepted last, again;
//! else a fresh record; else `account_check` of the identifier. Nobody is charged for a test that fails.

use tokio::time::Instant;

use super::user_order::UserKey;
use super::{At, BREAKER, Call, CallEffect, CallId, Deliveries, Intake, JobId, Lane, rows_job};
use crate::domain::account::Account;
use crate::domain::breaker::{CallTimes, HealthChange, Means, OtherCalls, REPEAT_WITHIN, TestResult};
use crate::domain::command::Command;
use crate::domain::verdict::{CallOutcome, CallSize, ThrottleScope, Verdict, judge, words};
use crate::flow::dispatch::health::{effect_of_test, halted, test_result};

/// A test that is in flight.
#[derive(Debug)]
pub(super) enum ImportProbe {
    /// The account that was accepted last; its UserID is held until the call has ended.
    Repeat(Accepted),
    Fresh(JobId),
    Check,
}

/// An account that this process has imported, of which no later record has been read.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) account: Account,
    pub(super) user_id: UserKey,
    pub(super) at: Instant,
}

impl Deliveries {
    /// The call that is to leave as a test now.
    pub(super) fn next_probe(&self, now: Instant) -> Option<(Command, Means)> {
        if self.probe.is_some() || self.feed == Intake::Stopped || !self.health.wants_test(now) {
            return None;
        }
        match self.means(now) {
            Means::Fresh if self.lacks_fresh() => None,
            means @ (Means::Repeat | Means::Fresh) => Some((self.import_command(), means)),
            Means::Check => Some((Command::AccountCheck, Means::Check)),
        }
    }

    fn means(&self, now: Instant) -> Means {
        if self.accepted.as_ref().is_some_and(|accepted| now - accepted.at <= REPEAT_WITHIN) {
            Means::Repeat
        } else if !self.fresh.is_empty() || self.can_have_more() {
            Means::Fresh
        } else {
            Means::Check
        }
    }

    /// Whether the fresh record that a test is to take has not been read yet.
    fn lacks_fresh(&self) -> bool {
        self.fresh.len() <= self.health.fresh_position() && self.can_have_more()
    }

    /// Whether records are to be read for a test.
    pub(super) fn wants_fresh_for_test(&self, now: Instant) -> bool {
        self.probe.is_none() && self.health.wants_test(now) && self.means(now) == Means::Fresh && self.lacks_fresh()
    }

    /// A batch of one, once it is known that the service takes batches; while one is on trial or read back no other one may leave.
    fn import_command(&self) -> Command {
        match self.lane {
            Lane::Batch(_) if self.batch_trial.batches_accepted && self.batch_trial.may_leave(None) => Command::MultiaccountImport,
            Lane::Batch(_) | Lane::Single | Lane::FellBack => Command::AccountImport,
        }
    }

    /// The test leaves.
    pub(super) fn send_probe(&mut self, command: Command, means: Means) -> Option<Call<'_>> {
        let position = self.health.fresh_position();
        self.health.test_left(means);
        match means {
            Means::Fresh => return self.send_fresh_probe(command, position),
            Means::Repeat => {
                let accepted = self.accepted.take()?;
                self.user_order.enter(accepted.user_id, 0);
                self.probe = Some(ImportProbe::Repeat(accepted));
            }
            Means::Check => self.probe = Some(ImportProbe::Check),
        }
        self.in_flight += 1;
        Some(self.probe_call())
    }

    pub(super) fn probe_call(&self) -> Call<'_> {
        let account = match &self.probe {
            Some(ImportProbe::Repeat(accepted)) => &accepted.account,
            Some(ImportProbe::Fresh(_) | ImportProbe::Check) | None => &self.identifier,
        };
        Call { id: CallId::Probe(BREAKER), accounts: vec![account], is_retry: false }
    }

    fn send_fresh_probe(&mut self, command: Command, position: usize) -> Option<Call<'_>> {
        let row = self.fresh.remove(position.min(self.fresh.len() - 1))?;
        let id = self.jobs.insert(rows_job(command, vec![row], row));
        self.probe = Some(ImportProbe::Fresh(id));
        self.depart(id);
        Some(self.call_of(id))
    }

    /// Whether this job is the test that is in flight; from here on it is not.
    pub(super) fn takes_probe(&mut self, id: JobId) -> bool {
        self.probe.take_if(|probe| matches!(probe, ImportProbe::Fresh(fresh) if *fresh == id)).is_some()
    }

    /// A fresh record that was sent as a test and met a fault is tried again like any other, uncharged.
    pub(super) fn fresh_probe_failed(&mut self, id: JobId, end: CallOutcome, at: At) {
        self.batch_trial.returned(id);
        self.jobs.back_off(id, words(end), at);
        self.leave_the_lane(id);
    }

    /// Takes the end of a test that carried no record of the input.
    pub(super) fn probe_ended(&mut self, end: CallOutcome, times: CallTimes, at: At) -> CallEffect {
        let Some(probe) = self.probe.take() else { return CallEffect::Nothing };
        let verdict = judge(&end, self.seen, CallSize::Batch);
        let command = match probe {
            ImportProbe::Repeat(accepted) => {
                self.repeat_ended(accepted, &verdict, at.now);
                if let Verdict::Abort(refusal) = verdict {
                    return halted(refusal, end);
                }
                self.main_command()
            }
            ImportProbe::Fresh(_) | ImportProbe::Check => Command::AccountCheck,
        };
        self.tested(command, &verdict, times, at)
    }

    /// A later record of the UserID may go now; if there is none, the account may be repeated again.
    fn repeat_ended(&mut self, accepted: Accepted, verdict: &Verdict, now: Instant) {
        let at = if *verdict == Verdict::Accepted { now } else { accepted.at };
        match self.user_order.leave(accepted.user_id) {
            Some(row) => self.fresh.push_back(row),
            None => {
                self.accepted.get_or_insert(Accepted { at, ..accepted });
            }
        }
    }

    /// Draws the consequences of a test's end.
    pub(super) fn tested(&mut self, command: Command, verdict: &Verdict, times: CallTimes, at: At) -> CallEffect {
        let went_well = matches!(verdict, Verdict::Accepted | Verdict::Reject);
        let (result, sample) = test_result(verdict, OtherCalls::of(self.in_flight));
        let is_own_api = command != Command::AccountCheck;
        if is_own_api || *verdict == Verdict::Throttle(ThrottleScope::All) {
            self.health.note_throttling(sample, at.now);
        }
        if went_well && is_own_api {
            self.fail_released(times, at);
        }
        let change = self.health.test_ended(result, at.now);
        if result == TestResult::Well && self.health.has_exhausted() && self.is_idle() {
            self.health.try_again_later(at.now, at.jitter);
        }
        if change == HealthChange::Down {
            self.give_back();
        }
        effect_of_test(change, verdict)
    }
}
