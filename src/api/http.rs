//! Calls over HTTPS with reqwest: one connection pool, HTTP/1.1 keep-alive, no redirect, no retry of its own.
//!
//! Turns whatever happens into a [`CallEnd`]; the URL, which carries the UserSig, never gets into an error text.

use std::cell::RefCell;
use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Certificate, Client, ClientBuilder, StatusCode, Url};
use secrecy::ExposeSecret;
use thiserror::Error;

use super::Api;
use super::usersig::Signature;
use super::wire::{self, Answer, ImportBody, MultiImportBody, PortraitGetBody, ProfileItem, Query, UserProfile};
use crate::account::Account;
use crate::command::{Command, PerCommand};
use crate::verdict::{CallEnd, Profile, Yield};

/// Longest answer to an import that is read. The documented ones have some hundred bytes, a batch's up to a hundred ids; more is a fault.
const ANSWER_MAX_BYTES: usize = 64 * 1024;
/// Longest answer with profiles that is read: a hundred with the longest fields are 100 KB, three times that if they come escaped.
const PROFILES_MAX_BYTES: usize = 512 * 1024;
/// JSON of a record in a batch besides its values: keys, quotes and commas.
const KEYS_BYTES: usize = 40;
/// Idle connections are given up after this time. Chosen: below the 60 to 75 s of common servers, so that no call meets a closing one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for a connection. Chosen; the attempt's own time-out holds as well.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);

/// Where and how to call.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Scheme, host and port, without a path.
    pub endpoint: Url,
    pub sdkappid: u64,
    pub identifier: String,
    /// One attempt, body included.
    pub timeout: Duration,
    /// Connections that are kept: as many as calls in flight.
    pub connections: usize,
    /// Certificates (PEM) to trust besides the machine's.
    pub ca_pem: Option<Vec<u8>>,
}

/// The service over HTTP.
#[derive(Debug)]
pub struct HttpApi {
    client: Client,
    /// The commands' URLs without a query.
    urls: PerCommand<Url>,
    sdkappid: u64,
    identifier: String,
    signed: RefCell<Option<SignedUrls>>,
    random: RefCell<fastrand::Rng>,
}

/// The URLs of the calls that carry one signature, without what changes from call to call. Never shown: they hold the signature.
struct SignedUrls {
    generation: u32,
    urls: PerCommand<Url>,
}

impl fmt::Debug for SignedUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedUrls").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// Why no client could be made.
#[derive(Debug, Error)]
pub enum HttpSetupError {
    #[error("the CA file holds no certificate in PEM form")]
    NoCertificate,
    #[error("the CA file holds a certificate that cannot be read")]
    CaFile(#[source] reqwest::Error),
    #[error("cannot set up HTTPS")]
    Client(#[source] reqwest::Error),
    #[error("no source of random numbers")]
    Random,
}

impl HttpApi {
    /// A client for the service at `settings.endpoint`; nothing is connected yet.
    ///
    /// # Panics
    /// Never: the path that is joined to the endpoint is a constant.
    ///
    /// # Errors
    /// [`HttpSetupError`] for a CA file without certificates, or a machine without the means for TLS.
    pub fn new(settings: &HttpSettings) -> Result<Self, HttpSetupError> {
        let seed = getrandom::u64().map_err(|_| HttpSetupError::Random)?;
        let own_ca = match &settings.ca_pem {
            Some(pem) => certificates(pem)?,
            None => Vec::new(),
        };
        let client = if settings.endpoint.scheme() == "http" {
            plain(settings).tls_certs_only(std::iter::empty()).build()
        } else {
            plain(settings).tls_certs_merge(own_ca.clone()).build().or_else(|error| {
                tracing::warn!(%error, "this machine has no certificate store; using the roots that Mozilla ships");
                plain(settings).tls_certs_only(mozilla_roots().chain(own_ca)).build()
            })
        };
        Ok(Self {
            client: client.map_err(HttpSetupError::Client)?,
            urls: PerCommand::new(|command| settings.endpoint.join(&wire::path(wire::of(command))).expect("the path is a constant")),
            sdkappid: settings.sdkappid,
            identifier: settings.identifier.clone(),
            signed: RefCell::default(),
            random: RefCell::new(fastrand::Rng::with_seed(seed)),
        })
    }

    /// The URL of a call. What the calls with one signature share is parsed once; going over it again costs a few µs a call.
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

fn certificates(pem: &[u8]) -> Result<Vec<Certificate>, HttpSetupError> {
    let certificates = Certificate::from_pem_bundle(pem).map_err(|error| HttpSetupError::CaFile(error.without_url()))?;
    if certificates.is_empty() { Err(HttpSetupError::NoCertificate) } else { Ok(certificates) }
}

fn mozilla_roots() -> impl Iterator<Item = Certificate> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().filter_map(|der| Certificate::from_der(der).ok())
}

fn plain(settings: &HttpSettings) -> ClientBuilder {
    // A second installation is refused, which is as good: the provider is there.
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
        .pool_max_idle_per_host(settings.connections)
}

impl Api for HttpApi {
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
        let sent = Arc::new(AtomicBool::new(false));
        let body = Announced { json: Some(body(command, accounts).into()), sent: Arc::clone(&sent), departed };
        let request = self
            .client
            .post(self.url(command, signature))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(reqwest::Body::wrap(body));
        async move {
            match exchange(request, command).await {
                Ok(end) => end,
                Err(error) => failed(&error, sent.load(Ordering::Acquire)),
            }
        }
    }
}

/// The JSON of a call.
fn body(command: Command, accounts: &[&Account]) -> Vec<u8> {
    let json = match (command, accounts) {
        (Command::AccountImport, [account]) => serde_json::to_vec(&import_body(account)),
        (Command::AccountImport, _) => unreachable!("account_import takes exactly one account"),
        (Command::MultiaccountImport, accounts) => {
            let list = accounts.iter().map(|account| import_body(account)).collect();
            let mut json = Vec::with_capacity(accounts.iter().map(|account| KEYS_BYTES + account.bytes()).sum());
            serde_json::to_writer(&mut json, &MultiImportBody { account_list: Some(list), accounts: None }).map(|()| json)
        }
        (Command::PortraitGet, accounts) => serde_json::to_vec(&PortraitGetBody {
            users: accounts.iter().map(|account| account.user_id.as_str().to_owned()).collect(),
            tags: vec![wire::TAG_NICK.to_owned(), wire::TAG_IMAGE.to_owned()],
        }),
    };
    json.expect("strings are always JSON")
}

fn import_body(account: &Account) -> ImportBody<'_> {
    ImportBody {
        user_id: account.user_id.as_str().into(),
        nick: account.nick.as_deref().map(Into::into),
        face_url: account.face_url.as_deref().map(Into::into),
    }
}

async fn exchange(request: reqwest::RequestBuilder, command: Command) -> Result<CallEnd, reqwest::Error> {
    let mut response = request.send().await?;
    let status = response.status();
    if status.is_redirection() {
        return Ok(CallEnd::Redirected { status: status.as_u16() });
    }
    if status == StatusCode::TOO_MANY_REQUESTS {
        return Ok(CallEnd::TooMany);
    }
    if status != StatusCode::OK {
        return Ok(CallEnd::Lost { why: format!("HTTP {}", status.as_u16()) });
    }
    let max_bytes = match command {
        Command::AccountImport | Command::MultiaccountImport => ANSWER_MAX_BYTES,
        Command::PortraitGet => PROFILES_MAX_BYTES,
    };
    let mut answer = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if answer.len() + chunk.len() > max_bytes {
            return Ok(CallEnd::Lost { why: format!("an answer of more than {max_bytes} bytes") });
        }
        answer.extend_from_slice(&chunk);
    }
    Ok(read_answer(command, &answer))
}

/// Reads the body of an answer to `command` with HTTP status 200.
#[must_use]
pub fn read_answer(command: Command, body: &[u8]) -> CallEnd {
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else {
        return CallEnd::Lost { why: "an answer that is not the documented JSON".to_owned() };
    };
    tracing::trace!(code = answer.error_code, request_id = answer.request_id, "answered");
    if !answer.is_success() {
        return CallEnd::Refused { code: answer.error_code, info: answer.error_info };
    }
    CallEnd::Done(match command {
        Command::AccountImport => Yield::Nothing,
        Command::MultiaccountImport => Yield::FailAccounts(answer.fail_accounts.unwrap_or_default()),
        Command::PortraitGet => Yield::Profiles(answer.profiles.into_iter().flatten().map(profile).collect()),
    })
}

fn profile(found: UserProfile) -> Profile {
    let mut profile = Profile { user_id: found.user, ..Profile::default() };
    for ProfileItem { tag, value } in found.items.into_iter().flatten() {
        let text = value.as_str().map(Into::into);
        match tag.as_str() {
            wire::TAG_NICK => profile.nick = text,
            wire::TAG_IMAGE => profile.face_url = text,
            _ => {}
        }
    }
    profile
}

fn failed(error: &reqwest::Error, sent: bool) -> CallEnd {
    if let Some(why) = untrusted(error) {
        return CallEnd::Untrusted { why };
    }
    let why = if error.is_timeout() { "no answer in time".to_owned() } else { innermost(error) };
    if sent { CallEnd::Lost { why } } else { CallEnd::Unreached { why } }
}

/// The words of the innermost error, which names the cause; the outer ones name the URL.
fn innermost(error: &dyn StdError) -> String {
    let mut cause = error.source();
    let mut words = "the call failed".to_owned();
    while let Some(inner) = cause {
        words = inner.to_string();
        cause = inner.source();
    }
    words
}

/// Why the certificate is not trusted, if that is what happened. An `io::Error` hides its inner error from `source`, and they come nested.
fn untrusted(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(inner) = cause {
        if let Some(rustls::Error::InvalidCertificate(why)) = inner.downcast_ref() {
            return Some(why.to_string());
        }
        let hidden = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = hidden.map(|hidden| hidden as &(dyn StdError + 'static)).or_else(|| inner.source());
    }
    None
}

/// A request body that tells when it is handed to the socket: hyper asks for it in the same turn in which it writes.
struct Announced<D> {
    json: Option<Bytes>,
    sent: Arc<AtomicBool>,
    departed: D,
}

impl<D: FnMut() + Unpin> http_body::Body for Announced<D> {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let Some(json) = this.json.take() else { return Poll::Ready(None) };
        this.sent.store(true, Ordering::Release);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_documented_json_is_an_answer() {
        let check = |body: &str, expected: Option<(bool, i64)>| {
            let read = match read_answer(Command::AccountImport, body.as_bytes()) {
                CallEnd::Done(Yield::Nothing) => Some((true, 0)),
                CallEnd::Refused { code, .. } => Some((false, code)),
                CallEnd::Lost { .. } => None,
                other => panic!("{other:?}"),
            };
            assert_eq!(read, expected, "{body}");
        };
        check(r#"{"ActionStatus":"OK","ErrorCode":0,"ErrorInfo":""}"#, Some((true, 0)));
        check(r#"{"ActionStatus":"OK","ErrorCode":0,"ErrorInfo":"","RequestId":"r","More":[1]}"#, Some((true, 0)));
        check(r#"{"ActionStatus":"OK","ErrorCode":70169,"ErrorInfo":"x"}"#, Some((false, 70169)));
        check(r#"{"ActionStatus":"FAIL","ErrorCode":0,"ErrorInfo":"x"}"#, Some((false, 0)));
        check(r#"{"ActionStatus":"OK","ErrorCode":"0"}"#, None);
        check("<html>please log in</html>", None);
        check("", None);
        check("null", None);
    }

    #[test]
    fn what_a_batch_refused_and_what_a_profile_holds_is_read() {
        let ids = |body: &str| match read_answer(Command::MultiaccountImport, body.as_bytes()) {
            CallEnd::Done(Yield::FailAccounts(ids)) => ids.iter().map(ToString::to_string).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(ids(r#"{"ActionStatus":"OK","ErrorCode":0,"ErrorInfo":"","FailAccounts":["a","b"]}"#), ["a", "b"]);
        assert_eq!(ids(r#"{"ActionStatus":"OK","ErrorCode":0,"FailAccounts":null}"#), [""; 0]);
        assert_eq!(ids(r#"{"ActionStatus":"OK","ErrorCode":0}"#), [""; 0]);
        let body = r#"{"ActionStatus":"OK","ErrorCode":0,"UserProfileItem":[
            {"To_Account":"a","ProfileItem":[{"Tag":"Tag_Profile_IM_Nick","Value":"n"},{"Tag":"Tag_Profile_IM_Level","Value":3}],"ResultCode":0},
            {"To_Account":"@TLS#NOT_FOUND","ResultCode":40003}]}"#;
        let found = |user_id: &str, nick: Option<&str>| Profile { user_id: user_id.into(), nick: nick.map(Into::into), face_url: None };
        let expected = CallEnd::Done(Yield::Profiles(vec![found("a", Some("n")), found("@TLS#NOT_FOUND", None)]));
        assert_eq!(read_answer(Command::PortraitGet, body.as_bytes()), expected);
    }
}
