//! The app's accounts and the changes to them.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::reply::RequestRefusal;
use super::settings::{DeletedIds, Keep, OmittedFields, SandboxSettings};
use super::tags::NewProfile;
use super::user_ids::UserIdRules;

/// An account as the sandbox stores it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredAccount {
    /// Never empty.
    pub nick: Option<Box<str>>,
    /// Never empty.
    pub face_url: Option<Box<str>>,
    /// The other fields of its profile that are set, by their names on the wire.
    pub tags: BTreeMap<Box<str>, Value>,
    /// How often it was imported since the sandbox started.
    pub imports: u32,
}

/// The accounts by UserID, and the UserIDs that were deleted and not imported again.
///
/// These are trees because a growing hash table moves all its entries at once (60 ms at 230,000 accounts, 280 ms at 920,000, measured).
/// Requests that arrive evenly would wait meanwhile and then look like a burst.
#[derive(Debug, Default)]
pub(super) struct StoredAccounts {
    pub(super) by_id: BTreeMap<Box<str>, StoredAccount>,
    pub(super) deleted: BTreeSet<Box<str>>,
}

/// A change of the stored accounts, one line of the log beside the accounts file. Applying it twice has no further effect.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum AccountChange<'a> {
    /// The account exists and has these fields.
    Set {
        #[serde(rename = "UserID")]
        id: Cow<'a, str>,
        #[serde(rename = "Nick", default, skip_serializing_if = "Option::is_none")]
        nick: Option<Cow<'a, str>>,
        #[serde(rename = "FaceUrl", default, skip_serializing_if = "Option::is_none")]
        face_url: Option<Cow<'a, str>>,
        #[serde(rename = "Tags", default, skip_serializing_if = "BTreeMap::is_empty")]
        tags: Cow<'a, BTreeMap<Box<str>, Value>>,
    },
    /// The account is deleted.
    Delete {
        #[serde(rename = "UserID")]
        id: Cow<'a, str>,
    },
    /// The UserID was deleted earlier. If an account of that name exists, it was imported again afterwards.
    Deleted {
        #[serde(rename = "UserID")]
        id: Cow<'a, str>,
    },
}

/// The stored accounts and the rules for changing them.
#[derive(Debug)]
pub(super) struct Accounts {
    stored: StoredAccounts,
    limit: Option<usize>,
    keep: Keep,
    deleted_ids: DeletedIds,
    ids: UserIdRules,
    omitted_fields: OmittedFields,
    /// Changes since the last [`Self::take_changes`], one JSON object per line; `None` if changes are not recorded.
    changes: Option<Vec<u8>>,
}

/// The result of deleting one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deletion {
    Deleted,
    Unknown,
}

impl StoredAccount {
    /// Sets the given fields; an empty text clears the field.
    fn set(&mut self, nick: Option<&str>, face_url: Option<&str>) -> ProfileChange {
        let (nick, face_url) = (put(&mut self.nick, nick), put(&mut self.face_url, face_url));
        if nick == ProfileChange::Changed { nick } else { face_url }
    }

    /// Sets a field of the profile; an empty text clears it.
    fn set_tag(&mut self, tag: &str, value: &Value) -> ProfileChange {
        let is_cleared = value.as_str() == Some("");
        let before = if is_cleared { self.tags.remove(tag) } else { self.tags.insert(tag.into(), value.clone()) };
        if before.as_ref() == Some(value).filter(|_| !is_cleared) { ProfileChange::None } else { ProfileChange::Changed }
    }
}

/// Whether a change made a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProfileChange {
    Changed,
    None,
}

fn put(field: &mut Option<Box<str>>, text: Option<&str>) -> ProfileChange {
    let Some(text) = text else { return ProfileChange::None };
    let wanted = (!text.is_empty()).then_some(text);
    if field.as_deref() == wanted {
        return ProfileChange::None;
    }
    *field = wanted.map(Into::into);
    ProfileChange::Changed
}

impl StoredAccounts {
    /// Applies a recorded change.
    pub(super) fn apply(&mut self, change: AccountChange<'_>) {
        match change {
            AccountChange::Set { id, nick, face_url, tags } => {
                self.deleted.remove(&*id);
                let account = self.by_id.entry(id.into()).or_default();
                account.set(Some(nick.as_deref().unwrap_or_default()), Some(face_url.as_deref().unwrap_or_default()));
                account.tags = tags.into_owned();
            }
            AccountChange::Delete { id } => {
                self.by_id.remove(&*id);
                self.deleted.insert(id.into());
            }
            AccountChange::Deleted { id } => {
                if !self.by_id.contains_key(&*id) {
                    self.deleted.insert(id.into());
                }
            }
        }
    }

    /// The accounts, sorted by the bytes of their UserIDs.
    pub(super) fn sorted(&self) -> Vec<(&str, &StoredAccount)> {
        let mut accounts: Vec<_> = self.by_id.iter().map(|(id, account)| (&**id, account)).collect();
        accounts.sort_unstable_by_key(|&(id, _)| id);
        accounts
    }
}

impl Accounts {
    pub(super) fn new(settings: &SandboxSettings, stored: StoredAccounts) -> Self {
        Self {
            stored,
            limit: settings.account_limit,
            keep: settings.keep,
            deleted_ids: settings.deleted_ids,
            ids: settings.user_ids,
            omitted_fields: settings.omitted_fields,
            changes: None,
        }
    }

    /// Records changes from now on, for [`Self::take_changes`].
    pub(super) fn note_changes(&mut self) {
        self.changes = Some(Vec::new());
    }

    /// The changes since the last call of this function, as lines of the log.
    pub(super) fn take_changes(&mut self) -> Vec<u8> {
        self.changes.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Creates an account or updates the existing one.
    ///
    /// # Errors
    /// [`RequestRefusal`] if the UserID was deleted and is barred, or if the app is full.
    pub(super) fn import(&mut self, id: &str, nick: Option<&str>, face_url: Option<&str>) -> Result<(), RequestRefusal> {
        match self.keep {
            Keep::Nothing => return Ok(()),
            Keep::Accounts => {}
        }
        let id = &*self.ids.account_id(id);
        if let Some(account) = self.stored.by_id.get_mut(id) {
            account.imports += 1;
            let [nick, face_url] = [nick, face_url].map(|field| match self.omitted_fields {
                OmittedFields::Kept => field,
                OmittedFields::Cleared => Some(field.unwrap_or_default()),
            });
            if account.set(nick, face_url) == ProfileChange::Changed {
                self.note_set(id);
            }
            return Ok(());
        }
        if self.deleted_ids == DeletedIds::Barred && self.stored.deleted.contains(id) {
            return Err(RequestRefusal::content(70399, "the account was deleted within the last three months"));
        }
        if self.limit.is_some_and(|limit| self.stored.by_id.len() >= limit) {
            return Err(RequestRefusal::content(70398, "the app holds as many accounts as it may"));
        }
        let mut account = StoredAccount { imports: 1, ..StoredAccount::default() };
        account.set(nick, face_url);
        self.stored.by_id.insert(id.into(), account);
        self.stored.deleted.remove(id);
        self.note_set(id);
        Ok(())
    }

    /// Sets fields of a profile; an absent field keeps its value.
    ///
    /// # Errors
    /// [`RequestRefusal`] for an unknown user.
    pub(super) fn set_profile(&mut self, id: &str, profile: &NewProfile<'_>) -> Result<(), RequestRefusal> {
        match self.keep {
            Keep::Nothing => return Ok(()),
            Keep::Accounts => {}
        }
        let id = &*self.ids.account_id(id);
        let account = self.stored.by_id.get_mut(id).ok_or_else(|| RequestRefusal::content(40003, "no such account"))?;
        let mut has_changed = account.set(profile.nick, profile.face_url) == ProfileChange::Changed;
        for (tag, value) in &profile.tags {
            has_changed |= account.set_tag(tag, value) == ProfileChange::Changed;
        }
        if has_changed {
            self.note_set(id);
        }
        Ok(())
    }

    pub(super) fn get(&self, id: &str) -> Option<&StoredAccount> {
        self.stored.by_id.get(&*self.ids.account_id(id))
    }

    pub(super) fn delete(&mut self, id: &str) -> Deletion {
        let id = self.ids.account_id(id);
        let Some((key, _)) = self.stored.by_id.remove_entry(&*id) else { return Deletion::Unknown };
        self.stored.deleted.insert(key);
        note(&mut self.changes, &AccountChange::Delete { id });
        Deletion::Deleted
    }

    pub(super) fn stored(&self) -> &StoredAccounts {
        &self.stored
    }

    fn note_set(&mut self, id: &str) {
        if self.changes.is_none() {
            return;
        }
        if let Some(StoredAccount { nick, face_url, tags, .. }) = self.stored.by_id.get(id) {
            let [nick, face_url] = [nick, face_url].map(|text| text.as_deref().map(Cow::from));
            note(&mut self.changes, &AccountChange::Set { id: id.into(), nick, face_url, tags: Cow::Borrowed(tags) });
        }
    }
}

fn note(changes: &mut Option<Vec<u8>>, change: &AccountChange<'_>) {
    if let Some(lines) = changes {
        change.write_to(lines);
    }
}

impl AccountChange<'_> {
    /// Appends the change as one line of JSON.
    pub(super) fn write_to(&self, lines: &mut Vec<u8>) {
        serde_json::to_writer(&mut *lines, self).expect("writing to a Vec cannot fail, and every text is valid JSON");
        lines.push(b'\n');
    }
}
