//! The books of several processes with the real script, on a clock of the test's own: processes stop and are killed, requests and answers
//! are late or lost, connections take long, the store is flushed, and the service may refuse requests as too fast.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use chatlift::domain::verdict::Departure;
use chatlift::io::quota::{CommonPace, IfLost, LeaseBook, QuotaSlot, Renewal, Renewed, SCRIPT, SlotRoom};
use chatlift::sandbox::limiter::{Limiter, LimiterDecision};
use fastrand::Rng;
use redis::{Connection, Value};
use tokio::time::Instant;

const KEY: &str = "books";
const STEP_US: u64 = 1_000;
/// By then a calm case has opened, and its processes have found their shares. Chosen.
const SETTLED_US: u64 = 4_000_000;
/// Source: the client.
const ANSWER_MAX_US: u64 = 450_000;
/// From a request to its answer. Chosen: a service that is neither near nor far.
const LATENCY_US: u64 = 40_000;
/// A process that is late by more than this does not catch up. Source: the gate.
const LATENESS_US: f64 = 20_000.0;
/// The gate spreads the requests of its own rate, and the slots of the quota, over a little more than a second.
const FULL_SECOND_US: f64 = 1_003_000.0;
const ROUND_US: f64 = 1_009_000.0;

/// What makes a case hard.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trouble {
    pub(super) limit: u32,
    pub(super) processes: usize,
    /// The longest time on the line in one direction.
    pub(super) line_us: u64,
    /// One of so many renewals is lost on its way there, or back; 0: none.
    pub(super) lost_of: u64,
    /// Processes stop for a while, or are killed and started anew.
    pub(super) stops: bool,
    pub(super) flushes: bool,
    /// Requests may wait for their connections.
    pub(super) connects: bool,
}

impl Trouble {
    /// Nothing happens.
    pub(super) const fn none(limit: u32, processes: usize, line_us: u64) -> Self {
        Self { limit, processes, line_us, lost_of: 0, stops: false, flushes: false, connects: false }
    }
}

/// A service that refuses requests as too fast. Processes spread theirs evenly then, as their gates do.
pub(super) struct ServiceAtLimit {
    limiter: Limiter,
    /// The rate of each process.
    rates: Vec<u32>,
    /// When each process may send its next request.
    due_us: Vec<f64>,
    /// What was let through of each process, and when.
    pub(super) through_us: Vec<Vec<u64>>,
    pub(super) refused_us: Vec<u64>,
}

impl ServiceAtLimit {
    pub(super) fn new(limiter: Limiter, rates: &[u32]) -> Self {
        let count = rates.len();
        Self { limiter, rates: rates.to_vec(), due_us: vec![0.0; count], through_us: vec![Vec::new(); count], refused_us: Vec::new() }
    }

    /// Whether the gate of the process lets a request leave.
    fn is_due(&self, process: usize, now_us: u64) -> bool {
        self.due_us[process] <= now_us as f64
    }

    fn sent(&mut self, process: usize, part_per_s: f64, now_us: u64) -> LimiterDecision {
        let decision = self.limiter.admit(Duration::from_micros(now_us));
        match decision {
            LimiterDecision::Admitted => self.through_us[process].push(now_us),
            LimiterDecision::OverLimit => self.refused_us.push(now_us),
        }
        let distance_us = (FULL_SECOND_US / f64::from(self.rates[process])).max(ROUND_US / part_per_s.max(1.0));
        self.due_us[process] = self.due_us[process].max(now_us as f64 - LATENESS_US) + distance_us;
        decision
    }
}

/// What happens at a time.
enum Event {
    /// A renewal of the process with this number arrives at the store.
    Arrives {
        process: usize,
        life: u32,
        renewal: Renewal,
        comes_back: bool,
    },
    /// Its answer arrives.
    Answered {
        process: usize,
        life: u32,
        number: u64,
        answer: Box<Renewed>,
    },
    GivenUp {
        process: usize,
        life: u32,
        number: u64,
    },
    /// A request that left at this time was refused as too fast.
    Refused {
        process: usize,
        life: u32,
        left: Instant,
    },
    /// A granted request has its connection.
    Connected {
        process: usize,
        life: u32,
        slot: QuotaSlot,
    },
}

struct Process {
    book: LeaseBook,
    /// Changes when it is started anew.
    life: u32,
    stopped_until_us: u64,
    /// What happened to it while it was stopped.
    missed: Vec<Event>,
}

pub(super) struct World<'a> {
    trouble: Trouble,
    random: Rng,
    store: &'a mut Connection,
    sum: String,
    zero: Instant,
    now_us: u64,
    events: BTreeMap<(u64, u64), Event>,
    serial: u64,
    processes: Vec<Process>,
    pub(super) sent_us: Vec<u64>,
    /// How many of them each process has sent since the fourth second.
    pub(super) sent_by: Vec<usize>,
    service: Option<ServiceAtLimit>,
    begins_us: Vec<u64>,
}

impl World<'_> {
    fn now(&self) -> Instant {
        self.zero + Duration::from_micros(self.now_us)
    }

    fn at(&mut self, at_us: u64, event: Event) {
        self.serial += 1;
        self.events.insert((at_us, self.serial), event);
    }

    fn line_us(&mut self) -> u64 {
        self.random.u64(50..=self.trouble.line_us)
    }

    fn happens(&mut self, of: u64) -> bool {
        of > 0 && self.random.u64(0..of) == 0
    }

    fn step(&mut self) {
        self.now_us += STEP_US;
        while self.events.first_key_value().is_some_and(|((at_us, _), _)| *at_us <= self.now_us) {
            let (_, event) = self.events.pop_first().unwrap();
            self.take(event);
        }
        for process in 0..self.processes.len() {
            self.trouble_of(process);
            if self.processes[process].stopped_until_us <= self.now_us && self.begins_us[process] <= self.now_us {
                for event in std::mem::take(&mut self.processes[process].missed) {
                    self.take(event);
                }
                self.works(process);
            }
        }
        if self.trouble.flushes && self.happens(4_000) {
            redis::cmd("DEL").arg(KEY).exec(self.store).unwrap();
        }
    }

    fn trouble_of(&mut self, process: usize) {
        if !self.trouble.stops || self.processes[process].stopped_until_us > self.now_us {
            return;
        }
        if self.happens(3_000) {
            self.processes[process].stopped_until_us = self.now_us + self.random.u64(1_000..2_500_000);
        } else if self.happens(8_000) {
            let life = self.processes[process].life + 1;
            self.processes[process] = new_process(self.trouble.limit, life);
            // Whoever is started anew is another one for the store.
        }
    }

    /// A process sends what it can, and renews what is due.
    fn works(&mut self, process: usize) {
        let now = self.now();
        let book = &mut self.processes[process].book;
        let is_due = self.service.as_ref().is_none_or(|service| service.is_due(process, self.now_us));
        if !is_due {
            book.waits(now);
        }
        if is_due && book.room(now) == SlotRoom::Now {
            let slot = book.take(now);
            let life = self.processes[process].life;
            if self.trouble.connects && self.happens(5) {
                let at_us = self.now_us + self.random.u64(0..900_000);
                self.at(at_us, Event::Connected { process, life, slot });
                return;
            }
            self.writes(process, slot);
            return;
        }
        let book = &mut self.processes[process].book;
        if book.due(now).is_some_and(|at| at <= now) {
            let renewal = book.renewal(now);
            let (life, number, sent_us) = (self.processes[process].life, renewal.number, self.now_us);
            self.at(sent_us + ANSWER_MAX_US, Event::GivenUp { process, life, number });
            let comes_back = !self.happens(self.trouble.lost_of);
            if !self.happens(self.trouble.lost_of) {
                let late_us = if self.happens(self.trouble.lost_of) { 700_000 } else { 0 };
                let at_us = sent_us + self.line_us() + late_us;
                self.at(at_us, Event::Arrives { process, life, renewal, comes_back });
            }
        }
    }

    fn writes(&mut self, process: usize, slot: QuotaSlot) {
        let now = self.now();
        let book = &mut self.processes[process].book;
        if book.uses(slot, now) == Departure::Leaves {
            self.sent_us.push(self.now_us);
            self.sent_by[process] += usize::from(self.now_us >= SETTLED_US);
            let part_per_s = book.part_per_s(now);
            let decision = self.service.as_mut().map(|service| service.sent(process, part_per_s, self.now_us));
            if decision == Some(LimiterDecision::OverLimit) {
                let life = self.processes[process].life;
                self.at(self.now_us + LATENCY_US, Event::Refused { process, life, left: now });
            }
        }
        self.processes[process].book.note_written(now);
    }

    fn take(&mut self, event: Event) {
        let (process, life) = match event {
            Event::Arrives { process, life, renewal, comes_back } => {
                return self.arrives((process, life), &renewal, comes_back);
            }
            Event::Answered { process, life, .. }
            | Event::GivenUp { process, life, .. }
            | Event::Refused { process, life, .. }
            | Event::Connected { process, life, .. } => (process, life),
        };
        if self.processes[process].life != life {
            return;
        }
        if self.processes[process].stopped_until_us > self.now_us {
            return self.processes[process].missed.push(event);
        }
        let now = self.now();
        match event {
            Event::Answered { number, answer, .. } => {
                self.processes[process].book.renewed(number, &answer, now);
            }
            Event::GivenUp { number, .. } => self.processes[process].book.lost(number),
            Event::Refused { left, .. } => self.processes[process].book.note_refusal(left),
            Event::Connected { slot, .. } => self.writes(process, slot),
            Event::Arrives { .. } => unreachable!("it is taken above"),
        }
    }

    fn arrives(&mut self, (process, life): (usize, u32), renewal: &Renewal, comes_back: bool) {
        // The server's clock is another one.
        let server_us = 1_700_000_000_000_000 + self.now_us;
        let mut both = redis::pipe();
        both.cmd("MSET").arg("seconds").arg(server_us / 1_000_000).arg("micros").arg(server_us % 1_000_000).ignore();
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.sum).arg(1).arg(KEY).arg(2).arg(self.trouble.limit).arg(format!("process {process}, life {life}"));
        command
            .arg(renewal.number)
            .arg(renewal.entry)
            .arg(renewal.kept)
            .arg(renewal.wanted)
            .arg(renewal.within_ms)
            .arg(renewal.sent.left)
            .arg(renewal.sent.refused)
            .arg(renewal.sent.refused_ago_ms.map_or(-1, |ago_ms| i64::try_from(ago_ms).unwrap()))
            .arg(5)
            .arg(&renewal.waits_ms);
        let (Value::Array(items),) = both.add_command(command).query(self.store).unwrap() else { panic!("it answers with a list") };
        if matches!(&items[0], Value::BulkString(kind) if kind == b"stale") || !comes_back {
            return;
        }
        let number = |item: &Value| if let Value::Int(number) = item { u64::try_from(*number).unwrap() } else { panic!("{item:?}") };
        let tenths = |item: &Value| number(item) as f64 / 10.0;
        let answer = Renewed {
            entry: number(&items[1]),
            kept: number(&items[2]),
            share: number(&items[4]),
            lease: Duration::from_millis(number(&items[5])),
            processes: number(&items[6]),
            slot_time: Duration::from_millis(number(&items[8])),
            pace: (number(&items[10]) > 0).then(|| CommonPace { ceiling_per_s: tenths(&items[9]), per_s: tenths(&items[10]) }),
            waits: items[11..].iter().map(|item| Duration::from_millis(number(item))).collect(),
        };
        let at_us = self.now_us + self.line_us();
        self.at(at_us, Event::Answered { process, life, number: renewal.number, answer: Box::new(answer) });
    }
}

fn new_process(limit: u32, life: u32) -> Process {
    new_process_of_rate(limit, limit, life)
}

fn new_process_of_rate(limit: u32, rate: u32, life: u32) -> Process {
    let book = LeaseBook::new(NonZeroU32::new(limit).unwrap(), rate, IfLost::Wait);
    Process { book, life, stopped_until_us: 0, missed: Vec::new() }
}

/// The times at which requests left in so many seconds.
pub(super) fn sends(store: &mut Connection, trouble: Trouble, seed: u64, seconds: u64) -> Vec<u64> {
    run(store, SCRIPT, trouble, seed, seconds).sent_us
}

/// Runs processes of these rates, each of which begins at its second, against a service that refuses requests as too fast.
pub(super) fn against(
    store: &mut Connection,
    trouble: Trouble,
    limiter: Limiter,
    processes: &[(u32, u64)],
    seconds: u64,
) -> ServiceAtLimit {
    let rates: Vec<u32> = processes.iter().map(|(rate, _)| *rate).collect();
    let mut world = world(store, SCRIPT, trouble, 7);
    world.processes = rates.iter().map(|rate| new_process_of_rate(trouble.limit, *rate, 0)).collect();
    world.begins_us = processes.iter().map(|(_, begins_s)| begins_s * 1_000_000).collect();
    world.service = Some(ServiceAtLimit::new(limiter, &rates));
    while world.now_us < seconds * 1_000_000 {
        world.step();
    }
    assert_eq!(too_many(&world.sent_us, trouble.limit), None);
    world.service.unwrap()
}

/// Two processes against a service of which others use so many requests a second for some time.
pub(super) fn against_others(
    store: &mut Connection,
    trouble: Trouble,
    limiter: Limiter,
    (others_per_s, until): (u64, Duration),
    seconds: u64,
) -> ServiceAtLimit {
    let mut world = world(store, SCRIPT, trouble, 7);
    world.service = Some(ServiceAtLimit::new(limiter, &vec![trouble.limit; trouble.processes]));
    let (mut others, until_us) = (0, u64::try_from(until.as_micros()).unwrap());
    while world.now_us < seconds * 1_000_000 {
        if world.now_us < until_us && world.now_us * others_per_s >= others * 1_000_000 {
            others += 1;
            world.service.as_mut().unwrap().limiter.admit(Duration::from_micros(world.now_us));
        }
        world.step();
    }
    world.service.unwrap()
}

pub(super) fn run<'a>(store: &'a mut Connection, script: &str, trouble: Trouble, seed: u64, seconds: u64) -> World<'a> {
    let mut world = world(store, script, trouble, seed);
    while world.now_us < seconds * 1_000_000 {
        world.step();
    }
    world
}

fn world<'a>(store: &'a mut Connection, script: &str, trouble: Trouble, seed: u64) -> World<'a> {
    redis::cmd("DEL").arg(KEY).exec(store).unwrap();
    let on_own_clock = script.replace("redis.call('TIME')", "redis.call('MGET', 'seconds', 'micros')");
    assert_ne!(on_own_clock, script, "the script asks for the time");
    let sum = redis::cmd("SCRIPT").arg("LOAD").arg(on_own_clock).query(store).unwrap();
    let processes = (0..trouble.processes).map(|_| new_process(trouble.limit, 0)).collect();
    let random = Rng::with_seed(seed);
    World {
        trouble,
        random,
        store,
        sum,
        zero: Instant::now(),
        now_us: 0,
        events: BTreeMap::new(),
        serial: 0,
        processes,
        sent_us: Vec::new(),
        sent_by: vec![0; trouble.processes],
        service: None,
        begins_us: vec![0; trouble.processes],
    }
}

/// The first second with too many requests.
pub(super) fn too_many(sent_us: &[u64], limit: u32) -> Option<u64> {
    let limit = limit as usize;
    sent_us.windows(limit + 1).find(|calls| calls[limit] - calls[0] < 1_000_000).map(|calls| calls[0])
}
