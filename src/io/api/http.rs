//! Sends requests over HTTPS with reqwest: one connection pool, HTTP/1.1 keep-alive, no redirect, no retry of its own.
//!
//! It turns every result into a [`CallOutcome`]. `clients` makes the connections, `announced_body` tells when a request leaves, `failure`
//! finds out why one failed. The URL contains the UserSig, so it never appears in an error text.

mod announced_body;
mod clients;
mod failure;

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::header::{CONTENT_TYPE, DATE, HeaderValue};
use reqwest::tls::TlsInfo;
use reqwest::{StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use tokio::time::Instant;

use super::answer;
use super::keep_alive::{Carriers, ConnectionChoice, ConnectionUse, Keeping};
use super::proxy::ProxySettings;
use super::usersig::{self, Signature};
use super::validity;
use super::wire::{self, Query};
use super::{Api, CaFileError, ConnectionWish, Departed, NotDelivered, Request};
use crate::domain::command::{AnswerSize, Command, PerCommand};
use crate::domain::verdict::{CallOutcome, HTTP_STATUS};
use announced_body::{AnnouncedBody, CarriedBy, CarriedByCell};
use clients::Clients;
use failure::{failed, is_closed_by_server};

/// Longest answer of a command that returns at most a list of UserIDs, in bytes; a longer one is an error.
const SHORT_ANSWER_MAX_BYTES: usize = 64 * 1024;
/// Longest answer of a command that returns an item per UserID, in bytes. A hundred profiles with two fields of 500 bytes have 620 kB if
/// each byte is written as an escape of six, and thirty tags of 500 bytes more 1.5 MB as they are. Chosen to be well above both.
const LONG_ANSWER_MAX_BYTES: usize = 4 * 1024 * 1024;
/// The address of the service, the app, and how to connect.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Scheme, host and port, without a path.
    pub endpoint: Url,
    pub sdkappid: u64,
    pub identifier: String,
    /// The time limit of one attempt, body included.
    pub timeout: Duration,
    /// The most connections that are kept open: as many as requests in flight.
    pub connections: usize,
    /// Certificates (PEM) that are trusted besides the machine's.
    pub ca_pem: Option<Vec<u8>>,
    /// The proxy for all connections.
    pub proxy: Option<ProxySettings>,
}

/// The service's API over HTTPS.
#[derive(Debug)]
pub struct HttpApi {
    clients: Clients,
    carriers: Carriers,
    keeping: Rc<RefCell<Keeping>>,
    /// The URL of each command without a query.
    urls: PerCommand<Url>,
    sdkappid: u64,
    identifier: String,
    signed: RefCell<Option<SignedUrls>>,
    random: RefCell<fastrand::Rng>,
    last: Rc<RefCell<LastAnswer>>,
}

/// What a probe wants to know of an answer.
#[derive(Debug, Default)]
struct LastAnswer {
    /// The header that says when it was made.
    date: Option<HeaderValue>,
    tls: Option<TlsInfo>,
}

/// The URLs for one signature, without the parameters that change from request to request. They are not shown by Debug, because they
/// contain the signature.
struct SignedUrls {
    generation: u32,
    urls: PerCommand<Url>,
}

impl fmt::Debug for SignedUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedUrls").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// Why no client could be created.
#[derive(Debug, Error)]
pub enum HttpSetupError {
    #[error(transparent)]
    CaFile(#[from] CaFileError),
    #[error("cannot set up HTTPS")]
    Client(#[source] reqwest::Error),
    #[error("no source of random numbers")]
    Random(#[from] getrandom::Error),
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
}

impl HttpApi {
    /// Creates a client for the service at `settings.endpoint`. It does not connect yet.
    ///
    /// # Panics
    /// Never: the path that is joined to the endpoint is a constant.
    ///
    /// # Errors
    /// [`HttpSetupError`] for a CA file without certificates, or if TLS cannot be set up.
    pub fn new(settings: &HttpSettings) -> Result<Self, HttpSetupError> {
        let seed = getrandom::u64()?;
        Ok(Self {
            clients: Clients::new(settings)?,
            carriers: Carriers::default(),
            keeping: Rc::default(),
            urls: PerCommand::new(|command| settings.endpoint.join(&wire::path(command.spec().path)).expect("the path is a constant")),
            sdkappid: settings.sdkappid,
            identifier: settings.identifier.clone(),
            signed: RefCell::default(),
            random: RefCell::new(fastrand::Rng::with_seed(seed)),
            last: Rc::default(),
        })
    }

    /// When the last answer was made, by the clock of the service, to the second.
    #[must_use]
    pub fn last_date(&self) -> Option<SystemTime> {
        let last = self.last.borrow();
        httpdate::parse_http_date(last.date.as_ref()?.to_str().ok()?).ok()
    }

    /// When the certificate ends that the server of the last answer has shown, if that came on a fresh connection.
    #[must_use]
    pub fn certificate_ends(&self) -> Option<SystemTime> {
        validity::ends(self.last.borrow().tls.as_ref()?.peer_certificate()?)
    }

    /// The URL of a request. The part that depends on the signature is parsed once, which saves a few µs per request.
    fn url(&self, command: Command, signature: &Signature) -> Url {
        let mut cached = self.signed.borrow_mut();
        let signed = match &mut *cached {
            Some(signed) if signed.generation == signature.generation => signed,
            other => other.insert(self.signed_urls(signature)),
        };
        let mut url = signed.urls[command].clone();
        url.query_pairs_mut().extend_pairs(wire::random_and_type(self.random.borrow_mut().u32(..)));
        url
    }

    fn signed_urls(&self, signature: &Signature) -> SignedUrls {
        let query = Query { sdkappid: self.sdkappid, identifier: &self.identifier, usersig: signature.usersig.expose_secret() };
        let query = query.before_random();
        let urls = PerCommand::new(|command| {
            let mut url = self.urls[command].clone();
            url.set_query(Some(&query));
            url
        });
        SignedUrls { generation: signature.generation, urls }
    }
}

impl Api for HttpApi {
    fn call<D: Departed>(
        &self,
        request: Request<'_>,
        connection: ConnectionWish,
        signature: &Signature,
        departed: D,
    ) -> impl Future<Output = Result<CallOutcome, NotDelivered>> + 'static {
        let command = request.command();
        let choice = match connection {
            ConnectionWish::Any => self.keeping.borrow_mut().choose(Instant::now()),
            ConnectionWish::Fresh => ConnectionChoice::Fresh,
        };
        let carried_by = Arc::new(CarriedByCell::default());
        let carriers = (choice != ConnectionChoice::Fresh).then(|| self.carriers.clone());
        let json = Some(request.body().into());
        let body = AnnouncedBody { json, carried_by: Arc::clone(&carried_by), carriers, departed };
        let sending = self
            .clients
            .of(choice)
            .post(self.url(command, signature))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(reqwest::Body::wrap(body));
        let (keeping, usersig) = (Rc::clone(&self.keeping), Arc::clone(&signature.usersig));
        let last = Rc::clone(&self.last);
        async move {
            let sent = sending.send().await;
            let carried = carried_by.get();
            if carried == CarriedBy::Void {
                keeping.borrow_mut().used(choice, ConnectionUse::None, Instant::now());
                return Err(NotDelivered::Void);
            }
            let came = match &sent {
                Ok(_) if carried == CarriedBy::Again => ConnectionUse::Good,
                Err(error) if carried == CarriedBy::Again && is_closed_by_server(error) => ConnectionUse::ClosedByServer,
                Ok(_) | Err(_) => ConnectionUse::None,
            };
            keeping.borrow_mut().used(choice, came, Instant::now());
            if came == ConnectionUse::ClosedByServer {
                return Err(NotDelivered::ConnectionClosed);
            }
            if let Ok(response) = &sent {
                *last.borrow_mut() =
                    LastAnswer { date: response.headers().get(DATE).cloned(), tls: response.extensions().get::<TlsInfo>().cloned() };
            }
            let end = match sent {
                Ok(response) => read(response, command, &usersig).await,
                Err(error) => Err(error),
            };
            Ok(end.unwrap_or_else(|error| failed(&error, carried)))
        }
    }
}

const fn answer_max_bytes(command: Command) -> usize {
    match command.spec().answer.size() {
        AnswerSize::Short => SHORT_ANSWER_MAX_BYTES,
        AnswerSize::Long => LONG_ANSWER_MAX_BYTES,
    }
}

async fn read(mut response: reqwest::Response, command: Command, usersig: &SecretString) -> Result<CallOutcome, reqwest::Error> {
    let status = response.status();
    if status.is_redirection() {
        return Ok(CallOutcome::Redirected { status: status.as_u16() });
    }
    if status == StatusCode::TOO_MANY_REQUESTS {
        return Ok(CallOutcome::TooMany);
    }
    if status != StatusCode::OK {
        return Ok(CallOutcome::Lost { why: format!("{HTTP_STATUS}{}", status.as_u16()) });
    }
    let most = answer_max_bytes(command);
    let mut answer = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if answer.len() + chunk.len() > most {
            return Ok(CallOutcome::Lost { why: format!("an answer of more than {most} bytes") });
        }
        answer.extend_from_slice(&chunk);
    }
    Ok(answer::read(command, &usersig::hide(usersig, answer)))
}
