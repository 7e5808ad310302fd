//! Nights of `flow::sync` over a service in memory and a clock that is told.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use chatlift::domain::account::{Account, UserId};
use chatlift::domain::answer::{AccountStatus, Answer, Item, Presence, Profile};
use chatlift::domain::command::Command;
use chatlift::domain::guard::{Bound, GuardLimits, Percent, Tripped};
use chatlift::domain::tag::{Tag, TagValue};
use chatlift::domain::target::Target;
use chatlift::domain::verdict::CallOutcome;
use chatlift::flow::dispatch::DispatchSettings;
use chatlift::flow::import::{ImportEnd, ImportSettings, Lane, OnBatchFailure};
use chatlift::flow::sync::{
    self, Dependencies, Intent, Locks, MissingPolicy, MissingRules, Observer, Prepared, Setup, SyncInput, SyncProgress,
};
use chatlift::io::api::usersig::{Credential, Signer};
use chatlift::io::files::lock::Lockfile;
use chatlift::io::journal::disk::OsDisk;
use chatlift::io::journal::paths::{GivenPaths, RunPaths};
use chatlift::io::journal::{self, Restart};
use chatlift::io::roster::{Format, InputFile};
use chatlift::io::state::{self, RunTotals, StateDb, StateError, StateLock};
use futures_util::StreamExt;
use tokio::time::Instant;

use super::export_model::Accounts;
use super::memory_service::{MemoryService, Serves};
use crate::support::import_settings::import_settings;

const SECOND: Duration = Duration::from_secs(1);
const LATENCY: Duration = Duration::from_millis(20);

/// A service that keeps accounts, and remembers whom each call was for.
pub(super) type Fake = MemoryService<ServedAccounts>;

/// The tags of accounts by their names.
pub(super) type Tags = BTreeMap<String, BTreeMap<Tag, TagValue>>;

#[derive(Default)]
pub(super) struct ServedAccounts {
    accounts: Accounts,
    tags: Tags,
    touched: Vec<(Command, String)>,
    /// What calls of portrait_set carried.
    carried: Tags,
}

impl Fake {
    pub(super) fn accounts(&self) -> Accounts {
        self.0.borrow().accounts.clone()
    }

    /// The tags of the accounts that have any.
    pub(super) fn tags(&self) -> Tags {
        self.0.borrow().tags.clone()
    }

    /// The tags that were carried since the last time.
    pub(super) fn carried(&self) -> Tags {
        std::mem::take(&mut self.0.borrow_mut().carried)
    }

    /// Whom calls were for since the last time.
    pub(super) fn touched(&self) -> Vec<(Command, String)> {
        std::mem::take(&mut self.0.borrow_mut().touched)
    }
}

impl Serves for ServedAccounts {
    const LATENCY: Duration = LATENCY;

    fn take(&mut self, command: Command, accounts: &[Account]) -> CallOutcome {
        self.touched.extend(accounts.iter().map(|account| (command, account.user_id.as_str().to_owned())));
        CallOutcome::Done(match command {
            Command::AccountImport | Command::MultiaccountImport => {
                for Account { user_id, nick, face_url, .. } in accounts {
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
                    self.tags.remove(account.user_id.as_str());
                }
                Answer::Results(items(accounts, ()))
            }
            Command::PortraitGet => Answer::Profiles(accounts.iter().map(|account| self.profile(account)).collect()),
            Command::PortraitSet => {
                for account in accounts {
                    let id = account.user_id.as_str();
                    assert!(self.accounts.contains_key(id), "{id} is imported first");
                    let tags = || account.tags.iter().map(|item| (item.tag.clone(), item.value.clone()));
                    self.tags.entry(id.to_owned()).or_default().extend(tags());
                    self.carried.entry(id.to_owned()).or_default().extend(tags());
                }
                Answer::Nothing
            }
            Command::Kick => Answer::Nothing,
            Command::AccountCheck => Answer::Statuses(items(accounts, AccountStatus::Imported)),
            Command::QueryOnlineStatus => Answer::Presences(items(accounts, Presence::Offline)),
        })
    }
}

impl ServedAccounts {
    fn profile(&self, account: &Account) -> Profile {
        let (nick, face_url) = &self.accounts[account.user_id.as_str()];
        let field = |text: &str| Some(text.into()).filter(|_| !text.is_empty());
        Profile { user_id: account.user_id.as_str().into(), fields: [field(nick), field(face_url)].into(), ..Profile::default() }
    }
}

fn items<T: Copy>(accounts: &[Account], said: T) -> Vec<Item<T>> {
    accounts.iter().map(|account| Item { user_id: account.user_id.as_str().into(), said: Ok(said) }).collect()
}

/// Where the nights take place.
pub(super) struct JoinedFixture {
    folder: tempfile::TempDir,
    pub(super) fake: Fake,
    target: Target,
    pub(super) now: Rc<Cell<SystemTime>>,
    pub(super) is_in_batches: bool,
    pub(super) max_update: Bound,
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
        Self {
            folder,
            fake: Fake::default(),
            target,
            now: Rc::new(Cell::new(now)),
            is_in_batches: false,
            max_update: Bound::Share(Percent::whole(30)),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn missing_runs(&self) -> BTreeMap<String, u32> {
        let mut runs = BTreeMap::new();
        let Some(state) = StateDb::find(&self.path("state")).unwrap() else { return runs };
        let visit = |id: &[u8], held: &chatlift::domain::change::KnownAccount| {
            assert!(!held.is_in_doubt());
            runs.insert(String::from_utf8(id.to_vec()).unwrap(), held.missing_runs);
            Ok(())
        };
        state.each_account(visit).unwrap();
        runs
    }

    /// One night of `chatlift sync`.
    pub(super) async fn night(&self, csv: &str) -> Result<RunTotals, Vec<Tripped>> {
        std::fs::write(self.path("users.csv"), csv).unwrap();
        let Prepared::Plan(plan) = sync::prepare(self.setup()).unwrap() else { panic!("every night is finished") };
        let max_delete = Bound::Share(Percent::whole(2));
        let tripped = plan.tripped_guards(&GuardLimits { allowed: Vec::new(), max_update: self.max_update, max_delete });
        if !tripped.is_empty() {
            return Err(tripped);
        }
        let (paths, state) = (self.paths(), lock_state(&self.path("state")));
        let ready = plan.commit(Locks { run: lock(&paths), state: &state }).unwrap();
        let report = Box::pin(ready.run(self.dependencies())).await;
        assert!(matches!(report.end, Ok(ImportEnd::Finished)), "{:?}", report.end);
        self.sweep();
        let runs = StateDb::open(&self.path("state")).unwrap().runs(1).unwrap();
        Ok(runs[0].done.unwrap())
    }

    fn paths(&self) -> RunPaths {
        RunPaths::new(&self.path("users.csv"), GivenPaths::default())
    }

    fn setup(&self) -> Setup {
        let missing = MissingRules {
            policy: MissingPolicy::Delete,
            runs_until_due: MISSING_RUNS,
            missing_apart: MISSING_APART_MS,
            ..MissingRules::report()
        };
        Setup {
            target: self.target.clone(),
            missing,
            canaries: vec![UserId::parse(CANARY.as_bytes()).unwrap()],
            ..setup(self.folder.path(), &self.now, Unwatched)
        }
    }

    fn dependencies(&self) -> Dependencies<Fake> {
        let lane = if self.is_in_batches { Lane::Batch(OnBatchFailure::Stop) } else { Lane::Single };
        dependencies(self.fake.clone(), self.now.get(), settings(lane))
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

/// Nobody watches.
pub(super) struct Unwatched;

impl Observer for Unwatched {
    fn on(&mut self, _: SyncProgress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// A sync of `users.csv` with `state` in `folder`, which only lists who is missing.
pub(super) fn setup(folder: &Path, now: &Rc<Cell<SystemTime>>, observer: impl Observer + 'static) -> Setup {
    let (path, clock) = (folder.join("users.csv"), Rc::clone(now));
    let file = InputFile::open(&path).unwrap();
    Setup {
        state: folder.join("state"),
        paths: RunPaths::new(&path, GivenPaths::default()),
        input: SyncInput { path, original: None, stat: file.fingerprint().unwrap(), file, format: Format::default() },
        target: Target { endpoint: "https://fake".to_owned(), sdkappid: 1, api: "account_import".to_owned() },
        missing: MissingRules::report(),
        canaries: Vec::new(),
        max_invalid: 100.0,
        restart: Restart::No,
        intent: Intent::Run,
        limit: None,
        began_at: now.get(),
        wall: Rc::new(move || clock.get()),
        draw: || fastrand::u64(1..),
        observer: Rc::new(RefCell::new(observer)),
    }
}

pub(super) fn settings(lane: Lane) -> ImportSettings {
    let usual = import_settings(lane, 100);
    ImportSettings { dispatch: DispatchSettings { max_outage: SECOND, progress_every: SECOND, ..usual.dispatch }, ..usual }
}

/// No signal comes, and the retries are half as late as they may be.
pub(super) fn dependencies<A>(api: A, now: SystemTime, settings: ImportSettings) -> Dependencies<A> {
    Dependencies {
        api,
        signer: Box::new(move || Signer::new(Credential::Key("key".into()), 1, "administrator", Instant::now(), now)),
        jitter: || 0.5,
        signals: Box::new(|| futures_util::stream::pending().boxed_local()),
        settings,
        ahead: None,
    }
}

/// The state's lock, as [`lock`] takes the run's.
pub(super) fn lock_state(path: &Path) -> StateLock {
    taken(path, || match state::lock(path) {
        Err(StateError::Locked { .. }) => None,
        lock => Some(lock.unwrap()),
    })
}

pub(super) fn lock(paths: &RunPaths) -> Lockfile {
    taken(&paths.checkpoint, || match journal::lock(&OsDisk, paths) {
        Err(journal::OpenError::Locked { .. }) => None,
        lock => Some(lock.unwrap()),
    })
}

/// A process that another test has just forked holds the last one's lock until it has become another program.
fn taken<T>(of: &Path, take: impl Fn() -> Option<T>) -> T {
    for _ in 0..1_000 {
        if let Some(lock) = take() {
            return lock;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    panic!("somebody else is at work on {}", of.display());
}
