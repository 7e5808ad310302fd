//! The batch lane: batches that are taken, listed in part, refused whole, read back, and given up.
//!
//! Every row that a batch does not settle goes through `account_import`, whose answer is the row's outcome.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::batch_trial::{ReadAttempt, ReadBack};
use super::{At, CallEffect, Choice, Deliveries, Lane, OnBatchFailure, rows_job, words};
use crate::domain::account::Account;
use crate::domain::breaker::HealthSample;
use crate::domain::command::Command;
use crate::domain::verdict::{Answer, CallOutcome, HaltReason, Profile, SuccessSeen, Verdict};
use crate::flow::dispatch::JobId;
use crate::flow::dispatch::health;
use crate::flow::dispatch::job_queue::Job;

/// A profile that doesn't show what was sent is read again after this time. Source: the contract of the batch lane.
const READ_AGAIN: Duration = Duration::from_secs(2);

impl Deliveries {
    /// A batch that was tried before, or a new one. A short one leaves only when no further record can be had.
    pub(super) fn choose_batch(&self) -> Option<Choice> {
        let retry = self.jobs.first_due(Command::MultiaccountImport).map(Choice::Job);
        let is_full = self.fresh.len() >= self.records_a_call() || !self.can_have_more();
        let fresh = (!self.fresh.is_empty() && is_full).then_some(Choice::Fresh);
        retry.or(fresh).filter(|choice| self.may_batch(*choice))
    }

    pub(super) fn may_batch(&self, choice: Choice) -> bool {
        self.batch_trial.may_leave(match choice {
            Choice::Job(id) => Some(self.jobs[id].batch_id),
            Choice::Fresh | Choice::Probe(_) => None,
        })
    }

    pub(super) fn batch_ended(&mut self, id: JobId, verdict: &Verdict, end: CallOutcome, at: At) -> Result<(), CallEffect> {
        let batch_id = self.jobs[id].batch_id;
        self.batch_trial.returned(id);
        match verdict {
            Verdict::Accepted => {
                let listed = match end {
                    CallOutcome::Done(Answer::FailAccounts(ids)) => ids,
                    _ => Vec::new(),
                };
                self.batch_taken(id, &listed, at);
            }
            Verdict::Reject => self.halve(id),
            Verdict::Retry | Verdict::Unknown => {
                if self.charge_passing(id, at.now) >= self.limits.max_attempts {
                    let job = self.jobs.remove(id);
                    self.send_all_singly(job.payload, job.batch_id);
                } else {
                    self.jobs.back_off(id, words(end), at);
                }
                self.leave_the_lane(id);
            }
            Verdict::ConnectFailed | Verdict::Throttle(_) => {
                self.jobs.back_off(id, words(end), at);
                self.leave_the_lane(id);
            }
            Verdict::Reauthenticate => {
                self.jobs.make_due(id);
                self.leave_the_lane(id);
            }
            Verdict::Abort(refusal) => return Err(self.halt(id, *refusal, end)),
        }
        self.blame_batches(batch_id)
    }

    /// Settles what the service took; what it listed goes singly. The first batch with profiles is read back before any row of it settles.
    fn batch_taken(&mut self, id: JobId, listed: &[Box<str>], at: At) {
        let Job { payload: rows, batch_id, .. } = self.jobs.remove(id);
        self.batch_trial.batches_accepted = true;
        self.charge_rows(&rows);
        let siblings = rows.len();
        let (listed, taken) = self.split_by_listed(rows, listed);
        if !taken.is_empty() {
            self.seen = SuccessSeen::Yes;
            self.refusals.accepted();
        }
        if !self.batch_trial.keep_profiles
            && matches!(self.lane, Lane::Batch(_))
            && taken.iter().any(|row| self.account(*row).is_some_and(Account::has_profile))
        {
            self.batch_trial.read_back = Some(ReadBack { listed, reading: ReadAttempt::First });
            self.jobs.insert_due(rows_job(Command::PortraitGet, taken, batch_id));
            return;
        }
        self.settle_taken(taken, at);
        self.send_singly(listed, batch_id, siblings);
    }

    fn settle_taken(&mut self, rows: Vec<u64>, at: At) {
        for row in rows {
            self.finish(row, None, at);
        }
    }

    fn charge_rows(&mut self, rows: &[u64]) {
        for row in rows {
            if let Some(open) = self.buffer.open_mut(*row) {
                open.attempts += 1;
            }
        }
    }

    fn account(&self, row: u64) -> Option<&Account> {
        self.buffer.open(row).map(super::reorder_buffer::UnsettledRecord::account)
    }

    /// The rows whose ids are listed, and the others. Ids that were not in the call are only told.
    fn split_by_listed(&self, rows: Vec<u64>, ids: &[Box<str>]) -> (Vec<u64>, Vec<u64>) {
        if ids.is_empty() {
            return (Vec::new(), rows);
        }
        let ids: HashSet<&str> = ids.iter().map(AsRef::as_ref).collect();
        let is_listed = |row: &u64| self.account(*row).is_some_and(|account| ids.contains(account.user_id.as_str()));
        let (listed, taken): (Vec<u64>, Vec<u64>) = rows.into_iter().partition(is_listed);
        let foreign = ids.len() - listed.len();
        if foreign > 0 {
            tracing::warn!(foreign, "a batch came back with ids that were not in it");
        }
        (listed, taken)
    }

    /// Something in the batch is refused: each half is a call of its own.
    fn halve(&mut self, id: JobId) {
        let Job { payload: mut rows, batch_id, .. } = self.jobs.remove(id);
        self.charge_rows(&rows);
        let siblings = rows.len();
        let second = rows.split_off(siblings.div_ceil(2));
        for half in [rows, second] {
            if half.len() > 1 && matches!(self.lane, Lane::Batch(_)) {
                self.jobs.insert_due(rows_job(Command::MultiaccountImport, half, batch_id));
            } else {
                self.send_singly(half, batch_id, siblings);
            }
        }
    }

    fn send_all_singly(&mut self, rows: Vec<u64>, batch_id: u64) {
        let siblings = rows.len();
        self.send_singly(rows, batch_id, siblings);
    }

    /// Rows of a batch of `siblings` records go one by one, with fresh attempts.
    fn send_singly(&mut self, rows: Vec<u64>, batch_id: u64, siblings: usize) {
        for row in rows {
            self.jobs.insert_due(Job { siblings, ..rows_job(Command::AccountImport, vec![row], batch_id) });
        }
    }

    /// A batch that comes back after the lane was given up is not repeated.
    pub(super) fn leave_the_lane(&mut self, id: JobId) {
        if self.lane == Lane::FellBack && self.jobs.contains(id) && self.jobs[id].command == Command::MultiaccountImport {
            self.jobs.unqueue(id);
            let job = self.jobs.remove(id);
            self.send_all_singly(job.payload, job.batch_id);
        }
    }

    /// A record was taken singly: if that is so of the first batch, and nothing of it was taken as one, the service takes no batches.
    pub(super) fn taken_singly(&mut self, batch_id: u64) -> Result<(), CallEffect> {
        self.batch_trial.note_accepted_singly(batch_id);
        self.blame_batches(batch_id)
    }

    /// Parts of the first batch that are still to be tried may yet be taken.
    fn blame_batches(&mut self, batch_id: u64) -> Result<(), CallEffect> {
        let is_part = |job: &Job<Vec<u64>>| job.batch_id == batch_id && job.command == Command::MultiaccountImport;
        if matches!(self.lane, Lane::Batch(_)) && self.batch_trial.is_refuted(batch_id) && !self.jobs.iter().any(|(_, job)| is_part(job)) {
            return self.give_up_batches(HaltReason::BatchesRefused);
        }
        Ok(())
    }

    /// Whether another record of the same batch may yet be taken: until then nobody knows whose fault a malformed request is.
    pub(super) fn has_promising_sibling(&self, id: JobId) -> bool {
        let Job { batch_id, siblings, .. } = self.jobs[id];
        // One that was sent singly as a test has all others for siblings.
        let was_test = siblings == 0 && matches!(self.lane, Lane::Batch(_));
        let is_sibling = |job: &Job<Vec<u64>>| was_test || job.batch_id == batch_id;
        let is_left = self.jobs.iter().any(|(other, job)| other != id && is_sibling(job) && job.is_promising());
        is_left || (was_test && !self.fresh.is_empty())
    }

    /// What the end of a call says about the service. If its record was split out of a batch, the batch counts, and it is faulty when half
    /// of its records are.
    pub(super) fn sample(&mut self, id: JobId, verdict: &Verdict) -> HealthSample {
        let Job { command, batch_id, siblings, payload: ref rows, .. } = self.jobs[id];
        let sample = match health::sample(verdict) {
            // What reading back meets says nothing about the import, unless nobody gets through.
            HealthSample::Good | HealthSample::Faulty if command == Command::PortraitGet => HealthSample::Neutral,
            sample => sample,
        };
        if siblings == 0 {
            return sample;
        }
        if sample == HealthSample::Faulty {
            self.health.note_split_out(rows[0]);
        }
        self.faults.of_batch((batch_id, siblings), (rows[0], 1), sample)
    }

    /// If nothing is left of a batch that was to bring evidence, another one may.
    pub(super) fn forget_batch(&mut self, batch_id: u64) {
        if matches!(self.lane, Lane::Batch(_))
            && !self.batch_trial.batches_accepted
            && !self.jobs.iter().any(|(_, job)| job.batch_id == batch_id)
        {
            self.batch_trial.is_gone(batch_id);
        }
    }

    pub(super) fn read_back_ended(&mut self, id: JobId, verdict: &Verdict, end: CallOutcome, at: At) -> Result<(), CallEffect> {
        match verdict {
            Verdict::Accepted => {
                let profiles = match end {
                    CallOutcome::Done(Answer::Profiles(profiles)) => profiles,
                    _ => Vec::new(),
                };
                self.profiles_read(id, profiles, at)
            }
            Verdict::Retry | Verdict::Unknown if self.charge_read_back(id) < self.limits.max_attempts => {
                self.jobs.back_off(id, words(end), at);
                Ok(())
            }
            Verdict::Retry | Verdict::Unknown | Verdict::Reject => self.read_back_failed(id),
            Verdict::ConnectFailed | Verdict::Throttle(_) => {
                self.jobs.back_off(id, words(end), at);
                Ok(())
            }
            Verdict::Reauthenticate => {
                self.jobs.make_due(id);
                Ok(())
            }
            Verdict::Abort(refusal) => Err(self.halt(id, *refusal, end)),
        }
    }

    /// Nothing of reading back is charged to the rows.
    fn charge_read_back(&mut self, id: JobId) -> u32 {
        let is_down = self.is_down();
        let job = &mut self.jobs[id];
        job.attempts += u32::from(!is_down);
        job.attempts
    }

    fn profiles_read(&mut self, id: JobId, profiles: Vec<Profile>, at: At) -> Result<(), CallEffect> {
        let profiles: HashMap<Box<str>, Profile> = profiles.into_iter().map(|profile| (profile.user_id.clone(), profile)).collect();
        let is_kept = |row: &u64| self.account(*row).is_none_or(|account| shows(profiles.get(account.user_id.as_str()), account));
        if self.jobs[id].payload.iter().all(is_kept) {
            self.batch_trial.keep_profiles = true;
            let Job { payload: rows, batch_id, .. } = self.jobs.remove(id);
            let listed = self.batch_trial.read_back.take().map(|read_back| read_back.listed).unwrap_or_default();
            let siblings = rows.len() + listed.len();
            self.settle_taken(rows, at);
            self.send_singly(listed, batch_id, siblings);
            return Ok(());
        }
        match &mut self.batch_trial.read_back {
            Some(read_back) if read_back.reading == ReadAttempt::First => {
                read_back.reading = ReadAttempt::Second;
                self.jobs.make_wait(id, at.now + READ_AGAIN);
                Ok(())
            }
            Some(_) | None => self.read_back_failed(id),
        }
    }

    /// The batch's profiles were dropped, or nobody can tell.
    fn read_back_failed(&mut self, id: JobId) -> Result<(), CallEffect> {
        let Job { payload: mut rows, .. } = self.jobs.remove(id);
        rows.extend(self.batch_trial.read_back.take().map(|read_back| read_back.listed).unwrap_or_default());
        self.put_back(rows);
        self.give_up_batches(HaltReason::BatchDropsProfiles)
    }

    /// Takes the single lane for the rest of the run, or stops it.
    fn give_up_batches(&mut self, why: HaltReason) -> Result<(), CallEffect> {
        if self.lane == Lane::Batch(OnBatchFailure::Stop) {
            return Err(CallEffect::Halt { refusal: why, code: None, says: String::new() });
        }
        tracing::warn!("{why}: going on account by account");
        self.lane = Lane::FellBack;
        let batches: Vec<JobId> = self.jobs.idle(Command::MultiaccountImport);
        let mut rows = Vec::new();
        for id in batches {
            self.jobs.unqueue(id);
            rows.extend(self.jobs.remove(id).payload);
        }
        self.put_back(rows);
        Ok(())
    }

    /// Rows go to the front of those that no call has carried yet.
    fn put_back(&mut self, mut rows: Vec<u64>) {
        rows.sort_unstable();
        for row in rows.into_iter().rev() {
            self.fresh.push_front(row);
        }
    }
}

/// Whether a profile shows every field that was sent, byte for byte.
fn shows(profile: Option<&Profile>, sent: &Account) -> bool {
    let kept = |sent: &Option<Box<str>>, shown: Option<&Box<str>>| sent.is_none() || sent.as_ref() == shown;
    let (nick, face_url) = profile.map(|profile| (profile.nick.as_ref(), profile.face_url.as_ref())).unwrap_or_default();
    kept(&sent.nick, nick) && kept(&sent.face_url, face_url)
}
