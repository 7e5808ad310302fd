//! Everything that reads or writes outside of the process. These modules import `domain`, and each other only where one is built on another.

pub mod api;
pub mod extsort;
pub mod files;
pub mod gate;
pub mod journal;
pub mod roster;
pub mod state;
pub mod verification_files;
