//! The lines of a table at the end of a command: labels, counts in columns, and what there is to say of requests.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::summary::used;
use crate::domain::call_stats::{ApiCallStats, CallStats};
use crate::domain::command::Command;
use crate::domain::figures;
use crate::shell::terminal::printable;

/// Most codes that the table shows. Chosen: for more there is the results file.
const CODES_SHOWN: usize = 5;
/// Column in which the values of the table begin: the longest label and two spaces.
pub(super) const LABEL_WIDTH: usize = 12;
/// The headings of the two columns in the table of a resumed run.
pub(super) const THIS_RUN: &str = "this run";
pub(super) const IN_ALL: &str = "in all";

/// The requests to each API, one line each; the label is written before the first.
pub(super) fn apis(f: &mut fmt::Formatter<'_>, label: &str, traffic: &CallStats) -> fmt::Result {
    let asked = |(_, api): &(Command, &ApiCallStats)| api.calls > 0 || traffic.calls() == 0;
    for (number, (command, api)) in used(traffic).filter(asked).enumerate() {
        let busiest = figures::count(api.most_in_1s as u64);
        let found = api.ceiling_per_s.map(|per_s| format!(", about {} got through", figures::about_per_s(per_s)));
        let found = found.unwrap_or_default();
        let words = format!("{}: {}, {busiest} at most in any second{found}", command.name(), figures::counted(api.calls, "request"));
        line(f, if number == 0 { label } else { "" }, words)?;
    }
    Ok(())
}

pub(super) fn latency(f: &mut fmt::Formatter<'_>, traffic: &CallStats) -> fmt::Result {
    let latency = traffic.latency();
    line(f, "latency", format!("p50 {} ms, p99 {} ms", figures::count(latency.p50), figures::count(latency.p99)))
}

pub(super) fn codes(f: &mut fmt::Formatter<'_>, traffic: &CallStats) -> fmt::Result {
    match frequent_codes(&traffic.codes) {
        codes if codes.is_empty() => Ok(()),
        codes => line(f, "codes", codes),
    }
}

/// The most frequent codes other than success, with their counts.
fn frequent_codes(codes: &BTreeMap<i64, u64>) -> String {
    let mut codes: Vec<(i64, u64)> = codes.iter().map(|(code, count)| (*code, *count)).filter(|(code, _)| *code != 0).collect();
    codes.sort_by_key(|(code, count)| (std::cmp::Reverse(*count), *code));
    let words: Vec<String> = codes.iter().take(CODES_SHOWN).map(|(code, count)| format!("{code}: {}", figures::count(*count))).collect();
    words.join(", ")
}

/// A label, the count of this process, and the count of the whole run.
pub(super) type Row = (&'static str, u64, Option<u64>);

pub(super) fn column_width(table: &[Row]) -> usize {
    let counts = table.iter().flat_map(|(_, here, in_all)| [Some(*here), *in_all]).flatten();
    let heading = if table.iter().any(|(_, _, in_all)| in_all.is_some()) { THIS_RUN.len() } else { 0 };
    counts.map(|number| figures::count(number).len()).max().unwrap_or(0).max(heading)
}

pub(super) fn columns(f: &mut fmt::Formatter<'_>, table: &[Row], width: usize) -> fmt::Result {
    for (label, here, in_all) in table {
        let here = figures::count(*here);
        match in_all {
            Some(in_all) => line(f, label, format!("{here:>width$}  {:>width$}", figures::count(*in_all)))?,
            None => line(f, label, format!("{here:>width$}"))?,
        }
    }
    Ok(())
}

pub(super) fn line(f: &mut fmt::Formatter<'_>, label: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(f, "{label:<LABEL_WIDTH$}{value}")
}

pub(super) fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}
