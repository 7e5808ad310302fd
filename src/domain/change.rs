//! The plan of a sync: what to do with each record, decided by what the state knows about its account.
//!
//! This module holds pure values. `io::state` stores the known accounts, and the roster reads the records.

use std::time::{Duration, SystemTime};

use xxhash_rust::xxh3::xxh3_64;

use crate::domain::account::USER_ID_MAX_BYTES;
use crate::domain::lookalike::Lookalike;
use crate::domain::profile::{FieldSet, PerField, ProfileField};

/// The profile of an account as a hash (XXH3, 64 bits) per field; `None` for a field that is unknown or not given.
pub type ProfileHashes = PerField<Option<u64>>;

/// Length of [`ProfileHashes::to_bytes`] in bytes.
pub const PROFILE_BYTES: usize = 1 + 8 * ProfileField::ALL.len();

impl ProfileHashes {
    /// The hashes of a record's fields.
    #[inline]
    #[must_use]
    pub fn of(said: PerField<Option<&str>>) -> Self {
        Self::new(|field| said[field].map(|text| xxh3_64(text.as_bytes())))
    }

    /// A fixed number of bytes: a bit for each field that is present, then the hashes.
    #[inline]
    #[must_use]
    pub fn to_bytes(self) -> [u8; PROFILE_BYTES] {
        let mut bytes = [0; PROFILE_BYTES];
        bytes[0] = FieldSet::of(|field| self[field].is_some()).bits();
        for ((_, hash), place) in self.iter().zip(bytes[1..].chunks_exact_mut(8)) {
            place.copy_from_slice(&hash.unwrap_or_default().to_be_bytes());
        }
        bytes
    }

    /// The hashes from bytes of [`ProfileHashes::to_bytes`].
    #[inline]
    #[must_use]
    pub fn from_bytes(bytes: &[u8; PROFILE_BYTES]) -> Self {
        let (known, mut hashes) = (FieldSet::from_bits(bytes[0]), bytes[1..].chunks_exact(8));
        Self::new(|field| {
            let hash = hashes.next().and_then(|hash| hash.first_chunk()).copied().map(u64::from_be_bytes);
            hash.filter(|_| known.has(field))
        })
    }

    /// The profile after `sent` was accepted; a field that was not sent keeps its value.
    #[must_use]
    pub fn overlaid(self, sent: ProfileHashes) -> Self {
        Self::new(|field| sent[field].or(self[field]))
    }
}

/// The parts of an account that are in doubt: a request has left, or was about to, and its result is unknown. A set of bits, as the state
/// stores it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InDoubt(u8);

impl InDoubt {
    pub const NOTHING: Self = Self(0);
    /// Whether the account exists: its first import may not have been accepted.
    pub const EXISTENCE: Self = Self(4);
    /// Whether it was kicked.
    pub const KICK: Self = Self(8);
    /// Whether it was deleted.
    pub const DELETION: Self = Self(16);

    #[must_use]
    pub const fn of_field(field: ProfileField) -> Self {
        Self(field.spec().doubt_bit)
    }

    /// The fields that are present in `profile`.
    #[must_use]
    pub fn of_fields(profile: ProfileHashes) -> Self {
        let known = profile.iter().filter(|(_, hash)| hash.is_some());
        known.fold(Self::NOTHING, |all, (field, _)| all.and(Self::of_field(field)))
    }

    /// Everything that is known of an account; its existence if nothing else is known.
    #[must_use]
    pub fn of_all(held: &KnownAccount) -> Self {
        let fields = Self::of_fields(held.profile);
        if fields.is_nothing() || held.last_imported.is_none() { fields.and(Self::EXISTENCE) } else { fields }
    }

    #[must_use]
    pub const fn is_nothing(self) -> bool {
        self.0 == 0
    }

    /// Whether everything in `other` is in doubt.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
}

/// An account as the state knows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KnownAccount {
    pub profile: ProfileHashes,
    /// The last import in milliseconds since the epoch; `None` if no import is known.
    pub last_imported: Option<i64>,
    /// Finished runs in a row whose input had no record of the account.
    pub missing_runs: u32,
    pub in_doubt: InDoubt,
    /// The account was kicked and has not been in an input since.
    pub is_kicked: bool,
    /// The start, in milliseconds since the epoch, of the run that last raised `missing_runs`. `None` if no run has, or an older version
    /// did not record it.
    pub raised_at: Option<i64>,
}

impl KnownAccount {
    /// The account after an import with these fields was accepted at this time. Fields that the import did not carry stay in doubt. If a
    /// deletion may have happened before, the import may have created a new account without them.
    #[must_use]
    pub fn once_taken(before: Option<Self>, sent: ProfileHashes, at: i64) -> Self {
        let KnownAccount { profile, in_doubt, .. } = before.unwrap_or_default();
        let fields = if in_doubt.has(InDoubt::DELETION) { in_doubt.and(InDoubt::of_fields(profile)) } else { in_doubt };
        let settled = InDoubt::of_fields(sent).and(InDoubt::EXISTENCE).and(InDoubt::KICK).and(InDoubt::DELETION);
        KnownAccount {
            profile: profile.overlaid(sent),
            last_imported: Some(at),
            missing_runs: 0,
            in_doubt: fields.without(settled),
            is_kicked: false,
            raised_at: None,
        }
    }

    /// The account while it is unknown whether an import with these fields was accepted.
    #[must_use]
    pub fn once_sent(before: Option<Self>, sent: ProfileHashes) -> Self {
        let held = before.unwrap_or_default();
        let in_doubt = held.in_doubt.and(InDoubt::of_fields(sent));
        let is_known = held.last_imported.is_some() && !in_doubt.is_nothing();
        KnownAccount { in_doubt: if is_known { in_doubt } else { in_doubt.and(InDoubt::EXISTENCE) }, ..held }
    }
}

/// A time in milliseconds since the epoch.
#[must_use]
pub fn milliseconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A time in milliseconds since the epoch, as RFC 3339 in UTC for files.
#[must_use]
pub fn rfc3339(milliseconds: i64) -> String {
    let since = Duration::from_millis(milliseconds.try_into().unwrap_or_default());
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + since).to_string()
}

/// The plan's decision about a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Unchanged,
    Create,
    /// Some fields differ. If neither does, the known fields are only in doubt.
    Update(FieldSet),
    /// A later record has the same UserID.
    Superseded,
    Invalid,
}

/// The half byte of an update is this plus the bits of the fields that differ.
const UPDATE: u8 = 4;
const _: () = assert!(UPDATE as usize + (1 << ProfileField::ALL.len()) <= 16, "a half byte has no room for so many fields");

impl Op {
    /// Decides about a valid record, given what is known of its account. An empty cell changes nothing.
    #[must_use]
    pub fn decide(wanted: ProfileHashes, held: Option<&KnownAccount>) -> Self {
        let Some(held) = held.filter(|held| held.last_imported.is_some()) else { return Op::Create };
        let differing = FieldSet::of(|field| wanted[field].is_some() && wanted[field] != held.profile[field]);
        if differing.is_empty() && held.in_doubt.is_nothing() { Op::Unchanged } else { Op::Update(differing) }
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

    const fn to_nibble(self) -> u8 {
        match self {
            Op::Unchanged => 0,
            Op::Create => 1,
            Op::Superseded => 2,
            Op::Invalid => 3,
            Op::Update(differing) => UPDATE + differing.bits(),
        }
    }

    const fn from_nibble(nibble: u8) -> Self {
        match nibble {
            0 => Op::Unchanged,
            1 => Op::Create,
            2 => Op::Superseded,
            3 => Op::Invalid,
            update => Op::Update(FieldSet::from_bits(update - UPDATE)),
        }
    }
}

/// The decision for each row, in half a byte each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ops {
    nibbles: Vec<u8>,
    rows: u64,
}

impl Ops {
    /// Appends the decision for the next row.
    pub fn push(&mut self, op: Op) {
        if self.rows.is_multiple_of(2) {
            self.nibbles.push(op.to_nibble());
        } else if let Some(last) = self.nibbles.last_mut() {
            *last |= op.to_nibble() << 4;
        }
        self.rows += 1;
    }

    /// Sets the decision for a row (counted from 1) that was pushed as [`Op::Unchanged`].
    pub fn set(&mut self, row: u64, op: Op) {
        let (index, shift) = place(row);
        if let Some(pair) = self.nibbles.get_mut(index) {
            *pair = (*pair & !(0xf << shift)) | (op.to_nibble() << shift);
        }
    }

    /// The decision for a row; [`Op::Unchanged`] behind the last one.
    #[must_use]
    pub fn get(&self, row: u64) -> Op {
        let (index, shift) = place(row);
        self.nibbles.get(index).map_or(Op::Unchanged, |pair| Op::from_nibble((pair >> shift) & 0xf))
    }

    /// The number of rows with a decision.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// All decisions as bytes, for storage.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.nibbles
    }

    /// The decisions from bytes of [`Self::as_bytes`].
    #[must_use]
    pub const fn from_bytes(nibbles: Vec<u8>, rows: u64) -> Self {
        Self { nibbles, rows }
    }
}

/// The byte and the shift of a row's half byte.
fn place(row: u64) -> (usize, u32) {
    let index = row.saturating_sub(1);
    (usize::try_from(index / 2).unwrap_or(usize::MAX), if index.is_multiple_of(2) { 0 } else { 4 })
}

/// The action of a run for an account that is missing in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlannedAction {
    /// Nothing; the account is only reported.
    Nothing,
    /// Nothing, because it is the administrator's own account or protected.
    Protected,
    /// Nothing, because a record of the input looks like it.
    Lookalike,
    Kick,
    Delete,
}

/// Why a run leaves kicks and deletions to a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The UserID of some record cannot be read with certainty.
    Malformed,
    /// The result of some row is unknown.
    FailedRows,
    /// The input has changed since it was planned.
    FileChanged,
    /// The run processes only a part of its rows.
    Limit,
}

impl Wait {
    /// The word in the summary and in the state.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Wait::Malformed => "malformed",
            Wait::FailedRows => "failed_rows",
            Wait::FileChanged => "file_changed",
            Wait::Limit => "limit",
        }
    }
}

/// An account for which a request is planned, or that is back in the input, in the order of UserIDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedAccount {
    pub id: PaddedId,
    pub row: u64,
    /// `false` if the account only reappeared: no request, but its count of missing runs is reset.
    pub is_sent: bool,
    /// The account was missing or kicked, and the input contains it again.
    pub is_back: bool,
    pub profile: ProfileHashes,
}

/// An account that is missing in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissingAccount {
    pub id: PaddedId,
    pub last_imported: Option<i64>,
    /// Runs in a row in which it was missing, this one included.
    pub missing_runs: u32,
    pub due: PlannedAction,
    /// The first record that looks like it, even if the account is not spared for it.
    pub lookalike: Option<Lookalike>,
}

/// A valid UserID padded to a fixed size. It sorts like its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PaddedId([u8; USER_ID_MAX_BYTES]);

impl PaddedId {
    /// # Panics
    /// For more than [`USER_ID_MAX_BYTES`], which no valid UserID has.
    #[must_use]
    pub fn new(user_id: &[u8]) -> Self {
        let mut bytes = [0; USER_ID_MAX_BYTES];
        bytes[..user_id.len()].copy_from_slice(user_id);
        Self(bytes)
    }

    /// The id from bytes of [`Self::padded`].
    #[must_use]
    pub const fn from_padded(bytes: [u8; USER_ID_MAX_BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes with zeros behind them, which no UserID contains.
    #[must_use]
    pub const fn padded(&self) -> &[u8; USER_ID_MAX_BYTES] {
        &self.0
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        let len = self.0.iter().position(|byte| *byte == 0).unwrap_or(USER_ID_MAX_BYTES);
        &self.0[..len]
    }

    /// # Panics
    /// Never: a valid UserID is valid UTF-8.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("a valid UserID is valid UTF-8")
    }
}

/// The number of records per decision in a plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PlanCounts {
    pub create: u64,
    pub update: u64,
    pub unchanged: u64,
    pub invalid: u64,
    pub superseded: u64,
    pub missing: u64,
}

impl PlanCounts {
    pub fn count(&mut self, op: Op) {
        match op {
            Op::Create => self.create += 1,
            Op::Update(_) => self.update += 1,
            Op::Unchanged => self.unchanged += 1,
            Op::Invalid => self.invalid += 1,
            Op::Superseded => self.superseded += 1,
        }
    }

    /// The number of records in the input.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.create + self.update + self.unchanged + self.invalid + self.superseded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NICK: InDoubt = InDoubt::of_field(ProfileField::Nick);
    const FACE_URL: InDoubt = InDoubt::of_field(ProfileField::FaceUrl);

    fn held(nick: Option<&str>, face_url: Option<&str>) -> KnownAccount {
        KnownAccount { profile: ProfileHashes::of([nick, face_url].into()), last_imported: Some(1), ..KnownAccount::default() }
    }

    #[test]
    fn a_record_is_sent_if_it_changes_something() {
        let check = |wanted: [Option<&str>; 2], held: Option<KnownAccount>, expected: Op| {
            assert_eq!(Op::decide(ProfileHashes::of(wanted.into()), held.as_ref()), expected, "{wanted:?}");
        };
        let known = held(Some("n"), None);
        check([Some("n"), None], None, Op::Create);
        check([Some("n"), None], Some(known), Op::Unchanged);
        check([None, None], Some(known), Op::Unchanged);
        check([Some("m"), None], Some(known), Op::Update(FieldSet::of(|field| field == ProfileField::Nick)));
        check([Some("n"), Some("f")], Some(known), Op::Update(FieldSet::of(|field| field == ProfileField::FaceUrl)));
        let neither = Op::Update(FieldSet::NONE);
        for doubt in [NICK, FACE_URL, InDoubt::EXISTENCE, InDoubt::KICK, InDoubt::DELETION] {
            check([Some("n"), None], Some(KnownAccount { in_doubt: doubt, ..known }), neither);
        }
        check([Some("n"), None], Some(KnownAccount { last_imported: None, in_doubt: NICK, ..known }), Op::Create);
    }

    #[test]
    fn an_accepted_request_ends_the_doubt_only_about_what_it_carried() {
        let (nick, face, both) = (NICK, FACE_URL, NICK.and(FACE_URL));
        let check = |in_doubt: InDoubt, sent: [Option<&str>; 2], [taken, unknown]: [InDoubt; 2]| {
            let before = Some(KnownAccount { in_doubt, ..held(Some("n"), Some("f")) });
            let sent = ProfileHashes::of(sent.into());
            assert_eq!(KnownAccount::once_taken(before, sent, 2).in_doubt, taken, "{in_doubt:?} {sent:?}");
            assert_eq!(KnownAccount::once_sent(before, sent).in_doubt, unknown, "{in_doubt:?} {sent:?}");
        };
        check(InDoubt::NOTHING, [Some("m"), None], [InDoubt::NOTHING, nick]);
        check(InDoubt::NOTHING, [None, None], [InDoubt::NOTHING, InDoubt::EXISTENCE]);
        check(both, [Some("m"), None], [face, both]);
        check(both, [None, Some("g")], [nick, both]);
        check(both, [None, None], [both, both]);
        check(both.and(InDoubt::EXISTENCE), [Some("m"), Some("f")], [InDoubt::NOTHING, both.and(InDoubt::EXISTENCE)]);
        check(InDoubt::KICK, [Some("m"), None], [InDoubt::NOTHING, nick.and(InDoubt::KICK)]);
        // This request may have created a new account.
        check(InDoubt::DELETION, [Some("m"), None], [face, nick.and(InDoubt::DELETION)]);
        let new = KnownAccount::once_sent(None, ProfileHashes::of([Some("n"), None].into()));
        assert_eq!((new.in_doubt, new.last_imported), (nick.and(InDoubt::EXISTENCE), None));
        assert_eq!(KnownAccount::once_taken(Some(new), ProfileHashes::of([None, Some("f")].into()), 2).in_doubt, nick);
    }

    #[test]
    fn a_decision_takes_half_a_byte() {
        let update = |nick, face_url| Op::Update(FieldSet::of(|field| if field == ProfileField::Nick { nick } else { face_url }));
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
        for (row, op) in (1..).zip(all.iter().rev()) {
            ops.set(row, *op);
        }
        assert!(read(&ops).iter().eq(all.iter().rev()));
        assert_eq!(Ops::from_bytes(ops.as_bytes().to_vec(), ops.rows()), ops);
        assert_eq!(ops.get(9), Op::Unchanged);
    }

    #[test]
    fn ids_sort_as_their_bytes() {
        let ids = ["!", "a", "a!", "aa", "b", "~"];
        let mut padded = ids.map(|id| PaddedId::new(id.as_bytes()));
        padded.reverse();
        padded.sort_unstable();
        assert_eq!(padded.map(|id| id.as_str().to_owned()), ids);
        assert_eq!(PaddedId::new(&[b'x'; 32]).as_bytes(), [b'x'; 32]);
    }
}
