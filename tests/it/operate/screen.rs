//! What stands on a terminal once a command has ended: no bar, however it ends.

use std::io::Write;
use std::process::{Child, Command, Stdio};

use crate::support::server::{Reply, Server, code, imported};
use crate::support::tools::skipped;
use crate::support::{CliFixture, SDKAPPID, eventually};

/// Columns of the terminal. Chosen: a bar fills them.
const COLUMNS: usize = 80;
/// Requests after which a bar is surely drawn: it is drawn four times a second, and they take longer.
const DRAWN_AFTER: usize = 40;

/// A terminal of [`COLUMNS`], as far as chatlift and the terminal itself use one.
#[derive(Default)]
struct Screen {
    lines: Vec<Vec<char>>,
    row: usize,
    column: usize,
}

impl Screen {
    /// The lines after this was written.
    fn after(written: &str) -> Vec<String> {
        let (mut screen, mut chars) = (Self::default(), written.chars());
        while let Some(char) = chars.next() {
            match char {
                '\r' => screen.column = 0,
                '\n' => screen.row += 1,
                '\u{1b}' => screen.escape(&mut chars),
                char => screen.put(char),
            }
        }
        screen.lines.iter().map(|line| line.iter().collect::<String>().trim_end().to_owned()).collect()
    }

    /// Takes a sequence: a bracket, digits, and a letter.
    fn escape(&mut self, chars: &mut std::str::Chars<'_>) {
        assert_eq!(chars.next(), Some('['));
        let mut digits = String::new();
        let letter = loop {
            match chars.next().unwrap() {
                char if char.is_ascii_alphabetic() => break char,
                char => digits.push(char),
            }
        };
        let rows = digits.parse().unwrap_or(1);
        match letter {
            'A' => self.row = self.row.saturating_sub(rows),
            'B' => self.row += rows,
            'K' => self.line().clear(),
            // Colours, and whether the cursor is shown.
            'm' | 'h' | 'l' => {}
            other => panic!("{other} is not used"),
        }
    }

    fn line(&mut self) -> &mut Vec<char> {
        let rows = self.lines.len().max(self.row + 1);
        self.lines.resize(rows, Vec::new());
        &mut self.lines[self.row]
    }

    fn put(&mut self, char: char) {
        // A full line is only left by what comes behind it.
        if self.column == COLUMNS {
            (self.row, self.column) = (self.row + 1, 0);
        }
        let column = self.column;
        let line = self.line();
        line.resize(line.len().max(column + 1), ' ');
        line[column] = char;
        self.column += 1;
    }
}

/// An import on a terminal of its own.
struct OnTerminal(Child);

impl OnTerminal {
    /// `None` where no terminal can be had.
    fn import(bench: &CliFixture, server: &Server, flags: &str) -> Option<Self> {
        let (program, key, endpoint) = (env!("CARGO_BIN_EXE_chatlift"), bench.key(), server.endpoint());
        let import =
            format!("{program} import users.csv --endpoint {endpoint} --sdkappid {SDKAPPID} --secret-key-file {} {flags}", key.display());
        let mut script = Command::new("script");
        script.args(["-qec", &format!("stty cols {COLUMNS} rows 24; exec {import}"), "/dev/null"]);
        script.current_dir(bench.path(".")).stdin(Stdio::piped()).stdout(Stdio::piped()).env("TERM", "xterm");
        let Ok(child) = script.spawn() else {
            skipped("the screen at the end of a command", "script is not installed");
            return None;
        };
        Some(Self(child))
    }

    fn press(&mut self, keys: &str) {
        self.0.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// The exit code and the screen at the end. A bar must have been drawn, and none be left.
    #[track_caller]
    fn leaves_no_bar(mut self) -> (i32, String) {
        let stdin = self.0.stdin.take();
        let output = self.0.wait_with_output().unwrap();
        drop(stdin);
        let written = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(written.contains("] 0 %") || written.contains("0 retries, "), "no bar was drawn: {written:?}");
        let screen = Screen::after(&written).join("\n");
        assert!(!screen.contains("retries, ") && !screen.contains(" [=") && !screen.contains(" [>"), "{screen}");
        (output.status.code().unwrap(), screen)
    }
}

/// Answers after a while, so that the bar is drawn.
fn slow(reply: Reply) -> Reply {
    reply.after(std::time::Duration::from_millis(10))
}

#[test]
fn a_finished_and_a_refused_run_leave_no_bar() {
    let bench = CliFixture::with_users(150);
    let server = Server::new(|request| slow(if request.number < 100 { imported() } else { code(70403) }));
    let Some(import) = OnTerminal::import(&bench, &server, "--in-flight 1 --rate 0") else { return };
    let (exit, screen) = import.leaves_no_bar();
    assert!(exit == 5 && screen.contains("error: the identifier is not an administrator"), "{exit}: {screen}");
    let server = Server::new(|_| slow(imported()));
    let (exit, screen) = OnTerminal::import(&bench, &server, "--in-flight 1 --rate 0 --restart").unwrap().leaves_no_bar();
    assert!(exit == 0 && screen.contains("done: all 150 rows imported"), "{exit}: {screen}");
}

/// The terminal itself writes `^C` where the cursor stands.
#[test]
fn keys_that_stop_a_run_leave_no_bar() {
    for times in [1, 2] {
        let bench = CliFixture::with_users(150);
        let server = Server::new(move |request| match request.number {
            0..DRAWN_AFTER => slow(imported()),
            // Whoever presses it once waits for the last answer.
            _ if times == 1 => slow(imported()),
            _ => imported().held(),
        });
        let Some(mut import) = OnTerminal::import(&bench, &server, "--in-flight 1 --rate 0") else { return };
        eventually("requests", || server.calls() > DRAWN_AFTER);
        for pressed in 0..times {
            import.press("\u{3}");
            std::thread::park_timeout(std::time::Duration::from_millis(if pressed + 1 < times { 300 } else { 0 }));
        }
        let (code, screen) = import.leaves_no_bar();
        assert!(code == 4 && screen.contains("stopped: a signal came"), "{code}: {screen}");
    }
}
