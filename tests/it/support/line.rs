//! A line of a test's own: TCP that is delayed, cut, or led to another server.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use crate::support::passes;

/// Leads from a port of its own to a server on this machine. Its threads end with the connections.
pub(crate) struct Line {
    port: u16,
    to: Arc<AtomicU16>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Line {
    /// A line to this port on which everything takes `delay` in each direction.
    pub(crate) fn new(to: u16, delay: Duration) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let line = Self { port: listener.local_addr().unwrap().port(), to: Arc::new(AtomicU16::new(to)), open: Arc::default() };
        let (to, open) = (Arc::clone(&line.to), Arc::clone(&line.open));
        std::thread::spawn(move || {
            for from in listener.incoming().map_while(Result::ok) {
                // A server that is gone refuses: so does the line.
                let Ok(there) = TcpStream::connect(("127.0.0.1", to.load(Ordering::Acquire))) else { continue };
                open.lock().unwrap().extend([from.try_clone().unwrap(), there.try_clone().unwrap()]);
                carry(from.try_clone().unwrap(), there.try_clone().unwrap(), delay);
                carry(there, from, delay);
            }
        });
        line
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Cuts all connections, and leads to another server from now on.
    pub(crate) fn leads_to(&self, port: u16) {
        self.to.store(port, Ordering::Release);
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Carries what comes from one end to the other, each piece `delay` after it came.
fn carry(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let (pieces, on_their_way) = mpsc::channel::<(Instant, Vec<u8>)>();
    let _ = to.set_nodelay(true);
    std::thread::spawn(move || {
        let mut piece = vec![0; 65_536];
        while let Ok(count) = from.read(&mut piece) {
            if count == 0 || pieces.send((Instant::now() + delay, piece[..count].to_vec())).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        for (due, piece) in on_their_way {
            passes(due.saturating_duration_since(Instant::now()));
            if to.write_all(&piece).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}
