//! Records when the requests of a run left, as the time of its lock file, which survives a kill.
//!
//! The time is never synced: it is useful for one second only, to a process that starts on the same machine.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// The time is set at most this often. Source: the contract of the pace.
const EVERY: Duration = Duration::from_millis(50);
/// No call leaves within this time after the one that was found: a second, and what the time may lag behind the last call.
const QUIET: Duration = Duration::from_millis(1_050);

/// The lock file of a run, as far as its time goes.
#[derive(Debug)]
pub struct LastCalls {
    path: PathBuf,
    /// When calls of an earlier process left at the latest; `None` if there was no file.
    found: Option<SystemTime>,
    set: Mutex<LastSet>,
}

#[derive(Debug, Default)]
struct LastSet {
    at: Option<Instant>,
    file: Option<File>,
}

impl LastCalls {
    /// Looks at the lock file; to be done before the lock is taken, which may create it.
    #[must_use]
    pub fn find(lock: &Path) -> Self {
        let found = std::fs::metadata(lock).and_then(|stat| stat.modified()).ok();
        Self { path: lock.to_owned(), found, set: Mutex::default() }
    }

    /// How long the first call has to wait, if it is `now`. A time in the future counts as now: clocks jump.
    #[must_use]
    pub fn wait(&self, now: SystemTime) -> Duration {
        let Some(found) = self.found else { return Duration::ZERO };
        QUIET.saturating_sub(now.duration_since(found).unwrap_or_default())
    }

    /// A call leaves now, and that is the time. What cannot be recorded is no reason to stop: only a process that starts within a second would miss it.
    pub fn leaves(&self, now: Instant, time: SystemTime) {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        if set.at.is_some_and(|at| now < at + EVERY) {
            return;
        }
        set.at = Some(now);
        if let Err(error) = set.set_time(&self.path, time) {
            tracing::debug!(%error, "the time of the lock file cannot be set");
        }
    }
}

impl LastSet {
    fn set_time(&mut self, path: &Path, time: SystemTime) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(OpenOptions::new().write(true).open(path)?),
        };
        // Only the owner may set a time; whoever may write sets it by writing.
        file.set_modified(time).or_else(|_| file.write_all_at(b"\n", 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modified(path: &Path) -> SystemTime {
        std::fs::metadata(path).unwrap().modified().unwrap()
    }

    #[test]
    fn a_process_waits_until_a_second_after_the_last_call_of_the_one_before_and_never_longer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let now = SystemTime::now();
        assert_eq!(LastCalls::find(&path).wait(now), Duration::ZERO, "there was no process before");
        let file = File::create(&path).unwrap();
        let check = |ago_ms: i64, expected_ms: u64| {
            let ago = Duration::from_millis(ago_ms.unsigned_abs());
            file.set_modified(if ago_ms < 0 { now + ago } else { now - ago }).unwrap();
            assert_eq!(LastCalls::find(&path).wait(now), Duration::from_millis(expected_ms), "{ago_ms}");
        };
        check(0, 1_050);
        check(400, 650);
        check(1_049, 1);
        check(1_050, 0);
        check(3_600_000, 0);
        // A clock that has jumped back.
        check(-1, 1_050);
        check(-3_600_000, 1_050);
    }

    #[test]
    fn the_time_is_set_when_calls_leave_and_at_most_twenty_times_a_second() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let file = File::create(&path).unwrap();
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let calls = LastCalls::find(&path);
        let start = Instant::now();
        let mut set = 0;
        for ms in 0..1_000 {
            file.set_modified(long_ago).unwrap();
            calls.leaves(start + Duration::from_millis(ms), SystemTime::now());
            set += u32::from(modified(&path) != long_ago);
        }
        assert_eq!(set, 20);
    }
}
