//! The flags of `status`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub struct StatusFlags {
    /// The input of the run
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The results, if the run was given other names
    #[arg(long, value_name = "FILE")]
    pub results: Option<PathBuf>,
    /// The rejects, if the run was given another name for them
    #[arg(long, value_name = "FILE")]
    pub rejects: Option<PathBuf>,
    /// The checkpoint, if the run was given another name for it
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// TOML with the names of flags as keys, the same as for `import` [env: CHATLIFT_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}
