//! Where bars are drawn: on standard error, if that is a terminal.

use std::io;
use std::sync::OnceLock;

use console::Term;
use indicatif::{MultiProgress, ProgressDrawTarget, TermLike};

/// How often to draw at most in a second. Chosen: the library's own default.
const DRAWN_PER_S: u8 = 20;

/// The bars of this process, for whoever ends it early.
static BARS: OnceLock<MultiProgress> = OnceLock::new();

/// Bars on standard error; hidden where that is no terminal.
#[must_use]
pub fn on_stderr() -> MultiProgress {
    let bars = || {
        let term = Term::buffered_stderr();
        let target = if term.is_term() {
            ProgressDrawTarget::term_like_with_hz(Box::new(ReturningTerm(term)), DRAWN_PER_S)
        } else {
            ProgressDrawTarget::hidden()
        };
        MultiProgress::with_draw_target(target)
    };
    BARS.get_or_init(bars).clone()
}

/// Takes whatever is drawn off the screen; nothing is drawn after that.
pub fn end() {
    if let Some(bars) = BARS.get() {
        // Nobody can be told if it fails.
        let _ = bars.clear();
        bars.set_draw_target(ProgressDrawTarget::hidden());
    }
}

/// A terminal on which the cursor goes back to the start of its line after each drawing. Where a key that sends a signal is pressed, the
/// terminal itself writes `^C` at the cursor: behind a line of the full width, this would begin another line, and the bar would be removed
/// from one line too few.
#[derive(Debug)]
struct ReturningTerm(Term);

impl TermLike for ReturningTerm {
    fn width(&self) -> u16 {
        self.0.size().1
    }

    fn height(&self) -> u16 {
        self.0.size().0
    }

    fn move_cursor_up(&self, lines: usize) -> io::Result<()> {
        self.0.move_cursor_up(lines)
    }

    fn move_cursor_down(&self, lines: usize) -> io::Result<()> {
        self.0.move_cursor_down(lines)
    }

    fn move_cursor_right(&self, columns: usize) -> io::Result<()> {
        self.0.move_cursor_right(columns)
    }

    fn move_cursor_left(&self, columns: usize) -> io::Result<()> {
        self.0.move_cursor_left(columns)
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.0.write_line(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.0.write_str(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.0.clear_line()
    }

    fn flush(&self) -> io::Result<()> {
        self.0.write_str("\r")?;
        self.0.flush()
    }
}
