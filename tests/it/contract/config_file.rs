//! The configuration file accepts every setting that makes sense for more than one run.

use crate::support::CliFixture;
use crate::support::server::{Server, imported};

/// A secret in a place where it does not belong.
const SECRET: &str = "5bd2850fff3ecb11";

/// A file whose columns can only be read with the settings of the configuration.
fn fixture(config: &str) -> CliFixture {
    let bench = CliFixture::new();
    bench.write("users.csv", "Number;Called;Picture\n1;Ann;\n2;NULL;\n3;Bob;\n");
    bench.write("chatlift.toml", config);
    bench
}

const READING: &str = "delimiter = \";\"\nnull = [\"NULL\"]\n\n[map]\nUserID = \"Number\"\nNick = \"Called\"\n";

#[test]
fn every_flag_of_an_import_can_be_configured() {
    let config =
        format!("results = \"out.csv\"\nsummary = \"out.json\"\nbatch = true\nsingle-rate = 7\nquiet = true\nmax-invalid = 2.5\n{READING}");
    let bench = fixture(&config);
    let run = bench.call(&["import", "users.csv", "--sandbox", "--config", "chatlift.toml"]).run();
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (Some(0), "", ""), "it is quiet");
    assert!(bench.read("out.csv").contains("3,4,3,imported"), "{}", bench.read("out.csv"));
    let summary: serde_json::Value = serde_json::from_str(&bench.read("out.json")).unwrap();
    assert_eq!(summary["lane"], "batch", "{summary}");
}

#[test]
fn a_flag_overrides_a_setting_and_a_table_is_merged_entry_by_entry() {
    let bench = fixture(&format!("results = \"out.csv\"\n{READING}"));
    let own = ["--results", "own.csv", "--map", "Nick=Picture", "--null", "x", "--config", "chatlift.toml"];
    let run = bench.call(&["import", "users.csv", "--sandbox"]).args(&own).run().exits(0);
    assert!(run.stderr.contains("UserID from \"Number\", Nick from \"Picture\""), "{}", run.stderr);
    assert!(bench.names().contains("own.csv") && !bench.names().contains("out.csv"));
}

#[test]
fn commands_without_a_service_read_it_too() {
    let bench = fixture(&format!("rate = 3\nmissing = \"report\"\n{READING}"));
    bench.call(&["check", "users.csv"]).run().exits(2).because("UserID");
    let run = bench.call(&["check", "users.csv", "--config", "chatlift.toml"]).run().exits(0);
    assert!(run.stdout.contains("3 a second"), "the forecast is for the rate of the file: {}", run.stdout);
    bench.call(&["check", "users.csv"]).env("CHATLIFT_CONFIG", "chatlift.toml").run().exits(0);
    bench.call(&["import", "users.csv", "--sandbox", "--config", "chatlift.toml"]).run().exits(0);
    bench.call(&["audit", "users.csv", "--results", "users.results.csv", "--config", "chatlift.toml"]).run().exits(0);
}

#[test]
fn required_flags_of_a_sync_can_be_configured() {
    let bench =
        fixture(&format!("state = \"night.db\"\nmissing = \"kick\"\nprotect = [\"admin*\", \"bot-?\"]\nmissing-runs = 5\n{READING}"));
    bench.call(&["sync", "users.csv", "--sandbox", "--config", "chatlift.toml"]).run().exits(0);
    assert!(bench.names().contains("night.db"));
}

#[test]
fn settings_for_a_single_run_are_refused() {
    let server = Server::new(|_| imported());
    for line in ["limit = 5", "restart = true", "dry-run = true", "allow = [\"empty\"]", "config = \"other.toml\""] {
        let bench = fixture(&format!("{line}\n{READING}"));
        let key = line.split(' ').next().unwrap();
        let run = bench.import(&server).args(&["--config", "chatlift.toml"]).run().exits(2);
        run.because("chatlift.toml line 1").because(key).because("single run").hints(&format!("--{key}"));
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn an_invalid_value_is_an_error_in_the_file_and_is_not_shown() {
    let server = Server::new(|_| imported());
    let check = |line: &str, key: &str| {
        let bench = fixture(&format!("quiet = false\n{line}\n"));
        let run = bench.import(&server).args(&["--config", "chatlift.toml"]).run().exits(2);
        let run = run.because("chatlift.toml line ").because(key).hints("chatlift import --help");
        assert!(!run.stderr.contains(SECRET), "{}", run.stderr);
    };
    check(&format!("max-invalid = \"{SECRET}\""), "--max-invalid");
    check(&format!("batch = \"{SECRET}\""), "--batch");
    check(&format!("user-ids = \"{SECRET}\""), "--user-ids");
    check("trim = \"yes\"", "--trim");
    check("null = { a = 2020-01-01 }", "--null");
    check("plan = [\"a\", \"b\"]\nrepair = 5\nsingle-rate = [1]", "--single-rate");
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_flag_of_another_command_is_accepted_and_an_unknown_one_is_not() {
    let bench = fixture(&format!("seed = 5\nexpire = \"1h\"\nmax-update = \"10%\"\n{READING}"));
    bench.call(&["import", "users.csv", "--sandbox", "--config", "chatlift.toml"]).run().exits(0);
    let bench = fixture(&format!("port = 5\n{READING}"));
    bench
        .call(&["import", "users.csv", "--sandbox", "--config", "chatlift.toml"])
        .run()
        .exits(2)
        .because("--port")
        .hints("secret-key-file");
}
