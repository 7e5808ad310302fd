//! The command line's contract on real files: exit codes, files, resuming, settings, and what a user sees.

mod files;
mod interruptions;
mod machine;
mod resuming;
mod settings;
mod snapshots;
mod surroundings;
