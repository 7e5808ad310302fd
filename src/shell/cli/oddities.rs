//! Oddities in words: what is odd, how often, where first, and what helps.

use std::fmt;

use super::command_line::flag_words;
use super::input::{map_flag, profile_flag};
use crate::domain::account::Field;
use crate::domain::figures::{count, counted};
use crate::domain::oddity::{Oddity, OddityCounts, OddityKind};
use crate::domain::tag::Tag;
use crate::shell::terminal::quoted;

/// What is odd, how often and among how many records.
fn heading(oddity: &Oddity, rows: u64) -> String {
    let what = match oddity.kind {
        OddityKind::UnusualId => "UserID with other characters than A-Z a-z 0-9 _ -".to_owned(),
        OddityKind::SpreadsheetId => "UserID as a spreadsheet writes numbers".to_owned(),
        OddityKind::CaseTwin => "UserID that differs from an earlier one only in case".to_owned(),
        OddityKind::LookalikeCreate => "new UserID that looks like a missing account's".to_owned(),
        OddityKind::ControlCharacters(field) => format!("{field} with line breaks or other control characters"),
        OddityKind::DirectionOverride(field) => format!("{field} with characters that change the direction of text"),
        OddityKind::Invisible(field) => format!("{field} that nobody can see"),
        OddityKind::Undecoded(field) => format!("{field} with U+FFFD, which stands for characters that were lost"),
        OddityKind::NoUrl => "FaceUrl that is no http or https URL".to_owned(),
        OddityKind::LongLocation => "Location of more than 16 bytes".to_owned(),
        OddityKind::FieldCount => "cells that may stand in the wrong columns".to_owned(),
        OddityKind::Frequent(field) => {
            let value = oddity.value.as_deref().map_or_else(String::new, |value| format!(" {}", quoted(value.as_bytes())));
            return format!("one {field}{value} in {} of {}", count(oddity.count), counted(rows, "row"));
        }
    };
    format!("{what}: {}", counted(oddity.count, "row"))
}

/// What helps, if it is not meant.
fn remedy(oddity: &Oddity) -> String {
    let none_of = |field: Field| format!("{} reads none", map_flag(field, ""));
    match oddity.kind {
        OddityKind::UnusualId => "they are sent as they are; not every page of the service's documentation allows them".to_owned(),
        OddityKind::SpreadsheetId => "export the column as text, and not through a spreadsheet".to_owned(),
        OddityKind::CaseTwin => "for the service these are different accounts".to_owned(),
        OddityKind::LookalikeCreate => "see whether the export writes its UserIDs in another way than before".to_owned(),
        OddityKind::ControlCharacters(_) => "--trim takes line breaks off the ends; correct others in the export".to_owned(),
        OddityKind::DirectionOverride(field) | OddityKind::Invisible(field) => match field {
            Field::UserId => "correct them in the export".to_owned(),
            Field::Nick | Field::FaceUrl => format!("correct them in the export; {}", none_of(field)),
        },
        OddityKind::Undecoded(_) => "they were lost before: export the file again, in UTF-8".to_owned(),
        OddityKind::NoUrl => format!("see whether it is the right column; {}", none_of(Field::FaceUrl)),
        OddityKind::LongLocation => {
            format!(
                "they are sent as they are; not every page of the service's documentation allows them; {} reads none",
                profile_flag(&Tag::Location, "")
            )
        }
        OddityKind::FieldCount => {
            "these rows were rejected for their number of fields; correct them, and empty their error_info".to_owned()
        }
        OddityKind::Frequent(field) => {
            let null = oddity.value.as_deref().map(|value| format!("{} reads it as empty; ", flag_words("null", value)));
            format!("{}{}", null.unwrap_or_default(), none_of(field))
        }
    }
}

/// One line for each kind, as a run tells it.
fn lines(oddities: &OddityCounts) -> impl Iterator<Item = String> {
    let rows = oddities.rows();
    oddities.found().into_iter().map(move |oddity| {
        let places: Vec<String> = oddity.first.iter().map(|at| format!("row {} (line {})", at.place.row, at.place.line)).collect();
        let more = if oddity.count > places.len() as u64 { ", …" } else { "" };
        format!("odd: {}: {}{more}; {}", heading(&oddity, rows), places.join(", "), remedy(&oddity))
    })
}

/// Warns of them; `which` says in how much of the file.
pub(super) fn warn(oddities: &OddityCounts, which: &str) {
    lines(oddities).for_each(|line| tracing::warn!("{which}{line}"));
}

/// The kinds in one line, for whoever takes none of them.
pub(super) fn kinds(oddities: &OddityCounts) -> Option<String> {
    let rows = oddities.rows();
    let found: Vec<String> = oddities.found().iter().map(|oddity| heading(oddity, rows)).collect();
    (!found.is_empty()).then(|| found.join("; "))
}

/// Writes them into a report, each with its places.
pub(super) fn write(f: &mut fmt::Formatter<'_>, oddities: &OddityCounts) -> fmt::Result {
    for oddity in oddities.found() {
        writeln!(f, "\nodd: {}", heading(&oddity, oddities.rows()))?;
        writeln!(f, "  {}", remedy(&oddity))?;
        for example in &oddity.first {
            let text = example.text.as_deref().map_or_else(String::new, |text| format!(": {}", quoted(text.as_bytes())));
            writeln!(f, "  row {}, line {}{text}", example.place.row, example.place.line)?;
        }
        super::check::write_rest(f, oddity.count, oddity.first.len())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_that_reads_a_word_as_empty_runs_as_it_stands() {
        let check = |word: &str, expected: &str| {
            let oddity = Oddity { kind: OddityKind::Frequent(Field::Nick), count: 50, first: Vec::new(), value: Some(word.into()) };
            assert_eq!(remedy(&oddity), format!("{expected} reads it as empty; --map Nick= reads none"));
        };
        check("N/A", "--null N/A");
        check("--", "--null=--");
        check("-n/a", "--null=-n/a");
        check("- -", "'--null=- -'");
    }
}
