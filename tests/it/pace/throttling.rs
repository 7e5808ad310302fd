//! Servers that refuse requests as too fast.

use crate::support::CliFixture;
use crate::support::server::{Server, answer, code, imported};

#[test]
fn status_429_counts_as_no_attempt_and_its_retry_after_of_an_hour_is_ignored() {
    let bench = CliFixture::with_users(10);
    let server = Server::new(|request| match request.nth_of_user {
        1 => answer("429 Too Many Requests", "Retry-After: 3600\r\n", ""),
        _ => imported(),
    });
    let run = bench.import(&server).at_any_rate().run().exits(0).imports_all(10);
    assert_eq!(run.attempts(), [1; 10]);
    assert_eq!(run.summary["throttled"], 10);
}

#[test]
fn a_server_that_allows_less_than_the_rate_slows_the_run_and_fails_no_row() {
    let bench = CliFixture::with_users(150);
    let server = Server::new(|request| if request.in_last_second > 50 { code(60007) } else { imported() });
    let run = bench.import(&server).args(&["--rate", "100"]).run().exits(0).imports_all(150);
    assert_eq!(run.attempts(), vec![1; 150], "being throttled is not the row's fault");
    let throttled = run.summary["throttled"].as_u64().unwrap();
    // The surplus of the first second, and what follows until the lower pace takes effect. At an unchanged pace every second request would
    // be refused.
    assert!((1..100).contains(&throttled), "the pace came down: {throttled}");
    assert_eq!(run.summary["codes"]["60007"], throttled);
    assert!(server.most_in_1s() <= 100, "{}", server.most_in_1s());
}

#[test]
fn the_rate_is_never_exceeded_in_any_sliding_second() {
    let bench = CliFixture::with_users(250);
    let server = Server::new(|_| imported());
    let run = bench.import(&server).args(&["--rate", "100", "--in-flight", "64"]).run().exits(0).imports_all(250);
    assert!(server.most_in_1s() <= 100, "{}", server.most_in_1s());
    assert!(run.summary["max_calls_in_1s"].as_u64().unwrap() <= 100);
    // 250 requests need at least 1.5 s; the rest is for a machine that is busy with other things.
    assert!(run.summary["elapsed_s"].as_f64().unwrap() < 6.0, "{}", run.summary);
}
