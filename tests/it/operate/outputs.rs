//! The files that a command writes as a whole (summary, metrics, report, plan, `probe --json`, `sandbox --env-file`): one that can't be
//! written, or is another file of the command, is refused before anything else happens.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::support::server::{Server, imported};
use crate::support::{Call, CliFixture, KEY, Run, SDKAPPID};

/// The commands that end with files for others to read, with the flags for these files.
const COMMANDS: [(&[&str], &[&str]); 4] = [
    (&["import", "users.csv", "--state", "users.state"], &["--summary", "--metrics-file", "--report"]),
    (&["import", "users.csv", "--state", "users.state", "--dry-run"], &["--metrics-file", "--report"]),
    (&["sync", "users.csv", "--state", "users.state"], &["--summary", "--metrics-file", "--report", "--plan"]),
    (&["verify", "users.csv", "--state", "users.state"], &["--summary", "--metrics-file", "--report"]),
];

/// What each command reads or writes besides, as far as it is there from the start.
const OTHERS: [&str; 16] = [
    "users.csv",
    "./users.csv",
    "link.csv",
    "key",
    "ca.pem",
    "chatlift.toml",
    "users.state",
    "users.state.lock",
    "users.state-journal",
    "users.state-wal",
    "users.state-shm",
    "users.results.csv",
    "users.rejects.csv",
    "users.checkpoint.json",
    "users.checkpoint.json.lock",
    "quota.password",
];

/// A fixture with all of them. The key is in the folder, since its bytes are compared.
fn fixture() -> CliFixture {
    let bench = CliFixture::with_users(3);
    for name in OTHERS.iter().filter(|name| !bench.path(name).exists()) {
        match *name {
            "link.csv" => symlink("users.csv", bench.path(name)).unwrap(),
            "chatlift.toml" => bench.write(name, "quota-password-file = \"quota.password\"\n"),
            "users.checkpoint.json" => bench.write(name, "{}"),
            _ => bench.write(name, format!("the bytes of {name}")),
        }
    }
    bench
}

fn call<'a>(bench: &'a CliFixture, server: &Server, command: &[&str]) -> Call<'a> {
    let call = bench.call(command).args(&["--endpoint", &server.endpoint(), "--sdkappid", SDKAPPID]);
    call.args(&["--secret-key-file", "key", "--ca-file", "ca.pem", "--config", "chatlift.toml"])
}

/// It is refused in one line that names the file, and the hint names the flag; nothing else is said of it.
#[track_caller]
fn refused(run: Run, flag: &str, words: &str) {
    let run = run.exits(2).because(words).hints(flag);
    let said = run.stderr.lines().filter(|line| line.contains("cannot write") || line.contains(words)).count();
    assert_eq!(said, 1, "{flag} {words}: {}", run.stderr);
}

#[test]
fn no_output_is_written_over_another_file_of_the_command() {
    let (bench, server) = (fixture(), Server::new(|_| imported()));
    let before = bench.contents();
    for (command, flags) in COMMANDS {
        for (flag, other) in flags.iter().flat_map(|flag| OTHERS.map(|other| (*flag, other))) {
            if command[0] == "verify" && ["results.csv", "rejects.csv", "checkpoint"].iter().any(|of_run| other.contains(of_run)) {
                continue;
            }
            let run = call(&bench, &server, command).args(&[flag, other]).run();
            assert_eq!(bench.contents(), before, "{command:?} {flag} {other}");
            refused(run, flag, "named for two files at once");
        }
    }
    assert_eq!(server.connections(), 0);
}

/// `-` names no file, and yet there may be one: `import - < users.csv`.
#[test]
fn no_output_is_written_over_the_file_behind_standard_input() {
    let (bench, server) = (fixture(), Server::new(|_| imported()));
    let before = bench.contents();
    let commands: [(&[&str], &[&str]); 3] = [
        (&["import", "-"], &["--summary", "--metrics-file", "--report"]),
        (&["sync", "-", "--state", "s.db"], &["--summary", "--metrics-file", "--report", "--plan"]),
        (&["verify", "-"], &["--summary", "--metrics-file", "--report"]),
    ];
    for (command, flags) in commands {
        let reading = || call(&bench, &server, command).through_shell("exec <users.csv");
        for flag in flags {
            let run = reading().args(&["--results", "r.csv", flag, "users.csv"]).run();
            assert_eq!(bench.contents(), before, "{command:?} {flag}");
            refused(run, flag, "named for two files at once: it is standard input, too");
        }
        let run = bench.call(command).through_shell("exec <users.csv").args(&["--sandbox", "--results", "users.csv"]).run();
        run.exits(2).because("named for two files at once").hints("results");
        assert_eq!(bench.contents(), before, "{command:?} --results");
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_hard_link_is_the_file_that_it_leads_to() {
    let (bench, server) = (fixture(), Server::new(|_| imported()));
    for other in ["users.csv", "key", "ca.pem", "chatlift.toml", "users.state", "quota.password"] {
        fs::hard_link(bench.path(other), bench.path("hard")).unwrap();
        let before = bench.contents();
        for (command, flags) in COMMANDS {
            let flag = flags[flags.len() - 1];
            let run = call(&bench, &server, command).args(&[flag, "hard"]).run();
            refused(run, flag, "hard is named for two files at once: it is ");
            assert_eq!(bench.contents(), before, "{command:?} {flag} {other}");
        }
        fs::remove_file(bench.path("hard")).unwrap();
    }
    fs::hard_link(bench.path("users.csv"), bench.path("hard")).unwrap();
    for command in ["import", "verify"] {
        let run = bench.call(&[command, "users.csv", "--sandbox", "--results", "hard"]).run();
        run.exits(2).because("named for two files at once");
    }
    assert_eq!(server.connections(), 0);
}

/// Whether it is named with its folder, or found in PATH.
#[test]
fn no_output_is_written_over_the_program_that_is_called_at_the_end() {
    let (bench, server) = (fixture(), Server::new(|_| imported()));
    bench.write("hook", "#!/bin/sh\nexit 0\n");
    fs::set_permissions(bench.path("hook"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::hard_link(bench.path("hook"), bench.path("hard")).unwrap();
    let before = bench.contents();
    let search = format!("/nowhere:{}", bench.path("").display());
    for (command, flags) in COMMANDS {
        for (flag, program) in flags.iter().flat_map(|flag| ["./hook", "hook", "'hook' word"].map(|program| (*flag, program))) {
            for output in ["hook", "hard"] {
                let run = call(&bench, &server, command).env("PATH", &search).args(&["--on-end", program, flag, output]).run();
                assert_eq!(bench.contents(), before, "{command:?} {flag} {program}");
                refused(run, flag, "named for two files at once");
            }
        }
    }
    assert_eq!(server.connections(), 0);
}

/// Neither what a run goes on with, nor what a verification replaces.
#[test]
fn no_results_are_written_over_a_file_that_the_command_only_uses() {
    let (bench, server) = (CliFixture::with_users(2), Server::new(|_| imported()));
    let key = bench.key();
    bench.write("hook", "#!/bin/sh\nexit 0\n");
    fs::set_permissions(bench.path("hook"), fs::Permissions::from_mode(0o755)).unwrap();
    bench.write("chatlift.toml", "in-flight = 2\n");
    let before = (fs::read(&key).unwrap(), bench.contents());
    let commands: [(&[&str], &[&str]); 3] = [
        (&["import", "users.csv"], &["--results", "--rejects", "--checkpoint", "--state"]),
        (&["sync", "users.csv", "--state", "s.db"], &["--results", "--rejects", "--checkpoint"]),
        (&["verify", "users.csv"], &["--results", "--repair"]),
    ];
    for (command, flags) in commands {
        for (flag, other) in flags.iter().flat_map(|flag| [key.to_str().unwrap(), "hook", "chatlift.toml"].map(|other| (*flag, other))) {
            let call = bench.call(command).args(&["--endpoint", &server.endpoint(), "--sdkappid", SDKAPPID, "--config", "chatlift.toml"]);
            let call = call.args(&["--secret-key-file", key.to_str().unwrap(), "--on-end", "./hook", flag, other]);
            call.run().exits(2).because("named for two files at once").hints("results");
            assert_eq!((fs::read(&key).unwrap(), bench.contents()), before, "{command:?} {flag} {other}");
        }
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_state_that_is_no_file_is_refused_at_once_and_nothing_is_made() {
    let (bench, server) = (fixture(), Server::new(|_| imported()));
    let folder = bench.outside("places");
    fs::create_dir(&folder).unwrap();
    let pipe = folder.join("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let before = bench.contents();
    let places =
        [(pipe.to_str().unwrap(), "is a pipe, not a file"), ("/dev/null", "is a device, not a file"), (".", "is a folder, not a file")];
    let commands: [&[&str]; 5] = [
        &["import", "users.csv"],
        &["import", "users.csv", "--dry-run"],
        &["sync", "users.csv"],
        &["sync", "users.csv", "--dry-run"],
        &["verify", "users.csv"],
    ];
    for (place, words) in places {
        for command in commands {
            call(&bench, &server, command).args(&["--state", place]).run().exits(2).because(words).hints("--state");
        }
        for rest in [&[][..], &["export"], &["forget", "user1"]] {
            bench.call(&["state", place]).args(rest).run().exits(2).because(words);
        }
        assert_eq!(bench.contents(), before, "{place}");
    }
    for flag in ["--accounts", "--call-log"] {
        bench.call(&["sandbox", "--run", "true", flag, places[0].0]).run().exits(2).because(places[0].1).hints(flag);
    }
    let left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!((left, Path::new("/dev/null.lock").exists(), server.connections()), (vec!["pipe".into()], false, 0));
}

/// The limit of `ulimit -f` sends a signal that ends whoever does not take it.
#[test]
fn a_file_that_outgrows_its_limit_ends_a_run_as_a_full_disk_does() {
    let bench = CliFixture::with_users(3_000);
    let call = bench.call(&[
        "import",
        "users.csv",
        "--sandbox",
        "--rate",
        "0",
        "--no-progress",
        "--summary",
        "s.json",
        "--metrics-file",
        "m.prom",
    ]);
    let call = call.args(&["--report", "r.html", "--on-end", "/bin/sh -c 'grep SigIgn /proc/self/status > got'"]);
    let run = call.through_shell("ulimit -f 128").run();
    run.exits(1).because("File too large").hints("ulimit -f");
    assert!(bench.read("s.json").contains("\"exit_code\": 1") && bench.read("m.prom").contains("chatlift_exit_code"));
    // What is started from here gets the signal's default effect.
    let ignored = u64::from_str_radix(bench.read("got").trim_start_matches("SigIgn:").trim(), 16).unwrap();
    assert_eq!(ignored & (1 << (rustix::process::Signal::XFSZ.as_raw() - 1)), 0, "{ignored:x}");
    let sync = bench.call(&["sync", "users.csv", "--state", "s.db", "--results", "sync.csv", "--sandbox", "--rate", "0", "--no-progress"]);
    sync.through_shell("ulimit -f 16").run().exits(1);
}

/// One rule: what a link leads to is written, whether it is there yet or not.
#[test]
fn a_link_to_a_place_without_a_file_is_written_through() {
    let bench = CliFixture::with_users(2);
    fs::create_dir(bench.path("there")).unwrap();
    let flags = ["--summary", "--metrics-file", "--report", "--plan"];
    for flag in flags {
        symlink(format!("there/{}", &flag[2..]), bench.path(&flag[2..])).unwrap();
    }
    let call = bench.call(&["sync", "users.csv", "--sandbox", "--state", "s.db", "--no-progress", "--rate", "0"]);
    let run = flags.iter().fold(call, |call, flag| call.args(&[flag, &flag[2..]])).run();
    run.exits(0);
    for name in flags.map(|flag| &flag[2..]) {
        assert!(bench.path(name).is_symlink() && bench.path("there").join(name).is_file(), "{name}");
    }
    assert_eq!(fs::read_dir(bench.path("there")).unwrap().count(), flags.len(), "and nothing else is left there");
    symlink("nowhere/report", bench.path("lost")).unwrap();
    let lost = bench.call(&["import", "users.csv", "--sandbox", "--results", "r.csv", "--report", "lost"]).run();
    refused(lost, "--report", "cannot write the report lost");
}

#[test]
fn a_name_that_is_too_long_is_refused_with_its_own_flag() {
    let (bench, server) = (fixture(), Server::new(|_| imported()));
    for (command, flags) in COMMANDS {
        for (flag, length) in flags.iter().flat_map(|flag| [251, 255, 300].map(|length| (*flag, length))) {
            let run = call(&bench, &server, command).args(&[flag, &"x".repeat(length)]).run();
            assert!(!run.stderr.contains("--results"), "{flag}: {}", run.stderr);
            refused(run, flag, "too long");
        }
    }
    bench.call(&["import", "users.csv", "--sandbox", "--state", &"x".repeat(252)]).run().exits(2).because("too long").hints("--state");
    assert_eq!(server.connections(), 0);
}

#[test]
fn no_two_outputs_are_one_file() {
    let (bench, server) = (fixture(), Server::new(|_| imported()));
    for (command, flags) in COMMANDS {
        for (flag, other) in flags.iter().flat_map(|flag| flags.iter().map(move |other| (*flag, *other))).filter(|(a, b)| a < b) {
            let run = call(&bench, &server, command).args(&[flag, "same", other, "./same"]).run();
            run.exits(2).because("named for two files at once").hints("another file");
            assert!(!bench.path("same").exists(), "{command:?} {flag} {other}");
        }
    }
    for (results, own) in [("--results", "v.csv"), ("--repair", "r.csv")] {
        let run = call(&bench, &server, &["verify", "users.csv", results, own, "--metrics-file", own]).run();
        refused(run, "--metrics-file", "named for two files at once");
    }
    // Where a file is made that then takes its name.
    bench.write(".s.json.tmp", "kept");
    let run = call(&bench, &server, &["import", ".s.json.tmp", "--summary", "s.json"]).run();
    refused(run, "--summary", "named for two files at once");
    assert_eq!((bench.read(".s.json.tmp").as_str(), server.connections()), ("kept", 0));
}

#[test]
fn an_output_that_cannot_be_written_is_refused_before_the_first_request() {
    let (bench, server) = (fixture(), Server::new(|_| imported()));
    let pipe = bench.outside("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    symlink("loop", bench.path("loop")).unwrap();
    let before = bench.contents();
    let places = [
        (pipe.to_str().unwrap(), "a pipe"),
        ("/dev/full", "a device"),
        ("/dev/null", "a device"),
        ("/dev/stdout", "standard output"),
        ("/proc/self/fd/1", "standard output"),
        ("/dev/stderr", "standard error"),
        ("/proc/x.html", "/proc/x.html"),
        ("/sys/x.html", "/sys/x.html"),
        (".", "a folder"),
        ("new/", "a folder"),
        ("new/..", "a folder"),
        ("missing/r.html", "there is no folder missing"),
        ("users.csv/r.html", "there is no folder users.csv"),
        ("loop", "loop"),
    ];
    for (command, flags) in COMMANDS {
        for (flag, (place, words)) in flags.iter().flat_map(|flag| places.map(|place| (*flag, place))) {
            let is_stream = match flag {
                "--summary" => {
                    place == pipe.to_str().unwrap() || ["/dev/null", "/dev/stdout", "/proc/self/fd/1", "/dev/stderr"].contains(&place)
                }
                "--plan" => ["/dev/stdout", "/proc/self/fd/1"].contains(&place),
                _ => false,
            };
            if is_stream {
                continue;
            }
            refused(call(&bench, &server, command).args(&[flag, place]).run(), flag, words);
            assert_eq!(bench.contents(), before, "{command:?} {flag} {place}");
        }
    }
    assert_eq!(server.connections(), 0);
}

/// Nothing is said twice: neither of a pipe that nobody reads, nor of an output that is refused while others are written.
#[test]
fn a_refused_output_leaves_the_others_written() {
    let (bench, server) = (fixture(), Server::new(|_| imported()));
    let pipe = bench.outside("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let begins = |flags: &[&str]| call(&bench, &server, &["import", "users.csv", "--results", "r.csv"]).args(flags).run();
    let run = begins(&["--summary", pipe.to_str().unwrap(), "--metrics-file", "m.prom", "--report", "r.html"]);
    refused(run, "--summary", "nobody reads");
    let run = begins(&["--summary", "s.json", "--metrics-file", "/dev/full", "--report", "r.html"]);
    refused(run, "--metrics-file", "a device");
    assert!(bench.read("s.json").contains("\"exit_code\": 2") && bench.read("r.html").contains("exit code 2"));
    let run = begins(&[
        "--summary",
        "s.json",
        "--metrics-file",
        "m.prom",
        "--report",
        "/dev/full",
        "--on-end",
        "/bin/sh -c 'echo \"<$CHATLIFT_REPORT>\" > got'",
    ]);
    refused(run, "--report", "a device");
    assert!(bench.read("m.prom").contains("chatlift_exit_code{command=\"import\",job=\"users\"} 2"));
    assert_eq!((bench.read("got").as_str(), server.connections()), ("<>\n", 0));
}

/// What a summary, and a plan, may be besides a file.
#[test]
fn streams_take_what_is_written_once() {
    let bench = CliFixture::with_users(2);
    let sync =
        |flags: &[&str]| bench.call(&["sync", "users.csv", "--sandbox", "--state", "s.db", "--no-progress", "--dry-run"]).args(flags).run();
    for summary in ["/dev/null", "/dev/stdout", "/dev/stderr", "/dev/fd/2"] {
        let run = sync(&["--summary", summary]).exits(0);
        assert_eq!(run.stdout.contains("\"exit_code\": 0"), summary == "/dev/stdout", "{summary}");
        assert_eq!(run.stderr.contains("\"exit_code\": 0"), summary.starts_with("/dev/stderr") || summary == "/dev/fd/2", "{summary}");
    }
    let plan = sync(&["--plan", "/dev/stdout"]).exits(0).stdout;
    assert!(plan.starts_with("op,row,line,UserID,reason\ncreate,1,2,user1,"), "{plan}");
}

#[test]
fn what_probe_and_sandbox_write_is_judged_in_the_same_way() {
    let (bench, server) = (fixture(), Server::new(|_| imported()));
    let pipe = bench.outside("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let before = bench.contents();
    let places = [
        (pipe.to_str().unwrap(), "a pipe"),
        ("/dev/full", "a device"),
        ("/dev/null", "a device"),
        ("/proc/x", "/proc/x"),
        (".", "a folder"),
        ("missing/p", "there is no folder missing"),
        ("key", "named for two files at once"),
    ];
    for (place, words) in places {
        refused(call(&bench, &server, &["probe"]).args(&["--json", place]).run(), "--json", words);
        let sandbox = bench.call(&["sandbox", "--run", "true", "--secret-key-file", "key", "--env-file", place]);
        refused(sandbox.run(), "--env-file", words);
    }
    for other in ["ca.pem", "chatlift.toml", "quota.password"] {
        refused(call(&bench, &server, &["probe"]).args(&["--json", other]).run(), "--json", "named for two files at once");
    }
    assert_eq!((bench.contents(), server.connections()), (before, 0));
    let run = bench.call(&["probe", "--sandbox", "--json", "/dev/stdout"]).run().exits(0);
    assert!(run.stdout.contains("\"exit_code\": 0"), "{}", run.stdout);
}

/// They would be waited for, or read without an end.
#[test]
fn the_sandbox_keeps_its_accounts_and_its_log_in_files_alone() {
    let bench = CliFixture::new();
    let pipe = bench.outside("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    for flag in ["--accounts", "--call-log"] {
        for (place, words) in [(pipe.to_str().unwrap(), "is a pipe"), ("/dev/full", "is a device")] {
            bench.call(&["sandbox", "--run", "true", flag, place]).run().exits(2).because(words).hints(flag);
        }
    }
}

/// A pipe would be waited for, by a process that no signal ends.
#[test]
fn a_state_is_no_pipe_and_no_device() {
    let bench = CliFixture::with_users(1);
    let pipe = bench.outside("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    for (place, words) in [(pipe.to_str().unwrap(), "it is a pipe"), ("/dev/full", "it is a device")] {
        for command in ["import", "sync", "verify"] {
            bench.call(&[command, "users.csv", "--sandbox", "--state", place]).run().exits(2).because(words).hints("--state");
        }
        bench.call(&["sync", "users.csv", "--sandbox", "--dry-run", "--state", place]).run().exits(2).because(words);
        for what in [&[][..], &["export"], &["forget", "a"]] {
            bench.call(&["state", place]).args(what).run().exits(2).because(words);
        }
    }
    assert_eq!(bench.names().into_iter().collect::<Vec<_>>(), ["users.csv"]);
}

/// The files that a run goes on with can't be made there either.
#[test]
fn results_and_state_in_a_place_that_takes_no_files_are_refused() {
    let (bench, server) = (fixture(), Server::new(|_| imported()));
    let key = bench.key();
    let call = |command: &[&str]| {
        let call = bench.call(command).args(&["--endpoint", &server.endpoint(), "--sdkappid", SDKAPPID, "--no-progress"]);
        call.args(&["--secret-key-file", key.to_str().unwrap()])
    };
    for (flag, place) in [("--results", "/proc/r.csv"), ("--rejects", "/proc/r.csv"), ("--checkpoint", "/proc/c.json")] {
        call(&["import", "users.csv"]).args(&[flag, place]).run().exits(2).because("/proc/").hints(flag);
        call(&["sync", "users.csv", "--state", "new.db"]).args(&[flag, place]).run().exits(2).because("/proc/").hints(flag);
    }
    call(&["import", "users.csv", "--state", "/proc/s.db"]).run().exits(2).because("/proc/");
    call(&["sync", "users.csv", "--state", "/proc/s.db"]).run().exits(2).because("/proc/");
    for (flag, place) in [("--results", "/proc/v.csv"), ("--repair", "/proc/r.csv")] {
        call(&["verify", "users.csv", flag, place]).run().exits(2).because("/proc/").hints("--");
    }
    assert_eq!(server.connections(), 0);
    assert!(Path::new(&key).exists() && fs::read_to_string(key).unwrap().contains(KEY));
}
