//! What cannot be meant by the settings of a quota is refused before anything is read, asked or sent.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::processes::Service;
use crate::support::redis_server::RedisServer;
use crate::support::{CliFixture, SDKAPPID};

/// A server that nobody asks.
const NOBODY: &str = "redis://127.0.0.1:1/0";

#[test]
fn a_url_or_a_password_that_cannot_be_meant_ends_with_exit_code_2_and_says_what_to_do() {
    let (service, bench) = (Service::new(), CliFixture::with_users(3));
    let import = || bench.quiet_import_into("users.csv", &service.sandbox.endpoint());
    let with = |args: &[&str]| import().args(args).run().exits(2);
    for (url, why) in [
        ("http://127.0.0.1/0", "--quota must be a redis:// or rediss:// URL"),
        ("quota.example.com:6379", "--quota must be a redis:// or rediss:// URL"),
        ("quota.example.com", "--quota is not a URL"),
        ("redis:///0", "--quota names no server"),
        ("redis://127.0.0.1/users", "--quota must name the database by its number"),
        ("redis://127.0.0.1/-1", "--quota must name the database by its number"),
        ("redis://127.0.0.1/0?db=1", "--quota must be scheme, host, port and database alone"),
        ("rediss://127.0.0.1/0#insecure", "--quota must be scheme, host, port and database alone"),
    ] {
        with(&["--quota", url]).because(why).hints("redis://quota.example.com:6379/0");
        let variable = import().env("CHATLIFT_QUOTA", url).run().exits(2);
        variable.because(&why.replace("--quota", "CHATLIFT_QUOTA"));
    }
    // A password where others can read it, or two, or of nobody.
    let secret = "redis://:very-secret@127.0.0.1:1/0";
    for run in [with(&["--quota", secret]), with(&["--config", &config(&bench, &format!("quota = \"{secret}\""))])] {
        let run = run.because("holds a password: others can read it there").hints("--quota-password-file");
        assert!(!run.stderr.contains("very-secret"), "{}", run.stderr);
    }
    with(&["--quota", "redis://name@127.0.0.1:1/0"])
        .because("--quota names a user, and there is no password")
        .hints("--quota-password-file");
    let file = password_file(&bench, "one line\n", 0o600);
    let both = import().env("CHATLIFT_QUOTA", secret).args(&["--quota-password-file", &file]).run().exits(2);
    both.because("CHATLIFT_QUOTA and --quota-password-file both hold a password");
    with(&["--quota", NOBODY, "--quota-password-file", &password_file(&bench, "one line\n", 0o644)]).because("can be read by others");
    with(&["--quota", NOBODY, "--quota-password-file", &password_file(&bench, "two\nlines\n", 0o600)]).because("does not hold one line");
    assert_eq!(service.arrivals().len(), 0);
}

#[test]
fn what_cannot_be_meant_besides_ends_with_exit_code_2_and_says_why() {
    let (service, bench) = (Service::new(), CliFixture::with_users(3));
    let with = |args: &[&str]| bench.quiet_import_into("users.csv", &service.sandbox.endpoint()).args(args).run().exits(2);
    let file = password_file(&bench, "one line\n", 0o600);
    for more in
        [["--quota-key", "key"], ["--quota-rate", "account_import=100"], ["--quota-lost", "share=10"], ["--quota-password-file", &file]]
    {
        with(&more).because("more is said of a quota, and no quota is given").hints("--quota redis://HOST:PORT/DB");
    }
    for (more, why) in [
        (vec!["--quota-key", ""], "--quota-key is empty"),
        (vec!["--quota-key", "  "], "--quota-key is empty"),
        (vec!["--quota-rate", "account_import=0"], "which is at least 1"),
        (vec!["--quota-rate", "account_import=many"], "is no number of requests a second"),
        (vec!["--quota-rate", "account_import"], "it must be an API and a number"),
        (vec!["--quota-rate", "account_impart=10"], "is no API; those are account_import"),
        (vec!["--quota-rate", "account_import=99999999999"], "is too large"),
        (vec!["--quota-rate", "account_import=10", "--quota-rate", "account_import=20"], "--quota-rate names account_import twice"),
        (vec!["--quota-lost", "10"], "it must be share=N"),
        (vec!["--quota-lost", "share=0"], "which is at least 1"),
        (vec!["--quota-lost", "share="], "is no number of requests a second"),
        (vec!["--quota-lost", "share=201"], "--quota-lost share=201 is more than all may send together"),
        (vec!["--quota-lost", "share=20", "--quota-rate", "account_import=10"], "--quota-lost share=20 is more than all may send together"),
    ] {
        let run = with(&[&["--quota", NOBODY], &more[..]].concat());
        assert!(run.stderr.contains(why), "{why:?} is not in {:?}", run.stderr);
    }
    for (line, why) in [
        ("quota-rate = [\"account_import=0\"]", "quota-rate of the configuration file"),
        ("quota-lost = \"10\"", "quota-lost of the configuration file"),
    ] {
        with(&["--quota", NOBODY, "--config", &config(&bench, line)]).because(why);
    }
    with(&["--quota", NOBODY, "--rate", "0"]).because("--rate 0 (no limit) and a quota contradict each other");
    assert_eq!(service.arrivals().len(), 0);
}

fn config(bench: &CliFixture, line: &str) -> String {
    bench.write("chatlift.toml", format!("{line}\n"));
    "chatlift.toml".to_owned()
}

fn password_file(bench: &CliFixture, text: &str, mode: u32) -> String {
    let path = bench.outside(&format!("password-{mode:o}-{}", text.len()));
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_password_is_taken_with_its_spaces_from_a_file_and_a_key_is_any_word() {
    let Some(store) = RedisServer::with("a store whose password has spaces", &["--requirepass", " one  two "]) else { return };
    let (service, bench) = (Service::new(), CliFixture::with_users(3));
    let file = password_file(&bench, " one  two \n", 0o600);
    let import = bench.quiet_import_into("users.csv", &service.sandbox.endpoint());
    let run = import.args(&["--quota", &store.url(), "--quota-password-file", &file, "--quota-key", "ours"]).run().exits(0);
    assert_eq!(run.summary["quota"]["max_runs"], 1);
    let url = store.url().replace("redis://", "redis://:%20one%20%20two%20@");
    let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
    let mut keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
    keys.retain(|key| key == "ours:account_import");
    assert_eq!(keys.len(), 1, "without braces it is as good in a server that is no cluster; {SDKAPPID} is not in it");
}
