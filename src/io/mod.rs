//! Everything that reads or writes outside of the process. These modules import `domain`, and none of each other except `files`.

pub mod api;
pub mod csv_out;
pub mod extsort;
pub mod files;
pub mod gate;
pub mod journal;
pub mod quota;
pub mod rejected_rows;
pub mod roster;
pub mod source;
pub mod state;
pub mod verification_files;
