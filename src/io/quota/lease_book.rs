//! The slots that this process holds of one API, and what it asks the store for. It has no clock and does no I/O: the caller passes the time.
//!
//! A limit of N requests a second is N slots, each of which is used at most once a second. A process holds slots under a lease, and uses
//! none when the lease is over. Every time is taken so that this process believes to have less than the store knows: a lease begins when
//! it was **asked for**, a slot is usable its wait after the answer was **received**, and a slot is used when its request was **written**.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::verdict::Departure;

/// The sliding second of the limit with the margin that the script adds too, because requests of two machines travel differently long.
pub(super) const SLOT_TIME: Duration = Duration::from_millis(1_008);
/// The time over which a process spreads the requests of all of its slots. Chosen: a little more than [`SLOT_TIME`], so that each slot is
/// free when its turn comes.
pub(crate) const ROUND: Duration = Duration::from_millis(1_009);
/// A lease is renewed this often. Chosen: two renewals may be late or lost before the lease of half a second ends.
const RENEW_EVERY: Duration = Duration::from_millis(150);
/// A renewal follows the one before this soon if work is waiting and the last answer granted all that was wanted.
const RENEW_SOON: Duration = Duration::from_millis(40);
/// A lost store is asked this often.
const RETRY_EVERY: Duration = Duration::from_millis(250);
/// A process whose work has to wait asks for twice as many slots as it holds, and for so many at least. Chosen: a single request takes few
/// slots from others, and a full share is reached within six answers.
const APPETITE: u64 = 8;
/// An answer is waited for this long. It is of no use once the lease that it renews is over. Source: the script's lease.
pub(super) const ANSWER_MAX: Duration = Duration::from_millis(450);
/// A request that leaves without a lease is written within this time of its grant, or never. Source: the contract of the quota.
const USED_WITHIN: Duration = Duration::from_millis(500);
/// A slot that is free this much later than others is of no use. Source: the script, which makes nobody wait longer.
const WITHIN_MS: u64 = 1_600;
/// A request that has to wait shows for this long that there is more work than slots. Chosen: longer than any slot is waited for.
const WAITING_MAX: Duration = Duration::from_secs(2);
/// A slot that has been usable for this long is not needed: all of them together had their turn since. Chosen: a round and a timer's delay.
const UNUSED: Duration = Duration::from_millis(1_060);
/// The same if no request has had to wait lately.
const UNUSED_IN_PEACE: Duration = Duration::from_millis(300);
/// A process that has not asked for this long has no work.
const NO_WORK: Duration = Duration::from_millis(600);
/// So many answers in a row, with slots, are the end of a wait for the store. Chosen: one alone may be luck.
const ANSWERS_OF_A_STORE: u32 = 2;
/// Requests of this time are the pace that is told.
const PACE_TIME: Duration = Duration::from_secs(1);
/// A slot that is given back while it is in use should have this much of its second left, so that the next process hears of it in time.
const HANDING_OVER: Duration = Duration::from_millis(350);

/// A renewal, as the script takes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Renewal {
    /// Its number among those of this process.
    pub number: u64,
    /// The entry that the last answer named: the store keeps nothing from before it.
    pub entry: u64,
    /// Slots that the process keeps.
    pub kept: u64,
    /// Slots that it wants in all.
    pub wanted: u64,
    pub within_ms: u64,
    /// Requests per second that the service lets through in all, if it refuses some.
    pub pace_per_s: Option<f64>,
    /// Whether the service has refused a request as too fast since the last renewal.
    pub is_refused: bool,
    /// In how many milliseconds others may use the slots that are given back.
    pub waits_ms: Vec<u64>,
}

/// The script's answer to a renewal.
#[derive(Debug, Clone, PartialEq)]
pub struct Renewed {
    /// What the store calls the entry of this process; a new one knows of no slot.
    pub entry: u64,
    pub kept: u64,
    /// The fair share of this process.
    pub share: u64,
    pub lease: Duration,
    /// Processes that take part.
    pub processes: u64,
    /// Events in which the service refused requests as too fast, and the requests per second that it let through at the last one.
    pub refusals: u64,
    pub found_per_s: f64,
    /// Requests per second that it lets through now, if it refuses some.
    pub pace_per_s: Option<f64>,
    /// The waits of the slots that are granted.
    pub waits: Vec<Duration>,
}

/// What a book says about a slot for one more request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotRoom {
    Now,
    At(Instant),
    /// When the store has granted one.
    WhenGranted,
}

/// A slot that a request has been granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    usable_at: Instant,
    generation: u64,
}

/// The pace of the service, as other processes have found it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FoundPace {
    pub per_s: f64,
}

/// How long a process goes on alone, and how fast, if the store is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfLost {
    /// It waits.
    Wait,
    /// It sends so many requests per second.
    Alone(NonZeroU32),
}

/// The slots of one API.
#[derive(Debug)]
pub struct LeaseBook {
    /// Slots of the API.
    limit: u64,
    /// Slots that this process can use at most.
    most: u64,
    if_lost: IfLost,
    /// When each of the slots that no request has may be used, the earliest first.
    slots: VecDeque<Instant>,
    /// Slots of requests that are granted and not written yet.
    granted: u64,
    /// Slots of requests that are written, while the gate has not noted it.
    written: u64,
    /// It changes when the store knows nothing of this process's slots.
    generation: u64,
    lease_ends_at: Option<Instant>,
    asking: Option<Asking>,
    /// The number of the last renewal.
    number: u64,
    /// What the store calls the entry of this process.
    entry: u64,
    renewed_at: Option<Instant>,
    asked_at: Option<Instant>,
    /// A request has had to wait since it was asked for at this time.
    waiting_since: Option<Instant>,
    /// Since when a request has been waiting for a lease.
    starved_since: Option<Instant>,
    /// Answers since the last renewal that failed.
    answers_in_row: u32,
    /// When requests left within the last [`PACE_TIME`].
    left: VecDeque<Instant>,
    /// The last answer's share.
    share: Option<u64>,
    store: StoreState,
    processes: u64,
    /// The last use of a slot that no lease covers.
    alone: Alone,
    pace: KnownPace,
}

/// What came of the last renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StoreState {
    /// All that was wanted was granted, or nothing was asked yet.
    Generous,
    Scarce,
    Lost,
}

/// A renewal that is under way.
#[derive(Debug, Clone, Copy)]
struct Asking {
    number: u64,
    wanted: u64,
    sent_at: Instant,
}

/// Slots that a process gives itself while the store is lost.
#[derive(Debug, Default)]
struct Alone {
    slots: VecDeque<Instant>,
    last_use: Option<Instant>,
    uses: u64,
}

/// What is known of the service's pace.
#[derive(Debug, Default)]
struct KnownPace {
    /// Requests per second that the service lets through to all, as this process has found or heard.
    per_s: Option<f64>,
    /// This process was refused, and has not told.
    is_untold: bool,
    is_being_told: bool,
    /// Refusals that the store has counted, with this process's own.
    refusals: Option<u64>,
    heard: Option<FoundPace>,
}

impl LeaseBook {
    /// A book for an API of `limit` requests per second, in a process that sends `most` of them at most.
    #[must_use]
    pub fn new(limit: NonZeroU32, most: u32, if_lost: IfLost) -> Self {
        let limit = u64::from(limit.get());
        Self {
            limit,
            most: u64::from(most).min(limit),
            if_lost,
            slots: VecDeque::new(),
            granted: 0,
            written: 0,
            generation: 0,
            lease_ends_at: None,
            asking: None,
            number: 0,
            entry: 0,
            renewed_at: None,
            asked_at: None,
            waiting_since: None,
            starved_since: None,
            answers_in_row: 0,
            left: VecDeque::new(),
            share: None,
            store: StoreState::Generous,
            processes: 0,
            alone: Alone::default(),
            pace: KnownPace::default(),
        }
    }

    /// Slots that this process holds.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.slots.len() as u64 + self.granted + self.written
    }

    /// The part of the limit that is this process's.
    #[must_use]
    pub fn share(&self, now: Instant) -> f64 {
        let slots = match self.if_lost {
            IfLost::Alone(per_s) if !self.is_leased(now) => u64::from(per_s.get()),
            IfLost::Alone(_) | IfLost::Wait => self.held(),
        };
        slots as f64 / self.limit as f64
    }

    #[must_use]
    pub const fn processes(&self) -> u64 {
        self.processes
    }

    /// Requests that left without a lease.
    #[must_use]
    pub const fn alone_uses(&self) -> u64 {
        self.alone.uses
    }

    /// Requests that left in the last second.
    #[must_use]
    pub fn pace(&self, now: Instant) -> u64 {
        (self.left.len() - self.left.partition_point(|at| *at + PACE_TIME <= now)) as u64
    }

    fn leaves(&mut self, now: Instant) -> Departure {
        let old = self.left.partition_point(|at| *at + PACE_TIME <= now);
        self.left.drain(..old);
        self.left.push_back(now);
        Departure::Leaves
    }

    /// Since when a request has been waiting for a lease.
    #[must_use]
    pub const fn starved_since(&self) -> Option<Instant> {
        self.starved_since
    }

    /// Whether a slot may be used now.
    pub fn room(&mut self, now: Instant) -> SlotRoom {
        self.asked_at = Some(now);
        let room = if self.is_leased(now) {
            // A store that takes one renewal and refuses the next is no end of the wait. Who goes on alone begins anew after each lease.
            let is_back = self.answers_in_row >= ANSWERS_OF_A_STORE && self.held() > 0;
            if is_back || self.if_lost != IfLost::Wait {
                self.starved_since = None;
            }
            next(&self.slots, now)
        } else {
            self.alone_room(now)
        };
        if room != SlotRoom::Now {
            self.waits(now);
        }
        room
    }

    /// A request has to wait, for a slot or for its turn.
    pub const fn waits(&mut self, now: Instant) {
        (self.asked_at, self.waiting_since) = (Some(now), Some(now));
    }

    fn alone_room(&mut self, now: Instant) -> SlotRoom {
        let IfLost::Alone(per_s) = self.if_lost else {
            self.starved_since.get_or_insert(now);
            return SlotRoom::WhenGranted;
        };
        // Until then a slot that was used under the last lease may count.
        let begins_at = *self.starved_since.get_or_insert(now) + SLOT_TIME;
        if self.alone.slots.is_empty() {
            self.alone.slots.extend(std::iter::repeat_n(begins_at, per_s.get() as usize));
        }
        match next(&self.alone.slots, now) {
            SlotRoom::Now => SlotRoom::Now,
            SlotRoom::At(at) => SlotRoom::At(at.max(begins_at)),
            SlotRoom::WhenGranted => SlotRoom::At(now + SLOT_TIME),
        }
    }

    /// Takes the slot that [`LeaseBook::room`] has just offered. Of several it is the one that became usable last, so that those which are
    /// not needed stay unused and are found.
    ///
    /// # Panics
    /// If there was no room.
    pub fn take(&mut self, now: Instant) -> Slot {
        self.waiting_since = None;
        if self.is_leased(now) {
            let usable = self.slots.partition_point(|at| *at <= now);
            let usable_at = self.slots.remove(usable - 1).expect("there was room");
            self.granted += 1;
            return Slot { usable_at, generation: self.generation };
        }
        // The use counts from now on, written or not: what is sent alone shares nothing.
        self.alone.slots.pop_front().expect("there was room");
        self.alone.slots.push_back(now + SLOT_TIME);
        self.alone.last_use = Some(now);
        self.alone.uses += 1;
        Slot { usable_at: now, generation: ALONE }
    }

    /// The request of this slot is about to be written. If it is void, its slot is given up.
    pub fn uses(&mut self, slot: Slot, now: Instant) -> Departure {
        if slot.generation == ALONE {
            return if now < slot.usable_at + USED_WITHIN { self.leaves(now) } else { Departure::Void };
        }
        if slot.generation != self.generation || !self.is_leased(now) {
            self.gives_up(slot);
            return Departure::Void;
        }
        self.granted -= 1;
        self.written += 1;
        self.starved_since = None;
        self.leaves(now)
    }

    /// The request of this slot is not written.
    pub fn gives_up(&mut self, slot: Slot) {
        if slot.generation == self.generation {
            self.granted -= 1;
            self.put(slot.usable_at);
        }
    }

    /// What was written so far was written by `now`.
    pub fn note_written(&mut self, now: Instant) {
        for _ in 0..std::mem::take(&mut self.written) {
            self.put(now + SLOT_TIME);
        }
    }

    fn put(&mut self, usable_at: Instant) {
        let place = self.slots.partition_point(|at| *at <= usable_at);
        self.slots.insert(place, usable_at);
    }

    fn is_leased(&self, now: Instant) -> bool {
        self.lease_ends_at.is_some_and(|ends_at| now < ends_at)
    }

    /// When the next renewal is due; `None` while one is under way, or if this process neither holds nor needs anything.
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let is_of_use = self.held() > 0 || self.has_work(now) || self.pace.is_untold;
        if self.asking.is_some() || !is_of_use {
            return None;
        }
        let Some(renewed_at) = self.renewed_at else { return Some(now) };
        let is_urgent = self.pace.is_untold || (self.is_waiting(now) && self.held() < self.most);
        Some(match self.store {
            StoreState::Generous if is_urgent => renewed_at + RENEW_SOON,
            StoreState::Generous | StoreState::Scarce => renewed_at + RENEW_EVERY,
            StoreState::Lost => renewed_at + RETRY_EVERY,
        })
    }

    fn has_work(&self, now: Instant) -> bool {
        self.asked_at.is_some_and(|at| now < at + NO_WORK) || self.is_waiting(now)
    }

    fn is_waiting(&self, now: Instant) -> bool {
        self.waiting_since.is_some_and(|at| now < at + WAITING_MAX)
    }

    /// The renewal that leaves now.
    pub fn renewal(&mut self, now: Instant) -> Renewal {
        let wanted = self.wanted(now);
        let target = self.share.map_or(wanted, |share| wanted.min(share));
        let waits_ms = self.give_back(target, now);
        self.begin_renewal(wanted, waits_ms, now)
    }

    /// The renewal that gives everything back, at the end. Requests that are still on their way count as if they left now.
    pub fn farewell(&mut self, now: Instant) -> Renewal {
        self.note_written(now);
        let waits_ms = self.give_back(0, now);
        self.granted = 0;
        self.generation += 1;
        self.begin_renewal(0, waits_ms, now)
    }

    fn begin_renewal(&mut self, wanted: u64, waits_ms: Vec<u64>, now: Instant) -> Renewal {
        self.number += 1;
        self.asking = Some(Asking { number: self.number, wanted, sent_at: now });
        self.renewed_at = Some(now);
        self.pace.is_being_told = std::mem::take(&mut self.pace.is_untold);
        Renewal {
            number: self.number,
            entry: self.entry,
            kept: self.held(),
            wanted,
            within_ms: WITHIN_MS,
            pace_per_s: self.pace.per_s,
            is_refused: self.pace.is_being_told,
            waits_ms,
        }
    }

    /// Slots that this process can use.
    fn wanted(&self, now: Instant) -> u64 {
        if !self.has_work(now) {
            return self.granted;
        }
        let is_waiting = self.is_waiting(now);
        // Where the service lets less through, each slot has its turn more seldom.
        let share = self.pace.per_s.map_or(1.0, |per_s| (per_s / self.limit as f64).clamp(0.001, 1.0));
        let unused_for = if is_waiting { UNUSED.div_f64(share) } else { UNUSED_IN_PEACE.max(UNUSED.mul_f64(1.0 / share - 1.0)) };
        let unused = self.slots.partition_point(|at| *at + unused_for <= now) as u64;
        if is_waiting && unused == 0 { (self.held() * 2).max(APPETITE).min(self.most) } else { (self.held() - unused).max(1) }
    }

    /// Removes the slots beyond `target`, and says in how many milliseconds others may use them.
    fn give_back(&mut self, target: u64, now: Instant) -> Vec<u64> {
        let surplus = self.held().saturating_sub(target);
        let surplus = usize::try_from(surplus).map_or(self.slots.len(), |surplus| surplus.min(self.slots.len()));
        let unneeded = self.slots.partition_point(|at| *at + UNUSED_IN_PEACE <= now).min(surplus);
        let mut given: Vec<Instant> = self.slots.drain(..unneeded).collect();
        for place in self.places_to_give(surplus - unneeded, now).into_iter().rev() {
            given.extend(self.slots.remove(place));
        }
        let wait_ms = |usable_at: Instant| {
            let wait = usable_at.saturating_duration_since(now);
            u64::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(WITHIN_MS)
        };
        given.into_iter().map(wait_ms).collect()
    }

    /// The places of so many slots whose second lasts until the next process has heard of them. They are taken from all over the second,
    /// because that process spreads its requests evenly: slots that become usable together would have to wait for their turns.
    fn places_to_give(&self, count: usize, now: Instant) -> Vec<usize> {
        let (first, end) = (self.slots.partition_point(|at| *at < now + HANDING_OVER), self.slots.len());
        match end - first {
            enough if enough >= count => (0..count).map(|nth| first + (2 * nth + 1) * enough / (2 * count)).collect(),
            _ => (end - count..end).collect(),
        }
    }

    /// Takes the answer to the renewal with this number. Returns whether there is anything new for those who wait.
    pub fn renewed(&mut self, number: u64, answer: &Renewed, now: Instant) -> bool {
        let Some(asking) = self.asking.filter(|asking| asking.number == number) else { return false };
        (self.asking, self.entry) = (None, answer.entry);
        self.answers_in_row = self.answers_in_row.saturating_add(1);
        let was_leased = self.is_leased(now);
        // Nothing can have been added since it was asked, so whatever is missing is all that there was.
        if answer.kept < self.held() {
            self.forget();
        }
        self.lease_ends_at = Some(asking.sent_at + answer.lease);
        self.alone.slots.clear();
        let alone_until = self.alone.last_use.take().map(|at| at + USED_WITHIN + SLOT_TIME);
        for wait in &answer.waits {
            let usable_at = now + *wait;
            self.put(alone_until.map_or(usable_at, |until| usable_at.max(until)));
        }
        if let Some(until) = alone_until {
            self.slots.iter_mut().for_each(|usable_at| *usable_at = (*usable_at).max(until));
        }
        (self.share, self.processes) = (Some(answer.share), answer.processes);
        self.store = if self.held() >= asking.wanted { StoreState::Generous } else { StoreState::Scarce };
        self.hear(answer);
        let is_back = self.starved_since.is_some() && self.answers_in_row == ANSWERS_OF_A_STORE;
        !was_leased || is_back || !answer.waits.is_empty() || self.pace.heard.is_some()
    }

    /// The store knows of none of them: others may have them.
    fn forget(&mut self) {
        self.slots.clear();
        (self.granted, self.written) = (0, 0);
        self.generation += 1;
    }

    /// The renewal with this number failed. What it gave back, or was granted, counts as spent.
    pub fn lost(&mut self, number: u64) {
        if self.asking.is_some_and(|asking| asking.number == number) {
            (self.asking, self.store, self.answers_in_row) = (None, StoreState::Lost, 0);
            self.pace.is_untold |= std::mem::take(&mut self.pace.is_being_told);
        }
    }

    /// Records the pace of this process's own gate, if the service slows it down.
    pub const fn note_pace(&mut self, per_s: Option<f64>) {
        self.pace.per_s = per_s;
    }

    /// The service has refused a request as too fast, and `per_s` got through.
    pub const fn note_refusal(&mut self, per_s: f64) {
        self.pace.per_s = Some(per_s);
        self.pace.is_untold = true;
    }

    /// The pace that another process has found since the last call.
    pub const fn heard_pace(&mut self) -> Option<FoundPace> {
        self.pace.heard.take()
    }

    fn hear(&mut self, answer: &Renewed) {
        let own = u64::from(std::mem::take(&mut self.pace.is_being_told));
        let found = match self.pace.refusals {
            // Whoever comes begins at the pace that there is.
            None => answer.pace_per_s.filter(|_| own == 0),
            Some(known) => (answer.refusals > known + own).then_some(answer.found_per_s),
        };
        self.pace.refusals = Some(answer.refusals);
        if let Some(per_s) = found {
            self.pace.heard = Some(FoundPace { per_s });
        }
    }
}

/// The generation of slots that no store has granted.
const ALONE: u64 = u64::MAX;

fn next(slots: &VecDeque<Instant>, now: Instant) -> SlotRoom {
    match slots.front() {
        None => SlotRoom::WhenGranted,
        Some(at) if *at <= now => SlotRoom::Now,
        Some(at) => SlotRoom::At(*at),
    }
}
