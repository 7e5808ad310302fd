//! Missing accounts at the end of a run: whether kicks and deletions wait, the requests for those that are due, and the file that lists
//! them all.

use std::io;
use std::time::SystemTime;

use futures_util::StreamExt;
use tokio::time::Instant;

use super::sending::{SyncSteps, SyncTotals, stopped};
use super::{Session, absence, is_protected, trust};
use crate::domain::change::Wait;
use crate::domain::figures;
use crate::domain::verdict::HaltReason;
use crate::flow::calls;
use crate::flow::import::ImportEnd;
use crate::flow::sync::{
    AbsentTally, Lookalikes, MalformedRecords, MissingError, MissingRules, MissingTrust, MissingWorkload, write_missing,
};
use crate::io::files::sync_folder_of;
use crate::io::roster::{self, Roster, RosterError};
use crate::io::state::{StateDb, StateError};
use crate::shell::cli::atomic::{self, Readers};
use crate::shell::cli::exit_messages::last_word;
use crate::shell::cli::flags::{AllowFlag, MissingFlag, SyncFlags};
use crate::shell::cli::import::TELL_EVERY;
use crate::shell::cli::input::roster_error;
use crate::shell::cli::state_file::state_error;
use crate::shell::exit::ExitMessage;
use crate::shell::screen::phase_bar::PhaseBar;
use crate::shell::screen::progress;

/// Why kicks and deletions wait, as far as a plan knows.
pub(super) fn known_wait(flags: &SyncFlags, missing: u64, is_malformed: bool) -> Option<Wait> {
    if flags.missing == MissingFlag::Report || missing == 0 {
        None
    } else if is_malformed && trust(flags, AllowFlag::Malformed) == MissingTrust::No {
        Some(Wait::Malformed)
    } else {
        flags.run.limit.map(|_| Wait::Limit)
    }
}

/// Where a file is malformed.
pub(super) fn malformed_words(malformed: &MalformedRecords) -> String {
    format!("{}, the first in {}", figures::counted(malformed.records, "record"), malformed.first)
}

/// Tells of records that are to be created and look like a missing id: whoever it is may have two accounts then.
pub(super) fn tell_creates(lookalikes: &Lookalikes) {
    let Lookalikes { creates, first_creates, .. } = lookalikes;
    if *creates > 0 {
        let places: Vec<String> = first_creates.iter().map(ToString::to_string).collect();
        let (count, places) = (figures::count(*creates), places.join(", "));
        tracing::warn!(
            "accounts to be created that look like a missing id: {count}, first in {places}; each may be one user under two ids"
        );
    }
}

impl SyncSteps<'_> {
    /// Why kicks and deletions wait, now that all rows have settled.
    pub(super) fn wait(&self, unknown_rows: u64) -> Result<Option<Wait>, ExitMessage> {
        let (missing, opened) = (self.opened.counts.missing, &self.opened);
        let known = known_wait(self.flags, missing, opened.malformed.is_some());
        if known.is_some() || self.flags.missing == MissingFlag::Report || missing == 0 {
            return Ok(known);
        }
        if opened.missing_waits.is_some() {
            // It is allowed by now, but nobody has judged how many are due.
            return Ok(Some(Wait::Malformed));
        }
        if unknown_rows > 0 {
            return Ok(Some(Wait::FailedRows));
        }
        let has_changed = self.has_changed().map_err(|error| roster_error(&self.flags.run.input.file, &error))?;
        Ok(has_changed.then_some(Wait::FileChanged))
    }

    /// Whether the file is another one than was planned, or says something else.
    fn has_changed(&self) -> Result<bool, RosterError> {
        let named = match roster::fingerprint(&self.input.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            named => named?,
        };
        let opened = self.input.file.fingerprint()?;
        if named.inode != opened.inode {
            return Ok(true);
        }
        if named == self.input.stat {
            return Ok(false);
        }
        // Touched, which may mean nothing.
        let end = Roster::open(&self.input.path, &self.input.format)?.read_to_end()?;
        Ok((end.offset, end.digest) != (self.opened.input.len, self.opened.input.digest))
    }

    /// Says that kicks and deletions wait, since when, and what is to be done about it.
    pub(super) fn tell_wait(&self, wait: Wait, unknown_rows: u64, state: &StateDb) -> Result<(), ExitMessage> {
        let runs = state.runs(u32::MAX).map_err(|error| state_error(&error))?;
        let last = runs.iter().find(|run| run.finished_at.is_some() && run.command == "sync");
        let before = last.and_then(|last| last.missing_waited).unwrap_or_default();
        let nights = figures::counted(before + 1, "night");
        let way_out = match wait {
            Wait::Malformed => format!(
                "the file is malformed: {}; mend it where it comes from, or --allow malformed",
                self.opened.malformed.as_deref().unwrap_or("a record can't be read for certain"),
            ),
            Wait::FailedRows => {
                format!("it is not known what came of {}; they come with the next run", figures::counted(unknown_rows, "row"))
            }
            Wait::FileChanged => "the file has changed since it was planned; the same command plans anew".to_owned(),
            Wait::Limit => "--limit settles a part of the rows; the same command without it comes to them".to_owned(),
        };
        tracing::warn!("the missing accounts wait ({nights} by now): {way_out}");
        Ok(())
    }

    /// Kicks or deletes who is due, as far as the service and the signals let it.
    pub(super) fn deal_with_the_missing(&self, state: &mut StateDb, account: &mut SyncTotals, scene: &Session) -> Result<(), ExitMessage> {
        let identifier = self.dialled.identifier();
        let is_protected = |id: &str| is_protected(self.flags, identifier, id);
        let (absence, missing_runs, skip_online) = (absence(self.flags), self.flags.missing_runs, self.flags.skip_online);
        let lookalikes = trust(self.flags, AllowFlag::Lookalikes);
        let rules = MissingRules { absence, missing_runs, skip_online, lookalikes, is_protected: &is_protected };
        let due = state.due_left().map_err(|error| state_error(&error))?;
        let mut gauge = PhaseBar::on_stderr(self.flags.run.output.progress(), scene.bars, Instant::now());
        let parts = calls::CallsDependencies {
            api: self.dialled.api.clone(),
            errands: MissingWorkload::new(state, rules),
            signer: self.dialled.signer(),
            wall: Box::new(SystemTime::now),
            jitter: Box::new(fastrand::f64),
            signals: scene.stops().boxed_local(),
            on_progress: Box::new(move |snapshot, absent: &MissingWorkload| {
                let acted = absent.tally().acted();
                let words = format!("missing accounts: {} of {} done", figures::count(acted), figures::count(due));
                gauge.tell((acted, due), &words, &progress::state(&snapshot.phase, snapshot.in_flight), Instant::now());
            }),
        };
        let settings = calls::CallsSettings {
            rates: self.settings.rates.clone(),
            gates: self.settings.gates.clone(),
            max_attempts: self.settings.limits.max_attempts,
            in_flight: self.settings.limits.in_flight,
            max_outage: self.settings.max_outage,
            identifier: self.dialled.admin(),
            progress_every: TELL_EVERY,
        };
        let end = match scene.runtime.block_on(calls::run(parts, settings)) {
            Err(calls::CallsFailed { error: MissingError::State(error), traffic }) => {
                account.traffic.add(&traffic);
                return Err(state_error(&error));
            }
            Err(calls::CallsFailed { error: MissingError::DeletionOff(says), traffic }) => {
                account.traffic.add(&traffic);
                ImportEnd::Refused { refusal: HaltReason::DeletionOff, code: None, says }
            }
            Ok(ended) => {
                account.traffic.add(&ended.traffic);
                account.unjudged += ended.unjudged;
                match stopped(ended.end) {
                    None => return Ok(()),
                    Some(end) => end,
                }
            }
        };
        Err(last_word(&end, account.tally, None, self.given(&account.traffic)))
    }

    /// Writes the missing file: whole, or as it was.
    pub(super) fn write_missing(&self, state: &StateDb) -> Result<AbsentTally, ExitMessage> {
        let path = &self.paths.missing;
        let cannot = |source| state_error(&StateError::File { what: "write", path: path.clone(), source });
        // The state's own error, which a file's has no room for.
        let mut failed = None;
        let written = atomic::write(path, Readers::Owner, |out| {
            write_missing(state, out).map_err(|error| match error {
                StateError::Source(source) => source,
                error => {
                    failed = Some(error);
                    io::ErrorKind::Other.into()
                }
            })
        });
        // The state learns of the deeds once the file that tells them lasts.
        let lasting = written.and_then(|tally| sync_folder_of(path).map(|()| tally));
        lasting.map_err(|source| failed.map_or_else(|| cannot(source), |error| state_error(&error)))
    }
}
