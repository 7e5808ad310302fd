//! The flags of `status`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub struct StatusFlags {
    /// The input of the run
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The results file of the run, if it has another name
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub results: Option<PathBuf>,
    /// The rejects file of the run, if it has another name
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub rejects: Option<PathBuf>,
    /// The checkpoint of the run, if it has another name
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub checkpoint: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// The configuration file (TOML), the same as for `import` [env: CHATLIFT_CONFIG]
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub config: Option<PathBuf>,
}
