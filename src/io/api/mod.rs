//! The REST API of Tencent Chat as this tool uses it, behind one trait.
//!
//! `wire` holds the format, `usersig` makes the signatures, `region` has the addresses, `http` sends the requests, and `answer` reads what
//! comes back. `kept` decides whether connections are kept, `proxy` leads them through a proxy, and
//! `fields` reads the JSON of an answer. None of them knows of pace, retries or
//! files.

pub mod answer;
mod fields;
pub mod http;
mod kept;
pub mod proxy;
pub mod region;
pub mod usersig;
pub mod wire;

use crate::domain::account::Account;
use crate::domain::command::Command;
use crate::domain::verdict::CallOutcome;
use usersig::Signature;

/// Which connection a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// One that is kept, or a new one.
    Any,
    /// One that has carried no call.
    Fresh,
}

/// What is asked for in a call.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub command: Command,
    /// 1 to as many as [`Command::spec`] says, with different ids. All but the imports look at the ids alone.
    pub accounts: &'a [&'a Account],
    pub line: Line,
}

/// The call left on a kept connection that the other side had given up: it was closed or reset before a byte of the answer came. That says
/// nothing of the service and is charged to nobody; the call is made again, through the gate, on a [`Line::Fresh`], which can't end so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GivenUp;

/// What the service can be asked for.
pub trait Api {
    /// Calls the service once.
    /// `departed` is called as the request is handed to the socket, and dropped uncalled if it never is.
    fn call<D>(
        &self,
        request: Request<'_>,
        signature: &Signature,
        departed: D,
    ) -> impl Future<Output = Result<CallOutcome, GivenUp>> + 'static
    where
        D: FnMut() + Send + Sync + Unpin + 'static;
}

impl<A: Api> Api for std::rc::Rc<A> {
    fn call<D>(
        &self,
        request: Request<'_>,
        signature: &Signature,
        departed: D,
    ) -> impl Future<Output = Result<CallOutcome, GivenUp>> + 'static
    where
        D: FnMut() + Send + Sync + Unpin + 'static,
    {
        (**self).call(request, signature, departed)
    }
}
