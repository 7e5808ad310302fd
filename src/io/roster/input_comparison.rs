//! Whether an input is still the one that was read: by an earlier run, or by this one until now.

use std::io::{self, Read, Seek, SeekFrom, Take};

use super::RosterError;
use super::file::{InputFile, InputReader};
use super::frames::{FrameError, Frames};
use super::header::DelimiterFrom;
use crate::domain::position::{Dialect, FileStat, InputChange, InputPosition};

/// Records that a comparison reads before somebody else may do something. Chosen: well under a millisecond's work.
const COMPARE_AT_ONCE: usize = 16_384;
/// How often a file that changes while it is read is read again from its start. Chosen: what is appended to more often than that while
/// its end is looked for is not finished.
const COMPARISONS_MAX: u32 = 100;

/// Compares a file with what an earlier run has seen of it up to `settled`; reads that much of it.
///
/// # Errors
/// The file's.
pub fn compare(file: &InputFile, dialect: impl Into<Dialect>, settled: InputPosition) -> io::Result<InputChange> {
    let mut comparison = InputComparison::new(file, dialect.into(), (settled.offset, settled.digest));
    loop {
        if let Some(found) = comparison.step()? {
            let counts_alike = comparison.last == settled;
            return Ok(if counts_alike { found } else { InputChange::ChangedWithin });
        }
    }
}

/// A comparison under way of a file with what was read of it before.
#[derive(Debug)]
struct InputComparison {
    file: InputFile,
    dialect: Dialect,
    frames: Frames<Take<InputReader>>,
    /// Where that ended, and the running hash there.
    end: (u64, u64),
    has_header: bool,
    /// The place behind the last record so far.
    last: InputPosition,
}

impl InputComparison {
    fn new(file: &InputFile, dialect: Dialect, end: (u64, u64)) -> Self {
        let frames = Frames::new(file.reader().take(end.0), dialect, InputPosition::START);
        Self { file: file.clone(), dialect, frames, end, has_header: false, last: InputPosition::START }
    }

    /// Reads some more; `None` while there is more to read.
    fn step(&mut self) -> io::Result<Option<InputChange>> {
        match self.read_some() {
            Ok(false) => Ok(None),
            Ok(true) if (self.last.offset, self.last.digest) == self.end => self.rest().map(Some),
            Ok(true) | Err(FrameError::OpenQuote { .. } | FrameError::LongRecord { .. }) => Ok(Some(InputChange::ChangedWithin)),
            Err(FrameError::Read(error)) => Err(error),
        }
    }

    /// Whether it has come to the end.
    fn read_some(&mut self) -> Result<bool, FrameError> {
        if !self.has_header {
            self.has_header = true;
            self.frames.skip_bom()?;
            let Some(header) = self.frames.header(DelimiterFrom::Asked)? else { return Ok(true) };
            self.last = header.end;
        }
        for _ in 0..COMPARE_AT_ONCE {
            let Some(frame) = self.frames.next()? else { return Ok(true) };
            self.last = frame.end;
        }
        Ok(false)
    }

    /// Whether anything but blank lines follows. A last line without its end must not have grown.
    fn rest(&self) -> io::Result<InputChange> {
        let mut input = self.file.reader();
        if self.last == InputPosition::START {
            // Not even a header was there.
            let is_empty = self.file.fingerprint()?.len == 0;
            return Ok(if is_empty { InputChange::Same } else { InputChange::ChangedWithin });
        }
        input.seek(SeekFrom::Start(self.last.offset - 1))?;
        let mut around = Vec::new();
        (&mut input).take(3).read_to_end(&mut around)?;
        let (before, next) = around.split_at(around.len().min(1));
        if before != b"\n" && !(next.is_empty() || next.starts_with(b"\n") || next == b"\r\n") {
            return Ok(InputChange::ChangedWithin);
        }
        input.seek(SeekFrom::Start(self.last.offset))?;
        match Frames::new(input, self.dialect, self.last).next() {
            Ok(None) => Ok(InputChange::Same),
            Ok(Some(_)) | Err(FrameError::OpenQuote { .. } | FrameError::LongRecord { .. }) => Ok(InputChange::ChangedAfter),
            Err(FrameError::Read(error)) => Err(error),
        }
    }
}

/// Looks whether a file stays what it was while it is read.
#[derive(Debug)]
pub struct Watch {
    file: InputFile,
    dialect: Dialect,
    /// Its stat fields when what was read of it was last known to be the same.
    stat: FileStat,
    /// Under way, and the stat fields when it began.
    comparison: Option<(InputComparison, FileStat)>,
    comparisons: u32,
}

/// What a look at the file comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// What was read is the same, and nothing but blank lines follows.
    Same,
    /// What was read is the same, and there is more.
    Grown,
    /// It is being read again: that goes on with the next look.
    Comparing,
}

impl Watch {
    /// `stat` are the file's stat fields before anything was read of it.
    #[must_use]
    pub fn new(file: InputFile, dialect: impl Into<Dialect>, stat: FileStat) -> Self {
        Self { file, dialect: dialect.into(), stat, comparison: None, comparisons: 0 }
    }

    /// Whether it has fewer bytes than it had, or other stat fields, without reading it again.
    ///
    /// # Errors
    /// [`RosterError::Modified`] for a file that was truncated, and the system's.
    pub fn is_untouched(&self) -> Result<bool, RosterError> {
        let now = self.file.fingerprint()?;
        if now.len < self.stat.len { Err(RosterError::Modified) } else { Ok(now == self.stat) }
    }

    /// As [`Watch::look`], to the end of a comparison.
    ///
    /// # Errors
    /// As [`Watch::look`].
    pub fn look_through(&mut self, end: (u64, u64)) -> Result<Look, RosterError> {
        loop {
            match self.look(end)? {
                Look::Comparing => {}
                found @ (Look::Same | Look::Grown) => return Ok(found),
            }
        }
    }

    /// Looks whether what was read, which ended at an offset with a running hash, is still there. The same `end` must be given until the
    /// comparison is over.
    ///
    /// # Errors
    /// [`RosterError::Modified`] for a file that was truncated or rewritten, and the system's.
    pub fn look(&mut self, end: (u64, u64)) -> Result<Look, RosterError> {
        let Some((comparison, stat)) = &mut self.comparison else {
            if self.is_untouched()? {
                return Ok(Look::Same);
            }
            if self.comparisons == COMPARISONS_MAX {
                return Err(RosterError::Modified);
            }
            self.comparisons += 1;
            self.comparison = Some((InputComparison::new(&self.file, self.dialect, end), self.file.fingerprint()?));
            return Ok(Look::Comparing);
        };
        let Some(found) = comparison.step()? else { return Ok(Look::Comparing) };
        self.stat = *stat;
        self.comparison = None;
        match (found, self.is_untouched()?) {
            (InputChange::ChangedWithin, _) => Err(RosterError::Modified),
            (_, false) => Ok(Look::Comparing),
            (InputChange::Same, true) => Ok(Look::Same),
            (InputChange::ChangedAfter, true) => Ok(Look::Grown),
        }
    }
}
