//! A proxy in front of the service: every connection is a tunnel, and refusals of the proxy are reported as its own.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::certificates::trusted;
use crate::support::ports::unused_port;
use crate::support::server::{Act, Server, acts, imported};
use crate::support::{CliFixture, side_by_side};

/// The proxy's status for a request's head; 200 makes the tunnel.
type Answer = Arc<dyn Fn(&Asked) -> u16 + Send + Sync>;

/// A request to the proxy.
#[derive(Debug, Clone)]
struct Asked {
    head: String,
    /// The number of the request, counted from 1.
    nth: usize,
    at: Duration,
}

/// A proxy of this test that only makes tunnels.
struct Proxy {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Proxy {
    fn new(answer: impl Fn(&Asked) -> u16 + Send + Sync + 'static) -> Self {
        Self::start(None, Arc::new(answer))
    }

    fn with_tls(config: Arc<ServerConfig>) -> Self {
        Self::start(Some(TlsAcceptor::from(config)), Arc::new(|_| 200))
    }

    /// Starts the proxy. It ends with the process of the test.
    fn start(tls: Option<TlsAcceptor>, answer: Answer) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(listener, tls, answer, log));
        });
        Self { port, asked }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// The proxy must have seen only `CONNECT` to this port, and no secret.
    #[track_caller]
    fn saw_only_tunnels_to(&self, port: u16) {
        let asked = self.asked();
        assert!(!asked.is_empty());
        for Asked { head, .. } in asked {
            assert!(head.starts_with(&format!("CONNECT 127.0.0.1:{port} HTTP/1.1\r\n")), "{head}");
            assert!(!head.contains("usersig"), "{head}");
        }
    }
}

async fn serve(listener: std::net::TcpListener, tls: Option<TlsAcceptor>, answer: Answer, log: Arc<Mutex<Vec<Asked>>>) {
    let listener = TcpListener::from_std(listener).unwrap();
    let began = tokio::time::Instant::now();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (tls, answer, log) = (tls.clone(), Arc::clone(&answer), Arc::clone(&log));
        tokio::spawn(async move {
            match tls {
                None => tunnel(stream, began, answer, log).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => tunnel(stream, began, answer, log).await,
                    Err(_) => Ok(()),
                },
            }
        });
    }
}

async fn tunnel<T: AsyncRead + AsyncWrite + Unpin>(
    mut stream: T,
    began: tokio::time::Instant,
    answer: Answer,
    log: Arc<Mutex<Vec<Asked>>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let asked = {
        let mut log = log.lock().unwrap();
        let asked = Asked { head, nth: log.len() + 1, at: began.elapsed() };
        log.push(asked.clone());
        asked
    };
    let status = answer(&asked);
    if status != 200 {
        return stream.write_all(format!("HTTP/1.1 {status} no\r\nContent-Length: 2\r\n\r\nno").as_bytes()).await;
    }
    let target = asked.head.split_whitespace().nth(1).unwrap().to_owned();
    let mut service = TcpStream::connect(target).await?;
    stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    copy_bidirectional(&mut stream, &mut service).await.map(|_| ())
}

#[test]
fn every_connection_goes_through_the_proxy_by_connect_and_is_kept() {
    let bench = CliFixture::with_users(100);
    let (server, proxy) = (Server::new(|_| imported()), Proxy::new(|_| 200));
    bench.import(&server).at_any_rate().args(&["--in-flight", "4", "--proxy", &proxy.url()]).run().exits(0).imports_all(100);
    proxy.saw_only_tunnels_to(server.port());
    assert_eq!(proxy.asked().len(), server.connections(), "nothing reaches the service but through the proxy");
    assert!(server.connections() <= 8, "{}", server.connections());
    assert_eq!(server.hosts().into_iter().collect::<Vec<_>>(), [format!("127.0.0.1:{}", server.port())]);
    assert_eq!(server.wrong(), Vec::<String>::new());
    assert!(proxy.asked().iter().all(|asked| !asked.head.to_ascii_lowercase().contains("proxy-authorization")));
}

#[test]
fn the_tunnel_carries_tls_to_the_service() {
    let bench = CliFixture::with_users(20);
    let (config, ca) = trusted();
    bench.write("ca.pem", ca);
    let (server, proxy) = (Server::with_tls(config, |_| imported()), Proxy::new(|_| 200));
    let call = bench.import(&server).at_any_rate().args(&["--ca-file", "ca.pem"]).env("CHATLIFT_PROXY", proxy.url());
    call.run().exits(0).imports_all(20);
    proxy.saw_only_tunnels_to(server.port());
    assert_eq!((server.users(), server.wrong()), (20, Vec::new()));
}

#[test]
fn a_proxy_may_use_tls_and_its_certificate_is_checked() {
    let (config, ca) = trusted();
    let (server, proxy) = (Server::new(|_| imported()), Proxy::with_tls(config));
    let url = format!("https://127.0.0.1:{}", proxy.port);
    let bench = CliFixture::with_users(5);
    bench.write("ca.pem", ca);
    bench.import(&server).at_any_rate().args(&["--proxy", &url]).run().exits(5).because("not trusted").hints("--ca-file");
    assert_eq!(server.connections(), 0);
    bench.import(&server).at_any_rate().args(&["--ca-file", "ca.pem", "--proxy", &url]).run().exits(0).imports_all(5);
    proxy.saw_only_tunnels_to(server.port());
}

/// `me:p@ss w` in base64.
const AUTHORIZATION: &str = "Basic bWU6cEBzcyB3";

/// A proxy that requires the password.
fn guarded() -> Proxy {
    Proxy::new(|asked| if asked.head.contains(AUTHORIZATION) { 200 } else { 407 })
}

#[test]
fn a_password_comes_from_the_variable_or_a_private_file() {
    let (server, proxy) = (Server::new(|_| imported()), guarded());
    let bench = CliFixture::with_users(5);
    let variable = format!("http://me:p%40ss%20w@127.0.0.1:{}", proxy.port);
    let run = bench.import(&server).at_any_rate().args(&["-vv"]).env("CHATLIFT_PROXY", &variable).run().exits(0).imports_all(5);
    assert!(!run.stderr.contains("p@ss") && !run.stderr.contains("p%40ss") && !run.stderr.contains(AUTHORIZATION), "{}", run.stderr);

    let again = CliFixture::with_users(5);
    std::fs::write(again.key(), "p@ss-w\n").unwrap();
    let proxy = Proxy::new(|asked| if asked.head.contains("Basic bWU6cEBzcy13") { 200 } else { 407 });
    let url = format!("http://me@127.0.0.1:{}", proxy.port);
    let call = again.import(&server).at_any_rate().args(&["--proxy", &url, "--proxy-password-file", again.key().to_str().unwrap()]);
    call.run().exits(0).imports_all(5);

    // A password may have spaces; the line end is none of it.
    let (bench, proxy) = (CliFixture::with_users(5), guarded());
    let file = bench.outside("password");
    std::fs::write(&file, "p@ss w\n").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let url = format!("http://me@127.0.0.1:{}", proxy.port);
    let call = bench.import(&server).at_any_rate().args(&["--proxy", &url, "--proxy-password-file", file.to_str().unwrap()]);
    call.run().exits(0).imports_all(5);
}

#[test]
fn a_refusal_of_the_proxy_ends_the_run_with_2_and_counts_as_no_attempt() {
    let check = |status: u16, why: &str, hint: &str| {
        let (server, proxy) = (Server::new(|_| imported()), Proxy::new(move |_| status));
        let bench = CliFixture::with_users(5);
        let run = bench.import(&server).at_any_rate().args(&["--proxy", &proxy.url()]).run().exits(2).because(why).hints(hint);
        assert!(run.rows.is_empty());
        assert_eq!(server.connections(), 0);
        // Once the proxy allows it, the same command continues.
        let open = Proxy::new(|_| 200);
        let run = bench.import(&server).at_any_rate().args(&["--proxy", &open.url()]).run().exits(0).imports_all(5);
        assert_eq!(run.attempts(), [1; 5]);
    };
    check(407, "password", "CHATLIFT_PROXY");
    check(403, "proxy", "proxy");
}

#[test]
fn a_gateway_error_of_the_proxy_is_an_outage_and_counts_as_no_attempt() {
    let bad_for = Duration::from_secs(1);
    side_by_side([502, 503, 504], |status| {
        let (server, proxy) = (Server::new(|_| imported()), Proxy::new(move |asked| if asked.at < bad_for { status } else { 200 }));
        let bench = CliFixture::with_users(5);
        let run = bench.import(&server).at_any_rate().args(&["--proxy", &proxy.url()]).run().exits(0).imports_all(5);
        assert_eq!(run.attempts(), [1; 5], "{status}");
        assert!(proxy.asked().iter().any(|asked| asked.at < bad_for), "{status}");
    });
}

#[test]
fn an_unreachable_proxy_is_named() {
    let (server, bench) = (Server::new(|_| imported()), CliFixture::with_users(2));
    let proxy = format!("http://127.0.0.1:{}", unused_port());
    let run = bench.import(&server).at_any_rate().args(&["--max-outage", "1s", "--proxy", &proxy]).run().exits(4);
    let run = run.because("the proxy http://127.0.0.1").because("refused").hints(&proxy);
    assert!(run.rows.is_empty());
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_kept_tunnel_that_was_closed_counts_as_no_attempt() {
    let bench = CliFixture::with_users(40);
    let server = Server::new(|request| if request.nth_on_connection == 3 { acts([Act::Close]) } else { imported() });
    let proxy = Proxy::new(|_| 200);
    let run = bench.import(&server).at_any_rate().args(&["--in-flight", "2", "--proxy", &proxy.url()]).run().exits(0).imports_all(40);
    assert_eq!(run.attempts(), [1; 40]);
    // Every tenth tunnel is refused temporarily, which counts as no attempt either.
    let bench = CliFixture::with_users(40);
    let server = Server::new(|_| imported().then(Act::Close));
    let proxy = Proxy::new(|asked| if asked.nth.is_multiple_of(10) { 503 } else { 200 });
    let run = bench.import(&server).at_any_rate().args(&["--in-flight", "2", "--proxy", &proxy.url()]).run().exits(0).imports_all(40);
    assert_eq!(run.attempts(), [1; 40]);
}

#[test]
fn wrong_proxy_settings_are_reported_first_and_without_the_password() {
    let (server, bench) = (Server::new(|_| imported()), CliFixture::with_users(1));
    let check = |args: &[&str], variable: Option<&str>, why: &str| {
        let mut call = bench.import(&server).args(args);
        if let Some(variable) = variable {
            call = call.env("CHATLIFT_PROXY", variable);
        }
        let run = call.run().exits(2).because(why);
        assert!(!run.stderr.contains("sesame"), "{}", run.stderr);
    };
    check(&["--proxy", "http://me:sesame@127.0.0.1:1"], None, "holds a password");
    check(&["--proxy", "socks5://127.0.0.1:1"], None, "http:// or https://");
    check(&["--proxy", "127.0.0.1:1"], None, "--proxy");
    check(&["--proxy", "http://127.0.0.1:1/way"], None, "alone");
    check(&[], Some("http://me:sesame@127.0.0.1:1/way"), "CHATLIFT_PROXY");
    check(&["--proxy-password-file", bench.key().to_str().unwrap()], None, "no proxy");
    bench.write("chatlift.toml", "proxy = \"http://me:sesame@127.0.0.1:1\"\n");
    check(&["--config", "chatlift.toml"], None, "configuration file holds a password");
    assert_eq!(server.connections(), 0);
}

#[test]
fn the_sandbox_is_reached_without_the_proxy() {
    let (bench, proxy) = (CliFixture::with_users(3), Proxy::new(|_| 403));
    bench.call(&["import", "users.csv", "--sandbox", "--proxy", &proxy.url()]).run().exits(0);
    assert!(proxy.asked().is_empty());
}
