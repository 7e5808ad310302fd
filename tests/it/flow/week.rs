//! A hundred million accounts at 200 a second take 5.8 days. Here such a week passes on the paused clock, with what a week brings.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chatlift::domain::command::PerCommand;
use chatlift::domain::verdict::CallOutcome;
use chatlift::flow::import::ImportEnd;
use chatlift::io::api::usersig::read_claims;
use tokio::time::Instant;

use super::per_second;
use super::service::{Keep, Reply, Service, World, accounts, code, imported};

/// 5.8 days.
const WEEK: Duration = Duration::from_secs(501_120);
const HOUR: Duration = Duration::from_secs(3_600);
/// The service's clock at the start.
const EPOCH: Duration = Duration::from_secs(1_800_000_000);
/// When the service goes away for an hour, and when this machine's clock jumps by an hour.
const OUTAGE_AT: Duration = Duration::from_secs(200_000);
const CLOCK_JUMPS_AT: Duration = Duration::from_secs(300_000);

async fn week_at(rate: u32) {
    let began = Instant::now();
    let rows = u64::from(rate) * WEEK.as_secs();
    let signatures = Rc::new(RefCell::new(BTreeSet::new()));
    let seen = Rc::clone(&signatures);
    let service = Service::new(move |call| {
        seen.borrow_mut().insert(call.signature.generation);
        if (OUTAGE_AT..OUTAGE_AT + HOUR).contains(&call.at) {
            return Reply {
                connect: Duration::ZERO,
                latency: Duration::from_millis(50),
                end: CallOutcome::Lost { why: "HTTP 502".to_owned() },
            };
        }
        let is_first_of_its_kind = seen.borrow().len() as u64 * 1_000 > call.number;
        let expired = is_first_of_its_kind && read_claims(&call.signature.usersig).unwrap().expires_at < UNIX_EPOCH + EPOCH + call.at;
        if expired { code(70001) } else { imported(Duration::from_millis(50)) }
    })
    .forgetful();
    let mut world = World::new(accounts(rows)).keeping(Keep::Counts);
    world.settings.dispatch.rates = PerCommand::new(|_| per_second(rate));
    // A commit is a hop to another thread; half a million of them would be most of this test's time.
    world.settings.commit_every = Duration::from_secs(60);
    world.settings.dispatch.progress_every = Duration::from_secs(60);
    world.wall = Box::new(move || this_machines_clock(began.elapsed()));
    let run = world.run(&service).await;
    assert!(matches!(run.end, ImportEnd::Finished), "{:?}", run.end);
    assert_eq!((run.counts.imported, run.counts.failed), (rows, 0));
    assert!(service.most_in_1s() <= rate as usize, "{}", service.most_in_1s());
    assert_eq!(run.traffic.most_in_1s(), service.most_in_1s(), "the tool's own count agrees");
    assert!(signatures.borrow().len() >= 12, "a signature is renewed at half its life of a day: {signatures:?}");
    let lasted = began.elapsed();
    let least = WEEK + HOUR;
    assert!(lasted >= least && lasted < least.mul_f64(1.02), "{lasted:?}");
    println!("a week at {rate} calls/s: {rows} rows, {} calls, {} signatures", service.calls(), signatures.borrow().len());
}

fn this_machines_clock(since_start: Duration) -> SystemTime {
    let jump = if since_start >= CLOCK_JUMPS_AT { HOUR } else { Duration::ZERO };
    UNIX_EPOCH + EPOCH + since_start + jump
}

/// The same week at a two hundredth of the pace, so that it takes seconds.
#[tokio::test(start_paused = true)]
async fn a_week_with_an_outage_and_a_clock_jump_fails_no_row() {
    week_at(1).await;
}

/// All of the hundred million calls; some minutes in a release build.
#[tokio::test(start_paused = true)]
#[ignore = "a hundred million calls take minutes: cargo test --release --test it -- --ignored a_whole_week"]
async fn a_whole_week_at_200_a_second_fails_no_row() {
    week_at(200).await;
}
