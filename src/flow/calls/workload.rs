//! The errands as a workload of the dispatcher.

use tokio::time::Instant;

use super::docket::Docket;
use super::{CallsSettings, Errands, OnProgress, Supply};
use crate::domain::command::Command;
use crate::flow::dispatch::{Clocks, Progress, Workload};

/// A run of errands, in motion.
pub(super) struct ErrandWorkload<E: Errands> {
    pub(super) errands: E,
    pub(super) docket: Docket<E::Tag>,
    on_progress: OnProgress<E>,
    /// The errands are looking for the next one, and want to be asked again.
    is_searching: bool,
}

impl<E: Errands> ErrandWorkload<E> {
    pub(super) fn new(errands: E, on_progress: OnProgress<E>, settings: &CallsSettings) -> Self {
        Self { errands, docket: Docket::new(settings), on_progress, is_searching: false }
    }

    fn feed_with(&mut self, command: Command) -> Result<(), E::Error> {
        let now = Instant::now();
        while self.docket.wants(command, now) {
            match self.errands.next(command)? {
                Supply::Errand(errand) => self.docket.take_on(errand),
                Supply::Searching => {
                    self.is_searching = true;
                    return Ok(());
                }
                Supply::Dry => {
                    self.docket.apis[command].is_dry = true;
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

impl<E: Errands> Workload for ErrandWorkload<E> {
    type Scheduler = Docket<E::Tag>;
    /// Nothing happens to errands but the ends of their calls.
    type Event = std::convert::Infallible;
    type Error = E::Error;

    const COMMANDS: &'static [Command] = E::COMMANDS;

    fn scheduler(&self) -> &Docket<E::Tag> {
        &self.docket
    }

    fn scheduler_mut(&mut self) -> &mut Docket<E::Tag> {
        &mut self.docket
    }

    fn main_command(&self) -> Command {
        E::COMMANDS[0]
    }

    fn hand_over(&mut self, _: &mut Clocks) -> Result<(), E::Error> {
        while let Some((errand, fate)) = self.docket.take_ended() {
            self.errands.ended(errand, fate)?;
        }
        // What has ended may have brought further errands.
        for command in E::COMMANDS {
            self.docket.apis[*command].is_dry = false;
        }
        Ok(())
    }

    fn feed(&mut self, _: &mut Clocks) -> Result<(), E::Error> {
        self.is_searching = false;
        E::COMMANDS.iter().try_for_each(|command| self.feed_with(*command))
    }

    fn settle(&mut self, clocks: &mut Clocks) -> Result<bool, E::Error> {
        Ok(self.docket.resolve_exhausted(clocks.at(Instant::now())))
    }

    fn is_searching(&self) -> bool {
        self.is_searching
    }

    fn is_done(&mut self, _: &mut Clocks) -> bool {
        self.docket.is_empty() && !self.is_searching
    }

    fn next_due(&self) -> Option<Instant> {
        None
    }

    fn event(&mut self) -> impl Future<Output = Self::Event> {
        std::future::pending()
    }

    fn handle(&mut self, event: Self::Event) -> Result<(), E::Error> {
        match event {}
    }

    fn report(&mut self, progress: Progress) {
        (self.on_progress)(&progress, &self.errands);
    }
}
