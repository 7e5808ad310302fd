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

/// What a service has against the profile of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProfileFate {
    Fine,
    /// Its own fault.
    Refused(i64),
    /// So many calls fail, with a passing fault or because the account isn't there yet: with the one that finds no account to begin with, and
    /// the one that other trouble may bring, fewer than would fail it.
    Passing(u32),
    Late(u32),
    /// Every call fails with a passing fault.
    Poisoned,
}

impl ProfileFate {
    fn draw(random: &mut fastrand::Rng) -> Self {
        match random.u32(..100) {
            0 => ProfileFate::Refused(40605),
            1 => ProfileFate::Refused(40601),
            2..=5 => ProfileFate::Passing(random.u32(1..3)),
            6 | 7 => ProfileFate::Late(random.u32(1..3)),
            8 => ProfileFate::Poisoned,
            _ => ProfileFate::Fine,
        }
    }

    fn is_taken_in_the_end(self) -> bool {
        matches!(self, ProfileFate::Fine | ProfileFate::Passing(_) | ProfileFate::Late(_))
    }
}

/// Which records have tags, and what is sent for those that have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TaggedShare {
    None,
    /// A tenth of the records, or all.
    Tenth,
    All,
    /// As a sync that knows what differs.
    Mixed,
    Only,
}

impl TaggedShare {
    fn has_tags(self, random: &mut fastrand::Rng) -> bool {
        match self {
            TaggedShare::None => false,
            TaggedShare::Tenth => random.u32(..10) == 0,
            TaggedShare::Mixed => random.bool(),
            TaggedShare::All | TaggedShare::Only => true,
        }
    }

    fn calls(self, has_tags: bool, random: &mut fastrand::Rng) -> RowCalls {
        match self {
            _ if !has_tags => RowCalls::Import,
            TaggedShare::Mixed => *random.choice(&[RowCalls::Import, RowCalls::ImportAndProfile, RowCalls::ProfileOnly]).unwrap(),
            TaggedShare::None | TaggedShare::Tenth | TaggedShare::All | TaggedShare::Only => RowCalls::ImportAndProfile,
        }
    }

    fn scope(self) -> ImportScope {
        if self == TaggedShare::Only { ImportScope::ProfilesOnly } else { ImportScope::Everything }
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
    profiles: BTreeMap<String, ProfileFate>,
    /// Users that it has.
    known: BTreeSet<String>,
    /// Passing faults that singles of an id have met: fewer than would fail it in the single lane.
    met: BTreeMap<String, u32>,
}

impl RandomService {
    fn new(random: fastrand::Rng, batches: BatchSupport, trouble: u32) -> Self {
        let (fates, profiles, known, met) = Default::default();
        Self { random, batches, trouble, fates, profiles, known, met }
    }

    fn answer(&mut self, sent: &SentCall) -> CallOutcome {
        let end = self.answer_to(sent);
        let listed = match &end {
            CallOutcome::Done(Answer::FailAccounts(listed)) => listed.clone(),
            _ => Vec::new(),
        };
        if matches!(end, CallOutcome::Done(_)) && matches!(sent.command, Command::AccountImport | Command::MultiaccountImport) {
            let taken =
                sent.accounts.iter().map(|account| account.user_id.as_str()).filter(|id| !listed.iter().any(|other| **other == **id));
            self.known.extend(taken.map(str::to_owned));
        }
        end
    }

    fn answer_to(&mut self, sent: &SentCall) -> CallOutcome {
        let ids: Vec<String> = sent.accounts.iter().map(|account| account.user_id.as_str().to_owned()).collect();
        if self.random.u32(..100) < self.trouble
            && let Some(end) = self.trouble(sent, &ids)
        {
            return end;
        }
        match sent.command {
            Command::PortraitSet => self.profile(&ids[0]).unwrap_or_else(|| fine(sent)),
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
                let meets = if sent.command == Command::PortraitSet { format!("profile of {}", ids[0]) } else { ids[0].clone() };
                (sent.command == Command::MultiaccountImport || self.may_meet(&meets, 1)).then_some(end)
            }
        }
    }

    /// What a user does to the call that sets its profile.
    fn profile(&mut self, id: &str) -> Option<CallOutcome> {
        if !self.known.contains(id) {
            return Some(code(40003));
        }
        let (left, end) = match self.profiles[id] {
            ProfileFate::Refused(code_) => return Some(code(code_)),
            ProfileFate::Poisoned => return Some(code(70500)),
            ProfileFate::Fine | ProfileFate::Passing(0) | ProfileFate::Late(0) => return None,
            ProfileFate::Passing(left) => (ProfileFate::Passing(left - 1), lost()),
            ProfileFate::Late(left) => (ProfileFate::Late(left - 1), code(40003)),
        };
        self.profiles.insert(id.to_owned(), left);
        Some(end)
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

/// A record that came in.
#[derive(Debug)]
struct Came {
    id: String,
    calls: RowCalls,
    fate: Fate,
    profile: ProfileFate,
}

impl Came {
    fn is_due(&self, status: Status) -> bool {
        let (account, profile) = (self.fate.is_taken_in_the_end(), self.profile.is_taken_in_the_end());
        match self.calls {
            RowCalls::Import => account,
            RowCalls::ImportAndProfile => account && profile,
            // The service may know the user whatever it has against its import.
            RowCalls::ProfileOnly => (account || status == Status::Imported) && profile,
        }
    }
}

/// A random file as it is read.
struct RandomFile {
    random: fastrand::Rng,
    rows: u64,
    tagged: TaggedShare,
    lane: Lane,
    /// Of two records so many have nicknames.
    nicks: u32,
    came: Vec<Came>,
    fates: BTreeMap<String, (Fate, ProfileFate)>,
}

impl RandomFile {
    fn feed(&mut self, harness: &mut ImportHarness, service: &mut RandomService) {
        while harness.wants_record() || harness.scheduler.wants_fresh(&harness.workload, Command::PortraitSet, harness.now) {
            if self.came.len() as u64 == self.rows {
                harness.workload.input_ended();
                return;
            }
            self.admit_one(harness, service);
        }
    }

    fn admit_one(&mut self, harness: &mut ImportHarness, service: &mut RandomService) {
        let random = &mut self.random;
        let is_again = !self.came.is_empty() && random.u32(..10) == 0;
        let id = if is_again { self.came[random.usize(..self.came.len())].id.clone() } else { format!("u{}", self.came.len()) };
        let (fate, profile) = *self.fates.entry(id.clone()).or_insert_with(|| match Fate::draw(random) {
            // Of a single record that may be the very first, nobody can tell.
            Fate::Refused(60003) if self.lane == Lane::Single => (Fate::Refused(40601), ProfileFate::draw(random)),
            fate => (fate, ProfileFate::draw(random)),
        });
        service.fates.entry(id.clone()).or_insert(fate);
        service.profiles.entry(id.clone()).or_insert(profile);
        if self.tagged != TaggedShare::None && random.bool() && fate.is_taken_in_the_end() {
            service.known.insert(id.clone());
        }
        let has_tags = self.tagged.has_tags(random);
        let keys: &[&str] = if has_tags { random.choice([&["x"][..], &["x", "y"], &["y", "z"]]).unwrap() } else { &[] };
        let calls = self.tagged.calls(has_tags, random);
        let record = harness.record(&id, if random.u32(..2) < self.nicks { "Nick" } else { "" }, keys);
        harness
            .workload
            .admit(IncomingRecord::Record { record, accepted_as: Status::Imported, calls, held_back: Vec::new() }, SystemTime::UNIX_EPOCH);
        let calls = if self.tagged == TaggedShare::Only && has_tags { RowCalls::ProfileOnly } else { calls };
        self.came.push(Came { id, calls, fate, profile });
    }
}

/// A run over a random file: calls are in flight together and end in any order.
fn check(seed: u64, rows: u64, (batches, tagged): (BatchSupport, TaggedShare), trouble: u32, in_flight: usize) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut harness = ImportHarness::new(OnBatchFailure::FallBack);
    harness.scheduler.limits.in_flight = in_flight;
    let window = WindowLimits { records: random.usize(150..2_000), ..harness.workload.window };
    let lane = if tagged != TaggedShare::None && random.bool() { Lane::Single } else { harness.workload.lane() };
    harness.workload = ImportWorkload::new(window, (lane, tagged.scope()), 1);
    let nicks = random.u32(..3);
    let mut service = RandomService::new(random.fork(), batches, trouble);
    let mut file = RandomFile { random: random.fork(), rows, tagged, lane, nicks, came: Vec::new(), fates: BTreeMap::new() };
    let mut flying: Vec<(Instant, SentCall)> = Vec::new();
    let mut outcomes = Vec::new();
    let (mut calls, mut idle) = (0_u64, 0);
    loop {
        file.feed(&mut harness, &mut service);
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
    for ((row, status, error, attempts), came) in outcomes.into_iter().zip(&file.came) {
        assert_eq!(status == Status::Imported, came.is_due(status), "row {row}, {came:?}, {error:?}");
        assert!(attempts >= 1);
    }
    let fell_back = harness.workload.lane() == Lane::FellBack;
    let are_spoiled = file.fates.values().any(|(fate, _)| matches!(fate, Fate::PoisonsAll | Fate::Passing(_)));
    assert!(batches != BatchSupport::Work || !fell_back || trouble > 0 || rows < 200 || are_spoiled, "batches that work are not given up");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_was_met_once_is_met_again() {
    check(16_055_226_158_787_962_243, 215, (BatchSupport::Work, TaggedShare::None), 0, 256);
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
        tagged in prop::sample::select(vec![TaggedShare::None, TaggedShare::Tenth, TaggedShare::All, TaggedShare::Mixed, TaggedShare::Only]),
        trouble in prop::sample::select(vec![0_u32, 0, 2, 15]),
        in_flight in prop::sample::select(vec![1_usize, 2, 8, 256]),
    ) {
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
            .block_on(async { check(seed, rows, (batches, tagged), trouble, in_flight) });
    }
}
