//! A state under everything that may happen to it, against a model that is right by construction: the service itself.
//!
//! Files are edited and emptied, taken back, and sent by processes that are killed at some moment, limited, or run beside a reader that holds
//! the state; imports fill it, verifications put it right, records stay in trouble. After each of these the state never says of an account
//! what isn't so, unless it is in doubt; and after an undisturbed run the service holds what the last file says, and the state knows every
//! account that the service has. The library's pieces are joined on the paused clock, so a case takes milliseconds.
//!
//! `CHATLIFT_MODEL_CASES` sets how many cases; proptest prints the shortest sequence that fails.

mod ops;
mod service;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use chatlift::domain::cells::CellRules;
use chatlift::domain::change::{AccountCall, InDoubt, KnownAccount, Ops, PaddedId, ProfileHashes as Hashes, milliseconds};
use chatlift::domain::guard::Filled;
use chatlift::domain::known_tags::{TagHash, TagNumber, TagSet};
use chatlift::domain::position::FileStat;
use chatlift::domain::profile::ProfileField;
use chatlift::domain::tag::{Tag, TagValue};
use chatlift::domain::target::Target;
use chatlift::flow::dispatch::{DispatchSettings, SchedulerLimits};
use chatlift::flow::import::{ImportEnd, ImportSettings, Lane, OnBatchFailure, SendOutcomes};
use chatlift::flow::sync::{self, Dependencies, Locks, Observer, PlanError, Prepared, Ready, Setup, SyncError, SyncProgress};
use chatlift::io::journal;
use chatlift::io::journal::checkpoint::RunKind;
use chatlift::io::journal::disk::OsDisk;
use chatlift::io::journal::paths::{GivenPaths, RunPaths};
use chatlift::io::state::{Discrepancy, ImportedRow, NewRun, RunInput, RunTotals, SendOutcome, Sent, StateDb};
use proptest::prelude::*;

use super::joined::{dependencies, lock, lock_state, settings, setup};
use super::memory_service::MemoryService;
use ops::{CellText, Cells, Columns, Emptied, Killed, Op, Process, op, tags_of};
use service::{Service, ServiceAccount, Troubled};

/// Cases unless another number is asked for. Chosen: some seconds.
const CASES: u32 = 100;
const SECOND: Duration = Duration::from_secs(1);
/// What lies between two of the things that happen.
const STEP: Duration = Duration::from_secs(3_600);
const NICK: InDoubt = InDoubt::of_field(ProfileField::Nick);
const FACE_URL: InDoubt = InDoubt::of_field(ProfileField::FaceUrl);
const STATE: u64 = 7;
const IMPORT: u64 = 9;
type Records = BTreeMap<u8, Cells>;

fn name(kind: &str, cell: CellText) -> String {
    cell.map(|cell| format!("{kind} {cell}")).unwrap_or_default()
}

fn id(number: u8) -> String {
    format!("u{number:02}")
}

/// An import that has begun: its records, and when each that was taken was.
struct Importing {
    records: Records,
    columns: Columns,
    taken: Vec<(u8, i64)>,
}

/// Ends a process at some moment.
struct KilledAt(Killed);

impl Observer for KilledAt {
    fn on(&mut self, progress: SyncProgress) -> ControlFlow<()> {
        let is_now = match progress {
            SyncProgress::Committed => self.0 == Killed::AfterBegin,
            SyncProgress::RowsDone => self.0 == Killed::BeforeFinish,
            SyncProgress::StateFinished => self.0 == Killed::AfterFinish,
            _ => false,
        };
        if is_now { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

struct ModelFixture {
    folder: tempfile::TempDir,
    service: Service,
    now: Rc<Cell<SystemTime>>,
    records: Records,
    before: Records,
    columns: Columns,
    importing: Option<Importing>,
    /// Accounts that an unfinished import has made.
    by_import: BTreeSet<String>,
    runs: u64,
}

impl ModelFixture {
    fn new(seed: u64, refuses: bool) -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let troubled = Troubled { accounts: BTreeMap::new(), refuses, lost: None, chance: fastrand::Rng::with_seed(seed) };
        let now = Rc::new(Cell::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)));
        let (records, before) = (Records::new(), Records::new());
        let service = MemoryService(Rc::new(RefCell::new(troubled)));
        Self { folder, service, now, records, before, columns: Columns::None, importing: None, by_import: BTreeSet::new(), runs: 0 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn paths(&self) -> RunPaths {
        RunPaths::new(&self.path("users.csv"), GivenPaths::default())
    }

    fn state(&self) -> Option<StateDb> {
        StateDb::find(&self.path("state")).unwrap()
    }

    fn target() -> Target {
        Target { endpoint: "https://fake".to_owned(), sdkappid: 1, api: "account_import".to_owned() }
    }

    fn now_ms(&self) -> i64 {
        milliseconds(self.now.get())
    }

    async fn happens(&mut self, op: &Op) {
        self.now.set(self.now.get() + STEP);
        match op {
            Op::Edit(changes) => {
                self.before = self.records.clone();
                for (id, record) in changes {
                    match record {
                        Some(record) => self.records.insert(*id, *record),
                        None => self.records.remove(id),
                    };
                }
            }
            Op::Empty(what) => {
                self.before = self.records.clone();
                for cells in self.records.values_mut().step_by(2) {
                    match what {
                        Emptied::Nicks => cells.nick = None,
                        Emptied::Faces => cells.face = None,
                        Emptied::Levels => cells.level = None,
                    }
                }
            }
            Op::Columns(columns) => self.columns = *columns,
            Op::TakeBack => std::mem::swap(&mut self.records, &mut self.before),
            Op::Sync(process) => {
                self.sync(*process).await;
            }
            Op::Verify => self.verify(),
            Op::Import(records) => self.import(*records),
            Op::Trouble(lost) => self.service.0.borrow_mut().lost = *lost,
        }
    }

    fn csv(&self) -> String {
        let tags = self.columns.tags();
        let names = tags.iter().fold(String::new(), |names, tag| names + "," + &tag.wire_name());
        self.records.iter().fold(format!("UserID,Nick,FaceUrl{names}\n"), |mut csv, (number, cells)| {
            write!(csv, "{},{},{}", id(*number), name("nick", cells.nick), name("face", cells.face)).unwrap();
            for tag in &tags {
                match cells.tag(tag) {
                    None => csv.push(','),
                    Some(TagValue::Number(number)) => write!(csv, ",{number}").unwrap(),
                    Some(TagValue::Text(text)) => write!(csv, ",{text}").unwrap(),
                }
            }
            csv + "\n"
        })
    }

    /// Writes the file; its bytes are the same as before unless its records have changed.
    fn write_file(&self) {
        let csv = self.csv();
        if std::fs::read_to_string(self.path("users.csv")).ok().as_deref() != Some(&csv) {
            let _ = std::fs::remove_file(self.path("users.csv"));
            std::fs::write(self.path("users.csv"), csv).unwrap();
        }
    }

    /// One process of `chatlift sync`: whether it came to the end.
    async fn sync(&mut self, process: Process) -> bool {
        let reader = process.reader.then(|| self.looks());
        let is_finished = Box::pin(self.syncs(process)).await;
        if let Some(reader) = reader {
            reader.join().unwrap();
        }
        is_finished
    }

    /// Another program that holds the state for a moment.
    fn looks(&self) -> std::thread::JoinHandle<()> {
        let path = self.path("state");
        std::thread::spawn(move || {
            let Ok(reader) = rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY) else { return };
            if reader.execute_batch("BEGIN").and_then(|()| reader.query_row("SELECT count(*) FROM accounts", [], |_| Ok(()))).is_ok() {
                std::thread::park_timeout(Duration::from_millis(3));
            }
        })
    }

    async fn syncs(&mut self, process: Process) -> bool {
        self.write_file();
        let Some(ready) = self.begins(process) else { return false };
        let run = Box::pin(ready.run(self.dependencies(process)));
        let report = match process.killed {
            Killed::After(ms) => match tokio::time::timeout(Duration::from_millis(ms), run).await {
                Ok(report) => report,
                Err(_) => return false,
            },
            Killed::Never | Killed::AfterBegin | Killed::BeforeFinish | Killed::AfterFinish => run.await,
        };
        match report.end {
            Ok(end) => matches!(end, ImportEnd::Finished),
            Err(SyncError::Plan(PlanError::Stopped)) => false,
            Err(error) => panic!("neither disk nor state fail: {error}"),
        }
    }

    /// What is ready to send, unless the process is killed before.
    fn begins(&self, process: Process) -> Option<Ready> {
        let state = lock_state(&self.path("state"));
        let locks = Locks { run: lock(&self.paths()), state: &state };
        let limit = process.limit.map(u64::from);
        let setup = Setup { limit, ..setup(self.folder.path(), &self.now, KilledAt(process.killed)) };
        let ready = match sync::prepare(setup).unwrap() {
            Prepared::Resume(_) if process.killed == Killed::AfterBegin => return None,
            Prepared::Resume(unfinished) => unfinished.resume(locks),
            Prepared::Plan(plan) => plan.commit(locks),
        };
        match ready {
            Err(SyncError::Plan(PlanError::Stopped)) => None,
            ready => Some(ready.unwrap()),
        }
    }

    fn dependencies(&self, process: Process) -> Dependencies<Service> {
        let lane = if process.in_batches { Lane::Batch(OnBatchFailure::FallBack) } else { Lane::Single };
        let usual = settings(lane);
        let limits = SchedulerLimits { max_attempts: 2, in_flight: 4 };
        let dispatch = DispatchSettings { limits, max_outage: STEP, ..usual.dispatch };
        let settings = ImportSettings { dispatch, commit_every: SECOND / 5, ..usual };
        Dependencies { ahead: Some(3), ..dependencies(self.service.clone(), self.now.get(), settings) }
    }

    /// What the results say of the run that the state has open.
    fn left_by(&self, work: RunKind) -> SendOutcomes {
        let is_its_own = journal::read_checkpoint(&OsDisk, &self.paths()).is_some_and(|checkpoint| checkpoint.work == work);
        match journal::committed_results(&self.paths()).unwrap().filter(|_| is_its_own) {
            Some(results) => SendOutcomes::read(results, &CellRules::default(), None, self.folder.path()).unwrap(),
            None => SendOutcomes::none(),
        }
    }

    /// What is wrong with the ids of the file, by the service.
    fn verify(&self) {
        let Some(mut state) = self.state() else { return };
        let books = self.service.0.borrow();
        let differs = |cell: CellText, kind: &str, held: &str| cell.is_some() && name(kind, cell) != held;
        let tags = self.columns.tags();
        let wrong = self.records.iter().filter_map(|(number, cells)| {
            let Some(held) = books.accounts.get(&id(*number)) else {
                return Some(Ok((PaddedId::new(id(*number).as_bytes()), Discrepancy::NotThere)));
            };
            let mut fields = InDoubt::NOTHING;
            if differs(cells.nick, "nick", &held.nick) {
                fields = fields.and(NICK);
            }
            if differs(cells.face, "face", &held.face) {
                fields = fields.and(FACE_URL);
            }
            let is_other = |tag: &Tag| cells.tag(tag).is_some_and(|value| held.tags.get(tag) != Some(&value));
            let tags: TagSet = tags.iter().enumerate().filter(|(_, tag)| is_other(tag)).map(|(place, _)| place).collect();
            let is_wrong = fields != InDoubt::NOTHING || !tags.is_empty();
            is_wrong.then(|| Ok((PaddedId::new(id(*number).as_bytes()), Discrepancy::Different { fields, tags })))
        });
        state.set_right(&tags, wrong).unwrap();
    }

    /// So many records more of the import under way; it has finished with the last one.
    fn import(&mut self, more: u8) {
        let mut state = StateDb::open_or_create(&self.path("state"), &Self::target(), STATE).unwrap();
        state.import_begins(IMPORT).unwrap();
        let now = self.now_ms();
        let (records, columns) = (&self.records, self.columns);
        let importing = self.importing.get_or_insert_with(|| Importing { records: records.clone(), columns, taken: Vec::new() });
        let next: Vec<u8> = importing.records.keys().copied().skip(importing.taken.len()).take(more.into()).collect();
        for number in next {
            let cells = importing.records[&number];
            let fields = [cells.nick.map(|_| name("nick", cells.nick)), cells.face.map(|_| name("face", cells.face))];
            let mut service = self.service.0.borrow_mut();
            service.import(&id(number), fields[0].as_deref(), fields[1].as_deref());
            service.set_tags(&id(number), importing.columns.tags().into_iter().filter_map(|tag| Some((tag.clone(), cells.tag(&tag)?))));
            drop(service);
            self.by_import.insert(id(number));
            importing.taken.push((number, now));
        }
        if importing.taken.len() < importing.records.len() {
            return;
        }
        let Importing { records, columns, taken } = self.importing.take().expect("it is under way");
        self.by_import.clear();
        let settled = (1..).zip(&taken).map(|(row, (number, at))| {
            let cells = records[number];
            let fields = [cells.nick.map(|_| name("nick", cells.nick)), cells.face.map(|_| name("face", cells.face))];
            let outcome = SendOutcome::new(PaddedId::new(id(*number).as_bytes()), row, Sent::Taken { at: *at });
            let profile = Hashes::of([fields[0].as_deref(), fields[1].as_deref()].into());
            Ok(ImportedRow { outcome, account: AccountCall::Imported, profile, tags: tags_of(cells, columns) })
        });
        let stat = FileStat { len: 0, modified_ns: 0, changed_ns: 0, inode: 0 };
        self.runs += 1;
        let (input, ops) = (RunInput { len: 0, digest: self.runs, stat }, Ops::default());
        let new = NewRun { token: self.runs, filled: Filled::of(columns.tags()), ..NewRun::bare("import", now, input, &ops) };
        state.import_finished(IMPORT, &new, settled, RunTotals::default()).unwrap();
    }

    /// The accounts as a planning now would take them.
    fn held(&self) -> BTreeMap<String, KnownAccount> {
        // A killed process may still be about a commit.
        drop(lock(&self.paths()));
        let Some(state) = self.state() else { return BTreeMap::new() };
        let (run, token) = state.open_run().unwrap().map_or((0, 0), |open| (open.number, open.token));
        let mut held = BTreeMap::new();
        let left = self.left_by(RunKind::Sync { state: state.about().unwrap().identity, run, token });
        state
            .each_held(left, |id, account| {
                held.insert(String::from_utf8(id.to_vec()).unwrap(), account.clone());
                Ok(())
            })
            .unwrap();
        held
    }

    /// The state says nothing that isn't so.
    fn never_lies(&self, what: &str) {
        let held = self.held();
        let books = self.service.0.borrow();
        let tags: BTreeMap<TagNumber, Tag> =
            self.state().map(|state| state.known_tags().unwrap()).unwrap_or_default().into_iter().collect();
        for (id, account) in &held {
            let Some(ServiceAccount { nick, face, tags: set }) = books.accounts.get(id) else {
                assert!(account.in_doubt.has(InDoubt::EXISTENCE), "{what}: the service has no {id}: {account:?}");
                continue;
            };
            let says =
                |known: Option<u64>, held: &str| known.is_none() || known == Hashes::of([Some(held), None].into())[ProfileField::Nick];
            assert!(account.in_doubt.has(NICK) || says(account.profile[ProfileField::Nick], nick), "{what}: {id} is {nick}: {account:?}");
            assert!(
                account.in_doubt.has(FACE_URL) || says(account.profile[ProfileField::FaceUrl], face),
                "{what}: {id} is {face}: {account:?}"
            );
            for known in account.tags.iter().filter(|known| !known.in_doubt) {
                let value = set.get(&tags[&known.number]).map(|value| TagHash::of(value.as_ref()));
                assert_eq!(known.hash, value, "{what}: {id} has {set:?}: {account:?}");
            }
        }
        let unknown = books.accounts.keys().find(|id| !held.contains_key(*id) && !self.by_import.contains(*id));
        assert_eq!(unknown, None, "{what}: the service has it");
    }

    /// The service holds what the file says.
    fn is_put_right(&self) {
        let (held, books) = (self.held(), self.service.0.borrow());
        let numbers: BTreeMap<Tag, TagNumber> =
            self.state().unwrap().known_tags().unwrap().into_iter().map(|(number, tag)| (tag, number)).collect();
        for (number, cells) in &self.records {
            let id = id(*number);
            let Cells { nick, face, .. } = *cells;
            let service = books.accounts.get(&id).unwrap_or_else(|| panic!("{id} is nowhere"));
            assert!(nick.is_none() || name("nick", nick) == service.nick, "{id} is {service:?}, not {nick:?}");
            assert!(face.is_none() || name("face", face) == service.face, "{id} is {service:?}, not {face:?}");
            let carried = Hashes::of([nick.map(|_| ""), face.map(|_| "")].into());
            let settled = InDoubt::of_fields(carried).and(InDoubt::EXISTENCE);
            assert_eq!(held[&id].in_doubt.without(settled), held[&id].in_doubt, "{id} was sent");
            for (tag, value) in self.columns.tags().into_iter().filter_map(|tag| Some((tag.clone(), cells.tag(&tag)?))) {
                assert_eq!(service.tags.get(&tag), Some(&value), "{id} is {service:?}, not {cells:?}");
                let known = held[&id].tags.get(numbers[&tag]).copied();
                assert!(known.is_some_and(|known| !known.in_doubt && known.hash == Some(TagHash::of(value.as_ref()))), "{id}: {known:?}");
            }
        }
    }
}

fn config() -> ProptestConfig {
    let cases = std::env::var("CHATLIFT_MODEL_CASES").map_or(CASES, |count| count.parse().expect("it is a number"));
    // A failure is printed with the sequence that led to it; no file is left.
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 2_000, ..ProptestConfig::default() }
}

async fn lives(seed: u64, refuses: bool, ops: &[Op]) {
    let mut fixture = ModelFixture::new(seed, refuses);
    for (number, op) in ops.iter().enumerate() {
        fixture.happens(op).await;
        fixture.never_lies(&format!("after number {number}, {op:?}"));
    }
    fixture.happens(&Op::Trouble(None)).await;
    fixture.service.0.borrow_mut().refuses = false;
    let undisturbed = Process { limit: None, killed: Killed::Never, in_batches: false, reader: false };
    // The first one may have gone on with a run of which some rows have failed.
    for what in ["once an unfinished run has ended", "at the end"] {
        fixture.now.set(fixture.now.get() + STEP);
        assert!(fixture.sync(undisturbed).await, "an undisturbed process comes to its end");
        fixture.never_lies(what);
    }
    fixture.is_put_right();
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_state_never_lies_and_every_file_is_put_right(seed in any::<u64>(), refuses in any::<bool>(), ops in prop::collection::vec(op(), 1..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(lives(seed, refuses, &ops));
    }
}
