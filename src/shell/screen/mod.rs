//! What a person sees of a run: its progress while it lasts, and its summary at the end.

pub mod phase_bar;
pub mod progress;
pub mod summary;
pub mod verified;
