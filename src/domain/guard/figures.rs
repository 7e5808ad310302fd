//! The numbers of a file, a plan and earlier runs that the guards compare.

use crate::domain::profile::PerField;
use crate::domain::tag::Tag;

/// How far back the largest number of known accounts is searched: in milliseconds, and in runs if those reach further back. Source: the
/// contract of the guards.
pub const LATELY_MS: i64 = 7 * 24 * 3_600 * 1_000;
const LATELY_RUNS: usize = 7;

/// The number of valid records, and of those with each cell filled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filled {
    pub valid: u64,
    pub with: PerField<u64>,
    /// The tags that are read, in the order of their columns, and the records that have each.
    pub tags: Vec<(Tag, u64)>,
}

/// Updates for columns that the last finished run did not read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewColumns {
    /// Updates for which there is no other reason.
    pub updates: u64,
    /// The tags that the last run did not read, and how many updates send each.
    pub tags: Vec<(Tag, u64)>,
}

impl Filled {
    /// For a file of which these tags are read, in the order of their columns.
    #[must_use]
    pub fn of(tags: impl IntoIterator<Item = Tag>) -> Self {
        Self { tags: tags.into_iter().map(|tag| (tag, 0)).collect(), ..Self::default() }
    }

    /// Counts a valid record.
    pub fn count(&mut self, said: PerField<Option<&str>>) {
        self.valid += 1;
        for (field, text) in said.iter() {
            self.with[field] += u64::from(text.is_some());
        }
    }
}

/// The numbers that the guards check.
#[derive(Debug, Clone, Default)]
pub struct GuardInput {
    pub filled: Filled,
    /// The cells of the last finished run, if there was one.
    pub before: Option<Filled>,
    /// Distinct UserIDs with a valid record.
    pub distinct: u64,
    /// Known accounts that were not missing in the last finished run.
    pub held: u64,
    /// Those known accounts that have a valid record.
    pub present: u64,
    /// The largest number of known accounts at the end of a recent finished run.
    pub most_held: u64,
    pub updates: u64,
    /// Those of them that are due to new columns.
    pub new_columns: NewColumns,
    /// Whether the file ends with a line break.
    pub ends_with_newline: bool,
    /// Whether the file of the last finished run did; `None` if that is not known.
    pub ended_with_newline: Option<bool>,
    /// Accounts that are due for a kick or deletion; 0 if those wait for a later run.
    pub due: u64,
    /// Canaries without a valid record.
    pub dead_canaries: Vec<String>,
    /// The target of the state, in words, if it is not the target of this run.
    pub other_target: Option<String>,
}

/// A finished run, as far as later ones are compared with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PastRun {
    /// The end of the run in milliseconds since the epoch.
    pub finished_at: i64,
    /// Accounts that were not missing at its end, if that is known.
    pub held: Option<u64>,
    /// Whether the run was allowed although it had lost so many accounts.
    pub is_shrunk: bool,
}

/// The largest number of known accounts at the end of recent runs. `runs` starts with the latest; those of [`LATELY_MS`] count, and always
/// the last few. Runs before one that was allowed to shrink do not count.
#[must_use]
pub fn most_held(runs: impl IntoIterator<Item = PastRun>, now: i64) -> Option<u64> {
    let mut most = None;
    for (before, run) in runs.into_iter().enumerate() {
        if before < LATELY_RUNS || run.finished_at >= now.saturating_sub(LATELY_MS) {
            most = most.max(run.held);
        }
        if run.is_shrunk {
            break;
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_number_of_accounts_is_taken_from_the_last_runs_and_days() {
        const DAY: i64 = 24 * 3_600 * 1_000;
        let now = 100 * DAY;
        // Days ago, accounts, and whether the run was allowed to shrink; the latest run first.
        let check = |runs: &[(i64, u64, bool)], expected: Option<u64>| {
            let run = |&(days, held, is_shrunk): &(i64, u64, bool)| PastRun { finished_at: now - days * DAY, held: Some(held), is_shrunk };
            assert_eq!(most_held(runs.iter().map(run), now), expected, "{runs:?}");
        };
        check(&[], None);
        check(&[(1, 90, false), (2, 100, false), (3, 95, false)], Some(100));
        let weekly = |runs: i64| (1..=runs).map(|week| (7 * week, 100 + week.unsigned_abs(), false)).collect::<Vec<_>>();
        check(&weekly(7), Some(107));
        check(&weekly(9), Some(107));
        let hourly: Vec<_> = std::iter::repeat_n((0, 50, false), 24).chain([(6, 60, false), (7, 61, false), (8, 99, false)]).collect();
        check(&hourly, Some(61));
        check(&[(1, 90, false), (2, 40, true), (3, 100, false)], Some(90));
        check(&[(1, 40, true), (2, 100, false)], Some(40));
        let unknown = PastRun { finished_at: now, held: None, is_shrunk: false };
        assert_eq!(most_held([unknown, PastRun { held: Some(5), ..unknown }], now), Some(5));
        assert_eq!(most_held([unknown], now), None);
    }
}
