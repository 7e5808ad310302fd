//! Profile tags in a sync: which calls a row gets, what the guards say of a new column, what comes of refusals and of what nobody knows, and
//! what imports and verifications make of the state.

use std::fmt::Write;

use chatlift::domain::command::Command as Api;
use chatlift::sandbox::{CustomFields, Sandbox, SandboxSettings};
use serde_json::{Value, json};

use super::night::{self, settings};
use super::{connection, held};
use crate::support::{Call, CliFixture, Run};

pub(super) const HEADER: &str = "UserID,Nick,Tag_Profile_IM_Gender,Tag_Profile_IM_Level,Tag_Profile_Custom_Vip\n";

pub(super) struct TagFixture {
    pub(super) bench: CliFixture,
    pub(super) sandbox: Sandbox,
    pub(super) looked_at: usize,
    lane: &'static [&'static str],
}

impl TagFixture {
    pub(super) fn new(faults: &[&str]) -> Self {
        let settings = SandboxSettings { custom_fields: CustomFields::These(vec!["Vip".to_owned()]), ..settings(faults) };
        Self { bench: CliFixture::new(), sandbox: Sandbox::start(settings).unwrap(), looked_at: 0, lane: &[] }
    }

    pub(super) fn sync(&self, rows: &str, flags: &[&str]) -> Call<'_> {
        self.bench.write("users.csv", HEADER.to_owned() + rows);
        night::sync(&self.bench, &self.sandbox.endpoint(), &[&["--plan", "plan.csv"], flags].concat())
    }

    /// A night: what the plan says of each row, and the calls that came.
    pub(super) fn night(&mut self, rows: &str, plan: &[&str], calls: &[&str]) -> Run {
        let run = self.sync(rows, self.lane).run();
        let planned = self.bench.read("plan.csv");
        let planned: Vec<String> = csv::Reader::from_reader(planned.as_bytes())
            .records()
            .map(Result::unwrap)
            .map(|record| format!("{} {}: {}", &record[0], &record[3], &record[4]))
            .collect();
        assert_eq!(
            (planned.iter().map(String::as_str).collect::<Vec<_>>().as_slice(), self.calls()),
            (plan, calls_of(calls)),
            "{}",
            run.stderr
        );
        run
    }

    /// The calls since the last look.
    pub(super) fn calls(&mut self) -> Vec<String> {
        let touches = self.sandbox.call_log();
        let name = |api| match api {
            Api::AccountImport | Api::MultiaccountImport => "import",
            Api::PortraitSet => "portrait_set",
            other => panic!("nobody asks for {other:?}"),
        };
        let mut calls: Vec<String> = touches[self.looked_at..]
            .iter()
            // A batch is read back.
            .filter(|touch| touch.command != Api::PortraitGet)
            .map(|touch| format!("{} {}", name(touch.command), touch.user_id))
            .collect();
        self.looked_at = touches.len();
        calls.sort_unstable();
        calls
    }

    pub(super) fn tags(&self, id: &str) -> Value {
        json!(self.sandbox.account(id).unwrap().tags)
    }

    pub(super) fn in_doubt(&self) -> String {
        let run = self.bench.call(&["state", "users.state"]).run().stdout;
        run.lines().find_map(|line| line.strip_prefix("in doubt")).unwrap().trim().to_owned()
    }
}

fn calls_of(calls: &[&str]) -> Vec<String> {
    let mut calls: Vec<String> = calls.iter().map(|call| (*call).to_owned()).collect();
    calls.sort_unstable();
    calls
}

#[test]
fn each_row_gets_the_calls_that_it_needs() {
    for flags in [&[][..], &["--batch"]] {
        let mut fixture = TagFixture { lane: flags, ..TagFixture::new(&[]) };
        let new = "the state does not hold it";
        fixture
            .night(
                "a,A,male,1,x\nb,B,,,\n",
                &[&format!("create a: {new}"), &format!("create b: {new}")],
                &["import a", "portrait_set a", "import b"],
            )
            .exits(0);
        let forecast = fixture.sync("a,A,male,2,x\nb,B,,9,\nc,,,,\n", &[&["--dry-run"], flags].concat()).run().exits(0).stderr;
        assert!(forecast.contains("requests    3"), "two portrait_set and an import: {forecast}");
        fixture.night("a,A,Male,1,x\nb,B,,,\n", &[], &[]).exits(0);
        fixture
            .night("a,A,male,2,x\nb,B b,,,\n", &["update a: Level differs", "update b: Nick differs"], &["portrait_set a", "import b"])
            .exits(0);
        let run = fixture
            .night(
                "a,A a,female,2,y\nb,B b,,3,\n",
                &["update a: Nick, Gender and Custom.Vip differ", "update b: Level differs"],
                &["import a", "portrait_set a", "portrait_set b"],
            )
            .exits(0);
        assert_eq!((run.summary["updated"].as_u64(), run.summary["apis"]["portrait_set"]["calls"].as_u64()), (Some(2), Some(2)));
        // An empty cell says nothing, and what was there stays known.
        fixture.night("a,A a,,,\nb,,,,\n", &[], &[]).exits(0);
        fixture.night("a,A a,female,2,y\nb,B b,,3,\n", &[], &[]).exits(0);
        assert_eq!(
            fixture.tags("a"),
            json!({ "Tag_Profile_IM_Gender": "Gender_Type_Female", "Tag_Profile_IM_Level": 2, "Tag_Profile_Custom_Vip": "y" })
        );
        assert_eq!((fixture.tags("b"), fixture.in_doubt().as_str()), (json!({ "Tag_Profile_IM_Level": 3 }), "0"), "{flags:?}");
    }
}

#[test]
fn a_new_column_is_told_as_the_reason_of_many_updates() {
    let fixture = TagFixture::new(&[]);
    let rows = |count: u32, tags: &dyn Fn(u32) -> String| {
        (1..=count).fold(String::new(), |rows, row| rows + &format!("u{row:03},n,{}\n", tags(row)))
    };
    fixture.sync(&rows(200, &|_| ",,".to_owned()), &[]).run().exits(0);
    let with_level = |row: u32| format!(",{},{}", if row <= 100 { "5" } else { "" }, "");
    let guarded = fixture.sync(&rows(200, &with_level), &[]).run();
    // The last finished run has read the column too, so it is no new one.
    assert!(!guarded.why().contains("is new"), "{}", guarded.why());
    let guarded = guarded.exits(6).because("100 updates are more than --max-update").hints("--max-update 100");
    assert!(!guarded.why().contains("blanked"), "{}", guarded.why());

    let fixture = TagFixture::new(&[]);
    fixture.bench.write("users.csv", (1..=200).fold("UserID,Nick\n".to_owned(), |rows, row| rows + &format!("u{row:03},n\n")));
    night::sync(&fixture.bench, &fixture.sandbox.endpoint(), &[]).run().exits(0);
    fixture.sync(&rows(200, &with_level).replace("u200,n,", "u200,m,"), &[])
        .run()
        .exits(6)
        .because("101 updates are more than --max-update (30 % of the known accounts; 200 are known); 100 of them only because the column Level is new");
    let both = |row: u32| format!("{},{},", if row > 150 { "male" } else { "" }, if row <= 100 { "5" } else { "" });
    fixture
        .sync(&rows(200, &both), &[])
        .run()
        .exits(6)
        .because("150 of them only because columns are new: Gender (50), Level (100)")
        .hints("--max-update 150");
    fixture.sync(&rows(200, &both), &["--max-update", "150"]).run().exits(0);
    // From here on each tag is one that both runs read.
    let fewer = |row: u32| format!("{},{},", if row > 150 { "male" } else { "" }, if row <= 89 { "5" } else { "" });
    fixture
        .sync(&rows(200, &fewer), &[])
        .run()
        .exits(6)
        .because("guard blanked: 89 of 200 valid rows have a Level, 100 of 200 had one before")
        .hints("--allow blanked");
    let enough = |row: u32| format!("{},{},", if row > 150 { "male" } else { "" }, if row <= 90 { "5" } else { "" });
    fixture.sync(&rows(200, &enough), &[]).run().exits(0).because("200 unchanged");
}

#[test]
fn refused_tags_are_tried_again_and_the_account_counts_as_imported() {
    // The first row shows that the app has the tags.
    let mut fixture = TagFixture::new(&["code=40601,api=portrait_set,id=b,times=1"]);
    let new = "the state does not hold it";
    let create = [format!("create a: {new}"), format!("create b: {new}")];
    let create: Vec<&str> = create.iter().map(String::as_str).collect();
    let rows = "a,A,male,1,x\nb,B,male,1,x\n";
    let calls = ["import a", "portrait_set a", "import b", "portrait_set b"];
    let run = fixture.night(rows, &create, &calls).exits(3);
    assert!(run.rows[1].error_info.starts_with("portrait_set: ") && run.rows[1].status == "failed", "{:?}", run.rows);
    assert_eq!((fixture.in_doubt().as_str(), held(&fixture.bench).len()), ("0", 2));
    fixture.night(rows, &["update b: Gender, Level and Custom.Vip differ"], &["portrait_set b"]).exits(0);
    fixture.night(rows, &[], &[]).exits(0);
    assert_eq!(fixture.tags("b"), fixture.tags("a"));
}

#[test]
fn what_nobody_knows_of_tags_is_in_doubt_by_itself() {
    let mut fixture = TagFixture::new(&["code=70169,api=portrait_set,id=b,times=3"]);
    let new = "the state does not hold it";
    let rows = "a,A,male,1,x\nb,B,male,1,x\n";
    let run = fixture.sync(rows, &["--max-attempts", "2"]).run().exits(3);
    assert!(run.rows[1].error_info.starts_with("portrait_set: ") && run.rows[1].status == "failed", "{new}: {:?}", run.rows);
    fixture.calls();
    assert_eq!(fixture.in_doubt(), "1");
    // They may have landed: what the record still has is sent, and the account is not imported again.
    fixture.night("a,A,male,1,x\nb,B,,1,\n", &["update b: Level differs"], &["portrait_set b"]).exits(0);
    assert_eq!(fixture.in_doubt(), "1", "no call has carried the others");
    // Nothing that the record has is in doubt: there is nothing to send that would settle the rest, and an import settles no tag.
    fixture.night("a,A,male,1,x\nb,B,,1,\n", &[], &[]).exits(0);
    fixture.bench.write("users.csv", "UserID,Nick\na,A\nb,B\n");
    night::sync(&fixture.bench, &fixture.sandbox.endpoint(), &[]).run().exits(0).because("2 unchanged");
    assert_eq!((fixture.calls().as_slice(), fixture.in_doubt().as_str()), (&[][..], "1"));
    fixture.night("a,A,male,1,x\nb,B,female,1,z\n", &["update b: Gender and Custom.Vip differ"], &["portrait_set b"]).exits(0);
    assert_eq!(fixture.in_doubt(), "0");
    assert_eq!(
        fixture.tags("b"),
        json!({ "Tag_Profile_IM_Gender": "Gender_Type_Female", "Tag_Profile_IM_Level": 1, "Tag_Profile_Custom_Vip": "z" })
    );
}

#[test]
fn what_some_tags_met_in_a_trial_leaves_the_row_in_doubt() {
    // Nothing has shown yet that the app has the tags, so they are tried one by one, and one may be taken where another is refused.
    let mut fixture = TagFixture::new(&["code=40601,api=portrait_set,id=a,times=2"]);
    let run = fixture.sync("a,A,male,1,x\n", &[]).run().exits(3);
    assert!(run.rows[0].error_info.starts_with("portrait_set: Gender: "), "{:?}", run.rows);
    fixture.calls();
    assert_eq!(fixture.in_doubt(), "1");
    fixture.night("a,A,male,1,x\n", &["update a: Gender, Level and Custom.Vip differ"], &["portrait_set a"]).exits(0);
    assert_eq!(fixture.in_doubt(), "0");
}

#[test]
fn an_import_fills_the_state_with_tags() {
    let mut fixture = TagFixture::new(&["code=40601,api=portrait_set,id=b,times=1"]);
    let connection = connection(&fixture.bench, &fixture.sandbox.endpoint());
    let connection = connection.each_ref().map(String::as_str);
    let rows = "a,A,male,1,x\nb,B,male,1,x\nc,C,,,\n";
    fixture.bench.write("users.csv", HEADER.to_owned() + rows);
    let import = |flags: &[&str]| {
        let call = fixture.bench.call(&["import", "users.csv", "--state", "users.state", "--rate", "0", "--results", "import.csv"]);
        call.args(&connection).args(flags).run()
    };
    import(&[]).exits(3);
    fixture.calls();
    fixture.night(rows, &["update b: Gender, Level and Custom.Vip differ"], &["portrait_set b"]).exits(0);
    // Profiles alone say nothing of the nicknames.
    let other = "a,other,male,2,x\nb,B,male,1,x\nc,C,,,\n";
    fixture.bench.write("users.csv", HEADER.to_owned() + other);
    let call = fixture.bench.call(&[
        "import",
        "users.csv",
        "--state",
        "users.state",
        "--rate",
        "0",
        "--results",
        "profiles.csv",
        "--profile-only",
    ]);
    call.args(&connection).run().exits(0);
    fixture.calls();
    fixture.night(other, &["update a: Nick differs"], &["import a"]).exits(0);
}

#[test]
fn a_state_learns_nothing_of_rows_that_profiles_alone_did_not_send() {
    let mut fixture = TagFixture::new(&[]);
    fixture.night("b,B,,,\n", &["create b: the state does not hold it"], &["import b"]).exits(0);
    // Nothing is sent for b, c and d, and of a the tags alone.
    let rows = "a,A,male,1,x\nb,other,,,\nc,C,,,\nd,,,,\n";
    fixture.bench.write("users.csv", HEADER.to_owned() + rows);
    let connection = connection(&fixture.bench, &fixture.sandbox.endpoint());
    let connection = connection.each_ref().map(String::as_str);
    let state = ["--state", "users.state", "--rate", "0", "--results", "profiles.csv", "--profile-only"];
    fixture.bench.call(&["import", "users.csv"]).args(&state).args(&connection).run().exits(0);
    assert_eq!(fixture.calls(), calls_of(&["portrait_set a", "import a", "portrait_set a"]), "the service did not know a");
    // What was sent for a is known, its nickname too.
    let new = |id: &str| format!("create {id}: the state does not hold it");
    let plan = ["update b: Nick differs", &new("c"), &new("d")];
    fixture.night(rows, &plan, &["import b", "import c", "import d"]).exits(0);
}

/// The service loses all accounts behind the state's back.
pub(super) fn lose_accounts(fixture: &mut TagFixture, faults: &[&str]) {
    fixture.sandbox = TagFixture::new(faults).sandbox;
    fixture.looked_at = 0;
    let endpoint = connection(&fixture.bench, &fixture.sandbox.endpoint());
    fixture.bench.call(&["state", "users.state", "retarget"]).args(&endpoint.each_ref().map(String::as_str)).run().exits(0);
}

#[test]
fn a_call_that_is_repeated_makes_nothing_doubtful() {
    let mut fixture = TagFixture::new(&["code=70500,api=portrait_set,id=a,after=1,times=3"]);
    fixture.sync("a,A,male,1,x\nb,B,male,1,x\n", &[]).run().exits(0);
    let run = fixture.sync("a,A,male,2,x\nb,B,male,1,x\n", &[]).run().exits(0);
    assert_eq!(run.rows[0].attempts, 4, "{}", run.stderr);
    fixture.calls();
    fixture.night("a,A,male,2,x\nb,B,male,1,x\n", &[], &[]).exits(0);
}

#[test]
fn profiles_alone_tell_the_state_whom_they_had_to_import() {
    let lost = |faults: &[&str]| {
        let mut fixture = TagFixture::new(&[]);
        fixture.sync("a,A,,,\nb,B,,,\n", &[]).run().exits(0);
        lose_accounts(&mut fixture, faults);
        fixture
    };
    let rows = "a,other,male,1,x\nb,,male,1,x\nc,C,male,1,x\nd,D,,,\n";
    let flags = ["--state", "users.state", "--rate", "0", "--results", "profiles.csv", "--profile-only"];
    for is_stopped in [false, true] {
        let refused = ["code=40605,api=portrait_set,id=c,after=1,times=1"];
        let mut fixture = lost(if is_stopped { &[] } else { &refused });
        fixture.bench.write("users.csv", HEADER.to_owned() + rows);
        let endpoint = connection(&fixture.bench, &fixture.sandbox.endpoint());
        let import = |more: &[&str]| {
            fixture.bench.call(&["import", "users.csv"]).args(&flags).args(more).args(&endpoint.each_ref().map(String::as_str)).run()
        };
        if is_stopped {
            import(&["--limit", "2"]).exits(0);
        }
        import(&[]).exits(if is_stopped { 0 } else { 3 });
        fixture.calls();
        // The nickname of a is another one than the state knew, that of b went with its account, and c is known, also if its tags are not.
        // What an earlier process has imported is not known for certain: then all of it is in doubt.
        let rows = rows.replace("b,,", "b,B,");
        let doubted = |id: &str| format!("update {id}: in doubt: the result of an earlier request is unknown");
        let (c, d) = ("update c: Gender, Level and Custom.Vip differ", "create d: the state does not hold it");
        let (plan, calls) = if is_stopped {
            (vec!["update a: Nick differs".to_owned(), doubted("b")], vec!["import a", "import b", "import d"])
        } else {
            (vec![doubted("b"), c.to_owned()], vec!["import b", "portrait_set c", "import d"])
        };
        let plan: Vec<&str> = plan.iter().map(String::as_str).chain([d]).collect();
        fixture.night(&rows, &plan, &calls);
        assert_eq!(fixture.sandbox.account("a").unwrap().nick.as_deref(), Some("other"));
        assert_eq!(fixture.sandbox.account("b").unwrap().nick.as_deref(), Some("B"));
    }
}

#[test]
fn a_run_of_profiles_alone_counts_as_created_nobody_whom_it_has_not_created() {
    let fixture = TagFixture::new(&[]);
    let rows = "a,A,male,1,x\nb,B,male,,\nc,C,,,\nd,D,,,\ne,E,,,\n";
    fixture.sync(rows, &[]).run().exits(0);
    let endpoint = connection(&fixture.bench, &fixture.sandbox.endpoint());
    let flags = ["--state", "users.state", "--rate", "0", "--results", "profiles.csv", "--profile-only"];
    fixture.bench.call(&["import", "users.csv"]).args(&flags).args(&endpoint.each_ref().map(String::as_str)).run().exits(0);
    let shown = fixture.bench.call(&["state", "users.state"]).run().stdout;
    let last = shown.lines().find(|line| line.contains(" import ")).unwrap();
    assert!(last.contains(": 0 to create, 2 to update, 3 unchanged; 0 failed"), "{shown}");
}

#[test]
fn a_verification_compares_tags_and_doubts_the_very_one() {
    let mut fixture = TagFixture::new(&[]);
    let rows = "a,A,male,1,x\nb,B,male,1,x\nc,C,male,1,\nd,,,,\n";
    fixture.sync(rows, &[]).run().exits(0);
    fixture.calls();
    // Somebody changes tags behind the state's back.
    let elsewhere = CliFixture::new();
    elsewhere.write("users.csv", HEADER.to_owned() + "a,A,male,7,x\nc,C2,female,1,z\n");
    let behind = connection(&elsewhere, &fixture.sandbox.endpoint());
    elsewhere.call(&["import", "users.csv", "--rate", "0"]).args(&behind.each_ref().map(String::as_str)).run().exits(0);
    fixture.calls();
    let connection = connection(&fixture.bench, &fixture.sandbox.endpoint());
    let verify = fixture.bench.call(&["verify", "users.csv", "--profiles", "--state", "users.state", "--rate", "0"]);
    let run = verify.args(&connection.each_ref().map(String::as_str)).run().exits(3);
    assert_eq!(
        fixture.bench.read("users.verify.csv"),
        "row,line,UserID,state,detail\n1,2,a,differs,Level\n2,3,b,same,\n3,4,c,differs,Nick Gender\n4,5,d,same,\n",
        "{}",
        run.stderr
    );
    // What is to be repaired is the input's record under its header, so no flag is needed.
    assert_eq!(fixture.bench.read("users.repair.csv"), HEADER.to_owned() + "a,A,male,1,x\nc,C,male,1,\n");
    assert_eq!(fixture.in_doubt(), "2");
    fixture.looked_at = fixture.sandbox.call_log().len();
    let doubted = "in doubt: the result of an earlier request is unknown";
    fixture
        .night(rows, &[&format!("update a: {doubted}"), &format!("update c: {doubted}")], &["portrait_set a", "import c", "portrait_set c"])
        .exits(0);
    assert_eq!(fixture.in_doubt(), "0");
    assert_eq!(fixture.tags("a")["Tag_Profile_IM_Level"], 1);
    assert_eq!(fixture.tags("c")["Tag_Profile_Custom_Vip"], "z", "the file says nothing of it");
}

#[test]
fn a_column_that_is_read_no_more_or_again_is_no_change() {
    let mut fixture = TagFixture::new(&[]);
    fixture.sync("a,A,male,1,x\n", &[]).run().exits(0);
    fixture.calls();
    fixture.bench.write("users.csv", "UserID,Nick,Tag_Profile_Custom_Vip,sex\na,A,x,male\n");
    night::sync(&fixture.bench, &fixture.sandbox.endpoint(), &["--profile", "Gender=sex"]).run().exits(0).because("1 unchanged");
    fixture.bench.write("users.csv", "UserID,Nick\na,A\n");
    night::sync(&fixture.bench, &fixture.sandbox.endpoint(), &[]).run().exits(0).because("1 unchanged");
    fixture.night("a,A,male,1,x\n", &[], &[]).exits(0);
}

#[test]
fn a_state_shows_which_tags_it_knows_and_its_export_tells_values_apart() {
    let fixture = TagFixture::new(&[]);
    let fingerprints = |rows: &str| -> Vec<String> {
        fixture.sync(rows, &[]).run().exits(0);
        super::exported(&fixture.bench).iter().map(|line| line.split(',').nth(1).unwrap().to_owned()).collect()
    };
    let before = fingerprints("a,A,,,\nb,B,,,\n");
    let after = fingerprints("a,A,male,1,\nb,B,,,\n");
    assert!(after[0].starts_with(&before[0]) && after[0].len() == before[0].len() + 16 && after[1] == before[1], "{before:?} {after:?}");
    assert_ne!(fingerprints("a,A,male,2,\n")[0], after[0]);
    assert_eq!(fingerprints("a,A,male,1,\n")[0], after[0]);
    let shown = fixture.bench.call(&["state", "users.state"]).run().stdout;
    assert!(shown.contains("tags        Gender, Level, Custom.Vip\n"), "{shown}");
}

#[test]
fn decisions_of_more_kinds_than_half_a_byte_tells_apart_are_kept_over_a_stop() {
    let fixture = TagFixture::new(&[]);
    // Each row changes another set of fields and tags: 16 kinds, 8 of them without an import.
    let rows = |change: bool| {
        (0..16_u8).fold(String::new(), |mut rows, row| {
            let is_in = |bit: u8| u8::from(change && row & (1 << bit) != 0);
            writeln!(rows, "u{row:02},n{},{},{},v{}", is_in(3), ["male", "female"][usize::from(is_in(0))], is_in(1), is_in(2)).unwrap();
            rows
        })
    };
    fixture.sync(&rows(false), &[]).run().exits(0);
    let before = fixture.sandbox.call_log().len();
    fixture.sync(&rows(true), &["--limit", "5"]).run().exits(0).because("limit");
    let run = fixture.sync(&rows(true), &[]).run().exits(0);
    assert_eq!(run.summary["resumed_at_row"].as_u64().map(|rows| rows > 0), Some(true));
    let touches = fixture.sandbox.call_log();
    let count = |api| touches[before..].iter().filter(|touch| touch.command == api).count();
    // Of 16 rows, 8 change the Nick, and 14 a tag.
    assert_eq!((count(Api::AccountImport), count(Api::PortraitSet)), (8, 14));
    for row in 0..16_u64 {
        let tags = fixture.tags(&format!("u{row:02}"));
        let gender = ["Gender_Type_Male", "Gender_Type_Female"][usize::try_from(row & 1).unwrap()];
        assert_eq!((&tags["Tag_Profile_IM_Gender"], tags["Tag_Profile_IM_Level"].as_u64()), (&json!(gender), Some(row >> 1 & 1)));
    }
    fixture.sync(&rows(true), &[]).run().exits(0).because("16 unchanged");
}
