//! Tests of the gate on the paused clock.

use std::time::Duration;

use super::*;

fn per_second(n: u32) -> Rate {
    Rate::PerSecond(NonZeroU32::new(n).unwrap())
}

/// Sends this many requests, each written `delay(n)` after its grant, and returns the times of the writes in order.
async fn sent_with_delays(rate: Rate, calls: usize, delay: impl Fn(usize) -> Duration) -> Vec<Instant> {
    let mut gate = Gate::new(rate, &GateSettings::default(), Instant::now());
    let mut writes = Vec::new();
    let mut in_limbo: Vec<(Instant, Permit)> = Vec::new();
    let mut granted = 0;
    while writes.len() < calls {
        let now = Instant::now();
        in_limbo.retain_mut(|(at, permit)| {
            if *at <= now {
                permit.mark_sent();
                writes.push(now);
            }
            *at > now
        });
        let wake = match gate.try_acquire(now) {
            GateAnswer::Now(permit) if granted < calls => {
                granted += 1;
                in_limbo.push((now + delay(granted), permit));
                continue;
            }
            GateAnswer::Now(_) | GateAnswer::WhenSent | GateAnswer::WhenGranted => now + Duration::from_secs(3600),
            GateAnswer::At(at) => at,
        };
        let next_write = in_limbo.iter().map(|(at, _)| *at).min().unwrap_or(wake);
        tokio::time::sleep_until(wake.min(next_write)).await;
    }
    writes
}

/// The most requests that the contract allows in a hundredth, a tenth, and a whole second.
fn bounds(rate: u32) -> [(Duration, usize); 3] {
    let n = rate as usize;
    [(Duration::from_millis(10), 1 + (15 * n).div_ceil(1_000)), (Duration::from_millis(100), 2 + n.div_ceil(10)), (SECOND, n)]
}

fn most_in_any(window: Duration, sends: &[Instant]) -> usize {
    let mut first = 0;
    let within = sends.iter().enumerate().map(|(last, at)| {
        while *at - sends[first] >= window {
            first += 1;
        }
        last + 1 - first
    });
    within.max().unwrap_or(0)
}

#[track_caller]
fn assert_even(rate: u32, sends: &[Instant], why: impl std::fmt::Debug) {
    for (window, most) in bounds(rate) {
        let seen = most_in_any(window, sends);
        assert!(seen <= most, "{rate}/s: {seen} requests in {window:?}, at most {most} are allowed; {why:?}");
    }
}

fn mean_per_s(sends: &[Instant]) -> f64 {
    (sends.len() - 1) as f64 / (sends[sends.len() - 1] - sends[0]).as_secs_f64()
}

#[tokio::test(start_paused = true)]
async fn requests_are_even_from_the_first_one_on_and_use_nearly_all_of_the_rate() {
    for rate in [1, 2, 5, 10, 50, 67, 100, 150, 200, 500, 1_000, 2_000, 10_000] {
        let calls = rate as usize * 10 + 1;
        let sends = sent_with_delays(per_second(rate), calls, |_| Duration::ZERO).await;
        assert_even(rate, &sends, "at once");
        let mean = mean_per_s(&sends);
        // Above the limits that services have, a timer of a millisecond costs more of the rate.
        let least = if rate > 2_000 { 0.99 } else { 0.995 };
        assert!(mean >= least * f64::from(rate), "{rate}: {mean}");
    }
}

#[tokio::test(start_paused = true)]
async fn three_requests_leave_together_at_the_full_rate() {
    for (rate, calls_a_time) in [(200, 2.9), (190, 2.75), (133, 1.95), (100, 1.0)] {
        let sends = sent_with_delays(per_second(rate), 3_000, |_| Duration::ZERO).await;
        assert_even(rate, &sends, "at once");
        let times = sends.chunk_by(|one, other| one == other).count();
        assert!(3_000.0 / times as f64 >= calls_a_time, "{rate}/s: {times} groups of 3,000 requests");
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_timer_costs_almost_nothing() {
    for (rate, late_ms, least) in [(200, 3, 0.995), (200, 8, 0.985), (100, 8, 0.985), (50, 8, 0.985)] {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut gate = Gate::new(per_second(rate), &GateSettings::default(), Instant::now());
        let mut sends = Vec::new();
        while sends.len() < 20 * rate as usize {
            match gate.try_acquire(Instant::now()) {
                GateAnswer::Now(mut permit) => {
                    permit.mark_sent();
                    sends.push(Instant::now());
                }
                GateAnswer::At(at) => tokio::time::sleep_until(at + Duration::from_micros(random.u64(0..late_ms * 1_000))).await,
                GateAnswer::WhenSent | GateAnswer::WhenGranted => gate.note_sends(Instant::now()),
            }
        }
        assert_even(rate, &sends, seed);
        assert!(mean_per_s(&sends) >= least * f64::from(rate), "{rate}, {late_ms} ms, seed {seed}: {}", mean_per_s(&sends));
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_for_their_connections_are_written_evenly_too() {
    // The first connections become ready together, as behind a host that is waking up.
    let start = Instant::now();
    for stall_ms in [20, 100, 300, 900, 3_000] {
        let began = Instant::now() - start;
        let stall = Duration::from_millis(stall_ms);
        let mut gate = Gate::new(per_second(200), &GateSettings::default(), Instant::now());
        let (mut sends, mut waiting): (Vec<Instant>, Vec<Permit>) = Default::default();
        while sends.len() < 1_000 {
            let now = Instant::now();
            let is_stalled = now - start < began + stall;
            for mut permit in waiting.extract_if(.., |_| !is_stalled) {
                permit.mark_sent();
                sends.push(now);
            }
            let at = match gate.try_acquire(now) {
                GateAnswer::Now(permit) => {
                    waiting.push(permit);
                    continue;
                }
                GateAnswer::At(at) => at,
                GateAnswer::WhenSent | GateAnswer::WhenGranted => now + Duration::from_millis(1),
            };
            tokio::time::sleep_until(at.min(now + Duration::from_millis(1))).await;
        }
        assert_even(200, &sends, stall);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_closes_every_connection_gets_the_rate_less_what_is_connecting() {
    // A request that waits for its connection may be written at any moment, so it already takes a place in the second.
    for (connect_ms, least) in [(1, 199.0), (5, 198.0), (20, 194.0), (240, 155.0)] {
        let sends = sent_with_delays(per_second(200), 6_000, |_| Duration::from_millis(connect_ms)).await;
        assert_even(200, &sends, connect_ms);
        let mean = mean_per_s(&sends[1_000..]);
        assert!(mean >= least, "{connect_ms} ms: {mean}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_the_first_refusal_requests_leave_one_at_a_time() {
    let mut gate = Gate::new(per_second(200), &GateSettings::default(), Instant::now());
    gate.on_throttled(Instant::now(), Instant::now());
    let mut sends = Vec::new();
    while sends.len() < 2_000 {
        match gate.try_acquire(Instant::now()) {
            GateAnswer::Now(mut permit) => {
                permit.mark_sent();
                sends.push(Instant::now());
            }
            GateAnswer::At(at) => tokio::time::sleep_until(at).await,
            GateAnswer::WhenSent | GateAnswer::WhenGranted => unreachable!("all requests are written"),
        }
    }
    assert_eq!(most_in_any(Duration::from_millis(4), &sends), 1);
}

#[tokio::test(start_paused = true)]
async fn slow_connections_at_the_start_do_not_bunch_the_requests_up() {
    let sends = sent_with_delays(per_second(200), 2_000, |n| if n <= 60 { Duration::from_millis(300) } else { Duration::ZERO }).await;
    let most = bounds(200).map(|(window, _)| most_in_any(window, &sends));
    assert!(most[2] <= 200 && most[1] <= 26 && most[0] <= 7, "the first ones with a connection join those that waited: {most:?}");
}

#[tokio::test(start_paused = true)]
async fn random_delays_between_grant_and_write_never_break_the_limit() {
    let seed = 7;
    fastrand::seed(seed);
    let delays: Vec<_> = (0..3_001).map(|_| Duration::from_millis(fastrand::u64(0..400))).collect();
    let sends = sent_with_delays(per_second(50), 3_000, |n| delays[n]).await;
    assert!(most_in_any(SECOND, &sends) <= 50, "seed {seed}");
}

#[tokio::test(start_paused = true)]
async fn no_request_leaves_before_the_gate_opens() {
    let opens_at = Instant::now() + Duration::from_millis(1_050);
    let mut gate = Gate::new(per_second(200), &GateSettings { opens_at: Some(opens_at), ..GateSettings::default() }, Instant::now());
    assert!(matches!(gate.try_acquire(Instant::now()), GateAnswer::At(at) if at == opens_at));
    tokio::time::advance(Duration::from_millis(1_050)).await;
    let granted: Vec<Permit> = std::iter::from_fn(|| match gate.try_acquire(Instant::now()) {
        GateAnswer::Now(permit) => Some(permit),
        GateAnswer::At(_) | GateAnswer::WhenSent | GateAnswer::WhenGranted => None,
    })
    .collect();
    assert_eq!(granted.len(), 3, "waiting for the gate to open gives no larger group than any other start");
}

#[test]
fn the_callback_runs_before_a_request_is_written() {
    let told = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let teller = Arc::clone(&told);
    let on_send = OnSend::new(move || {
        teller.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    });
    for rate in [per_second(200), Rate::Unlimited] {
        told.store(0, std::sync::atomic::Ordering::Relaxed);
        let mut gate = Gate::new(rate, &GateSettings { on_send: on_send.clone(), ..GateSettings::default() }, Instant::now());
        let GateAnswer::Now(mut permit) = gate.try_acquire(Instant::now()) else { panic!("the first request may leave") };
        assert_eq!(told.load(std::sync::atomic::Ordering::Relaxed), 0);
        permit.mark_sent();
        permit.mark_sent();
        drop(permit);
        assert_eq!(told.load(std::sync::atomic::Ordering::Relaxed), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_permit_dropped_unsent_returns_its_place() {
    let mut gate = Gate::new(per_second(1), &GateSettings::default(), Instant::now());
    tokio::time::advance(Duration::from_secs(3)).await;
    let GateAnswer::Now(permit) = gate.try_acquire(Instant::now()) else { panic!("the first request may leave") };
    assert!(matches!(gate.try_acquire(Instant::now()), GateAnswer::WhenSent));
    drop(permit);
    tokio::time::advance(FULL_SECOND).await;
    assert!(matches!(gate.try_acquire(Instant::now()), GateAnswer::Now(_)));
    assert_eq!(gate.written(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_machine_is_not_followed_by_a_catch_up_burst() {
    let mut gate = Gate::new(per_second(200), &GateSettings::default(), Instant::now());
    tokio::time::advance(Duration::from_secs(3_600)).await;
    let mut granted = 0;
    while let GateAnswer::Now(mut permit) = gate.try_acquire(Instant::now()) {
        permit.mark_sent();
        granted += 1;
    }
    assert_eq!(granted, 3, "one group of requests");
}
