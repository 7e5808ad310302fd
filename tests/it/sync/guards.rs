//! Every guard of the table: what it stops, what is just inside its bound, and what lets a run through.

use std::fmt::Write;

use chatlift::sandbox::{Sandbox, SandboxSettings};

use super::{connection, state_bytes, sync, sync_of};
use crate::support::server::{Server, imported};
use crate::support::{Call, CliFixture, KEY, Run, users};

/// A state that holds this file.
fn held(file: &str) -> (CliFixture, Server) {
    let (bench, server) = (CliFixture::new(), Server::new(|_| imported()));
    bench.write("users.csv", file);
    sync(&bench, &server).run().exits(0);
    (bench, server)
}

/// The run is stopped by these guards, in this order: name, figures, override.
#[track_caller]
fn guarded(bench: &CliFixture, server: &Server, call: Call, guards: &[[&str; 3]]) -> Run {
    let (state, calls, results) = (state_bytes(bench), server.calls(), bench.read("users.results.csv"));
    let mut run = call.run().exits(6);
    for [name, figures, way_out] in guards {
        run = run.because(&format!("guard {name}: ")).because(figures).hints(way_out);
    }
    assert_eq!(run.why().matches("guard ").count(), guards.len(), "{}", run.why());
    assert!(guards.windows(2).all(|pair| run.why().find(pair[0][0]) < run.why().find(pair[1][0])), "{}", run.why());
    assert_eq!((state_bytes(bench), server.calls(), bench.read("users.results.csv")), (state, calls, results));
    let summary = &run.summary;
    assert_eq!((summary["guard"].as_str(), summary["exit_code"].as_u64()), (Some(guards[0][0]), Some(6)), "{summary}");
    assert_eq!((summary["calls"].as_u64(), summary["imported"].as_u64()), (Some(0), Some(0)), "{summary}");
    run
}

/// So many users, of whom the first ones have a Nick or a FaceUrl.
fn filled(count: u64, nicks: u64, faces: u64) -> String {
    (1..=count).fold("UserID,Nick,FaceUrl\n".to_owned(), |mut file, row| {
        let (nick, face) = (if row <= nicks { "n" } else { "" }, if row <= faces { "f" } else { "" });
        writeln!(file, "user{row},{nick},{face}").unwrap();
        file
    })
}

/// So many users, the first of them under another name.
fn renamed(count: u64, renamed: u64) -> String {
    (1..=renamed).fold(users(count), |file, row| file.replace(&format!("Nick {row}\n"), &format!("Other {row}\n")))
}

#[test]
fn empty() {
    let (bench, server) = held(&users(3));
    for file in ["UserID,Nick\n", "UserID,Nick\n xy,n\n"] {
        bench.write("users.csv", file);
        let run = guarded(&bench, &server, sync(&bench, &server), &[["empty", "no valid row", "--allow empty"]]);
        assert_eq!(run.summary["plan"]["missing"].as_u64(), Some(3));
    }
    let run = sync(&bench, &server).args(&["--allow", "empty"]).run().exits(3);
    assert_eq!((run.summary["guard"].is_null(), server.calls()), (true, 3));
    bench.write("users.csv", users(1));
    sync(&bench, &server).run().exits(0);
}

#[test]
fn an_empty_file_begins_no_state() {
    let (bench, server) = (CliFixture::with_users(0), Server::new(|_| imported()));
    let run = sync(&bench, &server).run().exits(6).because("guard empty").hints("--allow empty");
    assert_eq!(run.summary["guard"].as_str(), Some("empty"));
    assert!(!bench.names().contains("users.state") && !bench.names().contains("users.results.csv"), "{:?}", bench.names());
}

#[test]
fn shrunk() {
    let (bench, server) = held(&users(100));
    let guard = |figures| [["shrunk", figures, "--allow shrunk"]];
    bench.write("users.csv", users(84));
    let run =
        guarded(&bench, &server, sync(&bench, &server), &guard("84 distinct valid UserIDs are less than 85 % of the 100 accounts known"));
    assert!(run.why().contains("84 of the 100 known accounts have a valid row"), "{}", run.why());
    // Records of one id, and invalid ones, are no further ids.
    bench.write("users.csv", users(84) + &"user1,Nick 1\n".repeat(20) + "user85\u{7},n\n");
    guarded(&bench, &server, sync(&bench, &server), &guard("84 distinct"));
    bench.write("users.csv", users(85));
    sync(&bench, &server).run().exits(0);
    // 15 are missing now, so that 85 are held; but 100 were in one of the last runs.
    bench.write("users.csv", users(84));
    let run =
        guarded(&bench, &server, sync(&bench, &server), &guard("84 distinct valid UserIDs are less than 85 % of the 100 accounts known"));
    assert!(!run.why().contains("known accounts have a valid row"), "{}", run.why());
    assert_eq!(server.calls(), 100);
}

#[test]
fn shrunk_looks_at_who_is_there_not_at_how_many() {
    let (bench, server) = held(&users(400));
    bench.write("users.csv", users(400).replace("\nuser", "\nother"));
    let guard = [["shrunk", "0 of the 400 known accounts have a valid row, less than 85 %", "--allow shrunk"]];
    let delete = ["--missing", "delete", "--missing-runs", "1", "--max-delete", "100%"];
    let run = guarded(&bench, &server, sync(&bench, &server).args(&delete), &guard);
    assert!(!run.why().contains("distinct"), "{}", run.why());
}

#[test]
fn few_may_lose_a_half() {
    let (bench, server) = held(&users(99));
    bench.write("users.csv", users(49));
    guarded(
        &bench,
        &server,
        sync(&bench, &server),
        &[["shrunk", "49 of the 99 known accounts have a valid row, less than 50 %", "--allow shrunk"]],
    );
    bench.write("users.csv", users(50));
    sync(&bench, &server).run().exits(0);
    let (bench, server) = held(&users(19));
    bench.write("users.csv", users(1));
    sync(&bench, &server).run().exits(0);
}

#[test]
fn what_was_let_through_is_where_the_count_begins() {
    let (bench, server) = held(&users(100));
    bench.write("users.csv", users(60));
    sync(&bench, &server).args(&["--allow", "shrunk"]).run().exits(0);
    sync(&bench, &server).run().exits(0);
    bench.write("users.csv", users(29));
    guarded(
        &bench,
        &server,
        sync(&bench, &server),
        &[["shrunk", "29 distinct valid UserIDs are less than 50 % of the 60", "--allow shrunk"]],
    );
    bench.write("users.csv", users(30));
    sync(&bench, &server).run().exits(0);
}

#[test]
fn leave_that_was_not_needed_begins_no_count() {
    let (bench, server) = held(&users(100));
    bench.write("users.csv", users(90));
    sync(&bench, &server).args(&["--allow", "shrunk"]).run().exits(0);
    bench.write("users.csv", users(84));
    guarded(
        &bench,
        &server,
        sync(&bench, &server),
        &[["shrunk", "84 distinct valid UserIDs are less than 85 % of the 100", "--allow shrunk"]],
    );
}

#[test]
fn what_was_held_a_week_and_seven_runs_ago_is_forgotten() {
    let (bench, server) = held(&users(100));
    let passes = |days: i64| {
        let database = rusqlite::Connection::open(bench.path("users.state")).unwrap();
        database.execute("UPDATE runs SET finished_at = finished_at - ?1 * 86400000", [days]).unwrap();
    };
    bench.write("users.csv", users(90));
    for _ in 0..6 {
        sync(&bench, &server).run().exits(0);
    }
    passes(8);
    let trial = || sync(&bench, &server).args(&["--dry-run"]).run();
    bench.write("users.csv", users(80));
    trial().exits(6).because("of the 100 accounts known");
    bench.write("users.csv", users(90));
    sync(&bench, &server).run().exits(0);
    bench.write("users.csv", users(80));
    trial().exits(0);
}

#[test]
fn cut() {
    let (bench, server) = held(&users(30));
    let cut = |count: u64| users(count).trim_end().to_owned();
    bench.write("users.csv", cut(30));
    guarded(&bench, &server, sync(&bench, &server), &[["cut", "no line end at its end", "--allow cut"]]);
    sync(&bench, &server).args(&["--allow", "cut"]).run().exits(0);
    // The last finished run's had none either.
    sync(&bench, &server).run().exits(0);
    bench.write("users.csv", users(30));
    sync(&bench, &server).run().exits(0);
    bench.write("users.csv", cut(30));
    guarded(&bench, &server, sync(&bench, &server), &[["cut", "no line end at its end", "--allow cut"]]);
    assert_eq!(server.calls(), 30);
}

#[test]
fn a_first_file_without_a_line_end_is_only_told() {
    let (bench, server) = (CliFixture::new(), Server::new(|_| imported()));
    bench.write("users.csv", users(3).trim_end());
    let run = sync(&bench, &server).run().exits(0);
    assert!(run.stderr.contains("no line end at its end"), "{}", run.stderr);
}

#[test]
fn a_small_state_keeps_most_of_its_sessions() {
    let (bench, server) = held(&users(99));
    bench.write("users.csv", users(1));
    let kick = || sync(&bench, &server).args(&["--missing", "kick", "--missing-runs", "1", "--allow", "shrunk"]);
    let figures = "98 accounts due for kick or deletion are more than --max-delete (500 or 15 % of the known accounts, whichever is less, but at least 10; 99 are known)";
    guarded(&bench, &server, kick(), &[["deletes", figures, "--max-delete 98"]]);
    for (left, code) in [(85, 0), (84, 6)] {
        bench.write("users.csv", users(left));
        assert_eq!(kick().args(&["--dry-run"]).run().code, Some(code), "{left}");
    }
}

#[test]
fn shrunk_is_exact_and_gives_way() {
    let (bench, server) = held(&users(107));
    bench.write("users.csv", users(90));
    // 85 % of 107 are 90.95.
    guarded(&bench, &server, sync(&bench, &server), &[["shrunk", "90 distinct", "--allow shrunk"]]);
    bench.write("users.csv", users(91));
    sync(&bench, &server).args(&["--dry-run"]).run().exits(0);
    bench.write("users.csv", users(1));
    let run = sync(&bench, &server).args(&["--allow", "shrunk"]).run().exits(0);
    assert_eq!((run.summary["plan"]["missing"].as_u64(), run.summary["guard"].is_null()), (Some(106), true));
}

#[test]
fn few_accounts_are_not_judged_by_shares() {
    let (bench, server) = held(&filled(99, 99, 99));
    bench.write("users.csv", filled(99, 0, 0).replace(",,", ",other,"));
    sync(&bench, &server).run().exits(0);
    assert_eq!(server.calls(), 198, "all are updated");
}

#[test]
fn blanked() {
    let (bench, server) = held(&filled(101, 101, 50));
    let guard = |figures| [["blanked", figures, "--allow blanked"]];
    // 5 points of 101 are 5.05: 96 are enough, 95 are not.
    bench.write("users.csv", filled(101, 95, 50));
    guarded(&bench, &server, sync(&bench, &server), &guard("95 of 101 valid rows have a Nick, 101 of 101 had one before"));
    bench.write("users.csv", filled(101, 101, 44));
    guarded(&bench, &server, sync(&bench, &server), &guard("44 of 101 valid rows have a FaceUrl, 50 of 101"));
    bench.write("users.csv", filled(101, 0, 0));
    let run = guarded(&bench, &server, sync(&bench, &server), &guard("have a Nick"));
    assert!(run.why().contains("have a FaceUrl"), "{}", run.why());
    bench.write("users.csv", filled(101, 96, 45));
    sync(&bench, &server).run().exits(0);
    // That run is the last finished one now.
    bench.write("users.csv", filled(101, 91, 40));
    sync(&bench, &server).run().exits(0);
    bench.write("users.csv", filled(99, 0, 0));
    sync(&bench, &server).run().exits(0);
    bench.write("users.csv", filled(101, 91, 40));
    sync(&bench, &server).run().exits(0);
    bench.write("users.csv", filled(100, 0, 0));
    guarded(&bench, &server, sync(&bench, &server), &guard("0 of 100 valid rows have a Nick, 91 of 101"));
    sync(&bench, &server).args(&["--allow", "blanked"]).run().exits(0);
    sync(&bench, &server).run().exits(0);
    assert_eq!(server.calls(), 101, "an empty cell says nothing");
}

#[test]
fn updates() {
    let (bench, server) = held(&users(101));
    let guard = |figures| [["updates", figures, "--max-update 31"]];
    // 30 % of 101 are 30.3.
    bench.write("users.csv", renamed(101, 31));
    guarded(
        &bench,
        &server,
        sync(&bench, &server),
        &guard("31 updates are more than --max-update (30 % of the known accounts; 101 are known)"),
    );
    for bound in ["30", "30.69%", "0"] {
        guarded(&bench, &server, sync(&bench, &server).args(&["--max-update", bound]), &guard("31 updates"));
    }
    for bound in ["31", "30.70%", "100%"] {
        sync(&bench, &server).args(&["--max-update", bound, "--dry-run"]).run().exits(0);
    }
    bench.write("users.csv", renamed(101, 30));
    sync(&bench, &server).run().exits(0);
    bench.write("users.csv", renamed(101, 101));
    let run = sync(&bench, &server).args(&["--max-update", "71"]).run().exits(0);
    assert_eq!((run.summary["updated"].as_u64(), run.summary["guard"].is_null()), (Some(71), true));
}

#[test]
fn creates_are_no_updates() {
    let (bench, server) = held(&users(100));
    bench.write("users.csv", users(300));
    sync(&bench, &server).args(&["--max-update", "0"]).run().exits(0);
    assert_eq!(server.calls(), 300);
}

#[test]
fn deletes() {
    let (bench, server) = held(&users(10));
    bench.write("users.csv", users(7));
    let kick = |bound: &[&str]| sync(&bench, &server).args(&["--missing", "kick", "--missing-runs", "1"]).args(bound);
    let guard = |figures| [["deletes", figures, "--max-delete 3"]];
    let figures = "3 accounts due for kick or deletion are more than --max-delete (2; 10 are known)";
    guarded(&bench, &server, kick(&["--max-delete", "2"]), &guard(figures));
    guarded(&bench, &server, kick(&["--max-delete", "29.99%"]), &guard("(29.99 % of the known accounts; 10 are known)"));
    let delete = ["--missing", "delete", "--missing-runs", "1"];
    guarded(&bench, &server, sync(&bench, &server).args(&delete).args(&["--max-delete", "0"]), &guard("3 accounts"));
    for inside in [&["--max-delete", "3"][..], &["--max-delete", "30%"], &["--max-delete", "2", "--protect", "user1?"], &[]] {
        kick(inside).args(&["--dry-run"]).run().exits(0);
    }
    // The administrator's own and the protected are left out; who isn't due yet is none.
    let protected = ["--max-delete", "0", "--protect", "user8", "--protect", "user[91]*"];
    kick(&protected).args(&["--dry-run"]).run().exits(0);
    sync(&bench, &server).args(&["--missing", "kick", "--max-delete", "0", "--dry-run"]).run().exits(0);
    let run = sync(&bench, &server).args(&delete).run();
    assert_eq!((run.code, run.stderr.contains("--max-delete")), (Some(2), true), "{}", run.stderr);
}

#[test]
fn deletes_leave_the_administrator_out() {
    let (bench, server) = held("UserID\nadministrator\nuser1\n");
    bench.write("users.csv", "UserID\nuser1\n");
    let delete = ["--missing", "delete", "--missing-runs", "1", "--max-delete", "0", "--dry-run"];
    sync(&bench, &server).args(&delete).run().exits(0);
    let other = ["--identifier", "boss"];
    let run = guarded(&bench, &server, sync(&bench, &server).args(&delete).args(&other), &[["deletes", "1 account", "--max-delete 1"]]);
    assert_eq!(run.summary["plan"]["missing"].as_u64(), Some(1));
}

#[test]
fn without_a_bound_500_are_kicked_and_no_more() {
    let bench = CliFixture::with_users(4_000);
    let sandbox = Sandbox::start(SandboxSettings { limit_per_s: None, ..SandboxSettings::with_key(KEY.into()) }).unwrap();
    let sync = || sync_of(&bench, &["users.csv", "--state", "users.state"], &sandbox.endpoint());
    sync().args(&["--batch"]).run().exits(0);
    let kick = || sync().args(&["--missing", "kick", "--missing-runs", "1", "--allow", "shrunk", "--dry-run"]);
    bench.write("users.csv", users(3_500));
    kick().run().exits(0);
    bench.write("users.csv", users(3_499));
    kick().run().exits(6).because("501 accounts due for kick or deletion are more than --max-delete (500 or 15 % of the known accounts");
}

#[test]
fn what_is_allowed_is_kicked() {
    let bench = CliFixture::with_users(5);
    let sandbox = Sandbox::start(SandboxSettings { limit_per_s: None, ..SandboxSettings::with_key(KEY.into()) }).unwrap();
    let sync = || sync_of(&bench, &["users.csv", "--state", "users.state"], &sandbox.endpoint());
    sync().run().exits(0);
    bench.write("users.csv", users(3));
    let kick = |bound| sync().args(&["--missing", "kick", "--missing-runs", "1", "--max-delete", bound]);
    kick("1").run().exits(6).because("guard deletes").hints("--max-delete 2");
    let run = kick("2").run().exits(0);
    assert_eq!((run.summary["kicked"].as_u64(), run.summary["guard"].is_null()), (Some(2), true), "{}", run.summary);
}

#[test]
fn canary() {
    let (bench, server) = held(&users(5));
    let with = |flags: &[&str]| sync(&bench, &server).args(flags);
    bench.write("users.csv", users(3));
    let guard = [["canary", "no valid row of user4, user5", "without --canary user4, without --canary user5"]];
    guarded(&bench, &server, with(&["--canary", "user5", "--canary", "user2", "--canary", "user4"]), &guard);
    let guard = [["canary", "no valid row of user2", "without --canary user2"]];
    // Whatever an earlier record says, the last one counts.
    bench.write("users.csv", users(3) + &format!("user2,{}\n", "n".repeat(501)));
    guarded(&bench, &server, with(&["--canary", "user2"]), &guard);
    with(&[]).args(&["--dry-run"]).run().exits(0);
    bench.write("users.csv", users(3));
    with(&["--canary", "user2", "--canary", "user1"]).run().exits(0);
    let run = with(&["--canary", " xy"]).run();
    assert_eq!(run.code, Some(2), "{}", run.stderr);
}

#[test]
fn target() {
    let (bench, server) = held(&users(3));
    let moved = Server::new(|_| imported());
    let guard =
        [["target", &*server.endpoint(), "another --state, or, if the app has moved: chatlift state users.state retarget --sdkappid"]];
    bench.write("users.csv", users(4));
    let run = guarded(&bench, &moved, sync(&bench, &moved), &guard);
    assert!(run.why().contains(&moved.endpoint()), "{}", run.why());
    let key = bench.key();
    let app = ["--sdkappid", "1400000001", "--endpoint", &server.endpoint(), "--secret-key-file", key.to_str().unwrap()];
    let what = ["users.csv", "--state", "users.state", "--summary", "summary.json"];
    let other_app = || bench.call(&[&["sync"][..], &what, &app].concat());
    guarded(&bench, &server, other_app(), &[["target", "1400000001", "another --state"]]);
    sync(&bench, &server).args(&["--dry-run"]).run().exits(0);
    other_app().args(&["--dry-run"]).run().exits(6);
    let retarget = ["state", "users.state", "retarget"];
    let flags = connection(&bench, &moved.endpoint());
    let run = bench.call(&retarget).args(&flags.each_ref().map(String::as_str)).run();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    sync(&bench, &moved).run().exits(0);
    assert_eq!((moved.calls(), server.calls()), (1, 3), "what is held has moved with the app");
    guarded(&bench, &server, sync(&bench, &server), &[["target", &*moved.endpoint(), "retarget"]]);
}

#[test]
fn all_that_trip_are_told_and_the_summary_names_the_first() {
    let (bench, server) = held(&filled(120, 120, 0));
    let moved = Server::new(|_| imported());
    bench.write("users.csv", "UserID,Nick\n");
    let call = || sync(&bench, &moved).args(&["--missing", "kick", "--missing-runs", "1", "--max-delete", "9", "--canary", "user1"]);
    let all = [
        ["empty", "no valid row", "--allow empty"],
        ["shrunk", "0 distinct", "--allow shrunk"],
        ["deletes", "120 accounts due", "--max-delete 120"],
        ["canary", "no valid row of user1", "without --canary user1"],
        ["target", "belongs to", "retarget"],
    ];
    let run = guarded(&bench, &moved, call().args(&["--plan", "plan.csv"]), &all);
    assert_eq!(run.summary["plan"]["missing"].as_u64(), Some(120));
    assert_eq!((bench.read("plan.csv").lines().count(), bench.mode("plan.csv")), (121, 0o600));
    guarded(&bench, &moved, call().args(&["--allow", "empty", "--allow", "shrunk"]), &all[2..]);
    bench.write("users.csv", filled(120, 120, 0).replace(",n,", ",m,") + "new,,\n");
    let two = [["updates", "120 updates", "--max-update 120"], ["target", "belongs to", "retarget"]];
    guarded(&bench, &moved, sync(&bench, &moved).args(&["--dry-run"]), &two);
    assert_eq!(server.calls(), 120);
}

/// Many runs a day are no way round the guard: what was held in the last seven days is known however many runs there were since.
#[test]
fn runs_of_the_last_seven_days_are_known_however_many_there_were() {
    const DAY_MS: i64 = 24 * 3_600 * 1_000;
    let (bench, server) = (CliFixture::with_users(100), Server::new(|_| imported()));
    sync(&bench, &server).run().exits(0);
    let db = rusqlite::Connection::open(bench.path("users.state")).unwrap();
    let columns = "command, input_len, input_digest, input_stat, plan, valid, with_nick, with_face_url, sent_up_to, done, shrunk_allowed, ends_with_newline";
    // Of eight days ago, and of six; one of each has held ten times as many.
    for (numbers, days) in [(2..=101, 8), (102..=600, 6)] {
        for number in numbers.clone() {
            let held = if number == *numbers.start() { 1_000 } else { 100 };
            let at = format!("(SELECT began_at FROM runs WHERE number = 1) - {}", days * DAY_MS);
            let insert = format!(
                "INSERT INTO runs (number, began_at, finished_at, held_at_end, {columns}) SELECT {number}, {at}, {at}, {held}, {columns} FROM runs WHERE number = 1"
            );
            db.execute(&insert, []).unwrap();
        }
    }
    let known = |what: &str| db.query_row(&format!("SELECT count(*) FROM runs WHERE {what}"), [], |row| row.get::<_, i64>(0)).unwrap();
    sync(&bench, &server).run().exits(6).because("guard shrunk");
    db.execute("UPDATE runs SET held_at_end = 100 WHERE number = 102", []).unwrap();
    // What was held eight days ago doesn't matter by now, and that run is forgotten with the next.
    sync(&bench, &server).run().exits(0).because("100 unchanged");
    assert_eq!((known("number BETWEEN 2 AND 101"), known("number BETWEEN 102 AND 600")), (0, 499));
}
