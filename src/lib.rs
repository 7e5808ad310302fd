//! chatlift lifts an existing user base into Tencent Chat: a CSV of accounts goes in, every account is imported through the
//! REST API at the highest legal pace, and a results CSV says what became of each row.
//!
//! ARCHITECTURE.md has the way of a row and the rule of who may import whom.

pub mod domain;
pub mod flow;
pub mod io;
pub mod sandbox;
pub mod shell;
