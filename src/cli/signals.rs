//! SIGINT and SIGTERM as a stream.

use std::io;

use futures_util::stream::{LocalBoxStream, StreamExt, unfold};
use tokio::signal::unix::{SignalKind, signal};

/// An item for each SIGINT or SIGTERM from now on.
///
/// # Errors
/// The system's, when it takes no handler.
pub(super) fn stops() -> io::Result<LocalBoxStream<'static, ()>> {
    let both = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let next = |(mut interrupt, mut terminate): (tokio::signal::unix::Signal, tokio::signal::unix::Signal)| async move {
        tokio::select! {
            Some(()) = interrupt.recv() => {}
            Some(()) = terminate.recv() => {}
            else => return None,
        }
        Some(((), (interrupt, terminate)))
    };
    Ok(unfold(both, next).boxed_local())
}
