//! What the app makes of UserIDs, where the documentation leaves it open.

use std::borrow::Cow;

use super::reply::RequestRefusal;

/// A parameter is invalid: the account service's code. Source: Tencent's error code page.
const INVALID_PARAMETER: i64 = 70402;
/// Longest UserID, in bytes. Source: Tencent's documentation of `account_import`.
const USER_ID_MAX_BYTES: usize = 32;
/// Prefixes that are reserved for the service. Source: Tencent's documentation of UserIDs and group ids.
const RESERVED_PREFIXES: [&str; 4] = ["@TIM#", "@TLS#", "@TGS#", "@RBT#"];

/// Whether UserIDs that differ only in case are two accounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UserIdCase {
    #[default]
    Matters,
    Ignored,
}

/// What becomes of a space in a UserID.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UserIdSpaces {
    #[default]
    Refused,
    Taken,
    /// Those at the ends are cut off, those inside are taken.
    CutOff,
}

/// How the app reads UserIDs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UserIdRules {
    pub case: UserIdCase,
    pub spaces: UserIdSpaces,
}

impl UserIdRules {
    /// The UserID of the account that `id` means.
    pub(super) fn account_id(self, id: &str) -> Cow<'_, str> {
        let id = if self.spaces == UserIdSpaces::CutOff { id.trim_matches(' ') } else { id };
        match self.case {
            UserIdCase::Ignored if id.bytes().any(|byte| byte.is_ascii_uppercase()) => id.to_ascii_lowercase().into(),
            UserIdCase::Ignored | UserIdCase::Matters => id.into(),
        }
    }

    /// Checks a UserID as the service does.
    ///
    /// # Errors
    /// [`RequestRefusal`] with the documented code.
    pub(super) fn check(self, id: &str) -> Result<(), RequestRefusal> {
        let may_hold = |byte: u8| byte.is_ascii_graphic() || (byte == b' ' && self.spaces != UserIdSpaces::Refused);
        let why = if id.is_empty() {
            "UserID is empty"
        } else if id.len() > USER_ID_MAX_BYTES {
            "UserID has more than 32 bytes"
        } else if !id.bytes().all(may_hold) {
            "UserID holds a character that is not allowed"
        } else if RESERVED_PREFIXES.iter().any(|prefix| id.starts_with(prefix)) {
            "UserID starts with a reserved prefix"
        } else {
            return Ok(());
        };
        Err(RequestRefusal::content(INVALID_PARAMETER, why))
    }
}
