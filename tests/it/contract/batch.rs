//! The batch lane through the real binary and the stand-in: what it sends, what falls back, how it ends.

use std::fs;
use std::time::Duration;

use chatlift::domain::command::Command as Api;
use chatlift::sandbox::{BatchProfiles, Keep, Sandbox, SandboxSettings};
use rustix::process::Signal;

use crate::support::{Call, CliFixture, KEY, Run, eventually, side_by_side};

/// Memory at most, by contract.
const MEMORY_MAX_KIB: u64 = 128 * 1024;

fn settings(faults: &[&str]) -> SandboxSettings {
    SandboxSettings { faults: faults.iter().map(|text| text.parse().unwrap()).collect(), ..SandboxSettings::with_key(KEY.into()) }
}

/// Without limits: what falls back is over at once.
fn unlimited(faults: &[&str]) -> SandboxSettings {
    SandboxSettings { limit_per_s: None, ..settings(faults) }
}

fn dropping() -> SandboxSettings {
    SandboxSettings { batch_profiles: BatchProfiles::Dropped, ..unlimited(&[]) }
}

fn import<'a>(bench: &'a CliFixture, sandbox: &Sandbox, flags: &[&str]) -> Call<'a> {
    bench.import_into("users.csv", &sandbox.endpoint()).args(flags)
}

/// Rows that the checkpoint vouches for.
fn settled(bench: &CliFixture) -> u64 {
    let text = fs::read_to_string(bench.path("users.checkpoint.json")).unwrap_or_default();
    let checkpoint: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    checkpoint["run"]["settled"]["rows"].as_u64().unwrap_or_default()
}

/// Calls by API as the summary has them; they add up, and are those that the stand-in has seen.
#[track_caller]
fn adds_up(run: &Run, sandbox: &Sandbox) {
    let apis = run.summary["apis"].as_object().unwrap();
    for field in ["calls", "retries", "throttled"] {
        let sum: u64 = apis.values().map(|api| api[field].as_u64().unwrap()).sum();
        assert_eq!(run.summary[field], sum, "{field}: {}", run.summary);
    }
    let audit = sandbox.audit();
    assert_eq!(audit.calls, run.summary["calls"]);
    for (name, seen) in &audit.apis {
        assert_eq!(apis[*name]["calls"], seen.calls, "{name}");
    }
    assert_eq!((audit.violations, audit.overlaps), (0, 0), "{:?}", audit.first_violations);
    assert!(audit.accounts > 0);
}

#[test]
fn a_file_goes_in_batches_and_the_first_one_is_read_back() {
    for flag in ["--batch", "--batch=strict"] {
        let bench = CliFixture::with_users(950);
        let sandbox = Sandbox::start(settings(&[])).unwrap();
        let run = import(&bench, &sandbox, &[flag]).run().exits(0).imports_all(950);
        assert!(run.attempts().iter().all(|attempts| *attempts == 1));
        assert_eq!(run.summary["lane"], "batch");
        let audit = sandbox.audit();
        let calls = |api| audit.of(api).calls;
        assert_eq!((calls(Api::MultiaccountImport), calls(Api::PortraitGet), calls(Api::AccountImport)), (10, 1, 0));
        assert_eq!(run.summary["max_calls_in_1s"], run.summary["apis"]["multiaccount_import"]["max_calls_in_1s"]);
        assert_eq!(sandbox.account("user950").unwrap().nick.as_deref(), Some("Nick 950"));
        adds_up(&run, &sandbox);
        bench.call(&["audit", "users.csv", "--results", "users.results.csv"]).run().exits(0);
        let calls = audit.calls;
        let again = import(&bench, &sandbox, &[flag]).run().exits(0);
        assert_eq!((again.summary["calls"].as_u64(), sandbox.audit().calls), (Some(0), calls), "a finished run sends nothing");
    }
}

/// A hundred of the longest are more than any other answer holds.
#[test]
fn the_longest_profiles_are_read_back() {
    let bench = CliFixture::with_users(0);
    let row = |row: u64| format!("user{row},{},https://{}\n", "名".repeat(166), "x".repeat(492));
    bench.write("users.csv", (1..=100).fold("UserID,Nick,FaceUrl\n".to_owned(), |text, number| text + &row(number)));
    let sandbox = Sandbox::start(settings(&[])).unwrap();
    let run = import(&bench, &sandbox, &["--batch=strict"]).run().exits(0).imports_all(100);
    assert_eq!((run.summary["lane"].as_str(), run.summary["calls"].as_u64()), (Some("batch"), Some(2)));
    adds_up(&run, &sandbox);
}

#[test]
fn listed_records_go_singly_and_have_their_own_codes() {
    let bench = CliFixture::with_users(500);
    let sandbox = Sandbox::start(settings(&["code=40601,id=user7", "code=70169,id=user108,times=2", "code=70500,id=user250"])).unwrap();
    let run = import(&bench, &sandbox, &["--batch"]).run().exits(3).settles(500);
    for row in &run.rows {
        let expected = match row.number {
            7 => ("failed", "40601", 2),
            108 => ("imported", "", 3),
            250 => ("failed", "70500", 6),
            _ => ("imported", "", 1),
        };
        assert_eq!((row.status.as_str(), row.error_code.as_str(), row.attempts), expected, "{row:?}");
    }
    assert_eq!(run.rejects.as_ref().unwrap().lines().count(), 3);
    assert_eq!(run.summary["lane"], "batch");
    adds_up(&run, &sandbox);
}

#[test]
fn a_record_that_spoils_its_batch_spoils_nobody_else() {
    let bench = CliFixture::with_users(400);
    let sandbox = Sandbox::start(unlimited(&["whole=40601,id=user1", "http=502,id=user250"])).unwrap();
    let run = import(&bench, &sandbox, &["--batch=strict", "--rate", "0", "--single-rate", "0"]).run().exits(3).settles(400);
    let failed: Vec<_> = run.rows.iter().filter(|row| row.status != "imported").map(|row| (row.number, row.error_code.as_str())).collect();
    assert_eq!(failed, [(1, "40601"), (250, "")]);
    let attempts = run.attempts();
    assert_eq!((attempts[99], attempts[100], attempts[200], attempts[249]), (2, 1, 6, 10));
    adds_up(&run, &sandbox);
}

#[test]
fn whole_calls_that_fail_for_a_while_cost_attempts_and_no_row() {
    let bench = CliFixture::with_users(600);
    let faults = ["whole=70169,api=multiaccount_import,every=3,count=3", "whole=60007,api=multiaccount_import,every=4,count=1"];
    let sandbox = Sandbox::start(settings(&faults)).unwrap();
    let run = import(&bench, &sandbox, &["--batch"]).run().exits(0).imports_all(600);
    assert_eq!(run.summary["apis"]["multiaccount_import"]["retries"], 4);
    assert_eq!(run.summary["throttled"], 1);
    assert_eq!(run.attempts().iter().sum::<u32>(), 900, "three calls of a hundred were charged to them");
    adds_up(&run, &sandbox);
}

#[test]
fn dropped_profiles_lead_to_the_single_lane_and_with_strict_to_an_end() {
    let bench = CliFixture::with_users(230);
    let sandbox = Sandbox::start(dropping()).unwrap();
    let strict = import(&bench, &sandbox, &["--batch=strict"]).run().exits(5).settles(0);
    assert!(strict.stderr.contains("does not keep the profiles"), "{}", strict.stderr);
    assert_eq!(strict.summary["lane"], "batch");
    let run = import(&bench, &sandbox, &["--batch", "--single-rate", "0"]).run().exits(0).imports_all(230);
    assert_eq!(run.summary["lane"], "batch-fell-back");
    assert!(run.stderr.contains("one account per request"), "{}", run.stderr);
    assert_eq!((run.attempts()[99], run.attempts()[100]), (2, 1));
    assert_eq!(run.summary["max_calls_in_1s"], run.summary["apis"]["account_import"]["max_calls_in_1s"]);
    assert_eq!(sandbox.account("user1").unwrap().nick.as_deref(), Some("Nick 1"));
    assert_eq!(sandbox.audit().of(Api::MultiaccountImport).calls, 2);
}

#[test]
fn refused_batches_lead_to_the_single_lane_and_with_strict_to_an_end() {
    let bench = CliFixture::with_users(150);
    let sandbox = Sandbox::start(unlimited(&["whole=40001,api=multiaccount_import"])).unwrap();
    let strict = import(&bench, &sandbox, &["--batch=strict", "--single-rate", "0"]).run().exits(5);
    assert!(strict.stderr.contains("takes no batches"), "{}", strict.stderr);
    let run = import(&bench, &sandbox, &["--batch", "--single-rate", "0"]).run().exits(0).imports_all(150);
    assert_eq!(run.summary["lane"], "batch-fell-back");
    let sandbox = Sandbox::start(settings(&["whole=40003,api=portrait_get"])).unwrap();
    import(&bench, &sandbox, &["--batch=strict", "--restart"]).run().exits(5).settles(0);
}

#[test]
fn a_kill_is_resumed_in_the_other_lane() {
    side_by_side([("--batch", ""), ("", "--batch")], |(first, then)| {
        let bench = CliFixture::with_users(1_200);
        let sandbox = Sandbox::start(SandboxSettings { limit_per_s: None, latency: Duration::from_millis(20), ..settings(&[]) }).unwrap();
        // Both last longer than the second after which is committed.
        let rate = if first.is_empty() { "300" } else { "5" };
        let first: Vec<&str> = [first, "--rate", rate].into_iter().filter(|flag| !flag.is_empty()).collect();
        let running = import(&bench, &sandbox, &first).start();
        eventually("a commit", || settled(&bench) >= 100);
        running.signal(Signal::KILL);
        assert_eq!(running.wait().signal, Some(9));
        let then: Vec<&str> = [then, "--rate", "0"].into_iter().filter(|flag| !flag.is_empty()).collect();
        let run = import(&bench, &sandbox, &then).run().exits(0).imports_all(1_200);
        assert!(run.summary["resumed_at_row"].as_u64().unwrap() >= 100, "{}", run.summary);
        assert_eq!(run.summary["lane"], if then.len() == 3 { "batch" } else { "single" });
        assert_eq!((sandbox.audit().accounts, sandbox.audit().violations), (1_200, 0));
        bench.call(&["audit", "users.csv", "--results", "users.results.csv"]).run().exits(0);
    });
}

#[test]
fn each_api_has_its_own_limit() {
    let bench = CliFixture::with_users(2_000);
    let sandbox = Sandbox::start(settings(&["code=70169,ids=5%,times=1,api=multiaccount_import"])).unwrap();
    let run = import(&bench, &sandbox, &["--batch", "--rate", "20", "--single-rate", "50"]).run().exits(0).imports_all(2_000);
    let most = |api: &str| run.summary["apis"][api]["max_calls_in_1s"].as_u64().unwrap();
    assert!(most("multiaccount_import") <= 20 && most("account_import") <= 50, "{}", run.summary);
    adds_up(&run, &sandbox);
}

#[test]
fn a_rate_without_limit_leaves_the_single_rate_and_is_for_loopback_only() {
    let bench = CliFixture::with_users(20_000);
    let sandbox = Sandbox::start(SandboxSettings { limit_per_s: None, ..settings(&[]) }).unwrap();
    let run = import(&bench, &sandbox, &["--batch", "--rate", "0"]).run().exits(0).imports_all(20_000);
    assert!(run.summary["elapsed_s"].as_f64().unwrap() < 20.0, "{}", run.summary);
    let key = bench.key();
    let far =
        ["import", "users.csv", "--region", "china", "--sdkappid", "1400000000", "--secret-key-file", key.to_str().unwrap(), "--restart"];
    bench.call(&far).args(&["--batch", "--single-rate", "0"]).run().exits(2).because("--single-rate 0");
    bench.call(&far).args(&["--single-rate", "50"]).run().exits(2);
}

/// A record that is not answered holds back what is behind it, in bounded memory.
#[test]
fn a_stuck_record_takes_no_more_memory_than_promised() {
    const USERS: u64 = 140_000;
    let bench = CliFixture::with_users(USERS);
    let faults = ["code=70169,id=user5,api=multiaccount_import,times=1", "stall,id=user5,count=1"];
    let sandbox = Sandbox::start(SandboxSettings { limit_per_s: None, keep: Keep::Nothing, ..settings(&faults) }).unwrap();
    let bare =
        bench.quiet_import_into("users.csv", &sandbox.endpoint()).args(&["--batch", "--rate", "0", "--timeout", "3", "--in-flight", "64"]);
    // The stand-in keeps no accounts, so that nothing can be read back: its records carry no nicknames.
    bench.write("users.csv", (1..=USERS).fold("UserID\n".to_owned(), |text, row| text + &format!("a_rather_long_user_id_{row}\n")));
    bench.write("users.csv", fs::read_to_string(bench.path("users.csv")).unwrap().replacen("a_rather_long_user_id_5\n", "user5\n", 1));
    let (run, peak_kib) = bare.start().wait_with_peak();
    let run = run.exits(0).imports_all(USERS);
    assert_eq!(run.attempts()[4], 3);
    assert!((1_000..=MEMORY_MAX_KIB).contains(&peak_kib), "{peak_kib} KiB");
}

#[test]
fn a_dry_run_forecasts_both_lanes_at_their_rates() {
    let bench = CliFixture::with_users(1_950);
    let check = |args: &[&str]| bench.call(&["import", "users.csv", "--dry-run"]).args(args).run().exits(0).stdout;
    let forecast = "forecast: 1,950 requests, 10s at 200 a second; in batches: 20 requests, 1s at 100 a second\n";
    assert!(check(&[]).ends_with(forecast), "{}", check(&[]));
    let slow = "forecast: 1,950 requests, 39s at 50 a second; in batches: 20 requests, 4s at 5 a second\n";
    assert!(check(&["--batch", "--rate", "5", "--single-rate", "50"]).ends_with(slow));
    assert!(bench.call(&["check", "users.csv"]).run().exits(0).stdout.ends_with(forecast));
}
