//! Planning: one pass over the file, one over the state, in order of ids.
//!
//! The file's records are noted as slips of fixed size and sorted outside of memory, so that file and state can be read side by side.
//! Nothing is written but unnamed temporary files.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::PathBuf;

use thiserror::Error;

use super::lookalikes::Lookalikes;
use super::settling::Settlements;
use super::slip::{MISSING, SLIP, Slip, Tag, missing_from_bytes, missing_to_bytes};
use crate::account::UserId;
use crate::guard::Filled;
use crate::plan::{Counts, Due, Held, Id, Missing, Op, Ops, Planned, Profile};
use crate::roster::{Malformed, Roster, RosterError, View};
use crate::spill::{Pile, Sorted, Sorter};
use crate::state::{Input, State, StateError};

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
    Spill {
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
    /// Accounts of the state that were looked at.
    LookedAt(u64),
    /// Bytes of the file that were read again, for what looks like a missing id.
    Compared(u64),
}

/// Where temporary files go, and who is told how far it is.
#[expect(missing_debug_implementations, reason = "it holds a closure")]
pub struct Survey<'a> {
    pub folder: PathBuf,
    /// Told of each step; may stop the planning.
    pub tell: &'a mut dyn FnMut(Step) -> ControlFlow<()>,
}

impl Survey<'_> {
    pub(super) fn spill(&self) -> impl Fn(io::Error) -> PlanError + use<> {
        let folder = self.folder.clone();
        move |source| PlanError::Spill { folder: folder.clone(), source }
    }

    pub(super) fn pile<const N: usize>(&self) -> Result<Pile<N>, PlanError> {
        tempfile::tempfile_in(&self.folder).map(Pile::new).map_err(self.spill())
    }
}

/// A file that was read.
#[derive(Debug)]
pub struct Surveyed {
    slips: Sorted<SLIP>,
    ops: Ops,
    filled: Filled,
    malformed: Option<MalformedRecords>,
    input: Input,
}

/// Records whose UserID can't be read for certain: whoever is in them may count as missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MalformedRecords {
    pub records: u64,
    /// Where the first of them is, and what is wrong with it.
    pub first: String,
}

impl MalformedRecords {
    fn count(found: &mut Option<Self>, view: &View, why: Malformed) {
        let first = || format!("row {} (line {}): {why}", view.row, view.line);
        found.get_or_insert_with(|| Self { records: 0, first: first() }).records += 1;
    }
}

/// Reads the whole file.
///
/// # Errors
/// [`PlanError`] for a file that can't be read to its end, or a full disk.
pub fn survey(roster: &mut Roster<impl Read>, stat: crate::input::Fingerprint, survey: &mut Survey) -> Result<Surveyed, PlanError> {
    let cannot = survey.spill();
    let folder = survey.folder.clone();
    let mut sorter = Sorter::new(Box::new(move || tempfile::tempfile_in(&folder)));
    let (mut ops, mut filled, mut malformed) = (Ops::default(), Filled::default(), None);
    while let Some(view) = roster.next_view() {
        let view = view?;
        let (tag, profile) = match &view.account {
            Ok(account) => {
                filled.count(account.nick.is_some(), account.face_url.is_some());
                (Tag::Valid, Profile::of(account.nick, account.face_url))
            }
            Err(_) => (Tag::Invalid, Profile::default()),
        };
        if let Some(why) = view.malformed() {
            MalformedRecords::count(&mut malformed, &view, why);
        }
        ops.push(if tag == Tag::Valid { Op::Unchanged } else { Op::Invalid });
        if tag == Tag::Valid || UserId::check(view.user_id).is_ok() {
            let slip = Slip { id: Id::new(view.user_id), row: view.row, tag, profile };
            sorter.push(slip.to_bytes()).map_err(&cannot)?;
        }
        if view.row.is_multiple_of(TELL_EVERY) && (survey.tell)(Step::Read(view.end.offset)).is_break() {
            return Err(PlanError::Stopped);
        }
    }
    let end = roster.at();
    let input = Input { len: end.offset, digest: end.digest, stat };
    Ok(Surveyed { slips: sorter.finish().map_err(&cannot)?, ops, filled, malformed, input })
}

/// What is to be done about accounts that the file lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    Report,
    Kick,
    Delete,
}

/// What the plan hangs on besides file and state.
#[expect(missing_debug_implementations, reason = "it holds a closure")]
pub struct Policy<'a> {
    pub absence: Absence,
    /// Finished runs in a row in which an id must be missing before anything is done about it.
    pub missing_runs: u32,
    /// What must lie between the starts of two runs that count for the missing, in milliseconds.
    pub missing_apart: i64,
    pub malformed: Trust,
    pub lookalikes: Trust,
    pub is_protected: &'a dyn Fn(&str) -> bool,
    pub canaries: Vec<Id>,
    /// When the run began, in milliseconds since the epoch.
    pub now: i64,
}

/// Whether a file is believed that some id is missing though something speaks against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    No,
    /// The caller says so.
    Allowed,
}

/// A plan. It stands in temporary files until the state takes it.
#[derive(Debug)]
pub struct Drawn {
    pub ops: Ops,
    pub counts: Counts,
    pub filled: Filled,
    /// The last finished run's.
    pub filled_before: Option<Filled>,
    pub distinct: u64,
    pub held: u64,
    /// Accounts of those that are held that have a valid record.
    pub present: u64,
    /// Ids that are due for a kick or deletion.
    pub due: u64,
    pub malformed: Option<MalformedRecords>,
    pub lookalikes: Lookalikes,
    pub dead_canaries: Vec<Id>,
    pub input: Input,
    pub(super) planned: Pile<SLIP>,
    pub(super) missing: Pile<MISSING>,
}

impl Drawn {
    /// What is missing, in order of ids.
    ///
    /// # Errors
    /// The disk's.
    pub fn missing(&mut self) -> io::Result<impl Iterator<Item = io::Result<Missing>>> {
        Ok(self.missing.read()?.map(|bytes| bytes.map(|bytes| missing_from_bytes(&bytes))))
    }

    /// What is sent and who has come back, what is missing, both in order of ids, and what becomes of each row: for the state.
    ///
    /// # Errors
    /// The disk's.
    pub fn lists(&mut self) -> io::Result<(impl Iterator<Item = io::Result<Planned>>, impl Iterator<Item = io::Result<Missing>>, &Ops)> {
        let Self { planned, missing, ops, .. } = self;
        let planned = planned.read()?.map(|bytes| bytes.map(|bytes| Slip::from_bytes(&bytes).planned()));
        let missing = missing.read()?.map(|bytes| bytes.map(|bytes| missing_from_bytes(&bytes)));
        Ok((planned, missing, ops))
    }
}

/// Draws up the plan: `state` is what is held, `None` for nothing, and `settlements` what an unfinished run has left to it.
///
/// # Errors
/// [`PlanError`] for a state that can't be read, or a full disk.
pub fn draw_up(
    surveyed: Surveyed,
    state: Option<&State>,
    settlements: Settlements,
    policy: &Policy,
    survey: &mut Survey,
) -> Result<Drawn, PlanError> {
    let last = state.map(State::last_finished).transpose()?.flatten();
    let Surveyed { slips, ops, filled, malformed, input } = surveyed;
    let cannot = survey.spill();
    let mut pen = Pen {
        drawn: Drawn {
            ops,
            counts: Counts::default(),
            filled,
            filled_before: last.as_ref().map(|last| last.filled),
            distinct: 0,
            held: 0,
            present: 0,
            due: 0,
            malformed,
            lookalikes: Lookalikes::default(),
            dead_canaries: Vec::new(),
            input,
            planned: survey.pile()?,
            missing: survey.pile()?,
        },
        groups: Groups::new(slips).map_err(&cannot)?,
        next: None,
        canaries: policy.canaries.iter().copied().collect(),
        policy,
        last_began_at: last.map(|last| last.began_at),
    };
    pen.advance().map_err(&cannot)?;
    if let Some(state) = state {
        walk(state, settlements, &mut pen, survey)?;
    }
    pen.finish().map_err(&cannot)
}

/// Shows the pen every account that is held.
fn walk(state: &State, settlements: Settlements, pen: &mut Pen, survey: &mut Survey) -> Result<(), PlanError> {
    let (mut accounts, mut is_stopped) = (0_u64, false);
    let walked = state.each_held(settlements, |id, held| {
        accounts += 1;
        if accounts.is_multiple_of(TELL_EVERY) && (survey.tell)(Step::LookedAt(accounts)).is_break() {
            is_stopped = true;
            return Err(io::ErrorKind::Interrupted.into());
        }
        pen.held(id, held)
    });
    if is_stopped { Err(PlanError::Stopped) } else { Ok(walked?) }
}

/// The slips of one id after the other.
struct Groups {
    slips: Sorted<SLIP>,
    /// The first slip of the next id.
    first: Option<Slip>,
}

impl Groups {
    fn new(slips: Sorted<SLIP>) -> io::Result<Self> {
        let mut groups = Self { slips, first: None };
        groups.first = groups.slip()?;
        Ok(groups)
    }

    fn slip(&mut self) -> io::Result<Option<Slip>> {
        Ok(self.slips.next().transpose()?.map(|bytes| Slip::from_bytes(&bytes)))
    }

    /// The last slip of the next id; earlier ones are superseded.
    fn next(&mut self, ops: &mut Ops) -> io::Result<Option<Slip>> {
        let Some(mut last) = self.first.take() else { return Ok(None) };
        while let Some(slip) = self.slip()? {
            if slip.id != last.id {
                self.first = Some(slip);
                break;
            }
            ops.set(last.row, Op::Superseded);
            last = slip;
        }
        Ok(Some(last))
    }
}

/// Writes the plan, id by id.
struct Pen<'a> {
    drawn: Drawn,
    groups: Groups,
    next: Option<Slip>,
    canaries: BTreeSet<Id>,
    policy: &'a Policy<'a>,
    /// The last finished run's.
    last_began_at: Option<i64>,
}

impl Pen<'_> {
    fn advance(&mut self) -> io::Result<()> {
        self.next = self.groups.next(&mut self.drawn.ops)?;
        Ok(())
    }

    /// The next account that is held.
    fn held(&mut self, id: &[u8], held: &Held) -> io::Result<()> {
        self.drawn.held += u64::from(held.missing_runs == 0);
        let id = Id::new(id);
        while let Some(slip) = &self.next {
            let (slip, order) = (*slip, slip.id.cmp(&id));
            match order {
                Ordering::Less => self.decide(slip, None)?,
                Ordering::Equal => self.decide(slip, Some(held))?,
                Ordering::Greater => break,
            }
            self.advance()?;
            if order == Ordering::Equal {
                return Ok(());
            }
        }
        self.miss(id, held)
    }

    fn finish(mut self) -> io::Result<Drawn> {
        while let Some(slip) = self.next {
            self.decide(slip, None)?;
            self.advance()?;
        }
        let mut drawn = self.drawn;
        for row in 1..=drawn.ops.rows() {
            drawn.counts.count(drawn.ops.get(row));
        }
        drawn.counts.missing = drawn.missing.len();
        drawn.dead_canaries = self.canaries.into_iter().collect();
        Ok(drawn)
    }

    fn decide(&mut self, slip: Slip, held: Option<&Held>) -> io::Result<()> {
        let mut op = Op::Unchanged;
        if slip.tag == Tag::Valid {
            self.drawn.distinct += 1;
            self.drawn.present += u64::from(held.is_some_and(|held| held.missing_runs == 0));
            if !self.canaries.is_empty() {
                self.canaries.remove(&slip.id);
            }
            op = Op::decide(slip.profile, held);
            // It was pushed as unchanged, and rows come here in no order: most needn't be touched.
            if op != Op::Unchanged {
                self.drawn.ops.set(slip.row, op);
            }
        }
        let tag = match (op.is_sent(), held.is_some_and(|held| held.missing_runs > 0 || held.is_kicked)) {
            (false, false) => return Ok(()),
            (true, false) => Tag::Sent,
            (false, true) => Tag::Back,
            (true, true) => Tag::SentBack,
        };
        self.drawn.planned.push(&Slip { tag, ..slip }.to_bytes())
    }

    fn miss(&mut self, id: Id, held: &Held) -> io::Result<()> {
        let missing_runs = self.missing_runs(held);
        let due = self.due(&id, held, missing_runs);
        self.drawn.due += u64::from(matches!(due, Due::Kick | Due::Delete));
        let missing = Missing { id, last_imported: held.last_imported, missing_runs, due, lookalike: None };
        self.drawn.missing.push(&missing_to_bytes(&missing))
    }

    /// This run included, if it is far enough from the one that raised the number last. A clock that went back raises nothing.
    fn missing_runs(&self, held: &Held) -> u32 {
        let raised_at = held.raised_at.or(self.last_began_at);
        let is_apart = raised_at.is_none_or(|at| self.policy.now >= at && self.policy.now - at >= self.policy.missing_apart);
        if held.missing_runs == 0 || is_apart { held.missing_runs.saturating_add(1) } else { held.missing_runs }
    }

    fn due(&self, id: &Id, held: &Held, missing_runs: u32) -> Due {
        let due = match self.policy.absence {
            Absence::Report => Due::Nothing,
            _ if missing_runs < self.policy.missing_runs => Due::Nothing,
            // They wait, so nobody has judged how many there are.
            _ if self.drawn.malformed.is_some() && self.policy.malformed == Trust::No => Due::Nothing,
            Absence::Kick if held.is_kicked => Due::Nothing,
            Absence::Kick => Due::Kick,
            Absence::Delete => Due::Delete,
        };
        if due != Due::Nothing && (self.policy.is_protected)(id.as_str()) { Due::Protected } else { due }
    }
}

/// Opens an unnamed temporary file in `folder`.
pub(super) fn spill_in(folder: PathBuf) -> Box<dyn FnMut() -> io::Result<File> + Send> {
    Box::new(move || tempfile::tempfile_in(&folder))
}
