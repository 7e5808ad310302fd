//! The sandbox's HTTP: sockets, time and threads around [`Service`], which decides everything.

use std::convert::Infallible;
use std::io;
use std::net::TcpListener as StdListener;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, LOCATION};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, Sleep};

use super::files::Files;
use super::persistence::write_accounts;
use super::reply::{Act, Reaction, Reply};
use super::service::{self, Arrival, Moment, Service};

/// Longest request body that is read, in bytes. Chosen: 500 accounts with the longest fields fit in.
const BODY_MAX_BYTES: usize = 1024 * 1024;
/// Connections at a time; further ones wait to be accepted. Chosen: far above the calls in flight of any client.
pub const CONNECTIONS_MAX: usize = 8_192;
/// Pause after an accept that failed, for instance for want of file descriptors. Chosen: short beside the time that a client waits for an answer.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
/// Pieces of an answer that comes in drips. Chosen.
const DRIPS: u32 = 8;

/// The service and the files that it leaves its traces in, in the order of the calls.
#[derive(Debug)]
pub(super) struct Stand {
    pub(super) service: Service,
    pub(super) files: Files,
}

/// The stand, shared with the handle.
pub(super) type Shared = Arc<Mutex<Stand>>;

/// The stand behind its lock; a panic elsewhere leaves it as it was.
pub(super) fn locked(stand: &Shared) -> MutexGuard<'_, Stand> {
    stand.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves on this thread until `stop` is sent or dropped; connections end with it.
///
/// # Errors
/// When the runtime cannot be made or the socket not be used.
pub(super) fn serve(listener: StdListener, service: Shared, stop: oneshot::Receiver<()>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        tokio::select! {
            _ = stop => Ok(()),
            never = accept(listener, service) => match never {},
        }
    })
}

async fn accept(listener: TcpListener, service: Shared) -> Infallible {
    let start = Instant::now();
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let is_crowded = Arc::new(AtomicBool::new(false));
    loop {
        let place = Arc::clone(&room).acquire_owned().await;
        let accepted = listener.accept().await;
        is_crowded.store(accepted.is_err(), Ordering::Relaxed);
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // A connection that is gone already is found out when it is read.
        let _ = stream.set_nodelay(true);
        let served = connection(stream, Arc::clone(&service), Arc::clone(&is_crowded), start);
        tokio::spawn(async move {
            served.await;
            drop(place);
        });
    }
}

/// Serves a connection until the client leaves it, or, while others wait for its file descriptor, until its next answer.
async fn connection(stream: TcpStream, service: Shared, is_crowded: Arc<AtomicBool>, start: Instant) {
    let reset = Arc::new(AtomicBool::new(false));
    let wire = Wire { stream, reset: Arc::clone(&reset) };
    let respond = service_fn(move |request| {
        let answer = respond(request, Arc::clone(&service), Arc::clone(&reset), start);
        let is_crowded = Arc::clone(&is_crowded);
        async move {
            let mut response = answer.await?;
            if is_crowded.load(Ordering::Relaxed) {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, ResetOnRequest>(response)
        }
    });
    // An error is the client's disconnect or a reset of ours.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(wire), respond).await;
}

/// The connection is to be reset.
#[derive(Debug, thiserror::Error)]
#[error("the connection is reset on request")]
struct ResetOnRequest;

async fn respond(
    request: Request<Incoming>,
    service: Shared,
    reset: Arc<AtomicBool>,
    start: Instant,
) -> Result<Response<Drips>, ResetOnRequest> {
    if request.method() == Method::GET
        && let Some(reply) = testimony(request.uri().path(), &service)
    {
        return Ok(response(reply, Duration::ZERO));
    }
    let arrived = Instant::now();
    let mut flight = Flight::begin(&service, arrived - start, request.uri().path_and_query().map_or("", |target| target.as_str()));
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY_MAX_BYTES).collect().await else {
        return Ok(response(Reply::html(413, "the request's body is too large or broke off"), Duration::ZERO));
    };
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    let request = service::ServiceRequest { method: head.method.as_str(), target, body: &body.to_bytes() };
    let reaction = flight.react(request);
    if !reaction.delay.is_zero() {
        tokio::time::sleep_until(arrived + reaction.delay).await;
    }
    match reaction.act {
        Act::Answer(reply) => Ok(response(reply, Duration::ZERO)),
        Act::Drip(reply, time) => Ok(response(reply, time)),
        Act::Stall => std::future::pending().await,
        Act::Reset => {
            reset.store(true, Ordering::Relaxed);
            Err(ResetOnRequest)
        }
    }
}

/// What the sandbox tells of itself: `/audit` as JSON, `/accounts` as JSON lines, `/accounts.csv` as the accounts' file.
fn testimony(path: &str, service: &Shared) -> Option<Reply> {
    match path {
        "/audit" => serde_json::to_vec(&locked(service).service.audit()).ok().map(Reply::json),
        "/accounts" => {
            let mut lines = Vec::new();
            for (id, account) in locked(service).service.accounts() {
                let line = serde_json::json!({
                    "UserID": id, "Nick": account.nick, "FaceUrl": account.face_url, "imports": account.imports,
                });
                lines.extend_from_slice(line.to_string().as_bytes());
                lines.push(b'\n');
            }
            Some(Reply { content_type: "application/jsonl", ..Reply::json(lines) })
        }
        "/accounts.csv" => {
            let mut csv = Vec::new();
            write_accounts(locked(service).service.held(), &mut csv).ok()?;
            Some(Reply { content_type: "text/csv", ..Reply::json(csv) })
        }
        _ => None,
    }
}

/// A call between its head and its end, however it ends.
struct Flight<'a> {
    service: &'a Shared,
    arrival: Arrival,
    users: Vec<u64>,
}

impl<'a> Flight<'a> {
    fn begin(service: &'a Shared, since_start: Duration, target: &str) -> Self {
        let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let arrival = locked(service).service.arrive(Moment { since_start, unix_s }, target);
        Self { service, arrival, users: Vec::new() }
    }

    fn react(&mut self, request: service::ServiceRequest<'_>) -> Reaction {
        let mut stand = locked(self.service);
        let mut reaction = stand.service.react(&self.arrival, request);
        self.users = std::mem::take(&mut reaction.in_flight);
        let traces = stand.service.take_traces();
        if stand.files.append(&traces).is_err() {
            reaction.act = Act::Answer(Reply::html(500, "the sandbox cannot write its files; its end tells why"));
        }
        reaction
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        locked(self.service).service.release(&self.users);
    }
}

fn response(reply: Reply, time: Duration) -> Response<Drips> {
    let mut response = Response::new(Drips::new(reply.body, time));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(value) = reply.content_type.parse() {
        response.headers_mut().insert(CONTENT_TYPE, value);
    }
    if let Some(Ok(value)) = reply.location.map(|location| location.parse()) {
        response.headers_mut().insert(LOCATION, value);
    }
    response
}

/// A body that comes at once, or in pieces over some time.
struct Drips {
    rest: Bytes,
    piece: usize,
    pause: Duration,
    wait: Option<Pin<Box<Sleep>>>,
}

impl Drips {
    fn new(body: Bytes, time: Duration) -> Self {
        let pieces = if time.is_zero() { 1 } else { DRIPS };
        let piece = body.len().div_ceil(usize::try_from(pieces).unwrap_or(1)).max(1);
        Self { rest: body, piece, pause: time / pieces, wait: None }
    }
}

impl Body for Drips {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        if !self.pause.is_zero() {
            let pause = self.pause;
            let wait = self.wait.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
            ready!(wait.as_mut().poll(context));
            self.wait = None;
        }
        let length = self.piece.min(self.rest.len());
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// A connection that can be reset instead of closed.
struct Wire {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            // Without it the client sees an orderly end, which is as unanswered.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
