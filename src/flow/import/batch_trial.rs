//! What is known of the service's batches: whether it takes any, and whether they keep the profiles that they carry.
//!
//! Until that is known, batches leave one at a time. Decides nothing about rows.

use crate::flow::dispatch::JobId;

/// Which of two readings of a profile it is. The service may take a moment to show what it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadAttempt {
    First,
    Second,
}

/// A batch that is being read back.
#[derive(Debug)]
pub(super) struct ReadBack {
    /// Its rows that the service refused.
    pub(super) listed: Vec<u64>,
    pub(super) reading: ReadAttempt,
}

/// The evidence so far.
#[derive(Debug, Default)]
pub(super) struct BatchTrial {
    /// A batch was accepted.
    pub(super) batches_accepted: bool,
    /// A batch came back with its profiles.
    pub(super) profiles_proven: bool,
    /// The batch (by its first row) that is to bring evidence.
    on_trial: Option<u64>,
    in_flight: Option<JobId>,
    /// A record of the batch on trial was accepted singly.
    pub(super) accepted_singly: bool,
    pub(super) read_back: Option<ReadBack>,
}

impl BatchTrial {
    /// Whether a batch may leave; `batch_id` is the one that it is a part of, `None` for a fresh one.
    pub(super) fn may_leave(&self, batch_id: Option<u64>) -> bool {
        let waits_for_first = !self.batches_accepted && self.on_trial.is_some() && self.on_trial != batch_id;
        self.read_back.is_none() && self.in_flight.is_none() && !waits_for_first
    }

    /// Whether a batch with or without profiles brings evidence.
    pub(super) fn departed(&mut self, id: JobId, batch_id: u64, carries_profiles: impl FnOnce() -> bool) {
        if !self.batches_accepted || (!self.profiles_proven && carries_profiles()) {
            if self.on_trial != Some(batch_id) {
                self.accepted_singly = false;
            }
            self.on_trial = Some(batch_id);
            self.in_flight = Some(id);
        }
    }

    /// A batch has come back, whatever with.
    pub(super) fn returned(&mut self, id: JobId) {
        self.in_flight.take_if(|in_flight| *in_flight == id);
    }

    /// A record was accepted singly.
    pub(super) fn note_accepted_singly(&mut self, batch_id: u64) {
        self.accepted_singly |= self.on_trial == Some(batch_id);
    }

    /// Whether this batch is the one that is to show that the service takes batches, and has not shown it yet.
    pub(super) fn is_awaited(&self, batch_id: u64) -> bool {
        !self.batches_accepted && self.on_trial == Some(batch_id)
    }

    /// Ends the trial of a batch of which nothing is left: it brought no evidence, and another one may.
    pub(super) fn abandon(&mut self) {
        self.on_trial = None;
        self.accepted_singly = false;
    }
}
