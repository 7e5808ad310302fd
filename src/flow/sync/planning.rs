//! Planning: after `scan` has read the file, file and state are read side by side, in order of ids.
//!
//! Nothing is written but unnamed temporary files.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;

use thiserror::Error;

use super::case_twins::{CaseTwinSearch, CaseTwinSorter};
use super::digests::SortedDigests;
use super::lookalikes::Lookalikes;
use super::missing_rules::{MissingPolicy, MissingRules, MissingTrust};
use super::plan_draft::{PlanDraft, PlannedRequests};
use super::record_digest::{RecordDigest, RecordTag, missing_to_bytes};
use super::scan::Scan;
use super::tag_comparer::TagComparer;
use crate::domain::change::{KnownAccount, MissingAccount, Op, Ops, PaddedId, PlanCounts, PlannedAction};
use crate::domain::guard::NewColumns;
use crate::domain::oddity::OddityKind;
use crate::domain::tag::Tag;
use crate::flow::import::SendOutcomes;
use crate::io::extsort::ScratchList;
use crate::io::roster::RosterError;
use crate::io::state::{StateDb, StateError};

/// Records between two looks at how far the reading is. Chosen.
pub(super) const TELL_EVERY: u64 = 65_536;

/// Why there is no plan.
#[derive(Debug, Error)]
pub enum PlanError {
    #[error(transparent)]
    Roster(#[from] RosterError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("cannot keep a temporary file in {}", folder.display())]
    Scratch {
        folder: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It was read twice, and is not the same.
    #[error("the input was modified while it was being read")]
    Modified,
    /// Whoever was told how far it is wanted no more.
    #[error("the planning was stopped")]
    Stopped,
}

/// How far the planning is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Bytes of the file that are read.
    Read(u64),
    /// Accounts of the state that were looked at, and how many records the last finished run had.
    LookedAt(u64, u64),
    /// Bytes of the file that were read again, for what looks like a missing id.
    Compared(u64),
}

/// Where temporary files go, and who is told how far it is.
#[expect(missing_debug_implementations, reason = "it holds a closure")]
pub struct Scratch<'a> {
    pub folder: PathBuf,
    /// Told of each step; may stop the planning.
    pub tell: &'a mut dyn FnMut(Step) -> ControlFlow<()>,
}

impl Scratch<'_> {
    pub(super) fn cannot_write(&self) -> impl Fn(io::Error) -> PlanError + use<> {
        let folder = self.folder.clone();
        move |source| PlanError::Scratch { folder: folder.clone(), source }
    }

    pub(super) fn list<const N: usize>(&self) -> Result<ScratchList<N>, PlanError> {
        tempfile::tempfile_in(&self.folder).map(ScratchList::new).map_err(self.cannot_write())
    }
}

/// What a plan hangs on besides file and state.
#[derive(Debug)]
pub struct Policy {
    pub missing: MissingRules,
    pub canaries: Vec<PaddedId>,
    /// When the run began, in milliseconds since the epoch.
    pub now: i64,
}

/// Draws up the plan: `state` is what is held, `None` for nothing, and `outcomes` what an unfinished run has left to it.
///
/// # Errors
/// [`PlanError`] for a state that can't be read, or a full disk.
pub fn build_plan(
    scan: Scan,
    state: Option<&StateDb>,
    outcomes: SendOutcomes,
    policy: &Policy,
    scratch: &mut Scratch,
) -> Result<PlanDraft, PlanError> {
    let last = state.map(StateDb::last_finished).transpose()?.flatten();
    let expected = last.as_ref().map_or(0, |last| last.counts.records());
    let known_tags = state.map(StateDb::known_tags).transpose()?.unwrap_or_default();
    let Scan { digests, tags, ops, filled, malformed, oddities, twins, input } = scan;
    let cannot = scratch.cannot_write();
    let filled_before = last.as_ref().map(|last| last.filled.clone());
    let read_before: Vec<Tag> = filled_before.iter().flat_map(|filled| &filled.tags).map(|(tag, _)| tag.clone()).collect();
    let comparer = TagComparer::new(&tags, &known_tags, &read_before);
    let mut builder = PlanBuilder {
        draft: PlanDraft {
            ops,
            counts: PlanCounts::default(),
            filled,
            filled_before,
            distinct: 0,
            held: 0,
            present: 0,
            due: 0,
            malformed,
            oddities,
            lookalikes: Lookalikes::default(),
            dead_canaries: Vec::new(),
            input,
            new_columns: NewColumns::default(),
            requests: PlannedRequests::default(),
            planned: scratch.list()?,
            missing: scratch.list()?,
            tags,
        },
        comparer,
        latest: LatestPerId::new(digests, twins.sorter(&scratch.folder)).map_err(&cannot)?,
        twins,
        next: None,
        canaries: policy.canaries.iter().copied().collect(),
        policy,
        last_began_at: last.map(|last| last.began_at),
    };
    builder.advance().map_err(&cannot)?;
    if let Some(state) = state {
        walk(state, outcomes, &mut builder, (scratch, expected))?;
    }
    builder.finish().map_err(&cannot)
}

/// Shows the builder every account that is held.
fn walk(
    state: &StateDb,
    outcomes: SendOutcomes,
    builder: &mut PlanBuilder,
    (scratch, expected): (&mut Scratch, u64),
) -> Result<(), PlanError> {
    let (mut accounts, mut is_stopped) = (0_u64, false);
    let walked = state.each_held(outcomes, |id, held| {
        accounts += 1;
        if accounts.is_multiple_of(TELL_EVERY) && (scratch.tell)(Step::LookedAt(accounts, expected)).is_break() {
            is_stopped = true;
            return Err(io::ErrorKind::Interrupted.into());
        }
        builder.visit_known_account(id, held)
    });
    if is_stopped { Err(PlanError::Stopped) } else { Ok(walked?) }
}

/// The digests of one id after the other.
struct LatestPerId {
    digests: SortedDigests,
    /// Takes each of them, where there may be twins.
    twins: Option<CaseTwinSorter>,
    /// The first digest of the next id.
    first: Option<RecordDigest>,
}

impl LatestPerId {
    fn new(digests: SortedDigests, twins: Option<CaseTwinSorter>) -> io::Result<Self> {
        let mut latest = Self { digests, twins, first: None };
        latest.first = latest.digest()?;
        Ok(latest)
    }

    #[inline]
    fn digest(&mut self) -> io::Result<Option<RecordDigest>> {
        let digest = self.digests.next()?;
        if let (Some(twins), Some(digest)) = (&mut self.twins, &digest) {
            twins.push(digest)?;
        }
        Ok(digest)
    }

    /// The last digest of the next id; earlier ones are superseded.
    fn next(&mut self, ops: &mut Ops) -> io::Result<Option<RecordDigest>> {
        let Some(mut last) = self.first.take() else { return Ok(None) };
        while let Some(digest) = self.digest()? {
            if digest.id != last.id {
                self.first = Some(digest);
                break;
            }
            ops.set(last.row, Op::Superseded);
            last = digest;
        }
        Ok(Some(last))
    }
}

/// Writes the plan, id by id.
struct PlanBuilder<'a> {
    draft: PlanDraft,
    latest: LatestPerId,
    twins: CaseTwinSearch,
    next: Option<RecordDigest>,
    comparer: TagComparer,
    canaries: BTreeSet<PaddedId>,
    policy: &'a Policy,
    /// The last finished run's.
    last_began_at: Option<i64>,
}

impl PlanBuilder<'_> {
    fn advance(&mut self) -> io::Result<()> {
        self.next = self.latest.next(&mut self.draft.ops)?;
        Ok(())
    }

    /// Takes the next known account in order of ids: its record is compared with it, and an account without a record is missing.
    fn visit_known_account(&mut self, id: &[u8], held: &KnownAccount) -> io::Result<()> {
        self.draft.held += u64::from(held.missing_runs == 0);
        let id = PaddedId::new(id);
        match self.record_with(&id)? {
            Some(digest) => {
                self.compare_record(digest, Some(held))?;
                self.advance()
            }
            None => self.plan_missing(id, held),
        }
    }

    /// The record with this id, if the file has one. The records before it belong to no known account and are planned on the way.
    fn record_with(&mut self, id: &PaddedId) -> io::Result<Option<RecordDigest>> {
        while let Some(digest) = self.next {
            match digest.id.cmp(id) {
                Ordering::Less => {
                    self.compare_record(digest, None)?;
                    self.advance()?;
                }
                Ordering::Equal => return Ok(Some(digest)),
                Ordering::Greater => break,
            }
        }
        Ok(None)
    }

    fn finish(mut self) -> io::Result<PlanDraft> {
        while let Some(digest) = self.next {
            self.compare_record(digest, None)?;
            self.advance()?;
        }
        let mut draft = self.draft;
        for row in 1..=draft.ops.rows() {
            draft.counts.count(draft.ops.get(row));
        }
        draft.counts.missing = draft.missing.len();
        draft.new_columns = self.comparer.new_columns;
        draft.dead_canaries = self.canaries.into_iter().collect();
        let (twins, first) = self.twins.found(self.latest.twins)?;
        draft.oddities.set(OddityKind::CaseTwin, twins, first);
        Ok(draft)
    }

    /// Compares a record with its known account, by the hashes of the last run, and plans what is sent for it.
    fn compare_record(&mut self, digest: RecordDigest, held: Option<&KnownAccount>) -> io::Result<()> {
        let mut op = Op::Unchanged;
        if digest.tag == RecordTag::Valid {
            self.draft.distinct += 1;
            self.draft.present += u64::from(held.is_some_and(|held| held.missing_runs == 0));
            if !self.canaries.is_empty() {
                self.canaries.remove(&digest.id);
            }
            let tags = self.comparer.compare(&mut self.draft.tags, (digest.row, digest.tags), held)?;
            op = Op::by_comparison(digest.profile, tags, held);
            if let Op::Update(update) = &op {
                self.comparer.count(update);
            }
            // It was pushed as unchanged, and rows come here in no order: most needn't be touched.
            if op != Op::Unchanged {
                self.draft.requests.count(op, &digest);
                self.draft.ops.set(digest.row, op);
            }
        }
        let tag = match (op.is_sent(), held.is_some_and(|held| held.missing_runs > 0 || held.is_kicked)) {
            (false, false) => return Ok(()),
            (true, false) => RecordTag::Sent,
            (false, true) => RecordTag::Back,
            (true, true) => RecordTag::SentBack,
        };
        self.draft.planned.push(&RecordDigest { tag, ..digest }.to_bytes())
    }

    /// Plans a known account that the file does not contain: it is missing.
    fn plan_missing(&mut self, id: PaddedId, held: &KnownAccount) -> io::Result<()> {
        let missing_runs = self.missing_runs_now(held);
        let due = self.planned_action(&id, held, missing_runs);
        self.draft.due += u64::from(matches!(due, PlannedAction::Kick | PlannedAction::Delete));
        let missing = MissingAccount { id, last_imported: held.last_imported, missing_runs, due, lookalike: None };
        self.draft.missing.push(&missing_to_bytes(&missing))
    }

    /// The runs in which the account was missing, with this one. This one does not count if it began too soon after the run that raised the
    /// number last, or if the clock went back.
    fn missing_runs_now(&self, held: &KnownAccount) -> u32 {
        let raised_at = held.raised_at.or(self.last_began_at);
        let is_apart = raised_at.is_none_or(|at| self.policy.now >= at && self.policy.now - at >= self.policy.missing.missing_apart);
        if held.missing_runs == 0 || is_apart { held.missing_runs.saturating_add(1) } else { held.missing_runs }
    }

    fn planned_action(&self, id: &PaddedId, held: &KnownAccount, missing_runs: u32) -> PlannedAction {
        let due = match self.policy.missing.policy {
            MissingPolicy::Report => PlannedAction::Nothing,
            _ if !self.policy.missing.is_missing_for_long(missing_runs) => PlannedAction::Nothing,
            // While the file is malformed nothing is due, so no guard has judged how many would be kicked or deleted.
            _ if self.draft.malformed.is_some() && self.policy.missing.malformed == MissingTrust::No => PlannedAction::Nothing,
            MissingPolicy::Kick if held.is_kicked => PlannedAction::Nothing,
            MissingPolicy::Kick => PlannedAction::Kick,
            MissingPolicy::Delete => PlannedAction::Delete,
        };
        if due != PlannedAction::Nothing && self.policy.missing.protects(id) { PlannedAction::Protected } else { due }
    }
}
