//! What is in doubt, and what is known: of accounts that the service had lost, of users whom only profiles have made, and of rows that a run
//! has announced and not sent.

use super::tags::{HEADER, TagFixture, lose_accounts};
use super::{connection, night};
use crate::support::{CliFixture, Run};

/// Fills the state with the profiles of a file alone.
fn profiles_alone(fixture: &TagFixture, file: &str) -> Run {
    let flags = ["--state", "users.state", "--rate", "0", "--results", "profiles.csv", "--profile-only"];
    let endpoint = connection(&fixture.bench, &fixture.sandbox.endpoint());
    fixture.bench.call(&["import", file]).args(&flags).args(&endpoint.each_ref().map(String::as_str)).run()
}

#[test]
fn an_account_that_had_to_be_made_anew_gets_all_that_its_row_has_and_is_known_then() {
    let mut fixture = TagFixture::new(&[]);
    fixture.sync("a,A,male,1,x\nb,B,male,1,x\n", &[]).run().exits(0);
    lose_accounts(&mut fixture, &[]);
    let calls = ["portrait_set a", "import a", "portrait_set a"];
    fixture.night("a,A,male,2,x\nb,B,male,1,x\n", &["update a: Level differs"], &calls).exits(0);
    let tags = fixture.tags("a");
    assert_eq!((&tags["Tag_Profile_IM_Gender"], &tags["Tag_Profile_IM_Level"]), (&"Gender_Type_Male".into(), &2.into()), "{tags}");
    assert_eq!(tags["Tag_Profile_Custom_Vip"], "x", "{tags}");
    assert_eq!(fixture.in_doubt(), "0");
    fixture.night("a,A,male,2,x\nb,B,male,1,x\n", &[], &[]).exits(0);
    // What the row does not have was lost with the account, and may be there or not.
    let mut fixture = TagFixture::new(&[]);
    fixture.sync("a,A,male,1,x\n", &[]).run().exits(0);
    lose_accounts(&mut fixture, &[]);
    fixture.night("a,A,male,2,\n", &["update a: Level differs"], &calls).exits(0);
    fixture.night("a,A,male,2,\n", &[], &[]).exits(0);
    fixture.night("a,A,male,2,x\n", &["update a: in doubt: the result of an earlier request is unknown"], &["portrait_set a"]).exits(0);
    assert_eq!((fixture.tags("a")["Tag_Profile_Custom_Vip"].as_str(), fixture.in_doubt().as_str()), (Some("x"), "0"));
}

#[test]
fn an_account_that_could_not_be_made_anew_is_in_doubt() {
    let mut fixture = TagFixture::new(&[]);
    fixture.sync("a,A,male,1,x\n", &[]).run().exits(0);
    lose_accounts(&mut fixture, &["code=70402,api=account_import,id=a,times=1"]);
    fixture.night("a,A,male,2,x\n", &["update a: Level differs"], &["portrait_set a", "import a"]).exits(3);
    // The file goes back to what was sent before: it is sent again all the same.
    let doubted = "update a: in doubt: the result of an earlier request is unknown";
    fixture.night("a,A,male,1,x\n", &[doubted], &["import a", "portrait_set a"]).exits(0);
    assert_eq!((fixture.tags("a")["Tag_Profile_IM_Level"].as_u64(), fixture.in_doubt().as_str()), (Some(1), "0"));
}

#[test]
fn several_rows_of_a_user_whom_profiles_alone_have_made_leave_nothing_in_doubt() {
    let mut fixture = TagFixture::new(&[]);
    fixture.bench.write("users.csv", HEADER.to_owned() + "d,N1,male,1,\nd,N2,female,,\n");
    profiles_alone(&fixture, "users.csv").exits(0);
    assert_eq!(fixture.calls(), ["import d", "import d", "portrait_set d", "portrait_set d", "portrait_set d"]);
    assert_eq!(fixture.in_doubt(), "0");
    fixture.night("d,N2,female,1,\n", &[], &[]).exits(0);
}

#[test]
fn of_users_known_by_their_tags_only_the_import_is_sent() {
    let mut fixture = TagFixture::new(&[]);
    let rows = "a,A,male,1,x\nb,B,female,2,\nc,,male,3,\n";
    fixture.bench.write("users.csv", HEADER.to_owned() + rows);
    let endpoint = connection(&fixture.bench, &fixture.sandbox.endpoint());
    fixture.bench.call(&["import", "users.csv", "--rate", "0"]).args(&endpoint.each_ref().map(String::as_str)).run().exits(0);
    fixture.bench.write("again.csv", HEADER.to_owned() + rows);
    profiles_alone(&fixture, "again.csv").exits(0);
    fixture.calls();
    // The tags are known, the nicknames are not; the row without one has nothing to send.
    fixture.night(rows, &["update a: Nick differs", "update b: Nick differs"], &["import a", "import b"]).exits(0);
    fixture.night(rows, &[], &[]).exits(0);
}

#[test]
fn the_state_of_an_unfinished_run_tells_how_many_results_it_does_not_have() {
    let fixture = TagFixture::new(&[]);
    fixture.sync("a,A,,,\nb,B,,,\n", &[]).run().exits(0);
    fixture.sync("a,A2,,,\nb,B2,,,\n", &["--limit", "1"]).run().exits(0);
    let shown = || fixture.bench.call(&["state", "users.state"]).run().stdout;
    assert!(shown().contains("unrecorded  the result of 1 row of the unfinished run is not known here yet\n"), "{}", shown());
    fixture.sync("a,A2,,,\nb,B2,,,\n", &[]).run().exits(0);
    assert!(!shown().contains("unrecorded"), "{}", shown());
}

#[test]
fn a_night_of_profiles_alone_shows_the_requests_that_it_made() {
    let fixture = TagFixture::new(&[]);
    fixture.sync("a,A,male,1,x\n", &[]).run().exits(0);
    let told = fixture.sync("a,A,male,2,x\n", &[]).run().exits(0).stderr;
    assert!(told.contains("requests/s  1 at most in any second") && !told.contains("account_import: 0"), "{told}");
    assert!(told.contains("portrait_set: 1 request, 1 at most in any second"), "{told}");
}

#[test]
fn a_stop_by_a_field_that_the_app_lacks_puts_no_row_in_doubt_that_was_not_sent() {
    let header = "UserID,Nick,Tag_Profile_IM_Level,Tag_Profile_Custom_Nope\n";
    let rows = |nope: &str| (0..300).fold(header.to_owned(), |rows, row| rows + &format!("u{row:03},n,1,{nope}\n"));
    for lane in [&[][..], &["--batch"]] {
        let mut fixture = TagFixture::new(&[]);
        let sync = |fixture: &TagFixture, csv: String| {
            fixture.bench.write("users.csv", csv);
            night::sync(&fixture.bench, &fixture.sandbox.endpoint(), &[&["--max-update", "300"], lane].concat()).run()
        };
        sync(&fixture, rows("")).exits(0);
        fixture.calls();
        // However often it is tried.
        for _ in 0..2 {
            sync(&fixture, rows("k")).exits(2).because("Tag_Profile_Custom_Nope");
            assert_eq!(fixture.calls(), ["portrait_set u000"]);
        }
        assert_eq!(fixture.in_doubt(), "0", "nothing is waited for either");
        // The column is given up.
        fixture.bench.write("users.csv", rows("").replace(",Tag_Profile_Custom_Nope", "").replace(",1,\n", ",1\n"));
        night::sync(&fixture.bench, &fixture.sandbox.endpoint(), lane).run().exits(0).because("300 unchanged");
        assert_eq!((fixture.calls().len(), fixture.in_doubt().as_str()), (0, "0"));
    }
    // A value that changes with it and goes back was never sent.
    let mut fixture = TagFixture::new(&[]);
    let sync = |fixture: &TagFixture, csv: String| {
        fixture.bench.write("users.csv", csv);
        night::sync(&fixture.bench, &fixture.sandbox.endpoint(), &["--max-update", "300"]).run()
    };
    sync(&fixture, rows("")).exits(0);
    sync(&fixture, rows("k").replace("u200,n,1,", "u200,n,9,")).exits(2);
    fixture.calls();
    sync(&fixture, rows("")).exits(0).because("300 unchanged");
    assert_eq!((fixture.calls().len(), fixture.in_doubt().as_str()), (0, "0"));
}

#[test]
fn a_plan_names_what_is_in_doubt_beside_what_differs() {
    let mut fixture = TagFixture::new(&[]);
    fixture.sync("a,A,male,1,x\nb,B,male,1,x\nc,C,male,1,x\n", &[]).run().exits(0);
    // Somebody changes users behind the state's back, and a verification finds that.
    let elsewhere = CliFixture::new();
    elsewhere.write("users.csv", HEADER.to_owned() + "a,A,female,1,z\nb,B2,male,1,x\nc,C2,female,1,x\n");
    let behind = connection(&elsewhere, &fixture.sandbox.endpoint());
    elsewhere.call(&["import", "users.csv", "--rate", "0"]).args(&behind.each_ref().map(String::as_str)).run().exits(0);
    let endpoint = connection(&fixture.bench, &fixture.sandbox.endpoint());
    let verify = fixture.bench.call(&["verify", "users.csv", "--profiles", "--state", "users.state", "--rate", "0"]);
    verify.args(&endpoint.each_ref().map(String::as_str)).run().exits(3);
    fixture.looked_at = fixture.sandbox.call_log().len();
    let plan = [
        "update a: Level differs, Gender and Custom.Vip are in doubt",
        "update b: Level differs, Nick is in doubt",
        "update c: Nick differs, Gender is in doubt",
    ];
    let calls = ["portrait_set a", "import b", "portrait_set b", "import c", "portrait_set c"];
    fixture.night("a,A,male,7,x\nb,B,male,7,x\nc,C3,male,1,x\n", &plan, &calls).exits(0);
    assert_eq!(fixture.in_doubt(), "0");
}
