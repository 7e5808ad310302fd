//! What a gate has of the quota: the slots of its API, and the slot of one request.

use std::num::NonZeroU32;
use std::sync::{Arc, MutexGuard};

use tokio::time::Instant;

use super::held_slots::QuotaSlot;
use super::lease_book::{LeaseBook, SlotRoom};
use super::quota_pace::CommonPace;
use super::{SharedBooks, lock};
use crate::domain::command::Command;
use crate::domain::verdict::Departure;

/// The slots of one API. Its gate has it.
#[derive(Debug)]
pub struct Lease {
    pub(super) shared: Arc<SharedBooks>,
    pub(super) command: Command,
}

impl Lease {
    /// The requests per second of the API that all processes may send together.
    #[must_use]
    pub fn limit(&self) -> NonZeroU32 {
        self.shared.limits[self.command]
    }

    /// The requests per second that this process may send now.
    #[must_use]
    pub fn part_per_s(&self, now: Instant) -> f64 {
        self.book().part_per_s(now)
    }

    /// Whether this process goes on without a lease, so that no store says what gets through.
    #[must_use]
    pub fn is_alone(&self, now: Instant) -> bool {
        self.book().alone_per_s(now).is_some()
    }

    /// Whether a slot may be used now.
    #[must_use]
    pub fn room(&self, now: Instant) -> SlotRoom {
        let mut book = self.book();
        let room = book.room(now);
        if room != SlotRoom::Now {
            self.kick(&book, now);
        }
        room
    }

    /// A request has to wait for something else than a slot.
    pub fn waits(&self, now: Instant) {
        let mut book = self.book();
        book.waits(now);
        self.kick(&book, now);
    }

    /// Wakes the task if it would sleep for too long.
    fn kick(&self, book: &LeaseBook, now: Instant) {
        let Some(due) = book.due(now) else { return };
        let mut looks_at = lock(&self.shared.looks_at);
        if looks_at.is_none_or(|at| due < at) {
            *looks_at = Some(due);
            self.shared.kick.notify_one();
        }
    }

    /// Takes the slot that [`Lease::room`] has just offered.
    #[must_use]
    pub fn take(&self, now: Instant) -> Ticket {
        let slot = self.book().take(now);
        Ticket { shared: Arc::clone(&self.shared), command: self.command, slot: Some(slot) }
    }

    /// What was written so far was written by `now`.
    pub fn note_written(&self, now: Instant) {
        self.book().note_written(now);
    }

    /// The service has refused a request as too fast, which had left at `left`.
    pub fn note_refusal(&self, left: Instant, now: Instant) {
        let mut book = self.book();
        book.note_refusal(left);
        self.kick(&book, now);
    }

    /// The pace that the service lets through to all, while that is less than the limit.
    #[must_use]
    pub fn common_pace(&self) -> Option<CommonPace> {
        self.book().common_pace()
    }

    /// What got through in all at the last refusal of which this process has heard.
    #[must_use]
    pub fn ceiling_per_s(&self) -> Option<f64> {
        self.book().ceiling_per_s()
    }

    fn book(&self) -> MutexGuard<'_, LeaseBook> {
        lock(&self.shared.books[self.command])
    }
}

/// The slot of one request. It travels with the permit.
#[derive(Debug)]
pub struct Ticket {
    shared: Arc<SharedBooks>,
    command: Command,
    slot: Option<QuotaSlot>,
}

impl Ticket {
    /// The request is about to be written.
    pub fn uses(&mut self, now: Instant) -> Departure {
        let Some(slot) = self.slot.take() else { return Departure::Leaves };
        lock(&self.shared.books[self.command]).uses(slot, now)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            lock(&self.shared.books[self.command]).gives_up(slot);
            self.shared.changed.notify_one();
        }
    }
}
