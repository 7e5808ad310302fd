//! The import as a workload: every record between roster and journal, until it has its outcome.
//!
//! Plain values without I/O, clock or randomness. It holds the promises about rows: one outcome each, in input order; the last of two
//! records of one UserID wins; no row fails for its neighbour's fault. Which call is next is the scheduler's business, and what batches
//! need beyond that is in `batch`.

use std::convert::Infallible;
use std::time::SystemTime;

use tokio::time::Instant;

use super::batch_trial::BatchTrial;
use super::fresh_rows::{Afterwards, FreshRow, FreshRows};
use super::last_accepted::{Accepted, LastAccepted};
use super::made_accounts::{ImportedRows, MadeAccounts, RowImport};
use super::profile_calls::{Place, ProfileCalls};
use super::reorder_buffer::{ReorderBuffer, SettledRecord, UnsettledRecord};
use super::user_order::{UserKey, UserOrder};
use super::{ImportScope, IncomingRecord, Lane, RowCalls, WindowLimits};
use crate::domain::account::Account;
use crate::domain::answer::Answer;
use crate::domain::command::Command;
use crate::domain::outcome::{RowOutcome, Status};
use crate::domain::position::InputPosition;
use crate::domain::retry::ClockReading;
use crate::domain::verdict::{CallOutcome, NO_PROFILE, Verdict};
use crate::flow::dispatch::{Charges, Failure, Followup, Job, JobId, JobOutcome, JobQueue, Workload};
use crate::io::api::Request;
use crate::io::roster::Record;

/// The part of the pool that is left to imports. Chosen: an eighth of 256 calls in flight is 200 calls a second at 160 ms.
const LEFT_TO_IMPORTS: usize = 8;

/// The rows that a call carries.
pub type Rows = Vec<u64>;

/// Whether records still come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Intake {
    Open,
    /// The input has ended; what is here is imported.
    Ended,
}

/// Every record between roster and journal.
#[derive(Debug)]
pub struct ImportWorkload {
    pub(super) window: WindowLimits,
    pub(super) lane: Lane,
    scope: ImportScope,
    pub(super) buffer: ReorderBuffer,
    pub(super) fresh: FreshRows,
    pub(super) profiles: ProfileCalls,
    pub(super) made: MadeAccounts,
    user_order: UserOrder,
    accepted: LastAccepted,
    pub(super) batch_trial: BatchTrial,
    intake: Intake,
}

impl ImportWorkload {
    /// An import whose first record will be `first_row`.
    #[must_use]
    pub fn new(window: WindowLimits, (lane, scope): (Lane, ImportScope), first_row: u64) -> Self {
        Self {
            window,
            lane,
            scope,
            buffer: ReorderBuffer::new(first_row),
            fresh: FreshRows::default(),
            profiles: ProfileCalls::default(),
            made: MadeAccounts::new(first_row),
            user_order: UserOrder::default(),
            accepted: LastAccepted::default(),
            batch_trial: BatchTrial::default(),
            intake: Intake::Open,
        }
    }

    /// Whether there is room for another record, and one may come.
    pub(super) fn can_have_more(&self) -> bool {
        self.intake == Intake::Open && self.buffer.len() < self.window.records && self.buffer.bytes() < self.window.bytes
    }

    /// Takes what the input has next.
    pub fn admit(&mut self, incoming: impl Into<IncomingRecord>, wall: SystemTime) {
        match incoming.into() {
            IncomingRecord::Record { record, accepted_as, calls, held_back } => {
                let row = self.buffer.next_row();
                self.admit_record(record, (accepted_as, calls), wall);
                if let Some(open) = self.buffer.open_mut(row) {
                    open.hold_back(held_back);
                }
            }
            IncomingRecord::Settled(settled) => self.buffer.push_settled(settled),
            IncomingRecord::Skipped(end) => self.buffer.push_skipped(end),
        }
    }

    fn admit_record(&mut self, record: Record, (accepted_as, calls): (Status, RowCalls), wall: SystemTime) {
        let row = self.buffer.next_row();
        let has_profile = calls != RowCalls::Import;
        let calls = match self.scope {
            ImportScope::ProfilesOnly if has_profile => RowCalls::ProfileOnly,
            ImportScope::ProfilesOnly | ImportScope::Everything => calls,
        };
        let Some(user_id) = self.buffer.push(record, (accepted_as, calls), wall) else { return };
        if self.scope == ImportScope::ProfilesOnly && !has_profile {
            // Nothing is to be sent for it.
            self.buffer.settle(row, None, 0, wall);
            return;
        }
        self.accepted.forget(user_id);
        self.import_as_well(row);
        if self.user_order.enter(user_id, row) {
            self.enqueue(row);
        }
    }

    /// Rows that may be imported now.
    pub(super) fn available(&self) -> usize {
        self.fresh.available(self.profiles.room())
    }

    /// Whether reading brings work for this API; what others bring doesn't count.
    pub(super) fn is_read_for(&self, breaker: Command) -> bool {
        match self.scope {
            ImportScope::Everything => breaker != Command::PortraitSet,
            ImportScope::ProfilesOnly => breaker == Command::PortraitSet,
        }
    }

    /// The command with which fresh records are imported.
    fn lane_command(&self) -> Command {
        if self.is_batch_lane() { Command::MultiaccountImport } else { Command::AccountImport }
    }

    /// A row leaves for its import.
    fn leaves(&mut self, (fresh, afterwards): (FreshRow, Afterwards)) -> FreshRow {
        match afterwards {
            Afterwards::Settles => {}
            Afterwards::GetsProfile => self.put(fresh.row, Place::Importing),
        }
        fresh
    }

    /// No further record will come.
    pub fn input_ended(&mut self) {
        self.intake = Intake::Ended;
    }

    /// There is more after all: the input has grown.
    pub fn input_goes_on(&mut self) {
        self.intake = Intake::Open;
    }

    /// Whether [`ImportWorkload::input_ended`] was said.
    #[must_use]
    pub fn input_has_ended(&self) -> bool {
        self.intake == Intake::Ended
    }

    /// The next outcome in input order, if its record has settled.
    pub fn take_settled(&mut self) -> Option<RowOutcome> {
        self.buffer.take_settled()
    }

    /// Rows that have their outcome and wait for an earlier row.
    #[must_use]
    pub fn rows_waiting(&self) -> u64 {
        self.buffer.waiting() as u64
    }

    /// The end of records of which nothing is to become, if they are next.
    pub fn take_skipped(&mut self) -> Option<InputPosition> {
        self.buffer.take_skipped()
    }

    /// The lane in which records are sent now.
    #[must_use]
    pub const fn lane(&self) -> Lane {
        self.lane
    }

    /// Whether every record that came in has settled and been taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    pub(super) fn is_batch_lane(&self) -> bool {
        matches!(self.lane, Lane::Batch(_))
    }

    pub(super) fn account(&self, row: u64) -> Option<&Account> {
        self.buffer.open(row).map(UnsettledRecord::account)
    }

    /// Gives a row its outcome; a later record of its UserID may go now.
    pub(super) fn finish(&mut self, row: u64, failure: Option<Failure>, charges: Charges, at: ClockReading) {
        let Some(SettledRecord { user_id, accepted, calls, place }) = self.buffer.settle(row, failure, charges.charged, at.wall) else {
            return;
        };
        self.profiles.change_place(place, Place::None);
        match (self.user_order.leave(user_id), accepted) {
            (Some(next), _) => {
                self.import_as_well(next);
                self.enqueue(next);
            }
            (None, Some(account)) => self.accepted.note(Accepted { account, user_id, at: at.now, calls }),
            (None, None) => {}
        }
    }

    /// After a row whose account only this run has made, a later row of the user brings its own nickname and avatar: the last one wins.
    fn import_as_well(&mut self, row: u64) {
        let made = &self.made;
        if let Some(open) = self.buffer.open_mut(row).filter(|open| open.calls == RowCalls::ProfileOnly && made.has_user(open.user_id())) {
            open.calls = RowCalls::ImportAndProfile;
        }
    }

    /// An account was imported that the service had not known.
    pub(super) fn note_made(&mut self, row: u64) {
        let Some(open) = self.buffer.open(row) else { return };
        let import = match (self.scope, open.place) {
            (_, Place::ImportingUnknown(_)) => RowImport::Anew,
            (ImportScope::ProfilesOnly, _) => RowImport::AsWell,
            (ImportScope::Everything, Place::None | Place::Importing | Place::Imported) => return,
        };
        self.made.note((open.row_of_file(), import), open.user_id());
    }

    /// The last row of the file that has not been taken, and for which a request has left.
    #[must_use]
    pub fn last_left(&self) -> Option<u64> {
        self.buffer.last_left()
    }

    /// The rows whose accounts were imported though that was not planned.
    #[must_use]
    pub fn into_imported_rows(self) -> ImportedRows {
        self.made.rows.sorted()
    }

    pub(super) fn finish_single(&mut self, job: &Job<Rows>, failure: Option<Failure>, at: ClockReading) -> Followup<Rows> {
        self.finish(job.payload[0], failure, job.charges, at);
        Followup::Nothing
    }
}

/// A job for these rows; the breaker counts it under the first one.
fn rows_job(command: Command, rows: &[FreshRow]) -> Job<Rows> {
    let job = Job::new(command, rows.iter().map(|fresh| fresh.row).collect(), rows[0].row);
    Job { charges: rows[0].charges, ..job }
}

/// The request of an import for these accounts.
fn request<'a>(command: Command, mut accounts: impl Iterator<Item = &'a Account>) -> Request<'a> {
    let one = |account: Option<&'a Account>| account.expect("a row has its account until it is settled");
    match command {
        Command::AccountImport => Request::AccountImport(one(accounts.next())),
        Command::PortraitSet => Request::PortraitSet(one(accounts.next())),
        Command::MultiaccountImport => Request::MultiaccountImport(accounts.collect()),
        Command::PortraitGet => Request::PortraitGet(accounts.collect()),
        other => unreachable!("an import never sends {} for its records", other.name()),
    }
}

impl Workload for ImportWorkload {
    type Payload = Rows;
    type Repeatable = Account;
    type Error = Infallible;

    /// What is asked for first leaves first: reading back decides how the others are sent, a row is brought to its end before others are
    /// begun, and single calls go before batches.
    const COMMANDS: &'static [Command] = &[Command::PortraitGet, Command::PortraitSet, Command::AccountImport, Command::MultiaccountImport];

    /// Batches may be too few to judge by. So the single records that they were divided into count as well: twenty that meet temporary
    /// errors, with nothing accepted in between, raise a suspicion.
    const SUSPECTS_PARTS: bool = true;

    /// The imports and the reading back share a breaker: while the service takes no accounts, nothing is read back either.
    fn breaker_of(command: Command) -> Command {
        if command == Command::PortraitSet { Command::PortraitSet } else { Command::AccountImport }
    }

    fn withholds_failure(command: Command) -> bool {
        matches!(command, Command::AccountImport | Command::PortraitSet)
    }

    fn main_command(&self) -> Command {
        match self.scope {
            ImportScope::Everything => self.lane_command(),
            ImportScope::ProfilesOnly => Command::PortraitSet,
        }
    }

    fn fresh(&self, breaker: Command) -> usize {
        if breaker == Command::PortraitSet { self.profiles.fresh() } else { self.available() }
    }

    /// Records are read for the API that the run is about; the other one gets what comes with them.
    fn fresh_wanted(&self, breaker: Command) -> usize {
        let main = self.main_command();
        if Self::breaker_of(main) == breaker { main.spec().accounts_per_call } else { 0 }
    }

    /// Imports bring `portrait_set`s: a test of that API waits for one rather than ask another API. It doesn't wait for more than one, since
    /// nothing keeps them from leaving meanwhile.
    fn can_have_more(&self, breaker: Command) -> bool {
        match (self.scope, breaker) {
            (ImportScope::Everything, Command::PortraitSet) => {
                self.profiles.fresh() == 0 && (self.can_have_more() || self.are_profiles_coming())
            }
            (ImportScope::Everything, _) | (ImportScope::ProfilesOnly, Command::PortraitSet) => self.can_have_more(),
            (ImportScope::ProfilesOnly, _) => false,
        }
    }

    /// While the first batch's records are all exhausted, the next batch waits for what they show.
    fn is_spent(&self, breaker: Command) -> bool {
        if breaker == Command::PortraitSet {
            return self.are_profiles_spent();
        }
        let is_blocked = self.is_batch_lane() && !self.batch_trial.may_leave(None);
        let has_none = self.available() == 0 || self.waits_for_room();
        is_blocked || (has_none && !Workload::can_have_more(self, breaker))
    }

    /// A short batch leaves only when no further record can be had.
    fn is_ready(&self, command: Command) -> bool {
        if command == Command::PortraitSet {
            return self.is_profile_ready();
        }
        command == self.lane_command() && self.available() > 0 && (!self.is_batch_lane() || self.is_batch_ready())
    }

    /// Singles beside batches have a gate of their own: they never wait for fresh records.
    fn budgets_retries(&self, command: Command) -> bool {
        command == Command::PortraitSet || !self.is_batch_lane()
    }

    fn take(&mut self, command: Command) -> Job<Rows> {
        if command == Command::PortraitSet {
            return self.take_profile().expect("a profile that is ready is there");
        }
        let count = self.available().min(command.spec().accounts_per_call);
        let mut rows = Vec::with_capacity(count);
        while rows.len() < count
            && let Some(taken) = self.fresh.pop(self.profiles.room())
        {
            rows.push(self.leaves(taken));
        }
        rows_job(command, &rows)
    }

    fn may_leave(&self, job: &Job<Rows>) -> bool {
        match job.command {
            Command::MultiaccountImport => self.batch_trial.may_leave(Some(job.batch_id)),
            Command::PortraitSet => !self.profiles.trial.is_under_way(),
            _ => true,
        }
    }

    /// As long as something can be imported, `portrait_set`s that nobody answers leave a part of the pool to the imports. Where both are
    /// slow they share it evenly all the same: no more profiles are set than accounts imported.
    fn most_in_flight(&self, breaker: Command, all: usize) -> usize {
        let is_shared = breaker == Command::PortraitSet && self.available() > 0;
        if is_shared { (all - all.div_ceil(LEFT_TO_IMPORTS)).max(1) } else { all }
    }

    /// After batches were given up, those that are under way are not repeated.
    fn sends(&self, command: Command) -> bool {
        command != Command::MultiaccountImport || self.is_batch_lane()
    }

    fn request<'a>(&'a self, job: &'a Job<Rows>) -> Request<'a> {
        request(job.command, job.payload.iter().filter_map(|row| self.profile_of(*row)))
    }

    fn count_accounts(&self, job: &Job<Rows>) -> usize {
        job.payload.len()
    }

    fn departed(&mut self, id: JobId, job: &Job<Rows>) {
        if matches!(job.command, Command::AccountImport | Command::MultiaccountImport | Command::PortraitSet) {
            job.payload.iter().for_each(|row| self.buffer.open_mut(*row).map_or((), |open| open.has_left = true));
        }
        if job.command == Command::PortraitSet {
            self.profile_departed(id, job.payload[0]);
        }
        if job.command == Command::MultiaccountImport {
            let buffer = &self.buffer;
            let has_profile = |row: &u64| buffer.open(*row).is_some_and(|open| open.account().has_profile());
            self.batch_trial.departed(id, job.batch_id, || job.payload.iter().any(has_profile));
        }
    }

    fn returned(&mut self, id: JobId, command: Command) {
        if command == Command::PortraitSet {
            self.profile_returned(id);
        }
        self.batch_trial.returned(id);
    }

    fn verdict_on(&self, job: &Job<Rows>, end: &CallOutcome) -> Option<Verdict> {
        if job.command == Command::PortraitSet { self.profile_verdict(job.payload[0], end) } else { None }
    }

    fn is_divisible(&self, job: &Job<Rows>) -> bool {
        job.command == Command::MultiaccountImport
    }

    /// One that was sent singly as a test beside batches is judged by all the others.
    fn is_judged_by_all(&self, job: &Job<Rows>) -> bool {
        job.command == Command::AccountImport && job.split_from_accounts == 0 && self.is_batch_lane()
    }

    fn is_accepted(&self, job: &Job<Rows>, answer: &Answer) -> bool {
        match (job.command, answer) {
            (Command::PortraitGet, _) => false,
            (_, Answer::FailAccounts(ids)) => self.has_unlisted(&job.payload, ids),
            (_, _) => true,
        }
    }

    fn resolve(&mut self, job: Job<Rows>, outcome: JobOutcome, at: ClockReading) -> Result<Followup<Rows>, Infallible> {
        Ok(match (job.command, outcome) {
            (Command::AccountImport, JobOutcome::Answered(_)) => {
                self.batch_trial.note_accepted_singly(job.batch_id);
                self.imported(job.payload[0], job.charges, at);
                Followup::Nothing
            }
            (Command::AccountImport, JobOutcome::Rejected(failure) | JobOutcome::AttemptsExhausted(failure)) => {
                self.finish_single(&job, Some(failure), at)
            }
            (Command::MultiaccountImport, JobOutcome::Answered(answer)) => self.batch_accepted(job, answer, at),
            (Command::MultiaccountImport, JobOutcome::Rejected(_)) => self.halve(job),
            (Command::MultiaccountImport, JobOutcome::AttemptsExhausted(_)) => Self::send_all_singly(job),
            (Command::PortraitSet, outcome) => self.profile_ended(&job, outcome, at),
            (Command::PortraitGet, JobOutcome::Answered(Answer::Profiles(profiles))) => self.profiles_read(job, profiles, at),
            (Command::PortraitGet, JobOutcome::Answered(_)) => self.profiles_read(job, Vec::new(), at),
            (Command::PortraitGet, JobOutcome::Rejected(_) | JobOutcome::AttemptsExhausted(_)) => self.read_back_failed(job),
            (other, _) => unreachable!("an import never sends {} for its records", other.name()),
        })
    }

    fn review(&mut self, batch_id: u64, jobs: &JobQueue<Rows>) -> Followup<Rows> {
        self.review_trial(batch_id, jobs)
    }

    fn take_back(&mut self, job: Job<Rows>) {
        self.put_back(job.payload, job.charges);
    }

    /// A batch of one, once it is known that the service takes batches; while one is on trial or read back no other one may leave.
    fn test_command(&self, breaker: Command) -> Command {
        if breaker == Command::PortraitSet {
            return breaker;
        }
        let takes_batches = self.is_batch_lane() && self.batch_trial.batches_accepted && self.batch_trial.may_leave(None);
        if takes_batches { Command::MultiaccountImport } else { Command::AccountImport }
    }

    /// Whether profiles can be set is shown by nothing else. An account that is not found is that account's matter.
    fn may_test_itself(&self, job: &Job<Rows>) -> bool {
        job.command == Command::PortraitSet && job.last.0 != Some(NO_PROFILE)
    }

    fn repeatable_since(&self, breaker: Command) -> Option<Instant> {
        self.accepted.since(breaker)
    }

    fn take_repeatable(&mut self, breaker: Command) -> Option<(Account, Instant)> {
        let Accepted { account, user_id, at, .. } = self.accepted.take(breaker)?;
        self.user_order.enter(user_id, 0);
        Some((account, at))
    }

    fn repeat(command: Command, account: &Account) -> Request<'_> {
        request(command, std::iter::once(account))
    }

    /// A later record of the UserID may go now; if there is none, the account may be repeated again.
    fn repeated(&mut self, breaker: Command, account: Account, at: Instant) {
        let user_id = UserKey::of(&account.user_id);
        match self.user_order.leave(user_id) {
            Some(row) => self.enqueue(row),
            None => self.accepted.give_back(breaker, (account, user_id, at)),
        }
    }

    fn take_for_test(&mut self, command: Command, position: usize) -> Option<Job<Rows>> {
        if command == Command::PortraitSet {
            return self.take_profile_for_test(position);
        }
        let taken = self.fresh.remove(position, self.profiles.room())?;
        Some(rows_job(command, &[self.leaves(taken)]))
    }
}
