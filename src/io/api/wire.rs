//! The wire format: commands with their paths, query parameters and bodies, exactly as Tencent documents them.
//!
//! The sandbox uses this module too, so that both sides have the same names. It signs nothing and sends nothing.

use std::borrow::Cow;
use std::num::NonZeroU32;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

pub use crate::domain::command::Command;
use crate::domain::profile::ProfileField;

/// Imports one account.
pub const ACCOUNT_IMPORT: &str = Command::AccountImport.spec().path;
/// Imports up to [`ACCOUNTS_PER_CALL`] accounts.
pub const MULTIACCOUNT_IMPORT: &str = Command::MultiaccountImport.spec().path;
/// Tells which accounts exist.
pub const ACCOUNT_CHECK: &str = Command::AccountCheck.spec().path;
/// Deletes accounts permanently.
pub const ACCOUNT_DELETE: &str = Command::AccountDelete.spec().path;
/// Ends a user's sessions and invalidates earlier UserSigs.
pub const KICK: &str = Command::Kick.spec().path;
/// Reads profiles.
pub const PORTRAIT_GET: &str = Command::PortraitGet.spec().path;
/// Changes a profile.
pub const PORTRAIT_SET: &str = Command::PortraitSet.spec().path;
/// Tells who is online.
pub const QUERY_ONLINE_STATUS: &str = Command::QueryOnlineStatus.spec().path;

/// Documented limit of [`ACCOUNT_IMPORT`] in requests per second.
pub const ACCOUNT_IMPORT_CALLS_PER_S: NonZeroU32 = Command::AccountImport.spec().calls_per_s;
/// Documented limit of [`MULTIACCOUNT_IMPORT`], [`ACCOUNT_CHECK`] and [`ACCOUNT_DELETE`] in requests per second, each.
pub const BATCH_CALLS_PER_S: NonZeroU32 = Command::MultiaccountImport.spec().calls_per_s;
/// Documented limit of [`KICK`], [`PORTRAIT_GET`], [`PORTRAIT_SET`] and [`QUERY_ONLINE_STATUS`] in requests per second, each.
pub const PROFILE_CALLS_PER_S: NonZeroU32 = Command::PortraitGet.spec().calls_per_s;

/// Documented maximum of accounts in one request of the batch APIs and of [`PORTRAIT_GET`].
pub const ACCOUNTS_PER_CALL: usize = Command::MultiaccountImport.spec().accounts_per_call;
/// Documented maximum of users in one request of [`QUERY_ONLINE_STATUS`].
pub const ONLINE_STATUS_PER_CALL: usize = Command::QueryOnlineStatus.spec().accounts_per_call;

/// Profile tag of the nickname.
pub const TAG_NICK: &str = ProfileField::Nick.spec().tag;
/// Profile tag of the avatar's URL.
pub const TAG_IMAGE: &str = ProfileField::FaceUrl.spec().tag;

/// The path of a command (`SERVICE/COMMAND`).
#[must_use]
pub fn path(command: &str) -> String {
    format!("/v4/{command}")
}

/// The characters to escape in a query value. The `*` and `-` of a UserSig stay, as in Tencent's examples.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'*').remove(b'~');

/// The query parameters that are the same for all requests with one signature.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    pub sdkappid: u64,
    pub identifier: &'a str,
    pub usersig: &'a str,
}

impl Query<'_> {
    /// The query of a request up to its `random`.
    #[must_use]
    pub fn before_random(&self) -> String {
        let [identifier, usersig] = [self.identifier, self.usersig].map(|value| utf8_percent_encode(value, ESCAPED));
        format!("sdkappid={}&identifier={identifier}&usersig={usersig}", self.sdkappid)
    }
}

/// The rest of a request's query.
#[must_use]
pub fn random_and_type(random: u32) -> [(&'static str, Cow<'static, str>); 2] {
    [("random", random.to_string().into()), ("contenttype", "json".into())]
}

/// Body of [`ACCOUNT_IMPORT`]; an absent field is an omitted key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportBody<'a> {
    #[serde(rename = "UserID")]
    pub user_id: Cow<'a, str>,
    #[serde(rename = "Nick", skip_serializing_if = "Option::is_none", default)]
    pub nick: Option<Cow<'a, str>>,
    #[serde(rename = "FaceUrl", skip_serializing_if = "Option::is_none", default)]
    pub face_url: Option<Cow<'a, str>>,
}

/// Body of [`MULTIACCOUNT_IMPORT`]: one of the two lists, the second being the older form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MultiImportBody<'a> {
    #[serde(rename = "AccountList", skip_serializing_if = "Option::is_none", default)]
    pub account_list: Option<Vec<ImportBody<'a>>>,
    #[serde(rename = "Accounts", skip_serializing_if = "Option::is_none", default)]
    pub accounts: Option<Vec<Cow<'a, str>>>,
}

/// A user in a list of [`ACCOUNT_CHECK`] or [`ACCOUNT_DELETE`], and the whole body of [`KICK`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    #[serde(rename = "UserID")]
    pub user_id: String,
}

/// Body of [`ACCOUNT_CHECK`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckBody {
    #[serde(rename = "CheckItem")]
    pub users: Vec<User>,
}

/// Body of [`ACCOUNT_DELETE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteBody {
    #[serde(rename = "DeleteItem")]
    pub users: Vec<User>,
}

/// Body of [`PORTRAIT_GET`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortraitGetBody {
    #[serde(rename = "To_Account")]
    pub users: Vec<String>,
    #[serde(rename = "TagList")]
    pub tags: Vec<String>,
}

/// Body of [`PORTRAIT_SET`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortraitSetBody<'a, V> {
    #[serde(rename = "From_Account")]
    pub user: Cow<'a, str>,
    #[serde(rename = "ProfileItem")]
    pub items: Vec<ProfileItem<V>>,
}

/// A field of a profile with its value `V`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileItem<V> {
    #[serde(rename = "Tag")]
    pub tag: String,
    #[serde(rename = "Value")]
    pub value: V,
}

/// A value as it is sent; the service refuses a value whose JSON type is not its tag's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ProfileValue<'a> {
    Text(&'a str),
    Number(u32),
}

/// Body of [`QUERY_ONLINE_STATUS`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnlineStatusBody {
    #[serde(rename = "To_Account")]
    pub users: Vec<String>,
    /// 1 asks for the status on each platform.
    #[serde(rename = "IsNeedDetail", skip_serializing_if = "Option::is_none", default)]
    pub is_need_detail: Option<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_has_the_five_parameters_and_keeps_a_usersig_as_it_is() {
        let query = Query { sdkappid: 1_400_000_000, identifier: "a b&c", usersig: "eJw*-_" };
        assert_eq!(query.before_random(), "sdkappid=1400000000&identifier=a%20b%26c&usersig=eJw*-_");
        assert_eq!(random_and_type(4_294_967_295), [("random", "4294967295".into()), ("contenttype", "json".into())]);
        assert_eq!(path(ACCOUNT_IMPORT), "/v4/im_open_login_svc/account_import");
    }

    #[test]
    fn an_empty_cell_is_an_omitted_key() {
        let body = ImportBody { user_id: "u".into(), nick: None, face_url: Some("f".into()) };
        assert_eq!(serde_json::to_string(&body).unwrap(), r#"{"UserID":"u","FaceUrl":"f"}"#);
    }
}
