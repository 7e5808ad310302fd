//! Proves the limit: it knows when the requests of the last second were granted and written, and so when one more may follow.
//!
//! A request that was granted and is not yet written counts as one that may be written at any moment.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::permit::Reported;
use super::{Rate, SECOND};

/// What is added to the second, for the jitter of the line: calls that left 1.002 s apart may arrive 1 s apart. Source: the contract of the
/// pace; where calls are spread evenly, one that comes too soon meets no crowd.
const MARGIN: Duration = Duration::from_millis(2);
/// The same for the short windows. Chosen: the resolution of the timer.
const SHORT_MARGIN: Duration = Duration::from_millis(1);
const TENTH: Duration = Duration::from_millis(100);
const HUNDREDTH: Duration = Duration::from_millis(10);
/// What counts as together, and how many that may be at least. Source: the contract of the pace; the time is chosen, as the timer's.
const MOMENT: Duration = Duration::from_millis(2);
const TOGETHER: usize = 3;
/// Stands for no limit, in calls a second. Chosen: more than a machine can make.
const UNLIMITED: usize = 1 << 40;

/// Whether one more call may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Now,
    At(Instant),
    /// Once a call that was granted has been written.
    WhenSent,
}

/// At most so many calls in so much time.
#[derive(Debug, Clone, Copy)]
struct SlidingWindow {
    time: Duration,
    most: usize,
}

/// The calls of the last second, against a limit.
#[derive(Debug)]
pub(super) struct Ring {
    second: SlidingWindow,
    /// What keeps calls even, the shortest one last.
    short: [SlidingWindow; 3],
    /// When calls were granted; as many as the short windows ask for.
    grants: VecDeque<Instant>,
    /// When calls were seen to be written, of the last second.
    sends: VecDeque<Instant>,
    /// Granted calls that may wait for their connections besides those that the short windows have room for. It grows while every call waits
    /// for one and they come up one after the other. It is lost when some come up together, and when a call has a connection already: it
    /// would be written between those that wait.
    spread: usize,
}

impl Ring {
    pub(super) fn new(rate: Rate) -> Self {
        let limit = match rate {
            Rate::PerSecond(limit) => limit.get() as usize,
            Rate::Unlimited => UNLIMITED,
        };
        let hundredth = 1 + (15 * limit).div_ceil(1_000);
        let together = TOGETHER.max(limit / 200).min(hundredth);
        let short = [(TENTH, 2 + limit.div_ceil(10)), (HUNDREDTH, hundredth), (MOMENT, together)];
        Self {
            second: SlidingWindow { time: SECOND + MARGIN, most: limit },
            short: short.map(|(time, most)| SlidingWindow { time: time + SHORT_MARGIN, most: most.min(limit) }),
            grants: VecDeque::new(),
            sends: VecDeque::new(),
            spread: 0,
        }
    }

    /// Whether a call may be granted now, if so many are granted and not yet written.
    pub(super) fn room(&self, granted: usize, now: Instant) -> Room {
        let crowd = granted.saturating_sub(self.spread);
        let in_second = room(&self.sends, self.second, granted, now);
        let even = self.short.map(|window| later(room(&self.sends, window, crowd, now), room(&self.grants, window, 0, now)));
        even.into_iter().fold(in_second, later)
    }

    /// A call is granted.
    pub(super) fn granted(&mut self, now: Instant) {
        if self.second.most == UNLIMITED {
            return;
        }
        self.grants.push_back(now);
        let kept = self.short.iter().map(|window| window.most).fold(1, usize::max);
        while self.grants.len() > kept {
            self.grants.pop_front();
        }
    }

    /// Takes note of what became of granted calls by now.
    pub(super) fn written(&mut self, reported: Reported, now: Instant) {
        while self.sends.front().is_some_and(|oldest| now - *oldest >= self.second.time) {
            self.sends.pop_front();
        }
        self.grants.truncate(self.grants.len().saturating_sub(reported.given_up as usize));
        let calls = reported.sent as usize;
        if calls == 0 {
            return;
        }
        let [_, short, _] = self.short;
        let crowd = self.sends.iter().rev().take_while(|at| now - **at < short.time).count() + calls;
        let is_spread = reported.prompt == 0 && crowd <= short.most;
        self.spread = if is_spread { (self.spread + calls).min(self.second.most) } else { 0 };
        self.sends.extend(std::iter::repeat_n(now, calls));
    }

    /// Calls of the second that ends now.
    pub(super) fn in_last_second(&self, now: Instant) -> usize {
        self.sends.len() - self.sends.partition_point(|at| now - *at >= SECOND)
    }
}

/// Whether `window` has room for one call more than were at these times and `more`.
fn room(times: &VecDeque<Instant>, window: SlidingWindow, more: usize, now: Instant) -> Room {
    let Some(others) = window.most.checked_sub(more + 1) else { return Room::WhenSent };
    let Some(one_too_many) = times.len().checked_sub(others + 1) else { return Room::Now };
    let free_at = times[one_too_many] + window.time;
    if free_at <= now { Room::Now } else { Room::At(free_at) }
}

fn later(one: Room, other: Room) -> Room {
    match (one, other) {
        (Room::WhenSent, _) | (_, Room::WhenSent) => Room::WhenSent,
        (Room::At(one), Room::At(other)) => Room::At(one.max(other)),
        (Room::At(at), Room::Now) | (Room::Now, Room::At(at)) => Room::At(at),
        (Room::Now, Room::Now) => Room::Now,
    }
}
