//! Profile columns through the real binary and the sandbox: what is set, what is refused, and what stops a run.

use chatlift::domain::command::Command as Api;
use chatlift::sandbox::{CustomFields, Sandbox, SandboxSettings};
use rustix::process::Signal;
use serde_json::json;

use crate::support::{Call, CliFixture, KEY, eventually};

const HEADER: &str = "UserID,Nick,gender,Tag_Profile_IM_Level,vip\n";
const FLAGS: [&str; 4] = ["--profile", "Gender=gender", "--profile", "Custom.Vip=vip"];

fn settings(faults: &[&str]) -> SandboxSettings {
    SandboxSettings {
        faults: faults.iter().map(|text| text.parse().unwrap()).collect(),
        custom_fields: CustomFields::These(vec!["Vip".to_owned()]),
        ..SandboxSettings::with_key(KEY.into())
    }
}

fn import<'a>(bench: &'a CliFixture, sandbox: &Sandbox, flags: &[&str]) -> Call<'a> {
    bench.import_into("users.csv", &sandbox.endpoint()).args(&FLAGS).args(flags)
}

/// A file of so many users with all cells.
fn bench(count: u64) -> CliFixture {
    let bench = CliFixture::new();
    let rows = (1..=count).map(|row| format!("user{row},nick{row},female,{row},v{row}\n"));
    bench.write("users.csv", HEADER.to_owned() + &rows.collect::<String>());
    bench
}

/// The fields of a user in the sandbox.
fn tags(sandbox: &Sandbox, user: &str) -> serde_json::Value {
    json!(sandbox.account(user).unwrap().tags)
}

#[test]
fn ten_rows_with_tags_are_imported_and_their_profiles_set() {
    for flags in [&[][..], &["--batch"]] {
        let (bench, sandbox) = (bench(10), Sandbox::start(settings(&[])).unwrap());
        let run = import(&bench, &sandbox, flags).run().exits(0).imports_all(10);
        let audit = sandbox.audit();
        assert_eq!((audit.of(Api::PortraitSet).calls, audit.violations, audit.overlaps), (10, 0, 0), "{:?}", audit.first_violations);
        assert_eq!(run.summary["apis"]["portrait_set"]["calls"], 10);
        assert!(run.stderr.contains("portrait_set: 10 "), "{}", run.stderr);
        assert_eq!(
            tags(&sandbox, "user7"),
            json!({ "Tag_Profile_IM_Gender": "Gender_Type_Female", "Tag_Profile_IM_Level": 7, "Tag_Profile_Custom_Vip": "v7" })
        );
        assert_eq!(sandbox.account("user7").unwrap().nick.as_deref(), Some("nick7"));
    }
}

#[test]
fn a_refused_profile_fails_its_row_and_the_rejects_bring_both_again() {
    for flags in [&[][..], &["--batch", "--single-rate", "0"]] {
        let bench = bench(30);
        let sandbox = Sandbox::start(settings(&["code=40605,api=portrait_set,id=user7", "code=70500,api=portrait_set,id=user9"])).unwrap();
        let run = import(&bench, &sandbox, flags).args(&["--max-attempts", "2"]).run().exits(3).settles(30);
        let failed: Vec<_> = run.rows.iter().filter(|row| row.status != "imported").collect();
        assert_eq!(failed.iter().map(|row| row.number).collect::<Vec<_>>(), [7, 9]);
        assert_eq!((&*failed[0].error_code, &*failed[0].error_info, failed[0].attempts), ("40605", "portrait_set: a fault on request", 2));
        assert_eq!((&*failed[1].error_code, failed[1].attempts), ("70500", 3));
        assert!(failed[1].error_info.starts_with("portrait_set: "));
        assert_eq!(run.summary["codes"]["40605"], 1);
        assert_eq!((sandbox.account("user7").unwrap().imports, tags(&sandbox, "user7")), (1, json!({})), "the account stays imported");
        let well = Sandbox::start(settings(&[])).unwrap();
        let again = bench.import_into("users.rejects.csv", &well.endpoint()).stem("users.rejects").args(&FLAGS).run().exits(0);
        assert_eq!(again.rows.iter().map(|row| &*row.user_id).collect::<Vec<_>>(), ["user7", "user9"]);
        let audit = well.audit();
        assert_eq!((audit.of(Api::AccountImport).calls, audit.of(Api::PortraitSet).calls), (2, 2));
    }
}

#[test]
fn profiles_alone_leave_the_nicknames_and_import_whom_the_service_does_not_know() {
    let (bench, sandbox) = (bench(20), Sandbox::start(settings(&[])).unwrap());
    let before = (1..=15).map(|row| format!("user{row},changed in the app"));
    let before = ["UserID,Nick".to_owned()].into_iter().chain(before).collect::<Vec<_>>().join("\n") + "\n";
    bench.write("before.csv", before);
    bench.import_into("before.csv", &sandbox.endpoint()).stem("before").run().exits(0);
    let run = import(&bench, &sandbox, &["--profile-only"]).run().exits(0).imports_all(20);
    assert_eq!(run.attempts(), (1..=20).map(|row| if row <= 15 { 1 } else { 3 }).collect::<Vec<_>>());
    let nick = |row: u32| sandbox.account(&format!("user{row}")).unwrap().nick;
    assert_eq!((nick(15).as_deref(), nick(16).as_deref()), (Some("changed in the app"), Some("nick16")));
    assert!((1..=20).all(|row| tags(&sandbox, &format!("user{row}"))["Tag_Profile_IM_Level"] == row));
    assert_eq!(run.summary["apis"]["portrait_set"]["calls"], 25);
}

#[test]
fn a_field_that_the_app_lacks_stops_the_run_before_it_fails_a_row() {
    for flags in [&[][..], &["--batch"], &["--profile-only"]] {
        let bench = bench(40);
        let sandbox = Sandbox::start(SandboxSettings { custom_fields: CustomFields::These(Vec::new()), ..settings(&[]) }).unwrap();
        let run = import(&bench, &sandbox, flags).run().exits(2).settles(0);
        run.because("no such profile field (code 40009: Tag_Profile_Custom_Vip: ").hints("console");
        // One with all, then one that the app has, then the one that it lacks; without an import some more, until one of the users is known.
        let calls = sandbox.audit().of(Api::PortraitSet).calls;
        assert!(calls == 3 || (flags == ["--profile-only"] && calls < 10), "{flags:?}: {calls}");
    }
}

#[test]
fn the_same_command_goes_on_once_the_app_has_the_field() {
    let bench = bench(40);
    // The call with all of them, and then the first tag alone: twice.
    let sandbox = Sandbox::start(settings(&["code=40008,api=portrait_set,count=4"])).unwrap();
    for _ in 0..2 {
        // No console creates a standard field.
        let run = import(&bench, &sandbox, &[]).run().exits(2).settles(0).because("code 40008: Tag_Profile_IM_Gender: ");
        run.hints("does not have or does not allow this standard field").hints("--profile Gender= reads it no more");
    }
    import(&bench, &sandbox, &[]).run().exits(0).imports_all(40);
    assert!((1..=40).all(|row| tags(&sandbox, &format!("user{row}")).as_object().unwrap().len() == 3));
}

#[test]
fn an_outage_of_portrait_set_alone_fails_no_row_and_names_it() {
    for flags in [&[][..], &["--profile-only"], &["--batch"]] {
        let (bench, sandbox) = (bench(5), Sandbox::start(settings(&["http=502,api=portrait_set"])).unwrap());
        let run = import(&bench, &sandbox, flags).args(&["--max-attempts", "2", "--max-outage", "100ms"]).run().exits(4).settles(0);
        let run = run.because("portrait_set was down for longer than --max-outage; last of all: HTTP 502");
        run.hints("the same command continues where it stopped").hints("the profile cells of the rows that are left are at fault");
    }
}

#[test]
fn an_administrator_without_the_right_stops_the_run() {
    let (bench, sandbox) = (bench(10), Sandbox::start(settings(&["code=40004,api=portrait_set,after=5"])).unwrap());
    import(&bench, &sandbox, &[]).run().exits(5).because("code 40004");
}

#[test]
fn a_rate_without_limit_is_for_loopback_only() {
    let unlimited = SandboxSettings { limit_per_s: None, portrait_set_per_s: None, ..settings(&[]) };
    let (bench, sandbox) = (bench(300), Sandbox::start(unlimited).unwrap());
    let far = ["--endpoint", "https://console.tim.qq.com", "--sdkappid", "1", "--profile-rate", "0"];
    bench.call(&["import", "users.csv"]).args(&far).env("CHATLIFT_SECRET_KEY", KEY).run().exits(2).because("--profile-rate 0");
    let run = import(&bench, &sandbox, &["--rate", "0", "--profile-rate", "0"]).run().exits(0).imports_all(300);
    // How fast that is depends on the machine.
    assert!(run.stderr.contains("takes a portrait_set of its own, without a limit"), "{}", run.stderr);
    let rehearsal = bench.call(&["import", "users.csv", "--sandbox", "--results", "rehearsal.csv"]).args(&FLAGS);
    rehearsal.args(&["--rate", "0", "--profile-rate", "0"]).stem("rehearsal").run().exits(0);
}

#[test]
fn a_kill_between_import_and_profile_does_both_again() {
    let (bench, sandbox) = (bench(20), Sandbox::start(settings(&["stall,api=portrait_set,count=1"])).unwrap());
    let killed = import(&bench, &sandbox, &[]).start();
    eventually("all are imported", || sandbox.audit().of(Api::AccountImport).calls == 20);
    killed.signal(Signal::KILL);
    killed.wait();
    let run = import(&bench, &sandbox, &[]).run().exits(0).imports_all(20);
    assert_eq!(run.attempts(), [2; 20]);
    assert!(sandbox.accounts().iter().all(|(_, account)| account.imports == 2 && account.tags.len() == 3));
}
