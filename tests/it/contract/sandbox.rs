//! `chatlift sandbox` as a process: the content of its files after a kill, and the files that it refuses.

use std::collections::HashMap;
use std::fs;

use rustix::process::Signal;

use crate::support::ports::unused_port;
use crate::support::{CliFixture, Running, eventually};

/// Rows of the import. Chosen: several commits, so that a kill comes in the middle.
const ROWS: u64 = 4_000;
/// Entries in the call log after which the sandbox is killed. Chosen: well behind the first commit, well before the end.
const KILLED_AFTER: usize = 1_500;
/// Requests in flight; a kill may lose each of them, and then it is sent again.
const IN_FLIGHT: usize = 16;
/// Accounts that are imported again as a test while the sandbox is gone. Source: since none is accepted meanwhile, it is always the account
/// that was accepted last.
const TESTED: usize = 1;

fn sandbox<'a>(bench: &'a CliFixture, port: &str, flags: &[&str]) -> Running<'a> {
    let key = bench.key();
    let call = bench.call(&["sandbox", "--port", port, "--limit", "0", "--secret-key-file", key.to_str().unwrap()]);
    call.args(&["--accounts", "held.csv", "--call-log", "calls.csv"]).args(flags).start()
}

/// The address that it prints.
fn endpoint(sandbox: &Running<'_>) -> String {
    eventually("it serves", || sandbox.stderr().contains("; Ctrl-C"));
    let said = sandbox.stderr();
    said.split("serving at ").nth(1).unwrap().split(';').next().unwrap().to_owned()
}

/// The accounts of `users.csv` in the form of the sandbox' file.
fn sorted_users(bench: &CliFixture) -> String {
    let users = bench.read("users.csv");
    let mut accounts: Vec<String> = users.lines().skip(1).map(|line| format!("{line},")).collect();
    accounts.sort_by(|one, other| one.split(',').next().cmp(&other.split(',').next()));
    format!("UserID,Nick,FaceUrl\n{}\n", accounts.join("\n"))
}

/// How often each user was imported, by the call log.
fn imports(bench: &CliFixture) -> HashMap<String, usize> {
    let mut log = csv::Reader::from_path(bench.path("calls.csv")).unwrap();
    let mut imports = HashMap::new();
    for record in log.records() {
        let record = record.unwrap();
        assert_eq!(&record[0], "account_import");
        if &record[2] == "0" {
            *imports.entry(record[1].to_owned()).or_default() += 1;
        }
    }
    imports
}

#[test]
fn answered_changes_survive_a_kill() {
    let bench = CliFixture::with_users(ROWS);
    // Slow enough that even a busy machine kills it in time.
    let port = unused_port().to_string();
    let first = sandbox(&bench, &port, &["--latency", "10ms"]);
    let endpoint = endpoint(&first);
    let import = bench.quiet_import_into("users.csv", &endpoint).at_any_rate().start();
    eventually("enough is imported", || bench.read("calls.csv").lines().count() > KILLED_AFTER);
    first.signal(Signal::KILL);
    assert_eq!(first.wait().signal, Some(9));
    let before = imports(&bench);
    assert!(before.len() >= KILLED_AFTER && before.len() < usize::try_from(ROWS).unwrap(), "{}", before.len());
    let second = sandbox(&bench, &port, &[]);
    import.wait().exits(0).imports_all(ROWS);
    second.signal(Signal::TERM);
    let run = second.wait();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    // A change that was answered before the kill is not sent again, so those accounts can only come from the files. The exception is the
    // last account, with which the import tests whether the service is back.
    let again = imports(&bench).into_values().filter(|count| *count > 1).count();
    assert!(again <= IN_FLIGHT + TESTED, "{again} users were imported twice");
    assert_eq!(bench.read("held.csv"), sorted_users(&bench));
    assert_eq!((bench.mode("held.csv"), bench.mode("held.csv.log"), bench.mode("calls.csv")), (0o600, 0o600, 0o600));
}

#[test]
fn accounts_of_a_killed_sandbox_are_in_its_file_after_the_next_start() {
    let bench = CliFixture::with_users(300);
    let first = sandbox(&bench, "0", &[]);
    bench.quiet_import_into("users.csv", &endpoint(&first)).at_any_rate().args(&["--batch"]).run().exits(0).imports_all(300);
    assert_eq!(bench.read("held.csv"), "UserID,Nick,FaceUrl\n", "it is written at start and end");
    first.signal(Signal::KILL);
    assert_eq!(first.wait().signal, Some(9));
    let second = sandbox(&bench, "0", &[]);
    endpoint(&second);
    assert_eq!(bench.read("held.csv"), sorted_users(&bench));
    let other = bench.call(&["sandbox", "--accounts", "held.csv"]).run();
    other.exits(2).because("held.csv is in use by another sandbox").hints("stop the other one");
}

#[test]
fn files_that_cannot_be_used_are_refused() {
    let bench = CliFixture::new();
    let refused = |flags: &[&str], why: &str, hint: &str| {
        bench.call(&[&["sandbox"], flags].concat()).run().exits(2).because(why).hints(hint);
    };
    bench.write("phones.csv", "UserID,Nick,FaceUrl,Phone\nu,n,f,1\n");
    bench.write("latin.csv", b"UserID,Nick\nu,Zo\xeb\n");
    fs::create_dir(bench.path("folder")).unwrap();
    refused(&["--accounts", "phones.csv"], "phones.csv, line 1: the header has a column \"Phone\"", "UserID, Nick and FaceUrl");
    refused(&["--accounts", "latin.csv"], "latin.csv, line 2", "UserID, Nick and FaceUrl");
    refused(&["--accounts", "folder"], "cannot read folder", "read and write");
    refused(&["--accounts", "nowhere/held.csv"], "cannot open nowhere/held.csv.lock", "a folder that is there");
    refused(&["--call-log", "phones.csv"], "phones.csv is no call log", "another file");
    refused(&["--call-log", "folder"], "cannot open folder", "read and write");
    refused(&["--online", "u", "--push-online", "u"], "u is given with --online and --push-online", "leave one of them out");
    assert_eq!(bench.read("phones.csv"), "UserID,Nick,FaceUrl,Phone\nu,n,f,1\n");
}

/// Files of at most 4 KiB. The signal is ignored, so that writing fails as on a full disk.
const FULL_DISK: &str = "trap '' XFSZ; ulimit -f 8";

#[test]
fn a_full_disk_at_the_start_is_reported_and_no_file_is_left() {
    let refused = |file: &str, text: &str| {
        let bench = CliFixture::new();
        bench.write(file, text);
        let before = bench.contents();
        let call = bench.call(&["sandbox", "--accounts", "held.csv", "--call-log", "calls.csv"]);
        call.through_shell(FULL_DISK).run().exits(1).because("held.csv.new").hints("make room");
        assert_eq!(bench.contents(), before, "{file}");
    };
    let accounts = (0..1_000).fold("UserID\n".to_owned(), |text, row| text + &format!("user{row}\n"));
    refused("held.csv", &accounts);
    let changes = (0..1_000).fold(String::new(), |text, row| text + &format!("{{\"op\":\"set\",\"UserID\":\"user{row}\"}}\n"));
    refused("held.csv.log", &changes);
}

#[test]
fn a_failed_start_leaves_no_files() {
    let bench = CliFixture::new();
    bench.write("phones.csv", "UserID,Phone\nu,1\n");
    bench.call(&["sandbox", "--accounts", "held.csv", "--call-log", "phones.csv"]).run().exits(2).because("phones.csv is no call log");
    bench.call(&["sandbox", "--accounts", "phones.csv", "--call-log", "calls.csv"]).run().exits(2).because("Phone");
    assert_eq!(bench.names().into_iter().collect::<Vec<_>>(), ["phones.csv"]);
}

/// Opens more clients than the sandbox' process may open files; each must get an answer.
fn all_get_an_answer(limit: &str) -> String {
    let bench = CliFixture::with_users(300);
    let key = bench.key();
    let call = bench.call(&["sandbox", "--limit", "0", "--latency", "20ms", "--secret-key-file", key.to_str().unwrap()]);
    let sandbox = call.through_shell(limit).start();
    let endpoint = endpoint(&sandbox);
    let import = bench.quiet_import_into("users.csv", &endpoint).at_any_rate();
    let run = import.args(&["--in-flight", "64", "--timeout", "5"]).run().exits(0).imports_all(300);
    assert!(run.attempts().iter().all(|attempts| *attempts == 1), "{limit}: requests went unanswered: {}", run.summary);
    let limits = fs::read_to_string(format!("/proc/{}/limits", sandbox.id())).unwrap();
    sandbox.signal(Signal::TERM);
    assert_eq!(sandbox.wait().code, Some(0));
    limits.lines().find(|line| line.starts_with("Max open files")).unwrap().to_owned()
}

#[test]
fn with_few_open_files_every_client_gets_an_answer() {
    all_get_an_answer("ulimit -n 24");
}

#[test]
fn a_sandbox_raises_its_limit_of_open_files() {
    let limits = all_get_an_answer("ulimit -Sn 24");
    let soft: u64 = limits.split_whitespace().nth(3).unwrap().parse().unwrap();
    assert!(soft > 64, "{limits}");
}
