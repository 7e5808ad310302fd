//! The flags for the page of a run: served while it lasts, and written as a report.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;

/// How others may look at a run.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Page")]
pub struct PageFlags {
    /// Serve a page with the progress of the run while it lasts, for browsers, and /metrics, /status.json, /healthz and /livez for machines.
    /// The address must be a loopback one: 127.0.0.1:9120
    #[arg(long, value_name = "ADDR:PORT", value_parser = address)]
    pub status: Option<SocketAddr>,
    /// Let --status listen on any address. There is no login: everybody who reaches it sees the counts of the run, but no UserID
    #[arg(long)]
    pub status_anywhere: bool,
    /// Answer requests for this host name, too; for a proxy in front of --status (repeatable)
    #[arg(long, value_name = "NAME")]
    pub status_host: Vec<String>,
    /// Write the page as one file that needs no network, every minute and at the end. It has a few UserIDs of rejected rows
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// Leave the examples of rejected rows out of the report
    #[arg(long)]
    pub report_anonymous: bool,
}

/// An address of this machine with a port; the name of loopback is known without asking anybody.
fn address(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix("localhost:").map(str::parse);
    match port {
        Some(Ok(port)) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        _ => text.parse().map_err(|_| "not an address with a port, such as 127.0.0.1:9120 or [::1]:9120".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_port() {
        let check =
            |text: &str, expected: Option<&str>| assert_eq!(address(text).ok().map(|address| address.to_string()).as_deref(), expected);
        check("127.0.0.1:9120", Some("127.0.0.1:9120"));
        check("localhost:0", Some("127.0.0.1:0"));
        check("[::1]:1", Some("[::1]:1"));
        check("0.0.0.0:80", Some("0.0.0.0:80"));
        for wrong in ["127.0.0.1", ":9120", "9120", "localhost:", "example.com:80", "127.0.0.1:70000", ""] {
            check(wrong, None);
        }
    }
}
