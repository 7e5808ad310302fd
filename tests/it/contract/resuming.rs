//! The same command again, with the same files or others.

use chatlift::io::journal::checkpoint::VERSION;
use std::time::{Duration, SystemTime};

use crate::support::server::{Server, code, imported};
use crate::support::{CliFixture, users};

/// Six users, two of them processed.
fn unfinished(server: &Server) -> CliFixture {
    let bench = CliFixture::with_users(6);
    bench.import(server).at_any_rate().args(&["--limit", "2"]).run().exits(0).imports_all(2);
    bench
}

#[test]
fn a_finished_run_sends_nothing_and_exits_as_it_did() {
    let bench = CliFixture::with_users(3);
    let server = Server::new(|_| imported());
    bench.import(&server).run().exits(0).imports_all(3);
    let before = bench.read("users.results.csv");
    bench.import(&server).run().exits(0).because("finished earlier").because("nothing is sent");
    assert_eq!((server.calls(), bench.read("users.results.csv")), (3, before));

    let bench = CliFixture::with_users(3);
    let server = Server::new(|request| if request.user_id == "user2" { code(70402) } else { imported() });
    bench.import(&server).run().exits(3);
    let before = (bench.read("users.results.csv"), bench.read("users.rejects.csv"));
    let run = bench.import(&server).run().exits(3).because("finished earlier").hints("users.rejects.csv").settles(3);
    assert_eq!((run.summary["exit_code"].as_u64(), run.summary["calls"].as_u64()), (Some(3), Some(0)));
    assert_eq!((server.calls(), (bench.read("users.results.csv"), bench.read("users.rejects.csv"))), (3, before));
}

#[test]
fn a_changed_input_after_a_finished_run_is_a_new_run() {
    let bench = CliFixture::with_users(3);
    let server = Server::new(|request| if request.user_id == "user2" { code(70402) } else { imported() });
    bench.import(&server).run().exits(3);
    let (results, rejects) = (bench.read("users.results.csv"), bench.read("users.rejects.csv"));
    bench.write("users.csv", users(4));
    let run = bench.import(&server).run().exits(3).settles(4);
    assert_eq!((server.calls(), run.summary["resumed_at_row"].as_u64()), (7, Some(0)));
    let dated: Vec<_> = bench.names().into_iter().filter(|name| name.contains('Z')).collect();
    assert_eq!(dated.len(), 3, "{dated:?}");
    let [checkpoint, old_rejects, old_results] = dated.try_into().unwrap();
    let stamp = old_results.strip_prefix("users.results.").and_then(|rest| rest.strip_suffix(".csv")).unwrap().to_owned();
    assert!(stamp.len() == 16 && stamp.as_bytes()[8] == b'T', "{stamp}");
    assert_eq!((checkpoint, &old_rejects), (format!("users.checkpoint.{stamp}.json"), &format!("users.rejects.{stamp}.csv")));
    assert_eq!((bench.read(&old_results), bench.read(&old_rejects)), (results, rejects));
}

#[test]
fn backups_never_replace_other_files() {
    let bench = CliFixture::with_users(2);
    let server = Server::new(|_| imported());
    bench.import(&server).run().exits(0);
    let results = bench.read("users.results.csv");
    let mine: Vec<String> = (0..20)
        .map(|second| {
            humantime::format_rfc3339_seconds(SystemTime::now() + Duration::from_secs(second)).to_string().replace(['-', ':'], "")
        })
        .map(|stamp| format!("users.results.{stamp}.csv"))
        .collect();
    for name in &mine {
        bench.write(name, "mine");
    }
    bench.import(&server).args(&["--restart"]).run().exits(0).imports_all(2);
    assert!(mine.iter().all(|name| bench.read(name) == "mine"));
    let aside: Vec<_> = bench.names().into_iter().filter(|name| name.starts_with("users.results.2") && !mine.contains(name)).collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert_eq!(bench.read(&aside[0]), results);
    assert_eq!(server.calls(), 4);
}

#[test]
fn an_unfinished_run_is_resumed_or_restarted() {
    let server = Server::new(|_| imported());
    let bench = unfinished(&server);
    let run = bench.import(&server).run().exits(0).imports_all(6);
    assert_eq!((server.calls(), run.summary["resumed_at_row"].as_u64()), (6, Some(2)));
    bench.call(&["audit", "users.csv", "--results", "users.results.csv"]).run().exits(0);

    let server = Server::new(|_| imported());
    let bench = unfinished(&server);
    let run = bench.import(&server).args(&["--restart"]).run().exits(0).imports_all(6);
    assert_eq!((server.calls(), run.summary["resumed_at_row"].as_u64()), (8, Some(0)));
}

#[test]
fn a_limit_is_a_canary() {
    let bench = CliFixture::new();
    bench.write("users.csv", "UserID\na\nb\n xy\nc\nd\n");
    let server = Server::new(|_| imported());
    let limit = |count: &str| bench.import(&server).args(&["--limit", count]).run();
    limit("0").exits(0).because("5 remain").settles(0);
    assert_eq!(server.calls(), 0);
    limit("2").exits(0).because("3 remain").hints("without --limit").imports_all(2);
    let run = limit("1").exits(3).because("2 remain").settles(3);
    assert_eq!((run.summary["exit_code"].as_u64(), run.summary["rows"].as_u64(), server.calls()), (Some(3), Some(3), 2));
    limit("2").exits(3).settles(5);
    bench.import(&server).run().exits(3).because("finished earlier");
    assert_eq!(server.calls(), 4);
}

#[test]
fn a_change_in_the_processed_part_is_refused_and_no_file_changes() {
    let server = Server::new(|_| imported());
    let bench = unfinished(&server);
    bench.write("users.csv", users(6).replace("user2", "user9"));
    let before = bench.contents_but_summary();
    bench.import(&server).run().exits(2).because("changed").hints("--restart");
    assert_eq!((bench.contents_but_summary(), server.calls()), (before, 2));
    bench.write("users.csv", users(1));
    bench.import(&server).run().exits(2).because("changed");
    bench.write("users.csv", users(6).replace("UserID,Nick", "UserID,Name"));
    bench.import(&server).run().exits(2).because("changed");
    bench.write("users.csv", users(6));
    bench.import(&server).run().exits(0).imports_all(6);
    assert_eq!(server.calls(), 6);
}

#[test]
fn a_change_behind_the_processed_part_is_reported_and_the_run_continues() {
    let server = Server::new(|_| imported());
    let bench = unfinished(&server);
    bench.write("users.csv", users(7).replace("user5", "repaired"));
    let run = bench.import(&server).run().exits(0).imports_all(7);
    assert!(run.stderr.contains("the input was modified"), "{}", run.stderr);
    assert_eq!((server.calls(), server.calls_of("repaired"), server.calls_of("user5")), (7, 1, 0));
}

#[test]
fn another_target_is_refused_and_no_file_changes() {
    let server = Server::new(|_| imported());
    let other = Server::new(|_| imported());
    let bench = unfinished(&server);
    let before = bench.contents_but_summary();
    bench.import(&other).run().exits(2).because(&format!(":{}", server.port())).because(&format!(":{}", other.port()));
    assert_eq!((bench.contents_but_summary(), other.connections()), (before, 0));
}

#[test]
fn files_that_do_not_belong_together_are_refused_and_no_file_changes() {
    let server = Server::new(|_| imported());
    let check = |why: &str, change: &dyn Fn(&CliFixture)| {
        let bench = unfinished(&server);
        change(&bench);
        let before = bench.contents_but_summary();
        bench.import(&server).run().exits(2).because(why).hints("--restart");
        assert_eq!(bench.contents_but_summary(), before);
        let calls = server.calls();
        bench.import(&server).args(&["--restart"]).run().exits(0).imports_all(6);
        assert_eq!(server.calls(), calls + 6);
    };
    let remove = |bench: &CliFixture, name: &str| std::fs::remove_file(bench.path(name)).unwrap();
    check("no checkpoint", &|bench| remove(bench, "users.checkpoint.json"));
    check("no results", &|bench| remove(bench, "users.results.csv"));
    check("users.results.csv", &|bench| bench.write("users.results.csv", bench.read("users.results.csv").replace("user1", "user7")));
    check("users.results.csv", &|bench| bench.write("users.results.csv", "row\n"));
    check("users.checkpoint.json", &|bench| bench.write("users.checkpoint.json", "{}"));
    check("users.checkpoint.json", &|bench| {
        bench.write("users.checkpoint.json", bench.read("users.checkpoint.json").replace("\"rows\":2", "\"rows\":3"));
    });
    check("version", &|bench| {
        bench.write(
            "users.checkpoint.json",
            bench.read("users.checkpoint.json").replace(&format!("\"version\":{VERSION}"), "\"version\":99"),
        );
    });
}

#[test]
fn bytes_behind_the_checkpoint_are_cut_after_a_crash() {
    let server = Server::new(|_| imported());
    let bench = unfinished(&server);
    bench.write("users.results.csv", bench.read("users.results.csv") + "3,4,user3,imp");
    bench.write("users.rejects.csv", "of a commit that never happened");
    let run = bench.import(&server).run().exits(0).imports_all(6);
    assert_eq!(run.rejects, None);
}

#[test]
fn a_run_is_resumed_only_with_its_own_columns_and_files() {
    let server = Server::new(|_| imported());
    let bench = CliFixture::new();
    bench.write("users.csv", "A,B,C\nx1,y1,z1\nx2,y2,z2\n");
    let import = |map: [&str; 2]| bench.import(&server).args(&["--map", map[0], "--map", map[1]]);
    import(["UserID=A", "Nick=B"]).args(&["--limit", "1"]).run().exits(0);
    bench.write("mine.csv", "somebody's own\n");
    let before = bench.contents_but_summary();
    import(["UserID=B", "Nick=A"]).run().exits(2).because("columns").hints("--map");
    import(["UserID=A", "Nick=B"]).args(&["--rejects", "mine.csv"]).run().exits(2).because("names").hints("--rejects");
    assert_eq!((bench.contents_but_summary(), server.calls()), (before, 1));
    import(["UserID=A", "Nick=B"]).run().exits(0);
}

#[test]
fn a_run_that_started_without_a_column_is_resumed_without_it() {
    let server = Server::new(|_| imported());
    let bench = CliFixture::new();
    bench.write("users.csv", "uid,nick_name,nick\na1,x,Ann\nb2,y,Bob\n");
    let import = |flags: &[&str]| bench.import(&server).args(&["--map", "UserID=UID"]).args(flags).run();
    import(&["--map", "Nick=", "--limit", "1"]).exits(0);
    // Its checkpoint is like that of a version which did not take this name for the field.
    let before = bench.contents_but_summary();
    import(&[]).exits(2).because("column of Nick was none, now it is 3").hints("--map");
    assert_eq!(bench.contents_but_summary(), before);
    import(&["--map", "Nick="]).exits(0).imports_all(2);
    assert_eq!((server.nick("a1"), server.nick("b2")), (None, None));
    // Once it is finished, the columns are read as they are.
    import(&[]).exits(0).imports_all(2);
    assert_eq!((server.nick("a1").as_deref(), server.nick("b2").as_deref()), (Some("Ann"), Some("Bob")));
}

#[test]
fn a_finished_run_with_other_columns_is_a_new_run() {
    let server = Server::new(|_| imported());
    let bench = CliFixture::new();
    bench.write("users.csv", "UserID,name,Nick;x\na1,Ann,;A\nb2,Bob,;B\n");
    let import = |flags: &[&str]| bench.import(&server).args(flags).run();
    import(&[]).exits(0).imports_all(2);
    assert_eq!((server.calls(), server.nick("a1")), (2, None));
    // The column that was not read before is sent, and the old files are kept as backups.
    import(&["--map", "Nick=name"]).exits(0).imports_all(2);
    assert_eq!((server.calls(), server.nick("a1").as_deref()), (4, Some("Ann")));
    let aside: Vec<_> = bench.names().into_iter().filter(|name| name.contains("Z.")).collect();
    assert_eq!(aside.len(), 2, "{aside:?}");
    // The same run again sends nothing, in whatever form the flags are given.
    import(&["--map", "Nick=name", "--map", "UserID=UserID"]).exits(0).because("finished earlier");
    assert_eq!(server.calls(), 4);
    // Another delimiter for an unfinished run is refused, and the message names the difference.
    import(&["--map", "Nick=name", "--restart", "--limit", "1"]).exits(0);
    let before = bench.contents_but_summary();
    import(&["--delimiter", ";", "--map", "UserID=UserID,name,Nick"])
        .exits(2)
        .because("delimiter was ',', now it is ';'")
        .hints("--delimiter");
    import(&[]).exits(2).because("column of Nick was 2, now it is none").hints("--restart");
    assert_eq!((bench.contents_but_summary(), server.calls()), (before, 5));
    import(&["--map", "Nick=name"]).exits(0).imports_all(2);
    import(&["--delimiter", ";", "--map", "UserID=UserID,name,Nick"]).settles(2);
    assert_eq!(server.calls(), 8, "a finished one is a new run");
}

#[test]
fn no_output_replaces_the_input_whatever_its_name() {
    let server = Server::new(|_| imported());
    let bench = CliFixture::with_users(2);
    let before = bench.contents_but_summary();
    let absolute = bench.path("users.csv");
    let absolute = absolute.to_str().unwrap();
    // The fixture writes every summary to summary.json.
    let clashes = [
        ["--rejects", "./users.csv"],
        ["--results", absolute],
        ["--rejects", "users.checkpoint.json.lock"],
        ["--rejects", "./summary.json"],
    ];
    for flags in clashes {
        bench.import(&server).args(&flags).run().exits(2).because("two files at once");
    }
    assert_eq!((bench.contents_but_summary(), server.calls()), (before, 0));
}

#[test]
fn missing_results_are_reported_for_finished_and_unfinished_runs() {
    let server = Server::new(|_| imported());
    let bench = CliFixture::with_users(2);
    bench.import(&server).run().exits(0);
    std::fs::remove_file(bench.path("users.results.csv")).unwrap();
    bench.write("users.csv", users(3));
    bench.import(&server).run().exits(2).because("no results");
}

#[test]
fn a_finished_run_of_standard_input_is_finished_without_it_too() {
    let server = Server::new(|_| imported());
    let bench = CliFixture::new();
    let import =
        |input: &str| bench.import_into("-", &server.endpoint()).args(&["--results", "r.results.csv"]).stdin(input).stem("r").run();
    import(&users(2)).exits(0);
    for again in ["", &users(2)] {
        import(again).exits(0).because("finished earlier");
    }
    assert_eq!(server.calls(), 2);
    assert!(bench.names().iter().all(|name| !name.contains("input")), "{:?}", bench.names());
}
