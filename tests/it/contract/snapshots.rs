//! The exact texts that a user sees, without times, paths and ports.

use insta::Settings;

use crate::support::server::{Server, code, imported};
use crate::support::{CliFixture, Run};

fn shown(name: &str, text: &str) {
    let mut settings = Settings::clone_current();
    settings.set_snapshot_path("../snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// Exit code and standard error, without the parts that differ from run to run.
fn ending(run: &Run, port: u16) -> String {
    let stderr = run.stderr.replace(&port.to_string(), "PORT");
    let lines: Vec<String> = stderr.lines().map(|line| without_key(&steady(line))).collect();
    format!("exit {}\n{}\n", run.code.unwrap(), lines.join("\n"))
}

/// A line without the path of the key, which differs from run to run.
fn without_key(line: &str) -> String {
    const FLAG: &str = "--secret-key-file ";
    let Some((before, behind)) = line.split_once(FLAG) else { return line.to_owned() };
    let rest = behind.find(' ').map_or("", |end| &behind[end..]);
    format!("{before}{FLAG}KEY{rest}")
}

/// A line without times and measurements.
fn steady(line: &str) -> String {
    let label = |name: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' '));
    match line {
        _ if label("elapsed") => "elapsed     TIME".to_owned(),
        _ if label("latency") => "latency     TIMES".to_owned(),
        _ if label("requests/s") => "requests/s  RATES".to_owned(),
        _ if line.starts_with("20") && line.contains('Z') => line.split_once("Z ").map_or(line, |(_, rest)| rest).to_owned(),
        _ => line.to_owned(),
    }
}

#[test]
fn help() {
    let bench = CliFixture::new();
    let help = |args: &[&str]| bench.call(args).run().stdout;
    shown("help", &help(&["--help"]));
    for command in ["import", "status", "probe", "check", "audit", "verify", "sync", "state", "sandbox", "usersig", "completions", "man"] {
        shown(&format!("help_{command}"), &help(&[command, "--help"]));
    }
}

#[test]
fn exit_messages_of_runs() {
    let bench = CliFixture::new();
    bench.write("users.csv", "UserID,Nick\nada,Ada\nbad,Bad\n xy,Space\nbob,Bob\n");
    let server = Server::new(|request| if request.user_id == "bad" { code(70402) } else { imported() });
    let import = |flags: &[&str]| {
        let call = bench.quiet_import_into("users.csv", &server.endpoint()).args(&["--no-progress"]).args(flags);
        ending(&call.against(&server).run(), server.port())
    };
    shown("end_limit", &import(&["--limit", "1"]));
    shown("end_resumed", &import(&[]));
    shown("end_repeated", &import(&[]));
    shown("error_usage", &import(&["--restart", "--rate", "x"]));
    bench.write("users.csv", "UserID\nada\n");
    let aside = import(&[]);
    let stamp = aside.find("names with ").map(|at| aside[at + 11..].lines().next().unwrap().to_owned()).unwrap_or_default();
    shown("end_all_imported", &aside.replace(&stamp, "STAMP"));
}

#[test]
fn errors() {
    let bench = CliFixture::with_users(3);
    let revoked = Server::new(|_| code(70403));
    let refused = bench.quiet_import_into("users.csv", &revoked.endpoint()).args(&["--no-progress", "--in-flight", "1"]).run();
    shown("error_refused", &ending(&refused, revoked.port()));
    let other = Server::new(|_| imported());
    let target = bench.quiet_import_into("users.csv", &other.endpoint()).run();
    shown("error_other_target", &ending(&target, revoked.port()).replace(&other.port().to_string(), "OTHER"));
    bench.write("users.csv", "UserID,Nick\nuser1,\"Nick 1\n");
    let quote = bench.quiet_import_into("users.csv", &revoked.endpoint()).args(&["--restart"]).run();
    shown("error_open_quote", &ending(&quote, revoked.port()));
    shown("error_no_column", &{
        bench.write("users.csv", "uid;Nick\nuser1;Nick 1\n");
        ending(&bench.quiet_import_into("users.csv", &revoked.endpoint()).args(&["--restart"]).run(), revoked.port())
    });
}
