//! What a file may look like, what is read of it, and what is said of it, by every command.

mod cells;
mod changing;
mod files;
mod forms;
mod hints;
mod odd_fixtures;
mod oddities;
mod profile_columns;
mod spooling;
