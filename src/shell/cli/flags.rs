//! Flags as typed: clap's structures, and the help text. This module opens no file and checks nothing against anything else.

mod nightly;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, Args, Parser, Subcommand, ValueEnum};
use encoding_rs::Encoding;

pub use nightly::{AllowFlag, MissingFlag, StateCommand, StateFlags, SyncFlags};

use super::config_file::ConnectionDefaults;
use crate::domain::account::Field;
use crate::io::api::region::Region;
use crate::io::api::wire::ACCOUNT_IMPORT_CALLS_PER_S;
use crate::io::source::encoding_of_label;
use crate::sandbox::Counting;
use crate::shell::screen::progress::Wanted;

const AFTER_HELP: &str = "\
Examples:
  What would be refused, and how long the import takes:
      chatlift check users.csv
  A rehearsal against the sandbox, a built-in mock service; needs no credentials:
      chatlift import users.csv --sandbox
  A canary of 100 rows; the same command without --limit goes on:
      chatlift import users.csv --sdkappid 1400000000 \\
          --secret-key-file key --region singapore --limit 100
  Proof that every row has exactly one outcome:
      chatlift audit users.csv --results users.results.csv
  What the service really holds of it:
      chatlift verify users.csv --profiles --sdkappid 1400000000 \\
          --secret-key-file key --region singapore

Exit codes:
  0  all that was asked for is done
  1  could not go on (disk, internal fault); the same command resumes
  2  something of yours needs fixing
  3  finished, and some rows are failed or invalid
  4  stopped before the end; the same command resumes
  5  the service refused the credentials, the permission or the region
  6  a guard of sync tripped: nothing is sent";

const SYNC_HELP: &str = "\
What to know before the first night:
  A sync overwrites nicknames and faces that users changed in the app, where the file has another one than was last sent.
  An emptied cell clears nothing: the service is not told.
  A kick may be repeated after a crash.
  Deleting bars an id for three months on paid plans.";

/// Lifts an existing user base into Tencent Chat: a CSV goes in, every account is imported as fast as the rate limit allows, with one result
/// per row.
#[derive(Debug, Parser)]
#[command(name = "chatlift", version, after_help = AFTER_HELP, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub command: CliCommand,
}

#[derive(Debug, Subcommand)]
pub enum CliCommand {
    /// Import the accounts of a CSV file; the same command again resumes, or says that all is done
    Import(Box<ImportFlags>),
    /// Send only what changed since the last time: plan, guards, then creates and updates; made for every night
    #[command(after_help = SYNC_HELP)]
    Sync(Box<SyncFlags>),
    /// Show what a state holds; export it, drop ids, or bind it to another app
    State(StateFlags),
    /// Read the whole file offline: what would be refused and why, duplicates, and a forecast
    Check(CheckFlags),
    /// Prove from two files that every input row has exactly one outcome, or name those that haven't
    Audit(AuditFlags),
    /// Ask the service whether it holds what a file says; what is missing or different goes into a file that can be imported
    #[command(
        mut_arg("rate", |arg| arg.help(VERIFY_RATE_HELP)),
        mut_arg("max_attempts", |arg| arg.help("Attempts a call, and again for each of its halves [default: 5]")),
        mut_arg("max_outage", |arg| arg.help("How long a dead service is waited for before the run stops [default: 6h]")),
        mut_arg("sandbox", |arg| arg.help("Ask the sandbox, which has no accounts: a rehearsal of the command alone")),
    )]
    Verify(Box<VerifyFlags>),
    /// Serve a built-in mock service of Tencent Chat on loopback until it is stopped
    Sandbox(SandboxFlags),
    /// Print a UserSig, for debugging with other tools
    #[command(mut_args(without_use_for_a_signature))]
    Usersig(Box<UsersigFlags>),
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
    /// Print the manual page (roff)
    Man,
}

impl CliCommand {
    /// The connection flags of the command, if it has any.
    pub(super) fn connection_mut(&mut self) -> Option<&mut ConnectionFlags> {
        match self {
            CliCommand::Import(flags) => Some(&mut flags.run.connection),
            CliCommand::Sync(flags) => Some(&mut flags.run.connection),
            CliCommand::Verify(flags) => Some(&mut flags.connection),
            CliCommand::Usersig(flags) => Some(&mut flags.connection),
            CliCommand::State(StateFlags { what: Some(StateCommand::Retarget { connection }), .. }) => Some(connection),
            CliCommand::State(_)
            | CliCommand::Check(_)
            | CliCommand::Audit(_)
            | CliCommand::Sandbox(_)
            | CliCommand::Completions { .. }
            | CliCommand::Man => None,
        }
    }
}

/// The input file and how it is read.
#[derive(Debug, Args)]
pub struct InputFlags {
    /// The CSV file: a header line, a UserID column, optionally Nick and FaceUrl
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Take a field from a column of another name; FIELD is UserID, Nick or FaceUrl, and `Nick=` reads none
    #[arg(long, value_name = "FIELD=COLUMN", value_parser = column_mapping)]
    pub map: Vec<(Field, String)>,
    /// What separates the fields: one character, or `tab` [default: a comma; a tab for *.tsv]
    #[arg(long, value_name = "C", value_parser = delimiter)]
    pub delimiter: Option<u8>,
    /// The encoding of a file that is not in UTF-8, by its name on the web: gb18030, big5, shift_jis, windows-1252, utf-16le …
    #[arg(long, value_name = "NAME", value_parser = encoding)]
    pub encoding: Option<&'static Encoding>,
    /// Take the meaning off the character behind this one, in quotes and outside; `\N` without quotes is an empty cell. For files in which
    /// quotes are not doubled but escaped: --escape '\'
    #[arg(long, value_name = "CHAR", value_parser = escape)]
    pub escape: Option<u8>,
    /// Take quoted fields that run over lines as they are, also where they look as if a quote had swallowed rows
    #[arg(long)]
    pub multiline: bool,
    /// Take white space off both ends of UserID, Nick and FaceUrl
    #[arg(long)]
    pub trim: bool,
    /// Read a UserID, Nick or FaceUrl that is this word as an empty one, e.g. NULL (repeatable)
    #[arg(long, value_name = "WORD")]
    pub null: Vec<String>,
    /// Send UserIDs of any printable text; the service decides which ones it takes [default: ASCII alone]
    #[arg(long, value_name = "any", hide_possible_values = true)]
    pub user_ids: Option<UserIdsFlag>,
    /// Send UserIDs that are UUIDs of 36 characters without their hyphens; these 32 characters then are the account's id
    #[arg(long)]
    pub compact_uuid: bool,
}

/// Which UserIDs are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum UserIdsFlag {
    #[value(hide = true)]
    Any,
}

impl InputFlags {
    /// A file, and nothing said of it.
    #[must_use]
    pub fn bare(file: PathBuf) -> Self {
        let (map, null) = (Vec::new(), Vec::new());
        Self {
            file,
            map,
            delimiter: None,
            encoding: None,
            escape: None,
            multiline: false,
            trim: false,
            null,
            user_ids: None,
            compact_uuid: false,
        }
    }
}

#[derive(Debug, Args)]
pub struct ImportFlags {
    #[command(flatten)]
    pub run: RunFlags,
    /// Fill this state, which `sync` goes on with: on a finished import from its results, without a call
    #[arg(long, value_name = "STATE", help_heading = "Files")]
    pub state: Option<PathBuf>,
    /// Take a file that has no records: a finished run of no rows
    #[arg(long, value_name = "empty", help_heading = "Run")]
    pub allow: Option<ImportAllowFlag>,
}

/// What an import lets pass if it is told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ImportAllowFlag {
    #[value(hide = true)]
    Empty,
}

/// What `import` and `sync` share.
#[derive(Debug, Args)]
pub struct RunFlags {
    #[command(flatten)]
    pub input: InputFlags,
    #[command(flatten)]
    pub connection: ConnectionFlags,

    /// What became of each row [default: FILE less its .csv, plus .results.csv]
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub results: Option<PathBuf>,
    /// The failed and invalid rows, ready to be fixed and imported [default: … .rejects.csv]
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub rejects: Option<PathBuf>,
    /// Where the run stands, for resuming [default: … .checkpoint.json]
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub checkpoint: Option<PathBuf>,
    /// Write the run's figures as JSON
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub summary: Option<PathBuf>,

    /// Rename the old files, keep them under a dated name, and begin again
    #[arg(long, help_heading = "Run")]
    pub restart: bool,
    /// Send nothing and write nothing: only check the file; of a sync, only plan
    #[arg(long, help_heading = "Run")]
    pub dry_run: bool,
    /// Process at most N more rows, then stop cleanly (a canary)
    #[arg(long, value_name = "N", help_heading = "Run")]
    pub limit: Option<u64>,
    /// Import up to 100 accounts a call (`multiaccount_import`, 100 calls a second); the first batch is read back, and if the service drops
    /// its nicknames the run goes on account by account, with `strict` it stops
    #[arg(long, value_name = "strict", num_args = 0..=1, help_heading = "Run", require_equals = true, default_missing_value = "trust")]
    pub batch: Option<BatchFlag>,
    /// With --batch: calls a second of `account_import`, for what a batch refuses; 0 = no limit, as with --rate [default: 200]
    #[arg(long, value_name = "N", requires = "batch", help_heading = "Run")]
    pub single_rate: Option<u32>,
    /// Refuse the file if more than this share of its first 1,000 records is invalid
    #[arg(long, value_name = "PERCENT", default_value = "1", value_parser = percent, help_heading = "Run")]
    pub max_invalid: f64,
    /// Refuse the file if anything in it is odd; `import` then reads all of it before the first call
    #[arg(long, help_heading = "Run")]
    pub strict: bool,

    #[command(flatten)]
    pub output: OutputFlags,
}

const VERIFY_RATE_HELP: &str = "\
Calls a second of each API at most, below its documented limit (account_check 100, portrait_get 200); 0 = no limit, for a loopback endpoint \
only [env: CHATLIFT_RATE] [default: the limits]";

#[derive(Debug, Args)]
pub struct VerifyFlags {
    #[command(flatten)]
    pub input: InputFlags,
    #[command(flatten)]
    pub connection: ConnectionFlags,

    /// What was found of each id [default: FILE less its .csv, plus .verify.csv]
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub results: Option<PathBuf>,
    /// The records of missing and different accounts, ready to be imported; there is none if there are no such [default: … .repair.csv]
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub repair: Option<PathBuf>,
    /// Write the run's figures as JSON
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub summary: Option<PathBuf>,
    /// Put right what this state of `sync` says: missing ids are dropped from it, different ones are in doubt
    #[arg(long, value_name = "STATE", help_heading = "Files")]
    pub state: Option<PathBuf>,

    /// Compare Nick and FaceUrl too; an empty cell is not compared
    #[arg(long, help_heading = "Run")]
    pub profiles: bool,
    /// Ask about N valid ids alone, drawn at random
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Run")]
    pub sample: Option<u64>,
    /// Draw the same sample as the run that said this seed
    #[arg(long, value_name = "SEED", requires = "sample", help_heading = "Run")]
    pub seed: Option<u64>,

    #[command(flatten)]
    pub output: OutputFlags,
}

/// What is done if batches turn out to be no good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BatchFlag {
    /// Go on account by account.
    #[value(hide = true)]
    Trust,
    /// Stop.
    Strict,
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
    pub(super) const fn progress(&self) -> Wanted {
        if self.quiet || self.no_progress { Wanted::Nothing } else { Wanted::Shown }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

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
    pub(super) defaults: ConnectionDefaults,
}

#[derive(Debug, Args)]
pub struct CheckFlags {
    #[command(flatten)]
    pub input: InputFlags,
    /// The rate of the forecast, in calls a second
    #[arg(long, value_name = "N", default_value_t = ACCOUNT_IMPORT_CALLS_PER_S)]
    pub rate: NonZeroU32,
    /// TOML with the names of flags as keys, the same as for `import` [env: CHATLIFT_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// End with exit code 2 if anything is odd, as `import --strict` would
    #[arg(long)]
    pub strict: bool,
}

#[derive(Debug, Args)]
pub struct AuditFlags {
    #[command(flatten)]
    pub input: InputFlags,
    /// The results of the import
    #[arg(long, value_name = "FILE")]
    pub results: PathBuf,
    /// TOML with the names of flags as keys, the same as for `import` [env: CHATLIFT_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

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

#[derive(Debug, Args)]
pub struct UsersigFlags {
    #[command(flatten)]
    pub connection: ConnectionFlags,
    /// How long it is valid
    #[arg(long, help_heading = "Signature", value_name = "DURATION", default_value = "24h", value_parser = duration)]
    pub expire: Duration,
}

/// Hides the flags of [`ConnectionFlags`] that say nothing of a signature. They are taken all the same: a script may give every command the
/// same connection.
fn without_use_for_a_signature(arg: Arg) -> Arg {
    const USED: [&str; 6] = ["sdkappid", "identifier", "secret_key_file", "config", "expire", "help"];
    let is_used = USED.contains(&arg.get_id().as_str());
    arg.hide(!is_used)
}

fn column_mapping(text: &str) -> Result<(Field, String), String> {
    let (name, column) = text.split_once('=').ok_or("it must read FIELD=COLUMN")?;
    let field = Field::ALL.into_iter().find(|field| field.name() == name);
    match field {
        Some(Field::UserId) if column.is_empty() => Err("UserID must be read from a column".to_owned()),
        Some(field) => Ok((field, column.to_owned())),
        None => Err(format!("{name:?} is no field; the fields are UserID, Nick and FaceUrl")),
    }
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        _ if text == "tab" || text == "\\t" => Ok(b'\t'),
        [b'"' | b'\n' | b'\r'] => Err("a quote or a line end cannot separate fields".to_owned()),
        [one] if one.is_ascii() => Ok(*one),
        _ => Err("it must be one ASCII character, or `tab`".to_owned()),
    }
}

fn encoding(text: &str) -> Result<&'static Encoding, String> {
    let unknown = || "it is no name of an encoding; some are gb18030, big5, shift_jis, euc-kr, windows-1252, utf-16le".to_owned();
    encoding_of_label(text).ok_or_else(unknown)
}

fn escape(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [one] if one.is_ascii_punctuation() && *one != b'"' => Ok(*one),
        _ => Err("it must be one character of punctuation, and no quote: '\\' for a backslash".to_owned()),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("it must be a bare number from 0 to 100".to_owned()),
    }
}

/// Seconds, with decimals if need be: what is less than a millisecond is no time for an answer.
///
/// # Errors
/// A text for people.
pub fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        Ok(_) | Err(_) => Err("it must be a number of seconds from 0.001 to 86400 (a day)".to_owned()),
    }
}

/// Longest time that a flag takes, in seconds: a hundred thousand million years. The clocks of the system count seconds in 63 bits, a third of
/// which remains for the time that it is now.
const TIME_MAX_S: u64 = 100_000_000_000 * 31_557_600;

/// A time as people write it (6h, 30min), as far as clocks can hold it.
///
/// # Errors
/// A text for people.
pub fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|why| why.to_string())?;
    if duration.as_secs() > TIME_MAX_S { Err("it is longer than clocks can hold".to_owned()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_long_as_clocks_can_hold() {
        use std::time::{Instant, SystemTime};
        assert_eq!(duration("6h"), Ok(Duration::from_secs(6 * 3600)));
        let longest = duration("100000000000years").unwrap();
        assert!(Instant::now().checked_add(longest).is_some() && SystemTime::now().checked_add(longest).is_some());
        for wrong in ["500000000000years", "18446744073709551615s", "18446744073709551616s", "200000000000years", "6", "-1s", ""] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        let apart = |time: &str| Cli::try_parse_from(["chatlift", "sync", "users.csv", "--state", "s.db", "--missing-apart", time]).is_ok();
        assert!(apart("10h") && apart("0s") && !apart("500000000000years"));
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "nan", "inf", "1e-30", "1e30", "86401", "x"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn who_wants_no_progress_is_shown_none() {
        let wanted = |flags: &[&str]| {
            let CliCommand::Import(given) = Cli::try_parse_from(["chatlift", "import", "users.csv"].iter().chain(flags)).unwrap().command
            else {
                unreachable!("it is an import")
            };
            given.run.output.progress()
        };
        assert_eq!(wanted(&[]), Wanted::Shown);
        assert_eq!(wanted(&["--no-progress"]), Wanted::Nothing, "neither a bar nor lines in a file");
        assert_eq!(wanted(&["--quiet"]), Wanted::Nothing);
    }

    #[test]
    fn the_flags_hang_together() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_mapping_names_a_field_and_a_column() {
        assert_eq!(column_mapping("Nick=display name"), Ok((Field::Nick, "display name".to_owned())));
        assert_eq!(column_mapping("FaceUrl="), Ok((Field::FaceUrl, String::new())), "reads none");
        for wrong in ["Nick", "nick=x", "UserID=", "Gender=sex"] {
            assert!(column_mapping(wrong).is_err(), "{wrong}");
        }
    }
}
