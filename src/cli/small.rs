//! Small files that are read whole at the start: a key, a configuration, certificates.
//!
//! Nothing waits here for longer than some seconds: a FIFO without a writer, or a device without an end, is an error like any other.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

/// Longest file that is read. Chosen: a bundle of every public certificate authority has a quarter of it.
const MAX_BYTES: usize = 1 << 20;
/// How long the writer of a FIFO is waited for in all (`--secret-key-file <(…)`). Chosen: a program that fetches a key answers in less.
const WRITER_MAX: Duration = Duration::from_secs(10);

/// The bytes of a file.
///
/// # Errors
/// The file's; [`ErrorKind::TimedOut`] for a FIFO that nobody writes to, [`ErrorKind::FileTooLarge`] past [`MAX_BYTES`].
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).expect("the flag is a small number");
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    let awaited = if kind.is_fifo() || kind.is_char_device() || kind.is_socket() { Some(Instant::now() + WRITER_MAX) } else { None };
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(until) = awaited {
            wait_for_bytes(&file, until)?;
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

/// Until there is something to read, or the writer has closed its end.
fn wait_for_bytes(file: &File, until: Instant) -> io::Result<()> {
    let left = until.saturating_duration_since(Instant::now());
    let left = Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
    match poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&left)) {
        Ok(0) => Err(io::Error::new(ErrorKind::TimedOut, "nobody writes to this pipe")),
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_whole_and_what_has_no_end_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, vec![b'x'; 10_000]).unwrap();
        assert_eq!(read(&path).unwrap().len(), 10_000);
        assert_eq!(read(Path::new("/dev/zero")).unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert_eq!(read(Path::new("/dev/null")).unwrap(), b"");
        assert_eq!(read(folder.path()).unwrap_err().kind(), ErrorKind::IsADirectory);
    }
}
