//! The flags for the page of a run: served while it lasts, and written as a report.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
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
    #[arg(long, requires = "status")]
    pub status_anywhere: bool,
    /// Answer requests for this host name, too; for a proxy in front of --status (repeatable)
    #[arg(long, value_name = "NAME", value_parser = host_name, requires = "status")]
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

/// The name of a host; a port behind it is left out, since each port of it is answered.
fn host_name(text: &str) -> Result<String, String> {
    if text.parse::<IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    let is_port = |port: &str| port.parse::<u16>().is_ok();
    let name = text.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(text, |(name, _)| name);
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let is_name =
        !name.trim_matches('.').is_empty() && name.chars().all(|char| char.is_ascii_alphanumeric() || ['-', '.', '_'].contains(&char));
    if is_name || name.parse::<IpAddr>().is_ok() {
        Ok(name.to_owned())
    } else {
        Err("not the name of a host, such as chat.example.com".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_is_one_that_a_request_can_have() {
        let check = |text: &str, expected: Option<&str>| assert_eq!(host_name(text).ok().as_deref(), expected, "{text}");
        check("chat.example.com", Some("chat.example.com"));
        check("a.b:80", Some("a.b"));
        check("[::1]:80", Some("::1"));
        check("::1", Some("::1"));
        check("192.0.2.1", Some("192.0.2.1"));
        check("chat.example.", Some("chat.example."));
        for wrong in ["", ".", "a b", ":80", "http://a", "a/b", "a.b:x", "me@a"] {
            check(wrong, None);
        }
    }

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
