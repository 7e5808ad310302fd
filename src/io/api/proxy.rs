//! A proxy between chatlift and the service: every connection goes through it by `CONNECT`, for `http://` as well as `https://`.
//!
//! reqwest tunnels only `https://`. A request to an `http://` address would be passed to the proxy with its whole URL, which contains the
//! signature. And if a tunnel is refused, reqwest does not report the status. So the tunnel is made here: reqwest gets a socket of this
//! process as the address of all its connections. A layer in front of its connector makes the tunnel first and then joins it with the
//! connection to that socket.

use std::io::{self, Read};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use reqwest::Url;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedMutexGuard, mpsc, oneshot};
use tokio_rustls::TlsConnector;
use tower_layer::Layer;
use tower_service::Service;

/// A proxy and its credentials.
#[derive(Debug, Clone)]
pub struct ProxySettings {
    /// Scheme, host and port only.
    pub address: Url,
    /// `name:password`, if the proxy needs them.
    pub credentials: Option<SecretString>,
}

/// Why no tunnel could be made.
#[derive(Debug, Error)]
pub(super) enum ProxyError {
    #[error("the proxy {proxy} cannot be reached: {why}")]
    Unreached { proxy: String, why: io::Error },
    #[error("no TLS with the proxy {proxy}")]
    Tls {
        proxy: String,
        #[source]
        why: io::Error,
    },
    #[error("the proxy {proxy} does not answer like a proxy: {why}")]
    NoAnswer { proxy: String, why: hyper::Error },
    #[error("the proxy {proxy} answers {status}")]
    Refused { proxy: String, status: u16 },
    #[error("cannot open the local socket for connections through the proxy: {0}")]
    Socket(#[from] io::Error),
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The layer in front of reqwest's connector.
#[derive(Debug, Clone)]
pub(super) struct ProxyLayer {
    dialer: Arc<Dialer>,
    relay: Arc<Relay>,
}

impl ProxyLayer {
    /// Connects everything to `service`. `tls` is used to talk to an `https://` proxy.
    pub(super) fn new(settings: &ProxySettings, service: &Url, tls: Option<Arc<ClientConfig>>) -> Result<Self, getrandom::Error> {
        let name = format!("\0chatlift-{:016x}{:016x}", getrandom::u64()?, getrandom::u64()?);
        let host = |url: &Url| url.host_str().unwrap_or_default().to_owned();
        let port = |url: &Url| url.port_or_known_default().unwrap_or_default();
        let dialer = Dialer {
            host: host(&settings.address),
            port: port(&settings.address),
            proxy: settings.address.origin().ascii_serialization(),
            authorization: settings.credentials.as_ref().map(authorization),
            tls,
            service: format!("{}:{}", host(service), port(service)),
        };
        Ok(Self {
            dialer: Arc::new(dialer),
            relay: Arc::new(Relay { socket: PathBuf::from(name), turn: Arc::default(), tunnels: Mutex::default() }),
        })
    }

    /// The socket to which reqwest must connect.
    pub(super) fn socket(&self) -> PathBuf {
        self.relay.socket.clone()
    }
}

/// The value of the authorization header, marked as sensitive so that it is not logged.
fn authorization(credentials: &SecretString) -> HeaderValue {
    let basic = format!("Basic {}", BASE64_STANDARD.encode(credentials.expose_secret()));
    let mut value = HeaderValue::from_str(&basic).expect("base64 contains no control characters");
    value.set_sensitive(true);
    value
}

impl<S> Layer<S> for ProxyLayer {
    type Service = ThroughProxy<S>;

    fn layer(&self, connector: S) -> Self::Service {
        ThroughProxy { connector, layer: self.clone() }
    }
}

/// reqwest's connector, which makes a tunnel before it connects.
#[derive(Debug, Clone)]
pub(super) struct ThroughProxy<S> {
    connector: S,
    layer: ProxyLayer,
}

impl<S, R> Service<R> for ThroughProxy<S>
where
    S: Service<R, Error = BoxError> + Clone + Send + 'static,
    S::Response: Send,
    S::Future: Send,
    R: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.connector.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        // A clone may not be ready, so this call uses the connector that is, and leaves the clone in its place.
        let spare = self.connector.clone();
        let mut connector = std::mem::replace(&mut self.connector, spare);
        let ProxyLayer { dialer, relay } = self.layer.clone();
        Box::pin(async move {
            let tunnel = dialer.dial().await?;
            let joined = relay.join(tunnel).await?;
            let connection = connector.call(request).await?;
            // An error means that the runtime is shutting down, which the connection notices itself.
            let _ = joined.await;
            Ok(connection)
        })
    }
}

/// Asks the proxy for tunnels.
#[derive(Debug)]
struct Dialer {
    host: String,
    port: u16,
    /// The proxy's address for messages.
    proxy: String,
    authorization: Option<HeaderValue>,
    tls: Option<Arc<ClientConfig>>,
    /// Host and port of the service.
    service: String,
}

impl Dialer {
    async fn dial(&self) -> Result<TokioIo<Upgraded>, ProxyError> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, self.port)).await.map_err(|why| ProxyError::Unreached { proxy: self.proxy.clone(), why })?;
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else { return self.ask(stream).await };
        let no_tls = |why| ProxyError::Tls { proxy: self.proxy.clone(), why };
        let name = ServerName::try_from(host.to_owned()).map_err(|why| no_tls(io::Error::other(why)))?;
        let connector = TlsConnector::from(Arc::clone(tls));
        self.ask(connector.connect(name, stream).await.map_err(no_tls)?).await
    }

    async fn ask<T: AsyncRead + AsyncWrite + Send + Unpin + 'static>(&self, stream: T) -> Result<TokioIo<Upgraded>, ProxyError> {
        let no_answer = |why| ProxyError::NoAnswer { proxy: self.proxy.clone(), why };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(no_answer)?;
        tokio::spawn(connection.with_upgrades());
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = self.service.parse().expect("these are host and port of a URL");
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_str(&self.service).expect("these are host and port of a URL"));
        if let Some(authorization) = &self.authorization {
            headers.insert(PROXY_AUTHORIZATION, authorization.clone());
        }
        let answer = sender.send_request(request).await.map_err(no_answer)?;
        if !answer.status().is_success() {
            return Err(ProxyError::Refused { proxy: self.proxy.clone(), status: answer.status().as_u16() });
        }
        hyper::upgrade::on(answer).await.map(TokioIo::new).map_err(no_answer)
    }
}

/// Joins reqwest's connections with tunnels, one at a time, so that each gets its own tunnel.
#[derive(Debug)]
struct Relay {
    /// An abstract name, without a file. Only this process may connect.
    socket: PathBuf,
    turn: Arc<tokio::sync::Mutex<()>>,
    tunnels: Mutex<Option<mpsc::Sender<Tunnel>>>,
}

/// A tunnel that waits for its connection.
#[derive(Debug)]
struct Tunnel {
    stream: TokioIo<Upgraded>,
    /// Sent when the tunnel has its connection; closed when the connection is no longer wanted.
    joined: oneshot::Sender<()>,
    /// The next tunnel may wait once this is dropped.
    _turn: OwnedMutexGuard<()>,
}

impl Relay {
    /// The next connection to the socket gets this tunnel. The returned receiver tells when it has; dropping it gives the connection up.
    async fn join(&self, stream: TokioIo<Upgraded>) -> Result<oneshot::Receiver<()>, ProxyError> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let tunnels = self.tunnels()?;
        let (joined, told) = oneshot::channel();
        // Sending fails only when the runtime ends, and nothing can connect then.
        let _ = tunnels.send(Tunnel { stream, joined, _turn: turn }).await;
        Ok(told)
    }

    /// Starts listening with the first tunnel, because only then a runtime certainly exists.
    fn tunnels(&self) -> Result<mpsc::Sender<Tunnel>, io::Error> {
        let mut tunnels = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tunnels) = &*tunnels {
            return Ok(tunnels.clone());
        }
        let listener = UnixListener::bind(&self.socket)?;
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(relay(listener, receiver));
        Ok(tunnels.insert(sender).clone())
    }
}

async fn relay(listener: UnixListener, mut tunnels: mpsc::Receiver<Tunnel>) {
    while let Some(Tunnel { mut stream, mut joined, _turn }) = tunnels.recv().await {
        let connection = tokio::select! {
            biased;
            connection = accept(&listener) => connection,
            () = joined.closed() => continue,
        };
        let Ok((mut connection, sent)) = connection else { continue };
        let _ = joined.send(());
        tokio::spawn(async move {
            stream.write_all(&sent).await?;
            copy_bidirectional(&mut connection, &mut stream).await
        });
    }
}

/// The next connection of this process that is still open, and the bytes that it has sent so far.
async fn accept(listener: &UnixListener) -> io::Result<(UnixStream, Vec<u8>)> {
    let own = i32::try_from(std::process::id()).ok();
    loop {
        let (connection, _) = listener.accept().await?;
        if connection.peer_cred()?.pid() != own {
            continue;
        }
        // A connection that was given up before its turn is closed by now.
        let mut connection = connection.into_std()?;
        let mut sent = vec![0; 4096];
        match connection.read(&mut sent) {
            Ok(0) => continue,
            Ok(bytes) => sent.truncate(bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sent.clear(),
            Err(error) => return Err(error),
        }
        return Ok((UnixStream::from_std(connection)?, sent));
    }
}
