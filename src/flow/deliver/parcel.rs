//! Parcels: what one call carries, from its first try until it is delivered or taken apart.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use slab::Slab;
use tokio::time::Instant;

use crate::domain::breaker::Overtime;
use crate::domain::command::{Command, PerCommand};

/// The number of a parcel; free for another one once it is gone.
pub(super) type ParcelId = usize;

/// Where a parcel stands.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stage {
    /// Due to leave.
    Ready,
    InFlight,
    /// Until its back-off is over.
    Waiting,
    /// Out of attempts; fails once a later call shows that the service is well, so that the start of an outage fails nobody.
    Exhausted,
}

/// What one call carries.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) command: Command,
    /// At least one; in input order.
    pub(super) rows: Vec<u64>,
    /// The first row of the batch that it comes from: the breaker counts distinct ones.
    pub(super) batch_id: u64,
    /// Records of the batch that this one was taken out of, to go singly; 0 for any other parcel.
    pub(super) siblings: usize,
    /// Passing faults charged to it; what `--max-attempts` bounds.
    pub(super) attempts: u32,
    /// Calls that were started, charged or not: what the back-off grows by.
    pub(super) tries: u32,
    /// One of them left: the next one is a repeat.
    pub(super) has_left: bool,
    pub(super) stage: Stage,
    /// When the first of the temporary errors was charged.
    pub(super) charged_since: Option<Instant>,
    /// While it is tried beyond its attempts.
    pub(super) overtime: Option<Overtime>,
    pub(super) last: (Option<i64>, String),
}

impl Parcel {
    pub(super) fn new(command: Command, rows: Vec<u64>, batch_id: u64) -> Self {
        Self {
            command,
            rows,
            batch_id,
            siblings: 0,
            attempts: 0,
            tries: 0,
            has_left: false,
            stage: Stage::Ready,
            charged_since: None,
            overtime: None,
            last: (None, String::new()),
        }
    }
}

/// All parcels, with the ones that are due and the ones that wait.
#[derive(Debug, Default)]
pub(super) struct Parcels {
    all: Slab<Parcel>,
    /// By their first row.
    due: PerCommand<BTreeSet<(u64, ParcelId)>>,
    waiting: BinaryHeap<Reverse<(Instant, ParcelId)>>,
}

impl Parcels {
    /// Adds a parcel that is about to leave.
    pub(super) fn insert(&mut self, parcel: Parcel) -> ParcelId {
        self.all.insert(parcel)
    }

    /// Adds a parcel that is due.
    pub(super) fn insert_due(&mut self, parcel: Parcel) {
        let id = self.insert(parcel);
        self.make_due(id);
    }

    pub(super) fn make_due(&mut self, id: ParcelId) {
        let parcel = &mut self.all[id];
        parcel.stage = Stage::Ready;
        self.due[parcel.command].insert((parcel.rows[0], id));
    }

    pub(super) fn make_wait(&mut self, id: ParcelId, until: Instant) {
        self.all[id].stage = Stage::Waiting;
        self.waiting.push(Reverse((until, id)));
    }

    /// Those whose time has come are due.
    pub(super) fn take_due(&mut self, now: Instant) {
        while let Some(Reverse((at, id))) = self.waiting.peek().copied()
            && at <= now
        {
            self.waiting.pop();
            self.make_due(id);
        }
    }

    pub(super) fn first_due(&self, command: Command) -> Option<ParcelId> {
        self.due[command].first().map(|(_, id)| *id)
    }

    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes a parcel out of the queues: it leaves, or it is about to be taken apart.
    pub(super) fn unqueue(&mut self, id: ParcelId) {
        let parcel = &self.all[id];
        match parcel.stage {
            Stage::Ready => {
                self.due[parcel.command].remove(&(parcel.rows[0], id));
            }
            Stage::Waiting => self.waiting.retain(|Reverse((_, waiting))| *waiting != id),
            Stage::InFlight | Stage::Exhausted => {}
        }
    }

    pub(super) fn remove(&mut self, id: ParcelId) -> Parcel {
        self.all.remove(id)
    }

    pub(super) fn contains(&self, id: ParcelId) -> bool {
        self.all.contains(id)
    }

    /// Those of `command` that are due or wait.
    pub(super) fn idle(&self, command: Command) -> Vec<ParcelId> {
        let is_idle = |parcel: &Parcel| parcel.command == command && matches!(parcel.stage, Stage::Ready | Stage::Waiting);
        self.all.iter().filter(|(_, parcel)| is_idle(parcel)).map(|(id, _)| id).collect()
    }

    /// Whether nothing is due and nothing waits.
    pub(super) fn are_idle(&self) -> bool {
        self.waiting.is_empty() && self.due.iter().all(|(_, due)| due.is_empty())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ParcelId, &Parcel)> {
        self.all.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (ParcelId, &mut Parcel)> {
        self.all.iter_mut()
    }
}

impl std::ops::Index<ParcelId> for Parcels {
    type Output = Parcel;

    fn index(&self, id: ParcelId) -> &Parcel {
        &self.all[id]
    }
}

impl std::ops::IndexMut<ParcelId> for Parcels {
    fn index_mut(&mut self, id: ParcelId) -> &mut Parcel {
        &mut self.all[id]
    }
}
