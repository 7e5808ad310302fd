//! Servers that close kept connections without notice: this counts as no attempt and no outage, and pace and limit are kept.

use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::ServerConfig;

use super::certificates::trusted;
use crate::support::server::{Act, Reply, Request, Server, acts, answer, imported, raw};
use crate::support::{CliFixture, Run, side_by_side};

/// Requests: those of two seconds at the rate.
const ROWS: usize = 200;
const RATE: &str = "100";
const GOOD: &str = r#"{"ActionStatus":"OK","ErrorCode":0,"ErrorInfo":""}"#;

/// A server that closes connections.
struct Case {
    what: &'static str,
    least_lost: usize,
    idle_timeout: Option<Duration>,
    script: Arc<dyn Fn(&Request) -> Reply + Send + Sync>,
}

fn case(
    what: &'static str,
    least_lost: usize,
    idle_timeout: Option<Duration>,
    script: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> Case {
    Case { what, least_lost, idle_timeout, script: Arc::new(script) }
}

/// Runs with and without TLS.
fn check(cases: &[Case]) {
    let both = cases.iter().flat_map(|case| [(case, false), (case, true)]);
    side_by_side(both, |(Case { what, least_lost, idle_timeout, script }, is_encrypted)| {
        let bench = CliFixture::with_users(ROWS as u64);
        let (config, pem) = trusted();
        bench.write("ca.pem", pem);
        let script = Arc::clone(script);
        let server = start(is_encrypted.then_some(config), move |request| script(request));
        if let Some(idle_timeout) = idle_timeout {
            server.waits_no_longer_than(*idle_timeout);
        }
        let run = bench.import(&server).args(&["--ca-file", "ca.pem", "--rate", RATE, "--timeout", "5"]).run();
        let run = run.exits(0).imports_all(ROWS as u64);
        let what = format!("{what}, {}", if is_encrypted { "TLS" } else { "plain" });
        assert_eq!(run.attempts(), vec![1; ROWS], "{what}: nobody is charged");
        keeps_pace_and_limit(&what, *least_lost, &server, &run);
    });
}

fn start(config: Option<Arc<ServerConfig>>, script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
    match config {
        Some(config) => Server::with_tls(config, script),
        None => Server::new(script),
    }
}

#[track_caller]
fn keeps_pace_and_limit(what: &str, least_lost: usize, server: &Server, run: &Run) {
    let lost = server.calls() - ROWS;
    // One in fifty requests, and those that were in flight before it was noticed.
    assert!((least_lost..=12 + 16).contains(&lost), "{what}: {lost} calls were lost");
    // A request that was written to a closed connection never reached the server.
    let retries = usize::try_from(run.summary["retries"].as_u64().unwrap()).unwrap();
    assert!((lost..=12 + 16).contains(&retries), "{what}: {retries} retries, {lost} seen");
    assert_eq!(run.summary["calls"].as_u64().unwrap(), (ROWS + retries) as u64, "{what}");
    assert!(server.most_in_1s() <= 100, "{what}: {}", server.most_in_1s());
    // The requests of two seconds; the machine may be busy.
    assert!(run.took < Duration::from_secs(9), "{what}: {:?}", run.took);
    assert!(!run.stderr.contains("is down"), "{what}: {}", run.stderr);
    assert_eq!(server.users(), ROWS);
}

#[test]
fn a_server_may_close_after_every_answer() {
    check(&[
        case("closed without a word", 0, None, |_| imported().then(Act::Close)),
        case("closed as it said", 0, None, |_| answer("200 OK", "Connection: close\r\n", GOOD).with_effect().then(Act::Close)),
    ]);
}

#[test]
fn a_server_may_close_each_connection_at_its_second_request() {
    check(&[
        case("reset", 2, None, |request| if request.nth_on_connection == 1 { acts([Act::Reset]) } else { imported() }),
        case("closed", 2, None, |request| if request.nth_on_connection == 1 { acts([Act::Close]) } else { imported() }),
        case("closed, though it did as it was asked", 2, None, |request| {
            if request.nth_on_connection == 1 { acts([Act::Close]).with_effect() } else { imported() }
        }),
    ]);
}

#[test]
fn a_server_may_close_each_connection_after_some_requests() {
    check(&[case("the tenth", 2, None, |request| if request.nth_on_connection == 9 { acts([Act::Reset]) } else { imported() })]);
}

#[test]
fn a_server_may_close_what_is_idle_for_long() {
    check(&[
        case("a second", 0, Some(Duration::from_secs(1)), |_| imported()),
        case("ten milliseconds", 0, Some(Duration::from_millis(10)), |_| imported()),
    ]);
}

/// At five requests a second, each meets a connection just as the server closes it.
#[test]
fn a_slow_run_meets_connections_as_they_close() {
    let bench = CliFixture::with_users(6);
    let server = Server::new(|_| imported());
    server.waits_no_longer_than(Duration::from_millis(200));
    let run = bench.import(&server).args(&["--rate", "5", "--in-flight", "1"]).run().exits(0).imports_all(6);
    assert_eq!(run.attempts(), [1; 6]);
    assert!(server.most_in_1s() <= 5, "{}", server.most_in_1s());
}

#[test]
fn an_answer_that_is_cut_off_is_a_temporary_error_on_a_kept_connection_too() {
    let cut = |end: Act| raw(format!("HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n{GOOD}")).then(end).with_effect();
    for end in [Act::Close, Act::Reset] {
        let bench = CliFixture::with_users(12);
        let end_of = end.clone();
        let server = Server::new(move |request| match (request.nth_on_connection, request.nth_of_user) {
            (1, 1) => cut(end_of.clone()),
            _ => imported(),
        });
        let run = bench.import(&server).args(&["--rate", "100", "--in-flight", "1"]).run().exits(0).imports_all(12);
        for row in &run.rows {
            assert_eq!(row.attempts as usize, server.calls_of(&row.user_id), "{end:?}: {row:?}");
        }
        assert!(run.rows.iter().any(|row| row.attempts == 2), "{end:?}");
    }
}

/// Kept connections are closed and new ones are reset: then the service is down, and keep-alive is not the cause.
#[test]
fn new_connections_that_break_are_an_outage() {
    side_by_side([Act::Reset, Act::Close], |end| {
        let bench = CliFixture::with_users(ROWS as u64);
        let bad = end.clone();
        let server = Server::new(move |request| if request.at < Duration::from_secs(1) { imported() } else { acts([bad.clone()]) });
        let run = bench.import(&server).args(&["--rate", RATE, "--max-outage", "1s"]).run().exits(4).because("--max-outage");
        assert_eq!((&run.summary["failed"], &run.summary["outcome"]), (&0.into(), &"stopped".into()), "{end:?}: {}", run.stderr);
        let port = server.port();
        drop(server);
        let server = Server::at_port(port, |_| imported());
        bench.import(&server).at_any_rate().run().exits(0).imports_all(ROWS as u64);
    });
}

#[test]
fn batches_keep_pace_and_limit_too() {
    let bench = CliFixture::new();
    bench.write("users.csv", (1..=10_000).fold("UserID\n".to_owned(), |text, row| text + &format!("user{row}\n")));
    let server = Server::new(|request| if request.nth_on_connection == 1 { acts([Act::Reset]) } else { imported() });
    let run = bench.import(&server).args(&["--batch", "--rate", "100"]).run().exits(0).imports_all(10_000);
    assert!(run.attempts().iter().all(|attempts| *attempts == 1));
    assert!((101..=100 + 28).contains(&server.calls()), "{}", server.calls());
    assert!(server.most_in_1s() <= 100, "{}", server.most_in_1s());
}
