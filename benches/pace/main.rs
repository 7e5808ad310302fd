//! Measures how the pace follows limiters: the share of the remaining limit that it uses, the share of its requests that is refused, and
//! the time that it takes to find the limit. `cargo bench --bench pace` prints a table for each kind of others. It runs in virtual time
//! from seeds and takes a few seconds.
//!
//! The gate is the one of real runs, the limiters are the sandbox's. `cargo bench --bench pace -- LIMITER` prints the rows of one limiter.

#![expect(clippy::unwrap_used, reason = "a bench that cannot go on ends with a place")]

mod line;

use chatlift::sandbox::limiter::Counting;

use line::{Counts, Latency, Others, SLOTS_PER_S, Scenario, simulate};

const LIMITERS: [&str; 7] = ["sliding", "calendar", "leaky:0", "leaky:1", "leaky:5", "leaky:50", "token:200"];
const LIMITS_PER_S: [u32; 6] = [200, 150, 100, 50, 10, 2];
const LATENCIES: [(&str, Latency); 5] = [
    ("0 ms", Latency { ms: 0.5, jitter_ms: 0.0 }),
    ("20 ms", Latency { ms: 20.0, jitter_ms: 0.0 }),
    ("200 ms", Latency { ms: 200.0, jitter_ms: 0.0 }),
    ("20 + 0 to 2 ms", Latency { ms: 20.0, jitter_ms: 2.0 }),
    ("80 + 0 to 40 ms", Latency { ms: 80.0, jitter_ms: 40.0 }),
];
const SURROUNDINGS: [(&str, Others); 5] = [
    ("alone", Others::Nobody),
    ("others use half of it", Others::Share(0.5)),
    ("others use 1/2, 0, 3/4, 1/4 of it, a minute each", Others::Steps),
    ("others use 0 to 3/4 of it, rising for a minute, again and again", Others::SawTooth),
    ("two of them", Others::SecondClient),
];
const RATE_PER_S: u32 = 200;
const LASTS_S: usize = 240;
/// The time in which the pace must find the limit after a change. Source: the contract of the pace.
const FINDING_S: f64 = 20.0;
/// The share of the remaining limit at which it counts as found.
const FOUND: f64 = 0.92;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if !words.iter().any(|word| word == "--bench") {
        eprintln!("this measures; run it with cargo bench --bench pace");
        return;
    }
    let named: Vec<&str> = words.iter().map(String::as_str).filter(|word| !word.starts_with('-')).collect();
    println!("In each cell: share of what is left that got through, share of the calls that was refused, seconds until it was found.");
    for (name, others) in SURROUNDINGS {
        println!("\n{name}\n\n| limiter | limit | {} |", LATENCIES.map(|(name, _)| name).join(" | "));
        println!("|---|---|{}", "---|".repeat(LATENCIES.len()));
        for limiter in LIMITERS.into_iter().filter(|limiter| named.is_empty() || named.contains(limiter)) {
            for limit_per_s in LIMITS_PER_S {
                let cells = LATENCIES.map(|(_, latency)| cell(limiter.parse().unwrap(), limit_per_s, others, latency));
                println!("| {limiter} | {limit_per_s} | {} |", cells.join(" | "));
            }
        }
    }
}

fn cell(counting: Counting, limit_per_s: u32, others: Others, latency: Latency) -> String {
    let seed = u64::from(limit_per_s);
    let scenario = Scenario { counting, limit_per_s, rate_per_s: RATE_PER_S, others, latency, lasts_s: LASTS_S, seed };
    let counts = simulate(scenario);
    let Verdict { share, refused, found_s } = judge(scenario, &counts);
    let found = found_s.map_or("never".to_owned(), |found_s| format!("{found_s:.0} s"));
    let split = if others == Others::SecondClient { format!(" ({})", split(&counts)) } else { String::new() };
    format!("{:.0} %, {:.1} %, {found}{split}", 100.0 * share, 100.0 * refused)
}

struct Verdict {
    share: f64,
    refused: f64,
    /// The longest time to find the limit after a change; `None` if it was not found before the next change.
    found_s: Option<f64>,
}

/// Shares are measured after the time that the pace has to find the limit.
fn judge(scenario: Scenario, counts: &Counts) -> Verdict {
    let at_s = |slot: usize| slot as f64 / SLOTS_PER_S as f64;
    let changes_s = scenario.others.changes_s();
    let is_steady = |slot: &usize| {
        let last_s = changes_s.iter().copied().filter(|change_s| *change_s <= at_s(*slot)).fold(0.0, f64::max);
        at_s(*slot) >= last_s + FINDING_S
    };
    let accepted = |slot: usize| f64::from(counts.accepted[0][slot] + counts.accepted[1][slot]);
    let left = |slot: usize| f64::from(scenario.limit_per_s) * scenario.others.leave(at_s(slot)) / SLOTS_PER_S as f64;
    let slots = || 0..scenario.lasts_s * SLOTS_PER_S;
    let through: f64 = slots().filter(is_steady).map(accepted).sum();
    let refused: f64 = slots().filter(is_steady).map(|slot| f64::from(counts.refused[slot])).sum();
    let there: f64 = slots().filter(is_steady).map(left).sum();
    // A rate is measured over some time, longer if there are few requests.
    let look = if scenario.limit_per_s <= 10 { 10 * SLOTS_PER_S } else { 3 * SLOTS_PER_S };
    let ends_s = changes_s.iter().skip(1).copied().chain([scenario.lasts_s as f64]);
    let found = changes_s.iter().zip(ends_s).map(|(from_s, to_s)| {
        let is_within = |slot: &usize| at_s(*slot) >= *from_s && at_s(slot + look) < to_s;
        let is_found = |slot: &usize| {
            let sum = |of: &dyn Fn(usize) -> f64| (*slot..slot + look).map(of).sum::<f64>();
            sum(&accepted) >= FOUND * sum(&left)
        };
        slots().filter(is_within).find(is_found).map(|slot| at_s(slot) - from_s)
    });
    let found_s = found.collect::<Option<Vec<f64>>>().map(|found| found.into_iter().fold(0.0, f64::max));
    Verdict { share: through / there, refused: refused / (through + refused).max(1.0), found_s }
}

/// Requests per second of the two clients, after both had their time to find the limit.
fn split(counts: &Counts) -> String {
    let from = 50 * SLOTS_PER_S;
    let per_s = |client: usize| {
        let slots = &counts.accepted[client][from..];
        slots.iter().map(|calls| f64::from(*calls)).sum::<f64>() / (slots.len() / SLOTS_PER_S) as f64
    };
    format!("{:.0}, {:.0}", per_s(0), per_s(1))
}
