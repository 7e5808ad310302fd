//! The command line: it turns flags into one flow and the flow's end into an exit code, and shows progress meanwhile.

pub mod cli;
pub mod exit;
pub mod page;
pub mod screen;
pub mod terminal;
