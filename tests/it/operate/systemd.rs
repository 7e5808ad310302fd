//! What systemd is told of a run (`Type=notify`).

use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::server::{Server, imported};
use crate::support::{CliFixture, SDKAPPID};

/// All messages that a command has sent until its end.
fn told(command: &[&str]) -> Vec<String> {
    let bench = CliFixture::with_users(60);
    let socket = UnixDatagram::bind(bench.outside("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let messages = listen(socket, Arc::clone(&is_over));
    let server = Server::new(|_| imported().after(Duration::from_millis(20)));
    let (key, path) = (bench.key(), bench.outside("notify"));
    let call = bench.call(command).args(&["--endpoint", &server.endpoint(), "--sdkappid", SDKAPPID, "--in-flight", "1", "--rate", "0"]);
    let call = call.args(&["--secret-key-file", key.to_str().unwrap()]);
    let run = call.env("NOTIFY_SOCKET", path.to_str().unwrap()).env("WATCHDOG_USEC", "300000").run();
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    is_over.store(true, Ordering::Relaxed);
    messages.join().unwrap()
}

/// Takes messages, as systemd does, until the command is over and nothing more comes.
fn listen(socket: UnixDatagram, is_over: Arc<AtomicBool>) -> JoinHandle<Vec<String>> {
    std::thread::spawn(move || {
        let mut messages = Vec::new();
        let mut bytes = [0; 4096];
        loop {
            match socket.recv(&mut bytes) {
                Ok(read) => messages.extend(std::str::from_utf8(&bytes[..read]).unwrap().lines().map(str::to_owned)),
                Err(_) if is_over.load(Ordering::Relaxed) => return messages,
                Err(_) => {}
            }
        }
    })
}

#[test]
fn systemd_learns_that_a_run_is_ready_how_it_stands_and_that_it_lives() {
    for (command, first) in [
        (&["import", "users.csv"][..], "STATUS=import: reading the input"),
        (&["sync", "users.csv", "--state", "s.db"], "STATUS=sync: reading the input"),
    ] {
        let messages = told(command);
        assert_eq!(&messages[..2], ["READY=1", first], "{messages:?}");
        // Finishing takes its time, and the run is alive meanwhile.
        let stopping = messages.iter().position(|message| message == "STOPPING=1").unwrap_or_else(|| panic!("{messages:?}"));
        let is_of_end = |message: &String| message == "WATCHDOG=1" || message.ends_with(": finishing");
        assert!(messages[stopping + 1..].iter().all(is_of_end), "{messages:?}");
        assert!(messages.iter().filter(|message| *message == "WATCHDOG=1").count() >= 5, "{messages:?}");
        assert!(messages.iter().any(|message| message.ends_with(" rows done, running")), "{messages:?}");
    }
}

#[test]
fn a_listener_that_does_not_read_holds_up_nobody() {
    let bench = CliFixture::with_users(1);
    let (socket, full) = (UnixDatagram::bind(bench.outside("notify")).unwrap(), UnixDatagram::unbound().unwrap());
    full.set_nonblocking(true).unwrap();
    while full.send_to(b"X=1", bench.outside("notify")).is_ok() {}
    let path = bench.outside("notify");
    bench.call(&["import", "users.csv", "--sandbox"]).env("NOTIFY_SOCKET", path.to_str().unwrap()).run().exits(0);
    drop(socket);
}
