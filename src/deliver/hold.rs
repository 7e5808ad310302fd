//! Who must wait for an earlier record of the same UserID.
//!
//! The later record is sent only after the earlier one has settled, so that the last row wins.

use std::collections::{HashMap, VecDeque};

use crate::account::UserId;

/// The UserIDs of unsettled records, each with the rows that wait behind the first.
#[derive(Debug, Default)]
pub(super) struct Hold {
    queues: HashMap<UserId, VecDeque<u64>>,
}

impl Hold {
    /// Enters a record: whether it may go at once.
    pub(super) fn enter(&mut self, user_id: &UserId, row: u64) -> bool {
        if let Some(queue) = self.queues.get_mut(user_id) {
            queue.push_back(row);
            return false;
        }
        self.queues.insert(user_id.clone(), VecDeque::new());
        true
    }

    /// The record of this UserID that was let go has settled: the row that may go now.
    pub(super) fn leave(&mut self, user_id: &UserId) -> Option<u64> {
        let next = self.queues.get_mut(user_id)?.pop_front();
        if next.is_none() {
            self.queues.remove(user_id);
        }
        next
    }
}
