//! Accounts that the file lacks: told, kicked or deleted, and every lock in front of that.

use chatlift::domain::command::Command as Api;
use chatlift::sandbox::{Deleting, PresenceField, SandboxSettings};

use super::night::{SyncFixture, settings};

const KICK: [&str; 2] = ["--missing", "kick"];
const DELETE: [&str; 4] = ["--missing", "delete", "--max-delete", "100"];
const AT_ONCE: [&str; 2] = ["--missing-runs", "1"];

fn fixture(faults: &[&str]) -> SyncFixture {
    SyncFixture::new(settings(faults))
}

fn flags<'a>(parts: &[&[&'a str]]) -> Vec<&'a str> {
    parts.concat()
}

/// Deletes whatever is missing tonight.
fn delete_now<'a>(more: &[&'a str]) -> Vec<&'a str> {
    flags(&[&DELETE, &AT_ONCE, more])
}

fn kick_now<'a>(more: &[&'a str]) -> Vec<&'a str> {
    flags(&[&KICK, &AT_ONCE, more])
}

fn told(lines: &[(&str, u32, &str)]) -> Vec<(String, u32, String)> {
    lines.iter().map(|(id, runs, action)| ((*id).to_owned(), *runs, (*action).to_owned())).collect()
}

#[test]
fn a_report_tells_who_is_missing_and_since_when_and_sends_nothing() {
    let fixture = fixture(&[]);
    let first = fixture.night(&["d", "c", "b", "a"], &[]).exits(0);
    assert_eq!(fixture.missing(), [], "none are missing");
    fixture.night(&["b", "d"], &[]).exits(0);
    let missing = fixture.missing();
    assert_eq!(fixture.actions(), told(&[("a", 1, "none"), ("c", 1, "none")]), "in order of ids");
    let imported = [first.rows[3].finished_at.as_str(), first.rows[1].finished_at.as_str()];
    assert_eq!([missing[0].last_imported.as_str(), missing[1].last_imported.as_str()], imported);
    assert!(missing.iter().all(|missing| missing.error_code.is_empty() && missing.error_info.is_empty()));
    assert_eq!(fixture.bench.mode("users.missing.csv"), 0o600);
    let run = fixture.night(&["b", "d"], &[]).exits(0);
    assert_eq!(fixture.actions(), told(&[("a", 2, "none"), ("c", 2, "none")]));
    assert_eq!((&run.summary["plan"]["missing"], &run.summary["kicked"], &run.summary["deleted"]), (&2.into(), &0.into(), &0.into()));
    fixture.night(&["a", "b", "c", "d"], &[]).exits(0);
    assert_eq!(fixture.missing(), [], "the last run's file is set aside");
    fixture.night(&["b", "d"], &[]).exits(0);
    assert_eq!(fixture.actions(), told(&[("a", 1, "none"), ("c", 1, "none")]), "who comes back starts at 0");
    assert_eq!(fixture.sandbox.call_log().len(), 4, "the first night's imports are all that was ever sent");
}

#[test]
fn who_is_in_an_invalid_record_is_not_missing() {
    let fixture = fixture(&[]);
    fixture.night(&["a", "b"], &[]).exits(0);
    let too_long = format!("b={}", "x".repeat(501));
    fixture.night(&["a", &too_long], &delete_now(&[])).exits(3);
    assert_eq!(fixture.missing(), []);
    fixture.night(&["a", &too_long, "c"], &[]).exits(3);
    fixture.night(&["a"], &[]).exits(0);
    assert_eq!(fixture.actions(), told(&[("b", 1, "none"), ("c", 1, "none")]), "it never was");
}

#[test]
fn a_kick_comes_after_three_runs_and_not_again_until_the_id_has_come_back() {
    let fixture = fixture(&[]);
    fixture.night(&["a", "b"], &KICK).exits(0);
    for runs in 1..=2 {
        fixture.night(&["b"], &KICK).exits(0);
        assert_eq!(fixture.actions(), told(&[("a", runs, "none")]));
    }
    let run = fixture.night(&["b"], &KICK).exits(0).because("1 missing, 1 kicked");
    assert_eq!(fixture.actions(), told(&[("a", 3, "kicked")]));
    assert_eq!((&run.summary["kicked"], &run.summary["missing_failed"]), (&1.into(), &0.into()));
    for runs in 4..=5 {
        fixture.night(&["b"], &KICK).exits(0);
        assert_eq!(fixture.actions(), told(&[("a", runs, "none")]));
    }
    assert_eq!(fixture.touched(Api::Kick), ["a"]);
    let run = fixture.night(&["a", "b"], &KICK).exits(0);
    assert_eq!(run.summary["plan"]["unchanged"], 2, "a kick takes nothing from an account");
    for _ in 1..=2 {
        fixture.night(&["b"], &KICK).exits(0);
    }
    assert_eq!(fixture.touched(Api::Kick), ["a"]);
    fixture.night(&["b"], &KICK).exits(0);
    assert_eq!(fixture.touched(Api::Kick), ["a", "a"]);
}

#[test]
fn a_deleted_id_leaves_the_state_and_is_created_when_it_comes_back() {
    let fixture = fixture(&[]);
    fixture.night(&["a", "b"], &[]).exits(0);
    let two = flags(&[&DELETE, &["--missing-runs", "2"]]);
    fixture.night(&["b"], &two).exits(0);
    assert_eq!(fixture.touched(Api::AccountDelete), [] as [&str; 0]);
    let run = fixture.night(&["b"], &two).exits(0);
    assert_eq!(fixture.actions(), told(&[("a", 2, "deleted")]));
    assert_eq!(run.summary["deleted"], 1);
    assert_eq!((fixture.sandbox.account("a"), fixture.held()), (None, vec!["b".to_owned()]));
    fixture.night(&["b"], &two).exits(0);
    assert_eq!(fixture.missing(), []);
    let run = fixture.night(&["a", "b"], &two).exits(0);
    assert_eq!((&run.summary["created"], &run.summary["plan"]["unchanged"]), (&1.into(), &1.into()));
    fixture.night(&["b"], &two).exits(0);
    assert_eq!(fixture.actions(), told(&[("a", 1, "none")]));
}

#[test]
fn no_more_are_deleted_than_was_allowed() {
    let fixture = fixture(&[]);
    let ids: Vec<String> = (0..10).map(|number| format!("u{number}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    fixture.night(&ids, &[]).exits(0);
    let sent = fixture.sandbox.call_log().len();
    fixture.night(&ids[3..], &["--missing", "delete"]).exits(2);
    let state = fixture.bench.contents().into_iter().find(|(name, _)| name == "users.state");
    for bound in ["2", "29%", "29.99%", "0"] {
        let run = fixture.again(&["--missing", "delete", "--missing-runs", "1", "--max-delete", bound]).exits(6);
        assert!(run.because("guard deletes: 3 accounts").hints("--max-delete 3").summary["guard"] == "deletes");
        assert_eq!(fixture.bench.contents().into_iter().find(|(name, _)| name == "users.state"), state, "the state is untouched");
    }
    assert_eq!(fixture.sandbox.call_log().len(), sent, "nothing is sent");
    fixture.again(&["--missing", "delete", "--missing-runs", "2", "--max-delete", "0"]).exits(0);
    fixture.night(&ids[3..], &["--missing", "delete", "--missing-runs", "2", "--max-delete", "42%"]).exits(6);
    fixture.again(&["--missing", "delete", "--missing-runs", "2", "--max-delete", "43%"]).exits(0);
    assert_eq!(fixture.touched(Api::AccountDelete), ["u0", "u1", "u2"], "three of the seven held");
}

#[test]
fn as_many_as_the_bound_says_may_be_kicked_and_no_more() {
    let fixture = fixture(&[]);
    let ids: Vec<String> = (0..502).map(|number| format!("u{number:03}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    fixture.night(&ids, &[]).exits(0);
    let try_out = kick_now(&["--allow", "shrunk", "--max-delete", "500", "--dry-run"]);
    fixture.night(&ids[501..], &try_out).exits(6).because("guard deletes: 501 accounts");
    let run = fixture.night(&ids[500..], &try_out);
    assert_eq!((run.code, &run.summary["guard"]), (Some(0), &serde_json::Value::Null), "{}", run.stderr);
}

#[test]
fn the_identifier_in_use_and_the_protected_are_never_touched() {
    for (what, missing) in [("kicked", "kick"), ("deleted", "delete")] {
        let locks = ["--identifier", "boss", "--protect", "vip*", "--protect", "x?", "--protect", "[m-o]1"];
        let flags = flags(&[&["--missing", missing, "--max-delete", "2"], &AT_ONCE, &locks]);
        let fixture = SyncFixture::new(SandboxSettings { identifier: "boss".to_owned(), ..settings(&[]) });
        let all = ["boss", "here", "n1", "p1", "vip", "vip2", "x1", "xyz"];
        fixture.night(&all, &["--identifier", "boss"]).exits(0);
        fixture.night(&["here"], &flags).exits(0);
        let protected = ["boss", "n1", "vip", "vip2", "x1"].map(|id| (id, 1, "protected"));
        let mut expected: Vec<_> = protected.into_iter().chain([("p1", 1, what), ("xyz", 1, what)]).collect();
        expected.sort_unstable();
        assert_eq!(fixture.actions(), told(&expected));
        let touched = fixture.touched(if what == "kicked" { Api::Kick } else { Api::AccountDelete });
        assert_eq!(touched.iter().map(String::as_str).collect::<std::collections::BTreeSet<_>>(), ["p1", "xyz"].into());
    }
}

#[test]
fn whoever_is_online_or_could_not_be_asked_about_is_spared() {
    let faults = ["code=40003,id=unasked,api=query_online_status", "code=70107,id=gone,api=query_online_status"];
    let online = vec![("on".to_owned(), PresenceField::Online), ("push".to_owned(), PresenceField::PushOnline)];
    for (command, mut flags, what) in [(Api::Kick, kick_now(&[]), "kicked"), (Api::AccountDelete, delete_now(&[]), "deleted")] {
        let fixture = SyncFixture::new(SandboxSettings { online: online.clone(), ..settings(&faults) });
        fixture.night(&["gone", "here", "off", "on", "push", "unasked"], &[]).exits(0);
        flags.push("--skip-online");
        let run = fixture.night(&["here"], &flags).exits(0);
        let expected = [("gone", 1, what), ("off", 1, what), ("on", 1, "online"), ("push", 1, "online"), ("unasked", 1, "online")];
        assert_eq!(fixture.actions(), told(&expected));
        assert_eq!(fixture.missing()[4].error_code, "40003", "why it could not be asked about");
        assert_eq!(run.summary[what], 2);
        let mut touched = fixture.touched(command);
        touched.sort_unstable();
        assert_eq!(touched, ["gone", "off"]);
        assert_eq!(fixture.touched(Api::QueryOnlineStatus).len(), 5, "nobody else is asked about");
    }
}

#[test]
fn a_service_that_does_not_say_who_is_online_spares_everybody() {
    let fixture = fixture(&["whole=12345,api=query_online_status"]);
    fixture.night(&["a", "b", "here"], &[]).exits(0);
    fixture.night(&["here"], &delete_now(&["--skip-online", "--max-attempts", "2"])).exits(0);
    assert_eq!(fixture.actions(), told(&[("a", 1, "online"), ("b", 1, "online")]));
    assert_eq!(fixture.missing()[0].error_code, "12345");
    assert_eq!(fixture.touched(Api::AccountDelete), [] as [&str; 0]);
}

#[test]
fn an_account_that_is_gone_already_counts_as_deleted() {
    let fixture = fixture(&["code=70107,id=a,api=account_delete", "whole=70107,id=b,api=account_delete"]);
    fixture.night(&["a", "here"], &[]).exits(0);
    let run = fixture.night(&["here"], &delete_now(&[])).exits(0);
    assert_eq!(fixture.actions(), told(&[("a", 1, "deleted")]));
    assert_eq!((&run.summary["deleted"], fixture.held()), (&1.into(), vec!["here".to_owned()]));
    fixture.night(&["b", "here"], &[]).exits(0);
    fixture.night(&["here"], &delete_now(&[])).exits(0);
    assert_eq!(fixture.actions(), told(&[("b", 1, "deleted")]));
}

#[test]
fn deleting_that_is_switched_off_stops_the_run_and_it_goes_on_once_it_is_on() {
    for fault in ["whole=71000,api=account_delete,count=1", "code=71000,id=b,api=account_delete,count=1"] {
        let fixture = fixture(&[fault]);
        fixture.night(&["a", "b", "c", "here"], &[]).exits(0);
        let run = fixture.night(&["here", "new"], &delete_now(&[])).exits(5).because("switched off").hints("console");
        assert_eq!((run.rows.len(), &run.summary["created"]), (1, &1.into()), "{fault}: the rows have settled");
        let before = fixture.touched(Api::AccountImport).len();
        let deleted = run.summary["deleted"].as_u64().unwrap();
        assert_eq!(deleted, if fault.starts_with("code") { 2 } else { 0 }, "{fault}: what it did is told");
        let run = fixture.again(&delete_now(&[])).exits(0);
        assert_eq!(fixture.actions(), told(&[("a", 1, "deleted"), ("b", 1, "deleted"), ("c", 1, "deleted")]), "{fault}");
        assert_eq!((&run.summary["deleted"], &run.summary["resumed_at_row"]), (&3.into(), &2.into()), "{fault}: of the whole run");
        assert_eq!(fixture.touched(Api::AccountImport).len(), before, "{fault}");
        let of_a = fixture.touched(Api::AccountDelete).into_iter().filter(|id| id == "a").count();
        assert_eq!(of_a, if fault.starts_with("code") { 1 } else { 2 }, "{fault}: what is done is not done again");
    }
}

#[test]
fn deleting_that_is_never_switched_on_stops_every_run() {
    let fixture = SyncFixture::new(SandboxSettings { deleting: Deleting::SwitchedOff, ..settings(&[]) });
    fixture.night(&["a", "here"], &[]).exits(0);
    fixture.night(&["here"], &delete_now(&[])).exits(5);
    fixture.again(&delete_now(&[])).exits(5);
    assert_eq!(fixture.held(), ["a", "here"]);
    // Another file plans anew, and without deleting there is an end.
    fixture.night(&["here"], &[]).exits(0);
    assert_eq!(fixture.actions(), told(&[("a", 1, "none")]), "runs that were not finished don't count");
}

#[test]
fn a_kick_or_delete_that_fails_is_told_and_tried_again_in_the_next_run() {
    for (fault, flags, what) in [
        ("code=40003,id=a,api=kick,count=1", kick_now(&[]), "kicked"),
        // A temporary error is tried for two minutes where nothing else shows whether the service is well; an unknown code isn't.
        ("code=12345,id=a,api=kick,count=2", kick_now(&["--max-attempts", "2"]), "kicked"),
        ("code=70402,id=a,api=account_delete,count=1", delete_now(&[]), "deleted"),
        ("whole=12345,api=account_delete,count=2", delete_now(&["--max-attempts", "2"]), "deleted"),
    ] {
        let fixture = fixture(&[fault]);
        fixture.night(&["a", "here"], &[]).exits(0);
        let run = fixture.night(&["here"], &flags).exits(3).hints("users.missing.csv");
        assert_eq!(fixture.actions(), told(&[("a", 1, "failed")]), "{fault}");
        assert_eq!(fixture.missing()[0].error_code, fault.split(['=', ',']).nth(1).unwrap(), "{fault}");
        assert!(!fixture.missing()[0].error_info.is_empty(), "{fault}");
        let figures = ["missing_failed", "failed", "kicked", "deleted"].map(|name| run.summary[name].as_u64().unwrap());
        assert_eq!(figures, [1, 0, 0, 0], "{fault}");
        let run = fixture.night(&["here"], &flags).exits(0);
        assert_eq!(fixture.actions(), told(&[("a", 2, what)]), "{fault}");
        assert_eq!((&run.summary[what], &run.summary["missing_failed"]), (&1.into(), &0.into()), "{fault}");
    }
}

/// As a scheduler has it: ten hours make a night.
const NIGHTLY: [&str; 2] = ["--missing-apart", "10h"];

#[test]
fn a_night_is_a_night_however_often_it_is_run() {
    let fixture = fixture(&[]);
    let nightly = flags(&[&DELETE, &["--missing-runs", "3"], &NIGHTLY]);
    fixture.night(&["a", "here"], &[]).exits(0);
    for _ in 0..5 {
        fixture.night(&["here"], &nightly).exits(0);
        assert_eq!(fixture.actions(), told(&[("a", 1, "none")]), "from 0 to 1 at once");
    }
    fixture.passes(10 * 60 - 1);
    fixture.again(&nightly).exits(0);
    assert_eq!(fixture.actions()[0].1, 1);
    fixture.passes(1);
    for _ in 0..3 {
        fixture.again(&nightly).exits(0);
        assert_eq!(fixture.actions()[0].1, 2, "ten hours lie between the starts of the runs that raised it");
    }
    fixture.passes(10 * 60);
    fixture.again(&nightly).exits(0);
    assert_eq!(fixture.actions(), told(&[("a", 3, "deleted")]));
}

#[test]
fn ten_hours_are_the_default() {
    let fixture = fixture(&[]);
    fixture.night(&["a", "here"], &[]).exits(0);
    fixture.night(&["here"], &[]).exits(0);
    let help = fixture.bench.call(&["sync", "--help"]).run();
    assert!(help.stdout.contains("--missing-apart <DURATION>") && help.stdout.contains("[default: 10h]"), "{}", help.stdout);
}

#[test]
fn a_clock_that_went_back_raises_nothing() {
    let fixture = fixture(&[]);
    fixture.night(&["a", "here"], &[]).exits(0);
    fixture.night(&["here"], &[]).exits(0);
    fixture.passes(-60);
    for nightly in [&NIGHTLY[..], &["--missing-apart", "0s"]] {
        fixture.again(nightly).exits(0);
        assert_eq!(fixture.actions()[0].1, 1, "{nightly:?}");
    }
    fixture.passes(11 * 60);
    fixture.again(&NIGHTLY).exits(0);
    assert_eq!(fixture.actions()[0].1, 2);
}

#[test]
fn dry_and_guarded_runs_neither_raise_nor_reset() {
    let fixture = fixture(&[]);
    fixture.night(&["a", "b", "here"], &[]).exits(0);
    fixture.night(&["here"], &[]).exits(0);
    let runs = || fixture.database().query_row("SELECT missing_runs FROM accounts WHERE id = 'a'", [], |row| row.get::<_, u32>(0)).unwrap();
    for file in [&["here"][..], &["a", "here"]] {
        fixture.night(file, &["--dry-run"]).exits(0);
        fixture.again(&["--canary", "nobody"]).exits(6);
        assert_eq!(runs(), 1, "{file:?}");
    }
}

#[test]
fn a_run_that_has_seen_the_id_sets_it_to_nothing_whether_or_not_it_finishes() {
    let fixture = fixture(&["whole=71000,api=account_delete"]);
    fixture.night(&["a", "b", "c", "here"], &[]).exits(0);
    for _ in 0..2 {
        fixture.night(&["c", "here"], &[]).exits(0);
    }
    assert_eq!(fixture.actions(), told(&[("a", 2, "none"), ("b", 2, "none")]));
    // Neither of these nights finishes; a is in their files, in one of them in a record that is refused.
    fixture.night(&["a", "c=other", "here=other"], &["--limit", "1"]).exits(0);
    fixture.night(&["c", "here"], &[]).exits(0);
    assert_eq!(fixture.actions(), told(&[("a", 1, "none"), ("b", 3, "none")]));
    let too_long = format!("a={}", "x".repeat(501));
    fixture.night(&[&too_long, "here"], &flags(&[&DELETE, &["--missing-runs", "3"]])).exits(5);
    fixture.night(&["here"], &[]).exits(0);
    assert_eq!(fixture.actions(), told(&[("a", 1, "none"), ("b", 4, "none"), ("c", 1, "none")]));
}

#[test]
fn who_was_kicked_and_came_back_in_an_unfinished_night_is_kicked_again() {
    let fixture = fixture(&[]);
    fixture.night(&["a", "here"], &[]).exits(0);
    fixture.night(&["here"], &kick_now(&[])).exits(0);
    fixture.night(&["a", "here=other", "new"], &["--limit", "1"]).exits(0);
    fixture.night(&["here"], &kick_now(&[])).exits(0);
    assert_eq!(fixture.touched(Api::Kick), ["a", "a"]);
}

#[test]
fn the_missing_wait_while_it_is_not_known_what_came_of_a_row() {
    let fixture = fixture(&["code=12345,id=bad,api=account_import,count=2", "code=70402,id=own,api=account_import"]);
    fixture.night(&["a", "here"], &[]).exits(0);
    let flags = delete_now(&["--max-attempts", "2"]);
    // The other record shows that it is not the service that is down.
    let run = fixture.night(&["here=other", "bad"], &flags).exits(3);
    assert!(run.stderr.contains("the missing accounts wait"), "{}", run.stderr);
    assert_eq!(fixture.actions(), told(&[("a", 1, "none")]));
    assert_eq!((fixture.touched(Api::AccountDelete).len(), &run.summary["deleted"]), (0, &0.into()));
    let run = fixture.night(&["here", "bad", "own"], &flags).exits(3);
    assert!(!run.stderr.contains("the missing accounts wait"), "a ROW code is the row's own: {}", run.stderr);
    assert_eq!(fixture.actions(), told(&[("a", 2, "deleted")]));
}

#[test]
fn the_missing_wait_for_the_run_without_a_limit() {
    let fixture = fixture(&[]);
    fixture.night(&["a", "b", "here"], &[]).exits(0);
    for limit in ["1", "100"] {
        fixture.night(&["b=other", "here=other"], &delete_now(&["--limit", limit])).exits(0);
        assert_eq!(fixture.missing(), []);
    }
    assert_eq!(fixture.touched(Api::AccountDelete), [] as [&str; 0]);
    fixture.again(&delete_now(&[])).exits(0);
    assert_eq!(fixture.actions(), told(&[("a", 1, "deleted")]), "a run with a limit is none that counts");
}

/// What a value that was taken back needs: the account stays in doubt, whatever is done about it while it is missing.
#[test]
fn an_account_in_doubt_is_still_so_after_it_was_missing() {
    let spared = SandboxSettings { online: vec![("u".to_owned(), PresenceField::Online)], ..settings(&[]) };
    for (flags, settings, action) in [
        (kick_now(&[]), settings(&[]), "kicked"),
        (kick_now(&["--skip-online"]), spared, "online"),
        (kick_now(&[]), settings(&["code=40003,id=u,api=kick"]), "failed"),
        (delete_now(&[]), settings(&["code=70402,id=u,api=account_delete"]), "failed"),
        (vec![], settings(&[]), "none"),
    ] {
        // Whether such a call has landed nobody knows.
        let unseen = "code=12345,id=u,api=account_import,after=1,count=2".parse().unwrap();
        let faults = [vec![unseen], settings.faults.clone()].concat();
        let fixture = SyncFixture::new(SandboxSettings { faults, ..settings });
        fixture.night(&["here", "u=old"], &[]).exits(0);
        fixture.night(&["here", "u=new"], &["--max-attempts", "2"]).exits(3);
        fixture.night(&["here"], &flags).exits(if action == "failed" { 3 } else { 0 });
        assert_eq!(fixture.actions(), told(&[("u", 1, action)]));
        let run = fixture.night(&["here", "u=old"], &[]).exits(0);
        assert_eq!(run.summary["updated"], 1, "{action}: it is not known what the service holds");
        let run = fixture.night(&["here", "u=old"], &[]).exits(0);
        assert_eq!(run.summary["updated"], 0, "{action}: now it is");
    }
}

#[test]
fn who_is_protected_by_the_time_of_the_call_is_spared_though_the_plan_had_him() {
    let fixture = fixture(&["whole=71000,api=account_delete,count=1"]);
    fixture.night(&["a", "vip", "here"], &[]).exits(0);
    fixture.night(&["here"], &delete_now(&[])).exits(5);
    fixture.again(&delete_now(&["--protect", "vip"])).exits(0);
    assert_eq!(fixture.actions(), told(&[("a", 1, "deleted"), ("vip", 1, "protected")]));
    assert!(fixture.sandbox.account("vip").is_some());
}
