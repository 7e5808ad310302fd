//! Values and decisions without I/O, clock or random numbers. These modules import only each other.

pub mod account;
pub mod breaker;
pub mod call_stats;
pub mod cells;
pub mod change;
pub mod command;
pub mod comparison;
pub mod examples;
pub mod figures;
pub mod guard;
pub mod hashed_map;
pub mod known_text;
pub mod lookalike;
pub mod oddity;
pub mod outcome;
pub mod position;
pub mod profile;
pub mod refusals;
pub mod retry;
pub mod shared_reason;
pub mod tag;
pub mod tag_words;
pub mod target;
pub mod uuid;
pub mod verdict;
