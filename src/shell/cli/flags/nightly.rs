//! The flags of `sync` and `state`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{ConnectionFlags, RunFlags, duration};
use crate::domain::account::{UserId, UserIds};
use crate::domain::guard::Bound;
use crate::domain::uuid;

/// Where the guards' flags stand in the help.
const GUARDS: &str = "Safety checks, or guards (a file that looks wrong ends with exit code 6, and nothing is sent)";

#[derive(Debug, Args)]
pub struct SyncFlags {
    #[command(flatten)]
    pub run: RunFlags,
    /// The state file (SQLite) with the known accounts; made if it does not exist
    #[arg(long, value_name = "STATE", help_heading = "Files")]
    pub state: PathBuf,
    /// Write the plan, one line for each row that is not unchanged: op,row,line,UserID,reason
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub plan: Option<PathBuf>,

    /// What to do with known accounts that the file does not have: `report` only writes them to … .missing.csv; `kick` ends their sessions,
    /// perhaps twice after a crash; `delete` deletes them, which blocks re-import for three months on paid plans
    #[arg(long, value_name = "WHAT", default_value = "report", help_heading = "Missing accounts")]
    pub missing: MissingFlag,
    /// Kick or delete an account that was missing in so many finished runs in a row
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Missing accounts")]
    pub missing_runs: u32,
    /// Least time between the starts of two runs that count for the same missing account: several runs in one night count once
    #[arg(long, value_name = "DURATION", default_value = "10h", value_parser = duration, help_heading = "Missing accounts")]
    pub missing_apart: Duration,
    /// Never kick or delete UserIDs that match this pattern of `*`, `?` and `[…]` (repeatable)
    #[arg(long, value_name = "GLOB", value_parser = glob, help_heading = "Missing accounts")]
    pub protect: Vec<glob::Pattern>,
    /// Never kick or delete users who are online, reachable by push, or whose status is unknown
    #[arg(long, help_heading = "Missing accounts")]
    pub skip_online: bool,

    /// Let this run pass a safety check that it would not (repeatable)
    #[arg(long, value_name = "GUARD", help_heading = GUARDS)]
    pub allow: Vec<AllowFlag>,
    /// Refuse more updates than this: N, or N% of the known accounts (not checked below 100 known accounts)
    #[arg(long, value_name = "N|N%", default_value = "30%", value_parser = Bound::parse, help_heading = GUARDS)]
    pub max_update: Bound,
    /// Refuse more kicks or deletions than this: N, or N% of the known accounts; required with --missing delete [default with kick: 500
    /// or 15% of the known accounts, whichever is less, but at least 10]
    #[arg(long, value_name = "N|N%", value_parser = Bound::parse, required_if_eq("missing", "delete"), help_heading = GUARDS)]
    pub max_delete: Option<Bound>,
    /// Refuse a file without a valid row of this UserID (repeatable)
    #[arg(long, value_name = "ID", value_parser = user_id, help_heading = GUARDS)]
    pub canary: Vec<UserId>,
}

#[derive(Debug, Args)]
pub struct StateFlags {
    /// The state file
    #[arg(value_name = "STATE")]
    pub state: PathBuf,
    #[command(subcommand)]
    pub what: Option<StateCommand>,
}

#[derive(Debug, Subcommand)]
pub enum StateCommand {
    /// Write all accounts as CSV to standard output: UserID,fingerprint,last_imported,missing_runs
    Export,
    /// Drop accounts: the next sync creates those that its file has
    Forget {
        #[arg(value_name = "ID", required = true)]
        ids: Vec<String>,
    },
    /// Bind the state to the app that the connection flags name
    Retarget {
        #[command(flatten)]
        connection: Box<ConnectionFlags>,
    },
}

/// What is done about accounts that the file lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MissingFlag {
    Report,
    Kick,
    Delete,
}

/// A guard that a flag switches off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AllowFlag {
    /// The file may have no valid row
    Empty,
    /// The file may lack more than 15 % of the known accounts, or be so much smaller
    Shrunk,
    /// The share of nicknames or avatars may fall by more than 5 points
    Blanked,
    /// The file may have no line end at its end, although that of the last run had one
    Cut,
    /// Missing accounts are kicked or deleted although some UserIDs in the file cannot be read: they may be among them
    Malformed,
    /// Missing accounts are kicked or deleted although the file has a UserID that looks like theirs
    Lookalikes,
}

fn glob(text: &str) -> Result<glob::Pattern, String> {
    glob::Pattern::new(text).map_err(|error| error.to_string())
}

/// Of a UUID either form, with hyphens or without: with them it is too long for any account.
fn user_id(text: &str) -> Result<UserId, String> {
    let compact = uuid::compact(text.as_bytes());
    UserId::parse_as(UserIds::Any, compact.as_ref().map_or(text.as_bytes(), <[u8; 32]>::as_slice)).map_err(|why| why.to_string())
}
