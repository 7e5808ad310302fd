//! What a run may do about missing accounts, and why it may have to wait.

use std::fmt;
use std::rc::Rc;

use crate::domain::change::{MissingAccount, PaddedId, PlannedAction, Wait};
use crate::io::state::MissingAction;

/// What is to be done about accounts that the file lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingPolicy {
    Report,
    Kick,
    Delete,
}

/// Whether a file is believed that some id is missing though something speaks against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingTrust {
    No,
    /// The caller says so.
    Allowed,
}

/// What may be done about missing accounts.
#[derive(Clone)]
pub struct MissingRules {
    pub policy: MissingPolicy,
    /// Finished runs in a row in which an id must be missing before anything is done about it.
    pub runs_until_due: u32,
    /// What must lie between the starts of two runs that count for the missing, in milliseconds.
    pub missing_apart: i64,
    /// Whoever is online is spared.
    pub skip_online: bool,
    pub malformed: MissingTrust,
    pub lookalikes: MissingTrust,
    /// Whether an account is never to be touched.
    pub is_protected: Rc<dyn Fn(&str) -> bool>,
}

impl fmt::Debug for MissingRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MissingRules").field("policy", &self.policy).field("runs_until_due", &self.runs_until_due).finish_non_exhaustive()
    }
}

impl MissingRules {
    /// Only lists who is missing: what holds unless the caller asks for more.
    #[must_use]
    pub fn report() -> Self {
        Self {
            policy: MissingPolicy::Report,
            runs_until_due: 3,
            missing_apart: 0,
            skip_online: false,
            malformed: MissingTrust::No,
            lookalikes: MissingTrust::No,
            is_protected: Rc::new(|_| false),
        }
    }

    /// Why kicks and deletions wait, as far as a plan with so many missing ids can tell. `limit` is the caller's limit of records.
    #[must_use]
    pub fn planned_wait(&self, missing: u64, is_malformed: bool, limit: Option<u64>) -> Option<Wait> {
        if self.policy == MissingPolicy::Report || missing == 0 {
            None
        } else if is_malformed && self.malformed == MissingTrust::No {
            Some(Wait::Malformed)
        } else {
            limit.map(|_| Wait::Limit)
        }
    }

    /// Whether an account is never to be touched.
    pub(super) fn protects(&self, id: &PaddedId) -> bool {
        (self.is_protected)(id.as_str())
    }

    /// Whether an account that was missing in so many runs has been so for long enough.
    pub(super) const fn is_missing_for_long(&self, missing_runs: u32) -> bool {
        missing_runs >= self.runs_until_due
    }

    /// What is noted of an account that nothing may be done about now, whatever an earlier process has planned.
    pub(super) fn spared_as(&self, missing: &MissingAccount) -> Option<MissingAction> {
        let may = match self.policy {
            MissingPolicy::Report => false,
            MissingPolicy::Kick => missing.due == PlannedAction::Kick,
            MissingPolicy::Delete => missing.due == PlannedAction::Delete,
        };
        if self.protects(&missing.id) {
            Some(MissingAction::Protected)
        } else if self.lookalikes == MissingTrust::No && missing.lookalike.is_some() {
            Some(MissingAction::Lookalike)
        } else if may && self.is_missing_for_long(missing.missing_runs) {
            None
        } else {
            Some(MissingAction::Nothing)
        }
    }
}
