//! Whether a file's first records are UTF-8.

use std::io::Read;

use super::frames::Frames;
use super::{Format, RosterError};
use crate::domain::position::InputPosition;

/// Records by which a file is judged. Source: the contract of the input.
const FIRST_RECORDS: u64 = 1_000;
/// So many of them may be no UTF-8: each costs its own row. Source: the contract of the input.
const UNDECODABLE_MAX: u64 = 3;
/// Bytes of what is no UTF-8 that are kept, to tell the encoding by. Chosen: more than a guess gains from.
const KEPT_BYTES: usize = 256 * 1024;

/// Bytes after which no further record is looked at. Chosen: 8 KiB a record, and what a process may keep in memory of any file.
const LOOK_BYTES: u64 = 8 * 1024 * 1024;

/// A file whose header is no UTF-8, or too many of whose first records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotUtf8 {
    pub place: NotUtf8In,
    /// The lines at fault, as they stand in the file, as far as they are kept.
    pub bytes: Vec<u8>,
}

/// Where a file is no UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotUtf8In {
    Header,
    /// So many of the first records.
    Records {
        count: u64,
        of: u64,
    },
}

/// What the first records of a file show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstLook {
    /// Where the last record ends that was looked at; `None` where the file can't be cut into records.
    pub end: Option<u64>,
    pub not_utf8: Option<NotUtf8>,
}

/// Reads the header and the first 1,000 records, less of a file whose records are very long, and judges whether they are UTF-8. A file that
/// can't be cut into records is judged as far as it can be.
///
/// # Errors
/// The input's own.
pub fn first_look(input: impl Read, format: &Format) -> Result<FirstLook, RosterError> {
    let mut frames = Frames::new(input, format.dialect(), InputPosition::START);
    frames.skip_bom()?;
    let header = frames.header(format.delimiter_from);
    // What stops in the middle of a record is told by whoever reads the records.
    let readable = |stopped| match RosterError::from(stopped) {
        RosterError::Read(error) => Err(RosterError::Read(error)),
        _ => Ok(()),
    };
    // No text has zeros but UTF-16 without its mark.
    if std::str::from_utf8(frames.raw()).is_err() || frames.raw().contains(&0) {
        let not_utf8 = Some(NotUtf8 { place: NotUtf8In::Header, bytes: frames.raw().to_vec() });
        return Ok(FirstLook { end: None, not_utf8 });
    }
    if let Err(error) = header {
        return readable(error).map(|()| FirstLook { end: None, not_utf8: None });
    }
    let (mut count, mut of, mut bytes, mut is_whole) = (0, 0, Vec::new(), true);
    while of < FIRST_RECORDS && frames.behind_last().offset < LOOK_BYTES {
        match frames.next() {
            Ok(Some(_)) => of += 1,
            Ok(None) => break,
            Err(error) => {
                readable(error)?;
                is_whole = false;
                break;
            }
        }
        if std::str::from_utf8(frames.raw()).is_err() {
            count += 1;
            let room = KEPT_BYTES.saturating_sub(bytes.len());
            bytes.extend(frames.raw().iter().take(room));
        }
    }
    // A shorter file may have a tenth of its records so, and any file one: a single bad byte costs its row, not the run.
    let allowed = if of == FIRST_RECORDS { UNDECODABLE_MAX } else { (of / 10).max(1) };
    let is_too_many = count > allowed;
    let not_utf8 = is_too_many.then_some(NotUtf8 { place: NotUtf8In::Records { count, of }, bytes });
    Ok(FirstLook { end: is_whole.then(|| frames.behind_last().offset), not_utf8 })
}
