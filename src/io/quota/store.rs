//! Carries renewals to the store. The connection comes back by itself; whatever fails is told, and nothing is repeated but a script that the
//! store does not know yet.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{
    Client, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisConnectionInfo, RedisError, ServerErrorKind, TlsCertificates, Value,
};
use secrecy::ExposeSecret;
use thiserror::Error;
use tokio::time::timeout;

use super::lease_book::{ANSWER_MAX, Renewal, Renewed};
use super::lock;
use super::quota_pace::{CommonPace, SentReport};
use super::settings::{QuotaSettings, StoreAddress, Transport};
use crate::domain::command::Command;

/// The script that decides who holds which slots.
pub const SCRIPT: &str = include_str!("quota.lua");
/// The version of the script's arguments and fields.
const VERSION: &str = "2";
/// How long connecting may take. Chosen: TLS over a long line.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// After so many requests without an answer in a row the connection is made anew: the server may be gone without a word.
const UNANSWERED_MAX: u32 = 4;
/// Figures of an answer before the waits.
const FIGURES: usize = 10;

/// The name of a process among all that take part, for as long as it runs.
fn random_id() -> String {
    let word = || getrandom::u64().unwrap_or_else(|_| fastrand::u64(..));
    format!("{:016x}{:016x}", word(), word())
}

/// Why a renewal failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QuotaError {
    /// No answer, or none that grants anything: later it may.
    #[error("{0}")]
    Lost(String),
    #[error(transparent)]
    Refused(#[from] QuotaRefusal),
}

/// Why this process may not take part, until someone has changed something.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QuotaRefusal {
    #[error("the quota's store refuses name or password: {0}")]
    Password(String),
    #[error("the quota's store does not allow the script: {0}")]
    Forbidden(String),
    #[error("the quota's store has no such database: {0}")]
    NoDatabase(String),
    #[error("the key {0} in the quota's store holds something else")]
    WrongType(String),
    #[error("the certificate of the quota's store is not trusted: {0}")]
    Untrusted(String),
    #[error("another version of the quota is in use: {stored} there, {own} here")]
    Version { stored: String, own: String },
    #[error("another limit of {api} is in use: {stored} requests/s there, {given} requests/s here", api = .api.name())]
    Rate { api: Command, stored: String, given: String },
}

/// The end of a renewal.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) command: Command,
    pub(super) number: u64,
    pub(super) end: Result<Renewed, QuotaError>,
}

/// The store, as one process sees it.
pub(super) struct Store {
    settings: QuotaSettings,
    headroom_percent: u8,
    id: String,
    connection: Option<ConnectionManager>,
    /// The checksum by which the store knows the script.
    script: Arc<Mutex<Option<String>>>,
    unanswered: u32,
}

impl Store {
    pub(super) fn new(settings: &QuotaSettings, headroom_percent: u8) -> Self {
        Self { settings: settings.clone(), headroom_percent, id: random_id(), connection: None, script: Arc::default(), unanswered: 0 }
    }

    /// Carries one renewal. Nothing of it happens before the future is polled.
    pub(super) fn call(&mut self, command: Command, renewal: &Renewal) -> impl Future<Output = Answered> + Send + use<> {
        let connection = self.connection();
        let arguments = Arguments {
            key: format!("{}:{}", self.settings.key, command.name()),
            words: words(self.settings.limits[command].get(), &self.id, renewal, self.headroom_percent),
        };
        let (script, number) = (Arc::clone(&self.script), renewal.number);
        async move {
            let end = match connection {
                Ok(connection) => timeout(ANSWER_MAX, evaluate(connection, &script, &arguments)).await,
                Err(error) => Ok(Err(error)),
            };
            let end = match end {
                Ok(Ok(value)) => read(&value, command),
                Ok(Err(error)) => Err(judged(&error, &arguments.key)),
                Err(_) => Err(QuotaError::Lost(NO_ANSWER.to_owned())),
            };
            Answered { command, number, end }
        }
    }

    fn connection(&mut self) -> Result<ConnectionManager, RedisError> {
        if let Some(connection) = &self.connection {
            return Ok(connection.clone());
        }
        let connection = connect(&self.settings.store)?;
        Ok(self.connection.insert(connection).clone())
    }

    /// Lets go of a connection that leads nowhere: to a server that is silent, or is no master any more.
    pub(super) fn heed(&mut self, answered: &Answered) {
        match &answered.end {
            Err(QuotaError::Lost(why)) if why == NO_ANSWER => self.unanswered += 1,
            Err(QuotaError::Lost(_)) => self.unanswered = UNANSWERED_MAX,
            Ok(_) | Err(QuotaError::Refused(_)) => self.unanswered = 0,
        }
        if self.unanswered >= UNANSWERED_MAX {
            (self.connection, self.unanswered) = (None, 0);
        }
    }
}

const NO_ANSWER: &str = "no answer in time";

/// Whether the store is there, takes name and password, and has the same limits. Nothing is asked for.
///
/// # Errors
/// [`QuotaError`].
pub async fn check(settings: &QuotaSettings, commands: &[Command], within: Duration) -> Result<u64, QuotaError> {
    let mut store = Store::new(settings, 0);
    let mut processes = 0;
    for command in commands {
        let nothing = Renewal { number: 1, entry: 0, kept: 0, wanted: 0, within_ms: 0, sent: SentReport::default(), waits_ms: Vec::new() };
        let connected = async {
            let mut answered = store.call(*command, &nothing).await;
            while answered.end == Err(QuotaError::Lost(NO_ANSWER.to_owned())) {
                answered = store.call(*command, &nothing).await;
            }
            answered.end
        };
        let answer = timeout(within, connected).await.unwrap_or_else(|_| Err(QuotaError::Lost(NO_ANSWER.to_owned())))?;
        processes = processes.max(answer.processes);
    }
    Ok(processes)
}

/// What a call says: the hash and the words behind it.
struct Arguments {
    key: String,
    words: Vec<String>,
}

fn words(limit: u32, id: &str, renewal: &Renewal, headroom_percent: u8) -> Vec<String> {
    let SentReport { left, refused, refused_ago_ms } = renewal.sent;
    let mut words = vec![
        VERSION.to_owned(),
        limit.to_string(),
        id.to_owned(),
        renewal.number.to_string(),
        renewal.entry.to_string(),
        renewal.kept.to_string(),
        renewal.wanted.to_string(),
        renewal.within_ms.to_string(),
        left.to_string(),
        refused.to_string(),
        refused_ago_ms.map_or_else(|| "-1".to_owned(), |ago_ms| ago_ms.to_string()),
        headroom_percent.to_string(),
    ];
    words.extend(renewal.waits_ms.iter().map(u64::to_string));
    words
}

async fn evaluate(mut connection: ConnectionManager, script: &Mutex<Option<String>>, arguments: &Arguments) -> Result<Value, RedisError> {
    let known = lock(script).clone();
    let sum = match known {
        Some(sum) => sum,
        None => load(&mut connection, script).await?,
    };
    match evaluate_loaded(&mut connection, &sum, arguments).await {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            let sum = load(&mut connection, script).await?;
            evaluate_loaded(&mut connection, &sum, arguments).await
        }
        end => end,
    }
}

async fn load(connection: &mut ConnectionManager, script: &Mutex<Option<String>>) -> Result<String, RedisError> {
    let sum: String = redis::cmd("SCRIPT").arg("LOAD").arg(SCRIPT).query_async(connection).await?;
    *lock(script) = Some(sum.clone());
    Ok(sum)
}

async fn evaluate_loaded(connection: &mut ConnectionManager, sum: &str, arguments: &Arguments) -> Result<Value, RedisError> {
    redis::cmd("EVALSHA").arg(sum).arg(1).arg(&arguments.key).arg(&arguments.words).query_async(connection).await
}

fn connect(address: &StoreAddress) -> Result<ConnectionManager, RedisError> {
    let host = address.host.clone();
    let (addr, tls) = match address.transport {
        Transport::Plain => (ConnectionAddr::Tcp(host, address.port), None),
        Transport::Tls => {
            // If a provider is installed already, this is refused, which does not matter.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let root_cert = address.ca_pem.as_deref().map(with_mozilla_roots);
            let addr = ConnectionAddr::TcpTls { host, port: address.port, insecure: false, tls_params: None };
            (addr, Some(TlsCertificates { client_tls: None, root_cert }))
        }
    };
    let mut login = RedisConnectionInfo::default().set_db(address.database);
    if let Some(user) = &address.user {
        login = login.set_username(user);
    }
    if let Some(password) = &address.password {
        login = login.set_password(password.expose_secret());
    }
    let info = addr.into_connection_info()?.set_redis_settings(login);
    let client = match tls {
        Some(tls) => Client::build_with_tls(info, tls)?,
        None => Client::open(info)?,
    };
    // The book says when it asks again.
    let config =
        ConnectionManagerConfig::new().set_number_of_retries(0).set_connection_timeout(Some(CONNECT_MAX)).set_response_timeout(None);
    ConnectionManager::new_lazy_with_config(client, config)
}

/// These certificates and those of Mozilla's list, in PEM form.
fn with_mozilla_roots(pem: &[u8]) -> Vec<u8> {
    let mut all = pem.to_vec();
    for der in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        let text = STANDARD.encode(der);
        all.extend_from_slice(format!("\n-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n").as_bytes());
    }
    all
}

/// Why the certificate is not trusted; `None` if the error has another cause. The crate keeps the words of rustls, but not its error.
fn untrusted(error: &RedisError) -> Option<String> {
    error.to_string().split_once("invalid peer certificate: ").map(|(_, why)| why.to_owned())
}

/// What servers say when a user may not run a command inside a script, in their versions' words; it has no code of its own.
const FORBIDDEN_IN_SCRIPT: [&str; 3] = ["The user executing the script can't", "ACL failure in script", "NOPERM"];

/// What an error means for the process; the call concerned this key.
fn judged(error: &RedisError, key: &str) -> QuotaError {
    if let Some(why) = untrusted(error) {
        return QuotaRefusal::Untrusted(why).into();
    }
    let says = || error.detail().unwrap_or_default().to_owned();
    let words = error.to_string();
    match (error.kind(), error.code()) {
        _ if FORBIDDEN_IN_SCRIPT.iter().any(|forbidden| words.contains(forbidden)) => QuotaRefusal::Forbidden(words).into(),
        _ if words.contains("DB index is out of range") => QuotaRefusal::NoDatabase(words).into(),
        _ if words.contains("WRONGTYPE") => QuotaRefusal::WrongType(key.to_owned()).into(),
        // Of a long call, servers say it in other words than NOAUTH.
        _ if words.contains("NOAUTH") || words.contains("unauthenticated") => QuotaRefusal::Password(words).into(),
        (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS")) => {
            QuotaRefusal::Password(if says().is_empty() { error.to_string() } else { says() }).into()
        }
        (ErrorKind::Server(ServerErrorKind::NoPerm), _) => QuotaRefusal::Forbidden(words).into(),
        _ if error.is_timeout() => QuotaError::Lost(NO_ANSWER.to_owned()),
        _ => QuotaError::Lost(words),
    }
}

/// Reads the script's answer.
fn read(value: &Value, command: Command) -> Result<Renewed, QuotaError> {
    let strange = || QuotaError::Lost("an answer that is none of the script's".to_owned());
    let Value::Array(items) = value else { return Err(strange()) };
    let (kind, rest) = items.split_first().ok_or_else(strange)?;
    match text(kind).as_deref() {
        Some("ok") => read_figures(rest).ok_or_else(strange),
        Some("stale") => Err(QuotaError::Lost("an answer to an earlier question".to_owned())),
        Some("version") => {
            let (stored, own) = two(rest).ok_or_else(strange)?;
            Err(QuotaRefusal::Version { stored, own }.into())
        }
        Some("rate") => {
            let (stored, given) = two(rest).ok_or_else(strange)?;
            Err(QuotaRefusal::Rate { api: command, stored, given }.into())
        }
        Some(_) | None => Err(strange()),
    }
}

fn read_figures(items: &[Value]) -> Option<Renewed> {
    let (figures, waits) = items.split_at_checked(FIGURES)?;
    let [entry, kept, _granted, share, lease_ms, processes, _closed_ms, slot_ms, ceiling, pace] = figures else { return None };
    let tenths = |value: &Value| number(value).map(|tenths| tenths as f64 / 10.0);
    let pace = CommonPace { ceiling_per_s: tenths(ceiling)?, per_s: tenths(pace)? };
    Some(Renewed {
        entry: number(entry)?,
        kept: number(kept)?,
        share: number(share)?,
        lease: Duration::from_millis(number(lease_ms)?),
        processes: number(processes)?,
        slot_time: Duration::from_millis(number(slot_ms)?),
        pace: (pace.per_s > 0.0).then_some(pace),
        waits: waits.iter().map(|wait| number(wait).map(Duration::from_millis)).collect::<Option<_>>()?,
    })
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}

fn two(items: &[Value]) -> Option<(String, String)> {
    let [stored, given] = items else { return None };
    Some((text(stored)?, text(given)?))
}
