//! The flags of `status`.

use std::path::PathBuf;

use clap::Args;

use super::RunFileFlags;

#[derive(Debug, Args)]
pub struct StatusFlags {
    /// The input of the run
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    #[command(flatten)]
    pub files: RunFileFlags,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// The configuration file (TOML), the same as for `import` [env: CHATLIFT_CONFIG]
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub config: Option<PathBuf>,
}
