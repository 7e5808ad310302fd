//! What the engine asks of a flow: the jobs that are to be sent, and where their ends go.

use tokio::time::Instant;

use super::{Clocks, Failure, Job, JobId, JobQueue, Progress};
use crate::domain::answer::Answer;
use crate::domain::command::Command;
use crate::domain::halt_reason::HaltReason;
use crate::domain::retry::ClockReading;
use crate::domain::verdict::{CallOutcome, Verdict};
use crate::io::api::Request;

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobOutcome {
    /// The service did as asked. What came with it may speak of ids that weren't asked for.
    Answered(Answer),
    /// The service refused it for its own fault; of several accounts it may be a single one's.
    Rejected(Failure),
    /// Temporary errors or unknown codes until its attempts ran out, with what was met last.
    AttemptsExhausted(Failure),
}

/// What follows from the end of a job.
#[derive(Debug)]
pub enum Followup<T> {
    Nothing,
    /// Nothing more; this refusal is what its account ends with, though the last call may have met something else.
    Refused(Failure),
    /// These are sent for it.
    Jobs(Vec<Job<T>>),
    /// It is sent once more at this time.
    RetryAt(Job<T>, Instant),
    /// Nothing is sent with this command any more: what waits goes back by [`Workload::take_back`].
    StopCommand(Command),
    /// The run stops; the failure says what was met.
    Abort(HaltReason, Failure),
}

/// Knows what the calls are about, and is asked for the next one: plain values without I/O, clock or randomness.
pub trait Workload {
    /// What a job carries.
    type Payload;
    /// What was accepted, so that it can be sent once more as a test.
    type Repeatable;
    /// Why it can't go on: the run ends with it at once.
    type Error;

    /// The commands that are asked for; of two calls that may leave, the one with the earlier command leaves first.
    const COMMANDS: &'static [Command];

    /// Whether parts of a divided job count one by one when an outage is suspected, though they say little of the service.
    const SUSPECTS_PARTS: bool = false;

    /// The API whose breaker holds the calls of this command. APIs that share a breaker are called by one of them.
    #[must_use]
    fn breaker_of(command: Command) -> Command {
        command.spec().breaker
    }

    /// Whether the failure of such a job waits until it is known that the service was well. A job that is divided at once needs no wait.
    #[must_use]
    fn withholds_failure(_: Command) -> bool {
        true
    }

    /// The command that the run is about.
    fn main_command(&self) -> Command {
        Self::COMMANDS[0]
    }

    /// How many fresh pieces of work wait that belong to this breaker.
    fn fresh(&self, breaker: Command) -> usize;

    /// How many fresh pieces of work are wanted at once for this breaker.
    fn fresh_wanted(&self, _: Command) -> usize {
        1
    }

    /// Whether more fresh work can be had for this breaker.
    fn can_have_more(&self, breaker: Command) -> bool;

    /// Whether nothing is left of it but what was sent already, or is held back until something of that has ended.
    fn is_spent(&self, breaker: Command) -> bool {
        self.fresh(breaker) == 0 && !self.can_have_more(breaker)
    }

    /// Whether a fresh job with this command may leave.
    fn is_ready(&self, command: Command) -> bool;

    /// Whether retries with this command may take only their share of the calls while fresh jobs are ready.
    fn budgets_retries(&self, _: Command) -> bool {
        false
    }

    /// Makes the next job of fresh work; asked only when [`Workload::is_ready`] says so.
    fn take(&mut self, command: Command) -> Job<Self::Payload>;

    /// Whether a job that was sent before may leave again now.
    fn may_leave(&self, _: &Job<Self::Payload>) -> bool {
        true
    }

    /// How many calls of this breaker may be in flight, of so many of all together.
    fn most_in_flight(&self, _: Command, all: usize) -> usize {
        all
    }

    /// Whether calls with this command are still made.
    fn sends(&self, _: Command) -> bool {
        true
    }

    /// The request of a job.
    fn request<'a>(&'a self, job: &'a Job<Self::Payload>) -> Request<'a>;

    /// How many accounts a job is about.
    fn count_accounts(&self, job: &Job<Self::Payload>) -> usize;

    /// A call of the job leaves.
    fn departed(&mut self, _: JobId, _: &Job<Self::Payload>) {}

    /// A call of the job has come back.
    fn returned(&mut self, _: JobId, _: Command) {}

    /// What the end of the job's call means, if it is something else than the table of codes says.
    fn verdict_on(&self, _: &Job<Self::Payload>, _: &CallOutcome) -> Option<Verdict> {
        None
    }

    /// Whether the job can be divided, so that a refusal or a temporary error may be a part's.
    fn is_divisible(&self, job: &Job<Self::Payload>) -> bool;

    /// A job whose request was refused as malformed is at fault itself once another job is accepted. Returns whether any other job can show
    /// that; if not, only one of the same batch can.
    fn is_judged_by_all(&self, _: &Job<Self::Payload>) -> bool {
        false
    }

    /// Whether the service has accepted something of the job with this answer.
    fn is_accepted(&self, _: &Job<Self::Payload>, _: &Answer) -> bool {
        true
    }

    /// Takes the end of a job.
    ///
    /// # Errors
    /// [`Workload::Error`].
    fn resolve(&mut self, job: Job<Self::Payload>, outcome: JobOutcome, at: ClockReading) -> Result<Followup<Self::Payload>, Self::Error>;

    /// Looks at what is left of a batch after a job of it has ended.
    fn review(&mut self, _: u64, _: &JobQueue<Self::Payload>) -> Followup<Self::Payload> {
        Followup::Nothing
    }

    /// Takes a job back whose command is not sent any more.
    fn take_back(&mut self, job: Job<Self::Payload>) {
        unreachable!("{} is always sent", job.command.name());
    }

    /// The command with which an API is tested by what it accepted last, or by fresh work.
    fn test_command(&self, breaker: Command) -> Command {
        breaker
    }

    /// Whether a job that met temporary errors may be sent as a test of its API, rather than ask another API whether the service is well. Then
    /// several of them that all fail are an outage of this API, which no other one shows.
    fn may_test_itself(&self, _: &Job<Self::Payload>) -> bool {
        false
    }

    /// When something was accepted that may be sent once more as a test.
    fn repeatable_since(&self, breaker: Command) -> Option<Instant>;

    /// Takes what was accepted last, with the time of [`Workload::repeatable_since`]. It is held until [`Workload::repeated`].
    fn take_repeatable(&mut self, breaker: Command) -> Option<(Self::Repeatable, Instant)>;

    /// The request that repeats it.
    fn repeat(command: Command, repeatable: &Self::Repeatable) -> Request<'_>;

    /// The test with it has ended; it was accepted last at this time.
    fn repeated(&mut self, breaker: Command, repeatable: Self::Repeatable, accepted_at: Instant);

    /// Makes a job of the fresh piece of work at this position, or of the last one, for a test.
    fn take_for_test(&mut self, command: Command, position: usize) -> Option<Job<Self::Payload>>;
}

/// Whether something was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetched {
    /// Something, or it has come out that there is no more.
    Done,
    /// Not yet: the loop looks at its events, and asks again soon.
    Pending,
}

/// A flow in motion: a workload, with the input and output that belong to it.
pub trait Flow {
    type Workload: Workload;
    /// What happens to it while calls are made.
    type Event;
    /// Why it can't go on: the run ends with it at once.
    type Error;

    /// The workload can't go on.
    fn broken(error: <Self::Workload as Workload>::Error) -> Self::Error;

    fn workload(&self) -> &Self::Workload;

    fn workload_mut(&mut self) -> &mut Self::Workload;

    /// Hands over what has ended.
    fn hand_over(&mut self);

    /// Reads more for this breaker. It is asked as late as can be, before each call: so memory is bounded.
    ///
    /// # Errors
    /// [`Flow::Error`].
    fn fetch(&mut self, breaker: Command, clocks: &Clocks) -> Result<Fetched, Self::Error>;

    /// Starts to write what has settled, if that is due; asked once no further call may leave now.
    fn commit_if_due(&mut self) {}

    /// Whether it is looking for the next job, and wants to be asked again soon.
    fn is_searching(&self) -> bool;

    /// Whether everything is done, now that no job is left.
    fn is_done(&mut self, clocks: &Clocks) -> bool;

    /// When something of its own is due.
    fn next_due(&self) -> Option<Instant> {
        None
    }

    /// Waits for what happens to it.
    fn event(&mut self) -> impl Future<Output = Self::Event>;

    /// Takes what has happened to it.
    ///
    /// # Errors
    /// [`Flow::Error`].
    fn handle(&mut self, event: Self::Event) -> Result<(), Self::Error>;

    /// Tells whoever watches how far the run is.
    fn report(&mut self, progress: Progress);
}
