//! The flags of the sandbox.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::values::duration;
use crate::domain::command::Command;
use crate::sandbox::Counting;

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags as typed")]
pub struct SandboxFlags {
    /// Port on 127.0.0.1; 0 = any free one
    #[arg(long, value_name = "PORT", default_value = "0")]
    pub port: u16,
    /// The SDKAppID of the app that it plays
    #[arg(long, value_name = "N", default_value = "1400000000")]
    pub sdkappid: u64,
    /// The administrator of that app
    #[arg(long, value_name = "NAME", default_value = "administrator")]
    pub identifier: String,
    /// The file with its SecretKey [default: a new random key, which is printed]
    #[arg(long, value_name = "FILE")]
    pub secret_key_file: Option<PathBuf>,
    /// Run this command in a shell with the settings of the sandbox in its environment, end with it, and exit as it does
    #[arg(long, value_name = "COMMAND")]
    pub run: Option<String>,
    /// Write the settings for a shell into this file once the sandbox serves
    #[arg(long, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
    /// The rate limit of each API, in requests a second; above it the answer is 60007; 0 = no limit
    #[arg(long, alias = "limit", value_name = "N", default_value = "200")]
    pub rate_limit: u32,
    /// How it counts the requests of a second: `sliding` (in any second), `calendar` (in each second of the clock), `leaky:BURST` (a bucket that leaks at the
    /// limit and holds BURST requests, as nginx's limit_req), `token:BURST` (a bucket of BURST tokens, full at first)
    #[arg(long, value_name = "KIND", default_value = "sliding")]
    pub limiter: Counting,
    /// Requests a second that other programs of the app make to each API; they use the same limit
    #[arg(long, value_name = "N", default_value = "0")]
    pub others: u32,
    /// The time until each answer
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = duration)]
    pub latency: Duration,
    /// The latency varies by up to this much
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = duration)]
    pub jitter: Duration,
    /// How many accounts the app may have, as in a trial; beyond that the answer is 70398
    #[arg(long, value_name = "N")]
    pub account_limit: Option<usize>,
    /// Keep the accounts in this CSV file (UserID, Nick, FaceUrl and the profile fields that are set, sorted by UserID). It is read at the
    /// start, and written at start and end. Changes in between go to FILE.log before they are answered, so that a kill loses none (a power
    /// cut may)
    #[arg(long, value_name = "FILE")]
    pub accounts: Option<PathBuf>,
    /// Append a line `command,UserID,code` for every user of a well-formed request, before it is answered
    #[arg(long, value_name = "FILE")]
    pub call_log: Option<PathBuf>,
    /// This user is online until it is kicked or deleted (repeatable)
    #[arg(long, value_name = "ID")]
    pub online: Vec<String>,
    /// This user is in the background, reachable by push (repeatable)
    #[arg(long, value_name = "ID")]
    pub push_online: Vec<String>,
    /// Deleting is switched off, as in the console of a new app: account_delete answers 71000
    #[arg(long)]
    pub deletion_off: bool,
    /// A deleted UserID cannot be imported again (70399), as on paid plans for three months; with --accounts also after a restart. By
    /// default it can, so that you can repeat a rehearsal
    #[arg(long)]
    pub deleted_ids_barred: bool,
    /// portrait_get leaves unknown users out instead of listing them as @TLS#NOT_FOUND
    #[arg(long)]
    pub portrait_get_omits_unknown: bool,
    /// The app has this custom user field, Tag_Profile_Custom_KEY; portrait_set answers 40009 for others (repeatable)
    #[arg(long, value_name = "KEY")]
    pub custom_field: Vec<String>,
    /// Requests of portrait_set a second before it answers 60007; 0 = no limit
    #[arg(long, value_name = "N", default_value = "200")]
    pub profile_limit: u32,
    /// Do otherwise what the documentation leaves open: `keeps-accounts` (account_import changes nothing of an account that exists),
    /// `clears-omitted` (an import clears what it leaves out), `ignores-case` (UserIDs that differ only in case are one account),
    /// `takes-spaces` (in UserIDs), `cuts-spaces` (the same, but cuts off those at the ends) (repeatable)
    #[arg(long, value_name = "VARIANT", hide_possible_values = true)]
    pub variant: Vec<VariantFlag>,
    /// Batches lose nicknames and avatars
    #[arg(long)]
    pub batch_drops_profiles: bool,
    /// A fault, for example code=70169,ids=10%,times=2 or http=502,period=60s..120s or reset=after,ids=1%,times=1 or
    /// code=71000,api=account_delete; in a batch, code=N hits single accounts and whole=N all of them (repeatable)
    #[arg(long, value_name = "FAULT")]
    pub fault: Vec<String>,
}

/// The commands of the REST API that the sandbox plays, for its help.
pub(super) fn commands() -> String {
    let paths = Command::ALL.map(|command| format!("  /v4/{}\n", command.spec().path));
    format!("It plays these commands of the REST API:\n{}GET / lists them, with the sandbox's own pages.", paths.concat())
}

/// What the documentation leaves open, done otherwise than the sandbox does by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VariantFlag {
    KeepsAccounts,
    ClearsOmitted,
    IgnoresCase,
    TakesSpaces,
    CutsSpaces,
}
