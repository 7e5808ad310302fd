//! The library's pieces joined to a night as the shell joins them, over a service in memory and a clock that is told.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use chatlift::domain::account::{Account, UserId};
use chatlift::domain::cells::CellRules;
use chatlift::domain::change::PaddedId;
use chatlift::domain::command::{Command, PerCommand};
use chatlift::domain::guard::{self, Bound, GuardInput, GuardLimits as Bounds, PastRun, Percent, Tripped, most_held};
use chatlift::domain::position::InputChange;
use chatlift::domain::target::Target;
use chatlift::domain::verdict::{AccountStatus, Answer, CallOutcome, Item, Presence, Profile, SuccessSeen};
use chatlift::flow::calls;
use chatlift::flow::deliver::{DeliveryLimits, Known, Lane, OnBatchFailure};
use chatlift::flow::import;
use chatlift::flow::sync::{
    FeedPlan, MissingPolicy, MissingRules, MissingTrust, MissingWorkload, PlannedRecords, Policy, Scratch, SendOutcomes, SyncOutcomeSink,
    SyncPlan, build_plan, compare, milliseconds, settlements, survey, write_missing,
};
use chatlift::io::api::usersig::{Credential, Signature, Signer};
use chatlift::io::api::{Api, GivenUp, Request};
use chatlift::io::files::lock::Lockfile;
use chatlift::io::gate::{self, Rate};
use chatlift::io::journal::checkpoint::RunKind;
use chatlift::io::journal::disk::OsDisk;
use chatlift::io::journal::paths::{GivenPaths, RunPaths};
use chatlift::io::journal::{self, Journal, OutcomeSink, Restart, RunSpec, StartDecision, StartMode};
use chatlift::io::roster::{Format, InputFile, InputReader, Roster};
use chatlift::io::state::{Finish, NewRun, RunRecord, RunTotals, StateDb};
use futures_util::StreamExt;
use tokio::time::Instant;

use super::export_model::Accounts;

const SECOND: Duration = Duration::from_secs(1);
const LATENCY: Duration = Duration::from_millis(20);
/// Records that are announced at once.
const AHEAD: u64 = 256;

/// A service that keeps accounts, and remembers whom each call was for; clones are the same one.
#[derive(Clone, Default)]
pub(super) struct Fake(Rc<RefCell<Books>>);

#[derive(Default)]
struct Books {
    accounts: Accounts,
    touched: Vec<(Command, String)>,
}

impl Fake {
    pub(super) fn accounts(&self) -> Accounts {
        self.0.borrow().accounts.clone()
    }

    /// Whom calls were for since the last time.
    pub(super) fn touched(&self) -> Vec<(Command, String)> {
        std::mem::take(&mut self.0.borrow_mut().touched)
    }
}

impl Books {
    fn take(&mut self, command: Command, accounts: &[Account]) -> Answer {
        self.touched.extend(accounts.iter().map(|account| (command, account.user_id.as_str().to_owned())));
        match command {
            Command::AccountImport | Command::MultiaccountImport => {
                for Account { user_id, nick, face_url } in accounts {
                    let held = self.accounts.entry(user_id.as_str().to_owned()).or_default();
                    let fields = [(&mut held.0, nick.as_deref()), (&mut held.1, face_url.as_deref())];
                    for (held, sent) in fields {
                        *held = sent.unwrap_or(held).to_owned();
                    }
                }
                if command == Command::AccountImport { Answer::Nothing } else { Answer::FailAccounts(Vec::new()) }
            }
            Command::AccountDelete => {
                for account in accounts {
                    self.accounts.remove(account.user_id.as_str());
                }
                Answer::Deleted(items(accounts, ()))
            }
            Command::PortraitGet => Answer::Profiles(accounts.iter().map(|account| self.profile(account)).collect()),
            Command::Kick => Answer::Nothing,
            Command::AccountCheck => Answer::Standings(items(accounts, AccountStatus::Imported)),
            Command::QueryOnlineStatus => Answer::Presences(items(accounts, Presence::Offline)),
        }
    }

    fn profile(&self, account: &Account) -> Profile {
        let (nick, face_url) = &self.accounts[account.user_id.as_str()];
        let field = |text: &str| Some(text.into()).filter(|_| !text.is_empty());
        Profile { user_id: account.user_id.as_str().into(), nick: field(nick), face_url: field(face_url), ..Profile::default() }
    }
}

fn items<T: Copy>(accounts: &[Account], said: T) -> Vec<Item<T>> {
    accounts.iter().map(|account| Item { user_id: account.user_id.as_str().into(), said: Ok(said) }).collect()
}

impl Api for Fake {
    fn call<D>(&self, request: Request<'_>, _: &Signature, mut departed: D) -> impl Future<Output = Result<CallOutcome, GivenUp>> + 'static
    where
        D: FnMut() + Send + Sync + Unpin + 'static,
    {
        let fake = self.clone();
        let Request { command, accounts, .. } = request;
        let accounts: Vec<Account> = accounts.iter().copied().cloned().collect();
        async move {
            departed();
            tokio::time::sleep(LATENCY).await;
            Ok(CallOutcome::Done(fake.0.borrow_mut().take(command, &accounts)))
        }
    }
}

/// Where the nights take place.
pub(super) struct JoinedFixture {
    folder: tempfile::TempDir,
    pub(super) fake: Fake,
    target: Target,
    pub(super) now: Rc<Cell<SystemTime>>,
    pub(super) is_in_batches: bool,
}

/// The canary, and for how many runs an id must be missing before it is deleted.
pub(super) const CANARY: &str = "u0001";
pub(super) const MISSING_RUNS: u32 = 3;
/// What must lie between two runs that count: ten hours.
const MISSING_APART_MS: i64 = 36_000_000;

impl JoinedFixture {
    /// On a file system in memory where there is one: a year has many syncs.
    pub(super) fn new(now: SystemTime) -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let target = Target { endpoint: "https://fake".to_owned(), sdkappid: 1, api: "account_import".to_owned() };
        Self { folder, fake: Fake::default(), target, now: Rc::new(Cell::new(now)), is_in_batches: false }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn missing_runs(&self) -> BTreeMap<String, u32> {
        let mut runs = BTreeMap::new();
        let Some(state) = StateDb::find(&self.path("state")).unwrap() else { return runs };
        let visit = |id: &[u8], held: &chatlift::domain::change::KnownAccount| {
            assert!(held.in_doubt.is_nothing());
            runs.insert(String::from_utf8(id.to_vec()).unwrap(), held.missing_runs);
            Ok(())
        };
        state.each_account(visit).unwrap();
        runs
    }

    /// One night, as `chatlift sync` goes about it.
    pub(super) async fn night(&self, csv: &str) -> Result<RunTotals, Vec<Tripped>> {
        std::fs::write(self.path("users.csv"), csv).unwrap();
        let file = InputFile::open(&self.path("users.csv")).unwrap();
        let mut drawn = self.plan(&file);
        let limits =
            Bounds { allowed: Vec::new(), max_update: Bound::Share(Percent::whole(30)), max_delete: Bound::Share(Percent::whole(2)) };
        let figures = self.figures(&drawn, &file);
        let tripped = guard::judge(&figures, &limits);
        if !tripped.is_empty() {
            return Err(tripped);
        }
        let mut state = StateDb::open_or_create(&self.path("state"), &self.target, 7).unwrap();
        let (counts, filled, input) = (drawn.counts, drawn.filled, drawn.input);
        let (planned, missing, ops) = drawn.lists().unwrap();
        let ends_with_newline = Some(figures.ends_with_newline);
        let bare = NewRun::bare("sync", milliseconds(self.now.get()), input, ops);
        let new = NewRun { counts, filled, token: 1, ends_with_newline, ..bare };
        let opened = state.begin(new, planned, missing, SendOutcomes::none()).unwrap();
        let journal = self.journal(&file, opened.number);
        let planned = FeedPlan { ops: Rc::new(drawn.ops), input, sent_up_to: opened.sent_up_to, ahead: AHEAD, limit: None };
        let feed = PlannedRecords::new(roster(&file), file.clone(), state, planned, self.wall());
        let (mut journal, tally) = Box::pin(self.import(feed, journal)).await;
        let mut state = StateDb::find(&self.path("state")).unwrap().unwrap();
        self.deal_with_the_missing(&mut state).await;
        let absent = write_missing(&state, std::io::sink()).unwrap();
        let done = RunTotals {
            created: tally.created,
            updated: tally.updated,
            failed: tally.failed,
            kicked: absent.kicked,
            deleted: absent.deleted,
            missing_failed: absent.failed,
        };
        let left = settlements(File::open(self.path("users.results.csv")).unwrap(), &CellRules::default(), self.folder.path()).unwrap();
        let open = state.open_run().unwrap().expect("it is this run's");
        let finish = Finish { run: (open.number, open.token), at: milliseconds(self.now.get()), done, missing_waits: None };
        state.finish(left, finish).unwrap();
        journal.finish().unwrap();
        self.sweep();
        Ok(done)
    }

    fn plan(&self, file: &InputFile) -> SyncPlan {
        let mut reading = Scratch { folder: self.folder.path().to_owned(), tell: &mut |_| ControlFlow::Continue(()) };
        let surveyed = survey(&mut roster(file), file.fingerprint().unwrap(), &mut reading).unwrap();
        let policy = Policy {
            absence: MissingPolicy::Delete,
            missing_runs: MISSING_RUNS,
            missing_apart: MISSING_APART_MS,
            malformed: MissingTrust::No,
            lookalikes: MissingTrust::No,
            is_protected: &|_| false,
            canaries: vec![PaddedId::new(CANARY.as_bytes())],
            now: milliseconds(self.now.get()),
        };
        let state = StateDb::find(&self.path("state")).unwrap();
        let mut drawn = build_plan(surveyed, state.as_ref(), SendOutcomes::none(), &policy, &mut reading).unwrap();
        compare(&mut drawn, &mut roster(file), &policy, &mut reading).unwrap();
        drawn
    }

    fn figures(&self, drawn: &SyncPlan, file: &InputFile) -> GuardInput {
        let runs = StateDb::find(&self.path("state")).unwrap().map_or(Vec::new(), |state| state.runs(u32::MAX).unwrap());
        let past = |run: &RunRecord| PastRun {
            finished_at: run.finished_at.unwrap(),
            held: run.held_at_end,
            is_shrunk: run.shrunk_allowed == Some(true),
        };
        let mut text = Vec::new();
        file.reader().read_to_end(&mut text).unwrap();
        GuardInput {
            filled: drawn.filled,
            before: drawn.filled_before,
            distinct: drawn.distinct,
            held: drawn.held,
            present: drawn.present,
            most_held: most_held(runs.iter().map(past), milliseconds(self.now.get())).unwrap_or_default(),
            updates: drawn.counts.update,
            ends_with_newline: text.ends_with(b"\n"),
            ended_with_newline: runs.first().and_then(|run| run.ends_with_newline),
            due: drawn.due,
            dead_canaries: drawn.dead_canaries.iter().map(|id| id.as_str().to_owned()).collect(),
            other_target: None,
        }
    }

    fn journal(&self, file: &InputFile, run: u64) -> Journal<OsDisk> {
        let given = GivenPaths { results: None, rejects: None, checkpoint: None };
        let paths = RunPaths::new(&self.path("users.csv"), given);
        let roster = roster(file);
        let claim = RunSpec {
            work: RunKind::Sync { state: 7, run, token: 1 },
            target: self.target.clone(),
            input: file.fingerprint().unwrap(),
            reading: roster.reading(),
            header: roster.header().names.clone(),
            rejects_delimiter: b',',
            start: roster.at(),
        };
        let lock = lock(&paths);
        let plan = journal::examine(&OsDisk, &paths, &claim, Restart::No, |_| Ok(InputChange::ChangedWithin)).unwrap();
        let way = if let StartDecision::Run(way) = plan { way } else { StartMode::SetAside };
        journal::open(way, (OsDisk, lock), paths, claim, self.now.get()).unwrap()
    }

    async fn import(&self, feed: PlannedRecords, journal: Journal<OsDisk>) -> (Journal<OsDisk>, chatlift::domain::outcome::OutcomeCounts) {
        let lane = if self.is_in_batches { Lane::Batch(OnBatchFailure::Stop) } else { Lane::Single };
        let settings = import::ImportSettings {
            rates: rates(),
            gates: gate::GateSettings::default(),
            limits: DeliveryLimits { max_attempts: 5, in_flight: 256, window_records: 65_536, window_bytes: 24 << 20, lane },
            max_outage: SECOND,
            limit: None,
            rows_done: 0,
            known: Known { identifier: admin(), seen: SuccessSeen::NotYet },
            commit_every: SECOND,
            commit_rows: 1_000,
            progress_every: SECOND,
        };
        let parts = import::ImportDependencies {
            api: self.fake.clone(),
            records: feed,
            ledger: SyncOutcomeSink(journal),
            signer: self.signer(),
            wall: self.wall(),
            jitter: Box::new(|| 0.5),
            signals: futures_util::stream::pending().boxed_local(),
            on_progress: Box::new(|_| ()),
        };
        let Ok(ended) = Box::pin(import::run(parts, settings)).await else { panic!("the disk never fails") };
        assert!(matches!(ended.end, import::ImportEnd::Finished));
        (ended.ledger.0, ended.tally)
    }

    async fn deal_with_the_missing(&self, state: &mut StateDb) {
        let rules = MissingRules {
            absence: MissingPolicy::Delete,
            missing_runs: MISSING_RUNS,
            skip_online: false,
            lookalikes: MissingTrust::No,
            is_protected: &|_| false,
        };
        let parts = calls::CallsDependencies {
            api: self.fake.clone(),
            errands: MissingWorkload::new(state, rules),
            signer: self.signer(),
            wall: self.wall(),
            jitter: Box::new(|| 0.5),
            signals: futures_util::stream::pending().boxed_local(),
            on_progress: Box::new(|_, _| ()),
        };
        let settings = calls::CallsSettings {
            rates: rates(),
            gates: gate::GateSettings::default(),
            max_attempts: 5,
            in_flight: 256,
            max_outage: SECOND,
            identifier: admin(),
            progress_every: SECOND,
        };
        let Ok(ended) = calls::run(parts, settings).await else { panic!("the state never fails") };
        assert_eq!(ended.end, calls::CallsEnd::Finished);
    }

    fn signer(&self) -> Signer {
        Signer::new(Credential::Key("key".into()), 1, "administrator", Instant::now(), self.now.get())
    }

    fn wall(&self) -> Box<dyn Fn() -> SystemTime> {
        let now = Rc::clone(&self.now);
        Box::new(move || now.get())
    }

    /// Removes what was set aside.
    fn sweep(&self) {
        let stays = ["users.csv", "users.results.csv", "users.checkpoint.json", "users.checkpoint.json.lock", "state"];
        for entry in std::fs::read_dir(self.folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if !stays.iter().any(|name| path.ends_with(name)) {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
}

/// A process that another test has just forked holds the last one's lock until it has become another program.
pub(super) fn lock(paths: &RunPaths) -> Lockfile {
    for _ in 0..1_000 {
        match journal::lock(&OsDisk, paths) {
            Err(journal::OpenError::Locked { .. }) => std::thread::park_timeout(Duration::from_millis(1)),
            lock => return lock.unwrap(),
        }
    }
    panic!("somebody else is at work on {}", paths.checkpoint.display());
}

/// The file from its start.
pub(super) fn roster(file: &InputFile) -> Roster<InputReader> {
    Roster::of(file, &Format::default()).unwrap()
}

pub(super) fn rates() -> PerCommand<Rate> {
    PerCommand::new(|_| Rate::PerSecond(NonZeroU32::new(100).unwrap()))
}

pub(super) fn admin() -> UserId {
    UserId::parse(b"administrator").unwrap()
}
