//! The manual: a page of roff for each command, made from its flags.

use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};

use super::access::{Remedies, cannot_use};
use super::flags::{Cli, ManFlags};
use super::stdout::print;
use crate::shell::exit::ExitMessage;

/// How the variables begin that chatlift reads.
const VARIABLE: &str = "CHATLIFT_";

/// What each exit code means. Source: the table of exit codes in docs/RESULTS.md.
const EXIT_STATUS: [(&str, &str); 7] = [
    ("0", "Everything that was asked for is done."),
    ("1", "The run could not continue (disk, internal error). The same command resumes it."),
    ("2", "You have to fix something: the command line, the configuration, or a file."),
    ("3", "The run finished, but some rows are failed or invalid."),
    ("4", "The run stopped before the end. The same command resumes it."),
    ("5", "The service refused the credentials, the permission or the region, or has a wrong certificate or redirects."),
    ("6", "A safety check (guard) of sync tripped. Nothing was sent."),
];

/// The files of a run, named after FILE.
const RUN_FILES: [(&str, &str); 5] = [
    ("FILE.results.csv", "The result of each row, in the order of the input."),
    ("FILE.rejects.csv", "The failed and invalid rows, ready to be fixed and imported."),
    ("FILE.checkpoint.json", "How far the run is, for resuming it."),
    ("FILE.checkpoint.json.lock", "Held while a process works on these files."),
    ("FILE.input.csv", "The copy of a compressed or piped input, until the run is finished."),
];

/// Prints the pages of all commands, or that of one; with `--dir`, writes each into a file of its own.
pub(super) fn run(flags: &ManFlags) -> ExitMessage {
    let mut chatlift = Cli::command();
    chatlift.build();
    let pages = pages(&chatlift, "chatlift", "");
    let printed = match (&flags.dir, &flags.command) {
        (Some(dir), _) => write_all(dir, &pages),
        (None, None) => print(&pages.iter().map(|(_, page)| page.as_str()).collect::<String>()),
        (None, Some(name)) => match pages.iter().find(|(page, _)| page.strip_prefix("chatlift-") == Some(name)) {
            Some((_, page)) => print(page),
            None => Err(ExitMessage::yours(format!("there is no command {name:?}"), "chatlift --help lists the commands")),
        },
    };
    printed.map_or_else(|word| word, |()| ExitMessage::done(""))
}

fn write_all(dir: &Path, pages: &[(String, String)]) -> Result<(), ExitMessage> {
    let remedies = Remedies { place: "give a folder that is there and that you may write to", disk: "make room" };
    let write = |name: &String, page: &String| -> io::Result<()> { std::fs::write(dir.join(format!("{name}.1")), page) };
    pages.iter().try_for_each(|(name, page)| write(name, page)).map_err(|error| {
        let why = format!("cannot write the manual into {}: {error}", dir.display());
        cannot_use(why, &error, remedies)
    })
}

/// The page of a command and those of its subcommands, by their names. `words` is how the command is called behind `chatlift`.
fn pages(command: &Command, name: &str, words: &str) -> Vec<(String, String)> {
    let subcommands = command.get_subcommands().filter(|sub| sub.get_name() != "help");
    let below = subcommands.flat_map(|sub| {
        let (name, words) = (format!("{name}-{}", sub.get_name()), format!("{words} {}", sub.get_name()));
        pages(sub, &name, words.trim_start())
    });
    std::iter::once((name.to_owned(), page(command, name, words))).chain(below).collect()
}

fn page(command: &Command, name: &str, words: &str) -> String {
    let man = Man::new(command.clone()).section("1").source(concat!("chatlift ", env!("CARGO_PKG_VERSION")));
    let mut page = Vec::new();
    let rendered = man
        .render_title(&mut page)
        .and_then(|()| man.render_name_section(&mut page))
        .and_then(|()| man.render_synopsis_section(&mut page))
        .and_then(|()| man.render_description_section(&mut page))
        .and_then(|()| man.render_options_section(&mut page))
        .and_then(|()| if command.has_subcommands() { man.render_subcommands_section(&mut page) } else { Ok(()) });
    rendered.expect("a Vec takes any bytes");
    let mut roff = Roff::new();
    list(&mut roff, "ENVIRONMENT", variables(command).iter().map(|(name, meaning)| (name.as_str(), meaning.as_str())));
    list(&mut roff, "FILES", files(words).iter().copied());
    let codes = EXIT_STATUS.into_iter().filter(|(code, _)| can_end_with(words, code));
    list(&mut roff, "EXIT STATUS", codes.map(|(code, meaning)| (code, meaning_for(words, code).unwrap_or(meaning))));
    examples(&mut roff, words);
    roff.control("SH", ["SEE ALSO"]);
    roff.text(vec![
        if name == "chatlift" { italic("README.md") } else { bold("chatlift") },
        roman(if name == "chatlift" { "" } else { "(1)" }),
    ]);
    String::from_utf8_lossy(&page).into_owned() + &roff.render()
}

fn list<'a>(roff: &mut Roff, heading: &str, items: impl Iterator<Item = (&'a str, &'a str)>) {
    let mut items = items.peekable();
    if items.peek().is_some() {
        roff.control("SH", [heading]);
    }
    for (term, meaning) in items {
        roff.control("TP", []);
        roff.text(vec![bold(term)]);
        roff.text(vec![roman(meaning)]);
    }
}

/// The variables that the help of a command's flags names, each with its flag.
fn variables(command: &Command) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
        let (Some(flag), Some(help)) = (arg.get_long(), arg.get_help()) else { continue };
        let help = help.to_string();
        let is_name = |char: char| char.is_ascii_uppercase() || char == '_';
        for (at, _) in help.match_indices(VARIABLE) {
            let name: String = help[at..].chars().take_while(|char| is_name(*char)).collect();
            if !found.iter().any(|(known, _)| *known == name) {
                found.push((name, format!("Used where --{flag} is not given.")));
            }
        }
    }
    found
}

/// The files of a command besides those that its flags name.
const fn files(words: &str) -> &'static [(&'static str, &'static str)] {
    match words.as_bytes() {
        b"import" | b"sync" => &RUN_FILES,
        b"verify" => &[
            ("FILE.verify.csv", "What was found for each UserID."),
            ("FILE.repair.csv", "The rows of missing and different accounts, ready to be imported."),
        ],
        _ => &[],
    }
}

/// What a code means of a command that no other one resumes.
fn meaning_for(words: &str, code: &str) -> Option<&'static str> {
    match (words, code) {
        ("probe", "1") => Some("The probe could not continue (disk, internal error)."),
        ("probe", "4") => Some(
            "The service cannot be reached or is busy, or a signal came. Probe again; if --write has created an account, with another UserID.",
        ),
        ("check" | "audit" | "verify", "1") => {
            Some("The command could not continue (disk, internal error). The same command begins again.")
        }
        ("check" | "audit" | "verify", "4") => Some("The command stopped before the end. The same command begins again."),
        ("sandbox" | "state" | "status" | "usersig" | "usersig decode" | "completions" | "man", "1") => {
            Some("The command could not continue (disk, internal error).")
        }
        _ => None,
    }
}

/// Whether a command can end with this code.
fn can_end_with(words: &str, code: &str) -> bool {
    match words {
        "" | "sync" => true,
        "check" | "audit" => ["0", "1", "2", "3", "4"].contains(&code),
        "probe" => ["0", "1", "2", "4", "5"].contains(&code),
        "sandbox" | "status" | "usersig" | "usersig decode" | "completions" | "man" => ["0", "1", "2"].contains(&code),
        _ => code != "6",
    }
}

fn examples(roff: &mut Roff, words: &str) {
    let examples: &[(&str, &str)] = match words {
        "" | "import" => &[
            (
                "Rehearse with the sandbox, a built-in mock service; this needs no credentials:",
                "chatlift import users.csv --sandbox --results rehearsal.results.csv",
            ),
            (
                "Import 100 rows first; the same command without --limit continues:",
                "chatlift import users.csv --sdkappid 1400000000 --secret-key-file key --region singapore --limit 100",
            ),
        ],
        "check" => &[("See which rows would be refused, and how long the import takes:", "chatlift check users.csv")],
        "audit" => &[("Prove that every row has exactly one result:", "chatlift audit users.csv --results users.results.csv")],
        "sync" => &[("Send only new and changed accounts:", "chatlift sync users.csv --state users.db --config chatlift.toml")],
        "verify" => {
            &[("Ask the service whether it has what the file says:", "chatlift verify users.csv --profiles --config chatlift.toml")]
        }
        "state" => &[("Write the known accounts of a state file as CSV:", "chatlift state users.db export")],
        "status" => &[("Show where a run stands, at work or not:", "chatlift status users.csv")],
        "probe" => &[
            ("Check everything before the first run; nothing is changed:", "chatlift probe --config chatlift.toml"),
            (
                "Find out what the documentation leaves open, with an account that is deleted at the end:",
                "chatlift probe --config chatlift.toml --write chatlift-probe-1 --delete",
            ),
        ],
        "sandbox" => &[("Serve the mock service on port 8080:", "chatlift sandbox --port 8080")],
        "usersig" => &[("Show what a UserSig says:", "chatlift usersig --config chatlift.toml | chatlift usersig decode")],
        "completions" => {
            &[("Install completions for bash:", "chatlift completions bash > ~/.local/share/bash-completion/completions/chatlift")]
        }
        "man" => &[("Show the page of one command:", "chatlift man import | man -l -")],
        _ => return,
    };
    roff.control("SH", ["EXAMPLES"]);
    for (meaning, command) in examples {
        roff.control("PP", []);
        roff.text(vec![roman(*meaning)]);
        roff.control("PP", []);
        roff.control("RS", ["4"]);
        roff.control("nf", []);
        roff.text(vec![bold(*command)]);
        roff.control("fi", []);
        roff.control("RE", []);
    }
}
