//! The pace through a limiter of another project: nginx's `limit_req`, over TLS and with connections that are closed early.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use chatlift::domain::command::Command as Api;
use chatlift::sandbox::{Sandbox, SandboxSettings};
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use crate::support::ports::unused_port;
use crate::support::tools::skipped;
use crate::support::{CliFixture, KEY, Run, eventually, side_by_side};

/// Requests: those of six seconds at the rate.
const ROWS: u64 = 1_200;
/// Attempts at a measurement. Chosen: a machine that is busy with other tests stalls nginx and the client for longer than five requests
/// take.
const ATTEMPTS: usize = 4;

/// nginx in front of the sandbox, as a process of its own; no service of the machine is touched.
struct Nginx {
    folder: TempDir,
    child: Child,
    port: u16,
}

impl Nginx {
    /// Starts nginx. Returns `None` and says so loudly if there is none.
    fn before(sandbox: &Sandbox, limit: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let port = unused_port();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
        std::fs::write(folder.path().join("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
        std::fs::write(folder.path().join("nginx.conf"), config(port, limit, &sandbox.endpoint())).unwrap();
        let mut command = Command::new("nginx");
        // Debian keeps it in a folder that is not in the `PATH` of an ordinary user.
        command.env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()));
        command.arg("-p").arg(folder.path()).args(["-c", "nginx.conf", "-e", "error.log"]).stdin(Stdio::null());
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                skipped("imports through nginx", &format!("it cannot be started ({error}); install Debian's nginx-light"));
                return None;
            }
        };
        let nginx = Self { folder, child, port };
        eventually("nginx listens", || TcpStream::connect(("127.0.0.1", nginx.port)).is_ok());
        Some(nginx)
    }

    fn import(&self, bench: &CliFixture) -> Run {
        let ca = self.folder.path().join("cert.pem");
        let call = bench.quiet_import_into("users.csv", &format!("https://127.0.0.1:{}", self.port));
        call.args(&["--ca-file", ca.to_str().unwrap()]).run()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One process in the foreground with all files in its folder. `limit_req` is applied before a request is passed on.
fn config(port: u16, limit: &str, upstream: &str) -> String {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {kind};\n")).concat();
    format!(
        "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log error.log;\nevents {{ worker_connections 1024; }}\n\
         http {{\naccess_log off;\n{temporary}\
         limit_req_zone $server_name zone=app:1m rate=200r/s;\nlimit_req_status 429;\n\
         upstream service {{ server {}; keepalive 64; }}\n\
         server {{\nlisten 127.0.0.1:{port} ssl;\nssl_certificate cert.pem;\nssl_certificate_key key.pem;\n\
         keepalive_requests 50;\nkeepalive_timeout 1s;\n\
         location / {{\n{limit}\nproxy_pass http://service;\nproxy_http_version 1.1;\nproxy_set_header Connection \"\";\n}}\n}}\n}}\n",
        upstream.trim_start_matches("http://")
    )
}

#[test]
fn nginx_costs_no_pace_and_no_attempt() {
    // Each of them takes six seconds.
    let cases: [fn(); 2] =
        [nginx_lets_through_nearly_all_that_its_limit_allows, connections_that_nginx_closes_early_cost_no_pace_and_no_attempt];
    side_by_side(cases, |case| case());
}

fn nginx_lets_through_nearly_all_that_its_limit_allows() {
    let mut seen = Vec::new();
    for _ in 0..ATTEMPTS {
        let (bench, sandbox) = (CliFixture::with_users(ROWS), service());
        let Some(nginx) = Nginx::before(&sandbox, "limit_req zone=app burst=5 nodelay;") else { return };
        let (run, most) = beside_an_import_without_nginx(|| nginx.import(&bench));
        let run = run.exits(0).imports_all(ROWS);
        assert_eq!(run.attempts(), vec![1; usize::try_from(ROWS).unwrap()], "neither a limit nor a closed connection is a row's fault");
        let imports = sandbox.audit().of(Api::AccountImport);
        assert!(run.summary["max_calls_in_1s"].as_u64().unwrap() <= 200, "{}", run.summary);
        let refused = run.summary["throttled"].as_u64().unwrap();
        seen.push((imports.mean_calls_per_s, refused, most));
        if imports.mean_calls_per_s >= 0.95 * most && refused <= ROWS / 100 {
            return;
        }
    }
    panic!("a second got through, were refused in all, and got through without nginx: {seen:?}");
}

fn connections_that_nginx_closes_early_cost_no_pace_and_no_attempt() {
    let mut seen = Vec::new();
    for _ in 0..ATTEMPTS {
        let (bench, sandbox) = (CliFixture::with_users(ROWS), service());
        let Some(nginx) = Nginx::before(&sandbox, "") else { return };
        let (run, most) = beside_an_import_without_nginx(|| nginx.import(&bench));
        let run = run.exits(0).imports_all(ROWS);
        assert_eq!(run.attempts(), vec![1; usize::try_from(ROWS).unwrap()]);
        assert_eq!(run.summary["throttled"], 0);
        let mean = sandbox.audit().of(Api::AccountImport).mean_calls_per_s;
        seen.push((mean, most));
        if mean >= 0.99 * most {
            return;
        }
    }
    panic!("calls a second, and without nginx: {seen:?}");
}

/// Runs an import while another one shows what this machine can do without nginx: the run, and the other's calls a second, which are the
/// 200 of the limit unless the machine is too busy.
fn beside_an_import_without_nginx(import: impl FnOnce() -> Run) -> (Run, f64) {
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let (bench, sandbox) = (CliFixture::with_users(ROWS), service());
            bench.quiet_import_into("users.csv", &sandbox.endpoint()).run().exits(0);
            sandbox.audit().of(Api::AccountImport).mean_calls_per_s
        });
        let run = import();
        (run, other.join().unwrap())
    })
}

fn service() -> Sandbox {
    Sandbox::start(SandboxSettings { limit_per_s: None, ..SandboxSettings::with_key(KEY.to_owned().into()) }).unwrap()
}
