//! From the cells of a file to what is sent, through the real binary: what is refused, what the flags change, and that every file that a
//! command leaves shows the cells as the input has them.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, SystemTime};

use crate::support::server::{Server, code, imported, ok_with};
use crate::support::{Call, CliFixture, eventually, side_by_side};
use crate::sync::{connection, held, sync};

const UUID: &str = "550E8400-e29b-41d4-a716-446655440000";
const COMPACT: &str = "550E8400e29b41d4a716446655440000";
const OTHER_UUID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";
const OTHER_COMPACT: &str = "67e5504410b1426f9247bb680e5fe0c8";

/// UserID and status of each row of the results.
fn outcomes(run: &crate::support::Run) -> Vec<(&str, &str)> {
    run.rows.iter().map(|row| (row.user_id.as_str(), row.status.as_str())).collect()
}

/// Runs a command as a shell takes it, `chatlift` being the program under test.
fn command<'a>(bench: &'a CliFixture, line: &str) -> Call<'a> {
    let line = line.strip_prefix("chatlift ").unwrap();
    bench.call(&[]).through("/bin/sh", &["-c", &format!("exec \"$0\" {line}")])
}

#[test]
fn what_the_service_takes_is_sent_and_what_it_cannot_is_not() {
    let server = Server::new(|_| imported());
    let bench = CliFixture::new();
    bench.write(
        "users.csv",
        b"UserID,Nick,FaceUrl\na,\"two\nlines\",\nb,\x01,\nc,\xe2\x80\xae,\nd,\xef\xbb\xbfd,x\ne,\0,\nf,\xff,\ng,,\nh,,\ni,,\nj,,\n"
            .as_slice(),
    );
    let run = bench.import(&server).run().exits(3).settles(10);
    assert_eq!(run.statuses()[..6], ["imported", "imported", "imported", "imported", "invalid", "invalid"]);
    let why: Vec<&str> = run.rows[4..6].iter().map(|row| row.error_info.as_str()).collect();
    assert_eq!(why, ["Nick holds a NUL character (U+0000)", "Nick is not valid UTF-8"]);
    assert_eq!((server.nick("a").as_deref(), server.nick("d").as_deref()), (Some("two\nlines"), Some("\u{feff}d")));
}

#[test]
fn cells_are_read_as_the_flags_say_and_shown_as_the_file_has_them() {
    let server = Server::new(|request| if request.user_id == "bad" { code(70402) } else { imported() });
    let bench = CliFixture::new();
    bench.write(
        "users.csv",
        format!("Note,UserID,Nick\n x , a\u{3000}, A \nNULL,b,NULL\n,李雷,-\n,{UUID},u\n, bad ,\t B\nn, NULL,n\n,{UUID}x,\n"),
    );
    let flags = ["--trim", "--null", "NULL", "--null", "-", "--user-ids", "any", "--compact-uuid"];
    let run = bench.import(&server).args(&flags).run().exits(3);
    let uuid_and_more = format!("{UUID}x");
    let expected = [
        (" a\u{3000}", "imported"),
        ("b", "imported"),
        ("李雷", "imported"),
        (UUID, "imported"),
        (" bad ", "failed"),
        (" NULL", "invalid"),
        (&uuid_and_more, "invalid"),
    ];
    assert_eq!(outcomes(&run), expected);
    let nicks = ["a", "b", "李雷", COMPACT].map(|id| server.nick(id));
    assert_eq!(nicks.each_ref().map(Option::as_deref), [Some("A"), None, None, Some("u")]);
    let rejects = run.rejects.clone().unwrap();
    let lines: Vec<&str> = rejects.lines().collect();
    assert!(lines[1].starts_with(", bad ,\t B,70402,"), "{rejects}");
    assert!(lines[2].starts_with("n, NULL,n,,UserID is empty"), "{rejects}");
    bench.call(&["audit", "users.csv", "--results", "users.results.csv"]).run().exits(0);

    // The hint's command reads the rejects as the input was read.
    let hint = run.stderr.lines().find_map(|line| line.split_once("then ")?.1.strip_prefix("chatlift ")).unwrap();
    bench.write("users.rejects.csv", rejects.replace("bad", "good").replace(", NULL,", ", x ,").replace(&uuid_and_more, OTHER_UUID));
    let again = command(&bench, &format!("chatlift {hint}")).against(&server).stem("users.rejects").run().exits(0);
    assert_eq!(outcomes(&again), [(" good ", "imported"), (" x ", "imported"), (OTHER_UUID, "imported")]);
    assert_eq!(server.nick("good").as_deref(), Some("B"));
}

#[test]
fn flags_that_change_what_is_read_are_part_of_the_run() {
    let server = Server::new(|_| imported());
    let bench = CliFixture::new();
    bench.write("users.csv", "UserID,Nick\na, A\nb,NULL\n");
    let import = |flags: &[&str]| bench.import(&server).args(flags).run();
    import(&["--limit", "1"]).exits(0);
    let before = bench.contents_but_summary();
    let changed: [(&[&str], &str); 5] = [
        (&["--trim"], "--trim was not given"),
        (&["--null", "NULL"], "--null was not given"),
        (&["--user-ids", "any"], "--user-ids was not given"),
        (&["--compact-uuid"], "--compact-uuid was not given"),
        (&["--multiline"], "--multiline was not given"),
    ];
    for (flags, why) in changed {
        import(flags).exits(2).because(why).hints("--restart");
    }
    assert_eq!((bench.contents_but_summary(), server.calls()), (before, 1));
    import(&[]).exits(0).imports_all(2);
    assert_eq!(server.nick("a").as_deref(), Some(" A"));
    import(&["--trim"]).exits(0).imports_all(2);
    assert_eq!(server.nick("a").as_deref(), Some("A"));
    import(&["--trim", "--null", "NULL", "--null", "-"]).exits(0).imports_all(2);
    assert_eq!((server.nick("b"), server.calls()), (None, 6));
    import(&["--null", "-", "--null", "NULL", "--trim"]).exits(0).because("finished earlier");
    assert_eq!(server.calls(), 6);
}

#[test]
fn the_last_row_of_an_id_wins_however_its_cells_are_written() {
    let server = Server::new(|_| imported());
    let bench = CliFixture::new();
    bench.write("users.csv", format!("UserID,Nick\n{UUID},1\n {COMPACT} ,2\n"));
    bench.import(&server).args(&["--compact-uuid", "--trim"]).run().exits(0);
    assert_eq!(server.nick(COMPACT).as_deref(), Some("2"));
    let check = bench.call(&["check", "users.csv", "--compact-uuid", "--trim"]).run();
    assert!(check.stdout.contains("duplicates: 1 row superseded"), "{}", check.stdout);
    let verify = bench.call(&["verify", "users.csv", "--compact-uuid", "--trim", "--rate", "0"]);
    verify.args(&connection(&bench, &server.endpoint()).each_ref().map(String::as_str)).run();
    let found = bench.read("users.verify.csv");
    assert!(found.lines().nth(1).unwrap().starts_with(&format!("2,3, {COMPACT} ,")), "{found}");
}

#[test]
fn the_compact_form_is_the_id_of_the_state_the_plan_shows_the_cell() {
    let server = Server::new(|_| imported());
    let bench = CliFixture::new();
    let sync = |flags: &[&str]| sync(&bench, &server).args(&["--compact-uuid", "--plan", "plan.csv"]).args(flags).run();
    bench.write("users.csv", format!("UserID,Nick\n{UUID},1\n{OTHER_UUID},2\nplain,3\n"));
    let run = sync(&["--canary", UUID, "--canary", OTHER_COMPACT]).exits(0);
    assert_eq!(outcomes(&run), [(UUID, "created"), (OTHER_UUID, "created"), ("plain", "created")]);
    assert!(bench.read("plan.csv").contains(&format!("create,1,2,{UUID},")), "{}", bench.read("plan.csv"));
    assert_eq!(held(&bench), [COMPACT, OTHER_COMPACT, "plain"]);
    sync(&[]).exits(0).because("3 unchanged");
    // Either form of the same id is the same account.
    bench.write("users.csv", format!("UserID,Nick\n{COMPACT},1\nplain,3\n"));
    sync(&["--canary", OTHER_UUID]).exits(6).because("canary");
    let protect = format!("{}*", &OTHER_UUID[..9]);
    let kick = ["--missing", "kick", "--missing-runs", "1", "--missing-apart", "0s"];
    sync(&[&kick[..], &["--protect", &protect]].concat()).exits(0);
    let missing = bench.read("users.missing.csv");
    assert!(missing.contains(&format!("\n{OTHER_COMPACT},")) && missing.contains(",protected,"), "{missing}");
    bench.call(&["state", "users.state", "forget", OTHER_UUID]).run().exits(0).because("1 of 1 UserID dropped");
    assert_eq!(held(&bench), [COMPACT, "plain"]);
}

#[test]
fn an_unfinished_sync_that_is_read_otherwise_is_planned_anew_and_knows_what_was_sent() {
    let server = Server::new(|_| imported());
    let bench = CliFixture::new();
    bench.write("users.csv", format!("UserID,Nick\n{UUID},1\n x ,2\nNULL,3\n"));
    let flags = ["--compact-uuid", "--trim"];
    sync(&bench, &server).args(&flags).args(&["--limit", "2"]).run().exits(0);
    let run = sync(&bench, &server).args(&flags).args(&["--null", "NULL"]).run().exits(3);
    assert_eq!(outcomes(&run), [("NULL", "invalid")]);
    assert_eq!((held(&bench), server.calls()), (vec![COMPACT.to_owned(), "x".to_owned()], 2));
}

#[test]
fn a_file_with_escaped_quotes_is_told_and_read_as_the_hint_says() {
    let server = Server::new(|request| if request.user_id == "bad" { code(70402) } else { imported() });
    let bench = CliFixture::new();
    bench.write("users.csv", "UserID,Nick,FaceUrl\na,\"say \\\"hi\\\" now\",\\N\nbad,\"doubled \"\" too\",x\\,y\nc,\"\",\n");
    for call in [&["check", "users.csv"][..], &["audit", "users.csv", "--results", "users.csv"]] {
        let run = bench.call(call).run();
        assert_eq!(run.code, Some(2), "{call:?}: {}", run.stderr);
        assert!(run.stderr.contains("hint: read it with --escape '\\'") || call[0] == "audit", "{call:?}: {}", run.stderr);
    }
    bench.import(&server).run().exits(2).because("a backslash escapes the quote").hints("--escape '\\'");
    sync(&bench, &server).run().exits(2).hints("--escape '\\'");
    assert_eq!(server.calls(), 0);
    let run = bench.import(&server).args(&["--escape", "\\", "--limit", "1"]).run().exits(0);
    assert_eq!(outcomes(&run), [("a", "imported")]);
    bench.import(&server).run().exits(2).because("--escape was");
    let run = bench.import(&server).args(&["--escape", "\\"]).run().exits(3);
    assert_eq!(outcomes(&run), [("a", "imported"), ("bad", "failed"), ("c", "imported")]);
    assert_eq!((server.nick("a").as_deref(), server.nick("c")), (Some("say \"hi\" now"), None));
    // The rejects have doubled quotes, so the hint's command has no --escape; the audit reads the input, so it has.
    assert!(run.rejects.unwrap().contains("\nbad,\"doubled \"\" too\",\"x,y\",70402,"), "doubled quotes");
    assert!(!run.stderr.lines().any(|line| line.contains("import users.rejects.csv") && line.contains("--escape")), "{}", run.stderr);
    bench.call(&["audit", "users.csv", "--results", "users.results.csv", "--escape", "\\"]).run().exits(0);
}

#[test]
fn a_reason_that_all_invalid_records_share_is_told_with_what_helps() {
    let server = Server::new(|_| imported());
    let bench = CliFixture::new();
    let uuids: String = (0..1_000).fold("UserID\n".to_owned(), |text, row| text + &format!("550e8400-e29b-41d4-a716-4466554{row:05}\n"));
    bench.write("users.csv", &uuids);
    bench.import(&server).run().exits(2).because("1000 of the first 1000 rows").hints("--compact-uuid sends");
    let check = bench.call(&["check", "users.csv"]).run();
    assert!(check.code == Some(2) && check.stderr.contains("hint: --compact-uuid sends"), "{}", check.stderr);
    assert!(check.stdout.contains("refused: UserID is too long: 1,000 rows"), "the whole list comes first: {}", check.stdout);
    assert_eq!(bench.call(&["check", "users.csv", "--compact-uuid"]).run().code, Some(0));
    let check = |text: &str, hint: &str| {
        bench.write("users.csv", text);
        let run = bench.call(&["check", "users.csv"]).run();
        assert!(run.code == Some(3) && run.stderr.contains(&format!("hint: {hint}")), "{text:?}: {}", run.stderr);
    };
    check("UserID\na \n b\nc\n", "--trim takes");
    check("UserID\n李雷\nc\n", "--user-ids any sends");
    check("UserID,Nick\na,\"x\nb,y\"\nc,\n", "close the quotes, or --multiline");
    check("UserID,Nick\na,\"x\" y\nc,\n", "double the quotes within fields, or --escape '\\'");
    check("UserID\na \n李雷\n", "correct them");
    // An import that is not refused tells it at its end.
    let run = bench.quiet_import_into("users.csv", &server.endpoint()).at_any_rate().run().exits(3);
    assert!(!run.stderr.contains("in common"), "{}", run.stderr);
    bench.write("users.csv", "UserID\nx\na \n");
    let run = bench.quiet_import_into("users.csv", &server.endpoint()).at_any_rate().run().exits(3);
    assert!(run.stderr.contains("one reason in common") && run.stderr.contains("--trim takes"), "{}", run.stderr);
}

#[test]
fn every_command_names_the_flag_for_uuids_and_for_swallowed_lines() {
    let server = Server::new(|_| imported());
    let bench = CliFixture::new();
    let says = |text: &str, expected: &str| {
        bench.write("users.csv", text);
        let connection = connection(&bench, &server.endpoint());
        let connection = connection.each_ref().map(String::as_str);
        let runs = [
            bench.call(&["check", "users.csv"]).run(),
            bench.quiet_import_into("users.csv", &server.endpoint()).at_any_rate().args(&["--restart"]).run(),
            sync(&bench, &server).args(&["--dry-run"]).run(),
            bench.call(&["verify", "users.csv", "--rate", "0"]).args(&connection).run(),
        ];
        for run in runs {
            assert!(run.stderr.contains(expected), "{expected}: {}", run.stderr);
        }
    };
    let uuids = (0..30).map(|row| format!("550e8400-e29b-41d4-a716-4466554400{row:02},")).collect::<Vec<_>>().join("\n");
    says(&format!("UserID,Nick\nok,\n {uuids}\n"), "--compact-uuid sends UUIDs");
    says("UserID,Nick\n,a\nb,\"x\nc,y\"\nok,\n", "close the quotes, or --multiline takes");
}

#[test]
fn an_unfinished_run_whose_file_has_a_column_newly_read_goes_on_without_it() {
    let server = Server::new(|_| imported());
    let bench = CliFixture::new();
    bench.write("users.csv", "UserID,nick\na,A\nb,B\n");
    bench.import(&server).args(&["--map", "Nick=", "--limit", "1"]).run().exits(0);
    let run = bench.import(&server).run().exits(2).because("column of Nick was none, now it is 2").hints("--map Nick= continues");
    assert!(run.stderr.contains("--restart"), "{}", run.stderr);
    bench.import(&server).args(&["--map", "Nick="]).run().exits(0).imports_all(2);
    assert_eq!((server.nick("a"), server.nick("b")), (None, None));
}

#[test]
fn a_file_of_no_bytes_is_one_without_records_where_that_is_allowed() {
    let server = Server::new(|_| imported());
    let bench = CliFixture::new();
    bench.write("users.csv", "");
    bench.import(&server).run().exits(2).because("the file is empty");
    let run = bench.import(&server).args(&["--allow", "empty"]).run().exits(0);
    assert_eq!((run.rows.len(), run.summary["rows"].as_u64()), (0, Some(0)));
    bench.import(&server).args(&["--allow", "empty"]).run().exits(0).because("finished earlier");
    bench.write("users.csv", "UserID\na\n");
    bench.import(&server).args(&["--allow", "empty"]).run().exits(0).imports_all(1);
}

#[test]
fn a_sync_takes_a_file_of_no_bytes_where_that_is_allowed() {
    let server = Server::new(|_| imported());
    let bench = CliFixture::new();
    bench.write("users.csv", crate::support::users(3));
    sync(&bench, &server).run().exits(0);
    bench.write("users.csv", "");
    sync(&bench, &server).run().exits(2).because("the file is empty");
    // It has no line end, either.
    sync(&bench, &server).args(&["--allow", "empty"]).run().exits(6).because("cut").hints("--allow cut");
    let run = sync(&bench, &server).args(&["--allow", "empty", "--allow", "cut"]).run().exits(0);
    assert_eq!((run.summary["plan"]["missing"].as_u64(), server.calls()), (Some(3), 3), "{}", run.stderr);
    // Other guards judge it as any file.
    bench.write("users.csv", crate::support::users(100));
    sync(&bench, &server).run().exits(0);
    bench.write("users.csv", "");
    sync(&bench, &server).args(&["--allow", "empty"]).run().exits(6).because("shrunk");
}

#[test]
fn a_sync_reads_uuids_as_the_last_finished_one() {
    let server = Server::new(|_| imported());
    let bench = CliFixture::new();
    bench.write("users.csv", format!("UserID\n{UUID}\nb\n"));
    sync(&bench, &server).args(&["--compact-uuid"]).run().exits(0);
    let (calls, held_before) = (server.calls(), held(&bench));
    sync(&bench, &server).run().exits(2).because("--compact-uuid").hints("give --compact-uuid again");
    assert_eq!((server.calls(), held(&bench)), (calls, held_before.clone()));
    sync(&bench, &server).args(&["--compact-uuid"]).run().exits(0).because("2 unchanged");
    // It is the state that knows, whatever the results are called, and one that an import has filled knows it too.
    let other = ["--results", "other.results.csv"];
    sync(&bench, &server).args(&other).run().exits(2).because("--compact-uuid").hints("give --compact-uuid again");
    assert_eq!(held(&bench), held_before);
    let bench = CliFixture::new();
    bench.write("users.csv", format!("UserID\n{UUID}\nb\n"));
    bench.import(&server).args(&["--compact-uuid", "--state", "users.state"]).run().exits(0);
    sync(&bench, &server).args(&other).run().exits(2).because("--compact-uuid").hints("give --compact-uuid again");
    sync(&bench, &server).args(&other).args(&["--compact-uuid"]).run().exits(0).because("2 unchanged");

    let (server, bench) = (Server::new(|_| imported()), CliFixture::new());
    let uuids = (0..60).map(|row| format!("{row:08x}{},", &UUID[8..])).collect::<Vec<_>>().join("\n");
    bench.write("users.csv", format!("UserID,Nick\n{COMPACT},\n"));
    sync(&bench, &server).run().exits(0);
    bench.write("users.csv", format!("UserID,Nick\n{uuids}\n{COMPACT},\n"));
    let run = sync(&bench, &server).args(&["--compact-uuid"]).run().exits(2);
    run.because("the last finished run was without --compact-uuid").hints("leave --compact-uuid out");
    assert_eq!(held(&bench), [COMPACT]);
}

#[test]
fn a_last_line_without_its_end_is_read_once_nobody_writes_to_it_and_told() {
    let server = Server::new(|_| imported());
    let bench = CliFixture::new();
    bench.write("users.csv", "UserID\na\nbo");
    let mut file = File::options().append(true).open(bench.path("users.csv")).unwrap();
    // It is being written before the process looks at it, and until that has had it open for some while.
    let is_written = || file.set_modified(SystemTime::now()).unwrap();
    is_written();
    let running = bench.import(&server).start();
    eventually("it reads the file", || {
        is_written();
        running.has_open("users.csv")
    });
    for _ in 0..20 {
        is_written();
        std::thread::park_timeout(Duration::from_millis(10));
    }
    file.write_all(b"b").unwrap();
    let run = running.wait().exits(0);
    assert_eq!(outcomes(&run), [("a", "imported"), ("bob", "imported")]);
    assert!(run.stderr.contains("no line end at its end"), "{}", run.stderr);
    let check = bench.call(&["check", "users.csv"]).run();
    assert!(check.stdout.contains("no line end at its end: it may have been cut off"), "{}", check.stdout);
    let audit = bench.call(&["audit", "users.csv", "--results", "users.results.csv"]).run().exits(0);
    assert!(audit.stdout.contains("no line end at its end: it may have been cut off"), "{}", audit.stdout);
}

#[test]
fn an_import_fills_a_state_with_the_ids_that_were_sent_and_a_verification_asks_about_these() {
    let server = Server::new(|_| imported());
    let bench = CliFixture::new();
    bench.write("users.csv", format!("UserID,Nick\n {UUID},1\nb ,2\n李雷,3\n"));
    let flags = ["--compact-uuid", "--trim", "--user-ids", "any"];
    bench.import(&server).args(&flags).args(&["--state", "users.state"]).run().exits(0);
    assert_eq!(held(&bench), [COMPACT, "b", "李雷"]);
    let sync_of = |more: &[&str]| sync(&bench, &server).args(&flags).args(&["--results", "night.results.csv"]).args(more).run();
    sync_of(&[]).exits(0).because("3 unchanged");
    // Another service has none of them: what is missing is told, and repaired, as the file has it.
    let none = Server::new(|request| {
        assert!(request.command.ends_with("account_check"), "{}", request.command);
        let missing = |id: &str| format!(r#"{{"UserID":"{id}","ResultCode":0,"ResultInfo":"","AccountStatus":"NotImported"}}"#);
        let items = [COMPACT, "b", "李雷"].map(missing).join(",");
        ok_with(&format!(r#"{{"ActionStatus":"OK","ErrorCode":0,"ErrorInfo":"","ResultItem":[{items}]}}"#))
    });
    let verify = bench.call(&["verify", "users.csv", "--rate", "0"]).args(&flags);
    let run = verify.args(&connection(&bench, &none.endpoint()).each_ref().map(String::as_str)).run();
    assert_eq!(run.code, Some(3), "{}", run.stderr);
    let found = bench.read("users.verify.csv");
    assert!(found.contains(&format!("\n1,2, {UUID},missing,")) && found.contains("\n2,3,b ,missing,"), "{found}");
    assert_eq!(bench.read("users.repair.csv"), bench.read("users.csv"), "the cells as the file has them");
}

#[test]
fn what_quotes_have_swallowed_is_sent_by_no_rejects_file_until_it_is_mended() {
    let beside = "u1,\"a\"b,\nu2,\"Tom,http://x/1\nu3,Ann,http://x/2\nu4,\"Bob\",http://x/3\n";
    let cases = [
        ("UserID,Nick,FaceUrl", beside.to_owned(), 2, vec![]),
        ("UserID,Nick,error_code,error_info", "u1,\"a\"b,,\"x \"\"y\"\"\"\n".to_owned(), 1, vec![]),
        ("UserID,error_info,Nick", "u1,x,\"a\"b\n".to_owned(), 1, vec![]),
        ("UserID,Nick", "u1,\"a\nu2,b\nu3,c\"\n".to_owned(), 1, vec![]),
        ("UserID,Nick", "u1,\"a\r\nu2,b\r\nu3,c\"\r\n".to_owned(), 1, vec![]),
        ("UserID,Nick,error_code,error_info", "u1,\"a\nu2,b\nu3,c\",,\n".to_owned(), 1, vec![]),
        ("UserID,Nick", "UserID,Nick\n".to_owned(), 1, vec![]),
        ("UserID,Nick", "u1,\"a\\\"b\"c\n".to_owned(), 1, vec!["--escape", "\\"]),
        ("UserID,Nick", "u1,\"a\nu2,b\"\n".to_owned(), 1, vec!["--escape", "\\"]),
    ];
    side_by_side(cases, |(header, text, rows, flags)| {
        let (server, bench, valid) = (Server::new(|_| imported()), CliFixture::new(), 200_usize);
        let commas = ",".repeat(header.matches(',').count());
        let ok = (0..valid).map(|row| format!("ok{row}{commas}")).collect::<Vec<_>>().join("\n");
        bench.write("users.csv", format!("{header}\n{ok}\n{text}"));
        bench.import(&server).at_any_rate().args(&flags).args(&["--restart"]).run().exits(3).because(&format!("{rows} invalid"));
        assert_eq!(server.calls(), valid, "{text}");
        for _ in 0..3 {
            let rejects = bench.read("users.rejects.csv");
            bench.write("again.csv", rejects.clone());
            let run = bench.import_of("again.csv", &server).args(&["--max-invalid", "100", "--restart"]).run().exits(3);
            assert_eq!((server.calls(), run.rows.len()), (valid, rows), "{rejects}");
            assert_eq!(run.statuses(), vec!["invalid"; rows], "{rejects}");
            bench.write("users.rejects.csv", bench.read("again.rejects.csv"));
        }
    });
}

#[test]
fn whatever_was_rejected_is_short_enough_for_an_import_of_its_rejects() {
    let server = Server::new(|_| imported());
    let bench = CliFixture::new();
    // Each record is as long as one may be. In the rejects quotes are doubled, surplus fields stand in the reason, and bytes that are no text
    // become three each there.
    let rows = [("u1,\"", "\"\",", "\"\n"), ("u2,", "a\"", "\n"), ("u3,n,", "\u{e9}", "\n"), ("u4,n,", "a\",", "\n")];
    let mut text = b"UserID,Nick\n".to_vec();
    for (start, middle, end) in rows {
        let middle: Vec<u8> = middle.chars().map(|char| u8::try_from(char).unwrap()).collect();
        let room = (1 << 16) - start.len() - end.len();
        let filler = middle.iter().copied().cycle().take(room / middle.len() * middle.len());
        text.extend(start.bytes().chain(filler).chain(end.bytes()));
    }
    bench.write("users.csv", text);
    let run = bench.import(&server).run().exits(3);
    assert_eq!((run.statuses(), server.calls()), (vec!["invalid"; 4], 0));
    let rejects = bench.path("users.rejects.csv");
    assert!(std::fs::metadata(&rejects).unwrap().len() > 4 << 16);
    let run = bench.import_of("users.rejects.csv", &server).run();
    assert_eq!(run.rows.len(), 4, "{}", run.stderr);
    // As long as that a record is only in a rejects file.
    let header_only = std::fs::read_to_string(&rejects).map(|text| text.replacen(",error_info", ",info", 1));
    bench.write("other.csv", header_only.unwrap());
    bench.call(&["check", "other.csv"]).run().exits(2);
}

#[test]
fn a_row_of_a_rejects_file_that_had_another_number_of_fields_is_told_before_it_is_sent() {
    let server = Server::new(|_| imported());
    let bench = CliFixture::new();
    bench.write("users.csv", "UserID,Nick,FaceUrl\na,Li, Lei,https://x.example/1\nb\n c,Ann,\nd,Bob,\n");
    bench.import(&server).run().exits(3).because("3 invalid");
    let told = "odd: cells that may stand in the wrong columns";
    let check = bench.call(&["check", "users.rejects.csv"]).run();
    assert!(check.stdout.contains(&format!("{told}: 2 rows")), "{}", check.stdout);
    bench.import_of("users.rejects.csv", &server).args(&["--strict"]).run().exits(2).because("wrong columns");
    let run = bench.import_of("users.rejects.csv", &server).run().exits(3);
    let place = |words: &str| run.stderr.find(words).unwrap_or_else(|| panic!("{words}: {}", run.stderr));
    assert!(place(told) < place("importing users.rejects.csv"), "{}", run.stderr);
    // What somebody has mended says no more why it was rejected.
    bench.write("mended.csv", "UserID,Nick,FaceUrl,error_code,error_info\na,\"Li, Lei\",https://x.example/1,,\n");
    assert!(!bench.call(&["check", "mended.csv"]).run().exits(0).stdout.contains(told));
}

#[test]
fn a_rejects_file_keeps_a_column_that_is_read_whatever_its_name() {
    let server = Server::new(|request| if request.user_id == "bad" { code(70402) } else { imported() });
    let bench = CliFixture::new();
    for header in ["UserID,error_info,x", "x,UserID,error_code,error_info", "error_info,UserID,x"] {
        let columns: Vec<&str> = header.split(',').collect();
        let row = columns
            .iter()
            .map(|name| match *name {
                "UserID" => "bad",
                "error_info" => "Ann",
                _ => "",
            })
            .collect::<Vec<_>>()
            .join(",");
        bench.write("users.csv", format!("{header}\n{row}\n"));
        let run = bench.import(&server).args(&["--map", "Nick=error_info", "--restart"]).run().exits(3);
        let hint = run.stderr.lines().find_map(|line| line.split_once("then ")?.1.strip_prefix("chatlift ")).unwrap().to_owned();
        let rejects = bench.read("users.rejects.csv");
        bench.write("users.rejects.csv", rejects.replace("bad", "good"));
        command(&bench, &format!("chatlift {hint} --restart")).against(&server).stem("users.rejects").run().exits(0).imports_all(1);
        assert_eq!(server.nick("good").as_deref(), Some("Ann"), "{rejects}");
    }
}
