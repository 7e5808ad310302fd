//! Handles the accounts that the file does not contain: it asks who is online, then kicks or deletes the others.
//!
//! It takes them from the state in order of ids, in slices. Before a request leaves, its ids are in doubt in the state; the result is
//! recorded there as soon as it is known.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};

use super::missing_rules::MissingRules;
use crate::domain::account::{UserId, UserIds};
use crate::domain::answer::{Answer, Item, ItemRefusal, Presence};
use crate::domain::change::{MissingAccount, PaddedId, PlannedAction, rfc3339};
use crate::domain::command::Command;
use crate::domain::verdict::{DELETION_OFF, NO_ACCOUNT, is_certain_refusal};
use crate::flow::calls::{JobSource, NextJob, RequestJob};
use crate::flow::dispatch::JobOutcome;
use crate::io::api::Request;
use crate::io::csv_out;
use crate::io::state::{MissingAction, MissingActionRecord, StateDb, StateError};

/// Ids that are taken from the state, asked about and put in doubt at once: as many as a request may ask about.
const SLICE: usize = Command::QueryOnlineStatus.spec().accounts_per_call;

/// Why no more can be done about them.
#[derive(Debug, thiserror::Error)]
pub enum MissingError {
    #[error(transparent)]
    State(#[from] StateError),
    /// The service deletes nobody; it said so of one account in a call that it otherwise took.
    #[error("{0}")]
    DeletionOff(String),
}

/// What was done so far, in this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MissingCounts {
    pub kicked: u64,
    pub deleted: u64,
    pub online: u64,
    pub failed: u64,
    /// Spared because a record looks like them.
    pub lookalikes: u64,
}

impl MissingCounts {
    /// Takes note of one account.
    pub fn count(&mut self, action: MissingAction) {
        match action {
            MissingAction::Kicked => self.kicked += 1,
            MissingAction::Deleted => self.deleted += 1,
            MissingAction::Online => self.online += 1,
            MissingAction::Failed => self.failed += 1,
            MissingAction::Lookalike => self.lookalikes += 1,
            MissingAction::Nothing | MissingAction::Protected => {}
        }
    }

    #[must_use]
    pub const fn acted(&self) -> u64 {
        self.kicked + self.deleted + self.online + self.failed
    }
}

/// The missing accounts as a source of requests.
#[derive(Debug)]
pub struct MissingJobs<'a> {
    state: &'a mut StateDb,
    rules: MissingRules,
    /// The last id that was taken from the state.
    last: Option<PaddedId>,
    /// Accounts of the slice in hand that are to be asked about.
    to_ask: VecDeque<MissingAccount>,
    /// Accounts of the slice that are to be kicked or deleted.
    to_do: VecDeque<MissingAccount>,
    /// Accounts of the slice for which a request is under way.
    under_way: BTreeMap<PaddedId, MissingAccount>,
    is_at_end: bool,
    counts: MissingCounts,
}

impl<'a> MissingJobs<'a> {
    pub fn new(state: &'a mut StateDb, rules: MissingRules) -> Self {
        let (to_ask, to_do, under_way) = (VecDeque::new(), VecDeque::new(), BTreeMap::new());
        Self { state, rules, last: None, to_ask, to_do, under_way, is_at_end: false, counts: MissingCounts::default() }
    }

    #[must_use]
    pub fn counts(&self) -> MissingCounts {
        self.counts
    }

    /// Takes the next slice once nothing of the last one is left.
    fn refill(&mut self) -> Result<(), StateError> {
        while !self.is_at_end && self.to_ask.is_empty() && self.to_do.is_empty() && self.under_way.is_empty() {
            let slice = self.state.due(self.last.as_ref(), SLICE)?;
            self.is_at_end = slice.is_empty();
            self.last = slice.last().map(|missing| missing.id).or(self.last);
            let (spared, slice): (Vec<_>, Vec<_>) = slice.into_iter().partition(|missing| self.rules.spared_as(missing).is_some());
            let spared = spared.iter().filter_map(|missing| self.rules.spared_as(missing).map(|action| done(missing.id, action)));
            self.note(&spared.collect::<Vec<_>>())?;
            if self.rules.skip_online {
                self.to_ask = slice.into();
            } else {
                self.record_send_intent(slice)?;
            }
        }
        Ok(())
    }

    /// Records, durably, the intent to kick or delete them: from here on requests may leave for them.
    fn record_send_intent(&mut self, missing: Vec<MissingAccount>) -> Result<(), StateError> {
        if !missing.is_empty() {
            self.state.mark_under_way(&missing)?;
            self.to_do.extend(missing);
        }
        Ok(())
    }

    fn job(&mut self, command: Command, missing: Vec<MissingAccount>) -> Result<RequestJob<UserId, ()>, StateError> {
        let ids: Result<_, _> = missing.iter().map(|missing| UserId::parse_as(UserIds::Any, missing.id.as_bytes())).collect();
        let items = ids.map_err(|invalid| StateError::Source(io::Error::new(io::ErrorKind::InvalidData, invalid)))?;
        self.under_way.extend(missing.into_iter().map(|missing| (missing.id, missing)));
        Ok(RequestJob { command, items, key: () })
    }

    /// At most so many of those in hand that are due for this.
    fn take(&mut self, due: PlannedAction, at_most: usize) -> Vec<MissingAccount> {
        let count = self.to_do.iter().take(at_most).take_while(|missing| missing.due == due).count();
        self.to_do.drain(..count).collect()
    }

    /// Takes note of what was done about them.
    fn note(&mut self, acted: &[MissingActionRecord]) -> Result<(), StateError> {
        for MissingActionRecord { id, action, .. } in acted {
            self.under_way.remove(id);
            self.counts.count(*action);
        }
        if acted.is_empty() { Ok(()) } else { self.state.record_actions(acted) }
    }

    /// Leaves alone who is online, and whoever could not be asked about; the others are to be kicked or deleted.
    fn sort_by_presence(&mut self, ids: &[PaddedId], presences: &[Item<Presence>]) -> Result<(), StateError> {
        let mut by_id: BTreeMap<&str, &Result<Presence, ItemRefusal>> = BTreeMap::new();
        for Item { user_id, said } in presences {
            // Where two things are said of one, the one that spares counts.
            by_id.entry(user_id).and_modify(|found| *found = if is_away(found) { said } else { *found }).or_insert(said);
        }
        let (mut spared, mut to_do) = (Vec::new(), Vec::new());
        for id in ids {
            match by_id.get(id.as_str()) {
                Some(said) if is_away(said) => to_do.extend(self.under_way.remove(id)),
                Some(Ok(_)) => spared.push(online(*id, None, String::new())),
                Some(Err(ItemRefusal { code, info })) => spared.push(online(*id, (*code != 0).then_some(*code), info.to_string())),
                None => spared.push(online(*id, None, "query_online_status did not answer for it".to_owned())),
            }
        }
        self.note(&spared)?;
        self.record_send_intent(to_do)
    }

    fn deleted(&mut self, ids: &[PaddedId], results: &[Item<()>]) -> Result<(), MissingError> {
        let by_id: BTreeMap<&str, &Item<()>> = results.iter().map(|item| (item.user_id.as_ref(), item)).collect();
        let mut acted = Vec::new();
        let mut switched_off = None;
        for id in ids {
            let action = match by_id.get(id.as_str()).map(|item| &item.said) {
                Some(Ok(()) | Err(ItemRefusal { code: NO_ACCOUNT, .. })) => done(*id, MissingAction::Deleted),
                Some(Err(ItemRefusal { code: DELETION_OFF, info })) => {
                    switched_off = Some(info.to_string());
                    continue;
                }
                Some(Err(ItemRefusal { code, info })) => failed(*id, (*code != 0).then_some(*code), info.to_string()),
                None => failed(*id, None, "account_delete did not answer for it".to_owned()),
            };
            acted.push(action);
        }
        self.note(&acted)?;
        switched_off.map_or(Ok(()), |info| Err(MissingError::DeletionOff(info)))
    }
}

/// Whether nothing stands against what is due: who has no account isn't online.
fn is_away(said: &Result<Presence, ItemRefusal>) -> bool {
    match said {
        Ok(Presence::Offline) | Err(ItemRefusal { code: NO_ACCOUNT, .. }) => true,
        Ok(Presence::Online | Presence::PushOnline) | Err(_) => false,
    }
}

fn done(id: PaddedId, action: MissingAction) -> MissingActionRecord {
    MissingActionRecord { id, action, is_certain: true, error_code: None, error_info: String::new() }
}

fn online(id: PaddedId, error_code: Option<i64>, error_info: String) -> MissingActionRecord {
    MissingActionRecord { id, action: MissingAction::Online, is_certain: true, error_code, error_info }
}

fn failed(id: PaddedId, error_code: Option<i64>, error_info: String) -> MissingActionRecord {
    MissingActionRecord {
        id,
        action: MissingAction::Failed,
        is_certain: error_code.is_some_and(is_certain_refusal),
        error_code,
        error_info,
    }
}

impl JobSource for MissingJobs<'_> {
    type Item = UserId;
    type Key = ();
    type Error = MissingError;

    const COMMANDS: &'static [Command] = &[Command::QueryOnlineStatus, Command::Kick, Command::AccountDelete];

    fn next(&mut self, command: Command) -> Result<NextJob<UserId, ()>, MissingError> {
        self.refill()?;
        let slice = match command {
            Command::QueryOnlineStatus => self.to_ask.drain(..).collect(),
            Command::Kick => self.take(PlannedAction::Kick, command.spec().accounts_per_call),
            Command::AccountDelete => self.take(PlannedAction::Delete, command.spec().accounts_per_call),
            other => unreachable!("{} is never sent about a missing account", other.name()),
        };
        Ok(if slice.is_empty() { NextJob::Nothing } else { NextJob::Job(self.job(command, slice)?) })
    }

    fn request(job: &RequestJob<UserId, ()>) -> Request<'_> {
        match job.command {
            Command::QueryOnlineStatus => Request::QueryOnlineStatus(job.items.iter().collect()),
            Command::Kick => Request::Kick(&job.items[0]),
            Command::AccountDelete => Request::AccountDelete(job.items.iter().collect()),
            other => unreachable!("{} is never sent about a missing account", other.name()),
        }
    }

    fn ended(&mut self, job: RequestJob<UserId, ()>, outcome: JobOutcome) -> Result<(), MissingError> {
        let ids: Vec<PaddedId> = job.items.iter().map(|id| PaddedId::new(id.as_str().as_bytes())).collect();
        match (job.command, outcome) {
            (Command::QueryOnlineStatus, JobOutcome::Answered(Answer::Presences(presences))) => self.sort_by_presence(&ids, &presences)?,
            (Command::QueryOnlineStatus, JobOutcome::Rejected((Some(NO_ACCOUNT), _))) => {
                let gone = ids.iter().filter_map(|id| self.under_way.remove(id)).collect();
                self.record_send_intent(gone)?;
            }
            (Command::QueryOnlineStatus, outcome) => {
                let (code, info) = words(outcome);
                self.note(&ids.iter().map(|id| online(*id, code, info.clone())).collect::<Vec<_>>())?;
            }
            (Command::AccountDelete, JobOutcome::Answered(Answer::Results(results))) => self.deleted(&ids, &results)?,
            (Command::AccountDelete, JobOutcome::Rejected((Some(NO_ACCOUNT), _))) => {
                self.note(&ids.iter().map(|id| done(*id, MissingAction::Deleted)).collect::<Vec<_>>())?;
            }
            // There is no such account: what the state says of it is wrong, so the doubt stays.
            (Command::Kick, JobOutcome::Rejected((Some(NO_ACCOUNT), info))) => {
                let gone = ids.iter().map(|id| MissingActionRecord { is_certain: false, ..failed(*id, Some(NO_ACCOUNT), info.clone()) });
                self.note(&gone.collect::<Vec<_>>())?;
            }
            (Command::Kick, JobOutcome::Answered(_)) => {
                self.note(&ids.iter().map(|id| done(*id, MissingAction::Kicked)).collect::<Vec<_>>())?;
            }
            (_, outcome) => {
                let (code, info) = words(outcome);
                self.note(&ids.iter().map(|id| failed(*id, code, info.clone())).collect::<Vec<_>>())?;
            }
        }
        Ok(())
    }
}

fn words(outcome: JobOutcome) -> (Option<i64>, String) {
    match outcome {
        JobOutcome::Answered(_) => (None, "the answer is not the documented one".to_owned()),
        JobOutcome::Rejected(failure) | JobOutcome::AttemptsExhausted(failure) => failure,
    }
}

/// What was done about the missing in the open run, by earlier processes too.
///
/// # Errors
/// The state's.
pub fn missing_counts(state: &StateDb) -> Result<MissingCounts, StateError> {
    let mut counts = MissingCounts::default();
    state.each_missing(|_, acted| {
        counts.count(acted.action);
        Ok(())
    })?;
    Ok(counts)
}

/// The first line of every missing file.
const HEADER: [&str; 6] = ["UserID", "last_imported", "missing_runs", "action", "error_code", "error_info"];

/// Writes the missing file: what is missing, and what was done about it.
///
/// # Errors
/// The state's, or that of `out`.
pub fn write_missing(state: &StateDb, out: impl Write) -> Result<MissingCounts, StateError> {
    let mut csv = csv_out::writer(b',', out);
    csv.write_record(HEADER).map_err(|error| StateError::Source(error.into()))?;
    let mut counts = MissingCounts::default();
    state.each_missing(|missing, acted| {
        counts.count(acted.action);
        let last_imported = missing.last_imported.map(rfc3339).unwrap_or_default();
        let (runs, code) = (missing.missing_runs.to_string(), acted.error_code.map(|code| code.to_string()).unwrap_or_default());
        let info = match missing.lookalike {
            Some(lookalike) if acted.action == MissingAction::Lookalike => format!("{lookalike} looks like it"),
            _ => acted.error_info.clone(),
        };
        let info = crate::domain::figures::defused(&info);
        let record = [missing.id.as_str(), &last_imported, &runs, acted.action.name(), &code, &info];
        csv.write_record(record).map_err(io::Error::from)
    })?;
    csv.flush().map_err(StateError::Source)?;
    Ok(counts)
}
