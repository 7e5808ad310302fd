//! The books of several processes with the real script, whatever happens to them. No second has more requests than the limit.

use std::num::NonZeroU32;
use std::time::Duration;

use chatlift::io::quota::{IfLost, LeaseBook, Renewed, SCRIPT};
use fastrand::Rng;
use tokio::time::Instant;

use super::world::{Trouble, run, sends, too_many};
use crate::support::redis_server::RedisServer;

#[test]
fn no_second_has_too_many_requests_whatever_happens() {
    let Some(server) = RedisServer::start("the books of the quota with the real script") else { return };
    let mut store = server.connection();
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds: Vec<u64> = match number("CHATLIFT_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("CHATLIFT_CASES").unwrap_or(20)).map(|_| fastrand::u64(..)).collect(),
    };
    for seed in seeds {
        let mut random = Rng::with_seed(seed);
        let trouble = Trouble {
            limit: random.u32(1..12),
            processes: random.usize(1..6),
            line_us: random.u64(100..120_000),
            lost_of: random.choice([0, 3, 20]).unwrap(),
            stops: random.bool(),
            flushes: random.bool(),
            connects: random.bool(),
        };
        let sent_us = sends(&mut store, trouble, seed, 40);
        assert_eq!(too_many(&sent_us, trouble.limit), None, "CHATLIFT_SEED={seed}, {trouble:?}");
        assert!(!sent_us.is_empty(), "CHATLIFT_SEED={seed}, {trouble:?}");
    }
}

#[test]
fn the_limit_is_used_by_one_and_by_several_near_and_far() {
    let Some(server) = RedisServer::start("the books of the quota with the real script") else { return };
    let mut store = server.connection();
    for (processes, line_us, least) in [(1, 2_000, 0.98), (3, 2_000, 0.98), (1, 50_000, 0.98), (3, 50_000, 0.95), (10, 2_000, 0.97)] {
        let trouble = Trouble::none(200, processes, line_us);
        let sent_us = sends(&mut store, trouble, 7, 20);
        let used = sent_us.iter().filter(|at| **at >= 4_000_000).count() as f64 / (16.0 * 200.0);
        eprintln!("{processes} processes, up to {line_us} µs one way: {used:.4} of the limit");
        assert_eq!(too_many(&sent_us, 200), None);
        assert!(used >= least, "{processes} processes at {line_us} µs: {used}");
    }
}

/// The wait of `--max-outage` must not begin anew with each lucky answer of a store that is half dead.
#[test]
fn one_answer_alone_is_no_end_of_a_wait_for_the_store_and_two_in_a_row_are() {
    let (zero, second) = (Instant::now(), Duration::from_secs(1));
    let mut book = LeaseBook::new(NonZeroU32::new(200).unwrap(), 200, IfLost::Wait);
    let mut ask = |at: Instant, answers: bool| {
        // A request is waiting all the time.
        let _ = book.room(at);
        let renewal = book.renewal(at);
        if answers {
            let waits = vec![Duration::ZERO; usize::from(renewal.kept == 0) * 10];
            let answer = Renewed {
                entry: 1,
                kept: renewal.kept,
                share: 200,
                lease: Duration::from_millis(500),
                processes: 1,
                slot_time: Duration::from_millis(1_008),
                pace: None,
                waits,
            };
            book.renewed(renewal.number, &answer, at);
        } else {
            book.lost(renewal.number);
        }
        let _ = book.room(at);
        book.starved_since()
    };
    assert_eq!(ask(zero, false), Some(zero));
    assert_eq!(ask(zero + second, true), Some(zero), "one answer may be luck");
    assert_eq!(ask(zero + 2 * second, false), Some(zero));
    assert_eq!(ask(zero + 3 * second, true), Some(zero));
    assert_eq!(ask(zero + 3 * second + Duration::from_millis(150), true), None, "two in a row are the end of the wait");
}

#[test]
fn a_script_with_a_fault_would_be_found() {
    let Some(server) = RedisServer::start("the books of the quota with the real script") else { return };
    let mut store = server.connection();
    let calm = Trouble { limit: 5, processes: 4, line_us: 60_000, lost_of: 6, stops: true, flushes: false, connects: true };
    let faults = [
        ("free[#free + 1] = run.ends_at + SECOND + MARGIN", "free[#free + 1] = run.ends_at", calm),
        ("silent and SECOND + MARGIN or", "silent and 0 or", calm),
        ("begin(now + CLOSED)", "begin(now)", Trouble { flushes: true, ..calm }),
        ("local known = entry == own.since", "local known = true", calm),
    ];
    for (right, wrong, trouble) in faults {
        let script = SCRIPT.replace(right, wrong);
        assert_ne!(script, SCRIPT, "{right}");
        let is_found = |seed| too_many(&run(&mut store, &script, trouble, seed, 40).sent_us, trouble.limit).is_some();
        assert!((0..40).any(is_found), "{wrong}");
    }
}

#[test]
fn each_process_with_work_gets_at_least_half_of_its_part() {
    let Some(server) = RedisServer::start("the books of the quota with the real script") else { return };
    let mut store = server.connection();
    for (limit, processes, seconds) in [(200, 3, 14), (200, 10, 14), (7, 3, 34), (2, 3, 64), (1, 2, 64)] {
        let trouble = Trouble::none(limit, processes, 5_000);
        let world = run(&mut store, SCRIPT, trouble, 7, seconds);
        let part = (f64::from(limit) * (seconds - 4) as f64) / processes as f64;
        let sent_by = world.sent_by.clone();
        assert_eq!(too_many(&world.sent_us, limit), None);
        assert!(sent_by.iter().all(|sent| *sent as f64 >= part / 2.0), "{limit}/s, {processes} processes: {sent_by:?} of {part} each");
    }
}
