//! The example of the protocol's page takes part beside chatlift.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::processes::{LIMIT, Service, benches, start, stop};
use crate::support::redis_server::RedisServer;
use crate::support::tools::skipped;
use crate::support::{CliFixture, SDKAPPID};

/// What the example uses of redis-py, for machines that do not have it: `EVAL` over a socket.
const STAND_IN: &str = r#"
import socket
from urllib.parse import urlsplit

class Redis:
    @staticmethod
    def from_url(url, decode_responses):
        assert decode_responses
        return Redis(urlsplit(url))

    def __init__(self, url):
        self.file = socket.create_connection((url.hostname, url.port)).makefile("rwb")

    def register_script(self, script):
        return lambda keys, args: self.call("EVAL", script, len(keys), *keys, *args)

    def call(self, *words):
        words = [str(word).encode() for word in words]
        self.file.write(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
        self.file.flush()
        return self.answer()

    def answer(self):
        kind, rest = (line := self.file.readline())[:1], line[1:-2]
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return self.file.read(int(rest) + 2)[:-2].decode()
        if kind == b"*":
            return [self.answer() for _ in range(int(rest))]
        raise RuntimeError(line)
"#;

/// Imports accounts for so many seconds, each with a permit.
const BACKEND: &str = r#"
import http.client, json, os, sys
quota = Quota(os.environ["STORE"], os.environ["KEY"], 200, 50, open(os.environ["SCRIPT"]).read())
service = http.client.HTTPConnection("127.0.0.1", int(os.environ["PORT"]))
ends, number = time.monotonic() + float(os.environ["SECONDS"]), 0
path = "/v4/im_open_login_svc/account_import?sdkappid=%s&identifier=administrator&usersig=%s&contenttype=json&random=%d"
while time.monotonic() < ends:
    number += 1
    quota.permit()
    service.request("POST", path % (os.environ["APP"], os.environ["USERSIG"], number), json.dumps({"UserID": "backend%d" % number}))
    assert json.loads(service.getresponse().read())["ErrorCode"] == 0
quota.close()
print(number)
"#;

/// The first block of the page in this language.
fn example(language: &str) -> String {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/QUOTA.md")).unwrap();
    let (_, behind) = page.split_once(&format!("```{language}\n")).expect("the page has the example");
    behind.split_once("```").unwrap().0.to_owned()
}

/// Starts the backend, which writes the number of its requests.
fn backend(bench: &CliFixture, service: &Service, store: &RedisServer, seconds: f64) -> Option<std::process::Child> {
    let key = bench.key();
    let signed = bench.call(&["usersig", "--sdkappid", SDKAPPID, "--secret-key-file", key.to_str().unwrap()]).run();
    std::fs::create_dir_all(bench.outside("stand-in")).unwrap();
    std::fs::write(bench.outside("stand-in/redis.py"), STAND_IN).unwrap();
    std::fs::write(bench.outside("backend.py"), example("python") + BACKEND).unwrap();
    let port = service.sandbox.endpoint().rsplit(':').next().unwrap().trim_end_matches('/').to_owned();
    let mut python = Command::new("python3");
    // What is installed is taken before the stand-in.
    python.args(["-c", "import sys; sys.path.append(sys.argv[1]); exec(open(sys.argv[2]).read())"]);
    python.arg(bench.outside("stand-in")).arg(bench.outside("backend.py")).stdin(Stdio::null()).stdout(Stdio::piped());
    python.env("STORE", store.url()).env("KEY", format!("chatlift:{{{SDKAPPID}}}:account_import")).env("PORT", port);
    python.env("SCRIPT", Path::new(env!("CARGO_MANIFEST_DIR")).join("src/io/quota/quota.lua"));
    python.env("APP", SDKAPPID).env("USERSIG", signed.stdout.trim()).env("SECONDS", seconds.to_string());
    match python.spawn() {
        Ok(child) => Some(child),
        Err(error) => {
            skipped("the example of docs/QUOTA.md in Python", &format!("python3 cannot be started ({error})"));
            None
        }
    }
}

#[test]
fn a_backend_as_documented_shares_the_limit_with_two_runs() {
    let Some(store) = RedisServer::start("a backend that shares the limit") else { return };
    let (service, benches) = (Service::new(), benches::<3>());
    let running = [0, 1].map(|number| start(&benches[number], &service, &store.url()));
    service.gets(LIMIT);
    let Some(backend) = backend(&benches[2], &service, &store, 3.0) else { return };
    let used = service.uses_in(Duration::from_secs(3));
    let output = backend.wait_with_output().unwrap();
    running.into_iter().for_each(stop);
    service.kept_to_the_limit();
    assert!(output.status.success(), "{output:?}");
    let made: usize = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    eprintln!("the backend made {made} requests in three seconds; {used:.3} of the limit was used");
    assert!((50..=160).contains(&made), "it wants 50 a second: {made}");
}
