//! Tests of chatlift's promises from outside. tests/README.md says which test proves which promise.

#![expect(clippy::unwrap_used, reason = "a panic in a test is a failure with a place")]

mod batch;
mod binary;
mod cells;
mod changing;
mod contract;
mod crash;
mod disk;
mod documents;
mod files;
mod flow;
mod fuzz;
mod hostile;
mod kills;
mod layers;
mod nginx;
mod odd_fixtures;
mod oddities;
mod operate;
mod processes;
mod profile_columns;
mod profiles;
mod sandbox;
mod source;
mod support;
mod sync;
mod verify;
