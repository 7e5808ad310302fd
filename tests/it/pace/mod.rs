//! The limit is kept and used, as others than chatlift measure it. `flow` proves the same on the paused clock.

mod nginx;
mod processes;
mod throttling;
