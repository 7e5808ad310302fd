//! The cost of single parts: `cargo bench --bench parts`.
//!
//! The figures serve to compare two states of the code on one machine. In `items`, an item is a record, a line or a request.

#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up ends with a place")]
#![expect(clippy::wildcard_imports, reason = "the modules are there to group the report")]

use std::fmt::Write;
use std::io::Cursor;
use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use tempfile::TempDir;
use tokio::time::Instant;

use chatlift::domain::account::{Account, Suspects, UserId};
use chatlift::domain::answer::Answer;
use chatlift::domain::command::Command;
use chatlift::domain::outcome::{Outcome, RowOutcome, Status};
use chatlift::domain::position::{ColumnLayout, FileStat, InputPosition};
use chatlift::domain::retry::ClockReading;
use chatlift::domain::target::Target;
use chatlift::domain::verdict::{CallOutcome, SuccessSeen};
use chatlift::flow::dispatch::{Known, Scheduler, SchedulerLimits};
use chatlift::flow::import::{ImportScope, ImportWorkload, Lane, WindowLimits};
use chatlift::io::api::answer;
use chatlift::io::api::{usersig, wire};
use chatlift::io::gate::{Gate, GateAnswer, GateSettings, Rate};
use chatlift::io::journal::checkpoint::RunKind;
use chatlift::io::journal::disk::OsDisk;
use chatlift::io::journal::paths::{GivenPaths, RunPaths};
use chatlift::io::journal::{self, Journal, OutcomeSink, Restart, RunSpec, StartDecision};
use chatlift::io::roster::{Format, Record, Roster};

fn main() {
    divan::main();
}

const RECORDS: usize = 50_000;
/// The rows of one commit.
const COMMIT_ROWS: u64 = 1_000;

/// A file with UserIDs only.
fn ids() -> Vec<u8> {
    let mut text = "UserID\n".to_owned();
    for row in 0..RECORDS {
        writeln!(text, "user{row:08}").unwrap();
    }
    text.into_bytes()
}

/// Accounts as in real exports: about 70 bytes a line, every fourth name in Chinese.
fn plain() -> Vec<u8> {
    let mut text = "UserID,Nick,FaceUrl\n".to_owned();
    for row in 0..RECORDS {
        let name = if row % 4 == 0 { "韩梅梅" } else { "Nick" };
        writeln!(text, "user{row:08},{name} {row},https://img.example.com/avatars/{row}.png").unwrap();
    }
    text.into_bytes()
}

/// The same with every field in quotes, an escaped quote in each, and a line break in every tenth record.
fn quoted() -> Vec<u8> {
    let mut text = "UserID,Nick,FaceUrl,Note\n".to_owned();
    for row in 0..RECORDS {
        let between = if row % 10 == 0 { '\n' } else { ' ' };
        writeln!(text, "\"user{row:08}\",\"Nick \"\"{row}\"\"\",\"https://img.example.com/a/{row}.png\",\"one{between}two\"").unwrap();
    }
    text.into_bytes()
}

/// As [`plain`], with names and notes as Chinese exports have them.
fn chinese() -> String {
    let mut text = "UserID,Nick,Note\n".to_owned();
    for row in 0..RECORDS {
        writeln!(text, "user{row:08},韩梅梅 {row},上海市浦东新区世纪大道一百号 三号楼").unwrap();
    }
    text
}

mod source {
    use std::io::{Read, Write};

    use encoding_rs::{Encoding, GB18030, UTF_16LE};

    use super::*;
    use chatlift::io::source::TextStream;

    fn gb18030() -> Vec<u8> {
        GB18030.encode(&chinese()).0.into_owned()
    }

    fn utf16() -> Vec<u8> {
        chinese().encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    fn gzip() -> Vec<u8> {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packed.write_all(&plain()).unwrap();
        packed.finish().unwrap()
    }

    fn zstd() -> Vec<u8> {
        zstd::encode_all(&plain()[..], 3).unwrap()
    }

    #[derive(Debug, Clone, Copy)]
    struct Form(&'static str, fn() -> Vec<u8>, Option<&'static Encoding>);

    impl std::fmt::Display for Form {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }

    const FORMS: [Form; 4] = [
        Form("gb18030", gb18030, Some(GB18030)),
        Form("utf-16le", utf16, Some(UTF_16LE)),
        Form("gzip", gzip, None),
        Form("zstd", zstd, None),
    ];

    /// The text as UTF-8: its bytes are counted as they come out.
    #[divan::bench(args = FORMS)]
    fn text(bencher: Bencher, form: &Form) {
        let raw = (form.1)();
        let read = || {
            let (mut text, mut buffer, mut bytes) = (TextStream::open(Cursor::new(&raw), form.2).unwrap(), vec![0; 128 * 1024], 0);
            loop {
                match text.read(&mut buffer).unwrap() {
                    0 => return bytes,
                    more => bytes += more,
                }
            }
        };
        bencher.counter(ItemsCount::new(RECORDS)).counter(BytesCount::new(read())).bench(|| black_box(read()));
    }
}

mod roster {
    use super::*;

    const INPUTS: [Named; 3] = [Named("ids", ids), Named("plain", plain), Named("quoted", quoted)];

    /// Framing, splitting, validation and the running digest.
    #[divan::bench(args = INPUTS)]
    fn read(bencher: Bencher, input: &Named) {
        let text = (input.1)();
        bencher.counter(ItemsCount::new(RECORDS)).counter(BytesCount::new(text.len())).bench(|| {
            let roster = Roster::new(Cursor::new(&text), &Format::default()).unwrap();
            assert_eq!(roster.filter(|record| record.as_ref().unwrap().account.is_ok()).count(), RECORDS);
        });
    }

    /// The same without copying, for comparison with the bare csv crate.
    #[divan::bench(args = INPUTS)]
    fn view(bencher: Bencher, input: &Named) {
        let text = (input.1)();
        bencher.counter(ItemsCount::new(RECORDS)).counter(BytesCount::new(text.len())).bench(|| {
            let mut roster = Roster::new(Cursor::new(&text), &Format::default()).unwrap();
            let mut valid = 0;
            while let Some(view) = roster.next_view() {
                valid += usize::from(view.unwrap().account.is_ok());
            }
            assert_eq!(valid, RECORDS);
        });
    }

    /// Framing only.
    #[divan::bench(args = INPUTS)]
    fn frame(bencher: Bencher, input: &Named) {
        let text = (input.1)();
        bencher.counter(ItemsCount::new(RECORDS)).counter(BytesCount::new(text.len())).bench(|| {
            let roster = Roster::new(Cursor::new(&text), &Format::default()).unwrap();
            assert_eq!(roster.count_rest().unwrap(), RECORDS as u64);
        });
    }

    /// The csv crate alone on the same bytes, for comparison.
    #[divan::bench(args = INPUTS)]
    fn bare_csv(bencher: Bencher, input: &Named) {
        let text = (input.1)();
        bencher.counter(ItemsCount::new(RECORDS)).counter(BytesCount::new(text.len())).bench(|| {
            let mut reader = csv::Reader::from_reader(Cursor::new(&text));
            let mut record = csv::ByteRecord::new();
            let mut records = 0;
            while reader.read_byte_record(&mut record).unwrap() {
                records += 1;
            }
            assert_eq!(records, RECORDS);
        });
    }

    /// An input with its name in the report.
    struct Named(&'static str, fn() -> Vec<u8>);

    impl std::fmt::Display for Named {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }
}

mod journal_lines {
    use super::*;

    /// Formats the lines of a commit in memory.
    #[divan::bench]
    fn append(bencher: Bencher) {
        bencher.counter(ItemsCount::new(COMMIT_ROWS)).with_inputs(|| (open_journal(), outcomes())).bench_values(
            |((folder, mut journal), outcomes)| {
                fill(&mut journal, outcomes);
                (folder, journal)
            },
        );
    }

    /// Appending, syncing, and the new checkpoint: the disk's time more than ours.
    #[divan::bench(sample_count = 20, sample_size = 1)]
    fn commit(bencher: Bencher) {
        let filled = || {
            let (folder, mut journal) = open_journal();
            fill(&mut journal, outcomes());
            (folder, journal)
        };
        bencher.counter(ItemsCount::new(COMMIT_ROWS)).with_inputs(filled).bench_values(|(folder, mut journal)| {
            journal.commit().unwrap();
            (folder, journal)
        });
    }

    fn fill(journal: &mut Journal<OsDisk>, outcomes: Vec<RowOutcome>) {
        for settled in outcomes {
            journal.buffer(settled);
        }
    }

    fn outcomes() -> Vec<RowOutcome> {
        let outcome = || Outcome {
            status: Status::Imported,
            error_code: None,
            error_info: String::new(),
            attempts: 1,
            finished_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
        };
        let settled = |row: u64| RowOutcome {
            row,
            line: row + 1,
            user_id: format!("user{row:08}").into_bytes().into(),
            outcome: outcome(),
            end: InputPosition { rows: row, offset: row * 60, line: row + 2, digest: row },
            original: None,
        };
        (1..=COMMIT_ROWS).map(settled).collect()
    }

    fn open_journal() -> (TempDir, Journal<OsDisk>) {
        let folder = tempfile::tempdir().unwrap();
        let paths = RunPaths::new(&folder.path().join("users.csv"), GivenPaths::default());
        let claim = RunSpec {
            work: RunKind::Import,
            target: Target { endpoint: "bench".to_owned(), sdkappid: 1, api: "account_import".to_owned() },
            input: FileStat { len: 1, modified_ns: 1, changed_ns: 1, inode: 1 },
            source: None,
            reading: ColumnLayout { delimiter: b',', columns: [Some(0), None, None], flags: std::collections::BTreeMap::new() },
            header: csv::ByteRecord::from(vec!["UserID"]),
            rejects_delimiter: b',',
            start: InputPosition::START,
        };
        let lock = journal::lock(&OsDisk, &paths).unwrap();
        let plan = journal::examine(&OsDisk, &paths, &claim, Restart::No, |_| unreachable!("nothing is there to compare with")).unwrap();
        let StartDecision::Run(way) = plan else { unreachable!("nothing is finished in an empty folder") };
        let journal = journal::open(way, (OsDisk, lock), paths, claim, SystemTime::UNIX_EPOCH).unwrap();
        (folder, journal)
    }
}

mod scheduler {
    use super::*;

    const CALLS: u64 = 10_000;

    /// From the roster's record to the journal's outcome, with this many requests in flight that all succeed.
    #[divan::bench(args = [1, 256])]
    fn cycle(bencher: Bencher, in_flight: usize) {
        let (now, wall) = (Instant::now(), SystemTime::UNIX_EPOCH);
        let limits = SchedulerLimits { max_attempts: 5, in_flight };
        let window = WindowLimits { records: 65_536, bytes: 24 << 20 };
        let known = Known { identifier: UserId::parse(b"administrator").unwrap(), seen: SuccessSeen::NotYet };
        bencher.counter(ItemsCount::new(CALLS)).with_inputs(|| (1..=CALLS).map(record).collect::<Vec<_>>()).bench_values(|records| {
            let mut scheduler = Scheduler::<ImportWorkload>::new(limits, known.clone());
            let mut workload = ImportWorkload::new(window, (Lane::Single, ImportScope::Everything), 1);
            let (mut records, mut taken, mut left) = (records.into_iter(), 0, Vec::with_capacity(in_flight));
            while taken < CALLS {
                while left.len() < in_flight {
                    if scheduler.wants_fresh(&workload, Command::AccountImport, now) {
                        let Some(record) = records.next() else { break };
                        workload.admit(record, wall);
                    }
                    let id = scheduler.next_call(&mut workload, Command::AccountImport, now);
                    left.extend(id.inspect(|id| drop(black_box(scheduler.call(&workload, Command::AccountImport, *id)))));
                }
                for id in left.drain(..) {
                    let end = CallOutcome::Done(Answer::Nothing);
                    black_box(scheduler.ended(&mut workload, (id, now), end, ClockReading { now, wall, jitter: 0.5 }).unwrap());
                }
                taken += std::iter::from_fn(|| workload.take_settled()).map(black_box).count() as u64;
            }
        });
    }

    fn record(row: u64) -> Record {
        let id = format!("user{row:08}");
        Record {
            row,
            line: row + 1,
            end: InputPosition { rows: row, offset: row * 60, line: row + 2, digest: row },
            user_id: id.as_bytes().into(),
            other_id: None,
            suspects: Suspects::default(),
            account: Account::parse(id.as_bytes(), b"Nick", b"https://img.example.com/a.png"),
            fields: csv::ByteRecord::from(vec![id.as_str(), "Nick", "https://img.example.com/a.png"]),
            text: None,
        }
    }
}

mod gate {
    use super::*;

    /// A granted request at the default rate. The clock is moved by hand, so that each question is answered with a permit.
    #[divan::bench]
    fn ask_and_send(bencher: Bencher) {
        let mut now = Instant::now();
        let mut gate = Gate::new(Rate::PerSecond(wire::ACCOUNT_IMPORT_CALLS_PER_S), &GateSettings::default(), now);
        bencher.bench_local(|| {
            now += Duration::from_micros(5_020);
            let GateAnswer::Now(mut permit) = gate.try_acquire(now) else { unreachable!("one call in 5.02 ms is below 200 a second") };
            permit.mark_sent();
            gate.note_sends(now);
        });
    }

    /// The answer "not yet".
    #[divan::bench]
    fn ask_too_early(bencher: Bencher) {
        let now = Instant::now();
        let mut gate = Gate::new(Rate::PerSecond(NonZeroU32::MIN), &GateSettings::default(), now);
        let permits: Vec<_> = std::iter::from_fn(|| match gate.try_acquire(now) {
            GateAnswer::Now(mut permit) => {
                permit.mark_sent();
                Some(permit)
            }
            GateAnswer::At(_) | GateAnswer::WhenSent | GateAnswer::WhenGranted => None,
        })
        .collect();
        bencher.bench_local(|| black_box(gate.try_acquire(now)));
        drop(permits);
    }
}

mod api {
    use super::*;

    /// Runs once in twelve hours.
    #[divan::bench]
    fn usersig_sign() -> secrecy::SecretString {
        usersig::sign(&key(), 1_400_000_000, "administrator", black_box(SystemTime::UNIX_EPOCH), usersig::LIFE)
    }

    /// Runs once per signature.
    #[divan::bench]
    fn query_before_random(bencher: Bencher) {
        let usersig = "eJw*-_".repeat(40);
        let query = wire::Query { sdkappid: 1_400_000_000, identifier: "administrator", usersig: &usersig };
        bencher.bench(|| black_box(&query).before_random());
    }

    /// Runs once per request.
    #[divan::bench]
    fn body() -> Vec<u8> {
        let body = wire::ImportBody {
            user_id: black_box("user00000001").into(),
            nick: Some("Nick 1".into()),
            face_url: Some("https://img.example.com/a/1.png".into()),
        };
        serde_json::to_vec(&body).unwrap()
    }

    /// Runs once per request.
    #[divan::bench(args = [
        r#"{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0}"#,
        r#"{"ActionStatus":"FAIL","ErrorInfo":"internal error, try again","ErrorCode":70169}"#,
        "<html>a captive portal</html>",
    ])]
    fn answer(text: &str) -> CallOutcome {
        answer::read(Command::AccountImport, black_box(text.as_bytes()))
    }

    /// The sample key of Tencent's own test vectors.
    fn key() -> secrecy::SecretString {
        "5bd2850fff3ecb11d7c805251c51ee463a25727bddc2385f3fa8bfee1bb93b5e".into()
    }
}
