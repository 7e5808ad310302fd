//! Missing ids that are in the file in another guise, and files of which nobody can say who is in them.

use std::fs;

use chatlift::domain::command::Command as Api;
use chatlift::sandbox::{PresenceField, SandboxSettings};

use super::night::{SyncFixture, settings};
use crate::support::{Run, eventually, side_by_side};

/// In each mode, whoever is missing is due at once.
const KICK: [&str; 4] = ["--missing", "kick", "--missing-runs", "1"];
const DELETE: [&str; 6] = ["--missing", "delete", "--missing-runs", "1", "--max-delete", "100"];

fn fixture(ids: &[&str]) -> SyncFixture {
    let fixture = SyncFixture::new(settings(&[]));
    fixture.night(ids, &[]).exits(0);
    fixture
}

fn touched(fixture: &SyncFixture) -> usize {
    fixture.touched(Api::Kick).len() + fixture.touched(Api::AccountDelete).len()
}

fn told(lines: &[(&str, u32, &str)]) -> Vec<(String, u32, String)> {
    lines.iter().map(|(id, runs, action)| ((*id).to_owned(), *runs, (*action).to_owned())).collect()
}

fn summary<'a>(run: &'a Run, name: &str) -> &'a serde_json::Value {
    run.summary.get(name).unwrap_or_else(|| panic!("{name} is missing: {}", run.summary))
}

const UUID: &str = "550e8400e29b41d4a716446655440000";

/// An id, and a cell in which a person still reads it.
const GUISES: [(&str, &str); 18] = [
    ("user1", "User1"),
    ("User1", "USER1"),
    ("user1", "user1 "),
    ("user1", " user1"),
    ("user1", "\tuser1"),
    ("user1", "user1\u{a0}"),
    ("user1", "\u{3000}user1"),
    ("user1", "\u{200b}user1"),
    ("user1", "user1\u{feff}"),
    ("user1", "'user1"),
    ("user1", "\"=\"\"User1\"\"\""),
    ("00123", "123"),
    ("123", "000123"),
    ("00123", "123.0"),
    ("0", "000"),
    ("=\"00123\"", "'123"),
    (UUID, "550E8400-E29B-41D4-A716-446655440000"),
    ("k1", "\u{212a}1"),
];

#[test]
fn who_is_in_the_file_under_a_look_of_his_id_is_never_touched() {
    side_by_side(GUISES, |(id, cell)| {
        let quoted = format!("\"{}\"", id.replace('"', "\"\""));
        for mode in [&KICK[..], &DELETE] {
            let fixture = SyncFixture::new(settings(&[]));
            fixture.bench.write("users.csv", format!("UserID,Nick\nhere,n\n{quoted},n\ngone,n\n"));
            fixture.again(&[]).exits(0);
            fixture.bench.write("users.csv", format!("UserID,Nick\nhere,n\n{cell},n\n"));
            let run = fixture.again(mode);
            let missing = fixture.missing();
            let [gone, spared] = ["gone", id].map(|id| missing.iter().find(|missing| missing.id == id).unwrap());
            assert_eq!(spared.action, "lookalike", "{id:?} as {cell:?} {mode:?}: {}", run.stderr);
            assert!(spared.error_info.contains("row 2 (line 3)"), "{}", spared.error_info);
            assert_eq!(gone.action, if mode == KICK { "kicked" } else { "deleted" }, "who is truly gone is not spared");
            assert_eq!((summary(&run, "lookalikes"), touched(&fixture)), (&1.into(), 1));
            assert!(fixture.sandbox.account(id).is_some(), "{id:?}");
        }
    });
}

#[test]
fn who_looks_otherwise_is_not_spared() {
    for (id, cell) in [("user1", "user10"), ("a-b", "ab"), ("user01", "user1"), ("12", "1.2")] {
        let fixture = fixture(&[id, "here"]);
        fixture.night(&["here", cell], &DELETE).exits(0);
        assert_eq!(fixture.actions(), told(&[(id, 1, "deleted")]), "{cell:?}");
    }
}

#[test]
fn lookalikes_are_told_in_every_mode_and_left_out_of_the_deletes() {
    let fixture = fixture(&["a1", "a2", "gone", "here"]);
    let file = ["A1", "a2 ", "here"];
    let run = fixture.night(&file, &[]).exits(3);
    assert_eq!(fixture.actions(), told(&[("a1", 1, "lookalike"), ("a2", 1, "lookalike"), ("gone", 1, "none")]));
    assert_eq!(summary(&run, "lookalikes"), 2);
    let bounded = ["--missing", "delete", "--missing-runs", "1", "--max-delete", "0"];
    let run =
        fixture.night(&file, &[&bounded[..], &["--dry-run", "--plan", "plan.csv"]].concat()).exits(6).because("guard deletes: 1 account");
    assert_eq!((summary(&run, "lookalikes"), summary(&run, "guard")), (&2.into(), &"deletes".into()));
    let plan = fixture.bench.read("plan.csv");
    assert!(plan.contains("missing,,,a1,missing in 2 runs; row 1 (line 2) looks like it; spared\n"), "{plan}");
    let spared = fixture.night(&file, &[&bounded[..], &["--protect", "gone"]].concat()).exits(3);
    assert_eq!((touched(&fixture), summary(&spared, "lookalikes")), (0, &2.into()));
}

#[test]
fn lookalikes_may_be_others_where_the_caller_says_so() {
    let fixture = fixture(&["a1", "A2", "here"]);
    let file = ["A1", "a2", "here"];
    let strict = ["--missing", "delete", "--missing-runs", "1", "--max-delete", "1", "--allow", "lookalikes"];
    fixture.night(&file, &strict).exits(6).because("2 accounts due");
    let run = fixture.again(&[&DELETE[..], &["--allow", "lookalikes"]].concat()).exits(0);
    assert_eq!(fixture.actions(), told(&[("A2", 1, "deleted"), ("a1", 1, "deleted")]));
    assert_eq!(summary(&run, "lookalikes"), 0);
}

#[test]
fn who_is_allowed_in_the_plan_and_no_more_by_the_time_of_the_call_is_spared() {
    let fixture = fixture(&["a1", "here"]);
    let allowed = [&DELETE[..], &["--allow", "lookalikes", "--limit", "1"]].concat();
    fixture.night(&["A1", "here", "new"], &allowed).exits(0);
    fixture.again(&DELETE).exits(0);
    assert_eq!((fixture.actions(), touched(&fixture)), (told(&[("a1", 1, "lookalike")]), 0));
}

#[test]
fn of_several_reasons_the_first_is_told() {
    let online = ["both", "protected", "online"].map(|id| (id.to_owned(), PresenceField::Online)).to_vec();
    let fixture = SyncFixture::new(SandboxSettings { online, ..settings(&[]) });
    fixture.night(&["both", "protected", "online", "here"], &[]).exits(0);
    let flags = [&DELETE[..], &["--skip-online", "--protect", "protected"]].concat();
    fixture.night(&["BOTH", "Protected", "here"], &flags).exits(0);
    assert_eq!(fixture.actions(), told(&[("both", 1, "lookalike"), ("online", 1, "online"), ("protected", 1, "protected")]));
}

#[test]
fn a_record_to_be_created_that_looks_like_a_missing_id_is_told() {
    let fixture = fixture(&["a1", "b1", "here"]);
    let run = fixture.night(&["here", "A1", "B1 "], &[]).exits(3);
    let told = "to be created that look like a missing UserID: 1, first in row 2 (line 3)";
    assert!(run.stderr.contains(told), "{}", run.stderr);
    let run = fixture.night(&["here", "A1", "b1"], &[]).exits(0);
    assert!(!run.stderr.contains("to be created that look"), "it is there by now: {}", run.stderr);
}

/// Files in which some record's UserID can't be read for certain, each with the row that is at fault.
const MALFORMED: [(&str, &str); 6] = [
    ("a field too few", "UserID,Nick\nhere,n\nshort\n"),
    ("a field too many", "UserID,Nick\nhere,n\nlong,n,m\n"),
    ("text behind a quote", "UserID,Nick\nhere,n\nb,\"x\"y\n"),
    ("an empty UserID", "UserID,Nick\nhere,n\n,somebody\n"),
    // Where more than a tenth of a file is not UTF-8, it is refused as one in another encoding.
    ("undecodable bytes", "UserID,Nick\nhere,n\nB\u{fffd},n\nc1,n\nc2,n\nc3,n\nc4,n\nc5,n\nc6,n\nc7,n\nc8,n\n"),
    ("an exponent", "UserID,Nick\nhere,n\n1.23457E+11,n\n"),
];

/// Writes such a file; U+FFFD stands for a byte that is none of UTF-8.
fn write_malformed(fixture: &SyncFixture, text: &str) {
    let bytes: Vec<u8> = text.split('\u{fffd}').map(str::as_bytes).collect::<Vec<_>>().join(&0xff);
    fs::write(fixture.bench.path("users.csv"), bytes).unwrap();
}

#[test]
fn kicks_and_deletions_wait_while_the_file_is_malformed() {
    side_by_side(MALFORMED, |(what, text)| {
        for mode in [&KICK[..], &DELETE] {
            let fixture = fixture(&["gone", "here"]);
            write_malformed(&fixture, text);
            for night in 1..=3_u32 {
                let run = fixture.again(mode);
                assert!(matches!(run.code, Some(0 | 3)), "{what}: {}", run.stderr);
                assert_eq!(fixture.actions(), told(&[("gone", night, "none")]), "{what}");
                assert_eq!(summary(&run, "missing_waits"), "malformed", "{what}");
                let nights = if night == 1 { "1 night".to_owned() } else { format!("{night} nights") };
                for words in ["the missing accounts wait", &nights, "row 2 (line 3)", "--allow malformed"] {
                    assert!(run.stderr.contains(words), "{what}, {words}: {}", run.stderr);
                }
            }
            assert_eq!(touched(&fixture), 0, "{what}");
            let run = fixture.again(&[mode, &["--allow", "malformed"]].concat());
            assert_eq!((touched(&fixture), summary(&run, "missing_waits")), (1, &serde_json::Value::Null), "{what}: {}", run.stderr);
        }
    });
}

#[test]
fn what_a_quote_has_swallowed_makes_a_file_malformed() {
    let fixture = fixture(&["gone", "here", "b", "c"]);
    write_malformed(&fixture, "UserID,Nick\nhere,n\nb,\"open\nc,close\"\n");
    let run = fixture.again(&DELETE);
    assert_eq!((touched(&fixture), summary(&run, "missing_waits")), (0, &"malformed".into()), "{}", run.stderr);
}

#[test]
fn the_deletes_are_not_judged_while_they_wait() {
    let fixture = fixture(&["a", "b", "c", "here"]);
    write_malformed(&fixture, MALFORMED[0].1);
    let strict = ["--missing", "delete", "--missing-runs", "1", "--max-delete", "0"];
    let run = fixture.again(&[&strict[..], &["--dry-run"]].concat()).exits(0);
    assert_eq!(summary(&run, "missing_waits"), "malformed");
    fixture.again(&strict).exits(3);
    fixture.again(&[&strict[..], &["--allow", "malformed"]].concat()).exits(6).because("guard deletes: 3 accounts");
    assert_eq!(touched(&fixture), 0);
}

#[test]
fn what_waited_in_the_plan_waits_though_it_is_allowed_by_the_time_of_the_call() {
    let fixture = fixture(&["gone", "here"]);
    write_malformed(&fixture, "UserID,Nick\nhere,other\nnew,n\nshort\n");
    fixture.again(&[&DELETE[..], &["--limit", "1"]].concat()).exits(0);
    let run = fixture.again(&[&DELETE[..], &["--allow", "malformed"]].concat()).exits(3);
    assert_eq!((touched(&fixture), summary(&run, "missing_waits")), (0, &"malformed".into()), "nobody has judged how many they are");
    fixture.again(&[&DELETE[..], &["--allow", "malformed"]].concat()).exits(3);
    assert_eq!(touched(&fixture), 1);
}

#[test]
fn what_was_allowed_in_the_plan_waits_once_it_is_no_more() {
    let fixture = fixture(&["gone", "here"]);
    write_malformed(&fixture, "UserID,Nick\nhere,other\nnew,n\nshort\n");
    fixture.again(&[&DELETE[..], &["--allow", "malformed", "--limit", "1"]].concat()).exits(0);
    let run = fixture.again(&DELETE).exits(3);
    assert_eq!((touched(&fixture), summary(&run, "missing_waits")), (0, &"malformed".into()), "{}", run.stderr);
}

#[test]
fn a_report_and_a_file_that_lacks_nobody_wait_for_nothing() {
    let fixture = fixture(&["gone", "here"]);
    write_malformed(&fixture, MALFORMED[0].1);
    let run = fixture.again(&[]).exits(3);
    assert_eq!(summary(&run, "missing_waits"), &serde_json::Value::Null);
    write_malformed(&fixture, "UserID,Nick\nhere,n\ngone,n\nshort\n");
    let run = fixture.again(&DELETE).exits(3);
    assert_eq!(summary(&run, "missing_waits"), &serde_json::Value::Null);
}

#[test]
fn a_limit_makes_them_wait() {
    let fixture = fixture(&["gone", "here"]);
    let run = fixture.night(&["here=other"], &[&DELETE[..], &["--limit", "5"]].concat()).exits(0);
    assert_eq!((summary(&run, "missing_waits"), touched(&fixture)), (&"limit".into(), 0), "{}", run.stderr);
    let run = fixture.again(&DELETE).exits(0);
    assert_eq!((summary(&run, "missing_waits"), touched(&fixture)), (&serde_json::Value::Null, 1));
}

#[test]
fn a_row_whose_outcome_is_not_known_makes_them_wait() {
    let fixture = SyncFixture::new(settings(&["code=12345,id=bad,api=account_import,count=2"]));
    fixture.night(&["gone", "here"], &[]).exits(0);
    // The other record shows that it is not the service that is down.
    let run = fixture.night(&["here=other", "bad"], &[&DELETE[..], &["--max-attempts", "2"]].concat());
    assert_eq!((summary(&run, "missing_waits"), touched(&fixture)), (&"failed_rows".into(), 0), "{}", run.stderr);
}

/// Changes the file while its rows are being sent.
fn changed_meanwhile(change: impl Fn(&SyncFixture), mode: &[&str]) -> (SyncFixture, Run) {
    let fixture = SyncFixture::new(settings(&["slow=1s,id=new,api=account_import"]));
    fixture.night(&["gone", "here"], &[]).exits(0);
    fixture.write_night(&["here", "new"]);
    let running = super::night::sync(&fixture.bench, &fixture.sandbox.endpoint(), mode).args(&["--timeout", "5"]).start();
    eventually("the row is being sent", || fixture.touched(Api::AccountImport).contains(&"new".to_owned()));
    change(&fixture);
    let run = running.wait();
    (fixture, run)
}

#[test]
fn a_file_that_is_replaced_before_they_are_dealt_with_makes_them_wait() {
    let replace = |fixture: &SyncFixture| {
        fs::write(fixture.bench.path("next.csv"), "UserID,Nick,night\nhere,n,9\nnew,n,9\ngone,n,9\n").unwrap();
        fs::rename(fixture.bench.path("next.csv"), fixture.bench.path("users.csv")).unwrap();
    };
    side_by_side([&KICK[..], &DELETE], |mode| {
        let (fixture, run) = changed_meanwhile(replace, mode);
        let run = run.exits(0);
        assert_eq!((summary(&run, "missing_waits"), touched(&fixture)), (&"file_changed".into(), 0), "{}", run.stderr);
        assert_eq!(fixture.actions(), told(&[("gone", 1, "none")]), "the run counts all the same");
        fixture.again(mode).exits(0);
        assert_eq!(touched(&fixture), 0, "it is there");
    });
}

#[test]
fn a_file_that_is_gone_before_they_are_dealt_with_makes_them_wait() {
    let (fixture, run) = changed_meanwhile(|fixture| fs::remove_file(fixture.bench.path("users.csv")).unwrap(), &DELETE);
    assert_eq!((summary(&run, "missing_waits"), touched(&fixture)), (&"file_changed".into(), 0), "{}", run.stderr);
}

#[test]
fn a_file_that_was_only_touched_is_the_same() {
    let touch = |fixture: &SyncFixture| {
        let path = fixture.bench.path("users.csv");
        fs::OpenOptions::new().append(true).open(&path).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    };
    let (fixture, run) = changed_meanwhile(touch, &DELETE);
    assert_eq!((summary(&run, "missing_waits"), touched(&fixture)), (&serde_json::Value::Null, 1), "{}", run.stderr);
}

#[test]
fn a_state_that_is_replaced_in_the_night_ends_no_run_as_finished_and_touches_nobody() {
    let (theirs, older) = ("theirs.state", "older.state");
    let replace = |fixture: &SyncFixture| {
        let path = |name: &str| fixture.bench.path(name);
        fs::rename(path("users.state"), path(theirs)).unwrap();
        fs::rename(path(older), path("users.state")).unwrap();
    };
    let fixture = SyncFixture::new(settings(&["slow=1s,id=new,api=account_import"]));
    fixture.night(&["gone", "here"], &[]).exits(0);
    fs::copy(fixture.bench.path("users.state"), fixture.bench.path(older)).unwrap();
    fixture.write_night(&["here", "new"]);
    let running = super::night::sync(&fixture.bench, &fixture.sandbox.endpoint(), &DELETE).args(&["--timeout", "5"]).start();
    eventually("the row is being sent", || fixture.touched(Api::AccountImport).contains(&"new".to_owned()));
    replace(&fixture);
    running.wait().exits(2).because("another was put in its place");
    assert_eq!(touched(&fixture), 0, "nobody is deleted by a state that knows nothing of the run");
    fs::rename(fixture.bench.path(theirs), fixture.bench.path("users.state")).unwrap();
    let run = fixture.again(&[]).exits(0);
    assert_eq!((&run.summary["plan"]["create"], fixture.held().len()), (&1.into(), 3), "brought back, it goes on");
}
