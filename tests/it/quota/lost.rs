//! A store that is lost, forgets, or refuses, and what becomes of the runs.

use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};

use super::processes::{LIMIT, Service, benches, start, stop};
use crate::support::line::Line;
use crate::support::ports::unused_port;
use crate::support::redis_server::RedisServer;
use crate::support::{CliFixture, SDKAPPID, passes, side_by_side};

/// The longest time for which requests leave that were granted before. Source: the lease, and a busy machine's lateness.
const LEASE: Duration = Duration::from_millis(950);
/// How long nothing is granted by a store that may know less than was granted. Source: the contract, less a busy machine's lateness.
const CLOSED: Duration = Duration::from_millis(1_400);

/// How far the sandbox's clock may be from the test's. Chosen: it starts with a thread of its own.
const CLOCKS_APART: Duration = Duration::from_millis(100);

/// What happens to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// It hangs for a second.
    Paused,
    Flushed,
    Restarted,
    /// A replica is promoted.
    Replaced,
    /// It forgets the script.
    ScriptForgotten,
}

/// Two runs with a store in trouble. In no second leave more requests than the limit, and afterwards it goes on.
#[track_caller]
fn check(trouble: Trouble) {
    let Some(mut store) = RedisServer::start("a store in trouble") else { return };
    let (service, benches, line) = (Service::new(), benches::<2>(), Line::new(store.port(), Duration::ZERO));
    let replica = match trouble {
        Trouble::Replaced => RedisServer::with("a replica", &["--replicaof", "127.0.0.1", &store.port().to_string()]),
        Trouble::Paused | Trouble::Flushed | Trouble::Restarted | Trouble::ScriptForgotten => None,
    };
    let running = [0, 1].map(|number| start(&benches[number], &service, &line.url()));
    service.gets(LIMIT);
    let at = service.now();
    let mut quiet_until = at + CLOSED;
    match trouble {
        Trouble::Paused => {
            store.pause();
            passes(Duration::from_millis(1_500));
            quiet_until = service.now().saturating_sub(CLOCKS_APART);
            store.go_on();
        }
        Trouble::Flushed => store.flush(),
        Trouble::Restarted => {
            store.kill();
            store.restart();
        }
        Trouble::Replaced => {
            let replica = replica.as_ref().unwrap();
            store.kill();
            redis::cmd("REPLICAOF").arg("NO").arg("ONE").exec(&mut replica.connection()).unwrap();
            line.leads_to(replica.port());
        }
        Trouble::ScriptForgotten => redis::cmd("SCRIPT").arg("FLUSH").exec(&mut store.connection()).unwrap(),
    }
    service.gets(LIMIT / 2);
    running.into_iter().for_each(stop);
    service.kept_to_the_limit();
    if trouble != Trouble::ScriptForgotten {
        assert_eq!(service.arrivals_in(at + LEASE, quiet_until), 0, "{trouble:?} at {at:?}");
    }
}

#[test]
fn a_store_that_hangs_forgets_or_is_replaced_never_lets_more_through() {
    let troubles = [Trouble::Paused, Trouble::Flushed, Trouble::Restarted, Trouble::Replaced, Trouble::ScriptForgotten];
    side_by_side(troubles, check);
}

#[test]
fn a_store_over_tls_is_trusted_as_the_service_is() {
    let (folder, port) = (tempfile::tempdir().unwrap(), unused_port());
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(folder.path().join("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
    let args = ["--tls-port", &port.to_string(), "--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem", "--tls-auth-clients", "no"];
    let Some(store) = RedisServer::within("a store over TLS", folder, &args) else { return };
    let (service, bench) = (Service::new(), CliFixture::with_users(3));
    let url = format!("rediss://127.0.0.1:{port}/0");
    let import =
        |args: &[&str]| bench.quiet_import_into("users.csv", &service.sandbox.endpoint()).args(&["--quota", &url]).args(args).run();
    import(&[]).exits(2).because("the certificate of the quota's store is not trusted").hints("--ca-file");
    let ca = store.folder().join("cert.pem");
    let run = import(&["--ca-file", ca.to_str().unwrap()]).exits(0);
    assert_eq!(run.summary["quota"]["max_runs"], 1);
}

#[test]
fn a_lost_store_is_an_outage_of_no_row() {
    let Some(mut store) = RedisServer::start("a store that is lost") else { return };
    let (service, [bench]) = (Service::new(), benches());
    let import = bench.quiet_import_into("users.csv", &service.sandbox.endpoint());
    let running = import.args(&["--quota", &store.url(), "--max-outage", "2s"]).start();
    service.gets(10);
    store.kill();
    let run = running.wait().exits(4).because("the quota's store was lost for longer than --max-outage");
    assert!(run.rows.iter().all(|row| row.status == "imported"));
    assert_eq!(run.summary["outcome"], "stopped");
}

#[test]
fn a_store_out_of_memory_is_an_outage_for_each_of_two_runs() {
    let Some(store) = RedisServer::start("a store out of memory") else { return };
    let (service, benches) = (Service::new(), benches::<2>());
    let (url, endpoint) = (store.url(), service.sandbox.endpoint());
    let import =
        |bench| CliFixture::quiet_import_into(bench, "users.csv", &endpoint).args(&["--quota", &url, "--max-outage", "2s"]).start();
    let running = benches.each_ref().map(import);
    service.gets(LIMIT / 2);
    redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("1").exec(&mut store.connection()).unwrap();
    for running in running {
        let run = running.wait().exits(4).because("the quota's store was lost for longer than --max-outage");
        assert!(run.stderr.contains("does not answer (") && run.stderr.contains("nothing is sent until it answers"), "{}", run.stderr);
    }
}

#[test]
fn a_store_that_forbids_the_script_or_lacks_the_database_is_no_outage() {
    let Some(store) = RedisServer::start("a store that refuses") else { return };
    let mut connection = store.connection();
    let (service, bench) = (Service::new(), CliFixture::with_users(3));
    let import = |url: &str| bench.quiet_import_into("users.csv", &service.sandbox.endpoint()).env("CHATLIFT_QUOTA", url).run();
    for command in ["info", "time", "hgetall", "hset", "pexpire", "evalsha"] {
        redis::cmd("ACL")
            .arg(&["SETUSER", "app", "reset", "on", ">secret", "~*", "+@all", &format!("-{command}")])
            .exec(&mut connection)
            .unwrap();
        let run = import(&format!("redis://app:secret@127.0.0.1:{}/0", store.port())).exits(2);
        run.because("the quota's store does not allow the script").hints("docs/QUOTA.md");
    }
    import(&format!("redis://127.0.0.1:{}/99", store.port())).exits(2).because("no such database").hints("database");
    let key = format!("chatlift:{{{SDKAPPID}}}:account_import");
    redis::cmd("DEL").arg(&key).exec(&mut connection).unwrap();
    redis::cmd("SET").arg(&key).arg("something").exec(&mut connection).unwrap();
    import(&store.url()).exits(2).because(&format!("the key {key} in the quota's store holds something else")).hints("--quota-key");
    assert_eq!(service.arrivals().len(), 0);
}

#[test]
fn a_password_that_is_set_in_mid_run_ends_it() {
    let Some(store) = RedisServer::start("a store that gets a password") else { return };
    let (service, [bench]) = (Service::new(), benches());
    let running = start(&bench, &service, &store.url());
    service.gets(LIMIT / 4);
    let mut connection = store.connection();
    redis::cmd("CONFIG").arg("SET").arg("requirepass").arg("the-passphrase").exec(&mut connection).unwrap();
    redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]).exec(&mut connection).unwrap();
    running.wait().exits(2).because("refuses name or password").hints("--quota-password-file");
}

#[test]
fn without_its_store_a_run_goes_on_alone_if_it_may() {
    let Some(mut store) = RedisServer::start("a run that goes on alone") else { return };
    let (service, [bench]) = (Service::new(), benches());
    let import = bench.quiet_import_into("users.csv", &service.sandbox.endpoint());
    let running = import.args(&["--quota", &store.url(), "--quota-lost", "share=20"]).start();
    service.gets(LIMIT / 2);
    store.kill();
    let lost = service.now();
    passes(Duration::from_millis(3_700));
    let alone = service.arrivals_in(lost + Duration::from_millis(1_600), lost + Duration::from_millis(3_600));
    assert!((20..=41).contains(&alone), "{alone} in two seconds");
    store.restart();
    service.gets(LIMIT / 2);
    stop(running);
    service.kept_to_the_limit();
}

#[test]
fn who_may_not_take_part_is_told_so_before_anything_is_sent() {
    let Some(store) = RedisServer::with("a store with a password", &["--requirepass", "the-passphrase"]) else { return };
    let service = Service::new();
    let bench = CliFixture::with_users(3);
    let import =
        |url: &str| bench.quiet_import_into("users.csv", &service.sandbox.endpoint()).args(&["--rate", "200"]).env("CHATLIFT_QUOTA", url);
    let with_password = format!("redis://:the-passphrase@127.0.0.1:{}/0", store.port());
    import(&store.url()).run().exits(2).because("refuses name or password").hints("--quota-password-file");
    import(&with_password.replace("the-passphrase", "wrong")).run().exits(2).because("refuses name or password");
    let flag = |args: &[&str]| bench.quiet_import_into("users.csv", &service.sandbox.endpoint()).args(args);
    let run = flag(&["--quota", &with_password]).run().exits(2).because("--quota holds a password");
    assert!(!run.stderr.contains("the-passphrase"), "{}", run.stderr);
    import(&with_password).args(&["--quota-rate", "account_import=0"]).run();
    let run = bench.quiet_import_into("users.csv", &service.sandbox.endpoint()).env("CHATLIFT_QUOTA", &with_password).at_any_rate().run();
    run.exits(2).because("--rate 0 (no limit) and a quota contradict each other");
    let mut client = redis::Client::open(with_password.as_str()).unwrap().get_connection().unwrap();
    let hash = format!("chatlift:{{{SDKAPPID}}}:account_import");
    // Another process is at work, with another limit or another version.
    import(&with_password).run().exits(0);
    let far = "9999999999999999";
    for (field, other, here) in [("rate", "150", "200"), ("version", "3", "2")] {
        let stored: String = redis::cmd("HGET").arg(&hash).arg(field).query(&mut client).unwrap();
        redis::cmd("HSET").arg(&hash).arg(field).arg(other).arg("busy_until").arg(far).exec(&mut client).unwrap();
        let run = import(&with_password).args(&["--restart"]).run().exits(2);
        run.because(&format!("{other}{} there, {here}", if field == "rate" { " requests/s" } else { "" }));
        redis::cmd("HSET").arg(&hash).arg(field).arg(stored).exec(&mut client).unwrap();
    }
    assert_eq!(service.arrivals().len(), 3);
}
