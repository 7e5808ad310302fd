//! One state, several processes: those that work on it, by whatever names, and those that only look.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{connection, held, sync, sync_of};
use crate::support::server::{Server, imported};
use crate::support::tools::skipped;
use crate::support::{Call, CliFixture, Run, eventually, side_by_side, users};

/// What a change waits at most for whoever looks. Source: the contract.
const WAIT: Duration = Duration::from_secs(10);

/// A server that keeps the first run at work until it is told to let go.
fn held_up() -> Server {
    Server::new(|_| imported().held())
}

/// A run that waits for its answers as long as the test takes.
fn patient<'a>(bench: &'a CliFixture, server: &'a Server, state: &str) -> Call<'a> {
    sync_of(bench, &["users.csv", "--state", state], &server.endpoint()).args(&["--in-flight", "1", "--timeout", "300"])
}

fn is_turned_away(bench: &CliFixture, server: &Server, state: &str) {
    let what = ["users.csv", "--state", state, "--results", "second.csv"];
    let run = sync_of(bench, &what, &server.endpoint()).stem("second").run();
    assert_ne!(run.code, Some(0), "{state}: {}", run.stderr);
    assert!(run.stderr.contains("another chatlift is at work"), "{state}: {}", run.stderr);
}

#[test]
fn a_state_is_one_runs_by_whatever_name() {
    let cases: [fn(); 2] = [a_new_state_is_one_runs_whatever_links_lead_to_it, a_state_is_one_runs_over_two_mounts_of_its_folder];
    side_by_side(cases, |case| case());
}

fn a_new_state_is_one_runs_whatever_links_lead_to_it() {
    let (bench, server) = (CliFixture::with_users(6), held_up());
    std::os::unix::fs::symlink("middle.state", bench.path("alias.state")).unwrap();
    std::os::unix::fs::symlink(bench.path("users.state"), bench.path("middle.state")).unwrap();
    std::fs::create_dir(bench.path("folder")).unwrap();
    std::os::unix::fs::symlink("../alias.state", bench.path("folder/far.state")).unwrap();
    let first = patient(&bench, &server, "alias.state").start();
    eventually("it is at work", || server.calls() > 0);
    std::fs::hard_link(bench.path("users.state"), bench.path("folder/hard.state")).unwrap();
    let absolute = bench.path("users.state").to_str().unwrap().to_owned();
    let through_root = format!("/proc/self/root{absolute}");
    for state in
        ["users.state", "./folder/../users.state", "middle.state", "folder/far.state", "folder/hard.state", &absolute, &through_root]
    {
        is_turned_away(&bench, &server, state);
    }
    server.lets_go();
    first.wait().exits(0).settles(6);
    assert_eq!((held(&bench).len(), server.calls(), bench.mode("users.state")), (6, 6, 0o600));
}

fn a_state_is_one_runs_over_two_mounts_of_its_folder() {
    let (bench, server) = (CliFixture::with_users(6), held_up());
    std::fs::create_dir(bench.path("one")).unwrap();
    std::fs::create_dir(bench.path("other")).unwrap();
    let mount = |args: &[&str]| Command::new("mount").args(args).current_dir(bench.path(".")).stderr(Stdio::null()).status();
    if !mount(&["--bind", "one", "other"]).is_ok_and(|status| status.success()) {
        return skipped("a state under two mounts", "mount --bind is not to be had here");
    }
    let first = patient(&bench, &server, "one/users.state").start();
    eventually("it is at work", || server.calls() > 0);
    is_turned_away(&bench, &server, "other/users.state");
    server.lets_go();
    first.wait().exits(0).settles(6);
    assert!(Command::new("umount").arg(bench.path("other")).status().unwrap().success());
}

#[test]
fn an_empty_file_becomes_private() {
    for dry in [&["--dry-run"][..], &[]] {
        let (bench, server) = (CliFixture::with_users(2), Server::new(|_| imported()));
        bench.write("users.state", "");
        std::fs::set_permissions(bench.path("users.state"), std::fs::Permissions::from_mode(0o644)).unwrap();
        sync(&bench, &server).args(dry).run().exits(0);
        assert_eq!(bench.mode("users.state"), if dry.is_empty() { 0o600 } else { 0o644 });
    }
}

/// Many accounts: their export fits into no pipe.
fn many() -> (CliFixture, Server) {
    let (bench, server) = (CliFixture::with_users(4_000), Server::new(|_| imported()));
    sync(&bench, &server).args(&["--in-flight", "64"]).run().exits(0);
    bench.write("users.csv", users(4_000).replace("Nick 1\n", "Name 1\n"));
    (bench, server)
}

#[test]
fn an_export_that_nobody_reads_on_keeps_no_run_waiting() {
    let (bench, server) = many();
    let mut export = Command::new(env!("CARGO_BIN_EXE_chatlift"));
    export.args(["state", "users.state", "export"]).current_dir(bench.path(".")).stdout(Stdio::piped());
    let mut export = export.spawn().unwrap();
    let mut first = [0];
    std::io::Read::read_exact(export.stdout.as_mut().unwrap(), &mut first).unwrap();
    let run = sync(&bench, &server).run().exits(0);
    assert!(run.took < WAIT / 2, "{:?}", run.took);
    let rest = export.wait_with_output().unwrap();
    assert_eq!((rest.status.code(), String::from_utf8(rest.stdout).unwrap().lines().count()), (Some(0), 4_001));
}

/// Another program with a look at the state that it leaves open.
fn looking(bench: &CliFixture) -> rusqlite::Connection {
    let reader = rusqlite::Connection::open(bench.path("users.state")).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    reader.query_row("SELECT count(*) FROM accounts", [], |_| Ok(())).unwrap();
    reader
}

fn is_told(run: Run) -> Run {
    assert!(run.took < WAIT + Duration::from_secs(5), "{:?}", run.took);
    run.exits(4).because("users.state").hints("close it; the same command")
}

#[test]
fn no_call_is_made_while_another_program_keeps_the_state_from_being_changed() {
    // All but the last wait for ten seconds.
    let cases: [fn(); 4] =
        [a_new_run_makes_no_call, a_run_that_goes_on_makes_no_call, a_verification_asks_nothing, a_look_that_ends_in_time_is_waited_for];
    side_by_side(cases, |case| case());
}

fn changed() -> (CliFixture, Server) {
    let (bench, server) = (CliFixture::with_users(6), Server::new(|_| imported()));
    sync(&bench, &server).run().exits(0);
    bench.write("users.csv", users(6).replace("Nick ", "Name "));
    (bench, server)
}

fn a_new_run_makes_no_call() {
    let (bench, server) = changed();
    let reader = looking(&bench);
    is_told(sync(&bench, &server).run());
    assert_eq!(server.calls(), 6);
    drop(reader);
    sync(&bench, &server).run().exits(0).settles(6);
}

fn a_run_that_goes_on_makes_no_call() {
    let (bench, server) = changed();
    sync(&bench, &server).args(&["--limit", "2"]).run().exits(0);
    // All that is left is announced: the next process has nothing to write before its calls.
    let state = rusqlite::Connection::open(bench.path("users.state")).unwrap();
    state.execute("UPDATE runs SET sent_up_to = 6 WHERE finished_at IS NULL", []).unwrap();
    drop(state);
    let reader = looking(&bench);
    is_told(sync(&bench, &server).run());
    assert_eq!(server.calls(), 8);
    drop(reader);
    sync(&bench, &server).run().exits(0).settles(6);
}

/// It could not tell the state what it finds.
fn a_verification_asks_nothing() {
    let (bench, server) = (CliFixture::with_users(2), Server::new(|_| imported()));
    sync(&bench, &server).run().exits(0);
    let _reader = looking(&bench);
    let verify = bench.call(&["verify", "users.csv", "--state", "users.state"]);
    is_told(verify.args(&connection(&bench, &server.endpoint()).each_ref().map(String::as_str)).run());
    assert_eq!(server.calls(), 2);
}

fn a_look_that_ends_in_time_is_waited_for() {
    let (bench, server) = (CliFixture::with_users(6), Server::new(|_| imported()));
    sync(&bench, &server).run().exits(0);
    bench.write("users.csv", users(6).replace("Nick ", "Name "));
    let reader = looking(&bench);
    let running = sync(&bench, &server).start();
    let began = Instant::now();
    eventually("it waits", || began.elapsed() > Duration::from_secs(2));
    assert_eq!(server.calls(), 6);
    drop(reader);
    running.wait().exits(0).settles(6);
}
