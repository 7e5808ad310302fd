//! The audit counts requests, their pace, violations of the protocol, and imports of one UserID that overlapped.
//!
//! It never holds a UserSig.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use serde::Serialize;

use super::sliding_second::SlidingSecond;
use crate::io::api::wire::Command;

/// Violations that the audit describes; later ones are only counted. Chosen.
const DESCRIBED_MAX: usize = 20;
/// Longest description, in characters. Chosen: a line or two.
const DESCRIPTION_MAX_CHARS: usize = 200;
/// A `random` counts as repeated if it equals one of this many before it. Chosen: by chance a correct client repeats one in 400,000
/// requests.
const RANDOMS_KEPT: usize = 10_000;
/// Distinct codes that are counted. Chosen: more than faults answer in practice.
const CODES_MAX: usize = 1_000;

/// The answer to `GET /audit`: everything that the sandbox counted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Audit {
    /// Requests of every kind, malformed ones included.
    pub calls: u64,
    /// The counts of each command that was called, by its name.
    pub apis: BTreeMap<&'static str, ApiAudit>,
    /// JSON answers by code; 0 is success.
    pub codes: BTreeMap<i64, u64>,
    /// Accounts that exist.
    pub accounts: usize,
    /// Accounts in successful imports, repetitions included.
    pub imports: u64,
    /// Requests that depart from the documented protocol.
    pub violations: u64,
    /// The first of these violations, described.
    pub first_violations: Vec<String>,
    /// Requests whose `random` equals one of the 10,000 before. Chance alone repeats about 2 in a million.
    pub repeated_randoms: u64,
    /// Requests that import a user or set its profile and arrived while another one for the same UserID was in flight.
    pub overlaps: u64,
    /// Requests in flight now.
    pub in_flight: u64,
    /// The most requests that were in flight at the same time.
    pub max_in_flight: u64,
    /// How often each fault was injected, in the order of the settings.
    pub faults: Vec<u64>,
}

impl Audit {
    /// The counts of one command; all zero if it was not called.
    #[must_use]
    pub fn of(&self, command: Command) -> ApiAudit {
        self.apis.get(command.name()).cloned().unwrap_or_default()
    }
}

/// The counts and the pace of one command.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ApiAudit {
    /// Requests whose path names this command, whatever their result.
    pub calls: u64,
    /// Requests answered with 60007.
    pub over_limit: u64,
    /// UserIDs in well-formed requests, repetitions included.
    pub ids: u64,
    /// The most requests in any sliding second, exact, by the arrival of the request's first byte.
    pub max_calls_in_1s: usize,
    /// Requests per second between the first and the last; 0 with fewer than two.
    pub mean_calls_per_s: f64,
    /// Seconds from the sandbox's start to the first request.
    pub first_call_s: f64,
    /// Seconds from the sandbox's start to the last request.
    pub last_call_s: f64,
    /// Arrival times of the first requests since the sandbox's start; at most `arrivals_kept` of the settings.
    #[serde(skip)]
    pub arrivals: Vec<Duration>,
}

/// Collects the audit, request by request.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    calls: u64,
    apis: [ApiRecord; Command::ALL.len()],
    arrivals_kept: usize,
    codes: BTreeMap<i64, u64>,
    imports: u64,
    violations: u64,
    first_violations: Vec<String>,
    randoms: Randoms,
    overlaps: u64,
    /// Import requests in flight, by the hash of the UserID.
    users_in_flight: HashMap<u64, u32>,
    in_flight: u64,
    max_in_flight: u64,
}

#[derive(Debug, Default)]
struct ApiRecord {
    calls: u64,
    over_limit: u64,
    ids: u64,
    window: SlidingSecond,
    max_calls_in_1s: usize,
    first: Duration,
    last: Duration,
    arrivals: Vec<Duration>,
}

/// The last values of `random`, and how many were repeated.
#[derive(Debug, Default)]
struct Randoms {
    order: VecDeque<u32>,
    present: HashSet<u32>,
    repeated: u64,
}

impl Recorder {
    pub(super) fn new(arrivals_kept: usize) -> Self {
        Self { arrivals_kept, ..Self::default() }
    }

    /// Counts a request whose head has been read, at the time at which its first byte arrived.
    pub(super) fn arrived(&mut self, now: Duration, command: Option<Command>) {
        self.calls += 1;
        self.in_flight += 1;
        self.max_in_flight = self.max_in_flight.max(self.in_flight);
        let Some(command) = command else { return };
        let record = &mut self.apis[command as usize];
        if record.calls == 0 {
            record.first = now;
        }
        record.calls += 1;
        record.last = record.last.max(now);
        record.max_calls_in_1s = record.max_calls_in_1s.max(record.window.add(now));
        if record.arrivals.len() < self.arrivals_kept {
            // A head that arrives slowly is read after later ones.
            let place = record.arrivals.partition_point(|at| *at <= now);
            record.arrivals.insert(place, now);
        }
    }

    /// Counts these users (by hash) as being imported until [`Self::finished`].
    pub(super) fn importing(&mut self, users: &[u64]) {
        for &user in users {
            let together = self.users_in_flight.entry(user).or_default();
            *together += 1;
            self.overlaps += u64::from(*together > 1);
        }
    }

    /// Ends a request that [`Self::arrived`] counted, and the imports of its users.
    pub(super) fn finished(&mut self, users: &[u64]) {
        self.in_flight = self.in_flight.saturating_sub(1);
        for user in users {
            if let Some(together) = self.users_in_flight.get_mut(user) {
                *together -= 1;
                if *together == 0 {
                    self.users_in_flight.remove(user);
                }
            }
        }
    }

    pub(super) fn random(&mut self, random: u32) {
        self.randoms.add(random);
    }

    pub(super) fn over_limit(&mut self, command: Command) {
        self.apis[command as usize].over_limit += 1;
    }

    pub(super) fn carried(&mut self, command: Command, ids: usize) {
        self.apis[command as usize].ids += ids as u64;
    }

    pub(super) fn imported(&mut self, accounts: u64) {
        self.imports += accounts;
    }

    pub(super) fn violation(&mut self, what: &str) {
        self.violations += 1;
        if self.first_violations.len() < DESCRIBED_MAX {
            self.first_violations.push(what.chars().take(DESCRIPTION_MAX_CHARS).collect());
        }
    }

    pub(super) fn answered(&mut self, code: i64) {
        if self.codes.len() < CODES_MAX || self.codes.contains_key(&code) {
            *self.codes.entry(code).or_default() += 1;
        }
    }

    pub(super) fn audit(&self, accounts: usize, faults: Vec<u64>) -> Audit {
        let called = Command::ALL.into_iter().filter(|&command| self.apis[command as usize].calls > 0);
        Audit {
            calls: self.calls,
            apis: called.map(|command| (command.name(), self.apis[command as usize].audit())).collect(),
            codes: self.codes.clone(),
            accounts,
            imports: self.imports,
            violations: self.violations,
            first_violations: self.first_violations.clone(),
            repeated_randoms: self.randoms.repeated,
            overlaps: self.overlaps,
            in_flight: self.in_flight,
            max_in_flight: self.max_in_flight,
            faults,
        }
    }
}

impl ApiRecord {
    fn audit(&self) -> ApiAudit {
        let span = self.last.saturating_sub(self.first).as_secs_f64();
        ApiAudit {
            calls: self.calls,
            over_limit: self.over_limit,
            ids: self.ids,
            max_calls_in_1s: self.max_calls_in_1s,
            mean_calls_per_s: if span > 0.0 { (self.calls - 1) as f64 / span } else { 0.0 },
            first_call_s: self.first.as_secs_f64(),
            last_call_s: self.last.as_secs_f64(),
            arrivals: self.arrivals.clone(),
        }
    }
}

impl Randoms {
    fn add(&mut self, random: u32) {
        if !self.present.insert(random) {
            self.repeated += 1;
            return;
        }
        self.order.push_back(random);
        if self.order.len() > RANDOMS_KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.present.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pace_is_told_for_each_command() {
        let mut recorder = Recorder::new(2);
        for ms in [0, 400, 800, 1_000, 1_200, 3_000] {
            recorder.arrived(Duration::from_millis(ms), Some(Command::AccountImport));
        }
        recorder.arrived(Duration::from_secs(4), Some(Command::Kick));
        recorder.arrived(Duration::from_secs(4), None);
        let audit = recorder.audit(0, Vec::new());
        let imports = audit.of(Command::AccountImport);
        assert_eq!((audit.calls, imports.calls, imports.max_calls_in_1s), (8, 6, 4));
        assert!((imports.mean_calls_per_s - 5.0 / 3.0).abs() < 1e-9);
        assert_eq!(imports.arrivals, [Duration::ZERO, Duration::from_millis(400)]);
        assert_eq!(audit.of(Command::Kick).calls, 1);
        assert_eq!(audit.of(Command::PortraitGet), ApiAudit::default());
    }

    #[test]
    fn requests_of_one_user_that_are_in_flight_together_are_counted() {
        let mut recorder = Recorder::new(0);
        for users in [[1], [2], [1]] {
            recorder.arrived(Duration::ZERO, Some(Command::AccountImport));
            recorder.importing(&users);
        }
        recorder.finished(&[1]);
        recorder.finished(&[1]);
        recorder.arrived(Duration::ZERO, Some(Command::AccountImport));
        recorder.importing(&[1]);
        let audit = recorder.audit(0, Vec::new());
        assert_eq!((audit.overlaps, audit.in_flight, audit.max_in_flight), (1, 2, 3));
    }

    #[test]
    fn violations_are_all_counted_and_some_described() {
        let mut recorder = Recorder::new(0);
        for _ in 0..30 {
            recorder.violation(&"x".repeat(1_000));
        }
        let audit = recorder.audit(0, Vec::new());
        assert_eq!((audit.violations, audit.first_violations.len(), audit.first_violations[0].len()), (30, 20, 200));
    }

    #[test]
    fn a_repeated_random_is_noticed_within_bounds() {
        let mut randoms = Randoms::default();
        (0..20_000).for_each(|random| randoms.add(random));
        assert_eq!((randoms.repeated, randoms.order.len(), randoms.present.len()), (0, RANDOMS_KEPT, RANDOMS_KEPT));
        randoms.add(19_999);
        randoms.add(0);
        assert_eq!(randoms.repeated, 1);
    }
}
