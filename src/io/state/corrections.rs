//! Corrections of a state by hand, and by what a look at the service has shown.

use std::io;

use rusqlite::{OptionalExtension, Statement, Transaction, params};

use super::account::SOME_TAGS;
use super::{ChangeError, StateDb, StateError, tags};
use crate::domain::change::{InDoubt, MissingAccount, PaddedId, PlannedAction};
use crate::domain::known_tags::{KnownTags, TagNumber, TagSet};
use crate::domain::tag::Tag;

/// How the service differs from what a state says of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discrepancy {
    NotThere,
    /// These of its fields are other ones, and these of the tags that were compared.
    Different {
        fields: InDoubt,
        tags: TagSet,
    },
}

/// Writes discrepancies to accounts and to the plan of an open run.
struct Corrections<'a> {
    delete: Statement<'a>,
    mark: Statement<'a>,
    note: Statement<'a>,
    tags: DoubtedTags<'a>,
    noted_tags: DoubtedTags<'a>,
    /// The numbers of the tags that were compared.
    numbers: Vec<TagNumber>,
    /// Planned rows about which something was found.
    noted: usize,
}

impl<'a> Corrections<'a> {
    fn new(change: &'a Transaction, compared: &[Tag]) -> Result<Self, ChangeError> {
        Ok(Self {
            delete: change.prepare("DELETE FROM accounts WHERE id = ?1")?,
            mark: change.prepare("UPDATE accounts SET in_doubt = in_doubt | ?2 WHERE id = ?1")?,
            // An earlier look may have found no account.
            note: change.prepare("UPDATE planned SET found = ?2 | (found & ?3) WHERE id = ?1")?,
            tags: DoubtedTags::of(change, "accounts", "tags")?,
            noted_tags: DoubtedTags::of(change, "planned", "found_tags")?,
            numbers: tags::numbers(change, compared.iter().cloned())?,
            noted: 0,
        })
    }

    fn apply(&mut self, id: &str, wrong: Discrepancy) -> Result<(), ChangeError> {
        self.noted += match wrong {
            Discrepancy::NotThere => {
                self.delete.execute([id])?;
                self.noted_tags.forget(id)?;
                self.note.execute(params![id, InDoubt::EXISTENCE.bits(), 0])?
            }
            Discrepancy::Different { fields, tags } => {
                let some_tags = if tags.is_empty() { 0 } else { SOME_TAGS };
                self.mark.execute(params![id, fields.bits() | some_tags])?;
                let numbers: Vec<TagNumber> = tags.iter().filter_map(|place| self.numbers.get(place).copied()).collect();
                self.tags.doubt(id, &numbers)?;
                self.noted_tags.doubt(id, &numbers)?;
                self.note.execute(params![id, fields.bits(), !InDoubt::EXISTENCE.bits()])?
            }
        };
        Ok(())
    }
}

/// A column of tags, in which some are put in doubt.
struct DoubtedTags<'a> {
    read: Statement<'a>,
    write: Statement<'a>,
}

impl<'a> DoubtedTags<'a> {
    fn of(change: &'a Transaction, table: &str, column: &str) -> rusqlite::Result<Self> {
        Ok(Self {
            read: change.prepare(&format!("SELECT {column} FROM {table} WHERE id = ?1"))?,
            write: change.prepare(&format!("UPDATE {table} SET {column} = ?2 WHERE id = ?1"))?,
        })
    }

    fn doubt(&mut self, id: &str, numbers: &[TagNumber]) -> rusqlite::Result<()> {
        if numbers.is_empty() {
            return Ok(());
        }
        let Some(bytes) = self.read.query_row([id], |row| row.get::<_, Option<Vec<u8>>>(0)).optional()? else { return Ok(()) };
        let mut known = KnownTags::default();
        known.read(&bytes.unwrap_or_default());
        for number in numbers {
            known.doubt(*number);
        }
        self.write.execute(params![id, tags::column(&known)])?;
        Ok(())
    }

    fn forget(&mut self, id: &str) -> rusqlite::Result<()> {
        self.write.execute(params![id, None::<Vec<u8>>]).map(|_| ())
    }
}

impl StateDb {
    /// Takes over what a look at the service has shown to be wrong, in order of ids. What an open run has still to send stays planned, and
    /// what comes of it is recorded; of rows that it has settled before, the look knows better. `tags` are those that the look has compared.
    ///
    /// # Errors
    /// The database's, or that of `wrong`.
    pub fn set_right(&mut self, tags: &[Tag], wrong: impl Iterator<Item = io::Result<(PaddedId, Discrepancy)>>) -> Result<(), StateError> {
        self.change("change", |change| {
            let mut corrections = Corrections::new(change, tags)?;
            for each in wrong {
                let (id, wrong) = each?;
                corrections.apply(id.as_str(), wrong)?;
            }
            if corrections.noted > 0 {
                change.execute("UPDATE runs SET looked = 1 WHERE finished_at IS NULL", [])?;
            }
            Ok(())
        })
    }

    /// Drops ids and returns how many of them were there, or would have been once an open run's rows are taken over. What that run has still
    /// to send stays planned, and what comes of it is recorded.
    ///
    /// # Errors
    /// The database's.
    pub fn forget<'a>(&mut self, ids: impl IntoIterator<Item = &'a str>) -> Result<u64, StateError> {
        self.change("change", |change| {
            let mut delete = change.prepare("DELETE FROM accounts WHERE id = ?1")?;
            // Nor is it an open run's to kick or delete.
            let mut spare = change.prepare("DELETE FROM missing WHERE id = ?1")?;
            // What it has settled before is not to bring the id back.
            let mut note = change.prepare("UPDATE planned SET found = ?2, found_tags = NULL WHERE id = ?1 AND sent")?;
            let announced =
                "SELECT EXISTS (SELECT 1 FROM planned, runs WHERE id = ?1 AND sent AND finished_at IS NULL AND row <= sent_up_to)";
            let mut announced = change.prepare(announced)?;
            let (mut dropped, mut noted) = (0, 0);
            for id in ids {
                spare.execute([id])?;
                let was_there = delete.execute([id])? > 0 || announced.query_row([id], |row| row.get(0))?;
                dropped += u64::from(was_there);
                noted += note.execute(params![id, InDoubt::EXISTENCE.bits()])?;
            }
            if noted > 0 {
                change.execute("UPDATE runs SET looked = 1 WHERE finished_at IS NULL", [])?;
            }
            Ok(dropped)
        })
    }

    /// Marks ids in doubt because they are about to be kicked or deleted: [`Self::record_actions`] takes this mark away, and no other. Lasts once this
    /// returns.
    ///
    /// # Errors
    /// The database's.
    pub fn mark_under_way<'a>(&mut self, missing: impl IntoIterator<Item = &'a MissingAccount>) -> Result<(), StateError> {
        self.change("change", |change| {
            let mut mark = change.prepare("UPDATE accounts SET in_doubt = in_doubt | ?2 WHERE id = ?1")?;
            missing.into_iter().try_for_each(|missing| {
                let doubt = if missing.due == PlannedAction::Kick { InDoubt::KICK } else { InDoubt::DELETION };
                mark.execute(params![missing.id.as_str(), doubt.bits()])?;
                Ok(())
            })
        })
    }
}
