//! The UserID of an account, by the service's rules.

use super::Field;
use super::bytes::is_printable;
use super::invalid::InvalidAccount;
use crate::domain::known_text::KnownText;
use crate::domain::uuid::is_hyphenated;

/// Longest UserID, in bytes. Source: Tencent's documentation of `account_import`.
pub const USER_ID_MAX_BYTES: usize = 32;

const BYTE_ORDER_MARK: char = '\u{feff}';

/// Prefixes that the service keeps for itself. Source: Tencent's documentation of UserIDs and group ids.
const RESERVED_PREFIXES: [&str; 4] = ["@TIM#", "@TLS#", "@TGS#", "@RBT#"];

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

    /// As [`UserId::parse_as`], without a copy.
    ///
    /// # Errors
    /// [`InvalidAccount`] names the rule that is broken.
    #[inline]
    pub fn check_as(allowed: UserIds, raw: &[u8]) -> Result<&str, InvalidAccount> {
        Self::check_within(KnownText::default(), allowed, raw)
    }

    /// As [`UserId::check_as`], for bytes that may be a part of `known`, which is text already.
    ///
    /// # Errors
    /// [`InvalidAccount`] names the rule that is broken.
    #[inline]
    pub fn check_within<'a>(known: KnownText<'a>, allowed: UserIds, raw: &'a [u8]) -> Result<&'a str, InvalidAccount> {
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

    /// Of text that was checked already, or is meant to break a rule.
    pub(super) fn unchecked(text: &str) -> Self {
        Self(text.into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
