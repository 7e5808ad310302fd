//! The REST API of Tencent Chat as this tool uses it: an edge, behind one trait.
//!
//! `wire` has the format, `usersig` the signatures, `region` the addresses, `http` the calls, `answer` what comes back
//! (`fields` how its JSON is read). None of them knows of pace, retries or files.

pub mod answer;
mod fields;
pub mod http;
pub mod region;
pub mod usersig;
pub mod wire;

use crate::account::Account;
use crate::command::Command;
use crate::verdict::CallEnd;
use usersig::Signature;

/// What the service can be asked for.
pub trait Api {
    /// Calls `command` once for `accounts`, which are 1 to as many as [`wire::accounts_per_call`] says, with different ids.
    /// All but the imports look at the ids alone.
    /// `departed` is called as the request is handed to the socket, and dropped uncalled if it never is.
    fn call<D>(
        &self,
        command: Command,
        accounts: &[&Account],
        signature: &Signature,
        departed: D,
    ) -> impl Future<Output = CallEnd> + 'static
    where
        D: FnMut() + Send + Sync + Unpin + 'static;
}

impl<A: Api> Api for std::rc::Rc<A> {
    fn call<D>(
        &self,
        command: Command,
        accounts: &[&Account],
        signature: &Signature,
        departed: D,
    ) -> impl Future<Output = CallEnd> + 'static
    where
        D: FnMut() + Send + Sync + Unpin + 'static,
    {
        (**self).call(command, accounts, signature, departed)
    }
}
