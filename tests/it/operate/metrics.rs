//! `--metrics-file`: what a scraper reads after each end of a command.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::SystemTime;

use crate::support::server::{Server, code, imported};
use crate::support::tools::skipped;
use crate::support::{Call, CliFixture, eventually};

/// The samples of a file in the text format of Prometheus, by name and labels. It is read as strictly as `promtool check metrics` does.
fn parsed(text: &str) -> BTreeMap<String, String> {
    assert!(text.ends_with('\n') && !text.contains("\n\n") && !text.contains('\r'), "{text:?}");
    let (mut samples, mut declared) = (BTreeMap::new(), BTreeSet::new());
    let (mut helped, mut typed) = (String::new(), String::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap();
            assert!(!words.trim().is_empty() && declared.insert(name.to_owned()), "{line}: one help, with words");
            name.clone_into(&mut helped);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!((name, kind), (helped.as_str(), "gauge"), "the type follows its help");
            name.clone_into(&mut typed);
        } else {
            let (name, rest) = line.split_once('{').unwrap();
            assert_eq!(name, typed, "samples follow their type");
            let is_name = name.starts_with("chatlift_") && name.chars().all(|char| char.is_ascii_lowercase() || char == '_');
            let ends_oddly =
                ["_total", "_count", "_sum", "_bucket", "_gauge", "_milliseconds", "_ms"].iter().any(|end| name.ends_with(end));
            assert!(is_name && !ends_oddly, "{name}");
            let (labels, value) = rest.rsplit_once("} ").unwrap();
            assert!(labels.split("\",").all(|label| label.contains("=\"")), "{line}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            let known = samples.insert(format!("{name}{{{labels}}}"), value.to_owned());
            assert!(known.is_none(), "{line} is there twice");
        }
    }
    check_with_promtool(text);
    samples
}

/// Asks `promtool` too, where it is installed.
fn check_with_promtool(text: &str) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    match command.stderr(std::process::Stdio::piped()).spawn() {
        Ok(mut child) => {
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        Err(error) => skipped("promtool", &format!("{error}; this test reads the file strictly itself")),
    }
}

struct Metrics {
    samples: BTreeMap<String, String>,
    labels: String,
}

impl Metrics {
    fn of(bench: &CliFixture, command: &str, job: &str) -> Self {
        assert_eq!(bench.mode("m.prom"), 0o644);
        Self { samples: parsed(&bench.read("m.prom")), labels: format!("command=\"{command}\",job=\"{job}\"") }
    }

    #[track_caller]
    fn get(&self, name: &str, own: &str) -> &str {
        let key = format!("{name}{{{}{own}}}", self.labels);
        self.samples.get(&key).unwrap_or_else(|| panic!("{key} is not in {:?}", self.samples))
    }

    #[track_caller]
    fn last_success(&self) -> &str {
        self.get("chatlift_last_success_timestamp_seconds", "")
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

fn with_metrics(call: Call<'_>) -> Call<'_> {
    call.args(&["--metrics-file", "m.prom"]).at_any_rate()
}

#[test]
fn every_end_of_an_import_is_counted_and_only_whole_runs_are_successes() {
    let bench = CliFixture::with_users(6);
    let server = Server::new(|request| if request.user_id == "user2" { code(70402) } else { imported() });
    let import = |flags: &[&str]| with_metrics(bench.import(&server)).args(flags).through_shell("umask 077").run();
    let metrics = || Metrics::of(&bench, "import", "users");
    import(&["--ca-file", "missing.pem"]).exits(2);
    assert_eq!((metrics().get("chatlift_exit_code", ""), metrics().last_success()), ("2", "0"));
    import(&["--dry-run"]).exits(0);
    assert_eq!((metrics().get("chatlift_exit_code", ""), metrics().last_success()), ("0", "0"));
    import(&["--limit", "3"]).exits(3);
    let limited = metrics();
    assert_eq!((limited.get("chatlift_rows", ",status=\"imported\""), limited.last_success()), ("2", "0"));
    let before = now();
    import(&[]).exits(3);
    let whole = metrics();
    let success: f64 = whole.last_success().parse().unwrap();
    assert!((before - 0.001..=now() + 0.001).contains(&success), "{success}");
    assert_eq!(whole.get("chatlift_last_run_timestamp_seconds", ""), whole.last_success());
    assert_eq!(whole.get("chatlift_rows", ",status=\"imported\""), "5");
    assert_eq!(whole.get("chatlift_rows", ",status=\"failed\""), "1");
    assert_eq!(whole.get("chatlift_rows", ",status=\"invalid\""), "0");
    assert_eq!(whole.get("chatlift_calls", ",api=\"account_import\""), "3");
    assert!(whole.get("chatlift_duration_seconds", "") < "60");
    import(&["--results", "missing/r.csv"]).exits(2);
    assert_eq!((metrics().last_success(), metrics().get("chatlift_exit_code", "")), (whole.last_success(), "2"), "it is kept");
    import(&["--job", "other \"job\""]).exits(3);
    assert_eq!(Metrics::of(&bench, "import", "other \\\"job\\\"").get("chatlift_exit_code", ""), "3");
    let left: Vec<_> = bench.names().into_iter().filter(|name| name.contains("m.prom")).collect();
    assert_eq!(left, ["m.prom"]);
}

#[test]
fn a_process_that_finds_another_one_at_work_leaves_its_metrics_alone() {
    let bench = CliFixture::with_users(50);
    let server = Server::new(|_| imported().after(std::time::Duration::from_millis(20)));
    let running = with_metrics(bench.import(&server)).args(&["--in-flight", "1"]).start();
    eventually("calls", || server.calls() >= 1);
    with_metrics(bench.import(&server)).run().exits(4).because("another chatlift");
    assert!(!bench.path("m.prom").exists());
    running.wait().exits(0);
    assert_eq!(Metrics::of(&bench, "import", "users").get("chatlift_exit_code", ""), "0");
}

#[test]
fn a_sync_has_its_plan_its_guards_and_its_state() {
    let bench = CliFixture::with_users(40);
    let server = Server::new(|_| imported());
    let key = bench.key();
    let sync = || {
        let call = bench.call(&["sync", "users.csv", "--state", "s.db", "--endpoint", &server.endpoint(), "--sdkappid", "1400000000"]);
        with_metrics(call).args(&["--secret-key-file", key.to_str().unwrap()]).run()
    };
    sync().exits(0);
    let first = Metrics::of(&bench, "sync", "users");
    assert_eq!(first.get("chatlift_plan_rows", ",op=\"create\""), "40");
    assert_eq!(first.get("chatlift_state_accounts", ""), "40");
    assert_eq!(first.get("chatlift_guard_tripped", ",guard=\"shrunk\""), "0");
    bench.write("users.csv", "UserID,Nick\nuser1,Nick 1\n");
    sync().exits(6);
    let guarded = Metrics::of(&bench, "sync", "users");
    assert_eq!(guarded.get("chatlift_guard_tripped", ",guard=\"shrunk\""), "1");
    assert_eq!(guarded.get("chatlift_guard_tripped", ",guard=\"empty\""), "0");
    assert_eq!(guarded.get("chatlift_plan_rows", ",op=\"missing\""), "39");
    assert_eq!((guarded.last_success(), guarded.get("chatlift_exit_code", "")), (first.last_success(), "6"));
    std::fs::remove_file(bench.path("users.csv")).unwrap();
    sync().exits(2);
    let refused = Metrics::of(&bench, "sync", "users");
    assert_eq!((refused.get("chatlift_plan_rows", ",op=\"create\""), refused.get("chatlift_state_accounts", "")), ("0", "40"));
}

#[test]
fn a_verification_has_its_findings() {
    let bench = CliFixture::with_users(3);
    with_metrics(bench.call(&["verify", "users.csv", "--sandbox"])).run().exits(3);
    let metrics = Metrics::of(&bench, "verify", "users");
    assert_eq!(metrics.get("chatlift_rows", ",status=\"missing\""), "3");
    assert_eq!(metrics.get("chatlift_calls", ",api=\"account_check\""), "1");
    assert!(metrics.last_success() != "0");
}
