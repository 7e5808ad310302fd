//! What tests of several promises are built with: one fixture of a kind.

mod beside;
mod cli;
pub(crate) mod packed;
pub(crate) mod ports;
pub(crate) mod requests;
pub(crate) mod server;
pub(crate) mod tools;

pub(crate) use beside::side_by_side;
pub(crate) use cli::{Call, CliFixture, KEY, Row, Run, Running, SDKAPPID, eventually, users, write_a_minute_ago};
