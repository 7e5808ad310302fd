//! A service that lets less than the limit through: all processes together find how much, and use it.

use std::time::Duration;

use chatlift::sandbox::limiter::{Counting, Limiter};
use redis::Connection;

use super::world::{ServiceAtLimit, Trouble, against, against_others};
use crate::support::redis_server::RedisServer;

/// The limit that the processes share.
const LIMIT: u32 = 200;
/// By then a limit is found. Source: the contract of the pace.
const FOUND_S: u64 = 20;
/// How long a case lasts. Chosen: several probes.
const LASTS_S: u64 = 60;

/// The least part of what gets through that is used. Source: the contract of the pace.
const LEAST_USED: f64 = 0.92;

/// What became of a case between two seconds of it.
struct Outcome {
    /// Requests a second of each process that were let through.
    through_per_s: Vec<f64>,
    refused_per_s: f64,
}

impl Outcome {
    fn of(service: &ServiceAtLimit, from_s: u64, to_s: u64) -> Self {
        let per_s = |times: &Vec<u64>| {
            let count = times.iter().filter(|at| (from_s * 1_000_000..to_s * 1_000_000).contains(*at)).count();
            count as f64 / (to_s - from_s) as f64
        };
        Self { through_per_s: service.through_us.iter().map(per_s).collect(), refused_per_s: per_s(&service.refused_us) }
    }

    fn sum(&self) -> f64 {
        self.through_per_s.iter().sum()
    }
}

fn sliding(per_s: u32) -> Limiter {
    Limiter::new(Counting::Sliding, per_s)
}

fn run(store: &mut Connection, limiter: Limiter, line_us: u64, processes: &[(u32, u64)]) -> ServiceAtLimit {
    against(store, Trouble::none(LIMIT, processes.len(), line_us), limiter, processes, LASTS_S)
}

#[test]
fn what_gets_through_is_used_by_several_as_by_one() {
    let Some(server) = RedisServer::start("a pace that is found together") else { return };
    let mut store = server.connection();
    let mut wrong = Vec::new();
    let sliding = Counting::Sliding;
    let leaky = Counting::Leaky { burst: 5 };
    for (processes, line_us, cases) in [
        (1, 2_000, vec![(sliding, 100)]),
        (
            2,
            2_000,
            vec![(sliding, 150), (sliding, 100), (sliding, 50), (sliding, 10), (sliding, 3), (Counting::Calendar, 100), (leaky, 100)],
        ),
        (2, 50_000, vec![(sliding, 100)]),
        (5, 2_000, vec![(sliding, 100), (sliding, 10), (sliding, 3)]),
    ] {
        for (counting, through) in cases {
            let service = run(&mut store, Limiter::new(counting, through), line_us, &vec![(LIMIT, 0); processes]);
            let outcome = Outcome::of(&service, FOUND_S, LASTS_S);
            let (used, refused) = (outcome.sum() / f64::from(through), outcome.refused_per_s);
            let part = f64::from(through) / processes as f64;
            let least_part = outcome.through_per_s.iter().fold(f64::INFINITY, |one, other| one.min(*other)) / part;
            let words = format!(
                "{processes} at {line_us} µs, {counting:?} {through}/s: {:.1} % used, {:.2} % refused, {:.0} % of its part at least",
                100.0 * used,
                100.0 * refused / (refused + outcome.sum()),
                100.0 * least_part
            );
            eprintln!("{words}");
            let most_refused = (0.01 * (refused + outcome.sum())).max(0.1);
            if used < LEAST_USED || refused > most_refused || least_part < 0.5 {
                wrong.push(words);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_process_of_a_small_rate_keeps_it_below_the_pace_that_was_found() {
    let Some(server) = RedisServer::start("a small process beside one that is refused") else { return };
    let service = run(&mut server.connection(), sliding(100), 2_000, &[(20, 0), (LIMIT, 0)]);
    let outcome = Outcome::of(&service, FOUND_S, LASTS_S);
    eprintln!("{:?} a second of 20 and 200, {:.2} refused", outcome.through_per_s, outcome.refused_per_s);
    assert!(outcome.through_per_s[0] >= 0.95 * 20.0, "{:?}", outcome.through_per_s);
    assert!(outcome.sum() >= 92.0, "{:?}", outcome.through_per_s);
}

#[test]
fn who_comes_later_begins_at_the_pace_that_was_found() {
    let Some(server) = RedisServer::start("a process that comes to one that is refused") else { return };
    let service = run(&mut server.connection(), sliding(60), 2_000, &[(LIMIT, 0), (LIMIT, 30)]);
    let (before, after) = (Outcome::of(&service, 22, 30), Outcome::of(&service, 30, 38));
    let refused = [&before, &after].map(|outcome| outcome.refused_per_s * 8.0);
    eprintln!("refused in eight seconds before and after: {refused:?}; {:?} a second", after.through_per_s);
    assert!(refused[1] <= refused[0] + 4.0, "{refused:?}");
    assert!(after.through_per_s[1] >= 0.25 * 60.0 && after.sum() >= 0.9 * 60.0, "{:?}", after.through_per_s);
}

#[test]
fn once_others_have_gone_the_limit_is_used_again() {
    let Some(server) = RedisServer::start("a pace that rises again") else { return };
    let mut store = server.connection();
    let limiter = sliding(LIMIT);
    // Another client of the service takes half of it, for half a minute.
    let service = against_others(&mut store, Trouble::none(LIMIT, 2, 2_000), limiter, (100, Duration::from_secs(30)), 90);
    let outcome = Outcome::of(&service, 60, 90);
    eprintln!("{:?} a second, {:.2} refused", outcome.through_per_s, outcome.refused_per_s);
    assert!(outcome.sum() >= 0.97 * f64::from(LIMIT), "{:?}", outcome.through_per_s);
}
