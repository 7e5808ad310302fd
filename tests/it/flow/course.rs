//! The course of a run as its progress reports tell it: what the plots of the page show.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use chatlift::domain::command::Command;
use chatlift::domain::series::{POINTS_MAX, PhaseKind, Point, RunMoment, Series};
use chatlift::domain::verdict::CallOutcome;
use chatlift::flow::import::ImportEnd;
use tokio::time::Instant;

use super::service::{Reply, Service, World, accounts, code, imported};

/// Runs it, and returns its course.
async fn course(mut world: World, service: &Service) -> Vec<Point> {
    let (series, began) = (Rc::new(RefCell::new(Series::new(0))), Instant::now());
    let noted = Rc::clone(&series);
    world.tell = Box::new(move |progress| {
        let sample =
            RunMoment { phase: (&progress.requests.phase).into(), rows: progress.counts.rows(), calls: Some(&progress.requests.so_far) };
        assert_eq!(progress.requests.at, Instant::now(), "it is told at once");
        noted.borrow_mut().note(progress.requests.at - began, &sample);
    });
    let run = world.run(service).await;
    assert!(matches!(run.end, ImportEnd::Finished), "{:?}", run.end);
    let points = series.borrow().points();
    assert!(points.len() <= POINTS_MAX);
    assert!(points.windows(2).all(|pair| pair[0].to == pair[1].from));
    points
}

fn calls(points: &[Point], command: Command) -> u64 {
    points.iter().map(|point| point.calls[command]).sum()
}

fn during(points: &[Point], phase: PhaseKind) -> Duration {
    points.iter().map(|point| point.time_in(phase)).sum()
}

#[tokio::test(start_paused = true)]
async fn its_points_add_up_to_the_requests_of_a_run_with_an_outage() {
    let service = Service::new(|call| match call.at.as_secs() {
        20..50 => {
            Reply { latency: Duration::ZERO, end: CallOutcome::Unreached { why: "connection refused".to_owned() }, ..Reply::default() }
        }
        _ => imported(Duration::from_millis(30)),
    });
    let points = course(World::new(accounts(20_000)), &service).await;
    let sent = calls(&points, Command::AccountImport) + calls(&points, Command::AccountCheck);
    assert_eq!(sent, service.calls(), "no request is lost, and none is counted twice");
    let waiting = during(&points, PhaseKind::Waiting).as_secs();
    assert!((25..=75).contains(&waiting), "the outage, and up to a pause between probes: {waiting} s");
    for point in &points {
        assert!(point.calls_per_s(Command::AccountImport) <= 200.0, "{point:?}");
        assert!(point.limits[Command::AccountImport] == Some(200.0));
        assert!(point.latency().is_none_or(|latency| latency.p99 <= 31), "{point:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_limit_that_it_shows_while_throttled_is_what_gets_through() {
    let service = Service::new(|call| if call.in_last_second > 50 { code(60007) } else { imported(Duration::from_millis(20)) });
    let points = course(World::new(accounts(6_000)), &service).await;
    assert_eq!(calls(&points, Command::AccountImport), service.calls());
    assert!(during(&points, PhaseKind::Throttled) > Duration::from_secs(60));
    let limit = points[points.len() / 2].limits[Command::AccountImport].unwrap();
    assert!((40.0..=60.0).contains(&limit), "{limit}");
    assert_eq!(points[points.len() / 2].phase(), PhaseKind::Throttled);
}

#[tokio::test(start_paused = true)]
async fn the_limit_that_it_shows_rises_with_the_pace_that_tests_for_more() {
    // Everything is refused for some seconds, and nothing after that: what got through at the last refusal is no limit any more.
    let service = Service::new(|call| match call.at.as_secs() {
        5..8 => code(60007),
        _ => imported(Duration::from_millis(20)),
    });
    let points = course(World::new(accounts(6_000)), &service).await;
    assert!(during(&points, PhaseKind::Throttled) > Duration::from_secs(20));
    let limit = |point: &Point| point.limits[Command::AccountImport].unwrap();
    for point in &points {
        let (sent, limit) = (point.calls_per_s(Command::AccountImport), limit(point));
        assert!(sent <= limit + 1.0, "{sent} requests a second are drawn above a limit of {limit}: {point:?}");
    }
    assert!(points.iter().any(|point| limit(point) < 10.0) && points.iter().rev().take(5).all(|point| limit(point) >= 199.9));
}
