//! `chatlift probe --write`: what the documentation leaves open is found out in this app, and nothing is left that it need not leave.

use std::process::{Command, Stdio};

use chatlift::domain::tag::Tag;
use chatlift::sandbox::{
    BatchProfiles, CustomFields, Deleting, KnownAccounts, OmittedFields, Sandbox, SandboxSettings, UnknownProfiles, UserIdCase,
    UserIdSpaces,
};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::tools::skipped;
use crate::support::{Call, CliFixture, KEY, Run, SDKAPPID, eventually};

fn settings() -> SandboxSettings {
    let custom_fields = CustomFields::These(vec!["Vip".to_owned()]);
    SandboxSettings { custom_fields, call_log_kept: 1_000, ..SandboxSettings::with_key(KEY.into()) }
}

fn with_fault(fault: &str) -> SandboxSettings {
    SandboxSettings { faults: vec![fault.parse().unwrap()], ..settings() }
}

fn sandbox(settings: SandboxSettings) -> Sandbox {
    Sandbox::start(settings).unwrap()
}

fn probe<'a>(bench: &'a CliFixture, sandbox: &Sandbox, id: &str) -> Call<'a> {
    let key = bench.key();
    let call = bench.call(&["probe", "--write", id, "--endpoint", &sandbox.endpoint(), "--sdkappid", SDKAPPID]);
    call.args(&["--secret-key-file", key.to_str().unwrap()])
}

fn found(run: &Run) -> Value {
    let json: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {}", run.stdout));
    json["write"].clone()
}

/// Question by question, the answer.
fn answers(write: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = |question: &Value| {
        let tag = question["tag"].as_str().map(|tag| format!(" {tag}")).unwrap_or_default();
        format!("{}{tag}", text(&question["question"]))
    };
    write["questions"].as_array().unwrap().iter().map(|question| (name(question), text(&question["answer"]))).collect()
}

fn ids(sandbox: &Sandbox) -> Vec<String> {
    sandbox.accounts().into_iter().map(|(id, _)| id).collect()
}

/// The answers of the sandbox, which does what chatlift takes for granted.
const USUAL: [(&str, &str); 9] = [
    ("single_import_updates_nickname", "yes"),
    ("single_import_keeps_omitted_field", "yes"),
    ("batch_updates_nickname", "yes"),
    ("batch_keeps_omitted_field", "yes"),
    ("case_differs", "yes"),
    ("space_inside_taken", "no"),
    ("space_before_taken", "no"),
    ("space_behind_taken", "no"),
    ("deletion_on", "not_asked"),
];

#[test]
fn it_finds_out_how_this_app_does_what_is_left_open() {
    let check = |settings: SandboxSettings, differing: &[(&str, &str)], left: &[&str]| {
        let bench = CliFixture::new();
        let sandbox = sandbox(settings);
        let run = probe(&bench, &sandbox, "probe-a1").args(&["--yes", "--json"]).run().exits(0);
        let write = found(&run);
        let expected = USUAL.map(|(question, answer)| {
            let other = differing.iter().find(|(differing, _)| *differing == question);
            (question.to_owned(), other.map_or(answer, |(_, other)| other).to_owned())
        });
        assert_eq!(answers(&write), expected, "{write}");
        assert_eq!((write["left_behind"].clone(), write["id"].clone()), (json!(left), json!("probe-a1")));
        let sandbox_audit = sandbox.audit();
        // One of the requests is the check of the identifier.
        assert_eq!((sandbox_audit.violations, sandbox_audit.calls - 1), (0, write["requests"].as_u64().unwrap()));
        assert!(sandbox_audit.calls < 60, "{} requests", sandbox_audit.calls);
    };
    let usual_left = ["probe-a1", "PROBE-A1"];
    check(settings(), &[], &usual_left);
    check(SandboxSettings { unknown_profiles: UnknownProfiles::Absent, ..settings() }, &[], &usual_left);
    check(
        SandboxSettings { batch_profiles: BatchProfiles::Dropped, ..settings() },
        &[("batch_updates_nickname", "no"), ("batch_keeps_omitted_field", "unknown")],
        &usual_left,
    );
    check(
        SandboxSettings { known_accounts: KnownAccounts::Unchanged, ..settings() },
        &[("single_import_updates_nickname", "no"), ("single_import_keeps_omitted_field", "unknown")],
        &usual_left,
    );
    check(
        SandboxSettings { omitted_fields: OmittedFields::Cleared, ..settings() },
        &[("single_import_keeps_omitted_field", "no"), ("batch_keeps_omitted_field", "no")],
        &usual_left,
    );
    let mut ignoring = settings();
    ignoring.user_ids.case = UserIdCase::Ignored;
    check(ignoring, &[("case_differs", "no")], &["probe-a1"]);
    let mut taking = settings();
    taking.user_ids.spaces = UserIdSpaces::Taken;
    let all_spaces = [("space_inside_taken", "yes"), ("space_before_taken", "yes"), ("space_behind_taken", "yes")];
    check(taking, &all_spaces, &["probe-a1", "PROBE-A1", "p robe-a1", " probe-a1", "probe-a1 "]);
    let mut cutting = settings();
    cutting.user_ids.spaces = UserIdSpaces::CutOff;
    cutting.user_ids.case = UserIdCase::Ignored;
    check(cutting, &[("case_differs", "no"), ("space_inside_taken", "yes")], &["probe-a1", "p robe-a1"]);
}

/// Where an account is asked for by the exact text and yet is the same, the nickname tells.
#[test]
fn an_id_without_letters_or_room_is_asked_less() {
    let bench = CliFixture::new();
    let sandbox = sandbox(settings());
    let write = found(&probe(&bench, &sandbox, &"7".repeat(32)).args(&["--yes", "--json"]).run().exits(0));
    let not_asked = |question: &str| answers(&write).contains(&(question.to_owned(), "not_asked".to_owned()));
    assert!(["case_differs", "space_inside_taken", "space_before_taken", "space_behind_taken"].into_iter().all(not_asked), "{write}");
}

#[test]
fn the_tags_that_are_named_are_looked_for() {
    let bench = CliFixture::new();
    let sandbox = sandbox(settings());
    bench.write("chatlift.toml", "[profile]\nBirthDay = \"born\"\n");
    let tags = ["--profile", "Gender", "--profile", "Custom.Vip=vip", "--profile", "Tag_Profile_Custom_No", "--config", "chatlift.toml"];
    let run = probe(&bench, &sandbox, "probe-b1").args(&["--yes", "--json"]).args(&tags).run().exits(0);
    let tags: Vec<_> = answers(&found(&run)).into_iter().filter(|(name, _)| name.starts_with("tag_known")).collect();
    let expected = [("Gender", "yes"), ("Custom.Vip", "yes"), ("Custom.No", "no"), ("BirthDay", "yes")];
    let mut expected = expected.map(|(tag, answer)| (format!("tag_known {tag}"), answer.to_owned())).to_vec();
    let mut tags = tags;
    tags.sort();
    expected.sort();
    assert_eq!(tags, expected);
    assert!(run.stderr.contains("After a Profile Is Updated"), "{}", run.stderr);
    let standard: Vec<String> = Tag::STANDARD.iter().map(|tag| format!("--profile={tag}")).collect();
    let standard: Vec<&str> = standard.iter().map(String::as_str).collect();
    let write = found(&probe(&bench, &sandbox, "probe-b2").args(&["--yes", "--json"]).args(&standard).run().exits(0));
    let known = answers(&write).iter().filter(|(name, answer)| name.starts_with("tag_known") && answer == "yes").count();
    assert_eq!(known, Tag::STANDARD.len(), "{write}");
    let run = bench.call(&["probe", "--profile", "Nope", "--write", "x", "--yes"]).run();
    assert_eq!(run.code, Some(2), "{}", run.stderr);
}

#[test]
fn with_delete_it_leaves_nothing_behind_unless_deleting_is_off() {
    let bench = CliFixture::new();
    let on = sandbox(settings());
    let run = probe(&bench, &on, "probe-c1").args(&["--yes", "--delete"]).run().exits(0);
    assert!(run.stdout.contains("nothing is left behind"), "{}", run.stdout);
    assert_eq!(ids(&on), Vec::<String>::new());
    assert!(run.stderr.contains("three months"), "{}", run.stderr);
    let off = sandbox(SandboxSettings { deleting: Deleting::SwitchedOff, ..settings() });
    let write = found(&probe(&bench, &off, "probe-c1").args(&["--yes", "--delete", "--json"]).run().exits(0));
    assert!(answers(&write).contains(&("deletion_on".to_owned(), "no".to_owned())), "{write}");
    assert_eq!(ids(&off), ["PROBE-C1", "probe-c1"]);
    assert_eq!(write["left_behind"], json!(["probe-c1", "PROBE-C1"]));
}

#[test]
fn an_account_that_exists_is_never_touched() {
    for existing in ["alice", "ALICE"] {
        let bench = CliFixture::new();
        let sandbox = sandbox(settings());
        bench.write("users.csv", format!("UserID,Nick\n{existing},Alice\n"));
        bench.import_into("users.csv", &sandbox.endpoint()).run().exits(0);
        let before = sandbox.accounts();
        let run = probe(&bench, &sandbox, "alice").args(&["--yes", "--delete"]).run().exits(2);
        run.because(&format!("\"{existing}\" has an account already; nothing is written")).hints("that does not exist");
        assert_eq!(sandbox.accounts(), before);
    }
}

#[test]
fn without_a_terminal_it_asks_for_a_flag_before_anything_else() {
    let bench = CliFixture::new();
    let sandbox = sandbox(settings());
    let run = probe(&bench, &sandbox, "probe-d1").run().exits(2).because("no terminal");
    assert!(run.stderr.contains("hint: add --yes"), "{}", run.stderr);
    probe(&bench, &sandbox, "@TIM#x").args(&["--yes"]).run().exits(2).because("--write").hints("letters");
    assert_eq!(sandbox.audit().calls, 0);
}

/// What is left must be what is told.
fn stops(fault: &str, flags: &[&str], expected: (i32, &str), left: &[&str]) {
    let bench = CliFixture::new();
    let sandbox = sandbox(with_fault(fault));
    let run = probe(&bench, &sandbox, "probe-e1").args(&["--yes"]).args(flags).run().exits(expected.0).because(expected.1);
    assert_eq!(ids(&sandbox), left, "{fault}: {}", run.stdout);
    for id in left {
        assert!(run.stdout.lines().any(|line| line.starts_with("left behind") && line.contains(id)), "{}", run.stdout);
    }
}

#[test]
fn what_stops_it_has_its_exit_code_and_what_is_left_is_told() {
    stops("code=70403,api=account_import", &[], (5, "not an administrator"), &[]);
    stops("code=70399,api=account_import", &[], (2, "70399"), &[]);
    stops("code=70398,api=account_import,after=1", &[], (4, "limit of accounts"), &["probe-e1"]);
}

#[test]
fn an_outage_in_the_midst_ends_it_and_what_was_made_is_still_deleted() {
    stops("http=502,api=portrait_get", &["--delete"], (4, "HTTP 502"), &[]);
}

#[test]
fn a_service_that_is_called_too_fast_is_asked_a_few_times() {
    stops("whole=60007,api=multiaccount_import", &[], (4, "too fast"), &["probe-e1"]);
}

#[test]
fn an_error_that_passes_changes_no_answer() {
    let bench = CliFixture::new();
    let passing = sandbox(with_fault("http=502,api=account_import,count=1"));
    let write = found(&probe(&bench, &passing, "probe-e2").args(&["--yes", "--json"]).run().exits(0));
    assert_eq!(answers(&write).iter().filter(|(_, answer)| answer == "unknown").count(), 0, "{write}");
}

#[test]
fn an_answer_that_never_comes_is_waited_for_with_a_bound() {
    let bench = CliFixture::new();
    let sandbox = sandbox(with_fault("stall,api=portrait_get"));
    let run = probe(&bench, &sandbox, "probe-f1").args(&["--yes", "--timeout", "0.1"]).run().exits(4).because("no valid answer (time-out)");
    assert!(run.stdout.contains("left behind, as accounts of the app: \"probe-f1\""), "{}", run.stdout);
}

#[test]
fn a_signal_ends_the_questions_and_what_was_made_is_deleted() {
    let bench = CliFixture::new();
    let sandbox = sandbox(SandboxSettings { latency: std::time::Duration::from_millis(30), ..settings() });
    let running = probe(&bench, &sandbox, "probe-g1").args(&["--yes", "--delete"]).start();
    eventually("an account", || !sandbox.accounts().is_empty());
    running.signal(Signal::INT);
    let run = running.wait().exits(4).because("a signal came");
    assert!(run.stderr.contains("another signal (Ctrl-C) ends it at once"), "{}", run.stderr);
    assert_eq!(ids(&sandbox), Vec::<String>::new(), "{}", run.stdout);
}

#[test]
fn a_json_file_is_written_beside_the_lines_and_the_old_form_stays() {
    let bench = CliFixture::new();
    let sandbox = sandbox(settings());
    let run = probe(&bench, &sandbox, "probe-h1").args(&["--yes", "--json", "probe.json"]).run().exits(0);
    assert!(run.stdout.contains("UserIDs in upper and lower case are two accounts") && run.stdout.starts_with('✓'), "{}", run.stdout);
    let json: Value = serde_json::from_str(&bench.read("probe.json")).unwrap();
    assert_eq!((&json["exit_code"], &json["write"]["id"]), (&json!(0), &json!("probe-h1")));
    assert_eq!(bench.mode("probe.json"), 0o600);
    let plain = bench.call(&["probe", "--sandbox", "--json"]).run().exits(0);
    let json: Value = serde_json::from_str(&plain.stdout).unwrap();
    assert!(json.get("write").is_none() && json["checks"].is_array());
    bench.call(&["probe", "--sandbox", "--json", "nowhere/probe.json"]).run().exits(2).because("nowhere").hints("--json");
}

/// What cannot be written is known before an account is made, and nobody's file is replaced.
#[test]
fn a_json_file_that_is_somebodys_is_refused_before_the_first_request() {
    let bench = CliFixture::new();
    let sandbox = sandbox(settings());
    let key = bench.key();
    bench.write("users.csv", "UserID\nalice\n");
    bench.write("empty.json", "");
    let before = bench.read("users.csv");
    for file in ["users.csv", "nowhere/probe.json", key.to_str().unwrap()] {
        probe(&bench, &sandbox, "probe-k1").args(&["--yes", "--json", file]).run().exits(2).hints("--json");
    }
    assert_eq!((sandbox.audit().calls, bench.read("users.csv")), (0, before));
    assert_eq!(std::fs::read_to_string(&key).unwrap().trim(), KEY);
    for (id, file) in [("probe-k2", "empty.json"), ("probe-k3", "empty.json")] {
        probe(&bench, &sandbox, id).args(&["--yes", "--json", file]).run().exits(0);
    }
}

#[test]
fn an_account_that_was_perhaps_made_is_told_as_such_and_another_id_is_asked_for() {
    let bench = CliFixture::new();
    let lost = sandbox(with_fault("stall,api=account_import"));
    let run = probe(&bench, &lost, "probe-l1").args(&["--yes", "--timeout", "0.1"]).run().exits(4).hints("probe again with another UserID");
    assert!(run.stdout.contains("perhaps left behind, for an answer got lost: \"probe-l1\""), "{}", run.stdout);
    assert!(!run.stderr.contains("again in a minute") && !run.stderr.contains("same command"), "{}", run.stderr);
    let limited = sandbox(with_fault("code=70398,api=account_import,after=1"));
    let run = probe(&bench, &limited, "probe-l2").args(&["--yes"]).run().exits(4).hints("probe again with another UserID");
    assert!(!run.stderr.contains("same command"), "{}", run.stderr);
}

#[test]
fn what_the_service_says_to_a_deletion_is_told() {
    let bench = CliFixture::new();
    let refusing = sandbox(with_fault("code=70009,api=account_delete"));
    let run = probe(&bench, &refusing, "probe-m1").args(&["--yes", "--delete"]).run();
    let told = run.stdout.lines().find(|line| line.contains("deleting accounts")).unwrap_or_default();
    assert!(told.contains("70009") && run.stdout.contains("\nleft behind"), "{}", run.stdout);
    let off = sandbox(SandboxSettings { deleting: Deleting::SwitchedOff, ..settings() });
    probe(&bench, &off, "probe-m2").args(&["--yes", "--delete"]).run().exits(0).hints("switch deletion on in the console first");
}

/// On a terminal it lists the names and asks.
#[test]
fn on_a_terminal_it_asks_first() {
    let bench = CliFixture::new();
    let sandbox = sandbox(settings());
    let key = bench.key();
    let ask = |answer: &str| {
        let command = format!(
            "{} probe --write probe-i1 --endpoint {} --sdkappid {SDKAPPID} --secret-key-file {}",
            env!("CARGO_BIN_EXE_chatlift"),
            sandbox.endpoint(),
            key.display()
        );
        let mut script = Command::new("script");
        script.args(["-qec", &command, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = script.spawn().ok()?;
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), answer.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        Some((output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
    };
    let Some((code, said)) = ask("n\n") else { return skipped("probe --write on a terminal", "script is not installed") };
    assert_eq!(code, Some(2), "{said}");
    let names = r#""probe-i1", "PROBE-I1", "p robe-i1", " probe-i1", "probe-i1 ""#;
    assert!(said.contains(names) && said.contains("go on? [y/N]") && said.contains("nothing is written"), "{said}");
    assert_eq!(sandbox.audit().calls, 0);
    let (code, said) = ask("y\n").unwrap();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(ids(&sandbox), ["PROBE-I1", "probe-i1"]);
}

#[test]
fn it_says_first_that_it_writes_into_the_real_service() {
    let bench = CliFixture::new();
    let key = bench.key();
    let call = bench.call(&["probe", "--write", "probe-j1", "--yes", "--endpoint", "https://no-such-host.invalid", "--sdkappid", SDKAPPID]);
    let run = call.args(&["--secret-key-file", key.to_str().unwrap()]).run().exits(4);
    let first = run.stderr.lines().next().unwrap_or_default();
    assert!(first.contains("this goes to the real service: app 1400000000 at no-such-host.invalid"), "{first}");
}

#[test]
fn it_takes_no_name_that_may_be_the_administrators() {
    let bench = CliFixture::new();
    for id in ["administrator", "ADMINISTRATOR", "Administrator"] {
        let sandbox = sandbox(settings());
        let before = ids(&sandbox);
        let run = probe(&bench, &sandbox, id).args(&["--yes", "--delete"]).run();
        run.exits(2).because("the administrator as which requests are made").hints("--write chatlift-probe-1");
        assert_eq!((sandbox.audit().calls, ids(&sandbox)), (0, before), "{id}");
    }
    let sandbox = sandbox(settings());
    let run = probe(&bench, &sandbox, "probe").args(&["--yes", "--identifier", "PROBE"]).run();
    run.exits(2).because("may be");
    assert_eq!(sandbox.audit().calls, 0);
}
