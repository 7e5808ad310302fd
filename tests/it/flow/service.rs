//! A service that is a function of the call, with an audit of its own.

mod world;

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use chatlift::domain::account::Account;
use chatlift::domain::answer::{AccountStatus, Answer, Item, Presence, Profile};
use chatlift::domain::command::{Command, PerCommand};
use chatlift::domain::verdict::{CallOutcome, Departure};
use chatlift::io::api::usersig::Signature;
use chatlift::io::api::{Api, ConnectionWish, NotDelivered, Request};
use tokio::time::Instant;

use crate::support::requests;

pub(super) use world::{Keep, Run, WINDOW_RECORDS, World, accounts, records, with_tags};

const SECOND: Duration = Duration::from_secs(1);
/// A call as the service sees it.
pub(super) struct Call<'a> {
    /// Counts all calls from 0.
    pub(super) number: u64,
    /// Since the service was made.
    pub(super) at: Duration,
    pub(super) command: Command,
    /// Whom it carries.
    pub(super) accounts: &'a [Account],
    /// The first of them.
    pub(super) user_id: &'a str,
    /// Counts the calls of this user from 1.
    pub(super) nth_of_user: u32,
    /// Calls of its command in the last second, this one included.
    pub(super) in_last_second: usize,
    pub(super) signature: &'a Signature,
    pub(super) connection: ConnectionWish,
}

/// What happens to a call.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    /// Time before the call leaves.
    pub(super) connect: Duration,
    /// Time from leaving to the end.
    pub(super) latency: Duration,
    pub(super) end: CallOutcome,
}

impl Default for Reply {
    fn default() -> Self {
        imported(Duration::ZERO)
    }
}

pub(super) fn imported(latency: Duration) -> Reply {
    Reply { connect: Duration::ZERO, latency, end: CallOutcome::Done(Answer::Nothing) }
}

/// An answer with an error code, after 20 ms.
pub(super) fn code(code: i64) -> Reply {
    let end = CallOutcome::Refused { code, info: format!("code {code}") };
    Reply { connect: Duration::ZERO, latency: Duration::from_millis(20), end }
}

/// What a service that does all that it is asked answers, after this time.
pub(super) fn fine(call: &Call<'_>, latency: Duration) -> Reply {
    let profile = |account: &Account| Profile {
        user_id: account.user_id.as_str().into(),
        fields: [account.nick.clone(), account.face_url.clone()].into(),
        ..Profile::default()
    };
    let yields = match call.command {
        Command::AccountImport | Command::PortraitSet | Command::Kick => Answer::Nothing,
        Command::MultiaccountImport => Answer::FailAccounts(Vec::new()),
        Command::PortraitGet => Answer::Profiles(call.accounts.iter().map(profile).collect()),
        Command::AccountCheck => Answer::Statuses(call.accounts.iter().map(|account| item(account, AccountStatus::Imported)).collect()),
        Command::AccountDelete => Answer::Results(call.accounts.iter().map(|account| item(account, ())).collect()),
        Command::QueryOnlineStatus => Answer::Presences(call.accounts.iter().map(|account| item(account, Presence::Offline)).collect()),
    };
    Reply { connect: Duration::ZERO, latency, end: CallOutcome::Done(yields) }
}

/// What the service says of one account.
pub(super) fn item<T>(account: &Account, said: T) -> Item<T> {
    Item { user_id: account.user_id.as_str().into(), said: Ok(said) }
}

/// As [`fine`], but a batch lists those of its ids.
pub(super) fn listing(call: &Call<'_>, latency: Duration, is_listed: impl Fn(&str) -> bool) -> Reply {
    let listed = call.accounts.iter().map(|account| account.user_id.as_str()).filter(|id| is_listed(id)).map(Into::into).collect();
    match call.command {
        Command::MultiaccountImport => Reply { connect: Duration::ZERO, latency, end: CallOutcome::Done(Answer::FailAccounts(listed)) },
        _ => fine(call, latency),
    }
}

type Script = Box<dyn FnMut(&Call<'_>) -> Reply>;

/// The service; clones are the same one.
#[derive(Clone)]
pub(super) struct Service(Rc<RefCell<State>>);

struct State {
    script: Script,
    began: Instant,
    calls: u64,
    paces: PerCommand<Pace>,
    /// Calls and calls in flight of each user, and the nickname it has; kept while the test wants it.
    users: HashMap<String, (u32, u32, Option<String>)>,
    keeps_users: bool,
    closes_connection_of: Box<dyn FnMut(&Call<'_>) -> bool>,
    overlaps: u64,
}

/// The calls of a command as they arrived.
#[derive(Debug, Clone, Default)]
struct Pace {
    calls: u64,
    last_second: VecDeque<Instant>,
    most_in_1s: usize,
    most_in_100ms: usize,
    most_in_10ms: usize,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Pace {
    fn arrive(&mut self, now: Instant) {
        self.calls += 1;
        self.first.get_or_insert(now);
        self.last = Some(now);
        self.last_second.push_back(now);
        while self.last_second.front().is_some_and(|at| now - *at >= SECOND) {
            self.last_second.pop_front();
        }
        self.most_in_1s = self.most_in_1s.max(self.last_second.len());
        let within = |ms| self.last_second.iter().rev().take_while(|at| now - **at < Duration::from_millis(ms)).count();
        let (tenth, hundredth) = (within(100), within(10));
        self.most_in_100ms = self.most_in_100ms.max(tenth);
        self.most_in_10ms = self.most_in_10ms.max(hundredth);
    }
}

impl Service {
    pub(super) fn new(script: impl FnMut(&Call<'_>) -> Reply + 'static) -> Self {
        Self(Rc::new(RefCell::new(State {
            script: Box::new(script),
            began: Instant::now(),
            calls: 0,
            paces: PerCommand::default(),
            users: HashMap::new(),
            keeps_users: true,
            closes_connection_of: Box::new(|_| false),
            overlaps: 0,
        })))
    }

    /// Forgets the users, so that a hundred million of them fit.
    pub(super) fn forgetful(self) -> Self {
        self.0.borrow_mut().keeps_users = false;
        self
    }

    /// Kept connections, as all but a repeated call's are, are given up under these calls.
    pub(super) fn closing_connection_of(self, closes_connection_of: impl FnMut(&Call<'_>) -> bool + 'static) -> Self {
        self.0.borrow_mut().closes_connection_of = Box::new(closes_connection_of);
        self
    }

    pub(super) fn calls(&self) -> u64 {
        self.0.borrow().calls
    }

    pub(super) fn calls_of(&self, command: Command) -> u64 {
        self.0.borrow().paces[command].calls
    }

    pub(super) fn most_in_1s(&self) -> usize {
        self.most_in_1s_of(Command::AccountImport)
    }

    pub(super) fn most_in_1s_of(&self, command: Command) -> usize {
        self.0.borrow().paces[command].most_in_1s
    }

    /// Every API's calls are spread as evenly as the contract of the pace asks at its rate.
    #[track_caller]
    pub(super) fn assert_even(&self, rate_of: impl Fn(Command) -> usize) {
        for (command, pace) in self.0.borrow().paces.iter() {
            let rate = rate_of(command);
            let bounds = (1 + (15 * rate).div_ceil(1_000), 2 + rate.div_ceil(10), rate);
            let seen = (pace.most_in_10ms, pace.most_in_100ms, pace.most_in_1s);
            let is_even = seen.0 <= bounds.0 && seen.1 <= bounds.1 && seen.2 <= bounds.2;
            assert!(is_even, "{}: {seen:?} calls in 10 ms, 100 ms, 1 s; allowed are {bounds:?}", command.name());
        }
    }

    pub(super) fn mean_per_s(&self) -> f64 {
        self.mean_per_s_of(Command::AccountImport)
    }

    pub(super) fn mean_per_s_of(&self, command: Command) -> f64 {
        let pace = &self.0.borrow().paces[command];
        let (Some(first), Some(last)) = (pace.first, pace.last) else { return 0.0 };
        (pace.calls - 1) as f64 / (last - first).as_secs_f64()
    }

    /// Calls that arrived while another of the same user was in flight.
    pub(super) fn overlaps(&self) -> u64 {
        self.0.borrow().overlaps
    }

    pub(super) fn nick(&self, user_id: &str) -> Option<String> {
        self.0.borrow().users.get(user_id)?.2.clone()
    }
}

impl State {
    fn arrive(&mut self, command: Command, now: Instant) {
        self.calls += 1;
        self.paces[command].arrive(now);
    }

    /// What happens to a call, and whether its connection had been given up instead.
    fn reply(&mut self, command: Command, accounts: &[Account], signature: &Signature, connection: ConnectionWish) -> (Reply, bool) {
        let now = Instant::now();
        let in_last_second = self.paces[command].last_second.iter().filter(|at| now - **at < SECOND).count() + 1;
        let mut nth_of_user = 1;
        if self.keeps_users && command != Command::PortraitGet {
            for account in accounts.iter().rev() {
                let user = self.users.entry(account.user_id.as_str().to_owned()).or_default();
                self.overlaps += u64::from(user.1 > 0);
                user.0 += 1;
                user.1 += 1;
                nth_of_user = user.0;
            }
        }
        let user_id = accounts[0].user_id.as_str();
        let call = Call {
            number: self.calls,
            at: now - self.began,
            command,
            accounts,
            user_id,
            nth_of_user,
            in_last_second,
            signature,
            connection,
        };
        let is_closed = connection == ConnectionWish::Any && (self.closes_connection_of)(&call);
        ((self.script)(&call), is_closed)
    }

    fn finish(&mut self, command: Command, accounts: &[Account], end: Option<&CallOutcome>) {
        if !self.keeps_users || command == Command::PortraitGet {
            return;
        }
        for account in accounts {
            let user = self.users.get_mut(account.user_id.as_str()).expect("the user has called");
            user.1 -= 1;
            if matches!(end, Some(CallOutcome::Done(_))) {
                user.2 = account.nick.as_deref().map(str::to_owned);
            }
        }
    }
}

impl Api for Service {
    fn call<D>(
        &self,
        request: Request<'_>,
        connection: ConnectionWish,
        signature: &Signature,
        mut departed: D,
    ) -> impl Future<Output = Result<CallOutcome, NotDelivered>> + 'static
    where
        D: FnMut() -> Departure + Send + Sync + Unpin + 'static,
    {
        let (command, accounts) = (request.command(), requests::accounts(&request));
        let service = self.clone();
        let signature = signature.clone();
        async move {
            let (reply, is_closed) = service.0.borrow_mut().reply(command, &accounts, &signature, connection);
            if reply.connect > Duration::ZERO {
                tokio::time::sleep(reply.connect).await;
            }
            if !matches!(reply.end, CallOutcome::Unreached { .. }) {
                departed();
                service.0.borrow_mut().arrive(command, Instant::now());
            }
            tokio::time::sleep(reply.latency).await;
            let end = if is_closed { Err(NotDelivered::ConnectionClosed) } else { Ok(reply.end) };
            service.0.borrow_mut().finish(command, &accounts, end.as_ref().ok());
            end
        }
    }
}
