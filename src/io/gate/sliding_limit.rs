//! Enforces the limit: it remembers when the requests of the last second were granted and written, and says when one more may follow.
//!
//! A granted request that is not written yet counts, because it may be written at any moment.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::permit::Reported;
use super::{Rate, SECOND};

/// Added to the second for jitter: requests that left 1.002 s apart may arrive 1 s apart. Source: the contract of the pace. Where requests
/// are spread evenly, one that arrives too soon meets few others.
const MARGIN: Duration = Duration::from_millis(2);
/// The same margin for the short windows. Chosen: the resolution of the timer.
const SHORT_MARGIN: Duration = Duration::from_millis(1);
const TENTH: Duration = Duration::from_millis(100);
const HUNDREDTH: Duration = Duration::from_millis(10);
/// Requests within this time count as one group, whose size has a minimum. Source: the contract of the pace; the time is the timer's
/// resolution.
const MOMENT: Duration = Duration::from_millis(2);
const TOGETHER: usize = 3;
/// The window size for "no limit". Chosen: more requests than a machine can send.
const UNLIMITED: usize = 1 << 40;

/// Whether one more request may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WindowRoom {
    Now,
    At(Instant),
    /// When a granted request has been written.
    WhenSent,
}

/// A limit of so many requests in so much time.
#[derive(Debug, Clone, Copy)]
struct SlidingWindow {
    time: Duration,
    most: usize,
}

/// The grants and writes of the last second, and the limits on them.
#[derive(Debug)]
pub(super) struct SlidingLimit {
    second: SlidingWindow,
    /// The windows that keep requests evenly spread, the shortest one last.
    short: [SlidingWindow; 3],
    /// Times of grants, as many as the short windows need.
    grants: VecDeque<Instant>,
    /// Times at which requests of the last second were seen to be written.
    sends: VecDeque<Instant>,
    /// Granted requests that may wait for their connections beyond the room in the short windows. It grows while every request waits and
    /// the connections become ready one after the other. It is reset when some become ready together, and when a request has a connection
    /// already: that one would be written between those that wait.
    spread: usize,
}

impl SlidingLimit {
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

    /// Whether a request may be granted now, if `granted` requests are granted and not yet written.
    pub(super) fn room(&self, granted: usize, now: Instant) -> WindowRoom {
        let crowd = granted.saturating_sub(self.spread);
        let in_second = room(&self.sends, self.second, granted, now);
        let even = self.short.map(|window| later(room(&self.sends, window, crowd, now), room(&self.grants, window, 0, now)));
        even.into_iter().fold(in_second, later)
    }

    /// Records a grant.
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

    /// Records which granted requests were written or dropped by `now`.
    pub(super) fn written(&mut self, reported: Reported, now: Instant) {
        while self.sends.front().is_some_and(|oldest| now - *oldest >= self.second.time) {
            self.sends.pop_front();
        }
        self.grants.truncate(self.grants.len().saturating_sub(reported.released as usize));
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

    /// Requests in the second that ends now.
    pub(super) fn in_last_second(&self, now: Instant) -> usize {
        self.sends.len() - self.sends.partition_point(|at| now - *at >= SECOND)
    }
}

/// Whether `window` has room for one more request besides those at `times` and `more`.
fn room(times: &VecDeque<Instant>, window: SlidingWindow, more: usize, now: Instant) -> WindowRoom {
    let Some(others) = window.most.checked_sub(more + 1) else { return WindowRoom::WhenSent };
    let Some(one_too_many) = times.len().checked_sub(others + 1) else { return WindowRoom::Now };
    let free_at = times[one_too_many] + window.time;
    if free_at <= now { WindowRoom::Now } else { WindowRoom::At(free_at) }
}

fn later(one: WindowRoom, other: WindowRoom) -> WindowRoom {
    match (one, other) {
        (WindowRoom::WhenSent, _) | (_, WindowRoom::WhenSent) => WindowRoom::WhenSent,
        (WindowRoom::At(one), WindowRoom::At(other)) => WindowRoom::At(one.max(other)),
        (WindowRoom::At(at), WindowRoom::Now) | (WindowRoom::Now, WindowRoom::At(at)) => WindowRoom::At(at),
        (WindowRoom::Now, WindowRoom::Now) => WindowRoom::Now,
    }
}
