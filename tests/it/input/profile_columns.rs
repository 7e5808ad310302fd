//! The columns of the profile: which ones are read, as what, and what is refused before a call is spent.

use std::fs;
use std::path::Path;

use chatlift::domain::command::Command as Api;
use chatlift::sandbox::{CustomFields, Sandbox, SandboxSettings};
use serde_json::json;

use crate::support::server::{Server, imported};
use crate::support::{CliFixture, KEY};

const USERS: &str = "uid,Nick,sex,born,Tag_Profile_Custom_Vip\na,Ada,1,1815-12-10,gold\nb,Bo,0,0000-00-00,\nc,,,,\n";
const READING: [&str; 8] =
    ["--map", "UserID=uid", "--profile", "Gender=sex", "--profile", "BirthDay=born", "--value", "BirthDay:0000-00-00="];
const GENDERS: [&str; 4] = ["--value", "Gender:1=male", "--value", "Gender:0=unknown"];

fn bench() -> CliFixture {
    let bench = CliFixture::new();
    bench.write("users.csv", USERS);
    bench
}

#[test]
fn every_command_that_reads_a_file_takes_the_columns() {
    let bench = bench();
    let told = "UserID from \"uid\", Nick from \"Nick\", FaceUrl from nothing, Gender from \"sex\", BirthDay from \"born\", \
                Custom.Vip from \"Tag_Profile_Custom_Vip\"; 0 columns ignored";
    let call = |words: &[&str]| bench.call(words).args(&READING).args(&GENDERS).run();
    let check = call(&["check", "users.csv"]).exits(0);
    assert!(check.stdout.contains(told), "{}", check.stdout);
    for words in [
        &["import", "users.csv", "--sandbox"][..],
        &["sync", "users.csv", "--sandbox", "--state", "users.state", "--results", "sync.csv"],
        &["verify", "users.csv", "--sandbox"],
        &["audit", "users.csv", "--results", "users.results.csv"],
    ] {
        let run = call(words);
        assert!((run.stdout.clone() + &run.stderr).contains(told), "{words:?}: {}{}", run.stdout, run.stderr);
    }
}

#[test]
fn what_can_not_be_read_is_refused_with_a_way_out() {
    let bench = bench();
    let check = |flags: &[&str], why: &str, hint: &str| {
        bench.call(&["check", "users.csv", "--map", "UserID=uid"]).args(flags).run().exits(2).because(why).hints(hint);
    };
    check(&["--profile", "Gender=SEXES"], "no column \"SEXES\"", "--profile Gender=COLUMN");
    check(
        &["--profile", "Gender=sex", "--profile", "Gender=born"],
        "Gender is to be read from two columns",
        "--profile Gender=COLUMN once",
    );
    check(&["--profile", "Gender=sex", "--profile", "Level=sex"], "column \"sex\"", "--profile Level= reads none");
    check(&["--profile", "Custom.Id=uid"], "column \"uid\"", "--profile Custom.Id= reads none");
    check(&["--value", "Gender:1=male"], "no column of it", "--profile Gender=COLUMN");
    check(&["--profile", "Gender=sex", "--value", "Gender:1=male", "--value", "Gender:1=female"], "said twice", "--value Gender:1=TO once");
}

#[test]
fn what_is_no_tag_or_no_word_is_refused() {
    let bench = bench();
    let check = |flags: &[&str], why: &str| {
        let run = bench.call(&["check", "users.csv", "--map", "UserID=uid"]).args(flags).run().exits(2);
        assert!(run.stderr.contains(why), "{flags:?}: {}", run.stderr);
    };
    check(&["--profile", "gender=sex"], "the tags are Gender, BirthDay");
    check(&["--profile", "Tag_Profile_IM_Sex=sex"], "the tags are Gender, BirthDay");
    check(&["--profile", "Nick=Nick"], "--map Nick=COLUMN");
    check(&["--profile", "Tag_Profile_IM_Image=x"], "--map FaceUrl=COLUMN");
    check(&["--profile", "Gender"], "TAG=COLUMN");
    check(&["--value", "Gender=1"], "TAG:FROM=TO");
    check(&["--value", "Gender:1=man"], "Gender is none of unknown, female, male");
    check(&["--value", "Gender:=male"], "an empty cell says nothing");
}

#[test]
fn columns_and_words_can_be_configured_and_overridden_one_by_one() {
    let bench = bench();
    let config = "[map]\nUserID = \"uid\"\n\n[profile]\nGender = \"sex\"\nBirthDay = \"none\"\n\n[value]\n\"Gender:0\" = \"unknown\"\n\"Gender:1\" = \
                  \"female\"\n\n[value.BirthDay]\n\"0000-00-00\" = \"\"\n";
    bench.write("chatlift.toml", config);
    let flags = ["--config", "chatlift.toml", "--profile", "Tag_Profile_IM_BirthDay=born", "--value", "Tag_Profile_IM_Gender:1=male"];
    let run = bench.call(&["check", "users.csv"]).args(&flags).run().exits(0);
    assert!(run.stdout.contains("BirthDay from \"born\""), "{}", run.stdout);
    bench.write("chatlift.toml", config.replace("\"unknown\"", "true"));
    bench.call(&["check", "users.csv"]).args(&flags).run().exits(2).because("chatlift.toml line").because("value");
}

#[test]
fn a_column_that_is_not_read_is_told_with_the_flag_that_reads_it() {
    let bench = CliFixture::new();
    bench.write("users.csv", "UserID,birthday\na,19990101\n");
    let run = bench.call(&["check", "users.csv"]).run().exits(0);
    let told = "the column \"birthday\" is ignored; --profile BirthDay=birthday reads BirthDay from it, --profile BirthDay= says that none is meant";
    assert!(run.stdout.contains(told), "{}", run.stdout);
    for flag in ["BirthDay=birthday", "BirthDay="] {
        let run = bench.call(&["check", "users.csv", "--profile", flag]).run().exits(0);
        assert!(!run.stdout.contains("warning:"), "{}", run.stdout);
    }
}

/// What `fixtures/README.md` says of the example, which is an export of MySQL's.
const EXAMPLE: [&str; 22] = [
    "--map",
    "UserID=uid",
    "--map",
    "Nick=nickname",
    "--null",
    "NULL",
    "--profile",
    "Gender=gender",
    "--value",
    "Gender:0=unknown",
    "--value",
    "Gender:1=male",
    "--value",
    "Gender:2=female",
    "--profile",
    "BirthDay=birthday",
    "--value",
    "BirthDay:0000-00-00=",
    "--profile",
    "SelfSignature=signature",
    "--profile",
    "Custom.VipLevel=vip_level",
];

fn example() -> CliFixture {
    let bench = CliFixture::new();
    let text = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/profiles.csv")).unwrap();
    bench.write("users.csv", text);
    bench
}

#[test]
fn the_example_is_read_as_its_readme_says() {
    let run = example().call(&["check", "users.csv"]).args(&EXAMPLE).run().exits(0);
    insta::assert_snapshot!(run.stdout, @r#"
    UserID from "uid", Nick from "nickname", FaceUrl from nothing, Gender from "gender", BirthDay from "birthday", SelfSignature from "signature", Custom.VipLevel from "vip_level"; 2 columns ignored

    rows                8
      can be sent       8
      would be refused  0

    duplicates: none

    forecast: 8 requests, 1s at 200 a second; in batches: 1 request, 1s at 100 a second

    profile: 8 rows have cells of tags: Gender in 8, BirthDay in 5, SelfSignature in 3, Custom.VipLevel in 6
      8 requests of portrait_set, 1s at 200 a second, beside the others; in all 1s, in batches 1s
      the service pushes each changed profile to clients, and calls the webhook "After a Profile Is Updated" for it, if the app has one
    "#);
}

#[test]
fn words_that_are_no_values_are_named_with_the_flags_that_say_what_they_mean() {
    let bench = example();
    let flags = ["--map", "UserID=uid", "--null", "NULL", "--profile", "Gender=gender", "--profile", "BirthDay=birthday", "--map", "Nick="];
    let run = bench.call(&["check", "users.csv"]).args(&flags).run().exits(3);
    assert!(run.stdout.contains("refused: Gender is none of unknown, female, male: 8 rows"), "{}", run.stdout);
    assert!(run.stdout.contains("row 3, line 4, UserID \"10003\": Gender is none of unknown, female, male: \"0\""), "{}", run.stdout);
    let genders = "--value Gender:1=male --value Gender:2=female --value Gender:0=unknown";
    let run = run.hints(genders);
    let said: Vec<&str> = genders.split(' ').collect();
    assert!(!run.stderr.contains("BirthDay"), "{}", run.stderr);
    let run = bench.call(&["check", "users.csv"]).args(&flags).args(&said).run().exits(3);
    assert!(run.stdout.contains("refused: BirthDay is not a day that exists, written YYYYMMDD or YYYY-MM-DD: 3 rows"), "{}", run.stdout);
    let run = run.hints("--value BirthDay:0000-00-00= says what the word means");
    drop(run);
    bench.call(&["check", "users.csv"]).args(&flags).args(&said).args(&["--value", "BirthDay:0000-00-00="]).run().exits(0);
}

#[test]
fn no_flag_in_a_hint_changes_what_a_cell_says() {
    let bench = CliFixture::new();
    let check = |rows: &str, hint: &[&str], not: &str| {
        bench.write("users.csv", format!("UserID,Tag_Profile_IM_Gender,Tag_Profile_IM_BirthDay,Tag_Profile_IM_Level\n{rows}"));
        let run = bench.call(&["check", "users.csv"]).run().exits(3);
        let run = hint.iter().fold(run, |run, hint| run.hints(hint));
        assert!(not.is_empty() || !run.stderr.contains(not), "{not:?}: {}", run.stderr);
        assert!(!run.stderr.contains("=unknown"), "{}", run.stderr);
    };
    check("a, male,,\nb,Male ,,\n", &["--trim takes"], "--value");
    // With --trim, words are compared without white space too.
    check("a, male,,\nb,m,,\nc, f,,\n", &["--trim takes", "--value Gender:m=male --value Gender:f=female"], "");
    check("a,,1988-02-31,\nb,,31.12.1988,\n", &["BirthDay takes a day that exists, written YYYYMMDD or YYYY-MM-DD"], "--value");
    check("a,,1988-02-31,\nb,,00000000,\n", &["--value BirthDay:00000000= says", "BirthDay takes a day"], "");
    check("a,,,vip\n", &["Level takes a whole number from 0 to 4294967295", "--profile Level= reads none"], "--value");
    bench.write("users.csv", "UserID,Tag_Profile_IM_Gender\na,gender_type_male\n");
    bench.call(&["check", "users.csv"]).run().exits(0);
}

#[test]
fn a_word_that_nobody_can_guess_is_told_the_words_that_the_tag_takes() {
    let bench = CliFixture::new();
    let check = |tag: &str, words: &[&str], takes: &str, flag: &str| {
        let rows = words.iter().zip(1..).fold(String::new(), |rows, (word, row)| format!("{rows}u{row},{word}\n"));
        bench.write("users.csv", format!("UserID,Tag_Profile_IM_{tag}\n{rows}"));
        let run =
            bench.call(&["check", "users.csv"]).run().exits(3).hints(takes).hints(flag).hints(&format!("--profile {tag}= reads none"));
        assert!(!run.stderr.contains("reads a cell as empty") && !run.stderr.contains("=unknown"), "{}", run.stderr);
        // The flag runs as it stands, with one of the words.
        let (flag, value) = flag.split_once(' ').unwrap();
        let value = value.replace("WORD", takes.rsplit(' ').next().unwrap()).replace('\'', "");
        let run = bench.call(&["check", "users.csv", flag, &value]).run();
        assert_eq!(run.code, Some(if words.len() == 1 { 0 } else { 3 }), "{}", run.stderr);
    };
    check("AllowType", &["1"], "AllowType takes need-confirm, allow-any, deny-any", "--value AllowType:1=WORD");
    check("AdminForbidType", &["no posts"], "AdminForbidType takes none, send-out", "--value 'AdminForbidType:no posts=WORD'");
    check("Gender", &["divers", "x"], "Gender takes unknown, female, male", "--value Gender:divers=WORD");
    bench.write("users.csv", "UserID,Tag_Profile_IM_Gender\na,x\nb,m\n");
    bench.call(&["check", "users.csv"]).run().exits(3).hints("--value Gender:m=male says").hints("Gender takes unknown, female, male");
}

#[test]
fn a_rate_without_limit_is_forecast_at_the_documented_one() {
    let bench = CliFixture::new();
    bench.write("users.csv", "UserID,Tag_Profile_IM_Level\na,1\n");
    let plain = bench.call(&["check", "users.csv"]).run().exits(0).stdout;
    assert_eq!(bench.call(&["check", "users.csv", "--rate", "0", "--profile-rate", "0"]).run().exits(0).stdout, plain);
    bench.write("chatlift.toml", "rate = 0\nprofile-rate = 0\n");
    assert_eq!(bench.call(&["check", "users.csv", "--config", "chatlift.toml"]).run().exits(0).stdout, plain);
}

#[test]
fn a_configuration_file_that_names_no_tag_is_told_which_one() {
    let bench = bench();
    for (config, why) in [
        ("[profile]\nGender = \"sex\"\nFoo = \"born\"\n", "line 3: \"Foo\" is no tag; the tags are Gender, BirthDay"),
        ("[value.Foo]\n1 = \"male\"\n", "\"Foo\" is no tag; the tags are Gender"),
        ("[profile]\nNick = \"sex\"\n", "line 2: \"Nick\" is no tag but a field of its own"),
    ] {
        bench.write("chatlift.toml", config);
        bench.call(&["check", "users.csv", "--config", "chatlift.toml"]).run().exits(2).because(why);
    }
}

#[test]
fn a_file_whose_first_rows_have_unknown_words_is_refused_with_all_the_flags_that_help() {
    let bench = CliFixture::new();
    let rows: Vec<String> = (0..500).map(|row| format!("a{row},m\nb{row},w\n")).collect();
    bench.write("users.csv", format!("UserID,Tag_Profile_IM_Gender\n{}", rows.concat()));
    let server = Server::new(|_| imported());
    bench.import(&server).run().exits(2).because("Gender is none of").hints("--value Gender:m=male --value Gender:w=female say");
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_location_that_may_be_too_long_is_odd() {
    let bench = CliFixture::new();
    bench.write("users.csv", "UserID,Tag_Profile_IM_Location\na,Shanghai Pudong\nb,\"Shanghai, Pu Dong\"\n");
    let run = bench.call(&["check", "users.csv"]).run().exits(0);
    assert!(run.stdout.contains("odd: Location of more than 16 bytes: 1 row"), "{}", run.stdout);
    let run = bench.call(&["check", "users.csv", "--strict"]).run().exits(2).because("Location");
    drop(run);
    bench.call(&["check", "users.csv", "--strict", "--profile", "Location="]).run().exits(0);
}

#[test]
fn a_key_that_is_not_documented_is_warned_of() {
    let bench = CliFixture::new();
    bench.write("users.csv", "UserID,Tag_Profile_Custom_Vip,Tag_Profile_Custom_Vip_1,Tag_Profile_Custom_Membership\na,x,y,z\n");
    let run = bench.call(&["import", "users.csv", "--sandbox"]).run();
    let warned: Vec<&str> = run.stderr.lines().filter(|line| line.contains("is not one of up to 8 letters")).collect();
    assert!(warned.len() == 2 && warned[0].contains("Custom.Vip_1") && warned[1].contains("Custom.Membership"), "{}", run.stderr);
    let run = bench.call(&["check", "users.csv"]).run().exits(0);
    assert_eq!(run.stdout.matches("is not one of up to 8 letters").count(), 2, "{}", run.stdout);
}

#[test]
fn the_first_lines_say_what_the_columns_take_and_set_off() {
    let bench = CliFixture::with_users(10);
    let told = |bench: &CliFixture, words: &[&str]| bench.call(words).run().stderr;
    let plain = told(&bench, &["import", "users.csv", "--sandbox"]);
    assert!(!plain.contains("portrait_set"), "{plain}");
    let rows: Vec<String> = (0..400).map(|row| format!("u{row},{}", if row % 10 == 9 { "male" } else { "" })).collect();
    let few = format!("UserID,Tag_Profile_IM_Gender\n{}\n", rows.join("\n"));
    bench.write("few.csv", few.clone());
    bench.write("all.csv", few.replace(",\n", ",female\n"));
    let push = "webhook \"After a Profile Is Updated\"";
    let each = "each row whose Gender is sent takes a portrait_set of its own, at most 200 a second";
    for (words, time) in [
        (
            &["import", "few.csv", "--sandbox"][..],
            "about 40 of the 400 rows left have such cells, by the next ones: 1s; the import takes no longer for it",
        ),
        (
            &["import", "all.csv", "--sandbox", "--batch"],
            "about 400 of the 400 rows left have such cells, by the next ones: 2s; that bounds the pace, not the import",
        ),
        (&["sync", "few.csv", "--sandbox", "--state", "few.state", "--results", "sync.csv"], ""),
    ] {
        let said = told(&bench, words);
        assert!(said.contains(each) && said.contains(push) && said.contains(time), "{words:?}: {said}");
    }
    for command in ["import", "sync", "check"] {
        let help = bench.call(&[command, "--help"]).run().stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(help.contains(push), "{command}");
    }
}

#[test]
fn a_run_reads_its_columns_and_words_to_its_end() {
    let bench = CliFixture::new();
    bench.write("users.csv", "UserID,sex,born,Tag_Profile_Custom_Vip\na,1,1999-01-01,x\nb,2,,\nc,1,,\n");
    let flags = ["--profile", "Gender=sex", "--value", "Gender:1=male", "--value", "Gender:2=female"];
    let import = |more: &[&str]| bench.call(&["import", "users.csv", "--sandbox"]).args(more).run();
    let with = |more: &[&str]| import(&[&flags[..], more].concat());
    with(&["--limit", "1"]).exits(0);
    with(&["--limit", "1", "--profile", "BirthDay=born"])
        .exits(2)
        .because("the column of BirthDay was none, now it is 3")
        .hints("--profile BirthDay= continues the run as it began");
    with(&["--limit", "1", "--profile", "Custom.Vip="])
        .exits(2)
        .because("the column of Custom.Vip was 4, now it is none")
        .hints("--profile");
    with(&["--limit", "1", "--value", "Gender:3=unknown"])
        .exits(2)
        .because("--value was \"Gender:1=male\" and \"Gender:2=female\", now it is");
    import(&["--limit", "1"]).exits(2).because("the column of Gender was 2, now it is none");
    let reordered = ["--value", "Gender:2=female", "--value", "Tag_Profile_IM_Gender:1=male", "--profile", "Tag_Profile_IM_Gender=sex"];
    let ended = import(&reordered).exits(0);
    assert_eq!(ended.rows.len(), 3, "the same words in another order go on");
    let again = with(&[]).exits(0);
    assert!(again.stderr.contains("done") && bench.names().iter().all(|name| !name.contains(".results-")), "{}", again.stderr);
    let before = bench.names().len();
    with(&["--profile", "BirthDay=born"]).exits(0);
    assert!(bench.names().len() > before, "a new run, and the old files are kept: {:?}", bench.names());
}

#[test]
fn rejects_are_read_with_the_same_columns() {
    let bench = example();
    let text = bench.read("users.csv").replace("\"10002\"", "\"10002 \"").replace("1988-12-31", "1988-02-31");
    bench.write("users.csv", text);
    let run = bench.call(&["import", "users.csv", "--sandbox", "--max-invalid", "100"]).args(&EXAMPLE).run().exits(3);
    let hint = run.stderr.lines().find(|line| line.starts_with("hint: ")).unwrap();
    let command = &hint[hint.find("chatlift import").unwrap()..];
    let words: Vec<&str> = command.split(' ').skip(1).filter(|word| *word != "--sandbox").collect();
    assert!(EXAMPLE.iter().all(|word| words.contains(word)), "{command}");
    let rejects = bench.read("users.rejects.csv");
    assert!(rejects.contains("10002 ,韩梅梅,2,1993-11-02,北京,NULL,1,") && rejects.contains(",1988-02-31,"), "{rejects}");
    bench.write("users.rejects.csv", rejects.replace("10002 ", "10002").replace("1988-02-31", "1988-12-31"));
    let check = bench.call(&["check", "users.rejects.csv"]).args(&words[2..]).run().exits(0);
    assert!(
        check.stdout.contains("profile: 2 rows have cells of tags: Gender in 2, BirthDay in 2, SelfSignature in 0, Custom.VipLevel in 1"),
        "{}",
        check.stdout
    );
}

/// The service that the example is made for.
fn sandbox() -> Sandbox {
    let custom_fields = CustomFields::These(vec!["VipLevel".to_owned()]);
    Sandbox::start(SandboxSettings { custom_fields, ..SandboxSettings::with_key(KEY.into()) }).unwrap()
}

/// What the file says of a user, as the service keeps it.
fn expected(text: &str, user: &str) -> serde_json::Value {
    let mut rows = csv::Reader::from_reader(text.as_bytes());
    let row = rows.records().map(Result::unwrap).find(|row| &row[0] == user).unwrap();
    let genders = json!({ "0": "Gender_Type_Unknown", "1": "Gender_Type_Male", "2": "Gender_Type_Female" });
    let mut tags = serde_json::Map::new();
    tags.insert("Tag_Profile_IM_Gender".to_owned(), genders[&row[2]].clone());
    if &row[3] != "0000-00-00" {
        tags.insert("Tag_Profile_IM_BirthDay".to_owned(), json!(row[3].replace('-', "").parse::<u32>().unwrap()));
    }
    for (name, cell) in [("Tag_Profile_IM_SelfSignature", &row[5]), ("Tag_Profile_Custom_VipLevel", &row[6])] {
        if cell != "NULL" {
            tags.insert(name.to_owned(), json!(cell));
        }
    }
    json!(tags)
}

#[test]
fn the_example_of_the_page_is_imported_as_its_file_says_also_from_the_rejects() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/PROFILES.md")).unwrap();
    let settings = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let (bench, sandbox) = (example(), sandbox());
    let text = bench.read("users.csv");
    bench.write("chatlift.toml", settings);
    let of_page = bench.call(&["check", "users.csv", "--config", "chatlift.toml"]).run().exits(0);
    let of_flags = bench.call(&["check", "users.csv"]).args(&EXAMPLE).run().exits(0);
    let sorted = |stdout: &str| stdout.lines().skip(1).filter(|line| !line.starts_with("profile: ")).collect::<Vec<_>>().join("\n");
    assert_eq!(sorted(&of_page.stdout), sorted(&of_flags.stdout), "but for the order in which a file has them");
    for line in
        page.split("```text\n").nth(1).unwrap().split("```").next().unwrap().lines().skip(2).filter(|line| !line.starts_with("profile: "))
    {
        assert!(of_page.stdout.contains(line), "{line}: {}", of_page.stdout);
    }
    // Two rows are broken at first, and mended in the rejects.
    bench.write("users.csv", text.replace("\"10002\"", "\"10002 \"").replace("1988-12-31", "1988-02-31"));
    let import =
        |file: &str| bench.import_into(file, &sandbox.endpoint()).args(&["--config", "chatlift.toml", "--max-invalid", "100"]).run();
    import("users.csv").exits(3).settles(8);
    let rejects = bench.read("users.rejects.csv");
    bench.write("users.rejects.csv", rejects.replace("10002 ", "10002").replace("1988-02-31", "1988-12-31"));
    import("users.rejects.csv").exits(0);
    let users: Vec<String> = (10_001..=10_008).map(|user| user.to_string()).collect();
    for user in &users {
        assert_eq!(json!(sandbox.account(user).unwrap().tags), expected(&text, user), "{user}");
    }
    let audit = sandbox.audit();
    assert_eq!((audit.of(Api::PortraitSet).calls, audit.violations), (8, 0), "{:?}", audit.first_violations);
}
