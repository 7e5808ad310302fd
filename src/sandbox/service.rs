//! The service itself, as a state machine: a request and the time go in, a reaction comes out.
//!
//! No I/O and no clock: the shell, or a test, says what time it is and does what the reaction says.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::accounts::{Account, Accounts, Deletion};
use super::audit::{Audit, Recorder};
use super::command::Command;
use super::envelope;
use super::fault::What;
use super::mischief::{Mischief, Strike, Target};
use super::order::{self, Order};
use super::pace::{Admission, Limiter};
use super::reply::{Act, Blame, Reaction, Refusal, Reply};
use super::settings::{BatchProfiles, Deleting, Settings};
use super::signature::Signatures;
use crate::api::wire::{self, ImportBody};

/// Called too fast. Source: Tencent's error code page.
const OVER_LIMIT: i64 = 60007;
/// Size of the body that is too big, in bytes. Chosen: beyond what any client should take.
const BIG_BODY_BYTES: usize = 4 * 1024 * 1024;

/// A moment, by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Since the sandbox's start; never steps back.
    pub since_start: Duration,
    /// Unix time in seconds, for the UserSig.
    pub unix_s: u64,
}

/// An HTTP request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    pub body: &'a [u8],
}

/// A request whose head is here and whose body isn't yet.
#[derive(Debug)]
pub(super) struct Arrival {
    at: Moment,
    command: Option<Command>,
    admission: Admission,
}

/// The stand-in for Tencent Chat.
#[derive(Debug)]
pub struct Service {
    limiters: [Limiter; Command::ALL.len()],
    signatures: Signatures,
    accounts: Accounts,
    mischief: Mischief,
    recorder: Recorder,
    deleting: Deleting,
    batch_profiles: BatchProfiles,
    latency: Duration,
    jitter: Duration,
    rng: fastrand::Rng,
}

impl Service {
    /// An app without accounts.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            limiters: Command::ALL.map(|command| Limiter::new(command.calls_per_s(settings.limit_per_s))),
            signatures: Signatures::new(settings.key, settings.sdkappid, settings.identifier),
            accounts: Accounts::new(settings.account_limit, settings.keep),
            mischief: Mischief::new(settings.faults, settings.seed),
            recorder: Recorder::new(settings.arrivals_kept),
            deleting: settings.deleting,
            batch_profiles: settings.batch_profiles,
            latency: settings.latency,
            jitter: settings.jitter,
            rng: fastrand::Rng::with_seed(settings.seed),
        }
    }

    /// Reacts to a request that arrives now. The effects are those of now, whatever the reaction's delay;
    /// [`Self::finish`] is due when the call is over.
    pub fn handle(&mut self, now: Moment, request: Request<'_>) -> Reaction {
        let arrival = self.arrive(now, request.target);
        self.react(&arrival, request)
    }

    /// The call is over: answered, or its connection gone.
    pub fn finish(&mut self, reaction: &Reaction) {
        self.release(&reaction.in_flight);
    }

    /// What was seen so far.
    #[must_use]
    pub fn audit(&self) -> Audit {
        self.recorder.audit(self.accounts.count(), self.mischief.strikes())
    }

    /// The account with this UserID.
    #[must_use]
    pub fn account(&self, id: &str) -> Option<&Account> {
        self.accounts.get(id)
    }

    /// All accounts, in no particular order.
    pub fn accounts(&self) -> impl Iterator<Item = (&str, &Account)> {
        self.accounts.iter()
    }

    /// A request's head is here: the time that counts for the limit and the audit.
    pub(super) fn arrive(&mut self, at: Moment, target: &str) -> Arrival {
        let command = envelope::command(target);
        self.recorder.arrived(at.since_start, command);
        let admission = match command {
            Some(command) => self.limiters[command as usize].admit(at.since_start),
            None => Admission::Admitted,
        };
        Arrival { at, command, admission }
    }

    /// A request whose head arrived is over.
    pub(super) fn release(&mut self, in_flight: &[u64]) {
        self.recorder.finished(in_flight);
    }

    /// The whole request is here.
    pub(super) fn react(&mut self, arrival: &Arrival, request: Request<'_>) -> Reaction {
        let order = self.read(arrival, request);
        let ids = order.as_ref().map(Order::users).unwrap_or_default();
        let users: Vec<Target<'_>> = ids.into_iter().map(Target::new).collect();
        let in_flight: Vec<u64> = match arrival.command {
            Some(command) if command.imports() => users.iter().map(|user| user.hash).collect(),
            Some(_) | None => Vec::new(),
        };
        self.recorder.importing(&in_flight);
        let (act, extra) = match (arrival.admission, arrival.command) {
            (Admission::OverLimit, Some(command)) => {
                self.recorder.over_limit(command);
                let refusal = Refusal::content(OVER_LIMIT, "called more often than the limit allows");
                (Act::Answer(self.refuse(&refusal)), Duration::ZERO)
            }
            (Admission::OverLimit | Admission::Admitted, command) => match self.mischief.strike(arrival.at.since_start, command, &users) {
                Some(strike) => self.go_wrong(arrival.at, order, strike),
                None => (Act::Answer(self.obey(arrival.at, order, &[])), Duration::ZERO),
            },
        };
        Reaction { delay: self.latency() + extra, act, in_flight }
    }

    /// Reads the whole request, and notes what is wrong with it.
    fn read<'a>(&mut self, arrival: &Arrival, request: Request<'a>) -> Result<Order<'a>, Refusal> {
        let envelope = envelope::open(request.method, request.target).inspect_err(|refusal| self.note(refusal))?;
        self.recorder.random(envelope.random);
        let order = Order::read(envelope.command, request.body).inspect_err(|refusal| self.note(refusal));
        if let Some(oddity) = order.as_ref().ok().and_then(Order::oddity) {
            self.recorder.violation(oddity);
        }
        self.signatures.check(&envelope, arrival.at.unix_s)?;
        order
    }

    fn note(&mut self, refusal: &Refusal) {
        match refusal.blame {
            Blame::Form => self.recorder.violation(&refusal.info),
            Blame::Content => {}
        }
    }

    fn go_wrong(&mut self, now: Moment, order: Result<Order<'_>, Refusal>, strike: Strike) -> (Act, Duration) {
        let answer = |reply| (Act::Answer(reply), Duration::ZERO);
        match strike.what {
            What::Code(code) => match order {
                Ok(Order::ImportMany(_)) if !strike.users.is_empty() => answer(self.obey(now, order, &strike.users)),
                Ok(_) | Err(_) => answer(self.refuse(&Refusal::content(code, "a fault on request"))),
            },
            What::Whole(code) => answer(self.refuse(&Refusal::content(code, "a fault on request"))),
            What::Http(status) => answer(Reply::html(status, "<html><body><h1>Bad gateway</h1></body></html>")),
            What::Html => answer(Reply::html(200, "<html><body>Please log in to the network</body></html>")),
            What::Empty => answer(Reply::json(Bytes::new())),
            What::ResetBefore => (Act::Reset, Duration::ZERO),
            What::ResetAfter => {
                self.obey(now, order, &[]);
                (Act::Reset, Duration::ZERO)
            }
            What::Stall => (Act::Stall, Duration::ZERO),
            What::Slow(time) => (Act::Answer(self.obey(now, order, &[])), time),
            What::Drip(time) => (Act::Drip(self.obey(now, order, &[]), time), Duration::ZERO),
            What::BigBody => answer(Reply::json(vec![b' '; BIG_BODY_BYTES])),
            What::Redirect(url) => answer(Reply { status: 307, location: Some(url), ..Reply::html(307, "") }),
        }
    }

    /// Does what is asked and says so; of a batch, `failing` users are refused.
    fn obey(&mut self, now: Moment, order: Result<Order<'_>, Refusal>, failing: &[u64]) -> Reply {
        let reply = match order {
            Err(refusal) => Err(refusal),
            Ok(Order::Import(account)) => self.import(&account).map(|()| Reply::ok()),
            Ok(Order::ImportMany(accounts)) => Ok(self.import_many(&accounts, failing)),
            Ok(Order::Check(users)) => Ok(self.check(&users)),
            Ok(Order::Delete(users)) => self.delete(&users),
            Ok(Order::Kick(user)) => self.kick(&user, now.unix_s),
            Ok(Order::GetPortraits { users, tags }) => Ok(self.portraits(&users, &tags)),
            Ok(Order::SetPortrait { user, items }) => self.set_portrait(&user, &items),
            Ok(Order::OnlineStatus(users)) => Ok(self.online_status(&users)),
        };
        match reply {
            Ok(reply) => {
                self.recorder.answered(0);
                reply
            }
            Err(refusal) => self.refuse(&refusal),
        }
    }

    fn refuse(&mut self, refusal: &Refusal) -> Reply {
        self.recorder.answered(refusal.code);
        Reply::refused(refusal)
    }

    fn import(&mut self, account: &ImportBody<'_>) -> Result<(), Refusal> {
        order::check_account(account)?;
        self.accounts.import(&account.user_id, account.nick.as_deref(), account.face_url.as_deref())?;
        self.recorder.imported(1);
        Ok(())
    }

    fn import_many(&mut self, accounts: &[ImportBody<'_>], failing: &[u64]) -> Reply {
        let profiles = self.batch_profiles;
        let mut import = |account: &ImportBody<'_>| match profiles {
            BatchProfiles::Kept => self.import(account),
            BatchProfiles::Dropped => self.import(&ImportBody { nick: None, face_url: None, ..account.clone() }),
        };
        let mut is_refused = |account: &ImportBody<'_>| failing.contains(&Target::new(&account.user_id).hash) || import(account).is_err();
        let failed: Vec<&str> = accounts.iter().filter(|account| is_refused(account)).map(|account| &*account.user_id).collect();
        if failed.is_empty() { Reply::ok() } else { Reply::with(fields("FailAccounts", json!(failed))) }
    }

    fn check(&self, users: &[String]) -> Reply {
        let item = |user: &String| {
            let status = if self.accounts.get(user).is_some() { "Imported" } else { "NotImported" };
            json!({ "UserID": user, "ResultCode": 0, "ResultInfo": "", "AccountStatus": status })
        };
        Reply::with(fields("ResultItem", users.iter().map(item).collect()))
    }

    fn delete(&mut self, users: &[String]) -> Result<Reply, Refusal> {
        match self.deleting {
            Deleting::SwitchedOff => return Err(Refusal::content(71000, "deleting accounts is switched off for this app")),
            Deleting::SwitchedOn => {}
        }
        let item = |user: &String| {
            let (code, info) = match self.accounts.delete(user) {
                Deletion::Deleted => (0, ""),
                Deletion::Unknown => (70107, "no such account"),
            };
            json!({ "UserID": user, "ResultCode": code, "ResultInfo": info })
        };
        Ok(Reply::with(fields("ResultItem", users.iter().map(item).collect())))
    }

    fn kick(&mut self, user: &str, unix_s: u64) -> Result<Reply, Refusal> {
        let known = self.accounts.get(user).is_some() || self.signatures.is_admin(user);
        if !known {
            return Err(Refusal::content(70107, "no such account"));
        }
        self.signatures.void(user, unix_s);
        Ok(Reply::ok())
    }

    fn portraits(&self, users: &[String], tags: &[String]) -> Reply {
        let item = |user: &String| match self.accounts.get(user) {
            Some(account) => json!({ "To_Account": user, "ProfileItem": profile(account, tags), "ResultCode": 0, "ResultInfo": "" }),
            None => json!({ "To_Account": "@TLS#NOT_FOUND", "ResultCode": 40003, "ResultInfo": "no such account" }),
        };
        Reply::with(fields("UserProfileItem", users.iter().map(item).collect()))
    }

    fn set_portrait(&mut self, user: &str, items: &[wire::ProfileItem]) -> Result<Reply, Refusal> {
        let (nick, face_url) = order::profile_fields(items)?;
        let account = self.accounts.get_mut(user).ok_or_else(|| Refusal::content(40003, "no such account"))?;
        account.set(nick, face_url);
        Ok(Reply::ok())
    }

    fn online_status(&self, users: &[String]) -> Reply {
        let (known, unknown): (Vec<&String>, Vec<&String>) = users.iter().partition(|user| self.accounts.get(user).is_some());
        let offline = |user: &String| json!({ "To_Account": user, "Status": "Offline" });
        let error = |user: &String| json!({ "To_Account": user, "ErrorCode": 70107 });
        let mut fields = fields("QueryResult", known.into_iter().map(offline).collect());
        if !unknown.is_empty() {
            fields.insert("ErrorList".to_owned(), unknown.into_iter().map(error).collect());
        }
        Reply::with(fields)
    }

    fn latency(&mut self) -> Duration {
        if self.jitter.is_zero() {
            return self.latency;
        }
        let spread = self.jitter.mul_f64(self.rng.f64() * 2.0);
        (self.latency + spread).saturating_sub(self.jitter)
    }
}

fn fields(name: &str, value: Value) -> Map<String, Value> {
    Map::from_iter([(name.to_owned(), value)])
}

/// The fields of a profile that are asked for and set.
fn profile(account: &Account, tags: &[String]) -> Value {
    let field = |tag: &String| {
        let value = match tag.as_str() {
            wire::TAG_NICK => account.nick.as_deref(),
            wire::TAG_IMAGE => account.face_url.as_deref(),
            _ => None,
        };
        value.map(|value| json!({ "Tag": tag, "Value": value }))
    };
    tags.iter().filter_map(field).collect()
}
