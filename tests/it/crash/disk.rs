//! The real binary on failing disks: strace injects errors into its system calls, or a small file system really fills up.
//!
//! If strace or mounting is not available, a line on stderr says what was skipped.

use crate::support::server::{Server, imported};
use crate::support::tools::{Mount, skipped, strace};
use crate::support::{Call, CliFixture, Run, eventually, side_by_side, users};

/// The most system calls of one kind that are tried; no run has as many. Chosen.
const CALLS_MAX: u32 = 12;
/// The files and the folder whose system calls may fail.
const JOURNAL: [&str; 6] =
    ["users.results.csv", "users.rejects.csv", "users.checkpoint.json", "users.checkpoint.json.new", "users.checkpoint.json.lock", "."];

/// An error that strace injects into a system call.
#[derive(Debug, Clone, Copy)]
struct Fault {
    call: &'static str,
    /// The error in strace's syntax.
    how: &'static str,
}

/// Twelve rows, three of them invalid, so that results and rejects both have content.
fn input() -> String {
    (users(10) + " bad,x\n@TIM#y,z\n").replace("user7,", " user7,")
}

const ROWS: u64 = 12;

/// The state of the files before the process.
#[derive(Debug, Clone, Copy)]
enum Earlier {
    Nothing,
    /// A run that was stopped after some rows, so that the thread that commits changes the first file.
    Stopped,
}

fn bench(earlier: Earlier, server: &Server) -> CliFixture {
    let bench = CliFixture::new();
    bench.write("users.csv", input());
    if let Earlier::Stopped = earlier {
        let endpoint = server.endpoint();
        bench.quiet_import_into("users.csv", &endpoint).at_any_rate().args(&["--limit", "3"]).run().exits(0);
    }
    bench
}

/// Runs the import while the n-th such system call of each thread fails. Returns the run, and strace's lines about the failed calls.
fn run_with_fault(bench: &CliFixture, server: &Server, strace: &str, fault: Fault, nth: u32) -> (Run, Vec<String>) {
    let trace = bench.outside("trace");
    let inject = format!("inject={}:{}:when={nth}", fault.call, fault.how);
    let files = files(bench, &JOURNAL);
    let mut args = vec!["-D", "-f", "-o", trace.to_str().unwrap(), "-e", &inject];
    args.extend(files.iter().map(String::as_str));
    let endpoint = server.endpoint();
    let call = bench.quiet_import_into("users.csv", &endpoint).against(server).at_any_rate().args(&["--max-invalid", "100"]);
    let run = call.through(strace, &args).run();
    let read = || std::fs::read_to_string(&trace).unwrap_or_default();
    eventually("the end of the trace", || read().contains("+++ exited with "));
    (run, read().lines().filter(|line| line.contains("(INJECTED)")).map(str::to_owned).collect())
}

/// Whether only setting the time of the last request failed, which is no reason to stop. The lock file itself is opened for reading as
/// well.
fn only_the_time_failed(failed_calls: &[String]) -> bool {
    failed_calls.iter().all(|line| line.contains("users.checkpoint.json.lock") && line.contains("O_WRONLY"))
}

/// strace's flags for system calls on these files, by the name that the process uses and by the absolute one.
fn files(bench: &CliFixture, names: &[&str]) -> Vec<String> {
    let absolute = |name: &&str| bench.path(name).to_str().unwrap().trim_end_matches("/.").to_owned();
    names.iter().flat_map(|name| ["-P".to_owned(), (*name).to_owned(), "-P".to_owned(), absolute(name)]).collect()
}

/// Whether the line with the reason names one of the files.
fn names_a_file(why: &str) -> bool {
    JOURNAL.iter().any(|file| why.contains(file)) && why.starts_with("error: cannot ")
}

fn afterwards_all_is_well(bench: &CliFixture, server: &Server, what: &str) {
    let endpoint = server.endpoint();
    let run = bench.quiet_import_into("users.csv", &endpoint).against(server).at_any_rate().args(&["--max-invalid", "100"]).run();
    assert_eq!(run.code, Some(3), "{what}: {}", run.stderr);
    let run = run.settles(ROWS);
    assert_eq!(run.statuses().iter().filter(|status| **status == "imported").count(), 9, "{what}");
    let rejects = run.rejects.expect("there are invalid rows");
    assert_eq!(rejects.lines().count(), 4, "{what}: {rejects}");
    bench.call(&["audit", "users.csv", "--results", "users.results.csv"]).run().exits(0);
}

/// Fails the first such system call, then the second, and so on until there are no more. Returns their number.
fn fail_each(strace: &str, earlier: Earlier, fault: Fault, expected: &[i32]) -> u32 {
    for nth in 1..=CALLS_MAX {
        let what = format!("{earlier:?}, {fault:?}, number {nth}");
        let server = Server::new(|_| imported());
        let bench = bench(earlier, &server);
        let before = server.calls();
        let (run, failed_calls) = run_with_fault(&bench, &server, strace, fault, nth);
        if failed_calls.is_empty() {
            assert_eq!(run.code, Some(3), "{what}: {}", run.stderr);
            return nth - 1;
        }
        let code = run.code.unwrap_or_else(|| panic!("{what}: {}", run.stderr));
        let expected = if only_the_time_failed(&failed_calls) { &[3] } else { expected };
        assert!(expected.contains(&code), "{what}: {failed_calls:?}: {}", run.stderr);
        if code == 3 {
            run.settles(ROWS);
        } else {
            let run = run.exits(code);
            assert!(names_a_file(run.why()), "{what}: {}", run.stderr);
            if code == 1 && server.calls() > before {
                tells_what_was_committed(&run, &what);
            }
        }
        afterwards_all_is_well(&bench, &server, &what);
    }
    panic!("{fault:?}: more than {CALLS_MAX} calls");
}

fn tells_what_was_committed(run: &Run, what: &str) {
    assert_eq!(run.summary["exit_code"], 1, "{what}: {}", run.summary);
    assert_eq!(run.summary["outcome"], "cannot_go_on", "{what}");
    assert_eq!(run.summary["rows"], run.checkpoint["run"]["settled"]["rows"], "{what}");
}

#[test]
fn every_system_call_of_the_journal_may_fail() {
    let Some(strace) = strace() else {
        return skipped("faults in the journal's system calls", "strace is not installed, or may not trace here");
    };
    let strace = strace.to_str().unwrap().to_owned();
    // A short write is no error: the next write continues it. A write of nothing is one.
    let faults = [
        (Fault { call: "pwrite64", how: "error=ENOSPC" }, &[1][..]),
        (Fault { call: "pwrite64", how: "error=EIO" }, &[1]),
        (Fault { call: "pwrite64", how: "retval=0" }, &[1]),
        (Fault { call: "pwrite64", how: "error=EINTR" }, &[3]),
        (Fault { call: "fdatasync", how: "error=EIO" }, &[1]),
        (Fault { call: "fdatasync", how: "error=ENOSPC" }, &[1]),
        (Fault { call: "fsync", how: "error=EIO" }, &[1]),
        (Fault { call: "fsync", how: "error=ENOSPC" }, &[1]),
        (Fault { call: "rename", how: "error=ENOSPC" }, &[1]),
        (Fault { call: "rename", how: "error=EIO" }, &[1]),
        (Fault { call: "ftruncate", how: "error=EIO" }, &[1]),
        (Fault { call: "openat", how: "error=ENOSPC" }, &[1]),
        (Fault { call: "openat", how: "error=EIO" }, &[1]),
        // The place is refused at the start, or the folder's permissions change during the run.
        (Fault { call: "openat", how: "error=EACCES" }, &[1, 2]),
        (Fault { call: "openat", how: "error=EROFS" }, &[1, 2]),
    ];
    let twice =
        [Earlier::Nothing, Earlier::Stopped].into_iter().flat_map(|earlier| faults.map(|(fault, expected)| (earlier, fault, expected)));
    side_by_side(twice, |(earlier, fault, expected)| {
        let count = fail_each(&strace, earlier, fault, expected);
        println!("{earlier:?}, {fault:?}: {count} calls");
        assert!(count > 0, "{earlier:?}, {fault:?} fails no call");
    });
}

#[test]
fn a_disk_that_fails_in_the_middle_of_a_run_keeps_what_was_committed() {
    let Some(strace) = strace() else {
        return skipped("a disk that fails in the middle of a run", "strace is not installed, or may not trace here");
    };
    let users = 2_500;
    for fault in ["fdatasync:error=EIO", "pwrite64:error=ENOSPC"] {
        let bench = CliFixture::with_users(users);
        let server = Server::new(|_| imported());
        let endpoint = server.endpoint();
        let call = || bench.quiet_import_into("users.csv", &endpoint).against(&server).at_any_rate();
        // The first commit of the writing thread has two of each, for results and checkpoint. The third belongs to the next commit.
        let inject = format!("inject={fault}:when=3");
        let files = files(&bench, &["users.results.csv", "users.checkpoint.json.new"]);
        let args: Vec<&str> = ["-D", "-f", "-o", "/dev/null", "-e", &inject].into_iter().chain(files.iter().map(String::as_str)).collect();
        let run =
            call().through(strace.to_str().unwrap(), &args).run().exits(1).because("users.results.csv").hints("the same command resumes");
        let committed = run.checkpoint["run"]["settled"]["rows"].as_u64().unwrap();
        assert!((1..users).contains(&committed), "{fault}: {committed}");
        tells_what_was_committed(&run, fault);
        assert_eq!(run.summary["imported"], committed);
        assert!(run.summary["calls"].as_u64().unwrap() >= committed, "{}", run.summary);
        let before = server.calls() as u64;
        let run = call().run().exits(0).imports_all(users);
        assert_eq!(run.summary["resumed_at_row"], committed);
        assert_eq!(server.calls() as u64 - before, users - committed, "{fault}: nothing that was committed is sent again");
    }
}

/// An import whose files are on the small file system.
fn onto_the_small_disk<'a>(bench: &'a CliFixture, server: &'a Server) -> Call<'a> {
    let call = bench.quiet_import_into("users.csv", &server.endpoint()).against(server).at_any_rate();
    call.args(&["--results", "small/users.results.csv"]).stem("small/users")
}

#[test]
fn a_disk_that_fills_up_is_told_and_gone_on_from() {
    const USERS: u64 = 3_000;
    let bench = CliFixture::with_users(USERS);
    // It has room for the first commit of 1,000 rows, but not for the third.
    let Some(mount) = Mount::new(bench.path("small"), "160k") else {
        return skipped("a disk that really fills up", "a file system can't be mounted here (it needs root)");
    };
    let server = Server::new(|_| imported());
    let call = || onto_the_small_disk(&bench, &server);
    let run = call().run().exits(1).because("small/users.").because("No space left").hints("make room");
    let first = run.checkpoint["run"]["settled"]["rows"].as_u64().unwrap();
    assert!((1..USERS).contains(&first), "{first}");
    tells_what_was_committed(&run, "a full disk");
    let run = call().run().exits(1).hints("make room");
    assert!(run.checkpoint["run"]["settled"]["rows"].as_u64().unwrap() >= first, "a disk that stays full loses nothing");
    mount.becomes("4m");
    let run = call().run().exits(0).imports_all(USERS);
    assert_eq!(run.checkpoint["run"]["settled"]["rows"], USERS);
    bench.call(&["audit", "users.csv", "--results", "small/users.results.csv"]).run().exits(0);
}

#[test]
fn a_disk_that_others_fill_is_told_and_gone_on_from() {
    let bench = CliFixture::with_users(100);
    let Some(_mount) = Mount::new(bench.path("small"), "64k") else {
        return skipped("a disk that others fill", "a file system can't be mounted here (it needs root)");
    };
    let filler = bench.path("small/filler");
    assert!(std::fs::write(&filler, vec![1; 1 << 20]).is_err(), "it is full");
    let server = Server::new(|_| imported());
    let call = || onto_the_small_disk(&bench, &server);
    let run = call().run().exits(1).because("small/users.").because("No space left").hints("make room");
    assert_eq!(server.calls(), 0, "it is found before the first call");
    drop(run);
    std::fs::remove_file(filler).unwrap();
    call().run().exits(0).imports_all(100);
}

/// Starts a run with this many free pages on the small file system. It must either start and be resumable, or leave no file.
fn starts_or_leaves_nothing(what: &[&str], free: usize) -> Option<bool> {
    const DISK: usize = 256 * 1024;
    const PAGE: usize = 4096;
    let bench = CliFixture::with_users(20);
    let server = Server::new(|_| imported());
    let _mount = Mount::new(bench.path("small"), &DISK.to_string())?;
    std::fs::write(bench.path("small/filler"), vec![1; DISK - free * PAGE]).unwrap();
    let (before, connection) = (bench.names(), crate::sync::connection(&bench, &server.endpoint()));
    let call = bench.call(what).args(&connection.each_ref().map(String::as_str)).args(&["--rate", "0"]).against(&server);
    let run = call.stdin(&users(20)).stem("small/users").run();
    let left: Vec<_> = std::fs::read_dir(bench.path("small")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let begins = left.iter().any(|name| name == "users.checkpoint.json") || bench.path("users.checkpoint.json").exists();
    if !begins {
        let run = run.exits(1).because("small").hints("make room");
        assert_eq!((left.len(), bench.names()), (1, before), "{what:?}, {free}: {left:?}: {}", run.stderr);
        assert_eq!(server.calls(), 0, "{what:?}, {free}");
    }
    Some(begins)
}

#[test]
fn a_start_that_fails_on_a_full_disk_leaves_nothing_behind() {
    let results = ["--results", "small/users.results.csv"];
    let starts = [
        vec!["import", "users.csv", results[0], results[1]],
        vec!["import", "-", results[0], results[1]],
        vec!["import", "users.csv", "--state", "small/s.db"],
        vec!["sync", "users.csv", "--state", "small/s.db"],
        vec!["sync", "users.csv", "--state", "s.db", results[0], results[1]],
        vec!["sync", "-", "--state", "s.db", results[0], results[1]],
    ];
    for what in starts {
        // The first starts have no room at all, the next ones for one or two of the files that a start creates.
        let Some(begins) = (0..4).map(|free| starts_or_leaves_nothing(&what, free)).collect::<Option<Vec<_>>>() else {
            return skipped("starts on a full disk", "a file system can't be mounted here (it needs root)");
        };
        assert!(!begins[0] && !begins[1], "{what:?}: {begins:?}");
    }
}

/// A signal while the files of a run are being created must either stop a run that can be resumed, or a start that removes its files.
#[test]
fn a_signal_while_a_run_begins_leaves_all_of_it_or_nothing() {
    let Some(strace) = strace() else {
        return skipped("signals while a run begins", "strace is not installed, or may not trace here");
    };
    let server = Server::new(|_| imported());
    let endpoint = server.endpoint();
    let written = ["users.results.csv", "users.checkpoint.json.new", "users.checkpoint.json", "s.db", "s.db-journal"];
    let cases = written.iter().flat_map(|file| [("openat", file), ("fsync,fdatasync", file), ("rename", file)]);
    side_by_side(cases, |(call, file)| {
        let bench = CliFixture::with_users(20);
        let inject = format!("inject={call}:signal=TERM:when=1");
        let files = files(&bench, &[file]);
        let args: Vec<&str> = ["-D", "-f", "-o", "/dev/null", "-e", &inject].into_iter().chain(files.iter().map(String::as_str)).collect();
        let import = || bench.quiet_import_into("users.csv", &endpoint).against(&server).at_any_rate().args(&["--state", "s.db"]);
        let run = import().through(strace.to_str().unwrap(), &args).run();
        let left = bench.names();
        let is_nothing = left.iter().all(|name| ["users.csv", "summary.json"].contains(&name.as_str()));
        let is_a_run = ["users.results.csv", "users.checkpoint.json", "s.db"].iter().all(|name| left.contains(*name));
        assert!([Some(0), Some(4)].contains(&run.code), "{call} of {file}: {:?}: {}", run.code, run.stderr);
        assert!(is_nothing || is_a_run && !left.contains("s.db-journal"), "{call} of {file}: {left:?}: {}", run.stderr);
        import().run().exits(0).imports_all(20);
    });
}

#[test]
fn a_sandbox_on_a_full_disk_leaves_nothing_on_it() {
    let bench = CliFixture::new();
    let Some(_mount) = Mount::new(bench.path("small"), "64k") else {
        return skipped("a sandbox on a full disk", "a file system can't be mounted here (it needs root)");
    };
    assert!(std::fs::write(bench.path("small/filler"), vec![0; 1024 * 1024]).is_err(), "it is full");
    for flags in [&["--accounts", "small/held.csv"][..], &["--call-log", "small/calls.csv"]] {
        bench.call(&[&["sandbox"], flags].concat()).run().exits(1).because("No space left").hints("make room");
        let left: Vec<_> = std::fs::read_dir(bench.path("small")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["filler"], "{flags:?}");
    }
}
