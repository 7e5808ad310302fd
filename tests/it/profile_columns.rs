//! The columns of the profile: which ones are read, as what, and what is refused before a call is spent.

use crate::binary::CliFixture;

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
