//! Small files that are read completely at the start: a key, a configuration, certificates.
//!
//! Reading waits for a few seconds at most. A FIFO without a writer or a device without an end is an error like any other.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::pipe::{nonblocking, wait};

/// Longest file that is read, in bytes. Chosen: a bundle of all public certificate authorities has a quarter of it.
const MAX_BYTES: usize = 1 << 20;
/// How long to wait in total for the writer of a FIFO (`--secret-key-file <(…)`). Chosen: a program that fetches a key takes less.
const WRITER_MAX: Duration = Duration::from_secs(10);

/// Reads a file completely.
///
/// # Errors
/// [`io::Error`] of the file; [`ErrorKind::TimedOut`] for a FIFO without a writer, [`ErrorKind::FileTooLarge`] beyond [`MAX_BYTES`].
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(nonblocking()).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    let awaited = if kind.is_fifo() || kind.is_char_device() || kind.is_socket() { Some(Instant::now() + WRITER_MAX) } else { None };
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(until) = awaited {
            wait(&file, PollFlags::IN, until.saturating_duration_since(Instant::now()), "nobody writes to this pipe")?;
        }
        match (&file).read(&mut chunk) {
            Ok(0) => return Ok(bytes),
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error),
        }
        if bytes.len() > MAX_BYTES {
            return Err(ErrorKind::FileTooLarge.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_completely_and_endless_ones_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, vec![b'x'; 10_000]).unwrap();
        assert_eq!(read(&path).unwrap().len(), 10_000);
        assert_eq!(read(Path::new("/dev/zero")).unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert_eq!(read(Path::new("/dev/null")).unwrap(), b"");
        assert_eq!(read(folder.path()).unwrap_err().kind(), ErrorKind::IsADirectory);
    }
}
