//! Named pipes that are written to at the end of a run. Waiting for a reader is always bounded.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::shell::exit::ExitMessage;

/// How long to wait for a reader at the start (`chatlift … --summary PIPE & jq . PIPE`). Chosen: a shell starts both in less time.
const READER_MAX: Duration = Duration::from_secs(3);
/// How often to look for a reader.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long to wait for a reader that does not read. Chosen: usually everything fits into the pipe, so that the reader need not read at
/// once.
const STUCK_MAX: Duration = Duration::from_secs(10);

/// Opens the summary's file if it is a pipe, so that its reader waits until it is closed. The pipe must have a reader, or get one within
/// [`READER_MAX`].
pub(super) fn hold(path: Option<&Path>) -> Result<Option<File>, ExitMessage> {
    let Some(path) = path.filter(|path| std::fs::metadata(path).is_ok_and(|stat| stat.file_type().is_fifo())) else {
        return Ok(None);
    };
    let until = Instant::now() + READER_MAX;
    loop {
        match open(path) {
            Ok(pipe) => return Ok(Some(pipe)),
            Err(error) if has_no_reader(&error) && Instant::now() < until => std::thread::park_timeout(LOOK_EVERY),
            Err(error) => {
                return Err(ExitMessage::yours(
                    format!("cannot write the summary {}: {error}", path.display()),
                    "begin to read the pipe before the run, or name a file with --summary",
                ));
            }
        }
    }
}

/// The flag for opening a pipe without waiting for the other side.
pub(super) fn nonblocking() -> i32 {
    i32::try_from(OFlags::NONBLOCK.bits()).expect("the flag fits into an i32")
}

/// Waits until a file is ready or its other side is closed. Returns an error with the text `overdue` if that takes longer than `most`.
pub(super) fn wait(file: &File, until: PollFlags, most: Duration, overdue: &'static str) -> io::Result<()> {
    let most = Timespec { tv_sec: i64::try_from(most.as_secs()).unwrap_or(i64::MAX), tv_nsec: most.subsec_nanos().into() };
    match poll(&mut [PollFd::new(file, until)], Some(&most)) {
        Ok(0) => Err(io::Error::new(ErrorKind::TimedOut, overdue)),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Opens a pipe or a device for writing, without waiting.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).custom_flags(nonblocking()).open(path).map_err(|error| {
        if has_no_reader(&error) { io::Error::new(ErrorKind::NotConnected, "it is a pipe that nobody reads") } else { error }
    })
}

fn has_no_reader(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) || error.kind() == ErrorKind::NotConnected
}

/// Writes to a pipe that may be full for a while, but not for ever.
#[derive(Debug)]
pub(super) struct Patient(pub(super) File);

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    wait(&self.0, PollFlags::OUT, STUCK_MAX, "its reader does not read")?;
                }
                done => return done,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
