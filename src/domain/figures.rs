//! Numbers for people: counts grouped by thousands, rates with one decimal, durations in two units.
//!
//! They are for terminals and reports only; files for machines contain plain numbers.

use std::borrow::Cow;
use std::time::Duration;

use indicatif::HumanCount;

/// Below this, a duration is shown with tenths of a second. Chosen: in longer ones they do not matter.
const TENTHS_BELOW: Duration = Duration::from_secs(10);

/// A count grouped by thousands: `12,345`.
#[must_use]
pub fn count(number: u64) -> String {
    HumanCount(number).to_string()
}

/// A count with its noun, in the plural unless the count is 1: `1 call`, `12,345 calls`.
#[must_use]
pub fn counted(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{} {noun}s", count(number)),
    }
}

/// An amount of bytes in the largest unit of which it has one: `1.5 GiB`.
#[must_use]
pub fn bytes(number: u64) -> String {
    let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(size, _)| number >= *size) {
        Some((size, unit)) => format!("{:.1} {unit}", number as f64 / size as f64),
        None => counted(number, "byte"),
    }
}

/// A share in whole per cent, rounded down, so that 100 means everything.
#[must_use]
pub fn percent(part: u64, whole: u64) -> String {
    format!("{} %", u128::from(part) * 100 / u128::from(whole.max(1)))
}

/// A rate per second with one decimal, grouped by thousands: `1,234.5`.
#[must_use]
pub fn rate(per_s: f64) -> String {
    let plain = format!("{per_s:.1}");
    let grouped = plain.split_once('.').and_then(|(whole, tenths)| Some(format!("{}.{tenths}", count(whole.parse().ok()?))));
    grouped.unwrap_or(plain)
}

/// A duration in its two largest units: `4d 2h`, `2h 3m`, `12m 5s`, `45s`, `3.2s`.
#[must_use]
pub fn duration(time: Duration) -> String {
    if time < TENTHS_BELOW {
        return format!("{}.{}s", time.as_secs(), time.subsec_millis() / 100).replace(".0s", "s");
    }
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    if days > 0 {
        format!("{}d {}h", count(days), hours % 24)
    } else if hours > 0 {
        format!("{hours}h {}m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes}m {}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

/// Foreign text for a CSV cell: an apostrophe is put before a text that a spreadsheet would run as a formula.
#[must_use]
pub fn defused(text: &str) -> Cow<'_, str> {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) { Cow::Owned(format!("'{text}")) } else { Cow::Borrowed(text) }
}

/// Requests per second: whole numbers, with tenths below 10.
#[must_use]
pub fn about_per_s(per_s: f64) -> String {
    if per_s < 9.95 { format!("{per_s:.1}/s") } else { format!("{per_s:.0}/s") }
}

/// How many of the requests get through, for messages.
#[must_use]
pub fn gets_through(per_s: f64) -> String {
    format!("about {} gets through; others use the rest, or the service counts otherwise", about_per_s(per_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_rates_are_grouped_by_thousands() {
        assert_eq!(count(0), "0");
        assert_eq!(count(12_345_678), "12,345,678");
        assert_eq!(counted(1, "call"), "1 call");
        assert_eq!(counted(1_000, "call"), "1,000 calls");
        assert_eq!(rate(199.64), "199.6");
        assert_eq!(rate(12_345.0), "12,345.0");
        assert_eq!(rate(0.0), "0.0");
    }

    #[test]
    fn bytes_are_told_in_their_largest_unit() {
        let check = |number: u64, expected: &str| assert_eq!(bytes(number), expected);
        check(0, "0 bytes");
        check(1, "1 byte");
        check(1023, "1,023 bytes");
        check(1536, "1.5 KiB");
        check(5 << 30, "5.0 GiB");
    }

    #[test]
    fn a_duration_has_at_most_two_units() {
        let rows = [
            (0, "0s"),
            (400, "0.4s"),
            (3_000, "3s"),
            (9_999, "9.9s"),
            (10_999, "10s"),
            (45_000, "45s"),
            (60_000, "1m 0s"),
            (725_000, "12m 5s"),
            (7_380_000, "2h 3m"),
            (352_800_000, "4d 2h"),
        ];
        for (millis, words) in rows {
            assert_eq!(duration(Duration::from_millis(millis)), words);
        }
    }
}
