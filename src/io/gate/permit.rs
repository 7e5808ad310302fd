//! The right to send one request. Counters tell the gate when a permit was used or dropped.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::domain::verdict::Departure;
use crate::io::quota::Ticket;

/// A request that is written within this time after its grant already had a connection. Chosen: shorter than connecting over any network.
const PROMPT: Duration = Duration::from_millis(5);

/// A callback that runs right before a request is written, on the sender's own task. It must be fast.
#[derive(Clone, Default)]
pub struct OnSend(Option<Arc<dyn Fn() + Send + Sync>>);

impl OnSend {
    #[must_use]
    pub fn new(tell: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(tell)))
    }

    fn tell(&self) {
        if let Some(tell) = &self.0 {
            tell();
        }
    }
}

impl fmt::Debug for OnSend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnSend").field(&self.0.is_some()).finish()
    }
}

/// The right to send one request. It travels with the request.
#[derive(Debug)]
pub struct Permit {
    counts: Arc<PermitCounts>,
    on_send: OnSend,
    granted_at: Instant,
    /// The slot of the shared quota, if there is one.
    ticket: Option<Ticket>,
    state: PermitState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PermitState {
    Granted,
    Sent,
}

impl Permit {
    pub(super) fn new(counts: &Arc<PermitCounts>, on_send: &OnSend, ticket: Option<Ticket>, now: Instant) -> Self {
        Self { counts: Arc::clone(counts), on_send: on_send.clone(), granted_at: now, ticket, state: PermitState::Granted }
    }

    /// Must be called when the request is handed to the socket. It must not be if the permit is void: this process was stopped, or the
    /// store of the shared quota is lost.
    pub fn mark_sent(&mut self) -> Departure {
        if self.state == PermitState::Granted {
            if self.ticket.as_mut().is_some_and(|ticket| ticket.uses(Instant::now()) == Departure::Void) {
                return Departure::Void;
            }
            self.state = PermitState::Sent;
            self.on_send.tell();
            if self.granted_at.elapsed() < PROMPT {
                self.counts.prompt.fetch_add(1, Ordering::AcqRel);
            }
            self.counts.sent.fetch_add(1, Ordering::AcqRel);
            self.counts.changed.notify_one();
        }
        Departure::Leaves
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.state == PermitState::Granted {
            self.counts.released.fetch_add(1, Ordering::AcqRel);
            self.counts.changed.notify_one();
        }
    }
}

/// How many permits were used or dropped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reported {
    pub(super) sent: u32,
    /// The permits in `sent` whose request did not wait for a connection.
    pub(super) prompt: u32,
    pub(super) released: u32,
}

/// Counters of the permits since the gate looked at them last.
#[derive(Debug, Default)]
pub(super) struct PermitCounts {
    sent: AtomicU32,
    prompt: AtomicU32,
    released: AtomicU32,
    changed: Notify,
}

impl PermitCounts {
    /// Returns the counts since the last call and resets them.
    pub(super) fn take(&self) -> Reported {
        let take = |count: &AtomicU32| count.swap(0, Ordering::AcqRel);
        Reported { sent: take(&self.sent), prompt: take(&self.prompt), released: take(&self.released) }
    }

    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}
