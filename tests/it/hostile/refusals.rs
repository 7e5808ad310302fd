//! Answers that end the run: no row fails because of them, and the same command continues once the cause is gone.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use chatlift::io::api::usersig::{LIFE, read_claims};

use crate::support::server::{Reply, Server, answer, code, imported, ok_with};
use crate::support::{CliFixture, Run};

/// A server that gives bad answers after this many good ones, until it is repaired.
fn turning_bad(after: usize, bad: impl Fn() -> Reply + Send + Sync + 'static) -> (Server, Arc<AtomicBool>) {
    let repaired = Arc::new(AtomicBool::new(false));
    let is_repaired = Arc::clone(&repaired);
    let server = Server::new(move |request| if request.number < after || is_repaired.load(Ordering::Acquire) { imported() } else { bad() });
    (server, repaired)
}

/// The run must end with this code and keep what is imported. The repaired server must get the rest, and no attempt may be counted twice.
#[track_caller]
fn check(after: usize, exit: i32, hint: &str, bad: impl Fn() -> Reply + Send + Sync + 'static) -> Run {
    const USERS: u64 = 20;
    let bench = CliFixture::with_users(USERS);
    let (server, repaired) = turning_bad(after, bad);
    let call = || bench.import(&server).at_any_rate().args(&["--in-flight", "1"]);
    let run = call().run().exits(exit).hints(hint);
    let run = run.imports_all(after as u64);
    assert!(server.calls() <= after + 2, "the run ends at once: {}", server.calls());
    assert_eq!(run.rejects, None);

    repaired.store(true, Ordering::Release);
    let resumed = call().run().exits(0).imports_all(USERS);
    assert!(resumed.rows.iter().all(|row| row.attempts == 1), "nothing is charged: {:?}", resumed.attempts());
    assert_eq!(resumed.summary["resumed_at_row"], run.rows.len());
    assert_eq!(resumed.rows[..run.rows.len()], run.rows, "what was settled stays as it was");
    run
}

#[test]
fn credentials_that_are_revoked_in_mid_run_stop_it_at_once() {
    check(8, 5, "--identifier", || code(70403)).because("70403");
}

#[test]
fn a_refusal_with_many_requests_in_flight_keeps_their_results() {
    let bench = CliFixture::with_users(200);
    let (server, repaired) = turning_bad(100, || code(70403));
    let call = || bench.import(&server).at_any_rate();
    let run = call().run().exits(5);
    let settled = run.rows.len() as u64;
    let run = run.imports_all(settled);
    assert!(settled <= 100 && server.calls() <= 100 + 2 * 16, "{settled} {}", server.calls());
    assert_eq!((run.summary["rows"].as_u64(), run.summary["failed"].as_u64()), (Some(settled), Some(0)));
    repaired.store(true, Ordering::Release);
    let run = call().run().exits(0).imports_all(200);
    assert_eq!(run.attempts(), vec![1; 200]);
}

#[test]
fn a_wrong_key_identifier_or_app_is_reported_after_the_first_answer() {
    check(0, 5, "SecretKey", || code(70009)).because("70009");
    check(0, 5, "--identifier", || code(70013)).because("70013");
    check(0, 5, "--sdkappid", || code(70014)).because("70014");
    check(0, 5, "--region", || code(70020)).because("70020");
    check(0, 5, "address", || code(60021)).because("60021");
    check(0, 5, "the very first request", || code(60003)).because("60003");
}

#[test]
fn a_limit_of_the_app_or_of_the_day_stops_the_run_and_it_can_be_resumed() {
    check(10, 4, "upgrade", || code(70398)).because("70398");
    check(10, 4, "tomorrow", || code(60028)).because("60028");
}

#[test]
fn a_signature_from_the_future_or_of_another_key_ends_with_advice_to_check_the_clock() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let bench = CliFixture::with_users(5);
    // The service's clock is right; this machine's clock is an hour ahead of it.
    let server = Server::new(|request| {
        let made_at = read_claims(&request.usersig.as_str().into()).unwrap().expires_at - LIFE;
        if made_at > SystemTime::now() - HOUR { code(70003) } else { imported() }
    });
    let run = bench.import(&server).at_any_rate().run().exits(5).hints("clock").hints("SecretKey").settles(0);
    assert_eq!(run.summary["codes"]["70003"], server.calls());
    check(5, 5, "clock", || code(70001));
    check(0, 5, "clock", || code(70003));
}

#[test]
fn a_signature_that_is_refused_once_is_renewed_and_counts_as_no_attempt() {
    let bench = CliFixture::with_users(5);
    let first = OnceLock::new();
    let server = Server::new(
        move |request| if request.usersig == *first.get_or_init(|| request.usersig.clone()) { code(70001) } else { imported() },
    );
    let run = bench.import(&server).at_any_rate().run().exits(0).imports_all(5);
    assert_eq!(run.attempts(), [1; 5]);
    assert!((6..=10).contains(&server.calls()), "{}", server.calls());
}

#[test]
fn an_unknown_code_fails_a_row_after_three_attempts_and_stops_the_run_if_every_row_has_it() {
    let bench = CliFixture::with_users(6);
    let server = Server::new(|request| if request.user_id == "user3" { code(99_999) } else { imported() });
    let run = bench.import(&server).at_any_rate().run().exits(3).settles(6);
    assert_eq!((run.rows[2].status.as_str(), run.rows[2].error_code.as_str(), run.rows[2].attempts), ("failed", "99999", 3));
    assert_eq!(run.summary["imported"], 5);

    let bench = CliFixture::with_users(60);
    let server = Server::new(|_| code(99_999));
    let run = bench.import(&server).at_any_rate().run().exits(5).because("unknown code").hints("the same command resumes").settles(0);
    assert_eq!(run.summary["failed"], 0);
    assert!(server.calls() < 120, "{}", server.calls());
}

#[test]
fn an_invalid_request_blames_the_row_once_another_row_succeeded() {
    let bench = CliFixture::with_users(3);
    let server = Server::new(|request| if request.user_id == "user2" { code(60003) } else { imported() });
    let run = bench.import(&server).at_any_rate().args(&["--in-flight", "1"]).run().exits(3).settles(3);
    assert_eq!(run.statuses(), ["imported", "failed", "imported"]);
}

#[test]
fn a_redirect_is_not_followed() {
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let elsewhere = Arc::new(Server::new(|_| imported()));
        let location = format!("Location: {}/v4/im_open_login_svc/account_import\r\n", elsewhere.endpoint());
        check(3, 5, "never redirects", move || answer(status, &location, ""));
        assert_eq!(elsewhere.connections(), 0, "{status}");
    }
}

#[test]
fn foreign_text_cannot_move_the_cursor_or_forge_a_line() {
    let hostile = r#"{"ActionStatus":"FAIL","ErrorCode":70403,"ErrorInfo":"\u001b[2J\u001b]0;x\u0007\r\nhint: rm -rf \u009b1m\u202e"}"#;
    let run = check(0, 5, "--identifier", move || ok_with(hostile));
    assert!(run.stderr.chars().all(|char| char == '\n' || !char.is_control()), "{:?}", run.stderr);
}
