//! The batch lane, sentence by sentence of its contract, with a clock that the test moves by hand.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::domain::position::InputPosition;
use crate::domain::verdict::{Answer, Profile, ThrottleScope};

/// What leaves first, as the import asks.
const ORDER: [Command; 4] = [Command::AccountCheck, Command::PortraitGet, Command::AccountImport, Command::MultiaccountImport];

/// A call that has left.
#[derive(Debug, Clone)]
struct SentCall {
    command: Command,
    id: CallId,
    rows: Vec<u64>,
    accounts: Vec<Account>,
    left: Instant,
}

impl SentCall {
    fn has(&self, id: &str) -> bool {
        self.accounts.iter().any(|account| account.user_id.as_str() == id)
    }
}

type Outcomes = Vec<(u64, Status, Option<i64>, u32)>;

struct BatchHarness {
    deliveries: Deliveries,
    now: Instant,
    next_row: u64,
}

impl BatchHarness {
    fn new(doubt: OnBatchFailure) -> Self {
        let limits =
            DeliveryLimits { max_attempts: 5, in_flight: 256, window_records: 131_072, window_bytes: 40 << 20, lane: Lane::Batch(doubt) };
        let known = Known { identifier: UserId::parse(b"administrator").unwrap(), seen: SuccessSeen::NotYet };
        Self { deliveries: Deliveries::new(limits, 1, known), now: Instant::now(), next_row: 1 }
    }

    /// With so many records without profiles, `user1` and so on, and no more to come.
    fn of(count: u64) -> Self {
        let mut desk = Self::new(OnBatchFailure::FallBack);
        desk.admit_many(count, "").deliveries.input_ended();
        desk
    }

    fn admit(&mut self, id: &str, nick: &str) -> &mut Self {
        let row = self.next_row;
        let record = Record {
            row,
            line: row + 1,
            end: InputPosition { rows: row, offset: row * 10, line: row + 2, digest: 0 },
            user_id: id.as_bytes().into(),
            other_id: None,
            suspects: crate::domain::account::Suspects::default(),
            account: Account::parse(id.as_bytes(), nick.as_bytes(), b""),
            fields: csv::ByteRecord::from(vec![id]),
        };
        self.deliveries.admit(record, SystemTime::UNIX_EPOCH);
        self.next_row += 1;
        self
    }

    fn admit_many(&mut self, many: u64, nick: &str) -> &mut Self {
        for _ in 0..many {
            self.admit(&format!("user{}", self.next_row), nick);
        }
        self
    }

    fn send(&mut self, command: Command) -> Option<SentCall> {
        let Call { id, accounts, .. } = self.deliveries.next_call(command, self.now)?;
        let accounts = accounts.into_iter().cloned().collect();
        let rows = match id {
            CallId::Job(job) => self.deliveries.jobs[job].payload.clone(),
            // It carries no record of the input.
            CallId::Probe(_) => vec![u64::MAX],
        };
        Some(SentCall { command, id, rows, accounts, left: self.now })
    }

    fn send_batch(&mut self) -> Option<Vec<u64>> {
        self.send(Command::MultiaccountImport).map(|sent| sent.rows)
    }

    /// Whatever leaves next, if something does.
    fn send_any(&mut self) -> Option<SentCall> {
        ORDER.into_iter().find_map(|command| self.send(command))
    }

    fn end(&mut self, sent: &SentCall, end: CallOutcome) -> CallEffect {
        self.now += Duration::from_millis(1);
        let at = self.at();
        self.deliveries.ended(sent.id, end, sent.left, at)
    }

    fn at(&self) -> At {
        At { now: self.now, wall: SystemTime::UNIX_EPOCH, jitter: 0.5 }
    }

    /// Makes call after call, for at most `calls` calls, until nothing leaves of itself any more.
    fn run(&mut self, calls: usize, mut answer: impl FnMut(&SentCall) -> CallOutcome) -> Vec<(SentCall, CallEffect)> {
        let mut all = Vec::new();
        while all.len() < calls {
            let at = self.at();
            self.deliveries.resolve_exhausted(at);
            if let Some(sent) = self.send_any() {
                let end = answer(&sent);
                let aftermath = self.end(&sent, end);
                let is_over = matches!(aftermath, CallEffect::Halt { .. });
                all.push((sent, aftermath));
                if is_over {
                    break;
                }
            } else if let Some(at) = self.deliveries.next_wake() {
                self.now = self.now.max(at);
            } else {
                break;
            }
        }
        all
    }

    fn outcomes(&mut self) -> Outcomes {
        std::iter::from_fn(|| self.deliveries.take_settled())
            .map(|done| (done.row, done.outcome.status, done.outcome.error_code, done.outcome.attempts))
            .collect()
    }
}

fn code(code: i64) -> CallOutcome {
    CallOutcome::Refused { code, info: format!("code {code}") }
}

fn lost() -> CallOutcome {
    CallOutcome::Lost { why: "HTTP 502".to_owned() }
}

fn listed<'a>(ids: impl IntoIterator<Item = &'a str>) -> CallOutcome {
    CallOutcome::Done(Answer::FailAccounts(ids.into_iter().map(Into::into).collect()))
}

/// The answer of a service that does all that it is asked.
fn fine(sent: &SentCall) -> CallOutcome {
    let profile = |account: &Account| Profile {
        user_id: account.user_id.as_str().into(),
        nick: account.nick.clone(),
        face_url: account.face_url.clone(),
        ..Profile::default()
    };
    match sent.command {
        Command::AccountImport | Command::AccountCheck => CallOutcome::Done(Answer::Nothing),
        Command::MultiaccountImport => listed([]),
        Command::PortraitGet => CallOutcome::Done(Answer::Profiles(sent.accounts.iter().map(profile).collect())),
        other => panic!("a delivery sends no {}", other.name()),
    }
}

/// As [`fine`], but batches come without profiles.
fn dropping(sent: &SentCall) -> CallOutcome {
    match sent.command {
        Command::PortraitGet => CallOutcome::Done(Answer::Profiles(Vec::new())),
        _ => fine(sent),
    }
}

fn sizes(calls: &[(SentCall, CallEffect)], command: Command) -> Vec<usize> {
    calls.iter().filter(|(sent, _)| sent.command == command).map(|(sent, _)| sent.rows.len()).collect()
}

#[track_caller]
fn all_imported(outcomes: &Outcomes, count: u64, attempts: u32) {
    let expected: Outcomes = (1..=count).map(|row| (row, Status::Imported, None, attempts)).collect();
    assert_eq!(*outcomes, expected);
}

#[tokio::test(start_paused = true)]
async fn a_user_id_is_in_one_call_at_a_time_its_single_call_included() {
    let mut desk = BatchHarness::new(OnBatchFailure::FallBack);
    desk.admit("a", "").admit("b", "").admit("a", "").admit("c", "").deliveries.input_ended();
    let first = desk.send(Command::MultiaccountImport).unwrap();
    assert_eq!(first.rows, [1, 2, 4]);
    assert!(desk.send_any().is_none());
    desk.end(&first, listed(["a"]));
    let single = desk.send(Command::AccountImport).unwrap();
    assert_eq!(single.rows, [1]);
    assert_eq!(desk.send_batch(), None, "row 3 waits for the single call of row 1");
    desk.end(&single, code(40601));
    assert_eq!(desk.send_batch(), Some(vec![3]));
}

#[tokio::test(start_paused = true)]
async fn a_short_batch_leaves_only_when_no_further_record_can_be_had() {
    let mut desk = BatchHarness::new(OnBatchFailure::FallBack);
    desk.admit_many(99, "");
    assert_eq!(desk.send_batch(), None);
    desk.admit_many(1, "");
    let full = desk.send(Command::MultiaccountImport).unwrap();
    assert_eq!(full.rows.len(), 100);
    desk.end(&full, listed([]));
    desk.admit_many(3, "");
    assert_eq!(desk.send_batch(), None);
    desk.deliveries.input_ended();
    assert_eq!(desk.send_batch(), Some(vec![101, 102, 103]), "the end of the input");

    let mut desk = BatchHarness::new(OnBatchFailure::FallBack);
    desk.deliveries.limits.window_records = 30;
    while desk.deliveries.wants_record(desk.now) {
        let id = if desk.next_row <= 20 { "same".to_owned() } else { format!("user{}", desk.next_row) };
        desk.admit(&id, "");
    }
    assert_eq!(desk.send_batch().unwrap().len(), 11, "a full window; all others wait for an earlier call");
    assert_eq!(desk.send_batch(), None);
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
        let mut desk = BatchHarness::of(3);
        let calls = desk.run(50, |sent| match sent.command {
            Command::MultiaccountImport => listed(ids.iter().copied()),
            _ => fine(sent),
        });
        let expected: Outcomes = (1..).zip(attempts).map(|(row, attempts)| (row, Status::Imported, None, attempts)).collect();
        assert_eq!(desk.outcomes(), expected, "{ids:?}");
        let singles = attempts.iter().filter(|attempts| **attempts == 2).count();
        assert_eq!((sizes(&calls, Command::MultiaccountImport), calls.len()), (vec![3], 1 + singles), "{ids:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_single_answer_is_a_listed_rows_outcome() {
    let mut desk = BatchHarness::of(4);
    desk.run(50, |sent| match (sent.command, sent.rows[0]) {
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
    assert_eq!(desk.outcomes(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_holds_a_bad_record_is_halved_until_that_is_alone() {
    for refusal in [40601, 70402, 40001, 70107, 60003, 60015] {
        let mut desk = BatchHarness::of(8);
        let calls = desk.run(50, |sent| match sent.command {
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
        assert_eq!(desk.outcomes(), expected, "{refusal}");
        assert_eq!(desk.deliveries.lane(), Lane::Batch(OnBatchFailure::FallBack));
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_odd_size_is_halved_without_an_empty_half() {
    let mut desk = BatchHarness::of(3);
    let calls = desk.run(50, |sent| if sent.has("user3") && sent.rows.len() > 1 { code(70402) } else { fine(sent) });
    assert_eq!((sizes(&calls, Command::MultiaccountImport), sizes(&calls, Command::AccountImport)), (vec![3, 2], vec![1]));
    assert_eq!(desk.outcomes().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_first_record_that_is_called_malformed_fails_alone() {
    for refusal in [60003, 60015, 40601] {
        let mut desk = BatchHarness::of(100);
        let single = if refusal == 60015 { 40601 } else { refusal };
        desk.run(500, |sent| match sent.command {
            _ if !sent.has("user1") => fine(sent),
            Command::MultiaccountImport => code(refusal),
            _ => code(single),
        });
        let outcomes = desk.outcomes();
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
        let mut desk = BatchHarness::of(4);
        desk.run(5, |_| code(70500));
        let singles: Vec<SentCall> = std::iter::from_fn(|| desk.send(Command::AccountImport)).collect();
        assert_eq!(singles.len(), 4);
        if let Some(end) = others.clone() {
            singles[1..].iter().for_each(|sent| drop(desk.end(sent, end.clone())));
        }
        let aftermath = desk.end(&singles[0], code(60003));
        assert!(!matches!(aftermath, CallEffect::Halt { .. }), "{others:?}: {aftermath:?}");
        if others.is_none() {
            singles[1..].iter().for_each(|sent| drop(desk.end(sent, fine(sent))));
        }
        desk.run(50, |sent| if sent.has("user1") { code(60003) } else { fine(sent) });
        let outcomes = desk.outcomes();
        assert_eq!(outcomes[0].1, Status::Failed, "{others:?}");
        assert!(outcomes.len() == 4 && outcomes[1..].iter().all(|outcome| outcome.1 == Status::Imported), "{others:?}: {outcomes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_malformed_record_does_not_wait_for_ever() {
    let mut desk = BatchHarness::of(4);
    let calls = desk.run(500, |sent| match sent.command {
        Command::AccountImport if sent.has("user1") => code(60003),
        Command::AccountCheck => fine(sent),
        _ => code(70500),
    });
    assert!(matches!(calls.last().unwrap().1, CallEffect::Halt { refusal: HaltReason::InvalidRequest, .. }), "{:?}", calls.last());
    assert!(calls.len() < 60, "{}", calls.len());
    assert_eq!(desk.outcomes(), []);
}

#[tokio::test(start_paused = true)]
async fn while_a_batch_is_read_back_a_test_goes_singly() {
    let mut desk = BatchHarness::new(OnBatchFailure::FallBack);
    desk.admit_many(100, "");
    let first = desk.send(Command::MultiaccountImport).unwrap();
    desk.end(&first, fine(&first));
    desk.admit_many(100, "Nick");
    let second = desk.send(Command::MultiaccountImport).unwrap();
    desk.end(&second, fine(&second));
    assert!(desk.deliveries.accepted.is_some() && desk.deliveries.batch_trial.read_back.is_some());
    desk.deliveries.health.suspect(desk.now);
    assert!(desk.send_batch().is_none(), "no batch leaves before the answer");
    let read_back = desk.send(Command::PortraitGet).unwrap();
    let test = desk.send(Command::AccountImport).unwrap();
    assert_eq!((test.id, test.accounts.len()), (CallId::Probe(Command::AccountImport), 1));
    desk.end(&test, fine(&test));
    desk.end(&read_back, fine(&read_back));
    assert_eq!(desk.outcomes().len(), 200);
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_all_called_malformed_stop_the_run() {
    let mut desk = BatchHarness::of(8);
    let calls = desk.run(500, |_| code(60003));
    assert!(matches!(calls.last().unwrap().1, CallEffect::Halt { refusal: HaltReason::InvalidRequest, .. }), "{:?}", calls.last());
    assert_eq!(desk.outcomes(), []);
}

#[tokio::test(start_paused = true)]
async fn a_batch_out_of_attempts_goes_one_by_one_with_fresh_attempts() {
    for end in [code(70500), code(12345), lost()] {
        let mut desk = BatchHarness::of(300);
        let poisoned = |sent: &SentCall| sent.has("user150");
        let calls = desk.run(1_000, |sent| if poisoned(sent) { end.clone() } else { fine(sent) });
        let batches = calls.iter().filter(|(sent, _)| sent.command == Command::MultiaccountImport && poisoned(sent)).count();
        let singles = calls.iter().filter(|(sent, _)| sent.command == Command::AccountImport && poisoned(sent)).count();
        let unknown = end == code(12345);
        assert_eq!((batches, singles), (5, if unknown { 3 } else { 5 }), "{end:?}");
        let outcomes = desk.outcomes();
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
    let mut desk = BatchHarness::of(100);
    for (end, aftermath) in [
        (code(60007), CallEffect::Throttled(ThrottleScope::Api)),
        (code(60011), CallEffect::Throttled(ThrottleScope::All)),
        (code(60018), CallEffect::Throttled(ThrottleScope::All)),
        (code(60019), CallEffect::Throttled(ThrottleScope::All)),
        (CallOutcome::TooMany, CallEffect::Throttled(ThrottleScope::All)),
        (code(70001), CallEffect::SignatureRefused),
        (code(70403), CallEffect::Halt { refusal: HaltReason::NotAdmin, code: Some(70403), says: "code 70403".to_owned() }),
    ]
    .into_iter()
    .cycle()
    .take(70)
    {
        desk.now += Duration::from_secs(30);
        let sent = desk.send(Command::MultiaccountImport).unwrap();
        assert_eq!(sent.rows.len(), 100);
        assert_eq!(desk.end(&sent, end), aftermath);
    }
    desk.now += Duration::from_secs(30);
    let sent = desk.send(Command::MultiaccountImport).unwrap();
    assert_eq!(desk.end(&sent, CallOutcome::Unreached { why: "refused".to_owned() }), CallEffect::Down, "alone in flight");
    desk.run(10, fine);
    all_imported(&desk.outcomes(), 100, 1);
}

#[tokio::test(start_paused = true)]
async fn the_breaker_counts_distinct_batches() {
    let mut desk = BatchHarness::of(2_500);
    let first = desk.send(Command::MultiaccountImport).unwrap();
    desk.end(&first, listed([]));
    for _ in 2..=20 {
        let mut last = CallEffect::Nothing;
        for _ in 0..3 {
            let sent = desk.send(Command::MultiaccountImport).unwrap();
            last = desk.end(&sent, lost());
            desk.now += Duration::from_millis(5);
        }
        if last == CallEffect::Down {
            break;
        }
    }
    let tried: BTreeSet<u64> = desk.deliveries.jobs.iter().map(|(_, job)| job.batch_id).collect();
    assert!(desk.deliveries.is_down());
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
                let mut desk = BatchHarness::of(count);
                let mut batches = 0;
                let mut since = None;
                let calls = desk.run(30_000, |sent| {
                    batches += u64::from(sent.command == Command::MultiaccountImport);
                    if batches <= healthy {
                        return fine(sent);
                    }
                    let since = *since.get_or_insert(sent.left);
                    if sent.left < since + Duration::from_secs(outage) { end.clone() } else { fine(sent) }
                });
                let outcomes = desk.outcomes();
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
    let mut desk = BatchHarness::of(6_000);
    let poisoned =
        |sent: &SentCall| sent.accounts.iter().find(|account| account.user_id.as_str().ends_with("50")).map(|a| a.user_id.clone());
    let calls = desk.run(3_000, |sent| match (poisoned(sent), sent.command) {
        (Some(id), Command::MultiaccountImport) => listed([id.as_str()]),
        (Some(_), _) => code(70500),
        (None, _) => fine(sent),
    });
    let outcomes = desk.outcomes();
    assert_eq!(outcomes.len(), 6_000, "{} calls", calls.len());
    for (row, status, error, attempts) in outcomes {
        let expected = if row % 100 == 50 { (Status::Failed, Some(70500), 6) } else { (Status::Imported, None, 1) };
        assert_eq!((status, error, attempts), expected, "{row}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_code_everywhere_stops_the_run() {
    let mut desk = BatchHarness::of(1_000);
    let calls = desk.run(2_000, |_| code(12345));
    assert!(calls.iter().any(|(_, end)| matches!(end, CallEffect::Halt { refusal: HaltReason::UnknownCodes, .. })));
    assert_eq!(desk.outcomes(), []);
}

#[tokio::test(start_paused = true)]
async fn the_first_batch_with_profiles_is_read_back_before_the_next_leaves_or_a_row_settles() {
    let mut desk = BatchHarness::new(OnBatchFailure::FallBack);
    desk.admit_many(300, "Nick").deliveries.input_ended();
    let first = desk.send(Command::MultiaccountImport).unwrap();
    assert!(desk.send_any().is_none(), "it leaves alone");
    desk.end(&first, listed(["user7"]));
    let read = desk.send_any().unwrap();
    assert_eq!((read.command, read.rows.len(), read.has("user7")), (Command::PortraitGet, 99, false));
    assert!(desk.send_any().is_none(), "nothing else before that");
    assert_eq!(desk.outcomes(), []);
    desk.end(&read, fine(&read));
    assert_eq!(desk.outcomes().len(), 6, "up to the listed one");
    assert_eq!(desk.send(Command::AccountImport).unwrap().rows, [7]);
    assert_eq!((desk.send_batch().unwrap().len(), desk.send_batch().unwrap().len()), (100, 100), "no further one is read back");
}

#[tokio::test(start_paused = true)]
async fn a_field_that_is_absent_or_other_is_read_again_after_two_seconds() {
    let sent = |nick: Option<&str>, face_url: Option<&str>| Profile {
        user_id: "a".into(),
        nick: nick.map(Into::into),
        face_url: face_url.map(Into::into),
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
        let mut desk = BatchHarness::new(OnBatchFailure::FallBack);
        desk.admit("a", "Nick").admit("b", "").deliveries.input_ended();
        let batch = desk.send(Command::MultiaccountImport).unwrap();
        desk.end(&batch, listed([]));
        let read = desk.send(Command::PortraitGet).unwrap();
        desk.end(&read, CallOutcome::Done(Answer::Profiles(profile.clone().into_iter().collect())));
        if kept {
            all_imported(&desk.outcomes(), 2, 1);
            continue;
        }
        desk.now += Duration::from_millis(1_990);
        assert!(desk.send_any().is_none(), "{profile:?}");
        desk.now += Duration::from_millis(20);
        let again = desk.send(Command::PortraitGet).unwrap();
        desk.end(&again, fine(&again));
        assert_eq!(desk.deliveries.lane(), Lane::Batch(OnBatchFailure::FallBack), "shown late is shown");
        all_imported(&desk.outcomes(), 2, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_profiles_lead_to_the_single_lane_that_batch_included() {
    let mut desk = BatchHarness::new(OnBatchFailure::FallBack);
    desk.admit_many(250, "Nick").deliveries.input_ended();
    let calls = desk.run(1_000, |sent| match sent.command {
        Command::MultiaccountImport => listed(["user3"]),
        _ => dropping(sent),
    });
    assert_eq!(sizes(&calls, Command::PortraitGet), [99, 99]);
    assert_eq!(sizes(&calls, Command::MultiaccountImport), [100]);
    let singles: Vec<u64> = calls.iter().filter(|(sent, _)| sent.command == Command::AccountImport).map(|(sent, _)| sent.rows[0]).collect();
    assert!(singles.iter().copied().eq(1..=250), "each once, in order");
    assert_eq!(desk.deliveries.lane(), Lane::FellBack);
    let outcomes = desk.outcomes();
    assert!(
        outcomes.iter().all(|outcome| outcome.1 == Status::Imported && outcome.3 == if outcome.0 <= 100 { 2 } else { 1 }),
        "{outcomes:?}"
    );
    assert_eq!(outcomes.len(), 250);
}

#[tokio::test(start_paused = true)]
async fn strict_stops_instead_and_settles_nothing_of_that_batch() {
    for read in [None, Some(code(70500)), Some(code(40003)), Some(lost()), Some(code(12345))] {
        let mut desk = BatchHarness::new(OnBatchFailure::Stop);
        desk.admit_many(250, "Nick").deliveries.input_ended();
        let calls = desk.run(20, |sent| match (&read, sent.command) {
            (Some(end), Command::PortraitGet) => end.clone(),
            _ => dropping(sent),
        });
        let halt = calls.iter().position(|(_, end)| matches!(end, CallEffect::Halt { refusal: HaltReason::BatchDropsProfiles, .. }));
        let reads = match &read {
            None => 2,
            Some(CallOutcome::Refused { code: 40003, .. }) => 1,
            Some(_) => 5,
        };
        assert_eq!(halt, Some(reads), "{read:?}");
        desk.deliveries.stop();
        assert!(desk.send_any().is_none());
        assert_eq!(desk.outcomes(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_back_that_is_not_to_be_had_is_as_dropped_and_charges_nobody() {
    for (end, reads) in [(code(70500), 5), (lost(), 5), (code(40003), 1), (code(12345), 5)] {
        let mut desk = BatchHarness::new(OnBatchFailure::FallBack);
        desk.admit_many(120, "Nick").deliveries.input_ended();
        let calls = desk.run(500, |sent| if sent.command == Command::PortraitGet { end.clone() } else { fine(sent) });
        assert_eq!(sizes(&calls, Command::PortraitGet).len(), reads, "{end:?}");
        assert_eq!(desk.deliveries.lane(), Lane::FellBack);
        let outcomes = desk.outcomes();
        let expected: Outcomes = (1..=120).map(|row| (row, Status::Imported, None, if row <= 100 { 2 } else { 1 })).collect();
        assert_eq!(outcomes, expected, "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn throttling_and_signatures_of_the_read_back_only_delay_it() {
    let mut desk = BatchHarness::new(OnBatchFailure::Stop);
    desk.admit_many(120, "Nick").deliveries.input_ended();
    let mut reads = 0;
    desk.run(500, |sent| {
        reads += u32::from(sent.command == Command::PortraitGet);
        match reads {
            1..=6 => code(60007),
            7..=9 => code(70001),
            0 | 10.. => fine(sent),
        }
    });
    all_imported(&desk.outcomes(), 120, 1);
}

#[tokio::test(start_paused = true)]
async fn batches_without_profiles_need_no_read_back_and_the_first_with_some_does() {
    let mut desk = BatchHarness::new(OnBatchFailure::FallBack);
    desk.admit_many(200, "").admit_many(200, "Nick").deliveries.input_ended();
    let calls = desk.run(500, fine);
    let order: Vec<Command> = calls.iter().map(|(sent, _)| sent.command).collect();
    let (batch, read) = (Command::MultiaccountImport, Command::PortraitGet);
    assert_eq!(order, [batch, batch, batch, read, batch]);
    all_imported(&desk.outcomes(), 400, 1);
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_members_with_profiles_are_all_listed_is_not_read_back() {
    let mut desk = BatchHarness::new(OnBatchFailure::FallBack);
    desk.admit("a", "Nick").admit_many(99, "").admit_many(100, "Nick").deliveries.input_ended();
    let calls = desk.run(500, |sent| if sent.has("a") && sent.rows.len() > 1 { listed(["a"]) } else { fine(sent) });
    let reads: Vec<&SentCall> = calls.iter().map(|(sent, _)| sent).filter(|sent| sent.command == Command::PortraitGet).collect();
    assert_eq!(reads.len(), 1);
    assert_eq!(reads[0].rows[0], 101);
    assert_eq!(desk.outcomes().len(), 200);
}

#[tokio::test(start_paused = true)]
async fn the_half_with_profiles_leaves_alone_whatever_its_sibling_does() {
    let mut desk = BatchHarness::new(OnBatchFailure::FallBack);
    desk.admit_many(150, "").admit_many(50, "Nick").admit_many(100, "Nick").deliveries.input_ended();
    let first = desk.send(Command::MultiaccountImport).unwrap();
    desk.end(&first, listed([]));
    let second = desk.send(Command::MultiaccountImport).unwrap();
    desk.end(&second, code(40601));
    let (plain, profiled) = (desk.send(Command::MultiaccountImport).unwrap(), desk.send(Command::MultiaccountImport).unwrap());
    assert_eq!((plain.rows[0], profiled.rows[0]), (101, 151));
    desk.end(&plain, listed([]));
    assert!(desk.send_any().is_none(), "the next batch waits until the one with profiles is read back");
    desk.end(&profiled, listed([]));
    assert_eq!(desk.send_any().unwrap().command, Command::PortraitGet);
}

#[tokio::test(start_paused = true)]
async fn batches_that_are_refused_altogether_are_given_up_once_a_record_is_taken_singly() {
    for end in [code(40001), code(60015), code(70402)] {
        for doubt in [OnBatchFailure::FallBack, OnBatchFailure::Stop] {
            let mut desk = BatchHarness::new(doubt);
            desk.admit_many(300, "").deliveries.input_ended();
            let calls = desk.run(1_000, |sent| if sent.command == Command::MultiaccountImport { end.clone() } else { fine(sent) });
            let batches = sizes(&calls, Command::MultiaccountImport);
            assert_eq!(batches[0], 100);
            assert!(batches[1..].iter().all(|size| *size <= 50), "only parts of the first one: {batches:?}");
            let halts = calls.iter().filter(|(_, end)| matches!(end, CallEffect::Halt { refusal: HaltReason::BatchesRefused, .. })).count();
            match doubt {
                OnBatchFailure::Stop => assert!(halts > 0),
                OnBatchFailure::FallBack => {
                    assert_eq!((halts, desk.deliveries.lane()), (0, Lane::FellBack));
                    let outcomes = desk.outcomes();
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
            let mut desk = BatchHarness::new(doubt);
            desk.admit_many(500, "Nick").deliveries.input_ended();
            let calls = desk.run(20_000, |sent| match sent.command {
                _ if sent.rows[0] > 100 => fine(sent),
                Command::MultiaccountImport if matches!(end, CallOutcome::Done(_)) => {
                    listed(sent.accounts.iter().map(|account| account.user_id.as_str()))
                }
                Command::MultiaccountImport => end.clone(),
                _ => single.clone(),
            });
            let outcomes = desk.outcomes();
            assert_eq!(outcomes.len(), 500, "{end:?} {doubt:?}: {} calls", calls.len());
            for (row, status, _, _) in outcomes {
                assert_eq!(status == Status::Failed, row <= 100, "{row} {end:?}");
            }
            assert_eq!(desk.deliveries.lane(), Lane::Batch(doubt));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stuck_record_holds_back_a_bounded_window_of_batches() {
    let mut desk = BatchHarness::new(OnBatchFailure::FallBack);
    desk.deliveries.limits.window_records = 1_000;
    let mut stuck = None;
    loop {
        while desk.deliveries.wants_record(desk.now) {
            desk.admit_many(1, "");
        }
        let Some(sent) = desk.send(Command::MultiaccountImport) else { break };
        let is_first = stuck.is_none();
        if is_first {
            desk.end(&sent, listed(["user1"]));
            stuck = desk.send(Command::AccountImport);
        } else {
            desk.end(&sent, listed([]));
        }
    }
    assert_eq!(desk.next_row - 1, 1_000);
    assert_eq!(desk.outcomes(), []);
    desk.end(&stuck.unwrap(), CallOutcome::Done(Answer::Nothing));
    assert_eq!(desk.outcomes().len(), 1_000);
    assert_eq!(desk.deliveries.buffer.bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn stop_lets_no_batch_leave_and_what_is_in_flight_settle() {
    let mut desk = BatchHarness::of(400);
    let first = desk.send(Command::MultiaccountImport).unwrap();
    desk.end(&first, listed([]));
    let (second, third) = (desk.send(Command::MultiaccountImport).unwrap(), desk.send(Command::MultiaccountImport).unwrap());
    desk.deliveries.stop();
    desk.end(&second, listed(["user150"]));
    desk.end(&third, code(40601));
    assert!(desk.send_any().is_none());
    assert_eq!((desk.outcomes().len(), desk.deliveries.in_flight()), (149, 0));
}

#[tokio::test(start_paused = true)]
async fn calls_of_all_apis_share_the_pool() {
    let mut desk = BatchHarness::of(1_000);
    desk.deliveries.limits.in_flight = 3;
    let first = desk.send(Command::MultiaccountImport).unwrap();
    desk.end(&first, listed(["user1", "user2"]));
    assert!(desk.send(Command::AccountImport).is_some() && desk.send(Command::MultiaccountImport).is_some());
    assert!(desk.send(Command::AccountImport).is_some());
    assert!(desk.send_any().is_none());
}

mod random_services;
