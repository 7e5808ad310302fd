//! Records when the last request of a run left, as the modification time of its lock file, which survives a kill.
//!
//! The time is never synced: it matters for one second only, to a process that starts on the same machine.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// The time is set at most this often. Source: the contract of the pace.
const EVERY: Duration = Duration::from_millis(50);
/// No request leaves within this time after the recorded one. Source: the limit's second, plus the 50 ms by which the record may lag.
const QUIET: Duration = Duration::from_millis(1_050);

/// Reads and sets the modification time of a run's lock file.
#[derive(Debug)]
pub struct LastCalls {
    path: PathBuf,
    /// The latest time at which an earlier process may have sent a request; `None` if there was no lock file.
    found: Option<SystemTime>,
    set: Mutex<LastSet>,
}

#[derive(Debug, Default)]
struct LastSet {
    at: Option<Instant>,
    file: Option<File>,
}

impl LastCalls {
    /// Reads the time. This must happen before the lock is taken, since locking may create the file.
    #[must_use]
    pub fn find(lock: &Path) -> Self {
        let found = std::fs::metadata(lock).and_then(|stat| stat.modified()).ok();
        Self { path: lock.to_owned(), found, set: Mutex::default() }
    }

    /// The time that the first request has to wait. A recorded time in the future counts as `now`, because clocks may jump.
    #[must_use]
    pub fn wait(&self, now: SystemTime) -> Duration {
        let Some(found) = self.found else { return Duration::ZERO };
        QUIET.saturating_sub(now.duration_since(found).unwrap_or_default())
    }

    /// Records that a request leaves at `time`. A failure is ignored: it affects only a process that starts within the next second.
    pub fn leaves(&self, now: Instant, time: SystemTime) {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        if set.at.is_some_and(|at| now < at + EVERY) {
            return;
        }
        set.at = Some(now);
        if let Err(error) = set.set_time(&self.path, time) {
            tracing::debug!(%error, "cannot set the time of the lock file");
        }
    }
}

impl LastSet {
    fn set_time(&mut self, path: &Path, time: SystemTime) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(OpenOptions::new().write(true).open(path)?),
        };
        // Only the owner may set a time. Others who may write to the file set it by writing.
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
    fn a_process_waits_until_a_second_after_the_last_request_of_the_one_before_and_no_longer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let now = SystemTime::now();
        assert_eq!(LastCalls::find(&path).wait(now), Duration::ZERO, "there was no earlier process");
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
        // The clock has jumped back.
        check(-1, 1_050);
        check(-3_600_000, 1_050);
    }

    #[test]
    fn the_time_is_set_when_requests_leave_and_at_most_twenty_times_a_second() {
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
