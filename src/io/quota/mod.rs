//! A limit that several processes share through Valkey or Redis.
//!
//! `quota.lua` is one call of one process about one API: it decides who holds which slots. `lease_book` is the same as this process sees
//! it, without clock or I/O, and the gate asks it. `store` carries the calls. The sending loop never waits for the store: a task renews the
//! leases ahead of need, and wakes the loop when it has something new.

mod alone;
mod held_slots;
mod lease;
mod lease_book;
mod quota_pace;
mod settings;
mod store;

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use crate::domain::call_stats::QuotaStats;
use crate::domain::command::{Command, PerCommand};
pub use alone::IfLost;
pub use held_slots::QuotaSlot;
pub use lease::{Lease, Ticket};
pub(crate) use lease_book::ROUND;
pub use lease_book::{LeaseBook, Renewal, Renewed, SlotRoom};
pub use quota_pace::{CommonPace, SentReport};
pub use settings::{QuotaSettings, StoreAddress, Transport};
use store::{Answered, Store};
pub use store::{QuotaError, QuotaRefusal, SCRIPT, check};

/// How long the last renewals, which give everything back, may take. Chosen: an answer that is later helps nobody.
const FAREWELL_MAX: Duration = Duration::from_millis(300);
/// A request that has been waiting for a slot for this long is worth a word. Chosen: a lost answer alone does not show.
const TOLD_AFTER: Duration = Duration::from_secs(1);

/// The part of a process in the quota. It ends when this is dropped.
#[derive(Debug)]
pub struct Quota {
    shared: Arc<SharedBooks>,
    task: tokio::task::JoinHandle<()>,
}

/// What the gates and the task share.
#[derive(Debug)]
struct SharedBooks {
    books: PerCommand<Mutex<LeaseBook>>,
    limits: PerCommand<NonZeroU32>,
    if_lost: IfLost,
    /// The store, for people.
    store: StoreAddress,
    /// Wakes the sending loop.
    changed: Notify,
    /// Wakes the task.
    kick: Notify,
    closing: Notify,
    closed: Notify,
    /// When the task looks again by itself.
    looks_at: Mutex<Option<Instant>>,
    state: Mutex<QuotaState>,
}

/// How the quota fared so far.
#[derive(Debug, Clone, Default)]
struct QuotaState {
    /// Since when the store does not answer, and why.
    lost: Option<(Instant, String)>,
    /// People know that it is lost.
    is_told: bool,
    /// It has answered at some time. If it never has, the first look has said so.
    has_answered: bool,
    refusal: Option<QuotaRefusal>,
    times_lost: u64,
    lost_for: Duration,
    most_processes: u64,
}

/// A run that waits for the quota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaWait {
    pub since: Instant,
    pub why: String,
}

impl Quota {
    /// Takes part from now on. `most` is how many requests per second this process sends at most, of each API; once the service refuses
    /// some, `headroom_percent` of what gets through are left to others. It must be called within a runtime.
    #[must_use]
    pub fn start(settings: &QuotaSettings, most: &PerCommand<u32>, headroom_percent: u8) -> Self {
        let limits = PerCommand::new(|command| settings.limits[command]);
        let book = |command| Mutex::new(LeaseBook::new(settings.limits[command], most[command], settings.if_lost));
        let shared = Arc::new(SharedBooks {
            books: PerCommand::new(book),
            limits,
            if_lost: settings.if_lost,
            store: settings.store.clone(),
            changed: Notify::new(),
            kick: Notify::new(),
            closing: Notify::new(),
            closed: Notify::new(),
            looks_at: Mutex::default(),
            state: Mutex::default(),
        });
        let task = tokio::spawn(serve(Arc::clone(&shared), Store::new(settings, headroom_percent)));
        Self { shared, task }
    }

    /// The slots of one API, for its gate.
    #[must_use]
    pub fn lease(&self, command: Command) -> Lease {
        Lease { shared: Arc::clone(&self.shared), command }
    }

    /// Resolves when there is something new for requests that wait.
    pub fn changed(&self) -> impl Future<Output = ()> + use<> {
        let shared = Arc::clone(&self.shared);
        async move { shared.changed.notified().await }
    }

    /// Why this process may not take part.
    #[must_use]
    pub fn refusal(&self) -> Option<QuotaRefusal> {
        self.shared.state().refusal.clone()
    }

    /// The wait for a lost store, if requests wait for it.
    #[must_use]
    pub fn waiting(&self, now: Instant) -> Option<QuotaWait> {
        if self.shared.if_lost != IfLost::Wait {
            return None;
        }
        let starved = |(_, book): (Command, &Mutex<LeaseBook>)| lock(book).starved_since();
        let since = self.shared.books.iter().filter_map(starved).min().filter(|since| now >= *since + TOLD_AFTER)?;
        let why = self.shared.state().lost.as_ref().map_or_else(|| "no answer yet".to_owned(), |(_, why)| why.clone());
        Some(QuotaWait { since, why })
    }

    /// How this process fares: with the API of which it has most.
    #[must_use]
    pub fn stats(&self, now: Instant) -> QuotaStats {
        let state = self.shared.state().clone();
        let lost_now = state.lost.map_or(Duration::ZERO, |(since, _)| now - since);
        let parts = self.shared.books.iter().map(|(_, book)| {
            let book = lock(book);
            (book.pace(now), book.processes())
        });
        let (here_per_s, processes) = parts.max().unwrap_or_default();
        QuotaStats {
            processes,
            here_per_s,
            most_processes: state.most_processes,
            times_lost: state.times_lost,
            lost_for: state.lost_for + lost_now,
            alone: self.shared.books.iter().map(|(_, book)| lock(book).alone_uses()).sum(),
        }
    }

    /// Waits for the slot of a single request that passes no gate.
    ///
    /// # Errors
    /// Why there was none in time.
    pub async fn ticket(&self, command: Command, within: Duration) -> Result<Ticket, String> {
        let (lease, until) = (self.lease(command), Instant::now() + within);
        loop {
            let now = Instant::now();
            let looks_at = match lease.room(now) {
                SlotRoom::Now => return Ok(lease.take(now)),
                SlotRoom::At(at) => at.min(until),
                SlotRoom::WhenGranted => until,
            };
            if now >= until {
                let lost = self.shared.state().lost.clone();
                return Err(lost.map_or_else(|| "all of it is in use".to_owned(), |(_, why)| why));
            }
            tokio::select! {
                () = self.changed() => {}
                () = sleep_until(looks_at) => {}
            }
        }
    }

    /// Gives everything back, so that others need not wait until the leases are over. Nothing may be sent any more.
    pub async fn close(&self) {
        self.shared.closing.notify_one();
        let _ = timeout(FAREWELL_MAX, self.shared.closed.notified()).await;
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl SharedBooks {
    fn state(&self) -> MutexGuard<'_, QuotaState> {
        lock(&self.state)
    }

    fn answered(&self, answered: Answered, now: Instant) {
        let Answered { command, number, end } = answered;
        match end {
            Ok(answer) => {
                let is_news = lock(&self.books[command]).renewed(number, &answer, now);
                let mut state = self.state();
                state.most_processes = state.most_processes.max(answer.processes);
                let is_told = std::mem::take(&mut state.is_told) || !state.has_answered;
                state.has_answered = true;
                if let Some((since, _)) = state.lost.take() {
                    state.lost_for += now - since;
                    if is_told {
                        tracing::info!("the quota's store answers again");
                    }
                }
                drop(state);
                if is_news {
                    self.changed.notify_one();
                }
            }
            Err(error) => {
                lock(&self.books[command]).lost(number);
                self.failed(error, now);
            }
        }
    }

    fn failed(&self, error: QuotaError, now: Instant) {
        let mut state = self.state();
        match error {
            QuotaError::Refused(refusal) => {
                state.refusal.get_or_insert(refusal);
                self.changed.notify_one();
            }
            QuotaError::Lost(why) => {
                if state.lost.is_none() {
                    tracing::debug!(why, "the quota's store does not answer");
                    state.times_lost += 1;
                }
                let since = state.lost.take().map_or(now, |(since, _)| since);
                if now >= since + TOLD_AFTER && state.has_answered && !state.is_told {
                    state.is_told = true;
                    tracing::warn!("{}", lost_words(&self.store, self.if_lost, &why));
                }
                state.lost = Some((since, why));
            }
        }
    }
}

/// What is said of a store that does not answer.
#[must_use]
pub fn lost_words(store: &StoreAddress, if_lost: IfLost, why: &str) -> String {
    let then = match if_lost {
        IfLost::Wait => "nothing is sent until it answers".to_owned(),
        IfLost::Alone(per_s) => format!("until it answers, at most {per_s} requests/s are sent (--quota-lost)"),
    };
    format!("the quota's store {store} does not answer ({why}): {then}")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Renews the leases of all APIs that are in use, until the quota is closed.
async fn serve(shared: Arc<SharedBooks>, mut store: Store) {
    let mut asking = FuturesUnordered::new();
    loop {
        let now = Instant::now();
        let mut looks_at = None;
        for (command, book) in shared.books.iter() {
            let mut book = lock(book);
            match book.due(now) {
                Some(at) if at <= now => asking.push(store.call(command, &book.renewal(now))),
                Some(at) => looks_at = Some(looks_at.map_or(at, |other: Instant| other.min(at))),
                None => {}
            }
        }
        *lock(&shared.looks_at) = looks_at;
        tokio::select! {
            Some(answered) = asking.next() => {
                store.heed(&answered);
                shared.answered(answered, Instant::now());
            }
            () = async { sleep_until(looks_at.unwrap_or(now)).await }, if looks_at.is_some() => {}
            () = shared.kick.notified() => {}
            () = shared.closing.notified() => break,
        }
    }
    let goodbyes: FuturesUnordered<_> = shared
        .books
        .iter()
        .filter_map(|(command, book)| {
            let mut book = lock(book);
            (book.held() > 0 || book.processes() > 0).then(|| store.call(command, &book.farewell(Instant::now())))
        })
        .collect();
    goodbyes.for_each(|_| std::future::ready(())).await;
    shared.closed.notify_one();
}
