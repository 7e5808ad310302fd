//! Missing ids that are in the file in another guise, and files of which nobody can say who is in them.

use std::fs;

use chatlift::domain::command::Command as Api;
use chatlift::sandbox::{PresenceField, SandboxSettings};

use super::night::{SyncFixture, settings};
use crate::support::{Run, eventually, side_by_side};

/// In each mode, whoever is missing is due at once.
const KICK: [&str; 4] = ["--missing", "kick", "--missing-runs", "1"];
const DELETE: [&str; 6] = ["--missing", "delete", "--missing-runs", "1", "--max-delete", "100"];

fn house(ids: &[&str]) -> SyncFixture {
    let house = SyncFixture::new(settings(&[]));
    house.night(ids, &[]).exits(0);
    house
}

fn touched(house: &SyncFixture) -> usize {
    house.touched(Api::Kick).len() + house.touched(Api::AccountDelete).len()
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
            let house = SyncFixture::new(settings(&[]));
            house.bench.write("users.csv", format!("UserID,Nick\nhere,n\n{quoted},n\ngone,n\n"));
            house.again(&[]).exits(0);
            house.bench.write("users.csv", format!("UserID,Nick\nhere,n\n{cell},n\n"));
            let run = house.again(mode);
            let missing = house.missing();
            let [gone, spared] = ["gone", id].map(|id| missing.iter().find(|missing| missing.id == id).unwrap());
            assert_eq!(spared.action, "lookalike", "{id:?} as {cell:?} {mode:?}: {}", run.stderr);
            assert!(spared.error_info.contains("row 2 (line 3)"), "{}", spared.error_info);
            assert_eq!(gone.action, if mode == KICK { "kicked" } else { "deleted" }, "who is truly gone is not spared");
            assert_eq!((summary(&run, "lookalikes"), touched(&house)), (&1.into(), 1));
            assert!(house.sandbox.account(id).is_some(), "{id:?}");
        }
    });
}

#[test]
fn who_looks_otherwise_is_not_spared() {
    for (id, cell) in [("user1", "user10"), ("a-b", "ab"), ("user01", "user1"), ("12", "1.2")] {
        let house = house(&[id, "here"]);
        house.night(&["here", cell], &DELETE).exits(0);
        assert_eq!(house.actions(), told(&[(id, 1, "deleted")]), "{cell:?}");
    }
}

#[test]
fn lookalikes_are_told_in_every_mode_and_left_out_of_the_deletes() {
    let house = house(&["a1", "a2", "gone", "here"]);
    let file = ["A1", "a2 ", "here"];
    let run = house.night(&file, &[]).exits(3);
    assert_eq!(house.actions(), told(&[("a1", 1, "lookalike"), ("a2", 1, "lookalike"), ("gone", 1, "none")]));
    assert_eq!(summary(&run, "lookalikes"), 2);
    let bounded = ["--missing", "delete", "--missing-runs", "1", "--max-delete", "0"];
    let run =
        house.night(&file, &[&bounded[..], &["--dry-run", "--plan", "plan.csv"]].concat()).exits(6).because("guard deletes: 1 account");
    assert_eq!((summary(&run, "lookalikes"), summary(&run, "guard")), (&2.into(), &"deletes".into()));
    let plan = house.bench.read("plan.csv");
    assert!(plan.contains("missing,,,a1,missing in 2 runs; row 1 (line 2) looks like it; spared\n"), "{plan}");
    let spared = house.night(&file, &[&bounded[..], &["--protect", "gone"]].concat()).exits(3);
    assert_eq!((touched(&house), summary(&spared, "lookalikes")), (0, &2.into()));
}

#[test]
fn lookalikes_may_be_others_where_the_caller_says_so() {
    let house = house(&["a1", "A2", "here"]);
    let file = ["A1", "a2", "here"];
    let strict = ["--missing", "delete", "--missing-runs", "1", "--max-delete", "1", "--allow", "lookalikes"];
    house.night(&file, &strict).exits(6).because("2 accounts due");
    let run = house.again(&[&DELETE[..], &["--allow", "lookalikes"]].concat()).exits(0);
    assert_eq!(house.actions(), told(&[("A2", 1, "deleted"), ("a1", 1, "deleted")]));
    assert_eq!(summary(&run, "lookalikes"), 0);
}

#[test]
fn who_is_allowed_in_the_plan_and_no_more_by_the_time_of_the_call_is_spared() {
    let house = house(&["a1", "here"]);
    let allowed = [&DELETE[..], &["--allow", "lookalikes", "--limit", "1"]].concat();
    house.night(&["A1", "here", "new"], &allowed).exits(0);
    house.again(&DELETE).exits(0);
    assert_eq!((house.actions(), touched(&house)), (told(&[("a1", 1, "lookalike")]), 0));
}

#[test]
fn of_several_reasons_the_first_is_told() {
    let online = ["both", "protected", "online"].map(|id| (id.to_owned(), PresenceField::Online)).to_vec();
    let house = SyncFixture::new(SandboxSettings { online, ..settings(&[]) });
    house.night(&["both", "protected", "online", "here"], &[]).exits(0);
    let flags = [&DELETE[..], &["--skip-online", "--protect", "protected"]].concat();
    house.night(&["BOTH", "Protected", "here"], &flags).exits(0);
    assert_eq!(house.actions(), told(&[("both", 1, "lookalike"), ("online", 1, "online"), ("protected", 1, "protected")]));
}

#[test]
fn a_record_to_be_created_that_looks_like_a_missing_id_is_told() {
    let house = house(&["a1", "b1", "here"]);
    let run = house.night(&["here", "A1", "B1 "], &[]).exits(3);
    let told = "to be created that look like a missing UserID: 1, first in row 2 (line 3)";
    assert!(run.stderr.contains(told), "{}", run.stderr);
    let run = house.night(&["here", "A1", "b1"], &[]).exits(0);
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
fn write_malformed(house: &SyncFixture, text: &str) {
    let bytes: Vec<u8> = text.split('\u{fffd}').map(str::as_bytes).collect::<Vec<_>>().join(&0xff);
    fs::write(house.bench.path("users.csv"), bytes).unwrap();
}

#[test]
fn kicks_and_deletions_wait_while_the_file_is_malformed() {
    side_by_side(MALFORMED, |(what, text)| {
        for mode in [&KICK[..], &DELETE] {
            let house = house(&["gone", "here"]);
            write_malformed(&house, text);
            for night in 1..=3_u32 {
                let run = house.again(mode);
                assert!(matches!(run.code, Some(0 | 3)), "{what}: {}", run.stderr);
                assert_eq!(house.actions(), told(&[("gone", night, "none")]), "{what}");
                assert_eq!(summary(&run, "missing_waits"), "malformed", "{what}");
                let nights = if night == 1 { "1 night".to_owned() } else { format!("{night} nights") };
                for words in ["the missing accounts wait", &nights, "row 2 (line 3)", "--allow malformed"] {
                    assert!(run.stderr.contains(words), "{what}, {words}: {}", run.stderr);
                }
            }
            assert_eq!(touched(&house), 0, "{what}");
            let run = house.again(&[mode, &["--allow", "malformed"]].concat());
            assert_eq!((touched(&house), summary(&run, "missing_waits")), (1, &serde_json::Value::Null), "{what}: {}", run.stderr);
        }
    });
}

#[test]
fn what_a_quote_has_swallowed_makes_a_file_malformed() {
    let house = house(&["gone", "here", "b", "c"]);
    write_malformed(&house, "UserID,Nick\nhere,n\nb,\"open\nc,close\"\n");
    let run = house.again(&DELETE);
    assert_eq!((touched(&house), summary(&run, "missing_waits")), (0, &"malformed".into()), "{}", run.stderr);
}

#[test]
fn the_deletes_are_not_judged_while_they_wait() {
    let house = house(&["a", "b", "c", "here"]);
    write_malformed(&house, MALFORMED[0].1);
    let strict = ["--missing", "delete", "--missing-runs", "1", "--max-delete", "0"];
    let run = house.again(&[&strict[..], &["--dry-run"]].concat()).exits(0);
    assert_eq!(summary(&run, "missing_waits"), "malformed");
    house.again(&strict).exits(3);
    house.again(&[&strict[..], &["--allow", "malformed"]].concat()).exits(6).because("guard deletes: 3 accounts");
    assert_eq!(touched(&house), 0);
}

#[test]
fn what_waited_in_the_plan_waits_though_it_is_allowed_by_the_time_of_the_call() {
    let house = house(&["gone", "here"]);
    write_malformed(&house, "UserID,Nick\nhere,other\nnew,n\nshort\n");
    house.again(&[&DELETE[..], &["--limit", "1"]].concat()).exits(0);
    let run = house.again(&[&DELETE[..], &["--allow", "malformed"]].concat()).exits(3);
    assert_eq!((touched(&house), summary(&run, "missing_waits")), (0, &"malformed".into()), "nobody has judged how many they are");
    house.again(&[&DELETE[..], &["--allow", "malformed"]].concat()).exits(3);
    assert_eq!(touched(&house), 1);
}

#[test]
fn what_was_allowed_in_the_plan_waits_once_it_is_no_more() {
    let house = house(&["gone", "here"]);
    write_malformed(&house, "UserID,Nick\nhere,other\nnew,n\nshort\n");
    house.again(&[&DELETE[..], &["--allow", "malformed", "--limit", "1"]].concat()).exits(0);
    let run = house.again(&DELETE).exits(3);
    assert_eq!((touched(&house), summary(&run, "missing_waits")), (0, &"malformed".into()), "{}", run.stderr);
}

#[test]
fn a_report_and_a_file_that_lacks_nobody_wait_for_nothing() {
    let house = house(&["gone", "here"]);
    write_malformed(&house, MALFORMED[0].1);
    let run = house.again(&[]).exits(3);
    assert_eq!(summary(&run, "missing_waits"), &serde_json::Value::Null);
    write_malformed(&house, "UserID,Nick\nhere,n\ngone,n\nshort\n");
    let run = house.again(&DELETE).exits(3);
    assert_eq!(summary(&run, "missing_waits"), &serde_json::Value::Null);
}

#[test]
fn a_limit_makes_them_wait() {
    let house = house(&["gone", "here"]);
    let run = house.night(&["here=other"], &[&DELETE[..], &["--limit", "5"]].concat()).exits(0);
    assert_eq!((summary(&run, "missing_waits"), touched(&house)), (&"limit".into(), 0), "{}", run.stderr);
    let run = house.again(&DELETE).exits(0);
    assert_eq!((summary(&run, "missing_waits"), touched(&house)), (&serde_json::Value::Null, 1));
}

#[test]
fn a_row_whose_outcome_is_not_known_makes_them_wait() {
    let house = SyncFixture::new(settings(&["code=12345,id=bad,api=account_import,count=2"]));
    house.night(&["gone", "here"], &[]).exits(0);
    // The other record shows that it is not the service that is down.
    let run = house.night(&["here=other", "bad"], &[&DELETE[..], &["--max-attempts", "2"]].concat());
    assert_eq!((summary(&run, "missing_waits"), touched(&house)), (&"failed_rows".into(), 0), "{}", run.stderr);
}

/// Changes the file while its rows are being sent.
fn changed_meanwhile(change: impl Fn(&SyncFixture), mode: &[&str]) -> (SyncFixture, Run) {
    let house = SyncFixture::new(settings(&["slow=1s,id=new,api=account_import"]));
    house.night(&["gone", "here"], &[]).exits(0);
    house.write_night(&["here", "new"]);
    let running = super::night::sync(&house.bench, &house.sandbox.endpoint(), mode).args(&["--timeout", "5"]).start();
    eventually("the row is being sent", || house.touched(Api::AccountImport).contains(&"new".to_owned()));
    change(&house);
    let run = running.wait();
    (house, run)
}

#[test]
fn a_file_that_is_replaced_before_they_are_dealt_with_makes_them_wait() {
    let replace = |house: &SyncFixture| {
        fs::write(house.bench.path("next.csv"), "UserID,Nick,night\nhere,n,9\nnew,n,9\ngone,n,9\n").unwrap();
        fs::rename(house.bench.path("next.csv"), house.bench.path("users.csv")).unwrap();
    };
    side_by_side([&KICK[..], &DELETE], |mode| {
        let (house, run) = changed_meanwhile(replace, mode);
        let run = run.exits(0);
        assert_eq!((summary(&run, "missing_waits"), touched(&house)), (&"file_changed".into(), 0), "{}", run.stderr);
        assert_eq!(house.actions(), told(&[("gone", 1, "none")]), "the run counts all the same");
        house.again(mode).exits(0);
        assert_eq!(touched(&house), 0, "it is there");
    });
}

#[test]
fn a_file_that_is_gone_before_they_are_dealt_with_makes_them_wait() {
    let (house, run) = changed_meanwhile(|house| fs::remove_file(house.bench.path("users.csv")).unwrap(), &DELETE);
    assert_eq!((summary(&run, "missing_waits"), touched(&house)), (&"file_changed".into(), 0), "{}", run.stderr);
}

#[test]
fn a_file_that_was_only_touched_is_the_same() {
    let touch = |house: &SyncFixture| {
        let path = house.bench.path("users.csv");
        fs::OpenOptions::new().append(true).open(&path).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    };
    let (house, run) = changed_meanwhile(touch, &DELETE);
    assert_eq!((summary(&run, "missing_waits"), touched(&house)), (&serde_json::Value::Null, 1), "{}", run.stderr);
}

#[test]
fn a_state_that_is_replaced_in_the_night_ends_no_run_as_finished_and_touches_nobody() {
    let (theirs, older) = ("theirs.state", "older.state");
    let replace = |house: &SyncFixture| {
        let path = |name: &str| house.bench.path(name);
        fs::rename(path("users.state"), path(theirs)).unwrap();
        fs::rename(path(older), path("users.state")).unwrap();
    };
    let house = SyncFixture::new(settings(&["slow=1s,id=new,api=account_import"]));
    house.night(&["gone", "here"], &[]).exits(0);
    fs::copy(house.bench.path("users.state"), house.bench.path(older)).unwrap();
    house.write_night(&["here", "new"]);
    let running = super::night::sync(&house.bench, &house.sandbox.endpoint(), &DELETE).args(&["--timeout", "5"]).start();
    eventually("the row is being sent", || house.touched(Api::AccountImport).contains(&"new".to_owned()));
    replace(&house);
    running.wait().exits(2).because("another was put in its place");
    assert_eq!(touched(&house), 0, "nobody is deleted by a state that knows nothing of the run");
    fs::rename(house.bench.path(theirs), house.bench.path("users.state")).unwrap();
    let run = house.again(&[]).exits(0);
    assert_eq!((&run.summary["plan"]["create"], house.held().len()), (&1.into(), 3), "brought back, it goes on");
}
