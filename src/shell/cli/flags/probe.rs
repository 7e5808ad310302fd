//! The flags of `probe`.

use std::path::PathBuf;

use clap::Args;

use super::ConnectionFlags;
use super::input::profile_column;
use crate::domain::tag::Tag;

#[derive(Debug, Args)]
pub struct ProbeFlags {
    #[command(flatten)]
    pub connection: ConnectionFlags,
    /// Also find out what the documentation leaves open in this app, with an account of this UserID that nobody has yet. UserIDs in other
    /// case and with a space are built from it. The accounts stay unless --delete is given
    #[arg(long, value_name = "ID", help_heading = "Finding out more")]
    pub write: Option<String>,
    /// With --write: find out whether the app has this tag of the profile; a column behind it, as `import` takes one, is not read
    /// (repeatable)
    #[arg(long, value_name = "TAG", value_parser = probed_tag, requires = "write", help_heading = "Finding out more")]
    pub profile: Vec<Tag>,
    /// With --write: find out whether deleting is switched on, and delete the accounts that it has made. On paid plans a deleted UserID
    /// cannot be imported again for three months, so take a new one each time
    #[arg(long, requires = "write", help_heading = "Finding out more")]
    pub delete: bool,
    /// With --write: do not ask before the first account is made
    #[arg(long, requires = "write", help_heading = "Finding out more")]
    pub yes: bool,
    /// Print one JSON object instead of lines; with a FILE, print the lines and write the object into it
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-", help_heading = "Output")]
    pub json: Option<PathBuf>,
}

/// A tag, with or without the column that a run reads it from.
fn probed_tag(text: &str) -> Result<Tag, String> {
    let with_column = if text.contains('=') { text.to_owned() } else { format!("{text}=") };
    profile_column(&with_column).map(|(tag, _)| tag)
}
