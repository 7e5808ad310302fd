//! Reads the body of a request strictly: documented keys and types only.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::Deserialize;
use serde_json::Value;

use super::command::{self, INVALID_PARAMETER, INVALID_REQUEST};
use super::reply::RequestRefusal;
use super::user_ids::UserIdRules;
use crate::io::api::wire::{self, Command, ImportBody};

/// The body is not JSON. Source: Tencent's error code page.
const NOT_JSON: i64 = 60003;
/// A profile field is too long. Source: Tencent's error code page.
const FIELD_TOO_LONG: i64 = 40601;

/// Longest Nick or FaceUrl, in bytes of UTF-8. Source: Tencent's documentation of the profile fields.
const FIELD_MAX_BYTES: usize = 500;

/// The body of a request.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ParsedRequest<'a> {
    Import(ImportBody<'a>),
    ImportMany(Vec<ImportBody<'a>>),
    Check(Vec<String>),
    Delete(Vec<String>),
    Kick(String),
    GetPortraits { users: Vec<String>, tags: Vec<String> },
    SetPortrait { user: String, items: Vec<wire::ProfileItem<Value>> },
    OnlineStatus { users: Vec<String>, detail: StatusDetail },
}

/// Whether a request asks for the status on each platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StatusDetail {
    Asked,
    NotAsked,
}

impl StatusDetail {
    fn asked_by(is_need_detail: Option<u8>) -> Result<Self, RequestRefusal> {
        match is_need_detail {
            None | Some(0) => Ok(Self::NotAsked),
            Some(1) => Ok(Self::Asked),
            Some(_) => Err(RequestRefusal::form(INVALID_REQUEST, "IsNeedDetail is 0 or 1")),
        }
    }
}

impl<'a> ParsedRequest<'a> {
    /// Reads the body of a request for `command`.
    ///
    /// # Errors
    /// [`RequestRefusal`] for anything that differs from the documented form.
    pub(super) fn read(command: Command, body: &'a [u8]) -> Result<Self, RequestRefusal> {
        let order = match command {
            Command::AccountImport => ParsedRequest::Import(json(command, body)?),
            Command::MultiaccountImport => ParsedRequest::ImportMany(accounts(json(command, body)?)?),
            Command::AccountCheck => ParsedRequest::Check(ids(json::<wire::CheckBody>(command, body)?.users)),
            Command::AccountDelete => ParsedRequest::Delete(ids(json::<wire::DeleteBody>(command, body)?.users)),
            Command::Kick => ParsedRequest::Kick(json::<wire::User>(command, body)?.user_id),
            Command::PortraitGet => {
                let body: wire::PortraitGetBody = json(command, body)?;
                need(command, "TagList", &body.tags)?;
                ParsedRequest::GetPortraits { users: body.users, tags: body.tags }
            }
            Command::PortraitSet => {
                let body: wire::PortraitSetBody<'_, Value> = json(command, body)?;
                need(command, "ProfileItem", &body.items)?;
                ParsedRequest::SetPortrait { user: body.user.into_owned(), items: body.items }
            }
            Command::QueryOnlineStatus => {
                let body: wire::OnlineStatusBody = json(command, body)?;
                ParsedRequest::OnlineStatus { users: body.users, detail: StatusDetail::asked_by(body.is_need_detail)? }
            }
        };
        let (users, most) = (order.users(), command.spec().accounts_per_call);
        if users.is_empty() || users.len() > most {
            return Err(RequestRefusal::form(
                command::invalid(command),
                format!("{} users in a call; 1 to {most} are allowed", users.len()),
            ));
        }
        if command != Command::MultiaccountImport && names_one_twice(&users) {
            return Err(RequestRefusal::form(command::invalid(command), "a user is named twice in a call"));
        }
        Ok(order)
    }

    /// The UserIDs in the request.
    pub(super) fn users(&self) -> Vec<&str> {
        match self {
            ParsedRequest::Import(account) => vec![&account.user_id],
            ParsedRequest::ImportMany(accounts) => accounts.iter().map(|account| &*account.user_id).collect(),
            ParsedRequest::Check(users)
            | ParsedRequest::Delete(users)
            | ParsedRequest::GetPortraits { users, .. }
            | ParsedRequest::OnlineStatus { users, .. } => users.iter().map(String::as_str).collect(),
            ParsedRequest::Kick(user) | ParsedRequest::SetPortrait { user, .. } => vec![user],
        }
    }

    /// Whether the answer has one result per user.
    pub(super) fn is_answered_user_by_user(&self) -> bool {
        match self {
            ParsedRequest::ImportMany(_)
            | ParsedRequest::Check(_)
            | ParsedRequest::Delete(_)
            | ParsedRequest::GetPortraits { .. }
            | ParsedRequest::OnlineStatus { .. } => true,
            ParsedRequest::Import(_) | ParsedRequest::Kick(_) | ParsedRequest::SetPortrait { .. } => false,
        }
    }

    /// Something that a careful client would not send, although the service accepts it.
    pub(super) fn oddity(&self) -> Option<&'static str> {
        const EMPTY: &str = "an empty Nick or FaceUrl; its key should be left out";
        let empty = |account: &ImportBody<'_>| account.nick.as_deref() == Some("") || account.face_url.as_deref() == Some("");
        match self {
            ParsedRequest::Import(account) => empty(account).then_some(EMPTY),
            // The documentation's own example names a user twice; which one counts is not documented.
            ParsedRequest::ImportMany(_) if names_one_twice(&self.users()) => Some("a user is named twice in a batch"),
            ParsedRequest::ImportMany(accounts) => accounts.iter().any(empty).then_some(EMPTY),
            ParsedRequest::Check(_)
            | ParsedRequest::Delete(_)
            | ParsedRequest::Kick(_)
            | ParsedRequest::GetPortraits { .. }
            | ParsedRequest::SetPortrait { .. }
            | ParsedRequest::OnlineStatus { .. } => None,
        }
    }
}

fn names_one_twice(users: &[&str]) -> bool {
    users.len() > 1 && users.iter().collect::<HashSet<_>>().len() < users.len()
}

/// Checks an account as the service does.
///
/// # Errors
/// [`RequestRefusal`] with the documented code.
pub(super) fn check_account(account: &ImportBody<'_>, ids: UserIdRules) -> Result<(), RequestRefusal> {
    ids.check(&account.user_id)?;
    let too_long = |field: &Option<Cow<'_, str>>| field.as_ref().is_some_and(|text| text.len() > FIELD_MAX_BYTES);
    if too_long(&account.nick) || too_long(&account.face_url) {
        return Err(RequestRefusal::content(FIELD_TOO_LONG, "Nick or FaceUrl has more than 500 bytes"));
    }
    Ok(())
}

fn json<'a, T: Deserialize<'a>>(command: Command, body: &'a [u8]) -> Result<T, RequestRefusal> {
    serde_json::from_slice(body).map_err(|error| {
        let code = if error.is_data() { command::invalid(command) } else { NOT_JSON };
        RequestRefusal::form(code, format!("the body of {}: {error}", command.name()))
    })
}

/// Refuses an empty list.
fn need<T>(command: Command, name: &str, list: &[T]) -> Result<(), RequestRefusal> {
    if list.is_empty() {
        return Err(RequestRefusal::form(command::invalid(command), format!("{name} is empty")));
    }
    Ok(())
}

fn accounts(body: wire::MultiImportBody<'_>) -> Result<Vec<ImportBody<'_>>, RequestRefusal> {
    match (body.account_list, body.accounts) {
        (Some(list), None) => Ok(list),
        (None, Some(ids)) => Ok(ids.into_iter().map(|user_id| ImportBody { user_id, nick: None, face_url: None }).collect()),
        (Some(_), Some(_)) | (None, None) => {
            Err(RequestRefusal::form(INVALID_PARAMETER, "exactly one of AccountList and Accounts is needed"))
        }
    }
}

fn ids(users: Vec<wire::User>) -> Vec<String> {
    users.into_iter().map(|user| user.user_id).collect()
}
