//! The steps of a probe: is the service there, and does it take requests of this app? Each step is bounded in time.
//!
//! It sends one request, which changes nothing. `write` asks the questions that only an account of its own can answer.

mod requests;
mod write;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};

use crate::domain::account::UserId;
use crate::domain::verdict::{CallOutcome, Departure};
use crate::io::api::usersig::Signer;
use crate::io::api::{Api, ConnectionWish, Request};
use crate::io::quota::Ticket;

pub use requests::{Halted, IsStopped, ServiceRefusal};
pub use write::{Cleanup, ProbeFinding, Question, WriteEnd, WriteProbe, WriteReport};

/// Longest time for the look-up of a name, and for a connection. Chosen: with an answer in five seconds a probe stays within its ten.
const STEP_MAX: Duration = Duration::from_millis(2_200);
/// Longest time for an answer. The service itself gives up after three seconds.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What is connected to: the service, or the proxy in front of it.
#[derive(Debug, Clone)]
pub struct Peer {
    pub host: String,
    pub port: u16,
}

impl Peer {
    /// Looks up its addresses.
    ///
    /// # Errors
    /// The system's, or [`io::ErrorKind::TimedOut`].
    pub async fn look_up(&self) -> io::Result<Vec<SocketAddr>> {
        let found: Vec<SocketAddr> = in_time(lookup_host((self.host.as_str(), self.port))).await?.collect();
        if found.is_empty() { Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")) } else { Ok(found) }
    }

    /// Connects to the first address that takes a connection, and closes it again.
    ///
    /// # Errors
    /// The last address' error, or [`io::ErrorKind::TimedOut`].
    pub async fn connect(&self, addresses: &[SocketAddr]) -> io::Result<SocketAddr> {
        in_time(TcpStream::connect(addresses)).await?.peer_addr()
    }
}

async fn in_time<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(STEP_MAX, step).await.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")))
}

/// Asks whether the identifier has an account. The request takes the slot of a shared quota, if there is one.
pub async fn ask<A: Api>(api: &A, signer: &mut Signer, identifier: &UserId, mut slot: Option<Ticket>) -> CallOutcome {
    let signature = signer.current(Instant::now(), SystemTime::now());
    let request = Request::AccountCheck(vec![identifier]);
    let lost = |why: &str| CallOutcome::Lost { why: why.to_owned() };
    let departs = move || slot.as_mut().map_or(Departure::Leaves, |slot| slot.uses(Instant::now()));
    match timeout(ANSWER_MAX, api.call(request, ConnectionWish::Fresh, &signature, departs)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => lost("the connection was closed"),
        Err(_) => lost("no answer in time"),
    }
}
