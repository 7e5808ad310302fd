use super::*;

fn times(left: Instant, ended: Instant) -> CallTimes {
    CallTimes { left, ended }
}

/// The ends of calls, each a millisecond after it left.
struct BreakerHarness {
    health: Health<u64>,
    now: Instant,
}

impl BreakerHarness {
    fn new() -> Self {
        Self { health: Health::default(), now: Instant::now() }
    }

    fn note(&mut self, who: u64, sample: HealthSample, others: OtherCalls) -> HealthChange {
        let left = self.now;
        self.now += Duration::from_millis(1);
        self.health.note(who, sample, times(left, self.now), others)
    }

    fn test(&mut self, means: TestMeans, result: TestResult) -> HealthChange {
        assert!(self.health.wants_test(self.now));
        self.health.test_left(means);
        assert!(!self.health.wants_test(self.now), "one at a time");
        self.now += Duration::from_millis(1);
        self.health.test_ended(result, self.now)
    }

    fn faulty(&mut self, records: impl IntoIterator<Item = u64>) {
        for who in records {
            assert_eq!(self.note(who, HealthSample::Faulty, OtherCalls::Others), HealthChange::Nothing, "{who}");
        }
    }

    fn is_suspected(&self) -> bool {
        !self.health.is_trusted() && !self.health.is_down()
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_record_among_good_ones_is_never_suspicious() {
    let mut harness = BreakerHarness::new();
    for who in 1..500 {
        harness.note(who * 2, HealthSample::Good, OtherCalls::Others);
        harness.note(1, HealthSample::Faulty, OtherCalls::Others);
        assert!(harness.health.is_trusted());
    }
}

#[tokio::test(start_paused = true)]
async fn half_of_twenty_distinct_records_are_a_suspicion_and_three_failed_calls_open_the_breaker() {
    let mut harness = BreakerHarness::new();
    for who in 0..10 {
        harness.note(who, HealthSample::Good, OtherCalls::Others);
    }
    for who in 10..19 {
        harness.faulty([who, who]);
        assert!(harness.health.is_trusted(), "{who}");
    }
    harness.faulty([19]);
    assert!(harness.is_suspected());
    assert_eq!(harness.test(TestMeans::Repeat, TestResult::Faulty), HealthChange::Nothing);
    assert_eq!(harness.test(TestMeans::Repeat, TestResult::Unreached(OtherCalls::Others)), HealthChange::Nothing);
    assert_eq!(harness.test(TestMeans::Repeat, TestResult::Faulty), HealthChange::Down);
    assert!(harness.health.is_down());
}

#[tokio::test(start_paused = true)]
async fn a_test_that_goes_well_lets_the_suspicion_start_anew_after_a_second() {
    let mut harness = BreakerHarness::new();
    harness.faulty(0..20);
    assert_eq!(harness.test(TestMeans::Fresh, TestResult::Faulty), HealthChange::Nothing);
    assert_eq!(harness.test(TestMeans::Fresh, TestResult::Well), HealthChange::Nothing);
    assert!(harness.health.is_trusted());
    harness.faulty(20..60);
    assert!(harness.health.is_trusted(), "a second has not passed");
    harness.pass(1);
    harness.faulty([60]);
    assert!(harness.is_suspected());
    let mut harness = BreakerHarness::new();
    harness.faulty(0..20);
    harness.test(TestMeans::Check, TestResult::Well);
    harness.pass(1);
    harness.faulty(20..39);
    assert!(harness.health.is_trusted(), "it takes twenty again");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_goes_well_refutes_the_suspicion() {
    let mut harness = BreakerHarness::new();
    let before = harness.now;
    harness.faulty(0..20);
    harness.test(TestMeans::Fresh, TestResult::Faulty);
    harness.test(TestMeans::Fresh, TestResult::Faulty);
    harness.health.note(50, HealthSample::Good, times(before, harness.now), OtherCalls::Others);
    assert!(harness.is_suspected(), "it left before");
    assert_eq!(harness.test(TestMeans::Fresh, TestResult::Faulty), HealthChange::Nothing, "the test begins anew");
    harness.note(51, HealthSample::Good, OtherCalls::Others);
    assert!(harness.health.is_trusted());
}

#[tokio::test(start_paused = true)]
async fn calls_that_never_arrive_open_it_at_once_after_twenty_or_when_alone() {
    let mut harness = BreakerHarness::new();
    for who in 0..19 {
        assert_eq!(harness.note(who, HealthSample::Unreached, OtherCalls::Others), HealthChange::Nothing);
    }
    assert_eq!(harness.note(19, HealthSample::Unreached, OtherCalls::Others), HealthChange::Down);
    let mut harness = BreakerHarness::new();
    assert_eq!(harness.note(1, HealthSample::Unreached, OtherCalls::Alone), HealthChange::Down);
}

#[tokio::test(start_paused = true)]
async fn twenty_split_out_records_without_a_good_call_are_a_suspicion() {
    let mut harness = BreakerHarness::new();
    for who in 0..19 {
        harness.health.note_split_out(who);
        harness.note(500, HealthSample::Neutral, OtherCalls::Others);
    }
    assert!(harness.health.is_trusted());
    harness.health.note_split_out(19);
    harness.note(500, HealthSample::Neutral, OtherCalls::Others);
    assert!(harness.is_suspected());
}

#[tokio::test(start_paused = true)]
async fn probes_come_at_growing_intervals_up_to_a_minute() {
    let mut harness = BreakerHarness::new();
    harness.note(1, HealthSample::Unreached, OtherCalls::Alone);
    let mut gaps = Vec::new();
    for _ in 0..8 {
        let at = harness.health.probe_at().unwrap();
        gaps.push((at - harness.now).as_secs());
        harness.now = at;
        harness.health.test_left(TestMeans::Repeat);
        assert_eq!(harness.health.probe_at(), None);
        assert_eq!(harness.health.test_ended(TestResult::Faulty, harness.now), HealthChange::Nothing);
        assert!(!harness.health.wants_test(harness.now), "the same call again would say no more");
    }
    assert_eq!(gaps, [1, 2, 4, 8, 16, 32, 60, 60]);
    harness.pass(60);
    for result in [TestResult::Faulty, TestResult::Faulty] {
        assert_eq!(harness.test(TestMeans::Fresh, result), HealthChange::Nothing);
    }
    assert_eq!(harness.test(TestMeans::Fresh, TestResult::Well), HealthChange::Back);
}

#[tokio::test(start_paused = true)]
async fn a_test_that_comes_back_after_the_suspicion_is_gone_says_nothing() {
    let mut harness = BreakerHarness::new();
    harness.faulty(0..20);
    harness.health.test_left(TestMeans::Repeat);
    harness.note(50, HealthSample::Good, OtherCalls::Others);
    assert_eq!(harness.health.test_ended(TestResult::Faulty, harness.now), HealthChange::Nothing);
    assert!(harness.health.is_trusted());
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_job_fails_by_a_good_call_that_left_after_it() {
    let mut harness = BreakerHarness::new();
    let before = harness.now;
    harness.pass(1);
    harness.note(1, HealthSample::Good, OtherCalls::Others);
    harness.health.exhaust(7, ExhaustedBy::TemporaryErrors, Tried::Charged { since: before }, harness.now);
    assert_eq!(harness.health.settle_exhausted(times(before, harness.now)), SettledExhausted::default());
    assert_eq!(harness.health.settle_exhausted(times(harness.now, harness.now)).fail, [7]);
    assert!(!harness.health.has_exhausted());
}

#[tokio::test(start_paused = true)]
async fn what_nothing_can_judge_is_tried_again_every_ten_to_twenty_seconds_and_fails_after_two_minutes() {
    for jitter in [0.0, 0.5, 1.0] {
        let mut harness = BreakerHarness::new();
        let charged_at = harness.now;
        let (mut history, mut rounds) = (Tried::Charged { since: harness.now }, 0);
        loop {
            harness.health.exhaust(7, ExhaustedBy::TemporaryErrors, history, harness.now);
            harness.health.try_again_later(harness.now, jitter);
            let at = harness.health.retry_at().unwrap();
            let gap = at - harness.now;
            harness.now = at;
            let settled = harness.health.take_retries(harness.now);
            let Some((7, again)) = settled.try_again.first() else {
                assert_eq!(settled.fail, [7]);
                break;
            };
            history = Tried::Beyond(*again);
            assert!((10..=20).contains(&gap.as_secs()), "{gap:?}");
            rounds += 1;
        }
        assert_eq!(harness.now - charged_at, Duration::from_secs(120));
        assert!((5..=11).contains(&rounds), "{rounds}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_only_tried_while_nothing_went_well_is_tried_a_last_time_once_something_does() {
    let mut harness = BreakerHarness::new();
    harness.health.exhaust(7, ExhaustedBy::TemporaryErrors, Tried::Charged { since: harness.now }, harness.now);
    let (_, overtime) = harness.health.settle_exhausted(times(harness.now, harness.now)).try_again[0];
    harness.health.exhaust(7, ExhaustedBy::TemporaryErrors, Tried::Beyond(overtime), harness.now);
    assert_eq!(harness.health.settle_exhausted(times(harness.now, harness.now)).fail, [7]);
    let mut harness = BreakerHarness::new();
    harness.health.exhaust(7, ExhaustedBy::UnknownCodes, Tried::Charged { since: harness.now }, harness.now);
    assert_eq!(harness.health.settle_exhausted(times(harness.now, harness.now)).fail, [7]);
}

#[tokio::test(start_paused = true)]
async fn the_two_minutes_stand_still_while_the_service_is_down_or_throttles() {
    let mut harness = BreakerHarness::new();
    harness.health.exhaust(7, ExhaustedBy::TemporaryErrors, Tried::Charged { since: harness.now }, harness.now);
    harness.note(1, HealthSample::Throttled, OtherCalls::Others);
    harness.pass(600);
    harness.note(1, HealthSample::Faulty, OtherCalls::Others);
    harness.note(1, HealthSample::Unreached, OtherCalls::Alone);
    harness.pass(600);
    assert_eq!(harness.test(TestMeans::Check, TestResult::Well), HealthChange::Back);
    harness.health.try_again_later(harness.now, 0.0);
    harness.pass(10);
    let (_, overtime) = harness.health.take_retries(harness.now).try_again[0];
    harness.health.exhaust(7, ExhaustedBy::TemporaryErrors, Tried::Beyond(overtime), harness.now);
    harness.pass(100);
    harness.health.try_again_later(harness.now, 1.0);
    let left = harness.health.retry_at().unwrap() - harness.now;
    assert!((9..=10).contains(&left.as_secs()), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn throttling_ends_with_the_first_other_answer() {
    let mut harness = BreakerHarness::new();
    let since = harness.now + Duration::from_millis(1);
    harness.note(1, HealthSample::Throttled, OtherCalls::Others);
    harness.note(1, HealthSample::Throttled, OtherCalls::Others);
    harness.note(1, HealthSample::Neutral, OtherCalls::Others);
    assert_eq!(harness.health.useless_since(), Some(since));
    harness.note(1, HealthSample::Faulty, OtherCalls::Others);
    assert_eq!(harness.health.useless_since(), None);
}
