//! Tests that a crash at any moment breaks no promise of the journal.
//!
//! Each scenario is a command after an earlier run. Its cases interrupt the command at each of its operations by a kill, a power loss or a
//! full disk, then some more times during recovery, until the same command has ended. `CHATLIFT_CASES` sets the least number of cases,
//! `CHATLIFT_SEED=scenario:case` repeats the case that a failure names.

mod case;
mod command;
mod copies;
mod disk;
mod flaws;
mod inode;
mod input;
mod kills;
mod machine;
mod names;
mod oracle;
mod real_files;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use case::{SEED_VARIABLE, Scenario};
use chatlift::io::journal::paths::RunPaths;
use machine::Machine;
use oracle::Broken;

/// The default number of cases. Chosen: some seconds.
const CASES: u64 = 20_000;

fn sound(machine: &Machine, _: &RunPaths) -> Machine {
    machine.clone()
}

#[test]
fn no_crash_breaks_a_promise() {
    if let Ok(seed) = std::env::var(SEED_VARIABLE) {
        return run_one_case(&seed);
    }
    let wanted = std::env::var("CHATLIFT_CASES").map_or(CASES, |count| count.parse().expect("CHATLIFT_CASES is a number"));
    let lived_through = run_cases(wanted);
    println!("{lived_through} cases lived through");
    assert!(lived_through >= wanted);
}

fn run_one_case(seed: &str) {
    let number = |text: &str| text.parse().expect("CHATLIFT_SEED is scenario:case");
    let (scenario, case) = seed.split_once(':').expect("CHATLIFT_SEED is scenario:case");
    let lived = Scenario::new(number(scenario), &sound).and_then(|found| found.check(number(case), &sound));
    if let Err(Broken(why)) = lived {
        panic!("CHATLIFT_SEED={seed}: {why}");
    }
}

/// Runs scenario after scenario on all cores.
fn run_cases(wanted: u64) -> u64 {
    let (next_scenario, lived_through, failures) = (AtomicU64::new(0), AtomicU64::new(0), Mutex::new(Vec::new()));
    let work = || {
        while lived_through.load(Ordering::Relaxed) < wanted && failures.lock().expect("nobody panics with it").is_empty() {
            let seed = next_scenario.fetch_add(1, Ordering::Relaxed);
            match all_cases(seed) {
                Ok(cases) => _ = lived_through.fetch_add(cases, Ordering::Relaxed),
                Err(failure) => failures.lock().expect("nobody panics with it").push(failure),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().expect("nobody panics with it");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    lived_through.into_inner()
}

fn all_cases(seed: u64) -> Result<u64, String> {
    let scenario = Scenario::new(seed, &sound).map_err(|Broken(why)| format!("scenario {seed}: {why}"))?;
    for case in 0..scenario.cases() {
        scenario.check(case, &sound).map_err(|Broken(why)| format!("CHATLIFT_SEED={seed}:{case}: {why}"))?;
    }
    Ok(scenario.cases())
}
