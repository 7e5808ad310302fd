//! An embedded stand-in for Tencent Chat: for a rehearsal without credentials, and for the tests.
//!
//! [`Service`] is the service as a state machine, strict as the documentation is, with faults on request and an audit of what it saw;
//! [`Sandbox`] serves it on loopback from a thread of its own. Shares `api::wire` with the client and nothing else.

mod accounts;
mod audit;
mod command;
mod envelope;
mod fault;
mod mischief;
mod order;
mod pace;
mod reply;
mod service;
mod settings;
mod shell;
mod signature;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

pub use accounts::Account;
pub use audit::{ApiAudit, Audit};
pub use command::Command;
pub use fault::{Fault, FaultError, Ids, What};
pub use reply::{Act, Reaction, Reply};
pub use service::{Moment, Request, Service};
pub use settings::{BatchProfiles, Deleting, IDENTIFIER, Keep, SDKAPPID, Settings};
use shell::{Shared, locked};

/// A running sandbox; dropping it stops it and ends its connections.
#[derive(Debug)]
pub struct Sandbox {
    address: SocketAddr,
    service: Shared,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sandbox {
    /// Listens on 127.0.0.1 and serves from a thread of its own.
    ///
    /// # Errors
    /// When the port is taken, or the machine has no thread or socket to spare.
    pub fn start(settings: Settings) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, settings.port))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let service = Arc::new(Mutex::new(Service::new(settings)));
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&service);
        let thread = std::thread::Builder::new().name("sandbox".to_owned()).spawn(move || {
            if let Err(error) = shell::serve(listener, shared, stopped) {
                tracing::error!(%error, "the sandbox cannot serve");
            }
        })?;
        Ok(Self { address, service, stop: Some(stop), thread: Some(thread) })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What `--endpoint` takes.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was seen so far.
    #[must_use]
    pub fn audit(&self) -> Audit {
        locked(&self.service).audit()
    }

    /// The account with this UserID.
    #[must_use]
    pub fn account(&self, id: &str) -> Option<Account> {
        locked(&self.service).account(id).cloned()
    }

    /// All accounts with their UserIDs, sorted by them.
    #[must_use]
    pub fn accounts(&self) -> Vec<(String, Account)> {
        let mut accounts: Vec<_> = locked(&self.service).accounts().map(|(id, account)| (id.to_owned(), account.clone())).collect();
        accounts.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        accounts
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by its own thread.
            let _ = thread.join();
        }
    }
}
