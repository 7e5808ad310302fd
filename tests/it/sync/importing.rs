//! `import --state`: a migration fills the state that the nights go on with.

use std::fmt::Write;

use super::{exported, held, state_bytes, sync, sync_of};
use crate::support::server::{Server, code, imported};
use crate::support::{Call, CliFixture, users};

fn import<'a>(bench: &'a CliFixture, server: &'a Server) -> Call<'a> {
    bench.import(server).at_any_rate().args(&["--state", "users.state"])
}

#[test]
fn a_migration_fills_a_new_state() {
    let server = Server::new(|request| match request.user_id.as_str() {
        "refused" => code(70402),
        "lost" => code(70169),
        _ => imported(),
    });
    let bench = CliFixture::new();
    bench.write("users.csv", "UserID,Nick\na,1\na,2\nb,1\n xy,1\nrefused,1\nlost,1\n");
    import(&bench, &server).args(&["--max-attempts", "2"]).run().exits(3);
    assert_eq!((held(&bench), bench.mode("users.state")), (vec!["a".to_owned(), "b".to_owned(), "lost".to_owned()], 0o600));
    let state = bench.call(&["state", "users.state"]).run().stdout;
    assert!(state.contains("in doubt    1") && state.contains("import 20"), "{state}");
    bench.write("users.csv", "UserID,Nick\na,2\nb,1\nlost,1\nrefused,2\n");
    sync(&bench, &server).args(&["--plan", "plan.csv", "--dry-run"]).run().exits(0).because("dry run");
    let ops: Vec<_> = bench.read("plan.csv").lines().skip(1).map(|line| line.split(',').take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(ops.len(), 2, "{ops:?}");
    assert!(ops[1] == "create 4" && ops[0].ends_with(" 3"), "{ops:?}");
}

#[test]
fn a_batch_lane_fills_it_as_well_and_the_night_after_sends_nothing() {
    use chatlift::sandbox::{Sandbox, SandboxSettings};
    let bench = CliFixture::with_users(250);
    let sandbox = Sandbox::start(SandboxSettings { limit_per_s: None, ..SandboxSettings::with_key(crate::support::KEY.into()) }).unwrap();
    let import = bench.import_into("users.csv", &sandbox.endpoint()).args(&["--state", "users.state", "--batch"]);
    import.run().exits(0).imports_all(250);
    sync_of(&bench, &["users.csv", "--state", "users.state"], &sandbox.endpoint()).run().exits(0).because("250 unchanged");
}

#[test]
fn a_migration_fills_a_state_that_holds_others() {
    let (bench, server) = (CliFixture::with_users(3), Server::new(|_| imported()));
    sync(&bench, &server).run().exits(0);
    bench.write("more.csv", "UserID,Nick\nuser3,Other\nuser4,Nick 4\n");
    let more = bench.import_of("more.csv", &server).args(&["--state", "users.state"]);
    more.run().exits(0);
    assert_eq!(held(&bench), ["user1", "user2", "user3", "user4"]);
    bench.write("users.csv", users(4).replace("Nick 3", "Other"));
    sync(&bench, &server).run().exits(0).because("4 unchanged");
}

#[test]
fn a_finished_import_fills_it_without_a_call() {
    let (bench, server) = (CliFixture::with_users(5), Server::new(|_| imported()));
    bench.import(&server).at_any_rate().run().exits(0);
    let results = bench.read("users.results.csv");
    import(&bench, &server).run().exits(0).because("finished earlier");
    assert_eq!((server.calls(), held(&bench).len(), bench.read("users.results.csv")), (5, 5, results));
    let before = exported(&bench);
    import(&bench, &server).run().exits(0).because("finished earlier");
    assert_eq!(exported(&bench), before);
    sync(&bench, &server).run().exits(0).because("5 unchanged");
}

#[test]
fn another_target_is_refused() {
    let (bench, server) = (CliFixture::with_users(2), Server::new(|_| imported()));
    sync(&bench, &server).run().exits(0);
    let (state, moved) = (state_bytes(&bench), Server::new(|_| imported()));
    bench.write("more.csv", users(3));
    let more = || bench.import_of("more.csv", &moved).args(&["--state", "users.state"]);
    more().run().exits(6).because("guard target").because(&moved.endpoint()).hints("retarget");
    assert_eq!((state_bytes(&bench), moved.calls(), bench.names().contains("more.results.csv")), (state, 0, false));
}

#[test]
fn until_an_import_has_finished_everything_is_in_doubt() {
    let (bench, server) = (CliFixture::with_users(4), Server::new(|_| imported()));
    sync(&bench, &server).run().exits(0);
    bench.write("more.csv", users(2).replace("Nick ", "Name "));
    let more = |flags: &[&str]| bench.import_of("more.csv", &server).args(&["--state", "users.state"]).args(flags).run();
    more(&["--limit", "1"]).exits(0);
    assert!(bench.call(&["state", "users.state"]).run().stdout.contains("all results are unknown until it is"));
    // user1 is named otherwise by now: the state can't know.
    sync(&bench, &server).args(&["--dry-run"]).run().exits(0).because("dry run");
    let run = sync(&bench, &server).args(&["--plan", "plan.csv"]).run().exits(0).because("4 updated, 0 unchanged");
    assert_eq!((run.rows.len(), server.nick("user1").as_deref()), (4, Some("Nick 1")));
    // What the sync has settled is in doubt no more.
    sync(&bench, &server).run().exits(0).because("4 unchanged");
    more(&[]).exits(0);
    assert_eq!(server.nick("user2").as_deref(), Some("Name 2"));
    let run = sync(&bench, &server).run().exits(0);
    assert!(run.rows.iter().any(|row| row.user_id == "user2"), "the import came last: {:?}", run.rows);
    assert!(run.rows.iter().all(|row| row.number <= 2), "{:?}", run.rows);
    sync(&bench, &server).run().exits(0).because("4 unchanged");
}

#[test]
fn one_imports_end_does_not_settle_another() {
    let (bench, server) = (CliFixture::with_users(3), Server::new(|_| imported()));
    sync(&bench, &server).run().exits(0);
    bench.write("half.csv", users(2).replace("Nick ", "Name "));
    bench.import_of("half.csv", &server).args(&["--state", "users.state", "--limit", "1"]).run().exits(0);
    bench.write("other.csv", "UserID,Nick\nuser3,Nick 3\n");
    bench.import_of("other.csv", &server).args(&["--state", "users.state"]).run().exits(0);
    let run = sync(&bench, &server).run().exits(0);
    assert!(run.rows.iter().any(|row| row.user_id == "user1"), "it was named otherwise: {:?}", run.rows);
    assert_eq!(server.nick("user1").as_deref(), Some("Nick 1"));
}

#[test]
fn blanked_takes_an_import_for_a_run() {
    let (bench, server) = (CliFixture::new(), Server::new(|_| imported()));
    let filled = |nicks: u64| {
        (1..=100u64).fold("UserID,Nick\n".to_owned(), |mut file, row| {
            writeln!(file, "user{row},{}", if row <= nicks { "n" } else { "" }).unwrap();
            file
        })
    };
    bench.write("users.csv", filled(100));
    import(&bench, &server).run().exits(0);
    bench.write("users.csv", filled(94));
    sync(&bench, &server).run().exits(6).because("guard blanked: 94 of 100 valid rows have a Nick, 100 of 100 had one before");
    bench.write("users.csv", filled(95));
    sync(&bench, &server).run().exits(0);
    assert_eq!(server.calls(), 100);
}

#[test]
fn what_a_sync_has_learned_since_is_not_overwritten_from_old_results() {
    let server = Server::new(|request| match request.nick.as_deref() {
        Some("lost") => code(12345).with_effect(),
        _ => imported(),
    });
    let bench = CliFixture::new();
    bench.write("old.csv", "UserID,Nick\na,A\nb,B\nc,C\nd,D\n");
    let fill = || bench.import_of("old.csv", &server).at_any_rate().args(&["--state", "users.state"]).run();
    fill().exits(0);
    let calls = server.calls();
    bench.write("users.csv", "UserID,Nick\na,new\nb,lost\nc,C\n");
    sync(&bench, &server).args(&["--max-attempts", "1"]).run().exits(3);
    bench.call(&["state", "users.state", "forget", "c"]).run();
    fill().exits(0).because("finished earlier");
    assert_eq!(server.calls(), calls + 2);
    let missing = exported(&bench).into_iter().find(|line| line.starts_with("d,")).unwrap();
    assert!(missing.ends_with(",1"), "still missing: {missing}");
    // a is `new` for sure, b is in doubt, and of c nobody knows what became since.
    bench.write("users.csv", "UserID,Nick\na,A\nb,B\nc,C\nd,D\n");
    let run = sync(&bench, &server).run().exits(0).because("1 unchanged");
    let sent: Vec<_> = run.rows.iter().map(|row| row.user_id.as_str()).collect();
    assert_eq!(sent, ["a", "b", "c"]);
    assert_eq!([server.nick("a"), server.nick("b")].map(Option::unwrap), ["A", "B"]);
}

#[test]
fn filling_keeps_the_doubt_of_an_unfinished_sync() {
    let (bench, server) = (CliFixture::with_users(3), Server::new(|_| imported()));
    sync(&bench, &server).run().exits(0);
    bench.write("users.csv", users(3).replace("Nick ", "Name "));
    sync(&bench, &server).args(&["--limit", "1"]).run().exits(0);
    bench.write("more.csv", "UserID,Nick\nuser4,Nick 4\n");
    bench.import_of("more.csv", &server).args(&["--state", "users.state"]).run().exits(0);
    // Whatever is made of the unfinished run: user1 is named otherwise, and that is put right.
    bench.write("users.csv", users(4));
    sync(&bench, &server).run().exits(0);
    assert_eq!(server.nick("user1").as_deref(), Some("Nick 1"));
}

#[test]
fn standard_input_that_is_gone_fills_nothing_and_says_so() {
    let (bench, server) = (CliFixture::new(), Server::new(|_| imported()));
    let import = |flags: &[&str]| bench.import_of("-", &server).stem("r").at_any_rate().args(&["--results", "r.results.csv"]).args(flags);
    import(&[]).stdin(&users(2)).run().exits(0);
    import(&["--state", "users.state"]).run().exits(2).because("standard input").hints("once more");
    assert!(!bench.names().contains("users.state"));
    import(&["--state", "users.state"]).stdin(&users(2)).run().exits(0).because("finished earlier");
    assert_eq!((held(&bench).len(), server.calls()), (2, 2));
}

#[test]
fn a_migration_is_what_the_first_night_is_judged_against() {
    let (bench, server) = (CliFixture::with_users(100), Server::new(|_| imported()));
    import(&bench, &server).run().exits(0);
    let judged = |file: String, why: &str| {
        bench.write("users.csv", file);
        sync(&bench, &server).args(&["--dry-run"]).run().exits(6).because(why);
    };
    judged((1..=100).fold("UserID,Nick\n".to_owned(), |file, row| file + &format!("user{row},\n")), "0 of 100 valid rows have a Nick");
    judged(users(100).trim_end().to_owned(), "no line end at its end");
    judged(
        users(84),
        "84 of the 100 known accounts have a valid row, less than 85 %; 84 distinct valid UserIDs are less than 85 % of the 100",
    );
}

#[test]
fn whoever_is_in_an_imported_file_is_not_missing_whatever_came_of_the_row() {
    let server = Server::new(|request| match request.nick.as_deref() {
        Some("refused") => code(70402),
        Some("lost") => code(70169),
        _ => imported(),
    });
    let bench = CliFixture::with_users(40);
    sync(&bench, &server).run().exits(0);
    bench.write("users.csv", users(36));
    sync(&bench, &server).run().exits(0).because("4 missing");
    bench.write("more.csv", "UserID,Nick\nuser37,refused\nuser38,lost\nuser39,taken\n");
    bench.import_of("more.csv", &server).args(&["--state", "users.state", "--max-attempts", "2"]).run().exits(3);
    let missing: Vec<_> = exported(&bench).into_iter().filter(|line| line.ends_with(",1")).collect();
    assert!(matches!(missing.as_slice(), [one] if one.starts_with("user40,")), "{missing:?}");
}
