//! The import with its input and output: records are read, settled outcomes go to the sink, and the sink commits.
//!
//! What becomes of a row is decided in `workload` and by the scheduler, what a code means in `verdict`.

use std::convert::Infallible;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{ImportEnd, ImportEnds, ImportProgress, ImportSettings, ImportWorkload, IncomingRecord};
use crate::domain::command::Command;
use crate::domain::outcome::OutcomeCounts;
use crate::domain::position::InputPosition;
use crate::flow::dispatch::{self, AbortCause, Clocks, Fetched, Flow};
use crate::io::journal::OutcomeSink;

/// Records that are read before the loop looks at its events again. Chosen: well under a millisecond's work.
const READ_AT_ONCE: usize = 256;

type Committing<L> = JoinHandle<Result<L, <L as OutcomeSink>::Error>>;

/// An import in motion.
pub(super) struct ImportFlow<I, L: OutcomeSink, E> {
    settings: ImportSettings,
    records: I,
    /// `None` while a commit is under way, which has it then.
    sink: Option<L>,
    committing: Option<Committing<L>>,
    committed_at: Instant,
    pub(super) workload: ImportWorkload,
    on_progress: Box<dyn FnMut(&ImportProgress)>,
    records_read: u64,
    /// Records that may be read before the loop looks at its events.
    may_read: usize,
    more_to_read: bool,
    limit_reached: bool,
    input_error: Option<E>,
    pub(super) counts: OutcomeCounts,
    pub(super) settled: Option<InputPosition>,
}

impl<I, N, L, E> ImportFlow<I, L, E>
where
    I: Iterator<Item = Result<N, E>>,
    N: Into<IncomingRecord>,
    L: OutcomeSink,
{
    pub(super) fn new(ends: ImportEnds<I, L>, settings: ImportSettings) -> Self {
        let ImportEnds { records, sink, on_progress } = ends;
        Self {
            workload: ImportWorkload::new(settings.window, (settings.lane, settings.scope), settings.rows_done + 1),
            settings,
            records,
            sink: Some(sink),
            committing: None,
            committed_at: Instant::now(),
            on_progress,
            records_read: 0,
            may_read: 0,
            more_to_read: false,
            limit_reached: false,
            input_error: None,
            counts: OutcomeCounts::default(),
            settled: None,
        }
    }

    /// Hands settled outcomes to the sink, in order, until it is full.
    fn take_over(&mut self) {
        let Some(sink) = &mut self.sink else { return };
        while !sink.is_full() {
            if let Some(end) = self.workload.take_skipped() {
                self.settled = Some(end);
                sink.skip(end);
            } else if let Some(settled) = self.workload.take_settled() {
                self.counts.count(settled.outcome.status);
                self.settled = Some(settled.end);
                sink.buffer(settled);
            } else {
                return;
            }
        }
    }

    /// Takes in one more of what the input has.
    fn read(&mut self, clocks: &Clocks) {
        self.may_read -= 1;
        if self.settings.limit.is_some_and(|limit| self.records_read >= limit) {
            self.limit_reached = true;
            self.workload.input_ended();
            return;
        }
        match self.records.next() {
            Some(Ok(next)) => {
                let incoming = next.into();
                match incoming {
                    IncomingRecord::Record { .. } | IncomingRecord::Settled(_) => self.records_read += 1,
                    // Skipping many records has taken a while: the loop looks at its events first.
                    IncomingRecord::Skipped(_) => self.may_read = 0,
                }
                self.workload.admit(incoming, (clocks.wall)());
            }
            Some(Err(error)) => {
                self.input_error = Some(error);
                self.workload.input_ended();
            }
            None => self.workload.input_ended(),
        }
    }

    fn begin_commit(&mut self) {
        let now = Instant::now();
        let Some(mut sink) = self.sink.take() else { return };
        let rows = sink.pending_rows();
        if rows == 0 || (!sink.is_full() && rows < self.settings.commit_rows && now < self.committed_at + self.settings.commit_every) {
            self.committed_at = if rows == 0 { now } else { self.committed_at };
            self.sink = Some(sink);
            return;
        }
        self.committed_at = now;
        self.committing = Some(tokio::task::spawn_blocking(move || sink.commit().map(|()| sink)));
    }

    /// Looks, when everything has settled, whether the input has come to more meanwhile, or is no more what was read. Admits the record
    /// that has come. Returns whether the run goes on.
    fn admit_late_record(&mut self, clocks: &Clocks) -> bool {
        if self.limit_reached || self.input_error.is_some() {
            return false;
        }
        match self.records.next().map(|next| next.map(Into::into)) {
            None => return false,
            Some(Err(error)) => {
                self.input_error = Some(error);
                return false;
            }
            // It is being looked at.
            Some(Ok(IncomingRecord::Skipped(_))) => {}
            Some(Ok(incoming)) => {
                self.records_read += 1;
                self.workload.input_goes_on();
                self.workload.admit(incoming, (clocks.wall)());
            }
        }
        self.more_to_read = true;
        true
    }

    /// Commits what has settled, and says how the run ended.
    pub(super) async fn close_sink(&mut self, cause: Option<AbortCause>) -> Result<(ImportEnd<E>, L), L::Error> {
        if let Some(commit) = self.committing.take() {
            self.sink = Some(commit.await.expect("a commit never panics")?);
        }
        let mut sink = loop {
            self.take_over();
            let mut sink = self.sink.take().expect("the sink is here when no commit is under way");
            if !sink.is_full() {
                break sink;
            }
            // What has settled may be more than it takes at once.
            self.sink = Some(blocking(move || sink.commit().map(|()| sink)).await?);
        };
        let end = match (cause, self.input_error.take()) {
            (Some(cause), _) => ImportEnd::Aborted(cause),
            (None, Some(error)) => ImportEnd::Input(error),
            (None, None) if self.limit_reached && self.records.next().is_some() => ImportEnd::LimitReached,
            (None, None) => return blocking(move || sink.finish().map(|()| sink)).await.map(|sink| (ImportEnd::Finished, sink)),
        };
        let sink = blocking(move || sink.commit().map(|()| sink)).await?;
        Ok((end, sink))
    }
}

impl<I, N, L, E> Flow for ImportFlow<I, L, E>
where
    I: Iterator<Item = Result<N, E>>,
    N: Into<IncomingRecord>,
    L: OutcomeSink,
{
    type Workload = ImportWorkload;
    /// A commit is done.
    type Event = Result<L, L::Error>;
    type Error = L::Error;

    fn broken(never: Infallible) -> L::Error {
        match never {}
    }

    fn workload(&self) -> &ImportWorkload {
        &self.workload
    }

    fn workload_mut(&mut self) -> &mut ImportWorkload {
        &mut self.workload
    }

    fn hand_over(&mut self) {
        self.take_over();
        self.may_read = READ_AT_ONCE;
        self.more_to_read = false;
    }

    fn fetch(&mut self, breaker: Command, clocks: &Clocks) -> Result<Fetched, L::Error> {
        if !self.workload.is_read_for(breaker) {
            return Ok(Fetched::Pending);
        }
        if self.may_read == 0 {
            self.more_to_read = true;
            return Ok(Fetched::Pending);
        }
        self.read(clocks);
        Ok(Fetched::Done)
    }

    fn commit_if_due(&mut self) {
        self.begin_commit();
    }

    fn is_searching(&self) -> bool {
        self.more_to_read
    }

    fn is_done(&mut self, clocks: &Clocks) -> bool {
        let has_settled = self.workload.is_empty() && self.sink.is_some() && self.workload.input_has_ended();
        has_settled && !self.admit_late_record(clocks)
    }

    fn next_due(&self) -> Option<Instant> {
        let is_pending = self.sink.as_ref().is_some_and(|sink| sink.pending_rows() > 0);
        is_pending.then(|| self.committed_at + self.settings.commit_every)
    }

    async fn event(&mut self) -> Self::Event {
        match &mut self.committing {
            Some(commit) => commit.await.expect("a commit never panics"),
            None => std::future::pending().await,
        }
    }

    fn handle(&mut self, committed: Self::Event) -> Result<(), L::Error> {
        self.committing = None;
        self.sink = Some(committed?);
        Ok(())
    }

    fn report(&mut self, requests: dispatch::Progress) {
        let offset = self.settled.map(|settled| settled.offset);
        let rows_waiting = self.workload.rows_waiting();
        (self.on_progress)(&ImportProgress { requests, counts: self.counts, rows_waiting, offset, planned: None });
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("the sink never panics")
}
