//! `--on-end`: a program that is started at every end, with the summary and without secrets.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::support::server::{Server, code, imported};
use crate::support::tools::skipped;
use crate::support::{Call, CliFixture, KEY, eventually, users};

/// Keeps what it gets: the summary and the environment.
const KEEPER: &str = "/bin/sh -c 'cat > got.json; env > got.env'";

fn keeping(call: Call<'_>) -> Call<'_> {
    call.args(&["--on-end", KEEPER]).at_any_rate()
}

/// What the program got: the summary, and a variable.
fn got(bench: &CliFixture, name: &str) -> (serde_json::Value, String) {
    let (summary, environment) = (bench.read("got.json"), bench.read("got.env"));
    let value = environment.lines().find_map(|line| line.strip_prefix(&format!("{name}="))).unwrap_or("nothing").to_owned();
    for name in ["got.json", "got.env"] {
        fs::remove_file(bench.path(name)).unwrap();
    }
    (serde_json::from_str(&summary).unwrap(), value)
}

#[test]
fn every_end_calls_it_with_the_summary_and_without_secrets() {
    let bench = CliFixture::with_users(3);
    let server = Server::new(|request| if request.user_id == "user2" { code(70402) } else { imported() });
    let refused = keeping(bench.import(&server)).args(&["--ca-file", "missing.pem"]).run().exits(2);
    let (summary, outcome) = got(&bench, "CHATLIFT_OUTCOME");
    assert_eq!((summary, outcome.as_str()), (refused.summary, "needs_fixing"));
    keeping(bench.import(&server)).args(&["--dry-run"]).run().exits(0);
    assert_eq!(got(&bench, "CHATLIFT_COMMAND").1, "import");
    // The search for secrets looks into the file to which the program has written its environment.
    let (key, usersig) = (KEY, "http://me:hunter2@127.0.0.1:1");
    let call = bench.call(&["import", "users.csv", "--sandbox", "--summary", "summary.json"]);
    let run = keeping(call).env("CHATLIFT_SECRET_KEY", key).env("CHATLIFT_PROXY", usersig).run().exits(0);
    let environment = bench.read("got.env");
    for secret in ["CHATLIFT_SECRET_KEY", "CHATLIFT_USERSIG", "CHATLIFT_PROXY", "hunter2", KEY] {
        assert!(!environment.contains(secret), "{secret}: {environment}");
    }
    assert!(environment.contains("CHATLIFT_REPORT=\n"), "{environment}");
    let (summary, code) = got(&bench, "CHATLIFT_EXIT_CODE");
    assert_eq!((summary, code.as_str()), (run.summary, "0"));
    // A rehearsal leaves the quota alone, and its password is passed on to nobody.
    let call = bench.call(&["import", "users.csv", "--sandbox"]).env("CHATLIFT_QUOTA", "redis://:hunter3@127.0.0.1:1/0");
    keeping(call).run().exits(0);
    let environment = bench.read("got.env");
    assert!(!environment.contains("CHATLIFT_QUOTA") && !environment.contains("hunter3"), "{environment}");
}

#[test]
fn a_signal_before_the_first_request_calls_it_too() {
    let bench = CliFixture::new();
    let server = Server::new(|_| imported());
    let call = keeping(bench.import_of("-", &server).stem("out")).args(&["--results", "out.results.csv"]);
    let pipe = bench.outside("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0).unwrap();
    let mut writer = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    writer.write_all(users(5).as_bytes()).unwrap();
    let running = call.through("/bin/sh", &["-c", &format!("exec \"$0\" \"$@\" < {}", pipe.display())]).start();
    eventually("what came in", || bench.names().contains("out.input.csv.new"));
    running.signal(Signal::TERM);
    let run = running.wait().exits(4);
    let (summary, outcome) = got(&bench, "CHATLIFT_OUTCOME");
    assert_eq!((summary, outcome.as_str()), (run.summary, "stopped"));
}

#[test]
fn it_runs_when_the_locks_are_released_and_is_called_by_a_process_that_found_another_one_at_work() {
    let bench = CliFixture::with_users(30);
    let server = Server::new(|_| imported().after(Duration::from_millis(20)));
    let running = bench.import(&server).at_any_rate().args(&["--in-flight", "1"]).start();
    eventually("calls", || server.calls() >= 1);
    keeping(bench.import(&server)).run().exits(4).because("another chatlift");
    assert_eq!(got(&bench, "CHATLIFT_OUTCOME").1, "busy");
    running.signal(Signal::TERM);
    running.wait().exits(4);
    let again = format!(
        "{} import users.csv --endpoint {} --sdkappid 1400000000 --secret-key-file {} --rate 0 --quiet",
        env!("CARGO_BIN_EXE_chatlift"),
        server.endpoint(),
        bench.key().display()
    );
    let on_end = format!("/bin/sh -c '{again} && touch finished'");
    let run = bench.import(&server).at_any_rate().args(&["--limit", "2", "--on-end", &on_end]).run().exits(0);
    assert!(bench.path("finished").exists(), "{}", run.stderr);
}

#[test]
fn its_failure_is_a_warning_and_changes_no_exit_code() {
    let bench = CliFixture::with_users(1);
    let import = |on_end: &str| bench.call(&["import", "users.csv", "--sandbox", "--on-end", on_end]).run();
    for (on_end, words) in [("/bin/false", "/bin/false ended with exit status: 1"), ("/missing/program", "could not be run")] {
        let run = import(on_end).exits(0);
        let warning = run.stderr.lines().find(|line| line.starts_with("warning: --on-end")).unwrap_or_default();
        assert!(warning.contains(words), "{}", run.stderr);
    }
    let silent = import("/bin/true").exits(0);
    assert!(!silent.stderr.contains("warning"), "{}", silent.stderr);
    let talks = import("/bin/echo out").exits(0);
    assert!(talks.stdout.is_empty() && talks.stderr.contains("out\n"), "its output is for people: {talks:?}");
    let open = import("say 'it");
    assert_eq!(open.code, Some(2));
    assert!(open.stderr.contains("a quote in it is not closed"), "{}", open.stderr);
}

#[test]
fn a_configuration_file_that_others_can_write_names_no_program() {
    let bench = CliFixture::with_users(1);
    bench.write("c.toml", "on-end = \"/usr/bin/touch called\"\n");
    let import = |mode: u32| {
        fs::set_permissions(bench.path("c.toml"), fs::Permissions::from_mode(mode)).unwrap();
        bench.call(&["import", "users.csv", "--sandbox", "--config", "c.toml"]).run()
    };
    for mode in [0o666, 0o620, 0o602] {
        import(mode).exits(2).because("line 1: on-end starts a program").hints("chmod go-w c.toml");
        assert!(!bench.path("called").exists() && !bench.path("users.results.csv").exists());
    }
    // Whoever can write to the folder puts another file into its place.
    let folder = bench.path("");
    let in_folder = |mode: u32| {
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
        let run = import(0o644);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        run
    };
    for mode in [0o777, 0o770, 0o702] {
        in_folder(mode).exits(2).because("line 1: on-end starts a program, and others can replace this file").hints("chmod go-w .");
        assert!(!bench.path("called").exists() && !bench.path("users.results.csv").exists());
    }
    in_folder(0o1777).exits(0);
    assert!(bench.path("called").exists());
    fs::remove_file(bench.path("called")).unwrap();
    import(0o644).exits(0);
    assert!(bench.path("called").exists());
}

/// The script in the documentation that is to be saved under this name.
fn recipe(name: &str) -> String {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/OPERATING.md")).unwrap();
    let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let is_named = |block: &&str| block.starts_with("#!/bin/sh\n") && block.lines().nth(1).is_some_and(|line| line.contains(name));
    blocks.into_iter().find(is_named).unwrap_or_else(|| panic!("no block for {name}")).to_owned()
}

/// Takes one request and returns it with its body.
fn one_request(listener: TcpListener) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut text = String::new();
        let mut bytes = [0; 4096];
        let is_whole = |text: &str| {
            let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
            let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            body.len() >= length.unwrap_or(0_usize)
        };
        while !is_whole(&text) {
            let read = stream.read(&mut bytes).unwrap();
            assert!(read > 0, "{text}");
            text.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        text
    })
}

/// Whether the programs of a recipe are installed; says so if they aren't.
fn has(programs: &[&str]) -> bool {
    let missing = programs.iter().find(|program| Command::new(program).arg("--version").output().is_err());
    if let Some(program) = missing {
        skipped("a recipe for --on-end", &format!("{program} is not installed"));
    }
    missing.is_none()
}

/// Runs a command with the recipe and an argument for it; its URL stands in a file beside it. Returns the request that it sent.
fn request_of(name: &str, argument: &str, command: &[&str]) -> String {
    let bench = CliFixture::with_users(1);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let folder = bench.path("");
    bench.write("url", format!("url = \"{url}\"\n"));
    bench.write("script", recipe(name).replace("/etc/chatlift/", folder.to_str().unwrap()).replace(&format!("{name}.url"), "url"));
    fs::set_permissions(bench.path("script"), fs::Permissions::from_mode(0o700)).unwrap();
    let request = one_request(listener);
    let script = bench.path("script");
    let path = std::env::var("PATH").unwrap_or_default();
    let call = bench.call(command).args(&["--on-end", &format!("{} {argument}", script.display())]).env("PATH", path);
    let run = call.run();
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);
    request.join().unwrap()
}

#[test]
fn the_recipe_for_a_webhook_posts_how_the_run_ended() {
    if !has(&["curl", "jq"]) {
        return;
    }
    let body = |service: &str, command: &[&str]| -> serde_json::Value {
        let request = request_of("webhook", service, command);
        assert!(request.starts_with("POST /hook HTTP/1.1\r\n"), "{request}");
        serde_json::from_str(request.split("\r\n\r\n").nth(1).unwrap()).unwrap()
    };
    let refused = ["import", "missing.csv", "--sandbox"];
    let words = "chatlift import: needs_fixing (exit 2), 0 imported, 0 failed, 0 invalid";
    assert_eq!(body("slack", &refused), json!({ "text": words }));
    assert_eq!(body("wecom", &refused), json!({ "msgtype": "text", "text": { "content": words } }));
    assert_eq!(body("feishu", &refused), json!({ "msg_type": "text", "content": { "text": words } }));
    let verified = body("slack", &["verify", "users.csv", "--sandbox"]);
    assert_eq!(verified["text"], "chatlift verify: finished_with_findings (exit 3), 0 invalid, 1 missing, 0 differs");
}

#[test]
fn the_recipe_for_a_dead_mans_switch_reports_finished_runs() {
    if !has(&["curl"]) {
        return;
    }
    let request = request_of("alive", "", &["import", "users.csv", "--sandbox"]);
    assert!(request.starts_with("GET /hook HTTP/1.1\r\n"), "{request}");
}
