//! The files that a run reads and writes.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::support::server::{Reply, Request, Server, code, imported, ok_with};
use crate::support::{CliFixture, SDKAPPID, users};

/// Refuses every user whose UserID starts with `bad`.
fn refusing(request: &Request) -> Reply {
    if request.user_id.starts_with("bad") { code(70402) } else { imported() }
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

#[test]
fn files_are_named_after_the_input_and_are_private() {
    let bench = CliFixture::new();
    // This UserID cannot occur by chance in a hash in hexadecimal.
    bench.write("users.csv", "UserID\na\nbad-user\n");
    let server = Server::new(refusing);
    bench.import(&server).run().exits(3).settles(2);
    let left =
        ["users.csv", "users.results.csv", "users.rejects.csv", "users.checkpoint.json", "users.checkpoint.json.lock", "summary.json"];
    assert_eq!(bench.names(), names(left));
    for name in ["users.results.csv", "users.rejects.csv", "users.checkpoint.json"] {
        assert_eq!(bench.mode(name), 0o600, "{name}");
    }
    let checkpoint = bench.read("users.checkpoint.json");
    assert!(!checkpoint.contains("bad-user") && !checkpoint.contains("users.csv"), "{checkpoint}");
}

#[test]
fn files_are_named_after_the_results_or_as_asked() {
    let bench = CliFixture::new();
    bench.write("users.csv", "UserID\nbad\n");
    let server = Server::new(refusing);
    bench.import(&server).stem("out").args(&["--results", "out.results.csv"]).run().exits(3).settles(1);
    assert!(bench.names().is_superset(&names(["out.results.csv", "out.rejects.csv", "out.checkpoint.json"])), "{:?}", bench.names());
    bench.import(&server).args(&["--results", "r.csv", "--rejects", "j.csv", "--checkpoint", "c.json"]).run().exits(3);
    assert!(bench.names().is_superset(&names(["r.csv", "j.csv", "c.json"])), "{:?}", bench.names());
    bench.import(&server).args(&["--results", "x.csv", "--rejects", "x.csv"]).run().exits(2).because("x.csv");
    bench.import(&server).args(&["--results", "users.csv"]).run().exits(2).because("users.csv");
    assert_eq!(bench.read("users.csv"), "UserID\nbad\n");
    let calls = server.calls();
    bench.import(&server).args(&["--results", "missing/r.csv"]).run().exits(2).because("missing");
    let key = bench.key();
    let args =
        ["import", "users.csv", "--endpoint", &server.endpoint(), "--sdkappid", SDKAPPID, "--secret-key-file", key.to_str().unwrap()];
    bench.call(&args).args(&["--restart", "--summary", "missing/s.json"]).run().exits(2).because("missing").hints("--summary");
    assert_eq!(server.calls(), calls, "what can't be written is known before the first call");
}

#[test]
fn results_have_the_documented_columns_in_input_order_and_keep_the_user_id() {
    let bench = CliFixture::new();
    bench.write("users.csv", "\u{feff}UserID,Nick\r\nslow,1\r\n\r\n\"a,\"\"b\",2\r\n=1+1,3\r\n xy,4\r\n@TIM#x,5\r\nbad,\"6,7\"\r\nlast,8");
    let server = Server::new(|request| match request.user_id.as_str() {
        "slow" => imported().after(Duration::from_millis(200)),
        "bad" => ok_with(r#"{"ActionStatus":"FAIL","ErrorCode":70402,"ErrorInfo":"=HYPERLINK(\"x\"),\ny"}"#),
        _ => imported(),
    });
    let run = bench.import(&server).run().exits(3).settles(7);
    let outcomes: Vec<_> =
        run.rows.iter().map(|row| (row.number, row.line, row.user_id.as_str(), row.status.as_str(), row.attempts)).collect();
    let expected = [
        (1, 2, "slow", "imported", 1),
        (2, 4, "a,\"b", "imported", 1),
        (3, 5, "=1+1", "imported", 1),
        (4, 6, " xy", "invalid", 0),
        (5, 7, "@TIM#x", "invalid", 0),
        (6, 8, "bad", "failed", 1),
        (7, 9, "last", "imported", 1),
    ];
    assert_eq!(outcomes, expected);
    assert_eq!((run.rows[5].error_code.as_str(), run.rows[5].error_info.as_str()), ("70402", "'=HYPERLINK(\"x\"),\ny"));
    assert!(run.rows[4].error_info.contains("@TIM#"), "{:?}", run.rows[4]);
    for row in &run.rows {
        let time = row.finished_at.as_bytes();
        assert!(time.len() == 24 && time[10] == b'T' && time[19] == b'.' && time[23] == b'Z', "{}", row.finished_at);
    }
    let text = bench.read("users.results.csv");
    assert!(text.starts_with("row,line,UserID,status,error_code,error_info,attempts,finished_at\n1,2,slow,imported,,,1,2"), "{text}");
    assert!(text.contains("\n2,4,\"a,\"\"b\",imported,"), "{text}");
    assert!(!text.contains('\r') && text.ends_with("Z\n"), "{text}");
    bench.call(&["audit", "users.csv", "--results", "users.results.csv"]).run().exits(0);
}

#[test]
fn rejects_are_fixed_and_imported_as_they_are() {
    let bench = CliFixture::new();
    bench.write(
        "users.csv",
        "Team,UserID,Nick,error_code\nred,a,1,old\nred,bad1,\"2,3\",old\nblue, xy,=4,old\nblue,bad2\nblue,c,5,old,extra,more\n",
    );
    let server = Server::new(refusing);
    let run = bench.import(&server).run().exits(3).settles(5).hints("users.rejects.csv");
    assert_eq!(run.statuses(), ["imported", "failed", "invalid", "invalid", "invalid"]);
    let rejects = run.rejects.unwrap();
    let lines: Vec<&str> = rejects.lines().collect();
    assert_eq!(lines[0], "Team,UserID,Nick,error_code,error_info");
    assert!(lines[1].starts_with("red,bad1,\"2,3\",70402,"), "{rejects}");
    assert!(lines[2].starts_with("blue, xy,=4,,"), "{rejects}");
    assert!(lines[3].starts_with("blue,bad2,,,"), "a missing field is padded: {rejects}");
    assert!(lines[4].starts_with("blue,c,5,,") && lines[4].contains("extra, more"), "surplus fields are reported: {rejects}");
    assert_eq!(lines.len(), 5);

    bench.write("users.rejects.csv", rejects.replace("bad1", "good1").replace(" xy", "x_y"));
    let run = bench.import_of("users.rejects.csv", &server).run().exits(3).settles(4);
    assert_eq!(run.statuses(), ["imported", "imported", "failed", "imported"]);
    let rejects = run.rejects.unwrap();
    assert!(rejects.starts_with("Team,UserID,Nick,error_code,error_info\nblue,bad2,,70402,"), "the columns are replaced: {rejects}");
    assert_eq!(rejects.lines().count(), 2);
}

#[test]
fn rejects_are_separated_as_the_input_is_from_one_process_to_the_next() {
    let bench = CliFixture::new();
    bench.write("users.tsv", "UserID\tNick\nbad1\tOne, two\nbad2\tThree\ngood\tFour\n");
    let server = Server::new(refusing);
    let import = |file: &str| bench.import_of(file, &server).stem("users");
    import("users.tsv").args(&["--limit", "1"]).run().exits(3);
    let run = import("users.tsv").args(&["--delimiter", "tab"]).run().exits(3).settles(3).hints("users.rejects.csv --delimiter tab");
    let rejects = run.rejects.unwrap();
    let lines: Vec<&str> = rejects.lines().collect();
    assert_eq!(lines[0], "UserID\tNick\terror_code\terror_info");
    assert!(lines[1].starts_with("bad1\tOne, two\t70402\t") && lines[2].starts_with("bad2\tThree\t70402\t"), "{rejects}");
    bench.write("users.rejects.csv", rejects.replace("bad", "mended"));
    let run = bench.import_of("users.rejects.csv", &server).args(&["--delimiter", "tab"]).run();
    run.exits(0).imports_all(2);
}

#[test]
fn a_header_with_a_line_end_in_a_name_is_written_back_as_it_was() {
    let bench = CliFixture::new();
    let header = "\"Full\r\nName\",UserID";
    bench.write("users.csv", format!("{header}\r\n\"A\r\nB\",a\r\n\"C\r\nD\",bad1\r\n"));
    let server = Server::new(refusing);
    let run = bench.import(&server).run().exits(3).settles(2);
    assert_eq!(run.rows.iter().map(|row| row.line).collect::<Vec<_>>(), [3, 5]);
    let rejects = run.rejects.unwrap();
    assert!(rejects.starts_with(&format!("{header},error_code,error_info\n\"C\r\nD\",bad1,70402,")), "{rejects:?}");
    bench.write("users.rejects.csv", rejects.replace("bad1", "good1"));
    bench.import_of("users.rejects.csv", &server).run().exits(0).imports_all(1);
}

#[test]
fn a_finished_run_without_rejected_rows_leaves_no_rejects() {
    let bench = CliFixture::with_users(2);
    let server = Server::new(refusing);
    let run = bench.import(&server).run().exits(0).imports_all(2);
    assert_eq!(run.rejects, None);
    assert!(!bench.names().contains("users.rejects.csv"));
}

#[test]
fn the_last_row_of_a_user_id_wins() {
    let bench = CliFixture::new();
    bench.write("users.csv", "UserID,Nick\ndup,first\nother,x\ndup,second\ndup,third\n");
    let server = Server::new(|request| match request.nick.as_deref() {
        Some("first") => imported().after(Duration::from_millis(300)),
        Some("second") => imported().after(Duration::from_millis(100)),
        _ => imported(),
    });
    let run = bench.import(&server).at_any_rate().run().exits(0).imports_all(4);
    assert_eq!((server.nick("dup").as_deref(), server.calls_of("dup")), (Some("third"), 3));
    assert_eq!(run.attempts(), [1; 4]);
}

#[test]
fn an_empty_cell_is_not_sent_and_columns_can_be_mapped() {
    let bench = CliFixture::new();
    bench.write("users.tsv", "id\tname\na\t\nb\tBee\n");
    let server = Server::new(|_| imported());
    let run = bench.import_of("users.tsv", &server).stem("users").args(&["--map", "UserID=id", "--map", "Nick=name"]).run();
    run.exits(0).imports_all(2);
    assert_eq!((server.nick("a"), server.nick("b")), (None, Some("Bee".to_owned())));
}

#[test]
fn a_file_that_names_its_delimiter_is_read_resumed_and_copied_with_it() {
    let bench = CliFixture::new();
    let server = Server::new(|request| if request.user_id == "bad" { code(70402) } else { imported() });
    bench.write("users.csv", "sep=;\n\nUser ID;nick;Note\nada;\"A, da\";x\nbad;Bad;y\neve;Eve;z\n");
    bench.import(&server).args(&["--limit", "1"]).run().exits(0);
    let run = bench.import(&server).run().exits(3).settles(3).hints("--delimiter ';'");
    assert_eq!(run.rows.iter().map(|row| row.line).collect::<Vec<_>>(), [4, 5, 6]);
    assert_eq!((server.nick("ada").as_deref(), server.calls()), (Some("A, da"), 3));
    let rejects = bench.read("users.rejects.csv");
    assert!(rejects.starts_with("User ID;nick;Note;error_code;error_info\nbad;Bad;y;70402;"), "{rejects}");
    bench.import(&server).run().exits(3).because("finished earlier").hints("--delimiter ';'");
    bench.call(&["audit", "users.csv", "--results", "users.results.csv"]).run().exits(0);
    bench.call(&["check", "users.csv"]).run().exits(0);
    bench.call(&["check", "users.csv", "--delimiter", ","]).run().exits(2).hints("--delimiter ';'");
}

#[test]
fn every_command_says_first_which_columns_it_reads_and_which_similar_ones_it_ignores() {
    let bench = CliFixture::new();
    let server = Server::new(|_| imported());
    bench.write("users.csv", "uid,nick,avatar,x\na1,Ann,https://example.com/a.png,\n");
    let read = "UserID from \"uid\", Nick from \"nick\", FaceUrl from nothing; 2 columns ignored";
    let near = "--map FaceUrl=avatar";
    let map = ["--map", "UserID=UID"];
    let first_lines = |said: &str| {
        // Logs may be JSON.
        let said = said.replace("\\\"", "\"");
        let lines: Vec<_> = said.lines().take(2).collect();
        assert!(lines[0].contains(read) && lines[1].contains("\"avatar\" is ignored") && lines[1].contains(near), "{said}");
    };
    first_lines(&bench.call(&["check", "users.csv"]).args(&map).run().exits(0).stdout);
    first_lines(&bench.import(&server).args(&map).run().exits(0).stderr);
    first_lines(&bench.call(&["audit", "users.csv", "--results", "users.results.csv"]).args(&map).run().exits(0).stdout);
    first_lines(&bench.call(&["verify", "users.csv", "--sandbox", "--no-progress"]).args(&map).run().exits(3).stderr);
    let sync = ["sync", "users.csv", "--state", "s", "--sandbox", "--no-progress", "--results", "sync.csv"];
    first_lines(&bench.call(&sync).args(&map).run().exits(0).stderr);
    // A user who says that none is meant is not asked again; otherwise the column is read.
    let none = bench.call(&["check", "users.csv", "--map", "FaceUrl="]).args(&map).run().exits(0).stdout;
    assert!(none.contains("FaceUrl from nothing") && !none.contains("warning"), "{none}");
    let taken = bench.call(&["check", "users.csv", "--map", "FaceUrl=avatar"]).args(&map).run().exits(0).stdout;
    assert!(taken.contains("FaceUrl from \"avatar\"; 1 column ignored") && !taken.contains("warning"), "{taken}");
}

#[test]
fn blank_lines_are_reported_by_every_command_and_a_second_header_is_invalid() {
    let bench = CliFixture::new();
    let server = Server::new(|_| imported());
    bench.write("users.csv", "\nUserID,Nick\na1,Ann\n,\n\nUserID,Nick\nb2,Bob\n\"\", \n");
    let expected = "4 blank lines skipped";
    let says = |said: &str| assert!(said.contains(expected), "{said}");
    says(&bench.call(&["check", "users.csv"]).run().exits(3).stdout);
    let run = bench.import(&server).run().exits(3).settles(3);
    says(&run.stderr);
    assert_eq!((run.rows[1].status.as_str(), run.rows[1].error_info.as_str()), ("invalid", "the row is the header again"));
    assert_eq!((server.calls(), run.rows[1].line), (2, 6));
    says(&bench.call(&["audit", "users.csv", "--results", "users.results.csv"]).run().exits(0).stdout);
    says(&bench.call(&["verify", "users.csv", "--sandbox", "--no-progress"]).run().exits(3).stderr);
    let sync = ["sync", "users.csv", "--state", "s", "--sandbox", "--no-progress", "--results", "sync.csv"];
    says(&bench.call(&sync).args(&["--dry-run"]).run().exits(0).stderr);
    says(&bench.call(&sync).run().exits(3).stderr);
}

#[test]
fn standard_input_is_kept_until_the_run_is_finished() {
    let bench = CliFixture::new();
    let server = Server::new(|_| imported());
    bench.import_of("-", &server).stdin(&users(6)).run().exits(2).because("standard input").hints("--results");
    assert_eq!(server.calls(), 0);

    let call = || bench.import_of("-", &server).stem("out").args(&["--results", "out.results.csv"]);
    call().stdin(&users(6)).args(&["--limit", "2"]).run().exits(0).imports_all(2);
    assert_eq!((bench.read("out.input.csv"), bench.mode("out.input.csv")), (users(6), 0o600));
    call().args(&["--limit", "2"]).run().exits(0).imports_all(4);
    call().stdin(&users(6)).run().exits(0).imports_all(6);
    assert!(!bench.names().contains("out.input.csv"), "{:?}", bench.names());
    assert_eq!(server.calls(), 6);

    call().stdin(&users(6)).run().exits(0).because("finished earlier").imports_all(6);
    assert_eq!(server.calls(), 6);
    call().stdin(&users(7)).run().exits(0).imports_all(7);
    assert_eq!(server.calls(), 13, "another input is a new run");
}

#[test]
fn the_first_thousand_records_are_checked_before_the_first_request() {
    let bench = CliFixture::new();
    let server = Server::new(|_| imported());
    let with_invalid = |count: usize, invalid: usize| {
        let rows = (1..=count).map(|row| if row <= invalid { format!(" invalid{row}\n") } else { format!("user{row}\n") });
        rows.fold("UserID\n".to_owned(), |text, row| text + &row)
    };
    bench.write("users.csv", with_invalid(1_000, 11));
    let call = || bench.import(&server).at_any_rate();
    // A check lists all of them and ends like an import.
    let check = bench.call(&["check", "users.csv"]).run().exits(2).because("11 of the first 1000 rows").hints("--max-invalid");
    assert!(check.stdout.contains("refused: ") && check.stdout.contains("forecast: "), "{}", check.stdout);
    bench.import(&server).args(&["--dry-run", "--max-invalid", "1.1"]).run().exits(3);
    let run = call().run().exits(2).because("11 of the first 1000 rows").hints("chatlift check users.csv");
    assert!(run.rows.is_empty());
    assert_eq!((server.calls(), server.connections()), (0, 0));
    call().args(&["--max-invalid", "1%"]).run().exits(2);
    call().args(&["--max-invalid", "1.1"]).run().exits(3).settles(1_000);
    bench.write("users.csv", with_invalid(1_001, 10));
    call().run().exits(3).settles(1_001);
    bench.write("users.csv", with_invalid(999, 990));
    call().run().exits(3).settles(999);
}

#[test]
fn a_file_in_another_format_is_refused_before_the_first_request() {
    let bench = CliFixture::new();
    let server = Server::new(|_| imported());
    let check = |bytes: &[u8], why: &str, hint: &str| {
        bench.write("users.csv", bytes);
        bench.import(&server).run().exits(2).because(why).hints(hint);
        assert_eq!(server.connections(), 0);
        assert!(!bench.names().contains("users.results.csv"));
    };
    check(b"", "empty", "UserID");
    check(b"name\na\n", "UserID", "--map");
    check(b"userid,UserID\na,b\n", "two columns for UserID", "--map UserID=userid");
    check(b"UserID;Nick\na;b\n", "UserID", "--delimiter");
    check(b"UserID,Nick,Nick\na,b,c\n", "Nick", "rename");
    check(b"U\0s\0e\0r\0I\0D\0\n\0", "not UTF-8", "--encoding utf-16le");
    check(b"UserID\ra\rb\r", "carriage", "tr ");
    check(b"UserID,Nick\na,b\nc,\"d\n", "line 3, column 3", "close the quote");
    bench.import_of("missing.csv", &server).run().exits(2).because("missing.csv");
    bench.import_of(".", &server).run().exits(2);
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_header_without_rows_is_refused_unless_it_is_allowed() {
    let bench = CliFixture::with_users(0);
    let server = Server::new(|_| imported());
    bench.import(&server).run().exits(2).because("no rows").hints("--allow empty");
    assert_eq!(bench.names().into_iter().collect::<Vec<_>>(), ["summary.json", "users.csv"], "nothing else is left behind");
    bench.call(&["check", "users.csv"]).run().exits(2).because("no rows");
    bench.import(&server).args(&["--dry-run"]).run().exits(2);
    bench.import(&server).args(&["--dry-run", "--allow", "empty"]).run().exits(0);
    bench.import(&server).args(&["--allow", "empty"]).run().exits(0).settles(0);
    bench.import(&server).run().exits(0).because("finished earlier");
    assert_eq!(bench.read("users.results.csv").lines().count(), 1);
    assert_eq!(server.calls(), 0);
}

#[test]
fn an_unclosed_quote_stops_the_run_there_and_can_be_repaired() {
    let bench = CliFixture::new();
    let server = Server::new(|_| imported());
    let good = users(1_100);
    bench.write("users.csv", format!("{good}broken,\"x\n{}", "more,y\n".repeat(100)));
    bench.import(&server).at_any_rate().run().exits(2).because("line 1102, column 8").imports_all(1_100);
    bench.write("users.csv", format!("{good}broken,x\nmore,y\n"));
    let run = bench.import(&server).at_any_rate().run().exits(0).imports_all(1_102);
    assert!(run.stderr.contains("modified since"), "{}", run.stderr);
    assert_eq!(server.calls(), 1_102);
}

#[test]
fn the_summary_has_the_documented_keys_in_their_order() {
    let bench = CliFixture::new();
    bench.write("users.csv", "UserID\na\nbad\n xy\n");
    let server = Server::new(|request| if request.number == 0 { code(60007) } else { refusing(request) });
    let run = bench.import(&server).args(&["--in-flight", "1"]).run().exits(3).settles(3);
    let text = bench.read("summary.json");
    let keys = [
        "exit_code",
        "outcome",
        "rows",
        "imported",
        "failed",
        "invalid",
        "calls",
        "retries",
        "throttled",
        "max_calls_in_1s",
        "mean_calls_per_s",
        "elapsed_s",
        "resumed_at_row",
        "codes",
        "latency_ms",
        "p50",
        "p95",
        "p99",
        "max",
    ];
    let places: Vec<_> = keys.iter().map(|key| text.find(&format!("\"{key}\":")).unwrap_or_else(|| panic!("no {key}: {text}"))).collect();
    assert!(places.is_sorted(), "{text}");
    let number = |key: &str| run.summary[key].as_u64().unwrap();
    assert_eq!((number("exit_code"), number("rows"), number("imported"), number("failed"), number("invalid")), (3, 3, 1, 1, 1));
    assert_eq!((number("calls"), number("retries"), number("throttled"), number("resumed_at_row")), (3, 1, 1, 0));
    assert_eq!(run.summary["codes"], serde_json::json!({"0": 1, "60007": 1, "70402": 1}));
    assert_eq!(run.stdout, "");
}

#[test]
fn a_dry_run_is_a_check() {
    let bench = CliFixture::new();
    bench.write("users.csv", "UserID\na\nb \n");
    let server = Server::new(|_| imported());
    let dry = bench.import(&server).args(&["--dry-run"]).run().exits(3);
    let check = bench.call(&["check", "users.csv"]).run().exits(3);
    assert_eq!((dry.stdout, server.connections()), (check.stdout.clone(), 0));
    assert!(check.stdout.contains("would be refused"), "{}", check.stdout);
    assert_eq!(bench.names(), names(["users.csv"]));
    bench.call(&["import", "users.csv", "--dry-run", "--sdkappid", SDKAPPID]).run().exits(3);
}

#[test]
fn an_input_that_cannot_be_read_twice_is_copied_like_standard_input() {
    let server = Server::new(|_| imported());
    let bench = CliFixture::new();
    // Whatever name standard input has, the results are not named after it.
    for file in ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"] {
        bench.import_of(file, &server).stdin(&users(2)).run().exits(2).because("read twice").hints("--results");
    }
    assert_eq!(server.calls(), 0);
    let call = |file: &str| bench.import_of(file, &server).stem("out").args(&["--results", "out.results.csv"]);
    call("/dev/stdin").stdin(&users(6)).args(&["--limit", "2"]).run().exits(0).imports_all(2);
    assert_eq!((bench.read("out.input.csv"), bench.mode("out.input.csv")), (users(6), 0o600));
    // The same run continues with the copy, whichever name standard input has.
    call("-").run().exits(0).imports_all(6);
    assert_eq!(server.calls(), 6);
    assert!(!bench.names().contains("out.input.csv"), "{:?}", bench.names());

    let pipe = bench.outside("users.csv");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let name = pipe.to_str().unwrap();
    let feed = |text: String| {
        let pipe = pipe.clone();
        std::thread::spawn(move || std::fs::write(pipe, text).unwrap())
    };
    bench.import_of(name, &server).run().exits(2).because("read twice").hints("--results");
    let feeding = feed(users(7));
    let run = call(name).run().exits(0).imports_all(7);
    assert!(!run.stderr.contains("chatlift audit"), "a pipe can't be audited: {}", run.stderr);
    feeding.join().unwrap();
    let feeding = feed(users(3));
    let args = ["--results", "night.results.csv"];
    crate::sync::sync_of(&bench, &[name, "--state", "users.state"], &server.endpoint()).args(&args).run().exits(0).because("3 created");
    feeding.join().unwrap();
    assert!(!bench.names().iter().any(|name| name.contains(".input.csv")), "{:?}", bench.names());
}
