//! chatlift lifts an existing user base into Tencent Chat: a CSV of accounts goes in, every account is imported through the
//! REST API at the highest legal pace, and a results CSV says what became of each row.
//!
//! ARCHITECTURE.md has the way of a row and the rule of who may import whom.

pub mod account;
pub mod api;
pub mod audit;
pub mod calls;
pub mod check;
pub mod cli;
pub mod command;
pub mod deliver;
pub mod figures;
pub mod files;
pub mod finding;
pub mod gate;
pub mod guard;
pub mod health;
pub mod import;
pub mod input;
pub mod journal;
pub mod lockfile;
pub mod lookalike;
pub mod outcome;
pub mod plan;
pub mod progress;
pub mod refusals;
pub mod retry;
pub mod roster;
pub mod sample;
pub mod sandbox;
pub mod sheets;
pub mod spill;
pub mod state;
pub mod summary;
pub mod sync;
pub mod target;
pub mod traffic;
pub mod verdict;
pub mod verify;
