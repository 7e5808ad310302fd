//! A request body that tells when and how it leaves.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use thiserror::Error;

use crate::domain::verdict::Departure;
use crate::io::api::keep_alive::Carriers;

/// Whether a request was written, and on which kind of connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CarriedBy {
    Not,
    /// It was the first request on its connection.
    First,
    /// The connection had carried a request before.
    Again,
    /// It was not written, since it might not leave any more.
    Void,
}

/// The connection's task stores here how the request was carried.
#[derive(Debug, Default)]
pub(super) struct CarriedByCell(AtomicU8);

impl CarriedByCell {
    fn set(&self, had_carried: bool) {
        self.0.store(if had_carried { 2 } else { 1 }, Ordering::Release);
    }

    fn set_void(&self) {
        self.0.store(3, Ordering::Release);
    }

    pub(super) fn get(&self) -> CarriedBy {
        match self.0.load(Ordering::Acquire) {
            0 => CarriedBy::Not,
            1 => CarriedBy::First,
            2 => CarriedBy::Again,
            _ => CarriedBy::Void,
        }
    }
}

/// The request may not leave any more. hyper then closes the connection without having written anything of it.
#[derive(Debug, Error)]
#[error("the permit of the request is void")]
pub(super) struct VoidPermit;

/// A request body that reports when it is handed to the socket. hyper asks for the body right before it writes it.
pub(super) struct AnnouncedBody<D> {
    pub(super) json: Option<Bytes>,
    pub(super) carried_by: Arc<CarriedByCell>,
    /// `None` if the request has a connection of its own.
    pub(super) carriers: Option<Carriers>,
    pub(super) departed: D,
}

impl<D: FnMut() -> Departure + Unpin> http_body::Body for AnnouncedBody<D> {
    type Data = Bytes;
    type Error = VoidPermit;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let Some(json) = this.json.take() else { return Poll::Ready(None) };
        if (this.departed)() == Departure::Void {
            this.carried_by.set_void();
            return Poll::Ready(Some(Err(VoidPermit)));
        }
        this.carried_by.set(this.carriers.as_ref().is_some_and(Carriers::note));
        Poll::Ready(Some(Ok(Frame::data(json))))
    }

    fn is_end_stream(&self) -> bool {
        self.json.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.json.as_ref().map_or(0, |json| json.len() as u64))
    }
}
