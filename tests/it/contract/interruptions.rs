//! Signals, crashes, a full disk, and two processes at once.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::process::Signal;

use crate::support::server::{Server, answer, imported};
use crate::support::{CliFixture, eventually};

/// Files of at most 4 KiB. The signal is ignored, so that writing fails as on a full disk.
const FULL_DISK: &str = "trap '' XFSZ; ulimit -f 8";

/// Answers each request after some milliseconds.
fn steady() -> Server {
    Server::new(|_| imported().after(Duration::from_millis(20)))
}

#[test]
fn a_signal_stops_the_run_and_the_same_command_finishes_it() {
    for signal in [Signal::INT, Signal::TERM] {
        let bench = CliFixture::with_users(100);
        let server = steady();
        let running = bench.import(&server).at_any_rate().args(&["--in-flight", "4"]).start();
        eventually("calls", || server.calls() >= 20);
        running.signal(signal);
        let run = running.wait().exits(4).because("signal").hints("the same command");
        let settled = run.rows.len() as u64;
        assert!((10..100).contains(&settled), "{settled}");
        let run = run.imports_all(settled);
        assert_eq!(run.summary["rows"], settled);
        assert_eq!(run.checkpoint["run"]["settled"]["rows"], settled);
        let run = bench.import(&server).at_any_rate().run().exits(0).imports_all(100);
        assert_eq!(run.summary["resumed_at_row"], settled);
        assert_eq!(server.calls(), 100, "what was in flight has settled before the end");
    }
}

#[test]
fn a_second_signal_ends_the_run_at_once_and_consistently() {
    let bench = CliFixture::with_users(40);
    let server = Server::new(|request| if request.number < 20 { imported() } else { imported().held() });
    let running = bench.import(&server).at_any_rate().args(&["--in-flight", "4", "--timeout", "300"]).start();
    eventually("requests that hang", || server.calls() >= 24);
    running.signal(Signal::INT);
    eventually("the message about it", || running.stderr().contains("stopping"));
    let began = Instant::now();
    running.signal(Signal::INT);
    let run = running.wait().exits(4);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(run.summary["rows"], run.checkpoint["run"]["settled"]["rows"], "the summary agrees with the checkpoint");
    let settled = run.rows.len() as u64;
    run.imports_all(settled);

    let port = server.port();
    drop(server);
    let server = Server::at_port(port, |_| imported());
    bench.import(&server).at_any_rate().run().exits(0).imports_all(40);
}

#[test]
fn a_signal_in_an_outage_stops_the_run() {
    let bench = CliFixture::with_users(3);
    let server = Server::new(|_| answer("502 Bad Gateway", "", ""));
    let running = bench.import(&server).at_any_rate().args(&["--max-attempts", "1"]).start();
    eventually("the outage", || running.stderr().contains("the service is down"));
    let began = Instant::now();
    running.signal(Signal::TERM);
    running.wait().exits(4).settles(0);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn after_a_kill_at_any_moment_every_row_has_one_line_in_order() {
    const USERS: u64 = 1_200;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let bench = CliFixture::with_users(USERS);
    let server = Server::new(|_| imported());
    let call = || bench.import(&server).args(&["--rate", "600", "--in-flight", "8"]);
    for _ in 0..4 {
        let target = server.calls() + random.usize(1..500);
        let running = call().start();
        eventually("the moment", || server.calls() >= target || server.users() as u64 == USERS);
        running.signal(Signal::KILL);
        let run = running.wait();
        assert!(run.signal == Some(9) || run.code == Some(0), "seed {seed}: {run:?}");
    }
    call().run().exits(0).imports_all(USERS);
    assert_eq!(server.users() as u64, USERS, "seed {seed}");
    bench.call(&["audit", "users.csv", "--results", "users.results.csv"]).run().exits(0);
}

#[test]
fn two_processes_do_not_work_on_one_run() {
    let bench = CliFixture::with_users(60);
    let server = steady();
    let running = bench.import(&server).at_any_rate().args(&["--in-flight", "2"]).start();
    eventually("calls", || server.calls() >= 2);
    bench.import(&server).at_any_rate().run().exits(4).because("another chatlift").hints("one process at a time");
    running.wait().exits(0).imports_all(60);
    assert_eq!(server.calls(), 60);
}

#[test]
fn a_full_disk_ends_the_run_and_the_same_command_goes_on() {
    let bench = CliFixture::with_users(400);
    let server = Server::new(|_| imported());
    let endpoint = server.endpoint();
    let call = || bench.quiet_import_into("users.csv", &endpoint).against(&server).at_any_rate();
    let run = call().through_shell(FULL_DISK).run().exits(1).because("users.results.csv").hints("the same command resumes");
    assert!(run.rows.len() < 400, "{}", run.rows.len());
    call().run().exits(0).imports_all(400);
}

#[test]
fn a_full_disk_that_takes_no_log_either_has_the_same_exit_code() {
    let bench = CliFixture::with_users(400);
    let server = Server::new(|_| imported());
    let run = bench.import(&server).at_any_rate().through_shell(FULL_DISK).run();
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    let again = bench.import(&server).at_any_rate().through_shell("exec 2>&-").run();
    assert_eq!(again.code, Some(0));
    again.imports_all(400);
}

/// A pipe in the fixture's folder, with both ends open in this process.
fn pipe(bench: &CliFixture, name: &str) -> File {
    let path = bench.outside(name);
    mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap();
    OpenOptions::new().read(true).write(true).custom_flags(nonblocking).open(path).unwrap()
}

/// Fills a pipe, so that the next writer waits.
fn fill(mut pipe: &File) {
    loop {
        match pipe.write(&[b'x'; 512]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Standard error is not read, so writing the exit message takes its full second, and the process is running all that time.
#[test]
fn a_run_that_a_third_signal_ends_keeps_its_locks() {
    let bench = CliFixture::with_users(40);
    let server = Server::new(|_| imported().held());
    let stderr = pipe(&bench, "unread");
    let redirect = format!("exec 2>{}", bench.outside("unread").display());
    let call = bench.import(&server).at_any_rate().args(&["--in-flight", "4", "--timeout", "300", "--state", "users.state"]);
    let mut running = call.through_shell(&redirect).start();
    eventually("requests that hang", || server.calls() >= 4);
    fill(&stderr);
    while !running.has_ended() {
        running.signal(Signal::INT);
        std::thread::park_timeout(Duration::from_millis(100));
    }
    assert_eq!(running.wait().code, Some(4));
    for lock in ["users.checkpoint.json.lock", "users.state.lock"] {
        assert!(bench.names().contains(lock), "{lock} was free while the process was at work: {:?}", bench.names());
    }
}

#[test]
fn a_start_that_a_signal_ends_removes_its_locks_last() {
    let bench = CliFixture::with_users(1);
    let (stderr, _stdin) = (pipe(&bench, "unread"), pipe(&bench, "unwritten"));
    fill(&stderr);
    let redirect = format!("exec 2>{} <{}", bench.outside("unread").display(), bench.outside("unwritten").display());
    let call = bench.call(&["import", "-", "--sandbox", "--results", "users.results.csv", "--state", "users.state"]);
    let mut running = call.through_shell(&redirect).start();
    let locks = ["users.checkpoint.json.lock", "users.state.lock"];
    eventually("the locks", || locks.iter().all(|lock| bench.names().contains(*lock)));
    eventually("it waits for its input", || bench.names().len() > 1 + locks.len());
    let (told, mut gone_at) = (Instant::now(), None);
    running.signal(Signal::TERM);
    while !running.has_ended() {
        if locks.iter().any(|lock| !bench.names().contains(*lock)) {
            gone_at.get_or_insert_with(Instant::now);
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    // Writing the exit message alone takes a second.
    let held_for = gone_at.map_or(told.elapsed(), |gone: Instant| gone - told);
    assert!(held_for >= Duration::from_secs(1), "its locks were gone after {held_for:?} while it was at work");
    assert_eq!(running.wait().code, Some(4));
    assert_eq!(bench.names().into_iter().collect::<Vec<_>>(), ["users.csv"]);
}
