//! The records of a file that may change while it is read.

use super::file::{InputFile, InputReader};
use super::input_comparison::{Look, Watch};
use super::{BlankLines, Header, Record, Roster, RosterError};
use crate::domain::position::{FileStat, InputPosition};

/// What a watched roster has next.
#[derive(Debug)]
pub enum Next {
    Record(Record),
    /// Nothing yet: what was read is being compared with the file, which has changed. It goes on when it is asked again.
    Comparing,
}

/// The records of an input file to its end, which comes only if all that was read still stands there: a file that has grown is read on, one
/// that was truncated or rewritten is an error.
#[derive(Debug)]
pub struct Watched {
    roster: Roster<InputReader>,
    watch: Watch,
    /// A last line without its end: it may be half of one.
    unsure: Option<(Record, InputPosition)>,
    has_failed: bool,
}

impl Watched {
    /// `stat` are the stat fields of `file` before anything was read of it; `roster` reads it.
    #[must_use]
    pub fn new(roster: Roster<InputReader>, file: InputFile, stat: FileStat) -> Self {
        let watch = Watch::new(file, roster.dialect(), stat);
        Self { roster, watch, unsure: None, has_failed: false }
    }

    /// As [`Roster::blank_lines`].
    #[must_use]
    pub fn blank_lines(&self) -> BlankLines {
        self.roster.blank_lines()
    }

    /// The header of the file.
    #[must_use]
    pub fn header(&self) -> &Header {
        self.roster.header()
    }

    /// The place behind the last record that was handed out, or behind the header.
    #[must_use]
    pub fn at(&self) -> InputPosition {
        self.unsure.as_ref().map_or(self.roster.at(), |(_, before)| *before)
    }

    /// The next record, or whether the file is still what it was. It may be asked again behind the end: there may be more by then.
    ///
    /// # Errors
    /// As [`Roster`]'s, and [`RosterError::Modified`].
    pub fn next_or_comparing(&mut self) -> Option<Result<Next, RosterError>> {
        if self.has_failed {
            return None;
        }
        let next = self.advance().transpose();
        self.has_failed = matches!(next, Some(Err(_)));
        next
    }

    fn advance(&mut self) -> Result<Option<Next>, RosterError> {
        loop {
            if self.unsure.is_none() {
                let before = self.roster.at();
                match self.roster.next().transpose()? {
                    Some(record) if self.roster.is_whole() => return Ok(Some(Next::Record(record))),
                    Some(record) => self.unsure = Some((record, before)),
                    None => {}
                }
            }
            let at = self.at();
            match (self.watch.look((at.offset, at.digest))?, self.unsure.take()) {
                (Look::Comparing, unsure) => {
                    self.unsure = unsure;
                    return Ok(Some(Next::Comparing));
                }
                // Unchanged since it was read, or read again as it was.
                (Look::Same, Some((record, _))) => return Ok(Some(Next::Record(record))),
                (Look::Grown, Some((_, before))) => self.roster.go_on_at(before)?,
                (Look::Grown, None) => self.roster.go_on_at(at)?,
                (Look::Same, None) => return Ok(None),
            }
        }
    }
}

impl Iterator for Watched {
    type Item = Result<Record, RosterError>;

    /// Compares without giving anybody a turn.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_or_comparing()? {
                Ok(Next::Comparing) => {}
                Ok(Next::Record(record)) => return Some(Ok(record)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
