//! Files beside the input that are read: small ones completely at the start (a key, a configuration, certificates), others from start to end.
//!
//! A writer is waited for a few seconds at most. A FIFO without a writer or a device without an end is an error like any other.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::pipe::{nonblocking, wait};

/// Longest file that is read, in bytes. Chosen: a bundle of all public certificate authorities has a quarter of it.
const MAX_BYTES: usize = 1 << 20;
/// How long to wait in total for the writer of a FIFO (`--secret-key-file <(…)`). Chosen: a program that fetches a key takes less.
const WRITER_MAX: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(10) };

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

/// Opens a file of any length that is read from its start to its end.
///
/// # Errors
/// [`io::Error`] of the file; [`ErrorKind::TimedOut`] for a FIFO without a writer.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(nonblocking()).open(path)?;
    if file.metadata()?.file_type().is_fifo() {
        wait(&file, PollFlags::IN, WRITER_MAX, "nobody writes to this pipe")?;
    }
    fcntl_setfl(&file, fcntl_getfl(&file)?.difference(OFlags::NONBLOCK))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn a_pipe_is_read_as_it_is_written_and_is_not_waited_for_without_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert_eq!(open(&path).unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(read(&path).unwrap_err().kind(), ErrorKind::TimedOut);
        let (name, mut text) = (path.clone(), String::new());
        let thread = std::thread::spawn(move || std::fs::write(name, "one\n".repeat(100_000)).unwrap());
        open(&path).unwrap().read_to_string(&mut text).unwrap();
        thread.join().unwrap();
        assert_eq!(text.len(), 400_000);
    }

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
