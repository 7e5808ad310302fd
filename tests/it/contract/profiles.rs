//! Profile columns through the real binary and the sandbox: what is set, what is refused, and what stops a run.

use chatlift::sandbox::{CustomFields, Sandbox, SandboxCommand as Api, SandboxSettings};
use serde_json::json;

use crate::support::{Call, CliFixture, KEY};

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
        assert_eq!(
            tags(&sandbox, "user7"),
            json!({ "Tag_Profile_IM_Gender": "Gender_Type_Female", "Tag_Profile_IM_Level": 7, "Tag_Profile_Custom_Vip": "v7" })
        );
        assert_eq!(sandbox.account("user7").unwrap().nick.as_deref(), Some("nick7"));
    }
}
