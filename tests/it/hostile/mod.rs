//! The binary against servers and networks that misbehave.

mod answers;
mod certificates;
mod kept;
mod network;
mod pace;
mod proxy;
mod refusals;
pub(crate) mod server;
