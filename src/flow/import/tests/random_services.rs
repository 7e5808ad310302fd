//! Random inputs meet services that do random things to random records.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// What a service has against a record, whoever sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Fine,
    /// Its own fault; spoils the batch that carries it.
    Refused(i64),
    /// Listed by so many batches, then taken.
    Listed(u32),
    /// So many calls that carry it fail as a whole.
    Passing(u32),
    /// Listed for ever, and singly a passing fault for ever.
    PoisonedAlone,
    /// Every call that carries it fails with a passing fault.
    PoisonsAll,
}

impl Fate {
    fn draw(random: &mut fastrand::Rng) -> Self {
        match random.u32(..300) {
            0 | 1 => Fate::Refused(40601),
            2 => Fate::Refused(60003),
            3..=8 => Fate::Listed(random.u32(1..9)),
            9 | 10 => Fate::Passing(random.u32(1..4)),
            11 => Fate::PoisonedAlone,
            12 => Fate::PoisonsAll,
            _ => Fate::Fine,
        }
    }

    fn is_taken_in_the_end(self) -> bool {
        matches!(self, Fate::Fine | Fate::Listed(_) | Fate::Passing(_))
    }
}

/// What a service has against batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BatchSupport {
    Work,
    DropProfiles,
    AreRefused,
    CannotBeRead,
}

struct RandomService {
    random: fastrand::Rng,
    batches: BatchSupport,
    /// Of a hundred calls so many meet something that has nothing to do with their records.
    trouble: u32,
    fates: BTreeMap<String, Fate>,
    /// Passing faults that singles of an id have met: fewer than would fail it in the single lane.
    met: BTreeMap<String, u32>,
}

impl RandomService {
    fn answer(&mut self, sent: &SentCall) -> CallOutcome {
        let ids: Vec<String> = sent.accounts.iter().map(|account| account.user_id.as_str().to_owned()).collect();
        if self.random.u32(..100) < self.trouble
            && let Some(end) = self.trouble(sent, &ids)
        {
            return end;
        }
        match sent.command {
            Command::PortraitGet if self.batches == BatchSupport::CannotBeRead => code(40003),
            Command::PortraitGet if self.batches == BatchSupport::DropProfiles => dropping(sent),
            Command::MultiaccountImport if self.batches == BatchSupport::AreRefused => code(40001),
            Command::MultiaccountImport => self.whole_call(&ids).unwrap_or_else(|| self.list(&ids)),
            Command::AccountImport => match self.fates[&ids[0]] {
                Fate::PoisonedAlone => code(70500),
                _ => self.whole_call(&ids).unwrap_or_else(|| fine(sent)),
            },
            _ => fine(sent),
        }
    }

    fn trouble(&mut self, sent: &SentCall, ids: &[String]) -> Option<CallOutcome> {
        match self.random.u32(..6) {
            0 => Some(code(60007)),
            1 => Some(code(60011)),
            2 => Some(CallOutcome::TooMany),
            3 => Some(CallOutcome::Unreached { why: "refused".to_owned() }),
            kind => {
                let end = if kind == 4 { lost() } else { code(70169) };
                if sent.command == Command::PortraitGet {
                    return None;
                }
                (sent.command == Command::MultiaccountImport || self.may_meet(&ids[0], 1)).then_some(end)
            }
        }
    }

    fn may_meet(&mut self, id: &str, most: u32) -> bool {
        let met = self.met.entry(id.to_owned()).or_default();
        *met += 1;
        *met <= most
    }

    /// What a record does to the call that carries it.
    fn whole_call(&mut self, ids: &[String]) -> Option<CallOutcome> {
        for id in ids {
            match self.fates[id] {
                Fate::Refused(code_) => return Some(code(code_)),
                Fate::PoisonsAll => return Some(code(70500)),
                Fate::Passing(left) if left > 0 => {
                    self.fates.insert(id.clone(), Fate::Passing(left - 1));
                    return Some(lost());
                }
                Fate::Fine | Fate::Listed(_) | Fate::Passing(_) | Fate::PoisonedAlone => {}
            }
        }
        None
    }

    fn list(&mut self, ids: &[String]) -> CallOutcome {
        let mut failed = vec!["stranger".to_owned()];
        for id in ids {
            match self.fates[id] {
                Fate::Listed(left) if left > 0 => {
                    self.fates.insert(id.clone(), Fate::Listed(left - 1));
                    failed.extend([id.clone(), id.clone()]);
                }
                Fate::PoisonedAlone => failed.push(id.clone()),
                _ => {}
            }
        }
        listed(failed.iter().map(String::as_str))
    }
}

/// A run over a random file: calls are in flight together and end in any order.
fn check(seed: u64, rows: u64, batches: BatchSupport, trouble: u32, in_flight: usize) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut harness = ImportHarness::new(OnBatchFailure::FallBack);
    harness.scheduler.limits.in_flight = in_flight;
    harness.workload.window.records = random.usize(150..2_000);
    let has_profiles = random.u32(..3);
    let mut ids = Vec::new();
    let mut fates = BTreeMap::new();
    let mut service = RandomService { random: random.fork(), batches, trouble, fates: BTreeMap::new(), met: BTreeMap::new() };
    let mut flying: Vec<(Instant, SentCall)> = Vec::new();
    let mut outcomes = Vec::new();
    let (mut calls, mut idle) = (0_u64, 0);
    loop {
        while harness.wants_record() {
            if ids.len() as u64 == rows {
                harness.workload.input_ended();
                break;
            }
            let id =
                if !ids.is_empty() && random.u32(..10) == 0 { random.choice(&ids).cloned().unwrap() } else { format!("u{}", ids.len()) };
            let fate = *fates.entry(id.clone()).or_insert_with(|| Fate::draw(&mut random));
            service.fates.entry(id.clone()).or_insert(fate);
            harness.admit(&id, if random.u32(..2) < has_profiles { "Nick" } else { "" });
            ids.push(id);
        }
        while let Some(sent) = harness.send_any() {
            calls += 1;
            assert!(sent.rows.len() <= Command::MultiaccountImport.spec().accounts_per_call && !sent.accounts.is_empty());
            let in_call: BTreeSet<&str> = sent.accounts.iter().map(|account| account.user_id.as_str()).collect();
            assert_eq!(in_call.len(), sent.accounts.len(), "a UserID twice in a call");
            let is_in_flight = |id: &&str| flying.iter().any(|(_, other)| other.has(id));
            assert_eq!(in_call.iter().find(|id| is_in_flight(id)), None, "a UserID in two calls");
            let takes = Duration::from_millis(random.u64(1..80));
            flying.push((harness.now + takes, sent));
        }
        assert!(flying.len() <= in_flight);
        harness.resolve_exhausted();
        outcomes.extend(harness.outcomes());
        if harness.workload.is_empty() && harness.workload.input_has_ended() {
            break;
        }
        assert!(calls < 40 * rows + 10_000, "it does not end: {} of {rows} settled, lane {:?}", outcomes.len(), harness.workload.lane());
        let first = flying.iter().enumerate().min_by_key(|(_, (at, _))| *at).map(|(index, (at, _))| (index, *at));
        let wake = harness.scheduler.next_wake();
        match (first, wake) {
            (Some((index, at)), wake) if wake.is_none_or(|wake| at <= wake || wake <= harness.now) => {
                let (_, sent) = flying.swap_remove(index);
                harness.now = harness.now.max(at);
                let end = service.answer(&sent);
                let effect = harness.end(&sent, end);
                assert!(!matches!(effect, CallEffect::Halt { .. }), "{effect:?}");
            }
            (_, Some(wake)) => harness.now = harness.now.max(wake) + Duration::from_millis(1),
            (_, None) => {
                idle += 1;
                assert!(idle < 10_000, "nothing moves: {} of {rows} settled", outcomes.len());
            }
        }
    }
    assert!(outcomes.iter().map(|outcome| outcome.0).eq(1..=rows));
    for ((row, status, error, attempts), id) in outcomes.into_iter().zip(&ids) {
        let fate = fates[id];
        assert_eq!(status == Status::Imported, fate.is_taken_in_the_end(), "row {row}, {id}, {fate:?}, {error:?}");
        assert!(attempts >= 1);
    }
    let fell_back = harness.workload.lane() == Lane::FellBack;
    let are_spoiled = fates.values().any(|fate| matches!(fate, Fate::PoisonsAll | Fate::Passing(_)));
    assert!(batches != BatchSupport::Work || !fell_back || trouble > 0 || rows < 200 || are_spoiled, "batches that work are not given up");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_was_met_once_is_met_again() {
    check(16_055_226_158_787_962_243, 215, BatchSupport::Work, 0, 256);
}

fn cases() -> u32 {
    std::env::var("CHATLIFT_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_row_gets_its_due_outcome_once_and_in_order(
        seed: u64,
        rows in 1_u64..1_200,
        batches in prop::sample::select(vec![BatchSupport::Work, BatchSupport::Work, BatchSupport::Work, BatchSupport::DropProfiles, BatchSupport::AreRefused, BatchSupport::CannotBeRead]),
        trouble in prop::sample::select(vec![0_u32, 0, 2, 15]),
        in_flight in prop::sample::select(vec![1_usize, 2, 8, 256]),
    ) {
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
            .block_on(async { check(seed, rows, batches, trouble, in_flight) });
    }
}
