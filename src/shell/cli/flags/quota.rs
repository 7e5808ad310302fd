//! The flags of a limit that several processes share.

use std::num::{IntErrorKind, NonZeroU32, ParseIntError};
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use crate::domain::command::Command;

/// A limit that several processes share.
#[derive(Debug, Default, Clone, Args)]
#[command(next_help_heading = "Quota (a limit that several processes share)")]
pub struct QuotaFlags {
    /// Share the limit with all processes that name the same server of Valkey or Redis (6 or later); rediss:// for TLS; the URL must not
    /// hold a password here [env: CHATLIFT_QUOTA, which may hold one]
    #[arg(long, value_name = "redis://HOST:PORT/DB")]
    pub quota: Option<String>,
    /// The file with the password of the quota's server; only you may be able to read it
    #[arg(long, value_name = "FILE")]
    pub quota_password_file: Option<PathBuf>,
    /// The name under which the limit is shared [default: chatlift:{N} with the SDKAppID]
    #[arg(long, value_name = "PREFIX")]
    pub quota_key: Option<String>,
    /// Requests a second of an API for all processes together, the same for each of them; repeatable [default: the documented limits]
    #[arg(long, value_name = "API=N")]
    pub quota_rate: Vec<QuotaRateFlag>,
    /// If the server is lost, go on alone with N requests a second of each API instead of waiting for it
    #[arg(long, value_name = "share=N")]
    pub quota_lost: Option<QuotaLostFlag>,
}

/// The shared limit of one API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaRateFlag {
    pub api: Command,
    pub per_s: NonZeroU32,
}

impl FromStr for QuotaRateFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, number) = text.split_once('=').ok_or("it must be an API and a number: account_import=150")?;
        let api = Command::ALL.into_iter().find(|command| command.name() == name.trim());
        let api = api.ok_or_else(|| format!("{name:?} is no API; those are {}", Command::ALL.map(Command::name).join(", ")))?;
        Ok(Self { api, per_s: per_second(number)? })
    }
}

/// What a process does alone if the store is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaLostFlag(pub NonZeroU32);

impl FromStr for QuotaLostFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_prefix("share=").ok_or("it must be share=N, with the requests a second of this process alone")?;
        per_second(number).map(Self)
    }
}

fn per_second(text: &str) -> Result<NonZeroU32, String> {
    text.trim().parse().map_err(|error: ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow => format!("{text} is too large: no API takes so many requests a second"),
        _ => format!("{text:?} is no number of requests a second, which is at least 1"),
    })
}
