//! Random services that do random things to random records, process after process: every start gets on, an outage fails no row, and nothing
//! is taken for an outage while the service takes others.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use chatlift::domain::command::Command;
use chatlift::domain::outcome::Status;
use chatlift::domain::verdict::CallOutcome;
use chatlift::flow::dispatch::AbortCause;
use chatlift::flow::import::{ImportEnd, ImportScope, OnBatchFailure};
use futures_util::StreamExt;
use tokio::time::Instant;

use super::service::{Call, Reply, Run, Service, World, code, fine, listing, records, with_tags};

const SINGLE: Command = Command::AccountImport;
const BATCH: Command = Command::MultiaccountImport;
const PROFILE: Command = Command::PortraitSet;
/// Starts of the same command that a case may take: each settles a row at least or was stopped by the test.
const STARTS: u32 = 400;
/// How long nothing but its own calls speaks of a row before it fails, less what its attempts take.
const TWO_MINUTES: Duration = Duration::from_secs(100);

fn number(user_id: &str) -> u64 {
    user_id.strip_prefix("user").and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// What the service remembers of the records.
#[derive(Debug, Default)]
struct Book {
    /// Temporary errors of their own that they have met, by API.
    met: BTreeMap<(Command, u64), u32>,
    struck: Struck,
}

/// The outages that the single calls of each record have met in this start, by API.
type Struck = BTreeMap<(Command, u64), BTreeSet<usize>>;

/// What the service has against the records of a file.
#[derive(Debug, Clone)]
struct Scenario {
    rows: u64,
    /// These meet a temporary error whenever they come singly.
    bad: BTreeSet<u64>,
    /// These meet so many before they are taken.
    passing: BTreeMap<u64, u32>,
    /// These are refused.
    refused: BTreeSet<u64>,
    /// Of a hundred records so many have tags.
    tags: u64,
    /// These meet a temporary error whenever their profile is set.
    bad_profiles: BTreeSet<u64>,
    /// When every call fails, and when all that set profiles do.
    outages: Vec<Range<Duration>>,
    profile_outages: Vec<Range<Duration>>,
    is_batched: bool,
    scope: ImportScope,
    latency: Duration,
}

impl Scenario {
    fn draw(random: &mut fastrand::Rng) -> Self {
        let rows = if random.bool() { random.u64(1..60) } else { random.u64(60..2_500) };
        let (share, passing) = (random.choice([0, 2, 10, 30, 60]).unwrap_or(0), random.choice([0, 5, 20]).unwrap_or(0));
        let bad = (1..=rows).filter(|_| random.u64(..100) < share).collect();
        let mut meets = BTreeMap::new();
        for row in 1..=rows {
            if random.u64(..100) < passing {
                meets.insert(row, random.u32(1..3));
            }
        }
        let mut scenario = Self {
            rows,
            bad,
            passing: meets,
            refused: (1..=rows).filter(|_| random.u32(..50) == 0).collect(),
            tags: random.choice([0, 0, 10, 100]).unwrap_or(0),
            bad_profiles: BTreeSet::new(),
            outages: Vec::new(),
            profile_outages: Vec::new(),
            is_batched: random.u32(..3) == 0,
            scope: ImportScope::Everything,
            latency: Duration::from_millis(random.u64(1..200)),
        };
        if random.bool() {
            let from = random.u64(1..=rows);
            scenario.bad.extend(from..=(from + random.u64(1..200)).min(rows));
        }
        scenario.outages = outages(random);
        if scenario.tags > 0 {
            let share = random.choice([0, 0, 2, 30]).unwrap_or(0);
            scenario.bad_profiles = (1..=rows).filter(|row| scenario.has_tags(*row) && random.u64(..100) < share).collect();
            scenario.profile_outages = outages(random);
        }
        if scenario.tags == 100 && random.bool() {
            // Nobody is imported, since the service knows all of them.
            scenario.scope = ImportScope::ProfilesOnly;
            scenario.bad.clear();
            scenario.passing.clear();
            scenario.refused.clear();
        }
        scenario
    }

    fn has_tags(&self, row: u64) -> bool {
        row.wrapping_mul(37) % 100 < self.tags
    }

    /// The outage at this moment, by its number.
    fn outage_at(&self, command: Command, at: Duration) -> Option<usize> {
        let own: &[_] = if command == PROFILE { &self.profile_outages } else { &[] };
        self.outages.iter().chain(own).position(|outage| outage.contains(&at))
    }

    fn is_good(&self, row: u64) -> bool {
        !self.bad.contains(&row) && !self.passing.contains_key(&row) && !self.bad_profiles.contains(&row)
    }

    /// A start from this row on.
    fn world(&self, done: u64, random: &mut fastrand::Rng) -> World {
        let rows = records((done + 1..=self.rows).map(|row| (format!("user{row}"), String::new())));
        let (tagged, before) = (self.clone(), done);
        let rows = with_tags(rows, move |row| if tagged.has_tags(before + row) { &["x", "y"] } else { &[] });
        let mut world = World::new(rows).seeded(random.u64(..));
        if self.is_batched {
            world = world.in_batches(OnBatchFailure::FallBack);
        }
        world.settings.dispatch.limits.in_flight = [1, 8, 256][random.usize(..3)];
        world.settings.limit = (random.u32(..3) == 0).then(|| random.u64(1..=(self.rows - done).max(1)));
        world
    }

    /// Whether a row may fail in this start at this API.
    fn is_due(&self, struck: &Struck, command: Command, row: u64) -> bool {
        let is_bad = match command {
            PROFILE => self.bad_profiles.contains(&row) || self.is_alone(struck, row),
            _ => self.bad.contains(&row) || self.refused.contains(&row),
        };
        is_bad || self.may_run_out(struck, command, row)
    }

    /// Whether this was the only row whose profile an outage of profiles alone has met that lasted for longer than two minutes: no other row
    /// could show that it was none of its own, and `account_check` was well. Then the two minutes decide.
    fn is_alone(&self, struck: &Struck, row: u64) -> bool {
        let long = self.profile_outages.iter().zip(self.outages.len()..).filter(|(outage, _)| outage.end > outage.start + TWO_MINUTES);
        long.map(|(_, number)| number).any(|number| {
            let met = struck.iter().filter(|((command, _), outages)| *command == PROFILE && outages.contains(&number));
            met.map(|((_, row), _)| *row).eq([row])
        })
    }

    /// Whether the profile of any of these rows can be set, so that it shows that the others' are at fault.
    fn has_good_profile(&self, mut rows: Range<u64>) -> bool {
        rows.any(|row| self.has_tags(row) && ![&self.bad, &self.refused, &self.bad_profiles].iter().any(|bad| bad.contains(&row)))
    }

    /// Whether an outage was under way in this time for as long as a profile that was set may be set again as a test.
    fn outlasts_repeats(&self, (from, to): (Duration, Duration)) -> bool {
        let all = self.outages.iter().chain(&self.profile_outages);
        all.filter(|outage| outage.start < to && outage.end > from).any(|outage| outage.end >= outage.start + Duration::from_secs(600))
    }

    /// Whether the attempts of a row at this API may have run out. A record's own temporary errors and those of an outage too short to be
    /// noticed may use them up together, and so may two such outages: the service was well in between, and after. One alone never does.
    fn may_run_out(&self, struck: &Struck, command: Command, row: u64) -> bool {
        let own = usize::from(command == SINGLE && self.passing.contains_key(&row));
        struck.get(&(command, row)).map_or(0, BTreeSet::len) + own >= 2
    }

    fn reply(&self, call: &Call<'_>, fault: &CallOutcome, Book { met, struck }: &mut Book) -> Reply {
        let faulty = |end: CallOutcome| Reply { connect: Duration::ZERO, latency: self.latency, end };
        let row = number(call.user_id);
        if let Some(outage) = self.outage_at(call.command, call.at) {
            if [SINGLE, PROFILE].contains(&call.command) {
                struck.entry((call.command, row)).or_default().insert(outage);
            }
            return faulty(fault.clone());
        }
        match call.command {
            BATCH => listing(call, self.latency, |id| !self.is_good(number(id)) || self.refused.contains(&number(id))),
            PROFILE if self.bad_profiles.contains(&row) => code(70500),
            SINGLE if self.bad.contains(&row) => code(40006),
            SINGLE if self.refused.contains(&row) => code(40601),
            SINGLE => {
                let times = met.entry((SINGLE, row)).or_default();
                *times += 1;
                if self.passing.get(&row).is_some_and(|passing| *times <= *passing) { code(70169) } else { fine(call, self.latency) }
            }
            _ => fine(call, self.latency),
        }
    }
}

fn outages(random: &mut fastrand::Rng) -> Vec<Range<Duration>> {
    let (mut outages, mut at) = (Vec::new(), 0);
    for _ in 0..random.u32(..3) {
        at += random.u64(..20_000);
        let lasts = *random.choice(&[300, 2_000, 20_000, 600_000]).unwrap_or(&0);
        outages.push(Duration::from_millis(at)..Duration::from_millis(at + lasts));
        at += lasts;
    }
    outages
}

/// How a case ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    WithAllRows,
    WithBadProfilesAlone,
}

/// A file on its way, start after start.
struct Case {
    seed: u64,
    scenario: Scenario,
    service: Service,
    book: Rc<RefCell<Book>>,
    began: Instant,
    /// Rows that have their outcome, and those of them that failed.
    done: u64,
    failed: BTreeSet<u64>,
}

impl Case {
    fn draw(seed: u64, random: &mut fastrand::Rng) -> Self {
        let scenario = Scenario::draw(random);
        let fault = [
            CallOutcome::Refused { code: 70500, info: String::new() },
            CallOutcome::Lost { why: "HTTP 502".to_owned() },
            CallOutcome::Unreached { why: "refused".to_owned() },
        ];
        let fault = fault[random.usize(..3)].clone();
        let (at_service, book) = (scenario.clone(), Rc::new(RefCell::new(Book::default())));
        let at_hand = Rc::clone(&book);
        let service = Service::new(move |call| at_service.reply(call, &fault, &mut at_hand.borrow_mut()));
        Self { seed, scenario, service, book, began: Instant::now(), done: 0, failed: BTreeSet::new() }
    }

    /// Starts the command once more; how the case ends, if it does.
    async fn start(&mut self, start: u32, random: &mut fastrand::Rng) -> Option<Ended> {
        let (from, mut world) = (self.began.elapsed(), self.scenario.world(self.done, random));
        world.settings.scope = self.scenario.scope;
        let left = self.scenario.rows - self.done;
        let reach = self.done + 1..self.done + 1 + world.settings.limit.unwrap_or(left).min(left);
        let stops_after = (random.u32(..3) == 0).then(|| Duration::from_millis(random.u64(500..60_000)));
        if let Some(after) = stops_after {
            world.signals = futures_util::stream::once(tokio::time::sleep(after)).chain(futures_util::stream::pending()).boxed_local();
        }
        self.book.borrow_mut().struck.clear();
        let run = world.run(&self.service).await;
        let says = format!("seed {}, start {start} at row {} of {}, {:?}", self.seed, self.done, self.scenario.rows, run.end);
        self.judge(&run, reach, from, &says);
        self.judge_failed(&run, &says);
        self.done += run.rows.len() as u64;
        match run.end {
            ImportEnd::Finished => Some(Ended::WithAllRows),
            ImportEnd::LimitReached | ImportEnd::Aborted(AbortCause::Signal) => None,
            ImportEnd::Aborted(AbortCause::Outage { api: PROFILE, .. }) => {
                // Without a good profile, every further start would end like this.
                let goes_on = self.scenario.has_good_profile(self.done + 1..self.scenario.rows + 1);
                (!goes_on).then_some(Ended::WithBadProfilesAlone)
            }
            ImportEnd::Aborted(cause) => panic!("{says}: {cause:?}"),
            ImportEnd::Input(never) => match never {},
        }
    }

    /// Whether the start could get on, and took nothing for an outage that was none. It began at `from` and could reach these rows.
    fn judge(&self, run: &Run, reach: Range<u64>, from: Duration, says: &str) {
        let (scenario, now) = (&self.scenario, self.began.elapsed());
        let was_out = scenario.outages.iter().chain(&scenario.profile_outages).any(|outage| outage.start < now && outage.end > from);
        // Bad profiles alone can't be told from an API that is down: no row fails, and in the end the run says so.
        let is_profile_outage = matches!(run.end, ImportEnd::Aborted(AbortCause::Outage { api: PROFILE, .. }));
        let may_be_outage =
            !scenario.bad_profiles.is_empty() && (!scenario.has_good_profile(reach) || scenario.outlasts_repeats((from, now)));
        assert!(!is_profile_outage || may_be_outage, "{says}: others' profiles can be set");
        let may_settle_none = is_profile_outage || matches!(run.end, ImportEnd::Aborted(AbortCause::Signal));
        assert!(!run.rows.is_empty() || self.done == scenario.rows || may_settle_none, "{says}: no row was settled");
        let good_ones = (self.done + 1..=(self.done + 20).min(scenario.rows)).filter(|row| scenario.is_good(*row)).count();
        assert!(run.outages == 0 || was_out || good_ones < 5 || may_be_outage, "{says}: a false outage");
        let odd = run.rows.iter().find(|row| row.outcome.attempts < 1 || row.outcome.attempts > 20);
        assert!(odd.is_none(), "{says}: {odd:?}, {:?}", scenario.outages);
    }

    /// Whether each row that failed was due to.
    fn judge_failed(&mut self, run: &Run, says: &str) {
        let (scenario, done) = (&self.scenario, self.done);
        let all_failed = run.rows.iter().filter(|row| row.outcome.status == Status::Failed);
        for (row, outcome) in all_failed.map(|row| (row.row + done, &row.outcome)) {
            self.failed.insert(row);
            let command = if outcome.error_info.starts_with("portrait_set: ") { PROFILE } else { SINGLE };
            assert!(
                scenario.is_due(&self.book.borrow().struck, command, row),
                "{says}: row {row}, {:?}, {outcome:?}, down {} times, outages {:?}, of profiles {:?}",
                scenario.passing.get(&row),
                run.outages,
                scenario.outages,
                scenario.profile_outages
            );
        }
    }
}

async fn check(seed: u64) -> Ended {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut case = Case::draw(seed, &mut random);
    for start in 0..STARTS {
        let Some(ended) = case.start(start, &mut random).await else { continue };
        if ended == Ended::WithAllRows {
            let Case { scenario, service, done, failed, .. } = case;
            assert_eq!((service.overlaps(), done), (0, scenario.rows), "seed {seed}");
            let bad = [&scenario.bad, &scenario.refused, &scenario.bad_profiles];
            assert!(bad.into_iter().flatten().all(|row| failed.contains(row)), "seed {seed}: {failed:?}");
        }
        return ended;
    }
    panic!("seed {seed}: stuck at {} of {} rows", case.done, case.scenario.rows);
}

#[tokio::test(start_paused = true)]
async fn every_start_gets_on_and_whose_fault_it_is_is_told_apart() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let seed = number("CHATLIFT_SEED");
    let cases = number("CHATLIFT_CASES").unwrap_or(if seed.is_some() { 1 } else { 60 });
    let first = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("CHATLIFT_SEED={first}, and {cases} from there");
    let mut stuck = 0;
    for case in 0..cases {
        stuck += u64::from(check(first.wrapping_add(case)).await == Ended::WithBadProfilesAlone);
    }
    println!("{stuck} of {cases} cases ended with bad profiles alone");
    assert!(stuck * 10 <= cases.max(20), "{stuck} of {cases} cases ended with bad profiles alone");
}
