//! The first batch: whether the service accepts batches at all, and whether they keep the profiles that they carry.

use super::*;
use crate::domain::halt_reason::HaltReason;

#[tokio::test(start_paused = true)]
async fn the_first_batch_with_profiles_is_read_back_before_the_next_leaves_or_a_row_settles() {
    let mut harness = ImportHarness::new(OnBatchFailure::FallBack);
    harness.admit_many(300, "Nick").workload.input_ended();
    let first = harness.send(Command::MultiaccountImport).unwrap();
    assert!(harness.send_any().is_none(), "it leaves alone");
    harness.end(&first, listed(["user7"]));
    let read = harness.send_any().unwrap();
    assert_eq!((read.command, read.rows.len(), read.has("user7")), (Command::PortraitGet, 99, false));
    assert!(harness.send_any().is_none(), "nothing else before that");
    assert_eq!(harness.outcomes(), []);
    harness.end(&read, fine(&read));
    assert_eq!(harness.outcomes().len(), 6, "up to the listed one");
    assert_eq!(harness.send(Command::AccountImport).unwrap().rows, [7]);
    assert_eq!((harness.send_batch().unwrap().len(), harness.send_batch().unwrap().len()), (100, 100), "no further one is read back");
}

#[tokio::test(start_paused = true)]
async fn a_field_that_is_absent_or_other_is_read_again_after_two_seconds() {
    let sent = |nick: Option<&str>, face_url: Option<&str>| Profile {
        user_id: "a".into(),
        fields: [nick.map(Into::into), face_url.map(Into::into)].into(),
        ..Profile::default()
    };
    for (profile, kept) in [
        (Some(sent(Some("Nick"), None)), true),
        (Some(sent(Some("Nick"), Some("whatever"))), true),
        (Some(sent(Some("nick"), None)), false),
        (Some(sent(Some("Nick "), None)), false),
        (Some(sent(Some(""), None)), false),
        (Some(sent(None, None)), false),
        (None, false),
    ] {
        let mut harness = ImportHarness::new(OnBatchFailure::FallBack);
        harness.admit("a", "Nick").admit("b", "").workload.input_ended();
        let batch = harness.send(Command::MultiaccountImport).unwrap();
        harness.end(&batch, listed([]));
        let read = harness.send(Command::PortraitGet).unwrap();
        harness.end(&read, CallOutcome::Done(Answer::Profiles(profile.clone().into_iter().collect())));
        if kept {
            all_imported(&harness.outcomes(), 2, 1);
            continue;
        }
        harness.now += Duration::from_millis(1_990);
        assert!(harness.send_any().is_none(), "{profile:?}");
        harness.now += Duration::from_millis(20);
        let again = harness.send(Command::PortraitGet).unwrap();
        harness.end(&again, fine(&again));
        assert_eq!(harness.workload.lane(), Lane::Batch(OnBatchFailure::FallBack), "shown late is shown");
        all_imported(&harness.outcomes(), 2, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_profiles_lead_to_the_single_lane_that_batch_included() {
    let mut harness = ImportHarness::new(OnBatchFailure::FallBack);
    harness.admit_many(250, "Nick").workload.input_ended();
    let calls = harness.run(1_000, |sent| match sent.command {
        Command::MultiaccountImport => listed(["user3"]),
        _ => dropping(sent),
    });
    assert_eq!(sizes(&calls, Command::PortraitGet), [99, 99]);
    assert_eq!(sizes(&calls, Command::MultiaccountImport), [100]);
    let singles: Vec<u64> = calls.iter().filter(|(sent, _)| sent.command == Command::AccountImport).map(|(sent, _)| sent.rows[0]).collect();
    assert!(singles.iter().copied().eq(1..=250), "each once, in order");
    assert_eq!(harness.workload.lane(), Lane::FellBack);
    let outcomes = harness.outcomes();
    assert!(
        outcomes.iter().all(|outcome| outcome.1 == Status::Imported && outcome.3 == if outcome.0 <= 100 { 2 } else { 1 }),
        "{outcomes:?}"
    );
    assert_eq!(outcomes.len(), 250);
}

#[tokio::test(start_paused = true)]
async fn strict_stops_instead_and_settles_nothing_of_that_batch() {
    for read in [None, Some(code(70500)), Some(code(40003)), Some(lost()), Some(code(12345))] {
        let mut harness = ImportHarness::new(OnBatchFailure::Stop);
        harness.admit_many(250, "Nick").workload.input_ended();
        let calls = harness.run(20, |sent| match (&read, sent.command) {
            (Some(end), Command::PortraitGet) => end.clone(),
            _ => dropping(sent),
        });
        let halt = calls.iter().position(|(_, end)| matches!(end, CallEffect::Halt { reason: HaltReason::BatchDropsProfiles, .. }));
        let reads = match &read {
            None => 2,
            Some(CallOutcome::Refused { code: 40003, .. }) => 1,
            Some(_) => 5,
        };
        assert_eq!(halt, Some(reads), "{read:?}");
        harness.scheduler.stop();
        assert!(harness.send_any().is_none());
        assert_eq!(harness.outcomes(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_back_that_is_not_to_be_had_is_as_dropped_and_charges_nobody() {
    for (end, reads) in [(code(70500), 5), (lost(), 5), (code(40003), 1), (code(12345), 5)] {
        let mut harness = ImportHarness::new(OnBatchFailure::FallBack);
        harness.admit_many(120, "Nick").workload.input_ended();
        let calls = harness.run(500, |sent| if sent.command == Command::PortraitGet { end.clone() } else { fine(sent) });
        assert_eq!(sizes(&calls, Command::PortraitGet).len(), reads, "{end:?}");
        assert_eq!(harness.workload.lane(), Lane::FellBack);
        let outcomes = harness.outcomes();
        let expected: Outcomes = (1..=120).map(|row| (row, Status::Imported, None, if row <= 100 { 2 } else { 1 })).collect();
        assert_eq!(outcomes, expected, "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn throttling_and_signatures_of_the_read_back_only_delay_it() {
    let mut harness = ImportHarness::new(OnBatchFailure::Stop);
    harness.admit_many(120, "Nick").workload.input_ended();
    let mut reads = 0;
    harness.run(500, |sent| {
        reads += u32::from(sent.command == Command::PortraitGet);
        match reads {
            1..=6 => code(60007),
            7..=9 => code(70001),
            0 | 10.. => fine(sent),
        }
    });
    all_imported(&harness.outcomes(), 120, 1);
}

#[tokio::test(start_paused = true)]
async fn batches_without_profiles_need_no_read_back_and_the_first_with_some_does() {
    let mut harness = ImportHarness::new(OnBatchFailure::FallBack);
    harness.admit_many(200, "").admit_many(200, "Nick").workload.input_ended();
    let calls = harness.run(500, fine);
    let order: Vec<Command> = calls.iter().map(|(sent, _)| sent.command).collect();
    let (batch, read) = (Command::MultiaccountImport, Command::PortraitGet);
    assert_eq!(order, [batch, batch, batch, read, batch]);
    all_imported(&harness.outcomes(), 400, 1);
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_members_with_profiles_are_all_listed_is_not_read_back() {
    let mut harness = ImportHarness::new(OnBatchFailure::FallBack);
    harness.admit("a", "Nick").admit_many(99, "").admit_many(100, "Nick").workload.input_ended();
    let calls = harness.run(500, |sent| if sent.has("a") && sent.rows.len() > 1 { listed(["a"]) } else { fine(sent) });
    let reads: Vec<&SentCall> = calls.iter().map(|(sent, _)| sent).filter(|sent| sent.command == Command::PortraitGet).collect();
    assert_eq!(reads.len(), 1);
    assert_eq!(reads[0].rows[0], 101);
    assert_eq!(harness.outcomes().len(), 200);
}

#[tokio::test(start_paused = true)]
async fn the_half_with_profiles_leaves_alone_whatever_its_sibling_does() {
    let mut harness = ImportHarness::new(OnBatchFailure::FallBack);
    harness.admit_many(150, "").admit_many(50, "Nick").admit_many(100, "Nick").workload.input_ended();
    let first = harness.send(Command::MultiaccountImport).unwrap();
    harness.end(&first, listed([]));
    let second = harness.send(Command::MultiaccountImport).unwrap();
    harness.end(&second, code(40601));
    let (plain, profiled) = (harness.send(Command::MultiaccountImport).unwrap(), harness.send(Command::MultiaccountImport).unwrap());
    assert_eq!((plain.rows[0], profiled.rows[0]), (101, 151));
    harness.end(&plain, listed([]));
    assert!(harness.send_any().is_none(), "the next batch waits until the one with profiles is read back");
    harness.end(&profiled, listed([]));
    assert_eq!(harness.send_any().unwrap().command, Command::PortraitGet);
}

#[tokio::test(start_paused = true)]
async fn batches_that_are_refused_altogether_are_given_up_once_a_record_is_taken_singly() {
    for end in [code(40001), code(60015), code(70402)] {
        for doubt in [OnBatchFailure::FallBack, OnBatchFailure::Stop] {
            let mut harness = ImportHarness::new(doubt);
            harness.admit_many(300, "").workload.input_ended();
            let calls = harness.run(1_000, |sent| if sent.command == Command::MultiaccountImport { end.clone() } else { fine(sent) });
            let batches = sizes(&calls, Command::MultiaccountImport);
            assert_eq!(batches[0], 100);
            assert!(batches[1..].iter().all(|size| *size <= 50), "only parts of the first one: {batches:?}");
            let halts = calls.iter().filter(|(_, end)| matches!(end, CallEffect::Halt { reason: HaltReason::BatchesRefused, .. })).count();
            match doubt {
                OnBatchFailure::Stop => assert!(halts > 0),
                OnBatchFailure::FallBack => {
                    assert_eq!((halts, harness.workload.lane()), (0, Lane::FellBack));
                    let outcomes = harness.outcomes();
                    assert!(outcomes.len() == 300 && outcomes.iter().all(|outcome| outcome.1 == Status::Imported));
                    assert!(outcomes[100..].iter().all(|outcome| outcome.3 == 1));
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_batch_of_which_nothing_is_taken_is_not_blamed_on_batches() {
    for (end, single) in [(code(40601), code(40601)), (code(70500), code(70500)), (listed(["x"]), code(40601))] {
        for doubt in [OnBatchFailure::FallBack, OnBatchFailure::Stop] {
            let mut harness = ImportHarness::new(doubt);
            harness.admit_many(500, "Nick").workload.input_ended();
            let calls = harness.run(20_000, |sent| match sent.command {
                _ if sent.rows[0] > 100 => fine(sent),
                Command::MultiaccountImport if matches!(end, CallOutcome::Done(_)) => {
                    listed(sent.accounts.iter().map(|account| account.user_id.as_str()))
                }
                Command::MultiaccountImport => end.clone(),
                _ => single.clone(),
            });
            let outcomes = harness.outcomes();
            assert_eq!(outcomes.len(), 500, "{end:?} {doubt:?}: {} calls", calls.len());
            for (row, status, _, _) in outcomes {
                assert_eq!(status == Status::Failed, row <= 100, "{row} {end:?}");
            }
            assert_eq!(harness.workload.lane(), Lane::Batch(doubt));
        }
    }
}
