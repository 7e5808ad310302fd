//! What is done and said at the end of an import: the state is filled, the exit message, table and summary are made.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::OpenInput;
use super::job::ImportJob;
use crate::domain::call_stats::CallStats;
use crate::domain::figures;
use crate::domain::oddity::OddityCounts;
use crate::domain::outcome::OutcomeCounts;
use crate::domain::position::InputPosition;
use crate::flow::check::FIRST_RECORDS;
use crate::flow::import::{ImportEnd, ImportFailed, ImportOutcome, ImportedRows, Lane};
use crate::io::journal::disk::OsDisk;
use crate::io::journal::{self, DiskError, Journal};
use crate::io::roster::{BlankLines, Roster, RosterError};
use crate::shell::cli::command_end::Ended;
use crate::shell::cli::command_line::CommandLine;
use crate::shell::cli::exit_messages::{already_finished, disk_failed, having_waited, last_word};
use crate::shell::cli::reach::Reach;
use crate::shell::cli::remedies;
use crate::shell::cli::source::Source;
use crate::shell::cli::state_file::LockedState;
use crate::shell::cli::{input, oddities, run};
use crate::shell::exit::{Exit, ExitMessage};
use crate::shell::screen::end_summary::Figures;
use crate::shell::screen::summary::Summary;

/// How the flow ended.
type FileImportOutcome = ImportOutcome<Journal<OsDisk>, RosterError>;

/// What the end of a run needs.
pub(super) struct ImportEnding<'a> {
    pub(super) job: &'a ImportJob<'a>,
    pub(super) source: Source,
    pub(super) input: OpenInput,
    pub(super) state: Option<LockedState>,
    pub(super) reach: Reach,
    /// Blank lines that this process has passed.
    pub(super) blank: BlankLines,
    /// What is odd about the records that this process has read.
    pub(super) odd: Rc<RefCell<OddityCounts>>,
    /// Where this process began.
    pub(super) start: InputPosition,
    /// What earlier processes had come to.
    pub(super) before: OutcomeCounts,
}

impl ImportEnding<'_> {
    /// Tells what the run came to. The last word is the caller's to say.
    pub(super) fn tell(mut self, ended: Result<FileImportOutcome, ImportFailed<DiskError>>, elapsed: Duration) -> Ended {
        let (word, lane, counts, traffic) = match ended {
            Err(ImportFailed { error, traffic, lane }) => {
                // What the same command will go on from; never less than what it began with.
                let counts = journal::read_checkpoint(&OsDisk, &self.job.paths).map_or(self.before, |checkpoint| checkpoint.counts);
                (disk_failed(&error), lane, counts, traffic)
            }
            Ok(ended) => {
                let counts = self.before + ended.counts;
                (self.word(&ended, counts), ended.lane, counts, ended.traffic)
            }
        };
        let summary = summary((word.exit, lane), counts, traffic, (elapsed, self.start.rows));
        run::tell(self.job.typed, &self.job.paths, &summary, counts - self.before);
        Ended::with(word, Figures::of(summary))
    }

    fn word(&mut self, ended: &FileImportOutcome, counts: OutcomeCounts) -> ExitMessage {
        let is_finished = matches!(ended.end, ImportEnd::Finished);
        let filled = if is_finished { self.fill_state(counts, &ended.imported_rows) } else { Ok(()) };
        let remaining = self.remaining(ended);
        let given = self.job.ended(self.input.format.delimiter, self.reach.advice_on(&ended.traffic));
        let word = having_waited(filled.err().unwrap_or_else(|| last_word(&ended.end, counts, remaining, given)), ended.unjudged);
        if !is_finished {
            return word;
        }
        let word = self.source.with_news(word, &self.input.file);
        input::tell_blank(self.blank.count());
        if input::is_cut(&self.input.file) {
            tracing::warn!("{}", input::CUT_WORDS);
        }
        let which = if self.start.rows == 0 { String::new() } else { format!("behind row {}: ", figures::count(self.start.rows)) };
        if self.start.rows > FIRST_RECORDS && !input::is_stream(&self.job.typed.input.file) {
            // Those of the first records were told when the run began, and this process has not read what is settled.
            let command = CommandLine::new("check").file(&self.job.typed.input.file).reading(&self.job.typed.input);
            tracing::info!("{which}only these rows were looked at for what is odd; {command} looks at all");
        }
        oddities::warn(&self.odd.borrow(), &which);
        remedies::warn(&self.odd.borrow().invalid);
        word
    }

    /// A finished run fills the state, if there is one to fill, and then needs its input no more.
    fn fill_state(&mut self, counts: OutcomeCounts, imported_rows: &ImportedRows) -> Result<(), ExitMessage> {
        if let Some(state) = self.state.take() {
            self.job.fill(&state, &self.input, counts, Some(imported_rows))?;
        }
        self.source.discard_copies();
        Ok(())
    }

    /// Records that a limit has left; `None` where there was none, or they can't be counted.
    fn remaining(&self, ended: &FileImportOutcome) -> Option<u64> {
        match ended.end {
            ImportEnd::LimitReached => {
                let (file, format) = (&self.input.file, &self.input.format);
                let settled = ended.settled.unwrap_or(self.start);
                Roster::of(file, format).and_then(|roster| roster.skip_to(settled)?.count_rest()).ok()
            }
            ImportEnd::Finished | ImportEnd::Aborted(_) | ImportEnd::Input(_) => None,
        }
    }
}

/// Tells of a run that an earlier process has finished.
pub(super) fn finished_earlier(job: &ImportJob, counts: OutcomeCounts, delimiter: u8, filled: Result<(), ExitMessage>) -> Ended {
    let word = filled.err().unwrap_or_else(|| already_finished(counts, job.ended(delimiter, None)));
    let summary = summary((word.exit, Lane::Single), counts, CallStats::default(), (Duration::ZERO, counts.rows()));
    Ended::with(word, Figures::of(summary))
}

fn summary((exit, lane): (Exit, Lane), counts: OutcomeCounts, traffic: CallStats, (elapsed, resumed_at_row): (Duration, u64)) -> Summary {
    Summary { exit, outcome: exit.outcome(), lane, counts, traffic, elapsed, resumed_at_row, sync: None }
}
