//! What has changed between the first process of a run and the next one: flags, files, the state itself.

use std::fs;

use chatlift::domain::command::Command as Api;

use super::night::{SyncFixture, settings};
use crate::support::Call;

const DELETE_NOW: [&str; 6] = ["--missing", "delete", "--max-delete", "9", "--missing-runs", "1"];

/// A night that has settled one of two rows, with two accounts due to be deleted.
fn unfinished() -> SyncFixture {
    let fixture = SyncFixture::new(settings(&[]));
    fixture.night(&["gone1", "gone2", "here"], &[]).exits(0);
    fixture.night(&["here", "new1", "new2"], &[DELETE_NOW.as_slice(), &["--limit", "1"]].concat()).exits(0).because("1 remain");
    fixture
}

fn state<'a>(fixture: &'a SyncFixture, what: &[&str]) -> Call<'a> {
    fixture.bench.call(&["state", "users.state"]).args(what)
}

fn deletions(fixture: &SyncFixture) -> usize {
    fixture.sandbox.call_log().iter().filter(|touch| touch.command == Api::AccountDelete).count()
}

#[test]
fn nothing_is_deleted_that_no_flag_asks_for_any_more() {
    for (flags, action) in [
        (vec!["--missing", "kick", "--missing-runs", "1"], "none"),
        (vec!["--missing", "delete", "--max-delete", "9", "--missing-runs", "2"], "none"),
        (vec!["--missing", "report"], "none"),
        ([DELETE_NOW.as_slice(), &["--protect", "gone*"]].concat(), "protected"),
    ] {
        let fixture = unfinished();
        fixture.again(&flags).exits(0);
        let told: Vec<_> = fixture.actions().into_iter().map(|(id, _, action)| (id, action)).collect();
        assert_eq!(told, ["gone1", "gone2"].map(|id| (id.to_owned(), action.to_owned())), "{flags:?}");
        assert_eq!((deletions(&fixture), fixture.held().len()), (0, 5), "{flags:?}");
    }
    let fixture = unfinished();
    fixture.again(&DELETE_NOW).exits(0);
    assert_eq!((deletions(&fixture), fixture.held().len()), (2, 3), "as it was planned");
}

#[test]
fn an_id_that_is_forgotten_in_an_unfinished_run_is_not_deleted() {
    let fixture = unfinished();
    assert_eq!(state(&fixture, &["forget", "gone1"]).run().code, Some(0));
    fixture.again(&DELETE_NOW).exits(0);
    assert_eq!((deletions(&fixture), fixture.held()), (1, ["here", "new1", "new2"].map(str::to_owned).to_vec()));
    assert!(fixture.sandbox.call_log().iter().all(|touch| touch.user_id != "gone1" || touch.command == Api::AccountImport));
}

#[test]
fn an_id_that_is_forgotten_is_not_brought_back_by_a_row_that_had_settled_before() {
    let fixture = unfinished();
    let run = state(&fixture, &["forget", "new1", "new2"]).run().exits(0);
    assert!(run.stderr.contains("1 of 2 UserIDs"), "what is still to be sent is not there yet: {}", run.stderr);
    fixture.again(&[]).exits(0);
    assert_eq!(fixture.held(), ["gone1", "gone2", "here", "new2"]);
    fixture.again(&[]).exits(0).because("1 created");
    assert_eq!(fixture.held().len(), 5);
}

#[test]
fn another_file_in_the_same_night_is_no_other_night() {
    let fixture = SyncFixture::new(settings(&[]));
    fixture.night(&["a", "here"], &[]).exits(0);
    for file in [&["here"][..], &["here", "b"], &["here"]] {
        fixture.night(file, &["--missing-apart", "10h"]).exits(0);
        assert_eq!(fixture.actions()[0].1, 1);
    }
}

#[test]
fn a_client_that_cannot_be_made_is_found_before_the_plan_replaces_another() {
    let fixture = unfinished();
    fs::write(fixture.bench.path("ca.pem"), "no certificate").unwrap();
    fixture.night(&["here", "other"], &["--ca-file", "ca.pem"]).exits(2);
    let before = fixture.sandbox.call_log().len();
    fixture.night(&["here", "other"], &[]).exits(0);
    assert_eq!(fixture.held(), ["gone1", "gone2", "here", "new1", "other"], "nothing is in doubt that a limit has left");
    let sent: Vec<_> = fixture.sandbox.call_log()[before..].iter().map(|touch| touch.user_id.clone()).collect();
    assert_eq!(sent, ["other"]);
}

#[test]
fn an_older_state_that_was_brought_back_is_noticed() {
    let fixture = SyncFixture::new(settings(&[]));
    fixture.night(&["a"], &[]).exits(0);
    let backup = fs::read(fixture.bench.path("users.state")).unwrap();
    fixture.night(&["a=new name"], &[]).exits(0);
    fs::write(fixture.bench.path("users.state"), backup).unwrap();
    fixture.night(&["a"], &[]).exits(2).because("an older state").hints("verify");
    fixture.night(&["a"], &["--restart"]).exits(0);
}

#[test]
fn an_older_state_is_noticed_although_its_runs_have_the_same_numbers() {
    let fixture = SyncFixture::new(settings(&[]));
    fixture.night(&["a"], &[]).exits(0);
    let backup = fs::read(fixture.bench.path("users.state")).unwrap();
    fixture.night(&["a=new name"], &[]).exits(0);
    fs::write(fixture.bench.path("users.state"), backup).unwrap();
    // The older state goes on elsewhere, so that it knows as many runs.
    fixture.night(&["b"], &["--results", "other.results.csv"]).exits(0);
    fixture.night(&["a"], &[]).exits(2).because("an older state was brought back").hints("verify");
}

#[test]
fn an_older_state_of_the_same_run_is_noticed() {
    let fixture = SyncFixture::new(settings(&[]));
    let names = |name: &str| (0..40).map(|id| format!("u{id}={name}")).collect::<Vec<_>>();
    let night = |name: &str, flags: &[&str]| {
        let accounts = names(name);
        fixture.night(&accounts.iter().map(String::as_str).collect::<Vec<_>>(), flags)
    };
    night("one", &[]).exits(0);
    night("two", &["--limit", "1"]).exits(0);
    let backup = fs::read(fixture.bench.path("users.state")).unwrap();
    fixture.again(&["--limit", "20"]).exits(0);
    fs::write(fixture.bench.path("users.state"), backup).unwrap();
    fixture.again(&[]).exits(2).because("an older state was brought back");
    night("one", &[]).exits(2).because("an older state was brought back");
}
