//! Rows with profile cells: `portrait_set` after the import, its trial, and what fails whom.

use super::*;
use crate::domain::halt_reason::HaltReason;

const PROFILE: Command = Command::PortraitSet;

/// The tags that a call carries, by their keys.
fn keys(sent: &SentCall) -> Vec<String> {
    sent.accounts[0].tags.iter().map(|item| item.tag.to_string().replace("Custom.", "")).collect()
}

/// The calls of a run as commands and ids.
fn told(calls: &[(SentCall, CallEffect)]) -> Vec<(Command, String)> {
    calls.iter().map(|(sent, _)| (sent.command, sent.accounts[0].user_id.as_str().to_owned())).collect()
}

fn single() -> ImportHarness {
    ImportHarness::in_lane(Lane::Single)
}

impl ImportHarness {
    fn only_profiles() -> Self {
        let mut harness = single();
        let window = harness.workload.window;
        harness.workload = ImportWorkload::new(window, (Lane::Single, ImportScope::ProfilesOnly), 1);
        harness
    }

    /// As [`Self::outcomes`], with what the failed ones are told.
    fn failures(&mut self) -> Vec<(u64, Option<i64>, String, u32)> {
        std::iter::from_fn(|| self.workload.take_settled())
            .filter(|done| done.outcome.status == Status::Failed)
            .map(|done| (done.row, done.outcome.error_code, done.outcome.error_info, done.outcome.attempts))
            .collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_with_tags_is_imported_and_then_gets_one_call_for_all_of_them() {
    let mut harness = single();
    harness.admit_with_tags("a", "n", &["x", "y"]).admit("b", "").workload.input_ended();
    let calls = harness.run(10, fine);
    assert_eq!(told(&calls), [(SINGLE, "a".to_owned()), (PROFILE, "a".to_owned()), (SINGLE, "b".to_owned())]);
    assert_eq!(keys(&calls[1].0), ["x", "y"]);
    assert_eq!(harness.outcomes(), [(1, Status::Imported, None, 2), (2, Status::Imported, None, 1)]);
    assert!(harness.workload.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_row_of_a_batch_gets_its_profile_too() {
    let mut harness = ImportHarness::new(OnBatchFailure::FallBack);
    for row in 1..=250 {
        harness.admit_with_tags(&format!("u{row}"), "n", if row % 2 == 0 { &["x"] } else { &[] });
    }
    harness.workload.input_ended();
    let calls = harness.run(1_000, fine);
    assert_eq!((sizes(&calls, Command::MultiaccountImport), sizes(&calls, PROFILE).len()), (vec![100, 100, 50], 125));
    let expected: Outcomes = (1..=250).map(|row| (row, Status::Imported, None, if row % 2 == 0 { 2 } else { 1 })).collect();
    assert_eq!(harness.outcomes(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_later_record_of_the_user_waits_until_the_profile_of_the_earlier_one_is_set() {
    let mut harness = single();
    harness.admit_with_tags("a", "", &["x"]).admit("a", "later").workload.input_ended();
    let calls = harness.run(10, |sent| {
        assert!(sent.accounts[0].nick.is_none() || sent.command == SINGLE);
        fine(sent)
    });
    assert_eq!(calls.iter().map(|(sent, _)| (sent.command, sent.rows[0])).collect::<Vec<_>>(), [(SINGLE, 1), (PROFILE, 1), (SINGLE, 2)]);
}

#[tokio::test(start_paused = true)]
async fn each_api_has_its_own_attempts_and_both_are_charged() {
    let mut harness = single();
    for row in 1..=40 {
        harness.admit_with_tags(&format!("u{row}"), "", &["x"]);
    }
    harness.workload.input_ended();
    let mut met = std::collections::BTreeMap::<(Command, String), u32>::new();
    harness.run(1_000, |sent| {
        let id = sent.accounts[0].user_id.as_str();
        let times = met.entry((sent.command, id.to_owned())).or_default();
        *times += 1;
        match (id, sent.command) {
            ("u7", SINGLE) if *times < 5 => code(70169),
            ("u7", PROFILE) if *times < 5 => code(70500),
            ("u9", PROFILE) => code(70500),
            _ => fine(sent),
        }
    });
    let outcomes = harness.outcomes();
    assert_eq!(outcomes[6], (7, Status::Imported, None, 10));
    assert_eq!(outcomes[8], (9, Status::Failed, Some(70500), 6));
    assert!(outcomes.iter().all(|outcome| [7, 9].contains(&outcome.0) || *outcome == (outcome.0, Status::Imported, None, 2)));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_a_profile_fails_the_row_and_says_whose_it_is() {
    for refusal in [40001, 40601, 40605, 40610, 40005, 80001, 40008, 40009] {
        let mut harness = single();
        harness.admit_with_tags("a", "", &["x"]).admit_with_tags("b", "", &["x"]).workload.input_ended();
        harness.run(10, |sent| if sent.command == PROFILE && sent.has("b") { code(refusal) } else { fine(sent) });
        assert_eq!(harness.failures(), [(2, Some(refusal), format!("portrait_set: code {refusal}"), 2)]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_account_that_was_just_imported_may_not_be_there_yet() {
    let mut harness = single();
    harness.admit_with_tags("a", "", &["x"]).workload.input_ended();
    let mut times = 0;
    harness.run(10, |sent| {
        times += u32::from(sent.command == PROFILE);
        if sent.command == PROFILE && times < 3 { code(40003) } else { fine(sent) }
    });
    assert_eq!(harness.outcomes(), [(1, Status::Imported, None, 4)]);
}

#[tokio::test(start_paused = true)]
async fn without_an_import_an_unknown_account_is_imported_and_its_profile_set_once_more() {
    let mut harness = ImportHarness::only_profiles();
    harness.admit_with_tags("a", "n", &["x"]).admit_with_tags("b", "n", &["x"]).admit("c", "n").workload.input_ended();
    let mut imported = false;
    let calls = harness.run(20, |sent| {
        imported |= sent.command == SINGLE;
        if sent.command == PROFILE && sent.has("b") && !imported { code(40003) } else { fine(sent) }
    });
    let expected = [(PROFILE, "a"), (PROFILE, "b"), (SINGLE, "b"), (PROFILE, "b")];
    assert_eq!(told(&calls), expected.map(|(command, id)| (command, id.to_owned())));
    assert_eq!(calls[2].0.accounts[0].nick.as_deref(), Some("n"), "with the row's cells");
    let expected = [(1, Status::Imported, None, 1), (2, Status::Imported, None, 3), (3, Status::Imported, None, 0)];
    assert_eq!(harness.outcomes(), expected);
}

#[tokio::test(start_paused = true)]
async fn records_of_a_sync_say_themselves_which_calls_they_need() {
    let mut harness = single();
    for (id, calls) in [("a", RowCalls::Import), ("b", RowCalls::ProfileOnly), ("c", RowCalls::ImportAndProfile)] {
        let record = harness.record(id, "n", &["x"]);
        harness
            .workload
            .admit(IncomingRecord::Record { record, accepted_as: Status::Updated, calls, held_back: Vec::new() }, SystemTime::UNIX_EPOCH);
    }
    harness.workload.input_ended();
    let mut calls = told(&harness.run(10, fine));
    calls.sort_by(|one, other| one.1.cmp(&other.1));
    let expected = [(SINGLE, "a"), (PROFILE, "b"), (SINGLE, "c"), (PROFILE, "c")];
    assert_eq!(calls, expected.map(|(command, id)| (command, id.to_owned())));
    assert!(harness.outcomes().iter().all(|outcome| outcome.1 == Status::Updated));
}

#[tokio::test(start_paused = true)]
async fn the_first_call_with_a_new_tag_is_alone_and_imports_go_on() {
    let mut harness = single();
    for row in 1..=4 {
        harness.admit_with_tags(&format!("u{row}"), "", &["x"]);
    }
    harness.admit_with_tags("u5", "", &["x", "y"]).admit_with_tags("u6", "", &["x"]).workload.input_ended();
    let imports: Vec<_> = (0..6).map(|_| harness.send(SINGLE).unwrap()).collect();
    for sent in &imports {
        harness.end(sent, fine(sent));
    }
    let first = harness.send(PROFILE).unwrap();
    assert!(harness.send(PROFILE).is_none(), "the others wait");
    harness.end(&first, fine(&first));
    let known: Vec<_> = (0..3).map(|_| harness.send(PROFILE).unwrap()).collect();
    assert!(harness.send(PROFILE).is_none(), "the one with the new tag waits until it is alone");
    for sent in &known {
        harness.end(sent, fine(sent));
    }
    let second = harness.send(PROFILE).unwrap();
    assert!(second.has("u5") && harness.send(PROFILE).is_none());
    harness.end(&second, fine(&second));
    let last = harness.send(PROFILE).unwrap();
    harness.end(&last, fine(&last));
    all_imported(&harness.outcomes(), 6, 2);
}

#[tokio::test(start_paused = true)]
async fn a_tag_that_is_not_to_be_had_stops_the_run_and_charges_nobody() {
    for (refusal, reason) in [(40009, HaltReason::NoSuchTag), (40008, HaltReason::TagNotWritable)] {
        let mut harness = single();
        harness.admit_with_tags("a", "", &["x", "y", "z"]).admit_with_tags("b", "", &["x"]).workload.input_ended();
        let has_bad = |sent: &SentCall| sent.command == PROFILE && keys(sent).contains(&"y".to_owned());
        let calls = harness.run(20, |sent| if has_bad(sent) { code(refusal) } else { fine(sent) });
        let tried: Vec<_> = calls.iter().filter(|(sent, _)| sent.command == PROFILE).map(|(sent, _)| keys(sent)).collect();
        assert_eq!(tried, [vec!["x", "y", "z"], vec!["x"], vec!["y"]]);
        let says = format!("Tag_Profile_Custom_y: code {refusal}");
        assert_eq!(calls.last().unwrap().1, CallEffect::Halt { reason, code: Some(refusal), says });
        assert_eq!(harness.outcomes(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_row_whose_value_is_wrong_fails_alone() {
    let mut harness = single();
    harness.admit_with_tags("a", "", &["x", "y"]).admit_with_tags("b", "", &["x", "y"]).workload.input_ended();
    let is_wrong = |sent: &SentCall| sent.has("a") && keys(sent).contains(&"x".to_owned());
    harness.run(20, |sent| if sent.command == PROFILE && is_wrong(sent) { code(40610) } else { fine(sent) });
    assert_eq!(harness.failures(), [(1, Some(40610), "portrait_set: Custom.x: code 40610".to_owned(), 4)]);
    assert!(harness.workload.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_admin_without_the_right_stops_the_run() {
    let mut harness = single();
    harness.admit_with_tags("a", "", &["x"]).workload.input_ended();
    let calls = harness.run(10, |sent| if sent.command == PROFILE { code(40004) } else { fine(sent) });
    assert!(matches!(calls.last().unwrap().1, CallEffect::Halt { reason: HaltReason::NotAdmin, .. }));
}

#[tokio::test(start_paused = true)]
async fn at_most_a_thousand_rows_wait_for_their_profile_while_others_are_imported() {
    for lane in [Lane::Single, Lane::Batch(OnBatchFailure::FallBack)] {
        let mut harness = ImportHarness::in_lane(lane);
        for row in 1..=6_000 {
            harness.admit_with_tags(&format!("u{row}"), "", if row % 2 == 0 { &["x"] } else { &[] });
        }
        harness.workload.input_ended();
        harness.scheduler.limits.in_flight = 10_000;
        let (mut waiting, mut plain) = (0, 0);
        while let Some(sent) = [SINGLE, Command::MultiaccountImport].into_iter().find_map(|command| harness.send(command)) {
            harness.end(&sent, fine(&sent));
            waiting += sent.accounts.iter().filter(|account| !account.tags.is_empty()).count();
            plain += sent.accounts.iter().filter(|account| account.tags.is_empty()).count();
            assert!(waiting <= 1_000);
        }
        assert_eq!((waiting, plain), (1_000, 3_000), "{lane:?}");
        harness.run(20_000, fine);
        assert_eq!(harness.outcomes().len(), 6_000, "{lane:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_profiles_alone_blames_no_row_and_imports_go_on() {
    let mut harness = single();
    for row in 1..=3_000 {
        harness.admit_with_tags(&format!("u{row}"), "", if row % 3 == 0 { &["x"] } else { &[] });
    }
    harness.workload.input_ended();
    let began = harness.now;
    let outage = Duration::from_secs(1)..Duration::from_secs(600);
    let calls = harness.run(20_000, |sent| {
        let is_out = sent.command == PROFILE && outage.contains(&(sent.left - began));
        if is_out { lost() } else { fine(sent) }
    });
    let outcomes = harness.outcomes();
    assert_eq!(outcomes.len(), 3_000);
    assert!(outcomes.iter().all(|outcome| outcome.1 == Status::Imported && outcome.3 <= 2), "attempts of the outage are given back");
    let lost = calls.iter().filter(|(sent, _)| sent.command == PROFILE).count() - 1_000;
    assert!(lost < 200, "{lost} calls of an outage");
    let last_import = calls.iter().filter(|(sent, _)| sent.command == SINGLE).map(|(sent, _)| sent.left - began).max();
    assert!(last_import < Some(outage.end), "{last_import:?}");
}

#[tokio::test(start_paused = true)]
async fn what_one_row_meets_while_its_tags_are_tried_counts_as_one_refusal() {
    for tags in [&["x"][..], &["x", "y", "z"]] {
        for refused in [99, 100] {
            let mut harness = single();
            for row in 1..=150 {
                harness.admit_with_tags(&format!("u{row}"), "", tags);
            }
            harness.workload.input_ended();
            let is_refused = |sent: &SentCall| sent.command == PROFILE && sent.rows[0] <= refused;
            let calls = harness.run(2_000, |sent| if is_refused(sent) { code(40005) } else { fine(sent) });
            assert_eq!(harness.failures().len() as u64, refused, "{tags:?}");
            let end = &calls.last().unwrap().1;
            let stops = matches!(end, CallEffect::Halt { reason: HaltReason::AllProfilesRefused, code: Some(40005), .. });
            assert_eq!(stops, refused == 100, "{tags:?}, {refused} refused: {end:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_tag_whose_value_alone_is_refused_is_known_to_the_app() {
    for refusal in [40605, 40610, 40601] {
        for (tags, first_row) in [(&["x"][..], 1), (&["x", "y"], 3), (&["y", "x"], 3)] {
            let mut harness = single();
            for row in 1..=400 {
                harness.admit_with_tags(&format!("u{row}"), "", tags);
            }
            harness.workload.input_ended();
            let is_wrong = |sent: &SentCall| sent.command == PROFILE && keys(sent).contains(&"x".to_owned());
            let calls = harness.run(5_000, |sent| if is_wrong(sent) { code(refusal) } else { fine(sent) });
            assert_eq!(harness.failures().len(), 400);
            assert_eq!(sizes(&calls, PROFILE).len(), first_row + 399, "{refusal} for x of {tags:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_one_row_of_refused_values_the_others_leave_side_by_side() {
    let mut harness = single();
    for row in 1..=20 {
        harness.admit_with_tags(&format!("u{row}"), "", &["x"]);
    }
    harness.workload.input_ended();
    let imports: Vec<_> = (0..20).map(|_| harness.send(SINGLE).unwrap()).collect();
    for sent in &imports {
        harness.end(sent, fine(sent));
    }
    let first = harness.send(PROFILE).unwrap();
    assert!(harness.send(PROFILE).is_none());
    harness.end(&first, code(40605));
    assert_eq!(std::iter::from_fn(|| harness.send(PROFILE)).count(), 19);
}

#[tokio::test(start_paused = true)]
async fn a_call_with_a_single_tag_is_not_repeated_to_find_out_which_was_refused() {
    for refusal in [40005, 80001, 40001] {
        let mut harness = single();
        harness.admit_with_tags("a", "", &["x"]).workload.input_ended();
        let calls = harness.run(10, |sent| if sent.command == PROFILE { code(refusal) } else { fine(sent) });
        assert_eq!(sizes(&calls, PROFILE).len(), 1);
        assert_eq!(harness.failures(), [(1, Some(refusal), format!("portrait_set: code {refusal}"), 2)]);
    }
    for (refusal, reason) in [(40009, HaltReason::NoSuchTag), (40008, HaltReason::TagNotWritable)] {
        let mut harness = single();
        harness.admit_with_tags("a", "", &["x"]).workload.input_ended();
        let calls = harness.run(10, |sent| if sent.command == PROFILE { code(refusal) } else { fine(sent) });
        assert_eq!(sizes(&calls, PROFILE).len(), 1);
        let says = format!("Tag_Profile_Custom_x: code {refusal}");
        assert_eq!(calls.last().unwrap().1, CallEffect::Halt { reason, code: Some(refusal), says });
        assert_eq!(harness.outcomes(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_account_counts_among_the_attempts_of_its_profile() {
    let mut harness = ImportHarness::only_profiles();
    harness.scheduler.limits.max_attempts = 2;
    harness.admit_with_tags("a", "", &["x"]);
    for row in 2..=100 {
        harness.admit_with_tags(&format!("u{row}"), "", &["x"]);
    }
    harness.workload.input_ended();
    let calls = harness.run(1_000, |sent| if sent.command == PROFILE && sent.has("a") { code(40003) } else { fine(sent) });
    let profiles = calls.iter().filter(|(sent, _)| sent.command == PROFILE && sent.has("a")).count();
    // The others' have shown between them that it is the row's own fault.
    assert_eq!((profiles, harness.failures()), (2, vec![(1, Some(40003), "portrait_set: code 40003".to_owned(), 3)]));
}

#[tokio::test(start_paused = true)]
async fn of_an_account_that_only_profiles_had_to_import_the_last_row_wins() {
    let mut harness = ImportHarness::only_profiles();
    harness.admit_with_tags("a", "first", &["x"]).admit_with_tags("a", "last", &["x"]).admit_with_tags("b", "n", &["x"]);
    harness.workload.input_ended();
    let (mut imported, mut nick) = (false, None);
    harness.run(20, |sent| {
        if sent.command == SINGLE {
            imported = true;
            nick = sent.accounts[0].nick.clone();
        }
        if sent.command == PROFILE && sent.has("a") && !imported { code(40003) } else { fine(sent) }
    });
    assert_eq!(nick.as_deref(), Some("last"));
    assert!(harness.outcomes().iter().all(|outcome| outcome.1 == Status::Imported));
}

#[tokio::test(start_paused = true)]
async fn a_row_that_is_read_later_wins_over_the_one_that_had_to_import_the_account() {
    for profile_of_first in [Ok(()), Err(40605)] {
        let mut harness = ImportHarness::only_profiles();
        let (mut imported, mut nick) = (false, None);
        let mut answer = |sent: &SentCall| {
            if sent.command == SINGLE {
                imported = true;
                nick = sent.accounts[0].nick.clone();
            }
            match profile_of_first {
                _ if sent.command == PROFILE && !imported => code(40003),
                Err(refusal) if sent.command == PROFILE && sent.rows == [1] => code(refusal),
                _ => fine(sent),
            }
        };
        harness.admit_with_tags("a", "first", &["x"]);
        harness.run(20, &mut answer);
        assert_eq!(harness.outcomes().len(), 1, "it has settled before the next one is read");
        harness.admit_with_tags("a", "last", &["x"]).workload.input_ended();
        harness.run(20, &mut answer);
        assert_eq!(harness.outcomes(), [(2, Status::Imported, None, 2)]);
        assert_eq!(nick.as_deref(), Some("last"), "{profile_of_first:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_is_about_a_text_shows_nothing_of_its_tag() {
    // The documentation does not say whether a text is looked at before its field is: so the next one with the tag is alone again, and a
    // field that the app lacks still stops the run.
    for refusal in [40005, 80001, 40001] {
        let mut harness = single();
        for user in ["a", "b", "c"] {
            harness.admit_with_tags(user, "", &["x"]);
        }
        harness.workload.input_ended();
        let imports: Vec<_> = (0..3).map(|_| harness.send(SINGLE).unwrap()).collect();
        for sent in &imports {
            harness.end(sent, fine(sent));
        }
        let first = harness.send(PROFILE).unwrap();
        harness.end(&first, code(refusal));
        let second = harness.send(PROFILE).unwrap();
        assert!(harness.send(PROFILE).is_none(), "{refusal}: it is alone");
        let effect = harness.end(&second, code(40009));
        assert!(matches!(effect, CallEffect::Halt { reason: HaltReason::NoSuchTag, .. }), "{refusal}: {effect:?}");
        assert_eq!(harness.outcomes(), [(1, Status::Failed, Some(refusal), 2)], "nothing else is charged");
    }
}

#[tokio::test(start_paused = true)]
async fn rows_of_which_one_tag_was_taken_are_refused_all_the_same() {
    for (tags, refused) in [(["x", "y"], 100), (["y", "x"], 100), (["x", "y"], 99), (["y", "x"], 99)] {
        let mut harness = single();
        for row in 1..=150 {
            harness.admit_with_tags(&format!("u{row}"), "", &tags);
        }
        harness.workload.input_ended();
        let is_refused = |sent: &SentCall| sent.command == PROFILE && sent.rows[0] <= refused && keys(sent).contains(&"y".to_owned());
        let calls = harness.run(2_000, |sent| if is_refused(sent) { code(40005) } else { fine(sent) });
        assert_eq!(harness.failures().len() as u64, refused, "{tags:?}");
        let halt = CallEffect::Halt { reason: HaltReason::AllProfilesRefused, code: Some(40005), says: "Custom.y: code 40005".to_owned() };
        assert_eq!(calls.last().unwrap().1 == halt, refused == 100, "{tags:?}, {refused} refused: {:?}", calls.last());
    }
}
