//! The verification asks the service whether it holds what a file says, and reports its findings in input order.
//!
//! `survey` reads the file once and decides which records count. A second reading sends them here, page by page, as requests of
//! `account_check` and `portrait_get`. `calls` makes the requests. No finding is made for an id that was not answered.

mod finding_queue;
mod survey;

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use crate::domain::account::{Account, UserId};
use crate::domain::answer::{AccountStatus, Answer, Item, ItemRefusal, Profile};
use crate::domain::command::{Command, PerCommand};
use crate::domain::comparison::{FindingCounts, Findings};
use crate::domain::position::InputPosition;
use crate::flow::calls::{JobSource, NextJob, RequestJob};
use crate::flow::dispatch::JobOutcome;
use crate::io::api::{Request, wire};
use crate::io::roster::{Record, RosterError};
pub use finding_queue::ProfileComparison;
use finding_queue::{FindingNumber, FindingQueue, IdAnswer};
pub use survey::{RandomSample, ReadProgress, Survey, SurveyError, SurveyPlan};

/// Ids that may be under way. Chosen: four seconds' calls at the documented limit, answered as late as can be.
const UNDER_WAY_IDS: usize = 65_536;
/// Bytes that these may take. Chosen: half of the memory bound stays free.
const UNDER_WAY_BYTES: usize = 48 << 20;
/// Calls of one API that may wait for the other to keep up. Chosen: a third of a second's at the documented limit.
const CALLS_AHEAD: usize = 64;
/// Records that are read before somebody else may do something. Chosen: some milliseconds' work.
const READ_AT_ONCE: usize = 2_000;

/// Why a verification cannot go on.
#[derive(Debug)]
pub enum Failed<E> {
    Input(RosterError),
    /// The file is not the one that was surveyed.
    InputChanged,
    Findings(E),
}

/// The ids of a call with the numbers of their findings.
type Page = Rc<HashMap<UserId, FindingNumber>>;

/// A verification: the requests that it takes.
#[derive(Debug)]
pub struct Verification<I, F> {
    records: I,
    plan: SurveyPlan,
    profiles: ProfileComparison,
    queue: FindingQueue,
    /// Accounts of the next page.
    page: Vec<(FindingNumber, Account)>,
    pages: PerCommand<VecDeque<RequestJob<Account, Page>>>,
    at: InputPosition,
    input_has_ended: bool,
    findings: F,
    counts: FindingCounts,
}

impl<I, F> Verification<I, F>
where
    I: Iterator<Item = Result<Record, RosterError>>,
    F: Findings,
{
    /// Of the records that `plan` lists, out of the same file.
    pub fn new(records: I, plan: SurveyPlan, profiles: ProfileComparison, findings: F) -> Self {
        Self {
            records,
            plan,
            profiles,
            queue: FindingQueue::default(),
            page: Vec::new(),
            pages: PerCommand::default(),
            at: InputPosition::START,
            input_has_ended: false,
            findings,
            counts: FindingCounts::default(),
        }
    }

    /// What was found so far, as far as it was told.
    #[must_use]
    pub const fn counts(&self) -> FindingCounts {
        self.counts
    }

    /// UserIDs that were answered as well, but wait for an earlier one.
    #[must_use]
    pub const fn waiting(&self) -> u64 {
        self.queue.answered() as u64
    }

    #[must_use]
    pub const fn plan(&self) -> &SurveyPlan {
        &self.plan
    }

    /// Hands over the findings that are still held: after a stop they stand behind records that were never asked about. Returns the counts,
    /// the plan, and what took the findings.
    ///
    /// # Errors
    /// Those of whoever takes the findings.
    pub fn finish(mut self) -> Result<(FindingCounts, SurveyPlan, F), F::Error> {
        while self.queue.len() > 0 {
            if let Some(finding) = self.queue.drop_first() {
                self.counts.count(&finding.state);
                self.findings.take(finding)?;
            }
        }
        Ok((self.counts, self.plan, self.findings))
    }

    fn has_room(&self) -> bool {
        self.queue.len() < UNDER_WAY_IDS && self.queue.bytes() < UNDER_WAY_BYTES
    }

    /// Reads the next page. Returns whether there may be more to read.
    fn read_page(&mut self) -> Result<ReadProgress, Failed<F::Error>> {
        for _ in 0..READ_AT_ONCE {
            if self.page.len() >= wire::ACCOUNTS_PER_CALL || self.input_has_ended || !self.has_room() {
                self.turn_page();
                return Ok(ReadProgress::IsDone);
            }
            match self.records.next().transpose().map_err(Failed::Input)? {
                Some(record) => self.read(record),
                None if self.at == self.plan.end => self.input_has_ended = true,
                None => return Err(Failed::InputChanged),
            }
        }
        Ok(ReadProgress::GoesOn)
    }

    fn read(&mut self, record: Record) {
        self.at = record.end;
        if self.plan.lists(record.row) {
            self.page.extend(self.queue.push(record, self.profiles));
        }
    }

    /// What is on the page goes into calls.
    fn turn_page(&mut self) {
        if self.page.is_empty() {
            return;
        }
        let asked = std::mem::take(&mut self.page);
        let key: Page = Rc::new(asked.iter().map(|(number, account)| (account.user_id.clone(), *number)).collect());
        let accounts: Vec<Account> = asked.into_iter().map(|(_, account)| account).collect();
        let compared: Vec<Account> = match self.profiles {
            ProfileComparison::Compared => accounts.iter().filter(|account| account.is_compared()).cloned().collect(),
            ProfileComparison::Left => Vec::new(),
        };
        for (command, items) in [(Command::AccountCheck, accounts), (Command::PortraitGet, compared)] {
            if !items.is_empty() {
                self.pages[command].push_back(RequestJob { command, items, key: Rc::clone(&key) });
            }
        }
    }

    fn tell(&mut self) -> Result<(), Failed<F::Error>> {
        while let Some(finding) = self.queue.take_found() {
            self.counts.count(&finding.state);
            self.findings.take(finding).map_err(Failed::Findings)?;
        }
        Ok(())
    }
}

impl<I, F> JobSource for Verification<I, F>
where
    I: Iterator<Item = Result<Record, RosterError>>,
    F: Findings,
{
    type Item = Account;
    type Key = Page;
    type Error = Failed<F::Error>;

    const COMMANDS: &'static [Command] = &[Command::AccountCheck, Command::PortraitGet];

    fn next(&mut self, command: Command) -> Result<NextJob<Account, Page>, Self::Error> {
        let mut reading = ReadProgress::IsDone;
        // One API turns the pages, and waits for the other: an id that is missing leaves before its profile was asked for.
        let may_turn = command == Command::AccountCheck && self.pages[Command::PortraitGet].len() < CALLS_AHEAD;
        if may_turn && self.pages[command].is_empty() {
            reading = self.read_page()?;
            self.tell()?;
        }
        Ok(match (self.pages[command].pop_front(), reading) {
            (Some(job), _) => NextJob::Job(job),
            (None, ReadProgress::GoesOn) => NextJob::Pending,
            (None, ReadProgress::IsDone) => NextJob::Nothing,
        })
    }

    fn request(job: &RequestJob<Account, Page>) -> Request<'_> {
        match job.command {
            Command::AccountCheck => Request::AccountCheck(job.items.iter().map(|account| &account.user_id).collect()),
            Command::PortraitGet => Request::PortraitGet(job.items.iter().collect()),
            other => unreachable!("a verification never sends {}", other.name()),
        }
    }

    fn ended(&mut self, job: RequestJob<Account, Page>, outcome: JobOutcome) -> Result<(), Self::Error> {
        let RequestJob { command, items, key } = job;
        let numbers = items.iter().filter_map(|account| key.get(&account.user_id).map(|number| (account.user_id.as_str(), *number)));
        let silence = || format!("{} says nothing of it", command.name());
        match outcome {
            JobOutcome::Answered(Answer::Profiles(profiles)) => {
                let mut shown = profiles_by_id(profiles);
                numbers.for_each(|(id, number)| {
                    self.queue.note_profile(number, shown.remove(id).unwrap_or_else(|| IdAnswer::Failed(silence())));
                });
            }
            JobOutcome::Answered(found) => {
                let mut statuses = statuses_by_id(found);
                numbers.for_each(|(id, number)| {
                    self.queue.note_status(number, statuses.remove(id).unwrap_or_else(|| IdAnswer::Failed(silence())));
                });
            }
            JobOutcome::Rejected((code, info)) => {
                let why = words(command, code.unwrap_or_default(), &info);
                numbers.for_each(|(_, number)| self.fails(command, number, &why));
            }
            JobOutcome::AttemptsExhausted((code, why)) => {
                let why = format!("out of attempts; {}", words(command, code.unwrap_or_default(), &why));
                numbers.for_each(|(_, number)| self.fails(command, number, &why));
            }
        }
        self.tell()
    }
}

impl<I, F> Verification<I, F> {
    fn fails(&mut self, command: Command, number: FindingNumber, why: &str) {
        if command == Command::PortraitGet {
            self.queue.note_profile(number, IdAnswer::Failed(why.to_owned()));
        } else {
            self.queue.note_status(number, IdAnswer::Failed(why.to_owned()));
        }
    }
}

fn profiles_by_id(profiles: Vec<Profile>) -> HashMap<Box<str>, IdAnswer<Profile>> {
    let answer = |mut profile: Profile| {
        let id = profile.user_id.clone();
        let answer = profile.refused.take().map(|refused| refusal(Command::PortraitGet, &refused));
        (id, answer.map_or(IdAnswer::Said(profile), IdAnswer::Failed))
    };
    profiles.into_iter().map(answer).collect()
}

fn statuses_by_id(found: Answer) -> HashMap<Box<str>, IdAnswer<AccountStatus>> {
    let items = if let Answer::Statuses(items) = found { items } else { Vec::new() };
    let answer = |Item { user_id, said }: Item<AccountStatus>| {
        (user_id, said.map_or_else(|refused| IdAnswer::Failed(refusal(Command::AccountCheck, &refused)), IdAnswer::Said))
    };
    items.into_iter().map(answer).collect()
}

fn refusal(command: Command, ItemRefusal { code, info }: &ItemRefusal) -> String {
    words(command, *code, info)
}

/// What was said of an id by a command; a code 0 is none.
fn words(command: Command, code: i64, info: &str) -> String {
    let code = if code == 0 { String::new() } else { format!("code {code}") };
    let parts = [command.name(), &code, info];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests;
