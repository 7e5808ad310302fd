//! Shows the progress of a phase on stderr: a bar on a terminal, otherwise (or with `--no-progress`) one plain line a minute. `--quiet`
//! shows nothing.

use indicatif::{MultiProgress, ProgressBar};
use tokio::time::Instant;

use super::progress::{LINE_EVERY, Wanted, hidden_bar};
use crate::shell::terminal::print_stderr;

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
                let bar = drawn.get_or_insert_with(|| bars.add(hidden_bar(Some(0))));
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

impl Drop for PhaseBar {
    fn drop(&mut self) {
        if let PhaseDisplay::Bar { bars, drawn: Some(bar) } = &self.face {
            bar.finish_and_clear();
            bars.remove(bar);
        }
    }
}
