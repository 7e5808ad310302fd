//! A service that is a function of the call, with an audit of its own, and the world around an import.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chatlift::account::Account;
use chatlift::api::Api;
use chatlift::api::usersig::{Credential, Signature, Signer};
use chatlift::command::{Command, PerCommand};
use chatlift::deliver::{Lane, Limits};
use chatlift::gate::Rate;
use chatlift::import::{self, End, Parts, Settings};
use chatlift::input::Mark;
use chatlift::journal::Ledger;
use chatlift::outcome::{Settled, Tally};
use chatlift::roster::Record;
use chatlift::traffic::Traffic;
use chatlift::verdict::{CallEnd, Yield};
use futures_util::StreamExt;
use futures_util::stream::LocalBoxStream;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

/// A call as the service sees it.
pub(super) struct Call<'a> {
    /// Counts all calls from 0.
    pub(super) number: u64,
    /// Since the service was made.
    pub(super) at: Duration,
    pub(super) user_id: &'a str,
    /// Counts the calls of this user from 1.
    pub(super) nth_of_user: u32,
    /// Calls of the last second, this one included.
    pub(super) in_last_second: usize,
    pub(super) signature: &'a Signature,
}

/// What happens to a call.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    /// Time before the call leaves.
    pub(super) connect: Duration,
    /// Time from leaving to the end.
    pub(super) latency: Duration,
    pub(super) end: CallEnd,
}

impl Default for Reply {
    fn default() -> Self {
        imported(Duration::ZERO)
    }
}

pub(super) fn imported(latency: Duration) -> Reply {
    Reply { connect: Duration::ZERO, latency, end: CallEnd::Done(Yield::Nothing) }
}

/// An answer with an error code, after 20 ms.
pub(super) fn code(code: i64) -> Reply {
    let end = CallEnd::Refused { code, info: format!("code {code}") };
    Reply { connect: Duration::ZERO, latency: Duration::from_millis(20), end }
}

type Script = Box<dyn FnMut(&Call<'_>) -> Reply>;

/// The service; clones are the same one.
#[derive(Clone)]
pub(super) struct Service(Rc<RefCell<State>>);

struct State {
    script: Script,
    began: Instant,
    calls: u64,
    last_second: VecDeque<Instant>,
    most_in_1s: usize,
    first: Option<Instant>,
    last: Option<Instant>,
    /// Calls and calls in flight of each user, and the nickname it has; kept while the test wants it.
    users: HashMap<String, (u32, u32, Option<String>)>,
    keeps_users: bool,
    overlaps: u64,
}

impl Service {
    pub(super) fn new(script: impl FnMut(&Call<'_>) -> Reply + 'static) -> Self {
        Self(Rc::new(RefCell::new(State {
            script: Box::new(script),
            began: Instant::now(),
            calls: 0,
            last_second: VecDeque::new(),
            most_in_1s: 0,
            first: None,
            last: None,
            users: HashMap::new(),
            keeps_users: true,
            overlaps: 0,
        })))
    }

    /// Forgets the users, so that a hundred million of them fit.
    pub(super) fn forgetful(self) -> Self {
        self.0.borrow_mut().keeps_users = false;
        self
    }

    pub(super) fn calls(&self) -> u64 {
        self.0.borrow().calls
    }

    pub(super) fn most_in_1s(&self) -> usize {
        self.0.borrow().most_in_1s
    }

    pub(super) fn mean_per_s(&self) -> f64 {
        let state = self.0.borrow();
        let (Some(first), Some(last)) = (state.first, state.last) else { return 0.0 };
        (state.calls - 1) as f64 / (last - first).as_secs_f64()
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
    fn arrive(&mut self, now: Instant) {
        self.calls += 1;
        self.first.get_or_insert(now);
        self.last = Some(now);
        self.last_second.push_back(now);
        while self.last_second.front().is_some_and(|at| now - *at >= SECOND) {
            self.last_second.pop_front();
        }
        self.most_in_1s = self.most_in_1s.max(self.last_second.len());
    }

    fn reply(&mut self, user_id: &str, signature: &Signature) -> Reply {
        let now = Instant::now();
        let in_last_second = self.last_second.iter().filter(|at| now - **at < SECOND).count() + 1;
        let nth_of_user = if self.keeps_users {
            let user = self.users.entry(user_id.to_owned()).or_default();
            self.overlaps += u64::from(user.1 > 0);
            user.0 += 1;
            user.1 += 1;
            user.0
        } else {
            1
        };
        let call = Call { number: self.calls, at: now - self.began, user_id, nth_of_user, in_last_second, signature };
        (self.script)(&call)
    }

    fn finish(&mut self, user_id: &str, nick: Option<&str>, end: &CallEnd) {
        if !self.keeps_users {
            return;
        }
        let user = self.users.get_mut(user_id).expect("the user has called");
        user.1 -= 1;
        if matches!(end, CallEnd::Done(_)) {
            user.2 = nick.map(str::to_owned);
        }
    }
}

impl Api for Service {
    fn call<D>(&self, _: Command, accounts: &[&Account], signature: &Signature, mut departed: D) -> impl Future<Output = CallEnd> + 'static
    where
        D: FnMut() + Send + Sync + Unpin + 'static,
    {
        let service = self.clone();
        let account = accounts[0].clone();
        let signature = signature.clone();
        async move {
            let user_id = account.user_id.as_str();
            let reply = service.0.borrow_mut().reply(user_id, &signature);
            if reply.connect > Duration::ZERO {
                tokio::time::sleep(reply.connect).await;
            }
            if !matches!(reply.end, CallEnd::Unreached { .. }) {
                departed();
                service.0.borrow_mut().arrive(Instant::now());
            }
            tokio::time::sleep(reply.latency).await;
            service.0.borrow_mut().finish(user_id, account.nick.as_deref(), &reply.end);
            reply.end
        }
    }
}

type Records = Box<dyn Iterator<Item = Result<Record, Infallible>>>;

/// So many accounts, `user1` and so on.
pub(super) fn accounts(count: u64) -> Records {
    records((1..=count).map(|row| (format!("user{row}"), String::new())))
}

/// Records of a UserID and a nickname.
pub(super) fn records(all: impl Iterator<Item = (String, String)> + 'static) -> Records {
    Box::new(all.zip(1_u64..).map(|((user_id, nick), row)| {
        Ok(Record {
            row,
            line: row + 1,
            end: Mark { rows: row, offset: row * 10, line: row + 2, digest: row },
            account: Account::parse(user_id.as_bytes(), nick.as_bytes(), b""),
            user_id: user_id.into_bytes().into(),
            fields: csv::ByteRecord::new(),
        })
    }))
}

/// Everything around the service.
pub(super) struct World {
    records: Records,
    pub(super) settings: Settings,
    pub(super) signals: LocalBoxStream<'static, ()>,
    pub(super) wall: Box<dyn Fn() -> SystemTime>,
    keep: Keep,
}

/// Whether rows are kept for the test to look at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    Rows,
    Counts,
}

/// What a run came to.
pub(super) struct Run {
    pub(super) end: End<Infallible>,
    pub(super) tally: Tally,
    pub(super) traffic: Traffic,
    pub(super) rows: Vec<Settled>,
}

impl World {
    pub(super) fn new(records: Records) -> Self {
        let began = Instant::now();
        Self {
            records,
            settings: Settings {
                rates: PerCommand::new(|_| Rate::PerSecond(NonZeroU32::new(200).unwrap())),
                limits: Limits { max_attempts: 5, in_flight: 256, window_records: 65_536, window_bytes: 24 << 20, lane: Lane::Single },
                max_outage: Duration::from_secs(6 * 3_600),
                limit: None,
                rows_done: 0,
                commit_every: SECOND,
                commit_rows: 1_000,
                tell_every: SECOND,
            },
            signals: futures_util::stream::pending().boxed_local(),
            wall: Box::new(move || UNIX_EPOCH + Duration::from_secs(1_800_000_000) + began.elapsed()),
            keep: Keep::Rows,
        }
    }

    pub(super) fn keeping(mut self, keep: Keep) -> Self {
        self.keep = keep;
        self
    }

    pub(super) async fn run(self, service: &Service) -> Run {
        let rows = Arc::new(Mutex::new(Vec::new()));
        let signer = Signer::new(Credential::Key("key".into()), 1, "administrator", Instant::now(), (self.wall)());
        let mut jitter = fastrand::Rng::with_seed(1);
        let parts = Parts {
            api: service.clone(),
            records: self.records,
            ledger: Memory { rows: Arc::clone(&rows), pending: Vec::new(), pending_rows: 0, keep: self.keep },
            signer,
            wall: self.wall,
            jitter: Box::new(move || jitter.f64()),
            signals: self.signals,
            tell: Box::new(|_| ()),
        };
        let ended = import::run(parts, self.settings).await.expect("memory never fails");
        let rows = std::mem::take(&mut *rows.lock().unwrap());
        Run { end: ended.end, tally: ended.tally, traffic: ended.traffic, rows }
    }
}

/// A ledger in memory: what was committed is what the test sees.
struct Memory {
    rows: Arc<Mutex<Vec<Settled>>>,
    pending: Vec<Settled>,
    pending_rows: u64,
    keep: Keep,
}

impl Ledger for Memory {
    type Error = Infallible;

    fn append(&mut self, settled: Settled) {
        self.pending_rows += 1;
        if self.keep == Keep::Rows {
            self.pending.push(settled);
        }
    }

    fn pending_rows(&self) -> u64 {
        self.pending_rows
    }

    fn commit(&mut self) -> Result<(), Infallible> {
        self.pending_rows = 0;
        self.rows.lock().unwrap().append(&mut self.pending);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Infallible> {
        self.commit()
    }
}
