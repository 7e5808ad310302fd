//! Checks that the documents say what is so: names, links, commands and their output.

mod commands;
mod links;
mod settings;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The source files below a folder.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// The path of a module in the names of tests: `src/api/mod.rs` is `api`, `tests/it/flow/kept.rs` is `flow::kept`.
fn module(inside: &Path) -> String {
    let path = inside.with_extension("");
    let parts: Vec<_> = path.iter().map(|part| part.to_str().unwrap()).filter(|part| !["mod", "main", "lib"].contains(part)).collect();
    parts.join("::")
}

/// Every module, and every function that may be a test, by the paths that `cargo test` uses.
fn paths() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    for base in [root.join("src"), root.join("tests/it")] {
        let mut files = Vec::new();
        sources(&base, &mut files);
        for file in files {
            let module = module(file.strip_prefix(&base).unwrap());
            let text = std::fs::read_to_string(&file).unwrap();
            let (code, tests) = text.split_once("\nmod tests {").unwrap_or((&text, ""));
            found.extend(functions(code).map(|name| format!("{module}::{name}")));
            found.extend(functions(tests).map(|name| format!("{module}::tests::{name}")));
            found.insert(format!("{module}::tests"));
            found.insert(module);
        }
    }
    found
}

fn functions(code: &str) -> impl Iterator<Item = &str> {
    let names = code
        .lines()
        .filter_map(|line| line.trim_start().trim_start_matches("pub(crate) ").trim_start_matches("async ").strip_prefix("fn "));
    names.filter_map(|rest| rest.split(['(', '<']).next())
}

/// The text between backticks that looks like the path of a module or a test. `…::x` belongs to the module of the path before it.
fn named(line: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for word in line.split('`').skip(1).step_by(2).filter(|word| word.contains("::")) {
        let path = match (word.strip_prefix('…'), found.last().and_then(|last| last.rsplit_once("::"))) {
            (Some(rest), Some((module, _))) => format!("{module}{rest}"),
            _ => word.to_owned(),
        };
        if path.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || "_:".contains(char)) {
            found.push(path);
        }
    }
    found
}

#[test]
fn each_test_that_is_said_to_prove_something_exists() {
    let exist = paths();
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/README.md")).unwrap();
    let named: Vec<String> = readme.lines().flat_map(named).collect();
    assert!(named.len() > 150, "{}", named.len());
    let unknown: Vec<_> = named.iter().filter(|path| !exist.contains(*path)).collect();
    assert!(unknown.is_empty(), "tests/README.md names what isn't there: {unknown:?}");
}

#[test]
fn a_name_without_a_test_is_noticed() {
    let exist = paths();
    assert!(exist.contains("documents::a_name_without_a_test_is_noticed") && exist.contains("domain::retry::tests"));
    assert!(!exist.contains("documents::a_name_that_nobody_has"));
    assert_eq!(named("| `a::b`, `…::c` | `--flag`, `A::B` |"), ["a::b", "a::c"]);
}

/// Fails if a document has more lines than `most`, or lines wider than 120 columns.
#[track_caller]
fn assert_fits(document: &str, most: usize) {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).unwrap();
    assert!(text.lines().count() <= most, "{document} has {} lines", text.lines().count());
    let wide: Vec<_> = text.lines().filter(|line| line.chars().count() > 120).collect();
    assert!(wide.is_empty(), "{document}: wider than 120 columns: {wide:#?}");
}

#[test]
fn the_architecture_fits_on_its_page() {
    assert_fits("ARCHITECTURE.md", 120);
}

#[test]
fn the_readme_is_short() {
    assert_fits("README.md", 200);
}

/// What stands between backticks in the left column of the tables of docs/TROUBLESHOOTING.md, except codes of the service.
fn messages(page: &str) -> Vec<&str> {
    let left = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let quoted = left.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    quoted.filter(|message| !message.chars().all(|char| char.is_ascii_digit())).collect()
}

#[test]
fn each_message_that_the_troubleshooting_page_explains_is_in_the_source() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    let text: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    // A string that goes on in the next line is one string.
    let joined: String = text.split("\\\n").map(str::trim_start).collect();
    let page = std::fs::read_to_string(root.join("docs/TROUBLESHOOTING.md")).unwrap();
    let messages = messages(&page);
    assert!(messages.len() > 20, "{}", messages.len());
    let unknown: Vec<_> = messages.into_iter().filter(|message| !joined.contains(message)).collect();
    assert!(unknown.is_empty(), "docs/TROUBLESHOOTING.md explains what chatlift does not say: {unknown:#?}");
}
