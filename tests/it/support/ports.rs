//! Ports for servers that stop, and come back or must stay away.
//!
//! A port of the kernel's own range may go to any process as soon as it is released, be it for a connection. A test that counts on such a
//! port fails once in a while.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::support::eventually;

/// The lowest port to be handed out. Chosen: services of a machine seldom listen above.
const LOWEST: u16 = 10_000;
/// Chosen: several times as many as a run of all tests takes.
const ENOUGH: usize = 2_000;
/// The distance of the first ports of two processes whose ids are neighbours.
const APART: u16 = 101;

/// A port of the loopback address on which no process listens. The kernel gives it to nobody by itself, and no other test of this process
/// nor of another one gets it, until this process ends.
pub(crate) fn unused_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    static HELD: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());
    let ports = outside_of_the_kernels(&std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap());
    let count = ports.end() - ports.start();
    #[expect(clippy::cast_possible_truncation, reason = "only the spread matters")]
    let first = (std::process::id() as u16).wrapping_mul(APART);
    for _ in 0..count {
        let nth = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % count;
        let port = ports.start() + nth;
        // Ports of UDP are no ports of TCP: the socket only tells other processes with these tests that the port is taken.
        let Ok(token) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) else { continue };
        if is_free(port) {
            HELD.lock().unwrap().push(token);
            return port;
        }
    }
    panic!("all ports of {ports:?} are taken");
}

/// A listener at such a port. Another thread that is just starting a process may have a copy of the listener that this test had there, until
/// that process is another program.
pub(crate) fn listen_at(port: u16) -> TcpListener {
    eventually("the port is free", || is_free(port));
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap()
}

/// Whether nobody listens at this port. It is looked up, because a trial would keep it busy for a moment.
pub(crate) fn is_free(port: u16) -> bool {
    !sockets_at(port, &["0A"])
}

/// Whether anybody is connected to a server at this port, or about to be. Once the client's process is dead and nobody is, the server has
/// read all that was ever sent to it.
pub(crate) fn is_connected_to(port: u16) -> bool {
    // Established, and closed by the other end.
    sockets_at(port, &["01", "08"])
}

/// Whether there is a socket at this port in one of these states.
fn sockets_at(port: u16, states: &[&str]) -> bool {
    let own = format!(":{port:04X}");
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().any(|table| {
        // A machine without IPv6 has only the first table.
        let table = std::fs::read_to_string(table).unwrap_or_default();
        table.lines().skip(1).any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (local, state) = (fields.next(), fields.nth(1));
            local.is_some_and(|local| local.ends_with(&own)) && state.is_some_and(|state| states.contains(&state))
        })
    })
}

/// Ports that the kernel gives to nobody who has not asked for them, if its own are `range`.
fn outside_of_the_kernels(range: &str) -> RangeInclusive<u16> {
    let ends: Vec<u16> = range.split_whitespace().map(|end| end.parse().unwrap()).collect();
    let [below, above] = [LOWEST..=ends[0].saturating_sub(1), ends[1].saturating_add(1)..=u16::MAX];
    let widest = if below.len() >= above.len() { below } else { above };
    assert!(widest.len() >= ENOUGH, "net.ipv4.ip_local_port_range leaves too few ports for these tests: {range}");
    widest
}

#[test]
fn ports_are_no_ones_and_each_is_handed_out_once() {
    let kernels = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let allowed = outside_of_the_kernels(&kernels);
    let ports: Vec<u16> = (0..10).map(|_| unused_port()).collect();
    for (nth, port) in ports.iter().enumerate() {
        assert!(allowed.contains(port) && !ports[..nth].contains(port), "{ports:?} of {allowed:?}");
        assert!(is_free(*port));
        let listener = listen_at(*port);
        assert!(!is_free(*port));
        drop(listener);
        listen_at(*port);
    }
    assert_eq!(outside_of_the_kernels("32768\t60999\n"), 10_000..=32_767);
    assert_eq!(outside_of_the_kernels("1024 50000"), 50_001..=65_535);
}

#[test]
fn a_client_is_connected_until_the_server_has_read_all_that_it_sent() {
    let port = unused_port();
    let listener = listen_at(port);
    assert!(!is_connected_to(port));
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    assert!(is_connected_to(port), "before it is accepted");
    client.write_all(b"all").unwrap();
    drop(client);
    let mut served = listener.accept().unwrap().0;
    assert!(is_connected_to(port), "before it is read");
    let mut all = String::new();
    served.read_to_string(&mut all).unwrap();
    drop(served);
    assert_eq!((all.as_str(), is_connected_to(port)), ("all", false));
}
