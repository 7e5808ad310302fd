//! Rehearsals reach nothing but the sandbox, and a run that is none says so.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::server::{Server, imported};
use crate::support::{CliFixture, KEY, SDKAPPID, eventually};

#[test]
fn a_command_runs_beside_the_sandbox_and_lends_it_its_exit_code() {
    let bench = CliFixture::with_users(3);
    let run = |command: &str| bench.call(&["sandbox", "--identifier", "the boss", "--run", command]).run();
    let import = format!("{} import users.csv --summary summary.json", env!("CARGO_BIN_EXE_chatlift"));
    let rehearsed = run(&import);
    assert_eq!(rehearsed.code, Some(0), "{}", rehearsed.stderr);
    assert_eq!(rehearsed.summary["imported"], 3);
    assert!(rehearsed.stdout.is_empty() && rehearsed.stderr.contains("3 accounts"), "{}", rehearsed.stderr);
    assert_eq!(run("exit 7").code, Some(7));
    assert_eq!(run("printf %s \"$CHATLIFT_REGION$CHATLIFT_IDENTIFIER\"").stdout, "the boss");
}

/// The fastest of some tries says it on a busy machine, too: each would wait for more than a second.
#[test]
fn a_rehearsal_waits_for_no_process_before_it() {
    let bench = CliFixture::with_users(3);
    for command in [&["import", "users.csv", "--sandbox", "--restart"][..], &["verify", "users.csv", "--sandbox"]] {
        let took = (0..5).map(|_| bench.call(command).soon_after().run().took).min().unwrap();
        assert!(took < Duration::from_secs(1), "{command:?}: {took:?}");
    }
}

/// The shell does not take the command's place here, and would leave it alone if it ended first.
#[test]
fn a_signal_to_the_sandbox_ends_the_command_beside_it_in_order() {
    let bench = CliFixture::with_users(300);
    let import = format!("{} import users.csv --rate 50 --summary summary.json; code=$?; exit $code", env!("CARGO_BIN_EXE_chatlift"));
    let running = bench.call(&["sandbox", "--run", &import]).start();
    eventually("rows", || bench.path("users.results.csv").exists());
    running.signal(Signal::TERM);
    let run = running.wait();
    assert_eq!((run.code, run.summary["exit_code"].as_i64()), (Some(4), Some(4)), "{}", run.stderr);
    let said = |words: &str| run.stderr.find(words).unwrap_or_else(|| panic!("{words}: {}", run.stderr));
    assert!(said("stopped: a signal came") < said(", 0 violations"), "the sandbox serves until the end: {}", run.stderr);
}

#[test]
fn the_environment_file_is_whole_private_and_quoted_for_the_shell() {
    let bench = CliFixture::with_users(2);
    let path = bench.outside("sandbox.env");
    let env_file = path.to_str().unwrap();
    let running = bench.call(&["sandbox", "--identifier", "it's $me", "--env-file", env_file]).start();
    eventually("the environment file", || path.exists());
    let command =
        format!(". {env_file}; printf '%s\\n' \"$CHATLIFT_IDENTIFIER\"; exec {} import users.csv", env!("CARGO_BIN_EXE_chatlift"));
    let import = bench.call(&[]).through("/bin/sh", &["-c", &command]).run().exits(0).imports_all(2);
    assert!(import.stdout.starts_with("it's $me\n"), "{}", import.stdout);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    running.signal(Signal::TERM);
    let served = running.wait();
    assert_eq!(served.code, Some(0), "{}", served.stderr);
}

#[test]
fn an_environment_file_that_is_somebodys_stays_and_a_busy_port_is_the_callers_to_change() {
    let bench = CliFixture::new();
    let key = bench.key();
    let key = key.to_str().unwrap();
    let of_app = "export CHATLIFT_ENDPOINT=https://chat.example\nexport CHATLIFT_SDKAPPID=1\nexport CHATLIFT_IDENTIFIER=a\nexport CHATLIFT_SECRET_KEY=k\n";
    bench.write("app.env", of_app);
    for flags in [&["--secret-key-file", key, "--env-file", key][..], &["--env-file", "app.env"]] {
        bench.call(&[&["sandbox", "--run", "true"], flags].concat()).run().exits(2).hints("--env-file");
    }
    assert_eq!((bench.read("app.env").as_str(), std::fs::read_to_string(key).unwrap().trim()), (of_app, KEY));
    for _ in 0..2 {
        assert_eq!(bench.call(&["sandbox", "--run", "true", "--env-file", "own.env"]).run().code, Some(0));
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    bench.call(&["sandbox", "--port", &port, "--run", "true"]).run().exits(2).because(&port).hints("--port");
    let run = bench.call(&["sandbox", "--secret-key-file", "/dev/null", "--run", "true"]).run().exits(2);
    assert!(!run.stderr.contains("chmod"), "{}", run.stderr);
}

#[test]
fn the_sandbox_answers_under_its_own_address_alone() {
    let bench = CliFixture::new();
    let path = bench.outside("sandbox.env");
    let running = bench.call(&["sandbox", "--env-file", path.to_str().unwrap()]).start();
    eventually("the environment file", || path.exists());
    let text = std::fs::read_to_string(&path).unwrap();
    let address = text.lines().find_map(|line| line.strip_prefix("export CHATLIFT_ENDPOINT=http://")).unwrap().to_owned();
    let status = |request: &str, host: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        write!(stream, "{request} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer[9..12].to_owned()
    };
    for request in ["GET /accounts", "GET /", "GET /v4/im_open_login_svc/account_import", "DELETE /accounts"] {
        let statuses = [&address, "localhost:1", "evil.example.com", "127.0.0.1.evil.example.com"].map(|host| status(request, host));
        assert_eq!(statuses, ["200", "200", "403", "403"], "{request}");
    }
    running.signal(Signal::TERM);
    running.wait();
}

#[test]
fn a_run_into_the_real_service_says_so_first() {
    let bench = CliFixture::with_users(1);
    let key = bench.key();
    let first = |command: &[&str], endpoint: &str| {
        let call = bench.call(command).args(&["users.csv", "--endpoint", endpoint, "--sdkappid", SDKAPPID, "--max-outage", "100ms"]);
        // There are fewer files than the requests in flight need, of which a warning tells.
        let run = call.args(&["--secret-key-file", key.to_str().unwrap()]).through_shell("ulimit -n 64").run();
        run.stderr.lines().next().unwrap_or_default().to_owned()
    };
    let real_host = "https://no-such-host.invalid";
    let import = ["import", "--restart"];
    let page = ["--status", "127.0.0.1:0", "--report", "report.html"];
    for command in [&import[..], &["verify"], &["sync", "--state", "s.db"]] {
        for page in [&[][..], &page] {
            let real = first(&[command, page].concat(), real_host);
            assert!(real.contains("this goes to the real service: app 1400000000 at no-such-host.invalid"), "{command:?} {page:?}: {real}");
        }
    }
    for command in [&["import", "--dry-run"][..], &["sync", "--state", "s.db", "--dry-run"]] {
        for page in [&[][..], &page] {
            let dry = first(&[command, page].concat(), real_host);
            assert!(!dry.contains("real service"), "nothing is sent: {command:?} {page:?}: {dry}");
        }
    }
    let server = Server::new(|_| imported());
    let rehearsal = first(&import, &server.endpoint());
    assert!(!rehearsal.contains("real service"), "{rehearsal}");
}

#[test]
fn rejects_that_are_not_there_mean_that_there_were_none() {
    let bench = CliFixture::with_users(1);
    bench.call(&["import", "users.csv", "--sandbox"]).run().exits(0);
    let run = bench.call(&["import", "users.rejects.csv", "--sandbox"]).run().exits(2);
    run.because("a run without rejected rows leaves no such file").hints("nothing is left to do");
}

#[test]
fn the_first_signal_says_what_another_one_does() {
    let bench = CliFixture::with_users(100);
    let server = Server::new(|_| imported().after(std::time::Duration::from_millis(20)));
    let running = bench.import(&server).at_any_rate().args(&["--in-flight", "2"]).start();
    eventually("calls", || server.calls() >= 5);
    running.signal(Signal::INT);
    let run = running.wait().exits(4);
    assert!(run.stderr.contains("another signal (Ctrl-C) ends it at once"), "{}", run.stderr);
}
