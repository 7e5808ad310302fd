//! Serves the page of a run, and what machines ask for, on a thread of its own: it answers while the run plans, and costs it nothing.
//!
//! There is no login, so an answer holds counts only. Every bound is small: a client that is slow is dropped, and of too many the oldest.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::http::uri::Authority;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::view::{Audience, html, policy};
use super::{RunPage, open_metrics};

/// Connections at a time; a further one takes the place of the oldest, so that nobody who only connects keeps others from an answer. Chosen:
/// some people and some machines look at a run.
const CONNECTIONS_MAX: usize = 32;
/// How long the head of a request may take to come. Chosen: it is one packet.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// How long a connection may last; each is for one request. Chosen: a slow line carries a page in it.
const CONNECTION_MAX: Duration = Duration::from_secs(15);
/// Most bytes of a request's head, and most lines. Chosen: several times what browsers send.
const HEAD_MAX_BYTES: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// Pause after a failed accept. Chosen: short compared with a client's time-out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The page of a run, kept up to date by the run and read by whoever shows it.
pub type SharedPage = Arc<Mutex<RunPage>>;

/// Locks the page. A panic of another thread is ignored: no change leaves it half done.
pub fn locked(page: &SharedPage) -> MutexGuard<'_, RunPage> {
    page.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which names of this machine a request may be for. A page of a browser that has been given another name for this address (DNS rebinding)
/// has another one.
#[derive(Debug, Clone)]
pub struct Hosts {
    /// Where the server listens.
    pub address: IpAddr,
    /// Whether other addresses than loopback are allowed.
    pub anywhere: Anywhere,
    /// Further names.
    pub names: Vec<String>,
}

/// Whether the server may be reached from other machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anywhere {
    Allowed,
    No,
}

impl Hosts {
    fn allow(&self, host: &str, local: IpAddr) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        if authority.as_str().contains('@') {
            return false;
        }
        let name = authority.host().trim_start_matches('[').trim_end_matches(']');
        let is_address = name.parse::<IpAddr>();
        // A name that ends with a dot is the same name, written out.
        let name = name.strip_suffix('.').unwrap_or(name);
        match is_address {
            Ok(address) => address == self.address || self.anywhere == Anywhere::Allowed || self.is_named(name),
            Err(_) if name.eq_ignore_ascii_case("localhost") => local.is_loopback() || self.is_named(name),
            Err(_) => self.is_named(name),
        }
    }

    fn is_named(&self, name: &str) -> bool {
        self.names.iter().any(|known| known.strip_suffix('.').unwrap_or(known).eq_ignore_ascii_case(name))
    }
}

/// A running server. Dropping it stops it and closes its connections.
#[derive(Debug)]
pub struct StatusServer {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl StatusServer {
    /// Serves the page at this address.
    ///
    /// # Errors
    /// The system's, if the address can't be had.
    pub fn start(address: SocketAddr, hosts: Hosts, page: SharedPage) -> io::Result<Self> {
        let listener = StdListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let (stop, stopped) = oneshot::channel();
        let served = move || {
            runtime.block_on(async {
                let Ok(listener) = TcpListener::from_std(listener) else { return };
                tokio::select! {
                    _ = stopped => {}
                    never = accept(listener, Arc::new(hosts), page) => match never {},
                }
            });
        };
        let thread = std::thread::Builder::new().name("status".to_owned()).spawn(served)?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for StatusServer {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // It ends at the next look at its stop.
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, hosts: Arc<Hosts>, page: SharedPage) -> Infallible {
    let mut open: VecDeque<AbortHandle> = VecDeque::with_capacity(CONNECTIONS_MAX);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        open.retain(|connection| !connection.is_finished());
        if open.len() == CONNECTIONS_MAX
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let (hosts, page) = (Arc::clone(&hosts), Arc::clone(&page));
        let serve = async move {
            if let Ok(local) = stream.local_addr() {
                serve_one(stream, (&hosts, local.ip()), &page).await;
            }
        };
        open.push_back(tokio::spawn(serve).abort_handle());
        // Those that have come are looked at before the next one may take their place.
        tokio::task::yield_now().await;
    }
}

/// Answers one request. What is not done in time is dropped, with its connection.
async fn serve_one(stream: impl AsyncRead + AsyncWrite + Unpin, hosts: (&Hosts, IpAddr), page: &SharedPage) {
    let respond = service_fn(|request| std::future::ready(Ok::<_, Infallible>(respond(&request, hosts, page))));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).keep_alive(false).max_buf_size(HEAD_MAX_BYTES).max_headers(HEADERS_MAX);
    // An error here is a client that has gone, or was told what is wrong with its request.
    let _ = tokio::time::timeout(CONNECTION_MAX, http.serve_connection(TokioIo::new(stream), respond)).await;
}

fn respond(request: &Request<Incoming>, (hosts, local): (&Hosts, IpAddr), page: &SharedPage) -> Response<Full<Bytes>> {
    if !is_for_this_server(request, hosts, local) {
        return text(StatusCode::FORBIDDEN, "this page answers only to its own host names (--status-host NAME adds one)\n");
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    let now = Instant::now();
    match request.uri().path() {
        "/" => {
            // Drawing takes a while, and the run must not wait for it.
            let snapshot = locked(page).clone();
            let mut response = response(StatusCode::OK, "text/html; charset=utf-8", html(&snapshot, Audience::Live, now));
            let policy = format!("{}; frame-ancestors 'none'", policy(Audience::Live));
            if let Ok(policy) = HeaderValue::from_str(&policy) {
                response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
            }
            response
        }
        "/metrics" => response(StatusCode::OK, open_metrics::CONTENT_TYPE, locked(page).open_metrics(now)),
        "/status.json" => response(StatusCode::OK, "application/json", locked(page).status_json(now)),
        "/livez" => text(StatusCode::OK, "ok\n"),
        "/healthz" if locked(page).gets_on() => text(StatusCode::OK, "ok\n"),
        "/healthz" => text(StatusCode::SERVICE_UNAVAILABLE, "waiting for the service\n"),
        _ => text(StatusCode::NOT_FOUND, "there are /, /metrics, /status.json, /healthz and /livez\n"),
    }
}

fn is_for_this_server(request: &Request<Incoming>, hosts: &Hosts, local: IpAddr) -> bool {
    let mut named = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (named.next(), named.next()) else { return false };
    let is_allowed = host.to_str().is_ok_and(|host| hosts.allow(host, local));
    // A request as for a proxy names its host twice.
    is_allowed && request.uri().authority().is_none_or(|authority| hosts.allow(authority.as_str(), local))
}

fn text(status: StatusCode, words: &'static str) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", words)
}

fn response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::Subject;
    use super::*;
    use crate::flow::import::Lane;
    use crate::shell::screen::end_summary::Figures;

    fn page() -> SharedPage {
        let subject =
            Subject { command: "import", job: "users".to_owned(), input: "users.csv".to_owned(), files: Vec::new(), commands: Vec::new() };
        let figures = Figures::of_no_import(Lane::Single);
        Arc::new(Mutex::new(RunPage::new(subject, figures, (Instant::now(), SystemTime::UNIX_EPOCH))))
    }

    /// What a client gets that sends this and then waits, and how long it takes until it is over.
    async fn answer_to(sent: &[u8]) -> (String, Duration) {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let hosts = Hosts { address: IpAddr::from([127, 0, 0, 1]), anywhere: Anywhere::No, names: Vec::new() };
        let (page, start) = (page(), Instant::now());
        client.write_all(sent).await.unwrap();
        let served_one = serve_one(server, (&hosts, hosts.address), &page);
        let mut answer = Vec::new();
        let ((), read) = tokio::join!(served_one, client.read_to_end(&mut answer));
        // A connection may be dropped in mid-answer.
        let _ = read;
        (String::from_utf8(answer).unwrap(), start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_slow_is_dropped_and_one_request_ends_a_connection() {
        let (answer, took) = answer_to(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ").await;
        assert!(!answer.contains("200 OK") && took <= HEAD_WITHIN + Duration::from_millis(1), "{took:?}: {answer}");
        let (answer, _) = answer_to(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await;
        assert_eq!(answer.matches("200 OK").count(), 1, "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }

    #[tokio::test]
    async fn connections_that_say_nothing_keep_nobody_from_an_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let hosts = Hosts { address: address.ip(), anywhere: Anywhere::No, names: Vec::new() };
        let served = tokio::spawn(accept(listener, Arc::new(hosts), page()));
        let mut silent = Vec::new();
        for _ in 0..5 * CONNECTIONS_MAX {
            silent.push(tokio::net::TcpStream::connect(address).await.unwrap());
        }
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        // Whoever waits until a silent one has used up its time gets its answer later.
        tokio::time::timeout(HEAD_WITHIN, client.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        served.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_is_too_long_is_refused() {
        let lines = "X-More: y\r\n".repeat(HEADERS_MAX + 1);
        let (answer, _) = answer_to(format!("GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
        let long = "x".repeat(HEAD_MAX_BYTES);
        let (answer, _) = answer_to(format!("GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: {long}\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }

    #[tokio::test(start_paused = true)]
    async fn other_hosts_and_methods_are_refused() {
        let check = async |request: &str, expected: &str| {
            let (answer, _) = answer_to(request.as_bytes()).await;
            assert!(answer.starts_with(expected), "{request}: {answer}");
        };
        check("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", "HTTP/1.1 403").await;
        check("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n", "HTTP/1.1 403").await;
        check("GET http://evil.example/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "HTTP/1.1 403").await;
        check("GET / HTTP/1.0\r\n\r\n", "HTTP/1.0 403").await;
        check("POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 405").await;
        check("GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "HTTP/1.1 404").await;
        let (answer, _) = answer_to(b"HEAD / HTTP/1.1\r\nHost: localhost:1\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n"), "{answer}");
    }

    #[test]
    fn only_the_servers_own_names_are_allowed() {
        let hosts = |address: &str, anywhere, names: &[&str]| Hosts {
            address: address.parse().unwrap(),
            anywhere,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let check = |hosts: &Hosts, host: &str, local: &str, expected: bool| {
            assert_eq!(hosts.allow(host, local.parse().unwrap()), expected, "{host} at {local} of {hosts:?}");
        };
        let loopback = hosts("127.0.0.1", Anywhere::No, &["proxy.example"]);
        for host in
            ["127.0.0.1:9", "127.0.0.1", "localhost:9", "LOCALHOST", "localhost.", "localhost.:9", "Proxy.Example:80", "proxy.example."]
        {
            check(&loopback, host, "127.0.0.1", true);
        }
        for host in [
            "127.0.0.2",
            "[::1]:9",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "x@127.0.0.1",
            "",
            "a b",
            "localhost..",
            ".",
            "127.0.0.1.",
        ] {
            check(&loopback, host, "127.0.0.1", false);
        }
        check(&hosts("127.0.0.1", Anywhere::No, &["proxy.example."]), "proxy.example", "127.0.0.1", true);
        let six = hosts("::1", Anywhere::No, &[]);
        check(&six, "[::1]:9", "::1", true);
        check(&six, "127.0.0.1", "::1", false);
        let open = hosts("0.0.0.0", Anywhere::Allowed, &[]);
        check(&open, "10.0.0.7:9", "10.0.0.7", true);
        check(&open, "localhost", "10.0.0.7", false);
        check(&open, "localhost", "127.0.0.1", true);
        check(&open, "evil.example", "10.0.0.7", false);
    }
}
