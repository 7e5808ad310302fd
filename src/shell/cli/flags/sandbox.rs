//! The flags of the sandbox.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::values::duration;
use crate::sandbox::Counting;

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags as typed")]
pub struct SandboxFlags {
    /// Port on 127.0.0.1; 0 = any free one
    #[arg(long, value_name = "PORT", default_value = "0")]
    pub port: u16,
    /// The app that it plays
    #[arg(long, value_name = "N", default_value = "1400000000")]
    pub sdkappid: u64,
    /// Its administrator
    #[arg(long, value_name = "NAME", default_value = "administrator")]
    pub identifier: String,
    /// A file with its SecretKey [default: a fresh random key, which is printed]
    #[arg(long, value_name = "FILE")]
    pub secret_key_file: Option<PathBuf>,
    /// Calls a second before it answers 60007; 0 = no limit
    #[arg(long, value_name = "N", default_value = "200")]
    pub limit: u32,
    /// How it counts them: `sliding` (in any second), `calendar` (in each second of the clock), `leaky:BURST` (a bucket that leaks at the
    /// limit and holds BURST requests, as nginx's limit_req), `token:BURST` (a bucket of BURST tokens, full at first)
    #[arg(long, value_name = "KIND", default_value = "sliding")]
    pub limiter: Counting,
    /// Requests a second that others of the same app make to each API; they use the same limit
    #[arg(long, value_name = "N", default_value = "0")]
    pub others: u32,
    /// Time that every answer takes
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = duration)]
    pub latency: Duration,
    /// The latency varies by up to this much in both directions
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = duration)]
    pub jitter: Duration,
    /// Accounts that the app may hold; beyond it answers 70398
    #[arg(long, value_name = "N")]
    pub account_limit: Option<usize>,
    /// Keep the accounts in this CSV file (UserID,Nick,FaceUrl, sorted by UserID): read at the start if it is there, written at start and
    /// end. Changes in between go to FILE.log before they are answered, so that a kill loses none (a power cut may)
    #[arg(long, value_name = "FILE")]
    pub accounts: Option<PathBuf>,
    /// Append a line `command,UserID,code` for every user of a well-formed call, before the call is answered
    #[arg(long, value_name = "FILE")]
    pub call_log: Option<PathBuf>,
    /// This user is online until it is kicked or deleted (repeatable)
    #[arg(long, value_name = "ID")]
    pub online: Vec<String>,
    /// This one is in the background, within reach of a push (repeatable)
    #[arg(long, value_name = "ID")]
    pub push_online: Vec<String>,
    /// Deleting is switched off, as it is in a new app's console: account_delete answers 71000
    #[arg(long)]
    pub deletion_off: bool,
    /// A deleted UserID can't be imported again (70399), as on paid plans for three months; with --accounts also after a restart. Not the
    /// default, so that a rehearsal can delete and import the same users again
    #[arg(long)]
    pub deleted_ids_barred: bool,
    /// portrait_get leaves unknown users out instead of listing them as @TLS#NOT_FOUND
    #[arg(long)]
    pub portrait_get_omits_unknown: bool,
    /// Batches lose the nicknames and faces that they carry
    #[arg(long)]
    pub batch_drops_profiles: bool,
    /// A fault, e.g. code=70169,ids=10%,times=2 or http=502,period=60s..120s or reset=after,ids=1%,times=1 or
    /// code=71000,api=account_delete; of a batch, code=N strikes single records and whole=N all (repeatable)
    #[arg(long, value_name = "FAULT")]
    pub fault: Vec<String>,
}
