//! Raises the limit of open files as far as the requests in flight need it, or lowers the number of requests in flight.

use std::fs;
use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::settings::{Connection, ServiceAddress};
use crate::domain::figures::counted;
use crate::sandbox::CONNECTIONS_MAX;
use crate::shell::exit::{ExitMessage, MORE_FILES};

/// Open files that a run needs besides its requests: input, journal, state, temporary files, folders, the runtimes' own. Chosen: a third
/// more than the most that any command needed (a sync into the sandbox: 30).
const BESIDES_CALLS: u64 = 40;
/// The least number of open files with which an import works. Source: measured with one request in flight.
const LEAST: u64 = 20;
/// A sync needs this many more, for its state and its temporary files.
const LEAST_WITH_STATE: u64 = 6;
/// The sandbox in the same process needs this many more.
const LEAST_WITH_SANDBOX: u64 = 6;
/// Open files per request: its connection, and a new one while another request closes its own.
const PER_CALL: u64 = 2;
/// Additional open files for a name lookup: the machine's lists and a socket.
const PER_LOOK_UP: u64 = 2;

/// Standard input, output and error, which are part of what a run needs.
const STANDARD: u64 = 3;
/// Folders that list a process' open files, on Linux and on other systems.
const LISTS: [&str; 2] = ["/proc/self/fd", "/dev/fd"];
/// Inherited files that are assumed if the system does not list them. Chosen: a lock and a log, which schedulers pass on.
const ASSUMED_INHERITED: u64 = 2;

/// The numbers of the files that were open when the process started; `None` if the system does not list them.
static OPEN_AT_START: OnceLock<Option<Vec<u64>>> = OnceLock::new();

/// Records which files this process has inherited, before it opens any of its own.
pub(super) fn note_handed_down() {
    OPEN_AT_START.get_or_init(|| LISTS.iter().find_map(|list| listed(list)));
}

/// The list itself is an open file too, but it is closed again before its entries are used.
fn listed(list: &str) -> Option<Vec<u64>> {
    let entries = fs::read_dir(list).ok()?;
    let mut numbers: Vec<u64> = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    numbers.retain(|number| fs::symlink_metadata(format!("{list}/{number}")).is_ok());
    Some(numbers)
}

/// The number of inherited files below `limit`, without the standard ones.
fn inherited(limit: u64) -> u64 {
    match OPEN_AT_START.get() {
        Some(Some(numbers)) => taken(numbers, limit),
        Some(None) | None => ASSUMED_INHERITED,
    }
}

/// The limit applies to file numbers. A file with a higher number (the limit was lowered since) takes no room.
fn taken(numbers: &[u64], limit: u64) -> u64 {
    numbers.iter().filter(|&&number| (STANDARD..limit).contains(&number)).count() as u64
}

/// Whether a run has a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeps {
    State,
    Nothing,
}

/// Raises the limit of open files to what the requests in flight need. If that is impossible, fewer requests are in flight, and a warning
/// says so.
///
/// # Errors
/// An [`ExitMessage`] with exit code 2 if even one request in flight needs more.
pub(super) fn make_room(connection: &mut Connection, keeps: Keeps) -> Result<(), ExitMessage> {
    let per_call = per_call(connection);
    let needed = BESIDES_CALLS + per_call * connection.in_flight as u64;
    let wanted = needed + inherited(u64::MAX);
    let limit = raise(wanted);
    let inherited = inherited(limit);
    let least = least(connection, keeps) + inherited;
    if limit < least {
        let open = if inherited == 0 { String::new() } else { format!(" ({inherited} were handed down to it)") };
        return Err(ExitMessage::yours(
            format!("this process may open {}, and needs {least} at least{open}", counted(limit, "file")),
            MORE_FILES,
        ));
    }
    let fits = in_flight(limit.saturating_sub(inherited), per_call, connection.in_flight);
    if fits < connection.in_flight {
        tracing::warn!(
            "this process may open {}, {} in flight need {wanted}: at most {fits} are in flight; `ulimit -Hn` shows the limit",
            counted(limit, "file"),
            counted(connection.in_flight as u64, "request")
        );
        connection.in_flight = fits;
    }
    Ok(())
}

/// The same as [`make_room`] for a mock service that runs by itself. With less room it takes fewer connections at a time.
pub(super) fn make_room_to_serve() {
    raise(BESIDES_CALLS + CONNECTIONS_MAX as u64 + inherited(u64::MAX));
}

fn least(connection: &Connection, keeps: Keeps) -> u64 {
    let state = if keeps == Keeps::State { LEAST_WITH_STATE } else { 0 };
    let sandbox = if matches!(connection.service, ServiceAddress::Sandbox) { LEAST_WITH_SANDBOX } else { 0 };
    LEAST + state + sandbox
}

fn per_call(connection: &Connection) -> u64 {
    match &connection.service {
        // Both ends of each connection are in this process.
        ServiceAddress::Sandbox => 2 * PER_CALL,
        // With a proxy, a connection has two more ends in this process on its way to the tunnel.
        ServiceAddress::Remote { .. } if connection.proxy().is_some() => 3 * PER_CALL + PER_LOOK_UP,
        ServiceAddress::Remote { endpoint, .. } if endpoint.domain().is_some() => PER_CALL + PER_LOOK_UP,
        ServiceAddress::Remote { .. } => PER_CALL,
    }
}

/// The limit of open files, raised to `wanted` if possible.
fn raise(wanted: u64) -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let Some(current) = current else { return u64::MAX };
    if current >= wanted {
        return current;
    }
    let raised = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }) {
        Ok(()) => raised,
        Err(_) => current,
    }
}

/// The number of requests in flight for which there is room, at least one.
fn in_flight(limit: u64, per_call: u64, wanted: usize) -> usize {
    let room = limit.saturating_sub(BESIDES_CALLS) / per_call;
    usize::try_from(room).unwrap_or(usize::MAX).clamp(1, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inherited_files_take_room_below_the_limit() {
        assert_eq!(taken(&[0, 1, 2], 64), 0);
        assert_eq!(taken(&[0, 1, 2, 3, 9, 63], 64), 3);
        assert_eq!(taken(&[0, 1, 2, 9, 64, 200], 64), 1, "200 was opened before the limit was lowered");
        assert_eq!(taken(&[], 64), 0);
    }

    #[test]
    fn requests_in_flight_are_limited_by_the_room() {
        let check = |limit: u64, per_call: u64, wanted: usize, expected: usize| {
            assert_eq!(in_flight(limit, per_call, wanted), expected, "{limit} {per_call} {wanted}");
        };
        check(1_024, 2, 256, 256);
        check(64, 2, 256, 12);
        check(64, 4, 256, 6);
        check(64, 2, 4, 4);
        check(20, 2, 256, 1);
        check(u64::MAX, 4, 900, 900);
    }
}
