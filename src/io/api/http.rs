//! Sends requests over HTTPS with reqwest: one connection pool, HTTP/1.1 keep-alive, no redirect, no retry of its own.
//!
//! It turns every result into a [`CallOutcome`]. The URL contains the UserSig, so it never appears in an error text.

use std::cell::{OnceCell, RefCell};
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use reqwest::header::{CONTENT_TYPE, DATE, HeaderValue};
use reqwest::{Certificate, Client, ClientBuilder, StatusCode, Url};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, ClientConfig};
use rustls_platform_verifier::Verifier;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use tokio::time::Instant;

use super::answer;
use super::kept::{Carriers, ConnectionChoice, ConnectionUse, Keeping};
use super::proxy::{ProxyError, ProxyLayer, ProxySettings};
use super::usersig::{self, Signature};
use super::wire::{self, Query};
use super::{Api, ConnectionWish, Departed, GivenUp, Request};
use crate::domain::command::{AnswerSize, Command, PerCommand};
use crate::domain::verdict::CallOutcome;

/// Longest answer of a command that returns at most a list of UserIDs, in bytes; a longer one is an error.
const SHORT_ANSWER_MAX_BYTES: usize = 64 * 1024;
/// Longest answer of a command that returns an item per UserID, in bytes. A hundred profiles with two fields of 500 bytes have 620 kB if
/// each byte is written as an escape of six, and thirty tags of 500 bytes more 1.5 MB as they are. Chosen to be well above both.
const LONG_ANSWER_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Idle connections are closed after this time. Chosen: less than the 60 to 75 s of common servers, so that no request meets a connection
/// that the server is closing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for a connection. Chosen; the timeout of the attempt applies as well.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);

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
    /// The header of the last answer that says when it was made.
    date: Rc<RefCell<Option<HeaderValue>>>,
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
    #[error("the CA file contains no certificate in PEM form")]
    NoCertificate,
    #[error("the CA file contains a certificate that cannot be read")]
    CaFile(#[source] reqwest::Error),
    #[error("cannot set up HTTPS")]
    Client(#[source] reqwest::Error),
    #[error("no source of random numbers")]
    Random(#[from] getrandom::Error),
    #[error("cannot set up TLS with the proxy")]
    ProxyTls(#[from] rustls::Error),
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
            date: Rc::default(),
        })
    }

    /// When the last answer was made, by the clock of the service, to the second.
    #[must_use]
    pub fn last_date(&self) -> Option<SystemTime> {
        let date = self.date.borrow();
        httpdate::parse_http_date(date.as_ref()?.to_str().ok()?).ok()
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

/// The clients with and without kept connections. The second one is created when it is first needed, because reading the machine's
/// certificates takes time.
#[derive(Debug)]
struct Clients {
    kept: Client,
    fresh: OnceCell<Client>,
    settings: HttpSettings,
    own_ca: Vec<Certificate>,
    proxy: Option<ProxyLayer>,
}

impl Clients {
    fn new(settings: &HttpSettings) -> Result<Self, HttpSetupError> {
        let own_ca = match &settings.ca_pem {
            Some(pem) => certificates(pem)?,
            None => Vec::new(),
        };
        let proxy = settings.proxy.as_ref().map(|proxy| proxy_layer(proxy, settings)).transpose()?;
        let kept = client(settings, &own_ca, proxy.as_ref(), settings.connections)?;
        Ok(Self { kept, fresh: OnceCell::new(), settings: settings.clone(), own_ca, proxy })
    }

    fn of(&self, choice: ConnectionChoice) -> &Client {
        match choice {
            ConnectionChoice::Kept | ConnectionChoice::Trial => &self.kept,
            // Creating it worked for the other client, so it fails only if the certificates have disappeared. Then the other client serves.
            ConnectionChoice::Fresh => {
                let fresh = || client(&self.settings, &self.own_ca, self.proxy.as_ref(), 0);
                self.fresh.get_or_init(|| fresh().unwrap_or_else(|_| self.kept.clone()))
            }
        }
    }
}

/// A client that keeps up to `kept` connections.
fn client(settings: &HttpSettings, own_ca: &[Certificate], proxy: Option<&ProxyLayer>, kept: usize) -> Result<Client, HttpSetupError> {
    let plain = || {
        let plain = plain(settings).pool_max_idle_per_host(kept);
        match proxy {
            Some(layer) => plain.unix_socket(layer.socket()).connector_layer(layer.clone()),
            None => plain,
        }
    };
    let client = if settings.endpoint.scheme() == "http" {
        plain().tls_certs_only(std::iter::empty()).build()
    } else {
        plain().tls_certs_merge(own_ca.to_vec()).build().or_else(|error| {
            tracing::warn!(%error, "this machine has no certificate store; using the roots that Mozilla ships");
            plain().tls_certs_only(mozilla_roots().chain(own_ca.to_vec())).build()
        })
    };
    client.map_err(HttpSetupError::Client)
}

fn proxy_layer(proxy: &ProxySettings, settings: &HttpSettings) -> Result<ProxyLayer, HttpSetupError> {
    let tls = if proxy.address.scheme() == "https" { Some(proxy_tls(settings.ca_pem.as_deref().unwrap_or_default())?) } else { None };
    Ok(ProxyLayer::new(proxy, &settings.endpoint, tls)?)
}

/// Trusts the same certificates for the proxy as for the service.
fn proxy_tls(ca_pem: &[u8]) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let own = CertificateDer::pem_slice_iter(ca_pem).filter_map(Result::ok).collect::<Vec<_>>();
    let verifier = Verifier::new_with_extra_roots(own.clone(), Arc::clone(&provider))
        .or_else(|_| Verifier::new_with_extra_roots(own.into_iter().chain(mozilla_der().cloned()), Arc::clone(&provider)))?;
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()))
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate>, HttpSetupError> {
    let certificates = Certificate::from_pem_bundle(pem).map_err(|error| HttpSetupError::CaFile(error.without_url()))?;
    if certificates.is_empty() { Err(HttpSetupError::NoCertificate) } else { Ok(certificates) }
}

fn mozilla_roots() -> impl Iterator<Item = Certificate> {
    mozilla_der().filter_map(|der| Certificate::from_der(der).ok())
}

fn mozilla_der() -> impl Iterator<Item = &'static CertificateDer<'static>> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter()
}

fn plain(settings: &HttpSettings) -> ClientBuilder {
    // If a provider is installed already, this is refused, which does not matter.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .user_agent(concat!("chatlift/", env!("CARGO_PKG_VERSION")))
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        .no_proxy()
        .tcp_nodelay(true)
        .timeout(settings.timeout)
        .connect_timeout(CONNECT_TIMEOUT.min(settings.timeout))
        .pool_idle_timeout(IDLE_TIMEOUT)
}

impl Api for HttpApi {
    fn call<D: Departed>(
        &self,
        request: Request<'_>,
        connection: ConnectionWish,
        signature: &Signature,
        departed: D,
    ) -> impl Future<Output = Result<CallOutcome, GivenUp>> + 'static {
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
        let date = Rc::clone(&self.date);
        async move {
            let sent = sending.send().await;
            let carried = carried_by.get();
            let came = match &sent {
                Ok(_) if carried == CarriedBy::Again => ConnectionUse::Good,
                Err(error) if carried == CarriedBy::Again && is_given_up(error) => ConnectionUse::GivenUp,
                Ok(_) | Err(_) => ConnectionUse::None,
            };
            keeping.borrow_mut().used(choice, came, Instant::now());
            if came == ConnectionUse::GivenUp {
                return Err(GivenUp);
            }
            if let Ok(response) = &sent {
                *date.borrow_mut() = response.headers().get(DATE).cloned();
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
    match command.spec().answer_size {
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
        return Ok(CallOutcome::Lost { why: format!("HTTP {}", status.as_u16()) });
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

fn failed(error: &reqwest::Error, carried: CarriedBy) -> CallOutcome {
    if let Some(why) = untrusted(error) {
        return CallOutcome::Untrusted { why };
    }
    if let Some(status) = refused_by_proxy(error) {
        return CallOutcome::ProxyRefused { status };
    }
    let why = if error.is_timeout() { "no answer in time".to_owned() } else { innermost(error) };
    match carried {
        CarriedBy::Not => CallOutcome::Unreached { why },
        CarriedBy::First | CarriedBy::Again => CallOutcome::Lost { why },
    }
}

/// The text of the innermost error. It names the cause; the outer ones contain the URL.
fn innermost(error: &dyn StdError) -> String {
    let mut cause = error.source();
    let mut words = "the request failed".to_owned();
    while let Some(inner) = cause {
        words = inner.to_string();
        cause = inner.source();
    }
    words
}

/// An error and its causes. An `io::Error` hides its inner error from `source`, and they may be nested.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |inner: &&'a (dyn StdError + 'static)| {
        let inner: &'a (dyn StdError + 'static) = *inner;
        let hidden = inner.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        hidden.map(|hidden| hidden as &(dyn StdError + 'static)).or_else(|| inner.source())
    })
}

/// Why the certificate is not trusted; `None` if the error has another cause.
fn untrusted(error: &reqwest::Error) -> Option<String> {
    causes(error).find_map(|inner| match inner.downcast_ref() {
        Some(rustls::Error::InvalidCertificate(why)) => Some(certificate_words(why)),
        Some(_) | None => None,
    })
}

/// Why a certificate is not trusted, in words.
fn certificate_words(why: &CertificateError) -> String {
    // What comes from the verifier itself has no other name.
    if matches!(why, CertificateError::Other(_)) && format!("{why:?}").contains("CaUsedAsEndEntity") {
        return "the server shows a certificate that may only sign others (CA:TRUE), as self-signed ones often are: make it with \
                basicConstraints=CA:FALSE, or have it signed by a CA of your own and give that CA"
            .to_owned();
    }
    why.to_string()
}

/// The proxy's status if it refuses this client for good: it wants a password, or does not allow connections to the service.
fn refused_by_proxy(error: &reqwest::Error) -> Option<u16> {
    causes(error).find_map(|inner| match inner.downcast_ref() {
        Some(ProxyError::Refused { status: status @ (403 | 407), .. }) => Some(*status),
        Some(_) | None => None,
    })
}

/// Whether the connection was closed or reset before the head of an answer was received. hyper does not tell whether a part of it was.
fn is_given_up(error: &reqwest::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    let is_broken =
        |error: &io::Error| matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof);
    !error.is_timeout()
        && causes(error).any(|inner| {
            inner.downcast_ref().is_some_and(hyper::Error::is_incomplete_message) || inner.downcast_ref().is_some_and(is_broken)
        })
}

/// Whether a request was written, and on which kind of connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CarriedBy {
    Not,
    /// It was the first request on its connection.
    First,
    /// The connection had carried a request before.
    Again,
}

/// The connection's task stores here how the request was carried.
#[derive(Debug, Default)]
struct CarriedByCell(AtomicU8);

impl CarriedByCell {
    fn set(&self, had_carried: bool) {
        self.0.store(if had_carried { 2 } else { 1 }, Ordering::Release);
    }

    fn get(&self) -> CarriedBy {
        match self.0.load(Ordering::Acquire) {
            0 => CarriedBy::Not,
            1 => CarriedBy::First,
            _ => CarriedBy::Again,
        }
    }
}

/// A request body that reports when it is handed to the socket. hyper asks for the body right before it writes it.
struct AnnouncedBody<D> {
    json: Option<Bytes>,
    carried_by: Arc<CarriedByCell>,
    /// `None` if the request has a connection of its own.
    carriers: Option<Carriers>,
    departed: D,
}

impl<D: FnMut() + Unpin> http_body::Body for AnnouncedBody<D> {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let Some(json) = this.json.take() else { return Poll::Ready(None) };
        this.carried_by.set(this.carriers.as_ref().is_some_and(Carriers::note));
        (this.departed)();
        Poll::Ready(Some(Ok(Frame::data(json))))
    }

    fn is_end_stream(&self) -> bool {
        self.json.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.json.as_ref().map_or(0, |json| json.len() as u64))
    }
}
