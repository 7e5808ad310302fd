//! What every end of a command leaves: refusals, signals and ordinary ends alike.

use std::fs::{self, OpenOptions};
use std::io::Write;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::server::{Server, imported};
use crate::support::{CliFixture, eventually, users};

/// The keys of a JSON object, those of `plan` and `latency_ms` included.
fn keys(summary: &Value) -> Vec<String> {
    let inner = |name: &str| summary[name].as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    let own = summary.as_object().unwrap().keys().cloned();
    own.chain(inner("plan")).chain(inner("latency_ms")).collect()
}

/// Every number in it is zero, but for the exit code.
fn has_only_zeros(summary: &Value) -> bool {
    match summary {
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Object(fields) => fields.iter().all(|(key, value)| key == "exit_code" || has_only_zeros(value)),
        Value::Array(_) | Value::Bool(_) | Value::String(_) | Value::Null => true,
    }
}

#[test]
fn a_refusal_writes_the_whole_summary_with_zeros() {
    for command in [&["import", "users.csv"][..], &["sync", "users.csv", "--state", "s.db"], &["verify", "users.csv"]] {
        let bench = CliFixture::with_users(3);
        let server = Server::new(|_| imported());
        let call = |flags: &[&str]| {
            let key = bench.key();
            let call = bench.call(command).args(&["--endpoint", &server.endpoint(), "--sdkappid", "1400000000", "--rate", "0"]);
            call.args(&["--secret-key-file", key.to_str().unwrap(), "--summary", "summary.json"]).args(flags).run()
        };
        let whole = call(&[]).summary;
        for (flags, code) in [(&["--ca-file", "missing.pem"][..], 2), (&["--results", "missing/r.csv"], 2)] {
            let refused = call(flags).exits(code);
            assert_eq!(keys(&refused.summary), keys(&whole), "{command:?} {flags:?}");
            assert!(has_only_zeros(&refused.summary), "{}", refused.summary);
            assert_eq!((&refused.summary["exit_code"], &refused.summary["outcome"]), (&code.into(), &"needs_fixing".into()));
        }
    }
}

#[test]
fn no_end_writes_over_another_file_of_the_command() {
    let bench = CliFixture::with_users(3);
    let server = Server::new(|_| imported());
    let key = bench.key();
    for own in ["users.csv", "./users.csv", "users.results.csv", key.to_str().unwrap()] {
        let before = fs::read(bench.path("users.csv")).unwrap();
        bench.import(&server).args(&["--in-flight", "0", "--summary", own]).run().exits(2);
        assert_eq!(fs::read(bench.path("users.csv")).unwrap(), before);
        assert!(!bench.path("users.results.csv").exists());
        assert!(fs::read_to_string(&key).unwrap().contains("SENTINEL"), "{own}");
    }
}

#[test]
fn a_signal_before_the_first_request_leaves_the_summary_and_no_lock() {
    let bench = CliFixture::new();
    let server = Server::new(|_| imported());
    let pipe = bench.outside("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0).unwrap();
    let mut writer = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    writer.write_all(users(5).as_bytes()).unwrap();
    let call = bench.import_of("-", &server).stem("out").args(&["--results", "out.results.csv"]);
    let running = call.through("/bin/sh", &["-c", &format!("exec \"$0\" \"$@\" < {}", pipe.display())]).start();
    eventually("what came in", || bench.names().contains("out.input.csv.new"));
    running.signal(Signal::TERM);
    let run = running.wait().exits(4).because("a signal came; nothing was sent");
    assert_eq!((&run.summary["exit_code"], &run.summary["outcome"]), (&4.into(), &"stopped".into()));
    assert!(has_only_zeros(&run.summary), "{}", run.summary);
    assert_eq!(bench.names().into_iter().collect::<Vec<_>>(), ["summary.json"]);
}
