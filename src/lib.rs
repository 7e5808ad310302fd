//! chatlift lifts an existing user base into Tencent Chat: it reads a CSV of accounts, imports every account through the REST API as
//! fast as the rate limit allows, and writes a results CSV that says what became of each row.
//!
//! ARCHITECTURE.md shows the way of a row and which module may import which.

pub mod domain;
pub mod flow;
pub mod io;
pub mod sandbox;
pub mod shell;
