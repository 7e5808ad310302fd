//! Every hint about a FILE leads on: its command or flag is run as it stands, and ends well or at least further than before.

use std::fmt::Write;

use super::odd_fixtures::{FILES, bench_with};
use crate::support::packed::{encoded, gzip};
use crate::support::{CliFixture, Run, side_by_side};

/// The commands that read a file, as they are typed.
const COMMANDS: [&str; 5] = [
    "chatlift check users.csv",
    "chatlift import users.csv --sandbox",
    "chatlift audit users.csv --results users.results.csv",
    "chatlift verify users.csv --sandbox",
    "chatlift sync users.csv --state users.state --sandbox",
];

/// What somebody does who reads a hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Runs the command that is in it.
    Command,
    /// Gives the same command with these words of the hint.
    With(&'static str),
    /// Gives the same command without a flag.
    Without(&'static str),
    /// Imports the file with these words of the hint.
    Import(&'static str),
    /// Does what only people can do.
    Words,
}

/// Parts of hints, and what they lead to. A hint with several parts is followed in all of their ways.
const WAYS: [(&str, Way); 42] = [
    // Nothing went wrong.
    ("nothing is left to do", Way::Words),
    // The lines of an import do that, for each file.
    ("the file can be imported as it is", Way::Words),
    // A command.
    ("chatlift audit ", Way::Command),
    ("chatlift check ", Way::Command),
    ("chatlift import ", Way::Command),
    // A flag with its value.
    ("--delimiter ';'", Way::With("--delimiter ';'")),
    ("--delimiter tab", Way::With("--delimiter tab")),
    ("--escape '\\'", Way::With("--escape '\\'")),
    ("--multiline takes", Way::With("--multiline")),
    ("--trim takes", Way::With("--trim")),
    ("--compact-uuid sends", Way::With("--compact-uuid")),
    ("--user-ids any sends", Way::With("--user-ids any")),
    ("--encoding gb18030 reads", Way::With("--encoding gb18030")),
    ("--encoding utf-16le reads", Way::With("--encoding utf-16le")),
    ("--encoding utf-16be reads", Way::With("--encoding utf-16be")),
    ("--map UserID=UserID", Way::With("--map UserID=UserID")),
    ("--map Nick= reads none", Way::With("--map Nick=")),
    ("leave --encoding out", Way::Without(" --encoding utf-16le")),
    ("leave --strict out", Way::Without(" --strict")),
    ("without --dry-run does it", Way::Without(" --dry-run")),
    ("to let the run through: --allow empty", Way::With("--allow empty")),
    ("--allow empty takes it as it is", Way::With("--allow empty")),
    ("`import` takes it as it is with --allow empty", Way::Import("--allow empty")),
    // Only people know what to write, or where.
    ("say which column it is: --map UserID=COLUMN", Way::Words),
    ("see whether it is the right column: --map UserID=COLUMN names another", Way::Words),
    ("the first line must name the columns, UserID among them", Way::Words),
    ("close the quote that opens at line 2, column 5, or double it", Way::Words),
    ("take these characters out of the export", Way::Words),
    ("see whether a delimiter stands in a field without quotes", Way::Words),
    ("double the quotes within fields", Way::Words),
    ("nothing is lost: no account stands in them", Way::Words),
    ("correct them, or import the file as it is", Way::Import("")),
    ("the results say why; correct the rows and import them", Way::Words),
    ("see whether the export is whole", Way::Words),
    ("get the whole file: copy or export it again", Way::Words),
    ("unpack it once, then give it again", Way::Words),
    ("look at line 2: a line end is missing there, or the file is no CSV", Way::Words),
    ("rename one of the columns \"Nick\"", Way::Words),
    ("raise --max-invalid", Way::With("--max-invalid 100")),
    ("with a higher --max-invalid", Way::Import("--max-invalid 100")),
    ("check the path and its permissions", Way::Words),
    ("mend them where the file comes from", Way::Words),
];

/// More files than there are fixtures: a hint each that those don't show.
fn more_files() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let spaced = (0..1_000).fold("UserID\n".to_owned(), |mut text, row| {
        writeln!(text, " user{row}").unwrap();
        text
    });
    vec![
        ("two columns of one name", b"UserID,Nick,Nick\na,b,c\n".to_vec(), ""),
        ("a long record", format!("UserID,Nick\na,{}\n", "n".repeat(70_000)).into_bytes(), ""),
        ("too many invalid", spaced.into_bytes(), ""),
        ("UTF-8 that is said to be UTF-16", b"UserID,Nick\na,bc\n".to_vec(), " --encoding utf-16le"),
        ("odd and strict", b"UserID,Nick\na,\xe2\x80\x8b\n".to_vec(), " --strict"),
        ("tabs", b"UserID\tNick\na\tb\n".to_vec(), ""),
        ("GB18030 in gzip", gzip(&encoded("UserID,Nick\na,张三丰\nb,李四\n", "gb18030")), ""),
    ]
}

/// A fixture with the file as `users.csv`, and for an audit its results, if it can be imported.
fn prepared(bench: CliFixture, command: &str, flags: &str) -> CliFixture {
    if command.starts_with("chatlift audit") {
        typed(&bench, &format!("chatlift import users.csv --sandbox{flags}"));
    }
    bench
}

/// Runs what somebody types.
fn typed(bench: &CliFixture, line: &str) -> Run {
    let program = env!("CARGO_BIN_EXE_chatlift");
    let line = line.replacen("chatlift", program, 1);
    bench.call(&[]).through("/bin/sh", &["-c", &format!("exec {line}")]).run()
}

fn hint_of(run: &Run) -> &str {
    run.stderr.lines().find_map(|line| line.strip_prefix("hint: ")).unwrap_or_default()
}

fn why_of(run: &Run) -> &str {
    let whys = ["done: ", "finished: ", "stopped: ", "error: "];
    run.stderr.lines().find(|line| whys.iter().any(|why| line.starts_with(why))).unwrap_or_default()
}

/// The command in a hint, up to what is said of it.
fn command_in(hint: &str) -> &str {
    const SAID: [&str; 3] = [" proves it", " names them", " lists them"];
    let command = &hint[hint.find("chatlift ").unwrap()..];
    let end = SAID.iter().filter_map(|said| command.find(said)).min().unwrap_or(command.len());
    &command[..end]
}

/// Follows every part of the hint with which a command ends.
fn follow(make: &dyn Fn() -> CliFixture, (line, flags): (&str, &str), context: &str) {
    let bench = prepared(make(), line, flags);
    let before = typed(&bench, line);
    let hint = hint_of(&before);
    assert!(!hint.is_empty() && !why_of(&before).is_empty(), "{context}: {}", before.stderr);
    let ways: Vec<Way> = WAYS.iter().filter(|(part, _)| hint.contains(part)).map(|(_, way)| *way).collect();
    assert!(!ways.is_empty(), "{context}: nobody follows this hint: {hint}");
    for way in ways {
        let next = match way {
            Way::Words => continue,
            Way::Command => command_in(hint).to_owned(),
            Way::With(words) => format!("{line} {words}"),
            Way::Without(words) => line.replace(words, ""),
            Way::Import(words) => format!("chatlift import users.csv --sandbox{flags} {words}"),
        };
        // A command goes on with what is there by now.
        let after = if way == Way::Command { typed(&bench, &next) } else { typed(&prepared(make(), line, ""), &next) };
        // A check lists what the other commands only counted, whatever it then says of the file.
        let lists_more = next.starts_with("chatlift check") && before.stdout.is_empty() && !after.stdout.is_empty();
        let is_further = matches!(after.code, Some(0 | 3)) || why_of(&after) != why_of(&before) || lists_more;
        assert!(is_further, "{context}: {next}: {}\nbefore: {}", after.stderr, before.stderr);
    }
}

#[test]
fn every_hint_about_a_file_leads_on() {
    let dry = |command: &str| if command.starts_with("chatlift sync") { [" --dry-run", ""].to_vec() } else { [""].to_vec() };
    let lines = || COMMANDS.into_iter().flat_map(move |command| dry(command).into_iter().map(move |dry| format!("{command}{dry}")));
    let fixtures = FILES.into_iter().flat_map(|(name, ..)| lines().map(move |line| (name, line)));
    side_by_side(fixtures, |(name, line)| follow(&|| bench_with(name), (&line, ""), &format!("{name}: {line}")));
    let more = more_files().into_iter().flat_map(|file| lines().map(move |line| (file.clone(), line)));
    side_by_side(more, |((name, bytes, flags), line)| {
        // Not every command can be strict.
        let flags = if flags == " --strict" && (line.contains(" audit ") || line.contains(" verify ")) { "" } else { flags };
        let make = || {
            let bench = CliFixture::new();
            bench.write("users.csv", &bytes);
            bench
        };
        follow(&make, (&(line.clone() + flags), flags), &format!("{name}: {line}"));
    });
}
