//! Finds the records that look like missing ids: a second pass over the file, in memory that grows with neither side.
//!
//! Both sides are compared by a hash of their normal form. A filter of fixed size lets few records through; these and the missing ids are
//! sorted outside of memory and read side by side. If no account is missing, nothing is read.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::iter::Peekable;

use super::missing_rules::MissingTrust;
use super::plan_draft::PlanDraft;
use super::planning::{PlanError, Policy, Scratch, Step, TELL_EVERY};
use super::record_digest::{MISSING_BYTES, missing_to_bytes};
use crate::domain::account::USER_ID_MAX_BYTES as ID;
use crate::domain::change::{MissingAccount, Op, PaddedId, PlannedAction};
use crate::domain::lookalike::{Lookalike, Normalizer};
use crate::io::extsort::{ExternalSorter, ScratchList, Sorted, take};
use crate::io::roster::Roster;

/// Bits of the filter for each missing id, and the most there are: 4 MiB. Chosen: a million missing ids then let 1 record in 300 through.
const FILTER_BITS_EACH: u64 = 16;
const FILTER_BITS_MAX: u64 = 1 << 25;
/// Places of oddities that are told. Source: the contract of the input.
const PLACES: usize = 3;

/// Bytes of a missing id behind the hash of its form, of a record, and of a match.
const KEY: usize = 16 + ID;
const CELL: usize = 16 + 8 + 8 + 1;
const MATCH: usize = ID + 8 + 8;

/// What the comparison came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lookalikes {
    /// Missing ids that are spared because of it.
    pub spared: u64,
    /// Records that are to be created and look like a missing id.
    pub creates: u64,
    /// The first of these.
    pub first_creates: Vec<Lookalike>,
}

/// Compares what the plan has for missing with every record of the file, valid or not: what looks like one is not touched. `roster` stands
/// at the start of the file.
///
/// # Errors
/// [`PlanError`]; [`PlanError::Modified`] where the file is not what was planned.
pub fn compare(draft: &mut PlanDraft, roster: &mut Roster<impl Read>, policy: &Policy, scratch: &mut Scratch) -> Result<(), PlanError> {
    if draft.missing.is_empty() {
        return Ok(());
    }
    let cannot = scratch.cannot_write();
    let mut normalizer = Normalizer::default();
    let mut filter = Filter::of(draft.missing.len());
    let mut keys = ExternalSorter::<KEY>::in_folder(&scratch.folder);
    for missing in draft.missing().map_err(&cannot)? {
        let id = missing.map_err(&cannot)?.id;
        let hash = normalizer.hash(id.as_bytes());
        filter.insert(hash);
        keys.push(key_to_bytes(hash, &id)).map_err(&cannot)?;
    }
    let cells = read(draft, roster, (&filter, normalizer), scratch)?;
    let keys = keys.finish().map_err(&cannot)?;
    let mut matches = ExternalSorter::<MATCH>::in_folder(&scratch.folder);
    let found = join(keys, cells, |id, lookalike| matches.push(match_to_bytes(&id, lookalike))).map_err(&cannot)?;
    draft.lookalikes = found;
    let mut missing = scratch.list()?;
    spare_lookalikes(draft, matches.finish().map_err(&cannot)?, policy, &mut missing).map_err(&cannot)?;
    draft.missing = missing;
    Ok(())
}

/// The records that may look like something missing, in order of their hashes.
fn read(
    draft: &PlanDraft,
    roster: &mut Roster<impl Read>,
    (filter, mut normalizer): (&Filter, Normalizer),
    scratch: &mut Scratch,
) -> Result<Sorted<CELL>, PlanError> {
    let cannot = scratch.cannot_write();
    let mut cells = ExternalSorter::<CELL>::in_folder(&scratch.folder);
    while let Some(view) = roster.next_view() {
        let view = view?;
        let hash = normalizer.hash(view.user_id);
        if filter.may_hold(hash) {
            let place = Lookalike { row: view.row, line: view.line };
            cells.push(cell_to_bytes(hash, place, draft.ops.get(view.row))).map_err(&cannot)?;
        }
        if view.row.is_multiple_of(TELL_EVERY) && (scratch.tell)(Step::Compared(view.end.offset)).is_break() {
            return Err(PlanError::Stopped);
        }
    }
    let end = roster.at();
    if (end.offset, end.digest) != (draft.input.len, draft.input.digest) {
        return Err(PlanError::Modified);
    }
    cells.finish().map_err(&cannot)
}

/// Shows `matched` each missing id with the first record that has its form.
fn join(keys: Sorted<KEY>, cells: Sorted<CELL>, mut matched: impl FnMut(PaddedId, Lookalike) -> io::Result<()>) -> io::Result<Lookalikes> {
    let mut cells = cells.peekable();
    let (mut creates, mut first_creates) = (0, BTreeSet::new());
    // The last hash that was looked for, and its first record.
    let mut last: (u128, Option<Lookalike>) = (0, None);
    for key in keys {
        let (hash, id) = key_from_bytes(&key?);
        if last.0 != hash {
            last = (hash, None);
            while let Some((place, is_create)) = next_of(&mut cells, hash)? {
                last.1 = last.1.or(Some(place));
                if is_create {
                    creates += 1;
                    first_creates.insert(place);
                    if first_creates.len() > PLACES {
                        first_creates.pop_last();
                    }
                }
            }
        }
        if let (_, Some(place)) = last {
            matched(id, place)?;
        }
    }
    Ok(Lookalikes { spared: 0, creates, first_creates: first_creates.into_iter().collect() })
}

/// The next record of this hash; those of lower ones are passed over.
fn next_of(cells: &mut Peekable<Sorted<CELL>>, hash: u128) -> io::Result<Option<(Lookalike, bool)>> {
    while let Some(cell) = cells.next_if(|cell| cell.as_ref().map_or(true, |cell| cell_from_bytes(cell).0 <= hash)) {
        let (found, place, is_create) = cell_from_bytes(&cell?);
        if found == hash {
            return Ok(Some((place, is_create)));
        }
    }
    Ok(None)
}

/// Writes the list of missing accounts once more, with those spared that look like a record.
fn spare_lookalikes(
    draft: &mut PlanDraft,
    matches: Sorted<MATCH>,
    policy: &Policy,
    into: &mut ScratchList<MISSING_BYTES>,
) -> io::Result<()> {
    let mut matches = matches.peekable();
    let (mut due, mut spared) = (draft.due, 0);
    for missing in draft.missing()? {
        let missing = missing?;
        let is_next = |found: &io::Result<[u8; MATCH]>| found.as_ref().map_or(true, |bytes| match_from_bytes(bytes).0 == missing.id);
        let Some(found) = matches.next_if(is_next) else {
            into.push(&missing_to_bytes(&missing))?;
            continue;
        };
        let lookalike = Some(match_from_bytes(&found?).1);
        let action = planned_for_lookalike(&missing, policy);
        due -= u64::from(matches!(missing.due, PlannedAction::Kick | PlannedAction::Delete) && action != missing.due);
        spared += u64::from(action == PlannedAction::Lookalike);
        into.push(&missing_to_bytes(&MissingAccount { due: action, lookalike, ..missing }))?;
    }
    (draft.due, draft.lookalikes.spared) = (due, spared);
    Ok(())
}

/// What is to be done about a missing account that looks like a record.
fn planned_for_lookalike(missing: &MissingAccount, policy: &Policy) -> PlannedAction {
    match policy.missing.lookalikes {
        MissingTrust::Allowed => missing.due,
        MissingTrust::No if policy.missing.protects(&missing.id) => PlannedAction::Protected,
        MissingTrust::No => PlannedAction::Lookalike,
    }
}

/// Says of a hash that it was not inserted, or that it may have been.
struct Filter {
    words: Vec<u64>,
    mask: u64,
}

impl Filter {
    fn of(hashes: u64) -> Self {
        let bits = hashes.saturating_mul(FILTER_BITS_EACH).clamp(64, FILTER_BITS_MAX).next_power_of_two();
        Self { words: vec![0; usize::try_from(bits / 64).unwrap_or(1)], mask: bits - 1 }
    }

    /// Two bits, from two parts of the hash.
    #[expect(clippy::cast_possible_truncation, reason = "parts of it are what is wanted, and the filter is small")]
    const fn places(&self, hash: u128) -> [(usize, u64); 2] {
        let [one, other] = [hash as u64 & self.mask, (hash >> 64) as u64 & self.mask];
        [((one / 64) as usize, 1 << (one % 64)), ((other / 64) as usize, 1 << (other % 64))]
    }

    fn insert(&mut self, hash: u128) {
        for (word, bit) in self.places(hash) {
            self.words[word] |= bit;
        }
    }

    fn may_hold(&self, hash: u128) -> bool {
        self.places(hash).iter().all(|(word, bit)| self.words[*word] & bit != 0)
    }
}

fn key_to_bytes(hash: u128, id: &PaddedId) -> [u8; KEY] {
    let mut bytes = [0; KEY];
    bytes[..16].copy_from_slice(&hash.to_be_bytes());
    bytes[16..].copy_from_slice(id.padded());
    bytes
}

fn key_from_bytes(bytes: &[u8; KEY]) -> (u128, PaddedId) {
    let mut rest = bytes.as_slice();
    (u128::from_be_bytes(take(&mut rest)), PaddedId::from_padded(take(&mut rest)))
}

fn cell_to_bytes(hash: u128, Lookalike { row, line }: Lookalike, op: Op) -> [u8; CELL] {
    let mut bytes = [0; CELL];
    bytes[..16].copy_from_slice(&hash.to_be_bytes());
    bytes[16..24].copy_from_slice(&row.to_be_bytes());
    bytes[24..32].copy_from_slice(&line.to_be_bytes());
    bytes[32] = u8::from(op == Op::Create);
    bytes
}

fn cell_from_bytes(bytes: &[u8; CELL]) -> (u128, Lookalike, bool) {
    let mut rest = bytes.as_slice();
    let (hash, row, line) = (u128::from_be_bytes(take(&mut rest)), take(&mut rest), take(&mut rest));
    (hash, Lookalike { row: u64::from_be_bytes(row), line: u64::from_be_bytes(line) }, take(&mut rest) == [1])
}

fn match_to_bytes(id: &PaddedId, Lookalike { row, line }: Lookalike) -> [u8; MATCH] {
    let mut bytes = [0; MATCH];
    bytes[..ID].copy_from_slice(id.padded());
    bytes[ID..ID + 8].copy_from_slice(&row.to_be_bytes());
    bytes[ID + 8..].copy_from_slice(&line.to_be_bytes());
    bytes
}

fn match_from_bytes(bytes: &[u8; MATCH]) -> (PaddedId, Lookalike) {
    let mut rest = bytes.as_slice();
    let (id, row, line) = (take(&mut rest), take(&mut rest), take(&mut rest));
    (PaddedId::from_padded(id), Lookalike { row: u64::from_be_bytes(row), line: u64::from_be_bytes(line) })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::Cursor;
    use std::ops::ControlFlow;

    use proptest::prelude::*;

    use super::super::missing_rules::{MissingPolicy, MissingRules};
    use super::super::planning::build_plan;
    use super::super::scan::scan;
    use super::*;
    use crate::domain::change::{AccountCall, Ops, PlannedAccount, ProfileHashes};
    use crate::domain::known_tags::RecordTags;
    use crate::domain::position::FileStat;
    use crate::domain::target::Target;
    use crate::flow::import::SendOutcomes;
    use crate::io::roster::Format;
    use crate::io::state::{Finish, NewRun, RunInput, SendOutcome, Sent, StateDb};

    const STAT: FileStat = FileStat { len: 0, modified_ns: 0, changed_ns: 0, inode: 0 };

    fn roster(text: &str) -> Roster<Cursor<Vec<u8>>> {
        Roster::new(Cursor::new(text.as_bytes().to_vec()), &Format::default()).unwrap()
    }

    /// A state that holds these ids, which come in order.
    fn holding(ids: &BTreeSet<String>, folder: &std::path::Path) -> StateDb {
        let target = Target { endpoint: "e".to_owned(), sdkappid: 1, api: "v4".to_owned() };
        let mut state = StateDb::open_or_create(&folder.join("state"), &target, 1).unwrap();
        let (ops, input) = (Ops::default(), RunInput { len: 0, digest: 0, stat: STAT });
        let new = NewRun { token: 1, ..NewRun::bare("sync", 1, input, &ops) };
        let id = |id: &String| PaddedId::new(id.as_bytes());
        let planned = (1..).zip(ids).map(|(row, of)| {
            Ok(PlannedAccount {
                id: id(of),
                row,
                sent: Some(AccountCall::Imported),
                is_back: false,
                profile: ProfileHashes::default(),
                tags: RecordTags::default(),
                held_back: RecordTags::default(),
            })
        });
        let open = state.begin(new, planned, std::iter::empty(), std::iter::empty()).unwrap();
        state.record_send_intent(u64::MAX >> 1).unwrap();
        let settled = (1..).zip(ids).map(|(row, of)| Ok(SendOutcome::new(id(of), row, Sent::Taken { at: 2 })));
        state.finish(settled, Finish { run: (open.number, open.token), at: 3, ..Finish::default() }).unwrap();
        state
    }

    /// A missing id, what is due, and the row that looks like it.
    type MissingRow = (String, PlannedAction, Option<u64>);

    /// Each missing id with what is due and what looks like it, and the creates that do.
    fn compared(held: &BTreeSet<String>, text: &str, lookalikes: MissingTrust) -> (Vec<MissingRow>, Lookalikes, u64) {
        let folder = tempfile::tempdir().unwrap();
        let state = holding(held, folder.path());
        let mut scratch = Scratch { folder: folder.path().to_owned(), tell: &mut |_| ControlFlow::Continue(()) };
        let (policy, malformed) = (MissingPolicy::Delete, MissingTrust::Allowed);
        let missing = MissingRules { policy, runs_until_due: 1, malformed, lookalikes, ..MissingRules::report() };
        let policy = Policy { missing, canaries: Vec::new(), now: 9 };
        let scan = scan(&mut roster(text), STAT, &mut scratch).unwrap();
        let mut draft = build_plan(scan, Some(&state), SendOutcomes::none(), &policy, &mut scratch).unwrap();
        compare(&mut draft, &mut roster(text), &policy, &mut scratch).unwrap();
        let missing = draft.missing().unwrap().map(Result::unwrap);
        let missing =
            missing.map(|missing| (missing.id.as_str().to_owned(), missing.due, missing.lookalike.map(|found| found.row))).collect();
        (missing, draft.lookalikes.clone(), draft.due)
    }

    fn set(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    #[test]
    fn each_missing_id_is_found_under_every_look_and_the_first_row_is_told() {
        let text = "UserID,Nick\nhere,\nGONE2 ,\nUSER,\nUser,\n00007,\nragged\n";
        let (missing, lookalikes, due) = compared(&set(&["7", "gone", "here", "ragged", "uSER", "user"]), text, MissingTrust::No);
        let told = |id: &str, due, row| (id.to_owned(), due, row);
        let expected = [
            told("7", PlannedAction::Lookalike, Some(5)),
            told("gone", PlannedAction::Delete, None),
            told("uSER", PlannedAction::Lookalike, Some(3)),
            told("user", PlannedAction::Lookalike, Some(3)),
        ];
        assert_eq!((missing.as_slice(), due, lookalikes.spared), (&expected[..], 1, 3));
        let creates: Vec<u64> = lookalikes.first_creates.iter().map(|create| create.row).collect();
        assert_eq!((lookalikes.creates, creates), (3, vec![3, 4, 5]));
    }

    #[test]
    fn what_is_allowed_is_told_and_stays_due() {
        let (missing, lookalikes, due) = compared(&set(&["user"]), "UserID\nUSER\n", MissingTrust::Allowed);
        assert_eq!((missing, due, lookalikes.spared), (vec![("user".to_owned(), PlannedAction::Delete, Some(1))], 1, 0));
    }

    #[test]
    fn a_file_that_is_not_the_same_the_second_time_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let state = holding(&set(&["gone"]), folder.path());
        let mut scratch = Scratch { folder: folder.path().to_owned(), tell: &mut |_| ControlFlow::Continue(()) };
        let policy = Policy { missing: MissingRules::report(), canaries: Vec::new(), now: 9 };
        let scan = scan(&mut roster("UserID\na\nb\n"), STAT, &mut scratch).unwrap();
        let mut draft = build_plan(scan, Some(&state), SendOutcomes::none(), &policy, &mut scratch).unwrap();
        for changed in ["UserID\na\nc\n", "UserID\na\n", "UserID\na\nb\nc\n"] {
            let compared = compare(&mut draft, &mut roster(changed), &policy, &mut scratch);
            assert!(matches!(compared, Err(PlanError::Modified)), "{changed:?}");
        }
        compare(&mut draft, &mut roster("UserID\na\nb\n"), &policy, &mut scratch).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// Ids of few letters, so that many look alike.
        #[test]
        fn what_is_found_is_what_comparing_each_with_each_finds(
            held in proptest::collection::btree_set("[aA0]{1,3}", 0..12),
            file in proptest::collection::vec("[ ']{0,1}[aA0]{1,3}[ ]{0,1}", 0..12),
        ) {
            let text = file.iter().fold("UserID,Nick\n".to_owned(), |text, cell| text + cell + ",n\n");
            let form = |cell: &str| Normalizer::default().form(cell.as_bytes()).to_owned();
            let first = |id: &str| file.iter().position(|cell| form(cell) == form(id)).map(|at| at as u64 + 1);
            let missing = held.iter().filter(|id| !file.contains(id));
            let expected: Vec<_> = missing
                .map(|id| (id.clone(), if first(id).is_some() { PlannedAction::Lookalike } else { PlannedAction::Delete }, first(id)))
                .collect();
            let (found, lookalikes, due) = compared(&held, &text, MissingTrust::No);
            prop_assert_eq!(lookalikes.spared + due, found.len() as u64);
            prop_assert_eq!(found, expected);
        }
    }
}
