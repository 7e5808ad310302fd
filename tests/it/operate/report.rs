//! `--report`: the page that every end of a command leaves, as its text says it. `browser` looks at it as people do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::server::{Act, Server, acts, answer, code, imported};
use crate::support::{Call, CliFixture, SDKAPPID, users};

/// A UserID that would be a script if a page took it for one.
pub(super) const SCRIPT: &str = "<script>alert(1)</script>";

fn reporting(call: Call<'_>) -> Call<'_> {
    call.args(&["--report", "report.html"]).at_any_rate()
}

fn report(bench: &CliFixture) -> String {
    assert_eq!(bench.mode("report.html"), 0o600);
    let html = bench.read("report.html");
    assert!(html.starts_with("<!doctype html>") && html.trim_end().ends_with("</html>"), "it is whole");
    asks_for_nothing(&html);
    html
}

/// Nothing in it makes a browser ask for anything, and its policy forbids it to.
#[track_caller]
pub(super) fn asks_for_nothing(html: &str) {
    for asks in ["http://", "https://", "src=", "url(", "@import", "<link", "<script", "<iframe", "<object", "<form", " style="] {
        // The text of a report may name the service.
        let found = html.replace("at http://127.0.0.1", "").replace("--endpoint http://127.0.0.1", "").contains(asks);
        assert!(!found, "{asks} is in the report");
    }
    assert!(
        html.contains("content=\"default-src &#39;none&#39;; style-src &#39;sha256-")
            || html.contains("content=\"default-src &#x27;none&#x27;; style-src &#x27;sha256-"),
        "{}",
        &html[..600]
    );
}

/// The text of an element with this attribute.
pub(super) fn element<'a>(html: &'a str, attribute: &str) -> &'a str {
    let begin = html.find(attribute).unwrap_or_else(|| panic!("{attribute} is not in the page"));
    let rest = &html[begin..];
    &rest[..rest.find("</section>").unwrap_or(rest.len())]
}

/// The sum of all requests in the table of the points.
pub(super) fn requests(html: &str) -> u64 {
    let cells = html.split("<td class=\"number calls\">").skip(1);
    cells.map(|cell| cell[..cell.find('<').unwrap()].replace(',', "").parse::<u64>().unwrap()).sum()
}

#[test]
fn an_import_tells_how_it_ended_and_why_rows_were_rejected() {
    let bench = CliFixture::new();
    bench.write("users.csv", users(30) + &format!("{SCRIPT},x\nbad1,x\nbad2,x\nb\u{e9}d,x\n"));
    let server =
        Server::new(|request| if request.user_id.starts_with("bad") || request.user_id == SCRIPT { code(70402) } else { imported() });
    reporting(bench.import(&server)).run().exits(3);
    let html = report(&bench);
    let ending = element(&html, "id=\"ending\"");
    assert!(ending.contains("class=\"ending warn\"") && ending.contains("exit code 3"), "{ending}");
    assert!(
        ending.contains("30 of 34 rows imported, 3 failed, 1 invalid.") && ending.contains("chatlift import users.rejects.csv"),
        "{ending}"
    );
    assert!(html.contains(&format!("app {SDKAPPID} at http://127.0.0.1")));
    assert_eq!(requests(&html), u64::try_from(server.calls()).unwrap(), "the points have all requests");
    let codes = element(&html, "id=\"codes\"");
    assert!(codes.contains("<code>70402</code>") && codes.contains("a parameter is invalid") && codes.contains("the row&#39;s"), "{codes}");
    let reasons = element(&html, "id=\"reasons\"");
    assert!(reasons.contains("3 failed: code 70402: a parameter is invalid"), "{reasons}");
    assert!(reasons.contains("1 invalid: UserID holds the character U+00E9; only printable ASCII is allowed"), "{reasons}");
    assert!(reasons.contains("&#60;script&#62;alert(1)&#60;/script&#62;") && reasons.contains("the reason of 70402"), "{reasons}");
    for plot in ["plot-calls", "plot-rows", "plot-latency"] {
        assert!(html.contains(&format!("id=\"{plot}\"")), "{plot}");
    }
    let files = element(&html, "id=\"files\"");
    assert!(files.contains("users.results.csv") && files.contains("chatlift audit users.csv --results users.results.csv"), "{files}");
}

#[test]
fn an_anonymous_report_names_no_user_id() {
    let bench = CliFixture::new();
    bench.write("users.csv", "UserID,Nick\nada,Ada\nbad1,x\nbad2,x\nb\u{e9}d,x\n");
    let server = Server::new(|request| if request.user_id.starts_with("bad") { code(70402) } else { imported() });
    reporting(bench.import(&server)).args(&["--report-anonymous"]).run().exits(3);
    let html = report(&bench);
    for id in ["ada", "bad1", "bad2", "b\u{e9}d", "the reason of"] {
        assert!(!html.contains(id), "{id}");
    }
    assert!(html.contains("2 failed: code 70402") && html.contains("UserID holds the character …; only printable ASCII"), "{html}");
}

#[test]
fn a_refusal_leaves_a_report_too_and_an_end_of_another_process_does_not() {
    let bench = CliFixture::with_users(3);
    let server = Server::new(|_| imported());
    reporting(bench.import(&server)).args(&["--ca-file", "missing.pem"]).run().exits(2);
    let html = report(&bench);
    assert!(html.contains("class=\"ending bad\"") && html.contains("Needs fixing (exit code 2)") && html.contains("missing.pem"));
    assert!(!html.contains("<figure"), "nothing was sent");
    assert!(!html.contains("<dl class=\"commands\">"), "no command can go on with it");
    std::fs::remove_file(bench.path("report.html")).unwrap();
    reporting(bench.import(&server)).args(&["--dry-run"]).run().exits(0);
    let html = report(&bench);
    assert!(html.contains("class=\"ending good\"") && html.contains("3 rows can be sent") && !html.contains("<figure"), "{html}");
    assert!(html.contains("chatlift import --dry-run users.csv</title>"), "it says what it was: {html}");
    assert!(html.contains(&format!("into app {SDKAPPID} at http://127.0.0.1")), "and for which app: {html}");
    reporting(bench.import(&server)).args(&["--dry-run", "--delimiter", ";"]).run().exits(2);
    assert!(report(&bench).contains("exit code 2"), "a dry run that is refused leaves one, too");
    assert!(!bench.names().contains("summary.json.tmp") && server.calls() == 0);
    for own in ["users.csv", "users.results.csv"] {
        bench.import(&server).args(&["--report", own]).run().exits(2).because("named for two files");
    }
    bench.write("roots.pem", "kept");
    bench.import(&server).args(&["--ca-file", "roots.pem", "--report", "roots.pem"]).run().exits(2).because("named for two files");
    assert_eq!(std::fs::read_to_string(bench.path("roots.pem")).unwrap(), "kept");
    bench.import(&server).args(&["--report", "missing/r.html"]).run().exits(2).because("there is no folder");
}

/// The commands that a report names to go on with, without the program's name.
fn commands(html: &str) -> Vec<Vec<String>> {
    let listed = html.split_once("<dl class=\"commands\">").map_or("", |(_, rest)| rest.split_once("</dl>").unwrap().0);
    let commands = listed.split("<dd><code>").skip(1).map(|command| command.split_once('<').unwrap().0);
    commands.map(|command| command.strip_prefix("chatlift ").unwrap().split(' ').map(str::to_owned).collect()).collect()
}

#[test]
fn commands_to_go_on_with_run_as_they_stand() {
    let bench = CliFixture::with_users(4);
    let names = |html: &str| commands(html).iter().map(|command| command[0].clone()).collect::<Vec<_>>();
    let run_all = |html: &str| {
        for command in commands(html) {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            let run = bench.call(&words).run();
            assert!(matches!(run.code, Some(0 | 3)), "{command:?} ends with {:?}: {}", run.code, run.stderr);
        }
    };
    // All is refused as the credentials are: there are no rows that the service could be asked about.
    let refuses = Arc::new(AtomicBool::new(true));
    let does = Arc::clone(&refuses);
    let server = Server::new(move |_| if does.load(Ordering::SeqCst) { code(70403) } else { imported() });
    reporting(bench.import(&server)).run().exits(5);
    let html = report(&bench);
    assert_eq!(names(&html), ["status", "audit"]);
    run_all(&html);
    refuses.store(false, Ordering::SeqCst);
    reporting(bench.import(&server)).args(&["--limit", "2"]).run().exits(0);
    assert_eq!(names(&report(&bench)), ["status", "audit", "verify"]);
    reporting(bench.import(&server)).run().exits(0);
    assert_eq!(names(&report(&bench)), ["status", "audit", "verify"]);
    reporting(bench.import(&server)).args(&["--ca-file", "missing.pem"]).run().exits(2);
    let html = report(&bench);
    assert_eq!(names(&html), ["status"], "the run from before is still there, but the flags are no good");
    run_all(&html);
    bench.write("users.checkpoint.json", "{}");
    reporting(bench.import(&server)).run().exits(2);
    assert!(names(&report(&bench)).is_empty(), "no command can use a checkpoint that is damaged");
}

#[test]
fn a_short_run_shows_no_mean_and_a_pace_that_it_had() {
    let bench = CliFixture::with_users(3);
    let server = Server::new(|_| imported());
    bench.import(&server).args(&["--report", "report.html"]).run().exits(0);
    let html = report(&bench);
    assert!(!html.contains("on average"), "three requests in a moment are no mean");
    let calls = element(&html, "id=\"plot-calls\"");
    assert!(
        calls.contains("3 requests to account_import; at most 3.0 a second. The rate limit is drawn in; it is 200.0 a second"),
        "{calls}"
    );
}

#[test]
fn the_program_at_the_end_gets_the_reports_path() {
    let bench = CliFixture::with_users(3);
    let server = Server::new(|_| imported());
    reporting(bench.import(&server))
        .args(&["--on-end", "/bin/sh -c 'test -s \"$CHATLIFT_REPORT\" && echo \"$CHATLIFT_REPORT\" > got'"])
        .run()
        .exits(0);
    assert_eq!(bench.read("got"), "report.html\n");
}

#[test]
fn a_sync_shows_its_plan_and_what_each_guard_found_against_its_bound() {
    let bench = CliFixture::with_users(40);
    let server = Server::new(|request| match request.user_id.as_str() {
        "user43" | "user59" => code(70402),
        _ => imported(),
    });
    let key = bench.key();
    let sync = |flags: &[&str]| {
        let call = bench.call(&["sync", "users.csv", "--state", "s.db", "--endpoint", &server.endpoint(), "--sdkappid", SDKAPPID]);
        reporting(call).args(&["--secret-key-file", key.to_str().unwrap()]).args(flags).run()
    };
    sync(&[]).exits(0);
    let html = report(&bench);
    assert!(html.contains("class=\"ending good\"") && html.contains("<dt>created</dt><dd>40</dd>"), "{}", element(&html, "id=\"counts\""));
    let guards = element(&html, "id=\"guards\"");
    assert_eq!(guards.matches("✓ passed").count(), 8, "{guards}");
    bench.write("users.csv", "UserID,Nick\nuser1,Nick 1\n");
    sync(&["--canary", "user2"]).exits(6);
    let html = report(&bench);
    assert!(html.contains("Refused by a safety check (exit code 6)"));
    let plan = element(&html, "id=\"plan\"");
    assert!(plan.contains("<dt>missing from the file</dt><dd>39</dd>"), "{plan}");
    let guards = element(&html, "id=\"guards\"");
    assert!(guards.contains("1 of 40 known accounts") && guards.contains("at least 85 %") && guards.contains("--allow shrunk"), "{guards}");
    assert!(guards.contains("without --canary user2"), "{guards}");
    sync(&["--canary", "user2", "--report-anonymous"]).exits(6);
    assert!(!report(&bench).contains("user2"));
    bench.write("users.csv", users(60));
    sync(&["--limit", "5"]).exits(3);
    assert_eq!(element(&report(&bench), "id=\"guards\"").matches("✓ passed").count(), 8);
    sync(&[]).exits(3);
    let html = report(&bench);
    assert!(element(&html, "id=\"codes\"").contains("correct the row where the file comes from"), "{}", element(&html, "id=\"codes\""));
    let plan = element(&html, "id=\"plan\"");
    assert!(plan.contains("<dt>create</dt><dd>20</dd>") && plan.contains("goes on with a plan that was made earlier"), "{plan}");
}

#[test]
fn a_verification_shows_what_it_found() {
    let bench = CliFixture::with_users(3);
    reporting(bench.call(&["verify", "users.csv", "--sandbox"])).run().exits(3);
    let html = report(&bench);
    assert!(html.contains("Finished with findings") && html.contains("<dt>missing</dt><dd>3</dd>"));
    let reasons = element(&html, "id=\"reasons\"");
    assert!(reasons.contains("3 missing") && reasons.contains("<code>user1</code>"), "{reasons}");
    assert!(element(&html, "id=\"files\"").contains("users.repair.csv"));
}

#[test]
fn a_sentence_leaves_the_name_of_a_file_as_it_is() {
    let bench = CliFixture::new();
    let server = Server::new(|_| imported());
    for name in ["nofile.csv", "nofile", "two words.csv"] {
        reporting(bench.quiet_import_into(name, &server.endpoint()).against(&server)).run().exits(2);
        let html = report(&bench);
        let sentence = element(&html, "class=\"sentence\"");
        assert!(!sentence.contains("Nofile") && !sentence.contains("Two words"), "{sentence}");
        assert!(sentence.contains(name), "{sentence}");
    }
}

#[test]
fn every_request_stands_in_the_table_of_what_came_back() {
    let bench = CliFixture::with_users(60);
    let asked = std::sync::atomic::AtomicU64::new(0);
    let server = Server::new(move |_| match asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        number if number % 10 == 3 => answer("502 Bad Gateway", "", "<html>"),
        number if number % 10 == 6 => acts([Act::Reset]),
        _ => imported(),
    });
    reporting(bench.import(&server)).run().exits(0);
    let html = report(&bench);
    let codes = element(&html, "id=\"codes\"");
    assert!(codes.contains("<code>HTTP 502</code>") && codes.contains("<code>no answer</code>"), "{codes}");
    let counts = codes.split("data-label=\"answers\">").skip(1).map(|cell| cell[..cell.find('<').unwrap()].replace(',', ""));
    let sum: usize = counts.map(|number| number.parse::<usize>().unwrap()).sum();
    assert_eq!(sum, server.calls(), "{codes}");
}

#[test]
fn a_run_that_a_guard_refuses_lists_no_file_of_an_earlier_one() {
    let bench = CliFixture::with_users(10);
    let sync = || bench.call(&["sync", "users.csv", "--state", "s.db", "--sandbox"]);
    sync().run().exits(0);
    bench.write("users.csv", "UserID\n");
    for (flags, code) in [(&[][..], 6), (&["--dry-run"], 6)] {
        reporting(sync()).args(flags).run().exits(code);
        let html = report(&bench);
        let files = element(&html, "id=\"files\"");
        assert!(files.contains("users.csv") && files.contains("s.db"), "{files}");
        for earlier in ["users.results.csv", "users.checkpoint.json"] {
            assert!(!files.contains(&format!("<code>{earlier}</code>")), "{earlier}: {files}");
        }
    }
}
