//! The account to import; a value of this type is always valid.
//!
//! The types here know the service's rules for a UserID and for profile fields, so that no request is spent on a row that the service
//! would refuse. They never read or write anything.

mod bytes;
mod invalid;
mod twins;
mod user_id;

pub use bytes::has_capitals;
use bytes::may_be_odd;
pub use invalid::InvalidAccount;
pub use twins::TwinKind;
pub use user_id::{USER_ID_MAX_BYTES, UserId, UserIds};

use super::known_text::KnownText;
use super::profile::{FIELD_MAX_BYTES, PerField, ProfileField};
use super::tag::TagItem;

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
        Self::with_id(UserId::check_as(UserIds::Ascii, user_id)?, [nick, face_url], KnownText::default()).map(|(account, _)| account)
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
        Self { user_id: UserId::unchecked(user_id), nick: nick.map(Box::from), face_url: face_url.map(Box::from), tags }
    }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
            match UserId::check_as(UserIds::Ascii, &cell) {
                Ok(text) => prop_assert!(text.as_bytes() == cell && is_printable && !has_space_at_end),
                Err(InvalidAccount::NotUtf8 { .. }) => prop_assert!(text.is_err()),
                Err(InvalidAccount::SpaceAtEnd { .. }) => prop_assert!(has_space_at_end),
                Err(InvalidAccount::ByteOrderMark) => {
                    let has_mark = text.unwrap().contains('\u{feff}');
                    prop_assert!(has_mark);
                }
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
