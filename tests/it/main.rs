//! What the tool promises, tested from outside. tests/README.md says which test proves which promise.

#![expect(clippy::unwrap_used, reason = "a panic here is a failed test with a place")]

mod binary;
mod contract;
mod flow;
mod hostile;
mod layers;
