//! What a process has said and left.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// A line of the results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) number: u64,
    pub(crate) line: u64,
    pub(crate) user_id: String,
    pub(crate) status: String,
    pub(crate) error_code: String,
    pub(crate) error_info: String,
    pub(crate) attempts: u32,
    pub(crate) finished_at: String,
}

pub(super) fn rows(path: &Path) -> Vec<Row> {
    let Ok(mut results) = csv::Reader::from_path(path) else { return Vec::new() };
    // A killed process may have left an incomplete line, which the checkpoint does not count.
    let whole = results.records().map_while(Result::ok);
    whole
        .map(|record| Row {
            number: record[0].parse().unwrap(),
            line: record[1].parse().unwrap(),
            user_id: record[2].to_owned(),
            status: record[3].to_owned(),
            error_code: record[4].to_owned(),
            error_info: record[5].to_owned(),
            attempts: record[6].parse().unwrap(),
            finished_at: record[7].to_owned(),
        })
        .collect()
}

pub(super) fn json(path: &Path) -> serde_json::Value {
    fs::read(path).map(|bytes| serde_json::from_slice(&bytes).expect("it is JSON")).unwrap_or_default()
}

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) rows: Vec<Row>,
    pub(crate) rejects: Option<String>,
    pub(crate) checkpoint: serde_json::Value,
    pub(crate) summary: serde_json::Value,
    pub(crate) took: Duration,
}

impl Run {
    /// The run must end with this code, one line with the reason and one with a hint.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        let whys = ["done: ", "finished: ", "stopped: ", "error: "];
        assert_eq!(self.stderr.lines().filter(|line| whys.iter().any(|why| line.starts_with(why))).count(), 1, "{}", self.stderr);
        assert_eq!(self.stderr.lines().filter(|line| line.starts_with("hint: ")).count(), 1, "{}", self.stderr);
        self
    }

    /// The line with the reason must contain these words.
    #[track_caller]
    pub(crate) fn because(self, words: &str) -> Self {
        assert!(self.why().contains(words), "{words:?} is not in {:?}", self.why());
        self
    }

    #[track_caller]
    pub(crate) fn hints(self, words: &str) -> Self {
        let hint = self.stderr.lines().find(|line| line.starts_with("hint: ")).unwrap_or_default();
        assert!(hint.contains(words), "{words:?} is not in {hint:?}");
        self
    }

    pub(crate) fn why(&self) -> &str {
        let lines: Vec<&str> = self.stderr.lines().collect();
        let hint = lines.iter().position(|line| line.starts_with("hint: ")).unwrap_or(lines.len());
        lines.get(hint.wrapping_sub(1)).copied().unwrap_or_default()
    }

    /// Each of this many rows must have a line, in order, and be imported.
    #[track_caller]
    pub(crate) fn imports_all(self, count: u64) -> Self {
        let run = self.settles(count);
        let others: Vec<_> = run.rows.iter().filter(|row| row.status != "imported").collect();
        assert!(others.is_empty(), "{others:?}");
        run
    }

    /// Each of this many rows must have a line, in order.
    #[track_caller]
    pub(crate) fn settles(self, count: u64) -> Self {
        assert!(
            self.rows.iter().map(|row| row.number).eq(1..=count),
            "{:?}\n{}",
            self.rows.iter().map(|row| row.number).collect::<Vec<_>>(),
            self.stderr
        );
        self
    }

    pub(crate) fn statuses(&self) -> Vec<&str> {
        self.rows.iter().map(|row| row.status.as_str()).collect()
    }

    pub(crate) fn attempts(&self) -> Vec<u32> {
        self.rows.iter().map(|row| row.attempts).collect()
    }
}
