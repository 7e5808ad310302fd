//! The world around an import: records, settings, clocks, and a sink in memory.

use std::cell::Cell;
use std::convert::Infallible;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chatlift::domain::account::{Account, Suspects};
use chatlift::domain::call_stats::{CallStats, RunPhase};
use chatlift::domain::command::{Command, PerCommand};
use chatlift::domain::outcome::{OutcomeCounts, RowOutcome};
use chatlift::domain::position::InputPosition;
use chatlift::domain::tag::{Tag, TagItem, TagValue};
use chatlift::flow::dispatch::{Clocks, DispatchDependencies};
use chatlift::flow::import::{self, ImportEnd, ImportEnds, ImportProgress, ImportSettings, Lane, OnBatchFailure, WindowLimits};
use chatlift::io::api::usersig::{Credential, Signer};
use chatlift::io::gate::Rate;
use chatlift::io::journal::OutcomeSink;
use chatlift::io::roster::Record;
use futures_util::StreamExt;
use futures_util::stream::LocalBoxStream;
use tokio::time::Instant;

use super::Service;
use crate::support::import_settings::import_settings;

/// Results that the batch lane may hold back, by contract.
pub(in crate::flow) const WINDOW_RECORDS: usize = 131_072;

type Records = Box<dyn Iterator<Item = Result<Record, Infallible>>>;

/// So many accounts, `user1` and so on.
pub(in crate::flow) fn accounts(count: u64) -> Records {
    records((1..=count).map(|row| (format!("user{row}"), String::new())))
}

/// Records of a UserID and a nickname.
pub(in crate::flow) fn records(all: impl Iterator<Item = (String, String)> + 'static) -> Records {
    Box::new(all.zip(1_u64..).map(|((user_id, nick), row)| {
        Ok(Record {
            row,
            line: row + 1,
            end: InputPosition { rows: row, offset: row * 10, line: row + 2, digest: row },
            other_id: None,
            suspects: Suspects::default(),
            account: Account::parse(user_id.as_bytes(), nick.as_bytes(), b""),
            user_id: user_id.into_bytes().into(),
            fields: csv::ByteRecord::new(),
            text: None,
        })
    }))
}

/// The same records with text tags of these keys.
pub(in crate::flow) fn with_tags(records: Records, keys: impl Fn(u64) -> &'static [&'static str] + 'static) -> Records {
    Box::new(records.map(move |record| {
        let mut record = record?;
        let tag = |key: &&str| TagItem { tag: Tag::Custom((*key).into()), value: TagValue::Text("v".into()) };
        record.account = record.account.map(|account| Account { tags: keys(record.row).iter().map(tag).collect(), ..account });
        Ok(record)
    }))
}

/// Everything around the service.
pub(in crate::flow) struct World {
    records: Records,
    pub(in crate::flow) settings: ImportSettings,
    pub(in crate::flow) signals: LocalBoxStream<'static, ()>,
    pub(in crate::flow) wall: Box<dyn Fn() -> SystemTime>,
    pub(in crate::flow) tell: Box<dyn FnMut(&ImportProgress)>,
    keep: Keep,
    seed: u64,
}

/// Whether rows are kept for the test to look at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::flow) enum Keep {
    Rows,
    Counts,
}

/// What a run came to.
pub(in crate::flow) struct Run {
    pub(in crate::flow) end: ImportEnd<Infallible>,
    pub(in crate::flow) counts: OutcomeCounts,
    pub(in crate::flow) traffic: CallStats,
    pub(in crate::flow) rows: Vec<RowOutcome>,
    pub(in crate::flow) lane: Lane,
    pub(in crate::flow) unjudged: u64,
    /// How often the service was taken for dead.
    pub(in crate::flow) outages: u32,
}

impl World {
    pub(in crate::flow) fn new(records: Records) -> Self {
        let began = Instant::now();
        Self {
            records,
            settings: import_settings(Lane::Single, 200),
            signals: futures_util::stream::pending().boxed_local(),
            tell: Box::new(|_| ()),
            wall: Box::new(move || UNIX_EPOCH + Duration::from_secs(1_800_000_000) + began.elapsed()),
            keep: Keep::Rows,
            seed: 1,
        }
    }

    /// With another seed of the back-off's jitter.
    pub(in crate::flow) fn seeded(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// With another rate of `portrait_set`.
    pub(in crate::flow) fn with_profile_rate(mut self, rate: u32) -> Self {
        self.settings.dispatch.rates[Command::PortraitSet] = Rate::PerSecond(NonZeroU32::new(rate).unwrap());
        self
    }

    /// In batches, at the documented rates and the batch lane's bounds.
    pub(in crate::flow) fn in_batches(mut self, doubt: OnBatchFailure) -> Self {
        let rate = |command| if command == Command::MultiaccountImport { 100 } else { 200 };
        self.settings.dispatch.rates = PerCommand::new(|command| Rate::PerSecond(NonZeroU32::new(rate(command)).unwrap()));
        self.settings.window = WindowLimits { records: WINDOW_RECORDS, bytes: 40 << 20 };
        self.settings.lane = Lane::Batch(doubt);
        self.settings.commit_rows = 65_536;
        self
    }

    pub(in crate::flow) fn keeping(mut self, keep: Keep) -> Self {
        self.keep = keep;
        self
    }

    pub(in crate::flow) async fn run(self, service: &Service) -> Run {
        let rows = Arc::new(Mutex::new(Vec::new()));
        let signer = Signer::new(Credential::Key("key".into()), 1, "administrator", Instant::now(), (self.wall)());
        let mut jitter = fastrand::Rng::with_seed(self.seed);
        let outages = Rc::new(Cell::new(0));
        let (told, mut was_down) = (Rc::clone(&outages), false);
        let mut tell = self.tell;
        let clocks = Clocks { wall: self.wall, jitter: Box::new(move || jitter.f64()) };
        let dependencies = DispatchDependencies { api: service.clone(), signer, clocks, signals: self.signals };
        let ends = ImportEnds {
            records: self.records,
            sink: Memory { rows: Arc::clone(&rows), pending: Vec::new(), pending_rows: 0, keep: self.keep },
            on_progress: Box::new(move |progress| {
                let is_down = matches!(progress.requests.phase, RunPhase::Waiting { .. });
                told.set(told.get() + u32::from(is_down && !was_down));
                was_down = is_down;
                tell(progress);
            }),
        };
        let ended = import::run(dependencies, ends, self.settings).await.expect("memory never fails");
        let rows = std::mem::take(&mut *rows.lock().unwrap());
        Run {
            end: ended.end,
            counts: ended.counts,
            traffic: ended.traffic,
            rows,
            lane: ended.lane,
            unjudged: ended.unjudged,
            outages: outages.get(),
        }
    }
}

/// Rows that fill the sink. Chosen: fewer than a batch lane's commit, more than the single lane's.
const FULL_ROWS: u64 = 20_000;

/// A sink in memory: what was committed is what the test sees.
struct Memory {
    rows: Arc<Mutex<Vec<RowOutcome>>>,
    pending: Vec<RowOutcome>,
    pending_rows: u64,
    keep: Keep,
}

impl OutcomeSink for Memory {
    type Error = Infallible;

    fn buffer(&mut self, settled: RowOutcome) {
        assert!(self.pending_rows < FULL_ROWS, "a full sink is given no more");
        self.pending_rows += 1;
        if self.keep == Keep::Rows {
            self.pending.push(settled);
        }
    }

    fn skip(&mut self, _: InputPosition) {}

    fn pending_rows(&self) -> u64 {
        self.pending_rows
    }

    fn is_full(&self) -> bool {
        self.pending_rows >= FULL_ROWS
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
