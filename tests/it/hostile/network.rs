//! Networks without a service, and connections that end between requests.

use std::time::Duration;

use crate::support::CliFixture;
use crate::support::ports::unused_port;
use crate::support::server::{Act, Server, acts, answer, code, imported};

#[test]
fn after_refused_connections_the_run_waits_then_stops_and_can_be_resumed() {
    let bench = CliFixture::with_users(5);
    let port = unused_port();
    let endpoint = format!("http://127.0.0.1:{port}");
    let run = bench.import_into("users.csv", &endpoint).at_any_rate().args(&["--max-outage", "1s"]).run().exits(4);
    let run = run.because("--max-outage").because("refused").hints("continues where it stopped");
    assert!(run.took >= Duration::from_secs(1) && run.took < Duration::from_secs(10), "{:?}", run.took);
    assert!(run.rows.is_empty());
    assert_eq!(run.summary["outcome"], "stopped");

    let server = Server::at_port(port, |_| imported());
    let run = bench.import(&server).at_any_rate().run().exits(0).imports_all(5);
    assert_eq!(run.attempts(), [1; 5], "an outage charges nobody");
}

#[test]
fn a_name_that_is_not_found_is_an_outage() {
    let bench = CliFixture::with_users(2);
    let run = bench.import_into("users.csv", "https://chatlift.invalid").args(&["--max-outage", "1s"]).run().exits(4);
    let run = run.because("--max-outage").hints("network");
    assert!(run.rows.is_empty());
}

#[test]
fn a_server_without_tls_is_an_outage_and_gets_no_request() {
    let bench = CliFixture::with_users(2);
    let server = Server::new(|_| imported());
    let endpoint = format!("https://127.0.0.1:{}", server.port());
    let run = bench.import_into("users.csv", &endpoint).args(&["--max-outage", "1s", "--timeout", "1"]).run().exits(4);
    assert!(run.rows.is_empty());
    assert_eq!(server.calls(), 0);
}

#[test]
fn an_outage_of_seconds_fails_no_row_of_a_small_file() {
    let bench = CliFixture::with_users(8);
    let server = Server::new(|request| if request.at < Duration::from_secs(1) { answer("502 Bad Gateway", "", "") } else { imported() });
    let run = bench.import(&server).at_any_rate().args(&["--max-attempts", "2"]).run().exits(0).imports_all(8);
    assert!(run.attempts().iter().all(|attempts| *attempts == 1), "attempts of the outage are given back: {:?}", run.attempts());
    // Each row's attempts, the three tests of the suspected outage, the probes, and the final imports.
    assert!(server.calls() <= 8 * 2 + 3 + 4 + 8, "probes are few: {}", server.calls());
}

#[test]
fn a_network_that_loses_every_request_for_seconds_fails_no_row() {
    let bench = CliFixture::with_users(60);
    let server = Server::new(|request| if request.at < Duration::from_secs(1) { acts([Act::Reset]) } else { imported() });
    bench.import(&server).at_any_rate().run().exits(0).imports_all(60);
}

#[test]
fn a_connection_that_the_server_closes_between_requests_loses_nothing() {
    let bench = CliFixture::with_users(40);
    let server = Server::new(|_| imported().then(Act::Close));
    bench.import(&server).args(&["--rate", "200", "--in-flight", "1"]).run().exits(0).imports_all(40);
    assert_eq!(server.users(), 40);
}

#[test]
fn a_connection_that_closes_during_the_request_loses_nothing() {
    let bench = CliFixture::with_users(40);
    let server = Server::new(|request| if request.nth_on_connection == 3 { acts([Act::Close]) } else { imported() });
    let run = bench.import(&server).at_any_rate().args(&["--in-flight", "2"]).run().exits(0).imports_all(40);
    assert_eq!(run.attempts(), [1; 40], "a kept connection that was given up is nobody's fault");
    assert!(server.calls() > 40);
}

#[test]
fn a_bad_row_fails_alone() {
    let bench = CliFixture::with_users(30);
    let server = Server::new(|request| if request.user_id == "user7" { acts([Act::Reset]) } else { imported() });
    let run = bench.import(&server).args(&["--rate", "20", "--max-attempts", "2"]).run().exits(3).settles(30);
    let failed: Vec<_> = run.rows.iter().filter(|row| row.status == "failed").map(|row| (row.number, row.attempts)).collect();
    assert_eq!(failed, [(7, 2)]);
}

#[test]
fn requests_share_connections_and_go_only_to_the_endpoint() {
    let bench = CliFixture::with_users(100);
    let server = Server::new(|_| imported());
    bench.import(&server).at_any_rate().args(&["--in-flight", "4"]).run().exits(0).imports_all(100);
    assert!(server.connections() <= 8, "{}", server.connections());
    assert_eq!(server.hosts().into_iter().collect::<Vec<_>>(), [format!("127.0.0.1:{}", server.port())]);
    assert_eq!(server.wrong(), Vec::<String>::new());
}

#[test]
fn proxies_of_the_environment_are_not_used() {
    let bench = CliFixture::with_users(3);
    let (server, proxy) = (Server::new(|_| imported()), Server::new(|_| code(70500)));
    let mut call = bench.import(&server).at_any_rate();
    for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        call = call.env(name, proxy.endpoint());
    }
    call.run().exits(0).imports_all(3);
    assert_eq!(proxy.connections(), 0);
}
