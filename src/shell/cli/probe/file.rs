//! The file of `probe --json`: found out before the first request whether it may be written.

use std::path::Path;

use serde_json::Value;

use crate::io::files::resolved;
use crate::shell::cli::flags::ProbeFlags;
use crate::shell::cli::output_paths::ensure_own;
use crate::shell::cli::outputs::{NamedOutputs, OutputKind, read_for};
use crate::shell::exit::ExitMessage;

/// What every object has that a probe writes.
const KEYS: [&str; 4] = ["exit_code", "outcome", "checks", "settings"];

/// # Errors
/// The [`ExitMessage`] for a file that can't be written, that the command names otherwise, or that no probe has written.
pub(super) fn judge(flags: &ProbeFlags) -> Result<(), ExitMessage> {
    let Some(path) = flags.json.as_deref().filter(|path| *path != Path::new("-")) else { return Ok(()) };
    NamedOutputs::beside(read_for(&flags.connection)).and(OutputKind::PROBE, Some(path)).judged().all_usable()?;
    ensure_own(&resolved(path), "a probe's JSON object", is_probe, "name another file with --json")
}

fn is_probe(bytes: &[u8]) -> bool {
    matches!(serde_json::from_slice(bytes), Ok(Value::Object(object)) if KEYS.iter().all(|key| object.contains_key(*key)))
}
