//! The rows that no import has carried yet in the present lane, in order of rows.
//!
//! Those that get a `portrait_set` afterwards stand apart, since only so many of them may be under way.

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::flow::dispatch::Charges;

/// A row that no call of its kind has carried yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct FreshRow {
    pub(super) row: u64,
    /// What it was charged before.
    pub(super) charges: Charges,
    /// When an earlier request for the row ended that counts as an attempt of the next one; `None` if there was none.
    pub(super) charged_since: Option<Instant>,
}

impl From<u64> for FreshRow {
    fn from(row: u64) -> Self {
        Self { row, charges: Charges::default(), charged_since: None }
    }
}

/// Whether a row gets a `portrait_set` once it is imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Afterwards {
    Settles,
    GetsProfile,
}

/// The rows that are to be imported. Of those that get a profile afterwards only as many count as there is `room` for.
#[derive(Debug, Default)]
pub(super) struct FreshRows {
    plain: VecDeque<FreshRow>,
    with_profile: VecDeque<FreshRow>,
}

impl FreshRows {
    pub(super) fn push(&mut self, fresh: FreshRow, afterwards: Afterwards) {
        self.queue(afterwards).push_back(fresh);
    }

    fn queue(&mut self, afterwards: Afterwards) -> &mut VecDeque<FreshRow> {
        match afterwards {
            Afterwards::Settles => &mut self.plain,
            Afterwards::GetsProfile => &mut self.with_profile,
        }
    }

    /// How many may leave.
    pub(super) fn available(&self, room: usize) -> usize {
        self.plain.len() + self.with_profile.len().min(room)
    }

    /// Whether rows wait for room, and no others are here.
    pub(super) fn wait_for(&self, room: usize) -> bool {
        self.plain.is_empty() && self.with_profile.len() > room
    }

    /// Whether a row that gets a profile may leave.
    pub(super) fn has_profile_row(&self, room: usize) -> bool {
        room > 0 && !self.with_profile.is_empty()
    }

    /// The first that may leave.
    pub(super) fn pop(&mut self, room: usize) -> Option<(FreshRow, Afterwards)> {
        let profile = self.with_profile.front().filter(|_| room > 0).map(|fresh| fresh.row);
        let afterwards = match (self.plain.front(), profile) {
            (Some(plain), Some(profile)) if profile < plain.row => Afterwards::GetsProfile,
            (None, Some(_)) => Afterwards::GetsProfile,
            (_, _) => Afterwards::Settles,
        };
        self.queue(afterwards).pop_front().map(|fresh| (fresh, afterwards))
    }

    /// The one at about this position, or the last one.
    pub(super) fn remove(&mut self, position: usize, room: usize) -> Option<(FreshRow, Afterwards)> {
        let position = position.min(self.available(room).checked_sub(1)?);
        let (afterwards, position) = match position.checked_sub(self.plain.len()) {
            None => (Afterwards::Settles, position),
            Some(position) => (Afterwards::GetsProfile, position),
        };
        self.queue(afterwards).remove(position).map(|fresh| (fresh, afterwards))
    }

    /// Takes rows that were given back, in order of rows.
    pub(super) fn put_back(&mut self, rows: impl Iterator<Item = (FreshRow, Afterwards)>) {
        for (fresh, afterwards) in rows {
            self.push(fresh, afterwards);
        }
        for queue in [&mut self.plain, &mut self.with_profile] {
            queue.make_contiguous().sort_unstable_by_key(|fresh| fresh.row);
        }
    }
}
