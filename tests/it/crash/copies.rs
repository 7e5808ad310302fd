//! A real SIGKILL at any instant while an input is copied and after it: the same command always comes to its end.
//!
//! `CHATLIFT_SPOOL_SEED` repeats a failure; `CHATLIFT_SPOOL_FILES` sets how many files live through it.

use std::fmt::Write;
use std::time::Duration;

use chatlift::sandbox::{Sandbox, SandboxSettings};
use rustix::process::Signal;

use crate::support::packed::{encoded, gzip, zstd};
use crate::support::server::{Server, imported};
use crate::support::tools::{skipped, strace};
use crate::support::{CliFixture, KEY, side_by_side, users};

/// Files unless another number is asked for. Chosen: some seconds.
const FILES: u64 = 4;
/// Longest time after which a process is killed. Chosen: start, copy and first commits are over by then.
const KILL_AFTER_MAX: Duration = Duration::from_millis(400);
/// Processes that are killed for one file.
const KILLS: usize = 12;

#[test]
fn no_kill_while_an_input_is_copied_or_after_breaks_a_promise() {
    let number = |name: &str, usual: u64| std::env::var(name).map_or(usual, |text| text.parse().expect("it is a number"));
    let seed = number("CHATLIFT_SPOOL_SEED", fastrand::u64(..));
    println!("CHATLIFT_SPOOL_SEED={seed}");
    side_by_side(0..number("CHATLIFT_SPOOL_FILES", FILES), |file| lives_through(seed.wrapping_add(file)));
}

/// Each start notes in the lock file which files it has made, over what an earlier one has noted.
#[test]
fn a_kill_while_a_copy_is_noted_leaves_it_known() {
    let Some(strace) = strace() else {
        return skipped("kills while a copy is noted", "strace is not installed, or may not trace here");
    };
    for call in ["pwrite64", "ftruncate", "fsync"] {
        let (bench, server) = (CliFixture::new(), Server::new(|_| imported()));
        bench.write("users.csv.gz", gzip(users(6).as_bytes()));
        let import = || bench.import_of("users.csv.gz", &server).stem("users").at_any_rate();
        let killed = |call: &str, file: &str| {
            let (inject, absolute) = (format!("inject={call}:signal=KILL:when=1"), bench.path(file));
            let args = ["-D", "-f", "-o", "/dev/null", "-e", &inject, "-P", file, "-P", absolute.to_str().unwrap()];
            let run = import().through(strace.to_str().unwrap(), &args).run();
            assert_eq!(run.signal, Some(9), "{call} of {file}: {}", run.stderr);
        };
        killed("openat", "users.checkpoint.json.new");
        assert!(bench.names().contains("users.input.csv") && !bench.names().contains("users.checkpoint.json"), "{:?}", bench.names());
        killed(call, "users.checkpoint.json.lock");
        import().run().exits(0).imports_all(6);
    }
}

/// The run is finished when its last checkpoint is written, and needs its copy no more: the next process removes what a killed one left.
#[test]
fn a_kill_before_a_finished_run_removes_its_copy_leaves_no_copy_for_good() {
    let Some(strace) = strace() else {
        return skipped("a kill before a copy is removed", "strace is not installed, or may not trace here");
    };
    let (bench, server) = (CliFixture::new(), Server::new(|_| imported()));
    bench.write("users.csv.gz", gzip(users(6).as_bytes()));
    let import = || bench.import_of("users.csv.gz", &server).stem("users").at_any_rate();
    let absolute = bench.path("users.input.csv");
    let inject = "inject=unlink,unlinkat:signal=KILL:when=1";
    let args = ["-D", "-f", "-o", "/dev/null", "-e", inject, "-P", "users.input.csv", "-P", absolute.to_str().unwrap()];
    let run = import().through(strace.to_str().unwrap(), &args).run();
    assert_eq!(run.signal, Some(9), "{}", run.stderr);
    assert!(bench.names().contains("users.input.csv"), "{:?}", bench.names());
    import().run().exits(0).imports_all(6);
    assert!(!bench.names().contains("users.input.csv"), "{:?}", bench.names());
}

fn lives_through(seed: u64) {
    let mut chance = fastrand::Rng::with_seed(seed);
    let bench = CliFixture::new();
    let sandbox = Sandbox::start(SandboxSettings { limit_per_s: None, ..SandboxSettings::with_key(KEY.into()) }).unwrap();
    let rows = chance.u64(300..1_500);
    let mut text = "UserID,Nick,Note\n".to_owned();
    for row in 1..=rows {
        writeln!(text, "user{row},张伟 {row},{}", "记录".repeat(chance.usize(200..600))).unwrap();
    }
    let (bytes, flags): (Vec<u8>, &[&str]) = match chance.u8(..4) {
        0 => (gzip(text.as_bytes()), &[]),
        1 => (encoded(&text, "gb18030"), &["--encoding", "gb18030"]),
        2 => (zstd(&encoded(&text, "gb18030")), &["--encoding", "gb18030"]),
        _ => ([b"\xff\xfe", &*encoded(&text, "utf-16le")].concat(), &[]),
    };
    let is_stream = chance.bool();
    bench.write("users.csv", &bytes);
    let call = || {
        let call = bench.quiet_import_into(if is_stream { "-" } else { "users.csv" }, &sandbox.endpoint()).at_any_rate().args(flags);
        if is_stream { call.stdin(&bytes).stem("out").args(&["--results", "out.results.csv"]) } else { call }
    };
    for _ in 0..KILLS {
        let running = call().start();
        std::thread::park_timeout(KILL_AFTER_MAX.mul_f64(chance.f64().powi(2)));
        running.signal(Signal::KILL);
        running.wait();
    }
    let run = call().run();
    println!("seed {seed}: {rows} rows, stream {is_stream}, {} bytes, {:?}: {:?}", bytes.len(), flags, run.code);
    run.exits(0).imports_all(rows);
    let left: Vec<_> = bench.names().into_iter().filter(|name| name.contains(".input.csv")).collect();
    assert!(left.is_empty(), "seed {seed}: {left:?}");
    let results = if is_stream { "out.results.csv" } else { "users.results.csv" };
    bench.call(&["audit", "users.csv", "--results", results]).args(flags).run().exits(0);
}
