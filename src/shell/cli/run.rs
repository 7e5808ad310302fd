//! What `import` and `sync` share in the shell: the lock of a run, and what is said at its start and its end.

use std::io;
use std::time::Duration;

use super::exit_messages::cannot_open;
use super::flags::RunFlags;
use super::lanes::Lanes;
use super::settings::{Connection, ServiceAddress};
use super::signals::Leftover;
use crate::domain::command::Command;
use crate::domain::figures;
use crate::domain::outcome::OutcomeCounts;
use crate::flow::import::Lane;
use crate::io::files::lock::Lockfile;
use crate::io::gate::Rate;
use crate::io::journal;
use crate::io::journal::disk::OsDisk;
use crate::io::journal::paths::RunPaths;
use crate::shell::exit::{Exit, ExitMessage};
use crate::shell::screen::report::Report;
use crate::shell::screen::summary::Summary;
use crate::shell::terminal::print_stderr;

/// Keeps other processes off the files of a run; a file that was made for nothing is removed when a signal ends the process.
pub(super) fn lock(paths: &RunPaths) -> Result<(Lockfile, Option<Leftover>), ExitMessage> {
    Leftover::of_lock(&paths.lock(), || journal::lock(&OsDisk, paths), Lockfile::is_for_nothing).map_err(|error| cannot_open(&error))
}

/// What is said of a service that is not on this machine.
pub(super) fn real_service(connection: &Connection) -> Option<String> {
    match &connection.service {
        ServiceAddress::Remote { endpoint, identity } if !connection.is_loopback() => {
            let host = endpoint.host_str().unwrap_or_default();
            Some(format!("this goes to the real service: app {} at {host} (--sandbox would rehearse it)", identity.sdkappid))
        }
        ServiceAddress::Remote { .. } | ServiceAddress::Sandbox => None,
    }
}

/// What requests are awaited with. `again` is the hint where there is none to be had.
pub(super) fn runtime(again: &str) -> Result<tokio::runtime::Runtime, ExitMessage> {
    let cannot_start = |error: io::Error| ExitMessage::new(Exit::Fatal, format!("cannot start: {error}"), again);
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot_start)
}

/// What is said of the lane and of the place where a run begins or goes on.
pub(super) fn lane_words(lane: Lane) -> &'static str {
    match lane {
        Lane::Single | Lane::FellBack => "",
        Lane::Batch(_) => " in batches",
    }
}

pub(super) fn resumed_words(rows_done: u64) -> String {
    if rows_done == 0 { String::new() } else { format!(", continuing after row {}", figures::count(rows_done)) }
}

/// How many calls fresh records take, and how long that lasts at the lane's rate; no time where there is no limit.
pub(super) fn forecast(lanes: &Lanes, records: u64) -> (u64, Option<Duration>) {
    let command = if matches!(lanes.lane, Lane::Batch(_)) { Command::MultiaccountImport } else { Command::AccountImport };
    let calls = records.div_ceil(command.spec().accounts_per_call as u64);
    let time = match lanes.foreseen_main_rate() {
        Rate::PerSecond(rate) => Some(Duration::from_secs_f64(calls as f64 / f64::from(rate.get()))),
        Rate::Unlimited => None,
    };
    (calls, time)
}

/// How long the profiles of so many records take at their own rate; no time where there is no limit.
pub(super) fn forecast_profiles(lanes: &Lanes, records: u64) -> Option<Duration> {
    match lanes.foreseen_profile_rate() {
        Rate::PerSecond(rate) => Some(Duration::from_secs_f64(records as f64 / f64::from(rate.get()))),
        Rate::Unlimited => None,
    }
}

/// Shows the table of what the run came to.
pub(super) fn tell(flags: &RunFlags, paths: &RunPaths, summary: &Summary, this_run: OutcomeCounts) {
    if !flags.output.quiet {
        let rejects = (summary.counts.rejected() > 0).then_some(paths.rejects.as_path());
        print_stderr(&Report { summary, this_run, results: &paths.results, rejects, checkpoint: &paths.checkpoint });
    }
}
