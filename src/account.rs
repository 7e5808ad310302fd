//! The account to import: valid by construction.
//!
//! Knows the service's rules for a UserID and for profile fields, so that no call is spent on a row that it would refuse.
//! Never reads or writes anything.

use thiserror::Error;

/// Longest UserID, in bytes. Source: Tencent's documentation of `account_import`.
pub const USER_ID_MAX_BYTES: usize = 32;

/// Longest Nick or FaceUrl, in bytes of UTF-8. Source: Tencent's documentation of the profile fields.
pub const FIELD_MAX_BYTES: usize = 500;

/// Prefixes that the service keeps for itself. Source: Tencent's documentation of UserIDs and group ids.
const RESERVED_PREFIXES: [&str; 4] = ["@TIM#", "@TLS#", "@TGS#", "@RBT#"];

/// A field of the input that the import sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
            Field::Nick => "Nick",
            Field::FaceUrl => "FaceUrl",
        }
    }
}

impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A UserID that the service takes: 1 to 32 bytes of printable ASCII without space, no reserved prefix.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Box<str>);

impl UserId {
    /// Checks the bytes against the service's rules.
    ///
    /// # Errors
    /// [`Invalid`] names the rule that is broken.
    pub fn parse(raw: &[u8]) -> Result<Self, Invalid> {
        if raw.is_empty() {
            return Err(Invalid::EmptyUserId);
        }
        if raw.len() > USER_ID_MAX_BYTES {
            return Err(Invalid::LongUserId { bytes: raw.len() });
        }
        let text = match std::str::from_utf8(raw) {
            Ok(text) if raw.iter().all(u8::is_ascii_graphic) => text,
            _ => {
                let byte = raw.iter().copied().find(|byte| !byte.is_ascii_graphic()).unwrap_or_default();
                return Err(Invalid::UserIdByte { byte });
            }
        };
        if let Some(prefix) = RESERVED_PREFIXES.into_iter().find(|prefix| text.starts_with(prefix)) {
            return Err(Invalid::ReservedPrefix { prefix });
        }
        Ok(Self(text.into()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether only letters, digits, `_` and `-` are in it, which every page of Tencent's documentation allows.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.0.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
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
}

impl Account {
    /// Checks the three cells of a record; an empty `nick` or `face_url` is an absent one.
    ///
    /// # Errors
    /// [`Invalid`] names the first rule that is broken.
    pub fn parse(user_id: &[u8], nick: &[u8], face_url: &[u8]) -> Result<Self, Invalid> {
        Ok(Self {
            user_id: UserId::parse(user_id)?,
            nick: profile_text(Field::Nick, nick)?,
            face_url: profile_text(Field::FaceUrl, face_url)?,
        })
    }

    /// Bytes of its values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let text = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
        self.user_id.as_str().len() + text(&self.nick) + text(&self.face_url)
    }

    /// Whether it carries more than its id.
    #[must_use]
    pub fn has_profile(&self) -> bool {
        self.nick.is_some() || self.face_url.is_some()
    }
}

fn profile_text(field: Field, raw: &[u8]) -> Result<Option<Box<str>>, Invalid> {
    if raw.is_empty() {
        return Ok(None);
    }
    if raw.len() > FIELD_MAX_BYTES {
        return Err(Invalid::LongField { field, bytes: raw.len() });
    }
    let text = std::str::from_utf8(raw).map_err(|_| Invalid::NotUtf8 { field })?;
    if text.contains('\u{feff}') {
        return Err(Invalid::ByteOrderMark { field });
    }
    if let Some(found) = text.chars().find(|found| found.is_control()) {
        return Err(Invalid::ControlCharacter { field, code_point: u32::from(found) });
    }
    Ok(Some(text.into()))
}

/// Why a record is never sent. The texts go into `error_info` of the results.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Invalid {
    #[error("UserID is empty")]
    EmptyUserId,
    #[error("UserID has {bytes} bytes, at most {USER_ID_MAX_BYTES} are allowed")]
    LongUserId { bytes: usize },
    #[error("UserID holds the byte 0x{byte:02x}; printable ASCII without space is allowed")]
    UserIdByte { byte: u8 },
    #[error("UserID starts with {prefix}, which the service keeps for itself")]
    ReservedPrefix { prefix: &'static str },
    #[error("{field} has {bytes} bytes, at most {FIELD_MAX_BYTES} are allowed")]
    LongField { field: Field, bytes: usize },
    #[error("{field} is not valid UTF-8")]
    NotUtf8 { field: Field },
    #[error("{field} holds a byte order mark (U+FEFF)")]
    ByteOrderMark { field: Field },
    #[error("{field} holds the control character U+{code_point:04X}")]
    ControlCharacter { field: Field, code_point: u32 },
    #[error("the record has {found} fields, the header has {expected}")]
    FieldCount { expected: usize, found: usize },
    #[error("text follows the closing quote at line {line}, column {column}")]
    TextAfterQuote { line: u64, column: u64 },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_ids_are_checked_byte_for_byte() {
        let check = |raw: &[u8], expected: Result<&str, Invalid>| {
            assert_eq!(UserId::parse(raw).map(|id| id.as_str().to_owned()), expected.map(str::to_owned), "{raw:?}");
        };
        check(b"alice", Ok("alice"));
        check(b"!~", Ok("!~"));
        check(b"", Err(Invalid::EmptyUserId));
        check(&[b'a'; 32], Ok("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
        check(&[b'a'; 33], Err(Invalid::LongUserId { bytes: 33 }));
        check(b" alice", Err(Invalid::UserIdByte { byte: 0x20 }));
        check(b"alice\x7f", Err(Invalid::UserIdByte { byte: 0x7f }));
        check("李雷".as_bytes(), Err(Invalid::UserIdByte { byte: 0xe6 }));
        check(b"@TIM#x", Err(Invalid::ReservedPrefix { prefix: "@TIM#" }));
        check(b"@tim#x", Ok("@tim#x"));
    }

    #[test]
    fn profile_fields_are_bounded_in_bytes_and_hold_no_control_characters() {
        let check = |nick: &[u8], expected: Result<Option<&str>, Invalid>| {
            let parsed = Account::parse(b"u", nick, b"").map(|account| account.nick.map(String::from));
            assert_eq!(parsed, expected.map(|nick| nick.map(str::to_owned)), "{nick:?}");
        };
        check(b"", Ok(None));
        check("韩梅梅 🎉".as_bytes(), Ok(Some("韩梅梅 🎉")));
        check(&[b'n'; 500], Ok(Some(&"n".repeat(500))));
        check("好".repeat(167).as_bytes(), Err(Invalid::LongField { field: Field::Nick, bytes: 501 }));
        check(b"\xff", Err(Invalid::NotUtf8 { field: Field::Nick }));
        check(b"a\nb", Err(Invalid::ControlCharacter { field: Field::Nick, code_point: 10 }));
        check("a\u{85}b".as_bytes(), Err(Invalid::ControlCharacter { field: Field::Nick, code_point: 0x85 }));
        check("\u{feff}a".as_bytes(), Err(Invalid::ByteOrderMark { field: Field::Nick }));
    }
}
