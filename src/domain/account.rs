//! The account to import; a value of this type is always valid.
//!
//! The types here know the service's rules for a UserID and for profile fields, so that no request is spent on a row that the service
//! would refuse. They never read or write anything.

mod bytes;
mod twins;

pub use bytes::has_capitals;
use bytes::{is_printable, may_be_odd};
use thiserror::Error;
pub use twins::TwinKind;

use super::known_text::KnownText;
use super::profile::{PerField, ProfileField};
use super::tag::{InvalidTagValue, TagItem};
use super::uuid::is_hyphenated;

/// Longest UserID, in bytes. Source: Tencent's documentation of `account_import`.
pub const USER_ID_MAX_BYTES: usize = 32;

/// Longest Nick or FaceUrl, in bytes of UTF-8. Source: Tencent's documentation of the profile fields.
pub const FIELD_MAX_BYTES: usize = 500;

const BYTE_ORDER_MARK: char = '\u{feff}';

/// Prefixes that the service keeps for itself. Source: Tencent's documentation of UserIDs and group ids.
const RESERVED_PREFIXES: [&str; 4] = ["@TIM#", "@TLS#", "@TGS#", "@RBT#"];

/// A field of the input that the import sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    UserId,
    Nick,
    FaceUrl,
}

impl Field {
    /// All of them, in the order of the API's documentation.
    pub const ALL: [Field; 3] = [Field::UserId, Field::Nick, Field::FaceUrl];

    /// The name on the wire, which is also the name of the input's column unless it is mapped.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Field::UserId => "UserID",
            Field::Nick => ProfileField::Nick.spec().name,
            Field::FaceUrl => ProfileField::FaceUrl.spec().name,
        }
    }
}

impl From<ProfileField> for Field {
    fn from(field: ProfileField) -> Self {
        match field {
            ProfileField::Nick => Field::Nick,
            ProfileField::FaceUrl => Field::FaceUrl,
        }
    }
}

impl Field {
    /// The profile field that it is, if it is one.
    #[must_use]
    pub fn profile(self) -> Option<ProfileField> {
        ProfileField::ALL.into_iter().find(|field| Self::from(*field) == self)
    }
}

impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Which UserIDs are sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UserIds {
    /// Those of printable ASCII, which the service's documentation allows.
    #[default]
    Ascii,
    /// Those of any printable text: the service decides.
    Any,
}

/// A UserID that may be sent: 1 to 32 bytes of text without control characters and without white space at an end, no reserved prefix.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Box<str>);

impl UserId {
    /// Checks the bytes against the service's rules.
    ///
    /// # Errors
    /// [`InvalidAccount`] names the rule that is broken.
    pub fn parse(raw: &[u8]) -> Result<Self, InvalidAccount> {
        Self::parse_as(UserIds::Ascii, raw)
    }

    /// As [`UserId::parse`], by the rules for those that are `allowed`.
    ///
    /// # Errors
    /// [`InvalidAccount`] names the rule that is broken.
    pub fn parse_as(allowed: UserIds, raw: &[u8]) -> Result<Self, InvalidAccount> {
        Self::check_as(allowed, raw).map(|text| Self(text.into()))
    }

    /// As [`UserId::parse`], without a copy.
    ///
    /// # Errors
    /// [`InvalidAccount`] names the rule that is broken.
    #[inline]
    pub fn check(raw: &[u8]) -> Result<&str, InvalidAccount> {
        Self::check_as(UserIds::Ascii, raw)
    }

    /// As [`UserId::parse_as`], without a copy.
    ///
    /// # Errors
    /// [`InvalidAccount`] names the rule that is broken.
    #[inline]
    pub fn check_as(allowed: UserIds, raw: &[u8]) -> Result<&str, InvalidAccount> {
        Self::check_in(KnownText::default(), allowed, raw)
    }

    /// As [`UserId::check_as`] of what may be a part of `known`.
    ///
    /// # Errors
    /// [`InvalidAccount`] names the rule that is broken.
    #[inline]
    pub fn check_in<'a>(known: KnownText<'a>, allowed: UserIds, raw: &'a [u8]) -> Result<&'a str, InvalidAccount> {
        if raw.is_empty() {
            return Err(InvalidAccount::EmptyUserId);
        }
        if raw.len() > USER_ID_MAX_BYTES {
            return Err(InvalidAccount::LongUserId { bytes: raw.len(), is_uuid: is_hyphenated(raw) });
        }
        let text = match known.of(raw) {
            Ok(text) if is_printable(raw) && raw[0] != b' ' && !raw.ends_with(b" ") => text,
            found => match (why_refused(found.ok()), allowed, found) {
                (InvalidAccount::UserIdCharacter { .. }, UserIds::Any, Ok(text)) => text,
                (why, UserIds::Ascii | UserIds::Any, _) => return Err(why),
            },
        };
        // They all begin with it, and hardly any id does.
        if raw[0] == b'@'
            && let Some(prefix) = RESERVED_PREFIXES.into_iter().find(|prefix| text.starts_with(prefix))
        {
            return Err(InvalidAccount::ReservedPrefix { prefix });
        }
        Ok(text)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Which fields of an account may be odd: one look at the bytes tells those that can't.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Suspects {
    pub nick: bool,
    pub face_url: bool,
    /// Each of its cells may belong into another column.
    pub columns: bool,
}

/// An account that the service's documented rules allow, as it stands in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountRef<'a> {
    /// As [`UserId`] holds it.
    pub user_id: &'a str,
    /// Nickname; an empty cell is `None` and its key is omitted from the call.
    pub nick: Option<&'a str>,
    /// URL of the avatar; as `nick`.
    pub face_url: Option<&'a str>,
}

impl<'a> AccountRef<'a> {
    /// Checks the three cells of a record; an empty `nick` or `face_url` is an absent one.
    ///
    /// # Errors
    /// [`InvalidAccount`] names the first rule that is broken.
    #[inline]
    pub fn parse(user_id: &'a [u8], nick: &'a [u8], face_url: &'a [u8]) -> Result<Self, InvalidAccount> {
        Self::with_id(UserId::check(user_id)?, [nick, face_url], KnownText::default()).map(|(account, _)| account)
    }

    /// As [`AccountRef::parse`] of a UserID that was checked, and of a Nick and a `FaceUrl` that may be parts of `known`; which of these two
    /// may be odd, too.
    ///
    /// # Errors
    /// [`InvalidAccount`] names the first rule that is broken.
    #[inline]
    pub fn with_id(user_id: &'a str, [nick, face_url]: [&'a [u8]; 2], known: KnownText<'a>) -> Result<(Self, Suspects), InvalidAccount> {
        let (nick, odd_nick) = profile_text(Field::Nick, nick, known)?;
        let (face_url, odd_face_url) = profile_text(Field::FaceUrl, face_url, known)?;
        Ok((Self { user_id, nick, face_url }, Suspects { nick: odd_nick, face_url: odd_face_url, columns: false }))
    }

    /// Its profile, field by field.
    #[inline]
    #[must_use]
    pub fn profile(&self) -> PerField<Option<&'a str>> {
        [self.nick, self.face_url].into()
    }

    /// Whether only letters, digits, `_` and `-` are in its id, which every page of Tencent's documentation allows.
    #[inline]
    #[must_use]
    pub fn has_plain_id(&self) -> bool {
        !bytes::has_unusual(self.user_id.as_bytes())
    }
}

/// An account that the service's documented rules allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub user_id: UserId,
    /// Nickname; an empty cell is `None` and its key is omitted from the call.
    pub nick: Option<Box<str>>,
    /// URL of the avatar; as `nick`.
    pub face_url: Option<Box<str>>,
    /// What `portrait_set` sets; a tag whose cell is empty is not here.
    pub tags: Box<[TagItem]>,
}

impl Account {
    /// As [`AccountRef::parse`], with a copy.
    ///
    /// # Errors
    /// [`InvalidAccount`] names the first rule that is broken.
    pub fn parse(user_id: &[u8], nick: &[u8], face_url: &[u8]) -> Result<Self, InvalidAccount> {
        AccountRef::parse(user_id, nick, face_url).map(Self::from)
    }

    /// An account without a profile.
    #[must_use]
    pub fn bare(user_id: UserId) -> Self {
        Self { user_id, nick: None, face_url: None, tags: Box::default() }
    }

    /// Its profile, field by field.
    #[must_use]
    pub fn profile(&self) -> PerField<Option<&str>> {
        [self.nick.as_deref(), self.face_url.as_deref()].into()
    }

    /// As it stands in memory.
    #[must_use]
    pub fn as_ref(&self) -> AccountRef<'_> {
        AccountRef { user_id: self.user_id.as_str(), nick: self.nick.as_deref(), face_url: self.face_url.as_deref() }
    }

    /// Bytes of its values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let profile: usize = self.profile().iter().map(|(_, text)| text.map_or(0, str::len)).sum();
        let tags: usize = self.tags.iter().map(TagItem::bytes).sum();
        self.user_id.as_str().len() + profile + tags
    }

    /// Whether it says anything that a profile shows.
    #[must_use]
    pub fn is_compared(&self) -> bool {
        self.has_profile() || !self.tags.is_empty()
    }

    /// Whether its import carries more than its id.
    #[must_use]
    pub fn has_profile(&self) -> bool {
        self.profile().iter().any(|(_, text)| text.is_some())
    }
}

impl From<AccountRef<'_>> for Account {
    /// Without tags.
    fn from(AccountRef { user_id, nick, face_url }: AccountRef<'_>) -> Self {
        let tags = Box::default();
        Self { user_id: UserId(user_id.into()), nick: nick.map(Box::from), face_url: face_url.map(Box::from), tags }
    }
}

/// What is wrong with a UserID that is not printable ASCII from end to end; `None` where its bytes are no text at all.
#[cold]
fn why_refused(text: Option<&str>) -> InvalidAccount {
    let Some(text) = text else { return InvalidAccount::NotUtf8 { field: Field::UserId } };
    if text.contains(BYTE_ORDER_MARK) {
        return InvalidAccount::ByteOrderMark;
    }
    let ends = [text.chars().next(), text.chars().next_back()];
    if let Some(space) = ends.into_iter().flatten().find(|end| end.is_whitespace()) {
        return InvalidAccount::SpaceAtEnd { code_point: space.into() };
    }
    if let Some(found) = text.chars().find(|found| found.is_control()) {
        return InvalidAccount::ControlCharacter { code_point: found.into() };
    }
    let found = text.chars().find(|found| !matches!(found, ' '..='~'));
    InvalidAccount::UserIdCharacter { code_point: found.unwrap_or_default().into() }
}

/// The text, if there is any, and whether it may be odd.
#[inline]
fn profile_text<'a>(field: Field, raw: &'a [u8], known: KnownText<'a>) -> Result<(Option<&'a str>, bool), InvalidAccount> {
    if raw.is_empty() {
        return Ok((None, false));
    }
    present_text(field, raw, known).map(|(text, may_be_odd)| (Some(text), may_be_odd))
}

fn present_text<'a>(field: Field, raw: &'a [u8], known: KnownText<'a>) -> Result<(&'a str, bool), InvalidAccount> {
    if raw.len() > FIELD_MAX_BYTES {
        return Err(InvalidAccount::LongField { field, bytes: raw.len() });
    }
    let text = known.of(raw).map_err(|_| InvalidAccount::NotUtf8 { field })?;
    let may_be_odd = may_be_odd(raw);
    if may_be_odd && raw.contains(&0) { Err(InvalidAccount::Nul { field }) } else { Ok((text, may_be_odd)) }
}

/// Why a record is never sent. The texts go into `error_info` of the results.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidAccount {
    #[error("UserID is empty")]
    EmptyUserId,
    #[error("UserID has {bytes} bytes, at most {USER_ID_MAX_BYTES} are allowed")]
    LongUserId { bytes: usize, is_uuid: bool },
    #[error("UserID starts or ends with white space (U+{code_point:04X})")]
    SpaceAtEnd { code_point: u32 },
    #[error("UserID holds the character U+{code_point:04X}; only printable ASCII is allowed")]
    UserIdCharacter { code_point: u32 },
    #[error("UserID starts with {prefix}, which the service keeps for itself")]
    ReservedPrefix { prefix: &'static str },
    #[error("{field} has {bytes} bytes, at most {FIELD_MAX_BYTES} are allowed")]
    LongField { field: Field, bytes: usize },
    #[error("{field} is not valid UTF-8")]
    NotUtf8 { field: Field },
    #[error("UserID holds a byte order mark (U+FEFF)")]
    ByteOrderMark,
    #[error("UserID holds the control character U+{code_point:04X}")]
    ControlCharacter { code_point: u32 },
    #[error("{field} holds a NUL character (U+0000)")]
    Nul { field: Field },
    #[error(transparent)]
    Tag(Box<InvalidTagValue>),
    #[error("the row has {}, the header has {expected}", fields(*found))]
    FieldCount { expected: usize, found: usize },
    #[error("the row is the header again")]
    HeaderAgain,
    #[error("text follows the closing quote at line {line}, column {column}")]
    TextAfterQuote { line: u64, column: u64 },
    /// A quote that opens on line `quote` and closes on line `last` holds what look like records of their own.
    #[error("the quote at line {quote} swallowed {}", lines(*quote + 1, *last))]
    SwallowedLines { quote: u64, last: u64 },
}

impl InvalidAccount {
    /// Whether a text says of a record that it has another number of fields than the header.
    #[must_use]
    pub fn is_told_of_fields(text: &[u8]) -> bool {
        // Rejects of earlier versions have the first words.
        let starts = [&b"the record has "[..], b"the row has "].into_iter().any(|start| text.starts_with(start));
        starts && memchr::memmem::find(text, b", the header has ").is_some()
    }

    /// Whether both break the same rule, whatever their figures.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let is_uuid = |why: &Self| matches!(why, Self::LongUserId { is_uuid: true, .. });
        match (self, other) {
            (Self::Tag(one), Self::Tag(other)) => one.tag == other.tag,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other) && is_uuid(self) == is_uuid(other),
        }
    }
}

fn fields(found: usize) -> String {
    if found == 1 { "1 field".to_owned() } else { format!("{found} fields") }
}

fn lines(first: u64, last: u64) -> String {
    if first == last { format!("line {first}") } else { format!("lines {first} to {last}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_reason_that_tells_of_fields_is_known_again() {
        for found in [1, 7] {
            let told = InvalidAccount::FieldCount { expected: 3, found }.to_string();
            assert!(InvalidAccount::is_told_of_fields(format!("{told}; surplus fields: x").as_bytes()), "{told}");
        }
        assert!(InvalidAccount::is_told_of_fields(b"the record has 4 fields, the header has 3"));
        assert!(!InvalidAccount::is_told_of_fields(InvalidAccount::EmptyUserId.to_string().as_bytes()));
    }

    #[test]
    fn user_ids_are_checked_byte_for_byte() {
        let check = |raw: &[u8], expected: Result<&str, InvalidAccount>| {
            assert_eq!(UserId::parse(raw).map(|id| id.as_str().to_owned()), expected.map(str::to_owned), "{raw:?}");
        };
        check(b"alice", Ok("alice"));
        check(b"!~", Ok("!~"));
        check(b"", Err(InvalidAccount::EmptyUserId));
        check(&[b'a'; 32], Ok("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
        check(&[b'a'; 33], Err(InvalidAccount::LongUserId { bytes: 33, is_uuid: false }));
        check(b"a b", Ok("a b"));
        check(b" alice", Err(InvalidAccount::SpaceAtEnd { code_point: 0x20 }));
        check(b"alice ", Err(InvalidAccount::SpaceAtEnd { code_point: 0x20 }));
        check(b"alice\t", Err(InvalidAccount::SpaceAtEnd { code_point: 9 }));
        check("\u{a0}alice".as_bytes(), Err(InvalidAccount::SpaceAtEnd { code_point: 0xa0 }));
        check("alice\u{3000}".as_bytes(), Err(InvalidAccount::SpaceAtEnd { code_point: 0x3000 }));
        check(b" ", Err(InvalidAccount::SpaceAtEnd { code_point: 0x20 }));
        check("al\u{feff}ice".as_bytes(), Err(InvalidAccount::ByteOrderMark));
        check("\u{feff}alice".as_bytes(), Err(InvalidAccount::ByteOrderMark));
        check(b"al\tice", Err(InvalidAccount::ControlCharacter { code_point: 9 }));
        check(b"alice\x7f", Err(InvalidAccount::ControlCharacter { code_point: 0x7f }));
        check("al\u{85}ice".as_bytes(), Err(InvalidAccount::ControlCharacter { code_point: 0x85 }));
        check("李雷".as_bytes(), Err(InvalidAccount::UserIdCharacter { code_point: 0x674e }));
        check("al\u{a0}ice".as_bytes(), Err(InvalidAccount::UserIdCharacter { code_point: 0xa0 }));
        check(b"alice\xff", Err(InvalidAccount::NotUtf8 { field: Field::UserId }));
        check(b"@TIM#x", Err(InvalidAccount::ReservedPrefix { prefix: "@TIM#" }));
        check(b"@tim#x", Ok("@tim#x"));
    }

    #[test]
    fn any_printable_text_is_a_user_id_where_that_is_allowed() {
        let check = |raw: &[u8], expected: Result<&str, InvalidAccount>| {
            assert_eq!(UserId::check_as(UserIds::Any, raw), expected, "{raw:?}");
        };
        check(b"alice", Ok("alice"));
        check("李雷".as_bytes(), Ok("李雷"));
        check("émbre\u{a0}3".as_bytes(), Ok("émbre\u{a0}3"));
        check("好".repeat(10).as_bytes(), Ok(&"好".repeat(10)));
        check("好".repeat(11).as_bytes(), Err(InvalidAccount::LongUserId { bytes: 33, is_uuid: false }));
        check(b"", Err(InvalidAccount::EmptyUserId));
        check(b"al\xffice", Err(InvalidAccount::NotUtf8 { field: Field::UserId }));
        check("李\u{85}雷".as_bytes(), Err(InvalidAccount::ControlCharacter { code_point: 0x85 }));
        check("李\u{feff}雷".as_bytes(), Err(InvalidAccount::ByteOrderMark));
        check("李雷\u{3000}".as_bytes(), Err(InvalidAccount::SpaceAtEnd { code_point: 0x3000 }));
        check("@TIM#雷".as_bytes(), Err(InvalidAccount::ReservedPrefix { prefix: "@TIM#" }));
    }

    #[test]
    fn profile_fields_are_bounded_in_bytes_and_hold_text_without_nul() {
        let check = |nick: &[u8], expected: Result<Option<&str>, InvalidAccount>| {
            let parsed = Account::parse(b"u", nick, b"").map(|account| account.nick.map(String::from));
            assert_eq!(parsed, expected.map(|nick| nick.map(str::to_owned)), "{nick:?}");
        };
        check(b"", Ok(None));
        check("韩梅梅 🎉".as_bytes(), Ok(Some("韩梅梅 🎉")));
        check(&[b'n'; 500], Ok(Some(&"n".repeat(500))));
        check("好".repeat(167).as_bytes(), Err(InvalidAccount::LongField { field: Field::Nick, bytes: 501 }));
        check(b"\xff", Err(InvalidAccount::NotUtf8 { field: Field::Nick }));
        check(b"a\0b", Err(InvalidAccount::Nul { field: Field::Nick }));
        check(b"\0", Err(InvalidAccount::Nul { field: Field::Nick }));
        check(b"a\nb", Ok(Some("a\nb")));
        check("a\u{85}b".as_bytes(), Ok(Some("a\u{85}b")));
        check("\u{feff}a".as_bytes(), Ok(Some("\u{feff}a")));
    }
    /// Pieces at the bounds of the rules, at all places in a word of eight bytes.
    fn cells() -> impl Strategy<Value = Vec<u8>> {
        let char = prop_oneof![
            8 => prop::char::range(' ', '\u{80}'),
            1 => prop::sample::select(&['\0', '\u{1f}', '\u{7f}', '\u{80}', '\u{9f}', '\u{a0}', 'é', '\u{feff}', '\u{fefe}', '！', '好', '🎉'][..]),
        ];
        let text = prop::collection::vec(char, 0..40).prop_map(|chars| chars.into_iter().collect::<String>().into_bytes());
        prop_oneof![3 => text, 1 => prop::collection::vec(any::<u8>(), 0..24), 1 => "[!-~]{0,34}".prop_map(String::into_bytes)]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

        /// The rules once more, one byte and one character at a time.
        #[test]
        fn many_bytes_at_a_time_are_judged_as_one_at_a_time(cell in cells()) {
            let text = std::str::from_utf8(&cell);
            let is_printable = cell.iter().all(|byte| (0x20..=0x7e).contains(byte));
            let has_space_at_end = text.is_ok_and(|text| text.trim() != text);
            match UserId::check(&cell) {
                Ok(text) => prop_assert!(text.as_bytes() == cell && is_printable && !has_space_at_end),
                Err(InvalidAccount::NotUtf8 { .. }) => prop_assert!(text.is_err()),
                Err(InvalidAccount::SpaceAtEnd { .. }) => prop_assert!(has_space_at_end),
                Err(InvalidAccount::ByteOrderMark) => prop_assert!(text.unwrap().contains(BYTE_ORDER_MARK)),
                Err(InvalidAccount::ControlCharacter { .. }) => prop_assert!(text.unwrap().contains(char::is_control)),
                Err(InvalidAccount::UserIdCharacter { code_point }) => {
                    prop_assert!(!is_printable && text.unwrap().contains(char::from_u32(code_point).unwrap()));
                }
                Err(other) => prop_assert!(cell.is_empty() || cell.len() > 32 || cell[0] == b'@', "{}", other),
            }
            let account = AccountRef::parse(b"u", &cell, b"").map(|account| account.nick.unwrap_or_default());
            let field = Field::Nick;
            let expected = match std::str::from_utf8(&cell) {
                Err(_) => Err(InvalidAccount::NotUtf8 { field }),
                Ok(text) if text.contains('\0') => Err(InvalidAccount::Nul { field }),
                Ok(text) => Ok(text),
            };
            prop_assert_eq!(account, expected);
        }
    }
}
