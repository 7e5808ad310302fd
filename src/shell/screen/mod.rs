//! What a person sees of a run: its progress while it lasts, its summary when it has ended.

pub mod phase_bar;
pub mod progress;
pub mod summary;
pub mod verified;
