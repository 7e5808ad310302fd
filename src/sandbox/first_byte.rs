//! When a request's first byte arrived. That time counts, and not the one at which the request's head has been read to its end: on a busy
//! machine the sandbox reads late what came evenly, and would see a crowd. The kernel knows the time, where it can be asked.

use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// The longest time for which bytes can have been waiting. Chosen: what is longer comes from a clock that was set.
const WAITING_MAX: Duration = Duration::from_secs(5);

/// Two clocks that are read within this time say the same moment. Chosen: far below the margin of a limit, and above what reading takes.
const READ_WITHIN: Duration = Duration::from_micros(200);
/// How often they are read. Chosen: a busy machine rarely stops a thread twice.
const READINGS_MAX: u32 = 4;

/// The first byte of the request that a connection is reading.
#[derive(Debug, Clone, Default)]
pub(super) struct FirstByte(Arc<Mutex<HeadState>>);

#[derive(Debug, Default)]
enum HeadState {
    /// No byte of the next request has come.
    #[default]
    Awaited,
    Arriving {
        since: Instant,
    },
    /// The head is read; what comes now is the body.
    Read,
}

impl FirstByte {
    /// The kernel is to say when bytes of this connection came. Where it does not, the time of reading stands in.
    pub(super) fn of(stream: &TcpStream) -> Self {
        let _ = setsockopt(stream, sockopt::ReceiveTimestampns, &true);
        Self::default()
    }

    /// Reads, and notes the time of a request's first byte.
    pub(super) fn poll_read(&self, stream: &mut TcpStream, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !matches!(*self.state(), HeadState::Awaited) {
            return std::pin::Pin::new(stream).poll_read(context, buffer);
        }
        loop {
            ready!(stream.poll_read_ready(context))?;
            let room = buffer.initialize_unfilled();
            match stream.try_io(Interest::READABLE, || receive(stream, room)) {
                Ok((0, _)) => return Poll::Ready(Ok(())),
                Ok((count, arrived)) => {
                    buffer.advance(count);
                    *self.state() = HeadState::Arriving { since: by_own_clock(arrived) };
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// The head is read. Returns when its first byte arrived.
    pub(super) fn arrived(&self) -> Instant {
        match std::mem::replace(&mut *self.state(), HeadState::Read) {
            HeadState::Arriving { since } => since,
            // It came together with the end of the request before.
            HeadState::Awaited | HeadState::Read => Instant::now(),
        }
    }

    /// The request is answered.
    pub(super) fn await_next(&self) {
        *self.state() = HeadState::Awaited;
    }

    fn state(&self) -> MutexGuard<'_, HeadState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of bytes received, and when the kernel got them.
fn receive(stream: &TcpStream, room: &mut [u8]) -> io::Result<(usize, Option<SystemTime>)> {
    let (mut into, mut space) = ([IoSliceMut::new(room)], nix::cmsg_space!(TimeSpec));
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut into, Some(&mut space), MsgFlags::MSG_DONTWAIT)?;
    let arrived = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmTimestampns(time) => Some(UNIX_EPOCH + Duration::from(time)),
        _ => None,
    });
    Ok((message.bytes, arrived))
}

fn by_own_clock(arrived: Option<SystemTime>) -> Instant {
    let (now, wall) = both_clocks();
    let waiting = arrived.and_then(|at| wall.duration_since(at).ok()).filter(|waiting| *waiting <= WAITING_MAX);
    now.checked_sub(waiting.unwrap_or_default()).unwrap_or(now)
}

/// The same moment by both clocks. A thread may have to stand still between two readings, so they are repeated.
fn both_clocks() -> (Instant, SystemTime) {
    let mut read = (Instant::now(), SystemTime::now());
    for _ in 0..READINGS_MAX {
        let after = Instant::now();
        if after - read.0 < READ_WITHIN {
            break;
        }
        read = (after, SystemTime::now());
    }
    read
}
