//! Flags as typed: clap's structures, and the help text. This module opens no file and checks nothing against anything else.

mod connection;
mod ending;
mod input;
mod nightly;
mod page;
mod probe;
mod quota;
mod sandbox;
mod status;
mod values;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Arg, Args, Parser, Subcommand, ValueEnum};

pub use connection::{ConnectionFlags, LogFormat, OutputFlags};
pub use ending::{CommandWords, EndFlags};
pub use input::{InputFlags, UserIdsFlag};
pub use nightly::{AllowFlag, MissingFlag, StateCommand, StateFlags, SyncFlags};
pub use page::PageFlags;
pub use probe::ProbeFlags;
pub use quota::{QuotaFlags, QuotaLostFlag, QuotaRateFlag};
pub use sandbox::{SandboxFlags, VariantFlag};
pub use status::StatusFlags;
use values::percent;
pub use values::{duration, seconds};

use crate::io::api::wire::{ACCOUNT_IMPORT_CALLS_PER_S, PROFILE_CALLS_PER_S};
use crate::io::journal::paths::{GivenPaths, RunPaths};

const AFTER_HELP: &str = "\
Examples:
  See which rows would be refused, and how long the import takes:
      chatlift check users.csv
  Rehearse with the sandbox, a built-in mock service; this needs no credentials:
      chatlift import users.csv --sandbox --results rehearsal.results.csv
  Import 100 rows first; the same command without --limit continues:
      chatlift import users.csv --sdkappid 1400000000 \\
          --secret-key-file key --region singapore --limit 100
  Prove that every row has exactly one result:
      chatlift audit users.csv --results users.results.csv
  Ask the service whether it has what the file says:
      chatlift verify users.csv --profiles --sdkappid 1400000000 \\
          --secret-key-file key --region singapore

Exit codes:
  0  everything that was asked for is done
  1  the run could not continue (disk, internal error); the same command resumes
  2  you have to fix something; the hint says what
  3  finished, but some rows are failed or invalid
  4  stopped before the end; the same command resumes
  5  the service refused the credentials, the permission or the region
  6  a safety check (guard) of sync tripped; nothing is sent";

const SYNC_HELP: &str = "\
What to know before the first night:
  A sync overwrites nicknames and avatars that users changed in the app, if the file has another value than was last sent.
  An emptied cell clears nothing: chatlift cannot tell the service.
  A kick may be repeated after a crash.
  Deleting an account blocks the re-import of its UserID for three months on paid plans.";

/// Imports an existing user base into Tencent Chat: reads a CSV file, imports every account as fast as the rate limit allows, and writes one
/// result per row.
#[derive(Debug, Parser)]
#[command(name = "chatlift", version, after_help = AFTER_HELP, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub command: CliCommand,
}

#[derive(Debug, Subcommand)]
pub enum CliCommand {
    /// Import the accounts of a CSV file; the same command again continues, or says that all is done
    Import(Box<ImportFlags>),
    /// Send only new and changed accounts, after safety checks; for nightly jobs
    #[command(after_help = SYNC_HELP)]
    Sync(Box<SyncFlags>),
    /// Show where the run on a file stands, from its checkpoint, running or not; sends nothing
    #[command(mut_args(of_an_earlier_run))]
    Status(StatusFlags),
    /// Show what a state file of sync holds; export it, drop accounts, or bind it to another app
    State(StateFlags),
    /// Read the whole file offline: which rows would be refused and why, duplicates, and a forecast
    Check(CheckFlags),
    /// Prove from input and results that every row has exactly one result, or list the rows that have not
    Audit(AuditFlags),
    /// Ask the service whether it has what the file says; missing and different rows go into a file that can be imported
    #[command(
        mut_arg("rate", |arg| arg.help(VERIFY_RATE_HELP)),
        mut_arg("max_attempts", |arg| arg.help("Attempts per request, and again for each half if a request is split [default: 5]")),
        mut_arg("max_outage", |arg| arg.help("How long to wait for a service that is down, before the run stops [default: 6h]")),
        mut_arg("sandbox", |arg| arg.help("Ask the sandbox, which has no accounts; this only rehearses the command")),
    )]
    Verify(Box<VerifyFlags>),
    /// Check that everything is right for a run: settings, name, connection, certificate, clock and permission; changes nothing without
    /// --write
    Probe(Box<ProbeFlags>),
    /// Serve the sandbox, a mock service of Tencent Chat, on loopback until it is stopped
    #[command(after_help = sandbox::commands())]
    Sandbox(SandboxFlags),
    /// Print a UserSig, for debugging with other tools
    #[command(mut_args(without_use_for_a_signature))]
    Usersig(Box<UsersigFlags>),
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
    /// Print the manual pages (roff)
    Man(ManFlags),
}

impl CliCommand {
    /// The connection flags of the command, if it has any.
    pub(super) fn connection_mut(&mut self) -> Option<&mut ConnectionFlags> {
        match self {
            CliCommand::Import(flags) => Some(&mut flags.run.connection),
            CliCommand::Sync(flags) => Some(&mut flags.run.connection),
            CliCommand::Verify(flags) => Some(&mut flags.connection),
            CliCommand::Probe(flags) => Some(&mut flags.connection),
            CliCommand::Usersig(flags) => Some(&mut flags.connection),
            CliCommand::State(StateFlags { what: Some(StateCommand::Retarget { connection }), .. }) => Some(connection),
            CliCommand::State(_)
            | CliCommand::Status(_)
            | CliCommand::Check(_)
            | CliCommand::Audit(_)
            | CliCommand::Sandbox(_)
            | CliCommand::Completions { .. }
            | CliCommand::Man(_) => None,
        }
    }
}

#[derive(Debug, Args)]
pub struct ImportFlags {
    #[command(flatten)]
    pub run: RunFlags,
    /// Fill this state file for `sync`; after a finished import from its results, without a request
    #[arg(long, value_name = "STATE", help_heading = "Files")]
    pub state: Option<PathBuf>,
    /// Accept a file without rows: the run finishes with no rows
    #[arg(long, value_name = "empty", help_heading = "Run")]
    pub allow: Option<ImportAllowFlag>,
    /// Send only the profile columns (`portrait_set`), for users who were imported before: their nicknames and avatars stay as they are.
    /// Users whom the service does not know are imported first
    #[arg(long, help_heading = "Run")]
    pub profile_only: bool,
}

/// What an import lets pass if it is told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ImportAllowFlag {
    #[value(hide = true)]
    Empty,
}

/// The names of a run's files.
#[derive(Debug, Clone, Args)]
pub struct RunFileFlags {
    /// Where to write the result of each row [default: FILE without .csv, plus .results.csv]
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub results: Option<PathBuf>,
    /// Where to write the failed and invalid rows, ready to be fixed and imported [default: … .rejects.csv]
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub rejects: Option<PathBuf>,
    /// Where to save how far the run is, for resuming [default: … .checkpoint.json]
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub checkpoint: Option<PathBuf>,
}

impl RunFileFlags {
    /// The paths of a run with this input.
    #[must_use]
    pub fn paths(&self, input: &Path) -> RunPaths {
        let Self { results, rejects, checkpoint } = self.clone();
        RunPaths::new(input, GivenPaths { results, rejects, checkpoint })
    }
}

/// What `import` and `sync` share.
#[derive(Debug, Args)]
pub struct RunFlags {
    #[command(flatten)]
    pub input: InputFlags,
    #[command(flatten)]
    pub connection: ConnectionFlags,

    #[command(flatten)]
    pub files: RunFileFlags,
    /// Write the figures of the run as JSON
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub summary: Option<PathBuf>,

    /// Begin again; the old files are renamed and kept as a backup
    #[arg(long, help_heading = "Run")]
    pub restart: bool,
    /// Send nothing and write nothing; import only checks the file, sync only plans
    #[arg(long, help_heading = "Run")]
    pub dry_run: bool,
    /// Process at most N more rows, then stop; the same command without it continues
    #[arg(long, value_name = "N", help_heading = "Run")]
    pub limit: Option<u64>,
    /// Send up to 100 accounts per request (`multiaccount_import`, 100 requests a second). The first batch is read back. If the service
    /// drops its profiles, the run continues with one account per request, or stops with `strict`
    #[arg(long, value_name = "strict", num_args = 0..=1, help_heading = "Run", require_equals = true, default_missing_value = "trust")]
    pub batch: Option<BatchFlag>,
    /// With --batch: requests a second of `account_import`, for rows that a batch refuses; 0 = no limit, as with --rate [default: 200]
    #[arg(long, value_name = "N", requires = "batch", help_heading = "Run")]
    pub single_rate: Option<u32>,
    /// Requests a second of `portrait_set`, which sets profile columns, one user per request. You can buy more than the documented 200;
    /// 0 = no limit, as with --rate [default: 200]
    #[arg(long, value_name = "N", help_heading = "Run")]
    pub profile_rate: Option<u32>,
    /// Refuse the file if more than this share of its first 1,000 rows is invalid; shorter files are not judged
    #[arg(long, value_name = "PERCENT", default_value = "1", value_parser = percent, help_heading = "Run")]
    pub max_invalid: f64,
    /// Refuse the file if it has odd values; `import` then reads all of it before the first request
    #[arg(long, help_heading = "Run")]
    pub strict: bool,

    #[command(flatten)]
    pub page: PageFlags,
    #[command(flatten)]
    pub ending: EndFlags,
    #[command(flatten)]
    pub output: OutputFlags,
}

const VERIFY_RATE_HELP: &str = "\
Requests a second of each API at most; it only lowers their documented limits (account_check 100, portrait_get 200); 0 = no limit, for a \
loopback endpoint only [env: CHATLIFT_RATE] [default: the limits]";

#[derive(Debug, Args)]
pub struct VerifyFlags {
    #[command(flatten)]
    pub input: InputFlags,
    #[command(flatten)]
    pub connection: ConnectionFlags,

    /// Where to write what was found for each UserID [default: FILE without .csv, plus .verify.csv]
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub results: Option<PathBuf>,
    /// Where to write the rows of missing and different accounts, ready to be imported; not written if there are none [default: … .repair.csv]
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub repair: Option<PathBuf>,
    /// Write the figures of the run as JSON
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub summary: Option<PathBuf>,
    /// Correct this state file of `sync`: missing accounts are dropped from it, different ones are marked as in doubt
    #[arg(long, value_name = "STATE", help_heading = "Files")]
    pub state: Option<PathBuf>,

    /// Compare Nick and FaceUrl too; an empty cell is not compared
    #[arg(long, help_heading = "Run")]
    pub profiles: bool,
    /// Ask about N valid UserIDs only, drawn at random
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Run")]
    pub sample: Option<u64>,
    /// Draw the same sample as the run that printed this seed
    #[arg(long, value_name = "SEED", requires = "sample", help_heading = "Run")]
    pub seed: Option<u64>,

    #[command(flatten)]
    pub page: PageFlags,
    #[command(flatten)]
    pub ending: EndFlags,
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

#[derive(Debug, Args)]
pub struct CheckFlags {
    #[command(flatten)]
    pub input: InputFlags,
    /// Requests a second, for the forecast; 0, which is no limit for a run, forecasts with the documented one
    #[arg(long, value_name = "N", default_value_t = ACCOUNT_IMPORT_CALLS_PER_S.get(), help_heading = "Run")]
    pub rate: u32,
    /// Requests of `portrait_set` a second, for the forecast: it sets the profile columns; 0 as with --rate
    #[arg(long, value_name = "N", default_value_t = PROFILE_CALLS_PER_S.get(), help_heading = "Run")]
    pub profile_rate: u32,
    /// The configuration file (TOML), the same as for `import` [env: CHATLIFT_CONFIG]
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub config: Option<PathBuf>,
    /// End with exit code 2 if there are odd values, as `import --strict` would
    #[arg(long, help_heading = "Run")]
    pub strict: bool,
    /// Say with the forecast that an import shares its limit through this server; it is not asked [env: CHATLIFT_QUOTA]
    #[arg(long, value_name = "redis://HOST:PORT/DB", help_heading = "Run")]
    pub quota: Option<String>,
    /// Requests a second of an API for all processes together, for the forecast; repeatable [default: the documented limits]
    #[arg(long, value_name = "API=N", help_heading = "Run")]
    pub quota_rate: Vec<QuotaRateFlag>,
}

#[derive(Debug, Args)]
pub struct AuditFlags {
    #[command(flatten)]
    pub input: InputFlags,
    /// The results of the import
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub results: PathBuf,
    /// The configuration file (TOML), the same as for `import` [env: CHATLIFT_CONFIG]
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct UsersigFlags {
    #[command(subcommand)]
    pub what: Option<UsersigCommand>,
    #[command(flatten)]
    pub connection: ConnectionFlags,
    /// How long the UserSig is valid
    #[arg(long, help_heading = "Signature", value_name = "DURATION", default_value = "24h", value_parser = duration)]
    pub expire: Duration,
}

#[derive(Debug, Args)]
pub struct ManFlags {
    /// The command whose page is printed [default: all pages]
    pub command: Option<String>,
    /// Write each page into a file of its own in this folder: chatlift.1, chatlift-import.1, …
    #[arg(long, value_name = "FOLDER", conflicts_with = "command")]
    pub dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub enum UsersigCommand {
    /// Show what a UserSig says, without a check of its signature; it is read from `CHATLIFT_USERSIG`, or else from standard input
    Decode,
}

/// The help of [`RunFileFlags`] for a command that only reads these files.
fn of_an_earlier_run(arg: Arg) -> Arg {
    let what = match arg.get_id().as_str() {
        "results" => "results file",
        "rejects" => "rejects file",
        "checkpoint" => "checkpoint",
        _ => return arg,
    };
    arg.help(format!("The {what} of the run, if it has another name"))
}

/// Hides the flags of [`ConnectionFlags`] that say nothing of a signature. They are taken all the same: a script may give every command the
/// same connection.
fn without_use_for_a_signature(arg: Arg) -> Arg {
    const USED: [&str; 6] = ["sdkappid", "identifier", "secret_key_file", "config", "expire", "help"];
    let is_used = USED.contains(&arg.get_id().as_str());
    arg.hide(!is_used)
}

#[cfg(test)]
mod tests {
    use super::input::column_mapping;
    use super::*;
    use crate::domain::account::Field;
    use crate::shell::screen::progress::Wanted;

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
