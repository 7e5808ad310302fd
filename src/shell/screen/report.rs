//! The table at the end of an import or a sync.

use std::fmt;
use std::path::Path;

use super::summary::{Summary, used};
use super::table::{IN_ALL, LABEL_WIDTH, THIS_RUN, apis, codes, column_width, columns, latency, line, shown};
use crate::domain::command::Command;
use crate::domain::figures;
use crate::domain::outcome::OutcomeCounts;
use crate::flow::import::Lane;

/// The table at the end of a run.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    pub summary: &'a Summary,
    /// Outcomes of this process.
    pub this_run: OutcomeCounts,
    pub results: &'a Path,
    /// `None` if the run has no rejects file.
    pub rejects: Option<&'a Path>,
    pub checkpoint: &'a Path,
}

impl fmt::Display for Report<'_> {
    /// Writes the lines of the table without a final newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.counts(f)?;
        self.calls(f)?;
        line(f, "elapsed", figures::duration(self.summary.elapsed))?;
        line(f, "results", shown(self.results))?;
        if let Some(rejects) = self.rejects {
            line(f, "rejects", shown(rejects))?;
        }
        write!(f, "{:<LABEL_WIDTH$}{}", "checkpoint", shown(self.checkpoint))
    }
}

impl Report<'_> {
    fn counts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (here, all, traffic) = (self.this_run, self.summary.counts, &self.summary.traffic);
        let in_all = |rows: u64| (self.summary.resumed_at_row > 0).then_some(rows);
        let table = [
            ("rows", here.rows(), in_all(all.rows())),
            ("imported", here.imported, in_all(all.imported)),
            ("failed", here.failed, in_all(all.failed)),
            ("invalid", here.invalid, in_all(all.invalid)),
            ("requests", traffic.calls(), None),
            ("retries", traffic.retries(), None),
            ("throttled", traffic.throttled(), None),
        ];
        let width = column_width(&table);
        if self.summary.resumed_at_row > 0 {
            writeln!(f, "{:<LABEL_WIDTH$}{THIS_RUN:>width$}  {IN_ALL:>width$}", "")?;
        }
        columns(f, &table, width)
    }

    fn calls(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let traffic = &self.summary.traffic;
        if traffic.calls() > 0 {
            // Where nothing was to be sent to the main API, the pace is that of the one that was asked.
            let asked = used(traffic).find(|(_, api)| api.calls > 0);
            let (command, api) =
                asked.filter(|_| traffic.apis[traffic.main].calls == 0).unwrap_or((traffic.main, &traffic.apis[traffic.main]));
            let busiest = figures::count(api.most_in_1s as u64);
            let mean = traffic.shown_mean_per_s().filter(|_| command == traffic.main);
            let mean = mean.map(|per_s| format!("{} on average, ", figures::rate(per_s)));
            line(f, "requests/s", format!("{}{busiest} at most in any second", mean.unwrap_or_default()))?;
            if let Some(per_s) = api.ceiling_per_s {
                line(f, "limit", figures::gets_through(per_s))?;
            }
            latency(f, traffic)?;
        }
        self.lane(f)?;
        codes(f, traffic)
    }
}

impl Report<'_> {
    /// The mode, unless it is the ordinary one, and the requests to each API, if there is more than one.
    fn lane(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.summary.lane {
            Lane::Single if self.summary.traffic.apis[Command::PortraitSet].calls > 0 => return apis(f, "requests", &self.summary.traffic),
            Lane::Single => return Ok(()),
            Lane::Batch(_) => "batch",
            Lane::FellBack => "one account per request, because batches did not work",
        };
        line(f, "lane", name)?;
        apis(f, "", &self.summary.traffic)
    }
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::summary;
    use std::time::Duration;

    use super::*;
    use crate::domain::call_stats::CallStats;
    use crate::shell::exit::Exit;

    fn report(summary: &Summary, this_run: OutcomeCounts) -> Report<'_> {
        let [results, rejects, checkpoint] = ["users.results.csv", "users.rejects.csv", "users.checkpoint.json"].map(Path::new);
        Report { summary, this_run, results, rejects: (summary.counts.rejected() > 0).then_some(rejects), checkpoint }
    }

    #[test]
    fn a_resumed_run_shows_its_own_rows_and_all_rows() {
        let expected = "            this run    in all
rows          12,000   112,000
imported      11,990   111,980
failed            10        15
invalid            0         5
requests      12,100
retries           52
throttled          3
requests/s  199.6 on average, 200 at most in any second
limit       about 100/s gets through; others use the rest, or the service counts otherwise
latency     p50 20 ms, p99 100 ms
codes       70169: 40, 40006: 9, 60007: 3, 60008: 3, 70402: 1
elapsed     1m 0s
results     users.results.csv
rejects     users.rejects.csv
checkpoint  users.checkpoint.json";
        let this_run = OutcomeCounts { imported: 11_990, failed: 10, invalid: 0, ..OutcomeCounts::default() };
        assert_eq!(report(&summary(), this_run).to_string(), expected);
    }

    /// However long it has read and planned before.
    #[test]
    fn a_mean_of_less_than_ten_seconds_of_requests_is_not_shown() {
        let mut summary = summary();
        summary.traffic.mean_over = Duration::from_millis(9_999);
        let text = report(&summary, OutcomeCounts::default()).to_string();
        assert!(text.contains("requests/s  200 at most in any second\n"), "{text}");
    }

    #[test]
    fn a_new_run_without_requests_has_a_shorter_table() {
        let counts = OutcomeCounts { imported: 0, failed: 0, invalid: 0, ..OutcomeCounts::default() };
        let elapsed = Duration::from_millis(420);
        let summary = Summary {
            exit: Exit::Done,
            outcome: "done",
            lane: Lane::Single,
            counts,
            traffic: CallStats::default(),
            elapsed,
            resumed_at_row: 0,
            sync: None,
        };
        let expected = "\
rows        0
imported    0
failed      0
invalid     0
requests    0
retries     0
throttled   0
elapsed     0.4s
results     users.results.csv
checkpoint  users.checkpoint.json";
        assert_eq!(report(&summary, counts).to_string(), expected);
    }
}
