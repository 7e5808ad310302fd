//! SIGINT, SIGTERM and SIGHUP, from the first line of a process to its last.
//!
//! A thread of its own takes them. As long as nobody has asked for [`stops`], a signal ends the process at once, which is as safe as a kill:
//! what belongs to no run yet is removed. From then on signals go to whoever asked, who lets calls settle and commits; only if the process is
//! still there after two of them does the third one end it.
//!
//! The main thread works until the very end. So files are removed as the last thing of all, and the lock of a process that may be sending is
//! left where it is: whoever found its name free would begin beside it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{LocalBoxStream, Stream, StreamExt, unfold};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::shell::exit::{Exit, ExitMessage};

/// Signals that a run takes itself: the first lets the calls in flight settle, the second does not.
const HEEDED_MAX: u32 = 2;
/// How long the last word may take. Chosen: whoever reads stderr reads at once, or not at all.
const LAST_WORD_MAX: Duration = Duration::from_secs(1);

static DESK: Mutex<SignalDesk> = Mutex::new(SignalDesk { heard: None, leftovers: BTreeMap::new(), next: 0 });

/// What the thread of the signals has to know.
struct SignalDesk {
    /// Counts the signals for whoever takes them; `None` while nobody does.
    heard: Option<watch::Sender<u32>>,
    /// Files that must not outlive a process that has not begun its run.
    leftovers: BTreeMap<u64, (Use, PathBuf)>,
    next: u64,
}

/// What a file is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Its bytes, for this process alone.
    Scratch,
    /// It keeps other processes off.
    Lock,
}

impl SignalDesk {
    fn note(&mut self, purpose: Use, path: &Path) -> Leftover {
        let number = self.next;
        self.next += 1;
        self.leftovers.insert(number, (purpose, path.to_owned()));
        Leftover(number)
    }

    /// The files that go with the process, in this order: locks last, and not at all while a run may be sending. Before that, whoever would
    /// begin one waits for the desk.
    fn goes(&self) -> Vec<&Path> {
        let of = |wanted: Use| self.leftovers.values().filter(move |(purpose, _)| *purpose == wanted).map(|(_, path)| path.as_path());
        let locks = of(Use::Lock).filter(|_| self.heard.is_none());
        of(Use::Scratch).chain(locks).collect()
    }
}

fn desk() -> MutexGuard<'static, SignalDesk> {
    DESK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the signals of this process from now on; `end` ends it. Where the system takes no handler, signals do what they always did.
pub(super) fn watch(end: fn(Exit)) {
    let (ready, is_ready) = mpsc::channel();
    let thread = std::thread::Builder::new().name("signals".to_owned());
    let watching = thread.spawn(move || {
        if let Err(error) = watch_on_this_thread(end, &ready) {
            tracing::warn!(%error, "cannot take signals");
        }
    });
    if watching.is_ok() {
        // An error means that the thread has ended, which it has told.
        let _ = is_ready.recv();
    }
}

fn watch_on_this_thread(end: fn(Exit), ready: &mpsc::Sender<()>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = if is_hangup_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
        // Whoever waits for it has gone if this fails.
        let _ = ready.send(());
        loop {
            let hung_up = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(()) = interrupt.recv() => {}
                Some(()) = terminate.recv() => {}
                Some(()) = hung_up => {}
                else => return Ok(()),
            }
            came(end);
        }
    })
}

/// Whether whoever started this process wants it to outlive the terminal (nohup).
fn is_hangup_ignored() -> bool {
    const SIGHUP_BIT: u64 = 1;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & SIGHUP_BIT != 0)
}

fn came(end: fn(Exit)) {
    let desk = desk();
    if let Some(heard) = &desk.heard {
        let before = *heard.borrow();
        if before < HEEDED_MAX {
            heard.send_modify(|count| *count += 1);
            return;
        }
    }
    let word = match desk.heard {
        None => ExitMessage::new(Exit::Stopped, "a signal came; nothing was sent", "the same command begins again"),
        Some(_) => ExitMessage::new(Exit::Stopped, "a third signal came", "the same command goes on from what is committed"),
    };
    say_in_time(word);
    for leftover in desk.goes() {
        // What is gone needs no removal, and of the rest nobody could be told more.
        let _ = std::fs::remove_file(leftover);
    }
    end(Exit::Stopped);
}

/// Says the last word, unless standard error is stuck.
fn say_in_time(word: ExitMessage) {
    let (said, is_said) = mpsc::channel();
    std::thread::spawn(move || {
        super::say(&word);
        let _ = said.send(());
    });
    let _ = is_said.recv_timeout(LAST_WORD_MAX);
}

/// A file that is removed if a signal ends the process while this lives.
#[derive(Debug)]
pub(super) struct Leftover(u64);

impl Leftover {
    pub(super) fn of(path: &Path) -> Self {
        desk().note(Use::Scratch, path)
    }

    /// Takes the lock that `take` takes, which may have to make the file at `path` for it: no signal ends the process between that and the note of it.
    pub(super) fn of_lock<T, E>(
        path: &Path,
        take: impl FnOnce() -> Result<T, E>,
        is_made: impl FnOnce(&T) -> bool,
    ) -> Result<(T, Option<Self>), E> {
        // Whoever ends the process waits for the desk.
        let mut desk = desk();
        let taken = take()?;
        let leftover = is_made(&taken).then(|| desk.note(Use::Lock, path));
        Ok((taken, leftover))
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        desk().leftovers.remove(&self.0);
    }
}

/// An item for each signal that comes from now on; they no longer end the process at once.
pub(super) fn stops() -> LocalBoxStream<'static, ()> {
    let mut desk = desk();
    let heard = desk.heard.get_or_insert_with(|| watch::channel(0).0);
    let (heard, taken) = (heard.subscribe(), *heard.borrow());
    let next = |(mut heard, taken): (watch::Receiver<u32>, u32)| async move {
        heard.wait_for(|count| *count > taken).await.ok()?;
        Some(((), (heard, taken + 1)))
    };
    unfold((heard, taken), next).boxed_local()
}

/// One stream of stops for a run of several phases: what comes between two of them is not lost.
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
        let mut desk = SignalDesk { heard: None, leftovers: BTreeMap::new(), next: 0 };
        // Notes that are dropped would look for the desk of this process.
        std::mem::forget(desk.note(Use::Lock, Path::new("users.state.lock")));
        std::mem::forget(desk.note(Use::Scratch, Path::new(".summary.json.tmp")));
        assert_eq!(desk.goes(), [Path::new(".summary.json.tmp"), Path::new("users.state.lock")]);
        desk.heard = Some(watch::channel(0).0);
        assert_eq!(desk.goes(), [Path::new(".summary.json.tmp")]);
    }
}
