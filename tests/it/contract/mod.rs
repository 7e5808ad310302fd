//! The command line's contract on real files: exit codes, files, resuming, settings, and what a user sees.

mod config_file;
mod files;
mod interruptions;
mod machine;
mod resuming;
mod settings;
mod snapshots;
mod surroundings;
