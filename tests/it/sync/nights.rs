//! Nights in a row under a real SIGKILL, the stand-in in a process of its own and killed too: what it holds in the end is what the file
//! says, and nobody was sent or deleted for nothing.
//!
//! `CHATLIFT_NIGHTS` sets how many; `CHATLIFT_NIGHTS_SEED` draws the same files and moments again, the machine's timing is its own.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::export_model::{Export, Flaw, UserBase, Wanted, WantedAccount};
use super::kept::{Kept, TagNames, kept};
use super::night::sync;
use crate::support::ports::{is_connected_to, unused_port};
use crate::support::{Call, CliFixture, Run, Running, SDKAPPID, eventually};

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
    tags_set: usize,
    profile_runs: u64,
    deleted: usize,
}

#[test]
fn night_after_night_the_service_holds_what_the_last_file_says() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let (nights, seed) = (number("CHATLIFT_NIGHTS").unwrap_or(NIGHTS), number("CHATLIFT_NIGHTS_SEED").unwrap_or_else(|| fastrand::u64(..)));
    println!("CHATLIFT_NIGHTS_SEED={seed}");
    let began = Instant::now();
    let bench = CliFixture::new();
    let mut syncs = NightlySyncs::new(&bench, seed);
    for _ in 0..nights {
        syncs.night();
    }
    println!("{:?} in {:?}", syncs.count, began.elapsed());
    assert!(syncs.count.kills >= nights * 2 / 3, "nights are killed: {:?}", syncs.count);
    assert!(syncs.count.sent > 0 && syncs.count.tags_set > 0 && syncs.count.deleted > 0);
    assert!(nights < NIGHTS || syncs.count.profile_runs > 0);
}

/// What the service holds, by id.
type Accounts = BTreeMap<String, Account>;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Account {
    nick: String,
    face: String,
    tags: BTreeMap<String, String>,
}

impl Account {
    /// Once it is as a record asks.
    fn with(mut self, wanted: &WantedAccount<'_>) -> Self {
        wanted.nick.clone_into(&mut self.nick);
        if !wanted.face.is_empty() {
            wanted.face.clone_into(&mut self.face);
        }
        self.set(wanted);
        self
    }

    /// Once its tags are as a record asks.
    fn set(&mut self, wanted: &WantedAccount<'_>) {
        self.tags.extend(wanted.tags.iter().map(|(tag, value)| ((*tag).to_owned(), value.clone())));
    }
}

/// Ids that a process may call for.
#[derive(Debug, Default)]
struct MayBeCalled {
    to_import: BTreeSet<String>,
    to_set: BTreeSet<String>,
}

/// A line of the call log.
struct Touch {
    command: String,
    id: String,
}

struct NightlySyncs<'a> {
    bench: &'a CliFixture,
    users: UserBase,
    sandbox: Running<'a>,
    port: u16,
    /// Lines of the call log that were looked at.
    looked_at: usize,
    /// Ids and tags of which nobody knows what the service holds.
    in_doubt: BTreeSet<String>,
    tags_in_doubt: TagNames,
    typical: Duration,
    count: Count,
}

/// A process, and what was so before it.
struct Process<'a> {
    held: Accounts,
    wanted: Wanted<'a>,
    may_be_called: MayBeCalled,
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

impl<'a> NightlySyncs<'a> {
    fn new(bench: &'a CliFixture, seed: u64) -> Self {
        let users = UserBase::new(seed);
        let port = unused_port();
        let sandbox = stand_in(bench, port);
        awaits_service(&sandbox);
        let (in_doubt, tags_in_doubt, count) = Default::default();
        Self { bench, users, sandbox, port, looked_at: 1, in_doubt, tags_in_doubt, typical: TYPICAL, count }
    }

    fn night(&mut self) {
        self.count.nights += 1;
        self.users.edit();
        if self.users.chance.u8(..3) == 0 {
            self.users.change_columns();
        }
        if self.count.nights > 1 && self.users.chance.u8(..4) == 0 {
            self.stopped_by_a_guard();
        }
        let missing = if self.users.chance.u8(..4) == 0 { Missing::Report } else { Missing::Delete };
        let mut file = self.users.export();
        self.bench.write("users.csv", file.csv());
        if self.count.nights > 1 && file.has_tags() && self.users.chance.u8(..6) == 0 {
            self.profiles_alone(&file);
        }
        for _ in 0..self.users.chance.u8(1..4) {
            let time = self.typical.mul_f64(self.users.chance.f64());
            if self.process(&file, missing, Some(time)).signal.is_none() {
                break;
            }
            match self.users.chance.u8(..10) {
                0..2 => self.users.edit(),
                2 => self.users.take_back(),
                3 => {
                    self.stopped_by_a_guard();
                    self.bench.write("users.csv", file.csv());
                    continue;
                }
                _ => continue,
            }
            self.count.changed += 1;
            file = self.users.export();
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
        let may_be_called = self.may_be_called(&held, &wanted);
        let lane = if self.users.chance.bool() { &["--batch"][..] } else { &[] };
        let mut running = sync(self.bench, &self.endpoint(), &flags(missing, lane)).start();
        let sandbox_died = self.users.chance.u8(..12) == 0;
        if sandbox_died {
            std::thread::park_timeout(self.typical.mul_f64(self.users.chance.f64()));
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
        let process = Process { held, wanted, may_be_called, missing, sandbox_died, context };
        self.nobody_is_touched_for_nothing(&process);
        let kept = kept(self.bench);
        self.nothing_is_in_doubt_for_nothing(&process, &kept);
        match (run.code, run.signal) {
            (None, Some(9)) => self.count.kills += 1,
            (Some(code), None) => {
                assert_eq!(code, if file.has_rejects() { 3 } else { 0 }, "{}", process.context);
                self.count.resumed += u64::from(run.summary["resumed_at_row"].as_u64().unwrap() > 0);
                self.is_as_the_file_says(&process, &kept);
            }
            _ => panic!("{}: {run:?}", process.context),
        }
        (self.in_doubt, self.tags_in_doubt) = (kept.in_doubt, kept.tags_in_doubt);
        run
    }

    fn nothing_is_in_doubt_for_nothing(&self, process: &Process<'_>, kept: &Kept) {
        let Process { held, wanted, may_be_called, context, .. } = process;
        for id in kept.in_doubt.iter().chain(kept.tags_in_doubt.keys()) {
            let is_absent = held.contains_key(id) && !wanted.contains_key(id.as_str());
            let was_in_doubt = self.in_doubt.contains(id) || self.tags_in_doubt.contains_key(id);
            let may_be = is_absent || was_in_doubt || may_be_called.to_import.contains(id) || may_be_called.to_set.contains(id);
            assert!(may_be, "{id} is in doubt without a call: {context}");
        }
    }

    /// `import --profile-only` of the file as it is: tags are set for all rows that have any, whoever is unknown is imported, and the state
    /// knows both.
    fn profiles_alone(&mut self, file: &Export) {
        self.count.profile_runs += 1;
        let held = self.accounts();
        let run = profile_only(self.bench, &self.endpoint()).run();
        assert_eq!(run.code, Some(if file.has_invalid() { 3 } else { 0 }), "{}", run.stderr);
        self.awaits_silence();
        let mut expected = held.clone();
        for (id, wanted) in file.valid_records().filter(|(_, wanted)| !wanted.tags.is_empty()) {
            let account = expected.entry(id.to_owned()).or_default();
            if held.contains_key(id) {
                account.set(&wanted);
            } else {
                *account = std::mem::take(account).with(&wanted);
            }
        }
        assert_eq!(self.accounts(), expected, "{}", run.stderr);
        let imported: Vec<Touch> = self.call_log().into_iter().filter(|touch| touch.command.contains("import")).collect();
        assert!(imported.iter().all(|touch| !held.contains_key(&touch.id)), "whoever is known is not imported: {}", run.stderr);
        let kept = kept(self.bench);
        let known: BTreeSet<&String> = kept.ids.iter().collect();
        assert!(imported.iter().all(|touch| known.contains(&touch.id) && !kept.in_doubt.contains(&touch.id)), "{}", run.stderr);
        (self.in_doubt, self.tags_in_doubt) = (kept.in_doubt, kept.tags_in_doubt);
    }

    /// Ids whose last record asks for what the service doesn't hold, or of which nobody knows.
    fn may_be_called(&self, held: &Accounts, wanted: &Wanted<'_>) -> MayBeCalled {
        let mut may_be = MayBeCalled::default();
        for (id, wanted) in wanted.iter().filter_map(|(id, wanted)| Some((*id, wanted.as_ref()?))) {
            let (is_in_doubt, tags_in_doubt) = (self.in_doubt.contains(id), self.tags_in_doubt.get(id));
            let is_other = |held: &Account| wanted.nick != held.nick || (!wanted.face.is_empty() && wanted.face != held.face);
            // Where only tags are in doubt that the record doesn't have, only the import can be sent.
            if is_in_doubt || tags_in_doubt.is_some() || held.get(id).is_none_or(is_other) {
                may_be.to_import.insert(id.to_owned());
            }
            let is_held = |tag: &str, value: &String| held.get(id).is_some_and(|held| held.tags.get(tag) == Some(value));
            let is_tag_in_doubt = |tag: &str| is_in_doubt || tags_in_doubt.is_some_and(|tags| tags.contains(tag));
            if wanted.tags.iter().any(|(tag, value)| !is_held(tag, value) || is_tag_in_doubt(tag)) {
                may_be.to_set.insert(id.to_owned());
            }
        }
        may_be
    }

    fn nobody_is_touched_for_nothing(&mut self, process: &Process<'_>) {
        let Process { wanted, may_be_called, missing, sandbox_died, context, .. } = process;
        let (mut sent, mut with_tags, mut deleted) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for Touch { command, id } in self.call_log() {
            match command.as_str() {
                "account_import" | "multiaccount_import" => {
                    assert!(may_be_called.to_import.contains(&id), "{id} is sent, and the service holds what the file says: {context}");
                    assert!(sent.insert(id) || *sandbox_died, "it is sent twice: {context}");
                }
                "portrait_set" => {
                    assert!(may_be_called.to_set.contains(&id), "{id} is set, and the service holds what the file says: {context}");
                    assert!(with_tags.insert(id) || *sandbox_died, "it is set twice: {context}");
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
        self.count.tags_set += with_tags.len();
        self.count.deleted += deleted.len();
    }

    /// The night is over.
    fn is_as_the_file_says(&self, process: &Process<'_>, kept: &Kept) {
        let Process { held, wanted, missing, context, .. } = process;
        let mut expected = if *missing == Missing::Report { held.clone() } else { Accounts::new() };
        for (id, wanted) in wanted {
            let before = held.get(*id).cloned();
            let account = if let Some(wanted) = wanted { Some(before.unwrap_or_default().with(wanted)) } else { before };
            expected.extend(account.map(|account| ((*id).to_owned(), account)));
        }
        assert_eq!(self.accounts(), expected, "{context}");
        assert!(kept.is_finished, "{context}");
        let undecided = kept.in_doubt.iter().find(|id| wanted.get(id.as_str()).is_some_and(Option::is_some));
        assert_eq!(undecided, None, "it was sent, so it is known: {context}");
        let is_wanted = |id: &str, tag: &String| {
            wanted.get(id).is_some_and(|wanted| wanted.as_ref().is_some_and(|wanted| wanted.tags.contains_key(tag.as_str())))
        };
        let undecided = kept.tags_in_doubt.iter().find(|(id, tags)| tags.iter().any(|tag| is_wanted(id, tag)));
        assert_eq!(undecided, None, "it was set, so it is known: {context}");
        let held: BTreeSet<&String> = expected.keys().chain(&kept.in_doubt).collect();
        assert!(kept.ids.iter().eq(held), "the state holds what the service holds: {context}");
    }

    /// A bad export: nothing is sent, and nothing changes.
    fn stopped_by_a_guard(&mut self) {
        let flaw = Flaw::ALL[self.users.chance.usize(..4)];
        // Where an earlier process of the first night was killed, hardly anything is held that shares could be judged by.
        if kept(self.bench).runs_finished == 0 {
            return;
        }
        self.count.stopped += 1;
        self.bench.write("users.csv", self.users.spoilt(flaw).csv());
        let accounts = self.accounts_csv();
        let before = self.untouchable();
        // A transaction that a kill has cut off is rolled back by whoever looks next; then the bytes may change, what they say may not.
        let is_cut_off = self.bench.names().contains("users.state-journal");
        let known = kept(self.bench);
        let bounds = ["--missing", "delete", "--missing-runs", "1", "--max-delete", "4%"];
        let run = sync(self.bench, &self.endpoint(), &bounds).run().exits(6);
        assert!(run.stderr.contains(&format!("guard {}: ", flaw.guard())), "{flaw:?}: {}", run.stderr);
        self.awaits_silence();
        assert_eq!(self.call_log().len(), 0, "{flaw:?}: nothing is sent");
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
    fn call_log(&mut self) -> Vec<Touch> {
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
        let header = csv.headers().unwrap().clone();
        assert!(header.iter().take(3).eq(["UserID", "Nick", "FaceUrl"]), "{header:?}");
        let account = |record: csv::StringRecord| {
            let cells = header.iter().zip(&record).skip(3).filter(|(_, cell)| !cell.is_empty());
            let tags = cells.map(|(tag, cell)| (tag.to_owned(), cell.to_owned())).collect();
            (record[0].to_owned(), Account { nick: record[1].to_owned(), face: record[2].to_owned(), tags })
        };
        csv.records().map(Result::unwrap).map(account).collect()
    }
}

fn flags<'a>(missing: Missing, lane: &[&'a str]) -> Vec<&'a str> {
    let about = match missing {
        Missing::Report => &["--missing", "report"][..],
        Missing::Delete => &["--missing", "delete", "--missing-runs", "1", "--max-delete", "25%"],
    };
    [&["--max-update", "60%"], about, lane].concat()
}

/// Sets the tags of the file as it is, and tells the state.
fn profile_only<'a>(bench: &'a CliFixture, endpoint: &str) -> Call<'a> {
    let key = bench.key();
    let call = bench.call(&["import", "users.csv", "--profile-only", "--state", "users.state", "--results", "profiles.csv", "--restart"]);
    let call = call.args(&["--endpoint", endpoint, "--sdkappid", SDKAPPID, "--secret-key-file", key.to_str().unwrap()]);
    call.args(&["--rate", "0", "--profile-rate", "0", "--max-invalid", "100"])
}

fn stand_in(bench: &CliFixture, port: u16) -> Running<'_> {
    let [key, held, calls] = [bench.key(), bench.outside("held.csv"), bench.outside("calls.csv")];
    let (port, key) = (port.to_string(), key.to_str().unwrap());
    let call = bench.call(&["sandbox", "--port", &port, "--limit", "0", "--latency", "4ms", "--secret-key-file", key]);
    let call = call.args(&["--profile-limit", "0", "--custom-field", "Vip"]);
    call.args(&["--accounts", held.to_str().unwrap(), "--call-log", calls.to_str().unwrap()]).start()
}

fn awaits_service(sandbox: &Running<'_>) {
    eventually("it serves", || sandbox.stderr().contains("; Ctrl-C"));
}
