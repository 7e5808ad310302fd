//! The binary against servers and networks that misbehave.

mod answers;
pub(super) mod certificates;
mod kept;
mod network;
mod proxy;
mod refusals;
