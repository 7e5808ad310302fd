//! Kept connections that are given up under a call: it is made once more, through the gate, and nobody is blamed.

use std::time::Duration;

use chatlift::domain::verdict::CallOutcome;
use chatlift::flow::dispatch::AbortCause;
use chatlift::flow::import::ImportEnd;
use chatlift::flow::import::OnBatchFailure;
use chatlift::io::api::ConnectionWish;
use tokio::time::Instant;

use super::service::{Reply, Service, World, accounts, code, fine, imported};

const LATENCY: Duration = Duration::from_millis(20);

fn lost() -> Reply {
    Reply { connect: Duration::ZERO, latency: LATENCY, end: CallOutcome::Lost { why: "connection reset".to_owned() } }
}

#[tokio::test(start_paused = true)]
async fn a_call_on_a_connection_that_was_closed_is_made_again_within_the_limit_and_charged_to_nobody() {
    for nth in [1, 2, 7] {
        let mut seen = 0;
        let service = Service::new(|_| imported(LATENCY)).closing_connection_of(move |_| {
            seen += 1;
            seen % nth == 0
        });
        let run = World::new(accounts(4_000)).run(&service).await;
        assert!(matches!(run.end, ImportEnd::Finished));
        assert_eq!((run.counts.imported, run.counts.failed), (4_000, 0));
        assert!(run.rows.iter().all(|row| row.outcome.attempts == 1), "{nth}: nobody is charged");
        assert_eq!(service.calls(), 4_000 + 4_000 / nth, "{nth}: once an attempt");
        assert_eq!(run.traffic.retries(), service.calls() - 4_000, "repeats that left are retries");
        assert!(service.most_in_1s() <= 200, "{}", service.most_in_1s());
        assert!(service.mean_per_s() >= 197.0, "a repeat waits for nothing but the gate: {}", service.mean_per_s());
    }
}

#[tokio::test(start_paused = true)]
async fn the_second_time_in_an_attempt_is_a_fault_like_any_other() {
    // Each user's first attempt meets a kept connection that was given up, and then a fault on a fresh one.
    let service = Service::new(|call| match call.connection {
        ConnectionWish::Fresh if call.nth_of_user <= 2 => lost(),
        ConnectionWish::Any | ConnectionWish::Fresh => imported(LATENCY),
    });
    let service = service.closing_connection_of(|call| call.nth_of_user == 1);
    let run = World::new(accounts(1)).run(&service).await;
    assert_eq!((run.counts.imported, run.rows[0].outcome.attempts, service.calls()), (1, 2, 3));
    assert_eq!(run.traffic.retries(), 2);
}

#[tokio::test(start_paused = true)]
async fn connections_that_are_closed_are_no_outage_and_fresh_ones_that_break_are_one() {
    let service = Service::new(|call| if call.at.as_secs() < 3 { imported(LATENCY) } else { lost() });
    let service = service.closing_connection_of(|call| call.at.as_secs() >= 2);
    let mut world = World::new(accounts(4_000));
    world.settings.dispatch.max_outage = Duration::from_secs(60);
    let began = Instant::now();
    let run = world.run(&service).await;
    assert!(matches!(&run.end, ImportEnd::Aborted(AbortCause::Outage { why, .. }) if why.contains("reset")), "{:?}", run.end);
    assert_eq!(run.counts.failed, 0);
    // Two seconds at the limit, one in which each call is made twice.
    assert!((480..=520).contains(&run.counts.imported), "{}", run.counts.imported);
    assert!((60..=75).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

/// Each call makes its connection, as with a server that closes after every answer. A call that is on its way there counts against the limit
/// from its grant, since nobody knows when it will be written; so what connecting takes, and its jitter, costs some of the pace.
#[tokio::test(start_paused = true)]
async fn a_connection_for_every_call_costs_little_of_the_pace_where_connecting_is_quick() {
    for (connect_ms, least) in [(1, 196.0), (5, 195.0), (20, 191.0), (80, 130.0)] {
        let connect = Duration::from_millis(connect_ms);
        let service =
            Service::new(move |call| Reply { connect: connect + connect * u32::from(call.number % 7 == 0) / 5, ..imported(LATENCY) });
        let run = World::new(accounts(4_000)).run(&service).await;
        assert!(matches!(run.end, ImportEnd::Finished) && run.counts.imported == 4_000);
        assert!(service.most_in_1s() <= 200, "{connect_ms} ms: {}", service.most_in_1s());
        assert!(service.mean_per_s() >= least, "{connect_ms} ms: {}", service.mean_per_s());
    }
}

#[tokio::test(start_paused = true)]
async fn batches_and_reading_back_are_made_again_in_the_same_way() {
    let service = Service::new(|call| fine(call, LATENCY)).closing_connection_of(|call| call.number % 3 != 2);
    let run = World::new(accounts(30_000)).in_batches(OnBatchFailure::Stop).run(&service).await;
    assert!(matches!(run.end, ImportEnd::Finished), "{:?}", run.end);
    assert_eq!((run.counts.imported, run.counts.failed), (30_000, 0));
    assert!(run.rows.iter().all(|row| row.outcome.attempts == 1));
    assert!(service.calls() > 400, "{}", service.calls());
}

#[tokio::test(start_paused = true)]
async fn a_repeat_is_one_of_a_call_that_left() {
    // Nothing is reached for a minute, then each user's first call is a passing fault.
    let service = Service::new(|call| match call.at.as_secs() {
        ..60 => Reply { end: CallOutcome::Unreached { why: "refused".to_owned() }, ..imported(LATENCY) },
        // The first call that gets through is the test that shows that the service is back.
        _ if call.number <= 10 && call.number > 0 => code(70169),
        _ => imported(LATENCY),
    });
    let run = World::new(accounts(10)).run(&service).await;
    assert_eq!(run.counts.imported, 10);
    assert_eq!((service.calls(), run.traffic.retries()), (21, 10));
}
