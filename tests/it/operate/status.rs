//! `chatlift status`: where a run stands, without a call, whether a process is at work or not.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::server::{Server, code, imported};
use crate::support::{CliFixture, Run, SDKAPPID, eventually, users};

/// What `status --json` says.
fn status(bench: &CliFixture) -> Value {
    let run = bench.call(&["status", "users.csv", "--json"]).run();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    serde_json::from_str(&run.stdout).unwrap()
}

/// The files with the times at which they were changed.
fn traces(bench: &CliFixture) -> Vec<(String, std::time::SystemTime)> {
    let changed = |name: &String| fs::metadata(bench.path(name)).unwrap().modified().unwrap();
    bench.names().into_iter().map(|name| (name.clone(), changed(&name))).collect()
}

fn line<'a>(run: &'a Run, label: &str) -> &'a str {
    let found = run.stdout.lines().find(|line| line.starts_with(label));
    found.unwrap_or_else(|| panic!("{label} is not in {}", run.stdout)).trim_start_matches(label).trim()
}

#[test]
fn a_run_at_work_a_stopped_one_and_a_finished_one_are_told_and_left_alone() {
    let bench = CliFixture::with_users(100);
    let server = Server::new(|request| match request.user_id.as_str() {
        "user3" => code(70402),
        _ => imported().after(Duration::from_millis(50)),
    });
    let running = bench.import(&server).at_any_rate().args(&["--in-flight", "2"]).start();
    eventually("a commit", || bench.path("users.rejects.csv").exists());
    let at_work = status(&bench);
    assert_eq!(at_work["process"], running.id());
    assert_eq!(at_work["finished"], false);
    running.signal(Signal::TERM);
    let run = running.wait().exits(4);
    let (settled, calls) = (run.rows.len() as u64, server.calls());

    let before = traces(&bench);
    let stopped = status(&bench);
    assert_eq!(stopped["command"], "import");
    assert_eq!(stopped["settled"], settled);
    assert_eq!(stopped["left"], 100 - settled);
    assert_eq!(stopped["failed"], 1);
    assert_eq!(stopped["imported"], settled - 1);
    assert_eq!(stopped["process"], Value::Null);
    assert_eq!(stopped["begun_at"], run.rows[0].finished_at.as_str());
    let words = bench.call(&["status", "users.csv"]).run();
    assert!(line(&words, "run").contains("unfinished"), "{}", words.stdout);
    assert_eq!(line(&words, "left"), format!("{} rows", 100 - settled));
    assert_eq!(line(&words, "process "), "none is at work");
    assert_eq!(line(&words, "next"), format!("run the same command again: it continues after row {settled}"));
    assert_eq!(traces(&bench), before, "it changes nothing");
    assert_eq!(server.calls(), calls, "it sends nothing");

    bench.import(&server).at_any_rate().run().exits(3);
    let finished = status(&bench);
    assert_eq!((&finished["finished"], &finished["settled"], &finished["left"]), (&true.into(), &100.into(), &0.into()));
    let words = bench.call(&["status", "users.csv"]).run();
    assert_eq!(line(&words, "next"), "fix the 1 row in users.rejects.csv, then import that file");
    assert_eq!(line(&words, "files"), "users.results.csv, users.rejects.csv");
}

#[test]
fn a_sync_is_told_in_words_of_its_own() {
    let bench = CliFixture::with_users(20);
    let server = Server::new(|request| if request.user_id == "user3" { code(70402) } else { imported() });
    let key = bench.key();
    let sync = |flags: &[&str]| {
        let call = bench.call(&["sync", "users.csv", "--state", "s.db", "--endpoint", &server.endpoint(), "--sdkappid", SDKAPPID]);
        call.at_any_rate().args(&["--secret-key-file", key.to_str().unwrap()]).args(flags).run()
    };
    let words = || bench.call(&["status", "users.csv"]).run();
    sync(&["--limit", "5"]).exits(3);
    let stopped = status(&bench);
    assert_eq!((&stopped["command"], &stopped["settled"], &stopped["left"]), (&"sync".into(), &5.into(), &15.into()));
    assert_eq!((&stopped["imported"], &stopped["failed"], &stopped["finished"]), (&4.into(), &1.into(), &false.into()));
    let told = words();
    assert_eq!(line(&told, "run"), format!("sync into {} (app {SDKAPPID}), unfinished", server.endpoint()));
    assert_eq!(line(&told, "processed"), "5 rows: 4 imported, 1 failed, 0 invalid");
    assert_eq!(line(&told, "next"), "run the same command again: it continues after row 5");
    let planned = bench.read("users.csv");
    bench.write("users.csv", planned.clone() + "more,More\n");
    assert_eq!(line(&words(), "next"), "run the same command again: the file has changed, so it makes a new plan");
    bench.write("users.csv", planned);
    sync(&[]).exits(3);
    let finished = status(&bench);
    assert_eq!((&finished["finished"], &finished["settled"], &finished["left"]), (&true.into(), &20.into(), &0.into()));
    bench.write("users.csv", users(21));
    let told = words();
    assert!(line(&told, "run").ends_with(", finished"), "{}", told.stdout);
    assert_eq!(line(&told, "next"), "the file has changed since: the same command makes a new plan for it");
}

#[test]
fn an_input_that_changed_or_went_is_told() {
    let bench = CliFixture::with_users(20);
    let server = Server::new(|_| imported());
    bench.import(&server).at_any_rate().args(&["--limit", "5"]).run().exits(0);
    bench.write("users.csv", bench.read("users.csv") + "more,More\n");
    let changed = status(&bench);
    assert_eq!((&changed["left"], &changed["input_changed"]), (&16.into(), &true.into()));
    assert_eq!(changed["next"], "run the same command again: it continues after row 5");
    let appended = bench.read("users.csv");
    bench.write("users.csv", appended.replacen("user1", "userX", 1));
    let within = status(&bench)["next"].as_str().unwrap().to_owned();
    assert!(within.contains("put the file back as it was up to row 5") && within.contains("--restart"), "{within}");
    bench.import(&server).at_any_rate().run().exits(2);
    bench.write("users.csv", appended);
    fs::remove_file(bench.path("users.csv")).unwrap();
    let gone = status(&bench);
    assert_eq!((&gone["left"], &gone["settled"], &gone["input_changed"]), (&Value::Null, &5.into(), &false.into()));
}

#[test]
fn a_run_that_was_never_begun_or_whose_checkpoint_is_damaged_is_the_users_to_mend() {
    let bench = CliFixture::with_users(2);
    bench.call(&["status", "users.csv"]).run().exits(2).because("no run of users.csv was started").hints("chatlift check users.csv");
    bench.call(&["status", "-"]).run().exits(2).hints("--results");
    bench.write("users.checkpoint.json", "{}");
    bench.call(&["status", "users.csv"]).run().exits(2).because("users.checkpoint.json cannot be used");
    bench.write("other.csv", "UserID\n");
    bench.call(&["status", "other.csv", "--checkpoint", "users.checkpoint.json"]).run().exits(2).because("users.checkpoint.json");
}
