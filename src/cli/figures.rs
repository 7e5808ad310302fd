//! Figures and foreign values as people read them.

use super::exit::printable;

/// Most characters of a foreign value that are shown. Chosen: twice the longest UserID.
const SHOWN_MAX: usize = 64;

/// A number in groups of three digits.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things: `1 row`, `2,000 rows`.
pub(super) fn counted(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", grouped(number))
}

/// A foreign value in quotes, fit for a terminal, cut where it gets long.
pub(super) fn quoted(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let shown: String = text.chars().take(SHOWN_MAX).collect();
    let rest = if shown.len() < text.len() { "…" } else { "" };
    format!("\"{}{rest}\"", printable(&shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let check = |number: u64, expected: &str| assert_eq!(grouped(number), expected);
        check(0, "0");
        check(999, "999");
        check(1_000, "1,000");
        check(100_000_000, "100,000,000");
        assert_eq!([counted(1, "row"), counted(2_000, "row")], ["1 row", "2,000 rows"]);
    }

    #[test]
    fn foreign_values_are_escaped_and_cut() {
        assert_eq!(quoted(b"a\x1b[31m\n\xff"), "\"a\\u{1b}[31m\\n\u{fffd}\"");
        assert_eq!(quoted("好".repeat(65).as_bytes()), format!("\"{}…\"", "好".repeat(64)));
    }
}
