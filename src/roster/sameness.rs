//! Whether an input is still the one that an earlier run has seen.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::frames::{FrameError, Frames};
use crate::input::{Fingerprint, Mark, Sameness};

/// The stat fields of a file.
///
/// # Errors
/// The file's.
pub fn fingerprint(path: &Path) -> io::Result<Fingerprint> {
    std::fs::metadata(path).map(|stat| fields(&stat))
}

/// As [`fingerprint`], of a file that is open.
///
/// # Errors
/// The file's.
pub fn fingerprint_of(file: &File) -> io::Result<Fingerprint> {
    file.metadata().map(|stat| fields(&stat))
}

fn fields(stat: &std::fs::Metadata) -> Fingerprint {
    use std::os::unix::fs::MetadataExt;
    const NS: i64 = 1_000_000_000;
    Fingerprint {
        len: stat.len(),
        modified_ns: stat.mtime() * NS + stat.mtime_nsec(),
        changed_ns: stat.ctime() * NS + stat.ctime_nsec(),
        inode: stat.ino(),
    }
}

/// Compares a file with what an earlier run has seen of it up to `settled`; reads that much of it.
///
/// # Errors
/// The file's.
pub fn compare(path: &Path, delimiter: u8, settled: Mark) -> io::Result<Sameness> {
    let input = File::open(path)?;
    match passed(Frames::new((&input).take(settled.offset), delimiter, Mark::START)) {
        Err(FrameError::Read(error)) => Err(error),
        Ok(at) if at == settled => rest(&input, delimiter, settled),
        Ok(_) | Err(FrameError::OpenQuote { .. } | FrameError::LongRecord { .. }) => Ok(Sameness::ChangedWithin),
    }
}

/// The place behind the last record.
fn passed(mut frames: Frames<impl Read>) -> Result<Mark, FrameError> {
    frames.skip_bom()?;
    let mut last = Mark::START;
    if let Some(header) = frames.next()? {
        frames.header_ends();
        last = Mark { rows: 0, ..header.end };
    }
    while let Some(frame) = frames.next()? {
        last = frame.end;
    }
    Ok(last)
}

/// Whether anything but blank lines follows. A settled last line without its end must not have grown.
fn rest(mut input: &File, delimiter: u8, settled: Mark) -> io::Result<Sameness> {
    input.seek(SeekFrom::Start(settled.offset - 1))?;
    let mut around = [0; 3];
    let read = input.take(3).read(&mut around)?;
    let (before, next) = around[..read].split_at(read.min(1));
    if before != b"\n" && !(next.is_empty() || next.starts_with(b"\n") || next == b"\r\n") {
        return Ok(Sameness::ChangedWithin);
    }
    input.seek(SeekFrom::Start(settled.offset))?;
    match Frames::new(input, delimiter, settled).next() {
        Ok(None) => Ok(Sameness::Same),
        Ok(Some(_)) | Err(FrameError::OpenQuote { .. } | FrameError::LongRecord { .. }) => Ok(Sameness::ChangedAfter),
        Err(FrameError::Read(error)) => Err(error),
    }
}
