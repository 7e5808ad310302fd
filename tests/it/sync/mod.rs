//! `chatlift sync` through the real binary and, for a year of nights, through the library.

mod missing;
mod night;
mod nights;
mod year;
