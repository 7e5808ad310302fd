//! The flags that say where the service is and who calls, and those of what is shown.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::values::{duration, seconds};
use crate::io::api::region::Region;
use crate::shell::cli::config_file::ConnectionDefaults;
use crate::shell::screen::progress::Wanted;

/// Where the service is and who calls. Every flag falls back to its environment variable, then to the configuration file.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection (flag, then environment, then configuration file)")]
pub struct ConnectionFlags {
    /// The app [env: CHATLIFT_SDKAPPID]
    #[arg(long, value_name = "N")]
    pub sdkappid: Option<u64>,
    /// An administrator of the app [env: CHATLIFT_IDENTIFIER] [default: administrator]
    #[arg(long, value_name = "NAME")]
    pub identifier: Option<String>,
    /// A file that holds the app's SecretKey, readable by you alone [env: CHATLIFT_SECRET_KEY holds the key itself,
    /// CHATLIFT_USERSIG a ready-made UserSig instead]
    #[arg(long, value_name = "FILE")]
    pub secret_key_file: Option<PathBuf>,
    /// The app's data center [env: CHATLIFT_REGION]
    #[arg(long, value_name = "NAME", conflicts_with = "endpoint")]
    pub region: Option<Region>,
    /// The service's URL instead of a region; http:// only for a loopback address [env: CHATLIFT_ENDPOINT]
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// Trust the certificates of this PEM file too [env: CHATLIFT_CA_FILE]
    #[arg(long, value_name = "PEM")]
    pub ca_file: Option<PathBuf>,
    /// An http:// or https:// proxy that all connections go through, by CONNECT; without a password [env: CHATLIFT_PROXY, which may
    /// hold one]
    #[arg(long, value_name = "URL")]
    pub proxy: Option<String>,
    /// A file that holds the proxy's password, readable by you alone; the user name stands in --proxy
    #[arg(long, value_name = "FILE")]
    pub proxy_password_file: Option<PathBuf>,
    /// Import into the sandbox (a built-in mock service), whatever else is said of the service; needs no credentials
    #[arg(long)]
    pub sandbox: bool,
    /// Calls a second, never more in any sliding second; 0 = no limit, for a loopback endpoint only [env: CHATLIFT_RATE]
    /// [default: the API's documented limit, 200; with --batch 100]
    #[arg(long, value_name = "N")]
    pub rate: Option<u32>,
    /// Once the service has refused requests as too many, keep so much below what it lets through, for others [default: 5]
    #[arg(long, value_name = "PERCENT")]
    pub headroom: Option<u8>,
    /// Calls in flight at most [default: 256]
    #[arg(long, value_name = "N")]
    pub in_flight: Option<u32>,
    /// Attempts a row [default: 5]
    #[arg(long, value_name = "N")]
    pub max_attempts: Option<u32>,
    /// One attempt, body included [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,
    /// How long a dead service is waited for before the run stops, resumable [default: 6h]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub max_outage: Option<Duration>,
    /// TOML with the names of flags as keys; a secret may stand in it only as a path [env: CHATLIFT_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What that file says.
    #[arg(skip)]
    pub(in crate::shell::cli) defaults: ConnectionDefaults,
}

/// What is shown on stderr.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputFlags {
    /// Say nothing unless something needs attention
    #[arg(long, short)]
    pub quiet: bool,
    /// Say more; twice for everything
    #[arg(short, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// How logs are written
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Show no progress: no bar, and where stderr is no terminal no `progress:` lines
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
