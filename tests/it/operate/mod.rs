//! chatlift as its operators see it: where a run stands, and what is told at its end.

mod browser;
mod ends;
mod every_end;
mod metrics;
mod on_end;
mod outputs;
mod probe;
mod probe_write;
mod rehearsal;
mod report;
mod screen;
mod status;
mod status_server;
mod systemd;
