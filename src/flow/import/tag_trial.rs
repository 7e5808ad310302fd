//! What is known of the profile fields that `portrait_set` sets: whether the app has them.
//!
//! A field that this process has not seen taken leaves in a call that is alone. Decides nothing about rows.

use std::collections::BTreeMap;

use crate::domain::account::Account;
use crate::domain::halt_reason::HaltReason;
use crate::domain::tag::{Tag, TagItem};
use crate::domain::verdict::{NO_TAG, TAG_NOT_WRITABLE, VALUE_REFUSED};
use crate::flow::dispatch::{Failure, JobId};

/// A row whose tags are tried one by one, since a call with all of them was refused.
#[derive(Debug)]
pub(super) struct TriedSingly {
    /// The row's account, with the tag alone that is tried.
    pub(super) account: Account,
    rest: std::vec::IntoIter<TagItem>,
    /// The first refusal that was the row's own fault.
    pub(super) failure: Option<Failure>,
}

impl TriedSingly {
    /// Begins with the first tag; `None` for an account without tags.
    fn of(account: &Account) -> Option<Self> {
        let mut rest = account.tags.clone().into_iter();
        let first = rest.next()?;
        let account = Account { tags: [first].into(), ..Account::bare(account.user_id.clone()) };
        Some(Self { account, rest, failure: None })
    }

    /// The tag that is tried.
    pub(super) fn tag(&self) -> &Tag {
        &self.account.tags[0].tag
    }

    /// Takes the next tag, which is tried from here on. Returns whether there was one.
    fn advance(&mut self) -> bool {
        match self.rest.next() {
            Some(next) => {
                self.account.tags = [next].into();
                true
            }
            None => false,
        }
    }
}

/// The evidence so far.
#[derive(Debug, Default)]
pub(super) struct TagTrial {
    /// Tags that were taken, or that are known to the app by another answer.
    taken: Vec<Tag>,
    in_flight: Option<JobId>,
    /// By their rows. One as a rule; a test of the API may bring another one.
    singly: BTreeMap<u64, TriedSingly>,
}

impl TagTrial {
    /// Whether the account has a tag that was not taken yet.
    pub(super) fn is_new(&self, account: &Account) -> bool {
        account.tags.iter().any(|item| !self.taken.contains(&item.tag))
    }

    /// The service has taken all tags of the account.
    pub(super) fn take(&mut self, account: &Account) {
        account.tags.iter().for_each(|item| self.note_known(&item.tag));
    }

    fn note_known(&mut self, tag: &Tag) {
        if !self.taken.contains(tag) {
            self.taken.push(tag.clone());
        }
    }

    /// A call with this tag alone was refused: why it is not to be had in the app, if that is so. A refusal of its value shows that the app
    /// has it.
    pub(super) fn refused_alone(&mut self, tag: &Tag, code: Option<i64>) -> Option<HaltReason> {
        match code {
            Some(NO_TAG) if !self.taken.contains(tag) => Some(HaltReason::NoSuchTag),
            Some(TAG_NOT_WRITABLE) if !self.taken.contains(tag) => Some(HaltReason::TagNotWritable),
            Some(code) if VALUE_REFUSED.contains(&code) => {
                self.note_known(tag);
                None
            }
            Some(_) | None => None,
        }
    }

    /// A call with a new tag leaves.
    pub(super) fn departed(&mut self, id: JobId) {
        self.in_flight.get_or_insert(id);
    }

    /// A call has come back.
    pub(super) fn returned(&mut self, id: JobId) {
        self.in_flight.take_if(|in_flight| *in_flight == id);
    }

    /// Whether a call with a new tag is in flight: then no other one leaves.
    pub(super) fn is_under_way(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Whether tags are tried one by one.
    pub(super) fn is_singly(&self) -> bool {
        !self.singly.is_empty()
    }

    /// The row whose tags are tried one by one, with the tag alone that is next.
    pub(super) fn singly(&mut self, row: u64) -> Option<&mut TriedSingly> {
        self.singly.get_mut(&row)
    }

    /// What is sent of the row, if its tags are tried one by one.
    pub(super) fn single_account(&self, row: u64) -> Option<&Account> {
        self.singly.get(&row).map(|tried| &tried.account)
    }

    /// From here on the tags of the row are tried one by one.
    pub(super) fn begin_singly(&mut self, row: u64, account: &Account) {
        if let Some(tried) = TriedSingly::of(account) {
            self.singly.insert(row, tried);
        }
    }

    /// Goes on to the next tag of the row; once there is none, how it ended.
    pub(super) fn next_single(&mut self, row: u64) -> Option<TriedSingly> {
        if self.singly.get_mut(&row).is_some_and(TriedSingly::advance) { None } else { self.singly.remove(&row) }
    }

    /// The row has ended.
    pub(super) fn forget(&mut self, row: u64) {
        self.singly.remove(&row);
    }
}
