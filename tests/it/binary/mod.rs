//! Runs the real binary in a folder and an environment of its own, and searches for secrets after every run.

mod beside;
mod secrets;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::hostile::server::Server;
pub(crate) use beside::side_by_side;
use secrets::Secrets;

/// The key that signs in every run and that no run may show. It has characters that other encodings change.
pub(crate) const KEY: &str = "SENTINEL/5bd2850fff3ecb11d7c805251c51ee463a25727bddc2385f3fa8bfee1bb93b5e+=";
pub(crate) const SDKAPPID: &str = "1400000000";
/// A run that takes longer is killed and fails the test. Chosen: the longest take some seconds, and a machine may be far slower.
const RUN_MAX: Duration = Duration::from_secs(240);
/// How often to check whether something has happened.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Commands that send requests.
const SENDERS: [&str; 3] = ["import", "sync", "verify"];
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

/// A command line that is being built.
pub(crate) struct Call<'a> {
    bench: &'a CliFixture,
    command: Command,
    /// Flags that are added unless the test gives them.
    usual: &'static [&'static str],
    stdin: Option<Vec<u8>>,
    server: Option<&'a Server>,
    /// Whether the environment or the output may contain the key, because the test wants it there.
    shows_key: bool,
    is_soon_after: bool,
    stem: String,
}

impl<'a> Call<'a> {
    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.command.args(args);
        self
    }

    /// Sets the flags that are added unless the test gives them.
    pub(crate) fn usually(self, usual: &'static [&'static str]) -> Self {
        Self { usual, ..self }
    }

    /// Removes the rate limit.
    pub(crate) fn at_any_rate(self) -> Self {
        self.args(&["--rate", "0"])
    }

    /// Leaves the time of the last request as the last process on these files has left it, so that this one waits its second out.
    pub(crate) fn soon_after(self) -> Self {
        Self { is_soon_after: true, ..self }
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.shows_key |= name == "CHATLIFT_SECRET_KEY" || name == "CHATLIFT_USERSIG";
        self.command.env(name, value.as_ref());
        self
    }

    pub(crate) fn stdin(self, text: &(impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { stdin: Some(text.as_ref().to_owned()), ..self }
    }

    /// Sets the name of the results if they are not named after the input.
    pub(crate) fn stem(self, stem: &str) -> Self {
        Self { stem: stem.to_owned(), ..self }
    }

    /// Adds the server's UserSigs to the search for secrets.
    pub(crate) fn against(self, server: &'a Server) -> Self {
        Self { server: Some(server), ..self }
    }

    pub(crate) fn run(self) -> Run {
        self.start().wait()
    }

    /// Runs the command in a shell that sets limits first.
    pub(crate) fn through_shell(self, limits: &str) -> Self {
        self.through("/bin/sh", &["-c", &format!("{limits}; exec \"$0\" \"$@\"")])
    }

    /// Runs the command by another program, which replaces itself by it.
    pub(crate) fn through(mut self, program: &str, args: &[&str]) -> Self {
        let mut outer = Command::new(program);
        outer.args(args).arg(self.command.get_program()).args(self.command.get_args());
        outer.env_clear().current_dir(self.bench.folder.path()).stdin(Stdio::null());
        self.command = outer;
        self
    }

    pub(crate) fn start(mut self) -> Running<'a> {
        let given: BTreeSet<_> = self.command.get_args().map(ToOwned::to_owned).collect();
        let is_given = |flag: &str| flag.split_once('=').is_some_and(|(name, _)| given.contains(OsStr::new(name)));
        self.command.args(self.usual.iter().filter(|flag| !is_given(flag)));
        if !self.is_soon_after && given.iter().any(|arg| SENDERS.iter().any(|command| arg == command)) {
            self.bench.ages_last_calls();
        }
        let number = self.bench.outputs.replace(self.bench.outputs.get() + 1);
        let output = |name: &str| self.bench.outside.path().join(format!("{number}.{name}"));
        let (stdout, stderr) = (output("stdout"), output("stderr"));
        if let Some(text) = &self.stdin {
            fs::write(output("stdin"), text).unwrap();
            self.command.stdin(File::open(output("stdin")).unwrap());
        }
        self.command.stdout(File::create(&stdout).unwrap()).stderr(File::create(&stderr).unwrap());
        let child = self.command.spawn().unwrap();
        let Self { bench, server, shows_key, stem, .. } = self;
        Running { bench, server, shows_key, stem, child, stdout, stderr, began: Instant::now(), has_ended: false }
    }
}

/// A running process. It is killed when this is dropped.
pub(crate) struct Running<'a> {
    bench: &'a CliFixture,
    server: Option<&'a Server>,
    shows_key: bool,
    stem: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    began: Instant,
    has_ended: bool,
}

impl Running<'_> {
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the process handles signals itself. Before that, a signal ends it as any process.
    pub(crate) fn takes_signals(&self) {
        const TERM_BIT: u64 = 1 << 14;
        let status = Path::new("/proc").join(self.id().to_string()).join("status");
        eventually("it takes signals", || {
            let text = fs::read_to_string(&status).unwrap_or_default();
            let taken = text.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            taken.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & TERM_BIT != 0)
        });
    }

    /// Whether the process has this file of its folder open.
    pub(crate) fn has_open(&self, name: &str) -> bool {
        let opened = fs::read_dir(Path::new("/proc").join(self.id().to_string()).join("fd")).into_iter().flatten();
        opened.filter_map(Result::ok).any(|entry| fs::read_link(entry.path()).is_ok_and(|file| file == self.bench.path(name)))
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap()).into_owned()
    }

    /// The same as [`Self::wait`], and returns the most memory that the process used, in KiB.
    pub(crate) fn wait_with_peak(self) -> (Run, u64) {
        let status = Path::new("/proc").join(self.child.id().to_string()).join("status");
        let peak = Cell::new(0);
        let run = self.wait_looking(|| {
            let text = fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
            peak.set(line.trim().trim_end_matches(" kB").parse().unwrap_or(peak.get()));
        });
        (run, peak.get())
    }

    /// Waits for the end, searches for secrets, and reads the files of the run.
    pub(crate) fn wait(self) -> Run {
        self.wait_looking(|| ())
    }

    fn wait_looking(mut self, look: impl Fn()) -> Run {
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            self.look_into_process();
            look();
            if self.began.elapsed() > RUN_MAX {
                self.child.kill().unwrap();
                panic!("it does not end: {}", self.stderr());
            }
            std::thread::park_timeout(LOOK_EVERY);
        };
        self.has_ended = true;
        assert_eq!(self.server.map(Server::wrong).unwrap_or_default(), Vec::<String>::new(), "calls are as documented");
        let secrets = self.secrets();
        let (stdout, stderr) = (fs::read(&self.stdout).unwrap(), fs::read(&self.stderr).unwrap());
        if !self.shows_key {
            secrets.must_not_be_in("stdout", &stdout);
        }
        secrets.must_not_be_in("stderr", &stderr);
        for (name, bytes) in self.bench.contents() {
            secrets.must_not_be_in(&name, &bytes);
        }
        let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
        Run {
            code: status.code(),
            signal: status.signal(),
            stdout: text(stdout),
            stderr: text(stderr),
            rows: rows(&self.bench.path(&format!("{}.results.csv", self.stem))),
            rejects: fs::read_to_string(self.bench.path(&format!("{}.rejects.csv", self.stem))).ok(),
            checkpoint: json(&self.bench.path(&format!("{}.checkpoint.json", self.stem))),
            summary: json(&self.bench.path("summary.json")),
            took: self.began.elapsed(),
        }
    }

    fn secrets(&self) -> Secrets {
        Secrets::new(KEY, &self.server.map(Server::usersigs).unwrap_or_default())
    }

    /// Checks everything that other users of the machine could see of the process.
    fn look_into_process(&self) {
        let secrets = self.secrets();
        let process = Path::new("/proc").join(self.child.id().to_string());
        if let Ok(limits) = fs::read_to_string(process.join("limits"))
            && self.server.is_some_and(|server| server.calls() > 0)
        {
            let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap_or_default();
            // A process that has ended has no limits any more.
            assert!(cores.is_empty() || cores.split_whitespace().nth(4) == Some("0"), "a core dump would hold the key: {cores}");
        }
        if let Ok(cmdline) = fs::read(process.join("cmdline")) {
            secrets.must_not_be_in("argv", &cmdline);
        }
        if let Ok(environ) = fs::read(process.join("environ"))
            && !self.shows_key
        {
            secrets.must_not_be_in("the environment", &environ);
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Waits until the condition holds.
pub(crate) fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < RUN_MAX, "it never came to pass: {what}");
        std::thread::park_timeout(LOOK_EVERY);
    }
}

/// A line of the results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) number: u64,
    pub(crate) line: u64,
    pub(crate) user_id: String,
    pub(crate) status: String,
    pub(crate) error_code: String,
    pub(crate) error_info: String,
    pub(crate) attempts: u32,
    pub(crate) finished_at: String,
}

fn rows(path: &Path) -> Vec<Row> {
    let Ok(mut results) = csv::Reader::from_path(path) else { return Vec::new() };
    // A killed process may have left an incomplete line, which the checkpoint does not count.
    let whole = results.records().map_while(Result::ok);
    whole
        .map(|record| Row {
            number: record[0].parse().unwrap(),
            line: record[1].parse().unwrap(),
            user_id: record[2].to_owned(),
            status: record[3].to_owned(),
            error_code: record[4].to_owned(),
            error_info: record[5].to_owned(),
            attempts: record[6].parse().unwrap(),
            finished_at: record[7].to_owned(),
        })
        .collect()
}

fn json(path: &Path) -> serde_json::Value {
    fs::read(path).map(|bytes| serde_json::from_slice(&bytes).expect("it is JSON")).unwrap_or_default()
}

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) rows: Vec<Row>,
    pub(crate) rejects: Option<String>,
    pub(crate) checkpoint: serde_json::Value,
    pub(crate) summary: serde_json::Value,
    pub(crate) took: Duration,
}

impl Run {
    /// The run must end with this code, one line with the reason and one with a hint.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        let whys = ["done: ", "finished: ", "stopped: ", "error: "];
        assert_eq!(self.stderr.lines().filter(|line| whys.iter().any(|why| line.starts_with(why))).count(), 1, "{}", self.stderr);
        assert_eq!(self.stderr.lines().filter(|line| line.starts_with("hint: ")).count(), 1, "{}", self.stderr);
        self
    }

    /// The line with the reason must contain these words.
    #[track_caller]
    pub(crate) fn because(self, words: &str) -> Self {
        assert!(self.why().contains(words), "{words:?} is not in {:?}", self.why());
        self
    }

    #[track_caller]
    pub(crate) fn hints(self, words: &str) -> Self {
        let hint = self.stderr.lines().find(|line| line.starts_with("hint: ")).unwrap_or_default();
        assert!(hint.contains(words), "{words:?} is not in {hint:?}");
        self
    }

    pub(crate) fn why(&self) -> &str {
        let lines: Vec<&str> = self.stderr.lines().collect();
        let hint = lines.iter().position(|line| line.starts_with("hint: ")).unwrap_or(lines.len());
        lines.get(hint.wrapping_sub(1)).copied().unwrap_or_default()
    }

    /// Each of this many rows must have a line, in order, and be imported.
    #[track_caller]
    pub(crate) fn imports_all(self, count: u64) -> Self {
        let run = self.settles(count);
        let others: Vec<_> = run.rows.iter().filter(|row| row.status != "imported").collect();
        assert!(others.is_empty(), "{others:?}");
        run
    }

    /// Each of this many rows must have a line, in order.
    #[track_caller]
    pub(crate) fn settles(self, count: u64) -> Self {
        assert!(
            self.rows.iter().map(|row| row.number).eq(1..=count),
            "{:?}\n{}",
            self.rows.iter().map(|row| row.number).collect::<Vec<_>>(),
            self.stderr
        );
        self
    }

    pub(crate) fn statuses(&self) -> Vec<&str> {
        self.rows.iter().map(|row| row.status.as_str()).collect()
    }

    pub(crate) fn attempts(&self) -> Vec<u32> {
        self.rows.iter().map(|row| row.attempts).collect()
    }
}
