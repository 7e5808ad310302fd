//! Rows with profile cells over a service that is a function: both APIs at their own pace, in any lane and any trouble.

use std::collections::BTreeMap;

use super::service::{Run, listing, with_tags};
use super::*;
use chatlift::domain::command::Command;
use chatlift::domain::outcome::Status;
use chatlift::flow::dispatch::AbortCause;
use chatlift::flow::import::{ImportScope, OnBatchFailure};

const SINGLE: Command = Command::AccountImport;
const BATCH: Command = Command::MultiaccountImport;
const PROFILE: Command = Command::PortraitSet;
const THREE: &[&str] = &["x", "y", "z"];
const NONE: &[&str] = &[];

/// A service that takes everything after this many milliseconds, give or take a quarter.
fn well(latency_ms: u64) -> Service {
    Service::new(move |call| service::fine(call, Duration::from_millis(latency_ms * 3 / 4 + call.number * 7 % (latency_ms / 2 + 1))))
}

#[track_caller]
fn all_are_imported(run: &Run, count: u64, attempts: impl Fn(u64) -> u32) {
    assert!(matches!(run.end, ImportEnd::Finished), "{:?}", run.end);
    assert_eq!((run.counts.imported, run.counts.failed), (count, 0));
    assert!(run.rows.iter().map(|row| row.row).eq(1..=count));
    let odd = run.rows.iter().find(|row| row.outcome.attempts != attempts(row.row));
    assert!(odd.is_none(), "{odd:?}");
}

/// The share of this rate that the calls of a command used.
fn used(service: &Service, command: Command, rate: u32) -> f64 {
    service.mean_per_s_of(command) / f64::from(rate)
}

#[tokio::test(start_paused = true)]
async fn three_thousand_rows_with_three_tags_use_both_limits_and_keep_to_them() {
    for latency_ms in [1, 20, 80] {
        let service = well(latency_ms);
        let run = World::new(with_tags(accounts(3_000), |_| THREE)).run(&service).await;
        all_are_imported(&run, 3_000, |_| 2);
        service.assert_even(|_| 200);
        assert_eq!((service.calls_of(SINGLE), service.calls_of(PROFILE), service.overlaps()), (3_000, 3_000, 0));
        for command in [SINGLE, PROFILE] {
            assert!(used(&service, command, 200) >= 0.98, "{}: {}", command.name(), service.mean_per_s_of(command));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_higher_limit_that_was_bought_is_used() {
    for latency_ms in [1, 20, 80, 200] {
        let service = well(latency_ms);
        let world = World::new(with_tags(accounts(30_000), |_| THREE)).in_batches(OnBatchFailure::FallBack).with_profile_rate(1_000);
        let run = world.run(&service).await;
        all_are_imported(&run, 30_000, |_| 2);
        service.assert_even(|command| match command {
            BATCH => 100,
            PROFILE => 1_000,
            _ => 200,
        });
        assert!(used(&service, PROFILE, 1_000) >= 0.99, "{latency_ms} ms: {}", service.mean_per_s_of(PROFILE));
    }
}

#[tokio::test(start_paused = true)]
async fn a_tenth_with_cells_slows_the_batches_no_further_than_the_limit_of_profiles() {
    for latency_ms in [1, 20, 80] {
        let service = well(latency_ms);
        let world = World::new(with_tags(accounts(60_000), |row| if row % 10 == 0 { THREE } else { NONE }));
        let began = Instant::now();
        let run = world.in_batches(OnBatchFailure::FallBack).run(&service).await;
        let per_s = 60_000.0 / began.elapsed().as_secs_f64();
        all_are_imported(&run, 60_000, |row| if row % 10 == 0 { 2 } else { 1 });
        assert!(per_s >= 1_800.0, "{latency_ms} ms: {per_s} rows a second");
        assert!(service.most_in_1s_of(BATCH) <= 100 && service.most_in_1s_of(PROFILE) <= 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_service_of_profiles_holds_back_rows_with_cells_alone() {
    // Those with cells come first; the others are as fast as they would be without them.
    let service = Service::new(|call| match call.command {
        PROFILE => service::fine(call, Duration::from_secs(5)),
        _ => service::fine(call, Duration::from_millis(20)),
    });
    let run = World::new(with_tags(accounts(6_000), |row| if row <= 3_000 { THREE } else { NONE })).run(&service).await;
    all_are_imported(&run, 6_000, |row| if row <= 3_000 { 2 } else { 1 });
    assert!(service.most_in_1s() <= 200);
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_profiles_alone_blames_nobody_and_imports_without_cells_go_on() {
    for fault in [CallOutcome::Lost { why: "HTTP 502".to_owned() }, CallOutcome::Unreached { why: "refused".to_owned() }] {
        let last_import = std::rc::Rc::new(std::cell::Cell::new(Duration::ZERO));
        let seen = std::rc::Rc::clone(&last_import);
        let service = Service::new(move |call| match (call.command, call.at.as_secs()) {
            (PROFILE, 10..3_000) => Reply { latency: Duration::from_millis(20), end: fault.clone(), ..Reply::default() },
            (SINGLE, _) => {
                seen.set(call.at);
                service::fine(call, Duration::from_millis(20))
            }
            _ => service::fine(call, Duration::from_millis(20)),
        });
        let run = World::new(with_tags(accounts(20_000), |row| if row % 10 == 0 { THREE } else { NONE })).run(&service).await;
        assert!(matches!(run.end, ImportEnd::Finished), "{:?}", run.end);
        assert_eq!((run.counts.imported, run.counts.failed), (20_000, 0));
        assert!(run.rows.iter().all(|row| row.outcome.attempts <= 3), "attempts of the outage are given back");
        assert!(service.calls_of(PROFILE) < 2_400, "{}", service.calls_of(PROFILE));
        let first = run.rows.iter().filter(|row| row.row % 10 != 0).count();
        assert_eq!(first, 18_000);
        assert!(service.calls_of(SINGLE) >= 20_000);
    }
}

#[tokio::test(start_paused = true)]
async fn throttled_profiles_find_their_own_limit_and_slow_nothing_else() {
    let service = Service::new(|call| match call.command {
        PROFILE if call.in_last_second > 50 => code(60007),
        _ => service::fine(call, Duration::from_millis(20)),
    });
    let run = World::new(with_tags(accounts(8_000), |row| if row % 4 == 0 { THREE } else { NONE })).run(&service).await;
    all_are_imported(&run, 8_000, |row| if row % 4 == 0 { 2 } else { 1 });
    assert!(used(&service, PROFILE, 50) >= 0.85, "{}", service.mean_per_s_of(PROFILE));
    assert!(used(&service, SINGLE, 200) >= 0.95, "{}", service.mean_per_s_of(SINGLE));
}

#[tokio::test(start_paused = true)]
async fn the_last_of_several_rows_of_a_user_wins_with_its_profile() {
    let order = std::rc::Rc::new(std::cell::RefCell::new(BTreeMap::<String, Vec<(Command, Option<String>)>>::new()));
    let seen = std::rc::Rc::clone(&order);
    let service = Service::new(move |call| {
        for account in call.accounts {
            let nick = account.nick.as_deref().map(str::to_owned);
            seen.borrow_mut().entry(account.user_id.as_str().to_owned()).or_default().push((call.command, nick));
        }
        listing(call, Duration::from_millis(call.number * 37 % 300), |id| id.ends_with('3'))
    });
    for is_batched in [false, true] {
        order.borrow_mut().clear();
        let records = (1..=400).map(|row| (format!("user{}", row % 7), format!("nick {row}")));
        let world = World::new(with_tags(service::records(records), |row| if row % 3 == 0 { NONE } else { THREE }));
        let run = if is_batched { world.in_batches(OnBatchFailure::FallBack) } else { world }.run(&service).await;
        assert_eq!((run.counts.imported, service.overlaps()), (400, 0));
        for (user, calls) in &*order.borrow() {
            let rows: Vec<u64> = (1..=400).filter(|row| format!("user{}", row % 7) == *user).collect();
            let mut nicks: Vec<_> =
                calls.iter().filter(|(command, _)| *command != Command::PortraitGet).map(|(_, nick)| nick.clone().unwrap()).collect();
            nicks.dedup();
            assert_eq!(nicks, rows.iter().map(|row| format!("nick {row}")).collect::<Vec<_>>(), "{user}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn profiles_that_are_never_answered_leave_the_imports_their_share_of_the_pool() {
    let imports = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let seen = std::rc::Rc::clone(&imports);
    let service = Service::new(move |call| {
        if call.command == PROFILE && (5..600).contains(&call.at.as_secs()) {
            let end = CallOutcome::Lost { why: "no answer in time".to_owned() };
            return Reply { latency: Duration::from_secs(10), end, ..Reply::default() };
        }
        if call.command == SINGLE {
            seen.borrow_mut().push(call.at);
        }
        service::fine(call, Duration::from_millis(50))
    });
    let run = World::new(with_tags(accounts(20_000), |row| if row % 2 == 0 { THREE } else { NONE })).run(&service).await;
    assert!(matches!(run.end, ImportEnd::Finished), "{:?}", run.end);
    assert_eq!((run.counts.imported, run.counts.failed), (20_000, 0));
    let within_a_minute = imports.borrow().iter().filter(|at| at.as_secs() < 60).count();
    assert!(within_a_minute >= 11_000, "{within_a_minute} imports in the first minute, most of it without profiles");
}

/// A service that takes all accounts, and whose `portrait_set` answers some rows with this as long as it is down.
fn failing(is_bad: impl Fn(u64, Duration) -> bool + 'static, end: CallOutcome) -> Service {
    Service::new(move |call| {
        let row = call.user_id.strip_prefix("user").and_then(|row| row.parse().ok()).unwrap_or(0);
        let is_bad = call.command == PROFILE && is_bad(row, call.at);
        if is_bad {
            Reply { latency: Duration::from_millis(20), end: end.clone(), ..Reply::default() }
        } else {
            service::fine(call, Duration::from_millis(20))
        }
    })
}

fn lost() -> CallOutcome {
    CallOutcome::Lost { why: "HTTP 502".to_owned() }
}

fn internal() -> CallOutcome {
    CallOutcome::Refused { code: 70500, info: "internal".to_owned() }
}

/// Whether a row is bad.
type IsBad = fn(u64) -> bool;

const MAX_OUTAGE: Duration = Duration::from_secs(1_800);

#[tokio::test(start_paused = true)]
async fn an_api_of_profiles_that_answers_no_row_fails_none_and_stops_the_run_in_the_end() {
    for (scope, count) in
        [(ImportScope::Everything, 2), (ImportScope::Everything, 5), (ImportScope::ProfilesOnly, 5), (ImportScope::Everything, 300)]
    {
        for end in [lost(), internal()] {
            let (began, service) = (Instant::now(), failing(|_, _| true, end));
            let mut world = World::new(with_tags(accounts(count), |_| THREE));
            world.settings.scope = scope;
            world.settings.dispatch.max_outage = MAX_OUTAGE;
            let run = world.run(&service).await;
            assert!(matches!(run.end, ImportEnd::Aborted(AbortCause::Outage { api: PROFILE, .. })), "{count} rows: {:?}", run.end);
            assert_eq!((run.counts.rows(), run.unjudged), (0, 0), "{count} rows, {scope:?}");
            assert!(began.elapsed() >= MAX_OUTAGE, "{:?}", began.elapsed());
            // Five attempts of each, a test, and a probe a minute at last.
            assert!(service.calls_of(PROFILE) <= 5 * count + 40, "{count} rows: {} calls", service.calls_of(PROFILE));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_profiles_of_any_length_fails_no_row_of_a_small_file() {
    for count in [2, 5, 40] {
        for seconds in [1, 10, 60, 150, 700, 3_600] {
            for from in [0, 1] {
                // From the first row on, or once some were taken.
                let down = Duration::from_millis(from * 150)..Duration::from_secs(seconds);
                let service = failing(move |_, at| down.contains(&at), lost());
                let run = World::new(with_tags(accounts(count), |_| THREE)).seeded(fastrand::u64(..)).run(&service).await;
                assert!(matches!(run.end, ImportEnd::Finished), "{count} rows, {seconds} s: {:?}", run.end);
                assert_eq!((run.counts.imported, run.counts.failed), (count, 0), "{count} rows, {seconds} s");
                assert!(
                    run.rows.iter().all(|row| row.outcome.attempts <= 6),
                    "{count} rows, {seconds} s: what is tried beyond them is not charged"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn bad_profiles_fail_as_soon_as_the_profile_of_another_row_is_set() {
    // Few and many, alone at the start, at the end, and all but one.
    let bad: [(u64, IsBad); 6] = [
        (5, |row| row < 5),
        (5, |row| row > 1),
        (40, |row| row > 30),
        (40, |row| row % 2 == 0),
        (3, |row| row == 2),
        (60, |row| row != 60),
    ];
    for (count, is_bad) in bad {
        for end in [lost(), internal()] {
            let (began, service) = (Instant::now(), failing(move |row, _| is_bad(row), end));
            let run = World::new(with_tags(accounts(count), |_| THREE)).run(&service).await;
            assert!(matches!(run.end, ImportEnd::Finished), "{:?}", run.end);
            let failed: Vec<u64> = run.rows.iter().filter(|row| row.outcome.status == Status::Failed).map(|row| row.row).collect();
            assert_eq!(failed, (1..=count).filter(|row| is_bad(*row)).collect::<Vec<_>>());
            assert!(run.rows.iter().all(|row| row.outcome.attempts <= 6), "five of portrait_set and one of the import");
            assert!(began.elapsed() < Duration::from_secs(150), "{count} rows: {:?}", began.elapsed());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn several_bad_profiles_fail_once_one_that_had_to_wait_is_set() {
    // Nothing shows that they are at fault until the import of the third row is taken. A refusal of its profile shows it as well.
    for (last, imported) in [(None, 1), (Some(40605), 0)] {
        let service = Service::new(move |call| match (call.command, call.user_id, last) {
            (PROFILE, "user1" | "user2", _) => code(70500),
            (SINGLE, "user3", _) if call.at < Duration::from_secs(100) => code(60007),
            (PROFILE, "user3", Some(refusal)) => code(refusal),
            _ => service::fine(call, Duration::from_millis(20)),
        });
        let run = World::new(with_tags(accounts(3), |_| THREE)).run(&service).await;
        assert!(matches!(run.end, ImportEnd::Finished), "{:?}", run.end);
        assert_eq!((run.counts.imported, run.counts.failed), (imported, 3 - imported));
    }
}

#[tokio::test(start_paused = true)]
async fn a_single_profile_that_no_other_row_can_be_compared_with_fails_after_two_minutes() {
    for others in [0, 20] {
        let (began, service) = (Instant::now(), failing(|_, _| true, internal()));
        let run = World::new(with_tags(accounts(1 + others), |row| if row == 1 { THREE } else { NONE })).run(&service).await;
        assert!(matches!(run.end, ImportEnd::Finished), "{:?}", run.end);
        assert_eq!((run.counts.imported, run.counts.failed, run.unjudged), (others, 1, 1));
        assert_eq!(run.rows[0].outcome.attempts, 6);
        let lasted = began.elapsed().as_secs();
        assert!((120..=145).contains(&lasted), "{lasted}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_row_is_not_blamed_for_an_outage_that_outlasts_what_could_be_repeated() {
    // After ten minutes the profile that was set last is not repeated any more. The later it begins, the fewer rows are left.
    for from_ms in (100..400).step_by(20) {
        let service = failing(move |_, at| (Duration::from_millis(from_ms)..Duration::from_secs(4_000)).contains(&at), lost());
        let run = World::new(with_tags(accounts(30), |_| THREE)).run(&service).await;
        assert!(matches!(run.end, ImportEnd::Finished), "{:?}", run.end);
        assert_eq!((run.counts.imported, run.counts.failed), (30, 0), "{from_ms} ms");
    }
}
