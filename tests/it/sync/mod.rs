//! `chatlift sync` through the real binary and, for a year of nights, through the library.

mod instants;
mod joined;
mod kept;
mod missing;
mod night;
mod nights;
mod town;
mod year;
