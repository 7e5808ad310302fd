use std::collections::HashMap;
use std::time::Duration;

use super::*;
use crate::domain::account::{Account, Suspects};
use crate::domain::position::InputPosition;
use crate::domain::verdict::{Answer, ThrottleScope};

fn record(row: u64, id: &str) -> Record {
    Record {
        row,
        line: row + 1,
        end: InputPosition { rows: row, offset: row * 10, line: row + 2, digest: 0 },
        user_id: id.as_bytes().into(),
        other_id: None,
        suspects: Suspects::default(),
        account: Account::parse(id.as_bytes(), b"", b""),
        fields: csv::ByteRecord::from(vec![id]),
    }
}

fn limits() -> DeliveryLimits {
    DeliveryLimits { max_attempts: 5, in_flight: 256, window_records: 65_536, window_bytes: 24 << 20, lane: Lane::Single }
}

fn code(code: i64) -> CallOutcome {
    match code {
        0 => CallOutcome::Done(Answer::Nothing),
        code => CallOutcome::Refused { code, info: format!("code {code}") },
    }
}

fn unreached() -> CallOutcome {
    CallOutcome::Unreached { why: "refused".to_owned() }
}

fn known() -> Known {
    Known { identifier: UserId::parse(b"administrator").unwrap(), seen: SuccessSeen::NotYet }
}

/// The row that a test is told by which carries no record of the input.
const PROBE: u64 = u64::MAX;

/// A desk with a clock that the test moves by hand.
struct SchedulerHarness {
    deliveries: Deliveries,
    now: Instant,
    next_row: u64,
    calls: HashMap<u64, CallId>,
    /// UserIDs of the tests that left, without those of fresh records.
    probes: Vec<String>,
}

impl SchedulerHarness {
    fn new() -> Self {
        let deliveries = Deliveries::new(limits(), 1, known());
        Self { deliveries, now: Instant::now(), next_row: 1, calls: HashMap::new(), probes: Vec::new() }
    }

    fn admit(&mut self, id: &str) -> &mut Self {
        self.deliveries.admit(record(self.next_row, id), SystemTime::UNIX_EPOCH);
        self.next_row += 1;
        self
    }

    fn admit_many(&mut self, many: u64) -> &mut Self {
        for _ in 0..many {
            self.admit(&format!("user{}", self.next_row));
        }
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
        let is_check = self.deliveries.has_call(Command::AccountCheck, self.now);
        let command = if is_check { Command::AccountCheck } else { Command::AccountImport };
        let Call { id, accounts, is_retry } = self.deliveries.next_call(command, self.now)?;
        assert_eq!(accounts.len(), 1);
        let user_id = accounts[0].user_id.as_str().to_owned();
        let row = match id {
            CallId::Job(job) => self.deliveries.jobs[job].payload[0],
            CallId::Probe(_) => {
                self.probes.push(user_id);
                PROBE
            }
        };
        self.calls.insert(row, id);
        Some((row, is_retry))
    }

    fn end(&mut self, row: u64, end: CallOutcome) -> CallEffect {
        let left = self.now;
        self.now += Duration::from_millis(1);
        self.deliveries.ended(self.calls[&row], end, left, self.at())
    }

    fn at(&self) -> At {
        At { now: self.now, wall: SystemTime::UNIX_EPOCH, jitter: 0.5 }
    }

    /// Calls whoever may be called until nobody may, for at most `calls` calls; each ends as `answer` says.
    fn run(&mut self, calls: usize, answer: impl Fn(u64) -> CallOutcome) -> Vec<CallEffect> {
        let mut all = Vec::new();
        while all.len() < calls {
            self.deliveries.resolve_exhausted(self.at());
            if let Some(row) = self.leave() {
                all.push(self.end(row, answer(row)));
            } else if let Some(at) = self.deliveries.next_wake().filter(|at| *at > self.now) {
                self.now = at;
            } else {
                break;
            }
        }
        all
    }

    fn outcomes(&mut self) -> Vec<(u64, Status, Option<i64>, u32)> {
        std::iter::from_fn(|| self.deliveries.take_settled())
            .map(|done| (done.row, done.outcome.status, done.outcome.error_code, done.outcome.attempts))
            .collect()
    }
}

#[tokio::test(start_paused = true)]
async fn outcomes_come_in_input_order_whatever_ends_first() {
    let mut desk = SchedulerHarness::new();
    desk.admit("a").admit("b").admit("bad id ").admit("c");
    assert_eq!((desk.leave(), desk.leave(), desk.leave(), desk.leave()), (Some(1), Some(2), Some(4), None));
    desk.end(4, code(0));
    desk.end(2, code(40601));
    assert_eq!(desk.outcomes(), []);
    desk.end(1, code(0));
    let expected = [
        (1, Status::Imported, None, 1),
        (2, Status::Failed, Some(40601), 1),
        (3, Status::Invalid, None, 0),
        (4, Status::Imported, None, 1),
    ];
    assert_eq!(desk.outcomes(), expected);
    assert!(desk.deliveries.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_later_record_of_one_user_id_leaves_only_when_the_earlier_has_settled() {
    let mut desk = SchedulerHarness::new();
    desk.admit("a").admit("a").admit("b").admit("a");
    assert_eq!((desk.leave(), desk.leave(), desk.leave()), (Some(1), Some(3), None));
    desk.end(1, code(70169));
    assert_eq!(desk.leave(), None);
    desk.pass(Duration::from_secs(1));
    assert_eq!(desk.leave(), Some(1));
    desk.end(1, code(0));
    assert_eq!((desk.leave(), desk.leave()), (Some(2), None));
    desk.end(2, code(40601));
    assert_eq!(desk.leave(), Some(4));
}

#[tokio::test(start_paused = true)]
async fn a_poisoned_record_fails_after_its_attempts_and_nobody_else_does() {
    let mut desk = SchedulerHarness::new();
    desk.admit_many(50).deliveries.input_ended();
    desk.run(500, |row| if row == 7 { code(70500) } else { code(0) });
    let outcomes = desk.outcomes();
    assert_eq!(outcomes.len(), 50);
    for (row, status, error, attempts) in outcomes {
        let expected = if row == 7 { (Status::Failed, Some(70500), 5) } else { (Status::Imported, None, 1) };
        assert_eq!((status, error, attempts), expected, "{row}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_poisoned_tail_of_a_file_is_no_outage() {
    let mut desk = SchedulerHarness::new();
    desk.admit_many(3).deliveries.input_ended();
    desk.run(500, |row| if row == 1 || row == PROBE { code(0) } else { code(40006) });
    assert_eq!(desk.probes, ["user1", "user1"], "one test, and one after the last try");
    assert_eq!(desk.outcomes(), [(1, Status::Imported, None, 1), (2, Status::Failed, Some(40006), 5), (3, Status::Failed, Some(40006), 5)]);
}

#[tokio::test(start_paused = true)]
async fn an_outage_fails_nobody_however_small_the_file() {
    for healthy in [0, 4] {
        let mut desk = SchedulerHarness::new();
        desk.admit_many(10).deliveries.input_ended();
        let ends = desk.run(500, |row| if row <= healthy { code(0) } else { CallOutcome::Lost { why: "HTTP 502".to_owned() } });
        assert!(ends.contains(&CallEffect::Down), "{healthy}");
        assert_eq!(desk.outcomes().len() as u64, healthy);
        desk.run(500, |_| code(0));
        let outcomes = desk.outcomes();
        assert_eq!(outcomes.len() as u64, 10 - healthy);
        assert!(outcomes.iter().all(|(_, status, _, attempts)| *status == Status::Imported && *attempts == 1), "{outcomes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_catches_the_tail_of_a_file_fails_nobody() {
    let mut desk = SchedulerHarness::new();
    desk.admit_many(100).deliveries.input_ended();
    let ends = desk.run(500, |row| if row <= 60 { code(0) } else { CallOutcome::Lost { why: "HTTP 502".to_owned() } });
    assert!(ends.contains(&CallEffect::Down));
    assert_eq!(desk.outcomes().len(), 60);
    desk.run(500, |_| code(0));
    assert!(desk.outcomes().iter().all(|(_, status, _, attempts)| *status == Status::Imported && *attempts == 1));
    assert!(desk.deliveries.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_answers_some_fails_nobody() {
    let mut desk = SchedulerHarness::new();
    desk.admit_many(10).deliveries.input_ended();
    let ends = desk.run(200, |row| if row == 1 { code(60008) } else { CallOutcome::Lost { why: "HTTP 502".to_owned() } });
    assert!(ends.contains(&CallEffect::Down));
    assert_eq!(desk.outcomes(), []);
    desk.run(200, |_| code(0));
    assert!(desk.outcomes().iter().all(|(_, status, _, attempts)| *status == Status::Imported && *attempts == 1));
}

#[tokio::test(start_paused = true)]
async fn while_the_service_is_down_and_no_fresh_record_is_there_to_test_with_records_are_read() {
    let mut desk = SchedulerHarness::new();
    desk.admit_many(1);
    let row = desk.leave().unwrap();
    assert_eq!(desk.end(row, unreached()), CallEffect::Down);
    assert!(!desk.deliveries.wants_record(desk.now), "the probe is not due");
    desk.pass(Duration::from_secs(1));
    assert!(desk.deliveries.wants_record(desk.now));
    desk.admit("bad id ");
    assert!(desk.deliveries.wants_record(desk.now), "an invalid one can't be sent");
    desk.admit("good");
    assert!(!desk.deliveries.wants_record(desk.now));
    let row = desk.leave().unwrap();
    assert_eq!((row, desk.end(row, code(0))), (3, CallEffect::Back));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_never_gets_an_answer_among_ones_that_do_fails() {
    let mut desk = SchedulerHarness::new();
    desk.admit_many(10).deliveries.input_ended();
    desk.run(500, |row| if row == 10 { CallOutcome::Lost { why: "reset".to_owned() } } else { code(0) });
    assert_eq!(desk.outcomes().last(), Some(&(10, Status::Failed, None, 5)));
}

#[tokio::test(start_paused = true)]
async fn an_outage_fails_nobody_and_gives_the_attempts_back() {
    let mut desk = SchedulerHarness::new();
    desk.admit_many(300).deliveries.input_ended();
    let ends = desk.run(200, |_| CallOutcome::Lost { why: "HTTP 502".to_owned() });
    assert!(ends.contains(&CallEffect::Down));
    assert!(desk.deliveries.down_since().is_some());
    assert_eq!(desk.outcomes(), []);
    let ends = desk.run(2_000, |_| code(0));
    assert!(ends.contains(&CallEffect::Back));
    let outcomes = desk.outcomes();
    assert_eq!(outcomes.len(), 300);
    assert!(outcomes.iter().all(|(_, status, _, attempts)| *status == Status::Imported && *attempts == 1), "{outcomes:?}");
}

#[tokio::test(start_paused = true)]
async fn while_the_service_is_down_one_probe_leaves_at_a_time() {
    let mut desk = SchedulerHarness::new();
    desk.admit_many(30);
    let row = desk.leave().unwrap();
    assert_eq!(desk.end(row, unreached()), CallEffect::Down, "alone in flight");
    assert_eq!(desk.leave(), None);
    assert!(!desk.deliveries.wants_record(desk.now));
    desk.pass(Duration::from_secs(1));
    let probe = desk.leave().unwrap();
    assert_eq!(desk.leave(), None);
    desk.end(probe, unreached());
    desk.pass(Duration::from_millis(1_900));
    assert_eq!(desk.leave(), None, "the second probe comes after two seconds");
    desk.pass(Duration::from_millis(200));
    assert!(desk.leave().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_poisoned_probe_does_not_keep_the_service_down() {
    let mut desk = SchedulerHarness::new();
    desk.admit_many(40).deliveries.input_ended();
    desk.run(60, |_| CallOutcome::Lost { why: "reset".to_owned() });
    assert!(desk.deliveries.down_since().is_some());
    let ends = desk.run(4_000, |row| if row == 1 { code(70500) } else { code(0) });
    assert!(ends.contains(&CallEffect::Back));
    assert_eq!(desk.outcomes().len(), 40);
}

#[tokio::test(start_paused = true)]
async fn throttling_signatures_and_halts_cost_no_attempt() {
    let mut desk = SchedulerHarness::new();
    desk.admit("a");
    for (end, aftermath) in [
        (code(60007), CallEffect::Throttled(ThrottleScope::Api)),
        (CallOutcome::TooMany, CallEffect::Throttled(ThrottleScope::All)),
        (code(70001), CallEffect::SignatureRefused),
        (code(60011), CallEffect::Throttled(ThrottleScope::All)),
        (code(60018), CallEffect::Throttled(ThrottleScope::All)),
        (code(60019), CallEffect::Throttled(ThrottleScope::All)),
    ] {
        desk.pass(Duration::from_secs(30));
        assert_eq!(desk.leave(), Some(1));
        assert_eq!(desk.end(1, end), aftermath);
    }
    desk.pass(Duration::from_secs(30));
    desk.leave();
    let halt = CallEffect::Halt { refusal: HaltReason::NotAdmin, code: Some(70403), says: "code 70403".to_owned() };
    assert_eq!(desk.end(1, code(70403)), halt);
    assert_eq!(desk.outcomes(), []);
    desk.leave();
    desk.end(1, code(0));
    assert_eq!(desk.outcomes(), [(1, Status::Imported, None, 1)]);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_code_fails_one_row_and_halts_the_run_when_it_is_everywhere() {
    let mut desk = SchedulerHarness::new();
    desk.admit_many(10).deliveries.input_ended();
    desk.run(100, |row| if row == 3 { code(12345) } else { code(0) });
    assert_eq!(desk.outcomes()[2], (3, Status::Failed, Some(12345), 3));
    let mut desk = SchedulerHarness::new();
    desk.admit_many(40);
    let ends = desk.run(100, |_| code(12345));
    assert!(ends.iter().any(|end| matches!(end, CallEffect::Halt { refusal: HaltReason::UnknownCodes, .. })));
    assert_eq!(desk.outcomes(), []);
}

#[tokio::test(start_paused = true)]
async fn retries_take_a_tenth_of_the_calls_while_fresh_records_wait() {
    let mut desk = SchedulerHarness::new();
    desk.admit_many(2_000);
    let mut retries = 0;
    for _ in 0..1_000 {
        desk.pass(Duration::from_millis(50));
        let (row, is_retry) = desk.leave_with_retry().unwrap();
        retries += u32::from(is_retry);
        desk.end(row, if row.is_multiple_of(3) { code(70169) } else { code(0) });
    }
    assert!((95..=100).contains(&retries), "{retries}");
}

#[tokio::test(start_paused = true)]
async fn a_stuck_record_holds_back_a_bounded_window() {
    let mut desk = SchedulerHarness::new();
    desk.deliveries.limits.window_records = 100;
    desk.admit_many(1);
    assert_eq!(desk.leave(), Some(1));
    while desk.deliveries.wants_record(desk.now) {
        desk.admit_many(1);
        let row = desk.leave().unwrap();
        desk.end(row, code(0));
    }
    assert_eq!(desk.next_row - 1, 100);
    desk.end(1, code(0));
    assert_eq!(desk.outcomes().len(), 100);
    assert_eq!(desk.deliveries.buffer.bytes(), 0);
    assert!(desk.deliveries.wants_record(desk.now));
}

#[tokio::test(start_paused = true)]
async fn stop_lets_nothing_leave() {
    let mut desk = SchedulerHarness::new();
    desk.admit_many(3);
    let row = desk.leave().unwrap();
    desk.deliveries.stop();
    assert_eq!(desk.leave(), None);
    assert!(!desk.deliveries.wants_record(desk.now));
    desk.end(row, code(0));
    assert_eq!(desk.deliveries.in_flight(), 0);
    assert_eq!(desk.outcomes().len(), 1);
}
