//! One limit for several processes, through a real server of Valkey or Redis that is really stopped, paused and flushed.

mod books;
mod documented;
mod lost;
mod processes;
mod script;
mod settings;
mod slowed;
mod told;
mod world;
