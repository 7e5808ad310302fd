//! Shows the progress of a phase on stderr: a bar on a terminal, otherwise (or with `--no-progress`) one plain line a minute. `--quiet`
//! shows nothing.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::progress::Wanted;
use crate::shell::terminal::print_stderr;

/// Without a terminal, one line is written this often. Chosen: the log of a night stays readable.
const LINE_EVERY: Duration = Duration::from_secs(60);
/// The bar takes the space that the text leaves on the line.
const BAR: &str = "{spinner} [{wide_bar}] {prefix}\n  {wide_msg}";

#[expect(missing_debug_implementations, reason = "it holds the bars")]
/// Shows one phase after the other. The display is removed when this is dropped.
pub struct PhaseBar {
    face: PhaseDisplay,
}

enum PhaseDisplay {
    Bar { bars: MultiProgress, drawn: Option<ProgressBar> },
    Lines { told_at: Instant },
    Nothing,
}

impl PhaseBar {
    /// Chooses the display by `wanted` and by what stderr is.
    #[must_use]
    pub fn on_stderr(wanted: Wanted, bars: &MultiProgress, now: Instant) -> Self {
        let face = match wanted {
            Wanted::Nothing => PhaseDisplay::Nothing,
            Wanted::Shown if !bars.is_hidden() => PhaseDisplay::Bar { bars: bars.clone(), drawn: None },
            Wanted::Shown => PhaseDisplay::Lines { told_at: now },
        };
        Self { face }
    }

    /// Shows that `done` of `whole` is done. `detail` may be cut.
    pub fn tell(&mut self, (done, whole): (u64, u64), words: &str, detail: &str, now: Instant) {
        match &mut self.face {
            PhaseDisplay::Bar { bars, drawn } => {
                let bar = drawn.get_or_insert_with(|| bars.add(new_bar()));
                bar.set_length(whole);
                bar.set_position(done.min(whole));
                bar.set_prefix(words.to_owned());
                bar.set_message(detail.to_owned());
                bar.tick();
            }
            PhaseDisplay::Lines { told_at } if now >= *told_at + LINE_EVERY => {
                *told_at = now;
                print_stderr(&format!("progress: {words}, {detail}"));
            }
            PhaseDisplay::Lines { .. } | PhaseDisplay::Nothing => {}
        }
    }
}

fn new_bar() -> ProgressBar {
    let style = ProgressStyle::with_template(BAR).expect("the template is a constant that a test checks");
    ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden()).with_style(style.progress_chars("=> "))
}

impl Drop for PhaseBar {
    fn drop(&mut self) {
        if let PhaseDisplay::Bar { bars, drawn: Some(bar) } = &self.face {
            bar.finish_and_clear();
            bars.remove(bar);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_of_the_bar_is_valid() {
        assert_eq!(new_bar().position(), 0);
    }
}
