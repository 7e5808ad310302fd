//! The first look at an input: its first records, before the first call.

use std::collections::BTreeMap;

use super::command_line::CommandLine;
use super::flags::InputFlags;
use super::input;
use crate::io::roster::{Format, InputFile, Roster};
use crate::shell::exit::ExitMessage;

/// Records that are looked at. Source: the contract of `--max-invalid`.
const RECORDS: usize = 1_000;

/// Refuses a file that is cut wrongly near its start or of whose first 1,000 records more than `max_invalid` per cent are invalid.
/// Shorter files aren't judged by that share.
///
/// # Errors
/// The last word (exit code 2).
pub(super) fn judge(file: &InputFile, flags: &InputFlags, format: &Format, max_invalid: f64) -> Result<(), ExitMessage> {
    let name = &flags.file;
    let roster = Roster::of(file, format).map_err(|error| input::roster_error(name, &error))?;
    let (mut records, mut invalid) = (0, 0);
    let mut reasons = BTreeMap::<String, u64>::new();
    for record in roster.take(RECORDS) {
        let record = record.map_err(|error| input::roster_error(name, &error))?;
        records += 1;
        if let Err(why) = record.account {
            invalid += 1;
            *reasons.entry(why.to_string()).or_default() += 1;
        }
    }
    let share = 100.0 * f64::from(invalid) / RECORDS as f64;
    if records < RECORDS || share <= max_invalid {
        return Ok(());
    }
    let most = reasons.into_iter().max_by_key(|(_, count)| *count).map(|(reason, count)| format!("; {count} times: {reason}"));
    Err(ExitMessage::yours(
        format!(
            "{invalid} of the first {RECORDS} records of {} are invalid, more than {max_invalid} %{}",
            name.display(),
            most.unwrap_or_default()
        ),
        format!("{} names them; if they are to be left out, raise --max-invalid", CommandLine::new("check").file(name).reading(flags)),
    ))
}
