//! The REST API of Tencent Chat as this tool uses it, behind one trait.
//!
//! `wire` has the format, `usersig` the signatures, `region` the addresses, `request` what is asked, `http` sends it, and `answer` reads
//! answers, with `fields` for their JSON. `kept` decides whether connections are kept, `proxy` connects through a proxy, and `tls` trusts
//! servers; `validity` reads the end of their certificates. None of them knows about pace, retries or files.

pub mod answer;
mod fields;
pub mod http;
mod keep_alive;
pub mod proxy;
pub mod region;
mod request;
mod tls;
pub mod usersig;
mod validity;
pub mod wire;

use crate::domain::verdict::{CallOutcome, Departure};
pub use request::Request;
pub use tls::CaFileError;
use usersig::Signature;

/// The kind of connection that a request may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionWish {
    /// A kept connection or a new one.
    Any,
    /// A connection that has carried no request yet.
    Fresh,
}

/// Why a request was not delivered and has no answer. This says nothing about the service and counts as no attempt: the request must be
/// sent again, through the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotDelivered {
    /// The server had closed the kept connection before a byte of the answer arrived. On a [`ConnectionWish::Fresh`] no request ends so.
    ConnectionClosed,
    /// It was not written, because it might not leave any more.
    Void,
}

/// Called when a request is handed to the socket. It says whether the request may still leave.
pub trait Departed: FnMut() -> Departure + Send + Sync + Unpin + 'static {}

impl<D: FnMut() -> Departure + Send + Sync + Unpin + 'static> Departed for D {}

/// The service's API.
pub trait Api {
    /// Sends one request. `departed` is called when the request is handed to the socket. If the request is never sent, it is dropped
    /// without a call.
    fn call<D: Departed>(
        &self,
        request: Request<'_>,
        connection: ConnectionWish,
        signature: &Signature,
        departed: D,
    ) -> impl Future<Output = Result<CallOutcome, NotDelivered>> + 'static;
}

impl<A: Api> Api for std::rc::Rc<A> {
    fn call<D: Departed>(
        &self,
        request: Request<'_>,
        connection: ConnectionWish,
        signature: &Signature,
        departed: D,
    ) -> impl Future<Output = Result<CallOutcome, NotDelivered>> + 'static {
        (**self).call(request, connection, signature, departed)
    }
}
