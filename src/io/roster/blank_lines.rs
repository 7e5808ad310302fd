//! How many lines of an input are no records because they are blank.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The count of a roster's blank lines, which goes on wherever the roster is taken.
#[derive(Debug, Clone, Default)]
pub struct BlankLines(Arc<AtomicU64>);

impl BlankLines {
    /// How many were passed by now.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, lines: u64) {
        self.0.fetch_add(lines, Ordering::Relaxed);
    }
}
