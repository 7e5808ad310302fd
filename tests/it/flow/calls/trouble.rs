//! Jobs in trouble are no outage, and each API stands for itself.

use super::*;

const KICK: Command = Command::Kick;
const DELETE: Command = Command::AccountDelete;

fn number(user_id: &str) -> u64 {
    user_id.strip_prefix("user").and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn twenty_unknown_codes_in_a_row_stop_the_run_however_few_the_jobs() {
    for (count, most) in [(100, 21), (100_000, 40)] {
        let service = Service::new(|_| code(77777));
        let run = World::new().asking(CHECK, count).run(&service).await;
        assert!(matches!(run.end, Some(AbortCause::Refused { reason: HaltReason::UnknownCodes, code: Some(77777), .. })), "{:?}", run.end);
        assert!((20..=most).contains(&service.calls()), "{count}: {}", service.calls());
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_of_each_of_the_first_hundred_ids_stop_the_run() {
    let service = Service::new(|_| code(70402));
    let run = World::new().asking(CHECK, 500).run(&service).await;
    assert!(matches!(run.end, Some(AbortCause::Refused { reason: HaltReason::AllRecordsRefused, code: Some(70402), .. })), "{:?}", run.end);
    assert!((100..140).contains(&run.outcomes.len()), "those that were answered by then stay so: {}", run.outcomes.len());
    // That there is no such account is an answer.
    let gone = Service::new(|call| if call.command == KICK { code(70107) } else { fine(call, LATENCY) });
    let run = World::new().asking(KICK, 300).run(&gone).await;
    assert_eq!((run.end.clone(), run.undone(KICK).len()), (None, 300));
}

#[tokio::test(start_paused = true)]
async fn bad_jobs_in_a_row_are_no_outage_and_nothing_is_done_twice_to_see() {
    for command in [KICK, DELETE, CHECK, READ] {
        let is_bad = |id: &str| (900..1_050).contains(&number(id));
        let done = Rc::new(RefCell::new(BTreeMap::<String, u32>::new()));
        let told = Rc::clone(&done);
        let service = Service::new(move |call| {
            if call.command == command && call.accounts.iter().any(|account| is_bad(account.user_id.as_str())) {
                return code(70500);
            }
            for account in call.accounts.iter().filter(|_| call.command == command) {
                *told.borrow_mut().entry(account.user_id.as_str().to_owned()).or_default() += 1;
            }
            fine(call, LATENCY)
        });
        let mut world = World::new().asking(command, 2_000);
        world.settings.max_outage = Duration::from_secs(6);
        let run = world.run(&service).await;
        assert_eq!((run.end.clone(), run.done(command), run.undone(command).len()), (None, 1_850, 150), "{}", command.name());
        let twice = done.borrow().values().filter(|times| **times > 1).count();
        assert!(twice == 0 || [CHECK, READ].contains(&command), "{}: {twice}", command.name());
    }
}

#[tokio::test(start_paused = true)]
async fn a_kick_that_meets_temporary_errors_is_tried_for_two_minutes() {
    let service = Service::new(|call| if call.command == KICK && call.nth_of_user <= 6 { code(70500) } else { fine(call, LATENCY) });
    let run = World::new().asking(KICK, 3).run(&service).await;
    assert_eq!((run.end.clone(), run.done(KICK)), (None, 3));
    let service = Service::new(|call| if call.command == KICK { code(70500) } else { fine(call, LATENCY) });
    let began = Instant::now();
    let run = World::new().asking(KICK, 3).run(&service).await;
    assert_eq!((run.end.clone(), run.undone(KICK).len()), (None, 3));
    assert!((120..140).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn each_api_has_its_own_reason_why_it_is_down() {
    let service = Service::new(|call| match call.command {
        READ if call.at > Duration::from_secs(5) => Reply { end: CallOutcome::Lost { why: "no profiles".to_owned() }, ..lost() },
        CHECK if call.number.is_multiple_of(10) => code(70169),
        _ => fine(call, LATENCY),
    })
    .forgetful();
    let mut world = World::new().asking(CHECK, 100_000).asking(READ, 200_000);
    world.settings.max_outage = Duration::from_secs(8);
    let run = world.run(&service).await;
    assert_eq!(run.end, Some(AbortCause::Outage { api: READ, why: "no profiles".to_owned() }));
}

#[tokio::test(start_paused = true)]
async fn a_test_that_gets_no_connection_tells_why_the_api_is_down() {
    let service = Service::new(|call| match call.command {
        CHECK => Reply { end: CallOutcome::Unreached { why: "refused".to_owned() }, ..lost() },
        _ => lost(),
    });
    let mut world = World::new().asking(KICK, 3);
    world.settings.max_outage = Duration::from_secs(600);
    let run = world.run(&service).await;
    assert_eq!(run.end, Some(AbortCause::Outage { api: Command::Kick, why: "refused".to_owned() }));
}

#[tokio::test(start_paused = true)]
async fn calls_are_taken_for_faulty_only_when_half_of_their_accounts_are() {
    const PAGES: usize = 300;
    let is_bad = |id: &str| id.ends_with("00");
    let tests = Rc::new(Cell::new(0_u64));
    let counted = Rc::clone(&tests);
    let service = Service::new(move |call| match call.accounts {
        [alone] if is_bad(alone.user_id.as_str()) => lost(),
        // Halving ends with a bad one alone beside two others, so one that is well comes alone only to test whether the service is.
        [_] => {
            counted.set(counted.get() + 1);
            fine(call, LATENCY)
        }
        many if many.iter().any(|account| is_bad(account.user_id.as_str())) => code(70402),
        _ => fine(call, LATENCY),
    })
    .forgetful();
    let run = World::new().asking(CHECK, PAGES as u64 * 100).run(&service).await;
    assert_eq!((run.end.clone(), run.done(CHECK), run.undone(CHECK).len()), (None, PAGES * 99, PAGES));
    // The last ones may be all that is left, and then a test must show that the service is well.
    assert!(tests.get() <= 3, "{} tests", tests.get());
}

#[tokio::test(start_paused = true)]
async fn unknown_codes_are_counted_for_each_api_and_what_one_account_meets_counts_once() {
    // Fifteen kicks make 45 calls that end with such a code, and each fails for itself.
    let service = Service::new(|call| if call.command == KICK { code(77777) } else { fine(call, LATENCY) });
    let run = World::new().asking(KICK, 15).run(&service).await;
    assert_eq!((run.end.clone(), run.undone(KICK).len()), (None, 15));
    // What another API answers in between shows nothing.
    let service = Service::new(|call| if call.command == READ { code(77777) } else { fine(call, LATENCY) });
    let run = World::new().asking(CHECK, 100_000).asking(READ, 100_000).run(&service).await;
    assert!(matches!(run.end, Some(AbortCause::Refused { reason: HaltReason::UnknownCodes, .. })), "{:?}", run.end);
    assert!(service.calls_of(READ) <= 40, "{}", service.calls_of(READ));
    // What the API itself answers in between does.
    let service = Service::new(|call| if call.number % 20 < 15 && call.nth_of_user == 1 { code(77777) } else { fine(call, LATENCY) });
    let run = World::new().asking(CHECK, 20_000).run(&service).await;
    assert_eq!((run.end.clone(), run.done(CHECK)), (None, 20_000));
}

#[tokio::test(start_paused = true)]
async fn an_api_that_was_silent_is_well_as_soon_as_it_says_anything() {
    for answer in [60007, 60011, 70003] {
        let is_first = Cell::new(true);
        let service = Service::new(move |call| match call.at.as_secs() {
            ..60 => lost(),
            _ if is_first.replace(false) => code(answer),
            _ => fine(call, LATENCY),
        });
        let began = Instant::now();
        let run = World::new().asking(READ, 300).run(&service).await;
        assert_eq!((run.end.clone(), run.done(READ)), (None, 300), "{answer}");
        // The probes come after 1, 3, 7, 15, 31 and 63 seconds; the next one would be a minute later.
        assert!(began.elapsed() < Duration::from_secs(90), "{answer}: {:?}", began.elapsed());
    }
}
