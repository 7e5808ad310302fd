//! A real server of Valkey or Redis, as a process of its own; no service of the machine is touched.

use std::process::{Child, Command, Stdio};

use redis::{Client, Connection};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::eventually;
use super::ports::{listen_at, unused_port};
use super::tools::skipped;

/// The programs that are tried.
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];

/// A server that keeps nothing on disk. It is killed when this is dropped.
pub(crate) struct RedisServer {
    folder: TempDir,
    args: Vec<String>,
    port: u16,
    child: Child,
}

impl RedisServer {
    /// Starts a server. Returns `None` and says so loudly if there is none on this machine.
    pub(crate) fn start(what: &str) -> Option<Self> {
        Self::with(what, &[])
    }

    /// The same with more arguments.
    pub(crate) fn with(what: &str, args: &[&str]) -> Option<Self> {
        Self::within(what, tempfile::tempdir().unwrap(), args)
    }

    /// The same with files.
    pub(crate) fn within(what: &str, folder: TempDir, args: &[&str]) -> Option<Self> {
        let port = unused_port();
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let Some(child) = spawn(&folder, port, &args) else {
            skipped(what, "neither redis-server nor valkey-server can be started; install Debian's redis-server");
            return None;
        };
        let server = Self { folder, args, port, child };
        server.listens();
        Some(server)
    }

    fn listens(&self) {
        eventually("the store listens", || std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// The folder in which it runs; arguments may name files there.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    pub(crate) fn connection(&self) -> Connection {
        Client::open(self.url()).unwrap().get_connection().unwrap()
    }

    pub(crate) fn flush(&self) {
        redis::cmd("FLUSHALL").exec(&mut self.connection()).unwrap();
    }

    /// Stops the process where it is, as a machine that hangs.
    pub(crate) fn pause(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).unwrap();
    }

    pub(crate) fn go_on(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).unwrap();
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it anew at the same port, without its data, once it has been killed.
    pub(crate) fn restart(&mut self) {
        drop(listen_at(self.port));
        self.child = spawn(&self.folder, self.port, &self.args).unwrap();
        self.listens();
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(folder: &TempDir, port: u16, args: &[String]) -> Option<Child> {
    PROGRAMS.iter().find_map(|program| {
        let mut command = Command::new(program);
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"]).args(args);
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().ok()
    })
}
