//! Requests over a service that is a function, on the paused clock: everything is answered, and nobody suffers for an outage or a neighbour.

mod trouble;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chatlift::domain::account::{Account, UserId};
use chatlift::domain::answer::Answer;
use chatlift::domain::call_stats::CallStats;
use chatlift::domain::command::{Command, PerCommand};
use chatlift::domain::halt_reason::HaltReason;
use chatlift::domain::verdict::{CallOutcome, SuccessSeen};
use chatlift::flow::calls::{self, CallsFailed, CallsOutcome, JobSource, NextJob, RequestJob};
use chatlift::flow::dispatch::{AbortCause, Clocks, DispatchDependencies, DispatchSettings, JobOutcome, Known, SchedulerLimits};
use chatlift::io::api::Request;
use chatlift::io::api::usersig::{Credential, Signer};
use chatlift::io::gate::{self, Rate};
use futures_util::StreamExt;
use futures_util::stream::LocalBoxStream;
use tokio::time::Instant;

use super::service::{Call, Reply, Service, code, fine};

const CHECK: Command = Command::AccountCheck;
const READ: Command = Command::PortraitGet;
const LATENCY: Duration = Duration::from_millis(50);

/// What became of each id of each command.
type Outcomes = BTreeMap<(Command, String), JobOutcome>;

/// Jobs in a list, with what they lead to.
struct List {
    todo: PerCommand<VecDeque<Vec<String>>>,
    outcomes: Rc<RefCell<Outcomes>>,
    /// Jobs that are under way, and the most there were.
    open: (usize, usize),
    /// The answer to the question for more is "searching" so many times before it is a job.
    searches: u32,
    /// An id whose end is an error.
    breaks_at: Option<String>,
}

impl JobSource for List {
    type Item = Account;
    type Key = usize;
    type Error = String;

    const COMMANDS: &'static [Command] = &[CHECK, READ, Command::QueryOnlineStatus, Command::Kick, Command::AccountDelete];

    fn next(&mut self, command: Command) -> Result<NextJob<Account, usize>, String> {
        if self.searches > 0 {
            self.searches -= 1;
            return Ok(NextJob::Pending);
        }
        let Some(ids) = self.todo[command].pop_front() else { return Ok(NextJob::Nothing) };
        self.open.0 += 1;
        self.open.1 = self.open.1.max(self.open.0);
        let accounts: Vec<_> = ids.iter().map(|id| Account::parse(id.as_bytes(), b"", b"").unwrap()).collect();
        let key = accounts.len();
        Ok(NextJob::Job(RequestJob { command, items: accounts, key }))
    }

    fn request(job: &RequestJob<Account, usize>) -> Request<'_> {
        let ids = || job.items.iter().map(|account| &account.user_id).collect();
        match job.command {
            CHECK => Request::AccountCheck(ids()),
            READ => Request::PortraitGet(job.items.iter().collect()),
            Command::QueryOnlineStatus => Request::QueryOnlineStatus(ids()),
            Command::Kick => Request::Kick(&job.items[0].user_id),
            Command::AccountDelete => Request::AccountDelete(ids()),
            other => panic!("{} is not in the list", other.name()),
        }
    }

    fn ended(&mut self, job: RequestJob<Account, usize>, outcome: JobOutcome) -> Result<(), String> {
        assert!(job.items.len() <= job.key);
        assert!(matches!(outcome, JobOutcome::Answered(_)) || job.items.len() == 1, "nobody fails for a neighbour: {outcome:?}");
        self.open.0 = self.open.0.saturating_sub(1);
        // What came back is the wire's tests' business.
        let outcome = if let JobOutcome::Answered(_) = outcome { JobOutcome::Answered(Answer::Nothing) } else { outcome };
        for account in job.items {
            let id = account.user_id.as_str().to_owned();
            if self.breaks_at.as_ref() == Some(&id) {
                return Err(id);
            }
            // Whoever is seen offline is deleted.
            if job.command == Command::QueryOnlineStatus {
                self.todo[Command::AccountDelete].push_back(vec![id.clone()]);
            }
            let before = self.outcomes.borrow_mut().insert((job.command, id), outcome.clone());
            assert_eq!(before, None, "one end each");
        }
        Ok(())
    }
}

struct World {
    list: List,
    outcomes: Rc<RefCell<Outcomes>>,
    settings: DispatchSettings,
    signals: LocalBoxStream<'static, ()>,
    credential: Credential,
}

struct Run {
    end: Option<AbortCause>,
    outcomes: Outcomes,
    traffic: CallStats,
    most_open: usize,
}

impl World {
    fn new() -> Self {
        let outcomes = Rc::new(RefCell::default());
        let list = List { todo: PerCommand::default(), outcomes: Rc::clone(&outcomes), open: (0, 0), searches: 0, breaks_at: None };
        let settings = DispatchSettings {
            rates: PerCommand::new(|command| Rate::PerSecond(command.spec().calls_per_s)),
            gates: gate::GateSettings::default(),
            limits: SchedulerLimits { max_attempts: 5, in_flight: 256 },
            max_outage: Duration::from_secs(6 * 3_600),
            known: Known { identifier: UserId::parse(b"administrator").unwrap(), seen: SuccessSeen::NotYet },
            progress_every: Duration::from_secs(1),
        };
        Self { list, outcomes, settings, signals: futures_util::stream::pending().boxed_local(), credential: Credential::Key("key".into()) }
    }

    /// Asks this about so many accounts, as many a call as may be.
    fn asking(mut self, command: Command, count: u64) -> Self {
        let ids: Vec<String> = (1..=count).map(|number| format!("user{number}")).collect();
        self.list.todo[command].extend(ids.chunks(command.spec().accounts_per_call).map(<[String]>::to_vec));
        self
    }

    fn signalled_after(mut self, waits: &'static [Duration]) -> Self {
        let signals = futures_util::stream::iter(waits).then(|wait| tokio::time::sleep(*wait));
        self.signals = signals.chain(futures_util::stream::pending()).boxed_local();
        self
    }

    async fn try_run(self, service: &Service) -> Result<CallsOutcome<List>, CallsFailed<String>> {
        let began = Instant::now();
        let wall = move || -> SystemTime { UNIX_EPOCH + Duration::from_secs(1_800_000_000) + began.elapsed() };
        let mut jitter = fastrand::Rng::with_seed(1);
        let dependencies = DispatchDependencies {
            api: service.clone(),
            signer: Signer::new(self.credential, 1, "administrator", Instant::now(), wall()),
            clocks: Clocks { wall: Box::new(wall), jitter: Box::new(move || jitter.f64()) },
            signals: self.signals,
        };
        calls::run(dependencies, (self.list, Box::new(|_, _| ())), self.settings).await
    }

    async fn run(self, service: &Service) -> Run {
        let outcomes = Rc::clone(&self.outcomes);
        let ended = self.try_run(service).await.expect("nothing breaks");
        let outcomes = outcomes.borrow().clone();
        Run { end: ended.cause, outcomes, traffic: ended.traffic, most_open: ended.source.open.1 }
    }
}

impl Run {
    fn done(&self, command: Command) -> usize {
        self.outcomes.iter().filter(|((of, _), outcome)| *of == command && matches!(outcome, JobOutcome::Answered(_))).count()
    }

    /// The ids that ended otherwise.
    fn undone(&self, command: Command) -> Vec<&str> {
        let undone = self.outcomes.iter().filter(|((of, _), outcome)| *of == command && !matches!(outcome, JobOutcome::Answered(_)));
        undone.map(|((_, id), _)| id.as_str()).collect()
    }
}

fn lost() -> Reply {
    Reply { connect: Duration::ZERO, latency: Duration::from_millis(5), end: CallOutcome::Lost { why: "HTTP 502".to_owned() } }
}

fn carries(call: &Call<'_>, id: &str) -> bool {
    call.accounts.iter().any(|account| account.user_id.as_str() == id)
}

#[track_caller]
fn keeps_the_limits(service: &Service, run: &Run) {
    service.assert_even(|command| command.spec().calls_per_s.get() as usize);
    for command in Command::ALL {
        let (seen, most) = (service.most_in_1s_of(command), command.spec().calls_per_s.get() as usize);
        assert!(seen <= most, "{}: {seen}", command.name());
        assert_eq!((run.traffic.apis[command].calls, run.traffic.apis[command].most_in_1s), (service.calls_of(command), seen));
    }
}

#[tokio::test(start_paused = true)]
async fn each_api_is_used_to_its_own_limit_and_never_past_it() {
    let service = Service::new(|call| fine(call, LATENCY + Duration::from_millis(call.number % 40))).forgetful();
    let run = World::new().asking(CHECK, 100_000).asking(READ, 200_000).asking(Command::Kick, 2_000).run(&service).await;
    assert_eq!((run.end.clone(), run.done(CHECK), run.done(READ), run.done(Command::Kick)), (None, 100_000, 200_000, 2_000));
    keeps_the_limits(&service, &run);
    for (command, least) in [(CHECK, 98.0), (READ, 197.0), (Command::Kick, 190.0)] {
        assert!(service.mean_per_s_of(command) > least, "{}: {}", command.name(), service.mean_per_s_of(command));
    }
    assert_eq!((run.traffic.main, run.traffic.calls()), (CHECK, 1_000 + 2_000 + 2_000));
}

#[tokio::test(start_paused = true)]
async fn what_an_answer_leads_to_is_asked_next() {
    let service = Service::new(|call| fine(call, LATENCY)).forgetful();
    let run = World::new().asking(Command::QueryOnlineStatus, 1_200).run(&service).await;
    assert_eq!((run.end.clone(), run.done(Command::AccountDelete)), (None, 1_200));
    assert_eq!((service.calls_of(Command::QueryOnlineStatus), service.calls_of(Command::AccountDelete)), (3, 1_200));
    keeps_the_limits(&service, &run);
}

#[tokio::test(start_paused = true)]
async fn jobs_are_fetched_as_late_as_can_be() {
    let service = Service::new(|call| fine(call, Duration::from_secs(1))).forgetful();
    let mut world = World::new().asking(CHECK, 100_000);
    world.settings.limits.in_flight = 20;
    let run = world.run(&service).await;
    assert_eq!((run.done(CHECK), run.most_open), (100_000, 21));
    assert!(service.most_in_1s_of(CHECK) <= 20);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_refused_fails_alone_and_no_other_does() {
    for refusal in [40003, 40601, 70402, 60003, 60015] {
        for bad in ["user1", "user50", "user100", "user350"] {
            let service = Service::new(move |call| if carries(call, bad) { code(refusal) } else { fine(call, LATENCY) });
            let run = World::new().asking(CHECK, 350).run(&service).await;
            assert_eq!((run.end.clone(), run.done(CHECK), run.undone(CHECK)), (None, 349, vec![bad]), "{refusal}");
            let expected = JobOutcome::Rejected((Some(refusal), format!("code {refusal}")));
            assert_eq!(run.outcomes[&(CHECK, bad.to_owned())], expected);
            assert!(service.calls() <= 4 + 2 * 7, "{}", service.calls());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_never_gets_through_fails_alone_after_its_attempts() {
    for end in [code(70500).end, lost().end, code(12345).end] {
        let unanswered = end.clone();
        let service = Service::new(move |call| Reply {
            end: if carries(call, "user77") { end.clone() } else { fine(call, LATENCY).end },
            ..fine(call, LATENCY)
        });
        let run = World::new().asking(CHECK, 10_000).run(&service).await;
        assert_eq!((run.end.clone(), run.done(CHECK), run.undone(CHECK)), (None, 9_999, vec!["user77"]), "{unanswered:?}");
        let expected = match unanswered {
            CallOutcome::Refused { code, info } => JobOutcome::AttemptsExhausted((Some(code), info)),
            CallOutcome::Lost { why } => JobOutcome::AttemptsExhausted((None, why)),
            other => panic!("{other:?}"),
        };
        assert_eq!(run.outcomes[&(CHECK, "user77".to_owned())], expected);
        // The page and its halves, five calls each, beside each a half that is fine, and for each a test of whether the service is well; the one
        // account is tried a last time after that.
        assert!(service.calls() <= 100 + 8 * 5 + 7 + 8 + 2, "{}", service.calls());
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_is_called_malformed_waits_for_what_its_neighbours_may_show() {
    for errors in [0, 2] {
        // The neighbour's own call is still under way when the refusal comes, or has met a temporary error.
        let service = Service::new(move |call| match call.user_id {
            _ if carries(call, "user1") => Reply { latency: LATENCY * 2, ..code(60003) },
            _ if call.nth_of_user <= 1 + errors => Reply { latency: LATENCY, ..code(70500) },
            _ => fine(call, LATENCY * 10),
        });
        let run = World::new().asking(CHECK, 2).run(&service).await;
        assert_eq!((run.end.clone(), run.done(CHECK), run.undone(CHECK)), (None, 1, vec!["user1"]), "{errors}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_malformed_first_call_is_nobodys_fault() {
    for refusal in [60003, 60015] {
        let service = Service::new(move |_| code(refusal));
        let run = World::new().asking(CHECK, 1).run(&service).await;
        assert!(matches!(run.end, Some(AbortCause::Refused { code: Some(code), .. }) if code == refusal), "{:?}", run.end);
        assert!(run.outcomes.is_empty());
        let run = World::new().asking(CHECK, 350).run(&Service::new(move |_| code(refusal))).await;
        assert!(matches!(run.end, Some(AbortCause::Refused { code: Some(code), .. }) if code == refusal), "{:?}", run.end);
        assert!(run.outcomes.is_empty(), "{:?}", run.outcomes);
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_an_hour_is_nobodys_fault_and_is_probed_with_few_calls() {
    for end in [CallOutcome::Lost { why: "HTTP 502".to_owned() }, code(60008).end, CallOutcome::Unreached { why: "refused".to_owned() }] {
        let once_known = Rc::new(Cell::new(0));
        let counted = Rc::clone(&once_known);
        let service = Service::new(move |call| {
            counted.set(counted.get() + u32::from((15..3_605).contains(&call.at.as_secs())));
            match call.at.as_secs() {
                5..3_605 => Reply { end: end.clone(), ..lost() },
                _ => fine(call, LATENCY),
            }
        })
        .forgetful();
        let run = World::new().asking(CHECK, 60_000).asking(READ, 120_000).run(&service).await;
        assert_eq!((run.end.clone(), run.done(CHECK), run.done(READ)), (None, 60_000, 120_000));
        // Each API has a breaker of its own: a probe a minute, and of three calls at most.
        assert!(once_known.get() <= 2 * 61 * 3, "{}", once_known.get());
        // 1,800 are needed; ten seconds of both APIs at 200/s would be 4,000 more.
        assert!(service.calls() < 2_600, "{}", service.calls());
        keeps_the_limits(&service, &run);
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_longer_than_allowed_stops_the_run_however_few_the_jobs() {
    for (count, end) in
        [(100_000, lost().end), (1, lost().end), (150, lost().end), (1, CallOutcome::Unreached { why: "HTTP 502".to_owned() })]
    {
        let service = Service::new(move |_| Reply { end: end.clone(), ..lost() });
        let mut world = World::new().asking(CHECK, count);
        world.settings.max_outage = Duration::from_secs(600);
        let began = Instant::now();
        let run = world.run(&service).await;
        assert_eq!((run.end, run.outcomes.len()), (Some(AbortCause::Outage { api: CHECK, why: "HTTP 502".to_owned() }), 0), "{count}");
        assert!((600..640).contains(&began.elapsed().as_secs()), "{count}: {:?}", began.elapsed());
        assert!(service.calls() < 400, "{count}: {}", service.calls());
    }
}

#[tokio::test(start_paused = true)]
async fn one_api_that_is_down_stops_the_run_and_leaves_the_other_at_its_pace() {
    let service = Service::new(|call| if call.command == READ { lost() } else { fine(call, LATENCY) }).forgetful();
    let mut world = World::new().asking(CHECK, 50_000).asking(READ, 50_000);
    world.settings.max_outage = Duration::from_secs(600);
    let run = world.run(&service).await;
    assert_eq!(
        (run.end.clone(), run.done(CHECK), run.outcomes.len()),
        (Some(AbortCause::Outage { api: READ, why: "HTTP 502".to_owned() }), 50_000, 50_000)
    );
    assert!(service.mean_per_s_of(CHECK) > 98.0, "{}", service.mean_per_s_of(CHECK));
    keeps_the_limits(&service, &run);
}

#[tokio::test(start_paused = true)]
async fn connections_that_are_closed_cost_a_call_and_nobody_anything() {
    let service = Service::new(|call| fine(call, LATENCY)).closing_connection_of(|_| true);
    let run = World::new().asking(CHECK, 30_000).asking(Command::Kick, 500).run(&service).await;
    assert_eq!((run.end.clone(), run.done(CHECK), run.done(Command::Kick)), (None, 30_000, 500));
    assert_eq!((service.calls(), run.traffic.retries()), (2 * (300 + 500), 300 + 500));
    keeps_the_limits(&service, &run);
    assert!(service.mean_per_s_of(CHECK) > 98.0, "{}", service.mean_per_s_of(CHECK));
}

#[tokio::test(start_paused = true)]
async fn throttling_slows_the_api_that_it_is_about_and_costs_no_attempt() {
    let service =
        Service::new(|call| if call.command == READ && call.in_last_second > 20 { code(60007) } else { fine(call, LATENCY) }).forgetful();
    let mut world = World::new().asking(CHECK, 100_000).asking(READ, 50_000);
    world.settings.limits.max_attempts = 1;
    let run = world.run(&service).await;
    assert_eq!((run.end.clone(), run.done(CHECK), run.done(READ)), (None, 100_000, 50_000));
    assert!(run.traffic.apis[READ].throttled > 0 && run.traffic.apis[CHECK].throttled == 0);
    assert!(service.mean_per_s_of(CHECK) > 98.0, "{}", service.mean_per_s_of(CHECK));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_says_nothing_but_too_fast_is_not_waited_for_without_end() {
    let service = Service::new(|call| if call.command == READ { code(60011) } else { fine(call, LATENCY) });
    let mut world = World::new().asking(CHECK, 1_000).asking(READ, 1_000);
    world.settings.max_outage = Duration::from_secs(600);
    let run = world.run(&service).await;
    assert!(matches!(&run.end, Some(AbortCause::Outage { why, .. }) if why.contains("60011")), "{:?}", run.end);
    assert_eq!((run.done(CHECK), run.outcomes.len()), (1_000, 1_000));
}

#[tokio::test(start_paused = true)]
async fn a_refused_signature_is_renewed_once() {
    let service = Service::new(|call| if call.signature.generation == 1 { code(70003) } else { fine(call, LATENCY) });
    let mut world = World::new().asking(CHECK, 1_000);
    world.settings.limits.max_attempts = 1;
    let run = world.run(&service).await;
    assert_eq!((run.end.clone(), run.done(CHECK)), (None, 1_000));
    let run = World::new().asking(CHECK, 1_000).run(&Service::new(|_| code(70003))).await;
    assert!(matches!(run.end, Some(AbortCause::Refused { reason: HaltReason::Signature, .. })), "{:?}", run.end);
    assert!(run.outcomes.is_empty());
    let mut world = World::new().asking(CHECK, 1_000);
    world.credential = Credential::Ready("x".into());
    let run = world.run(&Service::new(|_| code(70003))).await;
    assert!(matches!(run.end, Some(AbortCause::Refused { reason: HaltReason::FixedSignature, .. })), "{:?}", run.end);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_app_stops_the_run_and_charges_nobody() {
    for (refused, expected) in [(71000, HaltReason::DeletionOff), (70403, HaltReason::NotAdmin), (60028, HaltReason::DailyVolume)] {
        let service = Service::new(move |call| if call.number >= 5 { code(refused) } else { fine(call, LATENCY) });
        let run = World::new().asking(Command::AccountDelete, 5_000).run(&service).await;
        assert!(matches!(run.end, Some(AbortCause::Refused { reason, code: Some(code), .. }) if reason == expected && code == refused));
        assert_eq!((run.outcomes.len(), run.undone(Command::AccountDelete)), (500, Vec::new()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_code_that_nobody_knows_everywhere_stops_the_run() {
    let run = World::new().asking(CHECK, 10_000).run(&Service::new(|_| code(12345))).await;
    assert!(matches!(run.end, Some(AbortCause::Refused { reason: HaltReason::UnknownCodes, code: Some(12345), .. })), "{:?}", run.end);
    assert!(run.outcomes.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_first_signal_lets_calls_in_flight_end_and_the_second_does_not() {
    const FIRST: Duration = Duration::from_millis(3_020);
    let began = Instant::now();
    let service = Service::new(|call| fine(call, Duration::from_secs(4))).forgetful();
    let run = World::new().asking(CHECK, 100_000).signalled_after(&[FIRST]).run(&service).await;
    assert_eq!((run.end.clone(), run.done(CHECK) as u64), (Some(AbortCause::Signal), service.calls() * 100));
    assert!(began.elapsed() < Duration::from_millis(7_100), "{:?}", began.elapsed());
    let began = Instant::now();
    let service = Service::new(|call| fine(call, Duration::from_secs(40))).forgetful();
    let run = World::new().asking(CHECK, 100_000).signalled_after(&[FIRST]).run(&service).await;
    assert_eq!((run.end, run.outcomes.len()), (Some(AbortCause::Signal), 0));
    assert_eq!(began.elapsed().as_secs(), 13, "ten seconds are waited");
    let began = Instant::now();
    let run = World::new().asking(CHECK, 100_000).signalled_after(&[FIRST, LATENCY]).run(&service).await;
    assert_eq!((run.end, began.elapsed()), (Some(AbortCause::Signal), FIRST + LATENCY));
}

#[tokio::test(start_paused = true)]
async fn a_long_search_keeps_nobody_from_stopping_the_run() {
    let service = Service::new(|call| fine(call, LATENCY));
    let mut world = World::new().asking(CHECK, 500);
    world.list.searches = 10_000;
    assert_eq!(world.run(&service).await.done(CHECK), 500);
    let mut world = World::new().asking(CHECK, 500).signalled_after(&[Duration::ZERO]);
    world.list.searches = u32::MAX;
    assert_eq!(world.run(&service).await.end, Some(AbortCause::Signal));
}

#[tokio::test(start_paused = true)]
async fn what_breaks_ends_the_run_with_what_it_did() {
    let mut world = World::new().asking(CHECK, 5_000);
    world.list.breaks_at = Some("user420".to_owned());
    let Err(CallsFailed { error, traffic }) = world.try_run(&Service::new(|call| fine(call, LATENCY))).await else { panic!("it breaks") };
    assert_eq!(error, "user420");
    assert!((5..50).contains(&traffic.apis[CHECK].calls), "{}", traffic.apis[CHECK].calls);
}

/// Whatever the service does with some ids and some calls: each id has one end, and it is its own.
#[tokio::test(start_paused = true)]
async fn every_id_has_one_end_and_it_is_its_own() {
    let seed = std::env::var("CHATLIFT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("CHATLIFT_SEED={seed}");
    for case in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed.wrapping_add(case));
        let mut pick =
            |one_in: u64| -> BTreeSet<String> { (1..=3_000).filter(|_| random.u64(..one_in) == 0).map(|n| format!("user{n}")).collect() };
        let (refused, poisoned) = (pick(300), pick(1_000));
        let (is_refused, is_poisoned) = (refused.clone(), poisoned.clone());
        let mut trouble = fastrand::Rng::with_seed(seed.wrapping_add(1_000 + case));
        let service = Service::new(move |call| {
            let has = |ids: &BTreeSet<String>| call.accounts.iter().any(|account| ids.contains(account.user_id.as_str()));
            match trouble.u32(..100) {
                0..3 => lost(),
                3..5 => code(70169),
                5 => code(60007),
                6 => Reply { end: CallOutcome::Unreached { why: "reset".to_owned() }, ..lost() },
                _ if has(&is_poisoned) => code(70500),
                _ if has(&is_refused) => code(70402),
                _ => fine(call, Duration::from_millis(trouble.u64(1..300))),
            }
        })
        .forgetful();
        let mut world = World::new().asking(CHECK, 3_000).asking(READ, 3_000);
        world.settings.limits.in_flight = 1 + random.usize(..40);
        let run = world.run(&service).await;
        assert_eq!((run.end.clone(), run.outcomes.len()), (None, 6_000), "case {case}");
        for ((command, id), outcome) in &run.outcomes {
            let is_own = match outcome {
                JobOutcome::Answered(_) => !refused.contains(id) && !poisoned.contains(id),
                JobOutcome::Rejected((code, _)) => *code == Some(70402) && refused.contains(id),
                // Five passing faults in a row are rare, and then they are somebody's own too.
                JobOutcome::AttemptsExhausted(_) => poisoned.contains(id) || refused.contains(id) || run.undone(*command).len() < 40,
            };
            assert!(is_own, "case {case}: {id}: {outcome:?}");
        }
        keeps_the_limits(&service, &run);
    }
}
