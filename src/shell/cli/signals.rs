//! Handles SIGINT, SIGTERM and SIGHUP for the whole life of a process.
//!
//! A thread of its own receives them. Until [`stops`] is called, a signal ends the process at once, which is as safe as a kill: temporary
//! files of a run that has not started are removed, and what a command does at its end is done. After that the run gets the signals: it
//! lets requests in flight finish and commits. Once the end of the command has begun, signals only shorten it. The third signal ends the
//! process all the same.
//!
//! The main thread works until the very end. So whatever would begin something is held up once the process is ending, files are removed
//! last, and the lock of a process that may be sending stays in place: another process that found the name free would start beside it.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::task::{Context, Poll};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use futures_util::stream::{LocalBoxStream, Stream, StreamExt, unfold};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::shell::exit::{Exit, ExitMessage};
use crate::shell::screen::bars;

/// Signals that a run handles itself: the first lets the requests in flight finish, the second stops at once.
const HANDLED_MAX: u32 = 2;
/// How long writing the exit message may take. Chosen: a reader of stderr reads at once, or not at all.
const EXIT_MESSAGE_MAX: Duration = Duration::from_secs(1);

static HANDLER: Mutex<SignalHandler> = Mutex::new(SignalHandler::NEW);

/// What is done if a signal ends a command early: it says the last word. The program that it returns takes the place of this process, which
/// releases all locks.
pub(super) type EarlyEnd = Box<dyn FnOnce(ExitMessage) -> Option<Command> + Send>;

/// The state of the signal handler.
struct SignalHandler {
    /// Signals so far.
    count: u32,
    first: Option<(Instant, Received)>,
    /// Processes that must not outlive this one.
    group: Option<Pid>,
    /// Counts the signals for the run; `None` until a run handles them.
    signals: Option<watch::Sender<u32>>,
    /// The end of the command has begun.
    is_concluding: bool,
    /// The thread that ends the process because of a signal. All others are held up.
    ends_on: Option<ThreadId>,
    early_end: Option<EarlyEnd>,
    /// Files that must be removed if the process ends before its run has started.
    leftovers: BTreeMap<u64, (Use, PathBuf)>,
    next: u64,
}

/// The purpose of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// It holds data for this process only.
    Scratch,
    /// It keeps other processes away.
    Lock,
}

/// Which signal came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// The one of Ctrl-C, which a terminal sends to all processes that belong to what runs on it.
    Interrupt,
    Other,
}

/// What a signal leads to.
enum Effect {
    /// Somebody else heeds it.
    Counted,
    /// The command ends before it has begun.
    EarlyEnd(Option<EarlyEnd>),
    /// The process ends without any more ado.
    AtOnce,
}

impl SignalHandler {
    const NEW: Self = Self {
        count: 0,
        first: None,
        group: None,
        signals: None,
        is_concluding: false,
        ends_on: None,
        early_end: None,
        leftovers: BTreeMap::new(),
        next: 0,
    };

    /// Notes a signal and decides what it leads to.
    fn heed(&mut self, received: Received) -> Effect {
        self.count += 1;
        self.first.get_or_insert_with(|| (Instant::now(), received));
        if self.signals.is_none() && !self.is_concluding {
            self.ends_on = Some(std::thread::current().id());
            return Effect::EarlyEnd(self.early_end.take());
        }
        if self.count > HANDLED_MAX {
            return Effect::AtOnce;
        }
        if let Some(signals) = &self.signals {
            signals.send_modify(|count| *count += 1);
        }
        Effect::Counted
    }

    fn note(&mut self, purpose: Use, path: &Path) -> Leftover {
        let number = self.next;
        self.next += 1;
        self.leftovers.insert(number, (purpose, path.to_owned()));
        Leftover(number)
    }

    /// The files that are removed with the process, in this order. Locks come last, and not at all if a run may be sending. A run that is
    /// about to start has to wait until this handler is unlocked.
    fn to_remove(&self) -> Vec<&Path> {
        let of = |wanted: Use| self.leftovers.values().filter(move |(purpose, _)| *purpose == wanted).map(|(_, path)| path.as_path());
        let locks = of(Use::Lock).filter(|_| self.signals.is_none());
        of(Use::Scratch).chain(locks).collect()
    }
}

fn handler() -> MutexGuard<'static, SignalHandler> {
    HANDLER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The handler for whoever is about to begin something: it never returns on other threads than the one that ends the process.
fn handler_to_go_on() -> MutexGuard<'static, SignalHandler> {
    let handler = handler();
    if handler.ends_on.is_none_or(|thread| thread == std::thread::current().id()) {
        return handler;
    }
    drop(handler);
    loop {
        std::thread::park();
    }
}

/// Sets what is done if a signal ends the command before it handles signals itself.
pub(super) fn at_early_end(steps: EarlyEnd) {
    handler().early_end = Some(steps);
}

/// The command is over and has released its locks: signals only shorten what is still to be done.
pub(super) fn end_begins() {
    handler_to_go_on().is_concluding = true;
}

/// Handles the signals of this process from now on; `end` must end it. If the system refuses a handler, signals keep their default effect.
pub(super) fn watch(end: fn(Exit)) {
    let (ready, is_ready) = mpsc::channel();
    let thread = std::thread::Builder::new().name("signals".to_owned());
    let watching = thread.spawn(move || {
        if let Err(error) = watch_on_this_thread(end, &ready) {
            tracing::warn!(%error, "cannot take signals");
        }
    });
    if watching.is_ok() {
        // An error means that the thread has ended, which it has reported itself.
        let _ = is_ready.recv();
    }
}

fn watch_on_this_thread(end: fn(Exit), ready: &mpsc::Sender<()>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = if is_hangup_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
        // A file that would grow beyond the limit of its size ends a run as a full disk does: the write fails. What is started from here
        // gets the default effect of the signal back.
        let _outgrown = signal(SignalKind::from_raw(Signal::XFSZ.as_raw()))?;
        // This fails only if the receiver is gone, and then nobody waits for it.
        let _ = ready.send(());
        loop {
            let hung_up = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            let received = tokio::select! {
                Some(()) = interrupt.recv() => Received::Interrupt,
                Some(()) = terminate.recv() => Received::Other,
                Some(()) = hung_up => Received::Other,
                else => return Ok(()),
            };
            on_signal(received, end);
        }
    })
}

/// Whether this process was started so as to outlive the terminal (nohup).
fn is_hangup_ignored() -> bool {
    const SIGHUP_BIT: u64 = 1;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & SIGHUP_BIT != 0)
}

fn on_signal(received: Received, end: fn(Exit)) {
    let mut handler = handler();
    let early_end = match handler.heed(received) {
        Effect::Counted => return,
        Effect::EarlyEnd(steps) => steps,
        Effect::AtOnce => {
            print_in_time(&ExitMessage::new(Exit::Stopped, "a third signal came", "the same command continues from what is saved"));
            remove_leftovers(&handler);
            if let Some(group) = handler.group {
                // Whatever has ended by itself needs no signal.
                let _ = kill_process_group(group, Signal::KILL);
            }
            return end(Exit::Stopped);
        }
    };
    let word = ExitMessage::new(Exit::Stopped, "a signal came; nothing was sent", "the same command begins again");
    let Some(steps) = early_end else {
        print_in_time(&word);
        remove_leftovers(&handler);
        return end(Exit::Stopped);
    };
    drop(handler);
    let successor = steps(word);
    // It stays locked until the process has ended.
    let handler = self::handler();
    remove_leftovers(&handler);
    if let Some(mut successor) = successor {
        let error = successor.exec();
        tracing::warn!(%error, "cannot start --on-end");
    }
    end(Exit::Stopped);
}

fn remove_leftovers(handler: &SignalHandler) {
    for leftover in handler.to_remove() {
        // A file that is gone already needs no removal, and other failures can no longer be reported.
        let _ = std::fs::remove_file(leftover);
    }
}

/// Writes the exit message, but does not wait longer than [`EXIT_MESSAGE_MAX`] if standard error is blocked.
pub(super) fn print_in_time(word: &ExitMessage) {
    let (said, is_said) = mpsc::channel();
    let word = word.clone();
    std::thread::spawn(move || {
        bars::end();
        super::say(&word);
        let _ = said.send(());
    });
    let _ = is_said.recv_timeout(EXIT_MESSAGE_MAX);
}

/// This process has taken the place of one that a signal has ended: all that is left to do is its end.
pub(super) fn end_follows_signal() {
    let mut handler = handler();
    handler.is_concluding = true;
    handler.count = 1;
    handler.first = Some((Instant::now(), Received::Other));
}

/// When the first signal came, if one has come.
pub(super) fn first_at() -> Option<Instant> {
    handler().first.map(|(at, _)| at)
}

/// Which signal came first, if one has come.
pub(super) fn first() -> Option<Received> {
    handler().first.map(|(_, received)| received)
}

/// A process group that is killed if a signal ends this process before this is dropped.
#[derive(Debug)]
pub(super) struct Group(());

impl Group {
    pub(super) fn of(group: Pid) -> Self {
        handler().group = Some(group);
        Self(())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        handler().group = None;
    }
}

/// A file that is removed if a signal ends the process before this is dropped.
#[derive(Debug)]
pub(super) struct Leftover(u64);

impl Leftover {
    pub(super) fn of(path: &Path) -> Self {
        handler_to_go_on().note(Use::Scratch, path)
    }

    /// Takes a lock by calling `take`, which may create the lock file at `path`. No signal can end the process between that and the
    /// registration of the file.
    pub(super) fn of_lock<T, E>(
        path: &Path,
        take: impl FnOnce() -> Result<T, E>,
        is_made: impl FnOnce(&T) -> bool,
    ) -> Result<(T, Option<Self>), E> {
        // A signal has to wait until the handler is unlocked.
        let mut handler = handler_to_go_on();
        let taken = take()?;
        let leftover = is_made(&taken).then(|| handler.note(Use::Lock, path));
        Ok((taken, leftover))
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        handler().leftovers.remove(&self.0);
    }
}

/// A stream with an item for each signal from now on; the first two signals no longer end the process.
pub(super) fn stops() -> LocalBoxStream<'static, ()> {
    let mut handler = handler_to_go_on();
    let signals = handler.signals.get_or_insert_with(|| watch::channel(0).0);
    let (signals, taken) = (signals.subscribe(), *signals.borrow());
    let next = |(mut signals, taken): (watch::Receiver<u32>, u32)| async move {
        signals.wait_for(|count| *count > taken).await.ok()?;
        Some(((), (signals, taken + 1)))
    };
    unfold((signals, taken), next).boxed_local()
}

/// One stream of signals for a run of several phases, so that a signal between two phases is not lost.
#[derive(Clone)]
pub(super) struct Stops(std::rc::Rc<std::cell::RefCell<LocalBoxStream<'static, ()>>>);

impl Stops {
    pub(super) fn new() -> Self {
        Self(std::rc::Rc::new(std::cell::RefCell::new(stops())))
    }
}

impl Stream for Stops {
    type Item = ();

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<()>> {
        self.0.borrow_mut().poll_next_unpin(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_go_last_and_only_while_nothing_can_be_sent() {
        let mut handler = SignalHandler::NEW;
        // Dropping the registrations would look for the handler of this process.
        std::mem::forget(handler.note(Use::Lock, Path::new("users.state.lock")));
        std::mem::forget(handler.note(Use::Scratch, Path::new(".summary.json.tmp")));
        assert_eq!(handler.to_remove(), [Path::new(".summary.json.tmp"), Path::new("users.state.lock")]);
        handler.signals = Some(watch::channel(0).0);
        assert_eq!(handler.to_remove(), [Path::new(".summary.json.tmp")]);
    }
}
