//! Simulates clients, a network and a limiter in virtual time. The gate is the real one; there is no I/O and no clock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroU32;
use std::time::Duration;

use chatlift::io::gate::{Gate, GateAnswer, GateSettings, Rate};
use chatlift::sandbox::limiter::{Counting, Limiter, LimiterDecision};
use tokio::time::Instant;

/// How many counts are recorded per second.
pub(crate) const SLOTS_PER_S: usize = 10;
/// Waiting for connections is not simulated: each request is written when it is granted, and arrives after at least this time.
const ONE_WAY_LEAST: Duration = Duration::from_micros(50);

/// The other programs that use the limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Others {
    Nobody,
    /// They use this share of the limit.
    Share(f64),
    /// They use half of the limit, then nothing, then three quarters, then a quarter, for a minute each.
    Steps,
    /// They rise from nothing to three quarters and fall to nothing at once, every minute.
    SawTooth,
    /// A second client with the same rate starts half a minute later.
    SecondClient,
}

/// The length of a step and of a saw-tooth.
const MINUTE_S: f64 = 60.0;
/// The start of the second client, in phase with nothing else.
pub(crate) const SECOND_CLIENT_AT_S: f64 = 30.37;

impl Others {
    /// The share of the limit that is left for the client at this time.
    pub(crate) fn leave(self, at_s: f64) -> f64 {
        match self {
            Others::Nobody | Others::SecondClient => 1.0,
            Others::Share(share) => 1.0 - share,
            Others::Steps if at_s < MINUTE_S => 0.5,
            Others::Steps if at_s < 2.0 * MINUTE_S => 1.0,
            Others::Steps if at_s < 3.0 * MINUTE_S => 0.25,
            Others::Steps => 0.75,
            Others::SawTooth => 1.0 - 0.75 * (at_s / MINUTE_S).fract(),
        }
    }

    /// The times at which the remaining share changes abruptly.
    pub(crate) fn changes_s(self) -> &'static [f64] {
        match self {
            Others::Nobody | Others::Share(_) | Others::SawTooth => &[0.0],
            Others::Steps => &[0.0, MINUTE_S, 2.0 * MINUTE_S, 3.0 * MINUTE_S],
            Others::SecondClient => &[0.0, SECOND_CLIENT_AT_S],
        }
    }
}

/// The network: an answer comes after the latency. The request takes half of it, plus up to the jitter, uniformly distributed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Latency {
    pub(crate) ms: f64,
    pub(crate) jitter_ms: f64,
}

/// The setting of a simulation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) counting: Counting,
    pub(crate) limit_per_s: u32,
    pub(crate) rate_per_s: u32,
    pub(crate) others: Others,
    pub(crate) latency: Latency,
    pub(crate) lasts_s: usize,
    pub(crate) seed: u64,
}

/// The counts of a simulation, by tenths of a second.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) accepted: [Vec<u32>; 2],
    pub(crate) refused: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Asks(usize),
    Arrives { client: usize, left: Duration },
    Answered { client: usize, left: Duration, is_refused: bool },
    OtherCalls,
}

struct Simulation {
    scenario: Scenario,
    origin: Instant,
    limiter: Limiter,
    gates: Vec<Gate>,
    events: BinaryHeap<Reverse<(Duration, Event)>>,
    chance: fastrand::Rng,
    counts: Counts,
}

/// Runs the simulation to its end.
pub(crate) fn simulate(scenario: Scenario) -> Counts {
    let origin = Instant::now();
    let clients = if scenario.others == Others::SecondClient { 2 } else { 1 };
    let rate = Rate::PerSecond(NonZeroU32::new(scenario.rate_per_s).unwrap());
    let slots = vec![0; scenario.lasts_s * SLOTS_PER_S];
    let mut simulation = Simulation {
        scenario,
        origin,
        limiter: Limiter::new(scenario.counting, scenario.limit_per_s),
        gates: (0..clients).map(|_| Gate::new(rate, &GateSettings::default(), origin)).collect(),
        events: BinaryHeap::new(),
        chance: fastrand::Rng::with_seed(scenario.seed),
        counts: Counts { accepted: [slots.clone(), slots.clone()], refused: slots },
    };
    for client in 0..clients {
        let begins = Duration::from_secs_f64(SECOND_CLIENT_AT_S * client as f64);
        simulation.events.push(Reverse((begins, Event::Asks(client))));
    }
    // The others are not in phase with the client's milliseconds.
    simulation.events.push(Reverse((Duration::from_micros(300), Event::OtherCalls)));
    let end = Duration::from_secs(scenario.lasts_s as u64);
    while let Some(Reverse((now, event))) = simulation.events.pop() {
        if now >= end {
            break;
        }
        simulation.happens(now, event);
    }
    simulation.counts
}

impl Simulation {
    fn happens(&mut self, now: Duration, event: Event) {
        match event {
            Event::Asks(client) => self.asks(client, now),
            Event::Arrives { client, left } => {
                let is_refused = self.limiter.admit(now) == LimiterDecision::OverLimit;
                let slot = slot(now);
                if is_refused {
                    self.counts.refused[slot] += 1;
                } else {
                    self.counts.accepted[client][slot] += 1;
                }
                let back = Duration::from_secs_f64(self.scenario.latency.ms / 2e3);
                self.events.push(Reverse((now + back, Event::Answered { client, left, is_refused })));
            }
            Event::Answered { client, left, is_refused } => {
                if is_refused {
                    self.gates[client].on_throttled(self.origin + left, self.origin + now);
                }
            }
            Event::OtherCalls => self.others_call(now),
        }
    }

    /// The same loop as a run's: it sends everything that may leave, then sleeps on a timer of a millisecond.
    fn asks(&mut self, client: usize, now: Duration) {
        loop {
            match self.gates[client].try_acquire(self.origin + now) {
                GateAnswer::Now(mut permit) => {
                    permit.mark_sent();
                    self.gates[client].note_sends(self.origin + now);
                    let Latency { ms, jitter_ms } = self.scenario.latency;
                    let one_way = Duration::from_secs_f64((ms / 2.0 + self.chance.f64() * jitter_ms) / 1e3).max(ONE_WAY_LEAST);
                    self.events.push(Reverse((now + one_way, Event::Arrives { client, left: now })));
                }
                GateAnswer::At(at) => {
                    let wake = up_to_a_millisecond(at - self.origin).max(now + Duration::from_micros(100));
                    // A real loop has other tasks, so its timer wakes it at least this often.
                    self.events.push(Reverse((wake.min(now + Duration::from_millis(250)), Event::Asks(client))));
                    return;
                }
                GateAnswer::WhenSent | GateAnswer::WhenGranted => unreachable!("every call is written as it is granted"),
            }
        }
    }

    fn others_call(&mut self, now: Duration) {
        let per_s = f64::from(self.scenario.limit_per_s) * (1.0 - self.scenario.others.leave(now.as_secs_f64()));
        let next = if per_s > 0.01 {
            self.limiter.admit(now);
            Duration::from_secs_f64(1.0 / per_s)
        } else {
            Duration::from_millis(50)
        };
        self.events.push(Reverse((now + next, Event::OtherCalls)));
    }
}

fn up_to_a_millisecond(at: Duration) -> Duration {
    Duration::from_millis(u64::try_from(at.as_nanos().div_ceil(1_000_000)).unwrap())
}

fn slot(at: Duration) -> usize {
    usize::try_from(at.as_millis()).unwrap() * SLOTS_PER_S / 1_000
}
