//! `--status`: what a run shows while it lasts, to whom, and to whom not.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::ports::unused_port;
use crate::support::server::{Server, code, imported};
use crate::support::{Call, CliFixture, Running, eventually};

/// An answer: its status, its head and its body.
pub(super) struct Answer {
    pub(super) status: u16,
    head: String,
    pub(super) body: String,
}

/// Asks the server of a run.
pub(super) fn ask(address: &str, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    Answer { status: head[9..12].parse().unwrap(), head: head.to_lowercase(), body: body.to_owned() }
}

pub(super) fn get(address: &str, path: &str) -> Answer {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n"))
}

fn json(address: &str) -> Value {
    serde_json::from_str(&get(address, "/status.json").body).unwrap()
}

/// Starts a command that serves its page, and returns where.
pub(super) fn serving(call: Call<'_>) -> (Running<'_>, String) {
    let running = call.args(&["--status", "127.0.0.1:0"]).start();
    let address = |stderr: &str| {
        let (_, rest) = stderr.split_once("the page of this run: http://")?;
        rest.split_once('/').map(|(address, _)| address.to_owned())
    };
    eventually("it serves its page", || address(&running.stderr()).is_some());
    let address = address(&running.stderr()).unwrap();
    (running, address)
}

/// Users of a run that is still at work when it is stopped, however slow the machine is.
const MANY: u64 = 4_000;

/// Stops a run, which ends as one that can be resumed.
fn stop(running: Running<'_>) {
    running.signal(Signal::TERM);
    running.wait().exits(4);
}

/// An import that takes 20 ms for each user.
fn slow_import<'a>(bench: &'a CliFixture, server: &'a Server) -> Call<'a> {
    bench.quiet_import_into("users.csv", &server.endpoint()).against(server).args(&["--in-flight", "1", "--rate", "0"])
}

#[test]
fn a_run_shows_counts_and_no_user_id_while_it_lasts() {
    let bench = CliFixture::with_users(MANY);
    let server = Server::new(|request| if request.user_id == "user7" { code(70402) } else { imported() }.after(Duration::from_millis(20)));
    let (running, address) = serving(slow_import(&bench, &server));
    eventually("rows are processed", || json(&address)["rows_done"].as_u64() > Some(10));
    eventually("the rows of the input are counted", || json(&address)["rows_total"] == MANY);
    let status = json(&address);
    assert_eq!((&status["phase"], &status["outcome"], &status["exit_code"]), (&"running".into(), &"running".into(), &Value::Null));
    assert!(status["rows"].as_u64() > Some(10) && status["failed"] == 1 && status["codes"]["70402"] == 1, "{status}");
    assert!(status["apis"]["account_import"]["calls"].as_u64() > Some(10), "{status}");
    let page = get(&address, "/");
    assert_eq!(page.status, 200);
    assert!(
        page.head.contains("content-type: text/html; charset=utf-8") && page.head.contains("content-security-policy: default-src 'none'")
    );
    assert!(page.body.contains("of 4,000 rows processed") && page.body.contains("70402"), "{}", page.body);
    for secret in ["user7", "user1", "the reason of", bench.path("").to_str().unwrap()] {
        for path in ["/", "/metrics", "/status.json"] {
            assert!(!get(&address, path).body.contains(secret), "{path} has {secret}");
        }
    }
    assert_eq!(["/livez", "/healthz", "/x"].map(|path| get(&address, path).status), [200, 200, 404]);
    let host = |host: &str| ask(&address, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).status;
    assert_eq!(["localhost", "evil.example", "127.0.0.1.evil.example"].map(host), [200, 403, 403]);
    let posted = ask(&address, &format!("POST /metrics HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n"));
    assert!(posted.status == 405 && posted.head.contains("allow: get, head"));
    stop(running);
    assert!(TcpStream::connect(&address).is_err(), "the page ends with the run");
}

/// The samples of an exposition by name and labels; it is read as strictly as the standard says.
fn open_metrics(text: &str) -> BTreeMap<String, f64> {
    let lines: Vec<&str> = text.strip_suffix("# EOF\n").expect("it ends with its end").lines().collect();
    let (mut samples, mut families, mut current) = (BTreeMap::new(), BTreeSet::new(), (String::new(), String::new()));
    for line in lines {
        assert!(!line.is_empty() && line.trim_end() == line, "{line:?}");
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(families.insert(name.to_owned()), "{name} is there twice");
            current = (name.to_owned(), kind.to_owned());
        } else if let Some(help) = line.strip_prefix("# HELP ") {
            assert!(help.starts_with(&format!("{} ", current.0)), "{line}");
        } else {
            let (name, rest) = line.split_once('{').unwrap();
            let expected = if current.1 == "counter" { format!("{}_total", current.0) } else { current.0.clone() };
            assert_eq!(name, expected, "{line}");
            assert!(["counter", "gauge", "summary"].contains(&current.1.as_str()));
            let (labels, value) = rest.rsplit_once("} ").unwrap();
            let known = samples.insert(format!("{name}{{{labels}}}"), value.parse().unwrap());
            assert!(known.is_none(), "{line} is there twice");
        }
    }
    samples
}

#[test]
fn metrics_are_open_metrics_and_count_as_the_service_does() {
    let bench = CliFixture::with_users(MANY);
    let server = Server::new(|_| imported().after(Duration::from_millis(20)));
    let (running, address) = serving(slow_import(&bench, &server).args(&["--job", "nightly \"job\""]));
    eventually("rows are processed", || json(&address)["rows_done"].as_u64() > Some(5));
    let answer = get(&address, "/metrics");
    assert!(answer.head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{}", answer.head);
    let samples = open_metrics(&answer.body);
    let labels = "command=\"import\",job=\"nightly \\\"job\\\"\"";
    let get = |name: &str, own: &str| {
        samples.get(&format!("{name}{{{labels}{own}}}")).copied().unwrap_or_else(|| panic!("{name}{own}: {samples:?}"))
    };
    let calls = get("chatlift_calls_total", ",api=\"account_import\"");
    assert!(calls > 5.0 && calls <= server.calls() as f64, "{calls}");
    assert!(get("chatlift_rows", ",status=\"imported\"") > 5.0);
    assert_eq!((get("chatlift_phase", ",phase=\"running\""), get("chatlift_phase", ",phase=\"waiting\"")), (1.0, 0.0));
    assert!(get("chatlift_latency_seconds", ",quantile=\"0.5\"") >= 0.02);
    stop(running);
}

#[test]
fn rows_that_wait_for_an_earlier_one_are_counted_apart_and_are_no_part_of_what_is_left() {
    let bench = CliFixture::with_users(MANY);
    let server = Server::new(|request| {
        let answer = if request.user_id == "user5" { code(70169) } else { imported() };
        answer.after(Duration::from_millis(20))
    });
    let call = bench.quiet_import_into("users.csv", &server.endpoint()).against(&server);
    let (running, address) = serving(call.args(&["--in-flight", "4", "--rate", "0", "--max-attempts", "100"]));
    eventually("rows wait for the fifth", || json(&address)["rows_waiting"].as_u64() > Some(400));
    let status = json(&address);
    assert_eq!((&status["rows_done"], &status["rows"]), (&4.into(), &4.into()));
    // Of what is left, each row takes a quarter of 20 ms at least; by the rows that are written alone it would be hours.
    let left_s = status["left_s"].as_u64().unwrap();
    assert!((5..600).contains(&left_s), "{status}");
    assert!(get(&address, "/").body.contains(" more wait for an earlier row, about "), "{}", get(&address, "/").body);
    assert!(get(&address, "/metrics").body.contains("\nchatlift_rows_waiting{"));
    stop(running);
}

#[test]
fn a_run_that_waits_for_the_service_is_alive_and_not_ready() {
    let bench = CliFixture::with_users(30);
    let endpoint = format!("http://127.0.0.1:{}", unused_port());
    let call = bench.quiet_import_into("users.csv", &endpoint).args(&["--report", "report.html"]);
    let (running, address) = serving(call);
    eventually("it waits", || json(&address)["phase"] == "waiting");
    assert_eq!(["/livez", "/healthz"].map(|path| get(&address, path).status), [200, 503]);
    assert_eq!(json(&address)["left_s"], Value::Null);
    let page = get(&address, "/").body;
    assert!(page.contains("Waiting") && !page.contains("refused (os error"), "{page}");
    stop(running);
    let report = bench.read("report.html");
    assert!(report.contains("Stopped before the end (exit code 4)") && report.contains("waiting"), "{report}");
}

#[test]
fn an_address_that_cannot_be_had_is_refused_before_the_first_request() {
    let bench = CliFixture::with_users(3);
    let server = Server::new(|_| imported());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = bench.import(&server).args(&["--status", &address]).run().exits(2).because("cannot listen on");
    assert_eq!(refused.summary["exit_code"], 2);
    for open in ["0.0.0.0:0", "[::]:0", "192.0.2.1:9"] {
        bench.import(&server).args(&["--status", open]).run().exits(2).because("the page has no login");
    }
    assert_eq!(server.calls(), 0);
    assert!(!bench.path("users.results.csv").exists());
}

#[test]
fn a_page_for_everywhere_takes_addresses_and_the_names_that_were_given() {
    let bench = CliFixture::with_users(MANY);
    let server = Server::new(|_| imported().after(Duration::from_millis(20)));
    bench.write("c.toml", "status-host = [\"chat.example\"]\nstatus-anywhere = true\n");
    let call = slow_import(&bench, &server).args(&["--config", "c.toml"]);
    let (running, address) = serving(call);
    let host = |host: &str| ask(&address, &format!("GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n")).status;
    assert_eq!(["10.1.2.3:9", "[2001:db8::1]", "Chat.Example", "localhost", "evil.example"].map(host), [200, 200, 200, 200, 403]);
    stop(running);
}

#[test]
fn a_sync_and_a_verification_show_how_far_they_are() {
    let bench = CliFixture::with_users(MANY);
    let server = Server::new(|_| imported().after(Duration::from_millis(20)));
    let key = bench.key();
    let of = |command: &[&str]| {
        let call =
            bench.call(command).args(&["--endpoint", &server.endpoint(), "--sdkappid", "1400000000", "--rate", "0", "--in-flight", "1"]);
        call.args(&["--secret-key-file", key.to_str().unwrap()])
    };
    let (running, address) = serving(of(&["sync", "users.csv", "--state", "s.db"]));
    eventually("rows are processed", || json(&address)["rows_done"].as_u64() > Some(5));
    let status = json(&address);
    assert!(status["plan"]["create"] == MANY && status["rows_total"] == MANY && status["created"].as_u64() > Some(5), "{status}");
    assert!(get(&address, "/").body.contains("✓ passed"));
    stop(running);
    // A service that is down is asked again and again.
    let server = Server::new(|_| code(60008).after(Duration::from_millis(20)));
    let verify = bench.call(&["verify", "users.csv", "--endpoint", &server.endpoint(), "--sdkappid", "1400000000"]);
    let (running, address) = serving(verify.args(&["--secret-key-file", key.to_str().unwrap()]));
    eventually("UserIDs are asked about", || json(&address)["calls"].as_u64() > Some(0));
    let status = json(&address);
    assert!(
        status["rows"] == MANY && status["rows_total"] == MANY && status["apis"]["account_check"]["calls"].as_u64() > Some(0),
        "{status}"
    );
    stop(running);
}

/// The whole day's file is the same but for rows at one end of it.
#[test]
fn a_sync_counts_and_forecasts_the_rows_that_get_a_result() {
    const SAME: usize = 3_000;
    const CHANGED: usize = 300;
    for changed_first in [true, false] {
        let bench = CliFixture::new();
        let rows = |same: &str, changed: &str| {
            let lines = |id: &str, nick: &str, users: usize| {
                let lines: Vec<String> = (0..users).map(|user| format!("{id}{user},{nick}\n")).collect();
                lines.concat()
            };
            let (same, changed) = (lines("same", same, SAME), lines("changed", changed, CHANGED));
            let (first, last) = if changed_first { (changed, same) } else { (same, changed) };
            format!("UserID,Nick\n{first}{last}")
        };
        bench.write("users.csv", rows("a", "a"));
        bench.call(&["sync", "users.csv", "--state", "s.db", "--sandbox", "--rate", "0", "--batch"]).run().exits(0);
        bench.write("users.csv", rows("a", "b"));
        let sync = || bench.call(&["sync", "users.csv", "--state", "s.db", "--sandbox", "--rate", "25"]);
        let mut done_before = 0;
        let resumes: &[bool] = if changed_first { &[false] } else { &[false, true] };
        for resumed in resumes {
            let (running, address) = serving(sync());
            eventually("rows are processed", || json(&address)["rows_done"].as_u64() > Some(done_before + 10));
            eventually("it has a forecast", || !json(&address)["left_s"].is_null());
            let status = json(&address);
            let (done, left) = (status["rows_done"].as_u64().unwrap(), status["left_s"].as_u64().unwrap());
            assert!(done > done_before && done <= 300, "resumed: {resumed}: {status}");
            let expected = (300 - done) / 25;
            assert!((expected / 3..=expected * 3 + 2).contains(&left), "{left} s, but about {expected} are left: {status}");
            stop(running);
            done_before = bench.read("users.results.csv").lines().count() as u64 - 1;
            assert!(done_before >= done, "what is counted as done has its line in the results");
            let told = bench.call(&["status", "users.csv"]).run().stdout;
            assert!(told.contains(&format!("processed   {done_before} rows")), "{told}");
        }
    }
}
