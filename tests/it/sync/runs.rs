//! From one command to the next: finished and unfinished runs, changed files, other commands, other states.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::Signal;

use super::{exported, held, state_bytes, sync, sync_of};
use crate::support::server::{Server, code, imported};
use crate::support::{CliFixture, SDKAPPID, eventually, users};

fn dated(bench: &CliFixture) -> BTreeSet<String> {
    bench.names().into_iter().filter(|name| name.contains(".20")).collect()
}

/// Six users of whom two are settled.
fn unfinished(server: &Server) -> CliFixture {
    let bench = CliFixture::with_users(6);
    sync(&bench, server).args(&["--limit", "2"]).run().exits(0).because("2 rows imported so far; 4 remain").hints("without --limit");
    bench
}

#[test]
fn a_finished_sync_never_stands_for_the_next() {
    let (bench, server) = (CliFixture::with_users(3), Server::new(|_| imported()));
    sync(&bench, &server).run().exits(0);
    let results = bench.read("users.results.csv");
    let run = sync(&bench, &server).run().exits(0);
    assert_eq!((run.rows.len(), run.summary["plan"]["unchanged"].as_u64(), server.calls()), (0, Some(3), 3));
    let aside: Vec<_> = dated(&bench).into_iter().filter(|name| name.contains("results")).collect();
    assert_eq!((aside.len(), bench.read(&aside[0])), (1, results));
    // The state may know better by now: the same file is planned against it.
    bench.call(&["state", "users.state", "forget", "user2"]).run();
    let run = sync(&bench, &server).run().exits(0);
    assert_eq!((run.rows.len(), run.rows[0].user_id.as_str(), server.calls_of("user2")), (1, "user2", 2));
}

#[test]
fn blank_lines_at_the_end_are_no_change() {
    let (server, bench) = (Server::new(|_| imported()), CliFixture::new());
    bench.write("users.csv", users(20) + "\n\n , \n");
    let first = sync(&bench, &server).run().exits(0);
    assert_eq!(first.summary["created"], 20, "{}", first.summary);
    // Whether the last row is sent or passed over.
    for text in [users(20) + "\n\n , \n", users(20).replace("Nick 20", "Other") + "\n,", users(20) + "\n"] {
        bench.write("users.csv", text);
        sync(&bench, &server).args(&["--allow", "cut"]).run().exits(0);
    }
}

#[test]
fn a_limit_makes_no_finished_run_and_the_same_command_goes_on() {
    let server = Server::new(|_| imported());
    let bench = unfinished(&server);
    let run = sync(&bench, &server).args(&["--limit", "1"]).run().exits(0).because("3 remain");
    assert_eq!((run.rows.len(), run.summary["rows"].as_u64(), run.summary["created"].as_u64()), (3, Some(6), Some(3)));
    let state = bench.call(&["state", "users.state"]).run().stdout;
    assert!(state.contains("unfinished"), "{state}");
    // The limit reaches behind the end: there is no finished run yet, and nothing is missing.
    sync(&bench, &server).args(&["--limit", "9"]).run().exits(0).because("0 remain");
    assert!(bench.call(&["state", "users.state"]).run().stdout.contains("unfinished"));
    let run = sync(&bench, &server).run().exits(0).because("6 created, 0 updated");
    assert_eq!((run.rows.len(), server.calls(), dated(&bench).len()), (6, 6, 0));
    let state = bench.call(&["state", "users.state"]).run().stdout;
    assert!(!state.contains("unfinished"), "{state}");
}

#[test]
fn the_missing_wait_for_the_end_of_the_file() {
    let (bench, server) = (CliFixture::with_users(6), Server::new(|_| imported()));
    sync(&bench, &server).run().exits(0);
    bench.write("users.csv", users(5).replace("Nick ", "Name "));
    sync(&bench, &server).args(&["--limit", "3"]).run().exits(0).because("2 remain");
    assert!(!bench.names().contains("users.missing.csv"));
    assert!(exported(&bench).iter().all(|line| line.ends_with(",0")));
    sync(&bench, &server).run().exits(0).because("1 missing");
    assert!(exported(&bench).iter().any(|line| line.starts_with("user6,") && line.ends_with(",1")));
}

#[test]
fn a_signal_stops_it_and_the_same_command_goes_on_without_the_guards() {
    let server = Server::new(|_| imported().after(Duration::from_millis(5)));
    let bench = CliFixture::with_users(120);
    sync(&bench, &server).run().exits(0);
    bench.write("users.csv", users(100).replace("Nick ", "Name "));
    let running = sync(&bench, &server).args(&["--max-update", "100", "--allow", "shrunk", "--in-flight", "2"]).start();
    eventually("some are sent", || server.calls() > 130);
    running.signal(Signal::TERM);
    let stopped = running.wait().exits(4).because("a signal came");
    let settled = stopped.rows.len();
    assert!((1..100).contains(&settled), "{settled}");
    assert_eq!((stopped.summary["rows"].as_u64(), stopped.summary["updated"].as_u64()), (Some(100), Some(settled as u64)));
    // The plan would trip a guard, but it has been judged.
    let run = sync(&bench, &server).run().exits(0).settles(100);
    assert_eq!((server.calls(), run.summary["resumed_at_row"].as_u64()), (220, Some(settled as u64)));
    assert_eq!(run.summary["plan"]["update"].as_u64(), Some(100), "the plan is the recorded one");
    assert_eq!(dated(&bench).iter().filter(|name| name.contains("results")).count(), 1, "only those of the first run");
}

#[test]
fn an_app_that_is_full_stops_it_and_the_same_command_goes_on() {
    let full = Server::new(|request| if request.number < 2 { imported() } else { code(70398) });
    let bench = CliFixture::with_users(6);
    let run = sync(&bench, &full).args(&["--in-flight", "1"]).run().exits(4).because("70398");
    assert_eq!(run.statuses(), ["created", "created"]);
    let port = full.port();
    drop(full);
    let up = Server::at_port(port, |_| imported());
    let run = sync(&bench, &up).run().exits(0).settles(6);
    assert_eq!((run.summary["created"].as_u64(), up.calls()), (Some(6), 4));
}

#[test]
fn a_changed_file_sets_the_unfinished_run_aside_plans_anew_and_judges_the_guards() {
    let server = Server::new(|_| imported());
    let (bench, plan) = (CliFixture::with_users(100), ["--plan", "plan.csv"]);
    sync(&bench, &server).run().exits(0);
    bench.write("users.csv", users(84).replace("Nick ", "Name "));
    let allowed = ["--allow", "shrunk", "--max-update", "100", "--limit", "10"];
    sync(&bench, &server).args(&allowed).run().exits(0).because("74 remain");
    let (state, before) = (state_bytes(&bench), bench.read("users.results.csv"));
    // The file changes behind what is settled.
    bench.write("users.csv", users(84).replace("Nick ", "Name ").replace("Name 84\n", "Nick 84\n"));
    let run = sync(&bench, &server).args(&plan).run().exits(6).because("guard shrunk").because("guard updates");
    assert_eq!(run.summary["plan"]["update"].as_u64(), Some(73), "what was taken is known, the last one was never sent");
    assert_eq!((state_bytes(&bench), bench.read("users.results.csv")), (state, before.clone()));
    let aside = dated(&bench);
    let run = sync(&bench, &server).args(&["--allow", "shrunk", "--max-update", "100"]).run().exits(0);
    assert_eq!((run.summary["resumed_at_row"].as_u64(), run.rows[0].number, server.calls()), (Some(0), 11, 183));
    assert_eq!(run.rows.last().map(|row| row.number), Some(83), "nothing is in doubt that a limit has left");
    let new = &dated(&bench) - &aside;
    let results: Vec<_> = new.iter().filter(|name| name.contains("results")).collect();
    assert_eq!((results.len(), bench.read(results[0])), (1, before));
    sync(&bench, &server).run().exits(0).because("84 unchanged");
}

#[test]
fn the_same_bytes_under_other_stat_fields_go_on() {
    let server = Server::new(|_| imported());
    let bench = unfinished(&server);
    std::fs::remove_file(bench.path("users.csv")).unwrap();
    bench.write("users.csv", users(6));
    let run = sync(&bench, &server).run().exits(0).settles(6);
    assert_eq!((server.calls(), run.summary["resumed_at_row"].as_u64(), dated(&bench).len()), (6, Some(2), 0));
}

#[test]
fn fields_from_other_columns_plan_anew_and_other_names_are_refused() {
    let (bench, server) = (CliFixture::new(), Server::new(|_| imported()));
    bench.write("users.csv", "UserID,Nick,Alias\na,A,x\nb,B,y\nc,C,z\n");
    sync(&bench, &server).args(&["--limit", "1"]).run().exits(0).because("2 remain");
    let before = bench.read("users.results.csv");
    let other_rejects = sync(&bench, &server).args(&["--rejects", "other.csv"]).run().exits(2);
    assert_eq!((bench.read("users.results.csv"), other_rejects.rows.len()), (before, 1));
    let run = sync(&bench, &server).args(&["--map", "Nick=Alias"]).run().exits(0);
    assert_eq!((run.rows.len(), run.summary["resumed_at_row"].as_u64(), server.nick("a").as_deref()), (3, Some(0), Some("x")));
    assert_eq!(run.summary["updated"].as_u64(), Some(1), "a was taken already");
}

#[test]
fn restart_sets_aside_and_plans_anew() {
    let server = Server::new(|_| imported());
    let bench = unfinished(&server);
    let run = sync(&bench, &server).args(&["--restart"]).run().exits(0);
    assert_eq!((run.rows.first().map(|row| row.number), server.calls(), dated(&bench).len()), (Some(3), 6, 2));
    assert_eq!(run.summary["resumed_at_row"].as_u64(), Some(0));
    let bench = unfinished(&server);
    sync(&bench, &server).args(&["--restart", "--canary", "nobody"]).run().exits(6);
}

#[test]
fn another_commands_run_is_set_aside_if_it_is_finished_and_refused_if_not() {
    let server = Server::new(|_| imported());
    let import = |bench: &CliFixture, flags: &[&str]| bench.import(&server).at_any_rate().args(flags).run();
    let bench = CliFixture::with_users(4);
    import(&bench, &["--limit", "1"]).exits(0);
    let before = bench.read("users.results.csv");
    let run = sync(&bench, &server).run().exits(2).because("an import").hints("--restart");
    assert_eq!((bench.read("users.results.csv"), run.rows.len(), bench.names().contains("users.state")), (before, 1, false));
    import(&bench, &[]).exits(0).imports_all(4);
    sync(&bench, &server).run().exits(0).because("4 created");
    assert_eq!((server.calls(), dated(&bench).len()), (8, 2));

    let bench = unfinished(&server);
    let (before, state) = (bench.read("users.results.csv"), state_bytes(&bench));
    import(&bench, &[]).exits(2).because("a sync with the state");
    assert_eq!((bench.read("users.results.csv"), state_bytes(&bench)), (before, state));
    sync(&bench, &server).run().exits(0);
    import(&bench, &[]).exits(0).imports_all(6);
    assert_eq!((server.calls(), dated(&bench).len()), (20, 2));
    let bench = CliFixture::with_users(4);
    import(&bench, &["--limit", "1"]).exits(0);
    sync(&bench, &server).args(&["--restart"]).run().exits(0).because("4 created");
}

#[test]
fn another_states_run_is_set_aside_if_it_is_finished_and_refused_if_not() {
    let server = Server::new(|_| imported());
    let bench = unfinished(&server);
    let other = || sync_of(&bench, &["users.csv", "--state", "other.state"], &server.endpoint());
    let (before, state) = (bench.read("users.results.csv"), state_bytes(&bench));
    other().run().exits(2).because("a sync with the state").hints("--results");
    assert_eq!((bench.read("users.results.csv"), state_bytes(&bench)), (before, state));
    assert!(!bench.names().contains("other.state"));
    other().args(&["--results", "other.results.csv"]).stem("other").run().exits(0).because("6 created");
    other().run().exits(2);
    sync(&bench, &server).run().exits(0);
    other().run().exits(0).because("6 unchanged");
}

#[test]
fn an_unfinished_run_that_is_read_otherwise_is_planned_anew() {
    let server = Server::new(|_| imported());
    let bench = CliFixture::new();
    bench.write("users.csv", "UserID,name\na,Ann\nb,Bob\nc,Cid\n");
    sync(&bench, &server).args(&["--limit", "1"]).run().exits(0);
    assert_eq!((server.calls(), server.nick("a")), (1, None));
    sync(&bench, &server).args(&["--map", "Nick=name"]).run().exits(0);
    let nicks = ["a", "b", "c"].map(|id| server.nick(id).unwrap_or_default());
    assert_eq!((server.calls(), nicks), (4, ["Ann", "Bob", "Cid"].map(str::to_owned)));
}

#[test]
fn one_process_at_a_time_works_on_a_state() {
    let server = Server::new(|request| if request.user_id == "user1" { imported().held() } else { imported() });
    let bench = CliFixture::with_users(3);
    std::os::unix::fs::symlink("users.state", bench.path("alias.state")).unwrap();
    let first = sync(&bench, &server).args(&["--timeout", "300"]).start();
    eventually("it is at work", || server.calls() > 0);
    let calls = server.calls();
    for state in ["users.state", "alias.state", "./users.state"] {
        let second = sync_of(&bench, &["users.csv", "--state", state, "--results", "second.csv"], &server.endpoint()).stem("second");
        second.run().exits(4).because("another chatlift is at work").hints("one process at a time");
    }
    sync(&bench, &server).run().exits(4).because("another chatlift is at work");
    bench.import(&server).args(&["--results", "third.csv", "--state", "users.state"]).run().exits(4).because("users.state");
    let forget = bench.call(&["state", "users.state", "forget", "user1"]).run();
    assert_eq!(forget.code, Some(4), "{}", forget.stderr);
    assert!(server.calls() <= calls + 2);
    // Looking is free.
    assert_eq!(bench.call(&["state", "users.state"]).run().code, Some(0));
    sync_of(&bench, &["users.csv", "--state", "users.state", "--dry-run", "--results", "fourth.csv"], &server.endpoint()).run().exits(0);
    server.lets_go();
    first.wait().exits(0).settles(3);
}

#[test]
fn a_row_that_was_refused_for_its_own_fault_leaves_no_doubt() {
    let server = Server::new(|request| if request.nick.as_deref() == Some("bad") { code(70402) } else { imported() });
    let bench = CliFixture::new();
    bench.write("users.csv", "UserID,Nick\na,A\nb,B\n");
    sync(&bench, &server).run().exits(0);
    bench.write("users.csv", "UserID,Nick\na,bad\nb,B\nnew,bad\n");
    sync(&bench, &server).run().exits(3);
    assert_eq!(held(&bench), ["a", "b"], "nobody was created");
    sync(&bench, &server).run().exits(3).because("2 failed");
    bench.write("users.csv", "UserID,Nick\na,A\nb,B\n");
    sync(&bench, &server).run().exits(0).because("2 unchanged");
    assert_eq!((server.calls_of("a"), server.calls_of("b"), server.calls_of("new")), (3, 1, 2));
}

#[test]
fn a_row_that_failed_otherwise_is_in_doubt_and_sent_again_although_the_value_went_back() {
    // The call lands, but nobody hears of it.
    let server = Server::new(|request| if request.nick.as_deref() == Some("lost") { code(12345).with_effect() } else { imported() });
    let bench = CliFixture::new();
    bench.write("users.csv", "UserID,Nick\na,A\nb,B\n");
    sync(&bench, &server).run().exits(0);
    bench.write("users.csv", "UserID,Nick\na,lost\nb,B\nnew,lost\nwitness,W\n");
    // The witness shows that the service is well.
    sync(&bench, &server).args(&["--max-attempts", "2"]).run().exits(3);
    assert_eq!((server.nick("a").as_deref(), held(&bench).len()), (Some("lost"), 4));
    let state = bench.call(&["state", "users.state"]).run().stdout;
    assert!(state.contains("in doubt    2"), "{state}");
    bench.write("users.csv", "UserID,Nick\na,A\nb,B\nwitness,W\n");
    let run = sync(&bench, &server).args(&["--plan", "plan.csv"]).run().exits(0).because("0 created, 1 updated, 2 unchanged, 1 missing");
    assert!(bench.read("plan.csv").contains("update,1,2,a,in doubt"), "{}", bench.read("plan.csv"));
    assert_eq!((run.rows.len(), server.nick("a").as_deref()), (1, Some("A")));
    sync(&bench, &server).run().exits(0).because("3 unchanged");
}

#[test]
fn standard_input_is_kept_while_the_run_is_unfinished() {
    let (bench, server) = (CliFixture::new(), Server::new(|_| imported()));
    let sync = || sync_of(&bench, &["-", "--results", "users.results.csv", "--state", "users.state"], &server.endpoint()).against(&server);
    sync().stdin(&users(4)).args(&["--limit", "1"]).run().exits(0).because("3 remain");
    assert_eq!((bench.read("users.input.csv"), bench.mode("users.input.csv")), (users(4), 0o600));
    sync().args(&["--limit", "1"]).run().exits(0).because("2 remain");
    sync().stdin(&users(4)).args(&["--limit", "1"]).run().exits(0).because("1 remain");
    sync().run().exits(0).settles(4);
    assert!(!bench.names().iter().any(|name| name.contains("input")), "{:?}", bench.names());
    sync().stdin(&users(5)).run().exits(0).because("1 created, 0 updated, 4 unchanged");
    // A guard leaves nothing of what came in.
    sync().stdin("UserID\n").run().exits(6);
    sync().run().exits(2);
    assert!(!bench.names().iter().any(|name| name.contains("input")), "{:?}", bench.names());
    assert_eq!(server.calls(), 5);
}

/// Files that are none, each with a word of what is said.
fn no_files() -> [(Vec<u8>, &'static str); 7] {
    let behind = |rows: u64, last: &str| (users(rows) + last).into_bytes();
    [
        (behind(3, "open,\"x\n"), "is not closed"),
        (behind(1_500, "open,\"x\n"), "is not closed"),
        (behind(3, &format!("long,{}\n", "x".repeat(70_000))), "more than 65536 bytes"),
        (Vec::new(), "no header"),
        (b"U\0s\0".to_vec(), "not UTF-8"),
        (b"UserID,Nick\ra,b\r".to_vec(), "carriage returns"),
        (b"Name,Nick\na,b\n".to_vec(), "no column"),
    ]
}

#[test]
fn a_file_that_is_none_ends_every_command_with_2_beside_whatever_there_is() {
    for flags in [None, Some(&["--limit", "2"][..]), Some(&[])] {
        let bench = CliFixture::with_users(5);
        let server = Server::new(|_| imported());
        if let Some(flags) = flags {
            sync(&bench, &server).args(flags).run().exits(0);
        }
        let (calls, before) = (server.calls(), bench.read("users.csv"));
        for (file, why) in no_files() {
            bench.write("users.csv", &file);
            let results = bench.names().contains("users.results.csv").then(|| bench.read("users.results.csv"));
            let run = sync(&bench, &server).run().exits(2).because(why);
            assert_eq!(server.calls(), calls, "{}", run.stderr);
            assert_eq!(bench.names().contains("users.results.csv").then(|| bench.read("users.results.csv")), results);
            bench.call(&["check", "users.csv"]).run().exits(2).because(why);
            let key = bench.key();
            let connection = ["--endpoint", &server.endpoint(), "--sdkappid", SDKAPPID, "--secret-key-file", key.to_str().unwrap()];
            bench.call(&["verify", "users.csv"]).args(&connection).run().exits(2).because(why);
        }
        bench.write("users.csv", before);
        sync(&bench, &server).run().exits(0);
    }
}
