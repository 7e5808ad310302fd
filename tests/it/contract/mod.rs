//! The command line's contract on real files: exit codes, files, resuming, settings, and what a user sees.

mod batch;
mod config_file;
mod files;
mod interruptions;
mod machine;
mod profile_only;
mod profiles;
mod resuming;
mod sandbox;
mod settings;
mod snapshots;
mod surroundings;
