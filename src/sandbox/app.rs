//! The app: executes each command and builds its answer.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::accounts::{Accounts, Deletion, StoredAccount, StoredAccounts};
use super::call_log_entry::Codes;
use super::fault_injector::TargetedUser;
use super::parsed_request::{self, ParsedRequest, StatusDetail};
use super::reply::{Reply, RequestRefusal};
use super::settings::{BatchProfiles, CustomFields, Deleting, KnownAccounts, PresenceField, SandboxSettings, UnknownProfiles};
use super::tags::NewProfile;
use super::user_ids::UserIdRules;
use crate::io::api::wire::{self, ImportBody};

/// The code of the account service for an unknown account. Source: Tencent's error code page.
const UNKNOWN_ACCOUNT: i64 = 70107;
/// The code of the profile service for an unknown account. Source: Tencent's error code page.
const UNKNOWN_PROFILE: i64 = 40003;
/// Replaces the UserID of an unknown user in an answer of `portrait_get`. Source: seen in working client code.
const NOT_FOUND: &str = "@TLS#NOT_FOUND";

/// An app with its accounts.
#[derive(Debug)]
pub(super) struct App {
    pub(super) accounts: Accounts,
    /// The presence of users by UserID. Users without an entry are offline.
    online: HashMap<String, PresenceField>,
    administrator: String,
    deleting: Deleting,
    batch_profiles: BatchProfiles,
    unknown_profiles: UnknownProfiles,
    custom_fields: CustomFields,
    ids: UserIdRules,
    known_accounts: KnownAccounts,
}

/// The result of a request that was executed for at least some of its users.
#[derive(Debug)]
pub(super) struct ExecutedRequest {
    pub(super) reply: Reply,
    pub(super) codes: Codes,
    pub(super) effect: RequestEffect,
}

/// What an executed request means outside of the accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RequestEffect {
    None,
    /// So many users were to be imported.
    Imported(usize),
    /// The user's signatures are void.
    Kicked(String),
}

impl ExecutedRequest {
    fn new(reply: Reply, codes: Codes) -> Self {
        Self { reply, codes, effect: RequestEffect::None }
    }

    fn whole(effect: RequestEffect) -> Self {
        Self { effect, ..Self::new(Reply::ok(), Codes::All(0)) }
    }
}

/// Users (by hash) whose part of a request fails because of a fault, and the code that each of them gets.
#[derive(Debug, Clone, Copy)]
pub(super) struct AffectedUsers<'a> {
    pub(super) users: &'a [u64],
    pub(super) code: i64,
}

impl AffectedUsers<'_> {
    pub(super) const NOBODY: AffectedUsers<'static> = AffectedUsers { users: &[], code: 0 };

    fn check(&self, id: &str) -> Result<(), RequestRefusal> {
        let is_affected = !self.users.is_empty() && self.users.contains(&TargetedUser::new(id).hash);
        if is_affected { Err(RequestRefusal::content(self.code, "a fault on request")) } else { Ok(()) }
    }
}

impl App {
    pub(super) fn new(settings: &SandboxSettings, stored: StoredAccounts) -> Self {
        Self {
            accounts: Accounts::new(settings, stored),
            online: settings.online.iter().cloned().collect(),
            administrator: settings.identifier.clone(),
            deleting: settings.deleting,
            batch_profiles: settings.batch_profiles,
            unknown_profiles: settings.unknown_profiles,
            custom_fields: settings.custom_fields.clone(),
            ids: settings.user_ids,
            known_accounts: settings.known_accounts,
        }
    }

    /// Executes the request for all users except the affected ones.
    ///
    /// # Errors
    /// [`RequestRefusal`] if the request as a whole is refused.
    pub(super) fn execute(&mut self, request: &ParsedRequest<'_>, affected: AffectedUsers<'_>) -> Result<ExecutedRequest, RequestRefusal> {
        match request {
            ParsedRequest::Import(account) => self.import_one(account).map(|()| ExecutedRequest::whole(RequestEffect::Imported(1))),
            ParsedRequest::ImportMany(accounts) => Ok(self.import_many(accounts, affected)),
            ParsedRequest::Check(users) => Ok(self.check(users, affected)),
            ParsedRequest::Delete(users) => self.delete(users, affected),
            ParsedRequest::Kick(user) => self.kick(user),
            ParsedRequest::GetPortraits { users, tags } => Ok(self.portraits(users, tags, affected)),
            ParsedRequest::SetPortrait { user, items } => self.set_portrait(user, items),
            ParsedRequest::OnlineStatus { users, detail } => Ok(self.online_status(users, *detail, affected)),
        }
    }

    fn import_one(&mut self, account: &ImportBody<'_>) -> Result<(), RequestRefusal> {
        let is_known = self.accounts.get(&account.user_id).is_some();
        match self.known_accounts {
            KnownAccounts::Unchanged if is_known => parsed_request::check_account(account, self.ids),
            KnownAccounts::Unchanged | KnownAccounts::Updated => self.import(account),
        }
    }

    fn import(&mut self, account: &ImportBody<'_>) -> Result<(), RequestRefusal> {
        parsed_request::check_account(account, self.ids)?;
        self.accounts.import(&account.user_id, account.nick.as_deref(), account.face_url.as_deref())
    }

    fn import_many(&mut self, accounts: &[ImportBody<'_>], affected: AffectedUsers<'_>) -> ExecutedRequest {
        let profiles = self.batch_profiles;
        let mut import = |account: &ImportBody<'_>| match profiles {
            BatchProfiles::Kept => self.import(account),
            BatchProfiles::Dropped => self.import(&ImportBody { nick: None, face_url: None, ..account.clone() }),
        };
        let mut failed: Vec<&str> = Vec::new();
        let mut codes = Vec::with_capacity(accounts.len());
        for account in accounts {
            let code = code(&affected.check(&account.user_id).and_then(|()| import(account)));
            if code != 0 {
                failed.push(&account.user_id);
            }
            codes.push(code);
        }
        let reply = if failed.is_empty() { Reply::ok() } else { Reply::with(fields("FailAccounts", json!(failed))) };
        ExecutedRequest { effect: RequestEffect::Imported(accounts.len()), ..ExecutedRequest::new(reply, Codes::Each(codes)) }
    }

    fn check(&self, users: &[String], affected: AffectedUsers<'_>) -> ExecutedRequest {
        let status = |user: &str| affected.check(user).and_then(|()| self.ids.check(user)).map(|()| self.accounts.get(user));
        answer_per_user("ResultItem", users, |user| match status(user) {
            Ok(account) => {
                let status = if account.is_some() { "Imported" } else { "NotImported" };
                (0, json!({ "UserID": user, "ResultCode": 0, "ResultInfo": "", "AccountStatus": status }))
            }
            Err(refusal) => (refusal.code, result(user, Err(&refusal))),
        })
    }

    fn delete(&mut self, users: &[String], affected: AffectedUsers<'_>) -> Result<ExecutedRequest, RequestRefusal> {
        match self.deleting {
            Deleting::SwitchedOff => return Err(RequestRefusal::content(71000, "deleting accounts is switched off for this app")),
            Deleting::SwitchedOn => {}
        }
        Ok(answer_per_user("ResultItem", users, |user| {
            let outcome = affected.check(user).and_then(|()| self.delete_one(user));
            (code(&outcome), result(user, outcome.as_ref().copied()))
        }))
    }

    fn delete_one(&mut self, user: &str) -> Result<(), RequestRefusal> {
        self.ids.check(user)?;
        match self.accounts.delete(user) {
            Deletion::Deleted => {
                self.online.remove(user);
                Ok(())
            }
            Deletion::Unknown => Err(unknown()),
        }
    }

    fn kick(&mut self, user: &str) -> Result<ExecutedRequest, RequestRefusal> {
        if self.accounts.get(user).is_none() && user != self.administrator {
            return Err(unknown());
        }
        self.online.remove(user);
        Ok(ExecutedRequest::whole(RequestEffect::Kicked(user.to_owned())))
    }

    fn portraits(&self, users: &[String], tags: &[String], affected: AffectedUsers<'_>) -> ExecutedRequest {
        let (mut items, mut codes) = (Vec::with_capacity(users.len()), Vec::with_capacity(users.len()));
        for user in users {
            let (code, item) = match (affected.check(user), self.accounts.get(user)) {
                (Err(refusal), _) => {
                    let item = json!({ "To_Account": user, "ResultCode": refusal.code, "ResultInfo": refusal.info });
                    (refusal.code, Some(item))
                }
                (Ok(()), Some(account)) => {
                    let item = json!({ "To_Account": user, "ProfileItem": profile(account, tags), "ResultCode": 0, "ResultInfo": "" });
                    (0, Some(item))
                }
                (Ok(()), None) => (UNKNOWN_PROFILE, self.unknown_profile()),
            };
            items.extend(item);
            codes.push(code);
        }
        let failed: Vec<&String> = users.iter().zip(&codes).filter(|(_, code)| **code != 0).map(|(user, _)| user).collect();
        let mut answer = fields("UserProfileItem", items.into());
        answer.insert("ErrorDisplay".to_owned(), "".into());
        if !failed.is_empty() {
            answer.insert("Fail_Account".to_owned(), json!(failed));
        }
        ExecutedRequest::new(Reply::with(answer), Codes::Each(codes))
    }

    fn unknown_profile(&self) -> Option<Value> {
        match self.unknown_profiles {
            UnknownProfiles::NotFound => {
                Some(json!({ "To_Account": NOT_FOUND, "ResultCode": UNKNOWN_PROFILE, "ResultInfo": "no such account" }))
            }
            UnknownProfiles::Absent => None,
        }
    }

    fn set_portrait(&mut self, user: &str, items: &[wire::ProfileItem<Value>]) -> Result<ExecutedRequest, RequestRefusal> {
        self.accounts.set_profile(user, &NewProfile::read(items, &self.custom_fields)?)?;
        Ok(ExecutedRequest::new(Reply::ok_with_display(), Codes::All(0)))
    }

    fn online_status(&self, users: &[String], detail: StatusDetail, affected: AffectedUsers<'_>) -> ExecutedRequest {
        let (mut known, mut errors, mut codes) = (Vec::new(), Vec::new(), Vec::with_capacity(users.len()));
        for user in users {
            let outcome = affected.check(user).and_then(|()| self.accounts.get(user).map(|_| ()).ok_or_else(unknown));
            let code = code(&outcome);
            match outcome {
                Ok(()) => known.push(shown_presence(user, self.online.get(user).copied(), detail)),
                Err(_) => errors.push(json!({ "To_Account": user, "ErrorCode": code })),
            }
            codes.push(code);
        }
        let mut fields = fields("QueryResult", known.into());
        if !errors.is_empty() {
            fields.insert("ErrorList".to_owned(), errors.into());
        }
        ExecutedRequest::new(Reply::with(fields), Codes::Each(codes))
    }
}

/// A user's presence as an answer shows it, with the status on each platform if that is asked for.
fn shown_presence(user: &str, presence: Option<PresenceField>, detail: StatusDetail) -> Value {
    let status = presence.map_or("Offline", PresenceField::status);
    let mut shown = json!({ "To_Account": user, "Status": status });
    if let (Some(presence), StatusDetail::Asked) = (presence, detail) {
        shown["Detail"] = json!([{ "Platform": presence.platform(), "Status": status }]);
    }
    shown
}

fn unknown() -> RequestRefusal {
    RequestRefusal::content(UNKNOWN_ACCOUNT, "no such account")
}

fn code(outcome: &Result<(), RequestRefusal>) -> i64 {
    outcome.as_ref().map_or_else(|refusal| refusal.code, |()| 0)
}

/// One item of a result list: the code and the message for one user.
fn result(user: &str, outcome: Result<(), &RequestRefusal>) -> Value {
    let (code, info) = outcome.map_or_else(|refusal| (refusal.code, &*refusal.info), |()| (0, ""));
    json!({ "UserID": user, "ResultCode": code, "ResultInfo": info })
}

/// An answer with one list item per user.
fn answer_per_user(name: &str, users: &[String], item: impl FnMut(&String) -> (i64, Value)) -> ExecutedRequest {
    let (codes, items): (Vec<i64>, Vec<Value>) = users.iter().map(item).unzip();
    ExecutedRequest::new(Reply::with(fields(name, items.into())), Codes::Each(codes))
}

fn fields(name: &str, value: Value) -> Map<String, Value> {
    Map::from_iter([(name.to_owned(), value)])
}

/// The profile fields that `tags` asks for, if they are set.
fn profile(account: &StoredAccount, tags: &[String]) -> Value {
    let field = |tag: &String| {
        let value = match tag.as_str() {
            wire::TAG_NICK => account.nick.as_deref().map(Value::from),
            wire::TAG_IMAGE => account.face_url.as_deref().map(Value::from),
            tag => account.tags.get(tag).cloned(),
        };
        value.map(|value| json!({ "Tag": tag, "Value": value }))
    };
    tags.iter().filter_map(field).collect()
}
