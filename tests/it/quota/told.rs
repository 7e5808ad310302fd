//! What is shown of a shared limit, and the pace that one process finds and all keep.

use std::num::NonZeroU32;
use std::process::{Command, Stdio};
use std::time::Duration;

use chatlift::domain::command::Command as Api;
use chatlift::sandbox::SandboxSettings;
use rustix::process::Signal;

use super::processes::{Service, benches, start, stop};
use crate::support::redis_server::RedisServer;
use crate::support::tools::skipped;
use crate::support::{CliFixture, KEY, SDKAPPID, passes};

/// What the service lets through, far below the quota. Chosen: it is found within a few refusals.
const THROUGH: u32 = 60;

#[test]
fn what_one_process_finds_all_keep_and_each_tells_it() {
    let Some(store) = RedisServer::start("a pace that is found together") else { return };
    let service =
        Service::with(SandboxSettings { limit_per_s: NonZeroU32::new(THROUGH), ..SandboxSettings::with_key(KEY.to_owned().into()) });
    let benches = benches::<2>();
    let refused = || service.sandbox.audit().of(Api::AccountImport).over_limit;
    let first = start(&benches[0], &service, &store.url());
    service.gets(200);
    let before = refused();
    let second = start(&benches[1], &service, &store.url());
    // Whoever comes begins with his part of what gets through, not of the quota.
    passes(Duration::from_millis(1_500));
    let more = refused() - before;
    let told = [first, second].map(|running| {
        running.signal(Signal::TERM);
        running.wait().exits(4).summary
    });
    eprintln!("{more} requests were refused since the second process came, {before} before");
    assert!(before > 30 && more * 2 < before, "{more} requests were refused since the second process came, {before} before");
    for summary in told {
        assert_eq!(summary["quota"]["max_runs"], 2, "{summary}");
        assert_eq!((&summary["quota"]["times_lost"], &summary["quota"]["calls_alone"]), (&0.into(), &0.into()), "{summary}");
    }
}

#[test]
fn the_progress_line_of_each_run_tells_how_many_share_and_its_own_part() {
    let Some(store) = RedisServer::start("a progress line that tells of a quota") else { return };
    let (service, benches) = (Service::new(), benches::<2>());
    let other = start(&benches[1], &service, &store.url());
    service.gets(100);
    let (program, key, endpoint, url) = (env!("CARGO_BIN_EXE_chatlift"), benches[0].key(), service.sandbox.endpoint(), store.url());
    let import =
        format!("{program} import users.csv --sdkappid {SDKAPPID} --endpoint {endpoint} --secret-key-file {} --quota {url}", key.display());
    let mut script = Command::new("script");
    // The wide terminal has room for the whole line.
    script.args(["-qec", &format!("stty cols 200 rows 24; exec timeout --foreground --signal=TERM 3 {import}"), "/dev/null"]);
    script.current_dir(benches[0].path(".")).stdin(Stdio::null()).env("TERM", "xterm");
    let shown = match script.output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => return skipped("the progress line of a quota", &format!("script cannot be started ({error})")),
    };
    stop(other);
    let parts: Vec<u32> = shown.split("quota: 2 runs, ").skip(1).filter_map(|rest| rest.split_once("/s here")?.0.parse().ok()).collect();
    eprintln!("its part, as the line told it: {parts:?}");
    let own = parts.last().copied().unwrap_or_default();
    assert!((30..=150).contains(&own), "half of 200 a second: {own}; {shown}");
}

#[test]
fn the_first_lines_the_summary_and_the_metrics_tell_of_a_quota() {
    let Some(store) = RedisServer::start("what is told of a quota") else { return };
    let (service, bench) = (Service::new(), CliFixture::with_users(3));
    let import = || bench.quiet_import_into("users.csv", &service.sandbox.endpoint()).args(&["--metrics-file", "metrics.prom"]);
    let run = import().args(&["--quota", &store.url()]).run().exits(0);
    let shared = format!("the limits are shared through {} (chatlift:{{{SDKAPPID}}}); no other process draws on it now", store.url());
    assert!(run.stderr.contains(&shared), "{}", run.stderr);
    assert_eq!(run.summary["quota"]["max_runs"], 1);
    assert!(bench.read("metrics.prom").contains("chatlift_quota_runs{"), "{}", bench.read("metrics.prom"));
    let run = import().args(&["--restart", "--quota", &store.url(), "--quota-rate", "account_import=40", "--quota-key", "other"]).run();
    // The least of what bounds the run is named.
    assert!(run.stderr.contains("at most 40 requests/s of the 40 that the quota shares"), "{}", run.stderr);
    // Without one, nothing speaks of it.
    let run = import().args(&["--restart"]).run().exits(0);
    assert!(!run.stderr.contains("shared") && run.summary.get("quota").is_none(), "{}", run.stderr);
    assert!(!bench.read("metrics.prom").contains("quota"));
}

#[test]
fn a_forecast_says_that_the_limit_is_shared_and_each_process_keeps_to_its_own_rate() {
    let Some(store) = RedisServer::start("a rate of one's own within a quota") else { return };
    let (service, bench) = (Service::new(), CliFixture::with_users(40));
    let url = store.url();
    for dry in [bench.call(&["check", "users.csv", "--quota", &url]), bench.call(&["import", "users.csv", "--dry-run", "--quota", &url])] {
        let told = dry.run().exits(0).stdout;
        assert!(told.contains(&format!("quota: the limit is shared through {url}: that holds while nobody else uses it")), "{told}");
    }
    let told =
        bench.call(&["import", "users.csv", "--dry-run", "--quota", &url, "--quota-rate", "account_import=40"]).run().exits(0).stdout;
    assert!(told.contains("at 40 a second"), "{told}");
    // The same from the configuration file, for both; what is the process's own bounds it as well, and the documented limit does.
    bench.write("chatlift.toml", format!("quota = \"{url}\"\nquota-rate = [\"account_import=30\"]\n"));
    let config = ["--config", "chatlift.toml"];
    let check = |args: &[&str]| bench.call(&["check", "users.csv"]).args(args).run().exits(0).stdout;
    let dry = |args: &[&str]| bench.call(&["import", "users.csv", "--dry-run"]).args(args).run().exits(0).stdout;
    for (told, expected) in [
        (check(&config), "at 30 a second"),
        (dry(&config), "at 30 a second"),
        (check(&["--quota", &url, "--quota-rate", "account_import=25"]), "at 25 a second"),
        (check(&[&config[..], &["--rate", "10"]].concat()), "at 10 a second"),
        (check(&["--quota", &url, "--rate", "500"]), "at 200 a second"),
        (dry(&["--quota", &url, "--rate", "500"]), "at 200 a second"),
        // None of it is asked for, so no password is needed.
        (dry(&["--quota", "redis://name@127.0.0.1:1/0"]), "at 200 a second"),
    ] {
        assert!(told.contains(expected) && told.contains("the limit is shared"), "{expected}: {told}");
    }
    bench.write("chatlift.toml", "rate = 12\n");
    assert!(dry(&config).contains("at 12 a second"), "{}", dry(&config));
    for call in [vec!["check", "users.csv"], vec!["import", "users.csv", "--dry-run"]] {
        let run = bench.call(&call).args(&["--quota-rate", "account_import=30"]).run().exits(2);
        run.because("more is said of a quota, and no quota is given");
    }
    // A rehearsal takes nothing of it, and needs no server.
    let rehearsal = bench.call(&["import", "users.csv", "--sandbox", "--quota", "redis://127.0.0.1:1/0"]).run().exits(0);
    assert!(rehearsal.stderr.contains("leaves the quota alone"), "{}", rehearsal.stderr);
    let run = bench
        .quiet_import_into("users.csv", &service.sandbox.endpoint())
        .args(&["--quota", &url, "--rate", "20", "--restart"])
        .run()
        .exits(0);
    let most = run.summary["max_calls_in_1s"].as_u64().unwrap();
    assert!((15..=20).contains(&most), "{}", run.summary);
}

#[test]
fn a_probe_takes_a_slot_like_everybody() {
    let Some(mut store) = RedisServer::start("a probe that shares the limit") else { return };
    let (service, bench) = (Service::new(), CliFixture::new());
    let key = bench.key();
    let probe = |url: &str| {
        let call = bench.call(&["probe", "--endpoint", &service.sandbox.endpoint(), "--sdkappid", SDKAPPID, "--quota", url]);
        call.args(&["--secret-key-file", key.to_str().unwrap()]).run()
    };
    probe(&store.url()).exits(0);
    let free: String =
        redis::cmd("HGET").arg(format!("chatlift:{{{SDKAPPID}}}:account_check")).arg("busy_until").query(&mut store.connection()).unwrap();
    assert!(free.parse::<u64>().unwrap() > 0);
    store.kill();
    probe(&store.url()).exits(4).because("quota: no request may leave");
    assert_eq!(service.sandbox.audit().of(Api::AccountCheck).calls, 1);
}
