//! A run and its surroundings: signals at any time, other processes, pipes, names, numbers, and the limits of the machine.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::server::{Server, imported};
use crate::support::{CliFixture, KEY, SDKAPPID, eventually, users};

/// Answers each request after some milliseconds.
fn steady() -> Server {
    Server::new(|_| imported().after(Duration::from_millis(20)))
}

/// A named pipe outside the folder that is searched for secrets, because the search would wait for it.
fn fifo(bench: &CliFixture) -> PathBuf {
    let path = bench.outside("pipe");
    mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    path
}

#[test]
fn a_hangup_stops_the_run_as_other_signals_do() {
    let bench = CliFixture::with_users(100);
    let server = steady();
    let running = bench.import(&server).at_any_rate().args(&["--in-flight", "4"]).start();
    eventually("calls", || server.calls() >= 20);
    running.signal(Signal::HUP);
    let run = running.wait().exits(4).because("signal").hints("the same command");
    assert_eq!(run.summary["outcome"], "stopped");
    bench.import(&server).at_any_rate().run().exits(0).imports_all(100);
    assert_eq!(server.calls(), 100, "what was in flight has settled before the end");
}

#[test]
fn a_hangup_that_is_ignored_stays_ignored() {
    let bench = CliFixture::with_users(60);
    let server = steady();
    let call = bench.import(&server).at_any_rate().args(&["--in-flight", "2"]).usually(&["--timeout=20"]);
    let running = call.through_shell("trap '' HUP").start();
    eventually("calls", || server.calls() >= 5);
    running.signal(Signal::HUP);
    running.wait().exits(0).imports_all(60);
}

#[test]
fn a_signal_while_standard_input_is_copied_leaves_no_partial_file() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let bench = CliFixture::new();
        let server = steady();
        let pipe = fifo(&bench);
        let mut writer = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        writer.write_all(users(50).as_bytes()).unwrap();
        let call = bench.import_of("-", &server).stem("out").args(&["--results", "out.results.csv"]).usually(&["--timeout=20"]);
        let running = call.through("/bin/sh", &["-c", &format!("exec \"$0\" \"$@\" < {}", pipe.display())]).start();
        eventually("what came in", || bench.names().contains("out.input.csv.new"));
        let began = Instant::now();
        running.signal(signal);
        running.wait().exits(4).because("signal");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(bench.names().into_iter().collect::<Vec<_>>(), ["summary.json"], "every end has its summary");
        assert_eq!(server.connections(), 0);
    }
}

#[test]
fn a_signal_ends_a_check_and_an_audit_of_an_endless_pipe() {
    let bench = CliFixture::with_users(2);
    let pipe = fifo(&bench);
    let pipe = pipe.to_str().unwrap();
    let _writer = OpenOptions::new().read(true).write(true).open(pipe).unwrap();
    bench.write("r.csv", "row,line,UserID,status,error_code,error_info,attempts,finished_at\n");
    for args in [&["check", pipe][..], &["audit", pipe, "--results", "r.csv"], &["audit", "users.csv", "--results", pipe]] {
        let running = bench.call(args).start();
        running.takes_signals();
        std::thread::park_timeout(Duration::from_millis(300));
        running.signal(Signal::TERM);
        running.wait().exits(4).because("signal");
    }
}

#[test]
fn a_second_process_is_refused_with_the_first_ones_number() {
    let bench = CliFixture::with_users(60);
    let server = steady();
    for _ in 0..2 {
        let running = bench.import(&server).at_any_rate().args(&["--in-flight", "2"]).start();
        let before = server.calls();
        eventually("calls", || server.calls() >= before + 2);
        fs::remove_file(bench.path("summary.json")).unwrap_or_default();
        let second =
            bench.import(&server).at_any_rate().run().exits(4).because("another chatlift").hints(&format!("process {} ", running.id()));
        second.hints("one process at a time");
        assert!(!bench.names().contains("summary.json"), "another's summary is not ours to write");
        // The next process is another one, although the lock file still contains the number of this one.
        running.signal(Signal::KILL);
        running.wait();
    }
    bench.import(&server).at_any_rate().run().exits(0).imports_all(60);
}

#[test]
fn a_start_that_fails_leaves_no_file_behind() {
    let server = Server::new(|_| imported());
    let check = |text: &str, flags: &[&str], code: i32| {
        let bench = CliFixture::new();
        bench.write("users.csv", text);
        bench.import(&server).args(flags).run().exits(code);
        let left: Vec<_> = bench.names().into_iter().filter(|name| name != "users.csv" && name != "summary.json").collect();
        assert!(left.is_empty(), "{flags:?}: {left:?}");
    };
    check("name\na\n", &[], 2);
    check("UserID\n\"a\n", &[], 2);
    check("UserID\na\n", &["--ca-file", "missing.pem"], 2);
    check("UserID\na\n", &["--ca-file", "users.csv"], 2);
    check("UserID\na\n", &["--state", "missing/state.db"], 2);
    check("UserID\na\n", &["--results", "missing/r.csv"], 2);
    check("UserID\na\n", &["--rejects", "users.csv"], 2);
    check("name\na\n", &["--state", "state.db"], 2);
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_process_at_work_cannot_be_dumped() {
    let bench = CliFixture::with_users(60);
    let server = steady();
    // /proc shows a process that may be dumped as its owner's, and another one as root's. The test may run as root itself.
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("chatlift");
    // A copy is run in a process of its own, because a program cannot be run while this process, or one that another test is just starting,
    // has it open for writing.
    assert!(Command::new("cp").arg(env!("CARGO_BIN_EXE_chatlift")).arg(&program).status().unwrap().success());
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let key = folder.path().join("key");
    fs::write(&key, KEY).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let work = folder.path().join("work");
    fs::create_dir(&work).unwrap();
    fs::copy(bench.path("users.csv"), work.join("users.csv")).unwrap();
    let mut command = Command::new(&program);
    command.args([
        "import",
        "users.csv",
        "--endpoint",
        &server.endpoint(),
        "--sdkappid",
        SDKAPPID,
        "--in-flight",
        "2",
        "--secret-key-file",
    ]);
    command.arg(&key).env_clear().current_dir(&work).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if rustix::process::geteuid().is_root() {
        const NOBODY: u32 = 65_534;
        for path in [&key, &work, &work.join("users.csv")] {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        command.uid(NOBODY).gid(NOBODY);
    }
    let mut child = command.spawn().unwrap();
    eventually("calls", || server.calls() >= 2);
    let process = Path::new("/proc").join(child.id().to_string());
    assert_eq!(fs::metadata(process.join("environ")).unwrap().uid(), 0, "a core dump would hold the key");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(4));
}

#[test]
fn a_key_is_accepted_as_editors_save_it_and_other_contents_are_named() {
    let bench = CliFixture::with_users(1);
    let server = Server::new(|_| imported());
    for text in [format!("\u{feff}{KEY}\r\n"), format!("\n  {KEY} \t\n\n")] {
        fs::write(bench.key(), text).unwrap();
        bench.import(&server).args(&["--restart"]).run().exits(0).imports_all(1);
    }
    let calls = server.calls();
    let utf16: Vec<u8> = format!("\u{feff}{KEY}\n").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let wrong: [(Vec<u8>, &str); 5] = [
        (format!("\"{KEY}\"\n").into(), "quotes"),
        (format!("'{KEY}'\n").into(), "quotes"),
        (format!("SECRET_KEY={KEY}\n").into(), "NAME="),
        (utf16, "UTF-16"),
        (format!("{KEY}\n{KEY}\n").into(), "two lines"),
    ];
    for (text, what) in wrong {
        fs::write(bench.key(), &text).unwrap();
        bench.import(&server).args(&["--restart"]).run().exits(2).because(what);
        let Ok(text) = String::from_utf8(text) else { continue };
        if text.contains('\0') {
            continue;
        }
        let call = bench.call(&["import", "users.csv", "--restart", "--endpoint", &server.endpoint(), "--sdkappid", SDKAPPID]);
        call.env("CHATLIFT_SECRET_KEY", text).run().exits(2).because(what).because("CHATLIFT_SECRET_KEY");
    }
    assert_eq!(server.calls(), calls);
}

#[test]
fn a_key_may_come_through_a_pipe_and_waiting_for_it_is_bounded() {
    let bench = CliFixture::with_users(1);
    let server = Server::new(|_| imported());
    let pipe = fifo(&bench);
    let mut writer = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let args =
        ["import", "users.csv", "--endpoint", &server.endpoint(), "--sdkappid", SDKAPPID, "--secret-key-file", pipe.to_str().unwrap()];
    let running = bench.call(&args).against(&server).start();
    running.takes_signals();
    std::thread::park_timeout(Duration::from_millis(100));
    running.signal(Signal::TERM);
    running.wait().exits(4);
    let running = bench.call(&args).against(&server).start();
    writer.write_all(format!("{KEY}\n").as_bytes()).unwrap();
    // The other process must have opened its end before this one is closed.
    eventually("the key", || rustix::io::ioctl_fionread(&writer).unwrap() == 0);
    drop(writer);
    running.wait().exits(0).imports_all(1);
}

#[test]
fn times_beyond_any_clock_are_refused() {
    let bench = CliFixture::with_users(1);
    let server = Server::new(|_| imported());
    let wrong = [
        ["--max-outage", "500000000000years"],
        ["--max-outage", "18446744073709551615s"],
        ["--max-outage", "99999999999999999999years"],
        ["--timeout", "1e300"],
        ["--timeout", "1e-300"],
        ["--timeout", "nan"],
        ["--rate", "4294967296"],
        ["--rate", "-1"],
        ["--in-flight", "4294967295"],
        ["--max-attempts", "4294967296"],
        ["--limit", "18446744073709551616"],
        ["--max-invalid", "1e300"],
    ];
    for flags in wrong {
        let run = bench.import(&server).args(&flags).run();
        assert_eq!(run.code, Some(2), "{flags:?}: {}", run.stderr);
        assert!(!run.stderr.contains("panicked"), "{flags:?}: {}", run.stderr);
    }
    assert_eq!(server.connections(), 0);
    let most =
        ["--max-outage", "100000000000years", "--rate", "4294967295", "--max-attempts", "4294967295", "--limit", "18446744073709551615"];
    bench.import(&server).args(&most).run().exits(0).imports_all(1);
}
