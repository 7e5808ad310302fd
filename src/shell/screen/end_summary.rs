//! What a command came to, whichever it was and however it ended: the one value from which everything is made that is told at its end.

use std::time::{Duration, SystemTime};

use super::summary::{Summary, SyncFigures};
use super::verified::Verified;
use crate::domain::call_stats::CallStats;
use crate::domain::command::Command;
use crate::domain::comparison::FindingCounts;
use crate::domain::guard::Guard;
use crate::domain::outcome::OutcomeCounts;
use crate::flow::import::Lane;
use crate::shell::exit::Exit;

/// The result of a command.
#[derive(Debug, Clone)]
pub struct EndSummary {
    /// The subcommand.
    pub command: &'static str,
    /// What tells this run from those of other files: `--job`.
    pub job: String,
    pub exit: Exit,
    pub figures: Figures,
    /// All safety checks that failed.
    pub tripped: Vec<Guard>,
    /// Accounts that the state knows now, if there is a state.
    pub state_accounts: Option<u64>,
    /// From the start of the command to its end.
    pub elapsed: Duration,
    pub ended_at: SystemTime,
    pub success: Success,
}

/// Whether a run did all that it is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Success {
    Yes,
    /// It ended in another way, or was to do only a part: a dry run, or one with a limit.
    No,
}

/// The figures of a command.
#[derive(Debug, Clone)]
pub enum Figures {
    /// The figures of an import or a sync.
    Rows(Box<Summary>),
    Verification(Box<Verified>),
}

impl Figures {
    #[must_use]
    pub fn of(summary: Summary) -> Self {
        Self::Rows(Box::new(summary))
    }

    #[must_use]
    pub fn of_verification(verified: Verified) -> Self {
        Self::Verification(Box::new(verified))
    }

    /// The figures of an import that did nothing.
    #[must_use]
    pub fn of_no_import(lane: Lane) -> Self {
        Self::of(nothing_done(lane, None))
    }

    /// The figures of a sync that did nothing.
    #[must_use]
    pub fn of_no_sync(lane: Lane) -> Self {
        Self::of(nothing_done(lane, Some(SyncFigures::default())))
    }

    /// The figures of a verification that did nothing.
    #[must_use]
    pub fn of_no_verification() -> Self {
        let traffic = CallStats::to(Command::AccountCheck);
        let counts = FindingCounts::default();
        Self::of_verification(Verified { exit: Exit::Done, rows: 0, counts, not_asked: 0, seed: None, traffic, elapsed: Duration::ZERO })
    }

    /// The same figures with another exit code.
    #[must_use]
    pub fn ended(self, exit: Exit) -> Self {
        match self {
            Figures::Rows(summary) => Self::of(Summary { exit, outcome: exit.outcome(), ..*summary }),
            Figures::Verification(verified) => Self::of_verification(Verified { exit, ..*verified }),
        }
    }
}

fn nothing_done(lane: Lane, sync: Option<SyncFigures>) -> Summary {
    let main = match lane {
        Lane::Single | Lane::FellBack => Command::AccountImport,
        Lane::Batch(_) => Command::MultiaccountImport,
    };
    let traffic = CallStats::to(main);
    Summary {
        exit: Exit::Done,
        outcome: Exit::Done.outcome(),
        lane,
        counts: OutcomeCounts::default(),
        traffic,
        elapsed: Duration::ZERO,
        resumed_at_row: 0,
        sync,
    }
}

impl Figures {
    /// The summary as JSON with a final newline.
    #[must_use]
    pub fn to_json(&self) -> String {
        match self {
            Figures::Rows(summary) => summary.to_json(),
            Figures::Verification(verified) => verified.to_json(),
        }
    }

    /// The requests of this process.
    #[must_use]
    pub fn traffic(&self) -> &CallStats {
        match self {
            Figures::Rows(summary) => &summary.traffic,
            Figures::Verification(verified) => &verified.traffic,
        }
    }
}

impl EndSummary {
    /// The word for how it ended.
    #[must_use]
    pub fn outcome(&self) -> &'static str {
        match &self.figures {
            Figures::Rows(summary) => summary.outcome,
            Figures::Verification(verified) => verified.outcome(),
        }
    }

    /// The summary as JSON with a final newline.
    #[must_use]
    pub fn to_json(&self) -> String {
        self.figures.to_json()
    }

    /// The requests of this process.
    #[must_use]
    pub fn traffic(&self) -> &CallStats {
        self.figures.traffic()
    }
}
