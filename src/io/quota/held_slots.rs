//! The slots that a process holds under its lease: when each may be used again, and which are given back.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::lease_book::{SlotRoom, WITHIN_MS};

/// A slot that has been usable for this long is not needed if no request has had to wait lately.
pub(super) const UNUSED_IN_PEACE: Duration = Duration::from_millis(300);
/// A slot that is given back while it is in use should have this much of its second left, so that the next process hears of it in time.
const HANDING_OVER: Duration = Duration::from_millis(350);
/// The generation of slots that no store has granted.
const ALONE: u64 = u64::MAX;

/// A slot of the quota that a request has been granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaSlot {
    pub(super) usable_at: Instant,
    generation: u64,
}

impl QuotaSlot {
    /// A slot of a process that goes on alone.
    pub(super) const fn alone(now: Instant) -> Self {
        Self { usable_at: now, generation: ALONE }
    }

    pub(super) const fn is_alone(self) -> bool {
        self.generation == ALONE
    }
}

/// The slots under the lease.
#[derive(Debug, Default)]
pub(super) struct HeldSlots {
    /// When each of the slots that no request has may be used, the earliest first.
    usable_at: VecDeque<Instant>,
    /// Slots of requests that are granted and not written yet.
    granted: u64,
    /// Slots of requests that are written, while the gate has not noted it.
    written: u64,
    /// It changes when the store knows nothing of this process's slots.
    generation: u64,
}

impl HeldSlots {
    pub(super) fn count(&self) -> u64 {
        self.usable_at.len() as u64 + self.granted + self.written
    }

    /// Slots of requests that are granted and not written yet.
    pub(super) const fn granted(&self) -> u64 {
        self.granted
    }

    pub(super) fn room(&self, now: Instant) -> SlotRoom {
        next(&self.usable_at, now)
    }

    /// Takes the slot that became usable last, so that those which are not needed stay unused and are found. There must be one.
    pub(super) fn take(&mut self, now: Instant) -> QuotaSlot {
        let usable = self.usable_at.partition_point(|at| *at <= now);
        let usable_at = self.usable_at.remove(usable - 1).expect("there was room");
        self.granted += 1;
        QuotaSlot { usable_at, generation: self.generation }
    }

    /// Whether the store still knows of this slot.
    pub(super) const fn knows(&self, slot: QuotaSlot) -> bool {
        slot.generation == self.generation
    }

    /// The request of a granted slot is about to be written.
    pub(super) const fn uses_granted(&mut self) {
        self.granted -= 1;
        self.written += 1;
    }

    /// The request of this slot is not written.
    pub(super) fn gives_up(&mut self, slot: QuotaSlot) {
        if self.knows(slot) {
            self.granted -= 1;
            self.put(slot.usable_at);
        }
    }

    /// The slots of all requests that were written may be used again at `again_at`.
    pub(super) fn note_written(&mut self, again_at: Instant) {
        for _ in 0..std::mem::take(&mut self.written) {
            self.put(again_at);
        }
    }

    pub(super) fn put(&mut self, usable_at: Instant) {
        let place = self.usable_at.partition_point(|at| *at <= usable_at);
        self.usable_at.insert(place, usable_at);
    }

    /// No slot may be used before `until`.
    pub(super) fn rest_until(&mut self, until: Instant) {
        self.usable_at.iter_mut().for_each(|usable_at| *usable_at = (*usable_at).max(until));
    }

    /// Slots that have been usable for so long.
    pub(super) fn unused_for(&self, time: Duration, now: Instant) -> u64 {
        self.usable_at.partition_point(|at| *at + time <= now) as u64
    }

    /// The store knows of none of them: others may have them.
    pub(super) fn forget(&mut self) {
        self.usable_at.clear();
        self.forget_granted();
        self.written = 0;
    }

    /// What requests still have is given up.
    pub(super) const fn forget_granted(&mut self) {
        self.granted = 0;
        self.generation += 1;
    }

    /// Removes the slots beyond `target`, and says in how many milliseconds others may use them.
    pub(super) fn give_back(&mut self, target: u64, now: Instant) -> Vec<u64> {
        let surplus = self.count().saturating_sub(target);
        let surplus = usize::try_from(surplus).map_or(self.usable_at.len(), |surplus| surplus.min(self.usable_at.len()));
        let unneeded = self.usable_at.partition_point(|at| *at + UNUSED_IN_PEACE <= now).min(surplus);
        let mut given: Vec<Instant> = self.usable_at.drain(..unneeded).collect();
        for place in self.places_to_give(surplus - unneeded, now).into_iter().rev() {
            given.extend(self.usable_at.remove(place));
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
        let (first, end) = (self.usable_at.partition_point(|at| *at < now + HANDING_OVER), self.usable_at.len());
        match end - first {
            enough if enough >= count => (0..count).map(|nth| first + (2 * nth + 1) * enough / (2 * count)).collect(),
            _ => (end - count..end).collect(),
        }
    }
}

/// When the first of these slots may be used.
pub(super) fn next(usable_at: &VecDeque<Instant>, now: Instant) -> SlotRoom {
    match usable_at.front() {
        None => SlotRoom::WhenGranted,
        Some(at) if *at <= now => SlotRoom::Now,
        Some(at) => SlotRoom::At(*at),
    }
}
