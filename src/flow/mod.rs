//! The flows: what each subcommand does, without a terminal. They join `domain` and `io`.

pub mod audit;
pub mod calls;
pub mod check;
pub mod dispatch;
pub mod import;
pub mod probe;
pub mod sync;
pub mod verify;
