//! Raises the limit of open files, since each request in flight needs some, and fits the requests in flight to it.

use std::fs;
use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::settings::{Connection, ServiceAddress};
use crate::domain::figures::counted;
use crate::sandbox::CONNECTIONS_MAX;
use crate::shell::exit::{ExitMessage, MORE_FILES};

/// Files that a run needs besides its calls: input, journal, state, temporary files, folders, the runtimes' own. Chosen: a third more than
/// the most that any command was seen to need (a sync into the sandbox: 30).
const BESIDES_CALLS: u64 = 40;
/// The least with which a run gets anywhere, measured with one call in flight: an import needs 20 …
const LEAST: u64 = 20;
/// … a sync so many more, for its state and its temporary files …
const LEAST_WITH_STATE: u64 = 6;
/// … and the sandbox in the same process so many more.
const LEAST_WITH_SANDBOX: u64 = 6;
/// Files of a call: its connection, and one that is being made while another call gives up its own.
const PER_CALL: u64 = 2;
/// Files of a name look-up besides: the machine's lists and a socket.
const PER_LOOK_UP: u64 = 2;

/// Standard input, output and error, which are counted with what a run needs.
const STANDARD: u64 = 3;
/// Where a system lists a process' open files: Linux', then the others'.
const LISTS: [&str; 2] = ["/proc/self/fd", "/dev/fd"];
/// Files taken to be handed down where no system tells. Chosen: a lock and a log, as schedulers hand them down.
const HANDED_DOWN_UNTOLD: u64 = 2;

/// Files that were open when the process began, by their numbers; `None` where the system doesn't tell.
static AT_START: OnceLock<Option<Vec<u64>>> = OnceLock::new();

/// Notes which files whoever started this process has handed down to it, before it opens any of its own.
pub(super) fn note_handed_down() {
    AT_START.get_or_init(|| LISTS.iter().find_map(|list| listed(list)));
}

/// The list that is being read is an open file too, and closed again before its entries are looked at.
fn listed(list: &str) -> Option<Vec<u64>> {
    let entries = fs::read_dir(list).ok()?;
    let mut numbers: Vec<u64> = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    numbers.retain(|number| fs::symlink_metadata(format!("{list}/{number}")).is_ok());
    Some(numbers)
}

/// Files that were handed down and take room below `limit`, besides the standard ones.
fn handed_down(limit: u64) -> u64 {
    match AT_START.get() {
        Some(Some(numbers)) => taken(numbers, limit),
        Some(None) | None => HANDED_DOWN_UNTOLD,
    }
}

/// The limit is one of numbers: what has a number above it (it was lowered since) takes no room.
fn taken(numbers: &[u64], limit: u64) -> u64 {
    numbers.iter().filter(|&&number| (STANDARD..limit).contains(&number)).count() as u64
}

/// Whether a run keeps a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeps {
    State,
    Nothing,
}

/// Raises the limit of open files to what the calls in flight need. Where it can't be raised so far, fewer calls are in flight, which is said.
///
/// # Errors
/// The last word (exit code 2) where there is no room for anything.
pub(super) fn make_room(connection: &mut Connection, keeps: Keeps) -> Result<(), ExitMessage> {
    let per_call = per_call(connection);
    let needed = BESIDES_CALLS + per_call * connection.in_flight as u64;
    let wanted = needed + handed_down(u64::MAX);
    let limit = raise(wanted);
    let handed_down = handed_down(limit);
    let least = least(connection, keeps) + handed_down;
    if limit < least {
        let open = if handed_down == 0 { String::new() } else { format!(" ({handed_down} were handed down to it)") };
        return Err(ExitMessage::yours(
            format!("this process may open {}, and needs {least} at least{open}", counted(limit, "file")),
            MORE_FILES,
        ));
    }
    let fits = in_flight(limit.saturating_sub(handed_down), per_call, connection.in_flight);
    if fits < connection.in_flight {
        tracing::warn!(
            "this process may open {}, {} in flight need {wanted}: at most {fits} are in flight; `ulimit -Hn` shows the limit",
            counted(limit, "file"),
            counted(connection.in_flight as u64, "call")
        );
        connection.in_flight = fits;
    }
    Ok(())
}

/// As [`make_room`], for a mock service that runs by itself. Where there is less room, it takes fewer connections at a time.
pub(super) fn make_room_to_serve() {
    raise(BESIDES_CALLS + CONNECTIONS_MAX as u64 + handed_down(u64::MAX));
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
        // So they are on the way to the tunnel.
        ServiceAddress::Remote { .. } if connection.proxy().is_some() => 3 * PER_CALL + PER_LOOK_UP,
        ServiceAddress::Remote { endpoint, .. } if endpoint.domain().is_some() => PER_CALL + PER_LOOK_UP,
        ServiceAddress::Remote { .. } => PER_CALL,
    }
}

/// The limit of open files, raised to `wanted` if that can be.
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

/// Calls in flight for which there is room; one at least, for a call less is none.
fn in_flight(limit: u64, per_call: u64, wanted: usize) -> usize {
    let room = limit.saturating_sub(BESIDES_CALLS) / per_call;
    usize::try_from(room).unwrap_or(usize::MAX).clamp(1, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_down_takes_room_below_the_limit() {
        assert_eq!(taken(&[0, 1, 2], 64), 0);
        assert_eq!(taken(&[0, 1, 2, 3, 9, 63], 64), 3);
        assert_eq!(taken(&[0, 1, 2, 9, 64, 200], 64), 1, "what was opened before the limit was lowered");
        assert_eq!(taken(&[], 64), 0);
    }

    #[test]
    fn there_are_as_many_calls_as_there_is_room_for() {
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
