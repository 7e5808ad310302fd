//! Services that count calls in their own ways: what is left of the limit is found, used, and left alone enough.

use std::time::Duration;

use chatlift::domain::call_stats::RunPhase;
use chatlift::domain::command::Command;
use chatlift::sandbox::limiter::{Limiter, LimiterDecision, Others};

use super::service::{Service, World, accounts, code, imported};

/// The time after which what is left must be found. Source: the contract of the pace.
const FINDING: Duration = Duration::from_secs(20);

/// What a run came to once it had had the time to find what is left.
struct Seen {
    through_per_s: f64,
    refused_share: f64,
    refused: u64,
    ceiling_per_s: Option<f64>,
    phases: Vec<RunPhase>,
}

/// Imports for three minutes through a limiter that others use too.
async fn run(limiter: &str, limit_per_s: u32, others_per_s: u32, latency_ms: u64) -> Seen {
    let lasts = Duration::from_secs(180);
    let (mut limiter, mut others) = (Limiter::new(limiter.parse().unwrap(), limit_per_s), Others::new(others_per_s));
    let counts = std::rc::Rc::new(std::cell::Cell::new((0_u64, 0_u64)));
    let counted = std::rc::Rc::clone(&counts);
    let service = Service::new(move |call| {
        others.call(&mut limiter, call.at);
        let is_admitted = limiter.admit(call.at) == LimiterDecision::Admitted;
        if call.at >= FINDING {
            let (through, refused) = counted.get();
            counted.set(if is_admitted { (through + 1, refused) } else { (through, refused + 1) });
        }
        if is_admitted { imported(Duration::from_millis(latency_ms)) } else { code(60007) }
    })
    .forgetful();
    let phases = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let mut world = World::new(accounts(1_000_000));
    world.signals = Box::pin(futures_util::stream::unfold(0, move |number| async move {
        tokio::time::sleep(if number == 0 { lasts } else { Duration::from_secs(3_600) }).await;
        Some(((), number + 1))
    }));
    let told = std::rc::Rc::clone(&phases);
    world.tell = Box::new(move |progress| told.borrow_mut().push(progress.requests.phase.clone()));
    let run = world.run(&service).await;
    assert_eq!(run.counts.failed, 0, "throttling fails no row");
    service.assert_even(|_| 200);
    let (through, refused) = counts.get();
    Seen {
        through_per_s: through as f64 / lasts.abs_diff(FINDING).as_secs_f64(),
        refused_share: refused as f64 / (through + refused) as f64,
        refused,
        ceiling_per_s: run.traffic.apis[Command::AccountImport].ceiling_per_s,
        phases: phases.take(),
    }
}

#[tokio::test(start_paused = true)]
async fn each_limiter_is_found_and_used() {
    // Limiter, its limit, what others make of it, latency; the least that gets through of what is left, most that is refused.
    for (limiter, limit_per_s, others_per_s, latency_ms, least, most) in [
        ("sliding", 200, 0, 20, 0.98, 0.0),
        ("sliding", 100, 0, 20, 0.92, 0.01),
        ("sliding", 200, 100, 20, 0.92, 0.01),
        ("sliding", 150, 0, 200, 0.92, 0.01),
        ("sliding", 10, 0, 20, 0.92, 0.01),
        ("calendar", 60, 0, 20, 0.92, 0.01),
        ("leaky:5", 200, 0, 20, 0.95, 0.01),
        ("leaky:5", 100, 0, 200, 0.95, 0.01),
        ("leaky:1", 100, 0, 20, 0.85, 0.01),
        ("leaky:0", 100, 0, 20, 0.80, 0.10),
        ("leaky:5", 10, 0, 20, 0.95, 0.01),
        ("leaky:5", 10, 0, 200, 0.95, 0.01),
        ("leaky:5", 2, 0, 20, 0.95, 0.05),
        ("leaky:50", 150, 0, 200, 0.95, 0.01),
        ("leaky:50", 50, 0, 20, 0.95, 0.01),
        ("leaky:50", 10, 0, 20, 0.95, 0.01),
        ("leaky:50", 50, 25, 200, 0.95, 0.01),
        ("token:200", 150, 0, 20, 0.95, 0.01),
        ("token:200", 100, 0, 200, 0.95, 0.01),
        ("token:200", 10, 0, 200, 0.95, 0.01),
    ] {
        let seen = run(limiter, limit_per_s, others_per_s, latency_ms).await;
        let left = f64::from(limit_per_s - others_per_s);
        let case = format!("{limiter}, {limit_per_s}/s, others {others_per_s}/s, {latency_ms} ms");
        assert!(seen.through_per_s >= least * left, "{case}: {:.1}/s", seen.through_per_s);
        assert!(seen.refused_share <= most, "{case}: {} calls, {:.4} of all", seen.refused, seen.refused_share);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_found_is_told() {
    let seen = run("sliding", 100, 0, 20).await;
    let ceiling_per_s = seen.ceiling_per_s.unwrap();
    assert!((95.0..=105.0).contains(&ceiling_per_s), "{ceiling_per_s}");
    let told = seen.phases.iter().rev().find_map(|phase| match phase {
        RunPhase::Throttled { per_s } => Some(*per_s),
        RunPhase::Running | RunPhase::Waiting { .. } | RunPhase::WaitingForQuota { .. } | RunPhase::Draining => None,
    });
    assert!((95.0..=105.0).contains(&told.unwrap()), "{told:?}");
    let seen = run("sliding", 200, 0, 20).await;
    assert_eq!((seen.ceiling_per_s, seen.refused), (None, 0));
}
