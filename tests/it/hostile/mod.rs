//! The binary against servers and networks that misbehave.

mod answers;
mod certificates;
mod kept;
mod network;
mod proxy;
mod refusals;
