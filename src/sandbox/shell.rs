//! The sandbox's HTTP server: sockets, time and threads around [`Service`], which makes all decisions.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, TcpListener as StdListener};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue, LOCATION};
use hyper::http::uri::Authority;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, Sleep};

use super::files::Files;
use super::first_byte::FirstByte;
use super::persistence::write_accounts;
use super::reply::{Act, Reaction, Reply};
use super::service::{self, Arrival, Moment, Service};
use crate::io::api::wire::Command;

/// Longest request body that is accepted, in bytes. Chosen: 500 accounts with the longest fields fit.
const BODY_MAX_BYTES: usize = 1024 * 1024;
/// Connections at a time; further ones wait to be accepted. Chosen: far more than any client has requests in flight.
pub const CONNECTIONS_MAX: usize = 8_192;
/// Pause after a failed accept, for instance when file descriptors run out. Chosen: short compared with a client's timeout.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
/// Pieces of an answer that is sent slowly. Chosen.
const DRIPS: u32 = 8;

/// The service and its files under one lock, so that the files keep the order of the requests.
#[derive(Debug)]
pub(super) struct ServiceAndFiles {
    pub(super) service: Service,
    pub(super) files: Files,
}

pub(super) type SharedService = Arc<Mutex<ServiceAndFiles>>;

/// Locks both. A panic of another thread while it held the lock is ignored, since no change is left half done.
pub(super) fn locked(shared: &SharedService) -> MutexGuard<'_, ServiceAndFiles> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves on this thread until `stop` is sent or dropped; then all connections are closed. A request that takes longer than `request_max`
/// to arrive is given up.
///
/// # Errors
/// [`io::Error`] if the runtime cannot be built or the socket cannot be used.
pub(super) fn serve(
    listener: StdListener,
    (service, request_max): (SharedService, Duration),
    stop: oneshot::Receiver<()>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        tokio::select! {
            _ = stop => Ok(()),
            never = accept(listener, Serving { service, request_max, start: Instant::now() }) => match never {},
        }
    })
}

/// What every connection needs.
#[derive(Debug, Clone)]
struct Serving {
    service: SharedService,
    request_max: Duration,
    start: Instant,
}

async fn accept(listener: TcpListener, serving: Serving) -> Infallible {
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
        // If the connection is closed already, reading from it will show that.
        let _ = stream.set_nodelay(true);
        let served = connection(stream, serving.clone(), Arc::clone(&is_crowded));
        tokio::spawn(async move {
            served.await;
            drop(place);
        });
    }
}

/// Serves a connection until the client closes it. If other connections wait for a file descriptor, it ends after its next answer.
async fn connection(stream: TcpStream, serving: Serving, is_crowded: Arc<AtomicBool>) {
    let request_max = serving.request_max;
    let reset = Arc::new(AtomicBool::new(false));
    let first_byte = FirstByte::of(&stream);
    let wire = ResettableStream { stream, reset: Arc::clone(&reset), first_byte: first_byte.clone() };
    let respond = service_fn(move |request| {
        let answer = respond(request, first_byte.arrived(), serving.clone(), Arc::clone(&reset));
        let (is_crowded, first_byte) = (Arc::clone(&is_crowded), first_byte.clone());
        async move {
            let answer = answer.await;
            first_byte.await_next();
            let mut response = answer?;
            if is_crowded.load(Ordering::Relaxed) {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, ResetOnRequest>(response)
        }
    });
    // An error here is a disconnect by the client, or a reset on request.
    let _ =
        http1::Builder::new().timer(TokioTimer::new()).header_read_timeout(request_max).serve_connection(TokioIo::new(wire), respond).await;
}

/// Makes hyper drop the connection, which is then reset.
#[derive(Debug, thiserror::Error)]
#[error("the connection is reset on request")]
struct ResetOnRequest;

async fn respond(
    request: Request<Incoming>,
    arrived: Instant,
    serving: Serving,
    reset: Arc<AtomicBool>,
) -> Result<Response<SlowBody>, ResetOnRequest> {
    let Serving { service, request_max, start } = serving;
    // Requests of the API are signed, so no page of a browser can make one; a proxy in front of the sandbox may name it otherwise.
    if request.method() != Method::POST && !is_for_this_machine(&request) {
        return Ok(response(Reply::html(403, "the sandbox answers to an address of this machine alone"), Duration::ZERO));
    }
    if request.method() == Method::GET
        && let Some(reply) = own_page(request.uri().path(), &service)
    {
        return Ok(response(reply, Duration::ZERO));
    }
    let mut in_flight = InFlight::begin(
        &service,
        arrived.saturating_duration_since(start),
        request.uri().path_and_query().map_or("", |target| target.as_str()),
    );
    let (head, body) = request.into_parts();
    let body = match tokio::time::timeout(request_max, Limited::new(body, BODY_MAX_BYTES).collect()).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return Ok(response(Reply::html(413, "the request's body is too large or broke off"), Duration::ZERO)),
        Err(_) => return Ok(response(Reply::html(408, "the request did not arrive in time"), Duration::ZERO)),
    };
    let target = head.uri.path_and_query().map_or("", |target| target.as_str());
    let request = service::ServiceRequest { method: head.method.as_str(), target, body: &body.to_bytes() };
    let reaction = in_flight.react(request);
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

/// Whether the request names an address of this machine as its host. A page of a browser that has been given another name for this
/// address (DNS rebinding) does not.
fn is_for_this_machine(request: &Request<Incoming>) -> bool {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let name = host.and_then(|host| host.parse::<Authority>().ok()).map(|host| host.host().to_ascii_lowercase());
    name.is_some_and(|name| {
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        name == "localhost" || address.is_ok_and(|address| address.is_loopback())
    })
}

/// The sandbox's own pages: `/` lists what there is, `/audit` is JSON, `/accounts` JSON lines, `/accounts.csv` an accounts file.
fn own_page(path: &str, service: &SharedService) -> Option<Reply> {
    match path {
        "/" => Some(Reply { content_type: "text/plain; charset=utf-8", ..Reply::json(contents()) }),
        "/audit" => serde_json::to_vec(&locked(service).service.audit()).ok().map(Reply::json),
        "/accounts" => {
            let mut lines = Vec::new();
            for (id, account) in locked(service).service.accounts() {
                let mut line = serde_json::json!({
                    "UserID": id, "Nick": account.nick, "FaceUrl": account.face_url, "imports": account.imports,
                });
                for (tag, value) in &account.tags {
                    line[&**tag] = value.clone();
                }
                lines.extend_from_slice(line.to_string().as_bytes());
                lines.push(b'\n');
            }
            Some(Reply { content_type: "application/jsonl", ..Reply::json(lines) })
        }
        "/accounts.csv" => {
            let mut csv = Vec::new();
            write_accounts(locked(service).service.stored(), &mut csv).ok()?;
            Some(Reply { content_type: "text/csv", ..Reply::json(csv) })
        }
        _ => None,
    }
}

/// What can be asked of the sandbox.
fn contents() -> String {
    let commands: Vec<String> = Command::ALL.iter().map(|command| format!("POST /v4/{}\n", command.spec().path)).collect();
    format!("{}GET /audit\nGET /accounts\nGET /accounts.csv\n", commands.concat())
}

/// A request from its head to its end, whatever end it has.
struct InFlight<'a> {
    service: &'a SharedService,
    arrival: Arrival,
    users: Vec<u64>,
}

impl<'a> InFlight<'a> {
    fn begin(service: &'a SharedService, since_start: Duration, target: &str) -> Self {
        let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let arrival = locked(service).service.arrive(Moment { since_start, unix_s }, target);
        Self { service, arrival, users: Vec::new() }
    }

    fn react(&mut self, request: service::ServiceRequest<'_>) -> Reaction {
        let mut shared = locked(self.service);
        let mut reaction = shared.service.react(&self.arrival, request);
        self.users = std::mem::take(&mut reaction.in_flight);
        let traces = shared.service.take_traces();
        if shared.files.append(&traces).is_err() {
            reaction.act = Act::Answer(Reply::html(500, "the sandbox cannot write its files; when it stops, it says why"));
        }
        reaction
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        locked(self.service).service.release(&self.users);
    }
}

fn response(reply: Reply, time: Duration) -> Response<SlowBody> {
    let mut response = Response::new(SlowBody::new(reply.body, time));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(value) = reply.content_type.parse() {
        response.headers_mut().insert(CONTENT_TYPE, value);
    }
    if let Some(Ok(value)) = reply.location.map(|location| location.parse()) {
        response.headers_mut().insert(LOCATION, value);
    }
    response
}

/// A body that is sent at once, or in pieces over some time.
struct SlowBody {
    rest: Bytes,
    piece: usize,
    pause: Duration,
    wait: Option<Pin<Box<Sleep>>>,
}

impl SlowBody {
    fn new(body: Bytes, time: Duration) -> Self {
        let pieces = if time.is_zero() { 1 } else { DRIPS };
        let piece = body.len().div_ceil(usize::try_from(pieces).unwrap_or(1)).max(1);
        Self { rest: body, piece, pause: time / pieces, wait: None }
    }
}

impl Body for SlowBody {
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
struct ResettableStream {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
    first_byte: FirstByte,
}

impl Drop for ResettableStream {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            // If this fails, the client sees an orderly close, which is no answer either.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for ResettableStream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, first_byte, .. } = &mut *self;
        first_byte.poll_read(stream, context, buffer)
    }
}

impl AsyncWrite for ResettableStream {
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
