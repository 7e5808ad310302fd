//! The slots that this process holds of one API, and what it asks the store for. It has no clock and does no I/O: the caller passes the time.
//!
//! A limit of N requests a second is N slots, each of which is used at most once a second. A process holds slots under a lease, and uses
//! none when the lease is over. Every time is taken so that this process believes to have less than the store knows: a lease begins when
//! it was **asked for**, a slot is usable its wait after the answer was **received**, and a slot is used when its request was **written**.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

use super::alone::{AloneSlots, IfLost};
use super::held_slots::{HeldSlots, QuotaSlot, UNUSED_IN_PEACE};
use super::quota_pace::{CommonPace, QuotaPace, SentReport};
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
pub(super) const USED_WITHIN: Duration = Duration::from_millis(500);
/// A slot that is free this much later than others is of no use. Source: the script, which makes nobody wait longer.
pub(super) const WITHIN_MS: u64 = 1_600;
/// A request that has to wait shows for this long that there is more work than slots. Chosen: longer than any slot is waited for.
const WAITING_MAX: Duration = Duration::from_secs(2);
/// A slot that has been usable for this long is not needed: all of them together had their turn since. Chosen: a round and a timer's delay.
const UNUSED: Duration = Duration::from_millis(1_060);
/// A process that has not asked for this long has no work.
const NO_WORK: Duration = Duration::from_millis(600);
/// So many answers in a row, with slots, are the end of a wait for the store. Chosen: one alone may be luck.
const ANSWERS_OF_A_STORE: u32 = 2;

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
    pub sent: SentReport,
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
    /// From one use of a slot to the next.
    pub slot_time: Duration,
    /// The pace that the service lets through to all, if it refuses some.
    pub pace: Option<CommonPace>,
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

/// The slots of one API.
#[derive(Debug)]
pub struct LeaseBook {
    /// Slots that this process can use at most.
    most: u64,
    if_lost: IfLost,
    slots: HeldSlots,
    lease_ends_at: Option<Instant>,
    asking: Option<RenewalUnderWay>,
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
    /// The last answer's share.
    share: Option<u64>,
    store: StoreState,
    processes: u64,
    alone: AloneSlots,
    pace: QuotaPace,
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
struct RenewalUnderWay {
    number: u64,
    wanted: u64,
    sent_at: Instant,
}

impl LeaseBook {
    /// A book for an API of `limit` requests per second, in a process that sends `most` of them at most.
    #[must_use]
    pub fn new(limit: NonZeroU32, most: u32, if_lost: IfLost) -> Self {
        let limit = u64::from(limit.get());
        Self {
            most: u64::from(most).min(limit),
            if_lost,
            slots: HeldSlots::default(),
            lease_ends_at: None,
            asking: None,
            number: 0,
            entry: 0,
            renewed_at: None,
            asked_at: None,
            waiting_since: None,
            starved_since: None,
            answers_in_row: 0,
            share: None,
            store: StoreState::Generous,
            processes: 0,
            alone: AloneSlots::default(),
            pace: QuotaPace::new(limit as f64),
        }
    }

    /// Slots that this process holds.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.slots.count()
    }

    /// The requests per second that this process may send now.
    #[must_use]
    pub fn part_per_s(&self, now: Instant) -> f64 {
        if let Some(per_s) = self.alone_per_s(now) {
            return f64::from(per_s.get());
        }
        // While the service lets less through, the share counts at once, not only when what is above it has been given back.
        let slots = self.held().min(self.pace.common().and(self.share).unwrap_or(u64::MAX));
        slots as f64 / self.pace.stretch()
    }

    /// What this process may send without a lease, if that is what it does now.
    #[must_use]
    pub fn alone_per_s(&self, now: Instant) -> Option<NonZeroU32> {
        match self.if_lost {
            IfLost::Alone(per_s) if !self.is_leased(now) => Some(per_s),
            IfLost::Alone(_) | IfLost::Wait => None,
        }
    }

    #[must_use]
    pub const fn processes(&self) -> u64 {
        self.processes
    }

    /// Requests that left without a lease.
    #[must_use]
    pub const fn alone_uses(&self) -> u64 {
        self.alone.uses()
    }

    /// Requests that left in the last second.
    #[must_use]
    pub fn pace(&self, now: Instant) -> u64 {
        self.pace.shown_per_s(now)
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
            self.slots.room(now)
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
        self.alone.room(per_s, begins_at, now)
    }

    /// Takes the slot that [`LeaseBook::room`] has just offered.
    ///
    /// # Panics
    /// If there was no room.
    pub fn take(&mut self, now: Instant) -> QuotaSlot {
        self.waiting_since = None;
        if self.is_leased(now) { self.slots.take(now) } else { self.alone.take(now) }
    }

    /// The request of this slot is about to be written. If it is void, its slot is given up.
    pub fn uses(&mut self, slot: QuotaSlot, now: Instant) -> Departure {
        if slot.is_alone() {
            if now >= slot.usable_at + USED_WITHIN {
                return Departure::Void;
            }
        } else if !self.slots.knows(slot) || !self.is_leased(now) {
            self.gives_up(slot);
            return Departure::Void;
        } else {
            self.slots.uses_granted();
            self.starved_since = None;
        }
        self.pace.leaves(now);
        Departure::Leaves
    }

    /// The request of this slot is not written.
    pub fn gives_up(&mut self, slot: QuotaSlot) {
        self.slots.gives_up(slot);
    }

    /// What was written so far was written by `now`.
    pub fn note_written(&mut self, now: Instant) {
        self.slots.note_written(now + self.pace.slot_time());
    }

    fn is_leased(&self, now: Instant) -> bool {
        self.lease_ends_at.is_some_and(|ends_at| now < ends_at)
    }

    /// When the next renewal is due; `None` while one is under way, or if this process neither holds nor needs anything.
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let is_of_use = self.held() > 0 || self.has_work(now) || self.pace.is_untold();
        if self.asking.is_some() || !is_of_use {
            return None;
        }
        let Some(renewed_at) = self.renewed_at else { return Some(now) };
        let is_waiting = self.is_waiting(now) && self.held() < self.most;
        Some(match self.store {
            StoreState::Generous | StoreState::Scarce if self.pace.is_untold() || self.is_to_give_back() => renewed_at + RENEW_SOON,
            StoreState::Generous if is_waiting => renewed_at + RENEW_SOON,
            StoreState::Generous | StoreState::Scarce => renewed_at + RENEW_EVERY,
            StoreState::Lost => renewed_at + RETRY_EVERY,
        })
    }

    /// Where the service lets less through, others wait for what is above this process's share.
    fn is_to_give_back(&self) -> bool {
        self.pace.common().is_some() && self.share.is_some_and(|share| self.held() > share)
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
        let waits_ms = self.slots.give_back(target, now);
        self.begin_renewal(wanted, waits_ms, now)
    }

    /// The renewal that gives everything back, at the end. Requests that are still on their way count as if they left now.
    pub fn farewell(&mut self, now: Instant) -> Renewal {
        self.note_written(now);
        let waits_ms = self.slots.give_back(0, now);
        self.slots.forget_granted();
        self.begin_renewal(0, waits_ms, now)
    }

    fn begin_renewal(&mut self, wanted: u64, waits_ms: Vec<u64>, now: Instant) -> Renewal {
        self.number += 1;
        self.asking = Some(RenewalUnderWay { number: self.number, wanted, sent_at: now });
        self.renewed_at = Some(now);
        Renewal {
            number: self.number,
            entry: self.entry,
            kept: self.held(),
            wanted,
            within_ms: WITHIN_MS,
            sent: self.pace.tell(now),
            waits_ms,
        }
    }

    /// Slots that this process can use.
    fn wanted(&self, now: Instant) -> u64 {
        if !self.has_work(now) {
            return self.slots.granted();
        }
        let is_waiting = self.is_waiting(now);
        let unused_for = if is_waiting { UNUSED } else { UNUSED_IN_PEACE };
        let unused = self.slots.unused_for(unused_for.mul_f64(self.pace.stretch()), now);
        if is_waiting && unused == 0 { (self.held() * 2).max(APPETITE).min(self.most) } else { (self.held() - unused).max(1) }
    }

    /// Takes the answer to the renewal with this number. Returns whether there is anything new for those who wait.
    pub fn renewed(&mut self, number: u64, answer: &Renewed, now: Instant) -> bool {
        let Some(asking) = self.asking.filter(|asking| asking.number == number) else { return false };
        (self.asking, self.entry) = (None, answer.entry);
        self.answers_in_row = self.answers_in_row.saturating_add(1);
        let was_leased = self.is_leased(now);
        // Nothing can have been added since it was asked, so whatever is missing is all that there was.
        if answer.kept < self.held() {
            self.slots.forget();
        }
        self.lease_ends_at = Some(asking.sent_at + answer.lease);
        let alone_until = self.alone.end();
        answer.waits.iter().for_each(|wait| self.slots.put(now + *wait));
        if let Some(until) = alone_until {
            self.slots.rest_until(until);
        }
        (self.share, self.processes) = (Some(answer.share), answer.processes);
        self.store = if self.held() >= asking.wanted { StoreState::Generous } else { StoreState::Scarce };
        self.pace.hear(answer.pace, answer.slot_time);
        let is_back = self.starved_since.is_some() && self.answers_in_row == ANSWERS_OF_A_STORE;
        !was_leased || is_back || !answer.waits.is_empty()
    }

    /// The renewal with this number failed. What it gave back, or was granted, counts as spent.
    pub fn lost(&mut self, number: u64) {
        if self.asking.is_some_and(|asking| asking.number == number) {
            (self.asking, self.store, self.answers_in_row) = (None, StoreState::Lost, 0);
            self.pace.lost();
        }
    }

    /// The service has refused a request as too fast, which had left at this time.
    pub fn note_refusal(&mut self, left: Instant) {
        self.pace.note_refusal(left);
    }

    /// The pace that the service lets through to all, while that is less than the limit.
    #[must_use]
    pub const fn common_pace(&self) -> Option<CommonPace> {
        self.pace.common()
    }

    /// What got through in all at the last refusal of which this process has heard.
    #[must_use]
    pub const fn ceiling_per_s(&self) -> Option<f64> {
        self.pace.ceiling_per_s()
    }
}
