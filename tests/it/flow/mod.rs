//! The import over a service that is a function, on tokio's paused clock: hours take milliseconds, and every run is the same.

mod batch;
mod calls;
mod course;
mod kept;
mod limiters;
mod profiles;
mod random_trouble;
mod service;
mod trouble;
mod week;

use std::num::NonZeroU32;
use std::time::Duration;

use chatlift::domain::halt_reason::HaltReason;
use chatlift::domain::outcome::Status;
use chatlift::domain::verdict::CallOutcome;
use chatlift::flow::dispatch::AbortCause;
use chatlift::flow::import::ImportEnd;
use chatlift::io::gate::Rate;
use futures_util::StreamExt;
use tokio::time::Instant;

use service::{Reply, Service, World, accounts, code, imported};

fn per_second(rate: u32) -> Rate {
    Rate::PerSecond(NonZeroU32::new(rate).unwrap())
}

#[tokio::test(start_paused = true)]
async fn the_limit_is_used_and_never_exceeded() {
    for (latency_ms, least_mean) in [(1, 199.0), (80, 198.0)] {
        let service = Service::new(move |call| imported(Duration::from_millis(latency_ms + call.number % 20)));
        let run = World::new(accounts(3_000)).run(&service).await;
        assert!(matches!(run.end, ImportEnd::Finished));
        assert_eq!(service.calls(), 3_000);
        assert!(service.most_in_1s() <= 200, "{}", service.most_in_1s());
        service.assert_even(|_| 200);
        assert!(service.mean_per_s() >= least_mean, "{latency_ms}: {}", service.mean_per_s());
    }
}

#[tokio::test(start_paused = true)]
async fn slow_connections_at_the_start_and_wild_latencies_do_not_bunch_calls_up() {
    let seed = 11;
    let service = Service::new(move |call| {
        let mut random = fastrand::Rng::with_seed(seed + call.number);
        let connect = if call.number < 200 || random.u8(..) == 0 { random.u64(0..900) } else { 0 };
        Reply { connect: Duration::from_millis(connect), ..imported(Duration::from_millis(random.u64(1..1_000))) }
    });
    let run = World::new(accounts(5_000)).run(&service).await;
    assert!(matches!(run.end, ImportEnd::Finished));
    assert!(service.most_in_1s() <= 200, "seed {seed}: {}", service.most_in_1s());
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_an_hour_fails_no_row_and_is_probed_with_few_calls() {
    let service = Service::new(|call| match call.at.as_secs() {
        30..3_630 => Reply { latency: Duration::from_millis(5), end: CallOutcome::Lost { why: "HTTP 502".to_owned() }, ..Reply::default() },
        _ => imported(Duration::from_millis(5)),
    });
    let run = World::new(accounts(20_000)).run(&service).await;
    assert!(matches!(run.end, ImportEnd::Finished));
    assert_eq!((run.counts.imported, run.counts.failed), (20_000, 0));
    assert!(run.rows.iter().all(|row| row.outcome.attempts <= 2), "attempts of the outage are given back");
    assert!(service.calls() < 20_500, "{}", service.calls());
    assert!(service.most_in_1s() <= 200);
}

#[tokio::test(start_paused = true)]
async fn an_outage_longer_than_allowed_stops_the_run_and_charges_nobody() {
    let service = Service::new(|call| match call.at.as_secs() {
        10.. => Reply { latency: Duration::ZERO, end: CallOutcome::Unreached { why: "connection refused".to_owned() }, ..Reply::default() },
        _ => imported(Duration::from_millis(5)),
    });
    let mut world = World::new(accounts(20_000));
    world.settings.dispatch.max_outage = Duration::from_secs(600);
    let began = Instant::now();
    let run = world.run(&service).await;
    assert!(matches!(&run.end, ImportEnd::Aborted(AbortCause::Outage { why, .. }) if why == "connection refused"), "{:?}", run.end);
    assert_eq!(run.counts.failed, 0);
    let lasted = began.elapsed().as_secs();
    assert!((610..=612).contains(&lasted), "{lasted}");
    assert!(run.rows.iter().map(|row| row.row).eq(1..=run.counts.imported));
}

#[tokio::test(start_paused = true)]
async fn a_slower_limit_of_the_service_is_found_and_fails_no_row() {
    let service = Service::new(|call| if call.in_last_second > 50 { code(60007) } else { imported(Duration::from_millis(20)) });
    let run = World::new(accounts(6_000)).run(&service).await;
    assert!(matches!(run.end, ImportEnd::Finished));
    assert_eq!((run.counts.imported, run.counts.failed), (6_000, 0));
    assert!(run.rows.iter().all(|row| row.outcome.attempts == 1), "throttling costs no attempt");
    let refused = service.calls() - 6_000;
    assert!(refused < 1_000, "{refused}");
    assert!(service.mean_per_s() > 30.0, "{}", service.mean_per_s());
}

#[tokio::test(start_paused = true)]
async fn a_service_that_says_nothing_but_too_fast_is_not_waited_for_without_end() {
    let service = Service::new(|call| if call.number < 100 { imported(Duration::from_millis(5)) } else { code(60011) });
    let mut world = World::new(accounts(1_000));
    world.settings.dispatch.max_outage = Duration::from_secs(600);
    let began = Instant::now();
    let run = world.run(&service).await;
    assert!(matches!(&run.end, ImportEnd::Aborted(AbortCause::Outage { why, .. }) if why.contains("60011")), "{:?}", run.end);
    assert_eq!((run.counts.imported, run.counts.failed), (100, 0));
    let lasted = began.elapsed().as_secs();
    assert!((600..=612).contains(&lasted), "{lasted}");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_when_the_waiting_is_over_costs_no_turns_of_the_loop() {
    let service = Service::new(|call| match call.at.as_secs() {
        2.. => {
            Reply { latency: Duration::from_secs(9), end: CallOutcome::Lost { why: "no answer in time".to_owned() }, ..Reply::default() }
        }
        _ => imported(Duration::from_millis(5)),
    });
    let mut world = World::new(accounts(1_000));
    world.settings.dispatch.max_outage = Duration::from_secs(30);
    // Each turn of the loop looks at the wall clock; a loop that spins would never let the paused one go on.
    let (wall, looks) = (world.wall, std::cell::Cell::new(0));
    world.wall = Box::new(move || {
        looks.set(looks.get() + 1);
        assert!(looks.get() < 20_000, "the loop spins");
        wall()
    });
    let run = world.run(&service).await;
    assert!(matches!(run.end, ImportEnd::Aborted(AbortCause::Outage { .. })), "{:?}", run.end);
}

#[tokio::test(start_paused = true)]
async fn a_permission_revoked_in_mid_run_stops_it_at_once_and_charges_nobody() {
    let service = Service::new(|call| if call.number >= 1_000 { code(70403) } else { imported(Duration::from_millis(50)) });
    let run = World::new(accounts(5_000)).run(&service).await;
    assert!(
        matches!(run.end, ImportEnd::Aborted(AbortCause::Refused { reason: HaltReason::NotAdmin, code: Some(70403), .. })),
        "{:?}",
        run.end
    );
    assert_eq!((run.counts.imported, run.counts.failed), (1_000, 0));
    // In flight at 200/s and 50 ms are ten calls and a group of ten.
    assert!(service.calls() <= 1_000 + 20, "no more than was in flight: {}", service.calls());
}

#[tokio::test(start_paused = true)]
async fn a_signal_lets_what_is_in_flight_settle_and_a_stuck_call_is_left_behind() {
    let service = Service::new(|call| match call.number {
        500 => imported(Duration::from_secs(3_600)),
        _ => imported(Duration::from_millis(100)),
    });
    let mut world = World::new(accounts(5_000));
    world.signals =
        futures_util::stream::once(tokio::time::sleep(Duration::from_secs(5))).chain(futures_util::stream::pending()).boxed_local();
    let began = Instant::now();
    let run = world.run(&service).await;
    assert!(matches!(run.end, ImportEnd::Aborted(AbortCause::Signal)), "{:?}", run.end);
    let lasted = began.elapsed();
    assert!((Duration::from_secs(15)..Duration::from_millis(15_100)).contains(&lasted), "{lasted:?}");
    assert_eq!(run.rows.len(), 500, "rows behind the stuck one are not written");
    assert!(service.calls() <= 1_001, "nothing leaves after the signal: {}", service.calls());
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_leaves_at_once() {
    let service = Service::new(|_| imported(Duration::from_secs(9)));
    let mut world = World::new(accounts(5_000));
    let signal = |at| tokio::time::sleep(Duration::from_secs(at));
    world.signals = futures_util::stream::iter([2, 3]).then(signal).chain(futures_util::stream::pending()).boxed_local();
    let began = Instant::now();
    let run = world.run(&service).await;
    assert!(matches!(run.end, ImportEnd::Aborted(AbortCause::Signal)));
    assert!(began.elapsed() < Duration::from_millis(5_100), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn two_records_of_one_user_are_never_in_flight_together_and_the_last_one_wins() {
    let records = (1..=400).map(|row| (format!("user{}", row % 7), format!("nick {row}")));
    let service = Service::new(|call| imported(Duration::from_millis(call.number * 37 % 300)));
    let run = World::new(service::records(records)).run(&service).await;
    assert_eq!(run.counts.imported, 400);
    assert_eq!(service.overlaps(), 0);
    for user in 0..7 {
        let last = (1..=400).rev().find(|row| row % 7 == user).unwrap();
        assert_eq!(service.nick(&format!("user{user}")), Some(format!("nick {last}")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_settles_so_many_and_tells_whether_more_remain() {
    let service = Service::new(|_| imported(Duration::from_millis(5)));
    let mut world = World::new(accounts(50));
    world.settings.limit = Some(20);
    let run = world.run(&service).await;
    assert!(matches!(run.end, ImportEnd::LimitReached));
    assert_eq!((run.rows.len(), service.calls()), (20, 20));
    let mut world = World::new(accounts(20));
    world.settings.limit = Some(20);
    assert!(matches!(world.run(&service).await.end, ImportEnd::Finished));
}

#[tokio::test(start_paused = true)]
async fn a_poisoned_record_holds_up_nobody_and_fails_alone() {
    let service = Service::new(|call| if call.user_id == "user100" { code(70500) } else { imported(Duration::from_millis(20)) });
    let run = World::new(accounts(4_000)).run(&service).await;
    assert_eq!((run.counts.imported, run.counts.failed), (3_999, 1));
    let failed: Vec<_> = run.rows.iter().filter(|row| row.outcome.status == Status::Failed).collect();
    assert_eq!((failed[0].row, failed[0].outcome.error_code, failed[0].outcome.attempts), (100, Some(70500), 5));
    assert!(run.rows.iter().map(|row| row.row).eq(1..=4_000));
    assert!(service.mean_per_s() >= 198.0, "{}", service.mean_per_s());
}

#[tokio::test(start_paused = true)]
async fn a_tenth_of_the_records_failing_twice_costs_a_fifth_more_calls_and_no_row() {
    let service = Service::new(|call| {
        let is_unlucky = call.user_id.ends_with('7');
        if is_unlucky && call.nth_of_user <= 2 { code(70169) } else { imported(Duration::from_millis(20)) }
    });
    let run = World::new(accounts(4_000)).run(&service).await;
    assert_eq!((run.counts.imported, run.counts.failed), (4_000, 0));
    assert_eq!(service.calls(), 4_800);
    assert!(run.rows.iter().all(|row| row.outcome.attempts == if String::from_utf8_lossy(&row.user_id).ends_with('7') { 3 } else { 1 }));
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_was_suspended_does_not_catch_up() {
    let service = Service::new(|_| imported(Duration::from_millis(20)));
    let mut world = World::new(accounts(2_000));
    let suspend = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        tokio::time::advance(Duration::from_secs(4 * 3_600)).await;
        futures_util::future::pending::<()>().await;
    };
    world.signals = futures_util::stream::once(suspend).boxed_local();
    let run = world.run(&service).await;
    assert!(matches!(run.end, ImportEnd::Finished));
    assert_eq!(run.counts.failed, 0);
    assert!(service.most_in_1s() <= 200, "{}", service.most_in_1s());
}
