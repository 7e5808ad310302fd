//! What tests of several promises are built with.

pub(crate) mod ports;
