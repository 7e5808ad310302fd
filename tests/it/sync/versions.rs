//! States and checkpoints of older versions: read as they are, carried over when a run begins, whatever kills it on the way.
//!
//! Each fixture was left by the program of its version: 40 accounts, then a file that renames 30, lacks two and has two more; `--limit 12`,
//! and a process that was killed after it had announced all rows and ten more calls had landed.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use chatlift::domain::command::Command as Api;
use chatlift::sandbox::{Files, Sandbox};
use xxhash_rust::xxh3::xxh3_64;

use super::kept::kept;
use super::night::{settings, sync};
use super::{held, state_bytes};
use crate::support::tools::{skipped, strace};
use crate::support::{Call, CliFixture, eventually};

/// The service of the fixture.
const ENDPOINT: &str = "http://127.0.0.1:18099";
/// Most system calls that are tried; carrying over has fewer. Chosen.
const CALLS_MAX: u32 = 300;

/// Versions of the state that can be carried over, and the one that they become.
const OLDER: [i64; 2] = [1, 2];
const NOW: i64 = 3;

fn fixture(version: i64, name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/state-v{version}")).join(name)).unwrap()
}

struct Old {
    version: i64,
    bench: CliFixture,
    sandbox: Sandbox,
    bytes: Vec<u8>,
}

impl Old {
    /// As the fixture has it, but for where the service is; `change` is made to the state first.
    fn new(version: i64, change: &str) -> Self {
        let bench = CliFixture::new();
        let accounts = bench.outside("held.csv");
        fs::write(&accounts, fixture(version, "held.csv")).unwrap();
        let sandbox = Sandbox::start_with(settings(&[]), Files::open(Some(&accounts), None).unwrap()).unwrap();
        let mut old = Self { version, bench, sandbox, bytes: Vec::new() };
        old.brought_back(change);
        old
    }

    fn brought_back(&mut self, change: &str) {
        for name in ["users.state", "users.state-journal", "users.state.v1", "users.state.v2"] {
            let _ = fs::remove_file(self.bench.path(name));
        }
        let state = rusqlite::Connection::open(self.bench.path("users.state")).unwrap();
        state.execute_batch(&fixture(self.version, "state.sql").replace(ENDPOINT, &self.sandbox.endpoint())).unwrap();
        state.execute_batch(change).unwrap();
        drop(state);
        fs::set_permissions(self.bench.path("users.state"), fs::Permissions::from_mode(0o600)).unwrap();
        let mut checkpoint: serde_json::Value = serde_json::from_str(&fixture(self.version, "checkpoint.json")).unwrap();
        checkpoint["run"]["target"]["endpoint"] = self.sandbox.endpoint().into();
        checkpoint["checksum"] = format!("{:016x}", xxh3_64(checkpoint["run"].to_string().as_bytes())).into();
        self.bench.write("users.checkpoint.json", checkpoint.to_string());
        self.bench.write("users.results.csv", fixture(self.version, "results.csv"));
        self.bench.write("users.csv", fixture(self.version, "users.csv"));
        self.bytes = state_bytes(&self.bench);
    }

    fn sync(&self, flags: &[&str]) -> Call<'_> {
        sync(&self.bench, &self.sandbox.endpoint(), flags)
    }

    fn version_now(&self) -> i64 {
        let state = rusqlite::Connection::open(self.bench.path("users.state")).unwrap();
        state.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    }

    fn is_kept(&self) {
        let kept = format!("users.state.v{}", self.version);
        assert_eq!((fs::read(self.bench.path(&kept)).unwrap(), self.bench.mode(&kept)), (self.bytes.clone(), 0o600));
        let others = OLDER.iter().filter(|version| self.bench.names().contains(&format!("users.state.v{version}"))).count();
        assert_eq!((self.version_now(), others), (NOW, 1));
    }

    /// The service holds what the file says, and the state knows it; these ids are in doubt.
    fn is_put_right(&self, in_doubt: &[&str], what: &str) {
        let wanted = self.bench.read("users.csv");
        let mut wanted = csv::Reader::from_reader(wanted.as_bytes());
        for record in wanted.records().map(Result::unwrap) {
            let account = self.sandbox.account(&record[0]).unwrap_or_else(|| panic!("{what}: {record:?}"));
            assert_eq!(account.nick.as_deref(), Some(&record[1]), "{what}: {record:?}");
        }
        let mut known: BTreeSet<String> = self.sandbox.accounts().into_iter().map(|(id, _)| id).collect();
        known.extend(in_doubt.iter().map(|id| (*id).to_owned()));
        assert!(held(&self.bench).iter().eq(&known), "{what}: {:?}", held(&self.bench));
        let kept = kept(&self.bench);
        assert!(kept.is_finished && kept.in_doubt.iter().eq(in_doubt), "{what}: {kept:?}");
    }
}

/// The file of the night before, in which nobody is renamed.
fn file_before() -> String {
    let nick = |id: u32| format!("user{id:02},Nick {id},{}\n", if id % 2 == 1 { format!("https://faces/{id}") } else { String::new() });
    (1..=40).fold("UserID,Nick,FaceUrl\n".to_owned(), |file, id| file + &nick(id))
}

#[test]
fn whoever_only_looks_leaves_an_older_state_as_it_is() {
    for version in OLDER {
        let old = Old::new(version, "");
        for what in [&[][..], &["export"]] {
            let run = old.bench.call(&["state", "users.state"]).args(what).run();
            assert_eq!((run.code, state_bytes(&old.bench)), (Some(0), old.bytes.clone()), "{}", run.stderr);
            assert!(run.stdout.contains(if what.is_empty() { "accounts    40" } else { "user40," }), "{}", run.stdout);
        }
        let dry = old.sync(&["--dry-run"]).run().exits(0);
        assert_eq!(dry.summary["plan"]["update"].as_u64(), Some(18), "12 of 30 are settled: {}", dry.summary);
        old.bench.write("users.csv", file_before());
        old.sync(&["--canary", "nobody"]).run().exits(6).because("guard canary");
        assert_eq!(
            (state_bytes(&old.bench), old.bench.names().contains(&format!("users.state.v{version}")), old.sandbox.call_log().len()),
            (old.bytes, false, 0)
        );
    }
}

#[test]
fn an_older_run_goes_on_where_it_stopped() {
    for version in OLDER {
        let old = Old::new(version, "");
        let run = old.sync(&[]).run().exits(0);
        assert_eq!((run.summary["resumed_at_row"].as_u64(), run.rows.len(), old.sandbox.call_log().len()), (Some(12), 32, 20));
        old.is_kept();
        old.is_put_right(&[], "");
        old.sync(&[]).run().exits(0).because("40 unchanged");
    }
}

#[test]
fn whom_an_older_run_was_to_delete_waits_for_a_run_that_compares_them_with_the_file() {
    let old = Old::new(1, "UPDATE missing SET due = 'delete'");
    let flags = ["--missing", "delete", "--max-delete", "9", "--missing-runs", "1", "--missing-apart", "0s"];
    let deleted = || old.sandbox.call_log().iter().filter(|touch| touch.command == Api::AccountDelete).count();
    let run = old.sync(&flags).run().exits(0);
    assert!(run.stderr.contains("2; these missing accounts wait for the next run"), "{}", run.stderr);
    assert_eq!((deleted(), held(&old.bench).len()), (0, 42));
    // What looks like one of them is spared by then.
    let missing = old.bench.read("users.missing.csv");
    let looks_like = missing.lines().nth(1).unwrap().split(',').next().unwrap().to_uppercase();
    old.bench.write("users.csv", fixture(1, "users.csv") + &format!("{looks_like},n,\n"));
    old.sync(&flags).run().exits(0).because("1 deleted");
    assert_eq!(deleted(), 1);
}

#[test]
fn what_an_older_run_has_announced_is_put_right() {
    for version in OLDER {
        let old = Old::new(version, "");
        old.bench.write("users.csv", file_before());
        // The canary's limit must not hide what the killed process may have sent.
        old.sync(&["--limit", "1"]).run().exits(0);
        old.is_kept();
        old.sync(&[]).run().exits(0);
        // The file lacks these two, and nobody knows whether they were created.
        old.is_put_right(&["user41", "user42"], "");
    }
}

#[test]
fn doubt_about_an_account_becomes_doubt_about_its_known_fields() {
    let old = Old::new(
        1,
        "UPDATE accounts SET in_doubt = 1 WHERE id IN ('user37', 'user38'); UPDATE accounts SET in_doubt = 2 WHERE id = 'user35'",
    );
    let state = |bench: &CliFixture| bench.call(&["state", "users.state"]).run().stdout;
    assert!(state(&old.bench).contains("in doubt    3"), "{}", state(&old.bench));
    // user37 has a face, user38 has none.
    old.bench.write("users.csv", file_before().replace(",https://faces/37", ",").replace(",https://faces/35", ","));
    old.sync(&[]).run().exits(0);
    assert_eq!(
        kept(&old.bench).in_doubt.into_iter().collect::<Vec<_>>(),
        ["user35", "user37", "user41", "user42"],
        "no call has carried their faces"
    );
    old.bench.write("users.csv", file_before());
    let run = old.sync(&[]).run().exits(0).because("2 updated");
    assert_eq!(run.rows.len(), 2);
    old.is_put_right(&["user41", "user42"], "");
}

#[test]
fn carrying_over_may_be_killed_at_any_of_its_system_calls() {
    let Some(strace) = strace() else {
        return skipped("kills while a state is carried over", "strace is not installed, or may not trace here");
    };
    let step = if std::env::var("CHATLIFT_NIGHTS").is_ok() { 1 } else { 4 };
    for version in OLDER {
        carrying_over_is_killed(version, &strace, step);
    }
}

fn carrying_over_is_killed(version: i64, strace: &Path, step: usize) {
    let mut old = Old::new(version, "");
    for nth in (1..CALLS_MAX).step_by(step) {
        let what = format!("version {version}, number {nth}");
        old.brought_back("");
        let trace = old.bench.outside("trace");
        let inject = "inject=fsync,fdatasync,rename,unlink,ftruncate,pwrite64,copy_file_range,sendfile:signal=SIGKILL:when=";
        let args = ["-D", "-f", "-o", trace.to_str().unwrap(), "-e", &format!("{inject}{nth}")];
        let run = old.sync(&[]).through(strace.to_str().unwrap(), &args).run();
        eventually("the end of the trace", || fs::read_to_string(&trace).unwrap_or_default().contains("+++ "));
        old.sync(&[]).run().exits(0);
        old.is_kept();
        old.is_put_right(&[], &what);
        if run.signal != Some(9) {
            println!("{nth} calls at most");
            assert!(nth > 30, "{what}: {}", run.stderr);
            return;
        }
    }
    panic!("there are more than {CALLS_MAX} calls");
}
