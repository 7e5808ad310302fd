//! `chatlift probe`: whether everything is right for a run, with a remedy where it isn't.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::hostile::certificates::trusted;
use crate::support::server::{Reply, Server, acts, answer, code};
use crate::support::{Call, CliFixture, KEY, Run, SDKAPPID};

/// The documented answer of `account_check`, made at this time.
fn checked_at(date: SystemTime) -> Reply {
    let date = format!("Content-Type: application/json\r\nDate: {}\r\n", httpdate::fmt_http_date(date));
    let item = r#"{"UserID":"administrator","ResultCode":0,"ResultInfo":"","AccountStatus":"Imported"}"#;
    answer("200 OK", &date, &format!(r#"{{"ActionStatus":"OK","ErrorCode":0,"ErrorInfo":"","ResultItem":[{item}]}}"#))
}

fn probe<'a>(bench: &'a CliFixture, endpoint: &str) -> Call<'a> {
    let key = bench.key();
    bench.call(&["probe", "--endpoint", endpoint, "--sdkappid", SDKAPPID, "--secret-key-file", key.to_str().unwrap()])
}

/// The lines for the checks: mark and name.
fn marks(run: &Run) -> Vec<(char, String)> {
    let checks = run.stdout.lines().filter(|line| line.starts_with(['✓', '✗']));
    let name = |line: &str| line.chars().skip(2).collect::<String>().split("  ").next().unwrap().trim().to_owned();
    checks.map(|line| (line.chars().next().unwrap(), name(line))).collect()
}

fn good(names: &[&str]) -> Vec<(char, String)> {
    names.iter().map(|name| ('✓', (*name).to_owned())).collect()
}

const ALL: [&str; 7] = ["configuration", "host name", "TCP", "TLS", "clock", "account_check", "cost"];

#[test]
fn where_everything_is_right_it_says_so_after_one_request() {
    let bench = CliFixture::new();
    let server = Server::new(|_| checked_at(SystemTime::now()));
    let run = probe(&bench, &server.endpoint())
        .args(&["--rate", "50"])
        .env("CHATLIFT_IDENTIFIER", "administrator")
        .against(&server)
        .run()
        .exits(0);
    assert_eq!(marks(&run), good(&ALL), "{}", run.stdout);
    assert_eq!(server.calls(), 1);
    for words in [
        "1400000000 (--sdkappid)",
        "administrator (CHATLIFT_IDENTIFIER)",
        "(--secret-key-file)",
        "50 (--rate)",
        "10 (default)",
        "5h 33m at 50/s",
    ] {
        assert!(run.stdout.contains(words), "{words}: {}", run.stdout);
    }
    let json: Value = serde_json::from_str(&probe(&bench, &server.endpoint()).args(&["--json"]).run().exits(0).stdout).unwrap();
    assert_eq!((&json["exit_code"], json["checks"].as_array().unwrap().len()), (&0.into(), 7));
    assert!(json["settings"].as_array().unwrap().iter().any(|setting| setting["from"] == "--endpoint"));
}

#[test]
fn the_sandbox_is_right_and_a_key_in_the_environment_is_never_shown() {
    let bench = CliFixture::new();
    let run = bench.call(&["probe", "--sandbox"]).run().exits(0);
    assert_eq!(marks(&run), good(&ALL), "{}", run.stdout);
    let server = Server::new(|_| checked_at(SystemTime::now()));
    let call = bench.call(&["probe", "--endpoint", &server.endpoint(), "--sdkappid", SDKAPPID]).env("CHATLIFT_SECRET_KEY", KEY);
    let run = call.run().exits(0);
    assert!(run.stdout.contains("(CHATLIFT_SECRET_KEY)"), "{}", run.stdout);
    assert!(!run.stdout.contains("SENTINEL") && !run.stderr.contains("SENTINEL"), "{}", run.stdout);
    let call = bench.call(&["probe", "--endpoint", &server.endpoint(), "--sdkappid", SDKAPPID]).env("CHATLIFT_SECRET_KEY", KEY);
    let run = call.env("CHATLIFT_QUOTA", "redis://me:hunter2@127.0.0.1:1/3").env("CHATLIFT_PROXY", "http://me:hunter3@127.0.0.1:1").run();
    assert!(run.stdout.contains("redis://127.0.0.1:1/3 (CHATLIFT_QUOTA)"), "{}", run.stdout);
    assert!(run.stdout.contains("http://127.0.0.1:1 (CHATLIFT_PROXY)"), "{}", run.stdout);
    assert!(!run.stdout.contains("hunter") && !run.stderr.contains("hunter"), "{}{}", run.stdout, run.stderr);
}

#[test]
fn what_is_wrong_has_its_exit_code_and_its_remedy() {
    let bench = CliFixture::new();
    let check = |reply: fn() -> Reply, expected: (i32, &str, &str)| {
        let server = Server::new(move |_| reply());
        let run = probe(&bench, &server.endpoint()).against(&server).run().exits(expected.0).because(expected.1).hints(expected.2);
        let marks = marks(&run);
        assert_eq!(marks.iter().filter(|(mark, _)| *mark == '✗').count(), 1, "{}", run.stdout);
        assert_eq!(marks.last().unwrap().0, '✗', "{}", run.stdout);
        assert_eq!(server.calls(), 1);
    };
    check(|| code(70403), (5, "account_check: the identifier is not an administrator", "--identifier"));
    check(|| code(70001), (5, "account_check", "clock"));
    check(|| code(70013), (5, "account_check", "--identifier"));
    check(|| code(70020), (5, "account_check", "--region"));
    check(|| code(60007), (4, "too fast", "probe again"));
    check(|| code(70500), (4, "account_check", "probe again"));
    check(|| answer("502 Bad Gateway", "", ""), (4, "HTTP 502", "probe again"));
    check(|| answer("307 Temporary Redirect", "Location: http://127.0.0.1:1/\r\n", ""), (5, "redirect", "--endpoint"));
}

#[test]
fn the_end_of_a_trusted_certificate_is_told() {
    let bench = CliFixture::new();
    let (config, ca) = trusted();
    bench.write("ca.pem", ca);
    let server = Server::with_tls(config, |_| checked_at(SystemTime::now()));
    let run = probe(&bench, &server.endpoint()).args(&["--ca-file", "ca.pem"]).against(&server).run().exits(0);
    // The library that makes the certificate ends it there by default.
    assert!(run.stdout.contains("the certificate is trusted, and valid until 4096-01-01 (for "), "{}", run.stdout);
    assert_eq!(marks(&run), good(&ALL), "{}", run.stdout);
}

#[test]
fn a_clock_that_is_off_is_told() {
    let bench = CliFixture::new();
    for (off, is_ahead) in [(Duration::from_secs(3_600), true), (Duration::from_secs(3_600), false), (Duration::from_secs(60), true)] {
        let server = Server::new(move |_| checked_at(if is_ahead { SystemTime::now() - off } else { SystemTime::now() + off }));
        let run = probe(&bench, &server.endpoint()).run();
        if off < Duration::from_secs(100) {
            run.exits(0);
            continue;
        }
        let word = if is_ahead { "ahead of" } else { "behind" };
        run.exits(2).because(&format!("{word} the service's")).hints("timedatectl");
    }
}

#[test]
fn settings_that_are_wrong_and_a_service_that_is_not_there_are_told_in_time() {
    let bench = CliFixture::new();
    let run = bench.call(&["probe"]).run().exits(2).because("SDKAppID").hints("--sdkappid");
    assert_eq!(marks(&run), [('✗', "configuration".to_owned())]);
    let refused = probe(&bench, "http://127.0.0.1:1").run().exits(4).because("TCP: 127.0.0.1 port 1").hints("firewall");
    assert_eq!(marks(&refused).last().unwrap(), &('✗', "TCP".to_owned()));
    let unknown = probe(&bench, "https://no-such-host.invalid").run().exits(4).because("no-such-host.invalid is not found");
    assert_eq!(marks(&unknown).last().unwrap(), &('✗', "host name".to_owned()));
}

#[test]
fn a_server_without_tls_is_told_in_words() {
    let bench = CliFixture::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().take(2) {
            let mut stream = stream.unwrap();
            // The first one is only opened.
            if stream.read(&mut [0; 2_048]).is_ok_and(|read| read > 0) {
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            }
        }
    });
    probe(&bench, &endpoint).run().exits(4).because("does not speak TLS");
}

/// A flag that does nothing without another one is refused; a configuration file may have it for the runs that have the other one.
#[test]
fn a_flag_of_no_use_alone_is_refused_on_the_command_line_and_left_alone_in_a_file() {
    let bench = CliFixture::with_users(1);
    for flags in [
        &["probe", "--sandbox", "--profile", "Gender"][..],
        &["import", "users.csv", "--sandbox", "--status-anywhere"],
        &["import", "users.csv", "--sandbox", "--status-host", "a.b"],
        &["import", "users.csv", "--sandbox", "--status", "127.0.0.1:0", "--status-host", "a b"],
    ] {
        let run = bench.call(flags).run();
        assert_eq!((run.code, bench.path("users.results.csv").exists()), (Some(2), false), "{}", run.stderr);
    }
    bench.write("chatlift.toml", "status-host = [\"a.b:80\"]\nstatus-anywhere = true\n[profile]\nGender = \"gender\"\n");
    bench.call(&["probe", "--sandbox", "--config", "chatlift.toml"]).run().exits(0);
    bench.write("chatlift.toml", "status-host = [\"a.b:80\"]\nstatus-anywhere = true\n");
    bench.call(&["import", "users.csv", "--sandbox", "--config", "chatlift.toml"]).run().exits(0);
}

#[test]
fn a_service_that_never_answers_is_waited_for_no_longer_than_ten_seconds() {
    let bench = CliFixture::new();
    let server = Server::new(|_| acts([]).after(Duration::from_secs(20)));
    let began = Instant::now();
    probe(&bench, &server.endpoint()).args(&["--timeout", "1.5"]).run().exits(4).because("no valid answer (time-out)");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}
