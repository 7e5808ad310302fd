//! Parts: what one call carries, an errand whole or what is left of it after it was taken apart.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use slab::Slab;
use tokio::time::Instant;

use super::Errand;
use crate::domain::breaker::Overtime;
use crate::domain::command::{Command, PerCommand};

/// The number of a part; free for another one once it is gone.
pub(super) type PartId = usize;

/// Where a part stands.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stage {
    /// Due to leave.
    Ready,
    InFlight,
    /// Until its back-off is over.
    Waiting,
    /// Out of attempts; ends once a later call shows that the API is well, so that the start of an outage is nobody's fault.
    Exhausted,
}

/// What one call carries.
#[derive(Debug)]
pub(super) struct Part<T> {
    pub(super) errand: Errand<T>,
    /// The number of the errand that it is a part of: the breaker counts distinct ones.
    pub(super) batch_id: u64,
    pub(super) size: Size,
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

/// Whether an errand was taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    Whole,
    Fraction,
}

impl<T> Part<T> {
    pub(super) fn new(errand: Errand<T>, batch_id: u64, size: Size) -> Self {
        let last = (None, String::new());
        Self {
            errand,
            batch_id,
            size,
            attempts: 0,
            tries: 0,
            has_left: false,
            stage: Stage::Ready,
            charged_since: None,
            overtime: None,
            last,
        }
    }
}

/// All parts, with the ones that are due and the ones that wait.
#[derive(Debug)]
pub(super) struct Pile<T> {
    all: Slab<Part<T>>,
    /// By the number of their errand.
    due: PerCommand<BTreeSet<(u64, PartId)>>,
    waiting: BinaryHeap<Reverse<(Instant, PartId)>>,
}

impl<T> Default for Pile<T> {
    fn default() -> Self {
        Self { all: Slab::new(), due: PerCommand::default(), waiting: BinaryHeap::new() }
    }
}

impl<T> Pile<T> {
    pub(super) fn insert_due(&mut self, part: Part<T>) {
        let id = self.all.insert(part);
        self.make_due(id);
    }

    pub(super) fn make_due(&mut self, id: PartId) {
        let part = &mut self.all[id];
        part.stage = Stage::Ready;
        self.due[part.errand.command].insert((part.batch_id, id));
    }

    pub(super) fn make_wait(&mut self, id: PartId, until: Instant) {
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

    pub(super) fn first_due(&self, command: Command) -> Option<PartId> {
        self.due[command].first().map(|(_, id)| *id)
    }

    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse((at, _))| *at)
    }

    /// The part leaves: it is in no queue any more.
    pub(super) fn unqueue(&mut self, id: PartId) {
        let part = &self.all[id];
        match part.stage {
            Stage::Ready => {
                self.due[part.errand.command].remove(&(part.batch_id, id));
            }
            Stage::Waiting => self.waiting.retain(|Reverse((_, waiting))| *waiting != id),
            Stage::InFlight | Stage::Exhausted => {}
        }
    }

    pub(super) fn remove(&mut self, id: PartId) -> Part<T> {
        self.all.remove(id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Those that no call has carried yet, the earliest first.
    pub(super) fn fresh(&self, command: Command) -> impl Iterator<Item = PartId> {
        self.due[command].iter().map(|(_, id)| *id).filter(|id| self.all[*id].tries == 0)
    }

    /// Whether something of this command is due or waits.
    pub(super) fn moves(&self, command: Command) -> bool {
        !self.due[command].is_empty() || self.waiting.iter().any(|Reverse((_, id))| self.all[*id].errand.command == command)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PartId, &Part<T>)> {
        self.all.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (PartId, &mut Part<T>)> {
        self.all.iter_mut()
    }
}

impl<T> std::ops::Index<PartId> for Pile<T> {
    type Output = Part<T>;

    fn index(&self, id: PartId) -> &Part<T> {
        &self.all[id]
    }
}

impl<T> std::ops::IndexMut<PartId> for Pile<T> {
    fn index_mut(&mut self, id: PartId) -> &mut Part<T> {
        &mut self.all[id]
    }
}
