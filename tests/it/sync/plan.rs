//! What a plan says of each record, where it is written, and that a dry run changes nothing.

use std::collections::BTreeSet;

use serde_json::json;

use super::{state_bytes, sync, sync_of};
use crate::support::server::{Server, imported};
use crate::support::{CliFixture, users};

/// What the state holds before `EVERY_KIND` comes.
const BEFORE: &str = "UserID,Nick,FaceUrl\na,A,fa\nb,B,fb\nc,C,\nd,D,fd\ne,E,\nz,Z,\n_,,\n";

/// Every op, a blank line and a field of two lines, so that rows and lines part. `!` stands for a Nick that is too long.
const EVERY_KIND: &str = "UserID,Nick,FaceUrl\n\
    a,A,fa\n\
    \n\
    b,B b,fb\n\
    \n\
    c,,fc\n\
    d,X,Y\n\
    ab\u{a0},n,\n\
    n1,N,\n\
    n2,first,\n\
    =n2,formula,\n\
    n2,,\n\
    e,E,\n\
    e,!,\n\
    n3,!,\n\
    n3,N,\n";

const PLAN: &str = "op,row,line,UserID,reason\n\
    update,2,4,b,Nick differs\n\
    update,3,6,c,FaceUrl differs\n\
    update,4,7,d,Nick and FaceUrl differ\n\
    invalid,5,8,ab\u{a0},UserID starts or ends with white space (U+00A0)\n\
    create,6,9,n1,the state does not hold it\n\
    superseded,7,10,n2,a later row has the same UserID\n\
    create,8,11,=n2,the state does not hold it\n\
    create,9,12,n2,the state does not hold it\n\
    superseded,10,13,e,a later row has the same UserID\n\
    invalid,11,14,e,\"Nick has 501 bytes, at most 500 are allowed\"\n\
    superseded,12,15,n3,a later row has the same UserID\n\
    create,13,16,n3,the state does not hold it\n\
    missing,,,_,missing in 1 run\n\
    missing,,,z,missing in 1 run\n";

pub(super) fn every_kind(server: &Server) -> CliFixture {
    let bench = CliFixture::new();
    bench.write("users.csv", BEFORE);
    sync(&bench, server).run().exits(0);
    bench.write("users.csv", EVERY_KIND.replace('!', &"n".repeat(501)));
    bench
}

/// Op, row and UserID of each line.
fn ops(bench: &CliFixture) -> Vec<String> {
    let plan = bench.read("plan.csv");
    let mut reader = csv::Reader::from_reader(plan.as_bytes());
    reader.records().map(|record| record.map(|r| format!("{} {} {}", &r[0], &r[1], &r[3])).unwrap()).collect()
}

#[test]
fn every_record_has_its_op() {
    let server = Server::new(|_| imported());
    let bench = every_kind(&server);
    let (state, before) = (state_bytes(&bench), bench.names());
    let run = sync(&bench, &server).args(&["--dry-run", "--plan", "plan.csv"]).run().exits(0);
    assert_eq!((bench.read("plan.csv").as_str(), bench.mode("plan.csv")), (PLAN, 0o600));
    let counts = json!({"create": 4, "update": 3, "unchanged": 1, "invalid": 2, "superseded": 3, "missing": 2});
    assert_eq!((&run.summary["plan"], run.summary["rows"].as_u64(), server.calls()), (&counts, Some(13), 7), "{}", run.summary);
    for told in ["4 to create, 3 to update, 1 unchanged, 2 invalid, 3 superseded", "2 accounts, 0 due", "7 accounts known", "requests    7"]
    {
        assert!(run.stderr.contains(told), "{told}: {}", run.stderr);
    }
    assert_eq!((state_bytes(&bench), bench.names()), (state, &before | &BTreeSet::from(["plan.csv".to_owned()])));
    // The run itself writes the same one.
    std::fs::remove_file(bench.path("plan.csv")).unwrap();
    sync(&bench, &server).args(&["--plan", "plan.csv"]).run().exits(3);
    assert_eq!((bench.read("plan.csv").as_str(), bench.mode("plan.csv"), server.calls()), (PLAN, 0o600, 14));
}

#[test]
fn an_empty_cell_says_nothing() {
    let (bench, server) = (CliFixture::new(), Server::new(|_| imported()));
    bench.write("users.csv", "UserID,Nick,FaceUrl\na,A,fa\n");
    sync(&bench, &server).run().exits(0);
    for (file, expected) in [
        ("UserID,Nick,FaceUrl\na,,\n", vec![]),
        ("UserID\na\n", vec![]),
        ("UserID,FaceUrl\na,fa\n", vec![]),
        ("UserID,Nick,FaceUrl\na,,fb\n", vec!["update 1 a"]),
        // What was there stays where the cell was empty.
        ("UserID,Nick,FaceUrl\na,A,fb\n", vec![]),
        ("UserID,Nick,FaceUrl\na,A,fa\n", vec!["update 1 a"]),
    ] {
        bench.write("users.csv", file);
        sync(&bench, &server).args(&["--plan", "plan.csv"]).run().exits(0);
        assert_eq!(ops(&bench), expected, "{file}");
    }
}

#[test]
fn the_last_record_counts_whatever_the_others_say() {
    let (bench, server) = (CliFixture::new(), Server::new(|_| imported()));
    bench.write("users.csv", "UserID,Nick\na,A\nb,B\n");
    sync(&bench, &server).run().exits(0);
    let long = "n".repeat(501);
    for (file, expected, code) in [
        // The last one is as it was: nothing is sent.
        ("UserID,Nick\na,X\na,A\nb,B\n".to_owned(), vec!["superseded 1 a"], 0),
        (format!("UserID,Nick\na,{long}\na,A\nb,B\n"), vec!["superseded 1 a"], 0),
        (format!("UserID,Nick\na,X\na,{long}\nb,B\n"), vec!["superseded 1 a", "invalid 2 a"], 3),
        // An invalid record is a record: nobody is missing.
        (format!("UserID,Nick\na,A\nb,{long}\n"), vec!["invalid 2 b"], 3),
    ] {
        bench.write("users.csv", file);
        sync(&bench, &server).args(&["--plan", "plan.csv"]).run().exits(code);
        assert_eq!((ops(&bench), server.calls()), (expected.into_iter().map(str::to_owned).collect(), 2));
    }
}

#[test]
fn a_dry_run_creates_nothing() {
    let (bench, server) = (CliFixture::with_users(3), Server::new(|_| imported()));
    let run = sync(&bench, &server).args(&["--dry-run"]).run().exits(0).because("dry run").hints("without --dry-run");
    assert_eq!((run.summary["plan"]["create"].as_u64(), run.summary["outcome"].as_str()), (Some(3), Some("done")));
    assert!(run.stderr.contains("a new state"), "{}", run.stderr);
    assert_eq!(bench.names(), BTreeSet::from(["users.csv", "summary.json"].map(str::to_owned)));
    let run = sync_of(&bench, &["-", "--results", "r.results.csv", "--state", "users.state", "--dry-run"], &server.endpoint());
    run.stdin(&users(2)).run().exits(0);
    sync(&bench, &server).args(&["--dry-run", "--canary", "nobody"]).run().exits(6);
    assert_eq!(bench.names(), BTreeSet::from(["users.csv", "summary.json"].map(str::to_owned)));
    assert_eq!(server.calls(), 0);
}

#[test]
fn a_plan_that_cannot_be_written_is_said_before_a_call() {
    let (bench, server) = (CliFixture::with_users(3), Server::new(|_| imported()));
    sync(&bench, &server).args(&["--plan", "nowhere/plan.csv"]).run().exits(2).because("nowhere");
    sync(&bench, &server).args(&["--plan", "."]).run().exits(2);
    assert_eq!((server.calls(), bench.names().contains("users.state")), (0, false));
}
