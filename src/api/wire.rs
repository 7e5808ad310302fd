//! The wire format: paths, query parameters, bodies and answers, to the letter of Tencent's documentation.
//!
//! Shared with the sandbox, so that both sides speak of the same names; signs nothing and sends nothing.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// Imports one account; 200 calls a second by documentation.
pub const ACCOUNT_IMPORT: &str = "im_open_login_svc/account_import";

/// Calls of [`ACCOUNT_IMPORT`] that the documentation allows in a second.
pub const ACCOUNT_IMPORT_CALLS_PER_S: NonZeroU32 = NonZeroU32::new(200).expect("200 is not zero");

/// The five query parameters of every call.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    pub sdkappid: u64,
    pub identifier: &'a str,
    pub usersig: &'a str,
    pub random: u32,
}

impl Query<'_> {
    /// Path and query of a call of `command` (`SERVICE/COMMAND`).
    #[must_use]
    pub fn path_and_query(&self, command: &str) -> String {
        format!(
            "/v4/{command}?sdkappid={}&identifier={}&usersig={}&random={}&contenttype=json",
            self.sdkappid,
            percent_encoded(self.identifier),
            percent_encoded(self.usersig),
            self.random
        )
    }
}

/// Escapes what may not stand in a query value; `*` and `-` of a UserSig stay, as in Tencent's examples.
fn percent_encoded(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.*~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            escaped.push('%');
            escaped.push(char::from(HEX[usize::from(byte >> 4)]));
            escaped.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    escaped
}

/// Body of [`ACCOUNT_IMPORT`]; an absent field is an omitted key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportBody<'a> {
    #[serde(rename = "UserID")]
    pub user_id: std::borrow::Cow<'a, str>,
    #[serde(rename = "Nick", skip_serializing_if = "Option::is_none", default)]
    pub nick: Option<std::borrow::Cow<'a, str>>,
    #[serde(rename = "FaceUrl", skip_serializing_if = "Option::is_none", default)]
    pub face_url: Option<std::borrow::Cow<'a, str>>,
}

/// The three fields that every answer has, and the request's id where a service adds one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    #[serde(rename = "ActionStatus")]
    pub action_status: String,
    #[serde(rename = "ErrorCode")]
    pub error_code: i64,
    #[serde(rename = "ErrorInfo", default)]
    pub error_info: String,
    #[serde(rename = "RequestId", default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl Answer {
    /// HTTP 200 is not success: the status must be OK **and** the code 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.action_status == "OK" && self.error_code == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_has_the_five_parameters_and_keeps_a_usersig_as_it_is() {
        let query = Query { sdkappid: 1_400_000_000, identifier: "a b&c", usersig: "eJw*-_", random: 4_294_967_295 };
        assert_eq!(
            query.path_and_query(ACCOUNT_IMPORT),
            "/v4/im_open_login_svc/account_import?sdkappid=1400000000&identifier=a%20b%26c&usersig=eJw*-_&random=4294967295&contenttype=json"
        );
    }

    #[test]
    fn an_empty_cell_is_an_omitted_key() {
        let body = ImportBody { user_id: "u".into(), nick: None, face_url: Some("f".into()) };
        assert_eq!(serde_json::to_string(&body).unwrap(), r#"{"UserID":"u","FaceUrl":"f"}"#);
    }
}
