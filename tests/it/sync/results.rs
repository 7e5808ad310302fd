//! What a sync leaves: results, rejects, summary and exit code.

use chatlift::sandbox::{Sandbox, SandboxSettings};

use super::plan::every_kind;
use super::{sync, sync_of};
use crate::support::server::{Server, code, imported};
use crate::support::{CliFixture, KEY, Row, Run, users};

const HEADER: &str = "row,line,UserID,status,error_code,error_info,attempts,finished_at";

fn lines(run: &Run) -> Vec<String> {
    let line = |row: &Row| format!("{} {} {} {} {} {}", row.number, row.line, row.user_id, row.status, row.error_code, row.attempts);
    run.rows.iter().map(line).collect()
}

#[test]
fn a_line_for_each_record_that_is_not_unchanged_in_input_order() {
    let server = Server::new(|request| match (request.user_id.as_str(), request.nick.as_deref()) {
        ("n1", _) => code(70402),
        ("d", Some("X")) => code(12345),
        _ => imported(),
    });
    let bench = every_kind(&server);
    let run = sync(&bench, &server).args(&["--max-attempts", "2"]).run().exits(3).because("3 created, 2 updated, 1 unchanged");
    let expected = [
        "2 4 b updated  1",
        "3 6 c updated  1",
        "4 7 d failed 12345 2",
        "5 8 ab\u{a0} invalid  0",
        "6 9 n1 failed 70402 1",
        "7 10 n2 superseded  0",
        "8 11 =n2 created  1",
        "9 12 n2 created  1",
        "10 13 e superseded  0",
        "11 14 e invalid  0",
        "12 15 n3 superseded  0",
        "13 16 n3 created  1",
    ];
    assert_eq!(lines(&run), expected);
    assert_eq!(bench.read("users.results.csv").lines().next(), Some(HEADER));
    assert!(run.rows.iter().all(|row| humantime::parse_rfc3339(&row.finished_at).is_ok()));
    assert_eq!(run.rows[5].error_info, "a later row has the same UserID");
    assert_eq!((bench.mode("users.results.csv"), bench.mode("users.rejects.csv"), bench.mode("users.state")), (0o600, 0o600, 0o600));
    let rejects: Vec<_> = run.rejects.as_deref().unwrap().lines().map(|line| line.split(',').next().unwrap().to_owned()).collect();
    assert_eq!(rejects, ["UserID", "d", "ab\u{a0}", "n1", "e"], "neither superseded nor unchanged");
    figures(&run);
}

fn figures(run: &Run) {
    let number = |name: &str| run.summary[name].as_u64().unwrap_or_else(|| panic!("{name}: {}", run.summary));
    let numbers = ["rows", "imported", "created", "updated", "failed", "invalid", "kicked", "deleted", "missing_failed", "exit_code"];
    assert_eq!(numbers.map(number), [13, 5, 3, 2, 2, 2, 0, 0, 0, 3]);
    assert_eq!((run.summary["guard"].is_null(), run.summary["lane"].as_str()), (true, Some("single")));
    assert_eq!((run.summary["outcome"].as_str(), number("calls"), number("resumed_at_row")), (Some("finished_with_rejects"), 8, 0));
    let plan = serde_json::json!({"create": 4, "update": 3, "unchanged": 1, "invalid": 2, "superseded": 3, "missing": 2});
    assert_eq!((&run.summary["plan"], &run.summary["codes"]["70402"]), (&plan, &1.into()));
}

#[test]
fn what_is_unchanged_sends_nothing_and_leaves_the_header() {
    let (bench, server) = (CliFixture::with_users(300), Server::new(|_| imported()));
    sync(&bench, &server).run().exits(0);
    for _ in 0..2 {
        let run = sync(&bench, &server).run().exits(0).because("0 created, 0 updated, 300 unchanged");
        assert_eq!((bench.read("users.results.csv"), run.rejects.as_deref()), (format!("{HEADER}\n"), None));
        let figures = ["rows", "imported", "calls"].map(|name| run.summary[name].as_u64().unwrap());
        assert_eq!((figures, server.calls()), ([300, 0, 0], 300));
    }
    assert!(!bench.names().contains("users.missing.csv"));
}

#[test]
fn the_outcomes_decide_the_exit_code() {
    let (bench, server) = (CliFixture::new(), Server::new(|request| if request.user_id == "bad" { code(70402) } else { imported() }));
    for (file, exit) in [
        ("UserID\na\na\n", 0),
        ("UserID\na\nb\n", 0),
        ("UserID\na\nb\nbad\n", 3),
        ("UserID\na\nb\n xy\n", 3),
        ("UserID\na\n xy\n", 3),
        ("UserID\na\n", 0),
    ] {
        bench.write("users.csv", file);
        sync(&bench, &server).run().exits(exit);
    }
}

#[test]
fn quiet_says_nothing_unless_something_needs_attention() {
    let (bench, server) = (CliFixture::with_users(3), Server::new(|_| imported()));
    let run = sync(&bench, &server).args(&["--quiet"]).run();
    assert_eq!((run.code, run.stderr.as_str(), run.stdout.as_str()), (Some(0), "", ""));
    bench.write("users.csv", "UserID\n");
    sync(&bench, &server).args(&["--quiet"]).run().exits(6).because("guard empty");
}

#[test]
fn batches_come_to_the_same() {
    let file = |renamed: &str| (users(250) + "dup,1\n xy,n\ndup,2\n").replace("Nick 1\n", renamed);
    let outcome = |flags: &[&str]| {
        let bench = CliFixture::new();
        let sandbox = Sandbox::start(SandboxSettings { limit_per_s: None, ..SandboxSettings::with_key(KEY.into()) }).unwrap();
        let sync = || sync_of(&bench, &["users.csv", "--state", "users.state"], &sandbox.endpoint()).args(flags);
        bench.write("users.csv", file("Nick 1\n"));
        let first = sync().run().exits(3);
        bench.write("users.csv", file("Other\n") + "new,n\n");
        let second = sync().run().exits(3);
        assert_eq!(sandbox.audit().violations, 0, "{:?}", sandbox.audit().first_violations);
        let lane = second.summary["lane"].as_str().unwrap().to_owned();
        ((lines(&first), lines(&second), second.summary["plan"].clone(), first.rejects, super::exported(&bench)), lane)
    };
    let ((single, lane), (batch, batch_lane)) = (outcome(&[]), outcome(&["--batch", "--single-rate", "0"]));
    assert_eq!(single, batch);
    assert_eq!((lane.as_str(), batch_lane.as_str(), batch.1.len()), ("single", "batch", 4));
}
