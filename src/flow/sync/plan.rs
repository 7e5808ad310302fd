//! A plan that is ready to be judged, shown and committed to.

use std::io;

use super::execution::Ready;
use super::missing_rules::MissingTrust;
use super::observer::{SyncError, SyncProgress};
use super::plan_draft::PlanDraft;
use super::scan::MalformedRecords;
use super::setup::{Locks, Setup};
use crate::domain::change::{InDoubt, MissingAccount, Op, PlanCounts, PlannedAction, Update, Wait};
use crate::domain::figures::{self, defused};
use crate::domain::guard::{self, GuardInput, GuardLimits, Judged, Tripped};
use crate::domain::known_tags::TagSet;
use crate::domain::profile::ProfileField;
use crate::io::csv_out;
use crate::io::journal::checkpoint::RunKind;
use crate::io::journal::{RunSpec, StartMode};
use crate::io::roster::RosterError;
use crate::io::state::{NewRun, OpenRun, StateError};

/// What a sync is about to do. Nothing of it lasts yet.
#[derive(Debug)]
pub struct SyncPlan {
    pub(super) setup: Setup,
    pub(super) draft: PlanDraft,
    pub(super) guard_input: GuardInput,
    pub(super) start: StartMode,
    pub(super) spec: RunSpec,
    /// The number by which the state is known, whatever its name.
    pub(super) identity: u64,
    pub(super) is_new_state: bool,
    pub(super) has_open_run: bool,
    pub(super) blank_lines: u64,
}

impl SyncPlan {
    #[must_use]
    pub const fn counts(&self) -> PlanCounts {
        self.draft.counts
    }

    /// The plan in figures, as far as it is not in its counts.
    #[must_use]
    pub const fn draft(&self) -> &PlanDraft {
        &self.draft
    }

    /// Known accounts that aren't missing; `None` where there is no state yet.
    #[must_use]
    pub fn known_accounts(&self) -> Option<u64> {
        (!self.is_new_state).then_some(self.draft.held)
    }

    /// Whether the file ends with a line end.
    #[must_use]
    pub const fn ends_with_newline(&self) -> bool {
        self.guard_input.ends_with_newline
    }

    /// Blank lines of the file.
    #[must_use]
    pub const fn blank_lines(&self) -> u64 {
        self.blank_lines
    }

    /// Why kicks and deletions will wait, if that is known already.
    #[must_use]
    pub fn wait(&self) -> Option<Wait> {
        self.setup.missing.planned_wait(self.draft.counts.missing, self.draft.malformed.is_some(), self.setup.limit)
    }

    /// The guards that trip.
    #[must_use]
    pub fn tripped_guards(&self, limits: &GuardLimits) -> Vec<Tripped> {
        guard::tripped_guards(&self.guard_input, limits)
    }

    /// All guards with what they found.
    #[must_use]
    pub fn guard_report(&self, limits: &GuardLimits) -> Vec<Judged> {
        guard::guard_report(&self.guard_input, limits)
    }

    /// Writes what is to become of each record that is not unchanged, in input order, then the missing accounts.
    ///
    /// # Errors
    /// Those of the file, of the temporary files, or of `out`.
    pub fn write_csv(&mut self, out: impl io::Write) -> io::Result<()> {
        let mut csv = csv_out::writer(b',', out);
        csv.write_record(["op", "row", "line", "UserID", "reason"])?;
        let unreadable = |error| match error {
            RosterError::Read(error) => error,
            error => io::Error::other(error),
        };
        let mut roster = self.setup.roster().map_err(unreadable)?;
        while let Some(view) = roster.next_view() {
            let view = view.map_err(unreadable)?;
            let op = self.draft.ops.get(view.row);
            if op == Op::Unchanged {
                continue;
            }
            let (row, line) = (view.row.to_string(), view.line.to_string());
            let reason = match (&view.account, op) {
                (Err(why), Op::Invalid) => why.to_string(),
                _ => reason(op, &self.draft),
            };
            csv.write_record([op.name().as_bytes(), row.as_bytes(), line.as_bytes(), view.user_id, defused(&reason).as_bytes()])?;
        }
        for missing in self.draft.missing()? {
            let missing = missing?;
            csv.write_record(["missing", "", "", missing.id.as_str(), &reason_of_missing(&missing)])?;
        }
        csv.flush()
    }

    /// Takes note that the file got another name, under which it is kept for the run: that changes its stat fields.
    ///
    /// # Errors
    /// The disk's.
    pub fn input_was_renamed(&mut self) -> io::Result<()> {
        let stat = self.setup.input.file.fingerprint()?;
        (self.setup.input.stat, self.spec.input, self.draft.input.stat) = (stat, stat, stat);
        Ok(())
    }

    /// Writes the plan to the state and opens the files of the run. From then on the run is resumed until it has finished.
    ///
    /// # Errors
    /// [`SyncError`] when the state or the files can't be written.
    pub fn commit(self, locks: Locks) -> Result<Ready, SyncError> {
        // What an earlier run has left was read once for the plan; the state reads it once more.
        let left = self.setup.left_results(self.spec.work, self.has_open_run)?;
        let Self { setup, mut draft, guard_input, start, mut spec, identity, .. } = self;
        let mut state = locks.state.open_or_create(&setup.target, identity)?;
        let malformed = draft.malformed.as_ref().map(MalformedRecords::to_string);
        let waits = malformed.is_some() && setup.missing.malformed == MissingTrust::No;
        let (counts, filled, input) = (draft.counts, draft.filled.clone(), draft.input);
        let (planned, missing, ops) = draft.lists().map_err(StateError::Source)?;
        let new = NewRun {
            command: "sync",
            began_at: setup.began_at(),
            input,
            counts,
            filled,
            ops,
            token: (setup.draw)(),
            shrunk_allowed: guard::has_shrunk(&guard_input),
            ends_with_newline: Some(guard_input.ends_with_newline),
            malformed: malformed.as_deref(),
            missing_waits: waits.then_some(Wait::Malformed.name()),
            uuids: setup.input.format.cells.uuids,
        };
        let open_run: OpenRun = state.begin(new, planned, missing, left)?;
        drop(state);
        setup.observe(SyncProgress::Committed)?;
        spec.work = RunKind::Sync { state: identity, run: open_run.number, token: open_run.token };
        // The results of the unfinished run are in the state by now.
        let start = if matches!(start, StartMode::Resume { .. }) { StartMode::SetAside } else { start };
        Ready::open(setup, (start, spec), (open_run, draft.ops), locks)
    }
}

fn reason(op: Op, draft: &PlanDraft) -> String {
    let told = match op {
        Op::Create => "the state does not hold it",
        Op::Update(update) if update.fields.is_empty() && update.differing.is_empty() => {
            "in doubt: the result of an earlier request is unknown"
        }
        Op::Update(update) => return differ(&update, draft),
        Op::Superseded => "a later row has the same UserID",
        Op::Invalid | Op::Unchanged => "",
    };
    told.to_owned()
}

/// Names the fields and the tags that differ, and those that are in doubt besides.
fn differ(update: &Update, draft: &PlanDraft) -> String {
    let tags = |set: TagSet| draft.tags().enumerate().filter(move |(place, _)| set.has(*place)).map(|(_, tag)| tag.to_string());
    let fields = update.fields.iter().map(|field| field.spec().name.to_owned());
    let doubted =
        ProfileField::ALL.into_iter().filter(|field| update.in_doubt.has(InDoubt::of_field(*field)) && !update.fields.has(*field));
    let doubted = doubted.map(|field| field.spec().name.to_owned());
    let account = [InDoubt::EXISTENCE, InDoubt::KICK, InDoubt::DELETION].into_iter().find(|doubt| update.in_doubt.has(*doubt));
    // Whatever an account has that may be a new one is sent again: then its tags are not in doubt themselves.
    let may_be_new = update.in_doubt.has(InDoubt::EXISTENCE) || update.in_doubt.has(InDoubt::DELETION);
    let doubted_tags = if may_be_new { TagSet::NONE } else { update.tags.without(update.differing) };
    let differing = named(fields.chain(tags(update.differing)), ["differs", "differ"]);
    let in_doubt = account.map(|_| "the account".to_owned()).into_iter().chain(doubted).chain(tags(doubted_tags));
    differing.into_iter().chain(named(in_doubt, ["is in doubt", "are in doubt"])).collect::<Vec<_>>().join(", ")
}

/// A list of names with what is said of one or of several; `None` without any.
fn named(names: impl Iterator<Item = String>, [of_one, of_several]: [&str; 2]) -> Option<String> {
    match names.collect::<Vec<_>>().as_slice() {
        [] => None,
        [one] => Some(format!("{one} {of_one}")),
        [first @ .., last] => Some(format!("{} and {last} {of_several}", first.join(", "))),
    }
}

fn reason_of_missing(missing: &MissingAccount) -> String {
    let runs = figures::counted(missing.missing_runs.into(), "run");
    let then = match missing.due {
        PlannedAction::Nothing => "",
        PlannedAction::Protected => "; protected",
        PlannedAction::Kick => "; to be kicked",
        PlannedAction::Delete => "; to be deleted",
        PlannedAction::Lookalike => "; spared",
    };
    let lookalike = missing.lookalike.map_or_else(String::new, |lookalike| format!("; {lookalike} looks like it"));
    format!("missing in {runs}{lookalike}{then}")
}
