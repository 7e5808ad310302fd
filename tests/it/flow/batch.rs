//! The batch lane on the paused clock: its pace, and what brings it down.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use chatlift::domain::account::Account;
use chatlift::domain::answer::Answer;
use chatlift::domain::command::Command;
use chatlift::domain::halt_reason::HaltReason;
use chatlift::domain::outcome::Status;
use chatlift::domain::verdict::CallOutcome;
use chatlift::flow::dispatch::AbortCause;
use chatlift::flow::import::ImportEnd;
use chatlift::flow::import::{Lane, OnBatchFailure};
use futures_util::StreamExt;
use tokio::time::Instant;

use super::service::{Call, Keep, Reply, Run, Service, WINDOW_RECORDS, World, accounts, code, fine, listing, records};

const BATCH: Command = Command::MultiaccountImport;
const SINGLE: Command = Command::AccountImport;
const READ: Command = Command::PortraitGet;
/// About what a region on the same continent takes.
const LATENCY: Duration = Duration::from_millis(50);

fn lost() -> Reply {
    Reply { connect: Duration::ZERO, latency: Duration::from_millis(5), end: CallOutcome::Lost { why: "HTTP 502".to_owned() } }
}

/// As many records with nicknames.
fn named(count: u64) -> Box<dyn Iterator<Item = Result<chatlift::io::roster::Record, std::convert::Infallible>>> {
    records((1..=count).map(|row| (format!("user{row}"), format!("Nick {row}"))))
}

/// Neither API is called more often than it may be.
#[track_caller]
fn keeps_the_limits(service: &Service, run: &Run) {
    for (command, most) in [(BATCH, 100), (SINGLE, 200), (READ, 200)] {
        let seen = service.most_in_1s_of(command);
        assert!(seen <= most, "{command:?}: {seen}");
        assert_eq!(
            (run.traffic.apis[command].calls, run.traffic.apis[command].most_in_1s),
            (service.calls_of(command), seen),
            "{command:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_accounts_a_second_are_imported_and_no_more_than_a_hundred_calls() {
    let service = Service::new(|call| fine(call, LATENCY + Duration::from_millis(call.number % 40))).forgetful();
    let began = Instant::now();
    let run = World::new(named(200_000)).in_batches(OnBatchFailure::Stop).keeping(Keep::Counts).run(&service).await;
    assert!(matches!(run.end, ImportEnd::Finished), "{:?}", run.end);
    assert_eq!((run.counts.imported, service.calls_of(BATCH), service.calls_of(READ), service.calls_of(SINGLE)), (200_000, 2_000, 1, 0));
    keeps_the_limits(&service, &run);
    let mean = service.mean_per_s_of(BATCH);
    assert!(mean >= 99.0 || began.elapsed() < Duration::from_millis(20_500), "{mean}, {:?}", began.elapsed());
    assert!(run.traffic.mean_per_s <= 100.0 && run.traffic.most_in_1s() <= 100);
    assert_eq!(run.lane, Lane::Batch(OnBatchFailure::Stop));
}

/// Accounts that are imported a second, all in all.
async fn accounts_a_second(script: impl FnMut(&Call<'_>) -> Reply + 'static, count: u64) -> (f64, Run, Service) {
    let service = Service::new(script).forgetful();
    let began = Instant::now();
    let run = World::new(accounts(count)).in_batches(OnBatchFailure::FallBack).run(&service).await;
    let mean = count as f64 / began.elapsed().as_secs_f64();
    assert!(matches!(run.end, ImportEnd::Finished), "{:?}", run.end);
    keeps_the_limits(&service, &run);
    (mean, run, service)
}

#[tokio::test(start_paused = true)]
async fn a_record_in_ten_thousand_that_never_gets_through_fails_alone() {
    let is_poisoned = |id: &str| id.ends_with("5000");
    let (_, run, _) = accounts_a_second(
        move |call| if call.command == SINGLE && is_poisoned(call.user_id) { code(70500) } else { listing(call, LATENCY, is_poisoned) },
        200_000,
    )
    .await;
    assert_eq!((run.counts.failed, run.counts.imported), (20, 199_980));
    assert!(
        run.rows
            .iter()
            .filter(|row| row.outcome.status == Status::Failed)
            .all(|row| row.outcome.attempts == 6 && row.row % 10_000 == 5_000)
    );
}

/// What a service does to some of its accounts.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    /// One in 10,000 is listed, and answered 70500 whenever it comes singly.
    Poison,
    /// A batch that holds one of these is answered 70500 as a whole.
    PoisonedBatch,
    /// A hundredth is listed, and taken singly.
    Listed,
}

impl Trouble {
    fn reply(self, call: &Call<'_>) -> Reply {
        let is_poisoned = |id: &str| id.ends_with("5000");
        let carries_poison = call.accounts.iter().any(|account| is_poisoned(account.user_id.as_str()));
        match (self, call.command) {
            (Trouble::Poison | Trouble::PoisonedBatch, SINGLE) | (Trouble::PoisonedBatch, BATCH) if carries_poison => code(70500),
            (Trouble::Poison, _) => listing(call, LATENCY, is_poisoned),
            (Trouble::PoisonedBatch, _) => fine(call, LATENCY),
            (Trouble::Listed, _) => listing(call, LATENCY, |id| id.ends_with("77")),
        }
    }
}

/// Accounts a second that arrive for the first time, from the first such batch to the last one, as the service sees them: what comes
/// before is the wait for an earlier process's calls, what comes after is the end of the records that were in trouble.
async fn fresh_accounts_a_second(trouble: Trouble, window_records: usize, seed: u64) -> f64 {
    const ACCOUNTS: u64 = 400_000;
    let arrivals = Rc::new(RefCell::new(Vec::new()));
    let (told, mut known) = (Rc::clone(&arrivals), HashSet::new());
    let service = Service::new(move |call| {
        let mut is_fresh = |account: &&Account| call.command == BATCH && known.insert(account.user_id.as_str().to_owned());
        let fresh = call.accounts.iter().filter(&mut is_fresh).count();
        if fresh > 0 {
            told.borrow_mut().push((call.at, fresh));
        }
        trouble.reply(call)
    })
    .forgetful();
    let mut world = World::new(accounts(ACCOUNTS)).in_batches(OnBatchFailure::FallBack).keeping(Keep::Counts).seeded(seed);
    world.settings.window.records = window_records;
    let run = world.run(&service).await;
    assert!(matches!(run.end, ImportEnd::Finished), "{:?}", run.end);
    let failed = if matches!(trouble, Trouble::Listed) { 0 } else { ACCOUNTS / 10_000 };
    assert_eq!((run.counts.imported, run.counts.failed), (ACCOUNTS - failed, failed));
    keeps_the_limits(&service, &run);
    let arrivals = arrivals.borrow();
    let (first, last) = (arrivals[0], arrivals[arrivals.len() - 1]);
    assert_eq!(arrivals.iter().map(|(_, accounts)| *accounts as u64).sum::<u64>(), ACCOUNTS, "each account is fresh once");
    (ACCOUNTS - last.1 as u64) as f64 / last.0.saturating_sub(first.0).as_secs_f64()
}

/// The limit, in accounts a second.
const LIMIT: f64 = 10_000.0;

#[tokio::test(start_paused = true)]
async fn accounts_in_trouble_cost_less_than_a_tenth_of_the_pace() {
    for trouble in [Trouble::Poison, Trouble::PoisonedBatch, Trouble::Listed] {
        let seed = fastrand::u64(..);
        let mean = fresh_accounts_a_second(trouble, WINDOW_RECORDS, seed).await;
        println!("{trouble:?}, seed {seed}: {mean:.0} accounts/s");
        assert!(mean >= 0.9 * LIMIT, "{trouble:?}, seed {seed}: {mean:.0} accounts/s");
    }
}

/// It is the window that does it: with a few thousand records, everybody waits for each poisoned one.
#[tokio::test(start_paused = true)]
async fn a_small_window_would_cost_far_more_than_a_tenth_of_the_pace() {
    for trouble in [Trouble::Poison, Trouble::PoisonedBatch] {
        let seed = fastrand::u64(..);
        let mean = fresh_accounts_a_second(trouble, WINDOW_RECORDS / 32, seed).await;
        println!("{trouble:?}, seed {seed}: {mean:.0} accounts/s");
        assert!(mean < 0.8 * LIMIT, "{trouble:?}, seed {seed}: {mean:.0} accounts/s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundredth_of_the_records_that_is_listed_and_then_taken_costs_less_than_a_tenth() {
    let (mean, run, service) = accounts_a_second(|call| listing(call, LATENCY, |id| id.ends_with("77")), 200_000).await;
    assert_eq!((run.counts.imported, service.calls_of(SINGLE)), (200_000, 2_000));
    assert!(run.rows.iter().all(|row| row.outcome.attempts == if row.row % 100 == 77 { 2 } else { 1 }));
    assert!(mean > 9_500.0, "{mean}");
}

#[tokio::test(start_paused = true)]
async fn a_hundredth_of_the_records_that_never_gets_through_is_no_outage() {
    let is_poisoned = |id: &str| id.ends_with("77");
    let (mean, run, _) = accounts_a_second(
        move |call| if call.command == SINGLE && is_poisoned(call.user_id) { code(70500) } else { listing(call, LATENCY, is_poisoned) },
        50_000,
    )
    .await;
    assert_eq!((run.counts.failed, run.counts.imported), (500, 49_500));
    // 500 records, five single calls each at 200 a second, are what takes so long.
    assert!(mean > 3_000.0, "{mean}");
}

#[tokio::test(start_paused = true)]
async fn both_limits_hold_at_once() {
    // Two of a hundred are 200 singles a second: both APIs are called as often as they may be.
    let is_listed = |id: &str| id.ends_with("50") || id.ends_with("51") || id.ends_with("52");
    let (mean, run, service) = accounts_a_second(move |call| listing(call, LATENCY, is_listed), 60_000).await;
    assert_eq!((run.counts.imported, service.calls_of(SINGLE)), (60_000, 1_800));
    assert!(service.mean_per_s_of(SINGLE) > 190.0, "{}", service.mean_per_s_of(SINGLE));
    assert!(mean > 6_000.0, "{mean}");
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_an_hour_fails_nobody_and_is_probed_with_few_calls() {
    let service = Service::new(|call| if (5..3_605).contains(&call.at.as_secs()) { lost() } else { fine(call, LATENCY) }).forgetful();
    let run = World::new(named(100_000)).in_batches(OnBatchFailure::FallBack).run(&service).await;
    assert!(matches!(run.end, ImportEnd::Finished));
    assert_eq!((run.counts.imported, run.counts.failed), (100_000, 0));
    assert!(run.rows.iter().all(|row| row.outcome.attempts <= 2));
    // Calls go on while the three of the test are made, which leave in groups.
    assert!(service.calls() < 1_700, "{}", service.calls());
    assert_eq!(run.lane, Lane::Batch(OnBatchFailure::FallBack));
    keeps_the_limits(&service, &run);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_drops_profiles_gets_the_records_singly_at_the_single_rate() {
    let service = Service::new(|call| match call.command {
        READ => Reply { end: CallOutcome::Done(Answer::Profiles(Vec::new())), ..fine(call, LATENCY) },
        _ => fine(call, LATENCY),
    });
    let run = World::new(named(3_000)).in_batches(OnBatchFailure::FallBack).run(&service).await;
    assert!(matches!(run.end, ImportEnd::Finished));
    assert_eq!((run.counts.imported, run.lane), (3_000, Lane::FellBack));
    assert_eq!((service.calls_of(BATCH), service.calls_of(READ), service.calls_of(SINGLE)), (1, 2, 3_000));
    assert!(service.mean_per_s() > 197.0, "{}", service.mean_per_s());
    assert_eq!((run.traffic.main, run.traffic.most_in_1s()), (SINGLE, service.most_in_1s()));
    keeps_the_limits(&service, &run);
    assert_eq!(service.overlaps(), 0);
}

#[tokio::test(start_paused = true)]
async fn strict_refuses_batches_that_are_no_good_and_settles_nothing_of_them() {
    let service = Service::new(|call| if call.command == READ { code(40003) } else { fine(call, LATENCY) });
    let run = World::new(named(3_000)).in_batches(OnBatchFailure::Stop).run(&service).await;
    assert!(matches!(run.end, ImportEnd::Aborted(AbortCause::Refused { reason: HaltReason::BatchDropsProfiles, .. })), "{:?}", run.end);
    assert_eq!((run.rows.len(), service.calls()), (0, 2));
    let service = Service::new(|call| if call.command == BATCH { code(40001) } else { fine(call, LATENCY) });
    let run = World::new(named(3_000)).in_batches(OnBatchFailure::Stop).run(&service).await;
    assert!(matches!(run.end, ImportEnd::Aborted(AbortCause::Refused { reason: HaltReason::BatchesRefused, .. })), "{:?}", run.end);
    assert!((90..=100).contains(&service.calls_of(SINGLE)), "no more than the first batch's: {}", service.calls_of(SINGLE));
}

#[tokio::test(start_paused = true)]
async fn a_throttled_api_leaves_the_other_at_its_pace() {
    let is_listed = |id: &str| id.ends_with("77");
    let service =
        Service::new(
            move |call| {
                if call.command == SINGLE && call.in_last_second > 20 { code(60007) } else { listing(call, LATENCY, is_listed) }
            },
        )
        .forgetful();
    let run = World::new(accounts(50_000)).in_batches(OnBatchFailure::FallBack).run(&service).await;
    assert_eq!((run.counts.imported, run.traffic.apis[BATCH].throttled), (50_000, 0));
    assert!(run.traffic.apis[SINGLE].throttled > 0);
    assert!(run.rows.iter().all(|row| row.outcome.attempts <= 2), "throttling costs no attempt");
    assert!(service.mean_per_s_of(BATCH) > 98.0, "{}", service.mean_per_s_of(BATCH));
}

#[tokio::test(start_paused = true)]
async fn the_last_row_of_a_user_id_wins_across_batches() {
    let records_ = records((1..=5_000).map(|row| (format!("user{}", row % 701), format!("nick {row}"))));
    let service = Service::new(|call| listing(call, Duration::from_millis(call.number * 37 % 300), |id| id.ends_with('3')));
    let run = World::new(records_).in_batches(OnBatchFailure::FallBack).run(&service).await;
    assert_eq!((run.counts.imported, service.overlaps()), (5_000, 0));
    for user in 0..701 {
        let last = (1..=5_000).rev().find(|row| row % 701 == user).unwrap();
        assert_eq!(service.nick(&format!("user{user}")), Some(format!("nick {last}")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_signal_lets_the_batches_in_flight_settle() {
    let service = Service::new(|call| fine(call, LATENCY)).forgetful();
    let mut world = World::new(named(100_000)).in_batches(OnBatchFailure::FallBack);
    world.signals =
        futures_util::stream::once(tokio::time::sleep(Duration::from_secs(3))).chain(futures_util::stream::pending()).boxed_local();
    let run = world.run(&service).await;
    assert!(matches!(run.end, ImportEnd::Aborted(AbortCause::Signal)));
    assert_eq!(run.rows.len() as u64, service.calls_of(BATCH) * 100);
}
