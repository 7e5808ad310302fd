//! Who is online is said in more ways than one; whoever it can't be read of is spared, and the night goes on.

use super::night::sync;
use crate::support::CliFixture;
use crate::support::server::{Request, Server, imported, ok_with};

const GONE: [&str; 6] = ["away", "here1", "here2", "odd", "old", "untold"];

/// The night after these were in the file: who is deleted, and why the others are not.
#[track_caller]
fn check(items: &str, deleted: &[&str]) -> String {
    let bench = CliFixture::new();
    let items = items.to_owned();
    let server = Server::new(move |request| answer(request, &items));
    bench.write("users.csv", format!("UserID\nkept\n{}\n", GONE.join("\n")));
    sync(&bench, &server.endpoint(), &[]).run().exits(0);
    bench.write("users.csv", "UserID\nkept\n");
    let flags =
        ["--missing", "delete", "--max-delete", "100", "--missing-runs", "1", "--skip-online", "--max-outage", "5s", "--allow", "shrunk"];
    let run = sync(&bench, &server.endpoint(), &flags).run().exits(0);
    assert_eq!(run.summary["deleted"], deleted.len(), "{}", run.stderr);
    let missing = bench.read("users.missing.csv");
    for id in GONE {
        let action = if deleted.contains(&id) { "deleted" } else { "online" };
        assert!(
            missing.lines().any(|line| line.starts_with(&format!("{id},")) && line.contains(&format!(",1,{action},"))),
            "{id}: {missing}"
        );
    }
    missing
}

fn answer(request: &Request, items: &str) -> crate::support::server::Reply {
    let ok = r#""ActionStatus":"OK","ErrorCode":0,"ErrorInfo":"""#;
    match request.command.as_str() {
        "openim/query_online_status" => ok_with(&format!("{{{ok},{items}}}")),
        "im_open_login_svc/account_delete" => {
            let results: Vec<String> = GONE.iter().map(|id| format!(r#"{{"UserID":"{id}","ResultCode":"0"}}"#)).collect();
            ok_with(&format!(r#"{{{ok},"ResultItem":[{}]}}"#, results.join(",")))
        }
        _ => imported(),
    }
}

#[test]
fn status_and_state_are_the_same() {
    for word in ["Status", "State"] {
        let items = |untold: &str| {
            format!(
                r#""QueryResult":[{{"To_Account":"away","{word}":"Offline"}},{{"To_Account":"here1","{word}":"Online"}},
                {{"To_Account":"here2","{word}":"PushOnline"}},{{"To_Account":"old","{word}":"Offline","Detail":[{{"Platform":"Web"}}]}},
                {{"To_Account":"odd","{word}":"Lunch"}}],"ErrorList":{untold}"#
            )
        };
        check(&items("null"), &["away", "old"]);
        check(&items(r#"[{"To_Account":"untold","ErrorCode":"70107"}]"#), &["away", "old", "untold"]);
    }
}

#[test]
fn what_cannot_be_read_of_one_spares_that_one() {
    let missing = check(
        r#""QueryResult":[null,5,{"To_Account":"away","Status":"Offline","To_Account":"away"},{"Status":"Offline"},{"To_Account":"odd"},
        {"To_Account":"here1","Status":{"is":"Offline"}},{"To_Account":"old","State":"Offline"},{"To_Account":"here2","Status":null},
        {"To_Account":null,"Status":"Offline"}],"ErrorList":[{"To_Account":"untold"},{"ErrorCode":70107}]"#,
        &["away", "old"],
    );
    assert!(missing.contains("untold,") && missing.contains(",online,,ErrorCode is absent"), "{missing}");
}

#[test]
fn who_is_said_to_be_away_and_here_is_here() {
    check(
        r#""QueryResult":[{"To_Account":"odd","Status":"Online"},{"To_Account":"odd","Status":"Offline"},{"To_Account":"old","Status":"Offline"},
        {"To_Account":"old","Status":"Offline"},{"To_Account":"untold","Status":"Online"}],"ErrorList":[{"To_Account":"untold","ErrorCode":70107}]"#,
        &["old"],
    );
}

#[test]
fn lists_that_are_none_spare_everybody() {
    for items in [r#""QueryResult":"none""#, r#""QueryResult":{"away":"Offline"},"ErrorList":7"#, r#""QueryResult":null"#, r#""New":1"#] {
        check(items, &[]);
    }
}
