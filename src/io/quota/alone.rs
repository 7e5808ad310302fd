//! What a process sends without a lease while the store is lost, if it may.

use std::collections::VecDeque;
use std::num::NonZeroU32;

use tokio::time::Instant;

use super::held_slots::{QuotaSlot, next};
use super::lease_book::{SLOT_TIME, SlotRoom, USED_WITHIN};

/// What a process does if the store is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfLost {
    /// It waits.
    Wait,
    /// It sends so many requests per second.
    Alone(NonZeroU32),
}

/// Slots that a process gives itself while the store is lost.
#[derive(Debug, Default)]
pub(super) struct AloneSlots {
    usable_at: VecDeque<Instant>,
    last_use: Option<Instant>,
    uses: u64,
}

impl AloneSlots {
    /// Requests that left without a lease.
    pub(super) const fn uses(&self) -> u64 {
        self.uses
    }

    /// Whether one of `per_s` slots may be used now, none of them before `begins_at`.
    pub(super) fn room(&mut self, per_s: NonZeroU32, begins_at: Instant, now: Instant) -> SlotRoom {
        if self.usable_at.is_empty() {
            self.usable_at.extend(std::iter::repeat_n(begins_at, per_s.get() as usize));
        }
        match next(&self.usable_at, now) {
            SlotRoom::Now => SlotRoom::Now,
            SlotRoom::At(at) => SlotRoom::At(at.max(begins_at)),
            SlotRoom::WhenGranted => SlotRoom::At(now + SLOT_TIME),
        }
    }

    /// Takes a slot. The use counts from now on, written or not: what is sent alone shares nothing. There must be one.
    pub(super) fn take(&mut self, now: Instant) -> QuotaSlot {
        self.usable_at.pop_front().expect("there was room");
        self.usable_at.push_back(now + SLOT_TIME);
        self.last_use = Some(now);
        self.uses += 1;
        QuotaSlot::alone(now)
    }

    /// A lease begins. Returns until when what was sent alone counts.
    pub(super) fn end(&mut self) -> Option<Instant> {
        self.usable_at.clear();
        self.last_use.take().map(|at| at + USED_WITHIN + SLOT_TIME)
    }
}
