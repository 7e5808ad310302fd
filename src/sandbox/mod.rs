//! A mock service for Tencent Chat, for rehearsals without credentials and for the tests.
//!
//! [`Service`] is a pure state machine. It is as strict as Tencent's documentation, injects faults on request and audits every request.
//! [`Sandbox`] serves it on loopback from a thread of its own. The sandbox shares `api::wire` with the client and nothing else.

mod accounts;
mod app;
mod audit;
mod call_log_entry;
mod command;
mod envelope;
mod fault;
mod fault_injector;
mod files;
mod first_byte;
pub mod limiter;
mod parsed_request;
mod persistence;
mod reply;
mod service;
mod settings;
mod shell;
mod signature;
mod sliding_second;
mod tags;
#[cfg(test)]
mod tests;
mod user_ids;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

pub use accounts::StoredAccount;
pub use audit::{ApiAudit, Audit};
pub use call_log_entry::CallLogEntry;
pub use fault::{Fault, FaultError, Ids, What};
pub use files::{Files, FilesError};
pub use limiter::Counting;
pub use reply::{Act, Reaction, Reply};
pub use service::{Moment, Service, ServiceRequest};
pub use settings::{
    BatchProfiles, CustomFields, DeletedIds, Deleting, IDENTIFIER, Keep, KnownAccounts, OmittedFields, PresenceField, SDKAPPID,
    SandboxSettings, UnknownProfiles,
};
pub use user_ids::{UserIdCase, UserIdRules, UserIdSpaces};

pub use shell::CONNECTIONS_MAX;
use shell::{ServiceAndFiles, SharedService, locked};

/// A running sandbox. Dropping it stops it and closes its connections. Its accounts file is rewritten by [`Sandbox::stop`], or by the next
/// start if that was not called.
#[derive(Debug)]
pub struct Sandbox {
    address: SocketAddr,
    service: SharedService,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sandbox {
    /// Listens on 127.0.0.1 and serves from a thread of its own.
    ///
    /// # Errors
    /// [`io::Error`] if the port is taken or the thread cannot be started.
    pub fn start(settings: SandboxSettings) -> io::Result<Self> {
        Self::start_with(settings, Files::default())
    }

    /// Starts with the accounts of `files` and records changes and requests in them.
    ///
    /// # Errors
    /// The same as [`Self::start`].
    pub fn start_with(settings: SandboxSettings, mut files: Files) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, settings.port))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let request_max = settings.request_max;
        let mut service = Service::with_accounts(settings, files.take_stored());
        files.ask(&mut service);
        let service = Arc::new(Mutex::new(ServiceAndFiles { service, files }));
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&service);
        let thread = std::thread::Builder::new().name("sandbox".to_owned()).spawn(move || {
            if let Err(error) = shell::serve(listener, (shared, request_max), stopped) {
                tracing::error!(%error, "the sandbox cannot serve");
            }
        })?;
        Ok(Self { address, service, stop: Some(stop), thread: Some(thread) })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL for `--endpoint`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The audit up to now.
    #[must_use]
    pub fn audit(&self) -> Audit {
        locked(&self.service).service.audit()
    }

    #[must_use]
    pub fn account(&self, id: &str) -> Option<StoredAccount> {
        locked(&self.service).service.account(id).cloned()
    }

    /// All accounts with their UserIDs, sorted by them.
    #[must_use]
    pub fn accounts(&self) -> Vec<(String, StoredAccount)> {
        let stand = locked(&self.service);
        stand.service.stored().sorted().into_iter().map(|(id, account)| (id.to_owned(), account.clone())).collect()
    }

    /// The users of each request in order of arrival: the first `call_log_kept` of them.
    #[must_use]
    pub fn call_log(&self) -> Vec<CallLogEntry> {
        locked(&self.service).service.call_log().to_vec()
    }

    /// Stops serving and rewrites the accounts file, if there is one.
    ///
    /// # Errors
    /// [`FilesError`] if a file could not be written, now or earlier. Every change that was answered is in the log all the same.
    pub fn stop(&mut self) -> Result<(), FilesError> {
        self.end();
        let ServiceAndFiles { service, files } = &mut *locked(&self.service);
        files.rewrite(service.stored())
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The thread has reported its own panic.
            let _ = thread.join();
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.end();
    }
}
