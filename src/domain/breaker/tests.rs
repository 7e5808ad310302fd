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

    fn note(&mut self, who: u64, sample: HealthSample, company: OtherCalls) -> HealthChange {
        let left = self.now;
        self.now += Duration::from_millis(1);
        self.health.note(who, sample, times(left, self.now), company)
    }

    fn test(&mut self, means: Means, result: TestResult) -> HealthChange {
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
    let mut desk = BreakerHarness::new();
    for who in 1..500 {
        desk.note(who * 2, HealthSample::Good, OtherCalls::Others);
        desk.note(1, HealthSample::Faulty, OtherCalls::Others);
        assert!(desk.health.is_trusted());
    }
}

#[tokio::test(start_paused = true)]
async fn half_of_twenty_distinct_records_are_a_suspicion_and_three_failed_calls_open_the_breaker() {
    let mut desk = BreakerHarness::new();
    for who in 0..10 {
        desk.note(who, HealthSample::Good, OtherCalls::Others);
    }
    for who in 10..19 {
        desk.faulty([who, who]);
        assert!(desk.health.is_trusted(), "{who}");
    }
    desk.faulty([19]);
    assert!(desk.is_suspected());
    assert_eq!(desk.test(Means::Repeat, TestResult::Faulty), HealthChange::Nothing);
    assert_eq!(desk.test(Means::Repeat, TestResult::Unreached(OtherCalls::Others)), HealthChange::Nothing);
    assert_eq!(desk.test(Means::Repeat, TestResult::Faulty), HealthChange::Down);
    assert!(desk.health.is_down());
}

#[tokio::test(start_paused = true)]
async fn a_test_that_goes_well_lets_the_suspicion_start_anew_after_a_second() {
    let mut desk = BreakerHarness::new();
    desk.faulty(0..20);
    assert_eq!(desk.test(Means::Fresh, TestResult::Faulty), HealthChange::Nothing);
    assert_eq!(desk.test(Means::Fresh, TestResult::Well), HealthChange::Nothing);
    assert!(desk.health.is_trusted());
    desk.faulty(20..60);
    assert!(desk.health.is_trusted(), "a second has not passed");
    desk.pass(1);
    desk.faulty([60]);
    assert!(desk.is_suspected());
    let mut desk = BreakerHarness::new();
    desk.faulty(0..20);
    desk.test(Means::Check, TestResult::Well);
    desk.pass(1);
    desk.faulty(20..39);
    assert!(desk.health.is_trusted(), "it takes twenty again");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_goes_well_refutes_the_suspicion() {
    let mut desk = BreakerHarness::new();
    let before = desk.now;
    desk.faulty(0..20);
    desk.test(Means::Fresh, TestResult::Faulty);
    desk.test(Means::Fresh, TestResult::Faulty);
    desk.health.note(50, HealthSample::Good, times(before, desk.now), OtherCalls::Others);
    assert!(desk.is_suspected(), "it left before");
    assert_eq!(desk.test(Means::Fresh, TestResult::Faulty), HealthChange::Nothing, "the test begins anew");
    desk.note(51, HealthSample::Good, OtherCalls::Others);
    assert!(desk.health.is_trusted());
}

#[tokio::test(start_paused = true)]
async fn calls_that_never_arrive_open_it_at_once_after_twenty_or_when_alone() {
    let mut desk = BreakerHarness::new();
    for who in 0..19 {
        assert_eq!(desk.note(who, HealthSample::Unreached, OtherCalls::Others), HealthChange::Nothing);
    }
    assert_eq!(desk.note(19, HealthSample::Unreached, OtherCalls::Others), HealthChange::Down);
    let mut desk = BreakerHarness::new();
    assert_eq!(desk.note(1, HealthSample::Unreached, OtherCalls::Alone), HealthChange::Down);
}

#[tokio::test(start_paused = true)]
async fn twenty_split_out_records_without_a_good_call_are_a_suspicion() {
    let mut desk = BreakerHarness::new();
    for who in 0..19 {
        desk.health.note_split_out(who);
        desk.note(500, HealthSample::Neutral, OtherCalls::Others);
    }
    assert!(desk.health.is_trusted());
    desk.health.note_split_out(19);
    desk.note(500, HealthSample::Neutral, OtherCalls::Others);
    assert!(desk.is_suspected());
}

#[tokio::test(start_paused = true)]
async fn probes_come_at_growing_intervals_up_to_a_minute() {
    let mut desk = BreakerHarness::new();
    desk.note(1, HealthSample::Unreached, OtherCalls::Alone);
    let mut gaps = Vec::new();
    for _ in 0..8 {
        let at = desk.health.probe_at().unwrap();
        gaps.push((at - desk.now).as_secs());
        desk.now = at;
        desk.health.test_left(Means::Repeat);
        assert_eq!(desk.health.probe_at(), None);
        assert_eq!(desk.health.test_ended(TestResult::Faulty, desk.now), HealthChange::Nothing);
        assert!(!desk.health.wants_test(desk.now), "the same call again would say no more");
    }
    assert_eq!(gaps, [1, 2, 4, 8, 16, 32, 60, 60]);
    desk.pass(60);
    for result in [TestResult::Faulty, TestResult::Faulty] {
        assert_eq!(desk.test(Means::Fresh, result), HealthChange::Nothing);
    }
    assert_eq!(desk.test(Means::Fresh, TestResult::Well), HealthChange::Back);
}

#[tokio::test(start_paused = true)]
async fn a_test_that_comes_back_after_the_suspicion_is_gone_says_nothing() {
    let mut desk = BreakerHarness::new();
    desk.faulty(0..20);
    desk.health.test_left(Means::Repeat);
    desk.note(50, HealthSample::Good, OtherCalls::Others);
    assert_eq!(desk.health.test_ended(TestResult::Faulty, desk.now), HealthChange::Nothing);
    assert!(desk.health.is_trusted());
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_job_fails_by_a_good_call_that_left_after_it() {
    let mut desk = BreakerHarness::new();
    let before = desk.now;
    desk.pass(1);
    desk.note(1, HealthSample::Good, OtherCalls::Others);
    desk.health.exhaust(7, ExhaustedBy::TemporaryErrors, Tried::Charged { since: before }, desk.now);
    assert_eq!(desk.health.release(times(before, desk.now)), Released::default());
    assert_eq!(desk.health.release(times(desk.now, desk.now)).fail, [7]);
    assert!(!desk.health.has_exhausted());
}

#[tokio::test(start_paused = true)]
async fn what_nothing_can_judge_is_tried_again_every_ten_to_twenty_seconds_and_fails_after_two_minutes() {
    for jitter in [0.0, 0.5, 1.0] {
        let mut desk = BreakerHarness::new();
        let charged_at = desk.now;
        let (mut history, mut rounds) = (Tried::Charged { since: desk.now }, 0);
        loop {
            desk.health.exhaust(7, ExhaustedBy::TemporaryErrors, history, desk.now);
            desk.health.try_again_later(desk.now, jitter);
            let at = desk.health.retry_at().unwrap();
            let gap = at - desk.now;
            desk.now = at;
            let released = desk.health.take_retries(desk.now);
            let Some((7, again)) = released.try_again.first() else {
                assert_eq!(released.fail, [7]);
                break;
            };
            history = Tried::Beyond(*again);
            assert!((10..=20).contains(&gap.as_secs()), "{gap:?}");
            rounds += 1;
        }
        assert_eq!(desk.now - charged_at, Duration::from_secs(120));
        assert!((5..=11).contains(&rounds), "{rounds}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_only_tried_while_nothing_went_well_is_tried_a_last_time_once_something_does() {
    let mut desk = BreakerHarness::new();
    desk.health.exhaust(7, ExhaustedBy::TemporaryErrors, Tried::Charged { since: desk.now }, desk.now);
    let (_, overtime) = desk.health.release(times(desk.now, desk.now)).try_again[0];
    desk.health.exhaust(7, ExhaustedBy::TemporaryErrors, Tried::Beyond(overtime), desk.now);
    assert_eq!(desk.health.release(times(desk.now, desk.now)).fail, [7]);
    let mut desk = BreakerHarness::new();
    desk.health.exhaust(7, ExhaustedBy::UnknownCodes, Tried::Charged { since: desk.now }, desk.now);
    assert_eq!(desk.health.release(times(desk.now, desk.now)).fail, [7]);
}

#[tokio::test(start_paused = true)]
async fn the_two_minutes_stand_still_while_the_service_is_down_or_throttles() {
    let mut desk = BreakerHarness::new();
    desk.health.exhaust(7, ExhaustedBy::TemporaryErrors, Tried::Charged { since: desk.now }, desk.now);
    desk.note(1, HealthSample::Throttled, OtherCalls::Others);
    desk.pass(600);
    desk.note(1, HealthSample::Faulty, OtherCalls::Others);
    desk.note(1, HealthSample::Unreached, OtherCalls::Alone);
    desk.pass(600);
    assert_eq!(desk.test(Means::Check, TestResult::Well), HealthChange::Back);
    desk.health.try_again_later(desk.now, 0.0);
    desk.pass(10);
    let (_, overtime) = desk.health.take_retries(desk.now).try_again[0];
    desk.health.exhaust(7, ExhaustedBy::TemporaryErrors, Tried::Beyond(overtime), desk.now);
    desk.pass(100);
    desk.health.try_again_later(desk.now, 1.0);
    let left = desk.health.retry_at().unwrap() - desk.now;
    assert!((9..=10).contains(&left.as_secs()), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn throttling_ends_with_the_first_other_answer() {
    let mut desk = BreakerHarness::new();
    let since = desk.now + Duration::from_millis(1);
    desk.note(1, HealthSample::Throttled, OtherCalls::Others);
    desk.note(1, HealthSample::Throttled, OtherCalls::Others);
    desk.note(1, HealthSample::Neutral, OtherCalls::Others);
    assert_eq!(desk.health.useless_since(), Some(since));
    desk.note(1, HealthSample::Faulty, OtherCalls::Others);
    assert_eq!(desk.health.useless_since(), None);
}
