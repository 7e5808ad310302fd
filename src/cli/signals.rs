//! SIGINT and SIGTERM as a stream.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_util::stream::{LocalBoxStream, Stream, StreamExt, unfold};
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

/// One stream of stops for a run of several phases: what comes between two of them is not lost.
#[derive(Clone)]
pub(super) struct Stops(Rc<RefCell<LocalBoxStream<'static, ()>>>);

impl Stops {
    /// # Errors
    /// The system's, when it takes no handler. Needs a runtime around it.
    pub(super) fn new() -> io::Result<Self> {
        stops().map(|stops| Self(Rc::new(RefCell::new(stops))))
    }
}

impl Stream for Stops {
    type Item = ();

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<()>> {
        self.0.borrow_mut().poll_next_unpin(context)
    }
}
