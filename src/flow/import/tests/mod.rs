//! The scheduler with the import as its workload, on a clock that the test moves by hand.

mod batch;
mod batch_trial;
mod profiles;
mod random_services;
mod single;

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::*;
use crate::domain::account::{Account, Suspects, UserId};
use crate::domain::answer::{Answer, Profile};
use crate::domain::command::Command;
use crate::domain::position::InputPosition;
use crate::domain::retry::ClockReading;
use crate::domain::tag::{Tag, TagItem, TagValue};
use crate::domain::verdict::{CallEffect, CallOutcome, SuccessSeen};
use crate::flow::dispatch::{Call, CallId, Known, Scheduler, SchedulerLimits, Stop, Workload};
use crate::io::api::Request;

const SINGLE: Command = Command::AccountImport;

/// What leaves first, as the dispatcher asks.
const ORDER: [Command; 5] =
    [Command::AccountCheck, Command::PortraitGet, Command::PortraitSet, Command::AccountImport, Command::MultiaccountImport];

/// A call that has left.
#[derive(Debug, Clone)]
struct SentCall {
    command: Command,
    id: CallId,
    rows: Vec<u64>,
    accounts: Vec<Account>,
    is_retry: bool,
    left: Instant,
}

impl SentCall {
    fn has(&self, id: &str) -> bool {
        self.accounts.iter().any(|account| account.user_id.as_str() == id)
    }
}

type Outcomes = Vec<(u64, Status, Option<i64>, u32)>;

struct ImportHarness {
    scheduler: Scheduler<ImportWorkload>,
    workload: ImportWorkload,
    now: Instant,
    next_row: u64,
}

impl ImportHarness {
    fn in_lane(lane: Lane) -> Self {
        let window = WindowLimits { records: 131_072, bytes: 40 << 20 };
        let known = Known { identifier: UserId::parse(b"administrator").unwrap(), seen: SuccessSeen::NotYet };
        Self {
            scheduler: Scheduler::new(SchedulerLimits { max_attempts: 5, in_flight: 256 }, known),
            workload: ImportWorkload::new(window, (lane, ImportScope::Everything), 1),
            now: Instant::now(),
            next_row: 1,
        }
    }

    /// In batches.
    fn new(doubt: OnBatchFailure) -> Self {
        Self::in_lane(Lane::Batch(doubt))
    }

    /// In batches, with so many records without profiles, `user1` and so on, and no more to come.
    fn of(count: u64) -> Self {
        let mut harness = Self::new(OnBatchFailure::FallBack);
        harness.admit_many(count, "").workload.input_ended();
        harness
    }

    fn admit(&mut self, id: &str, nick: &str) -> &mut Self {
        self.admit_with_tags(id, nick, &[])
    }

    /// With text tags of these keys.
    fn admit_with_tags(&mut self, id: &str, nick: &str, keys: &[&str]) -> &mut Self {
        let record = self.record(id, nick, keys);
        self.workload.admit(record, SystemTime::UNIX_EPOCH);
        self
    }

    /// The next record.
    fn record(&mut self, id: &str, nick: &str, keys: &[&str]) -> Record {
        let row = self.next_row;
        self.next_row += 1;
        let tag = |key: &&str| TagItem { tag: Tag::Custom((*key).into()), value: TagValue::Text("v".into()) };
        let tags = keys.iter().map(tag).collect::<Box<[TagItem]>>();
        Record {
            row,
            line: row + 1,
            end: InputPosition { rows: row, offset: row * 10, line: row + 2, digest: 0 },
            user_id: id.as_bytes().into(),
            other_id: None,
            suspects: Suspects::default(),
            account: Account::parse(id.as_bytes(), nick.as_bytes(), b"").map(|account| Account { tags, ..account }),
            fields: csv::ByteRecord::from(vec![id]),
            text: None,
        }
    }

    fn admit_many(&mut self, many: u64, nick: &str) -> &mut Self {
        for _ in 0..many {
            self.admit(&format!("user{}", self.next_row), nick);
        }
        self
    }

    fn wants_record(&self) -> bool {
        self.scheduler.wants_fresh(&self.workload, SINGLE, self.now)
    }

    fn is_down(&self) -> bool {
        self.scheduler.is_down(SINGLE)
    }

    fn send(&mut self, command: Command) -> Option<SentCall> {
        let id = self.scheduler.next_call(&mut self.workload, command, self.now)?;
        let Call { request, is_retry } = self.scheduler.call(&self.workload, command, id);
        assert_eq!(request.command(), command);
        let accounts = accounts(&request);
        let rows = match id {
            CallId::Job(job) => self.scheduler.jobs[job].payload.clone(),
            // It carries no record of the input.
            CallId::Probe(_) => vec![u64::MAX],
        };
        Some(SentCall { command, id, rows, accounts, is_retry, left: self.now })
    }

    fn send_batch(&mut self) -> Option<Vec<u64>> {
        self.send(Command::MultiaccountImport).map(|sent| sent.rows)
    }

    /// Whatever leaves next, if something does.
    fn send_any(&mut self) -> Option<SentCall> {
        ORDER.into_iter().find_map(|command| self.send(command))
    }

    fn end(&mut self, sent: &SentCall, end: CallOutcome) -> CallEffect {
        self.now += Duration::from_millis(1);
        let at = self.at();
        match self.scheduler.ended(&mut self.workload, (sent.id, sent.left), end, at) {
            Ok(effect) | Err(Stop::Halt(effect)) => effect,
        }
    }

    fn at(&self) -> ClockReading {
        ClockReading { now: self.now, wall: SystemTime::UNIX_EPOCH, jitter: 0.5 }
    }

    /// Looks at exhausted records until nothing changes, as the dispatcher does.
    fn resolve_exhausted(&mut self) {
        let at = self.at();
        while self.scheduler.resolve_exhausted(&mut self.workload, at).unwrap() {}
    }

    /// Makes call after call, for at most `calls` calls, until nothing leaves of itself any more.
    fn run(&mut self, calls: usize, mut answer: impl FnMut(&SentCall) -> CallOutcome) -> Vec<(SentCall, CallEffect)> {
        let mut all = Vec::new();
        while all.len() < calls {
            self.resolve_exhausted();
            if let Some(sent) = self.send_any() {
                let end = answer(&sent);
                let effect = self.end(&sent, end);
                let is_over = matches!(effect, CallEffect::Halt { .. });
                all.push((sent, effect));
                if is_over {
                    break;
                }
            } else if let Some(at) = self.scheduler.next_wake() {
                self.now = self.now.max(at);
            } else {
                break;
            }
        }
        all
    }

    fn outcomes(&mut self) -> Outcomes {
        std::iter::from_fn(|| self.workload.take_settled())
            .map(|done| (done.row, done.outcome.status, done.outcome.error_code, done.outcome.attempts))
            .collect()
    }
}

/// Whom a request of an import carries.
fn accounts(request: &Request<'_>) -> Vec<Account> {
    match request {
        Request::AccountImport(account) | Request::PortraitSet(account) => vec![(*account).clone()],
        Request::MultiaccountImport(accounts) | Request::PortraitGet(accounts) => accounts.iter().copied().cloned().collect(),
        Request::AccountCheck(ids) => ids.iter().map(|id| Account::bare((*id).clone())).collect(),
        other => panic!("an import sends no {}", other.command().name()),
    }
}

/// A refusal with this code, or for 0 a success.
fn code(code: i64) -> CallOutcome {
    match code {
        0 => CallOutcome::Done(Answer::Nothing),
        code => CallOutcome::Refused { code, info: format!("code {code}") },
    }
}

fn lost() -> CallOutcome {
    CallOutcome::Lost { why: "HTTP 502".to_owned() }
}

fn unreached() -> CallOutcome {
    CallOutcome::Unreached { why: "refused".to_owned() }
}

fn listed<'a>(ids: impl IntoIterator<Item = &'a str>) -> CallOutcome {
    CallOutcome::Done(Answer::FailAccounts(ids.into_iter().map(Into::into).collect()))
}

/// The answer of a service that does all that it is asked.
fn fine(sent: &SentCall) -> CallOutcome {
    let profile = |account: &Account| Profile {
        user_id: account.user_id.as_str().into(),
        fields: [account.nick.clone(), account.face_url.clone()].into(),
        ..Profile::default()
    };
    match sent.command {
        Command::AccountImport | Command::PortraitSet | Command::AccountCheck => CallOutcome::Done(Answer::Nothing),
        Command::MultiaccountImport => listed([]),
        Command::PortraitGet => CallOutcome::Done(Answer::Profiles(sent.accounts.iter().map(profile).collect())),
        other => panic!("an import sends no {}", other.name()),
    }
}

/// As [`fine`], but batches come without profiles.
fn dropping(sent: &SentCall) -> CallOutcome {
    match sent.command {
        Command::PortraitGet => CallOutcome::Done(Answer::Profiles(Vec::new())),
        _ => fine(sent),
    }
}

fn sizes(calls: &[(SentCall, CallEffect)], command: Command) -> Vec<usize> {
    calls.iter().filter(|(sent, _)| sent.command == command).map(|(sent, _)| sent.rows.len()).collect()
}

#[track_caller]
fn all_imported(outcomes: &Outcomes, count: u64, attempts: u32) {
    let expected: Outcomes = (1..=count).map(|row| (row, Status::Imported, None, attempts)).collect();
    assert_eq!(*outcomes, expected);
}
