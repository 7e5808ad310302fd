//! What is promised for every end of a command, end by end: the summary, the metrics, the report and the program of `--on-end`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chatlift::sandbox::{Sandbox, SandboxSettings};
use rustix::process::Signal;

use crate::support::ports::unused_port;
use crate::support::server::{Server, imported};
use crate::support::{Call, CliFixture, KEY, Run, SDKAPPID, eventually};

/// Keeps what the program at the end is told.
const KEEPER: &str = "/bin/sh -c 'cat > got.json; echo $CHATLIFT_COMMAND $CHATLIFT_EXIT_CODE $CHATLIFT_OUTCOME $CHATLIFT_REPORT > got'";
const LEFT: [&str; 5] = ["summary.json", "m.prom", "report.html", "got", "got.json"];
/// More rows than the file size limit lets anybody write: 64 KiB, which the report fits into.
const MANY: u64 = 2_000;
const FULL_DISK: &str = "trap '' XFSZ; ulimit -f 128";

/// What an end leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaves {
    Everything,
    /// A dry run of an import is a check, which has no summary.
    AllButSummary,
    /// The files are those of another process.
    OnlyCall,
    /// It is not known what is to be left.
    Nothing,
}

/// A command, where its ends are met.
struct Ends {
    command: &'static [&'static str],
    bench: CliFixture,
    endpoint: String,
}

fn sandbox() -> Sandbox {
    Sandbox::start(SandboxSettings { limit_per_s: None, ..SandboxSettings::with_key(KEY.into()) }).unwrap()
}

fn rows(count: u64) -> String {
    (1..=count).fold("UserID,Nick\n".to_owned(), |text, row| text + &format!("a_user_with_a_long_name_{row:08},Nick\n"))
}

impl Ends {
    fn of(command: &'static [&'static str], endpoint: String) -> Self {
        let ends = Self { command, bench: CliFixture::new(), endpoint };
        ends.bench.write("users.csv", rows(3));
        ends
    }

    /// A command with the key in this file, with all that is to be left.
    fn with_key(&self, command: &[&str], endpoint: &str, key: &str) -> Call<'_> {
        let call = self.bench.call(command).args(&["--endpoint", endpoint, "--sdkappid", SDKAPPID, "--rate", "0", "--no-progress"]);
        let call = call.args(&["--summary", "summary.json", "--metrics-file", "m.prom", "--report", "report.html", "--on-end", KEEPER]);
        call.args(&["--secret-key-file", key]).usually(&["--timeout=100"])
    }

    fn call(&self, flags: &[&str]) -> Call<'_> {
        self.with_key(self.command, &self.endpoint, self.bench.key().to_str().unwrap()).args(flags)
    }

    /// The command ends in this way.
    #[track_caller]
    fn ends(&self, what: &str, flags: &[&str], ending: (i32, &str)) {
        self.leaves(what, &self.call(flags).run(), ending, Leaves::Everything);
    }

    /// Looks at what the end has left, and removes it.
    #[track_caller]
    fn leaves(&self, what: &str, run: &Run, (code, outcome): (i32, &str), leaves: Leaves) {
        let what = format!("{:?}, {what}: {}", self.command, run.stderr);
        assert_eq!(run.code, Some(code), "{what}");
        let is_left = |name: &str| self.bench.path(name).exists();
        let expected = match leaves {
            Leaves::Everything => [true; 5],
            Leaves::AllButSummary => [false, true, true, true, true],
            Leaves::OnlyCall => [false, false, false, true, true],
            Leaves::Nothing => [false; 5],
        };
        assert_eq!(LEFT.map(is_left), expected, "{LEFT:?} {what}");
        if is_left("got") {
            let report = if is_left("report.html") { " report.html" } else { "" };
            assert_eq!(self.bench.read("got"), format!("{} {code} {outcome}{report}\n", self.command[0]), "{what}");
            let told: serde_json::Value = serde_json::from_str(&self.bench.read("got.json")).unwrap();
            assert_eq!((&told["exit_code"], &told["outcome"]), (&code.into(), &outcome.into()), "{what}");
        }
        if is_left("summary.json") {
            assert_eq!(self.bench.read("summary.json"), self.bench.read("got.json"), "{what}");
        }
        if is_left("report.html") {
            assert!(self.bench.read("report.html").contains(&format!("(exit code {code})")), "{what}");
            self.has_metrics(code, &what);
        }
        for name in LEFT.iter().filter(|name| is_left(name)) {
            fs::remove_file(self.bench.path(name)).unwrap();
        }
    }

    #[track_caller]
    fn has_metrics(&self, code: i32, what: &str) {
        let metrics = self.bench.read("m.prom");
        let value = |name: &str| {
            let line = metrics.lines().find(|line| line.starts_with(&format!("{name}{{"))).unwrap_or_else(|| panic!("{name}: {what}"));
            line.rsplit_once(' ').unwrap().1.to_owned()
        };
        assert_eq!(value("chatlift_exit_code"), code.to_string(), "{what}");
        let is_success = [0, 3].contains(&code) && !what.contains("only a part");
        assert_eq!(value("chatlift_last_success_timestamp_seconds") != "0", is_success, "{what}");
    }

    /// What is wrong before the first request.
    fn refuses(&self) {
        let wrong = (2, "needs_fixing");
        self.ends("a setting", &["--in-flight", "0"], wrong);
        self.ends("the CA file", &["--ca-file", "missing.pem"], wrong);
        self.ends("the place of the results", &["--results", "missing/r.csv"], wrong);
        self.ends("the address of the page", &["--status", "192.0.2.1:1"], wrong);
        self.ends("the columns", &["--delimiter", "|"], wrong);
        self.leaves("the key", &self.with_key(self.command, &self.endpoint, "missing").run(), wrong, Leaves::Everything);
        fs::rename(self.bench.path("users.csv"), self.bench.path("gone.csv")).unwrap();
        self.ends("no input", &[], wrong);
        fs::rename(self.bench.path("gone.csv"), self.bench.path("users.csv")).unwrap();
        // Nobody knows then what is asked for.
        self.bench.write("wrong.toml", "rate = \"x\"\n");
        for unreadable in [&["--no-such-flag"][..], &["--config", "missing.toml"], &["--config", "wrong.toml"]] {
            self.leaves("what can't be read", &self.call(unreadable).run(), (2, ""), Leaves::Nothing);
        }
    }

    /// Removes what a run has left to be gone on with.
    fn begins_anew(&self) {
        for name in ["users.checkpoint.json", "users.results.csv", "users.state"] {
            let _ = fs::remove_file(self.bench.path(name));
        }
    }

    /// The service refuses, or is not there. Neither run goes where the others go.
    fn finds_no_service(&self) {
        let key = self.bench.outside("another");
        fs::write(&key, "0".repeat(64)).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        let another = self.with_key(self.command, &self.endpoint, key.to_str().unwrap()).run();
        self.leaves("credentials", &another, (5, "refused"), Leaves::Everything);
        self.begins_anew();
        let key = self.bench.key();
        let nowhere = format!("http://127.0.0.1:{}", unused_port());
        let run = self.with_key(self.command, &nowhere, key.to_str().unwrap()).args(&["--max-outage", "1s"]).run();
        self.leaves("an outage", &run, (4, "stopped"), Leaves::Everything);
        self.begins_anew();
    }
}

/// Signals, and another process that is at work.
fn is_stopped(command: &'static [&'static str]) {
    // Long enough for whatever happens meanwhile, and for one answer to be waited for.
    const ANSWER: Duration = Duration::from_millis(500);
    let is_slow = Arc::new(AtomicBool::new(false));
    let slow = Arc::clone(&is_slow);
    let server = Server::new(move |_| if slow.load(Ordering::Relaxed) { imported().after(ANSWER) } else { imported() });
    let ends = Ends::of(command, server.endpoint());
    let key = ends.bench.key();
    if command.contains(&"--state") && command[0] == "verify" {
        // It corrects a state that is there.
        ends.with_key(&["sync", "users.csv", "--state", "users.state"], &ends.endpoint, key.to_str().unwrap()).run().exits(0);
        for name in LEFT {
            fs::remove_file(ends.bench.path(name)).unwrap();
        }
    }
    is_slow.store(true, Ordering::Relaxed);
    ends.bench.write("users.csv", rows(5_000));
    for (what, signals) in [("Ctrl-C", 1), ("two of them", 2)] {
        let calls = server.calls();
        let running = ends.call(&["--in-flight", "1"]).start();
        eventually("a request", || server.calls() > calls);
        if signals == 1 {
            ends.leaves("another process is at work", &ends.call(&[]).run(), (4, "busy"), Leaves::OnlyCall);
        }
        for _ in 0..signals {
            running.signal(Signal::INT);
            std::thread::park_timeout(Duration::from_millis(50));
        }
        ends.leaves(what, &running.wait(), (4, "stopped"), Leaves::Everything);
    }
}

/// The file that grows with the rows can't.
fn fills_the_disk(command: &'static [&'static str]) {
    let sandbox = sandbox();
    let ends = Ends::of(command, sandbox.endpoint());
    ends.bench.write("users.csv", rows(MANY));
    ends.leaves("a full disk", &ends.call(&[]).through_shell(FULL_DISK).run(), (1, "cannot_go_on"), Leaves::Everything);
}

#[test]
fn of_an_import() {
    let (command, sandbox) = (&["import", "users.csv"], sandbox());
    let ends = Ends::of(command, sandbox.endpoint());
    ends.refuses();
    assert_eq!(sandbox.audit().calls, 0);
    ends.finds_no_service();
    let check = |what: &str, ending| ends.leaves(what, &ends.call(&["--dry-run"]).run(), ending, Leaves::AllButSummary);
    check("a dry run: only a part", (0, "done"));
    ends.ends("a limit: only a part", &["--limit", "1"], (0, "done"));
    ends.ends("the end", &[], (0, "done"));
    ends.ends("finished earlier", &[], (0, "done"));
    ends.bench.write("users.csv", rows(2) + "not\u{e9},x\n");
    check("a dry run of an invalid row: only a part", (3, "finished_with_rejects"));
    ends.ends("an invalid row", &[], (3, "finished_with_rejects"));
    let unprinted = ends.call(&["--dry-run"]).through_shell("exec >/dev/full").run();
    ends.leaves("a check that can't be printed", &unprinted, (1, "cannot_go_on"), Leaves::AllButSummary);
    is_stopped(command);
    fills_the_disk(command);
}

#[test]
fn of_a_sync() {
    let (command, sandbox) = (&["sync", "users.csv", "--state", "users.state"], sandbox());
    let ends = Ends::of(command, sandbox.endpoint());
    ends.refuses();
    assert_eq!(sandbox.audit().calls, 0);
    ends.finds_no_service();
    ends.ends("a dry run: only a part", &["--dry-run"], (0, "done"));
    ends.ends("a limit: only a part", &["--limit", "1"], (0, "done"));
    ends.ends("the end", &[], (0, "done"));
    ends.ends("nothing to do", &[], (0, "done"));
    ends.ends("a safety check", &["--canary", "nobody"], (6, "guarded"));
    ends.ends("a safety check of a dry run", &["--canary", "nobody", "--dry-run"], (6, "guarded"));
    ends.ends("the state of another app", &["--sandbox"], (6, "guarded"));
    ends.bench.write("users.csv", rows(3) + "not\u{e9},x\n");
    ends.ends("an invalid row", &[], (3, "finished_with_rejects"));
    is_stopped(command);
    fills_the_disk(command);
}

#[test]
fn of_a_verification() {
    let (command, sandbox) = (&["verify", "users.csv"], sandbox());
    let ends = Ends::of(command, sandbox.endpoint());
    ends.refuses();
    assert_eq!(sandbox.audit().calls, 0);
    ends.finds_no_service();
    ends.ends("missing accounts", &[], (3, "finished_with_findings"));
    ends.bench.import_into("users.csv", &ends.endpoint).at_any_rate().run().exits(0);
    fs::remove_file(ends.bench.path("summary.json")).unwrap();
    ends.ends("the end", &[], (0, "done"));
    ends.ends("a sample", &["--sample", "1"], (0, "done"));
    ends.ends("a state that is not there", &["--state", "missing.db"], (2, "needs_fixing"));
    is_stopped(&["verify", "users.csv", "--state", "users.state"]);
    is_stopped(command);
    fills_the_disk(command);
}
