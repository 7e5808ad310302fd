//! Checks that modules import only what the floors of ARCHITECTURE.md allow.
//!
//! A floor is a folder of `src`, so a new module belongs to the floor of its folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Whether a module may import another one, besides itself.
fn may_import(importer: &Module, target: &Module) -> bool {
    let same_floor = importer.floor == target.floor;
    match importer.floor.as_str() {
        _ if importer == target => true,
        "domain" => same_floor,
        "io" => {
            target.floor == "domain"
                || ["csv_out", "files"].contains(&target.name.as_str())
                || (same_floor && BUILT_ON.contains(&importer.and(target)))
        }
        "flow" => ["domain", "io"].contains(&target.floor.as_str()) || (same_floor && BUILT_ON.contains(&importer.and(target))),
        "shell" => target.floor != "shell" || importer.name == "cli" || target.name != "cli",
        // The mock service shares only the wire format with the client.
        "sandbox" => same_floor || (target.floor == "io" && target.name == "api::wire"),
        other => panic!("src/{other} is no floor: give it a rule here and in ARCHITECTURE.md"),
    }
}

/// Modules that are built on another module of their own floor.
const BUILT_ON: [(&str, &str); 9] = [
    ("calls", "dispatch"),
    ("gate", "quota"),
    ("import", "dispatch"),
    ("sync", "calls"),
    ("sync", "check"),
    ("sync", "dispatch"),
    ("sync", "import"),
    ("verify", "calls"),
    ("verify", "dispatch"),
];

/// A module of the second level, such as `io::gate`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Module {
    floor: String,
    name: String,
}

impl Module {
    fn new(floor: &str, name: &str) -> Self {
        Self { floor: floor.to_owned(), name: name.to_owned() }
    }

    fn and<'a>(&'a self, other: &'a Module) -> (&'a str, &'a str) {
        (&self.name, &other.name)
    }

    /// The module behind `crate::`. The sandbox may import only a part of `api`, so the full path is kept there.
    fn of(path: &str) -> Self {
        let mut parts = path.split("::");
        let floor = parts.next().unwrap_or_default();
        match (floor, parts.next().unwrap_or_default(), parts.next()) {
            ("sandbox", ..) => Self::new("sandbox", ""),
            (floor, "api", Some("wire")) => Self::new(floor, "api::wire"),
            (floor, name, _) => Self::new(floor, name),
        }
    }

    /// The module of a file inside of `src`; `None` for the files that only list modules.
    fn in_file(inside: &Path) -> Option<Self> {
        let parts: Vec<&str> = inside.iter().map(|part| part.to_str().unwrap().trim_end_matches(".rs")).collect();
        match parts[..] {
            ["lib" | "main"] | ["domain" | "io" | "flow" | "shell", "mod"] => None,
            ["sandbox", ..] => Some(Self::new("sandbox", "")),
            [floor, name, ..] => Some(Self::new(floor, name)),
            _ => panic!("{} stands on no floor", inside.display()),
        }
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

/// The paths behind `crate::` and `super::` in a source file, without its tests; `inside` is the file's place in `src`.
fn imports(source: &str, inside: &Path) -> BTreeSet<String> {
    let source = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let mut module: Vec<&str> = inside.iter().map(|part| part.to_str().unwrap().trim_end_matches(".rs")).collect();
    module.retain(|name| *name != "mod");
    let mut found = BTreeSet::new();
    for line in source.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for behind in line.split("crate::").skip(1) {
            assert!(!behind.starts_with('{'), "write one `use crate::…` a module: {line}");
            found.insert(path_at_start(behind));
        }
        let path = line.trim_start().trim_start_matches("pub ").strip_prefix("use ").unwrap_or_default();
        let behind = path.trim_start_matches("super::");
        let ups = (path.len() - behind.len()) / "super::".len();
        // Nearer ones stay in the module.
        if ups > 0 && ups + 1 == module.len() {
            assert!(!behind.starts_with('{'), "write one `use super::…` a module: {line}");
            found.insert(format!("{}::{}", module[0], path_at_start(behind)));
        }
    }
    found
}

/// The path that a text begins with.
fn path_at_start(text: &str) -> String {
    let end = text.find(|char: char| !(char.is_alphanumeric() || char == '_' || char == ':')).unwrap_or(text.len());
    text[..end].to_owned()
}

/// The imports of each module, with a file that has them.
fn imported() -> BTreeMap<(Module, Module), PathBuf> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut found = BTreeMap::new();
    for file in files {
        let inside = file.strip_prefix(&src).unwrap();
        let Some(importer) = Module::in_file(inside) else { continue };
        for target in imports(&std::fs::read_to_string(&file).unwrap(), inside) {
            found.insert((importer.clone(), Module::of(&target)), inside.to_owned());
        }
    }
    assert!(found.len() > 50, "the source was not found: {found:?}");
    found
}

#[test]
fn modules_import_as_their_floors_allow() {
    for ((importer, target), file) in imported() {
        assert!(may_import(&importer, &target), "{} imports crate::{}::{}", file.display(), target.floor, target.name);
    }
}

/// Modules that import each other in a circle, if there are any.
fn circle(arrows: &BTreeMap<Module, BTreeSet<Module>>) -> Option<BTreeSet<Module>> {
    let mut left = arrows.clone();
    loop {
        let is_free = |module: &Module| !left.get(module).is_some_and(|targets| targets.iter().any(|target| left.contains_key(target)));
        let free: Vec<Module> = left.keys().filter(|module| is_free(module)).cloned().collect();
        if free.is_empty() {
            return (!left.is_empty()).then(|| left.into_keys().collect());
        }
        for module in &free {
            left.remove(module);
        }
    }
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    let mut arrows: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for (importer, target) in imported().into_keys().filter(|(importer, target)| importer != target) {
        arrows.entry(importer).or_default().insert(target);
    }
    assert_eq!(circle(&arrows), None);
}

#[test]
fn the_rule_can_be_broken() {
    let breaks = |importer: &str, target: &str| !may_import(&Module::of(importer), &Module::of(target));
    assert!(breaks("domain::account", "io::roster::Record"));
    assert!(breaks("io::journal", "io::roster::Record"));
    assert!(breaks("io::journal", "flow::import"));
    assert!(breaks("flow::dispatch", "shell::cli::flags"));
    assert!(breaks("shell::screen", "shell::cli::flags"));
    assert!(breaks("sandbox::app", "io::api::usersig"));
    let imported = |source: &str, file: &str| imports(source, Path::new(file)).into_iter().collect::<Vec<_>>();
    assert_eq!(imported("use crate::io::gate::Gate;\n// crate::shell::cli\n", "domain/tag.rs"), ["io::gate::Gate"]);
    assert_eq!(imported("use super::account::UserId;\n", "domain/tag.rs"), ["domain::account::UserId"]);
    assert_eq!(imported("pub use super::super::tag::Tag;\n", "domain/account/invalid.rs"), ["domain::tag::Tag"]);
    let arrow = |from: &str, to: &str| (Module::of(from), BTreeSet::from([Module::of(to)]));
    assert!(circle(&BTreeMap::from([arrow("io::a", "io::b"), arrow("io::b", "io::a")])).is_some());
    assert!(circle(&BTreeMap::from([arrow("io::a", "io::b")])).is_none());
}
