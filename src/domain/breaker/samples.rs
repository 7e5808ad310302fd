//! The latest calls of an API, by which an outage is suspected.

use std::collections::VecDeque;

/// Records that the breaker looks back on. Source: the contract.
const SAMPLES: usize = 100;
/// Records that must have been tried before it suspects an outage. Source: the contract.
pub(super) const SAMPLES_LEAST: usize = 20;

/// The latest call of each of the last records that were tried.
#[derive(Debug)]
pub(super) struct Samples {
    latest: VecDeque<(u64, Latest)>,
    faulty: usize,
    /// The largest record that ever entered: a larger one is not there yet, so nobody has to look for it.
    largest: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Latest {
    Good,
    Faulty,
}

impl Default for Samples {
    fn default() -> Self {
        Self { latest: VecDeque::with_capacity(SAMPLES + 1), faulty: 0, largest: None }
    }
}

impl Samples {
    pub(super) fn enter(&mut self, who: u64, latest: Latest) {
        if self.largest.is_some_and(|largest| who <= largest) {
            let before = self.latest.iter().position(|(record, _)| *record == who);
            let before = before.and_then(|before| self.latest.remove(before));
            self.forget(before);
        }
        self.largest = self.largest.max(Some(who));
        self.faulty += usize::from(latest == Latest::Faulty);
        self.latest.push_back((who, latest));
        if self.latest.len() > SAMPLES {
            let oldest = self.latest.pop_front();
            self.forget(oldest);
        }
    }

    fn forget(&mut self, sample: Option<(u64, Latest)>) {
        self.faulty -= usize::from(matches!(sample, Some((_, Latest::Faulty))));
    }

    pub(super) fn half_are_faulty(&self) -> bool {
        self.latest.len() >= SAMPLES_LEAST && self.faulty * 2 >= self.latest.len()
    }

    pub(super) fn clear(&mut self) {
        self.latest.clear();
        self.faulty = 0;
    }
}
