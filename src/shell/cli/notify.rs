//! Tells systemd how a run stands, where it asks for that (`Type=notify`, NOTIFY_SOCKET): that it is ready, what it does, and that it is
//! alive.
//!
//! A thread of its own sends, so that planning and finishing are covered as well. It stops to say that the run is alive when the run's
//! loop stands still.

use std::sync::mpsc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::environment;

/// How often to send at most. Chosen: a person who looks sees it move.
const SEND_EVERY: Duration = Duration::from_millis(500);
/// How long a message of the main thread may take. Chosen: a listener reads at once, or not at all.
const SENT_WITHIN: Duration = Duration::from_secs(1);
/// Signs of life within systemd's time. Source: its documentation recommends half of the time; a third leaves room for a busy machine.
const SIGNS_WITHIN_TIME: u32 = 3;
/// A loop that has not come round for so long stands still. Chosen: it comes round four times a second.
const STANDS_STILL_AFTER: Duration = Duration::from_secs(30);

/// What the thread sends; `None` where nobody listens.
static TOLD_STATE: Mutex<Option<ToldState>> = Mutex::new(None);

struct ToldState {
    words: String,
    /// When the run's loop came round last; `None` while it is not running.
    came_round: Option<Instant>,
}

fn told_state() -> MutexGuard<'static, Option<ToldState>> {
    TOLD_STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says that the command is ready, and begins to tell how it stands.
pub(super) fn begin(words: &str) {
    if environment("NOTIFY_SOCKET").is_none() {
        return;
    }
    *told_state() = Some(ToldState { words: words.to_owned(), came_round: None });
    let sent = words.to_owned();
    send_in_time(move || send(&[NotifyState::Ready, NotifyState::Status(&sent)]));
    let sent = words.to_owned();
    let thread = std::thread::Builder::new().name("notify".to_owned());
    if let Err(error) = thread.spawn(move || keep_telling(sent)) {
        tracing::warn!(%error, "cannot tell systemd how the run stands");
    }
}

/// The run's loop has come round; `words` say how the run stands.
pub(super) fn came_round(words: impl FnOnce() -> String) {
    if let Some(state) = &mut *told_state() {
        (state.words, state.came_round) = (words(), Some(Instant::now()));
    }
}

/// A part of the command begins that has no loop: planning, finishing.
pub(super) fn does(words: &str) {
    if let Some(state) = &mut *told_state() {
        words.clone_into(&mut state.words);
        state.came_round = None;
    }
}

/// The command is over.
pub(super) fn ends() {
    if told_state().is_some() {
        send_in_time(|| send(&[NotifyState::Stopping]));
    }
}

/// Sends on another thread, and does not wait for it longer than [`SENT_WITHIN`]: whoever listens may not be reading.
fn send_in_time(message: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        message();
        // The receiver may have stopped waiting.
        let _ = done.send(());
    });
    let _ = is_done.recv_timeout(SENT_WITHIN);
}

fn keep_telling(mut sent: String) {
    let within = sd_notify::watchdog_enabled().map(|time| time / SIGNS_WITHIN_TIME);
    let pause = within.map_or(SEND_EVERY, |within| within.min(SEND_EVERY));
    loop {
        std::thread::park_timeout(pause);
        let Some((words, is_alive)) = told_state().as_ref().map(|state| {
            let stands_still = state.came_round.is_some_and(|at| at.elapsed() > STANDS_STILL_AFTER);
            (state.words.clone(), !stands_still)
        }) else {
            return;
        };
        if words != sent {
            send(&[NotifyState::Status(&words)]);
            sent = words;
        }
        if within.is_some() && is_alive {
            send(&[NotifyState::Watchdog]);
        }
    }
}

fn send(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "cannot tell systemd how the run stands");
    }
}
