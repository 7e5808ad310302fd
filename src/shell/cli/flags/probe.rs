//! The flags of `probe`.

use clap::Args;

use super::ConnectionFlags;

#[derive(Debug, Args)]
pub struct ProbeFlags {
    #[command(flatten)]
    pub connection: ConnectionFlags,
    /// Print one JSON object instead of lines
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}
