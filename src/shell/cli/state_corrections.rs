//! Passes the findings of a verification to its files, and collects the corrections for the state.

use std::io;

use super::state_file::{LockedState, state_error};
use crate::domain::account::{Field, USER_ID_MAX_BYTES, UserId, UserIds};
use crate::domain::change::{InDoubt, PaddedId};
use crate::domain::comparison::{Comparison, Finding, Findings};
use crate::io::extsort::ExternalSorter;
use crate::io::state::Discrepancy;
use crate::io::verification_files::VerificationFiles;
use crate::shell::exit::ExitMessage;

/// Bytes of a correction: a UserID and its discrepancy.
const CORRECTION_BYTES: usize = USER_ID_MAX_BYTES + 1;

/// Passes findings to the files and collects the corrections for the state.
pub(super) struct Reconciled {
    files: VerificationFiles,
    /// The state, and the UserIDs with their discrepancies.
    corrections: Option<(LockedState, ExternalSorter<CORRECTION_BYTES>)>,
}

impl Reconciled {
    pub(super) fn new(files: VerificationFiles, locked: Option<LockedState>) -> Self {
        let sorter = || ExternalSorter::new(Box::new(tempfile::tempfile));
        Self { files, corrections: locked.map(|locked| (locked, sorter())) }
    }

    /// Gives the files their names, then applies the corrections to the state. Returns whether there is something to repair.
    pub(super) fn finish(self, complete: bool, cannot_write: impl Fn(&io::Error) -> ExitMessage) -> Result<bool, ExitMessage> {
        let has_repair = self.files.finish(complete).map_err(|error| cannot_write(&error))?;
        if let Some((locked, sorter)) = self.corrections {
            let corrections = sorter.finish().map_err(|error| cannot_write(&error))?;
            let wrong = corrections.map(|correction| correction.map(|correction| read(&correction)));
            locked.open()?.set_right(wrong).map_err(|error| state_error(&error))?;
        }
        Ok(has_repair)
    }
}

impl Findings for Reconciled {
    type Error = io::Error;

    fn take(&mut self, finding: Finding) -> io::Result<()> {
        let wrong = match &finding.state {
            Comparison::Missing => Some(Discrepancy::NotThere),
            Comparison::Differs(fields) => {
                Some(Discrepancy::Different(fields.iter().fold(InDoubt::NOTHING, |all, field| all.and(doubt(*field)))))
            }
            Comparison::Same | Comparison::Unknown(_) | Comparison::Invalid(_) => None,
        };
        if let Some((_, sorter)) = &mut self.corrections
            && let Some(wrong) = wrong
            && let Ok(id) = UserId::check_as(UserIds::Any, finding.id())
        {
            let mut correction = [0; CORRECTION_BYTES];
            correction[..USER_ID_MAX_BYTES].copy_from_slice(PaddedId::new(id.as_bytes()).padded());
            correction[USER_ID_MAX_BYTES] = match wrong {
                Discrepancy::NotThere => 0,
                Discrepancy::Different(fields) => fields.bits(),
            };
            sorter.push(correction)?;
        }
        self.files.take(finding)
    }
}

fn read(correction: &[u8; CORRECTION_BYTES]) -> (PaddedId, Discrepancy) {
    let mut id = [0; USER_ID_MAX_BYTES];
    id.copy_from_slice(&correction[..USER_ID_MAX_BYTES]);
    let wrong = match correction[USER_ID_MAX_BYTES] {
        0 => Discrepancy::NotThere,
        fields => Discrepancy::Different(InDoubt::from_bits(fields)),
    };
    (PaddedId::from_padded(id), wrong)
}

/// A service that shows another id for this one is not to be trusted about whether it exists.
fn doubt(field: Field) -> InDoubt {
    field.profile().map_or(InDoubt::EXISTENCE, InDoubt::of_field)
}
