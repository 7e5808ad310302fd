//! Batches that are accepted, listed in part, refused whole, read back, and given up.
//!
//! Every row that a batch does not settle goes through `account_import`, whose answer is the row's outcome.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::batch_trial::{ReadAttempt, ReadBack};
use super::fresh_rows::{Afterwards, FreshRow};
use super::profile_calls::Place;
use super::reorder_buffer::UnsettledRecord;
use super::workload::{ImportWorkload, Rows};
use super::{Lane, OnBatchFailure};
use crate::domain::account::Account;
use crate::domain::answer::{Answer, Profile};
use crate::domain::command::Command;
use crate::domain::halt_reason::HaltReason;
use crate::domain::retry::ClockReading;
use crate::flow::dispatch::{Charges, Failure, Followup, Job, JobQueue};

/// A profile that doesn't show what was sent is read again after this time. Source: the contract of the batch lane.
const READ_AGAIN: Duration = Duration::from_secs(2);

impl ImportWorkload {
    pub(super) fn is_batch_ready(&self) -> bool {
        let is_whole = !self.can_have_more() && !self.waits_for_room();
        let is_full = self.available() >= Command::MultiaccountImport.spec().accounts_per_call || is_whole;
        is_full && self.batch_trial.may_leave(None)
    }

    /// Settles what the service accepted; what it listed goes singly. The first batch with profiles is read back before any row of it
    /// settles.
    pub(super) fn batch_accepted(&mut self, job: Job<Rows>, answer: Answer, at: ClockReading) -> Followup<Rows> {
        self.batch_trial.batches_accepted = true;
        let ids = if let Answer::FailAccounts(ids) = answer { ids } else { Vec::new() };
        let charges = job.charges;
        let accounts = job.payload.len();
        let (rows, part) = job.divide(accounts);
        let (listed, accepted) = self.split_by_listed(rows, &ids);
        let has_profile = |row: &u64| self.account(*row).is_some_and(Account::has_profile);
        if !self.batch_trial.profiles_proven && self.is_batch_lane() && accepted.iter().any(has_profile) {
            self.batch_trial.read_back = Some(ReadBack { listed, reading: ReadAttempt::First });
            return Followup::Jobs(vec![part(Command::PortraitGet, accepted)]);
        }
        self.settle_accepted(accepted, charges, at);
        Followup::Jobs(singles(listed, &part).collect())
    }

    fn settle_accepted(&mut self, rows: Rows, charges: Charges, at: ClockReading) {
        for row in rows {
            self.imported(row, charges, at);
        }
    }

    /// Whether some of these rows are not listed.
    pub(super) fn has_unlisted(&self, rows: &[u64], ids: &[Box<str>]) -> bool {
        let is_listed = |row: &u64| self.account(*row).is_some_and(|account| ids.iter().any(|id| **id == *account.user_id.as_str()));
        ids.is_empty() || !rows.iter().all(is_listed)
    }

    /// The rows whose ids are listed, and the others. Ids that were not in the call are only told.
    fn split_by_listed(&self, rows: Rows, ids: &[Box<str>]) -> (Rows, Rows) {
        if ids.is_empty() {
            return (Vec::new(), rows);
        }
        let ids: HashSet<&str> = ids.iter().map(AsRef::as_ref).collect();
        let is_listed = |row: &u64| self.account(*row).is_some_and(|account| ids.contains(account.user_id.as_str()));
        let (listed, accepted): (Rows, Rows) = rows.into_iter().partition(is_listed);
        let unasked = ids.len() - listed.len();
        if unasked > 0 {
            tracing::warn!(unasked, "the answer to a batch has UserIDs that were not in it");
        }
        (listed, accepted)
    }

    /// Something in the batch is refused: each half is a call of its own.
    pub(super) fn halve(&self, job: Job<Rows>) -> Followup<Rows> {
        let accounts = job.payload.len();
        let (mut rows, part) = job.divide(accounts);
        let second = rows.split_off(accounts.div_ceil(2));
        let mut jobs = Vec::new();
        for half in [rows, second] {
            if half.len() > 1 && self.is_batch_lane() {
                jobs.push(Job { order: half[0], ..part(Command::MultiaccountImport, half) });
            } else {
                jobs.extend(singles(half, &part));
            }
        }
        Followup::Jobs(jobs)
    }

    /// Every row of a batch goes singly, with fresh attempts.
    pub(super) fn send_all_singly(job: Job<Rows>) -> Followup<Rows> {
        let accounts = job.payload.len();
        let (rows, part) = job.divide(accounts);
        Followup::Jobs(singles(rows, &part).collect())
    }

    /// Looks whether the first batch has shown that the service takes records but no batches. Parts of it that are still to be tried may
    /// yet be accepted; if nothing is left of it, another batch may bring the evidence.
    pub(super) fn review_trial(&mut self, batch_id: u64, jobs: &JobQueue<Rows>) -> Followup<Rows> {
        if !self.is_batch_lane() || !self.batch_trial.is_awaited(batch_id) {
            return Followup::Nothing;
        }
        let parts = || jobs.iter().filter(|(_, job)| job.batch_id == batch_id && job.command != Command::PortraitSet);
        if self.batch_trial.accepted_singly && !parts().any(|(_, job)| job.command == Command::MultiaccountImport) {
            return self.leave_batch_mode(HaltReason::BatchesRefused);
        }
        if parts().next().is_none() {
            self.batch_trial.abandon();
        }
        Followup::Nothing
    }

    pub(super) fn profiles_read(&mut self, job: Job<Rows>, profiles: Vec<Profile>, at: ClockReading) -> Followup<Rows> {
        let profiles: HashMap<Box<str>, Profile> = profiles.into_iter().map(|profile| (profile.user_id.clone(), profile)).collect();
        let is_kept = |row: &u64| self.account(*row).is_none_or(|account| shows(profiles.get(account.user_id.as_str()), account));
        if job.payload.iter().all(is_kept) {
            self.batch_trial.profiles_proven = true;
            let charges = job.charges;
            let (rows, part) = job.divide(0);
            self.settle_accepted(rows, charges, at);
            return Followup::Jobs(singles(self.take_listed(), &part).collect());
        }
        match &mut self.batch_trial.read_back {
            Some(read_back) if read_back.reading == ReadAttempt::First => {
                read_back.reading = ReadAttempt::Second;
                Followup::RetryAt(job, at.now + READ_AGAIN)
            }
            Some(_) | None => self.read_back_failed(job),
        }
    }

    /// The rows of the batch that is read back that it listed.
    fn take_listed(&mut self) -> Rows {
        self.batch_trial.read_back.take().map(|read_back| read_back.listed).unwrap_or_default()
    }

    /// The batch's profiles were dropped, or nobody can tell.
    pub(super) fn read_back_failed(&mut self, job: Job<Rows>) -> Followup<Rows> {
        let Job { payload: mut rows, charges, .. } = job;
        rows.extend(self.take_listed());
        self.put_back(rows, charges);
        self.leave_batch_mode(HaltReason::BatchDropsProfiles)
    }

    /// Takes the single lane for the rest of the run, or stops it.
    fn leave_batch_mode(&mut self, why: HaltReason) -> Followup<Rows> {
        if self.lane == Lane::Batch(OnBatchFailure::Stop) {
            return Followup::Abort(why, Failure::default());
        }
        tracing::warn!("{why}: continuing with one account per request");
        self.lane = Lane::FellBack;
        Followup::StopCommand(Command::MultiaccountImport)
    }

    /// Rows of a batch that is abandoned wait again beside the fresh ones, in order of rows.
    pub(super) fn put_back(&mut self, rows: Rows, charges: Charges) {
        for row in &rows {
            self.put(*row, Place::None);
        }
        let buffer = &self.buffer;
        let afterwards = |row| buffer.open(row).map_or(Afterwards::Settles, UnsettledRecord::afterwards);
        self.fresh.put_back(rows.into_iter().map(|row| (FreshRow { charges, ..row.into() }, afterwards(row))));
    }
}

/// These rows of a batch go one by one, with fresh attempts.
fn singles(rows: Rows, part: &impl Fn(Command, Rows) -> Job<Rows>) -> impl Iterator<Item = Job<Rows>> {
    rows.into_iter().map(|row| Job { order: row, ..part(Command::AccountImport, vec![row]) })
}

/// Whether a profile shows every field that was sent, byte for byte.
fn shows(profile: Option<&Profile>, sent: &Account) -> bool {
    let shown = |field| profile.and_then(|profile| profile.fields[field].as_deref());
    sent.profile().iter().all(|(field, text)| text.is_none() || *text == shown(field))
}
