//! Tests of chatlift's promises from outside. tests/README.md says which test proves which promise.

#![expect(clippy::unwrap_used, reason = "a panic in a test is a failure with a place")]

mod contract;
mod crash;
mod documents;
mod flow;
mod fuzz;
mod hostile;
mod input;
mod layers;
mod operate;
mod pace;
mod quota;
mod support;
mod sync;
mod verify;
