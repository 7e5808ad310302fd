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
import http.client, json, os, redis, sys
store = redis.Redis.from_url(os.environ["STORE"], decode_responses=True)
script = store.register_script(open(os.environ["SCRIPT"]).read())
quota = permits(script, os.environ["KEY"], 200, 50)
service = http.client.HTTPConnection("127.0.0.1", int(os.environ["PORT"]))
ends, number = time.monotonic() + float(os.environ["SECONDS"]), 0
path = "/v4/im_open_login_svc/account_import?sdkappid=%s&identifier=administrator&usersig=%s&contenttype=json&random=%d"
while time.monotonic() < ends:
    number += 1
    next(quota)
    service.request("POST", path % (os.environ["APP"], os.environ["USERSIG"], number), json.dumps({"UserID": "backend%d" % number}))
    assert json.loads(service.getresponse().read())["ErrorCode"] == 0
print(number)
"#;

/// What the example in Go uses of go-redis, for machines that do not have it.
const GO_STAND_IN: &str = r#"package redis

import "context"

type Options struct{ Addr string }
type Client struct{}
type Script struct{}
type Cmd struct{}

func NewClient(*Options) *Client                                                             { return nil }
func (*Client) Close() error                                                                 { return nil }
func NewScript(string) *Script                                                               { return nil }
func (*Script) Run(context.Context, *Client, []string, ...interface{}) *Cmd                  { return nil }
func (*Cmd) Slice() ([]interface{}, error)                                                   { return nil, nil }
"#;

/// The example as a program.
const GO_PROGRAM: &str = r#"package main

import (
	"context"
	"fmt"
	"os"
	"sort"
	"time"

	"github.com/redis/go-redis/v9"
)

func main() {
	text, _ := os.ReadFile(os.Args[1])
	script := redis.NewScript(string(text))
	context, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	left := 0
	err := Permits(context, &redis.Options{Addr: os.Args[2]}, script, os.Args[3], "a random id", 200, 50, func() { left++ })
	fmt.Println(left, err)
}

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

#[test]
fn the_example_in_go_compiles() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    std::fs::create_dir(folder.path().join("redis")).unwrap();
    write("redis/go.mod", "module github.com/redis/go-redis/v9\n\ngo 1.19\n");
    write("redis/redis.go", GO_STAND_IN);
    write(
        "go.mod",
        "module backend\n\ngo 1.19\n\nrequire github.com/redis/go-redis/v9 v9.0.0\n\nreplace github.com/redis/go-redis/v9 => ./redis\n",
    );
    write("main.go", &(GO_PROGRAM.to_owned() + &example("go")));
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go");
    let mut vet = Command::new("go");
    vet.args(["vet", "."]).current_dir(folder.path()).stdin(Stdio::null());
    vet.env("GOCACHE", &cache).env("GOPATH", &cache).env("GOPROXY", "off").env("GOFLAGS", "-mod=mod").env("GOTOOLCHAIN", "local");
    match vet.output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => skipped("the example of docs/QUOTA.md in Go", &format!("go cannot be started ({error}); install Debian's golang-go")),
    }
}
