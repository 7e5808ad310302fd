//! What a sync does with each record, and how that is kept: half a byte a record, or more where several tags are read.

use std::collections::HashMap;

use super::known_account::{AccountCall, InDoubt, KnownAccount, ProfileHashes};
use super::known_tags::{TAGS_MAX, TagSet};
use super::profile::{FieldSet, ProfileField};

/// The plan's decision about a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Unchanged,
    Create,
    /// Something differs or is in doubt.
    Update(Update),
    /// A later record has the same UserID.
    Superseded,
    Invalid,
}

/// What is sent of a record whose account is known, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Update {
    /// Fields of the import that differ.
    pub fields: FieldSet,
    /// Tags that differ. If these are none, and neither are the fields, something is only in doubt.
    pub differing: TagSet,
    /// Tags that are sent: those that differ, and those in doubt that the record has a value for.
    pub tags: TagSet,
    pub account: AccountCall,
    /// What of the account is in doubt besides tags. Only whoever has planned knows it.
    pub in_doubt: InDoubt,
}

/// How the tags of a record compare with those of its account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TagComparison {
    /// Those that the record has a value for.
    pub present: TagSet,
    /// Those of them that differ; one that was never sent does.
    pub differing: TagSet,
    /// Those of them that are in doubt.
    pub in_doubt: TagSet,
}

impl Update {
    /// An import, without tags.
    #[must_use]
    pub const fn of_fields(fields: FieldSet) -> Self {
        Self { fields, differing: TagSet::NONE, tags: TagSet::NONE, account: AccountCall::Imported, in_doubt: InDoubt::NOTHING }
    }
}

impl Op {
    /// Compares the hashes of a valid record with those of its known account, and decides what is sent. An empty cell changes nothing. A tag in doubt that the record says
    /// nothing about is no reason for a request, since no request would settle it; it stays in doubt until a value is sent.
    #[inline]
    #[must_use]
    pub fn by_comparison(wanted: ProfileHashes, tags: TagComparison, held: Option<&KnownAccount>) -> Self {
        let Some(held) = held.filter(|held| held.is_there()) else { return Op::Create };
        let fields = FieldSet::of(|field| wanted[field].is_some() && wanted[field] != held.profile[field]);
        let has_tags = !tags.differing.is_empty() || !tags.in_doubt.is_empty();
        if fields.is_empty() && held.in_doubt.is_nothing() && !has_tags {
            return Op::Unchanged;
        }
        // An import may create the account anew, without any tag.
        let may_be_new = held.in_doubt.has(InDoubt::DELETION) || held.in_doubt.has(InDoubt::EXISTENCE);
        let TagComparison { present, differing, in_doubt } = tags;
        let tags = if may_be_new { present } else { TagSet::from_bits(differing.bits() | in_doubt.bits()) };
        let account = if fields.is_empty() && held.in_doubt.is_nothing() { AccountCall::Left } else { AccountCall::Imported };
        Op::Update(Update { fields, differing, tags, account, in_doubt: held.in_doubt })
    }

    /// Whether a request is sent for it.
    #[must_use]
    pub const fn is_sent(self) -> bool {
        matches!(self, Op::Create | Op::Update(_))
    }

    /// The word in the plan file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Op::Unchanged => "unchanged",
            Op::Create => "create",
            Op::Update(_) => "update",
            Op::Superseded => "superseded",
            Op::Invalid => "invalid",
        }
    }

    /// Whether its account is imported.
    #[must_use]
    pub const fn imports(self) -> bool {
        matches!(self, Op::Create | Op::Update(Update { account: AccountCall::Imported, .. }))
    }

    /// The tags that are sent, of those that the record has.
    #[must_use]
    pub const fn tags(self) -> TagSet {
        match self {
            Op::Create => TagSet::from_bits(u64::MAX),
            Op::Update(update) => update.tags,
            Op::Unchanged | Op::Superseded | Op::Invalid => TagSet::NONE,
        }
    }
}

const _: () = assert!(TAGS_MAX == u64::BITS as usize, "all tags are all bits of a set");

/// The code of an import is this plus the bits of the fields that differ. States of version 2 know these codes; they must never change.
const UPDATE: u32 = 4;
/// Codes from here on are those of [`Ops::kinds`], in their order.
const KINDS: u32 = UPDATE + (1 << ProfileField::ALL.len());
const _: () = assert!(KINDS <= 16, "half a byte has no room for so many fields");

/// The decision for each row. Decisions that carry tags are few kinds, mostly: each kind has a code, and codes are as long as their number
/// makes them: half a byte, one, two or four.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ops {
    codes: Vec<u8>,
    /// Bits of a code.
    width: u32,
    rows: u64,
    /// Updates that carry tags.
    kinds: Vec<Update>,
    codes_of_kinds: HashMap<Update, u32>,
}

impl Default for Ops {
    fn default() -> Self {
        Self { codes: Vec::new(), width: width(0), rows: 0, kinds: Vec::new(), codes_of_kinds: HashMap::new() }
    }
}

/// Bits of a code if there are so many kinds.
const fn width(kinds: usize) -> u32 {
    match kinds as u64 + KINDS as u64 {
        0..=0x10 => 4,
        0x11..=0x100 => 8,
        0x101..=0x1_0000 => 16,
        0x1_0001.. => 32,
    }
}

impl Ops {
    /// Appends the decision for the next row.
    #[inline]
    pub fn push(&mut self, op: Op) {
        let code = self.code(op);
        self.rows += 1;
        let bytes = usize::try_from((self.rows * u64::from(self.width)).div_ceil(8)).unwrap_or(usize::MAX);
        if bytes > self.codes.len() {
            self.codes.extend_from_slice(&[0; 4][..bytes - self.codes.len()]);
        }
        put(&mut self.codes, self.width, self.rows, code);
    }

    /// Sets the decision for a row (counted from 1) that was pushed before.
    pub fn set(&mut self, row: u64, op: Op) {
        let code = self.code(op);
        put(&mut self.codes, self.width, row, code);
    }

    /// The decision for a row; [`Op::Unchanged`] behind the last one.
    #[inline]
    #[must_use]
    pub fn get(&self, row: u64) -> Op {
        let code = get(&self.codes, self.width, row);
        match code {
            0 => Op::Unchanged,
            1 => Op::Create,
            2 => Op::Superseded,
            3 => Op::Invalid,
            UPDATE..KINDS => {
                let [fields, ..] = (code - UPDATE).to_le_bytes();
                Op::Update(Update::of_fields(FieldSet::from_bits(fields)))
            }
            // What no state has written is sent, for nobody knows whether it is needed.
            _ => Op::Update(self.kinds.get((code - KINDS) as usize).copied().unwrap_or(Update::of_fields(FieldSet::NONE))),
        }
    }

    /// The number of rows with a decision.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// All codes as bytes, for storage; what they mean depends on the [`Ops::kinds`].
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.codes
    }

    /// The updates that carry tags, for storage.
    #[must_use]
    pub fn kinds(&self) -> &[Update] {
        &self.kinds
    }

    /// The decisions from [`Ops::as_bytes`] and [`Ops::kinds`].
    #[must_use]
    pub fn from_parts(codes: Vec<u8>, rows: u64, kinds: Vec<Update>) -> Self {
        let codes_of_kinds = kinds.iter().copied().zip(KINDS..).collect();
        Self { codes, width: width(kinds.len()), rows, kinds, codes_of_kinds }
    }

    #[inline]
    fn code(&mut self, op: Op) -> u32 {
        match op {
            Op::Unchanged => 0,
            Op::Create => 1,
            Op::Superseded => 2,
            Op::Invalid => 3,
            Op::Update(update) if update == Update::of_fields(update.fields) => UPDATE + u32::from(update.fields.bits()),
            Op::Update(update) => self.code_of_kind(update),
        }
    }

    fn code_of_kind(&mut self, update: Update) -> u32 {
        if let Some(code) = self.codes_of_kinds.get(&update) {
            return *code;
        }
        // A row has one kind at most, and more rows than this do not fit into memory.
        let code = KINDS.saturating_add(u32::try_from(self.kinds.len()).unwrap_or(u32::MAX));
        self.kinds.push(update);
        self.codes_of_kinds.insert(update, code);
        self.widen(width(self.kinds.len()));
        code
    }

    /// Makes room for longer codes.
    fn widen(&mut self, to: u32) {
        if to == self.width {
            return;
        }
        let bytes = usize::try_from((self.rows * u64::from(to)).div_ceil(8)).unwrap_or(usize::MAX);
        let mut wider = vec![0; bytes];
        (1..=self.rows).for_each(|row| put(&mut wider, to, row, get(&self.codes, self.width, row)));
        (self.codes, self.width) = (wider, to);
    }
}

/// The code of a row; 0 behind the last one.
#[inline]
fn get(codes: &[u8], width: u32, row: u64) -> u32 {
    let index = usize::try_from(row.saturating_sub(1)).unwrap_or(usize::MAX);
    match width {
        4 => codes.get(index / 2).map_or(0, |pair| u32::from(pair >> shift(index) & 0xf)),
        8 => codes.get(index).map_or(0, |code| u32::from(*code)),
        16 => codes.as_chunks().0.get(index).map_or(0, |code| u32::from(u16::from_le_bytes(*code))),
        _ => codes.as_chunks().0.get(index).map_or(0, |code| u32::from_le_bytes(*code)),
    }
}

/// Sets the code of a row, if there is the row.
#[inline]
fn put(codes: &mut [u8], width: u32, row: u64, code: u32) {
    let index = usize::try_from(row.saturating_sub(1)).unwrap_or(usize::MAX);
    let [low, second, ..] = code.to_le_bytes();
    match width {
        4 => codes.get_mut(index / 2).map_or((), |pair| *pair = *pair & !(0xf << shift(index)) | low << shift(index)),
        8 => codes.get_mut(index).map_or((), |place| *place = low),
        16 => codes.as_chunks_mut().0.get_mut(index).map_or((), |place| *place = [low, second]),
        _ => codes.as_chunks_mut().0.get_mut(index).map_or((), |place| *place = code.to_le_bytes()),
    }
}

/// The shift of a half byte in its byte.
const fn shift(index: usize) -> u32 {
    if index.is_multiple_of(2) { 0 } else { 4 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::known_tags::{KnownTag, KnownTags, TagHash, TagNumber};

    fn update(nick: bool, face_url: bool) -> Op {
        Op::Update(Update::of_fields(FieldSet::of(|field| if field == ProfileField::Nick { nick } else { face_url })))
    }

    /// Kinds with tags, all of them different.
    fn kind(number: u64) -> Op {
        let tags = TagSet::from_bits(number + 1);
        let account = if number.is_multiple_of(3) { AccountCall::Imported } else { AccountCall::Left };
        Op::Update(Update { fields: FieldSet::NONE, differing: TagSet::NONE, tags, account, in_doubt: InDoubt::NOTHING })
    }

    #[test]
    fn a_decision_takes_half_a_byte() {
        let all = [
            Op::Unchanged,
            Op::Create,
            Op::Superseded,
            Op::Invalid,
            update(false, false),
            update(true, false),
            update(false, true),
            update(true, true),
        ];
        let mut ops = Ops::default();
        for op in all {
            ops.push(op);
        }
        let read = |ops: &Ops| (1..=8).map(|row| ops.get(row)).collect::<Vec<_>>();
        assert_eq!(read(&ops), all);
        // As version 2 has written them.
        assert_eq!(ops.as_bytes(), [0x10, 0x32, 0x54, 0x76]);
        for (row, op) in (1..).zip(all.iter().rev()) {
            ops.set(row, *op);
        }
        assert!(read(&ops).iter().eq(all.iter().rev()));
        assert_eq!(Ops::from_parts(ops.as_bytes().to_vec(), ops.rows(), Vec::new()), ops);
        assert_eq!(ops.get(9), Op::Unchanged);
    }

    #[test]
    fn decisions_stay_what_they_are_while_their_codes_become_longer() {
        for kinds in [1, 8, 9, 248, 249, 65_528, 65_529, 70_000] {
            let mut ops = Ops::default();
            (0..3).for_each(|_| ops.push(Op::Unchanged));
            ops.push(update(true, false));
            (0..kinds).for_each(|number| ops.push(kind(number)));
            ops.push(Op::Invalid);
            ops.set(1, kind(kinds / 2));
            let bits = [4, 8, 16, 32].into_iter().find(|bits| kinds + 8 <= 1 << bits).unwrap();
            assert_eq!((ops.as_bytes().len() as u64, ops.kinds().len() as u64), ((ops.rows() * bits).div_ceil(8), kinds));
            let read = Ops::from_parts(ops.as_bytes().to_vec(), ops.rows(), ops.kinds().to_vec());
            for ops in [&ops, &read] {
                assert_eq!(
                    (ops.get(1), ops.get(2), ops.get(4), ops.get(kinds + 5)),
                    (kind(kinds / 2), Op::Unchanged, update(true, false), Op::Invalid)
                );
                assert!((0..kinds).all(|number| ops.get(number + 5) == kind(number)), "{kinds}");
                assert_eq!(ops.get(kinds + 6), Op::Unchanged);
            }
        }
    }

    fn held(nick: Option<&str>, face_url: Option<&str>) -> KnownAccount {
        KnownAccount { profile: ProfileHashes::of([nick, face_url].into()), last_imported: Some(1), ..KnownAccount::default() }
    }

    #[test]
    fn a_record_is_sent_if_it_changes_something() {
        let check = |wanted: [Option<&str>; 2], held: Option<KnownAccount>, expected: Op| {
            assert_eq!(
                Op::by_comparison(ProfileHashes::of(wanted.into()), TagComparison::default(), held.as_ref()),
                expected,
                "{wanted:?}"
            );
        };
        let known = held(Some("n"), None);
        check([Some("n"), None], None, Op::Create);
        check([Some("n"), None], Some(known.clone()), Op::Unchanged);
        check([None, None], Some(known.clone()), Op::Unchanged);
        check([Some("m"), None], Some(known.clone()), update(true, false));
        check([Some("n"), Some("f")], Some(known.clone()), update(false, true));
        let (nick, face) = (InDoubt::of_field(ProfileField::Nick), InDoubt::of_field(ProfileField::FaceUrl));
        for in_doubt in [nick, face, InDoubt::EXISTENCE, InDoubt::KICK, InDoubt::DELETION] {
            let doubted = Op::Update(Update { in_doubt, ..Update::of_fields(FieldSet::NONE) });
            check([Some("n"), None], Some(KnownAccount { in_doubt, ..known.clone() }), doubted);
        }
        check([Some("n"), None], Some(KnownAccount { last_imported: None, in_doubt: nick, ..known }), Op::Create);
    }

    #[test]
    fn only_what_differs_or_is_in_doubt_is_sent_by_the_call_that_carries_it() {
        let set = |places: &[usize]| places.iter().copied().collect::<TagSet>();
        let check =
            |wanted: &str, [present, differing, in_doubt]: [&[usize]; 3], held: &KnownAccount, expected: Option<(&[usize], bool)>| {
                let tags = TagComparison { present: set(present), differing: set(differing), in_doubt: set(in_doubt) };
                let op = Op::by_comparison(ProfileHashes::of([Some(wanted), None].into()), tags, Some(held));
                let expected = expected.map(|(tags, imports)| (set(tags), imports));
                assert_eq!((op != Op::Unchanged).then(|| (op.tags(), op.imports())), expected, "{tags:?} {held:?}");
            };
        let known = held(Some("n"), None);
        let doubted = KnownTag { number: TagNumber::new(1).unwrap(), hash: TagHash::from_bits(1), in_doubt: true };
        let in_doubt = KnownAccount { tags: std::iter::once(doubted).collect::<KnownTags>(), ..known.clone() };
        check("n", [&[0, 1], &[], &[]], &known, None);
        check("n", [&[0, 1, 2], &[1], &[]], &known, Some((&[1], false)));
        check("m", [&[0, 1, 2], &[1], &[]], &known, Some((&[1], true)));
        check("m", [&[0, 1, 2], &[], &[]], &known, Some((&[], true)));
        check("n", [&[0, 1, 2], &[1], &[2]], &in_doubt, Some((&[1, 2], false)));
        check("n", [&[0, 1, 2], &[], &[2]], &in_doubt, Some((&[2], false)));
        // The record says nothing of the tag that is in doubt, and no import would settle that.
        check("n", [&[0], &[], &[]], &in_doubt, None);
        check("n", [&[0], &[0], &[]], &in_doubt, Some((&[0], false)));
        check("m", [&[0], &[], &[]], &in_doubt, Some((&[], true)));
        // Tags that were taken show that the account is there, also if no import of it is known.
        let taken = KnownTag { in_doubt: false, ..doubted };
        let by_tags = KnownAccount { tags: std::iter::once(taken).collect::<KnownTags>(), ..KnownAccount::default() };
        check("n", [&[0, 1], &[], &[]], &by_tags, Some((&[], true)));
        let all = TagSet::from_bits(u64::MAX).iter().collect::<Vec<_>>();
        check("n", [&[0, 1], &[], &[]], &KnownAccount { in_doubt: InDoubt::EXISTENCE, ..by_tags.clone() }, Some((&all, true)));
        check("n", [&[0, 1], &[], &[]], &KnownAccount { tags: KnownTags::default(), ..by_tags }, Some((&all, true)));
        for doubt in [InDoubt::DELETION, InDoubt::EXISTENCE] {
            check("n", [&[0, 1, 2], &[1], &[]], &KnownAccount { in_doubt: doubt, ..known.clone() }, Some((&[0, 1, 2], true)));
        }
        check("n", [&[0, 1, 2], &[1], &[]], &KnownAccount { in_doubt: InDoubt::KICK, ..known }, Some((&[1], true)));
    }
}
