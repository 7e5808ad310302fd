//! Times and shares as they are typed.

use std::time::Duration;

pub(super) fn percent(text: &str) -> Result<f64, String> {
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
