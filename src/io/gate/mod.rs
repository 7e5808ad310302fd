//! The gate: every request passes it last, retries and probes included.
//!
//! `bucket` (governor) spaces the requests evenly, `pace` decides how fast they leave, and `sliding_limit` enforces the limit. A permit counts
//! against the limit from its grant until one second (and a margin) after its request was **written**, however long connecting takes, so
//! that requests cannot bunch up behind the gate. The gate never sleeps: it says when to try again.

mod bucket;
mod pace;
mod permit;
mod sliding_limit;
#[cfg(test)]
mod tests;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use crate::domain::command::{Command, PerCommand};
use crate::io::quota::{self, Lease, QuotaSettings, SlotRoom};
use bucket::{Bucket, Connections};
use pace::{Pace, leaving};
pub use permit::{OnSend, Permit};
use permit::{PermitCounts, Reported};
use sliding_limit::{SlidingLimit, WindowRoom};

/// The length of the sliding window for which the limit is defined.
const SECOND: Duration = Duration::from_secs(1);
/// Requests at the full rate are spread over this time instead of a second. Chosen: 199.4 of 200, which leaves room for the margin of `sliding_limit`
/// and for a late timer.
const FULL_SECOND: Duration = Duration::from_millis(1_003);

/// The rate limit in requests per second. Only a loopback endpoint may have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    PerSecond(NonZeroU32),
    Unlimited,
}

/// The share of the throughput that is left to others once the service has refused requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headroom {
    percent: u8,
}

impl Headroom {
    /// Source: the contract of the pace.
    pub const DEFAULT: Self = Self { percent: 5 };
    /// Chosen: if less than a tenth of the rate is used, the limit can no longer be measured.
    const MAX_PERCENT: u8 = 90;

    /// Returns `None` for a share that leaves almost nothing.
    #[must_use]
    pub const fn percent(percent: u8) -> Option<Self> {
        if percent > Self::MAX_PERCENT { None } else { Some(Self { percent }) }
    }

    /// That share in percent.
    #[must_use]
    pub const fn in_percent(self) -> u8 {
        self.percent
    }

    const fn kept(self) -> f64 {
        1.0 - self.percent as f64 / 100.0
    }
}

impl Default for Headroom {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Settings that all gates of a process share.
#[derive(Debug, Clone, Default)]
pub struct GateSettings {
    pub headroom: Headroom,
    /// No request leaves before this time, because an earlier process may have used up the second before it.
    pub opens_at: Option<Instant>,
    pub on_send: OnSend,
    /// The limits are shared with other processes. Whoever creates the gates takes part, and gives each gate its lease.
    pub quota: Option<Arc<QuotaSettings>>,
}

/// The gate's answer to "may a request leave now?".
#[derive(Debug)]
pub enum GateAnswer {
    Now(Permit),
    /// Ask again at this time.
    At(Instant),
    /// Ask again when a granted request has been written (see [`Gate::sent`]).
    WhenSent,
    /// Ask again when the quota has something new (see [`quota::Quota::changed`]).
    WhenGranted,
}

/// The gate of one API. The sending loop owns it.
#[derive(Debug)]
pub struct Gate {
    settings: GateSettings,
    limit: SlidingLimit,
    /// `None` if there is no limit.
    limited: Option<Box<Limited>>,
    /// The slots of this process, if others share the limit.
    lease: Option<Lease>,
    /// Requests that were granted, and neither written nor released yet.
    granted: u32,
    counts: Arc<PermitCounts>,
    connections: Connections,
    written: u64,
    first_send: Option<Instant>,
    last_send: Option<Instant>,
    most_in_1s: usize,
}

/// The parts of a gate that has a limit.
#[derive(Debug)]
struct Limited {
    /// The full rate in requests per second, spread over [`FULL_SECOND`].
    full_per_s: f64,
    pace: Pace,
    bucket: Bucket,
}

/// Whether one more request may leave, as far as this process is concerned.
#[derive(Debug, Clone, Copy)]
enum OwnRoom {
    Now,
    At(Instant),
    WhenSent,
}

impl Gate {
    #[must_use]
    pub fn new(rate: Rate, settings: &GateSettings, now: Instant) -> Self {
        Self {
            settings: settings.clone(),
            limit: SlidingLimit::new(rate),
            limited: match rate {
                Rate::PerSecond(limit) => Some(Box::new(Limited::new(limit, settings.headroom, now))),
                Rate::Unlimited => None,
            },
            lease: None,
            granted: 0,
            counts: Arc::default(),
            connections: Connections::Awaited,
            written: 0,
            first_send: None,
            last_send: None,
            most_in_1s: 0,
        }
    }

    /// The same gate for a limit that is shared: what this process sends takes slots of this lease too, and the pace that the service lets
    /// through is found by all together.
    #[must_use]
    pub fn leased(mut self, lease: Lease) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Asks for a permit for one request. A permit that is dropped unsent returns its place in the second; the next request is due as if it
    /// had been sent.
    pub fn try_acquire(&mut self, now: Instant) -> GateAnswer {
        self.note_sends(now);
        let own = self.own_room(now);
        let room = match (&self.lease, own) {
            (None, own) => own,
            (Some(lease), OwnRoom::Now) => match lease.room(now) {
                SlotRoom::Now => OwnRoom::Now,
                SlotRoom::At(at) => OwnRoom::At(at),
                SlotRoom::WhenGranted => return GateAnswer::WhenGranted,
            },
            (Some(lease), own) => {
                lease.waits(now);
                own
            }
        };
        match room {
            OwnRoom::WhenSent => GateAnswer::WhenSent,
            OwnRoom::At(at) => GateAnswer::At(at),
            OwnRoom::Now => self.grant(now),
        }
    }

    /// Whether this process alone would send a request now.
    fn own_room(&mut self, now: Instant) -> OwnRoom {
        let Some(limited) = &mut self.limited else { return OwnRoom::Now };
        if let Some(opens_at) = self.settings.opens_at.filter(|at| now < *at) {
            return OwnRoom::At(opens_at);
        }
        let due = limited.due(self.lease.as_ref(), self.connections, now);
        match (self.limit.room(self.granted as usize, now), due) {
            (WindowRoom::WhenSent, _) => OwnRoom::WhenSent,
            // Waits for the later of the two: nothing could leave at the earlier time.
            (WindowRoom::At(room_at), Err(due_at)) => OwnRoom::At(room_at.max(due_at)),
            (WindowRoom::At(at), Ok(())) | (WindowRoom::Now, Err(at)) => OwnRoom::At(at),
            (WindowRoom::Now, Ok(())) => OwnRoom::Now,
        }
    }

    fn grant(&mut self, now: Instant) -> GateAnswer {
        if let Some(limited) = &mut self.limited {
            limited.bucket.left(now);
        }
        self.granted += 1;
        self.limit.granted(now);
        let ticket = self.lease.as_ref().map(|lease| lease.take(now));
        GateAnswer::Now(Permit::new(&self.counts, &self.settings.on_send, ticket, now))
    }

    /// Resolves when a granted request has been written or released since the last [`Gate::try_acquire`]. It never resolves if there is no limit.
    pub fn sent(&self) -> impl Future<Output = ()> + use<> {
        let counts = self.limited.is_some().then(|| Arc::clone(&self.counts));
        async move {
            match counts {
                Some(counts) => counts.changed().await,
                None => std::future::pending().await,
            }
        }
    }

    /// Applies what the permits have reported. `now` is after the write, so the recorded time is never too early.
    pub fn note_sends(&mut self, now: Instant) {
        let reported = self.counts.take();
        let Reported { sent, released, .. } = reported;
        self.granted -= sent + released;
        self.limit.written(reported, now);
        if sent == 0 {
            return;
        }
        self.connections = if reported.prompt == 0 { Connections::Awaited } else { Connections::Ready };
        self.written += u64::from(sent);
        if let Some(lease) = &self.lease {
            lease.note_written(now);
        }
        if let Some(limited) = &mut self.limited {
            limited.pace.sent(sent as usize, now);
        }
        self.most_in_1s = self.most_in_1s.max(self.limit.in_last_second(now));
        self.first_send.get_or_insert(now);
        self.last_send = Some(now);
    }

    /// Records that the service refused a request as too fast. `call_left` is when that request left. Where the limit is shared, all hear
    /// of it, and this process keeps its own rate.
    pub fn on_throttled(&mut self, call_left: Instant, now: Instant) {
        if let Some(lease) = &self.lease {
            lease.note_refusal(call_left, now);
            if !lease.is_alone(now) {
                return;
            }
        }
        if let Some(limited) = &mut self.limited {
            limited.pace.on_throttled(call_left, now);
        }
    }

    /// Records the end of an outage: the pace starts low and doubles every second.
    pub fn ramp_up(&mut self, now: Instant) {
        if let Some(limited) = &mut self.limited {
            limited.pace.ramp_up(now);
        }
    }

    /// The current throughput in requests per second, while the service slows this run below its rate. Where the limit is shared, it is
    /// that of all together.
    #[must_use]
    pub fn slowed_to_per_s(&self) -> Option<f64> {
        let common = self.lease.as_ref().and_then(Lease::common_pace).map(|pace| pace.ceiling_per_s);
        let own = || self.limited.as_ref().filter(|limited| limited.pace.is_slowed())?.pace.ceiling_per_s();
        common.or_else(own)
    }

    /// The requests per second that are allowed now: the limit, or what gets through of it, or the pace that tests whether more does. `None`
    /// without a limit.
    #[must_use]
    pub fn allowed_per_s(&self) -> Option<f64> {
        let limited = self.limited.as_ref()?;
        let full = (limited.full_per_s * FULL_SECOND.as_secs_f64()).round();
        let own = match &self.lease {
            None => self.slowed_to_per_s().map_or(full, |found| limited.pace.tested_per_s().map_or(full, |tested| found.max(tested))),
            Some(lease) => lease.part_per_s(Instant::now()),
        };
        Some(own.min(full))
    }

    fn slowed_share(&self) -> Option<f64> {
        let of = match &self.lease {
            None => self.limited.as_ref()?.pace.limit_per_s(),
            Some(lease) => f64::from(lease.limit().get()),
        };
        Some(self.slowed_to_per_s()? / of)
    }

    /// The throughput in requests per second at the last refusal as too fast; of all together where the limit is shared.
    #[must_use]
    pub fn ceiling_per_s(&self) -> Option<f64> {
        let common = self.lease.as_ref().and_then(Lease::ceiling_per_s);
        common.or_else(|| self.limited.as_ref()?.pace.ceiling_per_s())
    }

    /// The most requests written in any sliding second.
    #[must_use]
    pub const fn most_in_1s(&self) -> usize {
        self.most_in_1s
    }

    /// Requests written so far.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// The time between the first and the last request.
    #[must_use]
    pub fn sent_over(&self) -> Duration {
        self.last_send.zip(self.first_send).map_or(Duration::ZERO, |(last, first)| last - first)
    }

    /// Requests per second between the first and the last; for a run of less than a second, their number.
    #[must_use]
    pub fn mean_per_s(&self) -> f64 {
        match (self.first_send, self.last_send) {
            (Some(first), Some(last)) if last - first >= SECOND => (self.written - 1) as f64 / (last - first).as_secs_f64(),
            _ => self.written as f64,
        }
    }
}

impl Limited {
    fn new(limit: NonZeroU32, headroom: Headroom, now: Instant) -> Self {
        let limit_per_s = f64::from(limit.get());
        let full_per_s = limit_per_s / FULL_SECOND.as_secs_f64();
        Self { full_per_s, pace: Pace::new(limit_per_s, headroom), bucket: Bucket::new(full_per_s, limit, now) }
    }

    /// Returns `Ok` if a request is due by now, or else the time to try_acquire again.
    fn due(&mut self, lease: Option<&Lease>, connections: Connections, now: Instant) -> Result<(), Instant> {
        let own_per_s = self.pace.advance_to(now).min(self.full_per_s);
        let (pace_per_s, leaving) = match lease {
            None => (own_per_s, self.pace.leaving()),
            Some(lease) => (own_per_s.min(leased_per_s(lease, now)), leaving(lease.ceiling_per_s().or(self.pace.ceiling_per_s()))),
        };
        self.bucket.change(pace_per_s, leaving, now);
        self.bucket.due(connections, now)
    }
}

/// The pace at which this process uses its slots. Where there is no slot yet, the first one is due as if it were there.
fn leased_per_s(lease: &Lease, now: Instant) -> f64 {
    lease.part_per_s(now).max(1.0) / quota::ROUND.as_secs_f64()
}

/// Resolves when a granted request of one of these commands has been written or released, see [`Gate::sent`].
pub async fn any_sent(gates: &PerCommand<Gate>, commands: &[Command]) {
    let mut sent: FuturesUnordered<_> = commands.iter().map(|command| gates[*command].sent()).collect();
    sent.next().await;
}

/// The throughput in requests per second of the command that the service slows down most; `None` if it slows none.
#[must_use]
pub fn slowed(gates: &PerCommand<Gate>) -> Option<f64> {
    let most = |(share, gate): (f64, f64), (other_share, other): (f64, f64)| {
        if other_share < share { (other_share, other) } else { (share, gate) }
    };
    let slowed = gates.iter().filter_map(|(_, gate)| Some((gate.slowed_share()?, gate.slowed_to_per_s()?)));
    slowed.reduce(most).map(|(_, per_s)| per_s)
}
