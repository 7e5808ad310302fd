//! Realistic files: the roster is compared with a second CSV reader, and files are read that do not fit into memory.
//!
//! Tests that take minutes are ignored: `cargo test --test it ten_million -- --ignored --nocapture`.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use chatlift::io::roster::{Format, Roster};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::support::server::{Server, imported};
use crate::support::{CliFixture, users};

/// The number of random files for both readers. Chosen: some seconds.
const CASES: u32 = 5_000;
/// The most memory of `check` for any input. Source: half of a pod's limit of 128 MiB.
const MEMORY_MAX_KIB: u64 = 64 << 10;
/// The most memory of an import of rows with the greatest width, by mode. Source: the contract has 128 MiB for batches and far less for
/// single requests; the test profile takes a little more.
const WIDE_MAX_KIB: [(&[&str], u64); 2] = [(&[], 80 << 10), (&["--batch"], 128 << 10)];
/// How often the memory is measured.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A record as the second reader finds it.
#[derive(Debug, PartialEq)]
struct Plain {
    line: u64,
    end_offset: u64,
    fields: Vec<Vec<u8>>,
}

/// Reads valid files by the grammar of RFC 4180, without sharing any code or idea with the roster.
fn plain_records(text: &[u8]) -> Vec<Plain> {
    let bom = if text.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let (mut at, mut line, mut records) = (bom, 1, Vec::new());
    while at < text.len() {
        if let Some(end) = line_end(text, at) {
            (at, line) = (end, line + 1);
            continue;
        }
        let (first_line, mut fields) = (line, Vec::new());
        loop {
            let (field, end) = if text[at..].starts_with(b"\"") { quoted(text, at + 1) } else { bare(text, at) };
            line += text[at..end].split(|byte| *byte == b'\n').count() as u64 - 1;
            fields.push(field);
            at = end;
            if text.get(at) != Some(&b',') {
                break;
            }
            at += 1;
        }
        if let Some(end) = line_end(text, at) {
            (at, line) = (end, line + 1);
        }
        records.push(Plain { line: first_line, end_offset: at as u64, fields });
    }
    records
}

fn line_end(text: &[u8], at: usize) -> Option<usize> {
    match text.get(at..)? {
        [b'\r', b'\n', ..] => Some(at + 2),
        [b'\n', ..] => Some(at + 1),
        _ => None,
    }
}

fn bare(text: &[u8], at: usize) -> (Vec<u8>, usize) {
    let len = text[at..].iter().position(|byte| matches!(byte, b',' | b'\r' | b'\n')).unwrap_or(text.len() - at);
    (text[at..at + len].to_vec(), at + len)
}

/// `at` must be behind the opening quote.
fn quoted(text: &[u8], mut at: usize) -> (Vec<u8>, usize) {
    let mut field = Vec::new();
    loop {
        match &text[at..] {
            [b'"', b'"', ..] => {
                field.push(b'"');
                at += 2;
            }
            [b'"', ..] => return (field, at + 1),
            [byte, ..] => {
                field.push(*byte);
                at += 1;
            }
            [] => panic!("the file is valid"),
        }
    }
}

/// A field, and whether it is quoted without need.
fn field() -> impl Strategy<Value = (Vec<u8>, bool)> {
    let piece = select(&["a", "Z9", "\"", ",", "\n", "\r\n", "\r", " ", "李", "é", ";", "'", "\t", "=1+1", "\u{feff}", "\0"][..]);
    (prop_oneof![3 => vec(select(&["a", "b", "7", "_"][..]), 0..6), 2 => vec(piece, 0..6)], any::<bool>())
        .prop_map(|(pieces, needless)| (pieces.concat().into_bytes(), needless))
}

/// A record, and the number of blank lines behind it.
fn record() -> impl Strategy<Value = (Vec<(Vec<u8>, bool)>, usize)> {
    (prop_oneof![9 => vec(field(), 3..=3), 1 => vec(field(), 2..6)], prop_oneof![9 => Just(0), 1 => 1..3_usize])
}

fn write_field(text: &mut Vec<u8>, field: &[u8], needless: bool) {
    if needless || field.iter().any(|byte| matches!(byte, b'"' | b',' | b'\n' | b'\r')) {
        text.push(b'"');
        for byte in field {
            text.extend_from_slice(if *byte == b'"' { b"\"\"" } else { std::slice::from_ref(byte) });
        }
        text.push(b'"');
    } else {
        text.extend_from_slice(field);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn two_readers_of_csv_read_the_same(
        records in vec(record(), 0..8),
        line_end in select(&["\n", "\r\n"][..]),
        has_bom in any::<bool>(),
        ends_with_line in any::<bool>(),
    ) {
        let mut text = if has_bom { b"\xef\xbb\xbf".to_vec() } else { Vec::new() };
        text.extend_from_slice(b"UserID,Nick,note");
        for (fields, blank_lines) in &records {
            (0..=*blank_lines).for_each(|_| text.extend_from_slice(line_end.as_bytes()));
            for (at, (field, needless)) in fields.iter().enumerate() {
                if at > 0 {
                    text.push(b',');
                }
                write_field(&mut text, field, *needless);
            }
        }
        if ends_with_line {
            text.extend_from_slice(line_end.as_bytes());
        }
        let mut plain = plain_records(&text);
        let written: Vec<Vec<Vec<u8>>> = records.iter().map(|(fields, _)| fields.iter().map(|(field, _)| field.clone()).collect()).collect();
        prop_assert_eq!(plain[1..].iter().map(|record| record.fields.clone()).collect::<Vec<_>>(), written);
        let is_blank = |record: &Plain| String::from_utf8_lossy(&record.fields.concat()).chars().all(|char| char.is_whitespace() || "\",".contains(char));
        plain.retain(|record| !is_blank(record));
        let roster = Roster::new(text.as_slice(), &Format::default()).unwrap();
        let read: Vec<Plain> = roster
            .map(Result::unwrap)
            .map(|record| Plain { line: record.line, end_offset: record.end.offset, fields: record.fields.iter().map(<[u8]>::to_vec).collect() })
            .collect();
        prop_assert_eq!(read, &plain[1..]);
    }
}

/// The result of a `check` of standard input.
struct Checked {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    peak_kib: u64,
    took: Duration,
}

/// Checks the output of `generate` and measures the memory.
fn check_stream(generate: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send) -> Checked {
    let folder = tempfile::tempdir().unwrap();
    let outputs = ["stdout", "stderr"].map(|name| folder.path().join(name));
    let mut command = Command::new(env!("CARGO_BIN_EXE_chatlift"));
    command.env_clear().env("TMPDIR", folder.path()).args(["check", "-"]).stdin(Stdio::piped());
    command.stdout(fs::File::create(&outputs[0]).unwrap()).stderr(fs::File::create(&outputs[1]).unwrap());
    let began = Instant::now();
    let mut child = command.spawn().unwrap();
    let mut input = io::BufWriter::with_capacity(1 << 16, child.stdin.take().unwrap());
    let (code, peak_kib) = std::thread::scope(|scope| {
        // The process may end before it has read everything.
        scope.spawn(move || generate(&mut input).and_then(|()| input.flush()).or_else(|error| broken_pipe_is_fine(&error)).unwrap());
        let mut peak_kib = 0;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return (status.code(), peak_kib);
            }
            peak_kib = peak_kib.max(peak(child.id()));
            std::thread::park_timeout(LOOK_EVERY);
        }
    });
    let [stdout, stderr] = outputs.map(|path| fs::read_to_string(path).unwrap());
    Checked { code, stdout, stderr, peak_kib, took: began.elapsed() }
}

fn broken_pipe_is_fine(error: &io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(io::Error::from(error.kind())) }
}

/// The most memory that a process has used so far.
fn peak(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().map_or(0, |kib| kib.parse().unwrap())
}

fn many_rows_are_checked_in_flat_memory(rows: u64) {
    let checked = check_stream(move |input| {
        input.write_all(b"UserID,Nick,FaceUrl\n")?;
        let mut line = String::new();
        for row in 0..rows {
            line.clear();
            writeln!(line, "user{row},\"Nick {row}\",https://img.example.com/{row}.png").expect("memory takes it");
            input.write_all(line.as_bytes())?;
        }
        Ok(())
    });
    println!("{rows} rows: {} KiB at most, {:?}", checked.peak_kib, checked.took);
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    assert!(checked.stdout.contains("duplicates: none"), "{}", checked.stdout);
    assert!((1..=MEMORY_MAX_KIB).contains(&checked.peak_kib), "{} KiB", checked.peak_kib);
}

#[test]
fn three_hundred_thousand_rows_are_checked_in_flat_memory() {
    many_rows_are_checked_in_flat_memory(300_000);
}

#[test]
#[ignore = "takes a minute or more; see tests/README.md"]
fn ten_million_rows_are_checked_in_flat_memory() {
    many_rows_are_checked_in_flat_memory(10_000_000);
}

/// Rows of nearly 64 KiB, each of them rejected.
#[test]
fn an_import_of_wide_rejected_rows_stays_in_its_memory() {
    const ROWS: usize = 4_000;
    for (lane, max_kib) in WIDE_MAX_KIB {
        let bench = CliFixture::new();
        let note = "x".repeat(63 << 10);
        let mut file = io::BufWriter::new(fs::File::create(bench.path("users.csv")).unwrap());
        file.write_all(b"UserID,Note\n").unwrap();
        (0..ROWS).for_each(|row| writeln!(file, " {row},{note}").unwrap());
        file.into_inner().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_chatlift"));
        command.env_clear().args(["import", "users.csv", "--sandbox", "--max-invalid", "100", "--no-progress"]).args(lane);
        command.current_dir(bench.path("")).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut peak_kib = 0;
        let code = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status.code();
            }
            peak_kib = peak_kib.max(peak(child.id()));
            std::thread::park_timeout(LOOK_EVERY);
        };
        assert_eq!(code, Some(3));
        println!("{lane:?}: {peak_kib} KiB at most");
        assert_eq!(bench.read("users.results.csv").lines().count(), ROWS + 1);
        assert!(fs::metadata(bench.path("users.rejects.csv")).unwrap().len() > (ROWS * note.len()) as u64);
        assert!((1..=max_kib).contains(&peak_kib), "{lane:?}: {peak_kib} KiB");
    }
}

#[test]
fn a_field_of_a_gigabyte_is_refused_with_its_place() {
    let check = |opening: &'static [u8], why: &str| {
        let checked = check_stream(move |input| {
            input.write_all(b"UserID,Nick\nuser1,one\n")?;
            input.write_all(opening)?;
            let piece = vec![b'a'; 1 << 16];
            (0..1 << 14).try_for_each(|_| input.write_all(&piece))
        });
        assert_eq!(checked.code, Some(2), "{}", checked.stderr);
        assert!(checked.stderr.contains(why) && checked.stderr.contains("hint: "), "{}", checked.stderr);
        assert!(checked.peak_kib <= MEMORY_MAX_KIB, "{} KiB", checked.peak_kib);
    };
    check(b"user2,\"", "the quote at line 3, column 7 is not closed");
    check(b"user2,", "the row at line 3 has more than 65536 bytes");
}

#[test]
fn a_quote_that_runs_away_in_a_large_file_stops_the_import_there() {
    const SETTLED: u64 = 1_200;
    let bench = CliFixture::with_users(SETTLED);
    let behind: String = (0..200_000).fold(String::new(), |text, row| text + &format!("behind{row},Nick {row}\n"));
    bench.write("users.csv", format!("{}runaway,\"Ni\"\"ck\n{behind}", users(SETTLED)));
    let server = Server::new(|_| imported());
    let place = format!("line {}, column 9", SETTLED + 2);
    let call = || bench.import(&server).at_any_rate();
    let run = call().run().exits(2).because(&place).hints("close the quote");
    run.imports_all(SETTLED);
    assert_eq!(server.calls() as u64, SETTLED, "no record behind the quote is sent");
    call().run().exits(2).because(&place).imports_all(SETTLED);
    bench.write("users.csv", format!("{}runaway,\"Ni\"\"ck\"\n{behind}", users(SETTLED)));
    let run = call().args(&["--limit", "300"]).run().exits(0).imports_all(SETTLED + 300);
    assert_eq!(run.rows[1_200].user_id, "runaway");
    assert_eq!(server.calls() as u64, SETTLED + 300, "what is settled is not sent again");
}
