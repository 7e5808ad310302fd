//! The display of a run: progress while it runs, and a summary at the end.

pub mod bars;
pub mod end_summary;
pub mod metrics;
pub mod phase_bar;
pub mod probed;
pub mod progress;
pub mod report;
pub mod summary;
mod table;
pub mod verified;
