//! The gate: the token bucket that every call passes last, retries and probes included.
//!
//! Governor spaces the grants; a ring of send times proves the limit. A permit counts against the limit from its grant until one
//! second (and a margin) after the call was **written**, however long connecting takes, so that calls cannot bunch up behind the gate.
//! Never sleeps: it says when to ask again.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::ops::Add;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::command::{Command, PerCommand};

/// The sliding second that the limit is about.
const SECOND: Duration = Duration::from_secs(1);
/// What is added to the second, for the jitter of the line: calls that left 1.005 s apart may arrive 1 s apart.
/// Chosen: it costs 0.5 % of the rate; 2 ms was the least that never let a 201st call through on a quiet machine (measured 2026-11-23),
/// and on a busy one a server's thread is some milliseconds late.
const MARGIN: Duration = Duration::from_millis(5);
/// The same for heavy calls, which a service looks at later. Chosen: 99 % of the rate remain.
const HEAVY_MARGIN: Duration = Duration::from_millis(8);
/// Groups a second of [`Spacing::Groups`]. Waking an idle core costs more than a small call does: on two virtual cores 1,000 calls at 200/s
/// took 0.21 s of CPU one by one, 0.08 s in groups of ten and 0.06 s in groups of twenty (measured 2026-11-24, medians).
const GROUPS_PER_S: f64 = 10.0;
/// Groups a second of [`Spacing::Even`], so that a timer of a millisecond keeps up. Chosen.
const EVEN_GROUPS_PER_S: f64 = 500.0;
/// Most calls in a group. Chosen: at 10,000/s a hundred cost 5 % of a core (measured 2026-11-23).
const GROUP_MAX: f64 = 100.0;
/// The bucket holds this many groups. One alone loses 4 to 18 % to the lateness of timers, two nothing (measured 2026-11-23).
const GROUPS_IN_BUCKET: u32 = 2;
/// The slowest pace that throttling leads to, in calls a second.
const FLOOR_PER_S: f64 = 5.0;
/// The pace climbs back by this factor …
const CLIMB: f64 = 1.05;
/// … this often.
const CLIMB_EVERY: Duration = Duration::from_secs(2);
/// After an outage the pace starts here and doubles every second.
const RAMP_FROM_PER_S: f64 = 10.0;
const RAMP: f64 = 2.0;
const RAMP_EVERY: Duration = Duration::from_secs(1);

/// Calls a second; no limit for a loopback endpoint only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    PerSecond(NonZeroU32),
    Unlimited,
}

/// How calls are spread over a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spacing {
    /// Some at a time: for calls that cost the service next to nothing.
    Groups,
    /// One after the other: for heavy calls, which would wait for each other at the service and so arrive late.
    Even,
}

impl Spacing {
    /// A hundred accounts keep the service busy for a while, one doesn't.
    #[must_use]
    pub const fn of(command: Command) -> Self {
        match command {
            Command::AccountImport | Command::Kick => Spacing::Groups,
            Command::MultiaccountImport
            | Command::PortraitGet
            | Command::AccountCheck
            | Command::AccountDelete
            | Command::QueryOnlineStatus => Spacing::Even,
        }
    }

    const fn margin(self) -> Duration {
        match self {
            Spacing::Groups => MARGIN,
            Spacing::Even => HEAVY_MARGIN,
        }
    }
}

/// The gate's answer to "may a call leave now?".
#[derive(Debug)]
pub enum Turn {
    Now(Permit),
    /// Ask again at this time.
    At(Instant),
    /// Ask again when a call that was granted has been written (see [`Gate::sent`]).
    WhenSent,
}

/// How the pace climbs back to the limit.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Climb {
    /// At the limit.
    Done,
    /// Slowed by the service: by a few per cent every few seconds.
    Careful { at: Instant },
    /// Ramping up after an outage: doubling.
    /// … up to this pace, where the service had slowed it before.
    Ramp { at: Instant, ceiling_per_s: f64 },
}

/// The token bucket with its proof; owned by the one loop that sends.
#[derive(Debug)]
pub struct Gate {
    rate: Rate,
    pace_per_s: f64,
    climb: Climb,
    slowed_at: Option<Instant>,
    bucket: RateLimiter<NotKeyed, InMemoryState, SetClock, NoOpMiddleware<Tick>>,
    spacing: Spacing,
    /// Calls that are let through at a time.
    group: u32,
    clock: SetClock,
    origin: Instant,
    /// When the calls of the last second were seen to be written, oldest first.
    sends: VecDeque<Instant>,
    /// The first so many of them are those of an earlier process.
    foreign: usize,
    /// Granted, and neither written nor given up yet.
    granted: u32,
    marks: Arc<Marks>,
    most_in_1s: usize,
    first_send: Option<Instant>,
    last_send: Option<Instant>,
    written: u64,
}

impl Gate {
    #[must_use]
    pub fn new(rate: Rate, spacing: Spacing, now: Instant) -> Self {
        let clock = SetClock::default();
        let pace_per_s = rate.per_s();
        let earlier = earlier_process(rate, spacing.margin(), now);
        Self {
            rate,
            pace_per_s,
            climb: Climb::Done,
            slowed_at: None,
            bucket: bucket(pace_per_s, spacing, &clock),
            group: group(pace_per_s, spacing),
            spacing,
            clock,
            origin: now,
            foreign: earlier.len(),
            sends: earlier,
            granted: 0,
            marks: Arc::default(),
            most_in_1s: 0,
            first_send: None,
            last_send: None,
            written: 0,
        }
    }

    /// Asks for one call. A permit that is dropped unsent gives its place back.
    pub fn ask(&mut self, now: Instant) -> Turn {
        self.note_sends(now);
        let Rate::PerSecond(limit) = self.rate else { return self.grant() };
        self.climb_back(now);
        let limit = limit.get() as usize;
        let taken = self.sends.len() + self.granted as usize;
        if taken >= limit {
            let first = taken - limit;
            let last = (first + self.group as usize - 1).min(self.sends.len().saturating_sub(1));
            return match self.sends.get(first.max(last)) {
                Some(sent) => Turn::At(*sent + SECOND + self.spacing.margin()),
                None => Turn::WhenSent,
            };
        }
        self.clock.set(now - self.origin);
        match self.bucket.check() {
            Ok(()) => self.grant(),
            Err(not_until) => {
                let others = SECOND.div_f64(self.pace_per_s) * (self.group - 1);
                Turn::At(now + not_until.wait_time_from(self.clock.now()) + others)
            }
        }
    }

    fn grant(&mut self) -> Turn {
        self.granted += 1;
        Turn::Now(Permit { marks: Arc::clone(&self.marks), state: PermitState::Granted })
    }

    /// Resolves when a granted call has been written or given up since the last [`Gate::ask`]; never, if there is no limit to wait for.
    pub fn sent(&self) -> impl Future<Output = ()> + use<> {
        let marks = (self.rate != Rate::Unlimited).then(|| Arc::clone(&self.marks));
        async move {
            match marks {
                Some(marks) => marks.changed.notified().await,
                None => std::future::pending().await,
            }
        }
    }

    /// Takes over what the permits marked. `now` is after the write, so a stamp is never too early.
    pub fn note_sends(&mut self, now: Instant) {
        let sent = self.marks.sent.swap(0, Ordering::AcqRel);
        let given_up = self.marks.given_up.swap(0, Ordering::AcqRel);
        self.granted -= sent + given_up;
        let window = if self.rate == Rate::Unlimited { SECOND } else { SECOND + self.spacing.margin() };
        while self.sends.front().is_some_and(|oldest| now - *oldest >= window) {
            self.sends.pop_front();
            self.foreign = self.foreign.saturating_sub(1);
        }
        if sent == 0 {
            return;
        }
        self.sends.extend(std::iter::repeat_n(now, sent as usize));
        self.written += u64::from(sent);
        let own = self.sends.partition_point(|at| now - *at >= SECOND).max(self.foreign);
        let within = self.sends.len() - own;
        self.most_in_1s = self.most_in_1s.max(within);
        self.first_send.get_or_insert(now);
        self.last_send = Some(now);
    }

    /// The service said "too fast": halves the pace for everybody. Calls that left before the last halving, or so soon after it that the
    /// service's own second still holds the faster ones, tell nothing new.
    pub fn slow_down(&mut self, call_left: Instant, now: Instant) {
        if self.rate == Rate::Unlimited {
            return;
        }
        if self.slowed_at.is_some_and(|at| call_left <= at + SECOND) {
            return;
        }
        self.slowed_at = Some(now);
        self.climb = Climb::Careful { at: now + CLIMB_EVERY };
        self.set_pace((self.pace_per_s / 2.0).max(FLOOR_PER_S.min(self.rate.per_s())));
    }

    /// The service is back after an outage: starts low and doubles.
    pub fn ramp_up(&mut self, now: Instant) {
        if self.rate == Rate::Unlimited {
            return;
        }
        let ceiling_per_s = match self.climb {
            Climb::Done => self.rate.per_s(),
            Climb::Careful { .. } => self.pace_per_s,
            Climb::Ramp { ceiling_per_s, .. } => ceiling_per_s,
        };
        self.climb = Climb::Ramp { at: now + RAMP_EVERY, ceiling_per_s };
        self.set_pace(RAMP_FROM_PER_S.min(self.pace_per_s));
    }

    fn climb_back(&mut self, now: Instant) {
        let (due, factor, ceiling_per_s) = match self.climb {
            Climb::Done => return,
            Climb::Careful { at } => (at, CLIMB, self.rate.per_s()),
            Climb::Ramp { at, ceiling_per_s } => (at, RAMP, ceiling_per_s),
        };
        if now < due {
            return;
        }
        let pace_per_s = (self.pace_per_s * factor).min(ceiling_per_s);
        self.set_pace(pace_per_s);
        self.climb = match self.climb {
            _ if pace_per_s >= self.rate.per_s() => Climb::Done,
            Climb::Ramp { .. } if pace_per_s < ceiling_per_s => Climb::Ramp { at: now + RAMP_EVERY, ceiling_per_s },
            Climb::Ramp { .. } | Climb::Careful { .. } | Climb::Done => Climb::Careful { at: now + CLIMB_EVERY },
        };
    }

    fn set_pace(&mut self, pace_per_s: f64) {
        self.pace_per_s = pace_per_s;
        self.bucket = bucket(pace_per_s, self.spacing, &self.clock);
        self.group = group(pace_per_s, self.spacing);
    }

    /// Whether the service has slowed this run below its rate.
    #[must_use]
    pub fn is_slowed(&self) -> bool {
        matches!(self.climb, Climb::Careful { .. })
    }

    /// Most calls written in any sliding second.
    #[must_use]
    pub const fn most_in_1s(&self) -> usize {
        self.most_in_1s
    }

    /// Calls written.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Calls a second between the first and the last; of a run within a second, its calls.
    #[must_use]
    pub fn mean_per_s(&self) -> f64 {
        match (self.first_send, self.last_send) {
            (Some(first), Some(last)) if last - first >= SECOND => (self.written - 1) as f64 / (last - first).as_secs_f64(),
            _ => self.written as f64,
        }
    }
}

/// Resolves when a call that the gate of one of these commands granted has been written or given up, see [`Gate::sent`].
pub async fn any_sent(gates: &PerCommand<Gate>, commands: &[Command]) {
    let mut sent: FuturesUnordered<_> = commands.iter().map(|command| gates[*command].sent()).collect();
    sent.next().await;
}

impl Rate {
    fn per_s(self) -> f64 {
        match self {
            Rate::PerSecond(limit) => f64::from(limit.get()),
            Rate::Unlimited => f64::INFINITY,
        }
    }
}

fn bucket(pace_per_s: f64, spacing: Spacing, clock: &SetClock) -> RateLimiter<NotKeyed, InMemoryState, SetClock, NoOpMiddleware<Tick>> {
    let period = if pace_per_s.is_finite() { SECOND.div_f64(pace_per_s) } else { Duration::from_nanos(1) };
    let quota = Quota::with_period(period.max(Duration::from_nanos(1))).expect("a period of a nanosecond or more is not zero");
    let burst = NonZeroU32::new(group(pace_per_s, spacing) * GROUPS_IN_BUCKET).expect("a group has at least one call");
    RateLimiter::direct_with_clock(quota.allow_burst(burst), clock.clone())
}

/// Above this rate, in calls a second, no API has a limit that an earlier process could have used up. Chosen: a hundred times the highest.
const FOREIGN_MAX: u32 = 20_000;

/// An earlier process on the same run may have been killed a moment ago, at full pace. So the ring begins as if it had been: its calls
/// are let expire one after the other, and the limit holds over both.
fn earlier_process(rate: Rate, margin: Duration, now: Instant) -> VecDeque<Instant> {
    let Rate::PerSecond(limit) = rate else { return VecDeque::new() };
    if limit.get() > FOREIGN_MAX {
        return VecDeque::new();
    }
    let slot = (SECOND + margin) / limit.get();
    (1..=limit.get()).filter_map(|number| (now + slot * number).checked_sub(SECOND + margin)).collect()
}

/// Calls in a group at this pace.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is clamped to 1..=100")]
fn group(pace_per_s: f64, spacing: Spacing) -> u32 {
    let groups_per_s = match spacing {
        Spacing::Groups => GROUPS_PER_S,
        Spacing::Even => EVEN_GROUPS_PER_S,
    };
    (pace_per_s / groups_per_s).clamp(1.0, GROUP_MAX) as u32
}

/// The right to send one call.
#[derive(Debug)]
pub struct Permit {
    marks: Arc<Marks>,
    state: PermitState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PermitState {
    Granted,
    Sent,
}

impl Permit {
    /// To be called as the request is handed to the socket.
    pub fn mark_sent(&mut self) {
        if self.state == PermitState::Granted {
            self.state = PermitState::Sent;
            self.marks.sent.fetch_add(1, Ordering::AcqRel);
            self.marks.changed.notify_one();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.state == PermitState::Granted {
            self.marks.given_up.fetch_add(1, Ordering::AcqRel);
            self.marks.changed.notify_one();
        }
    }
}

/// What the permits have reported since the gate last looked.
#[derive(Debug, Default)]
struct Marks {
    sent: AtomicU32,
    given_up: AtomicU32,
    changed: Notify,
}

/// Governor's clock seam: the gate sets the time before each question, so that tokio's (pausable) clock rules.
#[derive(Debug, Clone, Default)]
struct SetClock(Arc<std::sync::atomic::AtomicU64>);

impl SetClock {
    fn set(&self, since_origin: Duration) {
        self.0.store(u64::try_from(since_origin.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Clock for SetClock {
    type Instant = Tick;

    fn now(&self) -> Tick {
        Tick(self.0.load(Ordering::Relaxed))
    }
}

/// Nanoseconds since the gate was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Tick(u64);

impl Add<Nanos> for Tick {
    type Output = Tick;

    fn add(self, nanos: Nanos) -> Tick {
        Tick(self.0.saturating_add(nanos.as_u64()))
    }
}

impl Reference for Tick {
    fn duration_since(&self, earlier: Self) -> Nanos {
        self.0.saturating_sub(earlier.0).into()
    }

    fn saturating_sub(&self, duration: Nanos) -> Self {
        Tick(self.0.saturating_sub(duration.as_u64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn per_second(n: u32) -> Rate {
        Rate::PerSecond(NonZeroU32::new(n).unwrap())
    }

    /// Sends `calls` calls, each written `delay(n)` after its grant, and returns the times of the writes in order.
    async fn sent_with_delays(rate: Rate, calls: usize, delay: impl Fn(usize) -> Duration) -> Vec<Instant> {
        let mut gate = Gate::new(rate, Spacing::Groups, Instant::now());
        let mut writes = Vec::new();
        let mut in_limbo: Vec<(Instant, Permit)> = Vec::new();
        let mut granted = 0;
        while writes.len() < calls {
            let now = Instant::now();
            in_limbo.retain_mut(|(at, permit)| {
                if *at <= now {
                    permit.mark_sent();
                    writes.push(now);
                }
                *at > now
            });
            let wake = match gate.ask(now) {
                Turn::Now(permit) if granted < calls => {
                    granted += 1;
                    in_limbo.push((now + delay(granted), permit));
                    continue;
                }
                Turn::Now(_) | Turn::WhenSent => now + Duration::from_secs(3600),
                Turn::At(at) => at,
            };
            let next_write = in_limbo.iter().map(|(at, _)| *at).min().unwrap_or(wake);
            tokio::time::sleep_until(wake.min(next_write)).await;
        }
        writes
    }

    fn most_in_any_second(sends: &[Instant]) -> usize {
        (0..sends.len()).map(|first| sends[first..].iter().take_while(|at| **at - sends[first] < SECOND).count()).max().unwrap_or(0)
    }

    #[tokio::test(start_paused = true)]
    async fn no_second_holds_more_than_the_rate_and_nearly_all_of_it_is_used() {
        for rate in [1, 2, 5, 200, 1_000] {
            let calls = rate as usize * 10 + 1;
            let sends = sent_with_delays(per_second(rate), calls, |_| Duration::ZERO).await;
            assert!(most_in_any_second(&sends) <= rate as usize, "{rate}");
            let mean = (calls - 1) as f64 / (sends[calls - 1] - sends[0]).as_secs_f64();
            assert!(mean >= 0.99 * f64::from(rate), "{rate}: {mean}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn slow_connections_at_the_start_do_not_bunch_the_calls_up() {
        let sends = sent_with_delays(per_second(200), 2_000, |n| if n <= 60 { Duration::from_millis(300) } else { Duration::ZERO }).await;
        assert!(most_in_any_second(&sends) <= 200);
    }

    #[tokio::test(start_paused = true)]
    async fn random_delays_between_grant_and_write_never_break_the_limit() {
        let seed = 7;
        fastrand::seed(seed);
        let delays: Vec<_> = (0..3_001).map(|_| Duration::from_millis(fastrand::u64(0..400))).collect();
        let sends = sent_with_delays(per_second(50), 3_000, |n| delays[n]).await;
        assert!(most_in_any_second(&sends) <= 50, "seed {seed}");
    }

    #[tokio::test(start_paused = true)]
    async fn two_processes_after_each_other_hold_the_limit_together() {
        for rate in [1, 5, 60, 200, 1_000] {
            for killed_after in [37, 450, 999, 1_000, 1_013] {
                let first = sent_with_delays(per_second(rate), killed_after, |_| Duration::ZERO).await;
                let second = sent_with_delays(per_second(rate), 2 * rate as usize, |_| Duration::ZERO).await;
                let both = [first, second].concat();
                assert!(most_in_any_second(&both) <= rate as usize, "{rate} {killed_after}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_permit_dropped_unsent_gives_its_place_back() {
        let mut gate = Gate::new(per_second(1), Spacing::Groups, Instant::now());
        tokio::time::advance(Duration::from_secs(3)).await;
        let Turn::Now(permit) = gate.ask(Instant::now()) else { panic!("the first call may leave") };
        assert!(matches!(gate.ask(Instant::now()), Turn::WhenSent));
        drop(permit);
        assert!(matches!(gate.ask(Instant::now()), Turn::Now(_)));
        assert_eq!(gate.written(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_machine_is_not_followed_by_a_catch_up_burst() {
        let mut gate = Gate::new(per_second(200), Spacing::Groups, Instant::now());
        tokio::time::advance(Duration::from_secs(3_600)).await;
        let mut granted = 0;
        while let Turn::Now(mut permit) = gate.ask(Instant::now()) {
            permit.mark_sent();
            granted += 1;
        }
        assert_eq!(granted, 40, "two groups of a tenth of a second");
    }

    #[tokio::test(start_paused = true)]
    async fn throttling_halves_once_a_burst_and_climbs_back() {
        let start = Instant::now();
        let mut gate = Gate::new(per_second(200), Spacing::Groups, start);
        gate.slow_down(start, start);
        gate.slow_down(start, start);
        assert!((gate.pace_per_s - 100.0).abs() < 0.1);
        for n in 1..20 {
            let now = start + Duration::from_millis(1_100 * n);
            gate.slow_down(now - Duration::from_millis(50), now);
        }
        assert!((gate.pace_per_s - FLOOR_PER_S).abs() < 0.1);
        for _ in 0..400 {
            tokio::time::advance(CLIMB_EVERY).await;
            drop(gate.ask(Instant::now()));
        }
        assert!(!gate.is_slowed());
        assert!((gate.pace_per_s - 200.0).abs() < 0.1);
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_outage_the_pace_doubles_to_where_it_was_and_then_climbs_with_care() {
        let start = Instant::now();
        let mut gate = Gate::new(per_second(200), Spacing::Groups, start);
        gate.slow_down(start, start);
        gate.ramp_up(start);
        let mut paces = Vec::new();
        for _ in 0..7 {
            tokio::time::advance(RAMP_EVERY).await;
            drop(gate.ask(Instant::now()));
            paces.push(gate.pace_per_s.round());
        }
        assert_eq!(paces, [20.0, 40.0, 80.0, 100.0, 100.0, 105.0, 105.0]);
    }
}
