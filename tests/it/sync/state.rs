//! `chatlift state`: what it prints and changes, and files that are no state.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{connection, exported, held, state_bytes, sync, sync_of};
use crate::support::server::{Server, imported};
use crate::support::{CliFixture, Run, users};

fn state(bench: &CliFixture, args: &[&str]) -> Run {
    bench.call(&[&["state", "users.state"], args].concat()).run()
}

#[test]
fn it_prints_target_counts_and_the_last_runs() {
    let (bench, server) = (CliFixture::with_users(3), Server::new(|_| imported()));
    sync(&bench, &server).run().exits(0);
    bench.write("users.csv", users(2).replace("Nick 1", "Other"));
    sync(&bench, &server).run().exits(0);
    let before = state_bytes(&bench);
    let run = state(&bench, &[]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    let lines: Vec<_> = run.stdout.lines().collect();
    assert!(lines[0].starts_with("target") && lines[0].contains(&server.endpoint()) && lines[0].contains("1400000000"), "{}", run.stdout);
    for line in [
        "accounts    3",
        "in doubt    0",
        "missing     1 (0 of them kicked)",
        ": 0 to create, 1 to update, 1 unchanged; 0 failed, 1 missing, 0 kicked, 0 deleted",
        ": 3 to create, 0 to update, 0 unchanged; 0 failed, 0 missing",
    ] {
        assert!(run.stdout.contains(line), "{line}: {}", run.stdout);
    }
    assert_eq!((lines.len(), lines[4].starts_with("run 2"), state_bytes(&bench)), (6, true, before), "{}", run.stdout);
}

#[test]
fn it_is_exported_in_order_of_ids() {
    let (bench, server) = (CliFixture::new(), Server::new(|_| imported()));
    bench.write("users.csv", "UserID,Nick,FaceUrl\nb,N,F\na,N,F\n=c,N,\n");
    sync(&bench, &server).run().exits(0);
    bench.write("users.csv", "UserID,Nick,FaceUrl\nb,N,F\n=c,N,\n");
    sync(&bench, &server).run().exits(0);
    let run = state(&bench, &["export"]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    let mut reader = csv::Reader::from_reader(run.stdout.as_bytes());
    assert_eq!(reader.headers().unwrap(), vec!["UserID", "fingerprint", "last_imported", "missing_runs"]);
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert!(rows.iter().map(|row| (&row[0], &row[3])).eq([("=c", "0"), ("a", "1"), ("b", "0")]), "{}", run.stdout);
    assert!(rows[1][1] == rows[2][1] && rows[0][1] != rows[1][1], "the fingerprint is that of the profile: {}", run.stdout);
    assert!(rows.iter().all(|row| humantime::parse_rfc3339(&row[2]).is_ok()), "{}", run.stdout);
}

#[test]
fn ids_are_forgotten_and_created_again() {
    let (bench, server) = (CliFixture::with_users(4), Server::new(|_| imported()));
    sync(&bench, &server).run().exits(0);
    let run = state(&bench, &["forget", "user1", "user3", "nobody"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains("2 of 3 UserIDs"), "{}", run.stderr);
    assert_eq!(held(&bench), ["user2", "user4"]);
    sync(&bench, &server).run().exits(0).because("2 created, 0 updated, 2 unchanged");
    assert_eq!(state(&bench, &["forget"]).code, Some(2));
}

#[test]
fn an_unfinished_run_is_finished_where_it_was_begun() {
    let (bench, server) = (CliFixture::with_users(4), Server::new(|_| imported()));
    sync(&bench, &server).args(&["--limit", "1"]).run().exits(0);
    let moved = Server::new(|_| imported());
    let retarget =
        || bench.call(&["state", "users.state", "retarget"]).args(&connection(&bench, &moved.endpoint()).each_ref().map(String::as_str));
    retarget().run().exits(2).because("unfinished");
    sync(&bench, &moved).run().exits(2);
    sync(&bench, &server).run().exits(0);
    assert_eq!(retarget().run().code, Some(0));
    sync(&bench, &moved).run().exits(0).because("4 unchanged");
    assert_eq!((server.calls(), moved.calls()), (4, 0));
    assert_eq!(exported(&bench).len(), 4);
}

#[test]
fn a_file_that_is_no_state_is_refused_and_left_alone() {
    let (bench, server) = (CliFixture::with_users(2), Server::new(|_| imported()));
    let database = rusqlite::Connection::open(bench.path("foreign.state")).unwrap();
    database.execute_batch("CREATE TABLE accounts (id TEXT)").unwrap();
    drop(database);
    bench.write("text.state", "UserID,Nick\nu,n\n".repeat(100));
    fs::create_dir(bench.path("folder.state")).unwrap();
    for name in ["foreign.state", "text.state", "folder.state"] {
        let before = fs::read(bench.path(name)).ok();
        let file = || ["users.csv", "--state", name];
        sync_of(&bench, &file(), &server.endpoint()).run().exits(2).because("is no state of chatlift").hints("--state");
        sync_of(&bench, &file(), &server.endpoint()).args(&["--dry-run"]).run().exits(2).because("is no state");
        bench.import(&server).args(&["--state", name]).run().exits(2).because("is no state");
        bench.call(&["state", name]).run().exits(2).because("is no state");
        assert_eq!(fs::read(bench.path(name)).ok(), before, "{name}");
    }
    bench.call(&["state", "nowhere.state"]).run().exits(2).because("there is no state");
    bench.call(&["state", "nowhere.state", "forget", "a"]).run().exits(2).because("there is no state");
    sync_of(&bench, &["users.csv", "--state", "nowhere/users.state"], &server.endpoint()).run().exits(2).because("nowhere");
    assert!(!bench.names().iter().any(|name| name.starts_with("nowhere")), "{:?}", bench.names());
    assert_eq!(server.calls(), 0);
}

#[test]
fn another_version_is_refused_and_left_alone() {
    let (bench, server) = (CliFixture::with_users(2), Server::new(|_| imported()));
    sync(&bench, &server).run().exits(0);
    let database = rusqlite::Connection::open(bench.path("users.state")).unwrap();
    database.pragma_update(None, "user_version", 99).unwrap();
    drop(database);
    let before = state_bytes(&bench);
    sync(&bench, &server).run().exits(2).because("is of version 99").hints("the chatlift that wrote it");
    state(&bench, &[]).exits(2).because("version 99");
    assert_eq!((state_bytes(&bench), server.calls()), (before, 2));
}

#[test]
fn an_empty_file_is_made_a_state() {
    let (bench, server) = (CliFixture::with_users(2), Server::new(|_| imported()));
    bench.write("users.state", "");
    fs::set_permissions(bench.path("users.state"), fs::Permissions::from_mode(0o600)).unwrap();
    sync(&bench, &server).run().exits(0).because("2 created");
    assert_eq!(held(&bench).len(), 2);
}

#[test]
fn it_is_private_and_one_file() {
    let (bench, server) = (CliFixture::with_users(2), Server::new(|_| imported()));
    sync(&bench, &server).run().exits(0);
    assert_eq!((bench.mode("users.state"), bench.mode("users.state.lock")), (0o600, 0o600));
    let own: Vec<_> = bench.names().into_iter().filter(|name| name.contains("state")).collect();
    assert_eq!(own, ["users.state", "users.state.lock"]);
    let bytes = state_bytes(&bench);
    assert!(!bytes.windows(6).any(|window| window == b"Nick 1"), "it holds ids, but no names");
}

#[test]
fn no_two_files_share_a_name() {
    let (bench, server) = (CliFixture::with_users(2), Server::new(|_| imported()));
    let before = bench.read("users.csv");
    let refused = |what: &[&str]| {
        sync_of(&bench, what, &server.endpoint()).run().exits(2).because("named for two files at once");
    };
    for other in ["users.csv", "users.results.csv", "users.rejects.csv", "users.missing.csv", "users.checkpoint.json", "summary.json"] {
        refused(&["users.csv", "--state", other]);
        refused(&["users.csv", "--state", "users.state", "--plan", other]);
    }
    for own in ["users.state", "users.state.lock", "users.state-journal", "./users.state"] {
        refused(&["users.csv", "--state", "users.state", "--plan", own]);
        refused(&["users.csv", "--state", "users.state", "--results", own]);
        let import = bench.import(&server).args(&["--state", "users.state", "--results", own]);
        import.run().exits(2).because("named for two files at once");
    }
    assert_eq!((server.calls(), bench.read("users.csv")), (0, before));
    assert!(!bench.names().contains("users.state"));
}
