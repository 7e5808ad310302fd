//! A service in memory, as the API of a sync whose clock is paused.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use chatlift::domain::account::Account;
use chatlift::domain::command::Command;
use chatlift::domain::verdict::{CallOutcome, Departure};
use chatlift::io::api::usersig::Signature;
use chatlift::io::api::{Api, ConnectionWish, NotDelivered, Request};

use crate::support::requests;

/// What a service does with a request.
pub(super) trait Serves: 'static {
    /// The time between a request and its answer.
    const LATENCY: Duration;

    /// Whether the next request takes effect when it arrives, and not only when it is answered.
    fn is_heard_first(&mut self) -> bool {
        false
    }

    fn take(&mut self, command: Command, accounts: &[Account]) -> CallOutcome;
}

/// The service. Clones are the same one.
#[derive(Default)]
pub(super) struct MemoryService<S>(pub(super) Rc<RefCell<S>>);

impl<S> Clone for MemoryService<S> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<S: Serves> Api for MemoryService<S> {
    fn call<D>(
        &self,
        request: Request<'_>,
        _: ConnectionWish,
        _: &Signature,
        mut departed: D,
    ) -> impl Future<Output = Result<CallOutcome, NotDelivered>> + 'static
    where
        D: FnMut() -> Departure + Send + Sync + Unpin + 'static,
    {
        let service = Rc::clone(&self.0);
        let (command, accounts) = (request.command(), requests::accounts(&request));
        async move {
            departed();
            let is_heard_first = service.borrow_mut().is_heard_first();
            let heard = is_heard_first.then(|| service.borrow_mut().take(command, &accounts));
            tokio::time::sleep(S::LATENCY).await;
            Ok(heard.unwrap_or_else(|| service.borrow_mut().take(command, &accounts)))
        }
    }
}
