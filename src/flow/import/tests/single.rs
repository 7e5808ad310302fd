//! Records that are sent one by one.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};

use super::*;
use crate::domain::halt_reason::HaltReason;
use crate::domain::verdict::ThrottleScope;

/// The row that a test is told by which carries no record of the input.
const PROBE: u64 = u64::MAX;

/// As [`ImportHarness`], with the calls known by their rows.
struct SchedulerHarness {
    base: ImportHarness,
    calls: HashMap<u64, SentCall>,
    /// UserIDs of the tests that left, without those of fresh records.
    probes: Vec<String>,
}

impl Deref for SchedulerHarness {
    type Target = ImportHarness;

    fn deref(&self) -> &ImportHarness {
        &self.base
    }
}

impl DerefMut for SchedulerHarness {
    fn deref_mut(&mut self) -> &mut ImportHarness {
        &mut self.base
    }
}

impl SchedulerHarness {
    fn new() -> Self {
        Self { base: ImportHarness::in_lane(Lane::Single), calls: HashMap::new(), probes: Vec::new() }
    }

    fn admit(&mut self, id: &str) -> &mut Self {
        self.base.admit(id, "");
        self
    }

    fn admit_many(&mut self, many: u64) -> &mut Self {
        self.base.admit_many(many, "");
        self
    }

    fn pass(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self
    }

    fn leave(&mut self) -> Option<u64> {
        self.leave_with_retry().map(|(row, _)| row)
    }

    fn leave_with_retry(&mut self) -> Option<(u64, bool)> {
        let sent = self.send_any()?;
        let (row, is_retry) = (sent.rows[0], sent.is_retry);
        assert_eq!(sent.accounts.len(), 1);
        if row == PROBE {
            self.probes.push(sent.accounts[0].user_id.as_str().to_owned());
        }
        self.calls.insert(row, sent);
        Some((row, is_retry))
    }

    fn end(&mut self, row: u64, end: CallOutcome) -> CallEffect {
        let sent = SentCall { left: self.now, ..self.calls[&row].clone() };
        self.base.end(&sent, end)
    }

    /// Calls whoever may be called until nobody may, for at most `calls` calls; each ends as `answer` says.
    fn run(&mut self, calls: usize, answer: impl Fn(u64) -> CallOutcome) -> Vec<CallEffect> {
        let mut all = Vec::new();
        while all.len() < calls {
            self.resolve_exhausted();
            if let Some(row) = self.leave() {
                all.push(self.end(row, answer(row)));
            } else if let Some(at) = self.scheduler.next_wake().filter(|at| *at > self.now) {
                self.now = at;
            } else {
                break;
            }
        }
        all
    }
}

#[tokio::test(start_paused = true)]
async fn outcomes_come_in_input_order_whatever_ends_first() {
    let mut harness = SchedulerHarness::new();
    harness.admit("a").admit("b").admit("bad id ").admit("c");
    assert_eq!((harness.leave(), harness.leave(), harness.leave(), harness.leave()), (Some(1), Some(2), Some(4), None));
    harness.end(4, code(0));
    harness.end(2, code(40601));
    assert_eq!(harness.outcomes(), []);
    harness.end(1, code(0));
    let expected = [
        (1, Status::Imported, None, 1),
        (2, Status::Failed, Some(40601), 1),
        (3, Status::Invalid, None, 0),
        (4, Status::Imported, None, 1),
    ];
    assert_eq!(harness.outcomes(), expected);
    assert!(harness.workload.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_later_record_of_one_user_id_leaves_only_when_the_earlier_has_settled() {
    let mut harness = SchedulerHarness::new();
    harness.admit("a").admit("a").admit("b").admit("a");
    assert_eq!((harness.leave(), harness.leave(), harness.leave()), (Some(1), Some(3), None));
    harness.end(1, code(70169));
    assert_eq!(harness.leave(), None);
    harness.pass(Duration::from_secs(1));
    assert_eq!(harness.leave(), Some(1));
    harness.end(1, code(0));
    assert_eq!((harness.leave(), harness.leave()), (Some(2), None));
    harness.end(2, code(40601));
    assert_eq!(harness.leave(), Some(4));
}

#[tokio::test(start_paused = true)]
async fn a_poisoned_record_fails_after_its_attempts_and_nobody_else_does() {
    let mut harness = SchedulerHarness::new();
    harness.admit_many(50).workload.input_ended();
    harness.run(500, |row| if row == 7 { code(70500) } else { code(0) });
    let outcomes = harness.outcomes();
    assert_eq!(outcomes.len(), 50);
    for (row, status, error, attempts) in outcomes {
        let expected = if row == 7 { (Status::Failed, Some(70500), 5) } else { (Status::Imported, None, 1) };
        assert_eq!((status, error, attempts), expected, "{row}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_poisoned_tail_of_a_file_is_no_outage() {
    let mut harness = SchedulerHarness::new();
    harness.admit_many(3).workload.input_ended();
    harness.run(500, |row| if row == 1 || row == PROBE { code(0) } else { code(40006) });
    assert_eq!(harness.probes, ["user1", "user1"], "one test, and one after the last try");
    assert_eq!(
        harness.outcomes(),
        [(1, Status::Imported, None, 1), (2, Status::Failed, Some(40006), 5), (3, Status::Failed, Some(40006), 5)]
    );
}

#[tokio::test(start_paused = true)]
async fn an_outage_fails_nobody_however_small_the_file() {
    for healthy in [0, 4] {
        let mut harness = SchedulerHarness::new();
        harness.admit_many(10).workload.input_ended();
        let ends = harness.run(500, |row| if row <= healthy { code(0) } else { CallOutcome::Lost { why: "HTTP 502".to_owned() } });
        assert!(ends.contains(&CallEffect::Down), "{healthy}");
        assert_eq!(harness.outcomes().len() as u64, healthy);
        harness.run(500, |_| code(0));
        let outcomes = harness.outcomes();
        assert_eq!(outcomes.len() as u64, 10 - healthy);
        assert!(outcomes.iter().all(|(_, status, _, attempts)| *status == Status::Imported && *attempts == 1), "{outcomes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_catches_the_tail_of_a_file_fails_nobody() {
    let mut harness = SchedulerHarness::new();
    harness.admit_many(100).workload.input_ended();
    let ends = harness.run(500, |row| if row <= 60 { code(0) } else { CallOutcome::Lost { why: "HTTP 502".to_owned() } });
    assert!(ends.contains(&CallEffect::Down));
    assert_eq!(harness.outcomes().len(), 60);
    harness.run(500, |_| code(0));
    assert!(harness.outcomes().iter().all(|(_, status, _, attempts)| *status == Status::Imported && *attempts == 1));
    assert!(harness.workload.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_answers_some_fails_nobody() {
    let mut harness = SchedulerHarness::new();
    harness.admit_many(10).workload.input_ended();
    let ends = harness.run(200, |row| if row == 1 { code(60008) } else { CallOutcome::Lost { why: "HTTP 502".to_owned() } });
    assert!(ends.contains(&CallEffect::Down));
    assert_eq!(harness.outcomes(), []);
    harness.run(200, |_| code(0));
    assert!(harness.outcomes().iter().all(|(_, status, _, attempts)| *status == Status::Imported && *attempts == 1));
}

#[tokio::test(start_paused = true)]
async fn while_the_service_is_down_and_no_fresh_record_is_there_to_test_with_records_are_read() {
    let mut harness = SchedulerHarness::new();
    harness.admit_many(1);
    let row = harness.leave().unwrap();
    assert_eq!(harness.end(row, unreached()), CallEffect::Down);
    assert!(!harness.wants_record(), "the probe is not due");
    harness.pass(Duration::from_secs(1));
    assert!(harness.wants_record());
    harness.admit("bad id ");
    assert!(harness.wants_record(), "an invalid one can't be sent");
    harness.admit("good");
    assert!(!harness.wants_record());
    let row = harness.leave().unwrap();
    assert_eq!((row, harness.end(row, code(0))), (3, CallEffect::Back));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_never_gets_an_answer_among_ones_that_do_fails() {
    let mut harness = SchedulerHarness::new();
    harness.admit_many(10).workload.input_ended();
    harness.run(500, |row| if row == 10 { CallOutcome::Lost { why: "reset".to_owned() } } else { code(0) });
    assert_eq!(harness.outcomes().last(), Some(&(10, Status::Failed, None, 5)));
}

#[tokio::test(start_paused = true)]
async fn an_outage_fails_nobody_and_gives_the_attempts_back() {
    let mut harness = SchedulerHarness::new();
    harness.admit_many(300).workload.input_ended();
    let ends = harness.run(200, |_| CallOutcome::Lost { why: "HTTP 502".to_owned() });
    assert!(ends.contains(&CallEffect::Down));
    assert!(harness.scheduler.down_since().is_some());
    assert_eq!(harness.outcomes(), []);
    let ends = harness.run(2_000, |_| code(0));
    assert!(ends.contains(&CallEffect::Back));
    let outcomes = harness.outcomes();
    assert_eq!(outcomes.len(), 300);
    assert!(outcomes.iter().all(|(_, status, _, attempts)| *status == Status::Imported && *attempts == 1), "{outcomes:?}");
}

#[tokio::test(start_paused = true)]
async fn while_the_service_is_down_one_probe_leaves_at_a_time() {
    let mut harness = SchedulerHarness::new();
    harness.admit_many(30);
    let row = harness.leave().unwrap();
    assert_eq!(harness.end(row, unreached()), CallEffect::Down, "alone in flight");
    assert_eq!(harness.leave(), None);
    assert!(!harness.wants_record());
    harness.pass(Duration::from_secs(1));
    let probe = harness.leave().unwrap();
    assert_eq!(harness.leave(), None);
    harness.end(probe, unreached());
    harness.pass(Duration::from_millis(1_900));
    assert_eq!(harness.leave(), None, "the second probe comes after two seconds");
    harness.pass(Duration::from_millis(200));
    assert!(harness.leave().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_poisoned_probe_does_not_keep_the_service_down() {
    let mut harness = SchedulerHarness::new();
    harness.admit_many(40).workload.input_ended();
    harness.run(60, |_| CallOutcome::Lost { why: "reset".to_owned() });
    assert!(harness.scheduler.down_since().is_some());
    let ends = harness.run(4_000, |row| if row == 1 { code(70500) } else { code(0) });
    assert!(ends.contains(&CallEffect::Back));
    assert_eq!(harness.outcomes().len(), 40);
}

#[tokio::test(start_paused = true)]
async fn throttling_signatures_and_halts_cost_no_attempt() {
    let mut harness = SchedulerHarness::new();
    harness.admit("a");
    for (end, effect) in [
        (code(60007), CallEffect::Throttled(ThrottleScope::Api)),
        (CallOutcome::TooMany, CallEffect::Throttled(ThrottleScope::All)),
        (code(70001), CallEffect::SignatureRejected),
        (code(60011), CallEffect::Throttled(ThrottleScope::All)),
        (code(60018), CallEffect::Throttled(ThrottleScope::All)),
        (code(60019), CallEffect::Throttled(ThrottleScope::All)),
    ] {
        harness.pass(Duration::from_secs(30));
        assert_eq!(harness.leave(), Some(1));
        assert_eq!(harness.end(1, end), effect);
    }
    harness.pass(Duration::from_secs(30));
    harness.leave();
    let halt = CallEffect::Halt { reason: HaltReason::NotAdmin, code: Some(70403), says: "code 70403".to_owned() };
    assert_eq!(harness.end(1, code(70403)), halt);
    assert_eq!(harness.outcomes(), []);
    harness.leave();
    harness.end(1, code(0));
    assert_eq!(harness.outcomes(), [(1, Status::Imported, None, 1)]);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_code_fails_one_row_and_halts_the_run_when_it_is_everywhere() {
    let mut harness = SchedulerHarness::new();
    harness.admit_many(10).workload.input_ended();
    harness.run(100, |row| if row == 3 { code(12345) } else { code(0) });
    assert_eq!(harness.outcomes()[2], (3, Status::Failed, Some(12345), 3));
    let mut harness = SchedulerHarness::new();
    harness.admit_many(40);
    let ends = harness.run(100, |_| code(12345));
    assert!(ends.iter().any(|end| matches!(end, CallEffect::Halt { reason: HaltReason::UnknownCodes, .. })));
    assert_eq!(harness.outcomes(), []);
}

#[tokio::test(start_paused = true)]
async fn retries_take_a_tenth_of_the_calls_while_fresh_records_wait() {
    let mut harness = SchedulerHarness::new();
    harness.admit_many(2_000);
    let mut retries = 0;
    for _ in 0..1_000 {
        harness.pass(Duration::from_millis(50));
        let (row, is_retry) = harness.leave_with_retry().unwrap();
        retries += u32::from(is_retry);
        harness.end(row, if row.is_multiple_of(3) { code(70169) } else { code(0) });
    }
    assert!((95..=100).contains(&retries), "{retries}");
}

#[tokio::test(start_paused = true)]
async fn a_stuck_record_holds_back_a_bounded_window() {
    let mut harness = SchedulerHarness::new();
    harness.workload.window.records = 100;
    harness.admit_many(1);
    assert_eq!(harness.leave(), Some(1));
    while harness.wants_record() {
        harness.admit_many(1);
        let row = harness.leave().unwrap();
        harness.end(row, code(0));
    }
    assert_eq!(harness.next_row - 1, 100);
    assert_eq!(harness.workload.rows_waiting(), 99);
    harness.end(1, code(0));
    assert_eq!(harness.outcomes().len(), 100);
    assert_eq!(harness.workload.rows_waiting(), 0);
    assert_eq!(harness.workload.buffer.bytes(), 0);
    assert!(harness.wants_record());
}

#[tokio::test(start_paused = true)]
async fn rows_wait_from_their_outcome_until_every_earlier_row_has_one() {
    let mut harness = SchedulerHarness::new();
    harness.admit("stuck").admit("no good \u{e9}").admit("fine").admit("refused");
    let left: Vec<u64> = std::iter::from_fn(|| harness.leave()).collect();
    assert_eq!(left, [1, 3, 4]);
    assert_eq!(harness.workload.rows_waiting(), 1, "an invalid row has its outcome at once");
    harness.end(3, code(0));
    harness.end(4, code(70402));
    assert_eq!((harness.outcomes().len(), harness.workload.rows_waiting()), (0, 3));
    harness.end(1, code(70402));
    assert_eq!((harness.outcomes().len(), harness.workload.rows_waiting()), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn stop_lets_nothing_leave() {
    let mut harness = SchedulerHarness::new();
    harness.admit_many(3);
    let row = harness.leave().unwrap();
    harness.scheduler.stop();
    assert_eq!(harness.leave(), None);
    assert!(!harness.wants_record());
    harness.end(row, code(0));
    assert_eq!(harness.scheduler.in_flight(), 0);
    assert_eq!(harness.outcomes().len(), 1);
}
