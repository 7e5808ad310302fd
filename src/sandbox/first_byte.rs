//! When a request's first byte arrived. That time counts, and not the one at which the request's head has been read to its end: heads of
//! several connections are read one after the other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// The first byte of the request that a connection is reading.
#[derive(Debug, Clone, Default)]
pub(super) struct FirstByte(Arc<Mutex<HeadState>>);

#[derive(Debug, Default)]
enum HeadState {
    /// No byte of the next request has come.
    #[default]
    Awaited,
    Arriving {
        since: Instant,
    },
    /// The head is read; what comes now is the body.
    Read,
}

impl FirstByte {
    /// Bytes have come.
    pub(super) fn note_bytes(&self, now: Instant) {
        let mut state = self.state();
        if matches!(*state, HeadState::Awaited) {
            *state = HeadState::Arriving { since: now };
        }
    }

    /// The head is read. Returns when its first byte arrived.
    pub(super) fn arrived(&self) -> Instant {
        match std::mem::replace(&mut *self.state(), HeadState::Read) {
            HeadState::Arriving { since } => since,
            // It came together with the end of the request before.
            HeadState::Awaited | HeadState::Read => Instant::now(),
        }
    }

    /// The request is answered.
    pub(super) fn await_next(&self) {
        *self.state() = HeadState::Awaited;
    }

    fn state(&self) -> MutexGuard<'_, HeadState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
