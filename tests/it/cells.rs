//! From the cells of a file to what is sent, through the real binary: what is refused, what the flags change, and that every file that a
//! command leaves shows the cells as the input has them.

use crate::binary::{Call, CliFixture};
use crate::hostile::server::{Server, code, imported};
use crate::sync::{connection, held, sync};

const UUID: &str = "550E8400-e29b-41d4-a716-446655440000";
const COMPACT: &str = "550E8400e29b41d4a716446655440000";
const OTHER_UUID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";
const OTHER_COMPACT: &str = "67e5504410b1426f9247bb680e5fe0c8";

/// UserID and status of each row of the results.
fn outcomes(run: &crate::binary::Run) -> Vec<(&str, &str)> {
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
        b"UserID,Nick,FaceUrl\na,\"two\nlines\",\nb,\x01,\nc,\xe2\x80\xae,\nd,\xef\xbb\xbfd,x\ne,\0,\nf,\xff,\n".as_slice(),
    );
    let run = bench.import(&server).run().exits(3).settles(6);
    assert_eq!(run.statuses(), ["imported", "imported", "imported", "imported", "invalid", "invalid"]);
    let why: Vec<&str> = run.rows[4..].iter().map(|row| row.error_info.as_str()).collect();
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
    let import = |flags: &[&str]| bench.import(&server).args(flags).long_after().run();
    import(&["--limit", "1"]).exits(0);
    let before = bench.contents();
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
    assert_eq!((bench.contents(), server.calls()), (before, 1));
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
    assert!(check.stdout.contains("duplicates: 1 record superseded"), "{}", check.stdout);
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
    bench.call(&["state", "users.state", "forget", OTHER_UUID]).run().exits(0).because("1 of 1 id dropped");
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
