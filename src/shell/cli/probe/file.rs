//! The file of `probe --json`: found out before the first request whether it may be written.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::io::files::resolved;
use crate::shell::cli::flags::ProbeFlags;
use crate::shell::cli::output_paths::{all_differ, can_be_replaced, is_own};
use crate::shell::exit::ExitMessage;

/// What every object has that a probe writes.
const KEYS: [&str; 4] = ["exit_code", "outcome", "checks", "settings"];
/// What helps against a file that is not the probe's.
const ANOTHER: &str = "name another file with --json";

/// # Errors
/// The [`ExitMessage`] for a file that can't be written, that the command names otherwise, or that no probe has written.
pub(super) fn judge(flags: &ProbeFlags) -> Result<(), ExitMessage> {
    let Some(path) = flags.json.as_deref().filter(|path| *path != Path::new("-")) else { return Ok(()) };
    can_be_replaced("json", Some(path))?;
    let path = resolved(path);
    for named in named(flags) {
        all_differ([path.as_path(), named.as_path()].into_iter(), ANOTHER)?;
    }
    is_own(&path, "a probe's JSON object", is_probe, ANOTHER)
}

/// The files that the command line, the environment and the configuration name to be read.
fn named(flags: &ProbeFlags) -> Vec<PathBuf> {
    let (typed, config) = (&flags.connection, &flags.connection.defaults);
    let paths = [
        &typed.config,
        &typed.secret_key_file,
        &config.secret_key_file,
        &typed.ca_file,
        &config.ca_file,
        &typed.proxy_password_file,
        &config.proxy_password_file,
        &config.quota_password_file,
    ];
    let variables = ["CHATLIFT_CONFIG", "CHATLIFT_CA_FILE"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    paths.into_iter().flatten().cloned().chain(variables).filter(|path| !path.as_os_str().is_empty()).collect()
}

fn is_probe(bytes: &[u8]) -> bool {
    matches!(serde_json::from_slice(bytes), Ok(Value::Object(object)) if KEYS.iter().all(|key| object.contains_key(*key)))
}
