//! The command line: flags in, one flow, an exit code out; and what is shown meanwhile.

pub mod cli;
pub mod exit;
pub mod screen;
pub mod terminal;
