//! Requests that a source asks for, until each is answered or out of attempts.
//!
//! What is asked, and what becomes of the answers, is the [`JobSource`]'s business. The promises about calls are the engine's, as for an
//! import.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::dispatch::{
    AbortCause, Clocks, DispatchDependencies, DispatchSettings, Dispatcher, Fetched, Flow, Followup, Job, JobOutcome, Progress, Workload,
};
use crate::domain::call_stats::CallStats;
use crate::domain::command::{Command, PerCommand, Repetition};
use crate::domain::retry::ClockReading;
use crate::io::api::{Api, Request};

/// Something to ask the service for: one call, or some more if it is refused as a whole.
#[derive(Debug, Clone)]
pub struct RequestJob<I, K> {
    pub command: Command,
    /// What it asks about: 1 to as many as a call may carry, with different ids.
    pub items: Vec<I>,
    /// What the source knows it by; the parts of a job that is divided all carry it.
    pub key: K,
}

/// A job of this source.
pub type JobOf<S> = RequestJob<<S as JobSource>::Item, <S as JobSource>::Key>;

/// Whether there is something to ask.
#[derive(Debug)]
pub enum NextJob<I, K> {
    Job(RequestJob<I, K>),
    /// Not found out yet; ask again soon. So a long search blocks nobody.
    Pending,
    /// Nothing, unless the end of another job brings something.
    Nothing,
}

/// Where jobs come from, and where their ends go.
pub trait JobSource {
    /// What the service is asked about, such as an account; a call has one outcome for each.
    type Item: Clone;
    /// What the jobs are known by.
    type Key: Clone;
    /// Why it can't go on.
    type Error;

    /// The commands that are asked for; of two calls that may leave, the one with the earlier command leaves first.
    const COMMANDS: &'static [Command];

    /// The next job with this command. It is asked for as late as can be, so whoever bounds the jobs that are under way bounds the memory
    /// that they take.
    ///
    /// # Errors
    /// The run ends with it at once.
    fn next(&mut self, command: Command) -> Result<NextJob<Self::Item, Self::Key>, Self::Error>;

    /// The request of a job.
    fn request(job: &JobOf<Self>) -> Request<'_>;

    /// Takes the end of a job, or of a part of one. A job of several items that gets no answer is divided, so only one of a single item ends
    /// without. Jobs of a run that was stopped never end.
    ///
    /// # Errors
    /// The run ends with it at once.
    fn ended(&mut self, job: JobOf<Self>, outcome: JobOutcome) -> Result<(), Self::Error>;
}

/// Tells whoever watches how far the run is.
pub type OnCallsProgress<S> = Box<dyn FnMut(&Progress, &S)>;

/// The end of the run with what it did.
#[derive(Debug)]
pub struct CallsOutcome<S> {
    /// What stopped it; `None` if every job has its end.
    pub cause: Option<AbortCause>,
    pub source: S,
    pub traffic: CallStats,
    /// Items that were given up only after a long wait, since nothing could show whether the service was well.
    pub unjudged: u64,
}

/// The source can't go on.
#[derive(Debug)]
pub struct CallsFailed<E> {
    pub error: E,
    /// What had left and come back by then.
    pub traffic: CallStats,
}

/// Makes the calls of a source until it has no more jobs or something stops the run.
///
/// # Errors
/// The source's.
pub async fn run<A: Api, S: JobSource>(
    dependencies: DispatchDependencies<A>,
    (source, on_progress): (S, OnCallsProgress<S>),
    settings: DispatchSettings,
) -> Result<CallsOutcome<S>, CallsFailed<S::Error>> {
    let mut dispatcher = Dispatcher::new(dependencies, settings, CallsFlow::new(source, on_progress));
    let ended = dispatcher.run().await;
    let (CallsFlow { source, .. }, traffic, unjudged) = dispatcher.end();
    match ended {
        Ok(cause) => Ok(CallsOutcome { cause, source, traffic, unjudged }),
        Err(error) => Err(CallsFailed { error, traffic }),
    }
}

/// A source in motion, with the jobs that it has given and no call has carried yet.
struct CallsFlow<S: JobSource> {
    source: S,
    on_progress: OnCallsProgress<S>,
    fresh: PerCommand<VecDeque<Job<JobOf<S>>>>,
    /// The source had no further job when it was asked last.
    had_nothing: PerCommand<bool>,
    /// A job of one item that was answered last, and when; only where asking again changes nothing.
    answered: PerCommand<Option<(JobOf<S>, Instant)>>,
    /// Jobs that were taken on.
    taken_on: u64,
    /// The source is looking for the next job, and wants to be asked again.
    is_searching: bool,
}

impl<S: JobSource> CallsFlow<S> {
    fn new(source: S, on_progress: OnCallsProgress<S>) -> Self {
        Self {
            source,
            on_progress,
            fresh: PerCommand::new(|_| VecDeque::new()),
            had_nothing: PerCommand::default(),
            answered: PerCommand::default(),
            taken_on: 0,
            is_searching: false,
        }
    }

    fn take_on(&mut self, job: JobOf<S>) {
        self.had_nothing = PerCommand::default();
        self.taken_on += 1;
        self.fresh[job.command].push_back(Job::new(job.command, job, self.taken_on));
    }
}

/// Each half is a call of its own, since what was met may be a single item's fault.
fn halves<I, K: Clone>(job: Job<RequestJob<I, K>>) -> Followup<RequestJob<I, K>> {
    let count = job.payload.items.len();
    let (mut first, part) = job.divide(count);
    let items = first.items.split_off(count.div_ceil(2));
    let second = RequestJob { items, key: first.key.clone(), ..first };
    Followup::Jobs([first, second].map(|half| part(half.command, half)).into())
}

/// The same request about the first item alone.
fn first_alone<I: Clone, K: Clone>(job: &RequestJob<I, K>) -> RequestJob<I, K> {
    RequestJob { command: job.command, items: job.items[..1].to_vec(), key: job.key.clone() }
}

impl<S: JobSource> Workload for CallsFlow<S> {
    type Payload = JobOf<S>;
    type Repeatable = JobOf<S>;
    type Error = S::Error;

    const COMMANDS: &'static [Command] = S::COMMANDS;

    fn fresh(&self, breaker: Command) -> usize {
        self.fresh[breaker].len()
    }

    fn can_have_more(&self, breaker: Command) -> bool {
        !self.had_nothing[breaker]
    }

    fn is_ready(&self, command: Command) -> bool {
        !self.fresh[command].is_empty()
    }

    fn take(&mut self, command: Command) -> Job<Self::Payload> {
        self.fresh[command].pop_front().expect("it was ready")
    }

    fn take_for_test(&mut self, command: Command, position: usize) -> Option<Job<Self::Payload>> {
        let last = self.fresh[command].len().checked_sub(1)?;
        self.fresh[command].remove(position.min(last))
    }

    fn request<'a>(&'a self, job: &'a Job<Self::Payload>) -> Request<'a> {
        S::request(&job.payload)
    }

    fn count_accounts(&self, job: &Job<Self::Payload>) -> usize {
        job.payload.items.len()
    }

    fn is_divisible(&self, job: &Job<Self::Payload>) -> bool {
        job.payload.items.len() > 1
    }

    fn resolve(&mut self, job: Job<Self::Payload>, outcome: JobOutcome, at: ClockReading) -> Result<Followup<Self::Payload>, S::Error> {
        match outcome {
            JobOutcome::Rejected(_) | JobOutcome::AttemptsExhausted(_) if self.is_divisible(&job) => return Ok(halves(job)),
            JobOutcome::Answered(_) if job.command.spec().repetition == Repetition::Harmless => {
                self.answered[job.command] = Some((first_alone(&job.payload), at.now));
            }
            JobOutcome::Answered(_) | JobOutcome::Rejected(_) | JobOutcome::AttemptsExhausted(_) => {}
        }
        self.source.ended(job.payload, outcome)?;
        Ok(Followup::Nothing)
    }

    fn repeatable_since(&self, breaker: Command) -> Option<Instant> {
        self.answered[breaker].as_ref().map(|(_, at)| *at)
    }

    fn take_repeatable(&mut self, breaker: Command) -> Option<(JobOf<S>, Instant)> {
        self.answered[breaker].take()
    }

    fn repeat(_: Command, repeatable: &JobOf<S>) -> Request<'_> {
        S::request(repeatable)
    }

    fn repeated(&mut self, breaker: Command, repeatable: JobOf<S>, accepted_at: Instant) {
        self.answered[breaker].get_or_insert((repeatable, accepted_at));
    }
}

impl<S: JobSource> Flow for CallsFlow<S> {
    type Workload = Self;
    /// Nothing happens to it but the ends of its calls.
    type Event = std::convert::Infallible;
    type Error = S::Error;

    fn broken(error: S::Error) -> S::Error {
        error
    }

    fn workload(&self) -> &Self {
        self
    }

    fn workload_mut(&mut self) -> &mut Self {
        self
    }

    /// What has ended may have brought further jobs, of any command; so may the last job that was found.
    fn hand_over(&mut self) {
        self.is_searching = false;
        self.had_nothing = PerCommand::default();
    }

    fn fetch(&mut self, command: Command, _: &Clocks) -> Result<Fetched, S::Error> {
        match self.source.next(command)? {
            NextJob::Job(job) => self.take_on(job),
            NextJob::Nothing => self.had_nothing[command] = true,
            NextJob::Pending => {
                self.is_searching = true;
                return Ok(Fetched::Pending);
            }
        }
        Ok(Fetched::Done)
    }

    fn is_searching(&self) -> bool {
        self.is_searching
    }

    fn is_done(&mut self, _: &Clocks) -> bool {
        !self.is_searching && S::COMMANDS.iter().all(|command| self.is_spent(*command))
    }

    fn event(&mut self) -> impl Future<Output = Self::Event> {
        std::future::pending()
    }

    fn handle(&mut self, event: Self::Event) -> Result<(), S::Error> {
        match event {}
    }

    fn report(&mut self, progress: Progress) {
        (self.on_progress)(&progress, &self.source);
    }
}
