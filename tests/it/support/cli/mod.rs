//! Runs the real binary in a folder and an environment of its own, and searches for secrets after every run.

mod call;
mod run;
mod running;
mod secrets;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;

use super::server::Server;
pub(crate) use call::Call;
pub(crate) use run::{Row, Run};
pub(crate) use running::Running;

/// The key that signs in every run and that no run may show. It has characters that other encodings change.
pub(crate) const KEY: &str = "SENTINEL/5bd2850fff3ecb11d7c805251c51ee463a25727bddc2385f3fa8bfee1bb93b5e+=";
pub(crate) const SDKAPPID: &str = "1400000000";
/// A run that takes longer is killed and fails the test. Chosen: the longest take some seconds, and a machine may be far slower.
const RUN_MAX: Duration = Duration::from_secs(240);
/// How often to check whether something has happened.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The age of an input as a test writes it. Chosen: far more than the second for which a process waits for the rest of a last line.
const INPUT_AGE: Duration = Duration::from_secs(60);

/// The number of runs, so that every second one logs as JSON.
static RUNS: AtomicUsize = AtomicUsize::new(0);

/// A folder for runs, with a key beside it.
pub(crate) struct CliFixture {
    folder: TempDir,
    /// A second folder for key and output, which are no files of the run.
    outside: TempDir,
    outputs: Cell<usize>,
}

impl CliFixture {
    pub(crate) fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap(), outside: tempfile::tempdir().unwrap(), outputs: Cell::new(0) };
        fs::write(bench.key(), format!("{KEY}\n")).unwrap();
        fs::set_permissions(bench.key(), fs::Permissions::from_mode(0o600)).unwrap();
        bench
    }

    /// A fixture with an input `users.csv` of this many accounts, `user1` and so on.
    pub(crate) fn with_users(count: u64) -> Self {
        let bench = Self::new();
        bench.write("users.csv", users(count));
        bench
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.outside.path().join("key")
    }

    /// A path that is not searched for secrets, for files into which the test itself writes them.
    pub(crate) fn outside(&self, name: &str) -> PathBuf {
        self.outside.path().join(name)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file as if a minute ago (see [`write_a_minute_ago`]).
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        write_a_minute_ago(&self.path(name), text);
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}; there are {:?}", self.names()))
    }

    pub(crate) fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.path(name)).unwrap().permissions().mode() & 0o777
    }

    /// The names of the files in the folder.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Sets the times of the lock files, which stand for the last requests, far back.
    fn ages_last_calls(&self) {
        for path in self.names().iter().map(|name| self.path(name)).filter(|path| path.extension() == Some(OsStr::new("lock"))) {
            // If the time cannot be set, the process waits.
            let _ = File::open(path).and_then(|lock| lock.set_modified(SystemTime::UNIX_EPOCH));
        }
    }

    /// All files with their contents.
    pub(crate) fn contents(&self) -> Vec<(String, Vec<u8>)> {
        // A running process may rename a file between listing and reading.
        self.names().into_iter().filter_map(|name| fs::read(self.path(&name)).ok().map(|bytes| (name, bytes))).collect()
    }

    /// The same without the summary, which every end writes anew.
    pub(crate) fn contents_but_summary(&self) -> Vec<(String, Vec<u8>)> {
        self.contents().into_iter().filter(|(name, _)| name != "summary.json").collect()
    }

    /// A command with these arguments. If it sends requests, it finds that the last process on these files sent its last one long ago.
    pub(crate) fn call<'a>(&'a self, args: &[&str]) -> Call<'a> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chatlift"));
        command.env_clear().current_dir(self.folder.path()).args(args).stdin(Stdio::null());
        let stem = "users".to_owned();
        Call { bench: self, command, usual: &[], stdin: None, server: None, shows_key: false, is_soon_after: false, stem }
    }

    /// An import of `users.csv` into the server.
    pub(crate) fn import<'a>(&'a self, server: &'a Server) -> Call<'a> {
        self.import_of("users.csv", server)
    }

    pub(crate) fn import_of<'a>(&'a self, file: &str, server: &'a Server) -> Call<'a> {
        Call { server: Some(server), ..self.import_into(file, &server.endpoint()) }
    }

    pub(crate) fn import_into(&self, file: &str, endpoint: &str) -> Call<'_> {
        let format = if RUNS.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) { "json" } else { "text" };
        self.quiet_import_into(file, endpoint).args(&["-vv", "--log-format", format])
    }

    /// The same without the flags for more logs.
    pub(crate) fn quiet_import_into(&self, file: &str, endpoint: &str) -> Call<'_> {
        let key = self.key();
        let call = self.call(&["import", file, "--endpoint", endpoint, "--sdkappid", SDKAPPID, "--summary", "summary.json"]);
        let call = call.args(&["--secret-key-file", key.to_str().unwrap()]);
        Call { stem: file.trim_end_matches(".csv").to_owned(), usual: &["--timeout=20", "--in-flight=16"], ..call }
    }
}

/// Writes a file and dates it back by a minute, since a process waits a second for whoever may still be writing the last line. `cells` proves
/// that wait. A file that is written later is still the younger one.
pub(crate) fn write_a_minute_ago(path: &Path, text: impl AsRef<[u8]>) {
    fs::write(path, text).unwrap();
    File::options().write(true).open(path).unwrap().set_modified(SystemTime::now() - INPUT_AGE).unwrap();
}

/// An input of this many accounts.
pub(crate) fn users(count: u64) -> String {
    (1..=count).fold("UserID,Nick\n".to_owned(), |text, row| text + &format!("user{row},Nick {row}\n"))
}

/// Waits until the condition holds.
pub(crate) fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < RUN_MAX, "it never came to pass: {what}");
        std::thread::park_timeout(LOOK_EVERY);
    }
}
