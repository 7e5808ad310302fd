//! Passes the findings of a verification to its files, and collects the corrections for the state.

use std::io;

use super::state_file::{LockedState, state_error};
use crate::domain::account::{Field, USER_ID_MAX_BYTES, UserId, UserIds};
use crate::domain::change::{InDoubt, PaddedId};
use crate::domain::comparison::{Comparison, Differing, Finding, Findings};
use crate::domain::known_tags::TagSet;
use crate::domain::tag::Tag;
use crate::io::extsort::{ExternalSorter, take};
use crate::io::state::Discrepancy;
use crate::io::verification_files::VerificationFiles;
use crate::shell::exit::ExitMessage;

/// Bytes of a correction: a UserID and its discrepancy, fields and tags.
const CORRECTION_BYTES: usize = USER_ID_MAX_BYTES + 9;

/// Passes findings to the files and collects the corrections for the state.
pub(super) struct Reconciled {
    files: VerificationFiles,
    /// The tags that are compared.
    tags: Vec<Tag>,
    /// The state, and the UserIDs with their discrepancies.
    corrections: Option<(LockedState, ExternalSorter<CORRECTION_BYTES>)>,
}

impl Reconciled {
    /// `tags` are those that are compared.
    pub(super) fn new(files: VerificationFiles, tags: Vec<Tag>, locked: Option<LockedState>) -> Self {
        let sorter = || ExternalSorter::new(Box::new(tempfile::tempfile));
        Self { files, tags, corrections: locked.map(|locked| (locked, sorter())) }
    }

    /// Gives the files their names, then applies the corrections to the state. Returns whether there is something to repair.
    pub(super) fn finish(self, complete: bool, cannot_write: impl Fn(&io::Error) -> ExitMessage) -> Result<bool, ExitMessage> {
        let has_repair = self.files.finish(complete).map_err(|error| cannot_write(&error))?;
        if let Some((locked, sorter)) = self.corrections {
            let corrections = sorter.finish().map_err(|error| cannot_write(&error))?;
            let wrong = corrections.map(|correction| correction.map(|correction| read(&correction)));
            locked.open()?.set_right(&self.tags, wrong).map_err(|error| state_error(&error))?;
        }
        Ok(has_repair)
    }
}

impl Reconciled {
    fn different(&self, differing: &Differing) -> Discrepancy {
        let place = |tag: &Tag| self.tags.iter().position(|compared| compared == tag);
        Discrepancy::Different {
            fields: differing.fields.iter().fold(InDoubt::NOTHING, |all, field| all.and(doubt(*field))),
            tags: differing.tags.iter().filter_map(place).collect(),
        }
    }
}

impl Findings for Reconciled {
    type Error = io::Error;

    fn take(&mut self, finding: Finding) -> io::Result<()> {
        let wrong = match &finding.state {
            Comparison::Missing => Some(Discrepancy::NotThere),
            Comparison::Differs(differing) => Some(self.different(differing)),
            Comparison::Same | Comparison::Unknown(_) | Comparison::Invalid(_) => None,
        };
        if let Some((_, sorter)) = &mut self.corrections
            && let Some(wrong) = wrong
            && let Ok(id) = UserId::check_as(UserIds::Any, finding.id())
        {
            let mut correction = [0; CORRECTION_BYTES];
            correction[..USER_ID_MAX_BYTES].copy_from_slice(PaddedId::new(id.as_bytes()).padded());
            if let Discrepancy::Different { fields, tags } = wrong {
                correction[USER_ID_MAX_BYTES] = fields.bits();
                correction[USER_ID_MAX_BYTES + 1..].copy_from_slice(&tags.bits().to_be_bytes());
            }
            sorter.push(correction)?;
        }
        self.files.take(finding)
    }
}

fn read(correction: &[u8; CORRECTION_BYTES]) -> (PaddedId, Discrepancy) {
    let mut rest = correction.as_slice();
    let (id, [fields], tags) = (take(&mut rest), take(&mut rest), u64::from_be_bytes(take(&mut rest)));
    let wrong = if fields == 0 && tags == 0 {
        Discrepancy::NotThere
    } else {
        Discrepancy::Different { fields: InDoubt::from_bits(fields), tags: TagSet::from_bits(tags) }
    };
    (PaddedId::from_padded(id), wrong)
}

/// A service that shows another id for this one is not to be trusted about whether it exists.
fn doubt(field: Field) -> InDoubt {
    field.profile().map_or(InDoubt::EXISTENCE, InDoubt::of_field)
}
