//! What a state remembers between the processes of a run: what was announced, what is in doubt and about which field, what a look at the
//! service has found meanwhile.

use std::time::Duration;

use chatlift::sandbox::{Files, Sandbox, SandboxSettings};
use rustix::process::Signal;

use super::kept::kept;
use super::night::{settings, sync};
use super::{connection, held};
use crate::support::ports::{is_free, unused_port};
use crate::support::server::{Server, code, imported};
use crate::support::{Call, CliFixture, Run, eventually, users};

/// A stand-in without limits, and a folder.
fn places() -> (CliFixture, Sandbox) {
    (CliFixture::new(), Sandbox::start(settings(&[])).unwrap())
}

fn verify<'a>(bench: &'a CliFixture, sandbox: &Sandbox) -> Call<'a> {
    let call = bench.call(&["verify", "users.csv", "--profiles", "--state", "users.state", "--rate", "0"]);
    call.args(&connection(bench, &sandbox.endpoint()).each_ref().map(String::as_str))
}

fn nick(sandbox: &Sandbox, id: &str) -> String {
    sandbox.account(id).and_then(|account| account.nick).unwrap_or_default().into()
}

fn in_doubt(bench: &CliFixture) -> Vec<String> {
    kept(bench).in_doubt.into_iter().collect()
}

#[test]
fn what_a_killed_process_has_announced_no_limit_takes_back() {
    let server = Server::new(|_| imported().after(Duration::from_millis(20)));
    let bench = CliFixture::with_users(300);
    super::sync(&bench, &server).run().exits(0);
    bench.write("users.csv", users(300).replace("Nick ", "Name "));
    let all = ["--max-update", "100%", "--in-flight", "64"];
    let running = super::sync(&bench, &server).args(&all).start();
    eventually("some are sent", || server.calls() > 420);
    running.signal(Signal::KILL);
    assert_eq!(running.wait().signal, Some(9));
    super::sync(&bench, &server).args(&all).args(&["--limit", "1"]).run().exits(0);
    bench.write("users.csv", users(300));
    super::sync(&bench, &server).args(&all).run().exits(0);
    let wrong: Vec<u64> = (1..=300).filter(|row| server.nick(&format!("user{row}")) != Some(format!("Nick {row}"))).collect();
    assert_eq!((wrong, in_doubt(&bench)), (Vec::new(), Vec::new()));
}

#[test]
fn a_call_that_did_not_carry_a_cell_leaves_the_doubt_about_it() {
    // What is lost has landed.
    let server = Server::new(|request| if request.nick.as_deref() == Some("lost") { code(70169).with_effect() } else { imported() });
    let bench = CliFixture::new();
    let nights = std::cell::Cell::new(0);
    let night = |file: &str| -> Run {
        nights.set(nights.get() + 1);
        // Somebody new each time shows that the service is well.
        bench.write("users.csv", format!("UserID,Nick,FaceUrl\n{file}\nnew{},n,\n", nights.get()));
        super::sync(&bench, &server).args(&["--max-attempts", "1"]).run()
    };
    night("a,A,https://f/1").exits(0);
    night("a,lost,https://f/2").exits(3);
    // This call says nothing about the face: the service holds 2, the state knows 1.
    night("a,A,").exits(0).because("1 updated");
    assert_eq!(in_doubt(&bench), ["a"]);
    night("a,A,").exits(0).because("1 updated");
    night("a,A,https://f/1").exits(0).because("1 updated");
    assert_eq!(in_doubt(&bench).len(), 0);
    night("a,A,https://f/1").exits(0).because("1 unchanged");
}

#[test]
fn a_look_at_the_service_leaves_what_is_still_to_be_sent() {
    let (bench, sandbox) = places();
    bench.write("users.csv", users(300));
    sync(&bench, &sandbox.endpoint(), &["--limit", "10"]).run().exits(0).because("290 remain");
    let run = verify(&bench, &sandbox).run();
    assert!(run.code == Some(3) && run.stderr.contains("290 missing"), "{}", run.stderr);
    let run = sync(&bench, &sandbox.endpoint(), &[]).run().exits(0).because("300 created, 0 updated");
    assert_eq!((run.rows.len(), held(&bench).len(), in_doubt(&bench).len()), (300, 300, 0));
    sync(&bench, &sandbox.endpoint(), &[]).run().exits(0).because("300 unchanged");
}

#[test]
fn a_look_knows_better_than_what_had_settled_before_it() {
    let (bench, port) = (CliFixture::new(), unused_port());
    let mut sandbox = Sandbox::start(SandboxSettings { port, ..settings(&[]) }).unwrap();
    bench.write("users.csv", users(6));
    sync(&bench, &sandbox.endpoint(), &["--limit", "4"]).run().exits(0);
    // Somebody else deletes one account and renames another, of those that the unfinished run has created.
    sandbox.stop().unwrap();
    drop(sandbox);
    eventually("the port is free", || is_free(port));
    let accounts = bench.outside("held.csv");
    std::fs::write(&accounts, "UserID,Nick,FaceUrl\nuser1,Nick 1,\nuser2,somebody's,\nuser4,Nick 4,\n").unwrap();
    let files = Files::open(Some(&accounts), None).unwrap();
    let sandbox = Sandbox::start_with(SandboxSettings { port, ..settings(&[]) }, files).unwrap();
    verify(&bench, &sandbox).run();
    sync(&bench, &sandbox.endpoint(), &[]).run().exits(0);
    assert_eq!(
        (held(&bench), in_doubt(&bench)),
        (["user1", "user2", "user4", "user5", "user6"].map(str::to_owned).to_vec(), vec!["user2".to_owned()])
    );
    sync(&bench, &sandbox.endpoint(), &[]).run().exits(0).because("1 created, 1 updated, 4 unchanged");
    assert_eq!((nick(&sandbox, "user2"), nick(&sandbox, "user3")), ("Nick 2".to_owned(), "Nick 3".to_owned()));
}
