//! Findings of a verification on their way to its files, noted for the state.

use std::io;

use super::exit::LastWord;
use super::kept::{Kept, state_error};
use crate::account::{Field, USER_ID_MAX_BYTES, UserId};
use crate::finding::{Finding, Findings, State};
use crate::plan::{Id, InDoubt};
use crate::sheets::Sheets;
use crate::spill::Sorter;
use crate::state::Wrong;

/// Bytes of a note: an id, and what is wrong with it.
const NOTE: usize = USER_ID_MAX_BYTES + 1;

/// Takes findings to the files, and notes what a state has to learn.
pub(super) struct Reconciled {
    sheets: Sheets,
    /// The state, and what is wrong with which of its ids.
    notes: Option<(Kept, Sorter<NOTE>)>,
}

impl Reconciled {
    pub(super) fn new(sheets: Sheets, kept: Option<Kept>) -> Self {
        let sorter = || Sorter::new(Box::new(tempfile::tempfile));
        Self { sheets, notes: kept.map(|kept| (kept, sorter())) }
    }

    /// The files take their names, then the state learns of it: whether there is something to repair.
    pub(super) fn finish(self, complete: bool, cannot_write: impl Fn(&io::Error) -> LastWord) -> Result<bool, LastWord> {
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
            State::Missing => Some(Wrong::NotThere),
            State::Differs(fields) => Some(Wrong::Different(fields.iter().fold(InDoubt::NOTHING, |all, field| all.and(doubt(*field))))),
            State::Same | State::Unknown(_) | State::Invalid(_) => None,
        };
        if let Some((_, sorter)) = &mut self.notes
            && let Some(wrong) = wrong
            && let Ok(id) = UserId::check(&finding.user_id)
        {
            let mut note = [0; NOTE];
            note[..USER_ID_MAX_BYTES].copy_from_slice(Id::new(id.as_bytes()).padded());
            note[USER_ID_MAX_BYTES] = match wrong {
                Wrong::NotThere => 0,
                Wrong::Different(fields) => fields.bits(),
            };
            sorter.push(note)?;
        }
        self.sheets.take(finding)
    }
}

fn read(note: &[u8; NOTE]) -> (Id, Wrong) {
    let mut id = [0; USER_ID_MAX_BYTES];
    id.copy_from_slice(&note[..USER_ID_MAX_BYTES]);
    let wrong = match note[USER_ID_MAX_BYTES] {
        0 => Wrong::NotThere,
        fields => Wrong::Different(InDoubt::from_bits(fields)),
    };
    (Id::from_padded(id), wrong)
}

const fn doubt(field: Field) -> InDoubt {
    match field {
        // A service that shows another id for this one is not to be trusted about it.
        Field::UserId => InDoubt::EXISTENCE,
        Field::Nick => InDoubt::NICK,
        Field::FaceUrl => InDoubt::FACE_URL,
    }
}
