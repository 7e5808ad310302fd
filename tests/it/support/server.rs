//! A scripted HTTP/1.1 server on loopback with plain sockets, so that it can do what no HTTP library would do.
//!
//! A function decides what happens to each request, and an audit records what the server has seen. Each connection has a thread, since
//! there are few.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chatlift::domain::command::Command;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::ports::{listen_at, unused_port};

/// Longest head and body of a request that are read, in bytes. chatlift's requests have some hundred.
const REQUEST_MAX_BYTES: u64 = 64 * 1024;
/// No answer is held up for longer. Chosen: longer than a run may take.
const HOLD_MAX: Duration = Duration::from_secs(600);
const SECOND: Duration = Duration::from_secs(1);
/// A second less the delay that a thread of this server may have when two cores run a dozen of them. The tests of the flow are exact, on
/// the paused clock.
const SHORT_SECOND: Duration = Duration::from_millis(950);

/// A request as the script sees it.
#[derive(Debug)]
pub(crate) struct Request {
    /// The number of the request, counted from 0.
    pub(crate) number: usize,
    /// The number among the requests for this user, counted from 1.
    pub(crate) nth_of_user: usize,
    /// The number among the requests on this connection, counted from 0.
    pub(crate) nth_on_connection: usize,
    /// The time since the server's start.
    pub(crate) at: Duration,
    /// Requests of the last second, this one included.
    pub(crate) in_last_second: usize,
    /// SERVICE/COMMAND.
    pub(crate) command: String,
    pub(crate) user_id: String,
    pub(crate) nick: Option<String>,
    pub(crate) usersig: String,
}

/// One step of an answer.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    Send(Vec<u8>),
    Pause(Duration),
    /// Waits until the server lets go of its answers.
    Hold,
    /// Closes the connection in the ordinary way.
    Close,
    /// Resets the connection.
    Reset,
}

/// The reaction of the server to a request.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    acts: Vec<Act>,
    /// Whether the account is imported, whatever the answer says.
    has_effect: bool,
}

/// Imports the account and answers so.
pub(crate) fn imported() -> Reply {
    Reply { has_effect: true, ..ok_with(r#"{"ActionStatus":"OK","ErrorCode":0,"ErrorInfo":""}"#) }
}

/// The documented answer with an error code.
pub(crate) fn code(code: i64) -> Reply {
    ok_with(&format!(r#"{{"ActionStatus":"FAIL","ErrorCode":{code},"ErrorInfo":"the reason of {code}"}}"#))
}

/// Status 200 with this body.
pub(crate) fn ok_with(body: &str) -> Reply {
    answer("200 OK", "Content-Type: application/json\r\n", body)
}

/// An answer without an effect; each header in `headers` must end with its line break.
pub(crate) fn answer(status: &str, headers: &str, body: &str) -> Reply {
    raw(format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()))
}

/// Sends these bytes, without an effect.
pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Reply {
    acts([Act::Send(bytes.into())])
}

/// Takes these steps, without an effect.
pub(crate) fn acts(acts: impl IntoIterator<Item = Act>) -> Reply {
    Reply { acts: acts.into_iter().collect(), has_effect: false }
}

impl Reply {
    /// Imports the account, whatever the answer says.
    pub(crate) fn with_effect(self) -> Self {
        Self { has_effect: true, ..self }
    }

    /// Takes one more step.
    pub(crate) fn then(mut self, act: Act) -> Self {
        self.acts.push(act);
        self
    }

    /// Waits for this time before it answers.
    pub(crate) fn after(mut self, pause: Duration) -> Self {
        self.acts.insert(0, Act::Pause(pause));
        self
    }

    /// Waits before it answers until the server lets go of its answers.
    pub(crate) fn held(mut self) -> Self {
        self.acts.insert(0, Act::Hold);
        self
    }

    /// Sends the bytes one by one, this long apart.
    pub(crate) fn dripping(self, apart: Duration) -> Self {
        let single = |act: Act| match act {
            Act::Send(bytes) => bytes.into_iter().flat_map(|byte| [Act::Send(vec![byte]), Act::Pause(apart)]).collect(),
            other @ (Act::Pause(_) | Act::Hold | Act::Close | Act::Reset) => vec![other],
        };
        Self { acts: self.acts.into_iter().flat_map(single).collect(), ..self }
    }
}

/// Everything that the server has seen.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    arrivals: Vec<Instant>,
    usersigs: BTreeSet<String>,
    calls_by_user: BTreeMap<String, usize>,
    imported: BTreeMap<String, Option<String>>,
    hosts: BTreeSet<String>,
    connections: usize,
    /// Descriptions of requests that differ from the documentation.
    wrong: Vec<String>,
}

struct Shared {
    script: Box<dyn Fn(&Request) -> Reply + Send + Sync>,
    tls: Option<Arc<ServerConfig>>,
    began: Instant,
    audit: Mutex<Audit>,
    over: AtomicBool,
    has_let_go: AtomicBool,
    /// Kept connections that are idle for this long are closed.
    idle_timeout: Mutex<Option<Duration>>,
    pauses: (Mutex<()>, Condvar),
}

/// A running server. Once it is dropped, it accepts no connection; open ones end with their clients.
pub(crate) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn new(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(script, None, unused_port())
    }

    pub(crate) fn with_tls(config: Arc<ServerConfig>, script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(script, Some(config), unused_port())
    }

    /// Starts on a port that another server of this test has used before.
    pub(crate) fn at_port(port: u16, script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(script, None, port)
    }

    fn start(script: impl Fn(&Request) -> Reply + Send + Sync + 'static, tls: Option<Arc<ServerConfig>>, port: u16) -> Self {
        let listener = listen_at(port);
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            tls,
            began: Instant::now(),
            audit: Mutex::default(),
            over: AtomicBool::new(false),
            has_let_go: AtomicBool::new(false),
            idle_timeout: Mutex::new(None),
            pauses: (Mutex::new(()), Condvar::new()),
        });
        let accepting = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Self { address, shared, accepting: Some(accepting) }
    }

    /// Closes kept connections that are idle for this long.
    pub(crate) fn waits_no_longer_than(&self, idle_timeout: Duration) {
        *self.shared.idle_timeout.lock().unwrap() = Some(idle_timeout);
    }

    /// Sends the answers that are held up, and holds up none from now on.
    pub(crate) fn lets_go(&self) {
        self.shared.has_let_go.store(true, Ordering::Release);
        drop(self.shared.pauses.0.lock());
        self.shared.pauses.1.notify_all();
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn endpoint(&self) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    fn audit<T>(&self, look: impl FnOnce(&Audit) -> T) -> T {
        look(&self.shared.audit.lock().unwrap())
    }

    pub(crate) fn calls(&self) -> usize {
        self.audit(|audit| audit.arrivals.len())
    }

    pub(crate) fn connections(&self) -> usize {
        self.audit(|audit| audit.connections)
    }

    pub(crate) fn calls_of(&self, user_id: &str) -> usize {
        self.audit(|audit| audit.calls_by_user.get(user_id).copied().unwrap_or_default())
    }

    /// The number of accounts.
    pub(crate) fn users(&self) -> usize {
        self.audit(|audit| audit.imported.len())
    }

    pub(crate) fn nick(&self, user_id: &str) -> Option<String> {
        self.audit(|audit| audit.imported.get(user_id).cloned().flatten())
    }

    pub(crate) fn usersigs(&self) -> BTreeSet<String> {
        self.audit(|audit| audit.usersigs.clone())
    }

    pub(crate) fn hosts(&self) -> BTreeSet<String> {
        self.audit(|audit| audit.hosts.clone())
    }

    /// Descriptions of wrong requests; there should be none.
    pub(crate) fn wrong(&self) -> Vec<String> {
        self.audit(|audit| audit.wrong.clone())
    }

    /// The most requests in any sliding second, as far as this server can measure it.
    pub(crate) fn most_in_1s(&self) -> usize {
        self.audit(|audit| {
            let arrivals = &audit.arrivals;
            (0..arrivals.len())
                .map(|from| arrivals[from..].iter().take_while(|at| **at - arrivals[from] < SHORT_SECOND).count())
                .max()
                .unwrap_or(0)
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        // Whoever has just looked and is about to wait holds the lock.
        drop(self.shared.pauses.0.lock());
        self.shared.pauses.1.notify_all();
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for connection in listener.incoming() {
        if shared.over.load(Ordering::Acquire) {
            return;
        }
        let Ok(connection) = connection else { continue };
        shared.audit.lock().unwrap().connections += 1;
        let shared = Arc::clone(shared);
        // If a client closes its connection, that is no error here.
        std::thread::spawn(move || drop(shared.serve(connection)));
    }
}

trait Line: Read + Write + Send {}
impl<T: Read + Write + Send> Line for T {}

impl Shared {
    fn serve(&self, connection: TcpStream) -> io::Result<()> {
        connection.set_nodelay(true)?;
        let handle = connection.try_clone()?;
        let line: Box<dyn Line> = match &self.tls {
            None => Box::new(connection),
            Some(config) => {
                let session = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
                Box::new(StreamOwned::new(session, connection))
            }
        };
        let mut line = BufReader::new(line);
        for nth_on_connection in 0.. {
            let Some(request) = self.read(&mut line, nth_on_connection)? else { return Ok(()) };
            // The timeout applies from the first request of a connection on, so that a slow handshake does not count.
            handle.set_read_timeout(*self.idle_timeout.lock().unwrap())?;
            let reply = (self.script)(&request);
            if reply.has_effect {
                self.audit.lock().unwrap().imported.insert(request.user_id, request.nick);
            }
            for act in reply.acts {
                match act {
                    Act::Send(bytes) => line.get_mut().write_all(&bytes).and_then(|()| line.get_mut().flush())?,
                    Act::Pause(pause) => self.pause(pause, || false),
                    Act::Hold => self.pause(HOLD_MAX, || self.has_let_go.load(Ordering::Acquire)),
                    Act::Close => return handle.shutdown(Shutdown::Both),
                    Act::Reset => return reset(handle, line),
                }
            }
        }
        Ok(())
    }

    /// Waits, but neither after the server has stopped nor once it is enough.
    fn pause(&self, pause: Duration, is_enough: impl Fn() -> bool) {
        let still_on = |(): &mut ()| !self.over.load(Ordering::Acquire) && !is_enough();
        drop(self.pauses.1.wait_timeout_while(self.pauses.0.lock().unwrap(), pause, still_on).unwrap());
    }

    /// Reads the next request; `None` at the end of the connection.
    fn read(&self, line: &mut impl BufRead, nth_on_connection: usize) -> io::Result<Option<Request>> {
        let mut line = line.take(REQUEST_MAX_BYTES);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if line.read_line(&mut head)? == 0 {
                return Ok(None);
            }
        }
        let header = |name: &str| {
            let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
            lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
        };
        let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        line.read_exact(&mut body)?;
        let now = Instant::now();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = |name: &str| body[name].as_str().map(str::to_owned);
        let target = head.split(' ').nth(1).unwrap_or_default();
        let query: BTreeMap<&str, &str> =
            target.split_once('?').map_or("", |(_, query)| query).split('&').filter_map(|pair| pair.split_once('=')).collect();
        let user_id = text("UserID").unwrap_or_default();
        let usersig = query.get("usersig").copied().unwrap_or_default().to_owned();

        let mut audit = self.audit.lock().unwrap();
        audit.wrong.extend(fault(&head, target, &query, &body));
        audit.arrivals.push(now);
        audit.usersigs.insert(usersig.clone());
        audit.hosts.extend(header("host"));
        let nth_of_user = audit.calls_by_user.entry(user_id.clone()).or_default();
        *nth_of_user += 1;
        let nth_of_user = *nth_of_user;
        let number = audit.arrivals.len() - 1;
        let in_last_second = audit.arrivals.iter().rev().take_while(|at| now - **at < SECOND).count();
        let at = now - self.began;
        let command = command_of(target).to_owned();
        Ok(Some(Request { number, nth_of_user, nth_on_connection, at, in_last_second, command, user_id, nick: text("Nick"), usersig }))
    }
}

/// The SERVICE/COMMAND of a request's target.
fn command_of(target: &str) -> &str {
    target.trim_start_matches("/v4/").split('?').next().unwrap_or_default()
}

/// Why a request is wrong, by the documentation and by chatlift's promises.
fn fault(head: &str, target: &str, query: &BTreeMap<&str, &str>, body: &serde_json::Value) -> Option<String> {
    let names: BTreeSet<&str> = query.keys().copied().collect();
    let wrong = |what: &str| Some(format!("{what}: {head}"));
    let command = Command::ALL.into_iter().find(|command| command_of(target) == command.spec().path);
    if !head.starts_with("POST /v4/") || command.is_none() {
        return wrong("not a request for a command");
    }
    if names != BTreeSet::from(["sdkappid", "identifier", "usersig", "random", "contenttype"]) || query["contenttype"] != "json" {
        return wrong("not the five parameters");
    }
    if query["random"].parse::<u32>().is_err() || !target.contains("identifier=administrator") {
        return wrong("a parameter is wrong");
    }
    let has_one_user = matches!(command, Some(Command::AccountImport | Command::Kick));
    if has_one_user && body["UserID"].as_str().is_none_or(str::is_empty) {
        return wrong("not the documented body");
    }
    let unwanted = ["expect", "referer", "cookie", "authorization", "transfer-encoding"];
    let has = |name: &&str| head.lines().any(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")));
    unwanted.into_iter().find(has).and_then(|name| wrong(&format!("the header {name}")))
}

/// Resets the connection, even if bytes from it are still buffered.
fn reset(handle: TcpStream, line: BufReader<Box<dyn Line>>) -> io::Result<()> {
    tokio::net::TcpSocket::from_std_stream(handle).set_zero_linger()?;
    drop(line);
    Ok(())
}
