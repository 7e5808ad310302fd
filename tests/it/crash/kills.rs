//! The real binary under many real SIGKILLs against a faulty service, which shows more than a simulation of the disk.
//!
//! Files are imported in parallel. Processes are killed or stopped at random moments, until one of them finishes the file. `CHATLIFT_KILLS`
//! sets the least number of killed processes.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chatlift::domain::command::Command as Api;
use chatlift::sandbox::{Audit, CustomFields, Sandbox, SandboxSettings};
use rustix::process::Signal;

use crate::support::ports::is_connected_to;
use crate::support::{CliFixture, KEY, Run, Running, eventually};

/// The default number of kills. Chosen: it takes some seconds.
const KILLS: u64 = 100;
/// Files at a time. Chosen: some of them always wait for a stalled answer.
const FILES_AT_ONCE: u64 = 6;
/// The longest time after which a process is killed, if not after a number of requests. Chosen: it covers start, recovery and the first
/// requests.
const EARLY: Duration = Duration::from_millis(40);
/// The most requests before a process is usually killed or stopped.
const CALLS_MAX: u64 = 400;
/// The most requests before a process is sometimes killed or stopped. Chosen: more than the 1,000 rows of a commit.
const MANY_CALLS_MAX: u64 = 1_400;
/// Requests that test the service for a suspected outage. Another suspicion of the same API can follow after a second at the earliest.
const TEST_CALLS: u64 = 3;
/// The tag of the profile that some of the files set.
const TAG: &str = "Tag_Profile_Custom_Level";
/// The most processes for one file. Chosen: far more than are needed.
const PROCESSES_MAX: usize = 2_000;
/// The faults of the service for some of the users, each with a limited number of times.
const FAULTS: [&str; 5] = [
    "code=70169,ids=10%,times=2",
    "reset=after,ids=1%,times=1",
    "reset=before,ids=1%,times=1",
    "html,ids=1%,times=1",
    "stall,ids=0.1%,times=1",
];

/// The number of killed and stopped processes of a file.
#[derive(Debug, Default, Clone, Copy)]
struct Count {
    files: u64,
    rows: u64,
    kills: u64,
    signals: u64,
    calls: u64,
    again: u64,
}

#[test]
fn no_kill_of_the_real_process_breaks_a_promise() {
    let wanted: u64 = std::env::var("CHATLIFT_KILLS").map_or(KILLS, |count| count.parse().expect("CHATLIFT_KILLS is a number"));
    let seed: u64 = std::env::var("CHATLIFT_KILLS_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().expect("it is a number"));
    println!("CHATLIFT_KILLS_SEED={seed}");
    let began = Instant::now();
    let (kills, next, sum) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::new(Count::default()));
    std::thread::scope(|scope| {
        for _ in 0..FILES_AT_ONCE {
            scope.spawn(|| {
                while kills.load(Ordering::Relaxed) < wanted {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let count = File::new(seed.wrapping_add(number)).lives_through(&kills, wanted);
                    sum.lock().unwrap().add(count);
                }
            });
        }
    });
    let sum = sum.into_inner().unwrap();
    println!("{sum:?} in {:?}", began.elapsed());
    assert!(sum.kills >= wanted);
}

impl Count {
    fn add(&mut self, other: Count) {
        self.files += other.files;
        self.rows += other.rows;
        self.kills += other.kills;
        self.signals += other.signals;
        self.calls += other.calls;
        self.again += other.again;
    }
}

/// How a process is ended.
#[derive(Debug, Clone, Copy)]
enum Ending {
    Early(Duration),
    AfterCalls(u64),
    Gentle(Signal, u64),
}

/// A file that is being imported.
struct File {
    seed: u64,
    chance: fastrand::Rng,
    bench: CliFixture,
    sandbox: Sandbox,
    /// In input order.
    rows: Vec<InputRow>,
    count: Count,
}

/// A row of the input.
#[derive(Debug)]
struct InputRow {
    id: String,
    nick: String,
    /// The value of [`TAG`], or nothing.
    tag: String,
}

impl InputRow {
    /// The requests that it takes.
    fn calls(&self) -> u64 {
        if self.tag.is_empty() { 1 } else { 2 }
    }
}

impl File {
    fn new(seed: u64) -> Self {
        let mut chance = fastrand::Rng::with_seed(seed);
        let bench = CliFixture::new();
        let faults = FAULTS.iter().map(|fault| fault.parse().unwrap()).collect();
        let settings = SandboxSettings {
            limit_per_s: None,
            faults,
            seed,
            custom_fields: CustomFields::Any,
            ..SandboxSettings::with_key(KEY.to_owned().into())
        };
        let sandbox = Sandbox::start(settings).unwrap();
        let rows = rows(chance.usize(100..1_600), &mut chance);
        bench.write("users.csv", csv(&rows, &mut chance));
        Self { seed, chance, bench, sandbox, rows, count: Count { files: 1, ..Count::default() } }
    }

    fn lives_through(mut self, kills: &AtomicU64, wanted: u64) -> Count {
        self.count.rows = self.rows.len() as u64;
        for _ in 0..PROCESSES_MAX {
            let imports = self.imports();
            let spent = self.spent();
            let ending = (kills.load(Ordering::Relaxed) < wanted).then(|| self.ending());
            let committed = self.committed();
            let run = self.process(ending);
            self.no_committed_row_is_sent_again(committed, &imports);
            let excess = (self.spent() - spent).saturating_sub(self.cost(committed..self.committed()));
            self.count.again += excess;
            match (run.code, run.signal) {
                (Some(0), None) => {
                    let why = "the calls of its rows, one more for each fault, and the tests of a suspicion";
                    let apis = if self.rows.iter().all(|row| row.tag.is_empty()) { 1 } else { 2 };
                    let test_calls_max = apis * TEST_CALLS * (2 + run.took.as_secs());
                    assert!(excess <= test_calls_max, "seed {}: {excess} over {why}: {}", self.seed, run.stderr);
                    self.is_whole(&run);
                    return self.count;
                }
                (None, Some(9)) => {
                    self.count.kills += 1;
                    kills.fetch_add(1, Ordering::Relaxed);
                    // A kill costs at most the requests for rows behind the checkpoint.
                    assert!(excess <= self.cost(self.committed()..self.count.rows), "seed {}: {excess} calls are lost", self.seed);
                }
                // A signal that arrives before the handlers are installed ends the process at once.
                (Some(4), None) | (None, Some(2 | 15)) => self.count.signals += 1,
                _ => panic!("seed {}, {ending:?}: {run:?}", self.seed),
            }
        }
        panic!("seed {}: it never comes to an end", self.seed);
    }

    fn ending(&mut self) -> Ending {
        match self.chance.u8(..20) {
            0..10 => Ending::Early(EARLY.mul_f64(self.chance.f64())),
            10..15 => Ending::AfterCalls(self.chance.u64(..CALLS_MAX)),
            15..17 => Ending::AfterCalls(self.chance.u64(..MANY_CALLS_MAX)),
            17 => Ending::Gentle(Signal::INT, self.chance.u64(..CALLS_MAX)),
            _ => Ending::Gentle(Signal::TERM, self.chance.u64(..CALLS_MAX)),
        }
    }

    /// Runs one process until it ends or is ended.
    fn process(&mut self, ending: Option<Ending>) -> Run {
        let in_flight = ["1", "8", "64"][self.chance.usize(..3)];
        let call = self.bench.quiet_import_into("users.csv", &self.sandbox.endpoint()).at_any_rate();
        let mut running = call.args(&["--in-flight", in_flight, "--max-attempts", "12"]).start();
        let before = self.calls();
        let ending = match ending {
            None => None,
            Some(Ending::Early(time)) => {
                std::thread::park_timeout(time);
                Some(Signal::KILL)
            }
            Some(Ending::AfterCalls(count)) => {
                self.awaits(before + count, &mut running);
                Some(Signal::KILL)
            }
            Some(Ending::Gentle(signal, count)) => {
                self.awaits(before + count, &mut running);
                Some(signal)
            }
        };
        if let Some(signal) = ending.filter(|_| !running.has_ended()) {
            running.signal(signal);
        }
        let run = running.wait();
        // Every request of this process has arrived before the next one starts, as it is when a person or a scheduler starts it.
        eventually("the service has read it all", || !is_connected_to(self.sandbox.address().port()) && self.audit().in_flight == 0);
        run
    }

    fn awaits(&self, calls: u64, running: &mut Running<'_>) {
        while self.calls() < calls && !running.has_ended() {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    fn audit(&self) -> Audit {
        self.sandbox.audit()
    }

    fn calls(&self) -> u64 {
        calls_of(&self.audit())
    }

    /// The requests that these rows take.
    fn cost(&self, rows: std::ops::Range<u64>) -> u64 {
        let rows = usize::try_from(rows.start).unwrap()..usize::try_from(rows.end).unwrap();
        self.rows[rows].iter().map(InputRow::calls).sum()
    }

    /// Requests without an injected fault.
    fn spent(&self) -> u64 {
        let audit = self.audit();
        calls_of(&audit) - audit.faults.iter().sum::<u64>()
    }

    /// How often each account was imported.
    fn imports(&self) -> HashMap<String, u32> {
        self.sandbox.accounts().into_iter().map(|(id, account)| (id, account.imports)).collect()
    }

    /// Rows that the checkpoint confirms.
    fn committed(&self) -> u64 {
        if !self.bench.path("users.checkpoint.json").exists() {
            return 0;
        }
        let checkpoint: serde_json::Value = serde_json::from_str(&self.bench.read("users.checkpoint.json")).expect("it is whole");
        checkpoint["run"]["settled"]["rows"].as_u64().expect("it has the number")
    }

    fn no_committed_row_is_sent_again(&self, committed: u64, before: &HashMap<String, u32>) {
        let (settled, open) = self.rows.split_at(usize::try_from(committed).unwrap());
        let now = self.imports();
        let open: HashSet<_> = open.iter().map(|row| &row.id).collect();
        for id in settled.iter().map(|row| &row.id).filter(|id| !open.contains(id)) {
            assert_eq!(now.get(id), before.get(id), "seed {}: {id} was committed before, and is called again", self.seed);
        }
    }

    /// The file is finished, so all promises must hold.
    fn is_whole(&mut self, run: &Run) {
        let seed = self.seed;
        let found: Vec<_> = run.rows.iter().map(|row| (row.number, row.user_id.as_str(), row.status.as_str())).collect();
        let expected: Vec<_> = (1..).zip(&self.rows).map(|(number, row)| (number, row.id.as_str(), "imported")).collect();
        assert_eq!(found, expected, "seed {seed}");
        let last: HashMap<&str, &str> = self.rows.iter().map(|row| (row.id.as_str(), row.nick.as_str())).collect();
        // An empty cell says nothing.
        let tags: HashMap<&str, &str> =
            self.rows.iter().filter(|row| !row.tag.is_empty()).map(|row| (row.id.as_str(), row.tag.as_str())).collect();
        let accounts = self.sandbox.accounts();
        assert_eq!(accounts.len(), last.len(), "seed {seed}");
        for (id, account) in &accounts {
            assert_eq!(account.nick.as_deref(), last.get(id.as_str()).copied(), "seed {seed}: {id}");
            let tag = account.tags.get(TAG).and_then(serde_json::Value::as_str);
            assert_eq!(tag, tags.get(id.as_str()).copied(), "seed {seed}: {id}");
        }
        assert_eq!(run.rejects, None, "seed {seed}");
        self.bench.call(&["audit", "users.csv", "--results", "users.results.csv"]).run().exits(0);
        let audit = self.audit();
        assert_eq!((audit.violations, &audit.first_violations), (0, &Vec::new()), "seed {seed}");
        assert_eq!(audit.overlaps, 0, "seed {seed}");
        self.count.calls = audit.calls;
        let again = self.bench.quiet_import_into("users.csv", &self.sandbox.endpoint()).at_any_rate().run().exits(0);
        assert_eq!(self.audit().calls, audit.calls, "seed {seed}: a finished run sends nothing: {}", again.stderr);
    }
}

/// Requests of both APIs that an import sends.
fn calls_of(audit: &Audit) -> u64 {
    [Api::AccountImport, Api::PortraitSet].map(|command| audit.of(command).calls).iter().sum()
}

/// Accounts, one in fifty of which has a later row with another Nick. In two of three files some of them have a tag, or all.
fn rows(count: usize, chance: &mut fastrand::Rng) -> Vec<InputRow> {
    let tagged = [0, 30, 100][chance.usize(..3)];
    let id = |row: usize, chance: &mut fastrand::Rng| match row {
        1.. if chance.u8(..50) == 0 => chance.usize(..row),
        _ => row,
    };
    let row = |row| InputRow {
        id: format!("user{}", id(row, chance)),
        nick: format!("Nick \"{row}\", 李雷"),
        tag: if chance.u8(..100) < tagged { format!("level {row}") } else { String::new() },
    };
    (0..count).map(row).collect()
}

/// The input has a column that the import does not use; some of its cells have two lines.
fn csv(rows: &[InputRow], chance: &mut fastrand::Rng) -> String {
    rows.iter().fold(format!("UserID,note,Nick,{TAG}\n"), |mut text, InputRow { id, nick, tag }| {
        let note = if chance.u8(..20) == 0 { "\"two\nlines\"" } else { "" };
        writeln!(text, "{id},{note},\"{}\",{tag}", nick.replace('"', "\"\"")).unwrap();
        text
    })
}
