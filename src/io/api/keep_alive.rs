//! Kept connections: which ones have carried a request before, and whether to keep any.
//!
//! Some servers close a connection without notice after an answer, a time or a number of requests. A request on such a connection is lost,
//! and repeating it uses up another permit. If this happens often, each request gets a new connection for a while.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::Id;
use tokio::time::Instant;

/// The size of each of two generations of remembered connections. Chosen: at 200/s with a new connection per request they cover more than a
/// minute, twice as long as the pool keeps connections.
const REMEMBERED: usize = 16_384;
/// A lost request on a kept connection weighs as much as this many good ones.
const WEIGHT: u32 = 50;
/// At this weight connections are no longer kept: one request in fifty may be lost.
const TOO_MUCH: u32 = 2 * WEIGHT;
/// The first pause without kept connections.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause; each is twice the one before. Chosen: the trial after it may cost one request.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The connections that have carried a request.
#[derive(Debug, Clone, Default)]
pub(super) struct Carriers(Arc<Mutex<Generations>>);

/// Two generations: connections that were seen recently, and those before them.
#[derive(Debug, Default)]
struct Generations {
    young: HashSet<Id>,
    old: HashSet<Id>,
}

impl Carriers {
    /// Must be called when a connection takes a request. hyper runs each connection in a task of its own, so the task's id identifies it.
    /// Returns whether the connection had carried a request before.
    pub(super) fn note(&self) -> bool {
        let Some(connection) = tokio::task::try_id() else { return false };
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = seen.old.contains(&connection);
        let is_new = seen.young.insert(connection);
        if seen.young.len() >= REMEMBERED {
            seen.old = std::mem::take(&mut seen.young);
        }
        is_old || !is_new
    }
}

/// The kind of connection that a request gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionChoice {
    /// A kept connection if there is one, or a new one that will be kept.
    Kept,
    /// The same as [`ConnectionChoice::Kept`], but only for one request at a time, to find out whether connections can be kept again.
    Trial,
    /// A new connection that is not kept.
    Fresh,
}

/// The evidence of a request about kept connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionUse {
    /// It was answered on a kept connection.
    Good,
    /// The kept connection had been closed by the server.
    ClosedByServer,
    /// Nothing: its connection was new, or it failed in another way.
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeepingState {
    Keeping,
    Paused {
        until: Instant,
    },
    /// The pause is over, and one request tries whether connections can be kept.
    Trying {
        is_under_way: bool,
    },
}

/// Decides whether connections are kept. It has no clock: the caller passes the time.
#[derive(Debug)]
pub(super) struct Keeping {
    state: KeepingState,
    weight: u32,
    pause: Duration,
}

impl Default for Keeping {
    fn default() -> Self {
        Self { state: KeepingState::Keeping, weight: 0, pause: PAUSE }
    }
}

impl Keeping {
    /// The kind of connection for the next request.
    pub(super) fn choose(&mut self, now: Instant) -> ConnectionChoice {
        match self.state {
            KeepingState::Keeping => ConnectionChoice::Kept,
            KeepingState::Paused { until } if now < until => ConnectionChoice::Fresh,
            KeepingState::Trying { is_under_way: true } => ConnectionChoice::Fresh,
            KeepingState::Paused { .. } | KeepingState::Trying { is_under_way: false } => {
                self.state = KeepingState::Trying { is_under_way: true };
                ConnectionChoice::Trial
            }
        }
    }

    /// Records the result of a request that got a connection of this kind.
    pub(super) fn used(&mut self, choice: ConnectionChoice, came: ConnectionUse, now: Instant) {
        match (choice, came) {
            // Requests that left before the pause say nothing new.
            (ConnectionChoice::Kept, ConnectionUse::ClosedByServer) if self.state == KeepingState::Keeping => {
                self.weight += WEIGHT;
                if self.weight >= TOO_MUCH {
                    self.stop(now);
                }
            }
            (ConnectionChoice::Trial, ConnectionUse::ClosedByServer) => self.stop(now),
            (ConnectionChoice::Trial, ConnectionUse::Good) => self.state = KeepingState::Keeping,
            (ConnectionChoice::Trial, ConnectionUse::None) => self.state = KeepingState::Trying { is_under_way: false },
            (ConnectionChoice::Kept, ConnectionUse::Good) => {
                self.weight = self.weight.saturating_sub(1);
                if self.weight == 0 {
                    self.pause = PAUSE;
                }
            }
            (ConnectionChoice::Kept, ConnectionUse::ClosedByServer | ConnectionUse::None) | (ConnectionChoice::Fresh, _) => {}
        }
    }

    fn stop(&mut self, now: Instant) {
        tracing::debug!(pause = ?self.pause, "the server closes kept connections; each request gets a new one for a while");
        self.state = KeepingState::Paused { until: now + self.pause };
        self.weight = WEIGHT;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends requests one after the other, this long apart, to a server that closes each connection at its nth request. Returns how many
    /// requests were lost and how many had a new connection.
    fn served(nth: u32, apart: Duration, calls: u32) -> (u32, u32) {
        let (mut keeping, mut now) = (Keeping::default(), Instant::now());
        // Requests that the kept connection has carried.
        let (mut carried, mut lost, mut fresh) = (0, 0, 0);
        for _ in 0..calls {
            now += apart;
            let choice = keeping.choose(now);
            let came = match choice {
                ConnectionChoice::Fresh => ConnectionUse::None,
                ConnectionChoice::Kept | ConnectionChoice::Trial => {
                    carried += 1;
                    match carried {
                        1 => ConnectionUse::None,
                        _ if carried == nth => ConnectionUse::ClosedByServer,
                        _ => ConnectionUse::Good,
                    }
                }
            };
            fresh += u32::from(choice == ConnectionChoice::Fresh);
            if came == ConnectionUse::ClosedByServer {
                (carried, lost) = (0, lost + 1);
            }
            keeping.used(choice, came, now);
        }
        (fresh, lost)
    }

    #[test]
    fn few_requests_are_lost_to_closed_connections_whatever_the_server_does() {
        const CALLS: u32 = 8_000;
        for nth in 2..400 {
            let (fresh, lost) = served(nth, Duration::from_millis(5), CALLS);
            assert!(lost <= CALLS / 50 + 2, "closed at request {nth}: {lost}");
            assert!(fresh == 0 || nth <= 52, "kept for {nth} requests, which is worth it: {fresh}");
        }
        assert_eq!(served(u32::MAX, Duration::from_millis(5), CALLS), (0, 0));
    }

    #[test]
    fn the_pause_doubles_and_one_request_at_a_time_tries_to_end_it() {
        let mut now = Instant::now();
        let mut keeping = Keeping::default();
        for _ in 0..5 {
            assert_eq!(keeping.choose(now), ConnectionChoice::Kept);
        }
        for _ in 0..5 {
            keeping.used(ConnectionChoice::Kept, ConnectionUse::ClosedByServer, now);
        }
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(keeping.choose(now), ConnectionChoice::Fresh);
            now += Duration::from_secs(pause);
            assert_eq!(keeping.choose(now - Duration::from_millis(1)), ConnectionChoice::Fresh, "{pause}");
            assert_eq!((keeping.choose(now), keeping.choose(now)), (ConnectionChoice::Trial, ConnectionChoice::Fresh));
            keeping.used(ConnectionChoice::Trial, ConnectionUse::None, now);
            assert_eq!(
                (keeping.choose(now), keeping.choose(now)),
                (ConnectionChoice::Trial, ConnectionChoice::Fresh),
                "the first one makes the connection"
            );
            keeping.used(ConnectionChoice::Kept, ConnectionUse::ClosedByServer, now);
            keeping.used(ConnectionChoice::Trial, ConnectionUse::ClosedByServer, now);
        }
        now += PAUSE_MAX;
        assert_eq!(keeping.choose(now), ConnectionChoice::Trial);
        keeping.used(ConnectionChoice::Trial, ConnectionUse::Good, now);
        for _ in 0..WEIGHT {
            assert_eq!(keeping.choose(now), ConnectionChoice::Kept);
            keeping.used(ConnectionChoice::Kept, ConnectionUse::Good, now);
        }
        keeping.used(ConnectionChoice::Kept, ConnectionUse::ClosedByServer, now);
        assert_eq!(keeping.choose(now), ConnectionChoice::Kept, "the counts start again");
        keeping.used(ConnectionChoice::Kept, ConnectionUse::ClosedByServer, now);
        assert_eq!(keeping.choose(now + PAUSE), ConnectionChoice::Trial);
    }

    #[tokio::test]
    async fn a_connection_is_known_by_its_task() {
        let carriers = Carriers::default();
        let (gate, carried) = (Arc::new(tokio::sync::Notify::new()), carriers.clone());
        let again = Arc::clone(&gate);
        let kept = tokio::spawn(async move {
            let first = carried.note();
            again.notified().await;
            (first, carried.note(), carried.note())
        });
        tokio::task::yield_now().await;
        for _ in 0..REMEMBERED + 10 {
            let carried = carriers.clone();
            assert!(!tokio::spawn(async move { carried.note() }).await.unwrap(), "each task is a new connection");
        }
        gate.notify_one();
        assert_eq!(kept.await.unwrap(), (false, true, true));
        let seen = carriers.0.lock().unwrap();
        assert!(seen.young.len() + seen.old.len() <= 2 * REMEMBERED);
    }
}
