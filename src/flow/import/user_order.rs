//! Who must wait for an earlier record of the same UserID.
//!
//! The later record is sent only after the earlier one has settled, so that the last row wins. UserIDs are known by a hash of 64 bits:
//! two that share one wait for each other without need, which costs a moment and harms neither.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;

use xxhash_rust::xxh3::xxh3_64;

use crate::domain::account::UserId;
use crate::domain::hashed_map::HashedMap;

/// What a UserID is known by here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct UserKey(u64);

impl UserKey {
    pub(super) fn of(user_id: &UserId) -> Self {
        Self(xxh3_64(user_id.as_str().as_bytes()))
    }
}

/// The rows that wait behind the first; mostly none.
type WaitingRows = Option<Box<VecDeque<u64>>>;

/// The UserIDs of unsettled records.
#[derive(Debug, Default)]
pub(super) struct UserOrder {
    queues: HashedMap<UserKey, WaitingRows>,
}

impl UserOrder {
    /// Enters a record. Returns whether it may leave at once.
    pub(super) fn enter(&mut self, key: UserKey, row: u64) -> bool {
        match self.queues.entry(key) {
            Entry::Vacant(place) => {
                place.insert(None);
                true
            }
            Entry::Occupied(queue) => {
                queue.into_mut().get_or_insert_default().push_back(row);
                false
            }
        }
    }

    /// The record of this UserID that was let go has settled: the row that may go now.
    pub(super) fn leave(&mut self, key: UserKey) -> Option<u64> {
        let Entry::Occupied(mut queue) = self.queues.entry(key) else { return None };
        let next = queue.get_mut().as_mut().and_then(|rows| rows.pop_front());
        if next.is_none() {
            queue.remove();
        }
        next
    }
}
