//! Shows the progress of a run on stderr: a bar on a terminal, otherwise (or with `--no-progress`) one plain line a minute. `--quiet` shows
//! nothing.
//!
//! The caller passes each `Progress` and the time. This module reads no clock, and it cannot affect the run.

mod forecast;
mod pace;
mod view;

use std::io::Write;
use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use crate::flow::import::{ImportProgress, RunPhase};
pub(crate) use forecast::Forecast;
use pace::RecentPace;
use view::ProgressWords;
pub(crate) use view::{done_words, quota_words, state};

/// Without a terminal, one line is written this often. Chosen: the log of a night stays readable.
pub(super) const LINE_EVERY: Duration = Duration::from_secs(60);
/// A change of the phase is reported earlier, but lines are never closer together than this. Chosen.
const LINES_APART: Duration = Duration::from_secs(10);
/// The bar takes the space that the figures leave on the line, so it fits 80 columns and fewer.
const BAR: &str = "{spinner} [{wide_bar}] {prefix}\n  {wide_msg}";
/// The same for an input of unknown size.
const SPINNER: &str = "{spinner} {prefix}\n  {wide_msg}";

/// The kind of progress that the user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A bar on a terminal, otherwise a line now and then.
    Shown,
    Nothing,
}

/// Where this process started, and how much there is to do.
#[derive(Debug, Clone, Copy, Default)]
pub struct Start {
    /// Rows for which earlier processes wrote a result.
    pub rows_done: u64,
    /// Rows that were settled when this process started: those with a result, and in a sync the unchanged ones among them, too.
    pub rows_settled: u64,
    /// Byte offset in the input at which this process started.
    pub offset: u64,
    /// Size of the input in bytes, if it is known.
    pub input_bytes: Option<u64>,
    /// The most records that this process handles (`--limit`).
    pub limit: Option<u64>,
}

#[expect(missing_debug_implementations, reason = "it holds a writer")]
/// Shows the run. The bar is removed from the screen when this is dropped.
pub struct ProgressReporter {
    display: Display,
    start: Start,
    pace: RecentPace,
    forecast: Forecast,
}

/// How progress is shown.
enum Display {
    Bar(Bar),
    Lines(PlainLines),
    Nothing,
}

impl ProgressReporter {
    /// Chooses the display by `wanted` and by what stderr is.
    #[must_use]
    pub fn on_stderr(wanted: Wanted, bars: &MultiProgress, start: Start, now: Instant) -> Self {
        let display = match wanted {
            Wanted::Nothing => Display::Nothing,
            Wanted::Shown if !bars.is_hidden() => Display::Bar(Bar { bars: bars.clone(), drawn: None }),
            Wanted::Shown => Display::Lines(PlainLines::new(Box::new(std::io::stderr()), now)),
        };
        Self::new(display, start, now)
    }

    fn new(display: Display, start: Start, now: Instant) -> Self {
        Self { display, start, pace: RecentPace::new(now), forecast: Forecast::new(now) }
    }

    /// Shows the state of the run if an update is due.
    pub fn tell(&mut self, progress: &ImportProgress, now: Instant) {
        self.pace.note(progress.requests.calls, now);
        let (left, mean) = (self.forecast.left(progress, self.start, now), self.pace.mean_per_s(progress.requests.calls, now));
        let view = ProgressWords::new(progress, self.start, (left, mean));
        match &mut self.display {
            Display::Bar(bar) => bar.draw(&view),
            Display::Lines(lines) => lines.write_if_due(&view, now),
            Display::Nothing => {}
        }
    }

    /// Removes the bar from the screen.
    pub fn finish(self) {
        drop(self);
    }
}

/// A bar on a terminal.
struct Bar {
    bars: MultiProgress,
    /// `None` until the first update.
    drawn: Option<ProgressBar>,
}

impl Bar {
    fn draw(&mut self, view: &ProgressWords<'_>) {
        if let Some(bar) = &self.drawn {
            return show(bar, view);
        }
        let bar = hidden_bar(view.extent().map(|(_, length)| length));
        show(&bar, view);
        self.drawn.insert(self.bars.add(bar)).tick();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = self.drawn.take() {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
    }
}

/// A bar that is not on the screen yet, so that it first appears with its figures.
pub(super) fn hidden_bar(length: Option<u64>) -> ProgressBar {
    let template = if length.is_some() { BAR } else { SPINNER };
    let style = ProgressStyle::with_template(template).expect("the template is a constant that a test checks");
    ProgressBar::with_draw_target(length, ProgressDrawTarget::hidden()).with_style(style.progress_chars("=> "))
}

fn show(bar: &ProgressBar, view: &ProgressWords<'_>) {
    bar.set_position(view.extent().map_or(0, |(position, _)| position));
    bar.set_prefix(view.headline());
    bar.set_message(view.detail());
    bar.tick();
}

/// Plain lines for a log.
struct PlainLines {
    out: Box<dyn Write>,
    told_at: Instant,
    told: Discriminant<RunPhase>,
}

impl PlainLines {
    fn new(out: Box<dyn Write>, now: Instant) -> Self {
        Self { out, told_at: now, told: discriminant(&RunPhase::Running) }
    }

    fn write_if_due(&mut self, view: &ProgressWords<'_>, now: Instant) {
        let phase = discriminant(&view.progress.requests.phase);
        let since = now - self.told_at;
        if since >= LINE_EVERY || (since >= LINES_APART && phase != self.told) {
            self.told_at = now;
            self.told = phase;
            // If stderr is closed, there is nobody to report to, and the run does not need it.
            let _ = writeln!(self.out, "{}", view.line());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::view::WHY_MAX;
    use std::cell::RefCell;
    use std::io;
    use std::rc::Rc;
    use std::sync::{Arc, Mutex};

    use indicatif::TermLike;

    use super::*;
    use crate::domain::call_stats::{CallsSoFar, QuotaStats};
    use crate::domain::outcome::OutcomeCounts;
    use crate::flow::dispatch::Progress;

    const TICK: Duration = Duration::from_millis(250);

    pub(super) fn snapshot(imported: u64) -> ImportProgress {
        let counts = OutcomeCounts { imported, failed: 0, invalid: 0, ..OutcomeCounts::default() };
        let (offset, so_far) = (Some(imported * 10), CallsSoFar::default());
        ImportProgress {
            requests: Progress { at: Instant::now(), phase: RunPhase::Running, calls: imported, retries: 0, in_flight: 12, so_far },
            counts,
            rows_waiting: 0,
            offset,
            planned: None,
        }
    }

    pub(super) fn in_phase(phase: RunPhase, progress: ImportProgress) -> ImportProgress {
        ImportProgress { requests: Progress { phase, ..progress.requests }, ..progress }
    }

    pub(super) fn waiting(seconds: u64, why: &str) -> RunPhase {
        RunPhase::Waiting { since: Duration::from_secs(seconds), why: why.to_owned() }
    }

    #[derive(Clone, Default)]
    struct Log(Rc<RefCell<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Log {
        fn lines(&self) -> Vec<String> {
            String::from_utf8(self.0.borrow().clone()).unwrap().lines().map(str::to_owned).collect()
        }
    }

    fn lines(log: &Log, start: Start, now: Instant) -> ProgressReporter {
        ProgressReporter::new(Display::Lines(PlainLines::new(Box::new(log.clone()), now)), start, now)
    }

    /// Reports `seconds` of a run at 200 requests a second, starting with second `from`.
    fn run(progress: &mut ProgressReporter, begun: Instant, seconds: std::ops::Range<u32>, phase: &RunPhase) {
        for tick in seconds.start * 4 + 1..=seconds.end * 4 {
            let told = in_phase(phase.clone(), snapshot(u64::from(tick) * 50));
            progress.tell(&told, begun + TICK * tick);
        }
    }

    #[test]
    fn without_a_terminal_there_is_one_line_a_minute() {
        let (log, begun) = (Log::default(), Instant::now());
        let mut progress = lines(&log, Start { input_bytes: Some(14_880_000), ..Start::default() }, begun);
        run(&mut progress, begun, 0..59, &RunPhase::Running);
        assert_eq!(log.lines(), Vec::<String>::new());
        run(&mut progress, begun, 59..119, &RunPhase::Running);
        progress.finish();
        assert_eq!(log.lines(), ["progress: 12,000 rows done (12,000 imported, 0 failed), 200.0 requests/s, about 2h 3m left, running"]);
    }

    #[test]
    fn a_change_of_phase_is_shown_at_once_but_not_within_ten_seconds_of_a_line() {
        let (log, begun) = (Log::default(), Instant::now());
        let mut progress = lines(&log, Start::default(), begun);
        run(&mut progress, begun, 0..20, &RunPhase::Running);
        run(&mut progress, begun, 20..21, &RunPhase::Throttled { per_s: 99.6 });
        run(&mut progress, begun, 21..31, &RunPhase::Running);
        run(&mut progress, begun, 31..35, &RunPhase::Running);
        assert_eq!(
            log.lines(),
            [
                "progress: 4,050 rows done (4,050 imported, 0 failed), 200.0 requests/s, throttled: about 100/s gets through; others use the rest, \
                 or the service counts otherwise",
                "progress: 6,050 rows done (6,050 imported, 0 failed), 200.0 requests/s, running",
            ]
        );
    }

    #[test]
    fn a_line_has_all_figures() {
        let counts = OutcomeCounts { imported: 11_990, failed: 10, invalid: 3, ..OutcomeCounts::default() };
        let phase = waiting(125, "code 60008: \u{1b}[2J完");
        let requests = Progress { phase, calls: 12_000, retries: 1, in_flight: 0, ..snapshot(0).requests };
        let told = ImportProgress { requests, counts, ..snapshot(0) };
        let start = Start { rows_done: 100_000, ..Start::default() };
        assert_eq!(
            ProgressWords::new(&told, start, (None, Some(0.1))).line(),
            "progress: 112,003 rows done (100,000 earlier, 11,990 imported, 10 failed, 3 invalid), 0.1 requests/s, 1 retry, \
             waiting for the service for 2m 5s: code 60008: \\u{1b}[2J完"
        );
        let draining = in_phase(RunPhase::Draining, snapshot(1));
        assert_eq!(
            ProgressWords::new(&draining, Start::default(), (None, None)).line(),
            "progress: 1 row done (1 imported, 0 failed), draining, 12 requests in flight"
        );
    }

    #[test]
    fn a_shared_limit_is_told() {
        let mut told = snapshot(1);
        let quota = QuotaStats { processes: 3, most_processes: 4, here_per_s: 61, ..QuotaStats::default() };
        told.requests.so_far.stats.quota = Some(quota);
        told.requests.phase = RunPhase::WaitingForQuota { since: Duration::from_secs(3), why: "Connection refused".to_owned() };
        let view = ProgressWords::new(&told, Start::default(), (None, Some(61.0)));
        assert_eq!(
            view.line(),
            "progress: 1 row done (1 imported, 0 failed), 61.0 requests/s, quota: 3 runs, 61/s here, waiting for the quota for 3s: Connection \
             refused"
        );
        assert!(view.detail().contains("quota: 3 runs, 61/s here"), "{}", view.detail());
    }

    #[test]
    fn a_long_reason_is_cut() {
        let told = in_phase(waiting(1, &"長".repeat(300)), snapshot(0));
        assert_eq!(state(&told.requests), format!("waiting for the service for 1s: {}…", "長".repeat(WHY_MAX)));
    }

    #[test]
    fn the_pace_covers_the_last_ten_seconds_in_bounded_memory() {
        let begun = Instant::now();
        let mut pace = RecentPace::new(begun);
        assert_eq!(pace.calls_per_s(500, begun + TICK), None);
        assert_eq!(pace.calls_per_s(204, begun + TICK * 4), Some(204.0));
        assert_eq!(pace.mean_per_s(2_004, begun + Duration::from_millis(9_999)), None, "no mean is shown before it is one");
        assert_eq!(pace.mean_per_s(2_000, begun + Duration::from_secs(10)), Some(200.0));
        for millis in 0..100_000_u64 {
            pace.note(if millis < 50_000 { millis } else { 50_000 }, begun + Duration::from_millis(millis));
        }
        assert!(pace.samples.len() <= 52, "{}", pace.samples.len());
        assert_eq!(pace.calls_per_s(50_000, begun + Duration::from_secs(100)), Some(0.0));
    }

    /// A terminal of 80 columns that records what is written.
    #[derive(Debug, Clone, Default)]
    struct Terminal(Arc<Mutex<String>>);

    impl TermLike for Terminal {
        fn width(&self) -> u16 {
            80
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, line: &str) -> io::Result<()> {
            self.write_str(line)?;
            self.write_str("\n")
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            self.write_str("\r")
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Terminal {
        fn bar(&self, start: Start, now: Instant) -> ProgressReporter {
            let bars = MultiProgress::with_draw_target(ProgressDrawTarget::term_like(Box::new(self.clone())));
            ProgressReporter::new(Display::Bar(Bar { bars, drawn: None }), start, now)
        }

        /// Everything that was drawn, in lines of 80 columns (a bar pads its lines instead of ending them).
        fn screen(&self) -> Vec<String> {
            let drawn: Vec<char> = self.0.lock().unwrap().replace(['\r', '\n'], "").chars().collect();
            drawn.chunks(80).map(|line| line.iter().collect::<String>().trim_end().to_owned()).collect()
        }
    }

    #[test]
    fn the_bar_fits_80_columns_and_is_not_drawn_before_the_first_update() {
        let (terminal, begun) = (Terminal::default(), Instant::now());
        let start = Start { rows_done: 99_000_000, input_bytes: Some(u64::MAX), ..Start::default() };
        let mut progress = terminal.bar(start, begun);
        assert_eq!(terminal.screen(), Vec::<String>::new());
        let counts = OutcomeCounts { imported: 999_999, failed: 999_999, invalid: 999_999, ..OutcomeCounts::default() };
        let phase = waiting(86_399, &"long ".repeat(20));
        let requests = Progress { phase, calls: 1_999, retries: 999_999, ..snapshot(1).requests };
        let told = ImportProgress { requests, counts, ..snapshot(1) };
        progress.tell(&told, begun + Duration::from_secs(10));
        progress.tell(&told, begun + Duration::from_secs(11));
        let screen = terminal.screen();
        assert!(screen.len() >= 2, "{screen:?}");
        for drawn in screen.chunks(2) {
            assert!(drawn[0].contains(" 0 %  101,999,997 rows  1"), "{drawn:?}");
            assert!(drawn[0].ends_with(" requests/s"), "{drawn:?}");
            assert!(drawn[1].starts_with("  999,999 failed, 999,999 invalid, 999,999 retries, waiting for the service for"), "{drawn:?}");
        }
    }

    #[test]
    fn an_input_of_unknown_size_gets_figures_without_a_bar() {
        let (terminal, begun) = (Terminal::default(), Instant::now());
        let mut progress = terminal.bar(Start::default(), begun);
        progress.tell(&snapshot(2_000), begun + Duration::from_secs(10));
        progress.tell(&snapshot(2_000), begun + Duration::from_secs(10));
        let screen = terminal.screen();
        assert!(screen[0].ends_with(" 2,000 rows  200.0 requests/s"), "{screen:?}");
        assert_eq!(screen[1].trim_end(), "  0 failed, 0 retries, running");
    }

    #[test]
    fn quiet_shows_nothing() {
        let mut progress = ProgressReporter::new(Display::Nothing, Start::default(), Instant::now());
        progress.tell(&snapshot(1), Instant::now());
    }
}
