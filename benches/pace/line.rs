//! A client, the line and a limiter in virtual time: the gate itself, no I/O, no clock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::num::NonZeroU32;
use std::time::Duration;

use chatlift::io::gate::{Admission, Gate, GateSettings, Rate};
use chatlift::sandbox::limiter::{Counting, Limiter, LimiterDecision};
use tokio::time::Instant;

/// How often the books are kept, in a second.
pub(crate) const SLOTS_PER_S: usize = 10;
/// Calls that wait for their connections are none of this: all are written as they are granted. The server sees them so much later at least.
const ONE_WAY_LEAST: Duration = Duration::from_micros(50);

/// Who else uses the limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Others {
    Nobody,
    /// They use this share of it.
    Share(f64),
    /// Half of it, then nothing, then three quarters, then a quarter, a minute each.
    Steps,
    /// From nothing to three quarters and back to nothing at once, every minute.
    SawTooth,
    /// A second client with the same rate, half a minute later.
    Twin,
}

/// The minute of the steps and of the saw-tooth.
const MINUTE_S: f64 = 60.0;
/// When the twin begins, out of step with everything.
pub(crate) const TWIN_AT_S: f64 = 30.37;

impl Others {
    /// The share of the limit that is left at this time.
    pub(crate) fn leave(self, at_s: f64) -> f64 {
        match self {
            Others::Nobody | Others::Twin => 1.0,
            Others::Share(share) => 1.0 - share,
            Others::Steps if at_s < MINUTE_S => 0.5,
            Others::Steps if at_s < 2.0 * MINUTE_S => 1.0,
            Others::Steps if at_s < 3.0 * MINUTE_S => 0.25,
            Others::Steps => 0.75,
            Others::SawTooth => 1.0 - 0.75 * (at_s / MINUTE_S).fract(),
        }
    }

    /// When what is left changes at once.
    pub(crate) fn changes_s(self) -> &'static [f64] {
        match self {
            Others::Nobody | Others::Share(_) | Others::SawTooth => &[0.0],
            Others::Steps => &[0.0, MINUTE_S, 2.0 * MINUTE_S, 3.0 * MINUTE_S],
            Others::Twin => &[0.0, TWIN_AT_S],
        }
    }
}

/// The line between: the answer comes after the latency; the way there takes half of it and up to the jitter, uniformly.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Latency {
    pub(crate) ms: f64,
    pub(crate) jitter_ms: f64,
}

/// What is simulated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene {
    pub(crate) counting: Counting,
    pub(crate) limit_per_s: u32,
    pub(crate) rate_per_s: u32,
    pub(crate) others: Others,
    pub(crate) latency: Latency,
    pub(crate) lasts_s: usize,
    pub(crate) seed: u64,
}

/// What happened, by tenths of a second.
#[derive(Debug, Default)]
pub(crate) struct Books {
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
    scene: Scene,
    origin: Instant,
    limiter: Limiter,
    gates: Vec<Gate>,
    events: BinaryHeap<Reverse<(Duration, Event)>>,
    chance: fastrand::Rng,
    books: Books,
}

/// Plays the scene to its end.
pub(crate) fn play(scene: Scene) -> Books {
    let origin = Instant::now();
    let clients = if scene.others == Others::Twin { 2 } else { 1 };
    let rate = Rate::PerSecond(NonZeroU32::new(scene.rate_per_s).unwrap());
    let slots = vec![0; scene.lasts_s * SLOTS_PER_S];
    let mut simulation = Simulation {
        scene,
        origin,
        limiter: Limiter::new(scene.counting, scene.limit_per_s),
        gates: (0..clients).map(|_| Gate::new(rate, &GateSettings::default(), origin)).collect(),
        events: BinaryHeap::new(),
        chance: fastrand::Rng::with_seed(scene.seed),
        books: Books { accepted: [slots.clone(), slots.clone()], refused: slots },
    };
    for client in 0..clients {
        let begins = Duration::from_secs_f64(TWIN_AT_S * client as f64);
        simulation.events.push(Reverse((begins, Event::Asks(client))));
    }
    // Out of step with the client's milliseconds.
    simulation.events.push(Reverse((Duration::from_micros(300), Event::OtherCalls)));
    let end = Duration::from_secs(scene.lasts_s as u64);
    while let Some(Reverse((now, event))) = simulation.events.pop() {
        if now >= end {
            break;
        }
        simulation.happens(now, event);
    }
    simulation.books
}

impl Simulation {
    fn happens(&mut self, now: Duration, event: Event) {
        match event {
            Event::Asks(client) => self.asks(client, now),
            Event::Arrives { client, left } => {
                let is_refused = self.limiter.admit(now) == LimiterDecision::OverLimit;
                let slot = slot(now);
                if is_refused {
                    self.books.refused[slot] += 1;
                } else {
                    self.books.accepted[client][slot] += 1;
                }
                let back = Duration::from_secs_f64(self.scene.latency.ms / 2e3);
                self.events.push(Reverse((now + back, Event::Answered { client, left, is_refused })));
            }
            Event::Answered { client, left, is_refused } => {
                if is_refused {
                    self.gates[client].slow_down(self.origin + left, self.origin + now);
                }
            }
            Event::OtherCalls => self.others_call(now),
        }
    }

    /// As the loop of a run: everything that may leave leaves, then it sleeps on a timer of a millisecond.
    fn asks(&mut self, client: usize, now: Duration) {
        loop {
            match self.gates[client].ask(self.origin + now) {
                Admission::Now(mut permit) => {
                    permit.mark_sent();
                    self.gates[client].note_sends(self.origin + now);
                    let Latency { ms, jitter_ms } = self.scene.latency;
                    let one_way = Duration::from_secs_f64((ms / 2.0 + self.chance.f64() * jitter_ms) / 1e3).max(ONE_WAY_LEAST);
                    self.events.push(Reverse((now + one_way, Event::Arrives { client, left: now })));
                }
                Admission::At(at) => {
                    let wake = up_to_a_millisecond(at - self.origin).max(now + Duration::from_micros(100));
                    // The timer of a loop that has other things to do as well wakes it at least this often.
                    self.events.push(Reverse((wake.min(now + Duration::from_millis(250)), Event::Asks(client))));
                    return;
                }
                Admission::WhenSent => unreachable!("every call is written as it is granted"),
            }
        }
    }

    fn others_call(&mut self, now: Duration) {
        let per_s = f64::from(self.scene.limit_per_s) * (1.0 - self.scene.others.leave(now.as_secs_f64()));
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
