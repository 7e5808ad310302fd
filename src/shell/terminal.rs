//! Terminal output: makes foreign text safe for one line, and writes lines to standard error.

use std::fmt::Display;
use std::io::Write;

/// Makes foreign text safe for a terminal: control characters are escaped, so that they cannot move the cursor or forge a line.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|char| {
            let escaped: Box<dyn Iterator<Item = char>> = if char.is_control() || changes_direction(char) {
                Box::new(char.escape_default())
            } else {
                Box::new(std::iter::once(char))
            };
            escaped
        })
        .collect()
}

/// Marks of direction, which would turn the rest of the line around, and the line ends of Unicode.
const fn changes_direction(char: char) -> bool {
    matches!(char, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Most characters of a foreign value that are shown. Chosen: twice the longest UserID.
const SHOWN_MAX: usize = 64;

/// A foreign value in quotes, escaped for a terminal and cut if it is long.
#[must_use]
pub fn quoted(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let shown: String = text.chars().take(SHOWN_MAX).collect();
    let rest = if shown.len() < text.len() { "…" } else { "" };
    format!("\"{}{rest}\"", printable(&shown))
}

/// An error and its causes on one line.
#[must_use]
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        words = format!("{words}: {inner}");
        cause = inner.source();
    }
    words
}

/// Writes a line to standard error. If that fails, there is nobody to report it to, and the exit code stays the same.
pub fn print_stderr(text: &dyn Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_values_are_escaped_and_cut() {
        assert_eq!(quoted(b"a\x1b[31m\n\xff"), "\"a\\u{1b}[31m\\n\u{fffd}\"");
        assert_eq!(quoted("好".repeat(65).as_bytes()), format!("\"{}…\"", "好".repeat(64)));
    }
}
