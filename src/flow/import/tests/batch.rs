//! Batches, sentence by sentence of their contract.

use std::collections::BTreeSet;

use super::*;
use crate::domain::halt_reason::HaltReason;
use crate::domain::verdict::ThrottleScope;

#[tokio::test(start_paused = true)]
async fn a_user_id_is_in_one_call_at_a_time_its_single_call_included() {
    let mut harness = ImportHarness::new(OnBatchFailure::FallBack);
    harness.admit("a", "").admit("b", "").admit("a", "").admit("c", "").workload.input_ended();
    let first = harness.send(Command::MultiaccountImport).unwrap();
    assert_eq!(first.rows, [1, 2, 4]);
    assert!(harness.send_any().is_none());
    harness.end(&first, listed(["a"]));
    let single = harness.send(Command::AccountImport).unwrap();
    assert_eq!(single.rows, [1]);
    assert_eq!(harness.send_batch(), None, "row 3 waits for the single call of row 1");
    harness.end(&single, code(40601));
    assert_eq!(harness.send_batch(), Some(vec![3]));
}

#[tokio::test(start_paused = true)]
async fn a_short_batch_leaves_only_when_no_further_record_can_be_had() {
    let mut harness = ImportHarness::new(OnBatchFailure::FallBack);
    harness.admit_many(99, "");
    assert_eq!(harness.send_batch(), None);
    harness.admit_many(1, "");
    let full = harness.send(Command::MultiaccountImport).unwrap();
    assert_eq!(full.rows.len(), 100);
    harness.end(&full, listed([]));
    harness.admit_many(3, "");
    assert_eq!(harness.send_batch(), None);
    harness.workload.input_ended();
    assert_eq!(harness.send_batch(), Some(vec![101, 102, 103]), "the end of the input");

    let mut harness = ImportHarness::new(OnBatchFailure::FallBack);
    harness.workload.window.records = 30;
    while harness.wants_record() {
        let id = if harness.next_row <= 20 { "same".to_owned() } else { format!("user{}", harness.next_row) };
        harness.admit(&id, "");
    }
    assert_eq!(harness.send_batch().unwrap().len(), 11, "a full window; all others wait for an earlier call");
    assert_eq!(harness.send_batch(), None);
}

#[tokio::test(start_paused = true)]
async fn what_a_batch_lists_goes_singly_once_and_the_rest_is_imported() {
    for (ids, attempts) in [
        (vec![], [1, 1, 1]),
        (vec!["user2"], [1, 2, 1]),
        (vec!["user2", "user2", "user2"], [1, 2, 1]),
        (vec!["stranger", "user4", ""], [1, 1, 1]),
        (vec!["user3", "stranger", "user1", "user3"], [2, 1, 2]),
        (vec!["user1", "user2", "user3"], [2, 2, 2]),
    ] {
        let mut harness = ImportHarness::of(3);
        let calls = harness.run(50, |sent| match sent.command {
            Command::MultiaccountImport => listed(ids.iter().copied()),
            _ => fine(sent),
        });
        let expected: Outcomes = (1..).zip(attempts).map(|(row, attempts)| (row, Status::Imported, None, attempts)).collect();
        assert_eq!(harness.outcomes(), expected, "{ids:?}");
        let singles = attempts.iter().filter(|attempts| **attempts == 2).count();
        assert_eq!((sizes(&calls, Command::MultiaccountImport), calls.len()), (vec![3], 1 + singles), "{ids:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_single_answer_is_a_listed_rows_outcome() {
    let mut harness = ImportHarness::of(4);
    harness.run(50, |sent| match (sent.command, sent.rows[0]) {
        (Command::MultiaccountImport, _) => listed(["user2", "user3", "user4"]),
        (_, 2) => code(40601),
        (_, 3) => code(70500),
        _ => fine(sent),
    });
    let expected = [
        (1, Status::Imported, None, 1),
        (2, Status::Failed, Some(40601), 2),
        (3, Status::Failed, Some(70500), 6),
        (4, Status::Imported, None, 2),
    ];
    assert_eq!(harness.outcomes(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_holds_a_bad_record_is_halved_until_that_is_alone() {
    for refusal in [40601, 70402, 40001, 70107, 60003, 60015] {
        let mut harness = ImportHarness::of(8);
        let calls = harness.run(50, |sent| match sent.command {
            _ if !sent.has("user5") => fine(sent),
            Command::MultiaccountImport => code(refusal),
            _ => code(40601),
        });
        assert_eq!(sizes(&calls, Command::MultiaccountImport), [8, 4, 4, 2, 2], "{refusal}");
        assert_eq!(sizes(&calls, Command::AccountImport), [1, 1]);
        let expected: Outcomes = [2, 2, 2, 2, 4, 4, 3, 3]
            .into_iter()
            .zip(1..)
            .map(
                |(attempts, row)| {
                    if row == 5 { (row, Status::Failed, Some(40601), attempts) } else { (row, Status::Imported, None, attempts) }
                },
            )
            .collect();
        assert_eq!(harness.outcomes(), expected, "{refusal}");
        assert_eq!(harness.workload.lane(), Lane::Batch(OnBatchFailure::FallBack));
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_odd_size_is_halved_without_an_empty_half() {
    let mut harness = ImportHarness::of(3);
    let calls = harness.run(50, |sent| if sent.has("user3") && sent.rows.len() > 1 { code(70402) } else { fine(sent) });
    assert_eq!((sizes(&calls, Command::MultiaccountImport), sizes(&calls, Command::AccountImport)), (vec![3, 2], vec![1]));
    assert_eq!(harness.outcomes().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_first_record_that_is_called_malformed_fails_alone() {
    for refusal in [60003, 60015, 40601] {
        let mut harness = ImportHarness::of(100);
        let single = if refusal == 60015 { 40601 } else { refusal };
        harness.run(500, |sent| match sent.command {
            _ if !sent.has("user1") => fine(sent),
            Command::MultiaccountImport => code(refusal),
            _ => code(single),
        });
        let outcomes = harness.outcomes();
        assert_eq!(outcomes.len(), 100, "{refusal}");
        let failed: Vec<_> =
            outcomes.iter().filter(|outcome| outcome.1 != Status::Imported).map(|outcome| (outcome.0, outcome.2)).collect();
        assert_eq!(failed, [(1, Some(single))], "{refusal}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_malformed_record_waits_for_whatever_is_not_known_of_its_siblings() {
    // All hundred go singly, together; what is malformed comes back first, when the others are in flight or have met a temporary error.
    for others in [None, Some(code(70500)), Some(code(60007)), Some(CallOutcome::Unreached { why: "refused".to_owned() })] {
        let mut harness = ImportHarness::of(4);
        harness.run(5, |_| code(70500));
        let singles: Vec<SentCall> = std::iter::from_fn(|| harness.send(Command::AccountImport)).collect();
        assert_eq!(singles.len(), 4);
        if let Some(end) = others.clone() {
            singles[1..].iter().for_each(|sent| drop(harness.end(sent, end.clone())));
        }
        let effect = harness.end(&singles[0], code(60003));
        assert!(!matches!(effect, CallEffect::Halt { .. }), "{others:?}: {effect:?}");
        if others.is_none() {
            singles[1..].iter().for_each(|sent| drop(harness.end(sent, fine(sent))));
        }
        harness.run(50, |sent| if sent.has("user1") { code(60003) } else { fine(sent) });
        let outcomes = harness.outcomes();
        assert_eq!(outcomes[0].1, Status::Failed, "{others:?}");
        assert!(outcomes.len() == 4 && outcomes[1..].iter().all(|outcome| outcome.1 == Status::Imported), "{others:?}: {outcomes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_malformed_record_does_not_wait_for_ever() {
    let mut harness = ImportHarness::of(4);
    let calls = harness.run(500, |sent| match sent.command {
        Command::AccountImport if sent.has("user1") => code(60003),
        Command::AccountCheck => fine(sent),
        _ => code(70500),
    });
    assert!(matches!(calls.last().unwrap().1, CallEffect::Halt { reason: HaltReason::InvalidRequest, .. }), "{:?}", calls.last());
    assert!(calls.len() < 60, "{}", calls.len());
    assert_eq!(harness.outcomes(), []);
}

#[tokio::test(start_paused = true)]
async fn while_a_batch_is_read_back_a_test_goes_singly() {
    let mut harness = ImportHarness::new(OnBatchFailure::FallBack);
    harness.admit_many(100, "");
    let first = harness.send(Command::MultiaccountImport).unwrap();
    harness.end(&first, fine(&first));
    harness.admit_many(100, "Nick");
    let second = harness.send(Command::MultiaccountImport).unwrap();
    harness.end(&second, fine(&second));
    assert!(harness.workload.repeatable_since(SINGLE).is_some() && harness.workload.batch_trial.read_back.is_some());
    harness.scheduler.apis[SINGLE].health.suspect(harness.now);
    assert!(harness.send_batch().is_none(), "no batch leaves before the answer");
    let read_back = harness.send(Command::PortraitGet).unwrap();
    let test = harness.send(Command::AccountImport).unwrap();
    assert_eq!((test.id, test.accounts.len()), (CallId::Probe(Command::AccountImport), 1));
    harness.end(&test, fine(&test));
    harness.end(&read_back, fine(&read_back));
    assert_eq!(harness.outcomes().len(), 200);
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_all_called_malformed_stop_the_run() {
    let mut harness = ImportHarness::of(8);
    let calls = harness.run(500, |_| code(60003));
    assert!(matches!(calls.last().unwrap().1, CallEffect::Halt { reason: HaltReason::InvalidRequest, .. }), "{:?}", calls.last());
    assert_eq!(harness.outcomes(), []);
}

#[tokio::test(start_paused = true)]
async fn a_batch_out_of_attempts_goes_one_by_one_with_fresh_attempts() {
    for end in [code(70500), code(12345), lost()] {
        let mut harness = ImportHarness::of(300);
        let poisoned = |sent: &SentCall| sent.has("user150");
        let calls = harness.run(1_000, |sent| if poisoned(sent) { end.clone() } else { fine(sent) });
        let batches = calls.iter().filter(|(sent, _)| sent.command == Command::MultiaccountImport && poisoned(sent)).count();
        let singles = calls.iter().filter(|(sent, _)| sent.command == Command::AccountImport && poisoned(sent)).count();
        let unknown = end == code(12345);
        assert_eq!((batches, singles), (5, if unknown { 3 } else { 5 }), "{end:?}");
        let outcomes = harness.outcomes();
        assert_eq!(outcomes.len(), 300);
        for (row, status, _, attempts) in outcomes {
            let expected = match row {
                150 => (Status::Failed, if unknown { 8 } else { 10 }),
                101..=200 => (Status::Imported, 6),
                _ => (Status::Imported, 1),
            };
            assert_eq!((status, attempts), expected, "{row} {end:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn throttling_signatures_halts_and_calls_that_never_arrived_cost_no_attempt() {
    let mut harness = ImportHarness::of(100);
    for (end, effect) in [
        (code(60007), CallEffect::Throttled(ThrottleScope::Api)),
        (code(60011), CallEffect::Throttled(ThrottleScope::All)),
        (code(60018), CallEffect::Throttled(ThrottleScope::All)),
        (code(60019), CallEffect::Throttled(ThrottleScope::All)),
        (CallOutcome::TooMany, CallEffect::Throttled(ThrottleScope::All)),
        (code(70001), CallEffect::SignatureRejected),
        (code(70403), CallEffect::Halt { reason: HaltReason::NotAdmin, code: Some(70403), says: "code 70403".to_owned() }),
    ]
    .into_iter()
    .cycle()
    .take(70)
    {
        harness.now += Duration::from_secs(30);
        let sent = harness.send(Command::MultiaccountImport).unwrap();
        assert_eq!(sent.rows.len(), 100);
        assert_eq!(harness.end(&sent, end), effect);
    }
    harness.now += Duration::from_secs(30);
    let sent = harness.send(Command::MultiaccountImport).unwrap();
    assert_eq!(harness.end(&sent, CallOutcome::Unreached { why: "refused".to_owned() }), CallEffect::Down, "alone in flight");
    harness.run(10, fine);
    all_imported(&harness.outcomes(), 100, 1);
}

#[tokio::test(start_paused = true)]
async fn the_breaker_counts_distinct_batches() {
    let mut harness = ImportHarness::of(2_500);
    let first = harness.send(Command::MultiaccountImport).unwrap();
    harness.end(&first, listed([]));
    for _ in 2..=20 {
        let mut last = CallEffect::Nothing;
        for _ in 0..3 {
            let sent = harness.send(Command::MultiaccountImport).unwrap();
            last = harness.end(&sent, lost());
            harness.now += Duration::from_millis(5);
        }
        if last == CallEffect::Down {
            break;
        }
    }
    let tried: BTreeSet<u64> = harness.scheduler.jobs.iter().map(|(_, job)| job.batch_id).collect();
    assert!(harness.is_down());
    assert_eq!(tried.len(), 19, "with the first one that is twenty");
}

#[tokio::test(start_paused = true)]
async fn an_outage_fails_nobody_and_gives_the_attempts_back_however_few_batches_there_are() {
    for (count, healthy) in [(100, 0), (500, 0), (500, 2), (1_500, 3), (3_000, 10)] {
        for end in [lost(), code(70500)] {
            // A first batch that meets nothing but codes is its records' own fault.
            if healthy == 0 && end != lost() {
                continue;
            }
            for outage in [2_u64, 30, 600] {
                let mut harness = ImportHarness::of(count);
                let mut batches = 0;
                let mut since = None;
                let calls = harness.run(30_000, |sent| {
                    batches += u64::from(sent.command == Command::MultiaccountImport);
                    if batches <= healthy {
                        return fine(sent);
                    }
                    let since = *since.get_or_insert(sent.left);
                    if sent.left < since + Duration::from_secs(outage) { end.clone() } else { fine(sent) }
                });
                let outcomes = harness.outcomes();
                assert_eq!(outcomes.len() as u64, count, "{count} {healthy} {end:?} {outage}: {} calls", calls.len());
                let worse = outcomes.iter().find(|outcome| outcome.1 != Status::Imported);
                assert_eq!(worse, None, "{count} {healthy} {end:?} {outage}");
                if outage == 600 {
                    assert!(outcomes.iter().all(|outcome| outcome.3 <= 2), "{count} {healthy} {end:?}: {:?}", outcomes.last());
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_poisoned_record_in_every_batch_is_no_outage() {
    let mut harness = ImportHarness::of(6_000);
    let poisoned =
        |sent: &SentCall| sent.accounts.iter().find(|account| account.user_id.as_str().ends_with("50")).map(|a| a.user_id.clone());
    let calls = harness.run(3_000, |sent| match (poisoned(sent), sent.command) {
        (Some(id), Command::MultiaccountImport) => listed([id.as_str()]),
        (Some(_), _) => code(70500),
        (None, _) => fine(sent),
    });
    let outcomes = harness.outcomes();
    assert_eq!(outcomes.len(), 6_000, "{} calls", calls.len());
    for (row, status, error, attempts) in outcomes {
        let expected = if row % 100 == 50 { (Status::Failed, Some(70500), 6) } else { (Status::Imported, None, 1) };
        assert_eq!((status, error, attempts), expected, "{row}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_code_everywhere_stops_the_run() {
    let mut harness = ImportHarness::of(1_000);
    let calls = harness.run(2_000, |_| code(12345));
    assert!(calls.iter().any(|(_, end)| matches!(end, CallEffect::Halt { reason: HaltReason::UnknownCodes, .. })));
    assert_eq!(harness.outcomes(), []);
}

#[tokio::test(start_paused = true)]
async fn a_stuck_record_holds_back_a_bounded_window_of_batches() {
    let mut harness = ImportHarness::new(OnBatchFailure::FallBack);
    harness.workload.window.records = 1_000;
    let mut stuck = None;
    loop {
        while harness.wants_record() {
            harness.admit_many(1, "");
        }
        let Some(sent) = harness.send(Command::MultiaccountImport) else { break };
        let is_first = stuck.is_none();
        if is_first {
            harness.end(&sent, listed(["user1"]));
            stuck = harness.send(Command::AccountImport);
        } else {
            harness.end(&sent, listed([]));
        }
    }
    assert_eq!(harness.next_row - 1, 1_000);
    assert_eq!(harness.outcomes(), []);
    harness.end(&stuck.unwrap(), CallOutcome::Done(Answer::Nothing));
    assert_eq!(harness.outcomes().len(), 1_000);
    assert_eq!(harness.workload.buffer.bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn stop_lets_no_batch_leave_and_what_is_in_flight_settle() {
    let mut harness = ImportHarness::of(400);
    let first = harness.send(Command::MultiaccountImport).unwrap();
    harness.end(&first, listed([]));
    let (second, third) = (harness.send(Command::MultiaccountImport).unwrap(), harness.send(Command::MultiaccountImport).unwrap());
    harness.scheduler.stop();
    harness.end(&second, listed(["user150"]));
    harness.end(&third, code(40601));
    assert!(harness.send_any().is_none());
    assert_eq!((harness.outcomes().len(), harness.scheduler.in_flight()), (149, 0));
}

#[tokio::test(start_paused = true)]
async fn calls_of_all_apis_share_the_pool() {
    let mut harness = ImportHarness::of(1_000);
    harness.scheduler.limits.in_flight = 3;
    let first = harness.send(Command::MultiaccountImport).unwrap();
    harness.end(&first, listed(["user1", "user2"]));
    assert!(harness.send(Command::AccountImport).is_some() && harness.send(Command::MultiaccountImport).is_some());
    assert!(harness.send(Command::AccountImport).is_some());
    assert!(harness.send_any().is_none());
}
