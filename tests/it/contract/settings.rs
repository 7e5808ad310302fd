//! Flags, environment, configuration file; and the commands that only print.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use chatlift::io::api::usersig::read_claims;

use crate::support::server::{Server, imported};
use crate::support::{Call, CliFixture, KEY, Run, SDKAPPID};

#[test]
fn a_key_that_others_can_read_is_refused() {
    let bench = CliFixture::with_users(1);
    let server = Server::new(|_| imported());
    for mode in [0o644, 0o640, 0o604] {
        fs::set_permissions(bench.key(), fs::Permissions::from_mode(mode)).unwrap();
        bench.import(&server).run().exits(2).because("read by others").hints("chmod 600");
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_key_is_needed_and_is_one_word() {
    let bench = CliFixture::with_users(1);
    let server = Server::new(|_| imported());
    bench
        .call(&["import", "users.csv", "--endpoint", &server.endpoint(), "--sdkappid", SDKAPPID])
        .run()
        .exits(2)
        .hints("--secret-key-file");
    fs::write(bench.key(), "").unwrap();
    bench.import(&server).run().exits(2).because("one word");
    fs::write(bench.key(), format!("{KEY}\n{KEY}\n")).unwrap();
    bench.import(&server).run().exits(2).because("one word");
    fs::remove_file(bench.key()).unwrap();
    bench.import(&server).run().exits(2).because("key file");
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_key_of_the_environment_signs_and_is_shown_nowhere_else() {
    let bench = CliFixture::with_users(2);
    let server = Server::new(|_| imported());
    let call = bench.call(&["import", "users.csv", "-vv", "--endpoint", &server.endpoint(), "--sdkappid", SDKAPPID]);
    call.against(&server).env("CHATLIFT_SECRET_KEY", KEY).run().exits(0).imports_all(2);
}

#[test]
fn a_ready_made_usersig_is_used_and_warned_of() {
    let bench = CliFixture::with_users(400);
    let server = Server::new(|_| imported());
    let usersig = usersig(&bench, |call| call.args(&["--sdkappid", SDKAPPID, "--expire", "60s"]));
    let with = |app: &str| {
        let args = ["import", "users.csv", "-vv", "--endpoint", &server.endpoint(), "--sdkappid", app, "--rate", "1", "--limit", "1"];
        bench.call(&args).against(&server).env("CHATLIFT_USERSIG", &usersig).run()
    };
    with("1400000001").exits(2).because("1400000000");
    assert_eq!(server.connections(), 0);
    let run = with(SDKAPPID).exits(0).imports_all(1);
    assert!(run.stderr.contains("CHATLIFT_USERSIG expires at"), "{}", run.stderr);
    assert_eq!(server.usersigs().into_iter().collect::<Vec<_>>(), [usersig]);
}

#[test]
fn plain_http_is_only_for_loopback_addresses() {
    let bench = CliFixture::with_users(1);
    for endpoint in ["http://localhost:1", "http://192.0.2.1", "http://example.com", "http://127.0.0.1.example.com", "http://0.0.0.0:1"] {
        bench.import_into("users.csv", endpoint).run().exits(2).because("http://").hints("https://");
    }
    for endpoint in ["http://127.9.9.9:1", "http://[::1]:1"] {
        bench.import_into("users.csv", endpoint).args(&["--max-outage", "100ms", "--restart"]).run().exits(4);
    }
    for endpoint in ["ftp://127.0.0.1", "127.0.0.1:1", "https://user:pass@127.0.0.1", "https://127.0.0.1/path", "https://127.0.0.1?q=1"] {
        bench.import_into("users.csv", endpoint).run().exits(2).because("endpoint").hints("https://");
    }
}

#[test]
fn an_unlimited_rate_is_only_for_loopback() {
    let bench = CliFixture::with_users(1);
    bench.import_into("users.csv", "https://example.com").at_any_rate().run().exits(2).because("--rate 0").hints("--rate");
    bench.import_into("users.csv", "https://example.com").env("CHATLIFT_RATE", "0").run().exits(2).because("--rate 0");
}

#[test]
fn a_real_command_is_rehearsed_by_adding_the_sandbox() {
    let bench = CliFixture::with_users(1);
    bench.call(&["import", "users.csv", "--sdkappid", "7", "--region", "tokyo", "--sandbox"]).run().exits(0);
}

#[test]
fn wrong_usage_exits_2_with_a_hint() {
    let bench = CliFixture::with_users(1);
    bench.call(&["import"]).run().exits(2);
    bench.call(&["import", "users.csv", "--no-such-flag"]).run().exits(2);
    bench.call(&["import", "users.csv", "--region", "atlantis"]).run().exits(2);
    bench.call(&["import", "users.csv", "--region", "tokyo", "--endpoint", "https://127.0.0.1"]).run().exits(2);
    bench.call(&["import", "users.csv", "--secret-key", "x"]).run().exits(2);
    bench.call(&["no-such-command"]).run().exits(2);
    bench.call(&["import", "users.csv"]).run().exits(2).hints("--sdkappid");
    let key = bench.key();
    let with_key = ["import", "users.csv", "--sdkappid", SDKAPPID, "--secret-key-file", key.to_str().unwrap()];
    bench.call(&with_key).run().exits(2).because("region").hints("singapore");
    let nobody = ["import", "users.csv", "--secret-key-file", key.to_str().unwrap(), "--region", "tokyo", "--sdkappid", "0"];
    bench.call(&nobody).run().exits(2).because("SDKAppID").hints("--sdkappid");
    for zero in [["--in-flight", "0"], ["--max-attempts", "0"], ["--timeout", "0"]] {
        bench.call(&with_key).args(&["--region", "tokyo"]).args(&zero).run().exits(2);
    }
}

#[test]
fn wrong_flags_are_reported_before_missing_ones() {
    let bench = CliFixture::with_users(1);
    let check = |config: &str, flags: &[&str], why: &str, hint: &str| {
        bench.write("chatlift.toml", config);
        bench.call(&["import", "users.csv", "--config", "chatlift.toml"]).args(flags).run().exits(2).because(why).hints(hint);
    };
    check("region = \"mars\"\n", &[], "\"mars\" is no region", "singapore");
    check("region = \"mars\"\n", &["--sdkappid", SDKAPPID], "\"mars\" is no region", "singapore");
    check("endpoint = \"mars\"\n", &[], "the endpoint is not a URL", "https://");
    check("timeout = 0\n", &[], "timeout", "configuration file");
    check("in-flight = 0\n", &["--region", "tokyo"], "--in-flight", "default");
    check("rate = 0\nregion = \"tokyo\"\n", &[], "loopback", "--rate");
    check("rate = 0\n", &[], "no SDKAppID", "--sdkappid");
    bench.call(&["import", "users.csv"]).env("CHATLIFT_REGION", "mars").run().exits(2).because("\"mars\" is no region");
}

#[test]
fn printing_a_signature_accepts_the_flags_of_other_commands() {
    let bench = CliFixture::new();
    let help = bench.call(&["usersig", "--help"]).run().stdout;
    for flag in ["--sdkappid", "--identifier", "--secret-key-file", "--config", "--expire", "--help"] {
        assert!(help.contains(flag), "{flag}: {help}");
    }
    assert_eq!(help.lines().filter(|line| line.trim_start().starts_with("--")).count(), 5, "{help}");
    let connection = ["--sdkappid", SDKAPPID, "--region", "tokyo", "--rate", "10", "--in-flight", "4"];
    assert!(!usersig(&bench, |call| call.args(&connection)).is_empty());
}

/// Prints a UserSig with the fixture's key and the given additional flags.
#[track_caller]
fn usersig(bench: &CliFixture, with: impl FnOnce(Call<'_>) -> Call<'_>) -> String {
    let key = bench.key();
    let call = bench.call(&["usersig", "--secret-key-file", key.to_str().unwrap()]);
    let Run { code, stdout, stderr, .. } = with(call).run();
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    stdout.trim_end().to_owned()
}

#[test]
fn a_flag_overrides_the_environment_and_that_the_configuration_file() {
    let bench = CliFixture::new();
    bench.write("chatlift.toml", "sdkappid = 3\nidentifier = \"config\"\n");
    let check = |flags: &[&str], environment: &[(&str, &str)], expected: (u64, &str)| {
        let usersig = usersig(&bench, |call| environment.iter().fold(call.args(flags), |call, (name, value)| call.env(name, value)));
        let claims = read_claims(&usersig.into()).unwrap();
        assert_eq!((claims.sdkappid, claims.identifier.as_str()), expected, "{flags:?} {environment:?}");
    };
    let config = ("CHATLIFT_CONFIG", "chatlift.toml");
    let app = ("CHATLIFT_SDKAPPID", "2");
    check(&["--sdkappid", "1"], &[], (1, "administrator"));
    check(&[], &[app], (2, "administrator"));
    check(&["--config", "chatlift.toml"], &[], (3, "config"));
    check(&[], &[config], (3, "config"));
    check(&[], &[config, app], (2, "config"));
    check(&["--sdkappid", "1"], &[config, app, ("CHATLIFT_IDENTIFIER", "env")], (1, "env"));
    check(&["--identifier", "flag"], &[config, app, ("CHATLIFT_IDENTIFIER", "env")], (2, "flag"));
}

#[test]
fn a_configuration_file_makes_a_run() {
    let bench = CliFixture::with_users(2);
    let server = Server::new(|_| imported());
    let key = bench.key();
    bench.write(
        "chatlift.toml",
        format!(
            "sdkappid = {SDKAPPID}\nsecret-key-file = {key:?}\nendpoint = {:?}\nrate = 0\ntimeout = 1\nmax-outage = \"2s\"\n",
            server.endpoint()
        ),
    );
    bench.call(&["import", "users.csv", "--config", "chatlift.toml", "-vv"]).against(&server).run().exits(0).imports_all(2);
}

#[test]
fn a_configuration_file_with_an_unknown_name_or_a_secret_is_refused() {
    let bench = CliFixture::with_users(1);
    let config = bench.outside("chatlift.toml");
    let server = Server::new(|_| imported());
    let refused = |text: String, why: &str| {
        fs::write(&config, text).unwrap();
        bench.import(&server).args(&["--config", config.to_str().unwrap()]).run().exits(2).because(why).hints("secret-key-file");
    };
    refused("sdkapid = 1\n".to_owned(), "sdkapid");
    refused(format!("secret-key = \"{KEY}\"\n"), "secret-key");
    refused(format!("usersig = \"{KEY}\"\n"), "usersig");
    refused(format!("rate = 1\nsecret-key-file = {KEY}\n"), "line 2");
    refused(format!("rate = \"{KEY}\"\n"), "line 1");
    let hexadecimal = "5bd2850fff3ecb11d7c805251c51ee463a25727bddc2385f3fa8bfee1bb93b5e";
    fs::write(&config, format!("secret-key-file = \"{hexadecimal}\"\n")).unwrap();
    let args = ["import", "users.csv", "--endpoint", &server.endpoint(), "--sdkappid", SDKAPPID, "--config", config.to_str().unwrap()];
    let run = bench.call(&args).run().exits(2).because("the key itself");
    assert!(!run.stderr.contains(&hexadecimal[..8]), "{}", run.stderr);
    bench.import(&server).args(&["--config", "missing.toml"]).run().exits(2).because("missing.toml");
    assert_eq!(server.connections(), 0);
}

#[test]
fn quiet_prints_only_failures() {
    let bench = CliFixture::with_users(2);
    let server = Server::new(|_| imported());
    let quiet = || bench.import(&server).args(&["--quiet"]).run();
    let run = quiet().imports_all(2);
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (Some(0), "", ""));
    let run = quiet();
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (Some(0), "", ""));
    bench.write("users.csv", "UserID\n xy\n");
    let run = quiet().exits(3);
    assert_eq!(run.stderr.lines().count(), 2, "{}", run.stderr);
}

#[test]
fn logs_are_json_lines_when_asked() {
    let bench = CliFixture::with_users(2);
    let server = Server::new(|_| imported());
    let run =
        bench.quiet_import_into("users.csv", &server.endpoint()).args(&["-vv", "--log-format", "json", "--no-progress"]).run().exits(0);
    let events: Vec<serde_json::Value> =
        run.stderr.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().any(|event| event["level"] == "INFO" && event["message"].as_str().unwrap().contains("importing users.csv")));
}

/// What a command prints that does nothing else.
#[track_caller]
fn printed(call: Call) -> String {
    let run = call.run();
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    run.stdout
}

#[test]
fn completions_and_the_manual_page_are_printed() {
    let bench = CliFixture::new();
    let printed = |args: &[&str]| printed(bench.call(args));
    for (shell, word) in [("bash", "complete -F"), ("zsh", "#compdef chatlift"), ("fish", "complete -c chatlift")] {
        let script = printed(&["completions", shell]);
        assert!(script.contains(word) && script.contains("secret-key-file"), "{shell}: {script}");
    }
    bench.write("completions.bash", printed(&["completions", "bash"]));
    let parsed = Command::new("/bin/bash").arg("-n").arg(bench.path("completions.bash")).stdin(Stdio::null()).output().unwrap();
    assert!(parsed.status.success() && parsed.stderr.is_empty(), "{}", String::from_utf8_lossy(&parsed.stderr));
    let man = printed(&["man"]);
    assert!(man.contains(".TH") && man.contains("max\\-outage") && man.contains("EXIT STATUS"), "{man}");
    assert!(printed(&["--version"]).starts_with("chatlift 0."));
}

#[test]
fn each_command_has_a_page_of_the_manual() {
    let bench = CliFixture::new();
    fs::create_dir(bench.path("man1")).unwrap();
    assert_eq!(printed(bench.call(&["man", "--dir", "man1"])), "");
    let help = bench.call(&["--help"]).run().stdout;
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands = listed.filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|name| !name.is_empty() && *name != "help"));
    for name in commands {
        let page = fs::read_to_string(bench.path(&format!("man1/chatlift-{name}.1"))).unwrap();
        for section in ["NAME", "SYNOPSIS", "OPTIONS", "EXIT STATUS", "EXAMPLES"] {
            assert!(
                page.contains(&format!("\n.SH {section}\n")) || page.contains(&format!("\n.SH \"{section}\"\n")),
                "{name}: {section}\n{page}"
            );
        }
        assert_eq!(printed(bench.call(&["man", name])), page);
    }
    let import = bench.call(&["man", "import"]).run().stdout;
    for word in [".SH ENVIRONMENT", "CHATLIFT_SECRET_KEY", "CHATLIFT_PROXY", ".SH FILES", "checkpoint.json"] {
        assert!(import.contains(word), "{word}: {import}");
    }
    bench.call(&["man", "nothing"]).run().exits(2).because("nothing").hints("chatlift --help");
    bench.call(&["man", "--dir", "missing"]).run().exits(2).because("missing").hints("folder");
}

#[test]
fn what_a_usersig_says_is_shown_without_the_usersig() {
    let bench = CliFixture::new();
    let usersig = usersig(&bench, |call| call.args(&["--sdkappid", SDKAPPID, "--identifier", "root"]));
    let check = |call: Call, place: &str| {
        let text = printed(call);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with(place) && lines[1].ends_with(SDKAPPID) && lines[2].ends_with("\"root\""), "{text}");
        assert!(text.contains("valid for another 23h 59m") && !text.contains(&usersig), "{text}");
    };
    let decode = || bench.call(&["usersig", "decode"]);
    check(decode().stdin(&usersig), "standard input");
    check(decode().stdin(&format!(" {usersig}\r\n")), "standard input");
    check(decode().env("CHATLIFT_USERSIG", &usersig), "CHATLIFT_USERSIG");
    decode().run().exits(2).because("standard input").because("empty").hints("secret");
    decode().stdin("no signature").run().exits(2).because("standard input");
    decode().stdin("nosignature").run().exits(2).because("not a UserSig").hints("chatlift usersig");
    decode().args(&[usersig.as_str()]).run().exits(2);
}
