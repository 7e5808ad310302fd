//! The limit from one process to the next on the same files, as the sandbox counts it.

use std::time::Duration;

use chatlift::sandbox::{Command, Sandbox, Settings};
use rustix::process::Signal;

use crate::binary::{Bench, KEY};

/// More rows than all processes come to.
const ROWS: u64 = 20_000;

/// Attempts at a measurement. Chosen.
const ATTEMPTS: usize = 3;

fn sandbox() -> Sandbox {
    Sandbox::start(Settings { limit_per_s: None, ..Settings::with_key(KEY.to_owned().into()) }).unwrap()
}

/// Starts process after process; each is ended by a signal after a time.
fn most_in_1s(flags: &[&str], command: Command, blows: &[(Signal, u64)]) -> usize {
    let (bench, sandbox) = (Bench::with_users(ROWS), sandbox());
    for (signal, after_ms) in blows {
        let running = bench.import_into("users.csv", &sandbox.endpoint()).args(flags).start();
        std::thread::park_timeout(Duration::from_millis(*after_ms));
        running.signal(*signal);
        running.wait();
    }
    let audit = sandbox.audit().of(command);
    assert!(audit.calls > 0);
    audit.max_calls_in_1s
}

#[test]
fn the_limit_holds_over_kills_and_stops() {
    let kills = [1_300, 1_200, 1_700, 1_150, 1_250].map(|ms| (Signal::KILL, ms));
    let mixed = [(Signal::KILL, 1_300), (Signal::TERM, 1_250), (Signal::INT, 1_600), (Signal::KILL, 1_200), (Signal::TERM, 1_200)];
    let check = |flags: &[&str], command, blows: &[(Signal, u64)], limit: usize| {
        // A busy machine's server reads some calls late, so that one too many seems to come; a limit that doesn't hold breaks every time.
        let seen: Vec<usize> = (0..ATTEMPTS).map(|_| most_in_1s(flags, command, blows)).take_while(|most| *most > limit).collect();
        assert!(seen.len() < ATTEMPTS, "{flags:?}, {blows:?}: {seen:?} calls in a second");
    };
    check(&["--rate", "200"], Command::AccountImport, &kills, 200);
    check(&["--rate", "200"], Command::AccountImport, &mixed, 200);
    check(&["--rate", "20", "--batch=strict"], Command::MultiaccountImport, &mixed, 20);
}

#[test]
fn a_finished_run_does_not_wait() {
    let (bench, sandbox) = (Bench::with_users(3), sandbox());
    bench.import_into("users.csv", &sandbox.endpoint()).run().exits(0);
    // A busy machine may take a second to start a process, but not each time.
    let took = [(); ATTEMPTS].map(|()| {
        let began = std::time::Instant::now();
        let run = bench.import_into("users.csv", &sandbox.endpoint()).run().exits(0);
        assert!(run.stderr.contains("finished earlier"), "{}", run.stderr);
        began.elapsed()
    });
    assert!(took.iter().any(|took| *took < Duration::from_millis(900)), "{took:?}");
}

#[test]
fn the_lock_file_has_the_time_of_the_last_call() {
    let (bench, sandbox) = (Bench::with_users(300), sandbox());
    bench.import_into("users.csv", &sandbox.endpoint()).args(&["--rate", "100"]).run().exits(0);
    let results = std::fs::metadata(bench.path("users.results.csv")).unwrap().modified().unwrap();
    let lock = std::fs::metadata(bench.path("users.checkpoint.json.lock")).unwrap().modified().unwrap();
    let apart = results.duration_since(lock).unwrap_or_else(|error| error.duration());
    assert!(apart < Duration::from_millis(900), "the last call left {apart:?} before the last line was written");
}
