//! The flags that say where the service is and who calls, and those of what is shown.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::quota::QuotaFlags;
use super::values::{duration, seconds};
use crate::io::api::region::Region;
use crate::shell::cli::config_file::ConnectionDefaults;
use crate::shell::screen::progress::Wanted;

/// Where the service is and who calls. Every flag falls back to its environment variable, then to the configuration file.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection (flag, then environment, then configuration file)")]
pub struct ConnectionFlags {
    /// The SDKAppID of the app [env: CHATLIFT_SDKAPPID]
    #[arg(long, value_name = "N")]
    pub sdkappid: Option<u64>,
    /// An administrator of the app [env: CHATLIFT_IDENTIFIER] [default: administrator]
    #[arg(long, value_name = "NAME")]
    pub identifier: Option<String>,
    /// The file with the app's SecretKey; only you may be able to read it [env: CHATLIFT_SECRET_KEY holds the key itself,
    /// CHATLIFT_USERSIG a ready-made UserSig instead]
    #[arg(long, value_name = "FILE")]
    pub secret_key_file: Option<PathBuf>,
    /// The data center of the app [env: CHATLIFT_REGION]
    #[arg(long, value_name = "NAME", conflicts_with = "endpoint")]
    pub region: Option<Region>,
    /// The URL of the service instead of a region; http:// only for a loopback address [env: CHATLIFT_ENDPOINT]
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// Trust the certificates of this PEM file too: CAs, or that of the server itself [env: CHATLIFT_CA_FILE]
    #[arg(long, value_name = "PEM")]
    pub ca_file: Option<PathBuf>,
    /// The http:// or https:// proxy for all connections (CONNECT); the URL must not hold a password here [env: CHATLIFT_PROXY, which
    /// may hold one]
    #[arg(long, value_name = "URL")]
    pub proxy: Option<String>,
    /// The file with the proxy's password; only you may be able to read it; the user name is part of --proxy
    #[arg(long, value_name = "FILE")]
    pub proxy_password_file: Option<PathBuf>,
    /// Import into the sandbox, a built-in mock service, whatever the other flags say; needs no credentials
    #[arg(long)]
    pub sandbox: bool,
    /// Requests a second, never more in any sliding second; 0 = no limit, for a loopback endpoint only [env: CHATLIFT_RATE]
    /// [default: 200, with --batch 100: the documented limits]
    #[arg(long, value_name = "N")]
    pub rate: Option<u32>,
    /// After the service refused requests as too many: stay this much below the rate that gets through [default: 5]
    #[arg(long, value_name = "PERCENT")]
    pub headroom: Option<u8>,
    /// Requests in flight at most [default: 256]
    #[arg(long, value_name = "N")]
    pub in_flight: Option<u32>,
    /// Attempts per row [default: 5]
    #[arg(long, value_name = "N")]
    pub max_attempts: Option<u32>,
    /// Time limit of one attempt, including the body [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,
    /// How long to wait for a service that is down, before the run stops; the same command resumes [default: 6h]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub max_outage: Option<Duration>,
    /// The configuration file: TOML with the names of the flags as keys, and no secret in it but as a path [env: CHATLIFT_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub quota: QuotaFlags,
    /// What that file says.
    #[arg(skip)]
    pub(in crate::shell::cli) defaults: ConnectionDefaults,
}

/// What is shown on stderr.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputFlags {
    /// Print nothing unless something needs attention
    #[arg(long, short)]
    pub quiet: bool,
    /// Print more; twice for everything
    #[arg(short, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Format of the log lines
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Show no progress: no bar, and no `progress:` lines if stderr is no terminal
    #[arg(long)]
    pub no_progress: bool,
}

impl OutputFlags {
    /// What of the progress is wanted.
    pub(in crate::shell::cli) const fn progress(&self) -> Wanted {
        if self.quiet || self.no_progress { Wanted::Nothing } else { Wanted::Shown }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}
