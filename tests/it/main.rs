//! What the tool promises, tested from outside. tests/README.md says which test proves which promise.

mod flow;
mod layers;
