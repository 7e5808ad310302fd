//! Kept connections: which ones have carried a request before, and whether keeping any is worth while.
//!
//! Some servers close a connection after an answer, a time or a number of requests without notice. The request that meets such a
//! connection is lost, and its repeat uses up a permit. Where this happens often, requests get new connections of their own for a while.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::Id;
use tokio::time::Instant;

/// Connections that are remembered, twice over. Chosen: those of a minute and more where every call at 200/s makes a new one; a pool keeps
/// them for half of that.
const REMEMBERED: usize = 16_384;
/// What a connection that was given up weighs against calls that went well on kept ones …
const WEIGHT: u32 = 50;
/// … and the weight at which none are kept any more: so one call in fifty may be lost to it.
const TOO_MUCH: u32 = 2 * WEIGHT;
/// For so long at first …
const PAUSE: Duration = Duration::from_secs(1);
/// … and at most, doubling. Chosen: an attempt costs one call.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The connections that have carried a call.
#[derive(Debug, Clone, Default)]
pub(super) struct Carriers(Arc<Mutex<Generations>>);

/// Those that were seen of late, and those before them.
#[derive(Debug, Default)]
struct Generations {
    young: HashSet<Id>,
    old: HashSet<Id>,
}

impl Carriers {
    /// To be called as a connection takes a call. hyper drives each connection in a task of its own, which so is its name.
    /// Whether it had carried one before.
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

/// Which connection a call gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionChoice {
    /// A kept one, if there is one; it is kept then.
    Kept,
    /// As [`ConnectionChoice::Kept`], but only one request at a time, to find out whether keeping connections is worth while again.
    Trial,
    /// One of its own.
    Fresh,
}

/// What a call tells of keeping connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionUse {
    /// It was answered on a kept one.
    Good,
    /// The kept one had been given up.
    GivenUp,
    /// Its connection was new, or something else befell it.
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeepingState {
    Keeping,
    Paused {
        until: Instant,
    },
    /// The pause is over.
    Trying {
        is_under_way: bool,
    },
}

/// Whether connections are kept. Pure: it is told the time.
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
    /// The way of the next call.
    pub(super) fn way(&mut self, now: Instant) -> ConnectionChoice {
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

    /// Takes what came of a call that went this way.
    pub(super) fn used(&mut self, way: ConnectionChoice, came: ConnectionUse, now: Instant) {
        match (way, came) {
            // Calls that left before the pause tell nothing new.
            (ConnectionChoice::Kept, ConnectionUse::GivenUp) if self.state == KeepingState::Keeping => {
                self.weight += WEIGHT;
                if self.weight >= TOO_MUCH {
                    self.stop(now);
                }
            }
            (ConnectionChoice::Trial, ConnectionUse::GivenUp) => self.stop(now),
            (ConnectionChoice::Trial, ConnectionUse::Good) => self.state = KeepingState::Keeping,
            (ConnectionChoice::Trial, ConnectionUse::None) => self.state = KeepingState::Trying { is_under_way: false },
            (ConnectionChoice::Kept, ConnectionUse::Good) => {
                self.weight = self.weight.saturating_sub(1);
                if self.weight == 0 {
                    self.pause = PAUSE;
                }
            }
            (ConnectionChoice::Kept, ConnectionUse::GivenUp | ConnectionUse::None) | (ConnectionChoice::Fresh, _) => {}
        }
    }

    fn stop(&mut self, now: Instant) {
        tracing::debug!(pause = ?self.pause, "the other side gives up kept connections: each call gets its own for a while");
        self.state = KeepingState::Paused { until: now + self.pause };
        self.weight = WEIGHT;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls one after the other, this long apart, to a server that gives each connection up at its nth call: calls, and those that were lost.
    fn served(nth: u32, apart: Duration, calls: u32) -> (u32, u32) {
        let (mut keeping, mut now) = (Keeping::default(), Instant::now());
        // Calls that the kept connection has carried.
        let (mut carried, mut lost, mut fresh) = (0, 0, 0);
        for _ in 0..calls {
            now += apart;
            let way = keeping.way(now);
            let came = match way {
                ConnectionChoice::Fresh => ConnectionUse::None,
                ConnectionChoice::Kept | ConnectionChoice::Trial => {
                    carried += 1;
                    match carried {
                        1 => ConnectionUse::None,
                        _ if carried == nth => ConnectionUse::GivenUp,
                        _ => ConnectionUse::Good,
                    }
                }
            };
            fresh += u32::from(way == ConnectionChoice::Fresh);
            if came == ConnectionUse::GivenUp {
                (carried, lost) = (0, lost + 1);
            }
            keeping.used(way, came, now);
        }
        (fresh, lost)
    }

    #[test]
    fn few_calls_are_lost_to_connections_that_are_given_up_however_it_is_done() {
        const CALLS: u32 = 8_000;
        for nth in 2..400 {
            let (fresh, lost) = served(nth, Duration::from_millis(5), CALLS);
            assert!(lost <= CALLS / 50 + 2, "given up at call {nth}: {lost}");
            assert!(fresh == 0 || nth <= 52, "kept for {nth} calls, they are worth it: {fresh}");
        }
        assert_eq!(served(u32::MAX, Duration::from_millis(5), CALLS), (0, 0));
    }

    #[test]
    fn the_pause_doubles_and_one_call_at_a_time_finds_out_whether_it_is_over() {
        let mut now = Instant::now();
        let mut keeping = Keeping::default();
        for _ in 0..5 {
            assert_eq!(keeping.way(now), ConnectionChoice::Kept);
        }
        for _ in 0..5 {
            keeping.used(ConnectionChoice::Kept, ConnectionUse::GivenUp, now);
        }
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(keeping.way(now), ConnectionChoice::Fresh);
            now += Duration::from_secs(pause);
            assert_eq!(keeping.way(now - Duration::from_millis(1)), ConnectionChoice::Fresh, "{pause}");
            assert_eq!((keeping.way(now), keeping.way(now)), (ConnectionChoice::Trial, ConnectionChoice::Fresh));
            keeping.used(ConnectionChoice::Trial, ConnectionUse::None, now);
            assert_eq!(
                (keeping.way(now), keeping.way(now)),
                (ConnectionChoice::Trial, ConnectionChoice::Fresh),
                "the first one makes the connection"
            );
            keeping.used(ConnectionChoice::Kept, ConnectionUse::GivenUp, now);
            keeping.used(ConnectionChoice::Trial, ConnectionUse::GivenUp, now);
        }
        now += PAUSE_MAX;
        assert_eq!(keeping.way(now), ConnectionChoice::Trial);
        keeping.used(ConnectionChoice::Trial, ConnectionUse::Good, now);
        for _ in 0..WEIGHT {
            assert_eq!(keeping.way(now), ConnectionChoice::Kept);
            keeping.used(ConnectionChoice::Kept, ConnectionUse::Good, now);
        }
        keeping.used(ConnectionChoice::Kept, ConnectionUse::GivenUp, now);
        assert_eq!(keeping.way(now), ConnectionChoice::Kept, "all is forgotten");
        keeping.used(ConnectionChoice::Kept, ConnectionUse::GivenUp, now);
        assert_eq!(keeping.way(now + PAUSE), ConnectionChoice::Trial);
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
            assert!(!tokio::spawn(async move { carried.note() }).await.unwrap(), "each is new");
        }
        gate.notify_one();
        assert_eq!(kept.await.unwrap(), (false, true, true));
        let seen = carriers.0.lock().unwrap();
        assert!(seen.young.len() + seen.old.len() <= 2 * REMEMBERED);
    }
}
