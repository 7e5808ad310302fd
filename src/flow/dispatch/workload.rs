//! What the dispatcher asks of those who know what the calls are about.

use tokio::time::Instant;

use super::{Call, CallId, Clocks, Progress};
use crate::domain::command::Command;
use crate::domain::retry::At;
use crate::domain::verdict::{CallEffect, CallOutcome};

/// Says which call is next and what the end of a call means: a state machine without I/O, clock or randomness.
pub trait Scheduler {
    /// The API whose breaker holds the calls of this command, and hears how they end. APIs that share a breaker are called by one of them.
    fn breaker_of(command: Command) -> Command;

    /// Whether a call of `command` could leave now, if the gate allows.
    fn has_call(&mut self, command: Command, now: Instant) -> bool;

    /// The call of `command` that is to leave now; from here on it counts as in flight.
    fn next_call(&mut self, command: Command, now: Instant) -> Option<Call<'_>>;

    /// A call in flight leaves once more, since it met a connection that had been given up: it is the same attempt, and still in flight.
    fn same_call(&mut self, id: CallId) -> Call<'_>;

    /// Takes the end of a call that left at `left`.
    fn ended(&mut self, id: CallId, end: CallOutcome, left: Instant, at: At) -> CallEffect;

    /// Nothing leaves any more; what is in flight may end.
    fn stop(&mut self);

    /// Calls in flight.
    fn in_flight(&self) -> usize;

    /// When something is due of itself: a retry or a probe.
    fn next_wake(&self) -> Option<Instant>;

    /// Whether this breaker is open.
    fn is_down(&self, breaker: Command) -> bool;

    /// The breaker that has been open for the longest, and since when.
    fn down_since(&self) -> Option<(Instant, Command)>;

    /// The breaker that has been open, or whose API has said nothing but "too fast", for the longest, and since when.
    fn useless_since(&self) -> Option<(Instant, Command)>;
}

/// Knows what the calls are about: where jobs come from, and where their ends go.
pub trait Workload {
    type Scheduler: Scheduler;
    /// What happens to it while calls are made.
    type Event;
    /// Why it can't go on: the run ends with it at once.
    type Error;

    /// The commands that are asked for; of two calls that may leave, the one with the earlier command leaves first.
    const COMMANDS: &'static [Command];

    fn scheduler(&self) -> &Self::Scheduler;

    fn scheduler_mut(&mut self) -> &mut Self::Scheduler;

    /// The command that the run is about.
    fn main_command(&self) -> Command;

    /// Hands over what has ended.
    ///
    /// # Errors
    /// [`Workload::Error`].
    fn hand_over(&mut self, clocks: &mut Clocks) -> Result<(), Self::Error>;

    /// Takes on what the scheduler wants. It is asked as late as can be, before each call: so memory is bounded.
    ///
    /// # Errors
    /// [`Workload::Error`].
    fn feed(&mut self, clocks: &mut Clocks) -> Result<(), Self::Error>;

    /// Looks after what else is due, once no further call may leave now. Whether there may be something to hand over or to send again.
    ///
    /// # Errors
    /// [`Workload::Error`].
    fn settle(&mut self, clocks: &mut Clocks) -> Result<bool, Self::Error>;

    /// Whether it is looking for the next job, and wants to be asked again soon.
    fn is_searching(&self) -> bool;

    /// Whether everything is done, now that nothing is in flight.
    fn is_done(&mut self, clocks: &mut Clocks) -> bool;

    /// When something of its own is due.
    fn next_due(&self) -> Option<Instant>;

    /// Waits for what happens to it.
    fn event(&mut self) -> impl Future<Output = Self::Event>;

    /// Takes what has happened to it.
    ///
    /// # Errors
    /// [`Workload::Error`].
    fn handle(&mut self, event: Self::Event) -> Result<(), Self::Error>;

    /// Tells whoever watches how far the run is.
    fn report(&mut self, progress: Progress);
}
