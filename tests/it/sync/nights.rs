//! Nights in a row under a real SIGKILL, the stand-in in a process of its own and killed too: what it holds in the end is what the file
//! says, and nobody was sent or deleted for nothing.
//!
//! `CHATLIFT_NIGHTS` sets how many; `CHATLIFT_NIGHTS_SEED` draws the same files and moments again, the machine's timing is its own.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::export_model::{Accounts, Export, Flaw, Town, Wanted};
use super::kept::{Kept, kept};
use super::night::sync;
use crate::support::ports::{is_connected_to, unused_port};
use crate::support::{CliFixture, Run, Running, eventually};

/// Nights unless another number is asked for. Chosen: some seconds.
const NIGHTS: u64 = 25;
/// How long a night takes, until one was seen.
const TYPICAL: Duration = Duration::from_millis(300);

#[derive(Debug, Default)]
struct Count {
    nights: u64,
    kills: u64,
    resumed: u64,
    changed: u64,
    sandbox_kills: u64,
    stopped: u64,
    sent: usize,
    deleted: usize,
}

#[test]
fn night_after_night_the_service_holds_what_the_last_file_says() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let (nights, seed) = (number("CHATLIFT_NIGHTS").unwrap_or(NIGHTS), number("CHATLIFT_NIGHTS_SEED").unwrap_or_else(|| fastrand::u64(..)));
    println!("CHATLIFT_NIGHTS_SEED={seed}");
    let began = Instant::now();
    let bench = CliFixture::new();
    let mut street = Street::new(&bench, seed);
    for _ in 0..nights {
        street.night();
    }
    println!("{:?} in {:?}", street.count, began.elapsed());
    assert!(street.count.kills >= nights * 2 / 3, "nights are killed: {:?}", street.count);
    assert!(street.count.sent > 0 && street.count.deleted > 0);
}

/// A line of the call log.
struct Touch {
    command: String,
    id: String,
}

struct Street<'a> {
    bench: &'a CliFixture,
    town: Town,
    sandbox: Running<'a>,
    port: u16,
    /// Lines of the call log that were looked at.
    looked_at: usize,
    /// Ids of which nobody knows what the service holds.
    in_doubt: BTreeSet<String>,
    typical: Duration,
    count: Count,
}

/// A process, and what was so before it.
struct Process<'a> {
    held: Accounts,
    wanted: Wanted<'a>,
    may_be_sent: BTreeSet<String>,
    missing: Missing,
    /// Then calls may be repeated.
    sandbox_died: bool,
    context: String,
}

/// What is done about the missing in a night.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Report,
    Delete,
}

impl<'a> Street<'a> {
    fn new(bench: &'a CliFixture, seed: u64) -> Self {
        let town = Town::new(seed);
        let port = unused_port();
        let sandbox = stand_in(bench, port);
        awaits_service(&sandbox);
        let (looked_at, in_doubt, count) = (1, BTreeSet::new(), Count::default());
        Self { bench, town, sandbox, port, looked_at, in_doubt, typical: TYPICAL, count }
    }

    fn night(&mut self) {
        self.count.nights += 1;
        self.town.edit();
        if self.count.nights > 1 && self.town.chance.u8(..4) == 0 {
            self.stopped_by_a_guard();
        }
        let missing = if self.town.chance.u8(..4) == 0 { Missing::Report } else { Missing::Delete };
        let mut file = self.town.export();
        self.bench.write("users.csv", file.csv());
        for _ in 0..self.town.chance.u8(1..4) {
            let time = self.typical.mul_f64(self.town.chance.f64());
            if self.process(&file, missing, Some(time)).signal.is_none() {
                break;
            }
            match self.town.chance.u8(..10) {
                0..2 => self.town.edit(),
                2 => self.town.take_back(),
                3 => {
                    self.stopped_by_a_guard();
                    self.bench.write("users.csv", file.csv());
                    continue;
                }
                _ => continue,
            }
            self.count.changed += 1;
            file = self.town.export();
            self.bench.write("users.csv", file.csv());
        }
        let run = self.process(&file, missing, None);
        self.typical = self.typical.mul_f64(0.7) + run.took.min(TYPICAL).mul_f64(0.3);
        assert_eq!(run.signal, None);
        self.sweep();
    }

    /// One process: what it sends is what it may send, and if it comes to the end, the service holds what the file says.
    fn process(&mut self, file: &Export, missing: Missing, killed_after: Option<Duration>) -> Run {
        let (held, wanted) = (self.accounts(), file.wanted());
        let may_be_sent = self.may_be_sent(&held, &wanted);
        let lane = if self.town.chance.bool() { &["--batch"][..] } else { &[] };
        let mut running = sync(self.bench, &self.endpoint(), &flags(missing, lane)).start();
        let sandbox_died = self.town.chance.u8(..12) == 0;
        if sandbox_died {
            std::thread::park_timeout(self.typical.mul_f64(self.town.chance.f64()));
            self.sandbox_dies();
        }
        if let Some(time) = killed_after {
            std::thread::park_timeout(time);
            if !running.has_ended() {
                running.signal(Signal::KILL);
            }
        }
        let run = running.wait();
        self.awaits_silence();
        let context = format!("night {}, {missing:?}, {lane:?}: {}", self.count.nights, run.stderr);
        let process = Process { held, wanted, may_be_sent, missing, sandbox_died, context };
        self.nobody_is_touched_for_nothing(&process);
        let kept = kept(self.bench);
        for id in &kept.in_doubt {
            let is_absent = process.held.contains_key(id) && !process.wanted.contains_key(id.as_str());
            let may_be = is_absent || self.in_doubt.contains(id) || process.may_be_sent.contains(id);
            assert!(may_be, "{id} is in doubt without a call: {}", process.context);
        }
        match (run.code, run.signal) {
            (None, Some(9)) => self.count.kills += 1,
            (Some(code), None) => {
                assert_eq!(code, if file.has_rejects() { 3 } else { 0 }, "{}", process.context);
                self.count.resumed += u64::from(run.summary["resumed_at_row"].as_u64().unwrap() > 0);
                self.is_as_the_file_says(&process, &kept);
            }
            _ => panic!("{}: {run:?}", process.context),
        }
        self.in_doubt = kept.in_doubt;
        run
    }

    /// Ids whose last record asks for what the service doesn't hold, or of which nobody knows.
    fn may_be_sent(&self, held: &Accounts, wanted: &Wanted<'_>) -> BTreeSet<String> {
        let differs = |id: &str, (nick, face): (&str, &str)| {
            held.get(id).is_none_or(|(held_nick, held_face)| nick != held_nick || (!face.is_empty() && face != held_face))
        };
        let valid = wanted.iter().filter_map(|(id, wanted)| wanted.map(|wanted| (*id, wanted)));
        valid.filter(|(id, wanted)| differs(id, *wanted) || self.in_doubt.contains(*id)).map(|(id, _)| id.to_owned()).collect()
    }

    fn nobody_is_touched_for_nothing(&mut self, process: &Process<'_>) {
        let Process { wanted, may_be_sent, missing, sandbox_died, context, .. } = process;
        let (mut sent, mut deleted) = (BTreeSet::new(), BTreeSet::new());
        for Touch { command, id } in self.touches() {
            match command.as_str() {
                "account_import" | "multiaccount_import" => {
                    assert!(may_be_sent.contains(&id), "{id} is sent, and the service holds what the file says: {context}");
                    assert!(sent.insert(id) || *sandbox_died, "it is sent twice: {context}");
                }
                "account_delete" => {
                    assert!(*missing == Missing::Delete && !wanted.contains_key(id.as_str()), "{id} is deleted: {context}");
                    assert!(deleted.insert(id) || *sandbox_died, "it is deleted twice: {context}");
                }
                "portrait_get" => assert!(sent.contains(&id) || *sandbox_died, "{context}"),
                // A suspicion that the service is down is tested so; it changes nothing.
                "account_check" => assert!(*sandbox_died, "{context}"),
                other => panic!("{other}: {context}"),
            }
        }
        self.count.sent += sent.len();
        self.count.deleted += deleted.len();
    }

    /// The night is over.
    fn is_as_the_file_says(&self, process: &Process<'_>, kept: &Kept) {
        let Process { held, wanted, missing, context, .. } = process;
        let mut expected = if *missing == Missing::Report { held.clone() } else { Accounts::new() };
        for (id, wanted) in wanted {
            let account = wanted.map(|(nick, face)| (nick.to_owned(), face.to_owned())).or_else(|| held.get(*id).cloned());
            expected.extend(account.map(|account| ((*id).to_owned(), account)));
        }
        assert_eq!(self.accounts_csv(), csv_of(&expected), "{context}");
        assert!(kept.is_finished, "{context}");
        let undecided = kept.in_doubt.iter().find(|id| wanted.get(id.as_str()).is_some_and(Option::is_some));
        assert_eq!(undecided, None, "it was sent, so it is known: {context}");
        let held: BTreeSet<&String> = expected.keys().chain(&kept.in_doubt).collect();
        assert!(kept.ids.iter().eq(held), "the state holds what the service holds: {context}");
    }

    /// A bad export: nothing is sent, and nothing changes.
    fn stopped_by_a_guard(&mut self) {
        let flaw = Flaw::ALL[self.town.chance.usize(..4)];
        // Where an earlier process of the first night was killed, hardly anything is held that shares could be judged by.
        if kept(self.bench).runs_finished == 0 {
            return;
        }
        self.count.stopped += 1;
        self.bench.write("users.csv", self.town.spoilt(flaw).csv());
        let accounts = self.accounts_csv();
        let before = self.untouchable();
        // A transaction that a kill has cut off is rolled back by whoever looks next; then the bytes may change, what they say may not.
        let is_cut_off = self.bench.names().contains("users.state-journal");
        let known = kept(self.bench);
        let bounds = ["--missing", "delete", "--missing-runs", "1", "--max-delete", "4%"];
        let run = sync(self.bench, &self.endpoint(), &bounds).run().exits(6);
        assert!(run.stderr.contains(&format!("guard {}: ", flaw.guard())), "{flaw:?}: {}", run.stderr);
        self.awaits_silence();
        assert_eq!(self.touches().len(), 0, "{flaw:?}: nothing is sent");
        assert_eq!(self.accounts_csv(), accounts);
        assert_eq!(kept(self.bench), known);
        let after = self.untouchable();
        let changed: Vec<&String> = before
            .iter()
            .filter(|file| !after.contains(file))
            .chain(after.iter().filter(|file| !before.contains(file)))
            .map(|(name, _)| name)
            .collect();
        assert!(is_cut_off || changed.is_empty(), "{flaw:?}: {changed:?}");
    }

    /// Every file but the input, the summary and what a rollback removes.
    fn untouchable(&self) -> Vec<(String, Vec<u8>)> {
        // A summary that a kill has cut off is removed by the next one.
        let free = ["users.csv", "summary.json", ".summary.json.tmp", "users.state-journal"];
        self.bench.contents().into_iter().filter(|(name, _)| !free.contains(&name.as_str())).collect()
    }

    /// Old files would only slow the nights down.
    fn sweep(&self) {
        let is_dated = |name: &str| name.split('.').any(|part| part.len() >= 16 && part.starts_with("20") && part.contains('T'));
        for name in self.bench.names().into_iter().filter(|name| is_dated(name)) {
            std::fs::remove_file(self.bench.path(&name)).unwrap();
        }
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn sandbox_dies(&mut self) {
        self.count.sandbox_kills += 1;
        self.sandbox.signal(Signal::KILL);
        eventually("the stand-in is dead", || TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err());
        let next = stand_in(self.bench, self.port);
        awaits_service(&next);
        std::mem::replace(&mut self.sandbox, next).wait();
    }

    fn awaits_silence(&self) {
        eventually("the stand-in has read it all", || !is_connected_to(self.port));
    }

    /// Those since the last look.
    fn touches(&mut self) -> Vec<Touch> {
        let log = std::fs::read_to_string(self.bench.outside("calls.csv")).unwrap();
        let new: Vec<Touch> = log
            .lines()
            .skip(self.looked_at)
            .map(|line| {
                let mut cells = line.split(',');
                Touch { command: cells.next().unwrap().to_owned(), id: cells.next().unwrap().to_owned() }
            })
            .collect();
        self.looked_at += new.len();
        new
    }

    fn accounts_csv(&self) -> String {
        let mut line = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        let host = format!("{}:{}", Ipv4Addr::LOCALHOST, self.port);
        line.write_all(format!("GET /accounts.csv HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        line.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        body.to_owned()
    }

    fn accounts(&self) -> Accounts {
        let csv = self.accounts_csv();
        let mut csv = csv::Reader::from_reader(csv.as_bytes());
        csv.records().map(Result::unwrap).map(|record| (record[0].to_owned(), (record[1].to_owned(), record[2].to_owned()))).collect()
    }
}

fn flags<'a>(missing: Missing, lane: &[&'a str]) -> Vec<&'a str> {
    let about = match missing {
        Missing::Report => &["--missing", "report"][..],
        Missing::Delete => &["--missing", "delete", "--missing-runs", "1", "--max-delete", "25%"],
    };
    [&["--max-update", "60%"], about, lane].concat()
}

fn csv_of(accounts: &Accounts) -> String {
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(["UserID", "Nick", "FaceUrl"]).unwrap();
    for (id, (nick, face)) in accounts {
        csv.write_record([id, nick, face]).unwrap();
    }
    String::from_utf8(csv.into_inner().unwrap()).unwrap()
}

fn stand_in(bench: &CliFixture, port: u16) -> Running<'_> {
    let [key, held, calls] = [bench.key(), bench.outside("held.csv"), bench.outside("calls.csv")];
    let (port, key) = (port.to_string(), key.to_str().unwrap());
    let call = bench.call(&["sandbox", "--port", &port, "--limit", "0", "--latency", "4ms", "--secret-key-file", key]);
    call.args(&["--accounts", held.to_str().unwrap(), "--call-log", calls.to_str().unwrap()]).start()
}

fn awaits_service(sandbox: &Running<'_>) {
    eventually("it serves", || sandbox.stderr().contains("; Ctrl-C"));
}
