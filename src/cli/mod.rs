//! The shell: flags become settings, settings start one flow, its end becomes an exit code.

pub mod audit;
pub mod check;
pub mod exit;
mod figures;
pub mod flags;
pub mod input;
pub mod settings;
mod stdout;
