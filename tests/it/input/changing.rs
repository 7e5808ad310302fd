//! Files that change while a real process reads them: they are truncated, rewritten, extended, replaced or touched at any moment.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use chatlift::domain::command::Command as Api;
use chatlift::sandbox::{Sandbox, SandboxSettings};

use crate::support::packed::gzip;
use crate::support::server::{Server, imported};
use crate::support::{Call, CliFixture, KEY, Run, Running, SDKAPPID, eventually, side_by_side, users};
use crate::sync::sync;

const ROWS: u64 = 1_200;
/// Rows that are appended.
const MORE: u64 = 10;

/// The change of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Truncated,
    /// Rewritten in place with the same length; the last row differs.
    Rewritten,
    Appended,
    /// Text without a record is appended: blank lines, delimiters, and an incomplete blank line.
    BlankAppended,
    /// Another file takes its name.
    Renamed,
    /// A link to another file takes its name.
    Linked,
    Touched,
}

const CHANGES: [Change; 7] =
    [Change::Truncated, Change::Rewritten, Change::Appended, Change::BlankAppended, Change::Renamed, Change::Linked, Change::Touched];

/// The requests at which a file changes.
const AT_EACH: [u64; 3] = [1, ROWS / 2, ROWS];

/// The file that replaces the first one.
fn other() -> String {
    "UserID,Nick\nother1,Other\nother2,Other\n".to_owned()
}

impl Change {
    fn make(self, path: &Path) {
        let aside = path.with_file_name("aside.csv");
        match self {
            Change::Truncated => {
                // The cut is in the middle of a row.
                let len = fs::metadata(path).unwrap().len();
                OpenOptions::new().write(true).open(path).unwrap().set_len(len / 2).unwrap();
            }
            Change::Rewritten => {
                let text = fs::read_to_string(path).unwrap();
                let last = format!("Nick {ROWS}\n");
                let text = text.strip_suffix(&last).unwrap().to_owned() + &last.replace("Nick", "Nock");
                OpenOptions::new().write(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
            }
            Change::Appended => {
                let more: String = users(ROWS + MORE).split_inclusive('\n').skip(1 + usize::try_from(ROWS).unwrap()).collect();
                OpenOptions::new().append(true).open(path).unwrap().write_all(more.as_bytes()).unwrap();
            }
            Change::BlankAppended => OpenOptions::new().append(true).open(path).unwrap().write_all(b"\n\r\n , \n,").unwrap(),
            Change::Renamed => {
                fs::write(&aside, other()).unwrap();
                fs::rename(&aside, path).unwrap();
            }
            Change::Linked => {
                fs::write(path.with_file_name("other.csv"), other()).unwrap();
                symlink("other.csv", &aside).unwrap();
                fs::rename(&aside, path).unwrap();
            }
            Change::Touched => File::options().write(true).open(path).unwrap().set_modified(SystemTime::now()).unwrap(),
        }
    }

    /// Whether something that was read is no longer in the file.
    fn is_harm(self) -> bool {
        matches!(self, Change::Truncated | Change::Rewritten)
    }

    fn is_new_file(self) -> bool {
        matches!(self, Change::Renamed | Change::Linked)
    }
}

/// A server that makes the change after this many requests.
fn changing(path: PathBuf, change: Change, at: u64) -> Server {
    let requests = AtomicUsize::new(0);
    Server::new(move |_| {
        if requests.fetch_add(1, Ordering::SeqCst) as u64 + 1 == at {
            change.make(&path);
        }
        imported()
    })
}

fn quiet<'a>(bench: &'a CliFixture, server: &'a Server) -> Call<'a> {
    bench.quiet_import_into("users.csv", &server.endpoint()).against(server)
}

#[track_caller]
fn is_told(run: &Run, change: Change, context: &str) {
    if change.is_harm() {
        assert_eq!(run.code, Some(2), "{context}: {}", run.stderr);
        assert!(run.why().contains("truncated or rewritten") || run.why().contains("modified while"), "{context}: {}", run.stderr);
    } else {
        assert_eq!(run.code, Some(0), "{context}: {}", run.stderr);
    }
    assert_eq!(run.stderr.contains("new file"), change.is_new_file(), "{context}: {}", run.stderr);
}

#[test]
fn an_import_ends_as_finished_only_if_what_it_read_still_stands() {
    side_by_side(AT_EACH.into_iter().flat_map(|at| CHANGES.map(|change| (change, at))), |(change, at)| {
        let context = format!("{change:?} at request {at}");
        let bench = CliFixture::with_users(ROWS);
        let server = changing(bench.path("users.csv"), change, at);
        let import = || quiet(&bench, &server).args(&["--no-progress"]).at_any_rate();
        let run = import().run();
        is_told(&run, change, &context);
        if change.is_harm() {
            assert!(run.rows.len() as u64 <= ROWS, "{context}");
            assert!(run.rows.iter().all(|row| row.user_id == format!("user{}", row.number)), "no row is half of one: {context}");
            let again = import().run();
            assert_ne!(again.code, Some(0), "{context}: {}", again.stderr);
            // With the original file the run continues.
            bench.write("users.csv", users(ROWS));
            import().run().exits(0).imports_all(ROWS);
            return;
        }
        run.imports_all(if change == Change::Appended { ROWS + MORE } else { ROWS });
        let again = import().run();
        if change.is_new_file() {
            again.exits(0).imports_all(2);
        } else {
            again.exits(0).because("finished earlier");
        }
    });
}

#[test]
fn a_file_that_is_removed_while_it_is_read_is_read_to_its_end_and_no_new_one_is_announced() {
    let bench = CliFixture::with_users(ROWS);
    let path = bench.path("users.csv");
    let server = Server::new(move |_| {
        let _ = fs::remove_file(&path);
        imported()
    });
    let run = quiet(&bench, &server).at_any_rate().run().exits(0).imports_all(ROWS).hints("the input has been removed");
    assert!(!run.stderr.contains("new file") && run.stderr.contains("was removed while it was read"), "{}", run.stderr);
}

#[test]
fn a_resumed_import_sees_what_becomes_of_its_file_as_a_fresh_one_does() {
    side_by_side(CHANGES, |change| {
        let context = format!("{change:?}");
        let bench = CliFixture::with_users(ROWS);
        let server = changing(bench.path("users.csv"), change, 800);
        quiet(&bench, &server).at_any_rate().args(&["--limit", "500"]).run().exits(0).imports_all(500);
        let run = quiet(&bench, &server).args(&["--no-progress"]).at_any_rate().run();
        is_told(&run, change, &context);
        if !change.is_harm() {
            run.imports_all(if change == Change::Appended { ROWS + MORE } else { ROWS });
        }
    });
}

fn sandbox() -> Sandbox {
    Sandbox::start(SandboxSettings { limit_per_s: None, ..SandboxSettings::with_key(KEY.into()) }).unwrap()
}

/// Makes the change as soon as the sandbox has got this many requests.
fn change_after(sandbox: &Sandbox, running: &mut Running, (api, calls): (Api, u64), change: impl FnOnce()) {
    eventually("it is called", || sandbox.audit().of(api).calls >= calls);
    assert!(!running.has_ended(), "the change comes too late: {}", running.stderr());
    change();
}

#[test]
fn an_import_in_batches_ends_as_finished_only_if_what_it_read_still_stands() {
    side_by_side(CHANGES.into_iter().flat_map(|change| [(change, 1), (change, 8)]), |(change, calls)| {
        let context = format!("{change:?} after {calls} calls");
        let bench = CliFixture::with_users(ROWS);
        let sandbox = sandbox();
        let import = bench.quiet_import_into("users.csv", &sandbox.endpoint()).args(&["--batch", "--rate", "15", "--no-progress"]);
        let mut running = import.start();
        change_after(&sandbox, &mut running, (Api::MultiaccountImport, calls), || change.make(&bench.path("users.csv")));
        let run = running.wait();
        is_told(&run, change, &context);
        if !change.is_harm() {
            run.imports_all(if change == Change::Appended { ROWS + MORE } else { ROWS });
        }
    });
}

#[test]
fn a_sync_ends_as_finished_only_if_what_was_planned_still_stands() {
    side_by_side(AT_EACH.into_iter().flat_map(|at| CHANGES.map(|change| (change, at))), |(change, at)| {
        let context = format!("{change:?} at request {at}");
        let bench = CliFixture::with_users(ROWS);
        let server = changing(bench.path("users.csv"), change, at);
        let run = sync(&bench, &server).args(&["--no-progress"]).run();
        is_told(&run, change, &context);
        if change.is_harm() {
            assert!(run.rows.iter().all(|row| row.user_id == format!("user{}", row.number)), "no row is half of one: {context}");
            bench.write("users.csv", users(ROWS));
            sync(&bench, &server).run().exits(0);
            return;
        }
        assert_eq!(run.rows.len() as u64, ROWS, "what was planned is what is sent: {context}");
        // The next run plans the new rows.
        let next = sync(&bench, &server).args(&["--allow", "shrunk", "--allow", "cut"]).run().exits(0);
        let new = if change.is_new_file() {
            2
        } else if change == Change::Appended {
            MORE
        } else {
            0
        };
        assert_eq!(next.rows.len() as u64, new, "{context}: {}", next.stderr);
    });
}

#[test]
fn a_verification_ends_as_finished_only_if_what_it_read_still_stands() {
    side_by_side(CHANGES.into_iter().flat_map(|change| [(change, 1), (change, 8)]), |(change, calls)| {
        let context = format!("{change:?} after {calls} calls");
        let bench = CliFixture::with_users(ROWS);
        let sandbox = sandbox();
        bench.quiet_import_into("users.csv", &sandbox.endpoint()).args(&["--batch", "--rate", "0"]).run().exits(0);
        let (key, endpoint) = (bench.key(), sandbox.endpoint());
        let connection = ["--endpoint", &endpoint, "--sdkappid", SDKAPPID, "--secret-key-file", key.to_str().unwrap()];
        let call = bench.call(&["verify", "users.csv", "--rate", "15", "--no-progress"]).args(&connection);
        let mut running = call.start();
        change_after(&sandbox, &mut running, (Api::AccountCheck, calls), || change.make(&bench.path("users.csv")));
        let run = running.wait();
        if change == Change::Appended {
            // The new rows were not checked, so not every UserID is known to be the same.
            assert_eq!(run.code, Some(2), "{context}: {}", run.stderr);
            return;
        }
        if change.is_harm() {
            assert_eq!(run.code, Some(2), "{context}: {}", run.stderr);
            assert!(run.why().contains("while it was"), "{context}: {}", run.stderr);
            return;
        }
        is_told(&run, change, &context);
    });
}

/// A packed file to which a part of its own is appended, packed likewise.
fn append_packed(path: &Path) {
    let more: String = users(ROWS + MORE).split_inclusive('\n').skip(1 + usize::try_from(ROWS).unwrap()).collect();
    OpenOptions::new().append(true).open(path).unwrap().write_all(&gzip(more.as_bytes())).unwrap();
}

/// What becomes of a compressed file, and whether a run on its copy may end as finished then.
fn change_packed(path: &Path, name: &str) -> bool {
    let packed = |text: &str| gzip(text.as_bytes());
    match name {
        "rewritten" => fs::write(path, packed(&users(ROWS).replace("Nick 1200", "Nock 1200"))).unwrap(),
        "cut" => File::options().write(true).open(path).unwrap().set_len(100).unwrap(),
        "touched" => File::options().write(true).open(path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap(),
        _ => {
            fs::write(path.with_file_name("aside"), packed(&other())).unwrap();
            fs::rename(path.with_file_name("aside"), path).unwrap();
        }
    }
    !matches!(name, "rewritten" | "cut")
}

#[test]
fn a_compressed_file_that_changes_while_its_copy_is_at_work_is_no_other_case() {
    let names = ["rewritten", "cut", "touched", "replaced"];
    side_by_side(names.into_iter().flat_map(|name| ["import", "sync", "verify"].map(|command| (name, command))), |(name, command)| {
        let context = format!("{command}, {name}");
        let bench = CliFixture::new();
        bench.write("users.csv.gz", gzip(users(ROWS).as_bytes()));
        let sandbox = sandbox();
        let (key, endpoint) = (bench.key(), sandbox.endpoint());
        let state: &[&str] = if command == "sync" { &["--state", "s"] } else { &[] };
        let connection = ["--endpoint", &endpoint, "--sdkappid", SDKAPPID, "--secret-key-file", key.to_str().unwrap(), "--no-progress"];
        let call = |rate: &'static str| {
            let lane: &[&str] = if command == "verify" { &["--rate", rate] } else { &["--batch", "--rate", rate] };
            bench.call(&[command, "users.csv.gz"]).args(&[&connection, lane, state].concat())
        };
        if command == "verify" {
            bench.call(&["import", "users.csv.gz", "--batch", "--rate", "0"]).args(&connection).run().exits(0);
        }
        let api = if command == "verify" { Api::AccountCheck } else { Api::MultiaccountImport };
        let mut running = call("15").start();
        let mut may_finish = true;
        change_after(&sandbox, &mut running, (api, 3), || may_finish = change_packed(&bench.path("users.csv.gz"), name));
        let run = running.wait();
        assert_eq!(run.code, Some(if may_finish { 0 } else { 2 }), "{context}: {}", run.stderr);
        if may_finish {
            assert_eq!(run.stderr.contains("new file"), name == "replaced", "{context}: {}", run.stderr);
            return;
        }
        assert!(run.why().contains("while it was"), "{context}: {}", run.stderr);
        // With what it was, it is finished.
        bench.write("users.csv.gz", gzip(users(ROWS).as_bytes()));
        call("0").run().exits(0);
        assert!(!bench.names().contains("users.input.csv"), "{context}");
    });
}

#[test]
fn a_compressed_file_that_grows_while_its_copy_is_imported_is_read_on() {
    for limit in [None, Some("5000")] {
        let bench = CliFixture::new();
        let path = bench.path("users.csv.gz");
        bench.write("users.csv.gz", gzip(users(ROWS).as_bytes()));
        let requests = AtomicUsize::new(0);
        let server = Server::new(move |_| {
            if requests.fetch_add(1, Ordering::SeqCst) == 100 {
                append_packed(&path);
            }
            imported()
        });
        let call = || bench.quiet_import_into("users.csv.gz", &server.endpoint()).against(&server).at_any_rate();
        let results = || bench.read("users.results.csv").lines().count() as u64 - 1;
        if let Some(limit) = limit {
            // It counts for all readings together, so that the next command goes on.
            call().args(&["--limit", limit]).run().exits(2).because("it has grown").hints("give the same command again");
            assert_eq!(results(), ROWS);
        }
        let run = call().run().exits(0);
        assert_eq!((results(), server.calls() as u64), (ROWS + MORE, ROWS + MORE), "{}", run.stderr);
        assert_eq!(run.stderr.contains("has grown since it was copied"), limit.is_none(), "{}", run.stderr);
        assert!(!bench.names().contains("users.input.csv"));
    }
}

#[test]
fn what_comes_to_a_compressed_file_while_its_copy_is_synced_is_the_next_ones() {
    let bench = CliFixture::new();
    let sandbox = sandbox();
    bench.write("users.csv.gz", gzip(users(ROWS).as_bytes()));
    let (key, endpoint) = (bench.key(), sandbox.endpoint());
    let connection = ["--endpoint", &endpoint, "--sdkappid", SDKAPPID, "--secret-key-file", key.to_str().unwrap(), "--no-progress"];
    let call = |rate| bench.call(&["sync", "users.csv.gz", "--state", "s", "--batch", "--rate", rate]).args(&connection);
    let mut running = call("15").start();
    change_after(&sandbox, &mut running, (Api::MultiaccountImport, 3), || append_packed(&bench.path("users.csv.gz")));
    let run = running.wait();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    call("0").run().exits(0).because("10 created");
}

#[test]
fn a_verification_of_a_file_that_grows_behind_what_it_has_read_does_not_end_as_finished() {
    let bench = CliFixture::with_users(ROWS);
    let sandbox =
        Sandbox::start(SandboxSettings { limit_per_s: None, latency: Duration::from_millis(500), ..SandboxSettings::with_key(KEY.into()) })
            .unwrap();
    let (key, endpoint) = (bench.key(), sandbox.endpoint());
    let connection = ["--endpoint", &endpoint, "--sdkappid", SDKAPPID, "--secret-key-file", key.to_str().unwrap()];
    let mut running = bench.call(&["verify", "users.csv", "--rate", "0", "--no-progress"]).args(&connection).start();
    // All requests are in flight, so nothing is left to read.
    change_after(&sandbox, &mut running, (Api::AccountCheck, ROWS / 100), || Change::Appended.make(&bench.path("users.csv")));
    running.wait().exits(2).because("it has grown").hints("give the same command again");
}

#[test]
fn a_file_that_is_written_while_it_is_imported_is_read_to_its_last_row() {
    let bench = CliFixture::with_users(0);
    let path = bench.path("users.csv");
    let rest = users(ROWS).split_once('\n').unwrap().1.to_owned();
    let (first, rest) = rest.as_bytes().split_at(10_001);
    let append = move |path: &Path, piece: &[u8]| OpenOptions::new().append(true).open(path).unwrap().write_all(piece).unwrap();
    append(&path, first);
    // Each piece ends somewhere inside a line and comes in time; about six hundred rows are in the file before.
    let pieces: Vec<Vec<u8>> = rest.chunks(1_501).map(<[u8]>::to_vec).collect();
    let (requests, file) = (AtomicUsize::new(0), path.clone());
    let server = Server::new(move |_| {
        let number = requests.fetch_add(1, Ordering::SeqCst);
        if let Some(piece) = pieces.get(number / 50).filter(|_| number.is_multiple_of(50)) {
            append(&file, piece);
        }
        imported()
    });
    quiet(&bench, &server).args(&["--no-progress"]).at_any_rate().run().exits(0).imports_all(ROWS);
}
