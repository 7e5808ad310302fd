//! What tests of several promises are built with: one fixture of a kind.

mod beside;
mod cli;
pub(crate) mod import_settings;
pub(crate) mod line;
pub(crate) mod packed;
pub(crate) mod ports;
pub(crate) mod redis_server;
pub(crate) mod requests;
pub(crate) mod server;
pub(crate) mod tools;

use std::time::{Duration, Instant};

pub(crate) use beside::side_by_side;
pub(crate) use cli::{Call, CliFixture, KEY, Row, Run, Running, SDKAPPID, eventually, users, write_a_minute_ago};

/// Lets real time pass, for processes that know no other.
pub(crate) fn passes(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        std::thread::park_timeout(until.saturating_duration_since(Instant::now()));
    }
}
