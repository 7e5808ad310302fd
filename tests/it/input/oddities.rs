//! What is odd in a file is told by whoever reads all of it, with the flag that helps, and refused where that is asked for.

use crate::support::server::{Server, imported};
use crate::support::{CliFixture, users};
use crate::sync::sync;

/// Every kind of oddity that a file shows on its own, and the rows where each stands first. `row` is the row of the first cell.
fn odd_file() -> String {
    let mut text = "UserID,Nick,FaceUrl\n".to_owned();
    text += "a@b,two\u{2028}lines,x.png\n'00123,a\u{202e}b,\nTwin,\u{200b},\ntwin,\u{fffd},\"a\nb\"\n";
    let nick = |row: u64| if row.is_multiple_of(4) { "N/A".to_owned() } else { row.to_string() };
    (5..=60).fold(text, |text, row| text + &format!("user{row},{},\n", nick(row)))
}

const KINDS: [&str; 10] = [
    "UserID with other characters than A-Z a-z 0-9 _ -: 1 row",
    "UserID as a spreadsheet writes numbers: 1 row",
    "Nick with line breaks or other control characters: 1 row",
    "FaceUrl with line breaks or other control characters: 1 row",
    "Nick with characters that change the direction of text: 1 row",
    "Nick that nobody can see: 1 row",
    "Nick with U+FFFD",
    "one Nick \"N/A\" in 14 of 60 rows",
    "FaceUrl that is no http or https URL: 2 rows",
    "UserID that differs from an earlier one only in case: 1 row",
];

#[test]
fn check_lists_every_kind_with_its_places_and_what_helps() {
    let bench = CliFixture::new();
    bench.write("users.csv", odd_file());
    let check = bench.call(&["check", "users.csv"]).run();
    assert_eq!(check.code, Some(0), "what is odd can be sent: {}", check.stderr);
    for kind in KINDS {
        assert!(check.stdout.contains(&format!("\nodd: {kind}")), "{kind}: {}", check.stdout);
    }
    for told in [
        "  --null N/A reads it as empty; --map Nick= reads none\n  row 8, line 10\n  row 12, line 14\n  row 16, line 18\n  … and 11 more\n",
        "  row 1, line 2: \"a@b\"\n",
        "  row 2, line 3: \"a\\u{202e}b\"\n",
        "  row 4, line 5\n",
    ] {
        assert!(check.stdout.contains(told), "{told}: {}", check.stdout);
    }
    let strict = bench.call(&["check", "users.csv", "--strict"]).run();
    assert_eq!((strict.code, &strict.stdout), (Some(2), &check.stdout), "{}", strict.stderr);
    assert!(strict.why().contains("one Nick \"N/A\""), "{}", strict.why());
    // The flag that helps leaves nothing of what it helps against.
    let helped = bench.call(&["check", "users.csv", "--null", "N/A"]).run();
    assert!(!helped.stdout.contains("odd: one Nick"), "{}", helped.stdout);
    bench.write("users.csv", users(100));
    assert_eq!(bench.call(&["check", "users.csv", "--strict"]).run().code, Some(0));
}

#[test]
fn an_import_tells_what_is_odd_among_the_first_records_at_once_and_all_at_its_end() {
    let server = Server::new(|_| imported());
    let bench = CliFixture::new();
    let text = odd_file() + &(61..=1_010).fold(String::new(), |text, row| text + &format!("user{row},\u{200b},\n"));
    bench.write("users.csv", text);
    let run = bench.quiet_import_into("users.csv", &server.endpoint()).at_any_rate().against(&server).run().exits(0);
    let [first, last] = ["among the first 1,000 rows: odd: Nick that nobody can see: 941 rows", " odd: Nick that nobody can see: 951 rows"];
    let place = |words: &str| run.stderr.find(words).unwrap_or_else(|| panic!("{words}: {}", run.stderr));
    assert!(place(first) < place("importing users.csv") && place("importing users.csv") < place(last), "{}", run.stderr);
    assert!(run.stderr.contains("row 3 (line 4), row 61 (line 63), row 62 (line 64), …"), "{}", run.stderr);
    assert!(!run.stderr.contains("only in case"), "twins take a sort: {}", run.stderr);
}

#[test]
fn a_resumed_import_says_that_it_tells_what_is_odd_only_behind_what_was_settled() {
    let server = Server::new(|_| imported());
    let bench = CliFixture::new();
    bench.write("users.csv", users(1_100) + "a,\u{200b}\nb,\u{200b}\n");
    let all = "looked at for what is odd";
    let first = bench.import(&server).at_any_rate().args(&["--limit", "1101"]).run().exits(0);
    assert!(!first.stderr.contains(all), "{}", first.stderr);
    let run = bench.import(&server).at_any_rate().run().exits(0);
    assert!(run.stderr.contains("behind row 1,101: odd: Nick that nobody can see: 1 row: row 1102"), "{}", run.stderr);
    assert!(
        run.stderr.contains("behind row 1,101: only these rows were looked at for what is odd; chatlift check users.csv looks at all"),
        "{}",
        run.stderr
    );
    assert!(bench.call(&["check", "users.csv"]).run().exits(0).stdout.contains("nobody can see: 2 rows"));
}

#[test]
fn a_strict_import_reads_everything_first_and_judges_once() {
    let server = Server::new(|_| imported());
    let bench = CliFixture::new();
    let text = users(1_200) + "last,\u{200b}\n";
    bench.write("users.csv", &text);
    // A refusal before the first request writes the summary, and nothing else.
    let mut expected = bench.names();
    expected.insert("summary.json".to_owned());
    let run = bench.import(&server).args(&["--strict"]).run().exits(2).because("nobody can see").hints("chatlift check users.csv");
    assert!(run.stderr.contains("reading the whole file before the first request"), "{}", run.stderr);
    assert_eq!((server.calls(), bench.names()), (0, expected));
    let check = bench.call(&["import", "users.csv", "--dry-run", "--strict"]).run();
    assert_eq!(check.code, Some(2), "{}", check.stderr);
    // What an unfinished run has begun is gone on with.
    bench.import(&server).at_any_rate().args(&["--limit", "1"]).run().exits(0);
    bench.import(&server).at_any_rate().args(&["--strict"]).run().exits(0).imports_all(1_201);
}

#[test]
fn a_sync_tells_what_is_odd_with_its_plan_and_a_strict_one_sends_nothing() {
    let server = Server::new(|_| imported());
    let bench = CliFixture::new();
    bench.write("users.csv", odd_file());
    let names = bench.names();
    let dry = sync(&bench, &server).args(&["--dry-run"]).run().exits(0);
    for kind in KINDS {
        assert!(dry.stderr.contains(&format!("odd: {}", kind.trim_start())), "{kind}: {}", dry.stderr);
    }
    sync(&bench, &server).args(&["--strict", "--dry-run"]).run().exits(2).because("--strict");
    sync(&bench, &server).args(&["--strict"]).run().exits(2).because("only in case").hints("chatlift check users.csv");
    std::fs::remove_file(bench.path("summary.json")).unwrap();
    assert_eq!((server.calls(), bench.names()), (0, names));
    // An account that looks like a missing one is odd, too.
    bench.write("users.csv", users(30));
    sync(&bench, &server).args(&["--strict"]).run().exits(0);
    bench.write("users.csv", users(30).replace("user7,", "USER7,"));
    sync(&bench, &server).args(&["--strict"]).run().exits(2).because("looks like a missing account's");
}
