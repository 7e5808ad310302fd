//! The tables of docs/SETTINGS.md are written from the flags; this test holds them to each other.
//!
//! `CHATLIFT_WRITE_DOCS=1 cargo test --test it documents::settings` writes them anew.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Command, CommandFactory};

use chatlift::shell::cli::flags::Cli;
use chatlift::shell::cli::is_for_one_run;

/// Everything behind this line is written from the flags.
const MARK: &str = "<!-- Written from the flags: CHATLIFT_WRITE_DOCS=1 cargo test --test it documents::settings -->\n";
/// Where the page says of a flag that the configuration file may not have it.
const NOT_IN_FILE: &str = " Not in the file.";

/// The section of flags that stand in no part of the help, until it is known how many commands have them.
const OWN: &str = "";

/// A flag as its row shows it, and the commands that have it.
struct Row {
    section: String,
    flag: String,
    environment: String,
    meaning: String,
    default: String,
    commands: Vec<String>,
}

/// All flags in the order of the help. Commands whose help says the same of a flag share its row.
fn rows() -> Vec<Row> {
    let (mut rows, mut all) = (Vec::new(), Cli::command());
    all.build();
    for command in all.get_subcommands().filter(|command| command.get_name() != "help") {
        collect(command, command.get_name(), &mut rows);
    }
    for row in rows.iter_mut().filter(|row: &&mut Row| row.section == OWN) {
        row.section = if row.commands.len() > 1 { "Input".to_owned() } else { format!("Only {}", row.commands[0]) };
    }
    rows
}

fn collect(command: &Command, name: &str, rows: &mut Vec<Row>) {
    let reads_file = command.get_arguments().any(|arg| arg.get_long() == Some("config"));
    for arg in command.get_arguments().filter(|arg| !arg.is_positional() && !arg.is_hide_set() && arg.get_id() != "help") {
        let row = row(arg, name, reads_file);
        let same = |known: &&mut Row| known.flag == row.flag && known.meaning == row.meaning && known.section == row.section;
        match rows.iter_mut().find(same) {
            Some(known) => known.commands.extend(row.commands),
            None => rows.push(row),
        }
    }
    for inner in command.get_subcommands().filter(|command| command.get_name() != "help") {
        collect(inner, &format!("{name} {}", inner.get_name()), rows);
    }
}

fn row(arg: &Arg, command: &str, reads_file: bool) -> Row {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default().replace('\n', " ");
    let (help, environment) = without(&help, "env");
    let (help, said) = without(&help, "default");
    let name = arg.get_long().unwrap_or_default();
    let is_kept_out = reads_file && name != "config" && is_for_one_run(name);
    let values: Vec<_> =
        arg.get_possible_values().iter().filter(|value| !value.is_hide_set()).map(|value| format!("`{}`", value.get_name())).collect();
    let mut meaning = sentence(&help);
    if !arg.is_hide_possible_values_set() && values.len() > 1 && !matches!(arg.get_action(), ArgAction::SetTrue) {
        meaning = format!("{meaning} One of {}.", values.join(", "));
    }
    if is_kept_out {
        meaning += NOT_IN_FILE;
    }
    let given: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    let default = if takes_value(arg) && !given.is_empty() { given.join(" ") } else { said };
    let section = arg.get_help_heading().map_or_else(|| OWN.to_owned(), str::to_owned);
    Row { section, flag: flag(arg), environment, meaning, default, commands: vec![command.to_owned()] }
}

fn takes_value(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

/// The flag as it is typed.
fn flag(arg: &Arg) -> String {
    let long = arg.get_long().map(|name| format!("--{name}"));
    let short = arg.get_short().map(|name| format!("-{name}"));
    let names: Vec<_> = long.into_iter().chain(short).collect();
    let value = arg.get_value_names().unwrap_or_default().join(" ");
    let is_optional = arg.get_num_args().is_some_and(|count| count.min_values() == 0);
    match (takes_value(arg), is_optional) {
        (false, _) => names.join(", "),
        (true, true) => format!("{}[={value}]", names.join(", ")),
        (true, false) => format!("{} {value}", names.join(", ")),
    }
}

/// A help text without its `[name: …]`, and what stood there.
fn without(help: &str, name: &str) -> (String, String) {
    let Some((before, rest)) = help.split_once(&format!("[{name}: ")) else { return (help.to_owned(), String::new()) };
    let (inside, behind) = rest.split_once(']').expect("a bracket that is opened in a help text is closed");
    (format!("{}{behind}", before.trim_end()), inside.to_owned())
}

fn sentence(help: &str) -> String {
    let text = help.trim();
    if text.ends_with(['.', '…']) { text.to_owned() } else { format!("{text}.") }
}

/// The text in the form of a table's cell, with variables and flags between backticks.
fn cell(text: &str) -> String {
    let parts = text.split('`').enumerate().map(|(at, part)| if at % 2 == 0 { with_code(part) } else { format!("`{part}`") });
    parts.collect::<String>().replace('|', "\\|")
}

fn with_code(prose: &str) -> String {
    let is_code = |word: &str| word.starts_with("CHATLIFT_") || (word.starts_with("--") && word.len() > 2);
    let marked = |word: &str| {
        let end = word.trim_end_matches([',', '.', ';', ':', ')']).len();
        if is_code(word) { format!("`{}`{}", &word[..end], &word[end..]) } else { word.to_owned() }
    };
    prose.split(' ').map(marked).collect::<Vec<_>>().join(" ")
}

/// The sections of the page.
fn generated() -> String {
    let rows = rows();
    let mut sections: Vec<&str> = Vec::new();
    for row in &rows {
        if !sections.contains(&row.section.as_str()) {
            sections.push(&row.section);
        }
    }
    sections.iter().map(|name| section(name, &rows.iter().filter(|row| row.section == *name).collect::<Vec<_>>())).collect()
}

fn section(name: &str, rows: &[&Row]) -> String {
    let commands = |row: &Row| row.commands.iter().map(|command| format!("`{command}`")).collect::<Vec<_>>().join(", ");
    let with_same = |row: &Row| rows.iter().filter(|other| other.commands == row.commands).count();
    let usual = commands(rows.iter().rev().max_by_key(|row| with_same(row)).expect("a section has rows"));
    let is_of_one_set = rows.iter().all(|row| commands(row) == usual);
    let has_default = rows.iter().any(|row| !row.default.is_empty());
    let has_environment = rows.iter().any(|row| !row.environment.is_empty());
    let row = |row: &&Row| {
        let mut cells = vec![format!("`{}`", row.flag.replace('|', "\\|")), cell(&row.meaning)];
        cells.extend(has_default.then(|| cell(&row.default)));
        cells.extend(has_environment.then(|| cell(&row.environment)));
        cells.extend((!is_of_one_set).then(|| if commands(row) == usual { String::new() } else { commands(row) }));
        format!("| {} |\n", cells.join(" | "))
    };
    let mut head = vec!["flag", "meaning"];
    head.extend(has_default.then_some("default"));
    head.extend(has_environment.then_some("environment"));
    head.extend((!is_of_one_set).then_some("commands"));
    let table: String = rows.iter().map(row).collect();
    let others = if is_of_one_set { "" } else { ", unless the last column names others" };
    format!("\n## {name}\n\nCommands: {usual}{others}.\n\n| {} |\n|{}\n{table}", head.join(" | "), "---|".repeat(head.len()))
}

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/SETTINGS.md")
}

#[test]
fn the_page_of_settings_says_what_the_flags_say() {
    let text = std::fs::read_to_string(page()).unwrap();
    let (head, written) = text.split_once(MARK).expect("the page has the mark of what is written from the flags");
    let expected = generated();
    if std::env::var_os("CHATLIFT_WRITE_DOCS").is_some() {
        std::fs::write(page(), format!("{head}{MARK}{expected}")).unwrap();
        return;
    }
    let (stands, should): (BTreeSet<_>, BTreeSet<_>) = (written.lines().collect(), expected.lines().collect());
    let (surplus, lacking): (Vec<_>, Vec<_>) = (stands.difference(&should).collect(), should.difference(&stands).collect());
    let command = "CHATLIFT_WRITE_DOCS=1 cargo test --test it documents::settings";
    assert!(
        written == expected,
        "docs/SETTINGS.md is not what the flags say; `{command}` writes it anew\nnot in the flags: {surplus:#?}\nnot on the page: {lacking:#?}"
    );
}

#[test]
fn a_flag_becomes_a_row() {
    let rows = rows();
    let row = |flag: &str| rows.iter().find(|row| row.flag == flag).unwrap_or_else(|| panic!("no row {flag}"));
    let identifier = row("--identifier NAME");
    assert_eq!((identifier.environment.as_str(), identifier.default.as_str()), ("CHATLIFT_IDENTIFIER", "administrator"));
    assert!(identifier.commands.contains(&"import".to_owned()) && identifier.commands.contains(&"state retarget".to_owned()));
    assert!(row("--restart").meaning.ends_with(NOT_IN_FILE) && !row("--map FIELD=COLUMN").meaning.ends_with(NOT_IN_FILE));
    assert_eq!((row("--batch[=strict]").default.as_str(), row("--max-invalid PERCENT").default.as_str()), ("", "1"));
    assert_eq!(cell("of --rate, or CHATLIFT_RATE (a|b) `--x`"), "of `--rate`, or `CHATLIFT_RATE` (a\\|b) `--x`");
}
