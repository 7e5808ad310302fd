//! The shell: flags become settings, settings start one flow, its end becomes an exit code.

pub mod exit;
pub mod flags;
pub mod log;
pub mod settings;
