//! The copy of an input that can't be read twice as it stands: when it is made, and what becomes of it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::time::{Instant, SystemTime};

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::process::Signal;

use crate::support::packed::{encoded, gzip};
use crate::support::server::{Server, imported};
use crate::support::tools::{Mount, skipped};
use crate::support::{CliFixture, Run, eventually, users};

/// What is said when a copy is made.
const COPIES: &str = "is first copied";

fn copies(run: &Run) -> bool {
    run.stderr.contains(COPIES)
}

#[test]
fn a_copy_is_made_once_kept_while_it_is_needed_and_never_for_a_finished_run() {
    let bench = CliFixture::new();
    let server = Server::new(|_| imported());
    bench.write("users.csv.gz", gzip(users(6).as_bytes()));
    let call = || bench.import_of("users.csv.gz", &server).stem("users");
    assert!(copies(&call().args(&["--limit", "2"]).run().exits(0).imports_all(2)));
    assert_eq!((bench.read("users.input.csv"), bench.mode("users.input.csv")), (users(6), 0o600));
    // Touched, it is compared by its hash.
    File::open(bench.path("users.csv.gz")).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert!(!copies(&call().args(&["--limit", "2"]).run().exits(0).imports_all(4)));
    assert!(!copies(&call().run().exits(0).imports_all(6)));
    assert!(!bench.names().iter().any(|name| name.contains(".input.csv")), "{:?}", bench.names());
    for touched in [false, true] {
        if touched {
            File::open(bench.path("users.csv.gz")).unwrap().set_modified(SystemTime::now()).unwrap();
        }
        let run = call().run().exits(0).because("finished earlier").imports_all(6);
        assert!(!copies(&run), "{}", run.stderr);
    }
    assert_eq!(server.calls(), 6);
    bench.call(&["audit", "users.csv.gz", "--results", "users.results.csv"]).run().exits(0);

    // Another text in it is another input.
    bench.write("users.csv.gz", gzip(users(7).as_bytes()));
    call().run().exits(0).imports_all(7);
    assert_eq!(server.calls(), 13);
    // The same text packed otherwise is the same input.
    let packed = [gzip(&users(7).as_bytes()[..20]), gzip(&users(7).as_bytes()[20..])].concat();
    bench.write("users.csv.gz", packed);
    call().run().exits(0).because("finished earlier").imports_all(7);
    assert_eq!(server.calls(), 13);
}

#[test]
fn the_input_that_has_changed_is_the_file_and_not_its_copy() {
    let bench = CliFixture::new();
    let server = Server::new(|_| imported());
    let call = || bench.import_of("users.csv.gz", &server).stem("users");
    bench.write("users.csv.gz", gzip(users(6).as_bytes()));
    call().args(&["--limit", "2"]).run().exits(0).imports_all(2);
    bench.write("users.csv.gz", gzip(users(6).replace("Nick 2", "Nick two").as_bytes()));
    call().run().exits(2).because("have changed since");
    assert_eq!(bench.read("users.input.csv"), users(6), "the run's own copy stays");
    bench.write("users.csv.gz", gzip(users(6).replace("Nick 5", "Nick five").as_bytes()));
    let run = call().run().exits(0).imports_all(6);
    assert!(run.stderr.contains("modified since"), "{}", run.stderr);
    assert_eq!(server.nick("user5").as_deref(), Some("Nick five"));

    // A copy that is gone is made again, and one that somebody has changed is not believed.
    bench.write("users.csv.gz", gzip(users(9).as_bytes()));
    call().args(&["--limit", "3"]).run().exits(0).imports_all(3);
    fs::remove_file(bench.path("users.input.csv")).unwrap();
    call().args(&["--limit", "3"]).run().exits(0).imports_all(6);
    bench.write("users.input.csv", users(9).replace("Nick 8", "Nick eight"));
    assert!(copies(&call().run().exits(0).imports_all(9)));
    assert_eq!(server.nick("user8").as_deref(), Some("Nick 8"));
}

#[test]
fn a_dry_run_leaves_the_copy_of_another_process_alone() {
    let bench = CliFixture::new();
    bench.write("users.csv.gz", gzip(users(6).as_bytes()));
    bench.write("users.input.csv.new", "another process is writing this");
    let run = |file: &str| bench.call(&["sync", file, "--state", "s", "--dry-run", "--sandbox", "--results", "users.results.csv"]);
    run("users.csv.gz").run().exits(0).because("dry run");
    run("-").stdin(&users(4)).run().exits(0).because("dry run");
    assert_eq!(bench.read("users.input.csv.new"), "another process is writing this");
    assert_eq!(bench.names().into_iter().collect::<Vec<_>>(), ["users.csv.gz", "users.input.csv.new"]);
}

#[test]
fn a_file_that_has_the_name_of_a_copy_is_never_overwritten_nor_removed() {
    let bench = CliFixture::new();
    let server = Server::new(|_| imported());
    let own = users(2);
    bench.write("q.csv.gz", gzip(users(6).as_bytes()));
    let calls: [&[&str]; 4] = [
        &["import", "q.csv.gz", "--sandbox", "--restart"],
        &["sync", "q.csv.gz", "--sandbox", "--state", "s"],
        &["import", "-", "--results", "q.results.csv", "--sandbox"],
        &["sync", "-", "--results", "q.results.csv", "--sandbox", "--state", "s"],
    ];
    for name in ["q.input.csv", "q.input.csv.new"] {
        bench.write(name, &own);
        for call in calls {
            for text in [users(6), String::new()] {
                bench.call(call).stdin(&text).run().exits(2).because(name).hints("move that file away");
                assert_eq!(bench.names().into_iter().collect::<Vec<_>>(), ["q.csv.gz", name], "nothing else is made");
                assert_eq!(bench.read(name), own);
            }
        }
        fs::remove_file(bench.path(name)).unwrap();
    }
    // It comes while the run is at work: it stays there.
    let call = || bench.import_of("q.csv.gz", &server).stem("q");
    call().args(&["--limit", "2"]).run().exits(0).imports_all(2);
    fs::remove_file(bench.path("q.input.csv")).unwrap();
    bench.write("mine", &own);
    fs::rename(bench.path("mine"), bench.path("q.input.csv")).unwrap();
    call().run().exits(2).because("q.input.csv");
    assert_eq!(bench.read("q.input.csv"), own);
    fs::rename(bench.path("q.input.csv"), bench.path("mine")).unwrap();
    call().run().exits(0).imports_all(6);
}

#[test]
fn a_run_that_goes_on_with_the_unpacked_file_removes_its_copy_at_its_end() {
    let bench = CliFixture::new();
    let server = Server::new(|_| imported());
    bench.write("users.csv.gz", gzip(users(6).as_bytes()));
    bench.import_of("users.csv.gz", &server).stem("users").args(&["--limit", "2"]).run().exits(0).imports_all(2);
    bench.write("users.csv", users(6));
    bench.import(&server).run().exits(0).imports_all(6);
    assert_eq!(server.calls(), 6, "what is processed isn't sent again");
    assert!(!bench.names().contains("users.input.csv"), "{:?}", bench.names());
}

#[test]
fn the_encoding_is_part_of_the_run() {
    let bench = CliFixture::new();
    let server = Server::new(|_| imported());
    let rows = (1..=6).fold("UserID,Nick\n".to_owned(), |text, row| format!("{text}user{row},张伟{row}\n"));
    bench.write("users.csv", encoded(&rows, "gb18030"));
    let call = |encoding: &str| bench.import(&server).args(&["--encoding", encoding]);
    call("gb18030").args(&["--limit", "2"]).run().exits(0).imports_all(2);
    call("gbk").run().exits(2).because("--encoding was \"gb18030\", now it is \"gbk\"");
    call("GB18030").run().exits(0).imports_all(6);
    call("gb18030").run().exits(0).because("finished earlier");
    assert_eq!(server.calls(), 6);
    call("gbk").run().exits(0).imports_all(6);
    assert_eq!(server.calls(), 12, "a finished one is a new run");

    // A sync plans anew, from a copy of its own.
    let sync = |encoding: &str| {
        let call = crate::sync::sync_of(&bench, &["users.csv", "--state", "s", "--results", "night.csv"], &server.endpoint());
        call.against(&server).args(&["--encoding", encoding])
    };
    sync("gb18030").args(&["--limit", "2"]).run().exits(0);
    sync("big5").args(&["--restart"]).run().exits(0).because("created");
    assert_ne!(server.nick("user6").as_deref(), Some("张伟6"), "it was read as it was said");
    sync("gb18030").run().exits(0).because("updated");
    assert_eq!(server.nick("user6").as_deref(), Some("张伟6"));
}

#[test]
fn repairs_and_rejects_are_utf_8_and_their_commands_say_nothing_of_an_encoding() {
    let bench = CliFixture::new();
    let server = Server::new(|_| imported());
    let text = (1..=6).fold("UserID,Nick\n@TIM#x,坏\n".to_owned(), |text, row| format!("{text}user{row},张伟{row}\n"));
    bench.write("users.csv", encoded(&text, "gb18030"));
    let run = bench.import(&server).args(&["--encoding", "gb18030"]).run().exits(3);
    assert!(bench.read("users.rejects.csv").contains("坏"));
    let hint = run.stderr.lines().find(|line| line.starts_with("hint: ")).unwrap();
    assert!(hint.contains("users.rejects.csv") && !hint.contains("--encoding"), "{hint}");
}

#[test]
fn the_first_records_are_judged_before_the_rest_is_copied() {
    let bench = CliFixture::new();
    let bad = (0..1_200).fold("UserID\n".to_owned(), |text, row| format!("{text}@TIM#{row}\n"));
    // What follows can't be read: whoever came so far would say that.
    let packed = |text: &str| [gzip(text.as_bytes()), gzip(&fastrand_bytes(900_000))[..800_000].to_vec()].concat();
    for (text, why) in [(bad.as_str(), "are invalid"), ("Name\na\n", "no column")] {
        let padded = format!("{text}{}", "padding\n".repeat(40_000));
        bench.write("users.csv.gz", packed(&padded));
        for command in [&["import", "users.csv.gz", "--sandbox"][..], &["sync", "users.csv.gz", "--sandbox", "--state", "s"]] {
            let run = bench.call(command).run().exits(2).because(why);
            assert!(!copies(&run), "{}", run.stderr);
        }
    }
    assert_eq!(bench.names().into_iter().collect::<Vec<_>>(), ["users.csv.gz"]);
}

#[test]
fn first_records_are_judged_although_the_pipe_stays_open() {
    let bench = CliFixture::new();
    let invalid = |rows: usize| (0..rows).fold("UserID\n".to_owned(), |text, row| format!("{text}@TIM#{row}\n"));
    let recoded = |rows: usize| (0..rows).fold("UserID,Nick\n".to_owned(), |text, row| format!("{text}u{row},张伟和王芳\n"));
    for rows in [1_000, 1_400, 20_000] {
        let cases = [
            (invalid(rows).into_bytes(), "are invalid"),
            (zstd_flushed(invalid(rows).as_bytes()), "are invalid"),
            (encoded(&recoded(rows), "gb18030"), "not UTF-8"),
        ];
        for (bytes, why) in cases {
            for command in [&["import", "-", "--sandbox"][..], &["sync", "-", "--sandbox", "--state", "s"]] {
                let pipe = bench.outside("pipe");
                let _ = fs::remove_file(&pipe);
                mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
                // It is open for both, so that the end never comes.
                let mut writer = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
                let call = bench.call(command).args(&["--results", "r.results.csv"]);
                let running = call.through("/bin/sh", &["-c", &format!("exec \"$0\" \"$@\" < {}", pipe.display())]).start();
                let feeding = std::thread::spawn({
                    let bytes = bytes.clone();
                    move || writer.write_all(&bytes).map(|()| writer)
                });
                running.wait().exits(2).because(why);
                // Whoever still writes into the pipe is let go on.
                let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
                let drain = fs::OpenOptions::new().read(true).write(true).custom_flags(nonblocking).open(&pipe).unwrap();
                let mut buffer = vec![0; 1 << 20];
                while !feeding.is_finished() {
                    let _ = io::Read::read(&mut &drain, &mut buffer);
                    std::thread::yield_now();
                }
                drop(feeding.join().unwrap());
            }
        }
    }
}

/// A frame that is not ended.
fn zstd_flushed(bytes: &[u8]) -> Vec<u8> {
    let mut packed = zstd::Encoder::new(Vec::new(), 1).unwrap();
    packed.write_all(bytes).unwrap();
    packed.flush().unwrap();
    packed.get_ref().clone()
}

fn fastrand_bytes(len: usize) -> Vec<u8> {
    let mut chance = fastrand::Rng::with_seed(7);
    (0..len).map(|_| chance.u8(..)).collect()
}

#[test]
fn every_command_reads_a_pipe() {
    let bench = CliFixture::new();
    let server = Server::new(|_| imported());
    let pipe = bench.outside("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let name = pipe.to_str().unwrap();
    let text = users(300);
    let connection = crate::sync::connection(&bench, &server.endpoint());
    let connection: Vec<&str> = connection.iter().map(String::as_str).chain(["--rate", "0"]).collect();
    for packed in [text.clone().into_bytes(), gzip(text.as_bytes())] {
        let fed = |words: &[&str], exit: i32| {
            let (pipe, packed) = (pipe.clone(), packed.clone());
            let feeding = std::thread::spawn(move || fs::write(pipe, packed).unwrap());
            let run = bench.call(words).against(&server).run().exits(exit);
            feeding.join().unwrap();
            run
        };
        fed(&["check", name], 0).because("300 rows can be sent");
        fed(&[&["import", name, "--results", "r.results.csv", "--restart"], &connection[..]].concat(), 0);
        fed(&["audit", name, "--results", "r.results.csv"], 0).because("every one of 300 rows");
        fed(&[&["verify", name, "--results", "v.csv"], &connection[..]].concat(), 3);
        assert_eq!(bench.read("v.csv").lines().count(), 301, "the server knows nobody by a check");
        fed(&[&["sync", name, "--results", "s.results.csv", "--state", "s", "--restart"], &connection[..]].concat(), 0);
    }
    bench.call(&[&["verify", name], &connection[..]].concat()).run().exits(2).hints("--results");
    assert!(!bench.names().iter().any(|name| name.contains(".input.csv")), "{:?}", bench.names());
}

#[test]
fn a_stream_of_which_a_part_was_copied_has_to_be_given_again() {
    let bench = CliFixture::new();
    let server = Server::new(|_| imported());
    let pipe = bench.outside("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let call = || bench.import_of("-", &server).stem("out").args(&["--results", "out.results.csv"]);
    let running = call().through("/bin/sh", &["-c", &format!("exec \"$0\" \"$@\" < {}", pipe.display())]).start();
    let text = users(60_000);
    let feeding = std::thread::spawn(move || {
        let mut writer = File::create(pipe).unwrap();
        // The part beyond the first records is copied as it comes, and more never comes; the process' end ends this too.
        let fed = text.as_bytes()[..900_000].chunks(4_096).try_for_each(|part| writer.write_all(part));
        fed.map(|()| writer)
    });
    let len = || fs::metadata(bench.path("out.input.csv.new")).map_or(0, |stat| stat.len());
    eventually("a part of the copy", || len() > 0);
    running.signal(Signal::KILL);
    running.wait();
    let _ = feeding.join().unwrap();
    call().run().exits(2).because("is not whole").hints("once more");
    assert!(!bench.names().iter().any(|name| name.contains("input")), "what is of no use is gone: {:?}", bench.names());
    call().stdin(&users(3)).run().exits(0).imports_all(3);
}

#[test]
fn a_copy_that_would_fill_the_disk_is_refused_and_leaves_nothing() {
    let bench = CliFixture::new();
    let Some(mount) = Mount::new(bench.path("small"), "8m") else {
        return skipped("copies on a small disk", "a file system can't be mounted here (it needs root)");
    };
    let server = Server::new(|_| imported());
    let mut text = "UserID,Note\n".to_owned();
    (1..=400).for_each(|row| text.extend([&format!("user{row},"), &"x".repeat(40_000), "\n"]));
    bench.write("users.csv.gz", gzip(text.as_bytes()));
    bench.write("wide.csv", [b"\xff\xfe", &*encoded(&text, "utf-16le")].concat());
    let left = || fs::read_dir(bench.path("small")).unwrap().count();
    let call = |file: &str| bench.import_of(file, &server).args(&["--results", "small/users.results.csv"]).stem("small/users");
    // How long the text is shows as it comes out.
    let run = call("users.csv.gz").run().exits(1).because("would leave").hints("make room");
    assert!(copies(&run) && left() == 0, "{}: {}", left(), run.stderr);
    // Here it is known before.
    let run = call("wide.csv").run().exits(1).because("would leave").hints("make room");
    assert!(!copies(&run) && left() == 0, "{}: {}", left(), run.stderr);
    let run = call("-").stdin(&text).run().exits(1).because("would leave");
    assert!(left() == 0, "{}: {}", left(), run.stderr);
    assert_eq!(server.calls(), 0);
    mount.becomes("32m");
    call("users.csv.gz").at_any_rate().run().exits(0).imports_all(400);
}

/// A gigabyte of rows in some megabytes.
fn bomb(path: &std::path::Path) {
    const RECORDS: usize = 256;
    const MEMBERS: usize = 64;
    let records: Vec<u8> = (0..RECORDS).flat_map(|row| format!("user{row},{}\n", "x".repeat(64_000)).into_bytes()).collect();
    let member = gzip(&records);
    let mut file = io::BufWriter::new(File::create(path).unwrap());
    file.write_all(&gzip(b"UserID,Note\n")).unwrap();
    (0..MEMBERS).try_for_each(|_| file.write_all(&member)).unwrap();
    assert!(records.len() * MEMBERS > 1_000_000_000 && member.len() * MEMBERS < 20_000_000);
}

#[test]
fn a_bomb_of_a_gigabyte_stays_in_flat_memory() {
    const MOST_KIB: u64 = 48 * 1024;
    let bench = CliFixture::new();
    bomb(&bench.path("users.csv.gz"));
    let began = Instant::now();
    let (run, peak_kib) = bench.call(&["check", "users.csv.gz"]).start().wait_with_peak();
    run.exits(0).because("16,384 rows can be sent");
    println!("{peak_kib} KiB, {:?}", began.elapsed());
    assert!(peak_kib < MOST_KIB, "{peak_kib} KiB");
    // What has no line ends at all is no CSV after the first 64 KiB.
    bench.write("zeros.csv.gz", gzip(&vec![b'x'; 20_000_000]));
    let (run, peak_kib) = bench.call(&["check", "zeros.csv.gz"]).start().wait_with_peak();
    run.exits(2).because("more than 65536 bytes");
    assert!(peak_kib < MOST_KIB, "{peak_kib} KiB");
}

#[test]
fn progress_is_shown_while_an_input_is_copied() {
    let bench = CliFixture::new();
    let pipe = bench.outside("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let mut writer = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let has_script = Command::new("script").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if !has_script {
        return skipped("the bar of a copy", "script is not installed, so there is no terminal");
    }
    let program = env!("CARGO_BIN_EXE_chatlift");
    let command = format!("{program} import {} --sandbox --results {}/r.csv", pipe.display(), bench.path("").display());
    let mut shown = Command::new("script");
    shown.args(["-qfec", &command, "/dev/null"]).env("TERM", "xterm").stdin(Stdio::null());
    let output = bench.outside("shown");
    let mut child = shown.stdout(File::create(&output).unwrap()).spawn().unwrap();
    let feeding =
        std::thread::spawn(move || users(60_000).as_bytes().chunks(4_096).try_for_each(|part| writer.write_all(part)).map(|()| writer));
    eventually("a bar", || String::from_utf8_lossy(&fs::read(&output).unwrap()).contains("copied"));
    let writer = feeding.join().unwrap().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    drop(writer);
    let _ = child.wait();
}
