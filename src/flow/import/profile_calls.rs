//! What `portrait_set` sets: a row with such cells gets one call for all of them once it is imported, and settles when that has ended.
//!
//! An account that the service doesn't know is imported first, if this run hasn't done so.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::RowCalls;
use super::fresh_rows::{Afterwards, FreshRow};
use super::reorder_buffer::UnsettledRecord;
use super::tag_trial::TagTrial;
use super::workload::{ImportWorkload, Rows};
use crate::domain::account::Account;
use crate::domain::command::Command;
use crate::domain::outcome::TAGS_FAILED;
use crate::domain::retry::ClockReading;
use crate::domain::tag::Tag;
use crate::domain::verdict::{CallOutcome, NO_PROFILE, Verdict};
use crate::flow::dispatch::{Charges, Failure, Followup, Job, JobId, JobOutcome};

/// Rows that are imported, or about to be, and wait for their `portrait_set`. Source: the contract of profile columns.
const ROWS_UNDER_WAY: usize = 1_000;
/// As long as so many rows wait for their first `portrait_set`, no batch leaves that is short for want of room. Chosen: a full batch.
const AMPLE: usize = Command::MultiaccountImport.spec().accounts_per_call;

/// The place that a row holds among those under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    None,
    /// Its import is under way.
    Importing,
    /// So it is, since `portrait_set` didn't know its account at this time.
    ImportingUnknown(Instant),
    /// It is imported; its `portrait_set` waits or is under way.
    Imported,
}

/// The rows between their import and their `portrait_set`.
#[derive(Debug, Default)]
pub(super) struct ProfileCalls {
    /// Rows with such a [`Place`].
    importing: usize,
    imported: usize,
    /// Imported rows that no `portrait_set` has carried yet.
    ready: VecDeque<FreshRow>,
    /// Rows that are not imported by this run, unless the service doesn't know them.
    unimported: VecDeque<FreshRow>,
    in_flight: usize,
    pub(super) trial: TagTrial,
}

impl ProfileCalls {
    /// How many more rows with such cells may be imported.
    pub(super) fn room(&self) -> usize {
        ROWS_UNDER_WAY.saturating_sub(self.importing + self.imported)
    }

    /// Whether enough rows wait for their first call.
    pub(super) fn is_ample(&self) -> bool {
        self.ready.len() >= AMPLE
    }

    /// Rows that no call has carried yet, as many as may leave.
    pub(super) fn fresh(&self) -> usize {
        self.ready.len() + if self.room() > 0 { self.unimported.len() } else { 0 }
    }

    /// Rows whose import is under way.
    pub(super) const fn importing(&self) -> usize {
        self.importing
    }

    pub(super) fn push_unimported(&mut self, row: u64) {
        self.unimported.push_back(row.into());
    }

    /// The next row that no call has carried yet.
    fn next(&self) -> Option<u64> {
        let unimported = self.unimported.front().filter(|_| self.room() > 0);
        self.ready.front().or(unimported).map(|fresh| fresh.row)
    }

    fn pop(&mut self) -> Option<FreshRow> {
        self.ready.pop_front().or_else(|| self.unimported.pop_front())
    }

    fn remove(&mut self, position: usize) -> Option<FreshRow> {
        let position = position.min(self.fresh().checked_sub(1)?);
        match position.checked_sub(self.ready.len()) {
            None => self.ready.remove(position),
            Some(position) => self.unimported.remove(position),
        }
    }

    /// A row goes from one place to another.
    pub(super) fn change_place(&mut self, from: Place, to: Place) {
        if let Some(left) = self.count(from) {
            *left -= 1;
        }
        if let Some(entered) = self.count(to) {
            *entered += 1;
        }
    }

    fn count(&mut self, place: Place) -> Option<&mut usize> {
        match place {
            Place::None => None,
            Place::Importing | Place::ImportingUnknown(_) => Some(&mut self.importing),
            Place::Imported => Some(&mut self.imported),
        }
    }
}

impl ImportWorkload {
    /// A row waits for its first call.
    pub(super) fn enqueue(&mut self, row: u64) {
        match self.buffer.open(row).map(|open| open.calls) {
            Some(RowCalls::ProfileOnly) => self.profiles.push_unimported(row),
            Some(RowCalls::ImportAndProfile) => self.fresh.push(row.into(), Afterwards::GetsProfile),
            Some(RowCalls::Import) | None => self.fresh.push(row.into(), Afterwards::Settles),
        }
    }

    /// The service has the account of a row: the row settles, or gets its profile.
    pub(super) fn imported(&mut self, row: u64, charges: Charges, at: ClockReading) {
        self.note_made(row);
        match self.buffer.open(row).map(|open| (open.calls, open.place)) {
            Some((RowCalls::ImportAndProfile, place)) => {
                self.put(row, Place::Imported);
                // The call that found no account was an attempt of this API.
                let charged_since = match place {
                    Place::ImportingUnknown(at) => Some(at),
                    Place::None | Place::Importing | Place::Imported => None,
                };
                self.profiles.ready.push_back(FreshRow { row, charges: charges.as_charged(), charged_since });
            }
            Some((RowCalls::Import | RowCalls::ProfileOnly, _)) | None => self.finish(row, None, charges, at),
        }
    }

    /// Gives a row another place among those under way.
    pub(super) fn put(&mut self, row: u64, place: Place) {
        if let Some(open) = self.buffer.open_mut(row) {
            self.profiles.change_place(std::mem::replace(&mut open.place, place), place);
        }
    }

    /// Whether the next `portrait_set` may leave. One with a tag that was not taken yet waits until it is alone.
    pub(super) fn is_profile_ready(&self) -> bool {
        let trial = &self.profiles.trial;
        let Some(row) = self.profiles.next() else { return false };
        let is_blocked = trial.is_under_way() || trial.is_singly();
        !is_blocked && (self.profiles.in_flight == 0 || !self.account(row).is_some_and(|account| trial.is_new(account)))
    }

    /// Whether no further `portrait_set` comes but what was sent already, or is held back until something of that has ended.
    pub(super) fn are_profiles_spent(&self) -> bool {
        let may_leave = self.profiles.fresh() > 0 && !self.profiles.trial.is_singly();
        let can_be_read = self.is_read_for(Command::PortraitSet) && self.can_have_more();
        !may_leave && !self.are_profiles_coming() && !can_be_read
    }

    /// Whether rows that are here are imported, or about to be, and get a profile then.
    pub(super) fn are_profiles_coming(&self) -> bool {
        let may_be_imported = self.fresh.has_profile_row(self.profiles.room()) && !self.waits_for_room();
        may_be_imported || self.profiles.importing() > 0
    }

    /// Whether the rows of the next batch wait for room, while others keep `portrait_set` busy.
    pub(super) fn waits_for_room(&self) -> bool {
        self.is_batch_lane() && self.profiles.is_ample() && self.fresh.wait_for(self.profiles.room())
    }

    pub(super) fn take_profile(&mut self) -> Option<Job<Rows>> {
        self.profiles.pop().map(profile_job)
    }

    pub(super) fn take_profile_for_test(&mut self, position: usize) -> Option<Job<Rows>> {
        self.profiles.remove(position).map(profile_job)
    }

    /// What is sent of a row: its account, or a tag of it alone.
    pub(super) fn profile_of(&self, row: u64) -> Option<&Account> {
        self.profiles.trial.single_account(row).or_else(|| self.account(row))
    }

    pub(super) fn profile_departed(&mut self, id: JobId, row: u64) {
        self.profiles.in_flight += 1;
        if self.profile_of(row).is_some_and(|account| self.profiles.trial.is_new(account)) {
            self.profiles.trial.departed(id);
        }
    }

    pub(super) fn profile_returned(&mut self, id: JobId) {
        self.profiles.in_flight -= 1;
        self.profiles.trial.returned(id);
    }

    /// Right after a good import an account may not be there yet.
    pub(super) fn profile_verdict(&self, row: u64, end: &CallOutcome) -> Option<Verdict> {
        let is_unknown = matches!(end, CallOutcome::Refused { code: NO_PROFILE, .. });
        let was_imported = self.buffer.open(row).is_some_and(|open| open.place == Place::Imported);
        (is_unknown && was_imported).then_some(Verdict::Retry)
    }

    pub(super) fn profile_ended(&mut self, job: &Job<Rows>, outcome: JobOutcome, at: ClockReading) -> Followup<Rows> {
        let row = job.payload[0];
        match outcome {
            JobOutcome::Answered(_) => {
                self.take_tags(row);
                if self.profiles.trial.singly(row).is_some() { self.next_single(job, at) } else { self.finish_single(job, None, at) }
            }
            JobOutcome::Rejected(failure) if self.profiles.trial.singly(row).is_some() => self.single_refused(job, failure, at),
            JobOutcome::Rejected(failure) => self.profile_refused(job, failure, at),
            JobOutcome::AttemptsExhausted(failure) => {
                self.profiles.trial.forget(row);
                self.finish_single(job, Some(named(failure)), at)
            }
        }
    }

    fn take_tags(&mut self, row: u64) {
        let trial = &mut self.profiles.trial;
        if let Some(tried) = trial.singly(row) {
            let account = tried.account.clone();
            trial.take(&account);
        } else if let Some(open) = self.buffer.open(row) {
            trial.take(open.account());
        }
    }

    fn profile_refused(&mut self, job: &Job<Rows>, failure: Failure, at: ClockReading) -> Followup<Rows> {
        let row = job.payload[0];
        if failure.0 == Some(NO_PROFILE) {
            return self.import_first(job, at);
        }
        let trial = &mut self.profiles.trial;
        let Some(account) = self.buffer.open(row).map(UnsettledRecord::account).filter(|account| trial.is_new(account)) else {
            return self.finish_single(job, Some(named(failure)), at);
        };
        if let [only] = &*account.tags {
            // The same call once more would show nothing else.
            let Some(abort) = abort_for(trial, &only.tag, &failure) else { return self.finish_single(job, Some(named(failure)), at) };
            // What the app does not have was never set: the row is as if its request had not left.
            if let Some(open) = self.buffer.open_mut(row).filter(|open| open.calls == RowCalls::ProfileOnly) {
                open.has_left = false;
            }
            return abort;
        }
        trial.begin_singly(row, account);
        Followup::Jobs(vec![single_job(row, job.charges)])
    }

    /// The service doesn't know the account: it is imported, and then gets its whole profile.
    fn import_first(&mut self, job: &Job<Rows>, at: ClockReading) -> Followup<Rows> {
        let row = job.payload[0];
        if let Some(open) = self.buffer.open_mut(row) {
            open.send_everything();
        }
        self.put(row, Place::ImportingUnknown(at.now));
        let import = Job::new(Command::AccountImport, vec![row], row);
        Followup::Jobs(vec![Job { charges: job.charges.as_charged(), ..import }])
    }

    /// A tag alone was refused: the app doesn't have it, or the row's value is wrong.
    fn single_refused(&mut self, job: &Job<Rows>, failure: Failure, at: ClockReading) -> Followup<Rows> {
        let row = job.payload[0];
        let ProfileCalls { trial, .. } = &mut self.profiles;
        if failure.0 == Some(NO_PROFILE) {
            trial.forget(row);
            return self.import_first(job, at);
        }
        let Some(tag) = trial.singly(row).map(|tried| tried.tag().clone()) else { return self.next_single(job, at) };
        if let Some(abort) = abort_for(trial, &tag, &failure) {
            return abort;
        }
        if let Some(tried) = trial.singly(row) {
            // Others may have been taken: it is named which one was not.
            let (code, says) = failure;
            tried.failure.get_or_insert((code, format!("{tag}: {says}")));
        }
        self.next_single(job, at)
    }

    /// Tries the next tag of the row alone; after the last one the row has ended.
    fn next_single(&mut self, job: &Job<Rows>, at: ClockReading) -> Followup<Rows> {
        let row = job.payload[0];
        match self.profiles.trial.next_single(row) {
            Some(tried) => {
                let failure = tried.failure;
                self.finish(row, failure.clone().map(named), job.charges, at);
                failure.map_or(Followup::Nothing, Followup::Refused)
            }
            None => Followup::Jobs(vec![single_job(row, job.charges)]),
        }
    }
}

fn profile_job(fresh: FreshRow) -> Job<Rows> {
    let job = Job::new(Command::PortraitSet, vec![fresh.row], fresh.row);
    Job { charges: fresh.charges, charged_errors: u32::from(fresh.charged_since.is_some()), charged_since: fresh.charged_since, ..job }
}

/// It leaves before all others.
fn single_job(row: u64, charges: Charges) -> Job<Rows> {
    Job { order: 0, charges: charges.as_charged(), ..Job::new(Command::PortraitSet, vec![row], row) }
}

/// A call with this tag alone was refused: the run stops if the app doesn't have it.
fn abort_for(trial: &mut TagTrial, tag: &Tag, (code, says): &Failure) -> Option<Followup<Rows>> {
    let why = trial.refused_alone(tag, *code)?;
    Some(Followup::Abort(why, (*code, format!("{}: {says}", tag.wire_name()))))
}

/// A failure as the results tell it.
fn named((code, says): Failure) -> Failure {
    (code, format!("{TAGS_FAILED}{says}"))
}
