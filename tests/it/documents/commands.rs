//! Runs the commands of README.md against the sandbox and compares what they print, and checks that the commands and flags that the other
//! documents name exist.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use clap::{CommandFactory, Parser};

use chatlift::shell::cli::flags::Cli;

use crate::support::ports::unused_port;
use crate::support::tools::skipped;
use crate::support::{CliFixture, KEY, Running, eventually, users};

/// The documents for users.
const PAGES: [&str; 2] = ["README.md", "docs"];
/// Seconds that a block may take. Chosen: far more than any needs, even on a busy machine.
const SHELL_MAX_S: &str = "60";
/// Flags of other programs in the documents for users.
const FLAGS_OF_OTHERS: [&str; 6] = ["--release", "--locked", "--path", "--bench", "--test", "--now"];
/// Names that stand for a value in the documents, and a value.
const PLACEHOLDERS: [(&str, &str); 1] = [("SHELL", "bash")];

/// A fenced block: its language, and its text.
#[derive(Debug, Clone)]
struct Block {
    language: String,
    text: String,
}

fn blocks(text: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut is_inside = false;
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some(_) if is_inside => is_inside = false,
            Some(language) => {
                found.push(Block { language: language.to_owned(), text: String::new() });
                is_inside = true;
            }
            None if is_inside => found.last_mut().unwrap().text.extend([line, "\n"]),
            None => {}
        }
    }
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README.md and the pages of the book, with their names.
fn pages() -> Vec<(String, String)> {
    let mut paths = vec![root().join(PAGES[0])];
    let book = std::fs::read_dir(root().join(PAGES[1])).unwrap().map(|entry| entry.unwrap().path());
    paths.extend(book.filter(|path| path.extension().is_some_and(|end| end == "md")));
    paths.into_iter().map(|path| (path.display().to_string(), std::fs::read_to_string(&path).unwrap())).collect()
}

/// A reader who follows README.md: a folder, the variables that the reader has exported, and a service.
struct Reader<'a> {
    folder: tempfile::TempDir,
    exported: Vec<(String, String)>,
    endpoint: &'a str,
}

impl<'a> Reader<'a> {
    fn new(endpoint: &'a str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let accounts = std::fs::read_to_string(root().join("fixtures/accounts.csv")).unwrap();
        std::fs::create_dir(folder.path().join("fixtures")).unwrap();
        std::fs::write(folder.path().join("fixtures/accounts.csv"), &accounts).unwrap();
        std::fs::write(folder.path().join("users.csv"), accounts + "émbre_3,Embre,\n").unwrap();
        std::fs::create_dir(folder.path().join("bin")).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_chatlift"), folder.path().join("bin/chatlift")).unwrap();
        Self { folder, exported: Vec::new(), endpoint }
    }

    /// Runs a block as a shell does and returns what it prints. What the reader would type or change is done here.
    fn run(&mut self, block: &str) -> String {
        let script = block
            .replace("cargo run --release -- ", "chatlift ")
            .replace("region = \"singapore\"", &format!("endpoint = \"{}\"", self.endpoint));
        if script.contains("import users.rejects.csv") {
            let rejects = self.folder.path().join("users.rejects.csv");
            let mended = std::fs::read_to_string(&rejects).unwrap().replace("émbre_3", "embre_3");
            std::fs::write(rejects, mended).unwrap();
        }
        let stdin = self.folder.path().join("typed");
        std::fs::write(&stdin, format!("{KEY}\n")).unwrap();
        let path = format!("{}:{}", self.folder.path().join("bin").display(), std::env::var("PATH").unwrap());
        // `timeout` ends a shell that waits for ever, and everything that it has started.
        let mut shell = Command::new("timeout");
        shell
            .args([SHELL_MAX_S, "/bin/sh", "-c", &format!("exec 2>&1\n{script}")])
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", path);
        // The limit costs time; other tests hold it.
        shell.env("CHATLIFT_RATE", "0").envs(self.exported.iter().cloned()).stdin(Stdio::from(std::fs::File::open(stdin).unwrap()));
        let output = shell.output().unwrap();
        let exports = script.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
        self.exported.extend(exports.map(|(name, value)| (name.to_owned(), value.to_owned())));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// A line without what differs from run to run.
fn steady(line: &str) -> &str {
    let measured = ["requests/s", "latency", "elapsed"];
    measured.into_iter().find(|name| line.starts_with(name)).unwrap_or(line)
}

/// The first line of `expected` that `output` lacks, or has before the line above it.
fn missing_line<'a>(expected: &'a str, output: &str) -> Option<&'a str> {
    let mut printed = output.lines().map(steady);
    expected.lines().find(|line| !printed.any(|printed| printed == steady(line)))
}

fn sandbox(bench: &CliFixture) -> (Running<'_>, String) {
    let key = bench.key();
    let sandbox = bench.call(&["sandbox", "--secret-key-file", key.to_str().unwrap()]).start();
    eventually("it serves", || sandbox.stderr().contains("; Ctrl-C"));
    let said = sandbox.stderr();
    let endpoint = said.split("serving at ").nth(1).unwrap().split(';').next().unwrap().to_owned();
    (sandbox, endpoint)
}

#[test]
fn each_command_of_the_readme_prints_what_stands_below_it() {
    let bench = CliFixture::new();
    let (_sandbox, endpoint) = sandbox(&bench);
    let mut reader = Reader::new(&endpoint);
    let blocks = blocks(&std::fs::read_to_string(root().join("README.md")).unwrap());
    let mut compared = 0;
    for (at, block) in blocks.iter().enumerate().filter(|(_, block)| block.language == "sh") {
        // Building and installing takes minutes; CI builds all the same.
        if block.text.starts_with("cargo install") {
            continue;
        }
        let printed = reader.run(&block.text);
        if let Some(expected) = blocks.get(at + 1).filter(|next| next.language == "text") {
            let missing = missing_line(&expected.text, &printed);
            assert!(missing.is_none(), "README.md has a line that `{}` does not print: {missing:?}\n{printed}", block.text.trim());
            compared += 1;
        }
    }
    assert!(compared >= 7, "only {compared} outputs stand below their commands");
}

/// The block of docs/SANDBOX.md that asks for the audit, with a port that is free, for a few users.
#[test]
fn the_rehearsal_runs_as_it_stands_and_leaves_nothing_running() {
    if Command::new("curl").arg("--version").output().is_err() {
        skipped("the rehearsal of docs/SANDBOX.md", "curl is missing");
        return;
    }
    let mut reader = Reader::new("unused");
    std::fs::write(reader.folder.path().join("users.csv"), users(20)).unwrap();
    let page = std::fs::read_to_string(root().join("docs/SANDBOX.md")).unwrap();
    let block = blocks(&page).into_iter().find(|block| block.language == "sh" && block.text.contains("/audit")).unwrap();
    let port = unused_port().to_string();
    let printed = reader.run(&format!("{}wait\n", block.text.replace("18080", &port)));
    for expected in ["done: all 20 rows imported", "\"violations\":0", "\"UserID\":\"user1\"", "UserID,Nick,FaceUrl"] {
        assert!(printed.contains(expected), "{expected} is not in {printed}");
    }
    assert!(std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_err(), "the sandbox has stopped");
}

#[test]
fn a_line_that_a_command_does_not_print_is_noticed() {
    assert_eq!(missing_line("rows 3\nelapsed  1s\n", "rows 3\nother\nelapsed  7s\n"), None);
    assert_eq!(missing_line("rows 3\nelapsed 1s\n", "elapsed 7s\nrows 3\n"), Some("elapsed 1s"), "the order counts");
}

/// The commands of chatlift in a text: lines of `sh` blocks, and code between backticks, as far as they are whole.
fn command_lines(text: &str) -> Vec<String> {
    let blocks = blocks(text);
    let scripts = blocks.iter().filter(|block| block.language == "sh").map(|block| block.text.replace("\\\n", " "));
    let typed: Vec<String> = scripts.flat_map(|script| script.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>()).collect();
    let spans = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).map(str::to_owned);
    // The name of a command alone is no command line.
    let is_whole = |line: &String| !line.contains('…') && !line.contains("COMMAND") && line.split(' ').nth(2).is_some();
    let is_command = |line: &String| line.starts_with("chatlift ") && is_whole(line);
    typed.into_iter().chain(spans).filter(is_command).collect()
}

/// The words of a simple command line, up to a redirection, a pipe or a comment.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for char in line.chars() {
        match (quote, char) {
            (Some(open), _) if char == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(char);
                word.get_or_insert_default();
            }
            (None, '>' | '<' | '|' | '&' | '#' | ';' | ')') => break,
            (None, ' ') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(char),
        }
    }
    words.extend(word);
    words
}

#[test]
fn each_command_of_the_documents_is_one_that_chatlift_takes() {
    let mut wrong = Vec::new();
    let mut lines = 0;
    for (page, text) in pages() {
        for line in command_lines(&text) {
            lines += 1;
            let filled = PLACEHOLDERS.iter().fold(line.clone(), |line, (name, value)| line.replace(name, value));
            if let Err(error) = Cli::try_parse_from(words(&filled))
                && error.use_stderr()
            {
                wrong.push(format!("{page}: {line}: {}", error.to_string().lines().next().unwrap_or_default()));
            }
        }
    }
    assert!(lines > 20, "{lines}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn flags_of(command: &clap::Command, found: &mut BTreeSet<String>) {
    found.extend(command.get_arguments().filter_map(clap::Arg::get_long).map(|name| format!("--{name}")));
    command.get_subcommands().for_each(|command| flags_of(command, found));
}

#[test]
fn each_flag_of_the_documents_exists() {
    let mut known: BTreeSet<String> = FLAGS_OF_OTHERS.map(str::to_owned).into();
    let mut cli = Cli::command();
    cli.build();
    flags_of(&cli, &mut known);
    let is_part = |char: char| char.is_ascii_lowercase() || char == '-';
    for (page, text) in pages() {
        let words = text.split(|char: char| char.is_whitespace() || "`(,[|\"".contains(char)).filter(|word| word.starts_with("--"));
        let flags =
            words.map(|word| word.split(|char| !is_part(char)).next().unwrap()).filter(|flag| flag.len() > 2 && !flag.starts_with("---"));
        let unknown: BTreeSet<_> = flags.filter(|flag| !known.contains(*flag)).collect();
        assert!(unknown.is_empty(), "{page} names flags that no command has: {unknown:?}");
    }
}

#[test]
fn commands_are_found_and_split() {
    assert_eq!(command_lines("`chatlift man` `chatlift COMMAND --help`\n```sh\nchatlift check \\\n a\nls\n```\n"), ["chatlift check   a"]);
    assert_eq!(words("chatlift x --map 'Nick=a b' --null \"\" > out"), ["chatlift", "x", "--map", "Nick=a b", "--null", ""]);
}
