//! Standard output, which contains only the data that a command was asked for.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use crate::shell::exit::{Exit, ExitMessage};

/// Prints a report. If the reader has closed the pipe (`| head`), that is no error.
///
/// # Errors
/// An [`ExitMessage`] with exit code 1 if it cannot be written for another reason.
pub(super) fn print(report: &dyn Display) -> Result<(), ExitMessage> {
    print_to(io::stdout().lock(), report)
}

/// The same as [`print`] for output that is produced while it is written; `None` if the reader has closed the pipe.
///
/// # Errors
/// An [`ExitMessage`] with exit code 1 if it cannot be written.
pub(super) fn write<T>(work: impl FnOnce(&mut dyn Write) -> io::Result<T>) -> Result<Option<T>, ExitMessage> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match work(&mut out).and_then(|made| out.flush().map(|()| made)) {
        Ok(made) => Ok(Some(made)),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(None),
        Err(error) => Err(cannot_write(&error)),
    }
}

fn cannot_write(error: &io::Error) -> ExitMessage {
    ExitMessage::new(
        Exit::Fatal,
        format!("cannot write the report to standard output: {error}"),
        "check where it is redirected to; the same command prints it again",
    )
}

fn print_to(mut out: impl Write, report: &dyn Display) -> Result<(), ExitMessage> {
    match write!(out, "{report}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(cannot_write(&error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Failing(ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_no_error_and_a_full_disk_is() {
        assert_eq!(print_to(Failing(ErrorKind::BrokenPipe), &"report"), Ok(()));
        let word = print_to(Failing(ErrorKind::StorageFull), &"report").unwrap_err();
        assert_eq!(word.exit, Exit::Fatal);
    }
}
