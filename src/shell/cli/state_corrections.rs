//! Passes the findings of a verification on to its files and notes them for the state.

use std::io;

use super::state_file::{LockedState, state_error};
use crate::domain::account::{Field, USER_ID_MAX_BYTES, UserId, UserIds};
use crate::domain::change::{InDoubt, PaddedId};
use crate::domain::comparison::{Comparison, Finding, Findings};
use crate::io::extsort::ExternalSorter;
use crate::io::state::Discrepancy;
use crate::io::verification_files::VerificationFiles;
use crate::shell::exit::ExitMessage;

/// Bytes of a note: an id, and what is wrong with it.
const NOTE: usize = USER_ID_MAX_BYTES + 1;

/// Takes findings to the files, and notes what a state has to learn.
pub(super) struct Reconciled {
    sheets: VerificationFiles,
    /// The state, and what is wrong with which of its ids.
    notes: Option<(LockedState, ExternalSorter<NOTE>)>,
}

impl Reconciled {
    pub(super) fn new(sheets: VerificationFiles, kept: Option<LockedState>) -> Self {
        let sorter = || ExternalSorter::new(Box::new(tempfile::tempfile));
        Self { sheets, notes: kept.map(|kept| (kept, sorter())) }
    }

    /// The files take their names, then the state learns of it: whether there is something to repair.
    pub(super) fn finish(self, complete: bool, cannot_write: impl Fn(&io::Error) -> ExitMessage) -> Result<bool, ExitMessage> {
        let has_repair = self.sheets.finish(complete).map_err(|error| cannot_write(&error))?;
        if let Some((kept, sorter)) = self.notes {
            let notes = sorter.finish().map_err(|error| cannot_write(&error))?;
            let wrong = notes.map(|note| note.map(|note| read(&note)));
            kept.open()?.set_right(wrong).map_err(|error| state_error(&error))?;
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
        if let Some((_, sorter)) = &mut self.notes
            && let Some(wrong) = wrong
            && let Ok(id) = UserId::check_as(UserIds::Any, finding.id())
        {
            let mut note = [0; NOTE];
            note[..USER_ID_MAX_BYTES].copy_from_slice(PaddedId::new(id.as_bytes()).padded());
            note[USER_ID_MAX_BYTES] = match wrong {
                Discrepancy::NotThere => 0,
                Discrepancy::Different(fields) => fields.bits(),
            };
            sorter.push(note)?;
        }
        self.sheets.take(finding)
    }
}

fn read(note: &[u8; NOTE]) -> (PaddedId, Discrepancy) {
    let mut id = [0; USER_ID_MAX_BYTES];
    id.copy_from_slice(&note[..USER_ID_MAX_BYTES]);
    let wrong = match note[USER_ID_MAX_BYTES] {
        0 => Discrepancy::NotThere,
        fields => Discrepancy::Different(InDoubt::from_bits(fields)),
    };
    (PaddedId::from_padded(id), wrong)
}

const fn doubt(field: Field) -> InDoubt {
    match field {
        // A service that shows another id for this one is not to be trusted about it.
        Field::UserId => InDoubt::EXISTENCE,
        Field::Nick => InDoubt::NICK,
        Field::FaceUrl => InDoubt::FACE_URL,
    }
}
