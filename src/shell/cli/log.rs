//! Logs: events as text or JSON on stderr, above the progress bar and never through it.
//!
//! This module decides which events are logged and how they are written. Events of other crates are shown only from WARN up, whatever the
//! number of `-v`: below that they contain URLs, and a URL contains the signature.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};

use indicatif::MultiProgress;
use tracing::field::Field;
use tracing::subscriber::{SetGlobalDefaultError, set_global_default};
use tracing::{Level, Subscriber};
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::fmt::{self as layer, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;

use crate::shell::cli::flags::{LogFormat, OutputFlags};
use crate::shell::terminal::printable;

/// The target of chatlift's own events.
const OURS: &str = "chatlift";

/// Sends the events of this process to stderr, above the bars.
///
/// # Errors
/// [`SetGlobalDefaultError`] if a subscriber is installed already; that one stays.
pub fn install(output: &OutputFlags, bars: &MultiProgress) -> Result<(), SetGlobalDefaultError> {
    let stderr = AboveBars { bars: bars.clone() };
    match output.log_format {
        LogFormat::Text => set_global_default(text(output, colours(), stderr)),
        LogFormat::Json => set_global_default(json(output, stderr)),
    }
}

/// Whether the levels are coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Colours {
    On,
    Off,
}

/// Colours are used on a terminal that supports them, unless NO_COLOR is set.
fn colours() -> Colours {
    if console::Term::stderr().features().colors_supported() { Colours::On } else { Colours::Off }
}

fn text<W>(output: &OutputFlags, colours: Colours, writer: W) -> impl Subscriber + use<W>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = layer::layer()
        .with_ansi(colours == Colours::On)
        .with_target(output.verbose > 0)
        .fmt_fields(debug_fn(field_in_text).delimited(" "))
        .with_writer(writer);
    tracing_subscriber::registry().with(levels(output)).with(layer)
}

fn json<W>(output: &OutputFlags, writer: W) -> impl Subscriber + use<W>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = layer::layer().json().flatten_event(true).with_writer(AsciiControls(writer));
    tracing_subscriber::registry().with(levels(output)).with(layer)
}

fn levels(output: &OutputFlags) -> Targets {
    if output.quiet {
        return Targets::new().with_default(Level::ERROR);
    }
    let ours = match output.verbose {
        0 => Level::INFO,
        1 => Level::DEBUG,
        _ => Level::TRACE,
    };
    Targets::new().with_default(Level::WARN).with_target(OURS, ours)
}

/// Writes a field with control characters escaped. The subscriber itself escapes only some of them, and only in the message.
fn field_in_text(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let value = printable(&format!("{value:?}"));
    match field.name() {
        "message" => write!(writer, "{value}"),
        name => write!(writer, "{name}={value}"),
    }
}

/// Writes to stderr while the bars are hidden.
#[derive(Debug, Clone)]
struct AboveBars {
    bars: MultiProgress,
}

impl Write for AboveBars {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bars.suspend(|| io::stderr().write(bytes))
    }

    /// An event is one `write_all`, so the bars are hidden once for it.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bars.suspend(|| io::stderr().write_all(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'w> MakeWriter<'w> for AboveBars {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

/// Escapes the control characters that JSON allows (DEL and U+0080 to U+009F), because terminals act on them. In JSON they occur only in
/// strings, so the escape is always valid.
#[derive(Debug)]
struct AsciiControls<W>(W);

impl<W: Write> Write for AsciiControls<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(escaped(&String::from_utf8_lossy(bytes)).as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for AsciiControls<W> {
    type Writer = AsciiControls<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        AsciiControls(self.0.make_writer())
    }
}

fn escaped(json: &str) -> Cow<'_, str> {
    if !json.contains(obeyed_by_terminals) {
        return Cow::Borrowed(json);
    }
    let escape = |char: char| if obeyed_by_terminals(char) { format!("\\u{:04x}", u32::from(char)) } else { char.to_string() };
    Cow::Owned(json.chars().map(escape).collect())
}

fn obeyed_by_terminals(char: char) -> bool {
    matches!(char, '\u{7f}'..='\u{9f}')
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const FOREIGN: &str = "a\u{1b}[2J\r\n\u{9b}31m完";

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'w> MakeWriter<'w> for Captured {
        type Writer = Self;
        fn make_writer(&'w self) -> Self {
            self.clone()
        }
    }

    impl Captured {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn flags(verbose: u8) -> OutputFlags {
        OutputFlags { quiet: false, verbose, log_format: LogFormat::Text, no_progress: false }
    }

    /// The events that are logged, without their times.
    fn logged(output: &OutputFlags, events: impl FnOnce()) -> Vec<String> {
        let kept = Captured::default();
        tracing::subscriber::with_default(text(output, Colours::Off, kept.clone()), events);
        kept.text().lines().map(|line| line.split_once(' ').map_or(line, |(_, event)| event.trim_start()).to_owned()).collect()
    }

    fn one_of_each() {
        tracing::error!("e");
        tracing::warn!("w");
        tracing::info!("i");
        tracing::debug!("d");
        tracing::trace!("t");
        tracing::error!(target: "hyper::client", "e");
        tracing::warn!(target: "hyper::client", "w");
        tracing::info!(target: "hyper::client", "https://host/?usersig=secret");
    }

    #[test]
    fn verbosity_affects_only_our_events_and_other_crates_stay_at_warn() {
        assert_eq!(logged(&flags(0), one_of_each), ["ERROR e", "WARN w", "INFO i", "ERROR e", "WARN w"]);
        assert_eq!(
            logged(&flags(1), one_of_each),
            [
                "ERROR chatlift::shell::cli::log::tests: e",
                "WARN chatlift::shell::cli::log::tests: w",
                "INFO chatlift::shell::cli::log::tests: i",
                "DEBUG chatlift::shell::cli::log::tests: d",
                "ERROR hyper::client: e",
                "WARN hyper::client: w",
            ]
        );
        assert_eq!(logged(&flags(2), one_of_each).len(), 7);
        assert_eq!(logged(&OutputFlags { quiet: true, ..flags(2) }, one_of_each).len(), 2);
    }

    #[test]
    fn foreign_text_stays_on_one_line_and_cannot_move_the_cursor() {
        let lines = logged(&flags(0), || {
            tracing::warn!(why = %FOREIGN, shown = ?FOREIGN, text = FOREIGN, "message {FOREIGN}");
        });
        let displayed = r"a\u{1b}[2J\r\n\u{9b}31m完";
        assert_eq!(lines, [format!("WARN message {displayed} why={displayed} shown=\"{displayed}\" text=\"{displayed}\"")]);
    }

    #[test]
    fn json_is_one_object_a_line_without_control_characters() {
        let kept = Captured::default();
        tracing::subscriber::with_default(json(&flags(0), kept.clone()), || tracing::warn!(why = %FOREIGN, row = 7, "down"));
        let text = kept.text();
        assert_eq!(text.chars().filter(|char| char.is_control()).collect::<String>(), "\n");
        let event: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&event["level"], &event["message"], &event["row"]), (&"WARN".into(), &"down".into(), &7.into()));
        assert_eq!(event["why"], FOREIGN);
    }

    #[test]
    fn only_the_levels_are_coloured() {
        let kept = Captured::default();
        tracing::subscriber::with_default(text(&flags(0), Colours::On, kept.clone()), || tracing::warn!(why = %FOREIGN, "down"));
        let plain = console::strip_ansi_codes(&kept.text()).into_owned();
        assert!(kept.text().contains('\u{1b}'));
        assert!(plain.ends_with("WARN down why=a\\u{1b}[2J\\r\\n\\u{9b}31m完\n"), "{plain:?}");
    }
}
