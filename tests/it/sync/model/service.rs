//! The service of the model: it may refuse, or take without a word.

use std::collections::BTreeMap;
use std::time::Duration;

use chatlift::domain::account::Account;
use chatlift::domain::answer::{AccountStatus, Answer, Item, Profile};
use chatlift::domain::command::Command;
use chatlift::domain::tag::{Tag, TagValue};
use chatlift::domain::verdict::CallOutcome;

use crate::sync::memory_service::{MemoryService, Serves};

pub(super) const LATENCY: Duration = Duration::from_millis(40);
/// Refused for the record's own fault, and what passes, or doesn't.
pub(super) const ROWS_OWN: i64 = 70402;
pub(super) const PASSING: i64 = 70169;
pub(super) const NO_ACCOUNT: i64 = 40003;

/// An account of the service.
#[derive(Debug, Clone, Default)]
pub(super) struct ServiceAccount {
    pub(super) nick: String,
    pub(super) face: String,
    pub(super) tags: BTreeMap<Tag, TagValue>,
}

/// Nothing is heard of a record, …
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// … which was taken …
    AndTaken,
    /// … or not.
    AndGone,
}

/// What a record meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It is refused for its own fault.
    Refused,
    Lost(Lost),
}

/// The service.
pub(super) type Service = MemoryService<Troubled>;

pub(super) struct Troubled {
    pub(super) accounts: BTreeMap<String, ServiceAccount>,
    /// Every fifth id is always refused for its own fault …
    pub(super) refuses: bool,
    /// … and nothing is heard of some others.
    pub(super) lost: Option<Lost>,
    pub(super) chance: fastrand::Rng,
}

impl Troubled {
    pub(super) fn trouble_of(&self, id: &str) -> Option<Trouble> {
        match id[1..].parse::<u8>().expect("it has a number") % 5 {
            0 if self.refuses => Some(Trouble::Refused),
            1 | 2 => self.lost.map(Trouble::Lost),
            _ => None,
        }
    }

    /// What a record's tags meet. A level is what is refused: where tags are tried one by one, others are taken.
    pub(super) fn trouble_of_tags(&self, account: &Account) -> Option<Trouble> {
        let has_level = account.tags.iter().any(|item| item.tag == Tag::Level);
        match account.user_id.as_str()[1..].parse::<u8>().expect("it has a number") % 5 {
            3 if self.refuses && has_level => Some(Trouble::Refused),
            3 | 4 => self.lost.map(Trouble::Lost),
            _ => None,
        }
    }

    pub(super) fn import(&mut self, id: &str, nick: Option<&str>, face: Option<&str>) {
        let held = self.accounts.entry(id.to_owned()).or_default();
        held.nick = nick.unwrap_or(&held.nick).to_owned();
        held.face = face.unwrap_or(&held.face).to_owned();
    }

    pub(super) fn set_tags(&mut self, id: &str, tags: impl IntoIterator<Item = (Tag, TagValue)>) {
        self.accounts.get_mut(id).expect("it was imported").tags.extend(tags);
    }

    /// Sets the tags of an account: what they meet.
    pub(super) fn portrait_set(&mut self, account: &Account) -> Result<(), i64> {
        if !self.accounts.contains_key(account.user_id.as_str()) {
            return Err(NO_ACCOUNT);
        }
        let trouble = self.trouble_of_tags(account);
        if matches!(trouble, None | Some(Trouble::Lost(Lost::AndTaken))) {
            let tags = account.tags.iter().map(|item| (item.tag.clone(), item.value.clone()));
            self.set_tags(account.user_id.as_str(), tags);
        }
        match trouble {
            None => Ok(()),
            Some(Trouble::Refused) => Err(ROWS_OWN),
            Some(Trouble::Lost(_)) => Err(PASSING),
        }
    }

    /// Imports what it takes: those that it doesn't.
    pub(super) fn imported(&mut self, accounts: &[Account]) -> Vec<(Box<str>, Trouble)> {
        let mut refused = Vec::new();
        for Account { user_id, nick, face_url, .. } in accounts {
            let trouble = self.trouble_of(user_id.as_str());
            if matches!(trouble, None | Some(Trouble::Lost(Lost::AndTaken))) {
                self.import(user_id.as_str(), nick.as_deref(), face_url.as_deref());
            }
            refused.extend(trouble.map(|trouble| (user_id.as_str().into(), trouble)));
        }
        refused
    }
}

impl Serves for Troubled {
    const LATENCY: Duration = LATENCY;

    /// Whoever is killed while he waits may have been heard, or not.
    fn is_heard_first(&mut self) -> bool {
        self.chance.bool()
    }

    fn take(&mut self, command: Command, accounts: &[Account]) -> CallOutcome {
        let refused = |code| CallOutcome::Refused { code, info: String::new() };
        match command {
            Command::AccountImport => match self.imported(accounts).first() {
                None => CallOutcome::Done(Answer::Nothing),
                Some((_, Trouble::Refused)) => refused(ROWS_OWN),
                Some((_, Trouble::Lost(_))) => refused(PASSING),
            },
            Command::MultiaccountImport => {
                let refused = self.imported(accounts);
                CallOutcome::Done(Answer::FailAccounts(refused.into_iter().map(|(id, _)| id).collect()))
            }
            Command::PortraitGet => {
                let known = accounts.iter().filter_map(|account| Some((account, self.accounts.get(account.user_id.as_str())?)));
                let field = |text: &str| Some(text.into()).filter(|_| !text.is_empty());
                let profile = |(account, ServiceAccount { nick, face, .. }): (&Account, &ServiceAccount)| Profile {
                    user_id: account.user_id.as_str().into(),
                    fields: [field(nick), field(face)].into(),
                    ..Profile::default()
                };
                CallOutcome::Done(Answer::Profiles(known.map(profile).collect()))
            }
            Command::AccountCheck => {
                let item = |account: &Account| Item { user_id: account.user_id.as_str().into(), said: Ok(AccountStatus::Imported) };
                CallOutcome::Done(Answer::Statuses(accounts.iter().map(item).collect()))
            }
            Command::PortraitSet => match self.portrait_set(&accounts[0]) {
                Ok(()) => CallOutcome::Done(Answer::Nothing),
                Err(code) => refused(code),
            },
            Command::Kick | Command::AccountDelete | Command::QueryOnlineStatus => {
                panic!("nobody asks for {command:?}")
            }
        }
    }
}
