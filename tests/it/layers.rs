//! Who may import whom: the rule of ARCHITECTURE.md, held against the source.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Values know nothing but each other.
const VALUES: [&str; 16] = [
    "account",
    "command",
    "figures",
    "finding",
    "guard",
    "health",
    "input",
    "lookalike",
    "outcome",
    "plan",
    "refusals",
    "retry",
    "sample",
    "target",
    "traffic",
    "verdict",
];
/// Edges know values, and each other only where one is built from the other.
const EDGES: [&str; 9] = ["api", "files", "gate", "journal", "lockfile", "roster", "sheets", "spill", "state"];
/// Flows know values and edges.
const FLOWS: [&str; 7] = ["audit", "calls", "check", "deliver", "import", "sync", "verify"];
/// A flow or an edge that is built from another.
const BUILT_FROM: [(&str, &str); 9] = [
    ("import", "deliver"),
    ("journal", "files"),
    ("journal", "lockfile"),
    ("sheets", "files"),
    ("state", "files"),
    ("state", "lockfile"),
    ("sync", "calls"),
    ("sync", "deliver"),
    ("verify", "calls"),
];
/// The shell may know all.
const SHELL: [&str; 3] = ["cli", "progress", "summary"];
/// The stand-in shares the wire format with the client, and nothing else.
const SANDBOX: &str = "sandbox";

/// What a module may import, as it is written behind `crate::`.
fn may_import(module: &str, target: &str) -> bool {
    let first = target.split("::").next().unwrap_or_default();
    let is_own = first == module;
    let values = VALUES.contains(&first);
    let edges = EDGES.contains(&first);
    match module {
        _ if is_own => true,
        _ if VALUES.contains(&module) => values,
        _ if EDGES.contains(&module) => values || BUILT_FROM.contains(&(module, first)),
        _ if FLOWS.contains(&module) => values || edges || BUILT_FROM.contains(&(module, first)),
        _ if SHELL.contains(&module) => true,
        SANDBOX => target.starts_with("api::wire"),
        other => panic!("the module {other} has no layer: give it one here and in ARCHITECTURE.md"),
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") && path.file_name().is_some_and(|name| name != "tests.rs") {
            found.push(path);
        }
    }
}

/// The paths behind `crate::` in a source, without its tests; a group counts as each of its members' first names.
fn imports(source: &str) -> BTreeSet<String> {
    let source = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut found = BTreeSet::new();
    for line in code {
        for behind in line.split("crate::").skip(1) {
            let end = behind.find(|char: char| !(char.is_alphanumeric() || char == '_' || char == ':')).unwrap_or(behind.len());
            found.insert(behind[..end].to_owned());
            assert!(!behind.starts_with('{'), "write one `use crate::…` a module: {line}");
        }
    }
    found
}

#[test]
fn modules_import_as_their_layers_allow() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut seen = BTreeSet::new();
    for file in files {
        let inside = file.strip_prefix(&src).unwrap();
        let module = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if ["lib", "main"].contains(&module.as_str()) {
            continue;
        }
        for target in imports(&std::fs::read_to_string(&file).unwrap()) {
            assert!(may_import(&module, &target), "{} imports crate::{target}", inside.display());
        }
        seen.insert(module);
    }
    let layered: BTreeSet<_> = VALUES.into_iter().chain(EDGES).chain(FLOWS).chain(SHELL).chain([SANDBOX]).map(str::to_owned).collect();
    assert_eq!(seen, layered, "every module has its layer, and every layer's modules exist");
}

#[test]
fn the_rule_can_be_broken() {
    assert!(!may_import("account", "roster::Record"));
    assert!(!may_import("journal", "roster::Record"));
    assert!(!may_import("deliver", "cli::exit"));
    assert!(!may_import("sandbox", "api::usersig"));
    assert!(imports("use crate::gate::Gate;\n// crate::cli\n").contains("gate::Gate"));
}
