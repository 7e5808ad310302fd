//! From one process to the next: the gates open when a second has passed since the last call of the one before.

use std::time::{Duration, Instant, SystemTime};

use crate::gate::{Headroom, OnSend, Settings};
use crate::journal::LastCalls;

/// How long a process waits that can't know whether another one was killed right before it. Source: the contract of the pace.
const UNKNOWN: Duration = Duration::from_millis(1_050);

/// The gates of a run with a lock file.
pub(super) fn gates(last_calls: LastCalls, headroom: Headroom) -> Settings {
    let opens_at = tokio::time::Instant::now() + last_calls.wait(SystemTime::now());
    Settings { headroom, opens_at: Some(opens_at), on_send: OnSend::new(move || last_calls.leaves(Instant::now())) }
}

/// The gates of a run without one.
pub(super) fn unknown(headroom: Headroom) -> Settings {
    Settings { headroom, opens_at: Some(tokio::time::Instant::now() + UNKNOWN), on_send: OnSend::default() }
}
