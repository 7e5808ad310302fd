//! Records in trouble are no outage, an outage is no record's fault, and a run always gets on.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use chatlift::domain::command::Command;
use chatlift::domain::halt_reason::HaltReason;
use chatlift::domain::outcome::Status;
use chatlift::domain::verdict::{CallOutcome, SuccessSeen};
use chatlift::flow::dispatch::AbortCause;
use chatlift::flow::import::ImportEnd;
use chatlift::flow::import::OnBatchFailure;
use tokio::time::Instant;

use super::service::{Call, Reply, Run, Service, World, accounts, code, fine, listing, records};

const LATENCY: Duration = Duration::from_millis(20);
const SINGLE: Command = Command::AccountImport;
const BATCH: Command = Command::MultiaccountImport;
const CHECK: Command = Command::AccountCheck;

fn lost() -> Reply {
    Reply { connect: Duration::ZERO, latency: LATENCY, end: CallOutcome::Lost { why: "reset".to_owned() } }
}

/// The number in `user17`; 0 for whoever isn't called so.
fn number(user_id: &str) -> u64 {
    user_id.strip_prefix("user").and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

fn failed(run: &Run) -> BTreeSet<u64> {
    run.rows.iter().filter(|row| row.outcome.status == Status::Failed).map(|row| row.row).collect()
}

/// Imports so many rows while some meet a temporary error whenever they come singly: exactly these fail, after their attempts, and nothing
/// is taken for an outage though six seconds of one would end the run.
async fn only_the_bad_fail(count: u64, is_bad: impl Fn(u64) -> bool + Copy + 'static, bad: fn() -> Reply) -> (Service, Run) {
    let service =
        Service::new(move |call| if call.command == SINGLE && is_bad(number(call.user_id)) { bad() } else { fine(call, LATENCY) });
    let mut world = World::new(accounts(count));
    world.settings.dispatch.max_outage = Duration::from_secs(6);
    let run = world.run(&service).await;
    assert!(matches!(run.end, ImportEnd::Finished), "{:?}", run.end);
    assert_eq!(failed(&run), (1..=count).filter(|row| is_bad(*row)).collect());
    assert!(run.rows.iter().map(|row| row.row).eq(1..=count));
    let other = run.rows.iter().find(|row| row.outcome.attempts != if is_bad(row.row) { 5 } else { 1 });
    assert!(other.is_none(), "{other:?}");
    assert_eq!((run.outages, service.overlaps()), (0, 0));
    assert!(service.most_in_1s() <= 200, "{}", service.most_in_1s());
    (service, run)
}

#[tokio::test(start_paused = true)]
async fn bad_records_however_many_and_however_bunched_are_no_outage() {
    for bad in [(|| code(40006)) as fn() -> Reply, lost] {
        only_the_bad_fail(400, |row| row % 5 == 0, bad).await;
        only_the_bad_fail(1_000, |row| row % 12 == 0, bad).await;
        only_the_bad_fail(1_000, |row| row % 2 == 0, bad).await;
        only_the_bad_fail(1_000, |row| row % 10 != 0, bad).await;
        only_the_bad_fail(2_000, |row| (900..1_050).contains(&row), bad).await;
        only_the_bad_fail(2_000, |row| row > 1_850, bad).await;
        only_the_bad_fail(2_000, |row| row <= 150, bad).await;
        only_the_bad_fail(60, |row| row > 3, bad).await;
    }
}

#[tokio::test(start_paused = true)]
async fn bad_records_cost_their_own_calls_and_a_test_a_second_at_most() {
    let began = Instant::now();
    let (service, run) = only_the_bad_fail(6_000, |row| row % 20 == 0, || code(40006)).await;
    let seconds = began.elapsed().as_secs();
    // Those who were tried five times while nothing went well are tried once more; a test is no retry.
    let last_tries = run.traffic.retries() - 300 * 4;
    assert!(last_tries <= 300, "{last_tries}");
    let tests = service.calls() - (6_000 + run.traffic.retries());
    assert!(tests <= 1 + seconds, "{tests} tests in {seconds} s");
    // The full rate, and at the end what the last row waits between its five tries: 0.2, 0.4, 0.8 and 1.6 s at most.
    let longest = service.calls() as f64 / 199.0 + 3.0;
    assert!(began.elapsed().as_secs_f64() < longest, "{:?} for {} calls", began.elapsed(), service.calls());
}

#[tokio::test(start_paused = true)]
async fn bunched_bad_records_before_any_good_one_hold_a_run_up_for_seconds() {
    let service =
        Service::new(|call| if call.command == SINGLE && number(call.user_id) <= 5_000 { code(70500) } else { fine(call, LATENCY) });
    let mut world = World::new(accounts(6_000));
    world.settings.dispatch.max_outage = Duration::from_secs(60);
    let run = world.run(&service).await;
    assert!(matches!(run.end, ImportEnd::Finished), "{:?}", run.end);
    assert_eq!(failed(&run), (1..=5_000).collect());
}

#[tokio::test(start_paused = true)]
async fn a_tenth_of_all_calls_meeting_temporary_errors_is_no_outage() {
    for _ in 0..10 {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let service = Service::new(move |call| if random.u8(..10) == 0 { code(70169) } else { fine(call, LATENCY) });
        let run = World::new(accounts(4_000)).seeded(seed).run(&service).await;
        assert!(matches!(run.end, ImportEnd::Finished), "seed {seed}: {:?}", run.end);
        assert_eq!(run.outages, 0, "seed {seed}");
        assert!(run.counts.failed <= 3, "seed {seed}: {} of 4,000 met five in a row", run.counts.failed);
    }
}

#[tokio::test(start_paused = true)]
async fn listed_records_whose_single_calls_are_reset_are_no_outage() {
    for every in [50, 20] {
        let is_bad = move |id: &str| number(id).is_multiple_of(every) && number(id) > 0;
        let service = Service::new(move |call| match call.command {
            SINGLE if is_bad(call.user_id) => lost(),
            _ => listing(call, LATENCY, is_bad),
        });
        let mut world = World::new(accounts(20_000)).in_batches(OnBatchFailure::FallBack);
        world.settings.dispatch.max_outage = Duration::from_secs(6);
        let run = world.run(&service).await;
        assert!(matches!(run.end, ImportEnd::Finished), "{:?}", run.end);
        assert_eq!(failed(&run), (1..=20_000).filter(|row| row % every == 0).collect());
        assert_eq!((run.outages, service.overlaps()), (0, 0));
        assert!(run.rows.iter().all(|row| row.outcome.attempts == if row.row % every == 0 { 6 } else { 1 }));
    }
}

/// A night's delta, each row of which meets so many temporary errors before it is imported.
async fn delta(errors: u32, check: fn(&Call<'_>) -> Reply) -> (Service, Run) {
    let service = Service::new(move |call| match call.command {
        CHECK => check(call),
        _ if call.nth_of_user <= errors => code(70500),
        _ => fine(call, LATENCY),
    });
    let run = World::new(accounts(15)).run(&service).await;
    (service, run)
}

#[tokio::test(start_paused = true)]
async fn a_small_file_that_meets_temporary_errors_is_tried_for_two_minutes() {
    for errors in [0, 4, 5, 6, 8, 9] {
        for check in
            [|call: &Call<'_>| fine(call, LATENCY), |call: &Call<'_>| if call.nth_of_user <= 6 { code(70500) } else { fine(call, LATENCY) }]
        {
            let (_, run) = delta(errors, check).await;
            assert!(matches!(run.end, ImportEnd::Finished), "{errors}: {:?}", run.end);
            assert_eq!((run.counts.imported, run.unjudged), (15, 0), "{errors}");
            assert!(run.rows.iter().all(|row| row.outcome.attempts <= 5), "what is tried beyond the attempts is not charged");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_any_length_fails_no_row_of_a_small_file() {
    for count in [1, 2, 15, 40] {
        for tenths in [3, 7, 12, 20, 35, 50, 80, 150, 400] {
            for end in [code(70500).end, lost().end] {
                let outage = Duration::from_millis(tenths * 100);
                let service =
                    Service::new(move |call| if call.at < outage { Reply { end: end.clone(), ..lost() } } else { fine(call, LATENCY) });
                let run = World::new(accounts(count)).seeded(fastrand::u64(..)).run(&service).await;
                assert_eq!((run.counts.imported, run.counts.failed), (count, 0), "{count} rows, {outage:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rows_that_nothing_can_judge_fail_two_minutes_after_their_last_charged_call() {
    let began = Instant::now();
    let (service, run) = delta(u32::MAX, |call| fine(call, LATENCY)).await;
    assert!(matches!(run.end, ImportEnd::Finished), "{:?}", run.end);
    assert_eq!((run.counts.failed, run.unjudged, run.outages), (15, 15, 0));
    assert!(run.rows.iter().all(|row| row.outcome.attempts == 5 && row.outcome.error_code == Some(70500)));
    let lasted = began.elapsed().as_secs();
    assert!((120..=140).contains(&lasted), "{lasted}");
    let tries = (service.calls_of(SINGLE) / 15) - 5;
    assert!((6..=12).contains(&tries), "every 10 to 20 s: {tries}");
}

#[tokio::test(start_paused = true)]
async fn the_two_minutes_stand_still_while_the_run_is_throttled_or_the_service_is_down() {
    for end in [CallOutcome::Refused { code: 60011, info: String::new() }, CallOutcome::Unreached { why: "refused".to_owned() }] {
        let service = Service::new(move |call| match call.at.as_secs() {
            ..60 if call.command == SINGLE => code(70500),
            60..660 => Reply { end: end.clone(), ..lost() },
            _ => fine(call, LATENCY),
        });
        let run = World::new(accounts(15)).run(&service).await;
        assert_eq!((run.counts.imported, run.unjudged), (15, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_that_meets_its_own_limit_does_not_hold_the_two_minutes_up() {
    let began = Instant::now();
    let (_, run) = delta(u32::MAX, |_| code(60007)).await;
    assert!(matches!(run.end, ImportEnd::Finished), "{:?}", run.end);
    assert_eq!((run.counts.failed, run.unjudged, run.outages), (15, 15, 0));
    let lasted = began.elapsed().as_secs();
    assert!((120..=140).contains(&lasted), "{lasted}");
}

#[tokio::test(start_paused = true)]
async fn a_run_does_not_end_while_a_test_is_in_flight() {
    // A test, of an account that was taken before, takes longer than all that is left of the file.
    let service = Service::new(|call| match (number(call.user_id), call.nth_of_user) {
        (1..=5, 2..) | (6.., 3..) => Reply { latency: Duration::from_secs(5), ..code(60008) },
        (6.., 1) => code(70169),
        _ => fine(call, LATENCY),
    });
    let run = World::new(accounts(60)).run(&service).await;
    assert_eq!((run.counts.imported, run.outages), (60, 0));
    assert!(run.traffic.codes.contains_key(&60008), "the test is counted: {:?}", run.traffic.codes);
    assert_eq!(run.traffic.codes.values().sum::<u64>(), service.calls(), "so is every call");
}

#[tokio::test(start_paused = true)]
async fn unknown_codes_do_not_wait_for_two_minutes() {
    let began = Instant::now();
    let service = Service::new(|call| if call.command == SINGLE { code(12345) } else { fine(call, LATENCY) });
    let run = World::new(accounts(15)).run(&service).await;
    assert_eq!((run.counts.failed, run.unjudged), (15, 0));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_api_that_is_down_while_the_check_is_well_fails_nobody() {
    for count in [300, 3_000] {
        let service = Service::new(move |call| match call.command {
            SINGLE if call.at < Duration::from_secs(3_600) => code(70500),
            _ => fine(call, LATENCY),
        });
        let run = World::new(accounts(count)).run(&service).await;
        assert!(matches!(run.end, ImportEnd::Finished), "{:?}", run.end);
        assert_eq!((run.counts.imported, run.counts.failed), (count, 0));
        assert!(service.calls() < count + 1_000, "{}", service.calls());
    }
}

#[tokio::test(start_paused = true)]
async fn a_test_repeats_the_last_account_and_a_later_record_of_it_waits() {
    // The first forty are good; the later ones are bad, but for two records of the user who was accepted last.
    let seen = Rc::new(RefCell::new(Vec::new()));
    let told = Rc::clone(&seen);
    let all = (1..=40).map(|row| (format!("user{row}"), format!("nick {row}")));
    let all = all.chain((41..=200).map(|row| (format!("bad{row}"), String::new())));
    let all = all.chain([("user40".to_owned(), "late".to_owned()), ("user40".to_owned(), "later".to_owned())]);
    let service = Service::new(move |call| {
        if !call.user_id.starts_with("bad") {
            told.borrow_mut().push((call.user_id.to_owned(), call.accounts[0].nick.as_deref().unwrap_or_default().to_owned()));
        }
        if call.user_id.starts_with("bad") { code(70500) } else { fine(call, Duration::from_millis(300)) }
    });
    let run = World::new(records(all)).run(&service).await;
    assert_eq!((run.counts.imported, run.counts.failed, run.outages), (42, 160, 0));
    assert_eq!(service.overlaps(), 0);
    assert_eq!(service.nick("user40"), Some("later".to_owned()));
    let of_last: Vec<_> = seen.borrow().iter().filter(|(id, _)| id == "user40").map(|(_, nick)| nick.clone()).collect();
    let order = |nick: &str| ["nick 40", "late", "later"].iter().position(|known| *known == nick).unwrap();
    assert!(of_last.is_sorted_by_key(|nick| order(nick)), "an older record never comes after a later one: {of_last:?}");
    assert!(of_last.len() > 3, "it was repeated: {of_last:?}");
}

#[tokio::test(start_paused = true)]
async fn tests_stay_within_the_limit() {
    let service = Service::new(|call| {
        assert!(number(call.user_id) <= 30, "{}", call.user_id);
        if call.command == CHECK { fine(call, LATENCY) } else { code(70500) }
    });
    let mut world = World::new(accounts(1_000));
    world.settings.limit = Some(30);
    let run = world.run(&service).await;
    assert!(matches!(run.end, ImportEnd::LimitReached), "{:?}", run.end);
    assert_eq!(run.rows.len(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_resumed_run_knows_that_accounts_were_accepted() {
    for (seen, expected) in [(SuccessSeen::Yes, 1), (SuccessSeen::NotYet, 0)] {
        let service = Service::new(|call| if call.user_id == "user1" { code(60003) } else { fine(call, LATENCY) });
        let mut world = World::new(accounts(50));
        world.settings.dispatch.known.seen = seen;
        world.settings.dispatch.limits.in_flight = 1;
        let run = world.run(&service).await;
        assert_eq!(matches!(run.end, ImportEnd::Finished), seen == SuccessSeen::Yes, "{:?}", run.end);
        assert_eq!(run.counts.failed, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_of_each_of_the_first_hundred_records_stop_the_run() {
    let service = Service::new(|call| if call.command == CHECK { fine(call, LATENCY) } else { code(70402) });
    let run = World::new(accounts(5_000)).run(&service).await;
    assert!(
        matches!(run.end, ImportEnd::Aborted(AbortCause::Refused { reason: HaltReason::AllRecordsRefused, code: Some(70402), .. })),
        "{:?}",
        run.end
    );
    assert!((100..=125).contains(&run.counts.failed), "those that were settled by then stay failed: {}", run.counts.failed);
    let run = World::new(accounts(99)).run(&Service::new(|_| code(70402))).await;
    assert!(matches!(run.end, ImportEnd::Finished));
    // In batches the same: the first batch is halved down to its records.
    let run = World::new(accounts(5_000)).in_batches(OnBatchFailure::FallBack).run(&Service::new(|_| code(70402))).await;
    assert!(matches!(run.end, ImportEnd::Aborted(AbortCause::Refused { reason: HaltReason::AllRecordsRefused, .. })), "{:?}", run.end);
    assert_eq!(run.counts.imported, 0);
}

#[tokio::test(start_paused = true)]
async fn the_same_refusal_of_a_thousand_in_a_row_stops_the_run_and_a_mixture_does_not() {
    let refused =
        |from: u64, refusal: i64| Service::new(move |call| if number(call.user_id) > from { code(refusal) } else { fine(call, LATENCY) });
    let run = World::new(accounts(5_000)).run(&refused(10, 70402)).await;
    assert!(matches!(run.end, ImportEnd::Aborted(AbortCause::Refused { reason: HaltReason::AllRecordsRefused, .. })), "{:?}", run.end);
    assert!((1_000..=1_025).contains(&run.counts.failed), "{}", run.counts.failed);
    for harmless in [70399, 40601, 40605, 40610, 80001, 80004] {
        let run = World::new(accounts(2_000)).run(&refused(0, harmless)).await;
        assert!(matches!(run.end, ImportEnd::Finished), "{harmless}: {:?}", run.end);
        assert_eq!(run.counts.failed, 2_000);
    }
    let mixed = Service::new(|call| match number(call.user_id) {
        n if n % 900 == 1 => fine(call, LATENCY),
        _ => code(70402),
    });
    let run = World::new(accounts(5_000)).run(&mixed).await;
    assert!(matches!(run.end, ImportEnd::Finished), "{:?}", run.end);
    // Batches that are accepted show that the records are at fault.
    let listed = Service::new(|call| match call.command {
        BATCH => listing(call, LATENCY, |id| number(id).is_multiple_of(20)),
        SINGLE => code(70402),
        _ => fine(call, LATENCY),
    });
    let run = World::new(accounts(20_000)).in_batches(OnBatchFailure::FallBack).run(&listed).await;
    assert!(matches!(run.end, ImportEnd::Finished), "{:?}", run.end);
    assert_eq!(run.counts.failed, 1_000);
}

#[tokio::test(start_paused = true)]
async fn the_reason_why_the_import_is_down_is_its_own_and_not_that_of_what_tests_it() {
    let service = Service::new(|call| if call.command == CHECK { code(60008) } else { lost() });
    let mut world = World::new(accounts(3));
    world.settings.dispatch.max_outage = Duration::from_secs(600);
    let run = world.run(&service).await;
    assert!(service.calls_of(CHECK) > 3, "it is tested with checks");
    assert!(matches!(&run.end, ImportEnd::Aborted(AbortCause::Outage { why, .. }) if why.contains("reset")), "{:?}", run.end);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_was_silent_is_well_as_soon_as_it_says_anything() {
    for answer in [60007, 60011, 70003] {
        let is_first = std::cell::Cell::new(true);
        let service = Service::new(move |call| match call.at.as_secs() {
            ..60 => lost(),
            _ if is_first.replace(false) => code(answer),
            _ => fine(call, LATENCY),
        });
        let began = Instant::now();
        let run = World::new(accounts(300)).run(&service).await;
        assert_eq!((run.counts.imported, run.outages), (300, 1), "{answer}");
        // The probes come after 1, 3, 7, 15, 31 and 63 seconds; the next one would be a minute later.
        assert!(began.elapsed() < Duration::from_secs(100), "{answer}: {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn batches_are_taken_for_faulty_only_when_half_of_their_records_are() {
    const BATCHES: u64 = 300;
    // Halving ends with the first record of a batch beside the second, and each of the two is sent singly.
    let is_bad = |id: &str| number(id) % 100 == 1;
    let tests = Rc::new(std::cell::Cell::new(0_u64));
    let counted = Rc::clone(&tests);
    let service = Service::new(move |call| {
        // A batch of one, or a check, is sent only to test whether the service is well.
        let is_test = call.command == CHECK || (call.command == BATCH && call.accounts.len() == 1);
        counted.set(counted.get() + u64::from(is_test));
        match call.command {
            SINGLE if is_bad(call.user_id) => lost(),
            BATCH if call.accounts.iter().any(|account| is_bad(account.user_id.as_str())) => code(70402),
            _ => fine(call, LATENCY),
        }
    });
    let run = World::new(accounts(BATCHES * 100)).in_batches(OnBatchFailure::FallBack).run(&service).await;
    assert!(matches!(run.end, ImportEnd::Finished), "{:?}", run.end);
    assert_eq!((run.counts.imported, run.counts.failed, run.outages), (BATCHES * 99, BATCHES, 0));
    // The last ones may be all that is left, and then a test must show that the service is well.
    assert!(tests.get() <= 3, "{} tests", tests.get());
}
