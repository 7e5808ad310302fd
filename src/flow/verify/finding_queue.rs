//! The ids that are being asked about, in input order, until the finding of each can be reported.

use std::collections::VecDeque;

use csv::ByteRecord;

use crate::domain::account::Account;
use crate::domain::answer::{AccountStatus, Profile};
use crate::domain::comparison::{Comparison, Differing, Finding};
use crate::domain::tag::{TagItem, TagValue};
use crate::io::roster::Record;

/// What an API has said of an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum IdAnswer<T> {
    NotAsked,
    Awaited,
    Said(T),
    /// It could not be asked, and why.
    Failed(String),
}

#[derive(Debug)]
struct PendingId {
    row: u64,
    line: u64,
    /// The UserID cell, if it is not the account's id to the letter.
    other_cell: Option<Box<[u8]>>,
    account: Account,
    fields: ByteRecord,
    status: IdAnswer<AccountStatus>,
    profile: IdAnswer<Differing>,
}

#[derive(Debug)]
enum QueuedFinding {
    Open(Box<PendingId>),
    Found(Finding),
}

/// The number of a finding; they are numbered in input order.
pub(super) type FindingNumber = u64;

/// Whether profiles are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProfileComparison {
    Compared,
    Left,
}

/// The ids between input and findings.
#[derive(Debug, Default)]
pub(super) struct FindingQueue {
    queue: VecDeque<QueuedFinding>,
    first: FindingNumber,
    bytes: usize,
    /// Ids that were asked about, and whose findings are here.
    answered: usize,
}

impl FindingQueue {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Bytes of memory, roughly.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Ids that were asked about and whose findings wait here, mostly for an earlier one.
    pub(super) const fn answered(&self) -> usize {
        self.answered
    }

    /// Takes the next record: its queued and account if it is to be asked about.
    pub(super) fn push(&mut self, record: Record, profiles: ProfileComparison) -> Option<(FindingNumber, Account)> {
        let Record { row, line, user_id, other_id, account, fields, .. } = record;
        let id = self.first + self.queue.len() as u64;
        let (queued, asked) = match account {
            Err(why) => {
                let state = Comparison::Invalid(why.to_string());
                (QueuedFinding::Found(Finding { row, line, user_id, other_id, state, original: None }), None)
            }
            Ok(account) => {
                let compares = profiles == ProfileComparison::Compared && account.is_compared();
                let profile = if compares { IdAnswer::Awaited } else { IdAnswer::NotAsked };
                let asked = account.clone();
                let other_cell = other_id.map(|_| user_id);
                let pending = PendingId { row, line, other_cell, account, fields, status: IdAnswer::Awaited, profile };
                (QueuedFinding::Open(Box::new(pending)), Some((id, asked)))
            }
        };
        self.bytes += queued.weight();
        self.queue.push_back(queued);
        asked
    }

    pub(super) fn note_status(&mut self, id: FindingNumber, status: IdAnswer<AccountStatus>) {
        self.update(id, |open| open.status = status);
    }

    /// Compares what was sent with what is shown.
    pub(super) fn note_profile(&mut self, id: FindingNumber, profile: IdAnswer<Profile>) {
        self.update(id, |open| {
            open.profile = match profile {
                IdAnswer::Said(profile) => IdAnswer::Said(differing(&open.account, &profile)),
                IdAnswer::Failed(why) => IdAnswer::Failed(why),
                IdAnswer::NotAsked => IdAnswer::NotAsked,
                IdAnswer::Awaited => IdAnswer::Awaited,
            };
        });
    }

    /// A finding that is there already stays as it is.
    fn update(&mut self, id: FindingNumber, change: impl FnOnce(&mut PendingId)) {
        let index = id.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let Some(queued) = index.and_then(|index| self.queue.get_mut(index)) else { return };
        let QueuedFinding::Open(open) = queued else { return };
        change(open);
        let Some(state) = open.state() else { return };
        let before = open.weight();
        let id: Box<[u8]> = open.account.user_id.as_str().as_bytes().into();
        let (user_id, other_id) = match open.other_cell.take() {
            Some(cell) => (cell, Some(id)),
            None => (id, None),
        };
        let original = state.is_repairable().then(|| std::mem::take(&mut open.fields));
        let finding = Finding { row: open.row, line: open.line, user_id, other_id, state, original };
        *queued = QueuedFinding::Found(finding);
        self.answered += 1;
        self.bytes = self.bytes + queued.weight() - before;
    }

    /// The next finding in input order, if it can be told.
    pub(super) fn take_found(&mut self) -> Option<Finding> {
        if !matches!(self.queue.front()?, QueuedFinding::Found(_)) {
            return None;
        }
        self.drop_first()
    }

    /// Drops the first id, and returns its finding if there is one.
    pub(super) fn drop_first(&mut self) -> Option<Finding> {
        let queued = self.queue.pop_front()?;
        self.first += 1;
        self.bytes -= queued.weight();
        match queued {
            QueuedFinding::Found(finding) => {
                let was_asked = !matches!(finding.state, Comparison::Invalid(_));
                self.answered -= usize::from(was_asked);
                Some(finding)
            }
            QueuedFinding::Open(_) => None,
        }
    }
}

/// The structures themselves and the allocator's overhead, roughly, in bytes.
const FIXED: usize = 192;

impl QueuedFinding {
    fn weight(&self) -> usize {
        match self {
            QueuedFinding::Open(open) => open.weight(),
            QueuedFinding::Found(finding) => {
                let original = finding.original.as_ref().map_or(0, |fields| FIXED + fields.as_slice().len());
                FIXED + finding.user_id.len() + finding.state.detail().len() + original
            }
        }
    }
}

impl PendingId {
    /// Its account is here and in the calls.
    fn weight(&self) -> usize {
        4 * FIXED + 4 * self.fields.as_slice().len()
    }

    /// What is found, if enough was said. Without an account its profile doesn't matter.
    fn state(&self) -> Option<Comparison> {
        match (&self.status, &self.profile) {
            (IdAnswer::Awaited | IdAnswer::NotAsked, _) | (IdAnswer::Said(AccountStatus::Imported), IdAnswer::Awaited) => None,
            (IdAnswer::Failed(why), _) | (IdAnswer::Said(AccountStatus::Imported), IdAnswer::Failed(why)) => {
                Some(Comparison::Unknown(why.clone()))
            }
            (IdAnswer::Said(AccountStatus::NotImported), _) => Some(Comparison::Missing),
            (IdAnswer::Said(AccountStatus::Imported), IdAnswer::NotAsked) => Some(Comparison::Same),
            (IdAnswer::Said(AccountStatus::Imported), IdAnswer::Said(differing)) if differing.is_empty() => Some(Comparison::Same),
            (IdAnswer::Said(AccountStatus::Imported), IdAnswer::Said(differing)) => Some(Comparison::Differs(differing.clone())),
        }
    }
}

/// Compares byte for byte; what is empty in the file says nothing.
fn differing(sent: &Account, shown: &Profile) -> Differing {
    let profile = sent.profile();
    let fields = profile.iter().filter(|(field, text)| text.is_some() && **text != shown.fields[*field].as_deref());
    let is_shown = |sent: &TagItem| shown.tags.iter().any(|(tag, value)| *tag == sent.tag && is_same(&sent.value, value));
    Differing {
        fields: fields.map(|(field, _)| field.into()).collect(),
        tags: sent.tags.iter().filter(|sent| !is_shown(sent)).map(|sent| sent.tag.clone()).collect(),
    }
}

/// Whether a value is shown as it was sent. A number may be shown as text.
fn is_same(sent: &TagValue, shown: &str) -> bool {
    match sent {
        TagValue::Text(text) => **text == *shown,
        TagValue::Number(number) => shown.parse() == Ok(*number),
    }
}
