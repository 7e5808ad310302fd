//! From the cells of a record to the values that are sent: what is taken off, what counts as empty, which UserIDs may be sent.
//!
//! The cells themselves stay as the file has them: results, rejects and reports show those. Nothing is read or written here.

use std::collections::BTreeMap;

use super::account::{AccountRef, InvalidAccount, Suspects, UserId, UserIds};
use super::known_text::KnownText;
use super::tag_words::TagWords;
use super::uuid::{COMPACT_BYTES, compact};

/// What is done about white space at the ends of cells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CellEnds {
    #[default]
    Kept,
    /// White space, any of Unicode's, is taken off.
    Trimmed,
}

/// How UUIDs with hyphens are sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Uuids {
    /// As they are: with their hyphens they are too long.
    #[default]
    Kept,
    /// Without their hyphens.
    Compact,
}

/// How the cells of a record are read. The rules apply in the order in which they stand here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CellRules {
    pub ends: CellEnds,
    /// Words that mean an empty cell.
    pub nulls: Vec<String>,
    pub user_ids: UserIds,
    pub uuids: Uuids,
}

/// The cells that are read, in the order of the fields.
#[derive(Debug, Clone, Copy)]
pub struct ReadCells<'a> {
    pub user_id: &'a [u8],
    pub nick: &'a [u8],
    pub face_url: &'a [u8],
    /// What they are parts of, as far as it is known to be text.
    pub known: KnownText<'a>,
}

/// The names of the flags that change what is read, as a run records them.
const TRIM: &str = "trim";
const NULL: &str = "null";
const USER_IDS: &str = "user-ids";
const COMPACT_UUID: &str = "compact-uuid";
/// Between the words of `--null` in the record of a run. No word of a command line holds it.
const BETWEEN_WORDS: char = '\0';

impl CellRules {
    /// Whether a cell may come out as another one.
    const fn changes_cells(&self) -> bool {
        matches!(self.ends, CellEnds::Trimmed) || !self.nulls.is_empty()
    }

    /// A cell less what is taken off; empty if it is a word for that.
    fn value<'a>(&self, cell: &'a [u8]) -> &'a [u8] {
        let cell = match self.ends {
            CellEnds::Kept => cell,
            CellEnds::Trimmed => trimmed(cell),
        };
        if self.nulls.iter().any(|word| word.as_bytes() == cell) { &[] } else { cell }
    }

    /// The values of the cells; checks have still to come.
    #[inline]
    #[must_use]
    pub fn values<'a>(&self, cells: ReadCells<'a>) -> ReadCells<'a> {
        if !self.changes_cells() {
            return cells;
        }
        let ReadCells { user_id, nick, face_url, known } = cells;
        ReadCells { user_id: self.value(user_id), nick: self.value(nick), face_url: self.value(face_url), known }
    }

    /// The cell that a cell of a tag stands for.
    #[inline]
    #[must_use]
    pub fn tag_cell<'a>(&self, words: &'a TagWords, cell: &'a [u8]) -> &'a [u8] {
        words.meaning(if self.changes_cells() { self.value(cell) } else { cell })
    }

    /// The id that a UserID's value stands for, which need not be valid; `compacted` is where one is made that stands nowhere yet.
    #[inline]
    pub fn id<'a>(&self, value: &'a [u8], compacted: &'a mut [u8; COMPACT_BYTES]) -> &'a [u8] {
        match self.uuids {
            Uuids::Kept => value,
            Uuids::Compact => match compact(value) {
                Some(uuid) => {
                    *compacted = uuid;
                    compacted
                }
                None => value,
            },
        }
    }

    /// The account that the values make.
    ///
    /// # Errors
    /// [`InvalidAccount`] names the first rule that is broken.
    #[inline]
    pub fn account<'a>(&self, id: &'a [u8], values: ReadCells<'a>) -> Result<(AccountRef<'a>, Suspects), InvalidAccount> {
        let ReadCells { nick, face_url, known, .. } = values;
        AccountRef::with_id(UserId::check_within(known, self.user_ids, id)?, [nick, face_url], known)
    }

    /// The valid id that a UserID cell stands for, if there is one.
    #[must_use]
    pub fn valid_id(&self, cell: &[u8]) -> Option<UserId> {
        let mut compacted = [0; COMPACT_BYTES];
        UserId::parse_as(self.user_ids, self.id(self.value(cell), &mut compacted)).ok()
    }

    /// The rules as a run records them: by the flags that ask for them.
    pub fn flags(&self) -> impl Iterator<Item = (String, String)> {
        let is_given = [
            (TRIM, self.ends == CellEnds::Trimmed, String::new()),
            (NULL, !self.nulls.is_empty(), self.recorded_nulls()),
            (USER_IDS, self.user_ids == UserIds::Any, "any".to_owned()),
            (COMPACT_UUID, self.uuids == Uuids::Compact, String::new()),
        ];
        is_given.into_iter().filter(|(_, is_given, _)| *is_given).map(|(name, _, value)| (name.to_owned(), value))
    }

    /// The rules of a run, by the flags that it has recorded.
    #[must_use]
    pub fn of_flags(flags: &BTreeMap<String, String>) -> Self {
        let nulls = flags.get(NULL).map(|words| words.split(BETWEEN_WORDS).map(str::to_owned).collect());
        Self {
            ends: if flags.contains_key(TRIM) { CellEnds::Trimmed } else { CellEnds::Kept },
            nulls: nulls.unwrap_or_default(),
            user_ids: if flags.contains_key(USER_IDS) { UserIds::Any } else { UserIds::Ascii },
            uuids: if flags.contains_key(COMPACT_UUID) { Uuids::Compact } else { Uuids::Kept },
        }
    }

    /// In an order of their own: it makes no difference how they were given.
    fn recorded_nulls(&self) -> String {
        let mut words: Vec<&str> = self.nulls.iter().map(String::as_str).collect();
        words.sort_unstable();
        words.dedup();
        words.join(&String::from(BETWEEN_WORDS))
    }
}

/// A cell without the white space at its ends, as far as it is text: what stands behind undecodable bytes, or in front of them, goes too.
fn trimmed(cell: &[u8]) -> &[u8] {
    if let Ok(text) = std::str::from_utf8(cell) {
        return text.trim().as_bytes();
    }
    let front = cell.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    let behind = cell.utf8_chunks().last().filter(|chunk| chunk.invalid().is_empty()).map_or("", |chunk| chunk.valid());
    let (start, end) = (front.len() - front.trim_start().len(), behind.len() - behind.trim_end().len());
    &cell[start..cell.len() - end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::account::Field;

    const PLAIN: &CellRules = &CellRules { ends: CellEnds::Kept, nulls: Vec::new(), user_ids: UserIds::Ascii, uuids: Uuids::Kept };
    const UUID: &str = "550E8400-e29b-41d4-a716-446655440000";
    const COMPACT: &str = "550E8400e29b41d4a716446655440000";

    /// What is sent of a record.
    type SentCells<'a> = Result<(&'a str, Option<&'a str>), InvalidAccount>;

    fn check(rules: &CellRules, [user_id, nick]: [&str; 2], expected: &SentCells) {
        let values =
            rules.values(ReadCells { user_id: user_id.as_bytes(), nick: nick.as_bytes(), face_url: b"", known: KnownText::default() });
        let mut compacted = [0; COMPACT_BYTES];
        let account = rules.account(rules.id(values.user_id, &mut compacted), values).map(|(account, _)| (account.user_id, account.nick));
        assert_eq!(&account, expected, "{user_id:?} {nick:?} {rules:?}");
    }

    #[test]
    fn cells_are_trimmed_then_emptied_then_checked_then_compacted() {
        let trim = CellRules { ends: CellEnds::Trimmed, ..CellRules::default() };
        let null = CellRules { nulls: vec!["NULL".to_owned(), "-".to_owned(), "a b".to_owned()], ..CellRules::default() };
        let compact = CellRules { uuids: Uuids::Compact, ..CellRules::default() };
        let all = CellRules { ends: CellEnds::Trimmed, user_ids: UserIds::Any, uuids: Uuids::Compact, ..null.clone() };
        check(PLAIN, ["a", " b "], &Ok(("a", Some(" b "))));
        check(PLAIN, [" a", "b"], &Err(InvalidAccount::SpaceAtEnd { code_point: 0x20 }));
        check(&trim, [" a\u{3000}", "\t b\u{a0}"], &Ok(("a", Some("b"))));
        check(&trim, ["\u{200b}a", ""], &Err(InvalidAccount::UserIdCharacter { code_point: 0x200b }));
        check(&trim, ["\u{a0}", "b"], &Err(InvalidAccount::EmptyUserId));
        check(&null, ["a", "NULL"], &Ok(("a", None)));
        check(&null, ["a", "null"], &Ok(("a", Some("null"))));
        check(&null, ["a", " NULL"], &Ok(("a", Some(" NULL"))));
        check(&null, ["NULL", ""], &Err(InvalidAccount::EmptyUserId));
        check(&all, ["a", " NULL "], &Ok(("a", None)));
        check(&all, [" a b", "-"], &Err(InvalidAccount::EmptyUserId));
        check(&all, ["雷", "-"], &Ok(("雷", None)));
        check(PLAIN, [UUID, ""], &Err(InvalidAccount::LongUserId { bytes: 36, is_uuid: true }));
        check(&compact, [UUID, UUID], &Ok((COMPACT, Some(UUID))));
        check(&compact, [COMPACT, ""], &Ok((COMPACT, None)));
        check(&compact, [&format!("{UUID} "), ""], &Err(InvalidAccount::LongUserId { bytes: 37, is_uuid: false }));
        check(&all, [&format!("{UUID} "), ""], &Ok((COMPACT, None)));
    }

    #[test]
    fn undecodable_bytes_keep_a_cell_from_being_sent_and_its_ends_from_nothing() {
        assert_eq!(trimmed(b" a\xff "), b"a\xff");
        assert_eq!(trimmed(b"\xff \xff"), b"\xff \xff");
        assert_eq!(trimmed(" \u{a0}".as_bytes()), b"");
        let rules = CellRules { ends: CellEnds::Trimmed, ..CellRules::default() };
        assert_eq!(rules.valid_id(b" a\xff "), None);
        assert_eq!(UserId::check_as(UserIds::Any, b"a\xff"), Err(InvalidAccount::NotUtf8 { field: Field::UserId }));
    }

    #[test]
    fn rules_are_recorded_by_their_flags_and_read_again() {
        let check = |rules: &CellRules, expected: &[(&str, &str)]| {
            let flags: BTreeMap<String, String> = rules.flags().collect();
            let expected = expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            assert_eq!(flags, expected);
            let again = CellRules::of_flags(&flags);
            assert_eq!(again.flags().collect::<BTreeMap<_, _>>(), flags);
            assert_eq!((again.ends, again.user_ids, again.uuids), (rules.ends, rules.user_ids, rules.uuids));
        };
        check(PLAIN, &[]);
        let nulls = vec!["b".to_owned(), "a".to_owned(), "b".to_owned()];
        let all = CellRules { ends: CellEnds::Trimmed, nulls, user_ids: UserIds::Any, uuids: Uuids::Compact };
        check(&all, &[("trim", ""), ("null", "a\0b"), ("user-ids", "any"), ("compact-uuid", "")]);
        check(&CellRules { nulls: vec![String::new()], ..CellRules::default() }, &[("null", "")]);
    }
}
